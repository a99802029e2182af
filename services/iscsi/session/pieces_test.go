package session_test

import (
	"bytes"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// Data-Out PDUs for one R2T. edit may change or spoil one of them.
func (r *rig) answerR2T(t testing.TB, a *pdu.R2T, data []byte, edit func(sn int, wire []byte)) {
	t.Helper()
	const segment = 256 << 10
	end := int(a.BufferOffset + a.DesiredDataTransferLength)
	for off, sn := int(a.BufferOffset), 0; off < end; sn++ {
		n := min(segment, end-off)
		wire := r.Bytes(&pdu.DataOut{Final: off+n == end, InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag, DataSN: pdu.Serial(sn), BufferOffset: uint32(off)}, data[off:off+n])
		if edit != nil {
			edit(sn, wire)
		}
		if _, err := r.Conn.Write(wire); err != nil {
			t.Fatal(err)
		}
		off += n
	}
}

// asked sends a WRITE of 1 MiB and returns it with the R2T that asks for all of
// its data.
func (r *rig) asked(t testing.TB) (*pdu.SCSICommand, *pdu.R2T) {
	t.Helper()
	q := r.command(0x2a, mib/512, nil)
	r.send(t, q, nil)
	a, _ := Expect[*pdu.R2T](t, r.Initiator)
	return q, a
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9) ^ byte(i>>16)*7 | 1
	}
	return b
}

// A large WRITE is written as it comes. It needs no memory while it waits for
// its data: all that the window allows are asked for at once.
func TestLargeWritesAreWrittenAsTheyCome(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v := r.volumes[0]
	data := pattern(3*mib + 512)
	r.Must(t, Command{CDB: rw(0x2a, 5, len(data)), Write: data, Immediate: 256 << 10, Segment: 256 << 10})
	if !bytes.Equal(v.b[5*512:5*512+len(data)], data) || v.b[5*512-1]|v.b[5*512+len(data)] != 0 {
		t.Error("something else lies on the volume")
	}
	const n = 32
	for k := range n {
		q := r.command(0x2a, 4*mib/512, func(q *pdu.SCSICommand) { q.Final = true })
		r.send(t, q, nil)
		if a, _ := Expect[*pdu.R2T](t, r.Initiator); a.InitiatorTaskTag != q.InitiatorTaskTag || a.DesiredDataTransferLength != mib {
			t.Fatalf("write %d of %d that wait for data: %+v", k, n, a)
		}
	}
}

// rw is a READ(10) or WRITE(10) of n bytes.
func rw(op byte, lba, n int) []byte {
	blocks := n / 512
	return []byte{op, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(blocks >> 8), byte(blocks), 0}
}

// A piece that arrived damaged is not written, and the command fails.
func TestADamagedPieceIsNotWritten(t *testing.T) {
	p := params()
	p.DataDigest = true
	r := newRig(t, p).ready(t)
	data := pattern(mib)
	q, a := r.asked(t)
	r.answerR2T(t, a, data, func(sn int, wire []byte) {
		if sn == 1 {
			wire[48+1000] ^= 1
		}
	})
	if p, _ := Expect[*pdu.Reject](t, r.Initiator); p.Reason != pdu.ReasonDataDigestError {
		t.Errorf("%+v", p)
	}
	r.status(t, q.InitiatorTaskTag, "0B/47/05")
	r.quiet(t) // what came behind it is dropped
	if got := r.volumes[0].b; !bytes.Equal(got[:256<<10], data[:256<<10]) || bytes.Count(got[256<<10:mib], []byte{0}) != mib-256<<10 {
		t.Error("more than the first piece was written")
	}
}

// A volume that fails under a piece ends the command with its sense data.
func TestAFailedPieceEndsTheCommand(t *testing.T) {
	r := newRig(t, params()).ready(t)
	data := pattern(mib)
	q, a := r.asked(t)
	r.volumes[0].full.Store(true)
	r.answerR2T(t, a, data, nil)
	r.status(t, q.InitiatorTaskTag, "07/27/07")
	r.volumes[0].full.Store(false)
	r.quiet(t)
	r.Must(t, Command{CDB: rw(0x2a, 0, mib), Write: data, Segment: 256 << 10})
}

// What a reset reports as ended writes nothing later: it waits for the piece
// that is being written.
func TestAResetWaitsForThePieceBeingWritten(t *testing.T) {
	r := newRig(t, params()).ready(t)
	_, a := r.asked(t)
	r.volumes[0].puts.shut()
	r.answerR2T(t, a, pattern(mib), nil)
	eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "a piece is being written")
	rested := make(chan struct{})
	if n := r.session.AbortUnit(0, func() { close(rested) }); n != 1 {
		t.Errorf("%d tasks were ended", n)
	}
	select {
	case <-rested:
		t.Error("it came to rest under a write")
	case <-time.After(20 * time.Millisecond):
	}
	wrote := r.volumes[0].wrote.Load()
	r.volumes[0].puts.open()
	<-rested
	r.quiet(t)
	if n := r.volumes[0].wrote.Load() - wrote; n != 1 {
		t.Errorf("%d pieces were written after the reset", n)
	}
}

// An ORDERED command waits for a WRITE whose pieces are not all there.
func TestOrderedCommandsWaitForPieces(t *testing.T) {
	r := newRig(t, params()).ready(t)
	q, a := r.asked(t)
	ordered := r.command(0x28, 1, func(q *pdu.SCSICommand) { q.Attr = pdu.AttrOrdered })
	r.send(t, ordered, nil)
	r.quiet(t)
	data := pattern(mib)
	r.answerR2T(t, a, data, nil)
	r.status(t, q.InitiatorTaskTag, "")
	if p, got := Expect[*pdu.DataIn](t, r.Initiator); p.InitiatorTaskTag != ordered.InitiatorTaskTag || !bytes.Equal(got, data[:512]) {
		t.Errorf("task %d read %x", p.InitiatorTaskTag, got[:8])
	}
}

// A piece that is still arriving holds up no reset, and is not written after it.
func TestAResetDoesNotWaitForAPieceThatArrives(t *testing.T) {
	r := newRig(t, params()).ready(t)
	_, a := r.asked(t)
	wire := r.Bytes(&pdu.DataOut{InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, pattern(256<<10))
	if _, err := r.Conn.Write(wire[:100<<10]); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return r.session.Counters().Activity > 4 }, "a part has arrived")
	rested := make(chan struct{})
	if n := r.session.AbortUnit(0, func() { close(rested) }); n != 1 {
		t.Errorf("%d tasks were ended", n)
	}
	select {
	case <-rested:
	case <-time.After(5 * time.Second):
		t.Fatal("the reset waits for the initiator")
	}
	if _, err := r.Conn.Write(wire[100<<10:]); err != nil {
		t.Fatal(err)
	}
	r.quiet(t)
	if n := r.volumes[0].wrote.Load(); n != 0 {
		t.Errorf("%d pieces were written after the reset", n)
	}
}

// While a piece is being written, the reader is free for the next thing.
func TestAPieceThatIsWrittenSlowlyStallsNothing(t *testing.T) {
	r := newRig(t, params()).ready(t)
	data := pattern(mib)
	q, a := r.asked(t)
	r.volumes[0].puts.shut()
	first := r.Bytes(&pdu.DataOut{InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, data[:256<<10])
	if _, err := r.Conn.Write(first); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the first piece is being written")
	r.quiet(t)
	r.Must(t, Read10(1, 0, 8))
	r.volumes[0].puts.open()
	for k := 1; k < 4; k++ {
		r.send(t, &pdu.DataOut{Final: k == 3, InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag, DataSN: pdu.Serial(k), BufferOffset: uint32(k * 256 << 10)}, data[k*256<<10:(k+1)*256<<10])
	}
	r.status(t, q.InitiatorTaskTag, "")
	if !bytes.Equal(r.volumes[0].b[:mib], data) {
		t.Error("other data was written")
	}
}

// An abort in the middle of pieces answers when the one at work is written, and
// what comes later is not.
func TestAbortBetweenPieces(t *testing.T) {
	r := newRig(t, params()).ready(t)
	q, a := r.asked(t)
	r.volumes[0].puts.shut()
	data := pattern(mib)
	if _, err := r.Conn.Write(r.Bytes(&pdu.DataOut{InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag}, data[:256<<10])); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "the first piece is being written")
	tag := r.Tag()
	r.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: tag, ReferencedTaskTag: q.InitiatorTaskTag, RefCmdSN: q.CmdSN, CmdSN: r.CmdSN}, nil)
	r.quiet(t)
	r.volumes[0].puts.open()
	if p, _ := Expect[*pdu.TaskResponse](t, r.Initiator); p.InitiatorTaskTag != tag || p.Response != pdu.TaskComplete {
		t.Errorf("%+v", p)
	}
	r.send(t, &pdu.DataOut{Final: true, InitiatorTaskTag: a.InitiatorTaskTag, TargetTransferTag: a.TargetTransferTag, DataSN: 1, BufferOffset: 256 << 10}, data[256<<10:512<<10])
	r.quiet(t)
	if n := r.volumes[0].wrote.Load(); n != 1 {
		t.Errorf("%d pieces were written", n)
	}
}

// A WRITE that began with a write cache and ends without one is on the disk
// before it is GOOD.
func TestPiecesAreFlushedWhenTheCacheHasGone(t *testing.T) {
	r := newRig(t, params()).ready(t)
	q, a := r.asked(t)
	off := make([]byte, 24)
	copy(off[4:], []byte{0x08, 0x12})
	r.Must(t, Command{CDB: []byte{0x15, 0x10, 0, 0, 24, 0}, Write: off, Immediate: 24})
	r.volumes[0].syncs.shut()
	r.answerR2T(t, a, pattern(mib), nil)
	eventually(t, func() bool { return r.volumes[0].syncs.waiting.Load() == 1 }, "it is flushed")
	r.quiet(t)
	r.volumes[0].syncs.open()
	r.status(t, q.InitiatorTaskTag, "")
}

// A session that ends under a piece waits for it.
func TestTheEndOfASessionWaitsForItsPiece(t *testing.T) {
	r := newRig(t, params()).ready(t)
	_, a := r.asked(t)
	r.volumes[0].puts.shut()
	r.answerR2T(t, a, pattern(mib), nil)
	eventually(t, func() bool { return r.volumes[0].puts.waiting.Load() == 1 }, "a piece is being written")
	r.session.Close("test")
	select {
	case <-r.session.Done():
		t.Error("it ended under a write")
	case <-time.After(20 * time.Millisecond):
	}
	r.volumes[0].puts.open()
	r.reason(t)
}
