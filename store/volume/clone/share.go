package clone

import "errors"

// sharer is a data file that can share the blocks of another one: ranges of whole
// blocks of the file system, at one offset in both.
type sharer interface {
	// Share is errors.ErrUnsupported where that cannot be done.
	Share(from File, off, n int64) error
}

// shareLeast is the shortest run that is shared. A file system keeps a record for
// each run, in both files, and looks through them at each write and at each merge
// to come. What is short is copied, and lies together afterwards.
const shareLeast = 256 << 10

// taker brings bytes into a layer without copying them, as long as the file system
// can do that.
type taker struct {
	to     *Layer
	cannot bool
}

// from takes the whole granules of a run over from a file that holds it, and says
// how many bytes those are: none where they are to be copied. The caller has the
// region alone, or the layer.
func (t *taker) from(f File, off, n int64) (taken int64, err error) {
	to, ok := t.to.data.(sharer)
	if n = n / Granule * Granule; !ok || t.cannot || n < shareLeast {
		return 0, nil
	}
	if err := t.to.reserve(off, n); err != nil {
		return 0, err
	}
	switch err := to.Share(f, off, n); {
	case errors.Is(err, errors.ErrUnsupported):
		t.cannot = true
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, t.to.set(off, off+n, here)
}

// below is from for a run that the layer has from below it.
func (t *taker) below(off, n int64) (taken int64, err error) {
	if _, ok := t.to.data.(sharer); !ok || t.cannot {
		return 0, nil
	}
	f, run, err := t.to.holder(off, n)
	if err != nil || f == nil {
		return 0, err
	}
	return t.from(f, off, run)
}

// holder finds the file that holds the granule at off, of a layer or at the very
// bottom, and for how many bytes, at most n, it does; nil when none does.
func (l *Layer) holder(off, n int64) (f File, run int64, err error) {
	s, run, err := l.run(off, n)
	switch {
	case err != nil || s == zero || s == below && off >= l.id.ParentSize:
		return nil, run, err
	case s == here:
		return l.data, run, nil
	}
	run = min(run, l.id.ParentSize-off)
	if under, ok := l.under().(*Layer); ok {
		return under.holder(off, run)
	}
	return l.under(), run, nil
}
