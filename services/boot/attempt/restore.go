package attempt

import (
	"time"

	"lunboot/store"
)

// Restore goes on with an attempt of which only the outcome is kept, not its
// events: enough to tell whether the next event belongs to it.
func Restore(a store.Attempt) *State {
	s := New(a.ID, a.Key, a.Started)
	blank := s.Stages
	s.Attempt = a
	if len(a.Stages) != len(blank) {
		s.Stages = blank
	} else {
		s.Stages = append([]store.Stage(nil), a.Stages...)
	}
	s.lastGood = a.Updated
	if st := s.stage(store.StageAddress); st.State == store.StageDone {
		s.lastAck = st.Ended
	}
	s.lastDiscover = s.stage(store.StageAsk).Ended
	s.lastLoader = s.stage(store.StageLoader).Ended
	if st := s.stage(store.StageScript); st.State != store.StageWaiting && st.State != store.StageRunning {
		s.lastScript = st.Ended
	}
	s.san = s.stage(store.StageLogin).State != store.StageSkipped
	_, _, s.asks = AsksSomebody(a.Script)
	s.pause = pause(a.Script)
	s.osLogin = a.Outcome == store.OutcomeUp
	s.trouble = len(a.Diagnoses) > 0
	return s
}

// Resume starts the wait anew: nobody listened until now, so the silence before
// says nothing.
func (s *State) Resume(now time.Time) {
	s.trial.blind, s.trial.news = true, nil
	if s.Outcome == store.OutcomeRunning && now.After(s.lastGood) {
		s.lastGood, s.restarted = now, true
	}
	// No session outlives the appliance: who runs logs in again.
	if st := s.stage(store.StageUp); len(s.holding) == 0 && (st.Hold == store.HoldHeld || st.Hold == store.HoldAway) {
		st.Hold, st.HoldAt = store.HoldAway, now
	}
}

// Snapshot copies the attempt, so that the fold may go on.
func (s *State) Snapshot() store.Attempt {
	a := s.Attempt
	a.Stages = append([]store.Stage(nil), s.Stages...)
	a.Diagnoses = append([]store.Diagnosis{}, s.Diagnoses...)
	return a
}
