package pdu

// AsyncEvent says what an Asynchronous Message tells (RFC 7143 §11.9.1).
type AsyncEvent uint8

// The events.
const (
	AsyncSCSI           AsyncEvent = 0
	AsyncRequestLogout  AsyncEvent = 1
	AsyncDropConnection AsyncEvent = 2
	AsyncDropSession    AsyncEvent = 3
	AsyncNegotiate      AsyncEvent = 4
)

// Async is an Asynchronous Message PDU (RFC 7143 §11.9):
//
//	8 LUN · 16 reserved, all ones · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN
//	36 AsyncEvent · 37 AsyncVCode · 38 Parameter1 · 40 Parameter2 · 42 Parameter3
type Async struct {
	LUN        LUN
	SN         SN
	Event      AsyncEvent
	VCode      uint8
	Parameter1 uint16
	Parameter2 uint16
	Parameter3 uint16
}

const (
	offAsyncEvent = 36
	offAsyncVCode = 37
	offParameter1 = 38
	offParameter2 = 40
	offParameter3 = 42
	offReason     = 2
)

// Opcode returns OpAsync.
func (*Async) Opcode() Opcode { return OpAsync }

// Decode reads the header.
func (p *Async) Decode(h *Header) error {
	if err := h.expect(OpAsync); err != nil {
		return err
	}
	*p = Async{
		LUN:        h.lun(),
		SN:         h.sn(),
		Event:      AsyncEvent(h[offAsyncEvent]),
		VCode:      h[offAsyncVCode],
		Parameter1: h.u16(offParameter1),
		Parameter2: h.u16(offParameter2),
		Parameter3: h.u16(offParameter3),
	}
	return nil
}

// Encode fills the header.
func (p *Async) Encode(h *Header) {
	h.begin(OpAsync, false, true)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(ReservedTag))
	h.putSN(p.SN)
	h[offAsyncEvent], h[offAsyncVCode] = byte(p.Event), p.VCode
	h.put16(offParameter1, p.Parameter1)
	h.put16(offParameter2, p.Parameter2)
	h.put16(offParameter3, p.Parameter3)
}

// Reject is a Reject PDU (RFC 7143 §11.17). Its data segment is the header of
// the PDU that was refused.
//
//	2 Reason · 16 all ones · 24 StatSN · 28 ExpCmdSN · 32 MaxCmdSN · 36 DataSN
type Reject struct {
	Reason RejectReason
	SN     SN
	DataSN Serial
}

// Opcode returns OpReject.
func (*Reject) Opcode() Opcode { return OpReject }

// Decode reads the header.
func (p *Reject) Decode(h *Header) error {
	if err := h.expect(OpReject); err != nil {
		return err
	}
	*p = Reject{Reason: RejectReason(h[offReason]), SN: h.sn(), DataSN: Serial(h.u32(offDataSN))}
	return nil
}

// Encode fills the header.
func (p *Reject) Encode(h *Header) {
	h.begin(OpReject, false, true)
	h[offReason] = byte(p.Reason)
	h.put32(offITT, uint32(ReservedTag))
	h.putSN(p.SN)
	h.put32(offDataSN, uint32(p.DataSN))
}
