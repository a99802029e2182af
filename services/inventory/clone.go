package inventory

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"lunboot/services"
	"lunboot/store"
)

func (i *Inventory) guard(what string, fn func() error) error { return services.Guard(i.log, what, fn) }

// layered refuses an act on layers where there is nothing that knows them.
func (i *Inventory) layered(ctx context.Context, id store.VolumeID) (store.Volume, error) {
	if i.layers == nil {
		return store.Volume{}, &store.Error{Kind: store.KindUnavailable, Msg: "this appliance keeps volumes without layers"}
	}
	v, err := i.db.Volume(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	return v, store.CheckExpected(ctx, "volume", fmt.Sprint(v.ID), v.Name, v.Revision)
}

// FreezeVolume makes a volume golden: nobody writes to it any more, and others
// are cloned from it. It is its own version 1.
func (i *Inventory) FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.usable(v); err != nil {
		return store.Volume{}, err
	}
	maps, err := i.db.MappingsOfVolume(ctx, v.ID)
	if err != nil {
		return store.Volume{}, err
	}
	for _, m := range maps {
		if m.ReadOnly || v.ReadOnly {
			continue
		}
		machine, err := i.db.Machine(ctx, m.Machine)
		if err != nil {
			return store.Volume{}, err
		}
		return store.Volume{}, store.InUse("volume %s is mapped to machine %s as LUN %d, which writes to it; unmap it first, and give the machine a clone afterwards", v.Name, machine.Name, m.LUN)
	}
	if err := i.closed(ctx, v, true); err != nil {
		return store.Volume{}, err
	}
	turn := i.work.turn(v.ID)
	turn.Lock()
	defer turn.Unlock()
	if v, err = i.db.FreezeVolume(ctx, by, v.ID, note); err != nil {
		return store.Volume{}, err
	}
	i.volumes.Update(v)
	return v, nil
}

// CloneVolume makes a writable copy of a golden volume or of a snapshot. It
// takes no room until it is written, and no longer for a large one.
func (i *Inventory) CloneVolume(ctx context.Context, by store.Actor, spec store.CloneSpec) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	return i.clone(ctx, by, spec)
}

func (i *Inventory) clone(ctx context.Context, by store.Actor, spec store.CloneSpec) (store.Volume, error) {
	parent, err := i.layered(ctx, spec.Parent)
	if err != nil {
		return store.Volume{}, err
	}
	if err := settled(parent); err != nil {
		return store.Volume{}, err
	}
	v := store.Volume{
		Name: strings.ToLower(strings.TrimSpace(spec.Name)), Kind: store.VolumeClone, Parent: parent.ID, Size: parent.Size, BlockSize: parent.BlockSize,
		Reset: spec.Reset, Volatile: spec.Volatile, State: store.VolumeCreating, From: parent.Name,
	}
	below := parent.Top
	switch {
	case spec.Snapshot != "":
		s, err := i.snapshot(ctx, parent, spec.Snapshot)
		if err != nil {
			return store.Volume{}, err
		}
		below, v.From = s.Layer, parent.Name+"@"+s.Name
		if v.Size, err = i.layerSize(ctx, below, v.Size); err != nil {
			return store.Volume{}, err
		}
	case !parent.Golden:
		return store.Volume{}, store.Conflict("parent", "volume %s can still be written, and a clone would change with it; freeze it (lunboot volume freeze %s), or take a snapshot and clone that (lunboot volume snapshot %s NAME; lunboot volume clone %s@NAME …)",
			parent.Name, parent.Name, parent.Name, parent.Name)
	default:
		v.From = fmt.Sprintf("%s version %d", parent.Name, parent.Version)
	}
	if err := v.Validate(); err != nil {
		return store.Volume{}, err
	}
	v.Layers = []store.Layer{store.NewLayer(v, below)}
	if v, err = i.db.CreateVolume(ctx, by, v); err != nil {
		return store.Volume{}, err
	}
	// From here on a caller that hangs up changes nothing.
	ctx = context.WithoutCancel(ctx)
	if err := i.volumes.Create(ctx, v); err != nil {
		return store.Volume{}, i.undo(ctx, v, err)
	}
	return i.ready(ctx, v)
}

// layerSize is the size of a layer, or what is assumed when it is gone.
func (i *Inventory) layerSize(ctx context.Context, id store.LayerID, assumed int64) (int64, error) {
	all, err := i.db.Layers(ctx)
	for _, l := range all {
		if l.ID == id {
			return l.Size, err
		}
	}
	return assumed, err
}

// snapshot finds a snapshot by its name, and names those that there are when it
// is missing.
func (i *Inventory) snapshot(ctx context.Context, v store.Volume, name string) (store.Snapshot, error) {
	all, err := i.db.Snapshots(ctx)
	if err != nil {
		return store.Snapshot{}, err
	}
	e := &store.Error{Kind: store.KindNotFound, Field: "snapshot", Msg: fmt.Sprintf("volume %s has no snapshot %q", v.Name, name)}
	first := true
	for _, s := range all {
		if s.Volume != v.ID {
			continue
		}
		if s.Name == strings.ToLower(name) {
			return s, nil
		}
		if first {
			e.Msg += "; it has"
			first = false
		}
		e.Msg += " " + s.Name
	}
	return store.Snapshot{}, e
}

// SnapshotVolume keeps what a volume holds at this moment, under a name. Machines
// may run: what they flushed before is in it, as after a power cut.
func (i *Inventory) SnapshotVolume(ctx context.Context, by store.Actor, id store.VolumeID, name, note string) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.usable(v); err != nil {
		return store.Volume{}, err
	}
	top := v.TopLayer()
	switch {
	case top.Kind == store.LayerDevice:
		return store.Volume{}, store.Conflict("kind", "volume %s is the device %s; take a snapshot with the device's own tools, such as lvcreate --snapshot", v.Name, v.Path)
	case v.Golden:
		return store.Volume{}, store.Conflict("golden", "volume %s is golden and never changes; its versions are its snapshots", v.Name)
	}
	s := store.Snapshot{Volume: v.ID, Name: strings.ToLower(strings.TrimSpace(name)), Note: note}
	if err := s.Validate(); err != nil {
		return store.Volume{}, err
	}
	if _, err := i.snapshot(ctx, v, s.Name); err == nil {
		return store.Volume{}, store.Conflict("name", "volume %s has a snapshot %s already; choose another name", v.Name, s.Name)
	} else if !store.IsNotFound(err) {
		return store.Volume{}, err
	}
	turn := i.work.turn(v.ID)
	turn.Lock()
	defer turn.Unlock()
	ctx = context.WithoutCancel(ctx)
	above := store.NewLayer(v, v.Top)
	// The volume goes on as it is open, and a volatile one has no snapshots: what it
	// is to be from its next beginning on is not yet.
	above.Volatile = false
	next, undo, err := i.newLayer(ctx, above)
	if err != nil {
		return store.Volume{}, err
	}
	out := v
	err = i.layers.Snapshot(ctx, v, next, func() (store.Volume, error) {
		out, err = i.db.SnapshotVolume(ctx, by, s, next.ID)
		return out, err
	})
	if err != nil {
		undo()
		return store.Volume{}, err
	}
	i.volumes.Update(out)
	i.merges.stacked(out.ID)
	return out, nil
}

// RemoveSnapshot forgets a snapshot. Its room comes back when nothing stands on
// it: at once after a rollback behind it, else when the volume is flattened.
func (i *Inventory) RemoveSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return err
	}
	if err := i.free(v); err != nil {
		return err
	}
	s, err := i.snapshot(ctx, v, name)
	if err != nil {
		return err
	}
	chain, err := i.chain(ctx, s.Layer)
	if err != nil {
		return err
	}
	if err := i.db.DeleteSnapshot(ctx, by, v.ID, name); err != nil {
		return err
	}
	i.discard(store.Volume{ID: v.ID, Name: v.Name, Layers: chain})
	return nil
}

// chain is a layer and what it stands on, bottom to top.
func (i *Inventory) chain(ctx context.Context, top store.LayerID) ([]store.Layer, error) {
	all, err := i.db.Layers(ctx)
	if err != nil {
		return nil, err
	}
	known := map[store.LayerID]store.Layer{}
	for _, l := range all {
		known[l.ID] = l
	}
	var out []store.Layer
	for id := top; id != 0 && len(out) <= len(all); id = known[id].Below {
		out = append([]store.Layer{known[id]}, out...)
	}
	return out, nil
}

// Rollback brings a snapshot back: what was written since is gone. Snapshots
// that are newer stay, and can be gone back to in the same way. Of a golden
// volume the name is the number of a version, as for SetVersion.
func (i *Inventory) Rollback(ctx context.Context, by store.Actor, id store.VolumeID, name string) (store.Volume, error) {
	if number, err := strconv.Atoi(name); err == nil {
		if v, err := i.db.Volume(ctx, id); err == nil && v.Golden {
			return i.SetVersion(ctx, by, id, number)
		}
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.usable(v); err != nil {
		return store.Volume{}, err
	}
	switch {
	case v.Golden:
		return store.Volume{}, store.Conflict("golden", "volume %s is golden and has versions; name the number of one", v.Name)
	case v.Reset:
		return store.Volume{}, store.Conflict("reset_at_boot", "volume %s begins anew at each boot, which would undo the rollback; turn that off first (lunboot volume set %s --no-reset-at-boot)", v.Name, v.Name)
	}
	s, err := i.snapshot(ctx, v, name)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.closed(ctx, v, false); err != nil {
		return store.Volume{}, err
	}
	below, err := i.chain(ctx, s.Layer)
	if err != nil {
		return store.Volume{}, err
	}
	turn := i.work.turn(v.ID)
	turn.Lock()
	defer turn.Unlock()
	return i.replace(ctx, by, "volume.rollback", v, below, "what was written since the snapshot "+s.Name+" is gone")
}

// replace puts an empty layer over below in the place of a volume's top. Its
// turn is held.
func (i *Inventory) replace(ctx context.Context, by store.Actor, why string, v store.Volume, below []store.Layer, detail string) (store.Volume, error) {
	base := below[len(below)-1]
	l := store.NewLayer(v, base.ID)
	l.Size = max(v.Size, base.Size)
	ctx = context.WithoutCancel(ctx)
	next, undo, err := i.newLayer(ctx, l)
	if err != nil {
		return store.Volume{}, err
	}
	out := v
	err = i.layers.Replace(ctx, v, next, below, func() (store.Volume, error) {
		out, err = i.db.ReplaceTop(ctx, by, why, v.ID, next.ID, detail)
		return out, err
	})
	if err != nil {
		undo()
		return store.Volume{}, err
	}
	i.volumes.Update(out)
	i.discard(v)
	i.merges.stacked(out.ID)
	return out, nil
}

// ResetVolume lets a clone begin anew at a boot of its machine: a clone of a
// golden volume's version on the current one, a clone of a snapshot on that
// snapshot, whether or not its volume became golden since. A volume that owes
// no new beginning, or is not ready for one, is returned as it is: of several
// boots that ask for one beginning, one makes it. It waits for no act on other
// volumes.
func (i *Inventory) ResetVolume(ctx context.Context, id store.VolumeID, machine string) (store.Volume, error) {
	if i.layers == nil {
		return i.db.Volume(ctx, id)
	}
	turn := i.work.turn(id)
	turn.Lock()
	defer turn.Unlock()
	due, err := i.db.ResetDue(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	v, err := i.db.Volume(ctx, id)
	if err != nil || !due || v.State != store.VolumeReady {
		return v, err
	}
	parent, err := i.db.Volume(ctx, v.Parent)
	if err != nil {
		return store.Volume{}, err
	}
	below := parent.Layers
	detail := fmt.Sprintf("machine %s boots; it begins anew on version %d of %s", machine, parent.Version, parent.Name)
	if v.Version == 0 {
		base := v.Base()
		if below, err = i.chain(ctx, base.ID); err != nil {
			return store.Volume{}, err
		}
		detail = fmt.Sprintf("machine %s boots; it begins anew on %s", machine, v.From)
	}
	out, err := i.replace(ctx, store.ActorSystem, "volume.reset", v, below, detail)
	if store.KindOf(err) != store.KindConflict {
		return out, err
	}
	// Its operator may have turned that off meanwhile, or begun to promote it.
	if due, failed := i.db.ResetDue(ctx, id); failed != nil || due {
		return store.Volume{}, err
	}
	return i.db.Volume(ctx, id)
}

// FlattenVolume makes a volume stand alone, while machines run from it: a job
// copies what lies below into its top layer.
func (i *Inventory) FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Job, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.Job{}, err
	}
	if err := i.usable(v); err != nil {
		return store.Job{}, err
	}
	switch {
	case v.Golden:
		return store.Job{}, store.Conflict("golden", "volume %s is golden and never changes; a promoted version stands alone", v.Name)
	case v.Reset:
		return store.Job{}, store.Conflict("reset_at_boot", "volume %s begins anew at each boot, so nothing would be left of it; turn that off first (lunboot volume set %s --no-reset-at-boot)", v.Name, v.Name)
	case len(v.Layers) == 1:
		return store.Job{}, store.Conflict("layers", "volume %s stands alone already", v.Name)
	}
	if err := i.roomFor(v, "a flat volume"); err != nil {
		return store.Job{}, err
	}
	return i.runJob(ctx, "volume.flatten", v, "being flattened", func(ctx context.Context, progress func(done, total int64)) error {
		out := v
		err := i.layers.Flatten(ctx, v, progress, func() (store.Volume, error) {
			var err error
			out, err = i.db.FlattenVolume(context.WithoutCancel(ctx), by, v.ID)
			return out, err
		})
		if err != nil {
			return err
		}
		i.volumes.Update(out)
		i.discard(v)
		return nil
	}, nil)
}

// roomFor refuses a copy for which there is surely no room: what the layers of a
// volume take is the most that its copy can need. Where it shares their blocks it
// is begun, and ends before it has filled the file system.
func (i *Inventory) roomFor(v store.Volume, what string) error {
	if i.layers.Shares(v) {
		return nil
	}
	free, err := i.volumes.Free()
	if err != nil {
		return err
	}
	var need int64
	seen := map[store.VolumeID]bool{}
	for _, l := range v.Layers {
		if seen[l.Volume] {
			continue
		}
		seen[l.Volume] = true
		o := store.Volume{ID: l.Volume}
		for _, x := range v.Layers {
			if x.Volume == l.Volume {
				o.Layers = append(o.Layers, x)
			}
		}
		n, err := i.layers.Used(o)
		if err != nil {
			return err
		}
		need += n
	}
	if need = min(need, v.Size); need > free-scratchRoom {
		return &store.Error{Kind: store.KindUnavailable, Op: "copy volume", Subject: v.Name, Field: "space",
			Msg: fmt.Sprintf("%s needs up to %s, and %s are free for volumes, of which %s are kept for machines that run; make room and try again", what, store.Bytes(need), store.Bytes(free), store.Bytes(scratchRoom))}
	}
	return nil
}

// CheckVolume reads the maps of a volume's layers and says what is damaged.
func (i *Inventory) CheckVolume(ctx context.Context, id store.VolumeID) (store.VolumeCheck, error) {
	v, err := i.layered(ctx, id)
	if err != nil {
		return store.VolumeCheck{}, err
	}
	if err := settled(v); err != nil {
		return store.VolumeCheck{}, err
	}
	return i.layers.Check(ctx, v)
}
