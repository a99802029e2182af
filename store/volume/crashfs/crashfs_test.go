package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, f *FS, name string) *File {
	t.Helper()
	file, err := f.Create(name)
	must(t, err)
	return file
}

func write(t *testing.T, f *File, off int64, b byte, n int) {
	t.Helper()
	if got, err := f.WriteAt(bytes.Repeat([]byte{b}, n), off); got != n || err != nil {
		t.Fatalf("WriteAt = %d, %v", got, err)
	}
}

func read(t *testing.T, f *File, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := f.ReadAt(b, off)
	must(t, err)
	return b
}

func reopen(t *testing.T, f *FS, name string) *File {
	t.Helper()
	file, err := f.Open(name, true)
	must(t, err)
	return file
}

func TestWhatWasSyncedSurvivesEveryCrash(t *testing.T) {
	for seed := range uint64(50) {
		f := New(seed)
		a := create(t, f, "a")
		write(t, a, 100, 'x', 2000)
		must(t, a.Sync())
		must(t, f.Sync())
		f = f.Restart()
		if got := read(t, reopen(t, f, "a"), 100, 2000); !bytes.Equal(got, bytes.Repeat([]byte{'x'}, 2000)) {
			t.Fatalf("seed %d: synced bytes are gone", seed)
		}
	}
}

func TestWhatWasNotSyncedSurvivesByTheSector(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		f := New(seed)
		a := create(t, f, "a")
		write(t, a, 0, '0', 2*Sector)
		must(t, a.Sync())
		must(t, f.Sync())
		write(t, a, 0, '1', 2*Sector)
		write(t, a, 0, '2', Sector)
		f = f.Restart()
		got := read(t, reopen(t, f, "a"), 0, 2*Sector)
		for i := range 2 {
			if s := got[i*Sector : (i+1)*Sector]; !bytes.Equal(s, bytes.Repeat(s[:1], Sector)) {
				t.Fatalf("seed %d: a sector is torn", seed)
			}
		}
		seen[string([]byte{got[0], got[Sector]})] = true
	}
	for _, want := range []string{"00", "01", "10", "11", "20", "21"} {
		if !seen[want] {
			t.Errorf("no crash left the versions %s", want)
		}
	}
	if len(seen) != 6 {
		t.Errorf("crashes left %v", seen)
	}
}

func TestOneSeedGivesOneCrash(t *testing.T) {
	outcome := func() string {
		f := New(42)
		a := create(t, f, "a")
		write(t, a, 0, 'a', 40*Sector)
		must(t, f.Sync())
		f = f.Restart()
		b := make([]byte, 40*Sector)
		n, err := reopen(t, f, "a").ReadAt(b, 0)
		return fmt.Sprint(n, err, b)
	}
	first := outcome()
	for range 3 {
		if outcome() != first {
			t.Fatal("the same seed crashed in two ways")
		}
	}
}

func TestNamesAreCertainAfterSyncOfTheFolderOnly(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(100) {
		f := New(seed)
		create(t, f, "kept")
		must(t, f.Sync())
		create(t, f, "new")
		must(t, f.Rename("new", "renamed"))
		must(t, f.Remove("kept"))
		names, err := f.Names()
		must(t, err)
		if fmt.Sprint(names) != "[renamed]" {
			t.Fatalf("before the crash: %v", names)
		}
		f = f.Restart()
		names, err = f.Names()
		must(t, err)
		seen[fmt.Sprint(names)] = true
	}
	for _, want := range []string{"[kept]", "[kept new]", "[kept renamed]", "[renamed]"} {
		if !seen[want] {
			t.Errorf("no crash left %s", want)
		}
	}
	if len(seen) != 4 {
		t.Errorf("crashes left %v: changes came out of order", seen)
	}
}

func TestThePowerFailsInTheChosenChangeAndEverythingAfter(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	write(t, a, 0, 'a', Sector)
	f.CrashAt(2)
	write(t, a, 0, 'b', Sector)
	if _, err := a.WriteAt([]byte("c"), 0); !errors.Is(err, ErrCrashed) || !f.Crashed() {
		t.Fatalf("the second change returned %v", err)
	}
	_, openErr := f.Open("a", true)
	_, createErr := f.Create("b")
	_, namesErr := f.Names()
	_, readErr := a.ReadAt(make([]byte, 1), 0)
	_, _, extentErr := a.Extent(0)
	for i, err := range []error{openErr, createErr, namesErr, readErr, extentErr, a.Sync(), a.Truncate(0), a.Punch(0, 1), f.Sync(), f.Remove("a"), f.Rename("a", "b")} {
		if !errors.Is(err, ErrCrashed) {
			t.Errorf("operation %d after the crash returned %v", i, err)
		}
	}
}

func TestTheOldFolderIsDeadAfterARestart(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	must(t, f.Sync())
	next := f.Restart()
	if _, err := a.WriteAt([]byte{1}, 0); !errors.Is(err, ErrCrashed) {
		t.Errorf("a file of the old folder returned %v", err)
	}
	if n, _ := reopen(t, next, "a").Size(); n != 0 {
		t.Errorf("the old file wrote to the new folder: %d bytes", n)
	}
}

func TestAnInjectedSyncErrorLosesTheBytesOnTheDiskAndNotOnTheScreen(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	write(t, a, 0, 'o', Sector)
	must(t, a.Sync())
	must(t, f.Sync())
	write(t, a, 0, 'n', Sector)
	ill := errors.New("ill")
	f.Inject(func(o Op) error {
		if o.Kind == OpSync {
			return ill
		}
		return nil
	})
	if err := a.Sync(); !errors.Is(err, ill) {
		t.Fatalf("Sync returned %v", err)
	}
	f.Inject(nil)
	must(t, a.Sync()) // as Linux: the pages are clean
	if got := read(t, a, 0, 1); got[0] != 'n' {
		t.Errorf("a read shows %q", got)
	}
	if got := read(t, reopen(t, f.Restart(), "a"), 0, 1); got[0] != 'o' {
		t.Errorf("the disk holds %q", got)
	}
}

func TestReadsWritesHolesAndSizesAreAFiles(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	must(t, a.Truncate(10*Sector))
	write(t, a, 3*Sector+10, 'x', Sector)
	if data, end, err := a.Extent(0); data || end != 3*Sector || err != nil {
		t.Errorf("Extent(0) = %v %d %v", data, end, err)
	}
	if data, end, err := a.Extent(3*Sector + 5); !data || end != 5*Sector || err != nil {
		t.Errorf("Extent in the data = %v %d %v", data, end, err)
	}
	if data, end, _ := a.Extent(5 * Sector); data || end != 10*Sector {
		t.Errorf("Extent after the data = %v %d", data, end)
	}
	must(t, a.Punch(3*Sector+20, 10))
	want := append(bytes.Repeat([]byte{0}, 10), bytes.Repeat([]byte{'x'}, 10)...)
	want = append(append(want, make([]byte, 10)...), 'x')
	if got := read(t, a, 3*Sector, 31); !bytes.Equal(got, want) {
		t.Errorf("after a small hole: %q", got)
	}
	must(t, a.Punch(0, 10*Sector))
	if data, end, _ := a.Extent(0); data || end != 10*Sector {
		t.Errorf("after a hole over everything: %v %d", data, end)
	}
	b := make([]byte, 20)
	if n, err := a.ReadAt(b, 10*Sector-5); n != 5 || err != io.EOF {
		t.Errorf("a read over the end = %d %v", n, err)
	}
	if n, err := a.ReadAt(b, 20*Sector); n != 0 || err != io.EOF {
		t.Errorf("a read behind the end = %d %v", n, err)
	}
	write(t, a, 10*Sector, 'y', 7)
	if n, _ := a.Size(); n != 10*Sector+7 {
		t.Errorf("the size is %d", n)
	}
	must(t, a.Truncate(0))
	must(t, a.Truncate(11*Sector))
	if got := read(t, a, 10*Sector, 7); !bytes.Equal(got, make([]byte, 7)) {
		t.Errorf("cut bytes came back: %q", got)
	}
	if a.Resident(b, 0) {
		t.Error("Resident promised something")
	}
	must(t, a.Close())
}

func TestAFullFolderRefusesNewSectorsOnly(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	write(t, a, 0, 'x', Sector)
	f.SetFree(Sector)
	if n, err := a.WriteAt(make([]byte, 3*Sector), Sector); n != Sector || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt = %d, %v", n, err)
	}
	if n, _ := f.Free(); n != 0 {
		t.Errorf("%d bytes are free", n)
	}
	write(t, a, 0, 'y', 2*Sector) // has its room
	must(t, a.Punch(0, Sector))
	if n, _ := f.Free(); n != Sector {
		t.Errorf("a hole gave back %d bytes", n)
	}
}

func TestNamesThatAreWrongAreRefused(t *testing.T) {
	f := New(1)
	create(t, f, "a")
	if _, err := f.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of a file that exists: %v", err)
	}
	if _, err := f.Open("b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a file that does not: %v", err)
	}
	if err := f.Remove("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove: %v", err)
	}
	if err := f.Rename("b", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rename: %v", err)
	}
	r, err := f.Open("a", false)
	must(t, err)
	if _, err := r.WriteAt([]byte{1}, 0); err == nil {
		t.Error("a file that was opened for reading was written")
	}
	must(t, r.Sync())
	must(t, f.Close())
}

func TestDelayMakesOneKindSlow(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	f.Inject(Delay(OpSync, 20*time.Millisecond))
	start := time.Now()
	write(t, a, 0, 'x', 1)
	if d := time.Since(start); d > 15*time.Millisecond {
		t.Errorf("a write took %v", d)
	}
	must(t, a.Sync())
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("a flush took %v", d)
	}
	if s := (Op{Kind: OpWrite, Name: "a", Off: 5, Len: 7}).String(); s != "write a 5+7" {
		t.Errorf("an operation prints as %q", s)
	}
}

func TestEveryOutcomeOfOneCrashCanBeHad(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	write(t, a, 0, 'o', 2*Sector)
	must(t, a.Sync())
	must(t, f.Sync())
	write(t, a, 0, 'x', Sector)
	write(t, a, 0, 'y', Sector)
	write(t, a, 2*Sector, 'z', Sector)
	must(t, a.Punch(Sector, Sector))
	if n := f.Unsynced(); n != 4 { // three sectors and the size
		t.Fatalf("%d are unsynced, want 4", n)
	}
	for _, c := range []struct {
		picks [4]int
		want  string
	}{
		{[4]int{0, 0, 0, 0}, "oo"},
		{[4]int{1, 0, 0, 0}, "xo"},
		{[4]int{2, 1, 0, 0}, "y\x00"},
		{[4]int{2, 1, 1, 1}, "y\x00z"},
		{[4]int{0, 0, 1, 0}, "oo"},
		{[4]int{0, 0, 0, 1}, "oo\x00"},
	} {
		next := f.After(func(i, versions int) int {
			if want := [4]int{2, 1, 1, 1}[i]; versions != want {
				t.Errorf("item %d has %d versions, want %d", i, versions, want)
			}
			return c.picks[i]
		})
		b := reopen(t, next, "a")
		size, err := b.Size()
		must(t, err)
		got := ""
		for off := int64(0); off < size; off += Sector {
			got += string(read(t, b, off, 1))
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.picks, got, c.want)
		}
		if next.Unsynced() != 0 {
			t.Errorf("%v: something is unsynced after the crash", c.picks)
		}
	}
	if _, err := a.WriteAt([]byte{1}, 0); !errors.Is(err, ErrCrashed) {
		t.Errorf("the old folder still has power: %v", err)
	}
}

func TestAKilledProcessLeavesTheCache(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	must(t, a.Sync())
	must(t, f.Sync())
	write(t, a, 0, 'x', Sector)
	next := f.Revive()
	if err := a.Sync(); !errors.Is(err, ErrCrashed) {
		t.Errorf("the killed process goes on: %v", err)
	}
	if got := read(t, reopen(t, next, "a"), 0, 1); got[0] != 'x' {
		t.Error("what was written is gone though the power stayed")
	}
	if n := next.Unsynced(); n != 2 {
		t.Errorf("%d are unsynced, want 2", n)
	}
	must(t, reopen(t, next, "a").Sync())
	last := next.After(func(int, int) int { return 0 })
	if got := read(t, reopen(t, last, "a"), 0, 1); got[0] != 'x' {
		t.Error("the next process cannot save it")
	}
}

func TestAShortWritePutsItsFirstBytesDown(t *testing.T) {
	f := New(1)
	a := create(t, f, "a")
	f.Inject(func(o Op) error {
		if o.Kind == OpWrite {
			return &Short{N: 700, Err: syscall.ENOSPC}
		}
		return nil
	})
	if n, err := a.WriteAt(bytes.Repeat([]byte{'x'}, 1024), 0); n != 700 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	if size, _ := a.Size(); size != 700 {
		t.Errorf("the file has %d bytes", size)
	}
}
