package oidc

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"

	"lunboot/store"
)

// Bounds of a look that the doctor asks for.
const (
	lookTime     = 12 * time.Second
	redirectTime = 3 * time.Second
	// again is how long a look is good for whoever asks next: many doctors at a time
	// are one visitor to the provider.
	again = 3 * time.Second
)

// looked is the last look at the provider, with the settings that it was of.
type looked struct {
	store.OIDCLook
	revision int64
}

// Look asks the provider that is set what TryOIDC asks, and whether the URL that it
// sends people back to leads to this appliance. What was found is kept for Looked.
// Without a provider nothing is found.
func (c *Client) Look(ctx context.Context) (store.OIDCLook, error) {
	// Whoever hangs up takes nothing from the next one.
	until := time.Now().Add(lookTime)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	asking, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	select {
	case c.looking <- struct{}{}:
		defer func() { <-c.looking }()
	case <-ctx.Done():
		return store.OIDCLook{}, ctx.Err()
	}
	if last, ok, err := c.Looked(ctx, again); ok || err != nil {
		return last, err
	}
	o, err := c.cfg.Rows.OIDC(ctx)
	if err != nil || o.IsZero() {
		return store.OIDCLook{Found: []store.OIDCFinding{}}, err
	}
	f, err := c.lookAt(asking, o)
	if err != nil {
		return store.OIDCLook{}, err
	}
	c.lookAtRedirect(asking, o, &f)
	l := looked{store.OIDCLook{At: c.cfg.Now().UTC(), Found: f}, o.Revision}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = l
	return l.OIDCLook, nil
}

// Looked is what the last look at the provider of now found, no longer ago than age;
// a negative age takes any. It sends nothing.
func (c *Client) Looked(ctx context.Context, age time.Duration) (store.OIDCLook, bool, error) {
	o, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return store.OIDCLook{}, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.last
	fresh := !l.At.IsZero() && l.revision == o.Revision && (age < 0 || c.cfg.Now().Sub(l.At) <= age)
	if !fresh {
		return store.OIDCLook{}, false, nil
	}
	return l.OIDCLook, true, nil
}

// Here is what this appliance answers at store.OIDCHere, so that it knows itself
// when it comes there by the URL that people open. It is another at each start.
func (c *Client) Here() string { return c.here }

// lookAtRedirect goes to where the provider sends people back, and looks whether
// that is here. A reverse proxy may stand before it, with any certificate: what is
// asked for is no secret, and nobody is believed but who knows the answer.
func (c *Client) lookAtRedirect(ctx context.Context, o store.OIDC, f *findings) {
	ctx, cancel := context.WithTimeout(ctx, redirectTime)
	defer cancel()
	suggest := setURL
	if own := c.cfg.URL(); own != o.URL {
		suggest = "lunboot oidc set --url " + argument(own)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL+store.OIDCHere, nil)
	if err != nil {
		f.fault(onRedirect, suggest, "%s is no place to send people back to: %s", words(o.URL), words(err.Error()))
		return
	}
	req.Header.Set("User-Agent", "lunboot/"+c.cfg.Version)
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: redirectTime}).DialContext, MaxResponseHeaderBytes: maxHead, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		f.advice(onRedirect, suggest, "this appliance cannot see whether %s leads to it (%s). Where people open it by another URL, set that, and register the redirect URI that follows at the provider", o.URL, words(last(err).Error()))
		return
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, int64(len(c.here))+1))
	if err != nil || subtle.ConstantTimeCompare(bytes.TrimSpace(said), []byte(c.here)) != 1 {
		f.fault(onRedirect, suggest, "the provider sends people back to %s, and what answers there is not this appliance (%s). Set the URL by which people open it, and register the redirect URI that follows at the provider", o.URL, resp.Status)
		return
	}
	f.ok(onRedirect, "people come back by %s, which leads here", o.Redirect())
}
