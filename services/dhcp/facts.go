package dhcp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/boot"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// gather collects the facts about one request, those about addresses in the map.
func (s *Server) gather(t ledger.Turn, r message.Request, at place, now time.Time, addresses map[netip.Addr]Address) Input {
	in := s.gatherBoot(t, r, at, now)
	in.Own, in.Offered, in.Addresses = t.Own(r.MAC, at.subnet.Prefix), t.Offered(r.MAC, at.subnet.Prefix), addresses
	for _, a := range [...]netip.Addr{r.Requested, r.CIAddr, in.Own.Address, in.Offered, in.reserved()} {
		if in.Subnet.Prefix.Contains(a) {
			in.Addresses[a] = s.address(t, a, in)
		}
	}
	if a := r.Named(); a.IsValid() && !in.Subnet.Prefix.Contains(a) && s.networks.holds(a) {
		in.Elsewhere, in.Addresses[a] = true, s.address(t, a, in)
	}
	if hint, needed := in.needsFree(); needed {
		in.Free.Address, in.Free.Reason = t.Pick(ledger.Want{
			Subnet: at.subnet, Hint: hint, Stranger: in.stranger(), Enrolled: in.Client.Enrolled,
			Aside: s.aside(in), Quiet: s.quiet, Ahead: survey.Ahead,
		})
		if a := in.Free.Address; a.IsValid() {
			in.Addresses[a] = s.address(t, a, in)
		}
	}
	in.OnWire = s.wire.Asks() && !r.GIAddr.IsValid() && in.Subnet.Prefix == s.networks.own.Prefix
	if a := r.Requested; r.Type == dhcpv4.MessageTypeDecline && a.IsValid() {
		in.GiveBack = t.GiveBack(r.MAC, at.subnet, a)
	}
	return in
}

// settled chooses among the architectures that a client names the first that there
// is a loader for.
func (s *Server) settled(r message.Request) message.Request {
	return r.Settled(func(p boot.Platform) bool {
		return s.cfg.Loaders.Next(boot.HardwareOf(r.MAC, p.Firmware.String(), p.Arch.String(), r.Class), "").Loader != ""
	})
}

// stranger reports whether the client is not enrolled and never held a lease
// here.
func (in *Input) stranger() bool { return !in.Client.Enrolled && !in.Own.Address.IsValid() }

// needsFree reports whether the pool is asked, and for what first.
func (in *Input) needsFree() (hint netip.Addr, needed bool) {
	r := in.Request
	switch r.Type {
	case dhcpv4.MessageTypeDiscover:
		if in.known().IsValid() {
			return netip.Addr{}, false
		}
		if a := in.Own.Address; a.IsValid() && in.obstacle(a) == "" {
			return a, true
		}
		return r.Requested, true
	case dhcpv4.MessageTypeRequest:
		a := r.Named()
		return a, a.IsValid() && !in.knows(a) && in.obstacle(a) == ""
	}
	return netip.Addr{}, false
}

// clientOf looks a MAC up among the machines.
func clientOf(t ledger.Turn, mac store.MAC) Client {
	m, ignored := t.Client(mac)
	if m != nil {
		return Client{Machine: *m, Enrolled: true}
	}
	return Client{Ignored: ignored}
}

// address collects the facts about one address.
func (s *Server) address(t ledger.Turn, a netip.Addr, in Input) Address {
	f := Address{Facts: t.Address(a), Appliance: s.appliance(in, a)}
	// A machine that answers for the address that it had is no stranger to it,
	// whichever of its cards does.
	check, answered := s.wire.Checked(a)
	if i := slices.IndexFunc(answered, func(by store.MAC) bool { return by != in.Request.MAC && !slices.Contains(in.Client.Machine.MACs, by) }); i >= 0 {
		f.By = answered[i]
	}
	f.Due, f.Conflict = s.wire.Due(a), check == survey.Taken && !f.By.IsZero()
	return f
}

// appliance reports whether an address is one of ours, the router's or the
// relay's.
func (s *Server) appliance(in Input, a netip.Addr) bool {
	_, ours := s.ours(a)
	fixed := in.fixtures()
	return ours || slices.Contains(fixed[:], a)
}

// fixtures are the addresses of what makes up the network. A relay may have two:
// the one that it sends from and, where it selects the link or would be named as
// the server, one on the client's side (RFC 3527 §3, RFC 5107 §4).
func (in *Input) fixtures() [5]netip.Addr {
	r := in.Request
	return [...]netip.Addr{in.Interface.Address, in.Subnet.Router, r.GIAddr, r.Agent.Link, r.Agent.Server}
}

// aside lists the addresses of the subnet that are not to be given: ours, the
// router's, the relay's, and those for which somebody answered on the wire.
func (s *Server) aside(in Input) []netip.Addr {
	fixed := in.fixtures()
	some := append(s.wire.Taken(), fixed[:]...)
	if local := s.local.Load(); local != nil {
		for a := range *local {
			if in.Subnet.Prefix.Contains(a) {
				some = append(some, a)
			}
		}
	}
	return some
}

func (s *Server) quiet(a netip.Addr) bool {
	c, _ := s.wire.Checked(a)
	return c == survey.Quiet
}

// chain is when an iPXE was sent to our loader, and in which exchange.
type chain struct {
	xid uint32
	at  time.Time
}

// Times of the chain: how long an attempt is, and how long one exchange may
// repeat its REQUEST and get the same answer.
const (
	chainLife   = 2 * time.Minute
	chainRepeat = 5 * time.Second
)

func (s *Server) wasChained(r message.Request, now time.Time) bool {
	c, ok := s.chained.get(r.MAC)
	age := now.Sub(c.at)
	return ok && age < chainLife && !(c.xid == r.XID && age < chainRepeat)
}

// Next returns the addresses that our own subnet would give next
// (survey.Range): the wire can be asked for no others.
func (s *Server) Next(ctx context.Context) ([]netip.Addr, error) {
	t, err := s.ledger.Begin(ctx, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	defer t.End()
	in := Input{Interface: *s.link.Load(), Subnet: s.networks.own}
	return t.Next(&s.networks.own, s.aside(in), survey.Ahead), nil
}

// Holds reports whether a MAC was given an address (survey.Range).
func (s *Server) Holds(ctx context.Context, a netip.Addr, mac store.MAC) bool {
	t, err := s.ledger.Begin(ctx, s.cfg.Now())
	if err != nil {
		return false
	}
	defer t.End()
	return t.Address(a).Lease.MAC == mac
}

// Asked takes the wire's word on an address that a client declined, or that is
// reserved and was offered (survey.Range). Silence says nothing more: the client's
// own word counts for a minute.
func (s *Server) Asked(ctx context.Context, a netip.Addr, answered []store.MAC) {
	now := s.cfg.Now()
	t, err := s.ledger.Begin(ctx, now)
	if err != nil {
		return // the next decision fails likewise, and says so
	}
	l, ok := t.Declined(a)
	if !ok {
		s.reservedAsked(t, a, answered, now)
	}
	t.End()
	if !ok {
		return
	}
	e := store.Event{At: now, Kind: store.EventDHCPConflict, MAC: l.MAC, Addr: a, Machine: l.Machine, Detail: store.Detail{Interface: s.cfg.Interface}}
	var by store.MAC
	if i := slices.IndexFunc(answered, func(m store.MAC) bool { return m != l.MAC }); i >= 0 {
		by = answered[i]
	}
	if by.IsZero() {
		e.Detail.Reason = "nobody else on the wire answers for " + a.String()
	} else {
		e.Detail.Server, e.Detail.Reason = by.String(), by.String()+" answers for "+a.String()
		l.Expires, l.Updated = now.Add(declineLife), now
		if err := s.ledger.Put(ctx, l); err != nil {
			s.cfg.Log.Error("an address that somebody else uses was not set aside", "address", a, "mac", by, "error", err)
			return
		}
	}
	if l.Machine != 0 || s.audience.hears(l.MAC, now) {
		s.cfg.Emit.Emit(e)
	}
}

// reservedAsked tells what the wire said of an address that is reserved for a machine
// which asks to boot: that a stranger answers for it, when the machine was just offered
// or given it (it has it all the same this time, and another one at its next boot);
// that nobody does any more, when it was given another for that.
func (s *Server) reservedAsked(t ledger.Turn, a netip.Addr, answered []store.MAC, now time.Time) {
	m := t.Owner(a)
	if m == nil {
		return
	}
	mac, got := s.has(t, m, now)
	i := slices.IndexFunc(answered, func(by store.MAC) bool { return !slices.Contains(m.MACs, by) })
	e := store.Event{At: now, Kind: store.EventDHCPConflict, MAC: mac, Addr: a, Machine: m.ID, Detail: store.Detail{Interface: s.cfg.Interface}}
	switch {
	case i >= 0 && got == a:
		e.Detail.Server, e.Detail.Reason = answered[i].String(), answersFor(answered[i], a, m.Name)
	case i < 0 && got.IsValid() && got != a:
		e.Detail.Reason = "nobody else on the wire answers for " + a.String() + " any more; " + m.Name + " is given it when it asks next"
	default:
		return
	}
	s.cfg.Emit.Emit(e)
}

// has returns what a machine was offered in our own subnet, or else holds there, and
// which of its cards.
func (s *Server) has(t ledger.Turn, m *store.Machine, now time.Time) (store.MAC, netip.Addr) {
	for _, mac := range m.MACs {
		if a := t.Offered(mac, s.networks.own.Prefix); a.IsValid() {
			return mac, a
		}
	}
	for _, mac := range m.MACs {
		if own := t.Own(mac, s.networks.own.Prefix); own.Expires.After(now) {
			return mac, own.Address
		}
	}
	return store.MAC{}, netip.Addr{}
}
