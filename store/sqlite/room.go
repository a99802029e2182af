package sqlite

import (
	"context"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// RoomSamples returns the looks at the room for volumes that are kept, the oldest
// first.
func (db *DB) RoomSamples(ctx context.Context) ([]store.RoomSample, error) {
	return dbfile.List(ctx, db.file.Reader(), func(r dbfile.Row) (s store.RoomSample, err error) {
		var at int64
		err = r.Scan(&at, &s.Size, &s.Free)
		s.At = dbfile.Instant(at)
		return s, err
	}, "SELECT at, size, free FROM room ORDER BY at")
}

// KeepRoomSample keeps a look, and forgets those from before since. It is nobody's
// act and moves nothing that others watch.
func (db *DB) KeepRoomSample(ctx context.Context, s store.RoomSample, since time.Time) error {
	return db.write(ctx, "keep the room for volumes", func(t *tx) error {
		if _, err := t.Run("DELETE FROM room WHERE at < ? OR at > ?", dbfile.Nanos(since), dbfile.Nanos(s.At)); err != nil {
			return err
		}
		_, err := t.Run("INSERT INTO room (at, size, free) VALUES (?, ?, ?) ON CONFLICT (at) DO UPDATE SET size = excluded.size, free = excluded.free", dbfile.Nanos(s.At), s.Size, s.Free)
		return err
	})
}
