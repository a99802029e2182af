package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/load/rounds"
	"lunboot/cmd/netlab/load/trace"
	"lunboot/services/iscsi/pdu"
)

// Machine is one that replays a boot: its own name, its own volume.
type Machine struct {
	Target    Target
	Initiator string
}

// logins is how many machines may be logging in at the same time. The others
// wait, as they would in a switch-on of a real room by a second or so.
const logins = 16

// replay is a machine's place in the trace.
type replay struct {
	trace *trace.Trace
	at    int // the next step
}

// more says whether the next command may be sent while so many of the session are
// in flight. A login waits for the end of them all, outside.
func (r *replay) more(flight int) bool {
	return r.at < len(r.trace.Steps) && r.trace.Steps[r.at].Op != trace.Login && flight < r.trace.Steps[r.at].Depth
}

func (r *replay) next() request {
	s := r.trace.Steps[r.at]
	r.at++
	return request{read: s.Op == trace.Read, write: s.Op == trace.Write, off: s.Block * int64(r.trace.BlockSize), length: r.trace.Bytes(s)}
}

// room is all machines that replay a boot at the same time.
type room struct {
	*engine
	machines []Machine
	replays  []replay
	jobs     chan int
	results  chan arrived
	bell     int // an eventfd: there is a result
	left     int // machines that have not finished
}

// arrived is a login that has ended.
type arrived struct {
	machine int
	session *session
	err     error
}

// bellNumber is the eventfd's among epoll's.
const bellNumber = -1

// Replay has machines ask for what a trace says, all of them from the same moment
// on and each as fast as its answers come: a command is sent when no more than in
// the trace are in flight with it. It ends with the last machine's last answer.
func Replay(machines []Machine, t *trace.Trace, pid int) (r Result, err error) {
	sum := t.Sum()
	for _, s := range t.Steps {
		if (s.Block+int64(s.Blocks))*int64(t.BlockSize)/512 > 1<<32 || t.Bytes(s)/512 > trace.MaxBlocks {
			return Result{}, fmt.Errorf("block %d is beyond what a READ(10) of 512-byte blocks reaches", s.Block)
		}
	}
	e, err := newEngine(Load{Depth: max(sum.Depth, 1), Block: max(sum.Largest, 512)}, 0, nil)
	if err != nil {
		return Result{}, err
	}
	o := &room{
		engine: e, machines: machines, replays: make([]replay, len(machines)), left: len(machines),
		jobs: make(chan int, len(machines)), results: make(chan arrived, len(machines)),
	}
	e.streams = make([]*stream, len(machines))
	if o.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return Result{}, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(e.poll))
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: bellNumber}
	if err := unix.EpollCtl(e.poll, unix.EPOLL_CTL_ADD, o.bell, &event); err != nil {
		return Result{}, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(o.bell), unix.Close(e.poll))
	}
	var wg sync.WaitGroup
	for range min(logins, len(machines)) {
		wg.Go(o.logIn)
	}
	defer func() {
		close(o.jobs)
		wg.Wait()
		close(o.results)
		for a := range o.results { // that came too late
			if a.session != nil {
				err = errors.Join(err, a.session.conn.Close())
			}
		}
		for _, s := range e.streams {
			if s != nil {
				err = errors.Join(err, unix.Close(s.fd))
			}
		}
		err = errors.Join(err, unix.Close(o.bell), unix.Close(e.poll))
	}()
	before, err := rounds.CPUTime(pid)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	for k := range o.replays {
		o.replays[k].trace = t
		o.jobs <- k
	}
	r.Own, err = o.play()
	r.Seconds = time.Since(start).Seconds()
	after, failed := rounds.CPUTime(pid)
	if err = errors.Join(err, failed); err != nil {
		return Result{}, err
	}
	r.Ops, r.Bytes, r.P50, r.P99, r.CPU = e.lat.Count(), e.moved, e.lat.Quantile(0.5), e.lat.Quantile(0.99), after-before
	return r, nil
}

// logIn logs machines in, one after the other. The place in the trace belongs to
// whoever has the job.
func (o *room) logIn() {
	for k := range o.jobs {
		m, p := o.machines[k], &o.replays[k]
		step := p.trace.Steps[p.at]
		p.at++
		s, err := loginAs(m.Target, m.Initiator, p.at, false, min(step.Segment, segment))
		if err == nil {
			if err = s.ready(m.Target, pdu.AttrSimple); err != nil {
				err = errors.Join(err, s.conn.Close())
				s = nil
			}
		}
		o.results <- arrived{k, s, err} // never waits: a machine has one job at a time
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, _ = unix.Write(o.bell, one[:]) // fails only when it rings already, 2^64 times
	}
}

// play serves all machines until the last has finished.
func (o *room) play() (own time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ownCPU(unix.RUSAGE_THREAD)
	if err != nil {
		return 0, err
	}
	o.now = time.Now()
	o.heard = o.now
	events := make([]unix.EpollEvent, len(o.machines)+1)
	for looked := o.now; o.left > 0; {
		n, err := unix.EpollWait(o.poll, events, int(tick/time.Millisecond))
		if err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("epoll: %w", err)
		}
		if n <= 0 || o.now.Sub(looked) > tick {
			looked = time.Now()
			if err := o.watch(looked); err != nil {
				return 0, err
			}
			o.now = looked
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == bellNumber {
				err = o.arrivals()
			} else {
				s := o.streams[event.Fd]
				if err = s.act(event.Events); err == nil {
					err = o.turn(s)
				}
			}
			if err != nil {
				return 0, err
			}
		}
	}
	after, err := ownCPU(unix.RUSAGE_THREAD)
	return after - before, err
}

// arrivals lets the machines go on that have logged in.
func (o *room) arrivals() error {
	var count [8]byte
	if _, err := unix.Read(o.bell, count[:]); err != nil && err != unix.EAGAIN {
		return fmt.Errorf("eventfd: %w", err)
	}
	for {
		var a arrived
		select {
		case a = <-o.results:
		default:
			return nil
		}
		if a.err != nil {
			return fmt.Errorf("machine %d: %w", a.machine, a.err)
		}
		o.now = time.Now()
		o.heard = o.now
		s, err := newStream(o.engine, o.machines[a.machine].Target.LUN, a.session)
		if err != nil {
			return err
		}
		s.replay = &o.replays[a.machine]
		if err := errors.Join(o.join(s, a.machine), s.begin()); err != nil {
			return fmt.Errorf("machine %d: %w", a.machine, err)
		}
		if err := o.turn(s); err != nil {
			return err
		}
	}
}

// turn ends a session that has nothing more to do: the machine logs in again, or
// it has finished. Neither firmware nor a machine that is switched off logs out.
func (o *room) turn(s *stream) error {
	busy := len(s.free) < len(s.flight) || s.sent < len(s.queue) || s.rest > 0 || len(s.head) > 0
	if steps := s.replay.trace.Steps; busy || s.replay.at < len(steps) && steps[s.replay.at].Op != trace.Login {
		return nil
	}
	o.streams[s.number] = nil
	if err := unix.Close(s.fd); err != nil { // and epoll forgets it
		return fmt.Errorf("machine %d: %w", s.number, err)
	}
	if s.replay.at < len(s.replay.trace.Steps) {
		o.jobs <- s.number // never waits
		return nil
	}
	o.left--
	return nil
}
