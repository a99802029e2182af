package dhcp

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/boot"
	"lunboot/services/dhcp/bootfile"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/message"
	"lunboot/store"
)

// Times of the policy.
const (
	offerLife   = ledger.HoldTime  // how long an offered address is kept for its REQUEST
	declineLife = 10 * time.Minute // how long an address that somebody else uses is left alone
	doubtLife   = time.Minute      // and one of which a client says so, while the wire can be asked
)

// Interface is where a request came in.
type Interface struct {
	Name    string
	Address netip.Addr // ours on it, or the one that a relay reached
	MTU     int
}

// Client is what the inventory knows of a MAC.
type Client struct {
	Machine  store.Machine // zero when it is not enrolled
	Enrolled bool
	Ignored  bool
}

// profile returns the name of the profile that makes the machine's next script.
func (c Client) profile() string {
	if c.Machine.OnceProfile != "" {
		return c.Machine.OnceProfile
	}
	return c.Machine.Profile
}

func (c Client) has(q store.Quirk) bool { return slices.Contains(c.Machine.Quirks, q) }

// Address is what is known of one address of the subnet.
type Address struct {
	ledger.Facts
	Conflict  bool      // somebody answered when we asked the wire for it
	By        store.MAC // who answered
	Due       bool      // the wire was not asked for it lately, or not since the boot began
	Appliance bool      // ours, the router's or the relay's
}

// Free is an address that the pool would give to somebody new.
type Free struct {
	Address netip.Addr // not valid when there is none
	Reason  string     // why there is none
}

// Input is all that an answer depends on.
type Input struct {
	Now       time.Time
	Request   message.Request
	Interface Interface
	Subnet    store.Subnet
	Client    Client
	Own       store.Lease            // the lease that the MAC holds or held in this subnet
	Offered   netip.Addr             // the address that this MAC was offered and may still ask for
	Addresses map[netip.Addr]Address // facts about each address that the request, the lease or the machine names
	Free      Free
	Boot      bootfile.Source
	// GiveBack are the addresses that a DECLINE gives back: nobody sets aside more
	// than his share.
	GiveBack []store.Lease
	// Elsewhere says that the address which the client names as its own lies in
	// another subnet where addresses are given from here: nobody else would know it.
	Elsewhere bool
	// OnWire says that the wire can be asked who uses an address.
	OnWire bool
	// Untold says that what comes of the request is of no interest to anybody.
	Untold bool
	// BootServer says that the request came in on the port of boot servers.
	BootServer bool
	// OtherRelay says that the server that it names is another relay, which
	// speaks for us (RFC 5107).
	OtherRelay bool
}

// Verdict says what is sent.
type Verdict uint8

// The verdicts. The zero verdict sends nothing.
const (
	Drop Verdict = iota
	Offer
	Ack
	Nak
)

// String names the verdict as RFC 2131 does.
func (v Verdict) String() string {
	switch v {
	case Offer:
		return "DHCPOFFER"
	case Ack:
		return "DHCPACK"
	case Nak:
		return "DHCPNAK"
	}
	return "nothing"
}

// Answer is what a request leads to.
type Answer struct {
	Verdict    Verdict
	Address    netip.Addr    // yiaddr
	Lease      store.Lease   // to be made durable before the answer leaves; zero when nothing changes
	GiveBack   []store.Lease // to be made durable, too: addresses that are set aside no longer
	Doubt      netip.Addr    // ask the wire for it; not valid for none
	Hold       bool          // keep Address for this MAC for offerLife
	Withdraw   bool          // forget what was offered to this MAC
	Options    dhcpv4.Options
	BootFile   string
	ServerAddr netip.Addr  // siaddr
	Loader     boot.Loader // what BootFile is, when it is a loader
	Chained    bool        // an iPXE was sent to our own loader
	ToSender   bool        // it goes to the address and port that asked
	Waiting    bool        // an unknown machine asks to boot
	Reason     string      // why, for the log and for the option "message" of a NAK
	Events     []store.Event
}

// Decide answers one request by RFC 2131 §4.3, or by PXE 2.1 §2.2 where another
// server gives the addresses. It changes nothing.
func Decide(in Input) Answer {
	switch {
	case in.asksBootServer():
		return in.bootServer()
	case in.BootServer:
		return drop("it is no question to this boot server")
	case in.proxied():
		return in.beside()
	}
	switch in.Request.Type {
	case dhcpv4.MessageTypeDiscover:
		return in.discover()
	case dhcpv4.MessageTypeRequest:
		return in.request()
	case dhcpv4.MessageTypeDecline:
		return in.decline()
	case dhcpv4.MessageTypeRelease:
		return in.release()
	case dhcpv4.MessageTypeInform:
		return in.inform()
	}
	return drop("a message that only servers send")
}

func drop(reason string) Answer { return Answer{Reason: reason} }

// discover offers the first of: the machine's reserved address, the address
// that the MAC holds or was offered, what the pool has (RFC 2131 §4.3.1). When there
// is nothing else it is the reserved address although somebody else uses it: on an
// address that two have a machine may boot, without one it cannot.
func (in *Input) discover() Answer {
	asked := in.event(store.EventDHCPDiscover, netip.Addr{})
	if a := in.known(); a.IsValid() {
		return in.offer(a, asked)
	}
	if in.Free.Address.IsValid() {
		return in.offer(in.Free.Address, asked)
	}
	if own := in.reserved(); own.IsValid() && in.withheld(own) == "" {
		return in.offer(own, asked)
	}
	e := in.event(store.EventDHCPNoAddress, netip.Addr{})
	e.Detail.Reason = in.Free.Reason
	return Answer{Reason: in.Free.Reason, Events: slices.Concat([]store.Event{asked}, in.conflict(), []store.Event{e}), Waiting: in.waiting()}
}

// known returns the address that the client is offered without a look at the pool;
// not valid for none. Who is not enrolled has a claim to what it held only while the
// lease runs: after that the pool is asked for it, which keeps some for machines.
func (in *Input) known() netip.Addr {
	own := in.Own.Address
	if !in.Client.Enrolled && !in.Own.Expires.After(in.Now) {
		own = netip.Addr{}
	}
	for _, a := range [...]netip.Addr{in.reserved(), own, in.Offered} {
		if a.IsValid() && in.obstacle(a) == "" {
			return a
		}
	}
	return netip.Addr{}
}

func (in *Input) offer(a netip.Addr, asked store.Event) Answer {
	ans := Answer{Verdict: Offer, Address: a, Hold: true, Waiting: in.waiting()}
	in.configure(&ans, true)
	in.tell(&ans, asked, store.EventDHCPOffer)
	// Nobody asks the wire ahead for a reserved address. It is asked now, and an
	// answer counts from the next boot on: iPXE gives up when it is refused what it
	// was offered. One that somebody answered for at an earlier boot is asked for
	// again: he may be gone, or the machine's own system was heard.
	own := in.reserved()
	if f := in.at(own); own.IsValid() && (a == own || f.Conflict) && in.OnWire && f.Due && in.Request.PXE() {
		ans.Doubt = own
	}
	if own != in.Offered { // else it was said when the wire had answered
		ans.Events = append(ans.Events, in.conflict()...)
	}
	return ans
}

// conflict is the event of a reserved address that somebody else uses; none when
// nobody does.
func (in *Input) conflict() []store.Event {
	own := in.reserved()
	f := in.at(own)
	if !own.IsValid() || !f.Conflict || in.Untold {
		return nil
	}
	e := in.event(store.EventDHCPConflict, own)
	e.Detail.Server, e.Detail.Reason = f.By.String(), answersFor(f.By, own, in.Client.Machine.Name)
	return []store.Event{e}
}

// answersFor says who uses an address that is reserved for a machine.
func answersFor(by store.MAC, a netip.Addr, machine string) string {
	return by.String() + " answers for " + a.String() + ", which is reserved for " + machine
}

// request tells the four states of a client apart by RFC 2131 §4.3.2, table 4.
func (in *Input) request() Answer {
	r := in.Request
	switch {
	case in.OtherRelay:
		// SELECTING: that relay brings the same REQUEST, and is answered.
		return drop("it takes our offer by the name of " + r.ServerID.String() + ", which is another relay")
	case r.ServerID.IsValid() && r.ServerID != in.serverID():
		// SELECTING, another server's offer. What we offered is free again.
		e := in.event(store.EventDHCPOtherPick, r.Requested)
		e.Detail.Server = r.ServerID.String()
		return Answer{Withdraw: true, Reason: "it chose the server " + r.ServerID.String(), Events: []store.Event{e}}
	case r.ServerID.IsValid():
		return in.selecting()
	case r.CIAddr.IsValid():
		return in.renewing()
	case r.Requested.IsValid():
		return in.rebooting()
	}
	return drop("a REQUEST that names no address")
}

// selecting answers a client that takes our offer.
func (in *Input) selecting() Answer {
	a := in.Request.Requested
	if !a.IsValid() {
		// Some clients repeat the offer in ciaddr, against RFC 2131 table 4.
		a = in.Request.CIAddr
	}
	if !a.IsValid() {
		return drop("a REQUEST that names no address")
	}
	if why := in.obstacle(a); why != "" {
		return in.nak(a, why)
	}
	// An offer may be forgotten: by a restart, or because its time ran out. The
	// pool decides then whether a stranger may have the address.
	if !in.knows(a) && in.Free.Address != a {
		return in.nak(a, in.Free.Reason)
	}
	return in.ack(a)
}

// rebooting answers INIT-REBOOT: a client that remembers an address.
func (in *Input) rebooting() Answer {
	a := in.Request.Requested
	if in.Elsewhere {
		return in.moved(a)
	}
	if !in.Subnet.Prefix.Contains(a) {
		return drop("it remembers " + a.String() + ", which is not of this subnet: another server may know it")
	}
	if why := in.obstacle(a); why != "" {
		if !in.Own.Address.IsValid() && in.ownerless(a) {
			return drop("there is no record of it, nor of " + a.String())
		}
		return in.nak(a, why)
	}
	better := in.reserved()
	switch {
	case better.IsValid() && better != a && in.obstacle(better) == "" && !in.at(a).InUse:
		return in.nak(a, "this machine's reserved address is "+better.String())
	case in.knows(a):
		return in.ack(a)
	case in.Own.Address.IsValid():
		return in.nak(a, "this machine's address is "+in.Own.Address.String())
	}
	// RFC 2131 §4.3.2: no record of this client, so silence.
	return drop("there is no record of it")
}

// renewing answers RENEWING and REBINDING: a client that runs on its address.
// It is refused only what somebody else holds. A machine whose volume is open
// from the address keeps it even when its reserved address is another by now.
func (in *Input) renewing() Answer {
	a := in.Request.CIAddr
	if in.Elsewhere && !in.at(a).InUse {
		return in.moved(a)
	}
	if !in.Subnet.Prefix.Contains(a) {
		return drop("it uses " + a.String() + ", which is not of this subnet: another server may know it")
	}
	if f := in.at(a); f.InUse && (f.Lease.MAC == in.Request.MAC || in.ownerless(a)) {
		// Its row may be gone, by an operator's hand or from the time when
		// another server gave it: the volume that is open from there is its own.
		return in.ack(a)
	}
	if why := in.obstacle(a); why != "" {
		if in.ownerless(a) {
			return drop("it uses " + a.String() + ", which nobody was given here: another server may know it")
		}
		return in.nak(a, why)
	}
	switch {
	case in.knows(a):
		return in.ack(a)
	case !in.Client.Enrolled:
		// RFC 2131 §4.3.2: no record of this client, so silence. It asks anew when
		// its time is over.
		return drop("it uses " + a.String() + ", and there is no record of it")
	case in.Free.Address != a:
		return drop(in.Free.Reason)
	}
	// The word of a machine is taken as far as the pool allows: it runs on that
	// address, perhaps with its volume open.
	return in.ack(a)
}

// moved refuses an address of another network than the one that the client asks
// from (RFC 2131 §4.3.2): there it would wait for nothing until its lease ends. Who
// has his volume open from the address is on its network all the same, whatever the
// wire on which he was heard.
func (in *Input) moved(a netip.Addr) Answer {
	return in.nak(a, a.String()+" is of another subnet than "+in.Subnet.Prefix.String()+", where it asks now")
}

func (in *Input) ack(a netip.Addr) Answer {
	ans := Answer{Verdict: Ack, Address: a, Waiting: in.waiting()}
	ans.Lease = in.lease(a, store.LeaseBound, in.Subnet.LeaseTime)
	in.configure(&ans, true)
	e := in.event(store.EventDHCPRequest, a)
	e.Detail.Server = in.serverID().String()
	in.tell(&ans, e, store.EventDHCPAck)
	return ans
}

func (in *Input) nak(a netip.Addr, reason string) Answer {
	asked := in.event(store.EventDHCPRequest, a)
	asked.Detail.Server = in.serverID().String()
	refused := in.event(store.EventDHCPNak, a)
	refused.Detail.Reason = reason
	ans := Answer{Verdict: Nak, Withdraw: true, Reason: reason, Events: []store.Event{asked, refused}}
	ans.Options = dhcpv4.OptionsFromList(
		dhcpv4.OptMessageType(dhcpv4.MessageTypeNak),
		dhcpv4.OptServerIdentifier(in.serverID().AsSlice()),
		dhcpv4.OptMessage(reason),
	)
	in.echo(ans.Options)
	return ans
}

// decline sets an address aside that its client found to be in use (RFC 2131
// §4.3.3). Only who was given an address may say so of it, and of a few at a time
// (ledger.Turn.GiveBack): otherwise one client could empty the pool. Where the wire
// can be asked, its word is taken until the wire has spoken.
func (in *Input) decline() Answer {
	r := in.Request
	a := r.Requested
	if r.ServerID.IsValid() && r.ServerID != in.serverID() {
		return drop("it declines an address of another server")
	}
	if !a.IsValid() || in.Own.Address != a && in.Offered != a {
		return drop("it declines an address that it was not given")
	}
	e := in.event(store.EventDHCPDecline, a)
	e.Detail.Reason = "the machine found that somebody else uses " + a.String()
	for i, back := range in.GiveBack {
		if i == 0 {
			e.Detail.Reason += "; too many are set aside, so that there are given again: "
		} else {
			e.Detail.Reason += ", "
		}
		e.Detail.Reason += back.Address.String()
	}
	life, doubt := declineLife, netip.Addr{}
	if in.OnWire {
		life, doubt = doubtLife, a
	}
	return Answer{
		Withdraw: true, Reason: e.Detail.Reason, Events: []store.Event{e},
		Lease: in.lease(a, store.LeaseDeclined, life), GiveBack: in.GiveBack, Doubt: doubt,
	}
}

// release ends a lease early (RFC 2131 §4.3.4). The row stays, expired, so that
// the machine finds its address again. An address from which a volume is open
// is kept: an initramfs that lets go of its address still runs from it.
func (in *Input) release() Answer {
	r := in.Request
	a := r.CIAddr
	if r.ServerID.IsValid() && r.ServerID != in.serverID() {
		return drop("it releases an address of another server")
	}
	if !a.IsValid() || in.Own.Address != a || in.Own.State != store.LeaseBound {
		return drop("it releases an address that it does not hold")
	}
	e := in.event(store.EventDHCPRelease, a)
	if in.at(a).InUse {
		e.Detail.Reason = "its volume is open from there, so the address is kept"
		return Answer{Reason: e.Detail.Reason, Events: []store.Event{e}}
	}
	lease := in.Own
	lease.Expires, lease.Updated, lease.Network = in.Now, in.Now, in.Subnet.Prefix
	return Answer{Withdraw: true, Lease: lease, Events: []store.Event{e}}
}

// inform gives options to a client that has an address of its own (RFC 2131
// §4.3.5): no lease, no yiaddr, no times.
func (in *Input) inform() Answer {
	r := in.Request
	if a := r.CIAddr; a.IsValid() && !in.Subnet.Prefix.Contains(a) || !a.IsValid() && !r.GIAddr.IsValid() {
		return drop("it uses an address that is not of this subnet")
	}
	ans := Answer{Verdict: Ack}
	in.configure(&ans, false)
	ans.Events = nil
	return ans
}

// serverID is the server identifier: our address, or what the relay wants to be
// said instead, so that renewals pass through it (RFC 5107 §4).
func (in *Input) serverID() netip.Addr {
	if a := in.Request.Agent.Server; a.IsValid() {
		return a
	}
	return in.Interface.Address
}

// waiting reports whether this is an unknown machine that asks to boot.
func (in *Input) waiting() bool {
	return !in.Client.Enrolled && !in.Client.Ignored && in.Request.PXE()
}

// tell puts what was asked and what was answered before the events that an answer
// has. Those of one that nobody is told of are not made: a crowd's would be most of
// the work.
func (in *Input) tell(ans *Answer, asked store.Event, answered store.EventKind) {
	if !in.Untold {
		ans.Events = append([]store.Event{asked, in.told(answered, *ans)}, ans.Events...)
	}
}

// told makes the event of an answer that carries an address.
func (in *Input) told(kind store.EventKind, ans Answer) store.Event {
	e := in.event(kind, ans.Address)
	switch e.Detail.Loader = string(ans.Loader); {
	case ans.Loader == "" || strings.Contains(ans.BootFile, "://"):
		e.Detail.URL = ans.BootFile
	case ans.ServerAddr.IsValid():
		e.Detail.URL = "tftp://" + ans.ServerAddr.String() + "/" + ans.BootFile
	}
	if in.Request.PXE() && in.Subnet.Router.IsValid() && ans.Address.IsValid() {
		e.Detail.Router = in.Subnet.Router.String()
	}
	return e
}

// event makes an event about the request.
func (in *Input) event(kind store.EventKind, addr netip.Addr) store.Event {
	r := in.Request
	d := store.Detail{
		Interface: in.Interface.Name,
		Class:     r.Class,
		UserClass: r.UserClass,
		Proxy:     in.proxied(),
		IPXE:      r.IPXE,
		PXE:       r.PXE(),
		Hostname:  r.Hostname,
		Secs:      r.Secs,
		Port:      r.Agent.Switch.String(),
	}
	if r.GIAddr.IsValid() {
		d.Relay = r.GIAddr.String()
	}
	if r.PXE() {
		if p, ok := r.Platform(); ok {
			d.Firmware, d.Arch = p.Firmware.String(), p.Arch.String()
		} else {
			d.Arch = r.ArchName()
		}
	}
	return store.Event{At: in.Now, Kind: kind, MAC: r.MAC, Addr: addr, Machine: in.Client.Machine.ID, Detail: d}
}

// lease makes the lease that binds or offers addr to this client.
func (in *Input) lease(addr netip.Addr, state store.LeaseState, life time.Duration) store.Lease {
	r := in.Request
	l := store.Lease{
		Address: addr, MAC: r.MAC, ClientID: r.ClientID, Hostname: r.Hostname, Machine: in.Client.Machine.ID,
		Interface: in.Interface.Name, Relay: r.GIAddr, State: state, Expires: in.Now.Add(life), Updated: in.Now, Network: in.Subnet.Prefix,
	}
	switch l.Port = r.Agent.Switch.String(); {
	case l.Port != "":
		l.PortSeen = in.Now
	case in.Own.Address == addr:
		l.Port, l.PortSeen = in.Own.Port, in.Own.PortSeen
		if !r.GIAddr.IsValid() { // a renewal goes past the relay
			l.Relay = in.Own.Relay
		}
	}
	return l
}
