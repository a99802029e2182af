package session_test

import (
	"bytes"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// A small WRITE that waits for its disk keeps nothing else of its session waiting:
// not what came with it in one segment, nor what comes later, more such WRITEs
// among it.
func TestAWriteThatWaitsForItsDiskStallsNothing(t *testing.T) {
	for name, later := range map[string]bool{"with its data": false, "with data that came later": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			r.Timeout = time.Second
			v := r.volumes[0]
			v.puts.shut()
			data := pattern(4096)
			q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = !later })
			wire := r.Bytes(q, data)
			if later {
				wire = append(r.Bytes(q, nil), r.Bytes(&pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, data)...)
			}
			ping := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: r.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: r.CmdSN}
			at := time.Now()
			if _, err := r.Conn.Write(append(wire, r.Bytes(ping, nil)...)); err != nil {
				t.Fatal(err)
			}
			if p, _ := Expect[*pdu.NOPIn](t, r.Initiator); p.InitiatorTaskTag != ping.InitiatorTaskTag {
				t.Fatalf("got %+v", p)
			}
			if d := time.Since(at); d > 500*time.Millisecond { // 40 ms, on a machine that has nothing else to do
				t.Errorf("a ping was answered after %s", d)
			}
			// Of those behind it none takes a look of the watch.
			at = time.Now()
			var more []*pdu.SCSICommand
			for k := range 20 {
				w := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.CDB[5] = byte(k+1) * 8 })
				r.send(t, w, bytes.Repeat([]byte{byte(k + 1)}, 4096))
				more = append(more, w)
			}
			r.quiet(t)
			if d := time.Since(at); d > 400*time.Millisecond {
				t.Errorf("20 more WRITEs were taken in %s", d)
			}
			if got := r.Must(t, Read10(1, 0, 8)).Data; len(got) != 4096 {
				t.Errorf("another disk gave %d bytes", len(got))
			}
			r.Must(t, Write10(1, 0, data))
			v.puts.open()
			ended := map[pdu.TaskTag]bool{}
			for range 1 + len(more) {
				p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
				ended[p.InitiatorTaskTag] = p.Status == 0
			}
			for _, w := range append(more, q) {
				if !ended[w.InitiatorTaskTag] {
					t.Errorf("task %d did not end well", w.InitiatorTaskTag)
				}
			}
			got := r.Must(t, Read10(0, 0, 21*8)).Data
			if !bytes.Equal(got[:4096], data) {
				t.Error("the first WRITE has written something else")
			}
			for k := range more {
				if got[(k+1)*4096] != byte(k+1) || got[(k+2)*4096-1] != byte(k+1) {
					t.Errorf("WRITE %d has written something else", k+1)
				}
			}
			r.Must(t, Write10(0, 0, data)) // and it goes on as before
		})
	}
}

// A reader that was relieved leaves a session that ends like every other one: at
// once as far as its initiator sees, and over when the WRITE is.
func TestTheEndOfASessionWhoseReaderWasRelieved(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, r *rig){
		"by its initiator": func(t *testing.T, r *rig) { _ = r.Conn.Close() },
		"from outside":     func(_ *testing.T, r *rig) { r.session.Close("test") },
		"by a fault": func(t *testing.T, r *rig) {
			r.volumes[0].fault.Store(true)
			r.volumes[0].puts.open()
			r.Closed(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			v := r.volumes[0]
			v.puts.shut()
			r.send(t, r.command(0x2a, 8, nil), make([]byte, 4096))
			r.quiet(t) // somebody reads
			end(t, r)
			eventually(t, r.session.Ended, "the session sees its end")
			if v.puts.waiting.Load() > 0 {
				select {
				case <-r.session.Done():
					t.Error("the session was over before its WRITE")
				case <-time.After(10 * time.Millisecond):
				}
				v.puts.open()
			}
			r.reason(t)
		})
	}
}

// A task management function finds what has kept a reader, and waits for it: it may
// still write.
func TestAnAbortFindsWhatHasKeptAReader(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v := r.volumes[0]
	v.puts.shut()
	r.send(t, r.command(0x2a, 8, nil), make([]byte, 4096))
	r.quiet(t)
	reset := &pdu.TaskRequest{Immediate: true, Function: pdu.FuncLogicalUnitReset, InitiatorTaskTag: r.Tag(), ReferencedTaskTag: pdu.ReservedTag, CmdSN: r.CmdSN}
	r.send(t, reset, nil)
	r.quiet(t)
	v.puts.open()
	if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.Response != pdu.TaskComplete {
		t.Errorf("response %d", p.Response)
	}
	if v.wrote.Load() != 1 {
		t.Error("the reset was answered before the WRITE had ended")
	}
	r.quiet(t) // the WRITE has no answer
}

// hold starts a WRITE of 1 MiB whose first piece waits for the disk, and sends all of
// its data.
func hold(t *testing.T, r *rig, data []byte) *pdu.SCSICommand {
	t.Helper()
	q, a := r.asked(t)
	r.volumes[0].puts.shut()
	r.answerR2T(t, a, data, nil)
	eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the first piece is being written")
	return q
}

// A large WRITE whose piece waits for the disk keeps nothing else of its session
// waiting either: its other data is taken.
func TestAPieceThatWaitsForItsDiskStallsNothing(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v, data := r.volumes[0], pattern(mib)
	q := hold(t, r, data)
	at := time.Now()
	r.quiet(t)
	if d := time.Since(at); d > 500*time.Millisecond {
		t.Errorf("a ping was answered after %s", d)
	}
	other := bytes.Repeat([]byte{9}, mib)
	r.Must(t, Write10(1, 0, other)) // to another disk, as large
	r.Must(t, Read10(1, 0, 8))
	v.puts.open()
	r.status(t, q.InitiatorTaskTag, "")
	for n, want := range [][]byte{data, other} {
		if !bytes.Equal(r.volumes[n].b[:mib], want) {
			t.Errorf("LUN %d holds something else", n)
		}
	}
	wrote := v.wrote.Load()
	if wrote != 2 {
		t.Errorf("the first piece and the rest were %d writes", wrote)
	}
	r.Must(t, Write10(0, 0, other))
	if n := v.wrote.Load() - wrote; n < 4 {
		t.Errorf("a WRITE that comes later was %d writes: it did not come in pieces", n)
	}
}

// What is kept of it in memory is written when the piece is, and not when that has
// failed or was aborted.
func TestTheRestOfALargeWriteFollowsItsPiece(t *testing.T) {
	t.Run("that fails", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := hold(t, r, pattern(mib))
		r.quiet(t)
		r.volumes[0].full.Store(true)
		r.volumes[0].puts.open()
		p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
		if p.InitiatorTaskTag != q.InitiatorTaskTag || p.Status != 0x02 {
			t.Errorf("%+v", p)
		}
		r.volumes[0].full.Store(false)
		if n := r.volumes[0].wrote.Load(); n != 0 {
			t.Errorf("%d writes", n)
		}
		r.Must(t, Write10(0, 0, pattern(mib)))
	})
	t.Run("that is aborted", func(t *testing.T) {
		r := newRig(t, params()).ready(t)
		q := hold(t, r, pattern(mib))
		r.quiet(t)
		tag := r.Tag()
		r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: tag, ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
		r.quiet(t)
		r.volumes[0].puts.open()
		if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.InitiatorTaskTag != tag || p.Response != pdu.TaskComplete {
			t.Errorf("%+v", p)
		}
		r.quiet(t)
		if n := r.volumes[0].wrote.Load(); n != 1 {
			t.Errorf("%d writes", n)
		}
		r.Must(t, Write10(0, 0, pattern(mib)))
	})
	t.Run("and there is no memory for it", func(t *testing.T) {
		c := withMemory(t, 64<<10, 64<<10, time.Hour)
		r := c.join(t, "a", 32<<20).ready(t)
		r.volumes[0].puts.shut()
		q := r.command(0x2a, 16384, nil) // 8 MiB
		r.send(t, q, make([]byte, 256<<10))
		a, _ := Expect[*pdu.R2T](t, r.Initiator)
		r.answerR2T(t, a, pattern(8*mib), nil)
		r.quiet(t)
		r.volumes[0].puts.open()
		p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
		if p.InitiatorTaskTag != q.InitiatorTaskTag || p.Status != 0x28 {
			t.Errorf("%+v", p)
		}
		r.Must(t, Write10(0, 0, pattern(mib)))
	})
}

// cacheOff turns the write cache of LUN 0 off.
func (r *rig) cacheOff(t *testing.T) {
	t.Helper()
	r.Must(t, Command{CDB: []byte{0x15, 0x10, 0, 0, 24, 0}, Write: []byte{4: 0x08, 5: 0x12, 23: 0}, Immediate: 24})
}

// A WRITE whose unit lost its write cache while the data came is flushed as every
// other one is that needs it: no reader waits for the disk.
func TestNoReaderWaitsForTheFlushOfALostCache(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v, other := r.volumes[0], r.volumes[1]
	q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = false })
	r.send(t, q, nil)
	r.cacheOff(t)
	v.syncs.shut()
	r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, pattern(4096))
	eventually(t, func() bool { return v.syncs.waiting.Load() == 1 }, "it is flushed")
	// Of two readers that wait, one behind the other, both would be kept by now.
	other.puts.shut()
	w := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.LUN = LUN(1) })
	r.send(t, w, pattern(4096))
	eventually(t, func() bool { return other.puts.waiting.Load() == 1 }, "the other disk has a WRITE")
	r.quiet(t)
	if n := r.session.Kept(); n != 1 {
		t.Errorf("%d readers are kept, where one command writes", n)
	}
	other.puts.open()
	r.status(t, w.InitiatorTaskTag, "")
	v.syncs.open()
	r.status(t, q.InitiatorTaskTag, "")
	if got := r.Must(t, Read10(0, 0, 8)).Data; !bytes.Equal(got, pattern(4096)) {
		t.Error("it has written something else")
	}
}

// A WRITE that has kept a reader is on the disk before it is GOOD, when the cache went
// meanwhile.
func TestAWriteThatKeptAReaderIsFlushedWhenTheCacheHasGone(t *testing.T) {
	for name, aborted := range map[string]bool{"to its end": false, "aborted": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, params()).ready(t)
			v := r.volumes[0]
			v.puts.shut()
			q := r.command(0x2a, 8, nil)
			r.send(t, q, pattern(4096))
			eventually(t, func() bool { return r.session.Kept() == 1 }, "it keeps a reader")
			r.cacheOff(t)
			v.syncs.shut()
			if aborted {
				r.session.AbortUnit(0, func() {})
			}
			v.puts.open()
			eventually(t, func() bool { return r.session.Kept() == 0 }, "it has written")
			if aborted {
				r.quiet(t)
				if n := v.syncs.waiting.Load(); n != 0 {
					t.Errorf("%d flushes for what nobody waits for", n)
				}
				return
			}
			eventually(t, func() bool { return v.syncs.waiting.Load() == 1 }, "it is flushed")
			r.quiet(t)
			v.syncs.open()
			r.status(t, q.InitiatorTaskTag, "")
		})
	}
}

// A session that ends under such a flush does not wait for it to be harmless.
func TestTheFlushOfALostCacheHoldsUpNobody(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v := r.volumes[0]
	q := r.command(0x2a, 8, func(q *pdu.SCSICommand) { q.Final = false })
	r.send(t, q, nil)
	r.cacheOff(t)
	v.syncs.shut()
	r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}, pattern(4096))
	eventually(t, func() bool { return v.syncs.waiting.Load() == 1 }, "it is flushed")
	r.session.Close("test")
	r.reason(t)
	select {
	case <-r.session.Harmless():
	case <-time.After(5 * time.Second):
		t.Error("it is not harmless")
	}
	select {
	case <-r.session.Done():
		t.Error("it is over under a flush")
	default:
	}
	v.syncs.open()
}
