package store

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what sort of failure an Error is, so that every edge can map it
// once: to an HTTP status, a TFTP code, sense data or an exit code.
type Kind uint8

// The closed list of kinds. The zero Kind is KindInternal's meaning: loud.
const (
	KindUnknown     Kind = iota
	KindNotFound         // the noun does not exist; the only kind that may read as "unknown machine"
	KindConflict         // another noun is in the way, or the revision is stale
	KindInvalid          // the input breaks a rule; nothing was changed
	KindInUse            // the noun is held by something that must let go first
	KindUnavailable      // a condition that can pass: disk full, busy, starting
	KindDenied           // the caller may not
	KindCorrupt          // stored bytes are damaged
	KindInternal         // a broken assumption of ours
	KindStale            // the noun is no longer what the caller saw and named
)

func (k Kind) String() string {
	switch k {
	case KindNotFound:
		return "not found"
	case KindConflict:
		return "conflict"
	case KindInvalid:
		return "invalid"
	case KindInUse:
		return "in use"
	case KindUnavailable:
		return "unavailable"
	case KindDenied:
		return "denied"
	case KindCorrupt:
		return "corrupt"
	case KindInternal:
		return "internal"
	case KindStale:
		return "stale"
	}
	return "unknown"
}

// Error says what happened, to what, and, in Msg, what the operator can do.
type Error struct {
	Kind    Kind
	Op      string // what was tried: "map volume"
	Subject string // to what: the noun's name
	Field   string // the input field at fault, when there is one
	Line    int    // of its text, from 1, when one line is at fault
	Msg     string // one sentence for the operator; no secrets
	Cause   Cause  // for rules; empty where nobody asks
	Err     error  // what lies behind it, for the log
}

// Error returns the operator's sentence, then the cause.
func (e *Error) Error() string {
	var parts []string
	if e.Op != "" {
		op := e.Op
		if e.Subject != "" {
			op += " " + e.Subject
		}
		parts = append(parts, op)
	}
	if e.Msg != "" {
		parts = append(parts, e.Msg)
	} else if e.Err == nil {
		parts = append(parts, e.Kind.String())
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first *Error in err's chain, KindInternal for
// any other error and KindUnknown for nil.
func KindOf(err error) Kind {
	if err == nil {
		return KindUnknown
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// CauseOf returns the cause that lies deepest in err's chain; empty when none is
// told. What wraps an error knows less of it.
func CauseOf(err error) Cause {
	var cause Cause
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Cause != "" {
			cause = e.Cause
		}
	}
	return cause
}

// IsNotFound reports whether err says that a noun does not exist.
func IsNotFound(err error) bool { return KindOf(err) == KindNotFound }

// Invalid is an Error about one input field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// NotFound is an Error that names the noun and how it was looked for.
func NotFound(noun, key string) *Error {
	return &Error{Kind: KindNotFound, Msg: fmt.Sprintf("there is no %s %q", noun, key)}
}

// Conflict is an Error about another noun that is in the way.
func Conflict(field, format string, args ...any) *Error {
	return &Error{Kind: KindConflict, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// InUse is an Error about a noun that something still holds.
func InUse(format string, args ...any) *Error {
	return &Error{Kind: KindInUse, Msg: fmt.Sprintf(format, args...)}
}
