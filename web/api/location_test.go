package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/web/api"
)

// stands reports whether a request of op has a place such as body.fields.items or
// query.sort.
func (h *house) stands(op *huma.Operation, location string) bool {
	where, rest, _ := strings.Cut(location, ".")
	for _, p := range op.Parameters {
		if p.In == where && p.Name == rest {
			return true
		}
	}
	if where != "body" || op.RequestBody == nil {
		return false
	}
	if op.RequestBody.Content["text/csv"] != nil {
		return true // a column, which the table has when it is said of it
	}
	if op.RequestBody.Content["application/json"] == nil {
		return false
	}
	s := op.RequestBody.Content["application/json"].Schema
	for _, name := range strings.Split(rest, ".") {
		if s != nil && s.Ref != "" {
			s = h.api.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
		}
		if s == nil {
			return false
		}
		name, _, _ = strings.Cut(name, "[")
		if s.Properties[name] == nil {
			// A profile's fields are free.
			return rest == "" || s.Type == huma.TypeObject && len(s.Properties) == 0
		}
		s = s.Properties[name]
	}
	return true
}

// samples are values that fit, and bad ones are values that no operation takes.
func (h *house) sample(s *huma.Schema) (good any, bad []any) {
	if s.Ref != "" {
		s = h.api.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
	}
	odd := "no such\u0001 thing " + strings.Repeat("x", 5000)
	switch s.Type {
	case huma.TypeString:
		if len(s.Enum) > 0 {
			return s.Enum[0], []any{odd}
		}
		return "some", []any{odd, "~", ""}
	case huma.TypeInteger, huma.TypeNumber:
		return 1 << 20, []any{-5, 1 << 50}
	case huma.TypeBoolean:
		return false, nil
	case huma.TypeArray:
		return []any{}, []any{[]any{odd}, []any{"~"}}
	}
	return map[string]any{}, []any{map[string]any{odd: odd}}
}

// Whatever an operation finds at fault, it names by a place that its request has.
func TestEveryPlaceThatIsNamedIsOneOfTheRequest(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	h.must(http.StatusCreated, "POST", "/api/v1/volumes", `{"name":"v1","size":1048576}`)
	h.must(http.StatusCreated, "POST", "/api/v1/subnets", `{"prefix":"10.88.0.0/24","interface":"eth7"}`)
	paths := strings.NewReplacer("{machine}", "m1", "{volume}", "v1", "{lun}", "0", "{mac}", "00:0c:29:00:00:01", "{profile}", "boot-volume", "{user}", "u", "{version}", "1", "{subnet}", "1",
		"{key}", "space-low", "{list}", "machines", "{media}", "m", "{attempt}", "7", "{job}", "1", "{code}", "zz", "{token}", "1")
	named, own := map[string]bool{}, 0
	try := func(op *huma.Operation, path, body, field string) {
		t.Helper()
		a := h.do(op.Method, path, body)
		if a.kind != "application/problem+json" {
			return
		}
		if a.status >= http.StatusInternalServerError {
			t.Errorf("%s %s: %d %.300s", op.Method, path, a.status, a.body)
		}
		var p problem
		a.json(t, &p)
		for _, e := range p.Errors {
			if e.Location == "" || e.Location == "body" { // of the whole, or of what no field caused
				continue
			}
			named[op.OperationID] = true
			if e.Location == field || strings.HasPrefix(e.Location, field+"[") || strings.HasPrefix(e.Location, field+".") {
				own++
			}
			if !h.stands(op, e.Location) {
				t.Errorf("%s with a bad %s names %s: %.300s", op.OperationID, field, e.Location, a.body)
			}
		}
	}
	for _, r := range h.routes() {
		item := h.api.OpenAPI().Paths[r[1]]
		if item == nil || r[1] == "/api/v1/events" && r[0] != http.MethodGet {
			continue
		}
		op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete}[r[0]]
		if op == nil {
			continue
		}
		base := map[string]any{}
		var schema *huma.Schema
		if op.RequestBody != nil && op.RequestBody.Content["application/json"] != nil {
			if schema = op.RequestBody.Content["application/json"].Schema; schema.Ref != "" {
				schema = h.api.OpenAPI().Components.Schemas.SchemaFromRef(schema.Ref)
			}
			for _, name := range schema.Required {
				base[name], _ = h.sample(schema.Properties[name])
			}
		}
		text := func(v map[string]any) string {
			if schema == nil {
				return ""
			}
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		for _, p := range op.Parameters {
			_, bad := h.sample(p.Schema)
			for _, v := range bad {
				b, _ := json.Marshal(v)
				value := url.QueryEscape(strings.Trim(string(b), `"`))
				if p.In == "query" {
					try(op, paths.Replace(r[1])+"?"+p.Name+"="+value, text(base), "query."+p.Name)
				} else if p.In == "path" && len(value) < 200 {
					try(op, paths.Replace(strings.Replace(r[1], "{"+p.Name+"}", "x%20"+value, 1)), text(base), "path."+p.Name)
				}
			}
		}
		if schema == nil {
			continue
		}
		for name, s := range schema.Properties {
			_, bad := h.sample(s)
			for _, v := range bad {
				body := map[string]any{name: v}
				for k, w := range base {
					if k != name {
						body[k] = w
					}
				}
				try(op, paths.Replace(r[1]), text(body), "body."+name)
			}
		}
	}
	t.Logf("%d operations name a place, %d times the very one", len(named), own)
	if len(named) < 35 || own < 100 {
		t.Errorf("only %d operations name a place, %d times the very one", len(named), own)
	}
}

// No answer is kept by who passes it on, nor taken for a page.
func TestNoAnswerIsKept(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	for _, path := range []string{"/api/v1/machines", "/api/v1/machines/m1?secrets=true", "/api/v1/machines/none", "/api/v1/events", "/api/v1/machines.csv", "/api/v1/nosuch", "/api/openapi.json", "/api/v1/support-bundle"} {
		resp, err := h.Client().Get(h.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header; got.Get("Cache-Control") != "no-store" || got.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s (%d) may be kept: %q, %q", path, resp.StatusCode, got.Get("Cache-Control"), got.Get("X-Content-Type-Options"))
		}
	}
}

// What a page of another site sends is refused in the API's own form.
func TestWhatAnotherSiteSendsIsRefusedInAProblemDocument(t *testing.T) {
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/api/v1/machines", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	api.SameOrigin(http.NotFoundHandler()).ServeHTTP(w, r)
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusForbidden || p.Status != w.Code || p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("it answers %d %s: %s (%v)", w.Code, w.Header().Get("Content-Type"), w.Body, err)
	}
}
