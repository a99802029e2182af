package dhcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/time/rate"

	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/sockets"
	"lunboot/store"
)

// networks are the subnets that one server answers for.
type networks struct {
	own     store.Subnet   // of those who ask directly; off when they are not answered
	relayed []store.Subnet // of those who ask through a relay, or who were given an address through one
}

// serves reports whether those who ask from a subnet are answered.
func serves(s store.Subnet) bool { return s.Mode == store.DHCPFull || s.Mode == store.DHCPProxy }

// gives reports whether addresses are given on a subnet.
func gives(s store.Subnet) bool { return s.Mode == store.DHCPFull }

// of chooses the subnet that a request is answered from. A relay names it by
// its link selection (RFC 3527 §3), else by giaddr (RFC 2131 §4.3.1). A client
// that was given an address through a relay speaks to us past it when it renews
// (RFC 2131 §4.4.5): a unicast request with a ciaddr belongs to the subnet that
// holds it. Everybody else is on our own wire.
func (n *networks) of(r message.Request, unicast bool) (*store.Subnet, bool) {
	at := r.GIAddr
	if at.IsValid() && r.Agent.Link.IsValid() {
		at = r.Agent.Link
	}
	relayed := at.IsValid()
	if !relayed && unicast {
		at = r.CIAddr
	}
	if at.IsValid() {
		if serves(n.own) && n.own.Prefix.Contains(at) {
			return &n.own, true
		}
		for i := range n.relayed {
			if s := &n.relayed[i]; serves(*s) && s.Prefix.Contains(at) {
				return s, true
			}
		}
	}
	return &n.own, serves(n.own) && !relayed
}

// holds reports whether an address lies in one of the subnets.
func (n networks) holds(a netip.Addr) bool {
	if gives(n.own) && n.own.Prefix.Contains(a) {
		return true
	}
	for _, s := range n.relayed {
		if gives(s) && s.Prefix.Contains(a) {
			return true
		}
	}
	return false
}

// place is where a request came in, and what it is answered from.
type place struct {
	link       Interface
	subnet     *store.Subnet // one of the server's, for reading
	told       netip.Addr    // our address as the client is told it
	past       bool          // from a client of a relayed subnet that spoke past its relay
	bootServer bool          // it came in on the port of boot servers
	otherRelay bool          // it names another relay that speaks for us
	routed     bool          // the answer goes to somebody behind a router
}

// place finds the place of a request that was sent to an address of ours, or,
// when to is none of those, to everybody. It is false for a request that
// nothing is given to.
func (s *Server) place(r message.Request, to netip.Addr) (place, bool) {
	return s.placeBy(r, to, s.source)
}

// dryPlace is place for a request that nobody made: nothing is logged or remembered.
func (s *Server) dryPlace(r message.Request) (place, bool) {
	return s.placeBy(r, netip.Addr{}, func(to, reached netip.Addr) netip.Addr {
		a, _, _ := s.routeTo(to, reached)
		return a
	})
}

func (s *Server) placeBy(r message.Request, to netip.Addr, source func(to, reached netip.Addr) netip.Addr) (place, bool) {
	to, unicast := s.ours(to)
	subnet, ok := s.networks.of(r, unicast)
	if !ok {
		return place{}, false
	}
	p := place{link: *s.link.Load(), subnet: subnet}
	p.told = p.link.Address
	if a := r.Agent.Server; a.IsValid() && r.GIAddr.IsValid() {
		s.namesakes.put(a, struct{}{})
		_, p.otherRelay = s.namesakes.get(r.ServerID)
		p.otherRelay = p.otherRelay && r.ServerID != a
	}
	id, named := s.ours(r.ServerID)
	if named {
		p.link.Address = id // it was offered an address by this name, perhaps through another interface
	}
	if client := r.GIAddr; client.IsValid() || subnet.Prefix != s.networks.own.Prefix {
		if !client.IsValid() {
			client, p.past = r.CIAddr, true
		}
		if unicast && !named {
			p.link.Address = to // the relay knows us by the address that it reached
		}
		p.routed = !s.bound
		p.link.MTU = 0 // that of our wire says nothing of theirs
		p.told = source(client, p.link.Address)
	}
	switch { // a flag beats the database
	case s.cfg.Advertise.IsValid():
		p.told = s.cfg.Advertise
	case subnet.NextServer.IsValid():
		p.told = subnet.NextServer
	}
	return p, true
}

// ours returns a when it is an address of this appliance.
func (s *Server) ours(a netip.Addr) (netip.Addr, bool) {
	local := s.local.Load()
	if local == nil || !(*local)[a] {
		return netip.Addr{}, false
	}
	return a, true
}

// localAddresses lists our IPv4 addresses on all interfaces: a relay may reach
// one through another interface than its own.
func localAddresses() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this appliance: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is4() {
				out[ip.Unmap()] = true
			}
		}
	}
	return out, nil
}

// way is the source of the route to somewhere as it was a moment ago.
type way struct {
	source netip.Addr
	at     time.Time
}

// source is our address as somebody behind a router reaches it: the one from
// which we would send to them. Without a route it is the one that was reached.
func (s *Server) source(to, reached netip.Addr) netip.Addr {
	a, fresh, err := s.routeTo(to, reached)
	if err != nil {
		s.cfg.Log.Warn("there is no route to a relay", "relay", to, "error", err)
	}
	if fresh {
		s.routes.put(to, way{a, s.cfg.Now()})
	}
	return a
}

// routeTo looks that up; fresh when the kernel was asked just now.
func (s *Server) routeTo(to, reached netip.Addr) (a netip.Addr, fresh bool, err error) {
	if s.bound {
		return reached, false, nil
	}
	if r, ok := s.routes.get(to); ok && s.cfg.Now().Sub(r.at) < linkInterval {
		return r.source, false, nil
	}
	if a, err = sockets.SourceTo(to); err != nil {
		a = reached
	}
	return a, true, err
}

// How often a relay of an unknown subnet is told of: in the log each relay, in
// the inventory each MAC, and all of them together a second.
const (
	strangeInterval = 10 * time.Minute
	lostEvery       = 30 * time.Second
	lostRate        = rate.Limit(10)
	lostBurst       = 100
)

// unserved counts a request that nothing is given to, and tells of the relay
// that it came through: nobody else would see why its machines get no answer.
func (s *Server) unserved(ctx context.Context, r message.Request, now time.Time) error {
	s.counters.unserved.Add(1)
	if !r.GIAddr.IsValid() {
		return nil
	}
	at := r.GIAddr
	if r.Agent.Link.IsValid() {
		at = r.Agent.Link
	}
	if last, ok := s.strange.get(at); !ok || now.Sub(last) >= strangeInterval {
		s.strange.put(at, now)
		s.cfg.Log.Warn("a relay asks for a subnet that is not served here; make it known with: lunboot subnet add", "relay", r.GIAddr, "subnet of", at, "mac", r.MAC)
	}
	if r.Type != dhcpv4.MessageTypeDiscover || !r.PXE() {
		return nil
	}
	if last, ok := s.lost.get(r.MAC); ok && now.Sub(last) < lostEvery || !s.telling.AllowN(now, 1) {
		return nil
	}
	s.lost.put(r.MAC, now)
	t, err := s.ledger.Begin(ctx, now)
	if err != nil {
		return err
	}
	in := Input{Now: now, Request: r, Interface: *s.link.Load(), Client: clientOf(t, r.MAC)}
	t.End()
	e := in.event(store.EventDHCPNoSubnet, netip.Addr{})
	e.Detail.Reason = "no subnet that is served here holds " + at.String()
	s.cfg.Emit.Emit(in.event(store.EventDHCPDiscover, netip.Addr{}))
	s.cfg.Emit.Emit(e)
	if in.waiting() {
		s.report(r, Answer{}, now)
	}
	return nil
}
