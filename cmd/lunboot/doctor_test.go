package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
)

const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

// A whole network in namespaces: this host with srv0, and a router on the other
// end of the wire that gives addresses.
func TestTheDoctorOfARealHostAndNetwork(t *testing.T) {
	if os.Getenv(insideNamespace) == "" {
		missing := func(why string) {
			if os.Getenv("CI") == "true" {
				t.Fatal(why)
			}
			t.Skip(why)
		}
		if os.Getuid() != 0 {
			missing("network namespaces need root")
		}
		for _, tool := range []string{"ip", "nsenter", "dnsmasq", "nft"} {
			if _, err := exec.LookPath(tool); err != nil {
				missing(tool + " is not installed")
			}
		}
		t.Parallel() // it waits for answers most of the time
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), insideNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in its own namespace: %v\n%s", err, out)
		}
		return
	}
	sh := func(line string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	background := func(ready string, args ...string) *exec.Cmd {
		t.Helper()
		log, err := os.Create(filepath.Join(t.TempDir(), "log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = log, log
		if ready == "" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); log.Close() })
		for deadline := time.Now().Add(10 * time.Second); ready != ""; time.Sleep(20 * time.Millisecond) {
			if b, err := os.ReadFile(log.Name()); err == nil && strings.Contains(string(b), ready) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v did not start", args)
			}
		}
		return cmd
	}
	keeper := background("", "sleep", "120")
	over := []string{"nsenter", "-t", strconv.Itoa(keeper.Process.Pid), "-n"}
	sh("ip link set lo up; ip link add srv0 type veth peer name cli0 netns " + over[2] + "; ip addr add 10.77.0.1/24 dev srv0; ip link set srv0 up")
	sh(strings.Join(over, " ") + " sh -c 'ip addr add 10.77.0.254/24 dev cli0; ip link set cli0 up; ip link set lo up'")
	server := []string{"dnsmasq", "-d", "-C", "/dev/null", "--port=0", "--bind-interfaces", "--no-ping", "--dhcp-leasefile=/dev/null", "--user=root", "--dhcp-range=10.77.0.50,10.77.0.60,1h"}
	first := background("started", append(slices.Clone(over), append(server, "--interface=cli0")...)...)

	doctor := func(dir string, args ...string) (string, int) {
		t.Helper()
		var out bytes.Buffer
		code := run(context.Background(), nil, append([]string{"--data", dir, "doctor"}, args...), strings.NewReader(""), &out, &out)
		return out.String(), code
	}
	says := func(text string, wants ...string) {
		t.Helper()
		for _, w := range wants {
			if !strings.Contains(text, w) {
				t.Errorf("it does not say %q:\n%s", w, text)
			}
		}
	}
	router := "10.77.0.254 ("

	t.Run("without an appliance", func(t *testing.T) {
		dir := dataDir(t)
		holder := background("started", append(server, "--interface=srv0")...)
		sh("nft add table inet filter; nft 'add chain inet filter input { type filter hook input priority 0; policy accept; }'; nft add rule inet filter input udp dport 69 drop")
		text, code := doctor(dir, "--interface", "srv0")
		if code != exitFailed {
			t.Errorf("it ended with %d", code)
		}
		says(text, "on srv0: UDP port 67 is held by dnsmasq (pid "+strconv.Itoa(holder.Process.Pid)+")", "XX    TFTP is let in", `nft insert rule inet filter input iifname "srv0" udp dport 69 accept`,
			"ok    DHCP is let in", "ok  interface srv0", "10.77.0.1/24, link up", router, "gives addresses and boots nothing: proxy fits")
		sh("nft flush ruleset")
		holder.Process.Kill()
	})
	t.Run("through the appliance", func(t *testing.T) {
		a := serve(t, dataDir(t), "--dhcp", "auto")
		defer a.stop(t)
		text, code := doctor(a.dir, "--probe", "srv0")
		if code != exitDone {
			t.Errorf("it ended with %d", code)
		}
		says(text, "srv0: "+router, "proxy fits", "UEFI HTTP boot", "address 10.77.0.")
	})
	t.Run("the first run's choice", func(t *testing.T) {
		a := quiet(t)
		err := networks{a}.Choose(t.Context(), "admin", "srv0", store.DHCPFull, store.Range{})
		if store.KindOf(err) != store.KindInvalid {
			t.Errorf("full without a range: %v", err)
		}
		rng, err := store.ParseRange("10.77.0.100-10.77.0.110")
		if err != nil {
			t.Fatal(err)
		}
		err = networks{a}.Choose(t.Context(), "admin", "srv0", store.DHCPFull, rng)
		if store.KindOf(err) != store.KindConflict || !strings.Contains(err.Error(), router) {
			t.Errorf("full beside a router: %v", err)
		}
		links, err := networks{a}.Links(t.Context())
		if err != nil || len(links) != 1 || links[0].Name != "srv0" || links[0].Proposed.String() != "10.77.0.128-10.77.0.254" {
			t.Errorf("the interfaces are %+v, %v", links, err)
		}
	})
	// dnsmasq as it is without flags pings an address for seconds before it offers it.
	t.Run("a server that pings first", func(t *testing.T) {
		asked := time.Now()
		if err := otherServer(t.Context(), "srv0"); !errors.Is(err, errOtherServer) {
			t.Errorf("one that does not ping: %v", err)
		}
		if d := time.Since(asked); d > 3*time.Second {
			t.Errorf("it answered at once, and that took %s", d)
		}
		first.Process.Kill()
		first.Wait()
		pings := slices.DeleteFunc(slices.Clone(server), func(arg string) bool { return arg == "--no-ping" })
		background("started", append(slices.Clone(over), append(pings, "--interface=cli0")...)...)
		if err := otherServer(t.Context(), "srv0"); !errors.Is(err, errOtherServer) || !strings.Contains(err.Error(), router) {
			t.Errorf("dnsmasq by default: %v", err)
		}
	})
	subnets := func(a *appliance) (all []string) {
		t.Helper()
		have, err := a.db.Subnets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range have {
			all = append(all, string(n.Mode)+" "+n.Name())
		}
		return all
	}
	t.Run("the router gives its network another number", func(t *testing.T) {
		a := quiet(t)
		a.cmd.DHCP, a.cmd.Interface = "proxy", []string{"srv0"}
		start := func(want string) {
			t.Helper()
			if err := a.network.Listen(); err != nil {
				t.Fatal(err)
			}
			if got := subnets(a); !slices.Equal(got, []string{want}) {
				t.Errorf("it serves %q, want %s", got, want)
			}
		}
		start("proxy srv0 10.77.0.0/24")
		a.network.closeAll()
		sh("ip addr flush dev srv0; ip addr add 10.78.0.1/24 dev srv0")
		start("proxy srv0 10.78.0.0/24")
		a.network.closeAll()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer a.network.closeAll()
		a.network.follow(ctx)
		sh("ip addr flush dev srv0; ip addr add 10.79.0.1/24 dev srv0")
		a.network.follow(ctx)
		if got := subnets(a); got[0] != "proxy srv0 10.78.0.0/24" {
			t.Errorf("an address that was away for a moment made it %q", got)
		}
		a.network.follow(ctx)
		all, _ := a.db.Subnets(ctx)
		if got := subnets(a); !slices.Equal(got, []string{"proxy srv0 10.79.0.0/24"}) || !a.network.serves(all[0]) || a.trouble("srv0") != "" {
			t.Errorf("it is to serve %q, and says %q", got, a.trouble("srv0"))
		}
		left := on("srv0", "10.78.0.0/24", store.DHCPOff, "")
		if flag := (acts{a: a}).flag(left); flag != "" {
			t.Errorf("a subnet of a network that is gone cannot be removed: %s", flag)
		}
		if flag := (acts{a: a}).flag(all[0]); flag != "--dhcp proxy" {
			t.Errorf("the flag of the subnet that it names is %q", flag)
		}
	})
	t.Run("an interface that no flag names starts with another address", func(t *testing.T) {
		a := quiet(t)
		a.cmd.DHCP = "proxy"
		if _, err := a.network.put(t.Context(), "admin", on("srv0", "10.77.0.0/24", store.DHCPProxy, "")); err != nil {
			t.Fatal(err)
		}
		look := func(address, want string) {
			t.Helper()
			sh("ip addr flush dev srv0; ip addr add " + address + " dev srv0")
			if err := a.network.fromFlags(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := subnets(a); !slices.Equal(got, []string{want}) {
				t.Errorf("with %s it serves %q, want %s", address, got, want)
			}
		}
		look("10.80.0.1/24", "proxy srv0 10.77.0.0/24")
		look("169.254.3.4/16", "proxy srv0 10.77.0.0/24") // nobody gave it one yet
		look("169.254.3.4/16", "proxy srv0 10.77.0.0/24")
		look("10.80.0.1/24", "proxy srv0 10.77.0.0/24")
		look("10.80.0.1/24", "proxy srv0 10.80.0.0/24")
		sh("ip addr flush dev srv0; ip addr add 10.79.0.1/24 dev srv0")
	})
	t.Run("a server on our own host", func(t *testing.T) {
		holder := background("started", append(slices.DeleteFunc(slices.Clone(server), func(arg string) bool { return strings.HasPrefix(arg, "--dhcp-range") }),
			"--dhcp-range=10.79.0.50,10.79.0.60,1h", "--interface=srv0")...)
		defer holder.Process.Kill()
		a := quiet(t)
		a.cmd.DHCP, a.cmd.Interface = "proxy", []string{"srv0"}
		if err := a.network.Listen(); err != nil {
			t.Fatal(err)
		}
		defer a.network.closeAll()
		if who := a.network.beside("srv0"); !strings.Contains(who, "held by dnsmasq") || a.network.beside("lo") != "" {
			t.Errorf("the port is had by %q", who)
		}
	})
	t.Run("an interface that has no address yet", func(t *testing.T) {
		a := quiet(t)
		a.cmd.Interface = []string{"srv0"}
		a.network.rival = func(context.Context, string) error { return errOtherServer }
		sh("ip addr flush dev srv0")
		if err := a.network.fromFlags(t.Context()); err != nil {
			t.Fatal(err)
		}
		a.network.settleWaiting(t.Context())
		if text := a.trouble("srv0"); len(subnets(a)) != 0 || !strings.Contains(text, "srv0 has no IPv4 address") {
			t.Errorf("it serves %q, and says %q", subnets(a), text)
		}
		sh("ip addr add 10.77.0.1/24 dev srv0")
		a.network.settleWaiting(t.Context())
		if got := subnets(a); !slices.Equal(got, []string{"proxy srv0 10.77.0.0/24"}) || a.trouble("srv0") != "" {
			t.Errorf("it serves %q, and says %q", got, a.trouble("srv0"))
		}
	})
	// Who asks on a wire does not say which of its networks he means.
	t.Run("an interface serves one subnet", func(t *testing.T) {
		sh("ip addr add 10.78.0.1/24 dev srv0")
		s := operator(t, flags("strict", func(*serveCmd) {}))
		first, err := s.PutSubnet(t.Context(), "ada", on("srv0", "10.77.0.0/24", store.DHCPFull, "10.77.0.100-10.77.0.110"))
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range []store.DHCPMode{store.DHCPFull, store.DHCPProxy} {
			_, err := s.PutSubnet(t.Context(), "ada", on("srv0", "10.78.0.0/24", mode, ""))
			var e *store.Error
			if !errors.As(err, &e) || e.Kind != store.KindConflict || e.Field != "interface" || !strings.Contains(err.Error(), "lunboot subnet set 10.77.0.0/24 --mode off") {
				t.Errorf("a second one in mode %s: %v", mode, err)
			}
		}
		second, err := s.PutSubnet(t.Context(), "ada", on("srv0", "10.78.0.0/24", store.DHCPOff, ""))
		if err != nil {
			t.Fatal("one that is off stands in nobody's way:", err)
		}
		first.Domain = "lab.example"
		if first, err = s.PutSubnet(t.Context(), "ada", first); err != nil {
			t.Error("the one that is served is changed:", err)
		}
		second.Mode = store.DHCPProxy
		if _, err := s.PutSubnet(t.Context(), "ada", second); store.KindOf(err) != store.KindConflict {
			t.Errorf("switched on beside the other: %v", err)
		}
		// A flag, or the choice for an interface, decides for all of it.
		if _, err := s.a.network.put(t.Context(), store.ActorFlag, second); err != nil {
			t.Fatal(err)
		}
		all, err := s.a.db.Subnets(t.Context())
		for _, n := range all {
			if want := map[string]store.DHCPMode{"10.77.0.0/24": store.DHCPOff, "10.78.0.0/24": store.DHCPProxy}[n.Prefix.String()]; n.Mode != want {
				t.Errorf("%s is %s, want %s", n.Name(), n.Mode, want)
			}
		}
		if len(all) != 2 || err != nil {
			t.Errorf("%+v, %v", all, err)
		}
	})
}
