package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lunboot/services/boot/diagnose"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// AttemptCmd is the noun attempt.
type AttemptCmd struct {
	List    AttemptListCmd    `cmd:"" help:"List boot attempts, newest first."`
	Show    AttemptShowCmd    `cmd:"" help:"Show one attempt: its stages, and why it failed."`
	Fix     AttemptFixCmd     `cmd:"" help:"Do what a fix of a diagnosis says."`
	Watch   AttemptWatchCmd   `cmd:"" help:"Follow a boot until it is up or has failed: a machine's, or whichever comes next."`
	Capture AttemptCaptureCmd `cmd:"" help:"Download the packets of an attempt, for Wireshark."`
}

// AttemptListCmd lists attempts.
type AttemptListCmd struct {
	Machine string `arg:"" optional:"" help:"Id, name, MAC or UUID."`
	Search  string `help:"Words and qualifiers, such as 'outcome:failed code:LB-LUN-01 since:2d' or 'case:009441' for the case number on a screen, all of which must fit; quotation marks keep words together."`
	Sort    string `help:"Column to sort by: started (newest first, as without), machine, outcome or stage; with a hyphen before it the other way, as in --sort=-machine." placeholder:"COLUMN"`
	Limit   int    `default:"50" help:"How many at most, 1 to 1000."`
}

// Run lists attempts.
func (l *AttemptListCmd) Run(c *Context) error {
	var out list[store.Attempt]
	q := url.Values{"machine": {l.Machine}, "search": {l.Search}, "sort": {l.Sort}, "limit": {strconv.Itoa(l.Limit)}}
	if err := c.Client.Do(c, "GET", "/attempts?"+q.Encode(), nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, a := range out.Items {
			why := ""
			if len(a.Diagnoses) > 0 {
				why = a.Diagnoses[0].Title
			}
			rows = append(rows, []string{strconv.FormatInt(int64(a.ID), 10), a.Name, a.MAC.String(), when(a.Started), string(a.Outcome), string(a.Stage), why})
		}
		c.table("ID MACHINE MAC STARTED OUTCOME STAGE WHY", rows)
	})
}

// AttemptShowCmd shows an attempt.
type AttemptShowCmd struct {
	Attempt int64 `arg:"" help:"Id."`
}

// Run shows an attempt.
func (s *AttemptShowCmd) Run(c *Context) error {
	var a store.Attempt
	if err := c.Client.Do(c, "GET", "/attempts/"+strconv.FormatInt(s.Attempt, 10), nil, &a); err != nil {
		return err
	}
	return c.show(a, func() { printAttempt(c, a) })
}

// stageTitles name the stages as the pages do.
var stageTitles = map[store.StageName]string{
	store.StageAsk: "Asked for an address", store.StageAddress: "Got an address", store.StageLoader: "Fetched the loader",
	store.StageScript: "Fetched its script", store.StageLogin: "Logged in to its volume", store.StageRead: "Read from its volume", store.StageUp: "Operating system up",
}

func printAttempt(c *Context, a store.Attempt) {
	who := a.Name
	if who == "" {
		who = a.MAC.String()
	}
	fmt.Fprintf(c.Out, "%s, attempt %d, %s: %s\n", clean(who), a.ID, when(a.Started), outcome(a.Outcome))
	if a.UsualMillis > 0 {
		fmt.Fprintf(c.Out, "Its boots usually take %.0f s until it is up\n", float64(a.UsualMillis)/1000)
	}
	for _, d := range a.Diagnoses {
		fmt.Fprintf(c.Out, "\n  %s\n  %s\n", clean(d.Title), clean(d.Cause))
		for _, f := range d.Fixes {
			do := ""
			if _, err := store.ParseFix(f.Action); err == nil {
				do = fmt.Sprintf(" (lunboot attempt fix %d %s)", a.ID, f.Action)
			}
			fmt.Fprintf(c.Out, "    > %s%s\n", clean(f.Label), clean(do))
		}
		fmt.Fprintf(c.Out, "  How we know (%s, %s):\n", d.Confidence, d.Code)
		for _, e := range d.Evidence {
			fmt.Fprintf(c.Out, "    %s\n", clean(e))
		}
	}
	fmt.Fprintln(c.Out)
	for _, s := range a.Stages {
		at := ""
		if !s.At.IsZero() {
			at = fmt.Sprintf("+%.1f s", s.At.Sub(a.Started).Seconds())
		}
		took := ""
		if d := s.Ended.Sub(s.At); !s.At.IsZero() && d >= 100*time.Millisecond {
			took = fmt.Sprintf("took %.1f s", d.Seconds())
		}
		fmt.Fprintf(c.Out, "  %s %-26s %9s  %-11s  %s\n", mark(s.State), stageTitles[s.Name], at, took, clean(s.Detail))
	}
}

func mark(s store.StageState) string {
	switch s {
	case store.StageDone:
		return "ok "
	case store.StageSlow:
		return "ok~"
	case store.StageFailed:
		return "XX "
	case store.StageRunning:
		return ".. "
	case store.StageSkipped:
		return "-- "
	case store.StageUnsure:
		return "?  "
	}
	return "   "
}

func outcome(o store.Outcome) string {
	if o == store.OutcomeUpUnconfirmed {
		return "probably up"
	}
	return string(o)
}

// AttemptWatchCmd follows a boot.
type AttemptWatchCmd struct {
	Machine string `arg:"" optional:"" help:"Id, name, MAC or UUID; whichever machine boots next when there is none."`
}

// Run follows a boot: a line a change, until it ends. It is the one that goes on
// now, else the next one: what ended before somebody began to watch is in 'attempt
// list'.
func (w *AttemptWatchCmd) Run(c *Context) error {
	seen := map[string]bool{}
	var before, watched store.AttemptID
	for first := true; ; first = false {
		a, err := w.newest(c, watched)
		if err != nil {
			return err
		}
		ended := a.ID == 0 || a.Outcome != store.OutcomeRunning
		if first && ended {
			before = a.ID
			c.say("Waiting for the next boot%s", w.of())
		}
		if a.ID != before && a.ID != 0 {
			if watched == 0 {
				watched = a.ID
				c.say("%s, attempt %d", clean(a.Subject()), a.ID)
			}
			w.print(c, a, seen)
			switch a.Outcome {
			case store.OutcomeUp, store.OutcomeUpUnconfirmed:
				return nil
			case store.OutcomeFailed, store.OutcomeNotEnrolled:
				fmt.Fprintln(c.Out)
				printAttempt(c, a)
				return fmt.Errorf("%s did not boot", clean(a.Subject()))
			}
		}
		select {
		case <-c.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// of names the machine that is watched, when there is one.
func (w *AttemptWatchCmd) of() string {
	if w.Machine == "" {
		return " of any machine"
	}
	return " of " + w.Machine
}

// newest returns the attempt that is watched, else the newest one there is; none
// is the zero value.
func (w *AttemptWatchCmd) newest(c *Context, watched store.AttemptID) (a store.Attempt, err error) {
	if watched != 0 {
		return a, c.Client.Do(c, "GET", "/attempts/"+strconv.FormatInt(int64(watched), 10), nil, &a)
	}
	var out list[store.Attempt]
	if err := c.Client.Do(c, "GET", "/attempts?limit=1&machine="+url.QueryEscape(w.Machine), nil, &out); err != nil || len(out.Items) == 0 {
		return a, err
	}
	return out.Items[0], nil
}

// print writes what is new of an attempt, each stage with the time from the first
// packet to it.
func (w *AttemptWatchCmd) print(c *Context, a store.Attempt, seen map[string]bool) {
	for _, s := range a.Stages {
		line := fmt.Sprintf("%s %-26s %s", mark(s.State), stageTitles[s.Name], clean(s.Detail))
		if s.State == store.StageWaiting || seen[line] {
			continue
		}
		seen[line] = true
		at := ""
		if !s.At.IsZero() {
			at = fmt.Sprintf("+%.1f s", s.At.Sub(a.Started).Seconds())
		}
		fmt.Fprintf(c.Out, "%8s  %s\n", at, line)
	}
}

// AttemptFixCmd does what a fix of a diagnosis says.
type AttemptFixCmd struct {
	ID     int64  `arg:"" help:"Number of the attempt."`
	Action string `arg:"" help:"Action of the fix, such as map-lun-0."`
}

// Run does what a fix of a diagnosis says.
func (f *AttemptFixCmd) Run(c *Context) error {
	var out store.FixResult
	if err := c.Client.Do(c, "POST", fmt.Sprintf("/attempts/%d/fix", f.ID), map[string]string{"action": f.Action}, &out); err != nil {
		return err
	}
	if !out.OK {
		return errors.New(out.Says)
	}
	return c.show(out, func() { fmt.Fprintln(c.Out, out.Says) })
}

// ExplainCmd explains an iPXE error code, or the code of a diagnosis.
type ExplainCmd struct {
	Code string `arg:"" help:"The code on the screen, such as 1d704539 or the whole ipxe.org address, or a diagnosis's, such as LB-LUN-01."`
}

// Run explains a code. Every program of this version knows them all: no appliance
// is asked, since the one that it is about may be the one that does not run.
func (e *ExplainCmd) Run(c *Context) error {
	out := struct {
		Code    string `json:"code"`
		Title   string `json:"title"`
		Meaning string `json:"meaning"`
		Sign    string `json:"sign,omitempty"`
	}{}
	code := e.Code[strings.LastIndexByte(e.Code, '/')+1:]
	if d, ok := diagnose.Find(code); ok {
		out.Code, out.Title, out.Meaning, out.Sign = d.Code, d.Name, d.Help, d.Sign
	} else if x, ok := ipxeerr.DecodeString(e.Code); ok {
		out.Code, out.Title, out.Meaning = fmt.Sprintf("%08x", x.Code), x.Screen, x.Meaning
		if x.Where != "" {
			out.Title += " (" + x.Where + ", " + x.Platform.String() + ")"
		}
	} else {
		return store.Invalid("code", "%q is neither an iPXE error code, which has up to eight hexadecimal digits, such as 1d704539, nor a diagnosis's, such as LB-LUN-01", e.Code)
	}
	return c.show(out, func() {
		fmt.Fprintf(c.Out, "%s: %s\n", out.Code, out.Title)
		if out.Sign != "" {
			fmt.Fprintf(c.Out, "What is seen: %s\n", out.Sign)
		}
		fmt.Fprintf(c.Out, "It means: %s\n", out.Meaning)
	})
}
