package pages

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func keptMedia() []store.Media {
	return []store.Media{
		{Name: "debian-12.5.0-amd64-netinst.iso", Kind: store.MediaISO, Size: 629 << 20, SHA256: strings.Repeat("a1", 32), Contents: store.MediaContents{OS: store.MediaDebian, Title: "Debian GNU/Linux 12.5.0 “Bookworm”",
			Arch: "x86-64", Kernel: "install.amd/vmlinuz", Initrds: []string{"install.amd/initrd.gz"}, Note: "The installer on this disc looks for the disc in the machine."}},
		{Name: "mini.iso", Kind: store.MediaISO, Size: 62 << 20, SHA256: strings.Repeat("b2", 32), Contents: store.MediaContents{OS: store.MediaDebian, Arch: "x86-64", Kernel: "linux", Initrds: []string{"initrd.gz"}}},
		{Name: "win11.iso", Kind: store.MediaISO, Size: 6 << 30, SHA256: strings.Repeat("c3", 32), Contents: store.MediaContents{OS: store.MediaWindows, Title: "Windows setup", Arch: "x86-64", WIM: "sources/boot.wim"}},
	}
}

func (l *lab) AllMedia(context.Context) ([]store.Media, error) { return l.kept, nil }
func (l *lab) AddMedia(_ context.Context, _ store.Actor, name, path string, _ bool) (store.Job, error) {
	l.uploads = append(l.uploads, fmt.Sprintf("%s of %s", name, path))
	return store.Job{}, l.refuse
}
func (l *lab) AddMediaStream(_ context.Context, _ store.Actor, name, file string, r io.Reader, size int64) (store.Media, error) {
	b, err := io.ReadAll(r)
	l.uploads = append(l.uploads, fmt.Sprintf("%s of %s, %d bytes, said %d", name, file, len(b), size))
	if err != nil {
		return store.Media{}, err
	}
	return store.Media{}, l.refuse
}
func (l *lab) RemoveMedia(_ context.Context, _ store.Actor, name string) error {
	l.uploads = append(l.uploads, "removed "+name)
	return l.refuse
}
func (l *lab) MediaUploads() []store.Upload {
	return []store.Upload{{Name: "fedora.iso", Size: 2 << 30, Offset: 1 << 30}}
}

func TestThePageOfTheMediaSaysWhatEachIs(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	code, body := get("/media")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	has(t, body, "debian-12.5.0-amd64-netinst.iso", "629 MiB", "Disc: Debian GNU/Linux 12.5.0", "looks for the disc in the machine", "Disc: Debian’s network installer", "install.amd/<wbr>vmlinuz", "sources/<wbr>boot.wim",
		"1 GiB of 2 GiB have arrived", "no profile", `action="/media/remove"`, `enctype="multipart/form-data"`)
	if code, body := post("/media/remove", "name", "mini.iso", "confirm", "mini"); code != http.StatusUnprocessableEntity || len(l.uploads) > 0 || !strings.Contains(body, "type mini.iso to confirm") {
		t.Errorf("without its name typed, a removal answers %d, %q", code, l.uploads)
	}
	if code, to := post("/media/remove", "name", "mini.iso", "confirm", "mini.iso"); code != http.StatusSeeOther || to != "/media" {
		t.Errorf("a removal answers %d %s", code, to)
	}
	if code, to := post("/media/path", "name", " x ", "path", "/srv/x.iso"); code != http.StatusSeeOther || to != "/media" {
		t.Errorf("a copy answers %d %s", code, to)
	}
	if want := []string{"removed mini.iso", "x of /srv/x.iso"}; !slices.Equal(l.uploads, want) {
		t.Errorf("done: %q", l.uploads)
	}
	l.refuse = store.InUse("media mini.iso belongs to profile install; change or remove that first")
	if code, _ := post("/media/remove", "name", "mini.iso", "confirm", "mini.iso"); code != http.StatusConflict {
		t.Errorf("media in use: %d", code)
	}
}

func TestMediaAreUploadedWithoutScript(t *testing.T) {
	l := full()
	if code, body := l.uploadTo(t, "/media", "name", "mini", "file", "Mini.iso"); code != http.StatusSeeOther {
		t.Fatalf("it answers %d %s", code, body)
	}
	if want := []string{"mini of Mini.iso, 11 bytes, said -1"}; !slices.Equal(l.uploads, want) {
		t.Errorf("taken %v, want %v", l.uploads, want)
	}
	if code, body := full().uploadTo(t, "/media", "name", "x"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "hoose a file") {
		t.Errorf("without a file it answers %d", code)
	}
}

func TestThePageOfTheMediaSaysHowFarACopyIsAndCancelsIt(t *testing.T) {
	l := full()
	l.jobs = []store.Job{
		{ID: 7, Kind: "media.add", Subject: "debian.iso", State: store.JobRunning, Done: 1 << 30, Total: 4 << 30},
		{ID: 6, Kind: "media.add", Subject: "rocky.iso", State: store.JobFailed, Error: "the file system that holds the media is full; make room and try again", Finished: noon.Add(-time.Minute)},
		{ID: 5, Kind: "media.add", Subject: "old.iso", State: store.JobFailed, Error: "long ago", Finished: noon.Add(-2 * time.Hour)},
		{ID: 4, Kind: "media.add", Subject: "done.iso", State: store.JobDone, Finished: noon},
		{ID: 3, Kind: "volume.flatten", Subject: "lab-12", State: store.JobRunning, Done: 1, Total: 2},
	}
	get, post := l.enter(t)
	_, body := get("/media")
	has(t, body, "debian.iso", "Copying: 1 GiB of 4 GiB", `action="/media/cancel"`, `name="job" value="7"`, "Not copied", "rocky.iso", "make room and try again", "every 2s")
	for _, other := range []string{"old.iso", "done.iso", "Flattening"} {
		if strings.Contains(body, other) {
			t.Errorf("the page of the media shows %q", other)
		}
	}
	if _, body := get("/volumes"); strings.Contains(body, "debian.iso") || !strings.Contains(body, "Flattening") {
		t.Error("the page of the volumes shows the jobs of media, or not its own")
	}
	if code, to := post("/media/cancel", "job", "7"); code != http.StatusSeeOther || to != "/media" {
		t.Errorf("a cancel answers %d %s", code, to)
	}
	if want := []string{"cancel 7"}; !slices.Equal(l.acts, want) {
		t.Errorf("done: %q", l.acts)
	}
	if code, _ := post("/media/cancel", "job", "x"); code != http.StatusNotFound {
		t.Errorf("no job: %d", code)
	}
}
