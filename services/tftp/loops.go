package tftp

import (
	"net/netip"
	"sync"
	"time"

	"lunboot/services/boot"
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

type loopKey struct {
	addr   netip.Addr
	loader boot.Loader
}

// loops remembers which loaders an iPXE fetched whole in the last minute.
type loops struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[loopKey][]time.Time
}

func newLoops(now func() time.Time) *loops {
	return &loops{now: now, seen: map[loopKey][]time.Time{}}
}

// fetched notes a finished transfer of a loader.
func (l *loops) fetched(addr netip.Addr, loader boot.Loader, blksize int) {
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
	k := loopKey{addr, loader}
	l.seen[k] = append(recent(l.seen[k], now), now)
}

// looping reports whether an iPXE at addr fetched loader often enough, without
// fetching its script in between.
func (l *loops) looping(addr netip.Addr, loader boot.Loader) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(recent(l.seen[loopKey{addr, loader}], l.now())) >= loopAfter
}

// forget clears an address: its iPXE got its script.
func (l *loops) forget(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, loader := range boot.Loaders() {
		delete(l.seen, loopKey{addr, loader})
	}
}

// recent keeps the last loopAfter times that lie within the window.
func recent(at []time.Time, now time.Time) []time.Time {
	for len(at) > 0 && (now.Sub(at[0]) > loopWindow || len(at) > loopAfter) {
		at = at[1:]
	}
	return at
}
