package session_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
)

// gap sends a command that is rejected, which leaves a gap of its CmdSN.
func (r *rig) gap(t testing.TB) *pdu.SCSICommand {
	t.Helper()
	q := r.command(0x28, 1, func(q *pdu.SCSICommand) { q.Write = true })
	r.send(t, q, nil)
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.SN.ExpCmdSN != q.CmdSN {
		t.Fatalf("ExpCmdSN is %d, the rejected command had %d", p.SN.ExpCmdSN, q.CmdSN)
	}
	return q
}

// fill fills the gap that q has left, and takes the answer.
func (r *rig) fill(t testing.TB, q *pdu.SCSICommand) {
	t.Helper()
	ready := &pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, LUN: LUN(1), InitiatorTaskTag: r.Tag(), CmdSN: q.CmdSN}
	r.send(t, ready, nil)
	r.status(t, ready.InitiatorTaskTag, "")
}

// abort aborts q, whether it was taken or not.
func (r *rig) abort(t testing.TB, q *pdu.SCSICommand) {
	t.Helper()
	r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: r.Tag(), ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
	if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete {
		t.Fatalf("%+v", p)
	}
}

// RFC 7143 §4.2.2.1: what an initiator had sent behind a command that is rejected is
// in the window, and is done in its order when the gap is filled: with all that came
// for it, whatever it is.
func TestWhatFollowsARejectedCommand(t *testing.T) {
	digests(t, either, either, func(t *testing.T, p login.Params) {
		p.FirstBurstLength = 8192
		for how, fill := range map[string]func(r *rig, t testing.TB, q *pdu.SCSICommand){"filled": (*rig).fill, "aborted": (*rig).abort} {
			t.Run(how, func(t *testing.T) {
				r := newRig(t, p).ready(t)
				data := bytes.Repeat([]byte("behind"), 4096)[:16<<10]
				gap := r.gap(t)
				w := r.command(0x2a, 16, func(q *pdu.SCSICommand) { q.Final = false })
				r.send(t, w, data[:1000])
				ping := &pdu.NOPOut{InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
				r.CmdSN++
				r.send(t, ping, []byte("hello"))
				// Unasked data may come after the next command.
				for off, sn := 1000, 0; off < 8192; off, sn = off+1800, sn+1 {
					end := min(off+1800, 8192)
					r.send(t, &pdu.DataOut{Final: end == 8192, InitiatorTaskTag: w.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, DataSN: pdu.Serial(sn), BufferOffset: uint32(off)}, data[off:end])
				}
				text := &pdu.TextRequest{Final: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
				r.CmdSN++
				r.send(t, text, pdu.AppendText(nil, "X-a", "b"))
				read := r.command(0x28, 16, nil)
				r.send(t, read, nil)
				r.quiet(t)
				if r.volumes[0].wrote.Load() != 0 {
					t.Fatal("it was written before its turn")
				}
				fill(r, t, gap)
				r.status(t, w.InitiatorTaskTag, "")
				if p, b := Expect[*pdu.NOPIn](t, r.Initiator); p.InitiatorTaskTag != ping.InitiatorTaskTag || string(b) != "hello" {
					t.Errorf("%+v, %q", p, b)
				}
				if p, b := Expect[*pdu.TextResponse](t, r.Initiator); p.InitiatorTaskTag != text.InitiatorTaskTag || !strings.Contains(string(b), "X-a=NotUnderstood") {
					t.Errorf("%+v, %q", p, b)
				}
				if p, b := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != read.InitiatorTaskTag || !bytes.Equal(b, data[:8192]) {
					t.Errorf("%+v with %d bytes", p, len(b))
				}
				r.Must(t, Ready(0))
			})
		}
	})
}

// One that is rejected when its turn comes leaves a gap like any other, and data that
// came damaged is damaged then.
func TestEarlyCommandsFailInTheirTurn(t *testing.T) {
	p := params()
	p.DataDigest = true
	r := newRig(t, p).ready(t)
	gap := r.gap(t)
	second := r.command(0x28, 1, func(q *pdu.SCSICommand) { q.Write = true })
	r.send(t, second, nil)
	bad := r.command(0x2a, 1, nil)
	b := r.Bytes(bad, make([]byte, 512))
	b[len(b)-1] ^= 1
	if _, err := r.Conn.Write(b); err != nil {
		t.Fatal(err)
	}
	last := r.command(0, 0, func(q *pdu.SCSICommand) { q.Read = false })
	r.send(t, last, nil)
	r.quiet(t)
	r.fill(t, gap)
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonNotSupported || p.SN.ExpCmdSN != second.CmdSN {
		t.Errorf("%+v", p)
	}
	r.quiet(t)
	r.fill(t, second)
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonDataDigestError {
		t.Errorf("%+v", p)
	}
	r.status(t, bad.InitiatorTaskTag, "0B/47/05")
	r.status(t, last.InitiatorTaskTag, "")
}

// Also a request that is no SCSI command may be lost by its damage alone.
func TestWhatFollowsADamagedPing(t *testing.T) {
	p := params()
	p.DataDigest = true
	r := newRig(t, p).ready(t)
	ping := &pdu.NOPOut{InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
	r.CmdSN++
	read := r.command(0x28, 1, nil)
	b := r.Bytes(ping, []byte("ping"))
	b[len(b)-1] ^= 1
	if _, err := r.Conn.Write(append(b, r.Bytes(read, nil)...)); err != nil {
		t.Fatal(err)
	}
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonDataDigestError {
		t.Errorf("%+v", p)
	}
	r.send(t, ping, []byte("ping"))
	Expect[*pdu.NOPIn](t, r.Initiator)
	if p, _ := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != read.InitiatorTaskTag {
		t.Errorf("%+v", p)
	}
}

// §11.6.1: an abort of what has not come, or waits for its turn, counts it as
// received, wherever in the window it is.
func TestAbortOfEarlyCommands(t *testing.T) {
	r := newRig(t, params()).ready(t)
	gap := r.gap(t)
	one, never, other := r.command(0x2a, 1, nil), r.command(0x2a, 1, nil), r.command(0x28, 1, nil)
	r.send(t, one, make([]byte, 512))
	r.send(t, other, nil)
	r.abort(t, one)
	r.abort(t, never)
	r.abort(t, never)
	r.send(t, never, make([]byte, 512)) // late
	r.send(t, one, make([]byte, 512))   // again
	r.quiet(t)
	r.fill(t, gap)
	if p, _ := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != other.InitiatorTaskTag || p.SN.ExpCmdSN != r.CmdSN {
		t.Errorf("%+v", p)
	}
	r.Must(t, Ready(0))
	if n := r.volumes[0].wrote.Load(); n != 0 {
		t.Errorf("%d writes", n)
	}
}

// A reset ends what was sent before it, though it waits for its turn, and nothing
// else.
func TestResetsEndEarlyCommands(t *testing.T) {
	for f, all := range map[pdu.TaskFunction]bool{pdu.FuncAbortTaskSet: false, pdu.FuncClearTaskSet: false, pdu.FuncLogicalUnitReset: false, pdu.FuncTargetWarmReset: true} {
		t.Run(f.String(), func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			gap := r.gap(t)
			for range 3 {
				r.send(t, r.command(0x2a, 1, nil), make([]byte, 512))
			}
			other := r.command(0x2a, 1, func(q *pdu.SCSICommand) { q.LUN = LUN(1) })
			r.send(t, other, make([]byte, 512))
			if got := r.manage(t, f, 0, pdu.ReservedTag); got != pdu.TaskComplete {
				t.Errorf("response %d", got)
			}
			after := r.command(0x12, 0, func(q *pdu.SCSICommand) { q.Read, q.ExpectedDataTransferLength, q.CDB[4], q.CDB[8] = true, 5, 5, 0 })
			r.send(t, after, nil)
			r.quiet(t)
			r.send(t, &pdu.SCSICommand{Final: true, Read: true, Attr: pdu.AttrSimple, InitiatorTaskTag: r.Tag(), CmdSN: gap.CmdSN, ExpectedDataTransferLength: 5, CDB: [16]byte{0x12, 4: 5}}, nil)
			Expect[*pdu.DataIn](t, r.Initiator)
			if !all {
				r.status(t, other.InitiatorTaskTag, "")
			}
			if p, _ := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != after.InitiatorTaskTag || p.SN.ExpCmdSN != r.CmdSN {
				t.Errorf("%+v", p)
			}
			if n := r.volumes[0].wrote.Load(); n != 0 {
				t.Errorf("%d writes", n)
			}
		})
	}
}

// As much is held as the window allows; beyond it is nothing.
func TestEarlyCommandsFillTheWindow(t *testing.T) {
	r := newRig(t, params()).ready(t)
	gap := r.gap(t)
	n := int(gap.CmdSN.Distance(r.SN.MaxCmdSN))
	var tags []pdu.TaskTag
	for range n + 1 {
		q := r.command(0, 0, func(q *pdu.SCSICommand) { q.Read = false })
		tags = append(tags, q.InitiatorTaskTag)
		r.send(t, q, nil)
	}
	r.quiet(t)
	r.fill(t, gap)
	for _, tag := range tags[:n] {
		r.status(t, tag, "")
	}
	r.quiet(t) // the last one came too early
	r.CmdSN--
	r.Must(t, Ready(0))
}

// What is held counts as the session's memory: when there is none, the session ends
// rather than lose a command, and one that is left lying is in nobody's way.
func TestEarlyCommandsAreCounted(t *testing.T) {
	c := withMemory(t, 4*mib, 4*mib, 100*time.Millisecond)
	r := c.join(t, "a", mib)
	r.gap(t)
	block := make([]byte, 256<<10)
	var why string
	for range 60 {
		_, _ = r.Conn.Write(r.Bytes(r.command(0x2a, 512, nil), block))
		select {
		case why = <-r.ended:
		default:
			continue
		}
		break
	}
	if why == "" {
		why = r.reason(t)
	}
	if !strings.Contains(why, "no memory") {
		t.Errorf("the session ended because %q", why)
	}
	if n := c.Free(); n != 4*mib {
		t.Errorf("%d bytes of the pool are left", n)
	}

	lazy := c.join(t, "b", mib)
	lazy.gap(t)
	for range 8 {
		lazy.send(t, lazy.command(0x2a, 512, nil), block)
	}
	eventually(t, func() bool { return c.Free() < 3*mib }, "all is taken")
	busy := c.join(t, "c", 4*mib)
	q := busy.command(0x2a, 4*mib/512, wholeWrite)
	busy.send(t, q, nil)
	if a, _ := Expect[*pdu.R2T](t, busy.Initiator); a.InitiatorTaskTag != q.InitiatorTaskTag {
		t.Errorf("%+v", a)
	}
	if s := lazy.reason(t); !strings.Contains(s, "left data lying") {
		t.Errorf("the reason is %q", s)
	}
}
