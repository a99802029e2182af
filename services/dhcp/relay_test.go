package dhcp

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

// namespace makes a network namespace that lives as long as the test.
func namespace(t *testing.T) *wired {
	t.Helper()
	keeper := exec.Command("sleep", "300")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
	})
	return &wired{pid: strconv.Itoa(keeper.Process.Pid)}
}

// routedWires are two wires with a router between: the appliance, 10.77.0.1, on
// one, the clients of 10.88.0.0/24 on the other. The router has 10.77.0.2 and
// 10.88.0.1.
func routedWires(t *testing.T) (router, far *wired) {
	t.Helper()
	router = wire2(t)
	far = namespace(t)
	router.over(t, "ip", "addr", "add", "10.77.0.2/24", "dev", "cli0")
	router.over(t, "ip", "link", "add", "down0", "type", "veth", "peer", "name", "cli0", "netns", far.pid)
	router.over(t, "ip", "addr", "add", "10.88.0.1/24", "dev", "down0")
	router.over(t, "ip", "link", "set", "down0", "up")
	router.over(t, "sysctl", "-q", "net.ipv4.ip_forward=1")
	far.over(t, "ip", "link", "set", "lo", "up")
	far.over(t, "ip", "link", "set", "cli0", "up")
	run(t, "ip", "route", "add", "10.88.0.0/24", "via", "10.77.0.2")
	return router, far
}

// relays are the real relays, by name: how each is started on the router, until
// the test ends.
func relays(t *testing.T) map[string]func(t *testing.T, router *wired) {
	t.Helper()
	dnsmasq, dhcrelay := need(t, "dnsmasq"), need(t, "dhcrelay")
	return map[string]func(*testing.T, *wired){
		"dnsmasq": func(t *testing.T, router *wired) {
			router.background(t, true, "DHCP relay", dnsmasq, "-d", "-C", "/dev/null", "--port=0", "--user=root", "--dhcp-relay=10.88.0.1,10.77.0.1")
		},
		"dhcrelay": func(t *testing.T, router *wired) {
			router.background(t, true, "Sending on", dhcrelay, "-4", "-d", "--no-pid", "-a", "-id", "down0", "-iu", "cli0", "10.77.0.1")
		},
	}
}

// serveRelayed starts a server on srv0 that gives addresses behind relays only.
func serveRelayed(t *testing.T) (*Server, *inventory) {
	t.Helper()
	return serve(t, func(c *Config) {
		c.Subnet = store.Subnet{Interface: "srv0", Mode: store.DHCPOff}
		n := behind()
		n.LeaseTime = 10 * time.Minute
		c.Relayed = []store.Subnet{n}
	})
}

func TestRealRelayFromDnsmasq(t *testing.T)  { behindRelay(t, "dnsmasq") }
func TestRealRelayFromDhcrelay(t *testing.T) { behindRelay(t, "dhcrelay") }

// behindRelay plays the life of a lease behind a real relay, with real clients.
func behindRelay(t *testing.T, relay string) {
	if !alone(t) {
		return
	}
	router, far := routedWires(t)
	s, v := serveRelayed(t)
	relays(t)[relay](t, router)

	told := far.udhcpc(t)
	require.Equal(t, "10.88.0.100", told["ip"])
	assert.Equal(t, "10.88.0.1", told["router"])
	assert.Equal(t, "10.77.0.1", told["serverid"], "the address that the relay reached")
	assert.Equal(t, store.LeaseBound, v.lease("10.88.0.100").State)
	far.over(t, "ip", "route", "replace", "default", "via", "10.88.0.1")

	t.Run("a renewal goes past the relay", func(t *testing.T) {
		before := v.lease("10.88.0.100").Expires
		pid := far.background(t, true, "obtained", append(udhcpc(t), "-i", "cli0", "-f", "-s", "/bin/true", "-r", "10.88.0.100")...)
		bound := v.lease("10.88.0.100").Expires
		assert.True(t, bound.After(before))
		v.await(t, 8) // of two leases
		v.kinds()
		require.NoError(t, syscall.Kill(pid, syscall.SIGUSR1)) // renew
		require.Eventually(t, func() bool { return v.lease("10.88.0.100").Expires.After(bound) }, 5*time.Second, 10*time.Millisecond)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		v.await(t, 2)
		// dhcrelay takes a copy of what the router forwards, and relays that too.
		v.mu.Lock()
		defer v.mu.Unlock()
		assert.True(t, slices.ContainsFunc(v.events, func(e store.Event) bool { return e.Detail.Relay == "" }), "%v", v.events)
	})
	t.Run("options for an address of one's own", func(t *testing.T) {
		for _, to := range []string{"10.77.0.1", "255.255.255.255"} {
			ack := inform(t, far, "10.88.0.100", to)
			assert.Equal(t, dhcpv4.MessageTypeAck, ack.MessageType(), to)
			assert.True(t, ack.YourIPAddr.IsUnspecified(), "RFC 2131 §4.3.5")
			assert.Equal(t, "10.88.0.1", ack.Router()[0].String())
		}
	})
	t.Run("dhclient remembers a wrong address", func(t *testing.T) {
		dhclient := need(t, "dhclient")
		dir := t.TempDir()
		leases, conf := filepath.Join(dir, "leases"), filepath.Join(dir, "conf")
		require.NoError(t, os.WriteFile(conf, []byte("timeout 10;\ninitial-interval 1;\n"), 0o644))
		ask := func() {
			t.Log(far.over(t, dhclient, "-1", "-v", "-cf", conf, "-lf", leases, "-pf", filepath.Join(dir, "pid"), "-sf", "/bin/true", "cli0"))
			// It goes on in the background, to renew.
			pid := 0
			require.Eventually(t, func() bool {
				b, _ := os.ReadFile(filepath.Join(dir, "pid"))
				pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
				return pid != 0
			}, 5*time.Second, 10*time.Millisecond)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			require.NoError(t, os.Remove(filepath.Join(dir, "pid")))
		}
		ask()
		b, err := os.ReadFile(leases)
		require.NoError(t, err)
		wrong := regexp.MustCompile(`fixed-address \S+;`).ReplaceAll(b, []byte("fixed-address 10.88.0.103;"))
		require.NoError(t, os.WriteFile(leases, wrong, 0o644))
		v.kinds()
		ask()
		kinds := v.kinds()
		assert.Contains(t, kinds, store.EventDHCPNak)
		assert.Equal(t, store.EventDHCPAck, kinds[len(kinds)-1], "it asked anew")
		assert.False(t, v.lease("10.88.0.103").Address.IsValid())
	})
	// The router itself uses it; -B, since it would keep a reply to that address.
	t.Run("an address that is taken is declined", func(t *testing.T) {
		router.over(t, "ip", "route", "add", "local", "10.88.0.100/32", "dev", "down0", "table", "local")
		far.over(t, "ip", "addr", "flush", "dev", "cli0")
		assert.Equal(t, "10.88.0.101", far.udhcpc(t, "-B", "-a200", "-A", "1")["ip"])
		assert.Equal(t, store.LeaseDeclined, v.lease("10.88.0.100").State)
	})
	t.Run("nothing is given to who asks directly", func(t *testing.T) {
		unserved := s.Dropped().Unserved
		cmd := append(udhcpc(t), "-i", "cli0", "-f", "-q", "-n", "-t", "1", "-T", "1", "-s", "/bin/true")
		_, err := exec.Command("nsenter", append([]string{"-t", router.pid, "-n"}, cmd...)...).CombinedOutput()
		assert.Error(t, err)
		assert.Equal(t, unserved+1, s.Dropped().Unserved)
	})
	if relay == "dhcrelay" {
		v.mu.Lock()
		defer v.mu.Unlock()
		last := v.events[len(v.events)-1]
		assert.Equal(t, "port down0", last.Detail.Port, "what -a adds")
		assert.Equal(t, "10.88.0.1", last.Detail.Relay)
	}
}

// Where another server gives the addresses, an offer carries none, and a relay has
// nowhere to send it but to everybody: also for a client that did not set the
// broadcast flag, as no iPXE and no BIOS does.
func TestAProxyOfferReachesItsClientThroughARealRelay(t *testing.T) {
	if !alone(t) {
		return
	}
	router, far := routedWires(t)
	_, v := serve(t, func(c *Config) {
		c.Subnet = store.Subnet{Interface: "srv0", Mode: store.DHCPOff}
		n := behind()
		n.Mode, n.Range = store.DHCPProxy, store.Range{}
		c.Relayed = []store.Subnet{n}
	})
	for name, begin := range relays(t) {
		t.Run(name, func(t *testing.T) {
			begin(t, router)
			for _, captured := range []string{"bios-rom-discover", "ovmf-pxe-discover"} {
				d := parsed(t, captured)
				f := (&besides{wired: far}).firmware(t, "cli0", store.MAC(d.ClientHWAddr))
				offer := f.persists(d) // a relay says that it is there a moment before it listens
				assert.Equal(t, dhcpv4.MessageTypeOffer, offer.MessageType(), captured)
				assert.Equal(t, "10.77.0.1", offer.ServerIdentifier().String(), captured)
				assert.True(t, offer.YourIPAddr.IsUnspecified(), captured)
				assert.NotEmpty(t, offer.BootFileName, captured)
			}
		})
	}
	assert.Zero(t, v.writes())
}

// The relay asks at one of our addresses; our route to it leads through another
// interface. DHCP goes that way, and machines are told to boot from there.
func TestRelayIsAnsweredByRoute(t *testing.T) {
	if !alone(t) {
		return
	}
	router, far := routedWires(t)
	run(t, "ip", "link", "add", "alt0", "type", "veth", "peer", "name", "alt0", "netns", router.pid)
	run(t, "ip", "addr", "add", "10.78.0.1/24", "dev", "alt0")
	run(t, "ip", "link", "set", "alt0", "up")
	router.over(t, "ip", "addr", "add", "10.78.0.2/24", "dev", "alt0")
	router.over(t, "ip", "link", "set", "alt0", "up")
	for _, w := range []string{"all", "srv0", "alt0"} { // RFC 3704: not from the wrong side, unless told
		run(t, "sysctl", "-q", "net.ipv4.conf."+w+".rp_filter=0")
	}
	// A relay further away neither answers ARP of ours nor asks from that address.
	router.over(t, "sysctl", "-q", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
	run(t, "ip", "route", "replace", "10.88.0.0/24", "via", "10.78.0.2")
	_, v := serveRelayed(t)
	relays(t)["dnsmasq"](t, router)
	told := far.udhcpc(t, "-V", "PXEClient:Arch:00000:UNDI:002001")
	assert.Equal(t, "10.88.0.100", told["ip"])
	assert.Equal(t, "10.77.0.1", told["serverid"], "the address that the relay reached")
	assert.Equal(t, "10.78.0.1", told["siaddr"], "the address that leads back here")
	assert.Equal(t, store.LeaseBound, v.lease("10.88.0.100").State)
}

// dhcrelay -U names an address of its upper side, which lies in another subnet of
// ours, and the client's subnet by link selection (RFC 3527).
func TestRealRelayNamesTheSubnetByLinkSelection(t *testing.T) {
	if !alone(t) {
		return
	}
	router, far := routedWires(t)
	_, v := serve(t, func(c *Config) { c.Relayed = []store.Subnet{behind()} })
	router.background(t, true, "Sending on", need(t, "dhcrelay"), "-4", "-d", "--no-pid", "-a", "-U", "cli0", "-id", "down0", "10.77.0.1")
	told := far.udhcpc(t)
	assert.Equal(t, "10.88.0.100", told["ip"])
	assert.Equal(t, "10.88.0.1", told["router"])
	assert.Equal(t, ip("10.77.0.2"), v.lease("10.88.0.100").Relay)
}

// RFC 8357: a relay that shares its host with a server has a port of its own.
func TestRelayIsAnsweredAtThePortThatItAskedFrom(t *testing.T) {
	if !alone(t) {
		return
	}
	router, _ := routedWires(t)
	serveRelayed(t)
	router.inside(t, func() {
		for _, c := range []struct {
			from string
			said []byte
		}{{"10.88.0.1:4711", []byte{19, 0}}, {"10.88.0.1:67", []byte{1, 1, 'x'}}} {
			conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(c.from)))
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.WriteToUDP(discover(1, through("10.88.0.1", c.said...)).ToBytes(), &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67})
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
			buf := make([]byte, 1500)
			n, from, err := conn.ReadFromUDP(buf)
			require.NoError(t, err, c.from)
			assert.Equal(t, "10.77.0.1:67", from.String())
			offer, err := dhcpv4.FromBytes(buf[:n])
			require.NoError(t, err)
			assert.Equal(t, "10.88.0.100", offer.YourIPAddr.String())
			assert.Equal(t, c.said, offer.Options.Get(dhcpv4.OptionRelayAgentInformation))
		}
	})
}

// inform asks for options from an address on cli0, and returns the answer.
func inform(t *testing.T, far *wired, from, to string) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.NewInform(cliMACbytes(t, far), net.ParseIP(from))
	require.NoError(t, err)
	var back *dhcpv4.DHCPv4
	far.inside(t, func() {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 68})
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.WriteToUDP(p.ToBytes(), &net.UDPAddr{IP: net.ParseIP(to), Port: 67})
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
		buf := make([]byte, 1500)
		for back == nil || back.TransactionID != p.TransactionID { // what was asked before may be answered still
			n, err := conn.Read(buf)
			require.NoError(t, err)
			back, err = dhcpv4.FromBytes(buf[:n])
			require.NoError(t, err)
		}
	})
	return back
}

func cliMACbytes(t *testing.T, w *wired) net.HardwareAddr {
	m := cliMAC(t, w)
	return m[:]
}
