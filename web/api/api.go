// Package api is the REST API under /api/v1: every act of the CLI and of
// scripts goes through it. The OpenAPI 3.1 description at /api/openapi.json is
// made from the handlers' types; errors are RFC 9457 problem documents that
// name the field at fault.
//
// It declares what it needs of the appliance as small interfaces and imports no
// service.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/auth"
)

// Config is what the API stands on.
type Config struct {
	Store     Store
	Acts      Acts
	Volumes   VolumeActs
	Space     func(context.Context) (store.Space, error)
	Sessions  Sessions
	Attempts  Attempts
	Events    Events
	Scripts   Scripts
	Explainer Explainer
	Loaders   Loaders
	Media     Media
	Power     Power
	Access    Access
	SignIn    SignIn
	Network   Network
	Health    func(context.Context) Health
	Captures  Captures
	Backups   Backups
	Rates     Rates // the zero value is what is usual
	Version   string
	Log       *slog.Logger
}

type server struct{ Config }

// Mount adds the API's routes to r. Requests carry an auth.Identity in their
// context.
func Mount(r chi.Router, cfg Config) huma.API {
	hc := huma.DefaultConfig("lunboot", cfg.Version)
	// The documentation page of the library loads scripts from the Internet; a
	// lab network has none.
	hc.DocsPath = ""
	hc.OpenAPIPath = "/api/openapi"
	hc.SchemasPath = "/api/schemas"
	// No "$schema" member in answers: clients decode them into plain nouns.
	hc.CreateHooks = nil
	hc.Transformers = append(hc.Transformers, tag)
	hc.OpenAPI.OnAddOperation = append(hc.OpenAPI.OnAddOperation, describeConditions)
	hc.Info.Description = "Machines, volumes, mappings and boot attempts of a lunboot appliance. " +
		"Nouns with a revision answer it as ETag and take it in If-Match; what a PUT makes takes If-None-Match: *. A POST with an Idempotency-Key is done once. " +
		"Who asks too often is answered 429 with Retry-After."
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "lunboot token create NAME --scope read|operate|admin"},
	}
	r = r.With(private, limit(cfg.Rates), newOnce(time.Now, cfg.Store, cfg.Log).middleware)
	hc.Transformers = append(hc.Transformers, locator{hc.Components.Schemas}.locate)
	a := humachi.New(r, hc)
	s := &server{cfg}
	a.UseMiddleware(s.conditions(a))
	s.machines(a)
	s.unknown(a)
	s.dryRun(a)
	s.volumes(a)
	s.storage(a)
	s.tables(a)
	s.clones(a)
	s.each(a)
	s.uploads(a)
	s.mappings(a)
	s.profiles(a)
	s.loaders(a)
	s.media(a)
	s.power(a)
	s.attempts(a)
	s.captures(a)
	s.sessions(a)
	s.leases(a)
	s.network(a)
	s.subnets(a)
	s.system(a)
	s.settings(a)
	s.access(a)
	s.people(a)
	s.oidc(a)
	s.backup(a)
	s.support(a)
	s.explain(a)
	describeEvents(a)
	r.With(s.needRead).Get("/api/v1/events", s.events)
	// What is left under /api is nobody's: a script gets a problem document,
	// never a page for people.
	r.HandleFunc("/api/*", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+"; /api/openapi.json lists what there is")
	})
	return a
}

// private keeps answers from being kept by a browser or a proxy, since some hold
// secrets and all are for whoever asked alone, and from being taken for what they
// are not (RFC 9111 §5.2.2.5; the Fetch standard on nosniff).
func private(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keepPrivate(w)
		next.ServeHTTP(w, r)
	})
}

func keepPrivate(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// List is one page of a listing.
type List[T any] struct {
	Items []T `json:"items"`
	Total int `json:"total"`
}

// body wraps an answer as huma wants it.
type body[T any] struct{ Body T }

func reply[T any](v T, err error) (*body[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &body[T]{Body: v}, nil
}

func listOf[T any](items []T, total int, err error) (*body[List[T]], error) {
	if items == nil {
		items = []T{}
	}
	return reply(List[T]{Items: items, Total: total}, err)
}

func all[T any](items []T, err error) (*body[List[T]], error) {
	return listOf(items, len(items), err)
}

// register adds one operation with the scope that it needs.
func register[I, O any](a huma.API, method, path, id, summary string, need store.Scope, fn func(context.Context, *I) (*O, error)) {
	huma.Register(a, operation(a, method, path, id, summary, need), fn)
}

// operation describes one operation and puts a guard before it: who asks is
// known before anything of the request is read.
func operation(a huma.API, method, path, id, summary string, need store.Scope) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary, Security: security(need),
		Middlewares: huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
			if status, detail := refusal(hc.Context(), need); status != 0 {
				if err := huma.WriteErr(a, hc, status, detail); err != nil {
					panic(err) // the writer of answers lost a type: a fault of ours
				}
				return
			}
			next(hc)
		}},
	}
	switch method {
	case http.MethodPost:
		op.DefaultStatus = http.StatusCreated
	case http.MethodDelete:
		op.DefaultStatus = http.StatusNoContent
	}
	return op
}

func security(need store.Scope) []map[string][]string {
	return []map[string][]string{{"token": {string(need)}}}
}

// refusal says why the one who asks may not, status 0 when they may.
func refusal(ctx context.Context, need store.Scope) (status int, detail string) {
	who := auth.From(ctx)
	switch {
	case who.Scope == "" && who.Limit != "":
		return http.StatusUnauthorized, "this token is good for nothing: " + who.Limit + "; an admin can mend that, or make another token"
	case who.Scope == "":
		return http.StatusUnauthorized, "log in, or send a token: Authorization: Bearer lb_…"
	case !who.May(need) && who.Limit != "":
		return http.StatusForbidden, "this needs the scope " + string(need) + "; the token's is " + string(who.Scope) + ": " + who.Limit
	case !who.May(need):
		return http.StatusForbidden, "this needs the scope " + string(need) + "; yours is " + string(who.Scope)
	}
	return 0, ""
}

func actor(ctx context.Context) store.Actor { return auth.From(ctx).Actor }

// problem turns an error of the store into an RFC 9457 document. The default
// is the loud one: 500.
func problem(err error) error {
	status := http.StatusInternalServerError
	switch store.KindOf(err) {
	case store.KindNotFound:
		status = http.StatusNotFound
	case store.KindConflict, store.KindInUse:
		status = http.StatusConflict
	case store.KindStale:
		status = http.StatusPreconditionFailed
	case store.KindInvalid:
		status = http.StatusUnprocessableEntity
	case store.KindUnavailable:
		status = http.StatusServiceUnavailable
	case store.KindDenied:
		status = http.StatusForbidden
	}
	return &unlocated{
		ErrorModel: huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: err.Error()},
		faults:     fieldErrors(err),
	}
}

// fieldErrors collects every *store.Error with a field in err's tree.
func fieldErrors(err error) []*store.Error {
	var out []*store.Error
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		var e *store.Error
		if x, ok := err.(*store.Error); ok {
			e = x
			if e.Field != "" {
				out = append(out, e)
			}
		}
		switch x := err.(type) {
		case interface{ Unwrap() []error }:
			for _, c := range x.Unwrap() {
				walk(c)
			}
		default:
			walk(errors.Unwrap(err))
		}
	}
	walk(err)
	return out
}

// empty is the answer of a deletion.
type empty struct{}

func done(err error) (*empty, error) {
	if err != nil {
		return nil, problem(err)
	}
	return &empty{}, nil
}
