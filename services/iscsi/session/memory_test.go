package session_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/memory"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

const mib = 1 << 20

// crowd is many sessions over one memory.
type crowd struct {
	*session.Shared
	pattern []byte // the volumes' contents
}

// withMemory bounds the memory of a test's sessions. Nobody is ended for keeping
// it unless the test says when.
func withMemory(t testing.TB, pool, initiator int, patience time.Duration) *crowd {
	c := &crowd{Shared: session.NewSharedWithin(memory.Limits{Own: mib, Pool: pool, Initiator: initiator, Patience: patience}), pattern: make([]byte, 9*mib)}
	for at := 0; at < len(c.pattern); at += 8 {
		binary.BigEndian.PutUint64(c.pattern[at:], uint64(at)*0x9e3779b97f4a7c15)
	}
	t.Cleanup(func() { // after the sessions' own
		if n := c.Free(); n != pool {
			t.Errorf("%d of %d bytes came back", n, pool)
		}
	})
	return c
}

// join adds a session.
func (c *crowd) join(t testing.TB, initiator string, size int) *rig {
	t.Helper()
	server, client := loopback(t)
	r := rigOf(t, params(), server, client, size, slog.New(slog.NewTextHandler(io.Discard, nil)), store.IQN("iqn.2026-11.test:"+initiator), c.Shared)
	for _, v := range r.volumes {
		copy(v.b, c.pattern)
	}
	return r.ready(t)
}

// keep makes a session keep n bytes: it asks for a write that needs all of its
// data at once, and sends none.
func (r *rig) keep(t testing.TB, n int) pdu.R2T {
	t.Helper()
	r.send(t, r.command(0x2a, n/512, wholeWrite), nil)
	a, _ := Expect[*pdu.R2T](t, r.Initiator)
	return *a
}

// whole reads all of the data of a READ.
func (r *rig) whole(t testing.TB, blocks uint16) {
	t.Helper()
	res := r.Must(t, Read10(0, 0, blocks))
	if !bytes.Equal(res.Data, r.volumes[0].b[:int(blocks)*512]) {
		t.Error("other data")
	}
}

// Whatever others keep, a session goes on with commands up to its own memory,
// and so does it with larger ones when its initiator has taken nothing of what
// is left.
func TestEverySessionHasMemoryOfItsOwn(t *testing.T) {
	c := withMemory(t, 16*mib, 8*mib, time.Hour)
	greedy := []*rig{c.join(t, "greedy", 8*mib), c.join(t, "greedy", 8*mib), c.join(t, "greedy", 8*mib)}
	greedy[0].keep(t, 8*mib) // 7 of the pool
	for _, g := range greedy[1:] {
		g.send(t, g.command(0x2a, 8*mib/512, wholeWrite), nil) // waits: one initiator has half at most
		g.quiet(t)
	}
	victim := c.join(t, "victim", 8*mib)
	victim.whole(t, 8*mib/512)
	other := c.join(t, "other", 8*mib)
	other.keep(t, 8*mib) // now little is left
	if n := c.Free(); n != 2*mib {
		t.Fatalf("%d bytes are left", n)
	}
	for range 3 {
		victim.whole(t, mib/512)
		w := Write10(0, 0, victim.volumes[0].b[:mib])
		victim.Must(t, w) // by R2T
		w.Write = bytes.Clone(w.Write[:256<<10])
		w.Unasked = len(w.Write)
		victim.Must(t, w)
	}
}

// Memory that a command waits for comes when others have done with it.
func TestMemoryIsHandedOn(t *testing.T) {
	c := withMemory(t, 8*mib, 8*mib, time.Hour)
	a, b := c.join(t, "a", 8*mib), c.join(t, "b", 8*mib)
	r2t := a.keep(t, 8*mib)
	read := Read10(0, 0, 8*mib/512)
	tag, err := b.Start(read)
	if err != nil {
		t.Fatal(err)
	}
	b.quiet(t)
	b.whole(t, 64) // smaller ones go by
	// The initiator gives its write up; the reader has its memory.
	a.send(t, &pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, InitiatorTaskTag: 999, ReferencedTaskTag: r2t.InitiatorTaskTag, CmdSN: a.CmdSN}, nil)
	Expect[*pdu.TaskResponse](t, a.Initiator)
	if res, err := b.Finish(read, tag); err != nil || !bytes.Equal(res.Data, b.volumes[0].b) {
		t.Errorf("%v, %d bytes", err, len(res.Data))
	}
	// The end of a session gives its memory back, too.
	a.keep(t, 8*mib)
	if tag, err = b.Start(read); err != nil {
		t.Fatal(err)
	}
	b.quiet(t)
	a.Conn.Close()
	if res, err := b.Finish(read, tag); err != nil || !bytes.Equal(res.Data, b.volumes[0].b) {
		t.Errorf("%v, %d bytes", err, len(res.Data))
	}
}

// Data that comes unasked for is refused when there is no place for it, and the
// session goes on.
func TestUnaskedDataWithoutMemoryIsRefused(t *testing.T) {
	c := withMemory(t, 8*mib, 8*mib, time.Hour)
	c.join(t, "greedy", 9*mib).keep(t, 8*mib)
	c.join(t, "greedy", 9*mib).keep(t, mib)
	last := c.join(t, "other", 9*mib)
	last.keep(t, 2*mib) // the last of the pool
	if n := c.Free(); n != 0 {
		t.Fatalf("%d bytes are left", n)
	}
	r := c.join(t, "victim", 8*mib)
	v := r.volumes[0]
	v.puts.shut()
	w := Write10(0, 0, bytes.Repeat([]byte{9}, 256<<10))
	w.CDB[1] = 0x08 // FUA: it waits for the disk on a goroutine of its own
	w.Unasked = len(w.Write)
	tags := map[pdu.TaskTag]bool{}
	for range 4 {
		tag, err := r.Start(w)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = true
	}
	eventually(t, func() bool { return v.puts.waiting.Load() == 4 }, "four writes wait for the disk")
	for _, immediate := range []int{0, 8192, 256 << 10} {
		w := w
		w.Immediate, w.Unasked = immediate, len(w.Write)-immediate
		if res, err := r.Do(w); err != nil || res.Status != scsi.StatusTaskSetFull {
			t.Fatalf("%v, status %02X", err, res.Status)
		}
	}
	w.Write, w.Immediate, w.Unasked = w.Write[:4096], 4096, 0
	if res, err := r.Do(w); err != nil || res.Status != scsi.StatusTaskSetFull {
		t.Fatalf("a small one: %v, status %02X", err, res.Status)
	}
	r.quiet(t)
	v.puts.open()
	for len(tags) > 0 {
		p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator)
		if !tags[p.InitiatorTaskTag] || p.Status != 0 {
			t.Fatalf("%+v", p)
		}
		delete(tags, p.InitiatorTaskTag)
	}
	r.Must(t, w)
}

// Commands that look at the medium and send nothing of it need memory, too.
func TestVerifyTakesMemory(t *testing.T) {
	c := withMemory(t, 8*mib, 8*mib, time.Hour)
	c.join(t, "greedy", 9*mib).keep(t, 8*mib)
	c.join(t, "other", 9*mib).keep(t, 2*mib) // the last of the pool
	r := c.join(t, "victim", 8*mib)
	v := r.volumes[0]
	v.gets.shut()
	const n = 20
	for range n {
		r.send(t, r.command(0x2f, 8, func(q *pdu.SCSICommand) { q.Read, q.ExpectedDataTransferLength = false, 0 }), nil)
	}
	r.quiet(t)
	eventually(t, func() bool { return v.gets.waiting.Load() == 1+4 }, "one looks anyway, and as many as its own memory holds")
	time.Sleep(20 * time.Millisecond)
	if k := v.gets.waiting.Load(); k != 1+4 {
		t.Errorf("%d look at a time", k)
	}
	v.gets.open()
	for range n {
		if p, _ := Expect[*pdu.SCSIResponse](t, r.Initiator); p.Status != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// Who keeps memory that others wait for, and does nothing with it, is ended; who
// waits for a disk is not.
func TestKeptMemoryComesBack(t *testing.T) {
	const patience = 150 * time.Millisecond
	for _, k := range []struct {
		name  string
		keep  func(t *testing.T, r *rig)
		ended bool
	}{
		{"an initiator that does not send what it was asked for", func(t *testing.T, r *rig) { r.keep(t, 8*mib) }, true},
		{"one that does not read", func(t *testing.T, r *rig) { r.send(t, r.command(0x28, 8*mib/512, nil), nil) }, true},
		{"one that does not read what waited for a disk", func(t *testing.T, r *rig) {
			r.volumes[0].cold.Store(true)
			r.send(t, r.command(0x28, 8*mib/512, nil), nil)
		}, true},
		{"a slow disk", func(t *testing.T, r *rig) {
			v := r.volumes[0]
			v.cold.Store(true)
			v.gets.shut()
			r.send(t, r.command(0x28, 8*mib/512, nil), nil)
			eventually(t, func() bool { return v.gets.waiting.Load() > 0 }, "it reads")
		}, false},
	} {
		t.Run(k.name, func(t *testing.T) {
			c := withMemory(t, 8*mib, 8*mib, patience)
			a, b := c.join(t, "a", 8*mib), c.join(t, "b", 8*mib)
			k.keep(t, a)
			eventually(t, func() bool { return c.Free() == mib }, "it keeps the memory")
			time.Sleep(2 * patience)
			if a.session.Ended() {
				t.Fatal("nobody waits, and it is ended")
			}
			read := Read10(0, 0, 8*mib/512)
			tag, err := b.Start(read)
			if err != nil {
				t.Fatal(err)
			}
			if !k.ended {
				time.Sleep(3 * patience)
				if a.session.Ended() {
					t.Fatal("it is ended for its disk")
				}
				a.volumes[0].gets.open()
				go io.Copy(io.Discard, a.Conn)
			}
			if res, err := b.Finish(read, tag); err != nil || !bytes.Equal(res.Data, b.volumes[0].b) {
				t.Errorf("%v, %d bytes", err, len(res.Data))
			}
			if k.ended {
				if why := a.reason(t); !strings.Contains(why, "others had to wait for the memory") {
					t.Errorf("the reason is %q", why)
				}
			}
		})
	}
}

// Sessions that ask for all they may and read nothing hold no more than is
// stated, all of them together.
func TestMemoryOfAllSessionsIsBounded(t *testing.T) {
	const sessions, pool = 24, 32 * mib
	c := withMemory(t, pool, pool, time.Hour)
	heap := func() int {
		runtime.GC()
		runtime.GC() // the first leaves what pools keep for one more round
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	var all []*rig
	for n := range sessions {
		all = append(all, c.join(t, fmt.Sprint("greedy-", n%4), 8*mib))
	}
	before := heap()
	for n, r := range all {
		r.volumes[0].cold.Store(n%2 == 0)
		_ = r.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		var err error
		for k := 0; k < 40 && err == nil; k++ { // until the target has had enough of it
			switch {
			case n%3 == 0:
				err = r.Send(r.command(0x2a, 8*mib/512, wholeWrite), nil) // data that is asked for and never comes
			case k%2 == 0:
				err = r.Send(r.command(0x28, 8*mib/512, nil), nil) // data that is never read
			default: // data that comes and is never answered
				err = r.Send(r.command(0x2a, 512, func(q *pdu.SCSICommand) { q.CDB[1] = 0x08 }), make([]byte, 256<<10))
			}
		}
	}
	time.Sleep(300 * time.Millisecond)
	grew, bound := heap()-before, pool+sessions*(mib+512<<10)
	t.Logf("%d sessions hold %d KiB, %d are the bound", sessions, grew>>10, bound>>10)
	if grew > bound {
		t.Errorf("%d sessions hold %d KiB", sessions, grew>>10)
	}
	if grew < pool/2 {
		t.Errorf("they hold %d KiB: nothing was tried", grew>>10)
	}
}

// A crowd with too little memory, aborts and sudden ends: every byte is right,
// everybody comes to an end, and all memory comes back.
func TestACrowdWithLittleMemory(t *testing.T) {
	c := withMemory(t, 6*mib, 4*mib, time.Hour)
	var wg sync.WaitGroup
	for n := range 8 {
		r := c.join(t, fmt.Sprint(n%3), 4*mib)
		r.Timeout = 30 * time.Second
		rnd := rand.New(rand.NewPCG(uint64(n), 7))
		r.volumes[0].cold.Store(n%2 == 0)
		wg.Go(func() {
			for range 10 {
				blocks := uint16(1 + rnd.IntN(4*mib/512))
				if rnd.IntN(3) == 0 {
					w := Write10(0, 0, bytes.Clone(r.volumes[0].b[:int(blocks)*512]))
					w.Segment = 256 << 10
					if rnd.IntN(2) == 0 {
						w.Immediate = min(len(w.Write), 64<<10)
					}
					res, err := r.Do(w)
					if err != nil || res.Status != 0 && res.Status != scsi.StatusTaskSetFull {
						t.Errorf("session %d: write: %v, status %02X", n, err, res.Status)
						return
					}
					continue
				}
				res, err := r.Do(Read10(0, 0, blocks))
				if err != nil || res.Status != 0 || !bytes.Equal(res.Data, r.volumes[0].b[:int(blocks)*512]) {
					t.Errorf("session %d: read of %d blocks: %v, status %02X", n, blocks, err, res.Status)
					return
				}
			}
			if n%4 == 0 { // it goes while it waits
				_, _ = r.Start(Read10(0, 0, 4*mib/512))
				_, _ = r.Start(Write10(0, 0, make([]byte, 4*mib)))
				r.Conn.Close()
			}
		})
	}
	wg.Wait()
}
