package oidc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"lunboot/store"
	"lunboot/web/auth/oidc/oidctest"
)

// tell tells the client of a logout, and returns whose logins it has ended.
func (h *house) tell(token string) (ended []store.OIDCPerson, err error) {
	h.t.Helper()
	err = h.Logout(h.t.Context(), token, func(_ context.Context, p store.OIDCPerson) error {
		ended = append(ended, p)
		return nil
	})
	return ended, err
}

func (h *house) token(sub, sid string, bend func(map[string]any)) string {
	h.t.Helper()
	token, err := h.p.LogoutToken(sub, sid, bend)
	if err != nil {
		h.t.Fatal(err)
	}
	return token
}

func TestAProviderSaysItselfWhoLoggedOut(t *testing.T) {
	h := open(t)
	h.p.Set(func(p *oidctest.Provider) { p.Person["sid"] = "s-1" })
	if who, err := h.signIn(); err != nil || who.Session != "s-1" {
		t.Fatalf("the session is %+v, %v", who, err)
	}
	h.p.Set(func(p *oidctest.Provider) { p.Person["sid"] = strings.Repeat("x", maxID+1) })
	if who, err := h.signIn(); err != nil || who.Session != "" {
		t.Errorf("a name that is too long is kept: %d, %v", len(who.Session), err)
	}
	for _, c := range []struct{ sub, sid string }{{"248289761001", ""}, {"", "s-1"}, {"248289761001", "s-1"}} {
		for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
			h.p.Set(func(p *oidctest.Provider) { p.Algorithm = alg })
			ended, err := h.tell(h.token(c.sub, c.sid, nil))
			if want := (store.OIDCPerson{Issuer: h.p.URL, Subject: c.sub, Session: c.sid}); err != nil || len(ended) != 1 || ended[0] != want {
				t.Errorf("of %+v by %s: %+v, %v", c, alg, ended, err)
			}
		}
	}
	ended, err := h.tell(h.token("1", "", func(c map[string]any) { c["aud"] = []string{"another", h.p.ClientID} }))
	if err != nil || len(ended) != 1 {
		t.Errorf("one that is for others too: %v, %v", ended, err)
	}
}

func TestALogoutThatTheProviderDoesNotTellEndsNothing(t *testing.T) {
	set := func(name string, v any) func(map[string]any) { return func(c map[string]any) { c[name] = v } }
	without := func(name string) func(map[string]any) { return func(c map[string]any) { delete(c, name) } }
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for what, c := range map[string]struct {
		bend func(map[string]any)
		says string
	}{
		"of another issuer":        {set("iss", "https://evil.example"), "of another issuer"},
		"of no issuer":             {without("iss"), "of another issuer"},
		"for another client":       {set("aud", "another"), "for somebody else"},
		"for others":               {set("aud", []string{"another", "more"}), "for somebody else"},
		"for what is no name":      {set("aud", map[string]any{"lunboot": 1}), "for somebody else"},
		"for nobody":               {without("aud"), "for somebody else"},
		"without a beginning":      {without("iat"), "iat, exp"},
		"without an end":           {without("exp"), "iat, exp"},
		"from the future":          {set("iat", at(time.Hour)), "one of the two clocks"},
		"not good yet":             {set("nbf", at(time.Hour)), "one of the two clocks"},
		"run out":                  {set("exp", at(-2*time.Minute)), "too old"},
		"good for ever, and old":   {func(c map[string]any) { c["iat"], c["exp"] = at(-time.Hour), at(1e6*time.Hour) }, "too old"},
		"of no time":               {set("iat", 1e300), ""},
		"with a time in words":     {set("iat", "now"), "cannot be read"},
		"without a name":           {without("jti"), "jti"},
		"with an empty name":       {set("jti", ""), "jti"},
		"with a name that is long": {set("jti", strings.Repeat("x", maxID+1)), "jti"},
		"with a nonce":             {set("nonce", "n"), "nonce"},
		"with an empty nonce":      {set("nonce", ""), "nonce"},
		"with no nonce, it says":   {set("nonce", nil), "nonce"},
		"about nothing":            {without("events"), "events"},
		"about something else":     {set("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}), "events"},
		"about a word":             {set("events", map[string]any{logoutEvent: "yes"}), "events"},
		"about null":               {set("events", map[string]any{logoutEvent: nil}), "events"},
		"about a list":             {set("events", []string{logoutEvent}), "cannot be read"},
		"of nobody":                {without("sub"), "sub, sid"},
		"of somebody too long":     {set("sub", strings.Repeat("x", maxSubject+1)), "more than 255"},
		"of a session too long":    {set("sid", strings.Repeat("x", maxID+1)), "more than 255"},
	} {
		h := open(t)
		ended, err := h.tell(h.token("1", "", c.bend))
		if err == nil || len(ended) > 0 || !strings.Contains(err.Error(), c.says) || store.KindOf(err) == store.KindInternal {
			t.Errorf("%s: %v, %v", what, ended, err)
		}
		// Whoever sends what is wrong on its face makes the appliance ask nobody.
		if asked := h.p.Seen(); len(asked) > 0 {
			t.Errorf("%s: the provider was asked for %v", what, asked)
		}
	}
}

func TestALogoutThatSomebodyElseSignedEndsNothing(t *testing.T) {
	stranger, err := oidctest.New()
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	h := open(t)
	good := h.token("1", "", nil)
	parts := strings.Split(good, ".")
	forged := func(header, payload string, sign func(string) string) string {
		signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + payload
		return signed + "." + sign(signed)
	}
	foreign, err := stranger.LogoutToken("1", "", func(c map[string]any) { c["iss"], c["aud"] = h.p.URL, h.p.ClientID })
	if err != nil {
		t.Fatal(err)
	}
	other := h.token("2", "", nil)
	for what, token := range map[string]string{
		"nothing":               "",
		"no token":              "x",
		"a token of five parts": "a.b.c.d.e",
		"a very long one":       strings.Repeat("x", maxWord+1),
		"alg none":              forged(`{"alg":"none"}`, parts[1], func(string) string { return "" }),
		"alg None":              forged(`{"alg":"None"}`, parts[1], func(string) string { return "AA" }),
		"signed by the secret":  forged(`{"alg":"HS256"}`, parts[1], hs256(h.p.Secret)),
		"signed by nobody":      forged(`{"alg":"RS256","kid":"1"}`, parts[1], func(string) string { return strings.Repeat("A", 342) }),
		"another's signature":   parts[0] + "." + parts[1] + "." + strings.Split(other, ".")[2],
		"another's key":         foreign,
		"of another type":       forged(`{"alg":"RS256","typ":"at+jwt"}`, parts[1], func(string) string { return parts[2] }),
	} {
		if ended, err := h.tell(token); err == nil || len(ended) > 0 || store.KindOf(err) != store.KindDenied {
			t.Errorf("%s: %v, %v", what, ended, err)
		}
	}
	h.p.Set(func(p *oidctest.Provider) {
		p.Bend, p.Algorithm = says("id_token_signing_alg_values_supported", []string{"RS256"}), jose.ES256
	})
	h.now = func() time.Time { return time.Now().Add(signersAge) }
	if ended, err := h.tell(h.token("1", "", nil)); err == nil || len(ended) > 0 || !strings.Contains(err.Error(), "signs by ES256") {
		t.Errorf("signed as was not said: %v, %v", ended, err)
	}
	h.p.Set(func(p *oidctest.Provider) { p.Bend, p.Algorithm = nil, jose.RS256 })
	// What was refused is not used up by it.
	if ended, err := h.tell(good); err != nil || len(ended) != 1 {
		t.Errorf("the good one: %v, %v", ended, err)
	}
	h.rows.o = store.OIDC{}
	if _, err := h.tell(good); store.KindOf(err) != store.KindDenied {
		t.Errorf("without a provider: %v", err)
	}
}

// An ID token is no logout token: whoever got hold of one ends nobody's login by it.
func TestAnIDTokenIsNoLogoutToken(t *testing.T) {
	h := open(t)
	h.rows.o.Logout = true
	who, err := h.signIn()
	if err != nil || who.Hint == "" {
		t.Fatalf("%+v, %v", who, err)
	}
	if ended, err := h.tell(who.Hint); err == nil || len(ended) > 0 {
		t.Errorf("%v, %v", ended, err)
	}
}

func TestALogoutIsToldOnce(t *testing.T) {
	h := open(t)
	token := h.token("1", "", nil)
	down := errors.New("the disk is full")
	if err := h.Logout(t.Context(), token, func(context.Context, store.OIDCPerson) error { return down }); !errors.Is(err, down) {
		t.Fatal(err)
	}
	// What could not be ended is told again, and then it is good once.
	if ended, err := h.tell(token); err != nil || len(ended) != 1 {
		t.Fatalf("%v, %v", ended, err)
	}
	if ended, err := h.tell(token); err == nil || len(ended) > 0 || !strings.Contains(err.Error(), "before") {
		t.Errorf("again: %v, %v", ended, err)
	}
	// A restart forgets none of it for as long as the token is good.
	again := New(h.cfg)
	ended := 0
	end := func(context.Context, store.OIDCPerson) error { ended++; return nil }
	if err := again.Logout(t.Context(), token, end); store.KindOf(err) != store.KindDenied || !strings.Contains(err.Error(), "before") || ended > 0 {
		t.Errorf("after a restart: %v, %d", err, ended)
	}
	for _, until := range h.rows.told {
		if left := time.Until(until); left < logoutAge || left > logoutAge+2*skew {
			t.Errorf("it is remembered for %s", left)
		}
	}
	// Those who logged out are out, whether that can be remembered or not.
	h.rows.full = down
	if err := again.Logout(t.Context(), h.token("2", "", nil), end); err != nil || ended != 1 {
		t.Errorf("when it cannot be remembered: %v, %d", err, ended)
	}
	// What is remembered is bounded, by number and by time.
	for i := range maxHeard + 10 {
		h.hear(strconv.Itoa(i))
	}
	if n := len(h.heard); n > maxHeard {
		t.Errorf("%d are remembered", n)
	}
	h.now = func() time.Time { return time.Now().Add(logoutAge + 2*skew) }
	h.hear("later")
	if n := len(h.heard); n != 1 {
		t.Errorf("%d are remembered after they have run out", n)
	}
}

// Whoever may post what looks like a logout must not have the provider asked as often.
func TestManyForgedLogoutsAskTheProviderOnce(t *testing.T) {
	h := open(t)
	good := strings.Split(h.token("1", "", nil), ".")
	forged := good[0] + "." + good[1] + "." + strings.Split(h.token("2", "", nil), ".")[2]
	for range 20 {
		if ended, err := h.tell(forged); store.KindOf(err) != store.KindDenied || len(ended) > 0 {
			t.Fatalf("%v, %v", ended, err)
		}
	}
	if asked := h.p.Seen(); len(asked) != 2 { // its settings and its keys
		t.Errorf("the provider was asked for %v", asked)
	}
	h.now = func() time.Time { return time.Now().Add(signersAge) }
	if ended, err := h.tell(strings.Join(good, ".")); err != nil || len(ended) != 1 {
		t.Errorf("%v, %v", ended, err)
	}
	if asked := h.p.Seen(); len(asked) != 4 {
		t.Errorf("later the provider was asked for %v", asked)
	}
}

func TestALookSaysWhetherTheProviderTellsOfLogouts(t *testing.T) {
	for says, bend := range map[string]func(map[string]any){
		"":                     nil,
		"so all of theirs end": says("backchannel_logout_supported", true),
		"and of which session": func(m map[string]any) {
			m["backchannel_logout_supported"], m["backchannel_logout_session_supported"] = true, true
		},
	} {
		h := open(t)
		h.p.Set(func(p *oidctest.Provider) { p.Bend = bend })
		found, err := h.TryOIDC(t.Context(), store.OIDCSpec{OIDC: h.rows.o})
		if err != nil {
			t.Fatal(err)
		}
		said := ""
		for _, f := range found {
			if f.Name == onTold {
				said = f.Says
			}
		}
		if (said == "") != (says == "") || !strings.Contains(said, says) || said != "" && !strings.Contains(said, appliance+store.OIDCBackChannel) {
			t.Errorf("%q is said, %q is wanted", said, says)
		}
	}
}

func TestALogoutIsNotBelievedWhileTheProviderIsAway(t *testing.T) {
	h := open(t)
	token := h.token("1", "", nil)
	h.p.Close()
	if ended, err := h.tell(token); store.KindOf(err) != store.KindUnavailable || len(ended) > 0 {
		t.Errorf("%v, %v", ended, err)
	}
}

func FuzzLogoutTokens(f *testing.F) {
	claims, err := json.Marshal(map[string]any{"iss": "https://sso.example.org", "aud": "lunboot", "iat": 1, "exp": 2, "jti": "1", "sub": "1", "events": map[string]any{logoutEvent: map[string]any{}}})
	if err != nil {
		f.Fatal(err)
	}
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"logout+jwt"}`))
	f.Add(head + "." + base64.RawURLEncoding.EncodeToString(claims) + ".AAAA")
	f.Add("a.b.c")
	c := New(Config{Now: func() time.Time { return time.Unix(1, 0) }})
	o := store.OIDC{Issuer: "https://sso.example.org", ClientID: "lunboot"}
	f.Fuzz(func(t *testing.T, raw string) {
		if word, said, err := c.readLogout(o, raw); err == nil && (word == nil || said.Sub == "" && said.Sid == "" || said.Iss != o.Issuer) {
			t.Errorf("%q is taken: %+v", raw, said)
		}
	})
}
