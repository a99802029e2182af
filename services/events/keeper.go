package events

import (
	"context"
	"log/slog"
	"time"

	"lunboot/store"
)

// Bounds of the log on disk. A boot is a few dozen events, so that is some ten
// thousand boots; what is told of strangers has a rate, so that they push none of
// them out in hours.
const (
	keepEvents = 500000
	keepEvery  = time.Minute
	// keepBytes bounds what a log of long events takes from the disk that holds the
	// volumes; a usual boot's take 10 KiB.
	keepBytes = 512 << 20
	// keepAge is how long a boot is worth looking at, in a lab where so few boot
	// that the number above is never reached.
	keepAge = 180 * 24 * time.Hour
)

// Pruner is a log that forgets its oldest events.
type Pruner interface {
	// Prune forgets the oldest until what is left meets keep.
	Prune(ctx context.Context, keep store.Retention) error
}

// Keeper is the service that keeps the log from growing for ever.
type Keeper struct {
	log    Pruner
	logger *slog.Logger
	keep   store.Retention // but for Since, which age makes
	every  time.Duration
}

// NewKeeper makes a Keeper of a log.
func NewKeeper(log Pruner, logger *slog.Logger) *Keeper {
	return &Keeper{log: log, logger: logger, keep: store.Retention{Events: keepEvents, Bytes: keepBytes}, every: keepEvery}
}

// String names the service.
func (k *Keeper) String() string { return "clearing of old events" }

// Listen binds nothing.
func (k *Keeper) Listen() error { return nil }

// Serve forgets what is too old, again and again, until ctx ends.
func (k *Keeper) Serve(ctx context.Context) error {
	tick := time.NewTicker(k.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		keep := k.keep
		keep.Since = time.Now().Add(-keepAge)
		if err := k.log.Prune(ctx, keep); err != nil && ctx.Err() == nil {
			k.logger.Error("old events could not be forgotten; trying again", "err", err, "pause", k.every)
		}
	}
}
