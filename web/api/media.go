package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// Media keeps the files that machines fetch while they boot.
type Media interface {
	AllMedia(context.Context) ([]store.Media, error)
	Media(ctx context.Context, name string) (store.Media, error)
	AddMedia(ctx context.Context, by store.Actor, name, path string, anywhere bool) (store.Job, error)
	AddMediaStream(ctx context.Context, by store.Actor, name, file string, r io.Reader, size int64) (store.Media, error)
	RemoveMedia(ctx context.Context, by store.Actor, name string) error
	MediaUploads
}

// MediaUploads take files that are sent piece by piece.
type MediaUploads interface {
	BeginMediaUpload(context.Context, store.Actor, store.Upload) (store.Upload, error)
	MediaUploads() []store.Upload
	MediaUpload(id string) (store.Upload, error)
	AppendMediaUpload(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error)
	FinishMediaUpload(ctx context.Context, by store.Actor, id string) (store.Media, error)
	RemoveMediaUpload(ctx context.Context, id string) error
}

// MediaKey is the path parameter of one media file.
type MediaKey struct {
	Media string `path:"media" doc:"name"`
}

func (s *server) media(a huma.API) {
	register(a, http.MethodGet, "/media", "list-media", "List the discs, kernels and other files that machines fetch", store.ScopeRead,
		func(ctx context.Context, in *ListQuery) (*body[List[store.Media]], error) {
			items, err := s.Media.AllMedia(ctx)
			return found(listing.Media(), *in, items, err)
		})
	register(a, http.MethodGet, "/media/{media}", "show-media", "Show a media file, with what was found in it", store.ScopeRead,
		func(ctx context.Context, in *MediaKey) (*body[store.Media], error) {
			return reply(s.Media.Media(ctx, in.Media))
		})
	add := operation(a, http.MethodPost, "/media", "add-media", "Add a media file that lies on the appliance; a job copies it", store.ScopeAdmin)
	add.DefaultStatus = http.StatusAccepted
	huma.Register(a, add, func(ctx context.Context, in *struct {
		Body struct {
			Name string `json:"name,omitempty" doc:"default: made of the file's"`
			Path string `json:"path" doc:"a file in a folder for images; over the appliance's own socket the full path of any"`
		}
	}) (*body[store.Job], error) {
		return reply(s.Media.AddMedia(ctx, actor(ctx), in.Body.Name, in.Body.Path, auth.From(ctx).Local))
	})
	register(a, http.MethodPost, "/media/{media}/upload", "upload-media", "Add a media file from the request's body, sent in one piece", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			MediaKey
			uploadBody
			File   string `query:"file" doc:"what the file is called"`
			Length int64  `header:"Content-Length" doc:"0 for a body of unknown length"`
		}) (*body[store.Media], error) {
			return reply(s.Media.AddMediaStream(ctx, actor(ctx), in.Media, in.File, in.reader(), known(in.Length)))
		})
	register(a, http.MethodDelete, "/media/{media}", "remove-media", "Remove a media file that no profile names", store.ScopeOperate,
		func(ctx context.Context, in *MediaKey) (*empty, error) {
			return done(s.Media.RemoveMedia(ctx, actor(ctx), in.Media))
		})
	s.mediaUploads(a)
}

func (s *server) mediaUploads(a huma.API) {
	register(a, http.MethodPost, "/media-uploads", "begin-media-upload", "Announce a media file that will be sent in pieces, and may be gone on with after a lost connection", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			Body struct {
				Name   string `json:"name,omitempty" doc:"default: made of the file's"`
				Size   int64  `json:"size" doc:"bytes that will be sent"`
				File   string `json:"file,omitempty" doc:"what the file is called"`
				SHA256 string `json:"sha256,omitempty" doc:"in hexadecimal: what arrives is checked against it"`
			}
		}) (*body[store.Upload], error) {
			b := in.Body
			return reply(s.Media.BeginMediaUpload(ctx, actor(ctx), store.Upload{Name: b.Name, Size: b.Size, File: b.File, SHA256: b.SHA256}))
		})
	register(a, http.MethodGet, "/media-uploads", "list-media-uploads", "List the media files that are being sent", store.ScopeRead,
		func(context.Context, *struct{}) (*body[List[store.Upload]], error) {
			return all(s.Media.MediaUploads(), nil)
		})
	register(a, http.MethodGet, "/media-uploads/{upload}", "show-media-upload", "Say how much of a media file has arrived; its sender goes on from there", store.ScopeRead,
		func(_ context.Context, in *UploadKey) (*body[store.Upload], error) {
			return reply(s.Media.MediaUpload(in.Upload))
		})
	register(a, http.MethodPatch, "/media-uploads/{upload}", "append-media-upload", "Send the next piece of a media file, of any length", store.ScopeOperate,
		func(ctx context.Context, in *struct {
			UploadKey
			uploadBody
			Offset int64 `header:"Upload-Offset" doc:"how much has arrived before; another one than the appliance's is refused"`
		}) (*body[store.Upload], error) {
			return reply(s.Media.AppendMediaUpload(ctx, in.Upload, in.Offset, in.reader()))
		})
	register(a, http.MethodPost, "/media-uploads/{upload}/finish", "finish-media-upload", "Keep a media file that has arrived", store.ScopeOperate,
		func(ctx context.Context, in *UploadKey) (*body[store.Media], error) {
			return reply(s.Media.FinishMediaUpload(ctx, actor(ctx), in.Upload))
		})
	register(a, http.MethodDelete, "/media-uploads/{upload}", "remove-media-upload", "Drop a media file that was being sent", store.ScopeOperate,
		func(ctx context.Context, in *UploadKey) (*empty, error) {
			return done(s.Media.RemoveMediaUpload(ctx, in.Upload))
		})
}

// known is a length as the acts take it: negative when the sender did not say.
func known(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// reader is the body, which may be empty.
func (in *uploadBody) reader() io.Reader {
	if in.stream == nil {
		return http.NoBody
	}
	return in.stream
}
