// Package xcopy is the data of EXTENDED COPY(LID1) and RECEIVE COPY RESULTS
// (SPC-4 §5.16, §6.4, §6.23): the parameter list, decoded once into segments of
// blocks to copy, and what is said of limits and of a copy's end. It knows no
// unit and copies nothing.
package xcopy

import (
	"encoding/binary"

	"lunboot/services/iscsi/scsi/sense"
)

// Limits that RECEIVE COPY RESULTS and VPD page 8Fh announce.
const (
	MaxTargets       = 8       // CSCD descriptors
	MaxSegments      = 16      // segment descriptors
	MaxDescriptors   = 1024    // bytes of both lists
	MaxSegmentLength = 1 << 28 // bytes
	MaxCopies        = 64      // at a time, of one nexus
)

// MaxList is the longest parameter list that can be right.
const MaxList = headerLength + MaxDescriptors

const (
	headerLength  = 16
	targetLength  = 32
	segmentHeader = 4
)

// Descriptor type codes (SPC-4 §6.4.5, §6.4.6).
const (
	blockToBlock   = 0x02
	identification = 0xe4
)

// How a list identifier is used (SPC-4 §6.4.3.2).
const (
	usageHold    = 0
	usageDiscard = 2
	usageNone    = 3
)

// List is a decoded parameter list.
type List struct {
	ID       byte
	Named    bool // ID names this copy; RECEIVE COPY RESULTS may ask for it
	Targets  []Target
	Segments []Segment
}

// Target is a copy source or destination, named by a designator as VPD page 83h
// lists it.
type Target struct {
	CodeSet, Association, Kind byte
	Designator                 []byte // of the parameter list's memory
	BlockLength                uint32 // bytes; 0 when the list does not say
}

// Segment is a run of blocks to copy. Source and Destination are places in
// Targets, which nobody has checked.
type Segment struct {
	Source, Destination int
	Blocks              uint64
	ByDestination       bool // Blocks counts blocks of the destination (DC)
	From, To            uint64
}

// parameter is an error in the parameter list with its additional sense code
// qualifier.
func parameter(ascq byte, octet int) error {
	s := sense.InvalidParameter(octet)
	s.ASCQ = ascq
	return s
}

// Parse reads a parameter list, which is not empty.
func Parse(b []byte) (l List, err error) {
	if len(b) < headerLength {
		return l, sense.ParameterLength
	}
	targets, segments, inline := int(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if uint64(targets)+uint64(segments) > MaxDescriptors || headerLength+targets+int(segments) > len(b) {
		return l, sense.ParameterLength
	}
	if inline != 0 {
		return l, parameter(0x0b, 12) // INLINE DATA LENGTH EXCEEDED
	}
	l.ID = b[0]
	switch usage := b[1] >> 3 & 3; {
	case usage == usageHold, usage == usageDiscard:
		l.Named = true
	case usage != usageNone:
		return l, sense.InvalidParameter(1)
	case l.ID != 0:
		return l, sense.InvalidParameter(0)
	}
	if l.Targets, err = parseTargets(b[:headerLength+targets]); err != nil {
		return l, err
	}
	l.Segments, err = parseSegments(b[:headerLength+targets+int(segments)], headerLength+targets)
	return l, err
}

// parseTargets reads the CSCD descriptors behind the header.
func parseTargets(b []byte) (found []Target, err error) {
	for at := headerLength; at < len(b); at += targetLength {
		d := b[at:]
		switch {
		case len(d) < targetLength:
			return nil, sense.ParameterLength
		case len(found) == MaxTargets:
			return nil, parameter(0x06, at) // TOO MANY TARGET DESCRIPTORS
		case d[0] != identification, d[1]&0x1f != 0: // a block device, named by a designator
			return nil, parameter(0x07, at) // UNSUPPORTED TARGET DESCRIPTOR TYPE CODE
		}
		n := int(d[7])
		if n > 20 {
			return nil, sense.InvalidParameter(at + 7)
		}
		found = append(found, Target{
			CodeSet: d[4] & 0x0f, Association: d[5] >> 4 & 3, Kind: d[5] & 0x0f, Designator: d[8 : 8+n],
			BlockLength: uint32(d[29])<<16 | uint32(d[30])<<8 | uint32(d[31]),
		})
	}
	return found, nil
}

// parseSegments reads the segment descriptors from an octet on.
func parseSegments(b []byte, at int) (found []Segment, err error) {
	const length = 0x18
	for at < len(b) {
		d := b[at:]
		switch {
		case len(d) < segmentHeader:
			return nil, sense.ParameterLength
		case len(found) == MaxSegments:
			return nil, parameter(0x08, at) // TOO MANY SEGMENT DESCRIPTORS
		case d[0] != blockToBlock:
			return nil, parameter(0x09, at) // UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE
		case binary.BigEndian.Uint16(d[2:]) != length:
			return nil, sense.InvalidParameter(at + 2)
		case len(d) < segmentHeader+length:
			return nil, sense.ParameterLength
		}
		found = append(found, Segment{
			Source: int(binary.BigEndian.Uint16(d[4:])), Destination: int(binary.BigEndian.Uint16(d[6:])),
			Blocks: uint64(binary.BigEndian.Uint16(d[10:])), ByDestination: d[1]&0x02 != 0,
			From: binary.BigEndian.Uint64(d[12:]), To: binary.BigEndian.Uint64(d[20:]),
		})
		at += segmentHeader + length
	}
	return found, nil
}

// aborted is COPY ABORTED for a segment, whose number is in the third and fourth
// byte of the command-specific information (SPC-4 §4.5.2.4.5).
func aborted(asc, ascq byte, segment int) error {
	return &sense.Data{Key: sense.KeyCopyAborted, ASC: asc, ASCQ: ascq, Command: uint32(segment), HasCommand: true}
}

// Aborted is a copy that failed while it ran.
func Aborted(segment int) error { return aborted(0x00, 0x00, segment) }

// Unreachable is a segment whose source or destination nobody knows here.
func Unreachable(segment int) error { return aborted(0x0d, 0x02, segment) }

// WrongDevice is a segment whose source or destination has other blocks than
// its descriptor says.
func WrongDevice(segment int) error { return aborted(0x0d, 0x03, segment) }

// Inexact is a segment that is not a whole number of blocks on both sides.
func Inexact(segment int) error { return aborted(0x26, 0x0a, segment) }

// Status is what became of a copy.
type Status struct {
	Running, Failed bool
	Segments        uint16 // processed
	Bytes           uint64
}

// Results is the parameter data of COPY STATUS.
func (s Status) Results() []byte {
	const done, failed, kibibytes = 1, 2, 1
	b := make([]byte, 12)
	b[3] = 8
	switch {
	case s.Running:
	case s.Failed:
		b[4] = failed
	default:
		b[4] = done
	}
	binary.BigEndian.PutUint16(b[5:], s.Segments)
	b[7] = kibibytes
	binary.BigEndian.PutUint32(b[8:], uint32(min(s.Bytes>>10, 0xffffffff)))
	return b
}

// Failure is what a copy that failed ended with.
type Failure struct {
	Status byte
	Sense  []byte
}

// Details is the parameter data of FAILED SEGMENT DETAILS.
func (f Failure) Details() []byte {
	b := make([]byte, 60, 60+len(f.Sense))
	b[56] = f.Status
	binary.BigEndian.PutUint16(b[58:], uint16(len(f.Sense)))
	b = append(b, f.Sense...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// Parameters is the parameter data of OPERATING PARAMETERS.
func Parameters() []byte {
	const withoutID, granularity = 0x01, 9
	b := make([]byte, 44, 46)
	b[4] = withoutID
	binary.BigEndian.PutUint16(b[8:], MaxTargets)
	binary.BigEndian.PutUint16(b[10:], MaxSegments)
	binary.BigEndian.PutUint32(b[12:], MaxDescriptors)
	binary.BigEndian.PutUint32(b[16:], MaxSegmentLength)
	binary.BigEndian.PutUint16(b[34:], MaxCopies)
	b[36] = MaxCopies
	b[37] = granularity
	b = append(b, blockToBlock, identification)
	b[43] = byte(len(b) - 44)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// Page is the body of VPD page 8Fh, Third-party Copy (SPC-4 §7.8.17).
func Page() []byte {
	const extendedCopy, receiveResults = 0x83, 0x84
	commands := []byte{0, extendedCopy, 1, 0x00, receiveResults, 3, 0x00, 0x03, 0x04}
	commands[0] = byte(len(commands) - 1)
	parameters := make([]byte, 28)
	binary.BigEndian.PutUint16(parameters[4:], MaxTargets)
	binary.BigEndian.PutUint16(parameters[6:], MaxSegments)
	binary.BigEndian.PutUint32(parameters[8:], MaxDescriptors)
	general := make([]byte, 32)
	binary.BigEndian.PutUint32(general, MaxCopies)
	binary.BigEndian.PutUint32(general[4:], MaxCopies)
	binary.BigEndian.PutUint32(general[8:], MaxSegmentLength)
	general[12] = 9
	b := descriptor(nil, 0x0001, commands)
	b = descriptor(b, 0x0004, parameters)
	b = descriptor(b, 0x0008, []byte{2, blockToBlock, identification})
	return descriptor(b, 0x8001, general)
}

// descriptor appends a third-party copy descriptor, filled up to four bytes.
func descriptor(b []byte, kind uint16, body []byte) []byte {
	n := (len(body) + 3) / 4 * 4
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	return append(append(b, body...), make([]byte, n-len(body))...)
}
