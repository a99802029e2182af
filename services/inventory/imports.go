package inventory

import (
	"context"
	"errors"
	"time"

	"lunboot/services"
	"lunboot/store"
)

const (
	jobImport = "volume.import"
	// progressEvery bounds how often a job's progress is written.
	progressEvery = time.Second
)

// sized gives the volume the source's size, up to a whole block.
func sized(spec store.VolumeSpec, size int64) (store.VolumeSpec, error) {
	if spec.BlockSize == 0 {
		spec.BlockSize = 512
	}
	b := int64(spec.BlockSize)
	if b <= 0 || size > store.MaxVolumeSize {
		return spec, store.Invalid("size", "a source of %s cannot be imported", store.Bytes(size))
	}
	whole := (size + b - 1) / b * b
	if spec.Size != 0 && spec.Size != whole {
		return spec, store.Invalid("size", "an imported volume has its source's size, %d bytes; grow it afterwards", whole)
	}
	spec.Size = whole
	return spec, nil
}

// ImportFile makes a volume of an image that lies on the appliance. What cannot
// work is refused at once; then a job copies, and the volume is ready, or failed
// with the reason, when it ends. A size that is not whole blocks is rounded up
// with zeros.
func (i *Inventory) ImportFile(ctx context.Context, by store.Actor, spec store.ImportSpec, path string) (store.Volume, store.Job, error) {
	if err := i.jobs.room(); err != nil {
		return store.Volume{}, store.Job{}, err
	}
	inside := i.images
	if spec.Anywhere {
		inside = nil
	}
	file, err := i.volumes.OpenSource(path, inside)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	src, err := openSource(path, file, file.Size, spec.Format, spec.SHA256)
	var v store.Volume
	var job store.Job
	if err == nil {
		v, job, err = i.begin(ctx, by, spec.VolumeSpec, src)
	}
	if err != nil {
		file.Close()
		return store.Volume{}, store.Job{}, err
	}
	work, r := i.jobs.start(context.WithoutCancel(ctx), job.ID)
	go func() {
		defer i.jobs.finish(job.ID)
		defer file.Close()
		i.importFile(work, r, v, job, src)
	}()
	return v, job, nil
}

// begin writes the rows of an import: the volume that is being made, and the
// job that makes it.
func (i *Inventory) begin(ctx context.Context, by store.Actor, spec store.VolumeSpec, src *source) (store.Volume, store.Job, error) {
	if spec.BlockSize == 0 {
		spec.BlockSize = src.blockSize()
	}
	size, known := src.bytes()
	if !known && spec.Size != 0 {
		return store.Volume{}, store.Job{}, store.Invalid("size", "an imported volume has its source's size; grow it afterwards")
	}
	spec, err := sized(spec, size)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	v, err := newVolume(spec, store.VolumeImporting)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	v.From = src.from
	i.acts.Lock()
	defer i.acts.Unlock()
	if v, err = i.db.CreateVolume(ctx, by, v); err != nil {
		return store.Volume{}, store.Job{}, err
	}
	ctx = context.WithoutCancel(ctx)
	job, err := i.db.CreateJob(ctx, store.Job{Kind: jobImport, Subject: v.Name, State: store.JobRunning, Total: src.size, Started: i.now()})
	if err != nil {
		return store.Volume{}, store.Job{}, i.undo(ctx, v, err)
	}
	return v, job, nil
}

// importFile copies and settles the volume's fate. A failed one stays as a row
// that says why; one that the operator canceled goes.
func (i *Inventory) importFile(ctx context.Context, r *running, v store.Volume, job store.Job, src *source) {
	v, job, err := i.copy(ctx, v, job, func(progress func(done, total int64)) (store.Volume, error) {
		return i.fill(ctx, v, src, progress)
	})
	// What follows must reach the database even though the job was ended.
	settle := context.WithoutCancel(ctx)
	if err == nil {
		i.endJob(settle, job)
		return
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	job, err = i.failed(ctx, r, job, err)
	if job.State == store.JobCanceled {
		if err := i.drop(settle, i.jobs.canceler(r), v); err != nil {
			i.log.Error("a canceled import stays until the next start", "volume", v.Name, "err", err)
		}
	} else {
		v.State, v.Progress, v.Reason = store.VolumeFailed, 0, sentence(err)
		if _, err := i.db.UpdateVolume(settle, store.ActorSystem, v); err != nil {
			i.log.Error("a failed import is still marked as running; the next start mends it", "volume", v.Name, "err", err)
		}
		i.log.Warn("import failed", "volume", v.Name, "from", v.From, "err", err)
	}
	i.endJob(settle, job)
}

// failed says in a job why it ended early, and returns the error that tells it
// to who waits.
func (i *Inventory) failed(ctx context.Context, r *running, job store.Job, err error) (store.Job, error) {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCanceled):
		job.State, job.Error = store.JobCanceled, "canceled by "+string(i.jobs.canceler(r))
		return job, &store.Error{Kind: store.KindUnavailable, Op: "import", Subject: job.Subject, Msg: job.Error}
	case errors.Is(cause, errStopping):
		err = &store.Error{Kind: store.KindUnavailable, Msg: stoppedReason}
	}
	job.State, job.Error = store.JobFailed, sentence(err)
	return job, err
}

const stoppedReason = "lunboot was stopped during the import; remove the volume and import it again"

// drop removes an import's row; another mapping may have been made meanwhile,
// which goes with the volume that never was.
func (i *Inventory) drop(ctx context.Context, by store.Actor, v store.Volume) error {
	mappings, err := i.db.MappingsOfVolume(ctx, v.ID)
	if err != nil {
		return err
	}
	for _, m := range mappings {
		if err := i.db.DeleteMapping(ctx, by, m.Machine, m.LUN); err != nil {
			return err
		}
	}
	return i.db.DeleteVolume(ctx, by, v.ID)
}

func (i *Inventory) endJob(ctx context.Context, job store.Job) {
	job.Finished = i.now()
	if err := i.db.UpdateJob(ctx, job); err != nil {
		i.log.Error("the end of a job could not be written", "job", job.ID, "state", job.State, "err", err)
	}
}

// copy lets fill make the volume's file, which returns what the volume is then,
// and makes the volume ready; the end of the job is the caller's to write. It
// returns the rows as they are in the database, which its progress changed.
func (i *Inventory) copy(ctx context.Context, v store.Volume, job store.Job, fill func(progress func(done, total int64)) (store.Volume, error)) (store.Volume, store.Job, error) {
	if err := i.jobs.acquire(ctx); err != nil {
		return v, job, err
	}
	defer i.jobs.release()
	var told time.Time
	progress := func(done, total int64) {
		job.Done, job.Total = done, total
		if now := i.now(); now.Sub(told) >= progressEvery {
			told = now
			i.tellProgress(ctx, &v, job)
		}
	}
	var filled store.Volume
	err := services.Guard(i.log, "import of volume "+v.Name, func() (err error) {
		filled, err = fill(progress)
		return err
	})
	if err != nil {
		return v, job, err
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	settle := context.WithoutCancel(ctx)
	done := v
	done.From, done.Size = filled.From, filled.Size
	if done, err = i.ready(settle, done); err != nil {
		return v, job, i.unfill(settle, v, err)
	}
	job.State = store.JobDone
	return done, job, nil
}

func (i *Inventory) tellProgress(ctx context.Context, v *store.Volume, job store.Job) {
	next := *v
	next.Progress = int(min(99, job.Done*100/max(job.Total, 1)))
	var err error
	if next.Progress != v.Progress {
		if next, err = i.db.UpdateVolume(ctx, store.ActorSystem, next); err == nil {
			*v = next
		}
	}
	if err := errors.Join(err, i.db.UpdateJob(ctx, job)); err != nil && ctx.Err() == nil {
		i.log.Warn("the progress of an import could not be written", "volume", v.Name, "err", err)
	}
}
