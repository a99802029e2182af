package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// answerer is a DHCP server that gives the n-th client the address that give
// says, and spoils an answer now and then.
func answerer(t *testing.T, give func(client uint32) netip.Addr, spoil func(client uint32, kind byte, p []byte) []byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < minSize || b[0] != 1 || b[3] != 1 {
				t.Errorf("a packet of %d bytes that no relay sends", n)
				continue
			}
			client := binary.BigEndian.Uint32(b[atCHAddr+2:])
			a := give(client).As4()
			kind := byte(offerType)
			if b[atOption+2] == requestType {
				kind = ackType
				if [4]byte(b[atRequested:]) != a || [4]byte(b[atServer:]) != [4]byte{127, 0, 0, 1} {
					t.Errorf("client %d asks %v of %v", client, b[atRequested:][:4], b[atServer:][:4])
				}
			}
			b[0] = 2
			copy(b[atYIAddr:], a[:])
			p := append(b[:atOption:atOption], 53, 1, kind, 0, 54, 4, 127, 0, 0, 1, 67, 1, 'x', 255)
			if p = spoil(client, kind, p); p != nil {
				// A flood waits for no answer: the test may end before the last one.
				if _, err := conn.WriteToUDPAddrPort(p, from); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func own(client uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(client >> 8), byte(client)})
}

func honest(_ uint32, _ byte, p []byte) []byte { return p }

func relayLoad(server netip.AddrPort) Load {
	return Load{Server: server, Relay: netip.MustParseAddrPort("127.0.0.1:0"), Clients: 50, Flight: 8, Count: 100, Timeout: 200 * time.Millisecond, PXE: true}
}

func TestALoadCountsExchangesAndKeepsTheLeases(t *testing.T) {
	l := relayLoad(answerer(t, own, honest))
	l.First = 7
	r, err := Run(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	if r.Done != 100 || r.Failures() != 0 || r.Bootless != 0 || len(r.Leases) != 50 || r.Leases[7] != own(7) || r.Leases[56] != own(56) {
		t.Errorf("%+v", r)
	}
	if r.P50 <= 0 || r.P99 < r.P50 || r.Max < r.P99 {
		t.Errorf("latencies %s, %s, %s", r.P50, r.P99, r.Max)
	}
	l.Offers = true
	if r, err = Run(t.Context(), l); err != nil || r.Done != 100 || len(r.Leases) != 0 {
		t.Errorf("offers alone: %+v, %v", r, err)
	}
	l.Count, l.Time = 0, 50*time.Millisecond
	if r, err = Run(t.Context(), l); err != nil || r.Done == 0 || r.Seconds < 0.05 {
		t.Errorf("by time: %+v, %v", r, err)
	}
}

func TestALoadSeesWhatAServerDoesWrong(t *testing.T) {
	for name, c := range map[string]struct {
		give  func(uint32) netip.Addr
		spoil func(client uint32, kind byte, p []byte) []byte
		count func(Result) int
		says  string
	}{
		"silence": {own, func(client uint32, kind byte, p []byte) []byte {
			if client == 3 && kind == ackType {
				return nil
			}
			return p
		}, func(r Result) int { return r.Late }, "client 3 had no answer to its REQUEST"},
		"a refusal": {own, func(client uint32, kind byte, p []byte) []byte {
			if client == 3 && kind == ackType {
				p[atOption+2] = nakType
			}
			return p
		}, func(r Result) int { return r.Naks }, "client 3 was refused 10.0.0.3"},
		"another client's MAC": {own, func(client uint32, kind byte, p []byte) []byte {
			if client == 3 {
				p[atCHAddr+5] = 9
			}
			return p
		}, func(r Result) int { return r.Wrong }, "client 3 was answered with the MAC 02be00000009"},
		"another address than offered": {own, func(client uint32, kind byte, p []byte) []byte {
			if client == 3 && kind == ackType {
				p[atYIAddr+3] = 99
			}
			return p
		}, func(r Result) int { return r.Wrong }, "client 3 was offered 10.0.0.3 and given 10.0.0.99"},
		"one address for two": {func(client uint32) netip.Addr { return own(client &^ 1) }, honest, func(r Result) int { return r.Wrong }, "was given to the clients"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Run(t.Context(), relayLoad(answerer(t, c.give, c.spoil)))
			if err != nil {
				t.Fatal(err)
			}
			if c.count(r) < 2 || r.Failures() != c.count(r) || int(r.Done)+r.Failures() != 100 || !strings.Contains(r.First, c.says) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestALoadAgainstNobodyEnds(t *testing.T) {
	l := relayLoad(netip.MustParseAddrPort("127.0.0.1:9"))
	l.Time, l.Timeout = 50*time.Millisecond, 20*time.Millisecond
	r, err := Run(t.Context(), l)
	if err != nil || r.Done != 0 || r.Late == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.Time = 0
	if r, err := Run(ctx, l); err != nil || r.Seconds > 1 {
		t.Errorf("it went on: %+v, %v", r, err)
	}
	l.Flight = 51
	if _, err := Run(t.Context(), l); err == nil {
		t.Error("more exchanges than clients")
	}
}

func TestAFloodComesAtItsRate(t *testing.T) {
	seen := map[uint32]bool{}
	server := answerer(t, func(client uint32) netip.Addr { seen[client] = true; return own(client) }, honest)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	sent, err := Flood(ctx, server, netip.MustParseAddrPort("127.0.0.1:0"), 2000)
	if err != nil || sent < 200 || sent > 600 {
		t.Errorf("%d sent, %v", sent, err)
	}
}

func FuzzParse(f *testing.F) {
	p := packet(Load{Relay: netip.MustParseAddrPort("127.0.0.1:67"), PXE: true}, requestType)
	p[0] = 2
	f.Add(p)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, ok := parse(b); ok && a.kind == 0 {
			t.Error("an answer of no kind")
		}
	})
}
