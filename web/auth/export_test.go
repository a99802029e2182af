package auth

import "time"

// Hints is how many hints are kept.
func (a *Auth) Hints() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.hints)
}

// Remember keeps a hint.
func (a *Auth) Remember(login, user, token string, until time.Time) {
	a.remember(login, hint{user, token, until})
}

// Forget forgets one.
func (a *Auth) Forget(login string) string { return a.forget(login) }
