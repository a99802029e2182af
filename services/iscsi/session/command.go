package session

import (
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/scsi/sense"
)

// Sense of the iSCSI layer's own (RFC 7143 §11.4.7.2).
var (
	senseUnexpectedData = &sense.Data{Key: 0x0b, ASC: 0x0c, ASCQ: 0x0c} // UNEXPECTED UNSOLICITED DATA
	senseWrongAmount    = &sense.Data{Key: 0x0b, ASC: 0x0c, ASCQ: 0x0d} // NOT ENOUGH UNSOLICITED DATA
	senseDataCRC        = &sense.Data{Key: 0x0b, ASC: 0x47, ASCQ: 0x05} // PROTOCOL SERVICE CRC ERROR
	senseLUNsChanged    = &sense.Data{Key: 0x06, ASC: 0x3f, ASCQ: 0x0e} // REPORTED LUNS DATA HAS CHANGED
	senseDataOrder      = &sense.Data{Key: 0x0b, ASC: 0x4b, ASCQ: 0x00} // DATA PHASE ERROR
)

// command takes a SCSI Command PDU.
func (s *Session) command() error {
	p := &s.cmd
	if err := p.Decode(&s.h); err != nil {
		return s.refuse(err)
	}
	ext, err := pdu.ParseAHS(s.ext)
	if err == nil {
		err = oneWay(p, &ext)
	}
	if err != nil {
		return s.refuse(err)
	}
	n := s.h.DataSegmentLength()
	s.mu.Lock()
	defer s.unlock()
	if !s.accept(p.Immediate, p.CmdSN) {
		return s.dropData(n, nil)
	}
	if reason := s.barred(); reason != 0 {
		s.disown(p.Immediate)
		return s.dropData(n, s.sendReject(reason))
	}
	s.taken++
	t := s.newTask()
	c := &t.cmd
	c.LUN, c.CDB, c.Attr = p.LUN, p.CDB, uint8(p.Attr)
	c.CDBExt = append([]byte(nil), ext.ExtendedCDB...) // empty for every common command
	c.In, c.Out = nil, nil
	if p.Read || p.Write {
		t.expected = int(p.ExpectedDataTransferLength)
	}
	c.Expected = t.expected
	t.plan, t.due = s.nexus.Begin(c), !p.Final
	if s.bare {
		s.tellBare(t)
	}
	if t.plan.Done {
		t.next = n
		return s.dropData(n, s.complete(t))
	}
	if c.ReadsMedium() || c.WritesMedium() {
		s.large = true
	}
	if t.plan.Dir == scsi.DirOut {
		if !p.Write {
			t.expected = 0
		}
		return s.commandOut(t, n)
	}
	if t.plan.Dir == scsi.DirIn && !p.Read {
		t.expected = 0
	}
	if err := s.dropData(n, nil); err != nil {
		return s.lost(t, err)
	}
	return s.commandIn(t)
}

// oneWay refuses a command that moves data both ways (RFC 7143 §11.2.2.3,
// §11.3.1): no unit has one. Where there is no data, both bits say nothing.
func oneWay(p *pdu.SCSICommand, ext *pdu.AHS) error {
	switch {
	case p.Read && p.Write && (p.ExpectedDataTransferLength > 0 || ext.BidirectionalReadLength > 0):
		return &pdu.ProtocolError{Reason: pdu.ReasonNotSupported, Text: "a bidirectional SCSI Command"}
	case ext.Bidirectional && !(p.Read && p.Write):
		return &pdu.ProtocolError{Reason: pdu.ReasonInvalidPDUField, Text: "a bidirectional read length, without both R and W"}
	}
	return nil
}

// barred says why the command at hand cannot become a task, 0 when it can.
func (s *Session) barred() pdu.RejectReason {
	if _, twice := s.tasks[s.cmd.InitiatorTaskTag]; twice {
		return pdu.ReasonTaskInProgress
	}
	if s.cmd.Immediate && s.urgent >= maxImmediate {
		return pdu.ReasonImmediateReject
	}
	return 0
}

// From here on, the lock is held whenever a function begins and ends; what may
// wait runs outside of it.

// outside runs f without the lock.
func (s *Session) outside(f func()) {
	s.unlock()
	defer s.mu.Lock()
	f()
}

// dropData drops the n bytes of data of the PDU at hand, unless err has ended
// the session. Data that comes later for a task that has ended is dropped by
// dataOut.
func (s *Session) dropData(n int, err error) error {
	if err == nil && n > 0 {
		s.outside(func() { err = s.skip(n) })
	}
	return err
}

// lost ends a task whose connection has failed.
func (s *Session) lost(t *task, err error) error {
	t.aborted = true
	_ = s.complete(t) // err says more
	return err
}

// execute runs a task on the reader's goroutine and answers it. Meanwhile aborts
// find it, whether it is in the table or not. When it has taken too long, another
// goroutine reads already, and what is left to do is not the caller's.
func (s *Session) execute(t *task) error {
	t.phase, s.inline = phaseRunning, t
	s.watch.count++
	if !s.watch.on && t.cmd.WritesMedium() {
		s.keepWatch()
	}
	flushed := false
	s.outside(func() { flushed = s.nexus.ExecuteUnflushed(s.ctx, &t.cmd) })
	t.unflushed = !flushed
	if s.inline != t {
		return errRelieved
	}
	s.inline = nil
	if s.flushLater(t) {
		return nil
	}
	return s.complete(t)
}

// flushLater begins a task again that a reader has executed and that is still to be
// flushed: it waits for its disk like every other one that does. It returns false when
// there is no need.
func (s *Session) flushLater(t *task) bool {
	if !t.unflushed || t.aborted {
		return false
	}
	t.unflushed = false
	t.within.Store(false)
	t.cmd.Out = nil
	s.begin(t, false)
	return true
}

// commandIn executes a command that takes no data.
func (s *Session) commandIn(t *task) error {
	c := &t.cmd
	switch {
	case t.plan.Slow || s.ordered > 0:
		s.begin(t, false)
		return nil
	case !c.ReadsMedium():
		if s.scratch == nil {
			s.scratch = s.shared.get(scratchSize)
		}
		c.In = s.scratch.b[:0:scratchSize]
		return s.execute(t)
	}
	n := t.plan.Len
	if n > 0 && n <= min(inPlace, t.expected, s.params.MaxRecvDataSegmentLength, s.params.MaxBurstLength) {
		return s.readInPlace(t)
	}
	if n > inPlace && n <= t.expected && s.lends() {
		if lent, err := s.lend(t); lent {
			return err
		}
	}
	if s.reserve(t, n, false) {
		c.In = t.buf.b[:0]
		if s.nexus.TryExecute(c) {
			return s.complete(t)
		}
		s.unreserve(t)
	}
	c.In = nil
	s.begin(t, false)
	return nil
}

// readInPlace answers a READ whose data fits one PDU: it is read to where it is
// sent from.
func (s *Session) readInPlace(t *task) error {
	c, n := &t.cmd, t.plan.Len
	head, tail := s.overhead(n)
	b, err := s.room(head + n + tail)
	if err != nil {
		return s.lost(t, err)
	}
	c.In = b[head : head : head+n]
	if !s.nexus.TryExecute(c) {
		c.In = nil
		s.begin(t, false)
		return nil
	}
	s.retire(t)
	s.observe(t)
	t.dataSN = 0
	s.dataIn(t, 0, len(c.In))
	s.din.Encode((*pdu.Header)(b))
	s.seal(b, head, n, tail)
	s.n += len(b)
	s.recycle(t)
	return nil
}

// commandOut takes the immediate data of a command and sees to the rest.
func (s *Session) commandOut(t *task, n int) error {
	p, c := &s.cmd, &t.cmd
	t.want = min(t.plan.Len, t.expected)
	// One is enough that waits for a disk which has kept a reader.
	t.plan.Slow = t.plan.Slow || t.lu.held > 0
	if n > 0 && (!s.params.ImmediateData || n > s.params.FirstBurstLength) || !p.Final && s.params.InitialR2T || n > t.expected {
		return s.dropData(n, s.fail(t, senseUnexpectedData))
	}
	if n >= t.want && p.Final && n <= largeInput/2 {
		return s.writeInPlace(t, n)
	}
	s.list(t)
	if !p.Final {
		t.unasked = min(s.params.FirstBurstLength, t.expected)
	}
	if t.want > inlineWrite && !t.plan.Slow && s.ordered == 0 && !s.overdue && c.ComesInPieces() {
		// It holds no memory while it waits for data, and moves on before the
		// processor's cache has forgotten what came.
		t.pieces = true
		if gone, err := s.receive(t, n); gone || err != nil {
			return err
		}
		return s.settle(t)
	}
	// What comes unasked must have a place now.
	if first := min(t.want, max(n, t.unasked)); first > 0 && !s.reserve(t, t.want, false) && !s.reserve(t, first, false) {
		return s.dropData(n, s.full(t))
	}
	if gone, err := s.receive(t, n); gone || err != nil {
		return err
	}
	return s.settle(t)
}

// full refuses a command for whose data there is no memory now: the initiator
// sends it again, and fewer at a time (SAM-5 §5.3.1, TASK SET FULL).
func (s *Session) full(t *task) error {
	t.cmd.Status, t.cmd.Sense, t.cmd.In = scsi.StatusTaskSetFull, nil, nil
	return s.complete(t)
}

// writeInPlace executes a command whose data came with it, from where it lies
// in the read buffer.
func (s *Session) writeInPlace(t *task, n int) error {
	var data []byte
	var ok bool
	var err error
	if s.buffered(n) {
		data, ok, err = s.data(n)
	} else {
		s.list(t) // who aborts its unit meanwhile finds it
		t.receiving = true
		s.outside(func() { data, ok, err = s.data(n) })
		t.receiving = false
	}
	switch {
	case err != nil:
		return s.lost(t, err)
	case t.aborted:
		return s.complete(t)
	case !ok:
		return s.digestLost(t)
	case !t.plan.Slow && s.ordered == 0:
		t.next = n
		t.cmd.Out = data[:t.want]
		return s.execute(t)
	}
	t.next = n
	if t.want > 0 {
		if !s.reserve(t, t.want, false) {
			return s.full(t)
		}
		t.cmd.Out = t.buf.b[:copy(t.buf.b[:t.want], data)]
	}
	s.begin(t, false)
	return nil
}
