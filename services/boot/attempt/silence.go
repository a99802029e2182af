package attempt

import (
	"slices"
	"time"

	"lunboot/store"
)

// How long silence may last before it is a failure. Each counts from the last
// progress; each is longer for a machine that usually takes longer.
const (
	limitOffer   = 30 * time.Second // DISCOVER to ACK: firmware pauses up to 16 s
	limitLoader  = 15 * time.Second // ACK to the first request for the loader
	limitStalled = 15 * time.Second // no progress of the loader
	limitStart   = 45 * time.Second // the loader was sent; iPXE has not asked for an address
	limitScript  = 20 * time.Second // iPXE has its address; no request for the script
	// waitsForRouter is how long an iPXE waits for an IPv6 router that there is not.
	waitsForRouter = 16 * time.Second
	limitPoll      = 60 * time.Second  // the unknown machine's script asks again every few seconds
	limitLogin     = 30 * time.Second  // the script was given; no login
	limitScreen    = 3 * time.Minute   // its script waits for somebody at the machine
	limitRead      = 20 * time.Second  // login to the first READ
	limitUp        = 180 * time.Second // the last READ to a sign of the operating system
)

// Usual is how long a machine takes, from its boots that went well. The zero
// Usual knows nothing.
type Usual struct {
	Total time.Duration // from asking to up
	gap   map[store.StageName]time.Duration
	took  map[store.StageName]time.Duration
}

// UsualOf learns from earlier attempts of one machine.
func UsualOf(history []store.Attempt) Usual {
	var totals []time.Duration
	gaps, took := map[store.StageName][]time.Duration{}, map[store.StageName][]time.Duration{}
	for _, a := range history {
		if a.Outcome != store.OutcomeUp {
			continue
		}
		var last time.Time
		for _, st := range a.Stages {
			if st.State != store.StageDone && st.State != store.StageSlow {
				continue
			}
			if !last.IsZero() && !st.At.Before(last) {
				gaps[st.Name] = append(gaps[st.Name], st.At.Sub(last))
			}
			took[st.Name] = append(took[st.Name], st.Ended.Sub(st.At))
			last = st.Ended
		}
		if !last.IsZero() {
			totals = append(totals, last.Sub(a.Started))
		}
	}
	u := Usual{Total: median(totals), gap: map[store.StageName]time.Duration{}, took: map[store.StageName]time.Duration{}}
	for name, all := range gaps {
		u.gap[name] = median(all)
	}
	for name, all := range took {
		u.took[name] = median(all)
	}
	return u
}

// Wait is how long the machine usually takes from what came before a stage to
// that stage; 0 when that is not known.
func (u Usual) Wait(name store.StageName) time.Duration { return u.gap[name] }

// Took is how long a stage usually takes; 0 when that is not known.
func (u Usual) Took(name store.StageName) time.Duration { return u.took[name] }

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// limit is a stage's limit, stretched to three times what is usual.
func (u Usual) limit(name store.StageName, least time.Duration) time.Duration {
	return max(least, 3*u.gap[name])
}

// Deadline returns when silence becomes a failure; ok is false when nothing is
// awaited.
func (s *State) Deadline(u Usual) (at time.Time, ok bool) {
	if at, ok := s.backUntil(); ok {
		return at, true
	}
	if s.Outcome != store.OutcomeRunning {
		return time.Time{}, false
	}
	return s.lastGood.Add(s.patience(u)), true
}

// patience is how long the attempt may be silent where it is.
func (s *State) patience(u Usual) time.Duration {
	passed := func(name store.StageName) bool {
		st := s.stage(name).State
		return st == store.StageDone || st == store.StageSlow
	}
	running := func(name store.StageName) bool { return s.stage(name).State == store.StageRunning }
	switch {
	case s.woken():
		return limitWoken
	case s.textKernel:
		return limitStart
	case passed(store.StageRead), running(store.StageUp):
		return u.limit(store.StageUp, limitUp)
	case passed(store.StageLogin):
		return u.limit(store.StageRead, limitRead)
	case s.atScreen():
		return limitScreen + s.pause
	case passed(store.StageScript) && !s.sanBoot():
		return u.limit(store.StageUp, limitUp) + s.pause
	case passed(store.StageScript):
		return u.limit(store.StageLogin, limitLogin) + s.pause
	case s.waiting:
		return limitPoll
	case running(store.StageScript):
		return u.limit(store.StageScript, limitScript)
	case passed(store.StageLoader):
		return max(limitStart, 3*u.gap[store.StageScript])
	case running(store.StageLoader):
		return limitStalled
	case passed(store.StageAddress) && s.ackIPXE && s.relayed:
		// Nobody tells it there that no IPv6 router is to be waited for.
		return u.limit(store.StageScript, limitScript) + waitsForRouter
	case passed(store.StageAddress) && s.ackIPXE:
		return u.limit(store.StageScript, limitScript)
	case passed(store.StageAddress):
		return u.limit(store.StageLoader, limitLoader)
	}
	return u.limit(store.StageAddress, limitOffer)
}

// MarkSlow marks stages that took far longer than this machine usually takes:
// three times its median, and two seconds more.
func (s *State) MarkSlow(u Usual) {
	for i := range s.Stages {
		st := &s.Stages[i]
		usual := u.took[st.Name]
		if st.State == store.StageDone && usual > 0 && st.Ended.Sub(st.At) > 3*usual && st.Ended.Sub(st.At) > usual+2*time.Second {
			st.State = store.StageSlow
		}
	}
}
