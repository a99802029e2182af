package sqlite

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Bounds of the requests that are remembered by a key.
const (
	repeatLife   = 24 * time.Hour
	maxRepeats   = 4096 // the oldest go first
	maxRepeatsOf = 256  // of one who asks
)

// repeat is a request under a key of whoever asks.
type repeat struct{ who, id, request [sha256.Size]byte }

type repeatKey struct{}

// repeatOf names a request: a key is one only together with whose it is.
func repeatOf(who, key string) repeat {
	r := repeat{who: sha256.Sum256([]byte(who))}
	r.id = sha256.Sum256(append(r.who[:], key...))
	return r
}

// Under has the first change that is made with the context keep that a request was
// done, in its own transaction: it is remembered if and only if something was done.
func (db *DB) Under(ctx context.Context, who, key string, request [sha256.Size]byte) context.Context {
	r := repeatOf(who, key)
	r.request = request
	return context.WithValue(ctx, repeatKey{}, r)
}

// DoneUnder says which request was done under a key in the last day, and what it did;
// found is false when none was.
func (db *DB) DoneUnder(ctx context.Context, who, key string) (request [sha256.Size]byte, did string, found bool, err error) {
	r := repeatOf(who, key)
	missing := store.NotFound("request", "")
	var sum []byte
	_, err = dbfile.One(ctx, db.file.Reader(), func(row dbfile.Row) (bool, error) { return true, row.Scan(&sum, &did) }, missing,
		"SELECT request, did FROM repeat WHERE id = ? AND at > ?", r.id[:], dbfile.Nanos(db.now().Add(-repeatLife)))
	if errors.Is(err, missing) {
		return request, "", false, nil
	}
	copy(request[:], sum)
	return request, did, err == nil, err
}

// NotDone forgets that a request was done under a key: it failed after its first
// change, and may be tried again.
func (db *DB) NotDone(ctx context.Context, who, key string) error {
	r := repeatOf(who, key)
	return db.write(ctx, "forget a request", func(t *tx) error {
		_, err := t.Run("DELETE FROM repeat WHERE id = ?", r.id[:])
		return err
	})
}

// repeated keeps that the request of the transaction's context was done, once.
func (t *tx) repeated(did string) error {
	r, ok := t.Ctx.Value(repeatKey{}).(repeat)
	if !ok {
		return nil
	}
	if _, err := t.Run("DELETE FROM repeat WHERE at <= ?", dbfile.Nanos(t.now.Add(-repeatLife))); err != nil {
		return err
	}
	n, err := t.Run("INSERT OR IGNORE INTO repeat (id, who, request, did, at) VALUES (?, ?, ?, ?, ?)", r.id[:], r.who[:], r.request[:], did, dbfile.Nanos(t.now))
	if err != nil || n == 0 {
		return err
	}
	if _, err := t.Run("DELETE FROM repeat WHERE id IN (SELECT id FROM repeat WHERE who = ? ORDER BY at DESC LIMIT -1 OFFSET ?)", r.who[:], maxRepeatsOf); err != nil {
		return err
	}
	_, err = t.Run("DELETE FROM repeat WHERE id IN (SELECT id FROM repeat ORDER BY at DESC LIMIT -1 OFFSET ?)", maxRepeats)
	return err
}
