package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"lunboot/store"
)

// mergeAgain is how long a merge that failed is not tried again, unless the
// layers change.
const mergeAgain = time.Hour

// errYields ends a merge for an act that wants the volume gone.
var errYields = errors.New("the volume is being removed")

// merges are what acts know of the merge under way: nobody asked for it, and
// nobody is made to wait for it or refused because of it.
type merges struct {
	wake  chan struct{} // something is in grown
	mu    sync.Mutex
	grown map[store.VolumeID]struct{} // may lie in more layers than when the Merger last looked
	of    store.VolumeID              // whose layers are being merged; 0: nobody's
	under *running
}

// stacked says that a volume may have more layers now, or is ready now with those
// that it has. Its row says so already.
func (m *merges) stacked(id store.VolumeID) {
	m.mu.Lock()
	if m.grown == nil {
		m.grown = map[store.VolumeID]struct{}{}
	}
	m.grown[id] = struct{}{}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// taken returns what stacked was called for since it was called last.
func (m *merges) taken() map[store.VolumeID]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	grown := m.grown
	m.grown = nil
	return grown
}

func (m *merges) begin(of store.VolumeID, r *running) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of, m.under = of, r
}

// yield ends the merge of a volume's layers, and returns when what it had made is
// gone.
func (m *merges) yield(id store.VolumeID) {
	m.mu.Lock()
	r := m.under
	if m.of != id {
		r = nil
	}
	m.mu.Unlock()
	if r != nil {
		r.cancel(errYields)
		<-r.done
	}
}

// Merger merges layers of volumes that lie in many, so that a read looks through
// few: a service. It is one job at a time, while machines run and operators act.
type Merger struct {
	inv   *Inventory
	every time.Duration
	// due is what is to be looked at: what acts put layers upon, so that a look
	// costs as much as they did, and not as much as there are volumes.
	due map[store.VolumeID]struct{}
	all bool // every volume is: nobody said what happened before
	// given is what could not be merged: not again before its layers change, or
	// the time has come.
	given map[store.VolumeID]givenUp
}

type givenUp struct {
	layers string
	until  time.Time // zero: for good
}

// NewMerger makes a Merger.
func NewMerger(i *Inventory) *Merger {
	return &Merger{inv: i, every: mergeAgain, all: true, due: map[store.VolumeID]struct{}{}, given: map[store.VolumeID]givenUp{}}
}

// String names the service.
func (m *Merger) String() string { return "merging of layers" }

// Listen binds nothing.
func (m *Merger) Listen() error { return nil }

// Serve merges what is long until ctx ends. A merge that this ends is begun
// again by the next Serve.
func (m *Merger) Serve(ctx context.Context) error {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	m.all = true
	for {
		m.settle(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-m.inv.merges.wake:
		case <-tick.C:
			m.all = true
		}
	}
}

// settle merges until nothing is long that can be merged.
func (m *Merger) settle(ctx context.Context) {
	for ctx.Err() == nil {
		p, err := m.plan(ctx)
		if err != nil && ctx.Err() == nil {
			m.inv.log.Warn("whether layers are to be merged is not known", "err", err)
		}
		if err != nil || p == nil {
			return
		}
		if err := m.merge(ctx, p); err != nil && ctx.Err() == nil {
			m.inv.log.Warn("the merge of layers was not begun", "volume", p.owner.Name, "err", err)
			return
		}
	}
}

// mergePlan is a run of one volume's layers that are to become one.
type mergePlan struct {
	v     store.Volume  // that is long
	owner store.Volume  // of the layers
	run   []store.Layer // bottom to top
	below store.LayerID // what they stand on
	room  int64         // bytes that are kept twice afterwards
	work  int64         // bytes that are copied
}

// plan finds the next merge: the one that takes the least room, then the least
// work, of a volume that lies in too many layers.
func (m *Merger) plan(ctx context.Context) (*mergePlan, error) {
	i := m.inv
	if i.layers == nil {
		return nil, nil
	}
	if err := m.gather(ctx); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(m.due)) {
		v, err := i.db.Volume(ctx, id)
		if err != nil && !store.IsNotFound(err) {
			return nil, err
		}
		if err != nil || len(v.Layers) <= store.LongChain {
			delete(m.given, id)
			delete(m.due, id)
			continue
		}
		// One that is half-made is looked at when it is ready.
		if v.State == store.VolumeReady && !m.gaveUp(v) {
			p, err := i.cheapest(ctx, v)
			if store.IsNotFound(err) {
				continue // removed meanwhile: the next look finds it gone
			}
			if err != nil || p != nil {
				return p, err // it stays due: more of it may be to merge
			}
			m.giveUp(v, time.Time{}) // what is in between is nobody's to merge
		}
		delete(m.due, id)
	}
	return nil, nil
}

// gather adds to what is due: what grew, what was given up for a time that is over
// and, when nobody knows what happened, every volume that is long.
func (m *Merger) gather(ctx context.Context) error {
	maps.Copy(m.due, m.inv.merges.taken())
	for id, g := range m.given {
		if !g.until.IsZero() && !m.inv.now().Before(g.until) {
			m.due[id] = struct{}{}
		}
	}
	if !m.all {
		return nil
	}
	all, err := m.inv.db.Volumes(ctx)
	if err != nil {
		return err
	}
	long := map[store.VolumeID]struct{}{}
	for _, v := range all {
		if len(v.Layers) > store.LongChain {
			long[v.ID] = struct{}{}
		}
	}
	maps.Copy(m.due, long)
	maps.DeleteFunc(m.given, func(id store.VolumeID, _ givenUp) bool {
		_, still := long[id]
		return !still
	})
	m.all = false
	return nil
}

// cheapest is the run of a volume's layers that is merged at the least cost: the
// longest that is needed. Nil when there is none.
func (i *Inventory) cheapest(ctx context.Context, v store.Volume) (best *mergePlan, err error) {
	chain := v.Layers
	named, err := i.db.LayerNamings(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	size := map[store.LayerID]int64{}
	for _, l := range chain {
		n, err := i.layers.Used(store.Volume{ID: l.Volume, Name: v.Name, Layers: []store.Layer{l}})
		if err == nil {
			size[l.ID] = n
		}
	}
	for n := len(chain) - store.MergedChain + 1; n > 1 && best == nil; n-- {
		for from := 1; from+n < len(chain); from++ {
			p := &mergePlan{v: v, run: chain[from : from+n], below: chain[from-1].ID}
			last := p.run[n-1]
			fits := named[last.ID].Tops == 0
			for _, l := range p.run {
				fits = fits && l.Kind == store.LayerOverlay && l.Frozen && l.Volume == last.Volume
				p.work += size[l.ID]
				if n := named[l.ID]; l.ID != last.ID && n.Tops+n.Others > 1 { // it stays beside the merged one
					p.room += size[l.ID]
				}
			}
			if fits && (best == nil || p.room < best.room || p.room == best.room && p.work < best.work) {
				best = p
			}
		}
	}
	if best != nil {
		best.owner, err = i.db.Volume(ctx, best.run[0].Volume)
	}
	return best, err
}

// merge is one job.
func (m *Merger) merge(ctx context.Context, p *mergePlan) error {
	i := m.inv
	if err := i.jobs.room(); err != nil {
		return err
	}
	settle := context.WithoutCancel(ctx)
	job, err := i.db.CreateJob(settle, store.Job{Kind: "volume.merge", Subject: p.owner.Name, State: store.JobRunning, Total: p.v.Size, Started: i.now()})
	if err != nil {
		return err
	}
	work, r := i.jobs.start(ctx, job.ID)
	defer i.jobs.finish(job.ID)
	i.merges.begin(p.owner.ID, r)
	defer i.merges.begin(0, nil)
	err = i.jobs.acquire(work)
	row := job
	if err == nil {
		err = i.guard("merge of layers of volume "+p.owner.Name, func() error { return i.carryOut(work, p, i.progressOf(work, &row)) })
		i.jobs.release()
	}
	cause := context.Cause(work)
	switch {
	case err == nil:
		// Others that were given up may stand on what is one layer now.
		for id := range m.given {
			m.due[id] = struct{}{}
		}
	case ctx.Err() != nil, errors.Is(cause, errStopping), errors.Is(cause, errYields):
	case errors.Is(cause, errCanceled):
		m.giveUp(p.v, time.Time{})
	default:
		m.giveUp(p.v, i.now().Add(m.every))
	}
	i.jobs.outcome(&row, r, cause, err)
	if row.State == store.JobFailed && errors.Is(cause, context.Canceled) {
		row.Error = "lunboot was stopped before the job ended; it begins again at the next start"
	} else if errors.Is(cause, errYields) {
		row.Error = errYields.Error()
	} else if row.State == store.JobFailed {
		i.log.Warn("a job failed", "job", job.ID, "kind", job.Kind, "volume", p.owner.Name, "err", err)
	}
	i.endJob(settle, row)
	return nil
}

// carryOut makes the files of the merged layer, changes the rows over to it and
// removes what nothing names any more.
func (i *Inventory) carryOut(ctx context.Context, p *mergePlan, progress func(done, total int64)) error {
	// An act that removes the volume marks it before it looks for us.
	v, err := i.db.Volume(ctx, p.owner.ID)
	if err != nil {
		return err
	}
	if err := settled(v); err != nil {
		return err
	}
	free, err := i.volumes.Free()
	if err != nil {
		return err
	}
	if p.work > free-scratchRoom && !i.layers.Shares(store.Volume{ID: v.ID, Name: v.Name, Layers: p.run}) {
		return &store.Error{Kind: store.KindUnavailable, Op: "merge layers", Subject: v.Name, Field: "space",
			Msg: fmt.Sprintf("the merge of %d layers needs up to %s, and %s are free for volumes, of which %s are kept for machines that run; make room, or remove snapshots that nobody needs", len(p.run), store.Bytes(p.work), store.Bytes(free), store.Bytes(scratchRoom))}
	}
	next, undo, err := i.newLayer(ctx, store.NewLayer(v, p.below))
	if err != nil {
		return err
	}
	first, last := p.run[0], p.run[len(p.run)-1]
	err = i.layers.Merge(ctx, p.v, first.ID, last.ID, next, progress, func() error {
		return i.db.MergeLayers(context.WithoutCancel(ctx), first.ID, last.ID, next.ID)
	})
	if err != nil {
		undo()
		return err
	}
	// Behind the job's end, for which an act that removes the volume waits.
	i.discard(store.Volume{ID: v.ID, Name: v.Name, Layers: append(slices.Clone(p.run), next)})
	return nil
}

// layersAre tells one chain from another.
func layersAre(v store.Volume) string {
	var b strings.Builder
	for _, l := range v.Layers {
		fmt.Fprint(&b, l.ID, l.Path, " ")
	}
	return b.String()
}

func (m *Merger) gaveUp(v store.Volume) bool {
	g, ok := m.given[v.ID]
	return ok && g.layers == layersAre(v) && (g.until.IsZero() || m.inv.now().Before(g.until))
}

func (m *Merger) giveUp(v store.Volume, until time.Time) {
	m.given[v.ID] = givenUp{layersAre(v), until}
}
