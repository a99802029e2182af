package session

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A large READ whose data the page cache holds is not copied: sendfile(2) hands
// the socket the pages themselves. That saves two copies, which are most of the
// CPU time that a large READ costs.
//
// The pages are read when they leave, not when the command is executed, so a
// write that comes meanwhile may be seen. Commands with the SIMPLE attribute are
// promised no order (SAM-5 §8.6.2); an initiator that uses ORDERED is: what was
// lent to it leaves before its first such command runs, and from then on it gets
// copies. A data digest needs the bytes twice, and the same ones: copies too.

// lendSegment is the size of a Data-In PDU from which sendfile pays: below it
// the calls cost more than the copies.
const lendSegment = 64 << 10

// shipment is what a session sends straight from a file: a header, then a part
// of the file. It belongs to the session, so that nothing is allocated.
type shipment struct {
	front []byte // sent first
	fd    int
	at    int64
	left  int
	err   error
}

// errShort says that the file ended, or could not be read, under a PDU whose
// header had left: nothing can be said on that connection any more.
var errShort = errors.New("the volume's bytes could not be read while they were sent")

// lends says whether the READs of a session may be answered from the file.
func (s *Session) lends() bool {
	segment, burst := s.params.MaxRecvDataSegmentLength, s.params.MaxBurstLength
	return s.raw != nil && !s.dataDigest && !s.strict && min(segment, burst) >= lendSegment &&
		segment%4 == 0 && burst%4 == 0 // no padding inside
}

// lend answers a READ from its volume's file; it returns false, and nothing
// happened, when that cannot be.
func (s *Session) lend(t *task) (bool, error) {
	fd, at, back, ok := s.nexus.Lend(&t.cmd)
	if !ok {
		return false, nil
	}
	defer back.Return()
	s.lent = true
	s.retire(t)
	s.observe(t)
	t.dataSN = 0
	err := s.ship(t, fd, at)
	s.recycle(t)
	return true, err
}

// ship sends a task's data as Data-In PDUs; the last one carries the status.
func (s *Session) ship(t *task, fd int, at int64) error {
	s.sending()
	defer s.sent()
	head, _ := s.overhead(0)
	for off, total := 0, t.cmd.Lent; off < total; {
		b, err := s.room(head)
		if err != nil {
			return err
		}
		n := s.dataIn(t, off, total)
		s.head(b, n)
		s.n += head
		s.cargo = shipment{front: s.out.b[:s.n], fd: fd, at: at + int64(off), left: n}
		s.n = 0
		if err := s.sail(); err != nil {
			s.end(&ending{reason: reasonOf(err)})
			return err
		}
		off += n
	}
	return nil
}

// sail sends the shipment.
func (c *Conn) sail() error {
	err := c.raw.Write(c.step)
	if err == nil {
		err = c.cargo.err
	}
	c.cargo = shipment{}
	return err
}

// step sends as much of the shipment as the socket takes; true says that there
// is nothing left to wait for.
func (s *shipment) step(socket int) bool {
	for len(s.front) > 0 {
		n, err := unix.SendmsgN(socket, s.front, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			s.front = s.front[n:]
		case err == syscall.EAGAIN:
			return false
		case err != syscall.EINTR:
			s.err = err
			return true
		}
	}
	for s.left > 0 {
		n, err := unix.Sendfile(socket, s.fd, &s.at, s.left)
		switch {
		case n > 0:
			s.left -= n
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EPIPE, err == syscall.ECONNRESET, err == syscall.ETIMEDOUT:
			s.err = err
			return true
		case err == nil: // the end of the file
			s.err = errShort
			return true
		case err != syscall.EINTR:
			s.err = fmt.Errorf("%w: %w", errShort, err)
			return true
		}
	}
	return true
}

// settleLoans waits until the initiator's host has acknowledged all that was lent
// to it. One on the appliance's own kernel may not have read it then, and the
// pages in its socket are still the volume's.
func (s *Session) settleLoans() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		queued := 0
		err := s.raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }) // SIOCOUTQ, tcp(7)
		if err != nil || queued == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}
