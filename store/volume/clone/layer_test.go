package clone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
)

func TestANewLayerReadsAsItsParentAndZeroBehindIt(t *testing.T) {
	for _, parent := range []int{0, 512, 4096, 10000 / 512 * 512, 64 << 10} {
		r := newRig(t, 1, 128<<10+512, holed(parent, 3))
		if !bytes.Equal(r.all(t), r.model()) {
			t.Errorf("over a parent of %d bytes the layer reads something else", parent)
		}
	}
}

// scribble does random things to a layer and a plain array, for seeds.
func scribble(t *testing.T, l *Layer, model []byte, rng *rand.Rand, steps int, reopen func() *Layer) *Layer {
	t.Helper()
	size := int64(len(model))
	for step := range steps {
		off := rng.Int64N(size)
		n := rng.Int64N(min(size-off, 40<<10) + 1)
		switch rng.IntN(3) {
		case 0:
			off, n = off&^511, n&^511
		case 1:
			off, n = off&^4095, n&^4095
		}
		part := model[off : off+n]
		switch op := rng.IntN(20); {
		case op < 8:
			copy(part, pattern(int(n), rng.Uint64()))
			_, err := l.WriteAt(part, off)
			must(t, err)
		case op < 12:
			clear(part)
			must(t, l.Punch(off, n))
		case op < 14:
			must(t, l.Sync())
		case op == 14 && reopen != nil:
			l = reopen()
		case op == 15:
			if err := l.Flatten(t.Context(), nil, nil); err != nil {
				t.Fatal(err)
			}
		case op == 16:
			for at := off; at < off+n; {
				data, end, err := l.Extent(at)
				must(t, err)
				if end <= at {
					t.Fatalf("step %d: an extent of %d bytes", step, end-at)
				}
				end = min(end, off+n)
				if !data && !isZeros(model[at:end]) {
					t.Fatalf("step %d: data is called a hole", step)
				}
				at = end
			}
		default:
			got := make([]byte, n)
			if rng.IntN(2) == 0 && !l.Resident(got, off) {
				continue
			} else if _, err := l.ReadAt(got, off); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, part) {
				t.Fatalf("step %d: %d bytes at %d differ from the model", step, n, off)
			}
		}
	}
	return l
}

func isZeros(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }

func TestRandomOperationsAgreeWithAPlainArray(t *testing.T) {
	seeds := uint64(6)
	if soak() {
		seeds = 300
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		size := int64(512 * (200 + rng.IntN(800)))
		r := newRig(t, seed, size, holed(512*rng.IntN(int(size/512)+1), seed))
		model := r.model()
		r.Layer = scribble(t, r.Layer, model, rng, 300, func() *Layer {
			must(t, r.Layer.Sync())
			must(t, r.open(t))
			return r.Layer
		})
		if !bytes.Equal(r.all(t), model) {
			t.Fatalf("seed %d: the layer differs from the model at the end", seed)
		}
		if rep, err := r.Check(t.Context()); err != nil || !rep.Sound() || rep.Stale != 0 {
			t.Fatalf("seed %d: Check found %+v, %v", seed, rep, err)
		}
	}
}

func TestRandomOperationsAgreeOnFilesThatCannotPunch(t *testing.T) {
	for seed := range uint64(3) {
		r := newRig(t, seed, 300<<10, holed(200<<10, seed))
		r.Layer.data = noHoles{r.Layer.data}
		model := r.model()
		scribble(t, r.Layer, model, rand.New(rand.NewPCG(seed, 2)), 300, nil)
		if !bytes.Equal(r.all(t), model) {
			t.Fatal("the layer differs from the model")
		}
	}
}

func TestAChainReadsThroughAllOfItsLayers(t *testing.T) {
	fs := crashfs.New(1)
	const size = 300 << 10
	model := make([]byte, size)
	copy(model, holed(size/2, 1))
	var under File = memoryFile(t, fs, "parent", model[:size/2])
	id := identity(size, size/2)
	rng := rand.New(rand.NewPCG(4, 4))
	for depth := range 4 {
		name := fmt.Sprint(depth)
		data, file := memoryFile(t, fs, name, nil), memoryFile(t, fs, name+".map", nil)
		must(t, Create(data, file, id))
		l, err := Open(data, file, under, id, true)
		must(t, err)
		frozen := bytes.Clone(model)
		scribble(t, l, model, rng, 60, nil)
		got := make([]byte, size)
		_, err = l.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, model) {
			t.Fatalf("layer %d differs from the model", depth)
		}
		if depth > 0 {
			if _, err := under.ReadAt(got, 0); err != nil || !bytes.Equal(got, frozen) {
				t.Fatalf("a write to layer %d changed the one below it (%v)", depth, err)
			}
		}
		must(t, l.Sync())
		next := id
		next.Parent, next.ParentSize, next.UUID = id.UUID, size, store.UUID{byte(depth) + 50}
		under, id = l, next
	}
}

func TestWritersOfDifferentPartsOfAGranuleDoNotDisturbEachOther(t *testing.T) {
	const size = 256 << 10
	r := newRig(t, 1, size, pattern(size, 1))
	model := r.model()
	var wg sync.WaitGroup
	for w := range 8 { // each has one sector of every granule
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 9))
			for range 300 {
				off := rng.Int64N(size/Granule)*Granule + int64(w)*512
				part := model[off : off+512]
				if rng.IntN(3) == 0 {
					clear(part)
					must(t, r.Punch(off, 512))
				} else {
					copy(part, pattern(512, rng.Uint64()))
					_, err := r.WriteAt(part, off)
					must(t, err)
				}
				if rng.IntN(50) == 0 {
					must(t, r.Layer.Sync())
				}
				got := make([]byte, 512)
				if _, err := r.ReadAt(got, off); err != nil || !bytes.Equal(got, part) {
					t.Errorf("writer %d: its sector at %d is not what it wrote (%v)", w, off, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 3 {
			must(t, r.Flatten(context.Background(), nil, nil))
		}
	})
	wg.Wait()
	if !bytes.Equal(r.all(t), model) {
		t.Error("the layer differs from the model")
	}
}

func TestAFlattenedLayerIsItsDataFileAlone(t *testing.T) {
	for seed := range uint64(2) {
		const size = 3<<20 + 1024
		r := newRig(t, seed, size, holed(2<<20+512, seed))
		model := r.model()
		rng := rand.New(rand.NewPCG(seed, 8))
		scribble(t, r.Layer, model, rng, 40, nil)
		// What a crash took back lies under 00 in the data file.
		for off := int64(0); off < size; off += Granule {
			if st, _, err := r.run(off, 1); err != nil || st == here {
				continue
			}
			_, err := r.data.WriteAt(pattern(int(min(Granule, size-off)), 99), off)
			must(t, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err := r.Flatten(ctx, func(done, total int64) {
			if done > size/2 {
				cancel()
			}
		}, nil)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("a flatten that was canceled returned %v", err)
		}
		if !bytes.Equal(r.all(t), model) {
			t.Fatal("a flatten that was canceled changed what is read")
		}
		must(t, r.Flatten(t.Context(), nil, nil))
		for range 2 {
			if !bytes.Equal(readAll(t, r.data), model) {
				t.Fatalf("seed %d: the data file alone is not the layer", seed)
			}
			scribble(t, r.Layer, model, rng, 60, nil) // and it stays so
		}
	}
}

func TestGrowing(t *testing.T) {
	r := newRig(t, 1, 100<<10+512, pattern(100<<10+512, 1)[:50<<10])
	model := r.model()
	tail := pattern(700, 2)
	copy(model[len(model)-700:], tail)
	_, err := r.WriteAt(tail, int64(len(model)-700))
	must(t, err)
	size := 2*pageSpan + 4096
	must(t, r.Truncate(size))
	if err := r.Truncate(1000); err == nil {
		t.Error("a layer could be made smaller")
	}
	r.id.Size = size
	for range 2 {
		got := make([]byte, 200<<10)
		_, err = r.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got[:len(model)], model) || !isZeros(got[len(model):]) {
			t.Fatal("after growing the layer differs from what it was and zeros")
		}
		_, err = r.WriteAt(tail, size-700)
		must(t, err)
		if _, err := r.ReadAt(got[:700], size-700); err != nil || !bytes.Equal(got[:700], tail) {
			t.Fatalf("what was written at the new end is not there (%v)", err)
		}
		must(t, r.Layer.Sync())
		must(t, r.open(t))
	}
	if n, err := r.ReadAt(make([]byte, 100), size-10); n != 10 || err != io.EOF {
		t.Errorf("reading over the end returned %d, %v", n, err)
	}
}

func TestAWrongParentIsRefusedInWords(t *testing.T) {
	r := newRig(t, 1, 64<<10, pattern(32<<10, 1))
	other := store.UUID{0xaa}
	for name, change := range map[string]func(*Identity){
		"another parent":         func(id *Identity) { id.Parent = other },
		"a parent of other size": func(id *Identity) { id.ParentSize -= 512 },
		"another layer's map":    func(id *Identity) { id.UUID = other },
	} {
		bad := &rig{fs: r.fs, id: r.id}
		change(&bad.id)
		err := bad.open(t)
		var wrong *ParentError
		if !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var cut *CutError
	parent := openFile(t, r.fs, "parent")
	must(t, parent.Truncate(32<<10-512))
	if err := r.open(t); !errors.As(err, &cut) {
		t.Errorf("a parent that was cut: %v", err)
	}
	must(t, parent.Truncate(32<<10))
	data := openFile(t, r.fs, "data")
	must(t, data.Truncate(1024))
	if err := r.open(t); !errors.As(err, &cut) {
		t.Errorf("a data file that was cut: %v", err)
	}
	if err := Create(memoryFile(t, r.fs, "x", nil), memoryFile(t, r.fs, "x.map", nil), identity(4096, 8192)); !errors.As(err, &cut) {
		t.Errorf("a layer smaller than its parent: %v", err)
	}
}

func TestALayerForReadingTakesNoWrites(t *testing.T) {
	r := newRig(t, 1, 64<<10, nil)
	l, err := Open(r.data, r.file, r.Layer.under(), r.id, false)
	must(t, err)
	_, err = l.WriteAt(make([]byte, 512), 0)
	for name, err := range map[string]error{"write": err, "punch": l.Punch(0, 4096), "grow": l.Truncate(1 << 20), "flatten": l.Flatten(t.Context(), nil, nil)} {
		if !errors.Is(err, errReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Opening a clone does not depend on its size, and using a little of it takes
// little.
func TestOpeningALargeLayerReadsItsHeaderAlone(t *testing.T) {
	const size = 1 << 40
	data, file, parent := newDisk(t, 0), newDisk(t, 0), newDisk(t, size)
	file.lazy = !soak()
	id := identity(size, size)
	must(t, Create(data, file, id))
	open := func() *Layer {
		t.Helper()
		l, err := Open(data, file, parent, id, true)
		must(t, err)
		return l
	}
	file.reads, file.bytes = 0, 0
	begun := time.Now()
	l := open()
	t.Logf("opened an empty one of 1 TiB in %s", time.Since(begun))
	if file.reads != 1 || file.bytes != headerSize || data.reads+parent.reads != 0 {
		t.Errorf("opening took %d reads of %d bytes of the map and %d of other files", file.reads, file.bytes, data.reads+parent.reads)
	}
	// A map that is used from end to end: 17,051 pages, of which CI writes a few.
	step := 1
	if file.lazy {
		step = 1705
	}
	for i := 0; i < pagesOf(size); i += step {
		p := &page{next: 1, empty: 3}
		p.set(0, perPage, zero)
		(*l.pages.Load())[i].Store(p)
		l.markDirty(i, p)
	}
	must(t, l.Sync())
	l = nil
	file.reads, file.bytes = 0, 0
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begun = time.Now()
	got := open()
	took := time.Since(begun)
	runtime.ReadMemStats(&after)
	t.Logf("opened a used one of 1 TiB in %s, with %d reads of its map and %d KiB of memory", took, file.reads, (after.TotalAlloc-before.TotalAlloc)>>10)
	if after.TotalAlloc-before.TotalAlloc > 16<<20 {
		t.Errorf("opening took %d bytes of memory", after.TotalAlloc-before.TotalAlloc)
	}
	if file.bytes > eager+headerSize {
		t.Errorf("opening read %d bytes of the map", file.bytes)
	}
	loaded := 0
	for i := range *got.pages.Load() {
		if (*got.pages.Load())[i].Load() != nil {
			loaded++
		}
	}
	if loaded*slotSize > 32<<20 {
		t.Errorf("opening loaded %d map pages", loaded)
	}
	b := make([]byte, 4096)
	for _, off := range []int64{0, size / 2, size - 4096} {
		_, err := got.ReadAt(b, off)
		must(t, err)
	}
}

func TestReadingAndWritingAllocateNothing(t *testing.T) {
	data, file, parent := newDisk(t, 0), newDisk(t, 0), newDisk(t, 1<<20)
	id := identity(1<<20, 1<<20)
	must(t, Create(data, file, id))
	l, err := Open(data, file, parent, id, true)
	must(t, err)
	b := make([]byte, 64<<10)
	at := int64(0)
	for name, fn := range map[string]func() error{
		"read":         func() error { _, err := l.ReadAt(b, 4096); return err },
		"first write":  func() error { at += 4096; _, err := l.WriteAt(b[:4096], at); return err },
		"part written": func() error { at += 4096; _, err := l.WriteAt(b[:512], at+512); return err },
		"write":        func() error { _, err := l.WriteAt(b, 4096); return err },
		"resident":     func() error { l.Resident(b, 4096); return nil },
		"cached":       func() error { l.Cached(4096, 4096); return nil },
	} {
		at = 0
		if n := testing.AllocsPerRun(50, func() { err = fn() }); n >= 1 && name != "resident" || err != nil {
			t.Errorf("%s: %v allocations, err %v", name, n, err)
		}
	}
}

func TestAFullDiskRefusesTheWriteAndNeverTheFlush(t *testing.T) {
	r := newRig(t, 1, 2*pageSpan, pattern(64<<10, 1))
	got := make([]byte, 4096)
	_, err := r.WriteAt(pattern(4096, 2), 0)
	must(t, err)
	must(t, r.Layer.Sync())
	r.fs.SetFree(0)
	// A granule that is here has its room, and so has the flush.
	_, err = r.WriteAt(pattern(4096, 3), 0)
	must(t, err)
	for _, off := range []int64{4096, 4096 + 512, pageSpan, pageSpan + 512} {
		if _, err := r.WriteAt(pattern(2048, 4), off); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a first write at %d on a full disk: %v", off, err)
		}
		if _, err := r.ReadAt(got, off&^4095); err != nil || !bytes.Equal(got, r.model()[off&^4095:][:4096]) {
			t.Fatalf("a write that was refused changed what is read at %d (%v)", off, err)
		}
	}
	must(t, r.Punch(8192, 4096)) // takes no room of the data file
	must(t, r.Layer.Sync())
	// Room for the data, none for its page.
	r.fs.SetFree(4096)
	if _, err := r.WriteAt(pattern(4096, 4), pageSpan); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("a write whose map page has no room: %v", err)
	}
	r.fs.SetFree(1 << 20)
	_, err = r.WriteAt(pattern(4096, 5), pageSpan)
	must(t, err)
	must(t, r.Layer.Sync())
	must(t, r.open(t))
	if _, err := r.ReadAt(got, pageSpan); err != nil || !bytes.Equal(got, pattern(4096, 5)) {
		t.Errorf("after room was made the write is not there (%v)", err)
	}
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, pattern(4096, 3)) {
		t.Errorf("what was written while the disk was full is not there (%v)", err)
	}
}
