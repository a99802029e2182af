package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"lunboot/services/doctor"
	"lunboot/store"
)

func modes(t *testing.T, a *appliance) map[string]store.DHCPMode {
	t.Helper()
	all, err := a.db.Subnets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]store.DHCPMode{}
	for _, s := range all {
		out[s.Prefix.String()] = s.Mode
	}
	return out
}

func TestTheOperatorChoosesTheModeOfAnInterface(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	rng := store.Range{From: netip.MustParseAddr("127.0.0.10"), To: netip.MustParseAddr("127.0.0.20")}
	a.network.rival = func(context.Context, string) error { return fmt.Errorf("%w: 127.0.0.53", errOtherServer) }
	err := networks{a}.Choose(ctx, "admin", "lo", store.DHCPFull, rng)
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "127.0.0.53") {
		t.Errorf("beside another server: %v", err)
	}
	if err := (networks{a}).Choose(ctx, "admin", "lo", store.DHCPProxy, store.Range{}); err != nil {
		t.Fatal(err)
	}
	if got := modes(t, a)["127.0.0.0/8"]; got != store.DHCPProxy {
		t.Errorf("the mode is %q, want proxy", got)
	}
	a.network.rival = func(context.Context, string) error { return nil }
	if err := (networks{a}).Choose(ctx, "admin", "lo", store.DHCPFull, rng); err != nil {
		t.Fatal(err)
	}
	if err := (networks{a}).Choose(ctx, "admin", "lo", store.DHCPOff, store.Range{}); err != nil {
		t.Fatal(err)
	}
	subnets, err := a.db.Subnets(ctx)
	if err != nil || len(subnets) != 1 || subnets[0].Mode != store.DHCPOff || subnets[0].Range != rng {
		t.Errorf("off, and its range kept: %+v, %v", subnets, err)
	}
	for _, bad := range []error{
		networks{a}.Choose(ctx, "admin", "lo", "maybe", store.Range{}),
		networks{a}.Choose(ctx, "admin", "nope0", store.DHCPProxy, store.Range{}),
		networks{a}.Choose(ctx, "admin", "lo", store.DHCPFull, store.Range{From: netip.MustParseAddr("10.0.0.1"), To: netip.MustParseAddr("10.0.0.2")}),
	} {
		if store.KindOf(bad) != store.KindInvalid {
			t.Errorf("a bad choice: %v", bad)
		}
	}
}

func TestAFlagLocksWhatItDecided(t *testing.T) {
	a := quiet(t)
	a.cmd.DHCP = "off"
	err := networks{a}.Choose(t.Context(), "admin", "lo", store.DHCPProxy, store.Range{})
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "--dhcp off") {
		t.Errorf("got %v", err)
	}
	a.cmd.DHCP, a.cmd.Interface = "auto", []string{"eth1"}
	a.set.rng = store.Range{From: netip.MustParseAddr("10.0.0.10"), To: netip.MustParseAddr("10.0.0.20")}
	if got := (networks{a}).locked("eth1"); got != "--dhcp-range 10.0.0.10-10.0.0.20" {
		t.Errorf("locked by %q", got)
	}
	a.set.rng, a.cmd.DHCP = store.Range{}, "proxy"
	if got := (networks{a}).locked("eth1"); got != "--dhcp proxy" {
		t.Errorf("locked by %q", got)
	}
	if got := (networks{a}).locked("eth2"); got != "" {
		t.Errorf("another interface is locked by %q", got)
	}
}

func TestInterfacesAreListedWithoutAskingAnybody(t *testing.T) {
	a := quiet(t)
	links, err := networks{a}.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == "lo" || l.Survey != nil || l.Mode != store.DHCPOff || l.Serving {
			t.Errorf("%+v", l)
		}
	}
}

func TestTheDoorsThatMachinesComeTo(t *testing.T) {
	got := doors(true, "0.0.0.0:69", ":8081", "127.0.0.1:3260")
	want := []doctor.Door{{Name: "DHCP", Proto: "udp", Port: 67}, {Name: "PXE", Proto: "udp", Port: 4011}, {Name: "TFTP", Proto: "udp", Port: 69}, {Name: "boot HTTP", Proto: "tcp", Port: 8081}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := doors(false, "", "127.0.0.1:0", ""); len(got) != 0 {
		t.Errorf("a house of loopback has the doors %v", got)
	}
}
