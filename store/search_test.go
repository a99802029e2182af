package store_test

import (
	"testing"

	"lunboot/store"
)

func TestASearchHasWordsAndQualifiers(t *testing.T) {
	for text, want := range map[string]store.MachineSearch{
		"":                                   {},
		"  lab  03 ":                         {MachineFilter: store.MachineFilter{Search: "lab 03"}},
		`tag:"room 3" state:Failed lab`:      {MachineFilter: store.MachineFilter{Tag: "room 3", Search: "lab"}, State: "failed"},
		"profile:rescue mac:00:07:e9":        {MachineFilter: store.MachineFilter{Profile: "rescue", MAC: "00:07:e9"}},
		"00:07:e9:0f:ea:f5":                  {MachineFilter: store.MachineFilter{Search: "00:07:e9:0f:ea:f5"}},
		"iqn.2026-11.lunboot:lab-03 TAG:gpu": {MachineFilter: store.MachineFilter{Search: "iqn.2026-11.lunboot:lab-03", Tag: "gpu"}},
	} {
		if got, err := store.ParseMachineSearch(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"state:broken", "tag:", "mac: x", "tag:a tag:b"} {
		if _, err := store.ParseMachineSearch(text); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}
