package dhcp

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// pool is a range of four addresses, .100 to .103, that nobody holds.
func pool(leases ...store.Lease) Pool {
	return Pool{
		Now: noon, Subnet: lab(), Leases: leases, Offered: map[netip.Addr]store.MAC{}, Reserved: map[netip.Addr]store.MachineID{},
		Appliance: func(netip.Addr) bool { return false },
		InUse:     func(netip.Addr) bool { return false },
		Checked:   func(netip.Addr) survey.Check { return survey.Unchecked },
	}
}

func only(want ...string) func(netip.Addr) bool {
	return func(a netip.Addr) bool { return slices.Contains(want, a.String()) }
}

func pick(p Pool) string { return p.Pick(netip.Addr{}, false, true).Address.String() }

func TestPickTakesNeverUsedAddressesFirst(t *testing.T) {
	p := pool(bind("10.77.0.100", 2, time.Hour), bind("10.77.0.101", 3, -time.Hour))
	assert.Equal(t, "10.77.0.102", pick(p))
}

func TestPickPrefersAddressesThatTheWireWasAskedFor(t *testing.T) {
	p := pool()
	p.Checked = func(a netip.Addr) survey.Check {
		switch a.String() {
		case "10.77.0.100":
			return survey.Taken
		case "10.77.0.102":
			return survey.Quiet
		}
		return survey.Unchecked
	}
	assert.Equal(t, "10.77.0.102", pick(p))
	p.Offered[ip("10.77.0.102")] = mac(9)
	assert.Equal(t, "10.77.0.101", pick(p), "an unchecked one is better than none")
}

func TestPickReusesTheLeaseThatExpiredFirst(t *testing.T) {
	p := pool(bind("10.77.0.100", 2, -time.Minute), bind("10.77.0.101", 3, -time.Hour), bind("10.77.0.102", 4, -2*time.Hour), bind("10.77.0.103", 5, time.Hour))
	assert.Equal(t, "10.77.0.102", pick(p))
	p.InUse = only("10.77.0.102")
	assert.Equal(t, "10.77.0.101", pick(p), "a volume is open from the oldest")
}

func TestPickHeedsAHintThatIsFree(t *testing.T) {
	p := pool(bind("10.77.0.101", 2, time.Hour), bind("10.77.0.103", 3, -time.Hour))
	assert.Equal(t, "10.77.0.102", p.Pick(ip("10.77.0.102"), false, true).Address.String())
	assert.Equal(t, "10.77.0.103", p.Pick(ip("10.77.0.103"), false, true).Address.String())
	assert.Equal(t, "10.77.0.100", p.Pick(ip("10.77.0.101"), false, true).Address.String())
	assert.Equal(t, "10.77.0.100", p.Pick(ip("192.168.1.1"), false, true).Address.String())
}

func TestPickLeavesOutWhatIsNotTheRangesToGive(t *testing.T) {
	p := pool()
	p.Subnet.Prefix, p.Subnet.Range = netip.MustParsePrefix("10.77.0.96/29"), mustRange("10.77.0.96-10.77.0.103")
	p.Appliance = only("10.77.0.97", "10.77.0.98") // ours and the router's
	p.Reserved[ip("10.77.0.99")] = 5
	p.Offered[ip("10.77.0.100")] = mac(9)
	p.InUse = only("10.77.0.101")
	assert.Equal(t, "10.77.0.102", pick(p))
	p.Reserved[ip("10.77.0.102")] = 6
	free := p.Pick(netip.Addr{}, false, true)
	assert.False(t, free.Address.IsValid(), "the network's and the broadcast address are no machine's")
	assert.Contains(t, free.Reason, "all 8 addresses of 10.77.0.96-10.77.0.103")
}

func TestPickWithoutARange(t *testing.T) {
	p := pool()
	p.Subnet.Range = store.Range{}
	assert.False(t, p.Pick(netip.Addr{}, false, true).Address.IsValid())
}

// A flood of invented MACs must not take the range from the machines.
func TestStrangersAreOfferedHalfOfTheRange(t *testing.T) {
	p := pool()
	p.Offered[ip("10.77.0.100")] = mac(10)
	assert.True(t, p.Pick(netip.Addr{}, true, false).Address.IsValid())
	p.Offered[ip("10.77.0.101")] = mac(11)
	free := p.Pick(netip.Addr{}, true, false)
	assert.False(t, free.Address.IsValid())
	assert.Contains(t, free.Reason, "2 of the 4 addresses")
	assert.True(t, p.Pick(netip.Addr{}, false, true).Address.IsValid(), "a machine still gets one")
	p.Leases = []store.Lease{bind("10.77.0.103", 11, -time.Hour)}
	assert.True(t, p.Pick(netip.Addr{}, true, false).Address.IsValid(), "who held a lease is no stranger")

	one := pool()
	one.Subnet.Range = mustRange("10.77.0.100-10.77.0.100")
	assert.True(t, one.Pick(netip.Addr{}, true, false).Address.IsValid(), "half of one is one")
}

func TestAddressesAreKeptForEnrolledMachines(t *testing.T) {
	taken := bind("10.77.0.100", 7, time.Hour)
	taken.Machine = 7
	p := pool(taken, bind("10.77.0.101", 8, time.Hour))
	p.Dynamic = 3 // machine 7 has its lease, two do not
	free := p.Pick(netip.Addr{}, false, false)
	assert.Contains(t, free.Reason, "the last 2 addresses")
	assert.True(t, p.Pick(netip.Addr{}, false, true).Address.IsValid())
	p.Dynamic = 2
	assert.True(t, p.Pick(netip.Addr{}, false, false).Address.IsValid())
}

func TestRecentIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	r := newRecent[int, int](10)
	r.put(-1, 1)
	for i := range 1000 {
		r.put(i, i)
		assert.Equal(t, 1, r.getOr(-1, func() int { return 2 }), "a key that is used stays")
		assert.LessOrEqual(t, len(r.now)+len(r.old), 20)
	}
	_, ok := r.get(5)
	assert.False(t, ok)
	v, ok := r.get(999)
	assert.True(t, ok)
	assert.Equal(t, 999, v)
}

func TestBookHoldsOneAddressAMAC(t *testing.T) {
	b := newBook()
	b.keep(mac(1), ip("10.77.0.100"), noon.Add(time.Minute))
	b.keep(mac(1), ip("10.77.0.101"), noon.Add(time.Minute))
	b.keep(mac(2), ip("10.77.0.102"), noon)
	assert.Equal(t, ip("10.77.0.101"), b.of(mac(1), noon))
	assert.Equal(t, store.MAC{}, b.holder(ip("10.77.0.100"), noon))
	assert.Equal(t, mac(1), b.holder(ip("10.77.0.101"), noon))
	assert.False(t, b.of(mac(2), noon).IsValid(), "its minute is over")
	assert.Equal(t, map[netip.Addr]store.MAC{ip("10.77.0.101"): mac(1)}, maps.Clone(b.live(noon)))
	b.forget(mac(1))
	assert.Empty(t, b.live(noon))
	assert.Empty(t, b.byAddr)
	assert.Empty(t, b.byMAC)
}
