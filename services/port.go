package services

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Holder is who holds a port.
type Holder struct {
	Name string // the program's; empty when it cannot be told
	PID  int
	Stop string // the command that stops it for good
}

// String names the holder, as "dnsmasq (pid 812)".
func (h Holder) String() string {
	if h.Name == "" {
		return "another program"
	}
	return fmt.Sprintf("%s (pid %d)", h.Name, h.PID)
}

// PortHolder names the process that holds a local port, as "dnsmasq (pid 812)",
// or returns "" when nobody does or it cannot be told (another user's process
// without the right to look). network begins with "udp" or "tcp".
func PortHolder(network string, port int) string {
	h, _ := HolderOf(network, port)
	if h.Name == "" {
		return ""
	}
	return h.String()
}

// HolderOf finds who holds a local port; held is false when nobody does. A
// holder without a name cannot be told: another user's process without the
// right to look, or the kernel itself. network begins with "udp" or "tcp".
func HolderOf(network string, port int) (h Holder, held bool) {
	network = strings.TrimRight(network, "46")
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/" + network, "/proc/net/" + network + "6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for _, inode := range socketInodes(bufio.NewScanner(f), network, port) {
			inodes["socket:["+inode+"]"] = true
		}
		f.Close()
	}
	if len(inodes) == 0 {
		return Holder{}, false
	}
	return holderOf(inodes, network, port), true
}

// HolderOfSocket finds who has a socket open, by its inode; port is the one
// that it is bound to.
func HolderOfSocket(inode uint32, network string, port int) Holder {
	return holderOf(map[string]bool{fmt.Sprintf("socket:[%d]", inode): true}, network, port)
}

func holderOf(inodes map[string]bool, network string, port int) (h Holder) {
	// A descriptor that cannot be read belongs to somebody whom we may not
	// look at; the search goes on, since another process may hold it too.
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			continue
		}
		cgroup, _ := os.ReadFile("/proc/" + pid + "/cgroup")
		cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		h = Holder{Name: strings.TrimSpace(string(name)), PID: n}
		h.Stop = stopCommand(h, string(cgroup), strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"), port)
		return h
	}
	h.Stop = fmt.Sprintf("ss -lpn sport = :%d", port)
	if _, err := os.Stat("/sys/kernel/config/target/iscsi"); err == nil && network == "tcp" && port == 3260 {
		h.Stop = "targetcli clearconfig confirm=True" // the kernel's own target has no process
	}
	return h
}

// stopCommand is the command that stops a program for good: that of whoever
// started it, since it comes back otherwise.
func stopCommand(h Holder, cgroup string, cmdline []string, port int) string {
	unit := unitOf(cgroup)
	switch {
	case h.Name == "docker-proxy":
		return fmt.Sprintf("docker stop $(docker ps -q --filter publish=%d)", port)
	case h.Name == "conmon" || h.Name == "rootlessport":
		return "podman ps, then podman stop NAME"
	case h.PID == 1:
		return fmt.Sprintf("systemctl list-sockets | grep ':%d', then systemctl disable --now NAME.socket", port)
	case h.Name == "dnsmasq" && (strings.HasPrefix(unit, "libvirt") || strings.HasPrefix(unit, "virtnetworkd")):
		name := "NAME"
		for _, a := range cmdline { // --conf-file=/var/lib/libvirt/dnsmasq/default.conf
			if conf, ok := strings.CutPrefix(a, "--conf-file="); ok {
				name = strings.TrimSuffix(filepath.Base(conf), ".conf")
			}
		}
		return fmt.Sprintf("virsh net-destroy %s && virsh net-autostart %s --disable", name, name)
	case h.Name == "dnsmasq" && slices.ContainsFunc(cmdline, func(a string) bool { return strings.Contains(a, "/lxc/") }):
		return "systemctl disable --now lxc-net"
	case h.Name == "dnsmasq" && slices.ContainsFunc(cmdline, func(a string) bool {
		return strings.Contains(a, "/lxd/") || strings.Contains(a, "/incus/")
	}):
		return "lxc network list, then lxc network set NAME ipv4.dhcp false"
	case unit != "":
		return "systemctl disable --now " + unit
	}
	return "kill " + strconv.Itoa(h.PID)
}

// unitOf reads the systemd unit out of /proc/PID/cgroup, "" when there is none.
func unitOf(cgroup string) string {
	for part := range strings.FieldsFuncSeq(cgroup, func(r rune) bool { return r == '/' || r == '\n' }) {
		if unit, ok := strings.CutSuffix(part, ".service"); ok && !strings.HasPrefix(unit, "user@") {
			return unit
		}
	}
	return ""
}

// socketInodes reads a table of /proc/net (proc_net_tcp.txt: the second column
// is the local address in hexadecimal, the fourth the state, the tenth the
// inode) and returns the inodes of the sockets that hold port.
func socketInodes(lines *bufio.Scanner, network string, port int) []string {
	const listening = "0A"
	var out []string
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 {
			continue
		}
		_, hex, found := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !found || err != nil || int(n) != port {
			continue
		}
		if network == "tcp" && f[3] != listening || f[9] == "0" {
			continue
		}
		out = append(out, f[9])
	}
	return out
}

// ListenError says in one sentence why an address could not be had, who holds
// it and which flag chooses another.
func ListenError(what, network, addr, flag string, err error) error {
	_, port, splitErr := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE) && splitErr == nil:
		holder, _ := HolderOf(network, n)
		way := ""
		if holder.Name != "" {
			way = " (" + holder.Stop + ")"
		}
		return fmt.Errorf("%s: %s port %d is taken by %s; stop it%s, or choose another address with %s: %w", what, network, n, holder, way, flag, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: no permission for %s port %d; run as root or with the capability NET_BIND_SERVICE, or choose a port above 1023 with %s: %w", what, network, n, flag, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: no interface has the address of %s; choose another with %s: %w", what, addr, flag, err)
	}
	return fmt.Errorf("%s: cannot listen on %s %s (%s): %w", what, network, addr, flag, err)
}
