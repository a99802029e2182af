package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/services/events"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/store/volume"
)

// A volume that cannot be opened must not keep another one with a machine that
// it was taken from.
func TestAMappingThatGoesIsGoneBesideABrokenVolume(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "volumes")
	pool, err := volume.OpenPool(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	m, err := a.db.CreateMachine(ctx, "admin", store.Machine{Name: "lab1", MACs: []store.MAC{{0x52, 0x54, 0, 0, 0, 1}}, Initiator: "iqn.2026-11.lunboot:lab1", Auth: store.AuthNone, Profile: store.DefaultProfile})
	if err != nil {
		t.Fatal(err)
	}
	for lun, name := range []string{"good", "broken"} {
		v := store.Volume{Name: name, Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: name + ".raw", UUID: store.UUID{15: byte(lun + 1)}}
		if err := pool.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		if v, err = a.db.CreateVolume(ctx, "admin", v); err != nil {
			t.Fatal(err)
		}
		if _, err := a.db.CreateMapping(ctx, "admin", store.Mapping{Machine: m.ID, Volume: v.ID, LUN: store.LUN(lun)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "broken.raw"), 512); err != nil {
		t.Fatal(err)
	}
	c := newCatalog(a.db, pool)
	opened, err := c.Open(ctx, m.Initiator, [6]byte{})
	if err != nil || len(opened.LUNs) != 1 || opened.LUNs[0].Name != "good" {
		t.Fatalf("at login: %v, %+v", err, opened.LUNs)
	}
	defer opened.Release()
	if err := a.db.DeleteMapping(ctx, "admin", m.ID, 0); err != nil {
		t.Fatal(err)
	}
	now, err := c.Refresh(ctx, m.Initiator)
	if err != nil || len(now.LUNs) != 0 {
		t.Fatalf("the live session keeps what was unmapped: %v, %+v", err, now.LUNs)
	}
	now.Release()
	if _, err := c.Open(ctx, m.Initiator, [6]byte{}); store.KindOf(err) != store.KindCorrupt {
		t.Errorf("the next login is told %v, and not that its volume is broken", err)
	}
}

// An unfinished wipe is of a file and not of a name: neither a file that was put in
// its place nor another volume of the name is it.
func TestAnUnfinishedWipeKnowsItsFile(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "volumes")
	pool, err := volume.OpenPool(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	c := newCatalog(a.db, pool)
	c.folder = dir
	create := func() store.Volume {
		v := store.Volume{Name: "scratch", Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Path: "scratch.raw", Sanitize: true, UUID: store.NewUUID()}
		if err := pool.Create(ctx, v); err != nil {
			t.Fatal(err)
		}
		if v, err = a.db.CreateVolume(ctx, "admin", v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	bytesOf := func(v store.Volume) string {
		m, err := c.Volume(ctx, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		return m.LUNs[0].Bytes
	}
	v := create()
	begun := bytesOf(v)
	if begun == "" || bytesOf(v) != begun {
		t.Fatalf("its file is %q, and then %q", begun, bytesOf(v))
	}
	if err := a.db.BeginWipe(ctx, v.ID, store.Wipe{Bytes: begun}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, v.Path)
	changed := func() time.Time {
		m, err := c.Volume(ctx, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Release()
		return m.LUNs[0].Changed
	}
	left := changed()
	if left.IsZero() || !changed().Equal(left) {
		t.Fatalf("it was changed at %s, and then at %s, by looking at it", left, changed())
	}
	if err := os.Chtimes(path, time.Time{}, left.Add(time.Nanosecond)); err != nil {
		t.Fatal(err)
	}
	if bytesOf(v) != begun || changed().Equal(left) {
		t.Error("a file that was written to is taken for one that was not")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if bytesOf(v) == begun {
		t.Error("a file that was put in its place is taken for it")
	}
	if err := errors.Join(a.db.DeleteVolume(ctx, "admin", v.ID), pool.Remove(ctx, v)); err != nil {
		t.Fatal(err)
	}
	if ids, err := a.db.UnfinishedWipes(ctx); err != nil || len(ids) > 0 {
		t.Errorf("unfinished when the volume has gone: %v, %v", ids, err)
	}
	if w, err := a.db.Wipe(ctx, create().ID); err != nil || w != nil {
		t.Errorf("another volume of its name has %+v, %v", w, err)
	}
}

func TestAVolumeWhoseFileIsGoneIsNoUnknownInitiator(t *testing.T) {
	err := broken("win11", store.NotFound("file", "win11.raw"))
	if store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "open volume win11") || store.CauseOf(err) != store.CauseUnopened {
		t.Error(err)
	}
	// One that says so itself is not said to be opened twice.
	err = broken("win11", &store.Error{Kind: store.KindCorrupt, Op: "open volume", Subject: "win11", Msg: "the file was cut"})
	if err.Error() != "open volume win11: the file was cut" || store.KindOf(err) != store.KindCorrupt || store.CauseOf(err) != store.CauseUnopened {
		t.Error(err)
	}
	// What is known of the reason is kept.
	err = broken("win11", fmt.Errorf("a layer: %w", &store.Error{Kind: store.KindInUse, Op: "open", Cause: store.CauseHeld}))
	if store.KindOf(err) != store.KindInUse || store.CauseOf(err) != store.CauseHeld {
		t.Error(err)
	}
}

// What the catalogue keeps never hides a change that was acknowledged before
// the login began, whoever else logs in meanwhile.
func TestALoginSeesWhatChangedBeforeIt(t *testing.T) {
	ctx := t.Context()
	db, err := sqlite.Open(ctx, t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m, err := db.CreateMachine(ctx, "admin", store.Machine{Name: "lab-01", MACs: []store.MAC{{2}}, Initiator: "iqn.2026-11.test:lab-01", Auth: store.AuthNone, Profile: "san"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := db.CreateVolume(ctx, "admin", store.Volume{Name: "v", Kind: store.VolumeRaw, Size: 1 << 20, BlockSize: 512, Path: "v.raw"})
	if err != nil {
		t.Fatal(err)
	}
	c, initiator := newCatalog(db, nil), m.Initiator
	others, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for others.Err() == nil {
				if _, err := c.find(ctx, initiator); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 300 {
		lun := store.LUN(n)
		if _, err := db.CreateMapping(ctx, "admin", store.Mapping{Machine: m.ID, Volume: v.ID, LUN: lun}); err != nil {
			t.Fatal(err)
		}
		if r, err := c.find(ctx, initiator); err != nil || len(r.mappings) != 1 || r.mappings[0].LUN != lun {
			t.Fatalf("after mapping LUN %d: %+v, %v", lun, r.mappings, err)
		}
		m.CHAP = store.Credential{User: "u", Secret: fmt.Sprintf("secret-number-%d", n)}
		if m, err = db.UpdateMachine(ctx, "admin", m); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Access(ctx, initiator); err != nil || got.CHAP != m.CHAP {
			t.Fatalf("after a new secret: %+v, %v", got.CHAP, err)
		}
		if err := db.DeleteMapping(ctx, "admin", m.ID, lun); err != nil {
			t.Fatal(err)
		}
		if r, err := c.find(ctx, initiator); err != nil || len(r.mappings) != 0 {
			t.Fatalf("after unmapping LUN %d: %+v, %v", lun, r.mappings, err)
		}
	}
	stop()
	wg.Wait()
	if err := db.DeleteMachine(ctx, "admin", m.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Access(ctx, initiator); !store.IsNotFound(err) {
		t.Errorf("a machine that was removed: %v", err)
	}
}

func TestAnAddressThatAMachineWasHeardToAskForIsItsEvidence(t *testing.T) {
	a := quiet(t)
	mac, other := store.MAC{0x52, 0x54, 0, 0, 0, 1}, store.MAC{0x52, 0x54, 0, 0, 0, 2}
	first, second := netip.MustParseAddr("192.0.2.57"), netip.MustParseAddr("192.0.2.58")
	heard := &overheard{}
	e := evidence{db: a.db, now: time.Now, heard: heard}
	hear := func(who store.MAC, addr netip.Addr) {
		heard.learn(store.Event{Kind: store.EventDHCPOtherPick, MAC: who, Addr: addr})
	}
	owns := func(who store.MAC, addr netip.Addr) bool {
		ok, _ := e.Owns(t.Context(), addr, who)
		return ok
	}
	if owns(mac, first) {
		t.Error("it was never heard")
	}
	hear(mac, first)
	if !owns(mac, first) || owns(other, first) || owns(mac, second) {
		t.Error("what was heard of one machine counts for another, or for another address")
	}
	hear(mac, second)
	if owns(mac, first) || !owns(mac, second) {
		t.Error("not the last address counts")
	}
	for i := range 2 * maxOverheard {
		hear(store.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, first)
	}
	if n := len(heard.young) + len(heard.old); n > 2*maxOverheard {
		t.Errorf("%d addresses are remembered", n)
	}
	lease := store.Lease{Address: second, MAC: other, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}
	hear(mac, second)
	if err := a.db.PutLease(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if owns(mac, second) {
		t.Error("a lease of ours says that the address is another machine's")
	}
}

func TestAnAddressIsTheMachinesThatHasItsLease(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	machine := func(name string, mac store.MAC) store.Machine {
		m, err := a.db.CreateMachine(ctx, "admin", store.Machine{Name: name, MACs: []store.MAC{mac}, Initiator: store.IQN("iqn.2026-11.lunboot:" + name), Auth: store.AuthNone, Profile: store.DefaultProfile})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one, two := machine("lab-07", store.MAC{0x52, 0x54, 0, 0, 0, 7}), machine("lab-12", store.MAC{0x52, 0x54, 0, 0, 0, 12})
	now := time.Now()
	e := evidence{db: a.db, now: func() time.Time { return now }, heard: &overheard{}}
	addr := netip.MustParseAddr("192.0.2.57") // nobody answers for it on the wire
	other := func(addr netip.Addr, named store.MachineID) string {
		h, ok := e.Other(ctx, addr, named)
		if ok != (h.Machine != 0) {
			t.Errorf("%+v, %v", h, ok)
		}
		return h.Name
	}
	if got := other(addr, one.ID); got != "" {
		t.Errorf("an address of nobody is %s's", got)
	}
	lease := store.Lease{Address: addr, MAC: two.MACs[0], State: store.LeaseBound, Expires: now.Add(time.Hour)}
	if err := a.db.PutLease(ctx, lease); err != nil {
		t.Fatal(err)
	}
	if got := other(addr, one.ID); got != "lab-12" {
		t.Errorf("the address of lab-12 is %q's", got)
	}
	if got := other(addr, two.ID); got != "" {
		t.Errorf("lab-12 is kept from its own volumes, as its address is %s's", got)
	}
	if got := other(netip.MustParseAddr("127.0.0.1"), one.ID); got != "" {
		t.Errorf("the appliance's own host is %s", got)
	}
	now = now.Add(2 * time.Hour)
	if got := other(addr, one.ID); got != "" {
		t.Errorf("a lease that has ended says %s", got)
	}
	stranger := lease
	stranger.Address, stranger.MAC, stranger.Expires = netip.MustParseAddr("192.0.2.58"), store.MAC{2}, now.Add(time.Hour)
	if err := a.db.PutLease(ctx, stranger); err != nil {
		t.Fatal(err)
	}
	if got := other(stranger.Address, one.ID); got != "" {
		t.Errorf("a lease of a machine that nobody enrolled says %s", got)
	}
}

// Whoever looks for few of many events gets each once, in their order: from the
// table while they are far behind, and from memory then, though others are written
// meanwhile.
func TestWhoFollowsSomeEventsGetsEachOnce(t *testing.T) {
	table, err := sqlite.OpenJournal(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	journal, err := events.New(table, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := journal.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	emit := func(n int) {
		for range n {
			seq := journal.LastSeq() + 1
			journal.Emit(store.Event{Kind: []store.EventKind{store.EventISCSIIO, store.EventISCSILogin}[seq%2], Machine: store.MachineID(seq % 7), Detail: store.Detail{Key: "aWhisper"}})
		}
	}
	emit(3 * farBehind)
	log := eventLog{journal, table}
	for _, f := range []store.EventFilter{
		{Machine: 3, Limit: 100}, {Machine: 3, Limit: 1000000}, {Limit: 500},
		{Limit: 77, Search: store.EventSearch{Kinds: []store.EventKind{store.EventISCSILogin}, Machines: [][]store.MachineID{{3, 4}}}},
		{Limit: 77, Search: store.EventSearch{Kinds: []store.EventKind{}}},
	} {
		until := journal.LastSeq() + 500
		want := f
		var seen []int64
		for f.After < until {
			items, upto, err := log.After(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if upto < f.After || len(items) > f.Limit {
				t.Fatalf("from %d it comes to %d, with %d", f.After, upto, len(items))
			}
			for _, e := range items {
				if e.Detail.Key != "" || !want.Fits(&e) {
					t.Errorf("%+v comes", e)
				}
				seen = append(seen, e.Seq)
			}
			f.After = upto
			if journal.LastSeq() < until {
				emit(50)
			}
		}
		n := 0
		for seq := int64(1); seq <= f.After; seq++ {
			e := store.Event{Seq: seq, Kind: []store.EventKind{store.EventISCSIIO, store.EventISCSILogin}[seq%2], Machine: store.MachineID(seq % 7)}
			if want.Fits(&e) {
				if n >= len(seen) || seen[n] != seq {
					t.Fatalf("%+v: event %d does not come in its turn", want, seq)
				}
				n++
			}
		}
		if n != len(seen) {
			t.Errorf("%+v: %d come, %d fit", want, len(seen), n)
		}
	}
}
