package services

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PortHolder names the process that holds a local port, as "dnsmasq (pid 812)",
// or returns "" when nobody does or it cannot be told (another user's process
// without the right to look). network begins with "udp" or "tcp".
func PortHolder(network string, port int) string {
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
		return ""
	}
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
		return strings.TrimSpace(string(name)) + " (pid " + pid + ")"
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
		holder := PortHolder(network, n)
		if holder == "" {
			holder = "another program"
		}
		return fmt.Errorf("%s: %s port %d is taken by %s; stop it, or choose another address with %s: %w", what, network, n, holder, flag, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: no permission for %s port %d; run as root or with the capability NET_BIND_SERVICE, or choose a port above 1023 with %s: %w", what, network, n, flag, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: no interface has the address of %s; choose another with %s: %w", what, addr, flag, err)
	}
	return fmt.Errorf("%s: cannot listen on %s %s (%s): %w", what, network, addr, flag, err)
}
