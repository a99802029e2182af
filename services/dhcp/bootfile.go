package dhcp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/boot"
	"lunboot/store"
)

// minMTU is the smallest MTU that option 26 may name (RFC 2132 §5.1), and
// plainMTU the one that every Ethernet client assumes.
const (
	minMTU   = 68
	plainMTU = 1500
)

// configure fills an offer or ACK: the network's options, and what to boot.
// bound is false for a client that has its address from elsewhere (INFORM): it
// is given no times.
func (in Input) configure(ans *Answer, bound bool) {
	r, n := in.Request, in.Subnet
	kind := dhcpv4.MessageTypeAck
	if ans.Verdict == Offer {
		kind = dhcpv4.MessageTypeOffer
	}
	o := dhcpv4.OptionsFromList(
		dhcpv4.OptMessageType(kind),
		dhcpv4.OptServerIdentifier(in.Interface.Address.AsSlice()),
		dhcpv4.Option{Code: dhcpv4.OptionSubnetMask, Value: dhcpv4.IP(mask(n.Prefix))},
	)
	if bound {
		// RFC 2131 §4.4.5: T1 is half of the lease, T2 seven eighths.
		o.Update(dhcpv4.OptIPAddressLeaseTime(n.LeaseTime))
		o.Update(duration(dhcpv4.OptionRenewTimeValue, n.LeaseTime/2))
		o.Update(duration(dhcpv4.OptionRebindingTimeValue, n.LeaseTime*7/8))
	}
	// A machine that boots needs the router whether or not its list names it:
	// its volume may be behind one.
	if n.Router.IsValid() && (r.wants(dhcpv4.OptionRouter) || r.PXE()) {
		o.Update(address(dhcpv4.OptionRouter, n.Router))
	}
	if len(n.DNS) > 0 && r.wants(dhcpv4.OptionDomainNameServer) {
		o.Update(address(dhcpv4.OptionDomainNameServer, n.DNS...))
	}
	if n.Domain != "" && r.wants(dhcpv4.OptionDomainName) {
		o.Update(dhcpv4.OptDomainName(n.Domain))
	}
	if in.Client.Enrolled && r.wants(dhcpv4.OptionHostName) {
		o.Update(dhcpv4.OptHostName(in.Client.Machine.Name))
	}
	if r.wants(dhcpv4.OptionBroadcastAddress) && n.Prefix.Bits() < 31 {
		o.Update(address(dhcpv4.OptionBroadcastAddress, broadcast(n.Prefix)))
	}
	// A large MTU of ours says nothing of the client's card and switch; a
	// small one is a limit of the wire.
	if m := in.Interface.MTU; m >= minMTU && m < plainMTU && r.wants(dhcpv4.OptionInterfaceMTU) {
		o.Update(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(uint16(m))})
	}
	ans.Options = o
	in.echo(o)
	in.bootAnswer(ans)
}

// echo returns what a server must send back as it came: the client identifier
// (RFC 6842 §3) and what a relay put in (RFC 3046 §2.2).
func (in Input) echo(o dhcpv4.Options) {
	r := in.Request
	if id := r.clientID(); len(id) > 0 {
		o.Update(dhcpv4.OptClientIdentifier(id))
	}
	if r.RelayInfo != "" {
		o.Update(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte(r.RelayInfo)))
	}
}

// bootAnswer tells a client that asks to boot what to fetch.
func (in Input) bootAnswer(ans *Answer) {
	r := in.Request
	if !r.PXE() || in.Client.Ignored {
		return
	}
	p, known := r.Platform()
	var loader boot.Loader
	if known {
		loader, known = in.loader(p)
	}
	switch {
	case r.IPXE && !in.chains(known):
		// iPXE waits two seconds for a ProxyDHCP server unless it is told that
		// there is none (iPXE src/net/udp/dhcp.c, dhcp_discovery_rx).
		ans.Options.Update(dhcpv4.OptGeneric(optionIPXE, []byte{ipxeNoProxy, 1, 1}))
		in.file(ans, boot.ScriptURL(in.Boot.Address))
	case !known:
		e := r.event(store.EventDHCPNoLoader, in, ans.Address)
		e.Detail.Reason = "there is no loader for " + platformName(r, p)
		ans.Events = append(ans.Events, e)
		ans.Reason = e.Detail.Reason
	case r.IPXE:
		ans.Chained = true
		ans.Options.Update(dhcpv4.OptGeneric(optionIPXE, []byte{ipxeNoProxy, 1, 1}))
		in.file(ans, boot.LoaderPath(r.MAC, loader))
	case p.HTTP:
		// UEFI 2.10 §24.7.3.2: without the class in the offer, the firmware
		// does not take it for an answer to HTTP boot.
		ans.Options.Update(dhcpv4.OptClassIdentifier("HTTPClient"))
		in.file(ans, boot.LoaderURL(in.Boot.Address, loader))
	default:
		if r.isClass("PXEClient") {
			// PXE 2.1 §2.2.3: a server that says PXEClient may be asked for
			// more on port 4011, unless bit 3 of the discovery control tells
			// the client to fetch the file that it was given.
			ans.Options.Update(dhcpv4.OptClassIdentifier("PXEClient"))
			ans.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
		}
		in.file(ans, boot.LoaderPath(r.MAC, loader))
	}
}

// chains reports whether an iPXE is sent to our own loader instead of to the
// script: it cannot speak iSCSI, the machine boots from its volume, and it was
// not sent there a moment ago. The second time it gets the script, whose
// failure then says what is missing.
func (in Input) chains(haveLoader bool) bool {
	r := in.Request
	return haveLoader && r.Features && !r.ISCSI && !in.Boot.Chained &&
		in.Client.Enrolled && in.Client.profile() == store.DefaultProfile
}

// loader returns the first loader for a platform that we have: the preferred
// one, else any other that runs there.
func (in Input) loader(p boot.Platform) (boot.Loader, bool) {
	first, ok := boot.LoaderFor(p)
	if !ok {
		return "", false
	}
	if in.Boot.Loader(first) {
		return first, true
	}
	for _, l := range boot.Loaders() {
		if l.Platform() == first.Platform() && in.Boot.Loader(l) {
			return l, true
		}
	}
	return "", false
}

// file names what to fetch, and where. The header's fields are what every
// client reads; the options are for those that ask for them, and iPXE and HTTP
// boot read them first.
func (in Input) file(ans *Answer, name string) {
	r := in.Request
	ans.BootFile = name
	ans.ServerAddr = in.Boot.Address.Addr()
	if r.wants(dhcpv4.OptionTFTPServerName) {
		ans.Options.Update(dhcpv4.OptTFTPServerName(ans.ServerAddr.String()))
	}
	if r.wants(dhcpv4.OptionBootfileName) || r.isClass("HTTPClient") {
		ans.Options.Update(dhcpv4.OptBootFileName(name))
	}
	if r.RawUUID != "" {
		ans.Options.Update(dhcpv4.OptGeneric(optionUUID, []byte(r.RawUUID)))
	}
}

func platformName(r Request, p boot.Platform) string {
	if p == (boot.Platform{}) {
		return "client architecture " + r.archName()
	}
	return p.String()
}

// mask returns a prefix's subnet mask.
func mask(p netip.Prefix) []byte {
	return binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
}

func address(code dhcpv4.OptionCode, addrs ...netip.Addr) dhcpv4.Option {
	var b []byte
	for _, a := range addrs {
		if a.Is4() {
			b = append(b, a.AsSlice()...)
		}
	}
	return dhcpv4.OptGeneric(code, b)
}

func duration(code dhcpv4.OptionCode, d time.Duration) dhcpv4.Option {
	return dhcpv4.Option{Code: code, Value: dhcpv4.Duration(d)}
}
