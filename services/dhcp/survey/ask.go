package survey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"

	"lunboot/services/boot/oui"
	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// FullTime is how long answers are waited for. dnsmasq pings an address before it
// offers it, for three to four seconds since it counts whole ones: who waits less
// takes a network for free that has a server.
const FullTime = 5 * time.Second

// grace is how long others are waited for once somebody has answered, where it
// only matters whether anybody does.
const grace = 250 * time.Millisecond

// maxHeard bounds the answers that are kept: anybody may send them.
const maxHeard = 64

// Ask asks on an interface who answers DHCP there, and what: one DISCOVER as
// each of the kinds of client, sent twice within d, from a MAC of its own
// making. Nobody's offer is taken: no REQUEST follows. It needs the capability
// NET_RAW, and no address on the interface.
func Ask(ctx context.Context, name string, d time.Duration, kinds ...store.ClientKind) ([]store.Heard, error) {
	ifi, err := ethernet(name)
	if err != nil {
		return nil, err
	}
	out, err := ask(ctx, ifi, d, false, kinds)
	if err != nil {
		return nil, fmt.Errorf("ask %s who answers DHCP: %w", name, err)
	}
	return out, nil
}

// Another asks as Ask does, as a client that only wants an address, and is content
// with the first other server than this appliance that offers one: only silence
// takes the whole of FullTime.
func Another(ctx context.Context, name string) ([]store.Heard, error) {
	ifi, err := ethernet(name)
	if err != nil {
		return nil, err
	}
	out, err := ask(ctx, ifi, FullTime, true, []store.ClientKind{store.ClientPlain})
	if err != nil {
		return nil, fmt.Errorf("ask %s who answers DHCP: %w", name, err)
	}
	return out, nil
}

func ethernet(name string) (*net.Interface, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, &store.Error{Kind: store.KindNotFound, Field: "interface", Msg: fmt.Sprintf("there is no interface %q; the interfaces are %s", name, sockets.InterfaceNames())}
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, store.Invalid("interface", "interface %s is not an Ethernet", name)
	}
	if ifi.Flags&net.FlagUp == 0 {
		return nil, store.Invalid("interface", "interface %s is down; bring it up with: ip link set %s up", name, name)
	}
	return ifi, nil
}

// ask asks within d; when one is enough, until somebody else has answered.
func ask(ctx context.Context, ifi *net.Interface, d time.Duration, one bool, kinds []store.ClientKind) ([]store.Heard, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	card := store.MAC(ifi.HardwareAddr)
	probes, err := newProbes(identityOf(card), kinds)
	if err != nil {
		return nil, err
	}
	conn, err := packet.Listen(ifi, packet.Raw, wire.IPv4, &packet.Config{Filter: wire.Datagrams(wire.ClientPort)})
	if err != nil {
		return nil, fmt.Errorf("root or the capability NET_RAW is needed: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var out []store.Heard
	for range 2 {
		for _, p := range probes {
			if _, err := conn.WriteTo(frame(card, p), &packet.Addr{HardwareAddr: wire.Everybody[:]}); err != nil {
				return nil, err
			}
		}
		if out, err = listen(ctx, conn, probes, own, out, d/2, one); err != nil {
			return nil, err
		}
		if one && slices.ContainsFunc(out, another) {
			break
		}
	}
	return out, nil
}

// another reports whether an answer is somebody else's.
func another(h store.Heard) bool { return !h.Ours }

// probe is one question under way.
type probe struct {
	kind store.ClientKind
	sent *dhcpv4.DHCPv4
}

func newProbes(id identity, kinds []store.ClientKind) ([]probe, error) {
	var out []probe
	for _, k := range kinds {
		d, err := discover(k, id)
		if err != nil {
			return nil, err
		}
		out = append(out, probe{k, d})
	}
	return out, nil
}

func frame(card store.MAC, p probe) []byte {
	src := netip.AddrPortFrom(netip.IPv4Unspecified(), wire.ClientPort)
	dst := netip.AddrPortFrom(wire.LimitedBroadcast.Addr(), wire.ServerPort)
	return wire.Frame(card, wire.Everybody, src, dst, p.sent.ToBytes())
}

// listen adds the answers that come within d; when one is enough, those that come
// soon after the first that is somebody else's.
func listen(ctx context.Context, conn *packet.Conn, probes []probe, own []netip.Addr, out []store.Heard, d time.Duration, one bool) ([]store.Heard, error) {
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return out, err
	}
	buf := make([]byte, 2048)
	for {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() && ctx.Err() == nil {
				return out, nil
			}
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			return out, fmt.Errorf("read: %w", err)
		}
		payload, from, src, ok := wire.Unframe(buf[:n], wire.ClientPort)
		if !ok {
			continue
		}
		h, ok := answer(payload, probes)
		if !ok {
			continue
		}
		h.MAC, h.Maker = from, oui.Of(from).Name
		if !h.Server.IsValid() {
			h.Server = src
		}
		h.Ours = slices.Contains(own, h.Server)
		known := slices.ContainsFunc(out, func(o store.Heard) bool { return o.As == h.As && o.Server == h.Server })
		if known || len(out) >= maxHeard {
			continue
		}
		if out = append(out, h); one && another(h) {
			if err := conn.SetReadDeadline(time.Now().Add(grace)); err != nil {
				return out, err
			}
			one = false // who comes after it does not prolong it
		}
	}
}

// answer reads an answer to one of our DISCOVERs.
func answer(payload []byte, probes []probe) (store.Heard, bool) {
	p, err := dhcpv4.FromBytes(payload)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootReply || p.MessageType() != dhcpv4.MessageTypeOffer {
		return store.Heard{}, false
	}
	at := slices.IndexFunc(probes, func(q probe) bool {
		return q.sent.TransactionID == p.TransactionID && bytes.Equal(q.sent.ClientHWAddr, p.ClientHWAddr)
	})
	if at < 0 {
		return store.Heard{}, false
	}
	h := store.Heard{As: probes[at].kind, Server: message.AddrOption(p, dhcpv4.OptionServerIdentifier), Offered: message.AddrOf(p.YourIPAddr), Next: message.AddrOf(p.ServerIPAddr)}
	class := p.ClassIdentifier()
	h.PXE = strings.HasPrefix(class, "PXEClient") || strings.HasPrefix(class, "HTTPClient")
	h.File = printable(p.BootFileName)
	if b := p.Options.Get(dhcpv4.OptionBootfileName); len(b) > 0 {
		h.File = printable(string(b))
	}
	return h, true
}

// maxFile is longer than the field of a DHCP message (RFC 2131 §2) and than
// any file name of use.
const maxFile = 255

// printable keeps what a stranger sent from steering a terminal or a page.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s[:min(len(s), maxFile)])
}

// ownAddresses lists every address of this host: an answer whose server
// identifier is one of them is ours, whichever way it came round.
func ownAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list our own addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			out = append(out, message.AddrOf(n.IP))
		}
	}
	return out, nil
}
