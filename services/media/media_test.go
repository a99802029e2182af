package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/media"
	"lunboot/store/volume/stage"
)

// rows are an inventory's in memory.
type rows struct {
	all  []store.Media
	used string // a media file that a profile names
}

func (r *rows) AllMedia(context.Context) ([]store.Media, error) { return r.all, nil }

func (r *rows) Media(_ context.Context, name string) (store.Media, error) {
	for _, m := range r.all {
		if m.Name == name {
			return m, nil
		}
	}
	return store.Media{}, store.NotFound("media", name)
}

func (r *rows) CreateMedia(ctx context.Context, _ store.Actor, m store.Media) (store.Media, error) {
	if err := m.Validate(); err != nil {
		return store.Media{}, err
	}
	if _, err := r.Media(ctx, m.Name); err == nil {
		return store.Media{}, store.Conflict("name", "taken")
	}
	m.Revision = 1
	r.all = append(r.all, m)
	return m, nil
}

func (r *rows) DeleteMedia(_ context.Context, _ store.Actor, name string) error {
	if name == r.used {
		return store.InUse("media %s belongs to profile install", name)
	}
	for i, m := range r.all {
		if m.Name == name {
			r.all = append(r.all[:i:i], r.all[i+1:]...)
			return nil
		}
	}
	return store.NotFound("media", name)
}

// jobs does its work at once.
type jobs struct {
	work func(context.Context) context.Context // what it runs under
	full bool                                  // no more is taken
	row  store.Job
	told []int64 // how far it said it was
	err  error
}

func (j *jobs) RunJob(ctx context.Context, kind, subject string, total int64, run func(context.Context, func(done, total int64)) error, ended func()) (store.Job, error) {
	if j.full {
		return store.Job{}, &store.Error{Kind: store.KindUnavailable, Msg: "32 jobs are under way already"}
	}
	if j.work != nil {
		ctx = j.work(ctx)
	}
	j.row = store.Job{ID: j.row.ID + 1, Kind: kind, Subject: subject, Total: total, State: store.JobRunning}
	j.told = nil
	j.err = run(ctx, func(done, _ int64) { j.told = append(j.told, done) })
	ended()
	return j.row, nil
}

type kit struct {
	*Library
	t    *testing.T
	dir  string
	rows *rows
	jobs *jobs
}

// add copies a file of the appliance and waits for the job.
func (k *kit) add(ctx context.Context, by store.Actor, name, path string, anywhere bool) (store.Media, error) {
	job, err := k.AddMedia(ctx, by, name, path, anywhere)
	if err == nil {
		err = k.jobs.err
	}
	if err != nil {
		return store.Media{}, err
	}
	return k.Media(ctx, job.Subject)
}

func library(t *testing.T, dir string, r *rows) *kit {
	t.Helper()
	f, err := media.OpenFolder(filepath.Join(dir, "media"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	shelf, err := stage.Open(filepath.Join(dir, "media-uploads"), log, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shelf.Close() })
	j := &jobs{}
	l, err := New(t.Context(), Config{Rows: r, Jobs: j, Folder: f, Shelf: shelf, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return &kit{l, t, dir, r, j}
}

// left is what lies in the folder.
func (k *kit) left() (names []string) {
	k.t.Helper()
	all, err := os.ReadDir(filepath.Join(k.dir, "media"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func discOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "x.iso")
	if b, err := exec.Command("genisoimage", "-quiet", "-R", "-o", out, dir).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skipf("genisoimage: %v", err)
		}
		t.Fatalf("genisoimage: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAFileIsSentInPiecesKeptAndServed(t *testing.T) {
	k := library(t, t.TempDir(), &rows{})
	ctx := t.Context()
	iso := discOf(t, map[string]string{"linux": strings.Repeat("kernel", 5000), "initrd.gz": "ram"})
	u, err := k.BeginMediaUpload(ctx, "ann", store.Upload{File: "Mini 12.iso", Size: int64(len(iso)), SHA256: sumOf(iso)})
	if err != nil || u.Name != "mini-12.iso" {
		t.Fatalf("%+v, %v", u, err)
	}
	half := int64(len(iso) / 2)
	if u, err = k.AppendMediaUpload(ctx, u.ID, 0, bytes.NewReader(iso[:half])); err != nil || u.Offset != half {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := k.FinishMediaUpload(ctx, "ann", u.ID); store.KindOf(err) != store.KindConflict {
		t.Errorf("half a file is kept: %v", err)
	}
	if u, err = k.AppendMediaUpload(ctx, u.ID, half, bytes.NewReader(iso[half:])); err != nil {
		t.Fatal(err)
	}
	m, err := k.FinishMediaUpload(ctx, "ann", u.ID)
	if err != nil || m.Kind != store.MediaISO || m.Contents.Kernel != "linux" || m.SHA256 != sumOf(iso) || m.File != "Mini 12.iso" {
		t.Fatalf("%+v, %v", m, err)
	}
	if got := k.left(); len(got) != 1 || got[0] != m.SHA256 || len(k.MediaUploads()) != 0 {
		t.Errorf("the folder holds %q", got)
	}
	for name, want := range map[string][]byte{"mini-12.iso": iso, "mini-12.iso/linux": []byte(strings.Repeat("kernel", 5000)), "mini-12.iso/initrd.gz": []byte("ram")} {
		f, err := k.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"none", "mini-12.iso/none", "mini-12.iso/linux/x", "../media/" + m.SHA256, m.SHA256, "", ".", "mini-12.iso/../../etc/passwd"} {
		if f, err := k.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q opens as %v, %v", name, f, err)
		}
	}
	if err := os.Remove(filepath.Join(k.dir, "media", m.SHA256)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mini-12.iso", "mini-12.iso/linux"} {
		if _, err := k.Open(name); store.KindOf(err) != store.KindUnavailable || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, whose bytes are gone: %v", name, err)
		}
	}
}

func TestFilesOfTheApplianceAreCopied(t *testing.T) {
	k := library(t, t.TempDir(), &rows{})
	ctx := t.Context()
	src := filepath.Join(t.TempDir(), "preseed.cfg")
	if err := os.WriteFile(src, []byte("d-i netcfg/get_hostname string lab\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one, err := k.add(ctx, "ann", "", src, true)
	if err != nil || one.Name != "preseed.cfg" || one.Kind != store.MediaFile {
		t.Fatalf("%+v, %v", one, err)
	}
	two, err := k.add(ctx, "ann", "same", src, true)
	if err != nil || two.SHA256 != one.SHA256 {
		t.Fatalf("%+v, %v", two, err)
	}
	for what, c := range map[string]struct {
		name, path string
		kind       store.Kind
	}{
		"a name that is taken":    {"same", src, store.KindConflict},
		"a name that is none":     {"../x", src, store.KindInvalid},
		"a path that is not full": {"x", "preseed.cfg", store.KindInvalid},
		"a file that is not":      {"x", src + "x", store.KindInvalid},
		"a folder":                {"x", filepath.Dir(src), store.KindInvalid},
		"a device":                {"x", "/dev/zero", store.KindInvalid},
	} {
		if _, err := k.add(ctx, "ann", c.name, c.path, true); store.KindOf(err) != c.kind {
			t.Errorf("%s: %v", what, err)
		}
	}
	k.rows.used = "same"
	if err := k.RemoveMedia(ctx, "ann", "same"); store.KindOf(err) != store.KindInUse || !strings.Contains(err.Error(), "profile install") {
		t.Errorf("media in use: %v", err)
	}
	k.rows.used = ""
	if err := k.RemoveMedia(ctx, "ann", "same"); err != nil || len(k.left()) != 1 {
		t.Errorf("the other name's bytes: %q, %v", k.left(), err)
	}
	if err := k.RemoveMedia(ctx, "ann", "preseed.cfg"); err != nil || len(k.left()) != 0 {
		t.Errorf("%q is left, %v", k.left(), err)
	}
}

// opened is how many of this process's files lie below a folder.
func opened(t *testing.T, dir string) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if at, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(at, dir+"/") {
			n++
		}
	}
	return n
}

func TestACopyIsAJobThatTellsHowFarItIsAndCanBeCanceled(t *testing.T) {
	k := library(t, t.TempDir(), &rows{})
	dir := t.TempDir()
	src := filepath.Join(dir, "disc.iso")
	if err := os.WriteFile(src, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	job, err := k.AddMedia(t.Context(), "ann", "", src, true)
	if err != nil || job.Kind != "media.add" || job.Subject != "disc.iso" || job.Total != 3<<20 {
		t.Fatalf("%+v, %v", job, err)
	}
	if n := len(k.jobs.told); n < 3 || k.jobs.told[0] != 1<<20 || k.jobs.told[n-1] != 3<<20 {
		t.Errorf("it is told at %v", k.jobs.told)
	}

	// Another of the name while it is copied, and then the end of the job.
	var twice error
	k.jobs.work = func(ctx context.Context) context.Context {
		k.jobs.full = true
		if _, twice = k.AddMedia(ctx, "bob", "other", src, true); store.KindOf(twice) != store.KindConflict {
			t.Errorf("another of the name: %v", twice)
		}
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return ctx
	}
	if _, err := k.add(t.Context(), "ann", "other", src, true); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if _, err := k.Media(t.Context(), "other"); !store.IsNotFound(err) || len(k.left()) != 1 {
		t.Errorf("what was canceled leaves %q, %v", k.left(), err)
	}
	if _, err := k.AddMedia(t.Context(), "ann", "other", src, true); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("more than are taken: %v", err)
	}
	if n := opened(t, dir); n != 0 {
		t.Errorf("%d files stay open", n)
	}
	k.jobs.full, k.jobs.work = false, nil
	if _, err := k.add(t.Context(), "ann", "other", src, true); err != nil {
		t.Errorf("the name is free again: %v", err)
	}
}

func TestWhatIsNotKeptLeavesNothing(t *testing.T) {
	r := &rows{}
	k := library(t, t.TempDir(), r)
	ctx := t.Context()
	for what, f := range map[string]func() error{
		"a stream that is short": func() error {
			_, err := k.AddMediaStream(ctx, "ann", "x", "x", strings.NewReader("abc"), 10)
			return err
		},
		"a stream that is long": func() error {
			_, err := k.AddMediaStream(ctx, "ann", "x", "x", strings.NewReader("abcdef"), 3)
			return err
		},
		"an empty stream": func() error {
			_, err := k.AddMediaStream(ctx, "ann", "x", "x", strings.NewReader(""), -1)
			return err
		},
		"a wrong sum": func() error {
			u, err := k.BeginMediaUpload(ctx, "ann", store.Upload{Name: "x", Size: 3, SHA256: strings.Repeat("0", 64)})
			if err != nil {
				return nil
			}
			if _, err := k.AppendMediaUpload(ctx, u.ID, 0, strings.NewReader("abc")); err != nil {
				return nil
			}
			_, err = k.FinishMediaUpload(ctx, "ann", u.ID)
			return err
		},
	} {
		if err := f(); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
		if len(k.left()) != 0 || len(k.MediaUploads()) != 0 || len(r.all) != 0 {
			t.Errorf("%s leaves %q, %v, %v", what, k.left(), k.MediaUploads(), r.all)
		}
	}
	// A name that was taken meanwhile: what arrived stays, until it is free.
	u, err := k.BeginMediaUpload(ctx, "ann", store.Upload{Name: "x", Size: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.AppendMediaUpload(ctx, u.ID, 0, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	if _, err := k.AddMediaStream(ctx, "bob", "x", "x", strings.NewReader("other"), 5); err != nil {
		t.Fatal(err)
	}
	if _, err := k.FinishMediaUpload(ctx, "ann", u.ID); store.KindOf(err) != store.KindConflict {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := k.RemoveMedia(ctx, "bob", "x"); err != nil {
		t.Fatal(err)
	}
	if m, err := k.FinishMediaUpload(ctx, "ann", u.ID); err != nil || m.Size != 3 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestAnUploadGoesOnAfterARestart(t *testing.T) {
	dir, r := t.TempDir(), &rows{}
	ctx := t.Context()
	var id string
	t.Run("first run", func(t *testing.T) {
		k := library(t, dir, r)
		u, err := k.BeginMediaUpload(ctx, "ann", store.Upload{Name: "x", Size: 6})
		if err != nil {
			t.Fatal(err)
		}
		id = u.ID
		if _, err := k.AppendMediaUpload(ctx, id, 0, strings.NewReader("abc")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "media", strings.Repeat("a", 64)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	k := library(t, dir, r)
	if len(k.left()) != 0 {
		t.Errorf("a file without a row stays: %q", k.left())
	}
	u, err := k.MediaUpload(id)
	if err != nil || u.Offset != 3 {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := k.AppendMediaUpload(ctx, id, 3, strings.NewReader("def")); err != nil {
		t.Fatal(err)
	}
	if m, err := k.FinishMediaUpload(ctx, "ann", id); err != nil || m.SHA256 != sumOf([]byte("abcdef")) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestFromAfarOnlyTheFoldersForImagesAreRead(t *testing.T) {
	dir := t.TempDir()
	k := library(t, dir, &rows{})
	away := t.TempDir()
	k.Images, k.Data = []string{filepath.Join(dir, "images"), away}, dir
	if err := os.Mkdir(k.Images[0], 0o700); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	for _, path := range []string{outside, filepath.Join(dir, "inventory.db"), filepath.Join(k.Images[0], "disc"), filepath.Join(away, "kernel")} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(away, "link")
	if err := os.Symlink(filepath.Join(dir, "inventory.db"), link); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		path       string
		afar, here bool
	}{
		{"disc", true, false}, // a full path is wanted from who may name any
		{filepath.Join(k.Images[0], "disc"), true, true},
		{filepath.Join(away, "kernel"), true, true},
		{outside, false, true},
		{filepath.Join(dir, "inventory.db"), false, false},
		{filepath.Join(k.Images[0], "..", "inventory.db"), false, false},
		{"../inventory.db", false, false},
		{link, false, false},
	} {
		for anywhere, want := range map[bool]bool{false: c.afar, true: c.here} {
			name := fmt.Sprintf("m%d-%t", i, anywhere)
			if _, err := k.add(t.Context(), "ann", name, c.path, anywhere); (err == nil) != want || err != nil && store.KindOf(err) != store.KindInvalid {
				t.Errorf("%s, anywhere %t: %v", c.path, anywhere, err)
			}
		}
	}
	k.Images = nil
	if _, err := k.add(t.Context(), "ann", "none", outside, false); store.KindOf(err) != store.KindInvalid {
		t.Errorf("without a folder for images: %v", err)
	}
}
