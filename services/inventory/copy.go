package inventory

import (
	"context"
	"fmt"
	"strings"

	"lunboot/store"
)

// DefaultGolden is the golden volume that new machines get a clone of: the one
// that the setting names, else the only one that there is. It is the zero Volume
// when nobody can tell.
func (i *Inventory) DefaultGolden(ctx context.Context) (store.Volume, error) {
	name, err := store.SettingValue(ctx, i.db, store.SettingDefaultGolden)
	if err != nil {
		return store.Volume{}, err
	}
	all, err := i.db.Volumes(ctx)
	if err != nil {
		return store.Volume{}, err
	}
	var only store.Volume
	n := 0
	for _, v := range all {
		if !v.Golden || v.State != store.VolumeReady {
			continue
		}
		if v.Name == name {
			return v, nil
		}
		only, n = v, n+1
	}
	if name == "" && n == 1 {
		return only, nil
	}
	return store.Volume{}, nil
}

// FreshClones reports whether the clones of new machines begin anew at each boot
// unless something else is chosen.
func (i *Inventory) FreshClones(ctx context.Context) (bool, error) {
	v, err := store.SettingValue(ctx, i.db, store.SettingFreshClones)
	return v == "on", err
}

// checkDefaultGolden refuses a default that nothing can be cloned from.
func (i *Inventory) checkDefaultGolden(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	v, err := i.db.VolumeByName(ctx, name)
	if store.IsNotFound(err) {
		return store.Invalid("value", "there is no volume %q", name)
	}
	if err == nil && !v.Golden {
		return store.Invalid("value", "volume %s is not golden, so nothing can be cloned from it; freeze it first (lunboot volume freeze %s)", v.Name, v.Name)
	}
	return err
}

// renameDefault lets the setting follow a volume that is called otherwise now.
func (i *Inventory) renameDefault(ctx context.Context, by store.Actor, was string, v store.Volume) error {
	if !v.Golden || v.Name == was {
		return nil
	}
	name, err := store.SettingValue(ctx, i.db, store.SettingDefaultGolden)
	if err != nil || name != was {
		return err
	}
	return i.db.PutSetting(context.WithoutCancel(ctx), by, string(store.SettingDefaultGolden), v.Name)
}

// chosen is the golden volume that a new machine gets a clone of, and how the clone
// is to be: the zero Volume when it gets none. What is not said is as the settings
// say it.
func (i *Inventory) chosen(ctx context.Context, c store.CloneChoice) (store.Volume, store.CloneChoice, error) {
	if err := c.Validate(); err != nil || c.Of == store.CloneOfNone {
		return store.Volume{}, c, err
	}
	if c.Of != "" || c.Reset { // to begin anew at each boot there must be something
		v, err := i.parentOf(ctx, c)
		return v, c, err
	}
	v, err := i.DefaultGolden(ctx)
	if err != nil || v.ID == 0 {
		return v, c, err
	}
	c.Reset, err = i.FreshClones(ctx)
	return v, c, err
}

// parentOf finds the golden volume that a choice names.
func (i *Inventory) parentOf(ctx context.Context, c store.CloneChoice) (store.Volume, error) {
	if err := c.Validate(); err != nil {
		return store.Volume{}, err
	}
	if c.Of == store.CloneOfDefault || c.Of == "" {
		v, err := i.DefaultGolden(ctx)
		if err == nil && v.ID == 0 {
			err = store.Invalid("clone_of", "no golden volume is the default one; name one, or choose it with: lunboot setting set %s NAME", store.SettingDefaultGolden)
		}
		return v, err
	}
	v, err := i.FindVolume(ctx, c.Of)
	if store.IsNotFound(err) {
		return v, store.Invalid("clone_of", "there is no volume %q", c.Of)
	}
	if err == nil && !v.Golden {
		return v, store.Invalid("clone_of", "volume %s is not golden, and a clone would change with it; freeze it first (lunboot volume freeze %s)", v.Name, v.Name)
	}
	if err == nil {
		err = bootable(v)
	}
	return v, err
}

// CloneFor gives a machine a clone of its own to boot from. Where it booted from
// the parent itself, read-only, the clone takes that LUN. Of another boot volume
// only the mark moves: it stays mapped.
func (i *Inventory) CloneFor(ctx context.Context, by store.Actor, machine store.MachineID, spec store.CloneSpec) (store.Volume, store.Mapping, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	m, err := i.db.Machine(ctx, machine)
	if err != nil {
		return store.Volume{}, store.Mapping{}, err
	}
	return i.cloneFor(ctx, by, m, spec)
}

func (i *Inventory) cloneFor(ctx context.Context, by store.Actor, m store.Machine, spec store.CloneSpec) (store.Volume, store.Mapping, error) {
	none := func(err error) (store.Volume, store.Mapping, error) { return store.Volume{}, store.Mapping{}, err }
	parent, err := i.layered(ctx, spec.Parent)
	if err != nil {
		return none(err)
	}
	if err := bootable(parent); err != nil {
		return none(err)
	}
	have, err := i.db.MappingsOf(ctx, m.ID)
	if err != nil {
		return none(err)
	}
	out := store.Mapping{Machine: m.ID, Boot: true}
	if out.LUN, err = lowestFree(m, have); err != nil {
		return none(err)
	}
	var before store.Mapping // what the machine boots now
	for _, h := range have {
		if h.Boot {
			before = h
		}
	}
	if s, ok := i.session(m); ok && before.ID != 0 {
		return none(store.InUse("machine %s is logged in from %s and runs from its volume; shut it down first, or end its session (lunboot session drop %s)", m.Name, s.Addr, s.ID))
	}
	if spec.Name == "" {
		if spec.Name, err = i.cloneName(ctx, m.Name, parent.Name); err != nil {
			return none(err)
		}
	}
	v, err := i.clone(ctx, by, spec)
	if err != nil {
		return none(err)
	}
	out.Volume = v.ID
	// From here on a caller that hangs up changes nothing.
	ctx = context.WithoutCancel(ctx)
	if out, err = i.bootFrom(ctx, by, out, before, parent); err != nil {
		if gone := i.removeClone(ctx, by, v); gone != nil {
			i.log.Error("a clone that no machine got stays", "volume", v.Name, "err", gone)
		}
		return none(err)
	}
	return v, out, nil
}

// bootFrom adds the boot mapping next in the place of before. A crash between
// its commits leaves a machine that boots nothing, which shows, never one that
// boots the wrong volume.
func (i *Inventory) bootFrom(ctx context.Context, by store.Actor, next, before store.Mapping, parent store.Volume) (store.Mapping, error) {
	if before.ID == 0 {
		return i.db.CreateMapping(ctx, by, next)
	}
	replaced := before.Volume == parent.ID
	var err error
	if replaced {
		next.LUN = before.LUN
		err = i.db.DeleteMapping(ctx, by, before.Machine, before.LUN)
	} else {
		unmarked := before
		unmarked.Boot = false
		before, err = i.db.UpdateMapping(ctx, by, unmarked)
		before.Boot = true
	}
	if err != nil {
		return next, err
	}
	out, err := i.db.CreateMapping(ctx, by, next)
	if err == nil {
		return out, nil
	}
	var back error
	if replaced {
		before.ID, before.Revision = 0, 0
		_, back = i.db.CreateMapping(ctx, by, before)
	} else {
		_, back = i.db.UpdateMapping(ctx, by, before)
	}
	if back != nil {
		i.log.Error("the machine has no boot mapping now", "machine", next.Machine, "err", back)
	}
	return out, err
}

// removeClone takes a clone back that was just made.
func (i *Inventory) removeClone(ctx context.Context, by store.Actor, v store.Volume) error {
	if err := i.volumes.Remove(ctx, v); err != nil {
		return err
	}
	return i.db.DeleteVolume(ctx, by, v.ID)
}

// maxVolumeName is the longest name of a volume (store.ValidateName).
const maxVolumeName = 63

// cloneName is a free name for a machine's clone: "lab-12-debian".
func (i *Inventory) cloneName(ctx context.Context, machine, parent string) (string, error) {
	return freeName(machine+"-"+parent, func(try string) error {
		_, err := i.db.VolumeByName(ctx, try)
		return err
	})
}

// freeName is a name that find does not find: the one that is wanted, or with a
// number behind it, and cut to what a name may be.
func freeName(name string, find func(string) error) (string, error) {
	for k, end := 2, ""; ; k++ {
		try := strings.TrimRight(name[:min(len(name), maxVolumeName-len(end))], "-.") + end
		err := find(try)
		if store.IsNotFound(err) {
			return try, nil
		}
		if err != nil {
			return "", err
		}
		end = fmt.Sprintf("-%d", k)
	}
}

// EnrollWithClone is Enroll for a machine whose clone was chosen. Without the clone
// there is no machine either.
func (i *Inventory) EnrollWithClone(ctx context.Context, by store.Actor, mac store.MAC, name string, choice store.CloneChoice) (store.Machine, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	u, err := i.unknown(ctx, mac)
	if err != nil {
		return store.Machine{}, err
	}
	return i.enrollOne(ctx, by, u, store.EnrollSpec{Clone: choice}, name, numbers{})
}

// equip gives a machine that was just enrolled its clone, or takes the machine
// back.
func (i *Inventory) equip(ctx context.Context, by store.Actor, m store.Machine, parent store.Volume, c store.CloneChoice) error {
	_, _, err := i.cloneFor(ctx, by, m, store.CloneSpec{Parent: parent.ID, Reset: c.Reset, Volatile: c.Volatile})
	if err == nil {
		return nil
	}
	if back := i.db.DeleteMachine(context.WithoutCancel(ctx), by, m.ID); back != nil {
		i.log.Error("a machine stays enrolled without the clone that it was to boot from", "machine", m.Name, "err", back)
	}
	return err
}

// ownCopy gives a machine its own copy of a volume: a clone of a golden one, else
// of a snapshot that is taken for it, while whoever has the volume goes on.
func (i *Inventory) ownCopy(ctx context.Context, by store.Actor, m store.Machine, name string) (store.FixResult, error) {
	v, err := i.FindVolume(ctx, name)
	if err != nil {
		return store.FixResult{}, err
	}
	spec := store.CloneSpec{Parent: v.ID}
	if !v.Golden {
		if s, ok := i.session(m); ok { // before anything is kept for it
			return store.FixResult{}, store.InUse("machine %s is logged in from %s; shut it down first, or end its session (lunboot session drop %s)", m.Name, s.Addr, s.ID)
		}
		if spec.Snapshot, err = i.freeSnapshot(ctx, v, "for-"+m.Name); err != nil {
			return store.FixResult{}, err
		}
		if _, err := i.SnapshotVolume(ctx, by, v.ID, spec.Snapshot, "the copy of "+m.Name); err != nil {
			return store.FixResult{}, err
		}
	}
	c, mp, err := i.CloneFor(ctx, by, m.ID, spec)
	if err != nil && spec.Snapshot != "" {
		if gone := i.RemoveSnapshot(context.WithoutCancel(ctx), by, v.ID, spec.Snapshot); gone != nil {
			i.log.Error("a snapshot that was taken for a copy stays", "volume", v.Name, "snapshot", spec.Snapshot, "err", gone)
		}
	}
	return done(err, "%s boots from %s, its own copy of %s, which is LUN %d", m.Name, c.Name, v.Name, mp.LUN)
}

// freeSnapshot is a name that no snapshot of the volume has.
func (i *Inventory) freeSnapshot(ctx context.Context, v store.Volume, name string) (string, error) {
	return freeName(name, func(try string) error {
		_, err := i.snapshot(ctx, v, try)
		return err
	})
}
