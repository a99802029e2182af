package oidc

import (
	"context"
	"crypto/rand"
	"net/url"
	"time"
)

// Bounds of a logout at the provider.
const (
	// leaveTime bounds what the provider is asked for when somebody leaves.
	leaveTime = 4 * time.Second
	// maxHint is the longest ID token that goes back to the provider: it goes in a
	// URL, of which many servers take no more than 8 KiB.
	maxHint = 6 << 10
)

// logoutAt is where the provider logs people out (OpenID Connect RP-Initiated Logout
// 1.0 §2.1).
func (p *provider) logoutAt() (*url.URL, error) {
	name := p.settings.Name
	if p.EndSession == "" {
		return nil, mended(unavailable(nil, "%s does not say where people log out there (end_session_endpoint), so they stay logged in there", name), "lunboot oidc set --no-logout")
	}
	u, err := url.Parse(p.EndSession)
	if err != nil {
		return nil, unavailable(err, "%s names no place to log out at: %s", name, words(p.EndSession))
	}
	return u, private(p.settings.Issuer, u)
}

// EndSession says where a browser goes to log out at the provider too, and what it
// has to bring back; to is empty when it goes nowhere: the provider is another by
// now, or people log out here alone. hint is what the provider gave when the one who
// leaves came (OpenID Connect RP-Initiated Logout 1.0 §2); without one the client is
// named, and the provider may ask whether they mean it.
func (c *Client) EndSession(ctx context.Context, issuer, hint string) (to, state string, err error) {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	o, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return "", "", err
	}
	if o.IsZero() || o.Issuer != issuer || !o.Logout {
		return "", "", nil
	}
	p, err := c.dial(o)
	if err != nil {
		return "", "", err
	}
	defer p.close()
	// Asked now, so that nobody is sent to a provider that is away.
	if err := p.discover(ctx); err != nil {
		return "", "", c.unleft(err)
	}
	at, err := p.logoutAt()
	if err != nil {
		return "", "", c.unleft(err)
	}
	state = rand.Text()
	q := at.Query()
	q.Set("post_logout_redirect_uri", o.LogoutRedirect())
	q.Set("state", state)
	if hint != "" {
		q.Set("id_token_hint", hint)
	} else {
		q.Set("client_id", o.ClientID)
	}
	at.RawQuery = q.Encode()
	return at.String(), state, nil
}

// unleft logs why somebody was not logged out at the provider.
func (c *Client) unleft(err error) error {
	c.cfg.Log.Warn("somebody was logged out here, and not at the provider", "error", err, "cause", cause(err))
	return err
}

// LoggedOut is the provider's name when its answer is to somebody who was sent there
// to log out, by the state that they brought back; else empty.
func (c *Client) LoggedOut(ctx context.Context, state string, answer url.Values) (string, error) {
	if state == "" || answer.Get("state") != state {
		return "", nil
	}
	o, err := c.cfg.Rows.OIDC(ctx)
	return o.Name, err
}
