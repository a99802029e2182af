package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// history holds, for each sector, what it may hold after a crash: what the last
// successful Sync saved, and everything written since.
type history struct {
	allowed [][][]byte
}

func newHistory(sectors int) *history {
	h := &history{allowed: make([][][]byte, sectors)}
	for i := range h.allowed {
		h.allowed[i] = [][]byte{make([]byte, crashfs.Sector)}
	}
	return h
}

func (h *history) wrote(sector int, b []byte) {
	h.allowed[sector] = append(h.allowed[sector], bytes.Clone(b))
}

func (h *history) synced() {
	for i, versions := range h.allowed {
		h.allowed[i] = versions[len(versions)-1:]
	}
}

func (h *history) check(t *testing.T, got []byte) {
	t.Helper()
	for i, versions := range h.allowed {
		sector := got[i*crashfs.Sector : (i+1)*crashfs.Sector]
		ok := false
		for _, v := range versions {
			ok = ok || bytes.Equal(v, sector)
		}
		if !ok {
			t.Fatalf("sector %d holds neither what was synced nor what was written since", i)
		}
	}
}

const crashSectors = 64

// scribble writes, erases and syncs at random until something fails.
func scribble(ctx context.Context, h *Handle, hist *history, rng *rand.Rand, steps int) error {
	for range steps {
		first := rng.IntN(crashSectors)
		n := rng.IntN(min(crashSectors-first, 8)) + 1
		off, size := int64(first*crashfs.Sector), int64(n*crashfs.Sector)
		var err error
		switch rng.IntN(6) {
		case 0:
			if err = h.Sync(ctx); err == nil {
				hist.synced()
			}
		case 1:
			for s := first; s < first+n; s++ {
				hist.wrote(s, make([]byte, crashfs.Sector))
			}
			err = h.Unmap(ctx, off, size)
		default:
			b := volumetest.Pattern(make([]byte, size), rng.Uint64())
			for s := range n {
				hist.wrote(first+s, b[s*crashfs.Sector:(s+1)*crashfs.Sector])
			}
			err = h.WriteAt(ctx, b, off)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func TestWhatWasSyncedIsThereAfterACrashAtEveryChange(t *testing.T) {
	const steps = 60
	for seed := range uint64(3) {
		for k := 1; ; k++ {
			fs := crashfs.New(seed<<32 | uint64(k))
			p := crashPool(t, fs)
			v := raw(1, crashSectors*crashfs.Sector)
			must(t, p.Create(t.Context(), v))
			h, err := p.Open(t.Context(), v)
			must(t, err)
			fs.CrashAt(k)
			hist := newHistory(crashSectors)
			err = scribble(t.Context(), h, hist, rand.New(rand.NewPCG(seed, 5)), steps)
			if err != nil && !fs.Crashed() {
				t.Fatalf("seed %d, change %d: %v", seed, k, err)
			}
			crashed := fs.Crashed()

			p = crashPool(t, fs.Restart())
			h, err = p.Open(t.Context(), v)
			if err != nil {
				t.Fatalf("seed %d, change %d: the volume does not open: %v", seed, k, err)
			}
			got := make([]byte, v.Size)
			must(t, h.ReadAt(t.Context(), got, 0))
			hist.check(t, got)
			if !crashed {
				break // the sweep reached the end
			}
		}
	}
}

func TestAVolumeIsThereWholeOrNotAtAllAfterACrashInCreate(t *testing.T) {
	for k := 1; ; k++ {
		fs := crashfs.New(uint64(k))
		p := crashPool(t, fs)
		v := raw(1, 8192)
		fs.CrashAt(k)
		err := p.Create(t.Context(), v)
		crashed := fs.Crashed()
		if err == nil && crashed {
			t.Fatalf("change %d: Create succeeded without power", k)
		}
		p = crashPool(t, fs.Restart())
		if err == nil {
			h, err := p.Open(t.Context(), v)
			if err != nil {
				t.Fatalf("a volume that was created is gone after the crash: %v", err)
			}
			must(t, h.Close())
		}
		// Whatever is left, removing and creating again works: that is what a
		// start does with a row that says creating.
		must(t, p.Remove(t.Context(), v))
		must(t, p.Create(t.Context(), v))
		if !crashed {
			break
		}
	}
}

func TestAnImportIsThereWholeOrNotAtAllAfterACrash(t *testing.T) {
	image := volumetest.Pattern(make([]byte, 20000), 11)
	clear(image[4096:8192])
	for k := 1; ; k++ {
		fs := crashfs.New(uint64(k))
		p := crashPool(t, fs)
		v := raw(1, 20480)
		fs.CrashAt(k)
		_, err := p.Import(t.Context(), v, bytes.NewReader(image), nil)
		crashed := fs.Crashed()

		after := fs.Restart()
		p = crashPool(t, after)
		left, listErr := after.Names()
		must(t, listErr)
		for _, name := range left {
			if name != v.Path {
				t.Fatalf("change %d: %s is left behind", k, name)
			}
		}
		if len(left) == 1 || err == nil {
			h, err := p.Open(t.Context(), v)
			must(t, err)
			got := make([]byte, v.Size)
			must(t, h.ReadAt(t.Context(), got, 0))
			if !bytes.Equal(got[:len(image)], image) || !bytes.Equal(got[len(image):], make([]byte, 480)) {
				t.Fatalf("change %d: the file has its name but not all of its bytes", k)
			}
		}
		if !crashed {
			must(t, err)
			break
		}
	}
}

var errDisk = errors.New("the disk is ill")

// failOnce makes the first operation of a kind fail.
func failOnce(kind crashfs.OpKind, err error) func(crashfs.Op) error {
	return func(o crashfs.Op) error {
		if o.Kind == kind && err != nil {
			e := err
			err = nil
			return e
		}
		return nil
	}
}

func TestAFlushErrorIsFinal(t *testing.T) {
	fs := crashfs.New(1)
	p := crashPool(t, fs)
	var told []string
	p.OnFault(func(name, sentence string) { told = append(told, name+": "+sentence) })
	v := raw(1, 8192)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	lost := volumetest.Pattern(make([]byte, 512), 1)
	must(t, h.WriteAt(t.Context(), lost, 0))

	fs.Inject(failOnce(crashfs.OpSync, errDisk))
	err = h.Sync(t.Context())
	if !errors.Is(err, errDisk) || store.KindOf(err) == store.KindDenied {
		t.Fatalf("Sync returned %v, want the disk's error as a medium error", err)
	}
	// The next flush of the file would succeed, without the data.
	for range 3 {
		if err := h.Sync(t.Context()); err == nil {
			t.Fatal("a later Sync returned nil although bytes were lost")
		}
	}
	for name, err := range map[string]error{"write": h.WriteAt(t.Context(), lost, 0), "unmap": h.Unmap(t.Context(), 0, 512), "zero": h.Zero(t.Context(), 0, 512)} {
		if store.KindOf(err) != store.KindDenied {
			t.Errorf("%s after the failed flush: %v, want one of kind denied", name, err)
		}
	}
	if err := h.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Errorf("reading ended with the failed flush: %v", err)
	}
	if !h.ReadOnly() {
		t.Error("the handle does not say that it is read-only")
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "vol: writing to disk failed") {
		t.Errorf("told %q, want the volume and the sentence once", told)
	}

	must(t, h.Close())
	h, err = p.Open(t.Context(), v)
	must(t, err)
	if err := h.WriteAt(t.Context(), lost, 0); store.KindOf(err) != store.KindDenied {
		t.Errorf("opening the volume again forgot the failed flush: %v", err)
	}
	must(t, p.Close())

	p = crashPool(t, fs) // lunboot starts again
	h, err = p.Open(t.Context(), v)
	must(t, err)
	must(t, h.WriteAt(t.Context(), lost, 0))
	must(t, h.Sync(t.Context()))
}

func TestAFlushErrorAtTheLastCloseIsReported(t *testing.T) {
	fs := crashfs.New(1)
	p := crashPool(t, fs)
	v := raw(1, 8192)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	must(t, h.WriteAt(t.Context(), make([]byte, 512), 0))
	fs.Inject(failOnce(crashfs.OpSync, errDisk))
	if err := h.Close(); !errors.Is(err, errDisk) {
		t.Fatalf("Close returned %v, want the flush's error", err)
	}
	h, err = p.Open(t.Context(), v)
	must(t, err)
	if err := h.Sync(t.Context()); err == nil {
		t.Fatal("the volume forgot that bytes were lost when it was closed")
	}
}

func TestAFullDiskRefusesWritesLosesNothingAndRecovers(t *testing.T) {
	fs := crashfs.New(1)
	p := crashPool(t, fs)
	v := raw(1, 1<<20)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	old := volumetest.Pattern(make([]byte, 4096), 1)
	must(t, h.WriteAt(t.Context(), old, 0))
	must(t, h.Sync(t.Context()))

	fs.SetFree(0)
	err = h.WriteAt(t.Context(), old, 8192)
	if e := wantKind(t, err, store.KindUnavailable); e.Field != SpaceField || e.Cause != store.CauseFull {
		t.Errorf("the error's field is %q, want %q; its cause is %q", e.Field, SpaceField, e.Cause)
	}
	must(t, h.WriteAt(t.Context(), volumetest.Pattern(old, 2), 0)) // room that it has already
	must(t, h.Sync(t.Context()))
	got := make([]byte, 4096)
	must(t, h.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, old) {
		t.Error("bytes changed while the disk was full")
	}
	fs.SetFree(1 << 20)
	must(t, h.WriteAt(t.Context(), old, 8192))
	must(t, h.Sync(t.Context()))
}

func TestReadErrorsAreLoudAndToldOnce(t *testing.T) {
	fs := crashfs.New(1)
	p := crashPool(t, fs)
	told := 0
	p.OnFault(func(string, string) { told++ })
	v := raw(1, 8192)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	fs.Inject(func(o crashfs.Op) error {
		if o.Kind == crashfs.OpRead {
			return fmt.Errorf("sector 3: %w", io.ErrUnexpectedEOF)
		}
		return nil
	})
	for range 3 {
		wantKind(t, h.ReadAt(t.Context(), make([]byte, 512), 0), store.KindCorrupt)
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
	fs.Inject(nil)
	must(t, h.ReadAt(t.Context(), make([]byte, 512), 0))
}

func TestAFailedImportLeavesNothingBehind(t *testing.T) {
	image := volumetest.Pattern(make([]byte, 3<<20), 1)
	kinds := []crashfs.OpKind{crashfs.OpCreate, crashfs.OpTruncate, crashfs.OpWrite, crashfs.OpSync, crashfs.OpRename, crashfs.OpSyncDir}
	for _, kind := range kinds {
		fs := crashfs.New(1)
		p := crashPool(t, fs)
		fired := false
		fs.Inject(func(o crashfs.Op) error {
			if o.Kind == kind && !fired {
				fired = true
				return errDisk
			}
			return nil
		})
		v := raw(1, int64(len(image)))
		_, err := p.Import(t.Context(), v, bytes.NewReader(image), nil)
		if !errors.Is(err, errDisk) || !fired {
			t.Errorf("%s failed (%v): Import returned %v", kind, fired, err)
		}
		if left, _ := fs.Names(); len(left) != 0 {
			t.Errorf("%s failed: %v is left behind", kind, left)
		}
	}
}
