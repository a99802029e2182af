package store

import (
	"encoding/binary"
	"net/netip"
	"strings"
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
	bad := Invalid("range", "%q is not a range of addresses; write it as 192.168.40.100-192.168.40.199", s)
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
			return Range{}, Invalid("range", "the range %q ends before it begins", s)
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
	Search    []string      `json:"search,omitempty"` // option 119: domains to look names up in
	NTP       []netip.Addr  `json:"ntp,omitempty"`    // option 42: time servers
	LeaseTime time.Duration `json:"lease_time"`       // nanoseconds

	// NextServer is the address of ours that machines there are told to boot
	// from; the zero Addr for the one by which they reach us.
	NextServer netip.Addr `json:"next_server"`
}

// Name names the subnet for people: "eth1 192.168.40.0/24".
func (s *Subnet) Name() string {
	return strings.TrimSpace(s.Interface + " " + s.Prefix.String())
}

// NetworkOf is the network that an address is in: the subnet that is served there,
// else the 256 addresses about it, as nearly every network is cut.
func NetworkOf(a netip.Addr, subnets []Subnet) netip.Prefix {
	for _, s := range subnets {
		if s.Prefix.Contains(a) {
			return s.Prefix.Masked()
		}
	}
	p, err := a.Prefix(24)
	if err != nil {
		return netip.Prefix{} // no IPv4 address
	}
	return p
}

// Bounds of a subnet's lists: what a DHCP reply has room for beside the rest.
const (
	maxServers = 8
	maxSearch  = 8
)

// Bounds of a lease: longer ones are a slip of the pen, and DHCP reads the
// largest value as for ever (RFC 2132 §9.2); shorter ones make every machine ask
// all the time. Zero is the appliance's own choice.
const (
	maxLeaseTime = 365 * 24 * time.Hour
	minLeaseTime = time.Minute
)

// MaxRange bounds the addresses of one range, which are walked in turn when a
// new machine needs one.
const MaxRange = 1 << 16

// Size returns how many addresses the range has; 0 for no range.
func (r Range) Size() int {
	if !r.From.Is4() || !r.To.Is4() || r.To.Less(r.From) {
		return 0
	}
	from, to := r.From.As4(), r.To.As4()
	return int(binary.BigEndian.Uint32(to[:])-binary.BigEndian.Uint32(from[:])) + 1
}

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
			errs = append(errs, Invalid("range", "the range %s does not lie in the network %s", s.Range, s.Prefix))
		case s.Range.To.Less(s.Range.From):
			errs = append(errs, Invalid("range", "the range %q ends before it begins", s.Range))
		case s.Range.Size() > MaxRange:
			errs = append(errs, Invalid("range", "the range %s has %d addresses; %d are the most", s.Range, s.Range.Size(), MaxRange))
		}
	}
	if s.Router.IsValid() && !s.Prefix.Contains(s.Router) {
		errs = append(errs, Invalid("router", "the router %s does not lie in the network %s, so no machine could reach it", s.Router, s.Prefix))
	}
	errs = append(errs, validateServers("dns", s.DNS), validateServers("ntp", s.NTP))
	if a := s.NextServer; a.IsValid() && (!a.Is4() || a.IsUnspecified() || a.IsMulticast()) {
		errs = append(errs, Invalid("next_server", "%s is no IPv4 address of ours", a))
	}
	if len(s.Search) > maxSearch {
		errs = append(errs, Invalid("search", "%d domains; a DHCP reply has room for %d", len(s.Search), maxSearch))
	}
	for _, d := range append([]string{s.Domain}, s.Search...) {
		if field := "search"; d != "" {
			if d == s.Domain {
				field = "domain"
			}
			errs = append(errs, validateDomain(field, d))
		}
	}
	switch {
	case s.LeaseTime < 0 || s.LeaseTime > maxLeaseTime:
		errs = append(errs, Invalid("lease_time", "a lease lasts up to a year, not %s", s.LeaseTime))
	case s.LeaseTime > 0 && s.LeaseTime < minLeaseTime:
		errs = append(errs, Invalid("lease_time", "a lease of %s is too short; one minute is the least", s.LeaseTime))
	}
	errs = append(errs, validateText("interface", s.Interface, 64))
	return joinFields(errs...)
}

func validateServers(field string, all []netip.Addr) error {
	if len(all) > maxServers {
		return Invalid(field, "%d addresses; a DHCP reply has room for %d", len(all), maxServers)
	}
	for _, a := range all {
		if !a.Is4() || a.IsUnspecified() {
			return Invalid(field, "%s is not an IPv4 address of a server", a)
		}
	}
	return nil
}

// validateDomain checks a DNS name (RFC 1035 §2.3.4, RFC 1123 §2.1).
func validateDomain(field, d string) error {
	bad := Invalid(field, "%q is not a domain, such as lab.example", d)
	if len(d) > 253 {
		return bad
	}
	for label := range strings.SplitSeq(d, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return bad
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return bad
			}
		}
	}
	return nil
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
	Relay     netip.Addr `json:"relay"`              // the relay that it was asked through; the zero Addr for none
	Port      string     `json:"port,omitempty"`     // the switch and its port, as option 82 said
	PortSeen  time.Time  `json:"port_seen,omitzero"` // when it last said so
	State     LeaseState `json:"state"`
	Expires   time.Time  `json:"expires"`
	Updated   time.Time  `json:"updated"`

	// Network says to PutLease within which network the MAC gives up its other
	// addresses: one card may be in several, by VLANs or by relays, and has an
	// address in each. It is not kept. The zero Prefix is all networks.
	Network netip.Prefix `json:"-"`
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
