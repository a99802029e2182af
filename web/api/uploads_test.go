package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/api"
)

// patch sends a piece of an upload.
func (h *house) patch(id string, off int64, piece []byte) answer {
	h.t.Helper()
	req, err := http.NewRequest("PATCH", h.URL+"/api/v1/uploads/"+id, bytes.NewReader(piece))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Upload-Offset", strconv.FormatInt(off, 10))
	req.Header.Set("Content-Type", "application/octet-stream")
	return h.send(req)
}

func TestAnImageIsSentInPiecesAndBecomesAVolume(t *testing.T) {
	h := open(t)
	want := bytes.Repeat([]byte("not a hole "), 100_000)
	sum := sha256.Sum256(want)
	var u store.Upload
	h.must(http.StatusCreated, "POST", "/api/v1/uploads",
		fmt.Sprintf(`{"name":"debian","size":%d,"file":"debian.img","sha256":"%x","read_only":true}`, len(want), sum)).json(t, &u)
	if u.ID == "" || u.Offset != 0 || u.By != "admin" && u.By == "" {
		t.Fatalf("%+v", u)
	}
	if a := h.patch(u.ID, 0, want[:700_000]); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := h.do("POST", "/api/v1/uploads/"+u.ID+"/finish", ""); a.status != http.StatusConflict || !strings.Contains(string(a.body), "send the rest first") {
		t.Errorf("half an image: %d %s", a.status, a.body)
	}
	if a := h.patch(u.ID, 0, want); a.status != http.StatusConflict || !strings.Contains(string(a.body), "700000 bytes have arrived") {
		t.Errorf("from the beginning again: %d %s", a.status, a.body)
	}
	h.must(http.StatusOK, "GET", "/api/v1/uploads/"+u.ID, "").json(t, &u)
	if u.Offset != 700_000 {
		t.Errorf("the offset is %d", u.Offset)
	}
	if a := h.patch(u.ID, u.Offset, want[u.Offset:]); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var got api.Imported
	h.must(http.StatusAccepted, "POST", "/api/v1/uploads/"+u.ID+"/finish", "").json(t, &got)
	v := h.settled(got.Volume.Name)
	if v.State != store.VolumeReady || !v.ReadOnly || v.From != "upload debian.img sha256:"+hex.EncodeToString(sum[:]) {
		t.Errorf("%+v", v)
	}
	// The job is over when the upload is gone, too.
	if job, err := h.inventory.Wait(t.Context(), got.Job.ID); err != nil || job.State != store.JobDone {
		t.Errorf("the job is %+v, %v", job, err)
	}
	var left api.List[store.Upload]
	h.must(http.StatusOK, "GET", "/api/v1/uploads", "").json(t, &left)
	if left.Total != 0 {
		t.Errorf("the upload is still there: %+v", left)
	}
}

// settled waits until a volume is no longer being imported.
func (h *house) settled(name string) store.Volume {
	h.t.Helper()
	for range 1000 {
		v, err := h.db.VolumeByName(h.t.Context(), name)
		if err == nil && v.State != store.VolumeImporting {
			return v
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("the volume %s is not made", name)
	return store.Volume{}
}

func TestAnUploadIsRefusedBeforeItTravels(t *testing.T) {
	h := open(t)
	h.must(http.StatusCreated, "POST", "/api/v1/volumes", `{"name":"taken","size":1048576}`)
	for body, c := range map[string]struct {
		status int
		field  string
	}{
		`{"name":"taken","size":1}`:              {409, "body.name"},
		`{"name":"a/b","size":1}`:                {422, "body.name"},
		`{"name":"x","size":0}`:                  {422, "body.size"},
		`{"name":"x","size":1,"sha256":"12"}`:    {422, "body.sha256"},
		`{"name":"x","size":1,"block_size":7}`:   {422, "body.block_size"},
		`{"name":"x","size":60000000000000}`:     {503, "body.size"},
		`{"name":"x","size":1,"nosuch":"field"}`: {422, "body.nosuch"},
	} {
		if a := h.do("POST", "/api/v1/uploads", body); a.status != c.status || !strings.Contains(string(a.body), `"location":"`+c.field) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	h.must(http.StatusCreated, "POST", "/api/v1/uploads", `{"name":"x","size":10}`)
	var all api.List[store.Upload]
	h.must(http.StatusOK, "GET", "/api/v1/uploads", "").json(t, &all)
	h.must(http.StatusNoContent, "DELETE", "/api/v1/uploads/"+all.Items[0].ID, "")
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		if a := h.do(method, "/api/v1/uploads/"+all.Items[0].ID, ""); a.status != http.StatusNotFound {
			t.Errorf("%s of one that is gone: %d %s", method, a.status, a.body)
		}
	}
}
