package pdu

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// TextRequest is a Text Request PDU (RFC 7143 §11.10):
//
//	byte 1: F, C (bit 6) · 8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag
//	24 CmdSN · 28 ExpStatSN
type TextRequest struct {
	Immediate         bool
	Final             bool
	Continue          bool
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	CmdSN             Serial
	ExpStatSN         Serial
}

// Opcode returns OpTextRequest.
func (*TextRequest) Opcode() Opcode { return OpTextRequest }

// Decode reads the header.
func (p *TextRequest) Decode(h *Header) error {
	if err := h.expect(OpTextRequest); err != nil {
		return err
	}
	*p = TextRequest{
		Immediate:         h.Immediate(),
		Final:             h.Final(),
		Continue:          h.flag(flagContinue),
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: TaskTag(h.u32(offTTT)),
		CmdSN:             Serial(h.u32(offCmdSN)),
		ExpStatSN:         Serial(h.u32(offExpStatSN)),
	}
	if p.Final && p.Continue {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a Text Request with both F and C"}
	}
	return nil
}

// Encode fills the header.
func (p *TextRequest) Encode(h *Header) {
	h.begin(OpTextRequest, p.Immediate, p.Final)
	h.setFlag(flagContinue, p.Continue)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
}

// TextResponse is a Text Response PDU (RFC 7143 §11.11):
//
//	byte 1: F, C (bit 6) · 8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag
//	24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN
type TextResponse struct {
	Final             bool
	Continue          bool
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	SN                SN
}

// Opcode returns OpTextResponse.
func (*TextResponse) Opcode() Opcode { return OpTextResponse }

// Decode reads the header.
func (p *TextResponse) Decode(h *Header) error {
	if err := h.expect(OpTextResponse); err != nil {
		return err
	}
	*p = TextResponse{
		Final:             h.Final(),
		Continue:          h.flag(flagContinue),
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: TaskTag(h.u32(offTTT)),
		SN:                h.sn(),
	}
	return nil
}

// Encode fills the header.
func (p *TextResponse) Encode(h *Header) {
	h.begin(OpTextResponse, false, p.Final)
	h.setFlag(flagContinue, p.Continue)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.putSN(p.SN)
}

// Bounds of text (RFC 7143 §6.1: a key has up to 63 bytes).
const (
	MaxKeyLength = 63
	MaxTextKeys  = 128
)

// Pair is one key and its value.
type Pair struct {
	Key   string
	Value string
}

// ParseText reads key=value pairs, each ended by a zero byte (RFC 7143 §6.1).
// More than one zero byte between pairs is taken, since initiators pad so. The
// pairs share one copy of the text: who keeps a value for long clones it.
func ParseText(b []byte) ([]Pair, error) {
	var pairs []Pair
	s := string(b)
	for len(s) > 0 {
		end := strings.IndexByte(s, 0)
		if end < 0 {
			return nil, fmt.Errorf("text: the last key is not ended by a zero byte")
		}
		item := s[:end]
		s = s[end+1:]
		if len(item) == 0 {
			continue
		}
		eq := strings.IndexByte(item, '=')
		if eq < 0 {
			return nil, fmt.Errorf("text: %.40q has no \"=\"", item)
		}
		if eq == 0 || eq > MaxKeyLength {
			return nil, fmt.Errorf("text: a key has 1 to %d bytes, this one has %d", MaxKeyLength, eq)
		}
		for k := range eq {
			if !keyByte(item[k]) {
				return nil, fmt.Errorf("text: the key %.63q has a byte that no key may have", item[:eq])
			}
		}
		if !utf8.ValidString(item[eq+1:]) {
			return nil, fmt.Errorf("text: the value of %s is not UTF-8", item[:eq])
		}
		if len(pairs) == MaxTextKeys {
			return nil, fmt.Errorf("text: more than %d keys", MaxTextKeys)
		}
		if pairs == nil {
			pairs = make([]Pair, 0, min(1+strings.Count(s, "\x00"), MaxTextKeys))
		}
		pairs = append(pairs, Pair{Key: item[:eq], Value: item[eq+1:]})
	}
	return pairs, nil
}

// keyByte reports whether c may stand in a key-name or standard-label: letters,
// digits, ".", "-", "+", "@", "_" and, in public extension keys, "#" and "/".
func keyByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte(".-+@_#/", c) >= 0
}

// AppendText appends one pair and its zero byte.
func AppendText(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}
