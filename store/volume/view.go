package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// View is a volume as it was at one moment, while machines write to it. It is
// crash-consistent: what a machine would find after a power cut at that moment,
// all that it had flushed and perhaps more.
//
// What is written over afterwards is saved first, in files without a name in the
// volume folder, and read from there. That takes room, and when there is none, or
// saving fails otherwise, the view is given up: from then on it reads nothing, and
// the machine's write goes on as if there had been none. Growing, snapshots, a
// reset and the removal of the volume change nothing that a view reads; it keeps
// the files of then open.
type View struct {
	pool   *Pool
	volume store.VolumeID
	name   string
	f      func() (file, error) // reads as the volume did
	size   int64
	// remains allows that the volume's flush has failed.
	remains bool
	mu      sync.Mutex // to add files, while others may give the view up
	files   []*past
	names   []string // of files
	handle  *Handle  // of layers without an id, which nobody shares; nil otherwise

	ended bool     // under pool.mu
	holds []*layer // under pool.mu: all that it reads from, which stays open

	lost atomic.Pointer[store.Error]
	kept atomic.Int64 // bytes that were saved
}

// View takes a view of a volume at a moment when all that was acknowledged is
// flushed and nothing is written; writes wait for that flush.
func (p *Pool) View(ctx context.Context, v store.Volume) (*View, error) {
	return p.view(ctx, v, false)
}

// Remains is View, also of a volume of which a flush has failed. A view needs that
// flush, since it promises what a machine had flushed. This one promises nothing of
// it: it reads what can be read, of the disk and of the memory that a restart empties,
// while nobody can write to the volume.
func (p *Pool) Remains(ctx context.Context, v store.Volume) (*View, error) {
	return p.view(ctx, v, true)
}

func (p *Pool) view(ctx context.Context, v store.Volume, remains bool) (*View, error) {
	h, err := p.Open(ctx, v)
	if err != nil {
		return nil, err
	}
	w := &View{pool: p, volume: v.ID, name: v.Name, remains: remains}
	err = w.open(ctx, h, v)
	if w.handle == nil {
		err = errors.Join(err, h.Close())
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *View) open(ctx context.Context, h *Handle, v store.Volume) error {
	flush := func(ctx context.Context) error {
		err := h.Sync(ctx)
		if err != nil && w.remains && h.s.broken.Load() != nil {
			return nil
		}
		return err
	}
	if err := flush(ctx); err != nil { // most of it while machines still write
		return err
	}
	h.s.still.Lock()
	defer h.s.still.Unlock()
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return err
	}
	defer o.gate.leave()
	if err := flush(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	if err := w.hold(o.top); err != nil {
		return err
	}
	if o.top.id == 0 {
		w.handle = h // or the next opening would write to another file than is looked at
	}
	w.size = h.s.size.Load()
	if h.s.broken.Load() != nil {
		// Nobody writes, and the map of a clone is newer in memory than in its file.
		w.reads(o.top.f)
		return nil
	}
	return fault("take a view of volume", v.Name, w.take(o.top, v))
}

// hold keeps the layers open.
func (w *View) hold(top *layer) error {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return closedError(w.name)
	}
	for l := top; l != nil; l = l.below.Load() {
		l.refs++
		w.holds = append(w.holds, l)
	}
	p.views[w] = true
	return nil
}

// take begins to save what is written over, if anybody can write.
func (w *View) take(top *layer, v store.Volume) error {
	o := top.overlay()
	if o == nil {
		w.reads(top.f)
		if t := tapOf(top.f); t != nil {
			w.reads(w.begin(t, top.name, w.size))
		}
		return nil
	}
	data, states := o.Files()
	if tapOf(data) == nil || tapOf(states) == nil {
		w.reads(top.f)
		return nil
	}
	chain := w.pool.layersOf(v)
	row := chain[len(chain)-1]
	if row.ID != top.id || len(chain) < 2 {
		return staleError(v.Name)
	}
	var then, thenStates *past
	err := o.Between(func() error {
		n, err := states.Size()
		if err != nil {
			return err
		}
		// The map first: what flattens the layer writes at any time, and a granule
		// of which the map says that it is here must be.
		thenStates = w.begin(tapOf(states), top.name+mapSuffix, n)
		then = w.begin(tapOf(data), top.name, w.size)
		return nil
	})
	if err != nil {
		return err
	}
	row.Size = w.size
	id, below := identity(row, chain[len(chain)-2], v.BlockSize), top.below.Load().f
	w.f = sync.OnceValues(func() (file, error) { // who wants the files alone needs no map in memory
		return clone.Open(then, thenStates, below, id, false)
	})
	return nil
}

func (w *View) reads(f file) { w.f = func() (file, error) { return f, nil } }

func (w *View) begin(t *tapped, name string, size int64) *past {
	k := newPast(w, t, size)
	t.add(k)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files, w.names = append(w.files, k), append(w.names, name)
	return k
}

// counts counts what is saved, and ends that while there is still room for the
// machines that run.
func (w *View) counts(n int64) error {
	if now := w.kept.Add(n); now/flushEvery == (now-n)/flushEvery {
		return nil
	}
	free, err := w.pool.Free()
	if err == nil && free < keepFree {
		err = fmt.Errorf("only %s are free in the file system that holds the volumes, and machines that run need them", store.Bytes(free))
	}
	return err
}

// unsaved ends a view for which something could not be saved.
func (w *View) unsaved(why error) {
	e := &store.Error{Err: why, Msg: "a machine writes to it, and what it writes over could not be saved for the copy; the machine goes on, and the copy is void"}
	if noSpace(why) {
		e.Field, e.Cause = SpaceField, store.CauseFull
	}
	w.giveUp(e)
}

// giveUp ends a view that cannot go on. The room that it took is free again.
func (w *View) giveUp(e *store.Error) {
	e.Kind, e.Op, e.Subject = store.KindUnavailable, "read volume as it was", w.name
	if !w.lost.CompareAndSwap(nil, e) {
		return
	}
	w.mu.Lock()
	files := slices.Clone(w.files) // what is still added sees that the view is lost
	w.mu.Unlock()
	for _, k := range files {
		if err := k.empty(); err != nil {
			w.pool.log.Warn("the room that the copy of a volume took is free only when the copy ends", "volume", w.name, "err", err)
		}
	}
	w.pool.log.Warn("the copy of a volume that is in use is given up", "volume", w.name, "err", e)
}

// Lost says why the view was given up, nil while it holds. What was read before is
// of the view's moment.
func (w *View) Lost() error {
	if e := w.lost.Load(); e != nil {
		return e
	}
	return nil
}

// GiveUp ends the views of a volume that is being wiped: what it held is not to be
// in any copy.
func (p *Pool) GiveUp(id store.VolumeID) {
	p.mu.Lock()
	var of []*View
	for w := range p.views {
		if w.volume == id {
			of = append(of, w)
		}
	}
	p.mu.Unlock()
	for _, w := range of {
		w.giveUp(&store.Error{Msg: "a machine is wiping it, so what it held is not copied any more"})
	}
}

// Size is the volume's size in bytes.
func (w *View) Size() int64 { return w.size }

// ReadAt is io.ReaderAt.
func (w *View) ReadAt(p []byte, off int64) (int, error) {
	var end error
	if left := w.size - off; int64(len(p)) > left {
		p, end = p[:max(left, 0)], io.EOF
	}
	if len(p) == 0 {
		return 0, end
	}
	f, err := w.f()
	if err == nil {
		err = clone.ReadFull(f, p, off)
	}
	if err != nil {
		return 0, w.fault(err)
	}
	return len(p), end
}

// Extent reports whether the volume held bytes at off, and the end of the run that
// begins there; what it did not hold reads as zeros.
func (w *View) Extent(off int64) (data bool, end int64, err error) {
	f, err := w.f()
	if err == nil {
		data, end, err = f.Extent(off)
	}
	if err != nil {
		return false, 0, w.fault(err)
	}
	return data, min(end, w.size), nil
}

func (w *View) fault(err error) error {
	if lost := w.Lost(); lost != nil {
		return lost
	}
	return fault("read volume", w.name, err)
}

// ViewFile is a file of the volume folder as it was, to be read once from its
// beginning to its end.
type ViewFile struct {
	Name string
	Size int64
	io.Reader
}

// Files are those that the volume's machines may write to, to be read until ctx
// ends; none when there are no such. Together they are of the view's moment. What
// was read from one is not saved any more, so the view itself reads no longer.
func (w *View) Files(ctx context.Context) []ViewFile {
	var out []ViewFile
	for n, k := range w.files {
		out = append(out, ViewFile{w.names[n], k.size, &passing{past: k, ctx: ctx}})
	}
	return out
}

// Close ends the view.
func (w *View) Close() error {
	p := w.pool
	p.mu.Lock()
	if w.ended {
		p.mu.Unlock()
		return nil
	}
	w.ended = true
	p.mu.Unlock()
	// Nothing is saved any more.
	w.lost.CompareAndSwap(nil, &store.Error{Kind: store.KindUnavailable, Op: "read volume as it was", Subject: w.name, Msg: "the copy has ended"})
	var err error
	for _, k := range w.files {
		err = errors.Join(err, k.Close())
	}
	p.mu.Lock()
	delete(p.views, w)
	holds := w.holds
	p.mu.Unlock()
	for _, l := range holds {
		err = errors.Join(err, p.drop(l))
	}
	if w.handle != nil {
		err = errors.Join(err, w.handle.Close())
	}
	return fault("close volume", w.name, err)
}
