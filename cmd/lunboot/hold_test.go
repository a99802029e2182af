package main

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// hold waits until the newest boot of lab1 says what became of its system's session.
func (a *testAppliance) hold(t *testing.T, want store.Hold) (at time.Time) {
	t.Helper()
	var boots struct{ Items []store.Attempt }
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := json.Unmarshal([]byte(a.must(t, "--json", "attempt", "list", "lab1")), &boots); err != nil {
			t.Fatal(err)
		}
		if len(boots.Items) == 0 || boots.Items[0].Outcome != store.OutcomeUp {
			continue
		}
		for _, st := range boots.Items[0].Stages {
			if st.Hold == want {
				return st.HoldAt
			}
		}
	}
	t.Fatalf("its hold is not %q: %+v", want, boots.Items)
	return
}

// What the target says of a system's session is enough to tell who still has its
// volume, also when the appliance was started anew.
func TestWhetherASystemHasItsVolumeIsFollowed(t *testing.T) {
	dir := t.TempDir()
	a := serve(t, dir)
	a.must(t, "volume", "create", "disk", "--size", "16M")
	a.must(t, "machine", "add", "lab1", "--mac", "02:00:00:00:00:01", "--iqn", "iqn.2026-11.test:lab1", "--auth", "none")
	a.must(t, "mapping", "add", "lab1", "disk", "--lun", "0", "--boot")
	login := func(isid pdu.ISID) *iscsitest.Initiator {
		t.Helper()
		i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: "iqn.2026-11.test:lab1", Target: a.Target, ISID: isid})
		i.Must(t, iscsitest.Ready(0))
		i.Must(t, iscsitest.Read10(0, 0, 8))
		return i
	}
	firmware := login(iscsitest.IPXE(1))
	os := login(iscsitest.Linux(1))
	a.hold(t, store.HoldHeld)
	firmware.Conn.Close()
	other := login(iscsitest.Linux(2)) // a second way
	os.Conn.Close()
	time.Sleep(300 * time.Millisecond)
	a.hold(t, store.HoldHeld)
	other.Conn.Close()
	gone := a.hold(t, store.HoldAway)
	login(iscsitest.Linux(3))
	a.hold(t, store.HoldHeld)

	// No session outlives the appliance: it is awaited from the start on.
	a.stop(t)
	a = serve(t, dir)
	defer func() { a.stop(t) }()
	if again := a.hold(t, store.HoldAway); !again.After(gone) {
		t.Errorf("it is awaited since %s", again)
	}
	login(iscsitest.Linux(4))
	a.hold(t, store.HoldHeld)
}
