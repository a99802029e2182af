package inventory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"lunboot/services"
	"lunboot/store"
	"lunboot/store/volume"
)

const (
	jobImport = "volume.import"
	// progressEvery bounds how often a job's progress is written.
	progressEvery = time.Second
)

// formats are the beginnings of files that are not raw bytes of a disk. None of
// them begins a boot sector.
var formats = []struct {
	magic string
	at    int
	name  string
	how   string
}{
	{"QFI\xfb", 0, "a qcow image", convert},
	{"QED\x00", 0, "a QED image", convert},
	{"KDMV", 0, "a VMDK image", convert},
	{"COWD", 0, "a VMDK image", convert},
	{"# Disk DescriptorFile", 0, "the descriptor of a VMDK image", convert},
	{"vhdxfile", 0, "a VHDX image", convert},
	{"conectix", 0, "a VHD image", convert},
	{"\x7f\x10\xda\xbe", 0x40, "a VDI image", convert},
	{"\x1f\x8b", 0, "compressed with gzip", unpack},
	{"\xfd7zXZ\x00", 0, "compressed with xz", unpack},
	{"\x28\xb5\x2f\xfd", 0, "compressed with zstd", unpack},
	{"BZh", 0, "compressed with bzip2", unpack},
	{"PK\x03\x04", 0, "a zip archive", unpack},
}

const (
	convert  = "convert it first, with: qemu-img convert -O raw"
	unpack   = "unpack it first"
	headSize = 512
)

// checkRaw refuses a source whose first bytes say that it is no raw image.
func checkRaw(name string, head []byte) error {
	for _, f := range formats {
		if len(head) >= f.at && bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return store.Invalid("source", "%s is %s, not a raw image; %s", name, f.name, f.how)
		}
	}
	return nil
}

// checkFooter refuses a fixed VHD: raw bytes with a footer behind them, which a
// machine would see as a last block of nonsense.
func checkFooter(src *volume.Source, name string) error {
	foot := make([]byte, 8)
	if src.Size < headSize {
		return nil
	}
	if _, err := src.ReadAt(foot, src.Size-headSize); err != nil {
		return err
	}
	if string(foot) == "conectix" {
		return store.Invalid("source", "%s is a VHD image, not a raw image; %s", name, convert)
	}
	return nil
}

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

// ImportFile makes a volume of a raw image that lies on the appliance. What
// cannot work is refused at once; then a job copies, and the volume is ready,
// or failed with the reason, when it ends. A size that is not whole blocks is
// rounded up with zeros.
func (i *Inventory) ImportFile(ctx context.Context, by store.Actor, spec store.VolumeSpec, path string) (store.Volume, store.Job, error) {
	if err := i.jobs.room(); err != nil {
		return store.Volume{}, store.Job{}, err
	}
	src, err := i.volumes.OpenSource(path)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	v, job, err := i.beginFile(ctx, by, spec, path, src)
	if err != nil {
		src.Close()
		return store.Volume{}, store.Job{}, err
	}
	work, r := i.jobs.start(context.WithoutCancel(ctx), job.ID)
	go func() {
		defer i.jobs.finish(job.ID)
		defer src.Close()
		i.importFile(work, r, v, job, src)
	}()
	return v, job, nil
}

func (i *Inventory) beginFile(ctx context.Context, by store.Actor, spec store.VolumeSpec, path string, src *volume.Source) (store.Volume, store.Job, error) {
	head := make([]byte, headSize)
	n, err := src.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return store.Volume{}, store.Job{}, &store.Error{Kind: store.KindInvalid, Op: "import", Subject: path, Field: "source", Err: err, Msg: "the file cannot be read"}
	}
	if err := errors.Join(checkRaw(path, head[:n]), checkFooter(src, path)); err != nil {
		return store.Volume{}, store.Job{}, err
	}
	return i.begin(ctx, by, spec, path, src.Size)
}

// begin writes the rows of an import: the volume that is being made, and the
// job that makes it.
func (i *Inventory) begin(ctx context.Context, by store.Actor, spec store.VolumeSpec, from string, size int64) (store.Volume, store.Job, error) {
	spec, err := sized(spec, size)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	v, err := newVolume(spec, store.VolumeImporting)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	v.From = from
	i.acts.Lock()
	defer i.acts.Unlock()
	if v, err = i.db.CreateVolume(ctx, by, v); err != nil {
		return store.Volume{}, store.Job{}, err
	}
	ctx = context.WithoutCancel(ctx)
	job, err := i.db.CreateJob(ctx, store.Job{Kind: jobImport, Subject: v.Name, State: store.JobRunning, Total: size, Started: i.now()})
	if err != nil {
		return store.Volume{}, store.Job{}, i.undo(ctx, v, err)
	}
	return v, job, nil
}

// importFile copies and settles the volume's fate. A failed one stays as a row
// that says why; one that the operator canceled goes.
func (i *Inventory) importFile(ctx context.Context, r *running, v store.Volume, job store.Job, src io.Reader) {
	v, job, err := i.copy(ctx, v, job, func(progress func(int64)) (string, error) {
		sum, err := i.volumes.Import(ctx, v, src, progress)
		return v.From + " sha256:" + sum, err
	})
	// What follows must reach the database even though the job was ended.
	settle := context.WithoutCancel(ctx)
	if err == nil {
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

// copy lets fill make the volume's file, which says where it is from, and makes
// the volume ready. It returns the rows as they are in the database, which its
// progress changed.
func (i *Inventory) copy(ctx context.Context, v store.Volume, job store.Job, fill func(progress func(int64)) (from string, err error)) (store.Volume, store.Job, error) {
	if err := i.jobs.acquire(ctx); err != nil {
		return v, job, err
	}
	defer i.jobs.release()
	var told time.Time
	progress := func(done int64) {
		job.Done = done
		if now := i.now(); now.Sub(told) >= progressEvery {
			told = now
			i.tellProgress(ctx, &v, job)
		}
	}
	var from string
	err := services.Guard(i.log, "import of volume "+v.Name, func() (err error) {
		from, err = fill(progress)
		return err
	})
	if err != nil {
		return v, job, err
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	settle := context.WithoutCancel(ctx)
	done := v
	done.From = from
	if done, err = i.ready(settle, done); err != nil {
		if gone := i.volumes.Remove(settle, v); gone != nil {
			i.log.Error("the file of a failed import stays until the next start", "volume", v.Name, "err", gone)
		}
		return v, job, err
	}
	job.State = store.JobDone
	i.endJob(settle, job)
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
