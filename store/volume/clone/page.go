package clone

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// state is where a granule's bytes are.
type state uint64

const (
	below state = 0
	here  state = 1
	zero  state = 2
)

// pattern is a word of 32 granules in one state.
func (s state) pattern() uint64 { return uint64(s) * 0x5555555555555555 }

// page is a map page in memory. States are read without a lock.
type page struct {
	words [pageWords]atomic.Uint64
	// written is set before the first state is, when both slots have their
	// room on the disk.
	written atomic.Bool
	dirty   atomic.Bool
	bad     uint8  // one bit for each damaged sector; never changes
	empty   uint8  // one bit for each slot that was never written; under Layer.loadMu
	seq     uint64 // of the newest slot on the disk; under Layer.flushMu
	next    uint64 // of the next write; under Layer.flushMu
}

// untouched is the page of every range whose map was never written. Nobody
// changes it: a page of its own takes its place first.
var untouched page

// load fills a page from the slot that is valid.
func (p *page) load(pair *[pairSize]byte, s *slots) {
	var states [pageWords * 8]byte
	for i := range sectors {
		if s.damaged[i] {
			p.bad |= 1 << i
			continue
		}
		copy(states[i*(sectorSize-sectorHead):], pair[s.slot*slotSize+i*sectorSize+sectorHead:][:sectorSize-sectorHead])
	}
	for i := range p.words {
		p.words[i].Store(binary.LittleEndian.Uint64(states[i*8:]))
	}
	p.seq, p.next = s.seq, s.next()
	for i, e := range s.empty {
		if e {
			p.empty |= 1 << i
		}
	}
}

// states copies the page's bytes.
func (p *page) states(dst []byte) {
	for i := range p.words {
		binary.LittleEndian.PutUint64(dst[i*8:], p.words[i].Load())
	}
}

func (p *page) at(i int) state {
	return state(p.words[i/32].Load() >> (i % 32 * 2) & 3)
}

// same returns where the run of one state that holds granule i ends, at most
// at end.
func (p *page) same(i, end int) int {
	s := p.at(i)
	for i < end {
		shift := i % 32 * 2
		diff := (p.words[i/32].Load() ^ s.pattern()) >> shift
		if diff != 0 {
			return min(end, i+bits.TrailingZeros64(diff)/2)
		}
		i += 32 - i%32
	}
	return end
}

// damagedFrom returns whether granule i is in a damaged sector, and where the
// sectors of that kind end.
func (p *page) damagedFrom(i int) (bad bool, end int) {
	s := i / perSector
	bad = p.bad>>s&1 != 0
	for s < sectors && (p.bad>>s&1 != 0) == bad {
		s++
	}
	return bad, s * perSector
}

// set puts granules first to end-1 into a state and reports whether any was in
// another.
func (p *page) set(first, end int, s state) (changed bool) {
	for first < end {
		from := first % 32
		n := min(32-from, end-first)
		mask := ^uint64(0)
		if n < 32 {
			mask = (1<<(2*n) - 1) << (2 * from)
		}
		w := &p.words[first/32]
		for {
			old := w.Load()
			next := old&^mask | s.pattern()&mask
			if next == old {
				break
			}
			// One exchange: no reader may see a state in between.
			if w.CompareAndSwap(old, next) {
				changed = true
				break
			}
		}
		first += n
	}
	return changed
}
