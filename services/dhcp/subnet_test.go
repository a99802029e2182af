package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// behind is a subnet behind a relay.
func behind() store.Subnet {
	return store.Subnet{
		Prefix: netip.MustParsePrefix("10.88.0.0/24"), Mode: store.DHCPFull, Router: ip("10.88.0.1"),
		Range: mustRange("10.88.0.100-10.88.0.103"), LeaseTime: time.Hour,
	}
}

func TestSubnetIsChosenByWhereTheRequestComesFrom(t *testing.T) {
	off := behind()
	off.Prefix, off.Mode = netip.MustParsePrefix("10.99.0.0/24"), store.DHCPOff
	both := networks{own: lab(), relayed: []store.Subnet{behind(), off}}
	listens := networks{own: store.Subnet{Interface: "lab0", Mode: store.DHCPOff}, relayed: []store.Subnet{behind()}}
	const none = ""
	for name, c := range map[string]struct {
		of      networks
		r       message.Request
		unicast bool
		want    string
	}{
		"asked directly": {both, message.Request{}, false, "10.77.0.0/24"},
		"asked directly where only relays are listened to": {listens, message.Request{}, false, none},
		"through a relay":                               {both, message.Request{GIAddr: ip("10.88.0.1")}, true, "10.88.0.0/24"},
		"through a relay on our own wire":               {both, message.Request{GIAddr: ip("10.77.0.9")}, true, "10.77.0.0/24"},
		"through a relay of a subnet that nobody knows": {both, message.Request{GIAddr: ip("10.66.0.1")}, true, none},
		"through a relay of a subnet that is off":       {both, message.Request{GIAddr: ip("10.99.0.1")}, true, none},
		"link selection beats giaddr":                   {both, message.Request{GIAddr: ip("10.66.0.1"), Agent: message.Agent{Link: ip("10.88.0.0")}}, true, "10.88.0.0/24"},
		"link selection of a subnet that nobody knows":  {both, message.Request{GIAddr: ip("10.88.0.1"), Agent: message.Agent{Link: ip("10.66.0.0")}}, true, none},
		"link selection of a client":                    {both, message.Request{Agent: message.Agent{Link: ip("10.88.0.0")}}, false, "10.77.0.0/24"},
		"a renewal past the relay":                      {both, message.Request{CIAddr: ip("10.88.0.100")}, true, "10.88.0.0/24"},
		"a renewal past the relay, other interface":     {listens, message.Request{CIAddr: ip("10.88.0.100")}, true, "10.88.0.0/24"},
		"a rebinding on our own wire":                   {both, message.Request{CIAddr: ip("10.88.0.100")}, false, "10.77.0.0/24"},
		"a renewal of nowhere":                          {both, message.Request{CIAddr: ip("10.66.0.100")}, true, "10.77.0.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := c.of.of(c.r, c.unicast)
			assert.Equal(t, c.want != none, ok)
			if ok {
				assert.Equal(t, c.want, got.Prefix.String())
			}
		})
	}
}

func through(relay string, sub ...byte) dhcpv4.Modifier {
	return func(p *dhcpv4.DHCPv4) {
		p.GatewayIPAddr = net.ParseIP(relay).To4()
		if len(sub) > 0 {
			p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, sub))
		}
	}
}

func TestRelayedClientIsGivenAnAddressOfItsOwnSubnet(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	s := start(t, cfg)
	c := dial(t, s)
	relay := through("10.88.0.1")
	offer := c.ask(discover(1, relay))
	assert.Equal(t, "10.88.0.100", offer.YourIPAddr.String())
	assert.Equal(t, "10.88.0.1", offer.Router()[0].String())
	ack := c.ask(request(offer, relay))
	assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	assert.Equal(t, store.LeaseBound, v.lease("10.88.0.100").State)
	assert.Equal(t, "10.77.0.100", c.bind(2), "who asks directly is on our own wire")
	assert.Equal(t, "10.88.0.101", c.bind(3, through("10.1.1.1", 5, 4, 10, 88, 0, 0)))

	t.Run("and renews past the relay", func(t *testing.T) {
		renew, err := dhcpv4.NewRenewFromAck(ack)
		require.NoError(t, err)
		renewed := c.ask(renew)
		assert.Equal(t, dhcpv4.MessageTypeAck, renewed.MessageType())
		assert.Equal(t, "10.88.0.100", renewed.YourIPAddr.String())
		assert.Equal(t, "10.88.0.1", renewed.Router()[0].String())
	})
	t.Run("and one of a subnet that nobody knows is not", func(t *testing.T) {
		v.await(t, 14) // of three leases and a renewal
		v.kinds()
		c.silent(discover(4, through("10.66.0.1")))
		assert.Equal(t, int64(1), s.Dropped().Unserved)
		assert.Empty(t, v.kinds(), "who does not ask to boot is nobody's business")

		pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
		for range 3 {
			c.silent(discover(5, pxe, through("10.1.1.1", 5, 4, 10, 66, 0, 0)))
		}
		v.mu.Lock()
		events := v.events
		v.mu.Unlock()
		require.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPNoSubnet}, v.kinds(), "once")
		assert.Equal(t, "10.1.1.1", events[1].Detail.Relay)
		assert.Equal(t, "no subnet that is served here holds 10.66.0.0", events[1].Detail.Reason)
		v.seen(t, 5, 1)
	})
}

// A machine that was carried from one rack to another remembers where it was, or
// rebinds through the new rack's relay.
func TestAMachineThatWasCarriedToAnotherOfOurNetworksAsksAnew(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	relay := through("10.88.0.1")
	was := c.bind(1)
	require.Equal(t, "10.77.0.100", was)
	for name, remember := range map[string]dhcpv4.Modifier{
		"INIT-REBOOT": dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(was))),
		"REBINDING":   dhcpv4.WithClientIP(net.ParseIP(was)),
	} {
		nak := c.ask(discover(1, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), remember, relay))
		assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType(), name)
		assert.True(t, nak.IsBroadcast(), "so that the relay broadcasts it (RFC 2131 §4.3.2)")
	}
	assert.Equal(t, mac(1), v.lease(was).MAC, "it may go back")
	c.silent(discover(1, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(192, 168, 1, 7))), relay))
	v.mu.Lock()
	v.inUse[ip(was)] = true
	v.mu.Unlock()
	c.silent(discover(1, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(net.ParseIP(was)), relay))
	assert.Equal(t, "10.88.0.100", c.bind(1, relay))
}

// A card with VLAN interfaces asks in several networks by one MAC. What it takes
// in one leaves its address in the other alone.
func TestOneMACHasAnAddressInEachOfTwoNetworks(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	vlan := through("10.88.0.1")
	here, there := c.ask(discover(1)), c.ask(discover(1, vlan))
	assert.Equal(t, dhcpv4.MessageTypeAck, c.ask(request(here)).MessageType(), "it asks in both at a time")
	assert.Equal(t, dhcpv4.MessageTypeAck, c.ask(request(there, vlan)).MessageType())
	assert.Equal(t, mac(1), v.lease("10.77.0.100").MAC)
	assert.Equal(t, mac(1), v.lease("10.88.0.100").MAC)
	assert.Equal(t, "10.77.0.101", c.bind(2), "the first address is in use")
	assert.Equal(t, "10.77.0.100", c.bind(1))
	assert.Equal(t, "10.88.0.100", c.bind(1, vlan))
}

// A relay that names the subnet by an address of its own there must keep it.
func TestTheRelaysOwnAddressOnTheClientsSideIsGivenToNobody(t *testing.T) {
	v := newInventory(newClock().Now, machine(1, ""), machine(2, ""), machine(3, ""), machine(4, ""))
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	link := through("10.1.1.1", 5, 4, 10, 88, 0, 100)
	assert.Equal(t, "10.88.0.101", c.ask(discover(1, link)).YourIPAddr.String())
	asked := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 88, 0, 100)))
	assert.Equal(t, "10.88.0.102", c.ask(discover(2, link, asked)).YourIPAddr.String())
	server := through("10.1.1.1", 5, 4, 10, 88, 0, 0, 11, 4, 10, 88, 0, 103)
	assert.Equal(t, "10.88.0.100", c.ask(discover(3, server)).YourIPAddr.String())
	c.silent(discover(4, server))
}

// Two relays of one wire, each of which would be named as the server (RFC 5107),
// both bring the REQUEST, which names one of them.
func TestARequestThatNamesAnotherRelayOfOursIsNoOtherServersPick(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	one := through("10.88.0.1", 11, 4, 10, 88, 0, 1)
	two := through("10.88.0.2", 11, 4, 10, 88, 0, 2)
	offer := c.ask(discover(1, one))
	c.ask(discover(1, two))
	v.await(t, 4)
	v.kinds()
	c.silent(request(offer, two))
	assert.Empty(t, v.kinds())
	assert.Equal(t, dhcpv4.MessageTypeAck, c.ask(request(offer, one)).MessageType())
	v.await(t, 2)
	c.silent(request(offer, two))
	assert.Equal(t, []store.EventKind{store.EventDHCPRequest, store.EventDHCPAck}, v.kinds())
	assert.Equal(t, mac(1), v.lease("10.88.0.100").MAC)

	other := request(offer, two, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 88, 0, 9))))
	c.silent(other)
	assert.Equal(t, []store.EventKind{store.EventDHCPOtherPick}, v.kinds())
}

// A relay sends one request to two addresses of ours, on two interfaces.
func TestServersOfOneApplianceGiveNoAddressTwice(t *testing.T) {
	v := newInventory(newClock().Now)
	shared := ledger.New(v, v, v)
	var clients []*client
	for range 2 {
		cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
		cfg.Relayed, cfg.Ledger = []store.Subnet{behind()}, shared
		clients = append(clients, dial(t, start(t, cfg)))
	}
	relay := through("10.88.0.1")
	one := clients[0].ask(discover(1, relay))
	two := clients[1].ask(discover(2, relay))
	assert.NotEqual(t, one.YourIPAddr.String(), two.YourIPAddr.String())
	assert.Equal(t, one.YourIPAddr.String(), clients[1].ask(discover(1, relay)).YourIPAddr.String())
	clients[0].silent(discover(3))
}

func TestLeaseOfARelayedSubnetIsProlongedWhileItsVolumeIsOpen(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
	n := behind()
	n.LeaseTime = time.Minute
	cfg.Relayed = []store.Subnet{n}
	s := start(t, cfg)
	address := dial(t, s).bind(1, through("10.88.0.1"))
	v.mu.Lock()
	v.inUse[ip(address)] = true
	v.mu.Unlock()
	require.NoError(t, s.prolong(t.Context()))
	assert.Equal(t, clock.Now().Add(90*time.Minute), v.lease(address).Expires)
}

func TestRepliesSayWhatTheRelaySaid(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	said := []byte("\x01\x06\x00\x04\x00\x0c\x00\x03\x13\x00\xfa\x02\xff\xff\x02\x03tor")
	relay := through("10.88.0.1", said...)
	offer := c.ask(discover(1, relay))
	ack := c.ask(request(offer, relay))
	nak := c.ask(request(offer, relay, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 2, 3)))))
	assert.Equal(t, dhcpv4.MessageTypeNak, nak.MessageType())
	assert.True(t, nak.IsBroadcast(), "so that the relay broadcasts it (RFC 2131 §4.3.2)")
	for _, p := range []*dhcpv4.DHCPv4{offer, ack, nak} {
		assert.Equal(t, said, p.Options.Get(dhcpv4.OptionRelayAgentInformation), p.MessageType())
		assert.Equal(t, "10.88.0.1", p.GatewayIPAddr.String())
		b := p.ToBytes()
		end := len(b)
		for b[end-1] == 0 { // padding
			end--
		}
		assert.Equal(t, append(said, 255), b[end-len(said)-1:end], "the last option (RFC 3046 §2.1)")
	}
	v.await(t, 6)
	v.mu.Lock()
	defer v.mu.Unlock()
	assert.Equal(t, "switch tor, port 0/3 (VLAN 12)", v.events[0].Detail.Port)
	assert.Equal(t, "10.88.0.1", v.events[0].Detail.Relay)
}

func TestSwitchPortOutlivesARenewalPastTheRelay(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now)
	cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	relay := through("10.88.0.1", []byte("\x01\x04eth7\x02\x03tor")...)
	pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	ack := c.ask(request(c.ask(discover(1, relay, pxe)), relay, pxe))
	first := v.lease("10.88.0.100")
	assert.Equal(t, "switch tor, port eth7", first.Port)
	assert.Equal(t, clock.Now(), first.PortSeen)
	assert.Equal(t, ip("10.88.0.1"), first.Relay)
	v.seen(t, 1, 1)
	assert.Equal(t, "switch tor, port eth7", v.unknownMachine(1).Port)
	clock.pass(time.Minute)
	renew, err := dhcpv4.NewRenewFromAck(ack)
	require.NoError(t, err)
	c.ask(renew)
	again := v.lease("10.88.0.100")
	assert.Equal(t, clock.Now(), again.Updated)
	assert.Equal(t, first.Port, again.Port)
	assert.Equal(t, first.PortSeen, again.PortSeen, "nobody said it again")
	assert.Equal(t, first.Relay, again.Relay)
}

func TestNextServerIsToldInsteadOfOurAddress(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	n := behind()
	n.NextServer = ip("10.99.0.9")
	cfg.Relayed = []store.Subnet{n}
	pxe := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001"))
	c := dial(t, start(t, cfg))
	assert.Equal(t, "10.99.0.9", c.ask(discover(1, pxe, through("10.88.0.1"))).ServerIPAddr.String())
	assert.Equal(t, "127.0.0.1", c.ask(discover(2, pxe)).ServerIPAddr.String())
	cfg.Advertise = ip("10.99.0.1") // a flag
	c = dial(t, start(t, cfg))
	assert.Equal(t, "10.99.0.1", c.ask(discover(3, pxe, through("10.88.0.1"))).ServerIPAddr.String())
}

// A relay may name any address as its own: the pool of another one's clients is
// not its to use up, and neither is their place in the queue.
func TestOneRelayCannotUseUpEverything(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, lab())
	other := behind()
	other.Prefix, other.Router, other.Range = netip.MustParsePrefix("10.89.0.0/24"), ip("10.89.0.1"), mustRange("10.89.0.100-10.89.0.103")
	cfg.Relayed = []store.Subnet{behind(), other}
	q := newQueues()
	flood := map[chan *datagram]bool{}
	for n := range 1000 {
		flood[q.of(discover(n, through("10.88.0.1")).ToBytes(), false)] = true
	}
	assert.Len(t, flood, 1)
	assert.False(t, flood[q.of(discover(1, through("10.89.0.2")).ToBytes(), false)])
	assert.False(t, flood[q.of(discover(1, through("10.88.0.1")).ToBytes(), true)], "who is known waits elsewhere")

	c := dial(t, start(t, cfg))
	offers := 0
	for n := range 8 {
		c.send(discover(n+1, through("10.88.0.1")))
	}
	known := discover(99, through("10.89.0.1"))
	assert.Equal(t, "10.89.0.100", c.until(known).YourIPAddr.String())
	for _, e := range v.kinds() {
		if e == store.EventDHCPOffer {
			offers++
		}
	}
	assert.LessOrEqual(t, offers, 3, "half of one pool, and one of the other")
}

// until sends a message and returns its answer, whatever comes before.
func (c *client) until(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	c.t.Helper()
	c.send(p)
	buf := make([]byte, 1500)
	for {
		require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		n, err := c.conn.Read(buf)
		require.NoError(c.t, err)
		back, err := dhcpv4.FromBytes(buf[:n])
		require.NoError(c.t, err)
		if back.TransactionID == p.TransactionID {
			return back
		}
	}
}

// The relay's own address and all of ours are nobody's, also inside the range.
func TestAddressOfTheRelayIsNotGiven(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
	cfg.Relayed = []store.Subnet{behind()}
	c := dial(t, start(t, cfg))
	hint := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 88, 0, 100)))
	assert.Equal(t, "10.88.0.101", c.ask(discover(1, hint, through("10.88.0.100"))).YourIPAddr.String())
}

// It answers a relay at one address of ours, and the relay's machine may come
// back through another.
func TestServerIsKnownByEachOfItsAddresses(t *testing.T) {
	v := newInventory(newClock().Now)
	cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
	cfg.Relayed = []store.Subnet{behind()}
	s := New(cfg)
	s.bound = true
	s.link.Store(&Interface{Name: "lab0", Address: ip("10.77.0.1"), MTU: 1500})
	s.local.Store(&map[netip.Addr]bool{ip("10.77.0.1"): true, ip("10.99.0.1"): true})
	r := message.Request{Type: dhcpv4.MessageTypeDiscover, MAC: mac(1), GIAddr: ip("10.88.0.1")}
	at, ok := s.place(r, ip("10.99.0.1"))
	require.True(t, ok)
	assert.Equal(t, ip("10.99.0.1"), at.link.Address, "the one that the relay reached")
	assert.Zero(t, at.link.MTU, "the MTU of our wire is not theirs")
	r.ServerID = ip("10.99.0.1")
	at, _ = s.place(r, ip("10.77.0.1"))
	assert.Equal(t, ip("10.99.0.1"), at.link.Address, "the one that the machine chose")
	r.ServerID = ip("10.55.0.1")
	at, _ = s.place(r, ip("10.99.0.1"))
	assert.Equal(t, ip("10.99.0.1"), at.link.Address, "another server's, or the relay's own (RFC 5107), is none of ours")
}
