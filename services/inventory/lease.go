package inventory

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"lunboot/store"
)

// DropLease forgets the lease of an address. One from which a volume is open
// stays: the address goes to nobody else anyhow, and its lease comes back.
func (i *Inventory) DropLease(ctx context.Context, by store.Actor, a netip.Addr) error {
	if err := i.runsFrom(a.Unmap()); err != nil {
		return err
	}
	return i.db.DropLeaseIf(ctx, by, a, nil)
}

// runsFrom refuses what would take an address from a machine whose volume is open
// from there.
func (i *Inventory) runsFrom(a netip.Addr) error {
	if i.sessions == nil {
		return nil
	}
	for _, s := range i.sessions.Sessions() {
		if from, err := netip.ParseAddrPort(s.Addr); err == nil && from.Addr().Unmap() == a {
			return store.InUse("%s has its volume open from %s; its session has to end first", s.Initiator, a)
		}
	}
	return nil
}

// errDryRun takes back what a dry run did.
var errDryRun = errors.New("nothing is to be dropped")

// DropLeases forgets leases, each by itself, and says what became of each.
func (i *Inventory) DropLeases(ctx context.Context, by store.Actor, spec store.LeaseDropSpec) ([]store.LeaseDropped, error) {
	if len(spec.Leases) == 0 {
		return nil, store.Invalid("addresses", "name the leases that are to be dropped")
	}
	out := make([]store.LeaseDropped, 0, len(spec.Leases))
	for _, seen := range spec.Leases {
		d := store.LeaseDropped{Address: seen.Address, MAC: seen.MAC}
		err := i.runsFrom(seen.Address)
		if err == nil {
			err = i.db.DropLeaseIf(ctx, by, seen.Address, func(l store.Lease) error {
				d.InUse = l.State == store.LeaseBound && l.Expires.After(i.now())
				switch {
				case renewed(seen, l, i.now()):
					return store.Conflict("address", "the lease of %s is not what it was when it was looked at; look again", seen.Address)
				case d.InUse && !spec.InUse:
					return store.InUse("%s is in use: its machine goes on using it until it asks again, and another may be given it meanwhile", seen.Address)
				case spec.DryRun:
					return errDryRun
				}
				return nil
			})
		}
		switch {
		case err == nil, errors.Is(err, errDryRun):
			d.Dropped = true
		case store.KindOf(err) == store.KindUnavailable, ctx.Err() != nil:
			return out, err // the others fare no better
		default:
			d.Problem = sentence(err)
		}
		out = append(out, d)
	}
	return out, nil
}

// renewed reports whether a lease is another than the one that was seen, or was
// over then and is good again.
func renewed(seen, now store.Lease, at time.Time) bool {
	return seen.MAC != now.MAC || seen.State != now.State || !seen.Expires.After(at) && now.Expires.After(at)
}
