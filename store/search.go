package store

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Search is what people type into a search box: words and qualifiers, all of
// which must fit.
type Search struct {
	Words []string // each is part of something of the item
	Terms []Term
}

// Term is one qualifier: tag:lab3.
type Term struct{ Key, Value string }

// ParseSearch reads words and qualifiers with the keys of a list. What stands in
// quotation marks is one word. A word with another key, or with none, is text: a
// MAC has five colons.
func ParseSearch(text string, keys []string) (Search, error) {
	var s Search
	for _, w := range searchWords(text) {
		key, value, ok := strings.Cut(w.text, ":")
		if key = strings.ToLower(key); !ok || w.quoted || !slices.Contains(keys, key) {
			s.Words = append(s.Words, w.text)
			continue
		}
		if value = strings.TrimSpace(value); value == "" {
			return s, Invalid("search", "%s: names nothing; write what you look for behind the colon, or put the word into quotation marks", key)
		}
		s.Terms = append(s.Terms, Term{key, value})
	}
	return s, nil
}

// OneOf reads the value of a qualifier that has a few.
func (t Term) OneOf(values []string) (string, error) {
	v := strings.ToLower(t.Value)
	if !slices.Contains(values, v) {
		return "", Invalid("search", "%q is no %s; there are: %s", t.Value, t.Key, strings.Join(values, ", "))
	}
	return v, nil
}

// MachineSearch is what people type into the search box of the machines.
type MachineSearch struct {
	MachineFilter
	State BootState // where its last boot stands; empty for any
}

// MachineKeys are the qualifiers of a search for machines.
func MachineKeys() []string { return []string{"tag", "profile", "state", "mac"} }

// ParseMachineSearch reads a search for machines: tag:lab3 profile:san
// state:failed mac:0007e9, and words, each of which is part of a name, MAC, UUID,
// address, tag or initiator.
func ParseMachineSearch(text string) (MachineSearch, error) {
	var out MachineSearch
	s, err := ParseSearch(text, MachineKeys())
	if err != nil {
		return out, err
	}
	seen := map[string]bool{}
	for _, t := range s.Terms {
		if seen[t.Key] {
			return out, Invalid("search", "%s: is there twice, and a search looks for one", t.Key)
		}
		seen[t.Key] = true
		switch t.Key {
		case "tag":
			out.Tag = t.Value
		case "profile":
			out.Profile = t.Value
		case "mac":
			out.MAC = t.Value
		case "state":
			var states []string
			for _, b := range BootStates() {
				states = append(states, string(b))
			}
			v, err := t.OneOf(states)
			if err != nil {
				return out, err
			}
			out.State = BootState(v)
		}
	}
	out.Words = s.Words
	return out, nil
}

// AttemptKeys are the qualifiers of a search for attempts.
func AttemptKeys() []string {
	return []string{"machine", "mac", "outcome", "stage", "firmware", "address", "code", "case", "since", "until"}
}

// AttemptColumns are what attempts are sorted by. Started is the usual order:
// the newest comes first.
func AttemptColumns() []string { return []string{"started", "machine", "outcome", "stage"} }

// ParseAttemptSearch reads a search for attempts: machine:lab-03 outcome:failed
// code:LB-LUN-01 since:2d, and words, each of which is part of a name, MAC,
// address, of the firmware or of what a diagnosis says.
func ParseAttemptSearch(text string, now time.Time) (f AttemptFilter, err error) {
	s, err := ParseSearch(text, AttemptKeys())
	if err != nil {
		return f, err
	}
	var outcomes, stages []string
	for _, o := range Outcomes() {
		outcomes = append(outcomes, string(o))
	}
	for _, n := range Stages() {
		stages = append(stages, string(n))
	}
	if f.Search, f.Since, f.Until, err = s.times(now); err != nil {
		return AttemptFilter{}, err
	}
	for i := range f.Search.Terms {
		t := &f.Search.Terms[i]
		switch t.Key {
		case "outcome":
			t.Value, err = t.OneOf(outcomes)
		case "stage":
			t.Value, err = t.OneOf(stages)
		case "case":
			_, err = ParseCase(t.Value)
		}
		if err != nil {
			return AttemptFilter{}, err
		}
	}
	return f, nil
}

// Matches reports whether an attempt fits all of a filter but its page.
func (f *AttemptFilter) Matches(a *Attempt) bool {
	if f.Machine != 0 && a.Machine != f.Machine || !f.MAC.IsZero() && a.MAC != f.MAC ||
		!f.Since.IsZero() && a.Started.Before(f.Since) || !f.Until.IsZero() && !a.Started.Before(f.Until) {
		return false
	}
	mac, bare := "", ""
	if !a.MAC.IsZero() {
		mac, bare = a.MAC.String(), a.MAC.Hex12()
	}
	hardware := a.Firmware + " " + a.Arch
	var told strings.Builder
	for _, d := range a.Diagnoses {
		told.WriteString(d.Code + " " + d.Title + "\n")
	}
	has := func(text, part string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(part)) }
	for _, t := range f.Search.Terms {
		fits := false
		switch t.Key {
		case "machine":
			fits = has(a.Name, t.Value)
		case "mac":
			fits = has(bare, bareMAC(t.Value))
		case "outcome":
			fits = string(a.Outcome) == t.Value
		case "stage":
			fits = string(a.Stage) == t.Value
		case "firmware":
			fits = has(hardware, t.Value)
		case "address":
			fits = has(a.Address, t.Value)
		case "code":
			fits = has(told.String(), t.Value)
		case "case":
			fits = a.InCase(t.Value)
		}
		if !fits {
			return false
		}
	}
	words := strings.Join([]string{a.Name, mac, bare, a.Address, hardware, told.String()}, "\n")
	return !slices.ContainsFunc(f.Search.Words, func(w string) bool { return !has(words, w) && !(MintedCase(w) && a.InCase(w)) })
}

// ParseCase reads a case number as it stands on a machine's screen: that of a boot
// or, with six digits, one that was minted where no boot was given a script.
func ParseCase(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || len(text) > 18 {
		return 0, Invalid("search", "%q is no case number; it is the number that stands on the machine's screen, such as 17 or 009441", text)
	}
	return n, nil
}

// MintedCase reports whether a text may be a case number that is no boot's.
func MintedCase(text string) bool {
	return len(text) == 6 && strings.Trim(text, "0123456789") == ""
}

// CaseMark is how a minted case number stands in the reason of an event.
func CaseMark(number string) string { return "(case " + number + ")" }

// InCase reports whether an attempt is what a case number on a screen is about.
func (a *Attempt) InCase(number string) bool {
	n, err := ParseCase(number)
	return err == nil && (int64(a.ID) == n || slices.ContainsFunc(a.Stages, func(s Stage) bool { return strings.Contains(s.Detail, CaseMark(number)) }))
}

// bareMAC is what was typed of a MAC, without what stands between its digits.
func bareMAC(s string) string {
	return strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// times takes the bounds since and until out of a search.
func (s Search) times(now time.Time) (rest Search, since, until time.Time, err error) {
	rest.Words = s.Words
	for _, t := range s.Terms {
		switch t.Key {
		case "since":
			since, err = t.time(now)
		case "until":
			until, err = t.time(now)
		default:
			rest.Terms = append(rest.Terms, t)
		}
		if err != nil {
			return Search{}, since, until, err
		}
	}
	return rest, since, until, nil
}

// AuditKeys are the qualifiers of a search for changes.
func AuditKeys() []string { return []string{"who", "what", "subject", "since", "until"} }

// AuditColumns are what changes are sorted by. At is the usual order: the newest
// comes first.
func AuditColumns() []string { return []string{"at", "who", "what", "subject"} }

// ParseAuditSearch reads a search for changes: who:anna what:machine since:2d,
// and words, each of which is part of any of the texts.
func ParseAuditSearch(text string, now time.Time) (f AuditFilter, err error) {
	s, err := ParseSearch(text, AuditKeys())
	if err != nil {
		return f, err
	}
	if f.Search, f.Since, f.Until, err = s.times(now); err != nil {
		return AuditFilter{}, err
	}
	return f, nil
}

// time reads a time: how long ago, as 90m, 12h or 7d, or a day, as 2026-11-22,
// with an hour behind a T where it matters.
func (t Term) time(now time.Time) (time.Time, error) {
	ago := t.Value
	if days, ok := strings.CutSuffix(ago, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(ago); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if at, err := time.ParseInLocation(layout, ago, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, Invalid("search", "%s:%s is no time; write how long ago, as 90m, 12h or 7d, or a day, as 2026-11-22, or 2026-11-22T14:00", t.Key, t.Value)
}

// CheckSort refuses an order that a list does not have.
func CheckSort(by string, columns []string) error {
	if by != "" && !slices.Contains(columns, strings.TrimPrefix(by, "-")) {
		return Invalid("sort", "the list cannot be sorted by %q; it can by %s, each with a hyphen before it for the other way", by, strings.Join(columns, ", "))
	}
	return nil
}

// searchWord is a word of a search; a quoted one began with a quotation mark, and
// is no qualifier.
type searchWord struct {
	text   string
	quoted bool
}

// searchWords splits at spaces that stand in no quotation marks.
func searchWords(text string) (out []searchWord) {
	var (
		word         strings.Builder
		quoted, mark bool
	)
	end := func() {
		if word.Len() > 0 {
			out = append(out, searchWord{word.String(), mark})
			word.Reset()
		}
		mark = false
	}
	for _, r := range text {
		switch {
		case r == '"':
			mark = mark || word.Len() == 0
			quoted = !quoted
		case r == ' ' && !quoted:
			end()
		default:
			word.WriteRune(r)
		}
	}
	end()
	return out
}

// BootState is where a machine's last boot stands.
type BootState string

// The states, in the order of who needs a look first.
const (
	BootFailed  BootState = "failed"
	BootBooting BootState = "booting"
	BootLost    BootState = "lost" // it came up, and its session ended and did not come back: it is off, or lost its volume
	BootSlow    BootState = "slow"
	BootUp      BootState = "up"
	BootNever   BootState = "never"
)

// BootStates lists every state, in the order of who needs a look first.
func BootStates() []BootState {
	return []BootState{BootFailed, BootBooting, BootLost, BootSlow, BootUp, BootNever}
}

// BootStateOf reads an attempt; ok is false when there is none.
func BootStateOf(a Attempt, ok bool) BootState {
	if !ok {
		return BootNever
	}
	switch a.Outcome {
	case OutcomeFailed:
		return BootFailed
	case OutcomeNotEnrolled: // since then it has not been heard of
		return BootNever
	case OutcomeUp, OutcomeUpUnconfirmed:
		state := BootUp
		for _, st := range a.Stages {
			if st.Hold == HoldLost {
				return BootLost
			}
			if st.State == StageSlow {
				state = BootSlow
			}
		}
		return state
	}
	return BootBooting
}
