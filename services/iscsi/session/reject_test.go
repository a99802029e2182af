package session_test

import (
	"bytes"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// RFC 7143 §11.17: a PDU that cannot be taken comes back whole, with the reason.
func TestRejects(t *testing.T) {
	read := func(edit func(q *pdu.SCSICommand)) func(*rig) pdu.PDU {
		return func(r *rig) pdu.PDU { return r.command(0x28, 1, edit) }
	}
	vendor := func(r *rig) pdu.PDU { return rawPDU{0x1c, 0x80, 1, 2, 15: 9, 19: 7} }
	for _, c := range []struct {
		name   string
		make   func(r *rig) pdu.PDU
		data   int
		reason pdu.RejectReason
	}{
		{"an opcode that does not exist", vendor, 0, pdu.ReasonNotSupported},
		{"one with data", vendor, 5, pdu.ReasonNotSupported},
		{"a target's opcode", func(*rig) pdu.PDU { return &pdu.R2T{InitiatorTaskTag: 3, TargetTransferTag: 4} }, 0, pdu.ReasonNotSupported},
		{"a SNACK", func(*rig) pdu.PDU { return &pdu.SNACK{InitiatorTaskTag: 1, BegRun: 5} }, 0, pdu.ReasonSNACKReject},
		{"neither F nor W", read(func(q *pdu.SCSICommand) { q.Final = false }), 0, pdu.ReasonInvalidPDUField},
		{"neither R nor W", read(func(q *pdu.SCSICommand) { q.Read = false }), 0, pdu.ReasonInvalidPDUField},
		{"both R and W", read(func(q *pdu.SCSICommand) { q.Write = true }), 512, pdu.ReasonNotSupported},
		{"the reserved task tag", read(func(q *pdu.SCSICommand) { q.InitiatorTaskTag = pdu.ReservedTag }), 0, pdu.ReasonInvalidPDUField},
		{"the tag of a task that is under way", read(func(q *pdu.SCSICommand) { q.InitiatorTaskTag = 77 }), 0, pdu.ReasonTaskInProgress},
		{"a logout for no reason that there is", func(r *rig) pdu.PDU {
			return &pdu.LogoutRequest{Reason: 3, InitiatorTaskTag: r.Tag(), CID: 1, CmdSN: r.CmdSN}
		}, 0, pdu.ReasonInvalidPDUField},
		{"text that follows nothing", func(r *rig) pdu.PDU {
			return &pdu.TextRequest{Final: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: 5, CmdSN: r.CmdSN}
		}, 0, pdu.ReasonInvalidPDUField},
		{"text that cannot be read", func(r *rig) pdu.PDU {
			return &pdu.TextRequest{Final: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		}, 3, pdu.ReasonProtocolError},
		{"text with both F and C", func(r *rig) pdu.PDU {
			return &pdu.TextRequest{Immediate: true, Final: true, Continue: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		}, 4, pdu.ReasonInvalidPDUField},
		{"a silent ping in the window", func(r *rig) pdu.PDU {
			return &pdu.NOPOut{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		}, 0, pdu.ReasonInvalidPDUField},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			busy := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.InitiatorTaskTag = 77 })
			r.send(t, busy, nil)
			Expect[*pdu.R2T](t, r.Initiator)
			before := r.CmdSN
			p := c.make(r)
			wire := r.Bytes(p, bytes.Repeat([]byte{'x'}, c.data))
			if _, err := r.Conn.Write(wire); err != nil {
				t.Fatal(err)
			}
			if p, h := Expect[*pdu.Reject](t, r.Initiator); p.Reason != c.reason || !bytes.Equal(h, wire[:pdu.BHSLength]) {
				t.Errorf("rejected for %s, want %s, with\n% x of\n% x", p.Reason, c.reason, h, wire)
			}
			r.CmdSN = before // §7.3: its number was not used
			r.Must(t, Ready(0))
		})
	}
	t.Run("a login", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.send(t, &pdu.LoginRequest{CSG: 1, NSG: 3, Transit: true}, nil)
		if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonProtocolError {
			t.Errorf("rejected for %s", p.Reason)
		}
		r.Closed(t)
	})
}

// rawPDU is a header of any bytes.
type rawPDU pdu.Header

func (rawPDU) Opcode() pdu.Opcode       { return 0 }
func (rawPDU) Decode(*pdu.Header) error { return nil }
func (p rawPDU) Encode(h *pdu.Header)   { *h = pdu.Header(p) }

// §7.3: the CmdSN of a rejected command was not received. The initiator fills
// the gap with another command, or by aborting the one that is lost.
func TestTheGapThatARejectLeaves(t *testing.T) {
	rejected := func(t *testing.T) (*rig, *pdu.SCSICommand) {
		r := newRig(t, params()).ready(t)
		return r, r.gap(t)
	}
	t.Run("filled by another command", func(t *testing.T) {
		r, q := rejected(t)
		r.CmdSN = q.CmdSN
		r.Must(t, Read10(0, 0, 1))
	})
	t.Run("filled by an abort", func(t *testing.T) {
		r, q := rejected(t)
		r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: r.Tag(), ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete || p.SN.ExpCmdSN != r.CmdSN {
			t.Errorf("%+v", p)
		}
		r.Must(t, Read10(0, 0, 1))
	})
}

// §11.4.2, §11.17: a command that fails before its data has come is answered
// after it, whatever the failure.
func TestFailureWaitsForTheDataThatIsDue(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(q *pdu.SCSICommand)
		key  string
	}{
		"beyond the end":    {func(q *pdu.SCSICommand) { q.CDB[2] = 0x7f }, "05/21/00"},
		"no such command":   {func(q *pdu.SCSICommand) { q.CDB[0] = 0xc1 }, "05/20/00"},
		"a LUN that is not": {func(q *pdu.SCSICommand) { q.LUN = LUN(9) }, "05/25/00"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = false; c.edit(q) })
			r.send(t, q, make([]byte, 1024))
			r.quiet(t)
			d := &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 1024}
			r.send(t, d, make([]byte, 1024))
			r.quiet(t)
			d.Final, d.DataSN, d.BufferOffset = true, 1, 2048
			r.send(t, d, make([]byte, 2048))
			r.status(t, q.InitiatorTaskTag, c.key)
			r.Must(t, Ready(0))
			if n := r.volumes[0].wrote.Load(); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
	t.Run("aborted meanwhile", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final, q.CDB[2] = false, 0x7f })
		r.send(t, q, nil)
		r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: r.Tag(), ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete {
			t.Errorf("%+v", p)
		}
		r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, make([]byte, 4096))
		r.quiet(t)
		r.Must(t, Ready(0))
	})
}

// The same holds for the answer of a command that takes no data and succeeds, at once
// or before or after its data has come.
func TestSuccessWaitsForTheDataThatIsDue(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(q *pdu.SCSICommand)
		over uint32 // residual overflow
		late bool   // it is executed after its data has come
	}{
		"a WRITE of no blocks":     {func(q *pdu.SCSICommand) { q.CDB[8] = 0 }, 0, false},
		"TEST UNIT READY":          {func(q *pdu.SCSICommand) { q.CDB[0], q.CDB[8] = 0, 0 }, 0, false},
		"SYNCHRONIZE CACHE":        {func(q *pdu.SCSICommand) { q.CDB[0] = 0x35 }, 0, false},
		"a late SYNCHRONIZE CACHE": {func(q *pdu.SCSICommand) { q.CDB[0] = 0x35 }, 0, true},
		"a READ":                   {func(q *pdu.SCSICommand) { q.CDB[0] = 0x28 }, 4096, false},
		"INQUIRY":                  {func(q *pdu.SCSICommand) { q.CDB = [16]byte{0x12, 4: 36} }, 36, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			if c.late {
				r.volumes[0].syncs.shut()
			}
			q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = false; c.edit(q) })
			r.send(t, q, make([]byte, 1024))
			if !c.late {
				time.Sleep(10 * time.Millisecond) // it has been executed, wherever that is
			}
			r.quiet(t)
			d := &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 1024}
			r.send(t, d, make([]byte, 1024))
			r.quiet(t)
			d.Final, d.DataSN, d.BufferOffset = true, 1, 2048
			r.send(t, d, make([]byte, 2048))
			if c.late {
				r.quiet(t)
				r.volumes[0].syncs.open()
			}
			p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
			if p.InitiatorTaskTag != q.InitiatorTaskTag || p.Status != 0 || p.Overflow != (c.over > 0) || c.over > 0 && p.ResidualCount != c.over {
				t.Errorf("%+v", p)
			}
			r.Must(t, Ready(0))
			if n := r.volumes[0].wrote.Load(); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

// §11.2.2: a command of both directions may say so in an additional header
// segment; an extended CDB alone is no such thing.
func TestAdditionalHeaderSegments(t *testing.T) {
	bidi, long, strange := []byte{0, 5, 2, 0, 0, 0, 2, 0}, []byte{0, 5, 1, 0, 1, 2, 3, 4}, []byte{0, 5, 3, 0, 0, 0, 2, 0}
	for _, c := range []struct {
		name   string
		ahs    []byte
		edit   func(q *pdu.SCSICommand)
		reason pdu.RejectReason
	}{
		{"a read length of a command that only reads", bidi, func(*pdu.SCSICommand) {}, pdu.ReasonInvalidPDUField},
		{"a read length of a command of both directions", bidi, func(q *pdu.SCSICommand) { q.Write, q.ExpectedDataTransferLength = true, 0 }, pdu.ReasonNotSupported},
		{"a segment of no type that there is", strange, func(*pdu.SCSICommand) {}, pdu.ReasonInvalidPDUField},
		{"one that is cut short", bidi[:4], func(*pdu.SCSICommand) {}, pdu.ReasonInvalidPDUField},
		{"an extended CDB", long, func(*pdu.SCSICommand) {}, 0},
	} {
		for _, digest := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				p := params()
				p.HeaderDigest = digest
				r := newRig(t, p).ready(t)
				q := r.command(0x28, 1, c.edit)
				var h pdu.Header
				q.Encode(&h)
				h.SetAHSLength(len(c.ahs))
				wire := append(h[:], c.ahs...)
				if digest {
					wire = pdu.AppendDigest(wire, pdu.Digest(wire))
				}
				if _, err := r.Conn.Write(wire); err != nil {
					t.Fatal(err)
				}
				if c.reason == 0 {
					if p, data := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != q.InitiatorTaskTag || len(data) != 512 {
						t.Errorf("%+v", p)
					}
				} else if p, b := Expect[*pdu.Reject](t, r.Initiator); p.Reason != c.reason || !bytes.Equal(b, h[:]) {
					t.Errorf("rejected for %s, want %s", p.Reason, c.reason)
				} else {
					r.CmdSN = q.CmdSN
				}
				r.Must(t, Ready(0))
			})
		}
	}
}
