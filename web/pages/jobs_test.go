package pages

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
)

// classroom is a job on many machines that ended early.
func classroom() store.Job {
	return store.Job{ID: 9, Kind: store.JobClones, Subject: "debian-golden", State: store.JobCanceled, Error: "canceled by admin", Done: 3, Total: 4, Started: noon, Finished: noon, Verdicts: []store.JobVerdict{
		{Machine: 1, Name: "lab-01", Result: store.ResultDone, Detail: "lab-01-debian-golden, LUN 0"},
		{Machine: 2, Name: "lab-02", Result: store.ResultSkipped, Detail: "it boots from a volume already: win11-lab, LUN 0"},
		{Machine: 3, Name: "lab-03", Result: store.ResultFailed, Detail: "the file system is full"},
		{Machine: 4, Name: "lab-04", Result: store.ResultWaiting},
	}}
}

// A classroom is three clicks: all that match, the act, and the button.
func TestManyMachinesGetACloneEachByOneForm(t *testing.T) {
	l := cloning()
	l.jobs = nil
	get, post := l.enter(t)
	_, body := get("/machines")
	has(t, body, `<option value="clone">give each a clone of the golden volume</option>`, `<option>debian-golden</option>`)
	code, to := post("/machines/bulk", "act", "clone", "all", "yes", "match", matchOf(t, get, "/machines"), "clone_of", "debian-golden", "reset", "1")
	if code != http.StatusSeeOther || to != "/jobs/1" || len(l.acts) != 1 || !strings.Contains(l.acts[0], "Of:debian-golden Reset:true") {
		t.Fatalf("it answers %d %s, done %v", code, to, l.acts)
	}
	_, body = get("/jobs/1")
	has(t, body, "A clone for each machine: debian-golden", "0 of ", ">Cancel<", "Waits")
	l.refuse = store.Invalid("clone_of", "volume x is not golden")
	if code, body := post("/machines/bulk", "act", "clone", "id", "1", "clone_of", "x"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "is not golden") {
		t.Errorf("what cannot be is answered with %d", code)
	}
	l.refuse, l.vols = nil, nil
	if _, body := get("/machines"); strings.Contains(body, `value="clone"`) {
		t.Error("without a golden volume there is nothing to choose")
	}
}

// One on thousands comes in pages, and what went wrong is on the first.
func TestAJobOnThousandsComesInPages(t *testing.T) {
	l := cloning()
	j := classroom()
	j.Verdicts = nil
	for n := range 2000 {
		j.Verdicts = append(j.Verdicts, store.JobVerdict{Machine: store.MachineID(n + 1), Name: fmt.Sprintf("lab-%04d", n), Result: store.ResultDone})
	}
	j.Verdicts[1999].Result = store.ResultFailed
	l.jobs = []store.Job{j}
	get, _ := l.enter(t)
	_, body := get("/jobs/9")
	before(t, body, []string{">lab-1999<", ">lab-0000<"}, ">lab-1000<")
	has(t, body, "1 failed, 1999 done", "of 2000", `rel="next"`)
	if len(body) > 100<<10 {
		t.Errorf("a page has %d bytes", len(body))
	}
}

func TestAJobOnManySaysWhatBecameOfEach(t *testing.T) {
	l := cloning()
	l.jobs = []store.Job{classroom()}
	get, post := l.enter(t)
	_, body := get("/jobs/9")
	has(t, body, "Canceled by admin", "3 of 4 machines", "lab-01-debian-golden, LUN 0", "the file system is full", "Not reached", `href="/machines/3">lab-03<`, "Skipped")
	before(t, body, []string{">lab-03<", ">lab-04<", ">lab-02<", ">lab-01<"}) // what went wrong comes first
	has(t, body, `href="/jobs/9?show=failed">Failed <b class="num">1</b>`, "Not reached <b")
	_, body = get("/jobs/9?search=win11")
	before(t, body, []string{">lab-02<"}, ">lab-01<")
	_, body = get("/jobs/9?show=waiting")
	before(t, body, []string{">lab-04<"}, ">lab-03<")
	_, body = get("/jobs/9?sort=machine")
	before(t, body, []string{">lab-01<", ">lab-02<", ">lab-03<", ">lab-04<"})
	if strings.Contains(body, "/jobs/9/cancel") {
		t.Error("a job that ended cannot be canceled")
	}
	_, body = get("/jobs")
	has(t, body, `href="/jobs/9">debian-golden<`, "3 of 4 machines", "1 failed, 1 not reached, 1 skipped, 1 done")
	for _, none := range []string{"/jobs/10", "/jobs/x"} {
		if code, _ := get(none); code != http.StatusNotFound {
			t.Errorf("%s answers %d", none, code)
		}
	}
	l.jobs[0].State = store.JobRunning
	if code, body := post("/jobs/9/cancel"); code != http.StatusOK || !strings.Contains(body, "What it did stays.") {
		t.Errorf("canceling it answers %d", code)
	}
	if code, _ := post("/jobs/10/cancel"); code == http.StatusOK {
		t.Error("a job that is none was canceled")
	}
}
