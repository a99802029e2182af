package store_test

import (
	"reflect"
	"testing"

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
