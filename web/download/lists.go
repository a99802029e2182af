package download

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
)

// Lists is where lists come from: those that grow with the inventory whole, those
// that grow with time a part at a time.
type Lists struct {
	Machines func(ctx context.Context, search, sort string) ([]sheet.Row, error)
	Volumes  func(context.Context) ([]listing.Volume, error)
	Unknown  func(context.Context) ([]listing.UnknownMachine, error) // those that are ignored, too
	Leases   func(context.Context) ([]listing.Lease, error)
	Sessions func(context.Context) ([]listing.Session, error)
	Jobs     func(context.Context) ([]store.Job, error)
	Attempts func(context.Context, store.AttemptFilter) ([]store.Attempt, int, error)
	Audit    func(context.Context, store.AuditFilter) ([]store.Audit, int, error)
	Now      func() time.Time
}

// Names are the lists that can be sent as a table.
func Names() []string {
	return []string{"machines", "volumes", "unknown-machines", "leases", "sessions", "jobs", "attempts", "audit"}
}

// Asked is what of which list is sent, and how.
type Asked struct {
	List, Search, Sort, Format string
}

// part is how many rows of a list that grows with time are held at once.
const part = 500

// Table is a list that was found, on its way to be a file.
type Table struct {
	name   string
	format sheet.Format
	send   func(context.Context, io.Writer) error
}

// Name is the file's.
func (t *Table) Name() string { return t.name }

// Open finds what a list has. What is wrong with the search is said here, before
// anything is sent.
func (l Lists) Open(ctx context.Context, q Asked) (*Table, error) {
	if !slices.Contains(Names(), q.List) {
		return nil, store.NotFound("list", q.List)
	}
	f, err := sheet.ParseFormat(q.Format)
	if err != nil {
		return nil, err
	}
	t := &Table{name: q.List + "-" + l.Now().UTC().Format("2006-01-02") + "." + string(f), format: f}
	switch q.List {
	case "machines":
		var rows []sheet.Row
		rows, err = l.Machines(ctx, q.Search, q.Sort)
		t.send = rowsOf(sheet.Machines(), rows, f)
	case "volumes":
		t.send, err = whole(ctx, listing.Volumes(), sheet.Volumes(), l.Volumes, q, f)
	case "unknown-machines":
		t.send, err = whole(ctx, listing.UnknownMachines(), sheet.UnknownMachines(), l.Unknown, q, f)
	case "leases":
		t.send, err = whole(ctx, listing.Leases(), sheet.Leases(), l.Leases, q, f)
	case "sessions":
		t.send, err = whole(ctx, listing.Sessions(), sheet.Sessions(), l.Sessions, q, f)
	case "jobs":
		t.send, err = whole(ctx, listing.Jobs(), sheet.Jobs(), l.Jobs, q, f)
	case "attempts":
		t.send, err = l.attempts(ctx, q, f)
	case "audit":
		t.send, err = l.audit(ctx, q, f)
	}
	return t, err
}

func whole[T any](ctx context.Context, l listing.List[T], cols sheet.Table[T], all func(context.Context) ([]T, error), q Asked, f sheet.Format) (func(context.Context, io.Writer) error, error) {
	items, err := all(ctx)
	if err != nil {
		return nil, err
	}
	found, _, err := l.Find(items, listing.Query{Search: q.Search, Sort: q.Sort})
	return rowsOf(cols, found, f), err
}

// rowsOf writes what was found.
func rowsOf[T any](cols sheet.Table[T], found []T, f sheet.Format) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		out, err := cols.Write(w, f)
		if err != nil {
			return err
		}
		for _, item := range found {
			if err := out.Row(item); err != nil {
				return err
			}
		}
		return out.Close()
	}
}

// inParts writes a list that grows with time: the first part was read, and next
// reads the one that follows an item.
func inParts[T any](first []T, cols sheet.Table[T], f sheet.Format, next func(context.Context, T) ([]T, error)) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		out, err := cols.Write(w, f)
		for items := first; err == nil && len(items) > 0; {
			for _, item := range items {
				if err := out.Row(item); err != nil {
					return err
				}
			}
			if err := out.Flush(); err != nil {
				return err
			}
			if len(items) < part {
				break
			}
			items, err = next(ctx, items[len(items)-1])
		}
		if err != nil {
			return err
		}
		return out.Close()
	}
}

func (l Lists) attempts(ctx context.Context, q Asked, f sheet.Format) (func(context.Context, io.Writer) error, error) {
	which, err := store.ParseAttemptSearch(q.Search, l.Now())
	if err != nil {
		return nil, err
	}
	which.Sort, which.Limit = q.Sort, part
	first, _, err := l.Attempts(ctx, which)
	return inParts(first, sheet.Attempts(), f, func(ctx context.Context, last store.Attempt) ([]store.Attempt, error) {
		// In the usual order a boot that begins meanwhile moves nothing.
		if which.Before = last.ID; which.Sort != "" {
			which.Before, which.Offset = 0, which.Offset+part
		}
		items, _, err := l.Attempts(ctx, which)
		return items, err
	}), err
}

func (l Lists) audit(ctx context.Context, q Asked, f sheet.Format) (func(context.Context, io.Writer) error, error) {
	which, err := store.ParseAuditSearch(q.Search, l.Now())
	if err != nil {
		return nil, err
	}
	which.Sort, which.Limit = q.Sort, part
	first, _, err := l.Audit(ctx, which)
	return inParts(first, sheet.Audit(), f, func(ctx context.Context, last store.Audit) ([]store.Audit, error) {
		if which.Before = last.ID; which.Sort != "" {
			which.Before, which.Offset = 0, which.Offset+part
		}
		items, _, err := l.Audit(ctx, which)
		return items, err
	}), err
}

// Serve sends the table. One that breaks off is cut off, so that nobody takes half
// of it for a whole.
func (t *Table) Serve(w http.ResponseWriter, r *http.Request, log *slog.Logger) {
	h := w.Header()
	h.Set("Content-Type", t.format.MediaType())
	h.Set("Content-Disposition", `attachment; filename="`+t.name+`"`)
	if err := t.send(r.Context(), w); err != nil {
		log.Warn("a table was not sent whole", "file", t.name, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// Narrowed adds a qualifier to a search.
func Narrowed(search, key, value string) string {
	if value == "" {
		return search
	}
	return strings.TrimSpace(key + `:"` + strings.ReplaceAll(value, `"`, "") + `" ` + search)
}
