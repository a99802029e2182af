package inventory

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lunboot/store"
)

// tool runs a program that needs root, and skips the test where neither is.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this test needs root and %s: %v", name, err)
		}
		t.Skipf("this test needs root and %s", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a block device of a file that the test ends with.
func loop(t *testing.T, content []byte) (path, file string) {
	t.Helper()
	file = imageFile(t, content)
	path = tool(t, "losetup", "--find", "--show", file)
	t.Cleanup(func() { tool(t, "losetup", "--detach", path) })
	return path, file
}

func TestADeviceBecomesAVolumeAsItIs(t *testing.T) {
	path, file := loop(t, someBytes(1<<20))
	h := newHouse(t)
	v, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "LV-1", Path: path, Direct: true})
	must(t, err)
	if v.Kind != store.VolumeDevice || v.State != store.VolumeReady || v.Name != "lv-1" || v.Size != 1<<20 || v.BlockSize != 512 || v.Path != path || !v.Direct {
		t.Errorf("the volume is %+v", v)
	}
	h.audited(t, ada, "volume.create", "lv-1")
	if !bytes.Equal(h.content(t, v), someBytes(1<<20)) {
		t.Error("the volume differs from the device")
	}

	link := filepath.Join("/dev", filepath.Base(t.Name())+"-link")
	must(t, os.Symlink(path, link))
	t.Cleanup(func() { os.Remove(link) })
	for again, part := range map[string]string{path: "is volume lv-1 already", link: "is volume lv-1 already"} {
		h.wantRefusal(t, store.KindConflict, []string{part}, func() error {
			_, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "twice", Path: again})
			return err
		})
	}
	// Also while it is open for a machine: that is nobody else's program.
	held, err := h.pool.Open(t.Context(), v)
	must(t, err)
	h.wantRefusal(t, store.KindConflict, []string{"is volume lv-1 already"}, func() error {
		_, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "twice", Path: path})
		return err
	})
	must(t, held.Close())
	other, _ := loop(t, someBytes(4096))
	h.wantRefusal(t, store.KindConflict, []string{"lv-1"}, func() error {
		_, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "lv-1", Path: other})
		return err
	})
	h.wantRefusal(t, store.KindInvalid, []string{"4096"}, func() error {
		_, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "odd", Path: other, BlockSize: 1024})
		return err
	})

	// It grows by its own tools; its volume follows when told to, or at the next
	// start.
	h.wantRefusal(t, store.KindInvalid, []string{"lvextend", "1 MiB"}, func() error {
		_, err := h.ResizeVolume(t.Context(), ada, v.ID, 2<<20)
		return err
	})
	must(t, os.Truncate(file, 2<<20))
	tool(t, "losetup", "--set-capacity", path)
	v, err = h.ResizeVolume(t.Context(), ada, v.ID, 2<<20)
	if err != nil || v.Size != 2<<20 {
		t.Errorf("grown: %+v, %v", v, err)
	}
	must(t, os.Truncate(file, 3<<20))
	tool(t, "losetup", "--set-capacity", path)
	h.stop()
	h = reopen(t, h.dir)
	must(t, h.Recover(t.Context()))
	if v, err = h.FindVolume(t.Context(), "lv-1"); err != nil || v.Size != 3<<20 {
		t.Errorf("after a start: %+v, %v", v, err)
	}

	must(t, h.RemoveVolume(t.Context(), ada, v.ID))
	kept, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(kept[:1<<20], someBytes(1<<20)) {
		t.Error("removing the volume changed the device")
	}
}

func TestADeviceInUseIsRefusedBeforeAnythingChanges(t *testing.T) {
	path, _ := loop(t, make([]byte, 1<<20))
	held, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL, 0)
	must(t, err)
	t.Cleanup(func() { held.Close() }) // before its device goes
	h := newHouse(t)
	for where, c := range map[string]struct {
		kind store.Kind
		part string
	}{
		path:                 {store.KindInUse, "another program holds it"},
		"/dev/null":          {store.KindInvalid, "not a block device"},
		"/dev/lunboot-none":  {store.KindNotFound, "lsblk"},
		"/etc/passwd":        {store.KindInvalid, "below /dev"},
		"/dev/../etc/passwd": {store.KindInvalid, "below /dev"},
	} {
		h.wantRefusal(t, c.kind, []string{c.part}, func() error {
			_, err := h.AttachDevice(t.Context(), ada, store.DeviceSpec{Name: "x", Path: where})
			return err
		})
	}
}
