package store

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
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
	// SettingWebhookURL is where it is told that a boot failed or came up: an
	// http or https URL, or empty. Its path may be a secret: it is listed
	// without one.
	SettingWebhookURL SettingKey = "webhook-url"
	// SettingWebhookSecret signs what is told, or is empty. It is never listed.
	SettingWebhookSecret SettingKey = "webhook-secret"
	// SettingWebhookOn names the outcomes that are told, by commas.
	SettingWebhookOn SettingKey = "webhook-on"
	// SettingDefaultGolden names the golden volume that new machines get a clone
	// of; empty: the only one, when there is one.
	SettingDefaultGolden SettingKey = "default-golden"
	// SettingFreshClones says whether those clones begin anew at each boot: "on"
	// or "off".
	SettingFreshClones SettingKey = "fresh-clones"
	// SettingSpaceLow is the room for volumes below which there is a warning.
	SettingSpaceLow SettingKey = "space-low"
	// SettingTrustedSubnets names the networks, by commas, whose every address is
	// given scripts that carry passwords.
	SettingTrustedSubnets SettingKey = "trusted-subnets"
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
	shown func(value string) string // what a listing shows instead; nil: the value
}

// HideSetting returns what may be shown of a setting's value.
func HideSetting(key SettingKey, value string) string {
	if r, err := ruleOf(key); err == nil && r.shown != nil {
		return r.shown(value)
	}
	return value
}

// ShownSetting is HideSetting for those settings that an operator may change;
// ok is false for what the appliance keeps for itself.
func ShownSetting(key SettingKey, value string) (shown string, ok bool) {
	r, err := ruleOf(key)
	if err != nil {
		return "", false
	}
	if r.shown != nil {
		return r.shown(value), true
	}
	return value, true
}

func settingRules() []settingRule {
	return []settingRule{
		{Setting{SettingRouterAdverts, "on", "on",
			"Tell machines that boot that there is no IPv6 router to wait for, which saves 13 seconds an iPXE stage: on or off."}, onOff, nil},
		{Setting{SettingCapture, "on", "on",
			"Keep the newest packets of every machine's boot in memory, without data and passwords, to be downloaded with an attempt; off forgets what was kept: on or off."}, onOff, nil},
		{Setting{SettingWebhookURL, "", "",
			"Where a POST with JSON tells of boots that ended: an http or https URL, or empty for nowhere; listed without its path, which may be a password."}, webhookURL, originOf},
		{Setting{SettingWebhookSecret, "", "",
			"Signs each of them: X-Lunboot-Signature is sha256= and the HMAC of the body; empty for none. At least 12 characters, never listed."}, webhookSecret, isSet},
		{Setting{SettingWebhookOn, "failed,up", "failed,up",
			"Which ends of a boot are told, by commas: failed, up, up-unconfirmed, not-enrolled."}, webhookOn, nil},
		{Setting{SettingDefaultGolden, "", "",
			"The golden volume that new machines get a clone of unless something else is chosen; empty: the only golden volume, when there is one."}, volumeName, nil},
		{Setting{SettingFreshClones, "off", "off",
			"Whether those clones begin anew at each boot unless something else is chosen: on or off."}, onOff, nil},
		{Setting{SettingSpaceLow, "10%", "10%",
			"Room for volumes below which there is a warning: per cent of the file system, such as 10%, or a size, such as 20G."}, spaceLow, nil},
		{Setting{SettingTrustedSubnets, "", "",
			"Networks, by commas, such as 10.9.0.0/24, whose every address is given scripts that carry passwords: for those behind a router, from which nothing shows whose an address is."}, trustedSubnets, nil},
	}
}

func spaceLow(v string) error {
	_, err := SpaceLow(v, 0)
	return err
}

func trustedSubnets(value string) error {
	_, err := ParseNetworks(value)
	return err
}

// Bounds of the networks that are trusted: one larger is a slip of the pen.
const (
	maxTrusted   = 64
	shortTrusted = 12 // bits
)

// ParseNetworks reads IPv4 networks, by commas; an empty text is none.
func ParseNetworks(value string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for text := range strings.SplitSeq(value, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || !p.Addr().Is4():
			return nil, Invalid("value", "%q is not a network, such as 10.9.0.0/24", text)
		case p.Masked() != p:
			return nil, Invalid("value", "%s is an address within a network; the network is %s", p, p.Masked())
		case p.Bits() < shortTrusted:
			return nil, Invalid("value", "%s is far larger than a subnet; a network here has at least %d bits, such as 10.16.0.0/%d", p, shortTrusted, shortTrusted)
		}
		out = append(out, p)
	}
	if len(out) > maxTrusted {
		return nil, Invalid("value", "%d networks; %d are the most", len(out), maxTrusted)
	}
	return out, nil
}

func onOff(value string) error {
	if value != "on" && value != "off" {
		return Invalid("value", "%q is neither on nor off", value)
	}
	return nil
}

func volumeName(value string) error {
	if value == "" {
		return nil
	}
	return ValidateName("value", value)
}

func webhookURL(value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || len(value) > 2000:
		return Invalid("value", "that is no URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return Invalid("value", "a webhook's URL begins with http:// or https://")
	case u.Hostname() == "":
		return Invalid("value", "a webhook's URL names a host")
	case u.User != nil:
		return Invalid("value", "a webhook's URL has no name and password; webhook-secret signs what is sent")
	}
	return nil
}

func originOf(value string) string {
	u, err := url.Parse(value)
	if err != nil || value == "" {
		return ""
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return u.Scheme + "://" + u.Host + "/…"
	}
	return value
}

func webhookSecret(value string) error {
	if value == "" {
		return nil
	}
	if len(value) < 12 || len(value) > 256 || strings.ContainsFunc(value, unicode.IsControl) {
		return Invalid("value", "a webhook's secret has 12 to 256 characters that print, or is empty")
	}
	return nil
}

func isSet(value string) string {
	if value == "" {
		return ""
	}
	return "(set)"
}

func webhookOn(value string) error {
	_, err := ParseOutcomes(value)
	return err
}

// ParseOutcomes reads the ends of a boot, by commas.
func ParseOutcomes(value string) ([]Outcome, error) {
	var out []Outcome
	for _, name := range strings.Split(value, ",") {
		o := Outcome(strings.TrimSpace(name))
		if o == OutcomeRunning || !slices.Contains(Outcomes(), o) {
			return nil, Invalid("value", "%q is no end of a boot; there are: failed, up, up-unconfirmed, not-enrolled", o)
		}
		out = append(out, o)
	}
	return out, nil
}

// SettingRows is where the values are kept.
type SettingRows interface {
	Setting(ctx context.Context, key string) (value string, set bool, err error)
}

// Settings returns every setting with the value that counts, in reading order.
// Of one that is a secret it tells whether it is set.
func Settings(ctx context.Context, rows SettingRows) ([]Setting, error) {
	var out []Setting
	for _, r := range settingRules() {
		s, err := read(ctx, rows, r)
		if err != nil {
			return nil, err
		}
		if r.shown != nil {
			s.Value = r.shown(s.Value)
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
	return settingRule{}, NoSetting(string(key))
}

// NoSetting says that there is no setting of a name, and which there are.
func NoSetting(key string) *Error {
	var known []string
	for _, r := range settingRules() {
		known = append(known, string(r.Key))
	}
	return &Error{Kind: KindNotFound, Op: "find setting", Subject: key, Field: "key",
		Msg: "there is no setting " + key + "; there are: " + strings.Join(known, ", ")}
}
