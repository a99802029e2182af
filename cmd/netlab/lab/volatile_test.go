package lab_test

import (
	"strings"
	"testing"

	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

// A machine runs from a volatile clone. It outlives the death of lunboot, and does
// not go on after its host went down: it is told why, and begins anew when it is
// switched on again.
func TestAVolatileCloneThatDidNotOutliveACrashIsCalledByItsName(t *testing.T) {
	soaking(t)
	b := start(t, 4*sectorLimit)
	d, err := b.SectorDisk("golden", area.Hold)
	b.must(err)
	b.golden("golden", d)
	c := b.clone("lab-01", 99, "golden", d, "--reset-at-boot", "--volatile")
	r := b.powerOn(c.Client)
	defer r.Kill()
	_, err = c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.WaitTick(b.ctx))
	b.appliance.Kill()
	b.must(b.appliance.Start(b.ctx))
	for range 2 { // the first may have been on its way
		b.must(r.WaitTick(b.ctx))
	}

	b.must(b.appliance.Crash())
	b.must(b.appliance.Start(b.ctx))
	a, err := b.appliance.WaitAttempt(b.ctx, "lab-01", func(a store.Attempt) bool {
		return len(a.Diagnoses) > 0 && a.Diagnoses[0].Code == "LB-VOL-11"
	})
	if err != nil {
		t.Fatalf("%v; it is explained as %+v", err, a.Diagnoses)
	}
	b.record("volatile", "lab-01", a)
	b.picture("volatile", "lab-01")
	if d := a.Diagnoses[0]; !strings.Contains(d.Title, "because what was on it is gone") || len(d.Fixes) != 2 || !strings.Contains(d.Fixes[0].Label, "off and on") {
		t.Errorf("it is explained as %+v", d)
	}
	r.Kill()
	b.end()

	// What the first fix says.
	r = b.powerOn(c.Client)
	defer r.Kill()
	up, err := c.WaitUp(b.ctx, r)
	b.must(err)
	b.must(r.WaitTick(b.ctx))
	if up.Facts["found"] != "-" {
		t.Errorf("after the crash it found %q on its volume, want nothing", up.Facts["found"])
	}
	next, ok, err := b.appliance.Attempt(b.ctx, "lab-01")
	b.must(err)
	if !ok || next.ID == a.ID || next.Outcome == store.OutcomeFailed || len(next.Diagnoses) > 0 {
		t.Errorf("its next boot is %s, explained as %+v", next.Outcome, next.Diagnoses)
	}
}
