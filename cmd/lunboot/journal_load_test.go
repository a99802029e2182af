package main

import (
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

	"lunboot/services/attempts"
	"lunboot/services/events"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// Fifty thousand events a second, on the table that users have, with a reader
// that follows and the runner of attempts beside it: no state event is lost, all
// are in order, and nobody who emits waits. LUNBOOT_SOAK=1 makes it ten seconds.
func TestFiftyThousandEventsASecondAreKeptInOrder(t *testing.T) {
	const rate, emitters = 50_000, 25 // services, and workers of them
	length := time.Second
	if os.Getenv("LUNBOOT_SOAK") != "" {
		length = 10 * time.Second
	}
	for name, samples := range map[string]int{"states alone": 0, "nine samples to each state": 9} {
		t.Run(name, func(t *testing.T) { flood(t, rate, emitters, samples, length) })
	}
}

func flood(t *testing.T, rate, emitters, samples int, length time.Duration) {
	dir, quiet := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	table, err := sqlite.OpenJournal(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	journal, err := events.New(table, quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	runner := attempts.New(journal, table, contents{DB: db}, quiet, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var services sync.WaitGroup
	services.Go(func() {
		if err := journal.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	services.Go(func() {
		if err := runner.Serve(ctx); err != nil {
			t.Log("the boots' cache is behind at the end, and is folded anew from the table at the next start")
		}
	})

	// A reader, as the log page and the stream are.
	var emitted atomic.Int64
	over := make(chan struct{})
	follow := reader{emitters: make([]int, emitters)}
	services.Go(func() { follow.read(ctx, t, journal, over) })

	begun := time.Now()
	waits := make([][]time.Duration, emitters)
	each := rate / emitters
	var writers sync.WaitGroup
	for w := range emitters {
		writers.Go(func() {
			n := 0
			for sent := 0; time.Since(begun) < length; {
				for due := int(time.Since(begun).Seconds() * float64(each)); sent < due; sent++ {
					e := store.Event{Kind: store.EventISCSIIO, MAC: store.MAC{2, 0, 0, 0, 0, byte(w)}, Detail: store.Detail{Session: fmt.Sprint(w), Bytes: int64(sent)}}
					if sent%(samples+1) == 0 {
						n++
						e.Kind, e.Detail = store.EventDHCPDiscover, store.Detail{Interface: "eth0", PXE: true, Firmware: "BIOS", Arch: "x86", Secs: n, Hostname: fmt.Sprint(w)}
					}
					at := time.Now()
					journal.Emit(e)
					waits[w] = append(waits[w], time.Since(at))
					emitted.Add(1)
				}
				time.Sleep(time.Millisecond)
			}
			follow.want(w, n)
		})
	}
	writers.Wait()
	took := time.Since(begun)
	waiting, dropped := journal.Counts()
	close(over)
	if !follow.wait(t, time.Minute) {
		t.Fatal("the reader did not come to the end within a minute")
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if left, _ := journal.Counts(); left == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d events are not written a minute later", left)
		}
	}
	written := time.Since(begun)
	cancel()
	services.Wait()
	var all []time.Duration
	for _, w := range waits {
		all = append(all, w...)
	}
	slices.Sort(all)
	t.Logf("%d events in %.1f s, %.0f a second; in the table after %.1f s, of them %d waited at the end; %d samples dropped; Emit took %v (p50), %v (p99.9), %v at most",
		emitted.Load(), took.Seconds(), float64(emitted.Load())/took.Seconds(), written.Seconds(), waiting, dropped, all[len(all)/2], all[len(all)*999/1000], all[len(all)-1])
	checkTable(t, table, follow.wanted)
	if samples == 0 && dropped > 0 {
		t.Errorf("%d states were dropped", dropped)
	}
}

// reader follows the journal by cursor and checks what it is given.
type reader struct {
	emitters []int // the last state of each that was seen
	mu       sync.Mutex
	wanted   map[int]int
	done     chan struct{}
	once     sync.Once
}

func (r *reader) want(emitter, states int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted == nil {
		r.wanted = map[int]int{}
	}
	r.wanted[emitter] = states
}

func (r *reader) finished() chan struct{} {
	r.once.Do(func() { r.done = make(chan struct{}) })
	return r.done
}

// read follows until everything that was emitted before over has been seen.
func (r *reader) read(ctx context.Context, t *testing.T, journal *events.Journal, over <-chan struct{}) {
	var seen int64
	for {
		all, err := journal.After(ctx, seen, 0)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		for _, e := range all {
			if e.Seq != seen+1 {
				t.Errorf("event %d follows %d", e.Seq, seen)
				return
			}
			seen = e.Seq
			order(t, r.emitters, e)
		}
		if len(all) > 0 {
			continue
		}
		select {
		case <-over:
			if journal.LastSeq() == seen {
				close(r.finished())
				return
			}
		case <-journal.Wake(seen):
		case <-ctx.Done():
			return
		}
	}
}

// order checks that each emitter's states come without a hole.
func order(t *testing.T, last []int, e store.Event) {
	if e.Kind != store.EventDHCPDiscover {
		return
	}
	var w int
	if _, err := fmt.Sscan(e.Detail.Hostname, &w); err != nil || w >= len(last) {
		t.Errorf("event %d: %+v", e.Seq, e)
		return
	}
	if e.Detail.Secs != last[w]+1 {
		t.Errorf("state %d of emitter %d follows state %d", e.Detail.Secs, w, last[w])
	}
	last[w] = e.Detail.Secs
}

func (r *reader) wait(t *testing.T, most time.Duration) bool {
	t.Helper()
	select {
	case <-r.finished():
	case <-time.After(most):
		return false
	}
	r.check(t, r.emitters)
	return true
}

func (r *reader) check(t *testing.T, got []int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for w, n := range r.wanted {
		if got[w] != n {
			t.Errorf("emitter %d told of %d states, %d came", w, n, got[w])
		}
	}
}

// checkTable reads what outlives the process.
func checkTable(t *testing.T, table *sqlite.Journal, want map[int]int) {
	t.Helper()
	last := make([]int, len(want))
	r := reader{wanted: want}
	for seen := int64(0); ; {
		all, err := table.Events(t.Context(), store.EventFilter{After: seen, Limit: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			break
		}
		for _, e := range all {
			if e.Seq != seen+1 {
				t.Fatalf("event %d follows %d in the table", e.Seq, seen)
			}
			seen = e.Seq
			order(t, last, e)
		}
	}
	r.check(t, last)
}
