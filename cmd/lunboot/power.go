package main

import (
	"context"
	"strings"
	"time"

	"lunboot/services/power"
	"lunboot/store"
)

// waker wakes machines on the networks that the appliance serves.
type waker struct{ a *appliance }

// Wake sends the magic packet to every card of a machine, and returns where: the
// network that holds its address or lease, or all that are served when that is
// not known.
func (w waker) Wake(ctx context.Context, by store.Actor, m store.Machine) ([]string, error) {
	subnets, err := w.a.db.Subnets(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := w.a.db.Leases(ctx)
	if err != nil {
		return nil, err
	}
	sent, err := power.Wake(ctx, m.MACs, placesOf(m, subnets, leases))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range sent {
		names = append(names, p.String())
	}
	w.a.seen.Emit(powerEvent(m, store.PowerWake, "", "magic packets were sent on "+strings.Join(names, ", ")))
	w.a.log.Info("a machine was woken", "machine", m.Name, "by", by, "on", names)
	return names, w.a.db.Record(ctx, by, "machine.wake", m.Name, "")
}

// powerEvent tells what was done about a machine's power.
func powerEvent(m store.Machine, act store.PowerAct, cause store.Cause, says string) store.Event {
	e := store.Event{At: time.Now(), Kind: store.EventMachinePower, Machine: m.ID, Detail: store.Detail{Hostname: m.Name, Step: string(act), Cause: cause, Reason: says}}
	if len(m.MACs) > 0 {
		e.MAC = m.MACs[0]
	}
	return e
}

// placesOf says where a machine is to be woken.
func placesOf(m store.Machine, subnets []store.Subnet, leases []store.Lease) []power.Place {
	var near, all []power.Place
	for _, s := range subnets {
		if s.Mode == store.DHCPOff {
			continue
		}
		p := power.Place{Interface: s.Interface}
		if s.Interface == "" {
			p.Prefix = s.Prefix
		}
		all = append(all, p)
		here := m.Address.IsValid() && s.Prefix.Contains(m.Address)
		for _, l := range leases {
			for _, mac := range m.MACs {
				here = here || l.MAC == mac && s.Prefix.Contains(l.Address)
			}
		}
		if here {
			near = append(near, p)
		}
	}
	if len(near) > 0 {
		return near
	}
	return all
}
