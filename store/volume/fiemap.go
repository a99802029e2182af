package volume

import (
	"context"
	"errors"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// What the file system says of where a file lies (linux/fiemap.h,
// Documentation/filesystems/fiemap.rst). It is asked with one request for several
// extents at a time.
const (
	fsIOCFiemap        = 0xc020660b // _IOWR('f', 11, struct fiemap)
	fiemapExtentLast   = 0x00000001
	fiemapExtentShared = 0x00002000 // other files hold it as well
	// maxExtents bounds a look at one file: what is in more pieces takes longer
	// than anybody who looks at a page waits.
	maxExtents = 1 << 16
)

type fiemapExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

type fiemap struct {
	Start, Length        uint64
	Flags, Mapped, Count uint32
	_                    uint32
	Extents              [128]fiemapExtent
}

// reflinked is how many bytes of the file other files hold as well:
// errors.ErrUnsupported where the file system does not tell, or in too many
// pieces. What is not written yet lies nowhere and is the file's own. It ends
// between two requests when ctx does.
func (f *osFile) reflinked(ctx context.Context) (n int64, err error) {
	m := &fiemap{}
	for at, seen := uint64(0), 0; seen < maxExtents; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		m.Start, m.Length, m.Flags, m.Mapped, m.Count = at, ^uint64(0)-at, 0, 0, uint32(len(m.Extents))
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), fsIOCFiemap, uintptr(unsafe.Pointer(m)))
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS:
			return 0, errors.ErrUnsupported
		default:
			return 0, f.wrap("ask where it lies", errno)
		}
		if m.Mapped == 0 {
			return n, nil
		}
		for _, e := range m.Extents[:min(int(m.Mapped), len(m.Extents))] {
			if e.Flags&fiemapExtentShared != 0 {
				n += int64(e.Length)
			}
			if e.Flags&fiemapExtentLast != 0 {
				return n, nil
			}
			at, seen = e.Logical+e.Length, seen+1
		}
	}
	return 0, errors.ErrUnsupported
}

// Reflinked is how much of a file other files hold as well, 0 when there is none.
func (d *folder) Reflinked(ctx context.Context, name string) (int64, error) {
	f, err := d.Open(name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	n, err := f.(*osFile).reflinked(ctx)
	return n, errors.Join(err, f.Close())
}

// Reflinked is how many of the bytes that Used counts lie in blocks that other
// files hold as well, and so take room only once: errors.ErrUnsupported where the
// file system does not tell.
func (p *Pool) Reflinked(ctx context.Context, v store.Volume) (total int64, err error) {
	for _, row := range layersOf(v) {
		if row.Volume != 0 && row.Volume != v.ID || row.Kind == store.LayerDevice {
			continue
		}
		n, err := p.files.Reflinked(ctx, row.Path)
		if errors.Is(err, errors.ErrUnsupported) {
			return 0, errors.ErrUnsupported
		}
		if err != nil {
			return 0, fault("measure volume", v.Name, err)
		}
		total += n
	}
	return total, nil
}
