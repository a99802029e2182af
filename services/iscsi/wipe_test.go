package iscsi_test

import (
	"bytes"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
)

// A wipe that a restart has interrupted goes on by itself, one after the other, and
// whoever logs in meanwhile finds it under way. What interrupts it again leaves it
// unfinished.
func TestAnUnfinishedWipeGoesOnWhenNobodyLogsIn(t *testing.T) {
	l := &wipeLog{all: map[store.VolumeID]*store.Wipe{1: {Bytes: itsFile}, 2: {Bytes: itsFile}, 3: {Bytes: itsFile, Failed: true}, 4: {Bytes: itsFile}}}
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	var disks [4]*memory
	for k := range disks {
		disks[k] = newMemory(1 << 20)
		copy(disks[k].b, "what was to be wiped")
		disks[k].syncing, disks[k].heeds = make(chan struct{}), true
	}
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: disks[0], sanitize: true}})
	b.enroll(bob, map[store.LUN]disk{2: {id: 2, volume: disks[1], sanitize: true}, 3: {id: 3, volume: disks[2], sanitize: true}}) // the fourth has gone
	startWith(t, b, iscsi.Config{Wipes: l})
	eventually(t, func() bool { return disks[0].syncs.Load() == 1 }, "the first goes on")
	i := b.login(t, alice, Linux(1))
	for _, want := range []string{"06/29/00", "02/04/1B"} {
		if r, err := i.Do(Ready(1)); err != nil || r.Key() != want {
			t.Errorf("%v, %s, want %s", err, r.Key(), want)
		}
	}
	if n := disks[1].syncs.Load(); n != 0 {
		t.Error("two go on at the same time")
	}
	b.stop()
	if ids, _ := l.UnfinishedWipes(t.Context()); len(ids) != 3 {
		t.Fatalf("unfinished after a restart amid it: %v", ids)
	}

	next := &bench{catalog: b.catalog, journal: &journal{}, clock: &clock{}}
	startWith(t, next, iscsi.Config{Wipes: l})
	eventually(t, func() bool { return disks[0].syncs.Load() == 2 }, "the first goes on again")
	close(disks[0].syncing)
	eventually(t, func() bool { return disks[1].syncs.Load() == 1 }, "the second follows")
	if w, _ := l.Wipe(t.Context(), 1); w != nil {
		t.Errorf("of the first %+v is left", w)
	}
	close(disks[1].syncing)
	eventually(t, func() bool { w, _ := l.Wipe(t.Context(), 2); return w == nil }, "the second ends")
	for k, d := range disks[:2] {
		if !bytes.Equal(d.b, make([]byte, len(d.b))) {
			t.Errorf("something is left of volume %d", k+1)
		}
	}
	if !bytes.HasPrefix(disks[2].b, []byte("what")) {
		t.Error("a wipe that has failed went on")
	}
	next.login(t, alice, Linux(1)).Must(t, Ready(1))
}

// A file that was put in the place of the one that was to be wiped is not: neither by
// itself nor when somebody logs in. It says that the wipe has failed, until it is wiped
// anew.
func TestAWipeDoesNotGoOnOverOtherBytes(t *testing.T) {
	for name, c := range map[string]struct {
		begun string
		now   disk
	}{
		"another file":          {"the old file", disk{bytes: "the new file"}},
		"nobody could tell":     {"", disk{lost: true}},
		"nobody can tell now":   {"the old file", disk{lost: true}},
		"nobody could tell yet": {"", disk{}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &wipeLog{all: map[store.VolumeID]*store.Wipe{1: {Bytes: c.begun, Unrestricted: true}}}
			b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
			v := newMemory(1 << 20)
			copy(v.b, "restored")
			c.now.id, c.now.volume, c.now.sanitize = 1, v, true
			b.enroll(alice, map[store.LUN]disk{1: c.now})
			startWith(t, b, iscsi.Config{Wipes: l})
			i := b.login(t, alice, Linux(1))
			for _, want := range []string{"06/29/00", "03/31/03", "03/31/03"} {
				if r, err := i.Do(Ready(1)); err != nil || r.Key() != want {
					t.Errorf("%v, %s, want %s", err, r.Key(), want)
				}
			}
			if !bytes.HasPrefix(v.b, []byte("restored")) {
				t.Fatal("it was wiped")
			}
			i.Must(t, Command{LUN: LUN(1), CDB: []byte{0x48, 0x22, 0, 0, 0, 0, 0, 0, 0, 0}})
			i.Must(t, Ready(1))
			if !bytes.Equal(v.b, make([]byte, len(v.b))) {
				t.Error("it was not wiped anew")
			}
		})
	}
}

// A volume that gets other bytes amid a wipe, by a rollback, has nothing unfinished: what
// comes of the old wipe, well or badly, is nothing to the one that was begun on the new
// bytes.
func TestTheEndOfAWipeIsNotThatOfTheNextOne(t *testing.T) {
	sanitize := Command{LUN: LUN(1), CDB: []byte{0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0}}
	for _, fails := range []bool{false, true} {
		l := &wipeLog{all: map[store.VolumeID]*store.Wipe{}}
		b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
		startWith(t, b, iscsi.Config{Wipes: l})
		old, now := newMemory(1<<20), newMemory(1<<20)
		for _, v := range []*memory{old, now} {
			v.syncing, v.heeds = make(chan struct{}), true
		}
		b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: old, sanitize: true}})
		i := b.login(t, alice, Linux(1))
		i.Must(t, Ready(1))
		i.Must(t, sanitize)
		eventually(t, func() bool { return old.syncs.Load() == 1 }, "the first is under way")

		b.catalog.change(func() {
			_ = l.change(1, nil) // with the rollback
			b.catalog.luns[alice] = map[store.LUN]disk{1: {id: 1, volume: now, sanitize: true, bytes: "another file", anew: 1}}
		})
		i.Closed(t)
		i = b.login(t, alice, Linux(2))
		i.Must(t, Ready(1))
		i.Must(t, sanitize)
		eventually(t, func() bool { return now.syncs.Load() == 1 }, "the second is under way")
		if fails {
			old.fail.Store(true)
		}
		close(old.syncing)
		eventually(t, func() bool { return b.catalog.openMaps() == 1 }, "the first has ended")
		if w, _ := l.Wipe(t.Context(), 1); w == nil || w.Failed || w.Bytes != "another file" {
			t.Errorf("of the second %+v is left when the first ends (badly: %t)", w, fails)
		}
		close(now.syncing)
		eventually(t, func() bool { w, _ := l.Wipe(t.Context(), 1); return w == nil }, "the second ends")
		b.stop()
	}
}

// What is written down of a wipe says which file it is for.
func TestAWipeIsForTheBytesThatItWasBegunOn(t *testing.T) {
	l := &wipeLog{all: map[store.VolumeID]*store.Wipe{}}
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{Wipes: l})
	v := newMemory(1 << 20)
	v.syncing, v.heeds = make(chan struct{}), true
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v, sanitize: true, bytes: "this file"}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(1))
	i.Must(t, Command{LUN: LUN(1), CDB: []byte{0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0}})
	if w, _ := l.Wipe(t.Context(), 1); w == nil || w.Bytes != "this file" {
		t.Errorf("kept is %+v", w)
	}
}

// A file that somebody has written to while the appliance did not run is not wiped; one
// that is as the appliance left it is, and so is one that it could not take leave of.
func TestAWipeDoesNotGoOnOverWhatOthersHaveWrittenMeanwhile(t *testing.T) {
	before, since := time.Unix(1000, 1).UTC(), time.Unix(1000, 2).UTC()
	for name, c := range map[string]struct {
		left, changed time.Time
		on            bool
	}{
		"as it was left":        {before, before, true},
		"changed since":         {before, since, false},
		"after a power loss":    {time.Time{}, since, true},
		"of which no one knows": {before, time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := &wipeLog{all: map[store.VolumeID]*store.Wipe{1: {Bytes: "f", Left: c.left}}}
			b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
			v := newMemory(1 << 20)
			v.syncing, v.heeds = make(chan struct{}), true
			b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v, sanitize: true, bytes: "f", changed: c.changed}})
			startWith(t, b, iscsi.Config{Wipes: l})
			want := "03/31/03"
			if c.on {
				want = "02/04/1B"
				eventually(t, func() bool { return v.syncs.Load() == 1 }, "it goes on")
				if w, _ := l.Wipe(t.Context(), 1); w == nil || !w.Left.IsZero() {
					t.Errorf("while it goes on %+v is kept", w)
				}
			}
			i := b.login(t, alice, Linux(1))
			for _, want := range []string{"06/29/00", want} {
				if r, err := i.Do(Ready(1)); err != nil || r.Key() != want {
					t.Errorf("%v, %s, want %s", err, r.Key(), want)
				}
			}
			b.stop()
			left := c.left
			if c.on {
				left = c.changed
			}
			if w, _ := l.Wipe(t.Context(), 1); w == nil || w.Failed || !w.Left.Equal(left) {
				t.Errorf("when the appliance has ended %+v is kept", w)
			}
		})
	}
}
