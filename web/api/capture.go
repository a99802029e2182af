package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// captureType is the media type of a pcapng file.
const captureType = "application/x-pcapng"

// captureFile is a file of packets.
type captureFile struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Body        []byte
}

func (s *server) captures(a huma.API) {
	op := operation(a, http.MethodGet, "/attempts/{attempt}/capture", "download-capture", "Download the packets of a boot attempt, for Wireshark", store.ScopeRead)
	op.Responses = map[string]*huma.Response{"200": {Description: "pcapng, without data and passwords",
		Content: map[string]*huma.MediaType{captureType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a, op, func(ctx context.Context, in *struct {
		Attempt int64 `path:"attempt"`
	}) (*captureFile, error) {
		file, name, err := s.Captures.Capture(ctx, store.AttemptID(in.Attempt))
		if err != nil {
			return nil, problem(err)
		}
		return &captureFile{ContentType: captureType, Disposition: `attachment; filename="` + name + `"`, Body: file}, nil
	})
}
