package storetest

import (
	"strings"

	"lunboot/store"
)

// golden is the n-th volume, frozen.
func (k *kit) golden(n int) store.Volume {
	k.Helper()
	return must(k.FreezeVolume(k.Context(), actor, k.volume(n).ID, "as installed"))(k)
}

// clone is the n-th volume as a clone of parent.
func (k *kit) clone(n int, parent store.Volume) store.Volume {
	k.Helper()
	v := newVolume(n)
	v.Kind, v.Parent, v.Size = store.VolumeClone, parent.ID, parent.Size
	return must(k.CreateVolume(k.Context(), actor, v))(k)
}

// layer is a loose layer of a volume, over below.
func (k *kit) layer(v store.Volume, below store.LayerID) store.Layer {
	k.Helper()
	return must(k.CreateLayer(k.Context(), store.NewLayer(v, below)))(k)
}

// current reads a volume and checks that all ways to read it agree.
func (k *kit) current(id store.VolumeID) store.Volume {
	k.Helper()
	v := must(k.Volume(k.Context(), id))(k)
	same(k, "the volume by name", v, must(k.VolumeByName(k.Context(), v.Name))(k))
	for _, o := range must(k.Volumes(k.Context()))(k) {
		if o.ID == id {
			same(k, "the volume in the list", v, o)
		}
	}
	return v
}

// stack is a volume's layers, bottom to top.
func stack(v store.Volume) []store.LayerID {
	var out []store.LayerID
	for _, l := range v.Layers {
		out = append(out, l.ID)
	}
	return out
}

func layerFirst(k *kit) {
	ctx := k.Context()
	v := k.volume(1)
	l := v.TopLayer()
	want := store.Layer{ID: v.Top, UUID: l.UUID, Volume: v.ID, Kind: store.LayerRaw, Path: v.Path, Size: v.Size, Created: l.Created}
	same(k, "the layer of a raw volume", []store.Layer{want}, v.Layers)
	if l.ID == 0 || l.UUID.IsZero() || l.Created.IsZero() {
		k.Errorf("the layer is %+v", l)
	}
	same(k, "the volume as read", v, k.current(v.ID))
	v.Size *= 2
	v = must(k.UpdateVolume(ctx, actor, v))(k)
	if grown := k.current(v.ID); grown.TopLayer().Size != v.Size || v.TopLayer().Size != v.Size {
		k.Errorf("a grown volume has a layer of %d bytes, want %d", grown.TopLayer().Size, v.Size)
	}
	bare := must(k.CreateVolume(ctx, actor, store.Volume{Name: "bare", Kind: store.VolumeRaw, Size: 512, BlockSize: 512}))(k)
	if bare.Path == "" || !strings.HasPrefix(bare.Path, "bare-") || bare.Path != bare.TopLayer().Path {
		k.Errorf("a volume without a file's name got %q", bare.Path)
	}
	device := must(k.CreateVolume(ctx, actor, store.Volume{Name: "lv", Kind: store.VolumeDevice, Size: 512, BlockSize: 512, Path: "/dev/mapper/lv"}))(k)
	if l := device.TopLayer(); l.Kind != store.LayerDevice || l.Path != "/dev/mapper/lv" {
		k.Errorf("a device's layer is %+v", l)
	}
	k.ok(k.DeleteVolume(ctx, actor, bare.ID))
	k.ok(k.DeleteVolume(ctx, actor, device.ID))
	if left := must(k.Inventory.Layers(ctx))(k); len(left) != 1 {
		k.Errorf("the layers of removed volumes stay: %+v", left)
	}
}

func goldenLife(k *kit) {
	ctx := k.Context()
	g := k.golden(1)
	if !g.Golden || !g.ReadOnly || g.Version != 1 || !g.TopLayer().Frozen {
		k.Errorf("a golden volume is %+v", g)
	}
	same(k, "the golden volume as read", g, k.current(g.ID))
	kept, fresh := k.clone(2, g), k.clone(3, g)
	if kept.Version != 1 || kept.Base().ID != g.Top || len(kept.Layers) != 2 || kept.TopLayer().Kind != store.LayerOverlay {
		k.Errorf("a clone is %+v", kept)
	}
	maps := k.MapRevision()
	next := k.layer(g, 0)
	g = must(k.AddVersion(ctx, actor, store.VolumeVersion{Volume: g.ID, Layer: next.ID, Note: "with updates"}))(k)
	if k.MapRevision() == maps {
		k.Error("those who watch the mappings do not learn of a new version")
	}
	if g.Version != 2 || g.Top != next.ID || !g.TopLayer().Frozen || g.Path != next.Path {
		k.Errorf("the golden volume with a second version is %+v", g)
	}
	if got := k.current(kept.ID); got.Version != 1 || got.Top != kept.Top {
		k.Errorf("a clone moved by itself: %+v", got)
	}
	// A clone moves when its own layer is replaced by one over the new version.
	top := k.layer(fresh, g.Top)
	old := fresh.Top
	k.unchanged(func() { // no boot has fired
		_, err := k.ReplaceTop(ctx, store.ActorSystem, "volume.reset", fresh.ID, top.ID, "its machine boots")
		k.refused(err, store.KindConflict, "reset_at_boot", fresh.Name)
	})
	held := fresh
	held.State = store.VolumePromoting
	held = must(k.UpdateVolume(ctx, actor, held))(k)
	k.unchanged(func() {
		_, err := k.ReplaceTop(ctx, actor, "volume.rollback", fresh.ID, top.ID, "")
		k.refused(err, store.KindConflict, "state", fresh.Name, "promoting")
	})
	held.State = store.VolumeReady
	must(k.UpdateVolume(ctx, actor, held))(k)
	fresh = must(k.ReplaceTop(ctx, actor, "volume.rollback", fresh.ID, top.ID, "to the new version"))(k)
	if fresh.Version != 2 || fresh.Base().ID != g.Top || fresh.Parent != g.ID {
		k.Errorf("the clone that moved is %+v", fresh)
	}
	loose := must(k.LooseLayers(ctx))(k)
	if len(loose) != 1 || loose[0].ID != old {
		k.Errorf("loose: %+v, want the clone's old layer %d", loose, old)
	}
	k.ok(k.DeleteLayer(ctx, old))

	versions := must(k.Versions(ctx))(k)
	if len(versions) != 2 || versions[0].Note != "as installed" || versions[1].Note != "with updates" || versions[1].Layer != g.Top {
		k.Errorf("the versions are %+v", versions)
	}
	k.unchanged(func() {
		k.refused(k.DeleteVersion(ctx, actor, g.ID, 2), store.KindInUse, "", "current")
		k.refused(k.DeleteVersion(ctx, actor, g.ID, 1), store.KindInUse, "", kept.Name)
		k.refused(k.DeleteVersion(ctx, actor, g.ID, 7), store.KindNotFound, "version", "1, 2")
		k.refused(k.NoteVersion(ctx, actor, g.ID, 1, strings.Repeat("x", 1025)), store.KindInvalid, "note")
		_, err := k.SetVersion(ctx, actor, g.ID, 7)
		k.refused(err, store.KindNotFound, "version")
		k.refused(k.DeleteVolume(ctx, actor, g.ID), store.KindInUse, "", kept.Name, fresh.Name)
		_, err = k.FreezeVolume(ctx, actor, g.ID, "")
		k.refused(err, store.KindConflict, "golden")
	})
	k.ok(k.NoteVersion(ctx, actor, g.ID, 1, "the first"))
	g = must(k.SetVersion(ctx, actor, g.ID, 1))(k)
	if g.Version != 1 || g.Top == next.ID {
		k.Errorf("going back gave %+v", g)
	}
	k.reopen()
	same(k, "the golden volume after a restart", g, k.current(g.ID))
	same(k, "the clone after a restart", fresh, k.current(fresh.ID))
	if got := must(k.Versions(ctx))(k)[0].Note; got != "the first" {
		k.Errorf("the note is %q", got)
	}
	k.ok(k.DeleteVolume(ctx, actor, fresh.ID))
	k.ok(k.DeleteVersion(ctx, actor, g.ID, 2))
	if loose := must(k.LooseLayers(ctx))(k); len(loose) != 1 || loose[0].ID != next.ID {
		k.Errorf("loose after a version was removed: %+v", loose)
	}
	// Its file may be gone, so that nothing comes to stand on it any more.
	k.unchanged(func() {
		_, err := k.CreateLayer(ctx, store.NewLayer(kept, next.ID))
		k.refused(err, store.KindConflict, "below", g.Name)
	})
	k.ok(k.DeleteVolume(ctx, actor, kept.ID))
	k.ok(k.DeleteVolume(ctx, actor, g.ID))
	if left := must(k.Inventory.Layers(ctx))(k); len(left) != 0 {
		k.Errorf("left: %+v", left)
	}
}

func snapshotLife(k *kit) {
	ctx := k.Context()
	v := k.volume(1)
	first := v.Top
	take := func(name string) {
		k.Helper()
		v = must(k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: v.ID, Name: name, Note: "a note"}, k.layer(v, v.Top).ID))(k)
		same(k, "the volume as read", v, k.current(v.ID))
	}
	take("Before")
	if v.Kind != store.VolumeRaw || v.Parent != 0 || len(v.Layers) != 2 || !v.Layers[0].Frozen || v.Layers[1].Frozen {
		k.Errorf("a volume with a snapshot is %+v", v)
	}
	take("after")
	snaps := must(k.Snapshots(ctx))(k)
	if len(snaps) != 2 || snaps[0].Name != "before" || snaps[0].Layer != first || snaps[0].Note != "a note" || snaps[0].Created.IsZero() {
		k.Errorf("the snapshots are %+v", snaps)
	}
	k.unchanged(func() {
		_, err := k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: v.ID, Name: "../x"}, v.Top)
		k.refused(err, store.KindInvalid, "name")
		k.refused(k.DeleteSnapshot(ctx, actor, v.ID, "other"), store.KindNotFound, "", "other")
	})
	taken := k.layer(v, v.Top)
	k.unchanged(func() {
		_, err := k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: v.ID, Name: "after"}, taken.ID)
		k.refused(err, store.KindConflict, "name", "after")
	})
	k.ok(k.DeleteLayer(ctx, taken.ID))

	// Back to the first: the newer snapshot stays and can be gone back to.
	dropped := v.Top
	v.Sanitize = true
	v = must(k.UpdateVolume(ctx, actor, v))(k)
	k.ok(k.BeginWipe(ctx, v.ID, store.Wipe{}))
	v = must(k.ReplaceTop(ctx, actor, "volume.rollback", v.ID, k.layer(v, first).ID, "to before"))(k)
	same(k, "what is unfinished of a wipe whose bytes are gone", nil, must(k.Wipe(ctx, v.ID))(k))
	if len(v.Layers) != 2 || v.Layers[0].ID != first {
		k.Errorf("after a rollback the volume is %+v", v)
	}
	if loose := must(k.LooseLayers(ctx))(k); len(loose) != 1 || loose[0].ID != dropped {
		k.Errorf("loose after a rollback: %+v", loose)
	}
	// A clone of a snapshot holds it.
	c := newVolume(2)
	c.Kind, c.Parent, c.Layers = store.VolumeClone, v.ID, []store.Layer{store.NewLayer(c, first)}
	c = must(k.CreateVolume(ctx, actor, c))(k)
	if c.Version != 0 || c.Base().ID != first || c.Parent != v.ID {
		k.Errorf("a clone of a snapshot is %+v", c)
	}
	// The first is kept by its snapshot, the layer of the newer one, the new top and
	// the clone.
	same(k, "what names the layers", map[store.LayerID]store.LayerNaming{first: {Others: 4}, v.Top: {Tops: 1}}, must(k.LayerNamings(ctx, v.ID))(k))
	same(k, "what names those of the clone", map[store.LayerID]store.LayerNaming{first: {Others: 4}, c.Top: {Tops: 1}}, must(k.LayerNamings(ctx, c.ID))(k))
	k.unchanged(func() {
		k.refused(k.DeleteSnapshot(ctx, actor, v.ID, "before"), store.KindInUse, "", c.Name)
		k.refused(k.DeleteVolume(ctx, actor, v.ID), store.KindInUse, "", c.Name)
	})
	// Flat, it stands alone.
	c = must(k.FlattenVolume(ctx, actor, c.ID))(k)
	if c.Kind != store.VolumeRaw || c.Parent != 0 || len(c.Layers) != 1 || c.TopLayer().Kind != store.LayerRaw {
		k.Errorf("a flat clone is %+v", c)
	}
	same(k, "the flat clone as read", c, k.current(c.ID))
	k.ok(k.DeleteSnapshot(ctx, actor, v.ID, "before"))
	same(k, "what names the layers without it", map[store.LayerID]store.LayerNaming{first: {Others: 2}, v.Top: {Tops: 1}}, must(k.LayerNamings(ctx, v.ID))(k))
	_, err := k.LayerNamings(ctx, 9999)
	k.refused(err, store.KindNotFound, "")
	k.ok(k.DeleteSnapshot(ctx, actor, v.ID, "After"))
	// Its newest bytes stand on what the first snapshot kept, and nothing on the
	// second's.
	loose := must(k.LooseLayers(ctx))(k)
	if len(loose) != 2 || loose[0].ID != dropped {
		k.Errorf("loose when the snapshots are gone: %+v", loose)
	}
	k.refused(k.DeleteLayer(ctx, loose[1].ID), store.KindInUse, "")
	for _, l := range loose {
		k.ok(k.DeleteLayer(ctx, l.ID))
	}
	same(k, "the layers of the volume", []store.LayerID{first, v.Top}, stack(k.current(v.ID)))
	k.ok(k.DeleteVolume(ctx, actor, v.ID))
}

func layerMerge(k *kit) {
	ctx := k.Context()
	v := k.volume(1)
	for _, name := range []string{"a", "b", "c", "d"} {
		v = must(k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: v.ID, Name: name}, k.layer(v, v.Top).ID))(k)
	}
	c := newVolume(2)
	c.Kind, c.Parent, c.Layers = store.VolumeClone, v.ID, []store.Layer{store.NewLayer(c, v.Layers[3].ID)}
	c = must(k.CreateVolume(ctx, actor, c))(k)
	k.ok(k.DeleteSnapshot(ctx, actor, v.ID, "c"))
	next := k.layer(v, v.Layers[0].ID)
	elsewhere := k.layer(k.volume(3), 0)
	for name, ids := range map[string][3]store.LayerID{
		"what machines write to":   {v.Layers[1].ID, v.Top, next.ID},
		"what stands on nothing":   {v.Layers[0].ID, v.Layers[3].ID, next.ID},
		"one layer":                {v.Layers[1].ID, v.Layers[1].ID, next.ID},
		"layers in another order":  {v.Layers[3].ID, v.Layers[1].ID, next.ID},
		"files that are used":      {v.Layers[1].ID, v.Layers[3].ID, v.Layers[2].ID},
		"another volume's files":   {v.Layers[1].ID, v.Layers[3].ID, elsewhere.ID},
		"a layer that nobody uses": {v.Layers[1].ID, next.ID, elsewhere.ID},
	} {
		k.unchanged(func() { k.refused(k.MergeLayers(ctx, ids[0], ids[1], ids[2]), store.KindConflict, "layers") })
		if k.Failed() {
			k.Fatalf("at the case %q", name)
		}
	}
	k.unchanged(func() { k.refused(k.MergeLayers(ctx, v.Layers[1].ID, v.Layers[3].ID, 4711), store.KindNotFound, "") })

	k.ok(k.MergeLayers(ctx, v.Layers[1].ID, v.Layers[3].ID, next.ID))
	now := k.current(v.ID)
	same(k, "the layers of the volume", []store.LayerID{v.Layers[0].ID, v.Layers[3].ID, v.Top}, stack(now))
	same(k, "the layers of the clone", []store.LayerID{v.Layers[0].ID, v.Layers[3].ID, c.Top}, stack(k.current(c.ID)))
	if l := now.Layers[1]; l.Path != next.Path || l.UUID != v.Layers[3].UUID || l.Size != v.Layers[3].Size || !l.Frozen {
		k.Errorf("the merged layer is %+v, it was %+v", l, v.Layers[3])
	}
	if now.Revision != v.Revision+1 { // of the snapshot that was removed
		k.Errorf("the merge moved the volume's revision to %d", now.Revision)
	}
	// The lowest is kept by its snapshot; what a merge leaves can be removed in
	// the order in which it is told.
	loose := must(k.LooseLayers(ctx))(k)
	k.ok(k.DeleteLayer(ctx, elsewhere.ID))
	if len(loose) != 3 || loose[0].ID != elsewhere.ID || loose[1].ID != next.ID || loose[1].Path != v.Layers[3].Path || loose[2].ID != v.Layers[2].ID {
		k.Fatalf("loose after a merge: %+v", loose)
	}
	for _, l := range loose[1:] {
		k.ok(k.DeleteLayer(ctx, l.ID))
	}
	k.reopen()
	same(k, "the volume", now, k.current(v.ID))
}

func layerVolatile(k *kit) {
	ctx := k.Context()
	g := k.golden(1)
	c := newVolume(2)
	c.Kind, c.Parent, c.Volatile = store.VolumeClone, g.ID, true
	k.unchanged(func() {
		_, err := k.CreateVolume(ctx, actor, c)
		k.refused(err, store.KindInvalid, "volatile")
	})
	c.Reset = true
	c = must(k.CreateVolume(ctx, actor, c))(k)
	if !c.Volatile || !c.TopLayer().Volatile || g.TopLayer().Volatile {
		k.Errorf("a volatile clone is %+v", c)
	}
	k.reopen()
	same(k, "the clone", c, k.current(c.ID))
	next := store.NewLayer(c, c.Top)
	next.Volatile = false
	above := must(k.CreateLayer(ctx, next))(k)
	k.unchanged(func() {
		_, err := k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: c.ID, Name: "s"}, above.ID)
		k.refused(err, store.KindConflict, "volatile", c.Name, "--no-volatile")
		_, err = k.FreezeVolume(ctx, actor, c.ID, "")
		k.refused(err, store.KindConflict, "volatile", c.Name)
		kept := c
		kept.Reset, kept.Volatile = false, false
		_, err = k.UpdateVolume(ctx, actor, kept)
		k.refused(err, store.KindConflict, "volatile", c.Name)
	})
	k.ok(k.DeleteLayer(ctx, above.ID))
	// What its next layer is, the volume says; what this one is stays.
	c.Volatile = false
	c = must(k.UpdateVolume(ctx, actor, c))(k)
	if c.Volatile || !c.TopLayer().Volatile {
		k.Errorf("a clone that is to be volatile no more is %+v", c)
	}
	c = must(k.ReplaceTop(ctx, actor, "volume.rollback", c.ID, k.layer(c, g.Top).ID, ""))(k)
	if c.TopLayer().Volatile {
		k.Errorf("its next layer is %+v", c.TopLayer())
	}
	c.Reset = false
	c = must(k.UpdateVolume(ctx, actor, c))(k)
	same(k, "the clone that is kept", c, k.current(c.ID))
}

func layerLoose(k *kit) {
	ctx := k.Context()
	v, other := k.volume(1), k.volume(2)
	maps := k.MapRevision()
	l := k.layer(v, v.Top)
	if k.MapRevision() != maps {
		k.Error("a layer that nothing names woke those who watch the mappings")
	}
	k.reopen()
	same(k, "what is loose", []store.Layer{l}, must(k.LooseLayers(ctx))(k))
	same(k, "the volume", v, k.current(v.ID))
	k.unchanged(func() {
		k.refused(k.DeleteLayer(ctx, v.Top), store.KindInUse, "", v.Path)
		k.refused(k.DeleteLayer(ctx, 4711), store.KindNotFound, "")
		_, err := k.ReplaceTop(ctx, actor, "volume.rollback", other.ID, l.ID, "")
		k.refused(err, store.KindInvalid, "layer")
	})
	k.ok(k.DeleteLayer(ctx, l.ID))
	same(k, "what is loose", []store.Layer{}, must(k.LooseLayers(ctx))(k))
}

func layerRefused(k *kit) {
	ctx := k.Context()
	v := k.volume(1)
	for name, c := range map[string]struct {
		kind   store.Kind
		field  string
		change func(*store.Layer)
	}{
		"no volume":                 {store.KindNotFound, "", func(l *store.Layer) { l.Volume = 4711 }},
		"no kind":                   {store.KindInvalid, "kind", func(l *store.Layer) { l.Kind = "" }},
		"an overlay over nothing":   {store.KindInvalid, "below", func(l *store.Layer) { l.Kind = store.LayerOverlay }},
		"a raw file over something": {store.KindInvalid, "below", func(l *store.Layer) { l.Below = v.Top }},
		"nothing to stand on":       {store.KindInvalid, "below", func(l *store.Layer) { l.Kind, l.Below = store.LayerOverlay, 4711 }},
		"no file":                   {store.KindInvalid, "path", func(l *store.Layer) { l.Path = "" }},
		"a file elsewhere":          {store.KindInvalid, "path", func(l *store.Layer) { l.Path = "../x" }},
		"a file twice":              {store.KindConflict, "path", func(l *store.Layer) { l.Path = v.Path }},
		"no size":                   {store.KindInvalid, "size", func(l *store.Layer) { l.Size = 0 }},
	} {
		k.unchanged(func() {
			l := store.NewLayer(v, 0)
			c.change(&l)
			_, err := k.CreateLayer(ctx, l)
			k.refused(err, c.kind, c.field)
		})
		if k.Failed() {
			k.Fatalf("at the case %q", name)
		}
	}
	k.unchanged(func() {
		c := newVolume(2)
		c.Kind, c.Parent = store.VolumeClone, v.ID
		_, err := k.CreateVolume(ctx, actor, c)
		k.refused(err, store.KindConflict, "parent", v.Name, "freeze")
		_, err = k.SetVersion(ctx, actor, v.ID, 1)
		k.refused(err, store.KindConflict, "golden")
		_, err = k.AddVersion(ctx, actor, store.VolumeVersion{Volume: v.ID, Layer: v.Top})
		k.refused(err, store.KindConflict, "golden")
	})
	// A chain ends.
	for n := range store.MaxLayers - 1 {
		v = must(k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: v.ID, Name: "s" + string(rune('a'+n))}, k.layer(v, v.Top).ID))(k)
	}
	k.unchanged(func() {
		_, err := k.CreateLayer(ctx, store.NewLayer(v, v.Top))
		k.refused(err, store.KindConflict, "layers", v.Name, "flatten")
		_, err = k.FreezeVolume(ctx, actor, v.ID, "")
		k.refused(err, store.KindConflict, "layers", v.Name, "flatten")
	})
	g := k.golden(3)
	k.unchanged(func() {
		_, err := k.SnapshotVolume(ctx, actor, store.Snapshot{Volume: g.ID, Name: "s"}, g.Top)
		k.refused(err, store.KindConflict, "golden", g.Name)
		_, err = k.ReplaceTop(ctx, actor, "volume.rollback", g.ID, g.Top, "")
		k.refused(err, store.KindConflict, "golden", g.Name)
		_, err = k.FlattenVolume(ctx, actor, g.ID)
		k.refused(err, store.KindConflict, "golden", g.Name)
		g.Size *= 2
		_, err = k.UpdateVolume(ctx, actor, g)
		k.refused(err, store.KindConflict, "size", g.Name)
		g.Size, g.ReadOnly = g.Size/2, false
		_, err = k.UpdateVolume(ctx, actor, g)
		k.refused(err, store.KindInvalid, "read_only")
	})
}
