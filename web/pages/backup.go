package pages

import (
	"context"
	"net/http"

	"lunboot/store"
)

// Backups makes backups.
type Backups interface {
	Prepare(context.Context, store.Actor, store.BackupSpec) (store.Backup, error)
}

// backup sends a backup as a download.
func (s *site) backup(w http.ResponseWriter, r *http.Request) {
	spec := store.BackupSpec{Journal: r.PostFormValue("journal") != "", Volumes: r.PostFormValue("volumes") != ""}
	if r.PostFormValue("no_hash") != "" {
		spec.Hash = store.HashNone
	}
	b, err := s.Backups.Prepare(r.Context(), by(r), spec)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer func() {
		if err := b.Close(); err != nil {
			s.Log.Error("remove what a backup was made of", "error", err)
		}
	}()
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("Content-Disposition", `attachment; filename="`+b.Name()+`"`)
	if err := b.Send(r.Context(), w); err != nil {
		s.Log.Error("a backup failed", "backup", b.Name(), "error", err)
		panic(http.ErrAbortHandler) // half of one must not pass for a whole
	}
}
