package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

func TestPeopleAreKeptOverTheAPI(t *testing.T) {
	h := open(t)
	if a := h.must(409, "POST", "/api/v1/users", `{"name":"vera","role":"viewer","password":"vera's password"}`); !strings.Contains(string(a.body), "has to be an admin") {
		t.Errorf("the first one: %s", a.body)
	}
	h.must(201, "POST", "/api/v1/users", `{"name":"anna","role":"admin","password":"anna's password"}`)
	var u store.User
	h.must(201, "POST", "/api/v1/users", `{"name":"vera","role":"viewer","password":"vera's password"}`).json(t, &u)
	if u.Role != store.RoleViewer || u.Revision != 1 {
		t.Errorf("added %+v", u)
	}
	for body, field := range map[string]string{
		`{"name":"Vera","role":"viewer","password":"12345678"}`: "name", `{"name":"x","role":"owner","password":"12345678"}`: "role", `{"name":"x","role":"viewer","password":"short"}`: "password",
	} {
		if a := h.must(422, "POST", "/api/v1/users", body); !strings.Contains(string(a.body), `"body.`+field+`"`) {
			t.Errorf("%s answers %s", body, a.body)
		}
	}
	h.must(200, "PATCH", "/api/v1/users/vera", `{"role":"operator","revision":1}`).json(t, &u)
	if u.Role != store.RoleOperator || u.Revision != 2 {
		t.Errorf("changed to %+v", u)
	}
	h.must(409, "PATCH", "/api/v1/users/vera", `{"role":"viewer","revision":1}`)
	h.must(409, "DELETE", "/api/v1/users/anna", "")
	h.must(409, "PATCH", "/api/v1/users/anna", `{"role":"viewer"}`)
	h.must(204, "PUT", "/api/v1/users/vera/password", `{"password":"another password"}`)
	h.must(404, "PUT", "/api/v1/users/nobody/password", `{"password":"another password"}`)
	var us api.List[store.User]
	a := h.must(200, "GET", "/api/v1/users", "")
	if a.json(t, &us); us.Total != 2 || strings.Contains(string(a.body), "argon2id") {
		t.Errorf("the list is %s", a.body)
	}
	h.must(204, "DELETE", "/api/v1/users/vera", "")
	h.must(404, "GET", "/api/v1/users/vera", "")
	var log api.List[store.Audit]
	h.must(200, "GET", "/api/v1/audit?noun=user&subject=vera&actor=tester", "").json(t, &log)
	if log.Total != 4 || log.Items[2].Action != "user.update" || log.Items[2].Changes[0] != (store.FieldChange{Field: "role", Before: "viewer", After: "operator"}) {
		t.Errorf("the audit log says %+v", log)
	}
	if h.must(200, "GET", "/api/v1/audit?until=2001-01-01T00:00:00Z", "").json(t, &log); log.Total != 0 {
		t.Errorf("%d changes before this was written", log.Total)
	}
	h.must(422, "GET", "/api/v1/audit?since=yesterday", "")
}

func TestLoginsOfOthersAreAnAdmins(t *testing.T) {
	h := open(t)
	h.as = auth.Identity{Actor: "vera", User: "vera", Scope: store.ScopeRead}
	h.must(200, "GET", "/api/v1/logins?user=vera", "")
	h.must(http.StatusForbidden, "GET", "/api/v1/logins?user=anna", "")
	h.must(404, "DELETE", "/api/v1/logins/none", "")
	h.as = auth.Identity{Actor: "token ci", Scope: store.ScopeOperate}
	h.must(200, "GET", "/api/v1/logins", "")
	h.must(404, "DELETE", "/api/v1/logins/none", "")
}

func TestASessionIsDropped(t *testing.T) {
	h := open(t)
	h.must(204, "DELETE", "/api/v1/sessions/s1", "")
	h.must(404, "DELETE", "/api/v1/sessions/s2", "")
}

func TestATokenIsRefusedWithItsOwnersReason(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/users", `{"name":"anna","role":"admin","password":"anna's password"}`)
	h.must(201, "POST", "/api/v1/users", `{"name":"ben","role":"admin","password":"ben's password"}`)
	var shell, bens api.Token
	h.must(201, "POST", "/api/v1/tokens", `{"name":"shell","scope":"admin"}`).json(t, &shell)
	h.as = auth.Identity{Actor: "ben", User: "ben", Scope: store.ScopeAdmin}
	h.must(201, "POST", "/api/v1/tokens", `{"name":"bens","scope":"admin"}`).json(t, &bens)
	if shell.Owner != "" || bens.Owner != "ben" || bens.Limit != "" {
		t.Errorf("made are %+v and %+v", shell, bens)
	}
	if a := h.doAs(bens.Secret, "GET", "/api/v1/users", ""); a.status != 200 {
		t.Errorf("at first: %d %s", a.status, a.body)
	}
	h.as = auth.Identity{Actor: "anna", User: "anna", Scope: store.ScopeAdmin}
	h.must(200, "PATCH", "/api/v1/users/ben", `{"role":"viewer"}`)
	if a := h.doAs(bens.Secret, "GET", "/api/v1/machines", ""); a.status != 200 {
		t.Errorf("a viewer's, to look: %d %s", a.status, a.body)
	}
	if a := h.doAs(bens.Secret, "GET", "/api/v1/users", ""); a.status != 403 || !strings.Contains(string(a.body), "the token's is read: its owner, ben, is viewer now") {
		t.Errorf("a viewer's, for more: %d %s", a.status, a.body)
	}
	h.must(200, "PATCH", "/api/v1/users/ben", `{"disabled":true}`)
	for _, path := range []string{"/api/v1/machines", "/api/v1/events"} {
		if a := h.doAs(bens.Secret, "GET", path, ""); a.status != 401 || a.kind != "application/problem+json" || !strings.Contains(string(a.body), "its owner, ben, is shut out") {
			t.Errorf("of somebody who is shut out, %s: %d %s", path, a.status, a.body)
		}
	}
	h.must(204, "DELETE", "/api/v1/users/ben", "")
	if a := h.doAs(bens.Secret, "GET", "/api/v1/machines", ""); a.status != 401 || !strings.Contains(string(a.body), "its owner, ben, was removed") {
		t.Errorf("of somebody who was removed: %d %s", a.status, a.body)
	}
	if a := h.doAs(shell.Secret, "GET", "/api/v1/users", ""); a.status != 200 {
		t.Errorf("nobody's: %d %s", a.status, a.body)
	}
	var all api.List[api.Token]
	h.must(200, "GET", "/api/v1/tokens", "").json(t, &all)
	if all.Total != 2 || all.Items[0].Owner != "ben" || all.Items[0].Limit != "its owner, ben, was removed" || all.Items[1].Owner != "" {
		t.Errorf("listed are %+v", all)
	}
	h.must(204, "DELETE", fmt.Sprintf("/api/v1/tokens/%d", bens.ID), "")
}
