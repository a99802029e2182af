package dbfile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
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
)

// checkpointer folds the write-ahead log into the file while others write. SQLite's own
// way is that the commit which makes the log too long does it, and that everybody
// waits for that: thousands of pages and two fsyncs, in the middle of a rack that
// boots. Here a connection of its own copies most of it (a passive checkpoint
// holds up nobody), and then what was written meanwhile, which is little, in the
// turn of a writer: only a log that was folded to its end begins anew.
type checkpointer struct {
	w    *sql.DB // the one that writes
	own  *sql.DB
	log  *slog.Logger
	kick chan struct{}
	stop context.CancelFunc
	done chan struct{} // closed when run has ended
}

func newCheckpointer(path string, w *sql.DB, c Config) (*checkpointer, error) {
	own, err := openPool(path, 1, url.Values{
		"_journal_mode": {"WAL"}, "_synchronous": {c.Synchronous}, "_busy_timeout": {"5000"},
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &checkpointer{w: w, own: own, log: c.Log, kick: make(chan struct{}, 1), stop: stop, done: make(chan struct{})}
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

// close ends it and waits for it.
func (k *checkpointer) close() error {
	k.stop()
	<-k.done
	return k.own.Close()
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
		if err := k.fold(ctx); err != nil && ctx.Err() == nil {
			// The writers go on, and fold it themselves when it is very long: with the
			// disk full it fails until there is room.
			k.log.Debug("the write-ahead log could not be folded into the database; trying again", "err", err)
		}
		pause.Reset(checkpointPause)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
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
