package clone

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

// File is what a layer needs of the files that it is made of, and what it is
// itself. A store/volume file is one.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes all writes that returned, and the size, durable.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	// Punch makes a range read zero and gives its space back;
	// errors.ErrUnsupported when the file system cannot.
	Punch(off, n int64) error
	// Extent says whether off lies in data or in a hole, and where that ends.
	Extent(off int64) (data bool, end int64, err error)
	// Resident fills p from the page cache or returns false, without waiting.
	Resident(p []byte, off int64) bool
	// Cached says whether the page cache holds a range, and in which file.
	Cached(off, n int64) (fd int, ok bool)
	Close() error
}

const (
	// region is the range that one lock speaks of, in bytes.
	region = 1 << 20
	locks  = 64
	// eager is how large a map may be, in bytes on the disk, that is read and
	// verified when it is opened: the map of 128 GiB. A larger one is verified
	// page by page, as it is used.
	eager = 16 << 20
)

// Layer is an open layer. Its methods are safe for concurrent use. Reading and
// writing allocate nothing but the map pages that they are the first to touch.
type Layer struct {
	data, file File
	parent     atomic.Pointer[File]
	id         Identity
	writable   bool
	kept       bool // data is another's
	size       atomic.Int64

	// locks order the writes to a region: whoever fills a granule up from the
	// parent, or takes one away, is alone.
	locks [locks]struct {
		sync.RWMutex
		_ [40]byte // a cache line each
	}

	pages  atomic.Pointer[[]atomic.Pointer[page]]
	loadMu sync.Mutex // to replace pages, or one of them

	damageMu sync.Mutex
	damage   []DamageError
	damaged  atomic.Bool

	dirtyMu sync.Mutex
	dirty   []int32 // page numbers, each once

	flushMu sync.Mutex
	spare   []int32 // takes turns with dirty
	batch   int     // pages that are copied before one flush of the data file
	copies  []byte  // of pages
	unsure  bool    // pages were written that no Sync of the map made durable
	lost    atomic.Pointer[error]
}

// Create writes the two files of a new layer, which are empty, and makes them
// durable; their names are the caller's to make durable. Everything reads as
// the parent, and zero behind its end.
func Create(data, file File, id Identity) error {
	if id.Size < id.ParentSize {
		return &CutError{What: "layer", Have: id.Size, Want: id.ParentSize}
	}
	if _, err := file.WriteAt(id.encode(), 0); err != nil {
		return err
	}
	return errors.Join(data.Truncate(id.Size), data.Sync(), file.Sync())
}

// Open opens a layer over its parent. id is what the caller believes; a map
// that says something else is refused. The layer owns data and file from then
// on, not the parent; when Open fails it owns nothing.
func Open(data, file, parent File, id Identity, write bool) (*Layer, error) {
	l := &Layer{data: data, file: file, writable: write, batch: batch}
	l.parent.Store(&parent)
	if err := l.identify(id); err != nil {
		return nil, err
	}
	l.size.Store(id.Size)
	pages := make([]atomic.Pointer[page], pagesOf(id.Size))
	l.pages.Store(&pages)
	if write {
		// See the package's comment: what the page cache alone has may be the
		// newer slot, and the older is the next to be written over.
		if err := file.Sync(); err != nil {
			return nil, err
		}
	}
	if err := l.verifySmall(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Layer) identify(id Identity) error {
	b := make([]byte, headerSize)
	n, err := l.file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return err
	}
	said, _, err := decodeHeader(b[:n])
	if err != nil {
		return err
	}
	switch {
	case said.UUID != id.UUID:
		return &ParentError{What: "layer", Have: id.UUID, Want: said.UUID}
	case said.Parent != id.Parent || said.ParentSize != id.ParentSize:
		return &ParentError{What: "parent", Have: id.Parent, Want: said.Parent, HaveBytes: id.ParentSize, WantBytes: said.ParentSize}
	case id.Size < said.Size:
		return &CutError{What: "layer", Have: id.Size, Want: said.Size}
	}
	if have, err := l.data.Size(); err != nil {
		return err
	} else if have < id.Size {
		return &CutError{What: "data file", Have: have, Want: id.Size}
	}
	if have, err := l.under().Size(); err != nil {
		return err
	} else if have < id.ParentSize {
		return &CutError{What: "parent", Have: have, Want: id.ParentSize}
	}
	l.id = said
	return nil
}

// verifySmall loads all pages that are on the disk, unless they are many.
func (l *Layer) verifySmall() error {
	total := int64(0)
	var touched []Range
	size, err := l.file.Size()
	if err != nil {
		return err
	}
	for off := int64(headerSize); off < size; {
		data, end, err := l.file.Extent(off)
		if err != nil {
			return err
		}
		if end = min(end, size); end <= off {
			break
		}
		if data {
			touched = append(touched, Range{off, end - off})
			if total += end - off; total > eager || len(touched) > eager/slotSize {
				return nil
			}
		}
		off = end
	}
	count := len(*l.pages.Load())
	for _, r := range touched {
		last := int((r.Off + r.Len - 1 - headerSize) / pairSize)
		for i := int((r.Off - headerSize) / pairSize); i <= last && i < count; i++ {
			if _, err := l.page(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// under is what the layer stands on.
func (l *Layer) under() File { return *l.parent.Load() }

// Rest puts another parent under the layer, which reads as the one before. What
// began to read from that one may still do so.
func (l *Layer) Rest(parent File) { l.parent.Store(&parent) }

func pagesOf(size int64) int { return int((size + pageSpan - 1) / pageSpan) }

// page returns a map page, from the disk when it is needed for the first time.
func (l *Layer) page(i int) (*page, error) {
	if p := (*l.pages.Load())[i].Load(); p != nil {
		return p, nil
	}
	l.loadMu.Lock()
	defer l.loadMu.Unlock()
	return l.pageLocked(i)
}

func (l *Layer) pageLocked(i int) (*page, error) {
	slot := &(*l.pages.Load())[i]
	if p := slot.Load(); p != nil {
		return p, nil
	}
	pair, err := l.readPair(i)
	if err != nil {
		return nil, err
	}
	if pair == nil {
		slot.Store(&untouched)
		return &untouched, nil
	}
	s := l.decode(i, pair)
	p := &page{}
	p.load(pair, &s)
	if p.bad != 0 {
		l.noteDamage(i, p)
	}
	slot.Store(p)
	return p, nil
}

// readPair reads a page's slots; nil when nothing was ever written there.
func (l *Layer) readPair(i int) (*[pairSize]byte, error) {
	var pair [pairSize]byte
	n, err := l.file.ReadAt(pair[:], slotOffset(i, 0))
	if err != nil && err != io.EOF {
		return nil, err
	}
	clear(pair[n:])
	if isZero(pair[:slotSize]) && isZero(pair[slotSize:]) {
		return nil, nil
	}
	return &pair, nil
}

// decode is decodePair of page i. Damage behind the layer's end costs nothing:
// no other state than 00 was ever written there.
func (l *Layer) decode(i int, pair *[pairSize]byte) slots {
	s := decodePair(l.id.UUID, i, pair)
	for k, bad := range s.damaged {
		if bad && int64(i)*pageSpan+int64(k)*perSector*Granule >= l.size.Load() {
			s.damaged[k] = false
			clear(pair[s.slot*slotSize+k*sectorSize:][:sectorSize])
			s.stale++
		}
	}
	return s
}

// noteDamage remembers what of page i is damaged.
func (l *Layer) noteDamage(i int, p *page) {
	l.damageMu.Lock()
	defer l.damageMu.Unlock()
	for g := 0; g < perPage; {
		bad, end := p.damagedFrom(g)
		if bad {
			off := int64(i)*pageSpan + int64(g)*Granule
			l.damage = append(l.damage, DamageError{Range{off, min(int64(end-g)*Granule, l.size.Load()-off)}, l.id.BlockSize})
			l.damaged.Store(true)
		}
		g = end
	}
}

// Damage is why the layer takes no writes though it was opened for them: the
// first damage that was met, nil when there is none.
func (l *Layer) Damage() *DamageError {
	if !l.damaged.Load() {
		return nil
	}
	l.damageMu.Lock()
	defer l.damageMu.Unlock()
	return &l.damage[0]
}

// run says in which state the granule at off is, and for how many bytes, at
// most n, that is so. off and n are inside of the layer.
func (l *Layer) run(off, n int64) (state, int64, error) {
	p, err := l.page(int(off / pageSpan))
	if err != nil {
		return 0, 0, err
	}
	return l.runIn(p, off, n)
}

func (l *Layer) runIn(p *page, off, n int64) (state, int64, error) {
	if p == &untouched {
		return below, min(n, pageSpan-off%pageSpan), nil
	}
	first := int(off / Granule % perPage)
	s := p.at(first)
	if p.bad == 0 && off%Granule+n <= Granule {
		return s, n, nil
	}
	end := min(perPage, first+int((off%Granule+n+Granule-1)/Granule))
	if p.bad != 0 {
		bad, until := p.damagedFrom(first)
		if bad {
			at := off - off%Granule
			return 0, 0, &DamageError{Range{at, min(int64(until-first)*Granule, l.size.Load()-at)}, l.id.BlockSize}
		}
		end = min(end, until)
	}
	return s, min(n, int64(p.same(first, end)-first)*Granule-off%Granule), nil
}

// ReadAt is io.ReaderAt.
func (l *Layer) ReadAt(p []byte, off int64) (int, error) {
	size := l.size.Load()
	short := error(nil)
	if off < 0 || off > size {
		return 0, io.EOF
	}
	if int64(len(p)) > size-off {
		p, short = p[:size-off], io.EOF
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		s, n, err := l.run(at, int64(len(p)-done))
		if err != nil {
			return done, err
		}
		b := p[done : done+int(n)]
		switch s {
		case here:
			err = ReadFull(l.data, b, at)
		case zero:
			clear(b)
		default:
			err = l.readParent(b, at)
		}
		if err != nil {
			return done, err
		}
		done += int(n)
	}
	return len(p), short
}

// ReadFull reads what a file surely has.
func ReadFull(f File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (l *Layer) readParent(b []byte, off int64) error {
	n := max(0, min(int64(len(b)), l.id.ParentSize-off))
	clear(b[n:])
	if n == 0 {
		return nil
	}
	return ReadFull(l.under(), b[:n], off)
}

// Resident fills p when the page cache has all of it, without waiting.
func (l *Layer) Resident(p []byte, off int64) bool {
	if off < 0 || int64(len(p)) > l.size.Load()-off {
		return false
	}
	for len(p) > 0 {
		pg := (*l.pages.Load())[off/pageSpan].Load()
		if pg == nil {
			return false
		}
		s, n, err := l.runIn(pg, off, int64(len(p)))
		if err != nil {
			return false
		}
		b := p[:n]
		switch s {
		case here:
			if !l.data.Resident(b, off) {
				return false
			}
		case zero:
			clear(b)
		default:
			k := max(0, min(n, l.id.ParentSize-off))
			clear(b[k:])
			if k > 0 && !l.under().Resident(b[:k], off) {
				return false
			}
		}
		p, off = p[n:], off+n
	}
	return true
}

// Cached says whether one file has all of a range in the page cache: the
// layer's or one of those below it, at the same offset.
func (l *Layer) Cached(off, n int64) (fd int, ok bool) {
	if off < 0 || n <= 0 || n > l.size.Load()-off {
		return 0, false
	}
	pg := (*l.pages.Load())[off/pageSpan].Load()
	if pg == nil {
		return 0, false
	}
	s, run, err := l.runIn(pg, off, n)
	switch {
	case err != nil || run < n:
		return 0, false
	case s == here:
		return l.data.Cached(off, n)
	case s == below && off+n <= l.id.ParentSize:
		return l.under().Cached(off, n)
	}
	return 0, false
}

// Extent says whether off lies in data or in a hole, of this layer or of those
// below it, and where that ends.
func (l *Layer) Extent(off int64) (data bool, end int64, err error) {
	size := l.size.Load()
	for end = off; end < size; {
		s, n, err := l.run(end, size-end)
		if err != nil {
			return false, 0, err
		}
		kind, until := s == here, end+n
		if s == below && end < l.id.ParentSize {
			if kind, until, err = l.under().Extent(end); err != nil {
				return false, 0, err
			}
			if until >= l.id.ParentSize && kind {
				until = l.id.ParentSize
			} else if until >= l.id.ParentSize {
				until = end + n // a hole that goes on behind the parent's end
			}
			until = min(until, end+n)
		}
		if until <= end {
			kind, until = true, end+n // a file that cannot tell
		}
		if end == off {
			data = kind
		} else if kind != data {
			break
		}
		end = until
	}
	return data, end, nil
}

// Size is the layer's size in bytes.
func (l *Layer) Size() (int64, error) { return l.size.Load(), nil }

// Truncate grows the layer; what is new reads zero.
func (l *Layer) Truncate(size int64) error {
	if !l.writable {
		return errReadOnly
	}
	for i := range l.locks { // where the last granule ends must not change under a writer
		l.locks[i].Lock()
		defer l.locks[i].Unlock()
	}
	l.loadMu.Lock()
	defer l.loadMu.Unlock()
	if size < l.size.Load() {
		return errShrink
	}
	if err := l.data.Truncate(size); err != nil {
		return err
	}
	old := *l.pages.Load()
	if n := pagesOf(size); n > len(old) {
		pages := make([]atomic.Pointer[page], n)
		for i := range old {
			pages[i].Store(old[i].Load())
		}
		l.pages.Store(&pages)
	}
	l.size.Store(size)
	return nil
}

// Files are the two that the layer is made of.
func (l *Layer) Files() (data, file File) { return l.data, l.file }

// Between calls f between two flushes: what the map file has then is whole, and
// the data file has all that it speaks of.
func (l *Layer) Between(f func() error) error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	return f()
}

// Keep gives the data file of a layer away that Flatten made whole: it is all of
// the layer, for as long as nobody writes to this one. Close leaves it open.
func (l *Layer) Keep() File {
	l.kept = true
	return l.data
}

// Close closes the layer's own files. It saves nothing.
func (l *Layer) Close() error {
	if l.kept {
		return l.file.Close()
	}
	return errors.Join(l.data.Close(), l.file.Close())
}
