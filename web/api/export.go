package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"lunboot/services/boot/oui"
	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
	"lunboot/web/download"
)

// lists is where the lists come from that are sent as tables.
func (s *server) lists() download.Lists {
	return download.Lists{
		Machines: func(ctx context.Context, search, sort string) ([]sheet.Row, error) {
			return s.sheetRows(ctx, MachineQuery{Search: search, Sort: sort})
		},
		Volumes: s.allVolumes,
		Unknown: func(ctx context.Context) ([]listing.UnknownMachine, error) { return s.allUnknown(ctx, true) },
		Leases:  s.leases, Sessions: s.liveSessions,
		Jobs: s.Store.Jobs, Attempts: s.Attempts.Attempts, Audit: s.Store.AuditLog, Now: time.Now,
	}
}

// allUnknown are unknown machines, with the makers of their cards.
func (s *server) allUnknown(ctx context.Context, ignored bool) ([]listing.UnknownMachine, error) {
	us, err := s.Store.UnknownMachines(ctx, ignored)
	all := make([]listing.UnknownMachine, 0, len(us))
	for _, u := range us {
		all = append(all, listing.UnknownMachine{UnknownMachine: u, Maker: oui.Of(u.MAC).String()})
	}
	return all, err
}

// tables sends lists as tables. That of machines can be imported again, as CSV.
func (s *server) tables(a huma.API) {
	op := operation(a, http.MethodGet, "/exports/{list}", "export-list", "Download all of a list that a search finds as a table, CSV or JSON", store.ScopeRead)
	text := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	op.Responses = map[string]*huma.Response{"200": {Description: "the table; its first line, or its keys, name the columns", Content: map[string]*huma.MediaType{"text/csv": text, "application/json": {Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeObject}}}}}}
	huma.Register(a, op, func(ctx context.Context, in *struct {
		List   string `path:"list" enum:"machines,volumes,unknown-machines,leases,sessions,jobs,attempts,audit"`
		Search string `query:"search" doc:"as in the list"`
		Sort   string `query:"sort" doc:"as in the list"`
		Format string `query:"format" enum:"csv,json" default:"csv"`
	}) (*huma.StreamResponse, error) {
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
