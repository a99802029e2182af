package sockets

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"lunboot/store"
)

func TestFreeNamesTheHolder(t *testing.T) {
	held, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer held.Close()
	addr := held.LocalAddr().(*net.UDPAddr).AddrPort()

	err = Free(addr, nil)
	assert.Equal(t, store.KindInUse, store.KindOf(err))
	assert.ErrorContains(t, err, fmt.Sprintf("UDP port %d is held by this appliance itself (pid %d)", addr.Port(), os.Getpid()))
	assert.Error(t, Free(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()), nil), "all addresses include this one")

	require.NoError(t, held.Close())
	assert.NoError(t, Free(addr, nil))
	assert.NoError(t, Free(netip.MustParseAddrPort("127.0.0.1:0"), nil))
}

func TestClashes(t *testing.T) {
	eth1 := link{index: 3, addrs: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}
	want := netip.MustParseAddrPort("0.0.0.0:67")
	for name, c := range map[string]struct {
		local  string
		device int
		clash  bool
	}{
		"everywhere":                  {"0.0.0.0:67", 0, true},
		"the same interface":          {"0.0.0.0:67", 3, true},
		"another interface":           {"0.0.0.0:67", 4, false},
		"an address of ours":          {"10.77.0.1:67", 0, true},
		"another interface's address": {"192.168.1.1:67", 0, false},
		"another port":                {"0.0.0.0:68", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := udpSocket{netip.MustParseAddrPort(c.local), c.device, 1}
			assert.Equal(t, c.clash, h.clashes(want, eth1))
		})
	}
}

func TestParseProcUDP(t *testing.T) {
	const table = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  447: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 23456 2 0000000000000000 0
  461: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 34567 2 0000000000000000 0
  bad line
`
	assert.Equal(t, []udpSocket{
		{netip.MustParseAddrPort("127.0.0.1:53"), 0, 23456},
		{netip.MustParseAddrPort("0.0.0.0:67"), 0, 34567},
	}, parseProcUDP([]byte(table)))
}
