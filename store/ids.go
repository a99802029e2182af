package store

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MAC is an EUI-48 hardware address. It is comparable; the zero MAC means none.
type MAC [6]byte

// ParseMAC reads a MAC in every usual spelling: 00:07:e9:0f:ea:f5,
// 00-07-E9-0F-EA-F5, 0007.e90f.eaf5, 0007e90feaf5. All-zero, broadcast and
// multicast addresses are refused: no machine has one of its own (IEEE 802
// §8.2: the I/G bit).
func ParseMAC(s string) (MAC, error) {
	var digits string
	bad := Invalid("mac", "%q is not a MAC address; write it as 00:07:e9:0f:ea:f5", s)
	switch {
	case len(s) == 12:
		digits = s
	case len(s) == 14 && s[4] == '.' && s[9] == '.':
		digits = s[0:4] + s[5:9] + s[10:14]
	case len(s) == 17 && (s[2] == ':' || s[2] == '-'):
		for i := 0; i < 17; i += 3 {
			if i > 0 && s[i-1] != s[2] {
				return MAC{}, bad
			}
			digits += s[i : i+2]
		}
	default:
		return MAC{}, bad
	}
	b, err := hex.DecodeString(digits)
	if err != nil {
		return MAC{}, bad
	}
	m := MAC(b)
	if m.IsZero() {
		return MAC{}, Invalid("mac", "%q is all zeros, which no machine has", s)
	}
	if m[0]&1 != 0 {
		return MAC{}, Invalid("mac", "%q is a group address; a machine's own address has an even first byte", s)
	}
	return m, nil
}

// MACFrom copies a hardware address; ok is false when it is not 6 bytes long.
func MACFrom(b []byte) (m MAC, ok bool) {
	if len(b) != len(m) {
		return MAC{}, false
	}
	return MAC(b), true
}

// String prints lower-case hexadecimal with colons.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Hex12 prints the twelve hexadecimal digits alone, as file names use them.
func (m MAC) Hex12() string { return hex.EncodeToString(m[:]) }

// IsZero reports whether m is the zero MAC.
func (m MAC) IsZero() bool { return m == MAC{} }

// MarshalText prints m for JSON; the zero MAC is the empty string.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText and people write.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

// UUID is a machine's SMBIOS UUID in textual order. The zero UUID means none.
type UUID [16]byte

// ParseUUID reads 8-4-4-4-12 hexadecimal digits, with or without hyphens or
// braces.
func ParseUUID(s string) (UUID, error) {
	t := s
	if len(s) > 2 && s[0] == '{' && s[len(s)-1] == '}' {
		t = s[1 : len(s)-1]
	}
	if len(t) == 36 && t[8] == '-' && t[13] == '-' && t[18] == '-' && t[23] == '-' {
		t = t[0:8] + t[9:13] + t[14:18] + t[19:23] + t[24:36]
	}
	b, err := hex.DecodeString(t)
	if err != nil || len(b) != 16 {
		return UUID{}, Invalid("uuid", "%q is not a UUID; write it as 4c4c4544-0034-4810-8051-b4c04f564a32", s)
	}
	return UUID(b), nil
}

// UUIDFromWire reads DHCP option 97's value without its type byte, and SMBIOS's
// own order: the first three fields are little-endian (RFC 4578 §2.3,
// SMBIOS §7.2.1).
func UUIDFromWire(b []byte) (u UUID, ok bool) {
	if len(b) != 16 {
		return UUID{}, false
	}
	copy(u[:], b)
	u[0], u[1], u[2], u[3] = b[3], b[2], b[1], b[0]
	u[4], u[5] = b[5], b[4]
	u[6], u[7] = b[7], b[6]
	return u, true
}

// NewUUID makes a random UUID (RFC 9562 version 4).
func NewUUID() UUID {
	var u UUID
	rand.Read(u[:])
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// String prints the usual lower-case 8-4-4-4-12 form.
func (u UUID) String() string {
	h := hex.EncodeToString(u[:])
	return h[0:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

// IsZero reports whether u is the zero UUID.
func (u UUID) IsZero() bool { return u == UUID{} }

// IsPlaceholder reports whether u is one that boards carry when their maker
// never set one: all zeros, all ones, or AMI's well-known default. It never
// identifies a machine.
func (u UUID) IsPlaceholder() bool {
	if u.IsZero() || u == (UUID{0x03, 0x00, 0x02, 0x00, 0x04, 0x00, 0x05, 0x00, 0x00, 0x06, 0x00, 0x07, 0x00, 0x08, 0x00, 0x09}) {
		return true
	}
	for _, b := range u {
		if b != 0xff {
			return false
		}
	}
	return true
}

// MarshalText prints u for JSON; the zero UUID is the empty string.
func (u UUID) MarshalText() ([]byte, error) {
	if u.IsZero() {
		return nil, nil
	}
	return []byte(u.String()), nil
}

// UnmarshalText reads what MarshalText and people write.
func (u *UUID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*u = UUID{}
		return nil
	}
	v, err := ParseUUID(string(b))
	if err != nil {
		return err
	}
	*u = v
	return nil
}

// IQN is an iSCSI name: iqn., eui. or naa. (RFC 7143 §4.2.7). It is kept in
// lower case, since names are compared after stringprep (RFC 3722).
type IQN string

// maxIQN is the longest iSCSI name in bytes (RFC 7143 §4.2.7.1).
const maxIQN = 223

// ParseIQN checks an iSCSI name and folds its case.
func ParseIQN(s string) (IQN, error) {
	if !utf8.ValidString(s) {
		return "", Invalid("iqn", "the iSCSI name is not valid UTF-8")
	}
	t := strings.ToLower(s)
	if t == "" {
		return "", Invalid("iqn", "an iSCSI name is needed, such as iqn.2026-11.lab:machine-1")
	}
	if len(t) > maxIQN {
		return "", Invalid("iqn", "the iSCSI name has %d bytes, %d are allowed", len(t), maxIQN)
	}
	for i, r := range t {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == ':' ||
			r > 0x7f && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r))) {
			return "", Invalid("iqn", "%q has %q at byte %d; an iSCSI name has letters, digits, '-', '.' and ':'", s, r, i)
		}
	}
	switch {
	case strings.HasPrefix(t, "iqn."):
		// iqn.yyyy-mm.reversed.domain[:anything]
		rest := t[4:]
		if len(rest) < 9 || rest[4] != '-' || rest[7] != '.' || !digits(rest[0:4]) || !digits(rest[5:7]) || rest[5:7] < "01" || rest[5:7] > "12" || rest[8] == ':' {
			return "", Invalid("iqn", "%q does not follow iqn.YYYY-MM.reversed.domain:name", s)
		}
	case strings.HasPrefix(t, "eui."):
		if len(t) != 20 || !hexDigits(t[4:]) {
			return "", Invalid("iqn", "%q is not eui. and 16 hexadecimal digits", s)
		}
	case strings.HasPrefix(t, "naa."):
		if n := len(t) - 4; n != 16 && n != 32 || !hexDigits(t[4:]) {
			return "", Invalid("iqn", "%q is not naa. and 16 or 32 hexadecimal digits", s)
		}
	default:
		return "", Invalid("iqn", "%q does not begin with iqn., eui. or naa.", s)
	}
	return IQN(t), nil
}

func digits(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return s != ""
}

func hexDigits(s string) bool {
	for _, r := range s {
		if !(r >= '0' && r <= '9' || r >= 'a' && r <= 'f') {
			return false
		}
	}
	return s != ""
}

// LUN is a logical unit number, 0 to MaxLUN.
type LUN uint16

// MaxLUN is the largest number that flat space addressing can name (SAM-5
// §4.7.7.3: 14 bits).
const MaxLUN LUN = 16383

// ParseLUN reads a decimal LUN, as people write it.
func ParseLUN(s string) (LUN, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, Invalid("lun", "%q is not a LUN; write a decimal number from 0 to %d", s, MaxLUN)
	}
	return NewLUN(int64(n))
}

// NewLUN checks the range of a LUN.
func NewLUN(n int64) (LUN, error) {
	if n < 0 || n > int64(MaxLUN) {
		return 0, Invalid("lun", "LUN %d is out of range; 0 to %d can be mapped", n, MaxLUN)
	}
	return LUN(n), nil
}

// Wire returns the 8-byte form: peripheral device addressing up to 255 (SAM-5
// §4.7.7.2), flat space addressing above (§4.7.7.3).
func (l LUN) Wire() [8]byte {
	if l < 256 {
		return [8]byte{0, byte(l)}
	}
	return [8]byte{0x40 | byte(l>>8), byte(l)}
}

// URI returns the LUN as an iPXE SAN URI carries it: the wire form's first 16
// bits in hexadecimal (RFC 4173 §5). LUN 2 is "2", 10 is "A", 256 is "4100".
func (l LUN) URI() string {
	w := l.Wire()
	return fmt.Sprintf("%X", uint16(w[0])<<8|uint16(w[1]))
}
