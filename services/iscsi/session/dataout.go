package session

import (
	"net"

	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi/sense"
)

// receive reads n bytes that belong at t.next; the task stays in the table
// meanwhile. gone says that the task has ended.
func (s *Session) receive(t *task, n int) (gone bool, err error) {
	if n == 0 {
		return false, nil
	}
	var dst []byte
	var piece *buffer
	keep := max(min(t.want-t.next, n), 0)
	switch {
	case keep == 0:
	case t.pieces:
		piece = s.shared.get(keep)
		dst = piece.b[:keep]
	default:
		dst = t.buf.b[t.next : t.next+keep]
	}
	ok, turn, late := false, false, false
	t.receiving = true
	s.outside(func() {
		if ok, err = s.dataInto(dst, n); ok && err == nil && piece != nil {
			turn, late = s.pieceTurn()
		}
	})
	t.receiving = false
	live, full := !t.aborted && t.bad == nil, false
	switch {
	case turn && live:
		s.writePiece(t, piece, keep)
	case turn:
		s.shared.put(piece)
		<-s.writer
	default:
		full = late && live && !s.keepRest(t, piece, keep)
		s.shared.put(piece)
	}
	if ok {
		t.next += n
	}
	switch {
	case err != nil:
		return true, s.lost(t, err)
	case t.aborted:
		return true, s.complete(t)
	case !ok:
		return true, s.digestLost(t)
	case piece != nil && !turn && !late:
		return true, s.lost(t, net.ErrClosed)
	case full:
		return true, s.full(t)
	case t.bad != nil:
		s.nexus.Written(&t.cmd, t.bad)
		return true, s.complete(t)
	}
	return false, nil
}

// digestLost answers data that arrived damaged: without error recovery the
// command ends (RFC 7143 §7.8).
func (s *Session) digestLost(t *task) error {
	if err := s.sendReject(pdu.ReasonDataDigestError); err != nil {
		return err
	}
	return s.fail(t, senseDataCRC)
}

// fail ends a task with sense data of the iSCSI layer's own.
func (s *Session) fail(t *task, sense *sense.Data) error {
	s.nexus.Fail(&t.cmd, sense)
	return s.complete(t)
}

// spend keeps the answer of a task that is over, in whatever way, until the sequence
// of its data that is under way has ended (RFC 7143 §11.4.2): the initiator may use
// the task tag again as soon as it has the answer, and its data would be taken for
// the new task's.
func (s *Session) spend(t *task) {
	if !t.listed {
		s.list(t)
	}
	t.cmd.In, t.cmd.Lent = nil, t.cmd.Returns() // it brought data, and gets none
	t.spent, t.phase = true, phaseData
	s.unreserve(t)
	s.proceed() // others may have waited for that memory
}

// settle goes on with a task after a data PDU.
func (s *Session) settle(t *task) error {
	switch {
	case t.unasked > 0 || t.end > t.next:
		return nil // more is due without our asking, or was asked for
	case t.next < t.want:
		if t.pieces || s.reserve(t, t.want, true) {
			return s.ask(t)
		}
		t.phase = phaseWaiting
		s.waiting = append(s.waiting, t)
		return nil
	}
	if t.pieces {
		t.whole = true
		return s.finish(t)
	}
	if t.want > 0 {
		t.cmd.Out = t.buf.b[:t.want]
	}
	if !s.begin(t, !t.plan.Slow && t.want <= inlineWrite) {
		return nil
	}
	return s.execute(t)
}

// ask sends an R2T for the next burst (RFC 7143 §11.8). One is under way for a
// task at a time: MaxOutstandingR2T is 1.
func (s *Session) ask(t *task) error {
	n := min(s.params.MaxBurstLength, t.want-t.next)
	if s.ttt++; s.ttt == pdu.ReservedTag {
		s.ttt = 0
	}
	t.ttt, t.end, t.dataSN, t.due = s.ttt, t.next+n, 0, true
	s.r2t = pdu.R2T{
		LUN:                       t.cmd.LUN,
		InitiatorTaskTag:          t.tag,
		TargetTransferTag:         t.ttt,
		SN:                        s.sn(),
		R2TSN:                     t.r2tSN,
		BufferOffset:              uint32(t.next),
		DesiredDataTransferLength: uint32(n),
	}
	t.r2tSN = t.r2tSN.Add(1)
	return s.put(&s.r2t, nil)
}

// dataOut takes a SCSI Data-Out PDU.
func (s *Session) dataOut() error {
	p := &s.dout
	if err := p.Decode(&s.h); err != nil {
		return err
	}
	n := s.h.DataSegmentLength()
	s.mu.Lock()
	defer s.unlock()
	t := s.tasks[p.InitiatorTaskTag]
	if t != nil {
		t.due = t.due && !p.Final
	}
	if t == nil || t.aborted || t.phase != phaseData {
		// What is left of a task that was aborted, or nothing that it asked
		// for.
		return s.dropData(n, nil)
	}
	if t.spent {
		t.next += n
		return s.dropData(n, s.complete(t))
	}
	if reason, sense := s.misplaced(t, p, n); sense != nil {
		err := s.sendReject(reason)
		if err == nil {
			err = s.fail(t, sense)
		}
		return s.dropData(n, err)
	}
	t.dataSN = t.dataSN.Add(1)
	solicited := p.TargetTransferTag != pdu.ReservedTag
	if gone, err := s.receive(t, n); gone || err != nil {
		return err
	}
	if !p.Final {
		return nil
	}
	// As much as was asked for (§11.8), or all that may come unasked (§11.4.7.2).
	if due := max(t.end, t.unasked); t.next < due {
		if err := s.sendReject(pdu.ReasonProtocolError); err != nil {
			return err
		}
		return s.fail(t, senseWrongAmount)
	}
	if !solicited {
		t.unasked, t.dataSN = 0, 0
	}
	return s.settle(t)
}

// misplaced says what is wrong with a Data-Out PDU for t, nil when it is the
// one that is due: DataPDUInOrder and DataSequenceInOrder are Yes, so there is
// exactly one place where it may belong (§11.7.5). A field with the wrong value
// is told from a wrong amount (§11.17.1).
func (s *Session) misplaced(t *task, p *pdu.DataOut, n int) (pdu.RejectReason, *sense.Data) {
	switch {
	case p.DataSN != t.dataSN, int64(p.BufferOffset) != int64(t.next):
		return pdu.ReasonInvalidPDUField, senseDataOrder
	case p.TargetTransferTag == pdu.ReservedTag:
		if t.unasked == 0 {
			return pdu.ReasonInvalidPDUField, senseUnexpectedData
		}
		if t.next+n > t.unasked {
			return pdu.ReasonProtocolError, senseWrongAmount
		}
	case t.end == 0 || p.TargetTransferTag != t.ttt:
		return pdu.ReasonInvalidPDUField, senseDataOrder
	case t.next+n > t.end:
		return pdu.ReasonProtocolError, senseWrongAmount
	}
	return 0, nil
}
