package store

import (
	"context"
	"errors"
	"strings"
	"testing"
)

type settingRows map[string]string

func (r settingRows) Setting(_ context.Context, key string) (string, bool, error) {
	if key == "broken" {
		return "", false, errors.New("the disk is gone")
	}
	v, ok := r[key]
	return v, ok, nil
}

func TestEverySettingHasAValidDefault(t *testing.T) {
	all, err := Settings(t.Context(), settingRows{})
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, s := range all {
		if s.Value != s.Default || s.Help == "" {
			t.Errorf("%+v", s)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("the default of %s: %v", s.Key, err)
		}
	}
}

func TestAChosenSettingCountsAndANonsenseOneDoesNot(t *testing.T) {
	rows := settingRows{"router-adverts": "off"}
	if v, err := SettingValue(t.Context(), rows, SettingRouterAdverts); v != "off" || err != nil {
		t.Error(v, err)
	}
	rows["router-adverts"] = "perhaps" // a newer version may have written it
	if v, err := SettingValue(t.Context(), rows, SettingRouterAdverts); v != "on" || err != nil {
		t.Error(v, err)
	}
	err := Setting{Key: SettingRouterAdverts, Value: "perhaps"}.Validate()
	if KindOf(err) != KindInvalid {
		t.Error(err)
	}
	err = Setting{Key: "colour", Value: "red"}.Validate()
	if !IsNotFound(err) || !strings.Contains(err.Error(), "router-adverts") {
		t.Error(err)
	}
	// What the appliance keeps for itself is not for operators to change.
	if err := (Setting{Key: "target", Value: "x"}).Validate(); !IsNotFound(err) {
		t.Error(err)
	}
}
