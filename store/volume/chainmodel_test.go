package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// soak is whether the long tests run.
func soak() bool { return os.Getenv("LUNBOOT_SOAK") == "1" }

// grove is a volume with what it must hold, and the states of it that were kept.
type grove struct {
	*yard
	v       store.Volume
	h       *Handle
	model   []byte
	kept    [][]byte // of the layers below the top, bottom to top
	history *history // nil: without a crash
}

func (r *grove) reopen(ctx context.Context) (err error) {
	if r.h != nil {
		if err := r.h.Close(); err != nil {
			return err
		}
	}
	r.h, err = r.Open(ctx, r.v)
	return err
}

// step does one random act. What it returns is an error of the volume.
func (r *grove) step(ctx context.Context, rng *rand.Rand) (string, error) {
	size := int64(len(r.model))
	off := rng.Int64N(size)
	n := rng.Int64N(min(size-off, 24<<10)) + 1
	if r.history != nil || rng.IntN(2) == 0 {
		off &^= 511
		n = max(512, min(n&^511, size-off))
	}
	switch op := rng.IntN(24); {
	case op < 9:
		b := volumetest.Pattern(make([]byte, n), rng.Uint64())
		copy(r.model[off:], b)
		r.wrote(off, n)
		return fmt.Sprintf("write %d+%d", off, n), r.h.WriteAt(ctx, b, off)
	case op < 12:
		clear(r.model[off : off+n])
		r.wrote(off, n)
		return fmt.Sprintf("unmap %d+%d", off, n), r.h.Unmap(ctx, off, n)
	case op < 14:
		err := r.h.Sync(ctx)
		if err == nil && r.history != nil {
			r.history.synced()
		}
		return "sync", err
	case op < 15:
		err := r.reopen(ctx)
		if err == nil && r.history != nil {
			r.history.synced()
		}
		return "reopen", err
	case op < 18 && len(r.v.Layers) < store.MaxLayers:
		out, err := r.snapshot(ctx, r.v)
		if err == nil {
			r.v = out
			r.kept = append(r.kept, bytes.Clone(r.model))
			if r.history != nil {
				r.history.synced()
			}
		}
		return "snapshot", err
	case op < 20 && len(r.v.Layers) > 1:
		keep := 1 + rng.IntN(len(r.v.Layers)-1)
		var out store.Volume
		var err error
		next := r.v
		below := r.v.Layers[:keep]
		l := r.row(&next, below...)
		err = r.Replace(ctx, r.v, l, below, func() (store.Volume, error) {
			out = next
			// From here on the volume is what was kept.
			r.model = bytes.Clone(r.kept[keep-1])
			r.v, r.kept = out, r.kept[:keep]
			if r.history != nil {
				r.wrote(0, size)
				r.history.synced()
			}
			return out, nil
		})
		if err == nil {
			err = r.reopen(ctx)
		}
		return fmt.Sprintf("replace over %d", keep), err
	case op < 21 && len(r.v.Layers) > 1:
		out := r.v
		top := r.v.TopLayer()
		top.Kind, top.Below = store.LayerRaw, 0
		out.Layers, out.Revision = []store.Layer{top}, r.v.Revision+1
		err := r.Flatten(ctx, r.v, nil, func() (store.Volume, error) {
			r.v, r.kept = out, nil
			if r.history != nil {
				r.history.synced()
			}
			return out, nil
		})
		return "flatten", err
	case op < 22 && len(r.v.Layers) > 3:
		from := 1 + rng.IntN(len(r.v.Layers)-3)
		to := from + 1 + rng.IntN(len(r.v.Layers)-2-from)
		next := store.NewLayer(r.v, r.v.Layers[from].Below)
		loose := slices.Clone(r.v.Layers[from:to])
		old := next
		old.Path = r.v.Layers[to].Path
		err := r.Merge(ctx, r.v, r.v.Layers[from].ID, r.v.Layers[to].ID, next, nil, func() error {
			r.v = merged(r.v, from, to, next)
			r.kept = slices.Delete(r.kept, from, to)
			return nil
		})
		if err == nil {
			err = r.RemoveLayers(ctx, append(loose, old))
		}
		return fmt.Sprintf("merge %d to %d", from, to), err
	default:
		p := make([]byte, n)
		if err := r.h.ReadAt(ctx, p, off); err != nil {
			return "read", err
		}
		if !bytes.Equal(p, r.model[off:off+n]) {
			return "read", fmt.Errorf("%d bytes at %d differ from the model", n, off)
		}
		return "read", nil
	}
}

func (r *grove) wrote(off, n int64) {
	if r.history == nil {
		return
	}
	for s := off / crashfs.Sector; s < (off+n)/crashfs.Sector; s++ {
		r.history.wrote(int(s), r.model[s*crashfs.Sector:(s+1)*crashfs.Sector])
	}
}

func TestAVolumeThroughManyChangesOfItsLayersAgreesWithAnArray(t *testing.T) {
	seeds := uint64(12)
	if soak() {
		seeds = 400
	}
	const size = 256 << 10
	for seed := range seeds {
		fs := crashfs.New(seed)
		y := &yard{Pool: crashPool(t, fs)}
		r := &grove{yard: y, v: y.raw(t, size, 512), model: make([]byte, size)}
		must(t, r.reopen(t.Context()))
		rng := rand.New(rand.NewPCG(seed, 11))
		var did string
		var err error
		for step := range 400 {
			if did, err = r.step(t.Context(), rng); err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, step, did, err)
			}
		}
		wantBytes(t, r.h, 0, r.model)
		must(t, r.h.Close())
		y.ends.Wait()
		if len(y.Pool.layers)+len(y.Pool.open)+len(y.former) != 0 {
			t.Errorf("seed %d: %d layers are still open", seed, len(y.Pool.layers))
		}
	}
}

// A crash at each change in turn: while layers are changed as well, each sector is
// what was flushed or what was written since.
func TestNoChangeOfLayersLosesWhatWasFlushed(t *testing.T) {
	const size = 64 * crashfs.Sector
	steps, every, seeds := 60, 2, uint64(2)
	if soak() {
		every, seeds = 1, 8
	}
	for seed := range seeds {
		for k := 1 + int(seed)%every; ; k += every {
			fs := crashfs.New(seed<<32 | uint64(k))
			y := &yard{Pool: crashPool(t, fs)}
			r := &grove{yard: y, v: y.raw(t, size, 512), model: make([]byte, size), history: newHistory(size / crashfs.Sector)}
			must(t, r.reopen(t.Context()))
			fs.CrashAt(k)
			rng := rand.New(rand.NewPCG(seed, 13))
			var did string
			var err error
			for range steps {
				if did, err = r.step(t.Context(), rng); err != nil {
					break
				}
			}
			if err != nil && !fs.Crashed() {
				t.Fatalf("seed %d, change %d, %s: %v", seed, k, did, err)
			}
			crashed := fs.Crashed()
			after := crashPool(t, fs.Restart())
			h, err := after.Open(t.Context(), r.v)
			if err != nil {
				t.Fatalf("seed %d, change %d, in %s: the volume does not open: %v", seed, k, did, err)
			}
			got := make([]byte, size)
			must(t, h.ReadAt(t.Context(), got, 0))
			r.history.check(t, got)
			check, err := after.Check(t.Context(), r.v)
			if err != nil || !check.OK {
				t.Fatalf("seed %d, change %d, in %s: the check says %+v, %v", seed, k, did, check, err)
			}
			must(t, h.Close())
			if !crashed {
				break
			}
		}
	}
}

// Machines write, flush and read while snapshots are taken and the volume is
// flattened: each sees its own writes, and a snapshot is one moment of each.
func TestLayersChangeUnderRunningMachines(t *testing.T) {
	const machines, each = 4, 256 << 10
	rounds := 3
	if soak() {
		rounds = 60
	}
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.raw(t, machines*each, 512)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for m := range machines {
		h := y.open(t, v)
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(m), 3))
			base, mine, buf := int64(m*each), make([]byte, each), make([]byte, each)
			for !stop.Load() {
				off := rng.Int64N(each/512-64) * 512
				n := (1 + rng.Int64N(63)) * 512
				var err error
				switch rng.IntN(8) {
				case 0:
					clear(mine[off : off+n])
					err = h.Unmap(t.Context(), base+off, n)
				case 1:
					err = h.Sync(t.Context())
				case 2, 3:
					if _, _, loan, ok := h.Lend(base+off, n); ok {
						defer loan.Return() // held over many changes
					}
					if err = h.ReadAt(t.Context(), buf[:n], base+off); err == nil && !bytes.Equal(buf[:n], mine[off:off+n]) {
						err = fmt.Errorf("machine %d reads other bytes at %d than it wrote", m, off)
					}
				default:
					volumetest.Pattern(mine[off:off+n], rng.Uint64())
					err = h.WriteAt(t.Context(), mine[off:off+n], base+off)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if err := h.ReadAt(t.Context(), buf, base); err != nil || !bytes.Equal(buf, mine) {
				t.Errorf("machine %d: the end differs, %v", m, err)
			}
		})
	}
	var err error
	for range rounds {
		for n := 0; n < 6 && err == nil; n++ {
			v, err = y.snapshot(t.Context(), v)
			if err == nil {
				err = y.stays(v)
			}
			if err == nil && len(v.Layers) > 4 {
				v, _, err = y.merge(t.Context(), v, 1, 2+n%2)
			}
		}
		if err == nil {
			v, err = y.flatten(t.Context(), v)
		}
		if err == nil {
			_, err = y.Check(t.Context(), v)
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

// stays reads what a snapshot kept twice: nobody writes to it.
func (y *yard) stays(v store.Volume) error {
	l, err := y.hold(v, v.Layers[:len(v.Layers)-1])
	if err != nil {
		return err
	}
	defer y.drop(l)
	var first, second = make([]byte, v.Size), make([]byte, v.Size)
	if _, err := l.f.ReadAt(first, 0); err != nil {
		return err
	}
	time.Sleep(10 * time.Millisecond)
	if _, err := l.f.ReadAt(second, 0); err != nil {
		return err
	}
	if !bytes.Equal(first, second) {
		return fmt.Errorf("what was kept in layer %d changes", l.id)
	}
	return nil
}
