package pages

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/sheet"
	"lunboot/web/download"
)

// lists are the lists of the appliance; machines are a list of their own.
func (s *site) lists() download.Lists {
	return download.From(download.Sources{
		Inventory: s.Inventory, Volumes: s.Volumes, Sessions: s.Sessions, Media: s.Media, Loaders: s.Loaders, Attempts: s.Attempts, Changes: s.Audit, Now: s.Now, Log: s.Log,
	})
}

// exportList sends what a page's list shows, all of it, as a table.
func (s *site) exportList(w http.ResponseWriter, r *http.Request) {
	u := r.URL.Query()
	q := download.Asked{List: chi.URLParam(r, "list"), Search: u.Get("search"), Sort: u.Get("sort"), Format: u.Get("format"), Actor: store.Actor(u.Get("who")), Noun: u.Get("what")}
	// What a click narrows a list to is a qualifier of its search.
	narrow := map[string]string{"leases": "state", "sessions": "by", "jobs": "state", "attempts": "outcome"}[q.List]
	q.Search = download.Narrowed(q.Search, narrow, u.Get("show"))
	lists := s.lists()
	lists.Machines = func(ctx context.Context, _, _ string) ([]sheet.Row, error) {
		return s.sheetRows(ctx, readListQuery(u))
	}
	t, err := lists.Open(r.Context(), q)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	t.Serve(w, r, s.Log)
}
