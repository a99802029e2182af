package tftp

import (
	"net/netip"
	"sync"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// A DHCP server that cannot tell an iPXE from firmware names the loader to the
// iPXE too, which then fetches itself for ever. An iPXE is known by the block
// size that it asks for; firmware asks for its own (1468, 1456, 512).
const (
	ipxeBlksize = 1432
	loopAfter   = 3
	loopWindow  = time.Minute
	maxLoops    = 1024
)

// loopKey is one machine's way to one loader. Machines behind one router share
// the address, so the MAC of the file name, where there is one, counts as well.
type loopKey struct {
	addr   netip.Addr
	mac    store.MAC
	loader boot.Loader
}

// loops remembers which loaders an iPXE fetched whole within loopWindow.
type loops struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[loopKey][]time.Time
}

func newLoops(now func() time.Time) *loops {
	return &loops{now: now, seen: map[loopKey][]time.Time{}}
}

// fetched notes a finished transfer of a loader to a machine that asked for blocks
// of that size.
func (l *loops) fetched(k loopKey, blksize int) {
	if blksize != ipxeBlksize {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.seen) >= maxLoops {
		for k, at := range l.seen {
			if now.Sub(at[len(at)-1]) > loopWindow {
				delete(l.seen, k)
			}
		}
		if len(l.seen) >= maxLoops {
			clear(l.seen) // only a flood of addresses gets here; its loops can wait
		}
	}
	l.seen[k] = append(recent(l.seen[k], now), now)
}

// looping reports whether an iPXE fetched a loader often enough, without
// fetching its script in between.
func (l *loops) looping(k loopKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.seen[k]
	n := len(at)
	// The window ends with the last fetch: on a wire where each stage waits for a
	// router, the next request comes a good while after it.
	return n >= loopAfter && at[n-1].Sub(at[n-loopAfter]) <= loopWindow && l.now().Sub(at[n-1]) <= loopWindow
}

// forget clears an address: its iPXE got its script.
func (l *loops) forget(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.seen {
		if k.addr == addr {
			delete(l.seen, k)
		}
	}
}

// recent keeps the last loopAfter times that lie within the window.
func recent(at []time.Time, now time.Time) []time.Time {
	for len(at) > 0 && (now.Sub(at[0]) > loopWindow || len(at) > loopAfter) {
		at = at[1:]
	}
	return at
}
