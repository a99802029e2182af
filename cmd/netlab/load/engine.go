// Package load puts iSCSI targets under load and measures them from outside: an
// initiator that keeps commands in flight, their latencies, and the CPU time of
// the target's process. It knows the wire by services/iscsi/pdu and nothing of
// the target's code, and does the same calls whoever answers.
//
// Initiator and target share the machine. What the initiator uses up is missing
// to the target, and the more it uses, the more alike all targets look: at its
// worst one measures the initiator. So it must be much cheaper than what it
// measures. One thread waits for all sockets with epoll; one receive takes all
// answers that have come, into a buffer that stays in the processor's cache; one
// send carries all commands that those answers made room for; large data that
// nobody looks at is dropped in the kernel instead of being copied; there is no
// timer and no allocation for a command. The table shows what it used beside
// what the target used.
package load

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/pdu"
)

const (
	// stall is how long a command may take, and tick how often that is looked at:
	// one watchdog for all.
	stall = 30 * time.Second
	tick  = time.Second
	// dropFrom is the command from whose size on dropping data in the kernel is
	// cheaper than one large receive that copies it.
	dropFrom = 32 << 10
	// turn bounds what one session may receive before the next has its turn.
	turn = 1 << 20
	// stride is odd, so that a power of two of places is reached whole.
	stride = 7919
	// inBuffer takes the answers of a full queue of 4 KiB reads.
	inBuffer = 160 << 10
)

// engine runs the commands of all sessions on one thread.
type engine struct {
	load    Load
	poll    int
	streams []*stream
	in      []byte // what was received; nothing stays in it
	void    []byte // stands for dropped data; never touched
	data    []byte // what writes carry
	rng     *rand.Rand
	lat     Latencies
	moved   int64     // bytes
	now     time.Time // when events were last looked at
	heard   time.Time // when anything came last
	place   int64     // of all sessions together, where commands are counted
	until   time.Time
	stall   time.Duration
	left    int64 // commands that may still be sent; below 0: as many as fit
	busy    int   // commands in flight
}

// newEngine takes over the sockets of sessions that are past their login.
func newEngine(l Load, lun byte, sessions []*session) (_ *engine, err error) {
	e := &engine{load: l, in: make([]byte, inBuffer), void: make([]byte, turn), data: make([]byte, l.Block), left: -1, stall: stall}
	e.rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for i := range e.data {
		e.data[i] = byte(i * 7)
	}
	if l.Commands > 0 {
		e.left = l.Commands
	}
	if e.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	for k, s := range sessions {
		st, err := newStream(e, lun, s)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.streams = append(e.streams, nil)
		if err := e.join(st, k); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	return e, nil
}

// join has epoll look at a stream, under its number.
func (e *engine) join(s *stream, number int) error {
	s.number, e.streams[number] = number, s
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)}
	if err := unix.EpollCtl(e.poll, unix.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// close gives the sockets back to their sessions, which log out.
func (e *engine) close() error {
	err := unix.Close(e.poll)
	for _, s := range e.streams {
		err = errors.Join(err, s.release())
	}
	return err
}

// more says whether another command may be sent.
func (e *engine) more() bool { return e.left != 0 && e.now.Before(e.until) }

// run keeps the sessions busy until the time is over, and returns the CPU time
// that it used itself.
func (e *engine) run() (own time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ownCPU(unix.RUSAGE_THREAD)
	if err != nil {
		return 0, err
	}
	e.now = time.Now()
	e.heard, e.until = e.now, e.now.Add(e.load.Time)
	for _, s := range e.streams {
		if err := s.begin(); err != nil {
			return 0, err
		}
	}
	events := make([]unix.EpollEvent, len(e.streams))
	for looked := e.now; e.busy > 0 || e.more(); {
		n, err := unix.EpollWait(e.poll, events, int(tick/time.Millisecond))
		if err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("epoll: %w", err)
		}
		if n <= 0 || e.now.Sub(looked) > tick {
			looked = time.Now()
			if err := e.watch(looked); err != nil {
				return 0, err
			}
			e.now = looked
		}
		for _, event := range events[:max(n, 0)] {
			if err := e.streams[event.Fd].act(event.Events); err != nil {
				return 0, err
			}
		}
	}
	after, err := ownCPU(unix.RUSAGE_THREAD)
	return after - before, err
}

// watch fails when a command has been in flight for too long, or nothing is in
// flight and the target lets nothing be sent.
func (e *engine) watch(now time.Time) error {
	for k, s := range e.streams {
		if s == nil { // between two sessions
			continue
		}
		for tag := range s.flight {
			if c := &s.flight[tag]; c.busy && now.Sub(c.at) > e.stall {
				return fmt.Errorf("session %d: a command has had no answer for %s", k, now.Sub(c.at).Round(time.Millisecond))
			}
		}
	}
	if e.busy == 0 && now.Sub(e.heard) > e.stall {
		return errors.New("the target's command window stays closed")
	}
	return nil
}

// interest says what epoll looks for: room to send only while that is wanted.
func (e *engine) interest(s *stream, out bool) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.number)}
	if out {
		event.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(e.poll, unix.EPOLL_CTL_MOD, s.fd, &event)
}

// ownCPU is the CPU time that the calling thread has used, or the process.
func ownCPU(who int) (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// offset chooses where the next command of a session goes.
func (e *engine) offset(s *stream) int64 {
	places := max(e.load.Span/int64(e.load.Block), 1)
	if !e.load.Sequential {
		return e.rng.Int64N(places) * int64(e.load.Block)
	}
	if e.load.Commands > 0 { // who counts them wants every place reached
		e.place++
		at := e.place - 1
		if e.load.Scattered {
			at *= stride
		}
		return at % places * int64(e.load.Block)
	}
	s.place = (s.place + 1) % places
	return s.place * int64(e.load.Block)
}

// serial is the window that a target's PDU opens; it never closes it again
// (RFC 7143 §4.2.2.1).
func serial(have pdu.Serial, sn pdu.SN) pdu.Serial {
	if have.Less(sn.MaxCmdSN) {
		return sn.MaxCmdSN
	}
	return have
}
