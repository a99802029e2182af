package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/store"
)

func newLoader(chain, name string, role store.LoaderRole) store.Loader {
	return store.Loader{Chain: chain, Name: name, Role: role, Firmware: "UEFI", Arch: "x86-64", Size: 1 << 20, SHA256: strings.Repeat("a1", 32)}
}

func loaderRoundTrip(k *kit) {
	ctx := k.Context()
	in := newLoader("", "snponly.efi", "")
	in.Version, in.Features, in.Opaque = "1.21.1", []string{"iSCSI", "HTTPS"}, true
	made := must(k.PutLoader(ctx, actor, in))(k)
	if made.Revision != 1 || made.Created.IsZero() {
		k.Errorf("revision %d, created %v", made.Revision, made.Created)
	}
	in.Revision, in.Created, in.Updated = made.Revision, made.Created, made.Updated
	same(k, "the loader as made", in, made)
	first := must(k.PutLoader(ctx, actor, newLoader("secure", "shimx64.efi", store.LoaderFirst)))(k)
	second := must(k.PutLoader(ctx, actor, newLoader("secure", "grubx64.efi", store.LoaderSecond)))(k)
	k.reopen()
	same(k, "the loaders after a restart", []store.Loader{made, second, first}, must(k.SuppliedLoaders(ctx))(k))

	in.SHA256 = strings.Repeat("b2", 32)
	again := must(k.PutLoader(ctx, actor, in))(k)
	if again.Revision != 2 || !again.Created.Equal(made.Created) {
		k.Errorf("a replaced loader has revision %d, created %v", again.Revision, again.Created)
	}
	k.ok(k.DeleteLoader(ctx, actor, "secure", "grubx64.efi"))
	same(k, "the loaders that are left", []store.Loader{again, first}, must(k.SuppliedLoaders(ctx))(k))
	audit, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if audit[0].Action != "loader.delete" || audit[0].Subject != "secure/grubx64.efi" || audit[1].Action != "loader.put" || audit[0].Actor != actor {
		k.Errorf("the audit log begins with %+v", audit[:2])
	}
}

func loaderInvalid(k *kit) {
	ctx := k.Context()
	must(k.PutLoader(ctx, actor, newLoader("secure", "shimx64.efi", store.LoaderFirst)))(k)
	change := func(f func(*store.Loader)) store.Loader {
		l := newLoader("", "ipxe.efi", "")
		f(&l)
		return l
	}
	for name, c := range map[string]struct {
		l     store.Loader
		kind  store.Kind
		field string
	}{
		"a path for a name":       {change(func(l *store.Loader) { l.Name = "../ipxe.efi" }), store.KindInvalid, "name"},
		"no loader's ending":      {change(func(l *store.Loader) { l.Name = "passwd" }), store.KindInvalid, "name"},
		"a MAC for a chain":       {change(func(l *store.Loader) { l.Chain, l.Role = "abcdef012345", "first" }), store.KindInvalid, "chain"},
		"a file for a chain":      {change(func(l *store.Loader) { l.Chain, l.Role = "a.efi", "first" }), store.KindInvalid, "chain"},
		"a role without a chain":  {change(func(l *store.Loader) { l.Role = "first" }), store.KindInvalid, "role"},
		"a chain without a role":  {change(func(l *store.Loader) { l.Chain = "secure" }), store.KindInvalid, "role"},
		"two first files":         {newLoader("secure", "ipxe-shimx64.efi", store.LoaderFirst), store.KindConflict, "role"},
		"two platforms in one":    {change(func(l *store.Loader) { l.Chain, l.Role, l.Arch = "secure", "second", "arm64" }), store.KindConflict, "file"},
		"no platform":             {change(func(l *store.Loader) { l.Arch = "" }), store.KindInvalid, "file"},
		"no bytes":                {change(func(l *store.Loader) { l.Size = 0 }), store.KindInvalid, "file"},
		"more bytes than allowed": {change(func(l *store.Loader) { l.Size = store.MaxLoader + 1 }), store.KindInvalid, "file"},
		"no sum":                  {change(func(l *store.Loader) { l.SHA256 = "../../etc/passwd" }), store.KindInvalid, "sha256"},
	} {
		k.unchanged(func() {
			_, err := k.PutLoader(ctx, actor, c.l)
			k.Log(name)
			k.refused(err, c.kind, c.field)
		})
	}
	k.unchanged(func() { k.refused(k.DeleteLoader(ctx, actor, "", "ipxe.efi"), store.KindNotFound, "", "ipxe.efi") })
}

func loaderTrials(k *kit) {
	ctx := k.Context()
	at := time.Now().Add(-time.Hour).UTC().Round(time.Microsecond)
	one := store.LoaderTrial{Key: "mac/1", Loader: "snponly.efi", Outcome: store.TrialSilent, Times: 1, Strikes: 2, Last: at}
	two := store.LoaderTrial{Key: "mac/1", Loader: "ipxe.efi", Outcome: store.TrialWorked, Times: 3, Last: at}
	k.ok(k.PutLoaderTrial(ctx, one))
	k.ok(k.PutLoaderTrial(ctx, two))
	one.Outcome, one.Strikes = store.TrialWorked, 0
	k.ok(k.PutLoaderTrial(ctx, one))
	k.reopen()
	same(k, "the trials after a restart", []store.LoaderTrial{two, one}, must(k.LoaderTrials(ctx))(k))
	for name, bad := range map[string]store.LoaderTrial{
		"no key":          {Loader: "x.efi"},
		"no loader":       {Key: "x"},
		"another outcome": {Key: "x", Loader: "x.efi", Outcome: "fine"},
		"a count below 0": {Key: "x", Loader: "x.efi", Strikes: -1},
	} {
		k.unchanged(func() {
			k.Log(name)
			k.refused(k.PutLoaderTrial(ctx, bad), store.KindInvalid, "")
		})
	}
	done := make(chan error)
	const writers = 64
	for w := range writers {
		go func() {
			var err error
			for i := w; i < store.MaxLoaderTrials && err == nil; i += writers {
				err = k.PutLoaderTrial(ctx, store.LoaderTrial{Key: fmt.Sprintf("rack/%05d", i), Loader: "ipxe.efi", Last: at.Add(time.Minute + time.Duration(i))})
			}
			done <- err
		}()
	}
	for range writers {
		k.ok(<-done)
	}
	all := must(k.LoaderTrials(ctx))(k)
	if len(all) != store.MaxLoaderTrials || slices.ContainsFunc(all, func(t store.LoaderTrial) bool { return t.Key == "mac/1" }) {
		k.Errorf("%d trials are kept, the oldest among them", len(all))
	}
}
