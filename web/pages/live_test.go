package pages

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rising is a source of changes that a test makes.
type rising struct {
	mu   sync.Mutex
	n    int64
	wake chan struct{}
}

func (c *rising) Version() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *rising) Changed(after int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	if c.n > after {
		close(ch)
	} else {
		if c.wake == nil {
			c.wake = make(chan struct{})
		}
		ch = c.wake
	}
	return ch
}

func (c *rising) change() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// stream is the answer that a browser reads: what was told, and when.
type stream struct {
	mu    sync.Mutex
	begun time.Time
	told  []time.Duration
	beats int
}

func (s *stream) Header() http.Header              { return http.Header{} }
func (s *stream) WriteHeader(int)                  {}
func (s *stream) FlushError() error                { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch text := string(b); {
	case strings.Contains(text, "event: change"):
		s.told = append(s.told, time.Since(s.begun))
	case strings.Contains(text, "event: alive"):
		s.beats++
	}
	return len(b), nil
}

// A page hears of a change at once when it was quiet before, and of a burst four
// times a second, the end of it included.
func TestAPageHearsOfTheFirstChangeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &rising{n: 1}
		s := &site{Config: Config{Changes: []Change{c}}, process: "p"}
		ctx, cancel := context.WithCancel(t.Context())
		w := &stream{begun: time.Now()}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/live?since=p.1", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { s.live(w, r); close(done) }()
		at := func(d time.Duration) { time.Sleep(d - time.Since(w.begun)) }

		at(10 * time.Second)
		c.change()
		at(10*time.Second + 5*time.Millisecond)
		c.change() // what belongs to it comes with it
		at(20 * time.Second)
		for range 100 { // a second of changes
			c.change()
			time.Sleep(10 * time.Millisecond)
		}
		at(40 * time.Second)
		cancel()
		<-done
		if len(w.told) != 6 {
			t.Fatalf("told at %v", w.told)
		}
		if w.told[0] != 10*time.Second+liveSettle {
			t.Errorf("a change after 10 s was told of after %v", w.told[0])
		}
		if w.told[1] != 20*time.Second+liveSettle {
			t.Errorf("a burst after 20 s was told of after %v", w.told[1])
		}
		for n := 2; n < len(w.told); n++ {
			if gap := w.told[n] - w.told[n-1]; gap < liveGap || gap > liveGap+2*liveSettle {
				t.Errorf("told at %v and %v", w.told[n-1], w.told[n])
			}
		}
		if last := w.told[len(w.told)-1]; last < 20*time.Second+990*time.Millisecond {
			t.Errorf("the last change of a burst was not told of: %v", w.told)
		}
		if w.beats < 3 { // one of them as a greeting
			t.Errorf("%d signs of life in 40 s", w.beats)
		}
	})
}
