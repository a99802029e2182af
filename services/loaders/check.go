package loaders

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"lunboot/services/boot"
)

// Machine types and the subsystem of a PE header (Microsoft PE format, "COFF
// File Header" and "Optional Header Windows-Specific Fields").
const (
	peX86            = 0x014c
	peX8664          = 0x8664
	peARM64          = 0xaa64
	peEFIApplication = 10
)

// Features that a loader can have inside.
const (
	FeatureISCSI = "iSCSI"
	FeatureHTTPS = "HTTPS"
	FeatureVLAN  = "VLAN"
	FeatureNFS   = "NFS"
	FeatureShim  = "shim"
	// FeatureSigned is a signature, for Secure Boot; by whom is not looked at.
	FeatureSigned = "signed"
)

// marks are the words in an iPXE's bytes that show a feature: settings,
// commands and URI schemes stand there as C strings.
var marks = []struct{ feature, word string }{
	{FeatureISCSI, "\x00initiator-iqn\x00"}, {FeatureHTTPS, "\x00https\x00"}, {FeatureVLAN, "\x00vcreate\x00"},
	{FeatureNFS, "\x00nfs\x00"}, {FeatureShim, "\x00shim\x00"},
}

// found is what a file's bytes say of it.
type found struct {
	Platform boot.Platform
	Version  string
	Features []string
	Opaque   bool // its features cannot be told but for a signature: it is packed, or no iPXE
}

// inspect reads what a loader's bytes say: an EFI application of a processor, or
// else a program for BIOS. A file's name is not asked.
func inspect(data []byte) (found, error) {
	if len(data) < 1024 {
		return found{}, fmt.Errorf("it has %d bytes, too few for a loader", len(data))
	}
	f := found{Version: versionIn(data)}
	machine, subsystem, isPE := readPE(data)
	switch {
	case isPE:
		f.Platform = boot.Platform{Firmware: boot.UEFI, Arch: archOf(machine)}
		if f.Platform.Arch == boot.ArchUnknown {
			return found{}, fmt.Errorf("it is an EFI file for a processor that the appliance does not know (machine type %04xh)", machine)
		}
		if subsystem != peEFIApplication {
			return found{}, fmt.Errorf("it is not an EFI application (subsystem %d)", subsystem)
		}
		if whole := peSize(data); int64(len(data)) < whole {
			return found{}, fmt.Errorf("it is cut short: it has %d bytes, and its header speaks of %d", len(data), whole)
		}
		if signed(data) {
			f.Features = append(f.Features, FeatureSigned)
		}
	case data[0] == 'M' && data[1] == 'Z':
		return found{}, errors.New("it is a program for DOS or Windows, and not an EFI file")
	case isText(data[:512]):
		return found{}, errors.New("it is a text file, not a loader")
	default:
		f.Platform = boot.Platform{Firmware: boot.BIOS, Arch: boot.X86}
	}
	// A loader for BIOS is packed, so that it fits below 640 KiB; what is no
	// iPXE has none of the words.
	if f.Opaque = f.Platform.Firmware == boot.BIOS || !bytes.Contains(data, []byte("iPXE")); f.Opaque {
		return f, nil
	}
	for _, m := range marks {
		if bytes.Contains(data, []byte(m.word)) {
			f.Features = append(f.Features, m.feature)
		}
	}
	return f, nil
}

func archOf(machine uint16) boot.Arch {
	switch machine {
	case peX86:
		return boot.X86
	case peX8664:
		return boot.X8664
	case peARM64:
		return boot.ARM64
	}
	return boot.ArchUnknown
}

// Check reports whether data can be the loader that name says: an EFI
// application of the right processor for .efi, and no EFI file for BIOS. A
// wrong one would leave a machine hanging without a word.
func Check(name boot.Loader, data []byte) error {
	_, err := checked(name, data)
	return err
}

// checked inspects data and compares it with its name: a known name says the
// platform, any other name at least the firmware.
func checked(name boot.Loader, data []byte) (found, error) {
	p := name.Platform()
	efi := p.Firmware == boot.UEFI || !name.Known() && bytes.HasSuffix([]byte(name), []byte(".efi"))
	f, err := inspect(data)
	switch machine, _, isPE := readPE(data); {
	case err != nil && len(data) >= 1024 && efi && !isPE:
		return f, errors.New("it is not an EFI file")
	case err != nil:
		return f, err
	case efi && f.Platform.Firmware != boot.UEFI:
		return f, errors.New("it is not an EFI file")
	case !efi && f.Platform.Firmware == boot.UEFI:
		return f, errors.New("it is an EFI file, which a BIOS machine cannot start")
	case name.Known() && f.Platform.Arch != p.Arch:
		return f, fmt.Errorf("it is an EFI file for %s (machine type %04xh), not for %s", f.Platform.Arch, machine, p.Arch)
	}
	return f, nil
}

// readPE finds the COFF header by the offset at 3Ch and returns the machine
// type and subsystem; ok is false when data is not a PE file.
func readPE(data []byte) (machine, subsystem uint16, ok bool) {
	const subsystemAt = 24 + 68 // the same in PE32 and PE32+
	if len(data) < 64 || data[0] != 'M' || data[1] != 'Z' {
		return 0, 0, false
	}
	at := int64(binary.LittleEndian.Uint32(data[60:]))
	if at < 0 || at+subsystemAt+2 > int64(len(data)) || string(data[at:at+4]) != "PE\x00\x00" {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint16(data[at+4:]), binary.LittleEndian.Uint16(data[at+subsystemAt:]), true
}

// peSize is how many bytes of a PE file its section table names (Microsoft PE
// format, "Section Table"): firmware refuses a file that ends before them, as it
// refuses an unsigned one, without a word.
func peSize(data []byte) (size int64) {
	const entry, sizeAt, fromAt = 40, 16, 20
	at := int64(binary.LittleEndian.Uint32(data[60:])) // readPE found the header
	table := at + 24 + int64(binary.LittleEndian.Uint16(data[at+20:]))
	for n := range int64(binary.LittleEndian.Uint16(data[at+6:])) {
		s := table + n*entry
		if s+entry > int64(len(data)) {
			return s + entry
		}
		if length := int64(binary.LittleEndian.Uint32(data[s+sizeAt:])); length > 0 {
			size = max(size, int64(binary.LittleEndian.Uint32(data[s+fromAt:]))+length)
		}
	}
	return size
}

// signed reports whether a PE file has a certificate table (Microsoft PE format,
// "Optional Header Data Directories": the fifth, which counts from the file's
// start).
func signed(data []byte) bool {
	at := int(binary.LittleEndian.Uint32(data[60:])) + 24 // readPE found the header
	count := at + 92
	switch binary.LittleEndian.Uint16(data[at:]) {
	case 0x10b: // PE32
	case 0x20b: // PE32+
		count += 16
	default:
		return false
	}
	const fifth, entry = 4, 8
	table := count + 4 + fifth*entry
	if table+entry > len(data) || binary.LittleEndian.Uint32(data[count:]) <= fifth {
		return false
	}
	from, size := uint64(binary.LittleEndian.Uint32(data[table:])), uint64(binary.LittleEndian.Uint32(data[table+4:]))
	return from > 0 && size > entry && from+size <= uint64(len(data))
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}
