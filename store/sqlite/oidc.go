package sqlite

import (
	"context"
	"encoding/json"
	"strings"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// oidcSubject is what the audit log calls the provider: there is one.
const oidcSubject = "provider"

func scanOIDC(r dbfile.Row) (o store.OIDC, err error) {
	var scopes, roles string
	if err = r.Scan(&o.Revision, &o.Issuer, &o.Name, &o.ClientID, &o.Secret, &o.URL, &o.CA, &scopes, &o.Claim, &roles, &o.Default, &o.Logout); err != nil {
		return o, err
	}
	if err = json.Unmarshal([]byte(scopes), &o.Scopes); err != nil {
		return o, err
	}
	return o, json.Unmarshal([]byte(roles), &o.Roles)
}

// OIDC returns the provider through which people sign in.
func (db *DB) OIDC(ctx context.Context) (store.OIDC, error) { return oidcBy(ctx, db.file.Reader()) }

func oidcBy(ctx context.Context, q dbfile.Querier) (store.OIDC, error) {
	return dbfile.One(ctx, q, scanOIDC, store.NotFound("row of", "the provider"), "SELECT revision, issuer, name, client_id, secret, url, ca, scopes, claim, roles, default_role, logout FROM oidc")
}

// PutOIDC replaces the provider; the zero value removes it. A Revision that is
// not zero must be the present one.
func (db *DB) PutOIDC(ctx context.Context, actor store.Actor, o store.OIDC) (store.OIDC, error) {
	o, err := o.Normalize()
	if err != nil {
		return store.OIDC{}, err
	}
	err = db.write(ctx, "set provider", func(t *tx) error {
		old, err := oidcBy(t.Ctx, t)
		if err != nil {
			return err
		}
		if err := store.CheckExpected(ctx, "oidc", oidcSubject, oidcSubject, old.Revision); err != nil {
			return err
		}
		if err := checkRevision("the", oidcSubject, old.Revision, o.Revision); err != nil {
			return err
		}
		changes := oidcChanges(&old, &o)
		if changes.empty() {
			o = old
			return nil
		}
		o.Revision = old.Revision + 1
		if _, err := t.Run("UPDATE oidc SET revision = ?, issuer = ?, name = ?, client_id = ?, secret = ?, url = ?, ca = ?, scopes = ?, claim = ?, roles = ?, default_role = ?, logout = ?",
			o.Revision, o.Issuer, o.Name, o.ClientID, o.Secret, o.URL, o.CA, jsonList(o.Scopes), o.Claim, jsonList(o.Roles), string(o.Default), o.Logout); err != nil {
			return err
		}
		t.move(changed)
		action := "oidc.update"
		if o.IsZero() {
			action = "oidc.delete"
		}
		return t.auditDiff(actor, action, oidcSubject, changes)
	})
	if err != nil {
		return store.OIDC{}, err
	}
	return o, nil
}

func oidcChanges(a, b *store.OIDC) diff {
	var d diff
	d.add("issuer", a.Issuer, b.Issuer)
	d.add("name", a.Name, b.Name)
	d.add("client ID", a.ClientID, b.ClientID)
	d.secret("client secret", a.Secret, b.Secret)
	d.add("URL", a.URL, b.URL)
	d.long("certificates", a.CA, b.CA)
	d.add("scopes", strings.Join(a.Scopes, " "), strings.Join(b.Scopes, " "))
	d.add("claim", a.Claim, b.Claim)
	d.add("roles", joinRoles(a.Roles), joinRoles(b.Roles))
	d.add("default role", string(a.Default), string(b.Default))
	d.flag("logout there", a.Logout, b.Logout)
	return d
}

func joinRoles(roles []store.ClaimRole) string {
	s := make([]string, len(roles))
	for i, r := range roles {
		s[i] = r.String()
	}
	return strings.Join(s, "; ")
}
