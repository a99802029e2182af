package clone

import "context"

// Flatten copies into the data file everything that only the parent has, while
// the layer is used. When it returns nil the data file alone is the layer, on
// the disk too, and stays so. It may be ended and begun again; what was copied
// is not copied twice.
func (l *Layer) Flatten(ctx context.Context, progress func(done, total int64)) error {
	if err := l.takesWrites(); err != nil {
		return err
	}
	buf := make([]byte, region)
	parent := extents{f: l.parent, end: l.id.ParentSize}
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
		if err := l.flattenRegion(off, n, buf, &parent); err != nil {
			return err
		}
		off += n
	}
	return l.Sync()
}

func (l *Layer) flattenRegion(off, n int64, buf []byte, parent *extents) error {
	lock := l.lock(off)
	lock.Lock()
	defer lock.Unlock()
	for n > 0 {
		s, run, err := l.run(off, n)
		if err != nil {
			return err
		}
		if s == below && off < l.id.ParentSize {
			data, end, err := parent.at(off)
			if err != nil {
				return err
			}
			// In whole granules: one that holds the end of a hole is data.
			if hole := (min(end-off, run)) / Granule * Granule; !data && hole > 0 {
				run = hole
			} else {
				run = min(run, (end-off+Granule-1)/Granule*Granule)
				if err := l.copyUp(off, buf[:run]); err != nil {
					return err
				}
				off, n = off+run, n-run
				continue
			}
		}
		if s != here {
			if err := l.scrub(off, run); err != nil {
				return err
			}
		}
		off, n = off+run, n-run
	}
	return nil
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
