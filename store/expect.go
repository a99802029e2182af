package store

import (
	"context"
	"fmt"
)

// Expectation is the state of a noun that somebody had before them when they
// asked for a change. It travels with the request's context to where the change
// is made, since only there nothing can come between the look and the act.
type Expectation struct {
	Noun     string // "machine", "volume"
	Key      string // what the noun's acts find it by
	Revision int64  // Absent: there is none, and it is to be made
}

// Absent is the revision of what is not there.
const Absent = 0

type expectKey struct{}

// Expecting returns a context whose acts on the noun are refused when it has
// another revision by then. Acts on other nouns, that come with the one that was
// asked for, are not touched by it.
func Expecting(ctx context.Context, e Expectation) context.Context {
	return context.WithValue(ctx, expectKey{}, e)
}

// CheckExpected refuses an act on a noun that is no longer what the one who
// asks for it saw, or is there when they saw none: KindStale. name is what people
// call it.
func CheckExpected(ctx context.Context, noun, key, name string, revision int64) error {
	e, ok := ctx.Value(expectKey{}).(Expectation)
	if !ok || e.Noun != noun || e.Key != key || e.Revision == revision {
		return nil
	}
	if e.Revision == Absent {
		return Exists(noun, name, revision)
	}
	return Stale(noun, name, revision, e.Revision)
}

// Exists says that a noun is there already that somebody wanted to make.
func Exists(noun, name string, have int64) *Error {
	return &Error{Kind: KindStale, Field: "revision", Msg: fmt.Sprintf("%s %s exists already (it has revision %d) and stays as it is; look at it, or choose another name", noun, name, have)}
}

// Stale says that somebody changed a noun meanwhile.
func Stale(noun, name string, have, seen int64) *Error {
	return &Error{Kind: KindStale, Field: "revision", Msg: fmt.Sprintf("%s %s was changed by somebody meanwhile (it has revision %d, you saw %d); look at it again", noun, name, have, seen)}
}

// Expected is the revision that a noun is expected to have, 0 when nobody said, or
// when it is expected not to be there.
func Expected(ctx context.Context, noun, key string) int64 {
	if e, ok := ctx.Value(expectKey{}).(Expectation); ok && e.Noun == noun && e.Key == key {
		return e.Revision
	}
	return 0
}
