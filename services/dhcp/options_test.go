package dhcp

import (
	"bufio"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/boot"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// captured returns the messages that package message tests its decoder with.
func captured(t testing.TB) map[string][]byte {
	f, err := os.Open("message/testdata/requests.txt")
	require.NoError(t, err)
	defer f.Close()
	out := map[string][]byte{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, text, ok := strings.Cut(sc.Text(), " "); ok && name != "#" {
			out[name], err = hex.DecodeString(text)
			require.NoError(t, err)
		}
	}
	return out
}

func mustDecode(t testing.TB, b []byte) message.Request {
	p, err := dhcpv4.FromBytes(b)
	require.NoError(t, err)
	r, err := message.Decode(p)
	require.NoError(t, err)
	return r
}

// replyTo answers a captured message as the appliance would, and reads the
// reply back from its bytes.
func replyTo(t *testing.T, name string, changes ...func(*Input)) (*dhcpv4.DHCPv4, Answer) {
	t.Helper()
	p, err := dhcpv4.FromBytes(captured(t)[name])
	require.NoError(t, err)
	r := mustDecode(t, captured(t)[name])
	in := base(r.Type)
	r.MAC = mac(1)
	in.Request = r
	in.Offered = r.Requested
	in.Subnet.Range = mustRange("10.77.0.100-10.77.0.250")
	in = with(in, changes...)
	ans := Decide(in)
	if ans.Verdict == Drop {
		return nil, ans
	}
	reply := emptyReply(p)
	fill(reply, in.Request, ans)
	b := reply.ToBytes()
	assert.GreaterOrEqual(t, len(b), 300, "BOOTP's least length, RFC 951 §3")
	back, err := dhcpv4.FromBytes(b)
	require.NoError(t, err)
	return back, ans
}

func TestBootAnswerByFirmware(t *testing.T) {
	const script = "http://10.77.0.1/boot.ipxe"
	for name, c := range map[string]struct {
		file, class, tftp string // option 66 goes to who asks for it
	}{
		"bios-rom-discover":  {script, "", "10.77.0.1"},
		"bios-rom-request":   {script, "", "10.77.0.1"},
		"undionly-discover":  {script, "", "10.77.0.1"},
		"undionly-request":   {script, "", "10.77.0.1"},
		"efi-rom-discover":   {script, "", "10.77.0.1"},
		"snponly-request":    {script, "", "10.77.0.1"},
		"ovmf-pxe-discover":  {"525400000001/snponly.efi", "PXEClient", "10.77.0.1"},
		"ovmf-pxe-request":   {"525400000001/snponly.efi", "PXEClient", "10.77.0.1"},
		"ovmf-http-discover": {"http://10.77.0.1/loaders/snponly.efi", "HTTPClient", ""},
		"ovmf-http-request":  {"http://10.77.0.1/loaders/snponly.efi", "HTTPClient", ""},
	} {
		t.Run(name, func(t *testing.T) {
			reply, ans := replyTo(t, name)
			require.NotNil(t, reply, ans.Reason)
			assert.Equal(t, c.file, reply.BootFileName)
			assert.Equal(t, c.file, reply.BootFileNameOption())
			assert.Equal(t, "10.77.0.1", reply.ServerIPAddr.String(), "siaddr")
			assert.Equal(t, c.tftp, reply.TFTPServerName())
			assert.Equal(t, c.class, reply.ClassIdentifier())
			assert.Equal(t, "10.77.0.1", reply.ServerIdentifier().String())
			assert.NotEmpty(t, reply.YourIPAddr)
			assert.Len(t, reply.Options.Get(message.OptionUUID), 17, "the client's UUID comes back")
			assert.Equal(t, net.IPMask{255, 255, 255, 0}, reply.SubnetMask())
			assert.Equal(t, time.Hour, reply.IPAddressLeaseTime(0))
			assert.Equal(t, 30*time.Minute, reply.IPAddressRenewalTime(0))
			assert.Equal(t, 52*time.Minute+30*time.Second, reply.IPAddressRebindingTime(0))
			if name[:4] != "ovmf" {
				assert.Equal(t, []byte{0xb0, 1, 1}, reply.Options.Get(message.OptionIPXE), "iPXE need not wait for a ProxyDHCP server")
				assert.NotEmpty(t, reply.Options.Get(dhcpv4.OptionClientIdentifier))
			} else if c.class == "PXEClient" {
				assert.Equal(t, []byte{6, 1, 8, 255}, reply.Options.Get(dhcpv4.OptionVendorSpecificInformation))
			}
		})
	}
}

// BIOS firmware that is no iPXE is given the loader. No such ROM exists for
// QEMU, so a captured request is made to look like one.
func TestBootAnswerForAnOldROM(t *testing.T) {
	plain := func(in *Input) { in.Request.IPXE, in.Request.Features, in.Request.UserClass = false, false, "" }
	reply, ans := replyTo(t, "bios-rom-discover", plain)
	assert.Equal(t, "525400000001/undionly.kpxe", reply.BootFileName)
	assert.Equal(t, "PXEClient", reply.ClassIdentifier())
	assert.Equal(t, "undionly.kpxe", ans.Events[1].Detail.Loader)
	assert.Equal(t, "BIOS", ans.Events[0].Detail.Firmware)
	assert.Equal(t, "x86", ans.Events[0].Detail.Arch)
	assert.True(t, ans.Events[0].Detail.PXE)
	assert.False(t, ans.Events[0].Detail.IPXE)
}

func TestOnlyWhoAsksToBootIsToldTo(t *testing.T) {
	ans := Decide(base(dhcpv4.MessageTypeDiscover))
	assert.Equal(t, Offer, ans.Verdict)
	assert.Empty(t, ans.BootFile)
	assert.False(t, ans.ServerAddr.IsValid())
	assert.False(t, ans.Options.Has(dhcpv4.OptionBootfileName))
}

func TestIgnoredMachineGetsAnAddressAndNothingToBoot(t *testing.T) {
	reply, ans := replyTo(t, "ovmf-pxe-discover", func(in *Input) { in.Client = Client{Ignored: true} })
	assert.Equal(t, Offer, ans.Verdict)
	assert.Empty(t, reply.BootFileName)
	assert.Empty(t, reply.ClassIdentifier())
	assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPOffer}, kinds(ans))

	// Once it has the address, its boot is over, and somebody may wonder why.
	_, ans = replyTo(t, "ovmf-pxe-request", func(in *Input) { in.Client = Client{Ignored: true} })
	assert.Equal(t, Ack, ans.Verdict)
	assert.Equal(t, []store.EventKind{store.EventDHCPRequest, store.EventDHCPAck, store.EventIgnoredMachine}, kinds(ans))
}

func TestUnknownMachineIsToldToBoot(t *testing.T) {
	reply, _ := replyTo(t, "undionly-discover", func(in *Input) { in.Client = Client{} })
	assert.Equal(t, "http://10.77.0.1/boot.ipxe", reply.BootFileName)
	assert.Empty(t, reply.HostName())
}

func TestArchitectureWithoutALoaderGetsAnAddressAndAnEvent(t *testing.T) {
	for name, change := range map[string]func(*Input){
		"a loader that is not here":      func(in *Input) { in.Request.Arch = 11 }, // UEFI arm64
		"an architecture without loader": func(in *Input) { in.Request.Arch = 27 }, // UEFI riscv64
		"a type that nobody registered":  func(in *Input) { in.Request.Arch = 4711 },
	} {
		t.Run(name, func(t *testing.T) {
			reply, ans := replyTo(t, "ovmf-pxe-discover", change)
			assert.Equal(t, Offer, ans.Verdict)
			assert.Empty(t, reply.BootFileName)
			assert.Equal(t, []store.EventKind{store.EventDHCPDiscover, store.EventDHCPOffer, store.EventDHCPNoLoader}, kinds(ans))
			assert.Contains(t, ans.Events[2].Detail.Reason, "no loader for")
		})
	}
}

func TestAnotherLoaderStandsInForAMissingOne(t *testing.T) {
	reply, _ := replyTo(t, "ovmf-pxe-discover", func(in *Input) {
		in.Boot.Next = shelf(boot.IPXEEFI)
	})
	assert.Equal(t, "525400000001/ipxe.efi", reply.BootFileName)
}

// An iPXE built without iSCSI cannot boot a volume: it is sent to ours, once.
func TestIPXEWithoutISCSIIsChainedOnce(t *testing.T) {
	poor := func(in *Input) { in.Request.ISCSI = false }
	reply, ans := replyTo(t, "efi-rom-discover", poor)
	assert.True(t, ans.Chained)
	assert.Equal(t, "525400000001/snponly.efi", reply.BootFileName)
	assert.Equal(t, "snponly.efi", ans.Events[1].Detail.Loader)

	for name, change := range map[string]func(*Input){
		"the second time":            func(in *Input) { in.Boot.Chained = true },
		"a profile that needs none":  func(in *Input) { in.Client.Machine.Profile = "local" },
		"for this boot only":         func(in *Input) { in.Client.Machine.OnceProfile = "local" },
		"an unknown machine":         func(in *Input) { in.Client = Client{} },
		"an iPXE that says nothing":  func(in *Input) { in.Request.Features = false },
		"no loader to send it to":    func(in *Input) { in.Boot.Next = shelf() },
		"an architecture of its own": func(in *Input) { in.Request.Arch = 4711 },
	} {
		t.Run(name, func(t *testing.T) {
			reply, ans := replyTo(t, "efi-rom-discover", poor, change)
			assert.False(t, ans.Chained)
			assert.Equal(t, "http://10.77.0.1/boot.ipxe", reply.BootFileName)
			assert.Equal(t, "http://10.77.0.1/boot.ipxe", ans.Events[1].Detail.URL)
		})
	}
}

// A machine whose volume is out of reach is told of before it has tried: the
// event comes with its ACK.
func TestAVolumeThatNoLoaderCanReachIsSaidBeforeItIsTried(t *testing.T) {
	poor := func(in *Input) { in.Request.ISCSI = false }
	for name, c := range map[string]struct {
		packet string
		change func(*Input)
		loader string
		reason string
	}{
		"the loader for arm64": {"ovmf-pxe-request", func(in *Input) { in.Request.Arch, in.Boot.Next = 11, shelf(boot.IPXEARM64) },
			"ipxe-arm64.efi", "ipxe-arm64.efi has no iSCSI inside"},
		"and the iPXE that it starts": {"efi-rom-request", func(in *Input) { poor(in); in.Request.Arch, in.Boot.Next = 11, shelf(boot.IPXEARM64) },
			"", "its iPXE has no iSCSI inside, and neither has ipxe-arm64.efi"},
		"an iPXE with no other for it": {"efi-rom-request", func(in *Input) { poor(in); in.Boot.Next = shelf() },
			"", "its iPXE has no iSCSI inside, and there is no other for it"},
		"an iPXE that was sent to ours": {"efi-rom-request", func(in *Input) { poor(in); in.Boot.Chained = true }, "", "neither has snponly.efi"},
	} {
		t.Run(name, func(t *testing.T) {
			_, ans := replyTo(t, c.packet, c.change)
			require.Equal(t, Ack, ans.Verdict)
			e := ans.Events[len(ans.Events)-1]
			assert.Equal(t, store.EventDHCPNoISCSI, e.Kind)
			assert.Equal(t, c.loader, e.Detail.Loader)
			assert.Contains(t, e.Detail.Reason, c.reason)
		})
	}
	// Beside another server it may ask us no more than once.
	_, ans := replyTo(t, "ovmf-pxe-discover", beside, func(in *Input) { in.Request.Arch, in.Boot.Next = 11, shelf(boot.IPXEARM64) })
	assert.Contains(t, kinds(ans), store.EventDHCPNoISCSI)
	for name, change := range map[string]func(*Input){
		"it needs no volume": func(in *Input) {
			in.Request.Arch, in.Boot.Next = 11, shelf(boot.IPXEARM64)
			in.Client.Machine.Profile = "local"
		},
		"it can":                     func(*Input) {},
		"nobody knows what it boots": func(in *Input) { in.Request.Arch, in.Boot.Next, in.Client = 11, shelf(boot.IPXEARM64), Client{} },
	} {
		t.Run(name, func(t *testing.T) {
			_, ans := replyTo(t, "ovmf-pxe-request", change)
			assert.NotContains(t, kinds(ans), store.EventDHCPNoISCSI)
		})
	}
}

// A machine's own choice is named to it: a file, or the first of a chain, in
// whose folder a shim finds the second.
func TestAMachinesOwnLoaderIsNamedToIt(t *testing.T) {
	own := func(in *Input) {
		in.Client.Machine.Loader = "secure"
		in.Boot.Next = func(h boot.Hardware, own string) boot.Pick {
			assert.Equal(t, "secure", own)
			assert.Equal(t, "003000", h.UNDI)
			return boot.Pick{Loader: "secure/shimx64.efi"}
		}
	}
	reply, ans := replyTo(t, "ovmf-pxe-discover", own)
	assert.Equal(t, "525400000001/secure/shimx64.efi", reply.BootFileName)
	assert.Equal(t, "secure/shimx64.efi", ans.Events[1].Detail.Loader)
	reply, _ = replyTo(t, "ovmf-http-discover", own)
	assert.Equal(t, "http://10.77.0.1/loaders/secure/shimx64.efi", reply.BootFileName)
}

func TestEveryArchitectureIsGivenItsLoader(t *testing.T) {
	all := shelf(boot.Loaders()...)
	for arch, want := range map[uint16]string{
		0: "525400000001/undionly.kpxe", 6: "525400000001/ipxe-ia32.efi", 7: "525400000001/snponly.efi", 9: "525400000001/snponly.efi", 11: "525400000001/ipxe-arm64.efi",
	} {
		reply, _ := replyTo(t, "ovmf-pxe-discover", func(in *Input) { in.Request.Arch, in.Boot.Next = arch, all })
		assert.Equal(t, want, reply.BootFileName, "architecture %d", arch)
	}
	for arch, want := range map[uint16]string{15: "ipxe-ia32.efi", 16: "snponly.efi", 19: "ipxe-arm64.efi"} {
		reply, _ := replyTo(t, "ovmf-http-discover", func(in *Input) { in.Request.Arch, in.Boot.Next = arch, all })
		assert.Equal(t, "http://10.77.0.1/loaders/"+want, reply.BootFileName, "architecture %d", arch)
		assert.Equal(t, "HTTPClient", reply.ClassIdentifier())
	}
}

func TestNetworkOptions(t *testing.T) {
	full := func(in *Input) {
		in.Subnet.Router = ip("10.77.0.254")
		in.Subnet.DNS = []netip.Addr{ip("10.77.0.53"), ip("10.77.0.54")}
		in.Subnet.Domain = "lab.example"
		in.Subnet.Search = []string{"lab.example", "example"}
		in.Subnet.NTP = []netip.Addr{ip("10.77.0.123")}
		in.Interface.MTU = 1400
	}
	ans := Decide(with(base(dhcpv4.MessageTypeDiscover), full))
	d := &dhcpv4.DHCPv4{Options: ans.Options}
	assert.Equal(t, "10.77.0.254", d.Router()[0].String())
	assert.Len(t, d.DNS(), 2)
	assert.Equal(t, "lab.example", d.DomainName())
	assert.Equal(t, []string{"lab.example", "example"}, d.DomainSearch().Labels)
	assert.Equal(t, "10.77.0.123", d.NTPServers()[0].String())
	assert.Equal(t, "m1", d.HostName())
	assert.Equal(t, "10.77.0.255", d.BroadcastAddress().String())
	assert.Equal(t, []byte{1400 >> 8, 1400 & 0xff}, ans.Options.Get(dhcpv4.OptionInterfaceMTU))

	t.Run("a router only when there is one", func(t *testing.T) {
		assert.False(t, Decide(base(dhcpv4.MessageTypeDiscover)).Options.Has(dhcpv4.OptionRouter))
	})
	t.Run("a client's list is heeded", func(t *testing.T) {
		ans := Decide(with(base(dhcpv4.MessageTypeDiscover), full, func(in *Input) { in.Request.Params = "\x01\x06" }))
		assert.True(t, ans.Options.Has(dhcpv4.OptionDomainNameServer))
		for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionRouter, dhcpv4.OptionDomainName, dhcpv4.OptionHostName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionNTPServers} {
			assert.False(t, ans.Options.Has(code), code)
		}
	})
	t.Run("a machine that boots gets its router all the same", func(t *testing.T) {
		ans := Decide(with(base(dhcpv4.MessageTypeDiscover), full, func(in *Input) { in.Request.Params, in.Request.Class = "\x01", "PXEClient" }))
		assert.True(t, ans.Options.Has(dhcpv4.OptionRouter))
	})
	t.Run("a jumbo card of ours is no promise of the client's", func(t *testing.T) {
		ans := Decide(with(base(dhcpv4.MessageTypeDiscover), func(in *Input) { in.Interface.MTU = 9000 }))
		assert.False(t, ans.Options.Has(dhcpv4.OptionInterfaceMTU))
	})
	t.Run("the relay's option comes back", func(t *testing.T) {
		for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest} {
			ans := Decide(with(base(kind), chooses("10.77.0.1"), asks("10.77.0.0"), func(in *Input) {
				in.Request.RelayInfo, in.Request.ClientID = "\x01\x04port", "ff0102"
			}))
			assert.Equal(t, []byte("\x01\x04port"), ans.Options.Get(dhcpv4.OptionRelayAgentInformation), kind)
			assert.Equal(t, []byte{0xff, 1, 2}, ans.Options.Get(dhcpv4.OptionClientIdentifier), kind)
		}
	})
}

func TestRoute(t *testing.T) {
	client, relay := ip("10.77.0.100"), ip("10.88.0.1")
	sourcePort := message.Agent{SourcePort: true}
	for name, c := range map[string]struct {
		r       message.Request
		verdict Verdict
		past    bool
		to      string
		framed  bool
	}{
		"a client without an address":         {message.Request{}, Offer, false, "10.77.0.100:68", true},
		"one that cannot take unicast yet":    {message.Request{Broadcast: true}, Offer, false, "255.255.255.255:68", false},
		"one that runs on its address":        {message.Request{CIAddr: client, Broadcast: true}, Ack, false, "10.77.0.100:68", false},
		"a refusal":                           {message.Request{CIAddr: client}, Nak, false, "255.255.255.255:68", false},
		"a client behind a relay":             {message.Request{GIAddr: relay, Broadcast: true}, Offer, false, "10.88.0.1:67", false},
		"a relay with a port of its own":      {message.Request{GIAddr: relay, Agent: sourcePort}, Offer, false, "10.88.0.1:4711", false},
		"a client that invents a port":        {message.Request{Agent: sourcePort}, Offer, false, "10.77.0.100:68", true},
		"a refusal behind a relay":            {message.Request{GIAddr: relay}, Nak, false, "10.88.0.1:67", false},
		"a renewal past the relay":            {message.Request{CIAddr: client}, Ack, true, "10.77.0.100:68", false},
		"a refusal past the relay":            {message.Request{CIAddr: client}, Nak, true, "10.77.0.100:68", false},
		"a question for options":              {message.Request{Type: dhcpv4.MessageTypeInform, CIAddr: client}, Ack, false, "10.77.0.100:68", false},
		"one behind a relay":                  {message.Request{Type: dhcpv4.MessageTypeInform, CIAddr: client, GIAddr: relay}, Ack, false, "10.77.0.100:68", false},
		"one behind a relay, with no address": {message.Request{Type: dhcpv4.MessageTypeInform, GIAddr: relay}, Ack, false, "10.88.0.1:67", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := route(c.r, c.verdict, client, 4711, c.past)
			assert.Equal(t, c.to, d.to.String())
			assert.Equal(t, c.framed, d.framed)
		})
	}
	t.Run("a relay broadcasts a refusal", func(t *testing.T) {
		reply := &dhcpv4.DHCPv4{}
		fill(reply, message.Request{GIAddr: relay}, Answer{Verdict: Nak})
		assert.True(t, reply.IsBroadcast())
	})
	t.Run("and options for a client without an address", func(t *testing.T) {
		reply := &dhcpv4.DHCPv4{}
		fill(reply, message.Request{Type: dhcpv4.MessageTypeInform, GIAddr: relay}, Answer{Verdict: Ack})
		assert.True(t, reply.IsBroadcast())
	})
}

// What we send can be read again, whatever was asked.
func FuzzAnswer(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		r, err := message.Decode(p)
		if err != nil {
			return
		}
		for _, mode := range []store.DHCPMode{store.DHCPFull, store.DHCPProxy} {
			for _, bootServer := range []bool{false, true} {
				answerOne(t, p, r, mode, bootServer)
			}
		}
	})
}

func answerOne(t *testing.T, p *dhcpv4.DHCPv4, r message.Request, mode store.DHCPMode, bootServer bool) {
	v := newInventory(newClock().Now, machine(1, ""))
	n := lab()
	n.Mode = mode
	s := New(v.config(t, n))
	s.link.Store(&Interface{Name: "lab0", Address: ip("10.77.0.1"), MTU: 1500})
	at, ok := s.place(r, netip.Addr{})
	if !ok {
		return
	}
	at.bootServer = bootServer
	ans, err := s.answer(t.Context(), r, at, v.now())
	if err != nil {
		t.Fatal(err)
	}
	if ans.Verdict == Drop {
		return
	}
	reply := emptyReply(p)
	fill(reply, r, ans)
	back, err := dhcpv4.FromBytes(reply.ToBytes())
	if err != nil {
		t.Fatalf("our own reply cannot be read: %v", err)
	}
	if back.TransactionID != p.TransactionID {
		t.Fatal("the reply is for another transaction")
	}
}
