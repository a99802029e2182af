package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// maxRange bounds the addresses of one range, which are walked in turn when a
// new client needs one.
const maxRange = 1 << 16

// Pool is the state of a subnet's range at one moment.
type Pool struct {
	Now       time.Time
	Subnet    store.Subnet
	Leases    []store.Lease
	Offered   map[netip.Addr]store.MAC // live offers
	Reserved  map[netip.Addr]store.MachineID
	Appliance func(netip.Addr) bool // ours, the router's or the relay's
	InUse     func(netip.Addr) bool
	Checked   func(netip.Addr) survey.Check // what asking the wire found
	Dynamic   int                           // enrolled machines without a reserved address
}

// size returns how many addresses the range has.
func size(r store.Range) int {
	if !r.From.Is4() || !r.To.Is4() || r.To.Less(r.From) {
		return 0
	}
	return int(number(r.To)-number(r.From)) + 1
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// Pick finds an address for a client that has none. hint, if it can be given,
// comes first; then an address that was never used and that the wire was asked
// for; then one that was never used; then the lease that expired first.
//
// A stranger is a MAC that is not enrolled and never held a lease. All
// strangers together are offered at most half of the range at a time, and none
// is given an address that an enrolled machine without a lease would miss.
func (p Pool) Pick(hint netip.Addr, stranger, enrolled bool) Free {
	fresh, expired := p.open()
	total := size(p.Subnet.Range)
	if len(fresh)+len(expired) == 0 {
		return Free{Reason: fmt.Sprintf("all %d addresses of %s are taken", total, p.Subnet.Range)}
	}
	if stranger {
		if offered := p.strangersOffered(); offered >= max(1, total/2) {
			return Free{Reason: fmt.Sprintf("%d of the %d addresses of %s are offered to machines that never asked before, and more than half are not", offered, total, p.Subnet.Range)}
		}
	}
	if !enrolled {
		if keep := p.kept(); len(fresh)+len(expired) <= keep {
			return Free{Reason: fmt.Sprintf("the last %d addresses of %s are kept for enrolled machines", keep, p.Subnet.Range)}
		}
	}
	if slices.Contains(fresh, hint) || slices.ContainsFunc(expired, func(l store.Lease) bool { return l.Address == hint }) {
		return Free{Address: hint}
	}
	for _, a := range fresh {
		if p.Checked(a) == survey.Quiet {
			return Free{Address: a}
		}
	}
	if len(fresh) > 0 {
		return Free{Address: fresh[0]}
	}
	oldest := slices.MinFunc(expired, func(a, b store.Lease) int { return a.Expires.Compare(b.Expires) })
	return Free{Address: oldest.Address}
}

// open returns the addresses that nobody holds: those never used, in order, and
// those whose lease expired.
func (p Pool) open() (fresh []netip.Addr, expired []store.Lease) {
	leases := make(map[netip.Addr]store.Lease, len(p.Leases))
	for _, l := range p.Leases {
		leases[l.Address] = l
	}
	for a := p.Subnet.Range.From; size(p.Subnet.Range) > 0 && p.Subnet.Range.Contains(a); a = a.Next() {
		_, reserved := p.Reserved[a]
		_, offered := p.Offered[a]
		if reserved || offered || !usable(p.Subnet.Prefix, a) || p.Appliance(a) || p.InUse(a) || p.Checked(a) == survey.Taken {
			continue
		}
		l, used := leases[a]
		switch {
		case !used:
			fresh = append(fresh, a)
		case !l.Expires.After(p.Now):
			expired = append(expired, l)
		}
	}
	return fresh, expired
}

// strangersOffered counts the live offers to MACs that never held a lease.
func (p Pool) strangersOffered() int {
	known := make(map[store.MAC]bool, len(p.Leases))
	for _, l := range p.Leases {
		known[l.MAC] = true
	}
	n := 0
	for _, mac := range p.Offered {
		if !known[mac] {
			n++
		}
	}
	return n
}

// kept is how many addresses are kept for enrolled machines that have none yet:
// at most half of the range, so that somebody new is still let in.
func (p Pool) kept() int {
	holding := map[store.MachineID]bool{}
	for _, l := range p.Leases {
		if l.Machine != 0 && l.State == store.LeaseBound && l.Expires.After(p.Now) {
			holding[l.Machine] = true
		}
	}
	return min(max(0, p.Dynamic-len(holding)), size(p.Subnet.Range)/2)
}
