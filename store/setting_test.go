package store

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

type settingRows map[string]string

func (r settingRows) Setting(_ context.Context, key string) (string, bool, error) {
	if key == "broken" {
		return "", false, errors.New("the disk is gone")
	}
	v, ok := r[key]
	return v, ok, nil
}

func TestEverySettingHasAValidDefault(t *testing.T) {
	all, err := Settings(t.Context(), settingRows{})
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, s := range all {
		if s.Value != s.Default || s.Help == "" {
			t.Errorf("%+v", s)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("the default of %s: %v", s.Key, err)
		}
	}
}

func TestAChosenSettingCountsAndANonsenseOneDoesNot(t *testing.T) {
	rows := settingRows{"router-adverts": "off"}
	if v, err := SettingValue(t.Context(), rows, SettingRouterAdverts); v != "off" || err != nil {
		t.Error(v, err)
	}
	rows["router-adverts"] = "perhaps" // a newer version may have written it
	if v, err := SettingValue(t.Context(), rows, SettingRouterAdverts); v != "on" || err != nil {
		t.Error(v, err)
	}
	err := Setting{Key: SettingRouterAdverts, Value: "perhaps"}.Validate()
	if KindOf(err) != KindInvalid {
		t.Error(err)
	}
	err = Setting{Key: "colour", Value: "red"}.Validate()
	if !IsNotFound(err) || !strings.Contains(err.Error(), "router-adverts") {
		t.Error(err)
	}
	// What the appliance keeps for itself is not for operators to change.
	if err := (Setting{Key: "target", Value: "x"}).Validate(); !IsNotFound(err) {
		t.Error(err)
	}
}

func TestAWebhookIsCheckedAndItsSecretsAreNotListed(t *testing.T) {
	for _, c := range []struct {
		key   SettingKey
		value string
		wrong string
	}{
		{SettingWebhookURL, "https://hooks.example.org/T0/secret", ""},
		{SettingWebhookURL, "http://10.0.0.9:9999", ""},
		{SettingWebhookURL, "", ""},
		{SettingWebhookURL, "file:///etc/shadow", "begins with http"},
		{SettingWebhookURL, "hooks.example.org", "begins with http"},
		{SettingWebhookURL, "http://", "names a host"},
		{SettingWebhookURL, "http://me:secret@host/", "no name and password"},
		{SettingWebhookURL, "http://a b/", "no URL"},
		{SettingWebhookSecret, "short", "12 to 256"},
		{SettingWebhookSecret, "long enough, with spaces", ""},
		{SettingWebhookSecret, "with a line\nin it", "12 to 256"},
		{SettingWebhookOn, "failed", ""},
		{SettingWebhookOn, "up, failed, up-unconfirmed", ""},
		{SettingWebhookOn, "running", "is no end of a boot"},
		{SettingWebhookOn, "", "is no end of a boot"},
	} {
		err := Setting{Key: c.key, Value: c.value}.Validate()
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s %q: %v, want %q", c.key, c.value, err, c.wrong)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("a password is in the error: %v", err)
		}
	}
	rows := settingRows{"webhook-url": "https://hooks.example.org/T0/hushhush", "webhook-secret": "hushhushhush"}
	all, err := Settings(t.Context(), rows)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[SettingKey]string{}
	for _, s := range all {
		shown[s.Key] = s.Value
		if strings.Contains(s.Value, "hush") {
			t.Errorf("%s is listed as %q", s.Key, s.Value)
		}
	}
	if shown[SettingWebhookURL] != "https://hooks.example.org/…" || shown[SettingWebhookSecret] != "(set)" {
		t.Error(shown)
	}
	if v, err := SettingValue(t.Context(), rows, SettingWebhookSecret); v != "hushhushhush" || err != nil {
		t.Error("whoever signs needs the secret itself", v, err)
	}
}

func TestNetworksThatAreTrustedAreNetworks(t *testing.T) {
	got, err := ParseNetworks(" 10.9.0.0/24, 192.0.2.0/25 ,")
	if err != nil || len(got) != 2 || got[1].String() != "192.0.2.0/25" {
		t.Error(got, err)
	}
	for _, bad := range []string{"10.9.0.1/24", "10.0.0.0/8", "lab", "2001:db8::/64", "10.9.0.0", strings.Repeat("10.9.0.0/24,", 65)} {
		if _, err := ParseNetworks(bad); KindOf(err) != KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	subnets := []Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16")}}
	for addr, want := range map[string]string{"10.9.3.4": "10.9.0.0/16", "10.8.3.4": "10.8.3.0/24"} {
		if got := NetworkOf(netip.MustParseAddr(addr), subnets); got.String() != want {
			t.Errorf("%s is in %s", addr, got)
		}
	}
}
