package volume

import (
	"context"
	"sync"
	"time"

	"lunboot/store"
	"lunboot/store/volume/preflight"
)

// lookFor is how long a look at a volume is taken as new: a page and a few
// rules of diagnosis ask at the same time, and installing a system takes longer.
const lookFor = 5 * time.Second

// looks remembers the newest findings.
type looks struct {
	mu sync.Mutex
	at map[store.VolumeID]look
}

type look struct {
	at    time.Time
	size  int64
	found store.Preflight
}

// maxLooks bounds what is remembered; the oldest goes.
const maxLooks = 256

// Look says what a machine's firmware would find on a ready volume now, or a
// few seconds ago.
func (p *Pool) Look(ctx context.Context, v store.Volume) (store.Preflight, error) {
	p.looks.mu.Lock()
	seen, ok := p.looks.at[v.ID]
	p.looks.mu.Unlock()
	if ok && seen.size == v.Size && time.Since(seen.at) < lookFor {
		return seen.found, nil
	}
	return p.LookAnew(ctx, v)
}

// LookAnew says what a machine's firmware would find on a ready volume now.
func (p *Pool) LookAnew(ctx context.Context, v store.Volume) (store.Preflight, error) {
	h, err := p.Open(ctx, v)
	if err != nil {
		return store.Preflight{}, err
	}
	defer h.Close()
	found, err := preflight.Look(reader{ctx, h}, h.Size(), v.BlockSize)
	if err != nil {
		return store.Preflight{}, err
	}
	p.looks.keep(v.ID, look{time.Now(), v.Size, found})
	return found, nil
}

func (l *looks) keep(id store.VolumeID, seen look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		l.at = map[store.VolumeID]look{}
	}
	l.at[id] = seen
	if len(l.at) <= maxLooks {
		return
	}
	oldest := id
	for other, o := range l.at {
		if o.at.Before(l.at[oldest].at) {
			oldest = other
		}
	}
	delete(l.at, oldest)
}

// forget makes the next look a new one.
func (l *looks) forget(id store.VolumeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.at, id)
}

// reader reads a handle as io.ReaderAt does.
type reader struct {
	ctx context.Context
	h   *Handle
}

func (r reader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.h.ReadAt(r.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
