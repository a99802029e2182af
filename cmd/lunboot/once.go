package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// onceRows is what a keeper of one-shot profiles reads and changes.
type onceRows interface {
	Machine(context.Context, store.MachineID) (store.Machine, error)
	Profile(ctx context.Context, name string) (store.Profile, error)
	ConsumeOnce(ctx context.Context, id store.MachineID, profile string, chosen time.Time) (used bool, err error)
}

// onceKeeper takes a machine's profile for one boot back when that boot has
// proven itself by how it ended. An installer's system is up long before it has
// installed anything; its own report, or what is on its volume when it comes back,
// is its proof, and httpboot takes both.
type onceKeeper struct {
	rows onceRows
	log  *slog.Logger

	mu   sync.Mutex
	over []store.Attempt
	wake chan struct{}
}

func newOnceKeeper(rows onceRows, log *slog.Logger) *onceKeeper {
	return &onceKeeper{rows: rows, log: log, wake: make(chan struct{}, 1)}
}

// maxOnce bounds the boots that wait to be looked at.
const maxOnce = 4096

// ended takes a boot that ended, and does not wait.
func (k *onceKeeper) ended(t store.Attempt) {
	if t.Machine == 0 || t.Outcome != store.OutcomeUp && t.Outcome != store.OutcomeUpUnconfirmed {
		return
	}
	k.mu.Lock()
	if len(k.over) < maxOnce {
		k.over = append(k.over, t)
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// proven reports whether a boot shows that what it was given is of use. One that
// logs in to its volume is the machine's own, and its system has to come up. Of one
// that needs no volume, such as one from the machine's own disk, nothing more is
// heard as a rule: that silence counts as well, if the script went to the machine
// itself. Anybody can say a machine's name, be given its script and fall silent: such
// a boot proves nothing, and is told as anybody's.
func proven(t store.Attempt) (ok, anybody bool) {
	login := store.StageWaiting
	for _, st := range t.Stages {
		if st.Name == store.StageLogin {
			login = st.State
		}
	}
	switch {
	case login == store.StageDone || login == store.StageSlow:
		return t.Outcome == store.OutcomeUp, false
	case t.Outcome == store.OutcomeUp || login == store.StageSkipped:
		return t.Owned, !t.Owned
	}
	return false, false
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
		all := k.over
		k.over = nil
		k.mu.Unlock()
		for _, t := range all {
			if err := k.settle(ctx, t); err != nil && ctx.Err() == nil {
				k.log.Error("a profile for one boot could not be taken back", "machine", t.Subject(), "err", err)
			}
		}
	}
}

// settle takes the profile back if this boot was the one that it was for. One that
// was chosen, or chosen again, when the boot had its script is for the next boot.
func (k *onceKeeper) settle(ctx context.Context, t store.Attempt) error {
	m, err := k.rows.Machine(ctx, t.Machine)
	if store.IsNotFound(err) || err == nil && m.OnceProfile == "" {
		return nil
	}
	if err != nil {
		return err
	}
	given, err := k.rows.Profile(ctx, attempt.ProfileOf(t))
	if store.IsNotFound(err) || err == nil && given.Kind.Installs() {
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
	if ok, anybody := proven(t); !ok {
		if anybody {
			k.log.Info("a boot by the profile for one boot does not use it up: nothing shows that its script went to the machine itself; it can be taken back on the machine's page",
				"machine", m.Name, "attempt", t.ID, "profile", m.OnceProfile, "addr", t.Address)
		}
		return nil
	}
	_, err = k.rows.ConsumeOnce(ctx, m.ID, m.OnceProfile, attempt.ScriptAt(t))
	return err
}
