// Package sqlite keeps the nouns of store in two SQLite files: the inventory,
// which is what the operator decided and the leases, and the journal of events
// and attempts. It is the only room that speaks SQL.
//
// It checks every rule that needs a look at more than one noun, inside the
// transaction that changes it, and names the noun that is in the way. It knows
// nothing of sockets, of the files of volumes or of who calls it.
//
// Durability: the inventory commits with synchronous=FULL, so what a method
// returned is on disk; the journal with synchronous=NORMAL, so a power cut may
// cost its last moments and nothing else (https://www.sqlite.org/wal.html,
// https://www.sqlite.org/pragma.html#pragma_synchronous). They are two files so
// that a burst of events never stands before a lease.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the driver "sqlite3"

	"lunboot/store"
)

// readers is how many connections read at a time beside the one that writes.
const readers = 4

// Names of the two files in the data folder.
const (
	inventoryFile = "inventory.db"
	journalFile   = "journal.db"
)

// An Option changes how a file is opened.
type Option func(*options)

type options struct {
	log *slog.Logger
}

// WithLog gives migrations a log. Without it they are silent.
func WithLog(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// file is one SQLite file with its one writer and its readers.
type file struct {
	path string
	w    *sql.DB // one connection: SQLite has one writer, and a queue in Go is fair where its busy handler is not
	r    *sql.DB
}

// DB is the inventory. Its methods may be called from many goroutines.
type DB struct {
	file
	now   func() time.Time
	all   revision // rises with every commit that changed something
	maps  revision // rises with commits that changed machines, volumes or mappings
	batch *batcher
}

// Open opens the inventory in dir, makes it if there is none, and brings it to
// this program's schema.
func Open(ctx context.Context, dir string, now func() time.Time, opts ...Option) (*DB, error) {
	f, err := openFile(ctx, filepath.Join(dir, inventoryFile), "FULL", "migrations/inventory", opts)
	if err != nil {
		return nil, err
	}
	db := &DB{file: *f, now: now}
	db.batch = newBatcher(db)
	return db, nil
}

// Close waits for the writes that were accepted, then closes the file. Calling
// it twice is harmless.
func (db *DB) Close() error {
	db.batch.close()
	return db.close()
}

// Revision rises by one with every commit that changed something.
func (db *DB) Revision() int64 { return db.all.get() }

// Changed returns a channel that is closed when Revision is larger than after.
func (db *DB) Changed(after int64) <-chan struct{} { return db.all.changed(after) }

// MapRevision rises with every commit that changed a machine, a volume or a
// mapping: what an initiator may see. Leases and unknown machines, which change
// all the time while machines boot, leave it alone.
func (db *DB) MapRevision() int64 { return db.maps.get() }

// MapChanged returns a channel that is closed when MapRevision is larger than
// after.
func (db *DB) MapChanged(after int64) <-chan struct{} { return db.maps.changed(after) }

// revision counts commits and wakes those who wait for the next one.
type revision struct {
	mu   sync.Mutex
	n    int64
	wake chan struct{} // closed at the next bump; nil while nobody waits
}

func (r *revision) get() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *revision) bump() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

func (r *revision) changed(after int64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n > after {
		done := make(chan struct{})
		close(done)
		return done
	}
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	return r.wake
}

// openFile opens or makes one SQLite file, migrates it and checks that both of
// its pools run with the pragmas that were asked for.
func openFile(ctx context.Context, path, synchronous, migrations string, opts []Option) (_ *file, err error) {
	o := options{log: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	op := "open " + filepath.Base(path)
	existed, err := makeFile(path)
	if err != nil {
		return nil, explain(op, err)
	}
	f := &file{path: path}
	defer func() {
		if err != nil {
			err = errors.Join(explain(op, err), f.close())
		}
	}()
	// Pragmas belong to a connection, so they stand in the DSN, which every
	// pooled connection is made from.
	if f.w, err = openPool(path, 1, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {synchronous}, "_txlock": {"immediate"},
		"_foreign_keys": {"on"}, "_busy_timeout": {"5000"}, "_stmt_cache_size": {"64"},
	}); err != nil {
		return nil, err
	}
	if err := f.migrate(ctx, migrations, existed, o.log); err != nil {
		return nil, err
	}
	if f.r, err = openPool(path, readers, url.Values{
		"mode": {"ro"}, "_query_only": {"on"}, "_synchronous": {synchronous},
		"_foreign_keys": {"on"}, "_busy_timeout": {"5000"}, "_stmt_cache_size": {"64"},
	}); err != nil {
		return nil, err
	}
	if err := errors.Join(f.assertPragmas(ctx, f.w, synchronous, 0), f.assertPragmas(ctx, f.r, synchronous, 1)); err != nil {
		return nil, err
	}
	return f, nil
}

// makeFile makes an empty file with mode 0600, since SQLite would make it 0644
// and it holds CHAP secrets; SQLite gives the same mode to its -wal and -shm
// files. It reports whether the file held something before.
func makeFile(path string) (existed bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() > 0 {
		return true, f.Chmod(0o600)
	}
	return false, errors.Join(f.Chmod(0o600), syncDir(filepath.Dir(path)))
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
func (f *file) assertPragmas(ctx context.Context, db *sql.DB, synchronous string, queryOnly int) error {
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
			return &store.Error{Kind: store.KindInternal, Subject: f.path, Msg: fmt.Sprintf("SQLite runs with %s=%s where %s is needed", p.name, got, p.want)}
		}
	}
	return nil
}

// close ends the readers first, so that the writer is the last connection and
// folds the write-ahead log into the file.
func (f *file) close() error {
	var err error
	for _, db := range []*sql.DB{f.r, f.w} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	return err
}
