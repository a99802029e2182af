package boot

// Firmware is what starts a machine.
type Firmware uint8

// The kinds of firmware. The zero value is unknown.
const (
	FirmwareUnknown Firmware = iota
	BIOS
	UEFI
)

// String prints the name that events and pages use.
func (f Firmware) String() string {
	switch f {
	case BIOS:
		return "BIOS"
	case UEFI:
		return "UEFI"
	}
	return "unknown"
}

// Arch is a processor architecture. The zero value is unknown.
type Arch uint8

// The architectures that network boot knows.
const (
	ArchUnknown Arch = iota
	X86              // 32-bit
	X8664            // 64-bit
	ARM32
	ARM64
	RISCV64
	LoongArch64
)

// String prints the name that events and pages use.
func (a Arch) String() string {
	switch a {
	case X86:
		return "x86"
	case X8664:
		return "x86-64"
	case ARM32:
		return "arm32"
	case ARM64:
		return "arm64"
	case RISCV64:
		return "riscv64"
	case LoongArch64:
		return "loongarch64"
	}
	return "unknown"
}

// Platform is what option 93 says of a client: its firmware, its architecture
// and whether it fetches over HTTP instead of TFTP.
type Platform struct {
	Firmware Firmware
	Arch     Arch
	HTTP     bool
}

// String prints "UEFI x86-64".
func (p Platform) String() string {
	s := p.Firmware.String() + " " + p.Arch.String()
	if p.HTTP {
		s += " HTTP"
	}
	return s
}

// PlatformOf reads a client system architecture type (option 93, RFC 4578 §2.1
// and the IANA registry "Processor Architecture Types"). ok is false for a type
// that the registry does not name.
func PlatformOf(option93 uint16) (p Platform, ok bool) {
	switch option93 {
	case 0:
		return Platform{BIOS, X86, false}, true
	case 6:
		return Platform{UEFI, X86, false}, true
	case 7, 9: // 9 is "EBC" in RFC 4578; firmware of x64 machines sends either
		return Platform{UEFI, X8664, false}, true
	case 10:
		return Platform{UEFI, ARM32, false}, true
	case 11:
		return Platform{UEFI, ARM64, false}, true
	case 15:
		return Platform{UEFI, X86, true}, true
	case 16:
		return Platform{UEFI, X8664, true}, true
	case 18:
		return Platform{UEFI, ARM32, true}, true
	case 19:
		return Platform{UEFI, ARM64, true}, true
	case 20:
		return Platform{BIOS, X86, true}, true
	case 27:
		return Platform{UEFI, RISCV64, false}, true
	case 28:
		return Platform{UEFI, RISCV64, true}, true
	case 39:
		return Platform{UEFI, LoongArch64, false}, true
	case 40:
		return Platform{UEFI, LoongArch64, true}, true
	}
	return Platform{}, false
}
