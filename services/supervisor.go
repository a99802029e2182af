package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Pauses before a service that failed is started again.
const (
	restartFirst = 250 * time.Millisecond
	restartMost  = 5 * time.Second
	// steady is how long a service must have run for its next failure to
	// count as a first one.
	steady = time.Minute
	// defaultDrain is how long each service may take to stop.
	defaultDrain = 10 * time.Second
)

// Options says how Run treats its services. The zero value is good.
type Options struct {
	// OnState is told each change of a service's health. It must not block.
	OnState func(name string, healthy bool, err error)
	// Drain bounds the wait for each service at the end; 0 means 10 s.
	Drain time.Duration
	// Hurry, when closed, ends the waits: each service gets a second.
	Hurry <-chan struct{}
}

// Health is how one service is.
type Health struct {
	Name     string    `json:"name"`
	Healthy  bool      `json:"healthy"`
	Reason   string    `json:"reason,omitempty"` // one sentence, when it is not
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
}

// Run is a Supervisor's Run for callers that do not list its health.
func Run(ctx context.Context, log *slog.Logger, opts Options, svcs ...Service) error {
	return NewSupervisor(log, time.Now, opts, svcs...).Run(ctx)
}

// Supervisor runs services. A service that fails is restarted alone: the
// others, whose sessions are other machines' disks, keep running.
type Supervisor struct {
	log  *slog.Logger
	now  func() time.Time
	opts Options
	svcs []Service

	mu     sync.Mutex
	health []Health
}

// NewSupervisor makes a Supervisor of svcs, in starting order.
func NewSupervisor(log *slog.Logger, now func() time.Time, opts Options, svcs ...Service) *Supervisor {
	if opts.Drain <= 0 {
		opts.Drain = defaultDrain
	}
	s := &Supervisor{log: log, now: now, opts: opts, svcs: svcs, health: make([]Health, len(svcs))}
	for i, svc := range svcs {
		s.health[i] = Health{Name: svc.String(), Reason: "not started", Since: now()}
	}
	return s
}

// Health lists how each service is, in starting order.
func (s *Supervisor) Health() []Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Health(nil), s.health...)
}

// Run binds every service, starts them in order, and returns when ctx has ended
// and all have stopped, in reverse order. A service that cannot listen at the
// start ends everything; its error says why in one sentence.
func (s *Supervisor) Run(ctx context.Context) error {
	for i, svc := range s.svcs {
		if err := s.listen(svc); err != nil {
			s.set(i, false, err)
			s.release(s.svcs[:i])
			return fmt.Errorf("%s: %w", svc, err)
		}
	}
	// Each service has its own end, so that they can be stopped one by one.
	type running struct {
		stop context.CancelFunc
		done chan error
	}
	all := make([]running, len(s.svcs))
	for i := range s.svcs {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		all[i] = running{stop: stop, done: make(chan error, 1)}
		s.set(i, true, nil)
		go func() { all[i].done <- s.keep(own, i) }()
	}
	<-ctx.Done()
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		all[i].stop()
		if err := s.wait(all[i].done); err != nil {
			s.log.Error("a service did not stop cleanly", "service", s.svcs[i].String(), "err", err)
			errs = append(errs, fmt.Errorf("%s: %w", s.svcs[i], err))
			s.set(i, false, err)
			continue
		}
		s.set(i, false, errStopped)
	}
	return errors.Join(errs...)
}

var errStopped = errors.New("stopped")

// wait gives a service its time to stop.
func (s *Supervisor) wait(done <-chan error) error {
	drain := time.NewTimer(s.opts.Drain)
	defer drain.Stop()
	select {
	case err := <-done:
		return err
	case <-drain.C:
		return fmt.Errorf("did not stop within %s", s.opts.Drain)
	case <-s.opts.Hurry:
	}
	last := time.NewTimer(time.Second)
	defer last.Stop()
	select {
	case err := <-done:
		return err
	case <-last.C:
		return errors.New("did not stop within a second of being hurried")
	}
}

// listen and serve keep a panic inside the service.
func (s *Supervisor) listen(svc Service) error {
	return Guard(s.log, svc.String(), svc.Listen)
}

func (s *Supervisor) serve(ctx context.Context, svc Service) error {
	return Guard(s.log, svc.String(), func() error { return svc.Serve(ctx) })
}

// release lets services that listen already give back what they bound: a Serve
// whose ctx has ended does nothing else.
func (s *Supervisor) release(svcs []Service) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for i := len(svcs) - 1; i >= 0; i-- {
		done := make(chan error, 1)
		go func() { done <- s.serve(ended, svcs[i]) }()
		if err := s.wait(done); err != nil {
			s.log.Warn("a service did not release what it bound", "service", svcs[i].String(), "err", err)
		}
	}
}

// keep serves svc until ctx ends, and starts it again after a growing pause
// when it fails.
func (s *Supervisor) keep(ctx context.Context, i int) error {
	svc := s.svcs[i]
	pause := restartFirst
	for {
		began := s.now()
		err := s.serve(ctx, svc)
		if ctx.Err() != nil {
			return err
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		if s.now().Sub(began) >= steady {
			pause = restartFirst
		}
		for {
			s.failed(i, err)
			s.log.Error("a service failed; starting it again", "service", svc.String(), "err", err, "pause", pause)
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
			pause = min(2*pause, restartMost)
			if err = s.listen(svc); err == nil {
				break
			}
		}
		s.log.Info("a service runs again", "service", svc.String())
		s.set(i, true, nil)
	}
}

// failed notes a failure of a running service.
func (s *Supervisor) failed(i int, err error) {
	s.mu.Lock()
	s.health[i].Restarts++
	s.mu.Unlock()
	s.set(i, false, err)
}

// set notes a service's state, and tells OnState.
func (s *Supervisor) set(i int, healthy bool, err error) {
	s.mu.Lock()
	h := &s.health[i]
	if h.Healthy != healthy || h.Reason == "not started" {
		h.Since = s.now()
	}
	h.Healthy, h.Reason = healthy, ""
	if err != nil {
		h.Reason = err.Error()
	}
	name := h.Name
	s.mu.Unlock()
	if s.opts.OnState != nil && !errors.Is(err, errStopped) {
		s.opts.OnState(name, healthy, err)
	}
}
