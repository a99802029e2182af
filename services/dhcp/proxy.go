package dhcp

import (
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/dhcp/bootfile"
	"lunboot/store"
)

// This file decides in proxy mode: another server gives the addresses, and we
// say what to boot. PXE 2.1 §2.2 has the two ways: an offer without an address
// beside the other server's, and the answer of a boot server, on port 4011 or to
// a broadcast, to a client that has its address already.

// asksBootServer reports whether a request is a question to a boot server. It
// comes in on its port, or names a boot item (PXE 2.1 §2.2.5), and its client
// has an address.
func (in *Input) asksBootServer() bool {
	r := in.Request
	switch r.Type {
	case dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform:
	default:
		return false
	}
	if !in.speaks() || r.ServerID.IsValid() && r.ServerID != in.Interface.Address {
		return false
	}
	return in.BootServer || r.CIAddr.IsValid() && (r.BootItem != "" || r.Type == dhcpv4.MessageTypeInform && in.proxied())
}

// proxied reports whether another server gives the addresses here.
func (in *Input) proxied() bool { return in.Subnet.Mode == store.DHCPProxy }

// speaks reports whether the client takes its boot answer from another server
// than its address: it says so by its class (PXE 2.1 §2.2.1, UEFI 2.10 §24.7).
func (in *Input) speaks() bool {
	return in.Request.IsClass("PXEClient") || in.Request.IsClass("HTTPClient")
}

// beside answers in proxy mode. Who does not ask to boot is none of our
// business, unless it is enrolled: then it is an operating system that starts.
func (in *Input) beside() Answer {
	switch {
	case in.Client.Ignored:
		return drop("it is ignored")
	case !in.speaks() && !in.Client.Enrolled:
		return drop("it does not ask to boot")
	}
	switch in.Request.Type {
	case dhcpv4.MessageTypeDiscover:
		return in.proxyOffer()
	case dhcpv4.MessageTypeRequest:
		return in.overheard()
	}
	return drop("it is for the server that gives the addresses")
}

// proxyOffer offers what to boot and no address. An offer that names nothing is
// not sent: firmware that hears one waits for what it does not say.
func (in *Input) proxyOffer() Answer {
	asked := in.event(store.EventDHCPDiscover, netip.Addr{})
	ans := Answer{Verdict: Offer, Events: []store.Event{asked}, Waiting: in.waiting()}
	switch {
	case !in.speaks():
		ans.Verdict, ans.Reason = Drop, "it does not ask to boot"
		return ans
	case in.Client.has(store.QuirkNoProxyOffer):
		ans.Verdict, ans.Reason = Drop, "its firmware takes no offer beside another"
		return ans
	}
	in.bootAnswer(&ans, dhcpv4.MessageTypeOffer)
	if ans.BootFile == "" {
		ans.Verdict = Drop
		return ans
	}
	ans.Events = append(ans.Events, in.told(store.EventDHCPProxyOffer, ans))
	return ans
}

// overheard notes whom a machine took its address from, and which one it asked
// for. Nothing is answered: who gave the address does that.
func (in *Input) overheard() Answer {
	r := in.Request
	a := r.Named()
	if !a.IsValid() {
		return drop("a REQUEST that names no address")
	}
	// The server may be on this host, with our address.
	e := in.event(store.EventDHCPOtherPick, a)
	ans := Answer{Reason: "another server gives the addresses here", Waiting: in.waiting()}
	if r.ServerID.IsValid() {
		e.Detail.Server = r.ServerID.String()
		ans.Reason = "it chose the server " + r.ServerID.String()
	}
	ans.Events = []store.Event{e}
	return ans
}

// bootServer answers a question to a boot server, at the address and port that
// asked (PXE 2.1 §2.2.5).
func (in *Input) bootServer() Answer {
	if in.Client.Ignored {
		return drop("it is ignored")
	}
	ans := Answer{Verdict: Ack, ToSender: true, Waiting: in.waiting()}
	in.bootAnswer(&ans, dhcpv4.MessageTypeAck)
	if ans.BootFile == "" {
		ans.Verdict = Drop
		return ans
	}
	ans.Events = append(ans.Events, in.told(store.EventDHCPBootServer, ans))
	ans.Events[len(ans.Events)-1].Addr = in.Request.CIAddr
	return ans
}

// bootAnswer fills an answer that names what to boot, and nothing else.
func (in *Input) bootAnswer(ans *Answer, kind dhcpv4.MessageType) {
	ans.Options = dhcpv4.OptionsFromList(
		dhcpv4.OptMessageType(kind),
		// Ours, whatever a relay would have us say: it is where clients find
		// our port 4011.
		dhcpv4.OptServerIdentifier(in.Interface.Address.AsSlice()),
	)
	in.echo(ans.Options)
	in.boot(ans)
}

// source is what there is to boot from, as this request is answered.
func (in *Input) source() bootfile.Source {
	src := in.Boot
	src.Proxy = in.proxied()
	return src
}
