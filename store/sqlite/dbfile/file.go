// Package dbfile is one SQLite file: how it is opened, migrated, copied, read
// and written, and what its errors mean to an operator. It knows no noun and no
// table; package sqlite gives it both.
//
// A file has one connection that writes, a few that read, and one that folds the
// write-ahead log into it. It runs in WAL mode (https://www.sqlite.org/wal.html), in
// which readers see the last commit and wait for nobody.
package dbfile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"

	"lunboot/store"
)

// readers is how many connections read at a time beside the one that writes.
const readers = 4

// File is one open SQLite file. Its methods may be called from many goroutines.
type File struct {
	path string
	w    *sql.DB // one connection: SQLite has one writer, and a queue in Go is fair where its busy handler is not
	r    *sql.DB

	checkpoints *checkpointer
	reserve     reserve
}

// Reader reads the file outside of any transaction.
func (f *File) Reader() Querier { return f.r }

// Config says how a file is opened.
type Config struct {
	Synchronous string // "FULL" or "NORMAL"
	Migrations  fs.FS  // numbered SQL files
	Reserve     int64  // bytes set aside for the time when the disk is full
	Log         *slog.Logger
}

// Open opens a file or makes it, migrates it and checks that both of its pools
// run with the pragmas that were asked for.
func Open(ctx context.Context, path string, c Config) (_ *File, err error) {
	op := "open " + filepath.Base(path)
	size, err := makeFile(path)
	if err != nil {
		return nil, Explain(op, err)
	}
	f := &File{path: path, reserve: reserve{path: path + ".reserve", size: c.Reserve}}
	defer func() {
		if err != nil {
			err = errors.Join(Explain(op, err), f.Close())
		}
	}()
	// Pragmas belong to a connection, so they stand in the DSN, which every
	// pooled connection is made from.
	if f.w, err = openPool(path, 1, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {c.Synchronous}, "_txlock": {"immediate"},
		"_foreign_keys": {"on"}, "_busy_timeout": {"5000"}, "_stmt_cache_size": {"64"},
	}); err != nil {
		return nil, err
	}
	if err := f.migrate(ctx, c, size); err != nil {
		return nil, err
	}
	// A connection that is made anew falls back to SQLite's choice, which costs
	// speed alone.
	if _, err := f.w.ExecContext(ctx, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", checkpointAnyway)); err != nil {
		return nil, fmt.Errorf("set how long the write-ahead log may grow: %w", err)
	}
	if f.r, err = openPool(path, readers, url.Values{
		"mode": {"ro"}, "_query_only": {"on"}, "_synchronous": {c.Synchronous},
		"_foreign_keys": {"on"}, "_busy_timeout": {"5000"}, "_stmt_cache_size": {"64"},
	}); err != nil {
		return nil, err
	}
	if err := errors.Join(f.assertPragmas(ctx, f.w, c.Synchronous, 0), f.assertPragmas(ctx, f.r, c.Synchronous, 1)); err != nil {
		return nil, err
	}
	if f.checkpoints, err = newCheckpointer(path, f.w, c); err != nil {
		return nil, err
	}
	f.reserve.hold()
	return f, nil
}

// makeFile makes an empty file with mode 0600, since SQLite would make it 0644
// and it holds CHAP secrets; SQLite gives the same mode to its -wal and -shm
// files. It returns how large the file was before.
func makeFile(path string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), errors.Join(f.Chmod(0o600), syncDir(filepath.Dir(path)))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func openPool(path string, conns int, params url.Values) (*sql.DB, error) {
	// A URI, so that a folder may have '?', '#' and '%' in its name.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params.Encode()
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// assertPragmas fails when a pool does not run as it was asked to: the driver
// ignores a misspelt key of the DSN in silence.
func (f *File) assertPragmas(ctx context.Context, db *sql.DB, synchronous string, queryOnly int) error {
	level := map[string]string{"NORMAL": "1", "FULL": "2"}[synchronous]
	for _, p := range [...]struct{ name, want string }{
		{"journal_mode", "wal"}, {"synchronous", level}, {"foreign_keys", "1"},
		{"busy_timeout", "5000"}, {"query_only", fmt.Sprint(queryOnly)},
	} {
		var got string
		if err := db.QueryRowContext(ctx, "PRAGMA "+p.name).Scan(&got); err != nil {
			return fmt.Errorf("read pragma %s: %w", p.name, err)
		}
		if got != p.want {
			return &store.Error{Kind: store.KindInternal, Op: "open", Subject: f.path, Msg: fmt.Sprintf("SQLite runs with %s=%s where %s is needed", p.name, got, p.want)}
		}
	}
	return nil
}

// Close ends the readers first, so that the writer is the last connection and
// folds the write-ahead log into the file. Calling it twice is harmless.
func (f *File) Close() error {
	var err error
	if f.checkpoints != nil {
		err = f.checkpoints.end()
	}
	for _, db := range []*sql.DB{f.r, f.w} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if f.checkpoints != nil {
		err = errors.Join(err, f.checkpoints.release())
	}
	return err
}
