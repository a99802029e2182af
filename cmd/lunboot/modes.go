package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// defaultLease is how long an address is given for.
const defaultLease = 4 * time.Hour

// fromFlags writes the subnets that the flags describe into the inventory.
func (n *network) fromFlags(ctx context.Context) error {
	c := n.a.cmd
	if c.DHCP == "off" {
		return nil
	}
	if err := n.renumber(ctx, c.Interface...); err != nil {
		return err
	}
	for _, name := range c.Interface {
		if err := n.settle(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// settle writes the subnet of one interface that a flag names. An interface that has
// no address yet, or that --dhcp auto cannot ask yet, is kept for later.
func (n *network) settle(ctx context.Context, name string) error {
	subnet, err := subnetOf(name, n.a.set.rng)
	if err != nil {
		why, failed := n.expected(ctx, name, err)
		if failed != nil {
			return failed
		}
		n.wait(name, n.undone(name), why)
		return nil
	}
	known, err := n.known(ctx, subnet)
	if err != nil {
		return err
	}
	if !subnet.Range.From.IsValid() {
		subnet.Range = known.Range
	}
	if subnet.Mode, err = n.mode(ctx, subnet, known); err != nil {
		return err
	}
	if subnet.Mode == store.DHCPOff && known.ID == 0 {
		if !n.waiting[name] {
			n.a.log.Info("no DHCP server answers there, and no range was chosen to give addresses from", "interface", name)
		}
		return nil
	}
	_, err = n.put(ctx, store.ActorFlag, subnet)
	return err
}

// expected says why an interface is waited for that has no address where a flag asks
// for one: nobody gave it any yet, or its part was settled before. Whatever else is a
// slip of the operator's, who is told at once: it fails.
func (n *network) expected(ctx context.Context, name string, err error) (why, failed error) {
	have, failed := n.a.db.Subnets(ctx)
	if failed != nil {
		return nil, failed
	}
	rng := n.a.set.rng
	at := slices.IndexFunc(have, func(s store.Subnet) bool {
		return s.Interface == name && s.Mode != store.DHCPOff && (!rng.From.IsValid() || s.Range == rng)
	})
	switch {
	case at >= 0:
		return cmp.Or(n.away(have[at]), err), nil
	case len(addressesOf(name)) == 0, n.a.cmd.DHCP == "auto" && !rng.From.IsValid():
		return err, nil
	}
	return nil, err
}

// wait keeps an interface for later: what part to take there could not be settled.
func (n *network) wait(name, what string, why error) {
	n.waits(name, what+why.Error(), why)
	n.waiting[name] = true
}

// undone is what does not happen on an interface while what the flags say of it cannot
// be settled.
func (n *network) undone(name string) string {
	switch {
	case n.a.cmd.DHCP == "proxy":
		return untold(name)
	case n.a.cmd.DHCP == "full", n.a.set.rng.From.IsValid():
		return ungiven(name)
	}
	return unasked(name)
}

func unasked(name string) string {
	return "DHCP is not answered on " + name + " until it can be asked who else does: "
}

// cannotServe says that a subnet which was chosen is not served now, and why.
func (n *network) cannotServe(s store.Subnet, why error) {
	text := ungiven(s.Interface)
	if s.Mode == store.DHCPProxy {
		text = untold(s.Interface)
	}
	n.waits(s.Interface, text+why.Error(), why)
}

func ungiven(name string) string { return "No addresses are given on " + name + ": " }

func untold(name string) string { return "Machines are not told what to boot on " + name + ": " }

// waits tells once of an interface on which nobody is answered.
func (n *network) waits(name, text string, why error) {
	if n.a.trouble(name) != text {
		n.a.log.Warn("nobody is answered", "interface", name, "reason", why)
	}
	n.a.banner("dhcp "+name, text)
}

// away says why a subnet that was chosen cannot be served yet: its interface has no
// address in it. A box often starts before its network does.
func (n *network) away(s store.Subnet) error {
	if s.Interface == "" || s.Mode == store.DHCPOff || n.a.cmd.DHCPListen != "" || reaches(s) {
		return nil
	}
	if _, err := net.InterfaceByName(s.Interface); err != nil {
		return store.Invalid("interface", "there is no interface %s yet; the interfaces are %s", s.Interface, interfaceNames())
	}
	return store.Invalid("interface", "%s has no address in %s yet; give it one: ip address add %s dev %s", s.Interface, s.Prefix, ownIn(s), s.Interface)
}

// ownIn is an address that we might have in a subnet: its first that is not given to
// machines and is not the router's.
func ownIn(s store.Subnet) netip.Prefix {
	a := s.Prefix.Masked().Addr().Next()
	for s.Range.Contains(a) || a == s.Router {
		if s.Range.Contains(a) {
			a = s.Range.To // which may be millions away
		}
		a = a.Next()
	}
	if !s.Prefix.Contains(a.Next()) {
		a = s.Prefix.Masked().Addr().Next() // all is given away: one of them then
	}
	return netip.PrefixFrom(a, s.Prefix.Bits())
}

// arrived reports whether an interface that is waited for has other addresses than at
// the last look.
func (n *network) arrived() (changed bool) {
	now := map[string]string{}
	for _, names := range []map[string]bool{n.waiting, n.deaf} {
		for name := range names {
			now[name] = fmt.Sprint(addressesOf(name))
			changed = changed || now[name] != n.had[name]
		}
	}
	n.had = now
	return changed
}

// settleWaiting tries again what could not be settled when the appliance started.
func (n *network) settleWaiting(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(n.waiting)) {
		delete(n.waiting, name)
		if err := n.settle(ctx, name); err != nil {
			n.wait(name, n.undone(name), err)
		}
		if !n.waiting[name] {
			n.a.banner("dhcp "+name, "")
		}
	}
}

// Looks at an interface whose network is gone before the subnet follows it to its
// new one: while an address is renewed, the interface may have none of them, or
// another one alone.
const looks = 2

// renumber lets the subnets in proxy mode follow their interfaces: who gives the
// addresses there decides what network it is. A subnet whose addresses are given
// from here stays what it is, and cannot be served. On the interfaces atOnce one look
// is enough: a flag names them, and has what they reach now served.
func (n *network) renumber(ctx context.Context, atOnce ...string) error {
	all, err := n.a.db.Subnets(ctx)
	if err != nil {
		return err
	}
	gone := map[int64]int{}
	for _, s := range all {
		have := addressesOf(s.Interface)
		if s.Mode != store.DHCPProxy || len(have) == 0 || reaches(s) {
			continue
		}
		if gone[s.ID] = n.gone[s.ID] + 1; gone[s.ID] < looks && !slices.Contains(atOnce, s.Interface) {
			continue
		}
		n.a.log.Info("the network of an interface has changed; the other server there decides about it, so the subnet follows", "interface", s.Interface, "was", s.Prefix, "is", have[0].Masked())
		was := s.ID
		if at := slices.IndexFunc(all, func(o store.Subnet) bool { return o.Interface == s.Interface && o.Prefix == have[0].Masked() }); at >= 0 {
			s = all[at] // it was there before
		}
		s.Prefix, s.Mode = have[0].Masked(), store.DHCPProxy
		if s.ID == was {
			s.Range, s.Router, s.NextServer = store.Range{}, netip.Addr{}, netip.Addr{} // of the network that is gone
		} else if err := n.a.db.DeleteSubnet(ctx, store.ActorSystem, was); err != nil {
			return err
		}
		if _, err := n.a.db.PutSubnet(ctx, store.ActorSystem, s); err != nil {
			return err
		}
	}
	n.gone = gone
	return nil
}

// mode settles the mode of a subnet that a flag names, known as the inventory
// has it. A subnet that was served before is not asked about first: machines
// that run from their volumes wait for this start. Serve asks soon after. What
// auto settled once stays: a server that is away for a while comes back.
func (n *network) mode(ctx context.Context, s, known store.Subnet) (store.DHCPMode, error) {
	c := n.a.cmd
	alone := store.DHCPOff
	if s.Range.From.IsValid() {
		alone = store.DHCPFull
	}
	switch {
	case c.DHCP == "proxy":
		return store.DHCPProxy, nil
	case c.DHCP == "full" && (known.Mode == store.DHCPFull && known.Range == s.Range || c.DHCPForce || c.DHCPListen != ""):
		return store.DHCPFull, nil
	case c.DHCPForce || c.DHCPListen != "":
		return alone, nil
	case c.DHCP == "auto" && (known.Mode == store.DHCPFull && known.Range == s.Range || known.Mode == store.DHCPProxy):
		return known.Mode, nil
	case c.DHCP == "auto" && known.ID != 0 && known.Mode == store.DHCPOff && !n.a.set.rng.From.IsValid():
		return store.DHCPOff, nil // somebody chose that, on a page
	}
	err := n.rival(ctx, s.Interface)
	switch {
	case err == nil:
		return alone, nil
	case c.DHCP == "full":
		return "", fmt.Errorf("--dhcp full: %w", err)
	case errors.Is(err, errOtherServer):
		n.a.log.Info("another DHCP server gives the addresses; this appliance says what to boot", "interface", s.Interface, "reason", err)
		return store.DHCPProxy, nil
	}
	n.wait(s.Interface, unasked(s.Interface), err)
	return store.DHCPOff, nil
}

// known returns a subnet as the inventory has it; the zero Subnet when it has
// not.
func (n *network) known(ctx context.Context, s store.Subnet) (store.Subnet, error) {
	have, err := n.a.db.Subnets(ctx)
	if at := slices.IndexFunc(have, func(h store.Subnet) bool { return key(h) == key(s) }); at >= 0 {
		return have[at], err
	}
	return store.Subnet{}, err
}

// put writes a subnet when it differs from what is there. An interface serves one
// subnet: another one that it served is switched off.
func (n *network) put(ctx context.Context, by store.Actor, s store.Subnet) (store.Subnet, error) {
	have, err := n.a.db.Subnets(ctx)
	if err != nil {
		return s, err
	}
	for _, h := range have {
		if serveTogether(h, s) {
			h.Mode = store.DHCPOff // its range stays for the day it is wanted again
			if _, err := n.a.db.PutSubnet(ctx, by, h); err != nil {
				return s, err
			}
		}
	}
	for _, h := range have {
		if key(h) != key(s) {
			continue
		}
		if h.Mode == s.Mode && h.Range == s.Range {
			return h, nil
		}
		h.Mode, h.Range = s.Mode, s.Range
		s = h
	}
	return n.a.db.PutSubnet(ctx, by, s)
}

// serveTogether reports whether two subnets would be served on one interface: who
// asks there directly does not say which he means, and one of them would answer all.
func serveTogether(a, b store.Subnet) bool {
	return a.Interface != "" && a.Interface == b.Interface && a.Prefix != b.Prefix && a.Mode != store.DHCPOff && b.Mode != store.DHCPOff
}

// errOtherServer marks a network where somebody else gives addresses.
var errOtherServer = errors.New("another DHCP server answers there")

// otherServer asks an interface who answers DHCP; nil means nobody.
func otherServer(ctx context.Context, name string) error {
	heard, err := survey.Another(ctx, name)
	if err != nil {
		return err
	}
	var who []string
	for _, o := range (store.Survey{Heard: heard}).Others() {
		who = append(who, o.String())
	}
	if len(who) == 0 {
		return nil
	}
	return fmt.Errorf("%w, on %s: %s; turn it off there, leave the addresses to it with --dhcp proxy, or add --dhcp-force", errOtherServer, name, strings.Join(who, ", "))
}

// subnetOf finds our network on an interface that holds the range; the first
// one for the zero Range.
func subnetOf(name string, rng store.Range) (store.Subnet, error) {
	for _, p := range addressesOf(name) {
		if !rng.From.IsValid() || p.Masked().Contains(rng.From) && p.Masked().Contains(rng.To) {
			return store.Subnet{Interface: name, Prefix: p.Masked(), Mode: store.DHCPFull, Range: rng, LeaseTime: defaultLease}, nil
		}
	}
	have := addressesOf(name)
	if len(have) == 0 && rng.From.IsValid() {
		example := ownIn(store.Subnet{Prefix: netip.PrefixFrom(rng.From, 24), Range: rng})
		return store.Subnet{}, store.Invalid("interface", "%s has no IPv4 address yet, and needs one of the network that the range %s is in; give it one, such as: ip address add %s dev %s", name, rng, example, name)
	}
	if len(have) == 0 {
		return store.Subnet{}, store.Invalid("interface", "%s has no IPv4 address yet; give it one, such as: ip address add 192.168.40.1/24 dev %s", name, name)
	}
	return store.Subnet{}, store.Invalid("dhcp_range", "the range %s is in no network of %s, which has %s", rng, name, have[0])
}
