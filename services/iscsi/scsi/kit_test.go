package scsi

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lunboot/store"
)

// memory is a volume in memory that can be told to fail, to hold, to grow and
// to have nothing resident, and that counts what it was asked.
type memory struct {
	mu     sync.RWMutex
	data   []byte
	mapped []bool // one a granule

	size     atomic.Int64
	resident atomic.Bool
	syncs    atomic.Int64
	reads    atomic.Int64
	durable  []byte // the data at the last Sync

	// fail is asked before each operation: "read", "write", "sync", "unmap",
	// "zero", "status".
	fail func(op string, off int64) error
	// hold, when set, is called inside each operation.
	hold func(ctx context.Context, op string) error
}

const granule = 4096

func newMemory(size int64) *memory {
	m := &memory{data: make([]byte, size), durable: make([]byte, size), mapped: make([]bool, (size+granule-1)/granule)}
	m.size.Store(size)
	m.resident.Store(true)
	return m
}

func (m *memory) enter(ctx context.Context, op string, off, n int64) error {
	if off < 0 || n < 0 || off+n > m.size.Load() {
		return fmt.Errorf("memory: %s of %d bytes at %d of %d", op, n, off, m.size.Load())
	}
	if m.hold != nil {
		if err := m.hold(ctx, op); err != nil {
			return err
		}
	}
	if m.fail != nil {
		return m.fail(op, off)
	}
	return nil
}

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	m.reads.Add(1)
	if err := m.enter(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := m.enter(ctx, "write", off, int64(len(p))); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	m.mark(off, int64(len(p)), true)
	return nil
}

func (m *memory) Sync(ctx context.Context) error {
	if err := m.enter(ctx, "sync", 0, 0); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs.Add(1)
	copy(m.durable, m.data)
	return nil
}

func (m *memory) Unmap(ctx context.Context, off, n int64) error {
	if err := m.enter(ctx, "unmap", off, n); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	// Only whole granules are given back.
	if first, last := (off+granule-1)/granule*granule, (off+n)/granule*granule; first < last {
		m.mark(first, last-first, false)
	}
	return nil
}

func (m *memory) Zero(ctx context.Context, off, n int64) error {
	if err := m.enter(ctx, "zero", off, n); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	m.mark(off, n, true)
	return nil
}

func (m *memory) mark(off, n int64, mapped bool) {
	for g := off / granule; g*granule < off+n; g++ {
		m.mapped[g] = mapped
	}
}

func (m *memory) BlockStatus(ctx context.Context, off, n int64) (bool, int64, error) {
	if err := m.enter(ctx, "status", off, n); err != nil {
		return false, 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	end := off / granule
	for end < int64(len(m.mapped)) && m.mapped[end] == m.mapped[off/granule] {
		end++
	}
	return m.mapped[off/granule], min(end*granule-off, n), nil
}

func (m *memory) Size() int64 { return m.size.Load() }

func (m *memory) Resident(p []byte, off int64) bool {
	if !m.resident.Load() || off+int64(len(p)) > m.size.Load() {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[off:])
	return true
}

// rig is a unit of 1 MiB at LUN 0 of one nexus, its power-on attention taken.
type rig struct {
	t     *testing.T
	vol   *memory
	unit  *Unit
	nexus *Nexus
	noLUN []string // commands that OnNoLUN was told of
}

var testUUID = store.UUID{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x41, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}

const testBlocks = 2048

func newRig(t *testing.T, change ...func(*UnitConfig)) *rig {
	t.Helper()
	r := &rig{t: t, vol: newMemory(testBlocks * 512)}
	cfg := UnitConfig{Name: "win11", UUID: testUUID, BlockSize: 512, Volume: r.vol}
	for _, f := range change {
		f(&cfg)
	}
	r.unit = NewUnit(cfg)
	r.nexus = r.join(NexusConfig{OnNoLUN: func(_ [8]byte, cdb []byte) { r.noLUN = append(r.noLUN, CommandName(cdb)) }})
	return r
}

// join gives the rig's unit at LUN 0 to another nexus, its power-on attention
// taken.
func (r *rig) join(cfg NexusConfig) *Nexus {
	r.t.Helper()
	if cfg.PortName == "" {
		cfg.PortName = "iqn.2026-11.lunboot:target,t,0x0001"
	}
	n := NewNexus(cfg)
	n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
	wantSense(r.t, run(r.t, n, 0, "000000000000", nil), 6, 0x29, 0)
	return n
}

// do runs a command at LUN 0 of the rig's own nexus.
func (r *rig) do(cdb string, out []byte) *Command {
	r.t.Helper()
	return run(r.t, r.nexus, 0, cdb, out)
}

// run runs a command the way a session does. An initiator announces what it
// sends, or plenty when it expects data.
func run(t *testing.T, n *Nexus, lun store.LUN, cdb string, out []byte) *Command {
	t.Helper()
	expected := len(out)
	if out == nil {
		expected = 1 << 20
	}
	return runExpecting(t, n, lun.Wire(), cdb, out, expected)
}

func runExpecting(t *testing.T, n *Nexus, lun [8]byte, cdb string, out []byte, expected int) *Command {
	t.Helper()
	c := &Command{LUN: lun, CDB: cdbBytes(t, cdb), Expected: expected}
	p := n.Begin(c)
	if !p.Done {
		if p.Dir == DirOut {
			c.Out = out[:min(len(out), p.Len)]
		}
		n.Execute(context.Background(), c)
	}
	if c.Status == StatusCheckCondition && len(c.Sense) == 0 {
		t.Fatalf("%s: CHECK CONDITION without sense data", cdb)
	}
	if c.Status != StatusGood && len(c.In) != 0 {
		t.Fatalf("%s: status %02x with %d bytes of data", cdb, c.Status, len(c.In))
	}
	return c
}

// cdbBytes reads hexadecimal digits; spaces are for the reader.
func cdbBytes(t *testing.T, s string) (cdb [16]byte) {
	t.Helper()
	copy(cdb[:], unhex(t, s))
	return cdb
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantGood(t *testing.T, c *Command) {
	t.Helper()
	if c.Status != StatusGood {
		t.Fatalf("%s: status %02x, sense %x, want GOOD", CommandName(c.CDB[:]), c.Status, c.Sense)
	}
}

func wantSense(t *testing.T, c *Command, key, asc, ascq byte) {
	t.Helper()
	if c.Status != StatusCheckCondition {
		t.Fatalf("%s: status %02x, want CHECK CONDITION", CommandName(c.CDB[:]), c.Status)
	}
	k, a, q := senseOf(t, c.Sense)
	if k != key || a != asc || q != ascq {
		t.Fatalf("%s: sense %02x/%02x/%02x, want %02x/%02x/%02x", CommandName(c.CDB[:]), k, a, q, key, asc, ascq)
	}
}

// senseOf reads either format.
func senseOf(t *testing.T, b []byte) (key, asc, ascq byte) {
	t.Helper()
	switch b[0] & 0x7f {
	case 0x70:
		return b[2], b[12], b[13]
	case 0x72:
		return b[1], b[2], b[3]
	}
	t.Fatalf("sense data %x", b)
	return
}

func wantConflict(t *testing.T, c *Command) {
	t.Helper()
	if c.Status != StatusReservationConflict || c.Sense != nil {
		t.Fatalf("%s: status %02x, sense %x, want RESERVATION CONFLICT", CommandName(c.CDB[:]), c.Status, c.Sense)
	}
}

func wantData(t *testing.T, c *Command, want string) {
	t.Helper()
	wantGood(t, c)
	if w := unhex(t, want); !bytes.Equal(c.In, w) {
		t.Fatalf("%s:\n got %x\nwant %x", CommandName(c.CDB[:]), c.In, w)
	}
}

// pattern fills n bytes so that no two blocks are alike.
func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>9) ^ seed
	}
	return b
}
