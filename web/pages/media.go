package pages

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/web/auth"
)

// Media keeps the files that machines fetch while they boot.
type Media interface {
	AllMedia(context.Context) ([]store.Media, error)
	AddMedia(ctx context.Context, by store.Actor, name, path string, anywhere bool) (store.Job, error)
	AddMediaStream(ctx context.Context, by store.Actor, name, file string, r io.Reader, size int64) (store.Media, error)
	RemoveMedia(ctx context.Context, by store.Actor, name string) error
	MediaUploads() []store.Upload
	// Open opens a media file, or one inside a disc; fs.ErrNotExist for none.
	Open(name string) (fs.File, error)
}

type mediaView struct {
	Rows    []mediaRow
	List    tableQuery
	Uploads []store.Upload // on their way by other means
	Jobs    []store.Job    // that copy files of the appliance
	Failed  []store.Job    // that did so in the last hour, in vain
}

// Any reports whether something is on its way.
func (v mediaView) Any() bool { return len(v.Uploads)+len(v.Jobs) > 0 }

// copies sorts the jobs that copy files of the appliance.
func (v *mediaView) copies(all []store.Job, now time.Time) {
	for _, j := range all {
		switch {
		case j.Kind != "media.add":
		case j.State == store.JobRunning:
			v.Jobs = append(v.Jobs, j)
		case j.State == store.JobFailed && now.Sub(j.Finished) < time.Hour:
			v.Failed = append(v.Failed, j)
		}
	}
}

// mediaRow is a media file with the profiles that name it.
type mediaRow struct {
	store.Media
	What  string
	Users []string
}

func (s *site) media(w http.ResponseWriter, r *http.Request) {
	s.showMedia(w, r, http.StatusOK, "")
}

func (s *site) showMedia(w http.ResponseWriter, r *http.Request, status int, problem string) {
	all, err := s.Media.AllMedia(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	profiles, err := s.Inventory.Profiles(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := mediaView{Uploads: s.Media.MediaUploads()}
	jobs, err := s.Inventory.Jobs(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.copies(jobs, s.Now())
	list, shown, bad := listed(listing.Media(), "/media", "Name, kind:iso, arch:x86-64", r, all)
	v.List, v.List.Table = list, "media"
	status, problem = refused(status, problem, bad)
	for _, m := range shown {
		row := mediaRow{Media: m, What: mediaWords(m)}
		for _, p := range profiles {
			if p.Uses(m.Name) {
				row.Users = append(row.Users, p.Name)
			}
		}
		v.Rows = append(v.Rows, row)
	}
	s.render(w, r, status, "media", page{Title: "Media", Nav: "media", List: v.List.URL(), Error: problem, Data: v})
}

// mediaWords says in a few words what a media file is.
func mediaWords(m store.Media) string {
	kind := map[store.MediaKind]string{store.MediaISO: "Disc", store.MediaKernel: "Kernel", store.MediaInitrd: "RAM disk", store.MediaWIM: "Image of Windows",
		store.MediaWimboot: "Loader of Windows images", store.MediaFile: "File"}[m.Kind]
	what := m.Contents.Title
	if what == "" {
		what = map[store.MediaOS]string{store.MediaDebian: "Debian’s network installer", store.MediaUbuntu: "Ubuntu", store.MediaFedora: "Fedora", store.MediaRHEL: "Red Hat and kin",
			store.MediaAlpine: "Alpine Linux"}[m.Contents.OS]
	}
	if what == "" {
		what = m.Contents.Label
	}
	if what == "" {
		return kind
	}
	return kind + ": " + what
}

// mediaAct shows the media again: redirected when it worked, with the reason
// when it did not.
func (s *site) mediaAct(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		status, text := told(r, err)
		s.showMedia(w, r, status, text)
		return
	}
	toList(w, r, "/media")
}

// addMedia takes a file from the form. It is the form's last part, and is
// written as it comes.
func (s *site) addMedia(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, store.MaxMediaSize+maxForm)
	parts, err := r.MultipartReader()
	if err != nil {
		s.mediaAct(w, r, store.Invalid("file", "choose a file"))
		return
	}
	name := ""
	r.PostForm = url.Values{} // what was typed, for a form that is refused
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			s.mediaAct(w, r, store.Invalid("file", "choose a file"))
			return
		}
		if err != nil {
			s.mediaAct(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		}
		if part.FormName() == "file" {
			if part.FileName() == "" {
				s.mediaAct(w, r, store.Invalid("file", "choose a file"))
				return
			}
			_, err = s.Media.AddMediaStream(r.Context(), by(r), name, part.FileName(), part, -1)
			s.mediaAct(w, r, err)
			return
		}
		text, err := io.ReadAll(io.LimitReader(part, 256))
		if err != nil {
			s.mediaAct(w, r, store.Invalid("file", "the upload broke off: %v", err))
			return
		}
		r.PostForm.Add(part.FormName(), string(text))
		if part.FormName() == "name" {
			name = strings.TrimSpace(string(text))
		}
	}
}

func (s *site) addMediaPath(w http.ResponseWriter, r *http.Request) {
	_, err := s.Media.AddMedia(r.Context(), by(r), strings.TrimSpace(r.PostFormValue("name")), strings.TrimSpace(r.PostFormValue("path")), auth.From(r.Context()).Local)
	s.mediaAct(w, r, err)
}

func (s *site) removeMedia(w http.ResponseWriter, r *http.Request) {
	name := r.PostFormValue("name")
	err := meant(r, name, "its bytes are deleted for good")
	if err == nil {
		err = s.Media.RemoveMedia(r.Context(), by(r), name)
	}
	s.mediaAct(w, r, err)
}

// cancelMedia ends the copy of a file.
func (s *site) cancelMedia(w http.ResponseWriter, r *http.Request) {
	s.mediaAct(w, r, s.endJob(r, r.PostFormValue("job")))
}
