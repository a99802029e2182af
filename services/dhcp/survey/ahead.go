// Package survey asks a network about itself: which other DHCP servers answer
// there, and whether the addresses that would be given next are in use (RFC 5227).
package survey

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"

	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// Bounds and times of asking the wire.
const (
	Ahead        = 32               // free addresses that are worth to be kept checked
	quietLife    = time.Minute      // how long silence counts
	takenLife    = 10 * time.Minute // how long an answer counts
	wireInterval = 10 * time.Second
	listenAgain  = 100 * time.Millisecond // after an error of the socket
	answerTime   = time.Second            // how long an answer is waited for; RFC 5227 §1.1 PROBE_MIN
	sameBoot     = 10 * time.Second       // an answer older than this is from before the boot that asks now
	maxDoubts    = 64                     // addresses that wait to be asked for, or are asked for, because of a client
)

// Check is what asking the wire for an address found (RFC 5227).
type Check uint8

// The results of a check. The zero Check is that nobody asked lately.
const (
	Unchecked Check = iota
	Quiet           // nobody answered
	Taken           // somebody answered
)

// Range is where the addresses to check come from.
type Range interface {
	// Next returns at most Ahead addresses that would be given next.
	Next(ctx context.Context) ([]netip.Addr, error)
	// Holds reports whether mac was given a.
	Holds(ctx context.Context, a netip.Addr, mac store.MAC) bool
	// Asked is told what the wire said of an address that Doubt named: who uses it,
	// the first to answer first; nobody when there is no answer.
	Asked(ctx context.Context, a netip.Addr, by []store.MAC)
}

// Prober keeps the next free addresses of a range checked by ARP (RFC 5227), so
// that an offer need not wait for it. It asks before anybody needs the address:
// RFC 2131 §3.1 wants the check, and firmware that gets a taken address fails
// without a word.
type Prober struct {
	now func() time.Time
	log *slog.Logger

	asks atomic.Bool   // there is a socket to ask by
	wake chan struct{} // something waits

	mu      sync.Mutex
	results map[netip.Addr]found // of addresses that were free when they were asked for
	waiting []doubt              // those that were declined first
	under   map[netip.Addr]bool  // doubts that are asked for now
}

// doubt is an address that the wire is to be asked for because of a client.
type doubt struct {
	address  netip.Addr
	declined bool
}

type found struct {
	check Check
	at    time.Time
	by    []user // at most two: two that use one address are the conflict

	asking bool // the question is under way
	// ahead says that nobody was given the address yet: whoever is heard with it uses
	// it. Else only an answer to the question counts. The machine that was given an
	// address is heard with it for as long as it runs, by cards that nobody enrolled,
	// too: a bridge has a MAC of its own.
	ahead bool
}

// user is who answered for an address, and when last.
type user struct {
	mac store.MAC
	at  time.Time
}

// heard notes another answer, and forgets those that no longer count.
func (f found) heard(mac store.MAC, at time.Time) found {
	by := slices.DeleteFunc(slices.Clone(f.by), func(a user) bool { return a.mac == mac || at.Sub(a.at) > takenLife })
	f.check, f.at, f.by = Taken, at, append(by[max(0, len(by)-1):], user{mac, at})
	return f
}

// users lists who answered.
func (f found) users() (some []store.MAC) {
	for _, a := range f.by {
		some = append(some, a.mac)
	}
	return some
}

// NewProber makes a prober that knows nothing yet.
func NewProber(now func() time.Time, log *slog.Logger) *Prober {
	return &Prober{now: now, log: log, results: map[netip.Addr]found{}, wake: make(chan struct{}, 1), under: map[netip.Addr]bool{}}
}

// Asks reports whether the wire can be asked.
func (p *Prober) Asks() bool { return p.asks.Load() }

// Doubt has the wire asked at once for an address that a client found in use, or
// else that one is offered. One that waits, or is asked for now, is not asked for
// twice. When too many wait it is not asked; what was declined goes before the others.
func (p *Prober) Doubt(a netip.Addr, declined bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.under[a] {
		return
	}
	if i := slices.IndexFunc(p.waiting, func(d doubt) bool { return d.address == a }); i >= 0 {
		if p.waiting[i].declined || !declined {
			return
		}
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	at := len(p.waiting)
	if declined {
		if at = slices.IndexFunc(p.waiting, func(d doubt) bool { return !d.declined }); at < 0 {
			at = len(p.waiting)
		}
	}
	if at >= maxDoubts-len(p.under) {
		return
	}
	p.waiting = slices.Insert(p.waiting, at, doubt{a, declined})
	p.waiting = p.waiting[:min(len(p.waiting), maxDoubts-len(p.under))]
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// doubts takes the addresses that wait; each is under way until it is let go.
func (p *Prober) doubts() (ask []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.waiting {
		ask = append(ask, d.address)
		p.under[d.address] = true
	}
	p.waiting = nil
	return ask
}

// letGo says that what comes of a doubt is about to be told: who doubts from now on
// is told something newer.
func (p *Prober) letGo(some ...netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range some {
		delete(p.under, a)
	}
}

// Checked returns what the wire said of an address lately, and who answered.
func (p *Prober) Checked(a netip.Addr) (Check, []store.MAC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.results[a]
	if !ok || p.now().Sub(f.at) > life(f.check) {
		return Unchecked, nil
	}
	return f.check, f.users()
}

// Due reports whether the wire is to be asked for an address that is offered again:
// nobody asked lately, or somebody answered before the boot that asks now. Who used
// it then may be gone.
func (p *Prober) Due(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.results[a]
	age := p.now().Sub(f.at)
	return !ok || f.check == Unchecked || age > life(f.check) || f.check == Taken && age > sameBoot
}

// Given says that somebody has the address from now on: what is heard from it is
// his doing, and only an answer to a question speaks of others.
func (p *Prober) Given(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.results[a]; ok {
		f.ahead = false
		p.results[a] = f
	}
}

// Taken lists the addresses for which somebody answered lately.
func (p *Prober) Taken() (some []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, f := range p.results {
		if f.check == Taken && p.now().Sub(f.at) <= life(Taken) {
			some = append(some, a)
		}
	}
	return some
}

func life(c Check) time.Duration {
	if c == Taken {
		return takenLife
	}
	return quietLife
}

// Run checks addresses on an interface until ctx ends. Without NET_RAW nothing is checked, and
// a taken address is found by the client's DECLINE.
func (p *Prober) Run(parent context.Context, r Range, ifi *net.Interface) {
	if len(ifi.HardwareAddr) != 6 {
		return
	}
	conn, err := packet.Listen(ifi, packet.Raw, wire.ARP, &packet.Config{Filter: wire.ForUs()})
	if err != nil {
		return // who opens the socket for replies says so
	}
	own := store.MAC(ifi.HardwareAddr)
	ctx, cancel := context.WithCancel(parent)
	var wg sync.WaitGroup
	wg.Go(func() { p.listen(ctx, conn, own) })
	defer wg.Wait()
	defer conn.Close()
	defer cancel()
	p.asks.Store(true)
	defer p.asks.Store(false)
	tick := time.NewTicker(wireInterval)
	defer tick.Stop()
	warn := func(err error) {
		if err != nil && ctx.Err() == nil {
			p.log.Warn("addresses were not checked on the wire", "interface", ifi.Name, "error", err)
		}
	}
	warn(p.round(ctx, r, conn, own))
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			warn(p.settle(ctx, r, conn, own))
		case <-tick.C:
			warn(p.round(ctx, r, conn, own))
		}
	}
}

// settle asks for the addresses that wait.
func (p *Prober) settle(ctx context.Context, r Range, conn *packet.Conn, own store.MAC) error {
	ask := p.doubts()
	defer p.letGo(ask...)
	taken, err := p.question(ctx, conn, own, ask, false)
	if err != nil || ctx.Err() != nil {
		return err
	}
	for _, a := range ask {
		p.letGo(a)
		r.Asked(ctx, a, taken[a])
	}
	return nil
}

// round asks for the next addresses whose last check is about to grow old.
func (p *Prober) round(ctx context.Context, r Range, conn *packet.Conn, own store.MAC) error {
	next, err := r.Next(ctx)
	if err != nil {
		return err
	}
	p.forget(next)
	var ask []netip.Addr
	for _, a := range next {
		if p.stale(a) {
			ask = append(ask, a)
		}
	}
	taken, err := p.question(ctx, conn, own, ask, true)
	for a, all := range taken {
		for _, by := range all {
			// A client may have been given the address meanwhile.
			if !r.Holds(ctx, a, by) {
				p.log.Warn("a free address of the range is used by somebody else; it is left alone", "address", a, "mac", by)
			}
		}
	}
	return err
}

// question asks the wire for addresses, and returns who answered. Nobody was given
// those that are asked for ahead.
func (p *Prober) question(ctx context.Context, conn *packet.Conn, own store.MAC, ask []netip.Addr, ahead bool) (map[netip.Addr][]store.MAC, error) {
	if len(ask) == 0 {
		return nil, nil
	}
	asked := p.now()
	p.expect(ask, ahead)
	defer p.done(ask)
	for range 2 { // a lost probe is not silence
		for _, a := range ask {
			if _, err := conn.WriteTo(wire.ARPProbe(own, a), &packet.Addr{HardwareAddr: wire.Everybody[:]}); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(answerTime / 2):
		}
	}
	return p.conclude(ask, asked), nil
}

// conclude notes silence, and returns who answered. Those that answered an earlier
// question and not this one use the address no more.
func (p *Prober) conclude(ask []netip.Addr, asked time.Time) map[netip.Addr][]store.MAC {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := map[netip.Addr][]store.MAC{}
	for _, a := range ask {
		f := p.results[a]
		f.by = slices.DeleteFunc(slices.Clone(f.by), func(u user) bool { return u.at.Before(asked) })
		if len(f.by) > 0 {
			taken[a] = f.users()
		} else {
			f.check, f.at = Quiet, p.now()
		}
		p.results[a] = f
	}
	return taken
}

// expect makes room for the answers about addresses that are asked for now.
func (p *Prober) expect(ask []netip.Addr, ahead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range ask {
		f, ok := p.results[a]
		if !ok {
			f.at = p.now()
		}
		f.asking, f.ahead = true, ahead
		p.results[a] = f
	}
}

// done ends a question, answered or not.
func (p *Prober) done(ask []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range ask {
		f := p.results[a]
		f.asking = false
		p.results[a] = f
	}
}

// stale reports whether an address is due for a check: before the last one
// stops to count, or when it was not listened for since.
func (p *Prober) stale(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.results[a]
	return !ok || !f.ahead || p.now().Sub(f.at) > life(f.check)-2*wireInterval
}

// forget drops results that no longer count, and listens no longer for addresses
// that are free and not among the next ones any more: somebody may have them.
func (p *Prober) forget(next []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, f := range p.results {
		switch {
		case p.now().Sub(f.at) > life(f.check):
			delete(p.results, a)
		case f.check == Quiet && !slices.Contains(next, a):
			f.ahead = false
			p.results[a] = f
		}
	}
}

// listen takes every ARP packet whose sender uses an address that we care
// about: RFC 5227 §2.1.1 counts requests and replies alike. A link that goes down
// is one error on the socket, which hears again when it is up. It ends with ctx, when
// conn is closed.
func (p *Prober) listen(ctx context.Context, conn *packet.Conn, own store.MAC) {
	buf := make([]byte, 128)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(listenAgain):
			}
			continue
		}
		mac, a, ok := wire.ARPSender(buf[:n])
		if !ok || mac == own || a.IsUnspecified() {
			continue
		}
		p.hear(mac, a)
	}
}

// hear takes note of who uses an address: one that is asked for now, or that nobody
// was given. The map is not for strangers to fill.
func (p *Prober) hear(mac store.MAC, a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, known := p.results[a]; known && (f.asking || f.ahead) {
		p.results[a] = f.heard(mac, p.now())
	}
}
