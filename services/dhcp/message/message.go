// Package message decodes a client's DHCP message once into typed values (RFC
// 2131, RFC 2132, the PXE options of RFC 4578, relay information of RFC 3046 and
// iPXE's option 175). It is pure, reads what strangers sent, and bounds
// everything that it keeps.
package message

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"lunboot/services/boot"
	"lunboot/store"
)

// Option codes that the library has no name for.
const (
	OptionIPXE = dhcpv4.GenericOptionCode(175) // iPXE's encapsulated options (Etherboot, IANA "Tentatively Assigned")
	OptionUUID = dhcpv4.GenericOptionCode(97)  // client machine identifier, RFC 4578 §2.3
)

// ipxeISCSI is the sub-option of option 175 by which a client says that it can
// boot from an iSCSI target (iPXE src/include/ipxe/dhcp.h).
const ipxeISCSI = 0x11

// ipxeBusID is the sub-option that names the network card.
const ipxeBusID = 0xb1

// PXEBootItem is the sub-option of option 43 that names a boot server type and a
// layer: a client that sends it asks a boot server, not for an address, and
// wants it back (PXE 2.1 table 2-1, tag 71).
const PXEBootItem = 71

// Request is one DHCP message of a client, decoded once. Its fields are values:
// nothing points into the packet.
type Request struct {
	Type      dhcpv4.MessageType
	XID       uint32
	MAC       store.MAC
	ClientID  string // option 61 in hexadecimal
	Requested netip.Addr
	CIAddr    netip.Addr
	GIAddr    netip.Addr
	ServerID  netip.Addr
	Broadcast bool
	Secs      int

	Arch      uint16 // option 93: the one that counts
	HasArch   bool
	Arches    string // all of them, two bytes each, in the client's order; empty when it names one
	Class     string // option 60
	UserClass string // option 77, without RFC 3004's length bytes
	UUID      store.UUID
	RawUUID   string // option 97 as it came, to be sent back
	Hostname  string // option 12
	RelayInfo string // option 82 as it came
	Agent     Agent  // and what it says
	Params    string // option 55: one byte a code
	MaxSize   int    // option 57

	BootItem string // PXE's boot item in option 43, as it came; empty for none

	IPXE     bool     // the client is an iPXE
	Features bool     // it sent option 175, so that its features are known
	ISCSI    bool     // and iSCSI is one of them
	NIC      boot.NIC // the card, when an iPXE tells it
}

// Reasons for which Decode refuses a message.
var (
	errNotRequest  = errors.New("not a BOOTREQUEST")
	errNotEthernet = errors.New("not an Ethernet address")
	errNoType      = errors.New("no message type: plain BOOTP, which has no leases")
	errNoRelay     = errors.New("a relay address that nobody can have")
)

// Decode reads a client's message. An error means that the message is to be
// dropped and counted.
func Decode(p *dhcpv4.DHCPv4) (Request, error) {
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return Request{}, errNotRequest
	}
	mac, ok := store.MACFrom(p.ClientHWAddr)
	if p.HWType != iana.HWTypeEthernet || !ok || mac.IsZero() || mac[0]&1 != 0 {
		return Request{}, errNotEthernet
	}
	r := Request{
		Type:      p.MessageType(),
		XID:       uint32(p.TransactionID[0])<<24 | uint32(p.TransactionID[1])<<16 | uint32(p.TransactionID[2])<<8 | uint32(p.TransactionID[3]),
		MAC:       mac,
		ClientID:  hex.EncodeToString(bound(p.Options.Get(dhcpv4.OptionClientIdentifier), 255)),
		Requested: AddrOption(p, dhcpv4.OptionRequestedIPAddress),
		CIAddr:    AddrOf(p.ClientIPAddr),
		GIAddr:    AddrOf(p.GatewayIPAddr),
		ServerID:  AddrOption(p, dhcpv4.OptionServerIdentifier),
		Broadcast: p.IsBroadcast(),
		Secs:      int(p.NumSeconds),
		Class:     text(p.Options.Get(dhcpv4.OptionClassIdentifier)),
		UserClass: userClass(p.Options.Get(dhcpv4.OptionUserClassInformation)),
		Hostname:  text(p.Options.Get(dhcpv4.OptionHostName)),
		RelayInfo: string(p.Options.Get(dhcpv4.OptionRelayAgentInformation)),
		Params:    string(p.Options.Get(dhcpv4.OptionParameterRequestList)),
	}
	if a := r.GIAddr; a.IsValid() && (a.As4()[0] == 0 || a.As4()[0] >= 224) {
		return Request{}, errNoRelay // multicast, reserved, or this network (RFC 1122 §3.2.1.3)
	}
	r.Agent = decodeAgent([]byte(r.RelayInfo))
	if r.Type == dhcpv4.MessageTypeNone {
		return Request{}, errNoType
	}
	if b := p.Options.Get(dhcpv4.OptionMaximumDHCPMessageSize); len(b) == 2 {
		r.MaxSize = int(b[0])<<8 | int(b[1])
	}
	// A list in the client's order of preference (RFC 4578 §2.1); most name one.
	if b := p.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(b) >= 2 {
		r.Arch, r.HasArch = uint16(b[0])<<8|uint16(b[1]), true
		if len(b) >= 4 {
			r.Arches = string(bound(b, maxArches*2))
		}
	}
	if b := p.Options.Get(OptionUUID); len(b) == 17 && b[0] == 0 {
		r.UUID, _ = store.UUIDFromWire(b[1:])
		r.RawUUID = string(b)
	}
	r.BootItem = bootItem(p.Options.Get(dhcpv4.OptionVendorSpecificInformation))
	if b := p.Options.Get(OptionIPXE); b != nil {
		r.IPXE = true
		sub := make(dhcpv4.Options)
		// A value that does not parse still says that an iPXE sent it; its
		// features count as unsaid.
		r.Features = sub.FromBytes(b) == nil
		v := sub[ipxeISCSI]
		r.ISCSI = r.Features && len(v) > 0 && v[0] != 0
		r.NIC, _ = boot.NICOf(sub[ipxeBusID])
	}
	if strings.Contains(r.UserClass, "iPXE") || strings.Contains(r.UserClass, "Tinkerbell") {
		r.IPXE = true
	}
	return r, nil
}

// bootItem reads PXE's boot item out of option 43: four bytes, a type and a layer.
func bootItem(b []byte) string {
	sub := make(dhcpv4.Options)
	if len(b) == 0 || sub.FromBytes(b) != nil {
		return "" // another vendor's, in a form of its own
	}
	if v := sub[PXEBootItem]; len(v) == 4 {
		return string(v)
	}
	return ""
}

// userClass reads option 77 in RFC 3004's form (a length byte before each
// class) and in the bare form that iPXE sends.
func userClass(b []byte) string {
	var classes []string
	for rest := b; len(rest) > 0; {
		n := int(rest[0])
		if n == 0 || n > len(rest)-1 {
			return text(b)
		}
		classes = append(classes, text(rest[1:1+n]))
		rest = rest[1+n:]
	}
	return strings.Join(classes, ",")
}

// maxArches bounds a list of architectures: there are not as many that one machine
// could be.
const maxArches = 16

// maxText bounds what an option may put into an event.
const maxText = 128

// text keeps the printable ASCII of an option's value.
func text(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, string(bound(b, maxText)))
}

func bound(b []byte, n int) []byte { return b[:min(len(b), n)] }

// AddrOf turns the library's address into a comparable one; 0.0.0.0 is none.
func AddrOf(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Addr{}
	}
	if a = a.Unmap(); a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// AddrOption returns an option that holds one address; not valid for none.
func AddrOption(p *dhcpv4.DHCPv4, code dhcpv4.OptionCode) netip.Addr {
	if b := p.Options.Get(code); len(b) == 4 {
		return AddrOf(b)
	}
	return netip.Addr{}
}

// Named returns the address that a client names as the one that it wants or has; not
// valid for none.
func (r Request) Named() netip.Addr {
	if r.Requested.IsValid() {
		return r.Requested
	}
	return r.CIAddr
}

// Settled returns the request with the first of its architectures that something
// runs on; with the first of all when nothing does.
func (r Request) Settled(runs func(boot.Platform) bool) Request {
	for rest := r.Arches; len(rest) >= 2; rest = rest[2:] {
		one := r
		one.Arch = uint16(rest[0])<<8 | uint16(rest[1])
		if p, ok := one.Platform(); ok && runs(p) {
			return one
		}
	}
	return r
}

// PXE reports whether the client asks to boot from the network. Everybody else
// on the wire is given an address and nothing to boot.
func (r Request) PXE() bool {
	return r.HasArch || r.IPXE || r.IsClass("PXEClient") || r.IsClass("HTTPClient")
}

// IsClass reports whether option 60 begins with name.
func (r Request) IsClass(name string) bool { return strings.HasPrefix(r.Class, name) }

// Platform returns what option 93 says; a PXE client that does not send it is a
// BIOS (PXE 2.1 §2.2.1 makes the tag the x86 firmware's own).
func (r Request) Platform() (boot.Platform, bool) {
	if !r.HasArch {
		return boot.PlatformOf(0)
	}
	p, ok := boot.PlatformOf(r.Arch)
	if ok && r.IsClass("HTTPClient") {
		p.HTTP = true
	}
	return p, ok
}

// ArchName prints an architecture type that the registry does not name.
func (r Request) ArchName() string { return fmt.Sprintf("type %d", r.Arch) }

// RawClientID returns option 61 as it came.
func (r Request) RawClientID() []byte {
	b, _ := hex.DecodeString(r.ClientID) // it was made by EncodeToString
	return b
}

// Wants reports whether the client asked for an option. One that sends no list
// is given all (RFC 2131 §3.5).
func (r Request) Wants(code dhcpv4.OptionCode) bool {
	return r.Params == "" || strings.IndexByte(r.Params, code.Code()) >= 0
}
