package session

import (
	"errors"
	"strings"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
)

// nopOut takes a NOP-Out PDU: a ping is answered with its own data, an answer
// to our ping needs nothing more than to have arrived (RFC 7143 §11.18).
func (s *Session) nopOut() error {
	var p pdu.NOPOut
	if err := p.Decode(&s.h); err != nil {
		return s.refuse(err)
	}
	n := s.h.DataSegmentLength()
	var b *buffer
	var data []byte
	if p.InitiatorTaskTag != pdu.ReservedTag {
		// What is longer than the initiator takes is cut (§11.19.2).
		n := min(n, s.params.MaxRecvDataSegmentLength, outputSize/2)
		b = s.shared.get(n)
		defer s.shared.put(b)
		data = b.b[:n]
	}
	ok, err := s.dataInto(data, n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	if !ok {
		return s.sendReject(pdu.ReasonDataDigestError)
	}
	if !s.accept(p.Immediate, p.CmdSN) || p.InitiatorTaskTag == pdu.ReservedTag {
		return nil
	}
	return s.put(&pdu.NOPIn{LUN: p.LUN, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag, SN: s.nextSN()}, data)
}

// Ping sends a NOP-In that asks for an answer (§11.19). Activity grows when
// one arrives. It may wait for the connection.
func (s *Session) Ping() {
	s.mu.Lock()
	defer s.unlock()
	if s.closed() || !s.serving {
		return
	}
	if s.ttt++; s.ttt == pdu.ReservedTag {
		s.ttt = 0
	}
	// The StatSN is the next one and is not used up.
	if s.put(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: s.ttt, SN: s.sn()}, nil) == nil {
		_ = s.flush() // an error has ended the session
	}
}

// AskToLogOut asks the initiator to log out within a time, of whole seconds
// (§11.9.1). It may wait for the connection.
func (s *Session) AskToLogOut(within time.Duration) {
	s.mu.Lock()
	defer s.unlock()
	if s.closed() || s.leaving {
		return
	}
	s.lastCall = uint16(min(max(within/time.Second, 1), 1<<16-1))
	if s.serving {
		s.callLast()
	}
}

// callLast sends what AskToLogOut has to say.
func (s *Session) callLast() {
	if s.put(&pdu.Async{SN: s.nextSN(), Event: pdu.AsyncRequestLogout, Parameter3: s.lastCall}, nil) == nil {
		_ = s.flush() // an error has ended the session
	}
}

// logout takes a Logout Request PDU (§11.14). It is answered when no task can change
// a volume any more: the initiator may do so then by another session. Nothing is
// read meanwhile, since nothing may follow a logout.
func (s *Session) logout() error {
	var p pdu.LogoutRequest
	if err := p.Decode(&s.h); err != nil {
		return s.refuse(err)
	}
	if err := s.skip(s.h.DataSegmentLength()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	if !s.accept(p.Immediate, p.CmdSN) {
		return nil
	}
	result := pdu.LogoutSuccess
	switch {
	case p.Reason > pdu.LogoutForRecovery:
		s.disown(p.Immediate)
		return s.sendReject(pdu.ReasonInvalidPDUField)
	case p.Reason == pdu.LogoutForRecovery:
		result = pdu.LogoutRecoveryNotSupported
	case p.Reason == pdu.LogoutCloseConnection && p.CID != s.cfg.Result.CID:
		result = pdu.LogoutCIDNotFound
	default:
		s.leaving = true
		s.after = append(s.after, s.cfg.Observer.LoggedOut)
		calm := s.abortAll()
		s.outside(func() {
			select {
			case <-calm:
			case <-s.ctx.Done():
			}
		})
	}
	err := s.put(&pdu.LogoutResponse{Response: result, InitiatorTaskTag: p.InitiatorTaskTag, SN: s.nextSN()}, nil)
	if err == nil && s.leaving {
		err = s.flush()
		s.Close("the initiator logged out")
	}
	return err
}

// textRequest takes a Text Request PDU (§11.10).
func (s *Session) textRequest() error {
	var p pdu.TextRequest
	if err := p.Decode(&s.h); err != nil {
		return s.refuse(err)
	}
	n := s.h.DataSegmentLength()
	if n > maxTextLength {
		return s.reject(pdu.ReasonInvalidPDUField)
	}
	data, ok, err := s.data(n)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	if !ok {
		return s.sendReject(pdu.ReasonDataDigestError)
	}
	if !s.accept(p.Immediate, p.CmdSN) {
		return nil
	}
	g := &s.negotiation
	if p.TargetTransferTag == pdu.ReservedTag {
		*g = negotiation{itt: p.InitiatorTaskTag, params: s.params} // a new one ends the one before (§11.10.4)
	} else if !g.on || p.TargetTransferTag != g.ttt || p.InitiatorTaskTag != g.itt {
		s.disown(p.Immediate)
		return s.sendReject(pdu.ReasonInvalidPDUField)
	}
	if reason := s.hear(&p, data); reason != 0 {
		*g = negotiation{}
		s.disown(p.Immediate)
		return s.sendReject(reason)
	}
	r := pdu.TextResponse{LUN: p.LUN, InitiatorTaskTag: p.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag}
	part := g.answer[:min(len(g.answer), s.params.MaxRecvDataSegmentLength, outputSize/2)]
	g.answer = g.answer[len(part):]
	r.Continue = len(g.answer) > 0
	r.Final = p.Final && !r.Continue
	if g.on = !r.Final; !g.on {
		s.params = g.params // not before: of one that fails nothing holds (§7.12)
	} else {
		if s.ttt++; s.ttt == pdu.ReservedTag {
			s.ttt = 0
		}
		g.ttt, r.TargetTransferTag = s.ttt, s.ttt
	}
	r.SN = s.nextSN()
	return s.put(&r, part)
}

// hear takes the data of one Text Request and, when it completes its text,
// prepares the answer. It says why it cannot, 0 when it can.
func (s *Session) hear(p *pdu.TextRequest, data []byte) pdu.RejectReason {
	g := &s.negotiation
	if len(g.answer) > 0 {
		// The rest of a long answer; who asks for it has nothing to add (§6.2).
		if len(data) > 0 || p.Continue {
			return pdu.ReasonProtocolError
		}
		return 0
	}
	if len(g.text)+len(data) > maxTextLength {
		return pdu.ReasonInvalidPDUField
	}
	g.text = append(g.text, data...)
	if p.Continue {
		return 0 // an empty response asks for the rest
	}
	pairs, err := pdu.ParseText(g.text)
	if err != nil {
		return pdu.ReasonProtocolError
	}
	g.text = nil
	for _, q := range s.answerText(pairs) {
		g.answer = pdu.AppendText(g.answer, q.Key, q.Value)
	}
	return 0
}

// answerText answers the keys of one Text Request.
func (s *Session) answerText(pairs []pdu.Pair) []pdu.Pair {
	var answers, rest []pdu.Pair
	asked := false
	for _, q := range pairs {
		if q.Key != "SendTargets" {
			rest = append(rest, q)
			continue
		}
		if asked { // anybody may ask, and it costs a look at the inventory
			answers = append(answers, pdu.Pair{Key: q.Key, Value: "Reject"})
			continue
		}
		asked = true
		targets := s.cfg.Targets()
		all := q.Value == "All" && s.nexus == nil
		// The empty value is the session's own target; a name asks for that
		// target (Appendix C).
		own := q.Value == "" && s.nexus != nil
		named := len(targets) > 0 && strings.EqualFold(q.Value, targets[0].Value)
		if all || own || named {
			answers = append(answers, targets...)
		} else if q.Value == "All" {
			answers = append(answers, pdu.Pair{Key: q.Key, Value: "Reject"}) // discovery sessions only (§13.3)
		}
	}
	return append(answers, login.Renegotiate(&s.negotiation.params, rest)...)
}

// refuse answers a PDU that could not be decoded.
func (s *Session) refuse(err error) error {
	var p *pdu.ProtocolError
	if !errors.As(err, &p) {
		return err
	}
	return s.reject(p.Reason)
}

// reject answers the PDU at hand with a Reject and drops its data. Its CmdSN
// does not count as received (§7.3): what follows is held until the initiator fills
// the gap, with another request of that number or by aborting the task. It is
// called without the lock.
func (s *Session) reject(reason pdu.RejectReason) error {
	if err := s.skip(s.h.DataSegmentLength()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	return s.sendReject(reason)
}

// disown takes back the CmdSN that accept gave to a request which is rejected
// after all.
func (s *Session) disown(immediate bool) {
	if !immediate {
		s.expCmdSN = s.expCmdSN.Add(-1)
	}
}

// sendReject sends a Reject of the header at hand, with the lock held.
func (s *Session) sendReject(reason pdu.RejectReason) error {
	return s.put(&pdu.Reject{Reason: reason, SN: s.nextSN()}, s.h[:])
}
