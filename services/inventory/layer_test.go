package inventory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"lunboot/store"
)

// folder keeps layers as files without maps: enough to see which are there, and
// which of them hold what.
type folder struct {
	Volumes
	dir string

	mu     sync.Mutex
	hold   chan struct{} // what a copy waits for; nil: nothing
	fail   error         // of the next copy
	refuse error         // of every new clone
}

func (f *folder) file(l store.Layer) string { return filepath.Join(f.dir, "volumes", l.Path) }

func (f *folder) put(l store.Layer, text string) error {
	if _, err := os.Lstat(f.file(l)); err == nil {
		return fmt.Errorf("%s is there already", l.Path)
	}
	return os.WriteFile(f.file(l), []byte(text), 0o600)
}

func (f *folder) Create(ctx context.Context, v store.Volume) error {
	if v.Kind != store.VolumeClone {
		return f.Volumes.Create(ctx, v)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	return f.put(v.TopLayer(), "empty over "+v.Base().Path)
}

func (f *folder) Remove(ctx context.Context, v store.Volume) error {
	if v.TopLayer().Kind != store.LayerOverlay {
		return f.Volumes.Remove(ctx, v)
	}
	return f.RemoveLayers(ctx, []store.Layer{v.TopLayer()})
}

func (f *folder) Snapshot(_ context.Context, v store.Volume, next store.Layer, commit func() (store.Volume, error)) error {
	if err := f.put(next, "empty over "+v.Path); err != nil {
		return err
	}
	_, err := commit()
	return err
}

func (f *folder) Replace(_ context.Context, _ store.Volume, next store.Layer, below []store.Layer, commit func() (store.Volume, error)) error {
	if next.Below != below[len(below)-1].ID {
		return errors.New("the new layer stands on another one than the caller says")
	}
	if err := f.put(next, "empty over "+below[len(below)-1].Path); err != nil {
		return err
	}
	_, err := commit()
	return err
}

func (f *folder) wait(ctx context.Context) error {
	f.mu.Lock()
	hold, fail := f.hold, f.fail
	f.fail = nil
	f.mu.Unlock()
	if fail != nil {
		return fail
	}
	if hold == nil {
		return nil
	}
	select {
	case <-hold:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *folder) Flatten(ctx context.Context, v store.Volume, progress func(done, total int64), commit func() (store.Volume, error)) error {
	progress(1, 2)
	if err := f.wait(ctx); err != nil {
		return err
	}
	_, err := commit()
	return err
}

func (f *folder) Merge(ctx context.Context, v store.Volume, first, last store.LayerID, next store.Layer, progress func(done, total int64), commit func() error) error {
	text := "merged:"
	in := false
	for _, l := range v.Layers {
		if in = in || l.ID == first; in {
			b, err := os.ReadFile(f.file(l))
			if err != nil {
				return err
			}
			text += " " + string(b)
		}
		if l.ID == last {
			break
		}
	}
	progress(1, 2)
	if err := f.wait(ctx); err != nil {
		return err
	}
	if err := f.put(next, text); err != nil {
		return err
	}
	return commit()
}

func (f *folder) CopyOut(ctx context.Context, v store.Volume, dst store.Layer, progress func(done, total int64)) error {
	b, err := os.ReadFile(f.file(v.TopLayer()))
	if err != nil {
		return err
	}
	progress(1, 2)
	if err := f.wait(ctx); err != nil {
		return err
	}
	return f.put(dst, "all of "+string(b))
}

func (f *folder) Check(_ context.Context, v store.Volume) (store.VolumeCheck, error) {
	return store.VolumeCheck{OK: true, Layers: []store.LayerCheck{{Layer: v.Top, Path: v.Path}}}, nil
}

func (f *folder) RemoveLayers(_ context.Context, gone []store.Layer) error {
	for _, l := range gone {
		if err := os.Remove(f.file(l)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *folder) Used(v store.Volume) (int64, error) { return int64(len(v.Layers)) << 12, nil }
func (f *folder) Reflinked(context.Context, store.Volume) (int64, error) {
	return 0, errors.ErrUnsupported
}
func (f *folder) Shares(store.Volume) bool { return false }

// layeredHouse is a house with layers, in a folder.
func layeredHouse(t testing.TB, change ...func(*Config)) (*house, *folder) {
	t.Helper()
	return reopenLayered(t, t.TempDir(), change...)
}

func reopenLayered(t testing.TB, dir string, change ...func(*Config)) (*house, *folder) {
	t.Helper()
	f := &folder{dir: dir}
	h := reopen(t, dir, append([]func(*Config){func(c *Config) {
		f.Volumes = c.Volumes
		c.Volumes, c.Layers = f, f
	}}, change...)...)
	return h, f
}

func (h *house) golden(t testing.TB, name string) store.Volume {
	t.Helper()
	v, err := h.FreezeVolume(t.Context(), ada, h.volume(t, name, 1<<20).ID, "as installed")
	must(t, err)
	return v
}

func (h *house) cloned(t testing.TB, parent store.Volume, name string, reset bool) store.Volume {
	t.Helper()
	v, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: parent.ID, Name: name, Reset: reset})
	must(t, err)
	return v
}

func (h *house) now(t *testing.T, v store.Volume) store.Volume {
	t.Helper()
	v, err := h.db.Volume(t.Context(), v.ID)
	must(t, err)
	return v
}

func (h *house) detail(t *testing.T, v store.Volume) store.VolumeDetail {
	t.Helper()
	d, err := h.Detail(t.Context(), h.now(t, v))
	must(t, err)
	return d
}

// done waits for a job, and for what goes on behind it.
func (h *house) done(t *testing.T, job store.Job, err error) store.Job {
	t.Helper()
	must(t, err)
	job, err = h.Wait(t.Context(), job.ID)
	must(t, err)
	h.work.sweep.Wait()
	return job
}

// tidy checks that the folder holds the layers that are named, and no other
// file.
func (h *house) tidy(t *testing.T) {
	t.Helper()
	h.work.sweep.Wait()
	layers, err := h.db.Layers(t.Context())
	must(t, err)
	var want []string
	for _, l := range layers {
		want = append(want, l.Path)
	}
	slices.Sort(want)
	if got := strings.Fields(h.files(t)); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, the layers are %q", got, want)
	}
	loose, err := h.db.LooseLayers(t.Context())
	must(t, err)
	if len(loose) > 0 {
		t.Errorf("loose: %+v", loose)
	}
}

func TestAGoldenVolumeIsClonedAndNobodyWritesToIt(t *testing.T) {
	h, _ := layeredHouse(t)
	v := h.volume(t, "debian", 1<<20)
	h.wantRefusal(t, store.KindConflict, []string{"debian", "volume freeze debian", "volume snapshot debian"}, func() error {
		_, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Name: "c"})
		return err
	})
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.mapped(t, m, v)
	h.wantRefusal(t, store.KindInUse, []string{"debian", "lab-01", "LUN 0"}, func() error { _, err := h.FreezeVolume(t.Context(), ada, v.ID, ""); return err })
	must(t, h.Unmap(t.Context(), ada, m.ID, 0))
	g, err := h.FreezeVolume(t.Context(), ada, v.ID, "as installed")
	must(t, err)
	h.audited(t, ada, "volume.freeze", "debian")
	if !g.Golden || !g.ReadOnly || g.Version != 1 {
		t.Errorf("the golden volume is %+v", g)
	}
	h.wantRefusal(t, store.KindConflict, []string{"golden already"}, func() error { _, err := h.FreezeVolume(t.Context(), ada, v.ID, ""); return err })
	h.wantRefusal(t, store.KindConflict, []string{"grow a clone"}, func() error { _, err := h.ResizeVolume(t.Context(), ada, v.ID, 2<<20); return err })
	h.wantRefusal(t, store.KindInvalid, []string{"read-only"}, func() error {
		_, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{ReadOnly: ptr(false)})
		return err
	})
	c := h.cloned(t, g, "Lab-01-Debian", true)
	if c.Name != "lab-01-debian" || c.Kind != store.VolumeClone || !c.Reset || c.State != store.VolumeReady || c.From != "debian version 1" || c.Size != g.Size {
		t.Errorf("the clone is %+v", c)
	}
	h.mapped(t, m, c)
	h.wantRefusal(t, store.KindInUse, []string{"debian", "lab-01-debian", "machine lab-01"}, func() error { return h.RemoveVolume(t.Context(), ada, g.ID) })
	h.wantRefusal(t, store.KindConflict, []string{"golden"}, func() error { _, err := h.SnapshotVolume(t.Context(), ada, g.ID, "s", ""); return err })
	d := h.detail(t, g)
	if len(d.Clones) != 1 || d.Clones[0].Machines[0] != "lab-01" || len(d.Versions) != 1 || d.Versions[0].UsedBy[0] != "lab-01-debian" || d.Versions[0].Note != "as installed" {
		t.Errorf("the golden volume's detail is %+v", d)
	}
	if d := h.detail(t, c); d.ParentName != "debian" || len(d.Chain) != 2 || d.Chain[0].Owner != "debian" || d.Stale || d.Used <= 0 {
		t.Errorf("the clone's detail is %+v", d)
	}
	h.tidy(t)
	must(t, h.Unmap(t.Context(), ada, m.ID, 0))
	must(t, h.RemoveVolume(t.Context(), ada, c.ID))
	must(t, h.RemoveVolume(t.Context(), ada, g.ID))
	h.tidy(t)
}

func TestAPromotedCloneIsTheNextVersionAndGoingBackIsOneAct(t *testing.T) {
	h, f := layeredHouse(t)
	g := h.golden(t, "debian")
	kept, fresh := h.cloned(t, g, "kept", false), h.cloned(t, g, "fresh", true)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.mapped(t, m, kept)
	must(t, os.WriteFile(f.file(kept.TopLayer()), []byte("updates"), 0o600))

	f.hold = make(chan struct{})
	job, err := h.Promote(t.Context(), ada, kept.ID, "with updates")
	must(t, err)
	if got := h.now(t, kept); got.State != store.VolumePromoting {
		t.Errorf("while it is promoted the clone is %+v", got)
	}
	for _, act := range []func() error{
		func() error { return h.RemoveVolume(t.Context(), ada, kept.ID) },
		func() error { _, err := h.SnapshotVolume(t.Context(), ada, kept.ID, "s", ""); return err },
		func() error { _, err := h.Promote(t.Context(), ada, kept.ID, ""); return err },
	} {
		wantSentence(t, act(), store.KindInUse, "kept", "promoted")
	}
	close(f.hold)
	if job = h.done(t, job, nil); job.State != store.JobDone || job.Kind != "volume.promote" {
		t.Errorf("the job is %+v", job)
	}
	h.tidy(t)
	g = h.now(t, g)
	if b, _ := os.ReadFile(f.file(g.TopLayer())); g.Version != 2 || string(b) != "all of updates" {
		t.Errorf("the golden volume is %+v and holds %q", g, b)
	}
	if got := h.now(t, kept); got.State != store.VolumeReady || got.Version != 1 || !h.detail(t, kept).Stale {
		t.Errorf("the promoted clone is %+v", got)
	}

	// The machine that begins anew moves at its boot.
	moved, err := h.boots(t, fresh, "lab-02")
	must(t, err)
	h.audited(t, store.ActorSystem, "volume.reset", "fresh")
	if moved.Version != 2 || moved.Base().ID != g.Top || h.detail(t, fresh).Stale {
		t.Errorf("after its boot the clone is %+v", moved)
	}
	h.tidy(t)
	h.wantRefusal(t, store.KindInUse, []string{"version 1", "kept"}, func() error { return h.RemoveVersion(t.Context(), ada, g.ID, 1) })
	h.wantRefusal(t, store.KindInUse, []string{"current"}, func() error { return h.RemoveVersion(t.Context(), ada, g.ID, 2) })

	g, err = h.SetVersion(t.Context(), ada, g.ID, 1)
	must(t, err)
	h.audited(t, ada, "version.current", "debian")
	if moved, err = h.boots(t, fresh, "lab-02"); err != nil || moved.Version != 1 {
		t.Errorf("after the next boot the clone is %+v, %v", moved, err)
	}
	h.tidy(t)
	h.wantRefusal(t, store.KindConflict, []string{"already"}, func() error { _, err := h.SetVersion(t.Context(), ada, g.ID, 1); return err })
	must(t, h.NoteVersion(t.Context(), ada, g.ID, 2, "broke the printer"))
	must(t, h.RemoveVersion(t.Context(), ada, g.ID, 2))
	h.tidy(t)
	if got, err := h.ResetVolume(t.Context(), kept.ID, "lab-01"); err != nil || got.Top != kept.Top {
		t.Errorf("a kept clone began anew: %+v, %v", got, err)
	}
}

func TestAPromotionThatEndsEarlyLeavesNothing(t *testing.T) {
	h, f := layeredHouse(t)
	g := h.golden(t, "debian")
	c := h.cloned(t, g, "c", false)
	f.hold = make(chan struct{})
	job, err := h.Promote(t.Context(), ada, c.ID, "")
	must(t, err)
	must(t, h.CancelJob(t.Context(), ada, job.ID))
	if job = h.done(t, job, nil); job.State != store.JobCanceled {
		t.Errorf("the job is %+v", job)
	}
	f.hold, f.fail = nil, errors.New("the disk is ill")
	job, err = h.Promote(t.Context(), ada, c.ID, "")
	if job = h.done(t, job, err); job.State != store.JobFailed || !strings.Contains(job.Error, "ill") {
		t.Errorf("the job is %+v", job)
	}
	if g, c = h.now(t, g), h.now(t, c); g.Version != 1 || c.State != store.VolumeReady {
		t.Errorf("left: %+v, %+v", g, c)
	}
	h.tidy(t)
	for name, v := range map[string]store.Volume{"freeze it instead": h.volume(t, "raw", 1<<20), "promote a clone": g} {
		h.wantRefusal(t, store.KindConflict, []string{v.Name}, func() error { _, err := h.Promote(t.Context(), ada, v.ID, ""); return err })
		_ = name
	}
}

// Only an appliance that cannot merge comes to this.
func TestAChainEndsWithASentence(t *testing.T) {
	h, _ := layeredHouse(t)
	v := h.volume(t, "data", 1<<20)
	for n := range store.MaxLayers - 1 {
		_, err := h.SnapshotVolume(t.Context(), ada, v.ID, fmt.Sprintf("s%d", n), "")
		must(t, err)
	}
	h.wantRefusal(t, store.KindConflict, []string{"16 layers", "job list", "flatten"}, func() error { _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "more", ""); return err })
	h.wantRefusal(t, store.KindConflict, []string{"16 layers", "job list", "flatten"}, func() error { _, err := h.FreezeVolume(t.Context(), ada, v.ID, ""); return err })
}

func TestASnapshotIsGoneBackTo(t *testing.T) {
	var sessions live
	h, f := layeredHouse(t, func(c *Config) { c.Sessions = &sessions })
	v := h.volume(t, "data", 1<<20)
	v, err := h.SnapshotVolume(t.Context(), ada, v.ID, "Before", "a note")
	must(t, err)
	h.audited(t, ada, "volume.snapshot", "data")
	h.wantRefusal(t, store.KindConflict, []string{"data", "before"}, func() error { _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "before", ""); return err })
	h.wantRefusal(t, store.KindInvalid, []string{"a b"}, func() error { _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "a b", ""); return err })
	must(t, os.WriteFile(f.file(v.TopLayer()), []byte("mistake"), 0o600))
	v, err = h.SnapshotVolume(t.Context(), ada, v.ID, "after", "")
	must(t, err)
	h.wantRefusal(t, store.KindNotFound, []string{"before", "after"}, func() error { _, err := h.Rollback(t.Context(), ada, v.ID, "other"); return err })

	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.mapped(t, m, v)
	sessions = live{{ID: "4711", Machine: m.ID, Addr: "10.0.0.7:1"}}
	h.wantRefusal(t, store.KindInUse, []string{"lab-01", "10.0.0.7", "session drop 4711"}, func() error { _, err := h.Rollback(t.Context(), ada, v.ID, "before"); return err })
	// A snapshot is taken while it runs.
	v, err = h.SnapshotVolume(t.Context(), ada, v.ID, "running", "")
	must(t, err)
	sessions = nil
	v, err = h.Rollback(t.Context(), ada, v.ID, "before")
	must(t, err)
	h.audited(t, ada, "volume.rollback", "data")
	if len(v.Layers) != 2 {
		t.Errorf("after the rollback the volume is %+v", v)
	}
	h.tidy(t)
	d := h.detail(t, v)
	if len(d.Snapshots) != 3 || !d.Snapshots[0].Below || d.Snapshots[1].Below || d.Snapshots[0].Note != "a note" {
		t.Errorf("the snapshots are %+v", d.Snapshots)
	}
	// Forward again, to what the rollback seemed to have lost.
	v, err = h.Rollback(t.Context(), ada, v.ID, "after")
	must(t, err)
	if b, _ := os.ReadFile(f.file(v.Layers[len(v.Layers)-2])); string(b) != "mistake" {
		t.Errorf("the snapshot holds %q", b)
	}
	clone, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Snapshot: "running", Name: "copy"})
	must(t, err)
	if clone.From != "data@running" || clone.Base().Volume != v.ID {
		t.Errorf("the clone is %+v", clone)
	}
	h.wantRefusal(t, store.KindInUse, []string{"running", "copy"}, func() error { return h.RemoveSnapshot(t.Context(), ada, v.ID, "running") })
	must(t, h.Unmap(t.Context(), ada, m.ID, 0))
	h.wantRefusal(t, store.KindInUse, []string{"data", "copy"}, func() error { return h.RemoveVolume(t.Context(), ada, v.ID) })
	must(t, h.RemoveVolume(t.Context(), ada, clone.ID))
	must(t, h.RemoveSnapshot(t.Context(), ada, v.ID, "running"))
	h.tidy(t)
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
	h.tidy(t)
}

func TestAFlatVolumeStandsAlone(t *testing.T) {
	h, f := layeredHouse(t)
	g := h.golden(t, "debian")
	c := h.cloned(t, g, "c", false)
	f.hold = make(chan struct{})
	job, err := h.FlattenVolume(t.Context(), ada, c.ID)
	must(t, err)
	for _, act := range []func() error{
		func() error { return h.RemoveVolume(t.Context(), ada, c.ID) },
		func() error { _, err := h.ResizeVolume(t.Context(), ada, c.ID, 2<<20); return err },
		func() error { _, err := h.FlattenVolume(t.Context(), ada, c.ID); return err },
		func() error {
			_, err := h.SetVolume(t.Context(), ada, c.ID, store.VolumePatch{Reset: ptr(true)})
			return err
		},
	} {
		wantSentence(t, act(), store.KindInUse, "being flattened", fmt.Sprintf("job %d", job.ID))
	}
	close(f.hold)
	if job = h.done(t, job, nil); job.State != store.JobDone {
		t.Errorf("the job is %+v", job)
	}
	if c = h.now(t, c); c.Kind != store.VolumeRaw || c.Parent != 0 || len(c.Layers) != 1 {
		t.Errorf("the flat volume is %+v", c)
	}
	h.wantRefusal(t, store.KindConflict, []string{"alone already"}, func() error { _, err := h.FlattenVolume(t.Context(), ada, c.ID); return err })
	must(t, h.RemoveVolume(t.Context(), ada, g.ID))
	h.tidy(t)
	if check, err := h.CheckVolume(t.Context(), c.ID); err != nil || !check.OK {
		t.Errorf("the check says %+v, %v", check, err)
	}
}

func TestACloneThatBeginsAnewIsNotFlattenedOrRolledBack(t *testing.T) {
	h, _ := layeredHouse(t)
	g := h.golden(t, "debian")
	c := h.cloned(t, g, "c", true)
	_, err := h.SnapshotVolume(t.Context(), ada, c.ID, "s", "")
	must(t, err)
	h.wantRefusal(t, store.KindConflict, []string{"each boot", "--no-reset-at-boot"}, func() error { _, err := h.FlattenVolume(t.Context(), ada, c.ID); return err })
	h.wantRefusal(t, store.KindConflict, []string{"each boot", "--no-reset-at-boot"}, func() error { _, err := h.Rollback(t.Context(), ada, c.ID, "s"); return err })
	raw := h.volume(t, "raw", 1<<20)
	h.wantRefusal(t, store.KindInvalid, []string{"only a clone"}, func() error {
		_, err := h.SetVolume(t.Context(), ada, raw.ID, store.VolumePatch{Reset: ptr(true)})
		return err
	})
	c, err = h.boots(t, c, "lab-01")
	must(t, err)
	if len(c.Layers) != 2 {
		t.Errorf("after a boot the clone lies in %+v", c.Layers)
	}
	h.tidy(t) // the snapshot still keeps its layer
	_, err = h.SetVolume(t.Context(), ada, c.ID, store.VolumePatch{Reset: ptr(false)})
	must(t, err)
	if c, err = h.Rollback(t.Context(), ada, c.ID, "s"); err != nil || len(c.Layers) != 3 {
		t.Errorf("after the rollback the clone is %+v, %v", c, err)
	}
	h.tidy(t)
}

func TestAnActWhoseFilesFailChangesNothing(t *testing.T) {
	h, f := layeredHouse(t)
	v := h.volume(t, "data", 1<<20)
	_, err := h.SnapshotVolume(t.Context(), ada, v.ID, "s", "")
	must(t, err)
	must(t, os.Chmod(filepath.Join(h.dir, "volumes"), 0o500))
	defer os.Chmod(filepath.Join(h.dir, "volumes"), 0o700)
	if os.Geteuid() == 0 {
		// Root passes by a folder's mode; a folder that is none refuses root too.
		f.dir = filepath.Join(h.dir, "nowhere")
	}
	for name, act := range map[string]func() error{
		"snapshot": func() error { _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "t", ""); return err },
		"rollback": func() error { _, err := h.Rollback(t.Context(), ada, v.ID, "s"); return err },
		"clone": func() error {
			_, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: v.ID, Snapshot: "s", Name: "c"})
			return err
		},
	} {
		before := h.now(t, v)
		if err := act(); err == nil {
			t.Errorf("%s succeeded without a folder", name)
		}
		if after := h.now(t, v); after.Top != before.Top || after.Revision != before.Revision {
			t.Errorf("%s changed the volume from %+v to %+v", name, before, after)
		}
		if loose, err := h.db.LooseLayers(t.Context()); err != nil || len(loose) != 0 {
			t.Errorf("%s left %+v, %v", name, loose, err)
		}
	}
}

// weakLayers is a folder of layers on a machine that loses power.
type weakLayers struct {
	Layers
	p *power
}

func (w weakLayers) Snapshot(ctx context.Context, v store.Volume, next store.Layer, commit func() (store.Volume, error)) error {
	return w.p.files(func() error { return w.Layers.Snapshot(ctx, v, next, commit) })
}

func (w weakLayers) Replace(ctx context.Context, v store.Volume, next store.Layer, below []store.Layer, commit func() (store.Volume, error)) error {
	return w.p.files(func() error { return w.Layers.Replace(ctx, v, next, below, commit) })
}

func (w weakLayers) Flatten(ctx context.Context, v store.Volume, progress func(done, total int64), commit func() (store.Volume, error)) error {
	return w.p.files(func() error { return w.Layers.Flatten(ctx, v, progress, commit) })
}

func (w weakLayers) CopyOut(ctx context.Context, v store.Volume, dst store.Layer, progress func(done, total int64)) error {
	return w.p.change(func() error { return w.Layers.CopyOut(ctx, v, dst, func(int64, int64) {}) })
}

func (w weakLayers) RemoveLayers(ctx context.Context, gone []store.Layer) error {
	return w.p.change(func() error { return w.Layers.RemoveLayers(ctx, gone) })
}

// files is a change whose commit is one of its own: power can fail before it,
// between the files and the row, and after the row.
func (p *power) files(fn func() error) error {
	if err := p.change(func() error { return nil }); err != nil {
		return err
	}
	return fn()
}

func (d weakDB) CreateLayer(ctx context.Context, l store.Layer) (store.Layer, error) {
	return weak(d.p, func() (store.Layer, error) { return d.DB.CreateLayer(ctx, l) })
}

func (d weakDB) DeleteLayer(ctx context.Context, id store.LayerID) error {
	return d.p.change(func() error { return d.DB.DeleteLayer(ctx, id) })
}

func (d weakDB) FreezeVolume(ctx context.Context, by store.Actor, id store.VolumeID, note string) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.FreezeVolume(ctx, by, id, note) })
}

func (d weakDB) SnapshotVolume(ctx context.Context, by store.Actor, s store.Snapshot, next store.LayerID) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.SnapshotVolume(ctx, by, s, next) })
}

func (d weakDB) ReplaceTop(ctx context.Context, by store.Actor, why string, id store.VolumeID, next store.LayerID, detail string) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.ReplaceTop(ctx, by, why, id, next, detail) })
}

func (d weakDB) FlattenVolume(ctx context.Context, by store.Actor, id store.VolumeID) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.FlattenVolume(ctx, by, id) })
}

func (d weakDB) AddVersion(ctx context.Context, by store.Actor, v store.VolumeVersion) (store.Volume, error) {
	return weak(d.p, func() (store.Volume, error) { return d.DB.AddVersion(ctx, by, v) })
}

func (d weakDB) DeleteVersion(ctx context.Context, by store.Actor, id store.VolumeID, number int) error {
	return d.p.change(func() error { return d.DB.DeleteVersion(ctx, by, id, number) })
}

func (d weakDB) DeleteSnapshot(ctx context.Context, by store.Actor, id store.VolumeID, name string) error {
	return d.p.change(func() error { return d.DB.DeleteSnapshot(ctx, by, id, name) })
}

func TestAnActOnLayersIsDoneOrUndoneAfterAPowerCutAtEveryStep(t *testing.T) {
	find := func(h *house, name string) store.Volume {
		v, err := h.FindVolume(context.Background(), name)
		if err != nil {
			return store.Volume{}
		}
		return v
	}
	job := func(h *house, j store.Job, err error) error {
		if err == nil {
			if j, err = h.Wait(context.Background(), j.ID); err == nil && j.State != store.JobDone {
				err = errors.New(j.Error)
			}
		}
		return err
	}
	// Power fails before or after each step: one of both by the seed, or both.
	seed, sides := rand.Uint64(), []string{"sampled"}
	if os.Getenv("LUNBOOT_SOAK") != "" {
		sides = []string{"before", "after"}
	}
	t.Logf("seed %#x", seed)
	for name, a := range map[string]struct {
		act  func(*house, context.Context) error
		done func(*house) bool // it is as the act promised
	}{
		"freeze": {func(h *house, ctx context.Context) error {
			_, err := h.FreezeVolume(ctx, ada, find(h, "kept").ID, "")
			return err
		}, func(h *house) bool { return find(h, "kept").Golden }},
		"clone": {func(h *house, ctx context.Context) error {
			_, err := h.CloneVolume(ctx, ada, store.CloneSpec{Parent: find(h, "golden").ID, Name: "new"})
			return err
		}, func(h *house) bool { return find(h, "new").State == store.VolumeReady }},
		"snapshot": {func(h *house, ctx context.Context) error {
			_, err := h.SnapshotVolume(ctx, ada, find(h, "kept").ID, "second", "")
			return err
		}, func(h *house) bool { return len(find(h, "kept").Layers) == 4 }},
		"rollback": {func(h *house, ctx context.Context) error {
			_, err := h.Rollback(ctx, ada, find(h, "kept").ID, "first")
			return err
		}, func(h *house) bool { return len(find(h, "kept").Layers) == 3 }},
		"reset": {func(h *house, ctx context.Context) error {
			_, err := h.ResetVolume(ctx, find(h, "fresh").ID, "lab-01")
			return err
		}, func(h *house) bool { return len(find(h, "fresh").Layers) == 2 }},
		"promote": {func(h *house, ctx context.Context) error {
			j, err := h.Promote(ctx, ada, find(h, "kept").ID, "")
			return job(h, j, err)
		}, func(h *house) bool { return find(h, "golden").Version == 2 }},
		"flatten": {func(h *house, ctx context.Context) error {
			j, err := h.FlattenVolume(ctx, ada, find(h, "kept").ID)
			return job(h, j, err)
		}, func(h *house) bool { return find(h, "kept").Kind == store.VolumeRaw }},
		"remove": {func(h *house, ctx context.Context) error { return h.RemoveVolume(ctx, ada, find(h, "kept").ID) },
			func(h *house) bool { return find(h, "kept").ID == 0 }},
		"remove a snapshot": {func(h *house, ctx context.Context) error {
			return h.RemoveSnapshot(ctx, ada, find(h, "kept").ID, "first")
		}, func(h *house) bool { s, _ := h.db.Snapshots(context.Background()); return len(s) == 0 }},
	} {
		for _, side := range sides {
			t.Run(fmt.Sprintf("%s, %s", name, side), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					p := &power{}
					after := side == "after" || side == "sampled" && (seed>>n)&1 != 0
					h, _ := layeredHouse(t, func(c *Config) {
						c.DB = weakDB{c.DB, p}
						c.Volumes = weakPool{c.Volumes, p}
						c.Layers = weakLayers{c.Layers, p}
					})
					g := h.golden(t, "golden")
					h.cloned(t, g, "fresh", true)
					_, err := h.SnapshotVolume(t.Context(), ada, h.cloned(t, g, "kept", false).ID, "first", "")
					must(t, err)
					if name == "reset" {
						h.owes(t, find(h, "fresh"))
					}
					h.work.sweep.Wait()
					p.mu.Lock()
					p.n, p.after, p.count = n, after, 0
					p.mu.Unlock()
					err = a.act(h, t.Context())
					h.stop() // with what goes on behind the answer
					cut := p.failed()

					next, _ := reopenLayered(t, h.dir)
					must(t, next.Recover(t.Context()))
					next.tidy(t)
					for _, v := range []string{"golden", "fresh", "kept"} {
						if s := find(next, v).State; s != store.VolumeReady && s != "" {
							t.Errorf("step %d: volume %s is %s", n, v, s)
						}
					}
					if err == nil && !a.done(next) {
						t.Errorf("step %d: the act succeeded and is undone", n)
					}
					jobs, err := next.Jobs(t.Context())
					must(t, err)
					for _, j := range jobs {
						if j.State == store.JobRunning {
							t.Errorf("step %d: job %d still runs", n, j.ID)
						}
					}
					must(t, next.Recover(t.Context())) // once more is nothing
					next.tidy(t)
					next.stop()
					if !cut {
						if last, _ := reopenLayered(t, h.dir); !a.done(last) {
							t.Error("with power all along the act is not done")
						}
						break
					}
					if n > 20 {
						t.Fatal("the act never ends")
					}
				}
			})
		}
	}
}
