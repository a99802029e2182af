package ledger

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"lunboot/store"
)

// MaxRange bounds the addresses of one range: a pool has a few bytes for each.
const MaxRange = 1 << 16

// maxPools bounds how many pools are kept; what is above is made anew.
const maxPools = 256

type poolKey struct {
	prefix netip.Prefix
	rng    store.Range
}

// pool is the state of one range. Every address that can be given is in exactly
// one of three places: those that nobody ever had, those whose lease runs, and
// those whose lease has ended. One that is held or reserved, or that no machine
// can have, is in none.
type pool struct {
	poolKey
	first   uint32
	never   set
	running queue // by the end of the lease
	ended   queue // likewise

	strange  set   // what strangers were offered, or have
	declined queue // what is set aside, of running
}

// Size returns how many addresses a range has.
func Size(r store.Range) int {
	if !r.From.Is4() || !r.To.Is4() || r.To.Less(r.From) {
		return 0
	}
	return int(number(r.To)-number(r.From)) + 1
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// address is the inverse of number.
func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// Usable reports whether a host of the network can have the address: it is
// neither the network's own nor its broadcast address (RFC 1122 §3.2.1.3).
func Usable(network netip.Prefix, a netip.Addr) bool {
	return network.Contains(a) && (network.Bits() >= 31 || a != network.Masked().Addr() && a != Broadcast(network))
}

// Broadcast returns the highest address of an IPv4 network.
func Broadcast(network netip.Prefix) netip.Addr {
	return address(number(network.Addr()) | uint32(uint64(1)<<(32-network.Bits())-1))
}

// pool returns the pool of a subnet; mu is held.
func (l *Ledger) pool(s *store.Subnet) *pool {
	key := poolKey{s.Prefix, s.Range}
	if p := l.pools[key]; p != nil {
		return p
	}
	if len(l.pools) >= maxPools {
		clear(l.pools) // of subnets that were changed again and again
	}
	n := min(Size(s.Range), MaxRange)
	p := &pool{poolKey: key, never: newSet(n), running: newQueue(n), ended: newQueue(n), strange: newSet(n), declined: newQueue(n)}
	if n > 0 {
		p.first = number(s.Range.From)
	}
	for i := range n {
		p.settle(l, address(p.first+uint32(i)))
	}
	l.pools[key] = p
	return p
}

// place is the number of an address in the range.
func (p *pool) place(a netip.Addr) (int, bool) {
	if !a.Is4() {
		return 0, false
	}
	i := int64(number(a)) - int64(p.first)
	return int(i), i >= 0 && i < int64(p.never.size)
}

// settle puts an address where it belongs; the ledger's mu is held.
func (p *pool) settle(l *Ledger, a netip.Addr) {
	i, ok := p.place(a)
	if !ok {
		return
	}
	r, h := l.rows[number(a)], l.held.byAddr[a]
	_, reserved := l.roster.byAddress[a]
	strange, declined := false, false
	switch {
	case reserved || h != nil || !Usable(p.prefix, a):
		p.never.remove(i)
		p.running.remove(i)
		p.ended.remove(i)
		strange = h != nil && h.stranger && l.roster.byMAC[h.mac] == nil
	case r == nil:
		p.running.remove(i)
		p.ended.remove(i)
		p.never.add(i)
	default:
		p.never.remove(i)
		p.ended.remove(i)
		p.running.put(i, r.Expires.UnixNano()) // sweep moves it on when it has ended
		strange = !r.since.IsZero() && l.roster.byMAC[r.MAC] == nil
		declined = r.State == store.LeaseDeclined
	}
	if strange {
		p.strange.add(i)
	} else {
		p.strange.remove(i)
	}
	if declined {
		p.declined.put(i, r.Expires.UnixNano())
	} else {
		p.declined.remove(i)
	}
}

// recheck is how long the lease of an address from which a volume is open counts
// as running although it has ended: it is prolonged meanwhile.
const recheck = 20 * time.Second

// sweep moves the leases that have ended.
func (p *pool) sweep(now time.Time, inUse InUse) {
	for {
		i, due, ok := p.running.first()
		if !ok || due > now.UnixNano() {
			return
		}
		if inUse.AddressInUse(address(p.first + uint32(i))) {
			p.running.put(i, now.Add(recheck).UnixNano())
			continue
		}
		p.running.remove(i)
		p.ended.put(i, due)
		p.strange.remove(i)
		p.declined.remove(i)
	}
}

// Want is what somebody new asks a pool for.
type Want struct {
	Subnet *store.Subnet
	Hint   netip.Addr // comes first when it can be given

	// A stranger is a MAC that is not enrolled and never held a lease here. What all
	// strangers together were offered, have leased or set aside is at most half of
	// the range at a time, so that invented MACs cannot take it all; who goes on
	// prolonging past the middle of his first lease is real and counts no more. Nobody
	// who is not enrolled is given an address that an enrolled machine without a lease
	// would miss.
	Stranger, Enrolled bool

	Aside []netip.Addr            // a few that are not to be given: ours, the router's, one that answers on the wire
	Quiet func(a netip.Addr) bool // whether the wire was asked for it and nobody answered; may be nil
	Ahead int                     // how many addresses Quiet may know
}

// Pick finds an address for somebody who has none: the hint, if it can be given;
// then one that nobody ever had and that the wire was asked for; then one that
// nobody ever had; then the one whose lease ended first. It is not valid when
// there is none, and the reason says why.
func (t Turn) Pick(w Want) (a netip.Addr, reason string) {
	p := t.l.pool(w.Subnet)
	p.sweep(t.now, t.l.inUse)
	open, total := p.open(w.Aside), p.never.size
	if open == 0 {
		return a, p.full()
	}
	if w.Stranger && p.strange.n >= max(1, total/2) {
		return a, fmt.Sprintf("%d of the %d addresses of %s are with machines that are not enrolled and were never here before, and no more than half are given to those at a time", p.strange.n, total, w.Subnet.Range)
	}
	if !w.Enrolled {
		if keep := min(t.l.waiting(w.Subnet.Prefix, t.now), total/2); open <= keep {
			return a, fmt.Sprintf("the last %d addresses of %s are kept for enrolled machines", keep, w.Subnet.Range)
		}
	}
	may := func(i int) bool { return t.may(p, i, w.Aside) }
	if i, ok := p.place(w.Hint); ok && (p.never.has(i) || p.ended.has(i)) && may(i) {
		return w.Hint, ""
	}
	first, seen := -1, 0
	for i := p.never.next(0); i >= 0; i = p.never.next(i + 1) {
		if !may(i) {
			continue
		}
		if first < 0 {
			first = i
		}
		if w.Quiet == nil || seen >= w.Ahead {
			break
		}
		if a := address(p.first + uint32(i)); w.Quiet(a) {
			return a, ""
		}
		seen++
	}
	if first < 0 {
		first = p.ended.firstThat(may)
	}
	if first < 0 {
		return a, p.full()
	}
	return address(p.first + uint32(first)), ""
}

// full says that nothing can be given.
func (p *pool) full() string {
	s := fmt.Sprintf("all %d addresses of %s are taken", p.never.size, p.rng)
	if n := p.declined.len(); n > 0 {
		s += fmt.Sprintf(", %d of them by computers that did not get them from here", n)
	}
	return s
}

// may reports whether an address that nobody holds can be given. A clock that was
// set back may have brought a lease to life again.
func (t Turn) may(p *pool, i int, aside []netip.Addr) bool {
	n := p.first + uint32(i)
	if r := t.l.rows[n]; r != nil && r.Expires.After(t.now) {
		return false
	}
	return !slices.Contains(aside, address(n)) && !t.l.inUse.AddressInUse(address(n))
}

// open is how many addresses can be given, without those that are set aside.
func (p *pool) open(aside []netip.Addr) int {
	n := p.never.n + p.ended.len()
	for k, a := range aside {
		if i, ok := p.place(a); ok && (p.never.has(i) || p.ended.has(i)) && !slices.Contains(aside[:k], a) {
			n--
		}
	}
	return n
}

// Next returns the addresses that a pool would give next, at most n.
func (t Turn) Next(s *store.Subnet, aside []netip.Addr, n int) (some []netip.Addr) {
	p := t.l.pool(s)
	p.sweep(t.now, t.l.inUse)
	take := func(i int) bool {
		if t.may(p, i, aside) {
			some = append(some, address(p.first+uint32(i)))
		}
		return len(some) >= n
	}
	for i := p.never.next(0); i >= 0; i = p.never.next(i + 1) {
		if take(i) {
			return some
		}
	}
	p.ended.firstThat(take)
	return some
}

// set is a set of the numbers below size.
type set struct {
	size, n int
	low     int // no word below it has a member
	words   []uint64
}

func newSet(size int) set { return set{size: size, words: make([]uint64, (size+63)/64)} }

func (s *set) has(i int) bool { return s.words[i/64]>>(i%64)&1 != 0 }

func (s *set) add(i int) {
	if !s.has(i) {
		s.words[i/64] |= 1 << (i % 64)
		s.n++
		s.low = min(s.low, i/64)
	}
}

func (s *set) remove(i int) {
	if s.has(i) {
		s.words[i/64] &^= 1 << (i % 64)
		s.n--
	}
}

// next returns the smallest member from i on, -1 when there is none.
func (s *set) next(i int) int {
	if i == 0 {
		for s.low < len(s.words) && s.words[s.low] == 0 {
			s.low++
		}
		i = s.low * 64
	}
	for i < s.size {
		if w := s.words[i/64] >> (i % 64); w != 0 {
			return i + bits.TrailingZeros64(w)
		}
		i = (i/64 + 1) * 64
	}
	return -1
}
