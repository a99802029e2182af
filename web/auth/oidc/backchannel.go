package oidc

import (
	"context"
	"crypto"
	"encoding/json"
	"slices"
	"strings"
	"time"

	rp "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"lunboot/store"
)

// Bounds of what a provider tells of logouts.
const (
	// logoutAge is how long ago a logout may have been told: the provider sends it at
	// once, and what was told is remembered as long, so that it is good once.
	logoutAge = 10 * time.Minute
	// maxHeard is how many are remembered; the oldest goes first.
	maxHeard = 4096
	// maxHearing is how many are looked into at a time: the provider may have to be
	// asked for its keys.
	maxHearing = 4
	// signersAge is how long those keys are believed. A key that is new, or was taken
	// back, is that for logouts so much later.
	signersAge = 10 * time.Second
	// maxWord is the longest token that is read; they name one person.
	maxWord = 16 << 10
	// maxID is the longest name of a session or of a token.
	maxID = 255
)

// logoutEvent is what a logout token is told by (OpenID Connect Back-Channel Logout
// 1.0 §2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutWord is what a logout token says.
type logoutWord struct {
	Iss    string                     `json:"iss"`
	Aud    json.RawMessage            `json:"aud"`
	Iat    *float64                   `json:"iat"`
	Exp    *float64                   `json:"exp"`
	Nbf    *float64                   `json:"nbf"`
	Jti    string                     `json:"jti"`
	Sub    string                     `json:"sub"`
	Sid    string                     `json:"sid"`
	Events map[string]json.RawMessage `json:"events"`
	Nonce  json.RawMessage            `json:"nonce"`
}

// Logout reads a logout token, with which the provider says itself that somebody
// logged out there (OpenID Connect Back-Channel Logout 1.0 §2.6), and has end what it
// is about: everything of a subject, or one session of the provider's. Anybody may
// send one, so it is looked at closely before the provider is asked for its keys. It
// is good once, unless what it is about could not be ended.
func (c *Client) Logout(ctx context.Context, raw string, end func(context.Context, store.OIDCPerson) error) error {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	o, err := c.cfg.Rows.OIDC(ctx)
	if err != nil {
		return err
	}
	if o.IsZero() {
		return c.unheard(denied(nil, "signing in through a provider is not set up here"))
	}
	word, said, err := c.readLogout(o, raw)
	if err != nil {
		return c.unheard(err)
	}
	select {
	case c.hearing <- struct{}{}:
		defer func() { <-c.hearing }()
	case <-ctx.Done():
		return c.unheard(unavailable(ctx.Err(), "too many logouts are told at a time; tell this one again"))
	}
	if err := c.signed(ctx, o, raw, word); err != nil {
		return c.unheard(err)
	}
	told, err := c.cfg.Rows.LogoutTold(ctx, o.Issuer, said.Jti)
	if err != nil {
		return err
	}
	if told || !c.hear(said.Jti) {
		return c.unheard(denied(nil, "this logout was told before (jti)"))
	}
	if err := end(ctx, store.OIDCPerson{Issuer: o.Issuer, Subject: said.Sub, Session: said.Sid}); err != nil {
		c.unhear(said.Jti)
		return err
	}
	// Afterwards: one that was cut off by the end of the appliance is told again.
	if err := c.cfg.Rows.KeepLogout(context.WithoutCancel(ctx), o.Issuer, said.Jti, c.cfg.Now().Add(logoutAge+2*skew)); err != nil {
		c.cfg.Log.Error("remember a logout that the provider told of", "error", err)
	}
	return nil
}

// readLogout checks what can be checked without asking anybody.
func (c *Client) readLogout(o store.OIDC, raw string) (*jose.JSONWebSignature, logoutWord, error) {
	var said logoutWord
	if raw == "" || len(raw) > maxWord {
		return nil, said, denied(nil, "a logout token is missing, or longer than %d KiB", maxWord>>10)
	}
	word, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil || len(word.Signatures) != 1 {
		return nil, said, denied(err, "that is no logout token that is signed by a key of the provider's alone")
	}
	// ibid. §2.4: by its type a token of another kind is told from this one, where it
	// has one.
	typ, _ := word.Signatures[0].Header.ExtraHeaders[jose.HeaderType].(string)
	if typ = strings.TrimPrefix(strings.ToLower(typ), "application/"); typ != "" && typ != "jwt" && typ != "logout+jwt" {
		return nil, said, denied(nil, "a token of the type %q is no logout token", words(typ))
	}
	if err := json.Unmarshal(word.UnsafePayloadWithoutVerification(), &said); err != nil {
		return nil, said, denied(err, "what the logout token says cannot be read")
	}
	return word, said, c.checkLogout(o, said)
}

func (c *Client) checkLogout(o store.OIDC, said logoutWord) error {
	now := c.cfg.Now()
	at := func(seconds *float64) time.Time { return time.Unix(int64(*seconds), 0) }
	var about map[string]any
	switch {
	case said.Iss != o.Issuer:
		return denied(nil, "the logout token is of another issuer, %q", words(said.Iss))
	case !slices.Contains(audience(said.Aud), o.ClientID):
		return denied(nil, "the logout token is for somebody else (aud)")
	case said.Iat == nil || said.Exp == nil:
		return denied(nil, "the logout token does not say from when to when it is good (iat, exp)")
	case at(said.Iat).After(now.Add(skew)) || said.Nbf != nil && at(said.Nbf).After(now.Add(skew)):
		return denied(nil, "the logout token is good from %s, and it is %s here: one of the two clocks is wrong", at(said.Iat).UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	case now.After(at(said.Exp).Add(skew)) || now.After(at(said.Iat).Add(logoutAge)):
		return denied(nil, "the logout token is too old: it is of %s, and it is %s here", at(said.Iat).UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	case said.Jti == "" || len(said.Jti) > maxID:
		return denied(nil, "the logout token has no name of its own (jti), of %d characters at most", maxID)
	case said.Nonce != nil: // so that no ID token is taken for one
		return denied(nil, "a token with a nonce is no logout token")
	case json.Unmarshal(said.Events[logoutEvent], &about) != nil || about == nil:
		return denied(nil, "the token does not say that it is about a logout (events)")
	case said.Sub == "" && said.Sid == "":
		return denied(nil, "the logout token does not say who logged out (sub, sid)")
	case len(said.Sub) > maxSubject || len(said.Sid) > maxID:
		return denied(nil, "the logout token names somebody by more than %d characters", maxSubject)
	}
	return nil
}

// audience reads for whom a token is: one, or several (RFC 7519 §4.1.3).
func audience(raw json.RawMessage) (out []string) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	if json.Unmarshal(raw, &out) != nil {
		return nil
	}
	return out
}

// signers are what the provider's logouts may be signed by.
type signers struct {
	issuer string
	algs   []string
	keys   []crypto.PublicKey
	at     time.Time // when the provider said so
}

// signed checks the signature.
func (c *Client) signed(ctx context.Context, o store.OIDC, raw string, word *jose.JSONWebSignature) error {
	by, err := c.signersOf(ctx, o)
	if err != nil {
		return err
	}
	if alg := word.Signatures[0].Header.Algorithm; !slices.Contains(by.algs, alg) {
		return denied(nil, "%s does not say that it signs by %s", o.Name, words(alg))
	}
	if _, err := (&rp.StaticKeySet{PublicKeys: by.keys}).VerifySignature(ctx, raw); err != nil {
		return denied(err, "the logout token is not signed by %s", o.Name)
	}
	return nil
}

// signersOf asks the provider by what it signs, or knows it from just now: what looks
// like a logout is anybody's to send, and must not have it asked as often.
func (c *Client) signersOf(ctx context.Context, o store.OIDC) (signers, error) {
	c.mu.Lock()
	known := c.signers
	c.mu.Unlock()
	if age := c.cfg.Now().Sub(known.at); known.issuer == o.Issuer && age >= 0 && age < signersAge {
		return known, nil
	}
	p, err := c.dial(o)
	if err != nil {
		return signers{}, err
	}
	defer p.close()
	if err := p.discover(ctx); err != nil {
		return signers{}, err
	}
	keys, err := p.keys(ctx)
	if err != nil {
		return signers{}, err
	}
	fresh := signers{issuer: o.Issuer, algs: p.signs(), keys: keys, at: c.cfg.Now()}
	c.mu.Lock()
	c.signers = fresh
	c.mu.Unlock()
	return fresh, nil
}

// hear remembers a token by its name, and reports whether it was new.
func (c *Client) hear(jti string) bool {
	now := c.cfg.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, before := c.heard[jti]; before {
		return false
	}
	oldest := ""
	for id, at := range c.heard {
		switch {
		case now.Sub(at) > logoutAge+skew:
			delete(c.heard, id)
		case oldest == "" || at.Before(c.heard[oldest]):
			oldest = id
		}
	}
	if len(c.heard) >= maxHeard {
		delete(c.heard, oldest)
	}
	c.heard[jti] = now
	return true
}

func (c *Client) unhear(jti string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.heard, jti)
}

// unheard logs why a logout that was told ended nothing.
func (c *Client) unheard(err error) error {
	c.cfg.Log.Warn("a logout that was told of ended nothing", "error", err, "cause", cause(err))
	return err
}
