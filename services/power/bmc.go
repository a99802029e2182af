package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// maxOrders bounds the BMCs that are spoken to at a time.
const maxOrders = 32

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
	log   *slog.Logger
	slots chan struct{}

	mu   sync.Mutex
	busy map[store.MachineID]bool // an order to its BMC is under way
}

// NewController makes a Controller.
func NewController(log *slog.Logger) *Controller {
	return &Controller{log: log, slots: make(chan struct{}, maxOrders), busy: map[store.MachineID]bool{}}
}

// State asks a machine's BMC whether the machine is on.
func (c *Controller) State(ctx context.Context, m store.Machine) (state store.PowerState, err error) {
	err = c.with(ctx, m, lookTime, func(d driver) error {
		state, err = d.State()
		return err
	})
	return state, err
}

// Order carries out an order, and returns what the BMC says of the machine then.
// ready is called once the BMC is known to do its part and nothing has been
// switched; its error ends the order.
func (c *Controller) Order(ctx context.Context, m store.Machine, o store.PowerOrder, ready func() error) (state store.PowerState, err error) {
	c.mu.Lock()
	if c.busy[m.ID] {
		c.mu.Unlock()
		return "", &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Msg: "another order to its BMC is under way; wait until that is done"}
	}
	c.busy[m.ID] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.busy, m.ID)
		c.mu.Unlock()
	}()
	// Who asked may hang up; a machine that is off is switched on all the same.
	ctx = context.WithoutCancel(ctx)
	err = c.with(ctx, m, orderTime, func(d driver) error {
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
				return err
			}
		}
		if err := ready(); err != nil {
			return err
		}
		if act != "" {
			if err := d.Do(act, before); err != nil {
				return err
			}
		}
		state, err = d.State()
		if err != nil { // it was done; a BMC may be busy with it
			state = store.PowerUnknown
			c.log.Warn("a BMC does not say what became of an order", "machine", m.Name, "order", o.Act, "err", err)
		}
		return nil
	})
	return state, err
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
func (c *Controller) with(ctx context.Context, m store.Machine, limit time.Duration, do func(driver) error) error {
	if m.BMC.IsZero() {
		return &store.Error{Kind: store.KindConflict, Op: "power", Subject: m.Name, Field: "bmc", Msg: fmt.Sprintf("it has no BMC here; give it one: lunboot machine set %s --bmc redfish://USER@HOST --bmc-secret -", m.Name)}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return &store.Error{Kind: store.KindUnavailable, Op: "power", Subject: m.Name, Msg: fmt.Sprintf("%d BMCs are being spoken to already; try again in a minute", maxOrders)}
	}
	d, err := open(ctx, m, c.log)
	if err == nil {
		defer d.Close()
		err = do(d)
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
