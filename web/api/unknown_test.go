package api_test

import (
	"net/netip"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/api"
)

func mac(t *testing.T, s string) store.MAC {
	t.Helper()
	m, err := store.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *house) asked(macs ...string) {
	h.t.Helper()
	for i, s := range macs {
		u := store.UnknownMachine{MAC: mac(h.t, s), NIC: "PCI 8086:100e", FirstSeen: time.Now().Add(time.Duration(i) * time.Second), LastSeen: time.Now()}
		if err := h.db.SeeUnknown(h.t.Context(), u); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestUnknownMachinesSayWhoMadeThem(t *testing.T) {
	h := open(t)
	h.asked("00:07:e9:00:00:01", "52:54:00:00:00:01")
	var list api.List[api.UnknownMachine]
	h.must(200, "GET", "/api/v1/unknown-machines", "").json(t, &list)
	makers := map[string]string{}
	for _, u := range list.Items {
		makers[u.MAC.String()] = u.Maker + ", " + u.NIC
	}
	if list.Total != 2 || makers["00:07:e9:00:00:01"] != "Intel, PCI 8086:100e" || makers["52:54:00:00:00:01"] != "QEMU virtual machine, PCI 8086:100e" {
		t.Errorf("%v", makers)
	}
}

func TestAllAreEnrolledByOneRequest(t *testing.T) {
	h := open(t)
	h.asked("00:07:e9:00:00:02", "00:07:e9:00:00:01")
	if a := h.must(422, "POST", "/api/v1/unknown-machines/enroll", `{"name":"lab"}`); len(a.body) == 0 {
		t.Error("a pattern without a number is refused without a word")
	}
	h.must(404, "POST", "/api/v1/unknown-machines/enroll", `{"profile":"nosuch"}`)
	var done api.List[store.Enrolled]
	h.must(422, "POST", "/api/v1/unknown-machines/enroll", `{"macs":["x"]}`)
	h.asked("00:07:e9:00:00:03")
	h.must(201, "POST", "/api/v1/unknown-machines/enroll", `{"name":"one-{n}","macs":["00-07-e9-00-00-03"]}`).json(t, &done)
	if done.Total != 1 || done.Items[0].Name != "one-1" {
		t.Errorf("of those that were named: %+v", done)
	}
	h.must(201, "POST", "/api/v1/unknown-machines/enroll", `{"name":"lab-{n}","profile":"local"}`).json(t, &done)
	if done.Total != 2 || done.Items[0].MAC != mac(t, "00:07:e9:00:00:02") || done.Items[0].Name != "lab-1" || done.Items[1].Name != "lab-2" {
		t.Errorf("%+v", done)
	}
}

func TestRulesAreReplacedWhole(t *testing.T) {
	h := open(t)
	var got api.AutoEnroll
	h.must(200, "GET", "/api/v1/auto-enroll", "").json(t, &got)
	if got.Rules == nil || len(got.Rules) != 0 {
		t.Errorf("at first: %+v", got)
	}
	h.must(200, "PUT", "/api/v1/auto-enroll", `{"rules":[{"prefix":"00-07-E9","name":"Lab-{n}"}]}`).json(t, &got)
	want := store.AutoEnrollRule{Prefix: "00:07:e9", Name: "lab-{n}", Limit: store.DefaultAutoEnrollLimit}
	if len(got.Rules) != 1 || got.Rules[0] != want {
		t.Errorf("set: %+v", got)
	}
	h.must(422, "PUT", "/api/v1/auto-enroll", `{"rules":[{"prefix":"xyz"}]}`)
	h.must(200, "GET", "/api/v1/auto-enroll", "").json(t, &got)
	if len(got.Rules) != 1 || got.Rules[0] != want {
		t.Errorf("after a refusal: %+v", got)
	}
	h.must(200, "PUT", "/api/v1/auto-enroll", `{"rules":[]}`).json(t, &got)
	if len(got.Rules) != 0 {
		t.Errorf("taken away: %+v", got)
	}
}

func TestADryRunIsOfAMachineOrOfAnyMAC(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-03","macs":["00:07:e9:00:00:01"]}`)
	var e store.DryRun
	h.must(200, "GET", "/api/v1/machines/lab-03/explain?arch=bios&relay=10.9.0.1", "").json(t, &e)
	if e.Name != "lab-03" || e.Platform != "bios" || e.Relay != netip.MustParseAddr("10.9.0.1") || !e.MAC.IsZero() {
		t.Errorf("%+v", e)
	}
	e = store.DryRun{}
	h.must(200, "GET", "/api/v1/machines/00-07-E9-00-00-01/explain", "").json(t, &e)
	if e.Name != "lab-03" || e.MAC != mac(t, "00:07:e9:00:00:01") {
		t.Errorf("%+v", e)
	}
	e = store.DryRun{}
	h.must(200, "GET", "/api/v1/machines/00:07:e9:00:00:99/explain", "").json(t, &e)
	if e.Machine != 0 || e.MAC != mac(t, "00:07:e9:00:00:99") {
		t.Errorf("%+v", e)
	}
	h.must(404, "GET", "/api/v1/machines/nobody/explain", "")
	for _, q := range []string{"relay=here", "relay=::1", "mac=zz", "arch=z80"} {
		h.must(422, "GET", "/api/v1/machines/lab-03/explain?"+q, "")
	}
}
