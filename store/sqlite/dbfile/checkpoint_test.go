package dbfile

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// left is how many pages of the log are not in the file, and how many it has.
func (f *File) left(t *testing.T) (left, log int) {
	t.Helper()
	var busy, folded int
	if err := f.checkpoints.own.QueryRow("PRAGMA wal_checkpoint(NOOP)").Scan(&busy, &log, &folded); err != nil {
		t.Fatal(err)
	}
	return log - folded, log
}

// large writes a row that takes several pages.
func large(n int) func(*Tx) error {
	return func(x *Tx) error {
		_, err := x.Run("INSERT INTO blob (n, b) VALUES (?, randomblob(40000))", n)
		return err
	}
}

func openLarge(t *testing.T, path string) *File {
	t.Helper()
	f := open(t, path, config(1))
	if err := f.Write(t.Context(), func(x *Tx) error {
		_, err := x.Run("CREATE TABLE IF NOT EXISTS blob (n INTEGER PRIMARY KEY, b BLOB)")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return f
}

// A log that has grown long is folded into the file without a writer who does it,
// and the next writer begins it anew.
func TestALongLogIsFoldedBesideTheWriters(t *testing.T) {
	f := openLarge(t, filepath.Join(t.TempDir(), "x.db"))
	n := 0
	for wrote := 0; wrote < 3*checkpointAt; wrote += 10 {
		if err := f.Write(t.Context(), large(n)); err != nil {
			t.Fatal(err)
		}
		n++
	}
	end := time.Now().Add(30 * time.Second)
	for {
		left, _ := f.left(t)
		if left < checkpointAt {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d pages wait to be folded", left)
		}
		f.checkpoints.wake()
		time.Sleep(10 * time.Millisecond)
	}
	// What is folded to its end begins anew, so the log is bounded however long it goes on.
	for wrote := 0; wrote < 5*checkpointAt; wrote += 10 {
		if err := f.Write(t.Context(), large(n)); err != nil {
			t.Fatal(err)
		}
		n++
		if _, log := f.left(t); log > checkpointAnyway+1000 {
			t.Fatalf("the log has %d pages", log)
		}
	}
}

// A reader who sees an old state keeps seeing it while the log is folded, and
// everybody else sees the new one.
func TestAReaderKeepsItsStateWhileTheLogIsFolded(t *testing.T) {
	f := openLarge(t, filepath.Join(t.TempDir(), "x.db"))
	if err := f.Write(t.Context(), large(0)); err != nil {
		t.Fatal(err)
	}
	count := func(q Querier) (n int) {
		t.Helper()
		if err := q.QueryRowContext(t.Context(), "SELECT count(*) FROM blob").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	err := f.Read(t.Context(), func(q Querier) error {
		if n := count(q); n != 1 {
			t.Errorf("%d rows", n)
		}
		for n := 1; n < 300; n++ {
			if err := f.Write(t.Context(), large(n)); err != nil {
				return err
			}
		}
		if err := f.checkpoints.fold(t.Context()); err != nil {
			return err
		}
		if n := count(q); n != 1 {
			t.Errorf("%d rows in the middle of a look at 1", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(f.Reader()); n != 300 {
		t.Errorf("%d rows", n)
	}
	if err := f.checkpoints.fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The next writer begins the log anew only when all of it is in the file.
	if err := f.Write(t.Context(), insert(1)); err != nil {
		t.Fatal(err)
	}
	if n := count(f.Reader()); n != 300 {
		t.Errorf("%d rows", n)
	}
}

// Whatever the checkpointer does meanwhile, the file holds what was committed. (That a
// kill -9 loses nothing is seen with the leases of a whole appliance.)
func TestTheFileHoldsWhatWasWrittenWhileItWasFolded(t *testing.T) {
	dir := t.TempDir()
	f := openLarge(t, filepath.Join(dir, "x.db"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if err := f.checkpoints.fold(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for n := range 600 {
		if err := f.Write(t.Context(), large(n)); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "x.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var word string
	var n int
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&word); err != nil || word != "ok" {
		t.Errorf("%s, %v", word, err)
	}
	if err := db.QueryRow("SELECT count(*) FROM blob WHERE length(b) = 40000").Scan(&n); err != nil || n != 600 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// A disk that takes no more is told of once, and so is that it takes again.
func TestALogThatCannotBeFoldedIsToldOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lines
		k := &checkpointer{log: slog.New(slog.NewTextHandler(&said, nil))}
		fails := errors.New("input/output error")
		for range 100 {
			k.note(fails, "x.db")
			time.Sleep(time.Second)
		}
		if n := said.count("level=WARN"); n != 1 {
			t.Errorf("told %d times: %s", n, said.text())
		}
		k.note(nil, "x.db")
		k.note(nil, "x.db")
		if n := said.count("folded into the database again"); n != 1 {
			t.Errorf("told %d times that it is well: %s", n, said.text())
		}
		k.note(fails, "x.db")
		time.Sleep(failingLong / 2)
		k.note(nil, "x.db")
		k.note(fails, "x.db")
		time.Sleep(failingLong / 2)
		k.note(fails, "x.db")
		if n := said.count("level="); n != 2 {
			t.Errorf("what passes is told of: %s", said.text())
		}
	})
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count(part string) int { return strings.Count(l.text(), part) }
