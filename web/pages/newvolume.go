package pages

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"lunboot/store"
	"lunboot/web/auth"
	"lunboot/web/download"
)

// Storage is where volumes come from.
type Storage interface {
	Uploads() []store.Upload
	FinishUpload(ctx context.Context, by store.Actor, id string) (store.Volume, store.Job, error)
	RemoveUpload(ctx context.Context, id string) error
	ImportForm(ctx context.Context, by store.Actor, spec store.ImportSpec, file string, r io.Reader, most int64) (store.Volume, store.Job, error)
	AttachDevice(context.Context, store.Actor, store.DeviceSpec) (store.Volume, error)
	ExportVolume(ctx context.Context, id store.VolumeID, spec store.ExportSpec) (store.Export, error)
	ImageFolders() []string
	ImageFiles() ([]store.ImageFile, error)
	Jobs(context.Context) ([]store.Job, error)
	CancelJob(ctx context.Context, by store.Actor, id int64) error
}

type newVolumeView struct {
	Folders []string
	Images  []store.ImageFile
	Trouble string // why the folders for images cannot be listed
	Name    string
}

func (s *site) newVolume(w http.ResponseWriter, r *http.Request) {
	s.showNewVolume(w, r, http.StatusOK, "")
}

func (s *site) showNewVolume(w http.ResponseWriter, r *http.Request, status int, problem string) {
	v := newVolumeView{Folders: s.Storage.ImageFolders(), Name: r.URL.Query().Get("name")}
	var err error
	if v.Images, err = s.Storage.ImageFiles(); err != nil {
		_, v.Trouble = explain(err)
	}
	s.render(w, r, status, "newvolume", page{Title: "New volume", Nav: "volumes", Error: problem, Data: v})
}

// made shows the volumes with a new one, or the forms again with the reason.
func (s *site) made(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		status, text := told(r, err)
		s.showNewVolume(w, r, status, text)
		return
	}
	toList(w, r, "/volumes")
}

func (s *site) createVolume(w http.ResponseWriter, r *http.Request) {
	spec, err := volumeSpec(r.PostFormValue)
	if err == nil {
		spec.Size, err = store.ParseBytes(r.PostFormValue("size"))
	}
	if err == nil {
		_, err = s.Volumes.CreateVolume(r.Context(), by(r), spec)
	}
	s.made(w, r, err)
}

func (s *site) importVolume(w http.ResponseWriter, r *http.Request) {
	spec, err := importSpec(r.PostFormValue)
	if err == nil {
		spec.Anywhere = auth.From(r.Context()).Local
		_, _, err = s.Volumes.ImportFile(r.Context(), by(r), spec, strings.TrimSpace(r.PostFormValue("path")))
	}
	s.made(w, r, err)
}

func (s *site) attachDevice(w http.ResponseWriter, r *http.Request) {
	spec, err := volumeSpec(r.PostFormValue)
	if err == nil {
		_, err = s.Storage.AttachDevice(r.Context(), by(r), store.DeviceSpec{
			Name: spec.Name, BlockSize: spec.BlockSize, ReadOnly: spec.ReadOnly, Shared: spec.Shared,
			Path: strings.TrimSpace(r.PostFormValue("path")), Direct: r.PostFormValue("direct") != "",
		})
	}
	s.made(w, r, err)
}

// volumeSpec reads what all forms for a volume have.
func volumeSpec(field func(string) string) (store.VolumeSpec, error) {
	spec := store.VolumeSpec{Name: strings.TrimSpace(field("name")), ReadOnly: field("read_only") != "", Shared: field("shared") != ""}
	if b := field("block_size"); b != "" {
		var err error
		if spec.BlockSize, err = strconv.Atoi(b); err != nil {
			return spec, store.Invalid("block_size", "a block has 512 or 4096 bytes, not %q", b)
		}
	}
	return spec, nil
}

func importSpec(field func(string) string) (store.ImportSpec, error) {
	spec, err := volumeSpec(field)
	return store.ImportSpec{VolumeSpec: spec, Format: field("format"), SHA256: strings.TrimSpace(field("sha256"))}, err
}

// uploadVolume takes an image from the form in one piece. Browsers that run
// scripts send it in pieces instead, and go on where a line broke.
func (s *site) uploadVolume(w http.ResponseWriter, r *http.Request) {
	parts, err := r.MultipartReader()
	if err != nil || r.ContentLength <= 0 {
		s.made(w, r, store.Invalid("file", "choose a file"))
		return
	}
	fields := map[string]string{}
	r.PostForm = url.Values{} // what was typed, for a form that is refused
	for {
		part, err := parts.NextPart()
		switch {
		case errors.Is(err, io.EOF):
			s.made(w, r, store.Invalid("file", "choose a file"))
			return
		case err != nil:
			s.made(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		case part.FormName() == "file":
			// The file is the form's last part: all else is known.
			s.made(w, r, s.takeUpload(r, fields, part))
			return
		case len(fields) > 16:
			s.made(w, r, store.Invalid("file", "the form has too many fields"))
			return
		}
		text, err := io.ReadAll(io.LimitReader(part, 256))
		if err != nil {
			s.made(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		}
		fields[part.FormName()] = strings.TrimSpace(string(text))
		r.PostForm.Add(part.FormName(), string(text))
	}
}

func (s *site) takeUpload(r *http.Request, fields map[string]string, part *multipart.Part) error {
	if part.FileName() == "" {
		return store.Invalid("file", "choose a file")
	}
	spec, err := importSpec(func(name string) string { return fields[name] })
	if err != nil {
		return err
	}
	_, _, err = s.Storage.ImportForm(r.Context(), by(r), spec, part.FileName(), part, r.ContentLength)
	return err
}

// exportVolume sends a volume as a download.
func (s *site) exportVolume(w http.ResponseWriter, r *http.Request) {
	v, err := s.volumeOf(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	spec := store.ExportSpec{Format: r.FormValue("format")}
	if spec.Format == "qcow2-small" {
		spec = store.ExportSpec{Format: "qcow2", Compress: true}
	}
	x, err := s.Storage.ExportVolume(r.Context(), v.ID, spec)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	download.Serve(w, r, x, s.Log)
}

// way is one image that is on its way to be a volume.
type way struct {
	store.Upload
	Percent int64
	Now     bool // pieces came a moment ago
}

// underWay is what becomes a volume, or changes one, in the background.
type underWay struct {
	Uploads []way
	Jobs    []store.Job
}

// Any reports whether there is something.
func (u underWay) Any() bool { return len(u.Uploads)+len(u.Jobs) > 0 }

// recent is how long after its last piece an upload is taken to be sent still.
const recentSeconds = 15

func (s *site) underWay(ctx context.Context) (underWay, error) {
	var out underWay
	for _, u := range s.Storage.Uploads() {
		out.Uploads = append(out.Uploads, way{u, u.Offset * 100 / max(u.Size, 1), s.Now().Sub(u.Touched).Seconds() < recentSeconds})
	}
	all, err := s.Storage.Jobs(ctx)
	for _, j := range all {
		if j.State == store.JobRunning && ofVolume(j) {
			out.Jobs = append(out.Jobs, j)
		}
	}
	return out, err
}

func (s *site) finishUpload(w http.ResponseWriter, r *http.Request) {
	_, _, err := s.Storage.FinishUpload(r.Context(), by(r), chi.URLParam(r, "upload"))
	s.volumeAct(w, r, err)
}

func (s *site) removeUpload(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "upload")
	err := error(store.NotFound("upload", id))
	for _, u := range s.Storage.Uploads() {
		if u.ID != id {
			continue
		}
		if err = meant(r, u.Name, "what has arrived is dropped"); err == nil {
			err = s.Storage.RemoveUpload(r.Context(), id)
		}
	}
	s.volumeAct(w, r, err)
}

func (s *site) cancelJob(w http.ResponseWriter, r *http.Request) {
	s.volumeAct(w, r, s.endJob(r, chi.URLParam(r, "job")))
}
