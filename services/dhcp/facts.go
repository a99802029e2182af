package dhcp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// book holds the addresses that were offered, or that are being written to the
// inventory: nobody else is given them meanwhile. There is at most one a MAC
// and one an address, so that the range bounds it.
type book struct {
	mu     sync.Mutex
	byAddr map[netip.Addr]hold
	byMAC  map[store.MAC]netip.Addr
}

type hold struct {
	mac   store.MAC
	until time.Time
}

func newBook() *book {
	return &book{byAddr: map[netip.Addr]hold{}, byMAC: map[store.MAC]netip.Addr{}}
}

// keep holds a for mac, in place of what it held before.
func (b *book) keep(mac store.MAC, a netip.Addr, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(mac)
	b.drop(b.byAddr[a].mac) // who was offered it before, and did not come back
	b.byAddr[a] = hold{mac, until}
	b.byMAC[mac] = a
}

// forget lets go of what mac held.
func (b *book) forget(mac store.MAC) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(mac)
}

func (b *book) drop(mac store.MAC) {
	if a, ok := b.byMAC[mac]; ok {
		delete(b.byAddr, a)
		delete(b.byMAC, mac)
	}
}

// of returns the address that mac was offered and can still have.
func (b *book) of(mac store.MAC, now time.Time) netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.byMAC[mac]
	if !b.byAddr[a].until.After(now) {
		return netip.Addr{}
	}
	return a
}

// holder returns who was offered a.
func (b *book) holder(a netip.Addr, now time.Time) store.MAC {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.byAddr[a]; h.until.After(now) {
		return h.mac
	}
	return store.MAC{}
}

// live returns all offers that still hold, and forgets the others.
func (b *book) live(now time.Time) map[netip.Addr]store.MAC {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[netip.Addr]store.MAC, len(b.byAddr))
	for a, h := range b.byAddr {
		if h.until.After(now) {
			out[a] = h.mac
		} else {
			b.drop(h.mac)
		}
	}
	return out
}

// reservations is a short-lived copy of which addresses are reserved. It only
// proposes: an address is looked up again before it is given.
type reservations struct {
	read    time.Time
	byAddr  map[netip.Addr]store.MachineID
	dynamic int // enrolled machines without a reserved address
}

// reservationsLife is how long the copy is used.
const reservationsLife = 2 * time.Second

// gather collects the facts about one request. The caller holds the ledger's
// turn.
func (s *Server) gather(ctx context.Context, r message.Request, at place, now time.Time) (Input, error) {
	in, err := s.gatherBoot(ctx, r, at, now)
	if err != nil {
		return in, err
	}
	in.Offered, in.Addresses = s.ledger.book.of(r.MAC, now), map[netip.Addr]Address{}
	if in.Own, err = s.ownLease(ctx, r.MAC, in.Subnet.Prefix); err != nil {
		return in, err
	}
	for _, a := range []netip.Addr{r.Requested, r.CIAddr, in.Own.Address, in.Offered, in.reserved()} {
		if _, done := in.Addresses[a]; done || !in.Subnet.Prefix.Contains(a) {
			continue
		}
		if in.Addresses[a], err = s.address(ctx, a, in); err != nil {
			return in, err
		}
	}
	if hint, needed := in.needsFree(); needed {
		if in.Free, err = s.free(ctx, in, hint); err != nil {
			return in, err
		}
		if a := in.Free.Address; a.IsValid() {
			if in.Addresses[a], err = s.address(ctx, a, in); err != nil {
				return in, err
			}
		}
	}
	return in, nil
}

// needsFree reports whether the pool is asked, and for what first.
func (in Input) needsFree() (hint netip.Addr, needed bool) {
	r := in.Request
	switch r.Type {
	case dhcpv4.MessageTypeDiscover:
		for _, a := range []netip.Addr{in.reserved(), in.Own.Address, in.Offered} {
			if a.IsValid() && in.obstacle(a) == "" {
				return netip.Addr{}, false
			}
		}
		return r.Requested, true
	case dhcpv4.MessageTypeRequest:
		a := r.Requested
		if !a.IsValid() {
			a = r.CIAddr
		}
		return a, a.IsValid() && !in.knows(a) && in.obstacle(a) == ""
	}
	return netip.Addr{}, false
}

// client looks a MAC up among the machines.
func (s *Server) client(ctx context.Context, mac store.MAC) (Client, error) {
	m, err := s.cfg.Machines.MachineByMAC(ctx, mac)
	if err == nil {
		return Client{Machine: m, Enrolled: true}, nil
	}
	if !store.IsNotFound(err) {
		return Client{}, fmt.Errorf("find the machine of %s: %w", mac, err)
	}
	u, err := s.cfg.Machines.UnknownMachine(ctx, mac)
	if err != nil && !store.IsNotFound(err) {
		return Client{}, fmt.Errorf("find the unknown machine %s: %w", mac, err)
	}
	return Client{Ignored: u.Ignored}, nil
}

// ownLease returns the lease that a MAC holds or held in a subnet. A MAC may
// have rows elsewhere: in another subnet, or for an address that it declined.
func (s *Server) ownLease(ctx context.Context, mac store.MAC, subnet netip.Prefix) (store.Lease, error) {
	l, err := s.cfg.Leases.LeaseByMAC(ctx, mac)
	if store.IsNotFound(err) {
		return store.Lease{}, nil
	}
	if err != nil {
		return store.Lease{}, fmt.Errorf("find the lease of %s: %w", mac, err)
	}
	if subnet.Contains(l.Address) && l.State == store.LeaseBound {
		return l, nil
	}
	all, err := s.cfg.Leases.Leases(ctx)
	if err != nil {
		return store.Lease{}, fmt.Errorf("list the leases: %w", err)
	}
	var own store.Lease
	for _, l := range all {
		if l.MAC == mac && l.State == store.LeaseBound && subnet.Contains(l.Address) && l.Expires.After(own.Expires) {
			own = l
		}
	}
	return own, nil
}

// address collects the facts about one address.
func (s *Server) address(ctx context.Context, a netip.Addr, in Input) (Address, error) {
	f := Address{
		OfferedTo: s.ledger.book.holder(a, in.Now),
		InUse:     s.cfg.InUse.AddressInUse(a),
		Appliance: s.appliance(in, a),
	}
	// A client that answers for the address that it had is no stranger to it.
	check, by := s.wire.Checked(a)
	f.Conflict = check == survey.Taken && by != in.Request.MAC
	l, err := s.cfg.Leases.LeaseByAddress(ctx, a)
	if err != nil && !store.IsNotFound(err) {
		return f, fmt.Errorf("find the lease of %s: %w", a, err)
	}
	f.Lease = l
	f.ReservedTo, err = s.reservedTo(ctx, a)
	return f, err
}

// appliance reports whether an address is one of ours, the router's or the
// relay's.
func (s *Server) appliance(in Input, a netip.Addr) bool {
	_, ours := s.ours(a)
	return ours || a == in.Interface.Address || a == in.Subnet.Router || a == in.Request.GIAddr
}

// reservedTo returns the machine that an address is reserved to, 0 for none.
func (s *Server) reservedTo(ctx context.Context, a netip.Addr) (store.MachineID, error) {
	// The search finds the text anywhere in a machine; the loop is exact.
	found, _, err := s.cfg.Machines.Machines(ctx, store.MachineFilter{Search: a.String()})
	if err != nil {
		return 0, fmt.Errorf("find who %s is reserved to: %w", a, err)
	}
	for _, m := range found {
		if m.Address == a {
			return m.ID, nil
		}
	}
	return 0, nil
}

// free asks the pool. What it proposes is looked up once more, since its copy
// of the reservations may be old.
func (s *Server) free(ctx context.Context, in Input, hint netip.Addr) (Free, error) {
	leases, err := s.cfg.Leases.Leases(ctx)
	if err != nil {
		return Free{}, fmt.Errorf("list the leases: %w", err)
	}
	pool, err := s.pool(ctx, in, leases)
	if err != nil {
		return Free{}, err
	}
	stranger := !in.Client.Enrolled && !in.Own.Address.IsValid()
	for {
		free := pool.Pick(hint, stranger, in.Client.Enrolled)
		if !free.Address.IsValid() {
			return free, nil
		}
		id, err := s.reservedTo(ctx, free.Address)
		if err != nil {
			return Free{}, err
		}
		if id == 0 {
			return free, nil
		}
		pool.Reserved[free.Address] = id
	}
}

func (s *Server) pool(ctx context.Context, in Input, leases []store.Lease) (Pool, error) {
	if in.Now.Sub(s.ledger.reserved.read) > reservationsLife || s.ledger.reserved.byAddr == nil {
		all, _, err := s.cfg.Machines.Machines(ctx, store.MachineFilter{})
		if err != nil {
			return Pool{}, fmt.Errorf("list the machines: %w", err)
		}
		s.ledger.reserved = reservations{read: in.Now, byAddr: map[netip.Addr]store.MachineID{}}
		for _, m := range all {
			if m.Address.IsValid() {
				s.ledger.reserved.byAddr[m.Address] = m.ID
			} else {
				s.ledger.reserved.dynamic++
			}
		}
	}
	offered := s.ledger.book.live(in.Now)
	maps.DeleteFunc(offered, func(a netip.Addr, _ store.MAC) bool { return !in.Subnet.Prefix.Contains(a) })
	return Pool{
		Now: in.Now, Subnet: in.Subnet, Leases: leases, Offered: offered,
		Reserved: s.ledger.reserved.byAddr, Dynamic: s.ledger.reserved.dynamic,
		Appliance: func(a netip.Addr) bool { return s.appliance(in, a) }, InUse: s.cfg.InUse.AddressInUse,
		Checked: func(a netip.Addr) survey.Check { c, _ := s.wire.Checked(a); return c },
	}, nil
}

// chain is when an iPXE was sent to our loader, and in which exchange.
type chain struct {
	xid uint32
	at  time.Time
}

// Times of the chain: how long an attempt is, and how long one exchange may
// repeat its REQUEST and get the same answer.
const (
	chainLife   = 2 * time.Minute
	chainRepeat = 5 * time.Second
)

func (s *Server) wasChained(r message.Request, now time.Time) bool {
	c, ok := s.chained.get(r.MAC)
	age := now.Sub(c.at)
	return ok && age < chainLife && !(c.xid == r.XID && age < chainRepeat)
}

// Next returns the addresses that our own subnet would give next
// (survey.Range): the wire can be asked for no others.
func (s *Server) Next(ctx context.Context) ([]netip.Addr, error) {
	leases, err := s.cfg.Leases.Leases(ctx)
	if err != nil {
		return nil, err
	}
	s.ledger.deciding.Lock()
	defer s.ledger.deciding.Unlock()
	pool, err := s.pool(ctx, Input{Now: s.cfg.Now(), Interface: *s.link.Load(), Subnet: s.networks.own}, leases)
	if err != nil {
		return nil, err
	}
	fresh, expired := pool.open()
	slices.SortFunc(expired, func(a, b store.Lease) int { return a.Expires.Compare(b.Expires) })
	for _, l := range expired {
		fresh = append(fresh, l.Address)
	}
	return fresh[:min(len(fresh), survey.Ahead)], nil
}

// Holds reports whether a MAC was given an address (survey.Range).
func (s *Server) Holds(ctx context.Context, a netip.Addr, mac store.MAC) bool {
	l, err := s.cfg.Leases.LeaseByAddress(ctx, a)
	return err == nil && l.MAC == mac
}
