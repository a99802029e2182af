package session

import (
	"time"

	"lunboot/services/iscsi/scsi"
)

// hold gives a task a buffer of n bytes, with what its old one holds. Memory of
// all sessions that is not there is waited for when wait is set; then the task
// must be among those that wait.
func (s *Session) hold(t *task, n int, wait bool) bool {
	pooled, ok := s.account.Take(bufferSize(n), wait)
	if !ok {
		return false
	}
	if pooled {
		t.pooledAt = time.Now()
	}
	b := s.shared.get(n)
	if old := t.buf; old != nil {
		copy(b.b, old.b[:min(t.next, len(old.b))])
		s.letGo(t)
	}
	t.buf = b
	return true
}

// letGo gives a task's buffer back.
func (s *Session) letGo(t *task) {
	if t.buf == nil {
		return
	}
	size := len(t.buf.b)
	s.shared.put(t.buf)
	t.buf = nil
	s.account.Give(size)
}

// look gives a task that looks at the medium memory for that. One of a session
// needs none of what is shared, so that there is always one that goes on: the
// others may hold their data meanwhile.
func (s *Session) look(t *task) bool {
	if !t.cmd.Examines() {
		return true
	}
	if s.looking > 0 {
		if _, ok := s.account.Take(scsi.Chunk, true); !ok {
			return false
		}
		t.chunk = scsi.Chunk
	}
	t.looks = true
	s.looking++
	return true
}

// lookAway undoes look.
func (s *Session) lookAway(t *task) {
	if t.looks {
		s.looking--
	}
	if t.chunk > 0 {
		s.account.Give(t.chunk)
	}
}

// resume goes on when memory has come that the session waited for.
func (s *Session) resume() {
	s.mu.Lock()
	defer s.unlock()
	s.proceed()
	s.account.Refund()
	if !s.closed() {
		_ = s.flush() // an error has ended the session
	}
}

// sending says that a write to the connection begins. Only who has more than
// its own memory can be in the way of others.
func (s *Session) sending() {
	if s.account.Large() {
		s.sendingAt.Store(time.Now().UnixNano())
	}
}

// sent says that it has ended.
func (s *Session) sent() { s.sendingAt.Store(0) }

// keepsSince says whether the session has had memory since before a time only
// because its initiator does not take its data, or does not send what it was
// asked for. A session that waits for a disk is not to blame. It does not wait
// for the session's lock, which who sends holds.
func (s *Session) keepsSince(before time.Time) bool {
	if at := s.sendingAt.Load(); at != 0 && at < before.UnixNano() {
		return true
	}
	if !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	if !s.heldSince.IsZero() && s.heldSince.Before(before) {
		return true
	}
	running := len(s.gone) > 0
	for _, t := range s.tasks {
		running = running || t.phase == phaseRunning || t.writing
	}
	for _, t := range s.tasks {
		late := t.buf != nil && !t.pooledAt.IsZero() && t.pooledAt.Before(before)
		if late && (t.phase == phaseData || t.phase == phaseWaiting && !running) {
			return true
		}
	}
	return false
}
