package volume

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
	"lunboot/store/volume/volumetest"
)

// onXFS runs the calling test again in a process with a mount table of its own,
// on a file system that shares blocks between files. It reports whether this is
// that process.
func onXFS(t *testing.T) (dir string, inside bool) {
	t.Helper()
	const mark = "LUNBOOT_TEST_XFS"
	if dir := os.Getenv(mark); dir != "" {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		tool(t, "mount", "-o", "loop", dir+".img", dir)
		t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
		return dir, true
	}
	dir = filepath.Join(t.TempDir(), "xfs")
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(dir+".img", nil, 0o600))
	must(t, os.Truncate(dir+".img", 512<<20))
	tool(t, "mkfs.xfs", "-q", "-m", "reflink=1", dir+".img")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("on XFS: %v\n%s", err, out)
	}
	return "", false
}

// copied promotes a clone of a clone, with writes and holes of its own in each, and
// returns the copy.
func copied(t *testing.T, y *yard) (v, out store.Volume, disk []byte) {
	t.Helper()
	const size = 8<<20 + 512 // its last granule is not whole
	disk = volumetest.Pattern(make([]byte, size), 1)
	clear(disk[3<<20 : 4<<20])
	g := y.raw(t, size, 512)
	h := y.open(t, g)
	put(t, h, 0, disk[:3<<20])
	put(t, h, 4<<20, disk[4<<20:])
	must(t, h.Close())
	below := y.clone(t, g)
	h = y.open(t, below)
	put(t, h, 10000, []byte("of the first"))
	copy(disk[10000:], "of the first")
	must(t, h.Unmap(t.Context(), 1<<20, 128<<10))
	clear(disk[1<<20 : 1<<20+128<<10])
	must(t, h.Close())
	v = y.clone(t, below)
	h = y.open(t, v)
	put(t, h, 3<<20+512, []byte("in the hole"))
	copy(disk[3<<20+512:], "in the hole")
	must(t, h.Unmap(t.Context(), 6<<20, 1<<20))
	clear(disk[6<<20 : 7<<20])
	must(t, h.Close())
	must(t, y.Resize(t.Context(), v, 10<<20, func() error { return nil }))
	v.Size, v.Revision = 10<<20, v.Revision+1
	disk = append(disk, make([]byte, 10<<20-size)...)
	out = store.Volume{ID: 77, Name: "copy", Kind: store.VolumeRaw, Size: v.Size, BlockSize: 512, State: store.VolumeReady}
	must(t, y.CopyOut(t.Context(), v, y.row(&out), nil))
	return v, out, disk
}

func TestACopyIsAllThatTheVolumeHoldsAndNoMore(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v, out, disk := copied(t, y)
	h := y.open(t, out)
	wantBytes(t, h, 0, disk)
	for _, hole := range []struct{ off, n int64 }{{6 << 20, 1 << 20}, {9 << 20, 1 << 20}} {
		if mapped, run, err := h.BlockStatus(t.Context(), hole.off, hole.n); err != nil || mapped || run != hole.n {
			t.Errorf("%d bytes at %d: mapped %v for %d, %v", hole.n, hole.off, mapped, run, err)
		}
	}
	// One that is canceled, and one that finds no room, leave nothing.
	before := len(names(t, dir))
	ctx, cancel := context.WithCancel(t.Context())
	other := store.Volume{ID: 78, Name: "other", Kind: store.VolumeRaw, Size: v.Size, BlockSize: 512}
	err := y.CopyOut(ctx, v, y.row(&other), func(done, _ int64) {
		if done > 0 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled copy returned %v", err)
	}
	if got := len(names(t, dir)); got != before {
		t.Errorf("left: %v", names(t, dir))
	}
	fs := crashfs.New(1)
	y = &yard{Pool: crashPool(t, fs)}
	c := y.raw(t, 1<<20, 512)
	h = y.open(t, c)
	put(t, h, 0, bytes.Repeat([]byte{1}, 1<<20))
	must(t, h.Close())
	fs.SetFree(512 << 10)
	if e := wantKind(t, y.CopyOut(t.Context(), c, y.row(&other), nil), store.KindUnavailable); e.Field != SpaceField {
		t.Errorf("%+v", e)
	}
	if files, err := fs.Names(); err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
}

func TestACopySharesBlocksWhereTheFileSystemCan(t *testing.T) {
	dir, inside := onXFS(t)
	if !inside {
		return
	}
	p, err := OpenPool(dir, quiet())
	must(t, err)
	defer p.Close()
	y := &yard{Pool: p}
	free, err := p.Free()
	must(t, err)
	v, out, disk := copied(t, y)
	h, err := y.Open(t.Context(), out)
	must(t, err)
	wantBytes(t, h, 0, disk)
	must(t, h.Close())
	must(t, p.files.Sync())
	after, err := p.Free()
	must(t, err)
	// The golden volume's 7 MiB are there once.
	if took := free - after; took > 11<<20 {
		t.Errorf("a volume of 7 MiB, two small clones and a copy take %d KiB", took>>10)
	}
	used, err := p.Used(out)
	must(t, err)
	if used < 4<<20 {
		t.Errorf("the copy says it takes %d bytes", used)
	}
	// The copy's bytes are the golden volume's, but for what the clones wrote and
	// unmapped.
	shared, err := p.Reflinked(t.Context(), out)
	must(t, err)
	if shared < 4<<20 || shared >= used {
		t.Errorf("of the %d bytes of the copy %d are said to be shared", used, shared)
	}
	if n, err := p.Reflinked(t.Context(), v); err != nil || n != 0 {
		t.Errorf("of a clone's own layer %d bytes are said to be shared, %v", n, err)
	}
	// A file of more pieces than one answer holds: every second block is shared.
	const pieces = 300
	f, err := p.files.Create("pieces")
	must(t, err)
	other, err := p.files.Create("other")
	must(t, err)
	_, err = f.WriteAt(volumetest.Pattern(make([]byte, pieces*4096), 3), 0)
	must(t, err)
	for n := int64(0); n < pieces; n += 2 {
		must(t, other.(*osFile).Share(f.(*osFile), n*4096, 4096))
	}
	must(t, errors.Join(f.Sync(), f.Close(), other.Close()))
	for _, name := range []string{"pieces", "other"} {
		if n, err := p.files.Reflinked(t.Context(), name); err != nil || n != pieces/2*4096 {
			t.Errorf("%s: %d bytes are said to be shared, want %d; %v", name, n, pieces/2*4096, err)
		}
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := p.files.Reflinked(gone, "pieces"); !errors.Is(err, context.Canceled) {
		t.Errorf("it is looked at for somebody who is gone: %v", err)
	}
	if n, err := p.files.Reflinked(t.Context(), "nosuch"); err != nil || n != 0 {
		t.Errorf("a file that is none: %d, %v", n, err)
	}
}

// A copy that is one of bytes shares nothing, or the file system does not tell.
func TestWhatWasCopiedIsNotSaidToBeShared(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	v := y.raw(t, 1<<20, 512)
	h := y.open(t, v)
	put(t, h, 0, volumetest.Pattern(make([]byte, 1<<20), 1))
	must(t, h.Sync(t.Context()))
	must(t, h.Close())
	if n, err := y.Reflinked(t.Context(), v); n != 0 || err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%d bytes are said to be shared, %v", n, err)
	}
	if _, err := (&yard{Pool: crashPool(t, crashfs.New(1))}).Reflinked(t.Context(), v); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("in memory: %v", err)
	}
}

// Whether copies take room is tried with files, of which nothing is left.
func TestThePoolSaysWhetherCopiesTakeRoom(t *testing.T) {
	dir, inside := onXFS(t)
	if !inside {
		// In memory nothing is shared, and the trial ends there too.
		fs := crashfs.New(1)
		y := &yard{Pool: crashPool(t, fs)}
		v := y.raw(t, 1<<20, 512)
		if y.Shares(v) {
			t.Error("memory shares blocks")
		}
		if left, err := fs.Names(); err != nil || len(left) != 1 {
			t.Errorf("left: %v, %v", left, err)
		}
		return
	}
	p, err := OpenPool(dir, quiet())
	must(t, err)
	defer p.Close()
	y := &yard{Pool: p}
	v := y.clone(t, y.raw(t, 1<<20, 512))
	before := names(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, ".share-1"+importSuffix), nil, 0o600)) // something is in the way
	if p.Shares(v) {
		t.Error("what could not be tried is said to be so")
	}
	must(t, os.Remove(filepath.Join(dir, ".share-1"+importSuffix)))
	if !p.Shares(v) {
		t.Error("XFS is said not to share blocks")
	}
	if got := names(t, dir); !slices.Equal(got, before) {
		t.Errorf("left: %v", got)
	}
	if p.Shares(store.Volume{Kind: store.VolumeDevice, Path: "/dev/vg/debian"}) {
		t.Error("a device is said to share its blocks with files")
	}
}

// tight is a folder of which the test says how much is free.
type tight struct {
	files
	free int64
}

func (f *tight) Free() (int64, error) { return f.free, nil }

// A copy that would fill the file system ends while machines still have room,
// and what they have is unharmed.
func TestACopyLeavesRoomToMachinesThatRun(t *testing.T) {
	y := &yard{Pool: openPool(t, t.TempDir())}
	f := &tight{files: y.files, free: keepFree - 1}
	y.files = f
	const size = flushEvery + 4<<20
	disk := volumetest.Pattern(make([]byte, size), 1)
	below := y.clone(t, y.raw(t, size, 512))
	h := y.open(t, below)
	put(t, h, 0, disk)
	must(t, h.Close())
	c := y.clone(t, below)

	out := store.Volume{ID: 77, Name: "copy", Kind: store.VolumeRaw, Size: size, BlockSize: 512, State: store.VolumeReady}
	before, err := f.Names()
	must(t, err)
	e := wantKind(t, y.CopyOut(t.Context(), c, y.row(&out), nil), store.KindUnavailable)
	after, err := f.Names()
	must(t, err)
	if e.Field != SpaceField || len(after) != len(before) {
		t.Errorf("the copy ended with %v, and left %d files of %d", e, len(after), len(before))
	}
	_, err = y.flatten(t.Context(), c)
	if e := wantKind(t, err, store.KindUnavailable); e.Field != SpaceField {
		t.Errorf("flatten ended with %v", e)
	}
	h = y.open(t, c)
	wantBytes(t, h, 0, disk)
	put(t, h, 0, []byte("goes on"))
	copy(disk, "goes on")

	f.free = keepFree
	alone, err := y.flatten(t.Context(), c)
	must(t, err)
	wantBytes(t, y.open(t, alone), 0, disk)
}
