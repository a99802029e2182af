package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const mappingColumns = `SELECT id, revision, machine, volume, lun, read_only, boot, created FROM mapping `

func scanMapping(r dbfile.Row) (m store.Mapping, err error) {
	var created int64
	err = r.Scan(&m.ID, &m.Revision, &m.Machine, &m.Volume, &m.LUN, &m.ReadOnly, &m.Boot, &created)
	m.Created = dbfile.Instant(created)
	return m, err
}

// Mappings returns every mapping, by machine and LUN.
func (db *DB) Mappings(ctx context.Context) ([]store.Mapping, error) {
	return dbfile.List(ctx, db.file.Reader(), scanMapping, mappingColumns+"ORDER BY machine, lun")
}

// MappingViews returns a machine's mappings by LUN, or every mapping for none, with
// the names of both ends.
func (db *DB) MappingViews(ctx context.Context, m store.MachineID) ([]store.MappingView, error) {
	const columns = `SELECT p.id, p.revision, p.machine, p.volume, p.lun, p.read_only, p.boot, p.created, m.name, v.name, v.size
		FROM mapping p JOIN machine m ON m.id = p.machine JOIN volume v ON v.id = p.volume `
	if m == 0 {
		return dbfile.List(ctx, db.file.Reader(), scanMappingView, columns+"ORDER BY p.machine, p.lun")
	}
	return dbfile.List(ctx, db.file.Reader(), scanMappingView, columns+"WHERE p.machine = ? ORDER BY p.lun", int64(m))
}

func scanMappingView(r dbfile.Row) (v store.MappingView, err error) {
	var created int64
	err = r.Scan(&v.ID, &v.Revision, &v.Machine, &v.Volume, &v.LUN, &v.ReadOnly, &v.Boot, &created, &v.MachineName, &v.VolumeName, &v.VolumeSize)
	v.Created = dbfile.Instant(created)
	return v, err
}

// MappingsOf returns a machine's mappings, by LUN.
func (db *DB) MappingsOf(ctx context.Context, m store.MachineID) ([]store.Mapping, error) {
	return dbfile.List(ctx, db.file.Reader(), scanMapping, mappingColumns+"WHERE machine = ? ORDER BY lun", int64(m))
}

// MappingsOfVolume returns the mappings of a volume, by machine and LUN.
func (db *DB) MappingsOfVolume(ctx context.Context, v store.VolumeID) ([]store.Mapping, error) {
	return dbfile.List(ctx, db.file.Reader(), scanMapping, mappingColumns+"WHERE volume = ? ORDER BY machine, lun", int64(v))
}

// CreateMapping gives a machine a volume as one LUN.
func (db *DB) CreateMapping(ctx context.Context, actor store.Actor, m store.Mapping) (store.Mapping, error) {
	if err := m.Validate(); err != nil {
		return store.Mapping{}, err
	}
	err := db.write(ctx, "map volume", func(t *tx) error {
		m.ID, m.Revision, m.Created = 0, 1, t.now
		c, err := t.checkMapping(&m, true)
		if err != nil {
			return err
		}
		m.ID, err = t.Insert("INSERT INTO mapping (revision, machine, volume, lun, read_only, boot, created) VALUES (1, ?, ?, ?, ?, ?, ?)",
			int64(m.Machine), int64(m.Volume), int64(m.LUN), m.ReadOnly, m.Boot, dbfile.Nanos(m.Created))
		if err != nil {
			return err
		}
		t.move(mapped)
		return t.audit(actor, "mapping.create", c.machine.Name, fmt.Sprintf("LUN %d is volume %s%s", m.LUN, c.volume.Name, manner(&m)))
	})
	if err != nil {
		return store.Mapping{}, err
	}
	return m, nil
}

// UpdateMapping changes a mapping, which is found by its ID, or by its machine
// and LUN when the ID is zero. It stays with its machine.
func (db *DB) UpdateMapping(ctx context.Context, actor store.Actor, m store.Mapping) (store.Mapping, error) {
	if err := m.Validate(); err != nil {
		return store.Mapping{}, err
	}
	err := db.write(ctx, "change mapping", func(t *tx) error {
		old, err := t.mapping(&m)
		if err != nil {
			return err
		}
		if m.Machine != old.Machine {
			return store.Invalid("machine", "a mapping stays with its machine; unmap the volume and map it to the other one")
		}
		m.ID, m.Created = old.ID, old.Created
		c, err := t.checkMapping(&m, m.Volume != old.Volume)
		if err != nil {
			return err
		}
		if err := checkRevision("mapping", fmt.Sprintf("%s LUN %d", c.machine.Name, old.LUN), old.Revision, m.Revision); err != nil {
			return err
		}
		m.Revision = old.Revision
		if m == old {
			return nil
		}
		m.Revision++
		_, err = t.Run("UPDATE mapping SET revision = ?, volume = ?, lun = ?, read_only = ?, boot = ? WHERE id = ?",
			m.Revision, int64(m.Volume), int64(m.LUN), m.ReadOnly, m.Boot, m.ID)
		if err != nil {
			return err
		}
		t.move(mapped)
		var d diff
		d.add("LUN", fmt.Sprint(old.LUN), fmt.Sprint(m.LUN))
		d.flag("read-only", old.ReadOnly, m.ReadOnly)
		d.flag("boot", old.Boot, m.Boot)
		if m.Volume != old.Volume {
			was, err := volumeBy(t.Ctx, t, old.Volume)
			if err != nil {
				return err
			}
			d.add("volume", was.Name, c.volume.Name)
		}
		// In words it is what the mapping is now: a field alone would not say of which.
		d.words = []string{fmt.Sprintf("LUN %d is volume %s%s", m.LUN, c.volume.Name, manner(&m))}
		if m.LUN != old.LUN {
			d.words[0] += fmt.Sprintf(" (was LUN %d)", old.LUN)
		}
		return t.auditDiff(actor, "mapping.update", c.machine.Name, d)
	})
	if err != nil {
		return store.Mapping{}, err
	}
	return m, nil
}

// DeleteMapping takes a LUN from a machine.
func (db *DB) DeleteMapping(ctx context.Context, actor store.Actor, machine store.MachineID, lun store.LUN) error {
	return db.write(ctx, "unmap volume", func(t *tx) error {
		m, err := t.mapping(&store.Mapping{Machine: machine, LUN: lun})
		if err != nil {
			return err
		}
		names, err := dbfile.One(t.Ctx, t, func(r dbfile.Row) (n [2]string, err error) {
			err = r.Scan(&n[0], &n[1])
			return n, err
		}, nil, "SELECT machine.name, volume.name FROM machine, volume WHERE machine.id = ? AND volume.id = ?", int64(m.Machine), int64(m.Volume))
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM mapping WHERE id = ?", m.ID); err != nil {
			return err
		}
		t.move(mapped)
		return t.audit(actor, "mapping.delete", names[0], fmt.Sprintf("LUN %d was volume %s", lun, names[1]))
	})
}

// mapping finds the mapping that m means.
func (t *tx) mapping(m *store.Mapping) (store.Mapping, error) {
	if m.ID != 0 {
		return dbfile.One(t.Ctx, t, scanMapping, store.NotFound("mapping with number", fmt.Sprint(m.ID)), mappingColumns+"WHERE id = ?", m.ID)
	}
	return dbfile.One(t.Ctx, t, scanMapping, store.NotFound("mapping", fmt.Sprintf("machine %d, LUN %d", m.Machine, m.LUN)),
		mappingColumns+"WHERE machine = ? AND lun = ?", int64(m.Machine), int64(m.LUN))
}

// mappingContext is what a mapping joins.
type mappingContext struct {
	machine store.Machine
	volume  store.Volume
}

// checkMapping refuses a mapping that breaks a rule, and names what is in the
// way. usable asks for a volume that can be read.
func (t *tx) checkMapping(m *store.Mapping, usable bool) (c mappingContext, err error) {
	c.machine, err = machineBy(t.Ctx, t, "number", fmt.Sprint(m.Machine), "id = ?", int64(m.Machine))
	if err != nil {
		return c, err
	}
	if c.volume, err = volumeBy(t.Ctx, t, m.Volume); err != nil {
		return c, err
	}
	name := c.machine.Name
	if usable && (c.volume.State == store.VolumeFailed || c.volume.State == store.VolumeRemoving) {
		why := ""
		if c.volume.Reason != "" {
			why = " (" + c.volume.Reason + ")"
		}
		return c, store.Conflict("volume", "volume %s is %s%s and cannot be mapped", c.volume.Name, c.volume.State, why)
	}
	other := func(where string, args ...any) (lun int64, volume string, found bool, err error) {
		err = t.QueryRowContext(t.Ctx, "SELECT lun, volume.name FROM mapping JOIN volume ON volume.id = volume WHERE mapping.id <> ? AND "+where, append([]any{m.ID}, args...)...).Scan(&lun, &volume)
		if err == sql.ErrNoRows {
			return 0, "", false, nil
		}
		return lun, volume, err == nil, err
	}
	if lun, volume, found, err := other("machine = ? AND lun = ?", int64(m.Machine), int64(m.LUN)); err != nil {
		return c, err
	} else if found {
		return c, store.Conflict("lun", "machine %s has volume %s as LUN %d already", name, volume, lun)
	}
	if m.Boot {
		if lun, volume, found, err := other("machine = ? AND boot = 1", int64(m.Machine)); err != nil {
			return c, err
		} else if found {
			return c, store.Conflict("boot", "machine %s boots from LUN %d (volume %s) already; a machine has one boot mapping", name, lun, volume)
		}
	}
	if m.ReadOnly || c.volume.ReadOnly || c.volume.Shared {
		return c, nil
	}
	holders, err := t.writers(m.Volume, m.Machine)
	if err != nil {
		return c, err
	}
	if len(holders) > 0 {
		return c, store.Conflict("volume", "volume %s is mapped writable to machine %s; map it read-only, or mark the volume shared if its file system can be written by several machines", c.volume.Name, holders[0])
	}
	return c, nil
}

// writers names the machines, other than one, that a volume is mapped writable
// to.
func (t *tx) writers(v store.VolumeID, except store.MachineID) ([]string, error) {
	return dbfile.List(t.Ctx, t, dbfile.Scalar[string],
		"SELECT DISTINCT machine.name FROM mapping JOIN machine ON machine.id = machine WHERE volume = ? AND read_only = 0 AND machine <> ? ORDER BY machine.name",
		int64(v), int64(except))
}

// manner says how a mapping gives its volume.
func manner(m *store.Mapping) string {
	s := ""
	if m.ReadOnly {
		s += ", read-only"
	}
	if m.Boot {
		s += ", boot"
	}
	return s
}
