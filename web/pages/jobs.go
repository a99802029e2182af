package pages

import (
	"net/http"
	"strconv"
	"strings"

	"lunboot/store"
	"lunboot/store/listing"
)

type jobsView struct {
	Rows []store.Job
	List tableQuery
	All  int // that are known, found or not
}

func (s *site) jobs(w http.ResponseWriter, r *http.Request) {
	s.showJobs(w, r, http.StatusOK, page{})
}

func (s *site) showJobs(w http.ResponseWriter, r *http.Request, status int, p page) {
	all, err := s.Inventory.Jobs(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v := jobsView{All: len(all)}
	var bad error
	v.List, v.Rows, bad = listedBy(listing.Jobs(), narrowing{"state", [][2]string{{string(store.JobRunning), "Running"}, {string(store.JobFailed), "Failed"}, {string(store.JobDone), "Done"}, {string(store.JobCanceled), "Canceled"}}},
		"/jobs", "win11, kind:import, error:full", r, all)
	v.List.Table = "jobs"
	status, p.Error = refused(status, p.Error, bad)
	p.Title, p.Nav, p.Live, p.List, p.Data = "Jobs", "jobs", true, v.List.URL(), v
	s.render(w, r, status, "jobs", p)
}

// endJob cancels the job that a form or a path names.
func (s *site) endJob(r *http.Request, named string) error {
	id, err := strconv.ParseInt(named, 10, 64)
	if err != nil {
		return store.NotFound("job", named)
	}
	return s.Storage.CancelJob(r.Context(), by(r), id)
}

// ofVolume reports whether a job works on a volume: its subject is the name of
// one, and a medium can be called the same.
func ofVolume(j store.Job) bool { return strings.HasPrefix(j.Kind, "volume.") }

// cancelListedJob cancels a job from the list of all.
func (s *site) cancelListedJob(w http.ResponseWriter, r *http.Request) {
	if err := s.endJob(r, r.PostFormValue("job")); err != nil {
		status, text := told(r, err)
		s.showJobs(w, r, status, page{Error: text})
		return
	}
	s.showJobs(w, r, http.StatusOK, page{Said: "The job was told to end."})
}
