package volume

import (
	"runtime"
	"testing"

	"lunboot/store"
)

// spread writes one granule in each page of a clone's map.
func spread(tb testing.TB, y *yard, v store.Volume) {
	tb.Helper()
	h, err := y.Open(tb.Context(), v)
	for off := int64(0); err == nil && off < v.Size; off += 61 << 20 {
		err = h.WriteAt(tb.Context(), zeros[:4096], off)
	}
	if err == nil {
		err = h.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// tib returns clones of a golden volume of 1 TiB: one that nothing was written to,
// and one that was written to everywhere, whose map is as large as it gets.
func tib(tb testing.TB) (y *yard, untouched, full store.Volume) {
	tb.Helper()
	p, err := OpenPool(tb.TempDir(), quiet())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { p.Close() })
	y = &yard{Pool: p}
	g := y.raw(tb, 1<<40, 512)
	untouched, full = y.clone(tb, g), y.clone(tb, g)
	spread(tb, y, full)
	return y, untouched, full
}

func TestACloneOfATebibyteOpensInLittleMemory(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	clones := map[string]store.Volume{"of 1 TiB": y.clone(t, y.raw(t, 1<<40, 512))}
	// The largest whose map is read and verified at once.
	clones["of 120 GiB, written to everywhere"] = y.clone(t, y.raw(t, 120<<30, 512))
	spread(t, y, clones["of 120 GiB, written to everywhere"])
	if soak() {
		clones["of 1 TiB, written to everywhere"] = y.clone(t, y.raw(t, 1<<40, 512))
		spread(t, y, clones["of 1 TiB, written to everywhere"])
	}
	for name, v := range clones {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h, err := y.Open(t.Context(), v)
		runtime.ReadMemStats(&after)
		must(t, err)
		must(t, h.Close())
		took := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB", name, took>>10)
		if took > 64<<20 {
			t.Errorf("a clone %s takes %d MiB to open", name, took>>20)
		}
	}
}

func BenchmarkOpenACloneOfATebibyte(b *testing.B) {
	y, untouched, full := tib(b)
	for name, v := range map[string]store.Volume{"untouched": untouched, "full": full} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h, err := y.Open(b.Context(), v)
				if err == nil {
					err = h.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCreateAClone(b *testing.B) {
	for name, size := range map[string]int64{"1GiB": 1 << 30, "1TiB": 1 << 40} {
		b.Run(name, func(b *testing.B) {
			p, err := OpenPool(b.TempDir(), quiet())
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			y := &yard{Pool: p}
			g := y.raw(b, size, 512)
			for b.Loop() {
				y.clone(b, g)
			}
		})
	}
}

// Reading through a clone, from the page cache, beside reading a raw volume.
func BenchmarkRead4KiB(b *testing.B) {
	p, err := OpenPool(b.TempDir(), quiet())
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	y := &yard{Pool: p}
	const size = 64 << 20
	g := y.raw(b, size, 512)
	h, err := y.Open(b.Context(), g)
	for off := int64(0); err == nil && off < size; off += int64(len(zeros)) {
		err = h.WriteAt(b.Context(), zeros[:], off)
	}
	if err == nil {
		err = h.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	g = y.freeze(g)
	c := y.clone(b, g)
	for name, v := range map[string]store.Volume{"raw": g, "clone": c, "clone of a clone": y.clone(b, c)} {
		b.Run(name, func(b *testing.B) {
			h, err := y.Open(b.Context(), v)
			if err != nil {
				b.Fatal(err)
			}
			defer h.Close()
			b.ReportAllocs()
			buf := make([]byte, 4096)
			off := int64(0)
			for b.Loop() {
				if err := h.ReadAt(b.Context(), buf, off); err != nil {
					b.Fatal(err)
				}
				off = (off + 7<<12) % size
			}
		})
	}
}
