package reserve

import (
	"bytes"
	"cmp"
	"slices"

	"lunboot/store"
)

// Type is a kind of persistent reservation (SPC-4 §6.15.3.4).
type Type = store.ReservationType

// The types.
const (
	None                Type = 0
	WriteExclusive      Type = 1
	ExclusiveAccess     Type = 3
	WriteExclusiveOnly  Type = 5 // registrants only
	ExclusiveAccessOnly Type = 6
	WriteExclusiveAll   Type = 7 // all registrants
	ExclusiveAccessAll  Type = 8
)

func known(t Type) bool {
	switch t {
	case WriteExclusive, ExclusiveAccess, WriteExclusiveOnly, ExclusiveAccessOnly, WriteExclusiveAll, ExclusiveAccessAll:
		return true
	}
	return false
}

// all says that every registered nexus holds a reservation of the type.
func all(t Type) bool { return t == WriteExclusiveAll || t == ExclusiveAccessAll }

// registrants says that registered nexuses may use the unit under the type.
func registrants(t Type) bool { return t >= WriteExclusiveOnly }

// Port is an initiator port: with the one target port it is an I_T nexus
// (RFC 7143 §4.2.7).
type Port = store.InitiatorPort

// State is all that one unit has to remember. The zero State is a unit that
// nobody has registered with. A State is not changed after it was made.
type State = store.Reservations

// MaxRegistrations bounds the initiator ports of one unit.
const MaxRegistrations = 256

// find returns the registration of a port, or -1.
func find(s State, p Port) int {
	return slices.IndexFunc(s.Registrations, func(r store.Registration) bool { return r.Port == p })
}

// Registered says whether the port is registered.
func Registered(s State, p Port) bool { return find(s, p) >= 0 }

// Holds says whether the port is a holder of the reservation.
func Holds(s State, p Port) bool {
	return s.Type != None && (all(s.Type) && Registered(s, p) || !all(s.Type) && s.Holder == p)
}

// clone makes a State that may be changed.
func clone(s State) State {
	s.Registrations = slices.Clone(s.Registrations)
	return s
}

// order keeps READ KEYS the same from one call to the next.
func order(a, b store.Registration) int {
	return cmp.Or(cmp.Compare(a.Port.Initiator, b.Port.Initiator), bytes.Compare(a.Port.ISID[:], b.Port.ISID[:]))
}

// Access is what a command does, as far as reservations care (SPC-4 §5.13.1,
// SBC-3 §4.17).
type Access uint8

// The kinds of commands.
const (
	Always   Access = iota // runs whoever holds the unit
	Reads                  // tells of the medium or the unit and changes nothing: runs under a write exclusive reservation
	Writes                 // may change the medium, or what others see of the unit
	Register               // RESERVE and RELEASE of SPC-2: never beside registrations
)

// Allows says whether a command of the port may run beside the persistent
// reservation.
func Allows(s State, p Port, a Access) bool {
	switch {
	case a == Always:
		return true
	case a == Register:
		return len(s.Registrations) == 0
	case s.Type == None, Holds(s, p):
		return true
	case registrants(s.Type) && Registered(s, p):
		return true
	}
	exclusive := s.Type == ExclusiveAccess || s.Type == ExclusiveAccessOnly || s.Type == ExclusiveAccessAll
	return a == Reads && !exclusive
}

// Forget drops every registration of an initiator, whatever its ports, and what
// it held. It is no command: the appliance does it when the initiator's machine
// was started anew and what the boot before registered has nobody left.
func Forget(s State, initiator string) (State, []Notice) {
	next := clone(s)
	next.Registrations = slices.DeleteFunc(next.Registrations, func(r store.Registration) bool { return r.Port.Initiator == initiator })
	if len(next.Registrations) == len(s.Registrations) {
		return s, nil
	}
	next.Generation++
	held := s.Type != None && (!all(s.Type) && s.Holder.Initiator == initiator || all(s.Type) && len(next.Registrations) == 0)
	if !held {
		return next, nil
	}
	next.Type, next.Holder = None, Port{}
	return next, tellRegistered(next, Port{}, Released, s.Type)
}
