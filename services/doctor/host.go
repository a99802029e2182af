package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Host is this machine as the checks see it. Tests give their own.
type Host struct {
	ReadFile func(path string) ([]byte, error)
	ReadDir  func(path string) ([]string, error) // the names in it
	// Run runs a command and returns what it printed; the error is
	// exec.ErrNotFound when there is no such command.
	Run  func(ctx context.Context, name string, args ...string) ([]byte, error)
	Free func(dir string) (int64, error) // bytes that we may still write
	// Synchronised reports whether the kernel's clock follows another one.
	Synchronised func() (bool, error)
	// Interface finds a network interface and our IPv4 addresses on it.
	Interface func(name string) (*net.Interface, []netip.Prefix, error)
	Now       func() time.Time
}

// commandTime is how long one command may take.
const commandTime = 5 * time.Second

// ThisHost is the machine that the program runs on.
func ThisHost() Host {
	return Host{
		ReadFile: os.ReadFile,
		ReadDir: func(path string) ([]string, error) {
			entries, err := os.ReadDir(path)
			var out []string
			for _, e := range entries {
				out = append(out, e.Name())
			}
			return out, err
		},
		Run: func(ctx context.Context, name string, args ...string) ([]byte, error) {
			path, err := lookPath(name)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithTimeout(ctx, commandTime)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, args...)
			cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
			cmd.WaitDelay = time.Second
			return cmd.Output()
		},
		Free: func(dir string) (int64, error) {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				return 0, err
			}
			return int64(st.Bavail) * st.Bsize, nil
		},
		Synchronised: func() (bool, error) {
			// The kernel's own word, which every time daemon sets (adjtimex(2)).
			state, err := unix.Adjtimex(&unix.Timex{})
			return state != unix.TIME_ERROR, err
		},
		Interface: networkInterface,
		Now:       time.Now,
	}
}

// lookPath finds a program of the system's administrator, whose folders are not
// in everybody's PATH.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if st, statErr := os.Stat(dir + name); statErr == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	return "", errors.Join(exec.ErrNotFound, err)
}

func networkInterface(name string) (*net.Interface, []netip.Prefix, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, err
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil, nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p)
		}
	}
	return ifi, out, nil
}
