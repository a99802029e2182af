package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"lunboot/store"
)

// tokenPrefix marks our tokens, so that a leaked one is recognised.
const tokenPrefix = "lb_"

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// byToken says who a token is, and when it ends; the zero time is never.
func (a *Auth) byToken(ctx context.Context, token string) (Identity, time.Time) {
	if !strings.HasPrefix(token, tokenPrefix) {
		return Identity{}, time.Time{}
	}
	t, err := a.cfg.Tokens.TokenByHash(ctx, hashToken(token))
	if err != nil {
		if !store.IsNotFound(err) {
			a.cfg.Log.Error("look up a token", "error", err)
		}
		return Identity{}, time.Time{}
	}
	now := a.cfg.Now()
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return Identity{Limit: "it ran out at " + t.Expires.UTC().Format(time.DateTime) + " UTC"}, time.Time{}
	}
	scope, limit, err := a.allowed(ctx, t)
	if err != nil {
		a.cfg.Log.Error("look up a token's owner", "token", t.Name, "error", err)
		return Identity{}, time.Time{}
	}
	if scope == "" {
		return Identity{Limit: limit}, time.Time{}
	}
	if now.Sub(t.LastUsed) > time.Minute { // one write a minute is enough to answer "is it still used?"
		if err := a.cfg.Tokens.TouchToken(ctx, t.ID, now); err != nil {
			a.cfg.Log.Warn("note a token's use", "token", t.Name, "error", err)
		}
	}
	return Identity{Actor: store.Actor("token " + t.Name), Scope: scope, Token: t.ID, Owner: t.Owner, Limit: limit}, t.Expires
}

// maxTokenDays is the longest life of a token.
const maxTokenDays = 366

// CreateToken makes a token and returns its secret, which is kept nowhere. It is
// the person's who makes it, or whose token makes it; made at the appliance's own
// socket it is nobody's.
func (a *Auth) CreateToken(ctx context.Context, by store.Actor, name string, scope store.Scope, days int) (store.Token, string, error) {
	if err := store.ValidateName("name", name); err != nil {
		return store.Token{}, "", err
	}
	if days < 1 || days > maxTokenDays {
		return store.Token{}, "", store.Invalid("days", "a token lives 1 to %d days, not %d", maxTokenDays, days)
	}
	secret := tokenPrefix + store.NewSecret() + store.NewSecret()
	now, who := a.cfg.Now(), From(ctx)
	t, err := a.cfg.Tokens.CreateToken(ctx, by, store.Token{Name: name, Hash: hashToken(secret), Scope: string(scope), Created: now, Expires: now.AddDate(0, 0, days), Owner: cmp.Or(who.User, who.Owner)})
	return t, secret, err
}

// Tokens lists the tokens, each with what its owner's role takes from it.
func (a *Auth) Tokens(ctx context.Context) ([]store.Token, error) {
	all, err := a.cfg.Tokens.Tokens(ctx)
	for i := range all {
		if err == nil {
			_, all[i].Limit, err = a.allowed(ctx, all[i])
		}
	}
	return all, err
}

// allowed is what a token may do now: no more than its owner. Why it is less than
// its scope says is in words.
func (a *Auth) allowed(ctx context.Context, t store.Token) (may store.Scope, limit string, err error) {
	if t.Owner == "" {
		return store.Scope(t.Scope), "", nil
	}
	u, err := a.cfg.Users.User(ctx, t.Owner)
	if err != nil && !store.IsNotFound(err) {
		return "", "", err
	}
	its := "its owner, " + t.Owner + ", "
	switch {
	case err != nil, !u.Created.Equal(t.OwnerSince): // also where somebody else has the name now
		return "", its + "was removed", nil
	case u.Disabled:
		return "", its + "is shut out", nil
	case u.Refused:
		return "", its + "has no role at the provider any more", nil
	case u.Federated() && !a.vouches(u.Issuer):
		return "", its + "came through " + u.Issuer + ", which is no longer the provider here", nil
	case !u.Role.Scope().Allows(store.Scope(t.Scope)):
		return u.Role.Scope(), its + "is " + string(u.Role) + " now", nil
	}
	return store.Scope(t.Scope), "", nil
}

// DeleteToken ends a token at once, and what runs for it.
func (a *Auth) DeleteToken(ctx context.Context, by store.Actor, id int64) error {
	if err := a.cfg.Tokens.DeleteToken(ctx, by, id); err != nil {
		return err
	}
	a.endLives(ctx, func(l *life) bool { return l.id.Token == id })
	return nil
}
