package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const layerColumns = `SELECT layer.id, layer.uuid, layer.volume, layer.kind, layer.path, coalesce(layer.below, 0), layer.size, layer.frozen, layer.volatile, layer.created FROM layer `

func scanLayer(r dbfile.Row) (store.Layer, error) {
	var (
		l       store.Layer
		uuid    string
		created int64
	)
	err := r.Scan(&l.ID, &uuid, &l.Volume, &l.Kind, &l.Path, &l.Below, &l.Size, &l.Frozen, &l.Volatile, &created)
	if err != nil {
		return store.Layer{}, err
	}
	l.Created = dbfile.Instant(created)
	if l.UUID, err = store.ParseUUID(uuid); err != nil {
		return store.Layer{}, damaged("layer "+l.Path, err)
	}
	return l, nil
}

func layerBy(ctx context.Context, q dbfile.Querier, id store.LayerID) (store.Layer, error) {
	return dbfile.One(ctx, q, scanLayer, store.NotFound("layer with number", fmt.Sprint(id)), layerColumns+"WHERE id = ?", int64(id))
}

// chainOf returns a layer and what it stands on, bottom to top.
func chainOf(ctx context.Context, q dbfile.Querier, top store.LayerID) ([]store.Layer, error) {
	// The bound keeps a damaged file from being read for ever.
	return dbfile.List(ctx, q, scanLayer, `WITH RECURSIVE chain (id, depth) AS (SELECT ?, 0
		UNION ALL SELECT layer.below, depth + 1 FROM layer JOIN chain ON layer.id = chain.id WHERE layer.below IS NOT NULL AND depth < 64) `+
		layerColumns+"JOIN chain ON layer.id = chain.id ORDER BY chain.depth DESC", int64(top))
}

// withLayers gives a volume its layers.
func withLayers(ctx context.Context, q dbfile.Querier, v store.Volume) (store.Volume, error) {
	if v.Top == 0 {
		return v, nil
	}
	var err error
	v.Layers, err = chainOf(ctx, q, v.Top)
	return v, err
}

// Layers returns every layer, the oldest first.
func (db *DB) Layers(ctx context.Context) ([]store.Layer, error) {
	return dbfile.List(ctx, db.file.Reader(), scanLayer, layerColumns+"ORDER BY id")
}

// LooseLayers returns the layers that nothing names any more, those that stand
// on others first: files to be removed, then their rows.
func (db *DB) LooseLayers(ctx context.Context) ([]store.Layer, error) {
	return dbfile.List(ctx, db.file.Reader(), scanLayer, looseLayers)
}

// LayerNamings counts what names each of the layers that a volume lies in.
func (db *DB) LayerNamings(ctx context.Context, id store.VolumeID) (map[store.LayerID]store.LayerNaming, error) {
	out := map[store.LayerID]store.LayerNaming{}
	err := db.file.Read(ctx, func(q dbfile.Querier) error {
		v, err := volumeBy(ctx, q, id)
		if err != nil {
			return err
		}
		for _, l := range v.Layers {
			out[l.ID], err = dbfile.One(ctx, q, func(r dbfile.Row) (n store.LayerNaming, err error) {
				err = r.Scan(&n.Tops, &n.Others)
				return n, err
			}, nil, `SELECT (SELECT count(*) FROM volume WHERE top = ?1), (SELECT count(*) FROM layer WHERE below = ?1)
				+ (SELECT count(*) FROM snapshot WHERE layer = ?1) + (SELECT count(*) FROM volume_version WHERE layer = ?1)`, int64(l.ID))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

const looseLayers = `WITH RECURSIVE kept (id) AS (
	SELECT top FROM volume WHERE top IS NOT NULL UNION SELECT layer FROM snapshot UNION SELECT layer FROM volume_version
	UNION SELECT layer.below FROM layer JOIN kept ON layer.id = kept.id WHERE layer.below IS NOT NULL) ` +
	layerColumns + "WHERE layer.id NOT IN (SELECT id FROM kept) ORDER BY layer.id DESC"

// CreateLayer adds the row of a layer whose file is about to be made. Nothing
// names it until one of the acts below does, so a crash between leaves a loose
// layer. It is nobody's decision, and writes no audit row; the act does.
func (db *DB) CreateLayer(ctx context.Context, l store.Layer) (store.Layer, error) {
	err := db.write(ctx, "create layer", func(t *tx) error {
		if _, err := volumeBy(t.Ctx, t, l.Volume); err != nil {
			return err
		}
		return t.insertLayer(&l)
	})
	if err != nil {
		return store.Layer{}, err
	}
	return l, nil
}

// DeleteLayer removes the row of a loose layer, whose file is gone.
func (db *DB) DeleteLayer(ctx context.Context, id store.LayerID) error {
	return db.write(ctx, "remove layer", func(t *tx) error {
		l, err := layerBy(t.Ctx, t, id)
		if err != nil {
			return err
		}
		loose, err := dbfile.List(t.Ctx, t, scanLayer, looseLayers)
		if err != nil {
			return err
		}
		found := false
		for _, o := range loose {
			found = found || o.ID == id
			if o.Below == id {
				return store.InUse("layer %s is still below layer %s", l.Path, o.Path)
			}
		}
		if !found {
			return store.InUse("layer %s is still a part of a volume, a snapshot or a version", l.Path)
		}
		_, err = t.Run("DELETE FROM layer WHERE id = ?", int64(id))
		return err
	})
}

// insertLayer adds a layer after its rules were checked.
func (t *tx) insertLayer(l *store.Layer) error {
	if l.UUID.IsZero() {
		l.UUID = store.NewUUID()
	}
	if err := l.Validate(); err != nil {
		return err
	}
	if l.Below != 0 {
		chain, err := chainOf(t.Ctx, t, l.Below)
		if err != nil {
			return err
		}
		if len(chain) == 0 {
			return store.Invalid("below", "there is no layer with number %d to stand on", l.Below)
		}
		below := chain[len(chain)-1]
		owner, err := volumeBy(t.Ctx, t, below.Volume)
		if err != nil {
			return err
		}
		// The top layer of the volume itself is frozen by the snapshot that
		// makes the new one its top.
		if !below.Frozen && below.Volume != l.Volume {
			return store.Conflict("parent", "volume %s can still be written; freeze it (lunboot volume freeze %s), or take a snapshot and clone that", owner.Name, owner.Name)
		}
		// Once the new layer stands there, its version or snapshot is kept.
		// Before, it may have been forgotten since the caller read its row.
		if below.Volume != l.Volume {
			kept, err := dbfile.One(t.Ctx, t, dbfile.Scalar[int64], nil,
				"SELECT EXISTS (SELECT 1 FROM volume_version WHERE layer = ?1) OR EXISTS (SELECT 1 FROM snapshot WHERE layer = ?1)", int64(below.ID))
			if err != nil {
				return err
			}
			if kept == 0 {
				return store.Conflict("below", "what was to be cloned of volume %s is being removed; choose another of its versions or snapshots", owner.Name)
			}
		}
		if len(chain) >= store.MaxLayers {
			return store.Conflict("layers", "volume %s lies in %d layers, and a read would look through one more; they are merged in the background, which its job tells of (lunboot job list): wait for it and mend what it says, or flatten the volume (lunboot volume flatten %s)", owner.Name, len(chain), owner.Name)
		}
	}
	other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT volume.name FROM layer JOIN volume ON volume.id = layer.volume WHERE layer.path = ?", l.Path)
	if err != nil {
		return err
	}
	if len(other) > 0 {
		return store.Conflict("path", "volume %s has the path %s already", other[0], l.Path)
	}
	l.Created = t.now
	n, err := t.Insert("INSERT INTO layer (uuid, volume, kind, path, below, size, frozen, volatile, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		l.UUID.String(), int64(l.Volume), string(l.Kind), l.Path, dbfile.Ref(l.Below), l.Size, l.Frozen, l.Volatile, dbfile.Nanos(l.Created))
	l.ID = store.LayerID(n)
	return err
}

// firstLayer is the layer that a new volume is made with: the one that its maker
// names, or what its kind asks for.
func (t *tx) firstLayer(v *store.Volume) (store.Layer, error) {
	var l store.Layer
	switch {
	case len(v.Layers) > 0:
		l = v.TopLayer()
		l.ID, l.Volume, l.Size = 0, v.ID, v.Size
	case v.Kind == store.VolumeClone:
		parent, err := volumeBy(t.Ctx, t, v.Parent)
		if err != nil {
			return l, err
		}
		if parent.Top == 0 {
			return l, store.Invalid("parent", "volume %s has no layer to stand on", parent.Name)
		}
		l = store.NewLayer(*v, parent.Top)
	default:
		l = store.NewLayer(*v, 0)
		l.Kind = store.LayerKind(v.Kind)
	}
	if v.Path != "" {
		l.Path = v.Path
	}
	if l.Below == 0 {
		return l, nil
	}
	below, err := layerBy(t.Ctx, t, l.Below)
	if err == nil && below.Volume != v.Parent {
		return l, store.Invalid("parent", "the layer to stand on belongs to another volume than the parent")
	}
	return l, err
}

// setTop makes a layer the top of a volume, and derives from the new chain what
// the row says of it: whose clone it is, and of which version.
func (t *tx) setTop(v store.Volume, top store.LayerID) (store.Volume, error) {
	v.Top = top
	v, err := withLayers(t.Ctx, t, v)
	if err != nil {
		return v, err
	}
	base := v.Base()
	v.Parent = base.Volume
	if base.ID != 0 {
		v.Kind = store.VolumeClone
	} else if v.Kind == store.VolumeClone {
		v.Kind = store.VolumeRaw
	}
	if !v.Golden {
		v.Version = 0
		versions, err := dbfile.List(t.Ctx, t, dbfile.Scalar[int64], "SELECT number FROM volume_version WHERE layer = ?", int64(base.ID))
		if err != nil {
			return v, err
		}
		if len(versions) > 0 {
			v.Version = int(versions[0])
		}
	}
	v.Path = v.TopLayer().Path
	return v, v.Validate()
}

// putVolume writes the row after one of the acts on layers.
func (t *tx) putVolume(v store.Volume) (store.Volume, error) {
	v.Revision, v.Updated = v.Revision+1, t.now
	_, err := t.Run(`UPDATE volume SET kind = ?, size = ?, parent = ?, read_only = ?, shared = ?, sanitize = ?, reset = ?, volatile = ?, reset_due = reset_due AND ?, golden = ?, version = ?, top = ?, updated = ?, revision = ? WHERE id = ?`,
		string(v.Kind), v.Size, dbfile.Ref(v.Parent), v.ReadOnly, v.Shared, v.Sanitize, v.Reset, v.Volatile, v.Reset, v.Golden, v.Version, dbfile.Ref(v.Top), dbfile.Nanos(v.Updated), v.Revision, int64(v.ID))
	if err == nil && !v.Sanitize {
		err = t.endWipe(v.ID)
	}
	t.move(mapped)
	return v, err
}

// act changes one volume and its layers in one transaction, with its audit row.
func (db *DB) act(ctx context.Context, actor store.Actor, op, action string, id store.VolumeID, fn func(*tx, store.Volume) (store.Volume, string, error)) (v store.Volume, err error) {
	err = db.write(ctx, op, func(t *tx) error {
		old, err := volumeBy(t.Ctx, t, id)
		if err != nil {
			return err
		}
		var detail string
		if v, detail, err = fn(t, old); err != nil {
			return err
		}
		if v, err = t.putVolume(v); err != nil {
			return err
		}
		return t.audit(actor, action, v.Name, detail)
	})
	if err != nil {
		return store.Volume{}, err
	}
	return v, nil
}

// newTop is a loose layer that is to become a volume's top.
func (t *tx) newTop(v store.Volume, id store.LayerID) (store.Layer, error) {
	l, err := layerBy(t.Ctx, t, id)
	if err == nil && l.Volume != v.ID {
		err = store.Invalid("layer", "layer %s belongs to another volume", l.Path)
	}
	return l, err
}

// FreezeVolume makes a volume golden: read-only for ever, with what it holds as
// version 1.
func (db *DB) FreezeVolume(ctx context.Context, actor store.Actor, id store.VolumeID, note string) (store.Volume, error) {
	return db.act(ctx, actor, "freeze volume", "volume.freeze", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		if v.Golden {
			return v, "", store.Conflict("golden", "volume %s is golden already; promote a clone of it to give it a new version", v.Name)
		}
		if v.Top == 0 {
			return v, "", store.Conflict("golden", "volume %s has no bytes to freeze", v.Name)
		}
		if len(v.Layers) >= store.MaxLayers {
			return v, "", store.Conflict("layers", "volume %s lies in %d layers, so that nothing can be cloned from it; they are merged in the background, which its job tells of (lunboot job list): wait for it and mend what it says, or flatten the volume (lunboot volume flatten %s)", v.Name, len(v.Layers), v.Name)
		}
		if v.TopLayer().Volatile {
			return v, "", volatileError(v)
		}
		v.Golden, v.ReadOnly, v.Shared, v.Reset, v.Volatile, v.Sanitize, v.Version = true, true, false, false, false, false, 1
		if err := t.insertVersion(&store.VolumeVersion{Volume: id, Number: 1, Layer: v.Top, Note: note}); err != nil {
			return v, "", err
		}
		v, err := t.setTop(v, v.Top)
		return v, "it is golden, version 1", err
	})
}

func (t *tx) insertVersion(v *store.VolumeVersion) error {
	if err := v.Validate(); err != nil {
		return err
	}
	if _, err := t.Run("UPDATE layer SET frozen = 1 WHERE id = ?", int64(v.Layer)); err != nil {
		return err
	}
	v.Created = t.now
	_, err := t.Run("INSERT INTO volume_version (volume, number, layer, note, created) VALUES (?, ?, ?, ?, ?)",
		int64(v.Volume), v.Number, int64(v.Layer), v.Note, dbfile.Nanos(v.Created))
	return err
}

// volatileError is what an act gets that would keep what may be gone tomorrow.
func volatileError(v store.Volume) error {
	return store.Conflict("volatile", "what volume %s holds may be gone after a crash of the appliance's machine; turn that off (lunboot volume set %s --no-volatile) and boot its machine once more, or promote it, which copies it", v.Name, v.Name)
}

// SnapshotVolume freezes a volume's top layer under a name, and puts a new one
// upon it.
func (db *DB) SnapshotVolume(ctx context.Context, actor store.Actor, s store.Snapshot, next store.LayerID) (store.Volume, error) {
	s.Name = strings.ToLower(s.Name)
	if err := s.Validate(); err != nil {
		return store.Volume{}, err
	}
	return db.act(ctx, actor, "take snapshot", "volume.snapshot", s.Volume, func(t *tx, v store.Volume) (store.Volume, string, error) {
		if v.Golden {
			return v, "", store.Conflict("golden", "volume %s is golden and never changes; its versions are its snapshots", v.Name)
		}
		taken, err := dbfile.List(t.Ctx, t, scanSnapshot, snapshotColumns+"WHERE volume = ? AND name = ?", int64(v.ID), s.Name)
		if err != nil {
			return v, "", err
		}
		if len(taken) > 0 {
			return v, "", store.Conflict("name", "volume %s has a snapshot %s already, of %s", v.Name, s.Name, taken[0].Created.Format("2006-01-02 15:04"))
		}
		l, err := t.newTop(v, next)
		if err != nil {
			return v, "", err
		}
		if v.TopLayer().Volatile {
			return v, "", volatileError(v)
		}
		if l.Below != v.Top {
			return v, "", store.Conflict("layer", "volume %s changed meanwhile; take the snapshot again", v.Name)
		}
		if _, err := t.Run("UPDATE layer SET frozen = 1 WHERE id = ?", int64(v.Top)); err != nil {
			return v, "", err
		}
		_, err = t.Insert("INSERT INTO snapshot (volume, name, layer, note, created) VALUES (?, ?, ?, ?, ?)", int64(v.ID), s.Name, int64(v.Top), s.Note, dbfile.Nanos(t.now))
		if err != nil {
			return v, "", err
		}
		v, err = t.setTop(v, next)
		return v, "snapshot " + s.Name, err
	})
}

// ReplaceTop puts a layer in the place of a volume's top: why names the act,
// "volume.rollback" or "volume.reset". The old top is loose afterwards, unless a
// snapshot keeps it. The volume owes its machine no new beginning any more; one
// that owed none is not reset, which is a KindConflict: another boot was first, or
// its operator has turned that off. What was unfinished of a wipe is over.
func (db *DB) ReplaceTop(ctx context.Context, actor store.Actor, why string, id store.VolumeID, next store.LayerID, detail string) (store.Volume, error) {
	return db.act(ctx, actor, "replace layer", why, id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		if v.Golden {
			return v, "", store.Conflict("golden", "volume %s is golden and never changes; make another of its versions the current one", v.Name)
		}
		if v.State != store.VolumeReady {
			return v, "", store.Conflict("state", "volume %s is %s, and keeps the bytes that it has until that is over", v.Name, v.State)
		}
		l, err := t.newTop(v, next)
		if err != nil {
			return v, "", err
		}
		due, err := t.Run("UPDATE volume SET reset_due = 0 WHERE id = ? AND reset_due = 1", int64(id))
		if err != nil {
			return v, "", err
		}
		if due == 0 && why == "volume.reset" {
			return v, "", store.Conflict("reset_at_boot", "volume %s owes no machine a new beginning", v.Name)
		}
		if err := t.endWipe(id); err != nil { // its bytes are gone
			return v, "", err
		}
		// What it starts from now on no installer has put there. A volume that begins
		// anew at each boot does so at an installer's too.
		if why != "volume.reset" {
			if _, err := t.Run("DELETE FROM baseline WHERE volume = ?", int64(id)); err != nil {
				return v, "", err
			}
		}
		v.Size = max(v.Size, l.Size)
		v, err = t.setTop(v, next)
		return v, detail, err
	})
}

// FlattenVolume says that a volume's top layer holds everything: it stands on
// nothing, and needs no map. Its layers below stay while a snapshot names them.
func (db *DB) FlattenVolume(ctx context.Context, actor store.Actor, id store.VolumeID) (store.Volume, error) {
	return db.act(ctx, actor, "flatten volume", "volume.flatten", id, func(t *tx, v store.Volume) (store.Volume, string, error) {
		if v.Golden {
			return v, "", store.Conflict("golden", "volume %s is golden and never changes", v.Name)
		}
		was := v.Layers
		if _, err := t.Run("UPDATE layer SET kind = 'raw', below = NULL, size = ? WHERE id = ? AND kind = 'overlay'", v.Size, int64(v.Top)); err != nil {
			return v, "", err
		}
		v, err := t.setTop(v, v.Top)
		return v, fmt.Sprintf("it stands alone, %d layers became one", len(was)), err
	})
}

// MergeLayers says that the files of a loose layer, next, hold what the layers
// from first up to last do: last has them from then on and stands on what first
// stands on, and next has those that last had, which are to be removed. What lay
// between is loose afterwards, unless something else names it. Layers that are
// others by now are a KindConflict.
func (db *DB) MergeLayers(ctx context.Context, first, last, next store.LayerID) error {
	return db.write(ctx, "merge layers", func(t *tx) error {
		to, err := layerBy(t.Ctx, t, last)
		if err != nil {
			return err
		}
		with, err := layerBy(t.Ctx, t, next)
		if err != nil {
			return err
		}
		v, err := volumeBy(t.Ctx, t, to.Volume)
		if err != nil {
			return err
		}
		other := store.Conflict("layers", "the layers of volume %s changed while they were being merged", v.Name)
		loose, err := dbfile.List(t.Ctx, t, scanLayer, looseLayers)
		if err != nil {
			return err
		}
		named := func(id store.LayerID) bool {
			return !slices.ContainsFunc(loose, func(l store.Layer) bool { return l.ID == id })
		}
		if v.State == store.VolumeRemoving || with.Volume != v.ID || named(next) || !named(last) {
			return other
		}
		tops, err := dbfile.List(t.Ctx, t, dbfile.Scalar[int64], "SELECT id FROM volume WHERE top = ?", int64(last))
		if err != nil || len(tops) > 0 {
			return errors.Join(err, other)
		}
		chain, err := chainOf(t.Ctx, t, last)
		if err != nil {
			return err
		}
		from := slices.IndexFunc(chain, func(l store.Layer) bool { return l.ID == first })
		if from < 1 || from == len(chain)-1 {
			return other
		}
		for _, l := range chain[from:] {
			if l.Kind != store.LayerOverlay || !l.Frozen || l.Volume != v.ID {
				return other
			}
		}
		for _, row := range []struct {
			id    store.LayerID
			path  string
			below store.LayerID
		}{{next, ".merged", with.Below}, {last, with.Path, chain[from].Below}, {next, to.Path, to.Below}} {
			if _, err := t.Run("UPDATE layer SET path = ?, below = ? WHERE id = ?", row.path, int64(row.below), int64(row.id)); err != nil {
				return err
			}
		}
		t.move(changed)
		return t.audit(store.ActorSystem, "volume.merge", v.Name, fmt.Sprintf("%d of its layers became one", len(chain)-from))
	})
}
