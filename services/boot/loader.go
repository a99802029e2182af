package boot

import (
	"fmt"
	"strings"

	"lunboot/store"
)

// Loader names a network boot program: the name of a file, or "chain/file" for
// a file of a chain that the operator supplied.
type Loader string

// The loaders that the appliance knows by name. Debian's package ipxe carries
// those for x86 but the 32-bit UEFI one; that, and others, are the operator's.
const (
	Undionly  Loader = "undionly.kpxe"  // BIOS, over the firmware's own UNDI driver
	SNPOnly   Loader = "snponly.efi"    // UEFI x86-64, over the firmware's own SNP driver
	IPXEEFI   Loader = "ipxe.efi"       // UEFI x86-64, with iPXE's own drivers
	IPXEEFI32 Loader = "ipxe-ia32.efi"  // UEFI x86
	IPXEARM64 Loader = "ipxe-arm64.efi" // UEFI arm64
	IPXEPXE   Loader = "ipxe.pxe"       // BIOS, with iPXE's own drivers
	Undionly2 Loader = "undionly.kkpxe" // BIOS, keeps UNDI and PXE
)

// Loaders lists every loader that the appliance knows by name.
func Loaders() []Loader {
	return []Loader{Undionly, SNPOnly, IPXEEFI, IPXEEFI32, IPXEARM64, IPXEPXE, Undionly2}
}

// Known reports whether the appliance knows the loader by its name.
func (l Loader) Known() bool { return l.Platform() != Platform{} }

// Chain returns the chain that a file belongs to, empty for one that stands
// alone.
func (l Loader) Chain() string {
	chain, _, found := strings.Cut(string(l), "/")
	if !found {
		return ""
	}
	return chain
}

// File returns the file's name alone.
func (l Loader) File() string { return string(l)[strings.LastIndexByte(string(l), '/')+1:] }

// ParseLoader accepts a name that a loader can have, in or out of a chain, and
// nothing else. Whether there is one of that name it does not know.
func ParseLoader(s string) (Loader, error) {
	chain, file, found := strings.Cut(s, "/")
	if !found {
		chain, file = "", s
	}
	if store.ValidateLoaderName(file) != nil || found && store.ValidateChainName(chain) != nil {
		return "", store.NotFound("loader", s)
	}
	return Loader(s), nil
}

// Platform returns what a loader that is known by name runs on; what others run
// on, only their bytes say.
func (l Loader) Platform() Platform {
	switch l {
	case Undionly, Undionly2, IPXEPXE:
		return Platform{Firmware: BIOS, Arch: X86}
	case SNPOnly, IPXEEFI:
		return Platform{Firmware: UEFI, Arch: X8664}
	case IPXEEFI32:
		return Platform{Firmware: UEFI, Arch: X86}
	case IPXEARM64:
		return Platform{Firmware: UEFI, Arch: ARM64}
	}
	return Platform{}
}

// LoaderFor returns the loader that a platform is given first. ok is false for
// a platform that no loader runs on.
func LoaderFor(p Platform) (l Loader, ok bool) {
	rungs := Ladder(p)
	if len(rungs) == 0 {
		return "", false
	}
	return rungs[0], true
}

// LoaderPath is the file name that DHCP gives to a machine: the transfer then
// says which machine it is for. A file of a chain keeps its chain's folder, in
// which the first file looks for the second.
func LoaderPath(mac store.MAC, l Loader) string { return mac.Hex12() + "/" + string(l) }

// ParseLoaderPath reads "<mac12>/<loader>" or the loader alone, with or without
// a leading slash. A shim puts the name of its second stage behind the folder of
// its own, with a slash too many or with backslashes. The MAC is zero for a bare
// name.
func ParseLoaderPath(s string) (store.MAC, Loader, error) {
	t := cleanPath(s)
	dir, file, found := strings.Cut(t, "/")
	if !found || !macFolder(dir) {
		l, err := ParseLoader(t)
		return store.MAC{}, l, err
	}
	l, err := ParseLoader(file)
	if err != nil {
		return store.MAC{}, "", err
	}
	mac, err := store.ParseMAC(dir)
	if err != nil {
		return store.MAC{}, "", fmt.Errorf("loader %q: %w", s, err)
	}
	return mac, l, nil
}

// macFolder reports whether a folder can only be a machine's.
func macFolder(dir string) bool {
	return len(dir) == 12 && strings.Trim(dir, "0123456789abcdefABCDEF") == ""
}

// Autoexec is the file that an iPXE of 2021 and later looks for beside itself and
// then at the root, and runs before it does anything else (iPXE
// src/interface/efi/efi_autoexec.c).
const Autoexec = "autoexec.ipxe"

// maxPath is longer than a MAC, a chain and a file.
const maxPath = 256

// cleanPath takes out what firmware writes one way and another: backslashes, and
// slashes that stand twice or first.
func cleanPath(s string) string {
	if len(s) > maxPath || strings.HasSuffix(s, "/") || strings.HasSuffix(s, `\`) {
		return "" // a folder is no file
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '/' || r == '\\' }), "/")
}

// SecondOf returns the name under which a shim looks for its second stage,
// beside itself. rhboot's shim has the name built in (Make.defaults:
// DEFAULT_LOADER "grub<arch>.efi"); iPXE's shim strikes "-shim<arch>" from its
// own name (README of ipxe/shim), and falls back on ipxe.efi.
func SecondOf(first string) (string, error) {
	name, isEFI := strings.CutSuffix(first, ".efi")
	if isEFI {
		for _, arch := range []string{"x64", "aa64", "ia32"} {
			stem, fits := strings.CutSuffix(name, "shim"+arch)
			switch {
			case !fits:
			case stem == "":
				return "grub" + arch + ".efi", nil
			case strings.HasSuffix(stem, "-") && len(stem) > 1:
				return strings.TrimSuffix(stem, "-") + ".efi", nil
			}
		}
		if stem, fits := strings.CutSuffix(name, "-shim"); fits && stem != "" {
			return stem + ".efi", nil
		}
	}
	return "", store.Invalid("name", "%q is no shim's name, which says what its second stage is called; call it shimx64.efi or ipxe-shimx64.efi", first)
}
