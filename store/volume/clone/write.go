package clone

import (
	"errors"
	"io"
	"sync"
)

// granules lends buffers for granules that are filled up.
type buffer [Granule]byte

var granules = sync.Pool{New: func() any { return new(buffer) }}

// WriteAt is io.WriterAt.
func (l *Layer) WriteAt(p []byte, off int64) (n int, err error) {
	if size := l.size.Load(); off < 0 || int64(len(p)) > size-off {
		return 0, io.ErrShortWrite
	}
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(len(p), n+int(region-at%region))]
		if err := l.writeRegion(part, at); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// takesWrites says why the layer takes none.
func (l *Layer) takesWrites() error {
	if !l.writable {
		return errReadOnly
	}
	if lost := l.lost.Load(); lost != nil {
		return *lost
	}
	if d := l.Damage(); d != nil {
		return d
	}
	return nil
}

func (l *Layer) lock(off int64) *sync.RWMutex { return &l.locks[off/region%locks].RWMutex }

// writeRegion writes within one region. Writers of whole granules and of
// granules that are here share the region; who fills a granule up has it alone,
// since it would put the parent's bytes over another's writes.
func (l *Layer) writeRegion(p []byte, off int64) error {
	if err := l.reserve(off, int64(len(p))); err != nil {
		return err
	}
	lock := l.lock(off)
	lock.RLock()
	fill, err := l.fills(off, int64(len(p)))
	if err == nil && !fill {
		err = l.writeWhole(p, off)
		lock.RUnlock()
		return err
	}
	lock.RUnlock()
	if err != nil {
		return err
	}
	lock.Lock()
	defer lock.Unlock()
	return l.writeFilling(p, off)
}

// edges returns the ends of the whole granules of a range. The layer's last
// granule is whole where the layer ends.
func (l *Layer) edges(off, n int64) (from, to int64) {
	from, to = (off+Granule-1)/Granule*Granule, off+n
	if to != l.size.Load() {
		to = to / Granule * Granule
	}
	return from, to
}

// fills reports whether the range begins or ends within a granule that is not
// here.
func (l *Layer) fills(off, n int64) (bool, error) {
	from, to := l.edges(off, n)
	if from > off {
		if s, _, err := l.run(off, 1); err != nil || s != here {
			return true, err
		}
	}
	if to < off+n {
		if s, _, err := l.run(off+n-1, 1); err != nil || s != here {
			return true, err
		}
	}
	return false, nil
}

// writeWhole writes a range whose granules are here or are written whole.
func (l *Layer) writeWhole(p []byte, off int64) error {
	if err := writeFull(l.data, p, off); err != nil {
		return err
	}
	from, to := l.edges(off, int64(len(p)))
	return l.set(from, to, here)
}

// writeFilling is writeWhole of a range whose ends may need to be filled up.
// The caller has the region alone.
func (l *Layer) writeFilling(p []byte, off int64) error {
	for len(p) > 0 {
		n := len(p)
		start := off - off%Granule
		end := min(start+Granule, l.size.Load())
		from, to := l.edges(off, int64(n))
		switch {
		case off < from || to <= from: // a part of one granule
			n = min(n, int(end-off))
			s, _, err := l.run(off, 1)
			if err != nil {
				return err
			}
			if s == here {
				err = writeFull(l.data, p[:n], off)
			} else {
				err = l.fillUp(p[:n], off, start, end, s)
			}
			if err != nil {
				return err
			}
		default:
			n = int(to - from)
			if err := l.writeWhole(p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// fillUp writes a granule of which p is a part. What it had comes from the
// parent or is zero.
func (l *Layer) fillUp(p []byte, off, start, end int64, s state) error {
	buf := granules.Get().(*buffer)
	defer granules.Put(buf)
	b := buf[:end-start]
	if s == below {
		if err := l.readParent(b, start); err != nil {
			return err
		}
	} else {
		clear(b)
	}
	copy(b[off-start:], p)
	return l.writeWhole(b, start)
}

func writeFull(f File, p []byte, off int64) error {
	n, err := f.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// reserve makes ready the pages of a range that will change, and says why it
// cannot be written. It takes the room of their slots on the disk.
func (l *Layer) reserve(off, n int64) error {
	for i := int(off / pageSpan); i <= int((off+n-1)/pageSpan); i++ {
		p, err := l.page(i)
		if err != nil {
			return err
		}
		if err := l.takesWrites(); err != nil {
			return err
		}
		if p.written.Load() {
			continue
		}
		if err := l.reservePage(i); err != nil {
			return err
		}
	}
	return nil
}

func (l *Layer) reservePage(i int) error {
	l.loadMu.Lock()
	defer l.loadMu.Unlock()
	p, err := l.pageLocked(i)
	if err != nil || p.written.Load() {
		return err
	}
	fresh := p == &untouched
	if fresh {
		p = &page{next: 1, empty: 3}
	}
	for slot := range 2 {
		if p.empty>>slot&1 == 0 {
			continue
		}
		if err := writeFull(l.file, noBytes[:slotSize], slotOffset(i, slot)); err != nil {
			return err
		}
		p.empty &^= 1 << slot
	}
	p.written.Store(true)
	if fresh {
		(*l.pages.Load())[i].Store(p)
	}
	return nil
}

// set puts the granules from from to to into a state. Their pages are reserved.
func (l *Layer) set(from, to int64, s state) error {
	for from < to {
		i := int(from / pageSpan)
		until := min(to, int64(i+1)*pageSpan)
		p, err := l.page(i)
		if err != nil {
			return err
		}
		first := int(from / Granule % perPage)
		if p.set(first, first+int((until-from+Granule-1)/Granule), s) {
			l.markDirty(i, p)
		}
		from = until
	}
	return nil
}

func (l *Layer) markDirty(i int, p *page) {
	if p.dirty.Load() || !p.dirty.CompareAndSwap(false, true) {
		return
	}
	l.dirtyMu.Lock()
	l.dirty = append(l.dirty, int32(i))
	l.dirtyMu.Unlock()
}

// Punch makes a range read zero. Whole granules give their space back and hide
// the parent's bytes for good; parts of granules are written.
func (l *Layer) Punch(off, n int64) error {
	if size := l.size.Load(); off < 0 || n < 0 || n > size-off {
		return io.ErrShortWrite
	}
	if err := l.takesWrites(); err != nil {
		return err
	}
	hole := extents{f: l.under(), end: l.id.ParentSize}
	for n > 0 {
		part := min(n, region-off%region)
		if err := l.punchRegion(off, part, &hole); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

func (l *Layer) punchRegion(off, n int64, parent *extents) error {
	lock := l.lock(off)
	lock.Lock()
	defer lock.Unlock()
	for n > 0 {
		s, run, err := l.run(off, n)
		if err != nil {
			return err
		}
		if s == below {
			data, end, err := parent.at(off)
			if err != nil {
				return err
			}
			run = min(run, end-off)
			if !data {
				s = zero // the parent has nothing to hide, and never will
			}
		}
		// A run that ends within a granule without the range's doing so is the
		// parent's, whose holes may be of any size: the granule is one case.
		if s == below && (off+run)%Granule != 0 {
			run = min(n, run+Granule-(off+run)%Granule)
		}
		if s != zero {
			if err := l.punchRun(off, run, s); err != nil {
				return err
			}
		}
		off, n = off+run, n-run
	}
	return nil
}

// punchRun clears a run of one state that is not zero.
func (l *Layer) punchRun(off, n int64, s state) error {
	if err := l.reserve(off, n); err != nil {
		return err
	}
	from, to := l.edges(off, n)
	if to <= from { // less than two granules
		return l.writeFilling(noBytes[:n], off)
	}
	if off < from {
		if err := l.writeFilling(noBytes[:from-off], off); err != nil {
			return err
		}
	}
	if to < off+n {
		if err := l.writeFilling(noBytes[:off+n-to], to); err != nil {
			return err
		}
	}
	if s == here {
		kept, err := l.clearData(from, to-from)
		if err != nil || kept {
			return err
		}
	}
	return l.set(from, to, zero)
}

// clearData makes a range of the data file read zero, as a hole or, where there
// are none, in written zeros, which kept reports.
func (l *Layer) clearData(off, n int64) (kept bool, err error) {
	if err = l.data.Punch(off, n); !errors.Is(err, errors.ErrUnsupported) {
		return false, err
	}
	for n > 0 {
		c := min(n, Granule)
		if err := writeFull(l.data, noBytes[:c], off); err != nil {
			return false, err
		}
		off, n = off+c, n-c
	}
	return true, nil
}

// extents remembers the last answer of a file's Extent.
type extents struct {
	f        File
	end      int64 // of the file's use; behind it is a hole
	from, to int64 // of the answer
	data     bool
}

func (e *extents) at(off int64) (data bool, end int64, err error) {
	if off >= e.end {
		return false, 1 << 62, nil
	}
	if off < e.from || off >= e.to {
		if e.data, e.to, err = e.f.Extent(off); err != nil {
			return false, 0, err
		}
		e.from = off
		if e.to <= off { // it cannot tell
			e.data, e.to = true, e.end
		}
		e.to = min(e.to, e.end)
	}
	return e.data, e.to, nil
}
