package iscsi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// live is one session and what the target remembers of it.
type live struct {
	server     *Server
	id         string
	tsih       uint16
	order      int64 // rises with each login
	res        login.Result
	isid       string
	access     Access
	ipxe       bool
	generation int64
	addr       netip.AddrPort
	portal     netip.AddrPort
	since      time.Time
	conn       *session.Conn
	nexus      *scsi.Nexus // nil in a discovery session
	ses        *session.Session
	seat       *seat         // the nexus's, nil in a discovery session
	ended      chan struct{} // closed when nothing of it goes on that could change anything
	mapped     atomic.Pointer[mapState]

	// Guarded by the server's lock.
	used     map[store.LUN]bool // LUNs that it read or wrote; nil at first
	retireAt time.Time          // zero: it is not to be retired
	heard    time.Time          // when the initiator last sent anything
	activity uint64
	pinged   time.Time // zero: no answer is awaited
	lastIO   time.Time
	counters session.Counters
	sampled  session.Counters
	sampleAt time.Time
	oldest   uint64    // the command that its volume has had for longest; 0: none
	oldestAt time.Time // when it was seen there first
	toldAt   time.Time // when somebody was told that one does not come back

	loggedOut atomic.Bool

	pending atomic.Int32 // looks at the inventory that are asked for
	stale   atomic.Bool  // the last look failed
	work    sync.WaitGroup

	limit limiter
}

// seat is whose a nexus is: a connection that is reinstated hands it on.
type seat struct{ atomic.Pointer[live] }

// mapState is the map that a session has now, by rising LUN. It is immutable.
type mapState []entryState

type entryState struct {
	lun      store.LUN
	name     string
	unit     unitKey
	readOnly bool
	sanitize bool
}

// setMap gives the session its map.
func (v *live) setMap(m Map, entries map[store.LUN]scsi.MapEntry, l *lease) {
	v.mapped.Store(stateOf(m))
	v.ses.SetMap(entries, l.close)
}

func stateOf(m Map) *mapState {
	st := make(mapState, 0, len(m.LUNs))
	for lun, e := range m.LUNs {
		st = append(st, entryState{lun: lun, name: e.Name, unit: keyOf(e), readOnly: e.ReadOnly, sanitize: e.Sanitize})
	}
	slices.SortFunc(st, func(a, b entryState) int { return cmp.Compare(a.lun, b.lun) })
	return &st
}

func (st *mapState) equal(o *mapState) bool { return slices.Equal(*st, *o) }

// find returns what is at a LUN, nil when it does not exist.
func (st *mapState) find(lun store.LUN) *entryState {
	k, ok := slices.BinarySearchFunc(*st, lun, func(e entryState, lun store.LUN) int { return cmp.Compare(e.lun, lun) })
	if !ok {
		return nil
	}
	return &(*st)[k]
}

func (st *mapState) luns() []store.LUN {
	out := make([]store.LUN, 0, len(*st))
	for k := range *st {
		out = append(out, (*st)[k].lun)
	}
	return out
}

// mappedNumbers lists the LUNs that exist for the initiator.
func (v *live) mappedNumbers() []int {
	st := v.mapped.Load()
	if st == nil {
		return nil
	}
	n := make([]int, 0, len(*st))
	for k := range *st {
		n = append(n, int((*st)[k].lun))
	}
	return n
}

// volumeName is the name of the volume at a LUN, as it is mapped now.
func (v *live) volumeName(lun store.LUN) string {
	if st := v.mapped.Load(); st != nil {
		if e := st.find(lun); e != nil {
			return e.name
		}
	}
	return ""
}

// reserver names the initiator that has reserved the volume at a LUN; empty when
// that is not known by name.
func (v *live) reserver(lun store.LUN) string {
	st := v.mapped.Load()
	if st == nil {
		return ""
	}
	e := st.find(lun)
	if e == nil {
		return ""
	}
	us := v.server.units
	us.mu.Lock()
	defer us.mu.Unlock()
	if r := us.reserved[e.unit.uuid]; r != nil {
		return r.State().Holder.Initiator
	}
	return ""
}

// run serves the session to its end.
func (v *live) run(res login.Result) {
	s := v.server
	defer s.finish(v)
	defer close(v.ended)
	reason := v.ses.Serve(res)
	s.forget(v)
	v.work.Wait()
	c := v.ses.Counters()
	cause := store.Cause("")
	if reason == session.StoppedAnswering {
		cause = store.CauseSilent
	}
	v.emit(store.EventISCSIClosed, store.Detail{Bytes: c.Read, Written: c.Written, Cause: cause, Reason: reason, Millis: s.cfg.Now().Sub(v.since).Milliseconds()})
	level := slog.LevelInfo
	if v.loggedOut.Load() && c.Read == 0 && c.Written == 0 {
		level = slog.LevelDebug // somebody looked around; the event tells as much
	}
	s.cfg.Log.LogAttrs(context.Background(), level, "iSCSI session ended", slog.String("session", v.id), slog.String("initiator", string(v.res.Initiator)),
		slog.String("from", v.addr.String()), slog.Int64("read", c.Read), slog.Int64("written", c.Written), slog.String("reason", reason))
}

// forget takes a session that has ended out of the table.
func (s *Server) forget(v *live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions.remove(v)
}

// finish waits for what the volumes of a session that has ended still do for it.
// Until then it counts as one of its initiator's.
func (s *Server) finish(v *live) {
	if v.ses.Working() {
		count := func(n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sessions.hang(v.res.Initiator, n)
		}
		count(1)
		defer count(-1)
	}
	v.ses.Finish()
}

// targets is what SendTargets lists: the target at the address that the
// initiator reached it by. An initiator with nothing mapped finds nothing.
func (v *live) targets() []pdu.Pair {
	if v.res.Discovery {
		m, err := v.server.cfg.Catalog.Refresh(context.Background(), v.res.Initiator)
		if err != nil {
			return nil
		}
		if m.Release != nil {
			m.Release()
		}
		if len(m.LUNs) == 0 {
			return nil
		}
	}
	return []pdu.Pair{
		{Key: "TargetName", Value: string(v.server.cfg.Target)},
		{Key: "TargetAddress", Value: fmt.Sprintf("%s,%d", v.portal, portalGroup)},
	}
}

// Used retires what the session has replaced. A login retires nothing: firmware
// logs in twice, and two hooked volumes are two sessions of one name.
func (v *live) Used(lun store.LUN, wrote bool) {
	kind := store.EventISCSIFirstRead
	if wrote {
		kind = store.EventISCSIFirstWrite
	}
	n := int(lun)
	v.emit(kind, store.Detail{LUN: &n, Volume: v.volumeName(lun)})
	s := v.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.used == nil {
		v.used = make(map[store.LUN]bool)
	}
	v.used[lun] = true
	for _, o := range s.sessions.byName[v.res.Initiator] {
		if o == v || !o.ipxe {
			continue
		}
		if o.order < v.order && o.used[lun] {
			o.ses.Close(fmt.Sprintf("session %s of the same machine has taken over LUN %d", v.id, lun))
		} else if !v.ipxe && !wrote && o.retireAt.IsZero() {
			o.retireAt = s.cfg.Now().Add(handover)
		}
	}
}

// Failed tells of a command that failed.
func (v *live) Failed(f session.Failure) {
	if !v.limit.allow(limitKey{what: limitFailed, lun: uint64(f.LUN), op: f.CDB[0]}, v.server.cfg.Now()) {
		return
	}
	n := int(f.LUN)
	if f.Reserved {
		// Machines that share a volume meet each other's reservations all the
		// time and know what to do; an iPXE does not.
		if v.ipxe {
			v.emit(store.EventISCSIIOFailed, store.Detail{LUN: &n, Volume: v.volumeName(f.LUN), Opcode: scsi.CommandName(f.CDB[:]), LBA: int64(min(f.LBA, 1<<62)),
				Server: v.reserver(f.LUN), Status: "18", Reason: "another initiator has reserved the volume"})
		}
		return
	}
	v.emit(store.EventISCSIIOFailed, store.Detail{LUN: &n, Volume: v.volumeName(f.LUN), Opcode: scsi.CommandName(f.CDB[:]), LBA: int64(min(f.LBA, 1<<62)), Sense: f.String(), Reason: senseReason(f)})
}

// LoggedOut tells of a Logout Request.
func (v *live) LoggedOut() {
	v.loggedOut.Store(true)
	v.emit(store.EventISCSILogout, store.Detail{})
}

// ColdReset ends all sessions of the initiator that asked for it.
func (v *live) ColdReset() {
	s := v.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.sessions.byName[v.res.Initiator] {
		o.ses.Close("the initiator asked for a target cold reset")
	}
}

// noLUN tells of a command for a LUN that does not exist. It runs with the
// session's lock held.
func (v *live) noLUN(lun [8]byte, cdb []byte) {
	n := -1
	if l, ok := scsi.ParseLUN(lun); ok {
		n = int(l)
	}
	if !v.limit.allow(limitKey{what: limitNoLUN, lun: uint64(n + 1), op: cdb[0]}, v.server.cfg.Now()) {
		return
	}
	v.emit(store.EventISCSINoLUN, store.Detail{LUN: &n, Mapped: v.mappedNumbers(), Opcode: scsi.CommandName(cdb), Sense: "05/25/00"})
}

// emit states a fact about the session.
func (v *live) emit(kind store.EventKind, d store.Detail) {
	d.Initiator, d.Target, d.ISID, d.Session, d.IPXE = string(v.res.Initiator), string(v.server.cfg.Target), v.isid, v.id, v.ipxe
	v.server.cfg.Emit.Emit(store.Event{At: v.server.cfg.Now(), Kind: kind, Addr: v.addr.Addr(), Machine: v.access.Machine, Detail: d})
}

// Sessions lists the live sessions, the oldest first; discovery sessions are
// left out.
func (s *Server) Sessions() []store.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*live, 0, len(s.sessions.byID))
	for _, v := range s.sessions.byID {
		if !v.res.Discovery {
			list = append(list, v)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].order < list[j].order })
	out := make([]store.Session, 0, len(list))
	for _, v := range list {
		c := v.ses.Counters()
		out = append(out, store.Session{
			ID: v.id, Initiator: v.res.Initiator, Machine: v.access.Machine, ISID: v.res.ISID.String(), IPXE: v.ipxe, TSIH: v.tsih,
			Addr: v.addr.String(), Portal: v.portal.String(), Auth: v.res.Auth, Since: v.since, LastIO: v.lastIO,
			Read: c.Read, Written: c.Written, LUNs: v.mapped.Load().luns(),
		})
	}
	return out
}

// Drop ends one session and waits until it has ended and is harmless, also when
// another connection takes its place meanwhile.
func (s *Server) Drop(ctx context.Context, id string) error {
	v := s.find(id)
	if v == nil {
		return &store.Error{Kind: store.KindNotFound, Op: "drop session", Subject: id, Msg: "there is no such session; it may have ended"}
	}
	for ; v != nil; v = s.find(id) {
		v.ses.Close("an operator dropped the session")
		select {
		case <-v.ses.Harmless():
			s.forget(v) // so that nobody sees it after this
		case <-ctx.Done():
			return &store.Error{Kind: store.KindUnavailable, Op: "drop session", Subject: id, Msg: "its connection is closed, and a volume has not finished its last write yet", Err: ctx.Err()}
		}
	}
	return nil
}

func (s *Server) find(id string) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions.byID[id]
}
