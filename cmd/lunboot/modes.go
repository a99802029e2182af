package main

import (
	"context"
	"errors"
	"fmt"
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
	for _, name := range c.Interface {
		subnet, err := subnetOf(name, n.a.set.rng)
		if err != nil && c.DHCP == "auto" && !n.a.set.rng.From.IsValid() {
			continue // nothing was asked for there
		}
		if err != nil {
			return err
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
			n.a.log.Info("no DHCP server answers there, and no range was chosen to give addresses from", "interface", name)
			continue
		}
		if _, err := n.put(ctx, store.ActorFlag, subnet); err != nil {
			return err
		}
	}
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
	n.a.log.Warn("nobody is answered", "interface", s.Interface, "reason", err)
	n.a.banner("dhcp "+s.Interface, "DHCP is not answered on "+s.Interface+": "+err.Error())
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

// put writes a subnet when it differs from what is there.
func (n *network) put(ctx context.Context, by store.Actor, s store.Subnet) (store.Subnet, error) {
	have, err := n.a.db.Subnets(ctx)
	if err != nil {
		return s, err
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
	if len(have) == 0 {
		return store.Subnet{}, store.Invalid("interface", "%s has no IPv4 address; give it one first, such as: ip address add 192.168.40.1/24 dev %s", name, name)
	}
	return store.Subnet{}, store.Invalid("dhcp_range", "the range %s is in no network of %s, which has %s", rng, name, have[0])
}
