package pages

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

func withBMC() *lab {
	l := full()
	l.machines[1].BMC = store.BMC{Protocol: store.BMCRedfish, Address: "10.0.0.9", User: "ana", Secret: "hunter2", Trust: store.BMCPinned}
	return l
}

func TestThePowerOfAMachineIsOnItsPage(t *testing.T) {
	l := withBMC()
	name := l.machines[1].Name
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, "redfish://ana@10.0.0.9", `hx-get="/machines/2/power"`, `name="act" value="on"`, "what it has not written to its volume yet is lost")
	if strings.Contains(body, "hunter2") {
		t.Error("the page tells the password")
	}
	_, body = get("/machines/2/power")
	has(t, body, `<dd>On <span class="muted">asked <time`, ">today 14:02:08<")
	if strings.Contains(body, `hx-get="/machines/2/power"`) {
		t.Error("the page asks again and again")
	}

	if code, body := post("/machines/2/power", "act", "off"); code != http.StatusUnprocessableEntity || len(l.orders) != 0 {
		t.Errorf("switched off without a word of the loss: %d %s %v", code, body, l.orders)
	}
	for _, form := range [][]string{
		{"act", "on"}, {"act", "shutdown"}, {"act", "off", "lose", "yes"},
		{"act", "cycle", "lose", "yes", "once", "pxe", "profile", "local"}, {"act", "cycle", "lose", "yes", "profile", "local"},
	} {
		if code, _ := post("/machines/2/power", form...); code != http.StatusOK {
			t.Errorf("%v answers %d", form, code)
		}
	}
	want := []string{name + " on false  false", name + " shutdown false  false", name + " off false  true", name + " cycle true local true", name + " cycle false  true"}
	if !slices.Equal(l.orders, want) {
		t.Errorf("the BMC was told\n%q, want\n%q", l.orders, want)
	}
	if code, _ := post("/machines/2/power", "act", "explode"); code != http.StatusUnprocessableEntity {
		t.Errorf("an act that is none answers %d", code)
	}
}

func TestTheCertificateOfABMCIsComparedOnce(t *testing.T) {
	l := withBMC()
	print := strings.Repeat("ab", 32)
	l.refuse = &store.Error{Kind: store.KindConflict, Op: "power", Err: &store.UntrustedBMC{Machine: "lab-02", Fingerprint: print}}
	get, post := l.enter(t)
	_, body := get("/machines/2/power")
	has(t, body, print, "Compare the SHA-256", `action="/machines/2/bmc/trust"`)
	l.refuse = nil
	if code, _ := post("/machines/2/bmc/trust", "fingerprint", print); code != http.StatusSeeOther || l.machines[1].BMC.Fingerprint != print {
		t.Errorf("%d, %q", code, l.machines[1].BMC.Fingerprint)
	}
	if code, _ := post("/machines/2/bmc/trust", "fingerprint", "ab"); code != http.StatusUnprocessableEntity {
		t.Errorf("a fingerprint that is none answers %d", code)
	}
}

func TestAMachineIsGivenABMCOnItsPage(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, "Give it a BMC", "No BMC is known")
	if code, _ := post("/machines/2/bmc", "bmc", "redfish://ana@10.0.0.9", "secret", "hunter2", "trust", "none"); code != http.StatusSeeOther {
		t.Errorf("it answers %d", code)
	}
	if b := l.machines[1].BMC; b.Secret != "hunter2" || b.Trust != store.BMCNone || b.Address != "10.0.0.9" {
		t.Errorf("%v, trust %s", b, b.Trust)
	}
	if code, body := post("/machines/2/bmc", "bmc", "10.0.0.9", "secret", "hunter2"); code != http.StatusUnprocessableEntity || strings.Contains(body, "hunter2") {
		t.Errorf("an address that is none answers %d", code)
	}
}

func TestManyMachinesAreSwitchedOnAtOnce(t *testing.T) {
	l := withBMC()
	_, post := l.enter(t)
	for _, id := range []string{"1", "2"} {
		if code, _ := post("/machines/bulk", "act", "on", "id", id); code != http.StatusOK {
			t.Errorf("machine %s: %d", id, code)
		}
	}
	if !slices.Equal(l.orders, []string{l.machines[1].Name + " on false  false"}) || !slices.Equal(l.uploads, []string{"woke " + l.machines[0].Name}) {
		t.Errorf("told %q, woke %q", l.orders, l.uploads)
	}
}
