package session_test

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/session"
)

// RFC 7143 §11.8: each R2T asks for the next part of what is missing, one at a
// time, and uses up no StatSN.
func TestR2TsAskForWhatIsMissing(t *testing.T) {
	p := params()
	p.FirstBurstLength, p.MaxBurstLength = 1024, 4096
	for _, c := range []struct {
		name               string
		immediate, unasked int
		offsets            []int
	}{
		{"all of it", 0, 0, []int{0, 4096, 8192}},
		{"what did not come with the command", 512, 0, []int{512, 4608, 8704}},
		{"what did not come unasked", 0, 1024, []int{1024, 5120, 9216}},
		{"what came neither with the command nor unasked", 512, 512, []int{1024, 5120, 9216}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, p).ready(t)
			data := make([]byte, 20*512)
			for i := range data {
				data[i] = byte(i>>9 + i)
			}
			q := r.command(0x2a, 20, func(q *pdu.SCSICommand) { q.Final, q.LUN = c.unasked == 0, LUN(1) })
			r.send(t, q, data[:c.immediate])
			if c.unasked > 0 {
				r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, BufferOffset: uint32(c.immediate)}, data[c.immediate:c.immediate+c.unasked])
			}
			seen := map[pdu.TaskTag]bool{}
			for n, off := range c.offsets {
				a, _ := Expect[*pdu.R2T](t, r.Initiator)
				end := min(off+4096, len(data))
				if int(a.BufferOffset) != off || int(a.DesiredDataTransferLength) != end-off || int(a.R2TSN) != n || a.InitiatorTaskTag != q.InitiatorTaskTag || a.LUN != q.LUN || a.TargetTransferTag == pdu.ReservedTag || seen[a.TargetTransferTag] {
					t.Fatalf("R2T %d: %+v", n, a)
				}
				seen[a.TargetTransferTag] = true
				r.quiet(t) // MaxOutstandingR2T is 1
				// In pieces of no round size, the last one empty but for its F.
				for sn := pdu.Serial(0); off <= end; sn++ {
					k := min(1500, end-off)
					d := &pdu.DataOut{Final: k == 0, LUN: q.LUN, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag, DataSN: sn, BufferOffset: uint32(off)}
					r.send(t, d, data[off:off+k])
					if off += k; k == 0 {
						break
					}
				}
			}
			r.status(t, q.InitiatorTaskTag, "")
			if !bytes.Equal(r.volumes[1].b[:len(data)], data) {
				t.Error("other bytes were written")
			}
		})
	}
}

// §4.2.2: CmdSN and StatSN wrap.
func TestNumbersWrap(t *testing.T) {
	for _, at := range []pdu.Serial{0xfffffff0, 0xffffffff, 0x7ffffff0, 0} {
		r := newRigAt(t, params(), at).ready(t)
		for range 40 {
			r.Must(t, Write10(0, 3, make([]byte, 512)))
			r.Must(t, Read10(0, 3, 1))
		}
		r.send(t, &pdu.SCSICommand{Final: true, InitiatorTaskTag: r.Tag(), CmdSN: at}, nil) // long past
		r.quiet(t)
	}
	// A window that reaches over the end shuts and opens as any other.
	r := newRigAt(t, params(), 0xffffffe0).ready(t)
	r.volumes[0].syncs.shut()
	n := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1
	for range n {
		if _, err := r.Start(Sync10(0)); err != nil {
			t.Fatal(err)
		}
	}
	r.quiet(t)
	if r.SN.MaxCmdSN != r.SN.ExpCmdSN-1 || r.CmdSN != r.SN.ExpCmdSN {
		t.Fatalf("next %d, %+v", r.CmdSN, r.SN)
	}
	r.volumes[0].syncs.open()
	for range n {
		Expect[*pdu.SCSIResponse](t, r.Initiator)
	}
	r.Must(t, Ready(0))
}

// §4.2.2.1: a command that came is not run again, and one that is immediate has
// no place in the order.
func TestCommandsAreRunOnceAndInOrder(t *testing.T) {
	r := newRig(t, params()).ready(t)
	block := bytes.Repeat([]byte{1}, 512)
	q := r.command(0x2a, 1, nil)
	r.send(t, q, block)
	r.status(t, q.InitiatorTaskTag, "")
	for range 3 {
		r.send(t, q, bytes.Repeat([]byte{2}, 512)) // the same again, with other data
	}
	q.Final = false // and with more to come
	r.send(t, q, nil)
	r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, bytes.Repeat([]byte{2}, 512))
	r.quiet(t)
	if !bytes.Equal(r.volumes[0].b[:512], block) || r.volumes[0].wrote.Load() != 1 {
		t.Errorf("%d writes", r.volumes[0].wrote.Load())
	}
	// Whatever CmdSN an immediate command carries, it is run and counts nothing.
	for _, sn := range []pdu.Serial{r.CmdSN, r.CmdSN + 1, r.CmdSN - 1} {
		before := r.SN.ExpCmdSN
		now := &pdu.SCSICommand{Immediate: true, Final: true, Attr: pdu.AttrSimple, InitiatorTaskTag: r.Tag(), CmdSN: sn}
		r.send(t, now, nil)
		r.status(t, now.InitiatorTaskTag, "")
		if r.SN.ExpCmdSN != before {
			t.Errorf("ExpCmdSN went from %d to %d", before, r.SN.ExpCmdSN)
		}
	}
	r.Must(t, Ready(0))
}

// §11.14: a logout ends what is under way, without a word about it, and is answered
// when no write can land any more: another session may write the same blocks then.
func TestLogoutEndsTasks(t *testing.T) {
	for _, reason := range []pdu.LogoutReason{pdu.LogoutCloseSession, pdu.LogoutCloseConnection} {
		r := newRig(t, params()).ready(t)
		r.volumes[1].puts.shut()
		r.send(t, r.command(0x2a, 8, nil), nil) // waits for its data
		Expect[*pdu.R2T](t, r.Initiator)
		busy := r.command(0x2a, 1, func(q *pdu.SCSICommand) { q.CDB[1], q.LUN = 0x08, LUN(1) }) // FUA: on a goroutine of its own
		r.send(t, busy, make([]byte, 512))
		eventually(t, func() bool { return r.volumes[1].puts.waiting.Load() == 1 }, "the write begins")
		tag := r.Tag()
		r.send(t, &pdu.LogoutRequest{Reason: reason, InitiatorTaskTag: tag, CID: 1, CmdSN: r.CmdSN}, nil)
		r.Timeout = 50 * time.Millisecond
		if p, _, err := r.Recv(); err == nil {
			t.Errorf("%s while the write is being done", p.Opcode())
		}
		r.Timeout = 5 * time.Second
		r.volumes[1].syncs.shut()
		r.volumes[1].puts.open() // its flush, which hangs, harms nobody
		if p, _ := Expect[*pdu.LogoutResponse](t, r.Initiator); p.Response != pdu.LogoutSuccess || p.InitiatorTaskTag != tag || p.SN.ExpCmdSN != r.CmdSN+1 {
			t.Errorf("%+v", p)
		}
		if p, _, err := r.Recv(); err == nil {
			t.Errorf("%s after the logout", p.Opcode())
		}
		select {
		case <-r.session.Done():
			t.Error("the session ended before its write did")
		default:
		}
		r.volumes[1].syncs.open()
		if s := r.reason(t); s != "the initiator logged out" {
			t.Errorf("the reason is %q", s)
		}
	}
}

// §11.9: a session that is asked to end while its login is being answered is
// asked when that is done: the Login Response is the first thing that it reads.
func TestLogoutIsAskedForAfterTheLogin(t *testing.T) {
	server, client := loopback(t)
	defer client.Close()
	i := Attach(client, 1, 40, false, false)
	res := login.Result{Initiator: "iqn.2026-11.test:a", Params: params(), ExpCmdSN: 1, StatSN: 40, CID: 1}
	shared := session.NewShared()
	s := session.New(session.NewConn(server, shared), nil, session.Config{Result: res, Shared: shared, Observer: &witness{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	s.Ping() // keeps to the same rule
	s.AskToLogOut(2 * time.Second)
	i.Timeout = 20 * time.Millisecond
	if p, _, err := i.Recv(); err == nil {
		t.Fatalf("before the login was answered: %+v", p)
	}
	i.Timeout = 5 * time.Second
	go func() {
		s.Serve(res)
		s.Finish()
	}()
	if p, _ := Expect[*pdu.Async](t, i); p.Event != pdu.AsyncRequestLogout || p.Parameter3 != 2 {
		t.Errorf("%+v", p)
	}
	s.Close("test")
	<-s.Done()
}

// A session that waits to answer its logout can be ended like any other, and does
// not outlive its connection's use.
func TestALogoutThatWaitsCanBeCutShort(t *testing.T) {
	r := newRig(t, params()).ready(t)
	r.hung(t, 0x2a)
	r.send(t, &pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: r.Tag(), CID: 1, CmdSN: r.CmdSN}, nil)
	eventually(t, func() bool { r.witness.mu.Lock(); defer r.witness.mu.Unlock(); return r.witness.logouts == 1 }, "the logout is told of")
	r.session.Close("test")
	r.Closed(t)
	select {
	case <-r.session.Harmless():
		t.Error("it is called harmless while its write is being done")
	case <-time.After(20 * time.Millisecond):
	}
	r.volumes[0].puts.open()
	if s := r.reason(t); s != "test" {
		t.Errorf("the reason is %q", s)
	}
}
