package store

import (
	"crypto/rand"
	"net/netip"
	"strings"
	"time"
)

// MachineID identifies a machine for good; names may change.
type MachineID int64

// AuthMode says how a machine's initiator proves itself.
type AuthMode string

// The modes, in rising strength.
const (
	AuthNone   AuthMode = "none"
	AuthCHAP   AuthMode = "chap"   // the initiator proves itself (RFC 1994)
	AuthMutual AuthMode = "mutual" // the target proves itself too
)

// ParseAuthMode reads a mode's name.
func ParseAuthMode(s string) (AuthMode, error) {
	switch m := AuthMode(s); m {
	case AuthNone, AuthCHAP, AuthMutual:
		return m, nil
	}
	return "", Invalid("auth", "%q is not a way to log in; choose none, chap or mutual", s)
}

// Credential is one CHAP name and secret. String hides the secret, so that no
// log line can carry it by accident.
type Credential struct {
	User   string `json:"user,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// String prints the user name only.
func (c Credential) String() string { return c.User + ":(secret)" }

// IsZero reports whether no credential is set.
func (c Credential) IsZero() bool { return c == Credential{} }

// Secret lengths in bytes: RFC 7143 §12.1.3 asks for at least 96 random bits;
// Microsoft's initiator takes at most 16 bytes, ours takes 64.
const (
	MinSecret = 12
	MaxSecret = 64
)

// NewSecret makes a CHAP secret: 16 characters of [A-Za-z0-9], which needs no
// quoting in an iPXE script and fits every initiator. It carries 95 bits.
func NewSecret() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, 16)
	var b [32]byte
	for len(out) < 16 {
		rand.Read(b[:])
		for _, v := range b {
			// 248 is the largest multiple of 62 in a byte: no bias.
			if v < 248 && len(out) < 16 {
				out = append(out, alphabet[v%62])
			}
		}
	}
	return string(out)
}

func (c Credential) validate(field string) error {
	if c.User == "" {
		return Invalid(field+"_user", "a CHAP user name is needed with a CHAP secret")
	}
	if len(c.User) > 128 || strings.ContainsFunc(c.User, notScriptSafe) || c.User[0] == '-' {
		return Invalid(field+"_user", "a CHAP user name has up to 128 letters, digits, '.', '-', '_', ':' and '@', and does not begin with '-'")
	}
	if len(c.Secret) < MinSecret {
		return Invalid(field+"_secret", "the CHAP secret has %d bytes; at least %d are needed (RFC 7143 §12.1.3)", len(c.Secret), MinSecret)
	}
	if len(c.Secret) > MaxSecret {
		return Invalid(field+"_secret", "the CHAP secret has %d bytes, %d are allowed", len(c.Secret), MaxSecret)
	}
	// A word that begins with '-' is an option to iPXE.
	if strings.ContainsFunc(c.Secret, notScriptSafe) || c.Secret[0] == '-' {
		return Invalid(field+"_secret", "a CHAP secret has letters, digits, '.', '-', '_', ':' and '@', and does not begin with '-', so that a boot script can carry it")
	}
	return nil
}

// notScriptSafe reports a rune that an iPXE script line cannot carry as it is.
func notScriptSafe(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:@", r))
}

// Machine is a computer that boots.
type Machine struct {
	ID       MachineID `json:"id"`
	Revision int64     `json:"revision"`
	Name     string    `json:"name"` // DNS label, unique
	MACs     []MAC     `json:"macs"` // at least one; unique across machines
	UUID     UUID      `json:"uuid"`
	Serial   string    `json:"serial,omitempty"`
	AssetTag string    `json:"asset_tag,omitempty"`

	// Initiator is fixed when the machine is made and does not follow a
	// rename; an operator may change it.
	Initiator IQN        `json:"initiator"`
	Auth      AuthMode   `json:"auth"`
	CHAP      Credential `json:"chap"`         // the initiator's
	Reverse   Credential `json:"reverse_chap"` // the target's, for mutual
	Pinned    bool       `json:"pinned"`       // given by hand: never rotated

	Address     netip.Addr `json:"address"` // reserved address, or the zero Addr
	Profile     string     `json:"profile"`
	OnceProfile string     `json:"once_profile,omitempty"` // for the next boot only
	Loader      string     `json:"loader,omitempty"`       // its own loader or chain; empty: the ladder chooses
	Tags        []string   `json:"tags,omitempty"`
	Notes       string     `json:"notes,omitempty"`
	Quirks      []Quirk    `json:"quirks,omitempty"` // what its firmware needs
	BMC         BMC        `json:"bmc,omitzero"`     // what switches it on and off; zero for none

	Firmware string    `json:"firmware,omitempty"` // last seen: "BIOS", "UEFI"
	Arch     string    `json:"arch,omitempty"`     // last seen: "x86", "x86-64", "arm64"
	LastSeen time.Time `json:"last_seen"`
	Port     string    `json:"port,omitempty"`     // the switch and its port, as option 82 said last
	PortSeen time.Time `json:"port_seen,omitzero"` // and when
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"`
}

// DefaultProfile is the profile of a machine that was given none.
const DefaultProfile = "san"

// Validate checks everything about m that needs no look at other nouns.
func (m *Machine) Validate() error {
	var errs []error
	errs = append(errs, ValidateHostname(m.Name))
	if len(m.MACs) == 0 {
		errs = append(errs, Invalid("mac", "machine %q needs at least one MAC address", m.Name))
	}
	seen := map[MAC]bool{}
	for _, a := range m.MACs {
		if a.IsZero() {
			errs = append(errs, Invalid("mac", "an empty MAC address"))
		}
		if seen[a] {
			errs = append(errs, Invalid("mac", "MAC %s is given twice", a))
		}
		seen[a] = true
	}
	if _, err := ParseIQN(string(m.Initiator)); err != nil {
		errs = append(errs, Invalid("initiator", "%v", err))
	}
	if m.UUID.IsPlaceholder() && !m.UUID.IsZero() {
		errs = append(errs, Invalid("uuid", "%s is a placeholder that many boards share; leave the UUID empty", m.UUID))
	}
	if _, err := ParseAuthMode(string(m.Auth)); err != nil {
		errs = append(errs, err)
	}
	if m.Auth != AuthNone {
		errs = append(errs, nilOr(m.CHAP.validate("chap")))
	}
	if m.Auth == AuthMutual {
		errs = append(errs, nilOr(m.Reverse.validate("reverse")))
		if m.CHAP.Secret != "" && m.CHAP.Secret == m.Reverse.Secret {
			errs = append(errs, Invalid("reverse_secret", "the two CHAP secrets must differ, or a target could be answered with its own challenge (RFC 7143 §12.1.3)"))
		}
	}
	if m.Address.IsValid() && (!m.Address.Is4() || m.Address.IsMulticast() || m.Address.IsUnspecified() || m.Address == netip.AddrFrom4([4]byte{255, 255, 255, 255}) || m.Address.IsLoopback()) {
		errs = append(errs, Invalid("address", "%s cannot be a machine's IPv4 address", m.Address))
	}
	if m.Profile == "" {
		errs = append(errs, Invalid("profile", "a profile is needed; %q boots from the machine's volume", DefaultProfile))
	}
	errs = append(errs, validateTags(m.Tags), nilOr(validateQuirks(m.Quirks)), m.BMC.validate())
	errs = append(errs, nilOr(validateText("notes", m.Notes, 4096)), nilOr(validateText("serial", m.Serial, 128)), nilOr(validateText("loader", m.Loader, 128)), nilOr(validateText("asset_tag", m.AssetTag, 128)))
	return joinFields(errs...)
}

// Bounds of a machine's tags.
const (
	maxTags = 32
	maxTag  = 64
)

func validateTags(tags []string) error {
	if len(tags) > maxTags {
		return Invalid("tags", "%d tags; %d are allowed", len(tags), maxTags)
	}
	for _, t := range tags {
		if t == "" || strings.ContainsAny(t, ",\r\n\t") {
			return Invalid("tags", "%q is not a tag; a tag is a word or a few, without commas and line ends", t)
		}
		if err := validateText("tags", t, maxTag); err != nil {
			return err
		}
	}
	return nil
}

// nilOr keeps a nil error nil when a *Error travels as an error.
func nilOr(err error) error { return err }

// UnknownMachine is a computer that asked to boot and is not enrolled.
type UnknownMachine struct {
	MAC       MAC        `json:"mac"`
	UUID      UUID       `json:"uuid"`
	Hostname  string     `json:"hostname,omitempty"`
	Vendor    string     `json:"vendor,omitempty"` // what the machine said of itself: SMBIOS manufacturer and product
	Firmware  string     `json:"firmware,omitempty"`
	Arch      string     `json:"arch,omitempty"`
	NIC       string     `json:"nic,omitempty"`  // the card that it boots from, as iPXE knows it: "PCI 8086:100e"
	Chip      string     `json:"chip,omitempty"` // iPXE's name for the kind of card: "82540em"
	Address   netip.Addr `json:"address"`
	FirstSeen time.Time  `json:"first_seen"`
	LastSeen  time.Time  `json:"last_seen"`
	Port      string     `json:"port,omitempty"`     // the switch and its port, as option 82 said last
	PortSeen  time.Time  `json:"port_seen,omitzero"` // and when
	Count     int64      `json:"count"`              // how often it asked
	Ignored   bool       `json:"ignored"`
}

// MaxUnknownMachines bounds the unknown machines that are kept; the one that
// was not seen for longest goes first.
const MaxUnknownMachines = 4096

// MachineFilter narrows a listing of machines. Empty fields match all.
type MachineFilter struct {
	Words []string // each part of a name, MAC, UUID, address, tag or initiator
	Tag   string
	// Profile is the profile's name, MAC a part of a MAC in any spelling.
	Profile string
	MAC     string
	Page
}

// Baseline is what a machine's boot volume held when the machine was first given an
// installer that was chosen for its next boot only.
type Baseline struct {
	Volume     VolumeID
	Attempt    AttemptID // that the installer was given to; 0 when that was not recorded
	BIOS, UEFI string    // Bootable.Chain of each
}
