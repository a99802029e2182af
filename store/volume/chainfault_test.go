package volume

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// failing makes operations of a kind on files with a suffix fail, until it is
// told to stop.
func failing(fs *crashfs.FS, kind crashfs.OpKind, suffix string, err error) (stop func()) {
	fs.Inject(func(o crashfs.Op) error {
		if o.Kind == kind && strings.HasSuffix(o.Name, suffix) {
			return err
		}
		return nil
	})
	return func() { fs.Inject(nil) }
}

func TestAFlushThatLostBytesIsFinalForTheLayerAndNotForTheVolume(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	told := make(chan string, 8)
	y.OnFault(func(volume, sentence string) { told <- sentence })
	c := y.clone(t, y.raw(t, 1<<20, 512))
	other := y.open(t, y.clone(t, y.freeze(y.raw(t, 1<<20, 512))))
	h := y.open(t, c)
	put(t, h, 0, []byte("lost"))
	stop := failing(fs, crashfs.OpSync, c.Path, errDisk)
	wantKind(t, h.Sync(t.Context()), store.KindCorrupt)
	stop()
	wantKind(t, h.Sync(t.Context()), store.KindCorrupt) // and no later one says that all is well
	wantKind(t, h.WriteAt(t.Context(), make([]byte, 512), 0), store.KindDenied)
	if s := <-told; !strings.Contains(s, "read-only") {
		t.Errorf("told: %q", s)
	}
	put(t, other, 0, []byte("unharmed"))
	must(t, other.Sync(t.Context()))
	if _, err := y.snapshot(t.Context(), c); err == nil {
		t.Error("a snapshot was taken of bytes that are lost")
	}
	after, err := y.renew(t.Context(), c, c.Layers[:1])
	must(t, err)
	h = y.open(t, after)
	put(t, h, 0, []byte("anew"))
	must(t, h.Sync(t.Context()))
}

func TestAMapPageThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	told := make(chan string, 8)
	y.OnFault(func(volume, sentence string) { told <- sentence })
	c := y.clone(t, y.raw(t, 1<<20, 512))
	h := y.open(t, c)
	want := volumetest.Pattern(make([]byte, 8192), 1)
	put(t, h, 4096, want)
	stop := failing(fs, crashfs.OpWrite, mapSuffix, syscall.EIO)
	if err := h.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the flush returned %v", err)
	}
	stop()
	put(t, h, 0, []byte("goes on"))
	must(t, h.Sync(t.Context()))
	if len(told) != 0 {
		t.Errorf("told: %q", <-told)
	}
	after := &yard{Pool: crashPool(t, fs.Restart())}
	wantBytes(t, after.open(t, c), 4096, want)
}

func TestAWriteWithoutRoomIsRefusedAndTheNextOneGoesOn(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	g := y.raw(t, 1<<20, 512)
	h := y.open(t, g)
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	put(t, h, 0, disk)
	must(t, h.Close())
	c := y.clone(t, g)
	h = y.open(t, c)
	put(t, h, 0, []byte("fits"))
	copy(disk, "fits")
	fs.SetFree(0)
	for name, err := range map[string]error{
		"a write":            h.WriteAt(t.Context(), make([]byte, 4096), 8192),
		"a part of a block":  h.WriteAt(t.Context(), make([]byte, 512), 16384+512),
		"many blocks":        h.WriteAt(t.Context(), make([]byte, 64<<10), 65536),
		"zeros in few bytes": h.Zero(t.Context(), 131072, 512),
	} {
		if e := wantKind(t, err, store.KindUnavailable); e.Field != SpaceField {
			t.Errorf("%s: %+v", name, e)
		}
	}
	must(t, h.Sync(t.Context()))
	wantBytes(t, h, 0, disk)
	put(t, h, 0, []byte("once more")) // has its place already
	copy(disk, "once more")
	must(t, h.Unmap(t.Context(), 262144, 8192)) // needs none
	clear(disk[262144 : 262144+8192])
	must(t, h.Sync(t.Context()))
	wantBytes(t, h, 0, disk)
	_, err := y.snapshot(t.Context(), c)
	wantKind(t, err, store.KindUnavailable)
	fs.SetFree(1 << 20)
	put(t, h, 8192, []byte("room"))
	copy(disk[8192:], "room")
	c, err = y.snapshot(t.Context(), c)
	must(t, err)
	must(t, h.Sync(t.Context()))
	after := &yard{Pool: crashPool(t, fs.Restart())}
	wantBytes(t, after.open(t, c), 0, disk)
}
