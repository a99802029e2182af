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

// route chooses a reply's destination by RFC 2131 §4.1. from is the sender's
// address when the listener is bound to one unicast address, where no broadcast
// can come from and none need go; it is not valid otherwise.
func route(r message.Request, verdict Verdict, yiaddr netip.Addr, from netip.AddrPort) destination {
	switch {
	case from.IsValid():
		return destination{to: from}
	case r.GIAddr.IsValid():
		return destination{to: netip.AddrPortFrom(r.GIAddr, wire.ServerPort)}
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
	case ans.Verdict == Ack && r.CIAddr.IsValid():
		reply.ClientIPAddr = r.CIAddr.AsSlice()
	}
	if ans.Address.IsValid() {
		reply.YourIPAddr = ans.Address.AsSlice()
	}
	if ans.ServerAddr.IsValid() {
		reply.ServerIPAddr = ans.ServerAddr.AsSlice()
	}
	reply.BootFileName = ans.BootFile
}
