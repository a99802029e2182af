package clone

import "context"

// flushEvery bounds what Flatten leaves to its last flush, in bytes.
const flushEvery = 64 << 20

// Flatten copies into the data file everything that only the parent has, while
// the layer is used. When it returns nil the data file alone is the layer, on
// the disk too, and stays so. Where the file system can, it shares the blocks of
// the files below. It may be ended and begun again; what was copied is not copied
// twice. more is asked now and then whether to go on, or nil.
func (l *Layer) Flatten(ctx context.Context, progress func(done, total int64), more func() error) error {
	if err := l.takesWrites(); err != nil {
		return err
	}
	buf := make([]byte, region)
	parent := extents{f: l.under(), end: l.id.ParentSize}
	take := taker{to: l}
	copied := int64(0)
	for off := int64(0); ; {
		size := l.size.Load() // it may grow meanwhile
		if progress != nil {
			progress(off, size)
		}
		if off >= size {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(size-off, region-off%region)
		k, err := l.flattenRegion(off, n, buf, &parent, &take)
		if err != nil {
			return err
		}
		off += n
		// On a journaling file system one large flush holds up those of others.
		if copied += k; copied >= flushEvery {
			if err := l.Sync(); err != nil {
				return err
			}
			if more != nil {
				if err := more(); err != nil {
					return err
				}
			}
			copied = 0
		}
	}
	return l.Sync()
}

func (l *Layer) flattenRegion(off, n int64, buf []byte, parent *extents, take *taker) (copied int64, err error) {
	lock := l.lock(off)
	lock.Lock()
	defer lock.Unlock()
	for n > 0 {
		s, run, err := l.run(off, n)
		if err != nil {
			return copied, err
		}
		if s == below && off < l.id.ParentSize {
			data, end, err := parent.at(off)
			if err != nil {
				return copied, err
			}
			// In whole granules: one that holds the end of a hole is data.
			if hole := (min(end-off, run)) / Granule * Granule; !data && hole > 0 {
				run = hole
			} else {
				run = min(run, (end-off+Granule-1)/Granule*Granule)
				if shared, err := take.below(off, run); err != nil {
					return copied, err
				} else if shared > 0 {
					off, n, copied = off+shared, n-shared, copied+shared
					continue
				}
				if err := l.copyUp(off, buf[:run]); err != nil {
					return copied, err
				}
				off, n, copied = off+run, n-run, copied+run
				continue
			}
		}
		if s != here {
			if err := l.scrub(off, run); err != nil {
				return copied, err
			}
		}
		off, n = off+run, n-run
	}
	return copied, nil
}

// copyUp makes a run of whole granules the layer's own. Granules of zeros stay
// holes.
func (l *Layer) copyUp(off int64, b []byte) error {
	if err := l.reserve(off, int64(len(b))); err != nil {
		return err
	}
	if err := l.readParent(b, off); err != nil {
		return err
	}
	for len(b) > 0 {
		empty := isZero(b[:min(Granule, len(b))])
		n := min(Granule, len(b))
		for n < len(b) && isZero(b[n:min(n+Granule, len(b))]) == empty {
			n = min(n+Granule, len(b))
		}
		if !empty {
			if err := l.writeWhole(b[:n], off); err != nil {
				return err
			}
		} else {
			if err := l.scrub(off, int64(n)); err != nil {
				return err
			}
			if err := l.set(off, off+int64(n), zero); err != nil {
				return err
			}
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// scrub makes the data file read zero where the layer does: bytes of writes
// that a crash took back may lie there.
func (l *Layer) scrub(off, n int64) error {
	for n > 0 {
		data, end, err := l.data.Extent(off)
		if err != nil {
			return err
		}
		run := min(n, end-off)
		if run <= 0 {
			data, run = true, n // it cannot tell
		}
		if data {
			if _, err := l.clearData(off, run); err != nil {
				return err
			}
		}
		off, n = off+run, n-run
	}
	return nil
}

// Own says whether a layer, or an overlay below it, holds or hides the bytes at
// off itself, in place of the file at the very bottom, and where that ends.
func (l *Layer) Own(off int64) (own bool, end int64, err error) {
	s, n, err := l.run(off, l.size.Load()-off)
	if err != nil {
		return false, 0, err
	}
	end = off + n
	if s != below || off >= l.id.ParentSize {
		return true, end, nil
	}
	end = min(end, l.id.ParentSize)
	if o, ok := l.under().(*Layer); ok {
		own, until, err := o.Own(off)
		return own, min(until, end), err
	}
	return false, end, nil
}
