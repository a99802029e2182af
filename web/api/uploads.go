package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// UploadActs take images that are sent piece by piece.
type UploadActs interface {
	BeginUpload(context.Context, store.Actor, store.Upload) (store.Upload, error)
	Uploads() []store.Upload
	Upload(id string) (store.Upload, error)
	AppendUpload(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error)
	FinishUpload(ctx context.Context, by store.Actor, id string) (store.Volume, store.Job, error)
	RemoveUpload(ctx context.Context, id string) error
	ImportStream(ctx context.Context, by store.Actor, spec store.ImportSpec, file string, r io.Reader, size int64) (store.Volume, error)
}

// UploadKey is the path parameter of one upload.
type UploadKey struct {
	Upload string `path:"upload" doc:"id"`
}

func (s *server) uploads(a huma.API) {
	register(a, http.MethodPost, "/volumes/{volume}/upload", "upload-volume", "Create a volume from the request's body, an image that is sent in one piece", store.ScopeOperate,
		func(ctx context.Context, in *uploadInput) (*body[store.Volume], error) {
			return reply(s.Volumes.ImportStream(ctx, actor(ctx), in.spec(), in.File, in.reader(), in.size()))
		})
	register(a, http.MethodPost, "/uploads", "begin-upload", "Announce an image that will be sent in pieces, and may be gone on with after a lost connection", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body struct {
				Name      string `json:"name" doc:"of the volume that it will be"`
				Size      int64  `json:"size" doc:"bytes of the file that will be sent"`
				File      string `json:"file,omitempty" doc:"what the file is called"`
				SHA256    string `json:"sha256,omitempty" doc:"of the file, in hexadecimal: what arrives is checked against it"`
				Format    string `json:"format,omitempty" enum:"auto,raw,qcow2,vmdk,vhd,vhdx" doc:"auto (default) tells by the content; raw takes the bytes as they are; another one must be true"`
				BlockSize int    `json:"block_size,omitempty" doc:"512 or 4096; the image's own when absent, 512 where it has none"`
				ReadOnly  bool   `json:"read_only,omitempty"`
				Shared    bool   `json:"shared,omitempty"`
			}
		}) (*body[store.Upload], error) {
			b := in.Body
			return reply(s.Volumes.BeginUpload(ctx, actor(ctx), store.Upload{
				Name: b.Name, Size: b.Size, File: b.File, SHA256: b.SHA256, Format: b.Format, BlockSize: b.BlockSize, ReadOnly: b.ReadOnly, Shared: b.Shared,
			}))
		})
	register(a, http.MethodGet, "/uploads", "list-uploads", "List the images that are being sent", store.ScopeRead,
		func(context.Context, *struct{}) (*body[List[store.Upload]], error) {
			return all(s.Volumes.Uploads(), nil)
		})
	register(a, http.MethodGet, "/uploads/{upload}", "show-upload", "Say how much of an image has arrived; its sender goes on from there", store.ScopeRead,
		func(_ context.Context, in *UploadKey) (*body[store.Upload], error) {
			return reply(s.Volumes.Upload(in.Upload))
		})
	register(a, http.MethodPatch, "/uploads/{upload}", "append-upload", "Send the next piece of an image, of any length", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			UploadKey
			uploadBody
			Offset int64 `header:"Upload-Offset" doc:"how much has arrived before; another one than the appliance's is refused"`
		}) (*body[store.Upload], error) {
			return reply(s.Volumes.AppendUpload(ctx, in.Upload, in.Offset, in.reader()))
		})
	finish := operation(a, http.MethodPost, "/uploads/{upload}/finish", "finish-upload", "Make a volume of an image that has arrived; a job does it", store.ScopeOperate)
	finish.DefaultStatus = http.StatusAccepted
	huma.Register(a, finish, func(ctx context.Context, in *UploadKey) (*body[Imported], error) {
		v, job, err := s.Volumes.FinishUpload(ctx, actor(ctx), in.Upload)
		return reply(Imported{Volume: v, Job: job}, err)
	})
	register(a, http.MethodDelete, "/uploads/{upload}", "remove-upload", "Drop an image that was being sent", store.ScopeOperate,
		func(ctx context.Context, in *UploadKey) (*empty, error) {
			return done(s.Volumes.RemoveUpload(ctx, in.Upload))
		})
}

// uploadInput streams the body: an image does not fit into memory.
type uploadInput struct {
	VolumeKey
	uploadBody
	File      string `query:"file" doc:"what the file is called"`
	SHA256    string `query:"sha256" doc:"of the body, in hexadecimal: what arrives is checked against it"`
	Format    string `query:"format" enum:"auto,raw,qcow2,vmdk,vhd,vhdx" doc:"auto (default) tells by the content"`
	BlockSize int    `query:"block_size" doc:"512 or 4096; the image's own when absent"`
	ReadOnly  bool   `query:"read_only"`
	Shared    bool   `query:"shared"`
	Length    int64  `header:"Content-Length"`
}

func (in *uploadInput) spec() store.ImportSpec {
	return store.ImportSpec{
		VolumeSpec: store.VolumeSpec{Name: in.Volume, BlockSize: in.BlockSize, ReadOnly: in.ReadOnly, Shared: in.Shared}, Format: in.Format, SHA256: in.SHA256,
	}
}

func (in *uploadInput) size() int64 { return in.Length }
