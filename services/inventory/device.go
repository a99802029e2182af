package inventory

import (
	"context"
	"fmt"
	"strings"

	"lunboot/store"
	"lunboot/store/volume"
)

// Devices are the block devices of the appliance.
type Devices interface {
	Device(path string, readOnly bool) (volume.Device, error)
	DeviceSize(path string) (int64, error)
}

// AttachDevice makes a volume of a block device as it is: no byte of it
// changes, and none goes when the volume is removed. What is mounted, held by
// another program, or a volume already, whole or in part, is refused.
func (i *Inventory) AttachDevice(ctx context.Context, by store.Actor, spec store.DeviceSpec) (store.Volume, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	// Before it is opened: one that we hold ourselves for a machine looks like
	// somebody else's.
	if err := i.unattached(ctx, spec.Path); err != nil {
		return store.Volume{}, err
	}
	d, err := i.volumes.Device(spec.Path, spec.ReadOnly)
	if err != nil {
		return store.Volume{}, err
	}
	block := spec.BlockSize
	if block == 0 {
		block = d.BlockSize
	}
	if spec.Direct && block%max(d.BlockSize, 1) != 0 {
		return store.Volume{}, store.Invalid("block_size", "%s has blocks of %d bytes; past the page cache a volume has no smaller ones", d.Path, d.BlockSize)
	}
	v := store.Volume{
		Name: strings.ToLower(spec.Name), UUID: store.NewUUID(), Kind: store.VolumeDevice, BlockSize: block, Size: d.Size / int64(max(block, 1)) * int64(block),
		ReadOnly: spec.ReadOnly, Shared: spec.Shared, Direct: spec.Direct, State: store.VolumeCreating, Path: d.Path,
	}
	if d.Path != spec.Path {
		v.From = spec.Path
	}
	if err := v.Validate(); err != nil {
		return store.Volume{}, err
	}
	if v, err = i.db.CreateVolume(ctx, by, v); err != nil {
		return store.Volume{}, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := i.volumes.Create(ctx, v); err != nil {
		return store.Volume{}, i.undo(ctx, v, err)
	}
	return i.ready(ctx, v)
}

// unattached refuses a device that a volume is already, under whatever name, or
// is a part of, or has as a part. The kernel refuses that only while the other
// one is open.
func (i *Inventory) unattached(ctx context.Context, path string) error {
	own, whole, err := volume.DeviceNumber(path)
	if err != nil {
		return nil // whoever opens it is told better
	}
	all, err := i.db.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if v.Kind != store.VolumeDevice {
			continue
		}
		number, disk, err := volume.DeviceNumber(v.Path)
		switch {
		case err != nil: // it is not there now
		case number == own:
			return store.Conflict("path", "%s is volume %s already", path, v.Name)
		case number == whole:
			return store.Conflict("path", "%s is a part of %s, which is volume %s", path, v.Path, v.Name)
		case disk == own:
			return store.Conflict("path", "%s, which is volume %s, is a part of %s", v.Path, v.Name, path)
		}
	}
	return nil
}

// measureDevices writes down what devices have grown to while the appliance did
// not look. One that shrank, or is not there, is said when it is opened.
func (i *Inventory) measureDevices(ctx context.Context, all []store.Volume) {
	for _, v := range all {
		if v.Kind != store.VolumeDevice || v.State != store.VolumeReady {
			continue
		}
		size, err := i.deviceSize(v)
		if err == nil && size > v.Size {
			v.Size = size
			_, err = i.db.UpdateVolume(ctx, store.ActorSystem, v)
		}
		if err != nil {
			i.log.Warn("the size of a device is not known", "volume", v.Name, "device", v.Path, "err", err)
		}
	}
}

// deviceSize is a device's size in whole blocks of its volume.
func (i *Inventory) deviceSize(v store.Volume) (int64, error) {
	size, err := i.volumes.DeviceSize(v.Path)
	return size / int64(v.BlockSize) * int64(v.BlockSize), err
}

// fitDevice refuses a size that a device does not have.
func (i *Inventory) fitDevice(v store.Volume, size int64) error {
	has, err := i.deviceSize(v)
	if err != nil {
		return err
	}
	if size > has {
		return store.Invalid("size", "%s has %s; let it grow first, with its own tools (lvextend, zfs set volsize)", v.Path, bytesExactly(has))
	}
	return nil
}

func bytesExactly(n int64) string { return fmt.Sprintf("%s (%d bytes)", store.Bytes(n), n) }
