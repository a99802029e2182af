package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

var (
	card  = store.MAC{0x52, 0x54, 0, 0, 0, 1}
	other = store.MAC{0x52, 0x54, 0, 0, 0, 2}
	src   = netip.MustParseAddrPort("10.77.0.1:1067")
	dst   = netip.MustParseAddrPort("10.77.0.100:1068")
)

// Another decoder reads what we make, and finds its checksums right.
func TestFrameIsReadByAnotherDecoder(t *testing.T) {
	for _, payload := range [][]byte{make([]byte, 300), []byte("odd"), {}} {
		b := Frame(card, other, src, dst, payload)
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		require.Nil(t, p.ErrorLayer())
		eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		assert.Equal(t, other[:], []byte(eth.DstMAC))
		assert.Equal(t, card[:], []byte(eth.SrcMAC))
		ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		assert.Equal(t, "10.77.0.1", ip.SrcIP.String())
		assert.Equal(t, "10.77.0.100", ip.DstIP.String())
		assert.Equal(t, uint16(0xffff), ^checksum(0, b[14:34]), "the header sums to all ones")
		udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		assert.EqualValues(t, 1067, udp.SrcPort)
		assert.EqualValues(t, 1068, udp.DstPort)
		require.NoError(t, udp.SetNetworkLayerForChecksum(ip))
		err, mismatches := p.VerifyChecksums()
		require.NoError(t, err)
		assert.Empty(t, mismatches)

		back, from, a, ok := Unframe(b, 1068)
		assert.True(t, ok)
		assert.Equal(t, payload, append([]byte{}, back...))
		assert.Equal(t, card, from)
		assert.Equal(t, src.Addr(), a)
	}
}

func TestUnframeRefuses(t *testing.T) {
	change := func(f func(b []byte)) []byte {
		b := Frame(card, other, src, dst, []byte("payload"))
		f(b)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":            nil,
		"a short frame":      Frame(card, other, src, dst, nil)[:33],
		"another port":       change(func(b []byte) { b[37] = 69 }),
		"another protocol":   change(func(b []byte) { b[23] = 6 }),
		"IPv6":               change(func(b []byte) { b[12], b[13] = 0x86, 0xdd }),
		"a fragment":         change(func(b []byte) { b[20] = 0x20 }),
		"a later fragment":   change(func(b []byte) { b[21] = 1 }),
		"a length too long":  change(func(b []byte) { binary.BigEndian.PutUint16(b[16:], 1000) }),
		"a length too short": change(func(b []byte) { binary.BigEndian.PutUint16(b[16:], 21) }),
		"a short header":     change(func(b []byte) { b[14] = 0x44 }),
		"a long header":      change(func(b []byte) { b[14] = 0x4f }),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, ok := Unframe(b, 1068)
			assert.False(t, ok)
		})
	}
}

func TestARP(t *testing.T) {
	b := ARPProbe(card, dst.Addr())
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	require.Nil(t, p.ErrorLayer())
	arp := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	assert.EqualValues(t, layers.ARPRequest, arp.Operation)
	assert.Equal(t, []byte{0, 0, 0, 0}, arp.SourceProtAddress, "RFC 5227 §1.1: nobody's table changes")
	assert.Equal(t, card[:], arp.SourceHwAddress)
	assert.Equal(t, []byte{10, 77, 0, 100}, arp.DstProtAddress)

	from, a, ok := ARPSender(b)
	assert.True(t, ok)
	assert.Equal(t, card, from)
	assert.True(t, a.IsUnspecified())
	_, _, ok = ARPSender(b[:len(b)-1])
	assert.False(t, ok)
	b[18] = 16
	_, _, ok = ARPSender(b)
	assert.False(t, ok)
}

func FuzzUnframe(f *testing.F) {
	f.Add(Frame(card, other, src, dst, []byte("payload")))
	f.Add(ARPProbe(card, dst.Addr()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if payload, _, _, ok := Unframe(b, 1068); ok && len(payload) > len(b) {
			t.Fatal("more than there was")
		}
		ARPSender(b)
	})
}
