// Package store holds the nouns of the appliance: machines, volumes, mappings,
// profiles, leases, events and attempts, with the rules that make each of them
// valid.
//
// It knows nothing of SQL, sockets or files: it imports the standard library
// only, so that every other room may import it. Types that cross a border are
// comparable values (MAC, UUID, IQN, LUN, netip.Addr), never slices that alias
// a packet.
package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Actor names who made a change. It is written to the audit row of every
// change, in the same transaction.
type Actor string

// Actors that are not people.
const (
	ActorSystem     Actor = "system"      // the appliance itself (a lease, a state change)
	ActorSocket     Actor = "local root"  // a CLI on the unix socket, known by peer credentials
	ActorFlag       Actor = "flag"        // a value that a command-line flag set
	ActorAutoEnroll Actor = "auto-enroll" // a rule of the operator's that enrolls machines by themselves
	// ActorProvider is the OpenID Connect provider, which decides about those who
	// sign in through it. No user can have the name.
	ActorProvider Actor = "OpenID Connect"
)

// Audit is one line of the audit log: who changed what, when, and to what.
type Audit struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Actor   Actor     `json:"actor"`
	Action  string    `json:"action"`  // "machine.create", "mapping.delete"
	Subject string    `json:"subject"` // the noun's name at that time
	Detail  string    `json:"detail"`  // what changed, without secrets
	// Changes are the fields that changed, where the act was a change of fields.
	Changes []FieldChange `json:"changes,omitempty"`
}

// FieldChange is one field of a noun before and after a change. An empty text is
// no value. Of a secret it says only whether there is one.
type FieldChange struct {
	Field  string `json:"field"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Quiet reports a change that lists leave out: each volume that is made becomes
// ready, which nobody did.
func (a Audit) Quiet() bool {
	return a.Actor == ActorSystem && a.Action == "volume.update" && a.Detail == BecameReady
}

// BecameReady is the detail of such a change.
const BecameReady = "state creating → ready"

// PassingActs are the acts on a noun that leave it as it is, by what they are called
// in the audit log: they are on record, and move no revision.
func PassingActs() []string {
	return []string{"machine.wake", "machine.power", "user.login", "user.logout", "user.refuse"}
}

// AuditFilter narrows the audit log. Empty fields match all.
type AuditFilter struct {
	Actor   Actor
	Noun    string // what an action begins with: "machine", "mapping"
	Subject string
	Search  Search // with the qualifiers of AuditKeys, as ParseAuditSearch leaves them
	Since   time.Time
	Until   time.Time // not itself
	// Moved asks for the acts that moved the noun's revision, and for all of these:
	// also for what the appliance did by itself and lists do not show. Of a volume
	// it means those on its snapshots and versions too.
	Moved bool
	Sort  string // one of AuditColumns, with a hyphen before it the other way; empty: newest first
	Page
}

// Parts reads what was found a part at a time; a part without anything is the end.
type Parts[T any] func(context.Context) ([]T, error)

// Page bounds a listing. A zero Limit means no bound.
type Page struct {
	Limit  int
	Offset int
}

// ValidateName checks a name of a volume or profile: 1–63 characters of
// [a-z0-9.-] that begin and end with a letter or digit.
func ValidateName(field, name string) error {
	if name == "" {
		return Invalid(field, "a name is needed: letters, digits, dots and hyphens")
	}
	if len(name) > 63 {
		return Invalid(field, "%q is %d characters long, 63 are allowed", name, len(name))
	}
	for i, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if i > 0 && i < len(name)-1 {
			ok = ok || r == '-' || r == '.'
		}
		if !ok {
			return Invalid(field, "%q has %q at position %d; use lower-case letters, digits, dots and hyphens, and begin and end with a letter or digit", name, r, i+1)
		}
	}
	return nil
}

// ValidateHostname checks a machine's name: one DNS label (RFC 1123 §2.1),
// 1–63 characters of [a-z0-9-] that begin and end with a letter or digit.
func ValidateHostname(name string) error {
	if err := ValidateName("name", name); err != nil {
		return err
	}
	if strings.Contains(name, ".") {
		return Invalid("name", "%q has a dot; a machine's name is one DNS label, such as lab-03", name)
	}
	return nil
}

// validateText bounds free text: valid UTF-8 without control characters other
// than line ends and tabs.
func validateText(field, s string, limit int) error {
	if len(s) > limit {
		return Invalid(field, "the text has %d bytes, %d are allowed", len(s), limit)
	}
	if !utf8.ValidString(s) {
		return Invalid(field, "the text is not valid UTF-8")
	}
	for i, r := range s {
		if r < 0x20 && r != '\n' && r != '\t' && r != '\r' || r == 0x7f {
			return Invalid(field, "the text has a control character (0x%02x) at byte %d", r, i)
		}
	}
	return nil
}

// joinFields returns the errors as one, nil when there is none.
func joinFields(errs ...error) error { return errors.Join(errs...) }

// Bytes prints a size in binary units, as people write it: "8 GiB", "512 B".
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	// From 1023.95 on, one decimal would print 1024.0 of a unit.
	for v >= unit-0.05 && i < 5 {
		v /= unit
		i++
	}
	s := fmt.Sprintf("%.1f", v)
	return strings.TrimSuffix(s, ".0") + " " + [...]string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}[i]
}

// ParseBytes reads a size: a whole number of bytes, or one with a unit K, M,
// G, T (also KiB, MB and so on; all units are powers of 1024).
func ParseBytes(s string) (int64, error) {
	bad := Invalid("size", "%q is not a size; write bytes or a whole number with K, M, G or T, such as 8G", s)
	t := strings.TrimSpace(s)
	end := strings.IndexFunc(t, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(t)
	}
	var shift int
	switch strings.ToUpper(strings.TrimSpace(t[end:])) {
	case "", "B":
	case "K", "KB", "KIB":
		shift = 10
	case "M", "MB", "MIB":
		shift = 20
	case "G", "GB", "GIB":
		shift = 30
	case "T", "TB", "TIB":
		shift = 40
	default:
		return 0, bad
	}
	if end == 0 {
		return 0, bad
	}
	n, err := strconv.ParseInt(t[:end], 10, 64)
	if err != nil || n > (1<<62)>>shift {
		return 0, Invalid("size", "%q is larger than any volume can be", s)
	}
	return n << shift, nil
}
