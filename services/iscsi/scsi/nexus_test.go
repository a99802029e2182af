package scsi

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

const testUnitReady = "000000000000"

func TestUnitAttention(t *testing.T) {
	t.Run("power on is told once for each unit", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: r.unit}})
		for _, lun := range []store.LUN{0, 1} {
			wantSense(t, run(t, n, lun, testUnitReady, nil), 6, 0x29, 0)
			wantGood(t, run(t, n, lun, testUnitReady, nil))
		}
		wantGood(t, r.do(testUnitReady, nil)) // another session is not disturbed
	})
	t.Run("INQUIRY and REPORT LUNS leave it pending", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
		wantGood(t, run(t, n, 0, "12 00 00 00ff 00", nil))
		wantGood(t, run(t, n, 0, "12 01 83 00ff 00", nil))
		wantGood(t, run(t, n, 0, "a0 00 00 000000 00000100 00 00", nil))
		wantSense(t, run(t, n, 0, "25 00 00000000 0000 00 00", nil), 6, 0x29, 0)
	})
	t.Run("a write that meets it is not executed", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
		wantSense(t, run(t, n, 0, "2a 00 00000000 00 0001 00", pattern(1, 512)), 6, 0x29, 0)
		if !isZero(r.vol.data[:512]) {
			t.Fatal("written")
		}
	})
	t.Run("it goes before an unknown command", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
		wantSense(t, run(t, n, 0, "c0", nil), 6, 0x29, 0)
		wantSense(t, run(t, n, 0, "c0", nil), 5, 0x20, 0)
	})
	t.Run("a larger volume is told to every session", func(t *testing.T) {
		r := newRig(t)
		other := r.join(NexusConfig{})
		r.vol.data = append(r.vol.data, make([]byte, 1<<20)...)
		r.vol.size.Store(2 << 20)
		wantSense(t, r.do("28 00 00000000 00 0001 00", nil), 6, 0x2a, 9)
		wantSense(t, run(t, other, 0, testUnitReady, nil), 6, 0x2a, 9)
		wantGood(t, run(t, other, 0, testUnitReady, nil))
		wantGood(t, r.do(cdb10(0x28)(2*testBlocks-1, 1, 0), nil))
	})
	t.Run("several are told one by one, the heaviest first", func(t *testing.T) {
		r := newRig(t)
		other := r.join(NexusConfig{})
		other.TargetReset(func() {})
		other.LogicalUnitReset([8]byte{}, func() {})
		r.vol.size.Store(1 << 19)
		wantSense(t, r.do(testUnitReady, nil), 6, 0x29, 2)
		wantSense(t, r.do(testUnitReady, nil), 6, 0x29, 3)
		wantSense(t, r.do(testUnitReady, nil), 6, 0x2a, 9)
		wantGood(t, r.do(testUnitReady, nil))
	})
}

func TestSetMap(t *testing.T) {
	two := func(t *testing.T) (*rig, *Unit, *Nexus) {
		r := newRig(t)
		second := NewUnit(UnitConfig{Name: "data", UUID: store.NewUUID(), BlockSize: 512, Volume: newMemory(1 << 16)})
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: second}})
		for _, lun := range []store.LUN{0, 1} {
			wantSense(t, run(t, n, lun, testUnitReady, nil), 6, 0x29, 0)
		}
		return r, second, n
	}
	t.Run("the same map again is no news", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: second}})
		wantGood(t, run(t, n, 0, testUnitReady, nil))
		wantGood(t, run(t, n, 1, testUnitReady, nil))
	})
	t.Run("an added unit is told on those that were there", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: second}, 2: {Unit: r.unit}})
		wantSense(t, run(t, n, 2, testUnitReady, nil), 6, 0x29, 0)
		wantSense(t, run(t, n, 1, testUnitReady, nil), 6, 0x3f, 0x0e)
		// Telling it once is enough for all units (LUICLR=1).
		wantGood(t, run(t, n, 0, testUnitReady, nil))
		wantGood(t, run(t, n, 2, testUnitReady, nil))
	})
	t.Run("REPORT LUNS answers the question and ends it", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: second}, 2: {Unit: r.unit}})
		wantData(t, run(t, n, 0, "a0 00 00 000000 00000100 00 00", nil), "00000018 00000000 0000000000000000 0001000000000000 0002000000000000")
		wantGood(t, run(t, n, 0, testUnitReady, nil))
		wantGood(t, run(t, n, 1, testUnitReady, nil))
		wantSense(t, run(t, n, 2, testUnitReady, nil), 6, 0x29, 0)
		wantGood(t, run(t, n, 2, testUnitReady, nil))
	})
	t.Run("a removed unit does not exist any more", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{1: {Unit: second}})
		wantSense(t, run(t, n, 0, testUnitReady, nil), 5, 0x25, 0)
		wantSense(t, run(t, n, 1, testUnitReady, nil), 6, 0x3f, 0x0e)
		wantGood(t, run(t, n, 1, testUnitReady, nil))
		wantGood(t, r.do(testUnitReady, nil))
	})
	t.Run("a command that was begun before finishes on its unit", func(t *testing.T) {
		r, second, n := two(t)
		c := &Command{CDB: cdbBytes(t, "2a 00 00000000 00 0001 00"), Expected: 512, Out: pattern(1, 512)}
		if p := n.Begin(c); p.Done {
			t.Fatal("refused")
		}
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: second}})
		n.Execute(context.Background(), c)
		wantGood(t, c)
		if !bytes.Equal(r.vol.data[:512], pattern(1, 512)) {
			t.Fatal("written elsewhere")
		}
	})
	t.Run("another volume behind a LUN is a new unit", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: second}, 1: {Unit: r.unit}})
		for _, lun := range []store.LUN{0, 1} {
			wantSense(t, run(t, n, lun, testUnitReady, nil), 6, 0x29, 0)
		}
		wantSense(t, run(t, n, 0, testUnitReady, nil), 6, 0x3f, 0x0e)
		wantGood(t, run(t, n, 0, testUnitReady, nil))
		wantData(t, run(t, n, 0, "25 00 00000000 0000 00 00", nil), "0000007f 00000200")
	})
	t.Run("write protection comes and goes with a word", func(t *testing.T) {
		r, second, n := two(t)
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, ReadOnly: true}, 1: {Unit: second}})
		wantSense(t, run(t, n, 0, testUnitReady, nil), 6, 0x2a, 1)
		wantSense(t, run(t, n, 0, "2a 00 00000000 00 0001 00", make([]byte, 512)), 7, 0x27, 0)
		wantGood(t, run(t, n, 1, testUnitReady, nil))
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: second}})
		wantSense(t, run(t, n, 0, testUnitReady, nil), 6, 0x2a, 1)
		wantGood(t, run(t, n, 0, "2a 00 00000000 00 0001 00", make([]byte, 512)))
	})
	t.Run("removing the last unit leaves an empty list", func(t *testing.T) {
		_, _, n := two(t)
		n.SetMap(nil)
		wantData(t, run(t, n, 0, "a0 00 00 000000 00000100 00 00", nil), "00000000 00000000")
		wantSense(t, run(t, n, 0, testUnitReady, nil), 5, 0x25, 0)
	})
	t.Run("a closed nexus has nothing and takes nothing", func(t *testing.T) {
		r, _, n := two(t)
		n.Close()
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
		n.Close()
		wantSense(t, run(t, n, 0, testUnitReady, nil), 5, 0x25, 0)
		if len(r.unit.itls) != 1 {
			t.Fatalf("the unit knows %d nexuses, want the rig's own", len(r.unit.itls))
		}
	})
}

func TestResets(t *testing.T) {
	setUp := func(t *testing.T) (r *rig, other *Nexus, resets *[]store.LUN) {
		r = newRig(t)
		resets = new([]store.LUN)
		other = NewNexus(NexusConfig{Abort: func(l store.LUN, rest func()) int { *resets = append(*resets, l); rest(); return 0 }})
		other.SetMap(map[store.LUN]MapEntry{4: {Unit: r.unit}})
		wantSense(t, run(t, other, 4, testUnitReady, nil), 6, 0x29, 0)
		return r, other, resets
	}
	t.Run("a logical unit reset is told to every session, and the others abort", func(t *testing.T) {
		r, other, resets := setUp(t)
		r.nexus.LogicalUnitReset([8]byte{}, func() {})
		wantSense(t, r.do(testUnitReady, nil), 6, 0x29, 3)
		wantGood(t, r.do(testUnitReady, nil))
		wantSense(t, run(t, other, 4, testUnitReady, nil), 6, 0x29, 3)
		if !slices.Equal(*resets, []store.LUN{4}) {
			t.Fatalf("Abort was told of %v", *resets)
		}
	})
	t.Run("a target reset, too", func(t *testing.T) {
		r, other, resets := setUp(t)
		r.nexus.TargetReset(func() {})
		wantSense(t, r.do(testUnitReady, nil), 6, 0x29, 2)
		wantGood(t, r.do(testUnitReady, nil))
		wantSense(t, run(t, other, 4, testUnitReady, nil), 6, 0x29, 2)
		if !slices.Equal(*resets, []store.LUN{4}) {
			t.Fatalf("Abort was told of %v", *resets)
		}
	})
	t.Run("units that the initiator has not are left alone", func(t *testing.T) {
		r, other, resets := setUp(t)
		second := newRig(t)
		second.nexus.TargetReset(func() {})
		wantGood(t, run(t, other, 4, testUnitReady, nil))
		if len(*resets) != 0 {
			t.Fatal("Abort was called")
		}
		rested := false
		r.nexus.LogicalUnitReset(store.LUN(4).Wire(), func() { rested = true }) // not mapped: nothing to wait for
		if !rested || len(*resets) != 0 {
			t.Fatalf("a LUN that is not mapped: rested %v, told %v", rested, *resets)
		}
	})
	t.Run("a reset is over when the others' tasks are", func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex // they are asked at the same time
		var rests []func()
		for range 2 {
			r.join(NexusConfig{Abort: func(_ store.LUN, rest func()) int {
				mu.Lock()
				defer mu.Unlock()
				rests = append(rests, rest)
				return 1
			}})
		}
		rested := 0
		r.nexus.TargetReset(func() { rested++ })
		for k, rest := range rests {
			if rested != 0 {
				t.Fatalf("the reset was over when %d of 2 sessions had come to rest", k)
			}
			rest()
		}
		if rested != 1 {
			t.Fatalf("%d ends of one reset", rested)
		}
	})
	t.Run("CLEAR TASK SET is told to those who lost tasks", func(t *testing.T) {
		r := newRig(t)
		busy := r.join(NexusConfig{Abort: func(_ store.LUN, rest func()) int { rest(); return 3 }})
		idle := r.join(NexusConfig{Abort: func(_ store.LUN, rest func()) int { rest(); return 0 }})
		rested := false
		r.nexus.ClearTaskSet([8]byte{}, func() { rested = true })
		wantSense(t, run(t, busy, 0, testUnitReady, nil), 6, 0x2f, 0)
		wantGood(t, run(t, idle, 0, testUnitReady, nil))
		wantGood(t, r.do(testUnitReady, nil))
		if !rested {
			t.Error("it never ended")
		}
	})
	t.Run("reservations and mode end", func(t *testing.T) {
		r, other, _ := setUp(t)
		wantGood(t, r.do("15 10 00 00 10 00", unhex(t, "00000000 0a0a 0610 08 000000 ffff0000")))
		wantGood(t, r.do("160000000000", nil))
		other.LogicalUnitReset(store.LUN(4).Wire(), func() {})
		for _, want := range [][2]byte{{0x29, 3}, {0x2a, 1}} {
			wantSense(t, run(t, other, 4, testUnitReady, nil), 6, want[0], want[1])
		}
		wantGood(t, run(t, other, 4, testUnitReady, nil))
		wantSense(t, r.do(testUnitReady, nil), 6, 0x29, 3)
		wantGood(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)))
	})
}

func TestReserve(t *testing.T) {
	for _, form := range []struct{ name, reserve, release string }{
		{"(6)", "16 00 00 00 00 00", "17 00 00 00 00 00"},
		{"(10)", "56 00 00 00 00 00 00 0000 00", "57 00 00 00 00 00 00 0000 00"},
	} {
		t.Run("RESERVE"+form.name+" keeps the others out", func(t *testing.T) {
			r := newRig(t)
			other := r.join(NexusConfig{})
			wantGood(t, r.do(form.reserve, nil))
			wantGood(t, r.do(form.reserve, nil))
			wantGood(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)))
			for _, cdb := range []string{form.reserve, testUnitReady, "28 00 00000000 00 0001 00", "2a 00 00000000 00 0001 00", "1a 00 3f 00 ff 00", "35 00 00000000 00 0000 00"} {
				wantConflict(t, run(t, other, 0, cdb, nil))
			}
			for _, cdb := range []string{"12 00 00 00ff 00", "a0 00 00 000000 00000100 00 00", "03 00 00 00 ff 00", "25 00 00000000 0000 00 00"} {
				wantGood(t, run(t, other, 0, cdb, nil))
			}
			wantGood(t, run(t, other, 0, form.release, nil)) // releases nothing
			wantConflict(t, run(t, other, 0, testUnitReady, nil))
			wantGood(t, r.do(form.release, nil))
			wantGood(t, run(t, other, 0, form.reserve, nil))
			wantConflict(t, r.do(testUnitReady, nil))
		})
		t.Run("RESERVE"+form.name+" ends with its nexus, or with the mapping", func(t *testing.T) {
			r := newRig(t)
			for _, end := range []func(n *Nexus){func(n *Nexus) { n.Close() }, func(n *Nexus) { n.SetMap(nil) }} {
				holder := r.join(NexusConfig{})
				wantGood(t, run(t, holder, 0, form.reserve, nil))
				wantConflict(t, r.do(testUnitReady, nil))
				end(holder)
				wantGood(t, r.do(testUnitReady, nil))
			}
		})
		t.Run("RESERVE"+form.name+" that is late leaves nothing behind", func(t *testing.T) {
			r := newRig(t)
			holder := r.join(NexusConfig{})
			c := &Command{CDB: cdbBytes(t, form.reserve)}
			holder.Begin(c)
			holder.Close()
			holder.Execute(context.Background(), c)
			wantSense(t, c, 5, 0x25, 0)
			wantGood(t, r.do(testUnitReady, nil))
		})
	}
	t.Run("extents and third parties are refused", func(t *testing.T) {
		r := newRig(t)
		for _, cdb := range []string{"16 01 00 00 00 00", "16 10 00 00 00 00", "17 10 00 00 00 00", "56 12 00 00 00 00 00 0000 00", "56 00 00 00 00 00 00 0008 00"} {
			wantSense(t, r.do(cdb, nil), 5, 0x24, 0)
		}
	})
}

func TestTryExecute(t *testing.T) {
	begin := func(t *testing.T, r *rig, cdb string) *Command {
		c := &Command{CDB: cdbBytes(t, cdb), Expected: 1 << 20, In: make([]byte, 0, 4096)}
		r.nexus.Begin(c)
		return c
	}
	t.Run("answers a READ from memory", func(t *testing.T) {
		r := newRig(t)
		copy(r.vol.data, pattern(1, 1024))
		c := begin(t, r, "28 00 00000000 00 0002 00")
		if !r.nexus.TryExecute(c) {
			t.Fatal("not answered")
		}
		wantGood(t, c)
		if !bytes.Equal(c.In, pattern(1, 1024)) || r.vol.reads.Load() != 0 {
			t.Fatal("other bytes, or a read")
		}
		r.nexus.Execute(context.Background(), c)
		if r.vol.reads.Load() != 0 {
			t.Fatal("Execute ran it again")
		}
	})
	t.Run("leaves a READ that must wait to Execute", func(t *testing.T) {
		r := newRig(t)
		r.vol.resident.Store(false)
		copy(r.vol.data, pattern(1, 1024))
		c := begin(t, r, "28 00 00000000 00 0002 00")
		if r.nexus.TryExecute(c) {
			t.Fatal("answered")
		}
		r.nexus.Execute(context.Background(), c)
		wantGood(t, c)
		if !bytes.Equal(c.In, pattern(1, 1024)) {
			t.Fatal("other bytes")
		}
	})
	t.Run("leaves everything else to Execute", func(t *testing.T) {
		r := newRig(t)
		for _, cdb := range []string{"28 08 00000000 00 0002 00", "2a 00 00000000 00 0001 00", testUnitReady, "12 00 00 00ff 00", "c0"} {
			if c := begin(t, r, cdb); r.nexus.TryExecute(c) {
				t.Errorf("%s was answered", cdb)
			}
		}
	})
	t.Run("a READ of no blocks needs no memory", func(t *testing.T) {
		r := newRig(t)
		r.vol.resident.Store(false)
		c := begin(t, r, "28 00 00000000 00 0000 00")
		if !r.nexus.TryExecute(c) || len(c.In) != 0 {
			t.Fatal("not answered")
		}
		wantGood(t, c)
	})
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		cdb  string
		want Plan
	}{
		{testUnitReady, Plan{}},
		{"28 00 00000000 00 0003 00", Plan{Dir: DirIn, Len: 1536}},
		{"28 08 00000000 00 0003 00", Plan{Dir: DirIn, Len: 1536, Slow: true}},
		{"2a 00 00000000 00 0003 00", Plan{Dir: DirOut, Len: 1536}},
		{"2a 08 00000000 00 0003 00", Plan{Dir: DirOut, Len: 1536, Slow: true}},
		{"2a 00 00000000 00 0000 00", Plan{}},
		{"2e 02 00000000 00 0003 00", Plan{Dir: DirOut, Len: 1536, Slow: true}},
		{"2f 00 00000000 00 0003 00", Plan{Slow: true}},
		{"35 00 00000000 00 0000 00", Plan{Slow: true}},
		{"42 00 00000000 00 0018 00", Plan{Dir: DirOut, Len: 24, Slow: true}},
		{"12 00 00 0024 00", Plan{Dir: DirIn, Len: 36}},
		{"12 00 00 ffff 00", Plan{Dir: DirIn, Len: 65535}},
		{"a0 00 00 000000 ffffffff 00 00", Plan{Dir: DirIn, Len: maxParameterData}},
		{"25 00 00000000 0000 00 00", Plan{Dir: DirIn, Len: 8}},
		{"15 10 00 00 10 00", Plan{Dir: DirOut, Len: 16, Slow: true}},
		{"c0", Plan{Done: true}},
		{"28 00 7fffffff 00 0001 00", Plan{Done: true}},
	} {
		c := &Command{CDB: cdbBytes(t, tc.cdb), Expected: 1 << 20}
		if got := newRig(t).nexus.Begin(c); got != tc.want {
			t.Errorf("%s: plan %+v, want %+v", tc.cdb, got, tc.want)
		}
	}
	t.Run("a command is known by what it does", func(t *testing.T) {
		r := newRig(t)
		for cdb, want := range map[string][2]bool{
			testUnitReady: {false, false}, "28 00 00000000 00 0001 00": {true, false}, "2a 00 00000000 00 0001 00": {false, true},
			"41 00 00000000 00 0001 00": {false, true}, "2f 00 00000000 00 0001 00": {false, false},
		} {
			c := r.do(cdb, make([]byte, 512))
			if got := [2]bool{c.ReadsMedium(), c.WritesMedium()}; got != want {
				t.Errorf("%s: reads, writes %v", CommandName(c.CDB[:]), got)
			}
		}
		if c := r.do("c0", nil); c.ReadsMedium() || c.WritesMedium() {
			t.Error("an unknown command reads or writes")
		}
	})
	t.Run("a command may be used again", func(t *testing.T) {
		r := newRig(t)
		c := &Command{CDB: cdbBytes(t, "28 00 7fffffff 00 0001 00"), Expected: 512}
		r.nexus.Begin(c)
		wantSense(t, c, 5, 0x21, 0)
		c.CDB = cdbBytes(t, "28 00 00000000 00 0001 00")
		r.nexus.Begin(c)
		r.nexus.Execute(context.Background(), c)
		wantGood(t, c)
		if c.Sense != nil || len(c.In) != 512 {
			t.Fatalf("sense %x, %d bytes", c.Sense, len(c.In))
		}
	})
	t.Run("Execute without Begin begins", func(t *testing.T) {
		r := newRig(t)
		c := &Command{CDB: cdbBytes(t, "12 00 00 0024 00")}
		r.nexus.Execute(context.Background(), c)
		wantGood(t, c)
		c = &Command{CDB: cdbBytes(t, "c0")}
		r.nexus.Execute(context.Background(), c)
		wantSense(t, c, 5, 0x20, 0)
	})
	t.Run("Fail ends a command with the session's own sense data", func(t *testing.T) {
		r := newRig(t)
		c := &Command{CDB: cdbBytes(t, "2a 00 00000000 00 0001 00")}
		r.nexus.Fail(c, &sense.Data{Key: 0x0b, ASC: 0x0c, ASCQ: 0x0d})
		wantSense(t, c, 0x0b, 0x0c, 0x0d)
		n := NewNexus(NexusConfig{DescriptorSense: true})
		n.Fail(c, &sense.Data{Key: 0x0b, ASC: 0x0c, ASCQ: 0x0d})
		if c.Sense[0] != 0x72 {
			t.Fatalf("sense data %x", c.Sense)
		}
	})
}

func TestErrorsThatAreNoSense(t *testing.T) {
	t.Run("an error that is no sense data is not GOOD", func(t *testing.T) {
		r := newRig(t)
		c := &Command{}
		r.nexus.end(c, errors.New("something"))
		wantSense(t, c, 3, 0x11, 0)
	})
	t.Run("errors name themselves", func(t *testing.T) {
		if got := sense.NoLUN.Error() + ", " + errReservationConflict.Error(); got != "sense 05h/25h/00h, status 18h" {
			t.Fatal(got)
		}
	})
	t.Run("directions name themselves", func(t *testing.T) {
		if got := DirNone.String() + DirIn.String() + DirOut.String() + Dir(9).String(); got != "noneinoutunknown" {
			t.Fatal(got)
		}
	})
}

// Sessions come and go, maps change, resets arrive and volumes grow while others
// read and write; each command is answered and the bytes are right.
func TestConcurrency(t *testing.T) {
	r := newRig(t)
	const workers = 8
	stop := make(chan struct{})
	var storm, work sync.WaitGroup
	storm.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			n := NewNexus(NexusConfig{Abort: func(_ store.LUN, rest func()) int { rest(); return 0 }})
			n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
			n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, ReadOnly: i%2 == 0}, 3: {Unit: r.unit}})
			n.TargetReset(func() {})
			n.LogicalUnitReset([8]byte{}, func() {})
			n.SetMap(nil)
			n.Close()
		}
	})
	for w := range workers {
		work.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			n := NewNexus(NexusConfig{})
			n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
			defer n.Close()
			lba := uint64(w * 64)
			good := func(cdb string, out []byte) *Command {
				for range 1000 {
					c := run(t, n, 0, cdb, out)
					if c.Status == StatusGood {
						return c
					}
					if key, _, _ := senseOf(t, c.Sense); key != sense.KeyUnitAttention {
						t.Errorf("%s: sense %x", cdb, c.Sense)
						return c
					}
				}
				t.Errorf("%s: only unit attentions", cdb)
				return &Command{}
			}
			for i := range 300 {
				data := pattern(byte(rnd.Uint32()), 2*512)
				switch i % 4 {
				case 0:
					good(cdb10(0x2a)(lba, 2, byte(i%8)&fuaBit), data)
				case 1:
					old := bytes.Clone(good(cdb10(0x28)(lba, 2, 0), nil).In)
					good(cdb16(0x89)(lba, 2, 0), append(old, data...))
				case 2:
					good(cdb10(0x41)(lba, 2, 0x08), data[:512])
					copy(data[512:], data[:512])
				case 3:
					good(cdb16(0x93)(lba, 2, 0x09), nil)
					clear(data)
				}
				if got := good(cdb10(0x28)(lba, 2, 0), nil); !bytes.Equal(got.In, data) {
					t.Errorf("round %d: other bytes", i)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	storm.Wait()
	if len(r.unit.itls) != 1 {
		t.Fatalf("the unit knows %d nexuses, want the rig's own", len(r.unit.itls))
	}
}
