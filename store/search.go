package store

import (
	"slices"
	"strings"
)

// MachineSearch is what people type into the search box of the machines.
type MachineSearch struct {
	MachineFilter
	State string // where its last boot stands; empty for any
}

// MachineStates are the states that a search may name.
func MachineStates() []string { return []string{"failed", "booting", "slow", "up", "never"} }

// ParseMachineSearch reads words and qualifiers: tag:lab3 profile:san
// state:failed mac:0007e9, and free text, which is part of a name, MAC, UUID,
// address, tag or initiator. A value with spaces stands in quotation marks. A
// word with another colon is text: a MAC has five.
func ParseMachineSearch(text string) (MachineSearch, error) {
	var (
		s    MachineSearch
		free []string
	)
	for _, word := range searchWords(text) {
		key, value, ok := strings.Cut(word, ":")
		switch key = strings.ToLower(key); {
		case ok && key == "tag":
			s.Tag = value
		case ok && key == "profile":
			s.Profile = value
		case ok && key == "mac":
			s.MAC = value
		case ok && key == "state":
			s.State = strings.ToLower(value)
			if !slices.Contains(MachineStates(), s.State) {
				return s, Invalid("search", "%q is no state; there are: %s", value, strings.Join(MachineStates(), ", "))
			}
		default:
			free = append(free, word)
			continue
		}
		if value == "" {
			return s, Invalid("search", "%s: names nothing; write for example %s:%s", key, key, map[string]string{"tag": "lab3", "profile": "san", "mac": "00:07:e9"}[key])
		}
	}
	s.Search = strings.Join(free, " ")
	return s, nil
}

// searchWords splits at spaces that stand in no quotation marks.
func searchWords(text string) (out []string) {
	var (
		word   strings.Builder
		quoted bool
	)
	end := func() {
		if word.Len() > 0 {
			out = append(out, word.String())
			word.Reset()
		}
	}
	for _, r := range text {
		switch {
		case r == '"':
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
