package session

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/socket"
)

// Read buffers: a connection that has not moved data yet needs little.
const (
	smallInput = 4 << 10
	largeInput = 64 << 10
)

// maxAHS is an extended CDB of 260 bytes and a bidirectional read length.
const maxAHS = 260 + 4 + 8

// quickAckBelow is the size of a missing rest that is worth an immediate ACK: a
// peer that sends header and data apart waits for it (Nagle against delayed
// ACK, 44 ms), while a large rest draws its ACKs by itself.
const quickAckBelow = 16 << 10

// Times after which a peer that has gone is noticed (RFC 1122 §4.2.3.6,
// tcp(7)): probes after 10 s of silence, and 30 s for an acknowledgement.
const (
	keepAliveIdle = 10 * time.Second
	keepAliveTry  = 3
	userTimeout   = 30 * time.Second
)

// errHeaderDigest ends a connection: nothing after a broken header can be
// trusted to be one (RFC 7143 §7.7).
var errHeaderDigest = errors.New("the header digest of a PDU is wrong")

// Conn is a connection as a stream of PDUs.
type Conn struct {
	nc  net.Conn
	raw syscall.RawConn // nil when nc is no TCP connection

	socket *socket.Socket

	shared     *Shared
	in         []byte  // nil while the connection waits for a PDU
	pooled     *buffer // that in is of; nil when in is nobody else's
	r, w       int     // unread bytes are in[r:w]
	large      bool
	beforeRead func() error // called before a read that may wait
	soon       bool         // beforeRead expects the peer to be heard at once

	headerDigest bool
	dataDigest   bool

	h     pdu.Header
	ext   []byte        // the additional header segments; valid until the next read
	reads atomic.Uint64 // grows with each read that returned bytes

	ack   func(fd uintptr)      // sets TCP_QUICKACK
	cargo shipment              // what step sends
	step  func(fd uintptr) bool // for raw.Write
}

// NewConn wraps a connection that was accepted from a socket with Control.
func NewConn(nc net.Conn, shared *Shared) *Conn {
	c := &Conn{nc: nc, shared: shared}
	c.ack = func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) } // an optimisation
	c.step = func(fd uintptr) bool { return c.cargo.step(int(fd)) }
	if t, ok := nc.(*net.TCPConn); ok {
		c.raw, _ = t.SyscallConn() // fails only on a socket that is gone, which the first read says
	}
	c.socket = socket.New(nc, c.raw, shared.vigils)
	return c
}

// Control sets on a listening socket what its connections inherit (tcp(7)), so
// that a storm of logins does not set it again and again: a peer that vanished
// is found in time. Go switches Nagle's algorithm off by itself.
func Control(_, _ string, raw syscall.RawConn) error {
	var err error
	set := func(fd, level, option, value int) {
		err = errors.Join(err, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value)))
	}
	return errors.Join(raw.Control(func(fd uintptr) {
		set(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		set(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAliveIdle.Seconds()))
		set(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAliveIdle.Seconds()))
		set(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAliveTry)
		set(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	}), err)
}

// RemoteAddr returns the initiator's address.
func (c *Conn) RemoteAddr() netip.AddrPort { return addrPort(c.nc.RemoteAddr()) }

// LocalAddr returns the portal's address.
func (c *Conn) LocalAddr() netip.AddrPort { return addrPort(c.nc.LocalAddr()) }

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// Close closes the connection.
func (c *Conn) Close() error { return c.nc.Close() }

// Release gives the read buffer back, when nobody reads any more: a storm of
// logins would fill the heap with them.
func (c *Conn) Release() {
	c.GiveBack()
	c.ext, c.r, c.w = nil, 0, 0
}

// Take returns a read buffer for what has come; see socket.Room.
func (c *Conn) Take() []byte {
	if c.in == nil {
		size := smallInput
		if c.large {
			size = largeInput
		}
		c.pooled = c.shared.get(size)
		c.in = c.pooled.b[:size]
	}
	return c.in
}

// GiveBack gives it back: nothing has come, and nothing is left of what had.
func (c *Conn) GiveBack() {
	c.shared.put(c.pooled)
	c.pooled, c.in = nil, nil
}

// Login exchanges login PDUs until the machine is done or has refused. The time
// holds for the whole login.
func (c *Conn) Login(m *login.Machine, within time.Duration) error {
	if err := c.nc.SetDeadline(time.Now().Add(within)); err != nil { // sockets keep real time
		return fmt.Errorf("login: %w", err)
	}
	var out []byte
	for m.State() == login.Going {
		if err := c.header(maxAHS, login.Defaults().TargetMaxRecvDataSegmentLength); err != nil {
			return fmt.Errorf("login: %w", err)
		}
		r, err := c.loginStep(m)
		if err != nil {
			return fmt.Errorf("login: %w", err)
		}
		var h pdu.Header
		r.Encode(&h)
		h.SetDataSegmentLength(len(r.Data))
		out = append(append(append(out[:0], h[:]...), r.Data...), zeros[:pdu.Pad(len(r.Data))]...)
		if err := c.socket.Send(out); err != nil {
			return fmt.Errorf("login: answer: %w", err)
		}
	}
	if m.State() == login.Done {
		p := m.Result().Params
		c.SetDigests(p.HeaderDigest, p.DataDigest)
	}
	return c.nc.SetDeadline(time.Time{})
}

// loginStep has the machine answer the PDU at hand.
func (c *Conn) loginStep(m *login.Machine) (r login.Response, err error) {
	var q login.Request
	if err := q.Decode(&c.h); err != nil {
		if r, ok := m.Interrupt(c.h.Opcode()); ok {
			return r, nil
		}
		return r, fmt.Errorf("the connection began with something else than a Login Request: %w", err)
	}
	if q.Data, _, err = c.data(c.h.DataSegmentLength()); err != nil {
		return r, err
	}
	return m.Step(q), nil
}

// SetDigests says which digests the PDUs carry from now on. Login does this.
func (c *Conn) SetDigests(header, data bool) { c.headerDigest, c.dataDigest = header, data }

// zeros is padding.
var zeros [4]byte

// header reads the next PDU's header into c.h and what comes before its data
// segment.
func (c *Conn) header(ahs, data int) error {
	if err := c.fill(pdu.BHSLength, false); err != nil {
		return err
	}
	copy(c.h[:], c.in[c.r:])
	if err := c.h.Check(ahs, data); err != nil {
		return err
	}
	n := pdu.BHSLength + c.h.AHSLength()
	if c.headerDigest {
		if err := c.fill(n+pdu.DigestLength, true); err != nil {
			return err
		}
		b := c.in[c.r:]
		if pdu.Digest(b[:n]) != pdu.ReadDigest(b[n:]) {
			return errHeaderDigest
		}
	} else if n > pdu.BHSLength {
		if err := c.fill(n, true); err != nil {
			return err
		}
	}
	c.ext = c.in[c.r+pdu.BHSLength : c.r+n]
	c.r += n
	if c.headerDigest {
		c.r += pdu.DigestLength
	}
	return nil
}

// tail is what follows n bytes of data: padding and digest.
func (c *Conn) tail(n int) int {
	t := pdu.Pad(n)
	if c.dataDigest && n > 0 {
		t += pdu.DigestLength
	}
	return t
}

// leaveInput leaves the read buffer to whoever still uses what lies there, and goes
// on with a copy of what was not read.
func (c *Conn) leaveInput() {
	unread := c.in[c.r:c.w]
	c.pooled = c.shared.get(len(c.in))
	c.in = c.pooled.b[:len(c.in)]
	c.r, c.w, c.ext = 0, copy(c.in, unread), nil
}

// buffered says whether a data segment of n bytes is there already.
func (c *Conn) buffered(n int) bool { return c.w-c.r >= n+c.tail(n) }

// data returns the data segment of n bytes where it lies in the read buffer; it
// is valid until the next read. ok is false when its digest is wrong.
func (c *Conn) data(n int) (b []byte, ok bool, err error) {
	if n == 0 {
		return nil, true, nil
	}
	t := c.tail(n)
	if err := c.fill(n+t, true); err != nil {
		return nil, false, err
	}
	b = c.in[c.r : c.r+n : c.r+n]
	if ok = !c.dataDigest; !ok {
		end := c.r + n + pdu.Pad(n) // the padding counts as it came, zero or not (§13.1)
		ok = pdu.DigestMore(0, c.in[c.r:end]) == pdu.ReadDigest(c.in[end:])
	}
	c.r += n + t
	return b, ok, nil
}

// dataInto reads a data segment of n bytes into dst; what does not fit there is
// dropped. ok is false when its digest is wrong.
func (c *Conn) dataInto(dst []byte, n int) (ok bool, err error) {
	if n == 0 {
		return true, nil
	}
	keep := min(n, len(dst))
	if err := c.read(dst[:keep], c.tail(n)+n-keep); err != nil {
		return false, err
	}
	crc := uint32(0)
	if c.dataDigest {
		crc = pdu.DigestMore(0, dst[:keep])
	}
	for rest := n - keep; rest > 0; {
		k := min(rest, smallInput)
		if err := c.fill(k, true); err != nil {
			return false, err
		}
		if c.dataDigest {
			crc = pdu.DigestMore(crc, c.in[c.r:c.r+k])
		}
		c.r += k
		rest -= k
	}
	t := c.tail(n)
	if err := c.fill(t, true); err != nil {
		return false, err
	}
	b := c.in[c.r : c.r+t]
	c.r += t
	if !c.dataDigest {
		return true, nil
	}
	pad := len(b) - pdu.DigestLength
	return pdu.DigestMore(crc, b[:pad]) == pdu.ReadDigest(b[pad:]), nil
}

// skip drops a data segment of n bytes.
func (c *Conn) skip(n int) error {
	_, err := c.dataInto(nil, n)
	return err
}

// read fills p, first from the buffer and then straight from the connection.
// more is how much of the PDU comes after it.
func (c *Conn) read(p []byte, more int) error {
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	for n < len(p) {
		if len(p)-n < len(c.in)/2 {
			// A short rest: through the buffer, which takes what follows along.
			if err := c.fill(len(p)-n, true); err != nil {
				return err
			}
			c.r += copy(p[n:], c.in[c.r:c.w])
			return nil
		}
		if err := c.wait(len(p) - n + more); err != nil {
			return err
		}
		k, err := c.socket.Recv(p[n:], false)
		if k > 0 {
			n += k
			c.reads.Add(1)
			continue
		}
		if err != nil {
			return cut(err)
		}
	}
	return nil
}

// fill makes at least n bytes of the stream lie in the buffer from c.r on. mid
// says that they belong to a PDU that has begun.
func (c *Conn) fill(n int, mid bool) error {
	if c.w-c.r >= n {
		return nil
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
		if c.large && len(c.in) < largeInput {
			c.GiveBack()
		}
	}
	for c.w-c.r < n {
		missing := 0
		if mid || c.w > c.r {
			missing = n - (c.w - c.r)
		}
		if err := c.wait(missing); err != nil {
			return err
		}
		var k int
		var err error
		if c.w == 0 && !mid {
			k, err = c.socket.RecvInto(c, c.soon)
		} else {
			c.makeRoom(n)
			k, err = c.socket.Recv(c.in[c.w:], c.soon)
		}
		if k > 0 {
			c.w += k
			c.reads.Add(1)
			continue
		}
		if err != nil {
			if mid || c.w > c.r {
				err = cut(err)
			}
			return err
		}
	}
	return nil
}

// makeRoom makes n bytes from c.r on fit into the buffer.
func (c *Conn) makeRoom(n int) {
	switch unread := c.Take()[c.r:c.w]; {
	case n > len(c.in):
		old := c.pooled
		c.pooled = c.shared.get(n) // n is within limits that header has checked
		c.in = c.pooled.b
		c.r, c.w = 0, copy(c.in, unread)
		c.shared.put(old)
	case n > len(c.in)-c.r:
		c.r, c.w = 0, copy(c.in, unread)
	}
}

// wait prepares for a read that may wait: answers leave first, and a peer that
// holds back the rest of a PDU until its beginning is acknowledged gets the ACK
// now.
func (c *Conn) wait(missing int) error {
	if c.beforeRead != nil {
		if err := c.beforeRead(); err != nil {
			return err
		}
	}
	if missing > 0 && missing <= quickAckBelow && c.raw != nil {
		_ = c.raw.Control(c.ack) // a closed socket is found by the read
	}
	return nil
}

// cut is the end of a connection in the middle of a PDU.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Linger lets the last answer reach an initiator that is about to be cut off: a
// connection that is closed with unread input is reset, and a reset overtakes
// the answer.
func (c *Conn) Linger(d time.Duration) {
	t, ok := c.nc.(*net.TCPConn)
	if !ok || t.CloseWrite() != nil || t.SetReadDeadline(time.Now().Add(d)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, t, 64<<10) // until the peer closes, or time is up
}
