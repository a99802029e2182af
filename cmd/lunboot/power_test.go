package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
)

func TestAMachineIsWokenWhereItIsKnownToBe(t *testing.T) {
	subnets := []store.Subnet{
		{Interface: "eth1", Prefix: netip.MustParsePrefix("10.1.0.0/24"), Mode: store.DHCPFull},
		{Interface: "eth2", Prefix: netip.MustParsePrefix("10.2.0.0/24"), Mode: store.DHCPProxy},
		{Interface: "eth3", Prefix: netip.MustParsePrefix("10.3.0.0/24"), Mode: store.DHCPOff},
		{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Mode: store.DHCPFull},
	}
	mac, other := store.MAC{2, 0, 0, 0, 0, 1}, store.MAC{2, 0, 0, 0, 0, 2}
	leases := []store.Lease{{MAC: other, Address: netip.MustParseAddr("10.2.0.7")}}
	for want, m := range map[string]store.Machine{
		"[eth1 eth2 10.9.0.0/24]": {MACs: []store.MAC{mac}},
		"[eth1]":                  {MACs: []store.MAC{mac}, Address: netip.MustParseAddr("10.1.0.5")},
		"[eth2]":                  {MACs: []store.MAC{mac, other}},
		"[10.9.0.0/24]":           {MACs: []store.MAC{mac}, Address: netip.MustParseAddr("10.9.0.5")},
	} {
		if got := fmt.Sprint(placesOf(m, subnets, leases)); got != want {
			t.Errorf("%v: %s, want %s", m, got, want)
		}
	}
	if got := placesOf(store.Machine{}, subnets[2:3], nil); len(got) != 0 {
		t.Errorf("on a network that is off: %v", got)
	}
}

// Whether a machine woke is seen by the boot that follows, or does not.
func TestAMachineThatIsWokenIsExpected(t *testing.T) {
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.PutSubnet(t.Context(), "ada", store.Subnet{Prefix: netip.MustParsePrefix("127.8.0.0/29"), Mode: store.DHCPProxy})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	a := serve(t, dir)
	defer a.stop(t)
	a.must(t, "machine", "add", "lab1", "--mac", "02:00:00:00:00:01")
	if out := a.must(t, "machine", "wake", "lab1"); !strings.Contains(out, "127.8.0.0/29") {
		t.Errorf("it says %q", out)
	}
	var m struct{ ID store.MachineID }
	if err := json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "lab1")), &m); err != nil {
		t.Fatal(err)
	}
	var boots struct{ Items []store.Attempt }
	if err := json.Unmarshal([]byte(a.must(t, "--json", "attempt", "list", "lab1")), &boots); err != nil {
		t.Fatal(err)
	}
	if len(boots.Items) != 1 {
		t.Fatalf("%+v", boots.Items)
	}
	if b := boots.Items[0]; b.Machine != m.ID || b.Outcome != store.OutcomeRunning || b.Stage != store.StageAsk || !strings.Contains(b.Stages[0].Detail, "magic packet") {
		t.Errorf("%+v", b)
	}
	if events := a.must(t, "--json", "event", "list"); !strings.Contains(events, `"step":"wake"`) || !strings.Contains(events, "magic packets were sent on 127.8.0.0/29") {
		t.Errorf("the journal tells %s", events)
	}
}
