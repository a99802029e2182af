package scsi

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"lunboot/store"
)

const (
	recoveryPage   = "010a 00000000000000000000"
	cachingPage    = "0812 04 0000000000000000000000000000000000"
	controlPage    = "0a0a 02 10 00 000000 ffff 0000"
	exceptionsPage = "1c0a 08 000000000000000000"
	allPages       = recoveryPage + cachingPage + controlPage + exceptionsPage
)

func TestModeSense(t *testing.T) {
	t.Run("(6) of all pages", func(t *testing.T) {
		wantData(t, newRig(t).do("1a 00 3f 00 ff 00", nil), "43 00 10 08 00000800 00 000200"+allPages)
	})
	t.Run("(6) without block descriptor", func(t *testing.T) {
		wantData(t, newRig(t).do("1a 08 3f 00 ff 00", nil), "3b 00 10 00"+allPages)
		wantData(t, newRig(t).do("1a 08 3f ff ff 00", nil), "3b 00 10 00"+allPages)
	})
	t.Run("(10) of one page", func(t *testing.T) {
		wantData(t, newRig(t).do("5a 00 08 00 000000 00ff 00", nil), "0022 00 10 00 00 0008 00000800 00 000200"+cachingPage)
	})
	t.Run("(10) with the long block descriptor", func(t *testing.T) {
		wantData(t, newRig(t, blocks4K).do("5a 10 0a 00 000000 00ff 00", nil), "0022 00 10 01 00 0010 0000000000000100 00000000 00001000"+controlPage)
	})
	t.Run("each page alone", func(t *testing.T) {
		for code, page := range map[string]string{"01": recoveryPage, "08": cachingPage, "0a": controlPage, "1c": exceptionsPage} {
			n := len(unhex(t, page))
			wantData(t, newRig(t).do("1a 08 "+code+" 00 ff 00", nil), fmt.Sprintf("%02x 00 10 00", n+3)+page)
		}
	})
	t.Run("the write cache is on, DPO and FUA are supported", func(t *testing.T) {
		c := newRig(t).do("1a 08 08 00 ff 00", nil)
		wantGood(t, c)
		if c.In[2]&0x10 == 0 || c.In[4+2]&0x04 == 0 {
			t.Fatalf("%x", c.In)
		}
	})
	t.Run("a volume of more than 2^32 blocks does not fit the short descriptor", func(t *testing.T) {
		r := newRig(t)
		r.vol.size.Store(1 << 42)
		wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
		c := r.do("1a 00 08 00 ff 00", nil)
		wantGood(t, c)
		if !bytes.Equal(c.In[4:8], []byte{0xff, 0xff, 0xff, 0xff}) {
			t.Fatalf("%x", c.In)
		}
	})
	t.Run("changeable values are the three bits", func(t *testing.T) {
		wantData(t, newRig(t).do("1a 08 7f 00 ff 00", nil), `3b 00 10 00
			010a 00000000000000000000
			0812 04 0000000000000000000000000000000000
			0a0a 04 00 08 00000000000000
			1c0a 00000000000000000000`)
	})
	t.Run("default values outlive changes", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("15 10 00 00 10 00", unhex(t, "00000000 0a0a 0610 00 000000 ffff0000")))
		wantData(t, r.do("1a 08 8a 00 ff 00", nil), "0f 00 10 00"+controlPage)
	})
	t.Run("nothing is saved", func(t *testing.T) {
		wantSense(t, newRig(t).do("1a 08 ff 00 ff 00", nil), 5, 0x39, 0)
	})
	t.Run("page 0 of the current values is header and block descriptor alone", func(t *testing.T) {
		wantData(t, newRig(t).do("1a 00 00 00 ff 00", nil), "0b 00 10 08 00000800 00 000200")
		wantData(t, newRig(t).do("1a 08 00 00 ff 00", nil), "03 00 10 00")
		wantData(t, newRig(t).do("5a 00 00 00 000000 00ff 00", nil), "000e 00 10 00 00 0008 00000800 00 000200")
	})
	t.Run("unknown pages and subpages are refused", func(t *testing.T) {
		r := newRig(t)
		for _, cdb := range []string{"1a 08 40 00 ff 00", "1a 08 80 00 ff 00", "1a 08 00 ff ff 00", "1a 08 02 00 ff 00", "1a 08 0a 01 ff 00", "5a 00 3e 00 000000 00ff 00"} {
			wantSense(t, r.do(cdb, nil), 5, 0x24, 0)
		}
	})
	t.Run("is cut at the allocation length", func(t *testing.T) {
		wantData(t, newRig(t).do("1a 00 3f 00 04 00", nil), "43 00 10 08")
	})
}

func TestModeSelect(t *testing.T) {
	current := func(t *testing.T, r *rig) []byte {
		c := r.do("1a 08 3f 00 ff 00", nil)
		wantGood(t, c)
		return bytes.Clone(c.In)
	}
	t.Run("what MODE SENSE returned is accepted and changes nothing", func(t *testing.T) {
		r := newRig(t)
		for _, size := range []int{512, 4096} {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			list := r.do("1a 00 3f 00 ff 00", nil).In
			list[0], list[2] = 0, 0 // reserved in MODE SELECT
			wantGood(t, r.do("15 10 00 00 44 00", list))
			list = r.do("5a 10 3f 00 000000 00ff 00", nil).In
			list[0], list[1], list[3] = 0, 0, 0
			wantGood(t, r.do(fmt.Sprintf("55 10 00 00 000000 %04x 00", len(list)), list))
		}
		before := current(t, r)
		if !bytes.Equal(before, current(t, r)) {
			t.Fatal("changed")
		}
	})
	t.Run("the write cache is switched off and on", func(t *testing.T) {
		r := newRig(t)
		off := unhex(t, "00000000 0812 00 0000000000000000000000000000000000")
		wantGood(t, r.do("15 10 00 00 18 00", off))
		c := r.do("1a 08 08 00 ff 00", nil)
		if c.In[6]&0x04 != 0 {
			t.Fatal("still on")
		}
		off[6] = 0x04
		wantGood(t, r.do("15 10 00 00 18 00", off))
		c = r.do("1a 08 08 00 ff 00", nil)
		if c.In[6]&0x04 == 0 {
			t.Fatal("still off")
		}
	})
	t.Run("D_SENSE changes the format of sense data", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("55 10 00 00 000000 0014 00", unhex(t, "0000000000000000 0a0a 0610 00 000000 ffff0000")))
		if c := r.do("28 00 7fffffff 00 0001 00", nil); !bytes.Equal(c.Sense, unhex(t, "72 05 21 00 000000 0c 00 0a 80 00 000000007fffffff")) {
			t.Fatalf("%x", c.Sense)
		}
		if c := r.do("1a 08 0a 00 ff 00", nil); c.In[6]&0x04 == 0 {
			t.Fatal("not reported")
		}
	})
	t.Run("other nexuses are told, the one that asked is not", func(t *testing.T) {
		r := newRig(t)
		other := r.join(NexusConfig{})
		swp := unhex(t, "00000000 0a0a 0210 08 000000 ffff0000")
		wantGood(t, r.do("15 10 00 00 10 00", swp))
		wantGood(t, r.do("000000000000", nil))
		wantSense(t, run(t, other, 0, "000000000000", nil), 6, 0x2a, 1)
		wantGood(t, run(t, other, 0, "000000000000", nil))
		wantGood(t, r.do("15 10 00 00 10 00", swp)) // no change, no attention
		wantGood(t, run(t, other, 0, "000000000000", nil))
	})
	t.Run("a nexus that always gets descriptor format sends back what it was told", func(t *testing.T) {
		r := newRig(t)
		n := r.join(NexusConfig{DescriptorSense: true})
		list := bytes.Clone(run(t, n, 0, "1a 08 0a 00 ff 00", nil).In)
		if list[6]&0x04 == 0 {
			t.Fatal("D_SENSE is not told")
		}
		list[0], list[2] = 0, 0
		wantGood(t, run(t, n, 0, "15 10 00 00 10 00", list))
		if c := r.do("28 00 7fffffff 00 0001 00", nil); c.Sense[0] != 0xf0 {
			t.Fatalf("the others' format changed: %x", c.Sense)
		}
	})
	for name, list := range map[string]string{
		"a value that cannot change":             "00000000 0812 05 0000000000000000000000000000000000",
		"an unknown page":                        "00000000 020e 0000000000000000000000000000",
		"a page of another length":               "00000000 0808 00 00000000000000",
		"the reserved PS bit":                    "00000000 8a0a 0210 08 000000 ffff0000",
		"another block size":                     "00000008 00000000 00 001000",
		"another number of blocks":               "00000008 00000001 00 000200",
		"a block descriptor of another length":   "00000004 00000000",
		"a good page before a bad one":           "00000000 0a0a 0210 08 000000 ffff0000 1c0a 00 000000000000000000",
		"a bad page that sets the write protect": "00000000 0a0a 0210 08 000001 ffff0000",
	} {
		t.Run(name+" is refused and changes nothing", func(t *testing.T) {
			r := newRig(t)
			before := current(t, r)
			out := unhex(t, list)
			wantSense(t, r.do(fmt.Sprintf("15 10 00 00 %02x 00", len(out)), out), 5, 0x26, 0)
			if !bytes.Equal(before, current(t, r)) {
				t.Fatal("something changed")
			}
		})
	}
	for name, list := range map[string]string{
		"a cut header":           "0000",
		"a cut block descriptor": "00000008 000000",
		"a cut page":             "00000000 0a0a 0210",
		"a page code alone":      "00000000 08",
	} {
		t.Run(name+" is a length error", func(t *testing.T) {
			out := unhex(t, list)
			wantSense(t, newRig(t).do(fmt.Sprintf("15 10 00 00 %02x 00", len(out)), out), 5, 0x1a, 0)
		})
	}
	t.Run("a list that did not arrive is a length error", func(t *testing.T) {
		wantSense(t, newRig(t).do("15 10 00 00 10 00", make([]byte, 8)), 5, 0x1a, 0)
	})
	t.Run("no list is GOOD", func(t *testing.T) {
		wantGood(t, newRig(t).do("15 10 00 00 00 00", nil))
		wantGood(t, newRig(t).do("55 10 00 00 000000 0000 00", nil))
	})
	t.Run("saving, reverting and vendor's pages are refused", func(t *testing.T) {
		for _, cdb := range []string{"15 11 00 00 00 00", "15 12 00 00 00 00", "15 00 00 00 00 00", "55 11 00 00 000000 0000 00"} {
			wantSense(t, newRig(t).do(cdb, nil), 5, 0x24, 0)
		}
	})
	t.Run("an initiator that may not write may not change the others' mode", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, ReadOnly: true}})
		run(t, n, 0, "000000000000", nil)
		wantSense(t, run(t, n, 0, "15 10 00 00 10 00", unhex(t, "00000000 0a0a 0210 08 000000 ffff0000")), 7, 0x27, 0)
		wantGood(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)))
		// It is told so, and may send back what there is.
		if c := run(t, n, 0, "1a 08 4a 00 ff 00", nil); !isZero(c.In[6:]) {
			t.Errorf("changeable values %x", c.In)
		}
		wantGood(t, run(t, n, 0, "15 10 00 00 10 00", unhex(t, "00000000"+controlPage)))
	})
	t.Run("software write protection can be taken back", func(t *testing.T) {
		r := newRig(t)
		list := unhex(t, "00000000 0a0a 0210 08 000000 ffff0000")
		wantGood(t, r.do("15 10 00 00 10 00", list))
		wantSense(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)), 7, 0x27, 2)
		list[8] = 0
		wantGood(t, r.do("15 10 00 00 10 00", list))
		wantGood(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)))
	})
}

// What was acknowledged while the write cache was on is not left to it when it
// is switched off, after which nobody sends SYNCHRONIZE CACHE, nor when the unit
// becomes write protected (SPC-4 §7.5.8, SWP).
func TestModeSelectFlushesWhatTheCacheHolds(t *testing.T) {
	data := pattern(5, 512)
	for name, tc := range map[string]struct {
		list    string
		flushes int64
	}{
		"the write cache off":   {"00000000 0812 00 0000000000000000000000000000000000", 1},
		"write protection on":   {"00000000 0a0a 0210 08 000000 ffff0000", 1},
		"the write cache stays": {"00000000 0812 04 0000000000000000000000000000000000", 0},
		"D_SENSE":               {"00000000 0a0a 0610 00 000000 ffff0000", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			wantGood(t, r.do("2a 00 00000000 00 0001 00", data))
			list := unhex(t, tc.list)
			wantGood(t, r.do(fmt.Sprintf("15 10 00 00 %02x 00", len(list)), list))
			if got := r.vol.syncs.Load(); got != tc.flushes || got > 0 && !bytes.Equal(r.vol.durable[:512], data) {
				t.Errorf("%d flushes, want %d", got, tc.flushes)
			}
		})
	}
	t.Run("and changes nothing when that fails", func(t *testing.T) {
		r := newRig(t)
		other := r.join(NexusConfig{})
		before := bytes.Clone(r.do("1a 08 3f 00 ff 00", nil).In)
		r.vol.fail = func(op string, _ int64) error {
			if op == "sync" {
				return errors.New("input/output error")
			}
			return nil
		}
		wantSense(t, r.do("15 10 00 00 18 00", unhex(t, "00000000 0812 00 0000000000000000000000000000000000")), 3, 0x0c, 0)
		if c := r.do("1a 08 3f 00 ff 00", nil); !bytes.Equal(c.In, before) {
			t.Errorf("mode parameters are %x, were %x", c.In, before)
		}
		wantGood(t, run(t, other, 0, "000000000000", nil))
	})
	t.Run("away from the connection's goroutine", func(t *testing.T) {
		c := &Command{CDB: cdbBytes(t, "15 10 00 00 18 00"), Expected: 24}
		if p := newRig(t).nexus.Begin(c); !p.Slow {
			t.Error("it is not slow")
		}
	})
}
