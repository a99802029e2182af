package diagnose

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/store"
)

// What somebody did on the appliance while the machine booted explains more than
// what came of it on the wire.

// meanwhileRules come before every rule that reads the wire.
func meanwhileRules() []rule {
	return []rule{
		{code: "LB-BOOT-07", beside: true, build: switchedOff},
		{code: "LB-TGT-08", build: removed},
		{code: "LB-TGT-09", build: renamed},
		{code: "LB-BOOT-06", build: afterRestart},
	}
}

// removed is a machine that somebody took out of the inventory while it booted.
func removed(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventMachineChanged)
	if !ok || !because(e, store.CauseRemoved) || !v.failed() || v.f.Name != "" || v.late(e) && len(v.since(e.At, store.EventISCSIRefused, store.EventISCSIClosed)) == 0 {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s was removed from the appliance", orElse(e.Detail.Hostname, "it"))
	if r, ok := v.last(store.EventISCSIRefused, store.EventISCSIClosed); ok && !r.At.Before(e.At) {
		v.note(r.At, "%s: %s", plain(r.Kind), orElse(r.Detail.Reason, "no reason was noted"))
	}
	return store.Diagnosis{
		Title:      v.who() + " was removed from the appliance while it " + doing(v.a.Stage),
		Cause:      "Somebody removed the machine here in the middle of this boot. Nobody has its iSCSI name since, so that it is let in no more; its volume is still there.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Action: string(store.FixEnroll), Label: "Enroll it again; then map its volume to it and switch it off and on"},
		},
	}, true
}

// renamed is a machine whose script, or running system, gave the iSCSI name that it
// had here when it was given that script.
func renamed(v *view) (store.Diagnosis, bool) {
	e, ok := v.refused("0202")
	if !ok || v.f.Initiator == "" || e.Detail.Initiator == "" || e.Detail.Initiator == string(v.f.Initiator) || !because(e, store.CauseNoInitiator) {
		return store.Diagnosis{}, false
	}
	old := slices.ContainsFunc(v.events, func(o store.Event) bool {
		return o.Kind == store.EventISCSILogin && o.Detail.Initiator == e.Detail.Initiator
	})
	if !old && given(v.a.Script) != e.Detail.Initiator {
		return store.Diagnosis{}, false
	}
	v.changedSince()
	v.noteRefused(e)
	v.note(e.At, "the name set for %s is %s by now", v.who(), v.f.Initiator)
	return store.Diagnosis{
		Title:      v.subject() + " gave the iSCSI name that " + v.who() + " had before it was changed here",
		Cause:      "Its iSCSI name was changed here after it had been given its script. What runs on it has the old name until it boots again, and nobody has that name any more.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Switch " + v.who() + " off and on: its next script carries the name that is set now"},
			{Label: "Or set the old name again: lunboot machine set " + v.who() + " --iqn " + e.Detail.Initiator},
		},
	}, true
}

// given is the iSCSI name that a script of ours set.
func given(script string) string {
	for l := range strings.Lines(script) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "set initiator-iqn "); ok {
			name, _, _ = strings.Cut(name, " ")
			return strings.ToLower(name)
		}
	}
	return ""
}

// afterPower are what a machine that was switched off can still cause to be heard:
// its connections end late, on this side.
var afterPower = []store.EventKind{store.EventMachinePower, store.EventMachineChanged, store.EventISCSIClosed, store.EventISCSIIO, store.EventTFTPAbort, store.EventTFTPProgress}

// late reports whether something happened after the boot had failed already: a
// failure by silence is one at the end of the time that silence is given.
func (v *view) late(e store.Event) bool {
	end := v.stage(v.a.Stage).Ended
	return !end.IsZero() && e.At.After(end)
}

// hung is how long nothing had been heard of the machine before an event, when that is
// longer than what it does there takes: whoever switches such a machine off may have
// seen it hang.
func (v *view) hung(i int) (quiet time.Duration, ok bool) {
	before := *v
	before.events = v.events[:i]
	last, ok := before.heard()
	if !ok {
		return 0, false
	}
	quiet = v.events[i].At.Sub(last.At)
	return quiet, quiet > max(soonAfter, 2*v.f.Usual.Wait(v.a.Stage))
}

// soonAfter is how long after the last sign of life of a boot that goes well an order
// may come: firmware is silent for some seconds before it asks again.
const soonAfter = 15 * time.Second

// switchedOff is a boot that an order to the machine's BMC ended.
func switchedOff(v *view) (store.Diagnosis, bool) {
	if !v.failed() {
		return store.Diagnosis{}, false
	}
	for i := len(v.events) - 1; i >= 0 && slices.Contains(afterPower, v.events[i].Kind); i-- {
		e := v.events[i]
		act := store.PowerAct(e.Detail.Step)
		if e.Kind != store.EventMachinePower || !act.Loses() || because(e, store.CauseNotDone) || v.late(e) {
			continue
		}
		v.note(e.At, "%s", orElse(e.Detail.Reason, "its BMC was told: "+e.Detail.Step))
		d := store.Diagnosis{
			Title:      fmt.Sprintf("%s was switched off from here while it %s", v.who(), doing(v.a.Stage)),
			Cause:      "Somebody had its BMC switch it off in the middle of this boot. Nothing is wrong with it as far as it came.",
			Confidence: store.Certain,
			Fixes:      []store.Fix{{Label: "Switch it on again: lunboot machine power " + v.who() + " on"}},
		}
		if act != store.PowerOff {
			d.Title = fmt.Sprintf("%s was started anew from here while it %s", v.who(), doing(v.a.Stage))
			d.Cause = "Somebody had its BMC start it anew in the middle of this boot. Nothing is wrong with it as far as it came."
			d.Fixes = []store.Fix{{Label: "Look at the boot that followed"}}
		}
		if quiet, ok := v.hung(i); ok {
			d.Cause = fmt.Sprintf("Somebody gave its BMC that order when nothing had been heard of it for %d s. That may have ended the boot, or the boot hung already.", int(quiet.Seconds()))
			d.Confidence = store.BestGuess
		}
		return d, true
	}
	return store.Diagnosis{}, false
}

// afterRestart is a machine that was lost in a restart of the appliance: firmware
// that waits for an answer that never comes gives up, or waits for ever.
func afterRestart(v *view) (store.Diagnosis, bool) {
	st := v.stage(v.a.Stage)
	last, heard := v.heard()
	if !v.failed() || !heard || !strings.HasPrefix(st.Detail, attempt.AfterRestart) {
		return store.Diagnosis{}, false
	}
	v.note(last.At, "last heard of it: %s", plain(last.Kind))
	v.note(st.Ended, "%s", lower(st.Detail))
	return store.Diagnosis{
		Title:      v.who() + " was not heard of again after the appliance was restarted",
		Cause:      "The appliance was stopped, or crashed, while the machine " + doing(v.a.Stage) + ". What it asked for meanwhile was lost, and it did not ask again.",
		Confidence: store.VeryLikely,
		Fixes:      []store.Fix{{Label: "Switch " + v.who() + " off and on"}},
	}, true
}

func lower(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
