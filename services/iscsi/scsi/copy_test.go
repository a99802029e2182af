package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"lunboot/services/iscsi/scsi/reserve"
	"lunboot/store"
)

// piece is a segment of a copy between units, by their place in the list.
type piece struct {
	src, dst int
	blocks   uint16
	dc       bool
	from, to uint64
}

// copyList makes a parameter list that names the units.
func copyList(id byte, units []*Unit, pieces ...piece) []byte {
	b := make([]byte, 16)
	b[0] = id
	binary.BigEndian.PutUint16(b[2:], uint16(32*len(units)))
	binary.BigEndian.PutUint32(b[8:], uint32(28*len(pieces)))
	for _, u := range units {
		d := make([]byte, 32)
		name := u.naa()
		d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 8
		copy(d[8:], name[:])
		d[30], d[31] = byte(u.cfg.BlockSize>>8), byte(u.cfg.BlockSize)
		b = append(b, d...)
	}
	for _, p := range pieces {
		d := make([]byte, 28)
		d[0], d[3], d[5], d[7] = 2, 0x18, byte(p.src), byte(p.dst)
		if p.dc {
			d[1] = 2
		}
		binary.BigEndian.PutUint16(d[10:], p.blocks)
		binary.BigEndian.PutUint64(d[12:], p.from)
		binary.BigEndian.PutUint64(d[20:], p.to)
		b = append(b, d...)
	}
	return b
}

func xcopyOn(t *testing.T, n *Nexus, list []byte) *Command {
	t.Helper()
	return run(t, n, 0, fmt.Sprintf("83 00 0000000000000000 %08x 00 00", len(list)), list)
}

// pair is a rig whose nexus has a second unit at LUN 1, with its own block size.
func pair(t *testing.T, blockSize int) (r *rig, other *Unit, vol *memory) {
	t.Helper()
	r = newRig(t)
	vol = newMemory(1 << 20)
	id := testUUID
	id[0]++
	other = NewUnit(UnitConfig{Name: "other", UUID: id, BlockSize: blockSize, Volume: vol})
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: other}})
	run(t, r.nexus, 0, testReady, nil)
	run(t, r.nexus, 1, testReady, nil)
	return r, other, vol
}

func TestACopyEqualsAMove(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		r := newRig(t)
		copy(r.vol.data, pattern(byte(seed), len(r.vol.data)))
		want := bytes.Clone(r.vol.data)
		var pieces []piece
		for range 1 + rnd.IntN(4) {
			n := uint64(rnd.IntN(1200))
			p := piece{blocks: uint16(n), from: rnd.Uint64N(testBlocks - n), to: rnd.Uint64N(testBlocks - n)}
			copy(want[p.to*512:], bytes.Clone(want[p.from*512:(p.from+n)*512]))
			pieces = append(pieces, p)
		}
		wantGood(t, xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, pieces...)))
		if !bytes.Equal(r.vol.data, want) {
			t.Fatalf("seed %d: %+v went wrong", seed, pieces)
		}
	}
}

func TestACopyBetweenUnitsOfUnlikeBlocks(t *testing.T) {
	r, other, vol := pair(t, 4096)
	copy(r.vol.data, pattern(7, 1<<16))
	units := []*Unit{r.unit, other}
	wantGood(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 0, dst: 1, blocks: 16, from: 8, to: 3})))
	if !bytes.Equal(vol.data[3*4096:5*4096], r.vol.data[8*512:24*512]) {
		t.Error("16 blocks of 512 bytes did not arrive")
	}
	wantGood(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 0, dst: 1, blocks: 2, dc: true, from: 0, to: 8})))
	if !bytes.Equal(vol.data[8*4096:10*4096], r.vol.data[:8192]) {
		t.Error("two blocks of the destination did not arrive")
	}
	before := bytes.Clone(vol.data)
	wantSense(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 0, dst: 1, blocks: 3, to: 20})), 0x0a, 0x26, 0x0a)
	list := copyList(1, units, piece{src: 0, dst: 1, blocks: 8})
	list[16+32+30], list[16+32+31] = 2, 0 // says 512 of the destination
	wantSense(t, xcopyOn(t, r.nexus, list), 0x0a, 0x0d, 0x03)
	if !bytes.Equal(vol.data, before) {
		t.Error("a copy that was refused wrote")
	}
}

// What is not mapped to an initiator does not exist for its copies.
func TestACopyReachesOnlyWhatIsMapped(t *testing.T) {
	r, other, vol := pair(t, 512)
	stranger := r.join(NexusConfig{Initiator: "iqn.2026-11.test:stranger"}) // has LUN 0 only
	copy(vol.data, "secret")
	units := []*Unit{r.unit, other}
	wantSense(t, xcopyOn(t, stranger, copyList(1, units, piece{src: 1, dst: 0, blocks: 1})), 0x0a, 0x0d, 0x02)
	wantSense(t, xcopyOn(t, stranger, copyList(1, units, piece{src: 0, dst: 1, blocks: 1})), 0x0a, 0x0d, 0x02)
	wantSense(t, xcopyOn(t, stranger, copyList(1, units[:1], piece{src: 0, dst: 1, blocks: 1})), 0x0a, 0x0d, 0x02) // no such descriptor
	if bytes.Contains(r.vol.data, []byte("secret")) || !bytes.HasPrefix(vol.data, []byte("secret")) {
		t.Error("a copy went where it must not")
	}
	wantGood(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 1, dst: 0, blocks: 1})))
}

func TestACopyRespectsWhatOthersHold(t *testing.T) {
	r, other, _ := pair(t, 512)
	units := []*Unit{r.unit, other}
	holder := NewNexus(NexusConfig{Initiator: "iqn.2026-11.test:holder"})
	holder.SetMap(map[store.LUN]MapEntry{0: {Unit: other}})
	run(t, holder, 0, testReady, nil)
	wantGood(t, prout(t, holder, reserve.ActRegister, 0, 0, 1, 0))
	wantGood(t, prout(t, holder, reserve.ActReserve, reserve.WriteExclusive, 1, 0, 0))
	wantGood(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 1, dst: 0, blocks: 1}))) // reading is allowed
	wantConflict(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 0, dst: 1, blocks: 1})))
	wantGood(t, prout(t, holder, reserve.ActRelease, reserve.WriteExclusive, 1, 0, 0))
	r.nexus.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}, 1: {Unit: other, ReadOnly: true}})
	run(t, r.nexus, 0, testReady, nil)
	run(t, r.nexus, 1, testReady, nil)
	wantSense(t, xcopyOn(t, r.nexus, copyList(1, units, piece{src: 0, dst: 1, blocks: 1})), 7, 0x27, 0)
}

func TestACopyBehindTheEndIsAborted(t *testing.T) {
	r := newRig(t)
	before := bytes.Clone(r.vol.data)
	for _, p := range []piece{{blocks: 8, to: testBlocks - 1}, {blocks: 8, from: testBlocks - 7}, {blocks: 1, from: ^uint64(0)}, {blocks: 1, to: ^uint64(0) - 3}} {
		wantSense(t, xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, p)), 0x0a, 0, 0)
	}
	if !bytes.Equal(r.vol.data, before) {
		t.Error("it wrote")
	}
}

func TestAFaultOfTheDiskIsNoGoodCopy(t *testing.T) {
	r := newRig(t)
	r.vol.fail = func(op string, _ int64) error {
		if op == "write" {
			return errors.New("input/output error")
		}
		return nil
	}
	wantSense(t, xcopyOn(t, r.nexus, copyList(5, []*Unit{r.unit}, piece{blocks: 1, to: 9})), 0x0a, 0, 0)
	wantData(t, r.do("84 00 05 00000000000000 00000400 00 00", nil), "00000008 02 0000 01 00000000")
	wantSense(t, r.do("84 00 05 00000000000000 00000400 00 00", nil), 5, 0x24, 0) // told once
}

func TestAnIdentifierNamesOneCopyAtATime(t *testing.T) {
	r := newRig(t)
	started, release := make(chan struct{}), make(chan struct{})
	r.vol.hold = func(_ context.Context, op string) error {
		if op == "write" {
			close(started)
			<-release
		}
		return nil
	}
	list := copyList(9, []*Unit{r.unit}, piece{blocks: 1, to: 9})
	done := make(chan byte)
	go func() {
		c := &Command{CDB: [16]byte{0: 0x83, 13: byte(len(list))}, Expected: len(list), Out: list}
		r.nexus.Begin(c)
		r.nexus.Execute(t.Context(), c)
		done <- c.Status
	}()
	<-started
	wantData(t, r.do("84 00 09 00000000000000 00000400 00 00", nil), "00000008 00 0000 01 00000000")
	r.vol.hold = nil
	wantSense(t, xcopyOn(t, r.nexus, list), 5, 0x00, 0x16) // OPERATION IN PROGRESS
	close(release)
	if st := <-done; st != StatusGood {
		t.Errorf("status %02x", st)
	}
	wantData(t, r.do("84 00 09 00000000000000 00000400 00 00", nil), "00000008 01 0001 01 00000000")
}

func TestACopyWithoutAWriteCacheIsDurable(t *testing.T) {
	r := newRig(t)
	r.unit.mode.Store(0)
	copy(r.vol.data, "abc")
	wantGood(t, xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, piece{blocks: 1, to: 9})))
	if !bytes.HasPrefix(r.vol.durable[9*512:], []byte("abc")) {
		t.Error("the copy is not on the disk")
	}
}

// The segment at fault is in the third and fourth byte of the COMMAND-SPECIFIC
// INFORMATION field (SPC-4 §5.16.7.4).
func TestASegmentAtFaultIsNamed(t *testing.T) {
	r := newRig(t)
	good := piece{blocks: 1, to: 9}
	c := xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, good, good, piece{blocks: 8, to: testBlocks - 1}, good))
	wantSense(t, c, 0x0a, 0, 0)
	if c.Sense[0] != 0x70 || !bytes.Equal(c.Sense[8:12], []byte{0, 0, 0, 2}) {
		t.Errorf("sense data %x", c.Sense)
	}
	c = xcopyOn(t, r.nexus, copyList(1, []*Unit{r.unit}, good, piece{src: 5, blocks: 1}))
	wantSense(t, c, 0x0a, 0x0d, 2)
	if !bytes.Equal(c.Sense[8:12], []byte{0, 0, 0, 1}) {
		t.Errorf("sense data %x", c.Sense)
	}
}

// Why a copy failed can be asked for afterwards, until it was told whole (SPC-4
// §6.23, RECEIVE COPY FAILURE DETAILS).
func TestWhyACopyFailedIsKept(t *testing.T) {
	r := newRig(t)
	details := func(n *Nexus, id, allocation int) *Command {
		return run(t, n, 0, fmt.Sprintf("84 04 %02x 00000000000000 %08x 00 00", id, allocation), nil)
	}
	const none = "00000000"
	wantData(t, details(r.nexus, 7, 1024), none)
	failed := func(id byte) []byte {
		c := xcopyOn(t, r.nexus, copyList(id, []*Unit{r.unit}, piece{blocks: 1, to: 9}, piece{blocks: 8, to: testBlocks - 1}))
		wantSense(t, c, 0x0a, 0, 0)
		return bytes.Clone(c.Sense)
	}
	whole := func(status byte, sense []byte) string {
		b := make([]byte, 60, 60+len(sense))
		b[3], b[56], b[59] = byte(56+len(sense)), status, byte(len(sense))
		return hex.EncodeToString(append(b, sense...))
	}
	want := whole(2, failed(7))
	wantData(t, details(r.nexus, 7, 20), want[:40]) // cut: it is kept
	wantData(t, r.do("84 00 07 00000000000000 00000400 00 00", nil), "00000008 02 0001 01 00000000")
	wantData(t, details(r.join(NexusConfig{}), 7, 1024), none) // another nexus has its own
	wantData(t, details(r.nexus, 8, 1024), none)
	wantData(t, details(r.nexus, 7, 1024), want)
	wantData(t, details(r.nexus, 7, 1024), none)
	failed(7)
	wantData(t, details(r.nexus, 7, 0), "") // nobody wants it
	wantData(t, details(r.nexus, 7, 1024), none)
	failed(7)
	wantGood(t, xcopyOn(t, r.nexus, copyList(7, []*Unit{r.unit}, piece{blocks: 1, to: 9}))) // used again
	wantData(t, details(r.nexus, 7, 1024), none)

	_, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.WriteExclusiveOnly, keyA, 0, 0))
	u := a.luns.Load().byLUN[0].unit
	other := NewUnit(UnitConfig{Name: "other", UUID: store.NewUUID(), BlockSize: 512, Volume: newMemory(1 << 16)})
	holder := NewNexus(NexusConfig{Initiator: "iqn.2026-11.test:holder"})
	holder.SetMap(map[store.LUN]MapEntry{0: {Unit: other}})
	b.SetMap(map[store.LUN]MapEntry{0: {Unit: u}, 1: {Unit: other}})
	run(t, holder, 0, testReady, nil)
	run(t, b, 0, testReady, nil)
	wantGood(t, run(t, holder, 0, reserve6, nil))
	wantConflict(t, xcopyOn(t, b, copyList(1, []*Unit{u, other}, piece{src: 0, dst: 1, blocks: 1})))
	wantData(t, details(b, 1, 1024), whole(0x18, nil))
}
