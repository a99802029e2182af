package store

import (
	"slices"
	"strings"
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
	BootSlow    BootState = "slow"
	BootUp      BootState = "up"
	BootNever   BootState = "never"
)

// BootStates lists every state, in the order of who needs a look first.
func BootStates() []BootState {
	return []BootState{BootFailed, BootBooting, BootSlow, BootUp, BootNever}
}

// BootStateOf reads an attempt; ok is false when there is none.
func BootStateOf(a Attempt, ok bool) BootState {
	if !ok {
		return BootNever
	}
	switch a.Outcome {
	case OutcomeFailed:
		return BootFailed
	case OutcomeUp, OutcomeUpUnconfirmed:
		for _, st := range a.Stages {
			if st.State == StageSlow {
				return BootSlow
			}
		}
		return BootUp
	}
	return BootBooting
}
