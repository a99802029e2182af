package storetest

import (
	"time"

	"lunboot/store"
)

func machineOnce(k *kit) {
	ctx := k.Context()
	m := newMachine(1)
	m.OnceProfile = "local"
	m = must(k.CreateMachine(ctx, actor, m))(k)
	k.unchanged(func() {
		if must(k.ConsumeOnce(ctx, m.ID, "rescue", m.Updated))(k) {
			k.Errorf("a profile that was chosen since was used up for the one before it")
		}
		if must(k.ConsumeOnce(ctx, m.ID, "local", m.Updated.Add(-1)))(k) {
			k.Errorf("a profile was used up by what was before it was chosen")
		}
	})
	// An edit chooses nothing anew; to take it back and choose it again does.
	first := m.Updated
	m.Notes = "an edit"
	m = must(k.UpdateMachine(ctx, actor, m))(k)
	for _, once := range []string{"", "local"} {
		if must(k.ConsumeOnce(ctx, m.ID, "local", first.Add(-1)))(k) {
			k.Errorf("%q: it was used up", once)
		}
		m.OnceProfile = once
		m = must(k.UpdateMachine(ctx, actor, m))(k)
	}
	k.unchanged(func() {
		if m.Updated.After(first) && must(k.ConsumeOnce(ctx, m.ID, "local", first))(k) {
			k.Errorf("what was chosen again was used up by what was before that")
		}
	})
	chosen := m.Updated
	m.Notes = "another edit"
	m = must(k.UpdateMachine(ctx, actor, m))(k)
	if !must(k.ConsumeOnce(ctx, m.ID, "local", chosen))(k) {
		k.Errorf("nothing was used up")
	}
	got := must(k.Machine(ctx, m.ID))(k)
	if got.OnceProfile != "" || got.Revision != m.Revision+1 {
		k.Errorf("one-shot profile %q, revision %d", got.OnceProfile, got.Revision)
	}
	k.unchanged(func() {
		for _, profile := range []string{"local", ""} {
			if must(k.ConsumeOnce(ctx, m.ID, profile, m.Updated.Add(time.Hour)))(k) {
				k.Errorf("%q was used up twice", profile)
			}
		}
	})
}

func machineBaseline(k *kit) {
	ctx := k.Context()
	m, one, other := newMachine(1), k.volume(1), k.volume(2)
	m.OnceProfile = "local"
	m = must(k.CreateMachine(ctx, actor, m))(k)
	none := func(why string) {
		k.Helper()
		if b, err := k.Baseline(ctx, m.ID); !store.IsNotFound(err) {
			k.Errorf("%s: the baseline is %+v, %v", why, b, err)
		}
	}
	choose := func(once string) {
		k.Helper()
		m.OnceProfile = once
		m = must(k.UpdateMachine(ctx, actor, m))(k)
	}
	none("at first")
	k.ok(k.PutBaseline(ctx, m.ID, "rescue", store.Baseline{Volume: one.ID}))
	none("another profile was chosen meanwhile")
	k.ok(k.PutBaseline(ctx, 4711, "local", store.Baseline{Volume: one.ID}))
	first := store.Baseline{Volume: one.ID, Attempt: 7, BIOS: "b", UEFI: "u"}
	k.ok(k.PutBaseline(ctx, m.ID, "local", first))
	k.ok(k.PutBaseline(ctx, m.ID, "local", store.Baseline{Volume: one.ID, Attempt: 8}))
	m.Notes = "an edit that chooses nothing"
	choose("local")
	if b := must(k.Baseline(ctx, m.ID))(k); b != first {
		k.Errorf("it is %+v, and was %+v", b, first)
	}
	// Attempts are counted anew when the journal is lost.
	anew := store.Baseline{Volume: one.ID, Attempt: 2, BIOS: "c"}
	k.ok(k.PutBaseline(ctx, m.ID, "local", anew))
	if b := must(k.Baseline(ctx, m.ID))(k); b != anew {
		k.Errorf("of an attempt that is none any more it is %+v", b)
	}
	second := store.Baseline{Volume: other.ID, Attempt: 9}
	k.ok(k.PutBaseline(ctx, m.ID, "local", second))
	if b := must(k.Baseline(ctx, m.ID))(k); b != second {
		k.Errorf("another volume was mapped, and it is %+v", b)
	}
	one = must(k.ReplaceTop(ctx, actor, "volume.rollback", one.ID, k.layer(one, one.Top).ID, ""))(k)
	if b := must(k.Baseline(ctx, m.ID))(k); b != second {
		k.Errorf("another volume was rolled back, and it is %+v", b)
	}
	must(k.ReplaceTop(ctx, actor, "volume.rollback", other.ID, k.layer(other, other.Top).ID, ""))(k)
	none("its volume was rolled back: what it starts now was not installed")
	k.ok(k.PutBaseline(ctx, m.ID, "local", second))
	k.ok(k.DeleteVolume(ctx, actor, other.ID))
	none("its volume is gone")
	put := func() { k.Helper(); k.ok(k.PutBaseline(ctx, m.ID, "local", first)) }
	put()
	choose("san")
	none("another profile was chosen")
	choose("local")
	none("it was chosen anew")
	put()
	must(k.ConsumeOnce(ctx, m.ID, "local", m.Updated))(k)
	none("it was used up")
	m = must(k.Machine(ctx, m.ID))(k)
	choose("local")
	put()
	k.ok(k.DeleteMachine(ctx, actor, m.ID))
	none("the machine is gone")
}
