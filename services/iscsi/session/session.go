package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/memory"
	"lunboot/services/iscsi/pdu"
	"lunboot/services/iscsi/scsi"
	"lunboot/store"
)

// Bounds of one session.
const (
	// slotMemory is what the data that comes unasked may occupy: the window is
	// so large that all its commands may bring FirstBurstLength.
	slotMemory = 16 << 20
	maxWindow  = 128
	minWindow  = 8
	// burstMemory is what the rest may occupy: data that is asked for with R2T,
	// and answers that wait for a disk. A command that finds it used up waits.
	burstMemory   = 16 << 20
	maxImmediate  = 16       // immediate commands under way; they stand outside the window
	maxUnitTasks  = 32       // commands that wait for the disk of one unit
	maxTextLength = 16 << 10 // text of one negotiation
	outputSize    = 128 << 10
	inPlace       = 64 << 10  // READs up to this go straight into the output buffer
	inlineWrite   = 256 << 10 // WRITEs up to this run on the reader's goroutine
	scratchSize   = 4 << 10
)

// Observer is told what happens in a session. Its methods are called without
// locks held, and may close the session.
type Observer interface {
	// Used tells of the first READ, or the first WRITE, on a LUN that ended
	// with GOOD.
	Used(lun store.LUN, wrote bool)
	// Failed tells of a READ, WRITE or SYNCHRONIZE CACHE that ended with CHECK
	// CONDITION, and of any command that ended with RESERVATION CONFLICT.
	Failed(Failure)
	// LoggedOut tells of a Logout Request.
	LoggedOut()
	// ColdReset asks for the end of all sessions of the initiator.
	ColdReset()
}

// Failure is a command that failed.
type Failure struct {
	LUN            store.LUN
	CDB            [16]byte
	LBA            uint64
	Key, ASC, ASCQ byte
	Reserved       bool // another nexus has reserved the unit; there is no sense
}

// Config is what a session needs.
type Config struct {
	Result   login.Result
	Shared   *Shared
	Observer Observer
	// Targets lists the target and its addresses, as SendTargets returns them
	// (RFC 7143 §13.3, Appendix C).
	Targets func() []pdu.Pair
	Log     *slog.Logger
}

// Counters are what a session has moved so far.
type Counters struct {
	Read     int64  // bytes of READ commands
	Written  int64  // bytes of WRITE commands
	Activity uint64 // grows with whatever the initiator sends
}

// Session is one session with its one connection.
type Session struct {
	*Conn
	cfg    Config
	nexus  *scsi.Nexus // nil in a discovery session
	shared *Shared
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // tasks on their own goroutines

	harmless chan struct{}
	done     chan struct{}

	read, written atomic.Int64

	sendingAt atomic.Int64 // when a write began that holds much memory; 0 when none is under way

	why atomic.Pointer[ending] // nil while the session lives

	mu        sync.Mutex
	params    login.Params
	statSN    pdu.Serial
	expCmdSN  pdu.Serial
	told      pdu.Serial // the MaxCmdSN that the initiator knows
	window    int
	slots     int       // of the window that tasks occupy
	held      []early   // requests that came before their turn, by CmdSN
	heldSince time.Time // since when they have memory that all sessions share
	aside     input     // of the connection, while one of them is read
	taken     int       // commands since the reader last waited
	urgent    int       // immediate commands under way
	tasks     map[pdu.TaskTag]*task
	gone      map[*task]struct{} // aborted, and whoever works on them has not returned; nil before the first
	free      []*task
	waiting   []*task // for memory or for their turn, oldest first
	ordered   int     // tasks with the ORDERED attribute
	strict    bool    // there was one: nothing is lent any more
	lent      bool    // something was
	lastTask  uint64
	burst     int // of burstMemory in use
	account   *memory.Account
	looking   int // tasks that read the medium without sending it
	ttt       pdu.TaskTag
	lus       map[store.LUN]*unitState
	lastLU    *unitState
	grant     *grant
	grants    []*grant // those that are not released
	inline    *task    // what the reader executes now; nil when nothing
	reader    *reader  // who reads
	watch     watch
	over      chan (<-chan struct{}) // gets, once, what is closed when no task can change a volume
	writer    chan struct{}          // taken while a piece is written; nil before the first
	turning   bool                   // the reader waits for it
	overdue   bool                   // the piece that is written has kept the reader
	late      chan struct{}          // says that to the reader; nil like writer
	bare      bool                   // the last LUN went, and the initiator was not told
	after     []func()               // run when the lock is let go

	out   *buffer // answers; nil when there are none
	n     int     // bytes in out
	vec   net.Buffers
	parts [][]byte
	heads []byte

	// Scratch of the reader's goroutine and, under the lock, of answers.
	cmd     pdu.SCSICommand
	dout    pdu.DataOut
	rsp     pdu.SCSIResponse
	din     pdu.DataIn
	r2t     pdu.R2T
	scratch *buffer // nil while the reader waits

	heir        bool   // see Inherit
	serving     bool   // the login is answered: the connection is this session's
	lastCall    uint16 // seconds in which the initiator is to log out; 0: it was not asked to
	negotiation negotiation
	leaving     bool // a Logout was answered
	kept        bool // the session is over, and its nexus waits for Inherit
	finished    bool // its tasks are too
	forsaken    bool // nobody will call that

	revoked atomic.Pointer[string] // why it was closed while it yielded
}

// ending is why a session ended.
type ending struct {
	reason string
	yields bool // to a connection that takes its place: see Yield
}

// grant is one LUN map and the tasks that use it.
type grant struct {
	uses    int // tasks, and one while it is the session's current map
	luns    map[store.LUN]scsi.MapEntry
	release func()
}

// negotiation is an exchange of Text Requests that goes on.
type negotiation struct {
	on     bool
	itt    pdu.TaskTag
	ttt    pdu.TaskTag  // that the next request must carry
	text   []byte       // of a request that has more to come
	answer []byte       // what has still to be sent
	params login.Params // what holds when it ends well
}

// unitState is what a session has done on one LUN.
type unitState struct {
	lun         pdu.LUN // as it was spelled last
	number      store.LUN
	read, wrote bool
	held        int // readers that commands for it have kept
}

// New makes the session of a login that is about to succeed. nexus is nil for a
// discovery session.
func New(c *Conn, nexus *scsi.Nexus, cfg Config) *Session {
	s := &Session{
		Conn: c, cfg: cfg, nexus: nexus, shared: cfg.Shared,
		harmless: make(chan struct{}), done: make(chan struct{}),
		over:   make(chan (<-chan struct{}), 1),
		params: cfg.Result.Params,
		tasks:  make(map[pdu.TaskTag]*task),
		lus:    make(map[store.LUN]*unitState),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.account = s.shared.pool.Open(memory.Session{
		Initiator:  string(cfg.Result.Initiator),
		Resume:     func() { s.wg.Go(s.resume) }, // the session is not over: it waits
		KeepsSince: s.keepsSince,
		Close:      s.Close,
	})
	s.window = min(max(slotMemory/bufferSize(s.params.FirstBurstLength), minWindow), maxWindow)
	return s
}

// SetMap replaces what the initiator sees; entries stay as they are from then
// on. release is called once, when the map
// was replaced or the session has ended and no task uses it any more.
func (s *Session) SetMap(entries map[store.LUN]scsi.MapEntry, release func()) {
	s.mu.Lock()
	defer s.unlock()
	if s.closed() && s.grant == nil {
		s.after = append(s.after, release)
		return
	}
	old := s.grant
	s.grant = &grant{uses: 1, luns: entries, release: release}
	s.grants = append(s.grants, s.grant)
	s.bare = len(entries) == 0 && (s.bare || old != nil && len(old.luns) > 0)
	s.nexus.SetMap(entries)
	s.drop(old)
}

// tellBare answers the next command with REPORTED LUNS DATA HAS CHANGED when the
// last LUN went: no unit is left that could have the condition (SAM-5 §5.14),
// and without it an operating system finds errors where it should look again.
// REPORT LUNS tells as much.
func (s *Session) tellBare(t *task) {
	if t.cmd.CDB[0] == opReportLUNs {
		s.bare = false
	}
	if key, asc, _ := senseCode(t.cmd.Sense); t.plan.Done && key == illegalRequest && asc == noSuchUnit {
		s.nexus.Fail(&t.cmd, senseLUNsChanged)
		s.bare = false
	}
}

// drop gives back one use of a map.
func (s *Session) drop(g *grant) {
	if g == nil {
		return
	}
	if g.uses--; g.uses == 0 {
		k := slices.Index(s.grants, g)
		if k < 0 {
			return // dropAll was here
		}
		s.grants = slices.Delete(s.grants, k, k+1)
		s.after = append(s.after, g.release)
	}
}

// dropAll gives back the maps of a session without tasks. A task that a fault
// of ours has lost holds a use of its map for ever; it does not hold the map.
func (s *Session) dropAll() {
	s.grant = nil
	for _, g := range s.grants {
		s.after = append(s.after, g.release)
	}
	s.grants = nil
}

// unlock lets go of the lock and does what had to wait for that.
func (s *Session) unlock() {
	if len(s.after) == 0 {
		s.mu.Unlock()
		return
	}
	after := s.after
	s.after = nil
	s.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// Counters returns what the session has moved.
func (s *Session) Counters() Counters {
	return Counters{Read: s.read.Load(), Written: s.written.Load(), Activity: s.reads.Load()}
}

// Pending is a command that its volume has not finished.
type Pending struct {
	Number uint64 // of the session's commands; rises with each, from 1
	LUN    store.LUN
	CDB    [16]byte
	LBA    uint64
}

// Oldest returns the oldest command that reads, writes or flushes a volume and that
// the volume has, the zero Pending when there is none; ok is false when it cannot be
// told at this moment. It never waits.
func (s *Session) Oldest() (p Pending, ok bool) {
	if !s.mu.TryLock() {
		return p, false
	}
	defer s.mu.Unlock()
	oldest := s.inline
	look := func(t *task) {
		if (t.writing || t.phase == phaseRunning && t.within.Load()) && (oldest == nil || t.number < oldest.number) {
			oldest = t
		}
	}
	for _, t := range s.tasks {
		look(t)
	}
	for t := range s.gone {
		look(t)
	}
	if oldest == nil || !oldest.cmd.ReadsMedium() && !oldest.cmd.WritesMedium() && !syncs(oldest.cmd.CDB[0]) {
		return p, true
	}
	return Pending{Number: oldest.number, LUN: oldest.lu.number, CDB: oldest.cmd.CDB, LBA: lbaOf(&oldest.cmd.CDB)}, true
}

// Harmless is closed when the session has ended, with its nexus, and none of its
// tasks can change a volume any more. A volume that hangs may still read for them,
// or flush.
func (s *Session) Harmless() <-chan struct{} { return s.harmless }

// Done is closed when the session has ended and its tasks have too.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session from without; Harmless and Done say when it has ended. The first reason that
// is given stays. It does not wait for the lock, which a write to a stuck
// connection may hold. A session that yields is over with its connection, but not
// for whoever takes its place: Revoked tells them.
func (s *Session) Close(reason string) {
	if !s.end(&ending{reason: reason}) && s.why.Load().yields {
		s.revoked.CompareAndSwap(nil, &reason)
	}
}

// end is Close; it says whether the session lived.
func (s *Session) end(why *ending) bool {
	if !s.why.CompareAndSwap(nil, why) {
		return false
	}
	s.cancel()
	_ = s.Conn.Close() // the reader finds it closed
	return true
}

// Ended says whether Close was called; Done says when the session is over.
func (s *Session) Ended() bool { return s.closed() }

func (s *Session) closed() bool { return s.why.Load() != nil }

// Serve works until the connection ends, waits until the session is harmless, and
// returns why it ended in one sentence. res is the login's final result. Finish must
// follow.
func (s *Session) Serve(res login.Result) string {
	defer close(s.harmless)
	s.mu.Lock()
	s.statSN, s.expCmdSN = res.StatSN, res.ExpCmdSN
	if s.told.Less(res.ExpCmdSN) || !s.heir { // it never falls, whichever connection told of it
		s.told = res.ExpCmdSN
	}
	if s.serving = true; s.lastCall > 0 && !s.closed() {
		s.callLast()
	}
	first := &reader{}
	s.reader = first
	s.mu.Unlock()
	s.beforeRead = s.idle
	s.serve(first)
	<-<-s.over // whoever read last may be another reader
	s.mu.Lock()
	why := s.why.Load()
	if s.kept = why.yields && !s.forsaken; !s.kept {
		s.letNexusGo()
	}
	s.unlock()
	return why.reason
}

// Working says whether Finish has tasks to wait for.
func (s *Session) Working() bool {
	s.mu.Lock()
	defer s.unlock()
	return len(s.gone) > 0
}

// Finish waits, after Serve, for tasks that a volume which hangs still works on.
// They have their map and their memory until then.
func (s *Session) Finish() {
	defer close(s.done)
	s.wg.Wait()
	s.account.Close()
	s.mu.Lock()
	defer s.unlock()
	s.shared.put(s.out)
	s.shared.put(s.scratch)
	s.out, s.scratch = nil, nil
	if s.finished = true; !s.kept {
		s.dropAll()
	}
}

// letNexusGo ends the nexus and the session's own use of its map.
func (s *Session) letNexusGo() {
	if s.nexus != nil {
		s.after = append(s.after, s.nexus.Close)
	}
	s.letMapGo()
}

func (s *Session) letMapGo() {
	s.drop(s.grant)
	if s.grant = nil; s.finished {
		s.dropAll()
	}
}

// StoppedAnswering is the reason of a session whose initiator is gone without a word.
const StoppedAnswering = "the initiator stopped answering"

// reasonOf says in plain words why a connection ended.
func reasonOf(err error) string {
	var p *pdu.ProtocolError
	switch {
	case errors.Is(err, io.EOF):
		return "the initiator closed the connection"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the initiator reset the connection"
	case errors.Is(err, syscall.ETIMEDOUT):
		return StoppedAnswering
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection ended in the middle of a PDU"
	case errors.Is(err, errHeaderDigest):
		return errHeaderDigest.Error()
	case errors.As(err, &p):
		return "the initiator broke the protocol: " + p.Text
	case errors.Is(err, errShort):
		return err.Error()
	case err == nil:
		return "the session ended"
	}
	return "the connection failed: " + err.Error()
}

// loop reads PDUs and acts on them.
func (s *Session) loop() error {
	for !s.leaving && !s.closed() {
		if len(s.held) > 0 || s.aside.in != nil {
			s.takeUp()
		}
		if err := s.header(maxAHS, s.params.TargetMaxRecvDataSegmentLength); err != nil {
			return err
		}
		if later, err := s.setAside(); later && err == nil {
			continue
		} else if err != nil {
			return err
		}
		if err := s.dispatch(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) dispatch() error {
	switch op := s.h.Opcode(); op {
	case pdu.OpSCSICommand:
		if s.nexus == nil {
			return s.reject(pdu.ReasonProtocolError)
		}
		return s.command()
	case pdu.OpDataOut:
		if s.nexus == nil {
			return s.reject(pdu.ReasonProtocolError)
		}
		return s.dataOut()
	case pdu.OpTaskRequest:
		if s.nexus == nil {
			return s.reject(pdu.ReasonProtocolError)
		}
		return s.taskRequest()
	case pdu.OpNOPOut:
		return s.nopOut()
	case pdu.OpTextRequest:
		return s.textRequest()
	case pdu.OpLogoutRequest:
		return s.logout()
	case pdu.OpSNACK:
		return s.reject(pdu.ReasonSNACKReject)
	case pdu.OpLoginRequest:
		if err := s.reject(pdu.ReasonProtocolError); err != nil {
			return err
		}
		return &pdu.ProtocolError{Reason: pdu.ReasonProtocolError, Text: "it sent a Login Request in a session that is logged in"}
	default:
		return s.reject(pdu.ReasonNotSupported)
	}
}

// accept takes a request into the order of commands (RFC 7143 §4.2.2.1). A
// request outside the window, or one that came before, is dropped without a
// word, as the standard has it; one that came early was set aside.
func (s *Session) accept(immediate bool, sn pdu.Serial) bool {
	if immediate {
		return true
	}
	if sn != s.expCmdSN || s.slots >= s.window {
		return false
	}
	s.expCmdSN = s.expCmdSN.Add(1)
	return true
}

// sn returns the serial numbers of an answer. MaxCmdSN never falls: a command
// moves ExpCmdSN up as it takes its slot.
func (s *Session) sn() pdu.SN {
	s.told = s.expCmdSN.Add(s.window - s.slots - 1)
	return pdu.SN{StatSN: s.statSN, ExpCmdSN: s.expCmdSN, MaxCmdSN: s.told}
}

// shut says whether the initiator takes the window of a live session for shut,
// and it is not.
func (s *Session) shut() bool {
	return !s.closed() && s.slots < s.window && s.told.Less(s.expCmdSN)
}

// reopen tells of a window that was shut, as far as the initiator knows, and in
// which a task that ended without an answer has made room (RFC 7143 §11.4.10):
// the initiator may send nothing that would draw an answer.
func (s *Session) reopen() {
	if !s.shut() {
		return
	}
	// An error has ended the session.
	_ = s.put(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: pdu.ReservedTag, SN: s.sn()}, nil)
}

// nextSN is sn for an answer that uses up a StatSN.
func (s *Session) nextSN() pdu.SN {
	sn := s.sn()
	s.statSN = s.statSN.Add(1)
	return sn
}

// Abandon ends a session that was never served.
func (s *Session) Abandon() {
	s.Close("the login was refused")
	s.mu.Lock()
	s.finished = true
	s.letNexusGo()
	s.unlock()
	close(s.harmless)
	close(s.done)
}
