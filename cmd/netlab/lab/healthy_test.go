package lab_test

import (
	"fmt"
	"testing"
	"time"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// A boot that goes well is left alone: twenty of them, by BIOS and by UEFI, where
// the appliance gives the addresses and where a router does, have no diagnosis at
// any moment on the way, and each is up in the end.
func TestTwentyBootsThatGoWellNeedNoDiagnosis(t *testing.T) {
	soaking(t)
	const each = 5
	for _, mode := range []string{"full", "proxy"} {
		t.Run(mode, func(t *testing.T) {
			var b *bench
			if mode == "full" {
				b = start(t, 2*each*linuxLimit)
			} else {
				b, _ = besideRouter(t, 2*each*linuxLimit, nil, proxyFlags()...)
			}
			for i, firmware := range []lab.Firmware{lab.BIOS, lab.UEFI} {
				c := b.linux(fmt.Sprintf("%s-%d", mode, i), firmware, byte(240+i), area.PowerOff)
				for n := range each {
					b.goesWell(c, fmt.Sprintf("%s, boot %d", firmware, n+1))
				}
			}
		})
	}
}

func (b *bench) goesWell(c *lab.Client, what string) {
	b.t.Helper()
	before, _, err := b.appliance.Attempt(b.ctx, c.Machine.Name)
	b.must(err)
	begun := time.Now()
	r := b.powerOn(c)
	defer r.Kill()
	a, err := b.appliance.WaitAttempt(b.ctx, c.Machine.Name, func(a store.Attempt) bool {
		if a.ID > before.ID && len(a.Diagnoses) > 0 {
			b.t.Errorf("%s at stage %s is explained as %+v", what, a.Stage, a.Diagnoses)
		}
		return a.ID > before.ID && a.Outcome == store.OutcomeUp
	})
	b.must(err)
	_, err = r.WaitWrote(b.ctx)
	b.must(err)
	b.must(r.Wait(b.ctx))
	last, _, err := b.appliance.Attempt(b.ctx, c.Machine.Name)
	b.must(err)
	if last.ID != a.ID || last.Outcome != store.OutcomeUp || len(last.Diagnoses) != 0 {
		b.t.Errorf("%s ended as attempt %d, %s, explained as %+v", what, last.ID, last.Outcome, last.Diagnoses)
	}
	b.t.Logf("%s: up after %.0f s", what, time.Since(begun).Seconds())
}
