package api_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

// Wake knows one network, and a machine that cannot be reached.
func (boots) Wake(_ context.Context, by store.Actor, m store.Machine) ([]string, error) {
	if m.Name == "far" {
		return nil, &store.Error{Kind: store.KindUnavailable, Msg: "no network is served"}
	}
	return []string{"eth1"}, nil
}

// PowerState knows a machine that is on, and one whose BMC is to be trusted first.
func (boots) PowerState(_ context.Context, m store.Machine) (store.PowerReport, error) {
	if m.Name == "far" {
		err := &store.UntrustedBMC{Machine: m.Name, Fingerprint: strings.Repeat("ab", 32)}
		return store.PowerReport{}, &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Err: err}
	}
	return store.PowerReport{Machine: m.Name, BMC: m.BMC.String(), State: store.PowerStateOn, Says: m.Name + " is on"}, nil
}

// Power says what it was told.
func (boots) Power(_ context.Context, by store.Actor, m store.Machine, o store.PowerOrder) (store.PowerReport, error) {
	return store.PowerReport{Machine: m.Name, State: store.PowerStateOn, Says: fmt.Sprintf("%s %+v", by, o)}, nil
}

func TestTheBMCOfAMachineIsSetAndItsSecretNeverShown(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"near","macs":["00:0c:29:00:00:11"],"bmc":"redfish://ana@10.0.0.9","bmc_secret":"hunter2-the-first"}`)
	print := strings.Repeat("AB:", 31) + "AB"
	bmc := func() store.BMC {
		t.Helper()
		m, err := h.db.MachineByName(t.Context(), "near")
		if err != nil {
			t.Fatal(err)
		}
		return m.BMC
	}
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc_fingerprint":"`+print+`"}`)
	if b := bmc(); b.Secret != "hunter2-the-first" || b.Trust != store.BMCPinned || b.Fingerprint != strings.Repeat("ab", 32) {
		t.Errorf("%v %s %s", b, b.Trust, b.Fingerprint)
	}
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc":"redfish://ana@10.0.0.9:443","notes":"the same BMC, said in another way"}`)
	if b := bmc(); b.Secret != "hunter2-the-first" || b.Fingerprint == "" {
		t.Errorf("the same BMC forgot its password or its certificate: %v", b)
	}
	// Another BMC is never sent the password of the one before.
	if a := h.must(422, "PATCH", "/api/v1/machines/near", `{"bmc":"redfish://ana@10.0.0.10"}`); !strings.Contains(string(a.body), "body.bmc_secret") {
		t.Errorf("%s", a.body)
	}
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc":"redfish://ana@10.0.0.10","bmc_secret":"hunter2-the-second"}`)
	if b := bmc(); b.Secret != "hunter2-the-second" || b.Fingerprint != "" {
		t.Errorf("another BMC has the certificate of the one before: %v %s", b, b.Fingerprint)
	}
	// Nor is it trusted blindly because the one before was.
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc_trust":"none"}`)
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc":"redfish://bob@10.0.0.10","bmc_secret":"hunter2-of-bob"}`)
	if b := bmc(); b.Trust != store.BMCNone {
		t.Errorf("another user at the same BMC changes how that is trusted: %s", b.Trust)
	}
	for _, at := range []string{"10.0.0.10:8443", "10.0.0.10"} {
		h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc":"redfish://ana@`+at+`","bmc_secret":"hunter2-the-second"}`)
		if b := bmc(); b.Trust != store.BMCPinned || b.Fingerprint != "" {
			t.Errorf("another BMC at %s is trusted as the one before: %s", at, b.Trust)
		}
	}
	for _, bad := range []string{`{"bmc":"redfish://ana:hunter2@10.0.0.9"}`, `{"bmc":"telnet://ana@h","bmc_secret":"x"}`, `{"bmc_fingerprint":"ab"}`, `{"bmc_trust":"blindly"}`} {
		h.must(422, "PATCH", "/api/v1/machines/near", bad)
	}
	for _, path := range []string{"/api/v1/machines", "/api/v1/machines/near", "/api/v1/machines/near?secrets=true", "/api/v1/audit"} {
		if a := h.must(200, "GET", path, ""); strings.Contains(string(a.body), "hunter2") || !strings.Contains(string(a.body), "10.0.0.10") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	h.must(200, "PATCH", "/api/v1/machines/near", `{"bmc":"none"}`)
	if b := bmc(); b != (store.BMC{}) {
		t.Errorf("something is left of it: %#v", b)
	}
	if a := h.must(422, "PATCH", "/api/v1/machines/near", `{"bmc_secret":"x"}`); !strings.Contains(string(a.body), "no BMC yet") {
		t.Errorf("%s", a.body)
	}
}

func TestThePowerOfAMachineIsToldAndAsked(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"near","macs":["00:0c:29:00:00:11"]}`)
	h.must(201, "POST", "/api/v1/machines", `{"name":"far","macs":["00:0c:29:00:00:12"]}`)
	var r store.PowerReport
	h.must(200, "GET", "/api/v1/machines/near/power", "").json(t, &r)
	if r.State != store.PowerStateOn || r.Says != "near is on" {
		t.Errorf("%+v", r)
	}
	if a := h.must(409, "GET", "/api/v1/machines/far/power", ""); !strings.Contains(string(a.body), "--bmc-fingerprint abab") {
		t.Errorf("%s", a.body)
	}
	h.must(200, "POST", "/api/v1/machines/near/power", `{"act":"cycle","once":"pxe","profile":"local","force":true}`).json(t, &r)
	if !strings.HasSuffix(r.Says, "{Act:cycle Network:true Profile:local Force:true}") {
		t.Errorf("%+v", r)
	}
	for _, bad := range []string{`{"act":"explode"}`, `{}`, `{"act":"off","once":"pxe"}`, `{"act":"shutdown","once":"pxe"}`, `{"act":"cycle","profile":"local"}`, `{"act":"on","once":"disk"}`} {
		h.must(422, "POST", "/api/v1/machines/near/power", bad)
	}
	h.must(404, "POST", "/api/v1/machines/none/power", `{"act":"on"}`)
	h.as = auth.Identity{Actor: "ben", Scope: store.ScopeRead}
	h.must(200, "GET", "/api/v1/machines/near/power", "")
	h.must(403, "POST", "/api/v1/machines/near/power", `{"act":"on"}`)
}

func TestAMachineIsWoken(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"near","macs":["00:0c:29:00:00:11"]}`)
	h.must(201, "POST", "/api/v1/machines", `{"name":"far","macs":["00:0c:29:00:00:12"]}`)
	var w api.Woken
	h.must(200, "POST", "/api/v1/machines/near/wake", "").json(t, &w)
	if w.Machine != "near" || len(w.Networks) != 1 || w.Networks[0] != "eth1" {
		t.Errorf("%+v", w)
	}
	if a := h.must(503, "POST", "/api/v1/machines/far/wake", ""); !strings.Contains(string(a.body), "no network is served") {
		t.Errorf("%s", a.body)
	}
	h.must(404, "POST", "/api/v1/machines/none/wake", "")
}
