package pdu

// DataOut is a SCSI Data-Out PDU (RFC 7143 §11.7):
//
//	byte 1: F · 8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag
//	28 ExpStatSN · 36 DataSN · 40 BufferOffset
type DataOut struct {
	Final             bool
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag // ReservedTag: unsolicited data
	ExpStatSN         Serial
	DataSN            Serial
	BufferOffset      uint32
}

const (
	offDataSN       = 36
	offBufferOffset = 40
	offDataResidual = 44
	offDesired      = 44
	flagAcknowledge = 0x40
	flagStatus      = 0x01
)

// Opcode returns OpDataOut.
func (*DataOut) Opcode() Opcode { return OpDataOut }

// Decode reads the header.
func (p *DataOut) Decode(h *Header) error {
	if err := h.expect(OpDataOut); err != nil {
		return err
	}
	p.Final = h.Final()
	p.LUN = h.lun()
	p.InitiatorTaskTag = h.InitiatorTaskTag()
	p.TargetTransferTag = TaskTag(h.u32(offTTT))
	p.ExpStatSN = Serial(h.u32(offExpStatSN))
	p.DataSN = Serial(h.u32(offDataSN))
	p.BufferOffset = h.u32(offBufferOffset)
	return nil
}

// Encode fills the header.
func (p *DataOut) Encode(h *Header) {
	h.begin(OpDataOut, false, p.Final)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.put32(offExpStatSN, uint32(p.ExpStatSN))
	h.put32(offDataSN, uint32(p.DataSN))
	h.put32(offBufferOffset, p.BufferOffset)
}

// DataIn is a SCSI Data-In PDU (RFC 7143 §11.7). StatusFlag (S) says that it
// carries the command's status too, which saves the SCSI Response; StatSN,
// Status and the residual are meaningful only then.
//
//	byte 1: F, A (bit 6), O (2), U (1), S (0) · 3 Status
//	8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag · 24 StatSN
//	28 ExpCmdSN · 32 MaxCmdSN · 36 DataSN · 40 BufferOffset · 44 ResidualCount
type DataIn struct {
	Final             bool
	Acknowledge       bool
	Overflow          bool
	Underflow         bool
	StatusFlag        bool
	Status            uint8
	LUN               LUN
	InitiatorTaskTag  TaskTag
	TargetTransferTag TaskTag
	SN                SN
	DataSN            Serial
	BufferOffset      uint32
	ResidualCount     uint32
}

// Opcode returns OpDataIn.
func (*DataIn) Opcode() Opcode { return OpDataIn }

// Decode reads the header.
func (p *DataIn) Decode(h *Header) error {
	if err := h.expect(OpDataIn); err != nil {
		return err
	}
	*p = DataIn{
		Final:             h.Final(),
		Acknowledge:       h.flag(flagAcknowledge),
		Overflow:          h.flag(flagOverflow),
		Underflow:         h.flag(flagUnderflow),
		StatusFlag:        h.flag(flagStatus),
		Status:            h[offStatus],
		LUN:               h.lun(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: TaskTag(h.u32(offTTT)),
		SN:                h.sn(),
		DataSN:            Serial(h.u32(offDataSN)),
		BufferOffset:      h.u32(offBufferOffset),
		ResidualCount:     h.u32(offDataResidual),
	}
	if p.StatusFlag && !p.Final {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "a Data-In with S but without F"}
	}
	return nil
}

// Encode fills the header.
func (p *DataIn) Encode(h *Header) {
	h.begin(OpDataIn, false, p.Final)
	h.setFlag(flagAcknowledge, p.Acknowledge)
	h.setFlag(flagOverflow, p.Overflow)
	h.setFlag(flagUnderflow, p.Underflow)
	h.setFlag(flagStatus, p.StatusFlag)
	h[offStatus] = p.Status
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.putSN(p.SN)
	h.put32(offDataSN, uint32(p.DataSN))
	h.put32(offBufferOffset, p.BufferOffset)
	h.put32(offDataResidual, p.ResidualCount)
}

// R2T is a Ready To Transfer PDU (RFC 7143 §11.8):
//
//	8 LUN · 16 InitiatorTaskTag · 20 TargetTransferTag · 24 StatSN
//	28 ExpCmdSN · 32 MaxCmdSN · 36 R2TSN · 40 BufferOffset
//	44 DesiredDataTransferLength
type R2T struct {
	LUN                       LUN
	InitiatorTaskTag          TaskTag
	TargetTransferTag         TaskTag
	SN                        SN // StatSN is the next one; an R2T does not use it up
	R2TSN                     Serial
	BufferOffset              uint32
	DesiredDataTransferLength uint32
}

// Opcode returns OpR2T.
func (*R2T) Opcode() Opcode { return OpR2T }

// Decode reads the header.
func (p *R2T) Decode(h *Header) error {
	if err := h.expect(OpR2T); err != nil {
		return err
	}
	*p = R2T{
		LUN:                       h.lun(),
		InitiatorTaskTag:          h.InitiatorTaskTag(),
		TargetTransferTag:         TaskTag(h.u32(offTTT)),
		SN:                        h.sn(),
		R2TSN:                     Serial(h.u32(offDataSN)),
		BufferOffset:              h.u32(offBufferOffset),
		DesiredDataTransferLength: h.u32(offDesired),
	}
	if p.TargetTransferTag == ReservedTag {
		return &ProtocolError{Reason: ReasonInvalidPDUField, Text: "an R2T with the reserved target transfer tag"}
	}
	return nil
}

// Encode fills the header.
func (p *R2T) Encode(h *Header) {
	h.begin(OpR2T, false, true)
	h.putLUN(p.LUN)
	h.put32(offITT, uint32(p.InitiatorTaskTag))
	h.put32(offTTT, uint32(p.TargetTransferTag))
	h.putSN(p.SN)
	h.put32(offDataSN, uint32(p.R2TSN))
	h.put32(offBufferOffset, p.BufferOffset)
	h.put32(offDesired, p.DesiredDataTransferLength)
}
