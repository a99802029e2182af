package main

import (
	"context"
	"sync"
	"time"

	"lunboot/store"
)

// How often the target's counters are read, and for how long that is remembered.
const (
	throughputEvery = 30 * time.Second
	throughputKept  = 120
)

// throughput remembers what all machines read and wrote in the last hour: a
// service.
type throughput struct {
	moved func() (read, written int64) // bytes since the start
	now   func() time.Time

	mu      sync.Mutex
	samples []store.Throughput // oldest first
	last    struct {
		at            time.Time
		read, written int64
	}
}

func (t *throughput) String() string { return "measuring of reads and writes" }

// Listen binds nothing.
func (t *throughput) Listen() error { return nil }

// Serve reads the counters until ctx ends.
func (t *throughput) Serve(ctx context.Context) error {
	tick := time.NewTicker(throughputEvery)
	defer tick.Stop()
	for {
		t.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look reads the counters. The first look only begins the measurement. A counter
// may fall for a moment, when a session is between those that live and those
// that ended: nothing was moved then.
func (t *throughput) look() {
	read, written := t.moved()
	at := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if took := at.Sub(t.last.at).Seconds(); !t.last.at.IsZero() && took > 0 {
		t.samples = append(t.samples, store.Throughput{At: at, Read: float64(max(0, read-t.last.read)) / took, Written: float64(max(0, written-t.last.written)) / took})
		if over := len(t.samples) - throughputKept; over > 0 {
			t.samples = append(t.samples[:0], t.samples[over:]...)
		}
	}
	t.last.at, t.last.read, t.last.written = at, max(read, t.last.read), max(written, t.last.written)
}

// Throughput is the last hour, oldest first.
func (t *throughput) Throughput() []store.Throughput {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]store.Throughput(nil), t.samples...)
}

// moved is what machines read and wrote since the start. Those that ended come
// first: one that ends between the two is missed for a moment, and not counted
// twice for ever.
func (a *appliance) moved() (read, written int64) {
	read, written = a.seen.read.Load(), a.seen.written.Load()
	for _, s := range a.target.Sessions() {
		read += s.Read
		written += s.Written
	}
	return read, written
}
