package scsi

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

// Unit attention conditions as bits: a condition that is established twice is
// reported once, and the lowest bit is reported first (SAM-5 §5.14).
const (
	uaPowerOn                uint32 = 1 << iota // 29h/00h
	uaBusReset                                  // 29h/02h, by a target reset
	uaUnitReset                                 // 29h/03h, by a logical unit reset
	uaLUNs                                      // 3Fh/0Eh
	uaMode                                      // 2Ah/01h
	uaCapacity                                  // 2Ah/09h
	uaReservationsPreempted                     // 2Ah/03h
	uaReservationsReleased                      // 2Ah/04h
	uaRegistrationsPreempted                    // 2Ah/05h
	uaCleared                                   // 2Fh/00h
)

const (
	uaAll   = ^uint32(0)
	uaReset = uaPowerOn | uaBusReset | uaUnitReset // come before a reservation conflict (SAM-5 §5.3.3)
)

// attentions has a row for each bit.
var attentions = [...]*sense.Data{
	{Key: sense.KeyUnitAttention, ASC: 0x29, ASCQ: 0x00}, // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
	{Key: sense.KeyUnitAttention, ASC: 0x29, ASCQ: 0x02}, // SCSI BUS RESET OCCURRED
	{Key: sense.KeyUnitAttention, ASC: 0x29, ASCQ: 0x03}, // BUS DEVICE RESET FUNCTION OCCURRED
	{Key: sense.KeyUnitAttention, ASC: 0x3f, ASCQ: 0x0e}, // REPORTED LUNS DATA HAS CHANGED
	{Key: sense.KeyUnitAttention, ASC: 0x2a, ASCQ: 0x01}, // MODE PARAMETERS CHANGED
	{Key: sense.KeyUnitAttention, ASC: 0x2a, ASCQ: 0x09}, // CAPACITY DATA HAS CHANGED
	{Key: sense.KeyUnitAttention, ASC: 0x2a, ASCQ: 0x03}, // RESERVATIONS PREEMPTED
	{Key: sense.KeyUnitAttention, ASC: 0x2a, ASCQ: 0x04}, // RESERVATIONS RELEASED
	{Key: sense.KeyUnitAttention, ASC: 0x2a, ASCQ: 0x05}, // REGISTRATIONS PREEMPTED
	{Key: sense.KeyUnitAttention, ASC: 0x2f, ASCQ: 0x00}, // COMMANDS CLEARED BY ANOTHER INITIATOR
}

// attrACA is the ACA task attribute (RFC 7143 §11.3.1).
const attrACA = 4

// errNoACA refuses it as other targets do: INVALID FIELD IN CDB, and no field to
// point at.
var errNoACA = &sense.Data{Key: sense.KeyIllegalRequest, ASC: 0x24}

// itl is an I_T_L nexus: one unit as one nexus sees it.
type itl struct {
	nexus    *Nexus
	lun      store.LUN
	unit     *Unit
	readOnly atomic.Bool
	sanitize atomic.Bool   // SANITIZE is among its commands
	pending  atomic.Uint32 // unit attention conditions
}

func (i *itl) establish(ua uint32) { i.pending.Or(ua) }

// attention takes the first pending unit attention condition, nil when there is
// none, among those asked for. REPORTED LUNS DATA HAS CHANGED is told once for
// all units of the nexus (LUICLR=1, SPC-4 §7.8.7).
func (i *itl) attention(of uint32) *sense.Data {
	for p := i.pending.Load(); p&of != 0; p = i.pending.Load() {
		n := bits.TrailingZeros32(p & of)
		if bit := uint32(1) << n; i.pending.CompareAndSwap(p, p&^bit) {
			if bit == uaLUNs {
				i.nexus.clear(uaLUNs)
			}
			return attentions[n]
		}
	}
	return nil
}

// clear ends unit attention conditions on every unit of the nexus.
func (n *Nexus) clear(ua uint32) {
	if m := n.luns.Load(); m != nil {
		for _, i := range m.byLUN {
			i.pending.And(^ua)
		}
	}
}

// Nexus is an I_T nexus: what one session may reach, and what it has still to
// be told. It is safe for concurrent use.
type Nexus struct {
	cfg   NexusConfig
	port  store.InitiatorPort
	table *[256][]operation

	copies copies

	mu     sync.Mutex // one change of the map at a time
	closed bool
	luns   atomic.Pointer[lunMap] // replaced whole; nil before the first SetMap
}

// lunMap is immutable.
type lunMap struct {
	byLUN map[store.LUN]*itl
	list  []store.LUN // rising
}

// NewNexus returns a nexus that has no LUNs yet.
func NewNexus(cfg NexusConfig) *Nexus {
	return &Nexus{cfg: cfg, port: store.InitiatorPort{Initiator: cfg.Initiator, ISID: cfg.ISID}, table: &operations}
}

// SetMap tells the nexus which units its initiator has. The first call
// establishes POWER ON for each unit. Later calls that change the set of LUNs,
// or the unit behind one, establish REPORTED LUNS DATA HAS CHANGED for every
// unit; a change of ReadOnly alone is MODE PARAMETERS CHANGED for that unit.
// Commands that were begun before finish on the unit that they found.
//
// Another volume behind a LUN that is in use is a change that no initiator
// survives well; ending the session is the caller's task.
func (n *Nexus) SetMap(entries map[store.LUN]MapEntry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	old := n.luns.Load()
	next := &lunMap{byLUN: make(map[store.LUN]*itl, len(entries))}
	changed := false
	for lun, e := range entries {
		i := old.find(lun)
		if i == nil || i.unit != e.Unit {
			i = &itl{nexus: n, lun: lun, unit: e.Unit}
			i.readOnly.Store(e.ReadOnly)
			i.sanitize.Store(e.Sanitize)
			i.establish(uaPowerOn)
			e.Unit.attach(i)
			changed = true
		} else if i.sanitize.Store(e.Sanitize); i.readOnly.Swap(e.ReadOnly) != e.ReadOnly {
			i.establish(uaMode)
		}
		next.byLUN[lun] = i
		next.list = append(next.list, lun)
	}
	slices.SortFunc(next.list, cmp.Compare[store.LUN])
	n.luns.Store(next)
	if old == nil {
		return
	}
	for lun, i := range old.byLUN {
		if next.byLUN[lun] != i {
			n.drop(i)
			changed = true
		}
	}
	if changed {
		for _, i := range next.byLUN {
			i.establish(uaLUNs)
		}
	}
}

// Close is the loss of the nexus: what it holds by RESERVE ends (SPC-2); what
// it registered stays,
// and every later command finds no LUN.
func (n *Nexus) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if old := n.luns.Swap(&lunMap{}); old != nil {
		for _, i := range old.byLUN {
			n.drop(i)
		}
	}
}

func (n *Nexus) drop(i *itl) {
	i.unit.detach(i)
	i.unit.res.legacy.CompareAndSwap(n, nil)
}

// find returns the unit at lun as this nexus sees it, nil when none is mapped.
func (m *lunMap) find(lun store.LUN) *itl {
	if m == nil {
		return nil
	}
	return m.byLUN[lun]
}

func (n *Nexus) find(b [8]byte) *itl {
	lun, ok := ParseLUN(b)
	if !ok {
		return nil
	}
	return n.luns.Load().find(lun)
}

// LogicalUnitReset does what LOGICAL UNIT RESET does to the unit; the session
// has aborted its own tasks there. rest is called when those of other sessions
// have come to rest, which may be before it returns.
func (n *Nexus) LogicalUnitReset(lun [8]byte, rest func()) {
	if i := n.find(lun); i != nil {
		i.unit.reset(n, uaUnitReset, rest)
	} else {
		rest() // the LUN is gone: nothing to reset
	}
}

// ClearTaskSet does what CLEAR TASK SET does to the tasks of other sessions.
func (n *Nexus) ClearTaskSet(lun [8]byte, rest func()) {
	if i := n.find(lun); i != nil {
		i.unit.clear(n, rest)
	} else {
		rest()
	}
}

// TargetReset resets every unit that is mapped for this nexus, and no other.
func (n *Nexus) TargetReset(rest func()) {
	m := n.luns.Load()
	if m == nil {
		rest()
		return
	}
	var left atomic.Int64
	left.Store(1 + int64(len(m.byLUN)))
	arrive := func() {
		if left.Add(-1) == 0 {
			rest()
		}
	}
	for _, i := range m.byLUN {
		i.unit.reset(n, uaBusReset, arrive)
	}
	arrive()
}

// Begin decodes the command and decides everything that needs no volume: LUN,
// operation code, CDB fields, pending unit attentions, reservations, write
// protection and the range of blocks. It does not block.
func (n *Nexus) Begin(c *Command) Plan {
	c.nexus, c.itl, c.op, c.answered = n, n.find(c.LUN), nil, false
	c.Status, c.Sense, c.In, c.Lent, c.Ahead, c.written = StatusGood, nil, c.In[:0], 0, 0, false
	c.lba, c.blocks, c.length, c.fua, c.field, c.flags = 0, 0, 0, false, 0, 0
	c.wipes = 0
	c.Expected = max(c.Expected, 0)
	op, err := n.operation(c)
	c.op = op
	if err != nil {
		n.end(c, err)
		return Plan{Done: true}
	}
	p, err := op.parse(c)
	if err != nil {
		n.end(c, err)
		return Plan{Done: true}
	}
	p.Slow = p.Slow || op.is(slow)
	return p
}

// operation finds the table's row for the command, or why it may not run. A
// write that the unit is protected from has both: it is told of as a write that
// failed.
func (n *Nexus) operation(c *Command) (*operation, error) {
	op, err := lookup(n.table, &c.CDB)
	if c.itl == nil {
		if err == nil && op.is(anyLUN) {
			return op, nil
		}
		if n.cfg.OnNoLUN != nil {
			n.cfg.OnNoLUN(c.LUN, c.CDB[:])
		}
		return nil, sense.NoLUN
	}
	c.itl.unit.refresh()
	c.wipes = c.itl.unit.wipes.Load()
	if rows := n.table[c.CDB[0]]; len(rows) > 0 && rows[0].is(sanitizes) && !c.itl.sanitize.Load() {
		op, err = nil, sense.InvalidOpcode
	}
	// INQUIRY and REPORT LUNS are answered in spite of a unit attention
	// condition, REQUEST SENSE returns it as data; everything else stops here
	// (SAM-5 §5.14). A reservation conflict goes before the lesser ones and
	// before every fault of the command (SAM-5 §5.3.3).
	if op == nil || !op.is(anyLUN) {
		if ua := c.itl.attention(uaReset); ua != nil {
			return nil, ua
		}
		if op != nil {
			if err := c.itl.unit.res.conflict(n, op, &c.CDB); err != nil {
				return nil, err
			}
		}
		if ua := c.itl.attention(uaAll); ua != nil {
			return nil, ua
		}
	}
	if err != nil {
		return nil, err
	}
	if w := c.itl.unit.wiping.Load(); w != nil && !op.is(duringWipe) {
		return nil, w.sense()
	}
	// NACA=1 asks for auto contingent allegiance, which NORMACA=0 denies
	// (SAM-5 §5.2); so nothing can be a part of one (§8.6).
	if c.Attr == attrACA {
		return nil, errNoACA
	}
	if last := op.length() - 1; c.CDB[last]&0x04 != 0 {
		return nil, sense.InvalidField(last, 2)
	}
	if op.is(writes) {
		if err := c.itl.unit.protected(c.itl); err != nil {
			return op, err
		}
	}
	return op, nil
}

// Execute runs a command that Begin planned. It always sets Status.
func (n *Nexus) Execute(ctx context.Context, c *Command) {
	if c.answered {
		return
	}
	if c.op == nil && n.Begin(c).Done {
		return
	}
	if err := c.wiped(); err != nil {
		n.end(c, err)
		return
	}
	n.end(c, c.op.exec(ctx, c))
}

// ExecuteUnflushed is Execute without the flush of a WRITE whose unit lost its write
// cache after Begin said that there would be none. It returns false when that flush is
// left: Execute does it, and ends the command.
func (n *Nexus) ExecuteUnflushed(ctx context.Context, c *Command) bool {
	c.unflushed = c.op != nil && c.op.is(inPieces)
	n.Execute(ctx, c)
	c.unflushed = false
	if c.written && c.Status == StatusGood {
		c.answered = false
	}
	return c.answered
}

// TryExecute answers a READ when all its data is in memory, without waiting for
// a disk. It returns false for every other command, and then nothing happened.
func (n *Nexus) TryExecute(c *Command) bool {
	if c.answered || c.op == nil || !c.op.is(reads) || c.fua {
		return false
	}
	if err := c.wiped(); err != nil {
		n.end(c, err)
		return true
	}
	u := c.itl.unit
	c.In = grow(c.In, c.length)
	if c.length > 0 && !u.resident(c.In, c.offset()) {
		c.In = c.In[:0]
		return false
	}
	n.end(c, nil)
	return true
}

// Lend answers a READ whose data lies in a file, all of it in memory. It returns
// false for every other command, and then nothing happened. The caller sends
// c.Lent bytes at that place of the file, and then owes back.Return.
func (n *Nexus) Lend(c *Command) (fd int, at int64, back interface{ Return() }, ok bool) {
	if c.answered || c.op == nil || !c.op.is(reads) || c.fua || c.length == 0 || c.wiped() != nil {
		return 0, 0, nil, false
	}
	u := c.itl.unit
	l, _ := u.cfg.Volume.(Lender)
	if l == nil || u.atomics.Load() { // what is lent is read later, and half a swap could be seen
		return 0, 0, nil, false
	}
	if fd, at, back, ok = l.Lend(c.offset(), int64(c.length)); ok {
		c.Lent = c.length
		n.end(c, nil)
	}
	return fd, at, back, ok
}

// Returns is how many bytes the command sends: those of In, or those that were
// lent.
func (c *Command) Returns() int { return max(len(c.In), c.Lent) }

// Fail ends a command with sense data of the session's own, in the format that
// the nexus uses.
func (n *Nexus) Fail(c *Command, s *sense.Data) {
	if c.itl == nil {
		c.itl = n.find(c.LUN)
	}
	n.end(c, s)
}

// end is the one place where an error becomes a status. An error that is no
// Sense is a fault of ours; it is never GOOD.
func (n *Nexus) end(c *Command, err error) {
	c.answered = true
	if err == nil {
		c.Status = StatusGood
		return
	}
	c.In = c.In[:0]
	var s *sense.Data
	switch e := err.(type) {
	case statusError:
		c.Status, c.Sense = byte(e), nil
		return
	case *sense.Data:
		s = e
	default:
		s = sense.ReadError(err, c.lba).(*sense.Data)
	}
	c.Status = StatusCheckCondition
	c.Sense = s.Append(c.senseData[:0], n.descriptorSense(c.itl))
}

// descriptorSense says which sense data format a nexus gets: D_SENSE of the
// unit's Control mode page, unless the session knows better.
func (n *Nexus) descriptorSense(i *itl) bool {
	return n.cfg.DescriptorSense || i != nil && i.unit.mode.Load()&modeDSense != 0
}

// ReadsMedium says that c is one of the READ commands; valid after Begin.
func (c *Command) ReadsMedium() bool { return c.op != nil && c.op.is(reads) }

// WritesMedium says that c may change the volume; valid after Begin.
func (c *Command) WritesMedium() bool { return c.op != nil && c.op.is(writes) }

// Places are those of c's unit, for whoever executes c away from the connection's
// goroutine. There are none for a command that does not wait for its unit's disk,
// PERSISTENT RESERVE OUT among them: it is what others put an end to such a wait
// with. Valid after Begin.
func (c *Command) Places() Places {
	if c.itl == nil || c.op == nil || !c.op.is(reads|writes|slow) || c.op.is(passesPersistent) {
		return Places{}
	}
	return c.itl.unit.places
}

// Examines says that c holds a Chunk of the medium while it runs, beside the data
// that it brought; valid after Begin.
func (c *Command) Examines() bool { return c.op != nil && c.op.is(examines) }

// ComesInPieces says that c is a WRITE that WritePiece may execute while its data
// arrives; valid after Begin.
func (c *Command) ComesInPieces() bool { return c.op != nil && c.op.is(inPieces) }

// grow returns b with length n, of the same array when that is large enough.
func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return make([]byte, n)
}
