package scripts

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// How long a machine waits before it asks again.
const (
	askUnknown = 5 * time.Second
	askAgain   = 10 * time.Second
	askFailed  = 15 * time.Second
)

// FirstStage is what an iPXE is given that has not said who it is.
func FirstStage(at netip.AddrPort) string {
	return must("first.tmpl", fill{Ask: boot.IdentityURL(at), Base: boot.ScriptURL(at)})
}

// Help is where a notice sends who reads it. The case number stands in the
// appliance's log and in the event too; it is short enough to be read aloud.
type Help struct {
	Case  string // six digits; empty: there is none
	Admin string // URL that people open
}

func (h Help) line() string {
	if h.Case == "" {
		return Text("See " + h.Admin)
	}
	return Text("Case number " + h.Case + ". See " + h.Admin)
}

// Unknown is what a machine is given that nobody enrolled: its MAC, large, and
// where to enroll it. It asks again for ever.
func Unknown(at netip.AddrPort, mac store.MAC, admin string) string {
	var lines []string
	lines = append(lines, "This machine is not enrolled yet, so there is nothing to boot.")
	if !mac.IsZero() {
		lines = append(lines, "")
		lines = append(lines, large(mac)...)
		lines = append(lines, "", "Its MAC address is "+mac.String())
	}
	lines = append(lines, wrap("Enroll it at "+admin+" and it boots by itself, within seconds.")...)
	return must("notice.tmpl", fill{
		Why: "No machine of the appliance answers to what this one says of itself.", Lines: lines,
		Wait: "Asking again every 5 seconds.", Millis: int(askUnknown.Milliseconds()), Ask: boot.IdentityURL(at),
	})
}

// Claim is one thing that a machine says of itself and whom it names.
type Claim struct {
	Field   string // "hostname", "UUID", "MAC address"
	Value   string
	Machine string
}

// Conflict is what a machine is given whose hostname, UUID and MAC name
// different machines: to choose one of them could start two machines from one
// volume.
func Conflict(at netip.AddrPort, claims []Claim, help Help) string {
	lines := wrap("This machine says things of itself that belong to different machines, so none is chosen and nothing is started.")
	lines = append(lines, "")
	for _, c := range claims {
		lines = append(lines, wrap(fmt.Sprintf("The %s %s belongs to %s.", c.Field, c.Value, c.Machine))...)
	}
	lines = append(lines, "")
	lines = append(lines, "Take away what is wrong.", help.line())
	return notice(at, "The hostname, UUID and MAC address of this machine name different machines.", lines, askAgain)
}

// Withheld is what an address is given that is not the machine's own: the
// script carries a password.
func Withheld(at netip.AddrPort, machine, why string, help Help) string {
	lines := wrap("The boot script of " + machine + " carries a password, and is given only to the address that the machine holds.")
	lines = append(lines, wrap(why)...)
	lines = append(lines, help.line())
	return notice(at, "The script of "+Word(machine)+" is withheld from this address.", lines, askAgain)
}

// NoDisk is what a machine is given that has no volume to boot from, or one
// that is not ready; why says which.
func NoDisk(at netip.AddrPort, machine, why string, help Help) string {
	lines := wrap(machine + " is enrolled, but cannot start: " + why)
	lines = append(lines, help.line())
	return notice(at, Word(machine)+" has no volume that it can start from.", lines, askAgain)
}

// Failed is what a machine is given when the appliance could not make its
// script.
func Failed(at netip.AddrPort, why string, help Help) string {
	lines := wrap("The appliance could not make this machine's boot script. It is the appliance's fault, not the machine's.")
	if why != "" {
		lines = append(lines, wrap(why)...)
	}
	lines = append(lines, help.line())
	return notice(at, "The appliance could not make this machine's script.", lines, askAgain)
}

// Wrong is what an iPXE is given that asked for something that is not there.
func Wrong(at netip.AddrPort, help Help, lines ...string) string {
	var out []string
	for _, l := range lines {
		out = append(out, wrap(l)...)
	}
	out = append(out, help.line())
	return notice(at, "This iPXE asked for something that the appliance does not have.", out, askAgain)
}

// Explained answers a machine's report: what failed, why, and what to do.
func Explained(at netip.AddrPort, title, cause, fix string, help Help) string {
	lines := wrap(title)
	if cause != "" {
		lines = append(lines, "")
		lines = append(lines, wrap(cause)...)
	}
	if fix != "" {
		lines = append(lines, "")
		lines = append(lines, wrap("What to do: "+fix)...)
	}
	lines = append(lines, help.line())
	return notice(at, "The appliance's answer to this machine's report.", lines, askFailed)
}

// Ignored leaves iPXE: the operator wants nothing from this machine.
func Ignored() string {
	return must("exit.tmpl", fill{
		Why: "The operator chose to ignore this machine.",
		Say: "This machine is ignored by the appliance; the firmware goes on.",
	})
}

// Recorded answers a caller that is no iPXE; it does nothing when run.
const Recorded = "#!ipxe\n# The report was recorded.\nexit 0\n"

func notice(at netip.AddrPort, why string, lines []string, again time.Duration) string {
	return must("notice.tmpl", fill{
		Why: why, Lines: lines, Millis: int(again.Milliseconds()), Ask: boot.IdentityURL(at),
		Wait: fmt.Sprintf("Trying again in %d seconds.", int(again.Seconds())),
	})
}

// must is for templates that take text only, and so cannot fail.
func must(name string, f fill) string {
	s, err := execute(name, f)
	if err != nil {
		panic(err)
	}
	return s
}

// glyphs are the digits of a MAC, five by five.
var glyphs = map[byte][5]string{
	'0': {".###.", "#...#", "#...#", "#...#", ".###."},
	'1': {"..#..", ".##..", "..#..", "..#..", ".###."},
	'2': {"####.", "....#", ".###.", "#....", "#####"},
	'3': {"####.", "....#", "..##.", "....#", "####."},
	'4': {"#..#.", "#..#.", "#####", "...#.", "...#."},
	'5': {"#####", "#....", "####.", "....#", "####."},
	'6': {".###.", "#....", "####.", "#...#", ".###."},
	'7': {"#####", "...#.", "..#..", ".#...", ".#..."},
	'8': {".###.", "#...#", ".###.", "#...#", ".###."},
	'9': {".###.", "#...#", ".####", "....#", ".###."},
	'a': {".###.", "#...#", "#####", "#...#", "#...#"},
	'b': {"####.", "#...#", "####.", "#...#", "####."},
	'c': {".####", "#....", "#....", "#....", ".####"},
	'd': {"####.", "#...#", "#...#", "#...#", "####."},
	'e': {"#####", "#....", "####.", "#....", "#####"},
	'f': {"#####", "#....", "####.", "#....", "#...."},
	':': {".....", "..#..", ".....", "..#..", "....."},
}

// large draws a MAC in two rows of three bytes. Dots stand for the background,
// because iPXE's echo joins words with single spaces, and begin each line,
// because a word that begins with # is a comment.
func large(mac store.MAC) []string {
	var out []string
	for half := range 2 {
		text := mac.String()[half*9:][:8]
		for row := range 5 {
			var b strings.Builder
			b.WriteByte('.')
			for i := range len(text) {
				b.WriteString(glyphs[text[i]][row] + ".")
			}
			out = append(out, b.String())
		}
		if half == 0 {
			out = append(out, "")
		}
	}
	return out
}
