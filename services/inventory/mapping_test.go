package inventory

import (
	"testing"

	"lunboot/store"
)

func TestTheFirstMappingIsLUNZeroAndBoots(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	a, b, c := h.volume(t, "a", 1<<20), h.volume(t, "b", 1<<20), h.volume(t, "c", 1<<20)
	if got := h.mapped(t, m, a); got.LUN != 0 || !got.Boot || got.ReadOnly {
		t.Errorf("the first mapping is %+v", got)
	}
	h.audited(t, ada, "mapping.create", "lab-01")
	if got := h.mapped(t, m, b); got.LUN != 1 || got.Boot {
		t.Errorf("the second mapping is %+v", got)
	}
	must(t, h.Unmap(t.Context(), ada, m.ID, 0))
	h.audited(t, ada, "mapping.delete", "lab-01")
	if got := h.mapped(t, m, c); got.LUN != 0 || !got.Boot {
		t.Errorf("the mapping in the gap is %+v", got)
	}
	out, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: m.ID, Volume: a.ID, LUN: ptr(store.LUN(300)), Boot: ptr(false), ReadOnly: true})
	must(t, err)
	if out.LUN != 300 || out.Boot || !out.ReadOnly {
		t.Errorf("the mapping that was spelled out is %+v", out)
	}
}

func TestBadMappingsAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	m, other := h.machine(t, "lab-01", "00:07:e9:00:00:01"), h.machine(t, "lab-02", "00:07:e9:00:00:02")
	a, b := h.volume(t, "a", 1<<20), h.volume(t, "b", 1<<20)
	tiny := h.volume(t, "tiny", 67*512)
	big, err := h.CreateVolume(t.Context(), ada, store.VolumeSpec{Name: "big-blocks", Size: 1 << 20, BlockSize: 4096})
	must(t, err)
	h.mapped(t, m, a)
	tests := []struct {
		name  string
		spec  store.MappingSpec
		kind  store.Kind
		parts []string
	}{
		{"no such machine", store.MappingSpec{Machine: 99, Volume: b.ID}, store.KindNotFound, []string{"machine"}},
		{"no such volume", store.MappingSpec{Machine: m.ID, Volume: 99}, store.KindNotFound, []string{"volume"}},
		{"a LUN beyond the last", store.MappingSpec{Machine: m.ID, Volume: b.ID, LUN: ptr(store.LUN(16384))}, store.KindInvalid, []string{"16384", "16383"}},
		{"a LUN that is taken", store.MappingSpec{Machine: m.ID, Volume: b.ID, LUN: ptr(store.LUN(0))}, store.KindConflict, []string{"lab-01", "volume a", "LUN 0"}},
		{"the same volume twice", store.MappingSpec{Machine: m.ID, Volume: a.ID}, store.KindConflict, []string{"lab-01", "LUN 0", "once"}},
		{"a second boot mapping", store.MappingSpec{Machine: m.ID, Volume: b.ID, Boot: ptr(true)}, store.KindConflict, []string{"boots from LUN 0"}},
		{"a volume that another machine writes", store.MappingSpec{Machine: other.ID, Volume: a.ID}, store.KindConflict, []string{"lab-01", "shared"}},
		{"a boot volume of large blocks", store.MappingSpec{Machine: other.ID, Volume: big.ID, Boot: ptr(true)}, store.KindInvalid, []string{"4096", "512"}},
		{"a boot volume that is too small", store.MappingSpec{Machine: other.ID, Volume: tiny.ID, Boot: ptr(true)}, store.KindInvalid, []string{"67 blocks", "68"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.wantRefusal(t, tt.kind, tt.parts, func() error { _, err := h.Map(t.Context(), ada, tt.spec); return err })
		})
	}
	// Data that no firmware could boot is mapped as data.
	if got := h.mapped(t, other, big); got.LUN != 0 || got.Boot {
		t.Errorf("a data volume is mapped as %+v", got)
	}
	if got := h.mapped(t, other, b); got.LUN != 1 || !got.Boot {
		t.Errorf("the first bootable volume is mapped as %+v", got)
	}
	// Reading together is allowed, and writing when the operator says so.
	_, err = h.Map(t.Context(), ada, store.MappingSpec{Machine: other.ID, Volume: a.ID, ReadOnly: true})
	must(t, err)
	must(t, h.Unmap(t.Context(), ada, other.ID, 2))
	_, err = h.SetVolume(t.Context(), ada, a.ID, store.VolumePatch{Shared: ptr(true)})
	must(t, err)
	h.mapped(t, other, a)
	h.wantRefusal(t, store.KindConflict, []string{"lab-01", "lab-02"}, func() error {
		_, err := h.SetVolume(t.Context(), ada, a.ID, store.VolumePatch{Shared: ptr(false)})
		return err
	})
}

func TestTheBootMarkMoves(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.mapped(t, m, h.volume(t, "a", 1<<20))
	h.mapped(t, m, h.volume(t, "b", 1<<20))
	tiny := h.mapped(t, m, h.volume(t, "tiny", 512))
	got, err := h.SetMapping(t.Context(), ada, m.ID, 1, store.MappingPatch{Boot: ptr(true)})
	must(t, err)
	if !got.Boot || got.LUN != 1 {
		t.Errorf("the mapping is %+v", got)
	}
	boots := func() (out []store.LUN) {
		maps, err := h.db.MappingsOf(t.Context(), m.ID)
		must(t, err)
		for _, mp := range maps {
			if mp.Boot {
				out = append(out, mp.LUN)
			}
		}
		return out
	}
	if b := boots(); len(b) != 1 || b[0] != 1 {
		t.Errorf("the machine boots from %v", b)
	}
	h.wantRefusal(t, store.KindInvalid, []string{"68"}, func() error {
		_, err := h.SetMapping(t.Context(), ada, m.ID, tiny.LUN, store.MappingPatch{Boot: ptr(true)})
		return err
	})
	// The move fails in its second half: the mark goes back.
	_, err = h.SetMapping(t.Context(), ada, m.ID, 0, store.MappingPatch{Boot: ptr(true), LUN: ptr(store.LUN(2))})
	wantSentence(t, err, store.KindConflict, "LUN 2")
	if b := boots(); len(b) != 1 || b[0] != 1 {
		t.Errorf("after a move that failed the machine boots from %v", b)
	}
	_, err = h.SetMapping(t.Context(), ada, m.ID, 1, store.MappingPatch{Boot: ptr(false)})
	must(t, err)
	if b := boots(); len(b) != 0 {
		t.Errorf("the machine boots from %v", b)
	}
}

func TestSetMappingChangesLUNAndAccess(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	first := h.mapped(t, m, h.volume(t, "a", 1<<20))
	h.mapped(t, m, h.volume(t, "b", 1<<20))
	got, err := h.SetMapping(t.Context(), ada, m.ID, 0, store.MappingPatch{LUN: ptr(store.LUN(7)), ReadOnly: ptr(true)})
	must(t, err)
	if got.LUN != 7 || !got.ReadOnly || !got.Boot || got.ID != first.ID {
		t.Errorf("the mapping is %+v", got)
	}
	for _, tt := range []struct {
		lun   store.LUN
		patch store.MappingPatch
		kind  store.Kind
		part  string
	}{
		{0, store.MappingPatch{ReadOnly: ptr(true)}, store.KindNotFound, "it has 1 7"},
		{7, store.MappingPatch{LUN: ptr(store.LUN(1))}, store.KindConflict, "LUN 1"},
		{7, store.MappingPatch{LUN: ptr(store.LUN(16384))}, store.KindInvalid, "16384"},
		{7, store.MappingPatch{Revision: first.Revision, ReadOnly: ptr(false)}, store.KindConflict, "changed meanwhile"},
	} {
		h.wantRefusal(t, tt.kind, []string{tt.part}, func() error { _, err := h.SetMapping(t.Context(), ada, m.ID, tt.lun, tt.patch); return err })
	}
	h.wantRefusal(t, store.KindNotFound, []string{"lab-01", "LUN 5", "it has 1 7"}, func() error { return h.Unmap(t.Context(), ada, m.ID, 5) })
	h.wantRefusal(t, store.KindNotFound, []string{"machine"}, func() error { return h.Unmap(t.Context(), ada, 99, 5) })
}

func TestAMachineWithEveryLUNTakenIsTold(t *testing.T) {
	have := make([]store.Mapping, store.MaxLUN+1)
	for l := range have {
		have[l].LUN = store.LUN(l)
	}
	_, err := lowestFree(store.Machine{Name: "lab-01"}, have)
	wantSentence(t, err, store.KindConflict, "lab-01", "16384")
	if l, err := lowestFree(store.Machine{}, have[:300]); err != nil || l != 300 {
		t.Errorf("the lowest free LUN is %d, %v", l, err)
	}
}
