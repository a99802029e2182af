package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"lunboot/store"
)

// Sense keys (SPC-4 §4.5.6).
const (
	keyNoSense        = 0x00
	keyNotReady       = 0x02
	keyMediumError    = 0x03
	keyIllegalRequest = 0x05
	keyUnitAttention  = 0x06
	keyDataProtect    = 0x07
	keyAbortedCommand = 0x0b
	keyMiscompare     = 0x0e
)

// maxSense holds the longest sense data that is made here: descriptor format
// with an information and a sense key specific descriptor.
const maxSense = 8 + 12 + 8

// Sense is an error that a command ends with: CHECK CONDITION and this.
type Sense struct {
	Key, ASC, ASCQ byte
	// Info is the INFORMATION field, valid when HasInfo: an LBA, or the offset
	// of a miscompare.
	Info    uint64
	HasInfo bool
	// sks is the SENSE KEY SPECIFIC field, valid when its first bit is set.
	sks [3]byte
}

func (s *Sense) Error() string {
	return fmt.Sprintf("sense %02Xh/%02Xh/%02Xh", s.Key, s.ASC, s.ASCQ)
}

// The errors without an argument.
var (
	senseNone            = &Sense{Key: keyNoSense}
	errInvalidOpcode     = &Sense{Key: keyIllegalRequest, ASC: 0x20, ASCQ: 0x00, sks: cdbPointer(0, -1)}
	errNoLUN             = &Sense{Key: keyIllegalRequest, ASC: 0x25, ASCQ: 0x00}
	errNoMedium          = &Sense{Key: keyNotReady, ASC: 0x3a, ASCQ: 0x00}
	errParameterLength   = &Sense{Key: keyIllegalRequest, ASC: 0x1a, ASCQ: 0x00}
	errSavingParameters  = &Sense{Key: keyIllegalRequest, ASC: 0x39, ASCQ: 0x00}
	errWriteProtected    = &Sense{Key: keyDataProtect, ASC: 0x27, ASCQ: 0x00}
	errSoftwareProtected = &Sense{Key: keyDataProtect, ASC: 0x27, ASCQ: 0x02}
	errDataPhase         = &Sense{Key: keyAbortedCommand, ASC: 0x4b, ASCQ: 0x00}
	errAborted           = &Sense{Key: keyAbortedCommand, ASC: 0x00, ASCQ: 0x00}
)

// statusError ends a command with a status that has no sense data.
type statusError byte

func (s statusError) Error() string { return fmt.Sprintf("status %02Xh", byte(s)) }

const errReservationConflict = statusError(StatusReservationConflict)

// cdbPointer is the field pointer form of the sense key specific field (SPC-4
// §4.5.2.4.2), C/D=1: the byte of the CDB at fault and, unless negative, its
// most significant bit at fault.
func cdbPointer(octet, bit int) [3]byte {
	p := [3]byte{0xc0, 0, byte(octet)}
	if bit >= 0 {
		p[0] |= 0x08 | byte(bit)
	}
	return p
}

// invalidField is INVALID FIELD IN CDB with a pointer to the field's first byte
// and most significant bit.
func invalidField(octet, bit int) *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x24, sks: cdbPointer(octet, bit)}
}

// invalidParameter is INVALID FIELD IN PARAMETER LIST with a pointer to a byte.
func invalidParameter(octet int) *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x26, sks: [3]byte{0x80, byte(octet >> 8), byte(octet)}}
}

// outOfRange is LOGICAL BLOCK ADDRESS OUT OF RANGE; lba is the first that is.
func outOfRange(lba uint64) *Sense {
	return &Sense{Key: keyIllegalRequest, ASC: 0x21, Info: lba, HasInfo: true}
}

// miscompare is MISCOMPARE DURING VERIFY OPERATION at a byte of the Data-Out
// Buffer (SBC-3, COMPARE AND WRITE, VERIFY).
func miscompare(offset uint64) *Sense {
	return &Sense{Key: keyMiscompare, ASC: 0x1d, Info: offset, HasInfo: true}
}

// readError is the sense of a failed read that began at lba. Which of the blocks
// is damaged is not known, so the first one is named: an initiator takes all
// blocks before the one named as good.
func readError(err error, lba uint64) error {
	if canceled(err) {
		return errAborted
	}
	return &Sense{Key: keyMediumError, ASC: 0x11, Info: lba, HasInfo: true} // UNRECOVERED READ ERROR
}

// writeError is the sense of a failed write, unmap or flush. A full disk is
// SPACE ALLOCATION FAILED WRITE PROTECT (SBC-3, logical block provisioning): the initiator may try
// again when the operator has made room.
func writeError(err error, lba uint64) error {
	switch {
	case canceled(err):
		return errAborted
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), store.KindOf(err) == store.KindUnavailable:
		return &Sense{Key: keyDataProtect, ASC: 0x27, ASCQ: 0x07, Info: lba, HasInfo: true}
	case store.KindOf(err) == store.KindDenied:
		return errWriteProtected
	}
	return &Sense{Key: keyMediumError, ASC: 0x0c, Info: lba, HasInfo: true} // WRITE ERROR
}

func canceled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Append appends the sense data in descriptor (SPC-4 §4.5.2) or fixed format
// (§4.5.3).
func (s *Sense) Append(dst []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(dst)
	}
	return s.appendFixed(dst)
}

func (s *Sense) appendFixed(dst []byte) []byte {
	var b [18]byte
	b[0] = 0x70
	b[2] = s.Key
	if s.HasInfo && s.Info <= 0xffffffff { // VALID=0 when the field is too small (SPC-4 §4.5.3)
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], uint32(s.Info))
	}
	b[7] = byte(len(b) - 8)
	b[12], b[13] = s.ASC, s.ASCQ
	copy(b[15:], s.sks[:])
	return append(dst, b[:]...)
}

func (s *Sense) appendDescriptor(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0x72, s.Key, s.ASC, s.ASCQ, 0, 0, 0, 0)
	if s.HasInfo {
		dst = append(dst, 0x00, 0x0a, 0x80, 0)
		dst = binary.BigEndian.AppendUint64(dst, s.Info)
	}
	if s.sks[0]&0x80 != 0 {
		dst = append(dst, 0x02, 0x06, 0, 0, s.sks[0], s.sks[1], s.sks[2], 0)
	}
	dst[start+7] = byte(len(dst) - start - 8)
	return dst
}
