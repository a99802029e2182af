package inventory

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"lunboot/store"
)

// owes lets a boot of a machine that has the volume fire, so that the volume is
// to begin anew. Where no machine has it, one has it for that moment.
func (h *house) owes(t *testing.T, v store.Volume) {
	t.Helper()
	maps, err := h.db.MappingsOfVolume(t.Context(), v.ID)
	must(t, err)
	if len(maps) == 0 {
		m, err := h.db.CreateMachine(t.Context(), ada, store.Machine{Name: "boots-" + v.Name, MACs: []store.MAC{{2, 0, 0, 0, 0xff, byte(v.ID)}}, Initiator: store.IQN("iqn.2026-11.test:boots-" + v.Name), Auth: store.AuthNone, Profile: "san"})
		must(t, err)
		mapping, err := h.db.CreateMapping(t.Context(), ada, store.Mapping{Machine: m.ID, Volume: v.ID})
		must(t, err)
		maps = append(maps, mapping)
		defer func() {
			t.Helper()
			must(t, h.db.DeleteMapping(t.Context(), ada, m.ID, 0))
			must(t, h.db.DeleteMachine(t.Context(), ada, m.ID))
		}()
	}
	must(t, h.db.ArmBoot(t.Context(), maps[0].Machine))
	_, fired, err := h.db.BootGeneration(t.Context(), maps[0].Machine, true)
	if err != nil || !fired {
		t.Fatalf("the boot fired: %v, %v", fired, err)
	}
}

// boots lets a volume begin anew at a boot.
func (h *house) boots(t *testing.T, v store.Volume, machine string) (store.Volume, error) {
	t.Helper()
	h.owes(t, v)
	return h.ResetVolume(t.Context(), v.ID, machine)
}

func TestACloneOfASnapshotBeginsAnewOnThatSnapshot(t *testing.T) {
	h, f := layeredHouse(t)
	v := h.volume(t, "gold", 1<<20)
	must(t, os.WriteFile(f.file(v.TopLayer()), []byte("before"), 0o600))
	v, err := h.SnapshotVolume(t.Context(), ada, v.ID, "before", "")
	must(t, err)
	snapshot := v.Layers[0]
	early, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Snapshot: "before", Name: "early", Reset: true})
	must(t, err)
	must(t, os.WriteFile(f.file(v.TopLayer()), []byte("after"), 0o600))
	v, err = h.FreezeVolume(t.Context(), ada, v.ID, "")
	must(t, err)
	late, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Snapshot: "before", Name: "late", Reset: true})
	must(t, err)
	follows := h.cloned(t, v, "follows", true)
	for _, c := range []store.Volume{early, late} {
		for range 2 {
			got, err := h.boots(t, c, "lab-01")
			must(t, err)
			if got.Top == c.Top || got.Base().ID != snapshot.ID || len(got.Layers) != 2 || got.Version != 0 {
				t.Errorf("after its boot clone %s stands on %+v, not on the snapshot %d", c.Name, got.Layers, snapshot.ID)
			}
			c = got
		}
		if h.detail(t, c).Stale {
			t.Errorf("clone %s of a snapshot is said to be behind a version", c.Name)
		}
	}
	if got, err := h.boots(t, follows, "lab-01"); err != nil || got.Base().ID != v.Top || got.Version != 1 {
		t.Errorf("a clone of the version is %+v, %v", got, err)
	}
	h.tidy(t)
}

// meanwhile is a database that lets something happen while a layer is made.
type meanwhile struct {
	DB
	act *func()
}

func (d meanwhile) CreateLayer(ctx context.Context, l store.Layer) (store.Layer, error) {
	l, err := d.DB.CreateLayer(ctx, l)
	if act := *d.act; act != nil {
		*d.act = nil
		act()
	}
	return l, err
}

func TestABootMakesOneNewBeginning(t *testing.T) {
	var act func()
	h, _ := layeredHouse(t, func(c *Config) { c.DB = meanwhile{c.DB, &act} })
	c := h.cloned(t, h.golden(t, "debian"), "c", true)
	h.mapped(t, h.machine(t, "lab-01", "00:07:e9:00:00:01"), c)
	_, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: h.machine(t, "lab-02", "00:07:e9:00:00:02").ID, Volume: c.ID, ReadOnly: true})
	must(t, err)
	if got, err := h.ResetVolume(t.Context(), c.ID, "lab-01"); err != nil || got.Top != c.Top {
		t.Errorf("without a boot the volume is %+v, %v", got, err)
	}
	// The logins of both machines find it due.
	h.owes(t, c)
	var tops [2]store.LayerID
	var logins sync.WaitGroup
	for n := range tops {
		logins.Go(func() {
			got, err := h.ResetVolume(t.Context(), c.ID, "lab-01")
			if err != nil {
				t.Error(err)
			}
			tops[n] = got.Top
		})
	}
	logins.Wait()
	if tops[0] == c.Top || tops[0] != tops[1] || h.now(t, c).Top != tops[0] {
		t.Errorf("one boot made the layers %v, after %d", tops, c.Top)
	}
	h.tidy(t)

	// What is turned off while the new layer is made is not carried out.
	h.owes(t, c)
	act = func() {
		_, err := h.SetVolume(t.Context(), ada, c.ID, store.VolumePatch{Reset: ptr(false)})
		must(t, err)
	}
	if got, err := h.ResetVolume(t.Context(), c.ID, "lab-01"); err != nil || got.Top != tops[0] || got.Reset {
		t.Errorf("after it was turned off the volume is %+v, %v", got, err)
	}
	h.tidy(t)
}

func TestARemovalWaitsForTheBootThatMakesALayer(t *testing.T) {
	var act func()
	h, _ := layeredHouse(t, func(c *Config) { c.DB = meanwhile{c.DB, &act} })
	g := h.golden(t, "debian")
	c := h.cloned(t, g, "c", true)
	h.owes(t, c)
	removed := make(chan error, 1)
	act = func() {
		go func() { removed <- h.RemoveVolume(t.Context(), ada, c.ID) }()
		select {
		case err := <-removed:
			t.Errorf("the volume is removed while its new layer is made: %v", err)
			removed <- err
		case <-time.After(200 * time.Millisecond): // as long as a removal takes here, and more
		}
	}
	if _, err := h.ResetVolume(t.Context(), c.ID, "lab-01"); err != nil {
		t.Error(err)
	}
	must(t, <-removed)
	h.tidy(t)
	if _, err := h.ResetVolume(t.Context(), c.ID, "lab-01"); !store.IsNotFound(err) {
		t.Errorf("a removed volume begins anew: %v", err)
	}
	must(t, h.RemoveVolume(t.Context(), ada, g.ID))
	h.tidy(t)
}
