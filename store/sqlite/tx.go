package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"

	"lunboot/store"
)

// scope says which revisions a change moves.
type scope uint8

const (
	quiet   scope = iota // nothing that others wait for: web sessions, a token's last use
	changed              // anything that a page shows
	mapped               // what an initiator may see
)

// tx is one write transaction. Its clock stands still, so that every row of one
// change carries one time.
type tx struct {
	*sql.Tx
	ctx   context.Context
	now   time.Time
	moved scope
}

// move records that the transaction changed something.
func (t *tx) move(s scope) { t.moved = max(t.moved, s) }

// run executes one statement.
func (t *tx) run(query string, args ...any) (rows int64, err error) {
	r, err := t.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// insert executes one INSERT and returns the new row's id.
func (t *tx) insert(query string, args ...any) (id int64, err error) {
	r, err := t.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// audit writes who did what to which noun.
func (t *tx) audit(actor store.Actor, action, subject, detail string) error {
	_, err := t.run("INSERT INTO audit (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)",
		nanos(t.now), string(actor), action, subject, detail)
	return err
}

// write runs fn in one transaction that is on disk when write returns nil. When
// fn or the commit fails, nothing was changed.
func (db *DB) write(ctx context.Context, op string, fn func(*tx) error) error {
	moved, err := writeFile(ctx, &db.file, db.now(), fn)
	if err != nil {
		return explain(op, err)
	}
	db.wake(moved)
	return nil
}

// wake moves the revisions after a commit.
func (db *DB) wake(moved scope) {
	if moved >= mapped {
		db.maps.bump()
	}
	if moved >= changed {
		db.all.bump()
	}
}

func writeFile(ctx context.Context, f *file, now time.Time, fn func(*tx) error) (scope, error) {
	t, err := f.w.BeginTx(ctx, nil)
	if err != nil {
		return quiet, err
	}
	x := &tx{Tx: t, ctx: ctx, now: now.UTC().Round(0)}
	if err := fn(x); err != nil {
		if rerr := t.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
		return quiet, err
	}
	return x.moved, t.Commit()
}

// explain gives an error from below its kind and a sentence that an operator
// can act on. An error that has a kind keeps it.
func explain(op string, err error) error {
	if err == nil {
		return nil
	}
	var ours *store.Error
	if errors.As(err, &ours) {
		return err
	}
	e := &store.Error{Kind: store.KindInternal, Op: op, Err: err}
	var lite sqlite3.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = store.KindUnavailable
	case errors.Is(err, sql.ErrConnDone):
		e.Kind, e.Msg = store.KindUnavailable, "the inventory is closed"
	case errors.Is(err, syscall.ENOSPC), errors.As(err, &lite) && lite.Code == sqlite3.ErrFull:
		e.Kind, e.Msg = store.KindUnavailable, "the disk that holds the inventory is full; free some space"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Kind, e.Msg = store.KindDenied, "lunboot may not use the data folder; give it to the user that lunboot runs as"
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		e.Kind, e.Msg = store.KindNotFound, "there is no such folder"
	case lite.Code == sqlite3.ErrBusy, lite.Code == sqlite3.ErrLocked:
		e.Kind, e.Msg = store.KindUnavailable, "another program holds the inventory's file; end it and try again"
	case lite.Code == sqlite3.ErrReadonly, lite.Code == sqlite3.ErrCantOpen, lite.Code == sqlite3.ErrIoErr:
		e.Kind, e.Msg = store.KindUnavailable, "the inventory's file cannot be written; look at the disk and the file's mode"
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		e.Kind, e.Msg = store.KindCorrupt, "the inventory's file is damaged; put back a backup of it"
	case lite.ExtendedCode == sqlite3.ErrConstraintUnique, lite.ExtendedCode == sqlite3.ErrConstraintPrimaryKey:
		e.Kind = store.KindConflict
	}
	return e
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// row is what a scan function reads from.
type row interface{ Scan(dest ...any) error }

// list reads every row of a query. It returns an empty slice, never nil.
func list[T any](ctx context.Context, q querier, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain("read", err)
	}
	defer rows.Close()
	out := make([]T, 0)
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, explain("read", err)
		}
		out = append(out, v)
	}
	return out, explain("read", rows.Err())
}

// one reads the first row of a query; missing is the error when there is none.
func one[T any](ctx context.Context, q querier, scan func(row) (T, error), missing *store.Error, query string, args ...any) (T, error) {
	v, err := scan(q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		var zero T
		return zero, missing
	}
	return v, explain("read", err)
}

// scanOne reads a row of one column.
func scanOne[T any](r row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

// page returns the LIMIT and OFFSET of a listing; SQLite reads a negative limit
// as none.
func page(p store.Page) (limit, offset int) {
	limit = p.Limit
	if limit <= 0 {
		limit = -1
	}
	return limit, max(p.Offset, 0)
}

// nanos is a time as it is stored: nanoseconds since 1970, 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// instant is the time that nanos stored.
func instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// text is a value's text, or NULL when it is the zero value, so that a unique
// index lets many nouns have none.
func text[T interface {
	comparable
	fmt.Stringer
}](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v.String()
}

// id is a number that refers to a noun, or NULL when it is 0.
func id[T ~int64](v T) any {
	if v == 0 {
		return nil
	}
	return int64(v)
}

// parseText reads what text stored.
func parseText[T any](s sql.NullString, parse func(string) (T, error)) (T, error) {
	if !s.Valid {
		var zero T
		return zero, nil
	}
	return parse(s.String)
}

// checkRevision refuses a change that was made on sight of an older state.
func checkRevision(noun, name string, have, given int64) error {
	if given != 0 && given != have {
		return store.Conflict("revision", "%s %s was changed by somebody else (revision %d, you saw %d); look at it again", noun, name, have, given)
	}
	return nil
}

// parseAddr reads an address.
func parseAddr(s string) (netip.Addr, error) { return netip.ParseAddr(s) }
