package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lunboot/services/doctor"
	"lunboot/services/notify"
	"lunboot/store"
)

// newNotify makes the sender that tells a webhook how boots ended.
func newNotify(a *appliance) *notify.Server {
	return notify.New(notify.Config{
		Hook: a.webhook, Version: version, Log: a.log.With("part", "webhook"), Now: time.Now,
		Page: func(t store.Attempt) string {
			if t.Machine == 0 {
				return a.adminURL(firstAddress()) + "/machines"
			}
			return fmt.Sprintf("%s/machines/%d", a.adminURL(firstAddress()), t.Machine)
		},
	})
}

// webhook reads where and what to tell.
func (a *appliance) webhook(ctx context.Context) (h notify.Hook, err error) {
	var on string
	for _, s := range []struct {
		key  store.SettingKey
		into *string
	}{{store.SettingWebhookURL, &h.URL}, {store.SettingWebhookSecret, &h.Secret}, {store.SettingWebhookOn, &on}} {
		if *s.into, err = store.SettingValue(ctx, a.db, s.key); err != nil {
			return h, err
		}
	}
	h.Outcomes, err = store.ParseOutcomes(on)
	return h, err
}

// notifyCheck says how the webhook does.
func notifyCheck(a *appliance) doctor.Check {
	return doctor.Check{Name: "webhook", Run: func(ctx context.Context) (string, error) {
		h, err := a.webhook(ctx)
		if err != nil {
			return "", err
		}
		st := a.notify.State()
		switch {
		case h.URL == "":
			return "off; choose one with: lunboot setting set webhook-url URL", nil
		case st.Trouble != "":
			return "", errors.New(st.Trouble)
		}
		return fmt.Sprintf("%d told, %d waiting, %d lost", st.Delivered, st.Waiting, st.Lost), nil
	}}
}
