// Package notify tells a webhook that a boot failed or came up.
//
// What it is told goes into a bounded queue and out by one sender, in order:
// a receiver that is slow or away delays what comes after, and never a boot. A
// notification is sent until the receiver takes it or its time is over, so it
// may arrive twice; its id says so. The queue is memory: what waits when the
// appliance stops is tried once more, and what is lost then is named in the log;
// a crash loses it without a word.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"lunboot/store"
)

// Bounds of the service.
const (
	// maxWaiting is how many notifications wait; the oldest one goes first.
	maxWaiting = 1000
	// answerTime bounds one try.
	answerTime = 10 * time.Second
	// firstPause and lastPause bound the growing pause after a try that failed.
	firstPause = time.Second
	lastPause  = time.Minute
	// keepTrying is how long one notification is tried.
	keepTrying = 15 * time.Minute
	// lastTime bounds the last tries when the appliance stops.
	lastTime = 3 * time.Second
	// maxAnswer bounds what is read of an answer, so that its connection can
	// serve the next one.
	maxAnswer = 64 << 10
)

// Hook is where and what to tell.
type Hook struct {
	URL      string // empty: nobody is told
	Secret   string // of the signature; empty: none
	Outcomes []store.Outcome
}

// Config is what a Server needs; every field is needed.
type Config struct {
	Hook    func(context.Context) (Hook, error) // asked anew for each try
	Page    func(store.Attempt) string          // the URL of an attempt's page
	Version string
	Log     *slog.Logger
	Now     func() time.Time
}

// Notification is the body of a POST.
type Notification struct {
	ID      string          `json:"id"` // the same one when it is sent again
	Event   store.Outcome   `json:"event"`
	At      time.Time       `json:"at"` // when the appliance saw it
	Machine store.MachineID `json:"machine,omitempty"`
	Name    string          `json:"machine_name,omitempty"`
	Page    string          `json:"page"`
	Attempt store.Attempt   `json:"attempt"` // as the API shows it
}

// Server sends notifications.
type Server struct {
	cfg    Config
	client *http.Client
	kick   chan struct{}

	mu    sync.Mutex
	queue []Notification
	state State
}

// State is how the sender is.
type State struct {
	Waiting   int
	Delivered int64  // since the start
	Lost      int64  // given up, or pushed out of the queue
	Trouble   string // why the newest try failed; empty when it did not
}

// New makes a server. It sends nothing before Serve.
func New(cfg Config) *Server {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 1
	transport.MaxResponseHeaderBytes = maxAnswer
	return &Server{
		cfg: cfg, kick: make(chan struct{}, 1),
		client: &http.Client{
			Transport: transport, Timeout: answerTime,
			// Another host than the one that was chosen is told nothing.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// String names the service.
func (s *Server) String() string { return "notifications" }

// Listen binds nothing.
func (s *Server) Listen() error { return nil }

// Ended takes the end of a boot and returns at once.
func (s *Server) Ended(a store.Attempt) {
	n := Notification{
		ID: fmt.Sprintf("%d-%s", a.ID, a.Outcome), Event: a.Outcome, At: s.cfg.Now(), Machine: a.Machine, Name: a.Name, Attempt: a,
	}
	var lost *Notification
	s.mu.Lock()
	if len(s.queue) >= maxWaiting {
		lost = &s.queue[0]
		s.queue = s.queue[1:]
		s.state.Lost++
	}
	s.queue = append(s.queue, n)
	s.mu.Unlock()
	if lost != nil {
		s.cfg.Log.Warn("a notification is lost: too many wait for the webhook", "notification", lost.ID)
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// State returns how the sender is.
func (s *Server) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state
	st.Waiting = len(s.queue)
	return st
}

// Serve sends until ctx ends, and then once more what waits, within lastTime.
func (s *Server) Serve(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for ctx.Err() == nil {
		n, some := s.first()
		if !some {
			select {
			case <-ctx.Done():
			case <-s.kick:
			}
			continue
		}
		if s.deliver(ctx, n) {
			s.done(n)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	for n, some := s.first(); some; n, some = s.first() {
		if err := s.try(last, n); err != nil {
			break
		}
		s.done(n)
	}
	s.sayWhatIsLost()
	return nil
}

func (s *Server) first() (n Notification, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return n, false
	}
	return s.queue[0], true
}

// done takes n off the queue, unless it was pushed out meanwhile.
func (s *Server) done(n Notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 && s.queue[0].ID == n.ID && s.queue[0].At.Equal(n.At) {
		s.queue = s.queue[1:]
	}
}

func (s *Server) sayWhatIsLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, n := range s.queue {
		ids = append(ids, n.ID)
	}
	if len(ids) > 0 {
		s.cfg.Log.Warn("these ends of boots were not told to the webhook, and will not be", "notifications", ids)
	}
}

// deliver sends one until it is taken, given up or nobody wants it. It returns
// false when ctx ended before that.
func (s *Server) deliver(ctx context.Context, n Notification) bool {
	pause := firstPause
	until := n.At.Add(keepTrying)
	for {
		err := s.try(ctx, n)
		if ctx.Err() != nil && err != nil {
			return false
		}
		s.note(err)
		if err == nil {
			return true
		}
		var final *refused
		if wait := s.cfg.Now().Add(pause); errors.As(err, &final) || wait.After(until) {
			s.mu.Lock()
			s.state.Lost++
			s.mu.Unlock()
			s.cfg.Log.Warn("the webhook was not told of the end of a boot, and will not be", "notification", n.ID, "error", err)
			return true
		}
		s.cfg.Log.Info("the webhook could not be told; trying again", "notification", n.ID, "error", err, "pause", pause)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}

func (s *Server) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Trouble = ""
	if err != nil {
		s.state.Trouble = err.Error()
	}
}

// refused is an answer that another try would not change.
type refused struct{ status string }

func (r *refused) Error() string { return "the receiver refused it: " + r.status }

// try sends once. No error holds the URL: its path may be a password.
func (s *Server) try(ctx context.Context, n Notification) error {
	hook, err := s.cfg.Hook(ctx)
	if err != nil {
		return fmt.Errorf("read the webhook's settings: %w", err)
	}
	if hook.URL == "" || !slices.Contains(hook.Outcomes, n.Event) {
		return nil
	}
	n.Page = s.cfg.Page(n.Attempt) // which asks the kernel for our addresses: not for an end that nobody is told of
	body, err := json.Marshal(n)
	if err != nil {
		return &refused{err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return &refused{"its URL cannot be used"}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "lunboot/"+s.cfg.Version)
	req.Header.Set("X-Lunboot-Event", string(n.Event))
	req.Header.Set("X-Lunboot-Delivery", n.ID)
	if hook.Secret != "" {
		req.Header.Set("X-Lunboot-Signature", Sign(hook.Secret, body))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return fmt.Errorf("POST to %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		s.state.Delivered++
		return nil
	case code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code >= 500:
		return fmt.Errorf("POST to %s: it answered %s", req.URL.Host, resp.Status)
	default:
		return &refused{resp.Status}
	}
}

// Sign returns the value of X-Lunboot-Signature for a body: "sha256=" and the
// HMAC-SHA256 (RFC 2104) in hexadecimal.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
