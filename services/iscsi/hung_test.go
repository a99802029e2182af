package iscsi_test

import (
	"context"
	"sync"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// hungCommands are what changes no volume, however late its disk does it.
var hungCommands = map[string]func() Command{
	"a READ":              func() Command { return Read10(1, 0, 8) },
	"a SYNCHRONIZE CACHE": func() Command { return Sync10(1) },
}

// startHung runs a target on which alice's volume at LUN 1 never finishes
// anything, and another one at LUN 0 does.
func startHung(t testing.TB) (b *bench, begun func(n int), release func()) {
	t.Helper()
	hang := make(chan struct{})
	release = sync.OnceFunc(func() { close(hang) })
	var mu sync.Mutex
	waiting := 0
	b, _ = startSlow(t, func(context.Context) error {
		mu.Lock()
		waiting++
		mu.Unlock()
		<-hang
		return nil
	})
	t.Cleanup(release) // before the target's own
	b.catalog.change(func() { b.catalog.luns[alice][0] = disk{id: 2, volume: newMemory(1 << 20)} })
	b.enroll(bob, b.catalog.luns[alice])
	return b, func(n int) {
		t.Helper()
		eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return waiting == n }, "the volume has %d commands", n)
	}, release
}

// soon is a login that is answered before an initiator would ask why not.
func soon(t *testing.T, b *bench, o Options) *Initiator {
	t.Helper()
	at := time.Now()
	i := Login(t, b.Addr(), o)
	if d := time.Since(at); d > 2*time.Second {
		t.Errorf("the login took %s", d)
	}
	return i
}

// RFC 7143 §6.3.5: a login ends the tasks of the session that it replaces; it does
// not need their volume for that. A volume that hangs keeps its machine from no
// other volume, and what it still has of the old session is kept for it.
func TestAVolumeThatHangsKeepsNoInitiatorOut(t *testing.T) {
	for name, make := range hungCommands {
		t.Run(name, func(t *testing.T) {
			b, begun, release := startHung(t)
			old := b.login(t, alice, Linux(1))
			old.Must(t, Ready(0))
			old.Must(t, Ready(1))
			old.Must(t, Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}) // RESERVE(6) of LUN 0
			was := b.Sessions()[0].ID
			if _, err := old.Start(make()); err != nil {
				t.Fatal(err)
			}
			begun(1)
			_ = old.Conn.Close()
			for n := range 3 {
				i := soon(t, b, Options{Name: string(alice), Target: string(target), ISID: Linux(1)})
				i.Must(t, Write10(0, 1, []byte{511: 1})) // the reservation went with its nexus
				i.Must(t, Ready(1))
				if _, err := i.Start(make()); err != nil {
					t.Fatal(err)
				}
				begun(n + 2)
				eventually(t, func() bool { return b.sessions(alice) == 1 && b.Sessions()[0].ID != was }, "the old session is not listed")
				was = b.Sessions()[0].ID
			}
			b.journal.wait(t, store.EventISCSIClosed, 3)
			if n := b.catalog.openMaps(); n != 4 {
				t.Errorf("%d maps are held for four sessions whose volume works on their commands", n)
			}
			release()
			eventually(t, func() bool { return b.catalog.openMaps() == 1 }, "the maps are given back")
		})
	}
}

// §6.3.4: the same for a new connection of the same session, which keeps what it
// had reserved.
func TestAVolumeThatHangsKeepsNoConnectionOut(t *testing.T) {
	for name, make := range hungCommands {
		t.Run(name, func(t *testing.T) {
			b, begun, release := startHung(t)
			old := b.login(t, alice, Linux(1))
			old.Must(t, Ready(0))
			old.Must(t, Ready(1))
			other := b.login(t, bob, Linux(1))
			other.Must(t, Ready(0))
			old.Must(t, Command{CDB: []byte{0x16, 0, 0, 0, 0, 0}}) // RESERVE(6) of LUN 0
			for n := range 3 {
				if _, err := old.Start(make()); err != nil {
					t.Fatal(err)
				}
				begun(n + 1)
				i := soon(t, b, anew(old, alice, Linux(1)))
				old.Closed(t)
				if i.TSIH != old.TSIH {
					t.Errorf("TSIH %d, was %d", i.TSIH, old.TSIH)
				}
				if r, err := i.Do(Write10(0, 1, []byte{511: 1})); err != nil || r.Status != 0 {
					t.Errorf("a write after it: %v, %s", err, r.Key())
				}
				if r, err := other.Do(Read10(0, 0, 1)); err != nil || r.Status != 0x18 {
					t.Errorf("the reservation has gone: %v, status %02X", err, r.Status)
				}
				old = i
			}
			// It outlives the session whose map it was.
			logout(t, old)
			if b.catalog.openMaps() != 2 {
				t.Errorf("%d maps are held, one of them for what the volume works on", b.catalog.openMaps())
			}
			release()
			eventually(t, func() bool { return b.catalog.openMaps() == 1 }, "the maps are given back")
		})
	}
}

// A write that has been done and is flushed harms nobody either.
func TestAFlushThatHangsKeepsNobodyOut(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.syncing = make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(v.syncing) })) // before the target's own
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v}})
	old := b.login(t, alice, Linux(1))
	for n := range 4 {
		old.Must(t, Ready(1))
		if _, err := old.Start(fua(1, 5, byte(n+1))); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return v.syncs.Load() == int64(n+1) }, "the write is flushed")
		o := Options{Name: string(alice), Target: string(target), ISID: Linux(1)}
		if n%2 == 0 {
			o = anew(old, alice, Linux(1))
		}
		old = soon(t, b, o)
		old.Must(t, Ready(1))
		if r := old.Must(t, Read10(1, 5, 1)); r.Data[0] != byte(n+1) {
			t.Errorf("%02X is read, %02X was written", r.Data[0], n+1)
		}
	}
}

// logout ends a session and waits for its connection to close.
func logout(t *testing.T, i *Initiator) {
	t.Helper()
	if err := i.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: i.Tag(), CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	Expect[*pdu.LogoutResponse](t, i)
	i.Closed(t)
}

// What a hanging volume keeps of sessions that have ended is bounded: as many
// count as an initiator may have sessions.
func TestSessionsThatHangCountAsSessions(t *testing.T) {
	b, begun, release := startHung(t)
	const limit = 64
	for n := range limit {
		i := b.login(t, alice, Linux(1))
		i.Must(t, Ready(1))
		if _, err := i.Start(Read10(1, 0, 8)); err != nil {
			t.Fatal(err)
		}
		begun(n + 1)
	}
	last := b.login(t, alice, Linux(1)) // 63 hang
	last.Must(t, Ready(1))
	if _, err := last.Start(Read10(1, 0, 8)); err != nil {
		t.Fatal(err)
	}
	begun(limit + 1)
	wantRefused(t, b, anew(last, alice, Linux(2)), pdu.LoginSessionDoesNotExist, "does not exist")
	wantRefused(t, b, anew(last, alice, Linux(1)), pdu.LoginServiceUnavailable, "have not finished")
	wantRefused(t, b, Options{Name: string(alice), Target: string(target), ISID: Linux(1)}, pdu.LoginOutOfResources, "64 of them have ended")
	if n := b.sessions(alice); n != 1 {
		t.Errorf("%d sessions", n)
	}
	b.login(t, bob, Linux(1)).Must(t, Ready(0))
	release()
	eventually(t, func() bool {
		i, err := Dial(b.Addr(), Options{Name: string(alice), Target: string(target), ISID: Linux(1)})
		if err != nil {
			return false
		}
		_ = i.Conn.Close()
		return true
	}, "there is room again")
}

// Nor does a copy whose last blocks are flushed hold up its abort.
func TestAnAbortDoesNotWaitForTheFlushOfACopy(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.syncing = make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(v.syncing) })) // before the target's own
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}, 1: {id: 2, volume: v}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	i.Must(t, Ready(1))
	c := copyBlocks(name(t, i, 0), name(t, i, 1))
	c.Immediate = len(c.Write)
	cacheOff := Command{LUN: LUN(1), CDB: []byte{0x15, 0x10, 0, 0, 24, 0}, Write: []byte{4: 0x08, 5: 0x12, 23: 0}, Immediate: 24}
	off, err := i.Start(cacheOff) // it is flushed too, and off at once
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.syncs.Load() == 1 }, "the cache is flushed")
	if got := manage(t, i, pdu.FuncAbortTask, 1, off); got != pdu.TaskComplete {
		t.Errorf("response %d", got)
	}
	tag, err := i.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.syncs.Load() == 2 }, "the copy is flushed")
	if got := manage(t, i, pdu.FuncAbortTask, 0, tag); got != pdu.TaskComplete {
		t.Errorf("response %d", got)
	}
}

// A machine that logs out and in again, whatever it calls its port, finds no write of
// its old session after its own.
func TestNoWriteLandsAfterItsLogout(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.puts = make(chan struct{})
	finish := sync.OnceFunc(func() { close(v.puts) })
	t.Cleanup(finish) // before the target's own
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v}})
	old := b.login(t, alice, Linux(1))
	old.Must(t, Ready(1))
	if _, err := old.Start(fua(1, 5, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.putting.Load() == 1 }, "the write begins")
	if err := old.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: old.Tag(), CID: 1, CmdSN: old.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	b.journal.wait(t, store.EventISCSILogout, 1)
	old.Timeout = 50 * time.Millisecond
	if p, _, err := old.Recv(); err == nil {
		t.Fatalf("%s: %+v", p.Opcode(), p)
	}
	finish()
	old.Timeout = 5 * time.Second
	Expect[*pdu.LogoutResponse](t, old)
	i := b.login(t, alice, Linux(2))
	i.Must(t, Ready(1))
	i.Must(t, fua(1, 5, 8))
	old.Closed(t)
	if r := i.Must(t, Read10(1, 5, 1)); r.Data[0] != 8 {
		t.Errorf("%02X is read, 08 was written last", r.Data[0])
	}
}
