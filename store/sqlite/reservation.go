package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Reservations returns a volume's persistent reservations that were to survive
// a power loss; the zero value when there are none.
func (db *DB) Reservations(ctx context.Context, v store.VolumeID) (r store.Reservations, err error) {
	rows, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[string], "SELECT state FROM reservation WHERE volume = ?", int64(v))
	if err != nil || len(rows) == 0 {
		return r, err
	}
	if err := json.Unmarshal([]byte(rows[0]), &r); err != nil {
		return r, &store.Error{Kind: store.KindCorrupt, Op: "read reservations", Subject: fmt.Sprintf("volume %d", v), Msg: "the row makes no sense", Err: err}
	}
	return r, nil
}

// PutReservations keeps a volume's persistent reservations; they are durable
// when it returns nil. A state without any is forgotten. It writes no audit row:
// it is an initiator's act and no operator's.
func (db *DB) PutReservations(ctx context.Context, v store.VolumeID, r store.Reservations) error {
	return db.write(ctx, "keep reservations", func(t *tx) error {
		if r.Empty() {
			_, err := t.Run("DELETE FROM reservation WHERE volume = ?", int64(v))
			return err
		}
		state, err := json.Marshal(r)
		if err != nil {
			return err
		}
		n, err := t.Run("INSERT INTO reservation (volume, state) SELECT id, ? FROM volume WHERE id = ? ON CONFLICT (volume) DO UPDATE SET state = excluded.state", string(state), int64(v))
		if err == nil && n == 0 {
			return store.NotFound("volume", fmt.Sprint(v))
		}
		return err
	})
}
