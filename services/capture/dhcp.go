package capture

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"lunboot/store"
)

// A DHCP message (RFC 2131 §2) and the options (RFC 2132) that are looked at.
const (
	bootpLen   = 236
	atHType    = 1
	atHLen     = 2
	atCIAddr   = 12
	atYIAddr   = 16
	atCHAddr   = 28
	atSName    = 44
	atFile     = 108
	magic      = 0x63825363
	ethernet10 = 1 // hardware type

	optPad       = 0
	optOverload  = 52
	optMsgType   = 53
	optAuth      = 90  // RFC 3118
	optIPXE      = 175 // iPXE's own options inside
	optUsername  = 190
	optPassword  = 191
	optReverse   = 192
	optReversePW = 193
	optEnd       = 255

	msgRequest = 3
	msgAck     = 5
)

// dhcpFacts is what a message says of the machine.
type dhcpFacts struct {
	mac  store.MAC
	addr netip.Addr // that the message gives it, or that it has
}

// scrubDHCP overwrites in a DHCP message what may be a password: iPXE takes
// names and passwords from another server's options, and a URL may hold some
// too. ok is false for what is no message of an Ethernet client; nothing of that
// is kept.
func scrubDHCP(b []byte) (f dhcpFacts, ok bool) {
	if len(b) < bootpLen+4 || b[atHType] != ethernet10 || b[atHLen] != 6 || binary.BigEndian.Uint32(b[bootpLen:]) != magic {
		return f, false
	}
	f.mac = macAt(b[atCHAddr:])
	var o options
	o.scrub(b[bootpLen+4:])
	for _, field := range []struct {
		b        []byte
		overload byte // that says that options stand there (RFC 2132 §9.3)
	}{{b[atFile:bootpLen], 1}, {b[atSName:atFile], 2}} {
		if o.overload&field.overload != 0 {
			o.scrub(field.b)
		} else {
			scrubURL(field.b)
		}
	}
	at := 0
	switch o.msg {
	case msgAck:
		at = atYIAddr
	case msgRequest:
		at = atCIAddr
	default:
		return f, someone(f.mac)
	}
	if a := netip.AddrFrom4([4]byte(b[at : at+4])); !a.IsUnspecified() {
		f.addr = a
	}
	return f, someone(f.mac)
}

// options are what was seen on the way through a message's options.
type options struct {
	msg, overload byte
	ipxe          bool
}

// scrub walks over options. From where they cannot be read on, all is
// overwritten.
func (o *options) scrub(b []byte) {
	for i := 0; i < len(b); {
		switch b[i] {
		case optPad:
			i++
			continue
		case optEnd:
			clear(b[i+1:])
			return
		}
		if i+1 >= len(b) || i+2+int(b[i+1]) > len(b) {
			clear(b[i:])
			return
		}
		code, value := b[i], b[i+2:i+2+int(b[i+1])]
		switch code {
		case optMsgType:
			if len(value) == 1 {
				o.msg = value[0]
			}
		case optOverload:
			if len(value) == 1 {
				o.overload = value[0]
			}
		case optIPXE:
			// A second one goes on where the first ended (RFC 3396 §5), maybe
			// inside a password.
			if o.ipxe {
				clear(value)
			} else {
				var inner options
				inner.scrub(value)
			}
			o.ipxe = true
		case optAuth, optUsername, optPassword, optReverse, optReversePW:
			for k := range value {
				value[k] = filler
			}
		default:
			scrubURL(value)
		}
		i += 2 + len(value)
	}
}

// scrubURL overwrites a URL's name and password, as in http://me:secret@host/.
func scrubURL(b []byte) {
	at := bytes.Index(b, []byte("://"))
	end := bytes.LastIndexByte(b, '@')
	for i := at + 3; at >= 0 && i < end; i++ {
		b[i] = filler
	}
}
