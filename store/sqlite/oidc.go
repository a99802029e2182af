package sqlite

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"time"

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

// maxLogouts is how many logouts that the provider told of are remembered; those that
// are forgotten next go first.
const maxLogouts = 4096

func logoutID(issuer, jti string) []byte {
	sum := sha256.Sum256([]byte(issuer + "\x00" + jti))
	return sum[:]
}

// LogoutTold reports whether a logout that the provider told of is remembered.
func (db *DB) LogoutTold(ctx context.Context, issuer, jti string) (bool, error) {
	rows, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[int64], "SELECT 1 FROM logout WHERE id = ? AND until > ?", logoutID(issuer, jti), dbfile.Nanos(db.now()))
	return len(rows) > 0, err
}

// KeepLogout remembers a logout that the provider told of. It writes no audit row: the
// ends of the logins do.
func (db *DB) KeepLogout(ctx context.Context, issuer, jti string, until time.Time) error {
	return db.write(ctx, "remember a logout", func(t *tx) error {
		if _, err := t.Run("DELETE FROM logout WHERE until <= ?", dbfile.Nanos(t.now)); err != nil {
			return err
		}
		if _, err := t.Run("INSERT INTO logout (id, until) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET until = excluded.until", logoutID(issuer, jti), dbfile.Nanos(until)); err != nil {
			return err
		}
		_, err := t.Run("DELETE FROM logout WHERE id IN (SELECT id FROM logout ORDER BY until DESC LIMIT -1 OFFSET ?)", maxLogouts)
		return err
	})
}
