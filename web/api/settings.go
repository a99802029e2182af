package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// SettingView is a setting with its revision.
type SettingView struct {
	store.Setting
	Revision int64 `json:"revision"`
}

func (s *server) setting(ctx context.Context, key string) (v SettingView, err error) {
	// The revision first: a change between the two makes it one that is refused,
	// not one that is lost.
	if v.Revision, err = s.Store.SettingRevision(ctx, key); err != nil {
		return v, err
	}
	known, err := store.Settings(ctx, s.Store)
	if err != nil {
		return v, err
	}
	for _, v.Setting = range known {
		if v.Key == store.SettingKey(key) {
			return v, nil
		}
	}
	return v, store.NoSetting(key)
}

func (s *server) settings(a huma.API) {
	register(a, http.MethodGet, "/settings", "list-settings", "List settings", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[List[store.Setting]], error) {
			return all(store.Settings(ctx, s.Store))
		})
	register(a, http.MethodGet, "/settings/{key}", "show-setting", "Show a setting", store.ScopeRead,
		func(ctx context.Context, in *struct {
			Key string `path:"key"`
		}) (*body[SettingView], error) {
			return reply(s.setting(ctx, in.Key))
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
