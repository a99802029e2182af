package store

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// EventKeys are the qualifiers of a search for events.
func EventKeys() []string {
	return []string{"machine", "mac", "address", "kind", "severity", "attempt", "case", "since", "until"}
}

// EventColumns are what events are sorted by. At is the usual order: the newest
// comes first.
func EventColumns() []string { return []string{"at", "kind"} }

// EventSearch is what is looked for among events; all of it must fit, and the
// zero value fits every event. Who is meant by a name was looked up already: the
// journal knows machines by their numbers.
type EventSearch struct {
	Words     []EventWord
	Machines  [][]MachineID // of each list the event is of one
	MACs      []string      // each is part of its MAC, in lower-case digits alone
	Addresses []string      // each is part of its address
	Kinds     []EventKind   // it is one of them; nil is any
	Spans     []EventSpan
	Since     time.Time
	Until     time.Time // not itself
}

// EventWord is part of a text of the event, or of the name of its machine.
type EventWord struct {
	Text     string
	Machines []MachineID
}

// EventSpan is a boot: what its machine or its MAC did meanwhile.
type EventSpan struct {
	Machine  MachineID
	MAC      MAC
	From, To int64 // sequence numbers, both included
}

// EventNames looks up what the journal knows by numbers.
type EventNames struct {
	Machines func(part string) ([]MachineID, error) // in whose names it is
	Attempt  func(AttemptID) (Attempt, error)
}

// ParseEventSearch reads a search for events: machine:lab-03 kind:iscsi
// severity:error since:2d, and words, each of which is part of what an event
// says or of its machine's name.
func ParseEventSearch(text string, now time.Time, names EventNames) (f EventSearch, err error) {
	s, err := ParseSearch(text, EventKeys())
	if err != nil {
		return f, err
	}
	if s, f.Since, f.Until, err = s.times(now); err != nil {
		return EventSearch{}, err
	}
	for _, t := range s.Terms {
		switch t.Key {
		case "machine":
			var ids []MachineID
			ids, err = names.Machines(t.Value)
			f.Machines = append(f.Machines, ids)
		case "mac":
			f.MACs = append(f.MACs, digitsOfMAC(t.Value))
		case "address":
			f.Addresses = append(f.Addresses, strings.ToLower(t.Value))
		case "kind":
			err = f.narrow(t, func(k EventKind) bool { return strings.Contains(string(k), strings.ToLower(t.Value)) })
		case "severity":
			var all []string
			for _, v := range Severities() {
				all = append(all, string(v))
			}
			var v string
			if v, err = t.OneOf(all); err == nil {
				err = f.narrow(t, func(k EventKind) bool { return k.Severity() == Severity(v) })
			}
		case "attempt":
			err = f.during(t, names)
		case "case":
			if MintedCase(t.Value) {
				f.Words = append(f.Words, EventWord{Text: CaseMark(t.Value)})
			} else if _, err = ParseCase(t.Value); err == nil {
				err = f.during(t, names)
			}
		}
		if err != nil {
			return EventSearch{}, err
		}
	}
	for _, w := range s.Words {
		word := EventWord{Text: strings.ToLower(w)}
		if word.Machines, err = names.Machines(w); err != nil {
			return EventSearch{}, err
		}
		f.Words = append(f.Words, word)
	}
	return f, nil
}

// narrow leaves the kinds that fit.
func (f *EventSearch) narrow(t Term, fits func(EventKind) bool) error {
	all := EventKinds()
	if !slices.ContainsFunc(all, fits) {
		names := make([]string, len(all))
		for i, k := range all {
			names[i] = string(k)
		}
		return Invalid("search", "%q is no kind of event, nor part of one; there are: %s", t.Value, strings.Join(names, ", "))
	}
	if f.Kinds == nil {
		f.Kinds = all
	}
	f.Kinds = slices.DeleteFunc(slices.Clone(f.Kinds), func(k EventKind) bool { return !fits(k) })
	return nil
}

// during takes what happened in one boot.
func (f *EventSearch) during(t Term, names EventNames) error {
	id, err := strconv.ParseInt(t.Value, 10, 64)
	if err != nil || id <= 0 {
		return Invalid("search", "attempt:%s is no number of a boot", t.Value)
	}
	a, err := names.Attempt(AttemptID(id))
	if IsNotFound(err) {
		return Invalid("search", "there is no boot %d; it may be forgotten by now", id)
	}
	if err != nil {
		return err
	}
	f.Spans = append(f.Spans, EventSpan{Machine: a.Machine, MAC: a.MAC, From: a.FirstSeq, To: a.LastSeq})
	return nil
}

// digitsOfMAC is a part of a MAC without what stands between its digits.
func digitsOfMAC(s string) string {
	return strings.NewReplacer(":", "", "-", "", ".", "").Replace(strings.ToLower(s))
}

// Empty reports whether every event fits.
func (f *EventSearch) Empty() bool {
	return len(f.Words)+len(f.Machines)+len(f.MACs)+len(f.Addresses)+len(f.Spans) == 0 && f.Kinds == nil && f.Since.IsZero() && f.Until.IsZero()
}

// Narrowed reports whether the filter leaves events out.
func (f *EventFilter) Narrowed() bool {
	return f.Machine != 0 || !f.MAC.IsZero() || f.Attempt != 0 || !f.Search.Empty()
}

// Fits reports whether an event meets the filter, wherever it stands.
func (f *EventFilter) Fits(e *Event) bool {
	return (f.Machine == 0 || e.Machine == f.Machine) && (f.MAC.IsZero() || e.MAC == f.MAC) && (f.Attempt == 0 || e.Attempt == f.Attempt) && f.Search.fits(e)
}

func (f *EventSearch) fits(e *Event) bool {
	if !f.Since.IsZero() && e.At.Before(f.Since) || !f.Until.IsZero() && !e.At.Before(f.Until) || f.Kinds != nil && !slices.Contains(f.Kinds, e.Kind) {
		return false
	}
	for _, ids := range f.Machines {
		if e.Machine == 0 || !slices.Contains(ids, e.Machine) {
			return false
		}
	}
	mac, digits, addr := e.MAC.String(), e.MAC.Hex12(), e.Addr.String()
	if e.MAC.IsZero() {
		mac, digits = "", ""
	}
	if !e.Addr.IsValid() {
		addr = ""
	}
	for _, part := range f.MACs {
		if mac == "" || !strings.Contains(digits, part) {
			return false
		}
	}
	for _, part := range f.Addresses {
		if addr == "" || !strings.Contains(addr, part) {
			return false
		}
	}
	for _, s := range f.Spans {
		if !s.holds(e) {
			return false
		}
	}
	for _, w := range f.Words {
		has := func(text string) bool { return strings.Contains(strings.ToLower(text), w.Text) }
		if !(e.Machine != 0 && slices.Contains(w.Machines, e.Machine)) && !has(string(e.Kind)) && !has(mac) && !has(digits) && !has(addr) && !slices.ContainsFunc(e.Detail.Texts(), has) {
			return false
		}
	}
	return true
}

func (s EventSpan) holds(e *Event) bool {
	return e.Seq >= s.From && e.Seq <= s.To && (s.Machine != 0 && e.Machine == s.Machine || !s.MAC.IsZero() && e.MAC == s.MAC)
}

// Texts are what a search finds in a detail: every text but the key that a boot
// reports with, and the script, which has lines by the hundred.
func (d *Detail) Texts() []string {
	return []string{
		d.Interface, d.Firmware, d.Arch, d.Class, d.UserClass, d.Hostname, d.Server, d.Relay, d.Router, d.Network, d.Port, d.Loader, d.File, d.URL, d.Profile, d.MatchedBy,
		d.Initiator, d.Asked, d.Target, d.ISID, d.Session, d.Auth, d.Status, d.Opcode, d.Sense, d.Volume, d.Step, d.Code, string(d.Cause), d.Reason,
	}
}
