package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lunboot/store/volume/crashfs"
)

func (y *yard) wantFaults(t *testing.T, when string, want ...string) {
	t.Helper()
	got := y.Faults()
	if !slices.EqualFunc(got, want, func(f Fault, w string) bool {
		name, part, _ := strings.Cut(w, ": ")
		return f.Volume == name && strings.Contains(f.Sentence, part)
	}) {
		t.Errorf("%s: wrong with volumes are %q, want %q", when, got, want)
	}
}

// A volume that cannot be read is a fault until it was opened anew, under the
// name that it has by then.
func TestAFaultOfAVolumeIsTakenBackWhenItWorksAgain(t *testing.T) {
	dir := t.TempDir()
	y := &yard{Pool: openPool(t, dir)}
	v := y.raw(t, 1<<20, 512)
	file := filepath.Join(dir, v.Path)
	h := y.open(t, v)
	y.wantFaults(t, "before")
	must(t, os.Truncate(file, 1<<19))
	if h.ReadAt(t.Context(), make([]byte, 512), 1<<19) == nil {
		t.Fatal("bytes that are gone were read")
	}
	y.wantFaults(t, "of a file that was cut", v.Name+": something cut it")
	v.Name, v.Revision = "renamed", v.Revision+1
	y.Update(v)
	y.wantFaults(t, "under another name", "renamed: something cut it")
	must(t, os.Truncate(file, 1<<20))
	must(t, h.Close())
	y.wantFaults(t, "closed", "renamed: something cut it")
	must(t, y.open(t, v).Close())
	y.wantFaults(t, "opened anew")
}

// A flush that lost bytes stays a fault of the volume, however often it is
// opened, until it begins anew or is removed.
func TestALostFlushIsAFaultUntilTheVolumeBeginsAnew(t *testing.T) {
	fs := crashfs.New(1)
	y := &yard{Pool: crashPool(t, fs)}
	g := y.raw(t, 1<<20, 512)
	c, other := y.clone(t, g), y.raw(t, 1<<20, 512)
	for _, v := range []*struct {
		path string
		h    *Handle
	}{{c.Path, y.open(t, c)}, {other.Path, y.open(t, other)}} {
		put(t, v.h, 0, []byte("lost"))
		stop := failing(fs, crashfs.OpSync, v.path, errDisk)
		if v.h.Sync(t.Context()) == nil {
			t.Fatal("the flush did not fail")
		}
		stop()
		_ = v.h.Close()
	}
	want := []string{c.Name + ": read-only", other.Name + ": read-only"}
	slices.Sort(want)
	y.wantFaults(t, "lost", want...)
	must(t, y.open(t, c).Close())
	must(t, y.open(t, other).Close())
	y.wantFaults(t, "opened anew", want...)
	_, err := y.renew(t.Context(), c, c.Layers[:1])
	must(t, err)
	y.wantFaults(t, "begun anew", other.Name+": read-only")
	must(t, y.Remove(t.Context(), other))
	y.wantFaults(t, "removed")
}
