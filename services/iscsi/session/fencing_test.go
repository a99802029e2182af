package session_test

import (
	"bytes"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// A WRITE of which a part is still on its way when another nexus ends the tasks of the
// unit is ended with them: PREEMPT AND ABORT fences off who is slow (SPC-4 §5.12.11).
func TestAWriteThatIsStillComingIsAbortedByOthers(t *testing.T) {
	r := newRig(t, params()).ready(t)
	wire := r.Bytes(r.command(0x2a, 16, nil), bytes.Repeat([]byte{0xaa}, 16*512))
	const part = 48 + 512
	if _, err := r.Conn.Write(wire[:part]); err != nil {
		t.Fatal(err)
	}
	rested := make(chan struct{}, 1)
	aborted := 0
	eventually(t, func() bool {
		aborted += r.session.AbortUnit(0, func() { rested <- struct{}{} })
		select {
		case <-rested:
		case <-time.After(time.Second):
			t.Fatal("the abort waits for data that may never come")
		}
		return aborted == 1
	}, "the task is found")
	if _, err := r.Conn.Write(wire[part:]); err != nil {
		t.Fatal(err)
	}
	r.quiet(t)
	if n := r.volumes[0].wrote.Load(); n != 0 {
		t.Errorf("%d writes landed after the abort", n)
	}
	r.Must(t, Write10(0, 16, make([]byte, 512))) // the session goes on
}

// What an abort by another nexus makes room for is asked for at once, though nothing
// else has this session send.
func TestRoomThatOthersMakeIsUsed(t *testing.T) {
	r := newRig(t, params()).ready(t)
	large := func(lun byte) *pdu.SCSICommand {
		return r.command(0x2a, 8<<20/512, func(q *pdu.SCSICommand) { wholeWrite(q); q.CDB[1], q.LUN = 0x08, LUN(lun) }) // FUA: kept whole
	}
	for range 2 {
		r.send(t, large(0), nil)
		Expect[*pdu.R2T](t, r.Initiator)
	}
	r.send(t, large(1), nil) // no memory is left for it
	r.quiet(t)
	if n := r.session.AbortUnit(0, func() {}); n != 2 {
		t.Fatalf("%d tasks were aborted", n)
	}
	Expect[*pdu.R2T](t, r.Initiator)
}

// A piece that has been written is all that an aborted WRITE changes: who waits for
// its rest does not wait for an initiator that sends no more.
func TestAnAbortWaitsForNoDataOfASilentInitiator(t *testing.T) {
	r := newRig(t, params()).ready(t)
	v := r.volumes[0]
	v.puts.shut()
	q := r.command(0x2a, 2<<20/512, nil)
	r.send(t, q, nil)
	ask, _ := Expect[*pdu.R2T](t, r.Initiator)
	block := make([]byte, 256<<10)
	r.send(t, &pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: ask.TargetTransferTag}, block)
	eventually(t, func() bool { return v.puts.waiting.Load() == 1 }, "the first piece is being written")
	wire := r.Bytes(&pdu.DataOut{InitiatorTaskTag: q.InitiatorTaskTag, TargetTransferTag: ask.TargetTransferTag, DataSN: 1, BufferOffset: 256 << 10}, block)
	if _, err := r.Conn.Write(wire[:48+1000]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the second is being received
	rested := make(chan struct{})
	r.session.AbortUnit(0, func() { close(rested) })
	v.puts.open()
	select {
	case <-rested:
	case <-time.After(5 * time.Second):
		t.Error("the abort waits for the rest of a PDU")
	}
}
