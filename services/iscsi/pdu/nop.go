package pdu

// NOPOut is a NOP-Out PDU (RFC 7143 §11.18): a ping when InitiatorTaskTag is
// set, else the answer to the NOP-In whose TargetTransferTag it carries.
//
//	8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag · 24 CmdSN · 28 ExpStatSN
type NOPOut struct {
	Immediate         bool
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	CmdSN             Serial
	ExpStatSN         Serial
}

// Opcode returns OpNOPOut.
func (*NOPOut) Opcode() Opcode { return OpNOPOut }

// Decode reads the header.
func (p *NOPOut) Decode(h *Header) error {
	if err := h.expect(OpNOPOut); err != nil {
		return err
	}
	*p = NOPOut{
		Immediate:         h.Immediate(),
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: TaskTag(h.u32(offTTT)),
		CmdSN:             Serial(h.u32(offCmdSN)),
		ExpStatSN:         Serial(h.u32(offExpStatSN)),
	}
	if p.InitiatorTaskTag == ReservedTag && !p.Immediate {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a NOP-Out that asks for no answer must be immediate"}
	}
	return nil
}

// Encode fills the header.
func (p *NOPOut) Encode(h *Header) {
	h.begin(OpNOPOut, p.Immediate, true)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.put32(offCmdSN, uint32(p.CmdSN))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
}

// NOPIn is a NOP-In PDU (RFC 7143 §11.19): the answer to a NOP-Out, or, with
// the reserved InitiatorTaskTag, a ping of the target's own.
//
//	8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag · 24 StatSN
//	28 ExpCmdSN · 32 MaxCmdSN
type NOPIn struct {
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	SN                SN
}

// Opcode returns OpNOPIn.
func (*NOPIn) Opcode() Opcode { return OpNOPIn }

// Decode reads the header.
func (p *NOPIn) Decode(h *Header) error {
	if err := h.expect(OpNOPIn); err != nil {
		return err
	}
	*p = NOPIn{LUN: h.lun(), InitiatorTaskTag: h.InitiatorTaskTag(), TargetTransferTag: TaskTag(h.u32(offTTT)), SN: h.sn()}
	return nil
}

// Encode fills the header.
func (p *NOPIn) Encode(h *Header) {
	h.begin(OpNOPIn, false, true)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.putSN(p.SN)
}
