package inventory

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"lunboot/store"
)

func (h *house) sent(t *testing.T, v store.Volume, spec store.ExportSpec) (store.Export, []byte) {
	t.Helper()
	x, err := h.ExportVolume(t.Context(), v.ID, spec)
	must(t, err)
	var out bytes.Buffer
	err = x.Send(t.Context(), &out)
	x.Close(err)
	must(t, err)
	return x, out.Bytes()
}

func TestAnExportIsWhatOtherProgramsRead(t *testing.T) {
	h := newHouse(t)
	disk := patchy()
	v, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, "", bytes.NewReader(disk), int64(len(disk)))
	must(t, err)
	for name, spec := range map[string]store.ExportSpec{"raw": {Format: "raw"}, "qcow2": {Format: "qcow2"}, "small.qcow2": {Format: "qcow2", Compress: true}} {
		x, got := h.sent(t, v, spec)
		if x.Name() != "debian."+spec.Format || x.Length() >= 0 && x.Length() != int64(len(got)) || spec.Compress != (x.Length() < 0) {
			t.Errorf("%s: %s of %d bytes, %d were sent", name, x.Name(), x.Length(), len(got))
		}
		if spec.Format == "raw" {
			if !bytes.Equal(got, disk) {
				t.Error("raw: not the volume's bytes")
			}
			continue
		}
		if spec.Compress && len(got) > 1<<20 {
			t.Errorf("%s: it has %d bytes and is said to be packed", name, len(got))
		}
		dir := t.TempDir()
		file, back := filepath.Join(dir, name), filepath.Join(dir, "back")
		must(t, os.WriteFile(file, got, 0o600))
		program(t, "qemu-img", "check", "-f", "qcow2", file)
		program(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, back)
		b, err := os.ReadFile(back)
		must(t, err)
		if !bytes.Equal(b, disk) {
			t.Errorf("%s: qemu-img reads other bytes", name)
		}
	}
	x, err := h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "raw"})
	must(t, err)
	defer x.Close(nil)
	part := x.Part()
	_, err = part.Seek(23<<20, io.SeekStart)
	must(t, err)
	b := make([]byte, 1000)
	if _, err := io.ReadFull(part, b); err != nil || !bytes.Equal(b, disk[23<<20:23<<20+1000]) {
		t.Errorf("a part differs, %v", err)
	}
	// While a writable volume goes out, nothing else is done with it.
	wantSentence(t, h.RemoveVolume(t.Context(), ada, v.ID), store.KindInUse, "being exported")
	all, err := h.Jobs(t.Context())
	must(t, err)
	for _, j := range all[1:4] {
		if j.Kind != "volume.export" || j.State != store.JobDone || j.Done != j.Total {
			t.Errorf("the job is %+v", j)
		}
	}
	// The job of a part says how much it was, and not that all of it went out.
	x.Close(nil)
	sent, err := h.Job(t.Context(), all[0].ID)
	must(t, err)
	if sent.State != store.JobDone || sent.Done != 1000 || sent.Total != v.Size {
		t.Errorf("the job of a part is %+v", sent)
	}
}

func TestAnExportInAFormatThatIsNoneIsRefused(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "disk", 1<<20)
	h.wantRefusal(t, store.KindInvalid, []string{"vdi"}, func() error {
		_, err := h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "vdi"})
		return err
	})
}

// stalling is a receiver that cancels what it is sent.
type stalling struct {
	n    int
	then func()
}

func (s *stalling) Write(p []byte) (int, error) {
	if s.n += len(p); s.then != nil {
		s.then()
		s.then = nil
	}
	return len(p), nil
}

func TestACanceledExportEnds(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "disk", 512<<20)
	for _, spec := range []store.ExportSpec{{Format: "raw"}, {Format: "qcow2"}} {
		x, err := h.ExportVolume(t.Context(), v.ID, spec)
		must(t, err)
		all, err := h.Jobs(t.Context())
		must(t, err)
		done := make(chan error, 1)
		err = x.Send(t.Context(), &stalling{then: func() {
			go func() { done <- h.CancelJob(context.Background(), "bob", all[0].ID) }()
			<-x.(*export).ctx.Done()
		}})
		x.Close(err)
		must(t, <-done)
		job, bad := h.Job(t.Context(), all[0].ID)
		if spec.Format == "raw" && err == nil || bad != nil || err != nil && (job.State != store.JobCanceled || job.Error != "canceled by bob") {
			t.Errorf("%v: the job is %+v, %v, %v", spec, job, err, bad)
		}
	}
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
}

// A machine that works loses nothing to an export, and the file is of the moment at
// which it began.
func TestAnExportIsOfTheMomentAtWhichItBegan(t *testing.T) {
	var on live
	h := newHouse(t, func(c *Config) { c.Sessions = &on })
	m := h.machine(t, "lab-12", "00:07:e9:00:00:01")
	v := h.volume(t, "disk", 8<<20)
	h.mapped(t, m, v)
	on = live{{ID: "s7", Machine: m.ID, Initiator: m.Initiator}}
	w, err := h.pool.Open(t.Context(), v)
	must(t, err)
	defer w.Close()
	disk := make([]byte, v.Size)
	write := func(with byte, off int64) {
		must(t, w.WriteAt(t.Context(), bytes.Repeat([]byte{with}, 4096), off))
	}
	for name, spec := range map[string]store.ExportSpec{"raw": {Format: "raw"}, "qcow2": {Format: "qcow2"}, "small": {Format: "qcow2", Compress: true}} {
		write(7, 4<<20)
		must(t, w.ReadAt(t.Context(), disk, 0))
		x, err := h.ExportVolume(t.Context(), v.ID, spec)
		must(t, err)
		write(8, 4<<20)
		write(9, 0)
		var out bytes.Buffer
		err = x.Send(t.Context(), io.MultiWriter(&out, &stalling{then: func() { write(9, 6<<20) }}))
		x.Close(err)
		must(t, err)
		got := out.Bytes()
		if spec.Format == "qcow2" {
			dir := t.TempDir()
			file, back := filepath.Join(dir, name), filepath.Join(dir, "back")
			must(t, os.WriteFile(file, got, 0o600))
			program(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", file, back)
			got, err = os.ReadFile(back)
			must(t, err)
		}
		if !bytes.Equal(got, disk) {
			t.Errorf("%s: other bytes than the volume had when the export began", name)
		}
	}
}

// What can be of one moment no more does not pass for a whole file.
func TestAnExportWhoseVolumeIsWipedFails(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "disk", 8<<20)
	x, err := h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "raw"})
	must(t, err)
	err = x.Send(t.Context(), &stalling{then: func() { h.pool.GiveUp(v.ID) }})
	x.Close(err)
	if err == nil {
		t.Error("half of it passes for the whole")
	}
	all, bad := h.Jobs(t.Context())
	must(t, bad)
	if all[0].State != store.JobFailed || !strings.Contains(all[0].Error, "wiping") {
		t.Errorf("the job is %+v", all[0])
	}
}

// A wipe that had begun before ends no view that comes after it.
func TestWhatIsNotWipedToTheEndIsNotExported(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "disk", 8<<20)
	v.Sanitize = true
	v, err := h.db.UpdateVolume(t.Context(), ada, v)
	must(t, err)
	must(t, h.db.BeginWipe(t.Context(), v.ID, store.Wipe{}))
	x, err := h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "raw"})
	if x != nil {
		x.Close(nil)
	}
	if store.KindOf(err) != store.KindInUse || !strings.Contains(err.Error(), "wiping") {
		t.Fatalf("it is exported: %v", err)
	}
	all, err := h.Jobs(t.Context())
	must(t, err)
	if all[0].State != store.JobFailed || !strings.Contains(all[0].Error, "wiping") {
		t.Errorf("the job is %+v", all[0])
	}
	must(t, h.db.EndWipe(t.Context(), v.ID, store.UUID{}))
	x, err = h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "raw"})
	must(t, err)
	x.Close(x.Send(t.Context(), io.Discard))
}

func TestAReadOnlyVolumeStaysSoWhileItIsExported(t *testing.T) {
	h := newHouse(t)
	v := h.volume(t, "disk", 1<<20)
	yes, no := true, false
	v, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{ReadOnly: &yes})
	must(t, err)
	x, err := h.ExportVolume(t.Context(), v.ID, store.ExportSpec{Format: "raw"})
	must(t, err)
	writable := func() error {
		_, err := h.SetVolume(t.Context(), ada, v.ID, store.VolumePatch{ReadOnly: &no})
		return err
	}
	h.wantRefusal(t, store.KindInUse, []string{"disk", "being exported"}, writable)
	// Others may fetch it as well, and the first that ends lets go of its own alone.
	h.sent(t, v, store.ExportSpec{Format: "qcow2"})
	h.wantRefusal(t, store.KindInUse, []string{"disk", "being exported"}, writable)
	x.Close(nil)
	must(t, writable())
}

// asking is a context that calls ask whenever somebody looks whether it ended.
type asking struct {
	context.Context
	ask func()
}

func (a asking) Err() error { a.ask(); return a.Context.Err() }

func TestOtherActsDoNotWaitForThePlanOfAnExport(t *testing.T) {
	h := newHouse(t)
	disk := patchy()
	v, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, "", bytes.NewReader(disk), int64(len(disk)))
	must(t, err)
	var free atomic.Int32 // the database's driver looks too
	x, err := h.ExportVolume(asking{t.Context(), func() {
		if h.acts.TryLock() {
			h.acts.Unlock()
			free.Add(1)
		}
	}}, v.ID, store.ExportSpec{Format: "qcow2"})
	must(t, err)
	x.Close(nil)
	if free.Load() == 0 {
		t.Error("while the plan was made no other act could begin")
	}
}
