package scsi

import (
	"bytes"
	"slices"
	"testing"

	"lunboot/store"
)

// Answers the human complaint "my machine says Input/output error and nobody can
// tell me why": a target that makes up a disk at LUN 0 sends the boot program
// reading from nothing. What is not mapped does not exist.
func TestNoLUN(t *testing.T) {
	other := func(t *testing.T) (*rig, *Nexus) {
		r := newRig(t)
		n := NewNexus(NexusConfig{OnNoLUN: func(_ [8]byte, cdb []byte) { r.noLUN = append(r.noLUN, CommandName(cdb)) }})
		n.SetMap(map[store.LUN]MapEntry{2: {Unit: r.unit}})
		return r, n
	}

	t.Run("INQUIRY says that no unit can be here", func(t *testing.T) {
		r, n := other(t)
		c := run(t, n, 0, "12 00 00 00ff 00", nil)
		wantGood(t, c)
		if len(c.In) < 36 || c.In[0] != 0x7f || c.In[2] != 0x06 || c.In[3]&0x0f != 0x02 {
			t.Fatalf("INQUIRY data %x", c.In)
		}
		if int(c.In[4]) != len(c.In)-5 {
			t.Errorf("additional length %d of %d bytes", c.In[4], len(c.In))
		}
		if got := string(c.In[8:32]); got != vendorID+productID {
			t.Errorf("vendor and product %q", got)
		}
		if len(r.noLUN) != 0 {
			t.Errorf("OnNoLUN was told of %q, which every scan sends", r.noLUN)
		}
	})
	t.Run("INQUIRY has no vital product data", func(t *testing.T) {
		_, n := other(t)
		for _, page := range []string{"00", "80", "83", "b0"} {
			wantSense(t, run(t, n, 0, "12 01"+page+"00ff 00", nil), 5, 0x24, 0)
		}
		wantSense(t, run(t, n, 0, "12 00 80 00ff 00", nil), 5, 0x24, 0)
	})
	t.Run("REPORT LUNS gives the true list on any LUN", func(t *testing.T) {
		_, n := other(t)
		list := "00000008 00000000 0002000000000000"
		for _, lun := range []store.LUN{0, 2, 7, 300} {
			wantData(t, run(t, n, lun, "a0 00 00 000000 00001000 00 00", nil), list)
		}
		wellKnown := [8]byte{0xc1, 0x01}
		wantData(t, runExpecting(t, n, wellKnown, "a0 00 00 000000 00001000 00 00", nil, 4096), list)
	})
	t.Run("REPORT LUNS of an initiator that has nothing is empty", func(t *testing.T) {
		n := NewNexus(NexusConfig{})
		wantData(t, run(t, n, 0, "a0 00 00 000000 00001000 00 00", nil), "00000000 00000000")
		n.SetMap(nil)
		wantData(t, run(t, n, 0, "a0 00 00 000000 00001000 00 00", nil), "00000000 00000000")
	})
	t.Run("REQUEST SENSE returns the reason as data", func(t *testing.T) {
		_, n := other(t)
		wantData(t, run(t, n, 0, "03 00 00 00 ff 00", nil), "70 00 05 00000000 0a 00000000 25 00 00 000000")
		wantData(t, run(t, n, 0, "03 01 00 00 ff 00", nil), "72 05 25 00 00000000")
	})
	t.Run("every other command of the table is refused and told", func(t *testing.T) {
		r, n := other(t)
		var want []string
		for code := range operations {
			for _, op := range operations[code] {
				if op.is(anyLUN) {
					continue
				}
				cdb := [16]byte{byte(code)}
				if op.is(serviceAction) {
					cdb[1] = op.action()
				}
				c := &Command{LUN: store.LUN(0).Wire(), CDB: cdb, Expected: 1 << 20}
				if p := n.Begin(c); !p.Done {
					t.Fatalf("%s was not answered by Begin", op.name)
				}
				wantSense(t, c, 5, 0x25, 0)
				want = append(want, op.name)
			}
		}
		if !slices.Equal(r.noLUN, want) {
			t.Fatalf("OnNoLUN was told of %q, want %q", r.noLUN, want)
		}
	})
	t.Run("iPXE's first commands fail with sense that it can read", func(t *testing.T) {
		n := NewNexus(NexusConfig{DescriptorSense: true})
		n.SetMap(map[store.LUN]MapEntry{2: {Unit: newRig(t).unit}})
		for _, cdb := range []string{"000000000000", "25 00 00000000 0000 00 00", "28 00 00000040 00 0004 00"} {
			if c := run(t, n, 0, cdb, nil); !bytes.Equal(c.Sense, unhex(t, "72 05 25 00 00000000")) {
				t.Fatalf("%s: status %02x sense %x", cdb, c.Status, c.Sense)
			}
		}
	})
	t.Run("an unknown command is refused for the LUN, not for the command", func(t *testing.T) {
		_, n := other(t)
		wantSense(t, run(t, n, 0, "c0 00 00 00 00 00", nil), 5, 0x25, 0)
	})
	t.Run("a nexus that never had a map has no units", func(t *testing.T) {
		n := NewNexus(NexusConfig{})
		wantSense(t, run(t, n, 0, "000000000000", nil), 5, 0x25, 0)
		rested := 0
		n.TargetReset(func() { rested++ })
		n.LogicalUnitReset([8]byte{}, func() { rested++ })
		n.ClearTaskSet([8]byte{}, func() { rested++ })
		if rested != 3 {
			t.Errorf("%d of 3 came to an end", rested)
		}
	})
}

func TestParseLUN(t *testing.T) {
	for _, tc := range []struct {
		name string
		wire [8]byte
		want store.LUN
		ok   bool
	}{
		{"peripheral addressing", [8]byte{0, 5}, 5, true},
		{"the largest peripheral LUN", [8]byte{0, 255}, 255, true},
		{"flat addressing", [8]byte{0x41, 0x00}, 256, true},
		{"flat addressing of a small LUN", [8]byte{0x40, 0x07}, 7, true},
		{"the largest LUN", [8]byte{0x7f, 0xff}, store.MaxLUN, true},
		{"another bus", [8]byte{0x01, 5}, 0, false},
		{"a second level", [8]byte{0, 1, 0, 1}, 0, false},
		{"a byte at the end", [8]byte{0, 1, 0, 0, 0, 0, 0, 1}, 0, false},
		{"logical unit addressing", [8]byte{0x80, 1}, 0, false},
		{"a well known logical unit", [8]byte{0xc1, 0x01}, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := ParseLUN(tc.wire)
			if ok != tc.ok || ok && got != tc.want {
				t.Fatalf("ParseLUN(%x) = %d, %v", tc.wire, got, ok)
			}
		})
	}
	for l := range store.MaxLUN + 1 {
		if got, ok := ParseLUN(l.Wire()); !ok || got != l {
			t.Fatalf("LUN %d comes back as %d, %v", l, got, ok)
		}
	}
}
