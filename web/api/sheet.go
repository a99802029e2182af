package api

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/sheet"
)

// sheetType is the media type of a table (RFC 7111).
const sheetType = "text/csv; charset=utf-8"

// sheets adds machines as tables. Their path is none below /machines/, where each
// word is a machine's name.
func (s *server) sheets(a huma.API) {
	imp := operation(a, http.MethodPost, "/machines.csv", "import-machines",
		"Make and change machines by a table, the request's body: CSV in UTF-8 whose first line names fields of machines. An empty cell leaves a field as it is, a hyphen empties it", store.ScopeOperate)
	imp.DefaultStatus = http.StatusOK
	imp.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	huma.Register(a, imp, func(ctx context.Context, in *struct {
		uploadBody
		DryRun bool   `query:"dry_run" doc:"only say what would become of each line"`
		Match  string `query:"match" doc:"that of a dry run: when a line would do something else by now, nothing is done and the answer is 409"`
	}) (*body[store.MachineImport], error) {
		lines, err := sheet.Read(in.reader())
		if err != nil {
			return nil, problem(err)
		}
		out, err := s.Acts.ImportMachines(ctx, actor(ctx), store.MachineImportSpec{Lines: lines, DryRun: in.DryRun, Match: in.Match})
		return reply(out, err)
	})
	exp := operation(a, http.MethodGet, "/machines.csv", "export-machines", "The machines as a table, without secrets; it can be imported again", store.ScopeRead)
	exp.Responses = map[string]*huma.Response{"200": {Description: "CSV in UTF-8", Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	huma.Register(a, exp, func(ctx context.Context, in *MachineQuery) (*huma.StreamResponse, error) {
		text, err := s.sheetOf(ctx, *in)
		if err != nil {
			return nil, problem(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", sheetType)
			hc.SetHeader("Content-Disposition", `attachment; filename="machines.csv"`)
			if _, err := hc.BodyWriter().Write(text); err != nil {
				s.Log.Warn("an export broke off", "error", err)
			}
		}}, nil
	})
}

// sheetRows are the machines that a query finds, as rows of their table.
func (s *server) sheetRows(ctx context.Context, q MachineQuery) ([]sheet.Row, error) {
	found, _, err := s.findMachines(ctx, q, store.Page{})
	if err != nil {
		return nil, err
	}
	boots, err := s.bootVolumes(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]sheet.Row, len(found))
	for i, m := range found {
		rows[i] = sheet.Row{Machine: m.Machine, Volume: boots[m.ID], LastBoot: string(m.State)}
		if !m.Seen.IsZero() {
			rows[i].LastSeen = m.Seen.UTC().Format(time.RFC3339)
		}
	}
	return rows, nil
}

// sheetOf writes the machines that a query finds into a table, which is whole
// before its first byte leaves.
func (s *server) sheetOf(ctx context.Context, q MachineQuery) ([]byte, error) {
	rows, err := s.sheetRows(ctx, q)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	out, err := sheet.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if err := out.Write(r); err != nil {
			return nil, err
		}
	}
	if err := out.Flush(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// bootVolumes says which volume each machine boots.
func (s *server) bootVolumes(ctx context.Context) (map[store.MachineID]string, error) {
	maps, err := s.Store.MappingViews(ctx, 0)
	if err != nil {
		return nil, err
	}
	out := make(map[store.MachineID]string, len(maps))
	for _, m := range maps {
		if m.Boot {
			out[m.Machine] = m.VolumeName
		}
	}
	return out, nil
}
