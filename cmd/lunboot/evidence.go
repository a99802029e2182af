package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"lunboot/services/dhcp/ledger"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// evidence says whether an address belongs to a MAC: by our lease, by what the
// machine was heard to ask another DHCP server for, or by the kernel's neighbour
// table for an address on one of our own networks.
type evidence struct {
	db    *sqlite.DB
	now   func() time.Time
	heard *overheard
}

// Owns reports whether addr is mac's, and what shows it.
func (e evidence) Owns(ctx context.Context, addr netip.Addr, mac store.MAC) (bool, string) {
	if l, err := e.db.LeaseByAddress(ctx, addr); err == nil && l.State == store.LeaseBound && l.Expires.After(e.now()) {
		if l.MAC == mac {
			return true, "its lease"
		}
		return false, fmt.Sprintf("%s is leased to %s", addr, l.MAC)
	}
	if e.heard.asked(mac, addr) {
		return true, "its request to another DHCP server"
	}
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Sprintf("the neighbour table cannot be read: %v", err)
	}
	for _, n := range neighbours {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr && len(n.HardwareAddr) == 6 {
			if store.MAC(n.HardwareAddr) == mac {
				return true, "the neighbour table"
			}
			return false, fmt.Sprintf("%s answers as %s", addr, n.HardwareAddr)
		}
	}
	return false, fmt.Sprintf("no lease and no neighbour entry ties %s to %s", addr, mac)
}

// overheard remembers the last address that each MAC asked another DHCP server
// for. It is bounded: when the younger half is full, the older one goes.
type overheard struct {
	next ledger.Emitter

	mu         sync.Mutex
	young, old map[store.MAC]netip.Addr
}

// maxOverheard is how many MACs at least are remembered.
const maxOverheard = 4096

// Emit learns from the event and passes it on.
func (o *overheard) Emit(e store.Event) {
	o.learn(e)
	o.next.Emit(e)
}

func (o *overheard) learn(e store.Event) {
	mac, a := e.MAC, e.Addr
	if e.Kind != store.EventDHCPOtherPick || mac.IsZero() || !a.IsValid() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.young[mac]; !ok && len(o.young) >= maxOverheard {
		o.young, o.old = nil, o.young
	}
	if o.young == nil {
		o.young = map[store.MAC]netip.Addr{}
	}
	o.young[mac] = a
}

// asked reports whether a is the last address that mac asked for.
func (o *overheard) asked(mac store.MAC, a netip.Addr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, ok := o.young[mac]
	if !ok {
		last, ok = o.old[mac]
	}
	return ok && last == a
}
