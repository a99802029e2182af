package store

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// BMCProtocol is how a machine's BMC is spoken to.
type BMCProtocol string

// The protocols. The empty one is a machine without a BMC.
const (
	BMCRedfish BMCProtocol = "redfish" // DMTF DSP0266, over HTTPS
	BMCIPMI    BMCProtocol = "ipmi"    // IPMI 2.0, over RMCP+
)

// Port is where the protocol is spoken unless an address says otherwise.
func (p BMCProtocol) Port() uint16 {
	if p == BMCIPMI {
		return 623
	}
	return 443
}

// BMCTrust is how a Redfish BMC proves that it is the one.
type BMCTrust string

// The ways to trust, in falling strength.
const (
	BMCVerify BMCTrust = "verify" // by a certificate of an authority that the appliance's host trusts
	BMCPinned BMCTrust = "pinned" // by the one certificate whose fingerprint is kept; the operator compares it once
	BMCNone   BMCTrust = "none"   // not at all: whoever answers is given the password
)

// BMC is the controller of a machine that works while the machine is off.
type BMC struct {
	Protocol BMCProtocol `json:"protocol"`
	Address  string      `json:"address"` // host or host:port
	User     string      `json:"user"`
	// Secret is its password. It is written and never shown.
	Secret      string   `json:"-"`
	Trust       BMCTrust `json:"trust,omitempty"`       // of redfish
	Fingerprint string   `json:"fingerprint,omitempty"` // SHA-256 of the pinned certificate, 64 hexadecimal digits; empty until the operator trusts one
}

// String names a BMC without its secret.
func (b BMC) String() string {
	if b.IsZero() {
		return ""
	}
	return string(b.Protocol) + "://" + b.User + "@" + b.Address
}

// GoString hides the secret too.
func (b BMC) GoString() string { return b.String() }

// IsZero reports a machine without a BMC.
func (b BMC) IsZero() bool { return b.Protocol == "" }

// HostPort is where the BMC is reached.
func (b BMC) HostPort() string {
	if _, _, err := net.SplitHostPort(b.Address); err == nil {
		return b.Address
	}
	return net.JoinHostPort(strings.Trim(b.Address, "[]"), strconv.Itoa(int(b.Protocol.Port())))
}

// ParseBMC reads a BMC as people write it: redfish://user@host or
// ipmi://user@host:port. "none" and the empty text are no BMC. A password has no
// place in it: it would stand in the shell's history.
func ParseBMC(s string) (BMC, error) {
	if s == "" || s == "none" {
		return BMC{}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return BMC{}, Invalid("bmc", "%q is not a BMC; write redfish://user@host or ipmi://user@host, or none", withoutPassword(s))
	}
	if _, given := u.User.Password(); given {
		return BMC{}, Invalid("bmc", "a password does not belong into the address of a BMC; give it as the BMC's secret")
	}
	return BMC{Protocol: BMCProtocol(strings.ToLower(u.Scheme)), Address: strings.ToLower(u.Host), User: u.User.Username()}, nil
}

// withoutPassword keeps what may be a password out of a message.
func withoutPassword(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return "…" + s[at:]
	}
	return s
}

// ParseFingerprint reads a SHA-256 in hexadecimal, with or without colons.
func ParseFingerprint(s string) (string, error) {
	hex := strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(s))
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", Invalid("bmc_fingerprint", "%q is not a SHA-256 fingerprint, which has 64 hexadecimal digits", s)
	}
	return hex, nil
}

// Longest names and passwords: IPMI 2.0 §22.28 and §22.30 for IPMI; the
// AccountService of Redfish states its own, none above these.
const (
	maxIPMIUser   = 16
	maxIPMISecret = 20
	maxBMCText    = 128
)

func (b BMC) validate() error {
	if b.IsZero() {
		if b != (BMC{}) {
			return Invalid("bmc", "say how the BMC is reached: redfish://user@host or ipmi://user@host")
		}
		return nil
	}
	maxUser, maxSecret := maxBMCText, maxBMCText
	switch b.Protocol {
	case BMCRedfish:
		switch b.Trust {
		case BMCVerify, BMCPinned, BMCNone:
		default:
			return Invalid("bmc_trust", "%q is not a way to trust a BMC; choose verify, pinned or none", string(b.Trust))
		}
	case BMCIPMI:
		maxUser, maxSecret = maxIPMIUser, maxIPMISecret
		if b.Trust != "" || b.Fingerprint != "" {
			return Invalid("bmc_trust", "an IPMI BMC has no certificate; it proves itself by knowing the password")
		}
	default:
		return Invalid("bmc", "%q is not a BMC's protocol; write redfish://user@host or ipmi://user@host", string(b.Protocol))
	}
	if b.Fingerprint != "" {
		if b.Trust != BMCPinned {
			return Invalid("bmc_fingerprint", "a fingerprint is of use with the trust pinned only")
		}
		if _, err := ParseFingerprint(b.Fingerprint); err != nil {
			return err
		}
	}
	if err := validateBMCAddress(b.Address); err != nil {
		return err
	}
	if b.User == "" {
		return Invalid("bmc", "the BMC's user is missing; write %s://user@%s", b.Protocol, b.Address)
	}
	for _, t := range [...]struct {
		field, what, text string
		most              int
	}{{"bmc", "user name", b.User, maxUser}, {"bmc_secret", "password", b.Secret, maxSecret}} {
		if len(t.text) > t.most {
			return Invalid(t.field, "the BMC's %s has %d bytes; %s takes at most %d", t.what, len(t.text), b.Protocol, t.most)
		}
		if strings.ContainsFunc(t.text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return Invalid(t.field, "the BMC's %s has a control character", t.what)
		}
	}
	if b.Secret == "" {
		return Invalid("bmc_secret", "the password of the BMC's user is missing")
	}
	return nil
}

// validateBMCAddress checks a host, an IP address or one of them with a port.
func validateBMCAddress(s string) error {
	bad := Invalid("bmc", "%q is not the address of a BMC; write a host name or an IP address, with :port where it is not the usual one", s)
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad
		}
		host = h
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return bad
		}
		return nil
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}) {
		return bad
	}
	return nil
}

// PowerAct is what a BMC is told to do to its machine.
type PowerAct string

// The acts. What an act takes from a running system is Loss.
const (
	PowerOn       PowerAct = "on"
	PowerOff      PowerAct = "off"      // at once
	PowerShutdown PowerAct = "shutdown" // the operating system is asked to end
	PowerCycle    PowerAct = "cycle"    // off, and on again
	PowerReset    PowerAct = "reset"    // anew without losing power

	// PowerWake is no act of a BMC: the machine's network cards were sent magic
	// packets, and nobody says whether one arrived.
	PowerWake PowerAct = "wake"
)

// PowerActs lists the acts.
func PowerActs() []PowerAct {
	return []PowerAct{PowerOn, PowerShutdown, PowerCycle, PowerReset, PowerOff}
}

// ParsePowerAct reads an act.
func ParsePowerAct(s string) (PowerAct, error) {
	for _, a := range PowerActs() {
		if string(a) == s {
			return a, nil
		}
	}
	return "", Invalid("act", "%q is nothing that a machine's power can be told; choose on, off, shutdown, cycle or reset", s)
}

// Loses reports whether the act cuts a running system off from what it has not
// written yet.
func (a PowerAct) Loses() bool { return a == PowerOff || a == PowerCycle || a == PowerReset }

// Did says what an act did, as "was switched off".
func (a PowerAct) Did() string {
	switch a {
	case PowerOn:
		return "was switched on"
	case PowerOff:
		return "was switched off"
	case PowerShutdown:
		return "was asked to shut down"
	case PowerCycle:
		return "was switched off and on"
	case PowerReset:
		return "was reset"
	case PowerWake:
		return "was sent a magic packet"
	}
	return "was left alone"
}

// PowerState is what a BMC says of its machine.
type PowerState string

// The states.
const (
	PowerUnknown   PowerState = ""
	PowerStateOn   PowerState = "on"
	PowerStateOff  PowerState = "off"
	PowerStateMove PowerState = "changing" // on its way to on or off
)

// PowerOrder is an act with what is to become of the boot that follows.
type PowerOrder struct {
	Act PowerAct
	// Network makes the boot that follows, and no other, one from the network.
	Network bool
	// Profile is the profile of that boot only; empty leaves what is set.
	Profile string
	// Force is for a machine that runs from a volume of this appliance now.
	Force bool
}

// PowerReport is what became of an order or a look.
type PowerReport struct {
	Machine string     `json:"machine"`
	BMC     string     `json:"bmc"`
	State   PowerState `json:"state" enum:"on,off,changing," doc:"what the BMC says; empty when it does not know"`
	Says    string     `json:"says" doc:"in one sentence"`
}

// UntrustedBMC is a BMC that shows a certificate which nobody has trusted yet, or
// another one than is trusted. Nothing was sent to it.
type UntrustedBMC struct {
	Machine     string
	Fingerprint string // of what it shows
	Was         string // what is trusted; empty for none yet
}

// Error says what to compare, and how to trust it.
func (e *UntrustedBMC) Error() string {
	if e.Was == "" {
		return "the BMC of " + e.Machine + " shows a certificate that nobody trusts yet, with the SHA-256 " + e.Fingerprint +
			"; compare it with what the BMC's own pages show, then trust it: lunboot machine set " + e.Machine + " --bmc-fingerprint " + e.Fingerprint
	}
	return "the BMC of " + e.Machine + " shows another certificate than the trusted one: its SHA-256 is " + e.Fingerprint + ", trusted is " + e.Was +
		"; nothing was sent to it. Trust the new one only if the BMC was given it: lunboot machine set " + e.Machine + " --bmc-fingerprint " + e.Fingerprint
}
