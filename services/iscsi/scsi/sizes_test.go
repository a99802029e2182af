package scsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"lunboot/store"
)

// Every command that counts in blocks counts in those of its unit, and is told
// so in bytes and in block addresses: each is run on a unit of 512-byte and on
// one of 4096-byte blocks, within the volume, at its end and behind it.
func TestEveryBlockCommandInBothBlockSizes(t *testing.T) {
	const lba, blocks = 5, 3
	for _, size := range []int{512, 4096} {
		last := uint64(testBlocks*512/size - 1)
		old, fresh := pattern(1, blocks*size), pattern(2, blocks*size)
		one := pattern(3, size)
		union := make([]byte, blocks*size)
		for k := range union {
			union[k] = old[k] | fresh[k]
		}
		covered := map[byte]bool{}
		for _, tc := range []struct {
			cmd   blockCommand
			flags byte
			out   []byte // what is sent for three blocks
			in    []byte // what comes
			after []byte // what the volume has afterwards; old when nil
			per   int    // bytes to send for a block; 0: those of out whatever the length
		}{
			{cmd: readCommands[0], in: old}, {cmd: readCommands[1], in: old}, {cmd: readCommands[2], in: old}, {cmd: readCommands[3], in: old},
			{cmd: readCommands[1], flags: 0x18, in: old},
			{cmd: writeCommands[0], out: fresh, after: fresh, per: size}, {cmd: writeCommands[1], out: fresh, after: fresh, per: size},
			{cmd: writeCommands[2], out: fresh, after: fresh, per: size}, {cmd: writeCommands[3], out: fresh, after: fresh, per: size},
			{cmd: writeCommands[3], flags: 0x18, out: fresh, after: fresh, per: size},
			{cmd: verifyWrites[0], out: fresh, after: fresh, per: size}, {cmd: verifyWrites[1], out: fresh, after: fresh, per: size}, {cmd: verifyWrites[2], out: fresh, after: fresh, per: size},
			{cmd: verifyWrites[0], flags: 2, out: fresh, after: fresh, per: size}, {cmd: verifyWrites[1], flags: 2, out: fresh, after: fresh, per: size}, {cmd: verifyWrites[2], flags: 2, out: fresh, after: fresh, per: size},
			{cmd: verifies[0]}, {cmd: verifies[1]}, {cmd: verifies[2]},
			{cmd: verifies[0], flags: 2, out: old, per: size}, {cmd: verifies[1], flags: 2, out: old, per: size}, {cmd: verifies[2], flags: 2, out: old, per: size},
			{cmd: prefetches[0]}, {cmd: prefetches[1]}, {cmd: synchronizes[0]}, {cmd: synchronizes[1]},
			{cmd: writeSames[0], out: one, after: bytes.Repeat(one, blocks)}, {cmd: writeSames[1], out: one, after: bytes.Repeat(one, blocks)},
			{cmd: writeSames[0], flags: 8, out: one, after: bytes.Repeat(one, blocks)}, {cmd: writeSames[1], flags: 8, out: one, after: bytes.Repeat(one, blocks)},
			{cmd: writeSames[0], flags: 8, out: make([]byte, size), after: make([]byte, blocks*size)}, {cmd: writeSames[1], flags: 8, out: make([]byte, size), after: make([]byte, blocks*size)},
			{cmd: writeSames[1], flags: 1, after: make([]byte, blocks*size)}, {cmd: writeSames[1], flags: 9, after: make([]byte, blocks*size)},
			{cmd: blockCommand{"COMPARE AND WRITE", cdb16(0x89)}, out: slices.Concat(old, fresh), after: fresh, per: 2 * size},
			{cmd: blockCommand{"ORWRITE(16)", cdb16(0x8b)}, out: fresh, after: union, per: size},
		} {
			t.Run(fmt.Sprintf("%s with %02x, %d", tc.cmd.name, tc.flags, size), func(t *testing.T) {
				r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
				copy(r.vol.data[lba*size:], old)
				want := bytes.Clone(r.vol.data)
				if tc.after != nil {
					copy(want[lba*size:], tc.after)
				}
				c := r.do(tc.cmd.cdb(lba, blocks, tc.flags), tc.out)
				wantGood(t, c)
				covered[c.CDB[0]] = true
				if !bytes.Equal(c.In, tc.in) {
					t.Error("other bytes came")
				}
				if !bytes.Equal(r.vol.data, want) {
					t.Error("the volume has other bytes")
				}
				out := func(n int) []byte {
					switch {
					case tc.per > 0:
						return make([]byte, tc.per*n)
					case len(tc.out) > 0:
						return tc.out[:size]
					}
					return nil
				}
				clear(r.vol.data) // what the commands that compare are to find
				wantGood(t, r.do(tc.cmd.cdb(last, 1, tc.flags), out(1)))
				for _, beyond := range []struct {
					lba  uint64
					n    int
					info uint64
				}{{last, 2, last + 1}, {last + 1, 1, last + 1}, {last + 7, 1, last + 7}} {
					c := r.do(tc.cmd.cdb(beyond.lba, beyond.n, tc.flags), out(beyond.n))
					wantSense(t, c, 5, 0x21, 0)
					if got := uint64(binary.BigEndian.Uint32(c.Sense[3:])); c.Sense[0] != 0xf0 || got != beyond.info {
						t.Errorf("block %d is named, %d is the first that is not there", got, beyond.info)
					}
				}
			})
		}
		// The others have lists of their own; together they are all commands that
		// name blocks.
		t.Run(fmt.Sprintf("UNMAP, %d", size), func(t *testing.T) {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			r.fillAll('a')
			want := bytes.Clone(r.vol.data)
			clear(want[lba*size : (lba+blocks)*size])
			clear(want[last*uint64(size):])
			wantGood(t, r.unmap(lba, blocks, last, 1))
			if !bytes.Equal(r.vol.data, want) {
				t.Error("the volume has other bytes")
			}
			wantSense(t, r.unmap(0, 1, last, 2), 5, 0x21, 0)
			wantSense(t, r.unmap(last+1, 1), 5, 0x21, 0)
			if !bytes.Equal(r.vol.data, want) {
				t.Error("an UNMAP that was refused unmapped")
			}
			covered[0x42] = true
		})
		t.Run(fmt.Sprintf("GET LBA STATUS, %d", size), func(t *testing.T) {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			r.vol.mark(32768, 8192, true)
			first, n := uint64(32768/size), uint64(8192/size)
			wantData(t, r.do(fmt.Sprintf("9e 12 %016x 00000100 00 00", 1), nil), fmt.Sprintf(`00000034 00000000
				%016x %08x 01 000000 %016x %08x 00 000000 %016x %08x 01 000000`, 1, first-1, first, n, first+n, last+1-first-n))
			wantSense(t, r.do(fmt.Sprintf("9e 12 %016x 00000100 00 00", last+1), nil), 5, 0x21, 0)
			covered[0x9e] = true
		})
		t.Run(fmt.Sprintf("READ CAPACITY, %d", size), func(t *testing.T) {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			wantData(t, r.do("25 00 00000000 0000 00 00", nil), fmt.Sprintf("%08x %08x", last, size))
			wantData(t, r.do("9e 10 0000000000000000 0000000c 00 00", nil), fmt.Sprintf("%016x %08x", last, size))
			covered[0x25] = true
		})
		t.Run(fmt.Sprintf("EXTENDED COPY, %d", size), func(t *testing.T) {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			copy(r.vol.data[lba*size:], old)
			wantGood(t, xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, piece{blocks: blocks, from: lba, to: last - blocks + 1})))
			if !bytes.Equal(r.vol.data[(last-blocks+1)*uint64(size):], old) {
				t.Error("the volume has other bytes")
			}
			wantSense(t, xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, piece{blocks: blocks, to: last - blocks + 2})), 0x0a, 0, 0)
			covered[0x83] = true
		})
		t.Run(fmt.Sprintf("SANITIZE, %d", size), func(t *testing.T) {
			r := newRig(t, func(c *UnitConfig) { c.BlockSize = size })
			r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, Sanitize: true}})
			t.Cleanup(r.unit.Stop)
			wantGood(t, r.do(overwrite(1, one)))
			if !bytes.Equal(r.vol.data, bytes.Repeat(one, int(last)+1)) {
				t.Error("not every block has the pattern")
			}
			wantSense(t, r.do(fmt.Sprintf("48 01 0000000000 %04x 00", size+5), make([]byte, size+5)), 5, 0x24, 0)
			wantGood(t, r.do("48 02 0000000000 0000 00", nil))
			if !isZero(r.vol.data) {
				t.Error("something is left")
			}
			covered[0x48] = true
		})
		for code := range operations {
			for _, op := range operations[code] {
				if (op.is(reads|writes) || slices.Contains([]byte{0x25, 0x2f, 0x34, 0x35, 0x83, 0x8f, 0x90, 0x91, 0x9e, 0xaf}, byte(code))) && !covered[byte(code)] {
					t.Errorf("%s is not run with blocks of %d bytes", op.name, size)
				}
			}
		}
	}
}
