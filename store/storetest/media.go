package storetest

import (
	"strings"

	"lunboot/store"
)

func newMedia(name string) store.Media {
	return store.Media{Name: name, Kind: store.MediaISO, Size: 600 << 20, SHA256: strings.Repeat("c3", 32), File: "Disc.iso",
		Contents: store.MediaContents{OS: store.MediaDebian, Title: "Debian 12", Arch: "x86-64", Label: "DEBIAN", System: "ISO 9660", Kernel: "linux", Initrds: []string{"initrd.gz"}}}
}

func mediaLife(k *kit) {
	ctx := k.Context()
	in := newMedia("debian.iso")
	made := must(k.CreateMedia(ctx, actor, in))(k)
	in.Revision, in.Created = 1, made.Created
	if made.Created.IsZero() {
		k.Error("no time of creation")
	}
	same(k, "the media as made", in, made)
	other := must(k.CreateMedia(ctx, actor, newMedia("alpine")))(k)
	k.reopen()
	same(k, "all media after a restart", []store.Media{other, made}, must(k.AllMedia(ctx))(k))
	same(k, "one media after a restart", made, must(k.Media(ctx, "debian.iso"))(k))

	bad := func(f func(*store.Media)) store.Media {
		m := newMedia("new.iso")
		f(&m)
		return m
	}
	for what, c := range map[string]struct {
		m     store.Media
		kind  store.Kind
		field string
	}{
		"a name that is taken":    {newMedia("alpine"), store.KindConflict, "name"},
		"a path for a name":       {newMedia("../x"), store.KindInvalid, "name"},
		"the answers' name":       {newMedia("answer"), store.KindInvalid, "name"},
		"no bytes":                {bad(func(m *store.Media) { m.Size = 0 }), store.KindInvalid, "size"},
		"more than may be":        {bad(func(m *store.Media) { m.Size = store.MaxMediaSize + 1 }), store.KindInvalid, "size"},
		"no sum":                  {bad(func(m *store.Media) { m.SHA256 = "../../etc/passwd" }), store.KindInvalid, "sha256"},
		"no kind":                 {bad(func(m *store.Media) { m.Kind = "disc" }), store.KindInvalid, "kind"},
		"a name that steers":      {bad(func(m *store.Media) { m.File = "a\x1b[2J" }), store.KindInvalid, "file"},
		"contents that cannot be": {bad(func(m *store.Media) { m.Contents.Kernel = strings.Repeat("k", 2000) }), store.KindInvalid, "contents"},
	} {
		k.unchanged(func() {
			_, err := k.CreateMedia(ctx, actor, c.m)
			k.Log(what)
			k.refused(err, c.kind, c.field)
		})
	}

	for _, p := range []store.Profile{
		{Name: "by-path", Kind: store.ProfileKernel, Fields: map[string]string{"kernel": "/files/debian.iso/linux"}},
		{Name: "by-name", Kind: store.ProfileKernel, Fields: map[string]string{"kernel": "x/linux", "initrd": "one debian.iso/initrd.gz"}},
		{Name: "by-text", Kind: store.ProfileCustom, Text: "kernel http://10.0.0.1/files/debian.iso/linux\nboot\n"},
	} {
		p = must(k.PutProfile(ctx, actor, p))(k)
		k.unchanged(func() { k.refused(k.DeleteMedia(ctx, actor, "debian.iso"), store.KindInUse, "", p.Name) })
		k.ok(k.DeleteProfile(ctx, actor, p.Name))
	}
	must(k.PutProfile(ctx, actor, store.Profile{Name: "near", Kind: store.ProfileCustom, Text: "kernel http://10.0.0.1/files/debian.iso2/linux debian.iso2\n"}))(k)
	k.ok(k.DeleteMedia(ctx, actor, "debian.iso"))
	same(k, "the media that are left", []store.Media{other}, must(k.AllMedia(ctx))(k))
	k.unchanged(func() { k.refused(k.DeleteMedia(ctx, actor, "debian.iso"), store.KindNotFound, "", "debian.iso") })
	audit, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if audit[0].Action != "media.delete" || audit[0].Subject != "debian.iso" || audit[0].Actor != actor {
		k.Errorf("the audit log begins with %+v", audit[0])
	}
}
