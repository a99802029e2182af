package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lunboot/store"
	"lunboot/web/probe"
)

// partOf is what /readyz says of a part.
func partOf(t *testing.T, a *testAppliance, name string) (ready, known bool) {
	t.Helper()
	resp, err := http.Get("http://" + a.Admin + probe.ReadyPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var said probe.Answer
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil {
		t.Fatal(err)
	}
	for _, p := range said.Parts {
		if p.Name == name {
			return p.Ready, true
		}
	}
	return false, false
}

// A lab's box often starts before its network has an address: the rest of the
// appliance is up, DHCP says what it waits for, and serves when it comes.
func TestAnInterfaceMayGetItsAddressAfterTheStart(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	wire(t)
	for _, name := range []string{"lo", "lab1"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName("lab0")
	if err != nil {
		t.Fatal(err)
	}
	address := func(change func(netlink.Link, *netlink.Addr) error, a string) {
		t.Helper()
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	const rng = "10.9.0.100-10.9.0.110"
	dir := dataDir(t)
	// What the settings page shows comes from where the API has it.
	trouble := func() string {
		t.Helper()
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "lunboot.sock"))
		}}}
		resp, err := c.Get("http://lunboot/api/v1/network/interfaces")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var links struct{ Items []store.Link }
		if err := json.NewDecoder(resp.Body).Decode(&links); err != nil {
			t.Fatal(err)
		}
		for _, l := range links.Items {
			if l.Name == "lab0" {
				return l.Trouble
			}
		}
		t.Fatalf("the interfaces are %+v", links)
		return ""
	}
	waits := func(a *testAppliance, says string) {
		t.Helper()
		if ready, known := partOf(t, a, "DHCP on lab0"); ready || !known {
			t.Errorf("DHCP on lab0 is ready: %t, and a part: %t", ready, known)
		}
		if text := trouble(); text != "No addresses are given on lab0: "+says {
			t.Errorf("the page says %q", text)
		}
		if !strings.Contains(a.log.String(), says) {
			t.Errorf("the log does not say %q", says)
		}
	}
	becomes := func(a *testAppliance, want bool) {
		t.Helper()
		for end := time.Now().Add(40 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if ready, _ := partOf(t, a, "DHCP on lab0"); ready == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("it is not so that it serves (%t): %s", want, a.log)
			}
		}
	}
	serves := func(a *testAppliance) {
		t.Helper()
		becomes(a, true)
		if text := trouble(); text != "" {
			t.Errorf("the page goes on: %s", text)
		}
	}
	full := []string{"--dhcp", "full", "--interface", "lab0", "--dhcp-range", rng}

	address(netlink.AddrDel, "10.9.0.1/24")
	a := serve(t, dir, full...)
	first := "lab0 has no IPv4 address yet, and needs one of the network that the range " + rng + " is in; give it one, such as: ip address add 10.9.0.1/24 dev lab0"
	waits(a, first)
	if code, out, _ := cliIn(dir, "doctor"); code != exitFailed || !strings.Contains(out, first) {
		t.Errorf("the doctor says: %d\n%s", code, out)
	}
	address(netlink.AddrAdd, "10.9.0.1/24")
	serves(a)
	again := "lab0 has no address in 10.9.0.0/24 yet; give it one: ip address add 10.9.0.1/24 dev lab0"
	address(netlink.AddrDel, "10.9.0.1/24") // while it is served
	becomes(a, false)
	for end := time.Now().Add(30 * time.Second); trouble() == "" && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	waits(a, again)
	address(netlink.AddrAdd, "10.9.0.1/24")
	serves(a)
	a.stop(t)

	// As it was chosen once, by a flag or on a page.
	for _, flags := range [][]string{{"--dhcp", "auto"}, full} {
		address(netlink.AddrDel, "10.9.0.1/24")
		a = serve(t, dir, flags...)
		waits(a, again)
		// Another network's address is not what it waits for.
		address(netlink.AddrAdd, "10.10.0.1/24")
		waits(a, again)
		address(netlink.AddrAdd, "10.9.0.1/24")
		serves(a)
		a.stop(t)
		address(netlink.AddrDel, "10.9.0.1/24")
		a = serve(t, dir, flags...) // its part was settled before, so that this is no slip of the operator's
		waits(a, again)
		a.stop(t)
		address(netlink.AddrDel, "10.10.0.1/24")
		address(netlink.AddrAdd, "10.9.0.1/24")
	}
}

// A range that fits no address of an interface is a slip, when nothing was served
// there before; and so is an interface that there is not.
func TestARangeOfAnotherNetworkEndsTheStart(t *testing.T) {
	if !inOwnNamespaces(t) {
		return
	}
	wire(t)
	refusedStart(t, dataDir(t), []string{"--dhcp", "full", "--interface", "lab0", "--dhcp-range", "10.10.0.100-10.10.0.110"}, "10.10.0.100-10.10.0.110 is in no network of lab0, which has 10.9.0.1/24")
}

// What a flag wants in place of a subnet is refused because another server answers:
// the subnet of before must not be served for that.
func TestARefusedRangeBringsBackNoOtherOne(t *testing.T) {
	a := quiet(t)
	old := store.Subnet{Interface: "lo", Prefix: netip.MustParsePrefix("127.0.0.0/8"), Mode: store.DHCPFull, LeaseTime: defaultLease,
		Range: store.Range{From: netip.MustParseAddr("127.0.0.10"), To: netip.MustParseAddr("127.0.0.20")}}
	if _, err := a.network.put(t.Context(), "admin", old); err != nil {
		t.Fatal(err)
	}
	a.cmd.DHCP, a.cmd.Interface = "full", []string{"lo"}
	if err := a.set.rng.UnmarshalText([]byte("127.0.0.30-127.0.0.40")); err != nil {
		t.Fatal(err)
	}
	a.network.rival = func(context.Context, string) error { return errOtherServer }
	a.network.waiting["lo"] = true
	a.network.settleWaiting(t.Context())
	if w, err := a.network.wanted(t.Context()); err != nil || len(w) != 0 {
		t.Errorf("it serves %v, %v", w, err)
	}
	if text := a.trouble("lo"); !strings.Contains(text, "No addresses are given on lo: --dhcp full: another DHCP server") {
		t.Errorf("it says %q", text)
	}
	a.network.rival = func(context.Context, string) error { return nil }
	a.network.settleWaiting(t.Context())
	if w, err := a.network.wanted(t.Context()); err != nil || len(w) != 1 || w[0].Range != a.set.rng || a.trouble("lo") != "" {
		t.Errorf("it serves %v, %v, and says %q", w, err, a.trouble("lo"))
	}
}

func TestTheExampleOfAnAddressIsNoneThatMachinesAreGiven(t *testing.T) {
	for _, c := range []struct{ prefix, rng, router, want string }{
		{"10.9.0.0/24", "", "", "10.9.0.1/24"},
		{"10.9.0.0/24", "10.9.0.1-10.9.0.9", "", "10.9.0.10/24"},
		{"10.9.0.0/24", "10.9.0.2-10.9.0.9", "10.9.0.1", "10.9.0.10/24"},
		{"10.9.0.0/30", "10.9.0.1-10.9.0.2", "", "10.9.0.1/30"},
		{"10.0.0.0/8", "10.0.0.2-10.255.255.250", "10.0.0.1", "10.255.255.251/8"},
		{"10.0.0.0/8", "10.0.0.1-10.255.255.254", "", "10.0.0.1/8"},
	} {
		s := store.Subnet{Prefix: netip.MustParsePrefix(c.prefix)}
		if c.rng != "" {
			s.Range, _ = store.ParseRange(c.rng)
		}
		if c.router != "" {
			s.Router = netip.MustParseAddr(c.router)
		}
		if got := ownIn(s).String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
