package diagnose

import (
	"fmt"
	"strings"
	"time"

	"lunboot/services/boot/attempt"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// nothingThere is a script that names something which the appliance does not
// have: it got a script of ours in its place, whose screen says so.
func nothingThere(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventFileMissing, store.EventFileSent, store.EventReport, store.EventISCSILogin)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s: %s", plain(e.Kind), e.Detail.URL)
	d := store.Diagnosis{
		Title:      v.who() + " was sent to " + quoted(shorten(e.Detail.URL)) + ", and there is nothing here",
		Cause:      "Its script, or one that it fetched, names an address on this appliance that has no file and no script. Its own script is at /boot.ipxe, and files are below /files/.",
		Confidence: store.Certain,
	}
	if v.f.Profile != store.DefaultProfile && v.f.Name != "" {
		d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Use profile san, which boots from its volume"))
	}
	d.Fixes = append(d.Fixes, store.Fix{Label: "Correct the address in its profile" + v.ofProfile()})
	return d, true
}

// atScreen is a script that waits for somebody at the machine, where nobody is.
func atScreen(v *view) (store.Diagnosis, bool) {
	e, ok := v.lastAfter(store.EventScriptSent, store.EventReport, store.EventISCSILogin, store.EventISCSIRefused, store.EventFileSent, store.EventFileMissing)
	number, line, asks := attempt.AsksSomebody(v.a.Script)
	if !ok || !asks {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	v.noteSilence()
	d := store.Diagnosis{
		Title:      v.who() + " shows its menu" + v.ofProfile() + ", and nobody has chosen",
		Cause:      "Its screen waits for somebody to choose, and would wait for ever. It goes on as soon as somebody does.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Label: "Choose at the machine’s screen"},
			{Label: "Let the menu choose by itself after a time: fields default and timeout of its profile" + v.ofProfile()},
		},
	}
	if number != "" {
		v.note(time.Time{}, "line %s is: %s", number, line)
		d.Title = v.who() + " waits at line " + number + " of its script for somebody at its screen"
		d.Cause = "That line waits for somebody to press a key or to choose, for as long as nobody comes. It goes on as soon as somebody does."
		d.Fixes = []store.Fix{
			{Label: "Go on at the machine’s screen"},
			{Label: "Write --timeout with a number of milliseconds into line " + number + " of its profile" + v.ofProfile() + ", and || at its end"},
		}
	}
	return d, true
}

// shorten leaves the middle of a long address out.
func shorten(s string) string {
	const most = 48
	if len(s) <= most {
		return s
	}
	return s[:most/2] + "…" + s[len(s)-most/2+1:]
}

// ofProfile names the machine's profile behind a word: " “rescue”".
func (v *view) ofProfile() string {
	if e, ok := v.last(store.EventScriptSent); ok && e.Detail.Profile != "" {
		return " " + quoted(e.Detail.Profile)
	}
	return ""
}

// scriptUnreachable takes the machine's own word.
func scriptUnreachable(v *view) (store.Diagnosis, bool) {
	x, e, ok := v.report()
	if !ok {
		return store.Diagnosis{}, false
	}
	number, text, byLine := attempt.Line(v.a.Script, e.Detail.Step)
	step, where := "its script", "its profile"+v.ofProfile()
	switch {
	case e.Detail.Step == "kernel":
		step = "its kernel"
	case e.Detail.Step == "initrd":
		step = "its initial RAM disk"
	case e.Detail.Step == "start":
		step = "what it had fetched"
	case byLine:
		step = "what line " + number + " of its script names"
		where = "line " + number + " of " + where
	}
	d := store.Diagnosis{Cause: sentence(x.Meaning), Confidence: store.Certain}
	switch x.Class {
	case ipxeerr.ClassUnreachable, ipxeerr.ClassNoFile, ipxeerr.ClassServer, ipxeerr.ClassName, ipxeerr.ClassFeature, ipxeerr.ClassClock:
		d.Title = v.who() + " could not fetch " + step
		d.Fixes = []store.Fix{{Label: "Compare the address in " + where + " with what is there"}}
	case ipxeerr.ClassFormat, ipxeerr.ClassSecureBoot:
		d.Title = v.who() + " could not start " + step
		d.Fixes = []store.Fix{{Label: "Name a file for " + kind(v.a.Firmware, v.a.Arch) + " in " + where}}
		if x.Class == ipxeerr.ClassSecureBoot {
			d.Fixes = []store.Fix{{Label: "Switch Secure Boot off in the machine’s firmware, or name a signed file"}}
		}
	case ipxeerr.ClassScript:
		d.Title = v.who() + " stopped at a line of its script that its iPXE does not know"
		if byLine {
			d.Title = v.who() + " stopped at line " + number + " of its script, which its iPXE does not know"
		}
		d.Fixes = []store.Fix{{Label: "Correct " + orElse(strings.TrimPrefix(where, "its "), "its profile")}}
	default:
		if !byLine {
			return store.Diagnosis{}, false
		}
		d.Title = v.who() + " stopped at line " + number + " of its script"
		d.Fixes = []store.Fix{{Label: "Correct " + where + "; a line that may fail ends in ||"}}
	}
	v.noteReport(x, e)
	if text != "" {
		v.note(time.Time{}, "line %s is: %s", number, text)
	}
	if m, ok := v.lastAfter(store.EventFileMissing, store.EventFileSent, store.EventScriptSent); ok {
		v.note(m.At, "%s: %s", plain(m.Kind), m.Detail.URL)
		d.Cause += fmt.Sprintf(" It asked this appliance for %s.", m.Detail.URL)
	}
	if byLine && v.f.Profile != store.DefaultProfile && v.f.Name != "" && len(v.f.Mappings) > 0 {
		d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Or use profile san, which boots from its volume"))
	}
	return d, true
}
