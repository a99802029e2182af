package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lunboot/store"
)

// Source is a disk whose bytes are copied: an *Image that comes in, a volume
// that goes out.
type Source interface {
	io.ReaderAt
	// Size is the disk's size in bytes.
	Size() int64
	// Extent reports whether there are bytes for the disk at off, and the end of
	// the run that begins there. What is no data reads as zeros.
	Extent(off int64) (data bool, end int64, err error)
}

// walkChunk is how much Walk reads at once.
const walkChunk = 1 << 20

// Walk calls visit with the bytes of src that are data, from the first to the
// last, each with its offset on the disk; what is left out is zeros. No piece is
// longer than 1 MiB, none crosses a multiple of 1 MiB, and p is good until visit
// returns. progress, when it is not nil, is told how many bytes of data were
// visited; Data is their total. Walk ends at the first error, with ctx's error
// when ctx ended. Long holes and long runs of data cost a call, not a loop.
func Walk(ctx context.Context, src Source, visit func(p []byte, off int64) error, progress func(done int64)) error {
	buf := make([]byte, min(walkChunk, max(src.Size(), 0)))
	var done int64
	return eachRun(ctx, src, func(off, end int64) error {
		for off < end {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(end, off-off%walkChunk+walkChunk)-off]
			if err := readDisk(src, p, off); err != nil {
				return err
			}
			if err := visit(p, off); err != nil {
				return err
			}
			off, done = off+int64(len(p)), done+int64(len(p))
			if progress != nil {
				progress(done)
			}
		}
		return nil
	})
}

// Data returns how many bytes of a disk are data, which is what a copy needs of
// room. For an Image this walks its tables and refuses one that cannot be right:
// ask before anything is written.
func Data(ctx context.Context, src Source) (int64, error) {
	if i, ok := src.(*Image); ok {
		return i.Data(ctx)
	}
	var n int64
	err := eachRun(ctx, src, func(off, end int64) error {
		n += end - off
		return nil
	})
	return n, err
}

// eachRun calls visit for every run of data of a disk.
func eachRun(ctx context.Context, src Source, visit func(off, end int64) error) error {
	size := src.Size()
	for off, n := int64(0), 0; off < size; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		data, end, err := src.Extent(off)
		if err != nil {
			return err
		}
		if end = min(end, size); end <= off {
			return &store.Error{Kind: store.KindInternal, Op: "copy a disk", Msg: fmt.Sprintf("no run of bytes at %d", off)}
		}
		if data {
			if err := visit(off, end); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// readDisk fills p with what a disk has at off.
func readDisk(src Source, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return unreadable(off+int64(n), io.ErrUnexpectedEOF)
	}
	return unreadable(off+int64(n), err)
}
