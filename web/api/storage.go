package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// StorageActs brings bytes in and out.
type StorageActs interface {
	AttachDevice(context.Context, store.Actor, store.DeviceSpec) (store.Volume, error)
}

func (s *server) storage(a huma.API) {
	// A device is the appliance's own machine's, so this needs admin.
	register(a, http.MethodPost, "/volumes/attach", "attach-volume", "Make a volume of a block device of the appliance, as it is", store.ScopeAdmin,
		func(ctx context.Context, in *struct {
			Body struct {
				Name      string `json:"name"`
				Path      string `json:"path" doc:"below /dev on the appliance; one that stays from start to start, as below /dev/disk/by-id, is best"`
				BlockSize int    `json:"block_size,omitempty" doc:"512 or 4096; the device's own when absent"`
				ReadOnly  bool   `json:"read_only,omitempty"`
				Shared    bool   `json:"shared,omitempty"`
				Direct    bool   `json:"direct,omitempty" doc:"past the page cache (O_DIRECT)"`
			}
		}) (*body[store.Volume], error) {
			b := in.Body
			return reply(s.Volumes.AttachDevice(ctx, actor(ctx), store.DeviceSpec{Name: b.Name, Path: b.Path, BlockSize: b.BlockSize, ReadOnly: b.ReadOnly, Shared: b.Shared, Direct: b.Direct}))
		})
}
