package iscsi_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// slowVolume needs a while for everything that goes to its disk.
type slowVolume struct {
	*memory
	wait func(context.Context) error
}

func (v slowVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.wait(ctx); err != nil {
		return err
	}
	return v.memory.ReadAt(ctx, p, off)
}

func (v slowVolume) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := v.wait(ctx); err != nil {
		return err
	}
	return v.memory.WriteAt(ctx, p, off)
}

func (v slowVolume) Sync(ctx context.Context) error {
	if err := v.wait(ctx); err != nil {
		return err
	}
	return v.memory.Sync(ctx)
}

func (v slowVolume) Resident([]byte, int64) bool { return false }

// slowCatalog makes all volumes but one slow.
type slowCatalog struct {
	*catalog
	fast store.VolumeID
	wait func(context.Context) error
}

func (c slowCatalog) Open(ctx context.Context, i store.IQN, _ [6]byte) (iscsi.Map, error) {
	return c.Refresh(ctx, i)
}

func (c slowCatalog) Refresh(ctx context.Context, i store.IQN) (iscsi.Map, error) {
	m, err := c.catalog.Refresh(ctx, i)
	for lun, e := range m.LUNs {
		if e.VolumeID != c.fast {
			e.Volume = slowVolume{e.Volume.(*memory), c.wait}
			m.LUNs[lun] = e
		}
	}
	return m, err
}

// startSlow runs a target on which alice's volume is slow and bob's is not.
func startSlow(t testing.TB, wait func(context.Context) error) (b *bench, fast *memory) {
	t.Helper()
	b, fast = &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}, newMemory(64<<20)
	b.Server = iscsi.New(iscsi.Config{
		Listen: "127.0.0.1:0", Target: target, Catalog: slowCatalog{b.catalog, 2, wait}, Emit: b.journal,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: b.clock.now, LogoutTimeout: 20 * time.Millisecond, Tick: 10 * time.Millisecond,
	})
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, map[store.LUN]disk{1: {id: 2, volume: fast}})
	return b, fast
}

// slowCommand is the n-th command of the k-th session that uses the slow volume:
// some only read, the others only write. A small write runs where its session reads
// commands, until another goroutine reads there.
func slowCommand(k, n int) Command {
	if k%2 == 0 {
		return Read10(1, uint32(n%200)*8, 8)
	}
	c := Write10(1, uint32(n%200)*8, make([]byte, 4096))
	c.Immediate = 4096
	return c
}

// Four sessions wait for a disk with all that their windows allow. A neighbour's
// commands are answered, those that find their bytes in memory and those that
// have to wait for a disk of their own.
func TestADiskThatHangsStallsNoNeighbour(t *testing.T) {
	hang := make(chan struct{})
	var waiting atomic.Int64
	b, fast := startSlow(t, func(ctx context.Context) error {
		waiting.Add(1)
		select {
		case <-hang:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	defer close(hang)
	const sessions, each = 4, 32
	for k := range sessions {
		a := b.login(t, alice, Linux(uint16(k+1)))
		a.Must(t, Ready(1))
		for n := range each {
			if _, err := a.Start(slowCommand(k, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, func() bool { return waiting.Load() > sessions/2*each }, "all reads and a write are at the disk")
	o := b.login(t, bob, Linux(1))
	o.Must(t, Ready(1))
	for _, cold := range []bool{false, true} {
		fast.cold.Store(cold)
		for _, c := range []Command{Read10(1, 0, 8), Write10(1, 0, make([]byte, 4096)), Read10(1, 0, 128), Sync10(1)} {
			if len(c.Write) > 0 {
				c.Immediate = len(c.Write)
			}
			at := time.Now()
			o.Must(t, c)
			if d := time.Since(at); d > 100*time.Millisecond {
				t.Errorf("cold: %v: command %02X took %s", cold, c.CDB[0], d)
			}
		}
	}
}

// crowd fills the queues of n sessions with commands for alice's volume, or for as
// many volumes of their own, and waits until they are there.
func crowd(t *testing.T, b *bench, n int, own bool) {
	t.Helper()
	var all []*Initiator
	for k := range n {
		name := store.IQN(fmt.Sprintf("iqn.2026-11.test:crowd-%d", k/32))
		switch {
		case own:
			name = store.IQN(fmt.Sprintf("iqn.2026-11.test:alone-%d", k))
			b.enroll(name, map[store.LUN]disk{1: {id: store.VolumeID(100 + k), volume: newMemory(256 << 10)}})
		case k%32 == 0:
			b.enroll(name, b.catalog.luns[alice])
		}
		a := b.login(t, name, Linux(uint16(k+1)))
		a.Must(t, Ready(1))
		for j := range 32 {
			if _, err := a.Start(Read10(1, uint32(j)*8, 8)); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, a)
	}
	for _, a := range all {
		if got := manage(t, a, pdu.FuncAbortTask, 1, 1<<30); got != pdu.TaskDoesNotExist { // it answers when it has taken the READs
			t.Fatalf("response %d", got)
		}
	}
}

// A golden volume has hundreds of machines, and a disk hundreds of their clones. When
// it hangs with all that their windows allow, the disk of another volume is still
// worked at.
func TestADiskThatHangsUnderManyStallsNoNeighbour(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(map[bool]string{false: "one volume", true: "a volume each"}[own], func(t *testing.T) {
			hang := make(chan struct{})
			var waiting atomic.Int64
			b, fast := startSlow(t, func(context.Context) error { waiting.Add(1); <-hang; return nil })
			defer close(hang)
			crowd(t, b, 130, own)
			o := b.login(t, bob, Linux(1))
			o.Must(t, Ready(1))
			fast.cold.Store(true)
			at := time.Now()
			for range 32 { // and not only as many as have a place of their own
				if _, err := o.Start(Read10(1, 0, 8)); err != nil {
					t.Fatal(err)
				}
			}
			for ended := 0; ended < 32; {
				if p, _ := Expect[*pdu.DataIn](t, o); p.StatusFlag && p.Status == 0 {
					ended++
				}
			}
			o.Must(t, Sync10(1))
			if d := time.Since(at); d > time.Second {
				t.Errorf("it took %s", d)
			}
			if n := waiting.Load(); n == 0 || !own && n > scsi.MaxAtDisk {
				t.Errorf("%d commands are at the disk that hangs", n)
			}
		})
	}
}

// What only waits for its turn at a disk that hangs has not begun: it is aborted at
// once, is not executed when there is a place for it, and keeps no session from its
// end.
func TestWhatWaitsForAPlaceAtADiskEndsAtOnce(t *testing.T) {
	hang := make(chan struct{})
	var waiting atomic.Int64
	b, _ := startSlow(t, func(context.Context) error { waiting.Add(1); <-hang; return nil })
	var once sync.Once
	let := func() { once.Do(func() { close(hang) }) }
	defer let()
	crowd(t, b, scsi.MaxAtDisk/32, false)
	eventually(t, func() bool { return waiting.Load() == scsi.MaxAtDisk }, "the places are taken")

	o := b.login(t, alice, Linux(1000))
	o.Must(t, Ready(1))
	w := Write10(1, 0, bytes.Repeat([]byte{7}, 512))
	w.CDB[1], w.Immediate = 0x08, 512 // FUA
	tag, err := o.Start(w)
	if err != nil {
		t.Fatal(err)
	}
	o.Timeout = time.Second
	if got := manage(t, o, pdu.FuncAbortTask, 1, tag); got != pdu.TaskComplete {
		t.Errorf("response %d", got)
	}
	if _, err := o.Start(w); err != nil {
		t.Fatal(err)
	}
	manage(t, o, pdu.FuncAbortTask, 1, 1<<30) // it is taken
	if err := o.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return b.sessions(alice) == 0 }, "the session ends")
	let()
	last := b.login(t, alice, Linux(1001))
	last.Must(t, Ready(1))
	if got := last.Must(t, Read10(1, 0, 1)).Data; got[0] != 0 {
		t.Error("a WRITE was executed that was aborted before there was a place for it")
	}
}

// Goals of a neighbour of a volume that takes 200 ms for each access.
const (
	slowAccess       = 200 * time.Millisecond
	neighbourLatency = 1.3 // p99, with the slow volume at work by without
	neighbourRate    = 0.8
)

// neighbour measures what a slow volume costs another session: medians of the
// ratios over rounds that interleave, so that what else the machine does falls on
// both. Client and target share the process: what they cost each other is in
// both halves.
func neighbour(t testing.TB, rounds int, length time.Duration) (latency, rate float64) {
	b, _ := startSlow(t, func(ctx context.Context) error {
		select {
		case <-time.After(slowAccess):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var slow []*Initiator
	for k := range 4 {
		a := b.login(t, alice, Linux(uint16(k+1)))
		a.Must(t, Ready(1))
		slow = append(slow, a)
	}
	o := b.login(t, bob, Linux(1))
	o.Must(t, Ready(1))
	half := func(busy bool) (p99 time.Duration, perSecond float64) {
		var stop atomic.Bool
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop.Store(true)
		if busy {
			for k, a := range slow {
				wg.Go(func() {
					if err := keepBusy(a, k, &stop); err != nil {
						t.Error(err)
					}
				})
			}
			time.Sleep(20 * time.Millisecond) // until the queues are full
		}
		return measure(t, o, 4, length)
	}
	var latencies, rates []float64
	for k := range rounds {
		var p99 [2]time.Duration
		var perSecond [2]float64
		for n := range 2 {
			busy := (k + n) % 2 // each goes first in turn
			p99[busy], perSecond[busy] = half(busy == 1)
		}
		latencies = append(latencies, float64(p99[1])/float64(p99[0]))
		rates = append(rates, perSecond[1]/perSecond[0])
	}
	middle := func(all []float64) float64 { slices.Sort(all); return (all[(len(all)-1)/2] + all[len(all)/2]) / 2 }
	return middle(latencies), middle(rates)
}

// keepBusy keeps the k-th session's commands in flight, and returns when they
// have ended.
func keepBusy(i *Initiator, k int, stop *atomic.Bool) error {
	busy, depth := 0, 16
	if k%2 == 1 {
		depth = 2 // writes come one after the other
	}
	for n := 0; busy > 0 || !stop.Load(); {
		for ; busy < depth && !stop.Load(); busy, n = busy+1, n+1 {
			if _, err := i.Start(slowCommand(k, n)); err != nil {
				return err
			}
		}
		p, _, err := i.Recv()
		if err != nil {
			return err
		}
		switch p := p.(type) {
		case *pdu.SCSIResponse:
			busy--
		case *pdu.DataIn:
			if p.StatusFlag {
				busy--
			}
		}
	}
	return nil
}

// measure reads 4 KiB here and there, with some in flight, and returns the
// latency that one of a hundred exceeds and how many there were in a second.
func measure(t testing.TB, i *Initiator, depth int, length time.Duration) (p99 time.Duration, perSecond float64) {
	t.Helper()
	sent := map[pdu.TaskTag]time.Time{}
	var all []time.Duration
	start := time.Now()
	for n := uint32(0); len(sent) > 0 || time.Since(start) < length; {
		for ; len(sent) < depth && time.Since(start) < length; n++ {
			at := time.Now()
			tag, err := i.Start(Read10(1, n*7919%16000*8, 8))
			if err != nil {
				t.Fatal(err)
			}
			sent[tag] = at
		}
		p, _, err := i.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := p.(*pdu.DataIn); ok && d.StatusFlag && d.Status == 0 {
			all = append(all, time.Since(sent[d.InitiatorTaskTag]))
			delete(sent, d.InitiatorTaskTag)
			continue
		}
		if r, ok := p.(*pdu.SCSIResponse); ok {
			t.Fatalf("a READ ended with status %02X", r.Status)
		}
	}
	took := time.Since(start)
	slices.Sort(all)
	return all[len(all)*99/100], float64(len(all)) / took.Seconds()
}

func TestASlowVolumeSlowsNoNeighbour(t *testing.T) {
	if os.Getenv("LUNBOOT_SOAK") == "" {
		t.Skip("measures for ten seconds: set LUNBOOT_SOAK=1")
	}
	// On a busy machine the tail is the machine's: what is slow is slow each time.
	for range 3 {
		latency, rate := neighbour(t, 10, 500*time.Millisecond)
		t.Logf("beside a volume of %s an access, a session's p99 is %.2f times (at most %.1f wanted) and its rate %.2f times (at least %.1f) what it is alone", slowAccess, latency, neighbourLatency, rate, neighbourRate)
		if latency <= neighbourLatency && rate >= neighbourRate {
			return
		}
	}
	t.Error("that is too much")
}

// What the test of the same name judges, as figures.
func BenchmarkSlowNeighbour(b *testing.B) {
	latency, rate := neighbour(b, 10, 500*time.Millisecond)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(latency, "p99-ratio")
	b.ReportMetric(rate, "rate-ratio")
	if latency > neighbourLatency || rate < neighbourRate {
		b.Logf("below its goal: p99-ratio ≤ %.1f, rate-ratio ≥ %.1f wanted", neighbourLatency, neighbourRate)
	}
}
