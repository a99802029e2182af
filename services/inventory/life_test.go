package inventory

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/store/volume"
	"lunboot/store/volume/volumetest"
)

// living is a house whose layers hold real bytes.
func living(t *testing.T, dir string) *house {
	t.Helper()
	return reopen(t, dir, func(c *Config) { c.Layers = c.Volumes.(*volume.Pool) })
}

func (h *house) opened(t *testing.T, v store.Volume) *volume.Handle {
	t.Helper()
	handle, err := h.pool.Open(t.Context(), h.now(t, v))
	must(t, err)
	return handle
}

// writes puts bytes down as a machine does that flushes and shuts down.
func (h *house) writes(t *testing.T, v store.Volume, off int64, b []byte) {
	t.Helper()
	handle := h.opened(t, v)
	must(t, handle.WriteAt(t.Context(), b, off))
	must(t, handle.Sync(t.Context()))
	must(t, handle.Close())
}

func (h *house) holds(t *testing.T, v store.Volume, want []byte) {
	t.Helper()
	handle := h.opened(t, v)
	defer handle.Close()
	got := make([]byte, len(want))
	must(t, handle.ReadAt(t.Context(), got, 0))
	if i := slices.Compare(got, want); i != 0 {
		t.Helper()
		for i = 0; got[i] == want[i]; i++ {
		}
		t.Fatalf("volume %s: byte %d is %q, want %q", v.Name, i, got[i:min(len(got), i+16)], want[i:min(len(want), i+16)])
	}
	check, err := h.CheckVolume(t.Context(), v.ID)
	if err != nil || !check.OK {
		t.Errorf("the check of volume %s says %+v, %v", v.Name, check, err)
	}
}

// clean checks that the folder holds the files of the layers that are named, and
// no other.
func (h *house) clean(t *testing.T) {
	t.Helper()
	h.work.sweep.Wait()
	layers, err := h.db.Layers(t.Context())
	must(t, err)
	var want []string
	for _, l := range layers {
		want = append(want, l.Path)
		if l.Kind == store.LayerOverlay {
			want = append(want, l.Path+".map")
		}
	}
	slices.Sort(want)
	if got := strings.Fields(h.files(t)); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, the layers are %q", got, want)
	}
}

func at(b []byte, off int, s string) []byte {
	b = bytes.Clone(b)
	copy(b[off:], s)
	return b
}

func TestTheLifeOfAVolumeThroughAllItsActs(t *testing.T) {
	dir := t.TempDir()
	h := living(t, dir)
	ctx := t.Context()
	disk := volumetest.Pattern(make([]byte, 1<<20), 1)
	v := h.volume(t, "debian", 1<<20)
	h.writes(t, v, 0, disk)
	g, err := h.FreezeVolume(ctx, ada, v.ID, "as installed")
	must(t, err)
	kept, fresh := h.cloned(t, g, "kept", false), h.cloned(t, g, "fresh", true)
	h.writes(t, kept, 5000, []byte("kept"))
	h.writes(t, fresh, 5000, []byte("gone at the next boot"))
	h.holds(t, kept, at(disk, 5000, "kept"))

	// Reset at boot, with a session of before still there.
	before := h.opened(t, fresh)
	_, err = h.boots(t, fresh, "lab-01")
	must(t, err)
	if err := before.WriteAt(ctx, []byte("late"), 0); store.KindOf(err) != store.KindConflict {
		t.Errorf("a write of the boot before: %v", err)
	}
	must(t, before.Close())
	h.holds(t, fresh, disk)
	h.clean(t)

	// A snapshot under a running machine, more writes, a clone of it, and back.
	running := h.opened(t, kept)
	kept, err = h.SnapshotVolume(ctx, ada, kept.ID, "good", "")
	must(t, err)
	must(t, running.WriteAt(ctx, []byte("broken"), 5000))
	must(t, running.Close())
	h.holds(t, kept, at(disk, 5000, "broken"))
	other, err := h.CloneVolume(ctx, ada, store.CloneSpec{Parent: kept.ID, Snapshot: "good", Name: "other"})
	must(t, err)
	h.holds(t, other, at(disk, 5000, "kept"))
	kept, err = h.Rollback(ctx, ada, kept.ID, "good")
	must(t, err)
	h.holds(t, kept, at(disk, 5000, "kept"))
	h.clean(t)

	// Promote; the machine that begins anew moves to it, and back.
	job, err := h.Promote(ctx, ada, kept.ID, "with updates")
	h.done(t, job, err)
	must(t, h.passed(t, job))
	_, err = h.boots(t, fresh, "lab-01")
	must(t, err)
	h.holds(t, fresh, at(disk, 5000, "kept"))
	h.holds(t, kept, at(disk, 5000, "kept"))
	_, err = h.SetVersion(ctx, ada, g.ID, 1)
	must(t, err)
	_, err = h.boots(t, fresh, "lab-01")
	must(t, err)
	h.holds(t, fresh, disk)
	h.clean(t)

	// Grow and flatten the other one, while it is open.
	running = h.opened(t, other)
	other, err = h.ResizeVolume(ctx, ada, other.ID, 2<<20)
	must(t, err)
	must(t, running.WriteAt(ctx, []byte("behind the end of before"), 3<<19))
	job, err = h.FlattenVolume(ctx, ada, other.ID)
	h.done(t, job, err)
	must(t, h.passed(t, job))
	must(t, running.WriteAt(ctx, []byte("and on"), 0))
	must(t, running.Close())
	want := at(at(append(at(disk, 5000, "kept"), make([]byte, 1<<20)...), 3<<19, "behind the end of before"), 0, "and on")
	h.holds(t, other, want)
	if o := h.now(t, other); o.Kind != store.VolumeRaw || len(o.Layers) != 1 {
		t.Errorf("the flattened volume is %+v", o)
	}
	h.clean(t)

	// All of it is there after a start.
	h.stop()
	h = living(t, dir)
	must(t, h.Recover(ctx))
	h.holds(t, other, want)
	h.holds(t, kept, at(disk, 5000, "kept"))
	h.holds(t, fresh, disk)
	h.holds(t, g, disk)
	h.clean(t)
	for _, v := range []store.Volume{fresh, kept, other, g} {
		must(t, h.RemoveVolume(ctx, ada, v.ID))
		h.clean(t)
	}
}

// passed returns why a job did not end well.
func (h *house) passed(t *testing.T, job store.Job) error {
	t.Helper()
	job, err := h.Wait(t.Context(), job.ID)
	must(t, err)
	if job.State != store.JobDone {
		return &store.Error{Kind: store.KindInternal, Msg: string(job.State) + ": " + job.Error}
	}
	return nil
}

// What was kept of a volume takes room, too, when it does not stand on it any
// more.
func TestAVolumeTakesTheRoomOfAllThatWasKeptOfIt(t *testing.T) {
	h := living(t, t.TempDir())
	ctx := t.Context()
	const size = 4 << 20
	v := h.volume(t, "debian", size)
	h.writes(t, v, 0, volumetest.Pattern(make([]byte, size), 1))
	g, err := h.FreezeVolume(ctx, ada, v.ID, "")
	must(t, err)
	next := h.cloned(t, g, "next", false)
	h.writes(t, next, 0, volumetest.Pattern(make([]byte, size), 2))
	job, err := h.Promote(ctx, ada, next.ID, "")
	h.done(t, job, err)
	must(t, h.passed(t, job))
	must(t, h.RemoveVolume(ctx, ada, next.ID))

	// Two snapshots, of which the volume stands on the older alone.
	w := h.volume(t, "work", size)
	h.writes(t, w, 0, volumetest.Pattern(make([]byte, size), 3))
	for n, name := range []string{"older", "newer"} {
		_, err = h.SnapshotVolume(ctx, ada, w.ID, name, "")
		must(t, err)
		h.writes(t, h.now(t, w), 0, volumetest.Pattern(make([]byte, size), uint64(4+n)))
	}
	_, err = h.Rollback(ctx, ada, w.ID, "older")
	must(t, err)
	h.work.sweep.Wait()

	for _, v := range []store.Volume{g, w} {
		if d := h.detail(t, h.now(t, v)); d.Used < 2*size || d.Used > 2*size+size/2 {
			t.Errorf("%s takes %d bytes of the %d that are kept of it", v.Name, d.Used, 2*size)
		}
	}
	s, err := NewSpaceWatch(h.Inventory, func(store.Space) {}).Space(ctx)
	must(t, err)
	if s.Used < 4*size || s.Used > 4*size+size {
		t.Errorf("volumes take %d bytes of %d", s.Used, 4*size)
	}
}

// A clone that is to be volatile from its next boot on has, until then, layers that
// wait for the disk, whatever is put upon them.
func TestASnapshotMakesNothingVolatile(t *testing.T) {
	on := true
	dir := t.TempDir()
	h := living(t, dir)
	v, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: h.golden(t, "debian").ID, Name: "lab-1", Reset: true})
	must(t, err)
	v, err = h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Volatile: &on})
	must(t, err)
	v, err = h.SnapshotVolume(t.Context(), ada, v.ID, "kept", "")
	must(t, err)
	if v.TopLayer().Volatile || !v.Volatile {
		t.Errorf("%+v", v)
	}
	h.mapped(t, h.machine(t, "lab-01", "00:07:e9:00:00:01"), v)
	v, err = h.boots(t, v, "lab-01")
	must(t, err)
	if !v.TopLayer().Volatile {
		t.Errorf("it began anew with %+v", v.TopLayer())
	}
}

// A volatile clone is given to nobody after a crash of the host, before its
// machine's next boot has let it begin anew.
func TestAVolatileCloneBeginsAnewAfterACrashOfTheHost(t *testing.T) {
	dir := t.TempDir()
	h := living(t, dir)
	g := h.golden(t, "debian")
	_, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: g.ID, Name: "lab-1", Volatile: true})
	if store.KindOf(err) != store.KindInvalid {
		t.Errorf("volatile, and kept: %v", err)
	}
	v, err := h.CloneVolume(t.Context(), ada, store.CloneSpec{Parent: g.ID, Name: "lab-1", Reset: true, Volatile: true})
	must(t, err)
	b := volumetest.Pattern(make([]byte, 64<<10), 1)
	h.writes(t, v, 0, b)
	h.wantRefusal(t, store.KindConflict, []string{"lab-1", "--no-volatile"}, func() error { _, err := h.SnapshotVolume(t.Context(), ada, v.ID, "kept", ""); return err })
	h.wantRefusal(t, store.KindConflict, []string{"lab-1", "--no-volatile"}, func() error { _, err := h.FreezeVolume(t.Context(), ada, v.ID, ""); return err })
	off := false
	h.wantRefusal(t, store.KindConflict, []string{"lab-1"}, func() error {
		_, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Reset: &off, Volatile: &off})
		return err
	})
	h.stop() // in order
	h = living(t, dir)
	must(t, h.Recover(t.Context()))
	h.holds(t, v, b)
	handle := h.opened(t, v)
	mark := filepath.Join(dir, "volumes", v.TopLayer().Path+".running")
	crashed, err := os.ReadFile(mark)
	must(t, err)
	must(t, handle.Close())
	h.stop()
	settled, err := os.ReadFile(mark)
	must(t, err)
	if len(settled) != len(crashed) || bytes.Equal(settled, crashed) {
		t.Errorf("after a stop in order the mark says %q", settled)
	}
	// As a crash leaves it, of a boot that was another one.
	crashed[0] ^= 1
	must(t, os.WriteFile(mark, crashed, 0o600))
	h = living(t, dir)
	must(t, h.Recover(t.Context()))
	if _, err := h.pool.Open(t.Context(), h.now(t, v)); store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "is volatile") {
		t.Errorf("what nobody knows of is handed out: %v", err)
	}
	v, err = h.boots(t, v, "lab-1")
	must(t, err)
	h.holds(t, v, make([]byte, 64<<10))
	h.work.sweep.Wait() // files go behind the answer
	if _, err := os.Stat(mark); err == nil {
		t.Error("the mark of the layer that is gone stays")
	}
	// From its next boot on it waits for the disk.
	v, err = h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Volatile: &off})
	must(t, err)
	if !v.TopLayer().Volatile {
		t.Error("the present layer is changed by a word")
	}
	v, err = h.boots(t, v, "lab-1")
	must(t, err)
	if v.TopLayer().Volatile {
		t.Errorf("%+v", v.TopLayer())
	}
	v, err = h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{Reset: &off})
	must(t, err)
	_, err = h.SnapshotVolume(t.Context(), ada, v.ID, "kept", "")
	must(t, err)
}
