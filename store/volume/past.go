package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

const (
	// pastGranule is what is saved at once before a part of it is written over:
	// the block that QEMU's backup job copies, and as much as one write hands to
	// the page cache.
	pastGranule = writePiece
	// saveMost bounds what one write waits for. A machine that gives back a whole
	// disk in one command is not to wait until all of that was copied: an initiator
	// gives up after 30 s.
	saveMost = 256 << 20
)

// tapped is a file that machines may write to and of which views can be taken. A
// write costs one look at views more than one to the file itself.
type tapped struct {
	file
	views atomic.Pointer[[]*past] // nil: none

	mu    sync.Mutex // to change views and users
	users int        // whose file it is, and the views
}

func tap(f file) *tapped { return &tapped{file: f, users: 1} }

// tapOf finds what views of a file are taken by, nil when nobody writes to it.
func tapOf(f clone.File) *tapped {
	switch f := f.(type) {
	case *tapped:
		return f
	case unhurried:
		return tapOf(f.file)
	}
	return nil
}

// plain is the file below what stands before it.
func plain(f clone.File) clone.File {
	if t := tapOf(f); t != nil {
		return t.file
	}
	return f
}

func (t *tapped) WriteAt(p []byte, off int64) (int, error) {
	t.save(off, int64(len(p)))
	return t.file.WriteAt(p, off)
}

func (t *tapped) Punch(off, n int64) error {
	t.save(off, n)
	return t.file.Punch(off, n)
}

// Share takes a range over from another file, as osFile does.
func (t *tapped) Share(from clone.File, off, n int64) error {
	to, ok := t.file.(interface {
		Share(from clone.File, off, n int64) error
	})
	if !ok {
		return errors.ErrUnsupported
	}
	t.save(off, n)
	return to.Share(from, off, n)
}

// Close closes the file when the last view of it has ended as well.
func (t *tapped) Close() error {
	t.mu.Lock()
	t.users--
	last := t.users == 0
	t.mu.Unlock()
	if !last {
		return nil
	}
	return t.file.Close()
}

// add begins a view. Nobody writes at that moment.
func (t *tapped) add(k *past) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users++
	now := []*past{k}
	if was := t.views.Load(); was != nil {
		now = append(now, *was...)
	}
	t.views.Store(&now)
}

// remove lets writes go on without saving anything for a view.
func (t *tapped) remove(k *past) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.views.Load()
	if was == nil {
		return
	}
	now := slices.DeleteFunc(slices.Clone(*was), func(o *past) bool { return o == k })
	if len(now) == 0 {
		t.views.Store(nil)
		return
	}
	t.views.Store(&now)
}

// save has the views save what is about to be replaced.
func (t *tapped) save(off, n int64) {
	if now := t.views.Load(); now != nil {
		for _, k := range *now {
			k.keep(off, n)
		}
	}
}

// saveAhead saves for views all of what a command is about to erase, in ranges or, in
// a clone, in pieces: each of those has little to save, however much they have
// together, and the bound is for what the command waits for.
func (l *layer) saveAhead(ranges iter.Seq2[int64, int64]) {
	f := clone.File(l.f)
	if o := l.overlay(); o != nil {
		f, _ = o.Files()
	}
	t := tapOf(f)
	if t == nil {
		return
	}
	if now := t.views.Load(); now != nil {
		for _, k := range *now {
			k.keepAll(ranges)
		}
	}
}

// past is a file as it was at one moment, while it is written: whoever writes
// first saves what he writes over, and readers find that in the file of what was
// saved. It is what clone.Layer stands on, and can only be read.
type past struct {
	view *View
	tap  *tapped
	live file // below tap
	size int64

	locks [64]sync.Mutex // of granules: whoever saves one, and whoever reads it
	saved marks
	given atomic.Int64 // how many, from the first on, were read and will not be again

	spareMu sync.Mutex
	spare   file // sparse, of what was saved, without a name; nil: nothing yet
}

func newPast(w *View, t *tapped, size int64) *past {
	n := (size + pastGranule - 1) / pastGranule
	return &past{view: w, tap: t, live: t.file, size: size, saved: newMarks(n)}
}

// marks are a bit each for many granules. Those of 4 GiB come together, when the
// first of them is set: a large volume of which little is written takes no memory.
type marks []atomic.Pointer[markPage]

type markPage [1024]atomic.Uint64

const perMarkPage = 64 * int64(len(markPage{}))

func newMarks(n int64) marks { return make(marks, (n+perMarkPage-1)/perMarkPage) }

func (m marks) has(g int64) bool {
	p := m[g/perMarkPage].Load()
	return p != nil && p[g%perMarkPage/64].Load()>>(g%64)&1 == 1
}

func (m marks) set(g int64) {
	slot := &m[g/perMarkPage]
	p := slot.Load()
	if p == nil {
		slot.CompareAndSwap(nil, new(markPage)) // or another was faster
		p = slot.Load()
	}
	p[g%perMarkPage/64].Or(1 << (g % 64))
}

// next is the first from g on that is marked, at most end.
func (m marks) next(g, end int64) int64 {
	for g < end {
		p := m[g/perMarkPage].Load()
		if p == nil {
			g += perMarkPage - g%perMarkPage
			continue
		}
		if w := p[g%perMarkPage/64].Load() >> (g % 64); w != 0 {
			return min(g+int64(bits.TrailingZeros64(w)), end)
		}
		g += 64 - g%64
	}
	return end
}

func (k *past) lock(g int64) *sync.Mutex { return &k.locks[g%int64(len(k.locks))] }

// keep saves what a write is about to replace. When that fails the view is given
// up, and the write goes on: a copy never harms a machine.
func (k *past) keep(off, n int64) {
	cost := int64(0)
	k.keepFor(off, n, &cost)
}

// keepAll is keep for all that one command replaces.
func (k *past) keepAll(ranges iter.Seq2[int64, int64]) {
	cost := int64(0)
	for off, n := range ranges {
		k.keepFor(off, n, &cost)
	}
}

// keepFor adds to the cost what it has saved, in bytes; no more than saveMost.
func (k *past) keepFor(off, n int64, cost *int64) {
	end := min(off+n, k.size)
	if off >= end {
		return
	}
	live := run{f: k.live}
	for g := off / pastGranule; g*pastGranule < end; g++ {
		if k.saved.has(g) || g < k.given.Load() {
			continue
		}
		if k.view.lost.Load() != nil {
			return
		}
		if *cost > saveMost {
			k.view.unsaved(errTooMuch)
			return
		}
		wrote, err := k.save(g, &live)
		if err != nil {
			k.view.unsaved(err)
			return
		}
		*cost += wrote
	}
}

// errTooMuch ends a view for the sake of a machine that would wait too long.
var errTooMuch = fmt.Errorf("a machine wrote over more than %s by one command, and was not to wait until that was saved", store.Bytes(saveMost))

// buffers are lent for granules that are saved.
var buffers = sync.Pool{New: func() any { return new([pastGranule]byte) }}

func (k *past) save(g int64, live *run) (wrote int64, err error) {
	lock := k.lock(g)
	lock.Lock()
	defer lock.Unlock()
	if k.saved.has(g) || g < k.given.Load() {
		return 0, nil
	}
	off := g * pastGranule
	n := min(pastGranule, k.size-off)
	hole, err := live.hole(off, n)
	if err != nil {
		return 0, err
	}
	if !hole { // which is one in the file of what was saved as well
		b := buffers.Get().(*[pastGranule]byte)
		defer buffers.Put(b)
		if err := clone.ReadFull(k.live, b[:n], off); err != nil {
			return 0, err
		}
		spare, err := k.spareFile()
		if err != nil {
			return 0, err
		}
		if wrote, err = writeSparse(spare, b[:n], off); err != nil {
			return 0, err
		}
		if err := k.view.counts(wrote); err != nil {
			return 0, err
		}
	}
	k.saved.set(g)
	return wrote, nil
}

// run remembers the last answer of a file's Extent.
type run struct {
	f        file
	from, to int64
	data     bool
}

// hole says that the file has nothing in a range.
func (r *run) hole(off, n int64) (bool, error) {
	if off < r.from || off >= r.to {
		var err error
		if r.data, r.to, err = r.f.Extent(off); err != nil {
			return false, err
		}
		r.from = off
	}
	return !r.data && off+n <= r.to, nil
}

// spareFile is made when the first byte is saved. It has no name from then on: a
// crash leaves nothing of it.
func (k *past) spareFile() (file, error) {
	k.spareMu.Lock()
	defer k.spareMu.Unlock()
	if k.spare != nil {
		return k.spare, nil
	}
	if lost := k.view.Lost(); lost != nil {
		return nil, lost
	}
	p := k.view.pool
	// Should the power fail before it is removed, the next start removes it.
	name := fmt.Sprintf(".view-%d%s", p.spares.Add(1), importSuffix)
	f, err := p.files.Create(name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(k.size), p.files.Remove(name)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	k.spare = f
	return f, nil
}

// ReadAt is io.ReaderAt.
func (k *past) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= k.size {
		return 0, io.EOF
	}
	if left := k.size - off; int64(len(p)) > left {
		p, err = p[:left], io.EOF
	}
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(len(p), n+int(pastGranule-at%pastGranule))]
		if bad := k.readPart(part, at); bad != nil {
			return n, bad
		}
		n += len(part)
	}
	return n, err
}

// readPart reads within a granule.
func (k *past) readPart(p []byte, off int64) error {
	g := off / pastGranule
	lock := k.lock(g)
	lock.Lock()
	defer lock.Unlock()
	if g < k.given.Load() {
		return fmt.Errorf("byte %d was read already, and is not kept", off)
	}
	from := clone.File(k.live)
	if k.saved.has(g) {
		k.spareMu.Lock()
		if k.spare != nil {
			from = k.spare
		} else { // nothing but zeros was saved so far
			from = nil
		}
		k.spareMu.Unlock()
	}
	var err error
	if from == nil {
		clear(p)
	} else {
		err = clone.ReadFull(from, p, off)
	}
	// After it was read: whoever gave the view up did so before he wrote.
	if lost := k.view.Lost(); lost != nil {
		return lost
	}
	return err
}

// give lets go of what was read, all up to end: nobody need save it any more.
func (k *past) give(end int64) {
	if end == k.size {
		end += pastGranule - 1
	}
	k.given.Store(end / pastGranule)
}

// Extent says whether off lies in data or in a hole. What was saved is called data.
func (k *past) Extent(off int64) (data bool, end int64, err error) {
	data, end, err = k.live.Extent(off)
	if end = min(end, k.size); err != nil || data || end <= off {
		return data, end, err
	}
	// Asked after the file was: whoever has made this hole had saved what was there.
	g := off / pastGranule
	switch next := k.saved.next(g, (end+pastGranule-1)/pastGranule); {
	case next == g:
		return true, min((g+1)*pastGranule, k.size), nil
	default:
		return false, min(end, next*pastGranule), nil
	}
}

// Size is the file's size at that moment.
func (k *past) Size() (int64, error) { return k.size, nil }

// Resident and Cached promise nothing: what the page cache has may be newer.
func (k *past) Resident([]byte, int64) bool { return false }

// Cached is never true.
func (k *past) Cached(int64, int64) (int, bool) { return 0, false }

// errPast is for whoever would write to what was.
var errPast = errors.New("what a file held at a moment that is past cannot be changed")

func (k *past) WriteAt([]byte, int64) (int, error) { return 0, errPast }
func (k *past) Punch(int64, int64) error           { return errPast }
func (k *past) Truncate(int64) error               { return errPast }
func (k *past) Sync() error                        { return errPast }

// Close ends the view of this file.
func (k *past) Close() error {
	k.tap.remove(k)
	k.spareMu.Lock()
	defer k.spareMu.Unlock()
	var err error
	if k.spare != nil {
		err = k.spare.Close()
		k.spare = nil
	}
	return errors.Join(err, k.tap.Close())
}

// empty gives the room back that the saved bytes take.
func (k *past) empty() error {
	k.tap.remove(k)
	k.spareMu.Lock()
	defer k.spareMu.Unlock()
	if k.spare == nil {
		return nil
	}
	return k.spare.Truncate(0)
}

// passing reads a file of a view once, from its beginning to its end, and lets go
// of what it has read.
type passing struct {
	*past
	ctx context.Context
	at  int64
}

func (r *passing) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.ReadAt(p, r.at)
	r.at += int64(n)
	r.give(r.at)
	if n > 0 && r.at == r.size { // whoever takes the rest of a backup may be slow
		if err := r.empty(); err != nil {
			return n, err
		}
	}
	return n, err
}
