package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

const userColumns = `SELECT name, role, revision, hash, created, updated, last_login, issuer, subject, known_as, disabled, refused FROM user `

func scanUser(r dbfile.Row) (u store.User, err error) {
	var created, updated, login int64
	err = r.Scan(&u.Name, &u.Role, &u.Revision, &u.Hash, &created, &updated, &login, &u.Issuer, &u.Subject, &u.KnownAs, &u.Disabled, &u.Refused)
	u.Created, u.Updated, u.LastLogin = dbfile.Instant(created), dbfile.Instant(updated), dbfile.Instant(login)
	return u, err
}

// Users returns everybody who may log in, by name.
func (db *DB) Users(ctx context.Context) ([]store.User, error) {
	return dbfile.List(ctx, db.file.Reader(), scanUser, userColumns+"ORDER BY name")
}

// User returns the user of this name.
func (db *DB) User(ctx context.Context, name string) (store.User, error) {
	return userBy(ctx, db.file.Reader(), name)
}

func userBy(ctx context.Context, q dbfile.Querier, name string) (store.User, error) {
	return dbfile.One(ctx, q, scanUser, store.NotFound("user", name), userColumns+"WHERE name = ?", name)
}

// UserByIdentity returns who signs in through a provider under a subject.
func (db *DB) UserByIdentity(ctx context.Context, issuer, subject string) (store.User, error) {
	// To the one who asks, the subject says nothing.
	return dbfile.One(ctx, db.file.Reader(), scanUser, &store.Error{Kind: store.KindNotFound, Msg: "nobody has signed in so yet"}, userColumns+"WHERE issuer = ? AND subject = ? AND subject <> ''", issuer, subject)
}

// CreateUser adds a user. The first one must be an admin with a password: somebody
// has to be.
func (db *DB) CreateUser(ctx context.Context, actor store.Actor, u store.User) (store.User, error) {
	if err := u.Validate(); err != nil {
		return store.User{}, err
	}
	err := db.write(ctx, "add user", func(t *tx) error {
		others, err := dbfile.List(t.Ctx, t, scanUser, userColumns)
		if err != nil {
			return err
		}
		for _, other := range others {
			if u.Federated() && other.Issuer == u.Issuer && other.Subject == u.Subject {
				return store.Conflict("subject", "%s is the user %s already", u.KnownAs, other.Name)
			}
		}
		if slices.ContainsFunc(others, func(o store.User) bool { return o.Name == u.Name }) {
			return store.Conflict("name", "there is a user %s already; choose another name", u.Name)
		}
		if len(others) == 0 && !keeper(&u) {
			return store.Conflict("role", "the first user has to be an admin with a password: nobody else could add others")
		}
		u.Revision, u.Created, u.Updated, u.LastLogin = 1, stored(t.now), stored(t.now), time.Time{}
		if _, err := t.Run("INSERT INTO user (name, role, revision, hash, created, updated, issuer, subject, known_as, disabled, refused) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			u.Name, string(u.Role), u.Revision, u.Hash, dbfile.Nanos(u.Created), dbfile.Nanos(u.Updated), u.Issuer, u.Subject, u.KnownAs, u.Disabled, u.Refused); err != nil {
			return err
		}
		t.move(changed)
		return t.auditDiff(actor, "user.create", u.Name, userChanges(&store.User{}, &u))
	})
	if err != nil {
		return store.User{}, err
	}
	return u, nil
}

// UpdateUser changes a user's role, password, what they are known as and whether
// they may log in. A Revision that is not zero must be the present one. The last
// admin with a password stays one.
func (db *DB) UpdateUser(ctx context.Context, actor store.Actor, u store.User) (store.User, error) {
	if err := u.Validate(); err != nil {
		return store.User{}, err
	}
	err := db.write(ctx, "change user", func(t *tx) error {
		old, err := userBy(t.Ctx, t, u.Name)
		if err != nil {
			return err
		}
		if err := checkRevision("user", u.Name, old.Revision, u.Revision); err != nil {
			return err
		}
		if u.Issuer != old.Issuer || u.Subject != old.Subject {
			return store.Invalid("subject", "%s stays who they are; remove them, and add whom you mean", u.Name)
		}
		changes := userChanges(&old, &u)
		if changes.empty() {
			u = old
			return nil
		}
		if keeper(&old) && !keeper(&u) {
			if err := t.anotherAdmin(u.Name); err != nil {
				return err
			}
		}
		u.Revision, u.Created, u.Updated, u.LastLogin = old.Revision+1, old.Created, stored(t.now), old.LastLogin
		if _, err := t.Run("UPDATE user SET role = ?, revision = ?, hash = ?, updated = ?, known_as = ?, disabled = ?, refused = ? WHERE name = ?",
			string(u.Role), u.Revision, u.Hash, dbfile.Nanos(u.Updated), u.KnownAs, u.Disabled, u.Refused, u.Name); err != nil {
			return err
		}
		t.move(changed)
		return t.auditDiff(actor, "user.update", u.Name, changes)
	})
	if err != nil {
		return store.User{}, err
	}
	return u, nil
}

// DeleteUser removes a user; the last admin with a password stays. A revision that is not zero
// must be the present one.
func (db *DB) DeleteUser(ctx context.Context, actor store.Actor, name string, revision int64) error {
	return db.write(ctx, "remove user", func(t *tx) error {
		old, err := userBy(t.Ctx, t, name)
		if err != nil {
			return err
		}
		if err := checkRevision("user", name, old.Revision, revision); err != nil {
			return err
		}
		if keeper(&old) {
			if err := t.anotherAdmin(name); err != nil {
				return err
			}
		}
		if _, err := t.Run("DELETE FROM user WHERE name = ?", name); err != nil {
			return err
		}
		t.move(changed)
		return t.auditDiff(actor, "user.delete", name, userChanges(&old, &store.User{}).gone("role "+string(old.Role)))
	})
}

// keeper reports one of those of whom one has to stay: an admin who can log in
// whatever becomes of the provider.
func keeper(u *store.User) bool {
	return u.Role == store.RoleAdmin && !u.Federated() && !u.Disabled
}

// anotherAdmin refuses what would leave nobody who can add people.
func (t *tx) anotherAdmin(but string) error {
	others, err := dbfile.List(t.Ctx, t, scanUser, userColumns+"WHERE name <> ?", but)
	if err == nil && !slices.ContainsFunc(others, func(u store.User) bool { return keeper(&u) }) {
		return store.Conflict("role", "%s is the last admin with a password; make somebody else one first", but)
	}
	return err
}

func userChanges(a, b *store.User) diff {
	var d diff
	d.add("role", string(a.Role), string(b.Role))
	d.secret("password", a.Hash, b.Hash)
	d.add("provider", a.Issuer, b.Issuer)
	d.add("subject", a.Subject, b.Subject)
	d.add("known as", a.KnownAs, b.KnownAs)
	d.flag("disabled", a.Disabled, b.Disabled)
	d.flag("refused", a.Refused, b.Refused)
	return d
}

// NoteLogin records that a user logged in. It is no change of the user.
func (db *DB) NoteLogin(ctx context.Context, name string, at time.Time) error {
	return db.batch.do(ctx, "record login", func(t *tx) error {
		_, err := t.Run("UPDATE user SET last_login = max(last_login, ?) WHERE name = ?", dbfile.Nanos(at), name)
		return err
	})
}

const tokenColumns = `SELECT id, name, hash, scope, created, expires, last_used, owner, owner_since FROM token `

func scanToken(r dbfile.Row) (t store.Token, err error) {
	var created, expires, used, since int64
	err = r.Scan(&t.ID, &t.Name, &t.Hash, &t.Scope, &created, &expires, &used, &t.Owner, &since)
	t.Created, t.Expires, t.LastUsed, t.OwnerSince = dbfile.Instant(created), dbfile.Instant(expires), dbfile.Instant(used), dbfile.Instant(since)
	return t, err
}

// CreateToken adds a token. Its owner, when it has one, is somebody who is there.
func (db *DB) CreateToken(ctx context.Context, actor store.Actor, k store.Token) (store.Token, error) {
	if err := k.Validate(); err != nil {
		return store.Token{}, err
	}
	err := db.write(ctx, "create token", func(t *tx) error {
		other, err := dbfile.List(t.Ctx, t, dbfile.Scalar[string], "SELECT name FROM token WHERE name = ? OR hash = ?", k.Name, k.Hash)
		if err != nil {
			return err
		}
		if len(other) > 0 {
			return store.Conflict("name", "there is a token %q already; choose another name or remove it", other[0])
		}
		if k.Created.IsZero() {
			k.Created = t.now
		}
		k.Created, k.Expires, k.LastUsed, k.OwnerSince = stored(k.Created), stored(k.Expires), stored(k.LastUsed), time.Time{}
		if k.Owner != "" {
			u, err := userBy(t.Ctx, t, k.Owner)
			if err != nil {
				return err
			}
			k.OwnerSince = u.Created
		}
		k.ID, err = t.Insert("INSERT INTO token (name, hash, scope, created, expires, last_used, owner, owner_since) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			k.Name, k.Hash, k.Scope, dbfile.Nanos(k.Created), dbfile.Nanos(k.Expires), dbfile.Nanos(k.LastUsed), k.Owner, dbfile.Nanos(k.OwnerSince))
		if err != nil {
			return err
		}
		t.move(changed)
		detail := "scope " + k.Scope
		if !k.Expires.IsZero() {
			detail += ", until " + k.Expires.UTC().Format(time.RFC3339)
		}
		if k.Owner != "" {
			detail += ", of " + k.Owner
		}
		return t.audit(actor, "token.create", k.Name, detail)
	})
	if err != nil {
		return store.Token{}, err
	}
	return k, nil
}

// TokenByHash returns the token with this hash. Whether it has expired is for
// the caller to say.
func (db *DB) TokenByHash(ctx context.Context, hash string) (store.Token, error) {
	// The error must not repeat what was looked for.
	return dbfile.One(ctx, db.file.Reader(), scanToken, &store.Error{Kind: store.KindNotFound, Msg: "there is no such token"}, tokenColumns+"WHERE hash = ?", hash)
}

// Tokens returns every token, by name.
func (db *DB) Tokens(ctx context.Context) ([]store.Token, error) {
	return dbfile.List(ctx, db.file.Reader(), scanToken, tokenColumns+"ORDER BY name")
}

// DeleteToken revokes a token.
func (db *DB) DeleteToken(ctx context.Context, actor store.Actor, id int64) error {
	return db.write(ctx, "remove token", func(t *tx) error {
		k, err := dbfile.One(t.Ctx, t, scanToken, store.NotFound("token with number", fmt.Sprint(id)), tokenColumns+"WHERE id = ?", id)
		if err != nil {
			return err
		}
		if _, err := t.Run("DELETE FROM token WHERE id = ?", id); err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "token.delete", k.Name, "")
	})
}

// TouchToken records that a token was used.
func (db *DB) TouchToken(ctx context.Context, id int64, at time.Time) error {
	return db.batch.do(ctx, "record token", func(t *tx) error {
		n, err := t.Run("UPDATE token SET last_used = max(last_used, ?) WHERE id = ?", dbfile.Nanos(at), id)
		if err == nil && n == 0 {
			return store.NotFound("token with number", fmt.Sprint(id))
		}
		return err
	})
}

// WebSessions returns the web sessions that have not ended.
func (db *DB) WebSessions(ctx context.Context) ([]store.WebSession, error) {
	return dbfile.List(ctx, db.file.Reader(), func(r dbfile.Row) (s store.WebSession, err error) {
		var expires int64
		err = r.Scan(&s.Token, &s.Data, &expires)
		s.Expires = dbfile.Instant(expires)
		return s, err
	}, "SELECT token, data, expires FROM web_session WHERE expires > ? AND length(data) > 0", dbfile.Nanos(db.now()))
}

// FindCtx returns the data of a web session that has not ended.
func (db *DB) FindCtx(ctx context.Context, token string) (data []byte, found bool, err error) {
	missing := store.NotFound("session", "")
	data, err = dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[[]byte], missing, "SELECT data FROM web_session WHERE token = ? AND expires > ? AND length(data) > 0", token, dbfile.Nanos(db.now()))
	if errors.Is(err, missing) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// CommitCtx writes a web session, and forgets those that have run out. One that
// was ended stays so: a request that was under way then writes it again when it
// is done, and must not bring it back.
func (db *DB) CommitCtx(ctx context.Context, token string, data []byte, expires time.Time) error {
	data = append([]byte{}, data...) // the write may come after a caller that gave up
	return db.batch.do(ctx, "write session", func(t *tx) error {
		if _, err := t.Run("DELETE FROM web_session WHERE expires <= ?", dbfile.Nanos(t.now)); err != nil {
			return err
		}
		_, err := t.Run("INSERT INTO web_session (token, data, expires) VALUES (?, ?, ?) ON CONFLICT (token) DO UPDATE SET data = excluded.data, expires = excluded.expires WHERE length(web_session.data) > 0",
			token, data, dbfile.Nanos(expires))
		return err
	})
}

// DeleteCtx ends a web session: what is left of it until it would have run out
// is that it ended. It is no error when there is none.
func (db *DB) DeleteCtx(ctx context.Context, token string) error {
	return db.batch.do(ctx, "end session", func(t *tx) error {
		_, err := t.Run("UPDATE web_session SET data = x'' WHERE token = ?", token)
		return err
	})
}

// Find is FindCtx without a context.
func (db *DB) Find(token string) ([]byte, bool, error) {
	return db.FindCtx(context.Background(), token)
}

// Commit is CommitCtx without a context.
func (db *DB) Commit(token string, data []byte, expires time.Time) error {
	return db.CommitCtx(context.Background(), token, data, expires)
}

// Delete is DeleteCtx without a context.
func (db *DB) Delete(token string) error { return db.DeleteCtx(context.Background(), token) }
