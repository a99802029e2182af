package store_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"lunboot/store"
)

func TestASearchHasWordsAndQualifiers(t *testing.T) {
	for text, want := range map[string]store.MachineSearch{
		"":                                   {},
		"  lab  03 ":                         {MachineFilter: store.MachineFilter{Words: []string{"lab", "03"}}},
		`tag:"room 3" state:Failed lab`:      {MachineFilter: store.MachineFilter{Tag: "room 3", Words: []string{"lab"}}, State: "failed"},
		`"room 3" "tag:x" ""`:                {MachineFilter: store.MachineFilter{Words: []string{"room 3", "tag:x"}}},
		"profile:rescue mac:00:07:e9":        {MachineFilter: store.MachineFilter{Profile: "rescue", MAC: "00:07:e9"}},
		"00:07:e9:0f:ea:f5":                  {MachineFilter: store.MachineFilter{Words: []string{"00:07:e9:0f:ea:f5"}}},
		"iqn.2026-11.lunboot:lab-03 TAG:gpu": {MachineFilter: store.MachineFilter{Words: []string{"iqn.2026-11.lunboot:lab-03"}, Tag: "gpu"}},
	} {
		if got, err := store.ParseMachineSearch(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"state:broken", "tag:", "mac: x", "tag:a tag:b"} {
		if _, err := store.ParseMachineSearch(text); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestASearchForBootsAndChangesHasTimes(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.FixedZone("lab", 3600))
	term := func(pairs ...string) (out []store.Term) {
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, store.Term{Key: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	for text, want := range map[string]store.AttemptFilter{
		"":                                  {},
		"outcome:FAILED code:lb-lun-01 lab": {Search: store.Search{Words: []string{"lab"}, Terms: term("outcome", "failed", "code", "lb-lun-01")}},
		"stage:read machine:lab since:90m":  {Search: store.Search{Terms: term("stage", "read", "machine", "lab")}, Since: now.Add(-90 * time.Minute)},
		"since:2d until:12h":                {Since: now.AddDate(0, 0, -2), Until: now.Add(-12 * time.Hour)},
		"since:2026-11-20":                  {Since: time.Date(2026, 11, 20, 0, 0, 0, 0, now.Location())},
		"until:2026-11-20T08:30":            {Until: time.Date(2026, 11, 20, 8, 30, 0, 0, now.Location())},
		"until:2026-11-20T08:30:00Z":        {Until: time.Date(2026, 11, 20, 8, 30, 0, 0, time.UTC)},
		`"since:2d" 10:20`:                  {Search: store.Search{Words: []string{"since:2d", "10:20"}}},
	} {
		got, err := store.ParseAttemptSearch(text, now)
		if err != nil || !got.Since.Equal(want.Since) || !got.Until.Equal(want.Until) || !reflect.DeepEqual(got.Search, want.Search) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	got, err := store.ParseAuditSearch("who:anna what:machine since:1h lab-03", now)
	if want := (store.AuditFilter{Search: store.Search{Words: []string{"lab-03"}, Terms: term("who", "anna", "what", "machine")}, Since: now.Add(-time.Hour)}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, %v", got, err)
	}
	for _, text := range []string{"since:", "since:lately", "until:-3h", "since:99999999999d", "since:2026-13-01"} {
		if _, err := store.ParseAttemptSearch(text, now); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
		if _, err := store.ParseAuditSearch(text, now); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"outcome:lost", "stage:lunch"} {
		if _, err := store.ParseAttemptSearch(text, now); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Whatever is typed is read or refused, and what is read again is the same.
func FuzzSearch(f *testing.F) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	for _, text := range []string{"", "lab outcome:failed", `port:"Gi0/4" "a b`, "since:2d until:2026-11-22", "00:07:e9", "machine::", "since:9223372036854775807d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := store.ParseAttemptSearch(text, now)
		b, again := store.ParseAttemptSearch(text, now)
		if !reflect.DeepEqual(a, b) || (err == nil) != (again == nil) {
			t.Errorf("%q is read in two ways", text)
		}
		if err != nil && store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
		for _, term := range a.Search.Terms {
			if !slices.Contains(store.AttemptKeys(), term.Key) || term.Value == "" {
				t.Errorf("%q has the term %+v", text, term)
			}
		}
		if _, err := store.ParseAuditSearch(text, now); err != nil && store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestASearchForEventsIsRead(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	broken := errors.New("the disk broke")
	names := store.EventNames{
		Machines: func(part string) ([]store.MachineID, error) {
			switch part {
			case "lab":
				return []store.MachineID{1, 2}, nil
			case "Lab-02":
				return []store.MachineID{2}, nil
			case "broken":
				return nil, broken
			}
			return nil, nil
		},
		Attempt: func(id store.AttemptID) (store.Attempt, error) {
			if id != 7 {
				return store.Attempt{}, store.NotFound("attempt", "8")
			}
			return store.Attempt{ID: 7, Machine: 2, FirstSeq: 10, LastSeq: 20}, nil
		},
	}
	f, err := store.ParseEventSearch(`lab machine:Lab-02 mac:00-07.E9 address:10.77 kind:ISCSI. severity:error attempt:7 since:1h until:2026-11-22T13:30 "gave up"`, now, names)
	if err != nil {
		t.Fatal(err)
	}
	want := store.EventSearch{
		Words:    []store.EventWord{{Text: "lab", Machines: []store.MachineID{1, 2}}, {Text: "gave up"}},
		Machines: [][]store.MachineID{{2}}, MACs: []string{"0007e9"}, Addresses: []string{"10.77"},
		Kinds: []store.EventKind{store.EventISCSIRefused, store.EventISCSINoLUN, store.EventISCSIIOFailed},
		Spans: []store.EventSpan{{Machine: 2, From: 10, To: 20}}, Since: now.Add(-time.Hour), Until: now.Add(-30 * time.Minute),
	}
	if !reflect.DeepEqual(f, want) {
		t.Errorf("it is read as\n%+v, not\n%+v", f, want)
	}
	if empty, err := store.ParseEventSearch("  ", now, store.EventNames{}); err != nil || !empty.Empty() || f.Empty() {
		t.Errorf("nothing is read as %+v, %v", empty, err)
	}
	if none, err := store.ParseEventSearch("kind:dhcp kind:tftp", now, names); err != nil || none.Kinds == nil || len(none.Kinds) != 0 || none.Empty() {
		t.Errorf("two kinds at once are read as %+v, %v", none, err)
	}
	for _, text := range []string{"kind:nonsense", "severity:x", "attempt:x", "attempt:-1", "attempt:8", "since:lately", "machine:"} {
		if _, err := store.ParseEventSearch(text, now, names); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"broken", "machine:broken"} {
		if _, err := store.ParseEventSearch(text, now, names); !errors.Is(err, broken) {
			t.Errorf("%s: a fault is taken for nothing: %v", text, err)
		}
	}
}

// Every kind is of one severity, and no text of an event is left out of a search
// but those that nobody is to find.
func TestEveryKindHasASeverityAndEveryTextIsFound(t *testing.T) {
	count := map[store.Severity]int{}
	for _, k := range store.EventKinds() {
		if !slices.Contains(store.Severities(), k.Severity()) {
			t.Errorf("%s is %q", k, k.Severity())
		}
		count[k.Severity()]++
	}
	if count[store.SeverityError] < 8 || count[store.SeverityWarning] < 8 || count[store.SeverityInfo] < 20 {
		t.Errorf("they are %v", count)
	}
	var d store.Detail
	v := reflect.ValueOf(&d).Elem()
	var want []string
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Type.Kind() == reflect.String {
			v.Field(i).SetString(f.Name)
			if f.Name != "Key" && f.Name != "Script" {
				want = append(want, f.Name)
			}
		}
	}
	got := d.Texts()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found are %v, not %v", got, want)
	}
}
