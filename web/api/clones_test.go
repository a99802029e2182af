package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/api"
)

// awaited follows a job to its end.
func (h *house) awaited(a answer) store.Job {
	h.t.Helper()
	var job store.Job
	a.json(h.t, &job)
	for until := time.Now().Add(time.Minute); job.State == store.JobRunning; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			h.t.Fatalf("job %d does not end", job.ID)
		}
		id := job.ID
		job = store.Job{}
		h.must(200, "GET", fmt.Sprintf("/api/v1/jobs/%d", id), "").json(h.t, &job)
	}
	return job
}

func (h *house) detail(name string) (d store.VolumeDetail) {
	h.t.Helper()
	h.must(200, "GET", "/api/v1/volumes/"+name, "").json(h.t, &d)
	return d
}

// refused checks a refusal's status, and that it names who is in the way.
func (h *house) refused(status int, method, path, body string, names ...string) {
	h.t.Helper()
	a := h.must(status, method, path, body)
	for _, n := range names {
		if !strings.Contains(string(a.body), n) {
			h.t.Errorf("%s %s: the refusal does not name %s: %s", method, path, n, a.body)
		}
	}
}

func TestTheLifeOfAGoldenVolume(t *testing.T) {
	h := open(t)
	if a := string(h.must(404, "POST", "/api/v1/volumes/nothing/check", "").body); !strings.Contains(a, "path.volume") {
		t.Errorf("a volume that is not there: %s", a)
	}
	v := "/api/v1/volumes"
	h.must(201, "POST", v, `{"name":"debian","size":1048576}`)
	h.refused(409, "POST", v+"/debian/clone", `{"name":"c1"}`, "volume freeze debian")
	var golden store.Volume
	h.must(200, "POST", v+"/debian/freeze", `{"note":"as installed"}`).json(t, &golden)
	if !golden.Golden || golden.Version != 1 || !golden.ReadOnly {
		t.Errorf("frozen: %+v", golden)
	}
	h.refused(409, "POST", v+"/debian/freeze", `{}`, "golden already")
	h.refused(409, "POST", v+"/debian/snapshots", `{"name":"s"}`, "versions")

	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-01","macs":["00:0c:29:00:00:01"]}`)
	var cloned api.Cloned
	h.must(201, "POST", v+"/debian/clone", `{"machine":"lab-01","reset_at_boot":true}`).json(t, &cloned)
	if c := cloned; c.Volume.Name != "lab-01-debian" || !c.Volume.Reset || c.Mapping == nil || c.Mapping.MachineName != "lab-01" || !c.Mapping.Boot {
		t.Errorf("a clone for a machine: %+v", cloned)
	}
	cloned = api.Cloned{}
	h.must(201, "POST", v+"/debian/clone", `{"name":"work"}`).json(t, &cloned)
	if cloned.Mapping != nil || cloned.Volume.Parent != golden.ID {
		t.Errorf("a clone for nobody: %+v", cloned)
	}
	h.refused(409, "DELETE", v+"/debian", "", "debian")
	h.refused(404, "POST", v+"/debian/clone", `{"name":"c2","machine":"lab-99"}`, "lab-99")
	h.refused(404, "POST", v+"/work/clone", `{"name":"c2","snapshot":"none"}`, "no snapshot")

	// Snapshots and the way back.
	h.must(201, "POST", v+"/work/snapshots", `{"name":"before","note":"the upgrade"}`)
	h.refused(409, "POST", v+"/work/snapshots", `{"name":"before"}`, "before")
	var snaps api.List[store.SnapshotDetail]
	h.must(200, "GET", v+"/work/snapshots", "").json(t, &snaps)
	if snaps.Total != 1 || snaps.Items[0].Note != "the upgrade" || !snaps.Items[0].Below {
		t.Errorf("snapshots: %+v", snaps)
	}
	h.must(201, "POST", v+"/work/clone", `{"name":"aside","snapshot":"before"}`)
	h.must(200, "POST", v+"/work/rollback", `{"to":"before"}`)
	h.refused(404, "POST", v+"/work/rollback", `{"to":"after"}`, "before")
	h.refused(409, "DELETE", v+"/work/snapshots/before", "", "aside")
	h.must(204, "DELETE", v+"/aside", "")
	h.must(204, "DELETE", v+"/work/snapshots/before", "")
	h.refused(404, "DELETE", v+"/work/snapshots/before", "", "before")

	// Promote, and going back is one act.
	if job := h.awaited(h.must(202, "POST", v+"/work/promote", `{"note":"upgraded"}`)); job.State != store.JobDone || job.Kind != "volume.promote" {
		t.Errorf("promoted: %+v", job)
	}
	var versions api.List[store.VersionDetail]
	h.must(200, "GET", v+"/debian/versions", "").json(t, &versions)
	if versions.Total != 2 || versions.Items[0].Note != "as installed" || !versions.Items[1].Current || versions.Items[1].Note != "upgraded" {
		t.Errorf("versions: %+v", versions)
	}
	if d := h.detail("lab-01-debian"); !d.Stale || d.ParentName != "debian" || len(d.Machines) != 1 || d.Machines[0].Name != "lab-01" {
		t.Errorf("the machine's clone: %+v", d)
	}
	h.refused(422, "PATCH", v+"/debian/versions/1", `{}`, "nothing to change")
	h.must(200, "PATCH", v+"/debian/versions/1", `{"current":true,"note":"the good one"}`)
	h.refused(409, "PATCH", v+"/debian/versions/1", `{"current":true}`, "already")
	h.must(200, "POST", v+"/debian/rollback", `{"to":"2"}`)
	if d := h.detail("debian"); d.Version != 2 || d.Versions[0].Note != "the good one" || len(d.Clones) != 2 {
		t.Errorf("forward again: %+v", d)
	}
	h.refused(409, "DELETE", v+"/debian/versions/1", "", "lab-01-debian")
	h.refused(404, "DELETE", v+"/debian/versions/7", "", "7")
	h.refused(404, "PATCH", v+"/debian/versions/7", `{"current":true}`, "7")
	h.refused(409, "POST", v+"/debian/promote", `{}`, "no clone")
	h.refused(409, "POST", v+"/debian/flatten", `{}`, "golden")

	// A flat volume stands alone, and a check has nothing to say.
	if job := h.awaited(h.must(202, "POST", v+"/work/flatten", `{}`)); job.State != store.JobDone {
		t.Errorf("flattened: %+v", job)
	}
	if d := h.detail("work"); d.Kind != store.VolumeRaw || len(d.Chain) != 1 {
		t.Errorf("flat: %+v", d)
	}
	var check store.VolumeCheck
	h.must(200, "POST", v+"/lab-01-debian/check", "").json(t, &check)
	if !check.OK || len(check.Layers) != 2 {
		t.Errorf("checked: %+v", check)
	}
	h.refused(409, "POST", v+"/lab-01-debian/flatten", `{}`, "--no-reset-at-boot")
	h.must(200, "PATCH", v+"/lab-01-debian", `{"reset_at_boot":false}`)
	h.refused(422, "PATCH", v+"/work", `{"reset_at_boot":true}`, "clone")
}

func TestAMachineIsEnrolledWithACloneThroughTheAPI(t *testing.T) {
	h := open(t)
	for n := range 5 {
		mac, err := store.ParseMAC(fmt.Sprintf("00:0c:29:00:01:%02x", n))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.db.SeeUnknown(context.Background(), store.UnknownMachine{MAC: mac, LastSeen: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	enroll := "/api/v1/unknown-machines/00:0c:29:00:01:00/enroll"
	h.refused(422, "POST", enroll, `{"name":"lab-01","clone_of":"default"}`, "body.clone_of", "default-golden")
	h.must(201, "POST", "/api/v1/volumes", `{"name":"debian","size":1048576}`)
	h.must(200, "POST", "/api/v1/volumes/debian/freeze", `{}`)
	h.must(204, "PUT", "/api/v1/settings/default-golden", `{"value":"debian"}`)
	h.refused(422, "PUT", "/api/v1/settings/default-golden", `{"value":"win11"}`, "win11")
	h.refused(422, "POST", enroll, `{"clone_of":"debian","replace":"lab-01"}`)
	h.refused(422, "POST", enroll, `{"clone_of":"debian","volatile":true}`, "body.volatile", "begins anew")
	h.refused(422, "POST", enroll, `{"clone_of":"none","reset_at_boot":true,"volatile":true}`, "body.clone_of")
	h.refused(422, "POST", enroll, `{"reset_at_boot":true,"replace":"lab-01"}`, "body.clone_of")
	h.must(http.StatusCreated, "POST", enroll, `{"name":"lab-01","clone_of":"default"}`)
	if d := h.detail("lab-01-debian"); len(d.Machines) != 1 || !d.Machines[0].Boot || d.Reset {
		t.Errorf("its clone: %+v", d)
	}
	h.must(http.StatusCreated, "POST", "/api/v1/unknown-machines/00:0c:29:00:01:03/enroll", `{"name":"lab-04"}`) // what the setting says
	if d := h.detail("lab-04-debian"); len(d.Machines) != 1 || !d.Machines[0].Boot || d.Reset {
		t.Errorf("its clone: %+v", d)
	}
	var bare api.Machine
	h.must(http.StatusCreated, "POST", "/api/v1/unknown-machines/00:0c:29:00:01:04/enroll", `{"name":"lab-05","clone_of":"none"}`).json(t, &bare)
	if len(bare.Mappings) != 0 {
		t.Errorf("none, and it has %+v", bare.Mappings)
	}
	var all api.List[store.Enrolled]
	h.must(http.StatusCreated, "POST", "/api/v1/unknown-machines/enroll", `{"name":"pc-{n}","clone_of":"default","reset_at_boot":true,"volatile":true}`).json(t, &all)
	if all.Total != 2 || all.Items[0].Problem != "" {
		t.Errorf("together: %+v", all)
	}
	if d := h.detail("pc-2-debian"); !d.Reset || !d.Volatile || d.ParentName != "debian" {
		t.Errorf("their clones: %+v", d)
	}
}

func TestMachinesGetACloneEachInAJob(t *testing.T) {
	h := open(t)
	for n, name := range []string{"lab-1", "lab-2", "clones"} {
		h.must(201, "POST", "/api/v1/machines", fmt.Sprintf(`{"name":%q,"macs":["00:0c:29:00:02:%02x"],"tags":["room"]}`, name, n))
	}
	give := "/api/v1/machines/clones"
	h.refused(422, "POST", give, `{"all":true}`, "body.clone_of", "no golden volume is the default")
	h.must(201, "POST", "/api/v1/volumes", `{"name":"debian","size":1048576}`)
	h.must(200, "POST", "/api/v1/volumes/debian/freeze", `{}`)
	h.refused(422, "POST", give, `{}`, "body.machines", "one way")
	h.refused(422, "POST", give, `{"all":true,"search":"lab"}`, "body.machines")
	h.refused(422, "POST", give, `{"search":"nobody"}`, "body.search")
	h.refused(422, "POST", give, `{"search":"state:odd"}`, "body.search")
	h.refused(404, "POST", give, `{"machines":["lab-9"]}`, "lab-9")
	h.refused(422, "POST", give, `{"all":true,"clone_of":"none"}`, "body.clone_of")
	job := h.awaited(h.must(http.StatusAccepted, "POST", give, `{"machines":["lab-1"]}`))
	if job.State != store.JobDone || len(job.Verdicts) != 1 || job.Verdicts[0].Detail != "lab-1-debian, LUN 0" {
		t.Errorf("one by its name: %+v", job)
	}
	job = h.awaited(h.must(http.StatusAccepted, "POST", give, `{"search":"tag:room lab","reset_at_boot":true}`))
	if job.State != store.JobDone || len(job.Verdicts) != 2 || job.Verdicts[0].Result != store.ResultSkipped || job.Verdicts[1].Result != store.ResultDone {
		t.Errorf("those that a search finds: %+v", job)
	}
	job = h.awaited(h.must(http.StatusAccepted, "POST", give, `{"all":true}`))
	if job.Counts[store.ResultSkipped] != 2 || job.Counts[store.ResultDone] != 1 || len(job.Verdicts) != 3 {
		t.Errorf("all: %+v", job)
	}
	// Of each machine the job itself tells; the list of jobs counts them.
	var all api.List[store.Job]
	list := h.must(200, "GET", "/api/v1/jobs", "")
	list.json(t, &all)
	if listed := all.Items[0]; listed.ID != job.ID || listed.Counts[store.ResultSkipped] != 2 || listed.Counts[store.ResultDone] != 1 || listed.Verdicts != nil {
		t.Errorf("in the list: %+v", listed)
	}
	h.must(200, "PATCH", "/api/v1/machines/clones", `{"notes":"a machine can be called so"}`)
	h.must(200, "GET", "/api/v1/machines/clones", "")
}
