package services

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// diary notes what happened to several services, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// fake is a service that does as it is told.
type fake struct {
	name    string
	diary   *diary
	listens []error // by call; nil beyond
	serves  []func(ctx context.Context) error
	linger  time.Duration // how long it takes to stop
	n, m    int
}

func (f *fake) String() string { return f.name }

func (f *fake) Listen() error {
	f.n++
	var err error
	if f.n <= len(f.listens) {
		err = f.listens[f.n-1]
	}
	if err == nil {
		f.diary.note("listen " + f.name)
	}
	return err
}

func (f *fake) Serve(ctx context.Context) error {
	f.m++
	if f.m <= len(f.serves) && f.serves[f.m-1] != nil {
		return f.serves[f.m-1](ctx)
	}
	f.diary.note("serve " + f.name)
	<-ctx.Done()
	time.Sleep(f.linger)
	f.diary.note("stopped " + f.name)
	return nil
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// run starts a supervisor; stop ends it and gives its answer.
func run(s *Supervisor) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func TestAllListenBeforeAnyServesAndStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		s := NewSupervisor(quiet(), time.Now, Options{}, &fake{name: "a", diary: d, linger: time.Second}, &fake{name: "b", diary: d, linger: time.Second}, &fake{name: "c", diary: d})
		stop := run(s)
		synctest.Wait()
		got := d.all()
		if !slices.Equal(got[:3], []string{"listen a", "listen b", "listen c"}) {
			t.Errorf("%v", got)
		}
		for _, h := range s.Health() {
			if !h.Healthy || h.Reason != "" || h.Restarts != 0 {
				t.Errorf("%+v", h)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got = d.all()
		if !slices.Equal(got[len(got)-3:], []string{"stopped c", "stopped b", "stopped a"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestAServiceThatCannotListenEndsEverythingInOneSentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		s := NewSupervisor(quiet(), time.Now, Options{},
			&fake{name: "boot HTTP", diary: d}, &fake{name: "TFTP", diary: d, listens: []error{errors.New("port 69 is used by dnsmasq (pid 812); stop it, or choose another port with --tftp")}}, &fake{name: "DHCP", diary: d})
		err := s.Run(t.Context())
		if err == nil || err.Error() != "TFTP: port 69 is used by dnsmasq (pid 812); stop it, or choose another port with --tftp" {
			t.Errorf("%v", err)
		}
		// What was bound is given back, what was not reached is not touched.
		if got := d.all(); !slices.Equal(got, []string{"listen boot HTTP", "serve boot HTTP", "stopped boot HTTP"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestAServiceThatFailsIsRestartedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		var states []string
		var mu sync.Mutex
		opts := Options{OnState: func(name string, healthy bool, err error) {
			mu.Lock()
			defer mu.Unlock()
			line := name + " is well"
			if !healthy {
				line = name + ": " + err.Error()
			}
			states = append(states, line)
		}}
		die := func(context.Context) error { return errors.New("socket closed") }
		panicked := func(context.Context) error { panic("nil map") }
		a := &fake{name: "a", diary: d}
		b := &fake{name: "b", diary: d, serves: []func(context.Context) error{die, panicked}, listens: []error{nil, errors.New("port taken"), nil, nil}}
		s := NewSupervisor(quiet(), time.Now, opts, a, b)
		stop := run(s)
		time.Sleep(100 * time.Millisecond)
		if h := s.Health(); h[0].Name != "a" || !h[0].Healthy || h[1].Healthy || h[1].Reason != "socket closed" {
			t.Errorf("%+v", h)
		}
		time.Sleep(10 * time.Second)
		if h := s.Health(); !h[1].Healthy || h[1].Restarts != 3 {
			t.Errorf("%+v", h)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if a.m != 1 {
			t.Errorf("the other service was started %d times", a.m)
		}
		want := []string{"a is well", "b is well", "b: socket closed", "b: port taken", "b is well", "b: b: internal fault: nil map", "b is well"}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(states, want) {
			t.Errorf("%s", strings.Join(states, "\n"))
		}
	})
}

func TestTheBackOffGrowsAndForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		var at []time.Time
		fail := func(context.Context) error { at = append(at, time.Now()); return errors.New("no") }
		last := func(ctx context.Context) error {
			at = append(at, time.Now())
			select {
			case <-time.After(2 * time.Minute):
				return errors.New("after a good while")
			case <-ctx.Done():
				return nil
			}
		}
		f := &fake{name: "f", diary: d, serves: []func(context.Context) error{fail, fail, fail, fail, fail, fail, fail, last, fail}}
		stop := run(NewSupervisor(quiet(), time.Now, Options{}, f))
		time.Sleep(5 * time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		var pauses []time.Duration
		for i := 1; i < 8; i++ {
			pauses = append(pauses, at[i].Sub(at[i-1]))
		}
		ms := time.Millisecond
		if !slices.Equal(pauses, []time.Duration{250 * ms, 500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 5000 * ms, 5000 * ms}) {
			t.Errorf("%v", pauses)
		}
		if again := at[8].Sub(at[7]); again != 2*time.Minute+250*ms {
			t.Errorf("after two good minutes it waited %s", again-2*time.Minute)
		}
	})
}

func TestAServiceThatEndsByItselfHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{name: "f", diary: &diary{}, serves: []func(context.Context) error{func(context.Context) error { return nil }}}
		s := NewSupervisor(quiet(), time.Now, Options{}, f)
		stop := run(s)
		synctest.Wait()
		if h := s.Health()[0]; h.Healthy || h.Reason != "ended by itself" {
			t.Errorf("%+v", h)
		}
		_ = stop()
	})
}

func TestAServiceThatDoesNotStopDoesNotHoldTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &diary{}
		stuck := &fake{name: "stuck", diary: d, linger: time.Hour}
		stop := run(NewSupervisor(quiet(), time.Now, Options{Drain: 3 * time.Second}, &fake{name: "a", diary: d}, stuck))
		synctest.Wait()
		began := time.Now()
		err := stop()
		if err == nil || err.Error() != "stuck: did not stop within 3s" {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the end took %s", took)
		}
		if got := d.all(); got[len(got)-1] != "stopped a" {
			t.Errorf("%v", got)
		}
		time.Sleep(time.Hour) // its goroutine ends within the test
	})
}

func TestASecondSignalHurriesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := make(chan struct{})
		f := &fake{name: "f", diary: &diary{}, linger: time.Minute}
		stop := run(NewSupervisor(quiet(), time.Now, Options{Drain: time.Hour, Hurry: hurry}, f))
		synctest.Wait()
		began := time.Now()
		go func() { time.Sleep(2 * time.Second); close(hurry) }()
		err := stop()
		if err == nil || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.Sleep(time.Minute)
	})
}

func TestStoppingDuringABackOffIsClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{name: "f", diary: &diary{}, serves: []func(context.Context) error{func(context.Context) error { return errors.New("no") }}}
		stop := run(NewSupervisor(quiet(), time.Now, Options{}, f))
		synctest.Wait()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		d := &diary{}
		if err := Run(ctx, quiet(), Options{}, &fake{name: "a", diary: d}); err != nil {
			t.Error(err)
		}
		if got := d.all(); !slices.Equal(got, []string{"listen a", "serve a", "stopped a"}) {
			t.Errorf("%v", got)
		}
	})
}
