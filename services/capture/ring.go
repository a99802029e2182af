package capture

import (
	"container/list"
	"net/netip"
	"slices"
	"time"

	"lunboot/store"
)

// Bounds of what is kept.
const (
	perMachine = 512 << 10 // bytes
	inAll      = 64 << 20  // bytes
	// maxMachines is how many machines are followed. The one that was not
	// heard of for longest goes first.
	maxMachines = 4096
	// maxHeard is how many of them may be ones that only spoke DHCP: a flood
	// of made-up MACs pushes out nobody who boots.
	maxHeard = 1024
	// overhead is what a packet takes beside its bytes.
	overhead = 112
)

// who names a machine in the ring: by its MAC, or, behind a router and without
// a lease that we know of, by its address.
type who struct {
	mac  store.MAC
	addr netip.Addr
}

// packet is one frame as it is kept: without the runs of zeros that stand for
// what was cut.
type packet struct {
	at     time.Time
	link   int // index of its interface in the recorder's list
	length int // on the wire
	tag    [tagLen]byte
	data   []byte // without the holes and the tag
	holes  []hole
}

// hole is a run of zeros that data leaves out.
type hole struct{ at, n int } // at counts in the frame

// shrink makes a packet's bytes; b is not kept.
func shrink(b []byte) (data []byte, holes []hole) {
	const worth = 64
	kept := 0
	for i := 0; i < len(b); {
		if b[i] != 0 {
			i++
			continue
		}
		j := i
		for j < len(b) && b[j] == 0 {
			j++
		}
		if j-i >= worth {
			data = append(data, b[kept:i]...)
			holes = append(holes, hole{i, j - i})
			kept = j
		}
		i = j
	}
	return append(data, b[kept:]...), holes
}

func (p *packet) tagged() bool { return p.tag != [tagLen]byte{} }

// frame returns the packet's bytes with their holes filled, and its tag where it was.
func (p *packet) frame() []byte {
	n := len(p.data)
	for _, h := range p.holes {
		n += h.n
	}
	out := make([]byte, 0, n)
	rest := p.data
	for _, h := range p.holes {
		take := h.at - len(out)
		out = append(out, rest[:take]...)
		rest = rest[take:]
		out = append(out, make([]byte, h.n)...)
	}
	out = append(out, rest...)
	if p.tagged() {
		out = slices.Insert(out, atTag, p.tag[:]...)
	}
	return out
}

func (p *packet) size() int { return overhead + len(p.data) + 16*len(p.holes) }

// machine is what is kept of one.
type machine struct {
	who     who
	packets []packet
	bytes   int
	boots   bool      // it did more than speak DHCP
	active  time.Time // when it last did anything but ask for neighbours
	place   *list.Element
}

// rings keep the newest packets of every machine, within the bounds above.
type rings struct {
	byWho  map[who]*machine
	booted *list.List // of *machine, the one heard of last in front
	heard  *list.List // the same, of those that only spoke DHCP
	bytes  int
	limits bounds
}

// bounds are those above, smaller in tests.
type bounds struct{ perMachine, inAll, machines, heard int }

func newRings(b bounds) *rings {
	return &rings{byWho: map[who]*machine{}, booted: list.New(), heard: list.New(), limits: b}
}

// of returns a machine's ring, which it may make.
func (r *rings) of(w who, boots bool, at time.Time) *machine {
	m := r.byWho[w]
	switch {
	case m == nil:
		m = &machine{who: w, boots: boots}
		m.place = r.list(m).PushFront(m)
		r.byWho[w] = m
	case boots && !m.boots:
		r.heard.Remove(m.place)
		m.boots = true
		m.place = r.booted.PushFront(m)
	default:
		r.list(m).MoveToFront(m.place)
	}
	m.active = at
	if r.heard.Len() > r.limits.heard {
		r.forget(r.heard.Back().Value.(*machine))
	}
	for len(r.byWho) > r.limits.machines {
		r.forgetOldest(m)
	}
	return m
}

func (r *rings) list(m *machine) *list.List {
	if m.boots {
		return r.booted
	}
	return r.heard
}

// forgetOldest drops the machine that was not heard of for longest, of those
// that do not boot first.
func (r *rings) forgetOldest(not *machine) bool {
	for _, l := range []*list.List{r.heard, r.booted} {
		if e := l.Back(); e != nil && e.Value.(*machine) != not {
			r.forget(e.Value.(*machine))
			return true
		}
	}
	return false
}

func (r *rings) forget(m *machine) {
	r.list(m).Remove(m.place)
	delete(r.byWho, m.who)
	r.bytes -= m.bytes
}

// add keeps a packet, and drops the oldest ones that it takes the room of.
func (r *rings) add(m *machine, p packet) {
	m.packets = append(m.packets, p)
	m.bytes += p.size()
	r.bytes += p.size()
	drop := 0
	for m.bytes > r.limits.perMachine && drop < len(m.packets)-1 {
		m.bytes -= m.packets[drop].size()
		r.bytes -= m.packets[drop].size()
		m.packets[drop] = packet{} // let its bytes go at once
		drop++
	}
	m.packets = m.packets[drop:] // append moves what is left when the array is full
	for r.bytes > r.limits.inAll && r.forgetOldest(m) {
	}
}
