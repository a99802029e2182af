package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
		c.silent(discover(4, through("10.66.0.1")))
		assert.Equal(t, int64(1), s.Dropped().Unserved)
	})
}

// A relay sends one request to two addresses of ours, on two interfaces.
func TestServersOfOneApplianceGiveNoAddressTwice(t *testing.T) {
	v := newInventory(newClock().Now)
	ledger := NewLedger()
	var clients []*client
	for range 2 {
		cfg := v.config(t, store.Subnet{Mode: store.DHCPOff})
		cfg.Relayed, cfg.Ledger = []store.Subnet{behind()}, ledger
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
