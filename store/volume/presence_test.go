package volume

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
)

func TestWhatIsWrongWithAVolumesFileIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, path string)
		kind store.Kind
		is   error
	}{
		"nothing":        {harm: func(*testing.T, string) {}},
		"missing":        {func(t *testing.T, path string) { must(t, os.Remove(path)) }, store.KindNotFound, os.ErrNotExist},
		"cut":            {func(t *testing.T, path string) { must(t, os.Truncate(path, 512)) }, store.KindCorrupt, io.ErrUnexpectedEOF},
		"longer is well": {harm: func(t *testing.T, path string) { must(t, os.Truncate(path, 2<<20)) }},
		"a folder": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		}, store.KindInternal, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p, v := openPool(t, dir), raw(1, 1<<20)
			must(t, p.Create(t.Context(), v))
			c.harm(t, filepath.Join(dir, v.Path))
			got, bad := p.Trouble(v)
			if bad != (c.kind != store.KindUnknown) || bad && (store.KindOf(got.Err) != c.kind || got.File != v.Path || got.Size != 1<<20 || got.Open) || c.is != nil && !errors.Is(got.Err, c.is) {
				t.Errorf("%t, %+v", bad, got)
			}
		})
	}
}

// A disk that does not give what it holds, and a file that somebody else owns.
func TestAFileThatCannotBeReadIsToldOf(t *testing.T) {
	for cause, want := range map[syscall.Errno]store.Kind{syscall.EIO: store.KindCorrupt, syscall.EACCES: store.KindDenied} {
		fs := crashfs.New(1)
		p, v := crashPool(t, fs), raw(1, 1<<20)
		must(t, p.Create(t.Context(), v))
		fs.Inject(func(op crashfs.Op) error {
			if op.Kind == crashfs.OpRead && cause == syscall.EIO || op.Kind == crashfs.OpOpen && cause == syscall.EACCES {
				return cause
			}
			return nil
		})
		if got, bad := p.Trouble(v); !bad || store.KindOf(got.Err) != want {
			t.Errorf("%v: %+v", cause, got)
		}
	}
}

func TestAFileThatWasRemovedUnderAMachineIsStillHeld(t *testing.T) {
	dir := t.TempDir()
	p, v := openPool(t, dir), raw(1, 1<<20)
	v.Layers = []store.Layer{{ID: 7, Volume: 1, Kind: store.LayerRaw, Path: v.Path, Size: v.Size}}
	v.Top = 7
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	must(t, os.Remove(filepath.Join(dir, v.Path)))
	if got, bad := p.Trouble(v); !bad || !got.Open {
		t.Errorf("while it is open: %t, %+v", bad, got)
	}
	must(t, h.Close())
	if got, bad := p.Trouble(v); !bad || got.Open {
		t.Errorf("afterwards: %t, %+v", bad, got)
	}
}

// What is made, written or looked at just now is no stray, and what is removed while
// the folder is looked at is none either.
func TestStraysAreWhatBelongsToNobody(t *testing.T) {
	dir := t.TempDir()
	p, v := openPool(t, dir), raw(1, 1<<20)
	must(t, p.Create(t.Context(), v))
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	w, err := p.View(t.Context(), v)
	must(t, err)
	defer w.Close()
	must(t, h.WriteAt(t.Context(), make([]byte, 4096), 0)) // what it replaces is saved for the view
	for _, name := range []string{".x.raw.import", ".nfs0001", "over.layer", "over.layer.map", "over.layer.running", "flat.raw", "flat.raw.map", "mine.map", "going.raw"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("12345"), 0o600))
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	got, err := p.Strays(func() ([]store.Layer, []store.Volume, error) {
		must(t, os.Remove(filepath.Join(dir, "going.raw")))
		coming := raw(2, 1<<20)
		coming.Path = "flat.raw"
		return []store.Layer{{Path: "over.layer"}}, []store.Volume{v, coming}, nil
	})
	must(t, err)
	found := map[string]int64{}
	for _, f := range got {
		found[f.Name] = f.Size
	}
	if len(found) != 2 || found["mine.map"] != 5 || found["link"] == 0 {
		t.Errorf("strays: %v", found)
	}
	if _, err := p.Strays(func() ([]store.Layer, []store.Volume, error) { return nil, nil, io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("when the rows cannot be read: %v", err)
	}
}

// A clone is what its layers and its map hold: each of them may be missed.
func TestEachFileOfACloneIsLookedAt(t *testing.T) {
	whole := map[string]int64{"base.raw": 1 << 20, "c.layer": 1 << 20, "c.layer.map": 64}
	for harmed, c := range map[string]struct {
		size int64 // less than 0: it is gone
		kind store.Kind
	}{
		"":            {0, store.KindUnknown},
		"base.raw":    {-1, store.KindNotFound},
		"c.layer":     {512, store.KindCorrupt},
		"c.layer.map": {-1, store.KindNotFound},
		// The map tells by its length nothing of the volume, but it is never empty.
		"c.layer.map ": {0, store.KindCorrupt},
	} {
		dir := t.TempDir()
		p := openPool(t, dir)
		file := strings.TrimSpace(harmed)
		for name, size := range whole {
			if name == file {
				size = c.size
			}
			if size < 0 {
				continue
			}
			must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			must(t, os.Truncate(filepath.Join(dir, name), size))
		}
		v := store.Volume{ID: 2, Name: "clone", Kind: store.VolumeClone, Size: 1 << 20, BlockSize: 512, State: store.VolumeReady, Top: 2, Path: "c.layer", Layers: []store.Layer{
			{ID: 2, Volume: 2, Kind: store.LayerOverlay, Path: "c.layer", Size: 1 << 20},
			{ID: 1, Volume: 1, Kind: store.LayerRaw, Path: "base.raw", Size: 1 << 20},
		}}
		got, bad := p.Trouble(v)
		if bad != (c.kind != store.KindUnknown) || bad && (store.KindOf(got.Err) != c.kind || got.File != file || got.Volume != "clone") {
			t.Errorf("%q: %t, %+v", harmed, bad, got)
		}
	}
}

func TestADeviceThatIsNotThereIsTold(t *testing.T) {
	p := openPool(t, t.TempDir())
	v := store.Volume{ID: 3, Name: "disk", Size: 1 << 30, BlockSize: 512, State: store.VolumeReady, Top: 3, Layers: []store.Layer{{ID: 3, Volume: 3, Kind: store.LayerDevice, Path: "/dev/lunboot-not-there", Size: 1 << 30}}}
	if got, bad := p.Trouble(v); !bad || got.File != "/dev/lunboot-not-there" || store.KindOf(got.Err) != store.KindNotFound {
		t.Errorf("%t, %+v", bad, got)
	}
}
