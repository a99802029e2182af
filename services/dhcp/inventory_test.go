package dhcp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/services/dhcp/ledger"
	"lunboot/store"
)

// inventory is the consumers' view of a database, in memory, with the rules
// that the real one keeps: one row an address, no lease over another MAC's, and
// one bound lease a MAC in a network.
type inventory struct {
	now    func() time.Time
	read   atomic.Int64
	seeing atomic.Int64 // how often unknown machines were to be written down

	slowMAC atomic.Int64  // the number of the MAC whose leases wait for hangs; 0 for none
	hangs   chan struct{} // closed when they are written

	mu       sync.Mutex
	leases   map[netip.Addr]store.Lease
	machines []store.Machine
	unknown  map[store.MAC]store.UnknownMachine
	inUse    map[netip.Addr]bool
	missing  map[boot.Loader]bool
	putFails error
	stuck    chan struct{}       // closed when unknown machines can be written down; nil for always
	slow     func(l store.Lease) // runs before a lease that is prolonged is on disk
	puts     int
	events   []store.Event
}

func newInventory(now func() time.Time, machines ...store.Machine) *inventory {
	for i := range machines {
		machines[i].ID = store.MachineID(i + 1)
	}
	return &inventory{
		now: now, machines: machines, leases: map[netip.Addr]store.Lease{}, unknown: map[store.MAC]store.UnknownMachine{},
		inUse: map[netip.Addr]bool{}, missing: map[boot.Loader]bool{},
	}
}

func (v *inventory) Leases(context.Context) ([]store.Lease, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []store.Lease
	for _, l := range v.leases {
		out = append(out, l)
	}
	return out, nil
}

func (v *inventory) PutLease(_ context.Context, l store.Lease) error {
	if n := v.slowMAC.Load(); n != 0 && l.MAC == mac(int(n)) {
		<-v.hangs
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.putFails != nil {
		return v.putFails
	}
	if old, ok := v.leases[l.Address]; ok && old.MAC != l.MAC && old.Expires.After(v.now()) {
		return store.Conflict("address", "%s is bound to %s", l.Address, old.MAC)
	}
	v.puts++
	if l.State == store.LeaseBound {
		maps.DeleteFunc(v.leases, func(_ netip.Addr, o store.Lease) bool {
			return o.MAC == l.MAC && o.State == store.LeaseBound && l.Network.Contains(o.Address)
		})
	}
	v.leases[l.Address] = l
	return nil
}

func (v *inventory) ProlongLease(_ context.Context, l store.Lease) error {
	if v.slow != nil {
		v.slow(l)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	old, ok := v.leases[l.Address]
	if !ok || old.MAC != l.MAC || old.State != store.LeaseBound {
		return store.NotFound("lease of", l.Address.String())
	}
	old.Expires, old.Updated = l.Expires, l.Updated
	v.leases[l.Address] = old
	return nil
}

// Tests change machines and leases behind the ledger's back, so that every
// decision reads them.
func (v *inventory) LeaseRevision() int64  { return v.read.Add(1) }
func (v *inventory) ClientRevision() int64 { return v.read.Add(1) }

func (v *inventory) Machines(_ context.Context, f store.MachineFilter) ([]store.Machine, int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []store.Machine
	for _, m := range v.machines {
		if !slices.ContainsFunc(f.Words, func(w string) bool { return !strings.Contains(m.Name+" "+m.Address.String(), w) }) {
			out = append(out, m)
		}
	}
	return out, len(out), nil
}

func (v *inventory) IgnoredMACs(context.Context) ([]store.MAC, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []store.MAC
	for mac, u := range v.unknown {
		if u.Ignored {
			out = append(out, mac)
		}
	}
	return out, nil
}

func (v *inventory) SeeUnknown(ctx context.Context, some ...store.UnknownMachine) error {
	v.seeing.Add(1)
	if v.stuck != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.stuck:
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, u := range some {
		u.Count += v.unknown[u.MAC].Count
		u.Ignored = v.unknown[u.MAC].Ignored
		v.unknown[u.MAC] = u
	}
	return nil
}

func (v *inventory) AddressInUse(a netip.Addr) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.inUse[a]
}

func (v *inventory) Next(h boot.Hardware, own string) boot.Pick {
	v.mu.Lock()
	defer v.mu.Unlock()
	var have []boot.Loader
	for _, l := range []boot.Loader{boot.Undionly, boot.SNPOnly, boot.IPXEEFI} {
		if !v.missing[l] {
			have = append(have, l)
		}
	}
	return shelf(have...)(h, own)
}

func (v *inventory) Emit(e store.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, e)
}

// kinds returns the kinds of the events so far, and forgets the events.
func (v *inventory) kinds() []store.EventKind {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := []store.EventKind{}
	for _, e := range v.events {
		out = append(out, e.Kind)
	}
	v.events = nil
	return out
}

// await waits for n events: they follow the reply that they tell of.
func (v *inventory) await(t testing.TB, n int) {
	t.Helper()
	for range 1000 {
		v.mu.Lock()
		got := len(v.events)
		v.mu.Unlock()
		if got >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d events did not come", n)
}

func (v *inventory) lease(a string) store.Lease {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leases[ip(a)]
}

func (v *inventory) writes() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.puts
}

func (v *inventory) unknownMachine(n int) store.UnknownMachine {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.unknown[mac(n)]
}

// seen waits until an unknown machine was written down count times.
func (v *inventory) seen(t testing.TB, n int, count int64) {
	t.Helper()
	for range 1000 {
		if v.unknownMachine(n).Count == count {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s was written down %d times, not %d", mac(n), v.unknownMachine(n).Count, count)
}

// config returns a configuration around the inventory.
func (v *inventory) config(t testing.TB, subnet store.Subnet) Config {
	return Config{
		Subnet: subnet, ListenAddr: "127.0.0.1:0",
		Boot:    func(local netip.Addr) netip.AddrPort { return netip.AddrPortFrom(local, 80) },
		Loaders: v, Ledger: ledger.New(v, v, v), Machines: v, Emit: v, Now: v.now,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// testWriter sends the log to the test's own.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func mac(n int) store.MAC {
	return store.MAC{0x52, 0x54, 0x00, byte(n >> 16), byte(n >> 8), byte(n)}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func lab() store.Subnet {
	return store.Subnet{
		Interface: "lab0", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPFull,
		Range: mustRange("10.77.0.100-10.77.0.103"), LeaseTime: time.Hour,
	}
}

func mustRange(s string) store.Range {
	r, err := store.ParseRange(s)
	if err != nil {
		panic(err)
	}
	return r
}

func machine(n int, address string) store.Machine {
	m := store.Machine{Name: fmt.Sprintf("m%d", n), MACs: []store.MAC{mac(n)}, Profile: store.DefaultProfile}
	if address != "" {
		m.Address = ip(address)
	}
	return m
}

// hw returns mac(n) as the library wants it.
func hw(n int) net.HardwareAddr { m := mac(n); return m[:] }
