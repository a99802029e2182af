// Package loaders holds the network boot programs that machines fetch: iPXE
// for each firmware and architecture, embedded in the program, found in
// Debian's package or given by the operator.
//
// A file is known by its name in services/boot and by nothing else, so no name
// from a request ever reaches the file system. It knows no protocol: TFTP and
// HTTP ask it for bytes.
package loaders

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"lunboot/services/boot"
	"lunboot/store"
)

// license is what iPXE is under; its files may be used under the UBDL too.
const license = "GPL-2.0-or-later"

// asSupplied stands for the licence of a file that the operator gave.
const asSupplied = "as supplied"

// file is a loader's bytes and what is known of them.
type file struct {
	data     []byte
	info     boot.LoaderInfo
	platform boot.Platform
}

// Set is the loaders of one running appliance. Those of a folder go before
// those that were uploaded, and these before the built-in ones. It is safe for
// concurrent use.
type Set struct {
	changes sync.Mutex // held while an upload or a removal runs; taken before mu

	mu       sync.RWMutex
	folder   map[boot.Loader]file // of --loaders
	uploaded map[boot.Loader]file
	built    map[boot.Loader]file
	shelf    []boot.Available // what Shelf returns; made anew with every change

	home *home // where uploads are kept; nil until Keep
}

// lookup finds what a name stands for; mu is held.
func (s *Set) lookup(name boot.Loader) (file, bool) {
	for _, layer := range []map[boot.Loader]file{s.folder, s.uploaded, s.built} {
		if f, ok := layer[name]; ok {
			return f, true
		}
	}
	return file{}, false
}

// Open returns a loader's bytes, which the caller must not change.
func (s *Set) Open(name boot.Loader) ([]byte, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, ok := s.lookup(name)
	return f.data, ok
}

// names lists what there is: the known ones in their order, then the others by
// name; mu is held.
func (s *Set) names() []boot.Loader {
	var out, others []boot.Loader
	for _, name := range boot.Loaders() {
		if _, ok := s.lookup(name); ok {
			out = append(out, name)
		}
	}
	for _, layer := range []map[boot.Loader]file{s.folder, s.uploaded} {
		for name := range layer {
			if !name.Known() && !slices.Contains(others, name) {
				others = append(others, name)
			}
		}
	}
	slices.Sort(others)
	return append(out, others...)
}

// Shelf lists the loaders as the choice of one sees them. The first file of a
// chain is there only together with its second. The caller must not change it.
func (s *Set) Shelf() []boot.Available {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.shelf
}

// stock makes the shelf, which every request to boot looks at; mu is held.
func (s *Set) stock() {
	var out []boot.Available
	for _, name := range s.names() {
		f, _ := s.lookup(name)
		if f.info.Role == store.LoaderFirst && !s.hasSecond(name.Chain()) {
			continue
		}
		out = append(out, boot.Available{Loader: name, Platform: f.platform, Role: f.info.Role, NoISCSI: !f.info.Opaque && !slices.Contains(f.info.Features, FeatureISCSI)})
	}
	s.shelf = out
}

func (s *Set) hasSecond(chain string) bool {
	for name, f := range s.uploaded {
		if name.Chain() == chain && f.info.Role == store.LoaderSecond {
			return true
		}
	}
	return false
}

// Fits reports whether a machine of this firmware and architecture, which may
// not be known, can be given a loader or chain by name.
func (s *Set) Fits(name, firmware, arch string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	a, ok := boot.Named(name, s.shelf)
	if !ok {
		for l, f := range s.uploaded {
			if (l.Chain() == name || string(l) == name) && f.info.Role == store.LoaderFirst {
				return store.Invalid("loader", "the chain %s has no second file yet; add it with: lunboot loader add FILE --chain %s --role second", l.Chain(), l.Chain())
			}
		}
		return store.Invalid("loader", "there is no loader or chain %q for a machine to start from; lunboot loader list shows what there is", name)
	}
	if p := boot.PlatformNamed(firmware, arch); p.Firmware != boot.FirmwareUnknown && p.Arch != boot.ArchUnknown && !a.Platform.Runs(p) {
		return store.Invalid("loader", "%s is for %s, and the machine was last seen as %s", name, a.Platform, p)
	}
	return nil
}

// Manifest lists what there is, the known names first.
func (s *Set) Manifest() []boot.LoaderInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []boot.LoaderInfo
	for _, name := range s.names() {
		f, _ := s.lookup(name)
		i := f.info
		i.Features = slices.Clone(i.Features)
		i.Rung = slices.Index(boot.Rungs(f.platform, s.shelf), name) + 1
		i.Use = use(i)
		out = append(out, i)
	}
	return out
}

// use says what a loader is for.
func use(i boot.LoaderInfo) string {
	switch {
	case i.Role == store.LoaderFirst:
		return "Machines that name the chain " + i.Chain + " are given this first."
	case i.Role == store.LoaderSecond:
		return "The first file of the chain " + i.Chain + " fetches this."
	case i.Rung == 1:
		return "Every machine of its kind is given this first."
	case i.Rung > 1:
		return "Given where the loaders before it were sent and never spoke."
	}
	return "Given to machines that name it."
}

// Absent lists the known loaders that there are not.
func (s *Set) Absent() []boot.Loader {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.DeleteFunc(boot.Loaders(), func(l boot.Loader) bool { _, ok := s.lookup(l); return ok })
}

// Unsigned reports whether a loader has no signature, so that Secure Boot refuses
// it; false also for one that there is not.
func (s *Set) Unsigned(l boot.Loader) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f, ok := s.lookup(l)
	return ok && f.platform.Firmware == boot.UEFI && !slices.Contains(f.info.Features, FeatureSigned)
}

// Missing says which machines cannot start because their loader is not there,
// and how to get it; it is empty when BIOS and 64-bit UEFI machines can. The
// other architectures need files that no Debian package has; Absent lists them.
func (s *Set) Missing() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var who []string
	for _, need := range []struct {
		loader boot.Loader
		who    string
	}{{boot.Undionly, "BIOS machines"}, {boot.SNPOnly, "UEFI x86-64 machines"}} {
		if _, ok := s.lookup(need.loader); !ok {
			who = append(who, fmt.Sprintf("%s (%s)", need.who, need.loader))
		}
	}
	if len(who) == 0 {
		return ""
	}
	return "There is no loader for " + strings.Join(who, " and ") +
		". Install one with `apt-get install ipxe`, or put the file into a folder and start with --loaders DIR."
}

// describe makes a file of bytes that were inspected.
func describe(name boot.Loader, data []byte, f found, source, version, lic string) file {
	if f.Version != "" {
		version = f.Version
	}
	sum := sha256.Sum256(data)
	features := f.Features
	if features == nil {
		features = []string{}
	}
	return file{data: data, platform: f.Platform, info: boot.LoaderInfo{
		Name: name, Chain: name.Chain(), Firmware: f.Platform.Firmware.String(), Arch: f.Platform.Arch.String(), Version: version, Features: features, Opaque: f.Opaque,
		License: lic, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Source: source,
	}}
}

// versionPattern is iPXE's own version at the end of a C string; EFI files carry
// it in clear, BIOS files are packed.
var versionPattern = regexp.MustCompile(`(?:\d+\.\d+\.\d+\+[A-Za-z0-9.~+-]{4,60}|\d+\.\d+\.\d+\+? \([0-9a-z]{4,12}\))$`)

// maxVersion is longer than any version.
const maxVersion = 96

// versionIn looks at the ends of the file's strings only: to try the pattern at
// each byte of a few MiB would be most of a start's work.
func versionIn(data []byte) string {
	for text := range bytes.SplitSeq(data, []byte{0}) {
		end := text[max(0, len(text)-maxVersion):]
		if bytes.IndexByte(end, '.') < 0 || !bytes.ContainsAny(end, "+(") {
			continue
		}
		if v := versionPattern.Find(end); v != nil {
			return string(v)
		}
	}
	return ""
}
