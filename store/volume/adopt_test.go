package volume

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lunboot/store"
	"lunboot/store/volume/crashfs"
)

func TestAFileIsAdoptedAsItIs(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	from := filepath.Join(filepath.Dir(dir), "sent")
	must(t, os.WriteFile(from, []byte("bytes that were sent"), 0o600))
	v := raw(1, 512)
	must(t, p.Adopt(t.Context(), v, from))
	if _, err := os.Stat(from); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	got := make([]byte, 512)
	must(t, h.ReadAt(t.Context(), got, 0))
	if want := append([]byte("bytes that were sent"), make([]byte, 492)...); !bytes.Equal(got, want) {
		t.Errorf("the volume holds %q", got)
	}
}

func TestWhatCannotBeAdoptedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	p := openPool(t, dir)
	from := filepath.Join(filepath.Dir(dir), "sent")
	for name, c := range map[string]struct {
		size int
		v    store.Volume
		kind store.Kind
	}{
		"too large":     {513, raw(1, 512), store.KindInvalid},
		"too small":     {512, raw(1, 1024), store.KindInvalid},
		"a device":      {512, onDevice("/dev/null", 512), store.KindInvalid},
		"a path":        {512, func() store.Volume { v := raw(1, 512); v.Path = "../x"; return v }(), store.KindInternal},
		"no file":       {-1, raw(1, 512), store.KindNotFound},
		"a second time": {512, func() store.Volume { v := raw(1, 512); v.Path = "there"; return v }(), store.KindConflict},
	} {
		os.Remove(from)
		if c.size >= 0 {
			must(t, os.WriteFile(from, make([]byte, c.size), 0o600))
		}
		must(t, os.WriteFile(filepath.Join(dir, "there"), []byte("old"), 0o600))
		wantKind(t, p.Adopt(t.Context(), c.v, from), c.kind)
		if got := names(t, dir); len(got) != 1 {
			t.Errorf("%s: the folder holds %v", name, got)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "there")); err != nil || string(b) != "old" {
			t.Errorf("%s: another volume's file is %q, %v", name, b, err)
		}
	}
	q := crashPool(t, crashfs.New(1))
	if err := q.Adopt(t.Context(), raw(1, 512), from); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a folder that cannot take files says %v", err)
	}
}
