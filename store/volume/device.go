package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// device is a block device that the appliance holds alone.
//
// Its bytes go through the page cache, or past it when it is direct: then a
// large volume does not push the golden volumes' pages out, and what is written
// waits for the disk. open(2) wants whole blocks of the device from memory that
// is aligned to them, so a direct device copies through pages of its own.
type device struct {
	*osFile
	block  int64 // bytes of a logical block
	direct *pages
	parts  sync.RWMutex // direct: held alone by a write of parts of blocks
}

// Device is a block device that could become a volume.
type Device struct {
	// Path is a name that the device keeps from start to start, where it has
	// one: the kernel's own, such as /dev/sdb, go to whoever is found first.
	Path      string
	Size      int64 // bytes
	BlockSize int   // bytes of a logical block
}

// Device looks at a block device. It is opened for a moment, so one that is
// mounted, held by another program or part of something that is, is refused
// with who holds it. It changes nothing.
func (p *Pool) Device(path string, readOnly bool) (Device, error) {
	d, err := thisHost().look(path, !readOnly)
	if err != nil {
		return Device{}, deviceFault("attach device", path, err)
	}
	return d, nil
}

// DeviceNumber is the kernel's number of a device and of the whole disk that it
// is on. Names come and go; one device has one number as long as the system
// runs.
func DeviceNumber(path string) (number, disk uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, store.Invalid("path", "%s is not a block device", path)
	}
	return st.Rdev, thisHost().disk(st.Rdev), nil
}

// DeviceSize is how large a device is by now. It may be held meanwhile.
func (p *Pool) DeviceSize(path string) (int64, error) {
	if err := checkDevice(path); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, deviceFault("measure device", path, err)
	}
	defer f.Close()
	size, err := deviceSize(f)
	if err != nil {
		return 0, deviceFault("measure device", path, err)
	}
	return size, nil
}

// deviceSize is what BLKGETSIZE64 says: lseek(2) to a device's end returns the
// same number.
func deviceSize(f *os.File) (int64, error) { return f.Seek(0, 2) }

func checkDevice(path string) error {
	if filepath.Clean(path) != path || !strings.HasPrefix(path, "/dev/") {
		return store.Invalid("path", "%q is not the full path of a device below /dev, such as /dev/disk/by-id/ata-… or /dev/vg0/lab-01", path)
	}
	return nil
}

// openDevice opens a block device for this process alone: O_EXCL without
// O_CREAT fails while it, or what it is a part of, is mounted or held by another
// (open(2)).
func openDevice(path string, write, direct bool) (*device, error) {
	if err := checkDevice(path); err != nil {
		return nil, err
	}
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags|unix.O_EXCL|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, deviceFault("open device", path, err)
	}
	d, err := newDevice(f, direct)
	if err != nil {
		f.Close()
		return nil, deviceFault("open device", path, err)
	}
	return d, nil
}

// openDeviceOf opens the device that is a volume.
func openDeviceOf(v store.Volume, write bool) (file, error) {
	d, err := openDevice(v.Path, write, v.Direct)
	if err != nil {
		return nil, err
	}
	if v.Direct && int64(v.BlockSize)%d.block != 0 {
		d.Close()
		return nil, store.Invalid("block_size", "the device has blocks of %d bytes and the volume of %d; past the page cache a volume's blocks are whole ones of the device", d.block, v.BlockSize)
	}
	return d, nil
}

func newDevice(f *os.File, direct bool) (*device, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode()&fs.ModeDevice == 0 || fi.Mode()&fs.ModeCharDevice != 0 {
		return nil, store.Invalid("path", "%s is not a block device", f.Name())
	}
	d := &device{osFile: &osFile{File: f, fd: int(f.Fd())}}
	block, err := unix.IoctlGetUint32(d.fd, unix.BLKSSZGET)
	if err != nil {
		return nil, &fs.PathError{Op: "BLKSSZGET", Path: f.Name(), Err: err}
	}
	d.block = int64(block)
	if direct {
		d.direct = newPages()
	}
	return d, nil
}

// Size is the device's size at this moment.
func (d *device) Size() (int64, error) { return deviceSize(d.File) }

// Punch makes a range read zero. The first way gives the space back where the
// device promises zeros for what it discards; the second lets the device write
// zeros itself, or the kernel. BLKDISCARD alone promises nothing about what is
// read afterwards.
func (d *device) Punch(off, n int64) error {
	err := d.fallocate(unix.FALLOC_FL_PUNCH_HOLE, off, n)
	if err == unix.EOPNOTSUPP {
		err = d.fallocate(unix.FALLOC_FL_ZERO_RANGE, off, n)
	}
	if err == unix.EINVAL { // a range that is not whole blocks of the device
		err = unix.EOPNOTSUPP
	}
	return d.wrap("give back", err)
}

func (d *device) fallocate(mode uint32, off, n int64) error {
	for {
		if err := unix.Fallocate(d.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n); err != unix.EINTR {
			return err
		}
	}
}

// Extent is all data: a device does not tell what it holds.
func (d *device) Extent(int64) (data bool, end int64, err error) {
	end, err = d.Size()
	return true, end, err
}

// Resident is never true past the page cache.
func (d *device) Resident(p []byte, off int64) bool {
	return d.direct == nil && d.osFile.Resident(p, off)
}

// Cached is never true past the page cache.
func (d *device) Cached(off, n int64) (fd int, ok bool) {
	if d.direct != nil {
		return 0, false
	}
	return d.osFile.Cached(off, n)
}

func (d *device) ReadAt(p []byte, off int64) (n int, err error) {
	if d.direct == nil {
		return d.osFile.ReadAt(p, off)
	}
	b := d.direct.take()
	defer d.direct.give(b)
	for n < len(p) {
		at := off + int64(n)
		lead := at % d.block
		want := min(int64(len(b)), (lead+int64(len(p)-n)+d.block-1)/d.block*d.block)
		got, err := d.File.ReadAt(b[:want], at-lead)
		if got = got - int(lead); got <= 0 {
			return n, err
		}
		n += copy(p[n:], b[lead:int(lead)+got])
		if err != nil && n < len(p) {
			return n, err
		}
	}
	return n, nil
}

// WriteAt writes p. Parts of blocks are read first and written back whole,
// alone: a write of the same block in between would be lost.
func (d *device) WriteAt(p []byte, off int64) (n int, err error) {
	if d.direct == nil {
		return d.osFile.WriteAt(p, off)
	}
	b := d.direct.take()
	defer d.direct.give(b)
	if off%d.block != 0 || int64(len(p))%d.block != 0 {
		d.parts.Lock()
		defer d.parts.Unlock()
	} else {
		d.parts.RLock()
		defer d.parts.RUnlock()
	}
	for n < len(p) {
		at := off + int64(n)
		lead := int(at % d.block)
		k := min(len(b)-lead, len(p)-n)
		whole := b[:(int64(lead+k)+d.block-1)/d.block*d.block]
		if lead+k != len(whole) || lead != 0 {
			if _, err := d.File.ReadAt(whole, at-int64(lead)); err != nil {
				return n, err
			}
		}
		copy(whole[lead:], p[n:n+k])
		if _, err := d.File.WriteAt(whole, at-int64(lead)); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// Close lets go of the device. Nobody uses it any more.
func (d *device) Close() error {
	err := d.osFile.Close()
	if d.direct != nil {
		err = errors.Join(err, d.direct.close())
	}
	return err
}

const (
	pagesSize = 256 << 10 // bytes that one direct transfer moves
	maxPages  = 16        // direct transfers of one device at a time
)

// pages lends memory that is aligned to pages, as only mmap(2) promises it.
type pages struct {
	free chan []byte
	made atomic.Int32
}

func newPages() *pages { return &pages{free: make(chan []byte, maxPages)} }

// take waits when all are lent: those that are will come back with the end of a
// transfer.
func (g *pages) take() []byte {
	select {
	case b := <-g.free:
		return b
	default:
	}
	if g.made.Add(1) <= maxPages {
		b, err := unix.Mmap(-1, 0, pagesSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err == nil {
			return b
		}
	}
	g.made.Add(-1)
	return <-g.free
}

func (g *pages) give(b []byte) { g.free <- b }

func (g *pages) close() (err error) {
	for range g.made.Load() {
		err = errors.Join(err, unix.Munmap(<-g.free))
	}
	return err
}

// deviceFault says why a device cannot be had, and what to do.
func deviceFault(op, path string, err error) error {
	var known *store.Error
	e := &store.Error{Op: op, Subject: path, Field: "path", Err: err}
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.EBUSY):
		e.Kind, e.Cause, e.Err = store.KindInUse, store.CauseHeld, nil
		e.Msg = thisHost().holder(path)
	case errors.Is(err, fs.ErrPermission):
		e.Kind, e.Msg = store.KindDenied, mayNot(path)
	case errors.Is(err, syscall.EROFS):
		e.Kind, e.Msg = store.KindDenied, "the device can only be read; attach it read-only"
	case errors.Is(err, fs.ErrNotExist):
		e.Kind, e.Msg = store.KindNotFound, "there is no such device on the appliance; lsblk lists those that there are"
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENOMEDIUM):
		e.Kind, e.Msg = store.KindUnavailable, "there is nothing in this device"
	case errors.Is(err, syscall.EINVAL):
		e.Kind, e.Msg = store.KindInvalid, "the device cannot be used past the page cache; attach it without --direct"
	default:
		e.Kind, e.Msg = store.KindUnavailable, "the device cannot be used"
	}
	return e
}

// mayNot explains the rights of a device: no capability of ours opens it, its
// owner and group do.
func mayNot(path string) string {
	us, group := "uid "+strconv.Itoa(os.Geteuid()), "disk"
	if u, err := user.LookupId(strconv.Itoa(os.Geteuid())); err == nil {
		us = u.Username
	}
	fi, err := os.Stat(path)
	if err != nil {
		return "the appliance, which runs as " + us + ", may not see the device"
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		group = strconv.FormatUint(uint64(st.Gid), 10)
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
	}
	if group == "root" {
		return fmt.Sprintf("the appliance, which runs as %s, may not open the device, whose mode is %s; give it to group disk with a udev rule, and the appliance to that group (SupplementaryGroups=disk in its unit)", us, fi.Mode().Perm())
	}
	return fmt.Sprintf("the appliance, which runs as %s, may not open the device; it belongs to group %s: add the appliance to it (SupplementaryGroups=%s in its unit, or usermod -aG %s %s) and start it again", us, group, group, group, us)
}
