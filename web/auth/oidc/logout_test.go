package oidc

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/auth/oidc/oidctest"
)

// leave goes where somebody who logs out is sent, and returns what they bring back.
func (h *house) leave(to string) url.Values {
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
		h.t.Fatalf("the provider answers %s", resp.Status)
	}
	if at := back.Scheme + "://" + back.Host + back.Path; at != appliance+store.OIDCLoggedOut {
		h.t.Fatalf("the provider sends people back to %s", at)
	}
	return back.Query()
}

func TestWhoLogsOutLogsOutAtTheProviderToo(t *testing.T) {
	h := open(t)
	h.p.Set(func(p *oidctest.Provider) { p.Leave = appliance + store.OIDCLoggedOut })
	ctx := t.Context()
	// Where an admin does not want it nothing is kept, and nobody sent.
	who, err := h.signIn()
	if err != nil || who.Hint != "" {
		t.Fatalf("%+v, %v", who, err)
	}
	asked := len(h.p.Seen())
	if to, state, err := h.EndSession(ctx, h.p.URL, ""); to != "" || state != "" || err != nil || len(h.p.Seen()) != asked {
		t.Errorf("where it is off: %q, %q, %v", to, state, err)
	}
	h.rows.o.Logout = true
	if who, err = h.signIn(); err != nil || who.Hint == "" {
		t.Fatalf("%+v, %v", who, err)
	}
	to, state, err := h.EndSession(ctx, h.p.URL, who.Hint)
	if err != nil || !strings.HasPrefix(to, h.p.URL+"/logout?") || state == "" {
		t.Fatalf("%q, %q, %v", to, state, err)
	}
	answer := h.leave(to)
	if name, err := h.LoggedOut(ctx, state, answer); name != "Lab SSO" || err != nil {
		t.Errorf("back again: %q, %v", name, err)
	}
	for what, brought := range map[string]string{"nobody who left": "", "another who left": "another"} {
		if name, err := h.LoggedOut(ctx, brought, answer); name != "" || err != nil {
			t.Errorf("%s is told %q, %v", what, name, err)
		}
	}
	if name, _ := h.LoggedOut(ctx, "", url.Values{}); name != "" {
		t.Errorf("who comes with nothing is told %q", name)
	}
	// After a restart there is no hint: the client is named.
	to, _, err = h.EndSession(ctx, h.p.URL, "")
	if err != nil || strings.Contains(to, "id_token_hint") {
		t.Fatalf("%q, %v", to, err)
	}
	h.leave(to)
	h.p.Set(func(p *oidctest.Provider) {
		if got := strings.Join(p.Left, " "); got != "248289761001 lunboot" {
			t.Errorf("out are %s", got)
		}
	})
	// Whoever came through another provider is not sent to this one.
	if to, _, err := h.EndSession(ctx, "https://another.example.org", "hint"); to != "" || err != nil {
		t.Errorf("of another provider: %q, %v", to, err)
	}
	if strings.Contains(h.said.String(), who.Hint) {
		t.Error("the log has an ID token")
	}
}

func TestAHintThatFitsNoURLIsNotKept(t *testing.T) {
	h := open(t)
	h.rows.o.Logout = true
	h.p.Set(func(p *oidctest.Provider) { p.Person["picture"] = strings.Repeat("x", maxHint) })
	if who, err := h.signIn(); err != nil || who.Hint != "" || who.Role != store.RoleOperator {
		t.Errorf("%d bytes, %+v, %v", len(who.Hint), who.Role, err)
	}
	// Nor one that nobody will ask for.
	h.p.Set(func(p *oidctest.Provider) {
		delete(p.Person, "picture")
		p.Bend = func(m map[string]any) { delete(m, "end_session_endpoint") }
	})
	if who, err := h.signIn(); err != nil || who.Hint != "" {
		t.Errorf("of one that logs nobody out: %+v, %v", who, err)
	}
}

func TestAProviderThatCannotLogOutIsSaid(t *testing.T) {
	for what, c := range map[string]struct {
		bend func(*oidctest.Provider)
		kind store.Kind
		says string
	}{
		"none":         {func(p *oidctest.Provider) { p.Bend = func(m map[string]any) { delete(m, "end_session_endpoint") } }, store.KindUnavailable, "does not say where people log out there"},
		"in the clear": {func(p *oidctest.Provider) { p.Bend = says("end_session_endpoint", "http://sso.example.org/logout") }, store.KindDenied, "not behind https://"},
		"a script":     {func(p *oidctest.Provider) { p.Bend = says("end_session_endpoint", "javascript:alert(1)") }, store.KindDenied, "not behind https://"},
		"nonsense":     {func(p *oidctest.Provider) { p.Bend = says("end_session_endpoint", "https://%zz/") }, store.KindUnavailable, "names no place to log out at"},
	} {
		h := open(t)
		h.rows.o.Logout = true
		h.p.Set(c.bend)
		to, state, err := h.EndSession(t.Context(), h.p.URL, "")
		h.refused(what, err, c.kind, c.says)
		if to != "" || state != "" || !strings.Contains(h.said.String(), "logged out here, and not at the provider") {
			t.Errorf("%s: %q, %q; the log says %s", what, to, state, h.said.String())
		}
		found, err := h.TryOIDC(t.Context(), store.OIDCSpec{OIDC: h.rows.o})
		bad := false
		for _, f := range found {
			bad = bad || f.Name == onLogout && f.State == "fault" && strings.Contains(f.Says, c.says)
		}
		if err != nil || !bad {
			t.Errorf("%s: a look finds %+v, %v", what, found, err)
		}
	}
	h := open(t)
	h.rows.o.Logout = true
	h.p.Close()
	began := time.Now()
	_, _, err := h.EndSession(t.Context(), h.rows.o.Issuer, "")
	h.refused("away", err, store.KindUnavailable, "nothing listens")
	if time.Since(began) > leaveTime {
		t.Error("who leaves waits too long")
	}
}

// front is what people reach by the appliance's URL.
func (h *house) front(answer string) {
	h.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != store.OIDCHere {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(answer))
	}))
	h.t.Cleanup(srv.Close)
	h.rows.o.URL = srv.URL
}

func TestALookFindsWhetherPeopleComeBackHere(t *testing.T) {
	find := func(h *house) store.OIDCFinding {
		t.Helper()
		l, err := h.Look(t.Context())
		if err != nil || l.At.IsZero() || len(l.Found) == 0 {
			t.Fatalf("%+v, %v", l, err)
		}
		return l.Found[len(l.Found)-1]
	}
	h := open(t)
	h.front(h.Here() + "\n")
	if f := find(h); f.Name != onRedirect || f.State != "ok" || !strings.Contains(f.Says, h.rows.o.Redirect()) {
		t.Errorf("it leads here, and is found as %+v", f)
	}
	for what, answer := range map[string]string{"another appliance": New(Config{}).Here(), "more": h.Here() + "x", "nothing": ""} {
		h.rows.o.Revision++
		h.front(answer)
		if f := find(h); f.State != "fault" || !strings.Contains(f.Says, "is not this appliance") || f.Mend != "lunboot oidc set --url 'http://10.77.0.1:8080'" {
			t.Errorf("%s: %+v", what, f)
		}
	}
	h.rows.o.Revision++
	h.rows.o.URL = "http://127.0.0.1:1"
	if f := find(h); f.State != "advice" || !strings.Contains(f.Says, "cannot see whether") || f.Mend == "" {
		t.Errorf("nobody is there: %+v", f)
	}
}

func TestALookIsKeptUntilThereIsAnother(t *testing.T) {
	h := open(t)
	h.front(h.Here())
	now := time.Now()
	h.now = func() time.Time { return now }
	if l, ok, err := h.Looked(t.Context(), -1); ok || err != nil {
		t.Errorf("before any: %+v, %v", l, err)
	}
	first, err := h.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := len(h.p.Seen())
	for _, age := range []time.Duration{-1, 0} {
		if l, ok, err := h.Looked(t.Context(), age); !ok || err != nil || !l.At.Equal(first.At) {
			t.Errorf("at once: %+v, %v, %v", l, ok, err)
		}
	}
	// Many who look at once are one visitor.
	if _, err := h.Look(t.Context()); err != nil || len(h.p.Seen()) != asked {
		t.Errorf("the provider was asked again at once, %v", err)
	}
	now = now.Add(time.Minute)
	if _, ok, _ := h.Looked(t.Context(), time.Second); ok {
		t.Error("a look of a minute ago is taken for one of now")
	}
	h.p.Set(func(p *oidctest.Provider) { p.Secret = "another" })
	second, err := h.Look(t.Context())
	if err != nil || !second.At.After(first.At) || len(h.p.Seen()) == asked {
		t.Errorf("a minute later: %+v, %v", second, err)
	}
	// Another provider was not looked at.
	h.rows.o.Revision++
	if l, ok, err := h.Looked(t.Context(), -1); ok || err != nil {
		t.Errorf("after a change: %+v, %v", l, err)
	}
	h.rows.o = store.OIDC{Revision: 9}
	if l, err := h.Look(t.Context()); err != nil || len(l.Found) != 0 || !l.At.IsZero() {
		t.Errorf("without a provider: %+v, %v", l, err)
	}
	// Who gives up while somebody else looks is let go.
	h.looking <- struct{}{}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Look(gone); err == nil {
		t.Error("who gave up was waited for")
	}
	<-h.looking
}

// Each failure says by which command it is mended, or more is seen.
func TestALookSaysWhatMendsIt(t *testing.T) {
	for what, c := range map[string]struct {
		bend       func(*house)
		name, mend string
	}{
		"away":          {func(h *house) { h.p.Close() }, onProvider, "curl -v 'https://127.0.0.1:"},
		"another name":  {func(h *house) { h.p.Bend = says("issuer", "https://sso.example.org/it's") }, onProvider, `lunboot oidc set --issuer 'https://sso.example.org/it'\''s'`},
		"no name":       {func(h *house) { h.p.Bend = says("issuer", "$(reboot)") }, onProvider, ""},
		"its authority": {func(h *house) { h.rows.o.CA = "" }, onProvider, "lunboot oidc set --ca FILE"},
		"another path":  {func(h *house) { h.rows.o.Issuer += "/realms/none" }, onProvider, "lunboot oidc set --issuer URL"},
		"its clock":     {func(h *house) { h.p.Now = func() time.Time { return time.Now().Add(time.Hour) } }, onClock, "timedatectl set-ntp true"},
		"its keys":      {func(h *house) { h.p.Bend = says("jwks_uri", h.p.URL+"/.well-known/openid-configuration") }, onKeys, "curl -v 'https://127.0.0.1:"},
		"the secret":    {func(h *house) { h.rows.o.Secret = "another" }, onClient, "lunboot oidc set --client-id ID --secret -"},
		"its end": {func(h *house) {
			ends := h.p.Certificate().NotAfter
			h.now = func() time.Time { return ends.Add(-time.Hour) }
		}, onCertificate, ""},
	} {
		h := open(t)
		h.front(h.Here())
		c.bend(h)
		l, err := h.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range l.Found {
			if f.State == "ok" || f.Name != c.name {
				continue
			}
			found = true
			if !strings.HasPrefix(f.Mend, c.mend) || c.mend == "" && f.Mend != "" {
				t.Errorf("%s: %s: %q, want %q", what, f.Says, f.Mend, c.mend)
			}
		}
		if !found {
			t.Errorf("%s is not found: %+v", what, l.Found)
		}
	}
}

// What a provider says of itself is never a command.
func TestAnArgumentIsOneArgument(t *testing.T) {
	for _, s := range []string{"plain", "it's", "$(echo x)", "`echo x`", "a b; echo c", `\`, "''", "-n"} {
		out, err := exec.Command("sh", "-c", "printf %s "+argument(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q is %q for a shell, %v", s, out, err)
		}
	}
}
