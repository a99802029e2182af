package store

// ReservationType is a type of persistent reservation by its code (SPC-4
// §6.15.3.4); 0 is none.
type ReservationType byte

// InitiatorPort is one end of a session: the initiator's name and its ISID.
type InitiatorPort struct {
	Initiator string  `json:"initiator"`
	ISID      [6]byte `json:"isid"`
}

// Registration is an initiator port that registered a reservation key.
type Registration struct {
	Port InitiatorPort `json:"port"`
	Key  uint64        `json:"key"`
}

// Reservations are the persistent reservations of one volume.
type Reservations struct {
	Generation    uint32          `json:"generation"`
	APTPL         bool            `json:"aptpl"`         // kept through a power loss
	Type          ReservationType `json:"type"`          // 0: nobody holds the volume
	Holder        InitiatorPort   `json:"holder"`        // of a reservation that one nexus holds
	Registrations []Registration  `json:"registrations"` // by initiator and ISID
}

// Empty says that there is nothing to remember.
func (r Reservations) Empty() bool { return len(r.Registrations) == 0 && r.Type == 0 }
