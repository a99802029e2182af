package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net/url"
	"time"

	"golang.org/x/oauth2"

	"lunboot/store"
)

// Bounds of a sign-in.
const (
	// flowTime is how long somebody may take to prove at the provider who they are.
	flowTime = 10 * time.Minute
	// maxPending is how many may be under way; the oldest goes first.
	maxPending = 1024
	// beginTime and finishTime bound what the provider is asked for at either end.
	beginTime  = 8 * time.Second
	finishTime = 20 * time.Second
)

// flow is a sign-in that began. It is taken out when it ends, however it ends, so
// that no answer is good twice.
type flow struct {
	ticket   string // what the browser that began it has
	nonce    string // what the provider has to sign
	verifier string // what proves to the provider that the code is ours (RFC 7636)
	next     string // the page that was wanted
	began    time.Time
	settings store.OIDC
	found    metadata
}

// Begin starts a sign-in: to is where the browser goes, and ticket what it has to
// bring back, in a cookie that no other site can read or set.
func (c *Client) Begin(ctx context.Context, next string) (to, ticket string, err error) {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	o, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return "", "", err
	}
	if o.IsZero() {
		return "", "", denied(nil, "signing in through a provider is not set up here; log in with a name and a password")
	}
	p, err := c.dial(o)
	if err != nil {
		return "", "", err
	}
	defer p.close()
	if err := p.discover(ctx); err != nil {
		return "", "", c.failed(err)
	}
	f := flow{ticket: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), next: next, began: c.cfg.Now(), settings: o, found: p.metadata}
	state := rand.Text()
	c.keep(state, f)
	return p.config().AuthCodeURL(state, oauth2.SetAuthURLParam("nonce", f.nonce), oauth2.S256ChallengeOption(f.verifier)), f.ticket, nil
}

// keep remembers a sign-in, and forgets those that took too long and, of too many,
// the oldest.
func (c *Client) keep(state string, f flow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := ""
	for s, other := range c.pending {
		switch {
		case f.began.Sub(other.began) > flowTime:
			delete(c.pending, s)
		case oldest == "" || other.began.Before(c.pending[oldest].began):
			oldest = s
		}
	}
	if len(c.pending) >= maxPending {
		delete(c.pending, oldest)
	}
	c.pending[state] = f
}

// take returns the sign-in of a state, once, to the browser that began it.
func (c *Client) take(state, ticket string) (flow, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, ok := c.pending[state]
	if !ok || subtle.ConstantTimeCompare([]byte(f.ticket), []byte(ticket)) != 1 {
		return flow{}, false // the one who asks is not the one who began: theirs stays
	}
	delete(c.pending, state)
	return f, c.cfg.Now().Sub(f.began) <= flowTime
}

// Finish reads the answer with which the provider sent a browser back, and returns
// whom it vouches for, and the page that they wanted. Somebody whom nothing gives
// a role is no error here.
func (c *Client) Finish(ctx context.Context, ticket string, answer url.Values) (who store.OIDCPerson, next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	f, ok := c.take(answer.Get("state"), ticket)
	if !ok {
		return who, "", c.failed(denied(nil, "this is no sign-in that this browser has under way: it took longer than %d minutes, was begun in another tab or browser, is over already, or the appliance was started again meanwhile. Start the sign-in again", flowTime/time.Minute))
	}
	if err := c.unchanged(ctx, f); err != nil {
		return who, f.next, err
	}
	p, err := c.dial(f.settings)
	if err != nil {
		return who, f.next, err
	}
	defer p.close()
	p.metadata = f.found
	code, err := p.read(answer)
	if err != nil {
		return who, f.next, c.failed(err)
	}
	if who, err = p.redeem(ctx, code, f); err != nil {
		return store.OIDCPerson{}, f.next, c.failed(err)
	}
	// The provider took its time, in which an admin may have done something.
	if err := c.unchanged(ctx, f); err != nil {
		return store.OIDCPerson{}, f.next, err
	}
	return who, f.next, nil
}

// unchanged refuses when the provider's settings are not those any more with which
// a sign-in began.
func (c *Client) unchanged(ctx context.Context, f flow) error {
	now, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return err
	}
	if now.Revision != f.settings.Revision {
		return c.failed(denied(nil, "an admin changed how people sign in while you did. Start the sign-in again"))
	}
	return nil
}

// failed logs why somebody did not come in; what they are told is the same, but
// for its cause.
func (c *Client) failed(err error) error {
	c.cfg.Log.Warn("a sign-in through the provider failed", "error", err, "cause", cause(err))
	return err
}
