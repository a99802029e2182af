package volume

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// Who imports from afar reaches the folders for images and nothing else, however a
// path or a link in them is written.
func TestASourceLiesInAFolderForImages(t *testing.T) {
	top := t.TempDir()
	first, second := filepath.Join(top, "first"), filepath.Join(top, "second")
	for _, dir := range []string{filepath.Join(first, "deep"), second, filepath.Join(top, "secret")} {
		must(t, os.MkdirAll(dir, 0o700))
	}
	write := func(path string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte(path), 0o600))
	}
	inFirst, inSecond, inDeep, secret := filepath.Join(first, "a.img"), filepath.Join(second, "b.img"), filepath.Join(first, "deep", "c.img"), filepath.Join(top, "secret", "key")
	for _, path := range []string{inFirst, inSecond, inDeep, secret} {
		write(path)
	}
	must(t, os.Symlink("deep/c.img", filepath.Join(first, "within")))
	must(t, os.Symlink(secret, filepath.Join(first, "out")))
	must(t, os.Symlink("../secret", filepath.Join(first, "way")))

	p := openPool(t, t.TempDir())
	inside := []string{first, filepath.Join(top, "not there"), second}
	for path, want := range map[string]string{
		"a.img":                          inFirst,
		"b.img":                          inSecond, // the first that has it
		"deep/c.img":                     inDeep,
		"within":                         inDeep,
		inFirst:                          inFirst,
		inSecond:                         inSecond,
		first + "/deep/../a.img":         inFirst,
		"":                               "",
		".":                              "",
		"gone.img":                       "",
		"../secret/key":                  "",
		"deep/../../secret/key":          "",
		secret:                           "",
		first + "/../secret/key":         "",
		"out":                            "",
		"way/key":                        "",
		filepath.Join(first, "way/key"):  "",
		filepath.Join(first, "out"):      "",
		"/etc/passwd":                    "",
		first + "extra/a.img":            "",
		filepath.Join(second, "gone"):    "",
		filepath.Join(second, "a.img/x"): "",
	} {
		s, err := p.OpenSource(path, inside)
		if want == "" {
			if e := wantKind(t, err, store.KindInvalid); s != nil || e != nil && e.Field != "source" {
				t.Errorf("%s: %+v, %v", path, s, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if b, err := io.ReadAll(s); err != nil || string(b) != want || s.Size != int64(len(want)) {
			t.Errorf("%s is %q of %d bytes, %v", path, b, s.Size, err)
		}
		must(t, s.Close())
	}
	// Where no folder is named, somebody at the appliance names any file, from / on.
	s, err := p.OpenSource(secret, nil)
	must(t, err)
	must(t, s.Close())
	wantKind(t, func() error { _, err := p.OpenSource("a.img", nil); return err }(), store.KindInvalid)
}

// What cannot become a volume is refused at once: a pipe that nobody writes to is not
// waited for.
func TestASourceIsAFileThatHoldsSomething(t *testing.T) {
	dir := t.TempDir()
	pipe, empty := filepath.Join(dir, "pipe"), filepath.Join(dir, "empty")
	must(t, unix.Mkfifo(pipe, 0o600))
	must(t, os.WriteFile(empty, nil, 0o600))
	p := openPool(t, t.TempDir())
	for path, says := range map[string]string{dir: "is a folder", pipe: "neither a file nor a block device", "/dev/null": "neither a file nor a block device", empty: "is empty"} {
		s, err := p.OpenSource(path, nil)
		if e := wantKind(t, err, store.KindInvalid); s != nil || e != nil && !strings.Contains(e.Msg, says) {
			t.Errorf("%s: %+v, %v", path, s, err)
		}
	}
}

// A file that is longer than the room that is left, but is holes for the most part,
// takes no more than it holds.
func TestASourceNeedsRoomForWhatItHolds(t *testing.T) {
	p := openPool(t, t.TempDir())
	size, free, err := p.Room()
	if err != nil || free <= 0 || size < free {
		t.Fatalf("%d of %d bytes are free, %v", free, size, err)
	}
	path := filepath.Join(t.TempDir(), "holes.img")
	must(t, os.WriteFile(path, []byte("some"), 0o600))
	must(t, os.Truncate(path, 2*size))
	s, err := p.OpenSource(path, nil)
	must(t, err)
	if s.Size != 2*size {
		t.Errorf("it has %d bytes, %d were made", s.Size, 2*size)
	}
	must(t, s.Close())
}
