package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// merged is a volume whose layers from up to to are one.
func merged(v store.Volume, from, to int, next store.Layer) store.Volume {
	row := v.Layers[to]
	row.Path, row.Below = next.Path, v.Layers[from-1].ID
	v.Layers = slices.Concat(v.Layers[:from], []store.Layer{row}, v.Layers[to+1:])
	if to+1 < len(v.Layers) && from+1 < len(v.Layers) {
		v.Layers[from+1].Below = row.ID
	}
	return v
}

// merge returns the volume as its rows are afterwards, and the row of the files
// that nothing names any more.
func (y *yard) merge(ctx context.Context, v store.Volume, from, to int) (store.Volume, []store.Layer, error) {
	next := store.NewLayer(v, v.Layers[from].Below)
	out := merged(v, from, to, next)
	loose := slices.Clone(v.Layers[from:to])
	old := next
	old.Path = v.Layers[to].Path
	err := y.Merge(ctx, v, v.Layers[from].ID, v.Layers[to].ID, next, nil, func() error { return nil })
	return out, append(loose, old), err
}

// tall is a volume with so many layers over a golden one, what it holds, and what
// it held below each.
func (y *yard) tall(t *testing.T, size int64, layers int, seed uint64) (v store.Volume, model []byte, states [][]byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	g := y.raw(t, size, 512)
	h := y.open(t, g)
	model = volumetest.Pattern(make([]byte, size), seed)
	clear(model[size/2 : size/2+size/16])
	put(t, h, 0, model)
	must(t, h.Close())
	v = y.clone(t, g)
	h = y.open(t, v)
	for {
		for range 6 {
			off := rng.Int64N(size/512) * 512
			n := min(512*(1+rng.Int64N(64)), size-off)
			if rng.IntN(3) == 0 {
				clear(model[off : off+n])
				must(t, h.Unmap(t.Context(), off, n))
			} else {
				volumetest.Pattern(model[off:off+n], rng.Uint64())
				put(t, h, off, model[off:off+n])
			}
		}
		states = append(states, bytes.Clone(model))
		if len(v.Layers) == layers {
			must(t, h.Close())
			return v, model, states
		}
		var err error
		v, err = y.snapshot(t.Context(), v)
		must(t, err)
	}
}

// openFiles counts the files of a folder that this process has open.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range all {
		path, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(path, dir+"/") && !strings.HasSuffix(path, lockName) {
			n++
		}
	}
	return n
}

func TestMergedLayersReadAsBefore(t *testing.T) {
	for name, pool := range map[string]func(*testing.T) *Pool{
		"on a file system": func(t *testing.T) *Pool { return openPool(t, t.TempDir()) },
		"in memory":        func(t *testing.T) *Pool { return crashPool(t, crashfs.New(1)) },
	} {
		for from := 1; from < 4; from++ {
			for to := from + 1; to < 5; to++ {
				t.Run(fmt.Sprintf("%s, %d to %d", name, from, to), func(t *testing.T) {
					y := &yard{Pool: pool(t)}
					v, model, states := y.tall(t, 1<<20, 6, uint64(from*8+to))
					kept := y.over(t, v, v.Layers[:to+1]) // a clone of the snapshot whose layer is replaced
					open, other := y.open(t, v), y.open(t, kept)
					put(t, open, 4096, []byte("open before"))
					copy(model[4096:], "open before")
					out, loose, err := y.merge(t.Context(), v, from, to)
					must(t, err)
					must(t, y.RemoveLayers(t.Context(), loose))
					wantBytes(t, open, 0, model)
					wantBytes(t, other, 0, states[to-1])
					put(t, open, 8192+512, []byte("and after"))
					copy(model[8192+512:], "and after")
					wantBytes(t, open, 0, model)
					must(t, open.Sync(t.Context()))
					must(t, open.Close())
					must(t, other.Close())
					h := y.open(t, out)
					wantBytes(t, h, 0, model)
					found, err := y.Check(t.Context(), out)
					must(t, err)
					if !found.OK || len(found.Layers) != 6-(to-from) {
						t.Errorf("Check found %+v", found)
					}
					// Rows that were read before the merge mean the layers of after.
					wantBytes(t, y.open(t, kept), 0, states[to-1])
					wantBytes(t, y.open(t, y.over(t, v, v.Layers[:to+1])), 0, states[to-1])
				})
			}
		}
	}
}

func TestALayerLargerThanThoseBelowIsMerged(t *testing.T) {
	const small, large = 1<<20 + 512, 1<<20 + 65536 + 1024
	y := &yard{Pool: openPool(t, t.TempDir())}
	v, model, _ := y.tall(t, small, 3, 5)
	h := y.open(t, v)
	must(t, y.Resize(t.Context(), v, large, func() error {
		v.Size, v.Revision = large, v.Revision+1
		v.Layers[2].Size = large
		return nil
	}))
	y.Update(v)
	model = append(model, make([]byte, large-small)...)
	put(t, h, small+512, []byte("behind the end of the layers below"))
	copy(model[small+512:], "behind the end of the layers below")
	for range 2 {
		var err error
		v, err = y.snapshot(t.Context(), v)
		must(t, err)
	}
	put(t, h, 0, []byte("on top"))
	copy(model, "on top")
	out, loose, err := y.merge(t.Context(), v, 1, 3)
	must(t, err)
	must(t, y.RemoveLayers(t.Context(), loose))
	wantBytes(t, h, 0, model)
	must(t, h.Close())
	wantBytes(t, y.open(t, out), 0, model)
}

func TestAMergeGivesUpTheFilesOfBefore(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v, _, _ := y.tall(t, 1<<20, 6, 9)
	h := y.open(t, v)
	_, loose, err := y.merge(t.Context(), v, 1, 4)
	must(t, err)
	must(t, y.RemoveLayers(t.Context(), loose))
	y.ends.Wait()
	if n := openFiles(t, dir); n != 5 { // the golden volume's, the merged layer's and the top's
		t.Errorf("%d files are open", n)
	}
	must(t, h.Close())
	if n := openFiles(t, dir); n != 0 {
		t.Errorf("%d files are open after the last handle was closed", n)
	}
}

func TestAMergeThatIsRefusedOrEndsEarlyChangesNothing(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	v, model, _ := y.tall(t, 1<<20, 6, 7)
	h := y.open(t, v)
	next := store.NewLayer(v, v.Layers[0].ID)
	merge := func(ctx context.Context, from, to int, commit error) error {
		next = store.NewLayer(v, v.Layers[0].ID)
		return y.Merge(ctx, v, v.Layers[from].ID, v.Layers[to].ID, next, nil, func() error { return commit })
	}
	wantKind(t, merge(t.Context(), 0, 2, nil), store.KindConflict) // what holds everything
	wantKind(t, merge(t.Context(), 3, 5, nil), store.KindConflict) // what is written
	wantKind(t, merge(t.Context(), 2, 2, nil), store.KindConflict) // nothing
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := merge(ctx, 1, 4, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a merge that was ended returned %v", err)
	}
	must(t, y.RemoveLayers(t.Context(), []store.Layer{next}))
	if err := merge(t.Context(), 1, 4, errDisk); !errors.Is(err, errDisk) {
		t.Errorf("a merge without its rows returned %v", err)
	}
	must(t, y.RemoveLayers(t.Context(), []store.Layer{next}))
	fs.SetFree(0)
	if e := wantKind(t, merge(t.Context(), 1, 4, nil), store.KindUnavailable); e.Field != SpaceField {
		t.Errorf("without room: %+v", e)
	}
	fs.SetFree(1 << 30)
	must(t, y.RemoveLayers(t.Context(), []store.Layer{next}))
	wantBytes(t, h, 0, model)
	must(t, h.Close())
	wantBytes(t, y.open(t, v), 0, model)
	out, _, err := y.merge(t.Context(), v, 1, 4)
	must(t, err)
	wantBytes(t, y.open(t, out), 0, model)
}

func TestMachinesGoOnWhileLayersAreMerged(t *testing.T) {
	const size = 1 << 20
	y := &yard{Pool: openPool(t, t.TempDir())}
	v, model, _ := y.tall(t, size, 9, 11)
	h := y.open(t, v)
	parts := 4
	var stop atomic.Bool
	var users sync.WaitGroup
	fail := make(chan error, parts)
	for u := range parts {
		users.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(u), 8))
			from := u * size / parts
			mine := model[from : from+size/parts]
			for n := 0; !stop.Load() || n < 50; n++ {
				off := rng.IntN(len(mine)/512) * 512
				k := min(512*(1+rng.IntN(40)), len(mine)-off)
				var err error
				switch rng.IntN(5) {
				case 0:
					clear(mine[off : off+k])
					err = h.Unmap(context.Background(), int64(from+off), int64(k))
				case 1, 2:
					volumetest.Pattern(mine[off:off+k], rng.Uint64())
					err = h.WriteAt(context.Background(), mine[off:off+k], int64(from+off))
				case 3:
					err = h.Sync(context.Background())
				default:
					got := make([]byte, k)
					if err = h.ReadAt(context.Background(), got, int64(from+off)); err == nil && !bytes.Equal(got, mine[off:off+k]) {
						err = fmt.Errorf("%d bytes at %d are not what was written", k, from+off)
					}
				}
				if err != nil {
					fail <- err
					return
				}
			}
		})
	}
	for len(v.Layers) > 3 { // the two that are lowest of the volume's own, again and again
		out, loose, err := y.merge(t.Context(), v, 1, 2)
		must(t, err)
		must(t, y.RemoveLayers(t.Context(), loose[:1]))
		v = out
	}
	stop.Store(true)
	users.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	wantBytes(t, h, 0, model)
	must(t, h.Close())
	wantBytes(t, y.open(t, v), 0, model)
}

// After a crash at every change that a merge and its machine make, the rows of
// before or of after, whichever are on the disk, lead to files that hold every
// sector as it was synced or written since.
func TestACrashAtEveryChangeOfAMergeLosesNothing(t *testing.T) {
	seeds, every := uint64(6), 2
	if soak() {
		seeds, every = 60, 1
	}
	crashes := 0
	for seed := range seeds {
		for k := 1 + int(seed); ; k += every {
			fs := crashfs.New(seed<<32 | uint64(k))
			y := &yard{Pool: crashPool(t, fs)}
			v, model, states := y.tall(t, crashSectors*crashfs.Sector, 6, seed)
			h, err := y.Open(t.Context(), v)
			must(t, err)
			must(t, h.Sync(t.Context()))
			hist := &history{allowed: make([][][]byte, crashSectors)}
			for i := range hist.allowed {
				hist.allowed[i] = [][]byte{bytes.Clone(model[i*crashfs.Sector:][:crashfs.Sector])}
			}
			rng := rand.New(rand.NewPCG(seed, uint64(k)))
			must(t, scribble(t.Context(), h, hist, rng, 3))
			rows, loose := v, []store.Layer{}
			next := store.NewLayer(v, v.Layers[0].ID)
			fs.CrashAt(k)
			err = y.Merge(t.Context(), v, v.Layers[1].ID, v.Layers[4].ID, next, nil, func() error {
				// The row is on the disk from here on, whether or not its writer hears of it.
				rows = merged(v, 1, 4, next)
				if seed%2 == 1 && fs.Crashed() {
					return crashfs.ErrCrashed
				}
				return nil
			})
			if err == nil {
				loose = append(loose, v.Layers[1:4]...)
				err = scribble(t.Context(), h, hist, rng, 8)
			}
			if err == nil {
				old := next
				old.Path = v.Layers[4].Path
				err = y.RemoveLayers(t.Context(), append(loose, old))
			}
			if err == nil {
				err = scribble(t.Context(), h, hist, rng, 8)
			}
			if err != nil && !fs.Crashed() {
				t.Fatalf("seed %d, change %d: %v", seed, k, err)
			}
			crashed := fs.Crashed()
			crashes++
			y.Pool = crashPool(t, fs.Restart())
			h, err = y.Open(t.Context(), rows)
			if err != nil {
				t.Fatalf("seed %d, change %d: the volume does not open: %v", seed, k, err)
			}
			got := make([]byte, v.Size)
			must(t, h.ReadAt(t.Context(), got, 0))
			hist.check(t, got)
			must(t, h.Close())
			// The snapshot that was the uppermost of those merged.
			snap := rows
			snap.Layers = rows.Layers[:len(rows.Layers)-1]
			snap.ReadOnly, snap.ID = true, 99
			h, err = y.Open(t.Context(), snap)
			must(t, err)
			wantBytes(t, h, 0, states[3])
			must(t, h.Close())
			if !crashed {
				break
			}
		}
	}
	t.Logf("%d crashes", crashes)
}

// Where the file system can, layers are merged and a volume is made to stand alone
// without room, and without reading what is shared.
func TestMergesAndFlatVolumesShareBlocksWhereTheFileSystemCan(t *testing.T) {
	dir, inside := onXFS(t)
	if !inside {
		return
	}
	p, err := OpenPool(dir, quiet())
	must(t, err)
	defer p.Close()
	y := &yard{Pool: p}
	const size = 48<<20 + 512
	g := y.raw(t, size, 512)
	h, err := y.Open(t.Context(), g)
	must(t, err)
	disk := volumetest.Pattern(make([]byte, size), 1)
	put(t, h, 0, disk)
	must(t, h.Close())
	v := y.clone(t, g)
	h, err = y.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	for n := range int64(5) {
		b := volumetest.Pattern(make([]byte, 8<<20+512), uint64(n)+2) // one granule is not whole
		put(t, h, n*4<<20, b)
		copy(disk[n*4<<20:], b)
		must(t, h.Unmap(t.Context(), 40<<20+n<<20, 64<<10))
		clear(disk[40<<20+n<<20 : 40<<20+n<<20+64<<10])
		v, err = y.snapshot(t.Context(), v)
		must(t, err)
	}
	free, err := p.Free()
	must(t, err)
	v, _, err = y.merge(t.Context(), v, 1, 4) // the files of before stay, as snapshots keep them
	must(t, err)
	wantBytes(t, h, 0, disk)
	v, err = y.flatten(t.Context(), v)
	must(t, err)
	wantBytes(t, h, 0, disk)
	must(t, p.files.Sync())
	after, err := p.Free()
	must(t, err)
	if took := free - after; took > 4<<20 {
		t.Errorf("a merge of 24 MiB and a flat volume of 48 MiB took %d KiB", took>>10)
	}
	used, err := p.Used(v)
	must(t, err)
	if used < 40<<20 {
		t.Errorf("the flat volume says it takes %d bytes", used)
	}
	// What is shared is nobody else's to change.
	put(t, h, 0, bytes.Repeat([]byte{0xee}, 1<<20))
	gold, err := y.Open(t.Context(), y.freeze(g))
	must(t, err)
	defer gold.Close()
	wantBytes(t, gold, 30<<20, volumetest.Pattern(make([]byte, size), 1)[30<<20:31<<20])
	wantBytes(t, gold, 0, volumetest.Pattern(make([]byte, size), 1)[:1<<20])
}

// A volume is made to stand alone while layers below those that it stands on are
// merged, and merged again: none of them is closed before it has read them.
func TestLayersAreMergedBelowAVolumeThatIsMadeToStandAlone(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v, model, _ := y.tall(t, 3<<20, 6, 21)
	h := y.open(t, v)
	out, rows := v, v
	top := v.TopLayer()
	top.Kind, top.Below = store.LayerRaw, 0
	out.Layers, out.Kind, out.Parent, out.Revision = []store.Layer{top}, store.VolumeRaw, 0, v.Revision+1
	before := openFiles(t, dir)
	merges := 0
	err := y.Flatten(t.Context(), v, func(done, _ int64) {
		if done == 0 || merges == 2 {
			return
		}
		merges++
		var loose []store.Layer
		var err error
		rows, loose, err = y.merge(t.Context(), rows, 1, 2)
		must(t, err)
		must(t, y.RemoveLayers(t.Context(), loose))
		closed := make(chan struct{})
		go func() { y.ends.Wait(); close(closed) }()
		select {
		case <-closed:
			t.Errorf("the files of merge %d were closed under who reads them", merges)
		case <-time.After(50 * time.Millisecond):
		}
	}, func() (store.Volume, error) { return out, nil })
	must(t, err)
	if merges != 2 {
		t.Fatalf("%d merges", merges)
	}
	y.ends.Wait()
	wantBytes(t, h, 0, model)
	must(t, h.Close())
	if n := openFiles(t, dir); n != 0 {
		t.Errorf("%d files are open at the end, %d were at the beginning", n, before)
	}
	wantBytes(t, y.open(t, out), 0, model)
}

// A read that began before a volume stood alone goes on through the layers of
// then, whatever is merged below them.
func TestAReadThatBeganBeforeAVolumeStoodAloneEndsInTheLayersOfThen(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v, model, _ := y.tall(t, 1<<20, 6, 23)
	h := y.open(t, v)
	kept := y.open(t, y.over(t, v, v.Layers[:5])) // somebody else stands on them
	reads, err := h.begin(t.Context(), 0, v.Size)
	must(t, err)
	_, err = y.flatten(t.Context(), v)
	must(t, err)
	_, loose, err := y.merge(t.Context(), v, 1, 3)
	must(t, err)
	must(t, y.RemoveLayers(t.Context(), loose))
	closed := make(chan struct{})
	go func() { y.ends.Wait(); close(closed) }()
	select {
	case <-closed:
		t.Error("the layers were closed under a read")
	case <-time.After(50 * time.Millisecond):
	}
	got := make([]byte, v.Size)
	_, err = reads.top.f.ReadAt(got, 0)
	reads.gate.leave()
	must(t, err)
	if !bytes.Equal(got, model) {
		t.Error("it read something else")
	}
	<-closed
	must(t, h.Close())
	must(t, kept.Close())
	if n := openFiles(t, dir); n != 0 {
		t.Errorf("%d files are open after the last handle was closed", n)
	}
}
