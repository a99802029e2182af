package scsi

import (
	"context"
	"runtime"
	"testing"

	"lunboot/store"
)

// FuzzCDB sends any CDB to any LUN with any data. Nothing panics, every command
// ends in a status, what is not mapped gives nothing away, what may not be
// written is not written, and no CDB makes the appliance allocate more than a
// unit can hold.
func FuzzCDB(f *testing.F) {
	for code := range operations {
		for _, op := range operations[code] {
			cdb := make([]byte, 16)
			copy(cdb, op.usage)
			clear(cdb[2:op.length()])
			for _, lun := range []byte{0, 1, 2} {
				f.Add([]byte{0, lun}, cdb, make([]byte, 512), 512)
			}
		}
	}
	for _, seed := range []struct {
		cdb, out string
	}{
		{"28 00 00000000 00 0001 00", ""},
		{"2f 06 00000000 00 0010 00", "00"},
		{"42 00 00000000 00 0018 00", "0016 0010 00000000 0000000000000005 00000001 00000000"},
		{"15 10 00 00 10 00", "00000000 0a0a 0610 08 000000 ffff0000"},
		{"55 10 00 00 000000 0014 00", "0000000000000000 0a0a 0610 00 000000 ffff0000"},
		{"a3 0c 83 9e 0010 0000ffff 00 00", ""},
		{"9e 12 0000000000000000 ffffffff 00 00", ""},
		{"a0 00 02 000000 ffffffff 00 00", ""},
		{"5a 10 3f ff 000000 ffff 00", ""},
		{"12 01 83 ffff 00", ""},
		{"88 00 ffffffffffffffff ffffffff 00 00", ""},
		{"03 01 00 00 ff 00", ""},
	} {
		f.Add([]byte{0, 0}, unhex(f, seed.cdb), unhex(f, seed.out), 4096)
		f.Add([]byte{0xc1, 1}, unhex(f, seed.cdb), unhex(f, seed.out), 4096)
	}

	vol, golden := newMemory(1<<20), newMemory(1<<20)
	unit := NewUnit(UnitConfig{UUID: testUUID, BlockSize: 512, Volume: vol})
	readOnly := NewUnit(UnitConfig{UUID: testUUID, BlockSize: 4096, Volume: golden, ReadOnly: true})
	entries := map[store.LUN]MapEntry{0: {Unit: unit}, 1: {Unit: readOnly}}

	f.Fuzz(func(t *testing.T, lun, cdb, out []byte, expected int) {
		noLUN := 0
		n := NewNexus(NexusConfig{PortName: "iqn.x,t,0x0001", DescriptorSense: len(out)%2 == 1, OnNoLUN: func([8]byte, []byte) { noLUN++ }})
		n.SetMap(entries)
		defer n.Close()
		for _, i := range n.luns.Load().byLUN {
			i.pending.Store(0)
		}
		c := &Command{Expected: expected}
		copy(c.LUN[:], lun)
		copy(c.CDB[:], cdb)

		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p := n.Begin(c)
		if p.Len < 0 || p.Len > maxTransfer {
			t.Fatalf("plan %+v", p)
		}
		if p.Dir == DirOut {
			c.Out = out[:min(len(out), p.Len, max(expected, 0))]
		}
		if p.Done && c.Status == StatusGood {
			t.Fatal("GOOD before it was executed")
		}
		if !n.TryExecute(c) {
			n.Execute(context.Background(), c)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 2<<20 {
			t.Fatalf("%d bytes allocated", got)
		}

		switch c.Status {
		case StatusGood:
			if len(c.Sense) != 0 {
				t.Fatalf("GOOD with sense data %x", c.Sense)
			}
		case StatusCheckCondition:
			senseOf(t, c.Sense)
			if want := byte(0x70) | byte(len(out)%2)<<1; c.Sense[0]&0x7f != want && unit.mode.Load()&modeDSense == 0 {
				t.Fatalf("sense data %x, want format %02x", c.Sense, want)
			}
			fallthrough
		case StatusReservationConflict:
			if len(c.In) != 0 {
				t.Fatalf("status %02x with %d bytes", c.Status, len(c.In))
			}
		default:
			t.Fatalf("status %02x", c.Status)
		}
		if len(c.In) > 0 && (p.Dir != DirIn || len(c.In) > p.Len) {
			t.Fatalf("%d bytes, plan %+v", len(c.In), p)
		}
		if _, mapped := entries[firstLUN(c.LUN)]; !mapped {
			switch c.CDB[0] {
			case 0x12, 0xa0, 0x03:
			default:
				key, asc, _ := senseOf(t, c.Sense)
				if c.Status != StatusCheckCondition || key != 5 || asc != 0x25 || noLUN != 1 {
					t.Fatalf("status %02x, sense %x, OnNoLUN called %d times", c.Status, c.Sense, noLUN)
				}
			}
		}
		if !isZero(golden.data) {
			t.Fatal("a read-only volume was written")
		}
	})
}

// firstLUN is ParseLUN with a LUN that nobody has for what names none.
func firstLUN(b [8]byte) store.LUN {
	if l, ok := ParseLUN(b); ok {
		return l
	}
	return store.MaxLUN
}

// FuzzModeSelect and FuzzUnmap feed the two parameter lists that are parsed. A
// list that is refused changes nothing.
func FuzzModeSelect(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 8, 18, 4}, true)
	f.Add(append([]byte{0, 0, 0, 0}, modePages[2].fixed...), true)
	f.Add(append([]byte{0, 0, 0, 0, 0, 0, 0, 0}, modePages[1].fixed...), false)
	f.Fuzz(func(t *testing.T, list []byte, six bool) {
		r := newRig(t)
		i := r.nexus.find([8]byte{})
		mode, err := i.selected(list, six, defaultMode)
		if err != nil {
			return
		}
		if mode&^(modeWCE|modeDSense|modeSWP) != 0 {
			t.Fatalf("mode %x", mode)
		}
	})
}

func FuzzUnmap(f *testing.F) {
	f.Add(unmapList(0, 8, 100, 1))
	f.Add(unmapList(^uint64(0), 0xffffffff))
	f.Fuzz(func(t *testing.T, list []byte) {
		ranges, err := unmapRanges(list, testBlocks)
		if err != nil {
			return
		}
		for _, r := range ranges {
			if r.lba > testBlocks || r.blocks > testBlocks-r.lba {
				t.Fatalf("%+v is out of range", r)
			}
		}
	})
}
