package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"

	"lunboot/store"
	"lunboot/store/volume/volumetest"
)

func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	must(t, err)
	return fi.Sys().(*syscall.Stat_t).Blocks
}

func TestImportKeepsEveryByteAndTheHoles(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	image := make([]byte, 8<<20+700)
	volumetest.Pattern(image[:5000], 1)
	volumetest.Pattern(image[3<<20:3<<20+100], 2)
	volumetest.Pattern(image[8<<20:], 3)
	v := raw(1, 8<<20+1024) // 700 bytes are rounded up to two blocks
	var last int64
	sum, err := p.Import(t.Context(), v, iotest.HalfReader(bytes.NewReader(image)), func(done int64) {
		if done < last {
			t.Errorf("the progress went back from %d to %d", last, done)
		}
		last = done
	})
	must(t, err)
	if want := sha256.Sum256(image); sum != hex.EncodeToString(want[:]) || last != int64(len(image)) {
		t.Errorf("checksum %s, progress %d", sum, last)
	}
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	got := make([]byte, v.Size)
	must(t, h.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got[:len(image)], image) || !bytes.Equal(got[len(image):], make([]byte, 324)) {
		t.Error("the volume differs from the image and its padding")
	}
	if n := blocksOf(t, filepath.Join(dir, v.Path)); n > 256 {
		t.Errorf("12 KiB of data take %d sectors", n)
	}
	fi, err := os.Stat(filepath.Join(dir, v.Path))
	must(t, err)
	if fi.Mode() != 0o600 {
		t.Errorf("the file's mode is %v", fi.Mode())
	}
}

func TestABrokenImportIsRefusedAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 8192)
	canceled, cancel := context.WithCancel(t.Context())
	big := raw(1, 64<<20)
	tests := []struct {
		name string
		ctx  context.Context
		v    store.Volume
		r    io.Reader
		want store.Kind
	}{
		{"a source that is longer than announced", t.Context(), v, bytes.NewReader(make([]byte, 8193)), store.KindInvalid},
		{"a source that ends early", t.Context(), v, bytes.NewReader(make([]byte, 7680)), store.KindInvalid},
		{"an empty source", t.Context(), raw(1, 512), bytes.NewReader(nil), store.KindInvalid},
		{"a source that breaks off", t.Context(), v, io.MultiReader(bytes.NewReader(make([]byte, 100)), iotest.ErrReader(errDisk)), store.KindUnavailable},
		{"a device as the destination", t.Context(), store.Volume{Kind: store.VolumeDevice, Path: "/dev/null", Size: 512}, bytes.NewReader(make([]byte, 512)), store.KindInvalid},
		{"a canceled one", canceled, big, readerFunc(func(b []byte) (int, error) { cancel(); return len(b), nil }), store.KindInternal},
	}
	for _, tt := range tests {
		_, err := p.Import(tt.ctx, tt.v, tt.r, nil)
		if err == nil || store.KindOf(err) != tt.want {
			t.Errorf("%s: %v of kind %v, want %v", tt.name, err, store.KindOf(err), tt.want)
		}
		if left := names(t, dir); len(left) != 0 {
			t.Errorf("%s: %v is left behind", tt.name, left)
		}
	}
	if _, err := p.Import(canceled, v, bytes.NewReader(make([]byte, 8192)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled import returned %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestAnImportNeverReplacesAFile(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	v := raw(1, 4096)
	must(t, p.Create(t.Context(), v))
	_, err := p.Import(t.Context(), v, bytes.NewReader(make([]byte, 4096)), nil)
	wantKind(t, err, store.KindConflict)
	if left := names(t, dir); len(left) != 1 || left[0] != v.Path {
		t.Errorf("the folder holds %v, want the volume that was there", left)
	}
}

func TestExportGivesBackWhatWasImported(t *testing.T) {
	p := openPool(t, t.TempDir())
	image := make([]byte, 4<<20)
	volumetest.Pattern(image[1<<20:1<<20+70000], 1)
	v := raw(1, int64(len(image)))
	_, err := p.Import(t.Context(), v, bytes.NewReader(image), nil)
	must(t, err)
	var out bytes.Buffer
	var last int64
	must(t, p.Export(t.Context(), v, &out, func(done int64) { last = done }))
	if !bytes.Equal(out.Bytes(), image) || last != v.Size {
		t.Errorf("the export differs from the import; progress %d", last)
	}
	if err := p.Export(t.Context(), v, failingWriter{}, nil); !errors.Is(err, errDisk) {
		t.Errorf("a writer that fails: %v", err)
	}
	if p.Users(v.ID) != 0 {
		t.Error("an export that failed still holds the volume")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestASourceThatCannotBecomeAVolumeIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, filepath.Join(dir, "volumes"))
	empty := filepath.Join(dir, "empty.img")
	must(t, os.WriteFile(empty, nil, 0o600))
	pipe := filepath.Join(dir, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	for path, want := range map[string]string{
		dir:                             "is a folder",
		empty:                           "is empty",
		pipe:                            "neither a file nor a block device",
		"/dev/null":                     "neither a file nor a block device",
		"empty.img":                     "is not a full path",
		"":                              "is not a full path",
		filepath.Join(dir, "not-there"): "cannot be opened",
	} {
		_, err := p.OpenSource(path, nil)
		if e := wantKind(t, err, store.KindInvalid); !strings.Contains(e.Msg, want) {
			t.Errorf("%s: %q, want %q", path, e.Msg, want)
		}
	}
}

// crowded is a folder with little room.
type crowded struct {
	files
	free int64
}

func (c crowded) Free() (int64, error) { return c.free, nil }

func TestASourceLargerThanTheRoomIsRefusedUnlessItIsMostlyHoles(t *testing.T) {
	dir := t.TempDir()
	d, err := openFolder(t.TempDir())
	must(t, err)
	p, err := newPool(crowded{d, 100 << 10}, quiet())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	full := filepath.Join(dir, "full.img")
	must(t, os.WriteFile(full, bytes.Repeat([]byte{1}, 200<<10), 0o600))
	_, err = p.OpenSource(full, nil)
	if e := wantKind(t, err, store.KindUnavailable); e.Field != SpaceField || !strings.Contains(e.Msg, "200 KiB") || !strings.Contains(e.Msg, "100 KiB") {
		t.Errorf("%q with field %q", e.Msg, e.Field)
	}
	sparse := filepath.Join(dir, "sparse.img")
	must(t, os.WriteFile(sparse, []byte{1}, 0o600))
	must(t, os.Truncate(sparse, 10<<20))
	src, err := p.OpenSource(sparse, nil)
	must(t, err)
	defer src.Close()
	if src.Size != 10<<20 {
		t.Errorf("the size is %d", src.Size)
	}
}

// An export while a machine writes holds what nobody writes as it is, and no write
// is lost to it, nor to the volume's being made to stand alone at the same time.
func TestAnExportWhileTheVolumeIsWrittenAndFlattened(t *testing.T) {
	const size = 8 << 20
	y := &yard{Pool: openPool(t, t.TempDir())}
	g := y.raw(t, size, 512)
	h := y.open(t, g)
	still := volumetest.Pattern(make([]byte, size/2), 1)
	put(t, h, 0, still)
	must(t, h.Close())
	v := y.clone(t, g)
	h = y.open(t, v)
	mine := make([]byte, size/2)
	var stop atomic.Bool
	var writer sync.WaitGroup
	fail := make(chan error, 1)
	writer.Go(func() {
		for n := uint64(1); !stop.Load() || n < 100; n++ {
			off := int64(n*7919%(size/2/4096)) * 4096
			volumetest.Pattern(mine[off:off+4096], n)
			if err := h.WriteAt(context.Background(), mine[off:off+4096], size/2+off); err != nil {
				fail <- err
				return
			}
		}
	})
	flat := make(chan error, 1)
	go func() {
		var err error
		v, err = y.flatten(context.Background(), v)
		flat <- err
	}()
	for range 3 {
		var out bytes.Buffer
		must(t, y.Export(t.Context(), g, io.Discard, nil)) // the parent, which both read
		must(t, h.export(t.Context(), &out, nil))
		got := out.Bytes()
		if len(got) != size || !bytes.Equal(got[:size/2], still) {
			t.Fatal("what nobody writes differs in the export")
		}
	}
	must(t, <-flat)
	stop.Store(true)
	writer.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	wantBytes(t, h, size/2, mine)
	must(t, h.Close())
	h = y.open(t, v)
	wantBytes(t, h, 0, still)
	wantBytes(t, h, size/2, mine)
}

// A source that says itself that it was cut short is no shorter source.
func TestASourceThatWasCutShortIsNotTakenForAWholeOne(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	cut := func() io.Reader {
		return io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{7}, 4090)), readerFunc(func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }))
	}
	v := raw(1, 4096)
	_, err := p.Import(t.Context(), v, cut(), nil)
	wantKind(t, err, store.KindUnavailable)
	_, err = p.ImportStream(t.Context(), v, cut(), nil)
	wantKind(t, err, store.KindUnavailable)
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("the folder holds %v", left)
	}
	// One that just ends there is whole.
	_, err = p.Import(t.Context(), v, bytes.NewReader(make([]byte, 4090)), nil)
	must(t, err)
}
