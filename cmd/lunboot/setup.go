package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"lunboot/store"
	"lunboot/web/pages"
)

// setup is the first run: it looks without sending, and acts once confirmed.
type setup struct{ a *appliance }

// Facts lists what can be seen without sending anything.
func (s setup) Facts(ctx context.Context) pages.SetupFacts {
	f := pages.SetupFacts{DataDir: s.a.dir}
	if free, err := s.a.pool.Free(); err == nil {
		f.Free = free
	}
	links, err := networks(s).Links(ctx)
	if err != nil {
		s.a.log.Warn("list the network interfaces", "error", err)
	}
	for _, l := range links {
		if l.Up && len(l.Addresses) > 0 {
			f.Interfaces = append(f.Interfaces, l)
		}
	}
	for _, p := range []struct {
		name string
		addr netip.AddrPort
	}{{"Scripts (HTTP)", s.a.boot.Addr()}, {"Loaders (TFTP)", s.a.tftp.Addr()}, {"Volumes (iSCSI)", s.a.target.Addr()}} {
		f.Ports = append(f.Ports, pages.SetupPort{Name: p.name, Port: fmt.Sprint(p.addr.Port())})
	}
	f.Loaders = s.a.loaders.Missing()
	switch {
	case s.a.cmd.DHCP == "off":
		f.Locked = "--dhcp off"
	case s.a.cmd.DHCP == "proxy":
		f.Locked = "--dhcp proxy"
	case s.a.set.rng.From.IsValid():
		f.Locked = "--dhcp-range " + s.a.set.rng.String()
	}
	return f
}

// Confirm acts on the operator's choices.
func (s setup) Confirm(ctx context.Context, by store.Actor, choices []pages.SetupChoice) error {
	if s.a.cmd.DHCP == "off" || s.a.cmd.DHCP == "proxy" || s.a.set.rng.From.IsValid() {
		return nil // the flags decide
	}
	for _, c := range choices {
		if err := s.a.network.choose(ctx, by, c.Interface, c.Mode, c.Range); err != nil {
			return err
		}
	}
	return nil
}

// defaultInterface is the index of the interface with the default route, 0 when
// there is none.
func defaultInterface() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0
	}
	for _, r := range routes {
		if r.Gw != nil && (r.Dst == nil || r.Dst.IP.IsUnspecified()) {
			return r.LinkIndex
		}
	}
	return 0
}

// proposeRange proposes the upper half of our network, 200 addresses at most,
// without our own and the broadcast address.
func proposeRange(p netip.Prefix) store.Range {
	if p.Bits() > 28 || p.Bits() < 8 {
		return store.Range{} // too small to share, or no network of one lab
	}
	first := binary.BigEndian.Uint32(p.Masked().Addr().AsSlice())
	size := uint32(1) << (32 - p.Bits())
	from, to := first+size/2, first+size-2
	to = min(to, from+199)
	own := binary.BigEndian.Uint32(p.Addr().AsSlice())
	if own >= from && own <= to {
		if own-from > to-own {
			to = own - 1
		} else {
			from = own + 1
		}
	}
	return store.Range{From: addrOf(from), To: addrOf(to)}
}

func addrOf(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
