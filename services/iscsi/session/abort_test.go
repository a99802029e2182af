package session_test

import (
	"bytes"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// manage asks for a task management function and returns what came of it, which
// must be the next thing that comes.
func (r *rig) manage(t testing.TB, f pdu.TaskFunction, lun byte, referenced pdu.TaskTag) pdu.TaskResult {
	t.Helper()
	r.askFor(t, f, lun, referenced)
	p, _ := Expect[*pdu.TaskResponse](t, r.Initiator)
	return p.Response
}

// askFor asks for a task management function.
func (r *rig) askFor(t testing.TB, f pdu.TaskFunction, lun byte, referenced pdu.TaskTag) {
	t.Helper()
	r.send(t, &pdu.TaskRequest{Immediate: true, Function: f, LUN: LUN(lun), InitiatorTaskTag: r.Tag(), ReferencedTaskTag: referenced, RefCmdSN: r.CmdSN - 1, CmdSN: r.CmdSN}, nil)
}

// hung starts a command that its volume does not finish, and says which.
func (r *rig) hung(t testing.TB, op byte) *pdu.SCSICommand {
	t.Helper()
	v := r.volumes[0]
	brake := &v.gets
	switch op {
	case 0x35:
		brake = &v.syncs
	case 0x2a:
		brake = &v.puts
	}
	v.cold.Store(true)
	brake.shut()
	q := r.command(op, 1, func(q *pdu.SCSICommand) {
		switch op {
		case 0x35:
			q.Read, q.ExpectedDataTransferLength = false, 0
		case 0x2a:
			q.CDB[1] = 0x08 // FUA: on a goroutine of its own
		}
	})
	var data []byte
	if q.Write {
		data = bytes.Repeat([]byte{0xaa}, 512)
	}
	r.send(t, q, data)
	eventually(t, func() bool { return brake.waiting.Load() == 1 }, "the volume has the command")
	return q
}

// SAM-5 §7, RFC 7143 §11.5: a task whose abort was answered does not exist, even
// though its disk has not: its tag may be used again, and is, by an initiator that
// takes its tags in turn.
func TestTheTagOfATaskThatWasAborted(t *testing.T) {
	for what, op := range map[string]byte{"a READ": 0x28, "a SYNCHRONIZE CACHE": 0x35} {
		for _, f := range []pdu.TaskFunction{pdu.FuncAbortTask, pdu.FuncAbortTaskSet, pdu.FuncClearTaskSet, pdu.FuncLogicalUnitReset, pdu.FuncTargetWarmReset} {
			t.Run(what+", "+f.String(), func(t *testing.T) {
				r := newRig(t, params()).ready(t)
				q := r.hung(t, op)
				if got := r.manage(t, f, 0, q.InitiatorTaskTag); got != pdu.TaskComplete {
					t.Fatalf("response %d", got)
				}
				for range 2 {
					again := r.command(0, 0, func(p *pdu.SCSICommand) { p.Read, p.InitiatorTaskTag = false, q.InitiatorTaskTag })
					r.send(t, again, nil)
					p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
					if p.InitiatorTaskTag != q.InitiatorTaskTag {
						t.Fatalf("%+v", p)
					}
				}
				// What comes back late is nobody's answer, and takes no new
				// task of its tag along.
				w := r.command(0x2a, 1, func(p *pdu.SCSICommand) { p.InitiatorTaskTag = q.InitiatorTaskTag })
				r.send(t, w, nil)
				a, _ := Expect[*pdu.R2T](t, r.Initiator)
				r.volumes[0].gets.open()
				r.volumes[0].syncs.open()
				time.Sleep(20 * time.Millisecond)
				r.quiet(t)
				r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: w.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, make([]byte, 512))
				r.status(t, w.InitiatorTaskTag, "")
			})
		}
	}
}

// What another initiator's reset has ended is aborted by its own initiator too,
// which knows nothing of that: it is told that the task is gone, and may use the
// tag.
func TestATaskThatSomebodyElseAborted(t *testing.T) {
	r := newRig(t, params()).ready(t)
	q := r.hung(t, 0x28)
	if n := r.session.AbortUnit(0, func() {}); n != 1 {
		t.Fatalf("%d tasks were aborted", n)
	}
	if n := r.session.AbortUnit(0, func() {}); n != 0 {
		t.Errorf("%d tasks were aborted twice", n)
	}
	if got := r.manage(t, pdu.FuncAbortTask, 0, q.InitiatorTaskTag); got != pdu.TaskComplete {
		t.Errorf("response %d", got)
	}
	again := r.command(0, 0, func(p *pdu.SCSICommand) { p.Read, p.InitiatorTaskTag = false, q.InitiatorTaskTag })
	r.send(t, again, nil)
	r.status(t, q.InitiatorTaskTag, "")
}

// A write that was aborted and still runs is waited for by everybody who aborts
// it again.
func TestWhoAbortsAWriteAgainWaitsForItToo(t *testing.T) {
	r := newRig(t, params()).ready(t)
	q := r.hung(t, 0x2a)
	r.session.AbortUnit(0, func() {})
	for _, f := range []pdu.TaskFunction{pdu.FuncAbortTask, pdu.FuncAbortTaskSet, pdu.FuncLogicalUnitReset} {
		r.askFor(t, f, 0, q.InitiatorTaskTag)
		r.quiet(t)
	}
	r.volumes[0].puts.open()
	for range 3 {
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete {
			t.Errorf("%+v", p)
		}
	}
}

// SAM-5 §8.6: an ORDERED command waits for the tasks before it, and an aborted one
// is none; but nothing that it writes may be overtaken by what still writes.
func TestAnOrderedCommandAndTasksThatWereAborted(t *testing.T) {
	t.Run("a SYNCHRONIZE CACHE", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := r.hung(t, 0x35)
		ordered := r.command(0, 0, func(p *pdu.SCSICommand) { p.Read, p.Attr = false, pdu.AttrOrdered })
		r.send(t, ordered, nil)
		r.quiet(t)
		r.askFor(t, pdu.FuncAbortTask, 0, q.InitiatorTaskTag)
		answered, done := false, false
		for range 2 {
			p, _, err := r.Recv()
			if err != nil {
				t.Fatal(err)
			}
			switch p := p.(type) {
			case *pdu.TaskResponse:
				answered = p.Response == pdu.TaskComplete
			case *pdu.SCSIResponse:
				done = p.InitiatorTaskTag == ordered.InitiatorTaskTag && p.Status == 0
			}
		}
		if !answered || !done {
			t.Errorf("the abort was answered: %v; the ORDERED command: %v", answered, done)
		}
	})
	t.Run("a WRITE", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		r.hung(t, 0x2a)
		r.session.AbortUnit(0, func() {})
		ordered := r.command(0x28, 1, func(p *pdu.SCSICommand) { p.Attr = pdu.AttrOrdered })
		r.send(t, ordered, nil)
		r.quiet(t)
		r.volumes[0].puts.open()
		if p, data := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != ordered.InitiatorTaskTag || data[0] != 0xaa {
			t.Errorf("%+v, it read %02X", p, data[0])
		}
	})
}

// SAM-5 §7.1: what reports a command as ended must not be overtaken by its write,
// and that is all: one that has only to be flushed can be aborted at once, however
// long its disk takes.
func TestAbortOfWhatIsOnlyFlushed(t *testing.T) {
	cacheOff := []byte{4: 0x08, 5: 0x12, 23: 0}
	unmap := append([]byte{0, 22, 0, 16, 0, 0, 0, 0}, make([]byte, 16)...)
	unmap[19] = 1
	for name, c := range map[string]struct {
		cdb   []byte
		write []byte
		cache bool // is off
	}{
		"a WRITE with FUA":           {[]byte{0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512), false},
		"a WRITE without a cache":    {[]byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512), true},
		"WRITE AND VERIFY":           {[]byte{0x2e, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512), false},
		"COMPARE AND WRITE with FUA": {[]byte{0x89, 0x08, 13: 1, 15: 0}, make([]byte, 1024), false},
		"WRITE SAME without a cache": {[]byte{0x41, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512), true},
		"UNMAP without a cache":      {[]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, unmap, true},
		"START STOP UNIT, to stop":   {[]byte{0x1b, 0, 0, 0, 0, 0}, nil, false},
		"MODE SELECT, for no cache":  {[]byte{0x15, 0x10, 0, 0, 24, 0}, cacheOff, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			if c.cache {
				r.Must(t, Command{CDB: []byte{0x15, 0x10, 0, 0, 24, 0}, Write: cacheOff, Immediate: 24})
			}
			v := r.volumes[0]
			v.syncs.shut()
			tag, err := r.Start(Command{CDB: c.cdb, Write: c.write, Immediate: len(c.write)})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return v.syncs.waiting.Load() == 1 }, "it is flushed")
			at := time.Now()
			r.quiet(t)
			if got := r.manage(t, pdu.FuncAbortTask, 0, tag); got != pdu.TaskComplete {
				t.Errorf("response %d", got)
			}
			r.Must(t, Read10(1, 0, 1))
			if got := r.manage(t, pdu.FuncLogicalUnitReset, 0, pdu.ReservedTag); got != pdu.TaskComplete {
				t.Errorf("the reset: response %d", got)
			}
			if d := time.Since(at); d > 100*time.Millisecond {
				t.Errorf("it took %s", d)
			}
			v.syncs.open()
			r.quiet(t)
		})
	}
	t.Run("while another initiator waits", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q, v := r.hung(t, 0x2a), r.volumes[0]
		v.syncs.shut()
		rest := make(chan struct{})
		r.session.AbortUnit(0, func() { close(rest) })
		ordered := r.command(0x28, 1, func(p *pdu.SCSICommand) { p.Attr = pdu.AttrOrdered })
		r.send(t, ordered, nil)
		r.quiet(t)
		select {
		case <-rest:
			t.Fatal("the write has not been done")
		default:
		}
		v.puts.open()
		select {
		case <-rest:
		case <-time.After(time.Second):
			t.Error("it waits for the flush")
		}
		if p, data := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != ordered.InitiatorTaskTag || data[0] != 0xaa {
			t.Errorf("task %d read %02X", p.InitiatorTaskTag, data[0])
		}
		if v.syncs.waiting.Load() != 1 {
			t.Error("it is not flushed")
		}
		if r.manage(t, pdu.FuncAbortTask, 0, q.InitiatorTaskTag) != pdu.TaskComplete {
			t.Error("the abort by its own initiator")
		}
	})
}

// The places of tasks that were aborted are free, though a disk still has them: a
// window full of them would shut the session out from its other disks.
func TestTheWindowOpensWithAnAbort(t *testing.T) {
	r := newRig(t, params()).ready(t)
	for _, v := range r.volumes {
		v.syncs.shut()
	}
	n := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1
	for k := range n {
		if _, err := r.Start(Sync10(byte(k % 2))); err != nil {
			t.Fatal(err)
		}
	}
	for range 16 {
		r.send(t, &pdu.SCSICommand{Immediate: true, Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN, CDB: [16]byte{0x35}}, nil)
	}
	r.quiet(t)
	if r.SN.MaxCmdSN != r.SN.ExpCmdSN-1 {
		t.Fatalf("%+v: the window is not shut", r.SN)
	}
	for lun := range byte(2) {
		if got := r.manage(t, pdu.FuncAbortTaskSet, lun, pdu.ReservedTag); got != pdu.TaskComplete {
			t.Errorf("response %d", got)
		}
	}
	if got := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1; got != n {
		t.Errorf("the window opened to %d, was %d", got, n)
	}
	now := &pdu.SCSICommand{Immediate: true, Final: true, InitiatorTaskTag: r.Tag(), CmdSN: r.CmdSN}
	r.send(t, now, nil)
	r.status(t, now.InitiatorTaskTag, "")
	r.Must(t, Read10(0, 0, 1))
	// A disk has no more of them than of others.
	flush := r.command(0x35, 0, func(q *pdu.SCSICommand) { q.Read = false })
	r.send(t, flush, nil)
	r.quiet(t)
	for start := time.Now(); r.volumes[0].syncs.waiting.Load() < 32 && time.Since(start) < 5*time.Second; time.Sleep(time.Millisecond) {
	}
	if n := r.volumes[0].syncs.waiting.Load(); n != 32 {
		t.Errorf("%d flushes are under way", n)
	}
	for _, v := range r.volumes {
		v.syncs.open()
	}
	r.status(t, flush.InitiatorTaskTag, "")
	r.quiet(t)
	if got := int(r.CmdSN.Distance(r.SN.MaxCmdSN)) + 1; got != n {
		t.Errorf("the window is %d in the end, was %d", got, n)
	}
}
