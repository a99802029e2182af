package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lunboot/store/volume/clone"
)

// file is what a volume needs of the thing that holds its bytes. The test kit
// crashfs has another one that loses power.
type file interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes all writes that returned, and the size, durable.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	// Punch makes a range read zero and gives its space back;
	// errors.ErrUnsupported when the file system cannot.
	Punch(off, n int64) error
	// Extent says whether off lies in data or in a hole, and where that ends.
	Extent(off int64) (data bool, end int64, err error)
	// Resident fills p from the page cache or returns false, without waiting.
	Resident(p []byte, off int64) bool
	// Cached says whether the page cache holds a range of a file that has a
	// descriptor, which it returns.
	Cached(off, n int64) (fd int, ok bool)
	Close() error
}

// files is the folder of the volumes.
type files interface {
	// Create makes a file that must not exist.
	Create(name string) (file, error)
	Open(name string, write bool) (file, error)
	Remove(name string) error
	Rename(from, to string) error
	// Sync makes creations, removals and renames durable.
	Sync() error
	Names() ([]string, error)
	Free() (int64, error)
	// Used is what a file takes of the room, 0 when there is none.
	Used(name string) (int64, error)
	// Reflinked is how much of that other files hold as well;
	// errors.ErrUnsupported when the file system does not tell.
	Reflinked(ctx context.Context, name string) (int64, error)
	Close() error
}

// folder is files on a real file system. os.Root keeps every name inside the
// folder, through symbolic links too.
type folder struct {
	root *os.Root
	path string
}

func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &folder{root: root, path: path}, nil
}

func (d *folder) Create(name string) (file, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *folder) Open(name string, write bool) (file, error) {
	if write {
		return d.open(name, os.O_RDWR)
	}
	return d.open(name, os.O_RDONLY)
}

func (d *folder) open(name string, flags int) (file, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	return &osFile{File: f, fd: int(f.Fd())}, nil
}

func (d *folder) Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

func (d *folder) Rename(from, to string) error {
	if err := errors.Join(checkName(from), checkName(to)); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

func (d *folder) Sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *folder) Names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d *folder) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: d.path, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (d *folder) Used(name string) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	fi, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size(), nil
	}
	return st.Blocks * 512, nil
}

func (d *folder) Close() error { return d.root.Close() }

// checkName accepts a plain file name only: whatever a row holds, it cannot
// name a file outside the folder.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a plain file name", name)
	}
	return nil
}

// osFile is a regular file.
type osFile struct {
	*os.File
	fd int // of File, which lives as long as this does
}

// writePiece is the most that one pwrite(2) hands to the page cache, aligned. A
// larger one is kept in larger folios, and on ext4 a small write costs more the
// larger its folio is. Measured on Linux 6.18: 4 KiB in a file that was written in
// pieces of 1 MiB take 17 µs, in one of 64 KiB pieces 4 µs.
const writePiece = 64 << 10

// WriteAt writes p in pieces.
func (f *osFile) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		at := off + int64(n)
		var k int
		k, err = f.File.WriteAt(p[n:min(len(p), n+writePiece-int(at%writePiece))], at)
		n += k
	}
	return n, err
}

// Sync is fdatasync(2): it writes the size with the data and spares the
// journal commit for times.
func (f *osFile) Sync() error {
	for {
		if err := unix.Fdatasync(f.fd); err != unix.EINTR {
			return f.wrap("fdatasync", err)
		}
	}
}

func (f *osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *osFile) Punch(off, n int64) error {
	for {
		err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		if err != unix.EINTR {
			return f.wrap("punch hole", err)
		}
	}
}

// Extent uses lseek(2); nothing else uses the file's offset, so calls that
// overlap do not disturb each other.
func (f *osFile) Extent(off int64) (data bool, end int64, err error) {
	start, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // no data up to the end of the file
		end, err = f.Size()
		return false, end, err
	case err == unix.EINVAL: // the file system cannot tell
		end, err = f.Size()
		return true, end, err
	case err != nil:
		return false, 0, f.wrap("seek", err)
	case start > off:
		return false, start, nil
	}
	end, err = unix.Seek(f.fd, off, unix.SEEK_HOLE)
	return true, end, f.wrap("seek", err)
}

// Resident is preadv2(2) with RWF_NOWAIT. Part of a range is no answer. A short
// call goes to the kernel as it is: it does not wait, so the runtime need not be
// told of it.
func (f *osFile) Resident(p []byte, off int64) bool {
	if len(p) > brief {
		n, err := unix.Preadv2(f.fd, [][]byte{p}, off, unix.RWF_NOWAIT)
		return err == nil && n == len(p)
	}
	if len(p) == 0 {
		return true
	}
	v := unix.Iovec{Base: &p[0]}
	v.SetLen(len(p))
	high := uintptr(uint64(off) >> (bits.UintSize - 1) >> 1) // nothing where a word holds all of it
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(f.fd), uintptr(unsafe.Pointer(&v)), 1, uintptr(off), high, unix.RWF_NOWAIT)
		if errno != unix.EINTR {
			return errno == 0 && int(n) == len(p)
		}
	}
}

// brief is the size up to which a call is short.
const brief = 64 << 10

// Cached asks cachestat(2), which Linux has since 6.5.
func (f *osFile) Cached(off, n int64) (fd int, ok bool) {
	r := unix.CachestatRange{Off: uint64(off), Len: uint64(n)}
	var st unix.Cachestat_t
	if unix.Cachestat(uint(f.fd), &r, &st, 0) != nil {
		return 0, false
	}
	page := int64(os.Getpagesize())
	pages := (off+n+page-1)/page - off/page
	return f.fd, st.Cache >= uint64(pages)
}

// reflink makes an empty file share the blocks of another one, which the file
// system copies when one of the two is written (FICLONE, ioctl_ficlonerange(2)):
// errors.ErrUnsupported when it cannot, or the other is elsewhere.
func (f *osFile) reflink(from *osFile) error {
	for {
		switch err := unix.IoctlFileClone(f.fd, from.fd); err {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.EXDEV, unix.EINVAL:
			return errors.ErrUnsupported
		default:
			return f.wrap("reflink", err)
		}
	}
}

// Share takes a range over from another file of the volumes, at the same offset,
// without copying it (FICLONERANGE, ioctl_ficlonerange(2)): errors.ErrUnsupported
// when the file system cannot, or the range is none of its whole blocks.
func (f *osFile) Share(from clone.File, off, n int64) error {
	other, ok := plain(from).(*osFile)
	if !ok {
		return errors.ErrUnsupported
	}
	for {
		err := unix.IoctlFileCloneRange(f.fd, &unix.FileCloneRange{Src_fd: int64(other.fd), Src_offset: uint64(off), Src_length: uint64(n), Dest_offset: uint64(off)})
		switch err {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.EXDEV, unix.EINVAL:
			return errors.ErrUnsupported
		default:
			return f.wrap("share blocks", err)
		}
	}
}

func (f *osFile) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.Name(), Err: err}
}
