package sqlite

import (
	"context"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// scope is a set of revisions that a change moves. The empty one is for what
// nobody waits for: web sessions, a token's last use.
type scope uint8

const (
	changed scope = 1 << iota // anything that a page shows
	masking                   // what an initiator may see
	wired                     // how the appliance takes part in its networks
	asking                    // who may ask for an address, and how they are known
	leasing                   // whose an address is, otherwise than by PutLease

	mapped   = changed | masking // a machine, a volume or a mapping
	served   = changed | wired   // a subnet or a setting
	enrolled = mapped | asking   // a machine
	barred   = changed | asking  // an unknown machine that is ignored
	released = changed | leasing // a lease that somebody took away
)

// tx is one write transaction of the inventory. Its clock stands still, so that
// every row of one change carries one time.
type tx struct {
	*dbfile.Tx
	now   time.Time
	moved scope
}

// move records that the transaction changed something.
func (t *tx) move(s scope) { t.moved |= s }

// audit writes who did what to which noun.
func (t *tx) audit(actor store.Actor, action, subject, detail string) error {
	return t.auditDiff(actor, action, subject, diff{words: []string{detail}})
}

// auditDiff writes who changed which fields of which noun, from what to what.
func (t *tx) auditDiff(actor store.Actor, action, subject string, d diff) error {
	_, err := t.Run("INSERT INTO audit (at, actor, action, subject, detail, changes) VALUES (?, ?, ?, ?, ?, ?)",
		dbfile.Nanos(t.now), string(actor), action, subject, d.String(), jsonList(d.changes))
	if err != nil {
		return err
	}
	return t.repeated(action + " " + subject)
}

// write runs fn in one transaction that is on disk when write returns nil. When
// fn or the commit fails, nothing was changed.
func (db *DB) write(ctx context.Context, op string, fn func(*tx) error) error {
	return dbfile.Explain(op, db.commit(ctx, fn))
}

func (db *DB) commit(ctx context.Context, fn func(*tx) error) error {
	x := &tx{now: db.now().UTC().Round(0)}
	err := db.file.Write(ctx, func(t *dbfile.Tx) error {
		x.Tx = t
		return fn(x)
	})
	if err != nil {
		return err
	}
	if x.moved&masking != 0 {
		db.maps.bump()
	}
	if x.moved&wired != 0 {
		db.network.bump()
	}
	if x.moved&asking != 0 {
		db.clients.bump()
	}
	if x.moved&leasing != 0 {
		db.leases.bump()
	}
	if x.moved&changed != 0 {
		db.all.bump()
	}
	return nil
}

// checkRevision refuses a change that was made on sight of an older state.
func checkRevision(noun, name string, have, given int64) error {
	if given != 0 && have == 0 {
		return store.Conflict("revision", "%s %s was removed by somebody else", noun, name)
	}
	if given != 0 && given != have {
		return store.Conflict("revision", "%s %s was changed by somebody else (revision %d, you saw %d); look at it again", noun, name, have, given)
	}
	return nil
}

// stored is a time as it comes back from the file, so that what a method
// returns is what the next one reads.
func stored(t time.Time) time.Time { return dbfile.Instant(dbfile.Nanos(t)) }
