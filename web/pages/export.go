package pages

import (
	"context"
	"net/http"
	"strconv"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/store/sheet"
	"lunboot/web/auth"
	"lunboot/web/download"
)

// lists are the lists of the appliance; machines are a list of their own.
func (s *site) lists() download.Lists {
	return download.From(download.Sources{
		Inventory: s.Inventory, Volumes: s.Volumes, Sessions: s.Sessions, Media: s.Media, Loaders: s.Loaders, Attempts: s.Attempts, Events: s.Events, People: s.Auth, Changes: s.Audit, Now: s.Now, Log: s.Log,
	})
}

// exportList sends what a page's list shows, all of it, as a table.
func (s *site) exportList(w http.ResponseWriter, r *http.Request) {
	u := r.URL.Query()
	q := download.Asked{List: chi.URLParam(r, "list"), Search: u.Get("search"), Sort: u.Get("sort"), Format: u.Get("format"), Machine: machineParam(u.Get("machine")), Actor: store.Actor(u.Get("who")), Noun: u.Get("what")}
	// What a click narrows a list to is a qualifier of its search.
	narrow := map[string]string{"leases": "state", "sessions": "by", "jobs": "state", "attempts": "outcome", "events": "severity", "subnets": "mode", "mappings": "boot", "users": "role", "tokens": "scope"}[q.List]
	q.Search = download.Narrowed(q.Search, narrow, u.Get("show"))
	if need := download.Need(q.List); !auth.From(r.Context()).May(need) {
		s.need(need)(nil).ServeHTTP(w, r) // which says what it needs, and goes no further
		return
	}
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

// machineParam is the machine whose events are meant; one that is no number has
// none.
func machineParam(text string) store.MachineID {
	if text == "" {
		return 0
	}
	if id, err := strconv.ParseInt(text, 10, 64); err == nil && id > 0 {
		return store.MachineID(id)
	}
	return -1
}
