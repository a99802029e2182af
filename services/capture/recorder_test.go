package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"

	"lunboot/store"
)

// message makes a DHCP message about a machine.
func dhcpMessage(kind byte, mac store.MAC, yiaddr netip.Addr) []byte {
	b := make([]byte, bootpLen)
	b[0], b[atHType], b[atHLen] = 1, 1, 6
	copy(b[atCHAddr:], mac[:])
	if yiaddr.IsValid() {
		copy(b[atYIAddr:], yiaddr.AsSlice())
	}
	return append(b, 0x63, 0x82, 0x53, 0x63, optMsgType, 1, kind, optEnd)
}

func TestAMachineBehindARouterIsKnownByItsLease(t *testing.T) {
	w := newWire(t)
	behind := store.MAC{0x52, 0x54, 0, 9, 9, 9}
	far := netip.MustParseAddr("10.9.9.9")
	w.take(w.udp(true, 67, 67, dhcpMessage(msgAck, behind, far))) // to the relay's card
	from := func(addr netip.Addr) {
		b := w.segment(false, 1000, 3260, 1, nil, "S")
		copy(b[atSource:], addr.AsSlice())
		w.take(b)
	}
	from(far)
	found, _ := w.rec.find(Query{MACs: []store.MAC{behind}})
	assert.Len(t, found, 2)

	// Leased before we listened: the inventory knows.
	w.rec.lookup = func(a netip.Addr) (store.MAC, bool) { return behind, a == netip.MustParseAddr("10.9.9.10") }
	from(netip.MustParseAddr("10.9.9.10"))
	found, _ = w.rec.find(Query{MACs: []store.MAC{behind}})
	assert.Len(t, found, 3)

	// Nobody knows: it is found by its address, and is not the router.
	stranger := netip.MustParseAddr("10.9.9.11")
	from(stranger)
	found, _ = w.rec.find(Query{MACs: []store.MAC{itsMAC}, Addrs: []netip.Addr{stranger}})
	assert.Len(t, found, 1)
}

func TestATransferIsRecordedAtItsEndsAndWhereItStumbles(t *testing.T) {
	w := newWire(t)
	block := func(n, size int) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{0, 3}, uint16(n)), bytes.Repeat([]byte("s"), size)...)
	}
	w.take(w.udp(true, 2070, 40000, block(1, 9))) // of nobody's transfer
	w.take(w.udp(false, 2070, 69, []byte("\x00\x01525400123456/undionly.kpxe\x00octet\x00tsize\x000\x00")))
	w.take(w.udp(true, 2070, 40000, []byte("\x00\x06tsize\x0070000\x00")))
	for n := 1; n <= 100; n++ {
		size := 512
		if n == 100 {
			size = 100
		}
		w.take(w.udp(true, 2070, 40000, block(n, size)))
		if n == 50 {
			w.take(w.udp(true, 2070, 40000, block(n, size)))
		}
		w.take(w.udp(false, 2070, 40000, binary.BigEndian.AppendUint16([]byte{0, 4}, uint16(n))))
	}
	w.take(w.udp(false, 2070, 40000, []byte("\x00\x05\x00\x00TFTP Aborted\x00")))
	all := w.text()
	assert.Contains(t, all, "undionly.kpxe")
	assert.Contains(t, all, "tsize\x0070000")
	assert.Contains(t, all, "TFTP Aborted")
	assert.NotContains(t, all, "ss")
	assert.Len(t, w.kept(), 2+2*firstBlocks+1+2+1)
}

func TestABusyVolumeIsLeftAlone(t *testing.T) {
	w := newWire(t)
	k := w.dial(1000, 3260)
	k.send(false, login(false, 0x87, "InitiatorName=a"))
	for range 100 {
		k.send(true, pdu(0x25, 0x80, make([]byte, 8192)))
	}
	keys, changed := w.rec.leftOut()
	require.True(t, changed)
	assert.Equal(t, []uint32{key32(netip.AddrPortFrom(itsAddr, 1000))}, keys)
	assert.Len(t, w.kept(), 4+perConn/8240)
	assert.Less(t, w.rec.rings.bytes, 20<<10, "volume data takes no memory")
	k.send(false, pdu(0x01, 0x80, nil))
	assert.Len(t, w.kept(), 4+perConn/8240)
	k.end(false, "F")
	k.end(true, "F")
	assert.Len(t, w.kept(), 6+perConn/8240, "the end is recorded")
	keys, changed = w.rec.leftOut()
	assert.True(t, changed)
	assert.Empty(t, keys)

	// The next one under the same numbers is followed again.
	k = w.dial(1000, 3260)
	k.send(false, login(false, 0x87, "InitiatorName=second"))
	assert.Contains(t, w.text(), "second")
}

func TestAMachineThatLostPowerMayUseItsPortAgain(t *testing.T) {
	w := newWire(t)
	w.dial(1000, 3260).send(false, login(false, 0, "InitiatorName=first"))
	at := uint32(4711)
	w.take(w.segment(false, 1000, 3260, at, nil, "S"))
	w.take(w.segment(true, 1000, 3260, 99, nil, "S"))
	w.take(w.segment(false, 1000, 3260, at+1, login(false, 0, "InitiatorName=second"), ""))
	assert.Contains(t, w.text(), "second")
}

func TestNeighboursAreRecordedOnlyAroundABoot(t *testing.T) {
	w := newWire(t)
	arp := func() []byte {
		return serialize(t, &layers.Ethernet{SrcMAC: itsMAC[:], DstMAC: bytes.Repeat([]byte{0xff}, 6), EthernetType: layers.EthernetTypeARP},
			&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: 1, SourceHwAddress: itsMAC[:], SourceProtAddress: itsAddr.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: ourAddr.AsSlice()},
			gopacket.Payload(secret))
	}
	w.take(arp())
	assert.Empty(t, w.kept())
	w.take(w.udp(false, 68, 67, dhcpMessage(1, itsMAC, netip.Addr{})))
	w.take(arp())
	assert.Len(t, w.kept(), 2)
	assert.NotContains(t, w.text(), secret[:4], "what Ethernet pads with is nobody's business")
	w.at = w.at.Add(neighbourly)
	w.take(arp())
	assert.Len(t, w.kept(), 2)
}

func TestMemoryIsBounded(t *testing.T) {
	w := newWire(t)
	w.rec.rings = newRings(bounds{perMachine: 4000, inAll: 20000, machines: 30, heard: 10})
	size := 0
	for i := range 100 {
		boots := store.MAC{2, 0, 0, 1, 0, byte(i)}
		b := w.segment(false, 1000, 3260, uint32(i), nil, "S")
		copy(b[6:], boots[:])
		for range 60 {
			w.take(b)
		}
		for j := range 5 {
			w.take(w.udp(false, 68, 67, dhcpMessage(1, store.MAC{2, 0, 0, 2, byte(i), byte(j)}, netip.Addr{})))
		}
		size = 0
		for _, m := range w.rec.rings.byWho {
			mine := 0
			for _, p := range m.packets {
				mine += p.size()
			}
			require.Equal(t, m.bytes, mine)
			require.LessOrEqual(t, mine, 4000)
			size += mine
		}
		require.Equal(t, w.rec.rings.bytes, size)
		require.LessOrEqual(t, size, 20000)
		require.LessOrEqual(t, len(w.rec.rings.byWho), 30)
		require.LessOrEqual(t, w.rec.rings.heard.Len(), 10)
	}
	assert.NotNil(t, w.rec.rings.byWho[who{mac: store.MAC{2, 0, 0, 1, 0, 97}}], "those who boot stay, whoever else asks for an address")

	many := newWire(t)
	for i := range 3 * maxTransfers {
		many.take(many.udp(false, uint16(i), 69, []byte("\x00\x01name\x00octet\x00")))
	}
	assert.Len(t, many.rec.transfers, maxTransfers)
	assert.Equal(t, maxTransfers, many.rec.asked.Len())
	for i := range 3 * maxConns {
		many.take(many.segment(false, uint16(i), 3260, 1, nil, "S"))
	}
	assert.LessOrEqual(t, len(many.rec.conns), maxConns)
	assert.Equal(t, len(many.rec.conns), many.rec.order.Len())
}

// fakeTap hands out frames that a test puts in.
type fakeTap struct {
	frames chan []byte
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	filters [][]bpf.Instruction
}

func (f *fakeTap) Read(b []byte) (int, Seen, error) {
	select {
	case frame := <-f.frames:
		return copy(b, frame), Seen{At: time.Now()}, nil
	case <-f.closed:
		return 0, Seen{}, io.EOF
	}
}

func (f *fakeTap) Filter(p []bpf.Instruction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.filters = append(f.filters, p)
	return nil
}

func (f *fakeTap) Dropped() int64 { return 3 }

func (f *fakeTap) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

// serve runs a server on a fake card.
func serve(t *testing.T, change func(*Config)) (*Server, *fakeTap) {
	t.Helper()
	tap := &fakeTap{frames: make(chan []byte), closed: make(chan struct{})}
	cfg := Config{
		Ports: func() Ports { return ports }, On: func() bool { return true }, Links: func() ([]Link, error) { return []Link{lan}, nil },
		Open: func(Link, []bpf.Instruction) (Tap, error) { return tap, nil }, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	if change != nil {
		change(&cfg)
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.Empty(t, s.State().Links)
	})
	return s, tap
}

func TestACaptureIsReadByAStrangersDecoder(t *testing.T) {
	s, tap := serve(t, nil)
	w := newWire(t)
	began := time.Now()
	put := func(b []byte) { tap.frames <- append([]byte(nil), b...) }
	put(w.udp(false, 68, 67, dhcpMessage(1, itsMAC, netip.Addr{})))
	put(w.udp(false, 2070, 69, []byte("\x00\x01undionly.kpxe\x00octet\x00")))
	put(w.segment(false, 1000, 3260, 9, nil, "S"))
	put(w.segment(false, 1000, 3260, 10, login(false, 0x87, "CHAP_R="+secret), ""))
	put(w.segment(false, 1000, 3260, 10+bhsLen+24, pdu(0x01, 0x80, bytes.Repeat([]byte(secret), 40)), ""))
	put([]byte("the frame before it is recorded once this is read"))
	file, err := s.File(Query{MACs: []store.MAC{itsMAC, itsMAC}, From: began, About: "lab-12, attempt 7"})
	require.NoError(t, err)
	assert.NotContains(t, string(file), secret)
	assert.Contains(t, string(file), "lab-12, attempt 7\nLeft out on purpose")
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	ifi, err := r.Interface(0)
	require.NoError(t, err)
	assert.Equal(t, "lan0", ifi.Name)
	var kinds []string
	for {
		b, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		assert.GreaterOrEqual(t, ci.Length, ci.CaptureLength)
		assert.WithinDuration(t, began, ci.Timestamp, time.Minute)
		p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
		kind := "other"
		switch {
		case p.Layer(layers.LayerTypeDHCPv4) != nil:
			kind = "DHCP"
		case p.Layer(layers.LayerTypeTCP) != nil:
			kind = fmt.Sprint("TCP ", len(p.Layer(layers.LayerTypeTCP).LayerPayload()), " of ", ci.Length-54)
		case p.Layer(layers.LayerTypeUDP) != nil:
			kind = "UDP"
		}
		kinds = append(kinds, kind)
	}
	assert.Equal(t, []string{"DHCP", "UDP", "TCP 0 of 0", "TCP 72 of 72", "TCP 48 of 688"}, kinds)
	assert.Equal(t, []string{"lan0"}, s.State().Links)
	assert.Equal(t, int64(3), s.State().Dropped)

	_, err = s.File(Query{MACs: []store.MAC{itsMAC}, From: began.Add(time.Hour)})
	assert.Equal(t, store.KindNotFound, store.KindOf(err))
	assert.ErrorContains(t, err, "only the newest of each machine are, in memory")
}

func TestTheKernelIsToldWhatWasSeenEnoughOf(t *testing.T) {
	_, tap := serve(t, nil)
	w := newWire(t)
	tap.frames <- w.segment(false, 1000, 3260, 9, nil, "S")
	for i := range perConn/60000 + 1 {
		tap.frames <- w.segment(false, 1000, 3260, uint32(10+60000*i), make([]byte, 60000), "")
	}
	require.Eventually(t, func() bool {
		tap.mu.Lock()
		defer tap.mu.Unlock()
		return len(tap.filters) == 1
	}, 5*time.Second, time.Millisecond)
	vm, err := bpf.NewVM(tap.filters[0])
	require.NoError(t, err)
	assert.False(t, passes(t, vm, w.segment(false, 1000, 3260, 9, []byte("x"), "")))
	assert.True(t, passes(t, vm, w.segment(false, 1001, 3260, 9, []byte("x"), "")))
}

func TestSwitchedOffItForgets(t *testing.T) {
	var off atomic.Bool
	s, tap := serve(t, func(c *Config) { c.On = func() bool { return !off.Load() } })
	w := newWire(t)
	tap.frames <- w.segment(false, 1000, 3260, 9, nil, "S")
	require.Eventually(t, func() bool { return s.State().Machines == 1 }, 5*time.Second, time.Millisecond)
	off.Store(true)
	s.follow()
	assert.Zero(t, s.State().Machines)
	assert.Zero(t, s.State().Bytes)
	_, err := s.File(Query{MACs: []store.MAC{itsMAC}})
	assert.ErrorContains(t, err, "it is switched off")
}

func TestWithoutRightsItIsOffAndSaysSo(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) {
			c.Open = func(Link, []bpf.Instruction) (Tap, error) {
				return nil, &os.PathError{Op: "socket", Err: os.ErrPermission}
			}
		}, "root or the capability NET_RAW is needed"},
		{func(c *Config) { c.On = func() bool { return false } }, "it is switched off"},
		{func(c *Config) { c.Links = func() ([]Link, error) { return nil, nil } }, "no network card has an IPv4 address"},
	} {
		var log strings.Builder
		s, _ := serve(t, func(cfg *Config) { c.change(cfg); cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		require.Eventually(t, func() bool { return strings.Contains(s.State().Reason, c.want) }, 5*time.Second, time.Millisecond)
		_, err := s.File(Query{MACs: []store.MAC{itsMAC}})
		assert.Equal(t, store.KindUnavailable, store.KindOf(err))
		assert.ErrorContains(t, err, c.want)
		s.follow()
		assert.Equal(t, 1, strings.Count(log.String(), "\n"), "said once: %s", log.String())
	}
}

func FuzzFrame(f *testing.F) {
	w := newWire(f)
	f.Add(w.udp(false, 68, 67, dhcpMessage(1, itsMAC, netip.Addr{})), uint8(0))
	f.Add(w.udp(false, 2070, 69, []byte("\x00\x01x\x00octet\x00")), uint8(1))
	f.Add(w.segment(false, 1000, 3260, 9, login(false, 0x87, "CHAP_R=1"), ""), uint8(2))
	f.Add(w.segment(true, 1000, 80, 9, []byte("HTTP/1.1 200 OK\r\n\r\n"), ""), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, pieces uint8) {
		w := newWire(t)
		k := w.dial(1000, 3260)
		h := w.dial(1001, 80)
		w.take(append([]byte(nil), b...))
		for size := int(pieces)%64 + 1; len(b) > 0; {
			n := min(size, len(b))
			k.send(n%2 == 0, b[:n])
			h.send(n%3 == 0, b[:n])
			b = b[n:]
		}
		for _, m := range w.rec.rings.byWho {
			for _, p := range m.packets {
				if n := len(p.frame()); n > p.length {
					t.Fatalf("%d bytes are kept of a packet of %d", n, p.length)
				}
			}
		}
	})
}
