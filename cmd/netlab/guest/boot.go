//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/lab/area"
)

const (
	sysroot = "/sysroot"
	ibft    = "/sys/firmware/ibft"
	patient = 20 * time.Second // for devices to appear; the machine may be emulated on a busy host
)

// boot is process 1. It returns when the machine may power off.
func boot() error {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	os.Setenv("PATH", "/sbin:/usr/sbin:/bin:/usr/bin")
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if line, err := os.ReadFile("/proc/cmdline"); err == nil && strings.Contains(string(line), area.Workbench) {
		return workbench()
	}
	targets, _ := filepath.Glob(ibft + "/target*")
	if len(targets) == 0 {
		return fmt.Errorf("the firmware left no iBFT: nothing in %s", ibft)
	}
	target := targets[0]
	if hostname := attribute(nicDir(), "hostname"); hostname != "" {
		if err := syscall.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("setting the host name %q: %w", hostname, err)
		}
	}
	if err := run("/sbin/iscsistart", "-N"); err != nil {
		return fmt.Errorf("bringing up the network of the iBFT: %w", err)
	}
	if err := run("/sbin/iscsistart", "-b", "-P", "node.session.timeo.replacement_timeout=120"); err != nil {
		return fmt.Errorf("logging in to %s: %w", attribute(target, "target-name"), err)
	}
	lun, err := ibftLUN(attribute(target, "lun"))
	if err != nil {
		return err
	}
	disk, err := waitDisk(lun)
	if err != nil {
		return err
	}
	part := disk + "2"
	if err := waitFile(part); err != nil {
		return err
	}
	if err := os.MkdirAll(sysroot, 0o755); err != nil {
		return err
	}
	// The node is there a moment before the kernel can open the partition.
	var mounted error
	err = wait("a root file system on "+part, func() bool {
		mounted = syscall.Mount(part, sysroot, "ext4", 0, "")
		return !errors.Is(mounted, syscall.ENXIO)
	})
	if err := errors.Join(err, mounted); err != nil {
		return fmt.Errorf("mounting the root file system %s: %w", part, err)
	}
	for _, at := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := syscall.Mount(at, sysroot+at, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s below the root file system: %w", at, err)
		}
	}
	if err := adopt(); err != nil {
		return err
	}
	stage2 := exec.Command("/sbin/guest", disk)
	stage2.SysProcAttr = &syscall.SysProcAttr{Chroot: sysroot}
	stage2.Dir = "/"
	stage2.Stdout, stage2.Stderr = os.Stdout, os.Stdout
	if err := stage2.Run(); err != nil {
		return fmt.Errorf("the program on the volume: %w", err)
	}
	for _, at := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := syscall.Unmount(sysroot+at, 0); err != nil && !errors.Is(err, syscall.EBUSY) { // iscsid's own files
			return fmt.Errorf("unmounting %s: %w", at, err)
		}
	}
	// iscsid still runs from the root file system, and the session must
	// outlive the last write: the file system is made read-only, which writes
	// everything back, and the machine ends with the session open, as real
	// machines do.
	if err := syscall.Mount("", sysroot, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("making the root file system read-only: %w", err)
	}
	fmt.Printf("\n%s\n", area.MarkDone)
	return nil
}

// loadModules inserts the modules that dir/order names, in that order.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		image, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, syscall.EEXIST) {
			return fmt.Errorf("loading the module %s: %w", name, err)
		}
	}
	return nil
}

// adopt starts iscsid on the root file system and waits until it has taken
// over the session that iscsistart left behind. iscsistart ends after the
// login; without a daemon nobody would log in again when the connection
// breaks. iscsid finds the session, its CHAP names and secrets in sysfs.
func adopt() error {
	name := attribute(ibft+"/initiator", "initiator-name")
	if err := os.WriteFile("/run/initiatorname.iscsi", []byte("InitiatorName="+name+"\n"), 0o600); err != nil {
		return err
	}
	daemon := exec.Command("/sbin/iscsid", "-f", "-d", "1", "-c", "/etc/iscsi/iscsid.conf", "-i", "/run/initiatorname.iscsi")
	daemon.SysProcAttr = &syscall.SysProcAttr{Chroot: sysroot}
	daemon.Dir = "/"
	out, err := daemon.StderrPipe()
	if err != nil {
		return err
	}
	daemon.Stdout = daemon.Stderr
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("starting iscsid: %w", err)
	}
	ready := make(chan struct{})
	go relay(out, ready)
	select {
	case <-ready:
		fmt.Printf("\n%s by iscsid, process %d\n", area.MarkAdopted, daemon.Process.Pid)
		return nil
	case <-time.After(3 * patient):
		return errors.New("iscsid did not take the session over")
	}
}

// relay prints what iscsid says, and closes ready when it says that it has the
// session.
func relay(r io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		fmt.Printf("%s\n", line)
		if ready != nil && strings.Contains(line, "is operational") {
			close(ready)
			ready = nil
		}
	}
}

func run(path string, args ...string) error {
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), io.MultiWriter(os.Stdout, &out)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// ibftLUN reads the kernel's spelling of the 8-byte LUN: each byte in
// hexadecimal, without leading zeros. "02000000" is LUN 2, and "412c000000" is
// LUN 300 in flat space addressing (SAM-5 §4.7.7.3). It returns the first 16
// bits as a number, which is the LUN that Linux names the disk by.
func ibftLUN(s string) (int, error) {
	number, found := strings.CutSuffix(s, "000000")
	var first string
	switch {
	case strings.HasPrefix(number, "0"):
		first, number = number[:1], number[1:]
	case len(number) > 2:
		first, number = number[:2], number[2:]
	default:
		found = false
	}
	high, err1 := strconv.ParseUint(first, 16, 8)
	low, err2 := strconv.ParseUint(number, 16, 8)
	if !found || err1 != nil || err2 != nil || high != 0 && high < 0x40 {
		return 0, fmt.Errorf("the iBFT names LUN %q, which this lab cannot read", s)
	}
	return int(high)<<8 | int(low), nil
}

// nicDir is the iBFT's directory of the card that was booted from.
func nicDir() string {
	dirs, _ := filepath.Glob(ibft + "/ethernet*")
	if len(dirs) == 0 {
		return ibft + "/ethernet0"
	}
	return dirs[0]
}

// attribute reads one sysfs attribute; empty when it is not there.
func attribute(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), " \n\x00")
}

// wait polls until ready says yes. Devices announce themselves by uevents too,
// but a lab's one disk is not worth a netlink listener.
func wait(what string, ready func() bool) error {
	for end := time.Now().Add(patient); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ready() {
			return nil
		}
	}
	return fmt.Errorf("%s did not appear in %v", what, patient)
}

func waitFile(path string) error {
	return wait(path, func() bool { _, err := os.Stat(path); return err == nil })
}

// waitDisk waits for the SCSI disk with that LUN. The login scans all LUNs of
// the target, and the one that the firmware booted from is this one.
func waitDisk(lun int) (string, error) {
	pattern := fmt.Sprintf("/sys/class/scsi_disk/*:%d/device/block/*", lun)
	var found []string
	err := wait(fmt.Sprintf("the disk of LUN %d", lun), func() bool {
		found, _ = filepath.Glob(pattern)
		return len(found) > 0
	})
	if err != nil {
		return "", err
	}
	disk := "/dev/" + filepath.Base(found[0])
	return disk, waitFile(disk)
}
