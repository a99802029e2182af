package ra

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
	raw "github.com/mdlayher/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv6"

	"lunboot/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// booting are the MACs that spoke PXE; the value can change while it serves.
type booting struct {
	mu  sync.Mutex
	all bool
	mac map[store.MAC]bool
}

func (b *booting) SpokePXE(m store.MAC) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all || b.mac[m]
}

type emitted struct {
	mu     sync.Mutex
	events []store.Event
}

func (e *emitted) Emit(ev store.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.events = append(e.events, ev)
}

func (e *emitted) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.events)
}

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestWants(t *testing.T) {
	from := packet{from: machine, src: theirs, solicits: true}
	fresh := func() *answerer {
		return &answerer{
			cfg: Config{Interface: "lab0", Recent: &booting{mac: map[store.MAC]bool{machine: true}}}, own: ours, router: new(time.Time),
			forwards: func(string) (bool, error) { return false, nil }, started: noon.Add(-time.Minute), answered: map[store.MAC]time.Time{},
		}
	}
	for name, c := range map[string]struct {
		change func(*answerer, *packet)
		want   bool
	}{
		"a machine that boots":               {func(*answerer, *packet) {}, true},
		"one that has no address yet":        {func(_ *answerer, p *packet) { p.src = netip.IPv6Unspecified() }, true},
		"one that does not boot":             {func(_ *answerer, p *packet) { p.from[5]++ }, false},
		"ourselves":                          {func(a *answerer, p *packet) { p.from = ours }, false},
		"a group address":                    {func(_ *answerer, p *packet) { p.from[0] |= 1 }, false},
		"a global source":                    {func(_ *answerer, p *packet) { p.src = netip.MustParseAddr("2001:db8::1") }, false},
		"a wire with a router":               {func(a *answerer, _ *packet) { *a.router = noon.Add(-29 * time.Minute) }, false},
		"a wire whose router is long gone":   {func(a *answerer, _ *packet) { *a.router = noon.Add(-31 * time.Minute) }, true},
		"a host that forwards":               {func(a *answerer, _ *packet) { a.forwards = func(string) (bool, error) { return true, nil } }, false},
		"a machine that was just answered":   {func(a *answerer, _ *packet) { a.answered[machine] = noon.Add(-900 * time.Millisecond) }, false},
		"a machine that was answered before": {func(a *answerer, _ *packet) { a.answered[machine] = noon.Add(-time.Second) }, true},
		"before a router could answer":       {func(a *answerer, _ *packet) { a.started = noon.Add(-time.Millisecond) }, false},
		"more machines at once than remembered": {func(a *answerer, _ *packet) {
			for i := range maxAnswered {
				a.answered[store.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}] = noon
			}
		}, false},
		"many machines one after the other": {func(a *answerer, _ *packet) {
			for i := range maxAnswered {
				a.answered[store.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}] = noon.Add(-time.Minute)
			}
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, p := fresh(), from
			c.change(a, &p)
			got, err := a.wants(p, noon)
			assert.NoError(t, err)
			assert.Equal(t, c.want, got)
			assert.LessOrEqual(t, len(a.answered), maxAnswered)
		})
	}
	t.Run("an unreadable setting is no permission", func(t *testing.T) {
		a := fresh()
		a.forwards = func(string) (bool, error) { return false, os.ErrPermission }
		got, err := a.wants(from, noon)
		assert.Error(t, err)
		assert.False(t, got)
	})
}

func TestListenNamesAMissingInterface(t *testing.T) {
	assert.ErrorContains(t, New(Config{Interface: "nope0"}).Listen(), `there is no interface "nope0"`)
	assert.ErrorContains(t, New(Config{Interface: "lo"}).Listen(), "not an Ethernet")
	assert.ErrorContains(t, New(Config{Interface: "lo"}).Serve(t.Context()), "not listening")
}

func need(t *testing.T, ok bool, why string) {
	t.Helper()
	if ok {
		return
	}
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
	_, err := exec.LookPath("ip")
	need(t, err == nil && os.Getuid() == 0, "network namespaces need root and iproute2")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its own namespace: %v\n%s", err, out)
	}
	return false
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// wire makes srv0 here and cli0 in a namespace that it returns.
func wire(t *testing.T) netns.NsHandle {
	t.Helper()
	keeper := exec.Command("sleep", "120")
	keeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	require.NoError(t, keeper.Start())
	t.Cleanup(func() {
		keeper.Process.Kill()
		keeper.Wait()
	})
	pid := strconv.Itoa(keeper.Process.Pid)
	run(t, "ip", "link", "add", "srv0", "type", "veth", "peer", "name", "cli0", "netns", pid)
	// No waiting for duplicate address detection, and no solicitations but the test's:
	// a kernel sends its own within seconds after the link has come up.
	quiet := func(name string) {
		for _, key := range []string{"accept_dad", "router_solicitations"} {
			assert.NoError(t, os.WriteFile("/proc/thread-self/root/proc/sys/net/ipv6/conf/"+name+"/"+key, []byte("0"), 0))
		}
	}
	quiet("srv0")
	run(t, "ip", "link", "set", "srv0", "up")
	there, err := netns.GetFromPid(keeper.Process.Pid)
	require.NoError(t, err)
	t.Cleanup(func() { there.Close() })
	inside(t, there, func() {
		quiet("cli0")
		run(t, "ip", "link", "set", "cli0", "up")
	})
	return there
}

// inside runs f on a thread of another namespace. What f opens stays there.
func inside(t *testing.T, there netns.NsHandle, f func()) {
	t.Helper()
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

// peer opens a neighbour discovery socket on the other side.
func peer(t *testing.T, there netns.NsHandle) (conn *ndp.Conn, card store.MAC) {
	t.Helper()
	inside(t, there, func() {
		ifi, err := net.InterfaceByName("cli0")
		if !assert.NoError(t, err) {
			return
		}
		card = store.MAC(ifi.HardwareAddr)
		for range 100 { // the address follows the carrier
			if conn, _, err = ndp.Listen(ifi, ndp.LinkLocal); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		assert.NoError(t, err)
	})
	require.NotNil(t, conn)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetControlMessage(ipv6.FlagHopLimit, true))
	require.NoError(t, conn.JoinGroup(allRouters))
	require.NoError(t, conn.JoinGroup(allNodes))
	return conn, card
}

// awaitRA returns the next advertisement, nil when none comes in time.
func awaitRA(t *testing.T, conn *ndp.Conn, wait time.Duration) (*ndp.RouterAdvertisement, int) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(wait)))
	for {
		m, cm, _, err := conn.ReadFrom()
		if err != nil {
			return nil, 0
		}
		if ra, ok := m.(*ndp.RouterAdvertisement); ok {
			return ra, cm.HopLimit
		}
	}
}

func solicit(t *testing.T, conn *ndp.Conn) {
	t.Helper()
	require.NoError(t, conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters))
}

func TestMachineThatBootsNeedNotWait(t *testing.T) {
	if !alone(t) {
		return
	}
	there := wire(t)
	conn, card := peer(t, there)
	var stopped atomic.Pointer[time.Time]
	clock := func() time.Time {
		if at := stopped.Load(); at != nil {
			return *at
		}
		return time.Now()
	}
	recent, events := &booting{mac: map[store.MAC]bool{}}, &emitted{}
	s := New(Config{Interface: "srv0", Recent: recent, Emit: events, Log: slog.New(slog.DiscardHandler), Now: clock})
	require.NoError(t, s.Listen())
	assert.Error(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	defer func() {
		cancel()
		assert.NoError(t, <-done)
		require.NoError(t, s.Listen(), "it can be started again")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		assert.NoError(t, s.Serve(ctx))
	}()

	require.NoError(t, conn.SetReadDeadline(time.Now().Add(3*time.Second)))
	m, _, _, err := conn.ReadFrom()
	require.NoError(t, err)
	assert.IsType(t, &ndp.RouterSolicitation{}, m, "first it asks whether there is a router")
	time.Sleep(settle)

	solicit(t, conn)
	ra, _ := awaitRA(t, conn, 300*time.Millisecond)
	assert.Nil(t, ra, "a machine that does not boot from us")

	recent.mu.Lock()
	recent.mac[card] = true
	recent.mu.Unlock()
	before := time.Now()
	solicit(t, conn)
	ra, hops := awaitRA(t, conn, 2*time.Second)
	require.NotNil(t, ra)
	assert.Less(t, time.Since(before), time.Second)
	assert.Equal(t, 255, hops)
	assert.Zero(t, ra.RouterLifetime)
	assert.False(t, ra.ManagedConfiguration || ra.OtherConfiguration)
	require.Len(t, ra.Options, 1)
	assert.IsType(t, &ndp.LinkLayerAddress{}, ra.Options[0])
	assert.Eventually(t, func() bool { return events.count() == 1 }, time.Second, time.Millisecond)
	assert.Equal(t, store.EventRASent, events.events[0].Kind)
	assert.Equal(t, card, events.events[0].MAC)

	// The clock stands still for this: on a busy host the second question may
	// come a second later by itself.
	at := events.events[0].At
	stopped.Store(&at)
	solicit(t, conn)
	ra, _ = awaitRA(t, conn, 300*time.Millisecond)
	assert.Nil(t, ra, "once a second is enough")
	stopped.Store(nil)
	time.Sleep(perMachine)

	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/srv0/forwarding", []byte("1"), 0))
	solicit(t, conn)
	ra, _ = awaitRA(t, conn, 300*time.Millisecond)
	assert.Nil(t, ra, "a host that forwards may be the router")
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/srv0/forwarding", []byte("0"), 0))

	require.NoError(t, conn.WriteTo(&ndp.RouterAdvertisement{RouterLifetime: 30 * time.Minute}, nil, allNodes))
	time.Sleep(100 * time.Millisecond)
	solicit(t, conn)
	ra, _ = awaitRA(t, conn, 300*time.Millisecond)
	assert.Nil(t, ra, "there is a router")
	assert.Equal(t, 1, events.count())
}

// What goes by on a VLAN of the same wire is of another network: neither are its
// machines answered, nor does its router silence us.
func TestWhatIsTaggedForAVLANIsNotHeard(t *testing.T) {
	if !alone(t) {
		return
	}
	there := wire(t)
	events := &emitted{}
	s := New(Config{Interface: "srv0", Recent: &booting{all: true}, Emit: events, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	time.Sleep(settle + 100*time.Millisecond)
	send := func(tag ...byte) {
		t.Helper()
		b := captured(t)
		inside(t, there, func() {
			ifi, err := net.InterfaceByName("cli0")
			if !assert.NoError(t, err) {
				return
			}
			conn, err := raw.Listen(ifi, raw.Raw, etherTypeAll, nil)
			if !assert.NoError(t, err) {
				return
			}
			defer conn.Close()
			_, err = conn.WriteTo(slices.Concat(b[:12], tag, b[12:]), &raw.Addr{HardwareAddr: b[:6]})
			assert.NoError(t, err)
		})
	}
	send(0x81, 0, 0, 10)
	time.Sleep(300 * time.Millisecond)
	assert.Zero(t, events.count(), "VLAN 10")
	send(0x81, 0, 0xe0, 0)
	assert.Eventually(t, func() bool { return events.count() == 1 }, 3*time.Second, time.Millisecond, "a priority, and no VLAN")
	time.Sleep(perMachine)
	send()
	assert.Eventually(t, func() bool { return events.count() == 2 }, 3*time.Second, time.Millisecond)
	cancel()
	assert.NoError(t, <-done)
}

// A router program on this host is heard too, by what it sends.
func TestRouterOnThisHostIsHeard(t *testing.T) {
	if !alone(t) {
		return
	}
	there := wire(t)
	conn, _ := peer(t, there)
	events := &emitted{}
	s := New(Config{Interface: "srv0", Recent: &booting{all: true}, Emit: events, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	time.Sleep(settle + 100*time.Millisecond)
	ifi, err := net.InterfaceByName("srv0")
	require.NoError(t, err)
	local, _, err := ndp.Listen(ifi, ndp.LinkLocal)
	require.NoError(t, err)
	require.NoError(t, local.WriteTo(&ndp.RouterAdvertisement{RouterLifetime: time.Hour}, nil, allNodes))
	require.NoError(t, local.Close())
	time.Sleep(100 * time.Millisecond)
	solicit(t, conn)
	time.Sleep(300 * time.Millisecond)
	assert.Zero(t, events.count())
	cancel()
	assert.NoError(t, <-done)
}

func TestServeEndsWhenTheInterfaceIsRemoved(t *testing.T) {
	if !alone(t) {
		return
	}
	wire(t)
	s := New(Config{Interface: "srv0", Recent: &booting{}, Emit: &emitted{}, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	require.NoError(t, s.Listen())
	done := make(chan error)
	go func() { done <- s.Serve(t.Context()) }()
	run(t, "ip", "link", "del", "srv0")
	select {
	case err := <-done:
		assert.Error(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it went on, deaf")
	}
}
