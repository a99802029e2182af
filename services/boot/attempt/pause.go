package attempt

import (
	"strconv"
	"strings"
	"time"
)

// A script may wait before it goes on: for a time that it says itself, or for
// somebody at the machine. Neither is the silence of a machine that has stopped.

// maxPause bounds what a script may say that it waits.
const maxPause = time.Hour

// beforeBoot returns the commands of a script up to the first that logs in to a
// volume or fetches what is started: what iPXE runs while nothing is heard of it.
// Each comes with the number that its line has in the operator's text, empty in a
// script of ours.
func beforeBoot(script string) (lines []command) {
	for l := range strings.Lines(script) {
		one := readLine(l)
		if len(one.words) == 0 {
			continue
		}
		switch one.words[0] {
		case "sanboot", "sanhook", "kernel", "initrd", "imgfetch", "imgload", "chain", "boot":
			return lines
		}
		lines = append(lines, one)
	}
	return lines
}

type command struct {
	number string
	text   string // as the operator wrote it
	words  []string
}

// readLine takes a line of a script apart. An operator's line ends in a label of
// ours that carries its number; scripts.custom puts it there.
func readLine(l string) (out command) {
	l = strings.TrimSpace(l)
	if at := strings.LastIndex(l, " || goto lunboot"); at >= 0 {
		if _, number, ok := strings.Cut(l[at:], "_"); ok {
			out.number = strings.TrimLeft(number, "_")
			l = strings.TrimSpace(l[:at])
		}
	}
	out.text, out.words = l, strings.Fields(l)
	switch {
	case len(out.words) == 0:
	case strings.HasPrefix(out.words[0], "#"):
		out.words = nil
	case strings.HasPrefix(out.words[0], ":"): // a label may stand before a command
		out.words = out.words[1:]
	}
	return out
}

// timeout is what a line's --timeout says, in milliseconds; ok is false when it
// has none.
func (l command) timeout() (d time.Duration, ok bool) {
	for i, w := range l.words {
		value, found := strings.CutPrefix(w, "--timeout=")
		if w == "--timeout" || w == "-t" {
			if i+1 < len(l.words) {
				value, found = l.words[i+1], true
			}
		}
		if !found {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 31)
		return time.Duration(n) * time.Millisecond, err == nil && n > 0
	}
	return 0, false
}

// AsksSomebody returns the first line of a script that waits for somebody at the
// machine for as long as nobody comes, when it stands before what boots. number is
// its number in the operator's text, empty in a menu of ours.
func AsksSomebody(script string) (number, text string, ok bool) {
	for _, l := range beforeBoot(script) {
		switch l.words[0] {
		case "prompt", "choose":
			if _, timed := l.timeout(); timed {
				continue
			}
		case "read", "login", "shell":
		default:
			continue
		}
		return l.number, l.text, true
	}
	return "", "", false
}

// pause is how long a script waits by its own word before it boots.
func pause(script string) (sum time.Duration) {
	for _, l := range beforeBoot(script) {
		d, timed := l.timeout()
		switch l.words[0] {
		case "prompt", "choose":
			if timed {
				sum += d
			}
		case "sleep":
			if len(l.words) > 1 {
				if n, err := strconv.ParseUint(l.words[1], 10, 31); err == nil {
					sum += time.Duration(n) * time.Second
				}
			}
		}
	}
	return min(sum, maxPause)
}

// StepEnd is the step that a custom script speaks of when it has come to its end.
const StepEnd = "end"

// IsText is the reason of the event of a file that was sent and is text.
const IsText = "it is text"

// IsKernel reports whether a script starts what lies at a path of the appliance.
func IsKernel(script, path string) bool {
	for l := range strings.Lines(script) {
		if words := strings.Fields(l); len(words) > 1 && words[0] == "kernel" {
			return path != "" && strings.HasSuffix(words[1], path)
		}
	}
	return false
}
