package storetest

import (
	"fmt"
	"strings"

	"lunboot/store"
)

func federatedLife(k *kit) {
	ctx := k.Context()
	const issuer = "https://sso.example.org"
	carl := store.User{Name: "carl", Role: store.RoleAdmin, Issuer: issuer, Subject: "4711", KnownAs: "Carl@example.org"}
	_, err := k.CreateUser(ctx, store.ActorProvider, carl)
	k.refused(err, store.KindConflict, "role") // the first one needs a password
	anna := must(k.CreateUser(ctx, actor, store.User{Name: "anna", Role: store.RoleAdmin, Hash: "hash-1"}))(k)
	_, err = k.UserByIdentity(ctx, issuer, "4711")
	k.refused(err, store.KindNotFound, "")
	_, err = k.UserByIdentity(ctx, "", "")
	k.refused(err, store.KindNotFound, "") // which is nobody with a password
	carl = must(k.CreateUser(ctx, store.ActorProvider, carl))(k)
	k.reopen()
	same(k, "by the provider's name for them", carl, must(k.UserByIdentity(ctx, issuer, "4711"))(k))
	same(k, "by their own", carl, must(k.User(ctx, "carl"))(k))
	k.unchanged(func() {
		_, err := k.UserByIdentity(ctx, "https://another.example.org", "4711")
		k.refused(err, store.KindNotFound, "")
		twice := carl
		twice.Name = "carl-2"
		_, err = k.CreateUser(ctx, store.ActorProvider, twice)
		k.refused(err, store.KindConflict, "subject")
		taken := carl
		taken.Name, taken.Subject = "anna", "4712"
		_, err = k.CreateUser(ctx, store.ActorProvider, taken)
		k.refused(err, store.KindConflict, "name", "anna")
		// Nobody becomes somebody else.
		other := carl
		other.Subject = "4712"
		_, err = k.UpdateUser(ctx, actor, other)
		k.refused(err, store.KindInvalid, "subject", "carl")
		took := anna
		took.Hash, took.Issuer, took.Subject = "", issuer, "4713"
		_, err = k.UpdateUser(ctx, actor, took)
		k.refused(err, store.KindInvalid, "subject", "anna")
		// Carl is an admin, and only as long as the provider says so.
		last := anna
		last.Role = store.RoleViewer
		_, err = k.UpdateUser(ctx, actor, last)
		k.refused(err, store.KindConflict, "role", "anna")
		last = anna
		last.Disabled = true
		_, err = k.UpdateUser(ctx, actor, last)
		k.refused(err, store.KindConflict, "role", "anna")
		k.refused(k.DeleteUser(ctx, actor, "anna", 0), store.KindConflict, "role", "anna")
	})
	carl.Role, carl.KnownAs, carl.Disabled = store.RoleViewer, "Carla@example.org", true
	carl = must(k.UpdateUser(ctx, store.ActorProvider, carl))(k)
	k.reopen()
	same(k, "as changed", carl, must(k.User(ctx, "carl"))(k))
	log, _, err := k.Audit(ctx, store.Page{Limit: 1})
	k.ok(err)
	if a := log[0]; a.Actor != store.ActorProvider || !strings.Contains(a.Detail, "role admin → viewer; known as Carl@example.org → Carla@example.org; disabled on") {
		k.Errorf("the audit log says %+v", a)
	}
	// Whom the provider gives no role any more is known as such; whom it does not know
	// is nobody whom it could refuse.
	carl.Refused = true
	carl = must(k.UpdateUser(ctx, store.ActorProvider, carl))(k)
	k.reopen()
	same(k, "as refused", carl, must(k.UserByIdentity(ctx, issuer, "4711"))(k))
	k.unchanged(func() {
		refused := anna
		refused.Refused = true
		_, err := k.UpdateUser(ctx, actor, refused)
		k.refused(err, store.KindInvalid, "refused", "anna")
	})
	// A second admin with a password who is shut out keeps nobody either.
	ben := must(k.CreateUser(ctx, actor, store.User{Name: "ben", Role: store.RoleAdmin, Hash: "hash-2", Disabled: true}))(k)
	k.unchanged(func() { k.refused(k.DeleteUser(ctx, actor, "anna", 0), store.KindConflict, "role", "anna") })
	ben.Disabled = false
	must(k.UpdateUser(ctx, actor, ben))(k)
	k.ok(k.DeleteUser(ctx, actor, "anna", 0))
	k.ok(k.DeleteUser(ctx, actor, "carl", 0))
	// Whoever was removed may come again.
	must(k.CreateUser(ctx, store.ActorProvider, store.User{Name: "carl", Role: store.RoleViewer, Issuer: issuer, Subject: "4711"}))(k)
}

func providerLife(k *kit) {
	ctx := k.Context()
	none := must(k.OIDC(ctx))(k)
	if !none.IsZero() || none.Revision == 0 {
		k.Errorf("at first: %+v", none)
	}
	in := store.OIDC{
		Issuer: "https://sso.example.org", Name: "Example", ClientID: "lunboot", Secret: "hush-hush-1", URL: "https://lunboot.example.org", Scopes: []string{"openid", "groups"},
		Claim: "groups", Roles: []store.ClaimRole{{Value: "a,b = c", Role: store.RoleAdmin}, {Value: "d", Role: store.RoleViewer}}, Default: store.RoleOperator, Logout: true,
	}
	made := must(k.PutOIDC(ctx, actor, in))(k)
	in.Revision = none.Revision + 1
	same(k, "the provider as made", in, made)
	k.reopen()
	same(k, "the provider as read", made, must(k.OIDC(ctx))(k))
	k.unchanged(func() {
		same(k, "again", made, must(k.PutOIDC(ctx, actor, made))(k))
		stale := made
		stale.Revision, stale.Name = none.Revision, "Other"
		_, err := k.PutOIDC(ctx, actor, stale)
		k.refused(err, store.KindConflict, "revision")
		_, err = k.PutOIDC(store.Expecting(ctx, store.Expectation{Noun: "oidc", Key: "provider", Revision: none.Revision}), actor, stale)
		k.refused(err, store.KindStale, "revision")
		bad := made
		bad.ClientID = ""
		_, err = k.PutOIDC(ctx, actor, bad)
		k.refused(err, store.KindInvalid, "client_id")
	})
	made.Secret, made.Revision, made.Logout = "hush-hush-2", 0, false
	must(k.PutOIDC(ctx, actor, made))(k)
	gone := must(k.PutOIDC(ctx, actor, store.OIDC{}))(k)
	k.reopen()
	if o := must(k.OIDC(ctx))(k); !o.IsZero() || o.Secret != "" || o.Revision != gone.Revision {
		k.Errorf("once removed: %+v", o)
	}
	log, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if s := fmt.Sprint(log); strings.Contains(s, "hush") || !strings.Contains(s, "oidc.update") || !strings.Contains(s, "oidc.delete") || !strings.Contains(s, "client secret set") || !strings.Contains(s, "a,b = c = admin; d = viewer") || !strings.Contains(s, "logout there off") {
		k.Errorf("the audit log says %s", s)
	}
}
