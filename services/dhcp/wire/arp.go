package wire

import (
	"encoding/binary"
	"net/netip"

	"lunboot/store"
)

// Lengths and codes of ARP for IPv4 over Ethernet (RFC 826).
const (
	arpLen     = 28
	arpRequest = 1
)

// ARPProbe asks who has a, without a sender's address of our own (RFC 5227
// §1.1), so that nobody's table changes.
func ARPProbe(own store.MAC, a netip.Addr) []byte {
	b := make([]byte, ethernetLen+arpLen)
	copy(b[0:], Everybody[:])
	copy(b[6:], own[:])
	binary.BigEndian.PutUint16(b[12:], ARP)
	arp := b[ethernetLen:]
	binary.BigEndian.PutUint16(arp[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(arp[2:], IPv4)
	arp[4], arp[5] = 6, 4
	binary.BigEndian.PutUint16(arp[6:], arpRequest)
	copy(arp[8:], own[:])
	target := a.As4()
	copy(arp[24:], target[:])
	return b
}

// ARPSender reads who sent an ARP packet.
func ARPSender(b []byte) (store.MAC, netip.Addr, bool) {
	if len(b) < ethernetLen+arpLen || binary.BigEndian.Uint16(b[12:]) != ARP {
		return store.MAC{}, netip.Addr{}, false
	}
	arp := b[ethernetLen:]
	if binary.BigEndian.Uint16(arp[0:]) != 1 || binary.BigEndian.Uint16(arp[2:]) != IPv4 || arp[4] != 6 || arp[5] != 4 {
		return store.MAC{}, netip.Addr{}, false
	}
	return store.MAC(arp[8:14]), netip.AddrFrom4([4]byte(arp[14:18])), true
}
