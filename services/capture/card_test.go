package capture

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
	raw "github.com/mdlayher/packet"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"lunboot/store"
)

// The kernel's own reading of the filter, and its clock: on loopback, where
// each packet is seen as it leaves and as it comes.
func TestTheKernelTakesTheFilterAndTellsWhenAPacketPassed(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	tap, err := openCard(Link{Name: "lo", Index: lo.Index}, program(ports, nil, false))
	if errors.Is(err, os.ErrPermission) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	closed := make(chan struct{})
	frames := make(chan []byte, 100)
	times := make(chan time.Time, 100)
	go func() {
		defer close(closed)
		buf := make([]byte, copyAll)
		for {
			n, seen, err := tap.Read(buf)
			if err != nil {
				return
			}
			frames <- append([]byte(nil), buf[:n]...)
			times <- seen.At
		}
	}()
	far, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer far.Close()
	c, err := net.Dial("udp4", far.LocalAddr().String())
	require.NoError(t, err)
	defer c.Close()
	port := far.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	for _, n := range []int{0, 1, 300, maxLeftOut} {
		var done []uint32
		for i := range n {
			done = append(done, key32(netip.AddrPortFrom(itsAddr, uint16(i))))
		}
		if err := tap.Filter(program(ports, done, false)); err != nil {
			// net.core.optmem_max was 20 KiB until Linux 6.10.
			t.Logf("%d connections are too many for this kernel: %v", n, err)
			require.Greater(t, n, 300)
			require.NoError(t, tap.Filter(program(ports, nil, true)))
		}
		before := time.Now()
		_, err = c.Write([]byte{0, opACK, 0, 1}) // as TFTP's
		require.NoError(t, err)
		for seen := 0; seen < 2; { // as it leaves and as it comes
			select {
			case f := <-frames:
				at := <-times
				if d, ok := readIPv4(f); ok && d.dst.Port() == port {
					assert.WithinRange(t, at, before.Add(-time.Second), time.Now().Add(time.Second))
					seen++
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the packet did not pass the filter")
			}
		}
	}
	assert.Zero(t, tap.Dropped())
	require.NoError(t, tap.Close())
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("Close did not end Read")
	}
}

// insideNamespace marks the copy of a test that runs in a network namespace.
const insideNamespace = "LUNBOOT_TEST_NAMESPACE"

// alone reports whether the test runs in a network namespace of its own; if not,
// it runs it there.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if _, tool := exec.LookPath("ip"); (tool != nil || cmd.ProcessState == nil) && os.Getenv("CI") != "true" {
		t.Skipf("network namespaces need root and iproute2: %v", err)
	}
	require.NoError(t, err, "in its own namespace: %s", out)
	return false
}

// The kernel takes a tag out of a frame before it shows it; a capture has it again. A
// tag that names a VLAN makes the frame another network's.
func TestATagIsInACaptureWhereItWasOnTheWire(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, line := range []string{"link add srv0 type veth peer name cli0", "addr add 192.168.40.1/24 dev srv0", "link set srv0 up", "link set cli0 up"} {
		out, err := exec.Command("sh", "-c", "ip "+line).CombinedOutput()
		require.NoError(t, err, "%s: %s", line, out)
	}
	log := slog.New(slog.DiscardHandler)
	s := New(Config{Ports: func() Ports { return ports }, On: func() bool { return true }, Log: log, Now: time.Now})
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	t.Cleanup(func() { <-done })
	require.Eventually(t, func() bool { return slices.Contains(s.State().Links, "srv0") }, 10*time.Second, time.Millisecond)
	ifi, err := net.InterfaceByName("cli0")
	require.NoError(t, err)
	conn, err := raw.Listen(ifi, raw.Raw, etherTypeAll, nil)
	require.NoError(t, err)
	defer conn.Close()
	w := newWire(t)
	send := func(xid byte, tag ...byte) {
		t.Helper()
		msg := dhcpMessage(1, itsMAC, netip.Addr{})
		msg[7] = xid
		b := w.udp(false, 68, 67, msg)
		_, err := conn.WriteTo(slices.Concat(b[:atTag], tag, b[atTag:]), &raw.Addr{HardwareAddr: b[:6]})
		require.NoError(t, err)
	}
	send(1, 0x81, 0, 0xa0, 10) // VLAN 10
	send(2, 0x81, 0, 0xa0, 0)  // priority 5
	send(3)
	at := func(xid byte) (frame []byte, length int) {
		file, err := s.File(Query{MACs: []store.MAC{itsMAC}})
		if err != nil {
			return nil, 0
		}
		r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
		require.NoError(t, err)
		for {
			b, info, err := r.ReadPacketData()
			if errors.Is(err, io.EOF) {
				return nil, 0
			}
			require.NoError(t, err)
			if i := bytes.Index(b, []byte{1, 1, 6, 0}); i >= 0 && b[i+7] == xid {
				return b, info.Length
			}
		}
	}
	require.Eventually(t, func() bool { b, _ := at(3); return b != nil }, 10*time.Second, time.Millisecond)
	plain, n := at(3)
	assert.Equal(t, len(plain), n)
	assert.Equal(t, []byte{8, 0}, plain[atTag:atTag+2])
	b, n := at(2)
	require.NotNil(t, b, "a frame with a priority is ours")
	assert.Equal(t, len(plain)+tagLen, n)
	assert.Equal(t, []byte{0x81, 0, 0xa0, 0, 8, 0}, b[atTag:atTag+6])
	assert.Nil(t, gopacket.NewPacket(b, gopacket.DecodersByLayerName["Ethernet"], gopacket.Default).ErrorLayer())
	b, _ = at(1)
	assert.Nil(t, b, "VLAN 10 is another network")
}

func TestATagIsMadeAsTheKernelSaysItWas(t *testing.T) {
	const valid, known = unix.TP_STATUS_VLAN_VALID, unix.TP_STATUS_VLAN_TPID_VALID
	assert.Zero(t, tagOf(unix.TP_STATUS_USER, 10, 0x8100))
	assert.Equal(t, [tagLen]byte{0x81, 0, 0x20, 10}, tagOf(valid|known, 0x200a, 0x8100))
	assert.Equal(t, [tagLen]byte{0x88, 0xa8, 0, 10}, tagOf(valid|known, 10, 0x88a8))
	assert.Equal(t, [tagLen]byte{0x81, 0, 0, 10}, tagOf(valid, 10, 0))
	assert.WithinDuration(t, time.Now(), told([]byte{1, 2, 3}).At, time.Minute)
}
