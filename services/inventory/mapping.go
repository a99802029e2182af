package inventory

import (
	"context"
	"fmt"

	"lunboot/store"
)

// Map gives a machine a volume as one LUN: the lowest free one unless the
// operator names it. A machine that boots nothing yet boots this one, if it
// can: a volume that no firmware could boot is then mapped as data.
func (i *Inventory) Map(ctx context.Context, by store.Actor, spec store.MappingSpec) (store.Mapping, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	m, err := i.db.Machine(ctx, spec.Machine)
	if err != nil {
		return store.Mapping{}, err
	}
	v, err := i.db.Volume(ctx, spec.Volume)
	if err != nil {
		return store.Mapping{}, err
	}
	have, err := i.db.MappingsOf(ctx, m.ID)
	if err != nil {
		return store.Mapping{}, err
	}
	boots := false
	for _, h := range have {
		boots = boots || h.Boot
		if h.Volume == v.ID {
			return store.Mapping{}, store.Conflict("volume", "machine %s has volume %s already, as LUN %d; one machine sees a volume once", m.Name, v.Name, h.LUN)
		}
	}
	out := store.Mapping{Machine: m.ID, Volume: v.ID, ReadOnly: spec.ReadOnly}
	if spec.LUN != nil {
		out.LUN = *spec.LUN
	} else if out.LUN, err = lowestFree(m, have); err != nil {
		return store.Mapping{}, err
	}
	unfit := bootable(v)
	switch {
	case spec.Boot == nil:
		out.Boot = !boots && unfit == nil
	case *spec.Boot && unfit != nil:
		return store.Mapping{}, unfit
	default:
		out.Boot = *spec.Boot
	}
	return i.db.CreateMapping(ctx, by, out)
}

// lowestFree is the first LUN that the machine has no volume at.
func lowestFree(m store.Machine, have []store.Mapping) (store.LUN, error) {
	taken := map[store.LUN]bool{}
	for _, h := range have {
		taken[h.LUN] = true
	}
	for l := store.LUN(0); l <= store.MaxLUN; l++ {
		if !taken[l] {
			return l, nil
		}
	}
	return 0, store.Conflict("lun", "machine %s has a volume at each of its %d LUNs", m.Name, len(taken))
}

// bootable says why firmware could not boot from a volume. iPXE and the BIOS
// behind it know blocks of 512 bytes only, and iPXE reads blocks 64 to 67
// before it boots.
func bootable(v store.Volume) error {
	if v.BlockSize != 512 {
		return store.Invalid("boot", "volume %s has blocks of %d bytes, and firmware boots only from blocks of 512; map it without boot, or make a volume with 512", v.Name, v.BlockSize)
	}
	if v.Blocks() < store.MinBootBlocks {
		return store.Invalid("boot", "volume %s has %d blocks, and a boot volume needs at least %d; grow it, or map it without boot", v.Name, v.Blocks(), store.MinBootBlocks)
	}
	return nil
}

// SetMapping changes a mapping. The mark of the boot mapping moves: a machine
// has one.
func (i *Inventory) SetMapping(ctx context.Context, by store.Actor, machine store.MachineID, lun store.LUN, p store.MappingPatch) (store.Mapping, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	have, err := i.db.MappingsOf(ctx, machine)
	if err != nil {
		return store.Mapping{}, err
	}
	var m, marked store.Mapping
	for _, h := range have {
		if h.LUN == lun {
			m = h
		} else if h.Boot {
			marked = h
		}
	}
	if m.ID == 0 {
		return store.Mapping{}, i.noMapping(ctx, machine, lun)
	}
	if err := store.CheckExpected(ctx, "mapping", mappingKey(machine, lun), fmt.Sprintf("of LUN %d", lun), m.Revision); err != nil {
		return store.Mapping{}, err
	}
	if p.Revision != 0 && p.Revision != m.Revision {
		return store.Mapping{}, store.Conflict("revision", "the mapping changed meanwhile; look at it again")
	}
	set(&m.LUN, p.LUN)
	set(&m.Boot, p.Boot)
	set(&m.ReadOnly, p.ReadOnly)
	if err := m.Validate(); err != nil {
		return store.Mapping{}, err
	}
	moves := m.Boot && marked.ID != 0
	if p.Boot != nil && m.Boot {
		v, err := i.db.Volume(ctx, m.Volume)
		if err != nil {
			return store.Mapping{}, err
		}
		if err := bootable(v); err != nil {
			return store.Mapping{}, err
		}
	}
	if !moves {
		return i.db.UpdateMapping(ctx, by, m)
	}
	// Two commits: a crash between them leaves a machine that boots nothing,
	// which shows, never one that boots the wrong volume.
	marked.Boot = false
	if marked, err = i.db.UpdateMapping(ctx, by, marked); err != nil {
		return store.Mapping{}, err
	}
	out, err := i.db.UpdateMapping(ctx, by, m)
	if err != nil {
		marked.Boot = true
		if _, back := i.db.UpdateMapping(context.WithoutCancel(ctx), by, marked); back != nil {
			i.log.Error("the machine has no boot mapping now", "machine", machine, "err", back)
		}
	}
	return out, err
}

// Unmap takes a LUN from a machine. The volume stays; live sessions lose the
// LUN at once.
func (i *Inventory) Unmap(ctx context.Context, by store.Actor, machine store.MachineID, lun store.LUN) error {
	i.acts.Lock()
	defer i.acts.Unlock()
	have, err := i.db.MappingsOf(ctx, machine)
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.LUN != lun {
			continue
		}
		if err := store.CheckExpected(ctx, "mapping", mappingKey(machine, lun), fmt.Sprintf("of LUN %d", lun), h.Revision); err != nil {
			return err
		}
	}
	err = i.db.DeleteMapping(ctx, by, machine, lun)
	if store.IsNotFound(err) {
		return i.noMapping(ctx, machine, lun)
	}
	return err
}

// mappingKey is what an expectation calls a mapping: it has no number outside.
func mappingKey(machine store.MachineID, lun store.LUN) string {
	return fmt.Sprintf("%d/%d", machine, lun)
}

// noMapping names the machine and what it has instead.
func (i *Inventory) noMapping(ctx context.Context, id store.MachineID, lun store.LUN) error {
	m, err := i.db.Machine(ctx, id)
	if err != nil {
		return err
	}
	have, err := i.db.MappingsOf(ctx, id)
	if err != nil {
		return err
	}
	return store.NoLUN(m.Name, lun, have)
}
