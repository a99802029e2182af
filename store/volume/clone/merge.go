package clone

import (
	"context"
	"errors"
)

// Merge makes of an empty layer what another one is over one of the layers below
// it: everything that upper, or a layer between it and lower, or lower itself has
// or hides. The merged layer stands on what lower stands on, and reads as upper
// does. None of the layers that are merged may change; they are read while others
// read them. When it returns nil the merged layer is on the disk. Where the file
// system can, it shares the blocks of those files. more is asked now and then
// whether to go on, or nil.
func Merge(ctx context.Context, merged, upper, lower *Layer, progress func(done, total int64), more func() error) error {
	m := merger{to: merged, upper: upper, lower: lower, buf: make([]byte, region), take: taker{to: merged}}
	size := merged.size.Load()
	for off, unsaved := int64(0), int64(0); off < size; {
		if progress != nil {
			progress(off, size)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		run, copied, err := m.next(off, size-off)
		if err != nil {
			return err
		}
		off += run
		if unsaved += copied; unsaved < flushEvery {
			continue
		}
		unsaved = 0
		if err := merged.Sync(); err != nil {
			return err
		}
		if more != nil {
			if err := more(); err != nil {
				return err
			}
		}
	}
	if progress != nil {
		progress(size, size)
	}
	return merged.Sync()
}

type merger struct {
	to, upper, lower *Layer
	buf              []byte
	take             taker
}

// next brings the run that begins at off, a granule's first byte, into the merged
// layer. copied is what it wrote.
func (m *merger) next(off, n int64) (run, copied int64, err error) {
	s, from, run, err := m.upper.found(off, n, m.lower)
	if err != nil || s == below {
		return run, 0, err
	}
	if s == zero {
		return run, 0, m.to.Punch(off, run)
	}
	if off+run <= from.size.Load() {
		if shared, err := m.take.from(from.data, off, run); err != nil || shared > 0 {
			return shared, shared, err
		}
	}
	run = min(run, int64(len(m.buf)))
	b := m.buf[:run]
	if err := ReadFull(m.upper, b, off); err != nil {
		return 0, 0, err
	}
	return run, run, m.to.bring(b, off)
}

// bring writes whole granules into a layer that has nothing there. Granules of
// zeros become holes.
func (l *Layer) bring(b []byte, off int64) error {
	for len(b) > 0 {
		n := min(Granule, len(b))
		empty := isZero(b[:n])
		for n < len(b) && isZero(b[n:min(n+Granule, len(b))]) == empty {
			n = min(n+Granule, len(b))
		}
		var err error
		if empty {
			err = l.Punch(off, int64(n))
		} else {
			_, err = l.WriteAt(b[:n], off)
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// found says in which state a granule is for who looks through the layers from
// this one down to last, for how many bytes, at most n, that is so, and which of
// them has it when it is here.
func (l *Layer) found(off, n int64, last *Layer) (s state, in *Layer, run int64, err error) {
	s, run, err = l.run(off, n)
	if err != nil || s != below {
		return s, l, run, err
	}
	under, ok := l.under().(*Layer)
	switch {
	case l == last || off >= l.id.ParentSize:
		return below, nil, run, nil
	case !ok:
		return below, nil, 0, errors.New("the layers to be merged do not lie upon each other")
	}
	// The granule in which the lower layer ends is all its own: what is behind
	// the end reads zero.
	s, in, k, err := under.found(off, min(run, l.id.ParentSize-off), last)
	if off+k == l.id.ParentSize {
		k = (k + Granule - 1) / Granule * Granule
	}
	return s, in, min(run, k), err
}
