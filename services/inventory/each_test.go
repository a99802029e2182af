package inventory

import (
	"fmt"
	"strings"
	"testing"

	"lunboot/store"
)

// became are the results of a job by the machine's name.
func became(job store.Job) map[string]store.JobVerdict {
	out := map[string]store.JobVerdict{}
	for _, v := range job.Verdicts {
		out[v.Name] = v
	}
	return out
}

func TestAClassroomGetsACloneForEachAndOnlyOne(t *testing.T) {
	h, _ := layeredHouse(t)
	golden := h.golden(t, "debian")
	var room []store.MachineID
	var all []store.Machine
	for n := range 5 {
		m := h.machine(t, fmt.Sprintf("lab-%d", n), fmt.Sprintf("00:07:e9:0f:eb:%02x", n))
		room, all = append(room, m.ID), append(all, m)
	}
	other := h.volume(t, "other", 1<<20)
	h.mapped(t, all[1], other)
	_, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: all[2].ID, Volume: golden.ID, ReadOnly: true})
	must(t, err)
	_, err = h.SetMachine(t.Context(), ada, all[3].ID, store.MachinePatch{Profile: ptr("local")})
	must(t, err)
	job, err := h.CloneForEach(t.Context(), ada, append(room, room[0]), store.CloneChoice{Reset: true})
	job = h.done(t, job, err)
	got := became(job)
	if job.State != store.JobDone || job.Done != 5 || job.Total != 5 || len(job.Verdicts) != 5 || job.Count()[store.ResultDone] != 4 {
		t.Fatalf("the job ended as %+v", job)
	}
	if v := got["lab-1"]; v.Result != store.ResultSkipped || !strings.Contains(v.Detail, "boots from a volume already: other, LUN 0") {
		t.Errorf("one that has a volume: %+v", v)
	}
	if v := got["lab-0"]; v.Detail != "lab-0-debian, LUN 0" {
		t.Errorf("a new one: %+v", v)
	}
	if v := got["lab-3"]; !strings.Contains(v.Detail, "its profile local does not start it") {
		t.Errorf("one that boots otherwise: %+v", v)
	}
	maps := h.mappings(t, all[2]) // where it read the golden volume itself, the clone stands now
	if len(maps) != 1 || maps[0].Volume == golden.ID || !maps[0].Boot {
		t.Errorf("lab-2 boots %+v", maps)
	}
	if v, err := h.db.Volume(t.Context(), maps[0].Volume); err != nil || !v.Reset || v.Parent != golden.ID {
		t.Errorf("its clone is %+v, %v", v, err)
	}
	again, err := h.CloneForEach(t.Context(), ada, room, store.CloneChoice{Of: "debian"})
	again = h.done(t, again, err)
	if again.State != store.JobDone || again.Count()[store.ResultSkipped] != 5 || !strings.Contains(became(again)["lab-0"].Detail, "has its clone already: lab-0-debian") {
		t.Errorf("done again: %+v", again)
	}
	for _, bad := range []store.CloneChoice{{Of: "none"}, {Of: "nosuch"}, {Of: "other"}, {Of: "debian", Volatile: true}} {
		h.wantRefusal(t, store.KindInvalid, nil, func() error {
			_, err := h.CloneForEach(t.Context(), ada, room, bad)
			return err
		})
	}
	h.wantRefusal(t, store.KindInvalid, []string{"name the machines"}, func() error {
		_, err := h.CloneForEach(t.Context(), ada, nil, store.CloneChoice{})
		return err
	})
}

// One that fails is named, and the others have what they were promised.
func TestWhoGetsNoCloneSaysWhyAndTheOthersGetTheirs(t *testing.T) {
	var sessions live
	h, _ := layeredHouse(t, func(c *Config) { c.Sessions = &sessions })
	golden := h.golden(t, "debian")
	a, b, c := h.machine(t, "lab-a", "00:07:e9:0f:eb:01"), h.machine(t, "lab-b", "00:07:e9:0f:eb:02"), h.machine(t, "lab-c", "00:07:e9:0f:eb:03")
	_, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: b.ID, Volume: golden.ID, ReadOnly: true})
	must(t, err)
	sessions = live{{ID: "s1", Machine: b.ID, Initiator: b.Initiator}}
	h.acts.Lock() // nobody's turn comes before one of them is gone
	job, err := h.CloneForEach(t.Context(), ada, []store.MachineID{a.ID, b.ID, c.ID}, store.CloneChoice{})
	must(t, err)
	must(t, h.db.DeleteMachine(t.Context(), ada, c.ID))
	h.acts.Unlock()
	job = h.done(t, job, nil)
	got := became(job)
	if job.State != store.JobFailed || job.Error != "2 machines of 3 got no clone" || got["lab-a"].Result != store.ResultDone {
		t.Errorf("the job ended as %+v", job)
	}
	if v := got["lab-b"]; v.Result != store.ResultFailed || !strings.Contains(v.Detail, "is logged in") {
		t.Errorf("one that runs from the golden volume: %+v", v)
	}
	if v := got["lab-c"]; v.Result != store.ResultFailed || v.Detail != "it was removed meanwhile" {
		t.Errorf("one that was removed: %+v", v)
	}
}

func TestAClassroomThatIsCanceledKeepsWhatWasDoneAndSaysWhatWasNot(t *testing.T) {
	h, _ := layeredHouse(t)
	h.golden(t, "debian")
	var room []store.MachineID
	for n := range 4 {
		room = append(room, h.machine(t, fmt.Sprintf("lab-%d", n), fmt.Sprintf("00:07:e9:0f:eb:%02x", n)).ID)
	}
	h.acts.Lock() // the first waits for its turn
	job, err := h.CloneForEach(t.Context(), ada, room, store.CloneChoice{})
	must(t, err)
	h.jobs.mu.Lock()
	h.jobs.all[job.ID].by = ada
	h.jobs.all[job.ID].cancel(errCanceled)
	h.jobs.mu.Unlock()
	h.acts.Unlock()
	job = h.done(t, job, nil)
	if job.State != store.JobCanceled || job.Count()[store.ResultWaiting] < 3 || job.Count()[store.ResultDone]+job.Count()[store.ResultWaiting] != 4 {
		t.Errorf("the job ended as %+v", job)
	}
	rest, err := h.CloneForEach(t.Context(), ada, room, store.CloneChoice{})
	if rest = h.done(t, rest, err); rest.State != store.JobDone || rest.Count()[store.ResultDone] != job.Count()[store.ResultWaiting] {
		t.Errorf("gone on with: %+v", rest)
	}
}

// What is gone is named: a golden volume that was removed is no fault of a machine's.
func TestAClassroomWhoseGoldenVolumeIsRemovedMeanwhileSaysSo(t *testing.T) {
	h, _ := layeredHouse(t)
	golden := h.golden(t, "debian")
	a := h.machine(t, "lab-a", "00:07:e9:0f:eb:01")
	h.acts.Lock() // its turn comes when the volume is gone
	job, err := h.CloneForEach(t.Context(), ada, []store.MachineID{a.ID}, store.CloneChoice{})
	must(t, err)
	must(t, h.db.DeleteVolume(t.Context(), ada, golden.ID))
	h.acts.Unlock()
	job = h.done(t, job, nil)
	if v := became(job)["lab-a"]; v.Result != store.ResultFailed || !strings.Contains(v.Detail, "volume") {
		t.Errorf("it became %+v", v)
	}
}
