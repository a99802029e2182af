package pdu

import (
	"encoding/binary"
	"fmt"
)

// BHSLength is the length of a basic header segment.
const BHSLength = 48

// MaxDataSegmentLength is the largest value of the 24-bit length field.
const MaxDataSegmentLength = 1<<24 - 1

// Offsets in the BHS (RFC 7143 §11.2.1).
const (
	offOpcode    = 0
	offFlags     = 1
	offTotalAHS  = 4
	offDataLen   = 5
	offLUN       = 8
	offITT       = 16
	offTTT       = 20
	offCmdSN     = 24 // initiator to target
	offExpStatSN = 28 // initiator to target
	offStatSN    = 24 // target to initiator
	offExpCmdSN  = 28 // target to initiator
	offMaxCmdSN  = 32 // target to initiator
)

const (
	flagFinal     = 0x80
	flagImmediate = 0x40 // in byte 0
	opcodeMask    = 0x3f
)

// Header is a basic header segment as it stands on the wire.
type Header [BHSLength]byte

// Opcode returns the six bits that say which PDU this is.
func (h *Header) Opcode() Opcode { return Opcode(h[offOpcode] & opcodeMask) }

// Immediate reports the I bit: the request stands outside the CmdSN window.
func (h *Header) Immediate() bool { return h[offOpcode]&flagImmediate != 0 }

// Final reports the F bit.
func (h *Header) Final() bool { return h[offFlags]&flagFinal != 0 }

// AHSLength returns the length of the additional header segments in bytes.
func (h *Header) AHSLength() int { return int(h[offTotalAHS]) * 4 }

// DataSegmentLength returns the length of the data segment in bytes, without
// its padding.
func (h *Header) DataSegmentLength() int {
	return int(h[offDataLen])<<16 | int(h[offDataLen+1])<<8 | int(h[offDataLen+2])
}

// SetDataSegmentLength sets the length of the data segment.
func (h *Header) SetDataSegmentLength(n int) {
	h[offDataLen], h[offDataLen+1], h[offDataLen+2] = byte(n>>16), byte(n>>8), byte(n)
}

// SetAHSLength sets the length of the additional header segments; n is a
// multiple of four.
func (h *Header) SetAHSLength(n int) { h[offTotalAHS] = byte(n / 4) }

// InitiatorTaskTag returns the tag of the task that the PDU belongs to.
func (h *Header) InitiatorTaskTag() TaskTag { return TaskTag(h.u32(offITT)) }

// CmdSN returns the number of an initiator's request.
func (h *Header) CmdSN() Serial { return Serial(h.u32(offCmdSN)) }

// LUN returns the logical unit that an initiator's PDU is for.
func (h *Header) LUN() LUN { return h.lun() }

// Check refuses a header whose lengths go beyond what its receiver has
// announced, before a byte of memory is set aside for them.
func (h *Header) Check(maxAHS, maxData int) error {
	if n := h.AHSLength(); n > maxAHS {
		return fmt.Errorf("%s: %d bytes of additional header, %d are allowed", h.Opcode(), n, maxAHS)
	}
	if n := h.DataSegmentLength(); n > maxData {
		return fmt.Errorf("%s: a data segment of %d bytes, MaxRecvDataSegmentLength is %d", h.Opcode(), n, maxData)
	}
	return nil
}

// Pad returns how many bytes bring n to a multiple of four.
func Pad(n int) int { return -n & 3 }

func (h *Header) u32(off int) uint32      { return binary.BigEndian.Uint32(h[off:]) }
func (h *Header) put32(off int, v uint32) { binary.BigEndian.PutUint32(h[off:], v) }
func (h *Header) u16(off int) uint16      { return binary.BigEndian.Uint16(h[off:]) }
func (h *Header) put16(off int, v uint16) { binary.BigEndian.PutUint16(h[off:], v) }
func (h *Header) lun() LUN                { return LUN(h[offLUN : offLUN+8]) }
func (h *Header) putLUN(l LUN)            { copy(h[offLUN:], l[:]) }
func (h *Header) flag(mask byte) bool     { return h[offFlags]&mask != 0 }
func (h *Header) setFlag(m byte, set bool) {
	if set {
		h[offFlags] |= m
	}
}

// begin clears h and sets what every PDU has. Lengths are kept out: the caller
// sets them when it knows the data segment.
func (h *Header) begin(op Opcode, immediate, final bool) {
	*h = Header{}
	h[offOpcode] = byte(op)
	if immediate {
		h[offOpcode] |= flagImmediate
	}
	h.setFlag(flagFinal, final)
}

// expect refuses a header of another opcode.
func (h *Header) expect(op Opcode) error {
	if got := h.Opcode(); got != op {
		return &ProtocolError{Reason: ReasonProtocolError, Text: fmt.Sprintf("a %s where a %s is decoded", got, op)}
	}
	return nil
}

// putSN writes the three serial numbers of every target PDU.
func (h *Header) putSN(s SN) {
	h.put32(offStatSN, uint32(s.StatSN))
	h.put32(offExpCmdSN, uint32(s.ExpCmdSN))
	h.put32(offMaxCmdSN, uint32(s.MaxCmdSN))
}

func (h *Header) sn() SN {
	return SN{StatSN: Serial(h.u32(offStatSN)), ExpCmdSN: Serial(h.u32(offExpCmdSN)), MaxCmdSN: Serial(h.u32(offMaxCmdSN))}
}

// SN is the group of serial numbers that every target PDU carries.
type SN struct {
	StatSN   Serial
	ExpCmdSN Serial
	MaxCmdSN Serial
}
