package sqlite

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Audit returns one page of the audit log, newest first, and its length.
func (db *DB) Audit(ctx context.Context, p store.Page) ([]store.Audit, int, error) {
	limit, offset := dbfile.Page(p)
	var (
		out   []store.Audit
		total int
	)
	err := db.file.Read(ctx, func(q dbfile.Querier) (err error) {
		if total, err = dbfile.One(ctx, q, dbfile.Scalar[int], nil, "SELECT count(*) FROM audit"); err != nil {
			return err
		}
		out, err = dbfile.List(ctx, q, func(r dbfile.Row) (a store.Audit, err error) {
			var at int64
			err = r.Scan(&a.ID, &at, &a.Actor, &a.Action, &a.Subject, &a.Detail)
			a.At = dbfile.Instant(at)
			return a, err
		}, "SELECT id, at, actor, action, subject, detail FROM audit ORDER BY id DESC LIMIT ? OFFSET ?", limit, offset)
		return err
	})
	return out, total, err
}

// diff collects what changed between two states of a noun, as the audit log
// shows it. It is empty when nothing did.
type diff []string

// add notes a field that changed.
func (d *diff) add(label, old, now string) {
	switch {
	case old == now:
	case old == "":
		*d = append(*d, label+" "+now)
	case now == "":
		*d = append(*d, "no "+label+" (was "+old+")")
	default:
		*d = append(*d, label+" "+old+" → "+now)
	}
}

// flag notes a switch that changed.
func (d *diff) flag(label string, old, now bool) {
	if old != now {
		*d = append(*d, label+" "+map[bool]string{true: "on", false: "off"}[now])
	}
}

// number notes a number that changed; 0 is none.
func (d *diff) number(label string, old, now int64) {
	d.add(label, strings.TrimPrefix(fmt.Sprint(old), "0"), strings.TrimPrefix(fmt.Sprint(now), "0"))
}

// secret notes that a secret changed, and nothing of what it is.
func (d *diff) secret(label, old, now string) {
	switch {
	case old == now:
	case now == "":
		*d = append(*d, label+" removed")
	default:
		*d = append(*d, label+" set")
	}
}

// long notes that a text changed which is too long to repeat.
func (d *diff) long(label, old, now string) {
	if old != now {
		*d = append(*d, fmt.Sprintf("%s changed (%d bytes)", label, len(now)))
	}
}

func (d diff) String() string { return strings.Join(d, "; ") }

func joinMACs(macs []store.MAC) string {
	s := make([]string, len(macs))
	for i, m := range macs {
		s[i] = m.String()
	}
	return strings.Join(s, ", ")
}

func joinQuirks(quirks []store.Quirk) string {
	s := make([]string, len(quirks))
	for i, q := range quirks {
		s[i] = string(q)
	}
	return strings.Join(s, ", ")
}

// shown is a UUID's text, empty when there is none.
func shown(u store.UUID) string {
	if u.IsZero() {
		return ""
	}
	return u.String()
}

// addrShown is an address's text, empty when there is none.
func addrShown(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// addrText is an address as it is stored: NULL when there is none.
func addrText(a netip.Addr) any { return dbfile.Text(a) }

// jsonList is a list as it is stored.
func jsonList[T any](v []T) string {
	if len(v) == 0 {
		return "[]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		// Only lists of texts and addresses come here; neither can fail.
		panic(err)
	}
	return string(b)
}

// Record writes an audit row of an act that changes no row: a backup, a
// download of secrets.
func (db *DB) Record(ctx context.Context, actor store.Actor, action, subject, detail string) error {
	return db.write(ctx, "write the audit log", func(t *tx) error { return t.audit(actor, action, subject, detail) })
}
