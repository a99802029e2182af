package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"lunboot/services/iscsi/scsi/reserve"
	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// Reservations are a volume's reservations. They outlive its units: a nexus
// that is gone may come back to what it registered.
type Reservations struct {
	keep func(context.Context, store.Reservations) error // nil: a power loss ends them all

	legacy atomic.Pointer[Nexus]              // holder of RESERVE(6) and RESERVE(10)
	state  atomic.Pointer[store.Reservations] // nil until somebody registers

	mu sync.Mutex // one change at a time
}

// NewReservations returns the reservations that were kept; their generation
// begins anew with each power-on (SPC-4 §6.15.2). keep makes what is
// to survive a power loss (APTPL) durable before it returns; an error means that
// nothing changed.
func NewReservations(kept store.Reservations, keep func(context.Context, store.Reservations) error) *Reservations {
	r := &Reservations{keep: keep}
	kept.Generation = 0
	if !kept.Empty() {
		r.state.Store(&kept)
	}
	return r
}

// State returns the persistent reservations now.
func (r *Reservations) State() store.Reservations {
	if s := r.state.Load(); s != nil {
		return *s
	}
	return store.Reservations{}
}

// Untouched says that nobody ever registered or reserved: there is nothing to
// remember when the volume's last session ends.
func (r *Reservations) Untouched() bool { return r.state.Load() == nil && r.legacy.Load() == nil }

// errNotKept is INTERNAL TARGET FAILURE: what was to survive a power loss could
// not be written down.
var errNotKept = &sense.Data{Key: sense.KeyHardwareError, ASC: 0x44, ASCQ: 0x00}

// allows says whether a part of a command may use the unit, beside whatever
// reservations others hold.
func (r *Reservations) allows(n *Nexus, a reserve.Access) bool {
	if h := r.legacy.Load(); h != nil && h != n {
		return false
	}
	s := r.state.Load()
	return s == nil || reserve.Allows(*s, n.port, a)
}

// conflict says whether another nexus's reservation keeps a command from
// running.
func (r *Reservations) conflict(n *Nexus, op *operation, cdb *[16]byte) error {
	h, s := r.legacy.Load(), r.state.Load()
	if h == nil && s == nil || op.is(mayBeHarmless) && harmless(cdb) {
		return nil
	}
	if h != nil && (h != n && !op.is(passesReservation) || op.is(neverReserved)) {
		return errReservationConflict
	}
	if s != nil && !reserve.Allows(*s, n.port, op.access()) {
		return errReservationConflict
	}
	return nil
}

// harmless says that a START STOP UNIT starts the unit, or that a PREVENT ALLOW
// MEDIUM REMOVAL allows it: what nobody who holds the unit can mind (SPC-2 annex
// B, SBC-3 §4.17).
func harmless(cdb *[16]byte) bool {
	const startStop, powerAndStart, start, prevent = 0x1b, 0xf1, 0x01, 0x03
	if cdb[0] == startStop {
		return cdb[4]&powerAndStart == start
	}
	return cdb[4]&prevent == 0
}

// access is what the command does, as far as persistent reservations care
// (SPC-4 §5.13.1, SBC-3 §4.17).
func (o *operation) access() reserve.Access {
	switch {
	case o.is(reserves):
		return reserve.Register
	case o.is(passesReservation | passesPersistent):
		return reserve.Always
	case o.is(reads | looks):
		return reserve.Reads
	}
	return reserve.Writes
}

// change replaces the state by what f makes of it, durably where that was asked
// for.
func (r *Reservations) change(ctx context.Context, f func(store.Reservations) (store.Reservations, []reserve.Notice, error)) ([]reserve.Notice, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.State()
	next, notices, err := f(was)
	if err != nil {
		return nil, err
	}
	if r.keep != nil && (was.APTPL || next.APTPL) {
		kept := next
		if !next.APTPL {
			kept = store.Reservations{} // what was kept is not to come back
		}
		if err := r.keep(ctx, kept); err != nil {
			return nil, errNotKept
		}
	}
	r.state.Store(&next)
	return notices, nil
}

// Forget ends what an initiator reserved and registered, because its machine was
// started anew.
func (u *Unit) Forget(ctx context.Context, initiator string) error {
	notices, err := u.res.change(ctx, func(s store.Reservations) (store.Reservations, []reserve.Notice, error) {
		next, notices := reserve.Forget(s, initiator)
		return next, notices, nil
	})
	u.tell(notices, nil)
	return err
}

// conditions are the unit attention conditions of the notices.
var conditions = map[reserve.Condition]uint32{
	reserve.ReservationsPreempted:  uaReservationsPreempted,
	reserve.Released:               uaReservationsReleased,
	reserve.RegistrationsPreempted: uaRegistrationsPreempted,
}

// tell establishes the conditions on the nexuses that are there; by is the one
// that sent the command, which needs no telling. It returns those whose tasks
// are to be aborted.
func (u *Unit) tell(notices []reserve.Notice, by *Nexus) (preempted []*itl) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range u.itls {
		for _, notice := range notices {
			if i.nexus == by || i.nexus.port != notice.Port {
				continue
			}
			i.establish(conditions[notice.Condition])
			if notice.Abort {
				preempted = append(preempted, i)
			}
		}
	}
	return preempted
}

// parseReserve reads RESERVE and RELEASE (SPC-2): the whole unit,
// for this nexus. Extents and third parties are obsolete.
func parseReserve(c *Command) (Plan, error) {
	if c.CDB[1]&0x1f != 0 {
		return Plan{}, sense.InvalidField(1, 4)
	}
	if !c.isSix() && c.CDB[7]|c.CDB[8] != 0 {
		return Plan{}, sense.InvalidField(7, 7)
	}
	return Plan{}, nil
}

func execReserve(_ context.Context, c *Command) error {
	held := &c.itl.unit.res.legacy
	if !held.CompareAndSwap(nil, c.nexus) && held.Load() != c.nexus {
		return errReservationConflict
	}
	// The unit may have been unmapped meanwhile, and nobody would be left to
	// release it.
	if c.nexus.find(c.LUN) != c.itl {
		held.CompareAndSwap(c.nexus, nil)
		return sense.NoLUN
	}
	return nil
}

// execRelease is GOOD for a nexus that holds nothing, too (SPC-2).
func execRelease(_ context.Context, c *Command) error {
	c.itl.unit.res.legacy.CompareAndSwap(c.nexus, nil)
	return nil
}

func parsePersistentIn(c *Command) (Plan, error) {
	return c.allocation(uint32(binary.BigEndian.Uint16(c.CDB[7:]))), nil
}

// The four service actions of PERSISTENT RESERVE IN.
func execReadKeys(_ context.Context, c *Command) error {
	return c.reply(reserve.Keys(c.itl.unit.res.State()))
}

func execReadReservation(_ context.Context, c *Command) error {
	return c.reply(reserve.Reservation(c.itl.unit.res.State()))
}

func execReportCapabilities(_ context.Context, c *Command) error {
	return c.reply(reserve.Capabilities(c.itl.unit.res.State()))
}

func execReadFullStatus(_ context.Context, c *Command) error {
	return c.reply(reserve.FullStatus(c.itl.unit.res.State()))
}

// maxPortsList is room for the names of several ports.
const maxPortsList = 4 << 10

// parsePersistentOut plans PERSISTENT RESERVE OUT. An initiator that may not
// write a volume may not keep others from it either.
func parsePersistentOut(c *Command) (Plan, error) {
	if !c.itl.writable() {
		return Plan{}, sense.WriteProtected
	}
	// A longer list than there is use for is looked at too: if it registers other
	// ports, that is what is wrong with it.
	n, most := int(binary.BigEndian.Uint32(c.CDB[5:])), maxPortsList
	if reserve.Action(c.op.action()) == reserve.ActMove {
		most = reserve.MaxListLength
	}
	if n < reserve.ListLength || n > most {
		return Plan{}, sense.ParameterLength
	}
	return c.parameterList(n), nil
}

func execPersistentOut(ctx context.Context, c *Command) error {
	list, err := c.list()
	if err != nil {
		return err
	}
	out, err := reserve.ParseOut(c.CDB[1], c.CDB[2], list)
	if err != nil {
		return err
	}
	u := c.itl.unit
	notices, err := u.res.change(ctx, func(s store.Reservations) (store.Reservations, []reserve.Notice, error) {
		return out.Apply(s, c.nexus.port)
	})
	if errors.Is(err, reserve.ErrConflict) {
		return errReservationConflict
	}
	if preempted := u.tell(notices, c.nexus); len(preempted) > 0 {
		// PREEMPT AND ABORT is done when nothing of theirs can be written any
		// more (SPC-4 §5.13.11.5): that is what it is for.
		rest := make(chan struct{})
		abort(preempted, func(*itl) {}, func() { close(rest) })
		select {
		case <-rest:
		case <-ctx.Done():
			return sense.Aborted
		}
	}
	return err
}
