package ra

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/ndp"

	"lunboot/store"
)

// Sizes and numbers of the headers around a message.
const (
	ethernetLen = 14
	ipv6Len     = 40
	headersLen  = ethernetLen + ipv6Len

	etherTypeIPv6  = 0x86dd
	protocolICMPv6 = 58

	typeSolicitation  = 133
	typeAdvertisement = 134
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// packet is one router solicitation or advertisement that passed the checks of
// RFC 4861 §6.1.
type packet struct {
	from     store.MAC // the sender's card
	src      netip.Addr
	solicits bool // a solicitation; an advertisement otherwise
	lifetime uint16
}

// Reasons for which parse refuses a frame.
var (
	errNotNDP   = errors.New("no router solicitation or advertisement")
	errInvalid  = errors.New("invalid by RFC 4861 §6.1")
	errChecksum = errors.New("wrong checksum")
)

// parse reads an Ethernet frame.
func parse(b []byte) (packet, error) {
	if len(b) < headersLen+8 || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv6 {
		return packet{}, errNotNDP
	}
	ip := b[ethernetLen:]
	length := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != protocolICMPv6 || length < 8 || length > len(ip)-ipv6Len {
		return packet{}, errNotNDP
	}
	msg := ip[ipv6Len:][:length]
	if msg[0] != typeSolicitation && msg[0] != typeAdvertisement {
		return packet{}, errNotNDP
	}
	p := packet{from: store.MAC(b[6:12]), src: netip.AddrFrom16([16]byte(ip[8:24])), solicits: msg[0] == typeSolicitation}
	if ip[7] != ndp.HopLimit || msg[1] != 0 {
		return packet{}, errInvalid // it came from beyond the wire, or has an unknown code
	}
	if checksum(ip[8:40], msg) != 0 {
		return packet{}, errChecksum
	}
	m, err := ndp.ParseMessage(msg)
	if err != nil {
		return packet{}, errInvalid
	}
	switch m := m.(type) {
	case *ndp.RouterSolicitation:
		for _, o := range m.Options {
			if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Source && p.src.IsUnspecified() {
				return packet{}, errInvalid
			}
		}
	case *ndp.RouterAdvertisement:
		if !p.src.IsLinkLocalUnicast() {
			return packet{}, errInvalid
		}
		p.lifetime = uint16(m.RouterLifetime.Seconds())
	}
	return p, nil
}

// advertisement makes the frame that ends a machine's wait: a router
// advertisement that announces no router (lifetime 0, RFC 4861 §4.2), no prefix
// and no DHCPv6. It is addressed to one card, and nobody else hears it.
func advertisement(own, to store.MAC, src, dst netip.Addr) ([]byte, error) {
	return frame(own, to, src, dst, &ndp.RouterAdvertisement{
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: own[:]}},
	})
}

// solicitation asks whether there is a router. Its source may be unspecified.
func solicitation(own store.MAC, src netip.Addr) ([]byte, error) {
	// RFC 2464 §7: the group's card address.
	return frame(own, store.MAC{0x33, 0x33, 0, 0, 0, 2}, src, allRouters, &ndp.RouterSolicitation{})
}

func frame(own, to store.MAC, src, dst netip.Addr, m ndp.Message) ([]byte, error) {
	msg, err := ndp.MarshalMessageChecksum(m, src, dst)
	if err != nil {
		return nil, err
	}
	b := make([]byte, headersLen, headersLen+len(msg))
	copy(b[0:], to[:])
	copy(b[6:], own[:])
	binary.BigEndian.PutUint16(b[12:], etherTypeIPv6)
	ip := b[ethernetLen:]
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(len(msg)))
	ip[6] = protocolICMPv6
	ip[7] = ndp.HopLimit // RFC 4861 §6.1.2: anything else is dropped
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	return append(b, msg...), nil
}

// checksum sums the pseudo header of RFC 8200 §8.1 and a message; it is zero
// when the message carries its own right checksum.
func checksum(addrs, msg []byte) uint16 {
	sum := uint32(len(msg)) + protocolICMPv6
	for _, b := range [][]byte{addrs, msg} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(b[0])<<8 | uint32(b[1])
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// linkLocal makes the link-local address of a card (RFC 4291 appendix A), for an
// interface that has none of its own.
func linkLocal(m store.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}
