package pdu

import (
	"encoding/hex"
	"fmt"
)

// Stage is a stage of the login phase (RFC 7143 §11.12.3).
type Stage uint8

// The stages.
const (
	SecurityNegotiation    Stage = 0
	OperationalNegotiation Stage = 1
	FullFeaturePhase       Stage = 3
)

func (s Stage) String() string {
	switch s {
	case SecurityNegotiation:
		return "security negotiation"
	case OperationalNegotiation:
		return "operational negotiation"
	case FullFeaturePhase:
		return "full feature phase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// ISID is the initiator's part of a session identifier (RFC 7143 §11.12.5).
type ISID [6]byte

func (i ISID) String() string { return hex.EncodeToString(i[:]) }

// LoginStatus is the class (high byte) and detail of a Login Response
// (RFC 7143 §11.13.5).
type LoginStatus uint16

// The statuses.
const (
	LoginSuccess             LoginStatus = 0x0000
	LoginMovedTemporarily    LoginStatus = 0x0101
	LoginMovedPermanently    LoginStatus = 0x0102
	LoginInitiatorError      LoginStatus = 0x0200
	LoginAuthFailure         LoginStatus = 0x0201
	LoginAuthorizationFail   LoginStatus = 0x0202
	LoginNotFound            LoginStatus = 0x0203
	LoginTargetRemoved       LoginStatus = 0x0204
	LoginUnsupportedVersion  LoginStatus = 0x0205
	LoginTooManyConnections  LoginStatus = 0x0206
	LoginMissingParameter    LoginStatus = 0x0207
	LoginCannotInclude       LoginStatus = 0x0208
	LoginSessionType         LoginStatus = 0x0209
	LoginSessionDoesNotExist LoginStatus = 0x020a
	LoginInvalidDuringLogin  LoginStatus = 0x020b
	LoginTargetError         LoginStatus = 0x0300
	LoginServiceUnavailable  LoginStatus = 0x0301
	LoginOutOfResources      LoginStatus = 0x0302
)

func (s LoginStatus) String() string { return fmt.Sprintf("%04x", uint16(s)) }

// LoginRequest is a Login Request PDU (RFC 7143 §11.12):
//
//	byte 1: T, C (bit 6), CSG (3..2), NSG (1..0) · 2 VersionMax · 3 VersionMin
//	8 ISID (6 bytes) · 14 TSIH · 16 InitiatorTaskTag · 20 CID
//	24 CmdSN · 28 ExpStatSN
type LoginRequest struct {
	Transit          bool
	Continue         bool
	CSG              Stage
	NSG              Stage
	VersionMax       uint8
	VersionMin       uint8
	ISID             ISID
	TSIH             uint16
	InitiatorTaskTag TaskTag
	CID              uint16
	CmdSN            Serial
	ExpStatSN        Serial
}

const (
	flagTransit     = 0x80
	flagContinue    = 0x40
	offVersionMax   = 2
	offVersionMin   = 3 // VersionActive in the response
	offISID         = 8
	offTSIH         = 14
	offCID          = 20
	offLoginStatus  = 36
	stageMask       = 3
	currentStageBit = 2
)

// Opcode returns OpLoginRequest.
func (*LoginRequest) Opcode() Opcode { return OpLoginRequest }

// Decode reads the header. Which stages and versions are good is for the login
// phase to judge.
func (p *LoginRequest) Decode(h *Header) error {
	if err := h.expect(OpLoginRequest); err != nil {
		return err
	}
	*p = LoginRequest{
		Transit:          h.flag(flagTransit),
		Continue:         h.flag(flagContinue),
		CSG:              Stage(h[offFlags] >> currentStageBit & stageMask),
		NSG:              Stage(h[offFlags] & stageMask),
		VersionMax:       h[offVersionMax],
		VersionMin:       h[offVersionMin],
		ISID:             ISID(h[offISID : offISID+6]),
		TSIH:             h.u16(offTSIH),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		CID:              h.u16(offCID),
		CmdSN:            Serial(h.u32(offCmdSN)),
		ExpStatSN:        Serial(h.u32(offExpStatSN)),
	}
	return nil
}

// Encode fills the header. A Login Request always carries the I bit.
func (p *LoginRequest) Encode(h *Header) {
	h.begin(OpLoginRequest, true, p.Transit)
	h.setFlag(flagContinue, p.Continue)
	h[offFlags] |= byte(p.CSG&stageMask)<<currentStageBit | byte(p.NSG&stageMask)
	h[offVersionMax], h[offVersionMin] = p.VersionMax, p.VersionMin
	copy(h[offISID:], p.ISID[:])
	h.put16(offTSIH, p.TSIH)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put16(offCID, p.CID)
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
}

// LoginResponse is a Login Response PDU (RFC 7143 §11.13):
//
//	byte 1: T, C (bit 6), CSG (3..2), NSG (1..0) · 2 VersionMax · 3 VersionActive
//	8 ISID · 14 TSIH · 16 InitiatorTaskTag · 24 StatSN · 28 ExpCmdSN
//	32 MaxCmdSN · 36 Status-Class, Status-Detail
type LoginResponse struct {
	Transit          bool
	Continue         bool
	CSG              Stage
	NSG              Stage
	VersionMax       uint8
	VersionActive    uint8
	ISID             ISID
	TSIH             uint16
	InitiatorTaskTag TaskTag
	SN               SN
	Status           LoginStatus
}

// Opcode returns OpLoginResponse.
func (*LoginResponse) Opcode() Opcode { return OpLoginResponse }

// Decode reads the header.
func (p *LoginResponse) Decode(h *Header) error {
	if err := h.expect(OpLoginResponse); err != nil {
		return err
	}
	*p = LoginResponse{
		Transit:          h.flag(flagTransit),
		Continue:         h.flag(flagContinue),
		CSG:              Stage(h[offFlags] >> currentStageBit & stageMask),
		NSG:              Stage(h[offFlags] & stageMask),
		VersionMax:       h[offVersionMax],
		VersionActive:    h[offVersionMin],
		ISID:             ISID(h[offISID : offISID+6]),
		TSIH:             h.u16(offTSIH),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		SN:               h.sn(),
		Status:           LoginStatus(h.u16(offLoginStatus)),
	}
	return nil
}

// Encode fills the header.
func (p *LoginResponse) Encode(h *Header) {
	h.begin(OpLoginResponse, false, p.Transit)
	h.setFlag(flagContinue, p.Continue)
	h[offFlags] |= byte(p.CSG&stageMask)<<currentStageBit | byte(p.NSG&stageMask)
	h[offVersionMax], h[offVersionMin] = p.VersionMax, p.VersionActive
	copy(h[offISID:], p.ISID[:])
	h.put16(offTSIH, p.TSIH)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.putSN(p.SN)
	h.put16(offLoginStatus, uint16(p.Status))
}
