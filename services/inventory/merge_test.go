package inventory

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/volume/volumetest"
)

// noneLoose checks that every layer is named by something.
func (h *house) noneLoose(t *testing.T) {
	t.Helper()
	h.work.sweep.Wait()
	loose, err := h.db.LooseLayers(t.Context())
	if must(t, err); len(loose) != 0 {
		t.Errorf("loose: %+v", loose)
	}
}

// towering is a clone with so many snapshots, and what it holds.
func (h *house) towering(t *testing.T, snapshots int) (store.Volume, []byte) {
	t.Helper()
	v := h.cloned(t, h.golden(t, "debian"), "lab-1", false)
	model := make([]byte, 1<<20)
	for n := range snapshots {
		b := volumetest.Pattern(make([]byte, 40<<10), uint64(n))
		copy(model[n*30<<10:], b)
		h.writes(t, v, int64(n*30<<10), b)
		_, err := h.SnapshotVolume(t.Context(), ada, v.ID, fmt.Sprintf("s%d", n+1), "")
		must(t, err)
	}
	return h.now(t, v), model
}

// mergerOf runs a Merger until the test ends, or stop is called.
func mergerOf(t *testing.T, h *house) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewMerger(h.Inventory).Serve(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			must(t, <-done)
		}
	}
	t.Cleanup(stop)
	return stop
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for a minute: %s", what)
		}
	}
}

func (h *house) jobsOf(t *testing.T, kind string) (out []store.Job) {
	t.Helper()
	all, err := h.Jobs(t.Context())
	must(t, err)
	for _, j := range all {
		if j.Kind == kind {
			out = append(out, j)
		}
	}
	return out
}

func TestManySnapshotsMakeNoLongChain(t *testing.T) {
	h := living(t, t.TempDir())
	mergerOf(t, h)
	v, model := h.towering(t, 11)
	until(t, "the chain is short", func() bool { return len(h.now(t, v).Layers) <= store.LongChain })
	h.holds(t, v, model)
	for n := range 11 { // and every snapshot is what it was
		v, err := h.Rollback(t.Context(), ada, v.ID, fmt.Sprintf("s%d", n+1))
		must(t, err)
		want := make([]byte, len(model))
		for k := range n + 1 {
			copy(want[k*30<<10:], volumetest.Pattern(make([]byte, 40<<10), uint64(k)))
		}
		h.holds(t, v, want)
	}
	until(t, "the last merge has ended", func() bool {
		for _, j := range h.jobsOf(t, "volume.merge") {
			if j.State == store.JobRunning {
				return false
			}
		}
		return len(h.now(t, v).Layers) <= store.LongChain
	})
	h.clean(t)
	jobs := h.jobsOf(t, "volume.merge")
	if len(jobs) == 0 {
		t.Fatal("no job tells of it")
	}
	for _, j := range jobs {
		if j.State != store.JobDone || j.Subject != "lab-1" || j.Done != j.Total {
			t.Errorf("%+v", j)
		}
	}
}

// Removed snapshots are what is merged first: that takes no room.
func TestWhatIsMergedCostsTheLeast(t *testing.T) {
	h := living(t, t.TempDir())
	v, _ := h.towering(t, 6)
	for _, name := range []string{"s3", "s4", "s5"} {
		must(t, h.RemoveSnapshot(t.Context(), ada, v.ID, name))
	}
	// Eight layers become four: five of them one. Of the two runs there are, the
	// upper has one snapshot less within it.
	p, err := NewMerger(h.Inventory).plan(t.Context())
	must(t, err)
	if p == nil || len(p.run) != 5 || p.run[0].ID != v.Layers[2].ID || p.room == 0 || p.room >= p.work {
		t.Fatalf("%+v", p)
	}
	must(t, h.RemoveSnapshot(t.Context(), ada, v.ID, "s2"))
	p, err = NewMerger(h.Inventory).plan(t.Context())
	must(t, err)
	if p == nil || p.run[0].ID != v.Layers[2].ID || p.room != 0 {
		t.Errorf("%+v", p)
	}
}

func TestAMergeIsStoppedAndBeginsAgain(t *testing.T) {
	dir := t.TempDir()
	h, f := reopenLayered(t, dir)
	v, _ := h.tower(t, 5)
	hold := make(chan struct{})
	f.mu.Lock()
	f.hold = hold
	f.mu.Unlock()
	running := func() bool {
		jobs := h.jobsOf(t, "volume.merge")
		return len(jobs) > 0 && jobs[0].State == store.JobRunning
	}
	stop := mergerOf(t, h)
	until(t, "a merge runs", running)
	stop()
	if j := h.jobsOf(t, "volume.merge")[0]; j.State != store.JobFailed || !strings.Contains(j.Error, "next start") {
		t.Errorf("%+v", j)
	}
	h.noneLoose(t)
	h.stop()

	h, f = reopenLayered(t, dir)
	must(t, h.Recover(t.Context()))
	f.hold = hold
	mergerOf(t, h)
	until(t, "it runs again", running)
	close(hold)
	until(t, "the chain is short", func() bool { return len(h.now(t, v).Layers) == store.MergedChain })
}

// tower is towering in a house without bytes.
func (h *house) tower(t *testing.T, snapshots int) (store.Volume, store.Volume) {
	t.Helper()
	g := h.golden(t, "debian")
	v := h.cloned(t, g, "lab-1", false)
	for n := range snapshots {
		_, err := h.SnapshotVolume(t.Context(), ada, v.ID, fmt.Sprintf("s%d", n+1), "")
		must(t, err)
	}
	return h.now(t, v), g
}

func TestNobodyIsRefusedOrMadeToWaitForAMerge(t *testing.T) {
	h, f := layeredHouse(t)
	v, _ := h.tower(t, 5)
	hold := make(chan struct{})
	f.mu.Lock()
	f.hold = hold
	f.mu.Unlock()
	mergerOf(t, h)
	running := func() bool {
		jobs := h.jobsOf(t, "volume.merge")
		return len(jobs) > 0 && jobs[0].State == store.JobRunning
	}
	until(t, "a merge runs", running)
	_, err := h.SnapshotVolume(t.Context(), ada, v.ID, "meanwhile", "")
	must(t, err)
	yes := true
	_, err = h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Shared: &yes})
	must(t, err)
	// A rollback takes away what is being merged: then that has been for nothing.
	_, err = h.Rollback(t.Context(), ada, v.ID, "s1")
	must(t, err)
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
	until(t, "the merge has ended", func() bool { return !running() })
	if j := h.jobsOf(t, "volume.merge")[0]; j.State != store.JobFailed || j.Error != errYields.Error() {
		t.Errorf("%+v", j)
	}
	h.noneLoose(t)
}

func TestAMergeThatIsCanceledOrFailsIsNotTriedAtOnce(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	h, f := layeredHouse(t, func(c *Config) { c.Now = func() time.Time { return at } })
	v, _ := h.tower(t, 5)
	m := NewMerger(h.Inventory)
	f.fail = fmt.Errorf("the disk is ill")
	m.settle(t.Context())
	m.settle(t.Context())
	jobs := h.jobsOf(t, "volume.merge")
	if len(jobs) != 1 || jobs[0].State != store.JobFailed || jobs[0].Error != "the disk is ill" {
		t.Fatalf("%+v", jobs)
	}
	h.noneLoose(t)
	// After a while it is.
	at = at.Add(mergeAgain)
	hold := make(chan struct{})
	f.hold = hold
	ended := make(chan struct{})
	go func() {
		m.settle(context.Background())
		close(ended)
	}()
	until(t, "it runs", func() bool { return len(h.jobsOf(t, "volume.merge")) == 2 })
	var id int64
	for _, j := range h.jobsOf(t, "volume.merge") {
		id = max(id, j.ID)
	}
	until(t, "it can be canceled", func() bool { return h.CancelJob(t.Context(), ada, id) == nil })
	j, err := h.Job(t.Context(), id)
	must(t, err)
	if j.State != store.JobCanceled || !strings.Contains(j.Error, string(ada)) {
		t.Errorf("%+v", j)
	}
	<-ended
	at = at.Add(24 * time.Hour)
	if p, err := m.plan(t.Context()); err != nil || p != nil {
		t.Errorf("what an operator ended is planned again: %+v, %v", p, err)
	}
	if _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "one-more", ""); err != nil {
		t.Fatal(err)
	}
	if p, err := m.plan(t.Context()); err != nil || p == nil {
		t.Errorf("other layers are not planned: %v", err)
	}
}

// reads counts what is read of volumes' rows.
type reads struct {
	DB
	all, one int
}

func (r *reads) Volumes(ctx context.Context) ([]store.Volume, error) {
	r.all++
	return r.DB.Volumes(ctx)
}

func (r *reads) Volume(ctx context.Context, id store.VolumeID) (store.Volume, error) {
	r.one++
	return r.DB.Volume(ctx, id)
}

// Two thousand clones that are made one after the other are not two thousand looks at
// two thousand volumes.
func TestALookIsAtWhatActsChanged(t *testing.T) {
	r := &reads{}
	h, _ := layeredHouse(t, func(c *Config) { r.DB, c.DB = c.DB, r })
	g := h.golden(t, "debian")
	for n := range 5 {
		h.cloned(t, g, fmt.Sprintf("lab-%d", n), false)
	}
	m := NewMerger(h.Inventory)
	look := func(what string, all, one int) {
		t.Helper()
		r.all, r.one = 0, 0
		p, err := m.plan(t.Context())
		must(t, err)
		if p != nil || r.all != all || r.one != one {
			t.Errorf("%s: %+v after %d reads of all and %d of one", what, p, r.all, r.one)
		}
	}
	look("the first, which knows nothing", 1, 6)
	h.cloned(t, g, "lab-9", false)
	look("after one clone", 0, 1)
	look("after nothing", 0, 0)
	v := h.cloned(t, g, "lab-10", false)
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
	look("after one that is gone again", 0, 1)
	m.all = true
	look("after an hour", 1, 0)
}

func TestAVolumeThatWasHalfMadeIsMergedOnceItIsReady(t *testing.T) {
	h, _ := layeredHouse(t)
	v, _ := h.tower(t, 5)
	m := NewMerger(h.Inventory)
	v.State = store.VolumePromoting
	v, err := h.db.UpdateVolume(t.Context(), ada, v)
	must(t, err)
	if p, err := m.plan(t.Context()); err != nil || p != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = h.ready(t.Context(), v)
	must(t, err)
	if p, err := m.plan(t.Context()); err != nil || p == nil || p.v.ID != v.ID {
		t.Errorf("%+v, %v", p, err)
	}
}

// What was given up is another chain once something that it stands on was merged.
func TestAMergeLetsThoseAboveItBeMerged(t *testing.T) {
	h, _ := layeredHouse(t)
	v, _ := h.tower(t, 5)
	above, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Snapshot: "s5", Name: "lab-2"})
	must(t, err)
	for n := range 3 {
		_, err = h.SnapshotVolume(t.Context(), ada, above.ID, fmt.Sprintf("s%d", n+1), "")
		must(t, err)
	}
	m := NewMerger(h.Inventory)
	m.giveUp(h.now(t, above), time.Time{})
	v.State = store.VolumePromoting
	v, err = h.db.UpdateVolume(t.Context(), ada, v)
	must(t, err)
	m.settle(t.Context())
	if jobs := h.jobsOf(t, "volume.merge"); len(jobs) != 0 {
		t.Fatalf("%+v", jobs)
	}
	_, err = h.ready(t.Context(), v)
	must(t, err)
	m.settle(t.Context())
	for _, v := range []store.Volume{v, above} {
		if n := len(h.now(t, v).Layers); n > store.LongChain {
			t.Errorf("volume %s lies in %d layers", v.Name, n)
		}
	}
}

// BenchmarkTheMergerBesideTwoThousandClones is what the merger costs while a
// classroom's clones are made, one wake each.
func BenchmarkTheMergerBesideTwoThousandClones(b *testing.B) {
	for b.Loop() {
		h, _ := layeredHouse(b)
		g := h.golden(b, "debian")
		m := NewMerger(h.Inventory)
		m.settle(b.Context())
		var took time.Duration
		for n := range 2000 {
			h.cloned(b, g, fmt.Sprintf("pc-%04d", n), false)
			began := time.Now()
			m.settle(b.Context())
			took += time.Since(began)
		}
		b.ReportMetric(took.Seconds()*1000, "ms-of-merger")
	}
}

func TestAMergeLeavesRoomForMachines(t *testing.T) {
	h := living(t, t.TempDir())
	v, model := h.towering(t, 5)
	small := &room{Volumes: h.Inventory.volumes, size: 1 << 30, free: scratchRoom}
	h.Inventory.volumes = small
	m := NewMerger(h.Inventory)
	m.settle(t.Context())
	jobs := h.jobsOf(t, "volume.merge")
	if len(jobs) != 1 || jobs[0].State != store.JobFailed || !strings.Contains(jobs[0].Error, "make room") {
		t.Fatalf("%+v", jobs)
	}
	small.free = 2 * scratchRoom
	NewMerger(h.Inventory).settle(t.Context())
	if n := len(h.now(t, v).Layers); n != store.MergedChain {
		t.Errorf("%d layers", n)
	}
	h.holds(t, v, bytes.Clone(model))
	h.clean(t)
}

// sweeper holds up removals of files, until it is told to go on.
type sweeper struct {
	Layers
	began chan struct{} // takes one for each removal
	on    chan struct{}
}

func (s *sweeper) RemoveLayers(ctx context.Context, gone []store.Layer) error {
	s.began <- struct{}{}
	<-s.on
	return s.Layers.RemoveLayers(ctx, gone)
}

// held makes removals of files wait until the test says go on.
func (h *house) held() *sweeper {
	s := &sweeper{h.Inventory.layers, make(chan struct{}, 16), make(chan struct{})}
	h.Inventory.layers = s
	return s
}

// The end of a merge does not wait for gigabytes to be removed: an act that removes
// the volume waits for it.
func TestTheFilesOfAMergeGoBehindItsEnd(t *testing.T) {
	h, _ := layeredHouse(t)
	v, _ := h.tower(t, 5)
	for n := range 4 {
		must(t, h.RemoveSnapshot(t.Context(), ada, v.ID, fmt.Sprintf("s%d", n+1)))
	}
	h.work.sweep.Wait()
	s := h.held()
	ended := make(chan struct{})
	go func() {
		NewMerger(h.Inventory).settle(context.Background())
		close(ended)
	}()
	<-s.began
	select {
	case <-ended: // though nothing is removed yet
	case <-time.After(10 * time.Second):
		t.Error("the merge waits for the removal of its files")
	}
	close(s.on)
	<-ended
	if j := h.jobsOf(t, "volume.merge"); len(j) != 1 || j[0].State != store.JobDone {
		t.Errorf("%+v", j)
	}
	h.noneLoose(t)
	h.tidy(t)
}

// Layers whose files are being removed may be found by another removal, and by that
// of their volume: nobody is told of an error that is none.
func TestRemovalsThatMeetRaiseNoAlarm(t *testing.T) {
	var log bytes.Buffer
	h, _ := layeredHouse(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	v, _ := h.tower(t, 4)
	v, err := h.Rollback(t.Context(), ada, v.ID, "s1")
	must(t, err)
	h.work.sweep.Wait()
	s := h.held()
	for _, name := range []string{"s4", "s3", "s2"} { // each lies upon the next
		must(t, h.RemoveSnapshot(t.Context(), ada, v.ID, name))
	}
	<-s.began
	close(s.on)
	h.noneLoose(t)
	h.tidy(t)

	var loose []store.Layer
	for range 2 {
		l, err := h.db.CreateLayer(t.Context(), store.NewLayer(v, v.Layers[0].ID))
		must(t, err)
		loose = append(loose, l)
	}
	s = h.held()
	h.discard(store.Volume{ID: v.ID, Name: v.Name, Layers: loose})
	<-s.began
	// The rows of its layers go with the volume's, before the removal is told to go on.
	must(t, h.db.DeleteVolume(t.Context(), ada, v.ID))
	close(s.on)
	h.work.sweep.Wait()
	if log.Len() > 0 {
		t.Errorf("the log says %s", log.String())
	}
}
