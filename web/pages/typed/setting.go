package typed

import (
	"strings"

	"lunboot/store"
)

// Card is a group of settings that are chosen together.
type Card struct {
	Name string
	Keys []store.SettingKey
}

// Cards are the groups, by the names that their forms are sent to. A key stands
// in one of them, and every key in some.
func Cards() []Card {
	return []Card{
		// The volume first: it alone can be refused for what is not in the form.
		{"newcomers", []store.SettingKey{store.SettingDefaultGolden, store.SettingFreshClones}},
		{"webhook", []store.SettingKey{store.SettingWebhookURL, store.SettingWebhookOn, store.SettingWebhookSecret}},
		{"boots", []store.SettingKey{store.SettingCapture, store.SettingRouterAdverts}},
		{"trust", []store.SettingKey{store.SettingTrustedSubnets}},
		{"storage", []store.SettingKey{store.SettingSpaceLow}},
	}
}

// NamedCard finds a card.
func NamedCard(name string) (Card, error) {
	for _, c := range Cards() {
		if c.Name == name {
			return c, nil
		}
	}
	return Card{}, store.NotFound("card of settings", name)
}

// Setting reads what a form says of a setting whose shown value is known. ok is
// false when the form leaves it as it is: what is secret is never in the page, so
// that an empty field says nothing. An error names the field.
func Setting(key store.SettingKey, shown string, values map[string][]string) (value string, ok bool, err error) {
	typed := ""
	if all := values[string(key)]; len(all) > 0 {
		typed = strings.TrimSpace(all[0])
	}
	switch key {
	case store.SettingFreshClones, store.SettingCapture, store.SettingRouterAdverts:
		value = "off"
		if typed != "" {
			value = "on"
		}
	case store.SettingWebhookOn:
		if value = strings.Join(values[string(key)], ","); value == "" {
			return "", false, store.Invalid(string(key), "choose at least one end of a boot that is told; an empty address tells nobody")
		}
	case store.SettingWebhookSecret:
		switch {
		case len(values[NoSecret]) > 0 && typed != "":
			return "", false, store.Invalid(string(key), "a secret was typed, and that there is to be none was ticked: choose one of the two")
		case len(values[NoSecret]) > 0:
			return "", shown != "", nil
		case typed == "":
			return "", false, nil
		}
		value = typed
	case store.SettingWebhookURL:
		if typed != shown && strings.Contains(typed, "…") {
			return "", false, store.Invalid(string(key), "the path of the present address is not shown: write the whole address anew, or leave it as it was")
		}
		value = typed
	default:
		value = typed
	}
	if value == shown {
		return "", false, nil
	}
	if err := (store.Setting{Key: key, Value: value}).Validate(); err != nil {
		return "", false, Named(string(key), err)
	}
	return value, true, nil
}

// NoSecret is the tick that takes the webhook's secret away.
const NoSecret = "no-secret"
