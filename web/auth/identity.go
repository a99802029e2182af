// Package auth says who a request comes from and what they may do: people by a
// session cookie, scripts by a bearer token, and the CLI of the same machine by
// the peer credentials of the unix socket.
//
// It knows nothing of pages or of the API's nouns.
package auth

import (
	"context"

	"lunboot/store"
)

// Scope is what an identity may do; each scope includes those before it.
type Scope uint8

// The scopes, rising.
const (
	ScopeNone    Scope = iota
	ScopeRead          // look at everything but secrets
	ScopeOperate       // enroll, map, boot, create and import volumes
	ScopeAdmin         // users, tokens, settings, secrets
)

// String prints the name that tokens carry.
func (s Scope) String() string {
	switch s {
	case ScopeRead:
		return "read"
	case ScopeOperate:
		return "operate"
	case ScopeAdmin:
		return "admin"
	}
	return "none"
}

// ParseScope reads a scope's name.
func ParseScope(s string) (Scope, error) {
	for _, v := range []Scope{ScopeRead, ScopeOperate, ScopeAdmin} {
		if v.String() == s {
			return v, nil
		}
	}
	return ScopeNone, store.Invalid("scope", "%q is not a scope; choose read, operate or admin", s)
}

// Identity is who a request comes from.
type Identity struct {
	Actor store.Actor
	Scope Scope
}

type contextKey struct{}

// With returns a context that carries id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// From returns the identity in ctx; the zero Identity may do nothing.
func From(ctx context.Context) Identity {
	id, _ := ctx.Value(contextKey{}).(Identity)
	return id
}
