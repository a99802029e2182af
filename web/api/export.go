package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"lunboot/store"
	"lunboot/store/sheet"
	"lunboot/web/download"
)

// lists are the lists of the appliance.
func (s *server) lists() download.Lists {
	return download.From(download.Sources{
		Inventory: s.Store,
		Machines: func(ctx context.Context, search, sort string) ([]sheet.Row, error) {
			return s.sheetRows(ctx, MachineQuery{Search: search, Sort: sort})
		},
		Volumes: s.Volumes, Sessions: s.Sessions, Media: s.Media, Loaders: s.Loaders, Attempts: s.Attempts, Changes: s.Store, Events: s.Events, People: s.Access, Now: time.Now, Log: s.Log,
	})
}

// tables sends lists as tables. That of machines can be imported again, as CSV.
func (s *server) tables(a huma.API) {
	op := operation(a, http.MethodGet, "/exports/{list}", "export-list", "Download all of a list that a search finds as a table, CSV or JSON", store.ScopeRead)
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	op.Responses = map[string]*huma.Response{"200": {Description: "the table; its first line, or its keys, name the columns", Content: map[string]*huma.MediaType{"text/csv": text, "application/json": {Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeObject}}}}}}
	huma.Register(a, op, func(ctx context.Context, in *struct {
		List   string `path:"list" enum:"machines,volumes,unknown-machines,leases,sessions,jobs,profiles,media,loaders,subnets,mappings,attempts,events,audit,users,tokens" doc:"users and tokens need the scope admin"`
		Search string `query:"search" doc:"as in the list"`
		Sort   string `query:"sort" doc:"as in the list"`
		Format string `query:"format" enum:"csv,json" default:"csv"`
	}) (*huma.StreamResponse, error) {
		if status, detail := refusal(ctx, download.Need(in.List)); status != 0 {
			return nil, huma.NewError(status, detail)
		}
		t, err := s.lists().Open(ctx, download.Asked{List: in.List, Search: in.Search, Sort: in.Sort, Format: in.Format})
		if err != nil {
			return nil, problem(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humachi.Unwrap(hc)
			t.Serve(w, r, s.Log)
		}}, nil
	})
}
