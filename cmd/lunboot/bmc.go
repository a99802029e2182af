package main

import (
	"context"
	"fmt"

	"lunboot/services/power"
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
	var once *string // the profile of its next boot, before this order chose another
	out, err := w.a.bmcs.Order(ctx, m, o, func(ctx context.Context) error {
		now, err := w.a.db.Machine(ctx, m.ID)
		if err != nil || o.Profile == "" || o.Profile == now.OnceProfile {
			return err
		}
		once = &now.OnceProfile
		_, err = w.a.inv.SetMachine(ctx, by, m.ID, store.MachinePatch{OnceProfile: &o.Profile})
		return err
	})
	r := store.PowerReport{Machine: m.Name, BMC: m.BMC.String(), State: out.State, Says: became(m.Name, o, out)}
	detail, step, cause := r.Says, out.Act, store.Cause("")
	if err != nil {
		if once != nil {
			if e := w.disarm(context.WithoutCancel(ctx), by, m.ID, o.Profile, *once); e != nil {
				err = fmt.Errorf("%w; its next boot is still by the profile %s: %w", err, o.Profile, e)
			}
		}
		detail, step, cause = "not done: "+err.Error(), o.Act, store.CauseNotDone
		if out.Maybe {
			detail, cause = "failed, and may be done all the same: "+err.Error(), ""
		}
	}
	w.a.seen.Emit(powerEvent(m, step, cause, detail))
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

// became says what became of an order that was carried out.
func became(name string, o store.PowerOrder, out power.Outcome) string {
	says := fmt.Sprintf("%s %s; its BMC says that it is %s", name, out.Act.Did(), stateWord(out.State))
	if out.Act == "" {
		is := store.PowerStateOff
		if o.Act == store.PowerOn {
			is = store.PowerStateOn
		}
		says = fmt.Sprintf("%s is %s already; nothing was switched", name, is)
	}
	if o.Network {
		says += "; its next boot is one from the network"
	}
	if o.Profile != "" {
		says += ", by the profile " + o.Profile
	}
	return says
}

// disarm takes back the profile that an order chose for a boot which it then did
// not bring about: an installer would wait for whichever comes next. What somebody
// else chose meanwhile stays.
func (w waker) disarm(ctx context.Context, by store.Actor, id store.MachineID, chosen, before string) (err error) {
	for range 3 { // somebody may change the machine in between
		now, e := w.a.db.Machine(ctx, id)
		if e != nil || now.OnceProfile != chosen {
			return e
		}
		_, err = w.a.inv.SetMachine(ctx, by, id, store.MachinePatch{Revision: now.Revision, OnceProfile: &before})
		if store.KindOf(err) != store.KindStale {
			return err
		}
	}
	return err
}
