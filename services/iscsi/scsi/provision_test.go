package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"
)

// unmapList is an UNMAP parameter list of (LBA, blocks) pairs.
func unmapList(ranges ...uint64) []byte {
	n := len(ranges) / 2 * 16
	b := binary.BigEndian.AppendUint16(nil, uint16(n+6))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, 0, 0, 0, 0)
	for i := 0; i < len(ranges); i += 2 {
		b = binary.BigEndian.AppendUint64(b, ranges[i])
		b = binary.BigEndian.AppendUint32(b, uint32(ranges[i+1]))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func (r *rig) unmap(ranges ...uint64) *Command {
	r.t.Helper()
	list := unmapList(ranges...)
	return r.do(fmt.Sprintf("42 00 00000000 00 %04x 00", len(list)), list)
}

func (r *rig) fillAll(b byte) {
	for i := range r.vol.data {
		r.vol.data[i] = b
	}
	r.vol.mark(0, int64(len(r.vol.data)), true)
}

// foreseeing is a volume that notes what it is told of.
type foreseeing struct {
	*memory
	seen [][2]int64
	late bool
	err  error
}

func (f *foreseeing) Foresee(_ context.Context, ranges iter.Seq2[int64, int64]) error {
	for off, n := range ranges {
		f.seen = append(f.seen, [2]int64{off, n})
		f.late = f.late || f.data[off] != 'a'
	}
	return f.err
}

func TestUnmap(t *testing.T) {
	t.Run("the blocks read zero, their neighbours are kept", func(t *testing.T) {
		r := newRig(t)
		r.fillAll('a')
		wantGood(t, r.unmap(8, 16, 100, 1))
		want := bytes.Repeat([]byte{'a'}, len(r.vol.data))
		clear(want[8*512 : 24*512])
		clear(want[100*512 : 101*512])
		if !bytes.Equal(r.vol.data, want) {
			t.Fatal("other bytes are zero")
		}
	})
	t.Run("nothing to do is GOOD", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("42 00 00000000 00 0000 00", nil))
		wantGood(t, r.unmap())
		wantGood(t, r.unmap(0, 0, testBlocks, 0))
		if r.vol.mapped[0] {
			t.Fatal("something was written")
		}
	})
	t.Run("the volume is told of all ranges before the first of them goes", func(t *testing.T) {
		v := &foreseeing{}
		r := newRig(t, func(cfg *UnitConfig) { v.memory = cfg.Volume.(*memory); cfg.Volume = v })
		r.fillAll('a')
		wantGood(t, r.unmap(8, 16, 100, 1))
		if want := [][2]int64{{8 * 512, 16 * 512}, {100 * 512, 512}}; !slices.Equal(v.seen, want) {
			t.Errorf("it is told of %v, want %v", v.seen, want)
		}
		if v.late {
			t.Error("it is told when blocks are erased already")
		}
		v.err = errors.New("injected")
		if c := r.unmap(0, 1, 2, 1); c.Status == StatusGood || r.vol.data[0] != 'a' {
			t.Error("it says no, and blocks are erased")
		}
	})
	t.Run("a bad descriptor after a good one changes nothing", func(t *testing.T) {
		r := newRig(t)
		r.fillAll('a')
		wantSense(t, r.unmap(8, 16, testBlocks, 1), 5, 0x21, 0)
		wantSense(t, r.unmap(8, 16, testBlocks-1, 2), 5, 0x21, 0)
		wantSense(t, r.unmap(8, 16, 1<<63, 1), 5, 0x21, 0)
		wantSense(t, r.unmap(8, 16, ^uint64(0), 0xffffffff), 5, 0x21, 0)
		if bytes.Contains(r.vol.data, []byte{0}) {
			t.Fatal("something was unmapped")
		}
	})
	t.Run("the announced limits are kept", func(t *testing.T) {
		big := newMemory(0)
		r := newRig(t, func(c *UnitConfig) { c.Volume = big })
		big.size.Store(1 << 40)
		var unmapped int64
		big.fail = func(op string, _ int64) error {
			if op == "unmap" {
				unmapped++
			}
			return errors.New("stop")
		}
		wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
		wantSense(t, r.unmap(0, maxUnmapBlocks+1), 5, 0x26, 0)
		wantSense(t, r.unmap(0, maxUnmapBlocks, 1<<30, 1), 5, 0x26, 0)
		wantSense(t, r.unmap(make([]uint64, 2*(maxUnmapRanges+1))...), 5, 0x26, 0)
		if unmapped != 0 {
			t.Fatal("something was unmapped")
		}
		wantSense(t, r.unmap(0, maxUnmapBlocks), 3, 0x0c, 0)
		big.fail = nil
		wantGood(t, r.unmap(make([]uint64, 2*maxUnmapRanges)...))
	})
	t.Run("a cut list is a length error", func(t *testing.T) {
		r := newRig(t)
		wantSense(t, r.do("42 00 00000000 00 0007 00", make([]byte, 7)), 5, 0x1a, 0)
		wantSense(t, r.do("42 00 00000000 00 0018 00", make([]byte, 8)), 5, 0x1a, 0)
	})
	t.Run("a cut descriptor is none", func(t *testing.T) {
		r := newRig(t)
		r.fillAll('a')
		list := unmapList(0, 8, 16, 8)[:8+16+15]
		wantGood(t, r.do(fmt.Sprintf("42 00 00000000 00 %04x 00", len(list)), list))
		if r.vol.data[0] != 0 || r.vol.data[16*512] != 'a' {
			t.Fatal("the first is to be unmapped, the second not")
		}
		list = unmapList(24, 8, 32, 8)
		binary.BigEndian.PutUint16(list[2:], 16) // the list says one
		wantGood(t, r.do(fmt.Sprintf("42 00 00000000 00 %04x 00", len(list)), list))
		if r.vol.data[24*512] != 0 || r.vol.data[32*512] != 'a' {
			t.Fatal("the first is to be unmapped, the second not")
		}
	})
	t.Run("ANCHOR is refused", func(t *testing.T) {
		list := unmapList(0, 8)
		wantSense(t, newRig(t).do("42 01 00000000 00 0018 00", list), 5, 0x24, 0)
	})
}

func TestWriteSame(t *testing.T) {
	for _, w := range writeSames {
		for _, flags := range []byte{0, 0x08} {
			name := map[byte]string{0: w.name, 0x08: w.name + " with UNMAP"}[flags]
			t.Run(name+" writes the block to each", func(t *testing.T) {
				r := newRig(t)
				block := pattern(3, 512)
				wantGood(t, r.do(w.cdb(5, 1100, flags), block)) // more than two chunks
				want := make([]byte, len(r.vol.data))
				copy(want[5*512:], bytes.Repeat(block, 1100))
				if !bytes.Equal(r.vol.data, want) {
					t.Fatal("other bytes")
				}
			})
			t.Run(name+" of zeros", func(t *testing.T) {
				r := newRig(t)
				r.fillAll('a')
				used := map[string]int{}
				r.vol.fail = func(op string, _ int64) error { used[op]++; return nil }
				wantGood(t, r.do(w.cdb(8, 16, flags), make([]byte, 512)))
				want := bytes.Repeat([]byte{'a'}, len(r.vol.data))
				clear(want[8*512 : 24*512])
				if !bytes.Equal(r.vol.data, want) {
					t.Fatal("other bytes")
				}
				if op := map[byte]string{0: "zero", 0x08: "unmap"}[flags]; used[op] != 1 || len(used) != 1 {
					t.Fatalf("used %v, want one %s", used, op)
				}
			})
		}
		t.Run(w.name+" of no blocks does not mean all", func(t *testing.T) {
			r := newRig(t)
			r.fillAll('a')
			wantSense(t, r.do(w.cdb(0, 0, 0), make([]byte, 512)), 5, 0x24, 0)
			wantSense(t, r.do(w.cdb(0, 0, 0x08), make([]byte, 512)), 5, 0x24, 0)
			if bytes.Contains(r.vol.data, []byte{0}) {
				t.Fatal("something was written")
			}
		})
		t.Run(w.name+" beyond the end is refused", func(t *testing.T) {
			r := newRig(t)
			wantGood(t, r.do(w.cdb(testBlocks-1, 1, 0), make([]byte, 512)))
			wantSense(t, r.do(w.cdb(testBlocks-1, 2, 0), make([]byte, 512)), 5, 0x21, 0)
			wantSense(t, r.do(w.cdb(0x80000000, 1, 0), make([]byte, 512)), 5, 0x21, 0)
		})
		t.Run(w.name+" with ANCHOR, LBDATA or PBDATA is refused", func(t *testing.T) {
			for _, flags := range []byte{0x10, 0x18, 0x02, 0x04, 0x06} {
				wantSense(t, newRig(t).do(w.cdb(0, 1, flags), make([]byte, 512)), 5, 0x24, 0)
			}
		})
	}
	t.Run("(16) without data writes zeros", func(t *testing.T) {
		for _, flags := range []string{"01", "09"} {
			r := newRig(t)
			r.fillAll('a')
			c := &Command{CDB: cdbBytes(t, "93 "+flags+" 0000000000000008 00000008 00 00")}
			if p := r.nexus.Begin(c); p.Dir != DirNone || !p.Slow {
				t.Fatalf("plan %+v", p)
			}
			r.nexus.Execute(context.Background(), c)
			wantGood(t, c)
			if !isZero(r.vol.data[8*512:16*512]) || bytes.Count(r.vol.data, []byte{0}) != 8*512 {
				t.Fatal("other bytes")
			}
		}
	})
	t.Run("(10) has no NDOB", func(t *testing.T) {
		wantSense(t, newRig(t).do("41 01 00000000 00 0001 00", make([]byte, 512)), 5, 0x24, 0)
	})
	t.Run("(16) beyond the announced maximum is refused", func(t *testing.T) {
		r := newRig(t)
		r.vol.size.Store(1 << 40)
		wantSense(t, r.do("000000000000", nil), 6, 0x2a, 9)
		wantSense(t, r.do(cdb16(0x93)(0, maxWriteSame+1, 0x09), nil), 5, 0x24, 0)
	})
	t.Run("4096-byte blocks", func(t *testing.T) {
		r := newRig(t, blocks4K)
		block := pattern(3, 4096)
		wantGood(t, r.do("41 00 00000002 00 0064 00", block))
		if !bytes.Equal(r.vol.data[2*4096:102*4096], bytes.Repeat(block, 100)) || !isZero(r.vol.data[102*4096:]) {
			t.Fatal("other bytes")
		}
	})
}

func TestGetLBAStatus(t *testing.T) {
	const all = "00000400"
	status := func(lba uint64, alloc string) string { return fmt.Sprintf("9e 12 %016x %s 00 00", lba, alloc) }

	t.Run("an empty volume is one deallocated run", func(t *testing.T) {
		wantData(t, newRig(t).do(status(0, all), nil), "00000014 00000000 0000000000000000 00000800 01 000000")
	})
	t.Run("runs follow each other from the block asked for", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000010 00 0010 00", make([]byte, 16*512)))
		wantData(t, r.do(status(5, all), nil), `00000034 00000000
			0000000000000005 0000000b 01 000000
			0000000000000010 00000010 00 000000
			0000000000000020 000007e0 01 000000`)
		wantData(t, r.do(status(0x1f, all), nil), `00000024 00000000
			000000000000001f 00000001 00 000000
			0000000000000020 000007e0 01 000000`)
	})
	t.Run("the allocation length bounds the list, one run is always told", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000010 00 0010 00", make([]byte, 16*512)))
		wantData(t, r.do(status(0, "00000018"), nil), "00000014 00000000 0000000000000000 00000010 01 000000")
		wantData(t, r.do(status(0, "00000004"), nil), "00000014")
		wantData(t, r.do(status(0, "00000000"), nil), "")
	})
	t.Run("what is unmapped is deallocated, what is written again is mapped", func(t *testing.T) {
		r := newRig(t)
		r.fillAll('a')
		wantGood(t, r.unmap(0, 8))
		wantData(t, r.do(status(0, "00000018"), nil), "00000014 00000000 0000000000000000 00000008 01 000000")
		wantData(t, r.do(status(8, "00000018"), nil), "00000014 00000000 0000000000000008 000007f8 00 000000")
		wantGood(t, r.do("2a 00 00000003 00 0001 00", make([]byte, 512)))
		wantData(t, r.do(status(0, "00000018"), nil), "00000014 00000000 0000000000000000 00000800 00 000000")
	})
	t.Run("beyond the end is refused", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do(status(testBlocks-1, all), nil))
		wantSense(t, r.do(status(testBlocks, all), nil), 5, 0x21, 0)
		wantSense(t, r.do(status(^uint64(0), all), nil), 5, 0x21, 0)
	})
	t.Run("a checkered volume is told in bounded parts", func(t *testing.T) {
		big := newMemory(8 << 20)
		r := newRig(t, func(c *UnitConfig) { c.Volume = big })
		for g := 0; g < len(big.mapped); g += 2 {
			big.mapped[g] = true
		}
		c := r.do(status(0, "ffffffff"), nil)
		wantGood(t, c)
		if got := (len(c.In) - 8) / 16; got != maxStatusRanges {
			t.Fatalf("%d runs", got)
		}
	})
	t.Run("a volume that answers in small steps is told in long runs", func(t *testing.T) {
		v := &stepping{newMemory(testBlocks * 512), 100} // less than a block
		r := newRig(t, func(c *UnitConfig) { c.Volume = v })
		wantData(t, r.do(status(0, all), nil), "00000014 00000000 0000000000000000 00000800 00 000000")
		v.step = 1024
		wantData(t, r.do(status(0, all), nil), "00000014 00000000 0000000000000000 00000800 01 000000")
		v.step = 0
		wantGood(t, r.do(status(0, all), nil))
		v.step = -5
		wantGood(t, r.do(status(0, all), nil))
		v.step = 1 << 62
		wantData(t, r.do(status(0, all), nil), "00000014 00000000 0000000000000000 00000800 01 000000")
	})
}

// stepping is a volume whose BlockStatus never looks farther than step.
type stepping struct {
	*memory
	step int64
}

func (s *stepping) BlockStatus(context.Context, int64, int64) (bool, int64, error) {
	return false, s.step, nil
}
