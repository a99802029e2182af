package capture

import "slices"

// Everything that is recorded of a TCP connection goes through a scrubber, in
// the order of the stream: whether a byte is part of a secret depends on what
// came before it, often in another packet. What comes out of order, twice or
// after a hole is recorded without its bytes.

// filler stands for text that was cut.
const filler = 'x'

// scrubber overwrites what is not to be kept of a stream's next bytes, and
// returns how many of them to keep: what follows is cut off.
type scrubber interface {
	scrub(b []byte) (keep int)
}

// Bounds of what is held back until a hole before it is filled.
const (
	maxHeldSegments = 32
	maxHeldBytes    = 64 << 10 // of one half
	maxHeldInAll    = 4 << 20  // of all connections: thousands that leave holes on purpose
)

// account is what all connections hold back together.
type account struct{ bytes int }

// direction is one half of a connection.
type direction struct {
	next  uint32 // sequence number of the next byte
	ready bool   // next is known
	lost  bool   // nothing more can be told about this half
	scrub scrubber
	held  []segment
	bytes int // in held
	all   *account
}

type segment struct {
	seq uint32
	b   []byte
}

// begin takes the initial sequence number.
func (d *direction) begin(seq uint32, s scrubber) {
	d.empty()
	*d = direction{next: seq + 1, ready: true, scrub: s, all: d.all} // SYN takes one number
}

// feed scrubs a packet's payload in place and returns how much of it to keep.
// whole says that no byte of it is missing.
func (d *direction) feed(seq uint32, b []byte, whole bool) int {
	if !whole || !d.ready {
		d.lose()
	}
	if d.lost {
		clear(b)
		return 0
	}
	switch off := int32(seq - d.next); {
	case off > 0:
		d.hold(seq, b)
		clear(b)
		return 0
	case off < 0:
		again := int(min(int64(len(b)), -int64(off)))
		clear(b[:again])
		if again == len(b) {
			return 0
		}
		keep := d.take(b[again:])
		d.release()
		if keep == 0 {
			return 0
		}
		return again + keep
	}
	keep := d.take(b)
	d.release()
	return keep
}

func (d *direction) take(b []byte) int {
	d.next += uint32(len(b))
	return d.scrub.scrub(b)
}

// hold keeps a copy of what came too early.
func (d *direction) hold(seq uint32, b []byte) {
	if len(b) == 0 {
		return
	}
	if len(d.held) >= maxHeldSegments || d.bytes+len(b) > maxHeldBytes || d.all.bytes+len(b) > maxHeldInAll {
		d.lose()
		return
	}
	d.held = append(d.held, segment{seq, append([]byte(nil), b...)})
	d.bytes += len(b)
	d.all.bytes += len(b)
}

// release follows what was held back as far as there is no hole.
func (d *direction) release() {
	for i := 0; i < len(d.held); {
		s := d.held[i]
		off := int32(s.seq - d.next)
		if off > 0 {
			i++
			continue
		}
		d.held = slices.Delete(d.held, i, i+1) // which lets go of its bytes
		d.bytes -= len(s.b)
		d.all.bytes -= len(s.b)
		if skip := -int64(off); skip < int64(len(s.b)) {
			d.take(s.b[skip:])
		}
		i = 0
	}
}

func (d *direction) lose() {
	d.empty()
	d.lost = true
}

// empty lets go of what is held back.
func (d *direction) empty() {
	d.all.bytes -= d.bytes
	d.held, d.bytes = nil, 0
}

// allowed is a list of names whose values may be kept.
type allowed []string

// name reads a name byte by byte and knows whether it may still become one of
// a list. It holds no more bytes than the list's longest.
type name struct {
	buf  []byte
	over bool // it is none of them
}

func (n *name) reset() { n.buf, n.over = n.buf[:0], false }

// add takes the next byte, already in the list's case, and reports whether the
// name still begins one of the list. A byte is kept only then: what a stranger
// put where a name belongs is not.
func (n *name) add(c byte, list allowed) bool {
	if n.over {
		return false
	}
	n.buf = append(n.buf, c)
	for _, a := range list {
		if len(a) >= len(n.buf) && a[:len(n.buf)] == string(n.buf) {
			return true
		}
	}
	n.over = true
	return false
}

// in reports whether the name is one of the list.
func (n *name) in(list allowed) bool {
	if n.over {
		return false
	}
	for _, a := range list {
		if a == string(n.buf) {
			return true
		}
	}
	return false
}
