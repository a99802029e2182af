package httpboot

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lunboot/services"
	"lunboot/store"
)

// Bounds of the looks at volumes: a machine waits meanwhile, and storage that hangs
// holds a look for as long as it hangs.
const (
	lookTime = 2 * time.Second
	maxLooks = 8
)

// looks are those that are under way: one of each volume, so that a volume whose
// storage hangs, and whose machine asks again and again, takes the place of one.
type looks struct {
	mu    sync.Mutex
	of    map[store.VolumeID]*aLook
	slots chan struct{} // holds one of each that reads
}

func newLooks() *looks {
	return &looks{of: map[store.VolumeID]*aLook{}, slots: make(chan struct{}, maxLooks)}
}

// aLook is what comes of one look, when done is closed.
type aLook struct {
	done  chan struct{}
	found store.Preflight
	err   error
}

// look looks at a volume, for a bounded time. Storage that hangs does not heed the
// bound: such a look ends when its storage answers.
func (s *Server) look(ctx context.Context, v store.Volume) (store.Preflight, error) {
	s.looks.mu.Lock()
	l := s.looks.of[v.ID]
	if l == nil {
		l = &aLook{done: make(chan struct{})}
		s.looks.of[v.ID] = l
		go s.lookFor(context.WithoutCancel(ctx), v, l) // others may wait for it too
	}
	s.looks.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	select {
	case <-l.done:
		return l.found, l.err
	case <-ctx.Done():
		return store.Preflight{}, lookError(v, ctx.Err())
	}
}

// lookFor looks, and says what came of it.
func (s *Server) lookFor(ctx context.Context, v store.Volume, l *aLook) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	defer func() {
		s.looks.mu.Lock()
		delete(s.looks.of, v.ID)
		s.looks.mu.Unlock()
		close(l.done)
	}()
	select {
	case s.looks.slots <- struct{}{}:
		defer func() { <-s.looks.slots }()
	case <-ctx.Done():
		l.err = lookError(v, ctx.Err())
		return
	}
	err := services.Guard(s.cfg.Log, "look at the volume "+v.Name, func() (err error) {
		l.found, err = s.cfg.Volumes.Look(ctx, v)
		return err
	})
	if err != nil {
		l.found, l.err = store.Preflight{}, lookError(v, err)
	}
}

func lookError(v store.Volume, err error) error {
	return fmt.Errorf("look at the volume %s: %w", v.Name, err)
}
