package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/services/boot"
	"lunboot/store"
)

// Loaders keeps the network boot programs.
type Loaders interface {
	Manifest() []boot.LoaderInfo
	Add(ctx context.Context, by store.Actor, u boot.LoaderUpload, r io.Reader) (boot.LoaderInfo, error)
	Remove(ctx context.Context, by store.Actor, name string) error
}

// loaderInput is a loader as the request's body, with its names beside it.
type loaderInput struct {
	uploadBody
	Name  string `query:"name" doc:"name that machines ask for; default: that of the file, or for a chain's second what its first asks for"`
	File  string `query:"file" doc:"name of the file that is sent"`
	Chain string `query:"chain" doc:"chain of a first file that the firmware trusts and a second that the first one starts"`
	Role  string `query:"role" enum:"first,second" doc:"place in the chain"`
}

// uploadBody takes a request's body as a stream.
type uploadBody struct{ stream io.Reader }

// Resolve takes the request's body as a stream.
func (in *uploadBody) Resolve(ctx huma.Context) []error {
	in.stream = ctx.BodyReader()
	return nil
}

func (s *server) loaders(a huma.API) {
	register(a, http.MethodGet, "/loaders", "list-loaders", "List the loaders, with what each has inside and is for", store.ScopeRead,
		func(_ context.Context, in *ListQuery) (*body[List[boot.LoaderInfo]], error) {
			return found(boot.LoaderList(), *in, s.Loaders.Manifest(), nil)
		})
	register(a, http.MethodPost, "/loaders", "add-loader", "Add a loader from the request's body, or replace one of its name", store.ScopeOperate,
		func(ctx context.Context, in *loaderInput) (*body[boot.LoaderInfo], error) {
			u := boot.LoaderUpload{Name: in.Name, File: in.File, Chain: in.Chain, Role: store.LoaderRole(in.Role)}
			r := in.stream
			if r == nil {
				r = http.NoBody
			}
			return reply(s.Loaders.Add(ctx, actor(ctx), u, r))
		})
	register(a, http.MethodDelete, "/loaders/{loader}", "remove-loader", "Take back a loader that was added, or a chain", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Loader string `path:"loader" doc:"name of a loader or of a chain"`
		}) (*empty, error) {
			return done(s.Loaders.Remove(ctx, actor(ctx), in.Loader))
		})
	register(a, http.MethodDelete, "/loaders/{chain}/{loader}", "remove-chain-loader", "Take back a file of a chain", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Chain  string `path:"chain"`
			Loader string `path:"loader"`
		}) (*empty, error) {
			return done(s.Loaders.Remove(ctx, actor(ctx), in.Chain+"/"+in.Loader))
		})
}
