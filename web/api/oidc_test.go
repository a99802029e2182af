package api_test

import (
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
	"lunboot/web/auth/oidc/oidctest"
)

func TestTheProviderIsKeptOverTheAPI(t *testing.T) {
	h := open(t)
	var p api.Provider
	a := h.must(200, "GET", "/api/v1/oidc", "")
	if a.json(t, &p); !p.IsZero() || p.SecretSet || p.RedirectURI != "" || strings.Contains(string(a.body), "null") {
		t.Errorf("at first: %s", a.body)
	}
	const good = `{"issuer":"https://sso.example.org","client_id":"lunboot","secret":"hush-hush","claim":"groups","roles":[{"value":"lab","role":"operator"}]}`
	a = h.must(200, "PUT", "/api/v1/oidc", good)
	if a.json(t, &p); p.Name != "sso.example.org" || !p.SecretSet || p.RedirectURI != "http://10.77.0.1:8080/login/oidc/callback" || len(p.Scopes) != 3 || strings.Contains(string(a.body), "hush") {
		t.Errorf("set: %s", a.body)
	}
	for body, field := range map[string]string{
		`{"issuer":"","client_id":"x"}`:                                                                 "issuer",
		`{"issuer":"http://sso.example.org","client_id":"x","default_role":"viewer"}`:                   "issuer",
		`{"issuer":"https://sso.example.org","client_id":"","default_role":"viewer"}`:                   "client_id",
		`{"issuer":"https://sso.example.org","client_id":"lunboot"}`:                                    "roles",
		`{"issuer":"https://another.example.org","client_id":"lunboot","default_role":"viewer"}`:        "secret",
		`{"issuer":"https://sso.example.org","client_id":"lunboot","default_role":"owner"}`:             "default",
		`{"issuer":"https://sso.example.org","client_id":"lunboot","default_role":"viewer","ca":"x"}`:   "ca",
		`{"issuer":"https://sso.example.org","client_id":"lunboot","default_role":"viewer","url":"x"}`:  "url",
		`{"issuer":"https://sso.example.org","client_id":"lunboot","roles":[{"value":"a"}]}`:            "roles",
		`{"issuer":"https://sso.example.org","client_id":"lunboot","default_role":"viewer","more":"x"}`: "more",
	} {
		if a := h.must(422, "PUT", "/api/v1/oidc", body); !strings.Contains(string(a.body), `"body.`+field) {
			t.Errorf("%s answers %s", body, a.body)
		}
	}
	// The secret stays with who does not name one.
	h.must(200, "PUT", "/api/v1/oidc", strings.Replace(good, `"secret":"hush-hush",`, `"name":"Lab SSO",`, 1)).json(t, &p)
	if o, err := h.db.OIDC(t.Context()); err != nil || o.Secret != "hush-hush" || o.Name != "Lab SSO" {
		t.Errorf("kept is %#v, %v", o, err)
	}
	_, tag := h.with("", "", "GET", "/api/v1/oidc", "")
	for _, method := range []string{"PUT", "DELETE"} {
		if a, _ := h.with("If-Match", `"1"`, method, "/api/v1/oidc", map[string]string{"PUT": good}[method]); a.status != http.StatusPreconditionFailed || !strings.Contains(string(a.body), `"oidc.update"`) || strings.Contains(string(a.body), "hush") {
			t.Errorf("%s on sight of another state: %d %s", method, a.status, a.body)
		}
	}
	if a, _ := h.with("If-Match", tag, "DELETE", "/api/v1/oidc", ""); a.status != http.StatusNoContent {
		t.Errorf("DELETE answers %d %s", a.status, a.body)
	}
	if o, err := h.db.OIDC(t.Context()); err != nil || !o.IsZero() || o.Secret != "" {
		t.Errorf("left is %#v, %v", o, err)
	}
	if log := string(h.must(200, "GET", "/api/v1/audit?noun=oidc", "").body); strings.Contains(log, "hush") || !strings.Contains(log, `"oidc.delete"`) || !strings.Contains(log, `"client secret"`) {
		t.Errorf("the audit log says %s", log)
	}
	h.as = auth.Identity{Actor: "olga", Scope: store.ScopeOperate}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		h.must(403, method, "/api/v1/oidc", map[string]string{"PUT": good}[method])
	}
	h.must(403, "POST", "/api/v1/oidc/try", good)
}

func TestALookAtAProviderKeepsNothing(t *testing.T) {
	p, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	h := open(t)
	var found api.List[store.OIDCFinding]
	h.must(201, "POST", "/api/v1/oidc/try", `{"issuer":"`+p.URL+`","client_id":"lunboot","default_role":"viewer"}`).json(t, &found)
	if found.Total != 1 || found.Items[0].State != "fault" || !strings.Contains(found.Items[0].Says, "vouches for the provider") {
		t.Errorf("without its authority: %+v", found)
	}
	if o, err := h.db.OIDC(t.Context()); err != nil || !o.IsZero() {
		t.Errorf("kept is %v, %v", o, err)
	}
	h.must(422, "POST", "/api/v1/oidc/try", `{"issuer":"","client_id":""}`)
}

func TestTheProviderThatIsSetIsLookedAt(t *testing.T) {
	p, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	h := open(t)
	var look store.OIDCLook
	if a := h.must(201, "POST", "/api/v1/oidc/look", ""); strings.Contains(string(a.body), "null") {
		t.Errorf("without a provider: %s", a.body)
	}
	h.must(200, "PUT", "/api/v1/oidc", `{"issuer":"`+p.URL+`","client_id":"lunboot","default_role":"viewer","url":"http://127.0.0.1:1","logout":true}`)
	h.must(201, "POST", "/api/v1/oidc/look", "").json(t, &look)
	if len(look.Found) != 2 || look.Found[0].Name != "provider" || look.Found[0].State != "fault" || look.Found[0].Mend != "lunboot oidc set --ca FILE" || look.At.IsZero() {
		t.Errorf("without its authority: %+v", look)
	}
	var v api.Provider
	if h.must(200, "GET", "/api/v1/oidc", "").json(t, &v); !v.Logout || v.LogoutURI != "http://127.0.0.1:1/login/oidc/logged-out" {
		t.Errorf("shown is %+v", v)
	}
	// Whoever only looks does not make the appliance ask somebody.
	h.as = auth.Identity{Actor: "vera", Scope: store.ScopeRead}
	h.must(403, "POST", "/api/v1/oidc/look", "")
}

func TestAPersonIsShutOutOverTheAPI(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/users", `{"name":"anna","role":"admin","password":"anna's password"}`)
	h.must(201, "POST", "/api/v1/users", `{"name":"vera","role":"viewer","password":"vera's password"}`)
	var u store.User
	if h.must(200, "PATCH", "/api/v1/users/vera", `{"disabled":true}`).json(t, &u); !u.Disabled || u.Role != store.RoleViewer {
		t.Errorf("shut out: %+v", u)
	}
	if h.must(200, "PATCH", "/api/v1/users/vera", `{"disabled":false,"role":"operator"}`).json(t, &u); u.Disabled || u.Role != store.RoleOperator {
		t.Errorf("let in again: %+v", u)
	}
	h.must(409, "PATCH", "/api/v1/users/anna", `{"disabled":true}`)
	if _, err := h.db.CreateUser(t.Context(), store.ActorProvider, store.User{Name: "carl", Role: store.RoleViewer, Issuer: "https://sso.example.org", Subject: "1"}); err != nil {
		t.Fatal(err)
	}
	if a := h.must(409, "PATCH", "/api/v1/users/carl", `{"role":"admin"}`); !strings.Contains(string(a.body), "provider") {
		t.Errorf("a role for somebody who has the provider's: %s", a.body)
	}
	h.must(409, "PUT", "/api/v1/users/carl/password", `{"password":"a long password"}`)
	if h.must(200, "PATCH", "/api/v1/users/carl", `{"disabled":true}`).json(t, &u); !u.Disabled {
		t.Errorf("shut out: %+v", u)
	}
}
