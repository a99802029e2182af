package store_test

import (
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
