package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of the hot path go to the kernel as they are. They never wait (the
// sockets are non-blocking), so the runtime need not be told of them; and
// unix.Recvfrom makes an address for each answer, which TCP does not have.

// errAgain says that the socket has nothing to give, or no room.
var errAgain = errors.New("the socket would block")

// receive reads into b. With unix.MSG_TRUNC the kernel drops as many bytes of a
// TCP stream instead and never touches b (tcp(7)).
func receive(fd int, b []byte, flags uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|flags, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return 0, errAgain
		case errno != 0:
			return 0, os.NewSyscallError("recvfrom", errno)
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		default:
			return int(n), nil
		}
	}
}

// maxVectors is UIO_MAXIOV: the kernel takes no more in one call.
const maxVectors = 1024

// transmit sends a gathered message, or its beginning.
func transmit(fd int, v []unix.Iovec) (int, error) {
	var m unix.Msghdr
	m.Iov = &v[0]
	m.SetIovlen(min(len(v), maxVectors))
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, errAgain
		case 0:
			return int(n), nil
		default:
			return 0, os.NewSyscallError("sendmsg", errno)
		}
	}
}

// vector points at b, which is not empty.
func vector(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// advance drops the first n bytes of what is to be sent.
func advance(v []unix.Iovec, n int) []unix.Iovec {
	for n > 0 {
		if m := int(v[0].Len); m > n {
			rest := unsafe.Slice(v[0].Base, m)[n:]
			v[0] = vector(rest)
			return v
		} else {
			n -= m
		}
		v = v[1:]
	}
	return v
}

// detach takes a connection's socket away from Go's poller, which would wake a
// thread of its own for everything that comes.
func detach(c net.Conn) (fd int, err error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return -1, fmt.Errorf("a connection of type %T", c)
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return -1, err
	}
	var dup error
	if err := raw.Control(func(s uintptr) { fd, dup = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	if dup != nil {
		return -1, os.NewSyscallError("fcntl", dup)
	}
	return fd, c.Close()
}

// attach gives a socket back; fd is closed.
func attach(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	c, err := net.FileConn(f)
	return c, errors.Join(err, f.Close())
}
