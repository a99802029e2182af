package inventory

import (
	"context"

	"lunboot/store"
)

// Promote makes what a clone holds the next version of its golden volume, and
// the current one: a job copies it. Clones that begin anew at each boot stand on
// it from their next boot; the others, this one too, stay where they are.
func (i *Inventory) Promote(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Job, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Job{}, err
	}
	if err := i.usable(v); err != nil {
		return store.Job{}, err
	}
	if v.Parent == 0 {
		return store.Job{}, store.Conflict("parent", "volume %s is no clone, so it has no golden volume to become a version of; freeze it instead", v.Name)
	}
	parent, err := i.db.Volume(ctx, v.Parent)
	if err != nil {
		return store.Job{}, err
	}
	if !parent.Golden {
		return store.Job{}, store.Conflict("parent", "volume %s stands on a snapshot of %s, which is not golden; freeze it instead", v.Name, parent.Name)
	}
	if v.Golden {
		return store.Job{}, store.Conflict("golden", "volume %s is golden itself; promote a clone of it", v.Name)
	}
	if err := i.free(parent); err != nil {
		return store.Job{}, err
	}
	// A machine that reads the golden volume itself would find other bytes from
	// one block to the next.
	if err := i.closed(ctx, parent, false); err != nil {
		return store.Job{}, err
	}
	if err := (&store.VolumeVersion{Note: note}).Validate(); err != nil {
		return store.Job{}, err
	}
	if err := i.closed(ctx, v, true); err != nil {
		return store.Job{}, err
	}
	if err := i.roomFor(v, "a new version"); err != nil {
		return store.Job{}, err
	}
	settle := context.WithoutCancel(ctx)
	held := v
	held.State = store.VolumePromoting
	if held, err = i.db.UpdateVolume(settle, by, held); err != nil {
		return store.Job{}, err
	}
	back := func(ctx context.Context) {
		if _, err := i.ready(ctx, held); err != nil {
			i.log.Error("a clone that was promoted is still marked so; the next start mends it", "volume", v.Name, "err", err)
		}
	}
	// A machine that logged in before the mark is seen now.
	if err := i.closed(ctx, v, true); err != nil {
		back(settle)
		return store.Job{}, err
	}
	job, err := i.runJob(ctx, "volume.promote", v, "being promoted", func(ctx context.Context, progress func(done, total int64)) error {
		next := store.NewLayer(parent, 0)
		next.Size = v.Size
		next, undo, err := i.newLayer(context.WithoutCancel(ctx), next)
		if err != nil {
			return err
		}
		ready := held
		ready.State = store.VolumeReady // its bytes are; nobody else may have them
		if err := i.layers.CopyOut(ctx, ready, next, progress); err != nil {
			undo()
			return err
		}
		turn := i.work.turn(parent.ID)
		turn.Lock()
		defer turn.Unlock()
		if err := i.closed(ctx, parent, false); err != nil { // it logged in meanwhile
			undo()
			return err
		}
		out, err := i.db.AddVersion(context.WithoutCancel(ctx), by, store.VolumeVersion{Volume: parent.ID, Layer: next.ID, Note: note})
		if err != nil {
			undo()
			return err
		}
		i.volumes.Update(out)
		return nil
	}, back)
	if err != nil {
		back(settle)
	}
	return job, err
}

// SetVersion makes another version of a golden volume the current one: going
// back is one act, and so is going forward again.
func (i *Inventory) SetVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if v.Golden && v.Version == number {
		return store.Volume{}, store.Conflict("version", "version %d of volume %s is the current one already", number, v.Name)
	}
	// A machine that reads it would find other bytes from one block to the next.
	if err := i.closed(ctx, v, false); err != nil {
		return store.Volume{}, err
	}
	turn := i.work.turn(v.ID)
	turn.Lock()
	defer turn.Unlock()
	if v, err = i.db.SetVersion(ctx, by, id, number); err == nil {
		i.volumes.Update(v)
		i.merges.stacked(v.ID)
	}
	return v, err
}

// NoteVersion changes what is said of a version.
func (i *Inventory) NoteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int, note string) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	return i.db.NoteVersion(ctx, by, id, number, note)
}

// RemoveVersion removes a version that nothing stands on, and its bytes.
func (i *Inventory) RemoveVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return err
	}
	all, err := i.db.Versions(ctx)
	if err != nil {
		return err
	}
	var chain []store.Layer
	for _, n := range all {
		if n.Volume == id && n.Number == number {
			if chain, err = i.chain(ctx, n.Layer); err != nil {
				return err
			}
		}
	}
	if err := i.db.DeleteVersion(ctx, by, id, number); err != nil {
		return err
	}
	i.discard(store.Volume{ID: v.ID, Name: v.Name, Layers: chain})
	return nil
}

// Detail says everything about a volume: what it stands on, what was kept of it,
// and who uses which.
func (i *Inventory) Detail(ctx context.Context, v store.Volume) (store.VolumeDetail, error) {
	d := store.VolumeDetail{Volume: v, Chain: []store.LayerDetail{}, Versions: []store.VersionDetail{}, Snapshots: []store.SnapshotDetail{}, Clones: []store.CloneDetail{}, Machines: []store.VolumeUser{}, Used: -1, Reflinked: -1}
	all, err := i.db.Volumes(ctx)
	if err != nil {
		return d, err
	}
	layers, err := i.db.Layers(ctx)
	if err != nil {
		return d, err
	}
	names := map[store.VolumeID]string{}
	for _, o := range all {
		names[o.ID] = o.Name
	}
	d.ParentName = names[v.Parent]
	mine := map[store.LayerID]bool{}
	for _, l := range v.Layers {
		d.Chain = append(d.Chain, store.LayerDetail{Layer: l, Owner: names[l.Volume]})
		mine[l.ID] = true
	}
	users := func(id store.LayerID) []string { return standing(layers, names, id, v.ID) }
	if err := i.kept(ctx, &d, layers, mine, users); err != nil {
		return d, err
	}
	if d.Machines, err = i.users(ctx, v.ID); err != nil {
		return d, err
	}
	for _, o := range all {
		if o.Parent != v.ID {
			if o.ID == v.Parent && v.Version != 0 { // a snapshot has no newer version
				d.Stale = o.Version != v.Version
			}
			continue
		}
		c := store.CloneDetail{ID: o.ID, Name: o.Name, Version: o.Version, Reset: o.Reset, Machines: []string{}}
		users, err := i.users(ctx, o.ID)
		if err != nil {
			return d, err
		}
		for _, u := range users {
			c.Machines = append(c.Machines, u.Name)
		}
		d.Clones = append(d.Clones, c)
	}
	if i.layers != nil && v.State == store.VolumeReady {
		if n, err := i.layers.Used(withFiles(v, layers)); err == nil {
			d.Used = n
		}
		d.Reflinked = min(i.shared(ctx, withFiles(v, layers)), max(d.Used, 0))
	}
	return d, nil
}

// kept adds the versions and snapshots.
func (i *Inventory) kept(ctx context.Context, d *store.VolumeDetail, layers []store.Layer, below map[store.LayerID]bool, users func(store.LayerID) []string) error {
	sizes := map[store.LayerID]int64{}
	for _, l := range layers {
		sizes[l.ID] = l.Size
	}
	versions, err := i.db.Versions(ctx)
	if err != nil {
		return err
	}
	for _, n := range versions {
		if n.Volume == d.ID {
			d.Versions = append(d.Versions, store.VersionDetail{VolumeVersion: n, Current: n.Number == d.Version, Size: sizes[n.Layer], UsedBy: users(n.Layer)})
		}
	}
	snapshots, err := i.db.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		if s.Volume == d.ID {
			d.Snapshots = append(d.Snapshots, store.SnapshotDetail{Snapshot: s, Below: below[s.Layer], UsedBy: users(s.Layer)})
		}
	}
	return nil
}

// standing names the volumes, other than one, with a layer right upon this one.
func standing(layers []store.Layer, names map[store.VolumeID]string, on store.LayerID, except store.VolumeID) []string {
	out := []string{}
	for _, l := range layers {
		if l.Below == on && l.Volume != except {
			out = append(out, names[l.Volume])
		}
	}
	return out
}

// users are the machines that have a volume.
func (i *Inventory) users(ctx context.Context, id store.VolumeID) ([]store.VolumeUser, error) {
	maps, err := i.db.MappingsOfVolume(ctx, id)
	if err != nil {
		return nil, err
	}
	out := []store.VolumeUser{}
	for _, m := range maps {
		machine, err := i.db.Machine(ctx, m.Machine)
		if store.IsNotFound(err) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		u := store.VolumeUser{Machine: m.Machine, Name: machine.Name, LUN: m.LUN, ReadOnly: m.ReadOnly, Boot: m.Boot}
		if s, ok := i.session(machine); ok {
			u.Since = s.Since
		}
		out = append(out, u)
	}
	return out, nil
}
