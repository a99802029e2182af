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
	for _, p := range []store.Profile{{Name: "rescue", Kind: store.ProfileKernel}, {Name: "san", Kind: store.ProfileSAN}, {Name: "deb", Kind: store.ProfileInstall}, {Name: "local", Kind: store.ProfileLocal}, {Name: "own", Kind: store.ProfileCustom},
		{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "rescue\ndeb\nlocal"}}} {
		if p.Name == name {
			return p, nil
		}
	}
	return store.Profile{}, store.NotFound("profile", name)
}

func (o *onceInventory) ConsumeOnce(_ context.Context, _ store.MachineID, profile string) (bool, error) {
	if profile != o.once {
		return false, nil
	}
	o.used++
	return true, nil
}

func TestAOneShotProfileGoesWhenItsBootHasProvenItself(t *testing.T) {
	ended := func(profile string, outcome store.Outcome, login store.StageState) store.Attempt {
		return store.Attempt{ID: 1, Machine: 7, Outcome: outcome, Owned: true, Stages: []store.Stage{
			{Name: store.StageScript, State: store.StageDone, Detail: "Profile " + profile + ", matched by MAC"}, {Name: store.StageLogin, State: login}}}
	}
	up := func(profile string) store.Attempt { return ended(profile, store.OutcomeUp, store.StageSkipped) }
	silent := func(profile string) store.Attempt {
		return ended(profile, store.OutcomeUpUnconfirmed, store.StageSkipped)
	}
	forged := func(t store.Attempt) store.Attempt {
		t.Owned = false
		return t
	}
	other := up("rescue")
	other.Machine = 8
	for what, c := range map[string]struct {
		once string
		t    store.Attempt
		used int
	}{
		"its boot is up":                         {"rescue", up("rescue"), 1},
		"another profile's boot is up":           {"rescue", up("san"), 0},
		"its boot failed":                        {"rescue", ended("rescue", store.OutcomeFailed, store.StageSkipped), 0},
		"its boot runs":                          {"rescue", ended("rescue", store.OutcomeRunning, store.StageSkipped), 0},
		"its own disk, and silence":              {"local", silent("local"), 1},
		"its own disk, and its system asks":      {"local", up("local"), 1},
		"its own disk failed, or it came back":   {"local", ended("local", store.OutcomeFailed, store.StageSkipped), 0},
		"its kernel, and silence":                {"rescue", silent("rescue"), 1},
		"a script of its own, and silence":       {"own", silent("own"), 1},
		"a script of its own that boots a SAN":   {"own", ended("own", store.OutcomeUpUnconfirmed, store.StageDone), 0},
		"its own disk from a menu, and silence":  {"bench", silent("local"), 1},
		"its volume, and it may be up":           {"san", ended("san", store.OutcomeUpUnconfirmed, store.StageDone), 0},
		"its volume, by what it logged in with":  {"san", forged(ended("san", store.OutcomeUp, store.StageDone)), 1},
		"an installer, and silence":              {"deb", silent("deb"), 0},
		"somebody else asked, and silence":       {"local", forged(silent("local")), 0},
		"somebody else asked, and says up":       {"rescue", forged(up("rescue")), 0},
		"its installer is up, and not done":      {"deb", up("deb"), 0},
		"what its menu offers is up":             {"bench", up("rescue"), 1},
		"an installer of its menu is up":         {"bench", up("deb"), 0},
		"what its menu does not offer":           {"bench", up("san"), 0},
		"there is none":                          {"", up("rescue"), 0},
		"the machine is gone":                    {"rescue", other, 0},
		"the profile of the boot is gone":        {"rescue", up("gone"), 0},
		"nothing is known of the boot's profile": {"rescue", store.Attempt{Machine: 7, Outcome: store.OutcomeUp, Owned: true}, 0},
	} {
		rows := &onceInventory{once: c.once}
		k := newOnceKeeper(rows, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		k.ended(c.t)
		over := k.over
		k.over = nil // else Serve may take them once more before it sees that ctx ended
		for _, boot := range over {
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
