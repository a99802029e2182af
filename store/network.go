package store

import (
	"net/netip"
	"time"
)

// DHCPMode says how the appliance takes part in DHCP on one interface.
type DHCPMode string

// The modes of an interface.
const (
	DHCPOff   DHCPMode = "off"
	DHCPFull  DHCPMode = "full"  // gives addresses
	DHCPProxy DHCPMode = "proxy" // boot answers only, beside another server
)

// Range is an inclusive range of IPv4 addresses.
type Range struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
}

// ParseRange reads "A-B".
func ParseRange(s string) (Range, error) {
	bad := Invalid("dhcp_range", "%q is not a range of addresses; write it as 192.168.40.100-192.168.40.199", s)
	for i := range s {
		if s[i] != '-' {
			continue
		}
		from, err1 := netip.ParseAddr(s[:i])
		to, err2 := netip.ParseAddr(s[i+1:])
		if err1 != nil || err2 != nil || !from.Is4() || !to.Is4() {
			return Range{}, bad
		}
		if to.Less(from) {
			return Range{}, Invalid("dhcp_range", "the range %q ends before it begins", s)
		}
		return Range{From: from, To: to}, nil
	}
	return Range{}, bad
}

// Contains reports whether a lies in the range.
func (r Range) Contains(a netip.Addr) bool {
	return r.From.IsValid() && !a.Less(r.From) && !r.To.Less(a)
}

// String prints "A-B".
func (r Range) String() string { return r.From.String() + "-" + r.To.String() }

// MarshalText prints the range.
func (r Range) MarshalText() ([]byte, error) {
	if !r.From.IsValid() {
		return nil, nil
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads the range.
func (r *Range) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*r = Range{}
		return nil
	}
	v, err := ParseRange(string(b))
	if err != nil {
		return err
	}
	*r = v
	return nil
}

// Subnet is one network that the appliance serves.
type Subnet struct {
	ID        int64         `json:"id"`
	Revision  int64         `json:"revision"`
	Interface string        `json:"interface"` // empty for a subnet behind a relay
	Prefix    netip.Prefix  `json:"prefix"`    // the network, masked
	Mode      DHCPMode      `json:"mode"`
	Range     Range         `json:"range"`
	Router    netip.Addr    `json:"router"` // option 3; the zero Addr sends none
	DNS       []netip.Addr  `json:"dns,omitempty"`
	Domain    string        `json:"domain,omitempty"`
	LeaseTime time.Duration `json:"lease_time"` // nanoseconds
}

// maxLeaseTime bounds a lease: longer ones are a slip of the pen, and DHCP reads
// the largest value as for ever (RFC 2132 §9.2).
const maxLeaseTime = 365 * 24 * time.Hour

// Validate checks everything about s that needs no look at other nouns.
func (s *Subnet) Validate() error {
	var errs []error
	switch s.Mode {
	case DHCPOff, DHCPFull, DHCPProxy:
	default:
		errs = append(errs, Invalid("mode", "%q is not a way to take part in DHCP; choose off, full or proxy", s.Mode))
	}
	if !s.Prefix.IsValid() || !s.Prefix.Addr().Is4() {
		errs = append(errs, Invalid("prefix", "a subnet needs its IPv4 network, such as 192.168.40.0/24"))
		return joinFields(errs...)
	}
	if s.Range.From.IsValid() || s.Range.To.IsValid() {
		switch {
		case !s.Prefix.Contains(s.Range.From) || !s.Prefix.Contains(s.Range.To):
			errs = append(errs, Invalid("dhcp_range", "the range %s does not lie in the network %s", s.Range, s.Prefix))
		case s.Range.To.Less(s.Range.From):
			errs = append(errs, Invalid("dhcp_range", "the range %q ends before it begins", s.Range))
		}
	}
	if s.Router.IsValid() && !s.Prefix.Contains(s.Router) {
		errs = append(errs, Invalid("router", "the router %s does not lie in the network %s, so no machine could reach it", s.Router, s.Prefix))
	}
	for _, a := range s.DNS {
		if !a.Is4() {
			errs = append(errs, Invalid("dns", "%s is not an IPv4 address", a))
		}
	}
	if s.LeaseTime < 0 || s.LeaseTime > maxLeaseTime {
		errs = append(errs, Invalid("lease_time", "a lease lasts up to a year, not %s", s.LeaseTime))
	}
	errs = append(errs, validateText("interface", s.Interface, 64), validateText("domain", s.Domain, 255))
	return joinFields(errs...)
}

// LeaseState is a lease's place in its life.
type LeaseState string

// The states of a lease.
const (
	LeaseOffered  LeaseState = "offered"
	LeaseBound    LeaseState = "bound"
	LeaseDeclined LeaseState = "declined" // somebody else uses the address
)

// Lease gives an address to a MAC for a time. The MAC is the key: firmware
// sends no client identifier, iPXE one form of it and an operating system often
// a DUID, and all three are one machine, which keeps one address.
type Lease struct {
	Address   netip.Addr `json:"address"`
	MAC       MAC        `json:"mac"`
	ClientID  string     `json:"client_id,omitempty"` // option 61 in hexadecimal, shown only
	Hostname  string     `json:"hostname,omitempty"`  // option 12 as the client sent it
	Machine   MachineID  `json:"machine,omitempty"`
	Interface string     `json:"interface,omitempty"`
	State     LeaseState `json:"state"`
	Expires   time.Time  `json:"expires"`
	Updated   time.Time  `json:"updated"`
}

// Validate checks the lease's own fields.
func (l *Lease) Validate() error {
	var errs []error
	if !l.Address.Is4() || l.Address.IsUnspecified() || l.Address.IsMulticast() {
		errs = append(errs, Invalid("address", "%s cannot be leased", l.Address))
	}
	if l.MAC.IsZero() {
		errs = append(errs, Invalid("mac", "a lease belongs to a MAC"))
	}
	switch l.State {
	case LeaseOffered, LeaseBound, LeaseDeclined:
	default:
		errs = append(errs, Invalid("state", "%q is not a state of a lease", l.State))
	}
	return joinFields(errs...)
}
