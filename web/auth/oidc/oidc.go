// Package oidc lets people sign in through an OpenID Connect provider: the
// authorization code flow (OpenID Connect Core 1.0 §3.1) with PKCE (RFC 7636), of
// which this is the client.
//
// The provider is asked when somebody signs in, logs out there too or looks at it,
// and never before, each time within a deadline: one that is away hinders nobody but
// those who want to come through it. What it says is believed only after its
// signature was checked, by keys that were fetched for the purpose; its tokens are
// forgotten then, but for one that it wants to see again at the logout. Who somebody
// is here, and their session, is for web/auth.
package oidc

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"lunboot/store"
)

// Rows keep the provider.
type Rows interface {
	OIDC(context.Context) (store.OIDC, error)
	PutOIDC(context.Context, store.Actor, store.OIDC) (store.OIDC, error)
	// LogoutTold reports whether the provider told of a logout before, by the names of
	// both, and KeepLogout remembers that, over a restart too.
	LogoutTold(ctx context.Context, issuer, jti string) (bool, error)
	KeepLogout(ctx context.Context, issuer, jti string, until time.Time) error
}

// Config is what a Client stands on; every field is needed.
type Config struct {
	Rows Rows
	// URL is where people open the appliance, until an admin says it.
	URL func() string
	// EndFederated ends the logins of those who came through another provider than
	// the one that it is given.
	EndFederated func(ctx context.Context, but string) error
	Version      string
	Log          *slog.Logger
	Now          func() time.Time
}

// Client is the appliance as the provider sees it.
type Client struct {
	cfg Config

	here    string        // what the appliance knows itself by
	looking chan struct{} // held by the one who looks
	hearing chan struct{} // held by those who look into a logout that was told

	mu      sync.Mutex
	pending map[string]flow      // the sign-ins that began, by their state
	heard   map[string]time.Time // the logouts that the provider told of since the start, by their names
	signers signers              // of those
	last    looked
}

// New makes a Client. It sends nothing.
func New(cfg Config) *Client {
	return &Client{cfg: cfg, here: rand.Text(), looking: make(chan struct{}, 1), hearing: make(chan struct{}, maxHearing), pending: map[string]flow{}, heard: map[string]time.Time{}}
}

// OIDC returns the provider; the zero value when there is none.
func (c *Client) OIDC(ctx context.Context) (store.OIDC, error) { return c.cfg.Rows.OIDC(ctx) }

// PutOIDC changes the provider. When it becomes another, or none, whoever came
// through the one before is out, also when whoever changes it does not wait for
// that; when that failed, changing it again to the same does it.
func (c *Client) PutOIDC(ctx context.Context, by store.Actor, spec store.OIDCSpec) (store.OIDC, error) {
	now, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return store.OIDC{}, err
	}
	wish, err := c.complete(spec, now)
	if err != nil {
		return store.OIDC{}, err
	}
	wish.Revision = cmp.Or(spec.Revision, now.Revision)
	o, err := c.cfg.Rows.PutOIDC(ctx, by, wish)
	if err != nil {
		return o, err
	}
	return o, c.cfg.EndFederated(context.WithoutCancel(ctx), o.Issuer)
}

// complete is what is wished for beside what is there.
func (c *Client) complete(spec store.OIDCSpec, now store.OIDC) (store.OIDC, error) {
	spec.URL = cmp.Or(spec.URL, now.URL, c.cfg.URL())
	return spec.Keep(now)
}
