package clone

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

var (
	layerUUID  = store.UUID{1, 2, 3}
	parentUUID = store.UUID{9, 8, 7}
	errDisk    = errors.New("the disk is ill")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func identity(size, parent int64) Identity {
	return Identity{UUID: layerUUID, Parent: parentUUID, ParentSize: parent, Size: size, BlockSize: 512}
}

// pattern is bytes that no other seed gives.
func pattern(n int, seed uint64) []byte { return volumetest.Pattern(make([]byte, n), seed) }

// memoryFile makes a file of the crash kit that holds b.
func memoryFile(t testing.TB, fs *crashfs.FS, name string, b []byte) *crashfs.File {
	t.Helper()
	f, err := fs.Create(name)
	must(t, err)
	if len(b) > 0 {
		_, err = f.WriteAt(b, 0)
		must(t, err)
	}
	must(t, f.Sync())
	must(t, fs.Sync())
	return f
}

func openFile(t testing.TB, fs *crashfs.FS, name string) *crashfs.File {
	t.Helper()
	f, err := fs.Open(name, true)
	must(t, err)
	return f
}

// rig is a layer on the crash kit over a parent in a file. A test looks at what
// lies from base on.
type rig struct {
	fs     *crashfs.FS
	id     Identity
	base   int64
	parent []byte
	*Layer
}

func newRig(t testing.TB, seed uint64, size int64, parent []byte) *rig {
	t.Helper()
	return newRigAt(t, seed, 0, size, parent)
}

// newRigAt makes a layer of base+size bytes.
func newRigAt(t testing.TB, seed uint64, base, size int64, parent []byte) *rig {
	t.Helper()
	fs := crashfs.New(seed)
	f := memoryFile(t, fs, "parent", nil)
	_, err := f.WriteAt(parent, base)
	must(t, err)
	must(t, f.Sync())
	data, file := memoryFile(t, fs, "data", nil), memoryFile(t, fs, "data.map", nil)
	r := &rig{fs: fs, id: identity(base+size, base+int64(len(parent))), base: base, parent: parent}
	if len(parent) == 0 {
		r.id.ParentSize = 0
	}
	must(t, Create(data, file, r.id))
	must(t, r.open(t))
	return r
}

func (r *rig) open(t testing.TB) error {
	t.Helper()
	l, err := Open(openFile(t, r.fs, "data"), openFile(t, r.fs, "data.map"), openFile(t, r.fs, "parent"), r.id, true)
	r.Layer = l
	return err
}

// after is the rig as it is found after a power cut.
func (r *rig) after(pick func(i, versions int) int) *rig {
	return &rig{fs: r.fs.After(pick), id: r.id, base: r.base, parent: r.parent}
}

func (r *rig) all(t testing.TB) []byte {
	t.Helper()
	size, _ := r.Size()
	b := bytes.Repeat([]byte{0xee}, int(size-r.base))
	_, err := r.ReadAt(b, r.base)
	must(t, err)
	return b
}

// model is what the layer reads at first.
func (r *rig) model() []byte {
	b := make([]byte, r.id.Size-r.base)
	copy(b, r.parent)
	return b
}

// holed makes a parent's content with runs of zeros in it.
func holed(n int, seed uint64) []byte {
	b := pattern(n, seed)
	rng := rand.New(rand.NewPCG(seed, 77))
	for off := 0; off < n; {
		run := 512 * (1 + rng.IntN(40))
		if rng.IntN(3) == 0 {
			clear(b[off:min(n, off+run)])
		}
		off += run
	}
	return b
}

// disk is a File in the file system.
type disk struct {
	*os.File
	reads int
	bytes int64
	lazy  bool // it says that it is durable and has no holes, and lies
}

func newDisk(t testing.TB, size int64) *disk {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Truncate(size))
	return &disk{File: f}
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.reads++
	d.bytes += int64(len(p))
	return d.File.ReadAt(p, off)
}

func (d *disk) Sync() error {
	if d.lazy {
		return nil
	}
	return unix.Fdatasync(int(d.Fd()))
}

func (d *disk) Size() (int64, error) {
	fi, err := d.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (d *disk) Punch(off, n int64) error {
	return unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *disk) Extent(off int64) (bool, int64, error) {
	if d.lazy {
		end, err := d.Size()
		return true, end, err
	}
	start, err := unix.Seek(int(d.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		end, err := d.Size()
		return false, end, err
	} else if err != nil {
		return false, 0, err
	}
	if start > off {
		return false, start, nil
	}
	end, err := unix.Seek(int(d.Fd()), off, unix.SEEK_HOLE)
	return true, end, err
}

func (d *disk) Resident(p []byte, off int64) bool {
	n, err := unix.Preadv2(int(d.Fd()), [][]byte{p}, off, unix.RWF_NOWAIT)
	return err == nil && n == len(p)
}

func (d *disk) Cached(off, n int64) (int, bool) { return int(d.Fd()), true }

// noHoles is a file whose file system cannot punch.
type noHoles struct{ File }

func (noHoles) Punch(int64, int64) error { return errors.ErrUnsupported }

// soak is whether the long tests run.
func soak() bool { return os.Getenv("LUNBOOT_SOAK") == "1" }

// readAll reads all of a file.
func readAll(t testing.TB, f File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}
