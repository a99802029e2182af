package main

import (
	"context"
	"log/slog"
	"testing"

	"lunboot/store"
)

type onceInventory struct {
	once string
	used int
}

func (o *onceInventory) Machine(_ context.Context, id store.MachineID) (store.Machine, error) {
	if id != 7 {
		return store.Machine{}, store.NotFound("machine", "id")
	}
	return store.Machine{ID: 7, Name: "lab-07", OnceProfile: o.once}, nil
}

func (o *onceInventory) Profile(_ context.Context, name string) (store.Profile, error) {
	for _, p := range []store.Profile{{Name: "rescue", Kind: store.ProfileKernel}, {Name: "san", Kind: store.ProfileSAN}, {Name: "deb", Kind: store.ProfileInstall},
		{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "rescue\ndeb"}}} {
		if p.Name == name {
			return p, nil
		}
	}
	return store.Profile{}, store.NotFound("profile", name)
}

func (o *onceInventory) ConsumeOnce(context.Context, store.MachineID) error {
	o.used++
	return nil
}

func TestAOneShotProfileGoesWhenItsBootHasProvenItself(t *testing.T) {
	up := func(profile string) store.Attempt {
		return store.Attempt{ID: 1, Machine: 7, Outcome: store.OutcomeUp, Stages: []store.Stage{{Name: store.StageScript, State: store.StageDone, Detail: "Profile " + profile + ", matched by MAC"}}}
	}
	failed := up("rescue")
	failed.Outcome = store.OutcomeFailed
	other := up("rescue")
	other.Machine = 8
	for what, c := range map[string]struct {
		once string
		t    store.Attempt
		used int
	}{
		"its boot is up":                         {"rescue", up("rescue"), 1},
		"another profile's boot is up":           {"rescue", up("san"), 0},
		"its boot failed":                        {"rescue", failed, 0},
		"its installer is up, and not done":      {"deb", up("deb"), 0},
		"what its menu offers is up":             {"bench", up("rescue"), 1},
		"an installer of its menu is up":         {"bench", up("deb"), 0},
		"what its menu does not offer":           {"bench", up("san"), 0},
		"there is none":                          {"", up("rescue"), 0},
		"the machine is gone":                    {"rescue", other, 0},
		"the profile of the boot is gone":        {"rescue", up("gone"), 0},
		"nothing is known of the boot's profile": {"rescue", store.Attempt{Machine: 7, Outcome: store.OutcomeUp}, 0},
	} {
		rows := &onceInventory{once: c.once}
		k := newOnceKeeper(rows, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		k.ended(c.t)
		up := k.up
		k.up = nil // else Serve may take them once more before it sees that ctx ended
		for _, boot := range up {
			if err := k.settle(ctx, boot); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		cancel()
		if err := k.Serve(ctx); err != nil {
			t.Error(err)
		}
		if rows.used != c.used {
			t.Errorf("%s: used up %d times", what, rows.used)
		}
	}
}
