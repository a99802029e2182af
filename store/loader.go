package store

import (
	"slices"
	"strings"
	"time"
)

// LoaderRole is a file's place in a chain of loaders.
type LoaderRole string

// The roles. A loader that stands alone has none.
const (
	LoaderAlone  LoaderRole = ""
	LoaderFirst  LoaderRole = "first"  // what DHCP names: a shim that the firmware trusts
	LoaderSecond LoaderRole = "second" // what the first one fetches from beside itself
)

// Loader is a loader that the operator supplied. Its bytes lie in the data
// folder under their hash; no name ever reaches the file system.
type Loader struct {
	Revision int64      `json:"revision"`
	Chain    string     `json:"chain,omitempty"` // the chain that it belongs to
	Name     string     `json:"name"`            // unique in its chain
	Role     LoaderRole `json:"role,omitempty"`
	Firmware string     `json:"firmware"` // as its bytes say: "BIOS", "UEFI"
	Arch     string     `json:"arch"`     // "x86", "x86-64", "arm64"
	Version  string     `json:"version,omitempty"`
	Features []string   `json:"features,omitempty"`
	Opaque   bool       `json:"opaque"` // its features cannot be told from its bytes
	Size     int64      `json:"size"`   // bytes
	SHA256   string     `json:"sha256"`
	Created  time.Time  `json:"created"`
	Updated  time.Time  `json:"updated"`
}

// MaxLoader bounds a loader's bytes; the largest iPXE build is about 2 MiB.
const MaxLoader = 16 << 20

// Key names a loader among all: its name, or chain and name.
func (l *Loader) Key() string {
	if l.Chain == "" {
		return l.Name
	}
	return l.Chain + "/" + l.Name
}

// LoaderEndings are how a loader's name ends.
func LoaderEndings() []string { return []string{".efi", ".kpxe", ".kkpxe", ".kkkpxe", ".pxe", ".0"} }

// ValidateLoaderName checks the name of a loader's file.
func ValidateLoaderName(name string) error {
	if err := ValidateName("name", name); err != nil {
		return err
	}
	if !slices.ContainsFunc(LoaderEndings(), func(end string) bool { return strings.HasSuffix(name, end) && len(name) > len(end) }) {
		return Invalid("name", "%q is not a loader's name; it ends with one of %s", name, strings.Join(LoaderEndings(), " "))
	}
	return nil
}

// ValidateChainName checks the name of a chain. It begins with a letter and is
// no twelve hexadecimal digits, which would be a machine's folder.
func ValidateChainName(name string) error {
	if err := ValidateName("chain", name); err != nil {
		return err
	}
	hex := len(name) == 12 && strings.Trim(name, "0123456789abcdef") == ""
	if name[0] < 'a' || name[0] > 'z' || hex || ValidateLoaderName(name) == nil {
		return Invalid("chain", "%q is not a chain's name; begin it with a letter, and let it look like no MAC and no file", name)
	}
	return nil
}

// Validate checks everything about l that needs no look at other nouns.
func (l *Loader) Validate() error {
	errs := []error{ValidateLoaderName(l.Name)}
	switch {
	case l.Chain == "" && l.Role != LoaderAlone:
		errs = append(errs, Invalid("role", "a role is a place in a chain; name the chain"))
	case l.Chain != "":
		errs = append(errs, ValidateChainName(l.Chain))
		if l.Role != LoaderFirst && l.Role != LoaderSecond {
			errs = append(errs, Invalid("role", "a file of a chain is its first or its second"))
		}
	}
	if l.Firmware == "" || l.Arch == "" {
		errs = append(errs, Invalid("file", "a loader is for one firmware and architecture"))
	}
	if l.Size <= 0 || l.Size > MaxLoader {
		errs = append(errs, Invalid("file", "a loader has up to %d MiB; this has %d bytes", MaxLoader>>20, l.Size))
	}
	if len(l.SHA256) != 64 || strings.Trim(l.SHA256, "0123456789abcdef") != "" {
		errs = append(errs, Invalid("sha256", "%q is no SHA-256 sum in hexadecimal", l.SHA256))
	}
	errs = append(errs, validateText("version", l.Version, 128), validateTags(l.Features))
	return joinFields(errs...)
}

// TrialOutcome is what is known of a loader on one sort of hardware.
type TrialOutcome string

// The outcomes. The zero value is undecided.
const (
	TrialUndecided TrialOutcome = ""
	TrialWorked    TrialOutcome = "worked" // it fetched a script
	TrialSilent    TrialOutcome = "silent" // it was delivered in full, and nothing was heard of it
)

// LoaderTrial remembers how a loader did with one machine, or with one sort of
// hardware.
type LoaderTrial struct {
	Key     string       `json:"key"`    // whose: services/boot makes it
	Loader  string       `json:"loader"` // its name and which file that was: another file of the name has not failed yet
	Outcome TrialOutcome `json:"outcome"`
	Times   int          `json:"times"`   // how often the outcome was seen in a row
	Strikes int          `json:"strikes"` // signs of silence since it last worked
	Last    time.Time    `json:"last"`
}

// MaxLoaderTrials bounds the trials that are kept; the oldest goes first.
const MaxLoaderTrials = 16384

// Validate checks the trial's own fields.
func (t *LoaderTrial) Validate() error {
	var errs []error
	if t.Key == "" || t.Loader == "" {
		errs = append(errs, Invalid("key", "a trial is of one loader with one sort of hardware"))
	}
	errs = append(errs, validateText("key", t.Key, 128), validateText("loader", t.Loader, 128))
	switch t.Outcome {
	case TrialUndecided, TrialWorked, TrialSilent:
	default:
		errs = append(errs, Invalid("outcome", "%q is not an outcome of a trial", t.Outcome))
	}
	if t.Times < 0 || t.Strikes < 0 {
		errs = append(errs, Invalid("times", "a count is not negative"))
	}
	return joinFields(errs...)
}
