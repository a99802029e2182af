package store_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
)

func TestABMCIsReadAsPeopleWriteIt(t *testing.T) {
	for text, want := range map[string]struct{ at, user string }{
		"redfish://ana@bmc-1":             {"bmc-1:443", "ana"},
		"redfish://ana@BMC-1.Lab:8443/":   {"bmc-1.lab:8443", "ana"},
		"ipmi://ADMIN@10.0.0.9":           {"10.0.0.9:623", "ADMIN"},
		"ipmi://ADMIN@[2001:db8::9]":      {"[2001:db8::9]:623", "ADMIN"},
		"ipmi://ADMIN@[2001:db8::9]:6230": {"[2001:db8::9]:6230", "ADMIN"},
	} {
		b, err := store.ParseBMC(text)
		if err != nil || b.HostPort() != want.at || b.User != want.user {
			t.Errorf("%s: %v at %s, %v", text, b, b.HostPort(), err)
		}
	}
	for _, none := range []string{"", "none"} {
		if b, err := store.ParseBMC(none); err != nil || !b.IsZero() {
			t.Errorf("%q: %v, %v", none, b, err)
		}
	}
	for _, bad := range []string{"10.0.0.9", "redfish:/10.0.0.9", "redfish://h/redfish/v1", "redfish://h?x=1", "://", "redfish://ana:hunter2@h", "ana:hunter2@h"} {
		_, err := store.ParseBMC(bad)
		if store.KindOf(err) != store.KindInvalid || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestABMCKeepsItsRules(t *testing.T) {
	redfish := store.BMC{Protocol: store.BMCRedfish, Address: "bmc-1", User: "ana", Secret: "hunter2", Trust: store.BMCPinned}
	ipmi := store.BMC{Protocol: store.BMCIPMI, Address: "10.0.0.9", User: "ana", Secret: "hunter2"}
	for name, c := range map[string]struct {
		field string
		of    store.BMC
		do    func(*store.BMC)
	}{
		"none":                       {"", store.BMC{}, func(*store.BMC) {}},
		"redfish":                    {"", redfish, func(*store.BMC) {}},
		"ipmi":                       {"", ipmi, func(*store.BMC) {}},
		"pinned":                     {"", redfish, func(b *store.BMC) { b.Fingerprint = strings.Repeat("0f", 32) }},
		"a fingerprint too short":    {"bmc_fingerprint", redfish, func(b *store.BMC) { b.Fingerprint = "0f" }},
		"a fingerprint and no pin":   {"bmc_fingerprint", redfish, func(b *store.BMC) { b.Trust, b.Fingerprint = store.BMCVerify, strings.Repeat("0f", 32) }},
		"redfish without trust":      {"bmc_trust", redfish, func(b *store.BMC) { b.Trust = "" }},
		"ipmi with trust":            {"bmc_trust", ipmi, func(b *store.BMC) { b.Trust = store.BMCNone }},
		"a protocol of tomorrow":     {"bmc", redfish, func(b *store.BMC) { b.Protocol = "telnet" }},
		"an address without a name":  {"bmc", redfish, func(b *store.BMC) { b.Address = "" }},
		"an address with a path":     {"bmc", redfish, func(b *store.BMC) { b.Address = "h/redfish" }},
		"port 0":                     {"bmc", redfish, func(b *store.BMC) { b.Address = "h:0" }},
		"port 65536":                 {"bmc", redfish, func(b *store.BMC) { b.Address = "h:65536" }},
		"everybody's address":        {"bmc", ipmi, func(b *store.BMC) { b.Address = "0.0.0.0" }},
		"a group's address":          {"bmc", ipmi, func(b *store.BMC) { b.Address = "224.0.0.1" }},
		"an IPv6 address":            {"", ipmi, func(b *store.BMC) { b.Address = "2001:db8::1" }},
		"no user":                    {"bmc", ipmi, func(b *store.BMC) { b.User = "" }},
		"no password":                {"bmc_secret", ipmi, func(b *store.BMC) { b.Secret = "" }},
		"a password IPMI cannot say": {"bmc_secret", ipmi, func(b *store.BMC) { b.Secret = strings.Repeat("x", 21) }},
		"one that Redfish can say":   {"", redfish, func(b *store.BMC) { b.Secret = strings.Repeat("x", 21) }},
		"a user IPMI cannot say":     {"bmc", ipmi, func(b *store.BMC) { b.User = strings.Repeat("x", 17) }},
		"a line end in a password":   {"bmc_secret", redfish, func(b *store.BMC) { b.Secret = "a\nb" }},
		"what is left of one":        {"bmc", store.BMC{}, func(b *store.BMC) { b.Secret = "hunter2" }},
	} {
		m := goodMachine()
		m.BMC = c.of
		c.do(&m.BMC)
		check(t, name, m.Validate(), c.field)
	}
}

func TestASecretOfABMCIsNeverShown(t *testing.T) {
	m := goodMachine()
	m.BMC = store.BMC{Protocol: store.BMCRedfish, Address: "bmc-1", User: "ana", Secret: "hunter2", Trust: store.BMCPinned}
	asJSON, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for how, text := range map[string]string{
		"as JSON": string(asJSON), "with %v": fmt.Sprintf("%v", m.BMC), "with %+v": fmt.Sprintf("%+v", m.BMC), "with %#v": fmt.Sprintf("%#v", m.BMC),
		"in its machine, with %+v": fmt.Sprintf("%+v", m), "in its machine, with %#v": fmt.Sprintf("%#v", m),
	} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "bmc-1") {
			t.Errorf("%s: %s", how, text)
		}
	}
}

func TestAnActOfPowerSaysWhatItTakes(t *testing.T) {
	for _, a := range store.PowerActs() {
		if got, err := store.ParsePowerAct(string(a)); got != a || err != nil {
			t.Errorf("%s: %s, %v", a, got, err)
		}
		if loses := a != store.PowerOn && a != store.PowerShutdown; a.Loses() != loses {
			t.Errorf("%s loses: %v", a, a.Loses())
		}
	}
	if _, err := store.ParsePowerAct("explode"); store.KindOf(err) != store.KindInvalid {
		t.Error(err)
	}
}

func TestAFingerprintIsReadInEverySpelling(t *testing.T) {
	want := strings.Repeat("ab", 32)
	for _, s := range []string{want, strings.ToUpper(want), strings.Repeat("AB:", 31) + "AB", strings.Repeat("ab ", 31) + "ab"} {
		if got, err := store.ParseFingerprint(s); got != want || err != nil {
			t.Errorf("%s: %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "ab", strings.Repeat("xy", 32), want + "ab"} {
		if _, err := store.ParseFingerprint(s); err == nil {
			t.Errorf("%q is no fingerprint", s)
		}
	}
}
