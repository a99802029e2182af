package dbfile

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"syscall"

	"github.com/mattn/go-sqlite3"

	"lunboot/store"
)

// Tx is one write transaction.
type Tx struct {
	*sql.Tx
	Ctx context.Context // of every statement; it never ends, see Write
}

// Run executes one statement and returns how many rows it changed.
func (t *Tx) Run(query string, args ...any) (rows int64, err error) {
	r, err := t.ExecContext(t.Ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Insert executes one INSERT and returns the new row's id.
func (t *Tx) Insert(query string, args ...any) (id int64, err error) {
	r, err := t.ExecContext(t.Ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// Write runs fn in one transaction, which is committed when Write returns nil.
// When fn or the commit fails, nothing was changed.
//
// ctx bounds the wait for the other writers. The statements themselves do not
// see it end: interrupting one makes SQLite roll back behind the back of
// database/sql, and they take microseconds. A ctx that ended meanwhile prevents
// the commit.
func (f *File) Write(ctx context.Context, fn func(*Tx) error) (err error) {
	conn, err := f.w.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, conn.Close())
		if IsFull(err) {
			f.reserve.give()
		} else {
			f.reserve.renew()
		}
	}()
	t := &Tx{Ctx: context.WithoutCancel(ctx)}
	if t.Tx, err = conn.BeginTx(t.Ctx, nil); err != nil {
		return err
	}
	if err = fn(t); err == nil {
		err = ctx.Err()
	}
	if err == nil {
		if err = t.Commit(); err == nil {
			f.checkpoints.wake()
		}
		return err
	}
	if t.Rollback() != nil {
		// On a full disk SQLite has rolled back by itself. Whatever it was,
		// the next writer must not inherit an open transaction: database/sql
		// makes a new connection for it.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// Read runs several queries on one state of the file.
func (f *File) Read(ctx context.Context, fn func(Querier) error) error {
	// Begun without ctx, for the reason that Write gives.
	conn, err := f.r.Conn(ctx)
	if err != nil {
		return Explain("read", err)
	}
	defer conn.Close()
	t, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return Explain("read", err)
	}
	defer t.Rollback() // nothing to keep
	return fn(t)
}

// Explain gives an error from below its kind and a sentence that an operator
// can act on. An error that has a kind keeps it.
func Explain(op string, err error) error {
	if err == nil {
		return nil
	}
	var ours *store.Error
	if errors.As(err, &ours) {
		return err
	}
	e := &store.Error{Kind: store.KindInternal, Op: op, Err: err}
	var lite sqlite3.Error
	errors.As(err, &lite)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = store.KindUnavailable
	case errors.Is(err, sql.ErrConnDone):
		e.Kind, e.Msg = store.KindUnavailable, "the data folder is closed"
	case IsFull(err):
		e.Kind, e.Msg = store.KindUnavailable, "the disk that holds the data folder is full; free some space"
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Msg = store.KindDenied, "lunboot may not use the data folder; give it to the user that lunboot runs as"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.Kind, e.Msg = store.KindNotFound, "there is no such folder"
	case lite.Code == sqlite3.ErrBusy, lite.Code == sqlite3.ErrLocked:
		e.Kind, e.Msg = store.KindUnavailable, "another program holds the file; end it and try again"
	case lite.Code == sqlite3.ErrReadonly, lite.Code == sqlite3.ErrCantOpen, lite.Code == sqlite3.ErrIoErr:
		e.Kind, e.Msg = store.KindUnavailable, "the file cannot be written; look at the disk and the file's mode"
	case lite.Code == sqlite3.ErrCorrupt, lite.Code == sqlite3.ErrNotADB:
		e.Kind, e.Msg = store.KindCorrupt, "the file is damaged; put back a backup of it"
	case lite.ExtendedCode == sqlite3.ErrConstraintUnique, lite.ExtendedCode == sqlite3.ErrConstraintPrimaryKey:
		e.Kind = store.KindConflict
	}
	return e
}
