package session

import (
	"slices"
	"sync/atomic"

	"lunboot/services/iscsi/pdu"
)

// Connection reinstatement (RFC 7143 §6.3.4): an initiator whose connection is
// lost, as it sees it, logs in with a new one to the session that it has. The old
// connection is logged out by that and its tasks end without a word; what belongs
// to the session goes on: its nexus with reservations and unit attention
// conditions, its order of commands, and what was negotiated for it. Here a
// connection has a Session of its own, so one inherits from the other.

// Yield ends a session in favour of a connection that takes its place; it returns
// false when the session has ended already. Once Harmless is closed, Inherit
// or Forsake must follow.
func (s *Session) Yield(reason string) bool {
	return s.end(&ending{reason: reason, yields: true})
}

// Revoked is why a session that has yielded was to end after that; empty when
// nothing ended it. Nobody may go on where it ended then.
func (s *Session) Revoked() string {
	if why := s.revoked.Load(); why != nil {
		return *why
	}
	return ""
}

// Inherit makes s, which is not served yet, go on where a session that has yielded
// to it has ended. It returns the CmdSN that is next.
func (s *Session) Inherit(old *Session) pdu.Serial {
	old.mu.Lock()
	defer old.unlock()
	old.kept = false
	s.heir = true
	s.expCmdSN, s.told = old.expCmdSN, old.told
	s.bare, s.strict = old.bare, old.strict
	for n, u := range old.lus { // its own: what the old connection has left may still use those
		s.lus[n] = &unitState{lun: u.lun, number: u.number, read: u.read, wrote: u.wrote}
	}
	if g := old.grant; g != nil {
		if g.uses == 1 {
			old.grants = slices.DeleteFunc(old.grants, func(o *grant) bool { return o == g })
			old.grant = nil
		} else { // tasks of the old connection have it, which may end after the new one
			var first atomic.Bool
			release := g.release
			g.release = func() {
				if first.Swap(true) {
					release()
				}
			}
			g = &grant{uses: 1, luns: g.luns, release: g.release}
		}
		s.grant, s.grants = g, append(s.grants, g)
	}
	old.letMapGo()
	return s.expCmdSN
}

// Forsake says that nobody inherits from a session that has yielded: it ends as
// every other one does, at once or when it has become harmless.
func (s *Session) Forsake() {
	s.mu.Lock()
	defer s.unlock()
	s.forsaken = true
	if s.kept {
		s.kept = false
		s.letNexusGo()
	}
}
