package session

import (
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Short calls on the socket go to the kernel as they are. They never wait, since
// the socket is non-blocking, so the runtime need not be told of them: what it does
// about a call that may wait, and about one that it takes to be waiting, is 7 % of
// what a READ of 4 KiB costs. A call is short up to a size of brief; a longer one the
// runtime may work around.

// transfer is what a call is to move. It belongs to the connection, so that nothing
// is allocated.
type transfer struct {
	rest []byte
	n    int // that were read
	err  error
}

// recv reads what has come, and waits for something to come.
func (c *Conn) recv(p []byte) (int, error) {
	if c.raw == nil || len(p) > brief || len(p) == 0 {
		return c.nc.Read(p)
	}
	c.coming = transfer{rest: p}
	err := c.raw.Read(c.pull)
	t := c.coming
	c.coming = transfer{}
	if err == nil {
		err = t.err
	}
	return t.n, err
}

// pullFrom reads once; false says that there is nothing yet.
func (c *Conn) pullFrom(socket uintptr) bool {
	t := &c.coming
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, socket, uintptr(unsafe.Pointer(&t.rest[0])), uintptr(len(t.rest)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case errno != 0:
			t.err = os.NewSyscallError("recvfrom", errno)
		case n == 0:
			t.err = io.EOF
		}
		if t.err == nil {
			t.n = int(n)
		}
		return true
	}
}

// send sends all of p.
func (c *Conn) send(p []byte) error {
	if c.raw == nil || len(p) > brief {
		_, err := c.nc.Write(p)
		return err
	}
	c.going = transfer{rest: p}
	err := c.raw.Write(c.push)
	if err == nil {
		err = c.going.err
	}
	c.going = transfer{}
	return err
}

// pushTo sends as much as the socket takes; true says that there is nothing left to
// wait for.
func (c *Conn) pushTo(socket uintptr) bool {
	t := &c.going
	for len(t.rest) > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, socket, uintptr(unsafe.Pointer(&t.rest[0])), uintptr(len(t.rest)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			t.rest = t.rest[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.err = os.NewSyscallError("sendto", errno)
			return true
		}
	}
	return true
}
