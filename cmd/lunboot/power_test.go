package main

import (
	"fmt"
	"net/netip"
	"testing"

	"lunboot/store"
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
