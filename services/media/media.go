// Package media is the operator's acts on media, and what machines fetch of
// them: discs, kernels and other files that are kept on the appliance.
//
// It joins the rows of the inventory and the files of the folder in an order
// that a power cut cannot turn into a lie: a file is on disk before its row is,
// and goes after it. What is left over is swept at the next start.
package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"lunboot/store"
	"lunboot/store/media"
	"lunboot/store/volume"
	"lunboot/store/volume/stage"
)

// Rows keeps what is known of media.
type Rows interface {
	AllMedia(context.Context) ([]store.Media, error)
	Media(ctx context.Context, name string) (store.Media, error)
	CreateMedia(context.Context, store.Actor, store.Media) (store.Media, error)
	DeleteMedia(ctx context.Context, by store.Actor, name string) error
}

// Jobs carries out work behind the answer.
type Jobs interface {
	// RunJob calls run, which tells how far it is, and ended at the end, whatever
	// it was; neither when it fails.
	RunJob(ctx context.Context, kind, subject string, total int64, run func(ctx context.Context, progress func(done, total int64)) error, ended func()) (store.Job, error)
}

// Config is what a Library stands on.
type Config struct {
	Rows   Rows
	Jobs   Jobs
	Folder *media.Folder
	Shelf  *stage.Shelf // of what is being sent
	Log    *slog.Logger
	Images []string // folders from which everybody who may add media by a path may
	Data   string   // the appliance's own folder: of what lies in it, Images alone is for machines
}

// Library is every media file, and an fs.FS of them: what is called NAME is the
// file itself, and NAME/PATH lies inside the disc NAME.
type Library struct {
	Config
	// acts makes a row and its file one step: files may be shared by rows.
	acts sync.Mutex

	mu     sync.Mutex
	coming map[string]bool // names of files that jobs copy
}

// New opens the library and removes the files that no row speaks of.
func New(ctx context.Context, cfg Config) (*Library, error) {
	rows, err := cfg.Rows.AllMedia(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the media: %w", err)
	}
	gone, err := cfg.Folder.Sweep(rows)
	if err != nil {
		return nil, err
	}
	for _, name := range gone {
		cfg.Log.Info("removed what was left of a media file", "file", name)
	}
	return &Library{Config: cfg, coming: map[string]bool{}}, nil
}

// AllMedia lists the media, by name.
func (l *Library) AllMedia(ctx context.Context) ([]store.Media, error) { return l.Rows.AllMedia(ctx) }

// Media returns one of them.
func (l *Library) Media(ctx context.Context, name string) (store.Media, error) {
	return l.Rows.Media(ctx, name)
}

// free refuses a name that is taken or no name, before gigabytes travel. An
// empty one is made of the file's.
func (l *Library) free(ctx context.Context, name, file string) (string, error) {
	if name == "" {
		name = store.MediaName(file)
	}
	if err := store.ValidateMediaName(name); err != nil {
		return "", err
	}
	if _, err := l.Rows.Media(ctx, name); err == nil {
		return "", store.Conflict("name", "media %s exists already; remove it first, or choose another name", name)
	} else if !store.IsNotFound(err) {
		return "", err
	}
	return name, nil
}

// jobAdd is the kind of job that copies a file of the appliance.
const jobAdd = "media.add"

// AddMedia copies a file that lies on the appliance: in a folder for images, or
// anywhere for who could read it there as well. What cannot work is refused at
// once; then a job copies, and the media file is there when it has ended well. One
// that fails or is canceled leaves nothing behind.
func (l *Library) AddMedia(ctx context.Context, by store.Actor, name, path string, anywhere bool) (store.Job, error) {
	name, err := l.free(ctx, name, path)
	if err != nil {
		return store.Job{}, err
	}
	f, size, err := l.openSource(path, anywhere)
	if err != nil {
		return store.Job{}, err
	}
	job, err := l.copy(ctx, by, store.Media{Name: name, File: filepath.Base(path)}, f, size)
	if err != nil {
		return store.Job{}, errors.Join(err, f.Close())
	}
	return job, nil
}

// copy begins the job that copies an open file, and closes it at its end.
func (l *Library) copy(ctx context.Context, by store.Actor, m store.Media, f *os.File, size int64) (store.Job, error) {
	room, err := l.Folder.Free()
	if err != nil {
		return store.Job{}, err
	}
	if size > room {
		return store.Job{}, &store.Error{Kind: store.KindUnavailable, Op: "add media", Subject: m.Name, Field: "space",
			Msg: fmt.Sprintf("%s has %s, and %s are free for it; make room and try again", m.File, store.Bytes(size), store.Bytes(room))}
	}
	release, err := l.claim(m.Name)
	if err != nil {
		return store.Job{}, err
	}
	job, err := l.Jobs.RunJob(ctx, jobAdd, m.Name, size, func(ctx context.Context, progress func(done, total int64)) error {
		_, err := l.take(ctx, by, m, &teller{Reader: f, tell: func(n int64) { progress(n, size) }}, size)
		return err
	}, func() {
		if err := f.Close(); err != nil {
			l.Log.Warn("a file that was copied could not be closed", "file", m.File, "err", err)
		}
		release()
	})
	if err != nil {
		release()
	}
	return job, err
}

// claim keeps a name for a file that is being copied.
func (l *Library) claim(name string) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.coming[name] {
		return nil, store.Conflict("name", "media %s is being added by a job already; wait for it, or choose another name", name)
	}
	l.coming[name] = true
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.coming, name)
	}, nil
}

// teller says how much of a file has been read.
type teller struct {
	io.Reader
	n    int64
	tell func(n int64)
}

// Read is the file's.
func (t *teller) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	t.tell(t.n)
	return n, err
}

// take copies a file of size bytes, any number when that is negative, and keeps
// it. How slow its source is keeps nobody else waiting.
func (l *Library) take(ctx context.Context, by store.Actor, m store.Media, r io.Reader, size int64) (store.Media, error) {
	tmp, sum, n, err := l.Folder.Copy(ctx, r)
	if err != nil {
		return store.Media{}, err
	}
	switch {
	case n == 0:
		err = store.Invalid("file", "the file is empty")
	case size >= 0 && n != size:
		err = store.Invalid("file", "the file ended after %d bytes, %d were announced", n, size)
	}
	if err != nil {
		return store.Media{}, errors.Join(err, os.Remove(tmp))
	}
	m.Size, m.SHA256 = n, sum
	l.acts.Lock()
	defer l.acts.Unlock()
	if err := l.Folder.Adopt(tmp, sum); err != nil {
		return store.Media{}, errors.Join(err, os.Remove(tmp))
	}
	return l.keep(ctx, by, m)
}

// openSource opens a plain file. What machines fetch is for everybody, and the
// appliance's own folder is full of secrets.
func (l *Library) openSource(path string, anywhere bool) (*os.File, int64, error) {
	inside := append([]string{}, l.Images...)
	if anywhere {
		inside = nil
	}
	f, err := volume.OpenInside(path, inside)
	var known *store.Error
	if errors.As(err, &known) {
		return nil, 0, store.Invalid("path", "%s", known.Msg)
	}
	if err != nil {
		return nil, 0, &store.Error{Kind: store.KindInvalid, Op: "add media", Subject: path, Field: "path", Err: err, Msg: "the file cannot be opened by the appliance"}
	}
	own, err := l.own(f)
	if err == nil && own {
		err = store.Invalid("path", "%s belongs to the appliance itself, and machines would fetch it; copy what is meant for them into a folder for images", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = store.Invalid("path", "%s is not a file", path)
	case st.Size() == 0:
		err = store.Invalid("path", "%s is empty", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// own reports whether an open file lies in the appliance's folder, and in no
// folder for images there.
func (l *Library) own(f *os.File) (bool, error) {
	if l.Data == "" {
		return false, nil
	}
	// The kernel's word is where the links lead that the path went through.
	at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return false, fmt.Errorf("look where the file lies: %w", err)
	}
	data, err := realPath(l.Data)
	if err != nil {
		return false, fmt.Errorf("look up the data folder: %w", err)
	}
	if !below(at, data) {
		return false, nil
	}
	for _, dir := range l.Images {
		if dir, err := realPath(dir); err == nil && below(dir, data) && below(at, dir) {
			return false, nil
		}
	}
	return true, nil
}

// realPath is the full path of a folder, without links.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// below reports whether a path lies in a folder; both are clean.
func below(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// keep writes the row of a file that lies in the folder; acts is held.
func (l *Library) keep(ctx context.Context, by store.Actor, m store.Media) (store.Media, error) {
	f, err := l.Folder.Open(m.SHA256)
	if err == nil {
		m.Kind, m.Contents = media.Detect(f, m.Size)
		err = f.Close()
	}
	if err == nil {
		m, err = l.Rows.CreateMedia(ctx, by, m)
	}
	if err != nil {
		l.drop(context.WithoutCancel(ctx), m.SHA256)
		return store.Media{}, err
	}
	return m, nil
}

// drop removes a file that no row speaks of any more; acts is held. What stays
// is swept at the next start.
func (l *Library) drop(ctx context.Context, sum string) {
	rows, err := l.Rows.AllMedia(ctx)
	for _, m := range rows {
		if m.SHA256 == sum {
			return
		}
	}
	if err == nil {
		err = l.Folder.Remove(sum)
	}
	if err != nil {
		l.Log.Warn("the bytes of a media file stay until the next start", "file", sum, "err", err)
	}
}

// RemoveMedia removes a media file that no profile names. Machines that fetch it
// now get the rest of it.
func (l *Library) RemoveMedia(ctx context.Context, by store.Actor, name string) error {
	l.acts.Lock()
	defer l.acts.Unlock()
	m, err := l.Rows.Media(ctx, name)
	if err != nil {
		return err
	}
	if err := l.Rows.DeleteMedia(ctx, by, name); err != nil {
		return err
	}
	l.drop(context.WithoutCancel(ctx), m.SHA256)
	return nil
}

// BeginMediaUpload announces a file that will be sent. What cannot be kept is
// refused now.
func (l *Library) BeginMediaUpload(ctx context.Context, by store.Actor, u store.Upload) (store.Upload, error) {
	var err error
	if u.Name, err = l.free(ctx, strings.ToLower(u.Name), u.File); err != nil {
		return store.Upload{}, err
	}
	if u.Size > store.MaxMediaSize {
		return store.Upload{}, store.Invalid("size", "a media file has at most %s", store.Bytes(store.MaxMediaSize))
	}
	room, err := l.Folder.Free()
	if err != nil {
		return store.Upload{}, err
	}
	u.By = by
	return l.Shelf.Create(u, room)
}

// MediaUploads lists the files that are on their way.
func (l *Library) MediaUploads() []store.Upload { return l.Shelf.List() }

// MediaUpload returns one of them: its Offset is where its sender goes on.
func (l *Library) MediaUpload(id string) (store.Upload, error) { return l.Shelf.Get(id) }

// AppendMediaUpload takes bytes from off on, which is the present offset. What
// arrived before r failed stays.
func (l *Library) AppendMediaUpload(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error) {
	return l.Shelf.Append(ctx, id, off, r)
}

// RemoveMediaUpload drops a file that was to be sent, with what arrived of it.
func (l *Library) RemoveMediaUpload(ctx context.Context, id string) error {
	return l.Shelf.Remove(ctx, id)
}

// FinishMediaUpload keeps a file that has arrived whole.
func (l *Library) FinishMediaUpload(ctx context.Context, by store.Actor, id string) (store.Media, error) {
	img, err := l.Shelf.Take(ctx, id)
	if err != nil {
		return store.Media{}, err
	}
	l.acts.Lock()
	defer l.acts.Unlock()
	m, err := l.finish(ctx, by, img)
	if err != nil {
		later := store.KindOf(err) == store.KindConflict || store.KindOf(err) == store.KindUnavailable
		img.Done(later, err.Error())
		return store.Media{}, err
	}
	img.Done(false, "")
	return m, nil
}

func (l *Library) finish(ctx context.Context, by store.Actor, img *stage.Image) (store.Media, error) {
	if _, err := l.free(ctx, img.Name, ""); err != nil {
		return store.Media{}, err
	}
	if err := l.Folder.Adopt(img.Path, img.SHA256); err != nil {
		return store.Media{}, err
	}
	return l.keep(ctx, by, store.Media{Name: img.Name, Size: img.Size, SHA256: img.SHA256, File: img.Upload.File})
}

// AddMediaStream keeps a file that comes in one piece, of size bytes; of an
// unknown size when that is negative. A failure leaves nothing behind.
func (l *Library) AddMediaStream(ctx context.Context, by store.Actor, name, file string, r io.Reader, size int64) (store.Media, error) {
	name, err := l.free(ctx, strings.ToLower(name), file)
	if err != nil {
		return store.Media{}, err
	}
	if size > store.MaxMediaSize {
		return store.Media{}, store.Invalid("size", "a media file has at most %s", store.Bytes(store.MaxMediaSize))
	}
	return l.take(ctx, by, store.Media{Name: name, File: file}, r, size)
}

// Open opens a media file, or one inside a disc. Its errors are fs.ErrNotExist
// for what there is not, and others for what cannot be read.
func (l *Library) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	first, inside, deep := strings.Cut(name, "/")
	m, err := l.Rows.Media(context.Background(), first) // an fs.FS has no context; the read is one row
	switch {
	case store.IsNotFound(err), err == nil && deep && m.Kind != store.MediaISO:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case err != nil:
		return nil, err
	}
	if !deep {
		f, err := l.Folder.Open(m.SHA256)
		if err != nil {
			return nil, unreadable(m.Name, err)
		}
		return f, nil
	}
	f, err := l.Folder.Inside(m, inside)
	switch {
	case err == nil:
		return f, nil
	case store.KindOf(err) == store.KindUnavailable, !errors.Is(err, fs.ErrNotExist):
		return nil, unreadable(m.Name, err)
	}
	return nil, err
}

// unreadable is an error of a file that should be there. It must not look like
// one of a file that nobody has.
func unreadable(name string, err error) error {
	why := err.Error()
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		why = errno.Error() // machines are told it, and need not know the folder
	}
	return &store.Error{Kind: store.KindUnavailable, Op: "open", Subject: "media " + name, Msg: "its bytes cannot be read: " + why + "; remove it and add it again"}
}
