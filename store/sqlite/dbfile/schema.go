package dbfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// versions are the numbers of migrations, in order: a set and not the
// largest of them, since a migration may come later than one with a higher
// number: two programs whose newest number is the same need not know the same.
type versions []int64

// without returns the numbers that others lacks.
func (s versions) without(others versions) (rest versions) {
	for _, n := range s {
		if !slices.Contains(others, n) {
			rest = append(rest, n)
		}
	}
	return rest
}

func (s versions) newest() int64 { return slices.Max(s) }

// String is the numbers as a sentence has them: "12, 15 and 16".
func (s versions) String() string {
	words := make([]string, len(s))
	for i, n := range s {
		words[i] = strconv.FormatInt(n, 10)
	}
	if last := len(words) - 1; last > 0 {
		return strings.Join(words[:last], ", ") + " and " + words[last]
	}
	return strings.Join(words, "")
}

// unlike says in what a file's schema is ahead of a program's.
func unlike(file, program, strange versions) string {
	if len(program) > 0 && file.newest() == program.newest() {
		return fmt.Sprintf("its schema is %d as this program's, but with migration %s, which this program does not know", file.newest(), strange)
	}
	if len(program) == 0 {
		return fmt.Sprintf("its schema is %d, this program knows none", file.newest())
	}
	return fmt.Sprintf("its schema is %d, this program knows %d", file.newest(), program.newest())
}

// applied reads which migrations a file has had.
func applied(ctx context.Context, q Querier) (versions, error) {
	rows, err := q.QueryContext(ctx, "SELECT DISTINCT version_id FROM "+goose.DefaultTablename+" WHERE is_applied AND version_id > 0 ORDER BY version_id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var s versions
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		s = append(s, n)
	}
	return s, rows.Err()
}

// numbers are those of the migrations that a program has: goose names a file by
// a number and an underscore.
func numbers(migrations fs.FS) (versions, error) {
	files, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		return nil, err
	}
	var s versions
	for _, f := range files {
		number, _, _ := strings.Cut(f, "_")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the migration %s has no number", f)
		}
		s = append(s, n)
	}
	slices.Sort(s)
	return s, nil
}

// copyName is where the copy of a file with an older schema goes: beside the
// file. One that was made of another set of migrations with the same newest
// number is kept, since there may be a program that can open that alone.
func (f *File) copyName(ctx context.Context, version int64) (string, error) {
	have, err := applied(ctx, f.w)
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		path := fmt.Sprintf("%s.schema-%d", f.path, version)
		if n > 1 {
			path = fmt.Sprintf("%s.%d", path, n)
		}
		of, err := schemaOf(ctx, path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && slices.Equal(of, have) {
			return path, nil
		}
	}
}

// lastCopy is the copy of the file that has had the most migrations of those
// that a program knows and none besides, empty when there is none.
func (f *File) lastCopy(ctx context.Context, known versions) (path string) {
	copies, err := filepath.Glob(escapeGlob(f.path) + ".schema-*")
	if err != nil {
		return ""
	}
	best := 0
	for _, c := range copies {
		of, err := schemaOf(ctx, c)
		if err == nil && len(of) > best && len(of.without(known)) == 0 {
			best, path = len(of), c
		}
	}
	return path
}

// schemaOf reads which migrations a copy has had, and leaves no file beside it.
func schemaOf(ctx context.Context, path string) (_ versions, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	db, err := openPool(path, 1, url.Values{"mode": {"ro"}, "immutable": {"1"}, "_query_only": {"on"}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return applied(ctx, db)
}

// escapeGlob makes a path a pattern that matches itself: a folder may have any
// name.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}
