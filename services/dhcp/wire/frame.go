// Package wire makes and reads the few packets that DHCP needs below UDP: a
// datagram in an Ethernet frame for a client that has no address yet (RFC 791,
// RFC 768), and ARP for IPv4 over Ethernet (RFC 826, RFC 5227).
//
// It is pure: it opens no socket. It reads what strangers sent, so that every
// length is checked.
package wire

import (
	"encoding/binary"
	"net/netip"

	"lunboot/store"
)

// Sizes of the headers that we make and read by hand.
const (
	ethernetLen = 14
	ipv4Len     = 20
	udpLen      = 8

	protocolUDP = 17
)

// Ports of DHCP (RFC 2131 §4.1).
const (
	ServerPort = 67
	ClientPort = 68
)

// LimitedBroadcast is where a reply goes to a client that cannot take unicast.
var LimitedBroadcast = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), ClientPort)

// EtherTypes.
const (
	IPv4 = 0x0800
	ARP  = 0x0806
)

// Everybody is Ethernet's broadcast address.
var Everybody = store.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Frame wraps a DHCP message in UDP, IPv4 (RFC 791) and Ethernet.
func Frame(from, to store.MAC, src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, ethernetLen, ethernetLen+ipv4Len+udpLen+len(payload))
	copy(b[0:], to[:])
	copy(b[6:], from[:])
	binary.BigEndian.PutUint16(b[12:], IPv4)
	return append(b, Datagram(src, dst, payload)...)
}

// Datagram wraps a DHCP message in UDP (RFC 768) and IPv4 (RFC 791).
func Datagram(src, dst netip.AddrPort, payload []byte) []byte {
	b := make([]byte, ipv4Len+udpLen, ipv4Len+udpLen+len(payload))
	srcIP, dstIP := src.Addr().As4(), dst.Addr().As4()
	ip := b[:ipv4Len]
	ip[0] = 4<<4 | ipv4Len/4
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Len+udpLen+len(payload)))
	ip[8] = 64 // TTL
	ip[9] = protocolUDP
	copy(ip[12:], srcIP[:])
	copy(ip[16:], dstIP[:])
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))

	udp := b[ipv4Len:][:udpLen]
	binary.BigEndian.PutUint16(udp[0:], src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(udpLen+len(payload)))
	b = append(b, payload...)
	// The pseudo header of RFC 768: addresses, protocol, length.
	pseudo := sum(0, ip[12:20]) + protocolUDP + uint32(udpLen+len(payload))
	check := checksum(pseudo, b[ipv4Len:])
	if check == 0 {
		check = 0xffff // RFC 768: zero means that there is none
	}
	binary.BigEndian.PutUint16(b[ipv4Len+6:], check)
	return b
}

// Unframe returns the UDP payload of an Ethernet frame that goes to port, and
// who sent it.
func Unframe(b []byte, port uint16) (payload []byte, from store.MAC, src netip.Addr, ok bool) {
	if len(b) < ethernetLen+ipv4Len || binary.BigEndian.Uint16(b[12:]) != IPv4 {
		return nil, from, src, false
	}
	ip := b[ethernetLen:]
	head := int(ip[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more fragments, or an offset
	if ip[0]>>4 != 4 || head < ipv4Len || total > len(ip) || total < head+udpLen || ip[9] != protocolUDP || fragment != 0 {
		return nil, from, src, false
	}
	udp := ip[head:total]
	if binary.BigEndian.Uint16(udp[2:]) != port {
		return nil, from, src, false
	}
	return udp[udpLen:], store.MAC(b[6:12]), netip.AddrFrom4([4]byte(ip[12:16])), true
}

// sum adds 16-bit words for the Internet checksum (RFC 1071).
func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	return start
}

func checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
