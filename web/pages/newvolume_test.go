package pages

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/auth"
)

func (l *lab) Uploads() []store.Upload {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]store.Upload(nil), l.sent...)
}

func (l *lab) FinishUpload(_ context.Context, _ store.Actor, id string) (store.Volume, store.Job, error) {
	return store.Volume{}, store.Job{}, l.RemoveUpload(context.Background(), id)
}

func (l *lab) RemoveUpload(_ context.Context, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, u := range l.sent {
		if u.ID == id {
			l.sent = append(l.sent[:i:i], l.sent[i+1:]...)
			return nil
		}
	}
	return store.NotFound("upload", id)
}

func (l *lab) ImportForm(ctx context.Context, a store.Actor, s store.ImportSpec, file string, r io.Reader, most int64) (store.Volume, store.Job, error) {
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) > most {
		return store.Volume{}, store.Job{}, store.Invalid("file", "the upload broke off: %v", err)
	}
	if l.got == nil {
		l.got = map[string]string{}
	}
	l.got[s.Name] = file + " " + s.Format + " " + s.SHA256 + " " + string(b)
	v, err := l.CreateVolume(ctx, a, s.VolumeSpec)
	return v, store.Job{}, err
}

func (l *lab) AttachDevice(ctx context.Context, a store.Actor, d store.DeviceSpec) (store.Volume, error) {
	l.devices = append(l.devices, d)
	return l.CreateVolume(ctx, a, store.VolumeSpec{Name: d.Name})
}

func (l *lab) ExportVolume(context.Context, store.VolumeID, store.ExportSpec) (store.Export, error) {
	return nil, store.InUse("machine lab-12 is logged in and has it open")
}

func (l *lab) ImageFolders() []string { return []string{"/var/lib/lunboot/images", "/srv/images"} }

func (l *lab) ImageFiles() ([]store.ImageFile, error) {
	return []store.ImageFile{{Path: "/srv/images/debian12.qcow2", Name: "debian12.qcow2", Size: 700 << 20, Changed: noon}}, nil
}

// signedIn is a browser without scripts that has logged in.
func (l *lab) signedIn(t *testing.T) (base string, c *http.Client) {
	t.Helper()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, c = l.open(t)
	resp, err := c.PostForm(base+"/login", url.Values{"password": {labPassword}})
	must(t, err)
	resp.Body.Close()
	return base, c
}

// form is a form with a file as a browser without scripts sends it.
func form(t *testing.T, fields []string, file, content string) (body *bytes.Buffer, kind string) {
	t.Helper()
	body = &bytes.Buffer{}
	m := multipart.NewWriter(body)
	for i := 0; i < len(fields); i += 2 {
		must(t, m.WriteField(fields[i], fields[i+1]))
	}
	w, err := m.CreateFormFile("file", file)
	must(t, err)
	_, err = io.WriteString(w, content)
	must(t, err)
	must(t, m.Close())
	return body, m.FormDataContentType()
}

func TestAnImageIsUploadedWithoutScripts(t *testing.T) {
	l := full()
	base, c := l.signedIn(t)
	sum := strings.Repeat("ab", 32)
	body, kind := form(t, []string{"name", "debian12", "format", "qcow2", "sha256", sum}, "deb.qcow2", "the bytes")
	whole := body.Bytes()
	resp, err := c.Post(base+"/volumes/upload", kind, bytes.NewReader(whole))
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || l.got["debian12"] != "deb.qcow2 qcow2 "+sum+" the bytes" {
		t.Errorf("%s: %q", resp.Status, l.got)
	}
	// A form that ends in its file is no shorter file.
	resp, err = c.Post(base+"/volumes/upload", kind, bytes.NewReader(bytes.Replace(whole[:len(whole)-80], []byte("debian12"), []byte("cut"), 1)))
	must(t, err)
	got, err := io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity || !bytes.Contains(got, []byte("broke off")) || l.got["cut"] != "" {
		t.Errorf("a form that broke off: %s %q", resp.Status, l.got)
	}
}

func TestWhatIsUnderWayIsShownAndCanBeEnded(t *testing.T) {
	l := full()
	l.sent = []store.Upload{
		{ID: "a1", Name: "win11", File: "win11.vhdx", Size: 8 << 30, Offset: 2 << 30, Touched: noon},
		{ID: "b2", Name: "alma", File: "alma.qcow2", Size: 1 << 30, Offset: 1 << 30, Touched: noon, Problem: "the file system is full"},
	}
	l.jobs = []store.Job{{ID: 7, Kind: "volume.import", Subject: "debian12", State: store.JobRunning, Done: 1 << 30, Total: 4 << 30}}
	base, c := l.signedIn(t)
	resp, err := c.Get(base + "/volumes")
	must(t, err)
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	text := string(b)
	for _, want := range []string{"win11.vhdx: 2 GiB of 8 GiB", "the file system is full", "Try again", "Importing: 1 GiB of 4 GiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, ask := range []struct { // in this order: what is finished cannot be removed
		path string
		want int
	}{{"/volumes/jobs/7/cancel", 303}, {"/volumes/uploads/a1/remove", 303}, {"/volumes/uploads/b2/remove", 422}, {"/volumes/uploads/b2/finish", 303}, {"/volumes/uploads/none/remove", 404}, {"/volumes/jobs/x/cancel", 404}} {
		resp, err := c.PostForm(base+ask.path, url.Values{"confirm": {"win11"}})
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != ask.want {
			t.Errorf("%s: %s", ask.path, resp.Status)
		}
	}
	if len(l.acts) != 1 || l.acts[0] != "cancel 7" || len(l.Uploads()) != 0 {
		t.Errorf("canceled %v, left %v", l.acts, l.Uploads())
	}
}
