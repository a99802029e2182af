package session

import (
	"errors"

	"lunboot/services"
)

// A large WRITE is written as it comes. One piece is written while the next one
// is received: a session holds two of them at most, whatever its commands want,
// and a slow disk leaves the reader free until the second is there. When it must not
// wait any longer (relief.go), the rest of the command is kept in memory, like the
// data of every other command.

// pieceTurn waits, without the lock, until no piece of the session is being
// written. Otherwise late says that this takes too long; when it does not, the
// session has ended.
func (s *Session) pieceTurn() (turn, late bool) {
	if s.writer == nil {
		s.mu.Lock()
		s.writer, s.late = make(chan struct{}, 1), make(chan struct{}, 1)
		s.mu.Unlock()
	}
	select {
	case s.writer <- struct{}{}:
		return true, false
	default:
	}
	s.mu.Lock()
	if s.overdue {
		s.mu.Unlock()
		return false, true
	}
	select { // what was said last time
	case <-s.late:
	default:
	}
	s.turning = true
	s.watch.count++
	if !s.watch.on {
		s.keepWatch()
	}
	s.mu.Unlock()
	select {
	case s.writer <- struct{}{}:
		turn = true
	case <-s.late:
		late = true
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turning = false
	if late {
		// It may have ended in this moment: then its end does not clear the mark.
		select {
		case s.writer <- struct{}{}:
			return true, false
		default:
		}
		s.overdue = true
	}
	return turn, late
}

// keepRest keeps a piece of a task, and all that comes after it, in memory. It returns
// false when there is none.
func (s *Session) keepRest(t *task, piece *buffer, n int) bool {
	if !s.reserve(t, t.want, false) {
		return false
	}
	copy(t.buf.b[t.next:], piece.b[:n])
	t.pieces, t.plan.Slow = false, true
	t.cmd.Ahead = t.next
	return true
}

// errFault is a fault of ours under a piece.
var errFault = errors.New("a command failed inside the appliance")

// writePiece writes the n bytes at t.next on a goroutine of its own.
func (s *Session) writePiece(t *task, piece *buffer, n int) {
	off := t.next
	t.writing = true
	s.wg.Go(func() {
		bad := errFault
		fault := services.Guard(s.cfg.Log, "iSCSI command", func() error {
			bad = s.nexus.WritePiece(s.ctx, &t.cmd, piece.b[:n], off)
			return nil
		})
		s.mu.Lock()
		defer s.unlock()
		s.shared.put(piece)
		<-s.writer
		s.overdue = false
		t.writing, t.bad = false, bad
		if fault != nil {
			t.aborted = true
			s.end(&ending{reason: errFault.Error()})
		}
		if t.closing {
			t.closing = false
			if s.finish(t) == nil && !s.closed() {
				_ = s.flush() // an error has ended the session
			}
			return
		}
		if t.aborted { // the reader ends it, when the rest of a PDU has come; it writes nothing more
			fences := t.fences
			t.fences = nil
			s.pass(fences)
		}
		if len(s.waiting) > 0 {
			s.proceed()
		}
	})
}

// finish ends a task that came in pieces, unless one is still being written:
// then whoever writes it does.
func (s *Session) finish(t *task) error {
	switch {
	case t.writing || t.aborted || !t.whole:
		return s.complete(t)
	case s.nexus.Written(&t.cmd, t.bad):
		return s.complete(t)
	}
	s.begin(t, false) // it has to be flushed
	return nil
}
