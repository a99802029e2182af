package dhcp

import (
	"net/netip"

	"lunboot/services/dhcp/ledger"
	"lunboot/store"
)

// This file says whose an address is: what speaks for a client's claim to it, and
// what against.

// knows reports whether there is a record that gives this client the address.
func (in *Input) knows(a netip.Addr) bool {
	return a == in.Own.Address || a == in.Offered || a == in.reserved()
}

// ownerless reports whether nobody was ever given the address here.
func (in *Input) ownerless(a netip.Addr) bool {
	f := in.at(a)
	return f.Lease.MAC.IsZero() && f.ReservedTo == 0 && f.OfferedTo.IsZero() && !f.Appliance
}

// at returns the facts about an address; those of one that was not looked up
// are empty.
func (in *Input) at(a netip.Addr) Address { return in.Addresses[a] }

// reserved returns the machine's reserved address when it lies in this subnet.
func (in *Input) reserved() netip.Addr {
	if a := in.Client.Machine.Address; a.IsValid() && in.Subnet.Prefix.Contains(a) {
		return a
	}
	return netip.Addr{}
}

// obstacle says why an address cannot be this client's, "" when it can.
func (in *Input) obstacle(a netip.Addr) string {
	if why := in.withheld(a); why != "" {
		return why
	}
	if in.taken(a) {
		return a.String() + " was found in use by somebody else"
	}
	return ""
}

// taken reports whether the wire's word keeps an address from this client.
func (in *Input) taken(a netip.Addr) bool {
	f, r := in.at(a), in.Request
	mine := f.Lease.MAC == r.MAC
	switch {
	case !f.Conflict:
	case mine && (f.InUse || r.CIAddr == a): // who runs on it has it
	case in.byReservation(f) && a == in.Offered: // it was on offer before anybody answered, or for want of another
	case in.byReservation(f) && mine && f.Lease.Expires.After(in.Now) && r.ServerID == in.serverID(): // and our ACK was lost
	default:
		return true
	}
	return false
}

func (in *Input) byReservation(f Address) bool {
	return f.ReservedTo != 0 && f.ReservedTo == in.Client.Machine.ID
}

// withheld says why an address cannot be this client's by what is known here.
func (in *Input) withheld(a netip.Addr) string {
	f := in.at(a)
	mine := f.Lease.MAC == in.Request.MAC
	live := f.Lease.Expires.After(in.Now)
	byReservation := in.byReservation(f)
	switch {
	case !ledger.Usable(in.Subnet.Prefix, a):
		return a.String() + " is not an address of " + in.Subnet.Prefix.String()
	case f.Appliance:
		return a.String() + " belongs to the network itself"
	case f.ReservedTo != 0 && !byReservation:
		return a.String() + " is reserved for another machine"
	case f.Lease.State == store.LeaseDeclined && live:
		return a.String() + " was found in use by somebody else"
	case f.Lease.State == store.LeaseBound && !mine && live:
		return a.String() + " is leased to " + f.Lease.MAC.String()
	case f.InUse && !mine && !(byReservation && f.Lease.MAC.IsZero()):
		return "another machine's volume is open from " + a.String()
	case !f.OfferedTo.IsZero() && f.OfferedTo != in.Request.MAC:
		return a.String() + " was just offered to another machine"
	case !in.Subnet.Range.Contains(a) && !byReservation && !(mine && f.InUse):
		return a.String() + " is outside the range"
	}
	return ""
}
