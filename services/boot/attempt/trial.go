package attempt

import (
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// returned is how soon after a loader's last byte a machine asks again when its
// firmware refused the file, or the file ended at once. To start over from its
// power switch takes longer.
const returned = 3 * time.Second

// Trial is what a boot says of the loader that it was given.
type Trial struct {
	Hardware boot.Hardware
	Loader   boot.Loader
	Verdict  boot.Verdict
	At       time.Time
}

// trial follows one loader from our answer that named it to the first word of
// what it started.
type trial struct {
	asked   boot.Hardware // as the last request for an address says
	named   string        // the file that our last answer named
	foreign bool          // the machine chose another server since
	blind   bool          // we were not there all the time, so that silence says nothing

	loader   boot.Loader   // delivered in full; empty when none was
	hardware boot.Hardware // that it was delivered to
	at       time.Time     // its last byte
	spoke    bool          // something was heard of it
	ruled    bool          // silence was held against it

	news []Trial
}

// follow reads what an event says of the loader.
func (t *trial) follow(e store.Event) {
	d := e.Detail
	switch e.Kind {
	case store.EventDHCPDiscover:
		if !d.PXE && !d.IPXE {
			return
		}
		if d.IPXE {
			t.spoke = true
		}
		t.asked = boot.HardwareOf(e.MAC, d.Firmware, d.Arch, d.Class)
		t.named, t.foreign = "", false
	case store.EventDHCPOffer, store.EventDHCPAck, store.EventDHCPProxyOffer, store.EventDHCPBootServer:
		if d.Loader != "" {
			t.named = base(d.Loader)
		}
		if e.Kind == store.EventDHCPAck {
			t.foreign = false
		}
	case store.EventDHCPOtherPick:
		t.foreign = !d.Proxy // beside another server, its address is that one's to give
	case store.EventTFTPSent, store.EventLoaderSent:
		t.delivered(e)
	case store.EventScriptSent, store.EventScriptWaiting, store.EventScriptConflict, store.EventScriptWithheld, store.EventScriptFailed, store.EventIgnoredMachine:
		if t.loader != "" {
			t.rule(boot.Worked, e.At)
			t.loader = ""
		}
	case store.EventReport, store.EventFileSent:
		t.spoke = true
	}
}

// delivered takes a file that was sent to its last byte. Only one that we named
// ourselves counts: what a machine does with a file that another server named
// is that server's business.
func (t *trial) delivered(e store.Event) {
	d := e.Detail
	l := boot.Loader(d.Loader)
	switch {
	case d.Total > 0 && d.Bytes < d.Total:
	case l == "":
		t.spoke = true // a script, under a loader's name or its own
	case t.loader.Chain() != "" && l.Chain() == t.loader.Chain():
		t.at = e.At // the second file of a chain
	case t.foreign || t.named != l.File():
	default:
		t.loader, t.hardware, t.at, t.spoke, t.ruled = l, t.asked, e.At, false, false
	}
}

// over judges a loader that nothing was heard of when the machine asks anew.
// Firmware that goes on to another road, from TFTP to HTTP, was not switched off
// in between.
func (t *trial) over(at time.Time, next boot.Hardware) {
	if took := at.Sub(t.at); took <= returned || took >= limitStart || next.Platform.HTTP != t.hardware.Platform.HTTP {
		t.hold(boot.Silent, at)
		return
	}
	t.hold(boot.Doubtful, at)
}

// hold holds a silence against the loader, once.
func (t *trial) hold(v boot.Verdict, at time.Time) {
	if t.loader == "" || t.spoke || t.ruled || t.blind || t.foreign {
		return
	}
	t.ruled = true
	t.rule(v, at)
}

func (t *trial) rule(v boot.Verdict, at time.Time) {
	t.news = append(t.news, Trial{Hardware: t.hardware, Loader: t.loader, Verdict: v, At: at})
}

// StartsOver tells the attempt which event begins the next one, which says
// something of its loader when it is the firmware's.
func (s *State) StartsOver(next store.Event) {
	if next.Kind == store.EventDHCPDiscover && next.Detail.PXE && !next.Detail.IPXE {
		d := next.Detail
		s.trial.over(next.At, boot.HardwareOf(next.MAC, d.Firmware, d.Arch, d.Class))
	}
}

// Trials returns what was found out of loaders since it was called last.
func (s *State) Trials() []Trial {
	news := s.trial.news
	s.trial.news = nil
	return news
}

// Tried returns the loader that was delivered last, or else named, and the
// hardware that it was for; ok is false when the machine said nothing of itself.
func (s *State) Tried() (h boot.Hardware, l boot.Loader, ok bool) {
	h, l = s.trial.hardware, s.trial.loader
	if l == "" {
		h = s.trial.asked
		if named, err := boot.ParseLoader(s.trial.named); err == nil {
			l = named
		}
	}
	return h, l, h != boot.Hardware{}
}
