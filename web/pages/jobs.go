package pages

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

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

// jobID reads which job a form or a path names.
func jobID(named string) (int64, error) {
	id, err := strconv.ParseInt(named, 10, 64)
	if err != nil {
		return 0, store.NotFound("job", named)
	}
	return id, nil
}

// endJob cancels the job that a form or a path names.
func (s *site) endJob(r *http.Request, named string) error {
	id, err := jobID(named)
	if err != nil {
		return err
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

// jobPath is the page of a job.
func jobPath(id int64) string { return fmt.Sprintf("/jobs/%d", id) }

// jobView is one job, with what became of each machine of one on many.
type jobView struct {
	store.Job
	Self string
	Rows []verdictRow
	List tableQuery
}

// verdictRow is what became of one machine.
type verdictRow struct {
	store.JobVerdict
	Cond, Icon, Text string
}

// shown is how a verdict is shown. ended says whether its job did.
func shown(v store.JobVerdict, ended bool) verdictRow {
	switch {
	case v.Result == store.ResultFailed:
		return verdictRow{v, "failed", "circle-x", "Failed"}
	case v.Result == store.ResultSkipped:
		return verdictRow{v, "never", "skip-forward", "Skipped"}
	case v.Result == store.ResultDone:
		return verdictRow{v, "up", "circle-check", "Done"}
	case ended:
		return verdictRow{v, "never", "circle-dashed", "Not reached"}
	}
	return verdictRow{v, "booting", "clock", "Waits"}
}

func (s *site) job(w http.ResponseWriter, r *http.Request) {
	s.showJob(w, r, http.StatusOK, page{})
}

func (s *site) showJob(w http.ResponseWriter, r *http.Request, status int, p page) {
	id, err := jobID(chi.URLParam(r, "job"))
	v := jobView{}
	if err == nil {
		v.Job, err = s.Inventory.Job(r.Context(), id)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v.Self = jobPath(v.ID)
	ended := v.State != store.JobRunning
	by := narrowing{Key: "result"}
	for _, result := range store.JobResults() {
		by.Values = append(by.Values, [2]string{string(result), shown(store.JobVerdict{Result: result}, ended).Text})
	}
	all, _, err := listing.Verdicts().Find(v.Verdicts, listing.Query{Sort: "result"}) // unless another order is asked for
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var some []store.JobVerdict
	var bad error
	v.List, some, bad = listedBy(listing.Verdicts(), by, v.Self, "lab-03, result:failed", r, all)
	for _, x := range some {
		v.Rows = append(v.Rows, shown(x, ended))
	}
	status, p.Error = refused(status, p.Error, bad)
	p.List = v.List.URL()
	p.Title, p.Nav, p.Live, p.Data = jobWords(v.Kind)+": "+v.Subject, "jobs", true, v
	s.render(w, r, status, "job", p)
}

// cancelShownJob cancels a job from its own page.
func (s *site) cancelShownJob(w http.ResponseWriter, r *http.Request) {
	if err := s.endJob(r, chi.URLParam(r, "job")); err != nil {
		status, text := told(r, err)
		s.showJob(w, r, status, page{Error: text})
		return
	}
	s.showJob(w, r, http.StatusOK, page{Said: "The job was told to end. What it did stays."})
}
