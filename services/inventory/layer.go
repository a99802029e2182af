package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lunboot/store"
)

// LayerRows are what volumes' bytes lie in. Each act is one transaction.
type LayerRows interface {
	Layers(context.Context) ([]store.Layer, error)
	LooseLayers(context.Context) ([]store.Layer, error)
	LayerNamings(context.Context, store.VolumeID) (map[store.LayerID]store.LayerNaming, error)
	CreateLayer(context.Context, store.Layer) (store.Layer, error)
	DeleteLayer(context.Context, store.LayerID) error
	ResetDue(context.Context, store.VolumeID) (bool, error)
	LayerActs
	VersionRows
}

// LayerActs change which layers a volume has.
type LayerActs interface {
	FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error)
	SnapshotVolume(ctx context.Context, by store.Actor, s store.Snapshot, next store.LayerID) (store.Volume, error)
	ReplaceTop(ctx context.Context, by store.Actor, why string, id store.VolumeID, next store.LayerID, detail string) (store.Volume, error)
	FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Volume, error)
	MergeLayers(ctx context.Context, first, last, next store.LayerID) error
}

// VersionRows are what was kept of volumes.
type VersionRows interface {
	Snapshots(context.Context) ([]store.Snapshot, error)
	Versions(context.Context) ([]store.VolumeVersion, error)
	DeleteSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error
	AddVersion(context.Context, store.Actor, store.VolumeVersion) (store.Volume, error)
	SetVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) (store.Volume, error)
	NoteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int, note string) error
	DeleteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error
}

// Layers are the files of volumes' layers: a volume.Pool. Each takes the volume
// as its row is, and makes what commit writes true for its open handles.
type Layers interface {
	// Snapshot puts next upon the top layer, at a moment when all that was
	// acknowledged is on disk and nothing is written. Handles go on.
	Snapshot(ctx context.Context, v store.Volume, next store.Layer, commit func() (store.Volume, error)) error
	// Replace puts next, over the layers below, in the place of the top layer.
	// Handles of before are fenced: their next command fails.
	Replace(ctx context.Context, v store.Volume, next store.Layer, below []store.Layer, commit func() (store.Volume, error)) error
	// Flatten copies into the top layer what lies below. It may be begun again.
	Flatten(ctx context.Context, v store.Volume, progress func(done, total int64), commit func() (store.Volume, error)) error
	// Merge makes one layer of those from first up to last, while they are used.
	Merge(ctx context.Context, v store.Volume, first, last store.LayerID, next store.Layer, progress func(done, total int64), commit func() error) error
	// CopyOut makes a raw layer of everything that the volume holds.
	CopyOut(ctx context.Context, v store.Volume, dst store.Layer, progress func(done, total int64)) error
	// Check reads the maps of all layers.
	Check(ctx context.Context, v store.Volume) (store.VolumeCheck, error)
	// RemoveLayers removes files; those that are gone already are no error.
	RemoveLayers(context.Context, []store.Layer) error
	// Used is how many bytes those of the layers of v that are its own take.
	Used(v store.Volume) (int64, error)
	// Reflinked is how many of those other files hold as well; errors.ErrUnsupported
	// when the file system does not tell.
	Reflinked(ctx context.Context, v store.Volume) (int64, error)
	// Shares is whether a copy of the layers of v takes no room to speak of.
	Shares(v store.Volume) bool
}

// layerWork guards what is under way with layers.
type layerWork struct {
	// turns lets one change of a volume's layers happen at a time. A machine
	// that boots takes it without the lock of the operator's acts, so that it
	// does not wait for them.
	turns [64]sync.Mutex
	mu    sync.Mutex
	busy  map[store.VolumeID][]*claim // by jobs
	sweep sync.WaitGroup              // removals of files behind an answer
	swept chan struct{}               // closed when the last of them has ended; under mu
}

func (w *layerWork) turn(id store.VolumeID) *sync.Mutex {
	return &w.turns[uint64(id)%uint64(len(w.turns))]
}

// claim is a job's hold of a volume.
type claim struct {
	why   string // no other act may change it
	reads bool   // and nothing more, so that others may read as well
}

// occupy keeps other acts from a volume while a job works on it.
func (w *layerWork) occupy(id store.VolumeID, c claim) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy == nil {
		w.busy = map[store.VolumeID][]*claim{}
	}
	w.busy[id] = append(w.busy[id], &c)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy[id] = slices.DeleteFunc(w.busy[id], func(o *claim) bool { return o == &c })
		if len(w.busy[id]) == 0 {
			delete(w.busy, id)
		}
	}
}

// free refuses a volume that is half-made, or that a job works on.
func (i *Inventory) free(v store.Volume) error { return i.freeFor(v, false) }

// freeFor is free; who only reads is not refused for others that do.
func (i *Inventory) freeFor(v store.Volume, reading bool) error {
	if err := settled(v); err != nil {
		return err
	}
	i.work.mu.Lock()
	defer i.work.mu.Unlock()
	for _, c := range i.work.busy[v.ID] {
		if !reading || !c.reads {
			return store.InUse("volume %s is %s; wait for the job, or cancel it", v.Name, c.why)
		}
	}
	return nil
}

// usable is free for a volume whose bytes are needed.
func (i *Inventory) usable(v store.Volume) error { return i.usableFor(v, false) }

func (i *Inventory) usableFor(v store.Volume, reading bool) error {
	if err := i.freeFor(v, reading); err != nil {
		return err
	}
	if v.State != store.VolumeReady {
		return store.Conflict("volume", "volume %s is %s (%s) and has no bytes to work with", v.Name, v.State, v.Reason)
	}
	return nil
}

// closed refuses a volume that a machine has open, and names it. That reading
// alone is harmless is the caller's to know.
func (i *Inventory) closed(ctx context.Context, v store.Volume, reading bool) error {
	if i.sessions == nil {
		return nil
	}
	maps, err := i.db.MappingsOfVolume(ctx, v.ID)
	if err != nil {
		return err
	}
	for _, s := range i.sessions.Sessions() {
		for _, m := range maps {
			if s.Machine != m.Machine || reading && m.ReadOnly {
				continue
			}
			name := string(s.Initiator)
			if machine, err := i.db.Machine(ctx, m.Machine); err == nil {
				name = machine.Name
			}
			return store.InUse("machine %s is logged in from %s and has volume %s open; shut it down first, or end its session (lunboot session drop %s)", name, s.Addr, v.Name, s.ID)
		}
	}
	return nil
}

// newLayer writes the row of a layer, and returns what takes it back together
// with its file.
func (i *Inventory) newLayer(ctx context.Context, l store.Layer) (store.Layer, func(), error) {
	l, err := i.db.CreateLayer(ctx, l)
	if err != nil {
		return l, nil, err
	}
	return l, func() {
		if err := i.removeLayers(context.WithoutCancel(ctx), []store.Layer{l}); err != nil {
			i.log.Error("the file of an act that failed stays until the next start", "file", l.Path, "err", err)
		}
	}, nil
}

// removeLayers removes those of the layers that nothing names, files first. That
// nothing names them is asked again here: a commit whose answer was an error may
// have been carried out all the same.
func (i *Inventory) removeLayers(ctx context.Context, candidates []store.Layer) error {
	loose, err := i.db.LooseLayers(ctx)
	if err != nil {
		return err
	}
	var gone []store.Layer
	for _, l := range loose {
		if slices.ContainsFunc(candidates, func(c store.Layer) bool { return c.ID == l.ID }) {
			gone = append(gone, l)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if err := i.layers.RemoveLayers(ctx, gone); err != nil {
		return err
	}
	var errs []error
	for _, l := range gone {
		// With the row of a volume that is removed those of its layers are.
		if err := i.db.DeleteLayer(ctx, l.ID); !store.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// discard removes those of a volume's former layers that nothing names any more,
// behind the answer: gigabytes take their time. What is not removed when the
// appliance stops is removed at the next start. One follows the other, since a layer
// goes after those that stood on it.
func (i *Inventory) discard(before store.Volume) {
	w, swept := &i.work, make(chan struct{})
	w.mu.Lock()
	first := w.swept
	w.swept = swept
	w.mu.Unlock()
	w.sweep.Go(func() {
		defer close(swept)
		if first != nil {
			<-first
		}
		err := i.removeLayers(context.Background(), before.Layers)
		if err != nil {
			i.log.Error("the former layers of a volume stay until the next start", "volume", before.Name, "err", err)
		}
	})
}

// recoverLayers removes the files that an act of the last run had made and not
// named, or had let go of and not removed.
func (i *Inventory) recoverLayers(ctx context.Context) error {
	loose, err := i.db.LooseLayers(ctx)
	if err != nil || len(loose) == 0 {
		return err
	}
	for _, l := range loose {
		i.log.Info("removed the file of an act that did not end", "file", l.Path)
	}
	return i.removeLayers(ctx, loose)
}

// runJob works on a volume behind the answer. No other act may change the volume
// meanwhile. after is called at the end, whatever it was, with the lock of the acts
// held.
func (i *Inventory) runJob(ctx context.Context, kind string, v store.Volume, why string, run func(ctx context.Context, progress func(done, total int64)) error, after func(context.Context)) (store.Job, error) {
	return i.behind(ctx, store.Job{Kind: kind, Subject: v.Name, Total: v.Size}, onBytes(run), func(id int64) (ended func(context.Context)) {
		release := i.work.occupy(v.ID, claim{why: fmt.Sprintf("%s by job %d", why, id)})
		return func(ctx context.Context) {
			if after != nil {
				after(ctx)
			}
			release()
		}
	})
}
