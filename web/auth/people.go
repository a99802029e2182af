package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"lunboot/store"
)

// newID names a session in lists. Whoever knows it can do nothing with it.
func newID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// hash hashes a password when few others do.
func (a *Auth) hash(ctx context.Context, password string) (hash string, err error) {
	err = a.costly(ctx, func() (err error) {
		hash, err = HashPassword(password)
		return err
	})
	return hash, err
}

// Users lists the people who may log in.
func (a *Auth) Users(ctx context.Context) ([]store.User, error) { return a.cfg.Users.Users(ctx) }

// User returns one of them.
func (a *Auth) User(ctx context.Context, name string) (store.User, error) {
	return a.cfg.Users.User(ctx, name)
}

// AddUser adds a person. The first one ends the first run.
func (a *Auth) AddUser(ctx context.Context, by store.Actor, name string, role store.Role, password string) (store.User, error) {
	// What is cheap to refuse is refused before the hashing.
	probe := store.User{Name: name, Role: role, Hash: "x"}
	if err := probe.Validate(); err != nil {
		return store.User{}, err
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return store.User{}, err
	}
	u, err := a.cfg.Users.CreateUser(ctx, by, store.User{Name: name, Role: role, Hash: hash})
	if err != nil {
		return store.User{}, err
	}
	a.mu.Lock()
	a.code = ""
	a.mu.Unlock()
	return u, nil
}

// SetUser changes what a person may do and whether they may log in, at once, also
// for what runs.
func (a *Auth) SetUser(ctx context.Context, by store.Actor, name string, p store.UserPatch) (store.User, error) {
	u, err := a.cfg.Users.User(ctx, name)
	if err != nil {
		return store.User{}, err
	}
	was := u
	if p.Role != nil && *p.Role != u.Role {
		if u.Federated() {
			return store.User{}, store.Conflict("role", "%s has the role that the provider's word gives, anew at each sign-in; change the rules under Settings, Single sign-on", name)
		}
		u.Role = *p.Role
	}
	if p.Disabled != nil {
		u.Disabled = *p.Disabled
	}
	u.Revision = cmp.Or(p.Revision, u.Revision)
	if u, err = a.cfg.Users.UpdateUser(ctx, by, u); err != nil {
		return store.User{}, err
	}
	return u, a.follows(ctx, was, u)
}

// follows ends what a person may no longer do.
func (a *Auth) follows(ctx context.Context, was, now store.User) error {
	if now.Disabled && !was.Disabled {
		return a.endLogins(ctx, now.Name)
	}
	if may := now.Role.Scope(); !may.Allows(was.Role.Scope()) {
		a.endLives(ctx, func(l *life) bool {
			return l.id.User == now.Name || l.id.Owner == now.Name && !may.Allows(l.id.Scope)
		})
	}
	return nil
}

// endLogins ends every session of a person, and what runs for them and for their
// tokens.
func (a *Auth) endLogins(ctx context.Context, name string) error {
	defer a.endLives(ctx, func(l *life) bool { return l.id.User == name || l.id.Owner == name })
	a.forgetOf(name)
	rows, err := a.cfg.Sessions.WebSessions(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		_, values, err := scs.GobCodec{}.Decode(row.Data)
		if who, _ := values[sessionUser].(string); err == nil && who == name {
			if err := a.cfg.Sessions.Delete(row.Token); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetPassword sets a person's password, which ends every session of theirs. On
// an appliance that has nobody yet it adds them as the first admin.
func (a *Auth) SetPassword(ctx context.Context, by store.Actor, name, password string) error {
	u, err := a.cfg.Users.User(ctx, name)
	if store.IsNotFound(err) && a.Code() != "" {
		_, err = a.AddUser(ctx, by, name, store.RoleAdmin, password)
		return err
	}
	if err != nil {
		return err
	}
	if u.Federated() {
		return store.Conflict("password", "%s signs in through %s and has no password here", name, u.Issuer)
	}
	if err := store.CheckExpected(ctx, "user", name, name, u.Revision); err != nil {
		return err // also of who is there now, and was not when somebody looked
	}
	if u.Hash, err = a.hash(ctx, password); err != nil {
		return err
	}
	u.Revision = cmp.Or(store.Expected(ctx, "user", name), u.Revision)
	if _, err = a.cfg.Users.UpdateUser(ctx, by, u); err != nil {
		return err
	}
	a.endLives(ctx, func(l *life) bool { return l.id.User == name })
	return nil
}

// ChangePassword is SetPassword by the person themselves, who proves that they
// know the old one.
func (a *Auth) ChangePassword(ctx context.Context, name, old, password string) error {
	u, err := a.cfg.Users.User(ctx, name)
	if err != nil {
		return err
	}
	fits := false
	if err := a.costly(ctx, func() error { fits = CheckPassword(u.Hash, old); return nil }); err != nil {
		return err
	}
	if !fits {
		return &store.Error{Kind: store.KindDenied, Field: "old", Msg: "the present password does not fit"}
	}
	return a.SetPassword(ctx, store.Actor(name), name, password)
}

// RemoveUser removes a person, and ends what runs for them. A revision that is
// not zero must be the present one.
func (a *Auth) RemoveUser(ctx context.Context, by store.Actor, name string, revision int64) error {
	if err := a.cfg.Users.DeleteUser(ctx, by, name, revision); err != nil {
		return err
	}
	return a.endLogins(ctx, name)
}

// Logins lists the sessions that are good, the newest use first. An empty user
// lists everybody's.
func (a *Auth) Logins(ctx context.Context, user string) ([]store.Login, error) {
	out := []store.Login{}
	err := a.eachLogin(ctx, func(_ string, l store.Login) error {
		if user == "" || l.User == user {
			out = append(out, l)
		}
		return nil
	})
	slices.SortFunc(out, func(x, y store.Login) int {
		return cmp.Or(y.Used.Compare(x.Used), cmp.Compare(x.ID, y.ID))
	})
	return out, err
}

// EndLogin ends a session at once, and what runs for it. An empty user may end
// anybody's.
func (a *Auth) EndLogin(ctx context.Context, user, id string) error {
	ended := false
	err := a.eachLogin(ctx, func(token string, l store.Login) error {
		if l.ID != id || user != "" && l.User != user {
			return nil
		}
		ended = true
		return a.cfg.Sessions.Delete(token)
	})
	if err != nil {
		return err
	}
	if !ended {
		return store.NotFound("login", id)
	}
	a.forget(id)
	a.endLives(ctx, func(l *life) bool { return l.id.Login == id })
	return nil
}

// eachLogin calls fn for every session that is good.
func (a *Auth) eachLogin(ctx context.Context, fn func(token string, l store.Login) error) error {
	rows, err := a.cfg.Sessions.WebSessions(ctx)
	if err != nil {
		return err
	}
	people, err := a.cfg.Users.Users(ctx)
	if err != nil {
		return err
	}
	byName := map[string]store.User{}
	for _, u := range people {
		byName[u.Name] = u
	}
	mine := From(ctx).Login
	for _, row := range rows {
		deadline, values, err := scs.GobCodec{}.Decode(row.Data)
		if err != nil {
			a.cfg.Log.Warn("a session of the pages cannot be read", "error", err)
			continue
		}
		text := func(key string) string { s, _ := values[key].(string); return s }
		l := store.Login{ID: text(sessionID), User: text(sessionUser), From: text(sessionFrom), Agent: text(sessionAgent), Expires: row.Expires}
		u, known := byName[l.User]
		if l.ID == "" || !known || !sameProof(text(sessionProof), u) {
			continue
		}
		if began, ok := values[sessionBegan].(int64); ok {
			l.Began = time.Unix(0, began).UTC()
		}
		// A use moves the end to a week after it, but not past the deadline.
		l.Used = l.Began
		if used := row.Expires.Add(-idleTime); used.After(l.Began) && row.Expires.Before(deadline) {
			l.Used = used
		}
		if n, ok := values[sessionUntil].(int64); ok {
			until := time.Unix(0, n).UTC()
			if !a.cfg.Now().Before(until) {
				continue
			}
			if until.Before(l.Expires) {
				l.Expires = until
			}
		}
		l.Current = l.ID == mine
		if err := fn(row.Token, l); err != nil {
			return err
		}
	}
	return nil
}
