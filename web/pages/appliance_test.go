package pages

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func (l *lab) Setting(_ context.Context, key string) (string, bool, error) {
	v, ok := l.settings[key]
	return v, ok, l.broken
}

func (l *lab) SettingRevision(_ context.Context, key string) (int64, error) {
	return l.revision[key], nil
}

// PutSubnet keeps a subnet, as long as nobody changed it since.
func (l *lab) PutSubnet(_ context.Context, _ store.Actor, n store.Subnet) (store.Subnet, error) {
	if l.refuse != nil {
		return n, l.refuse
	}
	at := slices.IndexFunc(l.subnets, func(o store.Subnet) bool { return o.ID == n.ID })
	if at < 0 {
		n.ID = int64(len(l.subnets) + 1)
		l.subnets = append(l.subnets, n)
		return n, nil
	}
	if l.subnets[at].Revision != n.Revision {
		return n, store.Stale("subnet", n.Name(), l.subnets[at].Revision, n.Revision)
	}
	n.Revision++
	l.subnets[at] = n
	return n, nil
}

func (l *lab) DeleteSubnet(_ context.Context, _ store.Actor, id int64) error {
	l.subnets = slices.DeleteFunc(l.subnets, func(n store.Subnet) bool { return n.ID == id })
	return l.refuse
}

func TestSettingsAreChosenOnAPageWithoutScript(t *testing.T) {
	l := cloning()
	l.settings = map[string]string{"webhook-url": "https://hooks.example.org/T0/very-secret", "webhook-secret": "twelve letters and more", "capture": "off", "default-golden": "gone-golden"}
	l.revision = map[string]int64{"webhook-url": 4}
	get, post := l.enter(t)
	_, body := get("/settings/appliance")
	has(t, body, `name="webhook-url" value="https://hooks.example.org/…"`, "one is set, and is never shown", `value="failed" checked`, `value="not-enrolled"> the machine was not enrolled`, `<option value="gone-golden" selected>`, `name="router-adverts" value="1" checked`, `name="capture" value="1">`,
		`name="space-low" value="10%"`, "80 GiB", "passwords cross the network in the clear", `name="revision-webhook-url" value="4"`, `<option value="`+golden(l)+`"`)
	for _, secret := range []string{"very-secret", "twelve letters"} {
		if strings.Contains(body, secret) {
			t.Errorf("the page shows %q", secret)
		}
	}
	for name, c := range map[string]struct {
		card string
		form []string
		want []string
	}{
		"a boot of nobody":     {"webhook", []string{"webhook-url", "https://hooks.example.org/…", "webhook-on", "not-enrolled"}, []string{"webhook-on is not-enrolled"}},
		"as it was":            {"webhook", []string{"webhook-url", "https://hooks.example.org/…", "webhook-on", "failed"}, []string{"webhook-on is failed"}},
		"another address":      {"webhook", []string{"webhook-url", " http://10.0.0.9/x ", "webhook-on", "failed"}, []string{"webhook-url is http://10.0.0.9/x", "webhook-on is failed"}},
		"a new secret":         {"webhook", []string{"webhook-url", "https://hooks.example.org/…", "webhook-on", "up", "webhook-secret", "another secret"}, []string{"webhook-on is up", "webhook-secret is another secret"}},
		"no secret":            {"webhook", []string{"webhook-url", "", "webhook-on", "up", "no-secret", "1"}, []string{"webhook-url is ", "webhook-on is up", "webhook-secret is "}},
		"packets kept, no RAs": {"boots", []string{"capture", "1"}, []string{"capture is on", "router-adverts is off"}},
		"little room":          {"storage", []string{"space-low", "20G"}, []string{"space-low is 20G"}},
		"what machines get":    {"newcomers", []string{"default-golden", golden(l), "fresh-clones", "1"}, []string{"default-golden is " + golden(l), "fresh-clones is on"}},
	} {
		l.acts = nil
		if code, to := post("/settings/appliance/"+c.card, c.form...); code != http.StatusSeeOther || to != "/settings/appliance#"+c.card || !slices.Equal(l.acts, c.want) {
			t.Errorf("%s: %d %s, %q", name, code, to, l.acts)
		}
	}
	l.acts = nil
	if code, body := post("/settings/appliance/storage", "space-low", "10%"); code != http.StatusOK || !strings.Contains(body, "nothing changed") || len(l.acts) > 0 {
		t.Errorf("the same again: %d, %q", code, l.acts)
	}
	if code, _ := post("/settings/appliance/nothing"); code != http.StatusNotFound {
		t.Errorf("a card that is not there: %d", code)
	}
}

// golden is the name of a volume that machines can get clones of.
func golden(l *lab) string {
	return l.vols[slices.IndexFunc(l.vols, func(v store.Volume) bool { return v.Golden })].Name
}

func TestARefusedCardChangesNothingAndKeepsWhatWasTyped(t *testing.T) {
	l := cloning()
	l.settings = map[string]string{"webhook-url": "https://hooks.example.org/T0/very-secret"}
	_, post := l.enter(t)
	for name, c := range map[string]struct {
		form []string
		want []string
	}{
		"a path that was cut":  {[]string{"webhook-url", "https://hooks.example.org/…/x", "webhook-on", "up"}, []string{`value="https://hooks.example.org/…/x"`, `id="fault-webhook-url"`, "write the whole address anew"}},
		"no URL":               {[]string{"webhook-url", "hooks", "webhook-on", "up"}, []string{`name="webhook-url" value="hooks"`, `aria-invalid="true" aria-describedby="fault-webhook-url" autofocus=""`}},
		"two fields":           {[]string{"webhook-url", "ftp://x", "webhook-secret", "short"}, []string{`id="fault-webhook-url"`, `id="fault-webhook-on"`, `id="fault-webhook-secret"`}},
		"a secret comes alone": {[]string{"webhook-url", "https://a.example/", "webhook-on", "up", "webhook-secret", "short"}, []string{`name="webhook-url" value="https://a.example/"`, "12 to 256 characters"}},
	} {
		code, body := post("/settings/appliance/webhook", c.form...)
		if code != http.StatusUnprocessableEntity || len(l.acts) > 0 {
			t.Errorf("%s: %d, %q", name, code, l.acts)
		}
		has(t, body, c.want...)
		if strings.Contains(body, `value="short"`) {
			t.Errorf("%s: the secret is sent back", name)
		}
	}
	l.refuse = store.Conflict("", "somebody was first")
	if code, body := post("/settings/appliance/storage", "space-low", "5G"); code != http.StatusConflict || !strings.Contains(body, `name="space-low" value="5G"`) || !strings.Contains(body, `id="fault-space-low"`) {
		t.Errorf("a refusal from elsewhere: %d", code)
	}
}

func TestOnlyAdminsChooseSettings(t *testing.T) {
	l := cloning()
	get, post := l.as(t, store.RoleOperator)
	_, body := get("/settings/appliance")
	has(t, body, `<fieldset disabled="" class="shown">`, `name="space-low" value="10%"`)
	if strings.Contains(body, ">Save<") {
		t.Error("an operator is offered to save")
	}
	for _, path := range []string{"/settings/appliance/storage", "/subnets", "/subnets/1", "/subnets/1/remove"} {
		if code, _ := post(path, "space-low", "1G"); code != http.StatusForbidden {
			t.Errorf("%s answers an operator %d", path, code)
		}
	}
}

func TestThePageSaysWhatTheAdminPortShows(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	for want, c := range map[string]Certificate{
		"made by the appliance":        {On: true, SelfMade: true, Ends: noon.AddDate(1, 0, 0), Fingerprint: "AA:BB"},
		"2026-11-21: it has run out":   {On: true, File: "/etc/x.pem", Ends: noon.Add(-24 * time.Hour)},
		`<span class="mono">/x.pem</s`: {On: true, File: "/x.pem", Ends: noon.Add(time.Hour)},
	} {
		l.secure = c
		_, body := get("/settings/appliance")
		has(t, body, want, cmp.Or(c.Fingerprint, "SHA-256"))
	}
}

func TestTrustingANetworkIsForAdmins(t *testing.T) {
	l := full()
	a := l.latest[2]
	a.Diagnoses = []store.Diagnosis{{Code: "LB-SCR-03", Title: "lab-12 was given no script", Fixes: []store.Fix{{Action: "trust-subnet-10.9.0.0/24", Label: "Trust 10.9.0.0/24"}, {Label: "Or by hand"}}}}
	l.latest[2] = a
	get, post := l.as(t, store.RoleOperator)
	_, body := get("/machines/2")
	has(t, body, "Or by hand")
	if strings.Contains(body, "trust-subnet") {
		t.Error("an operator is offered it")
	}
	form := []string{"attempt", strconv.Itoa(int(a.ID)), "action", "trust-subnet-10.9.0.0/24"}
	if code, _ := post(fmt.Sprintf("/attempts/%d/fix", a.ID), form...); code != http.StatusForbidden || len(l.fixed) > 0 {
		t.Errorf("on the boot's page an operator may, or is answered %d", code)
	}
	if code, _ := post("/machines/2/fix", form...); code != http.StatusForbidden || len(l.fixed) > 0 {
		t.Errorf("an operator is answered %d, done %v", code, l.fixed)
	}
	l.roles["admin"] = store.RoleAdmin
	_, body = get("/machines/2")
	has(t, body, `value="trust-subnet-10.9.0.0/24"`)
	if code, _ := post("/machines/2/fix", form...); code != http.StatusSeeOther || len(l.fixed) != 1 {
		t.Errorf("an admin is answered %d, done %v", code, l.fixed)
	}
}
