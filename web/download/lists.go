package download

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
)

// Lists are the appliance's lists: those that grow with the inventory whole, those
// that grow with time a part at a time.
type Lists struct {
	Machines func(ctx context.Context, search, sort string) ([]sheet.Row, error)
	Volumes  func(context.Context) ([]listing.Volume, error)
	Unknown  func(ctx context.Context, ignored bool) ([]listing.UnknownMachine, error)
	Leases   func(context.Context) ([]listing.Lease, error)
	Sessions func(context.Context) ([]listing.Session, error)
	Jobs     func(context.Context) ([]store.Job, error)
	Profiles func(context.Context) ([]store.Profile, error)
	Media    func(context.Context) ([]store.Media, error)
	Loaders  func(context.Context) ([]boot.LoaderInfo, error)
	Attempts func(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error)
	Audit    func(context.Context, store.AuditFilter) (store.Parts[store.Audit], error)
	Subnets  func(context.Context) ([]listing.Subnet, error)
	Mappings func(context.Context) ([]store.MappingView, error)
	Users    func(context.Context) ([]store.User, error)
	Tokens   func(context.Context) ([]listing.Token, error)
	Events   func(context.Context, store.EventFilter) (store.Parts[listing.Event], error)
	Named    func(context.Context) store.EventNames // of a search for events
	Now      func() time.Time
}

// Names are the lists that can be sent as a table.
func Names() []string {
	return []string{"machines", "volumes", "unknown-machines", "leases", "sessions", "jobs", "profiles", "media", "loaders", "subnets", "mappings", "attempts", "events", "audit", "users", "tokens"}
}

// Need is what somebody has to be allowed to be sent a list.
func Need(list string) store.Scope {
	if list == "users" || list == "tokens" {
		return store.ScopeAdmin
	}
	return store.ScopeRead
}

// Asked is what of which list is sent, and how.
type Asked struct {
	List, Search, Sort, Format string
	Actor                      store.Actor     // of changes: only theirs
	Noun                       string          // of changes: only those of such things
	Machine                    store.MachineID // of events: only its
}

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
		t.send, err = whole(ctx, listing.UnknownMachines(), sheet.UnknownMachines(), func(ctx context.Context) ([]listing.UnknownMachine, error) { return l.Unknown(ctx, true) }, q, f)
	case "leases":
		t.send, err = whole(ctx, listing.Leases(), sheet.Leases(), l.Leases, q, f)
	case "sessions":
		t.send, err = whole(ctx, listing.Sessions(), sheet.Sessions(), l.Sessions, q, f)
	case "jobs":
		t.send, err = whole(ctx, listing.Jobs(), sheet.Jobs(), l.Jobs, q, f)
	case "profiles":
		t.send, err = whole(ctx, listing.Profiles(), sheet.Profiles(), l.Profiles, q, f)
	case "media":
		t.send, err = whole(ctx, listing.Media(), sheet.Media(), l.Media, q, f)
	case "loaders":
		t.send, err = whole(ctx, boot.LoaderList(), loaderTable(), l.Loaders, q, f)
	case "subnets":
		t.send, err = whole(ctx, listing.Subnets(), sheet.Subnets(), l.Subnets, q, f)
	case "mappings":
		t.send, err = whole(ctx, listing.Mappings(), sheet.Mappings(), l.Mappings, q, f)
	case "users":
		t.send, err = whole(ctx, listing.Users(), sheet.Users(), l.Users, q, f)
	case "tokens":
		t.send, err = whole(ctx, listing.Tokens(), sheet.Tokens(), l.Tokens, q, f)
	case "events":
		which := store.EventFilter{Sort: q.Sort, Machine: q.Machine}
		var bad error
		which.Search, bad = store.ParseEventSearch(q.Search, l.Now(), l.Named(ctx))
		t.send, err = inParts(ctx, which, bad, l.Events, sheet.Events(), f)
	case "attempts":
		which, bad := store.ParseAttemptSearch(q.Search, l.Now())
		which.Sort = q.Sort
		t.send, err = inParts(ctx, which, bad, l.Attempts, sheet.Attempts(), f)
	case "audit":
		which, bad := store.ParseAuditSearch(q.Search, l.Now())
		which.Sort, which.Actor, which.Noun = q.Sort, q.Actor, q.Noun
		t.send, err = inParts(ctx, which, bad, l.Audit, sheet.Audit(), f)
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

// inParts writes a list that grows with time, once what is asked of it is known to
// be sound.
func inParts[F, T any](ctx context.Context, which F, bad error, every func(context.Context, F) (store.Parts[T], error), cols sheet.Table[T], f sheet.Format) (func(context.Context, io.Writer) error, error) {
	if bad != nil {
		return nil, bad
	}
	next, err := every(ctx, which)
	return func(ctx context.Context, w io.Writer) error {
		out, err := cols.Write(w, f)
		for err == nil {
			var items []T
			if items, err = next(ctx); err != nil {
				break
			}
			if len(items) == 0 {
				return out.Close()
			}
			for _, item := range items {
				if err := out.Row(item); err != nil {
					return err
				}
			}
			err = out.Flush()
		}
		return err
	}, err
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
