package survey

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"

	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// OtherServer is a DHCP server that answered a Probe.
type OtherServer struct {
	Server  netip.Addr // its server identifier
	MAC     store.MAC  // the card that its answer came from: the server's, or its relay's
	Offered netip.Addr // the address that it offered
	Boots   bool       // it names something to boot, or says that it is a PXE server
}

// probeTime is how long answers are waited for; dnsmasq checks an address for
// up to three seconds by ICMP before it offers it.
const probeTime = 3 * time.Second

// Probe asks on an interface who answers DHCP there: one DISCOVER, sent twice,
// with a MAC of its own making, that is never followed by a REQUEST. It needs
// the capability NET_RAW, and no address on the interface.
func Probe(ctx context.Context, name string) ([]OtherServer, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, &store.Error{Kind: store.KindNotFound, Op: "probe", Msg: fmt.Sprintf("there is no interface %q; the interfaces are %s", name, sockets.InterfaceNames())}
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, store.Invalid("interface", "interface %s is not an Ethernet", name)
	}
	conn, err := packet.Listen(ifi, packet.Raw, wire.IPv4, nil)
	if err != nil {
		return nil, fmt.Errorf("probe %s for DHCP servers (root or the capability NET_RAW is needed): %w", name, err)
	}
	defer conn.Close()
	// Answers are broadcast on request, so the card's own address need not be
	// used, and no server binds a lease to it.
	var mac store.MAC
	rand.Read(mac[:])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered (IEEE 802 §8.2.2)
	discover, err := dhcpv4.NewDiscovery(mac[:], dhcpv4.WithBroadcast(true))
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var out []OtherServer
	for range 2 {
		if err := sendDiscover(conn, store.MAC(ifi.HardwareAddr), discover); err != nil {
			return nil, fmt.Errorf("probe %s: %w", name, err)
		}
		if out, err = collect(ctx, conn, discover, out); err != nil {
			return out, fmt.Errorf("probe %s: %w", name, err)
		}
	}
	return out, nil
}

func sendDiscover(conn *packet.Conn, own store.MAC, discover *dhcpv4.DHCPv4) error {
	src := netip.AddrPortFrom(netip.IPv4Unspecified(), wire.ClientPort)
	dst := netip.AddrPortFrom(wire.LimitedBroadcast.Addr(), wire.ServerPort)
	_, err := conn.WriteTo(wire.Frame(own, wire.Everybody, src, dst, discover.ToBytes()), &packet.Addr{HardwareAddr: wire.Everybody[:]})
	return err
}

// collect adds the servers that answer within half of probeTime.
func collect(ctx context.Context, conn *packet.Conn, discover *dhcpv4.DHCPv4, out []OtherServer) ([]OtherServer, error) {
	if err := conn.SetReadDeadline(time.Now().Add(probeTime / 2)); err != nil {
		return out, err
	}
	buf := make([]byte, 2048)
	for {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() && ctx.Err() == nil {
				return out, nil
			}
			return out, fmt.Errorf("read: %w", err)
		}
		payload, from, src, ok := wire.Unframe(buf[:n], wire.ClientPort)
		if !ok {
			continue
		}
		o, ok := otherServer(payload, discover, from, src)
		if ok && !slices.ContainsFunc(out, func(s OtherServer) bool { return s.Server == o.Server }) {
			out = append(out, o)
		}
	}
}

// otherServer reads an answer to our DISCOVER.
func otherServer(payload []byte, discover *dhcpv4.DHCPv4, from store.MAC, src netip.Addr) (OtherServer, bool) {
	p, err := dhcpv4.FromBytes(payload)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.TransactionID != discover.TransactionID ||
		!slices.Equal(p.ClientHWAddr, discover.ClientHWAddr) {
		return OtherServer{}, false
	}
	o := OtherServer{Server: message.AddrOption(p, dhcpv4.OptionServerIdentifier), MAC: from, Offered: message.AddrOf(p.YourIPAddr)}
	if !o.Server.IsValid() {
		o.Server = src
	}
	o.Boots = p.BootFileName != "" || p.Options.Has(dhcpv4.OptionBootfileName) || p.ClassIdentifier() == "PXEClient"
	return o, true
}
