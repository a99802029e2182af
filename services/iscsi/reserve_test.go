package iscsi_test

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// persistent is PERSISTENT RESERVE OUT at LUN 0.
func persistent(action, kind byte, key, next uint64) Command {
	list := binary.BigEndian.AppendUint64(nil, key)
	list = binary.BigEndian.AppendUint64(list, next)
	return Command{CDB: []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, Write: append(list, make([]byte, 8)...), Immediate: 24}
}

// A machine whose firmware meets another's reservation is told of, with who has
// the volume. Systems meet each other's all the time.
func TestAReservationThatKeepsAFirmwareOutIsTold(t *testing.T) {
	b := start(t)
	disks := map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}}
	b.enroll(alice, disks)
	b.enroll(bob, disks)
	holder := b.login(t, bob, Linux(1))
	holder.Must(t, Ready(0))
	holder.Must(t, persistent(0, 0, 0, 0xb))
	holder.Must(t, persistent(1, 3, 0xb, 0)) // exclusive access
	system := b.login(t, alice, Linux(2))
	system.Do(Ready(0))
	if r, err := system.Do(Read10(0, 0, 1)); err != nil || r.Status != 0x18 {
		t.Fatalf("%+v, %v", r, err)
	}
	firmware := b.login(t, alice, IPXE(1))
	firmware.Do(Ready(0))
	if r, err := firmware.Do(Read10(0, 64, 1)); err != nil || r.Status != 0x18 {
		t.Fatalf("%+v, %v", r, err)
	}
	all := b.journal.wait(t, store.EventISCSIIOFailed, 1)
	if d := all[0].Detail; len(all) != 1 || d.Status != "18" || d.Server != string(bob) || d.Initiator != string(alice) || !d.IPXE || d.Sense != "" || d.LBA != 64 || d.Opcode != "READ(10)" {
		t.Errorf("%+v", all)
	}
}

// A machine that takes a volume from another by PREEMPT AND ABORT is answered
// when nothing of the other's can land there any more: a write that has its data
// has come to rest, one that still waits for data has ended (SPC-4 §5.13.11.5).
func TestPreemptAndAbortEndsTheOthersWrites(t *testing.T) {
	b := start(t)
	shared := newMemory(1 << 20)
	shared.puts = make(chan struct{})
	finish := sync.OnceFunc(func() { close(shared.puts) })
	t.Cleanup(finish) // before the target's own
	disks := map[store.LUN]disk{0: {id: 1, volume: shared}}
	b.enroll(alice, disks)
	b.enroll(bob, disks)
	taker, loser := b.login(t, alice, Linux(1)), b.login(t, bob, Linux(1), "InitialR2T", "Yes")
	watcher := b.login(t, alice, Linux(2))
	taker.Must(t, Ready(0))
	loser.Must(t, Ready(0))
	taker.Must(t, persistent(0, 0, 0, 0xa))
	loser.Must(t, persistent(0, 0, 0, 0xb))
	loser.Must(t, persistent(1, 3, 0xb, 0)) // exclusive access

	waiting, err := loser.Start(Write10(0, 9, bytes.Repeat([]byte{9}, 512)))
	if err != nil {
		t.Fatal(err)
	}
	asked, _ := Expect[*pdu.R2T](t, loser)
	if _, err := loser.Start(fua(0, 5, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return shared.putting.Load() == 1 }, "the write waits for its disk")

	preempt := persistent(5, 3, 0xa, 0xb)
	tag, err := taker.Start(preempt)
	if err != nil {
		t.Fatal(err)
	}
	keys := Command{CDB: []byte{0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0}, Read: 64}
	eventually(t, func() bool { return len(watcher.Must(t, keys).Data) == 16 }, "the other's key is gone")
	nop := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: taker.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: taker.CmdSN}
	if err := taker.Send(nop, nil); err != nil {
		t.Fatal(err)
	}
	if p, _ := Expect[*pdu.NOPIn](t, taker); p.InitiatorTaskTag != nop.InitiatorTaskTag {
		t.Fatalf("the volume was handed over before the write had come to rest: %+v", p)
	}
	finish()
	if r, err := taker.Finish(preempt, tag); err != nil || r.Status != 0 {
		t.Fatalf("status %02X, sense %s, %v", r.Status, r.Key(), err)
	}
	d := &pdu.DataOut{Final: true, InitiatorTaskTag: waiting, TargetTransferTag: asked.TargetTransferTag}
	if err := loser.Send(d, bytes.Repeat([]byte{9}, 512)); err != nil {
		t.Fatal(err)
	}
	// The write that had its data may have been answered before it was ended.
	ping := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: loser.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: loser.CmdSN}
	if err := loser.Send(ping, nil); err != nil {
		t.Fatal(err)
	}
	for answered := false; !answered; {
		p, _, err := loser.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch p := p.(type) {
		case *pdu.NOPIn:
			answered = p.InitiatorTaskTag == ping.InitiatorTaskTag
		case *pdu.SCSIResponse:
			if p.InitiatorTaskTag == waiting {
				t.Errorf("the write that waited for data was answered: %+v", p)
			}
		}
	}
	for _, next := range []struct {
		c      Command
		status byte
		key    string
	}{
		// The conflict goes first; the condition waits for a command that is let
		// through.
		{Read10(0, 0, 1), 0x18, ""}, {Ready(0), 0x02, "06/2A/05"}, {Ready(0), 0, ""}, {Read10(0, 0, 1), 0x18, ""},
	} {
		if r, err := loser.Do(next.c); err != nil || r.Status != next.status || r.Key() != next.key {
			t.Errorf("%X of who lost its key ends with status %02X, sense %s, %v", next.c.CDB, r.Status, r.Key(), err)
		}
	}
	if got := taker.Must(t, Read10(0, 9, 1)).Data; !bytes.Equal(got, make([]byte, 512)) {
		t.Errorf("a write landed behind the preemption: %x", got[:8])
	}
}

// A write that waits for its data when its unit is wiped by another session
// writes nothing afterwards, and keeps no connection waiting.
func TestASanitizeEndsWritesThatWaitForData(t *testing.T) {
	for _, done := range []bool{false, true} {
		b := start(t)
		v := newMemory(1 << 20)
		v.syncing = make(chan struct{})
		finish := sync.OnceFunc(func() { close(v.syncing) })
		t.Cleanup(finish) // before the target's own
		b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v, sanitize: true}})
		wiper, writer := b.login(t, alice, Linux(1)), b.login(t, alice, Linux(2), "InitialR2T", "Yes")
		wiper.Must(t, Ready(0))
		writer.Must(t, Ready(0))
		write := Write10(0, 9, bytes.Repeat([]byte{9}, 512))
		tag, err := writer.Start(write)
		if err != nil {
			t.Fatal(err)
		}
		asked, _ := Expect[*pdu.R2T](t, writer)
		erase := Command{CDB: []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}}
		wipe, err := wiper.Start(erase)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return v.syncs.Load() == 1 }, "the volume is erased, and flushed")
		end := func() {
			finish()
			if r, err := wiper.Finish(erase, wipe); err != nil || r.Status != 0 {
				t.Errorf("SANITIZE: status %02X, sense %s, %v", r.Status, r.Key(), err)
			}
		}
		want := "02/04/1B"
		if done {
			want = "0B/00/00"
			end()
		}
		d := &pdu.DataOut{Final: true, InitiatorTaskTag: tag, TargetTransferTag: asked.TargetTransferTag}
		if err := writer.Send(d, write.Write); err != nil {
			t.Fatal(err)
		}
		if r, err := writer.Finish(write, tag); err != nil || r.Status != 2 || r.Key() != want {
			t.Errorf("the write ends with status %02X, sense %s, %v; want %s", r.Status, r.Key(), err, want)
		}
		if !done {
			end()
		}
		if got := wiper.Must(t, Read10(0, 9, 1)).Data; !bytes.Equal(got, make([]byte, 512)) {
			t.Errorf("a write landed behind the wipe: %x", got[:8])
		}
	}
}
