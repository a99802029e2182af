package session

import (
	"time"

	"lunboot/services"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// fence is a task management function that waits until the commands which it
// aborted, and which may still change their volume, have come to rest: what it
// reports as ended must not write later (SAM-5 §7.1).
type fence struct {
	left int
	done func() // with the lock held
}

// lift runs what waits for a fence when nothing is left.
func (s *Session) lift(f *fence) {
	if f.left == 0 && f.done != nil {
		done := f.done
		f.done = nil
		done()
	}
}

// pass says that a task has come to rest, to those that waited for that.
func (s *Session) pass(fences []*fence) {
	for _, f := range fences {
		f.left--
		s.lift(f)
	}
}

// settled is told that a task which runs has no more to do than to be flushed. It
// runs on the task's goroutine, without the lock.
func (s *Session) settled(t *task) {
	s.mu.Lock()
	defer s.unlock()
	fences := t.fences
	t.settled, t.fences = true, nil
	s.pass(fences)
	if t.aborted {
		s.proceed() // an ORDERED task may have waited for it
	}
}

// abort ends every task that match picks: those that are not executed yet at
// once, the others leave the table, and what they hold comes back when they
// return, without an answer. f, when given, counts those that may still change a
// volume, also when they were aborted before.
func (s *Session) abort(match func(*task) bool, f *fence) {
	var ended []*task
	one := func(t *task) {
		if !match(t) {
			return
		}
		if (t.phase == phaseRunning || t.writing) && f != nil && t.changes() {
			t.fences = append(t.fences, f)
			f.left++
		}
		if t.aborted {
			return
		}
		t.aborted = true
		switch {
		case t.receiving: // the reader ends it
		case t.phase == phaseRunning:
			s.part(t)
		case t.writing:
			s.forget(t)
			t.closing, t.phase = true, phaseRunning
			s.part(t)
		default:
			ended = append(ended, t)
		}
	}
	for t := range s.gone {
		one(t)
	}
	for _, t := range s.tasks {
		one(t)
	}
	if t := s.inline; t != nil && !t.listed && !t.aborted {
		one(t)
	}
	for _, t := range ended {
		s.forget(t)
		s.retire(t)
	}
	for _, t := range ended {
		s.recycle(t)
	}
	s.proceed() // what was aborted holds up no order
}

// abortAll ends every task; the channel is closed when none can change a volume any
// more.
func (s *Session) abortAll() <-chan struct{} {
	calm := make(chan struct{})
	f := &fence{done: func() { close(calm) }}
	s.abort(func(*task) bool { return true }, f)
	s.lift(f)
	return calm
}

// orphan ends what the reader was at when a fault of ours ended it: nobody else
// would, and who waits for its end would wait for ever.
func (s *Session) orphan(err error) {
	if t := s.inline; t != nil {
		s.inline = nil
		_ = s.lost(t, err)
	}
	for _, t := range s.tasks {
		if t.receiving {
			_ = s.lost(t, err)
		}
	}
}

// changes says whether a task that goes on unseen could change its volume: not
// when only its flush is left, which may take as long as the disk likes. A
// sanitize operation is the unit's and not the task's: nothing ends it (SBC-3
// §4.11.2), so that nothing can wait for it.
func (t *task) changes() bool {
	if t.queued {
		return false // whoever finds a place for it looks whether it was aborted
	}
	switch t.cmd.CDB[0] {
	case opSyncCache10, opSyncCache16, opPrefetch10, opPrefetch16, opSanitize:
		return false
	}
	return t.plan.Dir != scsi.DirIn && !t.settled
}

// abortPatience is how long the task management of one initiator waits for the
// connection of another; its own patience is 30 s, as a rule.
const abortPatience = 5 * time.Second

// AbortUnit ends the tasks on one LUN, because another nexus said so, and
// returns how many there were. rest is called, without the lock, when none of
// them can change the volume any more.
func (s *Session) AbortUnit(lun store.LUN, rest func()) int {
	// The lock may be held by a write to an initiator that does not read, and
	// another initiator must not have to wait for that.
	stuck := time.AfterFunc(abortPatience, func() {
		s.end(&ending{reason: "its initiator does not read, and another one's task management waited for it"})
	})
	s.mu.Lock()
	defer s.unlock()
	stuck.Stop()
	n := 0
	f := &fence{done: func() { s.after = append(s.after, rest) }}
	s.abort(func(t *task) bool {
		if t.lu.number != lun {
			return false
		}
		if !t.aborted {
			n++
		}
		return true
	}, f)
	if s.shut() || s.n > 0 && !s.closed() {
		// Not here: who resets the unit does not wait for this connection.
		s.wg.Go(s.push)
	}
	s.lift(f)
	return n
}

// push tells of a window that has opened.
func (s *Session) push() {
	s.mu.Lock()
	defer s.unlock()
	if s.reopen(); !s.closed() {
		_ = s.flush() // an error has ended the session
	}
}

// taskRequest takes a Task Management Function Request PDU (RFC 7143 §11.5).
func (s *Session) taskRequest() error {
	var p pdu.TaskRequest
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
	result := func(r pdu.TaskResult) error {
		return s.put(&pdu.TaskResponse{Response: r, InitiatorTaskTag: p.InitiatorTaskTag, SN: s.nextSN()}, nil)
	}
	var match func(*task) bool
	before := func(*early) bool { return false } // which requests that are held end, too
	var then func(rest func())                   // what the units do, without the lock
	switch p.Function {
	case pdu.FuncAbortTask:
		match = func(t *task) bool { return t.tag == p.ReferencedTaskTag }
		if !s.exists(p.ReferencedTaskTag) {
			// §11.6.1: a command that should still come, and now will not,
			// counts as received; one that has ended does not exist.
			if p.RefCmdSN.Less(s.expCmdSN) || !p.RefCmdSN.Less(p.CmdSN) || s.expCmdSN.Distance(p.RefCmdSN) >= s.window-s.slots {
				return result(pdu.TaskDoesNotExist)
			}
			if p.RefCmdSN == s.expCmdSN {
				s.expCmdSN = s.expCmdSN.Add(1)
			} else if s.place(p.RefCmdSN) == nil {
				s.abandon(func(e *early) bool { return e.sn == p.RefCmdSN && e.tag == p.ReferencedTaskTag })
			}
			return result(pdu.TaskComplete)
		}
	case pdu.FuncAbortTaskSet, pdu.FuncClearTaskSet, pdu.FuncLogicalUnitReset:
		number, ok := scsi.ParseLUN(p.LUN)
		if !ok || !s.mapped(number) {
			return result(pdu.TaskLUNDoesNotExist)
		}
		match = func(t *task) bool { return t.lu.number == number }
		before = func(e *early) bool { return e.isFor(number) }
		switch p.Function {
		case pdu.FuncLogicalUnitReset:
			then = func(rest func()) { s.nexus.LogicalUnitReset(p.LUN, rest) }
		case pdu.FuncClearTaskSet:
			then = func(rest func()) { s.nexus.ClearTaskSet(p.LUN, rest) }
		}
	case pdu.FuncTargetWarmReset, pdu.FuncTargetColdReset:
		match = func(*task) bool { return true }
		before = func(e *early) bool { return len(e.wire) > 0 && pdu.Opcode(e.wire[0]) == pdu.OpSCSICommand }
		then = s.nexus.TargetReset
	case pdu.FuncTaskReassign:
		return result(pdu.TaskReassignNotSupported)
	default:
		return result(pdu.TaskNotSupported)
	}
	f := &fence{}
	f.done = func() {
		answer := func() {
			s.mu.Lock()
			defer s.unlock()
			if s.closed() || result(pdu.TaskComplete) != nil || s.flush() != nil {
				return
			}
			if p.Function == pdu.FuncTargetColdReset {
				s.after = append(s.after, s.cfg.Observer.ColdReset)
			}
		}
		// The units reset without the lock: they call other sessions, which
		// may be calling this one.
		s.after = append(s.after, func() {
			if then != nil {
				// Whoever passes the fence does not wait for this session's lock: a
				// write to an initiator that reads nothing may hold it. Nobody owns
				// this goroutine; it ends with the lock, or with the session.
				then(func() {
					go func() {
						_ = services.Guard(s.cfg.Log, "iSCSI task management", func() error { answer(); return nil })
					}()
				})
			} else {
				answer()
			}
		})
	}
	s.abandon(func(e *early) bool { return e.sn.Less(p.CmdSN) && before(e) })
	s.abort(match, f)
	s.lift(f)
	return nil
}

// exists says whether a task has the tag, or had it and somebody else aborted it:
// its initiator, which has got no answer, may do so too.
func (s *Session) exists(tag pdu.TaskTag) bool {
	if s.tasks[tag] != nil {
		return true
	}
	for t := range s.gone {
		if t.tag == tag {
			return true
		}
	}
	return false
}

// mapped says whether the initiator has a unit at the LUN.
func (s *Session) mapped(lun store.LUN) bool {
	if s.grant == nil {
		return false
	}
	_, ok := s.grant.luns[lun]
	return ok
}
