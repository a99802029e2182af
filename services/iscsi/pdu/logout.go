package pdu

// LogoutReason says what a Logout Request asks for (RFC 7143 §11.14.1).
type LogoutReason uint8

// The reasons.
const (
	LogoutCloseSession    LogoutReason = 0
	LogoutCloseConnection LogoutReason = 1
	LogoutForRecovery     LogoutReason = 2
)

// LogoutResult is the answer (RFC 7143 §11.15.1).
type LogoutResult uint8

// The results.
const (
	LogoutSuccess              LogoutResult = 0
	LogoutCIDNotFound          LogoutResult = 1
	LogoutRecoveryNotSupported LogoutResult = 2
	LogoutCleanupFailed        LogoutResult = 3
)

// LogoutRequest is a Logout Request PDU (RFC 7143 §11.14):
//
//	byte 1: 1, ReasonCode (bits 6..0) · 16 InitiatorTaskTag · 20 CID
//	24 CmdSN · 28 ExpStatSN
type LogoutRequest struct {
	Immediate        bool
	Reason           LogoutReason
	InitiatorTaskTag TaskTag
	CID              uint16
	CmdSN            Serial
	ExpStatSN        Serial
}

const (
	offTime2Wait   = 40
	offTime2Retain = 42
)

// Opcode returns OpLogoutRequest.
func (*LogoutRequest) Opcode() Opcode { return OpLogoutRequest }

// Decode reads the header.
func (p *LogoutRequest) Decode(h *Header) error {
	if err := h.expect(OpLogoutRequest); err != nil {
		return err
	}
	*p = LogoutRequest{
		Immediate:        h.Immediate(),
		Reason:           LogoutReason(h[offFlags] & lowSevenBits),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		CID:              h.u16(offCID),
		CmdSN:            Serial(h.u32(offCmdSN)),
		ExpStatSN:        Serial(h.u32(offExpStatSN)),
	}
	return nil
}

// Encode fills the header.
func (p *LogoutRequest) Encode(h *Header) {
	h.begin(OpLogoutRequest, p.Immediate, true)
	h[offFlags] |= byte(p.Reason) & lowSevenBits
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put16(offCID, p.CID)
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
}

// LogoutResponse is a Logout Response PDU (RFC 7143 §11.15):
//
//	2 Response · 16 InitiatorTaskTag · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN
//	40 Time2Wait · 42 Time2Retain
type LogoutResponse struct {
	Response         LogoutResult
	InitiatorTaskTag TaskTag
	SN               SN
	Time2Wait        uint16
	Time2Retain      uint16
}

// Opcode returns OpLogoutResponse.
func (*LogoutResponse) Opcode() Opcode { return OpLogoutResponse }

// Decode reads the header.
func (p *LogoutResponse) Decode(h *Header) error {
	if err := h.expect(OpLogoutResponse); err != nil {
		return err
	}
	*p = LogoutResponse{
		Response:         LogoutResult(h[offResponse]),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		SN:               h.sn(),
		Time2Wait:        h.u16(offTime2Wait),
		Time2Retain:      h.u16(offTime2Retain),
	}
	return nil
}

// Encode fills the header.
func (p *LogoutResponse) Encode(h *Header) {
	h.begin(OpLogoutResponse, false, true)
	h[offResponse] = byte(p.Response)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.putSN(p.SN)
	h.put16(offTime2Wait, p.Time2Wait)
	h.put16(offTime2Retain, p.Time2Retain)
}
