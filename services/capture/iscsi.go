package capture

import "bytes"

// Offsets and numbers of an iSCSI PDU (RFC 7143 §11.2) that framing needs. The
// session's own decoder judges a PDU; this one only finds where it ends.
const (
	bhsLen       = 48
	opcodeBits   = 0x3f
	immediateBit = 0x40
	continueBit  = 0x40 // in byte 1 of login and text PDUs
	atAHSLength  = 4
	atDataLength = 5
	digestLen    = 4

	opLoginRequest  = 0x03
	opTextRequest   = 0x04
	opSCSIResponse  = 0x21
	opLoginResponse = 0x23
	opTextResponse  = 0x24
	opReject        = 0x3f

	// maxSense is how much of a SCSI response's data is kept: the sense data
	// (SPC-4 §4.5), which says why.
	maxSense = 260
)

// textKeys are the keys of login and text PDUs (RFC 7143 §13) whose values are
// kept. CHAP_C and CHAP_R are not among them: together they let a secret be
// guessed at leisure.
var textKeys = allowed{
	"AuthMethod", "CHAP_A", "CHAP_I", "CHAP_N", "DataDigest", "DataPDUInOrder", "DataSequenceInOrder", "DefaultTime2Retain", "DefaultTime2Wait",
	"ErrorRecoveryLevel", "FirstBurstLength", "HeaderDigest", "IFMarker", "ImmediateData", "InitialR2T", "InitiatorAlias", "InitiatorName",
	"MaxBurstLength", "MaxConnections", "MaxOutstandingR2T", "MaxRecvDataSegmentLength", "OFMarker", "SendTargets", "SessionType",
	"TargetAddress", "TargetAlias", "TargetName", "TargetPortalGroupTag", "iSCSIProtocolLevel",
}

// textNames are the keys that are named although their values are cut.
var textNames = append(allowed{"CHAP_C", "CHAP_R"}, textKeys...)

// digests are what both halves of a connection agreed on at login.
type digests struct {
	header, data bool
	unclear      bool // it cannot be told: framing ends with the login
}

type pduPart uint8

const (
	partBHS pduPart = iota
	partAHS
	partHeaderDigest
	partData
	partPadding
	partDataDigest
)

// iscsiHalf keeps the headers of PDUs, and of the data segments the text that
// textKeys allow and sense data.
type iscsiHalf struct {
	target bool // what we send
	agreed *digests
	lost   bool

	part   pduPart
	left   int // bytes of part
	bhs    [bhsLen]byte
	logged bool // the first PDU was a login, as it must be

	key       name
	inValue   bool
	keepValue bool
	digest    *bool // the value says whether this one is on
	value     []byte
	sense     int // bytes of data that may still be kept
}

func newISCSIHalf(target bool, agreed *digests) *iscsiHalf {
	return &iscsiHalf{target: target, agreed: agreed, left: bhsLen}
}

func (s *iscsiHalf) opcode() byte { return s.bhs[0] & opcodeBits }

func (s *iscsiHalf) text() bool {
	switch s.opcode() {
	case opLoginRequest, opLoginResponse, opTextRequest, opTextResponse:
		return true
	}
	return false
}

func (s *iscsiHalf) login() bool {
	return s.opcode() == opLoginRequest || s.opcode() == opLoginResponse
}

// valid refuses what no PDU begins with: the framing was lost, and what is
// taken for a header is somebody's data.
func (s *iscsiHalf) valid() bool {
	op := s.bhs[0]
	if s.target {
		if op < 0x20 || op > 0x26 && op != 0x31 && op != 0x32 && op != opReject {
			return false
		}
	} else if op &^= immediateBit; op > 0x06 && op != 0x10 {
		return false
	}
	if !s.login() && s.agreed.unclear {
		return false
	}
	return s.logged || s.login()
}

func (s *iscsiHalf) scrub(b []byte) (keep int) {
	for i := 0; i < len(b); {
		if s.lost {
			clear(b[i:])
			return keep
		}
		n := min(s.left, len(b)-i)
		piece := b[i : i+n]
		switch s.part {
		case partBHS:
			copy(s.bhs[bhsLen-s.left:], piece)
			if first := s.left == bhsLen; first && !s.valid() {
				s.lost = true
				continue
			}
			keep = i + n
		case partAHS:
			keep = i + n
		case partData:
			switch {
			case s.text():
				s.scrubText(piece)
				keep = i + n
			case s.sense > 0:
				take := min(n, s.sense)
				s.sense -= take
				clear(piece[take:])
				keep = i + take
			default:
				clear(piece)
			}
		case partPadding:
			clear(piece)
			if s.text() { // so that a dissector finds the PDU's end
				keep = i + n
			}
		default: // a digest is over what was cut
			clear(piece)
		}
		i += n
		s.left -= n
		for s.left == 0 && !s.lost {
			s.advance()
		}
	}
	return keep
}

// advance goes to the PDU's next part; left may be zero for one that is not
// there.
func (s *iscsiHalf) advance() {
	data := int(s.bhs[atDataLength])<<16 | int(s.bhs[atDataLength+1])<<8 | int(s.bhs[atDataLength+2])
	digest := func(on bool) int {
		if on && !s.login() { // a login has none (RFC 7143 §13.1)
			return digestLen
		}
		return 0
	}
	switch s.part {
	case partBHS:
		s.logged = true
		s.part, s.left = partAHS, int(s.bhs[atAHSLength])*4
	case partAHS:
		s.part, s.left = partHeaderDigest, digest(s.agreed.header)
	case partHeaderDigest:
		s.part, s.left, s.sense = partData, data, 0
		if s.opcode() == opSCSIResponse {
			s.sense = maxSense
		}
	case partData:
		if s.text() && s.bhs[1]&continueBit == 0 {
			s.endValue()
			s.endPair()
		}
		s.part, s.left = partPadding, -data&3
	case partPadding:
		n := 0
		if data > 0 {
			n = digest(s.agreed.data)
		}
		s.part, s.left = partDataDigest, n
	case partDataDigest:
		s.part, s.left = partBHS, bhsLen
	}
}

// scrubText goes on with key=value pairs that NULs end (RFC 7143 §6.1). A pair
// may begin in one PDU and end in the next.
func (s *iscsiHalf) scrubText(b []byte) {
	for i, c := range b {
		switch {
		case c == 0:
			s.endValue()
			s.endPair()
		case s.inValue:
			if s.digest != nil && len(s.value) < 32 {
				s.value = append(s.value, c)
			}
			if !s.keepValue {
				b[i] = filler
			}
		case c == '=':
			s.inValue, s.keepValue = true, s.key.in(textKeys)
			s.digest = nil
			if s.target && s.login() {
				switch string(s.key.buf) {
				case "HeaderDigest":
					s.digest = &s.agreed.header
				case "DataDigest":
					s.digest = &s.agreed.data
				}
			}
		case !s.key.add(c, textNames):
			b[i] = filler
		}
	}
}

func (s *iscsiHalf) endPair() {
	s.key.reset()
	s.inValue, s.keepValue = false, false
}

// endValue learns which digests the target chose.
func (s *iscsiHalf) endValue() {
	if s.digest == nil {
		return
	}
	switch {
	case bytes.Equal(s.value, []byte("CRC32C")):
		*s.digest = true
	case bytes.Equal(s.value, []byte("None")):
		*s.digest = false
	default: // an offer, whose answer may be anything
		s.agreed.unclear = true
	}
	s.digest, s.value = nil, s.value[:0]
}
