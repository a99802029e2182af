package volume

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }

func wantKind(t *testing.T, err error, kind store.Kind) *store.Error {
	t.Helper()
	if store.KindOf(err) != kind || err == nil {
		t.Fatalf("error %v is of kind %v, want %v", err, store.KindOf(err), kind)
	}
	var e *store.Error
	errors.As(err, &e)
	return e
}

func raw(id store.VolumeID, size int64) store.Volume {
	return store.Volume{ID: id, Revision: 1, Name: "vol", Kind: store.VolumeRaw, Size: size, BlockSize: 512, State: store.VolumeReady, Path: "vol.raw"}
}

func openPool(t *testing.T, dir string) *Pool {
	t.Helper()
	p, err := OpenPool(dir, quiet())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func createOn(p *Pool) func(t *testing.T, size int64) volumetest.Opener {
	next := store.VolumeID(0)
	return func(t *testing.T, size int64) volumetest.Opener {
		next++
		v := raw(next, size)
		v.Path = filepath.Base(t.TempDir()) + "-" + store.NewUUID().String()
		must(t, p.Create(t.Context(), v))
		return func(t *testing.T) volumetest.Volume {
			h, err := p.Open(t.Context(), v)
			must(t, err)
			t.Cleanup(func() { h.Close() })
			return h
		}
	}
}

func TestRawFileKeepsTheContract(t *testing.T) {
	volumetest.Run(t, createOn(openPool(t, t.TempDir())))
}

// memory marks handles whose file is the test kit's.
type memory struct{ *Handle }

func (memory) InMemory() {}

func TestRawFileOnTheCrashKitKeepsTheContract(t *testing.T) {
	create := createOn(crashPool(t, crashfs.New(1)))
	volumetest.Run(t, func(t *testing.T, size int64) volumetest.Opener {
		open := create(t, size)
		return func(t *testing.T) volumetest.Volume { return memory{open(t).(*Handle)} }
	})
}

// noHoles is a file system that cannot punch holes.
type noHoles struct{ files }

type noHolesFile struct{ file }

func (f noHoles) Create(name string) (file, error) {
	g, err := f.files.Create(name)
	return noHolesFile{g}, err
}

func (f noHoles) Open(name string, write bool) (file, error) {
	g, err := f.files.Open(name, write)
	return noHolesFile{g}, err
}

func (noHolesFile) Punch(int64, int64) error { return errors.ErrUnsupported }

func TestRawFileWithoutHolesKeepsTheContract(t *testing.T) {
	d, err := openFolder(t.TempDir())
	must(t, err)
	p, err := newPool(noHoles{d}, quiet())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	volumetest.Run(t, createOn(p))
}

// crashFiles lets a Pool run on the crash kit.
type crashFiles struct{ *crashfs.FS }

func (c crashFiles) Create(name string) (file, error) {
	f, err := c.FS.Create(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (c crashFiles) Open(name string, write bool) (file, error) {
	f, err := c.FS.Open(name, write)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func crashPool(t *testing.T, fs *crashfs.FS) *Pool {
	t.Helper()
	p, err := newPool(crashFiles{fs}, quiet())
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		if e.Name() != lockName {
			out = append(out, e.Name())
		}
	}
	return out
}
