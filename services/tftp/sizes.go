package tftp

import (
	"container/list"
	"net/netip"
	"sync"

	"lunboot/store"
)

// maxSized is how many machines' block sizes are remembered.
const maxSized = 4096

// steps are the sizes that a machine is given when larger blocks never reach
// it: what fits Ethernet, most tunnels, and what every TFTP client must take.
var steps = [...]int{1468, 1024, defaultBlksize}

// machine is whom a transfer is for: the MAC of the file name, or, under a bare
// name, the address, which machines behind one router share.
type machine struct {
	mac  store.MAC
	addr netip.Addr // zero when the MAC is known
}

// sizes remembers the machines whose full-size blocks never arrived. A tunnel on
// the way, or a switch that was set up for less than its ports say, swallows
// them without a word, and nobody can tell us but the machine's silence.
type sizes struct {
	mu   sync.Mutex
	by   map[machine]*list.Element
	used list.List // of sized, what was used last in front
}

type sized struct {
	of    machine
	limit int // bytes of a block
}

func newSizes() *sizes { return &sizes{by: map[machine]*list.Element{}} }

// limit is the largest block that a machine is given; 0 when it has no limit.
func (z *sizes) limit(of machine) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	e, ok := z.by[of]
	if !ok {
		return 0
	}
	z.used.MoveToFront(e)
	return e.Value.(*sized).limit
}

// stalled notes that a first block of that size was never acknowledged, and
// returns the limit of the machine's next try; 0 when there is none smaller. A
// limit stays, since what is on the way stays too: the size that works is tried
// first from then on.
func (z *sizes) stalled(of machine, size int) int {
	next := 0
	for _, s := range steps {
		if s < size {
			next = s
			break
		}
	}
	if next == 0 {
		return 0
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if e, ok := z.by[of]; ok {
		z.used.MoveToFront(e)
		s := e.Value.(*sized)
		s.limit = min(s.limit, next)
		return s.limit
	}
	if z.used.Len() >= maxSized {
		oldest := z.used.Back()
		delete(z.by, oldest.Value.(*sized).of)
		z.used.Remove(oldest)
	}
	z.by[of] = z.used.PushFront(&sized{of, next})
	return next
}
