package session

import (
	"context"
	"math/bits"
	"runtime"
	"sync"

	"lunboot/services/iscsi/memory"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/socket"
)

// Sizes of pooled buffers, as powers of two.
const (
	minClass = 12 // 4 KiB
	maxClass = 24 // 16 MiB
)

// maxWorkers bounds the commands that wait for a disk in all sessions together:
// each holds a thread while it waits, and the runtime ends a process that has
// 10,000. One disk has at most scsi.MaxAtDisk of them, and scsi.OwnAtDisk that are not
// counted here.
const maxWorkers = 3072

// Shared is what the sessions of one appliance share: buffers, the bound on the
// memory that those hold, and the bounds on goroutines that wait for disks and on
// those that keep vigil for a peer.
type Shared struct {
	classes [maxClass + 1]sync.Pool
	workers chan struct{}
	pool    *memory.Pool
	vigils  *socket.Vigils
}

// NewShared returns empty pools with the appliance's bounds.
func NewShared() *Shared { return NewSharedWithin(memory.Default()) }

// NewSharedWithin is NewShared with other bounds on memory.
func NewSharedWithin(l memory.Limits) *Shared {
	return &Shared{
		workers: make(chan struct{}, maxWorkers),
		pool:    memory.NewPool(l),
		vigils:  socket.NewVigils(runtime.GOMAXPROCS(0)),
	}
}

// buffer is a pooled byte slice. Its pointer travels, so that neither get nor
// put allocates.
type buffer struct {
	b     []byte
	class int
}

func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), minClass) }

// bufferSize is what a buffer of n bytes really takes.
func bufferSize(n int) int {
	if class := classOf(n); class <= maxClass {
		return 1 << class
	}
	return n
}

// get returns a buffer of at least n bytes.
func (s *Shared) get(n int) *buffer {
	class := classOf(n)
	if class > maxClass {
		return &buffer{b: make([]byte, n), class: -1}
	}
	if v := s.classes[class].Get(); v != nil {
		return v.(*buffer)
	}
	return &buffer{b: make([]byte, 1<<class), class: class}
}

// put takes a buffer back; nil is fine.
func (s *Shared) put(b *buffer) {
	if b != nil && b.class >= 0 {
		s.classes[b.class].Put(b)
	}
}

// enter takes the places that a command needs for waiting for a disk: one of its
// unit's, and then one that is the unit's own or one of all, which it returns. It
// returns nil, and there are none, when ctx ends first.
func (s *Shared) enter(ctx context.Context, c *scsi.Command) (place chan struct{}) {
	unit := c.Places()
	if unit.All != nil {
		select {
		case unit.All <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
	select {
	case unit.Own <- struct{}{}:
		return unit.Own
	case s.workers <- struct{}{}:
		return s.workers
	case <-ctx.Done():
	}
	if unit.All != nil {
		<-unit.All
	}
	return nil
}

// tryEnter is enter without waiting.
func (s *Shared) tryEnter(c *scsi.Command) (place chan struct{}) {
	unit := c.Places()
	if unit.All != nil {
		select {
		case unit.All <- struct{}{}:
		default:
			return nil
		}
	}
	select {
	case unit.Own <- struct{}{}:
		return unit.Own
	case s.workers <- struct{}{}:
		return s.workers
	default:
	}
	if unit.All != nil {
		<-unit.All
	}
	return nil
}

// leave gives the places back.
func (s *Shared) leave(c *scsi.Command, place chan struct{}) {
	<-place
	if unit := c.Places(); unit.All != nil {
		<-unit.All
	}
}
