package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is an event log in memory that can fail, block, or fail after it has
// committed.
type table struct {
	mu      sync.Mutex
	rows    []store.Event
	batches []int
	fail    func(n int) (before, after error) // by call
	calls   int
	gate    chan struct{} // when set, each write waits for it
}

func (t *table) AppendEvents(ctx context.Context, all []store.Event) error {
	if t.gate != nil {
		select {
		case <-t.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	var before, after error
	if t.fail != nil {
		before, after = t.fail(t.calls)
	}
	if before != nil {
		return before
	}
	for i, e := range all {
		if n := len(t.rows); n > 0 && t.rows[n-1].Seq >= e.Seq || i > 0 && all[i-1].Seq+1 != e.Seq {
			return fmt.Errorf("event %d does not follow", e.Seq)
		}
		t.rows = append(t.rows, e)
	}
	t.batches = append(t.batches, len(all))
	return after
}

func (t *table) LastSeq(context.Context) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.rows) == 0 {
		return 0, nil
	}
	return t.rows[len(t.rows)-1].Seq, nil
}

func (t *table) Events(_ context.Context, f store.EventFilter) ([]store.Event, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []store.Event
	for _, e := range t.rows {
		if e.Seq > f.After && len(out) < f.Limit {
			out = append(out, e)
		}
	}
	return out, nil
}

func (t *table) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.rows)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t *testing.T, log Log) *Journal {
	t.Helper()
	j, err := New(log, quiet(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// serve runs the journal until the returned stop, which gives Serve's answer.
func serve(j *Journal) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Serve(ctx) }()
	return func() error { cancel(); return <-done }
}

func discover(n int) store.Event {
	return store.Event{Kind: store.EventDHCPDiscover, Detail: store.Detail{Secs: n}}
}

func sample() store.Event { return store.Event{Kind: store.EventISCSIIO} }

func TestEventsAreNumberedWithoutHolesAndWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &table{rows: []store.Event{{Seq: 41}}}
		j := open(t, log)
		stop := serve(j)
		for i := range 1000 {
			j.Emit(discover(i))
		}
		time.Sleep(time.Second)
		if log.count() != 1001 {
			t.Errorf("%d events are in the log", log.count())
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for i, e := range log.rows[1:] {
			if e.Seq != int64(42+i) || e.Detail.Secs != i || e.At.IsZero() {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
		if j.LastSeq() != 1041 {
			t.Errorf("the last number is %d", j.LastSeq())
		}
	})
}

func TestABatchWaitsFor50MillisecondsOrIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &table{}
		j := open(t, log)
		stop := serve(j)
		synctest.Wait()
		j.Emit(discover(1))
		time.Sleep(49 * time.Millisecond)
		if log.count() != 0 {
			t.Error("a batch of one did not wait for company")
		}
		j.Emit(discover(2))
		time.Sleep(2 * time.Millisecond)
		if log.count() != 2 || len(log.batches) != 1 {
			t.Errorf("%d events in batches of %v", log.count(), log.batches)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestEmitNeverWaitsForTheLog(t *testing.T) {
	log := &table{gate: make(chan struct{})}
	j := open(t, log)
	stop := serve(j)
	began := time.Now()
	for i := range 20000 {
		j.Emit(discover(i))
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("20,000 events took %s while the log was stuck", took)
	}
	if got, _ := j.After(context.Background(), 19990, 100); len(got) != 10 || got[9].Detail.Secs != 19999 {
		t.Errorf("readers do not see what is not written yet: %d", len(got))
	}
	close(log.gate)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if log.count() != 20000 {
		t.Errorf("%d events were written", log.count())
	}
}

func TestSamplesAreDroppedFirstAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &table{gate: make(chan struct{})}
		j := open(t, log)
		j.limits = limits{ring: 100, overflow: 50, keep: 10}
		stop := serve(j)
		for range 100 {
			j.Emit(sample())
		}
		for range 7 {
			j.Emit(sample()) // no room any more
		}
		for i := range 50 {
			j.Emit(discover(i)) // still room for states
		}
		if j.LastSeq() != 150 {
			t.Errorf("%d events are held", j.LastSeq())
		}
		j.Emit(discover(50)) // and now none for these either
		if j.LastSeq() != 150 {
			t.Error("memory is not bounded")
		}
		close(log.gate)
		time.Sleep(time.Second)
		j.Emit(discover(99))
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		all := log.rows
		if len(all) != 152 {
			t.Fatalf("%d events were written", len(all))
		}
		told := all[150]
		if told.Kind != store.EventDropped || told.Detail.Bytes != 8 || told.Detail.Reason != "1 states and 7 samples were left out, because the event log could not be written for a long time" {
			t.Errorf("%+v", told)
		}
		if all[151].Detail.Secs != 99 {
			t.Errorf("%+v", all[151])
		}
	})
}

// A log that fails at random, before or after its commit: nothing is lost and
// nothing is there twice.
func TestALogThatFailsLosesNothing(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			dice, pauses := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
			broken := errors.New("disk full")
			log := &table{fail: func(int) (error, error) {
				switch dice.IntN(4) {
				case 0:
					return broken, nil
				case 1:
					return nil, broken
				}
				return nil, nil
			}}
			j := open(t, log)
			stop := serve(j)
			for i := range 3000 {
				j.Emit(discover(i))
				if i%100 == 0 {
					time.Sleep(time.Duration(pauses.IntN(400)) * time.Millisecond)
				}
			}
			if err := stop(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if len(log.rows) != 3000 {
				t.Fatalf("seed %d: %d events were written", seed, len(log.rows))
			}
			for i, e := range log.rows {
				if e.Detail.Secs != i {
					t.Fatalf("seed %d: event %d is %d", seed, i, e.Detail.Secs)
				}
			}
		})
	}
}

func TestALogThatNeverComesBackIsNamedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &table{fail: func(int) (error, error) { return errors.New("disk full"), nil }}
		j := open(t, log)
		stop := serve(j)
		j.Emit(discover(1))
		time.Sleep(time.Minute)
		began := time.Now()
		err := stop()
		if err == nil || err.Error() != "the last 1 events could not be written: disk full" {
			t.Errorf("%v", err)
		}
		if time.Since(began) > drainTime+time.Second {
			t.Errorf("the end took %s", time.Since(began))
		}
		if log.calls > 100 {
			t.Errorf("it was tried %d times", log.calls)
		}
	})
}

func TestAReaderFollowsFromMemoryAndFromTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &table{}
		j := open(t, log)
		j.limits.keep = 100
		stop := serve(j)
		for i := range 2000 {
			j.Emit(discover(i))
		}
		time.Sleep(time.Second)
		var got []store.Event
		for seq := int64(0); ; {
			part, err := j.After(t.Context(), seq, 300)
			if err != nil {
				t.Fatal(err)
			}
			if len(part) == 0 {
				break
			}
			got = append(got, part...)
			seq = part[len(part)-1].Seq
		}
		if len(got) != 2000 {
			t.Fatalf("%d events", len(got))
		}
		for i, e := range got {
			if e.Seq != int64(i+1) {
				t.Fatalf("event %d has number %d", i, e.Seq)
			}
		}
		// The table was pruned: what memory holds is still there.
		log.mu.Lock()
		log.rows = nil
		log.mu.Unlock()
		if part, _ := j.After(t.Context(), 5, 300); len(part) != 100 || part[0].Seq != 1901 {
			t.Errorf("%d events after a prune", len(part))
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAReaderIsWoken(t *testing.T) {
	j := open(t, &table{})
	j.Emit(discover(1))
	select {
	case <-j.Wake(0):
	default:
		t.Error("there is news already")
	}
	wake := j.Wake(1)
	select {
	case <-wake:
		t.Error("there is no news yet")
	default:
	}
	j.Emit(discover(2))
	select {
	case <-wake:
	case <-time.After(time.Second):
		t.Error("nobody was woken")
	}
}

func TestManyEmitAndReadAtOnce(t *testing.T) {
	log := &table{}
	j := open(t, log)
	stop := serve(j)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				j.Emit(discover(i))
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			var seen int64
			for seen < 16000 {
				<-j.Wake(seen)
				part, err := j.After(t.Context(), seen, 512)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range part {
					if e.Seq != seen+1 {
						t.Errorf("%d follows %d", e.Seq, seen)
						return
					}
					seen = e.Seq
				}
			}
		})
	}
	wg.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if log.count() != 16000 {
		t.Errorf("%d events were written", log.count())
	}
}

func TestALogThatCannotBeReadIsFatal(t *testing.T) {
	if _, err := New(&brokenLog{}, quiet(), time.Now); err == nil {
		t.Error("it opened")
	}
}

type brokenLog struct{ table }

func (*brokenLog) LastSeq(context.Context) (int64, error) { return 0, errors.New("not a database") }

func BenchmarkEmit(b *testing.B) {
	j, _ := New(&table{}, quiet(), time.Now)
	stop := serve(j)
	b.ReportAllocs()
	for b.Loop() {
		j.Emit(sample())
	}
	_ = stop()
}

// What a reader was given is its own to append to, although memory is shared.
func TestAReaderThatAppendsDisturbsNobody(t *testing.T) {
	j := open(t, &table{})
	j.Emit(discover(1))
	part, err := j.After(t.Context(), 0, 10)
	if err != nil || len(part) != 1 {
		t.Fatalf("%d events, %v", len(part), err)
	}
	j.Emit(discover(2))
	_ = append(part, discover(99))
	if all, err := j.After(t.Context(), 0, 10); err != nil || len(all) != 2 || all[1].Detail.Secs != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}
