package attempt

import (
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// runs is a system that runs from its volume in one session.
func runs(t *testing.T) *tape {
	t.Helper()
	p := newTape(t).dora(ipxeBIOS, "").script().login(ipxeID, "s1").io(5000, ipxeID, "s1", 20<<20)
	return p.logsIn("os1").see(5, store.EventISCSIFirstRead, iscsi(osID, "os1")).see(20000, store.EventISCSIClosed, iscsi(ipxeID, "s1"))
}

// logsIn is a login of the system, which finds LUN 2.
func (p *tape) logsIn(session string) *tape {
	d := iscsi(osID, session)
	d.Mapped = []int{2}
	return p.see(100, store.EventISCSILogin, d)
}

func (p *tape) closed(session string) *tape {
	d := iscsi(osID, session)
	d.Cause = store.CauseSilent
	return p.see(60000, store.EventISCSIClosed, d)
}

func (p *tape) holds(want store.BootState, hold store.Hold) *tape {
	p.t.Helper()
	st := p.s.stage(store.StageUp)
	if got := store.BootStateOf(p.s.Attempt, true); got != want || st.Hold != hold || p.s.Outcome != store.OutcomeUp {
		p.t.Errorf("it is %s, and its hold %q; want %s, %q: %+v", got, st.Hold, want, hold, st)
	}
	if said := strings.Contains(st.Detail, "is off, or lost its volume"); said != (hold == store.HoldLost) {
		p.t.Errorf("with its hold %q it is told %q", hold, st.Detail)
	}
	return p
}

// A machine whose session ended for good was "up" for ever.
func TestASystemThatDoesNotComeBackIsNotUp(t *testing.T) {
	p := runs(t).holds(store.BootUp, store.HoldHeld).quiet(24*time.Hour).holds(store.BootUp, store.HoldHeld)
	p.closed("os1").holds(store.BootUp, store.HoldAway)
	if at, ok := p.s.Deadline(Usual{}); !ok || !at.Equal(p.at.Add(limitAway)) {
		t.Errorf("it is awaited until %s, %v", at, ok)
	}
	p.quiet(limitAway-time.Second).holds(store.BootUp, store.HoldAway)
	p.quiet(time.Second).holds(store.BootLost, store.HoldLost)
	if at, ok := p.s.Deadline(Usual{}); ok {
		t.Errorf("it is awaited until %s though it is lost", at)
	}
	p.logsIn("os2").holds(store.BootUp, store.HoldHeld) // it was not off
	p.closed("os2").quiet(limitAway).holds(store.BootLost, store.HoldLost)
	if n := strings.Count(p.s.stage(store.StageUp).Detail, "session ended"); n != 1 {
		t.Errorf("it is told %q", p.s.stage(store.StageUp).Detail)
	}
}

func TestASystemThatComesBackIsUp(t *testing.T) {
	// A new session is there before the old one has ended.
	runs(t).logsIn("os2").closed("os1").quiet(time.Hour).holds(store.BootUp, store.HoldHeld)
	// One of two ways is cut.
	p := runs(t).logsIn("os2").closed("os2").quiet(time.Hour).holds(store.BootUp, store.HoldHeld)
	// Who only looks which targets there are has no volume by that.
	p.closed("os1").see(1000, store.EventISCSILogin, iscsi(osID, "look")).see(10, store.EventISCSIClosed, iscsi(osID, "look"))
	p.quiet(limitAway).holds(store.BootLost, store.HoldLost)
}

// Only who came up from a volume can lose it.
func TestAMachineThatRunsFromItsOwnDiskLosesNothing(t *testing.T) {
	p := newTape(t).dora(ipxeBIOS, "").see(300, store.EventScriptSent, store.Detail{Profile: "local", Script: "#!ipxe\nexit\n"}).see(60000, store.EventReportUp, store.Detail{})
	p.logsIn("data").closed("data").quiet(time.Hour).holds(store.BootUp, "")
}

// Nobody listened while the appliance was down, and no session outlives it.
func TestAfterARestartSystemsAreAwaitedAnew(t *testing.T) {
	p := runs(t)
	p.s = Restore(p.s.Snapshot())
	p.at = p.at.Add(10 * time.Hour)
	p.s.Resume(p.at)
	p.holds(store.BootUp, store.HoldAway).quiet(limitAway-time.Second).holds(store.BootUp, store.HoldAway).logsIn("os2").holds(store.BootUp, store.HoldHeld)
	p.closed("os2").quiet(time.Second)
	p.s = Restore(p.s.Snapshot())
	p.s.Resume(p.at.Add(time.Hour))
	p.quiet(time.Hour+limitAway).holds(store.BootLost, store.HoldLost)
	p.s = Restore(p.s.Snapshot())
	p.s.Resume(p.at.Add(time.Hour))
	p.quiet(2*time.Hour).holds(store.BootLost, store.HoldLost)
	// What was kept before holds were is not called lost.
	old := runs(t)
	old.s.stage(store.StageUp).Hold = ""
	old.s = Restore(old.s.Snapshot())
	old.s.Resume(old.at)
	old.quiet(time.Hour).holds(store.BootUp, "")
}
