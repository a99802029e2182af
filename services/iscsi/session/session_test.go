package session_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// command builds the PDU of a READ or WRITE of blocks at LBA 0 of LUN 0.
func (r *rig) command(op byte, blocks int, edit func(*pdu.SCSICommand)) *pdu.SCSICommand {
	q := &pdu.SCSICommand{Final: true, Read: op == 0x28, Write: op == 0x2a, Attr: pdu.AttrSimple, InitiatorTaskTag: r.Tag(), ExpectedDataTransferLength: uint32(blocks * 512), CmdSN: r.CmdSN}
	q.CDB[0], q.CDB[7], q.CDB[8] = op, byte(blocks>>8), byte(blocks)
	r.CmdSN++
	if edit != nil {
		edit(q)
	}
	return q
}

func (r *rig) send(t testing.TB, p pdu.PDU, data []byte) {
	t.Helper()
	if err := r.Send(p, data); err != nil {
		t.Fatal(err)
	}
}

// status wants a SCSI Response for the tag.
func (r *rig) status(t testing.TB, tag pdu.TaskTag, key string) {
	t.Helper()
	p, data := Expect[*pdu.SCSIResponse](t, r.Initiator)
	sense, err := pdu.ParseSense(data)
	got := Result{Status: p.Status, Sense: sense}
	if err != nil || p.InitiatorTaskTag != tag || got.Key() != key {
		t.Fatalf("response for task %d with sense %q (status %02X, %v), want task %d with %q", p.InitiatorTaskTag, got.Key(), p.Status, err, tag, key)
	}
}

func TestCommandsOutsideTheWindowAreIgnored(t *testing.T) {
	r := newRig(t, params()).ready(t)
	for _, sn := range []pdu.Serial{r.CmdSN - 1, r.CmdSN - 100, r.SN.MaxCmdSN + 1, r.SN.MaxCmdSN + 1000} {
		r.send(t, &pdu.SCSICommand{Final: true, InitiatorTaskTag: r.Tag(), CmdSN: sn}, nil)
	}
	r.quiet(t)
	r.Must(t, Ready(0))
}

// §4.2.2.1: a command that comes before its turn waits for it.
func TestCommandThatSkipsAnotherWaits(t *testing.T) {
	r := newRig(t, params()).ready(t)
	early := &pdu.SCSICommand{Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN + 1}
	r.send(t, early, nil)
	r.quiet(t)
	r.Must(t, Ready(0))
	r.status(t, early.InitiatorTaskTag, "")
	r.CmdSN++
	r.Must(t, Ready(0))
}

// The window is what bounds memory: when every slot is taken it is shut, and it
// opens again with the answers.
func TestWindowShutsAndOpens(t *testing.T) {
	r := newRig(t, params()).ready(t)
	r.volumes[0].syncs.shut()
	n := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1
	if n < 8 || n > 128 {
		t.Fatalf("the window has %d commands", n)
	}
	for range n {
		if _, err := r.Start(Sync10(0)); err != nil {
			t.Fatal(err)
		}
	}
	r.quiet(t)
	if r.SN.MaxCmdSN != r.SN.ExpCmdSN-1 {
		t.Fatalf("ExpCmdSN %d, MaxCmdSN %d: the window is not shut", r.SN.ExpCmdSN, r.SN.MaxCmdSN)
	}
	r.send(t, &pdu.SCSICommand{Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN}, nil) // beyond it
	r.quiet(t)
	r.volumes[0].syncs.open()
	for range n {
		Expect[*pdu.SCSIResponse](t, r.Initiator)
	}
	if got := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1; got != n {
		t.Errorf("the window opened to %d, was %d", got, n)
	}
	r.Must(t, Ready(0))
}

// RFC 7143 §11.4.10: an initiator that may not send anything learns that it may
// again, when its tasks end without an answer because another initiator said
// so.
func TestWindowThatOpensWithoutAnAnswerIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(t *testing.T, r *rig)
		end  func(r *rig)
	}{
		"of commands that wait for data": {func(t *testing.T, r *rig) {
			r.send(t, r.command(0x2a, 8, nil), nil)
			Expect[*pdu.R2T](t, r.Initiator)
		}, func(*rig) {}},
		"of commands that run": {func(t *testing.T, r *rig) {
			if _, err := r.Start(Sync10(0)); err != nil {
				t.Fatal(err)
			}
		}, func(r *rig) { r.volumes[0].syncs.open() }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.volumes[0].syncs.shut()
			n := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1
			for range n {
				c.fill(t, r)
			}
			r.quiet(t)
			if r.SN.MaxCmdSN != r.SN.ExpCmdSN-1 {
				t.Fatalf("ExpCmdSN %d, MaxCmdSN %d: the window is not shut", r.SN.ExpCmdSN, r.SN.MaxCmdSN)
			}
			if got := r.session.AbortUnit(0, func() {}); got != n {
				t.Fatalf("%d of %d tasks were aborted", got, n)
			}
			c.end(r)
			p, _ := Expect[*pdu.NOPIn](t, r.Initiator)
			if p.InitiatorTaskTag != pdu.ReservedTag || p.TargetTransferTag != pdu.ReservedTag || p.SN.MaxCmdSN.Less(r.CmdSN) {
				t.Errorf("%+v", p)
			}
			r.quiet(t) // once
			r.Must(t, Ready(0))
		})
	}
	t.Run("not while it was open", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.send(t, r.command(0x2a, 8, nil), nil)
		Expect[*pdu.R2T](t, r.Initiator)
		r.session.AbortUnit(0, func() {})
		r.quiet(t)
	})
}

func TestImmediateCommandsAreBounded(t *testing.T) {
	r := newRig(t, params()).ready(t)
	r.volumes[0].syncs.shut()
	for range 16 {
		r.send(t, &pdu.SCSICommand{Immediate: true, Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN, CDB: [16]byte{0x35}}, nil)
	}
	r.send(t, &pdu.SCSICommand{Immediate: true, Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN, CDB: [16]byte{0x35}}, nil)
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonImmediateReject {
		t.Errorf("rejected for %s", p.Reason)
	}
	r.volumes[0].syncs.open()
	for range 16 {
		Expect[*pdu.SCSIResponse](t, r.Initiator)
	}
	r.Must(t, Ready(0))
}

// Each way to send data wrongly fails the one command, writes nothing, and
// leaves the session in order. A wrong Data-Out is rejected; the command is
// answered when the sequence of its data has ended (RFC 7143 §11.4.2).
func TestDataThatBreaksTheRules(t *testing.T) {
	block := bytes.Repeat([]byte{0xee}, 4096)
	lazy := params()
	lazy.InitialR2T, lazy.ImmediateData = true, false
	short := params()
	short.FirstBurstLength = 1024
	for _, c := range []struct {
		name   string
		params login.Params
		act    func(r *rig, q *pdu.SCSICommand, r2t func() *pdu.R2T)
		reject pdu.RejectReason // 0: none
		open   bool             // the sequence goes on
		key    string
	}{
		{"immediate data that was not agreed", lazy, func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			r.send(t, q, block[:512])
		}, 0, false, "0B/0C/0C"},
		{"unsolicited data that was not agreed", lazy, func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, block)
		}, 0, false, "0B/0C/0C"},
		{"more than the command expects", params(), func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.ExpectedDataTransferLength = 512
			r.send(t, q, block)
		}, 0, false, "0B/0C/0C"},
		{"unsolicited data beyond FirstBurstLength", short, func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, block[:512])
			r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512}, block[:1024])
		}, pdu.ReasonProtocolError, true, "0B/0C/0D"},
		{"less unsolicited data than FirstBurstLength", short, func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, block[:512])
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512}, block[:508])
		}, pdu.ReasonProtocolError, false, "0B/0C/0D"},
		{"less unsolicited data than there is", params(), func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, block[:3584])
		}, pdu.ReasonProtocolError, false, "0B/0C/0D"},
		{"none after all", params(), func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, nil)
		}, pdu.ReasonProtocolError, false, "0B/0C/0D"},
		{"unsolicited data that was not agreed, and comes", lazy, func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, block[:512])
		}, 0, true, "0B/0C/0C"},
		{"unsolicited data after its end", params(), func(r *rig, q *pdu.SCSICommand, r2t func() *pdu.R2T) {
			r.send(t, q, block[:512])
			r2t()
			r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512}, block[:512])
		}, pdu.ReasonInvalidPDUField, true, "0B/0C/0C"},
		{"a wrong DataSN", params(), func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, DataSN: 27}, block)
		}, pdu.ReasonInvalidPDUField, true, "0B/4B/00"},
		{"a wrong offset", params(), func(r *rig, q *pdu.SCSICommand, _ func() *pdu.R2T) {
			q.Final = false
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512}, block[:512])
		}, pdu.ReasonInvalidPDUField, true, "0B/4B/00"},
		{"a wrong transfer tag", params(), func(r *rig, q *pdu.SCSICommand, r2t func() *pdu.R2T) {
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: r2t().TargetTransferTag + 1}, block)
		}, pdu.ReasonInvalidPDUField, false, "0B/4B/00"},
		{"more than was asked for", params(), func(r *rig, q *pdu.SCSICommand, r2t func() *pdu.R2T) {
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: r2t().TargetTransferTag}, append(block, 1, 2, 3, 4))
		}, pdu.ReasonProtocolError, false, "0B/0C/0D"},
		{"less than was asked for", params(), func(r *rig, q *pdu.SCSICommand, r2t func() *pdu.R2T) {
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: r2t().TargetTransferTag}, block[:512])
		}, pdu.ReasonProtocolError, false, "0B/0C/0D"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.params).ready(t)
			q := r.command(0x2a, 8, nil)
			c.act(r, q, func() *pdu.R2T { p, _ := Expect[*pdu.R2T](t, r.Initiator); return p })
			if c.reject != 0 {
				if p, h := Expect[*pdu.Reject](t, r.Initiator); p.Reason != c.reject || len(h) != pdu.BHSLength || pdu.Opcode(h[0]) != pdu.OpDataOut {
					t.Errorf("rejected for %s, want %s: % x", p.Reason, c.reject, h)
				}
			}
			if c.open {
				r.quiet(t)
				r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, block)
			}
			r.status(t, q.InitiatorTaskTag, c.key)
			// What still comes for the task is dropped.
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, block)
			r.quiet(t)
			if r.volumes[0].wrote.Load() != 0 {
				t.Error("the volume was written")
			}
			w := Write10(0, 0, block)
			r.Must(t, w)
			if !bytes.Equal(r.volumes[0].b[:4096], block) {
				t.Error("the next command wrote other bytes")
			}
		})
	}
}

func TestDamagedDataFailsTheCommand(t *testing.T) {
	p := params()
	p.HeaderDigest, p.DataDigest = true, true
	r := newRig(t, p).ready(t)
	for _, blocks := range []int{1, 8, 256} {
		q := r.command(0x2a, blocks, nil)
		b := r.Bytes(q, make([]byte, blocks*512))
		b[60] ^= 1
		if _, err := r.Conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if p, h := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonDataDigestError || !bytes.Equal(h[:48], b[:48]) {
			t.Errorf("rejected for %s", p.Reason)
		}
		r.status(t, q.InitiatorTaskTag, "0B/47/05")
	}
	// In a Data-Out as well.
	q := r.command(0x2a, 8, nil)
	r.send(t, q, nil)
	a, _ := Expect[*pdu.R2T](t, r.Initiator)
	b := r.Bytes(&pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, make([]byte, 4096))
	b[len(b)-1] ^= 1
	if _, err := r.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
	Expect[*pdu.Reject](t, r.Initiator)
	r.status(t, q.InitiatorTaskTag, "0B/47/05")
	if r.volumes[0].wrote.Load() != 0 {
		t.Error("damaged data was written")
	}
	r.Must(t, Read10(0, 0, 8))
}

func TestDamagedHeaderEndsTheSession(t *testing.T) {
	p := params()
	p.HeaderDigest = true
	r := newRig(t, p).ready(t)
	b := r.Bytes(r.command(0x28, 1, nil), nil)
	b[40] ^= 1
	if _, err := r.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
	r.Closed(t)
	if s := r.reason(t); !strings.Contains(s, "header digest") {
		t.Errorf("the reason is %q", s)
	}
}

func TestDataSegmentBeyondTheLimitEndsTheSession(t *testing.T) {
	r := newRig(t, params()).ready(t)
	var h pdu.Header
	r.command(0x2a, 8, nil).Encode(&h)
	h.SetDataSegmentLength(256<<10 + 1)
	if _, err := r.Conn.Write(h[:]); err != nil {
		t.Fatal(err)
	}
	r.Closed(t)
	if s := r.reason(t); !strings.Contains(s, "MaxRecvDataSegmentLength") {
		t.Errorf("the reason is %q", s)
	}
}

// RFC 7143 §11.4.5: what was expected and what moved may differ.
func TestResiduals(t *testing.T) {
	r := newRig(t, params()).ready(t)
	read := Read10(0, 0, 2)
	for _, c := range []struct {
		expected    int
		over, under bool
		residual    uint32
	}{{1024, false, false, 0}, {512, true, false, 512}, {2048, false, true, 1024}, {0, true, false, 1024}} {
		read.Read = c.expected
		res := r.Must(t, read)
		if res.Overflow != c.over || res.Underflow != c.under || res.Residual != c.residual || len(res.Data) != min(c.expected, 1024) {
			t.Errorf("expected %d: %d bytes, over %v under %v by %d", c.expected, len(res.Data), res.Overflow, res.Underflow, res.Residual)
		}
	}
	write := Write10(0, 0, make([]byte, 1024))
	write.CDB[8] = 1
	write.Immediate = 1024
	if res := r.Must(t, write); !res.Underflow || res.Residual != 512 {
		t.Errorf("a write of less than was sent: %+v", res)
	}
	write.Immediate = 0
	if res := r.Must(t, write); !res.Underflow || res.Residual != 512 || res.R2Ts != 1 {
		t.Errorf("a write of less than was promised: %+v", res)
	}
	// INQUIRY with room for more than there is.
	inq := Command{CDB: []byte{0x12, 0, 0, 0, 255, 0}, Read: 255}
	if res := r.Must(t, inq); len(res.Data) < 36 || !res.Underflow || int(res.Residual) != 255-len(res.Data) {
		t.Errorf("INQUIRY: %d bytes, %+v", len(res.Data), res)
	}
	// A failed command moved nothing.
	far := Read10(0, 1<<24, 1)
	if res, err := r.Do(far); err != nil || res.Key() != "05/21/00" || !res.Underflow || res.Residual != 512 {
		t.Errorf("a read beyond the end: %v %+v", err, res)
	}
}

// A WRITE moves what both sides have: the rest is told, over or under, however
// the data comes.
func TestResidualsOfWrites(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v := r.volumes[0]
	for _, c := range []struct {
		expected    int
		over, under bool
		residual    uint32
	}{{1024, false, false, 0}, {512, true, false, 512}, {2048, false, true, 1024}, {0, true, false, 1024}} {
		for _, how := range []string{"asked", "immediate", "unasked"} {
			data := bytes.Repeat([]byte{0xd7}, c.expected)
			w := Write10(0, 1, data)
			w.CDB[8] = 2
			switch how {
			case "immediate":
				w.Immediate = len(data)
			case "unasked":
				w.Unasked = len(data)
			}
			clear(v.b[:4096])
			res := r.Must(t, w)
			if res.Overflow != c.over || res.Underflow != c.under || res.Residual != c.residual {
				t.Errorf("expected %d, %s: over %v under %v by %d", c.expected, how, res.Overflow, res.Underflow, res.Residual)
			}
			n := min(c.expected, 1024)
			if !bytes.Equal(v.b[512:512+n], data[:n]) || !bytes.Equal(v.b[512+n:4096], make([]byte, 4096-512-n)) || v.b[511] != 0 {
				t.Errorf("expected %d, %s: other bytes were written", c.expected, how)
			}
		}
	}
	// A command without data that expects some, either way.
	for _, c := range []Command{{CDB: make([]byte, 6), Read: 100}, {CDB: make([]byte, 6), Write: make([]byte, 100), Immediate: 100}, {CDB: make([]byte, 6), Write: make([]byte, 100)}} {
		if res := r.Must(t, c); !res.Underflow || res.Residual != 100 || res.R2Ts != 0 {
			t.Errorf("TEST UNIT READY with data: %+v", res)
		}
	}
	// A READ that its initiator takes for a WRITE, and a WRITE for a READ.
	wrong := Read10(0, 0, 2)
	wrong.Read, wrong.Write = 0, make([]byte, 1024)
	if res := r.Must(t, wrong); len(res.Data) != 0 || !res.Overflow || res.Residual != 1024 {
		t.Errorf("a READ with W: %+v", res)
	}
	before := bytes.Clone(v.b[:4096])
	wrong = Write10(0, 0, nil)
	wrong.CDB[8], wrong.Read = 2, 1024
	if res, err := r.Do(wrong); err != nil || res.Key() != "0B/4B/00" || len(res.Data) != 0 {
		t.Errorf("a WRITE with R: %v %+v", err, res)
	}
	if !bytes.Equal(before, v.b[:4096]) {
		t.Error("a WRITE with R has written")
	}
}

// Data-In is cut by MaxRecvDataSegmentLength and MaxBurstLength.
func TestDataInIsCutAsAgreed(t *testing.T) {
	p := params()
	p.MaxRecvDataSegmentLength, p.MaxBurstLength = 1536, 4096
	r := newRig(t, p).ready(t)
	for i := range r.volumes[0].b {
		r.volumes[0].b[i] = byte(i >> 9)
	}
	q := r.command(0x28, 20, nil)
	r.send(t, q, nil)
	var ends []int
	total := 0
	for sn := 0; ; sn++ {
		d, data := Expect[*pdu.DataIn](t, r.Initiator)
		if len(data) > 1536 || int(d.BufferOffset) != total || int(d.DataSN) != sn || !bytes.Equal(data, r.volumes[0].b[total:total+len(data)]) {
			t.Fatalf("Data-In %d: %+v with %d bytes", sn, d, len(data))
		}
		total += len(data)
		if d.Final {
			ends = append(ends, total)
		}
		if d.StatusFlag {
			break
		}
	}
	if !slices.Equal(ends, []int{4096, 8192, 10240}) {
		t.Errorf("bursts end at %v", ends)
	}
}

// §11.7.7: inside a sequence, data comes in whole words, whatever the initiator
// takes; a sequence ends where it ends.
func TestDataInComesInWholeWords(t *testing.T) {
	for _, c := range []struct{ segment, burst int }{{1537, 1 << 20}, {8191, 1 << 20}, {513, 4096}, {1539, 4099}, {4099, 1027}} {
		for _, blocks := range []int{20, 400} { // by one buffer, and by several
			p := params()
			p.MaxRecvDataSegmentLength, p.MaxBurstLength = c.segment, c.burst
			r := newRig(t, p).ready(t)
			for i := range blocks * 512 {
				r.volumes[0].b[i] = byte(i >> 3)
			}
			r.send(t, r.command(0x28, blocks, nil), nil)
			total, sequence := 0, 0
			for done := false; !done; {
				d, data := Expect[*pdu.DataIn](t, r.Initiator)
				if int(d.BufferOffset) != total || !bytes.Equal(data, r.volumes[0].b[total:total+len(data)]) || len(data) > c.segment {
					t.Fatalf("%+v: Data-In at %d: %+v with %d bytes", c, total, d, len(data))
				}
				if len(data)%4 != 0 && !d.Final {
					t.Fatalf("%+v: %d bytes inside a sequence", c, len(data))
				}
				total += len(data)
				if sequence += len(data); sequence > c.burst {
					t.Fatalf("%+v: a sequence of %d bytes", c, sequence)
				}
				if d.Final {
					sequence = 0
				}
				done = d.StatusFlag
			}
			if total != blocks*512 {
				t.Errorf("%+v: %d bytes", c, total)
			}
		}
	}
}

func TestTaskManagement(t *testing.T) {
	manage := func(t *testing.T, r *rig, f pdu.TaskFunction, lun byte, ref *pdu.SCSICommand) pdu.TaskResult {
		t.Helper()
		q := &pdu.TaskRequest{Immediate: true, Function: f, LUN: LUN(lun), InitiatorTaskTag: r.Tag(), ReferencedTaskTag: pdu.ReservedTag, CmdSN: r.CmdSN}
		if ref != nil {
			q.ReferencedTaskTag, q.RefCmdSN = ref.InitiatorTaskTag, ref.CmdSN
		}
		r.send(t, q, nil)
		p, _ := Expect[*pdu.TaskResponse](t, r.Initiator)
		return p.Response
	}
	t.Run("of what cannot be", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		done := r.command(0x28, 1, nil)
		r.send(t, done, nil)
		Expect[*pdu.DataIn](t, r.Initiator)
		for _, c := range []struct {
			f    pdu.TaskFunction
			lun  byte
			ref  *pdu.SCSICommand
			want pdu.TaskResult
		}{
			{pdu.FuncAbortTask, 0, done, pdu.TaskDoesNotExist},
			{pdu.FuncAbortTask, 0, &pdu.SCSICommand{InitiatorTaskTag: 999, CmdSN: r.CmdSN + 500}, pdu.TaskDoesNotExist},
			{pdu.FuncLogicalUnitReset, 9, nil, pdu.TaskLUNDoesNotExist},
			{pdu.FuncAbortTaskSet, 9, nil, pdu.TaskLUNDoesNotExist},
			{pdu.FuncTaskReassign, 0, done, pdu.TaskReassignNotSupported},
			{pdu.FuncClearACA, 0, nil, pdu.TaskNotSupported},
			{99, 0, nil, pdu.TaskNotSupported},
		} {
			if got := manage(t, r, c.f, c.lun, c.ref); got != c.want {
				t.Errorf("%s on LUN %d: %d, want %d", c.f, c.lun, got, c.want)
			}
		}
		r.Must(t, Ready(0))
	})
	t.Run("of a command that was never sent", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		lost := r.command(0x28, 1, nil)
		r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: r.Tag(), ReferencedTaskTag: lost.InitiatorTaskTag, RefCmdSN: lost.CmdSN, CmdSN: r.CmdSN}, nil)
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete {
			t.Errorf("response %d", p.Response)
		}
		r.Must(t, Ready(0)) // its number counts as used
	})
	t.Run("of a write that waits for data", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := r.command(0x2a, 8, nil)
		r.send(t, q, nil)
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		if got := manage(t, r, pdu.FuncAbortTask, 0, q); got != pdu.TaskComplete {
			t.Errorf("response %d", got)
		}
		r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, make([]byte, 4096))
		r.quiet(t)
		if r.volumes[0].wrote.Load() != 0 {
			t.Error("the aborted write was done")
		}
	})
	t.Run("of a write that is being done", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.volumes[0].puts.shut()
		q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.CDB[1] = 0x08 }) // FUA
		r.send(t, q, make([]byte, 4096))
		eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the write begins")
		tag := r.Tag()
		r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: tag, ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
		r.quiet(t) // not answered while the volume may still change
		r.volumes[0].puts.open()
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.InitiatorTaskTag != tag || p.Response != pdu.TaskComplete {
			t.Errorf("response %+v", p)
		}
		r.quiet(t)
	})
	t.Run("of a whole unit", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.volumes[0].syncs.shut()
		r.volumes[1].syncs.shut()
		for range 3 {
			if _, err := r.Start(Sync10(0)); err != nil {
				t.Fatal(err)
			}
		}
		other, err := r.Start(Sync10(1))
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return r.volumes[0].syncs.waiting.Load() == 3 }, "the flushes begin")
		for _, f := range []pdu.TaskFunction{pdu.FuncAbortTaskSet, pdu.FuncLogicalUnitReset} {
			if got := manage(t, r, f, 0, nil); got != pdu.TaskComplete {
				t.Errorf("%s: %d", f, got)
			}
		}
		r.volumes[0].syncs.open()
		r.volumes[1].syncs.open()
		r.status(t, other, "")
		r.quiet(t)
	})
	t.Run("of the target", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		for _, f := range []pdu.TaskFunction{pdu.FuncTargetWarmReset, pdu.FuncTargetColdReset} {
			if got := manage(t, r, f, 0, nil); got != pdu.TaskComplete {
				t.Errorf("%s: %d", f, got)
			}
		}
		eventually(t, func() bool { r.witness.mu.Lock(); defer r.witness.mu.Unlock(); return r.witness.resets == 1 }, "the cold reset is passed on")
	})
}

// What another machine's reset reports as ended does not write later: not what
// runs on the reader's own goroutine either.
func TestAbortOfWhatTheReaderExecutes(t *testing.T) {
	for name, c := range map[string]struct {
		lun   store.LUN
		start func(r *rig) *pdu.SCSICommand
		ended int
	}{
		"a WRITE": {0, func(r *rig) *pdu.SCSICommand {
			q := r.command(0x2a, 1, nil)
			r.send(t, q, make([]byte, 512))
			return q
		}, 1},
		"a WRITE whose data came later": {0, func(r *rig) *pdu.SCSICommand {
			q := r.command(0x2a, 1, func(q *pdu.SCSICommand) { q.Final = false })
			r.send(t, q, nil)
			r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, make([]byte, 512))
			return q
		}, 1},
		"a WRITE of another unit": {1, func(r *rig) *pdu.SCSICommand {
			q := r.command(0x2a, 1, nil)
			r.send(t, q, make([]byte, 512))
			return q
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.volumes[0].puts.shut()
			q := c.start(r)
			eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the write begins")
			rested := make(chan struct{})
			if n := r.session.AbortUnit(c.lun, func() { close(rested) }); n != c.ended {
				t.Errorf("%d tasks were aborted, want %d", n, c.ended)
			}
			early := false
			select {
			case <-rested:
				early = true
			case <-time.After(20 * time.Millisecond):
			}
			if early != (c.ended == 0) {
				t.Errorf("came to rest while the write was running: %v", early)
			}
			r.volumes[0].puts.open()
			<-rested
			if c.ended == 0 {
				r.status(t, q.InitiatorTaskTag, "")
			}
			r.quiet(t)
			r.Must(t, Write10(0, 0, make([]byte, 512)))
		})
	}
}

// A fault in a command ends its session, and who waits for the command's end is
// let go.
func TestAbortOfACommandThatBreaks(t *testing.T) {
	for name, blocks := range map[string]int{"small": 1, "large": 1024} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.volumes[0].puts.shut()
			r.send(t, r.command(0x2a, blocks, nil), make([]byte, min(blocks*512, 256<<10)))
			eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the write begins")
			rested := make(chan struct{})
			if n := r.session.AbortUnit(0, func() { close(rested) }); n != 1 {
				t.Errorf("%d tasks were aborted", n)
			}
			r.volumes[0].fault.Store(true)
			r.volumes[0].puts.open()
			select {
			case <-rested:
			case <-time.After(5 * time.Second):
				t.Error("the reset waits for ever")
			}
			r.Closed(t)
		})
	}
}

// SAM-5 §8.6: an ORDERED command waits for all before it and holds all behind
// it; other units do not care.
func TestOrderedCommands(t *testing.T) {
	r := newRig(t, params()).ready(t)
	r.volumes[0].syncs.shut()
	sync, err := r.Start(Sync10(0))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return r.volumes[0].syncs.waiting.Load() == 1 }, "the flush begins")
	ordered := r.command(0x2a, 1, func(q *pdu.SCSICommand) { q.Attr = pdu.AttrOrdered })
	r.send(t, ordered, bytes.Repeat([]byte{7}, 512))
	after := r.command(0x28, 1, nil)
	r.send(t, after, nil)
	other := r.command(0x28, 1, func(q *pdu.SCSICommand) { q.LUN = LUN(1) })
	r.send(t, other, nil)
	if p, _ := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != other.InitiatorTaskTag {
		t.Fatalf("task %d was answered first", p.InitiatorTaskTag)
	}
	r.quiet(t)
	r.volumes[0].syncs.open()
	r.status(t, sync, "")
	r.status(t, ordered.InitiatorTaskTag, "")
	if p, data := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != after.InitiatorTaskTag || data[0] != 7 {
		t.Errorf("task %d read %d", p.InitiatorTaskTag, data[0])
	}
	r.Must(t, Read10(0, 0, 1))
}

// wholeWrite makes a WRITE one that needs all of its data at once: FUA.
func wholeWrite(q *pdu.SCSICommand) { q.CDB[1] = 0x08 }

// Data that is asked for comes when there is memory for it.
func TestLargeWritesWaitForMemory(t *testing.T) {
	r := newRig(t, params()).ready(t)
	const each, n = 4 << 20, 10
	var tags []pdu.TaskTag
	for range n {
		q := r.command(0x2a, each/512, wholeWrite)
		tags = append(tags, q.InitiatorTaskTag)
		r.send(t, q, nil)
	}
	asked := map[pdu.TaskTag]*pdu.R2T{}
	for range 4 { // 16 MiB
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		asked[a.InitiatorTaskTag] = a
	}
	r.quiet(t)
	data := make([]byte, 256<<10)
	for left := n; left > 0; {
		for tag, a := range asked {
			delete(asked, tag)
			for sent := 0; sent < int(a.DesiredDataTransferLength); sent += len(data) {
				r.send(t, &pdu.DataOut{Final: sent+len(data) == int(a.DesiredDataTransferLength), InitiatorTaskTag: tag, TargetTransferTag: a.TargetTransferTag, DataSN: pdu.Serial(sent / len(data)), BufferOffset: a.BufferOffset + uint32(sent)}, data)
			}
			break
		}
		p, _, err := r.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch p := p.(type) {
		case *pdu.R2T:
			asked[p.InitiatorTaskTag] = p
		case *pdu.SCSIResponse:
			if p.Status != 0 || !slices.Contains(tags, p.InitiatorTaskTag) {
				t.Fatalf("%+v", p)
			}
			left--
		}
	}
}

// A command that waits for memory is not overtaken for ever by smaller ones.
func TestMemoryGoesToTheOldestThatWaits(t *testing.T) {
	r := newRig(t, params()).ready(t)
	const mib = 1 << 20
	want := map[pdu.TaskTag]bool{}
	for _, size := range []int{4, 8, 8, 4} { // 16 MiB are there: the third waits, and the fourth behind it
		q := r.command(0x2a, size*mib/512, wholeWrite)
		r.send(t, q, nil)
		want[q.InitiatorTaskTag] = len(want) < 2
	}
	for range 2 {
		if a, _ := Expect[*pdu.R2T](t, r.Initiator); !want[a.InitiatorTaskTag] {
			t.Errorf("task %d was asked for its data", a.InitiatorTaskTag)
		}
	}
	r.quiet(t)
}

// A READ whose initiator expects less than the CDB says takes as much memory as
// any other.
func TestReadsThatExpectNothingWaitForMemoryToo(t *testing.T) {
	r := newRig(t, params()).ready(t)
	const each, n = 4 << 20, 10
	v := r.volumes[0]
	v.cold.Store(true)
	v.gets.shut()
	defer v.gets.open()
	for range n {
		r.send(t, r.command(0x28, each/512, func(q *pdu.SCSICommand) { q.ExpectedDataTransferLength = 0 }), nil)
	}
	eventually(t, func() bool { return v.gets.waiting.Load() >= 4 }, "the first ones read")
	r.send(t, &pdu.NOPOut{Immediate: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}, nil)
	Expect[*pdu.NOPIn](t, r.Initiator) // all of them have arrived
	if reads := v.gets.waiting.Load(); reads > 4 {
		t.Errorf("%d reads of %d MiB run at a time, with 16 MiB for them", reads, each>>20)
	}
	v.gets.open()
	for range n {
		if p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator); p.Status != 0 || !p.Overflow || p.ResidualCount != each {
			t.Errorf("%+v", p)
		}
	}
}

func TestTextInFullFeaturePhase(t *testing.T) {
	r := newRig(t, params()).ready(t)
	say := func(final, more bool, ttt pdu.TaskTag, text []byte) (*pdu.TextResponse, []pdu.Pair) {
		t.Helper()
		r.send(t, &pdu.TextRequest{Immediate: true, Final: final, Continue: more, InitiatorTaskTag: 7, TargetTransferTag: ttt, CmdSN: r.CmdSN}, text)
		p, data := Expect[*pdu.TextResponse](t, r.Initiator)
		pairs, err := pdu.ParseText(data)
		if err != nil {
			t.Fatal(err)
		}
		return p, pairs
	}
	p, pairs := say(true, false, pdu.ReservedTag, pdu.AppendText(nil, "SendTargets", ""))
	if !p.Final || len(pairs) != 2 || pairs[0].Key != "TargetName" {
		t.Errorf("%+v %v", p, pairs)
	}
	if _, pairs = say(true, false, pdu.ReservedTag, pdu.AppendText(nil, "SendTargets", "All")); !slices.Equal(pairs, []pdu.Pair{{Key: "SendTargets", Value: "Reject"}}) {
		t.Errorf("All in a normal session: %v", pairs)
	}
	// Cut in the middle of a key.
	text := pdu.AppendText(pdu.AppendText(nil, "MaxRecvDataSegmentLength", "512"), "X-a", "b")
	p, pairs = say(false, true, pdu.ReservedTag, text[:11])
	if p.Final || p.TargetTransferTag == pdu.ReservedTag || len(pairs) != 0 {
		t.Fatalf("%+v %v", p, pairs)
	}
	p, pairs = say(true, false, p.TargetTransferTag, text[11:])
	if !p.Final || !slices.Equal(pairs, []pdu.Pair{{Key: "X-a", Value: "NotUnderstood"}}) {
		t.Errorf("%+v %v", p, pairs)
	}
	if res := r.Must(t, Read10(0, 0, 4)); res.DataIns != 4 {
		t.Errorf("%d Data-In PDUs with segments of 512 bytes", res.DataIns)
	}
	r.send(t, &pdu.TextRequest{Immediate: true, Final: true, InitiatorTaskTag: 7, TargetTransferTag: 12345, CmdSN: r.CmdSN}, nil)
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonInvalidPDUField {
		t.Errorf("rejected for %s", p.Reason)
	}
}

func TestLogout(t *testing.T) {
	r := newRig(t, params()).ready(t)
	ask := func(reason pdu.LogoutReason, cid uint16) pdu.LogoutResult {
		r.send(t, &pdu.LogoutRequest{Immediate: true, Reason: reason, InitiatorTaskTag: r.Tag(), CID: cid, CmdSN: r.CmdSN}, nil)
		p, _ := Expect[*pdu.LogoutResponse](t, r.Initiator)
		return p.Response
	}
	if got := ask(pdu.LogoutForRecovery, 1); got != pdu.LogoutRecoveryNotSupported {
		t.Errorf("for recovery: %d", got)
	}
	if got := ask(pdu.LogoutCloseConnection, 9); got != pdu.LogoutCIDNotFound {
		t.Errorf("another connection: %d", got)
	}
	if got := ask(pdu.LogoutCloseConnection, 1); got != pdu.LogoutSuccess {
		t.Errorf("this connection: %d", got)
	}
	r.Closed(t)
	if s := r.reason(t); s != "the initiator logged out" || r.witness.logouts != 1 {
		t.Errorf("the reason is %q, %d logouts", s, r.witness.logouts)
	}
}

// An initiator that has stopped reading holds up nobody who wants to end it.
func TestCloseDoesNotWaitForAStuckPeer(t *testing.T) {
	r := newRig(t, params()).ready(t)
	for range 32 {
		r.send(t, r.command(0x28, 16384, nil), nil) // 8 MiB each, and nobody reads
	}
	time.Sleep(50 * time.Millisecond)
	at := time.Now()
	r.session.Close("test")
	<-r.session.Done()
	if d := time.Since(at); d > 10*time.Second { // TCP would give the peer up after 30
		t.Errorf("it took %s", d)
	}
}

// The last LUN goes: the first command that finds nothing is told that the list
// has changed, and REPORT LUNS shows it.
func TestTheLastLUNGoes(t *testing.T) {
	inquiry := Command{CDB: []byte{0x12, 0, 0, 0, 96, 0}, Read: 96}
	list := Command{CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0}, Read: 16}
	key := func(t *testing.T, r *rig, c Command, want string) {
		t.Helper()
		if res, err := r.Do(c); err != nil || res.Key() != want {
			t.Errorf("command %02X: %v, %s, want %q", c.CDB[0], err, res.Key(), want)
		}
	}
	begin := func(t *testing.T) *rig {
		r := newRig(t, params()).ready(t)
		r.session.SetMap(nil, func() {})
		return r
	}
	t.Run("and the next command is told", func(t *testing.T) {
		r := begin(t)
		if res := r.Must(t, inquiry); res.Data[0] != 0x7f {
			t.Errorf("INQUIRY says %02X", res.Data[0])
		}
		key(t, r, Read10(1, 0, 1), "06/3F/0E")
		key(t, r, Ready(0), "05/25/00")
		key(t, r, Ready(1), "05/25/00")
	})
	t.Run("and a list says it", func(t *testing.T) {
		r := begin(t)
		if res := r.Must(t, list); !bytes.Equal(res.Data, make([]byte, 8)) {
			t.Errorf("REPORT LUNS says % x", res.Data)
		}
		key(t, r, Ready(0), "05/25/00")
	})
	t.Run("and a map without units is no news", func(t *testing.T) {
		r := begin(t)
		key(t, r, Ready(0), "06/3F/0E")
		r.session.SetMap(nil, func() {})
		key(t, r, Ready(0), "05/25/00")
	})
}

// iPXE sends a PDU's header and data in two segments and holds the second back
// until the first is acknowledged: without an ACK at once, each costs 40 ms.
func TestRestOfAPDUIsAskedForAtOnce(t *testing.T) {
	r := newRig(t, params()).ready(t)
	if err := r.Conn.(*net.TCPConn).SetNoDelay(false); err != nil {
		t.Fatal(err)
	}
	const n = 60
	at := time.Now()
	for range n {
		q := r.command(0x2a, 1, nil)
		r.send(t, q, nil)
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		b := r.Bytes(&pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, make([]byte, 512))
		for _, part := range [][]byte{b[:48], b[48:]} {
			if _, err := r.Conn.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		r.status(t, q.InitiatorTaskTag, "")
	}
	if each := time.Since(at) / n; each > 15*time.Millisecond {
		t.Errorf("a write takes %s", each)
	}
}

// The data path costs no memory per command.
func TestNoAllocationPerCommand(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct {
		name string
		op   byte
		n    int
		lent bool
		crc  bool
	}{
		{"READ 4 KiB", 0x28, 4096, false, false}, {"READ 256 KiB", 0x28, 256 << 10, false, false}, {"READ 1 MiB", 0x28, 1 << 20, false, false},
		{"READ 256 KiB from the file", 0x28, 256 << 10, true, false}, {"READ 1 MiB from the file", 0x28, 1 << 20, true, false},
		{"READ 4 KiB with digests", 0x28, 4096, false, true}, {"READ 256 KiB with digests", 0x28, 256 << 10, false, true}, {"READ 1 MiB with digests", 0x28, 1 << 20, false, true},
		{"WRITE 4 KiB", 0x2a, 4096, false, false}, {"WRITE 256 KiB", 0x2a, 256 << 10, false, false}, {"WRITE 256 KiB with digests", 0x2a, 256 << 10, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			step := loop(t, c.op, c.n, c.lent, c.crc)
			for range 20 {
				step()
			}
			if n := testing.AllocsPerRun(200, step); n >= 1 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// loop returns a function that runs one command with an initiator that
// allocates nothing itself. A session with digests has those of the data.
func loop(t testing.TB, op byte, n int, lent, crc bool) func() {
	p := params()
	p.DataDigest = crc
	r := newRig(t, p).ready(t)
	if lent {
		r.volumes[0].lendable(t)
	}
	out := op == 0x2a
	q := r.command(op, n/512, nil)
	var data []byte
	if out {
		data = make([]byte, n)
	}
	wire := r.Bytes(q, data)
	answer := 48
	if !out {
		head := 48
		if crc {
			head += pdu.DigestLength
		}
		answer = n + head*((n+(256<<10)-1)/(256<<10))
	}
	in := make([]byte, answer)
	sn := q.CmdSN
	return func() {
		binary.BigEndian.PutUint32(wire[24:], uint32(sn))
		sn++
		if _, err := r.Conn.Write(wire); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r.Conn, in); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkCommand(b *testing.B) {
	for _, c := range []struct {
		name string
		op   byte
		n    int
		lent bool
		crc  bool
	}{
		{"read-4k", 0x28, 4096, false, false}, {"read-64k", 0x28, 64 << 10, false, false},
		{"read-256k", 0x28, 256 << 10, false, false}, {"read-256k-from-the-file", 0x28, 256 << 10, true, false}, {"read-256k-with-digests", 0x28, 256 << 10, false, true},
		{"read-1m", 0x28, 1 << 20, false, false}, {"read-1m-from-the-file", 0x28, 1 << 20, true, false},
		{"write-4k", 0x2a, 4096, false, false}, {"write-64k", 0x2a, 64 << 10, false, false}, {"write-256k", 0x2a, 256 << 10, false, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			step := loop(b, c.op, c.n, c.lent, c.crc)
			b.SetBytes(int64(c.n))
			b.ReportAllocs()
			for b.Loop() {
				step()
			}
		})
	}
}

// tape is a connection that plays what was recorded and takes what is said.
type tape struct {
	net.Conn
	in *bytes.Reader
}

func (c *tape) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *tape) Write(p []byte) (int, error) { return len(p), nil }
func (c *tape) Close() error                { return nil }

// Whatever an initiator sends, the session ends with a reason, its map is
// released once, and nothing of it stays behind.
func FuzzSession(f *testing.F) {
	var seed []byte
	i := Attach(nil, 1, 1, false, false)
	for _, p := range []pdu.PDU{
		&pdu.SCSICommand{Final: true, Read: true, InitiatorTaskTag: 1, ExpectedDataTransferLength: 512, CmdSN: 1, CDB: [16]byte{0x28, 8: 1}},
		&pdu.SCSICommand{Write: true, InitiatorTaskTag: 2, ExpectedDataTransferLength: 4096, CmdSN: 2, CDB: [16]byte{0x2a, 8: 8}},
		&pdu.DataOut{Final: true, InitiatorTaskTag: 2, TargetTransferTag: pdu.ReservedTag},
		&pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: 3, ReferencedTaskTag: 2, CmdSN: 3},
		&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 4, CmdSN: 3},
		&pdu.TextRequest{Final: true, InitiatorTaskTag: 5, TargetTransferTag: pdu.ReservedTag, CmdSN: 3},
		&pdu.LogoutRequest{InitiatorTaskTag: 6, CmdSN: 4},
	} {
		b := i.Bytes(p, []byte("a=b\x00"))
		f.Add(b, false)
		seed = append(seed, b...)
	}
	f.Add(seed, false)
	f.Add(seed, true)
	f.Fuzz(func(t *testing.T, stream []byte, digests bool) {
		p := params()
		p.DataDigest = digests
		r := rigOn(t, p, &tape{in: bytes.NewReader(stream)}, &tape{in: bytes.NewReader(nil)}, 64<<10)
		if r.reason(t) == "" {
			t.Error("it ended without a reason")
		}
	})
}

var _ session.Observer = (*witness)(nil)
