package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"lunboot/store"
)

func TestReadCapacity(t *testing.T) {
	t.Run("(10)", func(t *testing.T) {
		wantData(t, newRig(t).do("25 00 00000000 0000 00 00", nil), "000007ff 00000200")
		wantData(t, newRig(t, blocks4K).do("25 00 00000000 0000 00 00", nil), "000000ff 00001000")
	})
	t.Run("(16) of 512-byte blocks in 4096-byte physical ones", func(t *testing.T) {
		wantData(t, newRig(t).do("9e 10 0000000000000000 00000020 00 00", nil),
			"00000000000007ff 00000200 00 03 c000 00000000000000000000000000000000")
	})
	t.Run("(16) of 4096-byte blocks", func(t *testing.T) {
		wantData(t, newRig(t, blocks4K).do("9e 10 0000000000000000 00000020 00 00", nil),
			"00000000000000ff 00001000 00 00 c000 00000000000000000000000000000000")
	})
	t.Run("(16) is cut at the allocation length", func(t *testing.T) {
		wantData(t, newRig(t).do("9e 10 0000000000000000 0000000c 00 00", nil), "00000000000007ff 00000200")
	})
	t.Run("(10) sends large volumes to (16)", func(t *testing.T) {
		r := newRig(t)
		for _, tc := range []struct {
			blocks     int64
			ten, whole string
		}{
			{1 << 32, "ffffffff", "00000000ffffffff"},
			{1<<32 - 1, "fffffffe", "00000000fffffffe"},
			{1<<32 + 5, "ffffffff", "0000000100000004"},
		} {
			r.vol.size.Store(tc.blocks * 512)
			wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
			wantData(t, r.do("25 00 00000000 0000 00 00", nil), tc.ten+"00000200")
			wantData(t, r.do("9e 10 0000000000000000 00000008 00 00", nil), tc.whole)
		}
	})
	t.Run("a volume without a block has no last one", func(t *testing.T) {
		r := newRig(t)
		r.vol.size.Store(511)
		wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
		wantSense(t, r.do("25 00 00000000 0000 00 00", nil), 2, 0x3a, 0)
		wantSense(t, r.do("9e 10 0000000000000000 00000020 00 00", nil), 2, 0x3a, 0)
		wantSense(t, r.do("28 00 00000000 00 0001 00", nil), 5, 0x21, 0)
	})
	t.Run("a part of a block at the end is not counted", func(t *testing.T) {
		r := newRig(t)
		r.vol.size.Store(3*512 + 100)
		wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
		wantData(t, r.do("25 00 00000000 0000 00 00", nil), "00000002 00000200")
	})
}

func TestReportLUNs(t *testing.T) {
	r := newRig(t)
	n := NewNexus(NexusConfig{})
	n.SetMap(map[store.LUN]MapEntry{300: {Unit: r.unit}, 5: {Unit: r.unit}, 0: {Unit: r.unit}, 255: {Unit: r.unit}})
	whole := "00000020 00000000 0000000000000000 0005000000000000 00ff000000000000 412c000000000000"

	t.Run("lists rising LUNs in the form that they are addressed by", func(t *testing.T) {
		for _, sel := range []string{"00", "02"} {
			wantData(t, run(t, n, 0, "a0 00 "+sel+" 000000 00000100 00 00", nil), whole)
		}
	})
	t.Run("there are no well known units", func(t *testing.T) {
		wantData(t, run(t, n, 0, "a0 00 01 000000 00000100 00 00", nil), "00000000 00000000")
	})
	t.Run("other selections are refused", func(t *testing.T) {
		for _, sel := range []string{"03", "10", "11", "12", "ff"} {
			wantSense(t, run(t, n, 0, "a0 00 "+sel+" 000000 00000100 00 00", nil), 5, 0x24, 0)
		}
	})
	t.Run("a short list keeps the true length", func(t *testing.T) {
		wantData(t, run(t, n, 0, "a0 00 00 000000 00000010 00 00", nil), whole[:8+1+8+1+16])
	})
	t.Run("the longest list is whole", func(t *testing.T) {
		entries := map[store.LUN]MapEntry{}
		for l := range store.MaxLUN + 1 {
			entries[l] = MapEntry{Unit: r.unit}
		}
		n := NewNexus(NexusConfig{})
		n.SetMap(entries)
		defer n.Close()
		c := run(t, n, 0, "a0 00 00 000000 ffffffff 00 00", nil)
		wantGood(t, c)
		if len(c.In) != 8+8*len(entries) {
			t.Fatalf("%d bytes", len(c.In))
		}
	})
}

func TestRequestSense(t *testing.T) {
	t.Run("nothing to tell", func(t *testing.T) {
		wantData(t, newRig(t).do("03 00 00 00 ff 00", nil), "70 00 00 00000000 0a 00000000 00 00 00 000000")
		wantData(t, newRig(t).do("03 01 00 00 ff 00", nil), "72 00 00 00 00000000")
	})
	t.Run("a unit attention condition is returned as data, once", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
		wantData(t, run(t, n, 0, "03 00 00 00 12 00", nil), "70 00 06 00000000 0a 00000000 29 00 00 000000")
		wantGood(t, run(t, n, 0, "000000000000", nil))
	})
	t.Run("is cut at the allocation length", func(t *testing.T) {
		wantData(t, newRig(t).do("03 00 00 00 04 00", nil), "70 00 00 00")
	})
}

func TestReportSupportedOperationCodes(t *testing.T) {
	ask := func(options, code byte, action uint16) string {
		return fmt.Sprintf("a3 0c %02x %02x %04x 0000ffff 00 00", options, code, action)
	}
	t.Run("all commands of the table, rising", func(t *testing.T) {
		r := newRig(t)
		for _, rctd := range []byte{0, 0x80} {
			c := r.do(ask(rctd, 0, 0), nil)
			wantGood(t, c)
			if got := int(binary.BigEndian.Uint32(c.In)); got != len(c.In)-4 {
				t.Fatalf("length %d of %d bytes", got, len(c.In))
			}
			b := bytes.Clone(c.In[4:])
			last := -1
			for len(b) > 0 {
				code, action, servactv, ctdp := b[0], binary.BigEndian.Uint16(b[2:]), b[5]&1, b[5]&2 != 0
				if at := int(code)<<16 | int(action); at <= last {
					t.Fatalf("%02x/%x does not rise", code, action)
				} else {
					last = at
				}
				if ctdp != (rctd != 0) {
					t.Fatalf("%02x: CTDP %v", code, ctdp)
				}
				// One command: the usage data have the operation code, the
				// service action and the CDB's length.
				one := r.do(ask(1+servactv, code, action), nil)
				wantGood(t, one)
				n := int(b[7])
				if one.In[1] != 3 || int(one.In[3]) != n || len(one.In) != 4+n || one.In[4] != code || servactv == 1 && uint16(one.In[5]&0x1f) != action {
					t.Fatalf("%02x/%x: %x", code, action, one.In)
				}
				if want := []int{6, 10, 10, 0, 16, 12, 0, 0}[code>>5]; n != want {
					t.Fatalf("%02x: a CDB of %d bytes, want %d", code, n, want)
				}
				timed := r.do(ask(0x80|(1+servactv), code, action), nil)
				wantGood(t, timed)
				if timed.In[1] != 0x83 || len(timed.In) != 4+n+12 || timed.In[4+n+1] != 0x0a {
					t.Fatalf("%02x/%x with time-outs: %x", code, action, timed.In)
				}
				// The other way of asking is an error.
				wantSense(t, r.do(ask(2-servactv, code, action), nil), 5, 0x24, 0)
				b = b[8:]
				if ctdp {
					if binary.BigEndian.Uint16(b) != 0x0a {
						t.Fatalf("%02x: time-outs %x", code, b[:12])
					}
					b = b[12:]
				}
			}
		}
	})
	t.Run("the usage data of a READ", func(t *testing.T) {
		wantData(t, newRig(t).do(ask(1, 0x28, 0), nil), "00 03 000a 28 f8 ffffffff 00 ffff 04")
		wantData(t, newRig(t).do(ask(0x81, 0x28, 0), nil), "00 83 000a 28 f8 ffffffff 00 ffff 04 000a 00 00 00000000 0000001e")
	})
	t.Run("the time that a wipe takes is not foretold", func(t *testing.T) {
		r := newRig(t)
		r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}})
		for action, want := range map[uint16]string{1: "00000000", 2: "00000000", 0x1f: "0000001e"} {
			c := r.do(ask(0x82, 0x48, action), nil)
			wantGood(t, c)
			if got := fmt.Sprintf("%x", c.In[len(c.In)-4:]); got != want {
				t.Errorf("SANITIZE %02x is recommended %s seconds", action, got)
			}
		}
	})
	t.Run("a bit that is said to be ignored is, or is refused as reserved", testUsageData)
	t.Run("what is not in the table is not supported", func(t *testing.T) {
		r := newRig(t)
		wantData(t, r.do(ask(1, 0xc0, 0), nil), "00 01 0000")
		wantData(t, r.do(ask(2, 0xc0, 1), nil), "00 01 0000")
		wantData(t, r.do(ask(2, 0x9e, 0x1f), nil), "00 01 0000")
		wantData(t, r.do(ask(3, 0xc0, 0), nil), "00 01 0000")
	})
	t.Run("either form", func(t *testing.T) {
		r := newRig(t)
		wantData(t, r.do(ask(3, 0x00, 0), nil), "00 03 0006 000000000004")
		wantData(t, r.do(ask(3, 0x00, 1), nil), "00 01 0000")
		wantData(t, r.do(ask(3, 0x9e, 0x10), nil), "00 03 0010 9e10 0000000000000000 ffffffff 00 04")
		wantData(t, r.do(ask(3, 0x9e, 0x11), nil), "00 01 0000")
		wantData(t, r.do(ask(0x83, 0x00, 0), nil), "00 83 0006 000000000004 000a 00 00 00000000 0000001e")
		wantData(t, r.do(ask(0x83, 0x93, 0), nil), "00 83 0010 93f9 ffffffffffffffff ffffffff 00 04 000a 00 00 00000000 00000078")
		wantData(t, r.do(ask(0x83, 0x9e, 0x10), nil), "00 83 0010 9e10 0000000000000000 ffffffff 00 04 000a 00 00 00000000 0000001e")
		wantData(t, r.do(ask(0x83, 0x9e, 0x11), nil), "00 01 0000") // nothing is known of its time
	})
	t.Run("reserved options are refused", func(t *testing.T) {
		for o := byte(4); o < 8; o++ {
			wantSense(t, newRig(t).do(ask(o, 0, 0), nil), 5, 0x24, 0)
		}
	})
	t.Run("the rows are fit to be indexed", func(t *testing.T) {
		for code := range operations {
			rows := operations[code]
			for i, op := range rows {
				if op.name == "" || op.parse == nil || op.exec == nil || int(op.usage[0]) != code {
					t.Errorf("row %d of %02x is not whole", i, code)
				}
				if (len(rows) > 1) && !op.is(serviceAction) {
					t.Errorf("%s stands twice", op.name)
				}
				if CommandName([]byte(op.usage)) != op.name {
					t.Errorf("%s is found as %s", op.name, CommandName([]byte(op.usage)))
				}
			}
		}
	})
}

func TestReportSupportedTaskManagementFunctions(t *testing.T) {
	r := newRig(t)
	wantData(t, r.do("a3 0d 00 000000 00000004 00 00", nil), "da000000")
	wantData(t, r.do("a3 0d 80 000000 00000100 00 00", nil), "da00000c 000000000000000000000000")
	wantSense(t, r.do("a3 0d 00 000000 00000003 00 00", nil), 5, 0x24, 0)
}

func TestUnknownCommands(t *testing.T) {
	t.Run("an operation code that is not in the table", func(t *testing.T) {
		r := newRig(t)
		for code := range operations {
			if len(operations[code]) == 0 {
				wantSense(t, r.do(fmt.Sprintf("%02x 00", code), nil), 5, 0x20, 0)
			}
		}
	})
	t.Run("a service action that is not in the table", func(t *testing.T) {
		r := newRig(t)
		for code, known := range map[byte][]byte{0x9e: {0x10, 0x12}, 0xa3: {0x0a, 0x0c, 0x0d}, 0x5e: {0, 1, 2, 3}, 0x5f: {0, 1, 2, 3, 4, 5, 6, 7}, 0x83: {0}, 0x84: {0, 3, 4}} {
			for action := byte(0); action < 0x20; action++ {
				if !bytes.Contains(known, []byte{action}) {
					wantSense(t, r.do(fmt.Sprintf("%02x %02x", code, action), nil), 5, 0x24, 0)
				}
			}
		}
	})
	t.Run("NACA=1 asks for what NORMACA=0 denies", func(t *testing.T) {
		r := newRig(t)
		wantSense(t, r.do("00 00 00 00 00 04", nil), 5, 0x24, 0)
		wantSense(t, r.do("28 00 00000000 00 0001 04", nil), 5, 0x24, 0)
		wantSense(t, r.do("88 00 0000000000000000 00000001 00 04", nil), 5, 0x24, 0)
		wantSense(t, r.do("a8 00 00000000 00000001 00 04", nil), 5, 0x24, 0)
	})
	t.Run("and there is none to be a part of", func(t *testing.T) {
		r := newRig(t)
		copy(r.vol.data, pattern(1, 512))
		for _, cdb := range []string{testReady, reserve6, "2a 00 00000000 00 0001 00"} {
			c := &Command{CDB: cdbBytes(t, cdb), Attr: 4, Expected: 512}
			if p := r.nexus.Begin(c); !p.Done {
				t.Errorf("%s is to be executed with the ACA attribute", CommandName(c.CDB[:]))
			}
			wantSense(t, c, 5, 0x24, 0)
		}
		wantGood(t, run(t, r.join(NexusConfig{}), 0, read10, nil)) // nothing is reserved
	})
	t.Run("names for people", func(t *testing.T) {
		for cdb, want := range map[string]string{
			"25": "READ CAPACITY(10)", "9e10": "READ CAPACITY(16)", "9e1f": "operation code 9Eh", "c0": "operation code C0h", "": "TEST UNIT READY",
		} {
			if got := CommandName(unhex(t, cdb)); got != want {
				t.Errorf("%q is %q, want %q", cdb, got, want)
			}
		}
	})
}

func TestStartStopUnit(t *testing.T) {
	r := newRig(t)
	for _, b4 := range []string{"00", "01", "04", "05"} {
		wantGood(t, r.do("1b 01 00 00 "+b4+" 00", nil))
		wantGood(t, r.do("000000000000", nil))
		wantGood(t, r.do("28 00 00000000 00 0001 00", nil))
	}
	for _, b4 := range []string{"02", "03", "10", "20", "30", "70", "f0"} {
		wantSense(t, r.do("1b 00 00 00 "+b4+" 00", nil), 5, 0x24, 0)
	}
}

// testUsageData takes the CDB usage data at its word: to turn on a bit that is 0
// in it changes nothing, or ends the command with INVALID FIELD IN CDB that
// points at the bit's byte.
func testUsageData(t *testing.T) {
	type outcome struct {
		status    byte
		sense, in string
		plan      Plan
	}
	try := func(cdb []byte) (outcome, []byte) {
		r := newRig(t, func(c *UnitConfig) { c.Volume = newMemory(32 << 10) })
		r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}})
		defer r.unit.Stop()
		out := make([]byte, 1024)
		c := &Command{Expected: 512}
		if cdb[0] == 0x89 {
			c.Expected = 1024
		}
		copy(c.CDB[:], cdb)
		p := r.nexus.Begin(c)
		if p.Dir == DirOut {
			c.Out = out[:min(p.Len, c.Expected)]
		}
		r.nexus.Execute(context.Background(), c)
		return outcome{c.Status, fmt.Sprintf("%x", c.Sense), fmt.Sprintf("%x", c.In), p}, c.Sense
	}
	for code := range operations {
		for _, op := range operations[code] {
			base := make([]byte, op.length())
			base[0] = byte(code)
			if op.is(serviceAction) {
				base[1] = op.action()
			}
			if op.is(reads | writes | looks) {
				base[len(base)-2-len(base)/12] = 1 // one block, or byte: the last byte of the length
			}
			want, _ := try(base)
			for at := 1; at < len(base); at++ {
				for bit := range 8 {
					mask := byte(1) << bit
					if op.usage[at]&mask != 0 || at == 1 && op.is(serviceAction) && bit < 5 {
						continue
					}
					cdb := append([]byte{}, base...)
					cdb[at] |= mask
					got, sense := try(cdb)
					refused := len(sense) == 18 && sense[2] == 5 && sense[12] == 0x24 && int(sense[17]) <= at && at <= int(sense[17])+3
					if got != want && !refused {
						t.Errorf("%s: bit %d of byte %d is said to be ignored: %+v, without it %+v", op.name, bit, at, got, want)
					}
				}
			}
		}
	}
}
