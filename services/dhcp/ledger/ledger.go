// Package ledger knows which address is whose: every lease, what was offered a
// moment ago, what is reserved, and what is free. It is asked once for every
// packet, so that all of it is in memory and no answer walks a range or a list.
//
// The truth is on disk. The ledger is read from there, writes there before it
// believes a change of its own, and reads anew when somebody else changed
// something: an operator who drops a lease, enrolls a machine or reserves an
// address. It compares a number for that at every decision, so that no answer is
// given from an older state.
//
// One ledger serves all the networks of an appliance: a relay may send one
// request to several addresses of ours, and none may give what another gives.
package ledger

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"lunboot/store"
)

// Leases is where leases are kept. PutLease returns when the lease is durable,
// and refuses one whose address is bound to another MAC; a bound lease ends the
// others of its MAC in its network. LeaseRevision rises when leases change in
// another way.
type Leases interface {
	Leases(ctx context.Context) ([]store.Lease, error)
	PutLease(ctx context.Context, l store.Lease) error
	// ProlongLease sets the end of a lease that its MAC still holds, and is a
	// KindNotFound when it does not.
	ProlongLease(ctx context.Context, l store.Lease) error
	LeaseRevision() int64
}

// Machines is who is known. ClientRevision rises when a machine changes, or who
// is ignored.
type Machines interface {
	Machines(ctx context.Context, f store.MachineFilter) ([]store.Machine, int, error)
	IgnoredMACs(ctx context.Context) ([]store.MAC, error)
	ClientRevision() int64
}

// InUse tells the addresses from which an initiator holds a session, or held
// one in the last hour.
type InUse interface {
	AddressInUse(a netip.Addr) bool
}

// row is a lease with the next one of its MAC. A MAC has one lease in a network,
// and a row for each address that it declined.
type row struct {
	store.Lease
	next  *row
	since time.Time // when it was given to a stranger; zero when its MAC is none (see Want)
}

// Ledger is safe for use by many goroutines.
type Ledger struct {
	leases   Leases
	machines Machines
	inUse    InUse

	mu     sync.Mutex
	read   int64 // the lease revision that rows were read at; below 0: they must be read
	rows   map[uint32]*row
	byMAC  map[store.MAC]*row
	held   holds
	roster roster
	pools  map[poolKey]*pool
	kept   map[netip.Prefix]kept
	homes  map[store.MachineID]netip.Prefix // of machines that asked since the start

	known crowd // has a lock of its own
}

// unread is the revision of what was never read, or cannot be trusted.
const unread = -1

// New makes a ledger. It reads at the first decision.
func New(leases Leases, machines Machines, inUse InUse) *Ledger {
	return &Ledger{
		leases: leases, machines: machines, inUse: inUse, read: unread,
		held: newHolds(), roster: roster{revision: unread}, pools: map[poolKey]*pool{},
		kept: map[netip.Prefix]kept{}, homes: map[store.MachineID]netip.Prefix{}, known: crowd{n: map[store.MAC]int{}},
	}
}

// Known reports whether a MAC is more than a stranger: it holds or held a lease,
// was offered an address, or is a machine's. It waits for no decision.
func (l *Ledger) Known(mac store.MAC) bool { return l.known.has(mac) }

// Turn is one decision: until its End nobody else decides.
type Turn struct {
	l   *Ledger
	now time.Time
}

// Begin waits for the turn, and reads what somebody else changed. When it fails,
// there is no turn to end.
func (l *Ledger) Begin(ctx context.Context, now time.Time) (Turn, error) {
	l.mu.Lock()
	if err := l.refresh(ctx); err != nil {
		l.mu.Unlock()
		return Turn{}, err
	}
	l.sweep(now)
	return Turn{l, now}, nil
}

// End lets the next one decide.
func (t Turn) End() { t.l.mu.Unlock() }

// refresh reads what changed on disk otherwise than by Put; mu is held.
func (l *Ledger) refresh(ctx context.Context) error {
	rows, names := false, false
	if at := l.leases.LeaseRevision(); at != l.read {
		all, err := l.leases.Leases(ctx)
		if err != nil {
			return fmt.Errorf("list the leases: %w", err)
		}
		first := l.rows == nil
		old, oldByMAC := l.rows, l.byMAC
		l.read, rows = at, true
		l.rows = make(map[uint32]*row, len(all))
		l.byMAC = make(map[store.MAC]*row, len(all))
		for _, one := range all {
			if !one.Address.Is4() {
				continue
			}
			r := &row{Lease: one}
			if o := old[number(one.Address)]; o != nil && o.MAC == one.MAC && o.Updated.Equal(one.Updated) {
				r.since = o.since
			} else if !first {
				r.since = since(one, oldByMAC[one.MAC])
			}
			l.link(r)
		}
	}
	if at := l.machines.ClientRevision(); at != l.roster.revision {
		r, err := readRoster(ctx, l.machines, at)
		if err != nil {
			l.read = unread // what follows from the leases was not made of them yet
			return err
		}
		old := l.roster
		l.roster, names = r, true
		maps.DeleteFunc(l.homes, func(id store.MachineID, _ netip.Prefix) bool { return !r.ids[id] })
		for a := range old.byAddress {
			l.changed(a)
		}
		for a := range r.byAddress {
			l.changed(a)
		}
		l.enrolled(old, r)
		l.enrolled(r, old)
	}
	if rows {
		clear(l.pools) // made anew when they are asked
	}
	if rows || names {
		clear(l.kept)
		l.known.become(l.everybody())
	}
	return nil
}

// everybody lists the MACs that are no strangers, as often as there is a reason
// for it; mu is held.
func (l *Ledger) everybody() map[store.MAC]int {
	n := make(map[store.MAC]int, len(l.rows)+len(l.roster.byMAC))
	for _, r := range l.rows {
		n[r.MAC]++
	}
	for c := range l.held.byClient {
		n[c.mac]++
	}
	for mac := range l.roster.byMAC {
		n[mac]++
	}
	return n
}

// sweep lets go of the offers whose time is over; mu is held.
func (l *Ledger) sweep(now time.Time) {
	for h := l.held.oldest(); h != nil && !h.until.After(now); h = l.held.oldest() {
		l.letGo(h)
	}
}

// link adds a row; its address has none. mu is held.
func (l *Ledger) link(r *row) {
	l.rows[number(r.Address)] = r
	r.next = l.byMAC[r.MAC]
	l.byMAC[r.MAC] = r
}

// unlink takes a row away; mu is held.
func (l *Ledger) unlink(r *row) {
	delete(l.rows, number(r.Address))
	first := l.byMAC[r.MAC]
	if first == r {
		if r.next == nil {
			delete(l.byMAC, r.MAC)
		} else {
			l.byMAC[r.MAC] = r.next
		}
		return
	}
	for p := first; p != nil; p = p.next {
		if p.next == r {
			p.next = r.next
			return
		}
	}
}

// Put makes a lease durable, and knows it from then on. It is called between
// turns: meanwhile what was held for its MAC stays held.
func (l *Ledger) Put(ctx context.Context, lease store.Lease) error {
	at, err := l.durably(ctx, func(ctx context.Context) error { return l.leases.PutLease(ctx, lease) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.believe(lease, at, err)
	return err
}

// Prolong sets the end of a lease as Put does, and gives nothing and ends nothing:
// when its MAC no longer has the address by then, it is no error and nothing is
// changed.
func (l *Ledger) Prolong(ctx context.Context, lease store.Lease) error {
	at, err := l.durably(ctx, func(ctx context.Context) error { return l.leases.ProlongLease(ctx, lease) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.leases.LeaseRevision() != at {
		l.read = unread
	}
	if store.IsNotFound(err) {
		return nil
	}
	if err != nil || l.read == unread {
		return err
	}
	if r := l.rows[number(lease.Address)]; r != nil && r.MAC == lease.MAC && r.State == store.LeaseBound {
		r.Expires, r.Updated = lease.Expires, lease.Updated
		l.changed(lease.Address)
		l.recount(lease.MAC)
	}
	return nil
}

// writeTime is how long the disk may take before a lease counts as not written.
const writeTime = 10 * time.Second

// durably writes, and returns the revision before. A caller that ends does not end
// it: the others that share the ledger must know what became of it.
func (l *Ledger) durably(ctx context.Context, write func(context.Context) error) (at int64, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	at = l.leases.LeaseRevision()
	return at, write(ctx)
}

// believe does in memory what a write did on disk; mu is held. When somebody
// else changed leases since revision at, or the outcome is not known, the next
// turn reads: the order of the two is known to the disk alone.
func (l *Ledger) believe(lease store.Lease, at int64, err error) {
	if l.read == unread {
		return
	}
	if err != nil || l.leases.LeaseRevision() != at {
		l.read = unread
		return
	}
	lease.Address = lease.Address.Unmap()
	given := since(lease, l.byMAC[lease.MAC])
	if old := l.rows[number(lease.Address)]; old != nil {
		l.remove(old)
	}
	if lease.State == store.LeaseBound {
		for r := l.byMAC[lease.MAC]; r != nil; {
			next := r.next
			if r.State != store.LeaseDeclined && (!lease.Network.IsValid() || lease.Network.Contains(r.Address)) {
				l.remove(r)
				l.changed(r.Address)
			}
			r = next
		}
	}
	l.link(&row{Lease: lease, since: given})
	l.known.add(lease.MAC)
	l.changed(lease.Address)
	l.recount(lease.MAC)
}

// since is when a stranger was given what a lease gives: the lease itself says, or
// the one that its MAC had in the network before. Who prolongs past the middle of
// the lease's time is no stranger any more.
func since(lease store.Lease, had *row) time.Time {
	if lease.State == store.LeaseDeclined {
		return lease.Updated
	}
	for r := had; r != nil; r = r.next {
		if r.State != store.LeaseBound || lease.Network.IsValid() && !lease.Network.Contains(r.Address) {
			continue
		}
		half := lease.Expires.Sub(lease.Updated) / 2
		if r.since.IsZero() || half > 0 && lease.Updated.Sub(r.since) >= half {
			return time.Time{}
		}
		return r.since
	}
	return lease.Updated
}

func (l *Ledger) remove(r *row) {
	l.unlink(r)
	l.known.leave(r.MAC)
	l.recount(r.MAC)
}

// recount has it counted anew what is kept, when a lease is a machine's; mu is
// held.
func (l *Ledger) recount(mac store.MAC) {
	if l.roster.byMAC[mac] != nil {
		clear(l.kept)
	}
}

// changed puts an address where it belongs in every pool; mu is held.
func (l *Ledger) changed(a netip.Addr) {
	for _, p := range l.pools {
		p.settle(l, a)
	}
}

// enrolled puts what those have who are in one roster and not in another where it
// belongs; mu is held.
func (l *Ledger) enrolled(in, out roster) {
	for mac := range in.byMAC {
		if out.byMAC[mac] != nil {
			continue
		}
		for r := l.byMAC[mac]; r != nil; r = r.next {
			l.changed(r.Address)
		}
	}
	for c, h := range l.held.byClient {
		if in.byMAC[c.mac] != nil && out.byMAC[c.mac] == nil {
			l.changed(h.address)
		}
	}
}

// Facts is what is known of one address.
type Facts struct {
	Lease      store.Lease // zero when it was never leased
	OfferedTo  store.MAC   // who was offered it and may still ask for it
	ReservedTo store.MachineID
	InUse      bool
}

// Address returns the facts about an address.
func (t Turn) Address(a netip.Addr) Facts {
	f := Facts{ReservedTo: t.l.roster.byAddress[a], InUse: t.l.inUse.AddressInUse(a)}
	if !a.Is4() {
		return f
	}
	if r := t.l.rows[number(a)]; r != nil {
		f.Lease = r.Lease
	}
	if h := t.l.held.byAddr[a]; h != nil && h.until.After(t.now) {
		f.OfferedTo = h.mac
	}
	return f
}

// Client looks a MAC up among the machines. The machine is for reading.
func (t Turn) Client(mac store.MAC) (m *store.Machine, ignored bool) {
	return t.l.roster.byMAC[mac], t.l.roster.ignored[mac]
}

// Owner returns the machine that an address is reserved for, nil for none. It is for
// reading.
func (t Turn) Owner(a netip.Addr) *store.Machine {
	id, ok := t.l.roster.byAddress[a]
	if !ok {
		return nil
	}
	for _, m := range t.l.roster.byMAC {
		if m.ID == id {
			return m
		}
	}
	return nil // a machine without a card
}

// Own returns the lease that a MAC holds or held in a network. It may have rows
// elsewhere: in another network, or for an address that it declined.
func (t Turn) Own(mac store.MAC, network netip.Prefix) (own store.Lease) {
	for r := t.l.byMAC[mac]; r != nil; r = r.next {
		if r.State != store.LeaseBound || !network.Contains(r.Address) {
			continue
		}
		if !own.Address.IsValid() || r.Updated.After(own.Updated) || r.Updated.Equal(own.Updated) && r.Expires.After(own.Expires) {
			own = r.Lease
		}
	}
	return own
}

// Offered returns the address that a MAC was offered in a network and can still
// have.
func (t Turn) Offered(mac store.MAC, network netip.Prefix) netip.Addr {
	if h := t.l.held.byClient[client{mac, network}]; h != nil && h.until.After(t.now) {
		return h.address
	}
	return netip.Addr{}
}

// Hold keeps an address of a network for a MAC for HoldTime, in place of what was
// held for it there before. A stranger's hold counts against what all strangers
// may have.
func (t Turn) Hold(mac store.MAC, network netip.Prefix, a netip.Addr, stranger bool) {
	l := t.l
	if h := l.held.byClient[client{mac, network}]; h != nil {
		l.letGo(h)
	}
	if h := l.held.byAddr[a]; h != nil { // who was offered it before, and did not come back
		l.letGo(h)
	}
	l.held.add(&hold{client: client{mac, network}, address: a, stranger: stranger, until: t.now.Add(HoldTime)})
	l.known.add(mac)
	l.changed(a)
}

// Withdraw lets go of what was held for a MAC in a network.
func (t Turn) Withdraw(mac store.MAC, network netip.Prefix) {
	if h := t.l.held.byClient[client{mac, network}]; h != nil {
		t.l.letGo(h)
	}
}

// Withdraw is Turn.Withdraw for one who holds no turn.
func (l *Ledger) Withdraw(mac store.MAC, network netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	Turn{l: l}.Withdraw(mac, network)
}

func (l *Ledger) letGo(h *hold) {
	l.held.remove(h)
	l.known.leave(h.mac)
	l.changed(h.address)
}

// Bound lists the bound leases that end before a time.
func (t Turn) Bound(before time.Time) (some []store.Lease) {
	for _, r := range t.l.rows {
		if r.State == store.LeaseBound && r.Expires.Before(before) {
			some = append(some, r.Lease)
		}
	}
	return some
}
