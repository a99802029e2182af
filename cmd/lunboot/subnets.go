package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"lunboot/services/inventory"
	"lunboot/store"
)

// acts is what an operator does, with the network told of what concerns it.
type acts struct {
	*inventory.Inventory
	a *appliance
}

// PutSubnet adds or changes a subnet, and serves it at once. What a flag set is
// refused with the flag's name; giving addresses beside another DHCP server is
// refused with that server's.
func (s acts) PutSubnet(ctx context.Context, by store.Actor, n store.Subnet) (store.Subnet, error) {
	all, err := s.a.db.Subnets(ctx)
	if err != nil {
		return n, err
	}
	var old store.Subnet
	if at := slices.IndexFunc(all, func(o store.Subnet) bool { return o.ID == n.ID }); at >= 0 {
		old = all[at]
	}
	if err := s.settle(&n); err != nil {
		return n, err
	}
	if err := n.Validate(); err != nil {
		return n, err
	}
	if n.ID == 0 && slices.ContainsFunc(all, func(o store.Subnet) bool { return key(o) == key(n) }) {
		return n, store.Conflict("prefix", "there is a subnet %s already; change it with: lunboot subnet set %s", n.Name(), n.Prefix)
	}
	if at := slices.IndexFunc(all, func(o store.Subnet) bool { return o.ID != n.ID && serveTogether(o, n) }); at >= 0 {
		o := all[at]
		return n, store.Conflict("interface", "%s serves %s already, in mode %s, and one subnet is all that an interface can serve: switch that one off first, with: lunboot subnet set %s --mode off", n.Interface, o.Prefix, o.Mode, o.Prefix)
	}
	if err := s.locked(old, n); err != nil {
		return n, err
	}
	begins := n.Mode == store.DHCPFull && (old.Mode != store.DHCPFull || key(old) != key(n))
	if begins && n.Interface != "" && !s.a.cmd.DHCPForce && s.a.cmd.DHCPListen == "" {
		if err := s.a.network.rival(ctx, n.Interface); err != nil { // last, since it takes seconds
			return n, &store.Error{Kind: store.KindConflict, Field: "mode", Msg: "no addresses are given", Err: err}
		}
	}
	n, err = s.Inventory.PutSubnet(ctx, by, n)
	if err == nil {
		s.a.network.changed()
	}
	return n, err
}

// DeleteSubnet removes a subnet, and ends to serve it.
func (s acts) DeleteSubnet(ctx context.Context, by store.Actor, id int64) error {
	all, err := s.a.db.Subnets(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if flag := s.flag(o); o.ID == id && flag != "" {
			return store.Conflict("subnet", "%s is set by %s; start the appliance without that flag to remove it", o.Name(), flag)
		}
	}
	if err := s.Inventory.DeleteSubnet(ctx, by, id); err != nil {
		return err
	}
	s.a.network.changed()
	return nil
}

// settle fills in what a new subnet was not given, and refuses one that the
// interface could not serve.
func (s acts) settle(n *store.Subnet) error {
	if n.LeaseTime == 0 {
		n.LeaseTime = defaultLease
	}
	if n.Interface == "" {
		if name := interfaceIn(n.Prefix); name != "" {
			return store.Invalid("interface", "%s is the network of %s itself; name that interface: --interface %s", n.Prefix, name, name)
		}
		return nil
	}
	have := addressesOf(n.Interface)
	if len(have) == 0 {
		return store.Invalid("interface", "%s has no IPv4 address here; give it one first, such as: ip address add 192.168.40.1/24 dev %s; without an interface, a subnet is behind a relay", n.Interface, n.Interface)
	}
	if !n.Prefix.IsValid() {
		n.Prefix = have[0].Masked()
		for _, p := range have {
			if p.Contains(n.Range.From) {
				n.Prefix = p.Masked()
			}
		}
	}
	if reaches(*n) {
		return nil
	}
	return store.Invalid("prefix", "%s has no address in %s, it has %s", n.Interface, n.Prefix, have[0])
}

// reaches reports whether we have an address in a subnet on its interface.
func reaches(n store.Subnet) bool {
	return slices.ContainsFunc(addressesOf(n.Interface), func(p netip.Prefix) bool { return n.Prefix.Contains(p.Addr()) })
}

// interfaceIn is an interface with an address in a network; empty for none.
func interfaceIn(network netip.Prefix) string {
	ifs, err := net.Interfaces()
	if err != nil || !network.IsValid() {
		return "" // what cannot be seen is not refused
	}
	for _, i := range ifs {
		if slices.ContainsFunc(addressesOf(i.Name), func(p netip.Prefix) bool { return network.Contains(p.Addr()) }) {
			return i.Name
		}
	}
	return ""
}

// flag names the flag that a subnet comes from; empty when it is the operator's
// own.
func (s acts) flag(n store.Subnet) string {
	c := s.a.cmd
	named := n.Interface != "" && slices.Contains(c.Interface, n.Interface)
	switch {
	case !named || len(addressesOf(n.Interface)) > 0 && !reaches(n):
		return "" // of a network that the interface has left, no flag speaks
	case s.a.set.rng.From.IsValid() && n.Range == s.a.set.rng:
		return "--dhcp-range"
	case c.DHCP == "full" || c.DHCP == "proxy":
		return "--dhcp " + c.DHCP
	}
	return ""
}

// locked refuses to change what a flag set.
func (s acts) locked(old, n store.Subnet) error {
	c, flag := s.a.cmd, s.flag(old)
	var errs []error
	lock := func(field, what, flag string) {
		errs = append(errs, store.Conflict(field, "%s is set by %s; start the appliance without that flag to change it here", what, flag))
	}
	if c.DHCP == "off" && n.Mode != old.Mode && n.Mode != store.DHCPOff {
		lock("mode", "the part in DHCP", "--dhcp off")
	}
	if s.a.set.advertise.IsValid() && n.NextServer != old.NextServer {
		lock("next_server", "the address that machines are told", "--advertise")
	}
	if flag != "" {
		if n.Mode != old.Mode {
			lock("mode", "the mode of "+old.Name(), flag)
		}
		if n.Range != old.Range && old.Range == s.a.set.rng {
			lock("range", "the range of "+old.Name(), "--dhcp-range")
		}
		if key(n) != key(old) {
			lock("prefix", old.Name(), flag)
		}
	}
	return errors.Join(errs...)
}
