package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/ipv4"

	"lunboot/services/dhcp/wire"
)

// routed sends to those behind a router by whatever interface leads there. The
// socket that requests come in on is bound to one interface, and so are its
// replies; a relay's way to us need not be our way to it. It needs NET_RAW.
type routed struct {
	mu   sync.Mutex
	conn *ipv4.RawConn // nil until it is needed
}

// protocolRaw is a socket that is given whole IPv4 packets, and receives none
// (raw(7)).
const protocolRaw = "ip4:255"

func (r *routed) send(src, dst netip.AddrPort, payload []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil {
		c, err := net.ListenPacket(protocolRaw, "0.0.0.0")
		if err != nil {
			return fmt.Errorf("open a raw socket (the capability NET_RAW is needed): %w", err)
		}
		if r.conn, err = ipv4.NewRawConn(c); err != nil {
			c.Close()
			return fmt.Errorf("open a raw socket: %w", err)
		}
	}
	b := wire.Datagram(src, dst, payload)
	head, err := ipv4.ParseHeader(b)
	if err != nil {
		return err
	}
	return r.conn.WriteTo(head, b[head.Len:], nil)
}

func (r *routed) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
}
