package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

func (s *server) settings(a huma.API) {
	register(a, http.MethodGet, "/settings", "list-settings", "List settings", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[List[store.Setting]], error) {
			return all(store.Settings(ctx, s.Store))
		})
	register(a, http.MethodPut, "/settings/{key}", "set-setting", "Change a setting", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			Key  string `path:"key"`
			Body struct {
				Value string `json:"value"`
			}
		}) (*empty, error) {
			return done(s.Acts.PutSetting(ctx, actor(ctx), store.Setting{Key: store.SettingKey(in.Key), Value: in.Body.Value}))
		})
}
