package sqlite

import (
	"context"
	"fmt"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const snapshotColumns = `SELECT id, volume, name, layer, note, created FROM snapshot `

func scanSnapshot(r dbfile.Row) (s store.Snapshot, err error) {
	var created int64
	err = r.Scan(&s.ID, &s.Volume, &s.Name, &s.Layer, &s.Note, &created)
	s.Created = dbfile.Instant(created)
	return s, err
}

const versionColumns = `SELECT volume, number, layer, note, created FROM volume_version `

func scanVersion(r dbfile.Row) (v store.VolumeVersion, err error) {
	var created int64
	err = r.Scan(&v.Volume, &v.Number, &v.Layer, &v.Note, &created)
	v.Created = dbfile.Instant(created)
	return v, err
}

// Snapshots returns the snapshots of all volumes, by volume and age.
func (db *DB) Snapshots(ctx context.Context) ([]store.Snapshot, error) {
	return dbfile.List(ctx, db.file.Reader(), scanSnapshot, snapshotColumns+"ORDER BY volume, id")
}

// Versions returns the versions of all golden volumes, by volume and number.
func (db *DB) Versions(ctx context.Context) ([]store.VolumeVersion, error) {
	return dbfile.List(ctx, db.file.Reader(), scanVersion, versionColumns+"ORDER BY volume, number")
}

// DeleteSnapshot forgets a snapshot by its name. Its bytes stay where newer ones
// stand on them; a layer that nothing stands on is loose afterwards.
func (db *DB) DeleteSnapshot(ctx context.Context, actor store.Actor, id store.VolumeID, name string) error {
	_, err := db.act(ctx, actor, "remove snapshot", "snapshot.delete", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		s, err := dbfile.One(t.Ctx, t, scanSnapshot, store.NotFound("snapshot of volume "+v.Name, name), snapshotColumns+"WHERE volume = ? AND name = ?", int64(id), strings.ToLower(name))
		if err != nil {
			return v, "", err
		}
		clones, err := t.standing(s.Layer, id)
		if err != nil {
			return v, "", err
		}
		if len(clones) > 0 {
			return v, "", store.InUse("snapshot %s of volume %s is what %s was cloned from; remove or flatten that first", s.Name, v.Name, strings.Join(clones, ", "))
		}
		_, err = t.Run("DELETE FROM snapshot WHERE id = ?", s.ID)
		return v, "snapshot " + s.Name, err
	})
	return err
}

// standing names the volumes, other than one, with a layer right upon this one.
func (t *tx) standing(l store.LayerID, except store.VolumeID) ([]string, error) {
	return dbfile.List(t.Ctx, t, dbfile.Scalar[string],
		"SELECT DISTINCT volume.name FROM layer JOIN volume ON volume.id = layer.volume WHERE layer.below = ? AND layer.volume <> ? ORDER BY volume.name", int64(l), int64(except))
}

// AddVersion gives a golden volume its next version, which is the current one
// from then on. The layer must be the volume's own. Number is chosen here.
func (db *DB) AddVersion(ctx context.Context, actor store.Actor, n store.VolumeVersion) (store.Volume, error) {
	return db.act(ctx, actor, "add version", "volume.promote", n.Volume, func(t *tx, v store.Volume) (store.Volume, string, error) {
		if !v.Golden {
			return v, "", store.Conflict("golden", "volume %s is not golden and has no versions", v.Name)
		}
		l, err := t.newTop(v, n.Layer)
		if err != nil {
			return v, "", err
		}
		last, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int64], nil, "SELECT coalesce(max(number), 0) FROM volume_version WHERE volume = ?", int64(v.ID))
		if err != nil {
			return v, "", err
		}
		n.Number = int(last) + 1
		if err := t.insertVersion(&n); err != nil {
			return v, "", err
		}
		v.Version, v.Size = n.Number, l.Size
		v, err = t.setTop(v, l.ID)
		return v, strings.TrimSuffix(fmt.Sprintf("version %d is the current one: %s", n.Number, n.Note), ": "), err
	})
}

// SetVersion makes another version of a golden volume the current one.
func (db *DB) SetVersion(ctx context.Context, actor store.Actor, id store.VolumeID, number int) (store.Volume, error) {
	return db.act(ctx, actor, "change version", "version.current", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		n, err := t.version(v, number)
		if err != nil {
			return v, "", err
		}
		l, err := layerBy(t.Ctx, t, n.Layer)
		if err != nil {
			return v, "", err
		}
		was := v.Version
		v.Version, v.Size = n.Number, l.Size
		v, err = t.setTop(v, l.ID)
		return v, fmt.Sprintf("version %d is the current one, it was %d", number, was), err
	})
}

// NoteVersion changes what is said of a version.
func (db *DB) NoteVersion(ctx context.Context, actor store.Actor, id store.VolumeID, number int, note string) error {
	_, err := db.act(ctx, actor, "change version", "version.note", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		n, err := t.version(v, number)
		if err != nil {
			return v, "", err
		}
		n.Note = note
		if err := n.Validate(); err != nil {
			return v, "", err
		}
		_, err = t.Run("UPDATE volume_version SET note = ? WHERE volume = ? AND number = ?", note, int64(id), number)
		return v, fmt.Sprintf("version %d: %s", number, note), err
	})
	return err
}

// DeleteVersion forgets a version that nothing stands on. Its layer is loose
// afterwards.
func (db *DB) DeleteVersion(ctx context.Context, actor store.Actor, id store.VolumeID, number int) error {
	_, err := db.act(ctx, actor, "remove version", "version.delete", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		n, err := t.version(v, number)
		if err != nil {
			return v, "", err
		}
		if number == v.Version {
			return v, "", store.InUse("version %d of volume %s is the current one; make another one current first", number, v.Name)
		}
		users, err := t.standing(n.Layer, 0)
		if err != nil {
			return v, "", err
		}
		if len(users) > 0 {
			return v, "", store.InUse("version %d of volume %s is what %s stands on; remove or flatten that first", number, v.Name, strings.Join(users, ", "))
		}
		_, err = t.Run("DELETE FROM volume_version WHERE volume = ? AND number = ?", int64(id), number)
		return v, fmt.Sprintf("version %d", number), err
	})
	return err
}

// version finds a version and names those that there are when it is missing.
func (t *tx) version(v store.Volume, number int) (store.VolumeVersion, error) {
	if !v.Golden {
		return store.VolumeVersion{}, store.Conflict("golden", "volume %s is not golden and has no versions", v.Name)
	}
	all, err := dbfile.List(t.Ctx, t, scanVersion, versionColumns+"WHERE volume = ? ORDER BY number", int64(v.ID))
	if err != nil {
		return store.VolumeVersion{}, err
	}
	var have []string
	for _, n := range all {
		if n.Number == number {
			return n, nil
		}
		have = append(have, fmt.Sprint(n.Number))
	}
	return store.VolumeVersion{}, &store.Error{Kind: store.KindNotFound, Field: "version", Msg: fmt.Sprintf("volume %s has no version %d; it has %s", v.Name, number, strings.Join(have, ", "))}
}
