package ledger

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"lunboot/store"
)

// roster is who is known, as it was read.
type roster struct {
	revision  int64
	byMAC     map[store.MAC]*store.Machine
	byAddress map[netip.Addr]store.MachineID // reserved addresses
	dynamic   []*store.Machine               // machines without a reserved address
	ignored   map[store.MAC]bool
	ids       map[store.MachineID]bool
}

func readRoster(ctx context.Context, from Machines, at int64) (roster, error) {
	all, _, err := from.Machines(ctx, store.MachineFilter{})
	if err != nil {
		return roster{}, fmt.Errorf("list the machines: %w", err)
	}
	ignored, err := from.IgnoredMACs(ctx)
	if err != nil {
		return roster{}, fmt.Errorf("list the machines that are ignored: %w", err)
	}
	r := roster{revision: at, byMAC: make(map[store.MAC]*store.Machine, len(all)), byAddress: map[netip.Addr]store.MachineID{}, ignored: map[store.MAC]bool{}, ids: make(map[store.MachineID]bool, len(all))}
	for i := range all {
		m := &all[i]
		r.ids[m.ID] = true
		for _, mac := range m.MACs {
			r.byMAC[mac] = m
		}
		if m.Address.IsValid() {
			r.byAddress[m.Address] = m.ID
		} else {
			r.dynamic = append(r.dynamic, m)
		}
	}
	for _, mac := range ignored {
		r.ignored[mac] = true
	}
	return r, nil
}

// kept is how many machines of a network without a reserved address hold no lease
// there: an address is kept for each. It is counted anew when one of their leases
// changed, or has ended.
type kept struct {
	until time.Time // the next of their leases ends then; zero for never
	n     int
}

// waiting returns how many addresses of a network are kept; mu is held.
func (l *Ledger) waiting(network netip.Prefix, now time.Time) int {
	k, known := l.kept[network]
	if known && (k.until.IsZero() || k.until.After(now)) {
		return k.n
	}
	k = kept{}
	for _, m := range l.roster.dynamic {
		if home, known := l.home(m); known && !network.Contains(home.Addr()) {
			continue
		}
		if ends, ok := l.holding(m, network, now); !ok {
			k.n++
		} else if k.until.IsZero() || ends.Before(k.until) {
			k.until = ends
		}
	}
	l.kept[network] = k
	return k.n
}

// home returns the network where a machine was last: it asked there, or has its
// newest lease there. One that was never seen anywhere may come anywhere.
func (l *Ledger) home(m *store.Machine) (network netip.Prefix, known bool) {
	if at, ok := l.homes[m.ID]; ok {
		return at, true
	}
	var newest *row
	for _, mac := range m.MACs {
		for r := l.byMAC[mac]; r != nil; r = r.next {
			if r.State == store.LeaseBound && (newest == nil || r.Updated.After(newest.Updated)) {
				newest = r
			}
		}
	}
	if newest == nil {
		return network, false
	}
	return netip.PrefixFrom(newest.Address, newest.Address.BitLen()), true
}

// At notes from which network a machine asks.
func (t Turn) At(m store.MachineID, network netip.Prefix) {
	if at, ok := t.l.homes[m]; ok && at == network {
		return
	}
	t.l.homes[m] = network
	clear(t.l.kept)
}

// holding reports whether a machine holds a lease of a network, and until when.
func (l *Ledger) holding(m *store.Machine, network netip.Prefix, now time.Time) (ends time.Time, ok bool) {
	for _, mac := range m.MACs {
		for r := l.byMAC[mac]; r != nil; r = r.next {
			if r.State == store.LeaseBound && network.Contains(r.Address) && r.Expires.After(now) && r.Expires.After(ends) {
				ends, ok = r.Expires, true
			}
		}
	}
	return ends, ok
}
