package auth

import (
	"context"
	"time"

	"github.com/alexedwards/scs/v2"

	"lunboot/store"
)

// Bounds of what is remembered of those who logged out at the provider.
const (
	// outTime is longer than a sign-in may take: one that began before the logout
	// brings nobody back.
	outTime = 15 * time.Minute
	// maxOuts is how many are remembered; the oldest goes first.
	maxOuts = 4096
)

// EndFrom ends the logins of somebody who logged out at the provider, as that says
// (OpenID Connect Back-Channel Logout 1.0 §2.7): those of one session of the
// provider's where it names one, else all that they have through it. Who is not
// logged in is no fault. What their tokens may do is not touched.
func (a *Auth) EndFrom(ctx context.Context, p store.OIDCPerson) error {
	if !a.vouches(p.Issuer) {
		return nil // another took its place meanwhile, which ended everybody's
	}
	a.noteOut(p)
	rows, err := a.cfg.Sessions.WebSessions(ctx)
	if err != nil {
		return err
	}
	people, err := a.cfg.Users.Users(ctx)
	if err != nil {
		return err
	}
	theirs := map[string]bool{}
	for _, u := range people {
		theirs[u.Name] = u.Issuer == p.Issuer && (p.Subject == "" || u.Subject == p.Subject)
	}
	for _, row := range rows {
		_, values, err := scs.GobCodec{}.Decode(row.Data)
		if err != nil {
			a.cfg.Log.Warn("a session of the pages cannot be read", "error", err)
			continue
		}
		text := func(key string) string { s, _ := values[key].(string); return s }
		name, login, sid := text(sessionUser), text(sessionID), text(sessionSID)
		// One without a name was begun when the provider gave it none: of somebody whom
		// it names it may be the one.
		if !theirs[name] || p.Session != "" && sid != p.Session && (sid != "" || p.Subject == "") {
			continue
		}
		if err := a.cfg.Sessions.Delete(row.Token); err != nil {
			return err
		}
		a.forget(login)
		a.endLives(ctx, func(l *life) bool { return l.id.Login == login })
		if err := a.cfg.Sessions.Record(ctx, store.ActorProvider, "user.logout", name, "they logged out at "+p.Issuer); err != nil {
			return err
		}
	}
	return nil
}

// outKeys are what a logout is remembered by. One session's is remembered of the
// person too, where that is named: a sign-in to which the provider gives no name may
// be the one.
func outKeys(p store.OIDCPerson) []string {
	switch {
	case p.Session == "":
		return []string{"sub " + p.Subject}
	case p.Subject == "":
		return []string{"sid " + p.Session}
	}
	return []string{"sid " + p.Session, "one of " + p.Subject}
}

// noteOut remembers a logout, before it ends anything.
func (a *Auth) noteOut(p store.OIDCPerson) {
	now := a.cfg.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range outKeys(p) {
		oldest := ""
		for other, at := range a.outs {
			switch {
			case now.Sub(at) > outTime:
				delete(a.outs, other)
			case oldest == "" || at.Before(a.outs[oldest]):
				oldest = other
			}
		}
		if len(a.outs) >= maxOuts {
			delete(a.outs, oldest)
		}
		a.outs[key] = now
	}
}

// outSince reports whether the provider said of somebody who signs in that they
// logged out, after they began to: of that session, which is over for good, or of all
// of theirs.
func (a *Auth) outSince(p store.OIDCPerson) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, over := a.outs["sid "+p.Session]; over && p.Session != "" {
		return true
	}
	since := func(key string) bool {
		at, out := a.outs[key]
		return out && !p.Began.IsZero() && !at.Before(p.Began)
	}
	return since("sub "+p.Subject) || p.Session == "" && since("one of "+p.Subject)
}
