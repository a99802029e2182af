package iscsi

import (
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// reinstate puts a new connection in the place of a session's old one (RFC 7143
// §6.3.4), which can change nothing any more by then: without error recovery its
// tasks end and the initiator hears no more of them.
func (a *admission) reinstate(v *live, res *login.Result) (uint16, *login.Refusal) {
	s, old := a.server, a.old
	if !res.Discovery {
		unlock, why := s.lockInitiator(a.ctx, res.Initiator)
		if why != nil {
			return 0, why
		}
		defer unlock()
	}
	if why := s.patient(res.Initiator); why != nil {
		return 0, why
	}
	if !old.ses.Yield("the initiator put a new connection in its place") {
		return 0, refusal(pdu.LoginSessionDoesNotExist, "the session that the initiator asked for a connection to (TSIH %d) has ended meanwhile", old.tsih)
	}
	patience := time.NewTimer(taskPatience)
	defer patience.Stop()
	select {
	case <-old.ended:
	case <-a.ctx.Done():
		old.ses.Forsake()
		return 0, refusal(pdu.LoginServiceUnavailable, "the appliance is shutting down")
	case <-patience.C:
		old.ses.Forsake()
		return 0, refusal(pdu.LoginServiceUnavailable, "session %s still has a write that its volume has not finished after %s", old.id, taskPatience)
	}
	v.tsih, v.order, v.id = old.tsih, old.order, old.id
	v.generation, v.seat, v.nexus, v.used, v.retireAt = old.generation, old.seat, old.nexus, old.used, old.retireAt
	v.mapped.Store(old.mapped.Load())
	v.ses = session.New(a.conn, v.nexus, v.config())
	res.ExpCmdSN = v.ses.Inherit(old.ses)
	v.res.ExpCmdSN = res.ExpCmdSN
	if v.seat != nil {
		v.seat.Store(v)
	}
	if why := s.resume(v, old); why != nil {
		v.ses.Abandon()
		return 0, why
	}
	a.live = v
	if !res.Discovery {
		v.refresh() // what changed meanwhile went by the watcher
	}
	return v.tsih, nil
}

// patient refuses a new connection to an initiator whose volumes have not finished
// what they were doing for as many as it may have.
func (s *Server) patient(initiator store.IQN) *login.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.sessions.hanging[initiator]; n >= maxPerInitiator {
		return refusal(pdu.LoginServiceUnavailable, "%d sessions of this initiator have ended with commands that their volumes have not finished, which is the limit; look at the disk under those", n)
	}
	return nil
}

// resume puts a session into the table again, under the name that it had, unless
// somebody ended it while its old connection came to rest. Who ends it after that
// finds it there.
func (s *Server) resume(v, old *live) *login.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch why := old.ses.Revoked(); {
	case why != "":
		return refusal(pdu.LoginSessionDoesNotExist, "the session that the initiator asked for a connection to (TSIH %d) has ended meanwhile: %s", v.tsih, why)
	case s.stopping:
		return refusal(pdu.LoginServiceUnavailable, "the appliance is shutting down")
	case s.sessions.byTSIH[v.tsih] != nil || s.sessions.byID[v.id] != nil: // by a login in the moment between
		return refusal(pdu.LoginSessionDoesNotExist, "the session that the initiator asked for a connection to (TSIH %d) has ended meanwhile", v.tsih)
	}
	s.sessions.add(v)
	return nil
}
