package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

func (s *server) network(a huma.API) {
	register(a, http.MethodGet, "/network/interfaces", "list-interfaces", "List the appliance's interfaces, the mode of each and what its network was last heard to say", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[List[store.Link]], error) {
			return all(s.Network.Links(ctx))
		})
	register(a, http.MethodPost, "/network/probe", "probe-network", "Ask the network behind an interface who answers DHCP there, as five kinds of client; the answer takes five seconds", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body struct {
				Interface string `json:"interface"`
			}
		}) (*body[store.Survey], error) {
			return reply(s.Network.Ask(ctx, in.Body.Interface))
		})
}
