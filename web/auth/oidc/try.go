package oidc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	rp "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"lunboot/store"
)

// tryTime bounds a look at the provider.
const tryTime = 20 * time.Second

// findings are collected in the order in which they were found.
type findings []store.OIDCFinding

func (f *findings) ok(name, format string, args ...any) {
	*f = append(*f, store.OIDCFinding{Name: name, State: "ok", Says: fmt.Sprintf(format, args...)})
}

func (f *findings) advice(name, mend, format string, args ...any) {
	*f = append(*f, store.OIDCFinding{Name: name, State: "advice", Says: fmt.Sprintf(format, args...), Mend: mend})
}

func (f *findings) fault(name, mend, format string, args ...any) {
	*f = append(*f, store.OIDCFinding{Name: name, State: "fault", Says: fmt.Sprintf(format, args...), Mend: mend})
}

func (f *findings) failed(name string, err error) { f.fault(name, mend(err), "%s", err) }

// What is looked at.
const (
	onProvider    = "provider"
	onCertificate = "provider's certificate"
	onClock       = "provider's clock"
	onOffers      = "provider's offers"
	onKeys        = "provider's keys"
	onLogout      = "logout at the provider"
	onTold        = "logouts that the provider tells of"
	onClient      = "client at the provider"
	onRedirect    = "redirect URI"
)

// TryOIDC looks at a provider as it would be with these settings, and says what is
// wrong. Nothing is kept. Whether the provider takes the URL that people are sent
// back to is seen only when somebody signs in.
func (c *Client) TryOIDC(ctx context.Context, spec store.OIDCSpec) ([]store.OIDCFinding, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	now, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return nil, err
	}
	o, err := c.complete(spec, now)
	if err != nil {
		return nil, err
	}
	if o.IsZero() {
		return nil, store.Invalid("issuer", "the issuer is missing: say which provider to look at")
	}
	return c.lookAt(ctx, o)
}

// lookAt asks a provider everything that can be asked without somebody who signs in.
func (c *Client) lookAt(ctx context.Context, o store.OIDC) (f findings, err error) {
	p, err := c.dial(o)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := p.discover(ctx); err != nil {
		f.failed(onProvider, err)
		return f, nil
	}
	f.ok(onProvider, "%s answers, and calls itself so", o.Issuer)
	p.lookAtCertificate(&f)
	p.lookAtClock(&f)
	p.lookAtOffers(&f)
	if keys, err := p.keys(ctx); err != nil {
		f.failed(onKeys, err)
	} else {
		f.ok(onKeys, "it shows the keys by which it signs (%d)", len(keys))
	}
	if o.Logout {
		p.lookAtLogout(&f)
	}
	switch {
	case p.Tells && p.TellsWhich:
		f.ok(onTold, "it can say who logged out there, and of which session, at %s, where that is registered", o.BackChannel())
	case p.Tells:
		f.ok(onTold, "it can say who logged out there, at %s, where that is registered; it does not say of which session, so all of theirs end", o.BackChannel())
	}
	p.lookAtClient(ctx, &f)
	return f, nil
}

// renewSoon is how long before its end a certificate is spoken of.
const renewSoon = 14 * 24 * time.Hour

// lookAtCertificate says how long the certificate is good that was good just now.
func (p *provider) lookAtCertificate(f *findings) {
	switch left := p.ends.Sub(p.now()); {
	case p.ends.IsZero(): // on this host itself, in the clear
	case left < renewSoon:
		f.advice(onCertificate, "", "its certificate runs out on %s, and nobody signs in through it then; renew it there", p.ends.UTC().Format(time.DateOnly))
	default:
		f.ok(onCertificate, "its certificate is good until %s", p.ends.UTC().Format(time.DateOnly))
	}
}

func (p *provider) lookAtClock(f *findings) {
	if p.clock.IsZero() {
		return
	}
	if apart := p.now().Sub(p.clock).Round(time.Second); apart.Abs() > skew {
		f.fault(onClock, setClock, "its clock and this appliance's are %s apart: nobody's sign-in would be believed. It is %s here; look at both", apart.Abs(), p.now().UTC().Format(time.DateTime))
		return
	}
	f.ok(onClock, "its clock and this appliance's agree")
}

// lookAtOffers compares what is needed with what the provider says that it does.
func (p *provider) lookAtOffers(f *findings) {
	o := p.settings
	if len(p.Answers) > 0 && !slices.Contains(p.Answers, "code") {
		f.fault(onOffers, "", "it does not offer the authorization code flow, and nobody could sign in; let the client have it there")
	}
	if !slices.Contains(p.Challenges, "S256") {
		f.advice(onOffers, "", "it does not say that it checks PKCE (S256); it is sent, and protects nobody if the provider passes it over")
	}
	for _, s := range o.Scopes {
		if len(p.Scopes) > 0 && !slices.Contains(p.Scopes, s) {
			f.advice(onOffers, "lunboot oidc set --scopes openid,…", "it does not list the scope %s; some refuse a sign-in that asks for one that they do not know", s)
		}
	}
	if o.Claim != "" && len(p.Claims) > 0 && !slices.Contains(p.Claims, o.Claim) {
		f.advice(onOffers, "", "it does not list the claim %s; many tell claims that they do not list, once the client is allowed to have them", o.Claim)
	}
}

// lookAtLogout looks for where people log out there.
func (p *provider) lookAtLogout(f *findings) {
	if at, err := p.logoutAt(); err != nil {
		f.failed(onLogout, err)
	} else {
		f.ok(onLogout, "people log out there at %s", words(at.Redacted()))
	}
}

// lookAtClient asks for the word on nobody: whoever the provider does not know is
// told so before the code is looked at.
func (p *provider) lookAtClient(ctx context.Context, f *findings) {
	o := p.settings
	_, err := p.config().Exchange(rp.ClientContext(ctx, p.http), "lunboot-"+rand.Text(), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	var said *oauth2.RetrieveError
	switch {
	case err == nil:
		f.fault(onClient, "", "it takes a made-up code for somebody: it is no provider that can be trusted")
	case !errors.As(err, &said):
		f.failed(onClient, p.refusal(err))
	case said.ErrorCode == "invalid_grant":
		f.ok(onClient, "it knows the client %s%s", o.ClientID, map[bool]string{true: ", which has no secret", false: " by its secret"}[o.Public()])
	case said.ErrorCode == "invalid_client", said.ErrorCode == "unauthorized_client", said.Response.StatusCode == http.StatusUnauthorized:
		f.failed(onClient, p.refusal(err))
	default:
		f.advice(onClient, "", "it answers %q when it is given a made-up code, which does not say whether it knows the client; that shows when somebody signs in", words(said.ErrorCode))
	}
}
