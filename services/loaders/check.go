package loaders

import (
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

// Check reports whether data can be the loader that name says: an EFI
// application of the right processor for .efi, and no EFI file for BIOS. A
// wrong one would leave a machine hanging without a word.
func Check(name boot.Loader, data []byte) error {
	if len(data) < 1024 {
		return fmt.Errorf("it has %d bytes, too few for a loader", len(data))
	}
	machine, subsystem, isPE := readPE(data)
	p := name.Platform()
	if p.Firmware == boot.BIOS {
		switch {
		case data[0] == 'M' && data[1] == 'Z':
			return errors.New("it is an EFI file, which a BIOS machine cannot start")
		case isText(data[:512]):
			return errors.New("it is a text file, not a loader")
		}
		return nil
	}
	if !isPE {
		return errors.New("it is not an EFI file")
	}
	var arch boot.Arch
	switch machine {
	case peX86:
		arch = boot.X86
	case peX8664:
		arch = boot.X8664
	case peARM64:
		arch = boot.ARM64
	}
	if arch != p.Arch {
		return fmt.Errorf("it is an EFI file for %s (machine type %04xh), not for %s", arch, machine, p.Arch)
	}
	if subsystem != peEFIApplication {
		return fmt.Errorf("it is not an EFI application (subsystem %d)", subsystem)
	}
	return nil
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

func isText(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' || c >= 0x7f {
			return false
		}
	}
	return true
}
