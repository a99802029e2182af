package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// disk is the inventory: its rules, its revisions, and how often it was read.
type disk struct {
	mu        sync.Mutex
	now       time.Time
	leases    map[netip.Addr]store.Lease
	machines  []store.Machine
	ignored   []store.MAC
	inUse     map[netip.Addr]bool
	leaseRev  int64
	clientRev int64
	reads     int
	fails     error
	unlisted  error  // why the machines cannot be listed
	putting   func() // runs after a lease is on disk, before the writer knows
}

func newDisk(leases ...store.Lease) *disk {
	d := &disk{now: noon, leases: map[netip.Addr]store.Lease{}, inUse: map[netip.Addr]bool{}}
	for _, l := range leases {
		d.leases[l.Address] = l
	}
	return d
}

func (d *disk) Leases(context.Context) ([]store.Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	return slices.Collect(maps.Values(d.leases)), d.fails
}

func (d *disk) PutLease(_ context.Context, l store.Lease) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails != nil {
		return d.fails
	}
	if old, ok := d.leases[l.Address]; ok && old.State == store.LeaseBound && old.MAC != l.MAC && old.Expires.After(d.now) {
		return store.Conflict("address", "%s is leased to %s", l.Address, old.MAC)
	}
	if l.State == store.LeaseBound {
		maps.DeleteFunc(d.leases, func(_ netip.Addr, o store.Lease) bool {
			return o.MAC == l.MAC && o.State != store.LeaseDeclined && (!l.Network.IsValid() || l.Network.Contains(o.Address))
		})
	}
	d.leases[l.Address] = l
	if d.putting != nil {
		d.mu.Unlock()
		d.putting()
		d.mu.Lock()
	}
	return nil
}

func (d *disk) ProlongLease(_ context.Context, l store.Lease) error {
	if d.putting != nil {
		d.putting()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, ok := d.leases[l.Address]
	if d.fails != nil {
		return d.fails
	}
	if !ok || old.MAC != l.MAC || old.State != store.LeaseBound {
		return store.NotFound("lease", l.Address.String())
	}
	old.Expires, old.Updated = l.Expires, l.Updated
	d.leases[l.Address] = old
	return nil
}

func (d *disk) drop(a netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.leases, a)
	d.leaseRev++
}

func (d *disk) enroll(m ...store.Machine) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.machines = append(d.machines, m...)
	d.clientRev++
}

func (d *disk) Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	return slices.Clone(d.machines), len(d.machines), d.unlisted
}

func (d *disk) IgnoredMACs(context.Context) ([]store.MAC, error) { return d.ignored, nil }
func (d *disk) AddressInUse(a netip.Addr) bool                   { return d.inUse[a] }

func (d *disk) LeaseRevision() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaseRev
}

func (d *disk) ClientRevision() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clientRev
}

func ledgerOf(d *disk) *Ledger { return New(d, d, d) }

// turn takes one turn at a time.
func turn(t testing.TB, l *Ledger, now time.Time, f func(Turn)) {
	t.Helper()
	x, err := l.Begin(context.Background(), now)
	require.NoError(t, err)
	defer x.End()
	f(x)
}

func mac(n int) store.MAC { return store.MAC{0x52, 0x54, 0, byte(n >> 16), byte(n >> 8), byte(n)} }
func ip(s string) netip.Addr {
	return netip.MustParseAddr(s)
}

func bind(address string, owner int, until time.Duration) store.Lease {
	return store.Lease{Address: ip(address), MAC: mac(owner), State: store.LeaseBound, Expires: noon.Add(until), Updated: noon}
}

func machine(id int, address string) store.Machine {
	m := store.Machine{ID: store.MachineID(id), Name: fmt.Sprintf("m%d", id), MACs: []store.MAC{mac(id)}}
	if address != "" {
		m.Address = ip(address)
	}
	return m
}

// lab has four addresses, .100 to .103.
func lab() *store.Subnet { return subnet("10.77.0.0/24", "10.77.0.100-10.77.0.103") }

func subnet(prefix, rng string) *store.Subnet {
	r, err := store.ParseRange(rng)
	if err != nil {
		panic(err)
	}
	return &store.Subnet{Prefix: netip.MustParsePrefix(prefix), Range: r}
}

// pick asks for a free address at noon, as an enrolled machine.
func pick(t testing.TB, l *Ledger, change ...func(*Want)) (a netip.Addr, reason string) {
	t.Helper()
	w := Want{Subnet: lab(), Enrolled: true}
	for _, f := range change {
		f(&w)
	}
	turn(t, l, noon, func(x Turn) { a, reason = x.Pick(w) })
	return a, reason
}

func hint(a string) func(*Want)      { return func(w *Want) { w.Hint = ip(a) } }
func in(s *store.Subnet) func(*Want) { return func(w *Want) { w.Subnet = s } }
func stranger(w *Want)               { w.Stranger, w.Enrolled = true, false }
func guest(w *Want)                  { w.Enrolled = false }

func offer(t testing.TB, l *Ledger, n int, a string, stranger bool) {
	t.Helper()
	turn(t, l, noon, func(x Turn) { x.Hold(mac(n), lab().Prefix, ip(a), stranger) })
}

func TestPickTakesNeverUsedAddressesFirst(t *testing.T) {
	l := ledgerOf(newDisk(bind("10.77.0.100", 2, time.Hour), bind("10.77.0.101", 3, -time.Hour)))
	a, _ := pick(t, l)
	assert.Equal(t, "10.77.0.102", a.String())
}

func TestPickPrefersAddressesThatTheWireWasAskedFor(t *testing.T) {
	l := ledgerOf(newDisk())
	wire := func(w *Want) {
		w.Aside = []netip.Addr{ip("10.77.0.100")}
		w.Quiet, w.Ahead = func(a netip.Addr) bool { return a == ip("10.77.0.102") }, 32
	}
	a, _ := pick(t, l, wire)
	assert.Equal(t, "10.77.0.102", a.String())
	offer(t, l, 9, "10.77.0.102", false)
	a, _ = pick(t, l, wire)
	assert.Equal(t, "10.77.0.101", a.String(), "an unchecked one is better than none")
}

func TestPickReusesTheLeaseThatEndedFirst(t *testing.T) {
	d := newDisk(bind("10.77.0.100", 2, -time.Minute), bind("10.77.0.101", 3, -time.Hour), bind("10.77.0.102", 4, -2*time.Hour), bind("10.77.0.103", 5, time.Hour))
	l := ledgerOf(d)
	a, _ := pick(t, l)
	assert.Equal(t, "10.77.0.102", a.String())
	d.inUse[ip("10.77.0.102")] = true
	a, _ = pick(t, l)
	assert.Equal(t, "10.77.0.101", a.String(), "a volume is open from the oldest")
}

func TestPickHeedsAHintThatIsFree(t *testing.T) {
	l := ledgerOf(newDisk(bind("10.77.0.101", 2, time.Hour), bind("10.77.0.103", 3, -time.Hour)))
	for asked, want := range map[string]string{"10.77.0.102": "10.77.0.102", "10.77.0.103": "10.77.0.103", "10.77.0.101": "10.77.0.100", "192.168.1.1": "10.77.0.100", "::1": "10.77.0.100"} {
		a, _ := pick(t, l, hint(asked))
		assert.Equal(t, want, a.String(), asked)
	}
}

func TestPickLeavesOutWhatIsNotTheRangesToGive(t *testing.T) {
	d := newDisk()
	l := ledgerOf(d)
	small := subnet("10.77.0.96/29", "10.77.0.96-10.77.0.103")
	ours := func(w *Want) { w.Aside = []netip.Addr{ip("10.77.0.97"), ip("10.77.0.98"), ip("10.77.0.98"), {}} }
	d.enroll(machine(5, "10.77.0.99"))
	offer(t, l, 9, "10.77.0.100", false)
	d.inUse[ip("10.77.0.101")] = true
	a, _ := pick(t, l, in(small), ours)
	assert.Equal(t, "10.77.0.102", a.String())
	d.enroll(machine(6, "10.77.0.102"))
	a, reason := pick(t, l, in(small), ours)
	assert.False(t, a.IsValid(), "the network's and the broadcast address are no machine's")
	assert.Contains(t, reason, "all 8 addresses of 10.77.0.96-10.77.0.103")
}

func TestPickWithoutARange(t *testing.T) {
	a, _ := pick(t, ledgerOf(newDisk()), in(&store.Subnet{Prefix: netip.MustParsePrefix("10.77.0.0/24")}))
	assert.False(t, a.IsValid())
}

// A flood of invented MACs must not take the range from the machines.
func TestStrangersAreOfferedHalfOfTheRange(t *testing.T) {
	l := ledgerOf(newDisk())
	offer(t, l, 10, "10.77.0.100", true)
	a, _ := pick(t, l, stranger)
	assert.True(t, a.IsValid())
	offer(t, l, 11, "10.77.0.101", true)
	a, reason := pick(t, l, stranger)
	assert.False(t, a.IsValid())
	assert.Contains(t, reason, "2 of the 4 addresses")
	a, _ = pick(t, l)
	assert.True(t, a.IsValid(), "a machine still gets one")
	offer(t, l, 11, "10.77.0.101", false)
	a, _ = pick(t, l, stranger)
	assert.True(t, a.IsValid(), "who held a lease is no stranger")
	turn(t, l, noon, func(x Turn) {
		x.Withdraw(mac(10), lab().Prefix)
		x.Hold(mac(12), netip.MustParsePrefix("10.99.0.0/24"), ip("10.99.0.1"), true)
	})
	a, _ = pick(t, l, stranger)
	assert.True(t, a.IsValid(), "what is offered elsewhere is no part of this range")

	one := subnet("10.77.0.0/24", "10.77.0.103-10.77.0.103")
	a, _ = pick(t, l, in(one), stranger)
	assert.True(t, a.IsValid(), "half of one is one")
}

func TestAddressesAreKeptForEnrolledMachines(t *testing.T) {
	d := newDisk(bind("10.77.0.100", 7, time.Hour), bind("10.77.0.101", 50, time.Hour))
	d.enroll(machine(7, ""), machine(8, ""), machine(9, ""), machine(10, "10.77.0.9"))
	l := ledgerOf(d)
	_, reason := pick(t, l, guest) // machine 7 has its lease, two do not
	assert.Contains(t, reason, "the last 2 addresses")
	a, _ := pick(t, l)
	assert.True(t, a.IsValid())
	require.NoError(t, l.Put(t.Context(), bind("10.77.0.102", 8, time.Hour)))
	_, reason = pick(t, l, guest)
	assert.Contains(t, reason, "the last 1 addresses")
	turn(t, l, noon.Add(2*time.Hour), func(x Turn) {
		_, reason = x.Pick(Want{Subnet: lab()})
		assert.Empty(t, reason, "at most half of the range is kept")
	})
	d.mu.Lock()
	d.machines = nil
	d.mu.Unlock()
	d.enroll()
	a, _ = pick(t, l, guest)
	assert.True(t, a.IsValid())
}

// Machines of another VLAN, or of one where another server gives the addresses,
// have none kept here.
func TestAddressesAreKeptForTheMachinesOfTheirNetwork(t *testing.T) {
	vlan := netip.MustParsePrefix("10.88.0.0/24")
	d := newDisk(bind("10.88.0.100", 1, -time.Hour), bind("10.77.0.100", 2, -time.Hour))
	d.enroll(machine(1, ""), machine(2, ""), machine(3, ""))
	l := ledgerOf(d)
	kept := func(network netip.Prefix) (n int) {
		turn(t, l, noon, func(x Turn) { n = x.l.waiting(network, noon) })
		return n
	}
	assert.Equal(t, 2, kept(lab().Prefix), "one was here last, and one was never seen")
	assert.Equal(t, 2, kept(vlan))
	turn(t, l, noon, func(x Turn) { x.At(3, vlan) })
	assert.Equal(t, 1, kept(lab().Prefix))
	assert.Equal(t, 2, kept(vlan))
	require.NoError(t, l.Put(t.Context(), bind("10.88.0.101", 3, time.Hour)))
	assert.Equal(t, 1, kept(vlan), "it has its lease there")
	turn(t, l, noon, func(x Turn) { x.At(1, lab().Prefix) })
	assert.Equal(t, 2, kept(lab().Prefix), "it has moved here")
	assert.Equal(t, 0, kept(vlan))
	d.mu.Lock()
	d.machines = nil
	d.mu.Unlock()
	d.enroll()
	assert.Equal(t, 0, kept(lab().Prefix))
	assert.Empty(t, l.homes, "what is no machine any more is forgotten")
}

func TestAHoldIsOneForAMACInANetworkAndOneForAnAddress(t *testing.T) {
	l := ledgerOf(newDisk())
	net := lab().Prefix
	a, b := ip("10.77.0.100"), ip("10.77.0.101")
	offer(t, l, 1, "10.77.0.100", false)
	offer(t, l, 1, "10.77.0.101", false)
	turn(t, l, noon, func(x Turn) {
		assert.Equal(t, b, x.Offered(mac(1), net))
		assert.Zero(t, x.Address(a).OfferedTo)
		assert.Equal(t, mac(1), x.Address(b).OfferedTo)
	})
	vlan, c := netip.MustParsePrefix("10.88.0.0/24"), ip("10.88.0.100")
	turn(t, l, noon, func(x Turn) {
		x.Hold(mac(1), vlan, c, false)
		assert.Equal(t, b, x.Offered(mac(1), net), "what it is offered on another VLAN is beside it")
		assert.Equal(t, c, x.Offered(mac(1), vlan))
		x.Withdraw(mac(1), vlan)
		assert.Equal(t, b, x.Offered(mac(1), net))
	})
	later := noon.Add(2 * HoldTime)
	turn(t, l, later, func(x Turn) {
		assert.False(t, x.Offered(mac(1), net).IsValid(), "its minute is over")
		x.Hold(mac(2), net, b, false) // the first machine never came back for it
		assert.False(t, x.Offered(mac(1), net).IsValid(), "the first machine must not be told that it is still its")
		x.Hold(mac(1), net, a, false)
		assert.Equal(t, mac(2), x.Address(b).OfferedTo, "the first machine took the second one's address away")
		x.Withdraw(mac(1), net)
		assert.Equal(t, b, x.Offered(mac(2), net))
	})
	for i := range 1000 {
		turn(t, l, later, func(x Turn) { x.Hold(mac(i+1), net, a, true) })
	}
	turn(t, l, later, func(x Turn) { assert.Equal(t, mac(1000), x.Address(a).OfferedTo) })
	assert.Len(t, l.held.byClient, 1)
	assert.Len(t, l.held.byAddr, 1)
	turn(t, l, later.Add(HoldTime), func(Turn) {})
	assert.Empty(t, l.held.byClient)
	assert.Empty(t, l.known.n)
}

func TestOwnIsTheNewestLeaseOfTheNetwork(t *testing.T) {
	older, elsewhere, declined := bind("10.77.0.100", 1, time.Hour), bind("10.88.0.100", 1, 2*time.Hour), bind("10.77.0.102", 1, time.Hour)
	declined.State = store.LeaseDeclined
	newer := bind("10.77.0.101", 1, time.Minute)
	newer.Updated = noon.Add(time.Second)
	l := ledgerOf(newDisk(older, elsewhere, declined, newer))
	turn(t, l, noon, func(x Turn) {
		assert.Equal(t, newer, x.Own(mac(1), netip.MustParsePrefix("10.77.0.0/24")))
		assert.Equal(t, elsewhere, x.Own(mac(1), netip.MustParsePrefix("10.88.0.0/24")))
		assert.Zero(t, x.Own(mac(1), netip.MustParsePrefix("10.99.0.0/24")))
	})
	moved := bind("10.77.0.103", 1, time.Hour)
	moved.Network = netip.MustParsePrefix("10.77.0.0/24")
	require.NoError(t, l.Put(t.Context(), moved))
	turn(t, l, noon, func(x Turn) {
		assert.Equal(t, moved, x.Own(mac(1), netip.MustParsePrefix("10.77.0.0/24")))
		assert.Zero(t, x.Address(ip("10.77.0.101")).Lease, "one machine, one address in a network")
		assert.Equal(t, elsewhere, x.Own(mac(1), netip.MustParsePrefix("10.88.0.0/24")), "and one in another, on another VLAN")
		assert.Equal(t, store.LeaseDeclined, x.Address(ip("10.77.0.102")).Lease.State)
	})
}

// What an operator does counts from the next packet on, and nothing is read
// while nobody does anything.
func TestTheLedgerFollowsWhatOthersChange(t *testing.T) {
	d := newDisk()
	l := ledgerOf(d)
	a := ip("10.77.0.100")
	require.NoError(t, l.Put(t.Context(), bind("10.77.0.100", 1, time.Hour)), "before anything was read")
	turn(t, l, noon, func(x Turn) { assert.Equal(t, mac(1), x.Address(a).Lease.MAC) })
	before := d.reads
	for i := range 100 {
		require.NoError(t, l.Put(t.Context(), bind("10.77.0.101", 2, time.Duration(i)*time.Hour)))
		turn(t, l, noon, func(x Turn) {})
	}
	assert.Equal(t, before, d.reads)
	assert.True(t, l.Known(mac(2)))

	d.drop(a)
	turn(t, l, noon, func(x Turn) { assert.Zero(t, x.Address(a).Lease) })
	assert.False(t, l.Known(mac(1)))
	free, _ := pick(t, l)
	assert.Equal(t, a, free)
	d.enroll(machine(7, "10.77.0.100"))
	free, _ = pick(t, l)
	assert.NotEqual(t, a, free)
	assert.True(t, l.Known(mac(7)))
	d.ignored = []store.MAC{mac(8)}
	d.enroll()
	turn(t, l, noon, func(x Turn) {
		m, ignored := x.Client(mac(7))
		assert.Equal(t, "m7", m.Name)
		assert.False(t, ignored)
		m, ignored = x.Client(mac(8))
		assert.Nil(t, m)
		assert.True(t, ignored)
	})
}

// A lease that is dropped between its commit and the writer's knowing must not
// live on in memory.
func TestALeaseDroppedWhileItIsWrittenIsGone(t *testing.T) {
	d := newDisk()
	l := ledgerOf(d)
	turn(t, l, noon, func(Turn) {})
	a := ip("10.77.0.100")
	d.putting = func() { d.drop(a) }
	require.NoError(t, l.Put(t.Context(), bind("10.77.0.100", 1, time.Hour)))
	turn(t, l, noon, func(x Turn) { assert.Zero(t, x.Address(a).Lease) })
}

// An operating system that runs from its volume never renews: its lease is
// prolonged, without taking anything from anybody.
func TestALeaseIsProlongedWhileItsMACHoldsIt(t *testing.T) {
	d := newDisk(bind("10.77.0.100", 1, time.Minute), bind("10.77.0.101", 2, time.Minute))
	l := ledgerOf(d)
	turn(t, l, noon, func(Turn) {})
	require.NoError(t, l.Prolong(t.Context(), bind("10.77.0.100", 1, time.Hour)))
	reads := d.reads
	turn(t, l, noon.Add(2*time.Minute), func(x Turn) {
		assert.Equal(t, noon.Add(time.Hour), x.Address(ip("10.77.0.100")).Lease.Expires)
		some := x.Next(lab(), nil, 4)
		assert.NotContains(t, some, ip("10.77.0.100"))
		assert.Contains(t, some, ip("10.77.0.101"))
	})
	assert.Equal(t, reads, d.reads)
	d.putting = func() { // the machine moves while the disk is busy
		d.putting = nil
		moved := bind("10.77.0.103", 1, time.Hour)
		moved.Network = lab().Prefix
		require.NoError(t, l.Put(t.Context(), moved))
	}
	require.NoError(t, l.Prolong(t.Context(), bind("10.77.0.100", 1, 2*time.Hour)), "its lease is gone, which is as well")
	turn(t, l, noon, func(x Turn) {
		assert.Zero(t, x.Address(ip("10.77.0.100")).Lease)
		assert.Equal(t, ip("10.77.0.103"), x.Own(mac(1), lab().Prefix).Address)
	})
	d.fails = errors.New("no space left on device")
	require.ErrorIs(t, l.Prolong(t.Context(), bind("10.77.0.103", 1, 2*time.Hour)), d.fails)
}

func TestAWriteThatFailsIsNotBelieved(t *testing.T) {
	d := newDisk(bind("10.77.0.101", 9, time.Hour))
	l := ledgerOf(d)
	turn(t, l, noon, func(Turn) {})
	d.fails = errors.New("no space left on device")
	require.Error(t, l.Put(t.Context(), bind("10.77.0.100", 1, time.Hour)))
	_, err := l.Begin(t.Context(), noon)
	require.ErrorIs(t, err, d.fails, "what is on disk is not known")
	d.fails = nil
	turn(t, l, noon, func(x Turn) {
		assert.Zero(t, x.Address(ip("10.77.0.100")).Lease)
	})
	assert.Error(t, l.Put(t.Context(), bind("10.77.0.101", 1, time.Hour)), "it is another's")
	turn(t, l, noon, func(x Turn) { assert.Equal(t, mac(9), x.Address(ip("10.77.0.101")).Lease.MAC) })
}

// The leases were read and the machines could not be: what is made of both must not
// stay as it was, or a decision meets an address of which there is no row.
func TestAReadThatFailsHalfwayIsMadeAnew(t *testing.T) {
	declined := bind("10.77.0.101", 2, time.Hour)
	declined.State = store.LeaseDeclined
	d := newDisk(bind("10.77.0.100", 1, time.Hour), declined)
	l := ledgerOf(d)
	s := subnet("10.77.0.0/24", "10.77.0.100-10.77.0.101")
	wants := func(w *Want) { w.Subnet, w.Enrolled = s, true }
	free, _ := pick(t, l, wants)
	assert.NotEqual(t, ip("10.77.0.100"), free)
	d.drop(ip("10.77.0.100"))
	d.drop(ip("10.77.0.101"))
	d.enroll(machine(7, ""))
	d.unlisted = errors.New("disk I/O error")
	_, err := l.Begin(t.Context(), noon)
	require.ErrorIs(t, err, d.unlisted)
	d.unlisted = nil
	turn(t, l, noon, func(x Turn) {
		assert.Empty(t, x.GiveBack(mac(3), s, ip("10.77.0.100")), "nobody set anything aside any more")
	})
	free, reason := pick(t, l, wants)
	assert.Equal(t, ip("10.77.0.100"), free, reason)
	assert.False(t, l.Known(mac(1)))
	assert.True(t, l.Known(mac(7)))
}

// Fifty thousand addresses and as many leases cost no more than four.
func BenchmarkAStrangersDiscover(b *testing.B) {
	for _, n := range []int{100, 50000} {
		b.Run(fmt.Sprint(n, " leases"), func(b *testing.B) {
			d := newDisk()
			s := subnet("10.64.0.0/10", "10.64.1.0-10.65.0.255")
			for i := range n {
				a := address(number(s.Range.From) + uint32(i))
				d.leases[a] = store.Lease{Address: a, MAC: mac(i), State: store.LeaseBound, Expires: noon.Add(time.Hour)}
			}
			l := ledgerOf(d)
			turn(b, l, noon, func(x Turn) { x.Pick(Want{Subnet: s}) })
			b.ReportAllocs()
			for i := range b.N {
				turn(b, l, noon.Add(time.Duration(i)*10*time.Millisecond), func(x Turn) {
					if a, _ := x.Pick(Want{Subnet: s, Stranger: true}); a.IsValid() {
						x.Hold(mac(1<<20+i%100000), s.Prefix, a, true)
					}
				})
			}
		})
	}
}
