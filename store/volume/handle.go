package volume

import (
	"context"
	"io"
	"iter"
	"sync/atomic"

	"lunboot/store"
)

// Handle is one user's hold of an open volume. Its methods are safe for
// concurrent use; ReadAt, WriteAt and Resident allocate nothing unless they
// fail.
type Handle struct {
	s      *shared
	closed atomic.Bool
}

func (h *Handle) begin(ctx context.Context, off, n int64) (*opened, error) {
	if h.closed.Load() {
		return nil, closedError(*h.s.name.Load())
	}
	return h.s.begin(ctx, off, n)
}

// ReadAt fills p with the bytes at off, or returns an error.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) error {
	o, err := h.begin(ctx, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer o.gate.leave()
	n, err := o.top.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return h.s.readFailed(err)
}

// WriteAt writes p at off. The bytes are durable after the next Sync.
func (h *Handle) WriteAt(ctx context.Context, p []byte, off int64) error {
	h.s.still.RLock()
	defer h.s.still.RUnlock()
	o, err := h.begin(ctx, off, int64(len(p)))
	if err != nil {
		return err
	}
	defer o.gate.leave()
	if err := h.s.writable(); err != nil {
		return err
	}
	_, err = o.top.f.WriteAt(p, off)
	h.s.wrote() // a part of it, perhaps
	if err != nil {
		h.s.harmed(err)
		return fault("write volume", *h.s.name.Load(), err)
	}
	return nil
}

// Sync makes every write that returned before it durable. Its first error is
// final: the volume is read-only from then on. A caller whose ctx ends may
// leave early, unless it is the one that flushes for the others.
func (h *Handle) Sync(ctx context.Context) error {
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return err
	}
	defer o.gate.leave()
	return h.s.sync(ctx)
}

// Unmap gives the range's space back; it reads zero afterwards.
func (h *Handle) Unmap(ctx context.Context, off, n int64) error {
	return h.erase(ctx, "unmap volume", off, n)
}

// Zero makes the range read zero.
func (h *Handle) Zero(ctx context.Context, off, n int64) error {
	return h.erase(ctx, "zero volume", off, n)
}

func (h *Handle) erase(ctx context.Context, op string, off, n int64) error {
	h.s.still.RLock()
	defer h.s.still.RUnlock()
	o, err := h.begin(ctx, off, n)
	if err != nil {
		return err
	}
	defer o.gate.leave()
	if err := h.s.writable(); err != nil {
		return err
	}
	if n > saveMost {
		o.top.saveAhead(func(yield func(int64, int64) bool) { yield(off, n) })
	}
	err = h.s.erase(ctx, o.top.f, off, n)
	h.s.wrote()
	if err == nil || ctx.Err() != nil {
		return err
	}
	h.s.harmed(err)
	return fault(op, *h.s.name.Load(), err)
}

// Foresee is told of all ranges, by their offsets and lengths, that one command is
// about to unmap or zero, so that views save no more for all of them than for one.
func (h *Handle) Foresee(ctx context.Context, ranges iter.Seq2[int64, int64]) error {
	h.s.still.RLock()
	defer h.s.still.RUnlock()
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return err
	}
	defer o.gate.leave()
	if err := h.s.writable(); err != nil {
		return err
	}
	o.top.saveAhead(ranges)
	return nil
}

// BlockStatus says whether the bytes at off are held on disk, and for how many
// bytes, at most n, that is so.
func (h *Handle) BlockStatus(ctx context.Context, off, n int64) (mapped bool, run int64, err error) {
	o, err := h.begin(ctx, off, n)
	if err != nil {
		return false, 0, err
	}
	defer o.gate.leave()
	if n == 0 {
		return false, 0, nil
	}
	mapped, run, err = h.s.status(o.top.f, off, n)
	if err != nil {
		return false, 0, h.s.readFailed(err)
	}
	return mapped, run, nil
}

// Resident fills p when the page cache holds all of it, without waiting for
// the disk; otherwise it promises nothing and returns false.
func (h *Handle) Resident(p []byte, off int64) bool {
	if len(p) == 0 {
		return false
	}
	o, err := h.begin(context.Background(), off, int64(len(p)))
	if err != nil {
		return false
	}
	defer o.gate.leave()
	return o.top.f.Resident(p, off)
}

// Lend says where a file holds the range, when the page cache has all of it: it
// can be sent from there without being copied. The descriptor is valid until
// back.Return, which the caller owes when ok is true; until then the volume is
// not closed. What is sent are the bytes as they are when they leave.
func (h *Handle) Lend(off, n int64) (fd int, at int64, back interface{ Return() }, ok bool) {
	if n <= 0 {
		return 0, 0, nil, false
	}
	o, err := h.begin(context.Background(), off, n)
	if err != nil {
		return 0, 0, nil, false
	}
	if fd, ok = o.top.f.Cached(off, n); !ok {
		o.gate.leave()
		return 0, 0, nil, false
	}
	return fd, off, o, true
}

// Size is the volume's size in bytes. It may grow, never shrink.
func (h *Handle) Size() int64 { return h.s.size.Load() }

// Sized returns a channel that is closed when the volume grows next.
func (h *Handle) Sized() <-chan struct{} { return h.s.sized() }

// Generation tells one opening of the volume's bytes from the next: handles of
// one generation share them.
func (h *Handle) Generation() int64 { return h.s.generation }

// ID is the volume's.
func (h *Handle) ID() store.VolumeID { return h.s.id }

// ReadOnly reports whether writes are refused now.
func (h *Handle) ReadOnly() bool { return h.s.writable() != nil }

// Close gives the hold back. The last one waits for the operations under way,
// flushes what was written, closes the file and returns the flush's error.
func (h *Handle) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	return h.s.pool.release(h.s)
}
