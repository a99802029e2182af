package pdu

// SNACK is a SNACK Request PDU (RFC 7143 §11.16). ErrorRecoveryLevel 0 has no
// use for it; it is decoded so that it can be rejected by name.
//
//	byte 1: 1, Type (bits 3..0) · 8 LUN · 16 InitiatorTaskTag
//	20 TargetTransferTag or SNACKTag · 28 ExpStatSN · 40 BegRun · 44 RunLength
type SNACK struct {
	Type              uint8
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	ExpStatSN         Serial
	BegRun            uint32
	RunLength         uint32
}

const (
	snackTypeMask = 0x0f
	offBegRun     = 40
	offRunLength  = 44
)

// Opcode returns OpSNACK.
func (*SNACK) Opcode() Opcode { return OpSNACK }

// Decode reads the header.
func (p *SNACK) Decode(h *Header) error {
	if err := h.expect(OpSNACK); err != nil {
		return err
	}
	*p = SNACK{
		Type:              h[offFlags] & snackTypeMask,
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: TaskTag(h.u32(offTTT)),
		ExpStatSN:         Serial(h.u32(offExpStatSN)),
		BegRun:            h.u32(offBegRun),
		RunLength:         h.u32(offRunLength),
	}
	return nil
}

// Encode fills the header.
func (p *SNACK) Encode(h *Header) {
	h.begin(OpSNACK, false, true)
	h[offFlags] |= p.Type & snackTypeMask
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
	h.put32(offBegRun, p.BegRun)
	h.put32(offRunLength, p.RunLength)
}
