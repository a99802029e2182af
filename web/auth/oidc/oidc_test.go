package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"lunboot/store"
	"lunboot/web/auth/oidc/oidctest"
)

// rows keep the provider in memory, as store/sqlite does on disk.
type rows struct {
	mu   sync.Mutex
	o    store.OIDC
	told map[string]time.Time
	full error // of KeepLogout
}

func (r *rows) LogoutTold(_ context.Context, issuer, jti string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, told := r.told[issuer+" "+jti]
	return told, nil
}

func (r *rows) KeepLogout(_ context.Context, issuer, jti string, until time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full == nil {
		r.told[issuer+" "+jti] = until
	}
	return r.full
}

func (r *rows) OIDC(context.Context) (store.OIDC, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.o, nil
}

func (r *rows) PutOIDC(_ context.Context, _ store.Actor, o store.OIDC) (store.OIDC, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.Revision = r.o.Revision + 1
	r.o = o
	return o, nil
}

const appliance = "https://lunboot.example.org"

// house is a client and the provider that it is set to.
type house struct {
	*Client
	t     *testing.T
	p     *oidctest.Provider
	rows  *rows
	now   func() time.Time
	ended []string
	said  strings.Builder // the log
	mu    sync.Mutex
}

func open(t *testing.T) *house {
	t.Helper()
	p, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	h := &house{t: t, p: p, now: time.Now, rows: &rows{told: map[string]time.Time{}}}
	h.rows.o, err = store.OIDC{
		Revision: 1, Issuer: p.URL, Name: "Lab SSO", ClientID: p.ClientID, Secret: p.Secret, URL: appliance, CA: p.CA(), Claim: "groups",
		Roles: []store.ClaimRole{{Value: "lab-operators", Role: store.RoleOperator}, {Value: "lab-admins", Role: store.RoleAdmin}},
	}.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	p.Redirect = appliance + store.OIDCCallback
	h.Client = New(Config{
		Rows: h.rows, URL: func() string { return "http://10.77.0.1:8080" }, Version: "test", Log: slog.New(slog.NewTextHandler(h, nil)), Now: func() time.Time { return h.now() },
		EndFederated: func(_ context.Context, but string) error { h.ended = append(h.ended, but); return nil },
	})
	return h
}

func (h *house) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.Write(b)
}

// send goes where the client sends a browser, and returns what the provider sends
// back with it.
func (h *house) send(to string) url.Values {
	h.t.Helper()
	c := *h.p.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Get(to)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		b, _ := io.ReadAll(resp.Body)
		h.t.Fatalf("the provider answers %s: %s", resp.Status, b)
	}
	if at := back.Scheme + "://" + back.Host + back.Path; at != appliance+store.OIDCCallback {
		h.t.Fatalf("the provider sends people back to %s", at)
	}
	return back.Query()
}

// signIn is the whole of it.
func (h *house) signIn() (store.OIDCPerson, error) {
	h.t.Helper()
	to, ticket, err := h.Begin(h.t.Context(), "/volumes")
	if err != nil {
		return store.OIDCPerson{}, err
	}
	who, next, err := h.Finish(h.t.Context(), ticket, h.send(to))
	if next != "/volumes" {
		h.t.Errorf("the page that was wanted is %q", next)
	}
	return who, err
}

func (h *house) refused(what string, err error, kind store.Kind, says string) {
	h.t.Helper()
	if store.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		h.t.Errorf("%s: %v (%v); %v and %q are wanted", what, err, store.KindOf(err), kind, says)
	}
}

func TestSomebodyIsWhomTheProviderVouchesFor(t *testing.T) {
	h := open(t)
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
		h.p.Set(func(p *oidctest.Provider) { p.Algorithm = alg })
		who, err := h.signIn()
		if want := (store.OIDCPerson{Issuer: h.p.URL, Subject: "248289761001", KnownAs: "anna", Role: store.RoleOperator, Began: who.Began}); err != nil || who != want || who.Began.IsZero() {
			t.Errorf("%s: %+v, %v", alg, who, err)
		}
	}
	if len(h.pending) != 0 {
		t.Errorf("%d sign-ins are still under way", len(h.pending))
	}
}

// The attacks, each against a provider or a browser that is bent for it.
func TestNobodyIsSomebodyElse(t *testing.T) {
	claims := func(fn func(map[string]any)) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) { p.Claims = fn }
	}
	set := func(name string, v any) func(*oidctest.Provider) {
		return claims(func(c map[string]any) { c[name] = v })
	}
	without := func(name string) func(*oidctest.Provider) {
		return claims(func(c map[string]any) { delete(c, name) })
	}
	forged := func(header string, sign func(signed string) string) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) {
			p.Sign = func(claims []byte) string {
				signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(claims)
				return signed + "." + sign(signed)
			}
		}
	}
	stranger, err := oidctest.New() // another provider, with keys of its own
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		says string
	}{
		"another nonce":             {set("nonce", "another"), "belongs to another sign-in"},
		"no nonce":                  {without("nonce"), "belongs to another sign-in"},
		"for another client":        {set("aud", "another"), "expected audience"},
		"for nobody":                {without("aud"), "expected audience"},
		"for two, and meant for us": {set("aud", []string{"another", "lunboot"}), "was given to somebody else"},
		"given to another": {claims(func(c map[string]any) {
			c["aud"], c["azp"] = []string{"another", "lunboot"}, "another"
		}), "was given to somebody else"},
		"by another issuer":    {set("iss", "https://evil.example"), "a different provider"},
		"by no issuer":         {without("iss"), "a different provider"},
		"run out":              {set("exp", time.Now().Add(-5*time.Minute).Unix()), "ran out at"},
		"without an end":       {without("exp"), "ran out at"},
		"from the future":      {set("iat", time.Now().Add(time.Hour).Unix()), "is good from"},
		"not good yet":         {set("nbf", time.Now().Add(time.Hour).Unix()), "is good from"},
		"of nobody":            {set("sub", ""), "does not say who you are"},
		"of somebody too long": {set("sub", strings.Repeat("x", 256)), "does not say who you are"},
		"with another's token": {set("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), "do not belong together"},
		"alg none":             {forged(`{"alg":"none"}`, func(string) string { return "" }), "is not good"},
		"alg None":             {forged(`{"alg":"None","typ":"JWT"}`, func(string) string { return "AA" }), "is not good"},
		"signed by the secret": {forged(`{"alg":"HS256"}`, hs256("the client's secret")), "is not good"},
		"signed by the public": {forged(`{"alg":"HS256"}`, hs256("x")), "is not good"},
		"signed by nobody":     {forged(`{"alg":"RS256","kid":"1"}`, func(string) string { return strings.Repeat("A", 342) }), "is not good"},
		"no word at all":       {func(p *oidctest.Provider) { p.Sign = func([]byte) string { return "x" } }, "is not good"},
		"signed as was not said": {func(p *oidctest.Provider) {
			p.Bend, p.Algorithm = says("id_token_signing_alg_values_supported", []string{"RS256"}), jose.ES256
		}, "is not good"},
		"signed by another's key": {func(p *oidctest.Provider) { p.Bend = says("jwks_uri", stranger.URL+"/keys") }, ""},
	} {
		h := open(t)
		h.p.Set(c.bend)
		who, err := h.signIn()
		if err == nil || who != (store.OIDCPerson{}) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v", what, who, err)
		}
		if store.KindOf(err) == store.KindInternal {
			t.Errorf("%s: %v is a fault of ours", what, err)
		}
	}
}

func says(name string, v any) func(map[string]any) {
	return func(m map[string]any) { m[name] = v }
}

func hs256(secret string) func(string) string {
	return func(signed string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(signed))
		return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
}

func TestAnAnswerBelongsToTheBrowserThatAskedAndToOneSignIn(t *testing.T) {
	h := open(t)
	ctx := t.Context()
	to, ticket, err := h.Begin(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	answer := h.send(to)
	for what, bad := range map[string]url.Values{"no state": {"code": answer["code"]}, "another state": {"code": answer["code"], "state": {"another"}}} {
		_, _, err := h.Finish(ctx, ticket, bad)
		h.refused(what, err, store.KindDenied, "Start the sign-in again")
	}
	for _, bad := range []string{"", "another", ticket + "x"} {
		_, _, err := h.Finish(ctx, bad, answer)
		h.refused("ticket "+bad, err, store.KindDenied, "this browser has under way")
	}
	if _, _, err := h.Finish(ctx, ticket, answer); err != nil {
		t.Fatalf("the right one, after others tried: %v", err)
	}
	// Also with a provider that takes a code twice.
	h.p.Set(func(p *oidctest.Provider) { p.Twice = true })
	_, _, err = h.Finish(ctx, ticket, answer)
	h.refused("again", err, store.KindDenied, "is over already")

	// A code that was used elsewhere: the provider knows.
	h.p.Set(func(p *oidctest.Provider) { p.Twice = false })
	used := answer.Get("code")
	to, ticket, err = h.Begin(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	answer = h.send(to)
	answer.Set("code", used)
	_, _, err = h.Finish(ctx, ticket, answer)
	h.refused("a used code", err, store.KindDenied, "does not take the code")

	// A code of another sign-in, slipped into this one, is of no use: its verifier is
	// another (RFC 7636 §1).
	toA, ticketA, err := h.Begin(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	toB, _, err := h.Begin(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	a, b := h.send(toA), h.send(toB)
	a.Set("code", b.Get("code"))
	_, _, err = h.Finish(ctx, ticketA, a)
	h.refused("a slipped code", err, store.KindDenied, "does not take the code")
}

func TestASignInThatTookTooLongIsOver(t *testing.T) {
	h := open(t)
	to, ticket, err := h.Begin(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	answer := h.send(to)
	began := time.Now()
	h.now = func() time.Time { return began.Add(flowTime + time.Second) }
	_, _, err = h.Finish(t.Context(), ticket, answer)
	h.refused("late", err, store.KindDenied, "took longer than 10 minutes")
	// What nobody finished is forgotten, also when many begin at once.
	for i := range maxPending + 10 {
		h.keep(strings.Repeat("x", i+1), flow{began: began.Add(time.Duration(i) * time.Millisecond)})
	}
	if n := len(h.pending); n != maxPending {
		t.Errorf("%d are under way", n)
	}
	if _, there := h.pending["x"]; there {
		t.Error("the oldest was kept")
	}
	h.keep("last", flow{began: began.Add(2 * flowTime)})
	if n := len(h.pending); n != 1 {
		t.Errorf("%d are left when all took too long", n)
	}
}

// RFC 9207: an answer of one provider must not be taken for another's.
func TestTwoProvidersAreNotMixedUp(t *testing.T) {
	h := open(t)
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		good bool
	}{
		"another's":                  {func(p *oidctest.Provider) { p.Answer = func(v url.Values) { v.Set("iss", "https://evil.example") } }, false},
		"nobody's, of one that says": {func(p *oidctest.Provider) { p.Answer = func(v url.Values) { v.Del("iss") } }, false},
		"an error of another's": {func(p *oidctest.Provider) {
			p.Deny, p.Answer = "access_denied", func(v url.Values) { v.Set("iss", "https://evil.example") }
		}, false},
		"nobody's, of one that never says": {func(p *oidctest.Provider) {
			p.Answer = func(v url.Values) { v.Del("iss") }
			p.Bend = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
		}, true},
	} {
		h.p.Set(func(p *oidctest.Provider) { p.Answer, p.Bend, p.Deny = nil, nil, ""; c.bend(p) })
		before := len(h.p.Seen())
		_, err := h.signIn()
		if c.good != (err == nil) || !c.good && !strings.Contains(err.Error(), "mix two providers up") {
			t.Errorf("%s: %v", what, err)
		}
		if !c.good && slices.Contains(h.p.Seen()[before:], "/token") {
			t.Errorf("%s: the code was sent on", what)
		}
	}
}

func TestTheRoleIsWhatTheProviderSaysNow(t *testing.T) {
	h := open(t)
	person := func(groups any) func(*oidctest.Provider) {
		return func(p *oidctest.Provider) {
			p.Person = map[string]any{"sub": "1", "email": "anna@example.org"}
			if groups != nil {
				p.Person["groups"] = groups
			}
		}
	}
	for _, c := range []struct {
		groups any
		role   store.Role
		says   string
	}{
		{[]string{"lab-admins", "x"}, store.RoleAdmin, ""},
		{[]string{"lab-operators"}, store.RoleOperator, ""},
		{[]string{"x", "y"}, "", "your groups there: x, y."},
		{[]string{}, "", "your groups there are none"},
		{nil, "", `it says nothing of "groups"`},
		{strings.Split(strings.Repeat("g,", 500), ","), "", "your groups there: g, g"},
	} {
		h.p.Set(person(c.groups))
		who, err := h.signIn()
		if err != nil || who.Role != c.role || !strings.Contains(who.Refusal, c.says) || (who.Refusal == "") != (c.role != "") || who.KnownAs != "anna@example.org" {
			t.Errorf("%v: %+v, %v", c.groups, who, err)
		}
		if len(who.Refusal) > 600 {
			t.Errorf("a refusal of %d bytes", len(who.Refusal))
		}
	}
	h.p.Set(func(p *oidctest.Provider) {
		p.Person = map[string]any{"sub": "1", "_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example"}}}
	})
	if who, err := h.signIn(); err != nil || who.Role != "" || !strings.Contains(who.Refusal, "too many") {
		t.Errorf("groups elsewhere: %+v, %v", who, err)
	}
	h.rows.o.Default = store.RoleViewer
	if who, err := h.signIn(); err != nil || who.Role != store.RoleViewer {
		t.Errorf("by default: %+v, %v", who, err)
	}
}

// Many providers say more only when they are asked with the access token.
func TestClaimsThatAreMissingAreAskedFor(t *testing.T) {
	h := open(t)
	h.p.Set(func(p *oidctest.Provider) {
		p.Person, p.UserInfo = map[string]any{"sub": "1"}, map[string]any{"groups": []string{"lab-admins"}, "name": "Anna  \x1b[31m\nSmith", "sub2": "x"}
	})
	if who, err := h.signIn(); err != nil || who.Role != store.RoleAdmin || who.KnownAs != "Anna [31m Smith" {
		t.Errorf("%+v, %v", who, err)
	}
	// What was signed counts.
	h.p.Set(func(p *oidctest.Provider) { p.Person["groups"] = []string{"lab-operators"} })
	if who, err := h.signIn(); err != nil || who.Role != store.RoleOperator {
		t.Errorf("%+v, %v", who, err)
	}
	h.p.Set(func(p *oidctest.Provider) { p.UserInfo["sub"] = "2" })
	_, err := h.signIn()
	h.refused("of somebody else", err, store.KindDenied, "two people in one sign-in")
	h.p.Set(func(p *oidctest.Provider) { p.Bend = says("userinfo_endpoint", p.URL+"/none") })
	if who, err := h.signIn(); err != nil || who.KnownAs != "1" {
		t.Errorf("without a name: %+v, %v", who, err)
	}
	h.p.Set(func(p *oidctest.Provider) { delete(p.Person, "groups") })
	_, err = h.signIn()
	h.refused("without groups", err, store.KindUnavailable, "404")
	h.p.Set(func(p *oidctest.Provider) { p.Bend = says("userinfo_endpoint", "http://sso.example.org/userinfo") })
	_, err = h.signIn()
	h.refused("in the clear", err, store.KindDenied, "not behind https://")
	before := len(h.p.Seen())
	h.p.Set(func(p *oidctest.Provider) {
		p.Bend, p.Person = nil, map[string]any{"sub": "1", "preferred_username": "a", "groups": "lab-admins"}
	})
	if _, err := h.signIn(); err != nil || slices.Contains(h.p.Seen()[before:], "/userinfo") {
		t.Errorf("what is known is asked for: %v, %v", h.p.Seen()[before:], err)
	}
}

func TestWhatIsWrongWithAProviderIsSaidInWords(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler("https://evil.example/", http.StatusFound))
	defer elsewhere.Close()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	defer page.Close()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for what, c := range map[string]struct {
		set  func(*house)
		says string
	}{
		"no name":         {func(h *house) { h.rows.o.Issuer = "https://sso..invalid" }, "sso..invalid, is unknown to this appliance's host"},
		"stopped":         {func(h *house) { h.rows.o.Issuer = gone.URL }, "nothing listens at"},
		"no TLS":          {func(h *house) { h.rows.o.Issuer = strings.Replace(plain.URL, "http:", "https:", 1) }, "speaks no TLS"},
		"not there":       {func(h *house) { h.rows.o.Issuer = plain.URL }, `answers "404 Not Found" when it is asked for its settings`},
		"elsewhere":       {func(h *house) { h.rows.o.Issuer = elsewhere.URL }, "to https://evil.example/, and was not followed"},
		"a page":          {func(h *house) { h.rows.o.Issuer = page.URL }, "is no JSON"},
		"endless":         {func(h *house) { h.rows.o.Issuer = endless.URL }, "says more than the 512 KiB"},
		"unknown to us":   {func(h *house) { h.rows.o.CA = "" }, "vouches for the provider"},
		"another name":    {func(h *house) { h.rows.o.Issuer = strings.Replace(h.p.URL, "127.0.0.1", "localhost", 1) }, "is for another name"},
		"another issuer":  {func(h *house) { h.rows.o.Issuer += "/" }, "have to be the same, to the letter"},
		"in the clear":    {func(h *house) { h.p.Bend = says("token_endpoint", "http://sso.example.org/token") }, "not behind https://"},
		"on this host":    {func(h *house) { h.p.Bend = says("jwks_uri", "http://127.0.0.1:8080/keys") }, "not behind https://"},
		"nowhere":         {func(h *house) { h.p.Bend = says("jwks_uri", "") }, "does not say where its jwks_uri is"},
		"no provider set": {func(h *house) { h.rows.o = store.OIDC{} }, "is not set up here"},
	} {
		h := open(t)
		c.set(h)
		_, _, err := h.Begin(t.Context(), "")
		if err == nil || !strings.Contains(err.Error(), c.says) || store.KindOf(err) == store.KindInternal {
			t.Errorf("%s: %v", what, err)
		}
		if what == "no provider set" {
			continue
		}
		found, err := h.TryOIDC(t.Context(), store.OIDCSpec{OIDC: h.rows.o, Secret: new("x")})
		if err != nil || len(found) != 1 || found[0].State != "fault" || !strings.Contains(found[0].Says, c.says) {
			t.Errorf("%s, tried: %+v, %v", what, found, err)
		}
	}
	// Who is silent is not waited for.
	h := open(t)
	h.rows.o.Issuer = "http://" + silent.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, _, err = h.Begin(ctx, "")
	h.refused("silent", err, store.KindUnavailable, "did not answer in time")
}

func TestALookAtTheProviderFindsWhatIsWrong(t *testing.T) {
	h := open(t)
	spec := func() store.OIDCSpec { return store.OIDCSpec{OIDC: h.rows.o} }
	look := func(s store.OIDCSpec) (states, text string) {
		t.Helper()
		found, err := h.TryOIDC(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			states += f.State + " "
			text += f.Says + "\n"
		}
		return states, text
	}
	kept := h.rows.o
	if states, text := look(spec()); states != "ok ok ok ok ok " || !strings.Contains(text, "signs (2)") || !strings.Contains(text, "it knows the client lunboot by its secret") {
		t.Errorf("all well: %s\n%s", states, text)
	}
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		says string
	}{
		"fault: its clock":   {func(p *oidctest.Provider) { p.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) } }, "are 2h0m"},
		"fault: no code":     {func(p *oidctest.Provider) { p.Bend = says("response_types_supported", []string{"id_token"}) }, "does not offer the authorization code flow"},
		"advice: no PKCE":    {func(p *oidctest.Provider) { p.Bend = says("code_challenge_methods_supported", []string{"plain"}) }, "does not say that it checks PKCE"},
		"advice: no scope":   {func(p *oidctest.Provider) { p.Bend = says("scopes_supported", []string{"openid", "email"}) }, "does not list the scope profile"},
		"advice: no claim":   {func(p *oidctest.Provider) { p.Bend = says("claims_supported", []string{"sub"}) }, "does not list the claim groups"},
		"fault: no keys":     {func(p *oidctest.Provider) { p.Bend = says("jwks_uri", p.URL+"/userinfo") }, "when it is asked for its keys"},
		"fault: the secret":  {func(p *oidctest.Provider) { p.Secret = "another" }, "not by the secret that is set here"},
		"fault: the client":  {func(p *oidctest.Provider) { p.ClientID = "another" }, "does not know this appliance as lunboot"},
		"advice: no answer":  {func(p *oidctest.Provider) { p.Bend = says("token_endpoint", p.URL+"/none") }, "does not say whether it knows the client"},
		"fault: no provider": {func(p *oidctest.Provider) { p.Bend = says("token_endpoint", "https://127.0.0.1:1/") }, "nothing listens at 127.0.0.1:1"},
	} {
		h := open(t)
		h.p.Set(c.bend)
		found, err := h.TryOIDC(t.Context(), store.OIDCSpec{OIDC: h.rows.o})
		state, _, _ := strings.Cut(what, ":")
		if err != nil || !slices.ContainsFunc(found, func(f store.OIDCFinding) bool { return f.State == state && strings.Contains(f.Says, c.says) }) {
			t.Errorf("%s: %+v, %v", what, found, err)
		}
	}
	// A public client, and one whose secret goes with the form.
	h.p.Set(func(p *oidctest.Provider) {
		p.Secret, p.Bend = "", says("token_endpoint_auth_methods_supported", []string{"none", "client_secret_post"})
	})
	public := spec()
	public.Secret = new("")
	if states, text := look(public); states != "ok ok ok ok ok " || !strings.Contains(text, "which has no secret") {
		t.Errorf("a public client: %s\n%s", states, text)
	}
	h.p.Set(func(p *oidctest.Provider) { p.Secret = "a new one & more" })
	posted := spec()
	posted.Secret = new("a new one & more")
	if states, text := look(posted); states != "ok ok ok ok ok " {
		t.Errorf("a secret in the form: %s\n%s", states, text)
	}
	if o, err := h.OIDC(t.Context()); err != nil || o.Secret != kept.Secret || o.Revision != kept.Revision {
		t.Errorf("a look kept %#v, %v", o, err)
	}
	if _, err := h.TryOIDC(t.Context(), store.OIDCSpec{}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a look at nothing: %v", err)
	}
}

func TestAProviderThatBecomesAnotherLeavesNobodyIn(t *testing.T) {
	h := open(t)
	spec := store.OIDCSpec{OIDC: h.rows.o}
	spec.Name = "Another name"
	if o, err := h.PutOIDC(t.Context(), "admin", spec); err != nil || o.Secret != h.p.Secret || len(h.ended) != 1 || h.ended[0] != h.p.URL {
		t.Fatalf("%v, %v, %v", o, err, h.ended)
	}
	// A sign-in that is under way meanwhile is over.
	to, ticket, err := h.Begin(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	answer := h.send(to)
	spec.Name, spec.Revision = "A third name", 0
	if _, err := h.PutOIDC(t.Context(), "admin", spec); err != nil {
		t.Fatal(err)
	}
	_, _, err = h.Finish(t.Context(), ticket, answer)
	h.refused("changed meanwhile", err, store.KindDenied, "an admin changed how people sign in")
	// Nor does one come to its end while the provider was asked who somebody is.
	if to, ticket, err = h.Begin(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	answer = h.send(to)
	kept := h.rows.o
	h.p.Set(func(p *oidctest.Provider) {
		p.Claims = func(map[string]any) {
			if _, err := h.rows.PutOIDC(t.Context(), "admin", store.OIDC{}); err != nil {
				t.Error(err)
			}
		}
	})
	who, _, err := h.Finish(t.Context(), ticket, answer)
	h.refused("removed while the code was redeemed", err, store.KindDenied, "an admin changed how people sign in")
	if who != (store.OIDCPerson{}) {
		t.Errorf("and yet it is said who they are: %+v", who)
	}
	h.rows.o, h.ended = kept, nil
	h.p.Set(func(p *oidctest.Provider) { p.Claims = nil })
	spec.Issuer, spec.URL = "https://another.example", ""
	if _, err := h.PutOIDC(t.Context(), "admin", spec); store.KindOf(err) != store.KindInvalid {
		t.Errorf("the secret goes along: %v", err)
	}
	spec.Secret = new("its own")
	if o, err := h.PutOIDC(t.Context(), "admin", spec); err != nil || o.URL != appliance || !slices.Equal(h.ended, []string{"https://another.example"}) {
		t.Errorf("%+v, %v, ended but %v", o.URL, err, h.ended)
	}
	if _, err := h.PutOIDC(t.Context(), "admin", store.OIDCSpec{}); err != nil || !slices.Equal(h.ended, []string{"https://another.example", ""}) {
		t.Errorf("%v, ended but %v", err, h.ended)
	}
	spec.URL, spec.Revision = "", 0
	if o, err := h.PutOIDC(t.Context(), "admin", spec); err != nil || o.URL != "http://10.77.0.1:8080" {
		t.Errorf("nobody said where it is opened: %v, %v", o.URL, err)
	}
}

// leaver is rows whose change is made, and whose caller goes away at that moment.
type leaver struct {
	*rows
	leave context.CancelFunc
}

func (l leaver) PutOIDC(ctx context.Context, by store.Actor, o store.OIDC) (store.OIDC, error) {
	defer l.leave()
	return l.rows.PutOIDC(ctx, by, o)
}

// Whoever removes the provider may not wait for the answer, or be told that the
// logins could not be ended, and do it again.
func TestTheLoginsEndThoughWhoeverChangedTheProviderIsGone(t *testing.T) {
	h := open(t)
	ctx, leave := context.WithCancel(t.Context())
	var ended []string
	fails := errors.New("the disk is full")
	c := New(Config{Rows: leaver{h.rows, leave}, URL: h.cfg.URL, Version: "test", Log: h.cfg.Log, Now: time.Now, EndFederated: func(ctx context.Context, but string) error {
		if ctx.Err() != nil {
			t.Errorf("the ending of logins has no time: %v", ctx.Err())
		}
		ended = append(ended, but)
		return fails
	}})
	if _, err := c.PutOIDC(ctx, "admin", store.OIDCSpec{}); !errors.Is(err, fails) || !slices.Equal(ended, []string{""}) {
		t.Errorf("%v, ended but %q", err, ended)
	}
	fails = nil
	if _, err := c.PutOIDC(t.Context(), "admin", store.OIDCSpec{}); err != nil || !slices.Equal(ended, []string{"", ""}) {
		t.Errorf("again: %v, ended but %q", err, ended)
	}
}

func TestTheLogHasTheCauseAndNoSecret(t *testing.T) {
	h := open(t)
	var codes []string
	h.p.Set(func(p *oidctest.Provider) {
		p.Answer = func(v url.Values) { codes = append(codes, v.Get("code")) }
		p.Sign = func([]byte) string { return "x" }
	})
	if _, err := h.signIn(); err == nil {
		t.Fatal("it was believed")
	}
	h.p.Set(func(p *oidctest.Provider) { p.Secret = "another" })
	if _, err := h.signIn(); err == nil {
		t.Fatal("it was believed")
	}
	log := h.said.String()
	for _, secret := range append(codes, "the client's secret") {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	if !strings.Contains(log, "malformed jwt") || !strings.Contains(log, "401") {
		t.Errorf("the log says no cause:\n%s", log)
	}
}

// A provider that pads what it says is repeated by what it says.
func TestAProvidersWordsAreOneShortLine(t *testing.T) {
	for in, want := range map[string]string{
		strings.Repeat(" \r\n", maxWords) + "not\x1btoday": "not today",
		strings.Repeat("é", maxWords):                      strings.Repeat("é", maxWords/2) + "…",
	} {
		if got := words(in); got != want {
			t.Errorf("it becomes %q, want %q", got, want)
		}
	}
}

// Whatever a provider says, it is read or refused.
func FuzzMetadataAndClaims(f *testing.F) {
	f.Add(`{"issuer":"https://x","jwks_uri":"http://[::1]/"}`)
	f.Add(`{"groups":{"a":[{"b":["c",1,true,null]}]},"_claim_names":7,"preferred_username":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var m metadata
		p := &provider{settings: store.OIDC{Name: "x", Claim: "groups.a"}, now: time.Now}
		if json.Unmarshal([]byte(text), &m) == nil {
			p.metadata = m
			_ = p.config().AuthCodeURL("s")
			_, _ = p.read(url.Values{"iss": {text}, "error": {text}, "error_description": {text}})
		}
		claims := map[string]any{}
		if json.Unmarshal([]byte(text), &claims) == nil {
			if who := p.person(text, claims); who.Role != "" || who.Refusal == "" || len(who.KnownAs) > maxWords+len("…") || strings.ContainsAny(who.KnownAs, "\n\r\x1b") {
				t.Errorf("%+v", who)
			}
		}
	})
}
