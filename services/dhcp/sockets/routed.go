package sockets

import (
	"fmt"
	"net"
	"sync"

	"golang.org/x/net/ipv4"
)

// Routed sends IPv4 packets by whatever interface leads to their destination. A
// socket that is bound to one interface sends by no other, and a relay's way to
// us need not be our way to it. It needs NET_RAW, and opens at the first packet.
type Routed struct {
	mu   sync.Mutex
	conn *ipv4.RawConn
}

// protocolRaw is a socket that is given whole IPv4 packets, and receives none
// (raw(7)).
const protocolRaw = "ip4:255"

// Send sends a whole packet.
func (r *Routed) Send(packet []byte) error {
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
	head, err := ipv4.ParseHeader(packet)
	if err != nil {
		return err
	}
	return r.conn.WriteTo(head, packet[head.Len:], nil)
}

// Close frees the socket; a later Send opens another.
func (r *Routed) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
}
