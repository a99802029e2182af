package dhcp

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/wire"
)

// destination is where a reply goes. Framed replies are put on the wire in an
// Ethernet frame of our own making, since a client without an address cannot
// answer ARP for the one that it is about to be given.
type destination struct {
	to     netip.AddrPort
	framed bool
}

// route chooses a reply's destination by RFC 2131 §4.1. port is where the
// request came from: a relay that says so is answered there (RFC 8357 §5.1).
// past is true for a client behind a relay that speaks past it.
func route(r message.Request, verdict Verdict, yiaddr netip.Addr, port uint16, past bool) destination {
	switch {
	case r.Type == dhcpv4.MessageTypeInform && r.CIAddr.IsValid():
		// RFC 2131 §4.3.5, "directly to the address given in the ciaddr field",
		// says nothing of relays. ISC's server takes that as always, too: a
		// relay would send the reply to yiaddr, which has to be empty.
		return destination{to: netip.AddrPortFrom(r.CIAddr, wire.ClientPort)}
	case r.GIAddr.IsValid() && r.Agent.SourcePort && port != 0:
		return destination{to: netip.AddrPortFrom(r.GIAddr, port)}
	case r.GIAddr.IsValid():
		return destination{to: netip.AddrPortFrom(r.GIAddr, wire.ServerPort)}
	case verdict == Nak && past:
		// RFC 2131 §4.1 wants a broadcast, which would be heard on our own
		// wire only. The client still listens on the address that it loses.
		return destination{to: netip.AddrPortFrom(r.CIAddr, wire.ClientPort)}
	case verdict == Nak:
		return destination{to: wire.LimitedBroadcast}
	case r.CIAddr.IsValid():
		return destination{to: netip.AddrPortFrom(r.CIAddr, wire.ClientPort)}
	case r.Broadcast || !yiaddr.IsValid():
		return destination{to: wire.LimitedBroadcast}
	}
	return destination{to: netip.AddrPortFrom(yiaddr, wire.ClientPort), framed: true}
}

// fill writes an answer into a reply. What RFC 2131 table 3 lets a server copy
// from the request is there already.
func fill(reply *dhcpv4.DHCPv4, r message.Request, ans Answer) {
	reply.Options = ans.Options
	switch {
	case ans.Verdict == Nak:
		// RFC 2131 §4.3.2: a relay must broadcast a NAK, since the client may
		// have an address of another network.
		if r.GIAddr.IsValid() {
			reply.SetBroadcast()
		}
		return
	case ans.Verdict == Ack && r.CIAddr.IsValid(): // RFC 2131 table 3
		reply.ClientIPAddr = r.CIAddr.AsSlice()
	}
	if ans.Address.IsValid() {
		reply.YourIPAddr = ans.Address.AsSlice()
	}
	if ans.ServerAddr.IsValid() {
		reply.ServerIPAddr = ans.ServerAddr.AsSlice()
	}
	reply.BootFileName = ans.BootFile
	if r.GIAddr.IsValid() && !ans.Address.IsValid() && !r.CIAddr.IsValid() {
		// RFC 1542 §4.1.2: without the flag the relay sends it to yiaddr, which is
		// empty in an offer beside another server's, and in an answer to an INFORM.
		reply.SetBroadcast()
	}
}
