package socket

import (
	"sync/atomic"
	"time"
)

// A peer with one command in flight asks again as soon as it has its answer. To
// sleep and be woken in between costs more than the rest of a READ of 4 KiB does,
// so a reader whose peer was quick keeps looking for a moment, which is a vigil,
// as KVM does before it halts a virtual CPU (Linux,
// Documentation/virt/kvm/halt-polling.rst). A vigil in vain makes the next one
// rarer: a peer further away than vigilTime costs next to nothing.
const (
	vigilTime = 50 * time.Microsecond
	quickTime = 2 * vigilTime // a wait with a sleep in it is longer than it had to be

	leastQuick = 16      // short waits in a row before the first vigil
	mostQuick  = 1 << 14 // and after many in vain
)

// Vigils bounds the readers that keep vigil at one moment: each takes a processor.
type Vigils struct {
	most int32
	now  atomic.Int32
}

// NewVigils leaves half of the processors, and the only one, to the others.
func NewVigils(processors int) *Vigils { return &Vigils{most: int32(processors / 2)} }

// begin says whether one more reader may keep vigil, until end.
func (v *Vigils) begin() bool {
	if v.now.Add(1) <= v.most {
		return true
	}
	v.end()
	return false
}

func (v *Vigils) end() { v.now.Add(-1) }

// habit is how soon a peer was heard again, as far as it says whether a vigil is
// worth it.
type habit struct {
	quick int // short waits in a row
	need  int // how many make a vigil worth it, beyond leastQuick
}

// quickly says that the peer is likely to be heard within vigilTime.
func (h *habit) quickly() bool { return h.quick >= leastQuick+h.need }

// learn takes in how long a wait was. A vigil in vain ended with a sleep.
func (h *habit) learn(waited time.Duration, vigil bool) {
	switch {
	case vigil && waited > vigilTime:
		h.quick, h.need = 0, min(2*h.need+leastQuick, mostQuick)
	case waited > quickTime:
		h.quick = 0
	case vigil:
		h.need = 0
	default:
		h.quick++
	}
}
