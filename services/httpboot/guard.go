package httpboot

import (
	"context"
	"net"
	"net/netip"

	"lunboot/store"
)

// allowed says whether addr may have a script of m that carries a password, and
// if not, why in one sentence.
func (s *Server) allowed(ctx context.Context, m store.Machine, addr, local netip.Addr) (ok bool, why string) {
	switch s.cfg.Guard {
	case GuardOff:
		return true, ""
	case GuardSubnet:
		if onLink(addr, local) {
			return true, ""
		}
	}
	for _, mac := range m.MACs {
		if ok, _ := s.cfg.Evidence.Owns(ctx, addr, mac); ok {
			return true, ""
		}
	}
	if _, trusted := s.network(ctx, addr); trusted {
		return true, ""
	}
	which := "one of its MAC addresses holds"
	if len(m.MACs) == 1 {
		which = "its MAC address " + m.MACs[0].String() + " holds"
	}
	return false, "Nothing shows that " + which + " the address " + addr.String() + ", from which the script was asked for."
}

// network is the one that addr is in, and whether it is trusted. What cannot be
// read is not trusted.
func (s *Server) network(ctx context.Context, addr netip.Addr) (netip.Prefix, bool) {
	if s.cfg.Networks == nil {
		return netip.Prefix{}, false
	}
	p, trusted, err := s.cfg.Networks.Network(ctx, addr)
	if err != nil {
		s.cfg.Log.Error("the networks that are trusted cannot be read", "error", err)
		return netip.Prefix{}, false
	}
	return p, trusted
}

// routed is the network of an address behind a router, from which nobody's MAC
// can be seen; empty for one on a network of ours.
func (s *Server) routed(ctx context.Context, addr, local netip.Addr) string {
	if p, _ := s.network(ctx, addr); p.IsValid() && !onLink(addr, local) {
		return p.String()
	}
	return ""
}

// onLink reports whether addr lies in the subnet of the interface that holds
// local.
func onLink(addr, local netip.Addr) bool {
	ifaces, err := net.Interfaces()
	if err != nil {
		return false
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Unmap() == local && p.Masked().Contains(addr) {
				return true
			}
		}
	}
	return false
}
