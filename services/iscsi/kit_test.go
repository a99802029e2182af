package iscsi_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/store"
)

const (
	target = store.IQN("iqn.2026-11.lunboot:test")
	alice  = store.IQN("iqn.2026-11.test:alice")
	bob    = store.IQN("iqn.2026-11.test:bob")
)

// memory is a volume in memory.
type memory struct {
	mu      sync.RWMutex
	b       []byte
	cold    atomic.Bool // Resident says no
	syncs   atomic.Int64
	syncing chan struct{} // when set, Sync waits for it to close
	putting atomic.Int64
	puts    chan struct{} // when set, WriteAt waits for it to close
	heeds   bool          // Sync ends with its context
	fail    atomic.Bool   // every access fails
	broken  atomic.Bool   // reading panics
}

func newMemory(size int) *memory { return &memory{b: make([]byte, size)} }

func (m *memory) check() error {
	if m.fail.Load() {
		return &store.Error{Kind: store.KindCorrupt, Msg: "injected"}
	}
	return nil
}

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	if m.broken.Load() {
		panic("broken on purpose")
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.b[off:])
	return m.check()
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	if err := m.check(); err != nil {
		return err
	}
	m.putting.Add(1)
	if m.puts != nil {
		<-m.puts
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.b[off:], p)
	return nil
}

func (m *memory) Sync(ctx context.Context) error {
	m.syncs.Add(1)
	if m.syncing != nil {
		var ended <-chan struct{}
		if m.heeds {
			ended = ctx.Done()
		}
		select {
		case <-m.syncing:
		case <-ended:
			return ctx.Err()
		}
	}
	return m.check()
}

func (m *memory) Unmap(ctx context.Context, off, n int64) error { return m.Zero(ctx, off, n) }

func (m *memory) Zero(_ context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.b[off : off+n])
	return m.check()
}

func (m *memory) BlockStatus(_ context.Context, off, n int64) (bool, int64, error) {
	return true, n, m.check()
}

func (m *memory) Size() int64 { return int64(len(m.b)) }

func (m *memory) Resident(p []byte, off int64) bool {
	if m.cold.Load() || m.fail.Load() {
		return false
	}
	if m.broken.Load() {
		panic("broken on purpose")
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.b[off:])
	return true
}

// fua is a WRITE of one block that is to be on the medium, so that no reader of
// PDUs waits for it.
func fua(lun byte, lba uint32, content byte) Command {
	w := Write10(lun, lba, bytes.Repeat([]byte{content}, 512))
	w.CDB[1], w.Immediate = 0x08, 512
	return w
}

// disk is a mapping of the test catalogue.
type disk struct {
	id       store.VolumeID
	volume   *memory
	readOnly bool
	sanitize bool
	bytes    string // see iscsi.Entry; itsFile unless said otherwise
	lost     bool   // nobody can say which bytes it has
	changed  time.Time
	anew     int64 // how often it got other bytes
}

// catalog is an inventory in memory.
type catalog struct {
	mu         sync.Mutex
	access     map[store.IQN]iscsi.Access
	luns       map[store.IQN]map[store.LUN]disk
	generation map[store.IQN]int64
	revision   int64
	changed    chan struct{}
	open       int // maps that are not released
	released   int

	fail   atomic.Bool  // Refresh cannot answer
	failed atomic.Int64 // how often it could not
	panic  atomic.Bool  // Access panics
}

func newCatalog() *catalog {
	return &catalog{access: map[store.IQN]iscsi.Access{}, luns: map[store.IQN]map[store.LUN]disk{}, generation: map[store.IQN]int64{}, changed: make(chan struct{})}
}

func (c *catalog) Access(_ context.Context, i store.IQN) (iscsi.Access, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.panic.Load() {
		panic("broken on purpose")
	}
	a, ok := c.access[i]
	if !ok {
		return a, store.NotFound("machine", string(i))
	}
	return a, nil
}

func (c *catalog) Open(ctx context.Context, i store.IQN, _ [6]byte) (iscsi.Map, error) {
	return c.Refresh(ctx, i)
}

func (c *catalog) Refresh(_ context.Context, i store.IQN) (iscsi.Map, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail.Load() {
		c.failed.Add(1)
		return iscsi.Map{}, &store.Error{Kind: store.KindUnavailable, Msg: "injected"}
	}
	if _, ok := c.access[i]; !ok {
		return iscsi.Map{}, store.NotFound("machine", string(i))
	}
	m := iscsi.Map{Generation: c.generation[i], LUNs: map[store.LUN]iscsi.Entry{}}
	for lun, d := range c.luns[i] {
		m.LUNs[lun] = d.entry()
	}
	return c.opened(m), nil
}

// itsFile are the bytes of most disks.
const itsFile = "its file"

func (d *disk) entry() iscsi.Entry {
	bytes := cmp.Or(d.bytes, itsFile)
	if d.lost {
		bytes = ""
	}
	return iscsi.Entry{VolumeID: d.id, Name: "disk", UUID: store.UUID{15: byte(d.id)}, BlockSize: 512, Generation: d.anew, ReadOnly: d.readOnly, Sanitize: d.sanitize, Wiped: d.sanitize, Bytes: bytes, Changed: d.changed, Volume: d.volume}
}

func (c *catalog) Volume(_ context.Context, id store.VolumeID) (iscsi.Map, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, disks := range c.luns {
		for _, d := range disks {
			if d.id == id {
				return c.opened(iscsi.Map{LUNs: map[store.LUN]iscsi.Entry{0: d.entry()}}), nil
			}
		}
	}
	return iscsi.Map{}, store.NotFound("volume", "disk")
}

// opened counts a map that is to be released.
func (c *catalog) opened(m iscsi.Map) iscsi.Map {
	c.open++
	var once atomic.Bool
	m.Release = func() {
		if once.Swap(true) {
			panic("a map was released twice")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open--
		c.released++
	}
	return m
}

func (c *catalog) Revision() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

func (c *catalog) Changed(after int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision > after {
		done := make(chan struct{})
		close(done)
		return done
	}
	return c.changed
}

// change edits the catalogue and wakes whoever waits for that.
func (c *catalog) change(edit func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	edit()
	c.revision++
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *catalog) openMaps() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// journal keeps events.
type journal struct {
	mu     sync.Mutex
	events []store.Event
	deaf   bool // keeps none
}

func (j *journal) Emit(e store.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.deaf {
		return
	}
	j.events = append(j.events, e)
}

func (j *journal) all(kind store.EventKind) []store.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []store.Event
	for _, e := range j.events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// wait waits for n events of a kind.
func (j *journal) wait(t testing.TB, kind store.EventKind, n int) []store.Event {
	t.Helper()
	var got []store.Event
	eventually(t, func() bool { got = j.all(kind); return len(got) >= n }, "%d events of kind %s", n, kind)
	return got
}

func eventually(t testing.TB, ok func() bool, format string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen: "+format, args...)
}

// clock is a time that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// bench is a running target.
type bench struct {
	*iscsi.Server
	catalog *catalog
	journal *journal
	clock   *clock
	stop    func()
}

func start(t testing.TB) *bench {
	t.Helper()
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{})
	return b
}

// startWith runs a target with a configuration of the test's own.
func startWith(t testing.TB, b *bench, cfg iscsi.Config) {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	startOn(t, b, cfg)
}

// startOn runs a target where the configuration says.
func startOn(t testing.TB, b *bench, cfg iscsi.Config) {
	t.Helper()
	w := io.Writer(io.Discard)
	if os.Getenv("LUNBOOT_TEST_LOG") != "" {
		w = os.Stderr
	}
	cfg.Target, cfg.Catalog, cfg.Emit, cfg.Now, cfg.Tick = target, b.catalog, b.journal, b.clock.now, 10*time.Millisecond
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(w, nil))
	}
	if cfg.LogoutTimeout == 0 {
		cfg.LogoutTimeout = 20 * time.Millisecond // most tests leave their sessions open
	}
	b.Server = iscsi.New(cfg)
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if n := b.catalog.openMaps(); n != 0 {
				t.Errorf("%d maps were never released", n)
			}
		})
	}
	t.Cleanup(b.stop)
}

// enroll lets an initiator in, without authentication.
func (b *bench) enroll(i store.IQN, disks map[store.LUN]disk) {
	b.catalog.change(func() {
		b.catalog.access[i] = iscsi.Access{Machine: store.MachineID(len(b.catalog.access) + 1), Name: "m", Auth: store.AuthNone}
		b.catalog.luns[i] = disks
	})
}

func (b *bench) sessions(i store.IQN) int {
	n := 0
	for _, s := range b.Sessions() {
		if s.Initiator == i {
			n++
		}
	}
	return n
}

// need finds a peer's program: a laptop may lack it, the build may not.
func need(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// run runs a peer and returns what it said.
func run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, need(t, name), args...).CombinedOutput()
	return string(out), err
}

func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}
