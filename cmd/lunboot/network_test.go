package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/services/dhcp/survey"
	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/pages"
)

// quiet is an appliance with an inventory and nothing that listens.
func quiet(t *testing.T) *appliance {
	t.Helper()
	db, err := sqlite.Open(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	a := &appliance{cmd: &serveCmd{DHCP: "auto"}, db: db, log: slog.New(slog.DiscardHandler), banners: map[string]string{}}
	a.network = newNetwork(a, nil)
	a.surveys = survey.NewBook(time.Now)
	return a
}

func TestGivingAddressesPausesWhileAnotherServerAnswers(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	prefix := netip.MustParsePrefix("10.77.0.0/24")
	rng := store.Range{From: netip.MustParseAddr("10.77.0.100"), To: netip.MustParseAddr("10.77.0.199")}
	if _, err := a.network.put(ctx, "admin", store.Subnet{Interface: "eth9", Prefix: prefix, Mode: store.DHCPFull, Range: rng, LeaseTime: defaultLease}); err != nil {
		t.Fatal(err)
	}
	serves := func() bool {
		t.Helper()
		w, err := a.network.wanted(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(w) == 1
	}
	var answer error
	a.network.rival = func(_ context.Context, name string) error {
		if name != "eth9" {
			t.Errorf("asked %q", name)
		}
		return answer
	}
	a.network.askForRivals(ctx)
	if !serves() {
		t.Fatal("paused although nobody else answers")
	}
	answer = fmt.Errorf("%w, on eth9: 10.77.0.2", errOtherServer)
	a.network.askForRivals(ctx)
	if serves() {
		t.Error("gives addresses beside another server")
	}
	if b := a.banners["rival eth9"]; !strings.Contains(b, "paused") || !strings.Contains(b, "10.77.0.2") {
		t.Errorf("the banner says %q", b)
	}
	answer = errors.New("the interface is down")
	a.network.askForRivals(ctx)
	if serves() {
		t.Error("a question that could not be asked ended the pause")
	}
	answer = nil
	a.network.askForRivals(ctx)
	if serves() || a.banners["rival eth9"] == "" {
		t.Error("one question that nobody answered ended the pause")
	}
	answer = fmt.Errorf("%w, on eth9: 10.77.0.2", errOtherServer)
	a.network.askForRivals(ctx)
	answer = nil
	a.network.askForRivals(ctx)
	if serves() {
		t.Error("two silences with an answer between them ended the pause")
	}
	a.network.askForRivals(ctx)
	if !serves() || a.banners["rival eth9"] != "" {
		t.Error("still paused after the other server has gone")
	}
	answer = errOtherServer
	a.network.askForRivals(ctx)
	if a.network.untilAsked() > time.Minute {
		t.Errorf("nobody looks for %s whether the other server is still there", a.network.untilAsked())
	}
	for _, mode := range []store.DHCPMode{store.DHCPOff, store.DHCPProxy, ""} {
		a.network.askForRivals(ctx)
		if a.banners["rival eth9"] == "" {
			t.Fatal("no banner")
		}
		s, err := a.db.Subnets(ctx)
		if err != nil || len(s) != 1 {
			t.Fatal(s, err)
		}
		if s[0].Mode = mode; mode == "" {
			err = a.db.DeleteSubnet(ctx, "admin", s[0].ID)
		} else {
			_, err = a.db.PutSubnet(ctx, "admin", s[0])
		}
		if err != nil {
			t.Fatal(err)
		}
		a.network.follow(ctx)
		if b := a.banners["rival eth9"]; b != "" {
			t.Errorf("it is %q by now, and the banner says %q", mode, b)
		}
		if _, err := a.network.put(ctx, "admin", store.Subnet{Interface: "eth9", Prefix: prefix, Mode: store.DHCPFull, Range: rng, LeaseTime: defaultLease}); err != nil {
			t.Fatal(err)
		}
		if !serves() {
			t.Errorf("still paused after it was %q and chosen again", mode)
		}
	}
	a.cmd.DHCPForce = true
	a.network.askForRivals(ctx)
	if !serves() {
		t.Error("--dhcp-force was not heeded")
	}
}

func TestRelaysAreListenedToOnEveryInterface(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	sites := func() map[string]site {
		t.Helper()
		all, err := a.network.sites(ctx)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]site{}
		for _, s := range all {
			out[s.subnet.Interface] = s
		}
		return out
	}
	if s := sites(); len(s) != 0 {
		t.Errorf("it listens where nobody chose to: %v", s)
	}
	own := store.Subnet{Interface: "eth9", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPFull, Range: store.Range{From: netip.MustParseAddr("10.77.0.100"), To: netip.MustParseAddr("10.77.0.199")}}
	if _, err := a.network.put(ctx, "admin", own); err != nil {
		t.Fatal(err)
	}
	if s := sites(); len(s) != 1 || s["eth9"].subnet.Mode != store.DHCPFull || len(s["eth9"].relayed) != 0 {
		t.Errorf("an interface that was chosen: %v", s)
	}
	relayed := store.Subnet{Prefix: netip.MustParsePrefix("10.88.0.0/24"), Mode: store.DHCPFull, Range: store.Range{From: netip.MustParseAddr("10.88.0.100"), To: netip.MustParseAddr("10.88.0.199")}}
	if _, err := a.network.put(ctx, "admin", relayed); err != nil {
		t.Fatal(err)
	}
	got := sites()
	if len(got["eth9"].relayed) != 1 {
		t.Errorf("relays are not answered on the interface that was chosen: %v", got["eth9"])
	}
	delete(got, "eth9")
	for name, s := range got {
		if name == "lo" || len(addressesOf(name)) == 0 {
			t.Errorf("it listens on %s, where no relay is", name)
		}
		if s.subnet.Mode != store.DHCPOff || len(s.relayed) != 2 {
			t.Errorf("on %s, which nobody chose, not only relays are answered: %v", name, s)
		}
	}
	if first := firstAddress(); !first.IsLoopback() && len(got) == 0 {
		t.Errorf("nobody listens at %s", first)
	}
	a.cmd.DHCPListen = "127.0.0.1:6767"
	if s := sites(); len(s) != 1 {
		t.Errorf("more than the address of --dhcp-listen: %v", s)
	}
}

func TestTheFirstRunGivesNoAddressesBesideAnotherServer(t *testing.T) {
	a := quiet(t)
	a.network.rival = func(context.Context, string) error { return fmt.Errorf("%w: 127.0.0.53", errOtherServer) }
	rng := store.Range{From: netip.MustParseAddr("127.0.0.10"), To: netip.MustParseAddr("127.0.0.20")}
	choice := []pages.SetupChoice{{Interface: "lo", Mode: store.DHCPFull, Range: rng}}
	err := setup{a}.Confirm(t.Context(), "admin", choice)
	if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), "127.0.0.53") {
		t.Errorf("got %v", err)
	}
	if s, _ := a.db.Subnets(t.Context()); len(s) != 0 {
		t.Errorf("it was chosen all the same: %v", s)
	}
	a.network.rival = func(context.Context, string) error { return nil }
	if err := (setup{a}).Confirm(t.Context(), "admin", choice); err != nil {
		t.Fatal(err)
	}
	if s, _ := a.db.Subnets(t.Context()); len(s) != 1 || s[0].Mode != store.DHCPFull {
		t.Errorf("chosen: %v", s)
	}
}

func TestTheModeOfAnInterfaceIsSettledByFlagsAndByWhoElseAnswers(t *testing.T) {
	const rng = "127.0.0.10-127.0.0.20"
	other := fmt.Errorf("%w: 127.0.0.53", errOtherServer)
	full := store.Subnet{Interface: "lo", Prefix: netip.MustParsePrefix("127.0.0.0/8"), Mode: store.DHCPFull, LeaseTime: defaultLease}
	if err := full.Range.UnmarshalText([]byte(rng)); err != nil {
		t.Fatal(err)
	}
	proxy, off := full, full
	proxy.Mode, off.Mode = store.DHCPProxy, store.DHCPOff
	for name, c := range map[string]struct {
		dhcp, rng string
		force     bool
		known     store.Subnet
		rival     error
		mode      store.DHCPMode // empty: nothing is served, and nothing is written
		asked     bool
		refused   string
	}{
		"auto, nobody else":                      {dhcp: "auto", rng: rng, mode: store.DHCPFull, asked: true},
		"auto, another server":                   {dhcp: "auto", rng: rng, rival: other, mode: store.DHCPProxy, asked: true},
		"auto, no range, nobody else":            {dhcp: "auto", asked: true},
		"auto, no range, another server":         {dhcp: "auto", rival: other, mode: store.DHCPProxy, asked: true},
		"auto, the other server is away":         {dhcp: "auto", rng: rng, known: proxy, mode: store.DHCPProxy},
		"auto, another server has come":          {dhcp: "auto", rng: rng, known: full, rival: other, mode: store.DHCPFull},
		"auto, switched off before, nobody else": {dhcp: "auto", rng: rng, known: off, mode: store.DHCPFull, asked: true},
		"auto, switched off on a page":           {dhcp: "auto", known: off, mode: store.DHCPOff},
		"auto, forced":                           {dhcp: "auto", rng: rng, force: true, rival: other, mode: store.DHCPFull},
		"auto, nobody could be asked":            {dhcp: "auto", rng: rng, rival: errors.New("down"), asked: true},
		"full, nobody else":                      {dhcp: "full", rng: rng, mode: store.DHCPFull, asked: true},
		"full, another server":                   {dhcp: "full", rng: rng, rival: other, asked: true, refused: "127.0.0.53"},
		"full, over what auto settled":           {dhcp: "full", rng: rng, known: proxy, mode: store.DHCPFull, asked: true},
		"full, forced":                           {dhcp: "full", rng: rng, force: true, rival: other, mode: store.DHCPFull},
		"proxy":                                  {dhcp: "proxy", mode: store.DHCPProxy},
		"proxy, over what gave addresses":        {dhcp: "proxy", known: full, mode: store.DHCPProxy},
		"off":                                    {dhcp: "off", known: full, mode: store.DHCPFull}, // as it was, and not served
	} {
		t.Run(name, func(t *testing.T) {
			a := quiet(t)
			a.cmd.DHCP, a.cmd.Interface, a.cmd.DHCPForce = c.dhcp, []string{"lo"}, c.force
			if err := a.set.rng.UnmarshalText([]byte(c.rng)); err != nil {
				t.Fatal(err)
			}
			if c.known.Interface != "" {
				if _, err := a.network.put(t.Context(), "admin", c.known); err != nil {
					t.Fatal(err)
				}
			}
			asked := false
			a.network.rival = func(context.Context, string) error { asked = true; return c.rival }
			err := a.network.fromFlags(t.Context())
			if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Fatalf("got %v", err)
			}
			s, _ := a.db.Subnets(t.Context())
			var got store.DHCPMode
			if len(s) > 0 {
				got = s[0].Mode
			}
			if len(s) > 1 || got != c.mode || asked != c.asked {
				t.Errorf("asked: %v, settled: %v; want %q", asked, s, c.mode)
			}
			if c.known.Interface != "" && c.rng == "" && len(s) == 1 && s[0].Range != c.known.Range {
				t.Errorf("the range that was chosen once is gone: %v", s)
			}
			served, err := a.network.wanted(t.Context())
			if want := c.mode != "" && c.mode != store.DHCPOff && c.dhcp != "off"; err != nil || (len(served) == 1) != want {
				t.Errorf("served: %v, %v", served, err)
			}
		})
	}
}

func TestProxyModeSaysThatTheOtherServerHasGoneAndGivesNoAddresses(t *testing.T) {
	a := quiet(t)
	ctx := t.Context()
	rng := store.Range{From: netip.MustParseAddr("10.77.0.100"), To: netip.MustParseAddr("10.77.0.199")}
	if _, err := a.network.put(ctx, "admin", store.Subnet{Interface: "eth9", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPProxy, Range: rng}); err != nil {
		t.Fatal(err)
	}
	a.network.rival = func(context.Context, string) error { return nil }
	a.network.askForRivals(ctx)
	if b := a.banners["rival eth9"]; !strings.Contains(b, "No DHCP server gives addresses on eth9") {
		t.Errorf("the banner says %q", b)
	}
	if w, err := a.network.wanted(ctx); err != nil || len(w) != 1 || w[0].Mode != store.DHCPProxy {
		t.Errorf("served: %v, %v", w, err)
	}
	a.network.rival = func(context.Context, string) error { return errOtherServer }
	a.network.askForRivals(ctx)
	if b := a.banners["rival eth9"]; b != "" {
		t.Errorf("it is back, and the banner says %q", b)
	}
	if w, err := a.network.wanted(ctx); err != nil || len(w) != 1 {
		t.Errorf("served: %v, %v", w, err)
	}
}

func TestTheProposedRangeLeavesRoomForEverybodyElse(t *testing.T) {
	for in, want := range map[string]string{
		"192.168.40.1/24":   "192.168.40.128-192.168.40.254",
		"192.168.40.200/24": "192.168.40.128-192.168.40.199",
		"10.0.0.1/16":       "10.0.128.0-10.0.128.199",
		"10.77.0.1/28":      "10.77.0.8-10.77.0.14",
	} {
		if got := proposeRange(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s: proposed %s, want %s", in, got, want)
		}
	}
	if r := proposeRange(netip.MustParsePrefix("10.0.0.1/30")); r.From.IsValid() {
		t.Errorf("proposed %s of a network of two", r)
	}
}
