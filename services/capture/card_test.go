package capture

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
			n, at, err := tap.Read(buf)
			if err != nil {
				return
			}
			frames <- append([]byte(nil), buf[:n]...)
			times <- at
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
