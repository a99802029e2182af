package session

import (
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
)

// All of this file runs with the lock held.

// idle runs before the reader waits: every answer leaves, and buffers go to those
// who have work. An initiator that had one
// command at a time is likely to send the next one when it has its answer; of one
// with many, batches are worth more than haste.
func (s *Session) idle() error {
	s.mu.Lock()
	defer s.unlock()
	s.soon = s.taken == 1 && len(s.tasks) == 0
	s.taken = 0
	err := s.flush()
	s.shared.put(s.scratch)
	s.scratch = nil
	return err
}

// flush writes what is in the output buffer, and gives that back: the next answer may
// be long in coming. After an error the session is over.
func (s *Session) flush() error {
	n, out := s.n, s.out
	s.n, s.out = 0, nil
	defer s.shared.put(out)
	if n == 0 {
		return nil
	}
	s.sending()
	err := s.socket.Send(out.b[:n])
	s.sent()
	if err != nil {
		s.end(&ending{reason: reasonOf(err)})
	}
	return err
}

// room makes place for n bytes in the output buffer, n being at most its size,
// and returns them.
func (s *Session) room(n int) ([]byte, error) {
	if s.out != nil && s.n+n > len(s.out.b) {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	if s.out == nil {
		s.out = s.shared.get(outputSize)
	}
	return s.out.b[s.n : s.n+n : s.n+n], nil
}

// overhead is what a PDU with n bytes of data takes beside them.
func (s *Session) overhead(n int) (head, tail int) {
	head = pdu.BHSLength
	if s.headerDigest {
		head += pdu.DigestLength
	}
	return head, s.tail(n)
}

// seal completes a PDU whose header fields and data are in place: b begins with
// the header, n is the data's length and tail what follows it.
func (s *Session) seal(b []byte, head, n, tail int) {
	h := (*pdu.Header)(b)
	h.SetDataSegmentLength(n)
	if s.headerDigest {
		pdu.AppendDigest(b[:pdu.BHSLength], pdu.Digest(h[:]))
	}
	end := b[head+n : head+n+tail]
	clear(end)
	if s.dataDigest && n > 0 {
		pdu.AppendDigest(end[:tail-pdu.DigestLength], pdu.Digest(b[head:head+n]))
	}
}

// head writes the header of s.din, which has n bytes of data, to b.
func (s *Session) head(b []byte, n int) {
	h := (*pdu.Header)(b)
	s.din.Encode(h)
	h.SetDataSegmentLength(n)
	if s.headerDigest {
		pdu.AppendDigest(b[:pdu.BHSLength], pdu.Digest(h[:]))
	}
}

// put appends a PDU with at most outputSize/2 bytes of data.
func (s *Session) put(p pdu.PDU, data []byte) error {
	head, tail := s.overhead(len(data))
	b, err := s.room(head + len(data) + tail)
	if err != nil {
		return err
	}
	p.Encode((*pdu.Header)(b))
	copy(b[head:], data)
	s.seal(b, head, len(data), tail)
	s.n += len(b)
	return nil
}

// residual is the difference between what a command moves and what the
// initiator expected (RFC 7143 §11.4.5).
func residual(moves, expected int) (over, under bool, count uint32) {
	switch {
	case moves > expected:
		return true, false, uint32(moves - expected)
	case moves < expected:
		return false, true, uint32(expected - moves)
	}
	return false, false, 0
}

// respond answers a task that was executed.
func (s *Session) respond(t *task) error {
	c := &t.cmd
	if t.plan.Dir == scsi.DirIn && c.Status == scsi.StatusGood && len(c.In) > 0 && t.expected > 0 {
		return s.sendData(t)
	}
	moves := min(t.next, t.expected) // of a command that fails, what has come
	if c.Status == scsi.StatusGood || c.Status == scsi.StatusConditionMet {
		switch moves = 0; t.plan.Dir {
		case scsi.DirIn:
			moves = c.Returns()
		case scsi.DirOut:
			moves = t.plan.Len
		}
	}
	return s.sendStatus(t, moves)
}

// sendStatus sends a SCSI Response.
func (s *Session) sendStatus(t *task, moves int) error {
	c := &t.cmd
	p := &s.rsp
	*p = pdu.SCSIResponse{Response: pdu.ResponseCompleted, Status: c.Status, InitiatorTaskTag: t.tag}
	p.Overflow, p.Underflow, p.ResidualCount = residual(moves, t.expected)
	p.SN = s.nextSN()
	var sense []byte
	if c.Status == scsi.StatusCheckCondition && len(c.Sense) > 0 {
		sense = append(t.senseData[:0], byte(len(c.Sense)>>8), byte(len(c.Sense)))
		sense = append(sense, c.Sense...)
	}
	return s.put(p, sense)
}

// dataIn fills s.din for the part of a task's data that begins at off, and says
// how long that part is. The last one carries the status (§11.7.3).
func (s *Session) dataIn(t *task, off, total int) int {
	burst := s.params.MaxBurstLength
	n := min(total-off, s.params.MaxRecvDataSegmentLength, burst-off%burst)
	if off+n < total && (off+n)%burst != 0 {
		n &^= 3 // whole words inside a sequence (§11.7.7)
	}
	p := &s.din
	*p = pdu.DataIn{
		InitiatorTaskTag:  t.tag,
		TargetTransferTag: pdu.ReservedTag,
		DataSN:            t.dataSN,
		BufferOffset:      uint32(off),
		Final:             off+n == total || (off+n)%burst == 0,
	}
	t.dataSN = t.dataSN.Add(1)
	if off+n < total {
		p.SN = s.sn()
		return n
	}
	p.StatusFlag, p.Status = true, t.cmd.Status
	p.Overflow, p.Underflow, p.ResidualCount = residual(t.cmd.Returns(), t.expected)
	p.SN = s.nextSN()
	return n
}

// sendData sends a task's data and its status.
func (s *Session) sendData(t *task) error {
	t.dataSN = 0
	data := t.cmd.In[:min(len(t.cmd.In), t.expected)]
	if len(data) <= inPlace {
		for off := 0; off < len(data); {
			n := s.dataIn(t, off, len(data))
			if err := s.put(&s.din, data[off:off+n]); err != nil {
				return err
			}
			off += n
		}
		return nil
	}
	return s.writev(t, data)
}

// maxSegments bounds the PDUs of one write: an initiator that takes 512 bytes at
// a time must not make a session keep thousands of headers.
const maxSegments = 256

// writev sends large data from where it lies, with all that waited before it.
func (s *Session) writev(t *task, data []byte) error {
	s.sending()
	defer s.sent()
	head, _ := s.overhead(0)
	most := head + 3 + pdu.DigestLength
	segments := len(data)/min(s.params.MaxRecvDataSegmentLength, s.params.MaxBurstLength) + len(data)/s.params.MaxBurstLength + 2
	segments = min(segments, maxSegments)
	if cap(s.heads) < segments*most {
		s.heads = make([]byte, 0, segments*most)
	}
	heads, parts := s.heads[:0], s.parts[:0]
	if s.n > 0 {
		parts = append(parts, s.out.b[:s.n])
		s.n = 0
	}
	for off := 0; off < len(data); {
		if len(heads)+most > cap(heads) {
			if err := s.gather(parts); err != nil {
				return err
			}
			heads, parts = heads[:0], parts[:0]
		}
		n := s.dataIn(t, off, len(data))
		seg := data[off : off+n]
		_, tail := s.overhead(n)
		b := heads[len(heads) : len(heads)+head+tail]
		heads = heads[:len(heads)+len(b)]
		s.head(b, n)
		parts = append(parts, b[:head], seg)
		if tail > 0 {
			end := b[head:]
			clear(end)
			if s.dataDigest {
				pdu.AppendDigest(end[:tail-pdu.DigestLength], pdu.Digest(seg))
			}
			parts = append(parts, end)
		}
		off += n
	}
	s.heads, s.parts = heads[:0], parts
	return s.gather(parts)
}

// gather writes parts in one go.
func (s *Session) gather(parts [][]byte) error {
	s.vec = parts
	_, err := s.vec.WriteTo(s.nc)
	clear(parts)
	if err != nil {
		s.end(&ending{reason: reasonOf(err)})
	}
	return err
}
