package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/iscsitest"
)

// A block device is attached and served as it is: nobody else gets it while its
// machine has it, what the machine gives back goes back to the device, and when
// the device grows the machine is told. A loop device stands for a disk; the file
// below it shows what became of every byte.
func TestABlockDeviceIsServedAsItIs(t *testing.T) {
	for _, how := range []string{"through the page cache", "past the page cache"} {
		t.Run(how, func(t *testing.T) {
			var flags []string
			if strings.HasPrefix(how, "past") {
				flags = []string{"--direct"}
			}
			servesADevice(t, flags)
		})
	}
}

func servesADevice(t *testing.T, flags []string) {
	const mib, name = 1 << 20, "iqn.2026-11.test:lab1"
	losetup := needed(t, "losetup")
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("loop devices need root")
		}
		t.Skip("loop devices need root")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	disk := bytes.Repeat([]byte("what was on the disk before, "), 8*mib/29+1)[:8*mib]
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	device := run(losetup, "--find", "--show", file)
	t.Cleanup(func() { run(losetup, "--detach", device) })
	used := func() int64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}

	a := started(t, dataDir(t))
	a.must(t, append([]string{"volume", "attach", "whole", device}, flags...)...)
	if show := a.must(t, "volume", "show", "whole"); !strings.Contains(show, "8 MiB (16384 blocks of 512 bytes)") || !strings.Contains(show, device) {
		t.Errorf("the volume is\n%s", show)
	}
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5", "--auth", "none", "--iqn", name)
	a.must(t, "mapping", "add", "lab1", "whole", "--lun", "1", "--boot")
	login := func() *iscsitest.Initiator {
		i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: name, Target: a.Target, ISID: iscsitest.Linux(1)})
		_, _ = i.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}) // takes the unit attention
		return i
	}
	i := login()
	must := func(c iscsitest.Command) []byte { t.Helper(); c.LUN = iscsitest.LUN(1); return i.Must(t, c).Data }
	read := func(off, n int) []byte {
		t.Helper()
		cdb := binary.BigEndian.AppendUint32([]byte{0x28, 0}, uint32(off/512))
		return must(iscsitest.Command{CDB: append(cdb, 0, byte(n/512>>8), byte(n/512), 0), Read: n})
	}
	capacity := func() int {
		t.Helper()
		b := must(iscsitest.Command{CDB: plainCDB(0x25, 10), Read: 8})
		return (int(binary.BigEndian.Uint32(b)) + 1) * int(binary.BigEndian.Uint32(b[4:]))
	}
	if got := capacity(); got != 8*mib || !bytes.Equal(read(3*mib, mib/2), disk[3*mib:3*mib+mib/2]) {
		t.Errorf("the machine finds %d bytes, and not those that were on the device", got)
	}

	// While the machine has it, nobody else does.
	if f, err := os.OpenFile(device, os.O_RDONLY|unix.O_EXCL, 0); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("another program opens the device for itself alone: %v", err)
		f.Close()
	}
	if out, err := exec.Command("mkfs.ext4", "-q", device).CombinedOutput(); err == nil {
		t.Errorf("mkfs makes a file system under the machine: %s", out)
	}
	if code, _, errs := cliIn(a.dir, "volume", "attach", "twice", device); code != exitFailed || !strings.Contains(errs, "is volume whole already") {
		t.Errorf("attached twice: %d %s", code, errs)
	}

	// What is written and flushed is on the device; what is given back is freed on
	// it and reads zero, and so does what is written as zeros.
	text := bytes.Repeat([]byte("written"), 147)[:1024]
	must(iscsitest.Write10(1, 0, text))
	copy(disk, text)
	before := used()
	unmap := make([]byte, 24) // SBC-4 §5.28.2
	unmap[1], unmap[3] = 22, 16
	binary.BigEndian.PutUint64(unmap[8:], 1*mib/512)
	binary.BigEndian.PutUint32(unmap[16:], 2*mib/512)
	must(iscsitest.Command{CDB: []byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, Write: unmap, Immediate: 24})
	clear(disk[mib : 3*mib])
	for at, bits := range map[int]byte{4 * mib: 0x08, 6 * mib: 0} { // UNMAP=1, and plain zeros
		cdb := plainCDB(0x93, 16) // WRITE SAME(16)
		cdb[1] = bits
		binary.BigEndian.PutUint64(cdb[2:], uint64(at/512))
		binary.BigEndian.PutUint32(cdb[10:], mib/512)
		must(iscsitest.Command{CDB: cdb, Write: make([]byte, 512), Immediate: 512})
		clear(disk[at : at+mib])
	}
	must(iscsitest.Sync10(1))
	for off := 0; off < 8*mib; off += mib {
		if !bytes.Equal(read(off, mib), disk[off:off+mib]) {
			t.Errorf("the MiB at %d is not what the machine made of it", off/mib)
		}
	}
	below, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(below, disk) {
		t.Errorf("the device differs from what the machine flushed: %v", err)
	}
	if freed := before - used(); freed < 3*mib-64<<10 {
		t.Errorf("%d KiB were freed below, of 3 MiB that were given back", freed>>10)
	}

	// It grows by its own tools; the machine is told when the volume follows.
	if err := os.Truncate(file, 12*mib); err != nil {
		t.Fatal(err)
	}
	run(losetup, "--set-capacity", device)
	if code, _, errs := cliIn(a.dir, "volume", "resize", "whole", "16M"); code != exitFailed || !strings.Contains(errs, "12 MiB") {
		t.Errorf("larger than the device: %d %s", code, errs)
	}
	a.must(t, "volume", "resize", "whole", "12M")
	if r, err := i.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}); err != nil || r.Key() != "06/2A/09" {
		t.Errorf("after it grew the machine is told %s, %v", r.Key(), err)
	}
	if got := capacity(); got != 12*mib {
		t.Errorf("it has %d bytes after it grew", got)
	}
	must(iscsitest.Write10(1, 12*mib/512-2, text))
	disk = append(disk, make([]byte, 4*mib)...)
	copy(disk[12*mib-1024:], text)

	// Logged out, it is exported as a file, and given back as it is.
	a.must(t, "session", "drop", sessionOf(t, a))
	image := filepath.Join(t.TempDir(), "exported")
	a.must(t, "volume", "export", "whole", image)
	if b, err := os.ReadFile(image); err != nil || !bytes.Equal(b, disk) {
		t.Errorf("the exported image differs from the device: %v", err)
	}
	a.must(t, "mapping", "remove", "lab1", "1")
	a.must(t, "volume", "remove", "whole")
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatalf("the device is still held: %v", err)
	}
	f.Close()
	if below, err = os.ReadFile(file); err != nil || !bytes.Equal(below, disk) {
		t.Errorf("removing the volume changed the device: %v", err)
	}
}

// plainCDB is a CDB of so many bytes with nothing but its opcode.
func plainCDB(op byte, n int) []byte { return append([]byte{op}, make([]byte, n-1)...) }

// sessionOf is the only session's id.
func sessionOf(t *testing.T, a *testAppliance) string {
	t.Helper()
	fields := strings.Fields(strings.SplitN(a.must(t, "session", "list"), "\n", 3)[1])
	if len(fields) == 0 {
		t.Fatal("nobody is logged in")
	}
	return fields[0]
}
