package session

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"lunboot/services"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// phase is what a task in the table waits for.
type phase uint8

const (
	phaseData    phase = iota // data from the initiator
	phaseWaiting              // memory, or its turn
	phaseRunning              // on a goroutine of its own
)

// task is one SCSI command from its PDU to its answer. Tasks are used again;
// all fields but cmd are reset by newTask.
type task struct {
	cmd scsi.Command
	taskState
	within    atomic.Bool   // its volume has it, on a goroutine of its own
	senseData [2 + 252]byte // SenseLength and sense data
}

type taskState struct {
	tag       pdu.TaskTag
	plan      scsi.Plan
	attr      pdu.Attribute
	immediate bool
	number    uint64 // rises with each command
	expected  int    // of the direction that the command has
	phase     phase
	grant     *grant
	lu        *unitState

	buf      *buffer
	burst    int       // bytes of burstMemory that it holds
	pooledAt time.Time // when it took memory that all sessions share
	looks    bool      // it runs, and reads the medium without sending it
	queued   bool      // it has a goroutine, and waits for a place at the disk
	chunk    int       // bytes of the session's memory for that
	want     int       // bytes that the command takes
	next     int       // the offset of the next byte from the initiator
	unasked  int       // up to which offset data may come without R2T; 0 when none is due
	end      int       // of the burst that was asked for
	due      bool      // a Data-Out with F is: the sequence that is under way has not ended
	spent    bool      // the task is over, and its answer waits for what is due
	ttt      pdu.TaskTag
	dataSN   pdu.Serial
	r2tSN    pdu.Serial

	listed    bool  // in the table
	receiving bool  // the reader is filling buf, or a piece
	pieces    bool  // what arrives is written at once
	writing   bool  // a piece is
	whole     bool  // all pieces have come
	closing   bool  // whoever writes a piece ends the task
	aborted   bool  // no answer is to be sent
	settled   bool  // it has changed all that it will, and is flushed
	unflushed bool  // a reader has executed it, and it is to be flushed: its unit lost its write cache meanwhile
	bad       error // of a piece
	fences    []*fence

	place chan struct{} // that it has taken, beside one at its disk
}

// newTask takes a task for the command in s.cmd.
func (s *Session) newTask() *task {
	var t *task
	if n := len(s.free); n > 0 {
		t, s.free = s.free[n-1], s.free[:n-1]
	} else {
		t = new(task)
		t.cmd.Settled = func() { s.settled(t) }
	}
	p := &s.cmd
	s.lastTask++
	t.within.Store(false)
	t.taskState = taskState{tag: p.InitiatorTaskTag, attr: p.Attr, immediate: p.Immediate, number: s.lastTask, grant: s.grant, lu: s.unit(p.LUN)}
	if s.grant != nil {
		s.grant.uses++
	}
	if p.Immediate {
		s.urgent++
	} else {
		s.slots++
	}
	if p.Attr == pdu.AttrOrdered {
		s.ordered++
		s.strict = true
	}
	return t
}

// unit returns the state of a LUN, however it is spelled. Only what is mapped is
// kept: an initiator may ask for LUNs that do not exist, and each of its
// commands there ends as it came.
func (s *Session) unit(l pdu.LUN) *unitState {
	if u := s.lastLU; u != nil && u.lun == l {
		return u
	}
	n, ok := scsi.ParseLUN(l)
	if !ok {
		return &unitState{lun: l, number: store.MaxLUN + 1}
	}
	u := s.lus[n]
	if u == nil {
		if u = (&unitState{number: n}); !s.mapped(n) {
			return u
		}
		s.lus[n] = u
	}
	u.lun, s.lastLU = l, u
	return u
}

// list puts a task into the table, where aborts find it.
func (s *Session) list(t *task) {
	t.listed = true
	s.tasks[t.tag] = t
}

// retire gives back all that a task holds, and lets others go on.
func (s *Session) retire(t *task) {
	if _, gone := s.gone[t]; gone {
		delete(s.gone, t)
	} else {
		s.vacate(t)
	}
	if t.attr == pdu.AttrOrdered {
		s.ordered--
	}
	if t.listed {
		delete(s.tasks, t.tag)
	}
	s.burst -= t.burst
}

// vacate gives back a task's place in the window, or among immediate commands.
func (s *Session) vacate(t *task) {
	if t.immediate {
		s.urgent--
	} else {
		s.slots--
	}
}

// part takes a task that was aborted out of the table, while whoever works on it
// goes on: it does not exist any more, and its tag may be used again (SAM-5 §7.1,
// RFC 7143 §11.5.1). What it holds beside its place in the window it holds until it
// returns.
func (s *Session) part(t *task) {
	if _, gone := s.gone[t]; gone {
		return
	}
	if t.listed {
		delete(s.tasks, t.tag)
		t.listed = false
	}
	s.vacate(t)
	if s.gone == nil {
		s.gone = make(map[*task]struct{})
	}
	s.gone[t] = struct{}{}
}

// recycle returns a retired task to the free list, after its answer was made.
func (s *Session) recycle(t *task) {
	s.letGo(t)
	s.lookAway(t)
	s.drop(t.grant)
	t.taskState = taskState{}
	t.cmd.In, t.cmd.Out, t.cmd.CDBExt = nil, nil, nil
	if len(s.free) < maxWindow+maxImmediate {
		s.free = append(s.free, t)
	}
	if len(s.waiting) > 0 {
		s.proceed()
	}
}

// complete answers a task that has been executed and forgets it.
func (s *Session) complete(t *task) error {
	if t.writing {
		t.closing, t.phase = true, phaseRunning
		if t.aborted {
			s.part(t)
		}
		return nil
	}
	if t.due && !t.aborted {
		s.spend(t)
		return nil
	}
	s.retire(t) // first, so that the answer opens the window again
	var err error
	if !t.aborted {
		s.observe(t)
		if !s.closed() {
			err = s.respond(t)
		}
	}
	fences, silent := t.fences, t.aborted
	s.recycle(t)
	if silent {
		s.reopen()
	}
	s.pass(fences)
	return err
}

// observe tells of what the rest of the appliance cares about.
func (s *Session) observe(t *task) {
	c := &t.cmd
	if c.Status == scsi.StatusGood {
		switch {
		case c.ReadsMedium():
			s.read.Add(int64(min(c.Returns(), t.expected)))
			if u := t.lu; !u.read {
				u.read = true
				s.after = append(s.after, func() { s.cfg.Observer.Used(u.number, false) })
			}
		case c.WritesMedium():
			s.written.Add(int64(t.want))
			if u := t.lu; !u.wrote {
				u.wrote = true
				s.after = append(s.after, func() { s.cfg.Observer.Used(u.number, true) })
			}
		}
		return
	}
	f := Failure{LUN: t.lu.number, CDB: c.CDB, LBA: lbaOf(&c.CDB)}
	switch {
	case c.Status == scsi.StatusReservationConflict:
		f.Reserved = true
		s.after = append(s.after, func() { s.cfg.Observer.Failed(f) })
	case c.Status == scsi.StatusCheckCondition && (c.ReadsMedium() || c.WritesMedium() || syncs(c.CDB[0])):
		f.Key, f.ASC, f.ASCQ = senseCode(c.Sense)
		if f.Key != unitAttention && f.ASC != noSuchUnit {
			s.after = append(s.after, func() { s.cfg.Observer.Failed(f) })
		}
	}
}

// begin starts a task that has all its data: it returns true when the caller
// is to execute it now, on its own goroutine. Otherwise the task is in the
// table and goes on by itself.
func (s *Session) begin(t *task, inline bool) bool {
	if inline && s.ordered == 0 {
		return true
	}
	if !t.listed {
		s.list(t)
	}
	t.phase = phaseWaiting
	s.waiting = append(s.waiting, t)
	s.proceed()
	return false
}

// proceed lets waiting tasks go on, the oldest first, as memory and order
// allow.
func (s *Session) proceed() {
	kept := s.waiting[:0]
	for _, t := range s.waiting {
		if !s.advance(t) {
			kept = append(kept, t)
		}
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}

// advance moves one waiting task on, if it may.
func (s *Session) advance(t *task) bool {
	if t.next < t.want {
		if !s.reserve(t, t.want, true) {
			return false
		}
		t.phase = phaseData
		s.ask(t)
		return true
	}
	if t.writing || !s.turn(t) || !s.unitFree(t) {
		return false
	}
	if t.plan.Dir == scsi.DirIn && t.buf == nil {
		n := t.plan.Len
		if !t.cmd.ReadsMedium() {
			// An allocation length says little; Execute finds room for the rest.
			n = min(n, max(t.expected, scratchSize))
		}
		if !s.reserve(t, n, true) {
			return false
		}
		t.cmd.In = t.buf.b[:0]
	}
	if !s.look(t) {
		return false
	}
	t.phase = phaseRunning
	t.place = s.shared.tryEnter(&t.cmd)
	t.queued = t.place == nil
	settle := t.attr == pdu.AttrOrdered && s.lent
	s.lent = s.lent && !settle
	s.wg.Add(1)
	go s.run(t, settle)
	return true
}

// reserve gives a task a buffer of n bytes. What fits the slot's own share
// needs no more than the memory of all sessions together; the rest comes from
// burstMemory too, to the oldest first. One task may have more than that, if it
// is alone. When wait is set, a task that is among those that wait goes on when
// there is memory.
func (s *Session) reserve(t *task, n int, wait bool) bool {
	if t.buf != nil && len(t.buf.b) >= n {
		return true
	}
	size := 0
	if n > s.params.FirstBurstLength {
		size = bufferSize(n)
		if s.burst > 0 && (s.burst+size > burstMemory || s.overtakes(t)) {
			return false
		}
	}
	if !s.hold(t, n, wait) {
		return false
	}
	s.burst += size
	t.burst += size
	return true
}

// unreserve undoes reserve.
func (s *Session) unreserve(t *task) {
	s.letGo(t)
	s.burst -= t.burst
	t.burst = 0
}

// overtakes says whether an older task waits for memory: smaller ones would keep
// it waiting for ever, and an ORDERED one among them would wait for it.
func (s *Session) overtakes(t *task) bool {
	for _, o := range s.waiting {
		if o.number < t.number && (o.next < o.want || o.plan.Dir == scsi.DirIn && o.buf == nil) {
			return true
		}
	}
	return false
}

// turn says whether the order of commands lets t run (SAM-5 §8.6): an ORDERED
// task runs after all older ones and before all younger ones; HEAD OF QUEUE
// waits for nobody. One that was aborted counts while it may change the volume.
func (s *Session) turn(t *task) bool {
	if s.ordered == 0 || t.attr == pdu.AttrHeadOfQueue {
		return true
	}
	for _, o := range s.tasks {
		if t.behind(o) {
			return false
		}
	}
	for o := range s.gone {
		if t.behind(o) && o.changes() {
			return false
		}
	}
	return true
}

// behind says whether one of the two is ORDERED and t the younger.
func (t *task) behind(o *task) bool {
	return o.number < t.number && o.lu == t.lu && (t.attr == pdu.AttrOrdered || o.attr == pdu.AttrOrdered)
}

// unitFree keeps one unit's disk from holding every goroutine.
func (s *Session) unitFree(t *task) bool {
	if len(s.tasks)+len(s.gone) < maxUnitTasks {
		return true
	}
	n := 0
	for _, o := range s.tasks {
		if o.phase == phaseRunning && o.lu == t.lu {
			n++
		}
	}
	for o := range s.gone {
		if o.lu == t.lu {
			n++
		}
	}
	return n < maxUnitTasks
}

// run executes a task on a goroutine of its own, when there is a place for it, and
// after what was lent has left if it is to.
func (s *Session) run(t *task, settle bool) {
	defer s.wg.Done()
	entered := false
	err := services.Guard(s.cfg.Log, "iSCSI command", func() error {
		if settle {
			s.settleLoans()
		}
		if entered = !t.queued || s.enter(t); entered {
			defer s.shared.leave(&t.cmd, t.place)
			t.within.Store(true)
			if t.bad == nil || !s.nexus.Written(&t.cmd, t.bad) {
				s.nexus.Execute(s.ctx, &t.cmd)
			}
		}
		return nil
	})
	s.mu.Lock()
	defer s.unlock()
	t.aborted = t.aborted || !entered
	s.executed(t, err == nil)
}

// executed answers a task that was executed away from the reader. sound says that
// no fault of ours ended it.
func (s *Session) executed(t *task, sound bool) {
	if !sound {
		t.aborted = true
		s.end(&ending{reason: errFault.Error()})
	}
	if s.complete(t) == nil && !s.closed() {
		_ = s.flush() // an error has ended the session
	}
}

// enter waits until there is a place for a task; it returns false, and it has none,
// when nobody waits for the task any more.
func (s *Session) enter(t *task) bool {
	if t.place = s.shared.enter(s.ctx, &t.cmd); t.place == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.queued = false
	if t.aborted {
		s.shared.leave(&t.cmd, t.place)
	}
	return !t.aborted
}

// What an initiator is told without anything having failed: a sense key, and
// the additional sense code of a LUN that does not exist.
const (
	illegalRequest = 0x05
	unitAttention  = 0x06
	noSuchUnit     = 0x25
)

// Operation codes that the session looks at itself (SBC-3 §5.1).
const (
	opRead6       = 0x08
	opWrite6      = 0x0a
	opPrefetch10  = 0x34
	opSyncCache10 = 0x35
	opSanitize    = 0x48
	opPrefetch16  = 0x90
	opSyncCache16 = 0x91
	opReportLUNs  = 0xa0
)

func syncs(op byte) bool { return op == opSyncCache10 || op == opSyncCache16 }

// lbaOf reads the LOGICAL BLOCK ADDRESS field by the length of the CDB (SPC-4
// §4.2.5).
func lbaOf(cdb *[16]byte) uint64 {
	n := uint64(0)
	switch cdb[0] >> 5 {
	case 0:
		return uint64(cdb[1]&0x1f)<<16 | uint64(cdb[2])<<8 | uint64(cdb[3])
	case 4:
		for _, b := range cdb[2:10] {
			n = n<<8 | uint64(b)
		}
	default:
		for _, b := range cdb[2:6] {
			n = n<<8 | uint64(b)
		}
	}
	return n
}

// senseCode reads the sense key and codes out of either format.
func senseCode(b []byte) (key, asc, ascq byte) {
	if len(b) >= 4 && b[0]&0x7e == 0x72 {
		return b[1] & 0x0f, b[2], b[3]
	}
	if len(b) >= 14 && b[0]&0x7e == 0x70 {
		return b[2] & 0x0f, b[12], b[13]
	}
	return 0, 0, 0
}

func (f Failure) String() string { return fmt.Sprintf("%02X/%02X/%02X", f.Key, f.ASC, f.ASCQ) }

// forget removes a task from the list of those that wait.
func (s *Session) forget(t *task) {
	if i := slices.Index(s.waiting, t); i >= 0 {
		s.waiting = slices.Delete(s.waiting, i, i+1)
	}
}
