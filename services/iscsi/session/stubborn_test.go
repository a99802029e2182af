package session_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
)

// Another initiator's reset waits for no initiator that has stopped reading.
func TestAbortsFromOutsideDoNotWaitForAStuckPeer(t *testing.T) {
	r := newRig(t, params()).ready(t)
	for range 3 {
		r.send(t, r.command(0x28, 16384, nil), nil) // 8 MiB, and nobody reads
	}
	time.Sleep(50 * time.Millisecond)
	rest := make(chan struct{})
	go r.session.AbortUnit(0, func() { close(rest) })
	select {
	case <-rest:
	case <-time.After(10 * time.Second): // TCP would give the peer up after 30
		t.Fatal("it waits")
	}
	if why := r.reason(t); !strings.Contains(why, "does not read") {
		t.Errorf("the reason is %q", why)
	}
}

// An initiator that asks for thousands of LUNs that do not exist, or spells one
// in another way, does not hide its commands from another one's reset.
func TestAbortsFromOutsideFindEveryTask(t *testing.T) {
	r := newRig(t, params()).ready(t)
	for n := range 2000 {
		if res, err := r.Do(Command{LUN: pdu.LUN{0x40 | byte((n+2)>>8), byte(n + 2)}, CDB: make([]byte, 6)}); err != nil || res.Key() != "05/25/00" {
			t.Fatalf("LUN %d: %v, %s", n+2, err, res.Key())
		}
	}
	for _, lun := range []pdu.LUN{{0, 1}, {0x40, 1}} {
		v := r.volumes[1]
		v.puts.shut()
		w := Write10(0, 0, make([]byte, 512))
		w.LUN, w.CDB[1], w.Immediate = lun, 0x08, 512
		tag, err := r.Start(w)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return v.puts.waiting.Load() == 1 }, "it waits for the disk")
		if n := r.session.AbortUnit(0, func() {}); n != 0 {
			t.Errorf("%d tasks of LUN 0 were aborted", n)
		}
		rest := make(chan struct{})
		if n := r.session.AbortUnit(1, func() { close(rest) }); n != 1 {
			t.Errorf("%d tasks of LUN 1, spelled % X, were aborted", n, lun[:2])
		}
		v.puts.open()
		<-rest
		if n := len(r.witness.used); n != 0 {
			t.Errorf("task %d was answered as if nothing had happened", tag)
		}
		r.quiet(t)
	}
}

// SendTargets costs a look at the inventory: one question, one look.
func TestSendTargetsIsAnsweredOnce(t *testing.T) {
	r := newRig(t, params()).ready(t)
	r.ask(t, pdu.TextRequest{Final: true, InitiatorTaskTag: 7, TargetTransferTag: pdu.ReservedTag}, bytes.Repeat([]byte("SendTargets=\x00"), 100))
	_, data := Expect[*pdu.TextResponse](t, r.Initiator)
	if n := bytes.Count(data, []byte("TargetName=")); n != 1 {
		t.Errorf("it was answered %d times", n)
	}
}
