package dhcp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"lunboot/services/dhcp/ledger"
	"lunboot/store"
)

// still is an inventory that nobody changes from outside, with a disk that takes
// no time.
type still struct{ *inventory }

func (still) LeaseRevision() int64                                      { return 1 }
func (still) ClientRevision() int64                                     { return 1 }
func (still) PutLease(context.Context, store.Lease) error               { return nil }
func (still) Emit(store.Event)                                          {}
func (still) SeeUnknown(context.Context, ...store.UnknownMachine) error { return nil }

// crowded is a server for tens of thousands, bound to a socket.
func crowded(t testing.TB) (*Server, *socket) {
	v := still{newInventory(time.Now)}
	n := store.Subnet{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Mode: store.DHCPFull, Range: mustRange("127.5.1.0-127.5.200.255"), LeaseTime: time.Hour}
	cfg := v.config(t, n)
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Ledger, cfg.Machines, cfg.Emit = ledger.New(v, v, v), v, v
	s := New(cfg)
	require.NoError(t, s.Listen())
	t.Cleanup(func() { s.socket.close() })
	return s, s.socket
}

// BenchmarkALease is the work of one DISCOVER and one REQUEST, with packets as
// OVMF sends them, from bytes to the answer's bytes in the kernel.
func BenchmarkALease(b *testing.B) {
	s, k := crowded(b)
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(b, err)
	defer sink.Close()
	pxe := func(p *dhcpv4.DHCPv4) {
		p.UpdateOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016"))
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 7}))
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(97), make([]byte, 17)))
		p.GatewayIPAddr = net.IPv4(127, 5, 0, 1)
	}
	from := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	ask := discover(0, pxe).ToBytes()
	take := discover(0, pxe, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(127, 0, 0, 1))), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(127, 5, 1, 0)))).ToBytes()
	at := bytes.Index(take, []byte{50, 4, 127, 5, 1, 0}) + 2
	d := &datagram{from: from, k: k}
	b.ReportAllocs()
	for i := range b.N {
		m := mac(i % 20000)
		copy(d.buf[:], ask)
		d.n = len(ask)
		copy(d.buf[chaddrOffset:], m[:])
		require.NoError(b, s.handle(b.Context(), d))
		turn, err := s.ledger.Begin(b.Context(), time.Now())
		require.NoError(b, err)
		a := turn.Offered(m, s.networks.own.Prefix)
		turn.End()
		copy(d.buf[:], take)
		d.n = len(take)
		copy(d.buf[chaddrOffset:], m[:])
		copy(d.buf[at:], a.AsSlice())
		require.NoError(b, s.handle(b.Context(), d))
	}
	turn, err := s.ledger.Begin(b.Context(), time.Now())
	require.NoError(b, err)
	defer turn.End()
	require.Len(b, turn.Bound(time.Now().Add(2*time.Hour)), min(b.N, 20000))
}
