package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"lunboot/services/dhcp/ledger"
	"lunboot/services/iscsi"
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

// Network is the network that an address is in, and whether the operator trusts
// it.
func (e evidence) Network(ctx context.Context, addr netip.Addr) (netip.Prefix, bool, error) {
	text, err := store.SettingValue(ctx, e.db, store.SettingTrustedSubnets)
	if err != nil {
		return netip.Prefix{}, false, err
	}
	trusted, err := store.ParseNetworks(text)
	if err != nil {
		return netip.Prefix{}, false, err
	}
	subnets, err := e.db.Subnets(ctx)
	if err != nil {
		return netip.Prefix{}, false, err
	}
	return store.NetworkOf(addr, subnets), slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) }), nil
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

// Other returns the machine that an address belongs to, when it is certainly
// another one than the machine that a login from there names: by our lease, and
// by who answers for the address on the wire, which is newer. What cannot be read
// accuses nobody.
func (e evidence) Other(ctx context.Context, addr netip.Addr, named store.MachineID) (iscsi.Holder, bool) {
	if addr.IsLoopback() || !addr.Is4() {
		return iscsi.Holder{}, false
	}
	var holder iscsi.Holder
	if l, err := e.db.LeaseByAddress(ctx, addr); err == nil && l.State == store.LeaseBound && l.Expires.After(e.now()) {
		if m, err := e.db.MachineByMAC(ctx, l.MAC); err == nil {
			if m.ID == named {
				return iscsi.Holder{}, false
			}
			holder = iscsi.Holder{Machine: m.ID, Name: m.Name, By: "its lease"}
		}
	}
	mac, answers := neighbour(addr)
	if !answers {
		return holder, holder.Machine != 0
	}
	m, err := e.db.MachineByMAC(ctx, mac)
	if err != nil || m.ID == named {
		return iscsi.Holder{}, false
	}
	return iscsi.Holder{Machine: m.ID, Name: m.Name, By: "the neighbour table"}, true
}

// neighbour is the MAC that answers for an address on one of our own networks.
func neighbour(addr netip.Addr) (store.MAC, bool) {
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return store.MAC{}, false
	}
	for _, n := range neighbours {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == addr && len(n.HardwareAddr) == 6 {
			return store.MAC(n.HardwareAddr), true
		}
	}
	return store.MAC{}, false
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
