package volume

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/store"
	"lunboot/store/volume/volumetest"
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
func loop(t *testing.T, size int64, sector int) (path, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, os.Truncate(file, size))
	path = tool(t, "losetup", "--find", "--show", "--sector-size", fmt.Sprint(sector), file)
	t.Cleanup(func() { tool(t, "losetup", "--detach", path) })
	return path, file
}

func onDevice(path string, size int64) store.Volume {
	return store.Volume{ID: 1, Revision: 1, Name: "vol", Kind: store.VolumeDevice, Size: size, BlockSize: 512, State: store.VolumeReady, Path: path}
}

func TestDevicesKeepTheContract(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%t", direct), func(t *testing.T) {
			p, next := openPool(t, t.TempDir()), store.VolumeID(0)
			volumetest.Run(t, func(t *testing.T, size int64) volumetest.Opener {
				path, _ := loop(t, size, 512)
				next++
				v := onDevice(path, size)
				v.ID, v.Direct = next, direct
				must(t, p.Create(t.Context(), v))
				return func(t *testing.T) volumetest.Volume {
					h, err := p.Open(t.Context(), v)
					must(t, err)
					t.Cleanup(func() { h.Close() })
					return h
				}
			})
		})
	}
}

func TestADeviceSaysItsSizeAndItsBlocks(t *testing.T) {
	p := openPool(t, t.TempDir())
	path, file := loop(t, 8<<20, 4096)
	d, err := p.Device(path, false)
	must(t, err)
	if d.Path != path || d.Size != 8<<20 || d.BlockSize != 4096 {
		t.Errorf("the device is %+v", d)
	}
	if number, disk, err := DeviceNumber(path); err != nil || number == 0 || disk != number {
		t.Errorf("its number is %d, its disk's %d, %v", number, disk, err)
	}
	// It grows while it is in use.
	v := onDevice(path, 8<<20)
	v.BlockSize = 4096
	h, err := p.Open(t.Context(), v)
	must(t, err)
	defer h.Close()
	must(t, os.Truncate(file, 12<<20))
	tool(t, "losetup", "--set-capacity", path)
	size, err := p.DeviceSize(path)
	if err != nil || size != 12<<20 {
		t.Errorf("after it grew the device has %d bytes, %v", size, err)
	}
	wantKind(t, second(p.DeviceSize("/etc/passwd")), store.KindInvalid)
	wantKind(t, second(p.DeviceSize("/dev/lunboot-is-not-there")), store.KindNotFound)
	v.Size = 16 << 20 // larger than what is there
	must(t, h.Close())
	wantKind(t, second(p.Open(t.Context(), v)), store.KindCorrupt)
	// Half blocks of a device only go through the page cache.
	v = onDevice(path, 12<<20)
	v.Direct = true
	e := wantKind(t, second(p.Open(t.Context(), v)), store.KindInvalid)
	if !strings.Contains(e.Msg, "4096") {
		t.Errorf("%q does not name the device's blocks", e.Msg)
	}
}

// TestWhatADeviceIsGivenBackIsFreeAndReadsZero looks at the file below: what is
// discarded takes no room there.
func TestWhatADeviceIsGivenBackIsFreeAndReadsZero(t *testing.T) {
	for _, direct := range []bool{false, true} {
		p := openPool(t, t.TempDir())
		path, file := loop(t, 4<<20, 512)
		v := onDevice(path, 4<<20)
		v.Direct = direct
		h, err := p.Open(t.Context(), v)
		must(t, err)
		must(t, h.WriteAt(t.Context(), bytes.Repeat([]byte{7}, 4<<20), 0))
		must(t, h.Sync(t.Context()))
		full := used(t, file)
		must(t, h.Unmap(t.Context(), 1<<20, 2<<20))
		got := make([]byte, 4<<20)
		must(t, h.ReadAt(t.Context(), got, 0))
		want := append(append(bytes.Repeat([]byte{7}, 1<<20), make([]byte, 2<<20)...), bytes.Repeat([]byte{7}, 1<<20)...)
		if !bytes.Equal(got, want) {
			t.Errorf("direct=%t: what was unmapped does not read zero, or more was", direct)
		}
		must(t, h.Sync(t.Context()))
		if now := used(t, file); now > full-1<<20 {
			t.Errorf("direct=%t: the file below takes %d bytes, %d before: nothing was discarded", direct, now, full)
		}
		must(t, h.Close())
	}
}

func used(t *testing.T, file string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(file, &st))
	return st.Blocks * 512
}

func TestADeviceThatIsHeldSaysByWhom(t *testing.T) {
	p := openPool(t, t.TempDir())
	path, _ := loop(t, 8<<20, 512)
	refused := func(what string, parts ...string) {
		t.Helper()
		_, err := p.Device(path, false)
		e := wantKind(t, err, store.KindInUse)
		for _, part := range parts {
			if !strings.Contains(e.Msg, part) {
				t.Errorf("%s: %q does not say %q", what, e.Msg, part)
			}
		}
	}
	h, err := p.Open(t.Context(), onDevice(path, 8<<20))
	must(t, err)
	refused("open in a volume", "another program holds it", "fuser")
	must(t, h.Close())

	tool(t, "mkfs.ext4", "-q", path)
	at := filepath.Join(t.TempDir(), "a mount")
	must(t, os.Mkdir(at, 0o700))
	tool(t, "mount", path, at)
	refused("mounted", "it is mounted on "+at, "unmount")
	_, err = p.Open(t.Context(), onDevice(path, 8<<20))
	if e := wantKind(t, err, store.KindInUse); !strings.Contains(e.Msg, "mounted on") || e.Cause != store.CauseHeld {
		t.Errorf("opening says %q", e.Msg)
	}
	tool(t, "umount", at)
	if d, err := p.Device(path, false); err != nil || d.Size != 8<<20 {
		t.Errorf("unmounted: %+v, %v", d, err)
	}
}

func TestADeviceThatCanOnlyBeReadIsAttachedReadOnly(t *testing.T) {
	p := openPool(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "disk.img")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	path := tool(t, "losetup", "--find", "--show", "--read-only", file)
	t.Cleanup(func() { tool(t, "losetup", "--detach", path) })
	e := wantKind(t, second(p.Device(path, false)), store.KindDenied)
	if !strings.Contains(e.Msg, "read-only") {
		t.Errorf("it says %q", e.Msg)
	}
	if _, err := p.Device(path, true); err != nil {
		t.Error(err)
	}
}

func TestOnlyDevicesAreLookedAtAsDevices(t *testing.T) {
	p := openPool(t, t.TempDir())
	for path, kind := range map[string]store.Kind{
		"/etc/passwd":                store.KindInvalid,
		"sdb":                        store.KindInvalid,
		"/dev/../etc/passwd":         store.KindInvalid,
		"/dev/null":                  store.KindInvalid,
		"/dev/lunboot-is-not-there":  store.KindNotFound,
		"/dev/disk/by-id/../../null": store.KindInvalid,
	} {
		_, err := p.Device(path, false)
		if e := wantKind(t, err, kind); e.Field != "path" {
			t.Errorf("%s: the error names the field %q", path, e.Field)
		}
	}
}

// tree is a host that a test made up: files of the kernel, and its links.
func tree(t *testing.T, files, links map[string]string) host {
	t.Helper()
	root := t.TempDir()
	put := func(name string, fn func(path string) error) {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, fn(path))
	}
	for name, text := range files {
		put(name, func(path string) error { return os.WriteFile(path, []byte(text), 0o600) })
	}
	for name, to := range links {
		if !strings.HasPrefix(to, "/") {
			to = filepath.Join(root, to)
		}
		put(name, func(path string) error { return os.Symlink(to, path) })
	}
	return host{sys: filepath.Join(root, "sys"), proc: filepath.Join(root, "proc"), dev: filepath.Join(root, "dev")}
}

func TestADeviceIsKnownByTheNameThatItKeeps(t *testing.T) {
	for name, c := range map[string]struct {
		files, links map[string]string
		want         string
	}{
		"no other name": {want: "/dev/null"},
		"a serial before a number": {links: map[string]string{
			"dev/disk/by-id/wwn-0x5000":        "/dev/null",
			"dev/disk/by-id/ata-Maker_Model_1": "/dev/null",
			"dev/disk/by-id/ata-Another":       "/dev/zero",
			"dev/disk/by-id/lvm-pv-uuid-abc":   "/dev/null",
			"dev/disk/by-id/dangling":          "/dev/lunboot-is-not-there",
		}, want: "dev/disk/by-id/ata-Maker_Model_1"},
		"a mapped device": {
			files: map[string]string{"sys/block/null/dm/name": "vg0-lab\n"},
			links: map[string]string{"dev/mapper/vg0-lab": "/dev/null", "dev/disk/by-id/dm-name-vg0-lab": "/dev/null"},
			want:  "dev/mapper/vg0-lab",
		},
	} {
		h := tree(t, c.files, c.links)
		got, err := h.lasting("/dev/null")
		must(t, err)
		if want := strings.Replace(c.want, "dev/", h.dev+"/", 1); got != want && got != c.want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestWhoHoldsADeviceIsFoundInTheKernelsTables(t *testing.T) {
	var null unix.Stat_t
	must(t, unix.Stat("/dev/null", &null)) // 1:3, which stands for the disk's second partition
	files := map[string]string{
		"sys/devices/sda/dev":            "8:0\n",
		"sys/devices/sda/null/dev":       "1:3\n",
		"sys/devices/sda/null/partition": "2\n",
		"sys/devices/sda/sda1/dev":       "8:1\n",
		"sys/devices/sda/sda1/partition": "1\n",
		"proc/self/mountinfo":            "29 1 8:9 / / rw - ext4 /dev/sdz rw\n",
		"proc/swaps":                     "Filename Type Size Used Priority\n",
	}
	links := map[string]string{"sys/dev/block/8:0": "sys/devices/sda", "sys/dev/block/1:3": "sys/devices/sda/null", "sys/dev/block/8:1": "sys/devices/sda/sda1"}
	with := func(name, text string) host {
		all := map[string]string{name: text}
		for k, v := range files {
			if k != name {
				all[k] = v
			}
		}
		return tree(t, all, links)
	}
	for what, c := range map[string]struct{ file, text, want string }{
		"nobody known": {"proc/swaps", "", "another program holds it; fuser -v /dev/null, as root, shows which"},
		"a mount":      {"proc/self/mountinfo", "40 29 1:3 / /srv/the\\040disk rw shared:1 - xfs /dev/sda2 rw\n", "it is mounted on /srv/the disk; unmount it first, and take it out of /etc/fstab"},
		"its disk":     {"sys/devices/sda/holders/md0/x", "", "the disk that it is a part of, /dev/sda, is part of /dev/md0; attach that instead, or take it apart first"},
		"itself":       {"sys/devices/sda/null/holders/dm-4/x", "", "it is part of /dev/dm-4; attach that instead, or take it apart first"},
	} {
		if got := with(c.file, c.text).holder("/dev/null"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
	}
	h := with("sys/block/dm-4/dm/name", "vg0-root")
	must(t, os.MkdirAll(filepath.Join(h.sys, "devices/sda/null/holders/dm-4"), 0o700))
	if got := h.held(unix.Mkdev(1, 3)); got != "/dev/mapper/vg0-root" {
		t.Errorf("a logical volume is called %q", got)
	}
	if disk := h.disk(null.Rdev); disk != unix.Mkdev(8, 0) {
		t.Errorf("the disk of the partition is %d:%d", unix.Major(disk), unix.Minor(disk))
	}
	if parts := h.parts(unix.Mkdev(8, 0)); len(parts) != 2 {
		t.Errorf("the disk has the parts %v", parts)
	}
	if h.swap(null.Rdev) || h.mounted(unix.Mkdev(8, 9)) != "/" {
		t.Error("the tables are read wrong")
	}
}
