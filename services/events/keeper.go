package events

import (
	"context"
	"log/slog"
	"time"
)

// Bounds of the log on disk. A boot is a few dozen events, so that is some ten
// thousand boots; what is told of strangers has a rate, so that they push none of
// them out in hours.
const (
	keepEvents = 500000
	keepEvery  = 10 * time.Minute
	// keepAge is how long a boot is worth looking at, in a lab where so few boot
	// that the number above is never reached.
	keepAge = 180 * 24 * time.Hour
)

// Pruner is a log that forgets its oldest events.
type Pruner interface {
	// Prune keeps at most keepEvents events, and none from before since.
	Prune(ctx context.Context, keepEvents int, since time.Time) error
}

// Keeper is the service that keeps the log from growing for ever.
type Keeper struct {
	log    Pruner
	logger *slog.Logger
	keep   int
	every  time.Duration
}

// NewKeeper makes a Keeper of a log.
func NewKeeper(log Pruner, logger *slog.Logger) *Keeper {
	return &Keeper{log: log, logger: logger, keep: keepEvents, every: keepEvery}
}

// String names the service.
func (k *Keeper) String() string { return "journal keeper" }

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
		if err := k.log.Prune(ctx, k.keep, time.Now().Add(-keepAge)); err != nil && ctx.Err() == nil {
			k.logger.Error("old events could not be forgotten; trying again", "err", err, "pause", k.every)
		}
	}
}
