package session

import (
	"errors"

	"lunboot/services"
)

// A large WRITE is written as it comes. One piece is written while the next one
// is received: a session holds two of them at most, whatever its commands want,
// and a slow disk leaves the reader free until the second is there.

// pieceTurn waits, without the lock, until no piece of the session is being
// written. It returns false when the session ends.
func (s *Session) pieceTurn() bool {
	select {
	case s.writer <- struct{}{}:
		return true
	case <-s.ctx.Done():
		return false
	}
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
