package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
)

func TestASecondPoolOnAFolderIsRefusedWithTheHoldersProcess(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	_, err := OpenPool(dir, quiet())
	e := wantKind(t, err, store.KindInUse)
	if !strings.Contains(e.Msg, "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("%q does not name the process %d", e.Msg, os.Getpid())
	}
	must(t, p.Close())
	openPool(t, dir) // free again
}

// TestMain lets this binary be the other lunboot: with holderDir set it opens
// the pool there, fills a volume and waits to be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(holderDir); dir != "" {
		hold(dir)
		return
	}
	os.Exit(m.Run())
}

const holderDir = "VOLUME_TEST_HOLDER_DIR"

func hold(dir string) {
	p, err := OpenPool(dir, quiet())
	if err == nil {
		err = p.Create(context.Background(), raw(1, 1<<20))
	}
	var h *Handle
	if err == nil {
		h, err = p.Open(context.Background(), raw(1, 1<<20))
	}
	if err == nil {
		err = h.WriteAt(context.Background(), []byte("acknowledged"), 5000)
	}
	fmt.Println("ready", err)
	time.Sleep(time.Minute)
}

func TestAKilledHolderLeavesNoLockAndNoLostWrite(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderDir+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil || string(line[:n]) != "ready <nil>\n" {
		t.Fatalf("the holder says %q, %v", line[:n], err)
	}
	_, err = OpenPool(dir, quiet())
	if e := wantKind(t, err, store.KindInUse); !strings.Contains(e.Msg, "process "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%q does not name the process %d", e.Msg, cmd.Process.Pid)
	}
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Error("the holder ended by itself")
	}
	h, err := openPool(t, dir).Open(t.Context(), raw(1, 1<<20))
	must(t, err)
	defer h.Close()
	got := make([]byte, 12)
	must(t, h.ReadAt(t.Context(), got, 5000))
	if string(got) != "acknowledged" {
		t.Errorf("the volume holds %q", got)
	}
}

func TestAFolderThatCannotBeMadeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err := OpenPool(filepath.Join(file, "volumes"), quiet())
	if e := wantKind(t, err, store.KindUnavailable); e.Subject != filepath.Join(file, "volumes") {
		t.Errorf("the error is about %q", e.Subject)
	}
}

func TestOpeningAPoolRemovesInterruptedImportsOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".a.raw.import", "b.raw", "c.import", ".d"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	openPool(t, dir)
	if got := fmt.Sprint(names(t, dir)); got != "[.d b.raw c.import]" {
		t.Errorf("the folder holds %s", got)
	}
}

func TestCreateMakesASparsePrivateFile(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 1<<40)
	must(t, p.Create(t.Context(), v))
	fi, err := os.Stat(filepath.Join(dir, v.Path))
	must(t, err)
	if fi.Size() != v.Size || fi.Mode() != 0o600 {
		t.Errorf("size %d mode %v, want %d and 0600", fi.Size(), fi.Mode(), v.Size)
	}
	if blocks := blocksOf(t, filepath.Join(dir, v.Path)); blocks > 64 {
		t.Errorf("an empty volume takes %d sectors", blocks)
	}
	wantKind(t, p.Create(t.Context(), v), store.KindConflict)
}

func TestAVolumeThatNoFileSystemHoldsIsRefusedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 1<<62)
	if err := p.Create(t.Context(), v); err == nil {
		t.Skip("this file system holds files of 4 EiB")
	} else if e := wantKind(t, err, store.KindInvalid); e.Field != "size" {
		t.Errorf("the error is about %q, want size", e.Field)
	}
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("%v is left behind", left)
	}
}

func TestNoPathLeavesTheFolder(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "secret")
	must(t, os.WriteFile(outside, bytes.Repeat([]byte("s"), 8192), 0o600))
	must(t, os.Mkdir(filepath.Join(dir, "volumes"), 0o700))
	must(t, os.Symlink("../secret", filepath.Join(dir, "volumes", "link")))
	must(t, os.Mkdir(filepath.Join(dir, "volumes", "folder"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "volumes", "folder", "file"), nil, 0o600))
	p := openPool(t, filepath.Join(dir, "volumes"))
	for _, path := range []string{"../secret", outside, "link", "", ".", "..", "folder", "a/b", "x\x00", strings.Repeat("n", 256)} {
		v := raw(1, 4096)
		v.Path = path
		if h, err := p.Open(t.Context(), v); err == nil {
			h.Close()
			t.Errorf("a volume opened the file %q", path)
		}
		if path != "link" { // the link's own name is a file of the folder
			if err := p.Remove(t.Context(), v); err == nil {
				t.Errorf("removing a volume with the path %q succeeded", path)
			}
		}
		if _, err := p.Import(t.Context(), v, bytes.NewReader(make([]byte, 4096)), nil); err == nil {
			t.Errorf("an import wrote to %q", path)
		}
	}
	if b, err := os.ReadFile(outside); err != nil || len(b) != 8192 || b[0] != 's' {
		t.Error("the file outside of the folder was touched")
	}
}

func TestOnlyAReadyVolumeOpens(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	for _, state := range []store.VolumeState{store.VolumeCreating, store.VolumeImporting, store.VolumeFailed, store.VolumeRemoving, ""} {
		v.State, v.Reason = state, "the reason"
		_, err := p.Open(t.Context(), v)
		if e := wantKind(t, err, store.KindUnavailable); !strings.Contains(e.Msg, "the reason") {
			t.Errorf("%q does not say why", e.Msg)
		}
	}
	v.State, v.Kind = store.VolumeReady, "tape"
	_, err := p.Open(t.Context(), v)
	wantKind(t, err, store.KindInvalid)
}

func TestAMissingOrCutFileIsToldApart(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 8192)
	_, err := p.Open(t.Context(), v)
	wantKind(t, err, store.KindNotFound)
	must(t, os.WriteFile(filepath.Join(dir, v.Path), make([]byte, 8191), 0o600))
	_, err = p.Open(t.Context(), v)
	if e := wantKind(t, err, store.KindCorrupt); !strings.Contains(e.Msg, "8191") {
		t.Errorf("%q does not name the size", e.Msg)
	}
	// It is cut while it is open.
	must(t, os.Truncate(filepath.Join(dir, v.Path), 8192))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	must(t, os.Truncate(filepath.Join(dir, v.Path), 4096))
	wantKind(t, h.ReadAt(t.Context(), make([]byte, 512), 4000), store.KindCorrupt)
}

func TestDevicesAreBlockDevicesBelowDev(t *testing.T) {
	p := openPool(t, t.TempDir())
	for _, path := range []string{"/dev/null", "/dev/../etc/passwd", "/etc/passwd", "dev/sda", "/dev/lunboot-is-not-there"} {
		v := raw(1, 4096)
		v.Kind, v.Path = store.VolumeDevice, path
		if h, err := p.Open(t.Context(), v); err == nil {
			h.Close()
			t.Errorf("%s opened as a device", path)
		}
		if err := p.Create(t.Context(), v); err == nil {
			t.Errorf("%s was attached as a device", path)
		}
	}
	v := raw(1, 4096)
	v.Kind, v.Path = store.VolumeDevice, "/dev/lunboot-is-not-there"
	must(t, p.Remove(t.Context(), v)) // the device itself stays, whatever it is
}

func TestOneFileUnderAllHandles(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	a, err := p.Open(t.Context(), v)
	must(t, err)
	b, err := p.Open(t.Context(), v)
	must(t, err)
	if a.Generation() != b.Generation() || a.s != b.s || p.Users(v.ID) != 2 || a.ID() != v.ID {
		t.Errorf("generations %d and %d, %d users", a.Generation(), b.Generation(), p.Users(v.ID))
	}
	must(t, a.Close())
	must(t, b.Close())
	c, err := p.Open(t.Context(), v)
	must(t, err)
	if c.Generation() == a.Generation() || p.Users(v.ID) != 1 {
		t.Errorf("generation %d again, %d users", c.Generation(), p.Users(v.ID))
	}
	must(t, c.Close())
	if p.Users(v.ID) != 0 {
		t.Errorf("%d users after the last Close", p.Users(v.ID))
	}
}

func TestReadOnlyIsObeyedAtOnceByOpenHandles(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	b := make([]byte, 512)
	must(t, h.WriteAt(t.Context(), b, 0))

	stale := v
	v.Revision, v.ReadOnly, v.Name = 2, true, "renamed"
	p.Update(v)
	if e := wantKind(t, h.WriteAt(t.Context(), b, 0), store.KindDenied); e.Subject != "renamed" {
		t.Errorf("the error is about %q, want the new name", e.Subject)
	}
	wantKind(t, h.Unmap(t.Context(), 0, 512), store.KindDenied)
	must(t, h.ReadAt(t.Context(), b, 0))
	must(t, h.Sync(t.Context()))

	h2, err := p.Open(t.Context(), stale) // somebody who has not read the new row
	must(t, err)
	defer h2.Close()
	wantKind(t, h2.WriteAt(t.Context(), b, 0), store.KindDenied)

	v.Revision, v.ReadOnly = 3, false
	p.Update(v)
	must(t, h.WriteAt(t.Context(), b, 0))
}

func TestGrowingShowsInEveryHandleAfterItsRow(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	grown := h.Sized()
	sizeAtCommit := int64(0)

	err = p.Resize(t.Context(), v, 8192, func() error { return errDisk })
	if !errors.Is(err, errDisk) || h.Size() != 4096 {
		t.Fatalf("a growth whose row failed: err %v, size %d", err, h.Size())
	}
	select {
	case <-grown:
		t.Fatal("a growth that failed was announced")
	default:
	}
	must(t, p.Resize(t.Context(), v, 16384, func() error { sizeAtCommit = h.Size(); return nil }))
	if sizeAtCommit != 4096 || h.Size() != 16384 {
		t.Errorf("size %d at the commit and %d after, want 4096 and 16384", sizeAtCommit, h.Size())
	}
	select {
	case <-grown:
	default:
		t.Error("the growth was not announced")
	}
	got := bytes.Repeat([]byte{1}, 16384)
	must(t, h.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, make([]byte, 16384)) {
		t.Error("the new part does not read zero")
	}
	v.Size = 16384
	wantKind(t, p.Resize(t.Context(), v, 8192, func() error { t.Error("a shrink was committed"); return nil }), store.KindInvalid)
}

func TestAHandleThatWasOpenedWithAnOldRowGrowsWithTheNewOne(t *testing.T) {
	p := openPool(t, t.TempDir())
	old := raw(1, 4096)
	must(t, p.Create(t.Context(), old))
	must(t, p.Resize(t.Context(), old, 8192, func() error { return nil }))
	h, err := p.Open(t.Context(), old)
	must(t, err)
	defer h.Close()
	now := old
	now.Revision, now.Size = 2, 8192
	p.Update(now)
	p.Update(old) // comes late
	if h.Size() != 8192 {
		t.Errorf("the size is %d, want 8192", h.Size())
	}
}

func TestRemoveWaitsForUsersThatLetGo(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	time.AfterFunc(20*time.Millisecond, func() { h.Close() })
	must(t, p.Remove(t.Context(), v))
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	must(t, p.Remove(t.Context(), v)) // once more is nothing
}

func TestRemoveRefusesAVolumeThatStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := crashPool(t, crashfs.New(1))
		v := raw(1, 4096)
		must(t, p.Create(t.Context(), v))
		h, err := p.Open(t.Context(), v)
		must(t, err)
		go func() {
			time.Sleep(time.Second)
			_, err := p.Open(t.Context(), v)
			wantKind(t, err, store.KindUnavailable) // it is being removed
		}()
		wantKind(t, p.Remove(t.Context(), v), store.KindInUse)
		must(t, h.WriteAt(t.Context(), make([]byte, 512), 0)) // it goes on
		h2, err := p.Open(t.Context(), v)
		must(t, err)
		must(t, h2.Close())
		must(t, h.Close())
		must(t, p.Remove(t.Context(), v))
	})
}

// slowSync makes flushes take a time, and counts those under way.
func slowSync(fs *crashfs.FS, d time.Duration) (count, most *atomic.Int32) {
	var now atomic.Int32
	count, most = new(atomic.Int32), new(atomic.Int32)
	fs.Inject(func(o crashfs.Op) error {
		if o.Kind == crashfs.OpSync {
			count.Add(1)
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(d)
			now.Add(-1)
		}
		return nil
	})
	return count, most
}

func TestFlushesOfOneVolumeShareRoundsAndNeverOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New(1)
		p := crashPool(t, fs)
		v := raw(1, 1<<20)
		must(t, p.Create(t.Context(), v))
		h, err := p.Open(t.Context(), v)
		must(t, err)
		count, most := slowSync(fs, time.Second)
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				if err := h.WriteAt(t.Context(), []byte{1}, int64(i)*512); err != nil {
					t.Error(err)
				}
				if err := h.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if count.Load() != 2 || most.Load() != 1 || time.Since(start) != 2*time.Second {
			t.Errorf("%d flushes, %d at a time, in %v; want 2, 1, 2s", count.Load(), most.Load(), time.Since(start))
		}
		// Everything that was synced survives.
		after := crashPool(t, fs.Restart())
		h, err = after.Open(t.Context(), v)
		must(t, err)
		b := make([]byte, 1)
		for i := range 50 {
			must(t, h.ReadAt(t.Context(), b, int64(i)*512))
			if b[0] != 1 {
				t.Errorf("the write of caller %d is gone after its Sync", i)
			}
		}
	})
}

func TestAWaitingSyncLeavesWithItsContextAndReadsGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New(1)
		p := crashPool(t, fs)
		v := raw(1, 4096)
		must(t, p.Create(t.Context(), v))
		h, err := p.Open(t.Context(), v)
		must(t, err)
		slowSync(fs, 10*time.Second)
		var wg sync.WaitGroup
		for range 2 { // one flush under way, one caller that leads the next
			wg.Go(func() {
				if err := h.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := h.Sync(ctx); err != context.DeadlineExceeded || time.Since(start) != time.Millisecond {
			t.Errorf("Sync returned %v after %v", err, time.Since(start))
		}
		start = time.Now()
		must(t, h.ReadAt(t.Context(), make([]byte, 512), 0))
		must(t, h.WriteAt(t.Context(), make([]byte, 512), 0))
		if time.Since(start) != 0 {
			t.Errorf("a read and a write waited %v for the flush", time.Since(start))
		}
		wg.Wait()
	})
}

func TestOpeningWaitsForTheLastUsersFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New(1)
		p := crashPool(t, fs)
		v := raw(1, 4096)
		must(t, p.Create(t.Context(), v))
		h, err := p.Open(t.Context(), v)
		must(t, err)
		must(t, h.WriteAt(t.Context(), make([]byte, 512), 0))
		slowSync(fs, time.Second)
		go h.Close()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := p.Open(ctx, v); err != context.DeadlineExceeded {
			t.Errorf("Open returned %v, want its context's error", err)
		}
		h, err = p.Open(t.Context(), v)
		must(t, err)
		if time.Since(start) != time.Second {
			t.Errorf("Open waited %v, want the flush's second", time.Since(start))
		}
		must(t, h.Close())
	})
}

func TestClosingThePoolFlushesAndShutsEveryVolume(t *testing.T) {
	fs := crashfs.New(1)
	p := crashPool(t, fs)
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	must(t, h.WriteAt(t.Context(), []byte{9}, 100))
	must(t, p.Close())
	must(t, p.Close())
	if err := h.WriteAt(t.Context(), []byte{9}, 100); err == nil {
		t.Error("a write succeeded after the pool was closed")
	}
	if _, err := p.Open(t.Context(), v); err == nil {
		t.Error("a volume opened after the pool was closed")
	}
	must(t, h.Close())
	after := crashPool(t, fs.Restart())
	h, err = after.Open(t.Context(), v)
	must(t, err)
	b := make([]byte, 1)
	must(t, h.ReadAt(t.Context(), b, 100))
	if b[0] != 9 {
		t.Error("what was written before the pool was closed is gone")
	}
}

func TestHandlesMayCloseWhileOthersWork(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := raw(1, 1<<20)
	must(t, p.Create(t.Context(), v))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			b := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
				}
				h, err := p.Open(t.Context(), v)
				if err != nil {
					t.Error(err)
					return
				}
				inner := make(chan struct{})
				go func() { // uses the handle while it is closed
					defer close(inner)
					for h.ReadAt(t.Context(), b, int64(w)*4096) == nil {
						h.Resident(b, 0)
						runtime.Gosched()
					}
				}()
				if err := h.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				if err := h.Close(); err != nil {
					t.Error(err)
				}
				<-inner
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	close(stop)
	wg.Wait()
	if p.Users(v.ID) != 0 {
		t.Errorf("%d users are left", p.Users(v.ID))
	}
}

func TestResidentServesWhatWasJustWritten(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := raw(1, 1<<20)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	want := bytes.Repeat([]byte{5}, 8192)
	must(t, h.WriteAt(t.Context(), want, 4096))
	got := make([]byte, 8192)
	if !h.Resident(got, 4096) {
		t.Skip("this file system does not read without waiting")
	}
	if !bytes.Equal(got, want) {
		t.Error("Resident gave other bytes than were written")
	}
	if h.Resident(nil, 0) || h.Resident(got, 1<<20-4096) {
		t.Error("Resident promised what it cannot give")
	}
}

func TestBlockStatusIsInWholeLogicalBlocks(t *testing.T) {
	p := crashPool(t, crashfs.New(1)) // its extents are sectors of 512 bytes
	v := raw(1, 64<<10)
	v.BlockSize = 4096
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	must(t, h.WriteAt(t.Context(), []byte{1}, 9000)) // one sector of the third block
	for _, want := range []struct {
		off, run int64
		mapped   bool
	}{{0, 8192, false}, {8192, 4096, true}, {12288, 64<<10 - 12288, false}} {
		mapped, run, err := h.BlockStatus(t.Context(), want.off, v.Size-want.off)
		if err != nil || mapped != want.mapped || run != want.run {
			t.Errorf("at %d: %v %d %v, want %v %d", want.off, mapped, run, err, want.mapped, want.run)
		}
	}
}

func TestFreeIsTheFileSystems(t *testing.T) {
	n, err := openPool(t, t.TempDir()).Free()
	if err != nil || n <= 0 {
		t.Errorf("Free() = %d, %v", n, err)
	}
}

func TestClosingFlushesOnlyWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New(1)
		p := crashPool(t, fs)
		v := raw(1, 4096)
		must(t, p.Create(t.Context(), v))
		slowSync(fs, time.Second)
		for _, tc := range []struct {
			name string
			use  func(h *Handle) error
			want time.Duration
		}{
			{"a read", func(h *Handle) error { return h.ReadAt(t.Context(), make([]byte, 512), 0) }, 0},
			{"a write", func(h *Handle) error { return h.WriteAt(t.Context(), make([]byte, 512), 0) }, time.Second},
			{"a write that was flushed", func(h *Handle) error {
				must(t, h.WriteAt(t.Context(), make([]byte, 512), 0))
				return h.Sync(t.Context())
			}, 0},
			{"an unmapped range", func(h *Handle) error { return h.Unmap(t.Context(), 0, 512) }, time.Second},
		} {
			h, err := p.Open(t.Context(), v)
			must(t, err)
			must(t, tc.use(h))
			start := time.Now()
			must(t, h.Close())
			if took := time.Since(start); took != tc.want {
				t.Errorf("%s: Close took %v, want %v", tc.name, took, tc.want)
			}
		}
	})
}
