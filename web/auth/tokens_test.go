package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/auth"
)

// by is a context of somebody who is logged in.
func by(t *testing.T, a *auth.Auth, name string) context.Context {
	t.Helper()
	u, err := a.User(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return auth.With(t.Context(), auth.Identity{Actor: store.Actor(name), User: name, Scope: u.Role.Scope()})
}

// token is the text of a token that somebody makes.
func token(ctx context.Context, t *testing.T, a *auth.Auth, name string, scope store.Scope) string {
	t.Helper()
	_, secret, err := a.CreateToken(ctx, auth.From(ctx).Actor, name, scope, 90)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// may is what a token is allowed, and why it is not more.
func may(t *testing.T, a *auth.Auth, secret string) (scope store.Scope, limit string) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/", nil)
	req.Header.Set("Authorization", "Bearer "+secret)
	a.API(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		id := auth.From(r.Context())
		scope, limit = id.Scope, id.Limit
	})).ServeHTTP(httptest.NewRecorder(), req)
	return scope, limit
}

func TestATokenMayNoMoreThanItsOwnerNow(t *testing.T) {
	clk := newClock()
	dir := t.TempDir()
	a, db := open(t, dir, clk)
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	if err := addUser(t, a, "anna", store.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	annas := by(t, a, "anna")
	secrets := map[string]string{}
	for _, s := range []store.Scope{store.ScopeRead, store.ScopeOperate, store.ScopeAdmin} {
		secrets[string(s)] = token(annas, t, a, "annas-"+string(s), s)
	}
	// What her token makes is hers too.
	all, err := a.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secrets["second"] = token(auth.With(t.Context(), auth.Identity{Actor: "token annas-admin", Scope: store.ScopeAdmin, Token: all[0].ID, Owner: "anna"}), t, a, "second", store.ScopeAdmin)
	secrets["nobody's"] = token(auth.With(t.Context(), auth.Identity{Actor: store.ActorSocket, Scope: store.ScopeAdmin, Local: true}), t, a, "nobodys", store.ScopeAdmin)

	set := func(p store.UserPatch) func() {
		return func() {
			t.Helper()
			if _, err := a.SetUser(t.Context(), "admin", "anna", p); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func() {
		if err := a.RemoveUser(t.Context(), "admin", "anna", 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what  string
		do    func()
		most  store.Scope
		limit string
	}{
		{"at first", func() {}, store.ScopeAdmin, ""},
		{"as an operator", set(store.UserPatch{Role: new(store.RoleOperator)}), store.ScopeOperate, "its owner, anna, is operator now"},
		{"as a viewer", set(store.UserPatch{Role: new(store.RoleViewer)}), store.ScopeRead, "its owner, anna, is viewer now"},
		{"shut out", set(store.UserPatch{Disabled: new(true)}), "", "its owner, anna, is shut out"},
		{"let in again", set(store.UserPatch{Disabled: new(false), Role: new(store.RoleAdmin)}), store.ScopeAdmin, ""},
		{"removed", remove, "", "its owner, anna, was removed"},
		{"another of that name", func() {
			clk.add(time.Second)
			if err := addUser(t, a, "anna", store.RoleAdmin); err != nil {
				t.Fatal(err)
			}
		}, "", "its owner, anna, was removed"},
		{"after a restart", func() { a, db = open(t, dir, clk) }, "", "its owner, anna, was removed"},
	} {
		step.do()
		for name, secret := range secrets {
			want := map[string]store.Scope{"read": store.ScopeRead, "operate": store.ScopeOperate}[name]
			if want == "" {
				want = store.ScopeAdmin
			}
			limit := ""
			if name != "nobody's" && !step.most.Allows(want) {
				want, limit = step.most, step.limit
			}
			if got, why := may(t, a, secret); got != want || why != limit {
				t.Errorf("%s, the token %s may %q (%s), want %q (%s)", step.what, name, got, why, want, limit)
			}
		}
		all, err := a.Tokens(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			owner, limit := "anna", ""
			if k.Name == "nobodys" {
				owner = ""
			} else if !step.most.Allows(store.Scope(k.Scope)) {
				limit = step.limit
			}
			if k.Owner != owner || k.Limit != limit {
				t.Errorf("%s, it is listed as %+v", step.what, k)
			}
		}
	}
	// Who knows nothing of a token is told nothing of its owner, and a token that is
	// refused was not used.
	if got, why := may(t, a, secrets["admin"]+"x"); got != "" || why != "" {
		t.Errorf("a guess may %q, and is told %q", got, why)
	}
	before, err := db.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	clk.add(time.Hour)
	may(t, a, secrets["admin"])
	if after, err := db.Tokens(t.Context()); err != nil || !slices.Equal(before, after) {
		t.Errorf("%+v, %v", after, err)
	}
}

func TestATokenOfSomebodyWhoCameThroughTheProviderFollowsItsWord(t *testing.T) {
	d := openDoor(t)
	c := browser(t)
	d.come(t, c, vouched("1", "anna", store.RoleAdmin))
	secret := token(by(t, d.Auth, "anna"), t, d.Auth, "annas", store.ScopeAdmin)
	is := func(what string, want store.Scope, limit string) {
		t.Helper()
		if got, why := may(t, d.Auth, secret); got != want || why != limit {
			t.Errorf("%s it may %q (%s), want %q (%s)", what, got, why, want, limit)
		}
	}
	is("at first", store.ScopeAdmin, "")
	d.come(t, browser(t), vouched("1", "anna", store.RoleViewer))
	is("with a smaller role", store.ScopeRead, "its owner, anna, is viewer now")
	d.come(t, browser(t), vouched("1", "anna", ""))
	is("without a role", "", "its owner, anna, has no role at the provider any more")
	if u, err := d.User(t.Context(), "anna"); err != nil || !u.Refused || u.Disabled {
		t.Errorf("she is %+v, %v", u, err)
	}
	d.come(t, browser(t), vouched("1", "anna", "")) // again, which changes nothing
	d.come(t, c, vouched("1", "anna", store.RoleAdmin))
	is("with a role again", store.ScopeAdmin, "")
	d.is(t, c, "anna/admin")
	if err := d.EndFederated(t.Context(), "https://another.example.org"); err != nil {
		t.Fatal(err)
	}
	is("when the provider is another", "", "its owner, anna, came through "+issuer+", which is no longer the provider here")
	if err := d.EndFederated(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	is("when it is the same again", store.ScopeAdmin, "")
}

// Whoever refuses somebody takes nothing back that an admin does at this moment.
func TestARefusalLeavesAnAdminsChange(t *testing.T) {
	d := openDoor(t)
	d.come(t, browser(t), vouched("1", "anna", store.RoleAdmin))
	done := make(chan error, 1)
	go func() {
		_, err := d.SetUser(context.WithoutCancel(t.Context()), "admin", "anna", store.UserPatch{Disabled: new(true)})
		done <- err
	}()
	d.come(t, browser(t), vouched("1", "anna", ""))
	err := <-done
	u, readErr := d.User(t.Context(), "anna")
	if readErr != nil || !u.Refused || u.Disabled != (err == nil) || err != nil && store.KindOf(err) != store.KindConflict {
		t.Errorf("she is %+v, %v; the admin is told %v", u, readErr, err)
	}
}

// What runs for a token ends with what allowed it, and no other.
func TestWhatRunsForATokenEndsWithItsOwner(t *testing.T) {
	for what, c := range map[string]struct {
		patch store.UserPatch
		ends  []string
	}{
		"shut out":    {store.UserPatch{Disabled: new(true)}, []string{"annas-admin", "annas-read"}},
		"a role less": {store.UserPatch{Role: new(store.RoleOperator)}, []string{"annas-admin"}},
		"removed":     {store.UserPatch{}, []string{"annas-admin", "annas-read"}},
	} {
		a, _ := open(t, t.TempDir(), newClock())
		if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"anna", "ben"} {
			if err := addUser(t, a, name, store.RoleAdmin); err != nil {
				t.Fatal(err)
			}
		}
		began, ended, hold := make(chan struct{}), make(chan string), make(chan struct{})
		h := a.API(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			select {
			case <-r.Context().Done():
				ended <- strings.TrimPrefix(string(auth.From(r.Context()).Actor), "token ")
			case <-hold:
				ended <- ""
			}
		}))
		names := map[string]store.Scope{"annas-admin": store.ScopeAdmin, "annas-read": store.ScopeRead, "bens": store.ScopeAdmin}
		for name, scope := range names {
			owner, _, _ := strings.Cut(name, "s-")
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/", nil)
			req.Header.Set("Authorization", "Bearer "+token(by(t, a, strings.TrimSuffix(owner, "s")), t, a, name, scope))
			go h.ServeHTTP(httptest.NewRecorder(), req)
			<-began
		}
		var err error
		if what == "removed" {
			err = a.RemoveUser(t.Context(), "admin", "anna", 0)
		} else {
			_, err = a.SetUser(t.Context(), "admin", "anna", c.patch)
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range c.ends {
			got = append(got, <-ended)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.ends) {
			t.Errorf("%s: it ends %q, want %q", what, got, c.ends)
		}
		close(hold)
		for range len(names) - len(c.ends) {
			if name := <-ended; name != "" {
				t.Errorf("%s: it ends %s too", what, name)
			}
		}
	}
}

func TestATokenThatRanOutSaysSo(t *testing.T) {
	clk := newClock()
	a, _ := open(t, t.TempDir(), clk)
	secret := token(t.Context(), t, a, "ci", store.ScopeRead)
	clk.add(91 * 24 * time.Hour)
	if got, why := may(t, a, secret); got != "" || !strings.HasPrefix(why, "it ran out at 20") {
		t.Errorf("it may %q, and is told %q", got, why)
	}
}

// What the provider gave to be logged out by is kept as long as the login, and no
// longer, and nowhere but in memory.
func TestAHintIsKeptAsLongAsTheLogin(t *testing.T) {
	hinted := func(subject string) store.OIDCPerson {
		p := vouched(subject, "person"+subject, store.RoleOperator)
		p.Hint = "word on " + subject
		return p
	}
	d := openDoor(t)
	var left auth.Left
	out := httptest.NewServer(d.Pages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if left, err = d.Logout(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})))
	t.Cleanup(out.Close)
	leave := func(c *http.Client) auth.Left {
		t.Helper()
		left = auth.Left{}
		if got := get(t, c, out.URL); got != "" {
			t.Fatal(got)
		}
		return left
	}
	c := browser(t)
	d.come(t, c, hinted("1"))
	if got := leave(c); got != (auth.Left{Issuer: issuer, Hint: "word on 1"}) {
		t.Errorf("who leaves is %+v", got)
	}
	d.is(t, c, nobody)
	if got := leave(c); got != (auth.Left{}) {
		t.Errorf("who left is %+v", got)
	}
	login(t, c, d.srv.URL, password)
	if got := leave(c); got != (auth.Left{}) {
		t.Errorf("who has a password is %+v", got)
	}
	// A second login of the same browser takes the place of the first.
	d.come(t, c, hinted("1"))
	d.come(t, c, hinted("2"))
	if n := d.Hints(); n != 1 {
		t.Errorf("%d hints are kept for one login", n)
	}
	for what, end := range map[string]func() error{
		"ended": func() error {
			all, err := d.Logins(t.Context(), "person2")
			for _, l := range all {
				err = errors.Join(err, d.EndLogin(t.Context(), "", l.ID))
			}
			return err
		},
		"shut out": func() error {
			_, err := d.SetUser(t.Context(), "admin", "person2", store.UserPatch{Disabled: new(true)})
			return err
		},
		"of another client": func() error { return d.EndFederated(t.Context(), issuer) },
	} {
		if _, err := d.SetUser(t.Context(), "admin", "person2", store.UserPatch{Disabled: new(false)}); err != nil {
			t.Fatal(err)
		}
		d.come(t, browser(t), hinted("2"))
		if n := d.Hints(); n == 0 {
			t.Errorf("%s: no hint is kept", what)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.Hints(); n != 0 {
		t.Errorf("%d hints are left of logins that ended", n)
	}
	// Their time is the login's, and their number has an end.
	d.come(t, c, hinted("1"))
	d.clk.add(13 * time.Hour)
	for i := range 1030 {
		d.Remember(fmt.Sprint("login ", i), "anna", "x", d.clk.now().Add(time.Hour+time.Duration(i)*time.Second))
	}
	if n := d.Hints(); n != 1024 || d.Forget("login 0") != "" || d.Forget("login 1029") != "x" {
		t.Errorf("%d hints are kept", n)
	}
	// The database, and so a backup, has none.
	rows, err := d.db.WebSessions(t.Context())
	if err != nil || len(rows) == 0 {
		t.Fatal(rows, err)
	}
	for _, row := range rows {
		if strings.Contains(string(row.Data), "word on") {
			t.Errorf("a session's row holds a hint: %q", row.Data)
		}
	}
}

// late answers who somebody was before something was done to them.
type late struct {
	*sqlite.DB
	then func() // done once, between the look and its answer
}

func (l *late) User(ctx context.Context, name string) (store.User, error) {
	u, err := l.DB.User(ctx, name)
	if then := l.then; then != nil {
		l.then = nil
		then()
	}
	return u, err
}

// Who is shut out while their request comes in does not get in by a hair.
func TestARequestThatComesWhileItsOwnerIsShutOutIsRefused(t *testing.T) {
	a, db := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	if err := addUser(t, a, "anna", store.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	secret := token(by(t, a, "anna"), t, a, "annas", store.ScopeAdmin)
	users := &late{DB: db}
	b, err := auth.New(t.Context(), auth.Config{Users: users, Tokens: db, Sessions: db, Provider: db, Log: slog.New(slog.DiscardHandler), Now: time.Now, Peer: func(context.Context) (int, bool) { return 0, false }})
	if err != nil {
		t.Fatal(err)
	}
	users.then = func() {
		if _, err := b.SetUser(t.Context(), "admin", "anna", store.UserPatch{Disabled: new(true)}); err != nil {
			t.Error(err)
		}
	}
	if got, why := may(t, b, secret); got != "" || why != "its owner, anna, is shut out" {
		t.Errorf("it may %q (%s)", got, why)
	}
	if users.then != nil {
		t.Error("nothing was done meanwhile")
	}
}
