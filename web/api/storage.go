package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"lunboot/store"
	"lunboot/web/download"
)

// StorageActs brings bytes in and out.
type StorageActs interface {
	ExportVolume(ctx context.Context, id store.VolumeID, spec store.ExportSpec) (store.Export, error)
	ImageFiles() ([]store.ImageFile, error)
	AttachDevice(context.Context, store.Actor, store.DeviceSpec) (store.Volume, error)
}

func (s *server) storage(a huma.API) {
	register(a, http.MethodGet, "/images", "list-images", "List the files in the folders for images, which can be imported", store.ScopeRead,
		func(context.Context, *struct{}) (*body[List[store.ImageFile]], error) {
			return all(s.Volumes.ImageFiles())
		})
	register(a, http.MethodGet, "/space", "show-space", "Say how much room there is for volumes, and how long it lasts", store.ScopeRead,
		func(ctx context.Context, _ *struct{}) (*body[Space], error) {
			sp, err := s.Space(ctx)
			return reply(Space{Space: sp, Promised: sp.Promised(), Forecast: sp.Forecast(), Warning: sp.Warning()}, err)
		})
	s.exports(a)
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

// Space is the room for volumes with what is said of it.
type Space struct {
	store.Space
	Promised int64  `json:"promised" doc:"bytes that the volumes may still come to take"`
	Forecast string `json:"forecast,omitempty" doc:"absent when nothing is known"`
	Warning  string `json:"warning,omitempty"`
}

// exports sends volumes as files. What a disk holds is no less secret than what
// an operator may change.
func (s *server) exports(a huma.API) {
	op := operation(a, http.MethodGet, "/volumes/{volume}/export", "export-volume", "Download a volume as a disk image, as it is at this moment: while a machine writes to it crash-consistent, as after a power cut; raw in parts, too (Range)", store.ScopeOperate)
	op.Responses = map[string]*huma.Response{"200": {Description: "the image; one that is shorter than its Content-Length is not whole",
		Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a, op, func(ctx context.Context, in *struct {
		VolumeKey
		Format   string `query:"format" enum:"raw,qcow2" default:"raw"`
		Compress bool   `query:"compress" doc:"qcow2 only: smaller, and made before its first byte is sent"`
	}) (*huma.StreamResponse, error) {
		v, err := s.Volumes.FindVolume(ctx, in.Volume)
		if err != nil {
			return nil, problem(err)
		}
		x, err := s.Volumes.ExportVolume(ctx, v.ID, store.ExportSpec{Format: in.Format, Compress: in.Compress})
		if err != nil {
			return nil, problem(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humachi.Unwrap(hc)
			download.Serve(w, r, x, s.Log)
		}}, nil
	})
}
