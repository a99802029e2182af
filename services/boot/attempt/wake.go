package attempt

import (
	"time"

	"lunboot/store"
)

// How long a machine that was switched on may be silent. Firmware of a large server
// tests its memory for minutes; what comes after wokenFor is another boot.
const (
	limitWoken = 5 * time.Minute
	wokenFor   = 30 * time.Minute
)

// wakes reports whether an event says that the machine is being started, and was
// off as far as is known: it is not booting, and runs from no volume here.
func wakes(s *State, e store.Event) bool {
	if e.Kind != store.EventMachinePower || e.Detail.Cause == store.CauseNotDone {
		return false
	}
	switch store.PowerAct(e.Detail.Step) {
	case store.PowerOn: // its BMC says that it was off
		return s == nil || s.Outcome != store.OutcomeRunning
	case store.PowerWake: // nobody says that; who runs does not heed it
		return s == nil || s.Outcome == store.OutcomeFailed || s.Outcome == store.OutcomeUp && s.stage(store.StageUp).Hold == store.HoldLost
	}
	return false
}

// woken reports whether the machine was switched on and nothing was heard since.
func (s *State) woken() bool { return s != nil && !s.wokenAt.IsZero() }

// wake begins a boot with the order to the machine, of which it knows nothing yet.
func (s *State) wake(e store.Event) {
	if !wakes(nil, e) || !s.woken() && s.stage(store.StageAsk).State != store.StageWaiting {
		return
	}
	s.wokenAt = e.At
	line := "Switched on by its BMC; nothing was heard of it yet"
	if store.PowerAct(e.Detail.Step) == store.PowerWake {
		line = "Sent a magic packet; nothing was heard of it yet"
	}
	s.run(store.StageAsk, e.At, line)
}

// awoke begins the boot anew with the machine's first word: what came before was
// its firmware's time, which says nothing of the network.
func (s *State) awoke(e store.Event) {
	switch e.Kind {
	case store.EventMachinePower, store.EventMachineChanged, store.EventVolumeFailed, store.EventRASent:
		return
	}
	after := e.At.Sub(s.wokenAt)
	s.wokenAt = time.Time{}
	if after > 0 {
		s.awaited = after
	}
	s.Started, s.Outcome, s.Stage, s.silentSince = e.At, store.OutcomeRunning, store.StageAsk, time.Time{}
	s.trouble = false
	*s.stage(store.StageAsk) = store.Stage{Name: store.StageAsk, State: store.StageWaiting}
}

// sayAwaited says behind the first line of a boot how long the machine took to say
// something.
func (s *State) sayAwaited() {
	if st := s.stage(store.StageAsk); s.awaited > 0 && st.State == store.StageDone {
		st.Detail += ", " + span(s.awaited) + " after it was switched on"
		s.awaited = 0
	}
}
