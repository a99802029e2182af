package survey

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// missing skips a test whose peer is missing, but not in CI: a hole there would
// be seen by nobody.
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
	t.Parallel()
	if os.Getuid() != 0 {
		missing(t, "network namespaces need root")
	}
	for _, tool := range []string{"ip", "nsenter", "dnsmasq"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool+" is not installed")
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
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

func run(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	require.NoError(t, err, "%v: %s", args, out)
}

// lab is a wire between our interface srv0, 10.77.0.1, and a namespace where
// other servers stand, on cli0 with 10.77.0.2.
type lab struct{ pid string }

func newLab(t *testing.T) lab {
	t.Helper()
	keeper := exec.Command("sleep", "120")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
	})
	l := lab{strconv.Itoa(keeper.Process.Pid)}
	run(t, "ip", "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", l.pid)
	run(t, "ip", "addr", "add", "10.77.0.1/24", "dev", "srv0")
	run(t, "ip", "link", "set", "srv0", "up")
	run(t, l.over("ip", "addr", "add", "10.77.0.2/24", "dev", "cli0")...)
	run(t, l.over("ip", "addr", "add", "10.77.0.3/24", "dev", "cli0")...)
	run(t, l.over("ip", "link", "set", "cli0", "up")...)
	run(t, l.over("ip", "link", "set", "lo", "up")...)
	return l
}

func (l lab) over(args ...string) []string {
	return append([]string{"nsenter", "-t", l.pid, "-n"}, args...)
}

// dnsmasq starts a server until the test ends.
func dnsmasq(t *testing.T, before []string, args ...string) {
	t.Helper()
	args = append(append(before, "dnsmasq", "-d", "-C", "/dev/null", "--port=0", "--bind-interfaces", "--dhcp-leasefile=/dev/null", "--user=root"), args...)
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
		return err == nil && strings.Contains(string(b), "started")
	}, 5*time.Second, 20*time.Millisecond, "dnsmasq did not start")
}

// soon is enough for servers that do not ping before they offer.
const soon = time.Second

func asked(t *testing.T) store.Survey {
	t.Helper()
	heard, err := Ask(t.Context(), "srv0", soon, store.ClientKinds()...)
	require.NoError(t, err)
	s := store.Survey{Interface: "srv0", Heard: heard}
	t.Log(s.Sentence())
	return s
}

func by(s store.Survey, k store.ClientKind) (out []store.Heard) {
	for _, h := range s.Heard {
		if h.As == k {
			out = append(out, h)
		}
	}
	return out
}

func TestANetworkWithoutAServerIsSilent(t *testing.T) {
	if !alone(t) {
		return
	}
	newLab(t)
	s := asked(t)
	assert.Empty(t, s.Heard)
	assert.Equal(t, store.DHCPFull, s.Fits())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Ask(ctx, "srv0", soon, store.ClientKinds()...)
	assert.ErrorIs(t, err, context.Canceled)
	_, err = Ask(t.Context(), "nope0", soon)
	assert.ErrorContains(t, err, `there is no interface "nope0"`)
	_, err = Ask(t.Context(), "lo", soon)
	assert.ErrorContains(t, err, "not an Ethernet")
	run(t, "ip", "link", "set", "srv0", "down")
	_, err = Ask(t.Context(), "srv0", soon)
	assert.ErrorContains(t, err, "ip link set srv0 up")
}

func TestARouterGivesAddressesAndBootsNobody(t *testing.T) {
	if !alone(t) {
		return
	}
	l := newLab(t)
	dnsmasq(t, l.over(), "--interface=cli0", "--no-ping", "--dhcp-range=10.77.0.50,10.77.0.60,1h")
	s := asked(t)
	require.Len(t, s.Heard, len(store.ClientKinds()))
	for _, h := range s.Heard {
		assert.Equal(t, netip.MustParseAddr("10.77.0.2"), h.Server)
		assert.False(t, h.MAC.IsZero())
		assert.False(t, h.Ours)
		assert.Empty(t, h.File)
		assert.True(t, store.Range{From: netip.MustParseAddr("10.77.0.50"), To: netip.MustParseAddr("10.77.0.60")}.Contains(h.Offered))
	}
	// A server that sets addresses aside sets aside one for all five.
	assert.Equal(t, s.Heard[0].Offered, s.Heard[len(s.Heard)-1].Offered)
	assert.Equal(t, store.VerdictAddresses, s.Verdict())
}

func TestAServerThatPingsFirstIsHeardToo(t *testing.T) {
	if !alone(t) {
		return
	}
	l := newLab(t)
	dnsmasq(t, l.over(), "--interface=cli0", "--dhcp-range=10.77.0.50,10.77.0.60,1h")
	heard, err := Ask(t.Context(), "srv0", FullTime, store.ClientKinds()...)
	require.NoError(t, err)
	assert.Equal(t, store.VerdictAddresses, store.Survey{Heard: heard}.Verdict())
}

func TestAServerThatBootsSomeMachinesIsAConflict(t *testing.T) {
	if !alone(t) {
		return
	}
	l := newLab(t)
	dnsmasq(t, l.over(), "--interface=cli0", "--no-ping", "--dhcp-range=10.77.0.50,10.77.0.60,1h",
		"--dhcp-match=set:bios,option:client-arch,0", "--dhcp-match=set:efi,option:client-arch,7", "--dhcp-match=set:http,option:client-arch,16",
		"--dhcp-match=set:ipxe,175", "--dhcp-boot=tag:bios,pxelinux.0", "--dhcp-boot=tag:efi,tag:!ipxe,grub.efi,files,10.77.0.9", "--dhcp-boot=tag:ipxe,http://10.77.0.9/boot.ipxe",
		"--dhcp-option-force=tag:http,60,HTTPClient", "--dhcp-boot=tag:http,http://10.77.0.9/grub.efi")
	s := asked(t)
	assert.Equal(t, store.VerdictConflict, s.Verdict())
	for kind, file := range map[store.ClientKind]string{
		store.ClientPlain: "", store.ClientBIOS: "pxelinux.0", store.ClientUEFI: "grub.efi",
		store.ClientHTTP: "http://10.77.0.9/grub.efi", store.ClientIPXE: "http://10.77.0.9/boot.ipxe",
	} {
		if got := by(s, kind); assert.Len(t, got, 1, "%s", kind) {
			assert.Equal(t, file, got[0].File, "%s", kind)
		}
	}
	assert.Equal(t, netip.MustParseAddr("10.77.0.9"), by(s, store.ClientUEFI)[0].Next)
	assert.Contains(t, s.Sentence(), `BIOS machines with "pxelinux.0"`)
}

func TestAProxyBootsWithoutAddresses(t *testing.T) {
	if !alone(t) {
		return
	}
	l := newLab(t)
	dnsmasq(t, l.over(), "--interface=cli0", "--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,Boot,pxelinux", "--pxe-service=X86-64_EFI,Boot,grub.efi")
	s := asked(t)
	assert.Equal(t, store.VerdictBootOnly, s.Verdict())
	assert.Empty(t, by(s, store.ClientPlain))
	if got := by(s, store.ClientBIOS); assert.Len(t, got, 1) {
		assert.True(t, got[0].PXE)
		assert.False(t, got[0].Offered.IsValid())
	}
	// dnsmasq names no file here: the machine is to ask port 4011 for it.
	if got := by(s, store.ClientUEFI); assert.Len(t, got, 1) {
		assert.True(t, got[0].PXE)
	}
	assert.Contains(t, s.Sentence(), "through a PXE menu")
}

func TestOurOwnAnswerIsRecognised(t *testing.T) {
	if !alone(t) {
		return
	}
	newLab(t)
	// Our second card on the same network, and a server of this host on it.
	run(t, "ip", "link", "add", "br0", "type", "bridge", "forward_delay", "0")
	run(t, "ip", "link", "add", "own0", "type", "veth", "peer", "name", "own1")
	for _, p := range []string{"own1", "br0", "own0"} {
		run(t, "ip", "link", "set", p, "up")
	}
	run(t, "ip", "link", "set", "own1", "master", "br0")
	run(t, "ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
	dnsmasq(t, nil, "--interface=br0", "--no-ping", "--dhcp-range=10.88.0.50,10.88.0.60,1h", "--dhcp-boot=undionly.kpxe")
	heard, err := Ask(t.Context(), "own0", soon, store.ClientKinds()...)
	require.NoError(t, err)
	require.NotEmpty(t, heard)
	for _, h := range heard {
		assert.True(t, h.Ours)
	}
	assert.Equal(t, store.VerdictNobody, store.Survey{Heard: heard}.Verdict())
}

// next is a range that would give these addresses next.
type next []netip.Addr

func (n next) Next(context.Context) ([]netip.Addr, error)        { return n, nil }
func (n next) Holds(context.Context, netip.Addr, store.MAC) bool { return false }
func (n next) Asked(context.Context, netip.Addr, []store.MAC)    {}

func TestTheProberHearsAgainAfterTheLinkWasDown(t *testing.T) {
	if !alone(t) {
		return
	}
	newLab(t)
	ifi, err := net.InterfaceByName("srv0")
	require.NoError(t, err)
	conn, err := packet.Listen(ifi, packet.Raw, wire.ARP, nil)
	require.NoError(t, err)
	p := NewProber(time.Now, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.listen(ctx, conn, store.MAC(ifi.HardwareAddr)) })
	defer wg.Wait()
	defer conn.Close()
	defer cancel()
	run(t, "ip", "link", "set", "srv0", "down")
	time.Sleep(10 * time.Millisecond) // it meets the error
	run(t, "ip", "link", "set", "srv0", "up")
	taken, free := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("10.77.0.9")
	require.NoError(t, p.round(t.Context(), next{taken, free}, conn, store.MAC(ifi.HardwareAddr)))
	check, _ := p.Checked(taken)
	require.Equal(t, Taken, check)
	check, _ = p.Checked(free)
	require.Equal(t, Quiet, check)
}
