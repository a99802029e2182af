package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/pdu"
)

// request is what a command asks for; without a direction it is a flush.
type request struct {
	read, write bool
	off         int64 // on the volume
	length      int   // bytes
}

// command is one in flight.
type command struct {
	request
	busy bool
	at   time.Time
	sent int    // of what it writes
	got  int    // of what it reads
	sn   uint32 // of its next Data-In or R2T
	data []byte // what a verified write carries
}

// stream is a session past its login: what it has in flight, the PDU that comes
// in, and what is still to be sent. A PDU is taken apart as its bytes come, so
// that nothing of it has to be kept.
type stream struct {
	*session
	engine *engine
	number int
	fd     int
	lun    byte
	place  int64   // of a sequential load
	replay *replay // what it plays; nil for a load that makes its commands itself

	flight []command
	free   []int // tags that are not in flight
	ops    int64

	// The PDU at hand; session.hdr is its header.
	head   []byte // header and header digest as far as they have come
	length int    // of the data segment
	at     int    // how much of data, padding and digest has come
	rest   int    // how much of them is to come
	tag    int    // the Data-In's command
	crc    uint32
	digest [pdu.DigestLength]byte

	// What is to be sent. Headers stand in the arena until all has been sent; one
	// that grows leaves its old bytes where the vectors point.
	bhs     pdu.Header // of the PDU that is queued
	arena   []byte
	queue   []unix.Iovec
	sent    int  // vectors of the queue
	joined  bool // the last vector ends where the arena does
	blocked bool // the socket has no room
	scratch [pdu.DigestLength]byte
}

// newStream takes a session's socket over.
func newStream(e *engine, lun byte, s *session) (_ *stream, err error) {
	st := &stream{session: s, engine: e, lun: lun, flight: make([]command, e.load.Depth)}
	st.head = make([]byte, 0, pdu.BHSLength+pdu.DigestLength)
	for k := range st.flight {
		st.free = append(st.free, k)
		if e.load.Generation > 0 && e.load.Write {
			st.flight[k].data = make([]byte, e.load.Block)
		}
	}
	st.place = e.rng.Int64N(max(e.load.Span/int64(e.load.Block), 1))
	st.fd, err = detach(s.conn)
	s.conn = nil
	return st, err
}

// release gives the socket back; in the middle of a PDU it is of no more use.
func (s *stream) release() (err error) {
	if len(s.head) > 0 || s.rest > 0 || s.sent < len(s.queue) {
		return unix.Close(s.fd)
	}
	s.conn, err = attach(s.fd)
	if err == nil {
		s.in.Reset(s.conn)
		s.out.Reset(s.conn)
	}
	return err
}

// begin takes what the login's reader has read ahead, and fills the queue.
func (s *stream) begin() error {
	early, err := s.in.Peek(s.in.Buffered())
	if err == nil {
		err = s.feed(early)
	}
	if err != nil {
		return err
	}
	return s.pump()
}

// act does what epoll has found there is to do.
func (s *stream) act(events uint32) (err error) {
	if events&unix.EPOLLOUT != 0 {
		err = s.flush()
	}
	if err == nil && events&^unix.EPOLLOUT != 0 {
		err = s.receive()
	}
	if err != nil {
		return fmt.Errorf("session %d: %w", s.number, err)
	}
	return nil
}

// receive takes what has come, and sends what that made room for.
func (s *stream) receive() error {
	e := s.engine
	for taken := 0; taken < turn; {
		b, flags := e.in, uintptr(0)
		if e.load.Block >= dropFrom && !s.digests && e.load.Generation == 0 && s.replay == nil {
			// Only headers are looked at.
			if s.rest > 0 {
				b, flags = e.void[:min(s.rest, len(e.void))], unix.MSG_TRUNC
			} else {
				b = b[:pdu.BHSLength-len(s.head)]
			}
		}
		n, err := receive(s.fd, b, flags)
		if err == errAgain {
			break
		}
		if err != nil {
			return err
		}
		if taken == 0 {
			e.now = time.Now()
			e.heard = e.now
		}
		taken += n
		if flags != 0 {
			err = s.drop(n)
		} else {
			err = s.feed(b[:n])
		}
		if err != nil {
			return err
		}
		if n < len(b) {
			break
		}
	}
	return s.pump()
}

// drop counts data that the kernel has dropped.
func (s *stream) drop(n int) error {
	if s.rest -= n; s.rest > 0 {
		return nil
	}
	return s.complete()
}

// feed takes received bytes apart.
func (s *stream) feed(b []byte) error {
	whole := pdu.BHSLength
	if s.digests {
		whole += pdu.DigestLength
	}
	for len(b) > 0 {
		if s.rest == 0 {
			n := min(whole-len(s.head), len(b))
			s.head, b = append(s.head, b[:n]...), b[n:]
			if len(s.head) < whole {
				return nil
			}
			if err := s.header(); err != nil {
				return err
			}
		} else {
			n := min(s.rest, len(b))
			if err := s.body(b[:n]); err != nil {
				return err
			}
			s.rest, b = s.rest-n, b[n:]
		}
		if s.rest == 0 {
			if err := s.complete(); err != nil {
				return err
			}
		}
	}
	return nil
}

// header looks at a header that is there as a whole.
func (s *stream) header() error {
	copy(s.hdr[:], s.head)
	if s.digests && pdu.ReadDigest(s.head[pdu.BHSLength:]) != pdu.Digest(s.hdr[:]) {
		return errDigest
	}
	s.head = s.head[:0]
	if err := s.hdr.Check(0, s.receiveMax); err != nil {
		return err
	}
	s.length, s.at, s.crc = s.hdr.DataSegmentLength(), 0, 0
	s.rest = s.length + pdu.Pad(s.length)
	if s.digests && s.length > 0 {
		s.rest += pdu.DigestLength
	}
	if s.hdr.Opcode() != pdu.OpDataIn {
		return nil
	}
	var p pdu.DataIn
	if err := p.Decode(&s.hdr); err != nil {
		return err
	}
	c, err := s.find(p.InitiatorTaskTag)
	if err != nil {
		return err
	}
	// DataPDUInOrder and DataSequenceInOrder are Yes by default (RFC 7143 §13.18,
	// §13.19): data comes in one run from the beginning.
	switch {
	case !c.read:
		return errors.New("a write is answered with data")
	case uint32(p.DataSN) != c.sn:
		return fmt.Errorf("a Data-In with DataSN %d, %d is next", p.DataSN, c.sn)
	case int(p.BufferOffset) != c.got || c.got+s.length > c.length:
		return fmt.Errorf("a Data-In of %d bytes at offset %d, %d of %d have come", s.length, p.BufferOffset, c.got, c.length)
	}
	s.tag = int(p.InitiatorTaskTag)
	c.sn++
	return nil
}

// body looks at bytes of a data segment, its padding and its digest.
func (s *stream) body(b []byte) error {
	if g := s.engine.load.Generation; g > 0 && s.at < s.length && s.hdr.Opcode() == pdu.OpDataIn {
		c := &s.flight[s.tag]
		data := b[:min(len(b), s.length-s.at)]
		if at := differs(data, g, c.off+int64(c.got+s.at)); at >= 0 {
			return fmt.Errorf("the volume's byte %d is not what was written there", at)
		}
	}
	if s.digests {
		padded := s.length + pdu.Pad(s.length)
		n := max(min(len(b), padded-s.at), 0)
		s.crc = pdu.DigestMore(s.crc, b[:n])
		copy(s.digest[max(s.at-padded, 0):], b[n:])
	}
	s.at += len(b)
	return nil
}

// find returns the command that a tag stands for.
func (s *stream) find(tag pdu.TaskTag) (*command, error) {
	if uint64(tag) >= uint64(len(s.flight)) || !s.flight[tag].busy {
		return nil, fmt.Errorf("%s for task %d, which is not in flight", s.hdr.Opcode(), tag)
	}
	return &s.flight[tag], nil
}

// complete acts on a PDU that has come as a whole.
func (s *stream) complete() error {
	if s.digests && s.length > 0 && pdu.ReadDigest(s.digest[:]) != s.crc {
		return errDigest
	}
	switch op := s.hdr.Opcode(); op {
	case pdu.OpDataIn:
		var p pdu.DataIn
		if err := p.Decode(&s.hdr); err != nil {
			return err
		}
		c := &s.flight[s.tag]
		c.got += s.length
		s.window = serial(s.window, p.SN)
		if !p.StatusFlag {
			return nil
		}
		return s.end(c, s.tag, p.Status, p.SN, p.Overflow || p.Underflow)
	case pdu.OpSCSIResponse:
		var p pdu.SCSIResponse
		if err := p.Decode(&s.hdr); err != nil {
			return err
		}
		c, err := s.find(p.InitiatorTaskTag)
		if err != nil {
			return err
		}
		if p.Response != pdu.ResponseCompleted {
			return fmt.Errorf("a command ended with the response %02Xh", uint8(p.Response))
		}
		return s.end(c, int(p.InitiatorTaskTag), p.Status, p.SN, p.Overflow || p.Underflow)
	case pdu.OpR2T:
		return s.transfer()
	case pdu.OpNOPIn:
		return s.ping()
	default:
		return fmt.Errorf("the target sent %s", op)
	}
}

// end counts a command that has its status.
func (s *stream) end(c *command, tag int, status uint8, sn pdu.SN, residual bool) error {
	e := s.engine
	moved := c.got
	if c.write {
		moved = c.sent
	}
	switch {
	case sn.StatSN != s.stat:
		return fmt.Errorf("a status with StatSN %d, %d is next", sn.StatSN, s.stat)
	case status != 0:
		return fmt.Errorf("a command ended with status %02Xh", status)
	case moved != c.length || residual:
		return fmt.Errorf("a command ended after %d of %d bytes (residual: %v)", moved, c.length, residual)
	}
	s.stat = s.stat.Add(1)
	s.window = serial(s.window, sn)
	e.lat.Add(e.now.Sub(c.at))
	e.moved += int64(moved)
	c.busy = false
	s.free = append(s.free, tag)
	e.busy--
	s.ops++
	return nil
}

// transfer sends what the target asks for.
func (s *stream) transfer() error {
	var p pdu.R2T
	if err := p.Decode(&s.hdr); err != nil {
		return err
	}
	c, err := s.find(p.InitiatorTaskTag)
	if err != nil {
		return err
	}
	end := int(p.BufferOffset) + int(p.DesiredDataTransferLength)
	if !c.write || uint32(p.R2TSN) != c.sn || int(p.BufferOffset) != c.sent || end > c.length || p.DesiredDataTransferLength == 0 {
		return fmt.Errorf("an R2T, number %d, for bytes %d to %d, %d of %d were sent", p.R2TSN, p.BufferOffset, end, c.sent, c.length)
	}
	c.sn++
	s.window = serial(s.window, p.SN)
	s.dataOut(c, p.InitiatorTaskTag, p.TargetTransferTag, end)
	return nil
}

// ping answers a target that asks whether the session lives.
func (s *stream) ping() error {
	var p pdu.NOPIn
	if err := p.Decode(&s.hdr); err != nil {
		return err
	}
	s.window = serial(s.window, p.SN)
	if p.TargetTransferTag != pdu.ReservedTag {
		q := pdu.NOPOut{Immediate: true, LUN: p.LUN, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: p.TargetTransferTag, CmdSN: s.cmdSN, ExpStatSN: s.stat}
		q.Encode(&s.bhs)
		s.put(nil)
	}
	return nil
}

// pump sends as many commands as the queue, the target's window and the load
// allow, and whatever else is to be sent.
func (s *stream) pump() error {
	for len(s.free) > 0 && s.more() && !s.window.Less(s.cmdSN) {
		s.issue(s.next())
	}
	return s.flush()
}

// more says whether the session's next command may be sent.
func (s *stream) more() bool {
	if s.replay != nil {
		return s.replay.more(len(s.flight) - len(s.free))
	}
	return s.engine.more()
}

// next is the session's next command.
func (s *stream) next() request {
	if s.replay != nil {
		return s.replay.next()
	}
	l := &s.engine.load
	return request{read: !l.Write, write: l.Write, off: s.engine.offset(s), length: l.Block}
}

// issue queues a READ(10) or WRITE(10) with what data may go with it, or a
// SYNCHRONIZE CACHE(10).
func (s *stream) issue(r request) {
	e := s.engine
	tag := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	c := &s.flight[tag]
	*c = command{request: r, busy: true, at: e.now, data: c.data}
	e.busy++
	e.left = max(e.left-1, -1)
	q := pdu.SCSICommand{
		Final: true, Read: c.read, Write: c.write, Attr: pdu.AttrSimple, LUN: pdu.LUN{0, s.lun},
		InitiatorTaskTag: pdu.TaskTag(tag), ExpectedDataTransferLength: uint32(c.length), CmdSN: s.cmdSN, ExpStatSN: s.stat,
	}
	switch {
	case c.read:
		q.CDB[0] = 0x28
	case c.write:
		q.CDB[0] = 0x2a
	default:
		q.CDB[0] = 0x35
	}
	if c.length > 0 { // a flush is of everything
		binary.BigEndian.PutUint32(q.CDB[2:], uint32(c.off/512))
		binary.BigEndian.PutUint16(q.CDB[7:], uint16(c.length/512))
	}
	s.cmdSN = s.cmdSN.Add(1)
	if !c.write {
		q.Encode(&s.bhs)
		s.put(nil)
		return
	}
	if c.data != nil {
		fill(c.data, e.load.Generation, c.off)
	}
	first := min(c.length, s.first)
	if s.immediate {
		c.sent = min(first, s.sendMax)
	}
	q.Final = c.sent >= first || !s.noR2T
	q.Encode(&s.bhs)
	s.put(s.payload(c)[:c.sent])
	if !q.Final {
		s.dataOut(c, q.InitiatorTaskTag, pdu.ReservedTag, first)
	}
}

func (s *stream) payload(c *command) []byte {
	if c.data != nil {
		return c.data
	}
	return s.engine.data
}

// dataOut queues a write's data up to an offset, in PDUs that the target takes.
func (s *stream) dataOut(c *command, tag, ttt pdu.TaskTag, end int) {
	for sn := pdu.Serial(0); c.sent < end; sn = sn.Add(1) {
		n := min(end-c.sent, s.sendMax)
		p := pdu.DataOut{
			Final: c.sent+n == end, LUN: pdu.LUN{0, s.lun}, InitiatorTaskTag: tag, TargetTransferTag: ttt,
			ExpStatSN: s.stat, DataSN: sn, BufferOffset: uint32(c.sent),
		}
		p.Encode(&s.bhs)
		s.put(s.payload(c)[c.sent : c.sent+n])
		c.sent += n
	}
}

// put queues a PDU with the header in s.bhs. The data is sent from where it stands; its length is a
// multiple of four, as every block's is.
func (s *stream) put(data []byte) {
	s.bhs.SetDataSegmentLength(len(data))
	s.gather(s.bhs[:])
	if s.digests {
		s.gather(pdu.AppendDigest(s.scratch[:0], pdu.Digest(s.bhs[:])))
	}
	if len(data) == 0 {
		return
	}
	s.queue, s.joined = append(s.queue, vector(data)), false
	if s.digests {
		s.gather(pdu.AppendDigest(s.scratch[:0], pdu.Digest(data)))
	}
}

// gather queues a copy of b, as part of the last vector where that ends with the
// arena: commands that carry no data go out as one run.
func (s *stream) gather(b []byte) {
	from, room := len(s.arena), cap(s.arena)
	s.arena = append(s.arena, b...)
	if s.joined && cap(s.arena) == room {
		last := &s.queue[len(s.queue)-1]
		last.SetLen(int(last.Len) + len(b))
		return
	}
	s.queue, s.joined = append(s.queue, vector(s.arena[from:])), true
}

// flush sends what is queued, as far as the socket takes it.
func (s *stream) flush() error {
	for s.sent < len(s.queue) {
		n, err := transmit(s.fd, s.queue[s.sent:])
		if err == errAgain {
			if s.blocked {
				return nil
			}
			s.blocked = true
			return s.engine.interest(s, true)
		}
		if err != nil {
			return err
		}
		s.sent = len(s.queue) - len(advance(s.queue[s.sent:], n))
	}
	s.queue, s.arena, s.sent, s.joined = s.queue[:0], s.arena[:0], 0, false
	if s.blocked {
		s.blocked = false
		return s.engine.interest(s, false)
	}
	return nil
}
