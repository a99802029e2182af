package dbfile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"syscall"
	"time"
)

// How long the write-ahead log grows, in pages of 4 KiB.
const (
	// checkpointAt is when the checkpointer folds it into the file: SQLite's own choice
	// (https://www.sqlite.org/wal.html#ckpt).
	checkpointAt = 1000
	// checkpointAnyway is when a writer folds it all the same, should the checkpointer
	// never get there. The log must fit the reserve.
	checkpointAnyway = 12000
	// checkpointPause is the pause between two looks at the log.
	checkpointPause = 20 * time.Millisecond
	// failingLong is how long it fails before somebody is told.
	failingLong = time.Minute
)

// checkpointer folds the write-ahead log into the file while others write. SQLite's own
// way is that the commit which makes the log too long does it, and that everybody
// waits for that: thousands of pages and two fsyncs, in the middle of a rack that
// boots. Here a connection of its own copies most of it (a passive checkpoint
// holds up nobody) and the disk takes it, and then what was written meanwhile, which
// is little, in the turn of a writer: only a log that was folded to its end begins
// anew.
type checkpointer struct {
	w    *sql.DB // the one that writes
	own  *sql.DB
	file *os.File // the database's, for its sync alone
	log  *slog.Logger
	kick chan struct{}
	stop context.CancelFunc
	done chan struct{} // closed when run has ended

	failing time.Time // since when; for run alone
	told    bool
}

func newCheckpointer(path string, w *sql.DB, c Config) (*checkpointer, error) {
	own, err := openPool(path, 1, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {c.Synchronous}, "_busy_timeout": {"5000"},
	})
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &checkpointer{w: w, own: own, file: file, log: c.Log, kick: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
	go k.run(ctx)
	return k, nil
}

// wake tells of a commit.
func (k *checkpointer) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// end ends it and waits for it.
func (k *checkpointer) end() error {
	k.stop()
	<-k.done
	return k.own.Close()
}

// release closes the file, which must be after the last connection is: to close
// any descriptor of a file gives up all locks that this process has on it (fcntl(2)),
// and SQLite's are among them.
func (k *checkpointer) release() error {
	if err := k.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

func (k *checkpointer) run(ctx context.Context) {
	defer close(k.done)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		}
		if err := k.fold(ctx); ctx.Err() == nil {
			k.note(err, k.file.Name())
		}
		pause.Reset(checkpointPause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// note tells of what fails for long: a full disk gets room again, and the writers go
// on meanwhile.
func (k *checkpointer) note(err error, file string) {
	switch {
	case err == nil:
		if k.told {
			k.log.Info("the write-ahead log is folded into the database again", "file", file)
		}
		k.failing, k.told = time.Time{}, false
	case k.failing.IsZero():
		k.failing = time.Now()
	case !k.told && time.Since(k.failing) > failingLong:
		k.told = true
		k.log.Warn("the write-ahead log cannot be folded into the database, and grows with each change; trying again at each", "file", file, "since", k.failing, "err", err)
	}
}

// fold folds the log when it is long enough.
func (k *checkpointer) fold(ctx context.Context) error {
	own, err := k.own.Conn(ctx)
	if err != nil {
		return err
	}
	defer own.Close()
	if left, err := checkpoint(ctx, own, "NOOP"); err != nil || left < checkpointAt {
		return err
	}
	if _, err := checkpoint(ctx, own, "PASSIVE"); err != nil {
		return err
	}
	// SQLite has synced the file only if nobody wrote meanwhile. Else the checkpoint
	// in the writer's turn syncs all of it, and this leaves it little.
	if err := syscall.Fdatasync(int(k.file.Fd())); err != nil {
		return fmt.Errorf("sync the database: %w", err)
	}
	turn, err := k.w.Conn(ctx)
	if err != nil {
		return err
	}
	_, err = checkpoint(ctx, turn, "PASSIVE")
	return errors.Join(err, turn.Close())
}

// checkpoint runs a checkpoint, and returns how many pages of the log are not in the
// file after it. Its statement is not interrupted: it takes milliseconds.
func checkpoint(ctx context.Context, c *sql.Conn, mode string) (left int, err error) {
	var busy, log, folded int
	if err := c.QueryRowContext(context.WithoutCancel(ctx), "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &log, &folded); err != nil {
		return 0, fmt.Errorf("fold the write-ahead log: %w", err)
	}
	return log - folded, nil
}
