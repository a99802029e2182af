package sqlite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// PutUser adds a user or changes their password's hash.
func (db *DB) PutUser(ctx context.Context, actor store.Actor, name, hash string) error {
	if err := store.ValidateName("name", name); err != nil {
		return err
	}
	if hash == "" {
		return store.Invalid("password", "a user needs a password")
	}
	return db.write(ctx, "set user", func(t *tx) error {
		_, err := t.Run(`INSERT INTO user (name, hash, created, updated) VALUES (?, ?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, updated = excluded.updated`, name, hash, dbfile.Nanos(t.now), dbfile.Nanos(t.now))
		if err != nil {
			return err
		}
		t.move(changed)
		return t.audit(actor, "user.put", name, "password set")
	})
}

// UserHash returns the hash of a user's password.
func (db *DB) UserHash(ctx context.Context, name string) (string, error) {
	return dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[string], store.NotFound("user", name), "SELECT hash FROM user WHERE name = ?", name)
}

// HasUsers reports whether anybody can log in yet.
func (db *DB) HasUsers(ctx context.Context) (bool, error) {
	return dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[bool], nil, "SELECT EXISTS (SELECT 1 FROM user)")
}

const tokenColumns = `SELECT id, name, hash, scope, created, expires, last_used FROM token `

func scanToken(r dbfile.Row) (t store.Token, err error) {
	var created, expires, used int64
	err = r.Scan(&t.ID, &t.Name, &t.Hash, &t.Scope, &created, &expires, &used)
	t.Created, t.Expires, t.LastUsed = dbfile.Instant(created), dbfile.Instant(expires), dbfile.Instant(used)
	return t, err
}

// CreateToken adds a token.
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
		k.Created, k.Expires, k.LastUsed = stored(k.Created), stored(k.Expires), stored(k.LastUsed)
		k.ID, err = t.Insert("INSERT INTO token (name, hash, scope, created, expires, last_used) VALUES (?, ?, ?, ?, ?, ?)",
			k.Name, k.Hash, k.Scope, dbfile.Nanos(k.Created), dbfile.Nanos(k.Expires), dbfile.Nanos(k.LastUsed))
		if err != nil {
			return err
		}
		t.move(changed)
		detail := "scope " + k.Scope
		if !k.Expires.IsZero() {
			detail += ", until " + k.Expires.UTC().Format(time.RFC3339)
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

// FindCtx returns the data of a web session that has not ended.
func (db *DB) FindCtx(ctx context.Context, token string) (data []byte, found bool, err error) {
	missing := store.NotFound("session", "")
	data, err = dbfile.One(ctx, db.file.Reader(), dbfile.Scalar[[]byte], missing, "SELECT data FROM web_session WHERE token = ? AND expires > ?", token, dbfile.Nanos(db.now()))
	if errors.Is(err, missing) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// CommitCtx writes a web session, and forgets those that have ended.
func (db *DB) CommitCtx(ctx context.Context, token string, data []byte, expires time.Time) error {
	data = append([]byte{}, data...) // the write may come after a caller that gave up
	return db.batch.do(ctx, "write session", func(t *tx) error {
		if _, err := t.Run("DELETE FROM web_session WHERE expires <= ?", dbfile.Nanos(t.now)); err != nil {
			return err
		}
		_, err := t.Run("INSERT INTO web_session (token, data, expires) VALUES (?, ?, ?) ON CONFLICT (token) DO UPDATE SET data = excluded.data, expires = excluded.expires",
			token, data, dbfile.Nanos(expires))
		return err
	})
}

// DeleteCtx ends a web session. It is no error when there is none.
func (db *DB) DeleteCtx(ctx context.Context, token string) error {
	return db.batch.do(ctx, "end session", func(t *tx) error {
		_, err := t.Run("DELETE FROM web_session WHERE token = ?", token)
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
