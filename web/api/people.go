package api

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// UserKey is the path parameter of one user.
type UserKey struct {
	User string `path:"user"`
}

func (s *server) people(a huma.API) {
	register(a, http.MethodGet, "/users", "list-users", "List the people who may log in", store.ScopeAdmin,
		func(ctx context.Context, in *ListQuery) (*body[List[store.User]], error) {
			items, err := s.lists().Users(ctx)
			return found(listing.Users(), *in, items, err)
		})
	register(a, http.MethodPost, "/users", "add-user", "Add a person", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			Body struct {
				Name     string     `json:"name"`
				Role     store.Role `json:"role" enum:"viewer,operator,admin"`
				Password string     `json:"password"`
			}
		}) (*body[store.User], error) {
			return reply(s.Access.AddUser(ctx, actor(ctx), in.Body.Name, in.Body.Role, in.Body.Password))
		})
	register(a, http.MethodGet, "/users/{user}", "show-user", "Show a person", store.ScopeAdmin,
		func(ctx context.Context, in *UserKey) (*body[store.User], error) {
			return reply(s.Access.User(ctx, in.User))
		})
	register(a, http.MethodPatch, "/users/{user}", "set-user", "Change what a person may do, or whether they may log in; the last admin with a password stays one", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			UserKey
			Body struct {
				Revision int64       `json:"revision,omitempty" doc:"refuse the change when the user has another revision"`
				Role     *store.Role `json:"role,omitempty" enum:"viewer,operator,admin" doc:"not of somebody who signs in through the provider, which says it"`
				Disabled *bool       `json:"disabled,omitempty" doc:"they are shut out: they may not log in, their logins end, and their tokens are refused until they are let in again"`
			}
		}) (*body[store.User], error) {
			return reply(s.Access.SetUser(ctx, actor(ctx), in.User, store.UserPatch{Role: in.Body.Role, Disabled: in.Body.Disabled, Revision: cmp.Or(in.Body.Revision, store.Expected(ctx, "user", in.User))}))
		})
	register(a, http.MethodDelete, "/users/{user}", "remove-user", "Remove a person, and end their logins and tokens; the last admin with a password stays", store.ScopeAdmin,
		func(ctx context.Context, in *UserKey) (*empty, error) {
			return done(s.Access.RemoveUser(ctx, actor(ctx), in.User, store.Expected(ctx, "user", in.User)))
		})
	register(a, http.MethodPut, "/users/{user}/password", "set-password", "Set a person's password, which ends their logins", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			UserKey
			Body struct {
				Password string `json:"password"`
			}
		}) (*empty, error) {
			return done(s.Access.SetPassword(ctx, actor(ctx), in.User, in.Body.Password))
		})
	register(a, http.MethodGet, "/logins", "list-logins", "List the sessions of the pages: one's own, an admin's everybody's", store.ScopeRead,
		func(ctx context.Context, in *struct {
			User string `query:"user"`
		}) (*body[List[store.Login]], error) {
			who := auth.From(ctx)
			switch {
			case who.May(store.ScopeAdmin):
				return all(s.Access.Logins(ctx, in.User))
			case in.User != "" && in.User != who.User:
				return nil, problem(&store.Error{Kind: store.KindDenied, Msg: "other people's logins need the scope admin"})
			case who.User == "":
				return all([]store.Login(nil), nil) // a token has none
			}
			return all(s.Access.Logins(ctx, who.User))
		})
	// To end one's own login needs no more than to have it.
	register(a, http.MethodDelete, "/logins/{login}", "end-login", "End a session of the pages at once, with what runs for it: one's own, as an admin anybody's", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Login string `path:"login"`
		}) (*empty, error) {
			who := auth.From(ctx)
			switch {
			case who.May(store.ScopeAdmin):
				return done(s.Access.EndLogin(ctx, "", in.Login))
			case who.User == "":
				return nil, problem(store.NotFound("login", in.Login))
			}
			return done(s.Access.EndLogin(ctx, who.User, in.Login))
		})
	register(a, http.MethodGet, "/audit", "list-audit", "List the audit, newest first: who changed what, from what to what", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Actor   string    `query:"actor" doc:"who changed it"`
			Noun    string    `query:"noun" doc:"what kind of thing: machine, volume, mapping, profile, user…"`
			Subject string    `query:"subject" doc:"its name at that time"`
			Search  string    `query:"search" doc:"words, each part of any of the texts, and qualifiers, such as who:anna what:machine since:2d; quotation marks keep words together"`
			Sort    string    `query:"sort" doc:"at, who, what or subject; with a hyphen before it the other way"`
			Since   time.Time `query:"since"`
			Until   time.Time `query:"until" doc:"not itself"`
			Limit   int       `query:"limit" minimum:"0" maximum:"1000" default:"100"`
			Offset  int       `query:"offset" minimum:"0"`
		}) (*body[List[store.Audit]], error) {
			f, err := store.ParseAuditSearch(in.Search, time.Now())
			if err != nil {
				return nil, problem(err)
			}
			f.Actor, f.Noun, f.Subject = store.Actor(in.Actor), in.Noun, in.Subject
			if f.Since.IsZero() || in.Since.After(f.Since) {
				f.Since = in.Since
			}
			if f.Until.IsZero() || !in.Until.IsZero() && in.Until.Before(f.Until) {
				f.Until = in.Until
			}
			f.Sort, f.Page = in.Sort, store.Page{Limit: in.Limit, Offset: in.Offset}
			return listOf(s.Store.AuditLog(ctx, f))
		})
}
