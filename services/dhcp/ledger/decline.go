package ledger

import (
	"net/netip"
	"slices"

	"lunboot/store"
)

// declinesOfOne is how many addresses of a network one MAC may set aside at a time.
// A machine that meets so many in a row is on a network whose range is wrong, or
// behind a switch that answers for every address.
const declinesOfOne = 4

// GiveBack lists the leases that end when a MAC sets one more address of a subnet
// aside, with their new end. A DECLINE cannot be checked where a relay is between,
// and costs who sends it nothing; so one MAC sets at most declinesOfOne addresses
// aside, and all together at most a quarter of the range: the oldest are given
// back. They come last when addresses are given, so that a machine that means it
// goes through the whole range before it is offered one of them again.
func (t Turn) GiveBack(mac store.MAC, s *store.Subnet, a netip.Addr) (some []store.Lease) {
	p := t.l.pool(s)
	p.sweep(t.now, t.l.inUse)
	var own []store.Lease
	for r := t.l.byMAC[mac]; r != nil; r = r.next {
		if r.State == store.LeaseDeclined && r.Expires.After(t.now) && r.Address != a && s.Prefix.Contains(r.Address) {
			own = append(own, r.Lease)
		}
	}
	slices.SortFunc(own, func(x, y store.Lease) int { return x.Updated.Compare(y.Updated) })
	if n := len(own) - (declinesOfOne - 1); n > 0 {
		some = slices.Clip(own[:n])
	}
	chosen := func(i int) bool {
		at := address(p.first + uint32(i))
		return at == a || slices.ContainsFunc(some, func(l store.Lease) bool { return l.Address == at })
	}
	rest := p.declined.len()
	for _, l := range append(some, store.Lease{Address: a}) {
		if i, ok := p.place(l.Address); ok && p.declined.has(i) {
			rest--
		}
	}
	for ; rest >= max(1, p.never.size/4); rest-- {
		i := p.declined.firstThat(func(i int) bool { return !chosen(i) })
		if i < 0 {
			break
		}
		some = append(some, t.l.rows[p.first+uint32(i)].Lease)
	}
	for i := range some {
		some[i].Expires, some[i].Updated = t.now, t.now
	}
	return some
}

// Declined returns the lease by which an address is set aside now.
func (t Turn) Declined(a netip.Addr) (store.Lease, bool) {
	if !a.Is4() {
		return store.Lease{}, false
	}
	r := t.l.rows[number(a)]
	if r == nil || r.State != store.LeaseDeclined || !r.Expires.After(t.now) {
		return store.Lease{}, false
	}
	return r.Lease, true
}
