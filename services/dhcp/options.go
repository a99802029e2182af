package dhcp

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"lunboot/services/dhcp/bootfile"
	"lunboot/services/dhcp/ledger"
	"lunboot/store"
)

// minMTU is the smallest MTU that option 26 may name (RFC 2132 §5.1), and
// plainMTU the one that every Ethernet client assumes.
const (
	minMTU   = 68
	plainMTU = 1500
)

// usualOptions is how many options an answer has room for before it must grow.
const usualOptions = 14

// spent are options of answers that were sent.
var spent = sync.Pool{New: func() any { return make(dhcpv4.Options, usualOptions) }}

func emptyOptions() dhcpv4.Options { return spent.Get().(dhcpv4.Options) }

// recycle takes the options of an answer that nobody looks at any more.
func recycle(o dhcpv4.Options) {
	if o != nil {
		clear(o)
		spent.Put(o)
	}
}

// configure fills an offer or ACK: the network's options, and what to boot.
// bound is false for a client that has its address from elsewhere (INFORM): it
// is given no times.
func (in *Input) configure(ans *Answer, bound bool) {
	r, n := in.Request, in.Subnet
	kind := dhcpv4.MessageTypeAck
	if ans.Verdict == Offer {
		kind = dhcpv4.MessageTypeOffer
	}
	o := emptyOptions()
	o.Update(dhcpv4.OptMessageType(kind))
	o.Update(dhcpv4.OptServerIdentifier(in.serverID().AsSlice()))
	o.Update(dhcpv4.Option{Code: dhcpv4.OptionSubnetMask, Value: dhcpv4.IP(mask(n.Prefix))})
	if bound {
		// RFC 2131 §4.4.5: T1 is half of the lease, T2 seven eighths.
		o.Update(duration(dhcpv4.OptionIPAddressLeaseTime, n.LeaseTime))
		o.Update(duration(dhcpv4.OptionRenewTimeValue, n.LeaseTime/2))
		o.Update(duration(dhcpv4.OptionRebindingTimeValue, n.LeaseTime*7/8))
	}
	// A machine that boots needs the router whether or not its list names it:
	// its volume may be behind one.
	if n.Router.IsValid() && (r.Wants(dhcpv4.OptionRouter) || r.PXE()) {
		o.Update(address(dhcpv4.OptionRouter, n.Router))
	}
	if len(n.DNS) > 0 && r.Wants(dhcpv4.OptionDomainNameServer) {
		o.Update(address(dhcpv4.OptionDomainNameServer, n.DNS...))
	}
	if n.Domain != "" && r.Wants(dhcpv4.OptionDomainName) {
		o.Update(dhcpv4.OptDomainName(n.Domain))
	}
	if len(n.Search) > 0 && r.Wants(dhcpv4.OptionDNSDomainSearchList) {
		o.Update(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: n.Search})) // RFC 3397
	}
	if len(n.NTP) > 0 && r.Wants(dhcpv4.OptionNTPServers) {
		o.Update(address(dhcpv4.OptionNTPServers, n.NTP...))
	}
	if in.Client.Enrolled && r.Wants(dhcpv4.OptionHostName) {
		o.Update(dhcpv4.OptHostName(in.Client.Machine.Name))
	}
	if r.Wants(dhcpv4.OptionBroadcastAddress) && n.Prefix.Bits() < 31 {
		o.Update(address(dhcpv4.OptionBroadcastAddress, ledger.Broadcast(n.Prefix)))
	}
	// A large MTU of ours says nothing of the client's card and switch; a
	// small one is a limit of the wire.
	if m := in.Interface.MTU; m >= minMTU && m < plainMTU && r.Wants(dhcpv4.OptionInterfaceMTU) {
		o.Update(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(uint16(m))})
	}
	ans.Options = o
	in.echo(o)
	in.boot(ans)
}

// boot adds what to boot to an offer or ACK.
func (in *Input) boot(ans *Answer) {
	b := bootfile.Decide(in.asker(), in.source())
	ans.BootFile, ans.ServerAddr, ans.Loader, ans.Chained = b.File, b.Server, b.Loader, b.Chained
	for code, value := range b.Options {
		ans.Options[code] = value
	}
	if b.Missing != "" {
		e := in.event(store.EventDHCPNoLoader, ans.Address)
		e.Detail.Reason = b.Missing
		ans.Events = append(ans.Events, e)
		ans.Reason = b.Missing
	}
	if in.Client.Ignored && in.Request.PXE() && ans.Verdict == Ack {
		// It has an address, and nothing more comes of its boot: its screen says
		// "Nothing to boot", and nobody would know why.
		ans.Events = append(ans.Events, in.event(store.EventIgnoredMachine, ans.Address))
	}
	// A machine that takes its address elsewhere need not ask us twice.
	if b.NoISCSI != "" && (ans.Verdict == Ack || in.proxied()) {
		e := in.event(store.EventDHCPNoISCSI, ans.Address)
		e.Detail.Loader, e.Detail.Reason = string(b.Loader), b.NoISCSI
		ans.Events = append(ans.Events, e)
	}
}

// asker is the client as the boot answer sees it.
func (in *Input) asker() bootfile.Asker {
	return bootfile.Asker{
		Request: in.Request, Ignored: in.Client.Ignored,
		Loader:     in.Client.Machine.Loader,
		Quirks:     in.Client.Machine.Quirks,
		NeedsISCSI: in.Client.Enrolled && in.Client.profile() == store.DefaultProfile,
	}
}

// echo returns what a server must send back as it came: the client identifier
// (RFC 6842 §3) and what a relay put in (RFC 3046 §2.2).
func (in *Input) echo(o dhcpv4.Options) {
	r := in.Request
	if id := r.RawClientID(); len(id) > 0 {
		o.Update(dhcpv4.OptClientIdentifier(id))
	}
	if r.RelayInfo != "" {
		o.Update(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte(r.RelayInfo)))
	}
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
	return dhcpv4.OptGeneric(code, binary.BigEndian.AppendUint32(nil, uint32(d.Round(time.Second)/time.Second)))
}
