package dhcp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/net/bpf"

	"lunboot/services/dhcp/survey"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// need skips a test whose peer is missing, but not in CI: a hole there would
// be seen by nobody.
func need(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		missing(t, tool+" is not installed")
	}
	return path
}

func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

// alone runs the calling test again in a network namespace of its own, and
// reports whether this is that run.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	if os.Getuid() != 0 {
		missing(t, "network namespaces need root")
	}
	need(t, "ip")
	need(t, "nsenter")
	t.Parallel() // the namespace is the test's own
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP: "+t.Name())) {
		t.Skipf("in its own namespace:\n%s", out)
	}
	return false
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

// wired is a wire between this namespace, srv0 with 10.77.0.1/24, and another
// one, cli0.
type wired struct{ pid string }

func wire2(t *testing.T) *wired {
	t.Helper()
	// A process keeps the other namespace.
	keeper := exec.Command("sleep", "300")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
	})
	w := &wired{pid: strconv.Itoa(keeper.Process.Pid)}
	run(t, "ip", "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", w.pid)
	t.Cleanup(func() { exec.Command("ip", "link", "del", "srv0").Run() }) // one test removes it itself
	run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "srv0")
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "link", "set", "srv0", "up")
	w.over(t, "ip", "link", "set", "lo", "up")
	w.over(t, "ip", "link", "set", "cli0", "up")
	return w
}

// over runs a command on the other side.
func (w *wired) over(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "nsenter", append([]string{"-t", w.pid, "-n"}, args...)...)
}

// inside runs f on a thread of the other namespace. What f opens stays there.
func (w *wired) inside(t *testing.T, f func()) {
	t.Helper()
	pid, err := strconv.Atoi(w.pid)
	require.NoError(t, err)
	there, err := netns.GetFromPid(pid)
	require.NoError(t, err)
	defer there.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := netns.Set(there); err != nil {
			done <- err
			return
		}
		f()
		done <- nil
	}()
	require.NoError(t, <-done)
}

// background starts a program in this namespace or the other until the test ends.
func (w *wired) background(t *testing.T, over bool, ready string, args ...string) int {
	t.Helper()
	if over {
		args = append([]string{"nsenter", "-t", w.pid, "-n"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(b), ready)
	}, 5*time.Second, 20*time.Millisecond, "%v did not start", args)
	return cmd.Process.Pid
}

// udhcpc returns the command of busybox's client.
func udhcpc(t *testing.T) []string {
	if path, err := exec.LookPath("udhcpc"); err == nil {
		return []string{path}
	}
	return []string{need(t, "busybox"), "udhcpc"}
}

// udhcpc asks for an address with busybox's client and returns what it was told.
func (w *wired) udhcpc(t *testing.T, args ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	require.NoError(t, os.WriteFile(script, []byte(`#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace $ip/24 dev $interface
env > `+dir+`/told
`), 0o755))
	client := append(udhcpc(t), "-i", "cli0", "-f", "-q", "-n", "-t", "8", "-T", "1", "-s", script)
	t.Log(w.over(t, append(client, args...)...))
	b, err := os.ReadFile(dir + "/told")
	require.NoError(t, err)
	told := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[k] = v
	}
	return told
}

// serve starts a server on srv0 with real time.
func serve(t *testing.T, change ...func(*Config)) (*Server, *inventory) {
	t.Helper()
	v := newInventory(time.Now)
	n := lab()
	n.Router = ip("10.77.0.254")
	cfg := v.config(t, n)
	cfg.Interface, cfg.ListenAddr = "srv0", ""
	for _, f := range change {
		f(&cfg)
	}
	return start(t, cfg), v
}

func cliMAC(t *testing.T, w *wired) store.MAC {
	var ifi *net.Interface
	var err error
	w.inside(t, func() { ifi, err = net.InterfaceByName("cli0") })
	require.NoError(t, err)
	return store.MAC(ifi.HardwareAddr)
}

func TestRealClientGetsAnAddress(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	s, v := serve(t)
	m := machine(1, "")
	m.MACs = []store.MAC{cliMAC(t, w)}
	m.ID = 1
	v.mu.Lock()
	v.machines = append(v.machines, m)
	v.mu.Unlock()
	told := w.udhcpc(t)
	assert.Equal(t, "10.77.0.100", told["ip"])
	assert.Equal(t, "255.255.255.0", told["subnet"])
	assert.Equal(t, "10.77.0.254", told["router"])
	assert.Equal(t, "m1", told["hostname"])
	assert.Equal(t, "10.77.0.1", told["serverid"])
	assert.Equal(t, "3600", told["lease"])
	assert.Empty(t, told["boot_file"])
	assert.Equal(t, "10.77.0.100", w.udhcpc(t, "-C")["ip"], "without a client identifier")
	assert.Equal(t, "10.77.0.100", w.udhcpc(t, "-B")["ip"], "by broadcast")

	t.Run("and gives it back", func(t *testing.T) {
		pid := w.background(t, true, "obtained", append(udhcpc(t), "-i", "cli0", "-f", "-R", "-s", "/bin/true")...)
		require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
		assert.Eventually(t, func() bool { return !v.lease("10.77.0.100").Expires.After(time.Now()) }, 5*time.Second, 10*time.Millisecond)
	})
	t.Run("and without raw sockets", func(t *testing.T) {
		s.mu.Lock()
		s.socket.raw.Close() // sending fails from now on
		s.mu.Unlock()
		assert.Equal(t, "10.77.0.100", w.udhcpc(t)["ip"])
	})
}

// A VLAN of the same wire is another network. The kernel takes the tag off a frame
// before packet sockets see it, whether or not this host has that VLAN.
func TestWhatIsTaggedForAVLANIsNotHeard(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	here, err := net.InterfaceByName("srv0")
	require.NoError(t, err)
	var there *net.Interface
	var peer *packet.Conn
	w.inside(t, func() {
		if there, err = net.InterfaceByName("cli0"); err == nil {
			peer, err = packet.Listen(there, packet.Raw, wire.IPv4, nil)
		}
	})
	require.NoError(t, err)
	defer peer.Close()
	card := store.MAC(there.HardwareAddr)
	udp := wire.Frame(card, wire.Everybody, netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), make([]byte, 300))
	arp := append(append(append([]byte{}, wire.Everybody[:]...), card[:]...), 0x08, 0x06)
	arp = append(arp, make([]byte, 46)...)
	for name, c := range map[string]struct {
		protocol int
		filter   []bpf.RawInstruction
		frame    []byte
	}{
		"DHCP": {wire.IPv4, wire.Datagrams(wire.ServerPort), udp},
		"ARP":  {wire.ARP, wire.ForUs(), arp},
	} {
		conn, err := packet.Listen(here, packet.Raw, c.protocol, &packet.Config{Filter: c.filter})
		require.NoError(t, err)
		defer conn.Close()
		last := len(c.frame) - 1
		for mark, tag := range [][]byte{{0x81, 0, 0, 10}, {0x81, 0, 0x60, 10}, {0x81, 0, 0xe0, 0}, nil} {
			c.frame[last] = byte(mark)
			_, err := peer.WriteTo(slices.Concat(c.frame[:12], tag, c.frame[12:]), &packet.Addr{HardwareAddr: wire.Everybody[:]})
			require.NoError(t, err)
		}
		var heard []byte
		buf := make([]byte, 2048)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		for !slices.Contains(heard, 3) {
			n, _, err := conn.ReadFrom(buf)
			require.NoError(t, err, "%s: heard %v", name, heard)
			if n > last && bytes.Equal(buf[6:12], card[:]) {
				heard = append(heard, buf[last])
			}
		}
		assert.Equal(t, []byte{2, 3}, heard, name)
	}
}

// nclient4 takes framed replies off a packet socket, as firmware does.
func TestFirmwareLikeClientIsToldToBoot(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	serve(t)
	var c *nclient4.Client
	var err error
	w.inside(t, func() { c, err = nclient4.New("cli0") })
	require.NoError(t, err)
	defer c.Close()
	lease, err := c.Request(t.Context(),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7})),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 9, 9, 9, 9, 0, 3})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 4, 'p', 'o', 'r', 't'})))
	require.NoError(t, err)
	assert.Equal(t, "10.77.0.100", lease.ACK.YourIPAddr.String())
	assert.Equal(t, "10.77.0.1", lease.ACK.ServerIPAddr.String())
	assert.True(t, strings.HasSuffix(lease.ACK.BootFileName, "/snponly.efi"))
	assert.Equal(t, []byte{255, 9, 9, 9, 9, 0, 3}, lease.ACK.Options.Get(dhcpv4.OptionClientIdentifier))
	assert.Equal(t, []byte{1, 4, 'p', 'o', 'r', 't'}, lease.ACK.Options.Get(dhcpv4.OptionRelayAgentInformation))

	w.over(t, "ip", "addr", "add", "10.77.0.100/24", "dev", "cli0")
	renewed, err := c.Renew(t.Context(), lease)
	require.NoError(t, err)
	assert.Equal(t, "10.77.0.100", renewed.ACK.YourIPAddr.String())
}

func TestAddressThatAnswersOnTheWireIsNotOffered(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	w.over(t, "ip", "addr", "add", "10.77.0.100/24", "dev", "cli0")
	s, _ := serve(t)
	require.Eventually(t, func() bool {
		taken, _ := s.wire.Checked(ip("10.77.0.100"))
		quiet, _ := s.wire.Checked(ip("10.77.0.101"))
		return taken == survey.Taken && quiet == survey.Quiet
	}, 5*time.Second, 20*time.Millisecond)
	var c *nclient4.Client
	var err error
	w.inside(t, func() { c, err = nclient4.New("cli0", nclient4.WithHWAddr(hw(7))) })
	require.NoError(t, err)
	defer c.Close()
	offer, err := c.DiscoverOffer(t.Context(), dhcpv4.WithBroadcast(true))
	require.NoError(t, err)
	assert.Equal(t, "10.77.0.101", offer.YourIPAddr.String())
}

// udhcpc -a asks the wire itself, and declines what is taken. Here our own kernel
// answers for the taken address, which our own check does not hear.
func TestRealClientDeclines(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	run(t, "ip", "route", "add", "local", "10.77.0.100/32", "dev", "srv0", "table", "local")
	_, v := serve(t)
	assert.Equal(t, "10.77.0.101", w.udhcpc(t, "-a200", "-A", "1")["ip"])
	assert.Equal(t, store.LeaseDeclined, v.lease("10.77.0.100").State)
	assert.Contains(t, v.kinds(), store.EventDHCPDecline)
	conflict(t, v, "nobody else on the wire answers for 10.77.0.100")
	assert.Less(t, time.Until(v.lease("10.77.0.100").Expires), time.Minute, "the wire was asked and was silent")
}

// conflict waits for the wire's word on an address that was declined.
func conflict(t *testing.T, v *inventory, reason string) {
	t.Helper()
	require.Eventually(t, func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return slices.ContainsFunc(v.events, func(e store.Event) bool {
			return e.Kind == store.EventDHCPConflict && e.Detail.Reason == reason
		})
	}, 10*time.Second, 20*time.Millisecond, reason)
}

// A client declines an address that somebody took after it was checked: the wire
// is asked at once, and its word counts for ten minutes.
func TestTheWireIsAskedForADeclinedAddress(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	s, v := serve(t)
	require.Eventually(t, func() bool {
		quiet, _ := s.wire.Checked(ip("10.77.0.100"))
		return quiet == survey.Quiet
	}, 10*time.Second, 20*time.Millisecond)
	var c *nclient4.Client
	var err error
	w.inside(t, func() { c, err = nclient4.New("cli0", nclient4.WithHWAddr(hw(7))) })
	require.NoError(t, err)
	defer c.Close()
	lease, err := c.Request(t.Context(), dhcpv4.WithBroadcast(true))
	require.NoError(t, err)
	assert.Equal(t, "10.77.0.100", lease.ACK.YourIPAddr.String())
	w.over(t, "ip", "addr", "add", "10.77.0.100/24", "dev", "cli0")
	p, err := dhcpv4.New(dhcpv4.WithHwAddr(hw(7)), dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(lease.ACK.YourIPAddr)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 77, 0, 1))))
	require.NoError(t, err)
	w.inside(t, func() {
		var conn net.Conn
		if conn, err = net.Dial("udp4", "10.77.0.1:67"); err == nil {
			_, err = conn.Write(p.ToBytes())
			conn.Close()
		}
	})
	require.NoError(t, err)
	ifi := strings.Fields(w.over(t, "ip", "-br", "link", "show", "cli0"))[2]
	conflict(t, v, ifi+" answers for 10.77.0.100")
	assert.Greater(t, time.Until(v.lease("10.77.0.100").Expires), 5*time.Minute)
	taken, _ := s.wire.Checked(ip("10.77.0.100"))
	assert.Equal(t, survey.Taken, taken)
}

func TestPortThatIsHeldIsNamed(t *testing.T) {
	if !alone(t) {
		return
	}
	need(t, "dnsmasq")
	w := wire2(t)
	v := newInventory(time.Now)
	cfg := v.config(t, lab())
	cfg.Interface, cfg.ListenAddr = "srv0", ""

	t.Run("by dnsmasq", func(t *testing.T) {
		pid := w.background(t, false, "started", dnsmasq("srv0", "10.77.0.50,10.77.0.60")...)
		err := New(cfg).Listen()
		assert.ErrorContains(t, err, fmt.Sprintf("UDP port 67 is held by dnsmasq (pid %d); stop it with: ", pid))
		assert.Equal(t, store.KindInUse, store.KindOf(err))
	})
	t.Run("by ourselves", func(t *testing.T) {
		start(t, cfg)
		assert.ErrorContains(t, New(cfg).Listen(), "UDP port 67 is held by this appliance itself")
	})
	t.Run("on another interface, which is none of ours", func(t *testing.T) {
		run(t, "ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1")
		run(t, "ip", "addr", "add", "10.88.0.1/24", "dev", "other0")
		run(t, "ip", "link", "set", "other0", "up")
		other := cfg
		other.Interface = "other0"
		other.Subnet.Prefix, other.Subnet.Range = netip.MustParsePrefix("10.88.0.0/24"), mustRange("10.88.0.100-10.88.0.110")
		start(t, cfg)
		start(t, other)
	})
}

func dnsmasq(ifname, addresses string) []string {
	return []string{"dnsmasq", "-d", "-C", "/dev/null", "--port=0", "--interface=" + ifname, "--bind-interfaces", "--no-ping",
		"--dhcp-authoritative", "--dhcp-range=" + addresses + ",1h", "--dhcp-boot=pxelinux.0", "--dhcp-leasefile=/dev/null", "--user=root"}
}

func TestServeEndsWhenTheInterfaceIsRemoved(t *testing.T) {
	if !alone(t) {
		return
	}
	wire2(t)
	v := newInventory(time.Now)
	cfg := v.config(t, lab())
	cfg.Interface, cfg.ListenAddr = "srv0", ""
	s := New(cfg)
	require.NoError(t, s.Listen())
	done := make(chan error)
	go func() { done <- s.Serve(t.Context()) }()
	run(t, "ip", "link", "del", "srv0")
	select {
	case err := <-done:
		assert.ErrorContains(t, err, `there is no interface "srv0"`)
	case <-time.After(10 * time.Second):
		t.Fatal("it went on, deaf")
	}
}

// A machine runs on its reserved address with a MAC that nobody enrolled, as a
// hypervisor's bridge does: it is given the address again at its next boot. Of a
// stranger it is told, and of his leaving.
func TestOnlyWhoAnswersAtABootTakesItsReservedAddress(t *testing.T) {
	if !alone(t) {
		return
	}
	w := wire2(t)
	const reserved = "10.77.0.7"
	later := new(atomic.Int64)
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	v := newInventory(now, machine(7, reserved))
	cfg := v.config(t, lab())
	cfg.Interface, cfg.ListenAddr = "srv0", ""
	s := start(t, cfg)
	require.Eventually(t, s.wire.Asks, 5*time.Second, 10*time.Millisecond)
	var c *nclient4.Client
	var err error
	w.inside(t, func() { c, err = nclient4.New("cli0", nclient4.WithHWAddr(hw(7))) })
	require.NoError(t, err)
	defer c.Close()
	boot := func() string {
		t.Helper()
		lease, err := c.Request(t.Context(), dhcpv4.WithBroadcast(true), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")))
		require.NoError(t, err)
		return lease.ACK.YourIPAddr.String()
	}
	found := func(want survey.Check) {
		t.Helper()
		require.Eventually(t, func() bool {
			got, _ := s.wire.Checked(ip(reserved))
			return got == want
		}, 5*time.Second, 20*time.Millisecond)
	}
	assert.Equal(t, reserved, boot())
	found(survey.Quiet)
	time.Sleep(100 * time.Millisecond) // the question is over
	// It is up within the minute, and speaks.
	w.over(t, "ip", "addr", "add", reserved+"/24", "dev", "cli0")
	w.inside(t, func() {
		var conn net.Conn
		if conn, err = (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(reserved)}}).Dial("udp4", "10.77.0.9:9"); err == nil {
			_, err = conn.Write([]byte("who has it")) // it asks for .9, and says who asks
			conn.Close()
		}
	})
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
	assert.Equal(t, reserved, boot(), "its next boot")

	// Two minutes later the same MAC answers while another boots.
	later.Add(int64(2 * time.Minute))
	assert.Equal(t, reserved, boot(), "the answer counts from the next boot on")
	conflict(t, v, cliMAC(t, w).String()+" answers for 10.77.0.7, which is reserved for m7")
	later.Add(int64(time.Minute))
	w.over(t, "ip", "addr", "del", reserved+"/24", "dev", "cli0")
	assert.Equal(t, "10.77.0.100", boot())
	conflict(t, v, "nobody else on the wire answers for 10.77.0.7 any more; m7 is given it when it asks next")
	assert.Equal(t, reserved, boot(), "the stranger is gone")
}
