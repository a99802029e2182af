package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/auth"
)

func addUser(t *testing.T, a *auth.Auth, name string, role store.Role) error {
	t.Helper()
	_, err := a.AddUser(t.Context(), "admin", name, role, password)
	return err
}

func loginAs(t *testing.T, c *http.Client, base, user string) {
	t.Helper()
	resp, err := c.PostForm(base+"/login", map[string][]string{"user": {user}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s logs in with %d", user, resp.StatusCode)
	}
}

// house has an admin, an operator and a viewer.
func house(t *testing.T) (*auth.Auth, *httptest.Server) {
	t.Helper()
	a, _ := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]store.Role{"olga": store.RoleOperator, "vera": store.RoleViewer} {
		if err := addUser(t, a, name, role); err != nil {
			t.Fatal(err)
		}
	}
	return a, site(t, a)
}

func TestARoleIsWhatTheSessionMayDo(t *testing.T) {
	a, srv := house(t)
	for name, want := range map[string]string{"admin": "admin/admin", "olga": "olga/operate", "vera": "vera/read"} {
		c := browser(t)
		loginAs(t, c, srv.URL, name)
		for _, path := range []string{"/page", "/api/"} {
			if got := get(t, c, srv.URL+path); got != want {
				t.Errorf("%s on %s is %q", name, path, got)
			}
		}
		if name != "olga" {
			continue
		}
		if _, err := a.SetUser(t.Context(), "admin", "olga", store.UserPatch{Role: new(store.RoleViewer)}); err != nil {
			t.Fatal(err)
		}
		if got := get(t, c, srv.URL+"/api/"); got != "olga/read" {
			t.Errorf("after a new role: %q", got)
		}
	}
	if _, err := a.SetUser(t.Context(), "admin", "admin", store.UserPatch{Role: new(store.RoleViewer)}); store.KindOf(err) != store.KindConflict {
		t.Errorf("the last admin: %v", err)
	}
	if err := a.SetPassword(t.Context(), "admin", "nobody", password); !store.IsNotFound(err) {
		t.Errorf("a password for nobody: %v", err)
	}
}

func TestLoginsAreListedAndEnded(t *testing.T) {
	a, srv := house(t)
	one, two := browser(t), browser(t)
	loginAs(t, one, srv.URL, "vera")
	loginAs(t, two, srv.URL, "olga")
	all, err := a.Logins(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	mine, err := a.Logins(t.Context(), "vera")
	if err != nil || len(mine) != 1 || mine[0].User != "vera" || mine[0].From != "127.0.0.1" || mine[0].Agent == "" || mine[0].Began.IsZero() || mine[0].Used.Before(mine[0].Began) || !mine[0].Expires.After(mine[0].Used) {
		t.Fatalf("%+v, %v", mine, err)
	}
	if err := a.EndLogin(t.Context(), "olga", mine[0].ID); !store.IsNotFound(err) {
		t.Errorf("somebody ends another's login: %v", err)
	}
	if err := a.EndLogin(t.Context(), "vera", mine[0].ID); err != nil {
		t.Fatal(err)
	}
	if got := get(t, one, srv.URL+"/page"); got != nobody {
		t.Errorf("the ended login is %q", got)
	}
	if got := get(t, two, srv.URL+"/page"); got != "olga/operate" {
		t.Errorf("another's login is %q", got)
	}
	if err := a.RemoveUser(t.Context(), "admin", "olga", 0); err != nil {
		t.Fatal(err)
	}
	if got := get(t, two, srv.URL+"/api/"); got != nobody {
		t.Errorf("somebody who was removed is %q", got)
	}
	if err := addUser(t, a, "olga", store.RoleOperator); err != nil {
		t.Fatal(err)
	}
	if got := get(t, two, srv.URL+"/api/"); got != nobody {
		t.Errorf("the login of one who was removed is good for the next of the name: %q", got)
	}
}

// What runs for hours ends with what allowed it, whatever that is.
func TestARequestEndsWithWhatAllowedIt(t *testing.T) {
	clk := newClock()
	a, _ := open(t, t.TempDir(), clk)
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	srv := site(t, a)
	running := make(chan context.Context, 1)
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	long := httptest.NewServer(a.API(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		running <- r.Context()
		select {
		case <-r.Context().Done():
		case <-hold:
		}
	})))
	t.Cleanup(long.Close)
	begin := func(name string, ends bool, header string, cookies []*http.Cookie, act func()) {
		t.Helper()
		req, err := http.NewRequest("GET", long.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			req.Header.Set("Authorization", "Bearer "+header)
		}
		for _, c := range cookies {
			req.AddCookie(c)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
		ctx := <-running
		if auth.From(ctx).Scope == "" {
			t.Fatalf("%s: nobody asks", name)
		}
		act()
		select {
		case <-ctx.Done():
			if !ends {
				t.Errorf("%s ends it", name)
			}
		case <-time.After(map[bool]time.Duration{true: 10 * time.Second, false: 100 * time.Millisecond}[ends]):
			if ends {
				t.Errorf("%s does not end it", name)
			}
			hold <- struct{}{}
		}
		<-done
	}
	token := func(days int) (store.Token, string) {
		k, secret, err := a.CreateToken(t.Context(), "admin", "t"+newName(), store.ScopeRead, days)
		if err != nil {
			t.Fatal(err)
		}
		return k, secret
	}
	k, secret := token(1)
	other, _ := token(1)
	begin("another token's end", false, secret, nil, func() {
		if err := a.DeleteToken(t.Context(), "admin", other.ID); err != nil {
			t.Error(err)
		}
	})
	begin("the token's end", true, secret, nil, func() {
		if err := a.DeleteToken(t.Context(), "admin", k.ID); err != nil {
			t.Error(err)
		}
	})
	_, secret = token(1)
	clk.add(24*time.Hour - 300*time.Millisecond)
	begin("the token's time", true, secret, nil, func() {})
	clk.add(-24*time.Hour + 300*time.Millisecond)

	c := browser(t)
	loginAs(t, c, srv.URL, "admin")
	begin("a logout", true, "", cookies(t, c, srv.URL), func() { get(t, c, srv.URL+"/logout") })
	loginAs(t, c, srv.URL, "admin")
	begin("a new password", true, "", cookies(t, c, srv.URL), func() {
		if err := a.SetPassword(t.Context(), "admin", "admin", password); err != nil {
			t.Error(err)
		}
	})
	if err := addUser(t, a, "olga", store.RoleOperator); err != nil {
		t.Fatal(err)
	}
	loginAs(t, c, srv.URL, "olga")
	begin("a greater role", false, "", cookies(t, c, srv.URL), func() {
		if _, err := a.SetUser(t.Context(), "admin", "olga", store.UserPatch{Role: new(store.RoleAdmin)}); err != nil {
			t.Error(err)
		}
	})
	begin("a smaller role", true, "", cookies(t, c, srv.URL), func() {
		if _, err := a.SetUser(t.Context(), "admin", "olga", store.UserPatch{Role: new(store.RoleViewer)}); err != nil {
			t.Error(err)
		}
	})
	begin("their removal", true, "", cookies(t, c, srv.URL), func() {
		if err := a.RemoveUser(t.Context(), "admin", "olga", 0); err != nil {
			t.Error(err)
		}
	})
}

func newName() string { return time.Now().Format("150405.000000000") }
