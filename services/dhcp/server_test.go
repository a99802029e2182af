package dhcp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"lunboot/services/dhcp/message"
	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves on loopback until the test ends.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s := New(cfg)
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return s
}

// client is a DHCP client on loopback.
type client struct {
	t    *testing.T
	conn *net.UDPConn
}

func dial(t *testing.T, s *Server) *client {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.Addr()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn}
}

func (c *client) send(p *dhcpv4.DHCPv4) {
	_, err := c.conn.Write(p.ToBytes())
	require.NoError(c.t, err)
}

// ask sends a message and returns the answer.
func (c *client) ask(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	c.t.Helper()
	c.send(p)
	buf := make([]byte, 1500)
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	n, err := c.conn.Read(buf)
	require.NoError(c.t, err)
	back, err := dhcpv4.FromBytes(buf[:n])
	require.NoError(c.t, err)
	assert.Equal(c.t, p.TransactionID, back.TransactionID)
	return back
}

// silent asserts that nothing comes. A later message that is answered proves
// that the earlier ones were read.
func (c *client) silent(p *dhcpv4.DHCPv4) {
	c.t.Helper()
	c.send(p)
	buf := make([]byte, 1500)
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(150*time.Millisecond)))
	_, err := c.conn.Read(buf)
	assert.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
}

func discover(n int, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	p, err := dhcpv4.NewDiscovery(hw(n), mods...)
	if err != nil {
		panic(err)
	}
	return p
}

func request(offer *dhcpv4.DHCPv4, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	p, err := dhcpv4.NewRequestFromOffer(offer, mods...)
	if err != nil {
		panic(err)
	}
	return p
}

// bind takes a lease and returns its address.
func (c *client) bind(n int, mods ...dhcpv4.Modifier) string {
	c.t.Helper()
	offer := c.ask(discover(n, mods...))
	require.Equal(c.t, dhcpv4.MessageTypeOffer, offer.MessageType())
	ack := c.ask(request(offer, mods...))
	require.Equal(c.t, dhcpv4.MessageTypeAck, ack.MessageType())
	assert.True(c.t, offer.YourIPAddr.Equal(ack.YourIPAddr))
	return ack.YourIPAddr.String()
}

// Firmware sends no client identifier, iPXE one made of the MAC, an operating
// system a DUID. They are one machine.
func TestOneMachineHasOneAddress(t *testing.T) {
	v := newInventory(newClock().Now)
	c := dial(t, start(t, v.config(t, lab())))
	first := c.bind(1)
	ipxe := dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, hw(1)...)))
	duid := dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 1, 2, 3, 4, 0, 1, 0, 1, 9, 9, 9, 9}))
	assert.Equal(t, first, c.bind(1, ipxe))
	assert.Equal(t, first, c.bind(1, duid))
	assert.NotEqual(t, first, c.bind(2))
	assert.Equal(t, "ff0102030400010001"+"09090909", v.lease(first).ClientID, "shown, and never the key")
}

// RFC 4578 §2.1: option 93 may name several architectures, in the client's order.
func TestFirmwareThatNamesSeveralArchitecturesIsGivenALoaderForOneOfThem(t *testing.T) {
	v := newInventory(newClock().Now)
	wide := lab()
	wide.Range = mustRange("10.77.0.100-10.77.0.250")
	c := dial(t, start(t, v.config(t, wide)))
	for n, said := range []struct {
		arches []byte
		file   string
	}{
		{[]byte{0, 41, 0, 7}, "snponly.efi"},                 // RISC-V, x64
		{[]byte{0, 1, 0, 0}, "undionly.kpxe"},                // NEC PC-98, BIOS
		{[]byte{0, 11, 0, 7, 0, 0}, "snponly.efi"},           // ARM64, for which nothing lies here
		{[]byte{0, 0, 0, 7}, "undionly.kpxe"},                // the first of two that would do
		{[]byte{0, 7}, "snponly.efi"},                        // as all do
		{[]byte{0, 41, 0, 7, 0}, "snponly.efi"},              // cut short
		{bytes.Repeat([]byte{0, 41}, 100), ""},               // none that anybody has
		{append(bytes.Repeat([]byte{0, 41}, 100), 0, 7), ""}, // a list that no machine has
	} {
		offer := c.ask(discover(n+1, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, said.arches))))
		_, file, _ := strings.Cut(offer.BootFileName, "/")
		assert.Equal(t, said.file, file, "%v", said.arches)
	}
	// The events of one machine are in order, and those of two in none.
	for n, want := range map[int]string{1: "UEFI", 2: "BIOS"} {
		assert.Eventually(t, func() bool {
			v.mu.Lock()
			defer v.mu.Unlock()
			return slices.ContainsFunc(v.events, func(e store.Event) bool { return e.MAC == mac(n) && e.Detail.Firmware == want })
		}, 5*time.Second, time.Millisecond, "what counts is told")
	}
}

// RFC 2132 §9.10. Old ROMs drop what is longer than they say, and never boot.
func TestNoAnswerIsLongerThanItsClientTakes(t *testing.T) {
	v := newInventory(newClock().Now, machine(1, ""))
	full := lab()
	full.Router, full.Domain, full.NTP = ip("10.77.0.254"), "lab.example.org", []netip.Addr{ip("10.77.0.2"), ip("10.77.0.3")}
	for n := range 8 {
		full.DNS = append(full.DNS, netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + n)}))
	}
	for n := range 8 {
		full.Search = append(full.Search, strings.Repeat(string(rune('a'+n)), 60)+".example.org")
	}
	c := dial(t, start(t, v.config(t, full)))
	said := bytes.Repeat([]byte("relay"), 20)
	ask := func(says int, mods ...dhcpv4.Modifier) (int, *dhcpv4.DHCPv4) {
		mods = append(mods, asPXE, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, append([]byte{2, byte(len(said))}, said...))),
			dhcpv4.WithOption(dhcpv4.OptGeneric(message.OptionUUID, make([]byte, 17))))
		if says > 0 {
			mods = append(mods, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(uint16(says))))
		}
		d := discover(1, mods...)
		d.Options.Del(dhcpv4.OptionParameterRequestList) // it wants all
		back := c.ask(d)
		return len(message.Append(nil, back)), back
	}
	size, all := ask(1472)
	require.Greater(t, size, 548)
	assert.True(t, all.Options.Has(dhcpv4.OptionDNSDomainSearchList))
	for _, says := range []int{0, 576, 300} {
		size, back := ask(says)
		assert.LessOrEqual(t, size, 548, "it says %d", says)
		assert.False(t, back.Options.Has(dhcpv4.OptionDNSDomainSearchList), "it says %d", says)
		for _, code := range []uint8{1, 3, 51, 53, 54, 60, 66, 67, 82, 97} {
			assert.True(t, back.Options.Has(dhcpv4.GenericOptionCode(code)), "it says %d, and option %d is missing", says, code)
		}
		assert.Equal(t, all.BootFileName, back.BootFileName)
	}
}

func TestAckLeavesOnlyAfterTheLeaseIsDurable(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Log = slog.New(slog.DiscardHandler)
	c := dial(t, start(t, cfg))
	offer := c.ask(discover(1))
	v.await(t, 2)
	v.mu.Lock()
	v.putFails = errors.New("no space left on device")
	v.mu.Unlock()
	v.kinds()
	c.silent(request(offer))
	assert.Empty(t, v.kinds(), "nothing was given, so nothing is told")
	v.mu.Lock()
	v.putFails = nil
	v.mu.Unlock()
	assert.Equal(t, dhcpv4.MessageTypeAck, c.ask(request(offer)).MessageType())
	assert.Equal(t, store.LeaseBound, v.lease(message.AddrOf(offer.YourIPAddr).String()).State)
}

func TestOfferIsKeptForAMinute(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	n := lab()
	n.Range = mustRange("10.77.0.100-10.77.0.101")
	c := dial(t, start(t, v.config(t, n)))
	first := c.ask(discover(1)).YourIPAddr.String()
	assert.Equal(t, first, c.ask(discover(1)).YourIPAddr.String())
	clock.pass(61 * time.Second)
	assert.Equal(t, first, c.ask(discover(2)).YourIPAddr.String())
	assert.Zero(t, v.writes(), "an offer writes nothing to disk")
}

func TestDeclinedAddressIsSetAside(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	n := lab()
	n.Range = mustRange("10.77.0.100-10.77.0.115")
	c := dial(t, start(t, v.config(t, n)))
	first := c.bind(1)
	v.await(t, 4)
	v.kinds()
	c.silent(decline(1, first))
	assert.Equal(t, []store.EventKind{store.EventDHCPDecline}, v.kinds())
	second := c.bind(1)
	assert.NotEqual(t, first, second)
	assert.NotEqual(t, first, c.bind(2))
	assert.NotEqual(t, first, c.bind(3))
	hint := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(first)))
	assert.NotEqual(t, first, c.ask(discover(4, hint)).YourIPAddr.String())
	clock.pass(11 * time.Minute)
	assert.Equal(t, first, c.bind(4, hint))
}

func decline(n int, address string) *dhcpv4.DHCPv4 {
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(hw(n)), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(address))),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(127, 0, 0, 1))))
	if err != nil {
		panic(err)
	}
	return p
}

// One client that declines whatever it is offered must not empty the range, and is
// led through all of it before it meets an address again.
func TestOneClientCannotTakeTheRangeOutByDeclining(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""), machine(2, ""))
	n := lab()
	n.Range = mustRange("10.77.0.100-10.77.0.131")
	c := dial(t, start(t, v.config(t, n)))
	met := map[string]int{}
	for i := range 64 {
		clock.pass(time.Second)
		a := c.ask(discover(1)).YourIPAddr.String()
		met[a]++
		c.send(decline(1, a))
		aside := func() (n int) {
			v.mu.Lock()
			defer v.mu.Unlock()
			for _, l := range v.leases {
				if l.State == store.LeaseDeclined && l.Expires.After(clock.Now()) {
					n++
				}
			}
			return n
		}
		require.Eventually(t, func() bool {
			l := v.lease(a)
			return l.State == store.LeaseDeclined && l.Expires.After(clock.Now()) && aside() == min(i+1, 4)
		}, 5*time.Second, time.Millisecond, "round %d: %d are set aside", i, aside())
	}
	assert.Len(t, met, 32, "%v", met)
	for a, times := range met {
		assert.Equal(t, 2, times, a)
	}
	c.bind(2)
}

// Who takes leases under invented MACs has half of the range; a machine that is
// enrolled then still finds an address.
func TestStrangersLeasesAreAtMostHalfOfTheRange(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	n := lab()
	n.Range = mustRange("10.77.0.100-10.77.0.107")
	c := dial(t, start(t, v.config(t, n)))
	for i := range 4 {
		c.bind(11 + i)
	}
	v.await(t, 16)
	v.kinds()
	c.silent(discover(15))
	v.mu.Lock()
	assert.Contains(t, v.events[1].Detail.Reason, "4 of the 8 addresses of 10.77.0.100-10.77.0.107 are with machines that are not enrolled and were never here before")
	v.mu.Unlock()
	free := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 107)))
	assert.Equal(t, dhcpv4.MessageTypeNak, c.ask(discover(16, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), free, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(127, 0, 0, 1))))).MessageType(), "an offer that it did not have")
	c.silent(discover(17, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.IPv4(10, 77, 0, 107))))
	v.mu.Lock()
	v.machines = append(v.machines, store.Machine{ID: 1, Name: "m1", MACs: []store.MAC{mac(15)}})
	v.mu.Unlock()
	c.bind(15)

	clock.pass(31 * time.Minute) // past the middle of a lease
	c.bind(11)
	assert.NotEmpty(t, c.bind(18), "who renews is real, and leaves room for the next")
}

func TestReleasedAddressWaitsForItsMachine(t *testing.T) {
	v := newInventory(newClock().Now)
	c := dial(t, start(t, v.config(t, lab())))
	first := c.bind(1)
	release, err := dhcpv4.New(dhcpv4.WithHwAddr(hw(1)), dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease),
		dhcpv4.WithClientIP(net.ParseIP(first)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(127, 0, 0, 1))))
	require.NoError(t, err)
	c.silent(release)
	assert.NotEqual(t, first, c.bind(2), "a never used address goes first")
	assert.Equal(t, first, c.bind(1))
}

func TestReservedAddressGoesToNobodyElse(t *testing.T) {
	v := newInventory(newClock().Now, machine(1, "10.77.0.7"), machine(2, "10.77.0.100"))
	c := dial(t, start(t, v.config(t, lab())))
	hint := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 100)))
	assert.Equal(t, "10.77.0.101", c.ask(discover(9, hint)).YourIPAddr.String())
	assert.Equal(t, "10.77.0.101", c.bind(9))
	assert.Equal(t, "10.77.0.7", c.bind(1), "outside the range")
	assert.Equal(t, "10.77.0.100", c.bind(2))
	offer := c.ask(discover(8))
	steal := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 7)))
	assert.Equal(t, dhcpv4.MessageTypeNak, c.ask(request(offer, steal)).MessageType())
}

// The copy of the reservations is two seconds old at most, and an address is
// looked up once more before it is given.
func TestReservationHoldsAtOnce(t *testing.T) {
	v := newInventory(newClock().Now)
	c := dial(t, start(t, v.config(t, lab())))
	assert.Equal(t, "10.77.0.100", c.bind(9))
	v.mu.Lock()
	v.machines = append(v.machines, store.Machine{ID: 5, Name: "m5", MACs: []store.MAC{mac(5)}, Address: ip("10.77.0.101")})
	v.mu.Unlock()
	assert.Equal(t, "10.77.0.102", c.bind(8))
	assert.Equal(t, "10.77.0.101", c.bind(5))
}

// A machine that runs from its volume may never renew: iPXE got the address.
func TestAddressOfAnOpenVolumeIsNotGivenAway(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	n := lab()
	n.Range, n.LeaseTime = mustRange("10.77.0.100-10.77.0.100"), time.Minute
	cfg := v.config(t, n)
	s := start(t, cfg)
	c := dial(t, s)
	address := c.bind(1)
	v.mu.Lock()
	v.inUse[ip(address)] = true
	v.mu.Unlock()
	require.NoError(t, s.prolong(t.Context()))
	assert.Equal(t, clock.Now().Add(90*time.Minute), v.lease(address).Expires, "on disk, so that a restart changes nothing")
	puts := v.writes()
	require.NoError(t, s.prolong(t.Context()))
	assert.Equal(t, puts, v.writes(), "once is enough for an hour")

	clock.pass(24 * time.Hour) // however late the lease is prolonged
	v.await(t, 4)
	v.kinds()
	c.silent(discover(2))
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPNoAddress}, v.kinds())
	assert.Equal(t, address, c.bind(1))

	v.mu.Lock()
	v.inUse[ip(address)] = false
	v.mu.Unlock()
	clock.pass(2 * time.Hour)
	assert.Equal(t, address, c.bind(2))
}

func TestUnknownMachineIsWrittenDownOncePerBurst(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	s := start(t, v.config(t, lab()))
	c := dial(t, s)
	pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000"))
	arch := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
	c.bind(1, pxe, arch)
	c.bind(2)
	v.seen(t, 1, 1)
	u := v.unknownMachine(1)
	assert.Equal(t, "UEFI", u.Firmware)
	assert.Equal(t, "x86-64", u.Arch)
	assert.Equal(t, ip("10.77.0.100"), u.Address)
	assert.Zero(t, v.unknownMachine(2), "who does not ask to boot is nobody's business")
	clock.pass(6 * time.Second)
	c.bind(1, pxe, arch)
	v.seen(t, 1, 2)

	assert.True(t, s.SpokePXE(mac(1)))
	assert.False(t, s.SpokePXE(mac(2)))
	clock.pass(61 * time.Second)
	assert.False(t, s.SpokePXE(mac(1)))
}

func TestEventsTellTheBootInOrder(t *testing.T) {
	v := newInventory(newClock().Now, machine(1, ""))
	c := dial(t, start(t, v.config(t, lab())))
	c.bind(1, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")))
	v.await(t, 4)
	v.mu.Lock()
	events := v.events
	v.mu.Unlock()
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPOffer, store.EventDHCPRequest, store.EventDHCPAck}, v.kinds())
	ack := events[3]
	assert.Equal(t, mac(1), ack.MAC)
	assert.Equal(t, store.MachineID(1), ack.Machine)
	assert.Equal(t, ip("10.77.0.100"), ack.Addr)
	assert.Equal(t, "undionly.kpxe", ack.Detail.Loader)
	assert.Equal(t, "127.0.0.1", events[2].Detail.Server)
}

func TestIPXEWithoutISCSIComesBackToTheScript(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	c := dial(t, start(t, v.config(t, lab())))
	poor := dhcpv4.WithOption(dhcpv4.OptGeneric(message.OptionIPXE, []byte{0x13, 1, 1}))
	offer := c.ask(discover(1, poor))
	ack := c.ask(request(offer, poor))
	again := c.ask(request(offer, poor)) // the ACK was lost
	for _, p := range []*dhcpv4.DHCPv4{offer, ack, again} {
		assert.Equal(t, "525400000001/undionly.kpxe", p.BootFileName)
	}
	clock.pass(8 * time.Second)
	assert.Equal(t, "http://127.0.0.1/boot.ipxe", c.ask(discover(1, poor)).BootFileName)
	clock.pass(3 * time.Minute)
	assert.Equal(t, "525400000001/undionly.kpxe", c.ask(discover(1, poor)).BootFileName, "another attempt")
}

// Whoever was told nothing was sent nowhere: his next try is his first.
func TestAnIPXEWhoseLeaseWasNotWrittenIsStillSentToOurLoader(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	cfg := v.config(t, lab())
	cfg.Log = slog.New(slog.DiscardHandler)
	c := dial(t, start(t, cfg))
	poor := dhcpv4.WithOption(dhcpv4.OptGeneric(message.OptionIPXE, []byte{0x13, 1, 1}))
	offer := c.ask(discover(1, poor))
	fails := func(err error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.putFails = err
	}
	fails(errors.New("no space left on device"))
	c.silent(request(offer, poor))
	fails(nil)
	clock.pass(8 * time.Second)
	offer = c.ask(discover(1, poor))
	assert.Equal(t, "525400000001/undionly.kpxe", offer.BootFileName)
	assert.Equal(t, "525400000001/undionly.kpxe", c.ask(request(offer, poor)).BootFileName)
	clock.pass(8 * time.Second)
	assert.Equal(t, "http://127.0.0.1/boot.ipxe", c.ask(discover(1, poor)).BootFileName)
}

// A disk that hangs with one machine's lease keeps no other machine waiting, and the
// machine's own repeats are bounded.
func TestALeaseThatHangsHoldsUpItsMachineAlone(t *testing.T) {
	v := newInventory(newClock().Now)
	v.hangs = make(chan struct{})
	n := lab()
	n.Range = mustRange("10.77.0.50-10.77.0.249")
	s := start(t, v.config(t, n))
	c, others := dial(t, s), dial(t, s)
	offer := c.ask(discover(1))
	v.slowMAC.Store(1)
	take := request(offer)
	for range queue + 3 {
		c.send(take)
	}
	for i := 2; i < 20; i++ {
		others.bind(i)
	}
	require.Eventually(t, func() bool { return s.Dropped().Crowded+s.Dropped().Limited > 0 }, 5*time.Second, time.Millisecond)
	close(v.hangs)
	assert.Equal(t, dhcpv4.MessageTypeAck, c.ask(take).MessageType())
	assert.Equal(t, mac(1), v.lease(offer.YourIPAddr.String()).MAC)
}

func TestRubbishIsCountedAndDropped(t *testing.T) {
	v := newInventory(newClock().Now)
	s := start(t, v.config(t, lab()))
	c := dial(t, s)
	for _, b := range []string{"", "x", strings.Repeat("x", 300), strings.Repeat("\x00", 1500)} {
		_, err := c.conn.Write([]byte(b))
		require.NoError(t, err)
	}
	noEnd := discover(1).ToBytes()
	_, err := c.conn.Write(noEnd[:241])
	require.NoError(t, err)
	c.bind(1)
	assert.Eventually(t, func() bool { return s.Dropped().Malformed == 5 }, time.Second, 5*time.Millisecond)
}

func TestOneMACCannotFlood(t *testing.T) {
	v := newInventory(newClock().Now) // time stands still
	s := start(t, v.config(t, lab()))
	c := dial(t, s)
	for range 3 * macBurst {
		c.send(discover(1))
		time.Sleep(time.Millisecond)
	}
	assert.Eventually(t, func() bool { return s.Dropped().Limited >= 2*macBurst }, 2*time.Second, 5*time.Millisecond)
	other := dial(t, s)
	assert.Equal(t, dhcpv4.MessageTypeOffer, other.ask(discover(2)).MessageType())
}

// A plugin of coredhcp's chain may add an option, and a panic in one costs one
// packet.
func TestPluginsRunAfterOurs(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Plugins = append(cfg.Plugins, func(req, resp *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, bool) {
		if req.HostName() == "panic" {
			panic("a fault in a plugin")
		}
		resp.UpdateOption(dhcpv4.OptNTPServers(net.IPv4(10, 77, 0, 9)))
		return resp, false
	})
	c := dial(t, start(t, cfg))
	c.silent(discover(1, dhcpv4.WithOption(dhcpv4.OptHostName("panic"))))
	assert.Equal(t, "10.77.0.9", c.ask(discover(1)).NTPServers()[0].String())
}

func TestListenSaysWhatIsInTheWay(t *testing.T) {
	v := newInventory(newClock().Now)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"an interface that is not there": {func(c *Config) { c.Interface, c.ListenAddr = "nope0", "" }, `there is no interface "nope0"; the interfaces are `},
		"no interface":                   {func(c *Config) { c.ListenAddr = "" }, "DHCP needs an interface"},
		"an interface without address":   {func(c *Config) { c.Interface, c.ListenAddr = "lo", "" }, "interface lo has no address in 10.77.0.0/24; give it one with: ip addr add"},
		"a range of another network":     {func(c *Config) { c.Subnet.Range = mustRange("10.78.0.1-10.78.0.9") }, "does not lie in the network 10.77.0.0/24"},
		"a range of millions": {func(c *Config) {
			c.Subnet.Prefix, c.Subnet.Range = netip.MustParsePrefix("10.0.0.0/8"), mustRange("10.0.0.1-10.9.0.1")
		}, "65536 are the most"},
		"a lease of a second":     {func(c *Config) { c.Subnet.LeaseTime = time.Second }, "too short"},
		"no network":              {func(c *Config) { c.Subnet = store.Subnet{} }, "not a way to take part in DHCP"},
		"an address that is none": {func(c *Config) { c.ListenAddr = "67" }, "is not an IPv4 address and port"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := v.config(t, lab())
			c.change(&cfg)
			assert.ErrorContains(t, New(cfg).Listen(), c.want)
		})
	}
	t.Run("a second instance", func(t *testing.T) {
		s := start(t, v.config(t, lab()))
		cfg := v.config(t, lab())
		cfg.ListenAddr = s.Addr().String()
		err := New(cfg).Listen()
		assert.ErrorContains(t, err, "is held by this appliance itself")
		assert.Equal(t, store.KindInUse, store.KindOf(err))
	})
}

func TestServeCanBeStartedAgain(t *testing.T) {
	v := newInventory(newClock().Now)
	s := New(v.config(t, lab()))
	assert.Error(t, s.Serve(t.Context()), "not listening")
	for range 3 {
		require.NoError(t, s.Listen())
		assert.Error(t, s.Listen())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Serve(ctx) }()
		dial(t, s).bind(1)
		cancel()
		assert.NoError(t, <-done)
		assert.False(t, s.Addr().IsValid())
	}
}

// Whatever clients send in whatever order, no address is bound to two of them
// at a time, none that is in use or reserved goes to another, and an ACK is
// always on disk.
func TestNoTwoMachinesShareAnAddress(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		clock := newClock()
		v := newInventory(clock.Now, machine(1, "10.77.0.101"), machine(2, "10.77.0.50"), machine(3, ""))
		cfg := v.config(outer, lab())
		cfg.Log = slog.New(slog.DiscardHandler)
		s := New(cfg)
		s.link.Store(&Interface{Name: "lab0", Address: ip("10.77.0.1"), MTU: 1500})
		held := map[netip.Addr]store.Lease{} // what clients were told
		anyAddr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return ip(rapid.SampledFrom([]string{"10.77.0.50", "10.77.0.100", "10.77.0.101", "10.77.0.102", "10.77.0.103", "10.77.0.1", "10.99.0.1"}).Draw(t, "address"))
		})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			clock.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 30, 61, 1801, 3601}).Draw(t, "seconds")) * time.Second)
			if a := anyAddr.Draw(t, "used"); rapid.Bool().Draw(t, "toggle") {
				_, leased := v.leases[a]
				v.inUse[a] = leased && !v.inUse[a]
			}
			r := message.Request{MAC: mac(rapid.IntRange(1, 7).Draw(t, "mac")), XID: 1}
			r.Type = rapid.SampledFrom([]dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline}).Draw(t, "type")
			turn, err := s.ledger.Begin(context.Background(), clock.Now())
			if err != nil {
				t.Fatal(err)
			}
			offered := turn.Offered(r.MAC, s.networks.own.Prefix)
			turn.End()
			if rapid.Bool().Draw(t, "honest") && offered.IsValid() {
				r.Requested, r.ServerID = offered, ip("10.77.0.1")
			} else {
				if rapid.Bool().Draw(t, "asks") {
					r.Requested = anyAddr.Draw(t, "requested")
				}
				if rapid.Bool().Draw(t, "runs") {
					r.CIAddr = anyAddr.Draw(t, "ciaddr")
				}
				if rapid.Bool().Draw(t, "picks") {
					r.ServerID = ip(rapid.SampledFrom([]string{"10.77.0.1", "10.77.0.2"}).Draw(t, "server"))
				}
			}
			at, _ := s.place(r, netip.Addr{})
			ans, err := s.answer(context.Background(), r, at, clock.Now())
			if err != nil {
				t.Fatalf("%s: %v", r.Type, err)
			}
			a := ans.Address
			if ans.Verdict == Offer || ans.Verdict == Ack {
				if h, ok := held[a]; ok && h.MAC != r.MAC && (h.Expires.After(clock.Now()) || v.inUse[a]) {
					t.Fatalf("%s of %s to %s, which %s holds until %s", ans.Verdict, a, r.MAC, h.MAC, h.Expires)
				}
				if a == ip("10.77.0.101") && r.MAC != mac(1) || a == ip("10.77.0.50") && r.MAC != mac(2) {
					t.Fatalf("%s of the reserved address %s to %s", ans.Verdict, a, r.MAC)
				}
			}
			switch {
			case ans.Verdict == Ack:
				if v.leases[a] != ans.Lease {
					t.Fatalf("the lease of %s is not on disk", a)
				}
				// It has moved: one MAC, one address.
				maps.DeleteFunc(held, func(_ netip.Addr, h store.Lease) bool { return h.MAC == r.MAC })
				held[a] = ans.Lease
			case r.Type == dhcpv4.MessageTypeRelease || r.Type == dhcpv4.MessageTypeDecline:
				if l := ans.Lease; l.Address.IsValid() {
					delete(held, l.Address) // its client gave it up
				}
			}
		}
	})
}

func TestProlongingALeaseTakesNoNewerOneAwayAndHoldsNobodyUp(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	n := lab()
	n.LeaseTime = time.Minute
	s := start(t, v.config(t, n))
	c := dial(t, s)
	old := c.bind(1)
	v.mu.Lock()
	v.inUse[ip(old)] = true
	v.machines[0].Address = ip("10.77.0.50")
	v.mu.Unlock()
	// The machine boots again and is given its reserved address while the lease is
	// on its way to a slow disk.
	v.slow = func(store.Lease) {
		assert.Equal(t, "10.77.0.50", c.bind(1))
		assert.NotEqual(t, old, c.bind(2))
	}
	require.NoError(t, s.prolong(t.Context()))
	assert.Equal(t, store.LeaseBound, v.lease("10.77.0.50").State, "the machine runs on an address without a lease")
	assert.False(t, v.lease(old).Address.IsValid())
}

// What is written down of unknown machines is for people. A disk that is busy
// with it keeps no machine from its answer, and what did not fit is told when its
// machine asks again.
func TestUnknownMachinesAreAnsweredWhileTheDiskIsBusy(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	v.stuck = make(chan struct{})
	n := lab()
	n.Range = mustRange("10.77.0.50-10.77.0.249")
	cfg := v.config(t, n)
	cfg.Log = slog.New(slog.DiscardHandler)
	s := start(t, cfg)
	c := dial(t, s)
	pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	comes := func(n int) {
		clock.pass(time.Second) // strangers are let in one by one
		require.Equal(t, dhcpv4.MessageTypeOffer, c.ask(discover(n, pxe)).MessageType())
	}
	comes(1)
	require.Eventually(t, func() bool { return v.seeing.Load() == 1 }, 5*time.Second, time.Millisecond)
	const many = 1 + reports + 2
	for n := 2; n <= many; n++ {
		comes(n)
	}
	require.Eventually(t, func() bool { return s.Dropped().Untold == 2 }, 5*time.Second, time.Millisecond)
	close(v.stuck)
	v.seen(t, 1, 1)
	v.seen(t, many-2, 1)
	assert.EqualValues(t, 1+reports/reportsTogether, v.seeing.Load(), "those that waited share commits")
	assert.Zero(t, v.unknownMachine(many).Count)
	c.ask(discover(many, pxe))
	v.seen(t, many, 1)
}
