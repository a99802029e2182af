package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// scribe writes a part of a volume that is its alone, and remembers in which order.
type scribe struct {
	base, size int64
	mu         sync.Mutex
	acts       []act // in their order; the last may be under way
	done       int   // how many have returned
	first      []byte
	passed     int // an act, and what there was before it: moments are asked for in their order
	then       []byte
}

type act struct {
	off, n int64
	seed   uint64 // 0: zeros
}

func (a act) apply(b []byte) {
	if a.seed == 0 {
		clear(b[a.off : a.off+a.n])
		return
	}
	volumetest.Pattern(b[a.off:a.off+a.n], a.seed)
}

func (s *scribe) step(ctx context.Context, h *Handle, rng *rand.Rand) error {
	a := act{off: rng.Int64N(s.size/512) * 512, seed: rng.Uint64() | 1}
	a.n = min(s.size-a.off, (1+rng.Int64N(64))*512)
	kind := rng.IntN(8)
	if kind < 2 {
		a.seed = 0
	}
	s.mu.Lock()
	s.acts = append(s.acts, a)
	s.mu.Unlock()
	var err error
	switch kind {
	case 0:
		a.n = min(s.size-a.off, a.n)
		err = h.Unmap(ctx, s.base+a.off, a.n)
	case 1:
		err = h.Zero(ctx, s.base+a.off, a.n)
	default:
		b := make([]byte, a.n)
		act{0, a.n, a.seed}.apply(b)
		err = h.WriteAt(ctx, b, s.base+a.off)
	}
	s.mu.Lock()
	s.done++
	s.mu.Unlock()
	return err
}

// now is how many acts have returned, and how many were begun.
func (s *scribe) now() (done, begun int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done, len(s.acts)
}

// moment says at which of its acts, between from and to, the scribe's part was got,
// or that there was no such moment.
func (s *scribe) moment(got []byte, from, to int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, then := 0, bytes.Clone(s.first)
	if s.passed <= from && s.then != nil {
		start, then = s.passed, bytes.Clone(s.then)
	}
	for n := start; n <= to; n++ {
		if n == from {
			s.passed, s.then = n, bytes.Clone(then)
		}
		if n >= from && bytes.Equal(got, then) {
			return n, nil
		}
		if n < len(s.acts) {
			s.acts[n].apply(then)
		}
	}
	return 0, fmt.Errorf("what was copied of %d+%d was there at no moment between the acts %d and %d", s.base, s.size, from, to)
}

// office is machines that write to a volume all the time, each as a scribe.
type office struct {
	scribes []*scribe
	stop    atomic.Bool
	wg      sync.WaitGroup
}

func work(t *testing.T, y *yard, v store.Volume, scribes int) *office {
	t.Helper()
	o := &office{}
	first := y.open(t, v)
	each := v.Size / int64(scribes)
	for n := range scribes {
		s := &scribe{base: int64(n) * each, size: each, first: make([]byte, each)}
		must(t, first.ReadAt(t.Context(), s.first, s.base))
		o.scribes = append(o.scribes, s)
		o.wg.Go(func() {
			h, err := y.Open(context.Background(), v)
			if err != nil {
				t.Error(err)
				return
			}
			defer h.Close()
			rng := rand.New(rand.NewPCG(uint64(n), 9))
			for k := 0; !o.stop.Load() && k < 20000; k++ {
				if err := s.step(context.Background(), h, rng); err != nil {
					t.Error(err)
					return
				}
				if rng.IntN(16) == 0 {
					err = h.Sync(context.Background())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	must(t, first.Close())
	return o
}

func (o *office) end() { o.stop.Store(true); o.wg.Wait() }

// view takes a view, and how far each scribe was before and after.
func (o *office) view(t *testing.T, y *yard, v store.Volume) (w *View, from, to []int) {
	t.Helper()
	for _, s := range o.scribes {
		done, _ := s.now()
		from = append(from, done)
	}
	w, err := y.View(t.Context(), v)
	must(t, err)
	for _, s := range o.scribes {
		_, begun := s.now()
		to = append(to, begun)
	}
	return w, from, to
}

// wantMoment holds a copy against what the scribes wrote.
func (o *office) wantMoment(t *testing.T, got []byte, from, to []int) {
	t.Helper()
	for n, s := range o.scribes {
		if _, err := s.moment(got[s.base:s.base+s.size], from[n], to[n]); err != nil {
			t.Error(err)
		}
	}
}

// everywhere reads a view in pieces that are in no order.
func everywhere(t *testing.T, w *View, rng *rand.Rand) []byte {
	t.Helper()
	got := make([]byte, w.Size())
	const piece = 7000
	for _, k := range rng.Perm(int((w.Size() + piece - 1) / piece)) {
		off := int64(k) * piece
		if _, err := w.ReadAt(got[off:min(off+piece, w.Size())], off); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

// putBack writes what a backup has of a volume into another folder, and reads it
// there as the volume.
func putBack(t *testing.T, y *yard, dir string, v store.Volume, w *View) []byte {
	t.Helper()
	to := t.TempDir()
	files := w.Files(t.Context())
	for _, f := range files {
		out, err := os.Create(filepath.Join(to, f.Name))
		must(t, err)
		n, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{f}, make([]byte, 9000))
		if err != nil || n != f.Size {
			t.Fatalf("%s has %d bytes of %d, %v", f.Name, n, f.Size, err)
		}
		must(t, out.Close())
	}
	for _, l := range v.Layers[:len(v.Layers)-1] {
		for _, name := range []string{l.Path, l.Path + mapSuffix} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			must(t, err)
			must(t, os.WriteFile(filepath.Join(to, name), b, 0o600))
		}
	}
	other := openPool(t, to)
	h, err := other.Open(t.Context(), v)
	must(t, err)
	got := make([]byte, v.Size)
	must(t, h.ReadAt(t.Context(), got, 0))
	check, err := other.Check(t.Context(), v)
	must(t, err)
	if !check.OK {
		t.Errorf("what was put back is damaged: %+v", check)
	}
	must(t, h.Close())
	must(t, other.Close())
	return got
}

func TestAViewIsOfOneMomentWhileMachinesWrite(t *testing.T) {
	for name, create := range kinds {
		t.Run(name, func(t *testing.T) {
			const size = 1<<20 + 8192
			dir := t.TempDir()
			y := &yard{Pool: openPool(t, dir)}
			v := create(t, y, size, 512)
			h := y.open(t, v)
			put(t, h, 0, volumetest.Pattern(make([]byte, size/2), 77))
			must(t, h.Close())
			o := work(t, y, v, 2)
			defer o.end()
			rng := rand.New(rand.NewPCG(5, 5))
			for range 2 {
				// Two at a time, each of its own moment.
				one, from1, to1 := o.view(t, y, v)
				two, from2, to2 := o.view(t, y, v)
				o.wantMoment(t, everywhere(t, one, rng), from1, to1)
				o.wantMoment(t, putBack(t, y, dir, v, two), from2, to2)
				got := everywhere(t, one, rng) // again, and it is the same
				o.wantMoment(t, got, from1, to1)
				must(t, one.Lost())
				must(t, two.Close())
				must(t, one.Close())
				must(t, one.Close())
				if t.Failed() {
					return
				}
			}
			for _, name := range names(t, dir) {
				if strings.HasPrefix(name, ".view") {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// Holes of a view are zeros of its moment, whatever became of them since.
func TestTheHolesOfAViewAreThoseOfItsMoment(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	for name, create := range kinds {
		v := create(t, y, 1<<20, 512)
		h := y.open(t, v)
		disk := make([]byte, v.Size)
		volumetest.Pattern(disk[256<<10:512<<10], 3)
		put(t, h, 256<<10, disk[256<<10:512<<10])
		w, err := y.View(t.Context(), v)
		must(t, err)
		must(t, h.Unmap(t.Context(), 256<<10, 200<<10))
		put(t, h, 0, volumetest.Pattern(make([]byte, 100<<10), 4))
		put(t, h, 900<<10, volumetest.Pattern(make([]byte, 10<<10), 5))
		got, holes := bytes.Repeat([]byte{0xee}, len(disk)), 0
		for off := int64(0); off < w.Size(); {
			data, end, err := w.Extent(off)
			must(t, err)
			if end <= off || end > w.Size() {
				t.Fatalf("%s: a run from %d to %d", name, off, end)
			}
			if data {
				_, err := w.ReadAt(got[off:end], off)
				must(t, err)
			} else {
				clear(got[off:end])
				holes++
			}
			off = end
		}
		if !bytes.Equal(got, disk) || holes == 0 {
			t.Errorf("%s: the view has other bytes than the volume had, or no holes (%d)", name, holes)
		}
		must(t, w.Close())
		must(t, h.Close())
	}
}

// Whatever is done to a volume, a view of before reads on.
func TestAViewOutlivesWhatBecomesOfItsVolume(t *testing.T) {
	const size = 1 << 20
	for name, act := range map[string]func(t *testing.T, y *yard, v store.Volume){
		"grown": func(t *testing.T, y *yard, v store.Volume) {
			must(t, y.Resize(t.Context(), v, 2*size, func() error { return nil }))
			v.Size = 2 * size
			y.Update(v)
			h := y.open(t, v)
			put(t, h, size-4096, volumetest.Pattern(make([]byte, 64<<10), 8))
		},
		"a snapshot was taken": func(t *testing.T, y *yard, v store.Volume) {
			out, err := y.snapshot(t.Context(), v)
			must(t, err)
			h := y.open(t, out)
			put(t, h, 0, volumetest.Pattern(make([]byte, size), 9))
		},
		"flattened, closed, opened and written": func(t *testing.T, y *yard, v store.Volume) {
			out, err := y.flatten(t.Context(), v)
			must(t, err)
			for range 2 {
				h := y.open(t, out)
				put(t, h, 0, volumetest.Pattern(make([]byte, size), 9))
				must(t, h.Close())
			}
		},
		"closed, opened and written": func(t *testing.T, y *yard, v store.Volume) {
			for range 2 {
				h := y.open(t, v)
				put(t, h, 0, volumetest.Pattern(make([]byte, size), 9))
				must(t, h.Close())
			}
		},
		"it began anew": func(t *testing.T, y *yard, v store.Volume) {
			out, err := y.renew(t.Context(), v, v.Layers[:1])
			must(t, err)
			must(t, y.RemoveLayers(t.Context(), v.Layers[1:]))
			h := y.open(t, out)
			put(t, h, 0, volumetest.Pattern(make([]byte, size), 9))
		},
		"removed": func(t *testing.T, y *yard, v store.Volume) { must(t, y.Remove(t.Context(), v)) },
		"layers were merged, twice": func(t *testing.T, y *yard, v store.Volume) {
			for range 2 {
				for len(v.Layers) < 4 {
					var err error
					v, err = y.snapshot(t.Context(), v)
					must(t, err)
					h := y.open(t, v)
					put(t, h, 0, volumetest.Pattern(make([]byte, size), uint64(len(v.Layers))))
					must(t, h.Close())
				}
				var err error
				v, _, err = y.merge(t.Context(), v, 1, 2)
				must(t, err)
			}
		},
	} {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, running %v", name, running), func(t *testing.T) {
				dir := t.TempDir()
				y := &yard{Pool: openPool(t, dir)}
				g := y.raw(t, size, 512)
				h := y.open(t, g)
				disk := volumetest.Pattern(make([]byte, size), 1)
				put(t, h, 0, disk)
				must(t, h.Close())
				v := y.clone(t, g)
				h = y.open(t, v)
				volumetest.Pattern(disk[100<<10:900<<10], 2)
				put(t, h, 100<<10, disk[100<<10:900<<10])
				w, err := y.View(t.Context(), v)
				must(t, err)
				files, err := y.View(t.Context(), v)
				must(t, err)
				if !running || name == "removed" {
					must(t, h.Close())
				}
				act(t, y, v)
				if got := everywhere(t, w, rand.New(rand.NewPCG(1, 1))); !bytes.Equal(got, disk) {
					t.Error("the view has other bytes than the volume had")
				}
				if got := putBack(t, y, dir, v, files); !bytes.Equal(got, disk) {
					t.Error("the files have other bytes than the volume had")
				}
				_ = h.Close()
				must(t, files.Close())
				must(t, w.Close())
				if n := len(y.views); n > 0 {
					t.Errorf("%d views are left", n)
				}
				must(t, y.Close())
				for id, l := range y.Pool.layers {
					t.Errorf("layer %d, %s, stays open %d times", id, l.name, l.refs)
				}
			})
		}
	}
}

// A copy never harms a machine: what cannot be saved ends the copy, and the write
// goes on.
func TestAViewThatCannotSaveIsGivenUpAndTheWriteGoesOn(t *testing.T) {
	for name, fault := range map[string]struct {
		kind   crashfs.OpKind
		suffix string
		err    error
	}{
		"the file system is full":       {crashfs.OpWrite, importSuffix, syscall.ENOSPC},
		"no file can be made":           {crashfs.OpCreate, "", syscall.EMFILE},
		"its name cannot be removed":    {crashfs.OpRemove, "", syscall.EIO},
		"what was there cannot be read": {crashfs.OpRead, "", syscall.EIO},
	} {
		for kind, create := range map[string]func(*testing.T, *yard, int64, int) store.Volume{"raw": kinds["raw"], "clone": kinds["clone of a raw volume"]} {
			fs := crashfs.New(1)
			y := &yard{Pool: crashPool(t, fs)}
			v := create(t, y, 1<<20, 512)
			h := y.open(t, v)
			put(t, h, 0, volumetest.Pattern(make([]byte, 1<<20), 1))
			w, err := y.View(t.Context(), v)
			must(t, err)
			sound, err := y.View(t.Context(), y.raw(t, 1<<20, 512))
			must(t, err)
			mended := failing(fs, fault.kind, fault.suffix, fault.err)
			now := volumetest.Pattern(make([]byte, 128<<10), 2)
			put(t, h, 4096, now)
			mended()
			wantBytes(t, h, 4096, now)
			must(t, h.Sync(t.Context()))
			p := make([]byte, 512)
			_, err = w.ReadAt(p, 0)
			e := wantKind(t, err, store.KindUnavailable)
			if !strings.Contains(e.Msg, "the machine goes on") {
				t.Errorf("%s, %s: %q", name, kind, e.Msg)
			}
			if _, err := w.Files(t.Context())[0].Read(p); !errors.Is(err, w.Lost()) {
				t.Errorf("%s, %s: a file of it reads, %v", name, kind, err)
			}
			put(t, h, 300<<10, now) // and costs nothing any more
			if tapOf(h.s.cur.Load().top.f) != nil && tapOf(h.s.cur.Load().top.f).views.Load() != nil {
				t.Errorf("%s, %s: writes still look at the view", name, kind)
			}
			must(t, w.Close())
			if _, err := sound.ReadAt(p, 0); err != nil {
				t.Errorf("%s, %s: the view of another volume ended too, %v", name, kind, err)
			}
			must(t, sound.Close())
		}
	}
}

// What a copy saves leaves room for the machines that run.
func TestAViewEndsBeforeItHasFilledTheFileSystem(t *testing.T) {
	d, err := openFolder(t.TempDir())
	must(t, err)
	p, err := newPool(&crowded{d, keepFree + 1}, quiet())
	must(t, err)
	y := &yard{Pool: p}
	defer p.Close()
	v := y.raw(t, flushEvery+1<<20, 512)
	h := y.open(t, v)
	b := volumetest.Pattern(make([]byte, 1<<20), 1)
	for off := int64(0); off < v.Size; off += 1 << 20 {
		put(t, h, off, b)
	}
	w, err := y.View(t.Context(), v)
	must(t, err)
	p.files.(*crowded).free = keepFree - 1
	for off := int64(0); off < v.Size; off += 1 << 20 {
		put(t, h, off, make([]byte, 1<<20))
	}
	lost := w.Lost()
	if wantKind(t, lost, store.KindUnavailable); !strings.Contains(lost.Error(), "are free") {
		t.Errorf("%v", lost)
	}
	must(t, w.Close())
}

// One command that takes a whole disk back does not wait until all of it was saved.
func TestACommandWaitsForSoMuchToBeSavedAndNoMore(t *testing.T) {
	for name, create := range map[string]func(*testing.T, *yard, int64, int) store.Volume{"raw": kinds["raw"], "clone": kinds["clone of a raw volume"]} {
		y := &yard{Pool: openPool(t, t.TempDir())}
		v := create(t, y, saveMost+16<<20, 512)
		h := y.open(t, v)
		b := volumetest.Pattern(make([]byte, 1<<20), 1)
		for off := int64(0); off < v.Size; off += 1 << 20 {
			put(t, h, off, b)
		}
		w, err := y.View(t.Context(), v)
		must(t, err)
		must(t, h.Unmap(t.Context(), 0, v.Size))
		if lost := w.Lost(); lost == nil || !errors.Is(lost, errTooMuch) {
			t.Errorf("%s: the view says %v", name, lost)
		}
		wantBytes(t, h, v.Size/2, make([]byte, 4096))
		must(t, w.Close())
		must(t, h.Close())
		must(t, y.Close())
	}
}

// Of a volume whose flush has failed there is no view, which would promise what was
// flushed, and what can still be read can be saved: also what only memory has, and
// what the map of a clone has not come to say on the disk.
func TestWhatRemainsOfAVolumeWhoseFlushFailedCanBeRead(t *testing.T) {
	for name, create := range map[string]func(*testing.T, *yard, int64, int) store.Volume{"raw": kinds["raw"], "clone": kinds["clone of a raw volume"]} {
		fs := crashfs.New(1)
		y := &yard{Pool: crashPool(t, fs)}
		v := create(t, y, 1<<20, 512)
		h := y.open(t, v)
		want := volumetest.Pattern(make([]byte, 256<<10), 1)
		put(t, h, 0, want[:128<<10])
		must(t, h.Sync(t.Context()))
		put(t, h, 128<<10, want[128<<10:])
		fs.Inject(failOnce(crashfs.OpSync, errDisk))
		w, err := y.Remains(t.Context(), v) // which is the first to find out
		must(t, err)
		if _, err := y.View(t.Context(), v); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "export the volume first") {
			t.Errorf("%s: a view: %v", name, err)
		}
		for _, of := range []string{"the first", "another"} {
			got := make([]byte, len(want))
			if _, err := w.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %s does not read what was written: %v", name, of, err)
			}
			if n := len(w.Files(t.Context())); n != 0 {
				t.Errorf("%s: %s has %d files, as if they were of one moment", name, of, n)
			}
			must(t, w.Close())
			w, err = y.Remains(t.Context(), v)
			must(t, err)
		}
		must(t, w.Close())
		must(t, h.Close())
		must(t, y.Close())
		if n := len(y.Pool.layers) + len(y.Pool.views); n != 0 {
			t.Errorf("%s: %d layers and views stay in the books", name, n)
		}
	}
}

// What a command takes back in many ranges counts together, and a command that is told
// of beforehand loses no view for which there is little to save.
func TestAllRangesOfACommandCountTogether(t *testing.T) {
	for name, create := range map[string]func(*testing.T, *yard, int64, int) store.Volume{"raw": kinds["raw"], "clone": kinds["clone of a raw volume"]} {
		y := &yard{Pool: openPool(t, t.TempDir())}
		v := create(t, y, saveMost+64<<20, 512)
		h := y.open(t, v)
		b := volumetest.Pattern(make([]byte, 1<<20), 1)
		for off := int64(0); off < saveMost+16<<20; off += 1 << 20 {
			put(t, h, off, b)
		}
		for end, lost := range map[int64]bool{saveMost / 2: false, saveMost + 16<<20: true} {
			w, err := y.View(t.Context(), v)
			must(t, err)
			must(t, h.Foresee(t.Context(), func(yield func(off, n int64) bool) {
				for off := int64(0); off < end && yield(off, 2<<20); off += 2 << 20 {
				}
			}))
			if got := w.Lost(); (got != nil) != lost || lost && !errors.Is(got, errTooMuch) {
				t.Errorf("%s: after %s in ranges of 2 MiB the view says %v", name, store.Bytes(end), got)
			}
			if kept := w.kept.Load(); !lost && kept != end {
				t.Errorf("%s: %d bytes were saved, want %d", name, kept, end)
			}
			must(t, w.Close())
		}
		must(t, h.Close())
		must(t, y.Close())
	}
}

// The kill of the process in the middle of a copy leaves no file, nor does a power
// cut once lunboot has started again.
func TestACrashInACopyLeavesNoFile(t *testing.T) {
	for at := 1; at < 60; at++ {
		fs := crashfs.New(uint64(at))
		y := &yard{Pool: crashPool(t, fs)}
		v := y.clone(t, y.raw(t, 512<<10, 512))
		h := y.open(t, v)
		put(t, h, 0, volumetest.Pattern(make([]byte, 512<<10), 1))
		must(t, h.Sync(t.Context()))
		fs.CrashAt(at)
		w, err := y.View(t.Context(), v)
		for off := int64(0); err == nil && off < v.Size; off += 64 << 10 {
			if err = h.WriteAt(t.Context(), make([]byte, 4096), off); err == nil {
				err = h.Sync(t.Context())
			}
		}
		if w != nil {
			_ = w.Close()
		}
		over := !fs.Crashed()
		fs = fs.Restart()
		again := crashPool(t, fs)
		left, err := again.files.Names()
		must(t, err)
		for _, name := range left {
			if strings.HasPrefix(name, ".") {
				t.Errorf("crash at change %d: %s is left", at, name)
			}
		}
		if over {
			return
		}
	}
}

// Without a view a write looks at one word more than before, and allocates nothing.
func TestAViewThatEndedCostsNothing(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.raw(t, 1<<20, 512)
	h := y.open(t, v)
	w, err := y.View(t.Context(), v)
	must(t, err)
	put(t, h, 0, []byte("over"))
	must(t, w.Close())
	b := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if err := h.WriteAt(t.Context(), b, 4096); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a write", n)
	}
	if tapOf(h.s.cur.Load().top.f).views.Load() != nil {
		t.Error("writes still look at the view")
	}
}

// A pool that is closed ends the copies, and waits for none.
func TestAPoolThatIsClosedEndsItsViews(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.clone(t, y.raw(t, 1<<20, 512))
	w, err := y.View(t.Context(), v)
	must(t, err)
	must(t, y.Close())
	if _, err := w.ReadAt(make([]byte, 512), 0); err == nil || !strings.Contains(err.Error(), "being stopped") {
		t.Errorf("it reads on, %v", err)
	}
	must(t, w.Close())
	if _, err := y.View(t.Context(), v); err == nil {
		t.Error("a closed pool gives views")
	}
}

// A volume that is wiped is in no copy any more.
func TestAWipeEndsTheViewsOfItsVolume(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v, other := y.raw(t, 1<<20, 512), y.raw(t, 1<<20, 512)
	w, err := y.View(t.Context(), v)
	must(t, err)
	stays, err := y.View(t.Context(), other)
	must(t, err)
	y.GiveUp(v.ID)
	if lost := w.Lost(); lost == nil || !strings.Contains(lost.Error(), "wiping") {
		t.Errorf("the view says %v", lost)
	}
	must(t, stays.Lost())
	must(t, w.Close())
	must(t, stays.Close())
}

// Of what nobody can write no view saves anything, and it reads while others do.
func TestAViewOfAGoldenVolumeReadsItsFile(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	g := y.raw(t, 1<<20, 512)
	h := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, h, 0, disk)
	must(t, h.Close())
	v := y.clone(t, g)
	frozen := y.freeze(g)
	w, err := y.View(t.Context(), frozen)
	must(t, err)
	if files := w.Files(t.Context()); len(files) != 0 {
		t.Errorf("%d files are said to change", len(files))
	}
	hv := y.open(t, v)
	put(t, hv, 0, []byte("the clone's"))
	if got := everywhere(t, w, rand.New(rand.NewPCG(1, 2))); !bytes.Equal(got, disk) {
		t.Error("other bytes than the volume has")
	}
	must(t, w.Close())
}

// A volatile volume is copied from the page cache, as its machine sees it.
func TestAViewOfAVolatileVolume(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g := y.freeze(y.raw(t, 1<<20, 512))
	y.volumes++
	v := store.Volume{ID: y.volumes, Name: "volatile", Kind: store.VolumeClone, Parent: g.ID, Size: g.Size, BlockSize: 512, State: store.VolumeReady, Reset: true, Volatile: true}
	y.row(&v, g.Layers...)
	must(t, y.Create(t.Context(), v))
	h := y.open(t, v)
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, h, 0, disk)
	w, err := y.View(t.Context(), v)
	must(t, err)
	files, err := y.View(t.Context(), v)
	must(t, err)
	put(t, h, 0, make([]byte, 1<<20))
	if got := everywhere(t, w, rand.New(rand.NewPCG(1, 1))); !bytes.Equal(got, disk) {
		t.Error("the view has other bytes than the volume had")
	}
	if got := putBack(t, y, dir, v, files); !bytes.Equal(got, disk) {
		t.Error("the files have other bytes than the volume had")
	}
	must(t, w.Close())
	must(t, files.Close())
}

// Layers are frozen, merged and flattened while machines write and views are read.
func TestViewsWhileLayersChangeUnderRunningMachines(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.raw(t, 1<<20, 512)
	o := work(t, y, v, 2)
	var mu sync.Mutex
	var stop atomic.Bool
	var changer sync.WaitGroup
	changer.Go(func() {
		for n := 0; !stop.Load(); n++ {
			next, err := y.snapshot(context.Background(), v)
			if err == nil && len(next.Layers) > 4 {
				next, _, err = y.merge(context.Background(), next, 1, 2+n%2)
			}
			if err == nil && n%7 == 6 {
				next, err = y.flatten(context.Background(), next)
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			v = next
			mu.Unlock()
		}
	})
	rng := rand.New(rand.NewPCG(6, 6))
	for taken := 0; taken < 8 && !t.Failed(); {
		mu.Lock()
		row := v
		mu.Unlock()
		var from, to []int
		for _, s := range o.scribes {
			done, _ := s.now()
			from = append(from, done)
		}
		w, err := y.View(t.Context(), row)
		if store.KindOf(err) == store.KindConflict { // the row is older than the layers
			continue
		}
		must(t, err)
		for _, s := range o.scribes {
			_, begun := s.now()
			to = append(to, begun)
		}
		o.wantMoment(t, everywhere(t, w, rng), from, to)
		must(t, w.Close())
		taken++
	}
	stop.Store(true)
	changer.Wait()
	o.end()
	must(t, y.Close())
	if n := len(y.Pool.layers); n > 0 {
		t.Errorf("%d layers stay open", n)
	}
}

// A view may be given up at any moment of its life, also of its beginning.
func TestAViewIsGivenUpAsItBegins(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.clone(t, y.raw(t, 1<<20, 512))
	h := y.open(t, v)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			y.GiveUp(v.ID)
		}
	})
	b := volumetest.Pattern(make([]byte, 64<<10), 1)
	for range 200 {
		w, err := y.View(t.Context(), v)
		must(t, err)
		put(t, h, 0, b)
		if _, err := w.ReadAt(make([]byte, 512), 0); err != nil && w.Lost() == nil {
			t.Error(err)
		}
		must(t, w.Close())
	}
	stop.Store(true)
	wg.Wait()
	if _, states := h.s.cur.Load().top.overlay().Files(); tapOf(states).views.Load() != nil {
		t.Error("writes still look at a view")
	}
}

func TestMarksOfALargeVolume(t *testing.T) {
	const n = int64(1) << 30 // granules of 64 TiB
	m := newMarks(n)
	want := []int64{0, 1, 63, 64, perMarkPage - 1, perMarkPage, 5*perMarkPage + 77, n - 1}
	for _, g := range want {
		if m.has(g) {
			t.Errorf("%d is marked", g)
		}
		m.set(g)
	}
	var got []int64
	for g := m.next(0, n); g < n; g = m.next(g+1, n) {
		if !m.has(g) {
			t.Errorf("%d is not marked", g)
		}
		got = append(got, g)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v are marked, want %v", got, want)
	}
	if end := m.next(65, 100); end != 100 {
		t.Errorf("the next one up to 100 is %d", end)
	}
}

// A file is saved no more once it was read: what is written behind the reader costs
// nothing.
func TestWhatWasReadOnceIsNotSaved(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v := y.raw(t, 1<<20-4096, 512)
	h := y.open(t, v)
	disk := volumetest.Pattern(make([]byte, v.Size), 1)
	put(t, h, 0, disk)
	w, err := y.View(t.Context(), v)
	must(t, err)
	defer w.Close()
	f := w.Files(t.Context())[0]
	half := make([]byte, 512<<10)
	if _, err := io.ReadFull(f, half); err != nil {
		t.Fatal(err)
	}
	put(t, h, 0, make([]byte, 512<<10))
	if n := w.kept.Load(); n != 0 {
		t.Errorf("%d bytes were saved that nobody reads", n)
	}
	put(t, h, 512<<10, make([]byte, v.Size-512<<10))
	if n := w.kept.Load(); n != v.Size-512<<10 {
		t.Errorf("%d bytes were saved, and %d are still to be read", n, v.Size-512<<10)
	}
	rest, err := io.ReadAll(f)
	must(t, err)
	if !bytes.Equal(append(half, rest...), disk) {
		t.Error("the file has other bytes than the volume had")
	}
	// And when all of it was read, what was saved gives its room back.
	put(t, h, v.Size-4096, make([]byte, 4096))
	if size, err := w.files[0].spare.Size(); err != nil || size != 0 {
		t.Errorf("%d bytes are kept aside, %v", size, err)
	}
	if tapOf(h.s.cur.Load().top.f).views.Load() != nil {
		t.Error("writes still look at the view")
	}
	must(t, w.Lost())
}
