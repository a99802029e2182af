package main

import (
	"context"
	"log/slog"
	"sync"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// onceRows is what a keeper of one-shot profiles reads and changes.
type onceRows interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	Profile(ctx context.Context, name string) (store.Profile, error)
	ConsumeOnce(context.Context, store.MachineID) error
}

// onceKeeper takes a machine's profile for one boot back when that boot has
// proven itself: its operating system is up. An installer's system is up long
// before it has installed anything; its own report, which httpboot takes, is its
// proof.
type onceKeeper struct {
	rows onceRows
	log  *slog.Logger

	mu   sync.Mutex
	up   []store.Attempt
	wake chan struct{}
}

func newOnceKeeper(rows onceRows, log *slog.Logger) *onceKeeper {
	return &onceKeeper{rows: rows, log: log, wake: make(chan struct{}, 1)}
}

// maxOnce bounds the boots that wait to be looked at.
const maxOnce = 4096

// ended takes a boot that ended, and does not wait.
func (k *onceKeeper) ended(t store.Attempt) {
	if t.Outcome != store.OutcomeUp || t.Machine == 0 {
		return
	}
	k.mu.Lock()
	if len(k.up) < maxOnce {
		k.up = append(k.up, t)
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// String names the service.
func (k *onceKeeper) String() string { return "one-shot profiles" }

// Listen binds nothing.
func (k *onceKeeper) Listen() error { return nil }

// Serve works until ctx ends.
func (k *onceKeeper) Serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		k.mu.Lock()
		all := k.up
		k.up = nil
		k.mu.Unlock()
		for _, t := range all {
			if err := k.settle(ctx, t); err != nil && ctx.Err() == nil {
				k.log.Error("a profile for one boot could not be taken back", "machine", t.Subject(), "err", err)
			}
		}
	}
}

// settle takes the profile back if this boot was the one that it was for.
func (k *onceKeeper) settle(ctx context.Context, t store.Attempt) error {
	m, err := k.rows.Machine(ctx, t.Machine)
	if store.IsNotFound(err) || err == nil && m.OnceProfile == "" {
		return nil
	}
	if err != nil {
		return err
	}
	given, err := k.rows.Profile(ctx, attempt.ProfileOf(t))
	if store.IsNotFound(err) || err == nil && (given.Kind == store.ProfileInstall || given.Kind == store.ProfileWimboot) {
		return nil
	}
	if err != nil {
		return err
	}
	if given.Name != m.OnceProfile {
		once, err := k.rows.Profile(ctx, m.OnceProfile)
		if err != nil {
			return err
		}
		if !once.Gives(given.Name) {
			return nil
		}
	}
	return k.rows.ConsumeOnce(ctx, m.ID)
}
