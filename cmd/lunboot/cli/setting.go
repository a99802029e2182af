package cli

import "lunboot/store"

// SettingCmd is the noun setting.
type SettingCmd struct {
	List SettingListCmd `cmd:"" help:"List settings."`
	Set  SettingSetCmd  `cmd:"" help:"Change a setting."`
}

// SettingListCmd lists settings.
type SettingListCmd struct{}

// Run lists settings.
func (*SettingListCmd) Run(c *Context) error {
	var out list[store.Setting]
	if err := c.Client.Do(c, "GET", "/settings", nil, &out); err != nil {
		return err
	}
	return c.show(out, func() {
		var rows [][]string
		for _, s := range out.Items {
			rows = append(rows, []string{string(s.Key), s.Value, s.Default, s.Help})
		}
		c.table("SETTING VALUE DEFAULT MEANS", rows)
	})
}

// SettingSetCmd changes a setting.
type SettingSetCmd struct {
	Key   string `arg:"" help:"Name of the setting."`
	Value string `arg:"" help:"Value; a dash reads that of webhook-secret from standard input, so that it is in no shell's history."`
}

// Run changes a setting.
func (s *SettingSetCmd) Run(c *Context) error {
	if s.Value == "-" && s.Key == string(store.SettingWebhookSecret) {
		var err error
		if s.Value, err = c.readPassword("the webhook"); err != nil {
			return err
		}
	}
	if err := c.change("PUT", "/settings/"+esc(s.Key), "", "", map[string]any{"value": s.Value}, nil); err != nil {
		return err
	}
	shown := store.HideSetting(store.SettingKey(s.Key), s.Value)
	if shown == "" {
		shown = "empty"
	}
	c.say("%s is %s", s.Key, shown)
	return nil
}
