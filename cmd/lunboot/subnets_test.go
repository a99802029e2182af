package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/services/inventory"
	"lunboot/store"
	"lunboot/store/volume"
)

// operator is what an operator can do to the subnets of a quiet appliance.
func operator(t *testing.T, change ...func(*serveCmd)) acts {
	t.Helper()
	a := quiet(t)
	for _, f := range change {
		f(a.cmd)
	}
	var err error
	if a.set, err = a.cmd.read(); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	pool, err := volume.OpenPool(t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	inv, err := inventory.New(inventory.Config{DB: a.db, Volumes: pool, Log: log, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	a.network.rival = func(context.Context, string) error { return nil }
	return acts{inv, a}
}

func flags(guard string, f func(*serveCmd)) func(*serveCmd) {
	return func(c *serveCmd) {
		c.ScriptGuard = guard
		f(c)
	}
}

// on is a subnet of the loopback interface, the one that every host has.
func on(interfaceName, network string, mode store.DHCPMode, rng string) store.Subnet {
	n := store.Subnet{Interface: interfaceName, Prefix: netip.MustParsePrefix(network), Mode: mode}
	if rng != "" {
		n.Range, _ = store.ParseRange(rng)
	}
	return n
}

func TestASubnetIsServedWithoutARestart(t *testing.T) {
	s := operator(t, flags("strict", func(*serveCmd) {}))
	woken := func() bool {
		select {
		case <-s.a.network.wake:
			return true
		default:
			return false
		}
	}
	n, err := s.PutSubnet(t.Context(), "ada", on("", "10.88.0.0/24", store.DHCPFull, "10.88.0.100-10.88.0.199"))
	if err != nil || n.LeaseTime != defaultLease || !woken() {
		t.Fatalf("%+v, %v", n, err)
	}
	sites, err := s.a.network.sites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range sites {
		if len(at.relayed) != 1 || at.relayed[0].Prefix != n.Prefix {
			t.Errorf("%s answers for %v", at.subnet.Interface, at.relayed)
		}
	}
	if err := s.DeleteSubnet(t.Context(), "ada", n.ID); err != nil || !woken() {
		t.Error("removed:", err)
	}
	audit, _, err := s.a.db.Audit(t.Context(), store.Page{})
	if err != nil || len(audit) != 2 || audit[0].Action != "subnet.delete" || audit[0].Actor != "ada" || audit[1].Action != "subnet.put" {
		t.Errorf("the audit log: %+v, %v", audit, err)
	}
}

func TestAnInterfacesSubnetTakesItsNetwork(t *testing.T) {
	s := operator(t, flags("strict", func(*serveCmd) {}))
	n, err := s.PutSubnet(t.Context(), "ada", store.Subnet{Interface: "lo", Mode: store.DHCPFull, Range: store.Range{From: netip.MustParseAddr("127.9.0.1"), To: netip.MustParseAddr("127.9.0.9")}})
	if err != nil || n.Prefix.String() != "127.0.0.0/8" {
		t.Errorf("%+v, %v", n, err)
	}
}

func TestAddressesAreNotGivenBesideAnotherServerOnAnOperatorsWord(t *testing.T) {
	s := operator(t, flags("strict", func(*serveCmd) {}))
	asked := 0
	s.a.network.rival = func(context.Context, string) error {
		asked++
		return fmt.Errorf("%w: 10.77.0.2", errOtherServer)
	}
	n := on("lo", "127.0.0.0/8", store.DHCPFull, "127.9.0.1-127.9.0.9")
	_, err := s.PutSubnet(t.Context(), "ada", n)
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "10.77.0.2") {
		t.Errorf("got %v", err)
	}
	n.Mode = store.DHCPOff
	if n, err = s.PutSubnet(t.Context(), "ada", n); err != nil {
		t.Fatal(err)
	}
	n.Mode = store.DHCPFull
	if _, err = s.PutSubnet(t.Context(), "ada", n); store.KindOf(err) != store.KindConflict || asked != 2 {
		t.Errorf("switched on: %v", err)
	}
	if _, err := s.PutSubnet(t.Context(), "ada", on("", "10.88.0.0/24", store.DHCPFull, "")); err != nil || asked != 2 {
		t.Errorf("behind a relay nobody can be asked: %v", err)
	}
	s.a.cmd.DHCPForce = true
	if _, err = s.PutSubnet(t.Context(), "ada", n); err != nil {
		t.Error("--dhcp-force:", err)
	}
}

func TestWhatAFlagSetIsChangedByTheFlagOnly(t *testing.T) {
	ranged := flags("strict", func(c *serveCmd) { c.DHCP, c.DHCPRange, c.Interface = "auto", "127.9.0.1-127.9.0.9", []string{"lo"} })
	advertised := flags("strict", func(c *serveCmd) { c.Advertise = "10.1.1.1" })
	off := flags("strict", func(c *serveCmd) { c.DHCP = "off" })
	for name, c := range map[string]struct {
		flags  func(*serveCmd)
		change func(*store.Subnet)
		want   string // empty when it is the operator's
	}{
		"the range":                {ranged, func(n *store.Subnet) { n.Range, _ = store.ParseRange("127.9.0.1-127.9.0.8") }, "the range of lo 127.0.0.0/8 is set by --dhcp-range"},
		"the mode":                 {ranged, func(n *store.Subnet) { n.Mode = store.DHCPOff }, "the mode of lo 127.0.0.0/8 is set by --dhcp-range"},
		"the network":              {ranged, func(n *store.Subnet) { n.Prefix = netip.MustParsePrefix("127.0.0.0/9") }, "lo 127.0.0.0/8 is set by --dhcp-range"},
		"the router":               {ranged, func(n *store.Subnet) { n.Router = netip.MustParseAddr("127.0.0.2") }, ""},
		"the range without a flag": {flags("strict", func(*serveCmd) {}), func(n *store.Subnet) { n.Range = store.Range{} }, ""},
		"the next server":          {advertised, func(n *store.Subnet) { n.NextServer = netip.MustParseAddr("10.1.1.2") }, "the address that machines are told is set by --advertise"},
		"the mode, all off":        {off, func(n *store.Subnet) { n.Mode = store.DHCPProxy }, "the part in DHCP is set by --dhcp off"},
		"the domain, all off":      {off, func(n *store.Subnet) { n.Domain = "lab.example" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := operator(t, c.flags)
			n, err := s.a.db.PutSubnet(t.Context(), store.ActorFlag, on("lo", "127.0.0.0/8", store.DHCPFull, "127.9.0.1-127.9.0.9"))
			if err != nil {
				t.Fatal(err)
			}
			before := n
			c.change(&n)
			_, err = s.PutSubnet(t.Context(), "ada", n)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if all, _ := s.a.db.Subnets(t.Context()); len(all) != 1 || all[0].Revision != before.Revision {
				t.Errorf("it was changed: %+v", all)
			}
		})
	}
	s := operator(t, ranged)
	n, err := s.a.db.PutSubnet(t.Context(), store.ActorFlag, on("lo", "127.0.0.0/8", store.DHCPFull, "127.9.0.1-127.9.0.9"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSubnet(t.Context(), "ada", n.ID); store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "--dhcp-range") {
		t.Errorf("removed: %v", err)
	}
}
