package reserve

import (
	"encoding/binary"
	"errors"
	"slices"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// Action is the service action of PERSISTENT RESERVE OUT (SPC-4 §6.16.2).
type Action byte

// The actions.
const (
	ActRegister       Action = 0
	ActReserve        Action = 1
	ActRelease        Action = 2
	ActClear          Action = 3
	ActPreempt        Action = 4
	ActPreemptAbort   Action = 5
	ActRegisterIgnore Action = 6 // REGISTER AND IGNORE EXISTING KEY
	ActMove           Action = 7 // REGISTER AND MOVE
)

// Condition is what a nexus is told of somebody else's PERSISTENT RESERVE OUT.
type Condition uint8

// The unit attention conditions (SPC-4 §5.13).
const (
	ReservationsPreempted  Condition = iota + 1 // 2Ah/03h
	Released                                    // 2Ah/04h
	RegistrationsPreempted                      // 2Ah/05h
)

// Notice is a unit attention condition for one port, and whether its tasks are
// aborted.
type Notice struct {
	Port      Port
	Condition Condition
	Abort     bool
}

// ErrConflict ends a command with status RESERVATION CONFLICT.
var ErrConflict = errors.New("reservation conflict")

// errInvalidRelease is INVALID RELEASE OF PERSISTENT RESERVATION.
var errInvalidRelease = &sense.Data{Key: sense.KeyIllegalRequest, ASC: 0x26, ASCQ: 0x04}

// errNoRoom is INSUFFICIENT REGISTRATION RESOURCES.
var errNoRoom = &sense.Data{Key: sense.KeyIllegalRequest, ASC: 0x55, ASCQ: 0x04}

// ListLength is the length of the parameter list of every action but REGISTER
// AND MOVE, whose list begins as long and goes on with a TransportID.
const ListLength = 24

// MaxListLength is that of REGISTER AND MOVE to the port with the longest name.
const MaxListLength = ListLength + 4 + (maxName+len(separator)+12)/4*4 + 4

// Out is a PERSISTENT RESERVE OUT command.
type Out struct {
	Action Action
	Scope  byte // other than 0 only where it is not looked at
	Type   Type
	Key    uint64 // RESERVATION KEY
	New    uint64 // SERVICE ACTION RESERVATION KEY
	APTPL  bool

	// Of REGISTER AND MOVE alone.
	To         Port
	Unregister bool // UNREG
}

// ParseOut reads the CDB's second and third byte and the parameter list.
func ParseOut(action, scopeType byte, list []byte) (Out, error) {
	o := Out{Action: Action(action & 0x1f), Scope: scopeType >> 4, Type: Type(scopeType & 0x0f)}
	if o.Action > ActMove {
		return o, sense.InvalidField(1, 4)
	}
	// SPEC_I_PT: registering for other initiator ports (SIP_C=0), whose names are
	// behind the list proper. ALL_TG_PT means all target ports, and there is one.
	const specIPT, aptpl = 0x08, 0x01
	switch {
	case len(list) < ListLength:
		return o, sense.ParameterLength
	case o.Action == ActMove:
	case list[20]&specIPT != 0:
		return o, sense.InvalidParameter(20)
	case len(list) != ListLength:
		return o, sense.ParameterLength
	}
	o.Key, o.New = binary.BigEndian.Uint64(list), binary.BigEndian.Uint64(list[8:])
	switch o.Action {
	case ActReserve, ActRelease:
		if err := o.reservable(); err != nil {
			return o, err
		}
	case ActPreempt, ActPreemptAbort: // looked at when there is something to take
	case ActMove:
		o.Scope, o.Type = 0, None
		return o, o.parseMove(list)
	default:
		o.Scope, o.Type = 0, None // ignored
	}
	o.APTPL = list[20]&aptpl != 0
	return o, nil
}

// reservable says whether scope and type are those of a reservation.
func (o Out) reservable() error {
	switch {
	case o.Scope != 0: // only the scope LU_SCOPE is left
		return sense.InvalidField(2, 7)
	case !known(o.Type):
		return sense.InvalidField(2, 3)
	}
	return nil
}

// parseMove reads the parameter list of REGISTER AND MOVE (SPC-4 §6.16.4).
func (o *Out) parseMove(list []byte) (err error) {
	const unreg, aptpl = 0x02, 0x01
	o.Unregister, o.APTPL = list[17]&unreg != 0, list[17]&aptpl != 0
	id := list[ListLength:]
	switch n := binary.BigEndian.Uint32(list[20:]); {
	case n < 24: // SPC-4 §7.6.4.1
		return sense.InvalidParameter(20)
	case uint64(n) != uint64(len(id)):
		return sense.ParameterLength
	case binary.BigEndian.Uint16(list[18:]) != relativePort:
		return sense.InvalidParameter(18)
	}
	o.To, err = parseTransportID(id, ListLength)
	return err
}

// Apply carries out a command of the port: the State after it, and who must be
// told. On an error nothing has changed.
func (o Out) Apply(s State, p Port) (State, []Notice, error) {
	at := find(s, p)
	switch o.Action {
	case ActRegister:
		if at < 0 && o.Key != 0 || at >= 0 && s.Registrations[at].Key != o.Key {
			return s, nil, ErrConflict
		}
		return o.register(s, p, at)
	case ActRegisterIgnore:
		return o.register(s, p, at)
	}
	// Everything else is for registered nexuses that know their key.
	if at < 0 || s.Registrations[at].Key != o.Key {
		return s, nil, ErrConflict
	}
	switch o.Action {
	case ActReserve:
		return o.reserve(s, p)
	case ActRelease:
		return o.release(s, p)
	case ActClear:
		return clearAll(s, p)
	case ActMove:
		return o.move(s, p)
	}
	return o.preempt(s, p)
}

// register adds, changes or takes back a registration (SPC-4 §5.13.7).
func (o Out) register(s State, p Port, at int) (State, []Notice, error) {
	if at < 0 && o.New == 0 {
		return s, nil, nil // nothing to take back
	}
	next := clone(s)
	next.Generation++
	next.APTPL = o.APTPL
	switch {
	case o.New == 0:
		next, notices := unregister(next, p)
		return next, notices, nil
	case at >= 0:
		next.Registrations[at].Key = o.New
	case len(next.Registrations) >= MaxRegistrations:
		return s, nil, errNoRoom
	default:
		next.Registrations = append(next.Registrations, store.Registration{Port: p, Key: o.New})
		slices.SortFunc(next.Registrations, order)
	}
	return next, nil, nil
}

// unregister takes back a registration, and the reservation with its last
// holder (SPC-4 §5.13.11.2, §5.13.11.3). s may be changed.
func unregister(s State, p Port) (State, []Notice) {
	held := Holds(s, p)
	s.Registrations = slices.DeleteFunc(s.Registrations, func(r store.Registration) bool { return r.Port == p })
	if !held || all(s.Type) && len(s.Registrations) > 0 {
		return s, nil
	}
	was := s.Type
	s.Type, s.Holder = None, Port{}
	return s, tellRegistered(s, p, Released, was)
}

// tellRegistered makes a notice for every registered nexus but one, where the
// type of the reservation that ended made the others live by it.
func tellRegistered(s State, but Port, c Condition, was Type) []Notice {
	if !registrants(was) {
		return nil
	}
	var notices []Notice
	for _, r := range s.Registrations {
		if r.Port != but {
			notices = append(notices, Notice{Port: r.Port, Condition: c})
		}
	}
	return notices
}

// reserve is RESERVE (SPC-4 §5.13.9).
func (o Out) reserve(s State, p Port) (State, []Notice, error) {
	if s.Type != None {
		if Holds(s, p) && s.Type == o.Type {
			return s, nil, nil
		}
		return s, nil, ErrConflict
	}
	s.Type = o.Type
	if !all(o.Type) {
		s.Holder = p
	}
	return s, nil, nil
}

// release is RELEASE (SPC-4 §5.13.11.2).
func (o Out) release(s State, p Port) (State, []Notice, error) {
	if !Holds(s, p) {
		return s, nil, nil // nothing to release is no error
	}
	if s.Type != o.Type {
		return s, nil, errInvalidRelease
	}
	s.Type, s.Holder = None, Port{}
	return s, tellRegistered(s, p, Released, o.Type), nil
}

// clearAll is CLEAR (SPC-4 §5.13.11.6).
func clearAll(s State, p Port) (State, []Notice, error) {
	var notices []Notice
	for _, r := range s.Registrations {
		if r.Port != p {
			notices = append(notices, Notice{Port: r.Port, Condition: ReservationsPreempted})
		}
	}
	return State{Generation: s.Generation + 1, APTPL: s.APTPL}, notices, nil
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 §5.13.11.4, §5.13.11.5).
func (o Out) preempt(s State, p Port) (State, []Notice, error) {
	abort := o.Action == ActPreemptAbort
	takes := false // the reservation changes hands
	var gone func(store.Registration) bool
	switch {
	case all(s.Type) && o.New == 0:
		takes = true
		gone = func(r store.Registration) bool { return r.Port != p }
	case o.New == 0:
		return s, nil, sense.InvalidParameter(8)
	default:
		gone = func(r store.Registration) bool { return r.Key == o.New && r.Port != p }
		if holder := find(s, s.Holder); s.Type != None && !all(s.Type) && holder >= 0 && s.Registrations[holder].Key == o.New {
			takes = true
		} else if !slices.ContainsFunc(s.Registrations, func(r store.Registration) bool { return r.Key == o.New }) {
			return s, nil, ErrConflict
		}
	}
	if err := o.reservable(); takes && err != nil {
		return s, nil, err
	}
	next := clone(s)
	next.Generation++
	var notices []Notice
	for _, r := range s.Registrations {
		if gone(r) {
			notices = append(notices, Notice{Port: r.Port, Condition: RegistrationsPreempted, Abort: abort})
		}
	}
	next.Registrations = slices.DeleteFunc(next.Registrations, gone)
	if !takes {
		// An all registrants reservation goes with the last registration that
		// it had; the one of the preempting nexus is left in any case.
		return next, notices, nil
	}
	next.Type, next.Holder = o.Type, Port{}
	if !all(o.Type) {
		next.Holder = p
	}
	if s.Type != o.Type {
		// Who stays registered lives under another type from now on, whatever
		// it was.
		for _, r := range next.Registrations {
			if r.Port != p {
				notices = append(notices, Notice{Port: r.Port, Condition: Released})
			}
		}
	}
	return next, notices, nil
}

// move is REGISTER AND MOVE (SPC-4 §5.13.8): a key for another nexus, which
// holds the reservation from then on.
func (o Out) move(s State, p Port) (State, []Notice, error) {
	switch {
	case s.Type == None:
		return s, nil, sense.InvalidField(1, 4)
	case all(s.Type), s.Holder != p:
		return s, nil, ErrConflict
	case o.New == 0:
		return s, nil, sense.InvalidParameter(8)
	case o.To == p:
		return s, nil, sense.InvalidParameter(ListLength)
	}
	next := clone(s)
	if at := find(next, o.To); at >= 0 {
		next.Registrations[at].Key = o.New
	} else if len(next.Registrations) < MaxRegistrations {
		next.Registrations = append(next.Registrations, store.Registration{Port: o.To, Key: o.New})
		slices.SortFunc(next.Registrations, order)
	} else {
		return s, nil, errNoRoom
	}
	if o.Unregister {
		next.Registrations = slices.DeleteFunc(next.Registrations, func(r store.Registration) bool { return r.Port == p })
	}
	next.Generation++
	next.APTPL, next.Holder = o.APTPL, o.To
	return next, nil, nil
}
