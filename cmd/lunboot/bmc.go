package main

import (
	"context"
	"fmt"
	"time"

	"lunboot/store"
)

// PowerState asks a machine's BMC whether the machine is on.
func (w waker) PowerState(ctx context.Context, m store.Machine) (store.PowerReport, error) {
	state, err := w.a.bmcs.State(ctx, m)
	if err != nil {
		return store.PowerReport{}, err
	}
	return store.PowerReport{Machine: m.Name, BMC: m.BMC.String(), State: state, Says: m.Name + " is " + stateWord(state)}, nil
}

func stateWord(s store.PowerState) string {
	switch s {
	case store.PowerUnknown:
		return "in a state that its BMC does not know"
	case store.PowerStateMove:
		return "between on and off"
	}
	return string(s)
}

// Power gives an order to a machine's BMC. The profile of the boot that follows is
// on disk before anything is switched.
func (w waker) Power(ctx context.Context, by store.Actor, m store.Machine, o store.PowerOrder) (store.PowerReport, error) {
	if o.Act.Loses() && !o.Force {
		for _, s := range w.a.target.Sessions() {
			if s.Machine == m.ID {
				return store.PowerReport{}, store.InUse("%s is logged in from %s and runs from its volume: what it has not written yet would be lost; shut it down first, or force it", m.Name, s.Addr)
			}
		}
	}
	state, err := w.a.bmcs.Order(ctx, m, o, func() error {
		if o.Profile == "" || o.Profile == m.OnceProfile {
			return nil
		}
		_, err := w.a.inv.SetMachine(ctx, by, m.ID, store.MachinePatch{OnceProfile: &o.Profile})
		return err
	})
	r := store.PowerReport{Machine: m.Name, BMC: m.BMC.String(), State: state, Says: fmt.Sprintf("%s %s; its BMC says that it is %s", m.Name, o.Act.Did(), stateWord(state))}
	if o.Network {
		r.Says += "; its next boot is one from the network"
	}
	if o.Profile != "" {
		r.Says += ", by the profile " + o.Profile
	}
	detail := r.Says
	if err != nil {
		detail = "not done: " + err.Error()
	}
	e := store.Event{At: time.Now(), Kind: store.EventMachinePower, Machine: m.ID, Detail: store.Detail{Hostname: m.Name, Step: string(o.Act), Reason: detail}}
	if len(m.MACs) > 0 {
		e.MAC = m.MACs[0]
	}
	w.a.seen.Emit(e)
	w.a.log.Info("the power of a machine was told", "machine", m.Name, "by", by, "order", o.Act, "network", o.Network, "profile", o.Profile, "err", err)
	// Also what failed is somebody's act on a machine.
	if e := w.a.db.Record(context.WithoutCancel(ctx), by, "machine.power", m.Name, string(o.Act)+": "+detail); err == nil {
		err = e
	}
	if err != nil {
		return store.PowerReport{}, err
	}
	return r, nil
}
