package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"lunboot/store"
)

// CopyOut makes a raw layer of everything that a volume holds. It appears whole
// and durable, or not at all. Nobody may write to the volume meanwhile, or the
// copy is a mixture of old and new. Where the file system can, the copy shares the
// blocks of the file at the bottom, and only what was written since is copied.
func (p *Pool) CopyOut(ctx context.Context, v store.Volume, dst store.Layer, progress func(done, total int64)) (err error) {
	if dst.Kind != store.LayerRaw {
		return store.Invalid("kind", "a layer of kind %q cannot hold everything", dst.Kind)
	}
	h, err := p.Open(ctx, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	if size := h.Size(); dst.Size < size {
		return store.Invalid("size", "a copy of %d bytes of the volume's %d", dst.Size, size)
	}
	err = p.whole(ctx, v.Name, dst.Path, func(f file) error { return h.copyTo(ctx, f, dst.Size, progress) })
	if err == nil || err == ctx.Err() {
		return err
	}
	return fault("copy volume", v.Name, err)
}

func (h *Handle) copyTo(ctx context.Context, f file, size int64, progress func(done, total int64)) error {
	shares, err := h.reflink(ctx, f)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return err
	}
	buf := make([]byte, copyChunk)
	dirty := int64(0)
	for off, end := int64(0), h.Size(); off < end; {
		if progress != nil {
			progress(off, size)
		}
		copied, run, err := h.copyNext(ctx, f, off, end-off, buf, shares)
		if err != nil {
			return err
		}
		off += run
		if dirty += copied; dirty >= flushEvery {
			if err := f.Sync(); err != nil {
				return err
			}
			if err := h.s.pool.spare("copy volume", *h.s.name.Load()); err != nil {
				return err
			}
			dirty = 0
		}
	}
	return f.Sync()
}

// copyNext brings the next part of a volume, at most n bytes, into a file that
// has holes there, or the bytes of the layer at the bottom if it shares them.
func (h *Handle) copyNext(ctx context.Context, f file, off, n int64, buf []byte, shares bool) (copied, run int64, err error) {
	var differs bool
	if shares {
		differs, run, err = h.own(ctx, off, n)
	} else {
		differs, run, err = h.BlockStatus(ctx, off, n)
	}
	if err != nil || !differs {
		return 0, run, err
	}
	run = min(run, int64(len(buf)))
	if err := h.ReadAt(ctx, buf[:run], off); err != nil {
		return 0, 0, err
	}
	if shares {
		if err := h.s.erase(ctx, f, off, run); err != nil {
			return 0, 0, err
		}
	}
	copied, err = writeSparse(f, buf[:run], off)
	return copied, run, err
}

// own says whether the bytes at off are those of a layer above the one at the
// bottom, and for how many bytes, at most n, that is so.
func (h *Handle) own(ctx context.Context, off, n int64) (own bool, run int64, err error) {
	o, err := h.begin(ctx, off, n)
	if err != nil {
		return false, 0, err
	}
	defer o.gate.leave()
	c := o.top.overlay()
	if c == nil {
		return false, n, nil
	}
	own, end, err := c.Own(off)
	if err != nil {
		return false, 0, h.s.readFailed(err)
	}
	return own, min(end-off, n), nil
}

// reflink makes an empty file share the blocks of the layer at the bottom, and
// reports whether it does.
func (h *Handle) reflink(ctx context.Context, f file) (bool, error) {
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return false, err
	}
	defer o.gate.leave()
	base := o.top
	for under := base.below.Load(); under != nil; under = base.below.Load() {
		base = under
	}
	to, ok := f.(*osFile)
	from, same := plain(base.f).(*osFile)
	if !ok || !same {
		return false, nil
	}
	switch err := to.reflink(from); {
	case err == nil:
		return true, nil
	case errors.Is(err, errors.ErrUnsupported):
		return false, nil
	default:
		return false, err
	}
}

// sharing is whether files of a folder can share blocks, once that was tried.
type sharing struct {
	sync.Mutex
	tried, can bool
}

// Shares reports whether a copy of a volume's layers shares their blocks with them,
// and so takes no room to speak of.
func (p *Pool) Shares(v store.Volume) bool {
	for _, l := range layersOf(v) {
		if l.Kind == store.LayerDevice {
			return false
		}
	}
	s := &p.sharing
	s.Lock()
	defer s.Unlock()
	if s.tried {
		return s.can
	}
	can, err := p.tryShare()
	if err != nil {
		p.log.Warn("whether the file system that holds the volumes can share blocks is not known yet", "err", err)
		return false
	}
	s.tried, s.can = true, can
	return can
}

// tryShare shares a block between two files that are removed again: what a crash
// leaves of them is removed at the next start.
func (p *Pool) tryShare() (can bool, err error) {
	var pair [2]*osFile
	for n := range pair {
		name := fmt.Sprintf(".share-%d%s", n, importSuffix)
		f, bad := p.files.Create(name)
		if bad != nil {
			return false, bad
		}
		defer func() { err = errors.Join(err, f.Close(), p.files.Remove(name)) }()
		if pair[n], _ = f.(*osFile); pair[n] == nil {
			return false, nil
		}
	}
	if _, err := pair[0].WriteAt(make([]byte, writePiece), 0); err != nil {
		return false, err
	}
	err = pair[1].Share(pair[0], 0, writePiece)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}
