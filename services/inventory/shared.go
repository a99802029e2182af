package inventory

import (
	"context"
	"maps"
	"sync"
	"time"

	"lunboot/store"
)

// sharedFor is how long what volumes share is believed: a page of one that is
// looked at asks several times a second, and an answer is a walk over all that the
// file system knows of where its files lie.
const sharedFor = 30 * time.Second

// sharing is what was said last of how much of each volume lies in blocks that
// others hold as well.
type sharing struct {
	turn chan struct{} // holds one: a look at a time
	mu   sync.Mutex
	said map[store.VolumeID]sharedBytes
}

type sharedBytes struct {
	at    time.Time
	bytes int64
	err   error
}

// shared is how many bytes of a volume's own layers others hold as well, as it was
// half a minute ago at most; -1 where that is not known.
func (i *Inventory) shared(ctx context.Context, v store.Volume) int64 {
	if !i.layers.Shares(v) {
		return -1 // so no walk finds any
	}
	s := &i.sharing
	if n, ok := s.recent(v.ID, i.now()); ok {
		return n
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return -1
	}
	defer func() { <-s.turn }()
	if n, ok := s.recent(v.ID, i.now()); ok { // whoever had the turn before asked the same
		return n
	}
	n, err := i.layers.Reflinked(ctx, v)
	if ctx.Err() != nil {
		return -1 // whoever asked is gone, which says nothing of the volume
	}
	said := sharedBytes{i.now(), n, err}
	s.mu.Lock()
	s.said[v.ID] = said
	s.mu.Unlock()
	return said.known()
}

// recent is what was said of a volume not long ago; all that is older is forgotten.
func (s *sharing) recent(id store.VolumeID, now time.Time) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.said, func(_ store.VolumeID, b sharedBytes) bool { return now.Sub(b.at) >= sharedFor })
	b, ok := s.said[id]
	return b.known(), ok
}

// known is -1 when the look failed.
func (b sharedBytes) known() int64 {
	if b.err != nil {
		return -1
	}
	return b.bytes
}
