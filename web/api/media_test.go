package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/services/media"
	"lunboot/store"
	filed "lunboot/store/media"
	"lunboot/store/sqlite"
	"lunboot/store/volume/stage"
	"lunboot/web/api"
)

func library(t *testing.T, db *sqlite.DB, jobs media.Jobs) *media.Library {
	t.Helper()
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	folder, err := filed.OpenFolder(filepath.Join(dir, "media"))
	if err != nil {
		t.Fatal(err)
	}
	shelf, err := stage.Open(filepath.Join(dir, "uploads"), quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shelf.Close() })
	l, err := media.New(t.Context(), media.Config{Rows: db, Jobs: jobs, Folder: folder, Shelf: shelf, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMediaAreAddedShownAndRemoved(t *testing.T) {
	h := open(t)
	const text = "0707010000 and the rest of a RAM disk"
	sum := sha256.Sum256([]byte(text))
	var m store.Media
	h.must(201, "POST", "/api/v1/media/rescue.img/upload?file=Rescue.IMG", text).json(t, &m)
	if m.Name != "rescue.img" || m.Kind != store.MediaInitrd || m.SHA256 != hex.EncodeToString(sum[:]) || m.File != "Rescue.IMG" {
		t.Errorf("it is added as %+v", m)
	}
	var u store.Upload
	h.must(201, "POST", "/api/v1/media-uploads", fmt.Sprintf(`{"file":"Other One.iso","size":%d,"sha256":"%x"}`, len(text), sum)).json(t, &u)
	patch := func(status int, off, piece string) {
		t.Helper()
		req, err := http.NewRequest("PATCH", h.URL+"/api/v1/media-uploads/"+u.ID, strings.NewReader(piece))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Upload-Offset", off)
		req.Header.Set("Content-Type", "application/octet-stream")
		if a := h.send(req); a.status != status {
			t.Fatalf("from %s on: %d %s", off, a.status, a.body)
		}
	}
	patch(409, "3", text[:5])
	patch(200, "0", text[:5])
	h.must(409, "POST", "/api/v1/media-uploads/"+u.ID+"/finish", "")
	h.must(200, "GET", "/api/v1/media-uploads/"+u.ID, "").json(t, &u)
	if u.Offset != 5 {
		t.Errorf("the upload is at %d", u.Offset)
	}
	patch(200, "5", text[5:])
	h.must(201, "POST", "/api/v1/media-uploads/"+u.ID+"/finish", "").json(t, &m)
	if m.Name != "other-one.iso" {
		t.Errorf("it is called %q", m.Name)
	}
	path := filepath.Join(t.TempDir(), "preseed.cfg")
	if err := os.WriteFile(path, []byte("d-i\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(422, "POST", "/api/v1/media", fmt.Sprintf(`{"path":%q}`, path)) // from afar
	h.as.Local = true
	if job := h.awaited(h.must(202, "POST", "/api/v1/media", fmt.Sprintf(`{"path":%q}`, path))); job.State != store.JobDone || job.Done != 4 || job.Subject != "preseed.cfg" {
		t.Errorf("the job that copies it: %+v", job)
	}
	h.must(409, "POST", "/api/v1/media", fmt.Sprintf(`{"path":%q}`, path))
	h.must(422, "POST", "/api/v1/media", `{"path":"preseed.cfg","name":"x"}`)
	h.must(422, "POST", "/api/v1/media/answer/upload", "x")
	h.must(422, "POST", "/api/v1/media/x/upload", "")
	h.must(422, "POST", "/api/v1/media-uploads", `{"name":"..","size":3}`)
	var list api.List[store.Media]
	h.must(200, "GET", "/api/v1/media", "").json(t, &list)
	if list.Total != 3 {
		t.Errorf("the list is %+v", list)
	}
	h.must(200, "PUT", "/api/v1/profiles/rescue", `{"kind":"kernel","fields":{"kernel":"/files/rescue.img"}}`)
	if a := h.must(409, "DELETE", "/api/v1/media/rescue.img", ""); !strings.Contains(string(a.body), "profile rescue") {
		t.Errorf("media in use: %s", a.body)
	}
	h.must(204, "DELETE", "/api/v1/media/other-one.iso", "")
	h.must(404, "GET", "/api/v1/media/other-one.iso", "")
	h.must(404, "DELETE", "/api/v1/media-uploads/none", "")
}

func TestACopyOfAFileOfTheApplianceIsCanceled(t *testing.T) {
	h := open(t)
	h.as.Local = true
	path := filepath.Join(t.TempDir(), "large.iso")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(1 << 30) // a hole: reading and summing it takes longer than to cancel
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var job store.Job
	h.must(202, "POST", "/api/v1/media", fmt.Sprintf(`{"path":%q}`, path)).json(t, &job)
	if job.State != store.JobRunning || job.Kind != "media.add" || job.Total != 1<<30 {
		t.Fatalf("the job is %+v", job)
	}
	if a := h.must(409, "POST", "/api/v1/media", fmt.Sprintf(`{"path":%q}`, path)); !strings.Contains(string(a.body), "by a job already") {
		t.Errorf("the same once more: %s", a.body)
	}
	h.must(204, "DELETE", fmt.Sprintf("/api/v1/jobs/%d", job.ID), "")
	h.must(200, "GET", fmt.Sprintf("/api/v1/jobs/%d", job.ID), "").json(t, &job)
	if job.State != store.JobCanceled || job.Error != "canceled by tester" {
		t.Errorf("the job is %+v", job)
	}
	h.must(404, "GET", "/api/v1/media/large.iso", "")
}
