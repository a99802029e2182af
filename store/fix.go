package store

import (
	"slices"
	"strings"
)

// FixKind is what the button of a diagnosis does. Each mends a cause that lies
// inside the appliance; what lies outside has an instruction and no button.
type FixKind string

// The closed list of fixes.
const (
	FixProfileSAN   FixKind = "use-profile-san" // boot by the profile whose script always names the LUN
	FixClearOnce    FixKind = "clear-once"      // take the profile for one boot back
	FixMapLUN       FixKind = "map-lun"         // make the boot volume the LUN that the argument names
	FixBootLUN      FixKind = "boot-lun"        // boot from the volume that is this LUN
	FixMapVolume    FixKind = "map-volume"      // map the volume of this name and boot from it
	FixOwnCopy      FixKind = "own-copy"        // give the machine a clone of the volume of this name, to boot from
	FixSecret       FixKind = "renew-secret"    // new CHAP secrets; the next script carries them
	FixMutual       FixKind = "set-auth-mutual" // let the machine prove itself, and the appliance too
	FixUnignore     FixKind = "unignore"        // take the MAC off the list of ignored machines
	FixEnroll       FixKind = "enroll"          // enroll the MAC under a name that is free
	FixExtendRange  FixKind = "extend-range"    // give addresses from a range twice as large on this interface
	FixOtherAddress FixKind = "other-address"   // reserve another address than this one
	FixLoader       FixKind = "use-loader"      // give the machine this loader
	FixLoaderAuto   FixKind = "loader-auto"     // let the ladder choose the machine's loader
	FixQuirk        FixKind = "quirk"           // give the machine the quirk that the argument names
	FixProxyMode    FixKind = "proxy-mode"      // answer beside the other DHCP server on this interface
	FixGrowVolume   FixKind = "grow-volume"     // make the boot volume as large as iPXE needs
	FixAllowWrites  FixKind = "allow-writes"    // let the machine write to the volume that is this LUN
	FixAddCard      FixKind = "add-card"        // let the MAC that the argument names be one of the machine's
	FixTrustSubnet  FixKind = "trust-subnet"    // give scripts to every address of this network
	FixCheckAgain   FixKind = "check-again"     // look whether the cause outside is gone
)

// fixArguments says which fixes take an argument.
func fixArguments() map[FixKind]bool {
	return map[FixKind]bool{
		FixProfileSAN: false, FixClearOnce: false, FixMapLUN: true, FixBootLUN: true, FixMapVolume: true, FixOwnCopy: true, FixSecret: false, FixMutual: false, FixUnignore: false,
		FixEnroll: false, FixExtendRange: true, FixOtherAddress: true, FixLoader: true, FixLoaderAuto: false, FixQuirk: true, FixProxyMode: true, FixGrowVolume: false,
		FixAllowWrites: true, FixAddCard: true, FixTrustSubnet: true, FixCheckAgain: false,
	}
}

// FixAction is a fix that can be done, with its argument.
type FixAction struct {
	Kind     FixKind
	Argument string // a LUN, a volume's name, a loader's, an interface's, a quirk's
}

// String is the action as a diagnosis and the API write it: "map-lun-2".
func (a FixAction) String() string {
	if a.Argument == "" {
		return string(a.Kind)
	}
	return string(a.Kind) + "-" + a.Argument
}

// ParseFix reads an action. An error says that there is no such button: the fix
// is for people.
func ParseFix(s string) (FixAction, error) {
	for kind, takes := range fixArguments() {
		if !takes && s == string(kind) {
			return FixAction{Kind: kind}, nil
		}
		if arg, ok := strings.CutPrefix(s, string(kind)+"-"); ok && takes && arg != "" {
			return FixAction{kind, arg}, nil
		}
	}
	return FixAction{}, Invalid("action", "there is no button for %q; do what the diagnosis says by hand", s)
}

// Needs is what somebody must be allowed, to do it. Whom passwords are sent to is
// an administrator's to say.
func (a FixAction) Needs() Scope {
	if a.Kind == FixTrustSubnet {
		return ScopeAdmin
	}
	return ScopeOperate
}

// Offers reports whether a diagnosis offers an action.
func (d Diagnosis) Offers(a FixAction) bool {
	return slices.ContainsFunc(d.Fixes, func(f Fix) bool { return f.Action == a.String() })
}

// FixResult is what became of a fix.
type FixResult struct {
	OK   bool   `json:"ok"`
	Says string `json:"says"` // in one sentence
}
