package main

import (
	"context"

	"lunboot/web/probe"
)

// parts says of each part whether machines can boot by it now: every service,
// the inventory, and the folder of the volumes. When the appliance is told to
// stop none is, so that nobody is sent here any more.
func (a *appliance) parts(stopping context.Context) func(context.Context) []probe.Part {
	return func(ctx context.Context) []probe.Part {
		up := stopping.Err() == nil
		var out []probe.Part
		for _, s := range a.super.Health() {
			out = append(out, probe.Part{Name: s.Name, Ready: up && s.Healthy})
		}
		_, _, err := a.db.Setting(ctx, settingTarget)
		out = append(out, probe.Part{Name: "inventory", Ready: up && err == nil})
		_, err = a.pool.Free()
		return append(out, probe.Part{Name: "volumes", Ready: up && err == nil})
	}
}
