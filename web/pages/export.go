package pages

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
	"lunboot/web/download"
)

// lists is where the lists come from that are sent as tables.
func (s *site) lists() download.Lists {
	return download.Lists{
		Volumes: s.listedVolumes,
		Unknown: func(ctx context.Context) ([]listing.UnknownMachine, error) {
			us, err := s.Inventory.UnknownMachines(ctx, true)
			return madeBy(us), err
		},
		Leases:   s.allLeases,
		Sessions: s.allSessions,
		Jobs:     s.Inventory.Jobs, Attempts: s.Attempts.Attempts, Audit: s.Audit.AuditLog, Now: s.Now,
	}
}

// exportList sends what a page's list shows, all of it, as a table.
func (s *site) exportList(w http.ResponseWriter, r *http.Request) {
	u := r.URL.Query()
	q := download.Asked{List: chi.URLParam(r, "list"), Search: u.Get("search"), Sort: u.Get("sort"), Format: u.Get("format")}
	// What a click narrows a list to is a qualifier of its search.
	narrow := map[string]string{"leases": "state", "sessions": "by", "jobs": "state", "attempts": "outcome"}[q.List]
	q.Search = download.Narrowed(q.Search, narrow, u.Get("show"))
	if q.List == "audit" {
		if q.Search = download.Narrowed(q.Search, "who", u.Get("who")); u.Get("what") != "" {
			q.Search = download.Narrowed(q.Search, "what", u.Get("what")+".")
		}
	}
	lists := s.lists()
	lists.Machines = func(ctx context.Context, _, _ string) ([]sheet.Row, error) {
		return s.sheetRows(ctx, readListQuery(u)) // a list of its own
	}
	t, err := lists.Open(r.Context(), q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	t.Serve(w, r, s.Log)
}

func (s *site) allSessions(ctx context.Context) ([]listing.Session, error) {
	names, err := s.machineNames(ctx)
	return listing.SessionsOf(s.Sessions.Sessions(), func(id store.MachineID) string { return names[id] }), err
}
