package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// yard makes volumes as the rows of an appliance describe them.
type yard struct {
	*Pool
	volumes store.VolumeID
	layers  store.LayerID
}

// row gives a volume a top layer over those below.
func (y *yard) row(v *store.Volume, below ...store.Layer) store.Layer {
	id := store.LayerID(0)
	if len(below) > 0 {
		id = below[len(below)-1].ID
	}
	l := store.NewLayer(*v, id)
	y.layers++
	l.ID = y.layers
	v.Layers = append(append([]store.Layer{}, below...), l)
	v.Top, v.Path = l.ID, l.Path
	v.Revision++
	return l
}

func (y *yard) raw(t testing.TB, size int64, block int) store.Volume {
	t.Helper()
	y.volumes++
	v := store.Volume{ID: y.volumes, Name: fmt.Sprintf("vol-%d", y.volumes), Kind: store.VolumeRaw, Size: size, BlockSize: block, State: store.VolumeReady}
	y.row(&v)
	must(t, y.Create(t.Context(), v))
	return v
}

// freeze makes all layers of a volume immutable.
func (y *yard) freeze(v store.Volume) store.Volume {
	if v.Golden {
		return v
	}
	v.Layers = append([]store.Layer{}, v.Layers...)
	for i := range v.Layers {
		v.Layers[i].Frozen = true
	}
	v.Golden, v.ReadOnly, v.Revision = true, true, v.Revision+1
	y.Update(v)
	return v
}

func (y *yard) clone(t testing.TB, parent store.Volume) store.Volume {
	t.Helper()
	return y.over(t, parent, y.freeze(parent).Layers)
}

// over makes a clone of what a volume was.
func (y *yard) over(t testing.TB, parent store.Volume, layers []store.Layer) store.Volume {
	t.Helper()
	y.volumes++
	v := store.Volume{ID: y.volumes, Name: fmt.Sprintf("clone-%d", y.volumes), Kind: store.VolumeClone, Parent: parent.ID, Size: parent.Size, BlockSize: parent.BlockSize, State: store.VolumeReady}
	y.row(&v, layers...)
	must(t, y.Create(t.Context(), v))
	return v
}

// snapshot returns the volume as its row is afterwards.
func (y *yard) snapshot(ctx context.Context, v store.Volume) (store.Volume, error) {
	out := v
	out.Layers = append([]store.Layer{}, v.Layers...)
	out.Layers[len(out.Layers)-1].Frozen = true
	out.Layers[len(out.Layers)-1].Size = v.Size
	next := y.row(&out, out.Layers...)
	err := y.Snapshot(ctx, v, next, func() (store.Volume, error) { return out, nil })
	return out, err
}

// renew puts an empty layer over below in the place of the volume's top.
func (y *yard) renew(ctx context.Context, v store.Volume, below []store.Layer) (store.Volume, error) {
	out := v
	next := y.row(&out, below...)
	err := y.Replace(ctx, v, next, below, func() (store.Volume, error) { return out, nil })
	return out, err
}

func (y *yard) flatten(ctx context.Context, v store.Volume) (store.Volume, error) {
	out := v
	top := v.TopLayer()
	top.Kind, top.Below, top.Size = store.LayerRaw, 0, v.Size
	out.Layers, out.Kind, out.Parent, out.Revision = []store.Layer{top}, store.VolumeRaw, 0, v.Revision+1
	err := y.Flatten(ctx, v, nil, func() (store.Volume, error) { return out, nil })
	return out, err
}

func (y *yard) open(t *testing.T, v store.Volume) *Handle {
	t.Helper()
	h, err := y.Open(t.Context(), v)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func put(t *testing.T, h *Handle, off int64, b []byte) {
	t.Helper()
	must(t, h.WriteAt(t.Context(), b, off))
}

func wantBytes(t *testing.T, h *Handle, off int64, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	must(t, h.ReadAt(t.Context(), got, off))
	if !bytes.Equal(got, want) {
		t.Helper()
		i := 0
		for got[i] == want[i] {
			i++
		}
		t.Fatalf("byte %d is %d, want %d", off+int64(i), got[i], want[i])
	}
}

// kinds are the ways in which a volume's bytes can lie.
var kinds = map[string]func(t *testing.T, y *yard, size int64, block int) store.Volume{
	"raw": func(t *testing.T, y *yard, size int64, block int) store.Volume { return y.raw(t, size, block) },
	"clone of a raw volume": func(t *testing.T, y *yard, size int64, block int) store.Volume {
		return y.clone(t, y.raw(t, size, block))
	},
	"clone of a clone": func(t *testing.T, y *yard, size int64, block int) store.Volume {
		return y.clone(t, y.clone(t, y.raw(t, size, block)))
	},
	"clone with a snapshot": func(t *testing.T, y *yard, size int64, block int) store.Volume {
		v, err := y.snapshot(t.Context(), y.clone(t, y.raw(t, size, block)))
		must(t, err)
		return v
	},
	"raw volume with a snapshot": func(t *testing.T, y *yard, size int64, block int) store.Volume {
		v, err := y.snapshot(t.Context(), y.raw(t, size, block))
		must(t, err)
		return v
	},
	"flattened": func(t *testing.T, y *yard, size int64, block int) store.Volume {
		v, err := y.flatten(t.Context(), y.clone(t, y.clone(t, y.raw(t, size, block))))
		must(t, err)
		return v
	},
}

func TestEveryChainKeepsTheContract(t *testing.T) {
	for name, create := range kinds {
		for _, block := range []int{512, 4096} {
			t.Run(fmt.Sprintf("%s, %d", name, block), func(t *testing.T) {
				y := &yard{}
				onDisk := block == 512 && strings.HasPrefix(name, "clone") || soak()
				if onDisk {
					y.Pool = openPool(t, t.TempDir())
				} else {
					y.Pool = crashPool(t, crashfs.New(1))
				}
				volumetest.Run(t, func(t *testing.T, size int64) volumetest.Opener {
					v := create(t, y, size, block)
					return func(t *testing.T) volumetest.Volume {
						if onDisk {
							return y.open(t, v)
						}
						return memory{y.open(t, v)}
					}
				})
			})
		}
	}
}

func TestAClonesWritesAreItsOwn(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g := y.raw(t, 1<<20, 512)
	gold := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, gold, 0, disk)
	must(t, gold.Close())
	a, b := y.clone(t, g), y.clone(t, g)
	ha, hb := y.open(t, a), y.open(t, b)
	wantBytes(t, ha, 0, disk)
	put(t, ha, 5000, []byte("only a's"))
	must(t, ha.Unmap(t.Context(), 65536, 8192))
	wantBytes(t, hb, 0, disk)
	want := bytes.Clone(disk)
	copy(want[5000:], "only a's")
	clear(want[65536 : 65536+8192])
	wantBytes(t, ha, 0, want)
	// The golden file is open once, under both.
	if ha.s.cur.Load().top.below != hb.s.cur.Load().top.below || len(y.Pool.layers) != 3 {
		t.Errorf("%d layers are open", len(y.Pool.layers))
	}
	must(t, ha.Close())
	wantBytes(t, y.open(t, a), 0, want)
	n, err := y.Used(a)
	must(t, err)
	if n <= 0 || n > 128<<10 {
		t.Errorf("a clone with one changed granule takes %d bytes", n)
	}
	if fi, err := os.Stat(filepath.Join(dir, g.Path)); err != nil || fi.Mode().Perm() != 0o440 {
		t.Errorf("the golden file may be written to: %v, %v", fi.Mode(), err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, g.Path)); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the golden file changed: %v", err)
	}
	c, err := y.Check(t.Context(), a)
	if err != nil || !c.OK || len(c.Layers) != 2 || c.Layers[1].Pages != 1 || c.Layers[0].Layer != g.Top {
		t.Errorf("the check says %+v, %v", c, err)
	}
}

func TestASnapshotIsTakenUnderRunningMachines(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.raw(t, 1<<20, 512)
	h := y.open(t, v)
	first := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, h, 0, first)
	generation := h.Generation()
	after, err := y.snapshot(t.Context(), v)
	must(t, err)
	put(t, h, 10000, []byte("written afterwards"))
	want := bytes.Clone(first)
	copy(want[10000:], "written afterwards")
	wantBytes(t, h, 0, want)
	if h.Generation() != generation || y.Users(v.ID) != 1 {
		t.Errorf("the handle is of generation %d, was %d; %d users", h.Generation(), generation, y.Users(v.ID))
	}
	// The row of before and that of afterwards are one volume.
	for _, row := range []store.Volume{v, after} {
		h2 := y.open(t, row)
		if h2.s != h.s {
			t.Error("another opening of the same volume")
		}
		must(t, h2.Close())
	}
	c := y.over(t, v, after.Layers[:1])
	wantBytes(t, y.open(t, c), 0, first)
	must(t, h.Close())
	_, err = y.Open(t.Context(), v) // would write to the layer that is kept
	wantKind(t, err, store.KindConflict)
	wantBytes(t, y.open(t, after), 0, want)
}

func TestReplacedLayersFenceTheHandlesOfBefore(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g := y.raw(t, 1<<20, 512)
	gold := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, gold, 0, disk)
	must(t, gold.Close())
	v := y.clone(t, g)
	before := y.open(t, v)
	put(t, before, 0, []byte("a session of the last boot"))
	_, _, loan, lent := before.Lend(0, 512)
	after, err := y.renew(t.Context(), v, v.Layers[:1])
	must(t, err)
	for name, err := range map[string]error{
		"a read":  before.ReadAt(t.Context(), make([]byte, 512), 0),
		"a write": before.WriteAt(t.Context(), make([]byte, 512), 0),
		"a flush": before.Sync(t.Context()),
		"unmap":   before.Unmap(t.Context(), 0, 4096),
	} {
		if e := wantKind(t, err, store.KindConflict); !strings.Contains(e.Msg, "begins anew") {
			t.Errorf("%s: %q", name, e.Msg)
		}
	}
	if _, _, _, ok := before.Lend(0, 512); ok || before.Resident(make([]byte, 512), 0) {
		t.Error("a fenced handle still reads")
	}
	now := y.open(t, after)
	wantBytes(t, now, 0, disk)
	if now.Generation() == before.Generation() {
		t.Error("the generation did not change")
	}
	if lent {
		loan.Return()
	}
	must(t, y.RemoveLayers(t.Context(), v.Layers[1:]))
	must(t, y.RemoveLayers(t.Context(), v.Layers[1:])) // once more is nothing
	if got := len(names(t, dir)); got != 3 {
		t.Errorf("the folder holds %v", names(t, dir))
	}
	must(t, now.Close())
	// Whoever has not read the new row must not open what is gone.
	_, err = y.Open(t.Context(), v)
	wantKind(t, err, store.KindConflict)
	wantBytes(t, y.open(t, after), 0, disk)
}

func TestAGoldenVolumesReadersStayWithTheirVersion(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	g := y.raw(t, 1<<20, 512)
	h := y.open(t, g)
	put(t, h, 0, []byte("version 1"))
	must(t, h.Close())
	g = y.freeze(g)
	reader := y.open(t, g)
	wantKind(t, reader.WriteAt(t.Context(), []byte("x"), 0), store.KindDenied)
	c := y.clone(t, g)
	h = y.open(t, c)
	put(t, h, 0, []byte("version 2"))
	must(t, h.Close())
	next := g
	l := y.row(&next)
	last := int64(0)
	must(t, y.CopyOut(t.Context(), c, l, func(done, total int64) { last = total }))
	if last != g.Size {
		t.Errorf("the progress was of %d bytes", last)
	}
	next.Layers[0].Frozen = true
	y.Update(next)
	wantBytes(t, reader, 0, []byte("version 1"))
	wantBytes(t, y.open(t, next), 0, []byte("version 2"))
	must(t, reader.Close())
	if len(y.former) != 0 {
		t.Errorf("%d former openings are left", len(y.former))
	}
}

func TestAFlattenedVolumeStandsAloneWhileItIsUsed(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g := y.raw(t, 3<<20, 512)
	gold := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 3<<20), 1)
	clear(disk[1<<20 : 2<<20])
	must(t, gold.WriteAt(t.Context(), disk[:1<<20], 0))
	must(t, gold.WriteAt(t.Context(), disk[2<<20:], 2<<20))
	must(t, gold.Close())
	c := y.clone(t, y.clone(t, g))
	h := y.open(t, c)
	put(t, h, 5000, []byte("its own"))
	copy(disk[5000:], "its own")
	must(t, h.Unmap(t.Context(), 2<<20, 64<<10))
	clear(disk[2<<20 : 2<<20+64<<10])

	ctx, cancel := context.WithCancel(t.Context())
	err := y.Flatten(ctx, c, func(done, _ int64) {
		if done >= 1<<20 {
			cancel()
		}
	}, func() (store.Volume, error) { t.Error("committed"); return c, nil })
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a canceled flatten returned %v", err)
	}
	wantBytes(t, h, 0, disk)
	alone, err := y.flatten(t.Context(), c)
	must(t, err)
	put(t, h, 9000, []byte("and goes on"))
	copy(disk[9000:], "and goes on")
	wantBytes(t, h, 0, disk)
	must(t, h.Close())
	if len(y.Pool.layers) != 0 {
		t.Errorf("%d layers are still open", len(y.Pool.layers))
	}
	if _, err := os.Stat(filepath.Join(dir, c.Path+mapSuffix)); !os.IsNotExist(err) {
		t.Errorf("the map is left: %v", err)
	}
	must(t, os.Remove(filepath.Join(dir, g.Path))) // it needs nobody
	wantBytes(t, y.open(t, alone), 0, disk)
	if mapped, run, err := y.open(t, alone).BlockStatus(t.Context(), 1<<20, 1<<20); err != nil || mapped || run != 1<<20 {
		t.Errorf("the hole is %v for %d bytes, %v", mapped, run, err)
	}
	_, err = y.flatten(t.Context(), alone)
	wantKind(t, err, store.KindConflict)
}

func TestAWrongOrMissingParentIsRefusedInWords(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g, other := y.raw(t, 1<<20, 512), y.raw(t, 1<<20, 512)
	c := y.clone(t, g)
	wrong := c
	wrong.Layers = append([]store.Layer{}, y.freeze(other).Layers[0], c.Layers[1])
	wrong.Layers[1].Below = other.Top
	_, err := y.Open(t.Context(), wrong)
	e := wantKind(t, err, store.KindCorrupt)
	for _, say := range []string{g.TopLayer().UUID.String(), other.TopLayer().UUID.String(), "mix two disks"} {
		if !strings.Contains(e.Error(), say) {
			t.Errorf("%q does not say %q", e.Error(), say)
		}
	}
	found, err := y.Check(t.Context(), wrong)
	if err != nil || found.OK || len(found.Layers) != 2 || len(found.Layers[0].Damage) != 0 || !strings.Contains(found.Layers[1].Damage[0].What, "mix two disks") {
		t.Errorf("the check says %+v, %v", found, err)
	}
	must(t, os.Rename(filepath.Join(dir, g.Path), filepath.Join(dir, "elsewhere")))
	_, err = y.Open(t.Context(), c)
	wantKind(t, err, store.KindNotFound)
	found, err = y.Check(t.Context(), c)
	if err != nil || found.OK || len(found.Layers[0].Damage) != 1 || len(found.Layers[1].Damage) != 1 {
		t.Errorf("the check says %+v, %v", found, err)
	}
	late := c
	l := y.row(&late, c.Layers[0])
	wantKind(t, y.Create(t.Context(), late), store.KindNotFound)
	if _, err := os.Stat(filepath.Join(dir, l.Path)); !os.IsNotExist(err) {
		t.Error("a clone of a missing parent left a file")
	}
	must(t, os.Rename(filepath.Join(dir, "elsewhere"), filepath.Join(dir, g.Path)))
	must(t, os.Truncate(filepath.Join(dir, g.Path), 1<<19))
	_, err = y.Open(t.Context(), c)
	wantKind(t, err, store.KindCorrupt)
	if len(y.Pool.layers) != 0 {
		t.Errorf("%d layers are open after openings that failed", len(y.Pool.layers))
	}
}

func TestADamagedMapIsToldWithItsBlocksAndTakesNoWrites(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	told := make(chan string, 8)
	y.OnFault(func(volume, sentence string) { told <- volume + ": " + sentence })
	c := y.clone(t, y.raw(t, 1<<20, 512))
	h := y.open(t, c)
	put(t, h, 0, volumetest.Pattern(make([]byte, 8192), 1))
	must(t, h.Close())
	name := filepath.Join(dir, c.Path+mapSuffix)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	b := make([]byte, 1)
	for _, slot := range []int64{4096, 8192} { // both copies' first sectors
		_, err = f.ReadAt(b, slot+100)
		must(t, err)
		b[0] ^= 1
		_, err = f.WriteAt(b, slot+100)
		must(t, err)
	}
	must(t, f.Close())
	h = y.open(t, c)
	if s := <-told; !strings.Contains(s, c.Name) || !strings.Contains(s, "blocks 0 to ") || !strings.Contains(s, "read-only") {
		t.Errorf("told: %q", s)
	}
	if !h.ReadOnly() {
		t.Error("the volume takes writes")
	}
	wantKind(t, h.WriteAt(t.Context(), make([]byte, 512), 1<<19), store.KindDenied)
	e := wantKind(t, h.ReadAt(t.Context(), make([]byte, 512), 0), store.KindCorrupt)
	if !strings.Contains(e.Msg, "blocks 0 to ") {
		t.Errorf("%q names no blocks", e.Msg)
	}
	if len(told) != 0 {
		t.Errorf("told again: %q", <-told)
	}
	found, err := y.Check(t.Context(), c)
	if err != nil || found.OK || len(found.Layers[1].Damage) != 1 || found.Layers[1].Damage[0].From != 0 {
		t.Errorf("the check says %+v, %v", found, err)
	}
	must(t, h.Close())
}

func TestAClonesGrowthReadsZeroAndIsSeenAtOnce(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	g := y.raw(t, 1<<20, 512)
	gold := y.open(t, g)
	put(t, gold, 0, volumetest.Pattern(make([]byte, 1<<20), 1))
	must(t, gold.Close())
	c := y.clone(t, g)
	h := y.open(t, c)
	grown := h.Sized()
	must(t, y.Resize(t.Context(), c, 80<<20, func() error { return nil }))
	<-grown
	c.Size, c.Revision = 80<<20, c.Revision+1
	wantBytes(t, h, 1<<20, make([]byte, 1<<20))
	put(t, h, 80<<20-4, []byte("end."))
	must(t, h.Close())
	h = y.open(t, c)
	wantBytes(t, h, 80<<20-4, []byte("end."))
	wantBytes(t, h, 0, volumetest.Pattern(make([]byte, 1<<20), 1))
	// A snapshot of the larger volume, and a clone of that.
	after, err := y.snapshot(t.Context(), c)
	must(t, err)
	wantBytes(t, y.open(t, y.over(t, c, after.Layers[:2])), 80<<20-4, []byte("end."))
}

func TestAFullDiskRefusesACloneAndLeavesNothing(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	g := y.freeze(y.raw(t, 1<<20, 512))
	fs.SetFree(0)
	c := g
	c.ID, c.Kind, c.Name = 99, store.VolumeClone, "late"
	y.row(&c, g.Layers...)
	if e := wantKind(t, y.Create(t.Context(), c), store.KindUnavailable); e.Field != SpaceField {
		t.Errorf("the error is %+v", e)
	}
	files, err := fs.Names()
	must(t, err)
	if len(files) != 1 {
		t.Errorf("left: %v", files)
	}
}

func TestASnapshotWaitsForWritesThatAreUnderWay(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	v := y.raw(t, 1<<20, 512)
	h := y.open(t, v)
	inside, release := make(chan struct{}), make(chan struct{})
	fs.Inject(func(o crashfs.Op) error {
		if o.Kind == crashfs.OpWrite && o.Name == v.Path {
			close(inside)
			<-release
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.WriteAt(t.Context(), []byte("on its way"), 0); err != nil {
			t.Error(err)
		}
	})
	<-inside
	var after store.Volume
	var taken atomic.Bool
	wg.Go(func() {
		var err error
		if after, err = y.snapshot(t.Context(), v); err != nil {
			t.Error(err)
		}
		taken.Store(true)
	})
	time.Sleep(50 * time.Millisecond)
	if taken.Load() {
		t.Error("the snapshot did not wait for the write")
	}
	close(release)
	wg.Wait()
	fs.Inject(nil)
	put(t, h, 0, []byte("elsewhere!"))
	wantBytes(t, y.open(t, y.over(t, v, after.Layers[:1])), 0, []byte("on its way"))
}

func TestClonesReadOneFileFromOnePageCache(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	g := y.raw(t, 4<<20, 512)
	h := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 4<<20), 1)
	put(t, h, 0, disk)
	must(t, h.Close())
	for range 16 {
		c := y.clone(t, g)
		h := y.open(t, c)
		wantBytes(t, h, 0, disk)
		f, err := os.Open(filepath.Join(dir, c.Path))
		must(t, err)
		var st unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("this system does not tell what is in its page cache: %v", err)
			}
			t.Skipf("this system does not tell what is in its page cache: %v", err)
		}
		must(t, f.Close())
		if st.Cache != 0 {
			t.Errorf("%d pages of a clone that was only read are in the page cache", st.Cache)
		}
		fd, _, loan, ok := h.Lend(0, 1<<20)
		if !ok {
			t.Fatal("what was just read is not lent")
		}
		if base := y.Pool.layers[g.Top].f.(*osFile); fd != base.fd {
			t.Errorf("a clone sends from descriptor %d, the golden volume's is %d", fd, base.fd)
		}
		loan.Return()
	}
}
