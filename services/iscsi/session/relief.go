package session

import (
	"errors"
	"time"

	"lunboot/services"
)

// What the reader executes itself takes microseconds, as a rule: a small WRITE goes
// to the page cache. But such a write can wait for the disk, seconds long, while that
// writes back or flushes what the file has already; and nobody would read the
// session's pings, aborts and commands for its other disks. So a command that keeps
// the reader keeps a goroutine and no more: another one goes on to read in its place.
// Where the reader only waits for the piece of a large WRITE it waits no longer.

// watchEvery is how often somebody looks whether a command keeps the reader: none
// does for more than twice that.
const watchEvery = 20 * time.Millisecond

// reader is a goroutine that reads the connection. There is one at a time.
type reader struct {
	held *task // what keeps it, since it was relieved
}

// errRelieved ends the loop of a reader that another one has relieved.
var errRelieved = errors.New("another goroutine reads the connection")

// serve is the work of a reader: it reads until the connection ends, and then ends
// the session for everybody, or until it was relieved and what kept it has ended.
func (s *Session) serve(me *reader) {
	err := services.Guard(s.cfg.Log, "iSCSI session of "+string(s.cfg.Result.Initiator), s.loop)
	s.mu.Lock()
	defer s.unlock()
	if t := me.held; t != nil {
		t.lu.held--
		if sound := errors.Is(err, errRelieved); !sound || !s.flushLater(t) {
			s.executed(t, sound)
		}
		return
	}
	if !s.closed() {
		_ = s.flush() // what the initiator should still learn; the session ends anyway
	}
	s.end(&ending{reason: reasonOf(err)})
	s.orphan(err)
	calm := s.abortAll()
	s.abandon(func(*early) bool { return true })
	s.account.Leave()
	if s.watch.timer != nil && s.watch.timer.Stop() {
		s.watch.on = false
		s.wg.Done()
	}
	s.over <- calm
}

// watch sees to it that nothing keeps the reader. It looks at it as long as there
// is something to see, and costs each command a count.
type watch struct {
	timer *time.Timer // nil before it runs first
	on    bool        // the timer runs
	count uint64      // of the commands that readers have executed
	seen  uint64      // what it was when somebody looked
}

// keepWatch begins to watch.
func (s *Session) keepWatch() {
	if s.watch.timer == nil {
		s.watch.timer = time.AfterFunc(time.Hour, s.lookAtReader)
		s.watch.timer.Stop()
	}
	s.watch.on = true
	s.wg.Add(1) // for the timer; whoever stops it undoes that
	s.watch.timer.Reset(watchEvery)
}

// lookAtReader is called by the timer. Who holds the lock is not kept by a command.
func (s *Session) lookAtReader() {
	again := true
	if s.mu.TryLock() {
		again = s.relieve()
		s.mu.Unlock()
	}
	if again {
		s.watch.timer.Reset(watchEvery)
	} else {
		s.wg.Done()
	}
}

// relieve puts another reader in the place of one that has been at the same command
// since the last time. It returns false when there is nothing to watch any more.
func (s *Session) relieve() (again bool) {
	w, t := &s.watch, s.inline
	same := w.count == w.seen
	w.seen = w.count
	switch {
	case s.turning:
		if same {
			select {
			case s.late <- struct{}{}:
			default: // it knows
			}
		}
		return true
	case t == nil:
		w.on = !same
		return w.on
	case !same:
		return true
	}
	if !t.listed && !t.aborted { // an aborted one is among those that are gone
		s.list(t)
	}
	s.inline = nil
	t.within.Store(true)
	t.lu.held++
	s.reader.held = t
	next := &reader{}
	s.reader = next
	s.scratch = nil // it may be the command's
	s.leaveInput()
	s.wg.Go(func() { s.serve(next) })
	return true
}
