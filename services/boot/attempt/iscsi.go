package attempt

import (
	"fmt"
	"strings"
	"time"

	"lunboot/store"
)

// Steady I/O: runs of samples with no longer gap than ioGap; after steadyIO it
// counts as a sign of life, though not as proof.
const (
	ioGap    = 20 * time.Second
	steadyIO = 3 * time.Minute
)

// foldISCSI reads the login, read and up stages. One machine logs in several
// times in one boot: iPXE once or twice (BIOS resets the disk when GRUB starts)
// and then the operating system, which alone proves that it took over.
func (s *State) foldISCSI(e store.Event) {
	d := e.Detail
	ipxe := s.isIPXE(e)
	read := s.stage(store.StageRead)
	switch e.Kind {
	case store.EventISCSILogin:
		stuck := ipxe && s.stuckAt(e)
		s.session(e, ipxe)
		if stuck {
			s.fail(store.StageRead, e.At, fmt.Sprintf("Logged in %d times, and each time got no further than its first read", s.again.logins))
			return
		}
		if ipxe || s.stage(store.StageLogin).State != store.StageDone {
			s.done(store.StageLogin, e.At, loginLine(d))
			return
		}
		s.osLogin = true
		s.run(store.StageUp, e.At, "Its operating system logged in")
	case store.EventISCSIRefused:
		why := "Refused: " + orElse(d.Reason, "login status "+d.Status)
		if d.Status == "" {
			why = "Broke off its login"
		}
		if !ipxe && s.stage(store.StageLogin).State == store.StageDone {
			s.fail(store.StageUp, e.At, "Its operating system was refused: "+orElse(d.Reason, "login status "+d.Status))
			return
		}
		s.fail(store.StageLogin, e.At, why)
	case store.EventISCSINoLUN:
		// An operating system asks every target for LUN 0 and means no harm.
		if !ipxe {
			return
		}
		s.fail(store.StageRead, e.At, noLUNLine(d))
	case store.EventISCSIFirstRead:
		s.volume = volumeLine(d)
		s.again.read = true
		if ipxe && s.again.logins >= stuckLogins {
			return // it did so before, and got no further
		}
		s.ioStart, s.ioLast = e.At, e.At
		if !ipxe && s.osLogin {
			s.up(e.At, "Its operating system logged in and reads its volume")
			return
		}
		s.done(store.StageRead, e.At, s.volume)
	case store.EventISCSIFirstWrite:
		if read.State == store.StageDone {
			s.progress(store.StageRead, e.At)
		}
	case store.EventISCSIIO:
		s.count(e)
		if ipxe && s.again.logins >= stuckLogins {
			if e.Detail.Bytes <= stuckBytes {
				return
			}
			s.again = again{}
			s.done(store.StageRead, e.At, s.volume)
		}
		s.steady(e)
	case store.EventISCSIIOFailed, store.EventVolumeFailed:
		s.trouble = true
		switch {
		case e.Kind == store.EventVolumeFailed && read.State == store.StageWaiting:
		case ipxe && read.State != store.StageDone:
			s.fail(store.StageRead, e.At, failedLine(d))
		case read.State == store.StageDone:
			s.fail(store.StageUp, e.At, failedLine(d))
		}
	case store.EventISCSIStuck: // what comes of it is not known yet
		s.trouble = true
		for _, name := range []store.StageName{store.StageRead, store.StageUp} {
			if st := s.stage(name); st.State == store.StageRunning || name == store.StageRead && st.State == store.StageWaiting {
				st.Detail = "It waits for the appliance’s storage, which does not answer"
				break
			}
		}
	case store.EventISCSILogout, store.EventISCSIClosed:
		s.count(e)
		if ipxe && read.State == store.StageDone && s.stage(store.StageUp).State == store.StageWaiting {
			n, _ := s.Read()
			s.run(store.StageUp, e.At, "Its boot loader's session ended after "+Amount(n))
		}
	}
}

// An iPXE whose read is not answered for 15 s drops its session and logs in anew,
// for ever. A boot loader that resets its disk logs in at once, and only once.
const (
	stuckLogins = 3
	stuckBytes  = 64 << 10 // read in one session: a boot loader that gets on reads megabytes
	stuckLeast  = 10 * time.Second
	stuckMost   = 40 * time.Second
)

// again counts an iPXE's logins that led nowhere.
type again struct {
	logins int
	at     time.Time // of the newest login
	key    string    // of its session
	read   bool      // it began to read
}

// stuckAt takes an iPXE's login, and reports whether it is one of a row whose
// sessions began to read and got no further.
func (s *State) stuckAt(e store.Event) bool {
	a, last := &s.again, s.sessions[s.again.key]
	gap := e.At.Sub(a.at)
	if a.read && !s.osLogin && last.read <= stuckBytes && last.written == 0 && gap >= stuckLeast && gap <= stuckMost {
		a.logins++
	} else {
		a.logins = 1
	}
	a.at, a.key, a.read = e.At, sessionKey(e), false
	return a.logins >= stuckLogins
}

// isIPXE reports whether an event belongs to an iPXE's session: by its ISID, or
// by the session that logged in with one.
func (s *State) isIPXE(e store.Event) bool {
	if e.Detail.ISID != "" {
		return IPXEISID(e.Detail.ISID)
	}
	if one, ok := s.sessions[sessionKey(e)]; ok {
		return one.ipxe
	}
	return !s.osLogin
}

func sessionKey(e store.Event) string {
	if e.Detail.Session != "" {
		return e.Detail.Session
	}
	return e.Detail.ISID
}

func (s *State) session(e store.Event, ipxe bool) {
	if len(s.sessions) < maxSessions {
		s.sessions[sessionKey(e)] = session{ipxe: ipxe}
	}
}

// count takes the bytes that a session has moved since its login.
func (s *State) count(e store.Event) {
	key := sessionKey(e)
	one, ok := s.sessions[key]
	if !ok && len(s.sessions) >= maxSessions {
		return
	}
	if !ok {
		one.ipxe = s.isIPXE(e)
	}
	one.read, one.written = max(one.read, e.Detail.Bytes), max(one.written, e.Detail.Written)
	s.sessions[key] = one
	if st := s.stage(store.StageRead); st.State == store.StageDone {
		n, _ := s.Read()
		line := orElse(s.volume, volumeLine(e.Detail))
		if n > 0 {
			line += ": " + Amount(n) + " read so far"
		}
		st.Detail = line
	}
}

// steady watches for I/O that goes on. Reading for three minutes is more than a
// boot loader does (one on a slow machine was seen to take more than one for its
// kernel), and less than proof.
func (s *State) steady(e store.Event) {
	if s.ioStart.IsZero() || e.At.Sub(s.ioLast) > ioGap {
		s.ioStart = e.At
	}
	s.ioLast = e.At
	if s.stage(store.StageRead).State != store.StageDone {
		return
	}
	if s.stage(store.StageUp).State == store.StageFailed {
		// The first sample after a failure counts what was moved before it, too;
		// only more than that says that it goes on.
		read, written := s.Read()
		first := !s.counted
		if s.counted = true; first || read+written <= s.moved {
			s.moved = read + written
			return
		}
	}
	if s.Outcome == store.OutcomeFailed && s.Stage == store.StageUp || s.Outcome == store.OutcomeRunning {
		s.progress(store.StageUp, e.At)
		if st := s.stage(store.StageUp); st.State == store.StageFailed {
			s.run(store.StageUp, e.At, "It reads again")
		}
	}
	if s.Outcome == store.OutcomeRunning && e.At.Sub(s.ioStart) > steadyIO {
		st := s.stage(store.StageUp)
		if st.At.IsZero() {
			st.At = s.ioStart
		}
		st.State, st.Ended = store.StageUnsure, e.At
		st.Detail = "It reads its volume steadily, and has not said that it is up"
		s.Outcome, s.Stage = store.OutcomeUpUnconfirmed, store.StageUp
	}
}

// loginLine names the way in, without its algorithm: "mutual CHAP with MD5".
func loginLine(d store.Detail) string {
	way, _, _ := strings.Cut(d.Auth, " with ")
	switch way {
	case "":
		return "Logged in"
	case "none":
		return "Logged in without a secret"
	case "chap":
		way = "CHAP"
	case "mutual":
		way = "mutual CHAP"
	}
	return "Logged in with " + way
}

func volumeLine(d store.Detail) string {
	line := "Its volume"
	if d.LUN != nil {
		line = fmt.Sprintf("LUN %d", *d.LUN)
	}
	if d.Volume != "" {
		line += ", volume " + d.Volume
	}
	return line
}

func noLUNLine(d store.Detail) string {
	asked := "a LUN without a number"
	if d.LUN != nil && *d.LUN >= 0 {
		asked = fmt.Sprintf("LUN %d", *d.LUN)
	}
	return fmt.Sprintf("Asked for %s, which is not mapped", asked)
}

func failedLine(d store.Detail) string {
	line := orElse(d.Reason, "a block could not be read or written")
	if d.Volume != "" {
		line = "Volume " + d.Volume + ": " + line
	}
	return line
}
