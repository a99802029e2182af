package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"lunboot/services"
)

// socketGroup may talk to the appliance through its socket.
const socketGroup = "lunboot"

// kept are the only capabilities that the appliance needs (capabilities(7)):
// ports below 1024, and DHCP replies to machines that have no address yet.
const kept = 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_NET_RAW

// confine gives up every right of root but those kept, before the first packet.
// Root looks first whether the ports can be had: later nobody could say who
// holds them. Who is not root has what their starter chose.
func (c *serveCmd) confine(log *slog.Logger) error {
	have, err := capabilities()
	if err == nil && (os.Geteuid() != 0 || have.permitted()&^kept == 0) {
		return nil
	}
	if err == nil {
		if err := c.bindable(); err != nil {
			return err
		}
		if err := joinSocketGroup(); err != nil {
			log.Warn("the socket stays root's alone", "reason", err)
		}
		err = restart(have)
	}
	log.Warn("all rights of root are kept", "reason", err)
	return nil
}

// restart starts the program again with only the kept capabilities. A thread
// can drop only its own, and this process has several already; execve(2) leaves
// one, with the rights of the thread that called it. It returns only when that
// fails.
func restart(have capSets) error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else is to get this thread
		if err := drop(have); err != nil {
			failed <- err
			return
		}
		failed <- fmt.Errorf("start %s again: %w", path, syscall.Exec(path, os.Args, os.Environ()))
	}()
	return <-failed
}

// capSets are the sets of a thread: two words of 32 bits each (capget(2)).
type capSets [2]unix.CapUserData

func (c capSets) permitted() uint64 { return uint64(c[1].Permitted)<<32 | uint64(c[0].Permitted) }

func capabilities() (c capSets, err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err = unix.Capget(&h, &c[0]); err != nil {
		err = fmt.Errorf("read our capabilities: %w", err)
	}
	return c, err
}

// drop leaves the calling thread's next execve no capability but those kept:
// root gets there what is inheritable and what the bounding set holds. Until
// then the thread keeps its rights, since the program may lie in a folder that
// only they open.
func drop(have capSets) error {
	for c := 0; ; c++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // beyond the kernel's last one
		}
		if err != nil {
			return fmt.Errorf("read the capability bounding set: %w", err)
		}
		if in == 0 || kept&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	have[0].Inheritable, have[1].Inheritable = 0, 0
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&h, &have[0]); err != nil {
		return fmt.Errorf("clear the inheritable capabilities: %w", err)
	}
	return nil
}

// joinSocketGroup makes us a member of the group that the socket is given to:
// without CAP_CHOWN an owner can give a file to their own groups only.
func joinSocketGroup() error {
	g, err := user.LookupGroup(socketGroup)
	if err != nil {
		return nil // there is none: the socket stays root's
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("group %s: %w", socketGroup, err)
	}
	groups, err := syscall.Getgroups()
	if err != nil || slices.Contains(groups, gid) {
		return err
	}
	if err := syscall.Setgroups(append(groups, gid)); err != nil {
		return fmt.Errorf("join group %s: %w", socketGroup, err)
	}
	return nil
}

// bindable tries each listener's address and lets it go again. Root does so
// before it gives its rights up, as it can still say who holds a port.
func (c *serveCmd) bindable() error {
	for _, l := range []struct{ what, network, addr, flag string }{
		{"iSCSI", "tcp", c.ISCSI, "--iscsi"},
		{"boot HTTP", "tcp", c.Boot, "--boot"},
		{"admin HTTP", "tcp", c.Admin, "--admin"},
		{"TFTP", "udp4", c.TFTP, "--tftp"},
	} {
		var bound io.Closer
		var err error
		if l.network == "tcp" {
			bound, err = net.Listen(l.network, l.addr)
		} else {
			bound, err = net.ListenPacket(l.network, l.addr)
		}
		if err != nil {
			return services.ListenError(l.what, l.network, l.addr, l.flag, err)
		}
		if err := bound.Close(); err != nil {
			return err
		}
	}
	return nil
}
