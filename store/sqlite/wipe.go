package sqlite

import (
	"context"
	"encoding/json"
	"fmt"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// Wipe returns what an initiator began to wipe a volume with, nil when nothing is
// unfinished. A volume that may not be wiped any more has nothing unfinished, then
// and later: its operator has decided so.
func (db *DB) Wipe(ctx context.Context, v store.VolumeID) (*store.Wipe, error) {
	rows, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[string], "SELECT wipe.state FROM wipe JOIN volume ON volume.id = wipe.volume WHERE wipe.volume = ? AND sanitize", int64(v))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	var w store.Wipe
	if err := json.Unmarshal([]byte(rows[0]), &w); err != nil {
		return nil, &store.Error{Kind: store.KindCorrupt, Op: "read the wipe", Subject: fmt.Sprintf("volume %d", v), Msg: "the row makes no sense", Err: err}
	}
	return &w, nil
}

// UnfinishedWipes lists the volumes of which a wipe has neither ended nor failed.
func (db *DB) UnfinishedWipes(ctx context.Context) ([]store.VolumeID, error) {
	rows, err := dbfile.List(ctx, db.file.Reader(), dbfile.Scalar[int64], "SELECT wipe.volume FROM wipe JOIN volume ON volume.id = wipe.volume WHERE sanitize AND CASE WHEN json_valid(wipe.state) THEN NOT json_extract(wipe.state, '$.failed') ELSE false END ORDER BY wipe.volume")
	var out []store.VolumeID
	for _, id := range rows {
		out = append(out, store.VolumeID(id))
	}
	return out, err
}

// BeginWipe keeps what a volume is about to be wiped with; it is durable when it
// returns nil. A volume that may not be wiped meanwhile is a KindConflict. It writes no audit row: it is an initiator's act and no operator's.
func (db *DB) BeginWipe(ctx context.Context, v store.VolumeID, w store.Wipe) error {
	return db.write(ctx, "begin wipe", func(t *tx) error {
		state, err := json.Marshal(w)
		if err != nil {
			return err
		}
		n, err := t.Run("INSERT INTO wipe (volume, state) SELECT id, ? FROM volume WHERE id = ? AND sanitize ON CONFLICT (volume) DO UPDATE SET state = excluded.state", string(state), int64(v))
		if err != nil || n > 0 {
			return err
		}
		is, err := volumeBy(t.Ctx, t, v)
		if err != nil {
			return err
		}
		return store.Conflict("sanitize", "volume %s may not be wiped any more", is.Name)
	})
}

// FailWipe notes that a wipe of a volume has failed. When it is not the volume's any
// more, since that has other bytes or another one was begun, nothing changes.
func (db *DB) FailWipe(ctx context.Context, v store.VolumeID, id store.UUID) error {
	return db.write(ctx, "fail wipe", func(t *tx) error {
		_, err := t.Run("UPDATE wipe SET state = json_set(state, '$.failed', json('true')) WHERE volume = ? AND "+thisWipe, int64(v), wipeName(id))
		return err
	})
}

// EndWipe forgets a wipe of a volume, and no other one.
func (db *DB) EndWipe(ctx context.Context, v store.VolumeID, id store.UUID) error {
	return db.write(ctx, "end wipe", func(t *tx) error {
		_, err := t.Run("DELETE FROM wipe WHERE volume = ? AND "+thisWipe, int64(v), wipeName(id))
		return err
	})
}

// thisWipe finds the row of one wipe. Rows of earlier programs name none.
const thisWipe = "CASE WHEN json_valid(state) THEN coalesce(json_extract(state, '$.id'), '') = ? ELSE false END"

func wipeName(id store.UUID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func (t *tx) endWipe(v store.VolumeID) error {
	_, err := t.Run("DELETE FROM wipe WHERE volume = ?", int64(v))
	return err
}
