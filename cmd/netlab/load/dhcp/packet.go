package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// Message types of option 53 (RFC 2132 §9.6).
const (
	discoverType = 1
	offerType    = 2
	requestType  = 3
	ackType      = 5
	nakType      = 6
)

// Places in a BOOTP message (RFC 2131 §2, figure 1).
const (
	atXID    = 4
	atYIAddr = 16
	atGIAddr = 24
	atCHAddr = 28
	atFile   = 108
	atCookie = 236
	atOption = 240
	minSize  = 300 // what BOOTP relays pass on (RFC 1542 §2.1)
)

const cookie = 0x63825363

// The options that are patched come first, so that their places are known: the
// type has three bytes, then in a REQUEST come the address and the server.
const (
	atRequested = atOption + 3 + 2
	atServer    = atRequested + 4 + 2
)

// packet makes a client's message as a relay passes it on. stamp and choose
// fill in what is each client's own.
func packet(l Load, kind byte) []byte {
	p := make([]byte, atOption, 512)
	p[0], p[1], p[2], p[3] = 1, 1, 6, 1 // BOOTREQUEST, Ethernet, one hop
	giaddr := l.Relay.Addr().As4()
	copy(p[atGIAddr:], giaddr[:])
	binary.BigEndian.PutUint32(p[atCookie:], cookie)
	p = append(p, 53, 1, kind)
	if kind == requestType {
		p = append(p, 50, 4, 0, 0, 0, 0, 54, 4, 0, 0, 0, 0)
	}
	p = append(p, 55, 13, 1, 3, 6, 12, 15, 17, 43, 51, 54, 60, 66, 67, 97)
	p = append(p, 57, 2, 0x05, 0xc0)
	if l.PXE {
		// As OVMF sends them (RFC 4578).
		const class = "PXEClient:Arch:00007:UNDI:003016"
		p = append(append(p, 60, byte(len(class))), class...)
		p = append(p, 93, 2, 0, 7, 94, 3, 1, 3, 16)
		p = append(p, 97, 17, 0)
		p = append(p, make([]byte, 16)...)
	}
	p = append(p, 255)
	for len(p) < minSize {
		p = append(p, 0)
	}
	return p
}

// stamp makes a packet one client's: its xid, its MAC, and with PXE its UUID,
// which ends with the MAC.
func stamp(p []byte, xid uint32, mac [6]byte) {
	binary.BigEndian.PutUint32(p[atXID:], xid)
	copy(p[atCHAddr:], mac[:])
	if at := uuidPlace(p); at > 0 {
		copy(p[at:at+16], "\xbe\xbe\xbe\xbe\xbe\xbe\x4e\xbe\x8e\xbe")
		copy(p[at+10:], mac[:])
	}
}

// uuidPlace finds the UUID's bytes in a packet that packet made; 0 for none.
func uuidPlace(p []byte) int {
	for o := atOption; o+1 < len(p) && p[o] != 255 && p[o] != 0; o += 2 + int(p[o+1]) {
		if p[o] == 97 {
			return o + 3
		}
	}
	return 0
}

// choose names in a REQUEST what was offered.
func choose(p []byte, address, server netip.Addr) {
	a, s := address.As4(), server.As4()
	copy(p[atRequested:], a[:])
	copy(p[atServer:], s[:])
}

// answer is what a server's message says.
type answer struct {
	xid     uint32
	kind    byte
	mac     [6]byte
	address netip.Addr // yiaddr
	server  netip.Addr // option 54
	boots   bool       // it names a boot file
}

// parse reads a server's message; ok is false when it is none.
func parse(b []byte) (a answer, ok bool) {
	if len(b) <= atOption || b[0] != 2 || binary.BigEndian.Uint32(b[atCookie:]) != cookie {
		return a, false
	}
	a.xid = binary.BigEndian.Uint32(b[atXID:])
	a.address = netip.AddrFrom4([4]byte(b[atYIAddr:]))
	a.mac = [6]byte(b[atCHAddr:])
	a.boots = b[atFile] != 0
	for o := atOption; o+1 < len(b) && b[o] != 255; {
		if b[o] == 0 {
			o++
			continue
		}
		n := int(b[o+1])
		if o+2+n > len(b) {
			return a, false
		}
		v := b[o+2 : o+2+n]
		switch {
		case b[o] == 53 && n == 1:
			a.kind = v[0]
		case b[o] == 54 && n == 4:
			a.server = netip.AddrFrom4([4]byte(v))
		case b[o] == 67 && n > 0:
			a.boots = true
		}
		o += 2 + n
	}
	return a, a.kind != 0
}
