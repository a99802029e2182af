package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lunboot/store"
)

// backupType is the media type of a backup.
const backupType = "application/gzip"

// Backups makes backups.
type Backups interface {
	Prepare(context.Context, store.Actor, store.BackupSpec) (store.Backup, error)
	// Progress says how far the backup that is being prepared has come.
	Progress() store.BackupProgress
}

func (s *server) backup(a huma.API) {
	register(a, http.MethodGet, "/backup", "show-backup", "Say how far the backup that is being made has come with reading volumes", store.ScopeRead,
		func(context.Context, *struct{}) (*body[store.BackupProgress], error) {
			return reply(s.Backups.Progress(), nil)
		})
	op := operation(a, http.MethodPost, "/backup", "back-up", "Make a backup and download it: the inventory with its secrets, loaders and certificates, and what is asked for", store.ScopeAdmin)
	op.DefaultStatus = http.StatusOK
	op.Responses = map[string]*huma.Response{"200": {Description: "a tar file, compressed with gzip; one without its manifest is not whole",
		Content: map[string]*huma.MediaType{backupType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}}
	huma.Register(a, op, func(ctx context.Context, in *struct {
		Journal bool `query:"journal" doc:"events and attempts too"`
		Volumes bool `query:"volumes" doc:"the bytes of volumes too, each as it is at one moment: of one that a machine writes to crash-consistent, as after a power cut. Devices are not in it. One that cannot be copied is left out, and the manifest says why"`
		Hash    bool `query:"hash" doc:"read all volumes that are left out, so that their SHA-256 is in the manifest; without it those that are golden, and what others stand on: each once, since they do not change"`
		NoHash  bool `query:"no_hash" doc:"read none of the volumes that are left out"`
	}) (*huma.StreamResponse, error) {
		spec := store.BackupSpec{Journal: in.Journal, Volumes: in.Volumes}
		switch {
		case in.Hash && in.NoHash:
			return nil, problem(store.Invalid("no_hash", "hash and no_hash exclude each other"))
		case in.Hash:
			spec.Hash = store.HashAll
		case in.NoHash:
			spec.Hash = store.HashNone
		}
		b, err := s.Backups.Prepare(ctx, actor(ctx), spec)
		if err != nil {
			return nil, problem(err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer func() {
				if err := b.Close(); err != nil {
					s.Log.Error("remove what a backup was made of", "error", err)
				}
			}()
			hc.SetHeader("Content-Type", backupType)
			hc.SetHeader("Content-Disposition", `attachment; filename="`+b.Name()+`"`)
			s.sendBackup(hc.Context(), b, hc.BodyWriter())
		}}, nil
	})
}

// sendBackup cuts the connection off when the backup fails, so that nobody takes
// half of one for a whole.
func (s *server) sendBackup(ctx context.Context, b store.Backup, w io.Writer) {
	if err := b.Send(ctx, w); err != nil {
		s.Log.Error("a backup failed", "backup", b.Name(), "error", err)
		panic(http.ErrAbortHandler)
	}
}
