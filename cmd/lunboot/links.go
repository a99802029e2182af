package main

import (
	"context"
	"fmt"
	"net"
	"slices"

	"lunboot/store"
)

// networks are the interfaces of the appliance and the networks behind them, as
// pages and API show them and the operator chooses.
type networks struct{ a *appliance }

// Links lists every Ethernet interface with what is known of it.
func (n networks) Links(ctx context.Context) ([]store.Link, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	subnets, err := n.a.db.Subnets(ctx)
	if err != nil {
		return nil, err
	}
	def := defaultInterface()
	var out []store.Link
	for _, i := range ifs {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) != 6 {
			continue
		}
		l := store.Link{
			Name: i.Name, MAC: store.MAC(i.HardwareAddr), Addresses: addressesOf(i.Name), Up: i.Flags&net.FlagUp != 0, Carrier: i.Flags&net.FlagRunning != 0,
			Default: i.Index == def, Mode: store.DHCPOff, Locked: n.locked(i.Name),
		}
		if len(l.Addresses) > 0 {
			l.Proposed = proposeRange(l.Addresses[0])
		}
		for _, s := range subnets {
			if s.Interface != i.Name || s.Mode == store.DHCPOff && l.Mode != store.DHCPOff {
				continue
			}
			l.Mode, l.Range = s.Mode, s.Range
			l.Serving = s.Mode != store.DHCPOff && n.a.network.serves(s)
		}
		if n.a.cmd.DHCP == "off" {
			l.Mode, l.Serving = store.DHCPOff, false
		}
		if !l.Serving && (l.Mode != store.DHCPOff || slices.Contains(n.a.cmd.Interface, i.Name)) {
			l.Trouble = n.a.trouble(i.Name)
		}
		if heard, ok := n.a.surveys.Last(i.Name); ok {
			l.Survey = &heard
		}
		out = append(out, l)
	}
	return out, nil
}

// locked names the flag that decides about an interface, "" for none.
func (n networks) locked(name string) string {
	named := slices.Contains(n.a.cmd.Interface, name)
	switch {
	case n.a.cmd.DHCP == "off":
		return "--dhcp off"
	case named && n.a.cmd.DHCP != "proxy" && n.a.set.rng.From.IsValid():
		return "--dhcp-range " + n.a.set.rng.String()
	case named && n.a.cmd.DHCP != "auto":
		return "--dhcp " + n.a.cmd.DHCP
	}
	return ""
}

// Ask asks the network behind an interface who answers DHCP there.
func (n networks) Ask(ctx context.Context, name string) (store.Survey, error) {
	return n.a.surveys.Ask(ctx, name)
}

// Choose sets the part that the appliance takes on an interface. Addresses are
// given only where nobody else gives them, as the first run does.
func (n networks) Choose(ctx context.Context, by store.Actor, name string, mode store.DHCPMode, rng store.Range) error {
	if flag := n.locked(name); flag != "" {
		return &store.Error{Kind: store.KindConflict, Field: "mode", Msg: fmt.Sprintf("%s decides about %s; start the appliance without it to choose here", flag, name)}
	}
	return n.a.network.choose(ctx, by, name, mode, rng)
}

// serves reports whether a subnet is at work.
func (n *network) serves(s store.Subnet) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok := n.servers[key(s)]
	return ok && !at.ended()
}

// beside says who has the DHCP port on an interface, beside whom its subnet is served
// without relays; empty for nobody.
func (n *network) beside(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.servers {
		if s.subnet.Interface == name {
			return s.dhcp.Beside()
		}
	}
	return ""
}

// choose writes the operator's choice for an interface into the inventory.
func (n *network) choose(ctx context.Context, by store.Actor, name string, mode store.DHCPMode, rng store.Range) error {
	switch mode {
	case store.DHCPFull:
		if !rng.From.IsValid() {
			return store.Invalid("dhcp_range", "addresses are given from a range, such as 192.168.40.100-192.168.40.199; choose one for %s", name)
		}
		subnet, err := subnetOf(name, rng)
		if err != nil {
			return err
		}
		if !n.a.cmd.DHCPForce {
			if err := n.rival(ctx, name); err != nil {
				return &store.Error{Kind: store.KindConflict, Field: "interface", Msg: "no addresses are given", Err: err}
			}
		}
		if _, err := n.put(ctx, by, subnet); err != nil {
			return err
		}
	case store.DHCPProxy:
		subnet, err := subnetOf(name, rng)
		if err != nil {
			return err
		}
		known, err := n.known(ctx, subnet)
		if err != nil {
			return err
		}
		if subnet.Mode = store.DHCPProxy; !rng.From.IsValid() {
			subnet.Range = known.Range // for the day it is wanted again
		}
		if _, err := n.put(ctx, by, subnet); err != nil {
			return err
		}
	case store.DHCPOff:
		all, err := n.a.db.Subnets(ctx)
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.Interface != name || s.Mode == store.DHCPOff {
				continue
			}
			s.Mode = store.DHCPOff // its range stays for the day it is wanted again
			if _, err := n.put(ctx, by, s); err != nil {
				return err
			}
		}
	default:
		return store.Invalid("mode", "%q is not a way to take part in DHCP; choose off, full or proxy", mode)
	}
	n.changed()
	return nil
}
