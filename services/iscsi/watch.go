package iscsi

import (
	"context"
	"time"

	"lunboot/services"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// A command that its volume has for longer than stuckAfter is told of, and again
// after stuckAgain while one is there. iPXE gives up a session whose read is not
// answered for 15 s, and logs in anew; an operating system waits for half a minute.
const (
	stuckAfter = 10 * time.Second
	stuckAgain = time.Minute
)

// watch looks at the inventory again whenever it changed: what an operator
// unmaps or removes disappears from live sessions.
func (s *Server) watch(ctx context.Context) {
	revision := s.cfg.Catalog.Revision()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.cfg.Catalog.Changed(revision):
		}
		revision = s.cfg.Catalog.Revision()
		s.mu.Lock()
		for _, v := range s.sessions.byID {
			if !v.res.Discovery {
				v.refresh()
			}
		}
		s.mu.Unlock()
		// A storm of boots changes leases by the hundred: one look serves all.
		select {
		case <-ctx.Done():
			return
		case <-time.After(refreshPause):
		}
	}
}

// refresh asks for a look at the inventory. One is under way for a session at a
// time, and one more at most waits for it: a session whose connection is stuck
// holds up nobody else. It never blocks.
func (v *live) refresh() {
	if v.pending.Add(1) > 1 {
		return
	}
	v.work.Go(func() {
		for {
			n := v.pending.Load()
			err := services.Guard(v.server.cfg.Log, "iSCSI session refresh", func() error { v.look(); return nil })
			if err != nil {
				v.ses.Close("its volumes could not be looked up")
			}
			if v.pending.Add(-n) == 0 {
				return
			}
		}
	})
}

// look compares what the initiator may see with what it sees.
func (v *live) look() {
	select {
	case <-v.ses.Done():
		return
	default:
	}
	s := v.server
	m, err := s.cfg.Catalog.Refresh(context.Background(), v.res.Initiator)
	if err != nil {
		if store.IsNotFound(err) {
			v.ses.Close("the machine was removed")
			return
		}
		v.stale.Store(true) // asked again at the next tick: a mapping may be gone
		s.cfg.Log.Error("cannot look up the volumes of a live session; it goes on with those it has", "session", v.id, "initiator", v.res.Initiator, "error", err)
		return
	}
	was, now := v.mapped.Load(), stateOf(m)
	keep := func() {
		if m.Release != nil {
			m.Release()
		}
	}
	if m.Generation != v.generation {
		keep()
		v.ses.Close("the machine's volume was reset for a new boot")
		return
	}
	if now.equal(was) {
		keep()
		return
	}
	for _, e := range *now {
		if o := was.find(e.lun); o != nil && o.unit != e.unit {
			// No file system survives another disk behind its LUN.
			keep()
			v.ses.Close("another volume was mapped at a LUN that the session had")
			return
		}
	}
	entries, l, err := s.units.open(context.Background(), m)
	if err != nil {
		keep()
		v.stale.Store(true)
		s.cfg.Log.Error("cannot look up the reservations of a live session's volumes; it goes on with those it has", "session", v.id, "initiator", v.res.Initiator, "error", err)
		return
	}
	v.setMap(m, entries, l)
}

// keep looks after the sessions: silence, samples of I/O, and iPXE sessions
// whose operating system has taken over.
func (s *Server) keep(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		now := s.cfg.Now()
		for _, v := range s.sessions.byID {
			v.tend(now)
		}
		s.mu.Unlock()
	}
}

// await looks whether the session's storage still answers, with the server's lock
// held: an initiator whose command does not come back sees the same as one whose
// packets are lost, and only the target knows which it is.
func (v *live) await(now time.Time) {
	p, ok := v.ses.Oldest()
	if ok && p.Number != v.oldest {
		v.oldest, v.oldestAt = p.Number, now
	}
	held := now.Sub(v.oldestAt)
	if !ok || p.Number == 0 || held < stuckAfter || !v.toldAt.IsZero() && now.Sub(v.toldAt) < stuckAgain {
		return
	}
	v.toldAt = now
	n := int(p.LUN)
	d := store.Detail{LUN: &n, Volume: v.volumeName(p.LUN), Opcode: scsi.CommandName(p.CDB[:]), LBA: int64(min(p.LBA, 1<<62)), Millis: held.Milliseconds(), Cause: store.CauseStorage,
		Reason: "the storage that holds the volume has not answered for " + held.Round(time.Second).String()}
	v.server.cfg.Log.Warn("a command waits for the storage of its volume", "session", v.id, "initiator", v.res.Initiator, "volume", d.Volume, "command", d.Opcode, "lba", d.LBA, "for", held)
	v.emit(store.EventISCSIStuck, d)
}

// tend looks at one session, with the server's lock held.
func (v *live) tend(now time.Time) {
	c := v.ses.Counters()
	if c.Activity != v.activity {
		v.activity, v.heard, v.pinged = c.Activity, now, time.Time{}
	}
	if c.Read != v.counters.Read || c.Written != v.counters.Written {
		v.lastIO = now
	}
	v.counters = c
	if v.stale.Swap(false) {
		v.refresh()
	}
	if (c.Read != v.sampled.Read || c.Written != v.sampled.Written) && now.Sub(v.sampleAt) >= samplePeriod {
		v.emit(store.EventISCSIIO, store.Detail{Bytes: c.Read, Written: c.Written})
		v.sampled, v.sampleAt = c, now
	}
	v.await(now)
	switch {
	case !v.retireAt.IsZero() && !now.Before(v.retireAt):
		v.ses.Close("the machine's operating system has its own session")
	case v.ses.Ended():
		// A connection that takes its place is no silence of the initiator.
	case v.ipxe:
		// It answers no NOP-In; TCP says when it has gone.
	case v.pinged.IsZero() && now.Sub(v.heard) >= pingAfter:
		v.pinged = now
		v.work.Go(v.ses.Ping)
	case !v.pinged.IsZero() && now.Sub(v.pinged) >= dropAfter:
		v.ses.Close("the initiator has not answered for " + now.Sub(v.heard).Round(time.Second).String())
	}
}
