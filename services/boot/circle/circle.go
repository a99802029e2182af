// Package circle finds machines that fetch their loader again and again: a DHCP
// server that cannot tell an iPXE from firmware names the loader to the iPXE too,
// which then fetches itself for ever. It has no clock of its own, and no socket.
package circle

import (
	"net/netip"
	"sync"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// After is how many whole fetches within a minute make a circle.
const After = 3

const (
	window   = time.Minute
	maxRoads = 1024
)

// Road is one machine's way to one loader. Machines behind one router share the
// address, so the MAC of the file name, where there is one, counts as well.
type Road struct {
	Addr   netip.Addr
	MAC    store.MAC
	Loader boot.Loader
}

// Watch remembers which loaders iPXEs fetched whole in the last minute.
type Watch struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[Road][]time.Time
}

// New makes a watch by that clock.
func New(now func() time.Time) *Watch {
	return &Watch{now: now, seen: map[Road][]time.Time{}}
}

// Fetched notes that an iPXE was sent a whole loader.
func (l *Watch) Fetched(k Road) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.seen) >= maxRoads {
		for k, at := range l.seen {
			if now.Sub(at[len(at)-1]) > window {
				delete(l.seen, k)
			}
		}
		if len(l.seen) >= maxRoads {
			clear(l.seen) // only a flood of addresses gets here; its loops can wait
		}
	}
	l.seen[k] = append(recent(l.seen[k], now), now)
}

// Circling reports whether an iPXE fetched a loader often enough, without
// fetching its script in between.
func (l *Watch) Circling(k Road) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.seen[k]
	n := len(at)
	// The window ends with the last fetch: on a wire where each stage waits for a
	// router, the next request comes a good while after it.
	return n >= After && at[n-1].Sub(at[n-After]) <= window && l.now().Sub(at[n-1]) <= window
}

// Forget clears an address: its iPXE got its script.
func (l *Watch) Forget(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.seen {
		if k.Addr == addr {
			delete(l.seen, k)
		}
	}
}

// recent keeps the last After times that lie within the window.
func recent(at []time.Time, now time.Time) []time.Time {
	for len(at) > 0 && (now.Sub(at[0]) > window || len(at) > After) {
		at = at[1:]
	}
	return at
}
