package httpd

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// body is a request's body whose sender may be slow but not silent: each read
// has a time of its own. Without it a sender whose line is dead holds what its
// request holds until TCP gives up, which is never while nothing is sent to it.
type body struct {
	io.ReadCloser
	conn *http.ResponseController
	time time.Duration // how long a read may bring nothing

	mu    sync.Mutex
	ended bool // interrupted
}

// Read sets the time for this read only: once the body is over, the server
// watches the connection itself, and a deadline would look like a client that
// went.
func (b *body) Read(p []byte) (int, error) {
	if !b.set(time.Now().Add(b.time)) {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.set(time.Time{})
	}
	return n, err
}

// Interrupt ends the read that waits, and all later ones.
func (b *body) Interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	// It fails only on a connection that is gone.
	_ = b.conn.SetReadDeadline(time.Unix(1, 0))
}

// set moves the deadline, unless the body was interrupted.
func (b *body) set(at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		_ = b.conn.SetReadDeadline(at)
	}
	return !b.ended
}
