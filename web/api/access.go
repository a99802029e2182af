package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/services/boot/diagnose"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
	"lunboot/store/listing"
)

// Token is a token as it is shown: its secret only once, when it is made.
type Token struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	Scope    string    `json:"scope"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	LastUsed time.Time `json:"last_used"`
	Owner    string    `json:"owner" doc:"the person whose it is, who has to be allowed what it may do; empty: nobody's, as one that was made at the appliance's own socket"`
	Limit    string    `json:"limit" doc:"why it may do less than its scope says, or nothing, because of its owner; empty when it may do all of it"`
	Secret   string    `json:"token,omitempty"`
}

func tokenView(t store.Token, secret string) Token {
	return Token{ID: t.ID, Name: t.Name, Scope: t.Scope, Created: t.Created, Expires: t.Expires, LastUsed: t.LastUsed, Owner: t.Owner, Limit: t.Limit, Secret: secret}
}

func (s *server) access(a huma.API) {
	register(a, http.MethodGet, "/tokens", "list-tokens", "List tokens, with whose they are", store.ScopeAdmin,
		func(ctx context.Context, in *ListQuery) (*body[List[Token]], error) {
			items, err := s.lists().Tokens(ctx)
			if err != nil {
				return nil, problem(err)
			}
			page, total, err := listing.Tokens().Find(items, in.query())
			out := make([]Token, 0, len(page))
			for _, t := range page {
				out = append(out, tokenView(t.Token, ""))
			}
			return listOf(out, total, err)
		})
	register(a, http.MethodPost, "/tokens", "create-token", "Make a token; its secret is shown once. It belongs to the person who makes it, and may do no more than they may", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			Body struct {
				Name  string `json:"name"`
				Scope string `json:"scope" doc:"read, operate or admin"`
				Days  int    `json:"days,omitempty" default:"90" minimum:"1" maximum:"366" doc:"days until it expires"`
			}
		}) (*body[Token], error) {
			scope, err := store.ParseScope(in.Body.Scope)
			if err != nil {
				return nil, problem(err)
			}
			t, secret, err := s.Access.CreateToken(ctx, actor(ctx), in.Body.Name, scope, in.Body.Days)
			return reply(tokenView(t, secret), err)
		})
	register(a, http.MethodDelete, "/tokens/{token}", "remove-token", "Remove a token", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			Token int64 `path:"token"`
		}) (*empty, error) {
			return done(s.Access.DeleteToken(ctx, actor(ctx), in.Token))
		})
}

// Explanation is what a code means: iPXE's, or a diagnosis's.
type Explanation struct {
	Code    string `json:"code"`
	Title   string `json:"title"`
	Meaning string `json:"meaning"`
	Sign    string `json:"sign,omitempty" doc:"a diagnosis's code: what it is concluded from"`
}

func explanation(e ipxeerr.Explanation) Explanation {
	title := e.Screen
	if e.Where != "" {
		title += " (" + e.Where + ", " + e.Platform.String() + ")"
	}
	return Explanation{Code: fmt.Sprintf("%08x", e.Code), Title: title, Meaning: e.Meaning}
}

func (s *server) explain(a huma.API) {
	register(a, http.MethodGet, "/explain/{code}", "explain-code", "Explain an iPXE error code, or the code of a diagnosis", store.ScopeRead,
		func(_ context.Context, in *struct {
			Code string `path:"code"`
		}) (*body[Explanation], error) {
			if e, ok := diagnose.Find(in.Code); ok {
				return reply(Explanation{Code: e.Code, Title: e.Name, Meaning: e.Help, Sign: e.Sign}, nil)
			}
			e, ok := ipxeerr.DecodeString(in.Code)
			if !ok {
				return nil, problem(store.Invalid("code", "%q is neither an iPXE error code, which has up to eight hexadecimal digits, such as 1d704539, nor a diagnosis's, such as LB-LUN-01", in.Code))
			}
			return reply(explanation(e), nil)
		})
}
