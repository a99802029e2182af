package pdu

import "fmt"

// Opcode says which PDU a header begins (RFC 7143 §11.2.1.2).
type Opcode uint8

// Initiator opcodes.
const (
	OpNOPOut        Opcode = 0x00
	OpSCSICommand   Opcode = 0x01
	OpTaskRequest   Opcode = 0x02
	OpLoginRequest  Opcode = 0x03
	OpTextRequest   Opcode = 0x04
	OpDataOut       Opcode = 0x05
	OpLogoutRequest Opcode = 0x06
	OpSNACK         Opcode = 0x10
)

// Target opcodes.
const (
	OpNOPIn          Opcode = 0x20
	OpSCSIResponse   Opcode = 0x21
	OpTaskResponse   Opcode = 0x22
	OpLoginResponse  Opcode = 0x23
	OpTextResponse   Opcode = 0x24
	OpDataIn         Opcode = 0x25
	OpLogoutResponse Opcode = 0x26
	OpR2T            Opcode = 0x31
	OpAsync          Opcode = 0x32
	OpReject         Opcode = 0x3f
)

var opcodeNames = map[Opcode]string{
	OpNOPOut: "NOP-Out", OpSCSICommand: "SCSI Command", OpTaskRequest: "Task Management Function Request",
	OpLoginRequest: "Login Request", OpTextRequest: "Text Request", OpDataOut: "SCSI Data-Out",
	OpLogoutRequest: "Logout Request", OpSNACK: "SNACK Request",
	OpNOPIn: "NOP-In", OpSCSIResponse: "SCSI Response", OpTaskResponse: "Task Management Function Response",
	OpLoginResponse: "Login Response", OpTextResponse: "Text Response", OpDataIn: "SCSI Data-In",
	OpLogoutResponse: "Logout Response", OpR2T: "Ready To Transfer", OpAsync: "Asynchronous Message", OpReject: "Reject",
}

func (o Opcode) String() string {
	if s, ok := opcodeNames[o]; ok {
		return s
	}
	return fmt.Sprintf("opcode %#02x", uint8(o))
}

// TaskTag is an InitiatorTaskTag or TargetTransferTag.
type TaskTag uint32

// ReservedTag is the value that means "none" in both tag fields.
const ReservedTag TaskTag = 0xffffffff

// LUN is the eight-byte logical unit number field. Its meaning is SCSI's.
type LUN [8]byte

// Serial is a 32-bit serial number (RFC 7143 §4.2.2.1: compared as in RFC 1982).
type Serial uint32

// Less reports whether s comes before t. Numbers 2^31 apart have no order, and
// none is less than the other.
func (s Serial) Less(t Serial) bool { return int32(s-t) < 0 && s-t != 1<<31 }

// Add returns the number n steps on.
func (s Serial) Add(n int) Serial { return s + Serial(uint32(int64(n))) }

// Distance returns how many steps lead from s to t; it is negative when t comes
// before s.
func (s Serial) Distance(t Serial) int { return int(int32(t - s)) }

// RejectReason says why a PDU was refused (RFC 7143 §11.17.1).
type RejectReason uint8

// The reasons.
const (
	ReasonDataDigestError   RejectReason = 0x02
	ReasonSNACKReject       RejectReason = 0x03
	ReasonProtocolError     RejectReason = 0x04
	ReasonNotSupported      RejectReason = 0x05
	ReasonImmediateReject   RejectReason = 0x06 // too many immediate commands
	ReasonTaskInProgress    RejectReason = 0x07
	ReasonInvalidDataACK    RejectReason = 0x08
	ReasonInvalidPDUField   RejectReason = 0x09
	ReasonLongOperation     RejectReason = 0x0a // cannot make a target transfer tag
	ReasonWaitingForLogout  RejectReason = 0x0c
	reasonDeprecatedNegoRst RejectReason = 0x0b
)

func (r RejectReason) String() string {
	switch r {
	case ReasonDataDigestError:
		return "data digest error"
	case ReasonSNACKReject:
		return "SNACK reject"
	case ReasonProtocolError:
		return "protocol error"
	case ReasonNotSupported:
		return "command not supported"
	case ReasonImmediateReject:
		return "too many immediate commands"
	case ReasonTaskInProgress:
		return "task in progress"
	case ReasonInvalidDataACK:
		return "invalid data ACK"
	case ReasonInvalidPDUField:
		return "invalid PDU field"
	case ReasonLongOperation:
		return "long operation"
	case reasonDeprecatedNegoRst:
		return "negotiation reset"
	case ReasonWaitingForLogout:
		return "waiting for logout"
	}
	return fmt.Sprintf("reason %#02x", uint8(r))
}

// ProtocolError is a PDU that breaks a rule of the standard in a way that a
// Reject PDU can answer.
type ProtocolError struct {
	Reason RejectReason
	Text   string
}

func (e *ProtocolError) Error() string { return e.Reason.String() + ": " + e.Text }

// PDU is implemented by every type of this package that stands for a PDU.
type PDU interface {
	// Opcode returns the PDU's opcode.
	Opcode() Opcode
	// Decode reads the header; it fails on another opcode and on values that
	// the standard rules out.
	Decode(*Header) error
	// Encode fills the header, with both lengths zero.
	Encode(*Header)
}

// New returns an empty PDU for the opcode, nil when there is none such.
func New(op Opcode) PDU {
	switch op {
	case OpNOPOut:
		return new(NOPOut)
	case OpSCSICommand:
		return new(SCSICommand)
	case OpTaskRequest:
		return new(TaskRequest)
	case OpLoginRequest:
		return new(LoginRequest)
	case OpTextRequest:
		return new(TextRequest)
	case OpDataOut:
		return new(DataOut)
	case OpLogoutRequest:
		return new(LogoutRequest)
	case OpSNACK:
		return new(SNACK)
	case OpNOPIn:
		return new(NOPIn)
	case OpSCSIResponse:
		return new(SCSIResponse)
	case OpTaskResponse:
		return new(TaskResponse)
	case OpLoginResponse:
		return new(LoginResponse)
	case OpTextResponse:
		return new(TextResponse)
	case OpDataIn:
		return new(DataIn)
	case OpLogoutResponse:
		return new(LogoutResponse)
	case OpR2T:
		return new(R2T)
	case OpAsync:
		return new(Async)
	case OpReject:
		return new(Reject)
	}
	return nil
}

// Decode reads any header. It allocates; a hot path calls the Decode method of
// the type that it expects.
func Decode(h *Header) (PDU, error) {
	p := New(h.Opcode())
	if p == nil {
		return nil, &ProtocolError{Reason: ReasonNotSupported, Text: h.Opcode().String() + " is not defined"}
	}
	if err := p.Decode(h); err != nil {
		return nil, err
	}
	return p, nil
}
