package lab

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lunboot/cmd/netlab/lab/area"
)

// Kernel is a Linux that QEMU loads by itself.
type Kernel struct{ Image, Initrd string }

// workbenchModules is what Linux's initiator needs where no iBFT is.
var workbenchModules = []string{"crc32c_generic", "virtio_pci", "virtio_net", "iscsi_tcp", "sd_mod", "ext4"}

// workbenchPrograms come from the unpacked packages, hostPrograms from the
// packages that the lab installs anyway.
var (
	workbenchPrograms = []string{"sbin/iscsid", "sbin/iscsiadm"}
	hostPrograms      = []string{"sbin/mke2fs", "sbin/e2fsck"}
)

// BuildWorkbench makes the kernel and the initial RAM disk of a workbench in
// the lab's folder: a Linux that runs commands, with its own initiator and the
// tools that are named, programs of the host by their path below /. Workbenches
// with the same tools share one.
func (l *Lab) BuildWorkbench(ctx context.Context, tools ...string) (*Kernel, error) {
	key := strings.Join(tools, " ")
	if k := l.workbenches[key]; k != nil {
		return k, nil
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	guest, err := buildGuest(ctx, cache)
	if err != nil {
		return nil, err
	}
	list, err := versions(ctx)
	if err != nil {
		return nil, err
	}
	// A folder of its own: QEMU maps the files of a machine that runs.
	dir := filepath.Join(l.Dir, fmt.Sprintf("workbench%d", len(l.workbenches)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	parts, err := unpack(ctx, cache, dir, list)
	if err != nil {
		return nil, err
	}
	image, err := workbenchInitrd(parts, guest, tools)
	if err != nil {
		return nil, fmt.Errorf("the workbench's initial RAM disk: %w", err)
	}
	k := &Kernel{Image: parts.kernel, Initrd: filepath.Join(dir, "initrd")}
	if err := os.WriteFile(k.Initrd, image, 0o600); err != nil {
		return nil, err
	}
	l.workbenches[key] = k
	return k, nil
}

func workbenchInitrd(parts linuxParts, guest []byte, tools []string) ([]byte, error) {
	order, images, err := modules(parts.modules, workbenchModules...)
	if err != nil {
		return nil, err
	}
	c := newCPIO()
	for _, dir := range []string{"dev", "proc", "sys", "run/lock/iscsi", "tmp", "mnt", "etc/iscsi/nodes", "etc/iscsi/send_targets"} {
		c.dir(dir)
	}
	c.entry("dev/console", modeChar, 5, 1, nil)
	c.file("init", guest)
	for _, from := range []struct {
		root  string
		paths []string
	}{{parts.unpacked, workbenchPrograms}, {"/", slices.Concat(hostPrograms, tools)}} {
		files, err := programs(from.root, from.paths...)
		if err != nil {
			return nil, err
		}
		for _, name := range sortedKeys(files) {
			c.file(name, files[name])
		}
	}
	busybox, err := os.ReadFile(filepath.Join(parts.unpacked, "bin/busybox"))
	if err != nil {
		return nil, err
	}
	c.file("bin/busybox", busybox)
	c.file("etc/passwd", []byte("root:x:0:0:root:/:/bin/false\n"))
	c.file("etc/iscsi/iscsid.conf", []byte(strings.Replace(iscsidConfig, "node.startup = automatic", "node.startup = manual", 1)))
	for _, name := range order {
		c.file("modules/"+name, images[name])
	}
	c.file("modules/order", []byte(strings.Join(order, "\n")+"\n"))
	return c.bytes(), nil
}

// Workbench is a running Linux that does what it is told.
type Workbench struct {
	*Running
	commands int
}

// StartWorkbench switches a workbench on, gives it an address and starts its
// iSCSI daemon under the initiator's name. The tools are BuildWorkbench's.
func (l *Lab) StartWorkbench(ctx context.Context, m Machine, address, initiator string, tools ...string) (*Workbench, error) {
	var err error
	if m.Kernel, err = l.BuildWorkbench(ctx, tools...); err != nil {
		return nil, err
	}
	r, err := l.PowerOn(ctx, m)
	if err != nil {
		return nil, err
	}
	return AtWorkbench(ctx, r, address, initiator)
}

// AtWorkbench takes over a machine that was switched on and starts a workbench, however
// it came by that: as StartWorkbench does from there on.
func AtWorkbench(ctx context.Context, r *Running, address, initiator string) (*Workbench, error) {
	w := &Workbench{Running: r}
	if _, err := r.waitMark(ctx, area.MarkReady); err != nil {
		return w, err
	}
	_, err := w.Must(ctx, fmt.Sprintf(`/bin/busybox --install -s /bin
ip link set lo up; ip link set eth0 up; ip addr add %s/%d dev eth0
echo InitiatorName=%s >/etc/iscsi/initiatorname.iscsi
mkdir -p /run/lock/iscsi; iscsid`, address, ServerPrefix.Bits(), initiator))
	return w, err
}

// Do runs a shell script on the workbench; it returns what the script printed
// and its exit status.
func (w *Workbench) Do(ctx context.Context, script string) (string, int, error) {
	w.commands++
	if err := w.Type(base64.StdEncoding.EncodeToString([]byte(script)) + "\n"); err != nil {
		return "", 0, err
	}
	m, err := w.Console.WaitFor(ctx, fmt.Sprintf(`(?s)\A(.*?)\n%s %d (\d+)\n`, area.MarkExit, w.commands))
	if err != nil {
		return "", 0, err
	}
	status := 0
	_, err = fmt.Sscan(m.Groups[2], &status)
	return strings.TrimSpace(m.Groups[1]), status, err
}

// Must is Do for a script that has to succeed.
func (w *Workbench) Must(ctx context.Context, script string) (string, error) {
	out, status, err := w.Do(ctx, script)
	if err == nil && status != 0 {
		err = fmt.Errorf("%s: exit status %d: %s", script, status, out)
	}
	return out, err
}
