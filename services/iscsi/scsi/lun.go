package scsi

import "lunboot/store"

// Addressing methods: the two high bits of a LUN's first byte (SAM-5 §4.7.7.1).
const (
	addressingMask       = 0xc0
	peripheralAddressing = 0x00
	flatAddressing       = 0x40
)

// ParseLUN reads the 8 bytes of a single level LUN: peripheral device addressing
// with bus identifier 0 (SAM-5 §4.7.7.2) or flat space addressing (§4.7.7.3).
// Every other form, the well known logical units among them, names nothing that
// could be mapped.
func ParseLUN(b [8]byte) (store.LUN, bool) {
	if b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
		return 0, false
	}
	switch b[0] & addressingMask {
	case peripheralAddressing:
		return store.LUN(b[1]), b[0] == 0
	case flatAddressing:
		return store.LUN(b[0]&^addressingMask)<<8 | store.LUN(b[1]), true
	}
	return 0, false
}
