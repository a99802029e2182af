package sqlite

import (
	"context"
	"slices"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

// partRows is how many rows of a table that grows with time are held at once.
const partRows = 500

// parts reads the rows with these ids a part at a time; columns ends with the name
// of the column that has them. Which they are and how they follow each other was
// found at once, so each comes once, whatever is written meanwhile; and nothing is
// held open for somebody who fetches them slowly. What was removed meanwhile is
// left out.
func parts[ID ~int64, T any](file *dbfile.File, ids []ID, columns string, scan func(dbfile.Row) (T, error), of func(T) ID) store.Parts[T] {
	return func(ctx context.Context) ([]T, error) {
		for len(ids) > 0 {
			now := ids[:min(partRows, len(ids))]
			ids = ids[len(now):]
			rows, err := dbfile.List(ctx, file.Reader(), scan, columns+"IN (SELECT value FROM json_each(?))", jsonList(now))
			if err != nil {
				return nil, err
			}
			at := make(map[ID]int, len(now))
			for i, id := range now {
				at[id] = i
			}
			slices.SortFunc(rows, func(a, b T) int { return at[of(a)] - at[of(b)] })
			if len(rows) > 0 {
				return rows, nil
			}
		}
		return nil, nil
	}
}
