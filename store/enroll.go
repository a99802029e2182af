package store

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// MACPrefix is the first bytes of MACs, one to six of them, as lower-case
// hexadecimal with colons. The empty prefix means none.
type MACPrefix string

// ParseMACPrefix reads the first bytes of a MAC in the spellings of ParseMAC:
// "00:07:e9", "00-07-E9", "0007.e9", "0007e9".
func ParseMACPrefix(s string) (MACPrefix, error) {
	digits := strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.TrimSpace(s))
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 || len(b) > 6 {
		return "", Invalid("prefix", "%q is not the beginning of MAC addresses; write whole bytes, such as 00:07:e9", s)
	}
	if b[0]&1 != 0 {
		return "", Invalid("prefix", "%q begins group addresses; a machine's own address has an even first byte", s)
	}
	return MACPrefix(strings.ReplaceAll(fmt.Sprintf("% x", b), " ", ":")), nil
}

// Matches reports whether a MAC begins with p; nothing begins with the empty
// prefix.
func (p MACPrefix) Matches(m MAC) bool { return p != "" && strings.HasPrefix(m.String(), string(p)) }

// NamePattern makes names of machines that are enrolled together: "lab-{n}".
// {n} is the lowest number that makes a free name, {nn} and {nnn} are padded
// with zeros, and {mac} is the last four digits of the MAC. The empty pattern
// leaves the choice to the machine: what it calls itself, else its maker.
type NamePattern string

var namePart = regexp.MustCompile(`\{(n{1,4}|mac)\}`)

// ParseNamePattern checks that a pattern makes host names, and a different one
// for each machine.
func ParseNamePattern(s string) (NamePattern, error) {
	p := NamePattern(strings.ToLower(strings.TrimSpace(s)))
	if p == "" {
		return "", nil
	}
	if !namePart.MatchString(string(p)) {
		return "", Invalid("name", "%q names every machine alike; put {n} where the number goes, such as lab-{n}", s)
	}
	if err := ValidateHostname(p.Name(9999, MAC{0, 0, 0, 0, 0xea, 0xf5})); err != nil {
		return "", Invalid("name", "%q makes no host names: %v", s, err)
	}
	return p, nil
}

// Numbered reports whether the pattern counts.
func (p NamePattern) Numbered() bool { return strings.Contains(string(p), "{n") }

// Name fills the pattern in.
func (p NamePattern) Name(n int, m MAC) string {
	return namePart.ReplaceAllStringFunc(string(p), func(part string) string {
		if part == "{mac}" {
			return m.Hex12()[8:]
		}
		return fmt.Sprintf("%0*d", len(part)-2, n)
	})
}

// EnrollSpec is how unknown machines are enrolled together.
type EnrollSpec struct {
	Name    NamePattern
	Profile string // empty: the default
	Clone   CloneChoice
	MACs    []MAC // only these; empty: all that wait
}

// CloneChoice is the golden volume that a machine gets a clone of when it is
// enrolled, to boot from.
type CloneChoice struct {
	// Of is a name or number, CloneOfDefault or CloneOfNone. Empty: as the settings
	// say, which is the default golden volume where there is one.
	Of       string
	Reset    bool // it begins anew at each boot of its machine
	Volatile bool // with Reset: nobody waits for the disk
}

// Validate refuses a choice that no clone can be made by.
func (c CloneChoice) Validate() error {
	switch {
	case c.Of == CloneOfNone && (c.Reset || c.Volatile):
		return Invalid("clone_of", "that a clone begins anew at each boot, or is volatile, goes with a volume that it is a clone of, not with none")
	case c.Volatile && !c.Reset:
		return notReset()
	}
	return nil
}

// notReset refuses to make volatile what is to be kept.
func notReset() error {
	return Invalid("volatile", "only a clone that begins anew at each boot can be volatile: what it holds may be gone after a crash of the appliance's machine")
}

// What stands for a golden volume in a choice.
const (
	CloneOfDefault = "default" // the lab's default one, which there must be
	CloneOfNone    = "none"    // no clone
)

// Enrolled is what became of one unknown machine when all were enrolled.
type Enrolled struct {
	MAC     MAC       `json:"mac"`
	Machine MachineID `json:"machine,omitempty"` // zero: it was not enrolled
	Name    string    `json:"name,omitempty"`
	Problem string    `json:"problem,omitempty"` // why not
}

// AutoEnrollRule enrolls machines by themselves whose MAC begins with Prefix.
type AutoEnrollRule struct {
	Prefix  MACPrefix   `json:"prefix"`
	Name    NamePattern `json:"name,omitempty"`
	Profile string      `json:"profile,omitempty"` // empty: the default
	// Limit bounds how many machines with the prefix there may be: anybody can
	// make up MACs.
	Limit int `json:"limit,omitempty"`
	// CloneOf is the golden volume that each gets a clone of, to boot from, "default"
	// or "none"; empty: the default one where there is one. Reset: the clones begin
	// anew at each boot. Volatile: and nobody waits for the disk.
	CloneOf  string `json:"clone_of,omitempty"`
	Reset    bool   `json:"reset_at_boot,omitempty"`
	Volatile bool   `json:"volatile,omitempty"`
}

// Clone is what the machines that the rule enrolls boot from.
func (r AutoEnrollRule) Clone() CloneChoice {
	return CloneChoice{Of: r.CloneOf, Reset: r.Reset, Volatile: r.Volatile}
}

// Bounds of the rules.
const (
	MaxAutoEnrollRules = 64
	MaxAutoEnrollLimit = 4096
	// DefaultAutoEnrollLimit is a rule's limit when none is given.
	DefaultAutoEnrollLimit = 256
)

// AutoEnroll are the rules in their order: the first that matches decides. No
// rules, which is how an appliance starts, enroll nobody.
type AutoEnroll []AutoEnrollRule

// SettingAutoEnroll is the setting that holds the rules, as JSON.
const SettingAutoEnroll = "auto-enroll"

// Normalize puts what people write in several ways into one.
func (a AutoEnroll) Normalize() (AutoEnroll, error) {
	if len(a) > MaxAutoEnrollRules {
		return nil, Invalid("rules", "%d rules; %d are allowed", len(a), MaxAutoEnrollRules)
	}
	out := make(AutoEnroll, 0, len(a))
	seen := map[MACPrefix]bool{}
	for _, r := range a {
		var err error
		if r.Prefix, err = ParseMACPrefix(string(r.Prefix)); err != nil {
			return nil, err
		}
		if seen[r.Prefix] {
			return nil, Invalid("prefix", "there are two rules for %s", r.Prefix)
		}
		seen[r.Prefix] = true
		if r.Name, err = ParseNamePattern(string(r.Name)); err != nil {
			return nil, err
		}
		if err := r.Clone().Validate(); err != nil {
			return nil, err
		}
		if r.Limit == 0 {
			r.Limit = DefaultAutoEnrollLimit
		}
		if r.Limit < 1 || r.Limit > MaxAutoEnrollLimit {
			return nil, Invalid("limit", "%d is not a number of machines; choose 1 to %d", r.Limit, MaxAutoEnrollLimit)
		}
		out = append(out, r)
	}
	return out, nil
}

// For returns the rule for a MAC.
func (a AutoEnroll) For(m MAC) (AutoEnrollRule, bool) {
	for _, r := range a {
		if r.Prefix.Matches(m) {
			return r, true
		}
	}
	return AutoEnrollRule{}, false
}

// Count says how many machines each rule covers.
func (a AutoEnroll) Count(machines []Machine) map[MACPrefix]int {
	out := map[MACPrefix]int{}
	for _, m := range machines {
		for _, mac := range m.MACs {
			if r, ok := a.For(mac); ok {
				out[r.Prefix]++
				break
			}
		}
	}
	return out
}
