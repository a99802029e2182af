package api

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// otherwise are the names that requests have for what the nouns call otherwise: a
// machine's MAC is one of its macs, and what is wrong with a file is said of the
// path that named it. With a part before a dot only there: a name in a path is
// that of the noun of the route.
var otherwise = map[string][]string{
	"mac": {"macs"}, "iqn": {"initiator"}, "source": {"path", "file"}, "path": {"file"}, "file": {"path", "name"}, "initiator": {"iqn"},
	"size": {"value", "header.Content-Length"}, "space": {"size", "header.Content-Length"}, "value": {"path.key"},
	"snapshot": {"to"}, "parent": {"snapshot", "clone_of", "path.volume"}, "clone_of": {"path.volume"},
	"name":   {"path.profile", "path.user", "path.volume", "path.media", "path.version", "path.snapshot", "path.loader", "client_id"},
	"volume": {"name"}, "machine": {"name"}, "default": {"default_role"}, "role": {"roles"}, "scope": {"scopes"},
	"range": {"dhcp_range"}, "address": {"addresses"}, "addresses": {"address"}, "revision": {"header.If-Match"},
	"id": {"path.machine", "path.volume", "path.subnet"}, "was": {"revision"}, "times": {"since"}, "form": {"format"},
}

// locator knows where in a request a field stands.
type locator struct{ registry huma.Registry }

// find returns where a request of op has a field: body.macs, query.sort, path.key
// or header.If-Match; empty when it has it nowhere.
func (l locator) find(op *huma.Operation, field string) string {
	for _, name := range append([]string{field}, otherwise[field]...) {
		where, bare, fixed := strings.Cut(name, ".")
		if !fixed {
			where, bare = "", name
		}
		if where == "" || where == "body" {
			if at := l.inBody(l.body(op), bare, 2); at != "" {
				return "body." + at
			}
		}
		for _, in := range []string{"query", "path", "header"} {
			if (where == "" || where == in) && slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.In == in && p.Name == bare }) {
				return in + "." + bare
			}
		}
	}
	if op.RequestBody != nil && op.RequestBody.Content["text/csv"] != nil {
		return "body." + field // a column
	}
	// An object of free members, such as a profile's fields, has what nothing else has.
	if b := l.body(op); b != nil {
		for _, name := range slices.Sorted(maps.Keys(b.Properties)) {
			if p := l.schema(b.Properties[name]); p != nil && p.Type == huma.TypeObject && len(p.Properties) == 0 {
				return "body." + name + "." + field
			}
		}
	}
	return ""
}

// body is the schema of what op is sent; nil for none, or for what is no JSON.
func (l locator) body(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	return l.schema(op.RequestBody.Content["application/json"].Schema)
}

func (l locator) schema(s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return l.registry.SchemaFromRef(s.Ref)
	}
	return s
}

// inBody finds a field among the members of a schema, and of the objects in it
// down to depth.
func (l locator) inBody(s *huma.Schema, field string, depth int) string {
	if s == nil || depth == 0 {
		return ""
	}
	if s.Properties[field] != nil {
		return field
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if at := l.inBody(l.schema(s.Properties[name]), field, depth-1); at != "" {
			return name + "." + at
		}
	}
	return ""
}

// unlocated is a problem document whose faults name fields of nouns, and no places
// of a request yet.
type unlocated struct {
	huma.ErrorModel
	faults []*store.Error
}

// locate puts the places of a request into a problem document. A place that the
// request does not have is not named.
func (l locator) locate(hc huma.Context, _ string, v any) (any, error) {
	if u, ok := v.(*unlocated); ok {
		return u.at(func(field string) string { return l.find(hc.Operation(), field) }), nil
	}
	return v, nil
}

// at is the document with the places that find knows.
func (u *unlocated) at(find func(field string) string) *huma.ErrorModel {
	for _, e := range u.faults {
		u.Errors = append(u.Errors, &huma.ErrorDetail{Location: find(e.Field), Message: e.Msg})
	}
	u.faults = nil
	return &u.ErrorModel
}

// named says which field of a request named what is not there.
func named(field string, err error) error {
	var e *store.Error
	if !errors.As(err, &e) || e.Field != "" {
		return err
	}
	at := *e
	at.Field = field
	return &at
}

// inQuery is where every field of a request without a body stands.
func inQuery(field string) string { return "query." + field }
