package inventory

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"lunboot/store"
	"lunboot/store/volume"
)

// imageFile writes a raw image into a folder of its own.
func imageFile(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.img")
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

func someBytes(n int) []byte { return bytes.Repeat([]byte{0xeb, 0x63, 0x90}, n/3+1)[:n] }

func (h *house) content(t *testing.T, v store.Volume) []byte {
	t.Helper()
	var out bytes.Buffer
	must(t, h.pool.Export(t.Context(), v, &out, nil))
	return out.Bytes()
}

func TestImportFileFillsAVolumeInAJob(t *testing.T) {
	h := newHouse(t)
	want := someBytes(3<<20 + 100)
	path := imageFile(t, want)
	v, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "Debian", ReadOnly: true}}, path)
	must(t, err)
	if v.State != store.VolumeImporting || v.Size != 3<<20+512 || job.Kind != "volume.import" || job.Subject != "debian" || job.Total != int64(len(want)) {
		t.Errorf("the volume is %+v, the job %+v", v, job)
	}
	job, err = h.Wait(t.Context(), job.ID)
	must(t, err)
	if job.State != store.JobDone || job.Done != int64(len(want)) || job.Error != "" || job.Finished.IsZero() {
		t.Errorf("the job is %+v", job)
	}
	v, err = h.FindVolume(t.Context(), "debian")
	must(t, err)
	if from := fmt.Sprintf("%s sha256:%x", path, sha256.Sum256(want)); v.State != store.VolumeReady || v.Progress != 0 || v.From != from || !v.ReadOnly {
		t.Errorf("the volume is %+v", v)
	}
	if got := h.content(t, v); !bytes.Equal(got[:len(want)], want) || !bytes.Equal(got[len(want):], make([]byte, 412)) {
		t.Error("the volume differs from the image and its padding")
	}
	all, err := h.Jobs(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != job.ID {
		t.Errorf("the jobs are %v, %v", all, err)
	}
	if one, err := h.Job(t.Context(), job.ID); err != nil || one.State != store.JobDone {
		t.Errorf("the job is %v, %v", one, err)
	}
	wantSentence(t, h.CancelJob(t.Context(), ada, job.ID), store.KindConflict, "ended", "done")
	wantSentence(t, h.CancelJob(t.Context(), ada, 99), store.KindNotFound)
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// crowded is a pool with little room.
type crowded struct{ Volumes }

func (crowded) Free() (int64, error) { return 1 << 20, nil }

func TestAnImportThatCannotWorkIsRefusedBeforeAnythingChanges(t *testing.T) {
	h := newHouse(t)
	h.volume(t, "taken", 512)
	at := func(b string, off, n int) string {
		buf := make([]byte, n)
		copy(buf[off:], b)
		return imageFile(t, buf)
	}
	good := imageFile(t, someBytes(4096))
	for _, tt := range []struct {
		what, path, name string
		size             int64
		parts            []string
		kind             store.Kind
	}{
		{"a folder", t.TempDir(), "x", 0, []string{"is a folder"}, store.KindInvalid},
		{"an empty file", imageFile(t, nil), "x", 0, []string{"is empty"}, store.KindInvalid},
		{"no file", "/lunboot/is/not/there", "x", 0, []string{"cannot be opened"}, store.KindInvalid},
		{"a device of no blocks", "/dev/null", "x", 0, []string{"neither a file"}, store.KindInvalid},
		{"a broken qcow2", at("QFI\xfb\x00\x00\x00\x03", 0, 4096), "x", 0, []string{"clusters", "damaged"}, store.KindInvalid},
		{"a VMDK descriptor", at("# Disk DescriptorFile", 0, 30), "x", 0, []string{"VMDK"}, store.KindInvalid},
		{"QED", at("QED\x00", 0, 4096), "x", 0, []string{"QED", "qemu-img convert"}, store.KindInvalid},
		{"VDI", at("\x7f\x10\xda\xbe", 64, 4096), "x", 0, []string{"VDI"}, store.KindInvalid},
		{"a zip archive", at("PK\x03\x04", 0, 4096), "x", 0, []string{"zip", "unpack"}, store.KindInvalid},
		{"a broken gzip", at("\x1f\x8b\x08", 0, 4096), "x", 0, []string{"gzip", "damaged"}, store.KindInvalid},
		{"a gzip of nothing", imageFile(t, gzipped(t, nil)), "x", 0, []string{"nothing in it"}, store.KindInvalid},
		{"a compressed image with a size", imageFile(t, gzipped(t, someBytes(4096))), "x", 8192, []string{"grow"}, store.KindInvalid},
		{"a name that is taken", good, "taken", 0, []string{"taken"}, store.KindConflict},
		{"a bad name", good, "a/b", 0, []string{"position 2"}, store.KindInvalid},
		{"another size", good, "x", 8192, []string{"4096 bytes", "grow"}, store.KindInvalid},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h.wantRefusal(t, tt.kind, tt.parts, func() error {
				_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: tt.name, Size: tt.size}}, tt.path)
				return err
			})
		})
	}
	_, err := sized(store.VolumeSpec{}, 65<<40)
	wantSentence(t, err, store.KindInvalid, "65 TiB")
}

func TestAnUploadMakesAVolumeOrLeavesNothing(t *testing.T) {
	h := newHouse(t)
	want := someBytes(2<<20 + 1)
	v, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "up", BlockSize: 4096}}, "", iotest.OneByteReader(bytes.NewReader(want)), int64(len(want)))
	must(t, err)
	if v.State != store.VolumeReady || v.Size != 2<<20+4096 || v.BlockSize != 4096 || !strings.HasPrefix(v.From, "an upload sha256:") {
		t.Errorf("the volume is %+v", v)
	}
	if got := h.content(t, v); !bytes.Equal(got[:len(want)], want) {
		t.Error("the volume differs from the upload")
	}
	all, err := h.Jobs(t.Context())
	if err != nil || len(all) != 1 || all[0].State != store.JobDone {
		t.Errorf("the jobs are %+v, %v", all, err)
	}

	files := h.files(t)
	ill := errors.New("the line is dead")
	for name, tt := range map[string]struct {
		r    io.Reader
		size int64
		kind store.Kind
		part string
	}{
		"empty":              {bytes.NewReader(nil), 0, store.KindInvalid, "empty"},
		"no length":          {bytes.NewReader(want), -1, store.KindInvalid, "length"},
		"qcow2":              {strings.NewReader("QFI\xfb" + strings.Repeat("x", 1000)), 1004, store.KindInvalid, "qcow of version"},
		"half a gzip":        {strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03half"), 14, store.KindInvalid, "gzip stream"},
		"shorter":            {bytes.NewReader(want[:1<<20]), 2 << 20, store.KindInvalid, "ended after"},
		"longer":             {bytes.NewReader(want), 1 << 20, store.KindInvalid, "more than"},
		"broken at once":     {iotest.ErrReader(ill), 4096, store.KindUnavailable, "broke off"},
		"broken on the way":  {io.MultiReader(bytes.NewReader(want), iotest.ErrReader(ill)), 4 << 20, store.KindUnavailable, "broke off"},
		"larger than before": {bytes.NewReader(want), 60 << 40, store.KindUnavailable, "free for it"},
	} {
		_, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "bad"}}, "", tt.r, tt.size)
		wantSentence(t, err, tt.kind, tt.part)
		if _, err := h.FindVolume(t.Context(), "bad"); !store.IsNotFound(err) || h.files(t) != files || len(h.Uploads()) != 0 {
			t.Errorf("%s: something is left behind: %v, %q, %v", name, err, h.files(t), h.Uploads())
		}
	}
	all, err = h.Jobs(t.Context())
	must(t, err)
	for _, j := range all {
		if j.State == store.JobRunning || j.State == store.JobFailed && j.Error == "" {
			t.Errorf("a job is left as %+v", j)
		}
	}
}

func TestAnUploadThatFindsNoRoomIsToldBefore(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Volumes = crowded{c.Volumes} })
	h.wantRefusal(t, store.KindUnavailable, []string{"2 MiB", "1 MiB"}, func() error {
		_, err := h.ImportStream(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "x"}}, "", bytes.NewReader(make([]byte, 2<<20)), 2<<20)
		return err
	})
}

// slowPool hands an import's source to the test, which decides how it ends.
type slowPool struct {
	Volumes
	began chan struct{}
	go_   chan error // what the import returns; closed: the real import runs
}

func newSlowPool(c *Config) *slowPool {
	p := &slowPool{Volumes: c.Volumes, began: make(chan struct{}, 64), go_: make(chan error)}
	c.Volumes = p
	return p
}

func (p *slowPool) Adopt(ctx context.Context, v store.Volume, path string) error {
	p.began <- struct{}{}
	select {
	case err, ok := <-p.go_:
		if ok {
			return err
		}
		return p.Volumes.Adopt(ctx, v, path)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *slowPool) Import(ctx context.Context, v store.Volume, r io.Reader, progress func(int64)) (string, error) {
	progress(v.Size / 2)
	p.began <- struct{}{}
	select {
	case err, ok := <-p.go_:
		if ok {
			return "", err
		}
		return p.Volumes.Import(ctx, v, r, progress)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func TestACanceledImportIsGone(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	v, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, imageFile(t, someBytes(64<<10)))
	must(t, err)
	<-pool.began
	got, err := h.db.Volume(t.Context(), v.ID)
	if err != nil || got.State != store.VolumeImporting || got.Progress != 50 {
		t.Errorf("halfway the volume is %+v, %v", got, err)
	}
	h.mapped(t, m, v) // the machine may be told of it already
	wantSentence(t, h.RemoveVolume(t.Context(), ada, v.ID), store.KindInUse, "imported", "cancel")
	must(t, h.CancelJob(t.Context(), "bob", job.ID))
	if _, err := h.db.Volume(t.Context(), v.ID); !store.IsNotFound(err) {
		t.Errorf("the volume is still there: %v", err)
	}
	h.audited(t, "bob", "volume.delete", "debian")
	job, err = h.db.Job(t.Context(), job.ID)
	if err != nil || job.State != store.JobCanceled || job.Error != "canceled by bob" || job.Finished.IsZero() {
		t.Errorf("the job is %+v, %v", job, err)
	}
	if h.files(t) != "" {
		t.Errorf("the folder holds %q", h.files(t))
	}
}

func TestAFailedImportSaysWhyInItsRow(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	v, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, imageFile(t, someBytes(64<<10)))
	must(t, err)
	pool.go_ <- &store.Error{Kind: store.KindUnavailable, Msg: "the file system that holds the volumes is full"}
	job, err = h.Wait(t.Context(), job.ID)
	must(t, err)
	v, err = h.db.Volume(t.Context(), v.ID)
	must(t, err)
	if job.State != store.JobFailed || v.State != store.VolumeFailed || v.Reason != job.Error || !strings.Contains(v.Reason, "is full") {
		t.Errorf("the job is %+v, the volume %+v", job, v)
	}
	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
}

func TestAPanicInAnImportEndsThatImportOnly(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Volumes = panicking{c.Volumes} })
	_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, imageFile(t, someBytes(4096)))
	must(t, err)
	job, err = h.Wait(t.Context(), job.ID)
	if err != nil || job.State != store.JobFailed || !strings.Contains(job.Error, "internal fault") {
		t.Errorf("the job is %+v, %v", job, err)
	}
}

type panicking struct{ Volumes }

func (panicking) Import(context.Context, store.Volume, io.Reader, func(int64)) (string, error) {
	panic("a slip")
}

func TestClosingEndsImportsAndSaysSo(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	v, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, imageFile(t, someBytes(64<<10)))
	must(t, err)
	<-pool.began
	must(t, h.Inventory.Close())
	v, err = h.db.Volume(t.Context(), v.ID)
	if err != nil || v.State != store.VolumeFailed || !strings.Contains(v.Reason, "stopped") {
		t.Errorf("the volume is %+v, %v", v, err)
	}
	job, err = h.db.Job(t.Context(), job.ID)
	if err != nil || job.State != store.JobFailed {
		t.Errorf("the job is %+v, %v", job, err)
	}
	h.wantRefusal(t, store.KindUnavailable, []string{"stopping"}, func() error {
		_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "late"}}, imageFile(t, someBytes(512)))
		return err
	})
}

func TestTwoImportsCopyAtATimeAndTheRestIsBounded(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	path := imageFile(t, someBytes(4096))
	var ids []int64
	for k := range maxWaiting {
		_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: fmt.Sprintf("v-%d", k)}}, path)
		must(t, err)
		ids = append(ids, job.ID)
	}
	h.wantRefusal(t, store.KindUnavailable, []string{"32 jobs"}, func() error {
		_, _, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "more"}}, path)
		return err
	})
	<-pool.began
	<-pool.began
	select {
	case <-pool.began:
		t.Error("a third import copies")
	case <-time.After(20 * time.Millisecond):
	}
	must(t, h.CancelJob(t.Context(), ada, ids[maxWaiting-1])) // one that waits
	close(pool.go_)
	for _, id := range ids[:maxWaiting-1] {
		if job, err := h.Wait(t.Context(), id); err != nil || job.State != store.JobDone {
			t.Errorf("job %d is %+v, %v", id, job, err)
		}
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	_, job, err := h.ImportFile(t.Context(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "debian"}}, imageFile(t, someBytes(4096)))
	must(t, err)
	<-pool.began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Wait(ctx, job.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait returned %v", err)
	}
	wantSentence(t, second(h.Wait(t.Context(), 99)), store.KindNotFound)
}

func second[T any](_ T, err error) error { return err }

func TestAnUploadIsCanceledLikeAJob(t *testing.T) {
	var pool *slowPool
	h := newHouse(t, func(c *Config) { pool = newSlowPool(c) })
	done := make(chan error)
	go func() {
		_, err := h.ImportStream(context.Background(), ada, store.ImportSpec{VolumeSpec: store.VolumeSpec{Name: "up"}}, "", bytes.NewReader(someBytes(4096)), 4096)
		done <- err
	}()
	<-pool.began
	all, err := h.Jobs(t.Context())
	must(t, err)
	must(t, h.CancelJob(t.Context(), "bob", all[0].ID))
	wantSentence(t, <-done, store.KindUnavailable, "canceled by bob")
	if _, err := h.FindVolume(t.Context(), "up"); !store.IsNotFound(err) {
		t.Errorf("the volume is still there: %v", err)
	}
}

var _ Volumes = (*volume.Pool)(nil)
