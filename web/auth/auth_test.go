package auth_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/auth"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

const password = "correct horse"

type socketKey struct{}

func open(t *testing.T, dir string, clk *clock) (*auth.Auth, *sqlite.DB) {
	t.Helper()
	db, err := sqlite.Open(t.Context(), dir, clk.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a, err := auth.New(t.Context(), auth.Config{
		Users: db, Tokens: db, Sessions: db, Provider: db, Log: slog.New(slog.DiscardHandler), Now: clk.now,
		Peer: func(ctx context.Context) (int, bool) {
			uid, ok := ctx.Value(socketKey{}).(int)
			return uid, ok
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, db
}

func newClock() *clock { return &clock{at: time.Now()} }

// site is a house with a login page, pages and an API.
func site(t *testing.T, a *auth.Auth) *httptest.Server {
	t.Helper()
	who := func(w http.ResponseWriter, r *http.Request) {
		id := auth.From(r.Context())
		fmt.Fprintf(w, "%s/%s", id.Actor, id.Scope)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", a.API(http.HandlerFunc(who)))
	mux.Handle("/page", a.Pages(http.HandlerFunc(who)))
	mux.Handle("/login", a.Pages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.Login(r.Context(), r.PostFormValue("user"), r.PostFormValue("password")); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})))
	mux.Handle("/logout", a.Pages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := a.Logout(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

func get(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func login(t *testing.T, c *http.Client, base, pw string) int {
	t.Helper()
	resp, err := c.PostForm(base+"/login", map[string][]string{"user": {"admin"}, "password": {pw}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

const loggedIn, nobody = "admin/admin", "/"

func TestFirstRunCodeIsGoodUntilAPasswordIsSet(t *testing.T) {
	dir, clk := t.TempDir(), newClock()
	a, _ := open(t, dir, clk)
	code := a.Code()
	if len(code) != 9 || code[4] != '-' || strings.ContainsAny(code, "01OIL") {
		t.Errorf("the first-run code is %q; eight characters without look-alikes are wanted", code)
	}
	if !a.CheckCode(" "+strings.ToLower(code)+"\n") || a.CheckCode("") || a.CheckCode(code+"A") {
		t.Error("the code is taken in either case, and nothing else is")
	}
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", "short"); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a short password: %v", err)
	}
	if !a.CheckCode(code) {
		t.Error("a refused password ended the first run")
	}
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	if a.Code() != "" || a.CheckCode(code) || a.CheckCode("") {
		t.Error("the code is still good after a password was set")
	}
	if again, _ := open(t, dir, clk); again.Code() != "" {
		t.Error("a restart mints a code although there is a password")
	}
}

func TestSessionsSurviveARestart(t *testing.T) {
	dir, clk := t.TempDir(), newClock()
	a, db := open(t, dir, clk)
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	srv, c := site(t, a), browser(t)
	if got := get(t, c, srv.URL+"/page"); got != nobody {
		t.Fatalf("before the login: %q", got)
	}
	if code := login(t, c, srv.URL, password); code != http.StatusOK {
		t.Fatalf("login: %d", code)
	}
	srv.CloseClientConnections()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a, _ = open(t, dir, clk)
	again := site(t, a)
	// The cookie belongs to the host, not to its port (RFC 6265 §8.5).
	for _, path := range []string{"/page", "/api/"} {
		if got := get(t, c, again.URL+path); got != loggedIn {
			t.Errorf("%s after a restart: %q", path, got)
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	clk := newClock()
	a, _ := open(t, t.TempDir(), clk)
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	srv := site(t, a)

	t.Run("at logout, also for a cookie that somebody kept", func(t *testing.T) {
		c := browser(t)
		login(t, c, srv.URL, password)
		kept := cookies(t, c, srv.URL)
		get(t, c, srv.URL+"/logout")
		if got := get(t, c, srv.URL+"/page"); got != nobody {
			t.Errorf("after the logout: %q", got)
		}
		if got := withCookies(t, srv.URL+"/api/", kept); got != nobody {
			t.Errorf("the kept cookie: %q", got)
		}
	})
	t.Run("with a new password", func(t *testing.T) {
		one, two := browser(t), browser(t)
		login(t, one, srv.URL, password)
		login(t, two, srv.URL, password)
		if err := addUser(t, a, "other", store.RoleViewer); err != nil {
			t.Fatal(err)
		}
		if got := get(t, one, srv.URL+"/page"); got != loggedIn {
			t.Errorf("another user's new password ended the session: %q", got)
		}
		// The same text again is a new password too.
		if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*http.Client{one, two} {
			for _, path := range []string{"/page", "/api/"} {
				if got := get(t, c, srv.URL+path); got != nobody {
					t.Errorf("%s after a new password: %q", path, got)
				}
			}
		}
		if login(t, one, srv.URL, password); get(t, one, srv.URL+"/page") != loggedIn {
			t.Error("the new password logs nobody in")
		}
	})
	t.Run("after a week without a request", func(t *testing.T) {
		// The library reads the wall clock for its own limits; what is kept
		// in the database ends by ours.
		c := browser(t)
		login(t, c, srv.URL, password)
		clk.add(31 * 24 * time.Hour)
		defer clk.add(-31 * 24 * time.Hour)
		if got := get(t, c, srv.URL+"/page"); got != nobody {
			t.Errorf("a month later: %q", got)
		}
	})
}

func cookies(t *testing.T, c *http.Client, url string) []*http.Cookie {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := c.Jar.Cookies(req.URL)
	if len(out) == 0 {
		t.Fatal("there is no cookie")
	}
	return out
}

func withCookies(t *testing.T, url string, cs []*http.Cookie) string {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		req.AddCookie(c)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func TestLoginChangesTheSessionsToken(t *testing.T) {
	a, db := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	srv, c := site(t, a), browser(t)
	login(t, c, srv.URL, password)
	before := cookies(t, c, srv.URL)
	login(t, c, srv.URL, password)
	after := cookies(t, c, srv.URL)
	if before[0].Value == after[0].Value {
		t.Error("a login keeps the token that was there before it: session fixation")
	}
	if got := withCookies(t, srv.URL+"/page", before); got != nobody {
		t.Errorf("the token from before the login is worth %q", got)
	}
	planted := []*http.Cookie{{Name: "lunboot_session", Value: "chosen-by-a-stranger"}}
	if got := withCookies(t, srv.URL+"/page", planted); got != nobody {
		t.Errorf("a planted token is worth %q", got)
	}
	if _, found, err := db.FindCtx(t.Context(), after[0].Value); err != nil || found {
		t.Errorf("the cookie's value is in the database as it is (found %v, %v)", found, err)
	}
}

func TestCookieIsClosedToScriptsAndOtherSites(t *testing.T) {
	a, _ := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	srv := site(t, a)
	resp, err := http.PostForm(srv.URL+"/login", map[string][]string{"user": {"admin"}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	set := resp.Cookies()
	if len(set) != 1 || !set[0].HttpOnly || set[0].SameSite != http.SameSiteLaxMode || set[0].Domain != "" || set[0].Path != "/" {
		t.Errorf("cookie: %+v", set)
	}
}

func TestWrongPasswordsAndStrangersAreRefusedAlike(t *testing.T) {
	a, _ := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range [][2]string{{"admin", "wrong password"}, {"nobody", password}, {"admin", ""}, {"", ""}, {"admin", strings.Repeat("x", 1<<20)}} {
		err := a.Login(t.Context(), c[0], c[1])
		if store.KindOf(err) != store.KindDenied {
			t.Errorf("login as %q: %v", c[0], err)
			continue
		}
		said = append(said, err.Error())
	}
	for _, s := range said {
		if s != said[0] {
			t.Errorf("a stranger can tell users apart: %q and %q", s, said[0])
		}
	}
}

func bearer(t *testing.T, url, header string) string {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

func TestTokensLiveAndEnd(t *testing.T) {
	clk := newClock()
	a, db := open(t, t.TempDir(), clk)
	srv := site(t, a)
	for _, days := range []int{0, -1, 367} {
		if _, _, err := a.CreateToken(t.Context(), "x", "ci", store.ScopeRead, days); store.KindOf(err) != store.KindInvalid {
			t.Errorf("a token for %d days: %v", days, err)
		}
	}
	tok, secret, err := a.CreateToken(t.Context(), "x", "ci", store.ScopeOperate, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(secret, "lb_") || len(secret) < 32 {
		t.Errorf("the secret %q", secret)
	}
	if kept, err := db.Tokens(t.Context()); err != nil || len(kept) != 1 || strings.Contains(fmt.Sprintf("%+v", kept), secret[3:]) {
		t.Errorf("the database keeps the secret itself: %+v, %v", kept, err)
	}
	const works = "token ci/operate"
	for header, want := range map[string]string{
		"Bearer " + secret: works, "bearer " + secret: works, "Bearer  " + secret: works,
		"Bearer " + secret + "x": nobody, "Bearer " + tok.Hash: nobody, "Basic " + secret: nobody, "Bearer": nobody, "Bearer ": nobody, secret: nobody,
	} {
		if got := bearer(t, srv.URL+"/api/", header); got != want {
			t.Errorf("Authorization %q is %q, want %q", header, got, want)
		}
	}
	if kept, _ := db.Tokens(t.Context()); kept[0].LastUsed.IsZero() {
		t.Error("its use was not noted")
	}
	clk.add(48*time.Hour - time.Second)
	if got := bearer(t, srv.URL+"/api/", "Bearer "+secret); got != works {
		t.Errorf("a second before its end: %q", got)
	}
	clk.add(time.Second)
	if got := bearer(t, srv.URL+"/api/", "Bearer "+secret); got != nobody {
		t.Errorf("at its end: %q", got)
	}
	two, secret2, err := a.CreateToken(t.Context(), "x", "ci2", store.ScopeRead, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteToken(t.Context(), "x", two.ID); err != nil {
		t.Fatal(err)
	}
	if got := bearer(t, srv.URL+"/api/", "Bearer "+secret2); got != nobody {
		t.Errorf("deleted: %q", got)
	}
}

func TestTheSocketsPeerNeedsNoLogin(t *testing.T) {
	a, _ := open(t, t.TempDir(), newClock())
	for uid, want := range map[int]auth.Identity{
		0:    {Actor: store.ActorSocket, Scope: store.ScopeAdmin, Local: true},
		1000: {Actor: "local user 1000", Scope: store.ScopeAdmin, Local: true},
	} {
		var got auth.Identity
		h := a.API(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = auth.From(r.Context()) }))
		r := httptest.NewRequest("GET", "/api/", nil)
		h.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithValue(r.Context(), socketKey{}, uid)))
		if got != want {
			t.Errorf("uid %d is %+v, want %+v", uid, got, want)
		}
	}
	// A token that is named counts, also a bad one: nobody is more than they
	// said they are.
	var got auth.Identity
	h := a.API(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = auth.From(r.Context()) }))
	r := httptest.NewRequest("GET", "/api/", nil)
	r.Header.Set("Authorization", "Bearer lb_nonsense")
	h.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithValue(r.Context(), socketKey{}, 0)))
	if got != (auth.Identity{}) {
		t.Errorf("a bad token over the socket is %+v", got)
	}
}

func TestAnEmptyIdentityMayDoNothing(t *testing.T) {
	id := auth.From(t.Context())
	for _, s := range []store.Scope{store.ScopeRead, store.ScopeOperate, store.ScopeAdmin, ""} {
		if id.May(s) {
			t.Errorf("nobody may %q", s)
		}
	}
	read := auth.Identity{Scope: store.ScopeRead}
	if !read.May(store.ScopeRead) || read.May(store.ScopeOperate) || read.May(store.ScopeAdmin) {
		t.Error("the scopes do not rise")
	}
}

func TestManyLoginsAtOnceAllGetTheirAnswer(t *testing.T) {
	a, _ := open(t, t.TempDir(), newClock())
	if err := a.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			ctx := t.Context()
			if i%3 == 0 {
				ctx = ended // a client that hung up while it waited
			}
			if err := a.Login(ctx, "admin", "wrong"); err == nil {
				t.Error("a wrong password logs in")
			}
		})
	}
	wg.Wait()
}

// brokenSessions is a table that cannot be read.
type brokenSessions struct{ *sqlite.DB }

func (brokenSessions) FindCtx(ctx context.Context, _ string) ([]byte, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("look up a web session: %w", err)
	}
	return nil, false, io.ErrUnexpectedEOF
}

// Browsers cancel requests all day: that is no error of the appliance. A table that
// cannot be read is one.
func TestAVisitorWhoTurnsAwayIsNoError(t *testing.T) {
	db, err := sqlite.Open(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var said strings.Builder
	a, err := auth.New(t.Context(), auth.Config{
		Users: db, Tokens: db, Sessions: brokenSessions{db}, Provider: db, Log: slog.New(slog.NewTextHandler(&said, nil)), Now: time.Now,
		Peer: func(context.Context) (int, bool) { return 0, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context) int {
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		r.AddCookie(&http.Cookie{Name: "lunboot_session", Value: "some"})
		a.Pages(http.NotFoundHandler()).ServeHTTP(w, r)
		return w.Code
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if ask(gone); said.Len() > 0 {
		t.Errorf("it says %s", said.String())
	}
	if code := ask(t.Context()); code != http.StatusInternalServerError || !strings.Contains(said.String(), "unexpected EOF") {
		t.Errorf("a broken table answers %d and says %q", code, said.String())
	}
}
