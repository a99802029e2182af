package message

import (
	"bufio"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/boot"
)

// captured returns the messages of testdata/requests.txt by name.
func captured(t testing.TB) map[string][]byte {
	f, err := os.Open("testdata/requests.txt")
	require.NoError(t, err)
	defer f.Close()
	out := map[string][]byte{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, text, ok := strings.Cut(sc.Text(), " ")
		if !ok || name == "#" {
			continue
		}
		out[name], err = hex.DecodeString(text)
		require.NoError(t, err)
	}
	return out
}

func mustDecode(t testing.TB, b []byte) Request {
	p, err := dhcpv4.FromBytes(b)
	require.NoError(t, err)
	r, err := Decode(p)
	require.NoError(t, err)
	return r
}

func TestDecodeReadsWhatFirmwareSends(t *testing.T) {
	all := captured(t)
	for name, want := range map[string]struct {
		platform        boot.Platform
		ipxe, iscsi     bool
		clientID, bcast bool
		class, user     string
		maxSize         int
	}{
		"bios-rom-discover":  {boot.Platform{Firmware: boot.BIOS, Arch: boot.X86}, true, true, true, false, "PXEClient:Arch:00000:UNDI:002001", "iPXE", 1472},
		"undionly-discover":  {boot.Platform{Firmware: boot.BIOS, Arch: boot.X86}, true, true, true, true, "PXEClient:Arch:00000:UNDI:002001", "iPXE", 1472},
		"efi-rom-discover":   {boot.Platform{Firmware: boot.UEFI, Arch: boot.X8664}, true, true, true, false, "PXEClient:Arch:00007:UNDI:003010", "iPXE", 1472},
		"snponly-discover":   {boot.Platform{Firmware: boot.UEFI, Arch: boot.X8664}, true, true, true, false, "PXEClient:Arch:00007:UNDI:003010", "iPXE", 1472},
		"ovmf-pxe-discover":  {boot.Platform{Firmware: boot.UEFI, Arch: boot.X8664}, false, false, false, true, "PXEClient:Arch:00007:UNDI:003000", "", 1472},
		"ovmf-pxe-request":   {boot.Platform{Firmware: boot.UEFI, Arch: boot.X8664}, false, false, false, true, "PXEClient:Arch:00007:UNDI:003000", "", 65280},
		"ovmf-http-discover": {boot.Platform{Firmware: boot.UEFI, Arch: boot.X8664, HTTP: true}, false, false, false, true, "HTTPClient:Arch:00016:UNDI:003000", "", 1472},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustDecode(t, all[name])
			p, known := r.Platform()
			assert.True(t, known)
			assert.Equal(t, want.platform, p)
			assert.True(t, r.PXE())
			assert.Equal(t, want.ipxe, r.IPXE)
			assert.Equal(t, want.ipxe, r.Features)
			assert.Equal(t, want.iscsi, r.ISCSI)
			assert.Equal(t, want.clientID, r.ClientID != "")
			assert.Equal(t, want.bcast, r.Broadcast)
			assert.Equal(t, want.class, r.Class)
			assert.Equal(t, want.user, r.UserClass)
			assert.Equal(t, want.maxSize, r.MaxSize)
			assert.Equal(t, map[bool]string{true: "PCI 1af4:1000"}[want.ipxe], r.NIC.String())
			assert.Equal(t, "79617264-0000-4000-8000", r.UUID.String()[:23])
			assert.Equal(t, strings.HasSuffix(name, "request"), r.Type == dhcpv4.MessageTypeRequest)
			assert.Equal(t, r.Type == dhcpv4.MessageTypeRequest, r.Requested.IsValid())
			assert.Equal(t, r.Type == dhcpv4.MessageTypeRequest, r.ServerID == netip.MustParseAddr("10.77.0.1"))
		})
	}
}

// An iPXE is known by its user class in either form, or by option 175: an
// operator may set the first, and the second is missing from some builds.
func TestDecodeKnowsAnIPXE(t *testing.T) {
	for name, c := range map[string]struct {
		option dhcpv4.Option
		ipxe   bool
		class  string
	}{
		"bare user class":         {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")), true, "iPXE"},
		"RFC 3004 user class":     {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("\x04iPXE")), true, "iPXE"},
		"two RFC 3004 classes":    {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("\x03lab\x04iPXE")), true, "lab,iPXE"},
		"Tinkerbell":              {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("Tinkerbell")), true, "Tinkerbell"},
		"option 175":              {dhcpv4.OptGeneric(OptionIPXE, []byte{0x13, 1, 1}), true, ""},
		"option 175, unreadable":  {dhcpv4.OptGeneric(OptionIPXE, []byte{0x13, 9}), true, ""},
		"another user class":      {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("gPXE")), false, "gPXE"},
		"a length byte too large": {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("\x09iPX")), false, "iPX"},
		"control characters":      {dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("a\x1b[2Jb")), false, "a[2Jb"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, dhcpv4.WithOption(c.option))
			require.NoError(t, err)
			r, err := Decode(p)
			require.NoError(t, err)
			assert.Equal(t, c.ipxe, r.IPXE)
			assert.Equal(t, c.ipxe, r.PXE())
			assert.Equal(t, c.class, r.UserClass)
			assert.False(t, r.ISCSI)
		})
	}
}

func TestDecodeRefusesWhatIsNoClient(t *testing.T) {
	for name, change := range map[string]dhcpv4.Modifier{
		"a reply":             func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply },
		"plain BOOTP":         dhcpv4.WithoutOption(dhcpv4.OptionDHCPMessageType),
		"InfiniBand":          func(d *dhcpv4.DHCPv4) { d.HWType = iana.HWTypeInfiniband; d.ClientHWAddr = nil },
		"a long address":      func(d *dhcpv4.DHCPv4) { d.ClientHWAddr = make([]byte, 16) },
		"the zero address":    func(d *dhcpv4.DHCPv4) { d.ClientHWAddr = make([]byte, 6) },
		"a multicast address": func(d *dhcpv4.DHCPv4) { d.ClientHWAddr = []byte{1, 0, 0x5e, 0, 0, 1} },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, change)
			require.NoError(t, err)
			_, err = Decode(p)
			assert.Error(t, err)
		})
	}
}

// Old firmware sends one type, some boards a list; a class alone is a BIOS.
func TestPlatformOfOddClients(t *testing.T) {
	r := Request{Class: "PXEClient"}
	p, ok := r.Platform()
	assert.True(t, ok && r.PXE())
	assert.Equal(t, boot.BIOS, p.Firmware)

	r = Request{HasArch: true, Arch: 7, Class: "HTTPClient:Arch:00007"}
	p, _ = r.Platform()
	assert.True(t, p.HTTP)

	r = Request{HasArch: true, Arch: 4711}
	_, ok = r.Platform()
	assert.False(t, ok)

	assert.False(t, Request{Class: "MSFT 5.0"}.PXE())
}

func FuzzDecode(f *testing.F) {
	for _, b := range captured(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		r, err := Decode(p)
		if err != nil {
			return
		}
		if r.MAC.IsZero() || len(r.Class) > maxText || len(r.UserClass) > len(b) || len(r.Hostname) > maxText {
			t.Errorf("%+v is not bounded", r)
		}
		r.Platform()
		r.RawClientID()
	})
}
