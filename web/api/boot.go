package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// ProfileKey is the path parameter of one profile.
type ProfileKey struct {
	Profile string `path:"profile"`
}

func (s *server) profiles(a huma.API) {
	register(a, http.MethodGet, "/profiles", "list-profiles", "List profiles", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[store.Profile]], error) {
			items, err := s.Store.Profiles(ctx)
			return found(listing.Profiles(), *in, items, err)
		})
	register(a, http.MethodGet, "/profiles/{profile}", "show-profile", "Show a profile", store.ScopeRead,
		func(ctx context.Context, in *ProfileKey) (*body[store.Profile], error) {
			return reply(s.Store.Profile(ctx, in.Profile))
		})
	register(a, http.MethodPut, "/profiles/{profile}", "set-profile", "Create or change a profile; it is rendered once to check it", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			ProfileKey
			Body struct {
				Revision int64             `json:"revision,omitempty"`
				Kind     string            `json:"kind" doc:"san, install, kernel, wimboot, menu, local or custom"`
				Fields   map[string]string `json:"fields,omitempty"`
				Text     string            `json:"text,omitempty"`
			}
		}) (*body[store.Profile], error) {
			kind, err := store.ParseProfileKind(in.Body.Kind)
			if err != nil {
				return nil, problem(err)
			}
			return reply(s.Acts.PutProfile(ctx, actor(ctx), store.Profile{Name: in.Profile, Revision: in.Body.Revision, Kind: kind, Fields: in.Body.Fields, Text: in.Body.Text}))
		})
	register(a, http.MethodDelete, "/profiles/{profile}", "remove-profile", "Remove a profile that no machine uses", store.ScopeOperate,
		func(ctx context.Context, in *ProfileKey) (*empty, error) {
			return done(s.Acts.DeleteProfile(ctx, actor(ctx), in.Profile))
		})
}

func (s *server) attempts(a huma.API) {
	register(a, http.MethodGet, "/attempts", "list-attempts", "List boot attempts, newest first where no order is asked for", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Machine string `query:"machine" doc:"id, name, MAC or UUID"`
			Search  string `query:"search" doc:"words and qualifiers, such as outcome:failed code:LB-LUN-01 since:2d, or case:009441 for the case number on a screen, all of which must fit; quotation marks keep words together"`
			Sort    string `query:"sort" doc:"started, machine, outcome or stage; with a hyphen before it the other way"`
			Limit   int    `query:"limit" minimum:"0" maximum:"1000" default:"50"`
			Offset  int    `query:"offset" minimum:"0"`
		}) (*body[List[store.Attempt]], error) {
			f, err := store.ParseAttemptSearch(in.Search, time.Now())
			if err != nil {
				return nil, problem(err)
			}
			f.Sort, f.Page = in.Sort, store.Page{Limit: in.Limit, Offset: in.Offset}
			if in.Machine != "" {
				m, err := s.Acts.FindMachine(ctx, in.Machine)
				switch {
				case err == nil:
					f.Machine = m.ID
				case store.IsNotFound(err):
					// An unknown machine has attempts too, by its MAC.
					mac, macErr := store.ParseMAC(in.Machine)
					if macErr != nil {
						return nil, problem(named("machine", err))
					}
					f.MAC = mac
				default:
					return nil, problem(err)
				}
			}
			items, total, err := s.Attempts.Attempts(ctx, f)
			return listOf(items, total, err)
		})
	register(a, http.MethodGet, "/attempts/{attempt}", "show-attempt", "Show a boot attempt with its stages and diagnoses", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Attempt int64 `path:"attempt"`
		}) (*body[store.Attempt], error) {
			return reply(s.Attempts.Attempt(ctx, store.AttemptID(in.Attempt)))
		})
	register(a, http.MethodPost, "/attempts/{attempt}/fix", "fix-attempt", "Do what a fix of one of the attempt's diagnoses says", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Attempt int64 `path:"attempt"`
			Body    struct {
				Action string `json:"action" doc:"the action of a fix, such as map-lun-0"`
			}
		}) (*body[store.FixResult], error) {
			found, err := s.Attempts.Attempt(ctx, store.AttemptID(in.Attempt))
			if err != nil {
				return nil, problem(err)
			}
			if f, err := store.ParseFix(in.Body.Action); err == nil && !auth.From(ctx).May(f.Needs()) {
				return nil, problem(&store.Error{Kind: store.KindDenied, Field: "action", Msg: "this fix needs the scope " + string(f.Needs())})
			}
			return reply(s.Acts.Fix(ctx, actor(ctx), found, in.Body.Action))
		})
}

func (s *server) sessions(a huma.API) {
	register(a, http.MethodGet, "/sessions", "list-sessions", "List live iSCSI sessions", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[listing.Session]], error) {
			items, err := s.lists().Sessions(ctx)
			return found(listing.Sessions(), *in, items, err)
		})
	register(a, http.MethodDelete, "/sessions/{session}", "drop-session", "End a live iSCSI session", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Session string `path:"session"`
		}) (*empty, error) {
			return done(s.Sessions.DropSession(ctx, actor(ctx), in.Session))
		})
}

func (s *server) system(a huma.API) {
	register(a, http.MethodGet, "/health", "health", "What the appliance says of itself", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[Health], error) { return reply(s.Health(ctx), nil) })
}
