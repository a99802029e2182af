// Package diagnose says why a boot failed: who could not do what, because of
// what, how to mend it, how sure we are, and what was seen.
//
// It is a table of rules. Each rule looks at an attempt, its events and what
// the inventory says of the machine, and knows nothing else: no clock, no log,
// no store. The order of the table is the order of precedence: what we did or
// saw goes before what the machine said, and that goes before what silence
// suggests.
//
// Wording: the machine's name is the subject, past tense, no blame, no codes in
// titles; codes are evidence.
package diagnose

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/attempt"
	"lunboot/services/boot/ipxeerr"
	"lunboot/store"
)

// Facts is what the inventory says of the machine at this time.
type Facts struct {
	Name       string // empty when nobody enrolled it
	Initiator  store.IQN
	Auth       store.AuthMode
	MACs       []store.MAC
	UUID       store.UUID
	Profile    string
	Once       string       // the profile of its next boot only
	Installers []string     // the profiles that install
	Mappings   []Mapping    // by rising LUN
	Free       []string     // volumes that nobody has and that it could boot, when it has none
	Goldens    []string     // golden volumes that it could get a clone of, when it has none
	Alike      []string     // when nobody enrolled it: machines never heard of whose MAC is another by one digit, or by two that changed places
	AdminURL   string       // where people manage the appliance: "http://10.0.0.1:8080"
	Own        []netip.Addr // the addresses of the appliance's machine; none when they are not known
	OwnLoader  string       // the loader that it names for itself; empty: the ladder chooses
	Loader     *Loader      // nil when the machine said nothing of its hardware

	Usual   attempt.Usual   // from its boots that went well
	Earlier []store.Attempt // its boots before this one, the newest first
}

// Loader is which loader a machine was given, and which it gets at its next
// boot.
type Loader struct {
	Hardware boot.Hardware
	Loader   boot.Loader // empty when none was named
	Unsigned bool        // nobody signed it, so that Secure Boot refuses it
	Next     boot.Pick
}

// Mapping is one volume of the machine.
type Mapping struct {
	LUN       store.LUN
	Volume    string
	Boot      bool
	BlockSize int
	State     store.VolumeState
	Reason    string // why the volume failed
	Size      int64  // bytes
	ReadOnly  bool   // for this machine
	Frozen    bool   // for everybody: a golden volume, or one that is read-only
	// Contents is what the volume holds; nil when nobody could look.
	Contents *store.Preflight
}

// rule is one line of the table.
type rule struct {
	code  string
	stage store.StageName // where the boot stopped; empty for any
	// aside is said besides another diagnosis, which it does not replace.
	aside bool
	// or names the codes that explain the same signs in another way: they are
	// said below this one when it is not certain.
	or []string
	// beside says that whatever explains the signs is said beside this one when it is
	// not certain; rest, that this one speaks where nothing else does.
	beside, rest bool
	build        func(v *view) (store.Diagnosis, bool)
}

// rules is the table, in order of precedence.
func rules() []rule {
	return slices.Concat(meanwhileRules(), scriptRules(), iscsiRules(), loaderRules(), addressRules(), upRules(), lastRules(), asideRules())
}

// Codes lists the rules' names in order of precedence.
func Codes() []string {
	var out []string
	for _, r := range rules() {
		out = append(out, r.code)
	}
	return out
}

// Explain diagnoses an attempt from its events, in rising order. A boot that
// goes well has no diagnosis; one that failed always has one.
func Explain(a store.Attempt, events []store.Event, f Facts, now time.Time) []store.Diagnosis {
	v := &view{a: a, events: events, f: f, now: now}
	var out []store.Diagnosis
	var or []string
	free := true // but for those that others stand beside, nobody has spoken
	for _, r := range rules() {
		if !r.aside && !open(out, or, free, r) {
			continue
		}
		if r.stage != "" && !v.failedAt(r.stage) {
			continue
		}
		v.evidence = nil // of a rule that looked and did not speak
		d, ok := r.build(v)
		if !ok {
			continue
		}
		d.Code = r.code
		d.Evidence = append(d.Evidence, v.evidence...)
		d.Fixes = v.possible(d.Fixes)
		if d.Fixes == nil {
			d.Fixes = []store.Fix{}
		}
		if d.Aside = r.aside; !r.aside && free {
			or, free = r.or, r.beside
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b store.Diagnosis) int { return rank(a) - rank(b) })
	return out
}

// possible takes the buttons out that would change nothing, or not what is wrong: a
// machine that nobody enrolled has no settings, one without a volume cannot boot
// from it, and one that has the profile has it already. What that one ran was
// another script, or an older one: it fetches the right one when it boots again.
func (v *view) possible(fixes []store.Fix) []store.Fix {
	out := slices.DeleteFunc(slices.Clone(fixes), func(f store.Fix) bool {
		switch {
		case v.f.Name == "":
			return ofMachine(f)
		case f.Action == string(store.FixProfileSAN):
			return v.f.Profile == store.DefaultProfile || len(v.f.Mappings) == 0
		}
		return false
	})
	switch {
	case len(out) == len(fixes):
	case v.f.Name == "" && !v.a.MAC.IsZero():
		out = slices.Insert(out, 0, store.Fix{Action: string(store.FixEnroll), Label: "Enroll it"})
	case v.f.Name != "" && v.f.Profile == store.DefaultProfile:
		out = append(out, store.Fix{Label: "Switch " + v.who() + " off and on: it has profile san already, and what it ran was not that profile’s script of now"})
	case v.f.Name != "" && len(out) == 0:
		out = v.freeVolumes()
	}
	if len(out) == 0 && len(fixes) > 0 {
		out = append(out, store.Fix{Label: "Look at the machine’s screen, and enroll it under its MAC"})
	}
	return out[:min(len(out), maxFixes)]
}

// maxFixes is how many ways out a person is shown.
const maxFixes = 3

// ofMachine reports whether a button changes a machine, which must be enrolled.
func ofMachine(f store.Fix) bool {
	a, err := store.ParseFix(f.Action)
	return err == nil && !slices.Contains([]store.FixKind{store.FixEnroll, store.FixUnignore, store.FixExtendRange, store.FixProxyMode, store.FixTrustSubnet, store.FixCheckAgain}, a.Kind)
}

// maxHypotheses bounds the explanations of one failure.
const maxHypotheses = 3

// open reports whether a rule may still speak: the first one always, and after
// one that is not certain those that its own line names as other explanations of
// the same signs.
func open(out []store.Diagnosis, or []string, free bool, r rule) bool {
	n := 0
	for _, d := range out {
		if d.Aside {
			continue
		}
		if n++; d.Confidence == store.Certain || d.Code == r.code {
			return false
		}
	}
	return n == 0 || n < maxHypotheses && (free && !r.rest || slices.Contains(or, r.code))
}

// rank orders diagnoses: explanations by how sure they are, asides last. Equal
// ones keep the order of the table.
func rank(d store.Diagnosis) int {
	n := slices.Index([]store.Confidence{store.Certain, store.VeryLikely, store.BestGuess, store.CannotSee}, d.Confidence)
	if d.Aside {
		n += 10
	}
	return n
}

// view is what a rule may look at.
type view struct {
	a        store.Attempt
	events   []store.Event
	f        Facts
	now      time.Time
	evidence []string // gathered by note for the rule that fires
}

// who is the subject of a title.
func (v *view) who() string {
	switch {
	case v.f.Name != "":
		return v.f.Name
	case v.a.Name != "":
		return v.a.Name
	case !v.a.MAC.IsZero():
		return v.a.MAC.String()
	case v.a.Address != "":
		return "The machine at " + v.a.Address
	}
	return "A machine"
}

func (v *view) failedAt(name store.StageName) bool {
	return v.failed() && v.a.Stage == name
}

// failed reports whether the boot ended before an operating system ran.
func (v *view) failed() bool {
	return v.a.Outcome == store.OutcomeFailed || v.a.Outcome == store.OutcomeNotEnrolled
}

func (v *view) stage(name store.StageName) store.Stage {
	for _, s := range v.a.Stages {
		if s.Name == name {
			return s
		}
	}
	return store.Stage{}
}

// last finds the newest event of the kinds.
func (v *view) last(kinds ...store.EventKind) (store.Event, bool) {
	for i := len(v.events) - 1; i >= 0; i-- {
		if slices.Contains(kinds, v.events[i].Kind) {
			return v.events[i], true
		}
	}
	return store.Event{}, false
}

// since lists the events of the kinds that came at or after a time.
func (v *view) since(at time.Time, kinds ...store.EventKind) []store.Event {
	var out []store.Event
	for _, e := range v.events {
		if !e.At.Before(at) && slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	}
	return out
}

func (v *view) saw(kinds ...store.EventKind) bool {
	_, ok := v.last(kinds...)
	return ok
}

// lastAfter finds the newest event of kind that no event of the later kinds
// follows: what it says has not been overtaken.
func (v *view) lastAfter(kind store.EventKind, overtakes ...store.EventKind) (store.Event, bool) {
	for i := len(v.events) - 1; i >= 0; i-- {
		switch e := v.events[i]; {
		case e.Kind == kind:
			return e, true
		case slices.Contains(overtakes, e.Kind):
			return store.Event{}, false
		}
	}
	return store.Event{}, false
}

// report is the newest failure that the machine spoke of itself.
func (v *view) report() (x ipxeerr.Explanation, e store.Event, ok bool) {
	for i := len(v.events) - 1; i >= 0; i-- {
		if e = v.events[i]; e.Kind != store.EventReport || strings.Trim(e.Detail.Code, "0") == "" {
			continue
		}
		x, ok = ipxeerr.DecodeString(e.Detail.Code)
		return x, e, ok
	}
	return ipxeerr.Explanation{}, store.Event{}, false
}

// reported finds a report of one of the classes, and notes it.
func (v *view) reported(classes ...ipxeerr.Class) bool {
	x, e, ok := v.report()
	if !ok || !slices.Contains(classes, x.Class) {
		return false
	}
	v.noteReport(x, e)
	return true
}

func (v *view) noteReport(x ipxeerr.Explanation, e store.Event) {
	step := ""
	if e.Detail.Step != "" {
		step = " at step " + e.Detail.Step
	}
	v.note(e.At, "the machine reported iPXE's code %08x%s: %s", x.Code, step, x.Meaning)
}

// addReport notes the machine's own word, when there is one, besides what we
// saw ourselves.
func (v *view) addReport() {
	if x, e, ok := v.report(); ok {
		v.noteReport(x, e)
	}
}

// note gathers a line of evidence.
func (v *view) note(at time.Time, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if !at.IsZero() {
		line = at.Format("15:04:05 MST") + " " + line
	}
	v.evidence = append(v.evidence, line)
}

// boot is the volume that the machine's script boots, or its only one.
func (v *view) boot() (Mapping, bool) {
	for _, m := range v.f.Mappings {
		if m.Boot {
			return m, true
		}
	}
	if len(v.f.Mappings) > 0 {
		return v.f.Mappings[0], true
	}
	return Mapping{}, false
}

// volume names the machine's volume in a sentence: its volume “win11”.
func (v *view) volume() string {
	if m, ok := v.boot(); ok && m.Volume != "" {
		return "its volume “" + m.Volume + "”"
	}
	return "its volume"
}

// quiet is how long nothing was heard when the attempt was given up.
func (v *view) quiet() string {
	st := v.stage(v.a.Stage)
	last, ok := v.heard()
	if !ok || st.Ended.IsZero() {
		return ""
	}
	if d := st.Ended.Sub(last.At); d > 0 {
		return fmt.Sprintf("%d s", int(d.Round(time.Second)/time.Second))
	}
	return ""
}

// heard is the last event that the machine itself caused.
func (v *view) heard() (store.Event, bool) {
	for i := len(v.events) - 1; i >= 0; i-- {
		switch v.events[i].Kind {
		case store.EventRASent, store.EventDHCPConflict, store.EventMachineChanged, store.EventMachinePower, store.EventVolumeFailed, store.EventISCSIStuck:
		default:
			return v.events[i], true
		}
	}
	return store.Event{}, false
}

// noteSilence notes what was heard last, and for how long nothing since.
func (v *view) noteSilence() {
	last, ok := v.heard()
	if !ok {
		return
	}
	if q := v.quiet(); q != "" {
		usually := ""
		if took := v.f.Usual.Wait(v.a.Stage); took >= time.Second {
			usually = fmt.Sprintf(", where it usually takes %d s", int(took.Round(time.Second)/time.Second))
		}
		v.note(last.At, "last heard of it: %s; then nothing for %s%s", plain(last.Kind), q, usually)
		return
	}
	v.note(last.At, "last heard of it: %s", plain(last.Kind))
}

// noteEvents notes events by their kind's plain words, at most the last six.
func (v *view) noteEvents(all []store.Event) {
	if n := len(all); n > 6 {
		v.note(time.Time{}, "%d earlier ones are left out", n-6)
		all = all[n-6:]
	}
	for _, e := range all {
		v.note(e.At, "%s%s", plain(e.Kind), suffix(e))
	}
}

func suffix(e store.Event) string {
	var parts []string
	if e.Addr.IsValid() {
		parts = append(parts, e.Addr.String())
	}
	d := e.Detail
	if d.File == "" {
		d.File = d.URL
	}
	for _, s := range []string{d.File, d.Server, d.Relay, d.Reason} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if d.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d bytes", d.Bytes, d.Total))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// Words says what an event of a kind is, as every page and the evidence do.
func Words(k store.EventKind) string { return plain(k) }

// plain says what an event of a kind is.
func plain(k store.EventKind) string {
	if s, ok := plainWords[k]; ok {
		return s
	}
	return string(k)
}

// fix is a fix that a button does; an instruction when what the button needs to
// know is not known.
func fix(kind store.FixKind, argument, label string) store.Fix {
	action := store.FixAction{Kind: kind, Argument: argument}.String()
	if _, err := store.ParseFix(action); err != nil {
		action = ""
	}
	return store.Fix{Action: action, Label: label}
}

// onWire is the interface whose own network an event speaks of; empty for one
// behind a relay, whose packets only come in there.
func onWire(e store.Event) string {
	if e.Detail.Relay != "" {
		return ""
	}
	return e.Detail.Interface
}

// quoted puts a name between quotation marks; empty stays empty.
func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "“" + s + "”"
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

var plainWords = map[store.EventKind]string{
	store.EventDHCPDiscover:    "it asked for an address",
	store.EventDHCPOffer:       "we offered an address",
	store.EventDHCPRequest:     "it asked for the address that it was offered",
	store.EventDHCPAck:         "we gave it an address",
	store.EventDHCPNak:         "we refused the address that it asked for",
	store.EventDHCPDecline:     "it found the address in use",
	store.EventDHCPConflict:    "we asked the wire who uses that address",
	store.EventDHCPRelease:     "it gave its address back",
	store.EventDHCPNoAddress:   "no address was left to give",
	store.EventDHCPNoLoader:    "we had no loader for it",
	store.EventDHCPNoISCSI:     "its loader has no iSCSI, which its volume needs",
	store.EventDHCPOtherPick:   "it chose another DHCP server",
	store.EventDHCPProxyOffer:  "we told it what to boot, beside the server that gives the address",
	store.EventDHCPBootServer:  "it asked our boot server, and was told what to boot",
	store.EventDHCPNoSubnet:    "a relay asked for it, from a network that is not known here",
	store.EventRASent:          "we told it that there is no IPv6 router to wait for",
	store.EventTFTPProbe:       "it asked for the loader's size",
	store.EventTFTPStart:       "it began to fetch the loader",
	store.EventTFTPProgress:    "it fetched a part of the loader",
	store.EventTFTPSent:        "it had fetched the whole loader",
	store.EventTFTPAbort:       "the transfer of the loader broke off",
	store.EventTFTPMissing:     "it asked for a file that is not here",
	store.EventLoaderSent:      "it had fetched the whole loader over HTTP",
	store.EventFileSent:        "it fetched a file",
	store.EventFileMissing:     "it asked for something that is not here",
	store.EventLoaderMissing:   "it asked for a loader that is not here",
	store.EventScriptAsked:     "it asked for its script",
	store.EventScriptSent:      "it was given its script",
	store.EventScriptWaiting:   "it was told to wait until it is enrolled",
	store.EventScriptConflict:  "it was given no script, because its names disagree",
	store.EventScriptWithheld:  "its script was withheld",
	store.EventScriptFailed:    "its script could not be made",
	store.EventIgnoredMachine:  "it asked to boot, and is ignored",
	store.EventReport:          "it reported a failure",
	store.EventInstalled:       "its installer said that it is done",
	store.EventInstallSeen:     "that its installer is done was seen on its volume",
	store.EventReportUp:        "it said that it is up",
	store.EventISCSILogin:      "it logged in",
	store.EventISCSIRefused:    "its login was refused",
	store.EventISCSINoLUN:      "it asked for a LUN that is not mapped",
	store.EventISCSIFirstRead:  "it read from its volume",
	store.EventISCSIFirstWrite: "it wrote to its volume",
	store.EventISCSIIO:         "it read or wrote",
	store.EventISCSIIOFailed:   "a read or write failed",
	store.EventISCSIStuck:      "our storage does not answer a read or write of it",
	store.EventISCSILogout:     "it logged out",
	store.EventISCSIClosed:     "its session ended",
	store.EventVolumeFailed:    "its volume failed",
	store.EventMachineChanged:  "it was changed here",
	store.EventMachinePower:    "its power was switched from here",
	store.EventReportStray:     "somebody sent a report that belongs to no boot",
	store.EventSpace:           "the room for volumes crossed the mark that is to stay free",
	store.EventDropped:         "events were left out",
}
