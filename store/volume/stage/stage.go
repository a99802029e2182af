// Package stage keeps images that are being sent until they are whole.
//
// Each is a file that is filled from its beginning, and a small record beside
// it: how many bytes of the file are surely on disk, and the state of the
// SHA-256 over them. The record is written after the bytes are flushed, so a
// power cut leaves a record that is true; what lies behind it is cut off at the
// next start, and the sender, who asks where to go on, sends it again.
//
// One sender fills one file. A second request for the same upload takes it over:
// the first one's connection is most likely dead, and its end may be minutes
// away. Nothing here waits for a sender while it holds anything that another
// upload needs.
package stage

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/image"
)

const (
	partEnd   = ".part"
	recordEnd = ".json"
	chunk     = 1 << 20
	granule   = 4096 // a run of zeros of this size stays a hole
	// flushEvery bounds what is sent again after a power cut, and what one flush
	// holds up.
	flushEvery = 64 << 20
)

// Interrupter is a reader whose Read can be ended from outside.
type Interrupter interface{ Interrupt() }

// Shelf is the folder of the uploads. One process uses it.
type Shelf struct {
	dir string
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	all    map[string]*upload
	closed bool
}

// upload is one file that is being filled.
type upload struct {
	turn chan struct{} // holds a token while somebody works on the file
	// end ends the append under way; under Shelf.mu.
	end  func()
	gone bool // removed; under turn

	// state is the row as far as it is durable; under Shelf.mu, written under
	// turn only.
	state store.Upload
	file  *os.File
	sum   hash.Hash
	want  string // the SHA-256 that the sender announced
	taken bool   // it is being made a volume; under Shelf.mu
}

// record is what stands beside the file.
type record struct {
	store.Upload
	Want string `json:"want,omitempty"`
	Sum  []byte `json:"sum"` // the hash so far
}

// Open reads the folder, makes it when it is missing, and removes what is too
// old or no longer whole. now is the clock.
func Open(dir string, log *slog.Logger, now func() time.Time) (*Shelf, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fault("open the folder of uploads", dir, err)
	}
	s := &Shelf{dir: dir, log: log, now: now, all: map[string]*upload{}}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault("open the folder of uploads", dir, err)
	}
	for _, n := range names {
		id, ours := strings.CutSuffix(n.Name(), recordEnd)
		if !ours {
			continue
		}
		u, err := s.load(id)
		if err != nil {
			log.Warn("an upload cannot be gone on with and is removed", "upload", id, "err", err)
			continue
		}
		s.all[id] = u
	}
	for _, n := range names {
		id, _, _ := strings.Cut(n.Name(), ".")
		if s.all[id] != nil || n.IsDir() {
			continue
		}
		if err := os.Remove(s.path(n.Name())); err != nil {
			return nil, fault("clean the folder of uploads", dir, err)
		}
	}
	s.Sweep()
	return s, nil
}

func (s *Shelf) path(name string) string { return filepath.Join(s.dir, name) }

// load goes on with an upload of the last run.
func (s *Shelf) load(id string) (*upload, error) {
	b, err := os.ReadFile(s.path(id + recordEnd))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	r.ID = id
	if err := r.Validate(); err != nil {
		return nil, err
	}
	sum := sha256.New()
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(r.Sum); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.path(id+partEnd), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && (fi.Size() < r.Offset || r.Offset < 0 || r.Offset > r.Size) {
		err = fmt.Errorf("%d bytes are there, %d are said to be", fi.Size(), r.Offset)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &upload{turn: make(chan struct{}, 1), state: r.Upload, file: f, sum: sum, want: r.Want}, nil
}

// Create begins an upload. room is how many bytes may be had for uploads; what
// others still have to send is not free.
func (s *Shelf) Create(u store.Upload, room int64) (store.Upload, error) {
	u.Name, u.SHA256 = strings.ToLower(u.Name), strings.ToLower(u.SHA256)
	if err := u.Validate(); err != nil {
		return store.Upload{}, err
	}
	s.Sweep()
	id := make([]byte, 12)
	rand.Read(id)
	u.ID, u.Offset, u.Created, u.Problem = hex.EncodeToString(id), 0, s.now(), ""
	u.Touched = u.Created
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.Upload{}, closed()
	}
	if len(s.all) >= store.MaxUploads {
		return store.Upload{}, &store.Error{Kind: store.KindUnavailable, Op: "upload", Subject: u.Name,
			Msg: fmt.Sprintf("%d uploads are under way or wait to be finished; finish or remove one (lunboot volume uploads)", len(s.all))}
	}
	for _, o := range s.all {
		room -= o.state.Size - o.state.Offset
	}
	if u.Size > room {
		return store.Upload{}, &store.Error{Kind: store.KindUnavailable, Op: "upload", Subject: u.Name, Field: "space",
			Msg: fmt.Sprintf("the upload has %s, and %s are free for it; make room and try again", store.Bytes(u.Size), store.Bytes(max(room, 0)))}
	}
	f, err := os.OpenFile(s.path(u.ID+partEnd), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return store.Upload{}, fault("upload", u.Name, err)
	}
	up := &upload{turn: make(chan struct{}, 1), state: u, file: f, sum: sha256.New(), want: u.SHA256}
	if err = f.Truncate(u.Size); err == nil {
		err = s.write(u, up.want, up.sum)
	}
	if err != nil {
		f.Close()
		return store.Upload{}, fault("upload", u.Name, errors.Join(err, s.erase(u.ID)))
	}
	s.all[u.ID] = up
	return u, nil
}

// write makes an upload's record durable.
func (s *Shelf) write(u store.Upload, want string, sum hash.Hash) error {
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	b, err := json.Marshal(record{Upload: u, Want: want, Sum: state})
	if err != nil {
		return err
	}
	name := s.path(u.ID + recordEnd)
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return s.sync()
}

func (s *Shelf) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// erase removes an upload's files, which may be missing.
func (s *Shelf) erase(id string) (err error) {
	for _, end := range []string{recordEnd, recordEnd + ".new", partEnd} { // the record first: without it the file is nobody's
		if e := os.Remove(s.path(id + end)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// List returns the uploads, oldest first.
func (s *Shelf) List() []store.Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []store.Upload{}
	for _, u := range s.all {
		out = append(out, u.state)
	}
	slices.SortFunc(out, func(a, b store.Upload) int { return a.Created.Compare(b.Created) })
	return out
}

// Get returns one upload.
func (s *Shelf) Get(id string) (store.Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.all[id]; u != nil {
		return u.state, nil
	}
	return store.Upload{}, store.NotFound("upload", id)
}

// hold gets an upload for its caller alone. Whoever appends to it is ended.
func (s *Shelf) hold(ctx context.Context, id string) (*upload, error) {
	s.mu.Lock()
	u := s.all[id]
	if u != nil && u.taken {
		s.mu.Unlock()
		return nil, alreadyTaken()
	}
	if u != nil && u.end != nil {
		u.end()
	}
	stop := s.closed
	s.mu.Unlock()
	if stop {
		return nil, closed()
	}
	if u == nil {
		return nil, store.NotFound("upload", id)
	}
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	taken := u.taken // meanwhile
	s.mu.Unlock()
	switch {
	case u.gone:
		<-u.turn
		return nil, store.NotFound("upload", id)
	case taken:
		<-u.turn
		return nil, alreadyTaken()
	}
	return u, nil
}

func alreadyTaken() error { return store.InUse("the upload is being made a volume already") }

func closed() error {
	return &store.Error{Kind: store.KindUnavailable, Op: "upload", Msg: "lunboot is stopping"}
}

// Append adds what r gives, from off on. Offsets other than the present one are
// refused with it. What arrived before r failed stays, and is told. A later
// Append takes the upload over; r is ended if it is an Interrupter.
func (s *Shelf) Append(ctx context.Context, id string, off int64, r io.Reader) (store.Upload, error) {
	u, err := s.hold(ctx, id)
	if err != nil {
		return store.Upload{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	state := u.state
	u.end = func() {
		cancel()
		if i, ok := r.(Interrupter); ok {
			i.Interrupt()
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		u.end = nil
		s.mu.Unlock()
		<-u.turn
	}()
	if off != state.Offset {
		return state, store.Conflict("offset", "%d bytes have arrived; go on from there, not from %d", state.Offset, off)
	}
	// What an earlier one wrote and could not record must not show through a hole.
	if err := errors.Join(u.file.Truncate(state.Offset), u.file.Truncate(state.Size)); err != nil {
		return state, fault("upload", state.Name, err)
	}
	return s.fill(ctx, u, state, r)
}

// fill copies until r ends, and keeps the record true.
func (s *Shelf) fill(ctx context.Context, u *upload, state store.Upload, r io.Reader) (store.Upload, error) {
	sum, err := clone(u.sum)
	if err != nil {
		return state, err
	}
	buf := make([]byte, chunk)
	dirty := int64(0)
	var failed error
	for failed == nil {
		n, end := image.ReadChunk(r, buf[:min(chunk, state.Size-state.Offset+1)])
		if state.Offset+int64(n) > state.Size {
			n, failed = 0, store.Invalid("size", "more than the %d bytes that were announced are sent", state.Size)
			break
		}
		if n > 0 {
			if err := writeSparse(u.file, buf[:n], state.Offset); err != nil {
				failed = fault("upload", state.Name, err)
				break
			}
			sum.Write(buf[:n])
			state.Offset += int64(n)
			dirty += int64(n)
		}
		switch {
		case end == io.EOF && (n == 0 || ctx.Err() == nil):
			failed = io.EOF
		case end != nil || ctx.Err() != nil:
			failed = &store.Error{Kind: store.KindUnavailable, Op: "upload", Subject: state.Name, Err: errors.Join(end, ctx.Err()),
				Msg: fmt.Sprintf("the sender broke off; %d of %d bytes have arrived, and can be gone on from", state.Offset, state.Size)}
		case dirty >= flushEvery:
			if failed = s.keep(u, sum, &state); failed == nil {
				dirty = 0
			}
		}
	}
	if failed == io.EOF {
		failed = nil
	}
	if dirty > 0 {
		failed = errors.Join(failed, s.keep(u, sum, &state))
	}
	return state, failed
}

// Cut ends an upload whose sender did not know its length and announced more: all
// that has arrived is all there is.
func (s *Shelf) Cut(ctx context.Context, id string) (store.Upload, error) {
	u, err := s.hold(ctx, id)
	if err != nil {
		return store.Upload{}, err
	}
	defer func() { <-u.turn }()
	state := u.state
	if state.Offset == 0 {
		return state, store.Invalid("source", "the image is empty")
	}
	state.Size = state.Offset
	if err := u.file.Truncate(state.Size); err != nil {
		return state, fault("upload", state.Name, err)
	}
	return state, s.keep(u, u.sum, &state)
}

// keep makes what has arrived durable and known.
func (s *Shelf) keep(u *upload, sum hash.Hash, state *store.Upload) error {
	state.Touched = s.now()
	if state.Whole() {
		state.SHA256 = hex.EncodeToString(sum.Sum(nil))
	}
	kept, err := clone(sum)
	if err == nil {
		err = unix.Fdatasync(int(u.file.Fd()))
	}
	if err == nil {
		err = s.write(*state, u.want, sum)
	}
	if err != nil {
		return fault("upload", state.Name, err)
	}
	s.mu.Lock()
	u.state, u.sum = *state, kept
	s.mu.Unlock()
	return nil
}

// clone copies a SHA-256 with what it has taken in.
func clone(sum hash.Hash) (hash.Hash, error) {
	state, err := sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
	out := sha256.New()
	return out, out.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

// writeSparse writes the runs of b that are not zero; the file has holes there.
func writeSparse(f *os.File, b []byte, off int64) error {
	for start := 0; start < len(b); {
		end := start
		for end < len(b) && !zero(b[end:min(end+granule, len(b))]) {
			end = min(end+granule, len(b))
		}
		if end == start {
			start = min(start+granule, len(b))
			continue
		}
		if _, err := f.WriteAt(b[start:end], off+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func zero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

var zeros [granule]byte

// Remove drops an upload and its bytes; whoever appends to it is ended.
func (s *Shelf) Remove(ctx context.Context, id string) error {
	u, err := s.hold(ctx, id)
	if err != nil {
		return err
	}
	defer func() { <-u.turn }()
	s.drop(u)
	return nil
}

// drop removes an upload that its caller holds.
func (s *Shelf) drop(u *upload) {
	u.gone = true
	err := errors.Join(u.file.Close(), s.erase(u.state.ID))
	s.mu.Lock()
	delete(s.all, u.state.ID)
	s.mu.Unlock()
	if err != nil {
		s.log.Warn("an upload that was removed left something behind; the next start removes it", "upload", u.state.ID, "err", err)
	}
}

// Sweep removes uploads that nothing was added to for store.UploadAge.
func (s *Shelf) Sweep() {
	s.mu.Lock()
	over := func(u *upload) bool { return !u.taken && u.end == nil && !s.now().Before(u.state.Expires()) }
	var old []*upload
	for _, u := range s.all {
		if over(u) {
			old = append(old, u)
		}
	}
	s.mu.Unlock()
	for _, u := range old {
		select {
		case u.turn <- struct{}{}:
			s.mu.Lock()
			still := over(u) // it may have been taken meanwhile, or gone on with
			s.mu.Unlock()
			if !u.gone && still {
				s.log.Info("an upload was removed since nothing was added to it", "upload", u.state.ID, "volume", u.state.Name, "last", u.state.Touched)
				s.drop(u)
			}
			<-u.turn
		default: // somebody just began to work on it
		}
	}
}

// Close ends every append, and keeps what has arrived.
func (s *Shelf) Close() error {
	s.mu.Lock()
	s.closed = true
	var all []*upload
	for _, u := range s.all {
		all = append(all, u)
		if u.end != nil {
			u.end()
		}
	}
	s.mu.Unlock()
	var err error
	for _, u := range all {
		u.turn <- struct{}{}
		err = errors.Join(err, u.file.Close())
		u.gone = true
		<-u.turn
	}
	return err
}

// fault says what is wrong with the folder of the uploads.
func fault(op, subject string, err error) error {
	var known *store.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: subject, Field: "space", Err: err, Msg: "the file system that holds the uploads is full; make room and go on"}
	case errors.Is(err, syscall.EFBIG):
		return &store.Error{Kind: store.KindInvalid, Op: op, Subject: subject, Field: "size", Err: err, Msg: "the file system cannot hold a file of this size"}
	}
	return &store.Error{Kind: store.KindUnavailable, Op: op, Subject: subject, Err: err, Msg: "the folder of the uploads cannot be used"}
}
