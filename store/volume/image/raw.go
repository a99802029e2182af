package image

import (
	"errors"
	"io"
	"math"
	"syscall"

	"golang.org/x/sys/unix"
)

// raw is a disk byte by byte. The holes of a sparse file stay holes.
type raw struct {
	neverPacks
	file syscall.RawConn // nil when the source is no file
}

func openRaw(r io.ReaderAt) *raw {
	if c, ok := r.(syscall.Conn); ok {
		if file, err := c.SyscallConn(); err == nil {
			return &raw{file: file}
		}
	}
	return &raw{}
}

func (w *raw) span(off int64) (span, error) {
	whole := span{held: stored, at: off, end: math.MaxInt64}
	if w.file == nil {
		return whole, nil
	}
	data, err := w.seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return span{held: hole, end: math.MaxInt64}, nil
	case err != nil: // a device, or a file system that does not tell
		return whole, nil
	case data > off:
		return span{held: hole, end: data}, nil
	}
	if end, err := w.seek(off, unix.SEEK_HOLE); err == nil && end > off {
		whole.end = end
	}
	return whole, nil
}

// seek moves the file's position, on which no ReadAt depends.
func (w *raw) seek(off int64, whence int) (at int64, err error) {
	if failed := w.file.Control(func(fd uintptr) { at, err = unix.Seek(int(fd), off, whence) }); failed != nil {
		return 0, failed
	}
	return at, err
}
