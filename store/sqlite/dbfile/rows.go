package dbfile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"lunboot/store"
)

// Querier is a pool or a transaction.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Row is what a scan function reads from.
type Row interface{ Scan(dest ...any) error }

// List reads every row of a query. It returns an empty slice, never nil.
func List[T any](ctx context.Context, q Querier, scan func(Row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, Explain("read", err)
	}
	defer rows.Close()
	out := make([]T, 0)
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, Explain("read", err)
		}
		out = append(out, v)
	}
	return out, Explain("read", rows.Err())
}

// One reads the first row of a query; missing is the error when there is none.
func One[T any](ctx context.Context, q Querier, scan func(Row) (T, error), missing error, query string, args ...any) (T, error) {
	v, err := scan(q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) && missing != nil {
		var zero T
		return zero, missing
	}
	return v, Explain("read", err)
}

// Scalar reads a row of one column.
func Scalar[T any](r Row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

// Page returns the LIMIT and OFFSET of a listing; SQLite reads a negative limit
// as none.
func Page(p store.Page) (limit, offset int) {
	limit = p.Limit
	if limit <= 0 {
		limit = -1
	}
	return limit, max(p.Offset, 0)
}

// Nanos is a time as it is stored: nanoseconds since 1970, 0 for the zero time.
func Nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Instant is the time that Nanos stored.
func Instant(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// Text is a value's text, or NULL when it is the zero value, so that a unique
// index lets many nouns have none.
func Text[T interface {
	comparable
	fmt.Stringer
}](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v.String()
}

// Ref is a number that refers to a noun, or NULL when it is 0.
func Ref[T ~int64](v T) any {
	if v == 0 {
		return nil
	}
	return int64(v)
}

// ParseText reads what Text stored.
func ParseText[T any](s sql.NullString, parse func(string) (T, error)) (T, error) {
	if !s.Valid {
		var zero T
		return zero, nil
	}
	return parse(s.String)
}
