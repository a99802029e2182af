// Package ipxeerr reads the error codes that iPXE prints, such as 1d704539 in
// "http://ipxe.org/1d704539", and says in plain words what they mean to the
// person in front of the machine.
//
// A code is computed (iPXE src/include/errno.h): POSIX error in bits 30–24, the
// source file that raised it in bits 23–13, which of that file's errors in bits
// 12–8, and a platform's own status in bits 7–0. The last byte differs between
// BIOS and UEFI for one and the same error, so the tables are keyed without it.
package ipxeerr

import (
	"fmt"
	"strconv"
	"strings"

	"lunboot/store"
)

// Platform is the firmware that a code was printed under.
type Platform uint8

// The platforms; a code's low byte tells them apart.
const (
	PlatformUnknown Platform = iota
	BIOS
	UEFI
)

// String prints the firmware's name.
func (p Platform) String() string {
	switch p {
	case BIOS:
		return "BIOS"
	case UEFI:
		return "UEFI"
	}
	return "unknown firmware"
}

// Explanation is what a code says.
type Explanation struct {
	Code     uint32          // as printed
	Posix    uint8           // the POSIX error's number in iPXE's own list
	File     uint16          // the source file's number
	Uniq     uint8           // which of the file's errors
	Platform Platform        //
	Stage    store.StageName // the stage of a boot that it belongs to; empty when any
	Class    Class           // what sort of failure
	Screen   string          // what iPXE prints before the code: "Input/output error"
	Where    string          // the part of iPXE that gave up: "iSCSI"
	Meaning  string          // one sentence in plain words
	Exact    bool            // the code itself is known, not only its parts
}

// Class groups codes that have one remedy.
type Class string

// The classes of failures.
const (
	ClassOther       Class = ""
	ClassNoLUN       Class = "no-lun"         // the LUN does not exist
	ClassNotReady    Class = "not-ready"      // the volume is not ready
	ClassMedium      Class = "medium"         // the volume could not be read
	ClassReadOnly    Class = "read-only"      // the volume may not be written
	ClassDisk        Class = "disk"           // the target refused a command, and the code does not say why
	ClassSecret      Class = "secret"         // the initiator's CHAP name or secret is wrong
	ClassNotAllowed  Class = "not-allowed"    // the initiator is not known, or has no volume
	ClassNoTarget    Class = "no-target"      // the target's name is unknown
	ClassNegotiate   Class = "negotiate"      // one side insists on CHAP, the other has none
	ClassMutual      Class = "mutual"         // the target's CHAP name or secret is wrong
	ClassMix         Class = "credential-mix" // the CHAP settings of the machine do not fit together
	ClassRootPath    Class = "root-path"      // the SAN address in the script is malformed
	ClassUnreachable Class = "unreachable"    // nobody answers at the address
	ClassNotBootable Class = "not-bootable"   // the volume has nothing to start
	ClassNoFile      Class = "no-file"        // the file does not exist
	ClassServer      Class = "server"         // the server answered with a failure
	ClassNoAddress   Class = "no-address"     // DHCP gave nothing
	ClassLink        Class = "link"           // the cable or switch port
	ClassFormat      Class = "format"         // the file is not what this machine can start
	ClassScript      Class = "script"         // the script has a line that iPXE does not know
	ClassSecureBoot  Class = "secure-boot"    // the firmware refused an unsigned file
	ClassFeature     Class = "feature"        // this iPXE was built without it
	ClassClock       Class = "clock"          // a certificate is not valid at the machine's time
	ClassName        Class = "name"           // a name could not be resolved
	ClassMemory      Class = "memory"         // the machine has too little memory
	ClassGaveUp      Class = "gave-up"        // what was started came back
)

// String says it in one line: "the machine's disk does not exist … (1d704539:
// Input/output error, SCSI, BIOS)".
func (e Explanation) String() string {
	parts := []string{e.Screen}
	if e.Where != "" {
		parts = append(parts, e.Where)
	}
	if e.Platform != PlatformUnknown {
		parts = append(parts, e.Platform.String())
	}
	return fmt.Sprintf("%s (%08x: %s)", e.Meaning, e.Code, strings.Join(parts, ", "))
}

// Parse reads a code in every form in which people meet it: "1d704539",
// "0x1d704539", "20d623c" (a script's ${errno} has no leading zeros),
// "http://ipxe.org/1d704539" and ipxe.org/err/1d7045 without the platform.
func Parse(s string) (uint32, bool) {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimPrefix(strings.TrimPrefix(t, "https://"), "http://")
	short := false
	if rest, ok := strings.CutPrefix(t, "ipxe.org/"); ok {
		t, short = strings.CutPrefix(rest, "err/")
	}
	t = strings.TrimPrefix(strings.TrimSuffix(t, "/"), "0x")
	if t == "" || len(t) > 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(t, 16, 32)
	if err != nil || strings.ContainsAny(t, "+_") {
		return 0, false
	}
	if short && len(t) == 6 {
		n <<= 8
	}
	// Bit 31 is never set: an iPXE error is a positive int.
	if n == 0 || n > 0x7fffffff {
		return 0, false
	}
	return uint32(n), true
}

// DecodeString is Parse, then Decode.
func DecodeString(s string) (Explanation, bool) {
	code, ok := Parse(s)
	if !ok {
		return Explanation{}, false
	}
	return Decode(code)
}

// Decode takes a code apart. ok is false when nothing is known about it, not
// even its POSIX error.
func Decode(code uint32) (e Explanation, ok bool) {
	e = Explanation{
		Code:  code,
		Posix: uint8(code >> 24 & 0x7f),
		File:  uint16(code >> 13 & 0x7ff),
		Uniq:  uint8(code >> 8 & 0x1f),
	}
	switch low := code & 0xff; {
	case low >= 0x80:
		e.Platform = UEFI
	case low > 0:
		e.Platform = BIOS
	}
	if code > 0x7fffffff || code == 0 {
		return e, false
	}
	e.Screen = posixText[e.Posix]
	if f, known := fileText[e.File]; known {
		e.Where, e.Stage = f.name, f.stage
	}
	if k, known := codes[code>>8]; known {
		e.Exact, e.Meaning, e.Class = true, k.meaning, k.class
		if k.stage != "" {
			e.Stage = k.stage
		}
	}
	if e.Posix == posixEFI {
		e.Screen = "Error 0x" + strconv.FormatUint(uint64(code), 16)
		efiStatus(&e, uint8(code))
	}
	if e.Meaning == "" {
		if e.Screen == "" {
			return e, false
		}
		e.Meaning = guess(e)
	}
	if e.Screen == "" {
		e.Screen = "Error 0x" + strconv.FormatUint(uint64(code), 16)
	}
	return e, true
}

// guess says what the parts of an unlisted code allow.
func guess(e Explanation) string {
	m := posixMeaning[e.Posix]
	if m == "" {
		m = "iPXE gave up: " + strings.ToLower(e.Screen)
	}
	if e.Where != "" {
		m += ", while it worked on " + e.Where
	}
	return m
}

// efiStatus reads the status of the UEFI firmware itself, which iPXE passes
// through in the low byte when the POSIX error is 7fh. LoadImage and StartImage
// carry file 024h (efi_image).
func efiStatus(e *Explanation, low uint8) {
	if e.File != fileEFIImage {
		if e.Exact {
			return
		}
		if m := efiMeaning[low]; m != "" {
			e.Meaning = m
		} else {
			e.Meaning = fmt.Sprintf("the firmware refused, with its own status %02x", low)
		}
		return
	}
	e.Exact = true
	switch low {
	case 0x8f, 0x9a: // EFI_ACCESS_DENIED, EFI_SECURITY_VIOLATION
		e.Class = ClassSecureBoot
		e.Meaning = "the firmware refused to start an unsigned file; Secure Boot is on"
	case 0x81, 0x83: // EFI_LOAD_ERROR, EFI_UNSUPPORTED
		e.Class = ClassFormat
		e.Meaning = "the firmware could not load the file; it is damaged or made for another kind of machine"
	default:
		e.Meaning = "the started program came back with a failure"
	}
}
