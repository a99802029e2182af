// Package attempt folds the events of one try to boot into a store.Attempt: its
// seven stages, each with a state, times and one line of fact.
//
// The fold is pure. It has no clock: time is what the events say, and Expire is
// told what time it is. The same events always give the same attempt, so an
// attempt can be rebuilt from the journal at any time.
package attempt

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// State is an attempt and what its fold must remember to go on.
type State struct {
	store.Attempt

	lastDiscover time.Time // of firmware or iPXE
	lastAck      time.Time
	ackIPXE      bool          // the last ACK went to an iPXE
	ipxeAsked    bool          // an iPXE sent a DISCOVER
	ipxeLast     bool          // the last DISCOVER was an iPXE's
	lastLoader   time.Time     // the last loader event
	lastScript   time.Time     // the last script that was given
	waiting      bool          // the last script was the unknown machine's
	san          bool          // the last script boots from the SAN
	asks         bool          // the last script waits for somebody at the machine
	pause        time.Duration // the last script waits so long by its own word
	textKernel   bool          // it was handed a text to start
	relayed      bool          // its last address came through a relay
	restarted    bool          // the appliance was started again since the last sign of life
	lastGood     time.Time     // the last event that was progress; silence counts from here
	silentSince  time.Time     // set when silence made it fail
	revived      bool          // a late event turned a failure back
	trouble      bool          // an event spoke of something wrong
	osAsked      time.Time     // the operating system sent a DISCOVER
	osLogin      bool          // the operating system's own initiator logged in
	ioStart      time.Time     // of the present run of steady I/O
	ioLast       time.Time
	again        again
	counted      bool  // a sample came since it failed
	moved        int64 // what it had moved by then
	sessions     map[string]session
	holding      map[string]bool // the system's sessions
	wokenAt      time.Time       // it was switched on then, and nothing was heard of it
	awaited      time.Duration   // for so long
	volume       string          // "LUN 2, volume debian"
	trial        trial           // of the loader that it was given
	next         string          // what it was told to fetch, where another server gives the address
}

// LateAsk is the number of seconds that a machine's first DISCOVER may say it
// has been asking for: above, earlier ones were lost on the way.
const LateAsk = 20

type session struct {
	ipxe          bool
	read, written int64
}

// maxSessions bounds the sessions that one attempt counts; a boot has three or
// four.
const maxSessions = 64

// New begins an attempt.
func New(id store.AttemptID, key string, at time.Time) *State {
	s := &State{sessions: map[string]session{}, holding: map[string]bool{}}
	s.Attempt = store.Attempt{ID: id, Key: key, Started: at, Updated: at, Outcome: store.OutcomeRunning, Stage: store.StageAsk}
	for _, name := range store.Stages() {
		s.Stages = append(s.Stages, store.Stage{Name: name, State: store.StageWaiting})
	}
	s.lastGood = at
	return s
}

// IPXEISID reports whether an ISID, in hexadecimal, is one that iPXE makes: type
// "enterprise number", 10019 (Fen Systems), then a random qualifier.
func IPXEISID(isid string) bool {
	const prefix = "40002723"
	n := 0
	for _, c := range []byte(strings.TrimPrefix(isid, "0x")) {
		switch {
		case c == ':' || c == ' ' || c == '-':
		case c != prefix[n]:
			return false
		default:
			if n++; n == len(prefix) {
				return true
			}
		}
	}
	return false
}

// Begins reports whether e starts another attempt than s, which may be nil. A
// machine that asks again within a stage has not begun again: firmware repeats
// a DISCOVER after 4, 8, 16 and 32 seconds.
func Begins(s *State, e store.Event) bool {
	if s.woken() && e.Kind != store.EventMachinePower {
		return e.At.Sub(s.wokenAt) > wokenFor && Begins(nil, e)
	}
	switch e.Kind {
	case store.EventDHCPDiscover:
		d := e.Detail
		switch {
		case !d.PXE && !d.IPXE:
			return false // an operating system; it proves that a boot went well
		case s == nil || s.Outcome == store.OutcomeUp:
			return true
		case d.IPXE:
			return s.ipxeBeginsAgain(e.At)
		}
		return !s.onlyAsking() || e.At.Sub(s.lastDiscover) > 90*time.Second
	case store.EventTFTPProbe, store.EventTFTPStart, store.EventTFTPMissing, store.EventLoaderSent, store.EventLoaderMissing, store.EventDHCPNoLoader:
		// Without a DISCOVER before it, another DHCP server sent it here.
		return s == nil || s.Outcome == store.OutcomeUp || s.beyondScript()
	case store.EventScriptSent, store.EventScriptWaiting, store.EventScriptConflict, store.EventScriptWithheld, store.EventScriptFailed:
		return !OpenForScript(s)
	case store.EventMachinePower:
		return wakes(s, e)
	case store.EventISCSILogin, store.EventISCSIRefused:
		// An iPXE whose script is not ours. Once an operating system runs,
		// a login by iPXE can only be another boot.
		return IPXEISID(e.Detail.ISID) && (s == nil || s.Outcome == store.OutcomeUp && s.osLogin ||
			s.Outcome != store.OutcomeRunning && e.At.Sub(s.Updated) > 5*time.Minute)
	}
	return false
}

// OpenForScript reports whether a script that is asked for now belongs to s: it
// has not gone beyond its script.
func OpenForScript(s *State) bool {
	return s != nil && s.Outcome != store.OutcomeUp && s.Outcome != store.OutcomeUpUnconfirmed &&
		!s.beyondScript() && s.stage(store.StageUp).State == store.StageWaiting
}

// beyondScript reports whether the SAN was tried.
func (s *State) beyondScript() bool {
	st := s.stage(store.StageLogin).State
	return st != store.StageWaiting && st != store.StageSkipped
}

// onlyAsking reports whether nobody has given the machine an address yet.
func (s *State) onlyAsking() bool {
	return s.lastAck.IsZero() && s.stage(store.StageLoader).State == store.StageWaiting && s.lastScript.IsZero()
}

// ipxeBeginsAgain tells an iPXE that was started by our loader, or that asks
// again, from one that is the machine's firmware and starts over.
func (s *State) ipxeBeginsAgain(at time.Time) bool {
	switch {
	case s.lastLoader.After(s.lastScript) && !s.beyondScript():
		// A loader came before it, be it the first or one that the script
		// chained to. Hours later it is not the same boot any more.
		return at.Sub(s.lastLoader) > 10*time.Minute
	case !s.lastScript.IsZero() || s.beyondScript():
		return true
	case s.ackIPXE:
		return at.Sub(s.lastAck) > 20*time.Second
	}
	return at.Sub(s.lastDiscover) > 90*time.Second
}

// Fold adds an event. It reports whether more changed than a count of bytes.
func (s *State) Fold(e store.Event) bool {
	if e.Seq != 0 && e.Seq <= s.LastSeq {
		return false
	}
	if s.FirstSeq == 0 {
		s.FirstSeq = e.Seq
		if e.At.Before(s.Started) {
			s.Started = e.At
		}
	}
	s.LastSeq = max(s.LastSeq, e.Seq)
	if e.At.After(s.Updated) {
		s.Updated = e.At
	}
	if e.Machine != 0 {
		s.Machine = e.Machine
	}
	if !e.MAC.IsZero() && (s.MAC.IsZero() || e.Kind == store.EventDHCPDiscover && (e.Detail.PXE || e.Detail.IPXE)) {
		s.MAC = e.MAC
	}
	s.trial.follow(e)
	before := s.summary()
	if s.woken() {
		s.awoke(e)
	}
	switch {
	case e.Kind == store.EventMachinePower:
		s.wake(e)
	case s.Outcome == store.OutcomeUp:
		s.foldAfterUp(e)
	case strings.HasPrefix(string(e.Kind), "dhcp."):
		s.foldDHCP(e)
	case strings.HasPrefix(string(e.Kind), "iscsi.") || e.Kind == store.EventVolumeFailed:
		s.foldISCSI(e)
	default:
		s.foldFetch(e)
	}
	s.follow(e)
	s.sayAwaited()
	return before != s.summary() || !e.Kind.Sample()
}

// Trouble reports whether something spoke of a failure, or silence did: a boot
// without trouble needs no diagnosis.
func (s *State) Trouble() bool {
	return s.trouble || s.waiting || s.Outcome == store.OutcomeFailed || s.Outcome == store.OutcomeNotEnrolled || s.Outcome == store.OutcomeUpUnconfirmed
}

// Read returns the bytes that the machine has read, and written.
func (s *State) Read() (read, written int64) {
	for _, one := range s.sessions {
		read += one.read
		written += one.written
	}
	return read, written
}

// StartedOver begins the line of a stage that the machine left by starting over.
const StartedOver = "It started over"

// Ended closes an attempt that another one follows: what it was doing was never
// finished.
func (s *State) Ended(at time.Time) {
	if s.Outcome != store.OutcomeRunning {
		return
	}
	name := s.current()
	if s.atScreen() {
		name = store.StageScript
	}
	if name == store.StageScript && s.waiting {
		s.left(at, StartedOver+" while it waited to be enrolled")
		return
	}
	s.fail(name, at, StartedOver+" before this was done")
}

// Expire applies silence: when nothing came for longer than the stage allows,
// the attempt has failed there, or its end cannot be seen. It reports a change.
func (s *State) Expire(now time.Time, u Usual) bool {
	at, ok := s.Deadline(u)
	if !ok || now.Before(at) {
		return false
	}
	if s.Outcome == store.OutcomeUp {
		s.lose()
		return true
	}
	switch name := s.current(); {
	case s.atScreen():
		s.fail(store.StageScript, at, waitsLine+": nobody came in "+span(at.Sub(s.lastGood)))
		s.silentSince = s.lastGood
	case name == store.StageUp && (!s.sanBoot() || StartsInstaller(s.Script)) && !s.textKernel:
		s.pass(name, at)
		st := s.stage(name)
		st.State, st.At, st.Ended = store.StageUnsure, s.lastGood, at
		st.Detail = "No sign either way: what it starts now does not come from here"
		if s.sanBoot() {
			st.Detail = "No sign either way: its installer has not used the volume, and may wait for somebody"
		}
		s.Outcome, s.Stage = store.OutcomeUpUnconfirmed, name
	case name == store.StageScript && s.waiting:
		s.left(at, "It waited to be enrolled; then nothing for "+span(at.Sub(s.lastGood)))
		s.silentSince = s.lastGood
		s.trial.hold(boot.Silent, at)
	default:
		quiet := "Nothing heard for " + span(at.Sub(s.lastGood))
		if st := s.stage(name); st.Detail != "" {
			quiet = st.Detail + "; then nothing for " + span(at.Sub(s.lastGood))
		}
		if s.restarted {
			quiet = AfterRestart + " for " + span(at.Sub(s.lastGood))
		}
		s.fail(name, at, quiet)
		s.silentSince = s.lastGood
		s.trial.hold(boot.Silent, at)
	}
	if now.After(s.Updated) {
		s.Updated = now
	}
	return true
}

// AfterRestart begins the line of a stage in which nothing was heard of a machine
// any more once the appliance was started again.
const AfterRestart = "Nothing heard since the appliance was started again,"

// waitsLine is the line of a boot whose script waits for somebody.
const waitsLine = "It waits for somebody at its screen"

// atScreen reports whether the script that was given last waits for somebody, and
// nothing shows that it went on.
func (s *State) atScreen() bool {
	return s.asks && !s.waiting && !s.lastScript.IsZero() && !s.beyondScript() && s.stage(store.StageUp).State == store.StageWaiting
}

// Silent returns since when nothing was heard, when silence made s fail.
func (s *State) Silent() (since time.Time, ok bool) { return s.silentSince, !s.silentSince.IsZero() }

// summary is what a page shows apart from byte counts.
func (s *State) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", s.Outcome, s.Stage)
	for i := range s.Stages {
		b.WriteString(" " + string(s.Stages[i].State))
	}
	return b.String()
}

func (s *State) stage(name store.StageName) *store.Stage {
	for i := range s.Stages {
		if s.Stages[i].Name == name {
			return &s.Stages[i]
		}
	}
	return &store.Stage{}
}

func index(name store.StageName) int {
	for i, n := range store.Stages() {
		if n == name {
			return i
		}
	}
	return 0
}

// sanBoot reports whether this boot goes on to the SAN, as far as is known: a
// login proves it, and so does the script.
func (s *State) sanBoot() bool {
	return s.san || s.lastScript.IsZero() || s.stage(store.StageLogin).State == store.StageDone
}

// current names the stage that the attempt waits for.
func (s *State) current() store.StageName {
	for i := len(s.Stages) - 1; i >= 0; i-- {
		switch st := s.Stages[i]; st.State {
		case store.StageRunning, store.StageFailed:
			return st.Name
		case store.StageDone, store.StageSlow, store.StageSkipped, store.StageUnsure:
			switch {
			case st.Name == store.StageAddress && s.ackIPXE:
				return store.StageScript // it needs no loader
			case i+1 < len(s.Stages):
				return s.Stages[i+1].Name
			}
			return st.Name
		}
	}
	return store.StageAsk
}

// pass marks the stages before name, which name's evidence proves passed.
func (s *State) pass(name store.StageName, at time.Time) {
	for i := range s.Stages[:index(name)] {
		st := &s.Stages[i]
		switch st.State {
		case store.StageFailed: // by another way than the one that was seen to fail
			st.State, st.Detail = store.StageUnsure, st.Detail+", and yet it came further"
		case store.StageRunning:
			st.State = store.StageDone
			if st.Ended.IsZero() {
				st.Ended = at
			}
		case store.StageWaiting:
			st.State, st.Detail = store.StageUnsure, s.unseen(st.Name)
			if st.Name == store.StageLoader || st.Name == store.StageLogin || st.Name == store.StageRead {
				st.State = store.StageSkipped
			}
		}
	}
}

// unseen says why a stage was passed without a sign of it.
func (s *State) unseen(name store.StageName) string {
	switch name {
	case store.StageAsk, store.StageAddress:
		return "Not seen here: another DHCP server answers, or the address is fixed"
	case store.StageLoader:
		if s.ipxeAsked {
			return "Not needed: its firmware is an iPXE"
		}
		return "Not needed: it brought its own iPXE"
	case store.StageScript:
		return "Not seen here: it did not ask for a script"
	case store.StageLogin, store.StageRead:
		return "Not needed: it does not boot from the SAN"
	}
	return ""
}

// progress notes good news at or beyond the stage that failed: the failure is
// turned back.
func (s *State) progress(name store.StageName, at time.Time) {
	if (s.Outcome == store.OutcomeFailed || s.Outcome == store.OutcomeNotEnrolled) && index(name) >= index(s.Stage) {
		s.Outcome = store.OutcomeRunning
		s.revived = true
	}
	if index(name) >= index(s.Stage) {
		s.Stage = name
	}
	if at.After(s.lastGood) {
		s.lastGood, s.restarted = at, false
	}
}

// late says how long a stage was silent before it went on after all.
func (s *State) late(at time.Time) string {
	if s.silentSince.IsZero() {
		return ""
	}
	quiet := at.Sub(s.silentSince)
	s.silentSince = time.Time{}
	return ", after " + span(quiet) + " of silence"
}

// run marks a stage as under way. A stage that is done stays done.
func (s *State) run(name store.StageName, at time.Time, detail string) {
	st := s.stage(name)
	if st.State == store.StageDone || st.State == store.StageSlow {
		s.progress(name, at)
		return
	}
	s.pass(name, at)
	if st.At.IsZero() {
		st.At = at
	}
	st.State, st.Ended = store.StageRunning, time.Time{}
	st.Detail = detail
	s.progress(name, at)
	st.Detail += s.late(at)
}

// done marks a stage as passed.
func (s *State) done(name store.StageName, at time.Time, detail string) {
	s.pass(name, at)
	st := s.stage(name)
	if st.At.IsZero() {
		st.At = at
	}
	if st.State != store.StageDone || st.Ended.IsZero() {
		st.Ended = at
	}
	st.State = store.StageDone
	st.Detail = detail
	s.progress(name, at)
	st.Detail += s.late(at)
}

// fail marks a stage as failed, and the attempt with it.
func (s *State) fail(name store.StageName, at time.Time, detail string) {
	s.pass(name, at)
	for i := range s.Stages[index(name)+1:] {
		// What came further before has to come there again.
		if later := &s.Stages[index(name)+1+i]; later.State == store.StageRunning || later.State == store.StageFailed {
			*later = store.Stage{Name: later.Name, State: store.StageWaiting}
		}
	}
	st := s.stage(name)
	if st.At.IsZero() {
		st.At = at
	}
	st.State, st.Ended, st.Detail = store.StageFailed, at, detail
	s.Outcome, s.Stage = store.OutcomeFailed, name
	s.trouble, s.silentSince, s.counted = true, time.Time{}, false
}

// left ends the attempt of a machine that is not enrolled: there was nothing to boot,
// and so nothing failed.
func (s *State) left(at time.Time, detail string) {
	s.fail(store.StageScript, at, detail)
	s.Outcome = store.OutcomeNotEnrolled
}

func (s *State) up(at time.Time, detail string) {
	s.done(store.StageUp, at, detail)
	s.Outcome = store.OutcomeUp
}

// foldAfterUp keeps what still matters once the operating system runs.
func (s *State) foldAfterUp(e store.Event) {
	switch e.Kind {
	case store.EventISCSIIO, store.EventISCSIClosed:
		s.count(e)
	case store.EventISCSIIOFailed, store.EventVolumeFailed, store.EventISCSINoLUN, store.EventISCSIRefused, store.EventISCSIStuck:
		s.trouble = true
	}
}

func platform(d store.Detail) string {
	switch {
	case d.Firmware == "" && d.Arch == "":
		return "Unknown"
	case d.Firmware == "BIOS" || d.Arch == "":
		return d.Firmware
	}
	return strings.TrimSpace(d.Firmware + " " + d.Arch)
}

func addrString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// base is the last part of a path: DHCP names "<mac>/<loader>".
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
