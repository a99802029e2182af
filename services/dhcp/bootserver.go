package dhcp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"

	"lunboot/services/dhcp/bootfile"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// listenPXE opens the port of boot servers beside k. Where addresses are given,
// firmware is told all that it needs with its address, and only firmware that
// asks all the same misses a port that somebody else holds.
func (s *Server) listenPXE(k *socket) (*socket, error) {
	if s.cfg.PXEListen == "" && k.unicast {
		return nil, nil
	}
	text := s.cfg.PXEListen
	if text == "" {
		text = "0.0.0.0:4011"
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil || !addr.Addr().Is4() {
		return nil, fmt.Errorf("%q is not an IPv4 address and port, such as 0.0.0.0:4011", text)
	}
	pxe := &socket{ifi: k.ifi, unicast: k.unicast, pxe: true}
	if err := pxe.bind(addr); err != nil {
		if s.networks.proxies() {
			return nil, err
		}
		s.cfg.Log.Warn("firmware that asks a boot server gets no answer", "interface", s.cfg.Interface, "reason", err)
		return nil, nil
	}
	return pxe, nil
}

// proxies reports whether a subnet is served in proxy mode.
func (n networks) proxies() bool {
	for _, s := range append([]store.Subnet{n.own}, n.relayed...) {
		if s.Mode == store.DHCPProxy {
			return true
		}
	}
	return false
}

// mayShare reports whether a port that another program holds can be shared. In
// proxy mode all that matters is broadcast. The socket of that program must not
// be joined: the kernel would give us its clients' unicast requests instead.
func (s *Server) mayShare(k *socket, err error) bool {
	return store.KindOf(err) == store.KindInUse && !sockets.Ours(err) && s.networks.own.Mode == store.DHCPProxy && k.ifi != nil
}

// hear opens a packet socket that hears what is broadcast to a port that is
// another program's, for the reason why.
func (s *Server) hear(k *socket, why error) error {
	if len(k.ifi.HardwareAddr) != 6 {
		return why
	}
	raw, err := packet.Listen(k.ifi, packet.Raw, wire.IPv4, &packet.Config{Filter: wire.Datagrams(wire.ServerPort)})
	if err != nil {
		return fmt.Errorf("%w; to answer beside it, root or the capability NET_RAW is needed: %w", why, err)
	}
	k.raw, k.beside = raw, why.Error()
	s.cfg.Log.Warn("the DHCP port is another program's: machines on this wire are answered beside it, and relays are not", "interface", k.ifi.Name, "reason", why)
	return nil
}

// Beside says who has the DHCP port on this host, while the server hears what is
// broadcast beside him and answers no relay; empty when it has the port itself.
func (s *Server) Beside() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == nil {
		return ""
	}
	return s.socket.beside
}

// receive reads one packet into d. oob and cm are the reader's own, to be used
// again.
func (k *socket) receive(d *datagram, oob []byte, cm *ipv4.ControlMessage) error {
	d.k, d.n, d.to = k, 0, netip.Addr{}
	if k.shared() {
		n, _, err := k.raw.ReadFrom(d.buf[:])
		if err != nil {
			return err
		}
		payload, _, src, ok := wire.Unframe(d.buf[:n], wire.ServerPort)
		if to, _ := netip.AddrFromSlice(d.buf[30:34]); !ok || to != wire.LimitedBroadcast.Addr() {
			return nil // what is for that program alone
		}
		d.n = copy(d.buf[:], payload)
		// A client that has its address sends from it; DHCP's port is fixed.
		d.from = netip.AddrPortFrom(src, wire.ClientPort)
		return nil
	}
	n, on, _, from, err := k.udp.ReadMsgUDPAddrPort(d.buf[:], oob)
	if err != nil {
		return err
	}
	d.n, d.from = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if on > 0 && cm.Parse(oob[:on]) == nil {
		d.to = message.AddrOf(cm.Dst)
	}
	return nil
}

// gatherBoot collects what is known of a request that is only told what to boot.
func (s *Server) gatherBoot(t ledger.Turn, r message.Request, at place, now time.Time) Input {
	return Input{
		Now: now, Request: r, Interface: at.link, Subnet: *at.subnet, BootServer: at.bootServer, OtherRelay: at.otherRelay, Client: clientOf(t, r.MAC),
		Boot: bootfile.Source{Address: s.cfg.Boot(at.told), Next: s.cfg.Loaders.Next, Chained: s.wasChained(r, now)},
	}
}
