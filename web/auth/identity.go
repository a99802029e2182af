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

// Identity is who a request comes from. An empty Scope may do nothing.
type Identity struct {
	Actor store.Actor
	Scope store.Scope
	// Local is whoever came through the appliance's own socket: root or the
	// group's, who may import what the appliance may read.
	Local bool
	User  string // the person's name, empty for a token and for the socket
	Login string // the name of their session
	Token int64  // the token's number
	Owner string // the person whose token it is; empty when it is nobody's
	// Limit is why a token may do less than its scope says, or nothing; empty when it
	// may do all of it, and for what is no token that is known.
	Limit string
}

// May reports whether the identity may do what need asks for.
func (id Identity) May(need store.Scope) bool { return id.Scope.Allows(need) }

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
