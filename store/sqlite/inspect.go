package sqlite

import (
	"context"
	"io/fs"
	"path/filepath"

	"lunboot/store/sqlite/dbfile"
)

// Contents is what an inventory holds, in numbers.
type Contents struct {
	Schema                    int64
	Machines, Volumes, Leases int
}

// Inspect looks at the inventory and, when it is there, the journal in dir
// without changing them: a backup that was unpacked. It fails when one is
// damaged or was written by a newer program.
func Inspect(ctx context.Context, dir string) (c Contents, err error) {
	for _, name := range [...]string{inventoryFile, journalFile} {
		path := filepath.Join(dir, name+".db")
		steps, err := fs.Sub(migrations, "migrations/"+name)
		if err != nil {
			return c, err
		}
		schema, err := dbfile.Inspect(ctx, path, steps, func(q dbfile.Querier) error {
			if name != inventoryFile {
				return nil
			}
			row := q.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM machine), (SELECT count(*) FROM volume), (SELECT count(*) FROM lease)")
			return row.Scan(&c.Machines, &c.Volumes, &c.Leases)
		})
		if err != nil && (name == inventoryFile || !dbfile.IsMissing(err)) {
			return c, err
		}
		if name == inventoryFile {
			c.Schema = schema
		}
	}
	return c, nil
}
