package ledger

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"lunboot/store"
)

// Emitter takes events. It does not block.
type Emitter interface {
	Emit(e store.Event)
}

// Past is the journal of events.
type Past interface {
	Events(ctx context.Context, f store.EventFilter) ([]store.Event, error)
	LastSeq(ctx context.Context) (int64, error)
}

// Use remembers from which addresses initiators hold sessions, or held one in
// the last hour: such an address goes to nobody else. It stands before the
// journal and learns from the events that pass.
type Use struct {
	next Emitter
	now  func() time.Time

	mu   sync.Mutex
	live map[string]netip.Addr    // session → address
	held map[netip.Addr]int       // address → its live sessions
	last map[netip.Addr]time.Time // address → last sign of a session
}

// holdAddress is how long an address stays in use after its last session.
const holdAddress = time.Hour

// NewUse makes one that passes every event on.
func NewUse(next Emitter, now func() time.Time) *Use {
	return &Use{next: next, now: now, live: map[string]netip.Addr{}, held: map[netip.Addr]int{}, last: map[netip.Addr]time.Time{}}
}

// rememberEvents bounds how far back a start looks for sessions of the last hour.
const rememberEvents = 20000

// Remember reads the last hour of the journal, so that a restart forgets no
// machine that is still running. others are told of each event, too.
func (u *Use) Remember(ctx context.Context, past Past, others ...func(e store.Event)) error {
	last, err := past.LastSeq(ctx)
	if err != nil {
		return err
	}
	for after := max(0, last-rememberEvents); ; {
		items, err := past.Events(ctx, store.EventFilter{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		if len(items) == 0 {
			u.mu.Lock()
			clear(u.live) // sessions of the last run ended with it
			clear(u.held)
			u.mu.Unlock()
			return nil
		}
		for _, e := range items {
			if u.now().Sub(e.At) < holdAddress {
				u.learn(&e)
				for _, tell := range others {
					tell(e)
				}
			}
			after = e.Seq
		}
	}
}

// Emit learns from the event and passes it on.
func (u *Use) Emit(e store.Event) {
	if e.At.IsZero() {
		e.At = u.now()
	}
	u.learn(&e)
	u.next.Emit(e)
}

func (u *Use) learn(e *store.Event) {
	if !e.Addr.IsValid() {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch e.Kind {
	case store.EventISCSILogin:
		u.leave(e.Detail.Session)
		u.live[e.Detail.Session] = e.Addr
		u.held[e.Addr]++
		u.last[e.Addr] = e.At
	case store.EventISCSIClosed, store.EventISCSILogout:
		u.leave(e.Detail.Session)
		u.last[e.Addr] = e.At
	case store.EventISCSIIO, store.EventISCSIFirstRead:
		u.last[e.Addr] = e.At
	}
}

// leave ends a session; mu is held.
func (u *Use) leave(session string) {
	a, ok := u.live[session]
	if !ok {
		return
	}
	delete(u.live, session)
	if u.held[a]--; u.held[a] == 0 {
		delete(u.held, a)
	}
}

// AddressInUse reports whether a session is or was there within the hour.
func (u *Use) AddressInUse(a netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held[a] > 0 {
		return true
	}
	t, ok := u.last[a]
	if ok && u.now().Sub(t) >= holdAddress {
		delete(u.last, a)
		ok = false
	}
	return ok
}
