package inventory

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"lunboot/store"
)

// FindVolume finds a volume by its name or its number.
func (i *Inventory) FindVolume(ctx context.Context, key string) (store.Volume, error) {
	v, err := i.db.VolumeByName(ctx, key)
	if id, bad := strconv.ParseInt(key, 10, 64); bad == nil && store.IsNotFound(err) {
		v, err = i.db.Volume(ctx, store.VolumeID(id))
	}
	if store.IsNotFound(err) {
		return store.Volume{}, store.NotFound("volume", key)
	}
	return v, err
}

// LookAtVolume says what a machine's firmware would find on a volume.
func (i *Inventory) LookAtVolume(ctx context.Context, v store.Volume) (store.Preflight, error) {
	if err := settled(v); err != nil {
		return store.Preflight{}, err
	}
	return i.volumes.Look(ctx, v)
}

// newVolume is the row of a raw volume that is about to be made. Its file is
// named after it and its UUID, for people who look into the folder; the name
// stays when the volume is renamed.
func newVolume(spec store.VolumeSpec, state store.VolumeState) (store.Volume, error) {
	v := store.Volume{
		Name: strings.ToLower(spec.Name), UUID: store.NewUUID(), Kind: store.VolumeRaw, Size: spec.Size, BlockSize: spec.BlockSize,
		ReadOnly: spec.ReadOnly, Shared: spec.Shared, State: state,
	}
	if v.BlockSize == 0 {
		v.BlockSize = 512
	}
	v.Path = fmt.Sprintf("%s-%s.raw", v.Name, v.UUID.String()[:8])
	return v, v.Validate()
}

// CreateVolume makes an empty volume that takes room only where it is written.
func (i *Inventory) CreateVolume(ctx context.Context, by store.Actor, spec store.VolumeSpec) (store.Volume, error) {
	v, err := newVolume(spec, store.VolumeCreating)
	if err != nil {
		return store.Volume{}, err
	}
	i.acts.Lock()
	defer i.acts.Unlock()
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

// ready says that a volume's bytes are there.
func (i *Inventory) ready(ctx context.Context, v store.Volume) (store.Volume, error) {
	v.State, v.Progress, v.Reason = store.VolumeReady, 0, ""
	v, err := i.db.UpdateVolume(ctx, store.ActorSystem, v)
	if err == nil {
		i.merges.stacked(v.ID)
	}
	return v, err
}

// undo takes back the row of a volume that could not be made and returns why.
// When even that fails, Recover does it at the next start.
func (i *Inventory) undo(ctx context.Context, v store.Volume, why error) error {
	if err := i.db.DeleteVolume(ctx, store.ActorSystem, v.ID); err != nil {
		i.log.Error("the row of a volume that could not be made stays until the next start", "volume", v.Name, "err", err)
	}
	return why
}

// settled refuses a volume whose file is being made or removed.
func settled(v store.Volume) error {
	switch v.State {
	case store.VolumeReady, store.VolumeFailed:
		return nil
	case store.VolumeImporting:
		return store.InUse("volume %s is being imported; wait for its job, or cancel it", v.Name)
	case store.VolumeRemoving:
		return store.InUse("volume %s is being removed; the removal ends at the next start of lunboot at the latest", v.Name)
	case store.VolumePromoting:
		return store.InUse("volume %s is being promoted; wait for the job, or cancel it", v.Name)
	}
	return store.InUse("volume %s is being created", v.Name)
}

// SetVolume changes the fields of a volume that the patch names. Open sessions
// obey at once.
func (i *Inventory) SetVolume(ctx context.Context, by store.Actor, id store.VolumeID, p store.VolumePatch) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.db.Volume(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.free(v); err != nil {
		return store.Volume{}, err
	}
	if err := store.CheckExpected(ctx, "volume", fmt.Sprint(v.ID), v.Name, v.Revision); err != nil {
		return store.Volume{}, err
	}
	if p.Revision != 0 {
		v.Revision = p.Revision
	}
	was := v.Name
	set(&v.Name, p.Name)
	set(&v.ReadOnly, p.ReadOnly)
	set(&v.Shared, p.Shared)
	set(&v.Sanitize, p.Sanitize)
	set(&v.Reset, p.Reset)
	set(&v.Volatile, p.Volatile)
	if v, err = i.db.UpdateVolume(ctx, by, v); err != nil {
		return store.Volume{}, err
	}
	i.volumes.Update(v)
	return v, i.renameDefault(ctx, by, was, v)
}

// ResizeVolume grows a volume: its file, then its row, then what sessions see.
func (i *Inventory) ResizeVolume(ctx context.Context, by store.Actor, id store.VolumeID, size int64) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.db.Volume(ctx, id)
	if err != nil {
		return store.Volume{}, err
	}
	if err := i.free(v); err != nil {
		return store.Volume{}, err
	}
	if err := store.CheckExpected(ctx, "volume", fmt.Sprint(v.ID), v.Name, v.Revision); err != nil {
		return store.Volume{}, err
	}
	if size == v.Size {
		return v, nil
	}
	if v.Golden {
		return store.Volume{}, store.Conflict("size", "volume %s is golden and never changes; grow a clone of it and promote that", v.Name)
	}
	grown := v
	grown.Size = size
	if err := grown.Validate(); err != nil {
		return store.Volume{}, err
	}
	turn := i.work.turn(v.ID)
	turn.Lock()
	defer turn.Unlock()
	if v.Kind == store.VolumeDevice {
		if err := i.fitDevice(v, size); err != nil {
			return store.Volume{}, err
		}
	}
	// A caller that hangs up must not come between the file and the row.
	ctx = context.WithoutCancel(ctx)
	err = i.volumes.Resize(ctx, v, size, func() error {
		grown, err = i.db.UpdateVolume(ctx, by, grown)
		return err
	})
	if err != nil {
		return store.Volume{}, err
	}
	i.volumes.Update(grown)
	return grown, nil
}

// RemoveVolume removes a volume and its bytes. A volume that a machine has, or
// that another one stands on, stays.
func (i *Inventory) RemoveVolume(ctx context.Context, by store.Actor, id store.VolumeID) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, was, err := i.condemn(ctx, by, id)
	if err != nil {
		return err
	}
	// From here on a caller that hangs up changes nothing.
	ctx = context.WithoutCancel(ctx)
	i.merges.yield(v.ID)
	if err := i.volumes.Remove(ctx, v); err != nil {
		v.State = was
		if _, back := i.db.UpdateVolume(ctx, store.ActorSystem, v); back != nil {
			i.log.Error("a volume that could not be removed is still marked so; the next start tries again", "volume", v.Name, "err", back)
		}
		return err
	}
	// From here on there is no way back: what fails is tried again at the next
	// start.
	if err := i.removeRest(ctx, v); err != nil {
		return err
	}
	return i.db.DeleteVolume(ctx, by, v.ID)
}

// condemn marks a volume that may be removed, and returns its row and the state
// that it had. A boot that is making a new layer for the volume is waited for,
// else its files would outlive their row; one that comes later finds the mark.
func (i *Inventory) condemn(ctx context.Context, by store.Actor, id store.VolumeID) (v store.Volume, was store.VolumeState, err error) {
	turn := i.work.turn(id)
	turn.Lock()
	defer turn.Unlock()
	if v, err = i.db.Volume(ctx, id); err != nil {
		return v, "", err
	}
	if err := i.free(v); err != nil {
		return v, "", err
	}
	if err := store.CheckExpected(ctx, "volume", fmt.Sprint(v.ID), v.Name, v.Revision); err != nil {
		return v, "", err
	}
	if err := i.unused(ctx, v); err != nil {
		return v, "", err
	}
	was, v.State = v.State, store.VolumeRemoving
	v, err = i.db.UpdateVolume(context.WithoutCancel(ctx), by, v)
	return v, was, err
}

// unused refuses a volume that something needs, and names it: the row's own
// check would come after the file is gone.
func (i *Inventory) unused(ctx context.Context, v store.Volume) error {
	mappings, err := i.db.MappingsOfVolume(ctx, v.ID)
	if err != nil {
		return err
	}
	if len(mappings) > 0 {
		m, err := i.db.Machine(ctx, mappings[0].Machine)
		if err != nil {
			return err
		}
		return store.InUse("volume %s is mapped to machine %s as LUN %d; unmap it first", v.Name, m.Name, mappings[0].LUN)
	}
	return i.standsAlone(ctx, v)
}

// standsAlone refuses a volume whose layers are below another one's, and says
// which machine has that.
func (i *Inventory) standsAlone(ctx context.Context, v store.Volume) error {
	all, err := i.db.Layers(ctx)
	if err != nil {
		return err
	}
	own := map[store.LayerID]bool{}
	for _, l := range all {
		if l.Volume == v.ID {
			own[l.ID] = true
		}
	}
	for _, l := range all {
		if l.Volume == v.ID || !own[l.Below] {
			continue
		}
		o, err := i.db.Volume(ctx, l.Volume)
		if err != nil {
			return err
		}
		has := ""
		if users, err := i.users(ctx, o.ID); err == nil && len(users) > 0 {
			has = " (machine " + users[0].Name + " has it)"
		}
		return store.InUse("volume %s is the parent of volume %s%s; remove or flatten that first", v.Name, o.Name, has)
	}
	return nil
}

// removeRest removes the layers of a volume other than its top, and nothing of
// its parent's.
func (i *Inventory) removeRest(ctx context.Context, v store.Volume) error {
	if i.layers == nil {
		return nil
	}
	all, err := i.db.Layers(ctx)
	if err != nil {
		return err
	}
	var rest []store.Layer
	for _, l := range all {
		if l.Volume == v.ID && l.ID != v.Top && l.Kind != store.LayerDevice {
			rest = append(rest, l)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return i.layers.RemoveLayers(ctx, rest)
}
