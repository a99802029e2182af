package pages

import (
	"context"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lunboot/store"
	"lunboot/web/auth"
	"lunboot/web/auth/oidc/oidctest"
)

// providerRows keep the lab's provider.
type providerRows struct{ l *lab }

func (p providerRows) OIDC(context.Context) (store.OIDC, error) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	return p.l.provider, nil
}

func (providerRows) LogoutTold(context.Context, string, string) (bool, error) { return false, nil }

func (providerRows) KeepLogout(context.Context, string, string, time.Time) error { return nil }

func (p providerRows) PutOIDC(_ context.Context, _ store.Actor, o store.OIDC) (store.OIDC, error) {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if o.Revision != 0 && o.Revision != p.l.provider.Revision {
		return o, store.Conflict("revision", "the provider was changed by somebody else")
	}
	o.Revision = p.l.provider.Revision + 1
	p.l.provider = o
	return o, nil
}

// federated is a lab with a provider, and a browser that follows links to both.
type federated struct {
	*lab
	*oidctest.Provider
	base   string
	client *http.Client
}

func withProvider(t *testing.T, p *oidctest.Provider, err error) *federated {
	t.Helper()
	must(t, err)
	t.Cleanup(p.Close)
	l := full()
	l.now = time.Now
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	f := &federated{lab: l, Provider: p}
	var c *http.Client
	f.base, c = l.open(t)
	l.provider, err = store.OIDC{
		Revision: 1, Issuer: p.URL, Name: "Lab SSO", ClientID: p.ClientID, Secret: p.Secret, URL: f.base, CA: p.CA(), Claim: "groups",
		Roles: []store.ClaimRole{{Value: "lab-operators", Role: store.RoleOperator}, {Value: "lab-admins", Role: store.RoleAdmin}},
	}.Normalize()
	must(t, err)
	must(t, l.auth.EndFederated(t.Context(), p.URL))
	p.Redirect = l.provider.Redirect()
	f.client = &http.Client{Jar: c.Jar, Transport: p.Client().Transport} // which trusts the provider
	return f
}

// follow goes where a link leads, and where that sends on, and returns the page at
// its end.
func (f *federated) follow(t *testing.T, path string) (code int, at *url.URL, body string) {
	t.Helper()
	resp, err := f.client.Get(f.base + path)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Request.URL, string(b)
}

func TestSomebodySignsInThroughTheProvider(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	// To a page that needs a login, by the button of the login page.
	_, _, body := f.follow(t, "/machines/2?x=1")
	has(t, body, "Sign in with Lab SSO", `href="/login/oidc?next=%2fmachines%2f2%3fx%3d1"`, `name="next" value="/machines/2?x=1"`)
	if slices.Contains(p.Seen(), "/.well-known/openid-configuration") {
		t.Error("the login page asks the provider before anybody wants it")
	}
	code, at, body := f.follow(t, "/login/oidc?next=%2Fmachines%2F2%3Fx%3D1")
	if code != http.StatusOK || at.String() != f.base+"/machines/2?x=1" || !strings.Contains(body, `class="app operator"`) || !strings.Contains(body, ">anna</a>, operator") {
		t.Fatalf("it ends at %s with %d:\n%s", at, code, body)
	}
	u := f.people["anna"]
	if u.Issuer != p.URL || u.Subject != "248289761001" || u.Role != store.RoleOperator || u.Hash != "" {
		t.Errorf("she is kept as %+v", u)
	}
	if n := len(f.recorded); n == 0 || !strings.HasPrefix(f.recorded[n-1], "anna | user.login | anna | by OpenID Connect ("+p.URL+" knows them as anna), from 127.0.0.1") {
		t.Errorf("recorded is %q", f.recorded)
	}
	// Her own page offers no password; the list shows how she came.
	_, _, body = f.follow(t, "/people")
	if strings.Contains(body, "Your password") || !strings.Contains(body, "Your logins") {
		t.Errorf("her page:\n%s", body)
	}
	resp, err := f.client.PostForm(f.base+"/me/password", url.Values{"old": {""}, "password": {"a new password"}, "again": {"a new password"}})
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || f.people["anna"].Hash != "" {
		t.Errorf("a password of her own answers %d", resp.StatusCode)
	}
	// Logging out ends our session, and is no way to be in again without the button.
	resp, err = f.client.PostForm(f.base+"/logout", nil)
	must(t, err)
	resp.Body.Close()
	if _, at, _ := f.follow(t, "/machines"); at.Path != "/login" {
		t.Errorf("after the logout she is at %s", at)
	}
}

func TestAFailedSignInEndsAtTheLoginInPlainWords(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		code int
		says string
	}{
		"denied":        {func(p *oidctest.Provider) { p.Deny = "access_denied" }, http.StatusForbidden, "Lab SSO refused the sign-in (“not today”)."},
		"in trouble":    {func(p *oidctest.Provider) { p.Deny = "temporarily_unavailable" }, http.StatusForbidden, "did not let you sign in: temporarily_unavailable"},
		"no role":       {func(p *oidctest.Provider) { p.Person["groups"] = []string{"<b>guests</b>"} }, http.StatusForbidden, "Lab SSO knows you as anna, and nothing that it says of you gives a role here: your groups there: &lt;b&gt;guests&lt;/b&gt;."},
		"another clock": {func(p *oidctest.Provider) { p.Now = func() time.Time { return time.Now().Add(-time.Hour) } }, http.StatusForbidden, "one of the two clocks is wrong"},
		"another state": {func(p *oidctest.Provider) { p.Answer = func(v url.Values) { v.Set("state", "another") } }, http.StatusForbidden, "Start the sign-in again"},
		"not there":     {func(p *oidctest.Provider) { p.Bend = func(m map[string]any) { m["issuer"] = "https://other.example" } }, http.StatusServiceUnavailable, "calls itself"},
		"wrong secret":  {func(p *oidctest.Provider) { p.Secret = "another" }, http.StatusServiceUnavailable, "does not know this appliance as lunboot"},
	} {
		p.Set(func(p *oidctest.Provider) {
			p.Deny, p.Answer, p.Bend, p.Now, p.Secret = "", nil, nil, time.Now, f.provider.Secret
			p.Person = map[string]any{"sub": "1", "preferred_username": "anna", "groups": []string{"lab-operators"}}
			c.bend(p)
		})
		code, _, body := f.follow(t, "/login/oidc?next=%2Fvolumes")
		if code != c.code || !strings.Contains(body, c.says) || !strings.Contains(body, "<h1>Log in</h1>") || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s: %d\n%s", what, code, body)
		}
		if strings.Contains(body, f.provider.Secret) {
			t.Errorf("%s: the secret is shown", what)
		}
		if _, at, _ := f.follow(t, "/machines"); at.Path != "/login" {
			t.Errorf("%s: somebody is in", what)
		}
	}
	if len(f.people) != 0 {
		t.Errorf("somebody was added: %v", f.people)
	}
	p.Close()
	code, _, body := f.follow(t, "/login/oidc")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "Nothing listens at") {
		t.Errorf("with the provider away it is %d\n%s", code, body)
	}
	resp, err := f.client.PostForm(f.base+"/login", url.Values{"user": {"admin"}, "password": {labPassword}, "next": {"/volumes"}})
	must(t, err)
	resp.Body.Close()
	if resp.Request.URL.Path != "/volumes" {
		t.Errorf("a password, with the provider away, leads to %s", resp.Request.URL)
	}
}

// An answer that another browser brings, or this one a second time, is nobody's.
func TestAnAnswerIsGoodOnceAndForTheBrowserThatAsked(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	f.client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == store.OIDCCallback {
			return http.ErrUseLastResponse
		}
		return nil
	}
	begin := func() string {
		resp, err := f.client.Get(f.base + "/login/oidc")
		must(t, err)
		resp.Body.Close()
		return strings.TrimPrefix(resp.Header.Get("Location"), f.base)
	}
	answer := begin()
	if !strings.HasPrefix(answer, store.OIDCCallback+"?") {
		t.Fatalf("the provider sends to %s", answer)
	}
	jar, err := cookiejar.New(nil)
	must(t, err)
	victim := &federated{base: f.base, client: &http.Client{Jar: jar}}
	if code, at, body := victim.follow(t, answer); code != http.StatusForbidden || at.Path == "/machines" || !strings.Contains(body, "this browser has under way") {
		t.Errorf("another browser gets %d at %s", code, at)
	}
	if code, at, _ := f.follow(t, answer); code != http.StatusOK || at.Path != "/machines" {
		t.Errorf("its own gets %d at %s, after another tried", code, at)
	}
	if code, _, _ := f.follow(t, answer); code != http.StatusForbidden {
		t.Errorf("a second time it gets %d", code)
	}
	if code, _, _ := f.follow(t, store.OIDCCallback); code != http.StatusForbidden {
		t.Errorf("without anything it gets %d", code)
	}
}

func TestTheTicketGoesToNobodyElse(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	look := func() (c *http.Cookie, to *url.URL) {
		resp, err := f.client.Get(f.base + "/login/oidc")
		must(t, err)
		resp.Body.Close()
		to, err = url.Parse(resp.Header.Get("Location"))
		must(t, err)
		if len(resp.Cookies()) > 0 {
			c = resp.Cookies()[0]
		}
		return c, to
	}
	c, to := look()
	if c == nil || c.Path != "/login/oidc" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.MaxAge != 600 || c.Domain != "" {
		t.Errorf("the cookie is %+v", c)
	}
	q := to.Query()
	if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("nonce") == "" || len(q.Get("state")) < 20 || q.Get("scope") != "openid profile email" || q.Get("redirect_uri") != f.base+store.OIDCCallback {
		t.Errorf("the provider is asked %v", q)
	}
	if strings.Contains(to.String(), c.Value) || strings.Contains(to.String(), url.QueryEscape(p.Secret)) {
		t.Error("the ticket or the secret goes to the provider")
	}
	// People who open the appliance by another name go to the one that the provider
	// knows, once.
	f.provider.URL = "https://lunboot.example.org"
	if c, to := look(); c != nil || to.String() != "https://lunboot.example.org/login/oidc?here=1&next=" {
		t.Errorf("by another name they go to %s with %v", to, c)
	}
	resp, err := f.client.Get(f.base + "/login/oidc?here=1&next=")
	must(t, err)
	resp.Body.Close()
	if c := resp.Cookies(); !strings.HasPrefix(resp.Header.Get("Location"), p.URL+"/authorize?") || len(c) != 1 || !c[0].Secure {
		t.Errorf("there they go to %s with %v", resp.Header.Get("Location"), c)
	}
}

func TestALoginLeadsNowhereElse(t *testing.T) {
	for next, want := range map[string]string{
		"/machines/2": "/machines/2", "/audit?who=admin&from=50": "/audit?who=admin&from=50", "/": "/", "/help#flags": "/help#flags",
		"": "", "https://evil.example/": "", "//evil.example/": "", "///evil.example": "", `/\evil.example`: "", `\\evil.example`: "", "javascript:alert(1)": "", "machines": "",
		"/\tevil": "", "/%0d%0aSet-Cookie:x": "/%0d%0aSet-Cookie:x", "/login": "", "/login/oidc": "", "/logout": "", "/setup?code=x": "", "/live": "", "http:/machines": "", "/" + strings.Repeat("x", 600): "",
	} {
		if got := wanted(next); got != want {
			t.Errorf("%q leads to %q, want %q", next, got, want)
		}
	}
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	for _, next := range []string{"https://evil.example/", "//evil.example/", `/\evil.example`, "/%2f%2fevil.example"} {
		for _, path := range []string{"/login?next=", "/login/oidc?next="} {
			_, at, body := f.follow(t, path+url.QueryEscape(next))
			if at.Host != strings.TrimPrefix(f.base, "http://") || strings.Contains(body, `next=https`) {
				t.Errorf("%s%s leads to %s", path, next, at)
			}
		}
		resp, err := f.client.PostForm(f.base+"/login", url.Values{"user": {"admin"}, "password": {labPassword}, "next": {next}})
		must(t, err)
		resp.Body.Close()
		if resp.Request.URL.Host != strings.TrimPrefix(f.base, "http://") {
			t.Errorf("a password leads to %s", resp.Request.URL)
		}
	}
}

func TestSignInsFromOneAddressAreBounded(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	for i := range 31 {
		resp, err := f.client.Get(f.base + store.OIDCCallback + "?state=x")
		must(t, err)
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		want := http.StatusForbidden
		if i == 30 {
			want = http.StatusTooManyRequests
		}
		if resp.StatusCode != want || want == http.StatusTooManyRequests && !strings.Contains(string(b), "Too many tries") {
			t.Fatalf("try %d answers %d", i, resp.StatusCode)
		}
	}
}

func TestAnAdminSetsTheProvider(t *testing.T) {
	p, err := oidctest.New()
	must(t, err)
	t.Cleanup(p.Close)
	l := full()
	l.now = time.Now
	get, post := l.enter(t)
	_, body := get("/settings/oidc")
	has(t, body, `name="url" value="http://127.0.0.1:`, `/login/oidc/callback</p>`, "empty for a public client", `name="scopes" value="openid profile email"`)
	if strings.Contains(body, "Remove the provider") {
		t.Error("a provider can be removed before there is one")
	}
	form := []string{"issuer", p.URL, "name", "Lab SSO", "client_id", "lunboot", "secret", p.Secret, "url", "https://lunboot.example.org", "claim", "groups", "roles", "lab-admins = admin\n\ncn=staff,ou=x = operator", "ca", p.CA(), "default_role", ""}
	with := func(more ...string) []string { return append(slices.Clone(form), more...) } // the last of a name counts
	for field, wrong := range map[string][2]string{
		"issuer": {"nonsense", "no URL of a provider"}, "client_id": {"", "client ID is missing"}, "roles": {"lab-admins", "is not a value and its role"}, "url": {"nonsense", "is not where people open"}, "revision": {"x", "is not a revision"},
	} {
		code, body := post("/settings/oidc", with(field, wrong[0])...)
		if code != http.StatusUnprocessableEntity {
			t.Errorf("a wrong %s answers %d", field, code)
		}
		has(t, body, wrong[1], `value="Lab SSO"`)
		if strings.Contains(body, "the client&#39;s secret") || !l.provider.IsZero() {
			t.Errorf("a wrong %s is kept, or the secret shown", field)
		}
	}
	code, body := post("/settings/oidc/try", form...)
	if code != http.StatusOK || !l.provider.IsZero() {
		t.Fatalf("a try answers %d, and keeps %v", code, l.provider)
	}
	has(t, body, "What a look at the provider found", "and calls itself so", "It knows the client lunboot by its secret", "https://lunboot.example.org/login/oidc/callback")
	if strings.Contains(body, "logged-out") {
		t.Error("a URI is to be registered that nobody comes back to")
	}
	_, body = post("/settings/oidc/try", with("logout", "yes", "secret", "another")...)
	has(t, body, "https://lunboot.example.org/login/oidc/logged-out", `name="logout" value="yes" checked`, "People log out there at "+p.URL, "lunboot oidc set --client-id ID --secret -")
	if code, _ := post("/settings/oidc", with("logout", "yes")...); code != http.StatusOK || !l.provider.Logout {
		t.Errorf("logging out there: %d, %+v", code, l.provider)
	}
	if code, body = post("/settings/oidc", with("revision", "1")...); code != http.StatusOK || l.provider.Secret != p.Secret || len(l.provider.Roles) != 2 || l.provider.Logout {
		t.Fatalf("saving answers %d, kept is %+v", code, l.provider)
	}
	has(t, body, "It is kept", "empty to keep the present one", "Remove the provider")
	if strings.Contains(body, "the client&#39;s secret") {
		t.Error("the secret is shown")
	}
	if code, body := post("/settings/oidc", with("revision", "7")...); code != http.StatusConflict || !strings.Contains(body, "was changed by somebody else") || !strings.Contains(body, `name="revision" value="2"`) {
		t.Errorf("on sight of another state it answers %d", code)
	}
	if code, body := post("/settings/oidc", "issuer", "https://another.example", "client_id", "lunboot", "url", "https://x.example", "default_role", "viewer"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "The secret that is kept is for the client lunboot") {
		t.Errorf("another issuer without a secret answers %d", code)
	}
	_, body = get("/login")
	has(t, body, "Sign in with Lab SSO")
	if code, _ := post("/settings/oidc/remove"); code != http.StatusUnprocessableEntity || l.provider.IsZero() {
		t.Errorf("removed with %d, unasked", code)
	}
	if code, to := post("/settings/oidc/remove", "sure", "yes"); code != http.StatusSeeOther || to != "/settings/oidc" || !l.provider.IsZero() || l.provider.Secret != "" {
		t.Errorf("removing answers %d %s", code, to)
	}
	if _, body = get("/login"); strings.Contains(body, "Sign in with") {
		t.Error("the button is still there")
	}
}

func TestAnAdminShutsSomebodyOut(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	if code, at, _ := f.follow(t, "/login/oidc"); code != http.StatusOK || at.Path != "/machines" {
		t.Fatalf("%d at %s", code, at)
	}
	get, post := f.enter(t)
	_, body := get("/people")
	has(t, body, "anna at "+p.URL, "by the provider’s word", "Shut out anna")
	if strings.Contains(body, `action="/people/anna/password"`) || strings.Contains(body, `action="/people/anna/role"`) {
		t.Error("a password or a role is offered for somebody who has the provider's")
	}
	if code, body := post("/people/anna/role", "role", "admin"); code != http.StatusConflict || !strings.Contains(body, "anew at each sign-in") {
		t.Errorf("a role answers %d", code)
	}
	if code, body := post("/people/anna/password", "password", "a long password"); code != http.StatusConflict || !strings.Contains(body, "has no password here") {
		t.Errorf("a password answers %d", code)
	}
	if code, _ := post("/people/anna/disabled", "disabled", "yes"); code != http.StatusSeeOther || !f.people["anna"].Disabled {
		t.Fatalf("shutting her out answers %d", code)
	}
	if _, at, _ := f.follow(t, "/machines"); at.Path != "/login" {
		t.Errorf("she is still in, at %s", at)
	}
	if code, _, body := f.follow(t, "/login/oidc"); code != http.StatusForbidden || !strings.Contains(body, "Anna is shut out: an admin did that") {
		t.Errorf("she comes again with %d", code)
	}
	post("/people/anna/disabled", "disabled", "no")
	if code, at, _ := f.follow(t, "/login/oidc"); code != http.StatusOK || at.Path != "/machines" {
		t.Errorf("let in again she gets %d at %s", code, at)
	}
}

// Who leaves the group is out at the next sign-in, in every browser.
func TestARoleThatTheProviderTakesAwayIsGone(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	if code, at, _ := f.follow(t, "/login/oidc"); code != http.StatusOK || at.Path != "/machines" {
		t.Fatalf("%d at %s", code, at)
	}
	other := *f
	jar, err := cookiejar.New(nil)
	must(t, err)
	other.client = &http.Client{Jar: jar, Transport: f.client.Transport}
	p.Set(func(p *oidctest.Provider) { p.Person["groups"] = []string{"lab-admins"} })
	if _, _, body := other.follow(t, "/login/oidc"); !strings.Contains(body, `class="app admin"`) {
		t.Error("a greater role is not there at the next sign-in")
	}
	p.Set(func(p *oidctest.Provider) { p.Person["groups"] = []string{"former-staff"} })
	if code, _, body := other.follow(t, "/login/oidc"); code != http.StatusForbidden || !strings.Contains(body, "your groups there: former-staff") {
		t.Errorf("without a role it is %d", code)
	}
	for name, b := range map[string]*federated{"the one": f, "the other": &other} {
		if _, at, _ := b.follow(t, "/volumes"); at.Path != "/login" {
			t.Errorf("%s browser is still in, at %s", name, at)
		}
	}
}

func TestABrowserSignsInThroughTheProvider(t *testing.T) {
	ctx := browser(t)
	p, err := oidctest.NewPlain() // a browser trusts no certificate of a test
	f := withProvider(t, p, err)
	must(t, chromedp.Do(ctx, chromedp.Navigate(f.base+"/volumes"), chromedp.WaitVisible(chromedp.CSS(".other-way a")), chromedp.Click(chromedp.CSS(".other-way a")), chromedp.WaitVisible(chromedp.CSS(".rail"))))
	at, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.pathname+" "+document.querySelector(".rail .foot").innerText`))
	must(t, err)
	if !strings.HasPrefix(at, "/volumes ") || !strings.Contains(at, "anna, operator") {
		t.Errorf("the browser is at %s", at)
	}
	must(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`form[action="/logout"] button`)), chromedp.WaitVisible(chromedp.CSS(".other-way a"))))
	p.Set(func(p *oidctest.Provider) { p.Deny = "access_denied" })
	must(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(".other-way a")), chromedp.WaitVisible(chromedp.CSS(".problem"))))
	said, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector(".problem").innerText`))
	must(t, err)
	if !strings.Contains(said, "refused the sign-in") {
		t.Errorf("the login says %q", said)
	}
}

// logOut presses the button, and returns the page that is there then.
func (f *federated) logOut(t *testing.T) (code int, at *url.URL, body string) {
	t.Helper()
	resp, err := f.client.PostForm(f.base+"/logout", nil)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, resp.Request.URL, string(b)
}

// onward is where a page sends the browser on to.
func onward(body string) string {
	m := regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]*)">`).FindStringSubmatch(body)
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

func TestWhoLogsOutIsOutHereFirstAndThenAtTheProvider(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	in := func() {
		t.Helper()
		if code, at, body := f.follow(t, "/login/oidc"); code != http.StatusOK || at.Path != "/machines" {
			t.Fatalf("%d at %s:\n%s", code, at, body)
		}
	}
	isOut := func(what string) {
		t.Helper()
		if _, at, _ := f.follow(t, "/machines"); at.Path != "/login" {
			t.Errorf("%s she is still in, at %s", what, at)
		}
	}
	left := func() (all []string) {
		p.Set(func(p *oidctest.Provider) { all = slices.Clone(p.Left) })
		return all
	}
	// Unless an admin wants it, logging out is of here alone.
	in()
	if _, at, body := f.logOut(t); at.Path != "/login" || onward(body) != "" {
		t.Errorf("where it is off she is at %s, sent to %q", at, onward(body))
	}
	isOut("where it is off")

	f.lab.provider.Logout = true
	p.Set(func(p *oidctest.Provider) { p.Leave = f.lab.provider.LogoutRedirect() })
	in()
	code, at, body := f.logOut(t)
	to := onward(body)
	if code != http.StatusOK || at.Path != "/logout" || !strings.HasPrefix(to, p.URL+"/logout?") || strings.Contains(body, `class="rail"`) {
		t.Fatalf("%d at %s, sent to %q:\n%s", code, at, to, body)
	}
	has(t, body, "You are logged out here", "Log out of Lab SSO", "Stay logged in there")
	isOut("on the way to the provider")
	resp, err := f.client.Get(to)
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	if resp.Request.URL.Path != store.OIDCLoggedOut || !slices.Equal(left(), []string{"248289761001"}) {
		t.Errorf("she ends at %s, out are %v", resp.Request.URL, left())
	}
	has(t, string(b), "You are logged out here and at Lab SSO.", "Sign in with Lab SSO")
	// The same answer says nothing to whoever comes with it again.
	if _, at, body := f.follow(t, resp.Request.URL.RequestURI()); at.Path != "/login" || strings.Contains(body, "You are logged out") {
		t.Errorf("again she is at %s", at)
	}

	// Whatever the provider does, she is out here.
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		says string
	}{
		"without a place for it": {func(p *oidctest.Provider) { p.Bend = func(m map[string]any) { delete(m, "end_session_endpoint") } }, "Lab SSO does not say where people log out there"},
		"under another name":     {func(p *oidctest.Provider) { p.Bend = func(m map[string]any) { m["issuer"] = "https://x.example" } }, "calls itself"},
		"with a script": {func(p *oidctest.Provider) {
			p.Bend = func(m map[string]any) { m["end_session_endpoint"] = "javascript:alert(1)" }
		}, "not behind https://"},
	} {
		p.Set(func(p *oidctest.Provider) { p.Bend = nil })
		in()
		p.Set(c.bend)
		code, _, body := f.logOut(t)
		if code != http.StatusOK || onward(body) != "" || strings.Contains(body, `class="rail"`) {
			t.Errorf("%s: %d, sent to %q", what, code, onward(body))
		}
		has(t, body, "You are logged out here, and may still be logged in where you came from.", c.says)
		isOut(what)
	}
	p.Set(func(p *oidctest.Provider) { p.Bend = nil })
	in()
	p.Close()
	began := time.Now()
	if _, _, body := f.logOut(t); !strings.Contains(body, "You are logged out here, and may still be logged in") || time.Since(began) > 10*time.Second {
		t.Errorf("while it is away:\n%s", body)
	}
	isOut("while it is away")

	// Who has a password is not sent anywhere, nor is the provider asked.
	asked := len(p.Seen())
	resp, err = f.client.PostForm(f.base+"/login", url.Values{"user": {"admin"}, "password": {labPassword}})
	must(t, err)
	resp.Body.Close()
	if _, at, _ := f.logOut(t); at.Path != "/login" || len(p.Seen()) != asked {
		t.Errorf("who has a password is at %s", at)
	}
	isOut("by a password")
}

func TestTheApplianceKnowsItself(t *testing.T) {
	p, err := oidctest.New()
	f := withProvider(t, p, err)
	_, _, first := f.follow(t, store.OIDCHere)
	_, _, second := f.follow(t, store.OIDCHere)
	if len(first) < 20 || first != second || strings.Contains(first, "<") {
		t.Errorf("it answers %q, then %q", first, second)
	}
}

func TestABrowserLogsOutAtTheProviderToo(t *testing.T) {
	ctx := browser(t)
	p, err := oidctest.NewPlain() // a browser trusts no certificate of a test
	f := withProvider(t, p, err)
	f.lab.provider.Logout = true
	must(t, chromedp.Do(ctx, chromedp.Navigate(f.base+"/login/oidc"), chromedp.WaitVisible(chromedp.CSS(".rail")),
		chromedp.Click(chromedp.CSS(`form[action="/logout"] button`)), chromedp.WaitVisible(chromedp.CSS(".banner.said"))))
	said, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.pathname+" "+document.querySelector(".banner.said").innerText`))
	must(t, err)
	if !strings.HasPrefix(said, store.OIDCLoggedOut+" ") || !strings.Contains(said, "You are logged out here and at Lab SSO.") {
		t.Errorf("the browser is at %s", said)
	}
	p.Set(func(p *oidctest.Provider) {
		if !slices.Equal(p.Left, []string{"248289761001"}) {
			t.Errorf("out at the provider are %v", p.Left)
		}
	})
}
