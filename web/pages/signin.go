package pages

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/web/auth"
)

// SignIn lets people in through an OpenID Connect provider.
type SignIn interface {
	// OIDC is the provider, the zero value when there is none.
	OIDC(context.Context) (store.OIDC, error)
	PutOIDC(context.Context, store.Actor, store.OIDCSpec) (store.OIDC, error)
	// TryOIDC looks at a provider, and keeps nothing.
	TryOIDC(context.Context, store.OIDCSpec) ([]store.OIDCFinding, error)
	// Begin says where the browser goes, and what it has to bring back.
	Begin(ctx context.Context, next string) (to, ticket string, err error)
	// Finish reads what it brought back.
	Finish(ctx context.Context, ticket string, answer url.Values) (who store.OIDCPerson, next string, err error)
	// EndSession says where the browser goes to log out at the provider too, and what
	// it has to bring back; an empty to: it goes nowhere.
	EndSession(ctx context.Context, issuer, hint string) (to, state string, err error)
	// LoggedOut is the provider that people come back from who went so, else empty.
	LoggedOut(ctx context.Context, state string, answer url.Values) (provider string, err error)
	// Logout reads a logout token of the provider's, and has end whose logins are over.
	Logout(ctx context.Context, token string, end func(context.Context, store.OIDCPerson) error) error
	// Here is what the appliance knows itself by.
	Here() string
}

// The cookie that ties a sign-in to the browser that began it. It goes to no other
// page than these two, and comes along when the provider sends the browser back,
// which is a way from another site: not with SameSite=Strict.
const (
	ticketCookie = "lunboot_sign_in"
	ticketPath   = "/login/oidc"
	ticketTime   = 10 * time.Minute
)

func ticket(value, url string, life time.Duration) *http.Cookie {
	return &http.Cookie{Name: ticketCookie, Value: value, Path: ticketPath, MaxAge: int(life.Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(url, "https:")}
}

// beginSignIn sends the browser to the provider. It is a link and no form: the
// pages let forms go nowhere but here, also when they are answered elsewhere.
func (s *site) beginSignIn(w http.ResponseWriter, r *http.Request) {
	if s.Auth.Code() != "" {
		http.Redirect(w, r, "/setup", http.StatusSeeOther)
		return
	}
	next := wanted(r.URL.Query().Get("next"))
	o, err := s.SignIn.OIDC(r.Context())
	if err != nil {
		s.signInFailed(w, r, next, err)
		return
	}
	// The provider sends people back to one URL. Who came in by another name of this
	// appliance goes there first, once, so that the cookie is theirs then.
	if u, err := url.Parse(o.URL); err == nil && !o.IsZero() && u.Host != r.Host && !r.URL.Query().Has("here") {
		http.Redirect(w, r, o.URL+"/login/oidc?"+url.Values{"here": {"1"}, "next": {next}}.Encode(), http.StatusSeeOther)
		return
	}
	to, secret, err := s.SignIn.Begin(r.Context(), next)
	if err != nil {
		s.signInFailed(w, r, next, err)
		return
	}
	http.SetCookie(w, ticket(secret, o.URL, ticketTime))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// finishSignIn is where the provider sends the browser back to.
func (s *site) finishSignIn(w http.ResponseWriter, r *http.Request) {
	brought := ""
	if c, err := r.Cookie(ticketCookie); err == nil {
		brought = c.Value
	}
	who, next, err := s.SignIn.Finish(r.Context(), brought, r.URL.Query())
	http.SetCookie(w, ticket("", "", -time.Second))
	if err == nil {
		err = s.Auth.SignIn(r.Context(), who)
	}
	if err != nil {
		s.signInFailed(w, r, next, err)
		return
	}
	http.Redirect(w, r, cmp.Or(wanted(next), "/machines"), http.StatusSeeOther)
}

// signInFailed shows the login with what went wrong: a password is still good.
func (s *site) signInFailed(w http.ResponseWriter, r *http.Request, next string, err error) {
	status, text := told(r, err)
	if status == http.StatusInternalServerError {
		s.Log.Error("a sign-in through the provider failed", "error", err)
	}
	s.showLogin(w, r, status, text, next)
}

// maxNext is the longest page that is remembered over a login.
const maxNext = 500

// The cookie of somebody who is on the way to log out at the provider: its answer is
// believed from nobody else.
const leaveCookie = "lunboot_log_out"

func leaving(state, url string, life time.Duration) *http.Cookie {
	c := ticket(state, url, life)
	c.Name, c.Path = leaveCookie, store.OIDCLoggedOut
	return c
}

type leavingView struct{ Provider string }

// logout ends the session here, first and whatever becomes of the provider. Then the
// browser goes on to log out there too, when it came from there and the admin wants
// it so: by a page of ours, since forms lead nowhere else, also when they are answered
// elsewhere.
func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	left, err := s.Auth.Logout(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	r = r.WithContext(auth.With(r.Context(), auth.Identity{})) // they are nobody from here on
	to, state := "", ""
	if left.Issuer != "" {
		to, state, err = s.SignIn.EndSession(r.Context(), left.Issuer, left.Hint)
	}
	switch {
	case err != nil:
		_, text := explain(err)
		s.showLogin(w, r, http.StatusOK, "You are logged out here, and may still be logged in where you came from. "+text, "")
	case to == "":
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	default:
		o, err := s.SignIn.OIDC(r.Context())
		if err != nil {
			s.Log.Error("read through whom people sign in", "error", err)
		}
		http.SetCookie(w, leaving(state, o.URL, ticketTime))
		s.render(w, r, http.StatusOK, "leaving", page{Title: "Log out", Onward: to, Data: leavingView{o.Name}})
	}
}

// loggedOut is where the provider sends the browser back to that logged out there.
func (s *site) loggedOut(w http.ResponseWriter, r *http.Request) {
	brought := ""
	if c, err := r.Cookie(leaveCookie); err == nil {
		brought = c.Value
	}
	http.SetCookie(w, leaving("", "", -time.Second))
	provider, err := s.SignIn.LoggedOut(r.Context(), brought, r.URL.Query())
	if err != nil || provider == "" {
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.renderLogin(w, r, http.StatusOK, page{Said: "You are logged out here and at " + provider + "."}, "")
}

// here answers what the appliance knows itself by.
func (s *site) here(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, s.SignIn.Here()+"\n") // who hung up does not want it
}

// wanted is the page that somebody was on the way to; empty for what is no page of
// this appliance: whoever logs in here is sent nowhere else.
func wanted(next string) string {
	u, err := url.Parse(next)
	if err != nil || len(next) > maxNext || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.Contains(next, `\`) {
		return ""
	}
	first, _, _ := strings.Cut(u.Path[1:], "/")
	if slices.Contains([]string{"login", "logout", "setup", "live"}, first) {
		return ""
	}
	return next
}

// providerView is the page about the provider, with what was typed.
type providerView struct {
	store.OIDC
	Kept     bool // there is a secret
	Set      bool // there is a provider
	Scopes   string
	Rules    string // one a line
	Redirect string
	Leave    string // where people come back to who logged out there
	Roles    []store.Role
	Checks   []Check
}

func (s *site) provider(w http.ResponseWriter, r *http.Request) {
	s.showProvider(w, r, http.StatusOK, page{}, nil, nil)
}

// showProvider shows the page: as it is kept, or as it was typed.
func (s *site) showProvider(w http.ResponseWriter, r *http.Request, status int, p page, typed *store.OIDCSpec, checks []store.OIDCFinding) {
	kept, err := s.SignIn.OIDC(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := providerView{OIDC: kept, Set: !kept.IsZero(), Kept: kept.Secret != "", Roles: store.Roles()}
	if typed != nil {
		v.OIDC = typed.OIDC
		v.Revision = cmp.Or(typed.Revision, kept.Revision) // of what was seen when it was typed
	}
	if v.URL == "" {
		v.URL = "http://" + r.Host
		if r.TLS != nil {
			v.URL = "https://" + r.Host
		}
	}
	v.Scopes = cmp.Or(strings.Join(v.OIDC.Scopes, " "), "openid profile email")
	var rules []string
	for _, rule := range v.OIDC.Roles {
		rules = append(rules, rule.String())
	}
	v.Rules = strings.Join(rules, "\n")
	v.Redirect, v.Leave = v.OIDC.Redirect(), v.LogoutRedirect()
	for _, c := range checks {
		v.Checks = append(v.Checks, Check{Name: c.Name, State: c.State, Detail: upper(c.Says), Mend: c.Mend})
	}
	p.Title, p.Nav, p.Data = "Single sign-on", "settings", v
	s.render(w, r, status, "provider", p)
}

// readProvider reads the form. What was typed is returned also when it is wrong.
func readProvider(r *http.Request) (spec store.OIDCSpec, err error) {
	get := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	spec.Issuer, spec.Name, spec.ClientID, spec.URL, spec.CA, spec.Claim = get("issuer"), get("name"), get("client_id"), get("url"), get("ca"), get("claim")
	spec.Scopes, spec.Default = strings.Fields(get("scopes")), store.Role(get("default_role"))
	spec.Logout = get("logout") != ""
	if secret := get("secret"); secret != "" { // an empty field keeps it
		spec.Secret = &secret
	}
	if spec.Revision, err = formRevision(r); err != nil {
		return spec, err
	}
	for line := range strings.Lines(get("roles")) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		rule, err := store.ParseClaimRole(line)
		if err != nil {
			return spec, err
		}
		spec.Roles = append(spec.Roles, rule)
	}
	return spec, nil
}

func (s *site) setProvider(w http.ResponseWriter, r *http.Request) {
	spec, err := readProvider(r)
	if err == nil && spec.Issuer == "" {
		err = store.Invalid("issuer", "the issuer is missing: it is the provider's URL")
	}
	if err == nil {
		_, err = s.SignIn.PutOIDC(r.Context(), by(r), spec)
	}
	if err != nil {
		if store.KindOf(err) == store.KindConflict {
			spec.Revision = 0 // they know now: what they send next is on sight of it
		}
		status, text := told(r, err)
		s.showProvider(w, r, status, page{Error: text}, &spec, nil)
		return
	}
	s.showProvider(w, r, http.StatusOK, page{Said: "It is kept. Try it: open the login page in a private window, while you stay logged in here."}, nil, nil)
}

func (s *site) tryProvider(w http.ResponseWriter, r *http.Request) {
	spec, err := readProvider(r)
	var found []store.OIDCFinding
	if err == nil {
		found, err = s.SignIn.TryOIDC(r.Context(), spec)
	}
	if err != nil {
		status, text := told(r, err)
		s.showProvider(w, r, status, page{Error: text}, &spec, nil)
		return
	}
	s.showProvider(w, r, http.StatusOK, page{}, &spec, found)
}

func (s *site) removeProvider(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("sure") != "yes" {
		s.showProvider(w, r, http.StatusUnprocessableEntity, page{Error: "Nothing was removed: tick that you mean it."}, nil, nil)
		return
	}
	if _, err := s.SignIn.PutOIDC(r.Context(), by(r), store.OIDCSpec{}); err != nil {
		status, text := told(r, err)
		s.showProvider(w, r, status, page{Error: text}, nil, nil)
		return
	}
	http.Redirect(w, r, "/settings/oidc", http.StatusSeeOther)
}
