package iscsi_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// anew are the options of a connection that takes the place of i's.
func anew(i *Initiator, name store.IQN, isid pdu.ISID) Options {
	return Options{Name: string(name), Target: string(target), ISID: isid, TSIH: i.TSIH, CmdSN: i.CmdSN}
}

// RFC 7143 §6.3.4: a login with the session's TSIH and its connection's CID is a
// new connection of the same session. The old one ends, and its tasks without a
// word; what the session has goes on.
func TestAConnectionIsReinstated(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	disks := map[store.LUN]disk{0: {id: 1, volume: v}}
	b.enroll(alice, disks)
	b.enroll(bob, disks)
	old := b.login(t, alice, Linux(1), "MaxBurstLength", "65536", "FirstBurstLength", "4096", "HeaderDigest", "CRC32C")
	old.Must(t, Ready(0))
	old.Must(t, Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}) // RESERVE(6)
	old.Must(t, Read10(0, 0, 1))
	was := b.Sessions()[0]
	if _, err := old.Start(Write10(0, 9, bytes.Repeat([]byte{9}, 8192))); err != nil {
		t.Fatal(err)
	}
	Expect[*pdu.R2T](t, old)
	other := b.login(t, bob, Linux(1))
	if r, err := other.Do(Ready(0)); err != nil || r.Key() != "06/29/00" {
		t.Fatalf("%+v, %v", r, err)
	}

	o := anew(old, alice, Linux(1))
	// What one connection has for itself is negotiated anew, what the session has
	// agreed on is not.
	o.Keys = []pdu.Pair{{Key: "DataDigest", Value: "CRC32C"}, {Key: "MaxBurstLength", Value: "262144"}, {Key: "InitialR2T", Value: "No"}}
	i := Login(t, b.Addr(), o)
	if i.TSIH != old.TSIH || i.SN.ExpCmdSN != old.CmdSN {
		t.Errorf("TSIH %d, was %d; CmdSN %d, was %d", i.TSIH, old.TSIH, i.SN.ExpCmdSN, old.CmdSN)
	}
	for key, want := range map[string]string{"DataDigest": "CRC32C", "HeaderDigest": "", "MaxBurstLength": "Reject", "InitialR2T": "Reject", "MaxRecvDataSegmentLength": "262144"} {
		if got := i.Answers[key]; got != want {
			t.Errorf("%s=%s, want %q", key, got, want)
		}
	}
	if _, _, err := old.Recv(); err == nil {
		t.Error("the old connection was told something")
	}
	// No unit attention condition: the nexus is the same.
	if r, err := i.Do(Ready(0)); err != nil || r.Status != 0 {
		t.Errorf("TEST UNIT READY: %+v, %v", r, err)
	}
	if r, err := other.Do(Read10(0, 0, 1)); err != nil || r.Status != 0x18 {
		t.Errorf("the reservation has gone: %+v, %v", r, err)
	}
	data := bytes.Repeat([]byte{7}, 128<<10)
	if r := i.Must(t, Write10(0, 64, data)); r.R2Ts != 2 {
		t.Errorf("128 KiB were asked for in %d bursts; MaxBurstLength was 65536", r.R2Ts)
	}
	if r := i.Must(t, Read10(0, 64, 256)); !bytes.Equal(r.Data, data) {
		t.Error("other data came back")
	}
	if !bytes.Equal(v.b[9*512:25*512], make([]byte, 8192)) {
		t.Error("the old connection's write was executed")
	}
	now := b.Sessions()
	if len(now) != 2 || now[0].ID != was.ID || now[0].TSIH != was.TSIH || now[0].Addr != i.Conn.LocalAddr().String() {
		t.Errorf("the sessions are %+v; %s was", now, was.ID)
	}
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0].Detail; e.Session != was.ID || e.Reason != "the initiator put a new connection in its place" {
		t.Errorf("the end of the old connection is told as %+v", e)
	}
	if e := b.journal.wait(t, store.EventISCSILogin, 3)[2].Detail; e.Session != was.ID {
		t.Errorf("the new connection is told as %+v", e)
	}
	if n := len(b.journal.all(store.EventISCSIFirstRead)); n != 1 {
		t.Errorf("%d first READs of one session", n)
	}

	// It is watched as every other session is, and may be replaced again.
	last := Login(t, b.Addr(), anew(i, alice, Linux(1)))
	i.Closed(t)
	last.Must(t, Ready(0))
	b.catalog.change(func() { b.catalog.luns[alice][1] = disk{id: 2, volume: newMemory(1 << 20)} })
	eventually(t, func() bool { r, err := last.Do(Ready(1)); return err == nil && r.Status == 0 }, "the second volume is seen")
	if err := last.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: last.Tag(), CID: 1, CmdSN: last.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	last.Closed(t)
	// The nexus ends with the session: so does what it had reserved.
	eventually(t, func() bool { r, err := other.Do(Read10(0, 0, 1)); return err == nil && r.Status == 0 }, "the reservation ends")
	wantRefused(t, b, anew(last, alice, Linux(1)), pdu.LoginSessionDoesNotExist, "does not exist")
}

// §6.3.4: the old connection's tasks have ended before the new one begins.
func TestAReinstatedConnectionWaitsForTheOldOnesWrites(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.puts = make(chan struct{})
	finish := sync.OnceFunc(func() { close(v.puts) })
	t.Cleanup(finish) // before the target's own
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v}})
	old := b.login(t, alice, Linux(1))
	old.Must(t, Ready(0))
	if _, err := old.Start(fua(0, 5, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.putting.Load() == 1 }, "the write waits for its disk")
	in := make(chan *Initiator, 1)
	go func() {
		i, _ := Dial(b.Addr(), anew(old, alice, Linux(1)))
		in <- i
	}()
	old.Closed(t)
	for range 2 { // the old connection is silent, which is no reason to end the session
		select {
		case <-in:
			t.Fatal("the new connection is there while a write of the old one is under way")
		case <-time.After(50 * time.Millisecond):
		}
		b.clock.advance(time.Minute + time.Second)
	}
	time.Sleep(50 * time.Millisecond)
	finish()
	i := <-in
	if i == nil {
		t.Fatal("the login failed")
	}
	defer i.Conn.Close()
	i.Must(t, Read10(0, 5, 1))
}

// Whoever ends a session while a new connection takes its place has ended it.
func TestASessionThatIsDroppedWhileItIsReinstatedIsNotThereAgain(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.puts = make(chan struct{})
	finish := sync.OnceFunc(func() { close(v.puts) })
	t.Cleanup(finish) // before the target's own
	disks := map[store.LUN]disk{0: {id: 1, volume: v}}
	b.enroll(alice, disks)
	b.enroll(bob, disks)
	old := b.login(t, alice, Linux(1))
	old.Must(t, Ready(0))
	old.Must(t, Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}) // RESERVE(6)
	if _, err := old.Start(fua(0, 5, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.putting.Load() == 1 }, "the write waits for its disk")
	came := make(chan error, 1)
	go func() {
		i, err := Dial(b.Addr(), anew(old, alice, Linux(1)))
		if err == nil {
			i.Conn.Close()
		}
		came <- err
	}()
	old.Closed(t)
	id := b.Sessions()[0].ID
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := b.Drop(ctx, id); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("it is dropped while a write is under way: %v", err)
	}
	finish()
	if err := <-came; err == nil {
		t.Error("the session goes on with its new connection")
	}
	if got := b.Sessions(); len(got) != 0 {
		t.Errorf("the sessions are %+v", got)
	}
	if err := b.Drop(t.Context(), id); !store.IsNotFound(err) {
		t.Errorf("there is one to drop: %v", err)
	}
	// What it had reserved went with it.
	other := b.login(t, bob, Linux(1))
	eventually(t, func() bool { r, err := other.Do(Read10(0, 0, 1)); return err == nil && r.Status == 0 }, "the reservation ends")
}

// Who does not prove itself harms no session.
func TestAReinstatementMustBeProved(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	b.catalog.change(func() {
		a := b.catalog.access[alice]
		a.Auth, a.CHAP = store.AuthCHAP, store.Credential{User: "alice", Secret: "alicealicealice1"}
		b.catalog.access[alice] = a
	})
	wantRefused(t, b, anew(i, alice, Linux(1)), pdu.LoginAuthFailure, "CHAP is required")
	i.Must(t, Ready(0))
}

// A discovery session's connection is reinstated too.
func TestADiscoverySessionIsReinstated(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	o := Options{Name: string(alice), ISID: Linux(1), Discovery: true}
	old := Login(t, b.Addr(), o)
	o.TSIH = old.TSIH
	i := Login(t, b.Addr(), o)
	old.Closed(t)
	if i.TSIH != old.TSIH {
		t.Errorf("TSIH %d, was %d", i.TSIH, old.TSIH)
	}
	if err := i.Send(&pdu.TextRequest{Final: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}, pdu.AppendText(nil, "SendTargets", "All")); err != nil {
		t.Fatal(err)
	}
	if _, data := Expect[*pdu.TextResponse](t, i); len(data) == 0 {
		t.Error("nothing is listed")
	}
}
