// Package sense is what a SCSI command says when it fails: sense keys,
// additional sense codes and the two formats of sense data (SPC-4 §4.5). It
// also says which sense a fault of a volume becomes. It knows no command.
package sense

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
	KeyNoSense        = 0x00
	KeyNotReady       = 0x02
	KeyMediumError    = 0x03
	KeyHardwareError  = 0x04
	KeyIllegalRequest = 0x05
	KeyUnitAttention  = 0x06
	KeyDataProtect    = 0x07
	KeyCopyAborted    = 0x0a
	KeyAbortedCommand = 0x0b
	KeyMiscompare     = 0x0e
)

// MaxLength holds the longest sense data that is made here: descriptor format
// with an information, a command-specific information and a sense key specific
// descriptor.
const MaxLength = 8 + 12 + 12 + 8

// Data is an error that a command ends with: CHECK CONDITION and this.
type Data struct {
	Key, ASC, ASCQ byte
	// Info is the INFORMATION field, valid when HasInfo: an LBA, or the offset
	// of a miscompare.
	Info    uint64
	HasInfo bool
	// Command is the COMMAND-SPECIFIC INFORMATION field, valid when HasCommand:
	// the segment at fault of a copy.
	Command    uint32
	HasCommand bool
	// sks is the SENSE KEY SPECIFIC field, valid when its first bit is set.
	sks [3]byte
}

func (s *Data) Error() string {
	return fmt.Sprintf("sense %02Xh/%02Xh/%02Xh", s.Key, s.ASC, s.ASCQ)
}

// The errors without an argument.
var (
	None              = &Data{Key: KeyNoSense}
	InvalidOpcode     = &Data{Key: KeyIllegalRequest, ASC: 0x20, ASCQ: 0x00, sks: cdbPointer(0, -1)}
	NoLUN             = &Data{Key: KeyIllegalRequest, ASC: 0x25, ASCQ: 0x00}
	NoMedium          = &Data{Key: KeyNotReady, ASC: 0x3a, ASCQ: 0x00}
	ParameterLength   = &Data{Key: KeyIllegalRequest, ASC: 0x1a, ASCQ: 0x00}
	SavingParameters  = &Data{Key: KeyIllegalRequest, ASC: 0x39, ASCQ: 0x00}
	WriteProtected    = &Data{Key: KeyDataProtect, ASC: 0x27, ASCQ: 0x00}
	SoftwareProtected = &Data{Key: KeyDataProtect, ASC: 0x27, ASCQ: 0x02}
	DataPhase         = &Data{Key: KeyAbortedCommand, ASC: 0x4b, ASCQ: 0x00}
	Aborted           = &Data{Key: KeyAbortedCommand, ASC: 0x00, ASCQ: 0x00}
)

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

// InvalidField is INVALID FIELD IN CDB with a pointer to the field's first byte
// and most significant bit.
func InvalidField(octet, bit int) *Data {
	return &Data{Key: KeyIllegalRequest, ASC: 0x24, sks: cdbPointer(octet, bit)}
}

// InvalidParameter is INVALID FIELD IN PARAMETER LIST with a pointer to a byte.
func InvalidParameter(octet int) *Data {
	return &Data{Key: KeyIllegalRequest, ASC: 0x26, sks: [3]byte{0x80, byte(octet >> 8), byte(octet)}}
}

// Sanitizing is SANITIZE IN PROGRESS with a progress indication in parts of
// 65,536 (SPC-4 §4.5.2.4.4).
func Sanitizing(progress uint16) *Data {
	return &Data{Key: KeyNotReady, ASC: 0x04, ASCQ: 0x1b, sks: [3]byte{0x80, byte(progress >> 8), byte(progress)}}
}

// OutOfRange is LOGICAL BLOCK ADDRESS OUT OF RANGE; lba is the first that is.
func OutOfRange(lba uint64) *Data {
	return &Data{Key: KeyIllegalRequest, ASC: 0x21, Info: lba, HasInfo: true}
}

// Miscompare is MISCOMPARE DURING VERIFY OPERATION at a byte of the Data-Out
// Buffer (SBC-3, COMPARE AND WRITE, VERIFY).
func Miscompare(offset uint64) *Data {
	return &Data{Key: KeyMiscompare, ASC: 0x1d, Info: offset, HasInfo: true}
}

// ReadError is the sense of a failed read that began at lba. Which of the blocks
// is damaged is not known, so the first one is named: an initiator takes all
// blocks before the one named as good.
func ReadError(err error, lba uint64) error {
	if canceled(err) {
		return Aborted
	}
	return &Data{Key: KeyMediumError, ASC: 0x11, Info: lba, HasInfo: true} // UNRECOVERED READ ERROR
}

// WriteError is the sense of a failed write, unmap or flush. A full disk is
// SPACE ALLOCATION FAILED WRITE PROTECT (SBC-3, logical block provisioning): the initiator may try
// again when the operator has made room.
func WriteError(err error, lba uint64) error {
	switch {
	case canceled(err):
		return Aborted
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), store.KindOf(err) == store.KindUnavailable:
		return &Data{Key: KeyDataProtect, ASC: 0x27, ASCQ: 0x07, Info: lba, HasInfo: true}
	case store.KindOf(err) == store.KindDenied:
		return WriteProtected
	}
	return &Data{Key: KeyMediumError, ASC: 0x0c, Info: lba, HasInfo: true} // WRITE ERROR
}

func canceled(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// Append appends the sense data in descriptor (SPC-4 §4.5.2) or fixed format
// (§4.5.3).
func (s *Data) Append(dst []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(dst)
	}
	return s.appendFixed(dst)
}

func (s *Data) appendFixed(dst []byte) []byte {
	var b [18]byte
	b[0] = 0x70
	b[2] = s.Key
	if s.HasInfo && s.Info <= 0xffffffff { // VALID=0 when the field is too small (SPC-4 §4.5.3)
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], uint32(s.Info))
	}
	b[7] = byte(len(b) - 8)
	binary.BigEndian.PutUint32(b[8:], s.Command)
	b[12], b[13] = s.ASC, s.ASCQ
	copy(b[15:], s.sks[:])
	return append(dst, b[:]...)
}

func (s *Data) appendDescriptor(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, 0x72, s.Key, s.ASC, s.ASCQ, 0, 0, 0, 0)
	if s.HasInfo {
		dst = append(dst, 0x00, 0x0a, 0x80, 0)
		dst = binary.BigEndian.AppendUint64(dst, s.Info)
	}
	if s.HasCommand {
		dst = append(dst, 0x01, 0x0a, 0, 0)
		dst = binary.BigEndian.AppendUint64(dst, uint64(s.Command))
	}
	if s.sks[0]&0x80 != 0 {
		dst = append(dst, 0x02, 0x06, 0, 0, s.sks[0], s.sks[1], s.sks[2], 0)
	}
	dst[start+7] = byte(len(dst) - start - 8)
	return dst
}
