package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

const (
	lockName     = ".lock"
	importSuffix = ".import" // of a file that is being filled, or is to have no name
	// releaseWait is how long Remove waits for sessions that are just letting
	// go of a volume whose mapping was taken away.
	releaseWait = 5 * time.Second
)

// Pool is the only opener of volumes.
type Pool struct {
	files files
	lock  *os.File
	log   *slog.Logger

	mu         sync.Mutex
	open       map[store.VolumeID]*shared
	former     map[*shared]bool // of which the volume has other layers by now
	layers     map[store.LayerID]*layer
	tops       map[store.VolumeID]top
	merged     map[store.LayerID][]store.Layer // with what they stand on, as of now
	broken     map[store.VolumeID]*store.Error // outlives the handles: a flush failed
	faults     map[store.VolumeID]Fault        // what was told and is still so
	held       map[store.VolumeID]bool         // being removed: no new handles
	views      map[*View]bool
	generation int64
	closed     bool
	unsettled  map[string]bool // marks of volatile layers that could not be made durable
	boot       string          // of the machine that we run on: another one after a crash
	onFault    func(volume, sentence string)

	leaving map[chan struct{}]bool // closed when the last operation has left former layers of a volume
	ends    sync.WaitGroup         // closings behind an answer
	sharing sharing
	looks   looks
	spares  atomic.Int64 // how many files of views were made
}

// top is the newest that is known of a volume's layers: somebody who comes with
// an older row would open what the volume has no more.
type top struct {
	revision int64
	layer    store.LayerID
}

// OpenPool locks dir, makes it when it is missing, and removes what an
// interrupted import or copy left there. A folder that another lunboot holds is
// KindInUse, with the holder's process id.
func OpenPool(dir string, log *slog.Logger) (*Pool, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "open volume folder", Subject: dir, Err: err,
			Msg: "the folder cannot be made; choose another with --data, or mend its owner and mode"}
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	d, err := openFolder(dir)
	if err != nil {
		lock.Close()
		return nil, fault("open volume folder", dir, err)
	}
	p, err := newPool(d, log)
	if err != nil {
		d.Close()
		lock.Close()
		return nil, fault("open volume folder", dir, err)
	}
	p.lock = lock
	return p, nil
}

func newPool(f files, log *slog.Logger) (*Pool, error) {
	p := &Pool{
		files: f, log: log,
		open:   map[store.VolumeID]*shared{},
		former: map[*shared]bool{},
		layers: map[store.LayerID]*layer{},
		tops:   map[store.VolumeID]top{},
		merged: map[store.LayerID][]store.Layer{},
		broken: map[store.VolumeID]*store.Error{},
		faults: map[store.VolumeID]Fault{},
		held:   map[store.VolumeID]bool{},
		views:  map[*View]bool{},

		leaving: map[chan struct{}]bool{},

		boot: thisHost().boot(),

		unsettled: map[string]bool{},
	}
	names, err := f.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, importSuffix) {
			if err := f.Remove(name); err != nil {
				return nil, err
			}
			log.Info("removed what an interrupted import or copy left", "file", name)
		}
	}
	return p, nil
}

// lockFolder takes the lock that flock(2) drops by itself when the holder
// dies, so that a crash leaves nothing to clean up. The file stays: removing it
// would let two holders lock two files of one name.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault("lock volume folder", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault("lock volume folder", dir, err)
		}
		holder := "another lunboot"
		if b, _ := io.ReadAll(io.LimitReader(f, 32)); len(bytes.TrimSpace(b)) > 0 {
			holder += fmt.Sprintf(" (process %s)", bytes.TrimSpace(b))
		}
		return nil, &store.Error{Kind: store.KindInUse, Op: "lock volume folder", Subject: dir, Err: err,
			Msg: holder + " uses this folder; stop it, or choose another with --data"}
	}
	// In place and in as many bytes as before, which needs no room on a full disk.
	// On one where there is no room for the first of them nobody is told a number.
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-15d\n", os.Getpid()), 0); err != nil && !noSpace(err) {
		f.Close()
		return nil, fault("lock volume folder", dir, err)
	}
	return f, nil
}

// Open returns a handle of a volume that is ready.
func (p *Pool) Open(ctx context.Context, v store.Volume) (*Handle, error) {
	if v.State != store.VolumeReady {
		msg := fmt.Sprintf("the volume is %s", v.State)
		if v.Reason != "" {
			msg += ": " + v.Reason
		}
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "open volume", Subject: v.Name, Msg: msg}
	}
	for {
		h, wait, err := p.tryOpen(v)
		if wait == nil {
			return h, err
		}
		select {
		case <-wait: // the last user's flush is under way
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *Pool) tryOpen(v store.Volume) (*Handle, <-chan struct{}, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, nil, closedError(v.Name)
	}
	if p.held[v.ID] {
		p.mu.Unlock()
		return nil, nil, &store.Error{Kind: store.KindUnavailable, Op: "open volume", Subject: v.Name, Msg: "the volume is being removed"}
	}
	s := p.open[v.ID]
	if s != nil && s.outdated(v) {
		p.part(s)
		s = nil
	}
	switch {
	case s == nil:
	case s.closing:
		p.mu.Unlock()
		return nil, s.closed, nil
	case s.opening:
		p.mu.Unlock()
		return nil, s.opened, nil
	default:
		s.refs++
		s.update(v)
		p.mu.Unlock()
		return &Handle{s: s}, nil, nil
	}
	known, layer := p.tops[v.ID], v.TopLayer().ID
	if v.Revision < known.revision && layer != known.layer {
		p.mu.Unlock()
		return nil, nil, staleError(v.Name)
	}
	s = p.announce(v)
	p.mu.Unlock()
	top, err := p.hold(v, p.layersOf(v))
	return p.opened(s, v, top, err)
}

// announce makes the entry of a volume that is about to be opened. Opening reads
// from the disk, and nobody else waits for that.
func (p *Pool) announce(v store.Volume) *shared {
	p.generation++
	s := &shared{
		pool: p, id: v.ID, blockSize: int64(max(v.BlockSize, 512)), generation: p.generation,
		revision: v.Revision, opening: true, opened: make(chan struct{}), closed: make(chan struct{}), grown: make(chan struct{}), turn: make(chan struct{}, 1),
		refs: 1, top: v.TopLayer().ID, frozen: v.TopLayer().Frozen,
	}
	name := v.Name
	s.name.Store(&name)
	s.readOnly.Store(v.ReadOnly)
	s.size.Store(v.Size)
	s.broken.Store(p.broken[v.ID])
	p.open[v.ID] = s
	return s
}

// opened ends the opening of a volume, whose layers are now held or could not be.
func (p *Pool) opened(s *shared, v store.Volume, top *layer, err error) (*Handle, <-chan struct{}, error) {
	if err == nil {
		s.cur.Store(newOpened(top))
		if d := top.damage(); d != nil {
			s.harmed(d)
		}
	}
	p.mu.Lock()
	s.opening = false
	close(s.opened)
	if err != nil {
		p.gone(s)
		p.mu.Unlock()
		close(s.closed)
		p.discarded(v, err)
		return nil, nil, fault("open volume", v.Name, err)
	}
	if s.closing = p.closed || s.fenced.Load(); !s.closing {
		p.well(s)
		p.mu.Unlock()
		return &Handle{s: s}, nil, nil
	}
	p.mu.Unlock()
	err = p.finish(s)
	if s.fenced.Load() {
		return nil, nil, errors.Join(staleError(v.Name), err)
	}
	return nil, nil, errors.Join(closedError(v.Name), err)
}

// gone takes a volume that is closed out of the books. p.mu is held.
func (p *Pool) gone(s *shared) {
	if p.open[s.id] == s {
		delete(p.open, s.id)
	}
	delete(p.former, s)
}

// outdated reports whether a row gives the volume other layers than are open.
func (s *shared) outdated(v store.Volume) bool {
	top := v.TopLayer().ID
	return v.Revision > s.revision && top != s.top && top != s.moving
}

// part takes from a volume what is open of it, since it has other layers by now.
// What never changes may be read on by those who have it open; who could write
// would write to what is no more, and is fenced. p.mu is held.
func (p *Pool) part(s *shared) {
	if p.open[s.id] == s {
		delete(p.open, s.id)
	}
	p.former[s] = true
	if s.frozen || s.closing {
		return
	}
	s.fenced.Store(true)
	if s.opening {
		return // opened sees it
	}
	s.closing = true
	s.cur.Load().gate.refuse()
	p.ends.Go(func() {
		if err := p.finish(s); err != nil {
			p.log.Warn("close layers that a volume has no more", "volume", *s.name.Load(), "err", err)
		}
	})
}

// know remembers which layers a volume has. p.mu is held.
func (p *Pool) know(v store.Volume) {
	if layer := v.TopLayer().ID; layer != 0 && v.Revision >= p.tops[v.ID].revision {
		p.tops[v.ID] = top{v.Revision, layer}
	}
}

// Update tells the handles of a volume that its row changed: the name in
// messages, whether writes are refused, and a larger size. Handles of layers that
// the volume has no more are fenced, unless they can only read.
func (p *Pool) Update(v store.Volume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.know(v)
	if f, ok := p.faults[v.ID]; ok {
		f.Volume = v.Name
		p.faults[v.ID] = f
	}
	s := p.open[v.ID]
	switch {
	case s == nil:
	case s.outdated(v):
		p.part(s)
	default:
		s.update(v)
	}
}

func (s *shared) update(v store.Volume) {
	if v.Revision < s.revision {
		return
	}
	s.revision = v.Revision
	if name := v.Name; name != *s.name.Load() {
		s.name.Store(&name) // not v's, which would move all of v to the heap
	}
	s.readOnly.Store(v.ReadOnly)
	s.frozen = s.frozen || v.TopLayer().Frozen && v.TopLayer().ID == s.top
	s.grow(v.Size) // a row is never larger than its file
}

// Users returns how many handles of a volume are open.
func (p *Pool) Users(id store.VolumeID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.open[id]; s != nil {
		return s.refs
	}
	return 0
}

func (p *Pool) release(s *shared) error {
	p.mu.Lock()
	s.refs--
	if s.refs > 0 || s.closing {
		p.mu.Unlock()
		return nil
	}
	s.closing = true
	p.mu.Unlock()
	return p.finish(s)
}

// finish flushes and closes a volume that nobody can enter any more. What was
// taken from a volume is not worth a flush.
func (p *Pool) finish(s *shared) error {
	o := s.cur.Load()
	o.gate.shut()
	s.draining.Wait()
	var err error
	if o.top.write && s.written.Load() && s.broken.Load() == nil && !s.fenced.Load() {
		err = s.flush(o)
	}
	p.mu.Lock()
	stops := p.closed
	p.mu.Unlock()
	if o.top.lazy != nil && stops && err == nil && !s.fenced.Load() {
		if err = fault("keep volatile volume", *s.name.Load(), o.top.lazy.settle(p.files)); err != nil {
			p.mu.Lock()
			p.unsettled[o.top.lazy.mark] = true
			p.mu.Unlock()
		}
	}
	err = errors.Join(err, fault("close volume", *s.name.Load(), p.drop(o.top)))
	p.mu.Lock()
	p.gone(s)
	p.mu.Unlock()
	close(s.closed)
	return err
}

// Close flushes and closes every volume, then lets go of the folder.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	var mine, others []*shared
	take := func(s *shared) {
		if s.closing || s.opening {
			others = append(others, s)
			return
		}
		s.closing = true
		mine = append(mine, s)
	}
	for _, s := range p.open {
		take(s)
	}
	for s := range p.former {
		take(s)
	}
	views := slices.Collect(maps.Keys(p.views))
	p.mu.Unlock()
	for _, w := range views {
		w.giveUp(&store.Error{Msg: "lunboot is being stopped"})
	}
	var err error
	for _, s := range mine {
		err = errors.Join(err, p.finish(s))
	}
	for _, s := range others {
		<-s.closed
	}
	p.ends.Wait()
	err = errors.Join(err, fault("keep volatile volumes", "", p.settleRest()), p.files.Close())
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// Free is the room for volumes, in bytes.
func (p *Pool) Free() (int64, error) { return p.files.Free() }

// Create makes an empty volume: a sparse file that reads zero. When it returns
// nil the file survives a power cut. A device must exist and be large enough. A
// clone reads as the layer that it stands on, and takes no longer for a large one.
func (p *Pool) Create(ctx context.Context, v store.Volume) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	chain := p.layersOf(v)
	row := chain[len(chain)-1]
	switch {
	case v.Kind == store.VolumeDevice:
		l, err := p.hold(v, chain)
		if err != nil {
			return fault("attach device", v.Name, err)
		}
		return p.drop(l)
	case row.Kind == store.LayerOverlay && len(chain) > 1:
		return p.createOverlay(v, row, chain[len(chain)-2])
	case v.Kind != store.VolumeRaw:
		return store.Invalid("kind", "a volume of kind %q cannot be created", v.Kind)
	}
	f, err := p.files.Create(v.Path)
	if err != nil {
		return fault("create volume", v.Name, err)
	}
	err = errors.Join(f.Truncate(v.Size), f.Sync())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = p.files.Sync()
	}
	if err != nil {
		return fault("create volume", v.Name, errors.Join(err, p.discard(v.Path)))
	}
	return nil
}

// discard removes a file that may be missing.
func (p *Pool) discard(name string) error {
	if err := p.files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.files.Sync()
}

// Remove removes the file of a volume's top layer; a file that is gone already is no error. It
// waits a moment for users that are just letting go, then says KindInUse.
func (p *Pool) Remove(ctx context.Context, v store.Volume) error {
	p.mu.Lock()
	p.held[v.ID] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.held, v.ID)
		p.mu.Unlock()
	}()
	if err := p.awaitClosed(ctx, v); err != nil {
		return err
	}
	chain := layersOf(v)
	if err := p.discardLayer(chain[len(chain)-1]); err != nil {
		return fault("remove volume", v.Name, err)
	}
	p.mu.Lock()
	delete(p.broken, v.ID)
	delete(p.faults, v.ID)
	delete(p.tops, v.ID)
	p.mu.Unlock()
	return nil
}

func (p *Pool) awaitClosed(ctx context.Context, v store.Volume) error {
	p.mu.Lock()
	s := p.open[v.ID]
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	timer := time.NewTimer(releaseWait)
	defer timer.Stop()
	select {
	case <-s.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return &store.Error{Kind: store.KindInUse, Op: "remove volume", Subject: v.Name, Msg: "the volume is open in a session; drop the session first"}
	}
}

// Resize grows a volume: the file first, then commit, which writes the row,
// then every open handle. A power cut or an error of commit leaves a file that
// is longer than its row, which is harmless.
func (p *Pool) Resize(ctx context.Context, v store.Volume, size int64, commit func() error) error {
	if size < v.Size {
		return store.Invalid("size", "a volume can only grow; %s is smaller than its %s", store.Bytes(size), store.Bytes(v.Size))
	}
	h, err := p.Open(ctx, v)
	if err != nil {
		return err
	}
	err = h.growFile(ctx, size, commit)
	return errors.Join(err, h.Close())
}

func (h *Handle) growFile(ctx context.Context, size int64, commit func() error) error {
	h.s.still.RLock()
	defer h.s.still.RUnlock()
	o, err := h.begin(ctx, 0, 0)
	if err != nil {
		return err
	}
	defer o.gate.leave()
	have, err := o.top.f.Size()
	if err == nil && have < size {
		err = o.top.f.Truncate(size) // never a device, which was measured before
	}
	if err != nil {
		return fault("resize volume", *h.s.name.Load(), err)
	}
	if err := h.s.sync(ctx); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	h.s.grow(size)
	return nil
}
