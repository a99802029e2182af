package ra

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/ndp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

var (
	ours    = store.MAC{0x52, 0x54, 0, 0, 0, 1}
	machine = store.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x7c}
	theirs  = netip.MustParseAddr("fe80::5054:ff:fe12:347c")
)

// solicited is the router solicitation of QEMU 7.2's iPXE ROM (BIOS), captured.
const solicited = "33330000000252540012347c86dd" +
	"6000000000103afffe80000000000000505400fffe12347cff020000000000000000000000000002" +
	"85007169000000000101" + "52540012347c"

func captured(t testing.TB) []byte {
	b, err := hex.DecodeString(solicited)
	require.NoError(t, err)
	return b
}

func TestParseReadsWhatIPXESends(t *testing.T) {
	p, err := parse(captured(t))
	require.NoError(t, err)
	assert.Equal(t, packet{from: machine, src: theirs, solicits: true}, p)
}

func TestAdvertisementIsReadByAnotherDecoder(t *testing.T) {
	b, err := advertisement(ours, machine, linkLocal(ours), theirs)
	require.NoError(t, err)
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	require.Nil(t, p.ErrorLayer())
	assert.Equal(t, machine[:], []byte(p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet).DstMAC))
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	assert.EqualValues(t, 255, ip.HopLimit)
	assert.Equal(t, "fe80::5054:ff:fe00:1", ip.SrcIP.String())
	assert.Equal(t, theirs.String(), ip.DstIP.String())
	ra := p.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
	assert.Zero(t, ra.RouterLifetime)
	assert.Zero(t, ra.Flags, "no DHCPv6")
	require.Len(t, ra.Options, 1)
	assert.Equal(t, layers.ICMPv6OptSourceAddress, ra.Options[0].Type)
	assert.Equal(t, ours[:], ra.Options[0].Data)
	icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	require.NoError(t, icmp.SetNetworkLayerForChecksum(ip))
	err, mismatches := p.VerifyChecksums()
	require.NoError(t, err)
	assert.Empty(t, mismatches)

	back, err := parse(b)
	require.NoError(t, err)
	assert.Equal(t, packet{from: ours, src: linkLocal(ours)}, back)
}

func TestParseRefuses(t *testing.T) {
	change := func(i int, v byte) []byte {
		b := captured(t)
		b[i] = v
		return b
	}
	good := captured(t)
	fromGlobal, err := frame(ours, machine, netip.MustParseAddr("2001:db8::1"), allNodes, &ndp.RouterAdvertisement{})
	require.NoError(t, err)
	unspecified, err := frame(ours, machine, netip.IPv6Unspecified(), allRouters, &ndp.RouterSolicitation{
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: ours[:]}}})
	require.NoError(t, err)
	echo := change(54, 128)
	for name, b := range map[string][]byte{
		"nothing":                      nil,
		"a cut frame":                  good[:len(good)-1],
		"headers alone":                good[:54],
		"IPv4":                         change(12, 8),
		"another version":              change(14, 0x40),
		"another protocol":             change(20, 17),
		"a routed packet":              change(21, 254),
		"another message":              echo,
		"another code":                 change(55, 1),
		"a wrong checksum":             change(57, good[57]^1),
		"an advertisement from beyond": fromGlobal,
		"an address without a source":  unspecified,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(b)
			assert.Error(t, err)
		})
	}
}

func TestSolicitationOfOurOwn(t *testing.T) {
	b, err := solicitation(ours, netip.IPv6Unspecified())
	require.NoError(t, err)
	p, err := parse(b)
	require.NoError(t, err)
	assert.True(t, p.solicits)
	assert.Equal(t, "333300000002", hex.EncodeToString(b[:6]))
}

func FuzzParse(f *testing.F) {
	f.Add(captured(f))
	b, err := advertisement(ours, machine, linkLocal(ours), theirs)
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parse(b); err == nil && p.from == (store.MAC{}) && p.solicits && p.lifetime != 0 {
			t.Fatal("a solicitation with a lifetime")
		}
	})
}
