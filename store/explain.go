package store

import (
	"net/netip"
	"time"
)

// ExplainQuery asks what a machine would get if it booted now.
type ExplainQuery struct {
	MAC   MAC        // the card that asks; zero: the machine's first
	Arch  string     // firmware and architecture: "bios", "uefi-x64", …; empty: as it was last seen
	Relay netip.Addr // the relay agent that it asks through; not valid: directly
}

// OfferQuery is one client that asks for an address, as the DHCP side sees it.
type OfferQuery struct {
	MAC   MAC
	UUID  UUID
	Arch  uint16     // option 93
	Class string     // option 60 as this firmware sends it; empty: as such firmware does
	IPXE  bool       // it is an iPXE; else it is the firmware
	Relay netip.Addr // giaddr; not valid: it asks directly
}

// OfferExplanation is what one client would be answered.
type OfferExplanation struct {
	Client    string         `json:"client"`              // "UEFI x86-64 firmware", "iPXE"
	Verdict   string         `json:"verdict"`             // "DHCPOFFER", or "nothing"
	Why       string         `json:"why,omitempty"`       // why nothing, or what is missing
	Interface string         `json:"interface,omitempty"` // where it asks
	Mode      string         `json:"mode,omitempty"`      // full, proxy or off
	Address   netip.Addr     `json:"address"`             // what it would be given
	Loader    string         `json:"loader,omitempty"`    // the loader that the boot file is
	File      string         `json:"file,omitempty"`      // the boot file as it is named: a path over TFTP, or a URL
	Boot      netip.AddrPort `json:"boot"`                // the boot listener as the client is told it
	Fields    []OfferField   `json:"fields"`
}

// OfferField is one field or option of an answer.
type OfferField struct {
	Option int    `json:"option,omitempty"` // 0: a field of the header
	Name   string `json:"name"`
	Value  string `json:"value"`
	Why    string `json:"why,omitempty"`
}

// FileExplanation is the loader that would be sent.
type FileExplanation struct {
	Loader  string `json:"loader,omitempty"`
	Version string `json:"version,omitempty"`
	Size    int64  `json:"size,omitempty"` // bytes
	SHA256  string `json:"sha256,omitempty"`
	Source  string `json:"source,omitempty"` // "embedded" or the file's path
	Missing bool   `json:"missing,omitempty"`
}

// ScriptExplanation is the script that its iPXE would be given.
type ScriptExplanation struct {
	// Answer says what it is: "script", or why it is another: "unknown",
	// "ignored", "conflict", "blocked", "failed".
	Answer    string `json:"answer"`
	MatchedBy string `json:"matched_by,omitempty"` // "hostname", "uuid", "mac" …
	Profile   string `json:"profile,omitempty"`
	Why       string `json:"why,omitempty"`
	Text      string `json:"text"` // secrets replaced
	// Guarded says that the script carries a password, and leaves only for the
	// address that the machine's MAC holds.
	Guarded bool `json:"guarded,omitempty"`
	// SAN is the volume's address in the script, when it boots one.
	SAN    string         `json:"san,omitempty"`
	Portal netip.AddrPort `json:"portal"` // of the target, as the machine is told it
}

// LoginExplanation is how its login to the target would end.
type LoginExplanation struct {
	Target      IQN               `json:"target,omitempty"`
	Initiator   IQN               `json:"initiator,omitempty"`
	Auth        AuthMode          `json:"auth,omitempty"`
	User        string            `json:"user,omitempty"`         // by which it proves itself
	ReverseUser string            `json:"reverse_user,omitempty"` // by which the target does
	Refused     string            `json:"refused,omitempty"`      // why it would be refused; empty: it would not
	Units       []UnitExplanation `json:"units"`
}

// UnitExplanation is one LUN that it would see.
type UnitExplanation struct {
	LUN      LUN      `json:"lun"`
	Volume   string   `json:"volume"`
	ID       VolumeID `json:"volume_id"`
	Size     int64    `json:"size"` // bytes
	ReadOnly bool     `json:"read_only,omitempty"`
	Boot     bool     `json:"boot,omitempty"`
	Problem  string   `json:"problem,omitempty"` // why it would not be there
}

// Difference is one thing that is not as it was at the last attempt.
type Difference struct {
	What string `json:"what"`
	Then string `json:"then"`
	Now  string `json:"now"`
}

// DryRun is what a machine would get if it booted now. It
// changes nothing and makes no secret.
type DryRun struct {
	MAC     MAC       `json:"mac"`
	Machine MachineID `json:"machine,omitempty"` // zero: it is not enrolled
	Name    string    `json:"name,omitempty"`
	Ignored bool      `json:"ignored,omitempty"`
	// Platform is the firmware and architecture that it was taken for, and
	// Assumed says that nobody has seen them.
	Platform string     `json:"platform"`
	Assumed  bool       `json:"assumed,omitempty"`
	Relay    netip.Addr `json:"relay"`
	At       time.Time  `json:"at"`

	Offers []OfferExplanation `json:"offers"` // the firmware's, then the iPXE's
	File   FileExplanation    `json:"file"`
	Script ScriptExplanation  `json:"script"`
	Login  LoginExplanation   `json:"login"`

	// Differences compares with the last attempt, when there was one.
	Differences []Difference `json:"differences"`
	Last        *Attempt     `json:"last,omitempty"`
}
