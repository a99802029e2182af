package session

import (
	"errors"
	"slices"
	"time"

	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// A request that is rejected leaves a gap in the order of commands (RFC 7143
// §7.3). What its initiator had sent behind it by then is in the window, and waits
// here until the gap is filled (§4.2.2.1): by another request of that number, or by
// the abort of the one that was rejected.

// early is a request that waits for its turn. One without bytes was aborted, and
// counts as received when its turn comes (§11.6.1).
type early struct {
	sn   pdu.Serial
	tag  pdu.TaskTag
	wire []byte // as it came, with the data that followed it unasked
	open bool   // there is more of that to come
}

// input is what has come on a connection and was not read yet.
type input struct {
	in     []byte
	pooled *buffer
	r, w   int
}

// errNoRoom ends a session that cannot keep what came early: it would be lost.
var errNoRoom = errors.New("there was no memory for what the initiator had sent behind a request that was rejected")

// setAside keeps the PDU at hand for later if it came early. Only the reader
// changes what is held, and which CmdSN is next.
func (s *Session) setAside() (bool, error) {
	var e *early
	switch s.h.Opcode() {
	case pdu.OpSCSICommand, pdu.OpTaskRequest, pdu.OpNOPOut, pdu.OpTextRequest, pdu.OpLogoutRequest:
		if s.h.Immediate() || s.h.CmdSN() == s.expCmdSN {
			return false, nil
		}
		s.mu.Lock()
		e = s.place(s.h.CmdSN())
		s.mu.Unlock()
		if e == nil {
			return false, nil
		}
		e.tag, e.open = s.h.InitiatorTaskTag(), s.h.Opcode() == pdu.OpSCSICommand && !s.h.Final()
	case pdu.OpDataOut:
		k := slices.IndexFunc(s.held, func(e early) bool { return e.open && e.tag == s.h.InitiatorTaskTag() })
		if k < 0 {
			return false, nil
		}
		e = &s.held[k]
		e.open = !s.h.Final()
	default:
		return false, nil
	}
	return true, s.collect(e)
}

// place returns the place of an early request, nil when it is outside of the window
// or has come before. It is called with the lock held.
func (s *Session) place(sn pdu.Serial) *early {
	if !s.expCmdSN.Less(sn) || s.expCmdSN.Distance(sn) >= s.window-s.slots {
		return nil
	}
	k := 0
	for k < len(s.held) && s.held[k].sn.Less(sn) {
		k++
	}
	if k < len(s.held) && s.held[k].sn == sn {
		return nil
	}
	s.held = slices.Insert(s.held, k, early{sn: sn})
	return &s.held[k]
}

// collect adds the PDU at hand to e.
func (s *Session) collect(e *early) error {
	n := s.h.DataSegmentLength()
	n += s.tail(n)
	size := pdu.BHSLength + len(s.ext) + n
	if s.headerDigest {
		size += pdu.DigestLength
	}
	s.mu.Lock()
	pooled, ok := s.account.Take(size, false)
	if pooled && s.heldSince.IsZero() {
		s.heldSince = time.Now()
	}
	s.mu.Unlock()
	if !ok {
		return errNoRoom
	}
	at := len(e.wire)
	w := append(append(slices.Grow(e.wire, size), s.h[:]...), s.ext...)
	if s.headerDigest {
		w = pdu.AppendDigest(w, pdu.Digest(w[at:]))
	}
	e.wire = w[:at+size]
	return s.Conn.read(e.wire[len(w):], 0)
}

// takeUp makes the next thing to be read what was held and whose turn has come.
func (s *Session) takeUp() {
	if s.r < s.w && s.aside.in != nil {
		return // the data of what was taken up
	}
	if s.aside.in != nil {
		s.shared.put(s.pooled) // of a copy; see leaveInput
		s.in, s.pooled, s.r, s.w, s.aside = s.aside.in, s.aside.pooled, s.aside.r, s.aside.w, input{}
	}
	s.mu.Lock()
	defer s.unlock()
	for len(s.held) > 0 && s.held[0].sn == s.expCmdSN {
		wire := s.held[0].wire
		s.abandon(func(e *early) bool { return e.sn == s.expCmdSN })
		if s.held = slices.Delete(s.held, 0, 1); len(s.held) == 0 {
			s.heldSince = time.Time{}
		}
		if wire != nil {
			s.aside = input{s.in, s.pooled, s.r, s.w}
			s.in, s.pooled, s.r, s.w = wire, nil, 0, len(wire)
			return
		}
		s.expCmdSN = s.expCmdSN.Add(1)
	}
}

// abandon drops what was held of the requests that match picks: they count as
// received. It is called with the lock held.
func (s *Session) abandon(match func(*early) bool) {
	for k := range s.held {
		if e := &s.held[k]; match(e) {
			s.account.Give(len(e.wire))
			e.wire, e.open = nil, false
		}
	}
}

// isFor says whether e is a command for a LUN.
func (e *early) isFor(lun store.LUN) bool {
	if len(e.wire) == 0 {
		return false
	}
	h := (*pdu.Header)(e.wire)
	number, ok := scsi.ParseLUN(h.LUN())
	return h.Opcode() == pdu.OpSCSICommand && ok && number == lun
}
