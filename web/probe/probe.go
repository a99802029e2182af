// Package probe answers the two questions of whatever watches the appliance
// from outside: /healthz, whether the process answers at all, and /readyz,
// whether machines can boot from it now.
//
// Neither needs a login, so neither says more than the names of parts. What is
// wrong with a part is in `lunboot doctor` and on the page Settings.
package probe

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// Paths of the two answers.
const (
	HealthPath = "/healthz"
	ReadyPath  = "/readyz"
)

// Bounds of a look at the parts.
const (
	lookTime = 2 * time.Second
	// fresh is how long an answer is given again: whoever asks without a login
	// costs no more than one look a second.
	fresh = time.Second
)

// Part is a part of the appliance, and whether it does its work.
type Part struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
}

// Answer is what /readyz says.
type Answer struct {
	Ready bool   `json:"ready"`
	Parts []Part `json:"parts"`
}

// Health answers /healthz: 200 as long as the process serves requests. It asks
// no part, since what restarts a process for a slow disk takes the disks of all
// machines away.
func Health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n"))
}

// Ready answers /readyz.
type Ready struct {
	look func(context.Context) []Part
	now  func() time.Time

	mu   sync.Mutex
	last Answer
	at   time.Time
}

// NewReady makes a Ready. look returns every part; one that does not return in
// two seconds has a context that ends, and must say so of the part that it
// waits for.
func NewReady(look func(context.Context) []Part, now func() time.Time) *Ready {
	return &Ready{look: look, now: now}
}

// ServeHTTP answers 200 when all parts are ready, else 503, with the parts by
// name in both cases.
func (s *Ready) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := s.answer(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !a.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(a)
}

func (s *Ready) answer(ctx context.Context) Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.at.IsZero() || now.Sub(s.at) >= fresh || now.Before(s.at) {
		// A caller that hangs up does not spoil the answer of the next.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
		defer cancel()
		a := Answer{Ready: true, Parts: s.look(ctx)}
		for _, p := range a.Parts {
			a.Ready = a.Ready && p.Ready
		}
		s.last, s.at = a, s.now()
	}
	return s.last
}
