// Package socket moves bytes over a connection with little ado. Short calls go to
// the kernel as they are. They never wait, since the socket is non-blocking, so the
// runtime need not be told of them: what it does about a call that may wait, and
// about one that it takes to be waiting, is 7 % of what a READ of 4 KiB costs. A
// call is short up to a size of brief; a longer one the runtime may work around.
package socket

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a connection for one reader and one writer at a time.
type Socket struct {
	nc     net.Conn
	raw    syscall.RawConn // nil when nc is no TCP connection
	vigils *Vigils
	habit  habit

	coming, going transfer
	pull, push    func(fd uintptr) bool // pullFrom for raw.Read, pushTo for raw.Write
}

// transfer is what a call is to move. It belongs to the connection, so that nothing
// is allocated.
type transfer struct {
	rest []byte
	room Room // for rest, while there is something to read
	n    int  // that were read
	err  error

	soon  bool      // the peer is expected to be heard at once
	since time.Time // when there was nothing to read yet; zero when there was
	vigil bool      // one was kept
}

// New is the socket of a connection; raw is nil when that is none of TCP.
func New(nc net.Conn, raw syscall.RawConn, vigils *Vigils) *Socket {
	s := &Socket{nc: nc, raw: raw, vigils: vigils}
	s.pull, s.push = s.pullFrom, s.pushTo
	return s
}

// Room is where a reader has its input. It is given back while there is none: most
// connections wait most of the time.
type Room interface {
	// Take returns room, of up to 64 KiB.
	Take() []byte
	// GiveBack says that nothing has come.
	GiveBack()
}

// Recv reads what has come, and waits for something to come. soon says that the
// peer has all that it asked for, so that its next request may be at hand.
func (s *Socket) Recv(p []byte, soon bool) (int, error) {
	if s.raw == nil || len(p) > brief || len(p) == 0 {
		return s.nc.Read(p)
	}
	return s.recv(transfer{rest: p, soon: soon})
}

// RecvInto is Recv into room that is taken when something has come.
func (s *Socket) RecvInto(room Room, soon bool) (int, error) {
	if s.raw == nil {
		return s.nc.Read(room.Take())
	}
	return s.recv(transfer{room: room, soon: soon})
}

func (s *Socket) recv(t transfer) (int, error) {
	s.coming = t
	err := s.raw.Read(s.pull)
	t = s.coming
	s.coming = transfer{}
	if t.n > 0 && !t.since.IsZero() {
		s.habit.learn(time.Since(t.since), t.vigil)
	}
	if err == nil {
		err = t.err
	}
	return t.n, err
}

// pullFrom reads what there is; false says that there is nothing yet.
func (s *Socket) pullFrom(fd uintptr) bool {
	t := &s.coming
	if t.room == nil {
		return s.pullSoon(fd)
	}
	t.rest = t.room.Take()
	if s.pullSoon(fd) {
		return true
	}
	t.rest = nil
	t.room.GiveBack()
	return false
}

// pullSoon is pullFrom, after a vigil if need be.
func (s *Socket) pullSoon(fd uintptr) bool {
	t := &s.coming
	if t.pull(fd) {
		return true
	}
	if !t.soon || !t.since.IsZero() {
		return false
	}
	t.since = time.Now()
	if !s.habit.quickly() || !s.vigils.begin() {
		return false
	}
	defer s.vigils.end()
	t.vigil = true
	for time.Since(t.since) < vigilTime {
		if t.pull(fd) {
			return true
		}
	}
	return false
}

// pull reads once.
func (t *transfer) pull(fd uintptr) bool {
	for {
		n, err := receive(fd, t.rest)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return false
		case err != nil:
			t.err = os.NewSyscallError("recvfrom", err)
		case n == 0:
			t.err = io.EOF
		default:
			t.n = n
		}
		return true
	}
}

// Send sends all of p.
func (s *Socket) Send(p []byte) error {
	if s.raw == nil || len(p) > brief {
		_, err := s.nc.Write(p)
		return err
	}
	s.going = transfer{rest: p}
	err := s.raw.Write(s.push)
	if err == nil {
		err = s.going.err
	}
	s.going = transfer{}
	return err
}

// pushTo sends as much as the socket takes; true says that there is nothing left to
// wait for.
func (s *Socket) pushTo(fd uintptr) bool {
	t := &s.going
	for len(t.rest) > 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&t.rest[0])), uintptr(len(t.rest)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
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
