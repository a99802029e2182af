package diagnose

import (
	"fmt"
	"net/url"
	"slices"
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
			{Label: "Write --timeout with a number of milliseconds into line " + number + " of its profile" + v.ofProfile() + ", and two vertical bars (||) at its end"},
		}
	}
	return d, true
}

// littleMemory is a machine that has no room for what its script has it fetch.
func littleMemory(v *view) (store.Diagnosis, bool) {
	x, e, ok := v.report()
	if !ok || x.Class != ipxeerr.ClassMemory || !v.failed() {
		return store.Diagnosis{}, false
	}
	v.noteReport(x, e)
	what := "what its script has it fetch"
	switch e.Detail.Step {
	case "kernel":
		what = "its kernel"
	case "initrd":
		what = "its initial RAM disk"
	}
	return store.Diagnosis{
		Title:      v.who() + " has too little memory for " + what,
		Cause:      "iPXE keeps every file that it fetches in the machine’s memory until it starts, and this one did not fit. A live system or an installer needs room for all of its RAM disk, and as much again to unpack it.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Give the machine more memory"},
			{Label: "Or boot it by a profile whose RAM disk is smaller"},
		},
	}, true
}

// textKernel is a machine that was handed a text to start: BIOS jumps into it.
func textKernel(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventFileSent, store.EventReport, store.EventReportUp, store.EventISCSILogin)
	if !ok || e.Kind != store.EventFileSent || e.Detail.Reason != attempt.IsText || !attempt.IsKernel(v.a.Script, e.Detail.URL) || !v.failed() {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "%s: %s, %d bytes of text", plain(e.Kind), e.Detail.URL, e.Detail.Total)
	v.noteSilence()
	return store.Diagnosis{
		Title:      v.who() + " was given a text file as its kernel, and hangs on it",
		Cause:      "The file " + e.Detail.URL + " is text and no kernel. iPXE on BIOS starts any small file as if it were a program.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			{Label: "Name the kernel in its profile" + v.ofProfile() + "; lunboot media list shows what each file is"},
			{Label: "Then switch " + v.who() + " off and on"},
		},
	}, true
}

// scriptEnded is a script that came to its end without having started anything.
func scriptEnded(v *view) (store.Diagnosis, bool) {
	e, ok := v.last(store.EventReport, store.EventScriptSent)
	if !ok || !v.failed() || e.Kind != store.EventReport || e.Detail.Step != attempt.StepEnd {
		return store.Diagnosis{}, false
	}
	v.note(e.At, "its script said that it had come to its end")
	return store.Diagnosis{
		Title:      v.who() + " came to the end of its script, which started nothing",
		Cause:      "No line of it failed, and none of those that were run starts a system: a condition was not met, or a way through it leads past the line that boots. Its firmware goes on with its list of boot devices.",
		Confidence: store.Certain,
		Fixes: []store.Fix{
			fix(store.FixProfileSAN, "", "Use profile san, which boots from its volume"),
			{Label: "Correct its profile" + v.ofProfile() + ": follow its lines for this machine"},
		},
	}, true
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
	case ipxeerr.ClassMemory:
		return store.Diagnosis{}, false // said better below
	case ipxeerr.ClassName:
		d.Title = v.who() + " could not find the address of " + step
		d.Fixes = []store.Fix{{Label: "Write an IP address in place of the name in " + where}, {Label: "Or tell machines a DNS server that knows the name: lunboot subnet set NETWORK --dns ADDRESS"}}
	case ipxeerr.ClassUnreachable, ipxeerr.ClassNoFile, ipxeerr.ClassServer, ipxeerr.ClassFeature, ipxeerr.ClassClock:
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
		d.Fixes = []store.Fix{{Label: "Correct " + where + "; a line that may fail ends in two vertical bars (||)"}}
	}
	v.noteReport(x, e)
	if text != "" {
		v.note(time.Time{}, "line %s is: %s", number, text)
	}
	if m, ok := v.lastAfter(store.EventFileMissing, store.EventFileSent, store.EventScriptSent); ok {
		v.note(m.At, "%s: %s", plain(m.Kind), m.Detail.URL)
		d.Cause += fmt.Sprintf(" It asked this appliance for %s.", m.Detail.URL)
		file, ours := strings.CutPrefix(m.Detail.URL, "/files/")
		switch {
		case m.Detail.Reason != "":
			d.Title = v.who() + " could not fetch " + step + ", because the appliance could not read it"
			d.Cause = fmt.Sprintf("It asked this appliance for %s, which is here and could not be read: %s.", m.Detail.URL, strings.TrimSuffix(m.Detail.Reason, "."))
			d.Fixes = []store.Fix{
				{Label: "Look at the appliance’s own storage, and whether lunboot may read its folder media; its log has the reason"},
				{Label: "Or remove that media file and add it again: lunboot media remove, lunboot media add"},
			}
		case ours && x.Class == ipxeerr.ClassNoFile:
			d.Fixes = []store.Fix{
				{Label: "Correct the address in " + where + "; lunboot media list shows what there is"},
				{Label: "Or add the file: lunboot media add FILE --name " + file},
			}
		}
	}
	if byLine && v.f.Profile != store.DefaultProfile && v.f.Name != "" && len(v.f.Mappings) > 0 {
		d.Fixes = append(d.Fixes, fix(store.FixProfileSAN, "", "Or use profile san, which boots from its volume"))
	}
	return d, true
}

// OtherBoard returns the UUID that a machine gave when it asked for its script, when
// it is another than the one that it was enrolled with.
func OtherBoard(events []store.Event, enrolled store.UUID) (u store.UUID, at time.Time, ok bool) {
	if enrolled.IsPlaceholder() {
		return u, at, false
	}
	for i := len(events) - 1; i >= 0; i-- {
		e := events[i]
		if e.Kind != store.EventScriptSent {
			continue
		}
		_, query, _ := strings.Cut(e.Detail.URL, "?")
		values, err := url.ParseQuery(query)
		if err != nil {
			return u, at, false
		}
		u, err = store.ParseUUID(values.Get("uuid"))
		return u, e.At, err == nil && !u.IsPlaceholder() && u != enrolled && u != swapped(enrolled)
	}
	return u, at, false
}

// swapped is a UUID whose first three fields have the other byte order: makers and
// programs disagree on it (SMBIOS 2.6 §7.2.1).
func swapped(u store.UUID) store.UUID {
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	return u
}

// otherBoard is said besides what became of the boot: who has a machine's MAC may
// be another machine, and would write to its volume.
func otherBoard(v *view) (store.Diagnosis, bool) {
	u, at, ok := OtherBoard(v.events, v.f.UUID)
	if !ok {
		return store.Diagnosis{}, false
	}
	v.note(at, "it asked for its script with the UUID %s", u)
	v.note(time.Time{}, "%s is enrolled with the UUID %s", v.who(), v.f.UUID)
	return store.Diagnosis{
		Title:      "A board with another UUID than that of " + v.who() + " booted as " + v.who(),
		Cause:      "It has the MAC of " + v.who() + ". Either the board of that machine was changed, or a second machine has the same MAC, as copied virtual machines and some network cards do. Two that run from one volume at a time destroy what is on it.",
		Confidence: store.VeryLikely,
		Fixes: []store.Fix{
			{Label: "If its board was changed: lunboot machine set " + v.who() + " --uuid " + u.String()},
			{Label: "If there are two: switch one off, give its card another MAC, and enroll it as a machine of its own"},
		},
	}, true
}
