package dbfile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"lunboot/store"
)

// Inspect reads a file that nobody has open, without changing it: every page,
// every reference, and its schema's version. It refuses one that this program
// cannot bring to its own schema. fn may read it.
func Inspect(ctx context.Context, path string, migrations fs.FS, fn func(Querier) error) (schema int64, err error) {
	name := filepath.Base(path)
	op := "look at " + name
	if _, err := os.Stat(path); err != nil {
		return 0, Explain(op, err)
	}
	db, err := openPool(path, 1, url.Values{"mode": {"ro"}, "immutable": {"1"}, "_query_only": {"on"}})
	if err != nil {
		return 0, Explain(op, err)
	}
	defer db.Close()
	var word string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&word); err != nil {
		return 0, Explain(op, err)
	}
	if word == "ok" {
		word, err = danglingReference(ctx, db)
		if err != nil {
			return 0, Explain(op, err)
		}
	}
	if word != "ok" {
		return 0, &store.Error{Kind: store.KindCorrupt, Op: op, Msg: "the file is damaged (" + word + ")"}
	}
	known, err := numbers(migrations)
	if err != nil {
		return 0, err
	}
	have, err := applied(ctx, db)
	if err != nil || len(have) == 0 {
		return 0, &store.Error{Kind: store.KindInvalid, Op: op, Msg: "the file is not lunboot's", Err: err}
	}
	schema = have.newest()
	if strange := have.without(known); len(strange) > 0 {
		return schema, &store.Error{Kind: store.KindConflict, Op: op,
			Msg: fmt.Sprintf("it was written by a newer lunboot (%s); use that version", unlike(have, known, strange))}
	}
	return schema, Explain(op, fn(db))
}

// IsMissing reports whether err says that there is no such file.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// danglingReference returns "ok", or which table has a row that refers to none.
func danglingReference(ctx context.Context, db *sql.DB) (string, error) {
	rows, err := db.QueryContext(ctx, "PRAGMA foreign_key_check")
	if err != nil {
		return "", err
	}
	defer rows.Close()
	word := "ok"
	if rows.Next() {
		var table, parent string
		var row, key sql.NullInt64
		if err := rows.Scan(&table, &row, &parent, &key); err != nil {
			return "", err
		}
		word = "a row of " + table + " refers to a " + parent + " that is not there"
	}
	return word, rows.Err()
}
