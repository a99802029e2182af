package inventory

import (
	"context"
	"errors"
	"io"

	"lunboot/store"
	"lunboot/store/volume/image"
	"lunboot/store/volume/stage"
)

// Shelf keeps what is being sent until it is whole: a stage.Shelf.
type Shelf interface {
	Create(u store.Upload, room int64) (store.Upload, error)
	List() []store.Upload
	Get(id string) (store.Upload, error)
	Append(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error)
	Cut(ctx context.Context, id string) (store.Upload, error)
	Take(ctx context.Context, id string) (*stage.Image, error)
	Remove(ctx context.Context, id string) error
}

// BeginUpload announces an image that will be sent. What cannot become a volume
// is refused now, before gigabytes travel: a name that is taken, and an image
// larger than the room there is.
func (i *Inventory) BeginUpload(ctx context.Context, by store.Actor, u store.Upload) (store.Upload, error) {
	if err := i.jobs.room(); err != nil {
		return store.Upload{}, err
	}
	if _, err := i.db.VolumeByName(ctx, u.Name); err == nil {
		return store.Upload{}, store.Conflict("name", "volume %s exists already; choose another name", u.Name)
	} else if !store.IsNotFound(err) {
		return store.Upload{}, err
	}
	free, err := i.volumes.Free()
	if err != nil {
		return store.Upload{}, err
	}
	u.By = by
	return i.shelf.Create(u, free)
}

// Uploads lists the images that are on their way, or wait to be finished.
func (i *Inventory) Uploads() []store.Upload { return i.shelf.List() }

// Upload returns one of them: its Offset is where its sender goes on.
func (i *Inventory) Upload(id string) (store.Upload, error) { return i.shelf.Get(id) }

// AppendUpload takes bytes from off on, which is the present offset. What
// arrived before r failed stays.
func (i *Inventory) AppendUpload(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error) {
	return i.shelf.Append(ctx, id, off, r)
}

// RemoveUpload drops an image that was to be sent, with what arrived of it.
func (i *Inventory) RemoveUpload(ctx context.Context, id string) error {
	return i.shelf.Remove(ctx, id)
}

// FinishUpload makes a volume of a whole upload, in a job. A broken image leaves
// nothing; one that found no room is kept, and can be finished again.
func (i *Inventory) FinishUpload(ctx context.Context, by store.Actor, id string) (store.Volume, store.Job, error) {
	v, job, _, err := i.finishUpload(ctx, by, id)
	return v, job, err
}

func (i *Inventory) finishUpload(ctx context.Context, by store.Actor, id string) (store.Volume, store.Job, *running, error) {
	if err := i.jobs.room(); err != nil {
		return store.Volume{}, store.Job{}, nil, err
	}
	img, err := i.shelf.Take(ctx, id)
	if err != nil {
		return store.Volume{}, store.Job{}, nil, err
	}
	v, job, src, err := i.beginUpload(ctx, by, img)
	if err != nil {
		img.Done(keepable(err), sentence(err))
		return store.Volume{}, store.Job{}, nil, err
	}
	work, r := i.jobs.start(context.WithoutCancel(ctx), job.ID)
	go func() {
		defer i.jobs.finish(job.ID)
		i.importUpload(work, r, v, job, img, src)
	}()
	return v, job, r, nil
}

func (i *Inventory) beginUpload(ctx context.Context, by store.Actor, img *stage.Image) (store.Volume, store.Job, *source, error) {
	from := "an upload"
	if img.Upload.File != "" {
		from = "upload " + img.Upload.File
	}
	src, err := openSource(from, img.File, img.Size, img.Format, "")
	if err != nil {
		return store.Volume{}, store.Job{}, nil, err
	}
	src.sum = img.SHA256
	v, job, err := i.begin(ctx, by, store.VolumeSpec{Name: img.Name, BlockSize: img.BlockSize, ReadOnly: img.ReadOnly, Shared: img.Shared}, src)
	return v, job, src, err
}

// keepable reports whether the same bytes can become a volume later.
func keepable(err error) bool {
	switch store.KindOf(err) {
	case store.KindUnavailable, store.KindConflict, store.KindInUse:
		return true
	}
	return false
}

// importUpload makes the volume and settles what becomes of the upload.
func (i *Inventory) importUpload(ctx context.Context, r *running, v store.Volume, job store.Job, img *stage.Image, src *source) {
	v, job, err := i.copy(ctx, v, job, func(progress func(done, total int64)) (store.Volume, error) {
		return i.adopt(ctx, v, img, src, progress)
	})
	settle := context.WithoutCancel(ctx)
	if err == nil {
		img.Done(false, "")
		i.endJob(settle, job)
		return
	}
	i.acts.Lock()
	defer i.acts.Unlock()
	job, r.err = i.failed(ctx, r, job, err)
	keep := keepable(err) && !errors.Is(context.Cause(ctx), errCanceled)
	if errors.Is(context.Cause(ctx), errStopping) {
		keep = true
	}
	img.Done(keep, job.Error)
	if gone := i.drop(settle, store.ActorSystem, v); gone != nil {
		i.log.Error("a failed upload stays until the next start", "volume", v.Name, "err", gone)
	}
	i.log.Warn("an upload could not be made a volume", "volume", v.Name, "from", v.From, "kept", keep, "err", err)
	i.endJob(settle, job)
}

// adopt makes the file that arrived the volume's when it is that already; it is
// copied where it lies on another file system, or is no raw disk.
func (i *Inventory) adopt(ctx context.Context, v store.Volume, img *stage.Image, src *source, progress func(done, total int64)) (store.Volume, error) {
	if src.format != image.FormatRaw {
		return i.fill(ctx, v, src, progress)
	}
	err := i.volumes.Adopt(ctx, v, img.Path)
	if errors.Is(err, errors.ErrUnsupported) {
		return i.fill(ctx, v, src, progress)
	}
	if err == nil {
		progress(img.Size, img.Size)
		v.From = src.said(img.SHA256)
	}
	return v, err
}

// ImportStream makes a volume of an image that comes in one piece, size bytes
// long. It returns when the volume is ready; a failure leaves nothing behind.
// How slow the sender is keeps nobody else waiting.
func (i *Inventory) ImportStream(ctx context.Context, by store.Actor, spec store.ImportSpec, file string, r io.Reader, size int64) (store.Volume, error) {
	if size <= 0 {
		return store.Volume{}, store.Invalid("source", "the upload is empty, or its length was not announced")
	}
	u, err := i.receive(ctx, by, spec, file, r, size)
	if err != nil {
		return store.Volume{}, err
	}
	defer i.forget(ctx, u)
	if !u.Whole() {
		return store.Volume{}, store.Invalid("source", "the source ended after %d bytes, %d were announced", u.Offset, u.Size)
	}
	v, job, run, err := i.finishUpload(ctx, by, u.ID)
	if err != nil {
		return store.Volume{}, err
	}
	if _, err := i.Wait(ctx, job.ID); err != nil {
		return store.Volume{}, err
	}
	if run.err != nil {
		return store.Volume{}, run.err
	}
	return i.db.Volume(ctx, v.ID)
}

// ImportForm makes a volume of an image that comes in one piece of at most so
// many bytes: it ends where r does. It returns when all of it has arrived; a job
// does the rest.
func (i *Inventory) ImportForm(ctx context.Context, by store.Actor, spec store.ImportSpec, file string, r io.Reader, most int64) (store.Volume, store.Job, error) {
	u, err := i.receive(ctx, by, spec, file, r, most)
	if err != nil {
		return store.Volume{}, store.Job{}, err
	}
	var v store.Volume
	var job store.Job
	if _, err = i.shelf.Cut(ctx, u.ID); err == nil {
		v, job, _, err = i.finishUpload(ctx, by, u.ID)
	}
	if err != nil {
		i.forget(ctx, u)
	}
	return v, job, err
}

// receive takes an image in one piece. One that breaks off is forgotten: whoever
// sends in one piece does not go on where it broke.
func (i *Inventory) receive(ctx context.Context, by store.Actor, spec store.ImportSpec, file string, r io.Reader, size int64) (store.Upload, error) {
	u, err := i.BeginUpload(ctx, by, store.Upload{Name: spec.Name, File: file, Size: size, SHA256: spec.SHA256, Format: spec.Format, BlockSize: spec.BlockSize, ReadOnly: spec.ReadOnly, Shared: spec.Shared})
	if err != nil {
		return u, err
	}
	got, err := i.shelf.Append(ctx, u.ID, 0, r)
	if err != nil {
		i.forget(ctx, u)
	}
	return got, err
}

func (i *Inventory) forget(ctx context.Context, u store.Upload) {
	if err := i.shelf.Remove(context.WithoutCancel(ctx), u.ID); err != nil && !store.IsNotFound(err) && store.KindOf(err) != store.KindInUse {
		i.log.Warn("an upload stays until it is too old", "upload", u.ID, "err", err)
	}
}
