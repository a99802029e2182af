package dhcp

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// beside makes an input one of a network where another server gives addresses.
func beside(in *Input) { in.Subnet.Mode, in.Subnet.Range = store.DHCPProxy, store.Range{} }

// atBootServer turns a request into a question to the boot server of a client
// that has an address already, as EDK2 asks it: without a server identifier.
func atBootServer(in *Input) {
	beside(in)
	in.BootServer = true
	in.Request.Type, in.Request.Broadcast = dhcpv4.MessageTypeRequest, false
	in.Request.CIAddr, in.Request.Requested, in.Request.ServerID = ip("10.77.0.57"), netip.Addr{}, netip.Addr{}
}

func oldROM(in *Input) {
	in.Request.IPXE, in.Request.Features, in.Request.UserClass = false, false, ""
}

func quirk(all ...store.Quirk) func(*Input) {
	return func(in *Input) { in.Client.Machine.Quirks = all }
}

func TestProxyOfferNamesWhatToBootAndNoAddress(t *testing.T) {
	const script = "http://10.77.0.1/boot.ipxe"
	bootAtOnce := []byte{6, 1, 8, 255}
	for name, c := range map[string]struct {
		captured, file, class string
		option43, ipxe        []byte
		change                func(*Input)
	}{
		"an old ROM":           {"bios-rom-discover", "525400000001/undionly.kpxe", "PXEClient", bootAtOnce, nil, oldROM},
		"iPXE in a ROM":        {"bios-rom-discover", script, "PXEClient", nil, []byte{1, 1, 1}, nil},
		"undionly":             {"undionly-discover", script, "PXEClient", nil, []byte{1, 1, 1}, nil},
		"iPXE for UEFI":        {"snponly-discover", script, "PXEClient", nil, []byte{1, 1, 1}, nil},
		"UEFI's own PXE":       {"ovmf-pxe-discover", "525400000001/snponly.efi", "PXEClient", nil, nil, nil},
		"UEFI's own HTTP boot": {"ovmf-http-discover", "http://10.77.0.1/loaders/snponly.efi", "HTTPClient", nil, nil, nil},
		"an unknown machine":   {"ovmf-pxe-discover", "525400000001/snponly.efi", "PXEClient", nil, nil, func(in *Input) { in.Client = Client{} }},
	} {
		t.Run(name, func(t *testing.T) {
			changes := []func(*Input){beside}
			if c.change != nil {
				changes = append(changes, c.change)
			}
			reply, ans := replyTo(t, c.captured, changes...)
			require.NotNil(t, reply, ans.Reason)
			assert.Equal(t, dhcpv4.MessageTypeOffer, reply.MessageType())
			assert.Equal(t, "0.0.0.0", reply.YourIPAddr.String())
			assert.Equal(t, c.file, reply.BootFileName)
			assert.Equal(t, c.file, reply.BootFileNameOption())
			assert.Equal(t, c.class, reply.ClassIdentifier())
			assert.Equal(t, "10.77.0.1", reply.ServerIPAddr.String(), "siaddr")
			assert.Equal(t, "10.77.0.1", reply.ServerIdentifier().String())
			assert.Len(t, reply.Options.Get(message.OptionUUID), 17, "the client's UUID comes back")
			assert.Equal(t, c.option43, reply.Options.Get(dhcpv4.OptionVendorSpecificInformation))
			assert.Equal(t, c.ipxe, reply.Options.Get(message.OptionIPXE))
			for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer} {
				assert.False(t, reply.Options.Has(code), "option %s is the other server's", code)
			}
			assert.Equal(t, "255.255.255.255:68", route(mustDecode(t, captured(t)[c.captured]), ans.Verdict, ans.Address, wire.ClientPort, false).to.String())
			assert.False(t, ans.Lease.Address.IsValid())
			assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPProxyOffer}, kinds(ans))
			for _, e := range ans.Events {
				assert.True(t, e.Detail.Proxy)
			}
			assert.Equal(t, name == "an unknown machine", ans.Waiting)
		})
	}
}

func TestOnlyWhoAsksToBootIsHeardInProxyMode(t *testing.T) {
	phone := func(in *Input) { beside(in); in.Client = Client{} }
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeInform} {
		ans := Decide(with(base(kind), phone, asks("10.77.0.57"), chooses("10.77.0.254")))
		assert.Equal(t, Drop, ans.Verdict)
		assert.Empty(t, ans.Events)
	}
	t.Run("an operating system of ours", func(t *testing.T) {
		ans := Decide(with(base(dhcpv4.MessageTypeDiscover), beside))
		assert.Equal(t, Drop, ans.Verdict)
		assert.Equal(t, []store.EventKind{store.EventDHCPDiscover}, kinds(ans))
	})
	t.Run("a machine that is ignored", func(t *testing.T) {
		_, ans := replyTo(t, "ovmf-pxe-discover", beside, func(in *Input) { in.Client = Client{Ignored: true} })
		assert.Equal(t, Drop, ans.Verdict)
		assert.Empty(t, ans.Events)
		_, ans = replyTo(t, "ovmf-pxe-request", atBootServer, func(in *Input) { in.Client = Client{Ignored: true} })
		assert.Equal(t, Drop, ans.Verdict)
		assert.Empty(t, ans.Events)
	})
	t.Run("a machine without a loader", func(t *testing.T) {
		_, ans := replyTo(t, "ovmf-pxe-discover", beside, func(in *Input) { in.Request.Arch = 11 })
		assert.Equal(t, Drop, ans.Verdict, "firmware waits for what an empty offer does not say")
		assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPNoLoader}, kinds(ans))
	})
}

func TestAnOverheardRequestTellsWhoGaveWhichAddress(t *testing.T) {
	_, ans := replyTo(t, "ovmf-pxe-request", beside, chooses("10.77.0.254"), asks("10.77.0.57"))
	assert.Equal(t, Drop, ans.Verdict)
	require.Equal(t, []store.EventKind{store.EventDHCPOtherPick}, kinds(ans))
	e := ans.Events[0]
	assert.Equal(t, ip("10.77.0.57"), e.Addr)
	assert.Equal(t, "10.77.0.254", e.Detail.Server)
	assert.True(t, e.Detail.Proxy)

	_, ans = replyTo(t, "ovmf-pxe-request", beside, chooses("10.77.0.1"), asks("10.77.0.57"))
	assert.Equal(t, Drop, ans.Verdict, "we gave it no address: another server on our own host did")
	assert.Equal(t, []store.EventKind{store.EventDHCPOtherPick}, kinds(ans))

	running := Decide(with(base(dhcpv4.MessageTypeRequest), beside, runsOn("10.77.0.57")))
	require.Equal(t, []store.EventKind{store.EventDHCPOtherPick}, kinds(running), "an enrolled machine that renews by broadcast")
	assert.Equal(t, ip("10.77.0.57"), running.Events[0].Addr)
}

func TestBootServerAnswers(t *testing.T) {
	item := func(in *Input) { in.Request.BootItem = "\x80\x01\x00\x00" }
	for name, c := range map[string]struct {
		captured string
		file     string
		option43 []byte
		change   func(*Input)
	}{
		"EDK2":                    {"ovmf-pxe-request", "525400000001/snponly.efi", nil, nil},
		"an old ROM":              {"bios-rom-request", "525400000001/undionly.kpxe", []byte{6, 1, 8, 255}, oldROM},
		"iPXE, which names us":    {"snponly-request", "http://10.77.0.1/boot.ipxe", nil, chooses("10.77.0.1")},
		"HTTP boot":               {"ovmf-http-request", "http://10.77.0.1/loaders/snponly.efi", nil, nil},
		"by INFORM":               {"ovmf-pxe-request", "525400000001/snponly.efi", nil, func(in *Input) { in.Request.Type = dhcpv4.MessageTypeInform }},
		"with a boot item":        {"ovmf-pxe-request", "525400000001/snponly.efi", []byte{71, 4, 0x80, 1, 0, 0, 255}, item},
		"with one, by broadcast":  {"bios-rom-request", "525400000001/undionly.kpxe", []byte{6, 1, 8, 71, 4, 0x80, 1, 0, 0, 255}, func(in *Input) { oldROM(in); item(in); in.BootServer = false }},
		"where we give addresses": {"ovmf-pxe-request", "525400000001/snponly.efi", []byte{6, 1, 8, 255}, func(in *Input) { in.Subnet = lab() }},
	} {
		t.Run(name, func(t *testing.T) {
			changes := []func(*Input){atBootServer}
			if c.change != nil {
				changes = append(changes, c.change)
			}
			reply, ans := replyTo(t, c.captured, changes...)
			require.NotNil(t, reply, ans.Reason)
			assert.Equal(t, dhcpv4.MessageTypeAck, reply.MessageType())
			assert.Equal(t, c.file, reply.BootFileName)
			assert.Equal(t, "10.77.0.57", reply.ClientIPAddr.String())
			assert.Equal(t, "0.0.0.0", reply.YourIPAddr.String())
			assert.Equal(t, "10.77.0.1", reply.ServerIdentifier().String())
			assert.Equal(t, c.option43, reply.Options.Get(dhcpv4.OptionVendorSpecificInformation))
			assert.Len(t, reply.Options.Get(message.OptionUUID), 17)
			assert.False(t, reply.Options.Has(dhcpv4.OptionIPAddressLeaseTime))
			assert.False(t, ans.Lease.Address.IsValid())
			assert.True(t, ans.ToSender)
			require.Equal(t, []store.EventKind{store.EventDHCPBootServer}, kinds(ans))
			assert.Equal(t, ip("10.77.0.57"), ans.Events[0].Addr)
		})
	}
	for name, change := range map[string]func(*Input){
		"a question to another boot server": chooses("10.77.0.254"),
		"a client that boots nothing":       func(in *Input) { in.Request.Class = "udhcp 1.35.0" },
		"a DISCOVER":                        func(in *Input) { in.Request.Type = dhcpv4.MessageTypeDiscover },
		"a RELEASE":                         func(in *Input) { in.Request.Type = dhcpv4.MessageTypeRelease },
	} {
		t.Run(name, func(t *testing.T) {
			_, ans := replyTo(t, "ovmf-pxe-request", atBootServer, change)
			assert.Equal(t, Drop, ans.Verdict)
			assert.Empty(t, ans.Events)
		})
	}
}

func TestQuirks(t *testing.T) {
	bootAtOnce := []byte{6, 1, 8, 255}
	for name, c := range map[string]struct {
		captured string
		quirk    store.Quirk
		want     []byte
		changes  []func(*Input)
	}{
		"UEFI that never asks on 4011":         {"ovmf-pxe-discover", store.QuirkOption43, bootAtOnce, []func(*Input){beside}},
		"a ROM that option 43 confuses":        {"bios-rom-discover", store.QuirkNoOption43, nil, []func(*Input){beside, oldROM}},
		"the same where we give addresses":     {"bios-rom-discover", store.QuirkNoOption43, nil, []func(*Input){oldROM}},
		"a quirk that says what is so anyway":  {"ovmf-pxe-discover", store.QuirkNoOption43, nil, []func(*Input){beside}},
		"a quirk of proxy mode in full mode":   {"ovmf-pxe-discover", store.QuirkNoProxyOffer, bootAtOnce, nil},
		"HTTP boot, which has no such options": {"ovmf-http-discover", store.QuirkOption43, nil, []func(*Input){beside}},
		"iPXE, which needs no such options":    {"snponly-discover", store.QuirkOption43, nil, []func(*Input){beside}},
	} {
		t.Run(name, func(t *testing.T) {
			reply, ans := replyTo(t, c.captured, append(c.changes, quirk(c.quirk))...)
			require.NotNil(t, reply, ans.Reason)
			assert.Equal(t, c.want, reply.Options.Get(dhcpv4.OptionVendorSpecificInformation))
		})
	}
	t.Run("firmware that takes no offer beside another", func(t *testing.T) {
		_, ans := replyTo(t, "ovmf-pxe-discover", beside, quirk(store.QuirkNoProxyOffer))
		assert.Equal(t, Drop, ans.Verdict)
		assert.Equal(t, []store.EventKind{store.EventDHCPDiscover}, kinds(ans))
		reply, ans := replyTo(t, "ovmf-pxe-request", atBootServer, quirk(store.QuirkNoProxyOffer))
		require.NotNil(t, reply, ans.Reason)
		assert.True(t, strings.HasSuffix(reply.BootFileName, "/snponly.efi"))
	})
}

// asPXE makes a client of dial's the firmware of a UEFI machine.
func asPXE(p *dhcpv4.DHCPv4) {
	p.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000"))
	p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
}

func TestProxyServerOnBothItsPorts(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	n := lab()
	n.Mode, n.Range = store.DHCPProxy, store.Range{}
	cfg := v.config(t, n)
	cfg.PXEListen = "127.0.0.1:0"
	s := start(t, cfg)
	c := dial(t, s)
	offer := c.ask(discover(1, asPXE))
	assert.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType())
	assert.Equal(t, "0.0.0.0", offer.YourIPAddr.String())
	assert.True(t, s.SpokePXE(mac(1)))

	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(s.PXEAddr()))
	require.NoError(t, err)
	defer conn.Close()
	boot := &client{t, conn}
	question, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(hw(1)), dhcpv4.WithClientIP(net.IPv4(10, 77, 0, 57)), asPXE)
	require.NoError(t, err)
	ack := boot.ask(question)
	assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType())
	assert.True(t, strings.HasSuffix(ack.BootFileName, "/snponly.efi"))
	boot.silent(discover(1, asPXE))

	c.silent(discover(2)) // somebody's phone
	c.silent(request(offer, asPXE, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 254))), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 57)))))
	unknown := c.ask(discover(3, asPXE))
	assert.NotEmpty(t, unknown.BootFileName, "unknown machines get the waiting script")
	v.seen(t, 3, 1)
	assert.Zero(t, v.writes(), "no lease is ours to write")
	assert.Equal(t, []store.EventKind{
		store.EventDHCPDiscover, store.EventDHCPProxyOffer, store.EventDHCPBootServer, store.EventDHCPOtherPick,
		store.EventDHCPDiscover, store.EventDHCPProxyOffer,
	}, v.kinds())
}

func TestAnIPXEWithoutISCSIIsChainedOnceInProxyMode(t *testing.T) {
	clock := newClock()
	v := newInventory(clock.Now, machine(1, ""))
	n := lab()
	n.Mode, n.Range = store.DHCPProxy, store.Range{}
	c := dial(t, start(t, v.config(t, n)))
	bare := func(p *dhcpv4.DHCPv4) {
		asPXE(p)
		p.UpdateOption(dhcpv4.OptGeneric(message.OptionIPXE, []byte{0x13, 1, 1}))
	}
	first := discover(1, bare)
	for range 2 { // an iPXE asks twice within a second
		assert.True(t, strings.HasSuffix(c.ask(first).BootFileName, "/snponly.efi"))
		clock.pass(time.Second)
	}
	clock.pass(20 * time.Second)
	assert.Equal(t, "http://127.0.0.1/boot.ipxe", c.ask(discover(1, bare)).BootFileName)
}

// A relay may ask a proxy beside its DHCP server: the offer goes back through it,
// and names the address at which the relay found us.
func TestProxyOfferGoesBackThroughTheRelay(t *testing.T) {
	n := lab()
	n.Mode, n.Range = store.DHCPProxy, store.Range{}
	far := n
	far.Interface, far.Prefix = "", netip.MustParsePrefix("10.88.0.0/24")
	all := networks{own: n, relayed: []store.Subnet{far}}
	r := mustDecode(t, captured(t)["ovmf-pxe-discover"])
	r.GIAddr = ip("10.88.0.1")
	s, ok := all.of(r, true)
	require.True(t, ok)
	assert.Equal(t, far.Prefix, s.Prefix)
	assert.Equal(t, "10.88.0.1:67", route(r, Offer, netip.Addr{}, wire.ServerPort, false).to.String())
	r.GIAddr = ip("10.99.0.1")
	_, ok = all.of(r, true)
	assert.False(t, ok, "nobody chose that network")
}
