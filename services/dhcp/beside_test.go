package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// A network with somebody else's DHCP server: the client's namespace is a
// bridge with our wire and the server's. The bridge's own interface is the
// client's card.
type besides struct {
	*wired
	server string // the process that keeps the server's namespace
}

func besideWire(t *testing.T) *besides {
	t.Helper()
	w := wire2(t)
	keeper := exec.Command("sleep", "300")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
	})
	b := &besides{w, strconv.Itoa(keeper.Process.Pid)}
	w.over(t, "ip", "link", "add", "card0", "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
	w.over(t, "ip", "link", "set", "cli0", "master", "card0")
	w.over(t, "ip", "link", "add", "far0", "type", "veth", "peer", "name", "dhcp0", "netns", b.server)
	w.over(t, "ip", "link", "set", "far0", "master", "card0")
	w.over(t, "ip", "link", "set", "far0", "up")
	w.over(t, "ip", "link", "set", "card0", "up")
	at := func(args ...string) { run(t, "nsenter", append([]string{"-t", b.server, "-n"}, args...)...) }
	at("ip", "addr", "add", "10.77.0.254/24", "dev", "dhcp0")
	at("ip", "link", "set", "dhcp0", "up")
	at("ip", "link", "set", "lo", "up")
	return b
}

// there starts a program in the server's namespace.
func (b *besides) there(t *testing.T, ready string, args ...string) {
	t.Helper()
	b.background(t, false, ready, append([]string{"nsenter", "-t", b.server, "-n"}, args...)...)
}

// kea returns the command of a Kea that gives .50 to .60 on dhcp0.
func kea(t *testing.T) []string {
	t.Helper()
	bin := need(t, "kea-dhcp4")
	dir := t.TempDir()
	conf := filepath.Join(dir, "kea.json")
	require.NoError(t, os.WriteFile(conf, []byte(`{"Dhcp4": {
		"interfaces-config": {"interfaces": ["dhcp0"], "dhcp-socket-type": "raw"},
		"lease-database": {"type": "memfile", "persist": false},
		"subnet4": [{"id": 1, "subnet": "10.77.0.0/24", "pools": [{"pool": "10.77.0.50-10.77.0.60"}], "option-data": [{"name": "routers", "data": "10.77.0.254"}]}],
		"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout", "flush": true}]}]
	}}`), 0o600))
	return []string{"env", "KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=none", bin, "-c", conf}
}

// firmware is a client made of captured messages.
type firmware struct {
	t    *testing.T
	b    *besides
	conn *packet.Conn
	mac  store.MAC
	card *net.Interface
}

// firmware makes a client on a card of its namespace, by the card's name.
func (b *besides) firmware(t *testing.T, card string, mac store.MAC) *firmware {
	t.Helper()
	b.over(t, "ip", "link", "set", card, "address", mac.String())
	f := &firmware{t: t, b: b, mac: mac}
	var err error
	b.inside(t, func() {
		if f.card, err = net.InterfaceByName(card); err == nil {
			f.conn, err = packet.Listen(f.card, packet.Raw, wire.IPv4, nil)
		}
	})
	require.NoError(t, err)
	t.Cleanup(func() { f.conn.Close() })
	return f
}

// broadcast sends a message as a client without an address does.
func (f *firmware) broadcast(p *dhcpv4.DHCPv4) {
	f.t.Helper()
	src, dst := netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67")
	_, err := f.conn.WriteTo(wire.Frame(f.mac, wire.Everybody, src, dst, p.ToBytes()), &packet.Addr{HardwareAddr: wire.Everybody[:]})
	require.NoError(f.t, err)
}

// answers collects what comes back for a message, by its server.
func (f *firmware) answers(p *dhcpv4.DHCPv4, want int) map[string]*dhcpv4.DHCPv4 {
	f.t.Helper()
	out := f.within(4*time.Second, p, want)
	require.Len(f.t, out, want)
	return out
}

// persists sends a message as often as firmware does, and returns an answer.
func (f *firmware) persists(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	f.t.Helper()
	for range 8 {
		f.broadcast(p)
		for _, back := range f.within(time.Second, p, 1) {
			return back
		}
	}
	require.FailNow(f.t, "nobody answers")
	return nil
}

// within collects the answers to a message that come in a while, by their server,
// until there are enough.
func (f *firmware) within(d time.Duration, p *dhcpv4.DHCPv4, want int) map[string]*dhcpv4.DHCPv4 {
	f.t.Helper()
	out := map[string]*dhcpv4.DHCPv4{}
	require.NoError(f.t, f.conn.SetReadDeadline(time.Now().Add(d)))
	buf := make([]byte, 2048)
	for len(out) < want {
		n, _, err := f.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		require.NoError(f.t, err)
		payload, _, src, ok := wire.Unframe(buf[:n], wire.ClientPort)
		if !ok {
			continue
		}
		back, err := dhcpv4.FromBytes(slices.Clone(payload))
		if err == nil && back.TransactionID == p.TransactionID && back.OpCode == dhcpv4.OpcodeBootReply {
			out[src.String()] = back
		}
	}
	return out
}

// quiet asserts that nobody but the server answers a message within a while.
func (f *firmware) quiet(p *dhcpv4.DHCPv4) {
	f.t.Helper()
	require.NoError(f.t, f.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	buf := make([]byte, 2048)
	for {
		n, _, err := f.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		payload, _, src, ok := wire.Unframe(buf[:n], wire.ClientPort)
		if !ok {
			continue
		}
		if back, err := dhcpv4.FromBytes(payload); err == nil && back.TransactionID == p.TransactionID {
			assert.NotEqual(f.t, "10.77.0.1", src.String(), "we answered %s", p.MessageType())
		}
	}
}

func parsed(t *testing.T, name string) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.FromBytes(captured(t)[name])
	require.NoError(t, err)
	return p
}

// boots plays a whole exchange of one kind of firmware: two offers, the address
// from the other server, and the boot answer from us, again from our boot
// server at both ports that firmware asks from.
func (f *firmware) boots(discover, request, file, server string) {
	t := f.t
	t.Helper()
	d := parsed(t, discover)
	f.broadcast(d)
	offers := f.answers(d, 2)
	require.Contains(t, offers, server)
	require.Contains(t, offers, "10.77.0.1")
	assert.Equal(t, file, offers["10.77.0.1"].BootFileName)
	assert.Equal(t, "0.0.0.0", offers["10.77.0.1"].YourIPAddr.String())
	given := offers[server].YourIPAddr
	assert.True(t, mustRange("10.77.0.50-10.77.0.60").Contains(netip.MustParseAddr(given.String())), "%s", given)

	r := parsed(t, request)
	r.TransactionID = d.TransactionID
	r.UpdateOption(dhcpv4.OptServerIdentifier(offers[server].ServerIdentifier()))
	r.UpdateOption(dhcpv4.OptRequestedIPAddress(given))
	f.broadcast(r)
	ack := f.answers(r, 1)
	require.Contains(t, ack, server)
	assert.Equal(t, dhcpv4.MessageTypeAck, ack[server].MessageType())
	f.quiet(r)

	f.b.over(t, "ip", "addr", "replace", given.String()+"/24", "dev", "card0")
	for _, port := range []int{4011, 68} {
		q := parsed(t, request)
		q.ClientIPAddr, q.TransactionID[0] = given, byte(port)
		q.Options.Del(dhcpv4.OptionServerIdentifier)
		q.Options.Del(dhcpv4.OptionRequestedIPAddress)
		q.SetUnicast()
		var conn *net.UDPConn
		var err error
		f.b.inside(t, func() {
			conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: given, Port: port}, &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 4011})
		})
		require.NoError(t, err)
		back := (&client{t, conn}).ask(q) // a connected socket: the answer comes from where it was asked
		conn.Close()
		assert.Equal(t, dhcpv4.MessageTypeAck, back.MessageType())
		assert.Equal(t, file, back.BootFileName)
	}
	f.b.over(t, "ip", "addr", "flush", "dev", "card0")
}

func proxied(v *inventory, t *testing.T) Config {
	n := lab()
	n.Mode, n.Range = store.DHCPProxy, store.Range{}
	cfg := v.config(t, n)
	cfg.Interface, cfg.ListenAddr = "srv0", ""
	return cfg
}

// everyFirmware boots each kind of firmware that was captured beside a server.
func (b *besides) everyFirmware(t *testing.T, v *inventory, server string) {
	for _, c := range []struct{ discover, request, file string }{
		{"bios-rom-discover", "bios-rom-request", "http://10.77.0.1/boot.ipxe"},
		{"undionly-discover", "undionly-request", "http://10.77.0.1/boot.ipxe"},
		{"ovmf-pxe-discover", "ovmf-pxe-request", "%s/snponly.efi"},
		{"ovmf-http-discover", "ovmf-http-request", "http://10.77.0.1/loaders/snponly.efi"},
	} {
		t.Run(c.discover, func(t *testing.T) {
			mac := store.MAC(parsed(t, c.discover).ClientHWAddr)
			file := c.file
			if strings.Contains(file, "%s") {
				file = fmt.Sprintf(file, mac.Hex12())
			}
			b.firmware(t, "card0", mac).boots(c.discover, c.request, file, server)
			events := v.of(mac)
			picked := slices.IndexFunc(events, func(e store.Event) bool { return e.Kind == store.EventDHCPOtherPick })
			require.GreaterOrEqual(t, picked, 0, "the request was not overheard: %v", events)
			assert.Equal(t, server, events[picked].Detail.Server)
			assert.True(t, events[picked].Addr.IsValid())
		})
	}
	assert.Zero(t, v.writes())
}

// of returns the events about a MAC.
func (v *inventory) of(mac store.MAC) []store.Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(v.events), func(e store.Event) bool { return e.MAC != mac })
}

func TestFirmwareBootsBesideDnsmasq(t *testing.T) {
	if !alone(t) {
		return
	}
	need(t, "dnsmasq")
	b := besideWire(t)
	v := newInventory(time.Now)
	start(t, proxied(v, t))
	b.there(t, "started", dnsmasq("dhcp0", "10.77.0.50,10.77.0.60")...)
	b.everyFirmware(t, v, "10.77.0.254")
}

func TestFirmwareBootsBesideKea(t *testing.T) {
	if !alone(t) {
		return
	}
	command := kea(t)
	b := besideWire(t)
	v := newInventory(time.Now)
	start(t, proxied(v, t))
	b.there(t, "DHCP4_STARTED", command...)
	b.everyFirmware(t, v, "10.77.0.254")
}

// The other server may be on this very host. It keeps its port, and what is
// sent to it alone.
func TestFirmwareBootsBesideDnsmasqOnOurOwnHost(t *testing.T) {
	if !alone(t) {
		return
	}
	need(t, "dnsmasq")
	b := besideWire(t)
	b.background(t, false, "started", dnsmasq("srv0", "10.77.0.50,10.77.0.60")...)
	v := newInventory(time.Now)
	s := start(t, proxied(v, t))
	assert.False(t, s.Addr().IsValid(), "the port is dnsmasq's")
	assert.Contains(t, s.Beside(), "UDP port 67 is held by dnsmasq")

	mac := store.MAC(parsed(t, "ovmf-pxe-discover").ClientHWAddr)
	f := b.firmware(t, "card0", mac)
	d := parsed(t, "ovmf-pxe-discover")
	f.broadcast(d)
	var given, server net.IP
	buf := make([]byte, 2048)
	boots := false
	require.NoError(t, f.conn.SetReadDeadline(time.Now().Add(4*time.Second)))
	for given == nil || !boots {
		n, _, err := f.conn.ReadFrom(buf)
		require.NoError(t, err, "given %v, told to boot: %v", given, boots)
		payload, _, _, ok := wire.Unframe(buf[:n], wire.ClientPort)
		if !ok {
			continue
		}
		if p, err := dhcpv4.FromBytes(slices.Clone(payload)); err == nil && p.TransactionID == d.TransactionID {
			if p.YourIPAddr.IsUnspecified() {
				boots = strings.HasSuffix(p.BootFileName, "/snponly.efi")
			} else {
				given, server = p.YourIPAddr, p.ServerIdentifier()
			}
		}
	}
	r := parsed(t, "ovmf-pxe-request")
	r.TransactionID = d.TransactionID
	r.UpdateOption(dhcpv4.OptServerIdentifier(server))
	r.UpdateOption(dhcpv4.OptRequestedIPAddress(given))
	f.broadcast(r)
	assert.Eventually(t, func() bool {
		return slices.ContainsFunc(v.of(mac), func(e store.Event) bool { return e.Kind == store.EventDHCPOtherPick })
	}, 3*time.Second, 10*time.Millisecond)

	// A renewal goes to dnsmasq alone.
	b.over(t, "ip", "addr", "replace", given.String()+"/24", "dev", "card0")
	renew := parsed(t, "ovmf-pxe-request")
	renew.ClientIPAddr, renew.TransactionID[0] = given, 99
	renew.Options.Del(dhcpv4.OptionServerIdentifier)
	renew.Options.Del(dhcpv4.OptionRequestedIPAddress)
	var conn *net.UDPConn
	var err error
	b.inside(t, func() {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: given, Port: 68}, &net.UDPAddr{IP: server, Port: 67})
	})
	require.NoError(t, err)
	defer conn.Close()
	heard := len(v.of(mac))
	assert.Equal(t, given.String(), (&client{t, conn}).ask(renew).YourIPAddr.String())
	time.Sleep(50 * time.Millisecond)
	assert.Len(t, v.of(mac), heard, "what is sent to the other server alone is none of our business")
}

// A server that is started on our host while we have its port gets it, and with
// it what its own clients send to it alone.
func TestThePortIsLeftToADHCPServerThatComesToOurHost(t *testing.T) {
	if !alone(t) {
		return
	}
	need(t, "dnsmasq")
	b := besideWire(t)
	s := New(proxied(newInventory(time.Now), t))
	require.NoError(t, s.Listen())
	done := make(chan error)
	go func() { done <- s.Serve(t.Context()) }()
	b.background(t, false, "started", dnsmasq("srv0", "10.77.0.50,10.77.0.60")...)
	select {
	case err := <-done:
		assert.ErrorContains(t, err, "UDP port 67 is held by dnsmasq")
	case <-time.After(10 * time.Second):
		t.Fatal("it went on, with the other server's packets")
	}
	require.NoError(t, s.Listen())
	assert.False(t, s.Addr().IsValid(), "the port is dnsmasq's")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.NoError(t, s.Serve(ctx))
}
