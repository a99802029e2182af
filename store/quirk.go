package store

import "slices"

// Quirk is one thing that a machine's firmware does against the rules, and that
// its boot answers make up for. Firmware does not say so of itself: the operator
// sets it, for one machine.
type Quirk string

// The closed list of quirks.
const (
	// QuirkNoProxyOffer: firmware that is offered an address by one server and
	// a loader by another takes neither. In proxy mode it is offered nothing;
	// it is told what to boot when it asks on port 4011, where another DHCP
	// server must send it, or that server names the loader itself.
	QuirkNoProxyOffer Quirk = "no-proxy-offer"
	// QuirkNoOption43: the answers carry no PXE options (option 43), so that
	// the firmware asks on port 4011 before it boots.
	QuirkNoOption43 Quirk = "no-option-43"
	// QuirkOption43: the answers tell the firmware to fetch its loader at once,
	// also where UEFI is spared that in proxy mode: for firmware that never
	// asks on port 4011, or cannot reach it.
	QuirkOption43 Quirk = "option-43"
)

// Quirks lists every quirk.
func Quirks() []Quirk { return []Quirk{QuirkNoProxyOffer, QuirkNoOption43, QuirkOption43} }

// Does says what a machine with the quirk does, in words for people.
func (q Quirk) Does() string {
	switch q {
	case QuirkNoProxyOffer:
		return "is offered nothing beside another DHCP server, and is answered on port 4011 only"
	case QuirkNoOption43:
		return "is told its loader on port 4011 (no option 43)"
	case QuirkOption43:
		return "is told to fetch its loader at once (option 43)"
	}
	return string(q)
}

// ParseQuirk reads a quirk's name.
func ParseQuirk(s string) (Quirk, error) {
	if q := Quirk(s); slices.Contains(Quirks(), q) {
		return q, nil
	}
	return "", Invalid("quirks", "%q is not a quirk; choose %s, %s or %s", s, QuirkNoProxyOffer, QuirkNoOption43, QuirkOption43)
}

// validateQuirks checks a machine's quirks.
func validateQuirks(quirks []Quirk) error {
	for i, q := range quirks {
		if _, err := ParseQuirk(string(q)); err != nil {
			return err
		}
		if slices.Contains(quirks[:i], q) {
			return Invalid("quirks", "the quirk %q is given twice", string(q))
		}
	}
	if slices.Contains(quirks, QuirkNoOption43) && slices.Contains(quirks, QuirkOption43) {
		return Invalid("quirks", "%q and %q say the opposite of each other", string(QuirkNoOption43), string(QuirkOption43))
	}
	return nil
}
