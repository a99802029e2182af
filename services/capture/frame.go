package capture

import (
	"encoding/binary"
	"net/netip"

	"lunboot/store"
)

// Sizes and numbers of the headers that are read by hand: Ethernet, ARP
// (RFC 826), IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768), TCP (RFC 9293),
// ICMPv6 (RFC 4861 §4).
const (
	ethernetLen = 14
	arpLen      = 28
	ipv4Len     = 20
	maxIPv4Len  = 60
	ipv6Len     = 40
	udpLen      = 8
	tcpLen      = 20

	etherTypeIPv4 = 0x0800
	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd
	etherTypeVLAN = 0x8100 // IEEE 802.1Q

	tagLen = 4
	atTag  = 12 // behind the two MACs

	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58

	typeSolicitation  = 133
	typeAdvertisement = 134

	fragmentOffset = 0x1fff
	moreFragments  = 0x2000

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
)

// datagram is an IPv4 packet with ports, in its frame.
type datagram struct {
	protocol byte
	src, dst netip.AddrPort
	payload  int  // where it begins in the frame
	end      int  // where it ends: behind it, Ethernet may have padded
	whole    bool // all of the payload is here, and it is no fragment
	length   int  // of the frame on the wire, without padding
	seq      uint32
	flags    byte // TCP's
}

// readIPv4 reads the headers of an IPv4 packet with ports. It takes nothing
// that a length field says for granted.
func readIPv4(b []byte) (d datagram, ok bool) {
	if len(b) < ethernetLen+ipv4Len || b[ethernetLen]>>4 != 4 {
		return d, false
	}
	ip := b[ethernetLen:]
	head, total := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if head < ipv4Len || total < head || len(ip) < head {
		return d, false
	}
	fragment := binary.BigEndian.Uint16(ip[6:])
	if fragment&fragmentOffset != 0 {
		return d, false
	}
	d.protocol = ip[9]
	d.length = ethernetLen + total
	d.end = min(len(b), d.length)
	d.whole = len(b) >= d.length && fragment&moreFragments == 0
	l4 := ethernetLen + head
	need := udpLen
	if d.protocol == protocolTCP {
		need = tcpLen
	} else if d.protocol != protocolUDP {
		return d, false
	}
	if d.end < l4+need {
		return d, false
	}
	d.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(b[l4:]))
	d.dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(b[l4+2:]))
	if d.protocol == protocolUDP {
		n := int(binary.BigEndian.Uint16(b[l4+4:]))
		if n < udpLen {
			return d, false
		}
		d.payload = l4 + udpLen
		if d.whole && l4+n > d.length {
			return d, false
		}
		d.end = min(d.end, l4+n)
		return d, true
	}
	offset := int(b[l4+12]>>4) * 4
	if offset < tcpLen || l4+offset > d.end {
		return d, false
	}
	d.payload, d.seq, d.flags = l4+offset, binary.BigEndian.Uint32(b[l4+4:]), b[l4+13]
	return d, true
}

// size is how many bytes of payload the packet had on the wire.
func (d datagram) size() int { return max(0, d.length-d.payload) }

func macAt(b []byte) store.MAC { return store.MAC(b[:6]) }

// someone reports whether a MAC is one card's.
func someone(m store.MAC) bool { return m[0]&1 == 0 && m != store.MAC{} }
