package volume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// shared is one open volume: the one chain of layers under all of its handles.
type shared struct {
	pool       *Pool
	id         store.VolumeID
	blockSize  int64
	generation int64

	// cur is what the bytes lie in now. A change of the layers puts another in
	// its place.
	cur atomic.Pointer[opened]
	// still is held for reading by writers, and alone by a change of the layers.
	still    sync.RWMutex
	draining sync.WaitGroup // former values of cur that are still used

	name     atomic.Pointer[string]
	revision int64 // of the row that name and readOnly are from; under pool.mu
	readOnly atomic.Bool
	size     atomic.Int64
	broken   atomic.Pointer[store.Error] // a flush failed
	damaged  atomic.Pointer[store.Error] // a map is damaged
	unread   atomic.Bool                 // a read error was told
	written  atomic.Bool                 // something was written since the last flush began
	fenced   atomic.Bool                 // its layers were taken from the volume

	opening bool          // cur is not there yet; under pool.mu
	opened  chan struct{} // closed when opening has ended
	top     store.LayerID // of cur; under pool.mu
	moving  store.LayerID // what top becomes at this moment; under pool.mu
	frozen  bool          // its top never changes; under pool.mu
	refs    int           // handles; under pool.mu
	closing bool          // nobody may enter any more; under pool.mu
	closed  chan struct{} // closed when the layers are

	growMu sync.Mutex
	grown  chan struct{} // closed at the next growth

	turn    chan struct{} // holds one token while a flush is under way
	roundMu sync.Mutex
	next    *round // the round that still takes callers
}

// round is one flush and those who wait for it.
type round struct {
	done chan struct{}
	err  error
}

// gate counts the operations under way, so that a file is closed after the
// last of them and never under one: its descriptor's number could be another
// file's by then.
type gate struct {
	n    atomic.Int64
	once sync.Once
	idle chan struct{}
}

const gateShut = int64(1) << 62

func (g *gate) enter() bool {
	if g.n.Add(1)&gateShut != 0 {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.n.Add(-1) == gateShut {
		g.once.Do(func() { close(g.idle) })
	}
}

// refuse refuses new operations.
func (g *gate) refuse() {
	if g.n.Or(gateShut)&^gateShut == 0 {
		g.once.Do(func() { close(g.idle) })
	}
}

// shut refuses new operations and waits for those under way.
func (g *gate) shut() {
	g.refuse()
	<-g.idle
}

// opened is what a volume's bytes lie in between two changes of its layers.
// Operations enter it, and what it alone needs is closed after the last of them.
type opened struct {
	top  *layer
	gate gate
}

func newOpened(top *layer) *opened {
	o := &opened{top: top}
	o.gate.idle = make(chan struct{})
	return o
}

// Return ends a loan of Handle.Lend.
func (o *opened) Return() { o.gate.leave() }

// enter enters what the bytes lie in now. It fails when the volume is closed or
// fenced; then o is the last there was.
func (s *shared) enter() (o *opened, ok bool) {
	for o = s.cur.Load(); !o.gate.enter(); {
		next := s.cur.Load()
		if next == o {
			return o, false
		}
		o = next
	}
	return o, true
}

// begin admits an operation on n bytes at off; the caller must leave the gate of
// what is returned when err is nil.
func (s *shared) begin(ctx context.Context, off, n int64) (*opened, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, ok := s.enter()
	if !ok {
		if s.fenced.Load() {
			return nil, fencedError(*s.name.Load())
		}
		return nil, closedError(*s.name.Load())
	}
	if size := s.size.Load(); off < 0 || n < 0 || n > size || off > size-n {
		o.gate.leave()
		return nil, boundsError(*s.name.Load(), off, n, size)
	}
	return o, nil
}

func (s *shared) writable() error {
	if e := s.broken.Load(); e != nil {
		return lostWriteError(e)
	}
	if e := s.damaged.Load(); e != nil {
		return lostWriteError(e)
	}
	if s.readOnly.Load() || !s.cur.Load().top.write {
		return readOnlyError(*s.name.Load())
	}
	return nil
}

// harmed takes note of a damaged map, of which err may speak, and tells it once:
// from then on the volume is read-only.
func (s *shared) harmed(err error) {
	var d *clone.DamageError
	if !errors.As(err, &d) {
		return
	}
	name := *s.name.Load()
	e := damageError(name, d)
	if s.damaged.CompareAndSwap(nil, e) {
		s.pool.tell(s, e)
	}
}

// wrote notes a write that has returned: a flush that begins from now on is the
// first that surely has it.
func (s *shared) wrote() {
	if !s.written.Load() {
		s.written.Store(true)
	}
}

func (s *shared) readFailed(err error) error {
	s.harmed(err)
	err = fault("read volume", *s.name.Load(), err)
	if store.KindOf(err) == store.KindCorrupt && s.damaged.Load() == nil && !s.unread.Swap(true) {
		s.pool.tell(s, err)
	}
	return err
}

// sync joins the next flush. Whoever opens a round runs it; callers that come
// while it waits for the one before share its result, callers that come later
// are in the next, since their writes may be too late for this one.
func (s *shared) sync(ctx context.Context) error {
	s.roundMu.Lock()
	r, lead := s.next, false
	if r == nil {
		r, lead = &round{done: make(chan struct{})}, true
		s.next = r
	}
	s.roundMu.Unlock()
	if !lead {
		select {
		case <-r.done:
			return r.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.turn <- struct{}{}
	s.roundMu.Lock()
	s.next = nil
	s.roundMu.Unlock()
	// Writes that returned before are in these layers, or were made durable when
	// these were put in the place of others. When nobody may enter any more, they
	// stay as long as our caller's own operation is under way.
	o, ok := s.enter()
	r.err = s.flush(o)
	if ok {
		o.gate.leave()
	}
	<-s.turn
	close(r.done)
	return r.err
}

func (s *shared) flush(o *opened) error {
	if e := s.broken.Load(); e != nil {
		return e
	}
	s.written.Store(false)
	err := o.top.f.Sync()
	if err == nil {
		return nil
	}
	name := *s.name.Load()
	if c := o.top.overlay(); c != nil && c.Lost() == nil {
		s.written.Store(true) // nothing is lost, and the next flush tries again
		return fault("flush volume", name, err)
	}
	e := lostError(name, err)
	s.broken.Store(e)
	s.pool.markBroken(s.id, e)
	s.pool.tell(s, e)
	// A full disk at the flush (delayed allocation, thin provisioning) lost
	// data like any other error: it is no longer a condition that passes.
	return e
}

// erase makes a range read zero.
func (s *shared) erase(ctx context.Context, f file, off, n int64) error {
	if n == 0 {
		return nil
	}
	err := f.Punch(off, n)
	if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := min(n, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:c], off); err != nil {
			return err
		}
		off, n = off+c, n-c
	}
	return nil
}

// zeros is what is written where holes cannot be punched, and what source
// bytes are compared with.
var zeros [64 << 10]byte

// status is Extent in whole logical blocks: a block counts as a hole only when
// all of it is one.
func (s *shared) status(f file, off, n int64) (mapped bool, run int64, err error) {
	data, end, err := f.Extent(off)
	if err != nil {
		return false, 0, err
	}
	run = min(end-off, n)
	if part := run % s.blockSize; part != 0 && run < n {
		if data {
			run = min(run+s.blockSize-part, n)
		} else if run -= part; run == 0 {
			return true, min(s.blockSize, n), nil
		}
	}
	return data, run, nil
}

func (s *shared) grow(size int64) {
	s.growMu.Lock()
	defer s.growMu.Unlock()
	if size <= s.size.Load() {
		return
	}
	s.size.Store(size)
	close(s.grown)
	s.grown = make(chan struct{})
}

func (s *shared) sized() <-chan struct{} {
	s.growMu.Lock()
	defer s.growMu.Unlock()
	return s.grown
}
