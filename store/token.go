package store

import "time"

// Token is a bearer token of the API. Only its hash is kept: whoever reads the
// inventory's file cannot use it.
type Token struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	Hash     string    `json:"-"`     // of the token's text, which is shown once and never stored
	Scope    string    `json:"scope"` // "read", "operate" or "admin"
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`   // the zero time never expires
	LastUsed time.Time `json:"last_used"` // the zero time was never used
	// Owner is the person whose it is, who may do at least what it may; empty:
	// nobody's, as one that was made at the appliance's own socket.
	Owner string `json:"owner"`
	// OwnerSince is when they were added: it tells them from somebody who has their
	// name after them.
	OwnerSince time.Time `json:"-"`
	// Limit is why it may do less than its scope says, or nothing, because of its
	// owner; empty when it may do all of it. It is not kept.
	Limit string `json:"limit"`
}

// Validate checks the token's own fields.
func (t *Token) Validate() error {
	var errs []error
	if t.Name == "" {
		errs = append(errs, Invalid("name", "a token needs a name that says who uses it"))
	}
	errs = append(errs, validateText("name", t.Name, 128))
	if t.Hash == "" {
		errs = append(errs, Invalid("hash", "a token needs its hash"))
	}
	switch t.Scope {
	case "read", "operate", "admin":
	default:
		errs = append(errs, Invalid("scope", "%q is not a scope; choose read, operate or admin", t.Scope))
	}
	return joinFields(errs...)
}
