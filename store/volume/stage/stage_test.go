package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const room = int64(1) << 40

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func open(t *testing.T, dir string, now func() time.Time) *Shelf {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler), now)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func some(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rng.Uint32() | 1)
	}
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func create(t *testing.T, s *Shelf, name string, size int) store.Upload {
	t.Helper()
	u, err := s.Create(store.Upload{Name: name, Size: int64(size)}, room)
	must(t, err)
	return u
}

func wantKind(t *testing.T, err error, kind store.Kind, part string) {
	t.Helper()
	if err == nil || store.KindOf(err) != kind || !strings.Contains(err.Error(), part) {
		t.Errorf("error %v of kind %v; want one of kind %v that says %q", err, store.KindOf(err), kind, part)
	}
}

func files(t *testing.T, dir string) int {
	t.Helper()
	all, err := os.ReadDir(dir)
	must(t, err)
	return len(all)
}

func TestPiecesBecomeAWholeImageWithItsChecksum(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	want := some(3<<20+777, 1)
	clear(want[1<<20 : 2<<20]) // a hole
	u, err := s.Create(store.Upload{Name: "Debian", File: "debian.img", Size: int64(len(want)), SHA256: strings.ToUpper(sum(want))}, room)
	must(t, err)
	if u.ID == "" || u.Name != "debian" || u.BlockSize != 0 || u.Offset != 0 {
		t.Errorf("the upload is %+v", u)
	}
	_, err = s.Take(t.Context(), u.ID)
	wantKind(t, err, store.KindConflict, "0 of")
	for off := 0; off < len(want); {
		n := min(off+700_001, len(want))
		got, err := s.Append(t.Context(), u.ID, int64(off), iotest.HalfReader(bytes.NewReader(want[off:n])))
		must(t, err)
		if got.Offset != int64(n) {
			t.Fatalf("after %d bytes the offset is %d", n, got.Offset)
		}
		off = n
	}
	if got, err := s.Get(u.ID); err != nil || !got.Whole() || got.SHA256 != sum(want) {
		t.Errorf("the upload is %+v, %v", got, err)
	}
	i, err := s.Take(t.Context(), u.ID)
	must(t, err)
	got, err := os.ReadFile(i.Path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs from what was sent, %v", err)
	}
	var st unix.Stat_t
	must(t, unix.Fstat(int(i.File.Fd()), &st))
	if st.Blocks*512 > int64(len(want))-1<<19 {
		t.Errorf("zeros take room: %d bytes of %d", st.Blocks*512, len(want))
	}
	_, err = s.Append(t.Context(), u.ID, u.Size, bytes.NewReader(nil))
	wantKind(t, err, store.KindInUse, "volume already")
	wantKind(t, s.Remove(t.Context(), u.ID), store.KindInUse, "volume already")
	i.Done(false, "")
	if files(t, dir) != 0 || len(s.List()) != 0 {
		t.Error("a finished upload left something behind")
	}
}

func TestWhatWasSentSurvivesAStartAndTheChecksumGoesOn(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	want := some(2<<20, 2)
	u := create(t, s, "one", len(want))
	_, err := s.Append(t.Context(), u.ID, 0, bytes.NewReader(want[:1<<20]))
	must(t, err)
	must(t, s.Close())
	// A power cut left bytes that the record knows nothing of.
	f, err := os.OpenFile(filepath.Join(dir, u.ID+partEnd), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("not the sender's"), 1<<20+5)
	must(t, errors.Join(err, f.Close()))
	must(t, os.WriteFile(filepath.Join(dir, "stray.part"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "torn.json"), []byte("{"), 0o600))

	s = open(t, dir, time.Now)
	got, err := s.Get(u.ID)
	if err != nil || got.Offset != 1<<20 {
		t.Fatalf("after a start the upload is %+v, %v", got, err)
	}
	if n := files(t, dir); n != 2 {
		t.Errorf("the folder holds %d files", n)
	}
	clear(want[1<<20 : 1<<20+4096]) // which is not written: it is a hole
	got, err = s.Append(t.Context(), u.ID, got.Offset, bytes.NewReader(want[1<<20:]))
	must(t, err)
	i, err := s.Take(t.Context(), u.ID)
	must(t, err)
	b, err := os.ReadFile(i.Path)
	if err != nil || !bytes.Equal(b, want) || got.SHA256 != sum(want) {
		t.Errorf("the file or its checksum differs: %v", err)
	}
	i.Done(true, "no room")
	if got, err := s.Get(u.ID); err != nil || got.Problem != "no room" {
		t.Errorf("kept: %+v, %v", got, err)
	}
	must(t, s.Close())
	s = open(t, dir, time.Now)
	if got, err := s.Get(u.ID); err != nil || got.Problem != "no room" || !got.Whole() {
		t.Errorf("kept over a start: %+v, %v", got, err)
	}
}

func TestAnUploadRefusesWhatIsNotItsNext(t *testing.T) {
	s := open(t, t.TempDir(), time.Now)
	u := create(t, s, "one", 1000)
	must(t, second(s.Append(t.Context(), u.ID, 0, bytes.NewReader(make([]byte, 100)))))
	for _, off := range []int64{-1, 0, 99, 101, 1000} {
		got, err := s.Append(t.Context(), u.ID, off, bytes.NewReader(make([]byte, 100)))
		wantKind(t, err, store.KindConflict, "100 bytes have arrived")
		if got.Offset != 100 {
			t.Errorf("the answer's offset is %d", got.Offset)
		}
	}
	wantKind(t, second(s.Append(t.Context(), u.ID, 100, bytes.NewReader(make([]byte, 901)))), store.KindInvalid, "more than the 1000 bytes")
	got, err := s.Append(t.Context(), u.ID, 100, io.MultiReader(bytes.NewReader(make([]byte, 400)), iotest.ErrReader(errors.New("reset by peer"))))
	wantKind(t, err, store.KindUnavailable, "500 of 1000 bytes")
	if again, _ := s.Get(u.ID); got.Offset != 500 || again.Offset != 500 {
		t.Errorf("what arrived before the line broke is lost: %d, %d", got.Offset, again.Offset)
	}
	must(t, second(s.Append(t.Context(), u.ID, 500, bytes.NewReader(make([]byte, 500)))))
	wantKind(t, second(s.Append(t.Context(), "none", 0, bytes.NewReader(nil))), store.KindNotFound, "none")
	wantKind(t, second(s.Get("none")), store.KindNotFound, "none")
	wantKind(t, s.Remove(t.Context(), "none"), store.KindNotFound, "none")
}

func second[T any](_ T, err error) error { return err }

func TestAnImageWithAnotherChecksumThanAnnouncedIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	u, err := s.Create(store.Upload{Name: "one", Size: 4, SHA256: sum([]byte("good"))}, room)
	must(t, err)
	must(t, second(s.Append(t.Context(), u.ID, 0, strings.NewReader("evil"))))
	wantKind(t, second(s.Take(t.Context(), u.ID)), store.KindInvalid, sum([]byte("evil")))
	if files(t, dir) != 0 {
		t.Error("it is kept")
	}
}

// stalled is a sender that gives some bytes and then nothing, until it is ended.
type stalled struct {
	first io.Reader
	told  chan struct{}
	ended chan struct{}
	once  sync.Once
}

func newStalled(b []byte) *stalled {
	return &stalled{first: bytes.NewReader(b), told: make(chan struct{}), ended: make(chan struct{})}
}

func (r *stalled) Read(p []byte) (int, error) {
	if n, err := r.first.Read(p); err == nil {
		return n, nil
	}
	select {
	case <-r.told:
	default:
		close(r.told)
	}
	<-r.ended
	return 0, os.ErrDeadlineExceeded
}

func (r *stalled) Interrupt() { r.once.Do(func() { close(r.ended) }) }

func TestAStalledSenderKeepsNobodyWaiting(t *testing.T) {
	s := open(t, t.TempDir(), time.Now)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var ends sync.WaitGroup
	var ids []string
	for n := range store.MaxUploads - 1 {
		u := create(t, s, "stuck", 1000)
		ids = append(ids, u.ID)
		r := newStalled(make([]byte, 10+n))
		ends.Go(func() {
			_, err := s.Append(ctx, u.ID, 0, r)
			wantKind(t, err, store.KindUnavailable, "broke off")
		})
		<-r.told
	}
	// Another one goes through,
	u := create(t, s, "other", 1000)
	must(t, second(s.Append(ctx, u.ID, 0, bytes.NewReader(make([]byte, 1000)))))
	i, err := s.Take(ctx, u.ID)
	must(t, err)
	i.Done(false, "")
	// the sender of a stalled one comes again on a new connection,
	got, err := s.Append(ctx, ids[0], 0, bytes.NewReader(make([]byte, 1000)))
	wantKind(t, err, store.KindConflict, "10 bytes have arrived")
	must(t, second(s.Append(ctx, ids[0], got.Offset, bytes.NewReader(make([]byte, 990)))))
	// an operator removes one, and the appliance stops.
	must(t, s.Remove(ctx, ids[1]))
	must(t, s.Close())
	ends.Wait()
	wantKind(t, second(s.Append(ctx, ids[2], 0, bytes.NewReader(nil))), store.KindUnavailable, "stopping")
	wantKind(t, second(s.Create(store.Upload{Name: "late", Size: 1}, room)), store.KindUnavailable, "stopping")
}

func TestUploadsAreBoundedInNumberRoomAndAge(t *testing.T) {
	dir := t.TempDir()
	c := &clock{at: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	s := open(t, dir, c.now)
	wantKind(t, second(s.Create(store.Upload{Name: "x", Size: 2000}, 1999)), store.KindUnavailable, "are free for it")
	u := create(t, s, "first", 1500)
	must(t, second(s.Append(t.Context(), u.ID, 0, bytes.NewReader(make([]byte, 500)))))
	// The other 1000 bytes of it are spoken for.
	wantKind(t, second(s.Create(store.Upload{Name: "x", Size: 600}, 1599)), store.KindUnavailable, "are free for it")
	for n := 1; n < store.MaxUploads; n++ {
		create(t, s, "more", 1)
	}
	wantKind(t, second(s.Create(store.Upload{Name: "x", Size: 1}, room)), store.KindUnavailable, "16 uploads")
	c.add(store.UploadAge - time.Second)
	must(t, second(s.Append(t.Context(), u.ID, 500, bytes.NewReader(make([]byte, 500)))))
	c.add(time.Second)
	create(t, s, "x", 1)
	if all := s.List(); len(all) != 2 || all[0].ID != u.ID || files(t, dir) != 4 {
		t.Errorf("a day later there are %d uploads in %d files", len(all), files(t, dir))
	}
	for what, bad := range map[string]store.Upload{
		"name":       {Name: "../x", Size: 1},
		"size":       {Name: "x"},
		"block_size": {Name: "x", Size: 1, BlockSize: 100},
		"sha256":     {Name: "x", Size: 1, SHA256: "abc"},
		"file":       {Name: "x", Size: 1, File: "a\x00b"},
	} {
		_, err := s.Create(bad, room)
		var e *store.Error
		if !errors.As(err, &e) || e.Kind != store.KindInvalid || e.Field != what {
			t.Errorf("a bad %s: %v", what, err)
		}
	}
}

// TestARecordThatCannotBeWrittenLosesNothing makes the folder read no more
// records, and then again.
func TestARecordThatCannotBeWrittenLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, time.Now)
	want := some(10000, 3)
	u := create(t, s, "one", len(want))
	must(t, second(s.Append(t.Context(), u.ID, 0, bytes.NewReader(want[:5000]))))
	blocked := filepath.Join(dir, u.ID+recordEnd+".new")
	must(t, os.Mkdir(blocked, 0o700))
	got, err := s.Append(t.Context(), u.ID, 5000, bytes.NewReader(some(2000, 9)))
	if err == nil {
		t.Error("a record that was not written is no error")
	}
	if now, _ := s.Get(u.ID); now.Offset != 5000 {
		t.Errorf("the offset is %d, and %d was answered", now.Offset, got.Offset)
	}
	must(t, os.Remove(blocked))
	clear(want[5000:9100])
	got, err = s.Append(t.Context(), u.ID, 5000, bytes.NewReader(want[5000:]))
	if err != nil || got.SHA256 != sum(want) {
		t.Errorf("gone on: %+v, %v", got, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, u.ID+partEnd))
	if err != nil || !bytes.Equal(b, want) {
		t.Error("the file differs from what was sent")
	}
}

// Who waits for an upload while it is taken gets it no more: its bytes are a volume's
// by then, and removing, cutting or taking them again would harm that.
func TestAnUploadThatIsTakenWhileOthersWaitIsNobodyElses(t *testing.T) {
	s := open(t, t.TempDir(), time.Now)
	b := some(5000, 1)
	u := create(t, s, "disk", len(b))
	_, err := s.Append(t.Context(), u.ID, 0, bytes.NewReader(b))
	must(t, err)
	up := s.all[u.ID]
	for name, act := range map[string]func() error{
		"remove": func() error { return s.Remove(context.Background(), u.ID) },
		"cut":    func() error { _, err := s.Cut(context.Background(), u.ID); return err },
		"take":   func() error { _, err := s.Take(context.Background(), u.ID); return err },
		"append": func() error {
			_, err := s.Append(context.Background(), u.ID, int64(len(b)), bytes.NewReader(nil))
			return err
		},
	} {
		up.turn <- struct{}{} // somebody works on it
		waits := make(chan struct{})
		s.mu.Lock()
		up.end = sync.OnceFunc(func() { close(waits) })
		s.mu.Unlock()
		done := make(chan error, 1)
		go func() { done <- act() }()
		<-waits // it has found that nobody has taken it
		s.mu.Lock()
		up.end, up.taken = nil, true
		s.mu.Unlock()
		<-up.turn
		if err := <-done; store.KindOf(err) != store.KindInUse {
			t.Errorf("%s: %v", name, err)
		}
		s.mu.Lock()
		up.taken = false
		s.mu.Unlock()
		if up.gone {
			t.Fatalf("%s: it was removed", name)
		}
	}
	i, err := s.Take(t.Context(), u.ID)
	must(t, err)
	i.Done(false, "")
}

// A sender that broke off, which its connection knows, has not come to its end: what
// is all there is must not be cut there.
func TestASenderThatBrokeOffIsNotTakenForOneThatIsDone(t *testing.T) {
	s := open(t, t.TempDir(), time.Now)
	b := some(5000, 1)
	u := create(t, s, "disk", len(b)+1000)
	got, err := s.Append(t.Context(), u.ID, 0, io.MultiReader(bytes.NewReader(b), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if store.KindOf(err) != store.KindUnavailable || got.Offset != int64(len(b)) {
		t.Errorf("%d bytes, %v", got.Offset, err)
	}
	got, err = s.Append(t.Context(), u.ID, int64(len(b)), bytes.NewReader(nil))
	must(t, err)
	if got.Offset != int64(len(b)) {
		t.Errorf("%d bytes have arrived", got.Offset)
	}
}
