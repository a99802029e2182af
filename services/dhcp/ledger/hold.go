package ledger

import (
	"net/netip"
	"sync"
	"time"

	"lunboot/store"
)

// HoldTime is how long an offered address is kept for its REQUEST. It is the same
// for all, so that what was held first ends first.
const HoldTime = time.Minute

// client is a MAC in a network: one card may ask in several at a time.
type client struct {
	mac     store.MAC
	network netip.Prefix
}

// hold is an address that was offered, or whose lease is being written: nobody
// else is given it meanwhile.
type hold struct {
	client
	address      netip.Addr
	stranger     bool
	until        time.Time
	older, newer *hold
}

// holds has at most one hold a client and one an address, in the order in which
// they were made. All last equally long, so that the oldest ends first.
type holds struct {
	byAddr   map[netip.Addr]*hold
	byClient map[client]*hold
	ends     hold // of a ring: its newer is the oldest
}

func newHolds() holds {
	return holds{byAddr: map[netip.Addr]*hold{}, byClient: map[client]*hold{}}
}

// oldest returns the hold that was made first, nil when there is none.
func (s *holds) oldest() *hold {
	if s.ends.newer == &s.ends {
		return nil
	}
	return s.ends.newer
}

func (s *holds) add(h *hold) {
	if s.ends.newer == nil {
		s.ends.newer, s.ends.older = &s.ends, &s.ends
	}
	s.byAddr[h.address], s.byClient[h.client] = h, h
	h.older, h.newer = s.ends.older, &s.ends
	h.older.newer, s.ends.older = h, h
}

func (s *holds) remove(h *hold) {
	delete(s.byAddr, h.address)
	delete(s.byClient, h.client)
	h.older.newer, h.newer.older = h.newer, h.older
}

// crowd counts the reasons why a MAC is no stranger.
type crowd struct {
	mu sync.RWMutex
	n  map[store.MAC]int
}

func (c *crowd) has(mac store.MAC) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.n[mac] > 0
}

func (c *crowd) add(mac store.MAC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[mac]++
}

func (c *crowd) leave(mac store.MAC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n[mac]--; c.n[mac] <= 0 {
		delete(c.n, mac)
	}
}

func (c *crowd) become(n map[store.MAC]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = n
}
