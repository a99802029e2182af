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
	"embed"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"lunboot/store/sqlite/dbfile"
)

// The two files in the data folder; each has its folder of migrations.
const (
	inventoryFile = "inventory"
	journalFile   = "journal"
)

// reserve is the room that the inventory sets aside, so that leases and mappings
// can still be written when volumes have filled the disk.
const reserve = 64 << 20

//go:embed migrations
var migrations embed.FS

// An Option changes how a file is opened.
type Option func(*options)

type options struct {
	log     *slog.Logger
	reserve int64
}

// WithLog gives migrations a log. It names the copy that is made before one. Without it they are silent.
func WithLog(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// DB is the inventory. Its methods may be called from many goroutines.
type DB struct {
	file    *dbfile.File
	now     func() time.Time
	all     revision // rises with every commit that changed something
	boots   bootMemory
	maps    revision // rises with commits that changed machines, volumes or mappings
	network revision // rises with commits that changed subnets or settings
	clients revision // rises with commits that changed machines, or who is ignored
	leases  revision // rises with commits that changed leases otherwise than by PutLease
	batch   *batcher
}

// Open opens the inventory in dir, makes it if there is none, and brings it to
// this program's schema.
func Open(ctx context.Context, dir string, now func() time.Time, opts ...Option) (*DB, error) {
	opts = append([]Option{func(o *options) { o.reserve = reserve }}, opts...)
	f, err := openFile(ctx, dir, inventoryFile, "FULL", opts)
	if err != nil {
		return nil, err
	}
	db := &DB{file: f, now: now}
	db.batch = newBatcher(db)
	return db, nil
}

// Close waits for the writes that were accepted, then closes the file. Calling
// it twice is harmless.
func (db *DB) Close() error {
	db.batch.close()
	return db.file.Close()
}

// Backup writes a consistent copy of the inventory to path while others read and
// write. A file that is there already is replaced in one step.
func (db *DB) Backup(ctx context.Context, path string) error { return db.file.Backup(ctx, path) }

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

// NetworkRevision rises with every commit that changed a subnet or a setting:
// how the appliance takes part in its networks.
func (db *DB) NetworkRevision() int64 { return db.network.get() }

// NetworkChanged returns a channel that is closed when NetworkRevision is larger
// than after.
func (db *DB) NetworkChanged(after int64) <-chan struct{} { return db.network.changed(after) }

// ClientRevision rises with every commit that changed a machine, or which unknown
// machines are ignored.
func (db *DB) ClientRevision() int64 { return db.clients.get() }

// LeaseRevision rises with every commit that changed a lease otherwise than by
// PutLease: who writes all of them himself knows by it that somebody else did.
func (db *DB) LeaseRevision() int64 { return db.leases.get() }

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

// openFile opens one of the two files.
func openFile(ctx context.Context, dir, name, synchronous string, opts []Option) (*dbfile.File, error) {
	o := options{log: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	steps, err := fs.Sub(migrations, "migrations/"+name)
	if err != nil {
		return nil, err
	}
	return dbfile.Open(ctx, filepath.Join(dir, name+".db"), dbfile.Config{Synchronous: synchronous, Migrations: steps, Reserve: o.reserve, Log: o.log})
}
