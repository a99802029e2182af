package attempt

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// foldFetch reads the loader and script stages, and the machine's own reports.
func (s *State) foldFetch(e store.Event) {
	d := e.Detail
	switch e.Kind {
	case store.EventTFTPProbe, store.EventTFTPStart, store.EventTFTPProgress, store.EventTFTPSent, store.EventTFTPAbort, store.EventTFTPMissing,
		store.EventLoaderSent, store.EventLoaderMissing:
		s.foldLoader(e)
	case store.EventScriptAsked:
		if s.early() && !s.lastAck.IsZero() {
			s.run(store.StageScript, e.At, "It asked for its script, and goes on to say who it is")
		}
	case store.EventScriptSent:
		s.lastScript, s.waiting = e.At, false
		s.san = d.Profile != "local" && (d.Script == "" || strings.Contains(d.Script, "iscsi:"))
		if d.Script != "" {
			s.Script = d.Script
		}
		_, _, s.asks = AsksSomebody(d.Script)
		s.pause = pause(d.Script)
		s.Owned = d.Owned
		if d.Key != "" {
			s.Key = d.Key
		}
		s.done(store.StageScript, e.At, scriptLine(d))
		s.needSAN()
	case store.EventScriptWaiting:
		s.lastScript, s.waiting, s.trouble = e.At, true, true
		s.run(store.StageScript, e.At, "Waiting to be enrolled")
	case store.EventIgnoredMachine:
		s.trouble = true
		s.left(e.At, "It is on the list of ignored machines")
	case store.EventScriptConflict:
		s.lastScript = e.At
		s.fail(store.StageScript, e.At, "Its names belong to different machines")
	case store.EventScriptWithheld:
		s.lastScript = e.At
		s.fail(store.StageScript, e.At, "The script was withheld: "+orElse(d.Reason, "its address is not known to belong to it"))
	case store.EventScriptFailed:
		s.lastScript = e.At
		s.fail(store.StageScript, e.At, "No script could be made: "+orElse(d.Reason, "the reason is in the log"))
	case store.EventFileSent:
		if s.lastScript.IsZero() {
			return
		}
		s.textKernel = d.Reason == IsText && IsKernel(s.Script, d.URL)
		s.trouble = s.trouble || s.textKernel
		if !s.san {
			s.run(store.StageUp, e.At, fmt.Sprintf("Fetched %s, %s", base(d.File+d.URL), Amount(d.Bytes)))
			return
		}
		s.progress(store.StageScript, e.At)
	case store.EventFileMissing:
		if s.lastScript.IsZero() || s.beyondScript() {
			return
		}
		s.trouble = true
		if d.File == "" { // else its script may go on without it
			s.fail(store.StageScript, e.At, "Asked for "+d.URL+", which is not here")
		}
	case store.EventReport:
		s.report(e)
	case store.EventInstalled:
		s.up(e.At, InstallerDone)
	case store.EventReportUp:
		s.up(e.At, "It said so itself")
	}
}

// needSAN marks whether the script that was given needs the SAN.
func (s *State) needSAN() {
	for _, name := range []store.StageName{store.StageLogin, store.StageRead} {
		switch st := s.stage(name); {
		case !s.san && st.State == store.StageWaiting:
			st.State, st.Detail = store.StageSkipped, s.unseen(name)
		case s.san && st.State == store.StageSkipped:
			st.State, st.Detail = store.StageWaiting, ""
		}
	}
}

func scriptLine(d store.Detail) string {
	line := "Its script"
	if d.Profile != "" {
		line = "Profile " + d.Profile
	}
	switch d.MatchedBy {
	case "":
	case "mac", "uuid":
		line += ", matched by " + strings.ToUpper(d.MatchedBy)
	default:
		line += ", matched by " + d.MatchedBy
	}
	return line
}

// foldLoader reads one transfer. Firmware that asks for the size and hangs up
// is normal, and so is an iPXE that asks for autoexec.ipxe.
func (s *State) foldLoader(e store.Event) {
	d := e.Detail
	if s.beyondScript() || !s.stage(store.StageUp).At.IsZero() {
		return // a transfer that was still open when the machine went on
	}
	name := orElse(base(d.File), orElse(base(d.Loader), "the loader"))
	got := s.stage(store.StageLoader).State == store.StageDone
	if e.Kind != store.EventTFTPMissing {
		s.lastLoader = e.At
	}
	switch e.Kind {
	case store.EventTFTPProbe:
		s.run(store.StageLoader, e.At, "Asked for the size of "+name)
	case store.EventTFTPStart:
		s.run(store.StageLoader, e.At, "Fetching "+name)
	case store.EventTFTPProgress:
		s.run(store.StageLoader, e.At, "Fetching "+name+share(d))
	case store.EventTFTPSent, store.EventLoaderSent:
		if got && d.Loader == "" {
			// An iPXE of 2021 and later looks for autoexec.ipxe beside itself.
			s.progress(store.StageLoader, e.At)
			return
		}
		s.done(store.StageLoader, e.At, fmt.Sprintf("%s bytes in %s", grouped(d.Bytes), seconds(d.Millis)))
	case store.EventTFTPAbort:
		if got {
			return
		}
		s.fail(store.StageLoader, e.At, "Stopped fetching "+name+share(d))
	case store.EventTFTPMissing, store.EventLoaderMissing:
		s.trouble = s.trouble || !got
		if got || s.lastScript.After(s.lastLoader) {
			return
		}
		s.fail(store.StageLoader, e.At, "Asked for "+orElse(d.File, orElse(d.Loader, "a file"))+", which is not here")
	}
}

// share is how far a transfer has come: " (12 %)".
func share(d store.Detail) string {
	if d.Total <= 0 || d.Bytes > d.Total {
		return ""
	}
	return fmt.Sprintf(" (%d %%)", d.Bytes*100/d.Total)
}

// report takes the machine's own word for what failed.
func (s *State) report(e store.Event) {
	d := e.Detail
	if d.Code == "" || strings.Trim(d.Code, "0") == "" {
		if d.Step == StepEnd && !s.beyondScript() && s.stage(store.StageUp).State == store.StageWaiting {
			s.ended(e.At)
		}
		return // a step that went well
	}
	x, known := ipxeerr.DecodeString(d.Code)
	name := s.reportStage(d.Step, x, known)
	if _, text, ok := Line(s.Script, d.Step); ok && name == store.StageScript && OfSAN(text) {
		name = store.StageLogin // the line is the operator's, and what it does is a login
	}
	line := "It gave up"
	if known {
		line = "It said: " + x.Meaning
	}
	if name == store.StageRead && !s.beyondScript() {
		// Only a machine that logged in elsewhere can say so.
		name = store.StageLogin
	}
	s.fail(name, e.At, line)
}

// ended takes the word of a script that it has come to its end. One that has
// nothing of a volume in it may have meant to leave the machine to its firmware.
func (s *State) ended(at time.Time) {
	if s.san {
		s.fail(store.StageScript, at, "Its script came to its end and started nothing")
		return
	}
	s.run(store.StageUp, at, "Its script came to its end, and left it to its firmware")
}

// reportStage finds the stage that a report speaks of: by its code when that is
// specific, else by the script's step, else where the attempt is.
func (s *State) reportStage(step string, x ipxeerr.Explanation, known bool) store.StageName {
	if known && step != "local" { // what it says of its own disk is not of ours
		switch x.Stage {
		case store.StageLogin, store.StageRead:
			return x.Stage
		case store.StageLoader, store.StageScript:
			if !s.beyondScript() {
				return store.StageScript // a file that the script fetches
			}
		}
	}
	switch {
	case strings.HasPrefix(step, "san"), strings.HasPrefix(step, "iscsi"), step == "login":
		if s.stage(store.StageLogin).State == store.StageDone {
			return store.StageRead
		}
		return store.StageLogin
	case step == "dhcp":
		return store.StageAddress
	case step == "loader":
		return store.StageLoader
	case step == "start", step == "local":
		return store.StageUp
	case strings.HasPrefix(step, "line-") && !s.beyondScript(), step == "script", step == "kernel", step == "initrd", step == "chain", step == "fetch":
		return store.StageScript
	}
	if cur := s.current(); index(cur) > index(store.StageScript) {
		return cur
	}
	return store.StageScript
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Line reads which line of an operator's script a report's step speaks of, and
// finds the line in the script that was given.
func Line(script, step string) (number, text string, ok bool) {
	number, ok = strings.CutPrefix(step, "line-")
	if !ok || number == "" {
		return "", "", false
	}
	for l := range strings.Lines(script) {
		command, _, found := strings.Cut(l, "_"+number+"\n")
		if i := strings.LastIndex(command, " || goto lunboot"); found && i >= 0 {
			return number, strings.TrimSpace(command[:i]), true
		}
	}
	return number, "", true
}

// OfSAN reports whether a line of a script logs in to a volume.
func OfSAN(line string) bool {
	return strings.HasPrefix(line, "sanboot ") || strings.HasPrefix(line, "sanhook ")
}

// ProfileOf returns the name of the profile that a boot's script was made by,
// empty when it was given none.
func ProfileOf(a store.Attempt) string {
	for _, st := range a.Stages {
		if rest, ok := strings.CutPrefix(st.Detail, "Profile "); ok && st.Name == store.StageScript {
			name, _, _ := strings.Cut(rest, ", matched by ")
			return name
		}
	}
	return ""
}

// ScriptAt is when a boot was given its script; zero when it was given none.
func ScriptAt(a store.Attempt) time.Time {
	i := slices.IndexFunc(a.Stages, func(st store.Stage) bool { return st.Name == store.StageScript })
	if i < 0 {
		return time.Time{}
	}
	return a.Stages[i].Ended
}
