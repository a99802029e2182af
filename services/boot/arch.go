package boot

import (
	"strconv"
	"strings"

	"lunboot/store"
)

// archNames are the words that people use for client architectures, with the
// option 93 that stands for each.
var archNames = []struct {
	name string
	code uint16
}{
	{"bios", 0}, {"uefi-ia32", 6}, {"uefi-x64", 7}, {"uefi-arm32", 10}, {"uefi-arm64", 11}, {"uefi-riscv64", 27}, {"uefi-loong64", 39},
	{"http-ia32", 15}, {"http-x64", 16}, {"http-arm32", 18}, {"http-arm64", 19}, {"http-riscv64", 28}, {"http-loong64", 40},
}

// ParseArch reads a client architecture as people write it: "bios", "uefi-x64",
// "http-arm64" for UEFI HTTP boot, or the number of option 93.
func ParseArch(s string) (option93 uint16, p Platform, err error) {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, a := range archNames {
		if s == a.name {
			p, _ = PlatformOf(a.code)
			return a.code, p, nil
		}
	}
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		if p, ok := PlatformOf(uint16(n)); ok {
			return uint16(n), p, nil
		}
	}
	names := make([]string, len(archNames))
	for i, a := range archNames {
		names[i] = a.name
	}
	return 0, Platform{}, store.Invalid("arch", "%q is no client architecture; choose one of %s, or a number of option 93", s, strings.Join(names, ", "))
}

// ArchOf returns the option 93 of a machine whose firmware and architecture are
// known by the names that events and pages use. ok is false when they are not.
func ArchOf(firmware, arch string) (option93 uint16, ok bool) {
	if firmware == BIOS.String() {
		return 0, true
	}
	for _, a := range archNames {
		if p, _ := PlatformOf(a.code); !p.HTTP && p.Firmware.String() == firmware && p.Arch.String() == arch {
			return a.code, true
		}
	}
	return 0, false
}

// ArchNames lists the words of ParseArch.
func ArchNames() []string {
	var out []string
	for _, a := range archNames {
		out = append(out, a.name)
	}
	return out
}
