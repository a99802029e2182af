package store

import (
	"context"
	"slices"
	"strings"
)

// SettingKey names one choice of the operator that belongs to no noun and is no
// flag.
type SettingKey string

// The settings that an operator may change. What the appliance keeps for itself
// in the same table is not among them.
const (
	// SettingRouterAdverts says whether machines are told that there is no IPv6
	// router to wait for: "on" or "off".
	SettingRouterAdverts SettingKey = "router-adverts"
	// SettingCapture says whether the packets of boots are recorded: "on" or
	// "off".
	SettingCapture SettingKey = "capture"
)

// Setting is one of them with the value that counts.
type Setting struct {
	Key     SettingKey `json:"key"`
	Value   string     `json:"value"`
	Default string     `json:"default"`
	Help    string     `json:"help"` // one sentence
}

// settingRule is what makes a value valid.
type settingRule struct {
	Setting
	check func(value string) error
}

func settingRules() []settingRule {
	return []settingRule{
		{Setting{SettingRouterAdverts, "on", "on",
			"Tell machines that boot that there is no IPv6 router to wait for, which saves 13 seconds an iPXE stage: on or off."}, onOff},
		{Setting{SettingCapture, "on", "on",
			"Keep the newest packets of every machine's boot in memory, without data and passwords, to be downloaded with an attempt: on or off."}, onOff},
	}
}

func onOff(value string) error {
	if value != "on" && value != "off" {
		return Invalid("value", "%q is neither on nor off", value)
	}
	return nil
}

// SettingRows is where the values are kept.
type SettingRows interface {
	Setting(ctx context.Context, key string) (value string, set bool, err error)
}

// Settings returns every setting with the value that counts, in reading order.
func Settings(ctx context.Context, rows SettingRows) ([]Setting, error) {
	var out []Setting
	for _, r := range settingRules() {
		s, err := read(ctx, rows, r)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// SettingValue returns the value of a setting that counts: its default until
// somebody chose.
func SettingValue(ctx context.Context, rows SettingRows, key SettingKey) (string, error) {
	r, err := ruleOf(key)
	if err != nil {
		return "", err
	}
	s, err := read(ctx, rows, r)
	return s.Value, err
}

func read(ctx context.Context, rows SettingRows, r settingRule) (Setting, error) {
	s := r.Setting
	v, set, err := rows.Setting(ctx, string(s.Key))
	if set && r.check(v) == nil {
		s.Value = v
	}
	return s, err
}

// Validate checks a setting's key and value.
func (s Setting) Validate() error {
	r, err := ruleOf(s.Key)
	if err != nil {
		return err
	}
	return r.check(s.Value)
}

func ruleOf(key SettingKey) (settingRule, error) {
	rules := settingRules()
	at := slices.IndexFunc(rules, func(r settingRule) bool { return r.Key == key })
	if at >= 0 {
		return rules[at], nil
	}
	var known []string
	for _, r := range rules {
		known = append(known, string(r.Key))
	}
	return settingRule{}, &Error{Kind: KindNotFound, Op: "find setting", Subject: string(key), Field: "key",
		Msg: "there is no setting " + string(key) + "; there are: " + strings.Join(known, ", ")}
}
