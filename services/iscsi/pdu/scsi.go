package pdu

import (
	"encoding/binary"
	"fmt"
)

// Attribute is a SCSI task attribute (RFC 7143 §11.3.1).
type Attribute uint8

// The attributes.
const (
	AttrUntagged    Attribute = 0
	AttrSimple      Attribute = 1
	AttrOrdered     Attribute = 2
	AttrHeadOfQueue Attribute = 3
	AttrACA         Attribute = 4
)

// SCSICommand is a SCSI Command PDU (RFC 7143 §11.3):
//
//	byte 1: F, R (bit 6), W (bit 5), ATTR (bits 2..0)
//	8 LUN · 16 InitiatorTaskTag · 20 ExpectedDataTransferLength
//	24 CmdSN · 28 ExpStatSN · 32..47 CDB
type SCSICommand struct {
	Immediate                  bool
	Final                      bool
	Read                       bool
	Write                      bool
	Attr                       Attribute
	LUN                        LUN
	InitiatorTaskTag           TaskTag
	ExpectedDataTransferLength uint32
	CmdSN                      Serial
	ExpStatSN                  Serial
	CDB                        [16]byte
}

const (
	flagRead  = 0x40
	flagWrite = 0x20
	attrMask  = 0x07
	offEDTL   = 20
	offCDB    = 32
)

// Opcode returns OpSCSICommand.
func (*SCSICommand) Opcode() Opcode { return OpSCSICommand }

// Decode reads the header.
func (p *SCSICommand) Decode(h *Header) error {
	if err := h.expect(OpSCSICommand); err != nil {
		return err
	}
	p.Immediate = h.Immediate()
	p.Final = h.Final()
	p.Read = h.flag(flagRead)
	p.Write = h.flag(flagWrite)
	p.Attr = Attribute(h[offFlags] & attrMask)
	p.LUN = h.lun()
	p.InitiatorTaskTag = h.InitiatorTaskTag()
	p.ExpectedDataTransferLength = h.u32(offEDTL)
	p.CmdSN = Serial(h.u32(offCmdSN))
	p.ExpStatSN = Serial(h.u32(offExpStatSN))
	copy(p.CDB[:], h[offCDB:])
	if p.InitiatorTaskTag == ReservedTag {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a SCSI Command with the reserved task tag"}
	}
	// §11.3.1: without unsolicited data to come, F is set; a command that does
	// not write has none to send.
	if !p.Final && !p.Write {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a SCSI Command with neither F nor W"}
	}
	// §11.3.1: data that is expected has a direction.
	if !p.Read && !p.Write && p.ExpectedDataTransferLength > 0 {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a SCSI Command that expects data, with neither R nor W"}
	}
	return nil
}

// Encode fills the header.
func (p *SCSICommand) Encode(h *Header) {
	h.begin(OpSCSICommand, p.Immediate, p.Final)
	h.setFlag(flagRead, p.Read)
	h.setFlag(flagWrite, p.Write)
	h[offFlags] |= byte(p.Attr) & attrMask
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offEDTL, p.ExpectedDataTransferLength)
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
	copy(h[offCDB:], p.CDB[:])
}

// Response is the iSCSI service response (RFC 7143 §11.4.3).
type Response uint8

// The service responses.
const (
	ResponseCompleted     Response = 0x00
	ResponseTargetFailure Response = 0x01
)

// SCSIResponse is a SCSI Response PDU (RFC 7143 §11.4). Its data segment, when
// there is one, is a two-byte length and the sense data (§11.4.7).
//
//	byte 1: F, o (bit 4), u (3), O (2), U (1) · 2 Response · 3 Status
//	16 InitiatorTaskTag · 20 SNACKTag · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN
//	36 ExpDataSN · 40 BidirectionalReadResidualCount · 44 ResidualCount
type SCSIResponse struct {
	BidiOverflow                   bool
	BidiUnderflow                  bool
	Overflow                       bool
	Underflow                      bool
	Response                       Response
	Status                         uint8
	InitiatorTaskTag               TaskTag
	SNACKTag                       TaskTag
	SN                             SN
	ExpDataSN                      Serial
	BidirectionalReadResidualCount uint32
	ResidualCount                  uint32
}

const (
	flagBidiOverflow  = 0x10
	flagBidiUnderflow = 0x08
	flagOverflow      = 0x04
	flagUnderflow     = 0x02
	offResponse       = 2
	offStatus         = 3
	offSNACKTag       = 20
	offExpDataSN      = 36
	offBidiResidual   = 40
	offResidual       = 44
)

// Opcode returns OpSCSIResponse.
func (*SCSIResponse) Opcode() Opcode { return OpSCSIResponse }

// Decode reads the header.
func (p *SCSIResponse) Decode(h *Header) error {
	if err := h.expect(OpSCSIResponse); err != nil {
		return err
	}
	*p = SCSIResponse{
		BidiOverflow:                   h.flag(flagBidiOverflow),
		BidiUnderflow:                  h.flag(flagBidiUnderflow),
		Overflow:                       h.flag(flagOverflow),
		Underflow:                      h.flag(flagUnderflow),
		Response:                       Response(h[offResponse]),
		Status:                         h[offStatus],
		InitiatorTaskTag:               h.InitiatorTaskTag(),
		SNACKTag:                       TaskTag(h.u32(offSNACKTag)),
		SN:                             h.sn(),
		ExpDataSN:                      Serial(h.u32(offExpDataSN)),
		BidirectionalReadResidualCount: h.u32(offBidiResidual),
		ResidualCount:                  h.u32(offResidual),
	}
	if p.Overflow && p.Underflow {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a SCSI Response with both O and U"}
	}
	return nil
}

// Encode fills the header.
func (p *SCSIResponse) Encode(h *Header) {
	h.begin(OpSCSIResponse, false, true)
	h.setFlag(flagBidiOverflow, p.BidiOverflow)
	h.setFlag(flagBidiUnderflow, p.BidiUnderflow)
	h.setFlag(flagOverflow, p.Overflow)
	h.setFlag(flagUnderflow, p.Underflow)
	h[offResponse] = byte(p.Response)
	h[offStatus] = p.Status
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offSNACKTag, uint32(p.SNACKTag))
	h.putSN(p.SN)
	h.put32(offExpDataSN, uint32(p.ExpDataSN))
	h.put32(offBidiResidual, p.BidirectionalReadResidualCount)
	h.put32(offResidual, p.ResidualCount)
}

// ParseSense returns the sense data inside a SCSI Response's data segment.
func ParseSense(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) < 2 {
		return nil, fmt.Errorf("SCSI Response: a data segment of %d byte cannot hold a SenseLength", len(data))
	}
	n := int(binary.BigEndian.Uint16(data))
	if n > len(data)-2 {
		return nil, fmt.Errorf("SCSI Response: SenseLength is %d, %d bytes follow", n, len(data)-2)
	}
	return data[2 : 2+n], nil
}

// AHSType is the type of an additional header segment (RFC 7143 §11.2.2.1).
type AHSType uint8

// The types.
const (
	AHSExtendedCDB    AHSType = 1
	AHSBidiReadLength AHSType = 2
)

// AHS is what the additional header segments of a SCSI Command say.
type AHS struct {
	ExtendedCDB             []byte // the CDB's bytes from the 17th on; aliases the input
	Bidirectional           bool
	BidirectionalReadLength uint32
}

// ParseAHS reads the additional header segments of a SCSI Command (§11.2.2).
// Types that it does not know are an error: the command cannot mean what its
// sender thinks.
func ParseAHS(b []byte) (AHS, error) {
	var a AHS
	for len(b) > 0 {
		if len(b) < 4 {
			return AHS{}, &ProtocolError{Reason: ReasonInvalidPDUField, Text: "an additional header segment is cut short"}
		}
		n := int(binary.BigEndian.Uint16(b)) // AHSLength: without the length and type fields
		end := 3 + n
		if n < 1 || end > len(b) {
			return AHS{}, &ProtocolError{Reason: ReasonInvalidPDUField, Text: "an additional header segment has an impossible length"}
		}
		switch AHSType(b[2]) {
		case AHSExtendedCDB:
			if a.ExtendedCDB != nil {
				return AHS{}, &ProtocolError{Reason: ReasonInvalidPDUField, Text: "two extended CDBs"}
			}
			a.ExtendedCDB = b[4:end]
		case AHSBidiReadLength:
			if n != 5 || a.Bidirectional {
				return AHS{}, &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a bidirectional read length that makes no sense"}
			}
			a.Bidirectional = true
			a.BidirectionalReadLength = binary.BigEndian.Uint32(b[4:])
		default:
			return AHS{}, &ProtocolError{Reason: ReasonInvalidPDUField, Text: fmt.Sprintf("an additional header segment of type %d", b[2])}
		}
		b = b[min(end+Pad(end), len(b)):]
	}
	return a, nil
}
