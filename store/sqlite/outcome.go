package sqlite

import (
	"context"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// maxEnds bounds what AttemptEnds returns: a thousand machines that boot ten
// times a day, for a month.
const maxEnds = 300_000

// Numbers rise with time: the walk along them is as long as the answer.
const attemptEnds = `SELECT started, outcome FROM attempt
		WHERE id > coalesce((SELECT id FROM attempt WHERE started < ? ORDER BY id DESC LIMIT 1), 0) AND outcome <> ?
		ORDER BY id DESC LIMIT ?`

// AttemptEnds returns how the attempts that began at or after since have ended,
// newest first; those that run are left out.
func (j *Journal) AttemptEnds(ctx context.Context, since time.Time) ([]store.AttemptEnd, error) {
	return dbfile.List(ctx, j.file.Reader(), func(r dbfile.Row) (e store.AttemptEnd, err error) {
		var started int64
		err = r.Scan(&started, &e.Outcome)
		e.Started = dbfile.Instant(started)
		return e, err
	}, attemptEnds, dbfile.Nanos(since), string(store.OutcomeRunning), maxEnds)
}
