package auth

import "time"

// maxHints is how many logins have a hint, of 6 KiB at most each; the one that ends
// first goes first.
const maxHints = 1024

// hint is what the provider gave for somebody to be logged out there by. It is an ID
// token: no key to anything here, but it tells who they are, and is as long as their
// groups are many. So it is kept in memory alone, as long as the login: it is in no
// row that is written with each page, and in no backup. Whoever logs out after a
// restart is logged out there without it.
type hint struct {
	user, token string
	until       time.Time
}

// remember keeps a hint for a login.
func (a *Auth) remember(login string, h hint) {
	now := a.cfg.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	soonest := ""
	for id, other := range a.hints {
		switch {
		case !now.Before(other.until):
			delete(a.hints, id)
		case soonest == "" || other.until.Before(a.hints[soonest].until):
			soonest = id
		}
	}
	if len(a.hints) >= maxHints {
		delete(a.hints, soonest)
	}
	a.hints[login] = h
}

// forget returns the hint of a login that ends, empty when there is none.
func (a *Auth) forget(login string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.hints[login]
	delete(a.hints, login)
	if !a.cfg.Now().Before(h.until) {
		return ""
	}
	return h.token
}

// forgetOf forgets the hints of a person; of everybody for none.
func (a *Auth) forgetOf(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, h := range a.hints {
		if name == "" || h.user == name {
			delete(a.hints, id)
		}
	}
}
