package iscsi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// IsIPXE recognises iPXE by its ISID: format IANA enterprise number, 10019 (Fen
// Systems), and a random qualifier for each connection.
func IsIPXE(i [6]byte) bool { return [4]byte(i[:4]) == [4]byte{0x40, 0x00, 0x27, 0x23} }

// admission is what one login needs of the server.
type admission struct {
	server *Server
	ctx    context.Context
	conn   *session.Conn
	access Access
	live   *live
	old    *live // whose place the new connection takes; nil for a new session

	arrival *arrival
}

func refusal(status pdu.LoginStatus, format string, args ...any) *login.Refusal {
	return &login.Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}

// catalogRefusal refuses because the catalogue could not answer.
func catalogRefusal(initiator store.IQN, err error) *login.Refusal {
	switch store.KindOf(err) {
	case store.KindNotFound:
		r := refusal(pdu.LoginAuthorizationFail, "no machine has the initiator name %s", initiator)
		r.Cause = store.CauseNoInitiator
		return r
	case store.KindUnavailable, store.KindInUse:
		r := refusal(pdu.LoginServiceUnavailable, "the volumes of %s cannot be opened now: %v", initiator, err)
		r.Cause = store.CauseOf(err)
		return r
	}
	r := refusal(pdu.LoginTargetError, "the volumes of %s cannot be opened: %v", initiator, err)
	r.Cause = store.CauseOf(err)
	return r
}

// lookup says how an initiator must prove itself. An unknown one may look
// around in a discovery session, and finds nothing.
func (a *admission) lookup(initiator store.IQN, discovery bool) (login.Access, *login.Refusal) {
	access, err := a.server.cfg.Catalog.Access(a.ctx, initiator)
	if err != nil {
		if discovery && store.IsNotFound(err) {
			return login.Access{Auth: store.AuthNone}, nil
		}
		return login.Access{}, catalogRefusal(initiator, err)
	}
	if why := a.impostor(access, initiator); why != nil {
		return login.Access{}, why
	}
	a.access = access
	return login.Access{Auth: access.Auth, CHAP: access.CHAP, Reverse: access.Reverse}, nil
}

// impostor refuses a machine that gives another one's name, before it proves
// anything: a copied image carries the secret along with the name. The refusal is
// told of the machine that has the address.
func (a *admission) impostor(named Access, initiator store.IQN) *login.Refusal {
	h := a.server.cfg.Holders
	if h == nil || named.Machine == 0 {
		return nil
	}
	addr := a.conn.RemoteAddr().Addr().Unmap()
	holder, other := h.Other(a.ctx, addr, named.Machine)
	if !other {
		return nil
	}
	a.access = Access{Machine: holder.Machine, Name: holder.Name}
	r := refusal(pdu.LoginAuthorizationFail, "the login gave the initiator name of %s (%s), and %s is the address of %s, by %s; nobody is served another machine's volumes",
		named.Name, initiator, addr, holder.Name, holder.By)
	r.Cause, r.Asked = store.CauseOtherMachine, named.Name
	return r
}

// join answers a connection that wants to belong to a session (RFC 7143
// §6.3.1): a session has one connection, which one with the same CID replaces.
func (a *admission) join(j login.Joining) (login.Params, *login.Refusal) {
	s := a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.sessions.byTSIH[j.TSIH]
	switch {
	case v == nil || v.res.Initiator != j.Initiator || v.res.ISID != j.ISID || v.ses.Ended():
		return login.Params{}, refusal(pdu.LoginSessionDoesNotExist, "the initiator asked for a connection to a session (TSIH %d) that does not exist", j.TSIH)
	case v.res.CID != j.CID:
		return login.Params{}, refusal(pdu.LoginTooManyConnections, "the initiator asked for a second connection (CID %d) to session %s; a session has one, and here that is CID %d", j.CID, v.id, v.res.CID)
	case v.res.Discovery != j.Discovery:
		return login.Params{}, refusal(pdu.LoginInitiatorError, "the initiator asked for a connection to session %s as if that were of another type", v.id)
	}
	a.old = v
	return v.res.Params, nil
}

// admit makes the session of a login that has succeeded otherwise.
func (a *admission) admit(res *login.Result) (uint16, *login.Refusal) {
	s := a.server
	if a.old == nil {
		if why := s.room(res); why != nil {
			return 0, why
		}
	}
	s.mark(&a.arrival.kept)
	v := &live{
		server: s, res: *res, access: a.access, conn: a.conn, ipxe: IsIPXE(res.ISID), addr: a.conn.RemoteAddr(), portal: a.conn.LocalAddr(), isid: res.ISID.String(),
		ended: make(chan struct{}),
	}
	v.since = s.cfg.Now()
	v.heard = v.since
	switch {
	case a.old != nil:
		return a.reinstate(v, res)
	case res.Discovery:
		v.ses = session.New(a.conn, nil, v.config())
		a.live = v
		return s.register(v)
	}
	return a.begin(v)
}

// config is what the session needs of v.
func (v *live) config() session.Config {
	return session.Config{Result: v.res, Shared: v.server.shared, Observer: v, Targets: v.targets, Log: v.server.cfg.Log}
}

// begin makes a session with units.
func (a *admission) begin(v *live) (uint16, *login.Refusal) {
	s, res := a.server, &v.res
	unlock, why := s.lockInitiator(a.ctx, res.Initiator)
	if why != nil {
		return 0, why
	}
	defer unlock()
	revision := s.cfg.Catalog.Revision()
	m, err := s.cfg.Catalog.Open(a.ctx, res.Initiator, res.ISID)
	if err != nil {
		return 0, catalogRefusal(res.Initiator, err)
	}
	entries, lease, err := s.units.open(a.ctx, m)
	if err != nil {
		if m.Release != nil {
			m.Release()
		}
		return 0, catalogRefusal(res.Initiator, err)
	}
	if len(entries) == 0 {
		lease.close()
		return 0, refusal(pdu.LoginAuthorizationFail, "no volume is mapped to the machine %s (%s)", a.access.Name, res.Initiator)
	}
	// Session reinstatement (RFC 7143 §6.3.5), and the sessions of the boots
	// before a reset: they and their commands are over before this one begins.
	if why := s.supersede(a.ctx, v, m.Generation); why != nil {
		lease.close()
		return 0, why
	}
	if m.Fired {
		for _, e := range entries {
			if err := e.Unit.Forget(a.ctx, string(res.Initiator)); err != nil {
				lease.close()
				return 0, refusal(pdu.LoginTargetError, "what %s reserved before it was started anew cannot be released: %v", res.Initiator, err)
			}
		}
	}
	v.generation = m.Generation
	v.seat = &seat{}
	v.seat.Store(v)
	v.nexus = scsi.NewNexus(scsi.NexusConfig{
		Initiator: string(res.Initiator), ISID: res.ISID,
		PortName:        s.portName,
		DescriptorSense: v.ipxe,
		OnNoLUN:         func(lun [8]byte, cdb []byte) { v.seat.Load().noLUN(lun, cdb) },
		Abort:           func(lun store.LUN, rest func()) int { return v.seat.Load().ses.AbortUnit(lun, rest) },
	})
	v.ses = session.New(a.conn, v.nexus, v.config())
	v.setMap(m, entries, lease)
	tsih, why := s.register(v)
	if why != nil {
		v.ses.Abandon()
		return 0, why
	}
	a.live = v
	if s.cfg.Catalog.Revision() != revision {
		v.refresh() // what changed since Open went by the watcher
	}
	return tsih, nil
}

// room refuses a session for which there is none.
func (s *Server) room(res *login.Result) *login.Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound(res)
}

// bound counts, with the lock held. A session that the new one replaces is not
// counted; it has ended before the new one is registered.
func (s *Server) bound(res *login.Result) *login.Refusal {
	all, own := s.sessions.beside(res.Initiator, res.ISID)
	looking := s.sessions.looking
	switch {
	case res.Discovery && looking >= 2*maxDiscovery: // those that were ended are still ending
		return refusal(pdu.LoginOutOfResources, "%d discovery sessions are open, which is the limit", looking)
	case res.Discovery:
	case all >= s.cfg.MaxSessions:
		return refusal(pdu.LoginOutOfResources, "%d sessions are open, which is the limit", s.cfg.MaxSessions)
	case own >= maxPerInitiator && s.sessions.hanging[res.Initiator] > 0:
		return refusal(pdu.LoginOutOfResources, "the initiator has %d sessions, which is the limit for one, and %d of them have ended with commands that their volumes have not finished; look at the disk under those", own, s.sessions.hanging[res.Initiator])
	case own >= maxPerInitiator:
		return refusal(pdu.LoginOutOfResources, "the initiator has %d sessions open, which is the limit for one", own)
	}
	return nil
}

// endOldDiscovery makes room for a discovery session, with the lock held. They
// need no proof, so that whoever keeps them open must not be in the way.
func (s *Server) endOldDiscovery() {
	if s.sessions.looking < maxDiscovery {
		return
	}
	var oldest *live
	n := 0
	for _, v := range s.sessions.byID {
		if !v.res.Discovery || v.ses.Ended() {
			continue
		}
		if n++; oldest == nil || v.order < oldest.order {
			oldest = v
		}
	}
	if n >= maxDiscovery {
		oldest.ses.Close("newer discovery sessions needed its place")
	}
}

// lockInitiator lets one login of an initiator make its session at a time.
func (s *Server) lockInitiator(ctx context.Context, initiator store.IQN) (func(), *login.Refusal) {
	for {
		s.mu.Lock()
		other, busy := s.admits[initiator]
		if !busy {
			s.admits[initiator] = nil
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				if awaited := s.admits[initiator]; awaited != nil {
					close(awaited)
				}
				delete(s.admits, initiator)
			}, nil
		}
		if other == nil {
			other = make(chan struct{})
			s.admits[initiator] = other
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, refusal(pdu.LoginServiceUnavailable, "the appliance is shutting down")
		}
	}
}

// supersede ends the sessions that a new one replaces and waits for their
// writes: one that came later would land in the new boot. It does not wait for what
// only reads or flushes: a volume that hangs would keep the machine from all others.
func (s *Server) supersede(ctx context.Context, v *live, generation int64) *login.Refusal {
	var old []*live
	s.mu.Lock()
	for _, o := range s.sessions.byName[v.res.Initiator] {
		switch {
		case o.res.Discovery:
			continue
		case o.res.ISID == v.res.ISID:
			o.ses.Close("the initiator logged in again")
		case o.generation < generation:
			o.ses.Close("the machine's volume was reset for a new boot")
		default:
			continue
		}
		old = append(old, o)
	}
	s.mu.Unlock()
	if len(old) == 0 {
		return nil
	}
	patience := time.NewTimer(taskPatience)
	defer patience.Stop()
	for _, o := range old {
		select {
		case <-o.ses.Harmless():
		case <-ctx.Done():
			return refusal(pdu.LoginServiceUnavailable, "the appliance is shutting down")
		case <-patience.C:
			return refusal(pdu.LoginServiceUnavailable, "session %s of this initiator still has a write that its volume has not finished after %s", o.id, taskPatience)
		}
	}
	return nil
}

// register names a session and puts it into the table.
func (s *Server) register(v *live) (uint16, *login.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return 0, refusal(pdu.LoginServiceUnavailable, "the appliance is shutting down")
	}
	if why := s.bound(&v.res); why != nil {
		return 0, why
	}
	if v.res.Discovery {
		s.endOldDiscovery()
	}
	for s.tsih++; s.tsih == 0 || s.sessions.byTSIH[s.tsih] != nil; s.tsih++ {
	}
	s.order++
	v.tsih, v.order = s.tsih, s.order
	for v.id == "" || s.sessions.byID[v.id] != nil {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		v.id = hex.EncodeToString(b[:])
	}
	s.sessions.add(v)
	return v.tsih, nil
}
