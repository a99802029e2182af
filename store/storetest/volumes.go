package storetest

import (
	"fmt"
	"slices"

	"lunboot/store"
)

func volumeRoundTrip(k *kit) {
	ctx := k.Context()
	parent := k.golden(1)
	in := store.Volume{Name: "clone-1", UUID: store.NewUUID(), Kind: store.VolumeClone, Size: 1 << 40, BlockSize: 4096, Parent: parent.ID, Version: 1,
		Reset: true, State: store.VolumeImporting, Progress: 37, Reason: "copying", Path: "clone-1.img", From: "debian.qcow2"}
	made := must(k.CreateVolume(ctx, actor, in))(k)
	in.ID, in.Revision, in.Created, in.Updated, in.Top, in.Layers = made.ID, 1, made.Created, made.Updated, made.Top, made.Layers
	same(k, "the volume as made", in, made)
	same(k, "the volume as read", made, must(k.Volume(ctx, made.ID))(k))
	same(k, "the volume by name", made, must(k.VolumeByName(ctx, "Clone-1"))(k))
	k.reopen()
	same(k, "all volumes", []store.Volume{made, parent}, must(k.Volumes(ctx))(k))

	made.State, made.Progress, made.Reason, made.ReadOnly = store.VolumeReady, 100, "", true
	changed := must(k.UpdateVolume(ctx, actor, made))(k)
	if changed.Revision != 2 {
		k.Errorf("revision %d after one change", changed.Revision)
	}
	same(k, "the volume as changed", changed, must(k.Volume(ctx, made.ID))(k))
	k.unchanged(func() { same(k, "the volume", changed, must(k.UpdateVolume(ctx, actor, changed))(k)) })

	device := store.Volume{Name: "lv", Kind: store.VolumeDevice, Size: 512, BlockSize: 512, Path: "/dev/vg0/lv", Direct: true}
	if got := must(k.CreateVolume(ctx, actor, device))(k); !must(k.Volume(ctx, got.ID))(k).Direct {
		k.Error("a device forgot that it is used past the page cache")
	}
	wiped := store.Volume{Name: "wiped", Kind: store.VolumeRaw, Size: 512, BlockSize: 512, Sanitize: true}
	if got := must(k.CreateVolume(ctx, actor, wiped))(k); !must(k.Volume(ctx, got.ID))(k).Sanitize {
		k.Errorf("a volume that may be wiped came back as %+v", got)
	}
	bare := store.Volume{Name: "bare", Kind: store.VolumeRaw, Size: 512, BlockSize: 512}
	got := must(k.CreateVolume(ctx, actor, bare))(k)
	if got.UUID.IsZero() || got.State != store.VolumeReady {
		k.Errorf("a bare volume has UUID %s and state %q", got.UUID, got.State)
	}
}

func volumeInvalid(k *kit) {
	ctx := k.Context()
	first, second := k.volume(1), k.volume(2)
	for name, c := range map[string]struct {
		kind   store.Kind
		field  string
		change func(*store.Volume)
	}{
		"no name":                           {store.KindInvalid, "name", func(v *store.Volume) { v.Name = "" }},
		"no clone as name":                  {store.KindInvalid, "name", func(v *store.Volume) { v.Name = "None" }},
		"the default one as name":           {store.KindInvalid, "name", func(v *store.Volume) { v.Name = store.CloneOfDefault }},
		"a path as name":                    {store.KindInvalid, "name", func(v *store.Volume) { v.Name = "../etc" }},
		"no kind":                           {store.KindInvalid, "kind", func(v *store.Volume) { v.Kind = "" }},
		"an odd block size":                 {store.KindInvalid, "block_size", func(v *store.Volume) { v.BlockSize = 520 }},
		"half a block":                      {store.KindInvalid, "size", func(v *store.Volume) { v.Size++ }},
		"no size":                           {store.KindInvalid, "size", func(v *store.Volume) { v.Size = 0 }},
		"too large":                         {store.KindInvalid, "size", func(v *store.Volume) { v.Size = store.MaxVolumeSize + 512 }},
		"an odd state":                      {store.KindInvalid, "state", func(v *store.Volume) { v.State = "gone" }},
		"a file past the page cache":        {store.KindInvalid, "direct", func(v *store.Volume) { v.Direct = true }},
		"a shared volume that one may wipe": {store.KindInvalid, "sanitize", func(v *store.Volume) { v.Shared, v.Sanitize = true, true }},
		"101 per cent":                      {store.KindInvalid, "progress", func(v *store.Volume) { v.Progress = 101 }},
		"no such parent":                    {store.KindInvalid, "parent", func(v *store.Volume) { v.Kind, v.Parent = store.VolumeClone, 4711 }},
		"a clone of nothing":                {store.KindInvalid, "parent", func(v *store.Volume) { v.Kind = store.VolumeClone }},
		"a raw volume with a parent":        {store.KindInvalid, "parent", func(v *store.Volume) { v.Parent = first.ID }},
		"a raw volume that begins anew":     {store.KindInvalid, "reset_at_boot", func(v *store.Volume) { v.Reset = true }},
		"another kind":                      {store.KindInvalid, "", func(v *store.Volume) { v.Kind, v.Parent = store.VolumeClone, 4711 }},
		"a name twice":                      {store.KindConflict, "name", func(v *store.Volume) { v.Name = first.Name }},
		"a UUID twice":                      {store.KindConflict, "uuid", func(v *store.Volume) { v.UUID = first.UUID }},
		"a file twice":                      {store.KindConflict, "path", func(v *store.Volume) { v.Path = first.Path }},
	} {
		k.unchanged(func() {
			v := newVolume(3)
			c.change(&v)
			_, err := k.CreateVolume(ctx, actor, v)
			k.refused(err, c.kind, c.field)
			if c.kind == store.KindConflict {
				k.refused(err, c.kind, c.field, first.Name)
			}
		})
		k.unchanged(func() {
			v := second
			c.change(&v)
			_, err := k.UpdateVolume(ctx, actor, v)
			k.refused(err, c.kind, c.field)
		})
		if k.Failed() {
			k.Fatalf("at the case %q", name)
		}
	}
	k.unchanged(func() {
		v := second
		v.Parent = v.ID
		_, err := k.UpdateVolume(ctx, actor, v)
		k.refused(err, store.KindInvalid, "parent")
		v = second
		v.Revision, v.Shared = 9, true
		_, err = k.UpdateVolume(ctx, actor, v)
		k.refused(err, store.KindConflict, "revision", v.Name)
		_, err = k.UpdateVolume(ctx, actor, newVolume(4))
		k.refused(err, store.KindNotFound, "")
		_, err = k.Volume(ctx, 4711)
		k.refused(err, store.KindNotFound, "")
		_, err = k.VolumeByName(ctx, "nothing")
		k.refused(err, store.KindNotFound, "")
		k.refused(k.DeleteVolume(ctx, actor, 4711), store.KindNotFound, "")
	})
}

func volumeInUse(k *kit) {
	ctx := k.Context()
	m, v := k.machine(1), k.volume(1)
	k.mapping(m, v, 3)
	k.unchanged(func() {
		k.refused(k.DeleteVolume(ctx, actor, v.ID), store.KindInUse, "", v.Name, m.Name, "LUN 3")
	})
	golden := k.golden(2)
	clone := k.clone(3, golden)
	k.unchanged(func() {
		k.refused(k.DeleteVolume(ctx, actor, golden.ID), store.KindInUse, "", golden.Name, clone.Name)
		golden.ReadOnly = false
		_, err := k.UpdateVolume(ctx, actor, golden)
		k.refused(err, store.KindInUse, "", clone.Name)
	})
	k.ok(k.DeleteVolume(ctx, actor, clone.ID))
	k.ok(k.DeleteVolume(ctx, actor, golden.ID))
	k.ok(k.DeleteMapping(ctx, actor, m.ID, 3))
	k.ok(k.DeleteVolume(ctx, actor, v.ID))
	if vs := must(k.Volumes(ctx))(k); len(vs) != 0 {
		k.Errorf("left: %+v", vs)
	}
}

func volumeProgress(k *kit) {
	ctx := k.Context()
	v := newVolume(1)
	v.State = store.VolumeImporting
	v = must(k.CreateVolume(ctx, actor, v))(k)
	_, rows, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	maps := k.MapRevision()
	for v.Progress < 100 {
		v.Progress += 10
		v = must(k.UpdateVolume(ctx, store.ActorSystem, v))(k)
	}
	if _, after, err := k.Audit(ctx, store.Page{}); err != nil || after != rows {
		k.Errorf("ten steps of progress wrote %d audit rows (%v)", after-rows, err)
	}
	if k.MapRevision() != maps {
		k.Error("progress woke those who watch the mappings")
	}
	if got := must(k.Volume(ctx, v.ID))(k); got.Progress != 100 || got.Revision != 11 {
		k.Errorf("progress %d, revision %d", got.Progress, got.Revision)
	}
}

func mappingRoundTrip(k *kit) {
	ctx := k.Context()
	m, other, v, w := k.machine(1), k.machine(2), k.volume(1), k.volume(2)
	in := store.Mapping{Machine: m.ID, Volume: v.ID, LUN: store.MaxLUN, Boot: true}
	boot := must(k.CreateMapping(ctx, actor, in))(k)
	in.ID, in.Revision, in.Created = boot.ID, 1, boot.Created
	same(k, "the mapping as made", in, boot)
	data := must(k.CreateMapping(ctx, actor, store.Mapping{Machine: m.ID, Volume: w.ID, LUN: 0, ReadOnly: true}))(k)
	theirs := must(k.CreateMapping(ctx, actor, store.Mapping{Machine: other.ID, Volume: w.ID, LUN: 0, Boot: true}))(k)
	k.reopen()
	same(k, "all mappings", []store.Mapping{data, boot, theirs}, must(k.Mappings(ctx))(k))
	same(k, "a machine's mappings", []store.Mapping{data, boot}, must(k.MappingsOf(ctx, m.ID))(k))
	same(k, "a volume's mappings", []store.Mapping{data, theirs}, must(k.MappingsOfVolume(ctx, w.ID))(k))
	same(k, "nobody's mappings", []store.Mapping{}, must(k.MappingsOf(ctx, 4711))(k))
	k.ok(k.DeleteMapping(ctx, actor, m.ID, 0))
	same(k, "what is left", []store.Mapping{boot}, must(k.MappingsOf(ctx, m.ID))(k))
}

func mappingInvalid(k *kit) {
	ctx := k.Context()
	m, v, w := k.machine(1), k.volume(1), k.volume(2)
	boot := must(k.CreateMapping(ctx, actor, store.Mapping{Machine: m.ID, Volume: v.ID, Boot: true}))(k)
	second := k.mapping(m, w, 1)
	broken, leaving := newVolume(3), newVolume(4)
	broken.State, broken.Reason = store.VolumeFailed, "the image is damaged"
	leaving.State = store.VolumeRemoving
	broken, leaving = must(k.CreateVolume(ctx, actor, broken))(k), must(k.CreateVolume(ctx, actor, leaving))(k)
	for name, c := range map[string]struct {
		in    store.Mapping
		kind  store.Kind
		field string
		words []string
	}{
		"the LUN is taken":      {store.Mapping{Machine: m.ID, Volume: w.ID, LUN: 0}, store.KindConflict, "lun", []string{"lab-01", "vol-01", "LUN 0"}},
		"the LUN is too large":  {store.Mapping{Machine: m.ID, Volume: w.ID, LUN: 16384}, store.KindInvalid, "lun", []string{"16384", "16383"}},
		"it boots already":      {store.Mapping{Machine: m.ID, Volume: w.ID, LUN: 2, Boot: true}, store.KindConflict, "boot", []string{"lab-01", "LUN 0", "vol-01"}},
		"the volume is broken":  {store.Mapping{Machine: m.ID, Volume: broken.ID, LUN: 2}, store.KindConflict, "volume", []string{"vol-03", "failed", "the image is damaged"}},
		"the volume is leaving": {store.Mapping{Machine: m.ID, Volume: leaving.ID, LUN: 2}, store.KindConflict, "volume", []string{"vol-04", "removing"}},
		"no such machine":       {store.Mapping{Machine: 4711, Volume: w.ID, LUN: 2}, store.KindNotFound, "", []string{"machine"}},
		"no such volume":        {store.Mapping{Machine: m.ID, Volume: 4711, LUN: 2}, store.KindNotFound, "", []string{"volume"}},
	} {
		k.unchanged(func() {
			_, err := k.CreateMapping(ctx, actor, c.in)
			k.refused(err, c.kind, c.field, c.words...)
		})
		if c.kind == store.KindNotFound {
			continue
		}
		k.unchanged(func() {
			c.in.ID = second.ID
			_, err := k.UpdateMapping(ctx, actor, c.in)
			k.refused(err, c.kind, c.field, c.words...)
		})
		if k.Failed() {
			k.Fatalf("at the case %q", name)
		}
	}
	k.unchanged(func() {
		stale := boot
		stale.Revision, stale.ReadOnly = 5, true
		_, err := k.UpdateMapping(ctx, actor, stale)
		k.refused(err, store.KindConflict, "revision", "lab-01")
		_, err = k.UpdateMapping(ctx, actor, store.Mapping{Machine: m.ID, Volume: w.ID, LUN: 9})
		k.refused(err, store.KindNotFound, "")
		moved := second
		moved.Machine = 4711
		_, err = k.UpdateMapping(ctx, actor, moved)
		k.refused(err, store.KindInvalid, "machine")
		k.refused(k.DeleteMapping(ctx, actor, m.ID, 9), store.KindNotFound, "")
	})
}

func mappingWriters(k *kit) {
	ctx := k.Context()
	a, b, v := k.machine(1), k.machine(2), k.volume(1)
	k.mapping(a, v, 0)
	k.unchanged(func() {
		_, err := k.CreateMapping(ctx, actor, store.Mapping{Machine: b.ID, Volume: v.ID})
		k.refused(err, store.KindConflict, "volume", a.Name, v.Name)
	})
	// The same machine may have it twice, and others may read it.
	k.mapping(a, v, 1)
	reader := must(k.CreateMapping(ctx, actor, store.Mapping{Machine: b.ID, Volume: v.ID, ReadOnly: true}))(k)
	k.unchanged(func() {
		reader.ReadOnly = false
		_, err := k.UpdateMapping(ctx, actor, reader)
		k.refused(err, store.KindConflict, "volume", a.Name)
	})
	v.Shared = true
	v = must(k.UpdateVolume(ctx, actor, v))(k)
	reader = must(k.UpdateMapping(ctx, actor, reader))(k)
	k.unchanged(func() {
		v.Shared = false
		_, err := k.UpdateVolume(ctx, actor, v)
		k.refused(err, store.KindConflict, "shared", a.Name, b.Name)
	})
	reader.ReadOnly = true
	must(k.UpdateMapping(ctx, actor, reader))(k)
	v = must(k.UpdateVolume(ctx, actor, v))(k)

	// A read-only volume is nobody's to write, until it is made writable.
	golden := newVolume(2)
	golden.ReadOnly = true
	golden = must(k.CreateVolume(ctx, actor, golden))(k)
	k.mapping(a, golden, 5)
	k.mapping(b, golden, 5)
	k.unchanged(func() {
		golden.ReadOnly = false
		_, err := k.UpdateVolume(ctx, actor, golden)
		k.refused(err, store.KindConflict, "shared", a.Name, b.Name)
	})
}

func mappingChanges(k *kit) {
	ctx := k.Context()
	m, v, w := k.machine(1), k.volume(1), k.volume(2)
	x := must(k.CreateMapping(ctx, actor, store.Mapping{Machine: m.ID, Volume: v.ID, LUN: 4}))(k)
	x.LUN, x.Volume, x.Boot, x.ReadOnly = 300, w.ID, true, true
	changed := must(k.UpdateMapping(ctx, actor, x))(k)
	x.Revision = 2
	same(k, "the mapping as changed", x, changed)
	same(k, "the mapping as read", []store.Mapping{changed}, must(k.MappingsOf(ctx, m.ID))(k))
	k.unchanged(func() { must(k.UpdateMapping(ctx, actor, changed))(k) })
	// Found by machine and LUN when it brings no id.
	got := must(k.UpdateMapping(ctx, actor, store.Mapping{Machine: m.ID, LUN: 300, Volume: v.ID}))(k)
	if got.ID != x.ID || got.Revision != 3 || got.Boot || got.ReadOnly || !got.Created.Equal(x.Created) {
		k.Errorf("changed by machine and LUN: %+v", got)
	}
	// A volume that fails under its machine can still be made read-only.
	v.State = store.VolumeFailed
	must(k.UpdateVolume(ctx, actor, v))(k)
	got.ReadOnly = true
	must(k.UpdateMapping(ctx, actor, got))(k)
	log, _, err := k.Audit(ctx, store.Page{Limit: 1})
	k.ok(err)
	if want := fmt.Sprintf("LUN 300 is volume %s, read-only", v.Name); log[0].Detail != want {
		k.Errorf("the audit log says %q, want %q", log[0].Detail, want)
	}
}

func wipes(k *kit) {
	ctx := k.Context()
	wipeable := func(name string) store.Volume {
		return must(k.CreateVolume(ctx, actor, store.Volume{Name: name, Kind: store.VolumeRaw, Size: 512, BlockSize: 512, Sanitize: true}))(k)
	}
	v, other := wipeable("one"), wipeable("other")
	unfinished := func(what string, of store.Volume, want *store.Wipe) {
		k.reopen()
		same(k, what, want, must(k.Wipe(ctx, of.ID))(k))
		if goesOn := slices.Contains(must(k.UnfinishedWipes(ctx))(k), of.ID); goesOn != (want != nil && !want.Failed) {
			k.Errorf("%s: it is among those that go on: %v", what, goesOn)
		}
	}
	unfinished("a volume that nobody wipes", v, nil)
	in := store.Wipe{ID: store.NewUUID(), Passes: 3, Pattern: []byte{0, 0xff, 7}, Invert: true, Unrestricted: true, Bytes: "a file"}
	k.ok(k.BeginWipe(ctx, v.ID, in))
	unfinished("a wipe after a restart", v, &in)
	unfinished("another volume's", other, nil)
	for what, id := range map[string]store.UUID{"another wipe": store.NewUUID(), "one without a name": {}} {
		k.unchanged(func() {
			k.ok(k.FailWipe(ctx, v.ID, id))
			k.ok(k.EndWipe(ctx, v.ID, id))
		})
		unfinished("a wipe when "+what+" has ended", v, &in)
	}
	k.ok(k.FailWipe(ctx, v.ID, in.ID))
	in.Failed = true
	unfinished("a wipe that failed", v, &in)
	in = store.Wipe{}
	k.ok(k.BeginWipe(ctx, v.ID, in))
	unfinished("another one of the same volume", v, &in)
	v = must(k.Volume(ctx, v.ID))(k)
	v.Sanitize = false
	v = must(k.UpdateVolume(ctx, actor, v))(k)
	unfinished("that of a volume which may not be wiped", v, nil)
	v.Sanitize = true
	v = must(k.UpdateVolume(ctx, actor, v))(k)
	unfinished("that of a volume which might not be wiped meanwhile", v, nil)
	k.ok(k.BeginWipe(ctx, v.ID, in))
	k.ok(k.EndWipe(ctx, v.ID, store.UUID{})) // it has no name: an earlier program began it
	unfinished("a wipe that has ended", v, nil)
	other.Sanitize = false
	other = must(k.UpdateVolume(ctx, actor, other))(k)
	k.unchanged(func() {
		if err := k.BeginWipe(ctx, other.ID, in); store.KindOf(err) != store.KindConflict {
			k.Errorf("one that begins after it was forbidden: %v", err)
		}
	})
	k.ok(k.FailWipe(ctx, v.ID, store.UUID{})) // it had ended
	unfinished("a wipe that failed when there was none", v, nil)
	k.unchanged(func() {
		if err := k.BeginWipe(ctx, 4711, in); !store.IsNotFound(err) {
			k.Errorf("a volume that is not there: %v", err)
		}
	})
	k.ok(k.BeginWipe(ctx, v.ID, in))
	k.ok(k.DeleteVolume(ctx, actor, v.ID))
	unfinished("that of a volume which has gone", v, nil)
	unfinished("that of another one of its name", wipeable("one"), nil)
}

func reservations(k *kit) {
	ctx := k.Context()
	v, other := k.volume(1), k.volume(2)
	same(k, "a volume that nobody reserved", store.Reservations{}, must(k.Reservations(ctx, v.ID))(k))
	port := store.InitiatorPort{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 1, 2, 3, 4, 5}}
	in := store.Reservations{Generation: 7, APTPL: true, Type: 5, Holder: port, Registrations: []store.Registration{{Port: port, Key: 0xffff_ffff_ffff_fffe}}}
	k.ok(k.PutReservations(ctx, v.ID, in))
	k.reopen()
	same(k, "the reservations after a restart", in, must(k.Reservations(ctx, v.ID))(k))
	in.Generation, in.Type = 8, 0
	k.ok(k.PutReservations(ctx, v.ID, in))
	same(k, "the reservations as changed", in, must(k.Reservations(ctx, v.ID))(k))
	same(k, "another volume's", store.Reservations{}, must(k.Reservations(ctx, other.ID))(k))
	k.unchanged(func() {
		if err := k.PutReservations(ctx, 4711, in); !store.IsNotFound(err) {
			k.Errorf("a volume that is not there: %v", err)
		}
	})
	k.ok(k.PutReservations(ctx, v.ID, store.Reservations{Generation: 9}))
	same(k, "what is left when nobody is registered", store.Reservations{}, must(k.Reservations(ctx, v.ID))(k))
	k.ok(k.PutReservations(ctx, v.ID, in))
	k.ok(k.DeleteVolume(ctx, actor, v.ID))
}
