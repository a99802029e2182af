package auth

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"lunboot/store"
)

// maxNamesakes is how many people of one name are told apart.
const maxNamesakes = 100

// SignIn begins a session for somebody whom the provider vouches for. Who comes
// for the first time is added under a name that nobody has: what a provider calls
// somebody makes them nobody else here. The role is the one that the provider's
// word gives now.
func (a *Auth) SignIn(ctx context.Context, p store.OIDCPerson) error {
	if a.Code() != "" {
		return &store.Error{Kind: store.KindDenied, Msg: "this appliance is not set up yet; the first admin has a password, and others sign in after that"}
	}
	if !a.vouches(p.Issuer) {
		return &store.Error{Kind: store.KindDenied, Msg: "an admin changed how people sign in while you did. Start the sign-in again"}
	}
	if p.Role == "" {
		return a.refuse(ctx, p)
	}
	u, err := a.cfg.Users.UserByIdentity(ctx, p.Issuer, p.Subject)
	if store.IsNotFound(err) {
		u, err = a.addFederated(ctx, p)
	}
	if err != nil {
		return err
	}
	if u.Disabled {
		return disabled(u.Name)
	}
	if u.Role != p.Role || u.KnownAs != p.KnownAs || u.Refused {
		was := u
		u.Role, u.KnownAs, u.Refused = p.Role, p.KnownAs, false
		if u, err = a.cfg.Users.UpdateUser(ctx, store.ActorProvider, u); err != nil {
			return err
		}
		if err := a.follows(ctx, was, u); err != nil {
			return err
		}
	}
	if err := a.Begin(ctx, u.Name, string(store.ActorProvider)+" ("+p.Issuer+" knows them as "+p.KnownAs+")"); err != nil {
		return err
	}
	if p.Session != "" {
		a.session.Put(ctx, sessionSID, p.Session)
	}
	// Written now and not with the answer: whoever ends logins finds it, or was noticed
	// before this looks.
	if _, _, err := a.session.Commit(ctx); err != nil {
		return err
	}
	if a.outSince(p) {
		if err := a.session.Destroy(ctx); err != nil {
			return err
		}
		return &store.Error{Kind: store.KindDenied, Msg: "the provider says that you logged out there while you signed in here. Start the sign-in again"}
	}
	if p.Hint != "" {
		a.remember(a.session.GetString(ctx, sessionID), hint{u.Name, p.Hint, a.cfg.Now().Add(federatedTime)})
	}
	return nil
}

// refuse ends every session of somebody to whom the provider's word gives no role,
// any more or at all, and says so. Their tokens are good for nothing until it gives
// one again.
func (a *Auth) refuse(ctx context.Context, p store.OIDCPerson) error {
	said := &store.Error{Kind: store.KindDenied, Msg: p.Refusal}
	u, err := a.markRefused(ctx, p)
	if store.IsNotFound(err) {
		return said
	}
	if err != nil {
		return err
	}
	if err := a.endLogins(ctx, u.Name); err != nil {
		return err
	}
	if err := a.cfg.Sessions.Record(ctx, store.ActorProvider, "user.refuse", u.Name, p.Refusal+"; their logins were ended"); err != nil {
		return err
	}
	return said
}

// maxTurns is how often a change is tried again that somebody else's came before.
const maxTurns = 8

// markRefused keeps that the provider's word gives somebody no role.
func (a *Auth) markRefused(ctx context.Context, p store.OIDCPerson) (u store.User, err error) {
	for range maxTurns {
		if u, err = a.cfg.Users.UserByIdentity(ctx, p.Issuer, p.Subject); err != nil || u.Refused {
			return u, err
		}
		u.Refused = true
		if u, err = a.cfg.Users.UpdateUser(ctx, store.ActorProvider, u); store.KindOf(err) != store.KindConflict {
			return u, err
		}
	}
	return u, err
}

// vouches reports whether an issuer is the provider's of now.
func (a *Auth) vouches(issuer string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return issuer == a.issuer
}

// EndFederated ends the logins of those whom another provider than this one
// vouched for. From its first moment nobody comes in through another, nor with a
// login that began meanwhile.
func (a *Auth) EndFederated(ctx context.Context, but string) error {
	a.mu.Lock()
	a.issuer = but
	a.mu.Unlock()
	a.forgetOf("") // what was given to the client that we were
	users, err := a.cfg.Users.Users(ctx)
	if err != nil {
		return err
	}
	for _, u := range users {
		if u.Federated() && u.Issuer != but {
			if err := a.endLogins(ctx, u.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Auth) addFederated(ctx context.Context, p store.OIDCPerson) (u store.User, err error) {
	base := userName(p.KnownAs)
	for n := 1; n <= maxNamesakes; n++ {
		name := base
		if n > 1 {
			name += "-" + strconv.Itoa(n)
		}
		u, err = a.cfg.Users.CreateUser(ctx, store.ActorProvider, store.User{Name: name, Role: p.Role, Issuer: p.Issuer, Subject: p.Subject, KnownAs: p.KnownAs})
		var taken *store.Error
		switch {
		case !errors.As(err, &taken):
			return u, err
		case taken.Field == "subject": // their other tab was faster
			return a.cfg.Users.UserByIdentity(ctx, p.Issuer, p.Subject)
		case taken.Field != "name":
			return u, err
		}
	}
	return u, err
}

// maxUserName leaves room for what tells namesakes apart.
const maxUserName = 56

// userName makes a name of what a provider calls somebody: the part of an address
// before its host, in the letters that a name may have.
func userName(knownAs string) string {
	local, _, _ := strings.Cut(strings.ToLower(knownAs), "@")
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			return r
		}
		return '-'
	}, local)
	name = strings.Trim(name[:min(len(name), maxUserName)], "-.")
	if name == "" {
		return "person"
	}
	return name
}
