package inventory

import (
	"os"
	"testing"

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
