package volume

import (
	"context"
	"errors"
	"slices"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// Snapshot puts next upon the top layer, which is frozen from then on: at a
// moment when all that was acknowledged is on disk and nothing is written. Machines
// go on, on the new layer; their writes wait for a flush and for commit, which
// writes the rows.
func (p *Pool) Snapshot(ctx context.Context, v store.Volume, next store.Layer, commit func() (store.Volume, error)) (err error) {
	chain := p.layersOf(v)
	top := chain[len(chain)-1]
	h, err := p.Open(ctx, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	s := h.s
	if err := p.createOverlay(v, next, top); err != nil {
		return err
	}
	below := s.cur.Load().top // one change of a volume's layers at a time is the caller's to keep
	f, write, err := p.openOver(below.f, next, top, v, nil)
	if err != nil {
		return fault("take snapshot", v.Name, errors.Join(err, p.discardLayer(next)))
	}
	above := &layer{id: next.ID, name: next.Path, f: f, write: write, refs: 1, ready: make(chan struct{}), closed: make(chan struct{})}
	above.below.Store(below)
	close(above.ready)
	if err := h.Sync(ctx); err != nil { // most of it while machines still write
		return errors.Join(err, f.Close())
	}
	s.still.Lock()
	defer s.still.Unlock()
	if err := h.Sync(context.WithoutCancel(ctx)); err != nil {
		return errors.Join(err, f.Close())
	}
	p.mu.Lock()
	s.moving = next.ID // who reads the new row before we hear of it comes to us
	p.mu.Unlock()
	out, err := commit()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.moving = 0
	if err != nil || s.closing {
		// A pool that closes at this moment closes the layer that is frozen by
		// now, which is whole; the next start opens the new one.
		return errors.Join(err, f.Close())
	}
	p.know(out)
	p.layers[above.id] = above
	s.top, s.revision = above.id, max(s.revision, out.Revision)
	s.replace(newOpened(above), func() {})
	return nil
}

// replace puts other layers under the handles, and calls after when the last
// operation has left those of before. pool.mu is held, and s.still where what is
// written must not come between.
func (s *shared) replace(o *opened, after func()) {
	old := s.cur.Swap(o)
	p, left := s.pool, make(chan struct{})
	p.leaving[left] = true
	s.draining.Go(func() {
		old.gate.shut()
		close(left)
		p.mu.Lock()
		delete(p.leaving, left)
		p.mu.Unlock()
		after()
	})
}

// Replace puts next, over the layers below, in the place of the top layer.
// Handles of before are fenced: their next command fails.
func (p *Pool) Replace(ctx context.Context, v store.Volume, next store.Layer, below []store.Layer, commit func() (store.Volume, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(below) == 0 {
		return store.Invalid("below", "the layer %s has nothing to stand on", next.Path)
	}
	if err := p.createOverlay(v, next, below[len(below)-1]); err != nil {
		return err
	}
	out, err := commit()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.know(out)
	if s := p.open[v.ID]; s != nil && s.top != next.ID {
		s.frozen = false // what it was, it is no part of the volume
		p.part(s)
	}
	delete(p.broken, v.ID) // it was of the layer that is gone
	delete(p.faults, v.ID)
	p.looks.forget(v.ID)
	return nil
}

// Flatten copies into the top layer what lies below, while machines use it. What
// was copied when it ends early is not copied again. It ends before it has
// filled the file system.
func (p *Pool) Flatten(ctx context.Context, v store.Volume, progress func(done, total int64), commit func() (store.Volume, error)) (err error) {
	h, err := p.Open(ctx, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	s := h.s
	// It reads what lies below like any other operation, and no merge of layers
	// down there closes them before it has ended.
	in, err := h.begin(ctx, 0, 0)
	if err != nil {
		return err
	}
	old := in.top
	o := old.overlay()
	if o == nil {
		in.gate.leave()
		return store.Conflict("layers", "volume %s stands alone already", v.Name)
	}
	s.wrote()
	err = func() error {
		defer in.gate.leave()
		return o.Flatten(ctx, progress, func() error { return p.spare("flatten volume", v.Name) })
	}()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.harmed(err)
		return fault("flatten volume", v.Name, err)
	}
	// From now on a write and a state of the map must not come apart: while the
	// files are changed over nobody writes.
	s.still.Lock()
	defer s.still.Unlock()
	if err := h.Sync(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	out, err := commit()
	if err != nil {
		return err
	}
	if !p.standAlone(s, old, o, out) {
		return nil // the pool is being closed; the map goes with the layer
	}
	if err := p.discard(old.name + mapSuffix); err != nil {
		p.log.Warn("the map of a volume that stands alone stays until it is removed", "volume", v.Name, "err", err)
	}
	return nil
}

// standAlone puts the data file of a layer, which is whole, in the layer's place.
func (p *Pool) standAlone(s *shared, old *layer, o *clone.Layer, row store.Volume) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.know(row)
	s.revision = max(s.revision, row.Revision)
	if s.closing {
		return false
	}
	alone := &layer{id: old.id, name: old.name, f: o.Keep(), write: true, refs: 1, ready: old.ready, closed: old.closed}
	for w := range p.views { // their files are those of before, and who opens the volume next gets the same
		if n := slices.Index(w.holds, old); n >= 0 {
			w.holds[n] = alone
			alone.refs++
			old.refs--
		}
	}
	p.layers[alone.id] = alone
	s.replace(newOpened(alone), func() {
		if err := errors.Join(o.Close(), p.drop(old.below.Load())); err != nil {
			p.log.Warn("close what a volume stood on", "volume", row.Name, "err", err)
		}
	})
	return true
}

// RemoveLayers removes files of layers; those that are gone already are no
// error. Whoever has one open reads on.
func (p *Pool) RemoveLayers(ctx context.Context, rows []store.Layer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.discardLayer(rows...); err != nil {
		return fault("remove layers", rows[0].Path, err)
	}
	return nil
}

// Used is how many bytes those of the layers of v that are its own take on the
// disk, with their maps.
func (p *Pool) Used(v store.Volume) (total int64, err error) {
	for _, row := range layersOf(v) {
		if row.Volume != 0 && row.Volume != v.ID || row.Kind == store.LayerDevice {
			continue
		}
		for _, name := range []string{row.Path, row.Path + mapSuffix} {
			n, err := p.files.Used(name)
			if err != nil {
				return 0, fault("measure volume", v.Name, err)
			}
			total += n
		}
	}
	return total, nil
}
