package sqlite

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const volumeColumns = `SELECT id, revision, name, uuid, kind, size, block_size, coalesce(parent, 0), read_only, shared, reset, sanitize, direct, volatile,
	state, progress, reason, coalesce((SELECT layer.path FROM layer WHERE layer.id = volume.top), ''), created_from, created, updated,
	golden, version, coalesce(top, 0) FROM volume `

func scanVolume(r dbfile.Row) (store.Volume, error) {
	var (
		v                store.Volume
		uuid             string
		created, updated int64
	)
	err := r.Scan(&v.ID, &v.Revision, &v.Name, &uuid, &v.Kind, &v.Size, &v.BlockSize, &v.Parent, &v.ReadOnly, &v.Shared, &v.Reset, &v.Sanitize, &v.Direct, &v.Volatile,
		&v.State, &v.Progress, &v.Reason, &v.Path, &v.From, &created, &updated, &v.Golden, &v.Version, &v.Top)
	if err != nil {
		return store.Volume{}, err
	}
	v.Created, v.Updated = dbfile.Instant(created), dbfile.Instant(updated)
	if v.UUID, err = store.ParseUUID(uuid); err != nil {
		return store.Volume{}, damaged("volume "+v.Name, err)
	}
	return v, nil
}

func volumeBy(ctx context.Context, q dbfile.Querier, id store.VolumeID) (store.Volume, error) {
	v, err := dbfile.One(ctx, q, scanVolume, store.NotFound("volume with number", fmt.Sprint(id)), volumeColumns+"WHERE id = ?", int64(id))
	if err != nil {
		return store.Volume{}, err
	}
	return withLayers(ctx, q, v)
}

// Volume returns the volume with this id, and its layers as of the same moment.
func (db *DB) Volume(ctx context.Context, id store.VolumeID) (v store.Volume, err error) {
	err = db.file.Read(ctx, func(q dbfile.Querier) error {
		v, err = volumeBy(ctx, q, id)
		return err
	})
	return v, err
}

// VolumeByName returns the volume with this name, in either case.
func (db *DB) VolumeByName(ctx context.Context, name string) (v store.Volume, err error) {
	err = db.file.Read(ctx, func(q dbfile.Querier) error {
		v, err = dbfile.One(ctx, q, scanVolume, store.NotFound("volume", name), volumeColumns+"WHERE name = ?", strings.ToLower(name))
		if err == nil {
			v, err = withLayers(ctx, q, v)
		}
		return err
	})
	return v, err
}

// Volumes returns every volume, by name.
func (db *DB) Volumes(ctx context.Context) (vs []store.Volume, err error) {
	err = db.file.Read(ctx, func(q dbfile.Querier) error {
		if vs, err = dbfile.List(ctx, q, scanVolume, volumeColumns+"ORDER BY name"); err != nil {
			return err
		}
		layers, err := dbfile.List(ctx, q, scanLayer, layerColumns)
		if err != nil {
			return err
		}
		known := make(map[store.LayerID]store.Layer, len(layers))
		for _, l := range layers {
			known[l.ID] = l
		}
		for i := range vs {
			// The bound keeps a damaged file from being followed for ever.
			for id := vs[i].Top; id != 0 && len(vs[i].Layers) < 64; id = known[id].Below {
				vs[i].Layers = append(vs[i].Layers, known[id])
			}
			slices.Reverse(vs[i].Layers)
		}
		return nil
	})
	return vs, err
}

// CreateVolume adds a volume's row and that of its first layer: the one in
// Layers, or by the volume's kind a raw file, its device, or an overlay over what
// the parent holds. A volume without a UUID is given one, and one without a state
// is ready.
func (db *DB) CreateVolume(ctx context.Context, actor store.Actor, v store.Volume) (store.Volume, error) {
	if v.UUID.IsZero() {
		v.UUID = store.NewUUID()
	}
	if v.State == "" {
		v.State = store.VolumeReady
	}
	v.Name = strings.ToLower(v.Name)
	if err := validVolume(&v); err != nil {
		return store.Volume{}, err
	}
	err := db.write(ctx, "create volume", func(t *tx) error {
		v.ID, v.Revision, v.Created, v.Updated = 0, 1, t.now, t.now
		v.Golden, v.Version, v.Top = false, 0, 0
		if err := checkNewName(v.Name); err != nil {
			return err
		}
		if err := t.checkVolume(&v); err != nil {
			return err
		}
		n, err := t.Insert(`INSERT INTO volume (name, uuid, kind, size, block_size, parent, read_only, shared, reset, sanitize, direct, volatile, state, progress, reason,
			created_from, updated, revision, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			append(volumeValues(&v), v.Revision, dbfile.Nanos(v.Created))...)
		if err != nil {
			return err
		}
		v.ID = store.VolumeID(n)
		l, err := t.firstLayer(&v)
		if err != nil {
			return err
		}
		if err := t.insertLayer(&l); err != nil {
			return err
		}
		if v, err = t.setTop(v, l.ID); err != nil {
			return err
		}
		if _, err := t.Run("UPDATE volume SET top = ?, version = ? WHERE id = ?", int64(v.Top), v.Version, int64(v.ID)); err != nil {
			return err
		}
		t.move(mapped)
		return t.auditDiff(actor, "volume.create", v.Name, volumeChanges(&store.Volume{}, &v))
	})
	if err != nil {
		return store.Volume{}, err
	}
	return v, nil
}

// UpdateVolume changes a volume's row. A Revision that is not zero must be the
// present one. What the volume's bytes lie in stays: the acts on layers change
// that, and with it whether the volume is golden or a clone.
func (db *DB) UpdateVolume(ctx context.Context, actor store.Actor, v store.Volume) (store.Volume, error) {
	v.Name = strings.ToLower(v.Name)
	err := db.write(ctx, "change volume", func(t *tx) error {
		old, err := volumeBy(t.Ctx, t, v.ID)
		if err != nil {
			return err
		}
		v.Golden, v.Version, v.Top, v.Layers = old.Golden, old.Version, old.Top, old.Layers
		if old.Golden && !v.ReadOnly {
			clones, err := t.clones(v.ID)
			if err != nil {
				return err
			}
			if len(clones) > 0 {
				return store.InUse("volume %s is the parent of %s, which would change under it; it stays read-only", v.Name, strings.Join(clones, ", "))
			}
		}
		if err := validVolume(&v); err != nil {
			return err
		}
		if err := checkRevision("volume", old.Name, old.Revision, v.Revision); err != nil {
			return err
		}
		if v.Name != old.Name {
			if err := checkNewName(v.Name); err != nil {
				return err
			}
		}
		if v.UUID.IsZero() {
			v.UUID = old.UUID
		}
		if err := t.checkVolume(&v); err != nil {
			return err
		}
		if v.Kind != old.Kind || v.Parent != old.Parent {
			return store.Invalid("parent", "what volume %s stands on is not changed by a word; flatten it, or make a clone", old.Name)
		}
		if old.Golden && v.Size != old.Size {
			return store.Conflict("size", "volume %s is golden and never changes; grow a clone and promote it", old.Name)
		}
		if old.Reset && !v.Reset && v.TopLayer().Volatile {
			return volatileError(old)
		}
		if !v.ReadOnly && !v.Shared && (old.ReadOnly || old.Shared) {
			holders, err := t.writers(v.ID, 0)
			if err != nil {
				return err
			}
			if len(holders) > 1 {
				return store.Conflict("shared", "volume %s is mapped writable to %s; let only one machine write it, or leave it shared", v.Name, strings.Join(holders, " and "))
			}
		}
		v.Created = old.Created
		changes := volumeChanges(&old, &v)
		if changes.empty() && v.Progress == old.Progress {
			v = old
			return nil
		}
		v.Revision, v.Updated = old.Revision+1, t.now
		_, err = t.Run(`UPDATE volume SET name = ?, uuid = ?, kind = ?, size = ?, block_size = ?, parent = ?, read_only = ?, shared = ?, reset = ?, sanitize = ?, direct = ?, volatile = ?,
			state = ?, progress = ?, reason = ?, created_from = ?, updated = ?, revision = ?, reset_due = reset_due AND ? WHERE id = ?`,
			append(volumeValues(&v), v.Revision, v.Reset, int64(v.ID))...)
		if err != nil {
			return err
		}
		if !v.Sanitize {
			if err := t.endWipe(v.ID); err != nil { // what is written from now on is nobody's to wipe
				return err
			}
		}
		if v.Top != 0 && (v.Size != old.Size || v.Path != old.Path) {
			if _, err := t.Run("UPDATE layer SET size = ?, path = ? WHERE id = ?", v.Size, v.Path, int64(v.Top)); err != nil {
				return err
			}
			if v, err = withLayers(t.Ctx, t, v); err != nil {
				return err
			}
		}
		if changes.empty() {
			// Progress is nobody's decision: a hundred rows of it would
			// bury the audit log, and no initiator sees it.
			t.move(changed)
			return nil
		}
		t.move(mapped)
		return t.auditDiff(actor, "volume.update", v.Name, changes)
	})
	if err != nil {
		return store.Volume{}, err
	}
	return v, nil
}

// DeleteVolume removes a volume's row. A volume that a machine has, or that
// another volume stands on, stays.
func (db *DB) DeleteVolume(ctx context.Context, actor store.Actor, id store.VolumeID) error {
	return db.write(ctx, "remove volume", func(t *tx) error {
		v, err := volumeBy(t.Ctx, t, id)
		if err != nil {
			return err
		}
		used, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string],
			"SELECT machine.name || ' as LUN ' || lun FROM mapping JOIN machine ON machine.id = machine WHERE volume = ? ORDER BY machine.name, lun", int64(id))
		if err != nil {
			return err
		}
		if len(used) > 0 {
			return store.InUse("volume %s is mapped to machine %s; unmap it first", v.Name, strings.Join(used, ", "))
		}
		clones, err := t.clones(id)
		if err != nil {
			return err
		}
		if len(clones) > 0 {
			return store.InUse("volume %s is the parent of %s; remove or flatten that first", v.Name, strings.Join(clones, ", "))
		}
		for _, gone := range [...]string{
			"DELETE FROM snapshot WHERE volume = ?", "DELETE FROM volume_version WHERE volume = ?",
			"UPDATE volume SET top = NULL WHERE id = ?", "DELETE FROM layer WHERE volume = ?",
		} {
			if _, err := t.Run(gone, int64(id)); err != nil {
				return err
			}
		}
		if _, err := t.Run("DELETE FROM volume WHERE id = ?", int64(id)); err != nil {
			return err
		}
		t.move(mapped)
		return t.auditDiff(actor, "volume.delete", v.Name, volumeChanges(&v, &store.Volume{}).gone(store.Bytes(v.Size)))
	})
}

// clones names the volumes that stand on one: with their bytes as they are, or
// with those of a snapshot or version of theirs.
func (t *tx) clones(id store.VolumeID) ([]string, error) {
	return dbfile.List(t.Ctx, t, dbfile.Scalar[string], `SELECT name FROM volume WHERE parent = ?1 UNION
		SELECT volume.name FROM layer AS above JOIN layer AS below ON below.id = above.below JOIN volume ON volume.id = above.volume
		WHERE below.volume = ?1 AND above.volume <> ?1 ORDER BY name`, int64(id))
}

func validVolume(v *store.Volume) error {
	if err := v.Validate(); err != nil {
		return err
	}
	switch v.State {
	case store.VolumeCreating, store.VolumeImporting, store.VolumeReady, store.VolumeFailed, store.VolumeRemoving, store.VolumePromoting:
		return nil
	}
	return store.Invalid("state", "%q is not a state of a volume", v.State)
}

// checkNewName refuses the names that say something else where a clone's golden
// volume is named. A volume that had one before keeps it.
func checkNewName(name string) error {
	if name == store.CloneOfNone || name == store.CloneOfDefault {
		return store.Invalid("name", "a volume is not named %s: that stands for another choice where machines are given clones; take another name", name)
	}
	return nil
}

// checkVolume refuses a volume that another one is in the way of, and a parent
// that does not exist.
func (t *tx) checkVolume(v *store.Volume) error {
	for _, u := range [...]struct{ column, what, value string }{
		{"name", "the name", v.Name},
		{"uuid", "the UUID", v.UUID.String()},
	} {
		if u.value == "" {
			continue
		}
		other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT name FROM volume WHERE "+u.column+" = ? AND id <> ?", u.value, int64(v.ID))
		if err != nil {
			return err
		}
		switch {
		case len(other) > 0 && u.column == "name":
			return store.Conflict(u.column, "volume %s exists already; choose another name", u.value)
		case len(other) > 0:
			return store.Conflict(u.column, "volume %s has %s %s already", other[0], u.what, u.value)
		}
	}
	if v.Path != "" {
		other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string],
			"SELECT volume.name FROM layer JOIN volume ON volume.id = layer.volume WHERE layer.path = ? AND layer.volume <> ?", v.Path, int64(v.ID))
		if err != nil {
			return err
		}
		if len(other) > 0 {
			return store.Conflict("path", "volume %s has the path %s already", other[0], v.Path)
		}
	}
	switch {
	case v.Kind == store.VolumeClone && v.Parent == 0:
		return store.Invalid("parent", "a clone stands on another volume; name its parent")
	case v.Kind != store.VolumeClone && v.Parent != 0:
		return store.Invalid("parent", "a volume of kind %s stands on nothing", v.Kind)
	case v.Parent == v.ID && v.Parent != 0:
		return store.Invalid("parent", "volume %s cannot stand on itself", v.Name)
	case v.Parent == 0:
		return nil
	}
	_, err := volumeBy(t.Ctx, t, v.Parent)
	if store.IsNotFound(err) {
		return store.Invalid("parent", "there is no volume with number %d to stand on", v.Parent)
	}
	return err
}

func volumeValues(v *store.Volume) []any {
	return []any{v.Name, v.UUID.String(), string(v.Kind), v.Size, v.BlockSize, dbfile.Ref(v.Parent), v.ReadOnly, v.Shared, v.Reset, v.Sanitize, v.Direct, v.Volatile,
		string(v.State), v.Progress, v.Reason, v.From, dbfile.Nanos(v.Updated)}
}

func volumeChanges(a, b *store.Volume) diff {
	var d diff
	d.add("name", a.Name, b.Name)
	d.add("UUID", shown(a.UUID), shown(b.UUID))
	d.add("kind", string(a.Kind), string(b.Kind))
	if a.Size != b.Size {
		d.add("size", strings.TrimPrefix(store.Bytes(a.Size), "0 B"), fmt.Sprintf("%s (%d bytes)", store.Bytes(b.Size), b.Size))
	}
	d.number("block size", int64(a.BlockSize), int64(b.BlockSize))
	d.number("parent", int64(a.Parent), int64(b.Parent))
	d.flag("read-only", a.ReadOnly, b.ReadOnly)
	d.flag("shared", a.Shared, b.Shared)
	d.flag("reset at boot", a.Reset, b.Reset)
	d.flag("volatile", a.Volatile, b.Volatile)
	d.flag("sanitize", a.Sanitize, b.Sanitize)
	d.flag("direct", a.Direct, b.Direct)
	d.add("state", string(a.State), string(b.State))
	d.add("reason", a.Reason, b.Reason)
	d.add("path", a.Path, b.Path)
	d.add("created from", a.From, b.From)
	return d
}
