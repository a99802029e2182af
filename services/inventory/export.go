package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"lunboot/store"
	"lunboot/store/volume"
	"lunboot/store/volume/image"
)

const (
	jobExport = "volume.export"
	// scratchRoom is what a copy, or a file that is made on the way, leaves to
	// machines.
	scratchRoom = 256 << 20
)

// ExportVolume opens a volume to be sent as a file, as it is at this moment: while
// a machine writes to it, as after a power cut. A job tells how far it is.
func (i *Inventory) ExportVolume(ctx context.Context, id store.VolumeID, spec store.ExportSpec) (store.Export, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := i.jobs.room(); err != nil {
		return nil, err
	}
	x, err := i.openExport(ctx, id, spec)
	if err != nil {
		return nil, err
	}
	// A view waits for a flush, and the plan is made of the whole disk, which takes
	// its time on a large one: no other act waits for either.
	if err = x.view(ctx); err != nil {
		x.end(err)
		return nil, err
	}
	if spec.Format == "qcow2" {
		x.length = -1
		if !spec.Compress {
			if x.plan, err = image.PlanQcow2(ctx, x.disk); err != nil {
				x.end(err)
				return nil, err
			}
			x.length = x.plan.Length()
		}
	}
	return x, nil
}

// openExport keeps other acts from a volume that goes out.
func (i *Inventory) openExport(ctx context.Context, id store.VolumeID, spec store.ExportSpec) (*export, error) {
	i.acts.Lock()
	defer i.acts.Unlock()
	v, err := i.db.Volume(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := i.usableFor(v, true); err != nil {
		return nil, err
	}
	settle := context.WithoutCancel(ctx)
	job, err := i.db.CreateJob(settle, store.Job{Kind: jobExport, Subject: v.Name, State: store.JobRunning, Total: v.Size, Started: i.now()})
	if err != nil {
		return nil, err
	}
	x := &export{i: i, v: v, spec: spec, job: job, length: v.Size, release: func() {}}
	if !v.Golden { // which nobody will ever write
		x.release = i.work.occupy(v.ID, claim{why: fmt.Sprintf("being exported by job %d", job.ID), reads: true})
	}
	x.ctx, x.run = i.jobs.start(settle, job.ID)
	return x, nil
}

// view takes the view that is sent. What a machine wants wiped is not to be in any
// copy: a wipe that begins before the view is there has its row by then, and a later
// one ends the view.
func (x *export) view(ctx context.Context) (err error) {
	// Of a volume whose flush has failed this may be the last copy of what it holds.
	if x.disk, err = x.i.volumes.Remains(x.ctx, x.v); err != nil {
		return err
	}
	wipe, err := x.i.db.Wipe(ctx, x.v.ID)
	if err == nil && wipe != nil {
		err = store.InUse("a machine is wiping volume %s, or has not done so to the end, and what it held is not copied; wait for the end of the wipe, or wipe it again", x.v.Name)
	}
	return err
}

// export is one that is under way.
type export struct {
	i       *Inventory
	v       store.Volume
	spec    store.ExportSpec
	disk    *volume.View
	plan    *image.Qcow2Plan
	length  int64
	ctx     context.Context // ends with the job
	run     *running
	release func()
	once    sync.Once

	job   store.Job
	told  time.Time
	whole bool // all of it was sent
}

// Name is what the file may be called.
func (x *export) Name() string { return x.v.Name + "." + x.spec.Format }

// Length is the file's size, -1 when only its end tells.
func (x *export) Length() int64 { return x.length }

// Part is a raw volume at random access.
func (x *export) Part() io.ReadSeeker {
	if x.spec.Format != "raw" {
		return nil
	}
	return &watched{SectionReader: io.NewSectionReader(x.disk, 0, x.disk.Size()), x: x}
}

// watched tells the job how far it is, and ends with it.
type watched struct {
	*io.SectionReader
	x *export
	n int64 // what was read, wherever: a part may be from the end
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.SectionReader.Read(p)
	w.n += int64(n)
	if bad := w.x.tell(min(w.n, w.Size()), w.Size()); bad != nil {
		return 0, bad
	}
	return n, err
}

// Send writes the whole file.
func (x *export) Send(ctx context.Context, w io.Writer) error {
	err := x.send(ctx, w)
	x.whole = err == nil
	return err
}

func (x *export) send(ctx context.Context, w io.Writer) error {
	defer context.AfterFunc(ctx, func() { x.run.cancel(context.Cause(ctx)) })()
	w = &teller{w, x}
	switch {
	case x.spec.Format == "raw":
		_, err := io.CopyBuffer(w, struct{ io.Reader }{x.Part()}, make([]byte, 1<<20))
		return err
	case x.plan != nil:
		data := x.plan.Data()
		return x.plan.Write(x.ctx, w, func(done int64) { x.progress(done, data) })
	}
	return x.compress(w)
}

// teller ends a write when the export may not go on.
type teller struct {
	w io.Writer
	x *export
}

func (t *teller) Write(p []byte) (int, error) {
	if err := t.x.look(); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}

// compress makes the file first: its tables are behind its data, and its head,
// which comes first, says where.
func (x *export) compress(w io.Writer) error {
	f, err := os.CreateTemp(x.i.scratch, "export-*.part")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // it goes with us, whatever happens
		return err
	}
	data, err := image.Data(x.ctx, x.disk)
	if err != nil {
		return err
	}
	n, err := image.WriteQcow2Compressed(x.ctx, &roomy{File: f, x: x}, x.disk, image.CompressionZlib, func(done int64) { x.progress(done, data) })
	if err != nil {
		return err
	}
	if err := x.look(); err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(f, 0, n))
	return err
}

// roomy is a file that ends with the export, and before it has filled the file
// system.
type roomy struct {
	*os.File
	x     *export
	since int64
}

func (r *roomy) WriteAt(p []byte, off int64) (int, error) {
	if err := r.x.look(); err != nil {
		return 0, err
	}
	if r.since += int64(len(p)); r.since >= 64<<20 {
		r.since = 0
		free, err := r.x.i.volumes.Free()
		if err != nil {
			return 0, err
		}
		if free < scratchRoom {
			return 0, &store.Error{Kind: store.KindUnavailable, Op: "export volume", Field: "space",
				Msg: fmt.Sprintf("only %s are free for the file that is made, and machines that run need them; make room, or export without compression", store.Bytes(free))}
		}
	}
	return r.File.WriteAt(p, off)
}

// tell writes how far it is, and says whether it may go on.
func (x *export) tell(done, total int64) error {
	x.progress(done, total)
	return x.look()
}

func (x *export) progress(done, total int64) {
	x.job.Done, x.job.Total = done, total
	if now := x.i.now(); now.Sub(x.told) >= progressEvery {
		x.told = now
		if err := x.i.db.UpdateJob(x.ctx, x.job); err != nil && x.ctx.Err() == nil {
			x.i.log.Warn("the progress of an export could not be written", "volume", x.v.Name, "err", err)
		}
	}
}

// look ends an export that was canceled, or that can be of one moment no more.
func (x *export) look() error {
	if err := x.ctx.Err(); err != nil {
		return context.Cause(x.ctx)
	}
	return x.disk.Lost()
}

// Close ends the export and its job.
func (x *export) Close(failed error) {
	if failed == nil {
		failed = x.look()
	}
	x.end(failed)
}

func (x *export) end(failed error) {
	x.once.Do(func() {
		defer x.i.jobs.finish(x.job.ID)
		if x.disk != nil {
			if err := x.disk.Close(); err != nil {
				x.i.log.Warn("a volume that was exported could not be closed", "volume", x.v.Name, "err", err)
			}
		}
		x.release()
		x.job.State = store.JobDone
		switch cause := context.Cause(x.ctx); {
		case failed == nil:
			if x.whole {
				x.job.Done = x.job.Total
			}
		case errors.Is(cause, errCanceled):
			x.job.State, x.job.Error = store.JobCanceled, "canceled by "+string(x.i.jobs.canceler(x.run))
		case errors.Is(cause, errStopping):
			x.job.State, x.job.Error = store.JobFailed, "lunboot was stopped before the job ended"
		default:
			x.job.State, x.job.Error = store.JobFailed, sentence(failed)
		}
		x.i.endJob(context.WithoutCancel(x.ctx), x.job)
	})
}
