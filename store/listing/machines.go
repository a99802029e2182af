package listing

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"lunboot/store"
)

// Machine is a machine of a list, with how its last boot went.
type Machine struct {
	store.Machine
	State   store.BootState
	Seen    time.Time // or heard of while it booted
	Attempt store.Attempt
	Tried   bool
}

// MachineSource is where machines and their last boots are looked up.
type MachineSource struct {
	Machines func(context.Context, store.MachineFilter) ([]store.Machine, int, error)
	Latest   func(store.MachineID, store.MAC) (store.Attempt, bool)
}

// Find returns all machines that a search finds, by name.
func (s MachineSource) Find(ctx context.Context, search store.MachineSearch) ([]*Machine, error) {
	ms, _, err := s.Machines(ctx, search.MachineFilter)
	if err != nil {
		return nil, err
	}
	all := make([]Machine, len(ms)) // a machine is large: lists of them are sorted by their addresses
	out := make([]*Machine, 0, len(ms))
	for i := range ms {
		m := &all[i]
		m.Machine, m.Seen = ms[i], ms[i].LastSeen
		m.Attempt, m.Tried = s.Latest(m.ID, store.MAC{})
		m.State = store.BootStateOf(m.Attempt, m.Tried)
		if m.Tried && m.Attempt.Updated.After(m.Seen) {
			m.Seen = m.Attempt.Updated
		}
		if search.State == "" || search.State == m.State {
			out = append(out, m)
		}
	}
	return out, nil
}

// MachineColumns are what machines are sorted by. Attention is the usual order:
// who needs a look comes first.
func MachineColumns() []string { return []string{"attention", "name", "profile", "address", "seen"} }

// SortMachines puts machines into an order.
func SortMachines(ms []*Machine, by string) error {
	name, falls := strings.CutPrefix(by, "-")
	var order func(a, b *Machine) int
	switch name {
	case "attention", "":
		states := store.BootStates()
		rank := make(map[store.BootState]int, len(states))
		for i, st := range states {
			rank[st] = i
		}
		order = func(a, b *Machine) int { return rank[a.State] - rank[b.State] }
	case "name":
		order = func(a, b *Machine) int { return cmp.Compare(a.Name, b.Name) }
	case "profile":
		order = func(a, b *Machine) int { return cmp.Compare(a.Profile, b.Profile) }
	case "address":
		order = func(a, b *Machine) int { return a.Address.Compare(b.Address) }
	case "seen":
		order = func(a, b *Machine) int { return b.Seen.Compare(a.Seen) } // the newest first
	default:
		return store.CheckSort(by, MachineColumns())
	}
	sign := 1
	if falls {
		sign = -1
	}
	slices.SortFunc(ms, func(a, b *Machine) int {
		return cmp.Or(sign*order(a, b), sign*cmp.Compare(a.Name, b.Name)) // names are unique
	})
	return nil
}
