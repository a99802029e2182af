package boot

import (
	"fmt"
	"strings"

	"lunboot/store"
)

// Loader is the file name of a network boot program: an iPXE for one firmware
// and architecture.
type Loader string

// The loaders that the appliance knows by name. Debian's package ipxe carries
// the first three; the others are the operator's.
const (
	Undionly  Loader = "undionly.kpxe"  // BIOS, over the firmware's own UNDI driver
	SNPOnly   Loader = "snponly.efi"    // UEFI x86-64, over the firmware's own SNP driver
	IPXEEFI   Loader = "ipxe.efi"       // UEFI x86-64, with iPXE's own drivers
	IPXEEFI32 Loader = "ipxe-ia32.efi"  // UEFI x86
	IPXEARM64 Loader = "ipxe-arm64.efi" // UEFI arm64
	IPXEPXE   Loader = "ipxe.pxe"       // BIOS, with iPXE's own drivers
	Undionly2 Loader = "undionly.kkpxe" // BIOS, keeps UNDI and PXE
)

// Loaders lists every loader name.
func Loaders() []Loader {
	return []Loader{Undionly, SNPOnly, IPXEEFI, IPXEEFI32, IPXEARM64, IPXEPXE, Undionly2}
}

// ParseLoader accepts a loader's exact name and nothing else.
func ParseLoader(s string) (Loader, error) {
	for _, l := range Loaders() {
		if s == string(l) {
			return l, nil
		}
	}
	return "", store.NotFound("loader", s)
}

// Platform returns what a loader runs on.
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
// a platform that no loader runs on. snponly.efi goes before ipxe.efi: it is a
// fifth of the size, and drives any card that the firmware drives.
func LoaderFor(p Platform) (l Loader, ok bool) {
	switch {
	case p.Firmware == BIOS:
		return Undionly, true
	case p.Firmware == UEFI && p.Arch == X8664:
		return SNPOnly, true
	case p.Firmware == UEFI && p.Arch == X86:
		return IPXEEFI32, true
	case p.Firmware == UEFI && p.Arch == ARM64:
		return IPXEARM64, true
	}
	return "", false
}

// LoaderPath is the file name that DHCP gives to a machine: the transfer then
// says which machine it is for.
func LoaderPath(mac store.MAC, l Loader) string { return mac.Hex12() + "/" + string(l) }

// ParseLoaderPath reads "<mac12>/<loader>" or the bare loader name, with or
// without a leading slash. The MAC is zero for a bare name.
func ParseLoaderPath(s string) (store.MAC, Loader, error) {
	t := strings.TrimPrefix(s, "/")
	dir, file, found := strings.Cut(t, "/")
	if !found {
		l, err := ParseLoader(t)
		return store.MAC{}, l, err
	}
	l, err := ParseLoader(file)
	if err != nil {
		return store.MAC{}, "", err
	}
	if len(dir) != 12 {
		return store.MAC{}, "", store.NotFound("loader", s)
	}
	mac, err := store.ParseMAC(dir)
	if err != nil {
		return store.MAC{}, "", fmt.Errorf("loader %q: %w", s, err)
	}
	return mac, l, nil
}
