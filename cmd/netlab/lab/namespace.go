package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network of its own with nothing in it but loopback: a server
// that wants a well-known port has it there, and meets nobody.
type Namespace struct{ Name string }

// NewNamespace makes one. Close removes it.
func NewNamespace(ctx context.Context) (Namespace, error) {
	if os.Geteuid() != 0 {
		return Namespace{}, errors.New("a network namespace can be made only by root: run it as root")
	}
	var id [3]byte
	rand.Read(id[:])
	name, err := ownName(hex.EncodeToString(id[:]) + "-lo")
	if err != nil {
		return Namespace{}, err
	}
	if _, err := Run(ctx, Command{Path: "ip", Args: []string{"netns", "add", name}}); err != nil {
		return Namespace{}, err
	}
	n := Namespace{name}
	// A resolver with AI_ADDRCONFIG, such as tftpd-hpa's, finds no IPv4 address at
	// all where there is none but loopback's own (getaddrinfo(3)).
	if err := shell(ctx, name, "ip link set lo up\nip addr add 192.0.2.1/32 dev lo"); err != nil {
		return Namespace{}, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close ends what still runs in the namespace and removes it.
func (n Namespace) Close() error {
	// Removal must work when the run was cancelled, too.
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return removeNamespace(ctx, n.Name)
}

// Do runs f on a thread inside the namespace: sockets that f itself opens belong
// to it, wherever they are used later. Goroutines that f starts run outside.
func (n Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: the runtime ends it with the goroutine,
		// and nobody else is ever run in the wrong network.
		runtime.LockOSThread()
		fd, err := unix.Open(filepath.Join("/run/netns", n.Name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Close(fd))
		}
		if err != nil {
			done <- fmt.Errorf("entering the network namespace %s: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}
