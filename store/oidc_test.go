package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

// sso is a provider as an admin would set it.
func sso() store.OIDC {
	return store.OIDC{
		Issuer: "https://sso.example.org/realms/lab", ClientID: "lunboot", Secret: "hush hush", URL: "https://lunboot.example.org:8080",
		Claim: "groups", Roles: []store.ClaimRole{{Value: "cn=staff,ou=groups", Role: store.RoleOperator}, {Value: "admins", Role: store.RoleAdmin}},
	}
}

func TestAProviderHasWhatItNeedsOrIsRefusedByField(t *testing.T) {
	o, err := sso().Normalize()
	if err != nil || o.Name != "sso.example.org" || !slices.Equal(o.Scopes, []string{"openid", "profile", "email"}) {
		t.Fatalf("%+v, %v", o.Scopes, err)
	}
	if o.Redirect() != "https://lunboot.example.org:8080/login/oidc/callback" {
		t.Errorf("people come back to %s", o.Redirect())
	}
	for _, good := range []func(*store.OIDC){
		func(o *store.OIDC) { o.Issuer = "http://127.0.0.1:8443" },
		func(o *store.OIDC) { o.Issuer = "http://[::1]:8443/x/" },
		func(o *store.OIDC) { o.URL += "/" },
		func(o *store.OIDC) { o.Claim, o.Roles, o.Default = "", nil, store.RoleViewer },
		func(o *store.OIDC) { o.Scopes = []string{"groups", "openid", "groups"} },
		func(o *store.OIDC) { o.Secret = "" },
	} {
		o := sso()
		good(&o)
		if _, err := o.Normalize(); err != nil {
			t.Errorf("%+v: %v", o.Issuer, err)
		}
	}
	for field, bad := range map[string][]func(*store.OIDC){
		"issuer": {
			func(o *store.OIDC) { o.Issuer = "sso.example.org" },
			func(o *store.OIDC) { o.Issuer = "http://sso.example.org" },
			func(o *store.OIDC) { o.Issuer = "https://user:pw@sso.example.org" },
			func(o *store.OIDC) { o.Issuer = "https://sso.example.org/?tenant=1" },
			func(o *store.OIDC) { o.Issuer = "https://sso.example.org/#" },
			func(o *store.OIDC) { o.Issuer = "https://sso.example.org/.well-known/openid-configuration" },
			func(o *store.OIDC) { o.Issuer = "https://" + strings.Repeat("x", 600) },
		},
		"client_id": {func(o *store.OIDC) { o.ClientID = " " }, func(o *store.OIDC) { o.ClientID = "a\nb" }},
		"name":      {func(o *store.OIDC) { o.Name = strings.Repeat("x", 61) }},
		"secret":    {func(o *store.OIDC) { o.Secret = "a\nb" }},
		"url": {
			func(o *store.OIDC) { o.URL = "lunboot.example.org" },
			func(o *store.OIDC) { o.URL = "https://lunboot.example.org/pages" },
			func(o *store.OIDC) { o.URL = "https://user@lunboot.example.org" },
			func(o *store.OIDC) { o.URL = "javascript://x" },
			func(o *store.OIDC) { o.URL = "" },
		},
		"ca": {
			func(o *store.OIDC) { o.CA = "hello" },
			func(o *store.OIDC) { o.CA = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----" },
			func(o *store.OIDC) { o.CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" },
			func(o *store.OIDC) { o.CA = strings.Repeat("x", 70<<10) },
		},
		"scopes": {func(o *store.OIDC) { o.Scopes = []string{"a b"} }, func(o *store.OIDC) { o.Scopes = strings.Split(strings.Repeat("s,", 30), ",") }},
		"claim":  {func(o *store.OIDC) { o.Claim = "" }},
		"roles": {
			func(o *store.OIDC) { o.Roles = nil },
			func(o *store.OIDC) { o.Claim, o.Roles = "", nil },
			func(o *store.OIDC) { o.Roles[0].Role = "owner" },
			func(o *store.OIDC) { o.Roles[0].Value = "" },
			func(o *store.OIDC) { o.Roles[1].Value = o.Roles[0].Value },
			func(o *store.OIDC) { o.Roles = make([]store.ClaimRole, 201) },
		},
		"default_role": {func(o *store.OIDC) { o.Default = "everybody" }},
	} {
		for i, spoil := range bad {
			o := sso()
			spoil(&o)
			_, err := o.Normalize()
			if !names(err, field) {
				t.Errorf("%s, %d: %v", field, i, err)
			}
		}
	}
	if o, err := (store.OIDC{Revision: 7, ClientID: "left over", Secret: "left over"}).Normalize(); err != nil || !reflect.DeepEqual(o, store.OIDC{Revision: 7}) {
		t.Errorf("without an issuer it is %#v, %v", o, err)
	}
}

// names reports whether an error is about a field.
func names(err error, field string) bool {
	var e *store.Error
	if !errors.As(err, &e) || e.Kind != store.KindInvalid {
		return false
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		return slices.ContainsFunc(many.Unwrap(), func(err error) bool { return names(err, field) })
	}
	return e.Field == field
}

func TestARuleIsReadFromItsLastSign(t *testing.T) {
	for text, want := range map[string]store.ClaimRole{
		"lab-admins = admin":               {Value: "lab-admins", Role: store.RoleAdmin},
		"cn=staff,ou=groups,dc=x=operator": {Value: "cn=staff,ou=groups,dc=x", Role: store.RoleOperator},
		" with words = viewer \n":          {Value: "with words", Role: store.RoleViewer},
	} {
		got, err := store.ParseClaimRole(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		if again, err := store.ParseClaimRole(got.String()); err != nil || again != got {
			t.Errorf("%q is read as %+v, %v", got.String(), again, err)
		}
	}
	if _, err := store.ParseClaimRole("lab-admins"); !names(err, "roles") {
		t.Errorf("a value without a role: %v", err)
	}
}

func TestTheMostPowerfulRoleOfAPersonCounts(t *testing.T) {
	for said, want := range map[string]store.Role{
		`{"groups":["cn=staff,ou=groups"]}`:          store.RoleOperator,
		`{"groups":["admins","cn=staff,ou=groups"]}`: store.RoleAdmin,
		`{"groups":"admins"}`:                        store.RoleAdmin,
		`{"groups":["Admins","staff"]}`:              "",
		`{"groups":[["admins"],{"admins":true}]}`:    "",
		`{"groups":null}`:                            "",
		`{"other":["admins"]}`:                       "",
	} {
		var claims map[string]any
		if err := json.Unmarshal([]byte(said), &claims); err != nil {
			t.Fatal(err)
		}
		values, _ := sso().ClaimValues(claims)
		if got := sso().RoleOf(values); got != want {
			t.Errorf("%s gives %q, want %q", said, got, want)
		}
	}
	o := sso()
	o.Default = store.RoleViewer
	if o.RoleOf(nil) != store.RoleViewer || o.RoleOf([]string{"admins"}) != store.RoleAdmin {
		t.Error("the default is not for those alone whom nothing fits")
	}
}

func TestAClaimIsFoundByItsNameOrTheWayToIt(t *testing.T) {
	var claims map[string]any
	if err := json.Unmarshal([]byte(`{"realm_access":{"roles":["a"]},"https://x.example/roles":["b"],"a.b":{"c.d":"e"},"n":7,"t":true}`), &claims); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"realm_access.roles": {"a"}, "https://x.example/roles": {"b"}, "a.b.c.d": {"e"}, "n": {"7"}, "t": {"true"}, "realm_access": nil, "realm_access.none": nil, "": nil, ".": nil} {
		o := sso()
		o.Claim = name
		if got, _ := o.ClaimValues(claims); !slices.Equal(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// Who names another provider, or another client, would have the secret of the one
// before sent there.
func TestASecretIsKeptForTheOneThatItWasGivenFor(t *testing.T) {
	now, err := sso().Normalize()
	if err != nil {
		t.Fatal(err)
	}
	same := store.OIDCSpec{OIDC: sso()}
	same.OIDC.Secret, same.Name = "", "Another name"
	if o, err := same.Keep(now); err != nil || o.Secret != "hush hush" || o.Name != "Another name" {
		t.Errorf("the same provider: %q, %v", o.Secret, err)
	}
	for _, other := range []func(*store.OIDC){func(o *store.OIDC) { o.Issuer = "https://evil.example" }, func(o *store.OIDC) { o.ClientID = "another" }} {
		spec := same
		other(&spec.OIDC)
		if o, err := spec.Keep(now); !names(err, "secret") {
			t.Errorf("another one: %q, %v", o.Secret, err)
		}
		spec.Secret = new("a new one")
		if o, err := spec.Keep(now); err != nil || o.Secret != "a new one" {
			t.Errorf("another one with its own: %q, %v", o.Secret, err)
		}
		spec.Secret = new("")
		if o, err := spec.Keep(now); err != nil || !o.Public() {
			t.Errorf("another one without: %q, %v", o.Secret, err)
		}
		spec.Secret = nil
		if o, err := spec.Keep(store.OIDC{}); err != nil || !o.Public() {
			t.Errorf("the first one without: %q, %v", o.Secret, err)
		}
	}
	if o, err := (store.OIDCSpec{}).Keep(now); err != nil || !o.IsZero() || o.Secret != "" {
		t.Errorf("none: %v, %v", o, err)
	}
}

func TestASecretOfAProviderIsPrintedNowhere(t *testing.T) {
	o := sso()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{string(b), fmt.Sprint(o), fmt.Sprintf("%+v", o), fmt.Sprintf("%#v", o), fmt.Sprintf("%+v", []store.OIDC{o})} {
		if strings.Contains(s, "hush") {
			t.Errorf("it is in %s", s)
		}
	}
}

func TestSomebodyHasAPasswordOrAProvider(t *testing.T) {
	for _, bad := range []store.User{
		{Name: "anna", Role: store.RoleViewer},
		{Name: "anna", Role: store.RoleViewer, Issuer: "https://x", Subject: "1", Hash: "h"},
		{Name: "anna", Role: store.RoleViewer, Subject: "1"},
	} {
		if err := bad.Validate(); !names(err, "password") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for _, good := range []store.User{{Name: "anna", Role: store.RoleViewer, Hash: "h"}, {Name: "anna", Role: store.RoleViewer, Issuer: "https://x", Subject: "1"}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}
