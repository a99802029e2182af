package main

import (
	"context"
	"errors"
	"time"

	"lunboot/services/doctor"
	"lunboot/web/auth/oidc"
)

// newProvider makes the client of the OpenID Connect provider.
func (a *appliance) newProvider() *oidc.Client {
	return oidc.New(oidc.Config{
		Rows: a.db, URL: func() string { return a.adminURL(firstAddress()) }, EndFederated: a.auth.EndFederated, Version: version, Log: a.log.With("part", "admin"), Now: time.Now,
	})
}

// lookAge is how old a look at the provider may be for somebody who opens the
// settings.
const lookAge = 15 * time.Minute

// lookWait is how long they wait for another.
const lookWait = 4 * time.Second

// lookAgain asks the provider for people who look at the health, when it was not
// asked for a while; what it says is in the checks.
func (a *appliance) lookAgain(ctx context.Context) {
	_, fresh, err := a.provider.Looked(ctx, lookAge)
	if err == nil && !fresh {
		ctx, cancel := context.WithTimeout(ctx, lookWait)
		defer cancel()
		_, err = a.provider.Look(ctx)
	}
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		a.log.Error("look at the provider", "error", err)
	}
}

// providerCheck says whether people can sign in through the provider, as the last
// look at it found: a check sends nothing. No machine's boot depends on it, so that
// nothing of it is worse than an advice.
func (a *appliance) providerCheck(ctx context.Context) doctor.Check {
	const name = "single sign-on"
	o, err := a.provider.OIDC(ctx)
	if err != nil || o.IsZero() {
		return doctor.Check{Name: name, Run: func(context.Context) (string, error) {
			return "off; people log in by passwords. Set a provider with: lunboot oidc set", err
		}}
	}
	look, asked, err := a.provider.Looked(ctx, -1)
	c := doctor.Check{Name: name, Run: func(context.Context) (string, error) {
		if err == nil && !asked {
			err = &doctor.Problem{State: doctor.Unknown, What: o.Name + " at " + o.Issuer + " was not asked since the start, or since it was set. Ask it", Mend: "lunboot doctor"}
		}
		return o.Name + " at " + o.Issuer + ", asked at " + look.At.Format("2006-01-02 15:04 UTC"), err
	}}
	for _, f := range look.Found {
		c.Then = append(c.Then, doctor.Check{Name: f.Name, Run: func(context.Context) (string, error) {
			if f.State == "ok" {
				return f.Says, nil
			}
			return "", &doctor.Problem{State: doctor.Advice, What: f.Says, Mend: f.Mend}
		}})
	}
	return c
}
