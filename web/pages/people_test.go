package pages

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

func (l *lab) user(name string) store.User {
	if u, ok := l.people[name]; ok {
		return u
	}
	u := store.User{Name: name, Role: store.RoleAdmin, Hash: l.users[name], Revision: 1, Created: noon}
	if r, ok := l.roles[name]; ok {
		u.Role = r
	}
	return u
}

func (l *lab) Users(context.Context) (out []store.User, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.users {
		out = append(out, l.user(name))
	}
	for _, u := range l.people {
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b store.User) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (l *lab) User(_ context.Context, name string) (store.User, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, local := l.users[name]
	if _, ok := l.people[name]; ok || local {
		return l.user(name), nil
	}
	return store.User{}, store.NotFound("user", name)
}

func (l *lab) UserByIdentity(_ context.Context, issuer, subject string) (store.User, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range l.people {
		if u.Issuer == issuer && u.Subject == subject {
			return u, nil
		}
	}
	return store.User{}, store.NotFound("user", subject)
}

func (l *lab) Record(_ context.Context, by store.Actor, action, subject, detail string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recorded = append(l.recorded, strings.Join([]string{string(by), action, subject, detail}, " | "))
	return nil
}

func (l *lab) CreateUser(ctx context.Context, by store.Actor, u store.User) (store.User, error) {
	if _, err := l.User(ctx, u.Name); err == nil {
		return u, store.Conflict("name", "there is a user %s already", u.Name)
	}
	return l.UpdateUser(ctx, by, u)
}

func (l *lab) UpdateUser(_ context.Context, _ store.Actor, u store.User) (store.User, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.refuse != nil:
	case u.Federated():
		l.people[u.Name] = u
	default:
		l.users[u.Name], l.roles[u.Name] = u.Hash, u.Role
	}
	return u, l.refuse
}

func (l *lab) DeleteUser(_ context.Context, _ store.Actor, name string, _ int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.users, name)
	delete(l.people, name)
	return l.refuse
}

func (l *lab) NoteLogin(context.Context, string, time.Time) error { return nil }

func (l *lab) WebSessions(context.Context) (out []store.WebSession, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for token, b := range l.sessions {
		if len(b) == 0 {
			continue
		}
		out = append(out, store.WebSession{Token: token, Data: b, Expires: time.Now().Add(7 * 24 * time.Hour)})
	}
	return out, nil
}

func (l *lab) CreateToken(_ context.Context, _ store.Actor, k store.Token) (store.Token, error) {
	k.ID = int64(len(l.tokens) + 1)
	if k.Owner != "" {
		l.mu.Lock()
		k.OwnerSince = l.user(k.Owner).Created
		l.mu.Unlock()
	}
	l.tokens = append(l.tokens, k)
	return k, k.Validate()
}

func (l *lab) Tokens(context.Context) ([]store.Token, error) { return slices.Clone(l.tokens), nil }

func (l *lab) DeleteToken(_ context.Context, _ store.Actor, id int64) error {
	l.tokens = slices.DeleteFunc(l.tokens, func(k store.Token) bool { return k.ID == id })
	return nil
}

func (l *lab) AuditLog(_ context.Context, f store.AuditFilter) (out []store.Audit, total int, _ error) {
	if l.broken != nil {
		return nil, 0, l.broken
	}
	for _, a := range l.audit {
		if (f.Actor == "" || a.Actor == f.Actor) && strings.HasPrefix(a.Action, f.Noun) && !slices.ContainsFunc(f.Search.Words, func(w string) bool { return !strings.Contains(a.Subject, w) }) {
			out = append(out, a)
		}
	}
	if f.Sort == "subject" {
		slices.SortStableFunc(out, func(a, b store.Audit) int { return strings.Compare(a.Subject, b.Subject) })
	}
	total = len(out)
	return listing.Cut(out, f.Page), total, nil
}

func (l *lab) EveryChange(ctx context.Context, f store.AuditFilter) (store.Parts[store.Audit], error) {
	all, _, err := l.AuditLog(ctx, f)
	return inOnePart(all), err
}

func (l *lab) Auditors(context.Context) ([]store.Actor, error) {
	return []store.Actor{"admin", "token ci"}, nil
}

// as serves the lab and logs in as somebody with a role.
func (l *lab) as(t *testing.T, role store.Role) (get func(path string) (int, string), post func(path string, form ...string) (int, string)) {
	t.Helper()
	l.roles["admin"] = role
	return l.enter(t)
}

func TestEveryPageAsksForTheRole(t *testing.T) {
	for _, role := range store.Roles() {
		l := full()
		_, post := l.as(t, role)
		admin := []string{"/people", "/people/admin/role", "/people/admin/password", "/people/admin/remove", "/people/admin/disabled", "/settings/oidc", "/settings/oidc/try", "/settings/oidc/remove", "/people/tokens", "/people/tokens/1/remove", "/settings/backup", "/volumes/import", "/volumes/attach", "/media/path", "/settings/network/eth1"}
		own := []string{store.OIDCBackChannel, "/login", "/logout", "/setup", "/setup/ask", "/me/password", "/me/logins/x/end"}
		fill := strings.NewReplacer("{id}", "2", "{mac}", "b8:27:eb:91:3c:0d", "{interface}", "eth1", "{user}", "admin", "{token}", "1", "{login}", "x")
		h, err := Handler(Config{Auth: l.auth})
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		err = chi.Walk(h.(chi.Router), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
			path := fill.Replace(route)
			if method == http.MethodGet || slices.Contains(own, path) {
				return nil
			}
			seen++
			need := store.ScopeOperate
			if slices.Contains(admin, path) {
				need = store.ScopeAdmin
			}
			if role.Scope().Allows(need) {
				return nil
			}
			code, body := post(path)
			if code != http.StatusForbidden || !strings.Contains(body, "This needs the role") {
				t.Errorf("%s %s as %s answers %d", method, path, role, code)
			}
			return nil
		})
		if err != nil || seen < 25 {
			t.Fatalf("%d routes, %v", seen, err)
		}
		if len(l.machines) != 4 || len(l.vols) != 4 || len(l.mappings) != 2 {
			t.Errorf("a %s changed something", role)
		}
	}
}

func TestAViewerSeesEverythingAndIsOfferedNothing(t *testing.T) {
	get, post := full().as(t, store.RoleViewer)
	for _, path := range []string{"/machines", "/machines/2", "/volumes", "/loaders", "/settings", "/people", "/audit", "/help"} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, `class="app viewer"`) {
			t.Errorf("%s answers %d", path, code)
		}
	}
	if _, body := get("/people"); strings.Contains(body, "Add somebody") || !strings.Contains(body, "Your logins") {
		t.Errorf("a viewer's people page:\n%s", body)
	}
	if code, body := post("/me/password", "old", "wrong", "password", "new password", "again", "new password"); code != http.StatusForbidden || !strings.Contains(body, "does not fit") {
		t.Errorf("a wrong old password answers %d", code)
	}
	if code, body := post("/me/password", "old", labPassword, "password", "new password", "again", "new pass"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "differ") {
		t.Errorf("two new passwords answer %d", code)
	}
	if code, body := post("/me/password", "old", labPassword, "password", "new password", "again", "new password"); code != http.StatusOK || !strings.Contains(body, "is changed") {
		t.Errorf("the change answers %d", code)
	}
	if code, _ := get("/machines"); code != http.StatusOK {
		t.Error("who changed their own password is logged out")
	}
}

func TestAnAdminKeepsThePeople(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	if code, body := post("/people", "name", "Anna", "role", "viewer", "password", "short"); code != http.StatusUnprocessableEntity || !strings.Contains(body, `value="Anna"`) || !strings.Contains(body, `value="viewer" checked`) {
		t.Errorf("a short password answers %d, and what was typed is lost:\n%s", code, body)
	}
	if code, to := post("/people", "name", "anna", "role", "viewer", "password", "anna's password"); code != http.StatusSeeOther || to != "/people" {
		t.Fatalf("adding answers %d %s", code, to)
	}
	_, body := get("/people")
	has(t, body, "<strong>anna</strong>", "not logged in", "this one", `action="/people/anna/role"`)
	if code, _ := post("/people/anna/role", "role", "operator", "revision", "1"); code != http.StatusSeeOther || l.roles["anna"] != store.RoleOperator {
		t.Errorf("the role answers %d, it is %s", code, l.roles["anna"])
	}
	if code, _ := post("/people/anna/role", "role", "operator", "revision", "x"); code != http.StatusUnprocessableEntity {
		t.Errorf("a revision of nothing answers %d", code)
	}
	if code, body := post("/people/anna/remove", "confirm", "ann"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "Nobody was removed") {
		t.Errorf("removed without the name: %d", code)
	}
	if code, _ := post("/people/anna/remove", "confirm", "anna"); code != http.StatusSeeOther || l.users["anna"] != "" {
		t.Errorf("removing answers %d", code)
	}
	l.refuse = store.Conflict("role", "admin is the last admin; make somebody else an admin first")
	if code, body := post("/people/admin/role", "role", "viewer"); code != http.StatusConflict || !strings.Contains(body, "is the last admin") {
		t.Errorf("the last admin answers %d", code)
	}
	l.refuse = nil
	code, body := post("/people/tokens", "name", "ci", "scope", "read", "days", "3")
	if code != http.StatusOK || !strings.Contains(body, "lb_") {
		t.Errorf("a new token answers %d", code)
	}
	if _, body = get("/tokens"); strings.Contains(body, "lb_") || !strings.Contains(body, "<strong>ci</strong>") {
		t.Error("the token's secret is shown again, or it is not listed")
	}
	if code, body := post("/people/tokens/1/remove", "confirm", "it"); code != http.StatusUnprocessableEntity || len(l.tokens) != 1 || !strings.Contains(body, `name="confirm" required="" autocomplete="off" autocapitalize="none" spellcheck="false" value="it" aria-invalid="true"`) {
		t.Errorf("without its name a token's removal answers %d", code)
	}
	if post("/people/tokens/1/remove", "confirm", "ci"); len(l.tokens) != 0 {
		t.Error("the token is still there")
	}
}

func TestALoginIsListedAndEnded(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	// A second browser of the same person.
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", url.Values{"user": {"admin"}, "password": {labPassword}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	logins, err := l.auth.Logins(t.Context(), "")
	if err != nil || len(logins) != 2 || logins[0].From != "127.0.0.1" || logins[0].User != "admin" {
		t.Fatalf("logins %+v, %v", logins, err)
	}
	_, body := get("/people")
	if strings.Count(body, "/end") != 2 || strings.Count(body, "this one") != 1 {
		t.Errorf("the page lists:\n%s", body)
	}
	var other string
	for _, login := range logins {
		at := strings.Index(body, login.ID)
		if row := body[strings.LastIndex(body[:at], "<tr>"):at]; !strings.Contains(row, "this one") {
			other = login.ID
		}
	}
	// Its stream ends with it, although nothing is written on it.
	stream, err := c.Get(base + "/live")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if err := l.auth.EndLogin(t.Context(), "", other); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, stream.Body); ended <- err }()
	select {
	case <-ended:
	case <-time.After(liveHeartbeat - 2*time.Second):
		t.Error("the stream of an ended login goes on")
	}
	resp, err = c.Get(base + "/machines")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Header.Get("Location") != "/login" {
		t.Error("the ended login is still good")
	}
	if code, _ := get("/machines"); code != http.StatusOK {
		t.Error("the other one ended too")
	}
	if code, _ := post("/me/logins/none/end"); code != http.StatusNotFound {
		t.Errorf("a login that is none answers %d", code)
	}
}

func TestTooManyLoginsFromOneAddressWait(t *testing.T) {
	l := full()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, c := l.open(t)
	for i := range 11 {
		resp, err := c.PostForm(base+"/login", url.Values{"user": {"admin"}, "password": {"wrong"}})
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if i < 10 {
			if resp.StatusCode != http.StatusForbidden {
				t.Fatalf("try %d answers %d", i, resp.StatusCode)
			}
			continue
		}
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(b), "Too many tries") {
			t.Errorf("the 11th try answers %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
	}
}

func TestChangesAreListedFilteredAndPaged(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	_, body := get("/audit")
	has(t, body, "Nothing was changed yet")
	l.audit = changed(120)
	_, body = get("/audit")
	has(t, body, "1–50 of 120", `href="/audit?from=50"`, "<del>lab-1</del>", "<ins>lab-2</ins>", "role viewer", `<span title="machine.update">Changed the machine</span> <strong>lab-2</strong>`, `<span title="user.delete">Removed the user</span> <strong>ben</strong>`)
	if strings.Contains(body, "Newer") {
		t.Error("the first page offers a newer one")
	}
	_, body = get("/audit?who=admin&from=100")
	has(t, body, `href="/audit?from=50&amp;who=admin"`, "<option selected>admin</option>")
	has(t, body, `name="who"`)
	_, body = get("/audit?what=user")
	has(t, body, "1–50 of 60", `<option value="user" selected>people</option>`)
	_, body = get("/audit?from=9000&sort=subject")
	has(t, body, "101–120 of 120", `aria-sort="ascending"`, `rel="prev"`)
	if code, body := get("/audit?search=since:lately"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "is no time") || !strings.Contains(body, `value="since:lately"`) {
		t.Errorf("a time that is none answers %d", code)
	}
	_, body = get("/audit?search=xyzzy")
	has(t, body, "No change fits")
}

// changed is an audit log of n rows.
func changed(n int) (out []store.Audit) {
	for i := range n {
		a := store.Audit{ID: int64(n - i), At: noon.Add(-time.Duration(i) * time.Minute), Actor: "admin", Action: "machine.update", Subject: "lab-2", Detail: "name lab-1 → lab-2",
			Changes: []store.FieldChange{{Field: "name", Before: "lab-1", After: "lab-2"}, {Field: "CHAP secret", After: "(set)"}, {Field: "address", Before: "10.77.0.9"}}}
		if i%2 == 1 {
			a.Action, a.Subject, a.Detail, a.Changes = "user.delete", "ben", "role viewer", nil
		}
		out = append(out, a)
	}
	return out
}

func TestAFormOfWhatSomebodyChangedMeanwhileIsRefused(t *testing.T) {
	l := full()
	l.machines[1].Revision = 3
	get, post := l.enter(t)
	_, body := get("/machines/2")
	if n := strings.Count(body, `name="revision" value="3"`); n < 5 {
		t.Errorf("%d forms carry the revision", n)
	}
	l.machines[1].Revision = 4
	l.audit = []store.Audit{{At: noon, Actor: "anna", Action: "machine.update", Subject: "lab-12", Detail: "profile san → rescue"}}
	for _, path := range []string{"profile", "loader", "quirks", "once", "edit"} {
		code, body := post("/machines/2/"+path, "revision", "3", "profile", "local", "loader", "auto", "name", "lab-99")
		if code != http.StatusPreconditionFailed {
			t.Errorf("%s answers %d", path, code)
		}
		has(t, body, "was changed by somebody meanwhile", "anna: profile san → rescue", `name="revision" value="4"`)
	}
	if l.machines[1].Profile != "san" {
		t.Error("the refused change was made")
	}
	if code, _ := post("/machines/2/profile", "revision", "4", "profile", "local"); code != http.StatusOK || l.machines[1].Profile != "local" {
		t.Errorf("by the new form: %d", code)
	}
}

func TestTokensAreShownWithTheirOwners(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	if code, body := post("/people/tokens", "name", "mine", "scope", "admin", "days", "7"); code != http.StatusOK || !strings.Contains(body, "shown this once") {
		t.Fatalf("making one answers %d", code)
	}
	if k := l.tokens[len(l.tokens)-1]; k.Owner != "admin" {
		t.Errorf("it is made as %+v", k)
	}
	l.people["carla"] = store.User{Name: "carla", Role: store.RoleViewer, Issuer: "https://sso.example.org", Subject: "1", Refused: true, Created: noon}
	l.tokens = append(l.tokens, store.Token{ID: 90, Name: "carlas", Scope: "admin", Owner: "carla", OwnerSince: noon}, store.Token{ID: 91, Name: "bens", Scope: "read", Owner: "ben", OwnerSince: noon}, store.Token{ID: 92, Name: "of-the-shell", Scope: "read"})
	_, body := get("/people")
	has(t, body, "no role at the provider any more")
	_, body = get("/tokens")
	has(t, body, "Whose", "<td>admin</td>", "<td>carla</td>", "its owner, carla, has no role at the provider any more", "its owner, ben, was removed", "nobody’s", "It is yours: it may do no more than you may")
	if strings.Contains(body, "its owner, admin") {
		t.Error("one that may all of it is shown as limited")
	}
}
