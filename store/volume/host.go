package volume

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// host is where the kernel tells about its devices. Tests have one of their own.
type host struct{ sys, proc, dev string }

func thisHost() host { return host{sys: "/sys", proc: "/proc", dev: "/dev"} }

// look opens a device for a moment.
func (h host) look(path string, write bool) (Device, error) {
	path, err := h.lasting(path)
	if err != nil {
		return Device{}, err
	}
	d, err := openDevice(path, write, false)
	if err != nil {
		return Device{}, err
	}
	defer d.Close()
	size, err := d.Size()
	if err != nil {
		return Device{}, err
	}
	if size == 0 {
		return Device{}, store.Invalid("path", "%s has no bytes; there is nothing in this device", path)
	}
	if write {
		if only, err := unix.IoctlGetUint32(d.fd, unix.BLKROGET); err == nil && only != 0 {
			return Device{}, syscall.EROFS
		}
	}
	return Device{Path: path, Size: size, BlockSize: int(d.block)}, nil
}

// lasting returns the name of a device that stays the same from start to start.
// A link is one already, somebody chose it; of those that udev makes for a bare
// kernel name the device's own serial is best.
func (h host) lasting(path string) (string, error) {
	if err := checkDevice(path); err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil || real != path {
		return path, err
	}
	name := filepath.Base(real)
	if dm, err := os.ReadFile(filepath.Join(h.sys, "block", name, "dm/name")); err == nil {
		link := filepath.Join(h.dev, "mapper", strings.TrimSpace(string(dm)))
		if to, err := filepath.EvalSymlinks(link); err == nil && to == real {
			return link, nil
		}
	}
	links, err := os.ReadDir(filepath.Join(h.dev, "disk/by-id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var names []string
	for _, l := range links {
		link := filepath.Join(h.dev, "disk/by-id", l.Name())
		// That of a physical volume is LVM's and goes with it.
		if to, err := filepath.EvalSymlinks(link); err == nil && to == real && !strings.HasPrefix(l.Name(), "lvm-pv-") {
			names = append(names, link)
		}
	}
	if len(names) == 0 {
		return path, nil
	}
	return slices.MinFunc(names, func(a, b string) int {
		if wa, wb := opaque(a), opaque(b); wa != wb {
			return wa - wb
		}
		return strings.Compare(a, b)
	}), nil
}

// opaque ranks the links of udev: those that people can read, maker, model and
// serial, come first.
func opaque(link string) int {
	name := filepath.Base(link)
	if strings.HasPrefix(name, "wwn-") || strings.HasPrefix(name, "nvme-eui.") || strings.HasPrefix(name, "scsi-3") {
		return 1
	}
	return 0
}

// folder is a device's own below /sys, with links resolved.
func (h host) folder(number uint64) (string, error) {
	return filepath.EvalSymlinks(filepath.Join(h.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))))
}

// disk is the number of the whole disk that a partition is a part of, or of the
// device itself.
func (h host) disk(number uint64) uint64 {
	dir, err := h.folder(number)
	if err != nil {
		return number
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		return number
	}
	if whole, ok := readNumber(filepath.Join(filepath.Dir(dir), "dev")); ok {
		return whole
	}
	return number
}

func readNumber(path string) (uint64, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(b), "%d:%d", &major, &minor); err != nil {
		return 0, false
	}
	return unix.Mkdev(major, minor), true
}

// holder says in a sentence who holds a device, its whole disk or a part of it.
func (h host) holder(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "the device is held by another program"
	}
	disk := h.disk(st.Rdev)
	who := func(number uint64) string {
		switch name := h.name(number); {
		case number == st.Rdev:
			return "it"
		case disk != st.Rdev:
			return "the disk that it is a part of, " + name + ","
		default:
			return "its part " + name
		}
	}
	all := []uint64{st.Rdev}
	if disk != st.Rdev {
		all = append(all, disk)
	} else {
		all = append(all, h.parts(disk)...)
	}
	for _, number := range all {
		if at := h.mounted(number); at != "" {
			return fmt.Sprintf("%s is mounted on %s; unmount it first, and take it out of /etc/fstab", who(number), at)
		}
		if h.swap(number) {
			return fmt.Sprintf("%s is swap space of the appliance; end that first, with swapoff", who(number))
		}
		if by := h.held(number); by != "" {
			return fmt.Sprintf("%s is part of %s; attach that instead, or take it apart first", who(number), by)
		}
	}
	return "another program holds it; fuser -v " + path + ", as root, shows which"
}

// name is how the kernel calls a device.
func (h host) name(number uint64) string {
	dir, err := h.folder(number)
	if err != nil {
		return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	}
	return "/dev/" + filepath.Base(dir)
}

// parts are the partitions of a disk.
func (h host) parts(disk uint64) (out []uint64) {
	dir, err := h.folder(disk)
	if err != nil {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(dir, "*/partition"))
	if err != nil {
		return nil
	}
	for _, p := range found {
		if number, ok := readNumber(filepath.Join(filepath.Dir(p), "dev")); ok {
			out = append(out, number)
		}
	}
	return out
}

// mounted is where a device is mounted, empty when it is not
// (proc_pid_mountinfo(5)). Some file systems have a number of their own and
// only name the device.
func (h host) mounted(number uint64) string {
	f, err := os.Open(filepath.Join(h.proc, "self/mountinfo"))
	if err != nil {
		return ""
	}
	defer f.Close()
	want := fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	for s := bufio.NewScanner(f); s.Scan(); {
		fields, source, _ := strings.Cut(s.Text(), " - ")
		words := strings.Fields(fields)
		if len(words) < 5 {
			continue
		}
		at := unescape.Replace(words[4])
		if words[2] == want {
			return at
		}
		if from := strings.Fields(source); len(from) > 1 && isDevice(from[1], number) {
			return at
		}
	}
	return ""
}

// unescape turns the octal escapes of the kernel's tables back.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func isDevice(path string, number uint64) bool {
	var st unix.Stat_t
	return strings.HasPrefix(path, "/dev/") && unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == number
}

func (h host) swap(number uint64) bool {
	f, err := os.Open(filepath.Join(h.proc, "swaps"))
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) > 0 && isDevice(unescape.Replace(words[0]), number) {
			return true
		}
	}
	return false
}

// held names what stands on a device: a volume group, a RAID, an encrypted
// device.
func (h host) held(number uint64) string {
	dir, err := h.folder(number)
	if err != nil {
		return ""
	}
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil || len(holders) == 0 {
		return ""
	}
	name := holders[0].Name()
	if dm, err := os.ReadFile(filepath.Join(h.sys, "block", name, "dm/name")); err == nil {
		return "/dev/mapper/" + strings.TrimSpace(string(dm))
	}
	return "/dev/" + name
}
