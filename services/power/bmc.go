package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"lunboot/services/power/fault"
	"lunboot/services/power/ipmi"
	"lunboot/services/power/redfish"
	"lunboot/store"
)

// How long a BMC may take. They are slow: a login takes some of them seconds, and
// a machine that is switched off may take ten.
const (
	lookTime  = 15 * time.Second
	orderTime = time.Minute
)

// The BMCs that are spoken to at a time. Looks have slots of their own: whoever may
// look is not in the way of who may switch.
const (
	maxOrders = 32
	maxLooks  = 8
)

// freshTime is how long an answer serves who asks next. A BMC has few sessions, and
// locks out a user after a few wrong passwords.
const freshTime = 2 * time.Second

// driver is a login at a BMC. What it returns says in words what went wrong.
type driver interface {
	State() (store.PowerState, error)
	// BootNetworkOnce makes the next boot, and no other, one from the network.
	BootNetworkOnce() error
	// Do carries an act out on a machine that is in this state.
	Do(act store.PowerAct, before store.PowerState) error
	Close()
}

// Controller speaks to the BMCs of machines.
type Controller struct {
	log  *slog.Logger
	open func(context.Context, store.Machine, *slog.Logger) (driver, error)

	orderSlots, lookSlots chan struct{}

	mu    sync.Mutex
	busy  map[store.MachineID]bool // an order to its BMC is under way
	looks map[subject]*look
}

// subject is what a look is at: what changes there is another BMC, or another user
// or password.
type subject struct {
	machine store.MachineID
	bmc     store.BMC
	uuid    store.UUID
	serial  string
}

// look is one question to a BMC, for all who ask meanwhile.
type look struct {
	done chan struct{} // closed when the rest is set
	// state and err are the answer, until is how long it serves; left says that who
	// asked hung up before it came.
	state store.PowerState
	err   error
	until time.Time
	left  bool
}

// NewController makes a Controller.
func NewController(log *slog.Logger) *Controller {
	return &Controller{log: log, open: open, orderSlots: make(chan struct{}, maxOrders), lookSlots: make(chan struct{}, maxLooks),
		busy: map[store.MachineID]bool{}, looks: map[subject]*look{}}
}

// State asks a machine's BMC whether the machine is on. It is asked one question at
// a time, and what it says is the answer to all who asked.
func (c *Controller) State(ctx context.Context, m store.Machine) (store.PowerState, error) {
	s := subject{machine: m.ID, bmc: m.BMC, uuid: m.UUID, serial: m.Serial}
	for {
		c.mu.Lock()
		l := c.looks[s]
		if l == nil || l.old(time.Now()) {
			l = &look{done: make(chan struct{})}
			c.forget(func(_ subject, l *look) bool { return l.old(time.Now()) })
			c.looks[s] = l
			c.mu.Unlock()
			c.ask(ctx, m, l)
			return l.state, l.err
		}
		c.mu.Unlock()
		select {
		case <-l.done:
			if !l.left {
				return l.state, l.err
			}
		case <-ctx.Done():
			return store.PowerUnknown, fault.Error(m.Name, ctx.Err())
		}
	}
}

func (c *Controller) ask(ctx context.Context, m store.Machine, l *look) {
	defer close(l.done)
	defer func() { // also after a fault
		l.until, l.left = time.Now().Add(freshTime), l.err != nil && ctx.Err() != nil
	}()
	l.err = errors.New("the question to its BMC was not finished")
	l.err = c.with(ctx, m, c.lookSlots, lookTime, func(_ context.Context, d driver) (err error) {
		l.state, err = d.State()
		return err
	})
}

// old reports an answer that serves nobody any more.
func (l *look) old(now time.Time) bool {
	select {
	case <-l.done:
		return l.left || !now.Before(l.until)
	default:
		return false
	}
}

// forget drops looks; mu is held. Who waits for one has it all the same.
func (c *Controller) forget(which func(subject, *look) bool) {
	maps.DeleteFunc(c.looks, which)
}

// Outcome is what became of an order.
type Outcome struct {
	Act   store.PowerAct   // that was carried out; empty when the machine was so already
	State store.PowerState // as the BMC says then
	Maybe bool             // the order failed, and its act may have happened all the same
}

// Order carries out an order, and returns what became of it. ready is called once
// the BMC is known to do its part and nothing has been switched; its error ends the
// order. Its context is the order's: it does not end when who asked hangs up.
func (c *Controller) Order(ctx context.Context, m store.Machine, o store.PowerOrder, ready func(context.Context) error) (Outcome, error) {
	c.mu.Lock()
	if c.busy[m.ID] {
		c.mu.Unlock()
		return Outcome{}, &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Msg: "another order to its BMC is under way; wait until that is done"}
	}
	c.busy[m.ID] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.busy, m.ID)
		c.forget(func(s subject, _ *look) bool { return s.machine == m.ID }) // what was seen before is no more
		c.mu.Unlock()
	}()
	// Who asked may hang up; a machine that is off is switched on all the same.
	ctx = context.WithoutCancel(ctx)
	var out Outcome
	left := "" // what a failed order leaves behind
	err := c.with(ctx, m, c.orderSlots, orderTime, func(ctx context.Context, d driver) error {
		before, err := d.State()
		if err != nil {
			return err
		}
		act, err := fitting(m, o.Act, before)
		if err != nil {
			return err
		}
		if o.Network {
			if err := d.BootNetworkOnce(); err != nil {
				if !fault.Before(err) {
					left = "; its next boot may be one from the network all the same"
				}
				return err
			}
			left = "; its next boot is still one from the network, as its BMC was told"
		}
		if err := ready(ctx); err != nil {
			return err
		}
		if act != "" {
			if err := d.Do(act, before); err != nil {
				out.Maybe = !fault.Before(err)
				return err
			}
		}
		out.Act = act
		out.State, err = d.State()
		if err != nil { // it was done; a BMC may be busy with it
			out.State = store.PowerUnknown
			c.log.Warn("a BMC does not say what became of an order", "machine", m.Name, "order", o.Act, "err", err)
		}
		return nil
	})
	if err != nil && left != "" {
		err = fmt.Errorf("%w%s", err, left)
	}
	return out, err
}

// fitting is what an order comes to for a machine that is on or off; empty when it
// is so already. A machine that is off is not reset: it is switched on, where
// that was meant, and else nothing is.
func fitting(m store.Machine, act store.PowerAct, is store.PowerState) (store.PowerAct, error) {
	off := is == store.PowerStateOff
	switch act {
	case store.PowerOn:
		if is == store.PowerStateOn {
			return "", nil
		}
	case store.PowerOff, store.PowerShutdown:
		if off {
			return "", nil
		}
	case store.PowerCycle:
		if off { // the standards leave open what a cycle of it is
			return store.PowerOn, nil
		}
	case store.PowerReset:
		if off {
			return "", &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Msg: "it is off, and there is nothing to reset; switch it on"}
		}
	}
	return act, nil
}

// with logs in at a machine's BMC and out again.
func (c *Controller) with(ctx context.Context, m store.Machine, slots chan struct{}, limit time.Duration, do func(context.Context, driver) error) error {
	if m.BMC.IsZero() {
		return &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Field: "bmc", Msg: fmt.Sprintf("it has no BMC here; give it one: lunboot machine set %s --bmc redfish://USER@HOST --bmc-secret -", m.Name)}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return &store.Error{Kind: store.KindUnavailable, Op: "power", Subject: m.Name, Msg: fmt.Sprintf("%d BMCs are being spoken to already; try again in a minute", cap(slots))}
	}
	d, err := c.open(ctx, m, c.log)
	if err == nil {
		defer d.Close()
		err = do(ctx, d)
	}
	var known *fault.Fault
	if errors.As(err, &known) && known.Err != nil {
		c.log.Info("a BMC did not do as it was told", "machine", m.Name, "bmc", m.BMC, "why", known.Why, "err", fault.Words(known.Err.Error()))
	}
	return fault.Error(m.Name, err)
}

func open(ctx context.Context, m store.Machine, log *slog.Logger) (driver, error) {
	if m.BMC.Protocol == store.BMCIPMI {
		return ipmi.Open(ctx, ipmi.Target{BMC: m.BMC, Machine: m.Name, UEFI: m.Firmware == "UEFI", Log: log})
	}
	return redfish.Open(ctx, redfish.Target{BMC: m.BMC, Machine: m.Name, UUID: m.UUID, Serial: m.Serial, Log: log})
}
