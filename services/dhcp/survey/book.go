package survey

import (
	"context"
	"sync"
	"time"

	"lunboot/store"
)

// Book asks networks and remembers what each said last. It asks each network
// one question at a time.
type Book struct {
	ask func(ctx context.Context, name string) ([]store.Heard, error)
	now func() time.Time

	mu   sync.Mutex
	last map[string]store.Survey
	busy map[string]chan struct{} // closed when the question that is under way has its answer
}

// NewBook makes an empty book.
func NewBook(now func() time.Time) *Book {
	return &Book{
		ask: func(ctx context.Context, name string) ([]store.Heard, error) {
			return Ask(ctx, name, FullTime, store.ClientKinds()...)
		},
		now: now, last: map[string]store.Survey{}, busy: map[string]chan struct{}{},
	}
}

// Last returns the last survey of an interface.
func (b *Book) Last(name string) (store.Survey, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.last[name]
	return s, ok
}

// Ask asks who answers DHCP on an interface and notes it; it takes FullTime.
// Who comes while the same network is being asked gets that answer. An error
// says why nobody could be asked, and is in the survey that is noted.
func (b *Book) Ask(ctx context.Context, name string) (store.Survey, error) {
	came := b.now()
	for {
		b.mu.Lock()
		other, busy := b.busy[name]
		if !busy {
			break
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return store.Survey{}, ctx.Err()
		}
		if s, ok := b.Last(name); ok && s.Failed == "" && !s.At.Before(came) {
			return s, nil
		}
	}
	done := make(chan struct{})
	b.busy[name] = done
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.busy, name)
		b.mu.Unlock()
		close(done)
	}()
	heard, err := b.ask(ctx, name)
	s := store.Survey{Interface: name, At: b.now(), Heard: heard}
	if err != nil {
		if ctx.Err() != nil || store.IsNotFound(err) {
			return s, err // nothing to remember
		}
		s.Failed = err.Error()
	}
	b.mu.Lock()
	b.last[name] = s
	b.mu.Unlock()
	return s, err
}
