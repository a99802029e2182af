package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
)

// readCommand and its siblings write CDBs of each length; blocks are 512 bytes.
type blockCommand struct {
	name string
	cdb  func(lba uint64, blocks int, flags byte) string
}

func cdb6(code byte) func(uint64, int, byte) string {
	return func(lba uint64, n int, _ byte) string { return fmt.Sprintf("%02x %06x %02x 00", code, lba, n&0xff) }
}

func cdb10(code byte) func(uint64, int, byte) string {
	return func(lba uint64, n int, f byte) string {
		return fmt.Sprintf("%02x %02x %08x 00 %04x 00", code, f, lba, n)
	}
}

func cdb12(code byte) func(uint64, int, byte) string {
	return func(lba uint64, n int, f byte) string {
		return fmt.Sprintf("%02x %02x %08x %08x 00 00", code, f, lba, n)
	}
}

func cdb16(code byte) func(uint64, int, byte) string {
	return func(lba uint64, n int, f byte) string {
		return fmt.Sprintf("%02x %02x %016x %08x 00 00", code, f, lba, n)
	}
}

var (
	readCommands = []blockCommand{{"READ(6)", cdb6(0x08)}, {"READ(10)", cdb10(0x28)}, {"READ(12)", cdb12(0xa8)}, {"READ(16)", cdb16(0x88)}}
	// The same four again for writing.
	writeCommands = []blockCommand{{"WRITE(6)", cdb6(0x0a)}, {"WRITE(10)", cdb10(0x2a)}, {"WRITE(12)", cdb12(0xaa)}, {"WRITE(16)", cdb16(0x8a)}}
	verifyWrites  = []blockCommand{{"WRITE AND VERIFY(10)", cdb10(0x2e)}, {"WRITE AND VERIFY(12)", cdb12(0xae)}, {"WRITE AND VERIFY(16)", cdb16(0x8e)}}
	verifies      = []blockCommand{{"VERIFY(10)", cdb10(0x2f)}, {"VERIFY(12)", cdb12(0xaf)}, {"VERIFY(16)", cdb16(0x8f)}}
	prefetches    = []blockCommand{{"PRE-FETCH(10)", cdb10(0x34)}, {"PRE-FETCH(16)", cdb16(0x90)}}
	synchronizes  = []blockCommand{{"SYNCHRONIZE CACHE(10)", cdb10(0x35)}, {"SYNCHRONIZE CACHE(16)", cdb16(0x91)}}
	writeSames    = []blockCommand{{"WRITE SAME(10)", cdb10(0x41)}, {"WRITE SAME(16)", cdb16(0x93)}}
)

func all(groups ...[]blockCommand) (list []blockCommand) {
	for _, g := range groups {
		list = append(list, g...)
	}
	return list
}

func TestReadAndWrite(t *testing.T) {
	for i, w := range writeCommands {
		t.Run(w.name+" then read", func(t *testing.T) {
			r := newRig(t)
			want := pattern(byte(i), 3*512)
			wantGood(t, r.do(w.cdb(7, 3, 0), want))
			if !bytes.Equal(r.vol.data[7*512:10*512], want) {
				t.Fatal("the volume has other bytes")
			}
			for _, rd := range readCommands {
				c := r.do(rd.cdb(7, 3, 0), nil)
				wantGood(t, c)
				if !bytes.Equal(c.In, want) {
					t.Fatalf("%s returned other bytes", rd.name)
				}
			}
		})
	}
	t.Run("4096-byte blocks", func(t *testing.T) {
		r := newRig(t, blocks4K)
		want := pattern(1, 2*4096)
		wantGood(t, r.do("2a 00 00000003 00 0002 00", want))
		c := r.do("28 00 00000003 00 0002 00", nil)
		wantGood(t, c)
		if !bytes.Equal(c.In, want) || !bytes.Equal(r.vol.data[3*4096:5*4096], want) {
			t.Fatal("other bytes")
		}
	})
	t.Run("length 0 of the 6-byte commands is 256 blocks", func(t *testing.T) {
		r := newRig(t)
		want := pattern(9, 256*512)
		wantGood(t, r.do("0a 00 00 00 00 00", want))
		c := r.do("08 00 00 00 00 00", nil)
		wantGood(t, c)
		if !bytes.Equal(c.In, want) {
			t.Fatalf("%d bytes came back", len(c.In))
		}
	})
	t.Run("a READ(6) finds LBA bits 16 to 20", func(t *testing.T) {
		big := newMemory(0x12345<<9 + 1<<20)
		r := newRig(t, func(c *UnitConfig) { c.Volume = big })
		wantGood(t, r.do("0a 01 23 45 01 00", pattern(3, 512)))
		if !bytes.Equal(big.data[0x12345<<9:][:512], pattern(3, 512)) {
			t.Fatal("written elsewhere")
		}
	})
	t.Run("DPO is accepted", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("28 10 00000000 00 0001 00", nil))
		wantGood(t, r.do("2a 10 00000000 00 0001 00", make([]byte, 512)))
	})
}

// Each command that names blocks checks them the same way.
func TestBlockRange(t *testing.T) {
	commands := all(readCommands, writeCommands, verifyWrites, verifies, prefetches, synchronizes)
	for _, cmd := range commands {
		t.Run(cmd.name, func(t *testing.T) {
			r := newRig(t)
			six := cmd.cdb(0, 1, 0)[0:1] == "0"
			wantGood(t, r.do(cmd.cdb(testBlocks-1, 1, 0), make([]byte, 512)))
			wantSense(t, r.do(cmd.cdb(testBlocks-1, 2, 0), make([]byte, 1024)), 5, 0x21, 0)
			wantSense(t, r.do(cmd.cdb(testBlocks, 1, 0), make([]byte, 512)), 5, 0x21, 0)
			if six {
				return
			}
			wantGood(t, r.do(cmd.cdb(0, 0, 0), nil))
			wantGood(t, r.do(cmd.cdb(testBlocks, 0, 0), nil))
			wantSense(t, r.do(cmd.cdb(testBlocks+1, 0, 0), nil), 5, 0x21, 0)
			wantSense(t, r.do(cmd.cdb(0xffffffff, 0, 0), nil), 5, 0x21, 0)
			wantSense(t, r.do(cmd.cdb(0xffffffff, 1, 0), make([]byte, 512)), 5, 0x21, 0)
		})
	}
	t.Run("LBA + length do not wrap around", func(t *testing.T) {
		r := newRig(t)
		wantSense(t, r.do("88 00 ffffffffffffffff 00000001 00 00", nil), 5, 0x21, 0)
		wantSense(t, r.do("88 00 ffffffffffffffff ffffffff 00 00", nil), 5, 0x21, 0)
		wantSense(t, r.do("88 00 8000000000000000 00000001 00 00", nil), 5, 0x21, 0)
	})
	t.Run("the first block that is not there is named", func(t *testing.T) {
		r := newRig(t)
		c := r.do(cdb10(0x28)(testBlocks-2, 4, 0), nil)
		wantSense(t, c, 5, 0x21, 0)
		if got := binary.BigEndian.Uint32(c.Sense[3:]); c.Sense[0] != 0xf0 || got != testBlocks {
			t.Fatalf("sense data %x", c.Sense)
		}
	})
}

func TestTransferLength(t *testing.T) {
	for _, cmd := range []blockCommand{readCommands[1], readCommands[2], readCommands[3], writeCommands[1], verifies[0], verifyWrites[2]} {
		t.Run(cmd.name+" beyond the announced maximum is refused", func(t *testing.T) {
			big := newMemory(10 << 20)
			r := newRig(t, func(c *UnitConfig) { c.Volume = big })
			wantSense(t, r.do(cmd.cdb(0, maxTransfer/512+1, 0), nil), 5, 0x24, 0)
		})
	}
	t.Run("the maximum itself is moved", func(t *testing.T) {
		big := newMemory(10 << 20)
		r := newRig(t, func(c *UnitConfig) { c.Volume = big })
		c := r.do(cdb10(0x28)(0, maxTransfer/512, 0), nil)
		wantGood(t, c)
		if len(c.In) != maxTransfer {
			t.Fatalf("%d bytes", len(c.In))
		}
	})
}

// No unit has protection information, so RDPROTECT and its kin ask for what is
// not there.
func TestProtectionInformation(t *testing.T) {
	for _, cmd := range all(readCommands[1:], writeCommands[1:], verifyWrites, verifies, writeSames,
		[]blockCommand{{"COMPARE AND WRITE", cdb16(0x89)}, {"ORWRITE(16)", cdb16(0x8b)}}) {
		t.Run(cmd.name, func(t *testing.T) {
			r := newRig(t)
			for p := byte(1); p < 8; p++ {
				wantSense(t, r.do(cmd.cdb(0, 1, p<<5), make([]byte, 512)), 5, 0x24, 0)
			}
		})
	}
}

// An initiator may announce less or more than the CDB moves; the difference is
// the residual count and not an error (RFC 7143 §11.4.5).
func TestResiduals(t *testing.T) {
	t.Run("a READ returns all that the CDB says", func(t *testing.T) {
		r := newRig(t)
		for _, expected := range []int{0, 200, 512, 10000} {
			c := runExpecting(t, r.nexus, [8]byte{}, "28 00 00000000 00 0002 00", nil, expected)
			wantGood(t, c)
			if len(c.In) != 1024 {
				t.Fatalf("expected %d: %d bytes", expected, len(c.In))
			}
		}
	})
	for _, w := range all(writeCommands[1:], verifyWrites) {
		t.Run(w.name+" writes what was announced and no more", func(t *testing.T) {
			for _, tc := range []struct{ blocks, expected, want int }{
				{1, 0, 0}, {1, 200, 200}, {2, 512, 512}, {1, 1024, 512}, {1, 10000, 512},
			} {
				r := newRig(t)
				wantGood(t, runExpecting(t, r.nexus, [8]byte{}, w.cdb(0, tc.blocks, 0), bytes.Repeat([]byte{'b'}, tc.expected), tc.expected))
				if got := bytes.Count(r.vol.data, []byte{'b'}); got != tc.want {
					t.Fatalf("%d blocks, %d announced: %d bytes written, want %d", tc.blocks, tc.expected, got, tc.want)
				}
			}
		})
	}
	t.Run("data that was announced and is missing is an error", func(t *testing.T) {
		r := newRig(t)
		for _, cdb := range []string{"2a 00 00000000 00 0002 00", "2e 02 00000000 00 0002 00", "2f 02 00000000 00 0002 00", "8b 00 0000000000000000 00000002 00 00", "89 00 0000000000000000 00000001 00 00"} {
			c := runExpecting(t, r.nexus, [8]byte{}, cdb, make([]byte, 1000), 1024)
			wantSense(t, c, 0x0b, 0x4b, 0)
		}
	})
	for _, cdb := range []string{
		"89 00 0000000000000000 00000001 00 00",
		"8b 00 0000000000000000 00000001 00 00",
		"41 00 00000000 00 0001 00",
		"93 08 0000000000000000 00000001 00 00",
		"2f 02 00000000 00 0001 00",
	} {
		name := CommandName(unhex(t, cdb))
		t.Run(name+" needs exactly its data", func(t *testing.T) {
			r := newRig(t)
			for _, n := range []int{0, 256, 511, 2048} {
				wantSense(t, runExpecting(t, r.nexus, [8]byte{}, cdb, make([]byte, n), n), 5, 0x24, 0)
			}
		})
	}
}

// A failed volume operation is never GOOD: every command that touches the volume
// is tried with every operation that it needs failing.
func TestVolumeErrors(t *testing.T) {
	disk := errors.New("input/output error")
	full := &store.Error{Kind: store.KindUnavailable, Op: "write volume", Err: syscall.ENOSPC}
	for _, tc := range []struct {
		name, cdb, op  string
		out            int
		err            error
		key, asc, ascq byte
	}{
		{"READ(6)", "08 00 00 05 01 00", "read", -1, disk, 3, 0x11, 0},
		{"READ(10)", "28 00 00000005 00 0001 00", "read", -1, disk, 3, 0x11, 0},
		{"READ(12)", "a8 00 00000005 00000001 00 00", "read", -1, disk, 3, 0x11, 0},
		{"READ(16)", "88 00 0000000000000005 00000001 00 00", "read", -1, disk, 3, 0x11, 0},
		{"READ(10) with FUA", "28 08 00000005 00 0001 00", "sync", -1, disk, 3, 0x0c, 0},
		{"WRITE(6)", "0a 00 00 05 01 00", "write", 512, disk, 3, 0x0c, 0},
		{"WRITE(10)", "2a 00 00000005 00 0001 00", "write", 512, disk, 3, 0x0c, 0},
		{"WRITE(10) to a full disk", "2a 00 00000005 00 0001 00", "write", 512, full, 7, 0x27, 7},
		{"WRITE(10) to a full disk, bare", "2a 00 00000005 00 0001 00", "write", 512, fmt.Errorf("pwrite: %w", syscall.ENOSPC), 7, 0x27, 7},
		{"WRITE(10) over a quota", "2a 00 00000005 00 0001 00", "write", 512, syscall.EDQUOT, 7, 0x27, 7},
		{"WRITE(10) that is denied", "2a 00 00000005 00 0001 00", "write", 512, &store.Error{Kind: store.KindDenied}, 7, 0x27, 0},
		{"WRITE(10) to a damaged volume", "2a 00 00000005 00 0001 00", "write", 512, &store.Error{Kind: store.KindCorrupt}, 3, 0x0c, 0},
		{"READ(10) of a damaged volume", "28 00 00000005 00 0001 00", "read", -1, &store.Error{Kind: store.KindCorrupt}, 3, 0x11, 0},
		{"READ(10) of an unavailable volume", "28 00 00000005 00 0001 00", "read", -1, &store.Error{Kind: store.KindUnavailable}, 3, 0x11, 0},
		{"READ(10) that is aborted", "28 00 00000005 00 0001 00", "read", -1, context.Canceled, 0x0b, 0, 0},
		{"WRITE(10) that is aborted", "2a 00 00000005 00 0001 00", "write", 512, context.DeadlineExceeded, 0x0b, 0, 0},
		{"WRITE(10) with FUA", "2a 08 00000005 00 0001 00", "sync", 512, disk, 3, 0x0c, 0},
		{"WRITE(10) with FUA to a full disk", "2a 08 00000005 00 0001 00", "sync", 512, full, 7, 0x27, 7},
		{"WRITE(12)", "aa 00 00000005 00000001 00 00", "write", 512, disk, 3, 0x0c, 0},
		{"WRITE(16)", "8a 00 0000000000000005 00000001 00 00", "write", 512, disk, 3, 0x0c, 0},
		{"WRITE(16) with FUA", "8a 08 0000000000000005 00000001 00 00", "sync", 512, disk, 3, 0x0c, 0},
		{"WRITE AND VERIFY(10)", "2e 00 00000005 00 0001 00", "write", 512, disk, 3, 0x0c, 0},
		{"WRITE AND VERIFY(10), reading back", "2e 00 00000005 00 0001 00", "read", 512, disk, 3, 0x11, 0},
		{"WRITE AND VERIFY(12), flushing", "ae 02 00000005 00000001 00 00", "sync", 512, disk, 3, 0x0c, 0},
		{"WRITE AND VERIFY(16), comparing", "8e 02 0000000000000005 00000001 00 00", "read", 512, disk, 3, 0x11, 0},
		{"VERIFY(10)", "2f 00 00000005 00 0001 00", "read", -1, disk, 3, 0x11, 0},
		{"VERIFY(12) comparing", "af 02 00000005 00000001 00 00", "read", 512, disk, 3, 0x11, 0},
		{"VERIFY(16) comparing one block", "8f 06 0000000000000005 00000004 00 00", "read", 512, disk, 3, 0x11, 0},
		{"SYNCHRONIZE CACHE(10)", "35 00 00000000 00 0000 00", "sync", -1, disk, 3, 0x0c, 0},
		{"SYNCHRONIZE CACHE(10) with IMMED", "35 02 00000000 00 0000 00", "sync", -1, disk, 3, 0x0c, 0},
		{"SYNCHRONIZE CACHE(16)", "91 00 0000000000000000 00000000 00 00", "sync", -1, full, 7, 0x27, 7},
		{"START STOP UNIT, stopping", "1b 00 00 00 00 00", "sync", -1, disk, 3, 0x0c, 0},
		{"COMPARE AND WRITE, reading", "89 00 0000000000000005 00000001 00 00", "read", 1024, disk, 3, 0x11, 0},
		{"COMPARE AND WRITE, writing", "89 00 0000000000000005 00000001 00 00", "write", 1024, disk, 3, 0x0c, 0},
		{"COMPARE AND WRITE with FUA", "89 08 0000000000000005 00000001 00 00", "sync", 1024, disk, 3, 0x0c, 0},
		{"ORWRITE(16), reading", "8b 00 0000000000000005 00000001 00 00", "read", 512, disk, 3, 0x11, 0},
		{"ORWRITE(16), writing", "8b 00 0000000000000005 00000001 00 00", "write", 512, disk, 3, 0x0c, 0},
		{"ORWRITE(16) with FUA", "8b 08 0000000000000005 00000001 00 00", "sync", 512, disk, 3, 0x0c, 0},
		{"UNMAP", "42 00 00000000 00 0018 00", "unmap", 24, disk, 3, 0x0c, 0},
		{"UNMAP on a full disk", "42 00 00000000 00 0018 00", "unmap", 24, full, 7, 0x27, 7},
		{"WRITE SAME(10) of zeros", "41 00 00000005 00 0001 00", "zero", 512, disk, 3, 0x0c, 0},
		{"WRITE SAME(10), unmapping", "41 08 00000005 00 0001 00", "unmap", 512, disk, 3, 0x0c, 0},
		{"WRITE SAME(16) without data", "93 01 0000000000000005 00000001 00 00", "zero", -1, full, 7, 0x27, 7},
		{"WRITE SAME(16), unmapping without data", "93 09 0000000000000005 00000001 00 00", "unmap", -1, disk, 3, 0x0c, 0},
		{"GET LBA STATUS", "9e 12 0000000000000005 00000018 00 00", "status", -1, disk, 3, 0x11, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			failed := 0
			r.vol.fail = func(op string, _ int64) error {
				if op != tc.op {
					return nil
				}
				failed++
				return tc.err
			}
			var out []byte
			if tc.out >= 0 {
				out = make([]byte, tc.out)
			}
			if tc.op == "unmap" && tc.out == 24 {
				copy(out, unhex(t, "0016 0010 00000000 0000000000000005 00000001 00000000"))
			}
			c := r.do(tc.cdb, out)
			wantSense(t, c, tc.key, tc.asc, tc.ascq)
			if failed == 0 {
				t.Fatal("the failing operation was not used")
			}
			if tc.key == 3 && tc.op != "sync" {
				if got := binary.BigEndian.Uint32(c.Sense[3:]); c.Sense[0] != 0xf0 || got != 5 {
					t.Errorf("sense data %x does not name LBA 5", c.Sense)
				}
			}
		})
	}
	t.Run("WRITE SAME of other bytes", func(t *testing.T) {
		r := newRig(t)
		r.vol.fail = func(op string, _ int64) error {
			if op == "write" {
				return disk
			}
			return nil
		}
		for _, w := range writeSames {
			wantSense(t, r.do(w.cdb(5, 1, 0), pattern(1, 512)), 3, 0x0c, 0)
			wantSense(t, r.do(w.cdb(5, 1, 0x08), pattern(1, 512)), 3, 0x0c, 0)
		}
	})
	t.Run("VERIFY names the part that failed", func(t *testing.T) {
		r := newRig(t)
		r.vol.fail = func(_ string, off int64) error {
			if off >= Chunk {
				return disk
			}
			return nil
		}
		c := r.do("2f 00 00000000 00 0400 00", nil)
		wantSense(t, c, 3, 0x11, 0)
		if got := binary.BigEndian.Uint32(c.Sense[3:]); got != Chunk/512 {
			t.Fatalf("LBA %d is named, want %d", got, Chunk/512)
		}
	})
}

// Answers "I shut the machine down and my file was gone": what was flushed is
// durable, and only what is durable is called flushed.
func TestDurability(t *testing.T) {
	data := pattern(5, 512)
	durable := func(r *rig) bool { return bytes.Equal(r.vol.durable[:512], data) }

	t.Run("a WRITE is not flushed by itself", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000000 00 0001 00", data))
		if r.vol.syncs.Load() != 0 {
			t.Fatal("it was")
		}
	})
	for _, s := range synchronizes {
		t.Run(s.name+" flushes", func(t *testing.T) {
			r := newRig(t)
			wantGood(t, r.do("2a 00 00000000 00 0001 00", data))
			wantGood(t, r.do(s.cdb(0, 0, 0), nil))
			if !durable(r) {
				t.Fatal("the write is not durable")
			}
		})
	}
	for _, w := range all(writeCommands[1:], []blockCommand{{"ORWRITE(16)", cdb16(0x8b)}}) {
		t.Run(w.name+" with FUA flushes", func(t *testing.T) {
			r := newRig(t)
			wantGood(t, r.do(w.cdb(0, 1, 0x08), data))
			if !durable(r) {
				t.Fatal("the write is not durable")
			}
		})
	}
	for _, w := range verifyWrites {
		t.Run(w.name+" flushes", func(t *testing.T) {
			r := newRig(t)
			wantGood(t, r.do(w.cdb(0, 1, 0), data))
			if !durable(r) {
				t.Fatal("the write is not durable")
			}
		})
	}
	t.Run("a READ with FUA flushes first", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000000 00 0001 00", data))
		wantGood(t, r.do("28 08 00000000 00 0001 00", nil))
		if !durable(r) {
			t.Fatal("the write is not durable")
		}
	})
	t.Run("a stop flushes, unless it is told not to", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000000 00 0001 00", data))
		wantGood(t, r.do("1b 00 00 00 04 00", nil))
		wantGood(t, r.do("1b 00 00 00 01 00", nil))
		if r.vol.syncs.Load() != 0 {
			t.Fatal("flushed")
		}
		wantGood(t, r.do("1b 00 00 00 00 00", nil))
		if !durable(r) {
			t.Fatal("the write is not durable")
		}
		wantGood(t, r.do("00 00 00 00 00 00", nil))
	})
	t.Run("status waits for Sync", func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		r.vol.hold = func(_ context.Context, op string) error {
			if op == "sync" {
				<-release
			}
			return nil
		}
		c := &Command{CDB: cdbBytes(t, "35 02 00000000 00 0000 00")} // IMMED=1
		if p := r.nexus.Begin(c); !p.Slow || p.Done {
			t.Fatalf("plan %+v", p)
		}
		done := make(chan struct{})
		go func() { r.nexus.Execute(context.Background(), c); close(done) }()
		select {
		case <-done:
			t.Fatal("answered before Sync returned")
		case <-time.After(20 * time.Millisecond):
		}
		close(release)
		<-done
		wantGood(t, c)
	})
	t.Run("without a write cache every write is flushed", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("15 10 00 00 18 00", unhex(t, "00000000 0812 00"+"00000000000000000000000000000000 00")))
		r.vol.syncs.Store(0)
		for i, tc := range []struct {
			cdb string
			out []byte
		}{
			{"2a 00 00000000 00 0001 00", data},
			{"0a 00 00 00 01 00", data},
			{"8b 00 0000000000000000 00000001 00 00", data},
			{"89 00 0000000000000000 00000001 00 00", append(bytes.Clone(data), data...)},
			{"41 00 00000010 00 0001 00", data},
			{"42 00 00000000 00 0018 00", unhex(t, "0016 0010 00000000 0000000000000020 00000001 00000000")},
		} {
			c := &Command{CDB: cdbBytes(t, tc.cdb), Expected: len(tc.out), Out: tc.out}
			if p := r.nexus.Begin(c); !p.Slow {
				t.Errorf("%s is not slow", tc.cdb)
			}
			r.nexus.Execute(context.Background(), c)
			wantGood(t, c)
			if got := r.vol.syncs.Load(); got != int64(i+1) {
				t.Fatalf("%s: %d flushes, want %d", CommandName(c.CDB[:]), got, i+1)
			}
		}
	})
}

func TestReadOnly(t *testing.T) {
	commands := []struct {
		cdb string
		out []byte
	}{
		{"0a 00 00 00 01 00", make([]byte, 512)},
		{"2a 00 00000000 00 0001 00", make([]byte, 512)},
		{"aa 00 00000000 00000001 00 00", make([]byte, 512)},
		{"8a 00 0000000000000000 00000001 00 00", make([]byte, 512)},
		{"2e 00 00000000 00 0001 00", make([]byte, 512)},
		{"ae 00 00000000 00000001 00 00", make([]byte, 512)},
		{"8e 00 0000000000000000 00000001 00 00", make([]byte, 512)},
		{"89 00 0000000000000000 00000001 00 00", make([]byte, 1024)},
		{"8b 00 0000000000000000 00000001 00 00", make([]byte, 512)},
		{"41 00 00000000 00 0001 00", make([]byte, 512)},
		{"93 08 0000000000000000 00000001 00 00", make([]byte, 512)},
		{"93 09 0000000000000000 00000001 00 00", nil},
		{"42 00 00000000 00 0018 00", make([]byte, 24)},
	}
	check := func(t *testing.T, r *rig, n *Nexus, ascq byte) {
		t.Helper()
		r.vol.fail = func(op string, _ int64) error {
			if op != "read" && op != "sync" && op != "status" {
				t.Errorf("%s reached the volume", op)
			}
			return nil
		}
		for _, w := range commands {
			wantSense(t, run(t, n, 0, w.cdb, w.out), 7, 0x27, ascq)
		}
		wantGood(t, run(t, n, 0, "28 00 00000000 00 0001 00", nil))
		wantGood(t, run(t, n, 0, "28 08 00000000 00 0001 00", nil))
		wantGood(t, run(t, n, 0, "35 00 00000000 00 0000 00", nil))
		if c := run(t, n, 0, "1a 08 3f 00 ff 00", nil); c.In[2]&0x80 == 0 {
			t.Errorf("MODE SENSE does not say WP: %x", c.In)
		}
	}
	t.Run("a read-only volume", func(t *testing.T) {
		r := newRig(t, func(c *UnitConfig) { c.ReadOnly = true })
		check(t, r, r.nexus, 0)
		if r.vol.syncs.Load() != 1 {
			t.Errorf("%d flushes, want the one that was asked for", r.vol.syncs.Load())
		}
	})
	t.Run("a read-only mapping of a writable volume", func(t *testing.T) {
		r := newRig(t)
		n := NewNexus(NexusConfig{})
		n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, ReadOnly: true}})
		wantSense(t, run(t, n, 0, "000000000000", nil), 6, 0x29, 0)
		check(t, r, n, 0)
		r.vol.fail = nil
		wantGood(t, r.do("2a 00 00000000 00 0001 00", make([]byte, 512)))
	})
	t.Run("software write protection", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("15 10 00 00 10 00", unhex(t, "00000000 0a0a 0210 08 000000 ffff0000")))
		check(t, r, r.nexus, 2)
	})
}

func TestVerify(t *testing.T) {
	for _, v := range verifies {
		t.Run(v.name, func(t *testing.T) {
			r := newRig(t)
			data := pattern(7, 700*512) // more than one Chunk
			wantGood(t, r.do("2a 00 00000003 00 02bc 00", data))
			wantGood(t, r.do(v.cdb(3, 700, 0x02), data))
			for _, at := range []int{0, 511, 512, Chunk - 1, Chunk, len(data) - 1} {
				bad := bytes.Clone(data)
				bad[at] ^= 1
				c := r.do(v.cdb(3, 700, 0x02), bad)
				wantSense(t, c, 0x0e, 0x1d, 0)
				if got := binary.BigEndian.Uint32(c.Sense[3:]); c.Sense[0] != 0xf0 || int(got) != at {
					t.Fatalf("a difference at %d is reported at %d", at, got)
				}
			}
		})
		t.Run(v.name+" without comparing takes no data", func(t *testing.T) {
			r := newRig(t)
			c := &Command{CDB: cdbBytes(t, v.cdb(0, 4, 0)), Expected: 2048}
			if p := r.nexus.Begin(c); p.Dir != DirNone || p.Len != 0 {
				t.Fatalf("plan %+v", p)
			}
			r.nexus.Execute(context.Background(), c)
			wantGood(t, c)
			if r.vol.reads.Load() == 0 {
				t.Error("the blocks were not read")
			}
		})
		t.Run(v.name+" compares each block with one", func(t *testing.T) {
			r := newRig(t)
			block := pattern(4, 512)
			wantGood(t, r.do("41 00 00000000 00 0400 00", block))
			wantGood(t, r.do(v.cdb(0, 1024, 0x06), block))
			r.vol.data[700*512+17] ^= 1
			c := r.do(v.cdb(0, 1024, 0x06), block)
			wantSense(t, c, 0x0e, 0x1d, 0)
			if got := binary.BigEndian.Uint32(c.Sense[3:]); got != 17 {
				t.Fatalf("the difference is reported at %d", got)
			}
		})
		t.Run(v.name+" with a reserved BYTCHK is refused", func(t *testing.T) {
			wantSense(t, newRig(t).do(v.cdb(0, 1, 0x04), make([]byte, 512)), 5, 0x24, 0)
		})
	}
	for _, w := range verifyWrites {
		t.Run(w.name+" sees what the volume lost", func(t *testing.T) {
			r := newRig(t)
			r.vol.hold = func(_ context.Context, op string) error {
				if op == "read" {
					r.vol.data[600] ^= 0x80
				}
				return nil
			}
			wantSense(t, r.do(w.cdb(0, 4, 0x02), make([]byte, 2048)), 0x0e, 0x1d, 0)
			wantGood(t, r.do(w.cdb(0, 4, 0x00), make([]byte, 2048)))
			wantSense(t, r.do(w.cdb(0, 4, 0x06), make([]byte, 2048)), 5, 0x24, 0)
		})
	}
}

func TestCompareAndWrite(t *testing.T) {
	old, fresh := pattern(1, 2*512), pattern(2, 2*512)
	t.Run("writes when the volume has what is expected", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000004 00 0002 00", old))
		wantGood(t, r.do("89 00 0000000000000004 00000002 00 00", append(bytes.Clone(old), fresh...)))
		if !bytes.Equal(r.vol.data[4*512:6*512], fresh) {
			t.Fatal("not written")
		}
	})
	t.Run("changes nothing otherwise and says where", func(t *testing.T) {
		r := newRig(t)
		wantGood(t, r.do("2a 00 00000004 00 0002 00", old))
		want := bytes.Clone(old)
		want[777] ^= 1
		c := r.do("89 00 0000000000000004 00000002 00 00", append(want, fresh...))
		wantSense(t, c, 0x0e, 0x1d, 0)
		if got := binary.BigEndian.Uint32(c.Sense[3:]); got != 777 {
			t.Errorf("the difference is reported at %d", got)
		}
		if !bytes.Equal(r.vol.data[4*512:6*512], old) {
			t.Fatal("written")
		}
	})
	t.Run("of no blocks is GOOD", func(t *testing.T) {
		wantGood(t, newRig(t).do("89 00 0000000000000000 00000000 00 00", []byte{}))
	})
	t.Run("of more than the announced maximum is refused", func(t *testing.T) {
		// 256 in the one byte that there is.
		wantSense(t, newRig(t).do("89 00 0000000000000000 00000000 00 00", make([]byte, 512*512)), 5, 0x24, 0)
		wantSense(t, newRig(t).do("89 00 0000000000000000 00000100 00 00", make([]byte, 512*512)), 5, 0x24, 0)
	})
	t.Run("beyond the end is refused", func(t *testing.T) {
		wantSense(t, newRig(t).do(cdb16(0x89)(testBlocks, 1, 0), make([]byte, 1024)), 5, 0x21, 0)
	})
	t.Run("no write comes between compare and write", func(t *testing.T) {
		r := newRig(t)
		inside := make(chan struct{})
		resume := make(chan struct{})
		r.vol.hold = func(_ context.Context, op string) error {
			if op == "read" {
				close(inside)
				<-resume
			}
			return nil
		}
		swap := &Command{CDB: cdbBytes(t, "89 00 0000000000000000 00000001 00 00"), Expected: 1024, Out: append(make([]byte, 512), fresh[:512]...)}
		r.nexus.Begin(swap)
		done := make(chan struct{})
		go func() { r.nexus.Execute(context.Background(), swap); close(done) }()
		<-inside
		write := &Command{CDB: cdbBytes(t, "2a 00 00000000 00 0001 00"), Expected: 512, Out: old[:512]}
		if p := r.nexus.Begin(write); !p.Slow {
			t.Fatal("a write that has to wait is planned for the connection's goroutine")
		}
		written := make(chan struct{})
		go func() { r.nexus.Execute(context.Background(), write); close(written) }()
		select {
		case <-written:
			t.Fatal("written in between")
		case <-time.After(20 * time.Millisecond):
		}
		close(resume)
		<-done
		<-written
		wantGood(t, swap)
		wantGood(t, write)
		if !bytes.Equal(r.vol.data[:512], old[:512]) {
			t.Fatal("the later write is not the one that stands")
		}
	})
}

// torn is a volume that writes in two halves, with a pause between.
type torn struct {
	*memory
	half   chan struct{} // closed between the halves
	resume chan struct{}
	lent   int
}

func (v *torn) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := v.memory.WriteAt(ctx, p[:len(p)/2], off); err != nil {
		return err
	}
	close(v.half)
	<-v.resume
	return v.memory.WriteAt(ctx, p[len(p)/2:], off+int64(len(p)/2))
}

func (v *torn) Lend(int64, int64) (int, int64, interface{ Return() }, bool) {
	v.lent++
	return 0, 0, nil, false
}

// COMPARE AND WRITE is uninterrupted (SBC-3 §5.2): no READ and no VERIFY sees a part
// of it, whether it finds its data in memory, waits for a disk, or had begun when
// the unit's first such command came.
func TestNobodySeesHalfOfACompareAndWrite(t *testing.T) {
	old, fresh := make([]byte, 4*512), pattern(9, 4*512)
	verify := bytes.Clone(fresh)
	for _, tc := range []struct {
		name, cdb string
		out       []byte
		began     bool // when the unit has seen no COMPARE AND WRITE
	}{
		{"READ", "28 00 00000000 00 0004 00", nil, false},
		{"READ that had begun", "28 00 00000000 00 0004 00", nil, true},
		{"VERIFY", "2f 02 00000000 00 0004 00", verify, false},
		{"VERIFY that had begun", "2f 02 00000000 00 0004 00", verify, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &torn{half: make(chan struct{}), resume: make(chan struct{})}
			r := newRig(t, func(cfg *UnitConfig) { v.memory = cfg.Volume.(*memory); cfg.Volume = v })
			swap := &Command{CDB: cdbBytes(t, "89 00 0000000000000000 00000004 00 00"), Expected: 8 * 512, Out: append(bytes.Clone(old), fresh...)}
			c := &Command{CDB: cdbBytes(t, tc.cdb), Expected: 4 * 512, Out: tc.out}
			swapped, ended := make(chan struct{}), make(chan struct{})
			begin := func() {
				r.nexus.Begin(swap)
				go func() { r.nexus.Execute(t.Context(), swap); close(swapped) }()
				<-v.half
			}
			r.nexus.Begin(c)
			if tc.began {
				var first atomic.Bool
				v.hold = func(_ context.Context, op string) error {
					if op == "read" && !first.Swap(true) {
						begin()
					}
					return nil
				}
			} else {
				begin()
				if r.nexus.TryExecute(c) {
					t.Error("a READ is answered between the halves")
				}
				if _, _, _, ok := r.nexus.Lend(c); ok || v.lent > 0 {
					t.Error("what is being swapped was to be lent")
				}
			}
			go func() { r.nexus.Execute(t.Context(), c); close(ended) }()
			select {
			case <-ended:
				t.Error("it does not wait")
			case <-time.After(20 * time.Millisecond):
			}
			close(v.resume)
			<-swapped
			<-ended
			wantGood(t, swap)
			wantGood(t, c)
			if tc.out == nil && !bytes.Equal(c.In, fresh) {
				t.Error("it read what was between")
			}
		})
	}
}

// Nexuses that count in one block by COMPARE AND WRITE lose no count, whatever
// else writes beside the block.
func TestACounterByCompareAndWrite(t *testing.T) {
	r := newRig(t)
	const nexuses, rounds = 4, 100
	r.vol.hold = func(_ context.Context, op string) error {
		if op == "write" {
			time.Sleep(time.Microsecond) // between compare and write
		}
		return nil
	}
	var work, noise sync.WaitGroup
	stop := make(chan struct{})
	for _, cmd := range []struct {
		cdb string
		out []byte
	}{
		{"2a 00 00000001 00 0001 00", pattern(1, 512)}, {"8b 00 0000000000000001 00000001 00 00", pattern(2, 512)},
		{"93 09 0000000000000001 00000008 00 00", nil}, {"42 00 00000000 00 0018 00", unmapList(1, 8)},
	} {
		noise.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if c := r.do(cmd.cdb, cmd.out); c.Status != StatusGood {
						t.Errorf("%s: status %02x", cmd.cdb, c.Status)
					}
				}
			}
		})
	}
	for range nexuses {
		n := r.join(NexusConfig{})
		work.Go(func() {
			for done := 0; done < rounds; {
				old := bytes.Clone(run(t, n, 0, "28 00 00000000 00 0001 00", nil).In)
				next := bytes.Clone(old)
				binary.BigEndian.PutUint32(next, binary.BigEndian.Uint32(old)+1)
				switch c := run(t, n, 0, "89 00 0000000000000000 00000001 00 00", append(old, next...)); {
				case c.Status == StatusGood:
					done++
				case c.Status != StatusCheckCondition || c.Sense[2] != 0x0e:
					t.Errorf("status %02x, sense %x", c.Status, c.Sense)
					return
				}
			}
		})
	}
	work.Wait()
	close(stop)
	noise.Wait()
	if got := binary.BigEndian.Uint32(r.vol.data); got != nexuses*rounds {
		t.Errorf("%d, want %d", got, nexuses*rounds)
	}
}

func TestOrWrite(t *testing.T) {
	r := newRig(t)
	n := 700 * 512
	wantGood(t, r.do("8b 00 0000000000000001 000002bc 00 00", bytes.Repeat([]byte{0xa5}, n)))
	wantGood(t, r.do("8b 00 0000000000000001 000002bc 00 00", bytes.Repeat([]byte{0x0f}, n)))
	if !bytes.Equal(r.vol.data[512:512+n], bytes.Repeat([]byte{0xaf}, n)) {
		t.Fatal("the bits are not the union")
	}
	wantGood(t, r.do("8b 00 0000000000000000 00000000 00 00", []byte{}))
	wantSense(t, r.do(cdb16(0x8b)(testBlocks+1, 0, 0), nil), 5, 0x21, 0)
}
