package api

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// What a support bundle holds at most.
const (
	supportAttempts = 200
	supportEvents   = 2000
	supportChanges  = 200
)

// supportNote is the first file of a support bundle.
const supportNote = `This is what a lunboot appliance knows of itself, for somebody who helps.

It has no passwords: CHAP secrets, hashes, tokens, scripts, notes and the text
of profiles are left out, wherever they stood. It does have names of machines and
people, MAC and IP addresses, and the names of files. It has no bytes of volumes and no packets.

The appliance's log is not in it: journalctl -u lunboot
`

// withheld are the members that are left out of a support bundle: what is a
// secret, and what an operator may have written one into.
var withheld = []string{"chap", "reverse_chap", "secret", "token", "hash", "password", "key", "script", "text", "fields", "notes"}

// strip leaves out what is withheld, however deep it stands. A setting is told
// by its key, which is none of a lock.
func strip(v any) any {
	switch v := v.(type) {
	case map[string]any:
		_, setting := v["value"]
		for name, inner := range v {
			if slices.Contains(withheld, name) && !(setting && name == "key") {
				delete(v, name)
				continue
			}
			v[name] = strip(inner)
		}
	case []any:
		for i := range v {
			v[i] = strip(v[i])
		}
	}
	return v
}

// withhold leaves out what stood in a text that somebody wrote, before and after a
// change of it: of a profile all but its name and kind, and notes.
func withhold(a store.Audit) {
	for i, c := range a.Changes {
		if c.Field == "notes" || strings.HasPrefix(a.Action, "profile.") && c.Field != "name" && c.Field != "kind" {
			a.Changes[i] = store.FieldChange{Field: c.Field, Before: leftOut(c.Before), After: leftOut(c.After)}
		}
	}
}

func leftOut(text string) string {
	if text == "" {
		return ""
	}
	return "(left out)"
}

// supportFile is one part of the bundle.
type supportFile struct {
	name string
	read func(context.Context) (any, error)
}

func (s *server) supportFiles() []supportFile {
	listed := func(fn func(context.Context) (any, int, error)) func(context.Context) (any, error) {
		return func(ctx context.Context) (any, error) { v, _, err := fn(ctx); return v, err }
	}
	return []supportFile{
		{"about", func(context.Context) (any, error) {
			return map[string]string{"version": s.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "at": time.Now().UTC().Format(time.RFC3339)}, nil
		}},
		{"health", func(ctx context.Context) (any, error) { return s.Health(ctx), nil }},
		{"settings", func(ctx context.Context) (any, error) { return store.Settings(ctx, s.Store) }},
		{"oidc", func(ctx context.Context) (any, error) { return s.SignIn.OIDC(ctx) }},
		{"machines", listed(func(ctx context.Context) (any, int, error) {
			return three(s.Store.Machines(ctx, store.MachineFilter{}))
		})},
		{"unknown-machines", func(ctx context.Context) (any, error) { return s.Store.UnknownMachines(ctx, true) }},
		{"volumes", func(ctx context.Context) (any, error) { return s.Store.Volumes(ctx) }},
		{"space", func(ctx context.Context) (any, error) { return s.Space(ctx) }},
		{"mappings", func(ctx context.Context) (any, error) { return s.Store.Mappings(ctx) }},
		{"profiles", func(ctx context.Context) (any, error) { return s.Store.Profiles(ctx) }},
		{"loaders", func(context.Context) (any, error) { return s.Loaders.Manifest(), nil }},
		{"subnets", func(ctx context.Context) (any, error) { return s.Store.Subnets(ctx) }},
		{"leases", func(ctx context.Context) (any, error) { return s.Store.Leases(ctx) }},
		{"sessions", func(context.Context) (any, error) { return s.Sessions.Sessions(), nil }},
		{"jobs", func(ctx context.Context) (any, error) { return s.Store.Jobs(ctx) }},
		{"attempts", listed(func(ctx context.Context) (any, int, error) {
			return three(s.Attempts.Attempts(ctx, store.AttemptFilter{Page: store.Page{Limit: supportAttempts}}))
		})},
		{"events", func(ctx context.Context) (any, error) {
			all, _, err := s.Events.After(ctx, store.EventFilter{After: max(0, s.Events.LastSeq()-supportEvents), Limit: supportEvents})
			return all, err
		}},
		{"audit", listed(func(ctx context.Context) (any, int, error) {
			all, n, err := s.Store.AuditLog(ctx, store.AuditFilter{Page: store.Page{Limit: supportChanges}})
			for _, a := range all {
				withhold(a)
			}
			return all, n, err
		})},
	}
}

func three[T any](items []T, n int, err error) (any, int, error) { return items, n, err }

// bundle makes the whole in memory, so that half of one is never sent. A part
// that cannot be read says why in its place: the bundle is for when something
// is wrong.
func (s *server) bundle(ctx context.Context, now time.Time) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	add := func(name string, content []byte) error {
		err := t.WriteHeader(&tar.Header{Name: "lunboot-support/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: now})
		if err == nil {
			_, err = t.Write(content)
		}
		return err
	}
	if err := add("README.txt", []byte(supportNote)); err != nil {
		return nil, err
	}
	for _, f := range s.supportFiles() {
		v, err := f.read(ctx)
		if err != nil {
			v = map[string]string{"error": err.Error()}
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber() // sizes and times are larger than a float64 tells apart
		var plain any
		if err := d.Decode(&plain); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.name, err)
		}
		if raw, err = json.MarshalIndent(strip(plain), "", "  "); err != nil {
			return nil, fmt.Errorf("write %s: %w", f.name, err)
		}
		if err := add(f.name+".json", append(raw, '\n')); err != nil {
			return nil, err
		}
	}
	err := errors.Join(t.Close(), z.Close())
	return b.Bytes(), err
}

func (s *server) support(a huma.API) {
	op := operation(a, http.MethodGet, "/support-bundle", "download-support-bundle", "Download what the appliance knows of itself, without secrets, for somebody who helps", store.ScopeAdmin)
	op.Responses = map[string]*huma.Response{"200": {Description: "a tar file of JSON files, compressed with gzip",
		Content: map[string]*huma.MediaType{backupType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a, op, func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		now := time.Now()
		b, err := s.bundle(ctx, now)
		if err == nil {
			err = s.Store.Record(ctx, actor(ctx), "support.create", "support bundle", store.Bytes(int64(len(b))))
		}
		if err != nil {
			return nil, problem(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			hc.SetHeader("Content-Type", backupType)
			hc.SetHeader("Content-Disposition", `attachment; filename="lunboot-support-`+now.UTC().Format("20060102-150405")+`.tar.gz"`)
			hc.SetHeader("Content-Length", fmt.Sprint(len(b)))
			if _, err := hc.BodyWriter().Write(b); err != nil {
				s.Log.Info("a support bundle was not taken", "error", err)
			}
		}}, nil
	})
}
