package inventory

import (
	"context"
	"net/netip"
	"slices"

	"lunboot/store"
)

// checkAddress refuses a reserved address that the machine could not use: one
// outside of every subnet, one that is not a machine's by its place in the
// subnet, the appliance's own, and one that somebody else holds now.
func (i *Inventory) checkAddress(ctx context.Context, m *store.Machine) error {
	a := m.Address
	if !a.IsValid() {
		return nil
	}
	subnets, err := i.db.Subnets(ctx)
	if err != nil {
		return err
	}
	if err := inSubnet(a, subnets); err != nil {
		return err
	}
	if slices.Contains(i.own(), a) {
		return store.Conflict("address", "%s is the appliance's own address", a)
	}
	l, err := i.db.LeaseByAddress(ctx, a)
	switch {
	case store.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case l.State == store.LeaseDeclined && l.Expires.After(i.now()):
		return store.Conflict("address", "%s is used by a computer that did not get it from here; find that one, or choose another address", a)
	case l.Expires.After(i.now()) && !slices.Contains(m.MACs, l.MAC):
		return store.Conflict("address", "%s is leased to %s; drop that lease first, or choose another address", a, l.MAC)
	}
	return nil
}

func inSubnet(a netip.Addr, subnets []store.Subnet) error {
	for _, s := range subnets {
		if !s.Prefix.Contains(a) {
			continue
		}
		// RFC 3021: a /31 has no network and no broadcast address.
		if s.Prefix.Bits() < 31 && (a == s.Prefix.Masked().Addr() || a == last(s.Prefix)) {
			return store.Invalid("address", "%s is the network or broadcast address of %s", a, s.Prefix)
		}
		if a == s.Router {
			return store.Conflict("address", "%s is the router of %s", a, s.Prefix)
		}
		return nil
	}
	if len(subnets) == 0 {
		return nil
	}
	return store.Invalid("address", "%s lies in none of the appliance's subnets; the nearest is %s", a, nearest(a, subnets))
}

// last is the highest address of an IPv4 prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// nearest is the subnet that shares the longest prefix with a: the one that a
// slip of the pen missed.
func nearest(a netip.Addr, subnets []store.Subnet) netip.Prefix {
	best, most := subnets[0].Prefix, -1
	for _, s := range subnets {
		n := 0
		for n < 32 && netip.PrefixFrom(a, n+1).Masked() == netip.PrefixFrom(s.Prefix.Addr(), n+1).Masked() {
			n++
		}
		if n > most {
			best, most = s.Prefix, n
		}
	}
	return best
}
