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
	r := roster{revision: at, byMAC: make(map[store.MAC]*store.Machine, len(all)), byAddress: map[netip.Addr]store.MachineID{}, ignored: map[store.MAC]bool{}}
	for i := range all {
		m := &all[i]
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

// kept is how many machines without a reserved address hold no lease: an address
// is kept for each. It is counted anew when one of their leases changed, or has
// ended.
type kept struct {
	changed bool
	known   bool
	until   time.Time // the next of their leases ends then; zero for never
	n       int
}

// waiting returns how many addresses are kept; mu is held.
func (l *Ledger) waiting(now time.Time) int {
	k := &l.kept
	if k.known && !k.changed && (k.until.IsZero() || k.until.After(now)) {
		return k.n
	}
	*k = kept{known: true}
	for _, m := range l.roster.dynamic {
		if ends, ok := l.holding(m, now); !ok {
			k.n++
		} else if k.until.IsZero() || ends.Before(k.until) {
			k.until = ends
		}
	}
	return k.n
}

// holding reports whether a machine holds a lease, and until when.
func (l *Ledger) holding(m *store.Machine, now time.Time) (ends time.Time, ok bool) {
	for _, mac := range m.MACs {
		for r := l.byMAC[mac]; r != nil; r = r.next {
			if r.State == store.LeaseBound && r.Expires.After(now) && r.Expires.After(ends) {
				ends, ok = r.Expires, true
			}
		}
	}
	return ends, ok
}
