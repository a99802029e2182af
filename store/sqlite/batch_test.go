package sqlite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/store"
)

func openTestDB(t testing.TB) *DB {
	t.Helper()
	db, err := Open(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func testLease(n int) store.Lease {
	return store.Lease{Address: netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), MAC: store.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)},
		State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}
}

// hold stops the group commit until the returned function is called, so that
// writers gather.
func hold(t *testing.T, db *DB) (release func()) {
	t.Helper()
	db.batch.last.Store(2) // nobody commits alone
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.batch.do(context.Background(), "hold", func(*tx) error {
			close(entered)
			<-leave
			return nil
		})
	}()
	<-entered
	return sync.OnceFunc(func() {
		close(leave)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// queued waits until n writers wait.
func queued(db *DB, n int) {
	for len(db.batch.queue) < n {
		time.Sleep(time.Millisecond)
	}
}

func TestWritersShareACommit(t *testing.T) {
	db := openTestDB(t)
	release := hold(t, db)
	defer release()
	const writers = 200
	var wg sync.WaitGroup
	for n := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := db.PutLease(context.Background(), testLease(n)); err != nil {
				t.Error(err)
			}
		}()
	}
	queued(db, writers)
	before := db.Revision()
	release()
	wg.Wait()
	if got := db.Revision() - before; got != 1 {
		t.Errorf("%d writers made %d commits", writers, got)
	}
	if ls, err := db.Leases(t.Context()); len(ls) != writers || err != nil {
		t.Errorf("%d leases, %v", len(ls), err)
	}
}

func TestFailedWriteUndoesItselfAlone(t *testing.T) {
	db := openTestDB(t)
	release := hold(t, db)
	defer release()
	wrong := errors.New("wrong")
	results := make([]error, 20)
	var wg sync.WaitGroup
	for n := range results {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[n] = db.batch.do(context.Background(), "try", func(x *tx) error {
				if _, err := x.Run("INSERT INTO setting (key, value) VALUES (?, 'x')", fmt.Sprint(n)); err != nil {
					return err
				}
				x.move(changed)
				if n%2 == 1 {
					return wrong
				}
				return nil
			})
		}()
	}
	queued(db, len(results))
	release()
	wg.Wait()
	for n, err := range results {
		_, found, serr := db.Setting(t.Context(), fmt.Sprint(n))
		if errors.Is(err, wrong) != (n%2 == 1) || found != (n%2 == 0) || serr != nil {
			t.Errorf("write %d: %v; found %v, %v", n, err, found, serr)
		}
	}
}

func TestRefusedWriteMovesNoRevision(t *testing.T) {
	db := openTestDB(t)
	before := db.Revision()
	err := db.batch.do(t.Context(), "try", func(x *tx) error {
		x.move(mapped)
		return store.Invalid("x", "no")
	})
	if store.KindOf(err) != store.KindInvalid || db.Revision() != before || db.MapRevision() != 0 {
		t.Errorf("%v; revision %d, map revision %d", err, db.Revision(), db.MapRevision())
	}
}

func TestCallerThatLeavesDoesNotStopTheOthers(t *testing.T) {
	db := openTestDB(t)
	release := hold(t, db)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { left <- db.PutLease(ctx, testLease(1)) }()
	queued(db, 1)
	go func() { stayed <- db.PutLease(context.Background(), testLease(2)) }()
	queued(db, 2)
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that left: %v", err)
	}
	release()
	if err := <-stayed; err != nil {
		t.Errorf("the caller that stayed: %v", err)
	}
	if _, err := db.LeaseByMAC(t.Context(), testLease(1).MAC); !store.IsNotFound(err) {
		t.Errorf("the lease of a caller that left before its turn: %v", err)
	}
}

// A disk that hangs must not keep who writes alone.
func TestALoneWriteHonoursItsCaller(t *testing.T) {
	db := openTestDB(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	ended := make(chan struct{})
	err := db.batch.do(ctx, "try", func(*tx) error {
		defer close(ended)
		select {
		case <-ctx.Done():
			time.Sleep(50 * time.Millisecond) // the caller is told first
			return nil
		case <-time.After(5 * time.Second):
			return errors.New("it was not bounded")
		}
	})
	select {
	case <-ended:
		t.Error("the caller waited for the disk")
	default:
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller was told %v", err)
	}
	<-ended
}

func TestFullQueueBlocksAndHonoursItsCaller(t *testing.T) {
	db := openTestDB(t)
	release := hold(t, db)
	defer release()
	var wg sync.WaitGroup
	for n := range batchQueue {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := db.PutLease(context.Background(), testLease(n)); err != nil {
				t.Error(err)
			}
		}()
	}
	queued(db, batchQueue)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := db.PutLease(ctx, testLease(batchQueue)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	release()
	wg.Wait()
	if ls, err := db.Leases(t.Context()); len(ls) != batchQueue || err != nil {
		t.Errorf("%d leases, %v", len(ls), err)
	}
}

func TestCloseFinishesWhatWasAccepted(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	release := hold(t, db)
	results := make(chan error, 50)
	for n := range cap(results) {
		go func() { results <- db.PutLease(context.Background(), testLease(n)) }()
	}
	queued(db, cap(results))
	closed := make(chan error, 2)
	go func() { closed <- db.Close() }()
	go func() { closed <- db.Close() }()
	release()
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for range cap(closed) {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	if db, err = Open(t.Context(), dir, time.Now); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if ls, err := db.Leases(t.Context()); len(ls) != cap(results) || err != nil {
		t.Errorf("%d leases after the end, %v", len(ls), err)
	}
}

func TestFinishedJobsAreBounded(t *testing.T) {
	db := openTestDB(t)
	running, err := db.CreateJob(t.Context(), store.Job{Kind: "volume.import"})
	if err != nil {
		t.Fatal(err)
	}
	err = db.write(t.Context(), "fill", func(x *tx) error {
		for range maxJobs + 5 {
			if _, err := x.Run("INSERT INTO job (kind, subject, state, done, total, error, started, finished) VALUES ('x', '', 'done', 0, 0, '', 1, 1)"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateJob(t.Context(), store.Job{Kind: "volume.import"}); err != nil {
		t.Fatal(err)
	}
	jobs, err := db.Jobs(t.Context())
	if err != nil || len(jobs) != maxJobs+2 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if jobs[len(jobs)-1].ID != running.ID {
		t.Error("the job that runs was forgotten")
	}
}

// One commit for each lease is what a server without group commit pays.
func BenchmarkPutLease(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		db := openTestDB(b)
		for n := 0; b.Loop(); n++ {
			if err := db.PutLease(context.Background(), testLease(n%4096)); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, writers := range []int{8, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			db := openTestDB(b)
			var next atomic.Int64
			var wg sync.WaitGroup
			before := db.Revision()
			for range writers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for {
						n := next.Add(1)
						if n > int64(b.N) {
							return
						}
						if err := db.PutLease(context.Background(), testLease(int(n%65536))); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(db.Revision()-before), "leases/commit")
		})
	}
}

func BenchmarkMachineByMAC(b *testing.B) {
	db := openTestDB(b)
	for n := range 1000 {
		name := fmt.Sprintf("lab-%d", n)
		_, err := db.CreateMachine(b.Context(), "bench", store.Machine{Name: name, MACs: []store.MAC{testMAC(n)}, Initiator: store.IQN("iqn.2026-11.lab:" + name), Auth: store.AuthNone, Profile: "san"})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.RunParallel(func(p *testing.PB) {
		for n := 0; p.Next(); n++ {
			if _, err := db.MachineByMAC(context.Background(), testMAC(n%1000)); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkAppendEvents(b *testing.B) {
	j := openTestJournal(b, b.TempDir())
	seq := 1
	for b.Loop() {
		if err := j.AppendEvents(context.Background(), boots(seq, 100)); err != nil {
			b.Fatal(err)
		}
		seq += 100
	}
	b.ReportMetric(float64(b.N)*100/b.Elapsed().Seconds(), "events/s")
}
