package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lunboot/store"
	"lunboot/store/volume/clone"
)

// Merge puts the layers of a volume from first up to last, which never change, in
// the place of last, as one: whoever looks through it has fewer to look through.
// next names its files; commit writes the rows, which give last the files of next
// and what first stands on. Machines read and write meanwhile, and go on on the
// merged layer; the files of before are closed when the last of those who read
// them then has ended. Nobody writes to what is merged, and it reads the same, so
// that there is no moment at which anybody must wait.
func (p *Pool) Merge(ctx context.Context, v store.Volume, first, last store.LayerID, next store.Layer, progress func(done, total int64), commit func() error) error {
	chain := p.layersOf(v)
	from, to := indexOf(chain, first), indexOf(chain, last)
	if from < 1 || to <= from {
		return store.Conflict("layers", "volume %s has other layers by now", v.Name)
	}
	for _, row := range chain[from : to+1] {
		if row.Kind != store.LayerOverlay || !row.Frozen {
			return store.Conflict("layers", "the layer %s of volume %s can still be written", row.Path, v.Name)
		}
	}
	base, err := p.hold(v, chain[:from])
	if err != nil {
		return fault("merge layers", v.Name, err)
	}
	old, err := p.hold(v, chain[:to+1])
	if err != nil {
		return errors.Join(fault("merge layers", v.Name, err), p.drop(base))
	}
	row := chain[to]
	row.Path, row.Below = next.Path, chain[from-1].ID
	m := merging{pool: p, v: v, base: base, old: old, row: row, under: chain[from-1], depth: to - from}
	if err := m.fill(ctx, progress); err != nil {
		err = errors.Join(fault("merge layers", v.Name, err), p.drop(old), p.drop(base))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	f, _, err := p.openOver(base.f, row, m.under, v, nil)
	if err != nil {
		return errors.Join(fault("merge layers", v.Name, err), p.drop(old), p.drop(base))
	}
	p.mu.Lock()
	p.merged[last] = append(slices.Clone(chain[:from]), row) // who reads the new row before we hear of it means this one
	p.mu.Unlock()
	if err := commit(); err != nil {
		p.mu.Lock()
		delete(p.merged, last) // the row tells the truth, whatever became of it
		p.mu.Unlock()
		return errors.Join(err, f.Close(), p.drop(old), p.drop(base))
	}
	l := &layer{id: last, name: row.Path, f: f, refs: 1, ready: old.ready, closed: make(chan struct{})}
	l.below.Store(base)
	m.put(l)
	return fault("merge layers", v.Name, p.drop(l))
}

func indexOf(chain []store.Layer, id store.LayerID) int {
	return slices.IndexFunc(chain, func(l store.Layer) bool { return l.ID == id })
}

// merging is one merge under way.
type merging struct {
	pool      *Pool
	v         store.Volume
	base, old *layer // what it stands on, and the uppermost of those that are merged
	row       store.Layer
	under     store.Layer // the row of base
	depth     int         // of the lowermost that is merged, below old
}

// fill makes the files. When it returns nil they survive a power cut.
func (m *merging) fill(ctx context.Context, progress func(done, total int64)) error {
	p := m.pool
	upper, lower := m.old.overlay(), m.old.overlay()
	for l, n := m.old, m.depth; n > 0; n-- {
		l = l.below.Load()
		lower = l.overlay()
	}
	if upper == nil || lower == nil {
		return fmt.Errorf("the layers below %s hold everything already", m.old.name)
	}
	data, err := p.files.Create(m.row.Path)
	if err != nil {
		return err
	}
	file, err := p.files.Create(m.row.Path + mapSuffix)
	if err != nil {
		return errors.Join(err, data.Close())
	}
	id := identity(m.row, m.under, m.v.BlockSize)
	if err := clone.Create(data, file, id); err != nil {
		return errors.Join(err, data.Close(), file.Close())
	}
	l, err := clone.Open(data, file, m.base.f, id, true)
	if err != nil {
		return errors.Join(err, data.Close(), file.Close())
	}
	err = clone.Merge(ctx, l, upper, lower, progress, func() error { return p.spare("merge layers", m.v.Name) })
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	return p.files.Sync()
}

// put lets all that stands on the old layer stand on the merged one, and closes
// the old one when nobody reads it any more.
func (m *merging) put(l *layer) {
	p := m.pool
	p.mu.Lock()
	if p.closed { // all else ends without us
		p.mu.Unlock()
		m.drop(1)
		return
	}
	defer p.mu.Unlock()
	moved := map[*layer]bool{}
	p.layers[l.id] = l
	for _, above := range p.layers {
		if above.below.Load() != m.old || above.refs == 0 {
			continue
		}
		moved[above] = true
		above.below.Store(l)
		above.overlay().Rest(l.f)
		l.refs++
	}
	// A view reads through what it has found, and what that has come to stand on.
	for w := range p.views {
		if slices.Contains(w.holds, m.old) {
			w.holds = append(w.holds, l)
			l.refs++
		}
	}
	var readers []<-chan struct{}
	for _, s := range p.using(moved) {
		if s.closing {
			readers = append(readers, s.closed)
			continue
		}
		s.replace(newOpened(s.cur.Load().top), func() {})
	}
	// With those who have been leaving since an earlier change of layers: through
	// what lay above they come here as well.
	for left := range p.leaving {
		readers = append(readers, left)
	}
	p.ends.Go(func() {
		for _, left := range readers {
			<-left
		}
		m.drop(len(moved) + 1)
	})
}

// drop lets go of the old layer.
func (m *merging) drop(holds int) {
	for range holds {
		if err := m.pool.drop(m.old); err != nil {
			m.pool.log.Warn("close layers that were merged", "volume", m.v.Name, "err", err)
		}
	}
}

// using are the open volumes that look through one of some layers. p.mu is held.
func (p *Pool) using(some map[*layer]bool) (out []*shared) {
	add := func(s *shared) {
		o := s.cur.Load()
		if o == nil {
			return // it is just being opened and has read nothing
		}
		for l := o.top; l != nil; l = l.below.Load() {
			if some[l] {
				out = append(out, s)
				return
			}
		}
	}
	for _, s := range p.open {
		add(s)
	}
	for s := range p.former {
		add(s)
	}
	return out
}
