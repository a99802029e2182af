package capture

import (
	"container/list"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lunboot/store"
)

// Bounds of what is followed.
const (
	// perConn is how much of a connection's data is looked at: the login and
	// the first reads. Beyond it only the end of the connection is recorded, so
	// that a volume in use costs nothing.
	perConn = 256 << 10
	// maxConns is how many connections are followed; the one that began first
	// is forgotten first, and then known by its headers only.
	maxConns = 4096
	// maxTransfers is how many TFTP transfers are followed.
	maxTransfers = 1024
	// firstBlocks is how many blocks of a transfer are recorded at its
	// beginning. After them, what is repeated, and the end.
	firstBlocks = 32
	// maxAddrs is how many addresses are remembered.
	maxAddrs = 8192
	// neighbourly is how long after its last boot traffic a machine's ARP and
	// router solicitations are recorded.
	neighbourly = 5 * time.Minute
)

// TFTP (RFC 1350 §5, RFC 2347).
const (
	opRRQ   = 1
	opDATA  = 3
	opACK   = 4
	opOACK  = 6
	tftpLen = 4
	// maxTFTPText bounds what is kept of a request, an error's text or an
	// option acknowledgement.
	maxTFTPText = 512
)

// Link is a network that the appliance is on.
type Link struct {
	Name     string
	Index    int
	MAC      store.MAC
	Prefixes []netip.Prefix // our addresses on it
}

// recorder sorts frames by machine, scrubs them and keeps them.
type recorder struct {
	ports  Ports
	lookup func(netip.Addr) (store.MAC, bool)

	mu        sync.Mutex
	links     []string // names, by index in packet.link
	own       map[netip.Addr]bool
	rings     *rings
	conns     map[connKey]*conn
	order     *list.List // of connKey, of conns, in the order in which they began
	transfers map[netip.AddrPort]*transfer
	asked     *list.List // of netip.AddrPort, of transfers
	held      account    // by conns
	addrs     map[netip.Addr]store.MAC
	done      map[uint32]int // key32 of the connections that the filter leaves out
	changed   bool           // done is not in the filter yet
	packets   int64          // kept since New
}

func newRecorder(p Ports, lookup func(netip.Addr) (store.MAC, bool), b bounds) *recorder {
	r := &recorder{ports: p, lookup: lookup, own: map[netip.Addr]bool{}, rings: newRings(b)}
	r.forget()
	return r
}

// forget lets go of all that was recorded; mu is held.
func (r *recorder) forget() {
	r.rings, r.held = newRings(r.rings.limits), account{}
	r.conns, r.order = map[connKey]*conn{}, list.New()
	r.transfers, r.asked = map[netip.AddrPort]*transfer{}, list.New()
	r.addrs, r.done, r.changed = map[netip.Addr]store.MAC{}, map[uint32]int{}, len(r.done) > 0
}

// link returns the index of an interface's name.
func (r *recorder) link(name string) int {
	if i := slices.Index(r.links, name); i >= 0 {
		return i
	}
	r.links = append(r.links, name)
	return len(r.links) - 1
}

// setLinks says which addresses are ours.
func (r *recorder) setLinks(all []Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.own)
	for _, l := range all {
		for _, p := range l.Prefixes {
			r.own[p.Addr()] = true
		}
	}
}

// take records one frame. It overwrites b.
func (r *recorder) take(l Link, seen Seen, b []byte) {
	if len(b) < ethernetLen {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := frame{link: l, at: seen.At, tag: seen.Tag, b: b, out: macAt(b[6:]) == l.MAC, peer: macAt(b[6:])}
	if f.out {
		f.peer = macAt(b)
	}
	switch binary.BigEndian.Uint16(b[atEtherType:]) {
	case etherTypeARP:
		if len(b) >= ethernetLen+arpLen {
			r.neighbour(f, ethernetLen+arpLen, r.arpOwner(f))
		}
	case etherTypeIPv6:
		if len(b) > atICMP6 && b[atNextHdr] == protocolICMPv6 && (b[atICMP6] == typeSolicitation || b[atICMP6] == typeAdvertisement) {
			end := min(len(b), ethernetLen+ipv6Len+int(binary.BigEndian.Uint16(b[ethernetLen+4:])))
			r.neighbour(f, end, f.peer)
		}
	case etherTypeIPv4:
		d, ok := readIPv4(b)
		switch {
		case !ok:
		case d.protocol == protocolTCP:
			r.tcp(f, d)
		case d.src.Port() == portDHCPServer || d.dst.Port() == portDHCPServer || d.src.Port() == portPXE || d.dst.Port() == portPXE:
			r.dhcp(f, d)
		default:
			r.tftp(f, d)
		}
	}
}

// frame is one packet while it is looked at.
type frame struct {
	link Link
	at   time.Time
	tag  [tagLen]byte
	b    []byte
	out  bool      // we sent it
	peer store.MAC // the other card
}

// keep adds the first n bytes of a frame to a machine's ring.
func (r *recorder) keep(m *machine, f frame, n, length int) {
	data, holes := shrink(f.b[:n])
	p := packet{at: f.at, link: r.link(f.link.Name), length: max(length, n), tag: f.tag, data: data, holes: holes}
	if p.tagged() {
		p.length += tagLen
	}
	r.rings.add(m, p)
	r.packets++
}

// neighbour records ARP and router messages of a machine that boots: they say
// whether it was there at all.
func (r *recorder) neighbour(f frame, n int, mac store.MAC) {
	m := r.rings.byWho[who{mac: mac}]
	if m != nil && f.at.Sub(m.active) < neighbourly {
		r.keep(m, f, n, n)
	}
}

// arpOwner is the machine that an ARP packet is from, or asks for.
func (r *recorder) arpOwner(f frame) store.MAC {
	if !f.out || someone(f.peer) {
		return f.peer
	}
	target, _ := netip.AddrFromSlice(f.b[ethernetLen+24 : ethernetLen+28])
	return r.addrs[target]
}

func (r *recorder) dhcp(f frame, d datagram) {
	if !d.whole {
		return
	}
	facts, ok := scrubDHCP(f.b[d.payload:d.end])
	if !ok {
		return
	}
	if facts.addr.IsValid() {
		r.remember(facts.addr, facts.mac)
	}
	r.keep(r.rings.of(who{mac: facts.mac}, false, f.at), f, d.end, d.length)
}

func (r *recorder) remember(a netip.Addr, mac store.MAC) {
	if len(r.addrs) >= maxAddrs {
		clear(r.addrs)
	}
	r.addrs[a] = mac
}

// owner says whose packets go to and from an address: on our own wire the
// card's, behind a router the one that leased it.
func (r *recorder) owner(f frame, far netip.Addr) (who, bool) {
	for _, p := range f.link.Prefixes {
		if p.Contains(far) {
			return who{mac: f.peer}, someone(f.peer)
		}
	}
	if mac, ok := r.addrs[far]; ok {
		return who{mac: mac}, true
	}
	if r.lookup != nil {
		if mac, ok := r.lookup(far); ok {
			r.remember(far, mac)
			return who{mac: mac}, true
		}
	}
	return who{addr: far}, true
}

// transfer is one of TFTP, known by its client's port (RFC 1350 §4).
type transfer struct {
	who   who
	place *list.Element
	block [2]int // the last one, by direction
	size  int    // of a full block; 0 before the first
	last  int    // the last block's number; 0 before it was seen
}

func (r *recorder) tftp(f frame, d datagram) {
	far, near := d.src, d.dst
	if f.out {
		far, near = d.dst, d.src
	}
	if !r.own[near.Addr()] {
		return
	}
	b := f.b[d.payload:d.end]
	if !f.out && near.Port() == r.ports.TFTP {
		w, ok := r.owner(f, far.Addr())
		if !ok || len(b) < 2 || binary.BigEndian.Uint16(b) != opRRQ {
			return
		}
		r.forgetTransfer(far)
		for len(r.transfers) >= maxTransfers {
			r.forgetTransfer(r.asked.Front().Value.(netip.AddrPort))
		}
		r.transfers[far] = &transfer{who: w, place: r.asked.PushBack(far)}
		r.keep(r.rings.of(w, true, f.at), f, d.payload+min(len(b), maxTFTPText), d.length)
		return
	}
	t := r.transfers[far]
	if t == nil || len(b) < tftpLen {
		return
	}
	op, block, keep := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:])), min(len(b), maxTFTPText)
	if op == opDATA || op == opACK {
		keep = tftpLen // a file may be a script
		if !t.worth(op == opDATA, block, d.length-d.payload-tftpLen) {
			return
		}
	}
	r.keep(r.rings.of(t.who, true, f.at), f, d.payload+keep, d.length)
}

// worth reports whether a block or its acknowledgement says something that the
// ones before did not.
func (t *transfer) worth(data bool, block, size int) bool {
	way := 0
	if data {
		way = 1
		switch {
		case t.size == 0:
			t.size = size
		case size < t.size:
			t.last = block
		}
	}
	again := t.block[way] == block
	t.block[way] = block
	return block <= firstBlocks || again || block == t.last
}

func (r *recorder) forgetTransfer(far netip.AddrPort) {
	if t := r.transfers[far]; t != nil {
		delete(r.transfers, far)
		r.asked.Remove(t.place)
	}
}

// connKey names a connection.
type connKey struct{ near, far netip.AddrPort }

// conn is a TCP connection that is followed.
type conn struct {
	who    who
	halves [2]direction // in, out
	began  bool         // we saw the machine's SYN
	isn    uint32       // its number
	fins   [2]bool
	bytes  int
	done   bool // more than perConn went by
	place  *list.Element
}

func (r *recorder) tcp(f frame, d datagram) {
	k, way := connKey{near: d.dst, far: d.src}, 0
	if f.out {
		k, way = connKey{near: d.src, far: d.dst}, 1
	}
	http := k.near.Port() == r.ports.HTTP
	if !http && k.near.Port() != r.ports.ISCSI || !r.own[k.near.Addr()] {
		return
	}
	c, syn := r.conns[k], d.flags&flagSYN != 0
	// A machine that lost power may begin anew under the numbers of before.
	if anew := c != nil && way == 0 && syn && (c.isn != d.seq || c.fins != [2]bool{}); c == nil || anew {
		w, ok := r.owner(f, k.far.Addr())
		if !ok {
			return
		}
		if !syn && d.size() == 0 {
			// The last word of a connection that is over, or was never seen.
			r.keep(r.rings.of(w, true, f.at), f, d.payload, d.length)
			return
		}
		r.forgetConn(k)
		c = r.newConn(k, w)
	}
	payload := f.b[d.payload:d.end]
	n := d.payload
	switch {
	case syn:
		c.begin(way, http, d.seq)
		clear(payload) // data on a SYN is nobody's here
	case len(payload) > 0 || d.size() > 0:
		if c.done && !(http && way == 0) {
			clear(payload)
			if d.flags&(flagFIN|flagRST) == 0 {
				return
			}
			break
		}
		n += c.halves[way].feed(d.seq, payload, d.whole)
		if c.bytes += d.size(); c.bytes > perConn && !c.done {
			c.done = true
			c.halves[1].lose()
			if !http {
				c.halves[0].lose()
			}
			r.done[key32(k.far)]++
			r.changed = true
		}
	case c.done && d.flags&(flagFIN|flagRST) == 0:
		return
	}
	r.keep(r.rings.of(c.who, true, f.at), f, n, d.length)
	if d.flags&flagFIN != 0 {
		c.fins[way] = true
	}
	if d.flags&flagRST != 0 || c.fins == [2]bool{true, true} {
		r.forgetConn(k)
	}
}

// begin learns where one half of a connection starts.
func (c *conn) begin(way int, http bool, seq uint32) {
	if c.halves[way].ready {
		if c.halves[way].next != seq+1 {
			c.halves[way].lose() // a SYN that is none of this connection's
		}
		return // once more
	}
	if way == 0 && !c.began {
		c.began, c.isn = true, seq
		c.scrubbers(http)
	}
	if !c.began {
		return // half of a connection from before
	}
	c.halves[way].begin(seq, c.halves[way].scrub)
}

func (c *conn) scrubbers(http bool) {
	if http {
		open := &exchange{}
		c.halves[0].scrub, c.halves[1].scrub = newHTTPHalf(false, open), newHTTPHalf(true, open)
		return
	}
	agreed := &digests{}
	c.halves[0].scrub, c.halves[1].scrub = newISCSIHalf(false, agreed), newISCSIHalf(true, agreed)
}

func (r *recorder) newConn(k connKey, w who) *conn {
	for len(r.conns) >= maxConns {
		r.forgetConn(r.order.Front().Value.(connKey))
	}
	c := &conn{who: w, place: r.order.PushBack(k)}
	c.halves[0].all, c.halves[1].all = &r.held, &r.held
	r.conns[k] = c
	return c
}

// forgetConn lets a connection go; when another one follows under its numbers,
// it is looked at anew.
func (r *recorder) forgetConn(k connKey) {
	c := r.conns[k]
	if c == nil {
		return
	}
	delete(r.conns, k)
	r.order.Remove(c.place)
	c.halves[0].empty()
	c.halves[1].empty()
	if !c.done {
		return
	}
	if n := key32(k.far); r.done[n] > 1 {
		r.done[n]--
	} else {
		delete(r.done, n)
	}
	r.changed = true
}

// wantsFilter reports whether leftOut has news.
func (r *recorder) wantsFilter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// leftOut returns what the filter is to leave out, when that changed.
func (r *recorder) leftOut() (keys []uint32, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.changed {
		return nil, false
	}
	r.changed = false
	keys = make([]uint32, 0, len(r.done))
	for k := range r.done {
		keys = append(keys, k)
	}
	return keys, true
}
