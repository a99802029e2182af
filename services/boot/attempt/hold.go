package attempt

import (
	"strings"
	"time"

	"lunboot/store"
)

// limitAway is how long the session of a system that runs from its volume may be
// gone before nobody counts on it any more. Linux asks again for good, but fails
// after 120 s what it held back (open-iscsi, node.session.timeo.replacement_timeout);
// Windows does after 60 s (Microsoft's initiator, MaxRequestHoldTime). Five minutes
// are more than either, and than a switch takes to start.
const limitAway = 5 * time.Minute

// awayLine begins what the stage up says of a system that did not come back.
const awayLine = "; it is off, or lost its volume: its session ended at "

// follow keeps whether the system that came up has a session. Nothing tells a
// machine that was switched off from one whose connection was cut.
func (s *State) follow(e store.Event) {
	st := s.stage(store.StageUp)
	switch {
	case e.Kind != store.EventISCSILogin && e.Kind != store.EventISCSIClosed || s.isIPXE(e):
	case e.Kind == store.EventISCSILogin:
		// A session that only looks which targets there are has no LUNs.
		if len(e.Detail.Mapped) > 0 && len(s.holding) < maxSessions {
			s.holding[sessionKey(e)] = true
			if st.Hold != "" {
				st.Hold, st.HoldAt = store.HoldHeld, e.At
				st.Detail, _, _ = strings.Cut(st.Detail, awayLine)
			}
		}
	default:
		delete(s.holding, sessionKey(e))
		if len(s.holding) == 0 && st.Hold == store.HoldHeld {
			st.Hold, st.HoldAt = store.HoldAway, e.At
		}
	}
	if s.Outcome == store.OutcomeUp && st.Hold == "" && len(s.holding) > 0 && s.stage(store.StageLogin).State != store.StageSkipped {
		st.Hold, st.HoldAt = store.HoldHeld, e.At
	}
}

// backUntil is when a system that is away is no longer awaited; ok is false when
// none is.
func (s *State) backUntil() (at time.Time, ok bool) {
	st := s.stage(store.StageUp)
	return st.HoldAt.Add(limitAway), s.Outcome == store.OutcomeUp && st.Hold == store.HoldAway
}

// lose says that a system did not come back.
func (s *State) lose() {
	st := s.stage(store.StageUp)
	st.Hold = store.HoldLost
	st.Detail += awayLine + st.HoldAt.Format("2006-01-02 15:04 MST") + ", and it did not come back"
}
