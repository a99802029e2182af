// Package ra ends iPXE's wait for an IPv6 router that does not exist. It
// configures IPv4 and IPv6 together and waits for both, 16 seconds a stage on a
// wire without a router, although DHCP is done after one.
//
// The answer to its router solicitation (RFC 4861 §6.2.6) is an advertisement
// that says that we are no router: lifetime 0, no prefix, no DHCPv6. It goes
// only to the card of a machine that speaks PXE right now, at most once a
// second, and never on a wire that has a router, or where this host is one.
//
// The package knows nothing of DHCP beyond the answer to "does this MAC boot".
package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	raw "github.com/mdlayher/packet"
	"golang.org/x/net/bpf"

	"lunboot/services"
	"lunboot/store"
)

// Recent tells whether a MAC sent a PXE or iPXE packet over DHCP in the last
// minute.
type Recent interface {
	SpokePXE(mac store.MAC) bool
}

// Emitter takes events. It does not block.
type Emitter interface {
	Emit(e store.Event)
}

// Config is what a Server needs; every field is needed.
type Config struct {
	Interface string
	Recent    Recent
	Emit      Emitter
	Log       *slog.Logger
	Now       func() time.Time
}

// Times of the service.
const (
	routerMemory = 30 * time.Minute // how long an advertised router counts; RFC 4861 §6.2.1 lets one be silent as long
	perMachine   = time.Second
	settle       = time.Second // after our own solicitation: a router answers within half a second (RFC 4861 §6.2.6)
)

// Server answers router solicitations on one interface.
type Server struct {
	cfg    Config
	router time.Time // when a router advertised itself last; Serve's own

	mu   sync.Mutex
	link *link // nil when not listening
}

type link struct {
	ifi  *net.Interface
	conn *raw.Conn
}

// New makes a server. It does nothing until Listen.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// String names the service.
func (s *Server) String() string { return "router advertisements on " + s.cfg.Interface }

// Listen opens the packet socket.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		return fmt.Errorf("%s: already listening", s)
	}
	ifi, err := net.InterfaceByName(s.cfg.Interface)
	if err != nil {
		return &store.Error{Kind: store.KindNotFound, Op: "listen", Subject: s.String(), Field: "interface", Msg: fmt.Sprintf("there is no interface %q", s.cfg.Interface)}
	}
	if len(ifi.HardwareAddr) != 6 {
		return store.Invalid("interface", "%s: it is not an Ethernet", s)
	}
	filter, err := bpf.Assemble(onlyRouterMessages)
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	// All protocols, since only such a socket hears what this host sends: an
	// advertisement of a router on this host ends our answers too.
	conn, err := raw.Listen(ifi, raw.Raw, etherTypeAll, &raw.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("%s: root or the capability NET_RAW is needed: %w", s, err)
	}
	for _, group := range []netip.Addr{allNodes, allRouters} {
		g := group.As16()
		if err := conn.JoinGroup(net.HardwareAddr{0x33, 0x33, g[12], g[13], g[14], g[15]}); err != nil {
			conn.Close()
			return fmt.Errorf("%s: join %s: %w", s, group, err)
		}
	}
	s.link = &link{ifi, conn}
	return nil
}

const etherTypeAll = 3 // ETH_P_ALL, if_ether.h

// onlyRouterMessages lets the kernel drop all but router solicitations and
// advertisements: a volume's traffic must not wake us. What is tagged for a VLAN is of
// another network, whose router is not this one's; the kernel takes the tag off before
// it shows us the frame. A tag of number 0 names no VLAN (IEEE 802.1Q §6.9).
var onlyRouterMessages = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtVLANTag},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x0fff, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: etherTypeIPv6, SkipTrue: 6},
	bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protocolICMPv6, SkipTrue: 4},
	bpf.LoadAbsolute{Off: headersLen, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: typeSolicitation, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: typeAdvertisement, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%s: not listening", s)
	}
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	err := s.loop(ctx, l)
	if stop() {
		l.conn.Close()
	}
	s.mu.Lock()
	s.link = nil
	s.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s, err)
}

// loop reads frames. The first answers wait until a router had its chance to
// answer our own solicitation.
func (s *Server) loop(ctx context.Context, l *link) error {
	own := store.MAC(l.ifi.HardwareAddr)
	if err := ask(l, own); err != nil {
		s.cfg.Log.Warn("no router was asked for; one that is silent is noticed when it speaks", "interface", l.ifi.Name, "error", err)
	}
	a := answerer{cfg: s.cfg, own: own, router: &s.router, forwards: forwards, started: s.cfg.Now(), answered: map[store.MAC]time.Time{}}
	buf := make([]byte, 2048)
	for {
		n, _, err := l.conn.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read: %w", err)
		}
		err = services.Guard(s.cfg.Log, "router solicitation", func() error {
			p, err := parse(buf[:n])
			if err != nil {
				return nil // anybody may send anything
			}
			return a.handle(l, p)
		})
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("a router solicitation was not answered", "interface", l.ifi.Name, "error", err)
		}
	}
}

// ask sends a solicitation of our own, so that a router shows itself.
func ask(l *link, own store.MAC) error {
	// Through the host's own stack, where there is one: a router program on
	// this host hears it too.
	if conn, _, err := ndp.Listen(l.ifi, ndp.LinkLocal); err == nil {
		defer conn.Close()
		return conn.WriteTo(&ndp.RouterSolicitation{}, nil, allRouters)
	}
	b, err := solicitation(own, netip.IPv6Unspecified())
	if err != nil {
		return err
	}
	_, err = l.conn.WriteTo(b, &raw.Addr{HardwareAddr: b[:6]})
	return err
}

// answerer decides about one frame after the other.
type answerer struct {
	cfg      Config
	own      store.MAC
	router   *time.Time
	forwards func(ifname string) (bool, error)
	started  time.Time
	answered map[store.MAC]time.Time // of the last second; bounded by maxAnswered
}

// maxAnswered bounds the machines that are remembered for the rate limit.
const maxAnswered = 1024

func (a *answerer) handle(l *link, p packet) error {
	now := a.cfg.Now()
	if !p.solicits {
		if p.lifetime > 0 {
			if a.router.IsZero() {
				a.cfg.Log.Info("there is an IPv6 router, so router solicitations are left to it", "interface", a.cfg.Interface, "router", p.src)
			}
			*a.router = now
		}
		return nil
	}
	answer, err := a.wants(p, now)
	if err != nil || !answer {
		return err
	}
	dst := p.src
	if dst.IsUnspecified() {
		dst = allNodes // RFC 4861 §6.2.6; the frame still goes to one card
	}
	b, err := advertisement(a.own, p.from, sourceAddr(l.ifi, a.own), dst)
	if err != nil {
		return err
	}
	if _, err := l.conn.WriteTo(b, &raw.Addr{HardwareAddr: p.from[:]}); err != nil {
		return fmt.Errorf("send to %s: %w", p.from, err)
	}
	a.cfg.Emit.Emit(store.Event{At: now, Kind: store.EventRASent, MAC: p.from, Detail: store.Detail{Interface: a.cfg.Interface}})
	return nil
}

// wants reports whether a solicitation is ours to answer, and counts it.
func (a *answerer) wants(p packet, now time.Time) (bool, error) {
	if p.from == a.own || p.from[0]&1 != 0 || !p.src.IsUnspecified() && !p.src.IsLinkLocalUnicast() {
		return false, nil
	}
	if !a.router.IsZero() && now.Sub(*a.router) < routerMemory || now.Sub(a.started) < settle {
		return false, nil
	}
	if last, ok := a.answered[p.from]; ok && now.Sub(last) < perMachine || !a.cfg.Recent.SpokePXE(p.from) {
		return false, nil
	}
	// A host that forwards IPv6 is a router, or is about to be.
	if yes, err := a.forwards(a.cfg.Interface); yes || err != nil {
		return false, err
	}
	if len(a.answered) >= maxAnswered {
		for m, at := range a.answered {
			if now.Sub(at) >= perMachine {
				delete(a.answered, m)
			}
		}
		if len(a.answered) >= maxAnswered {
			return false, nil
		}
	}
	a.answered[p.from] = now
	return true, nil
}

// forwards reports whether the host forwards IPv6 from an interface. A kernel
// without IPv6 does not.
func forwards(ifname string) (bool, error) {
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + ifname + "/forwarding")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read whether %s forwards IPv6: %w", ifname, err)
	}
	return strings.TrimSpace(string(b)) != "0", nil
}

// sourceAddr returns our link-local address, which an advertisement must come
// from (RFC 4861 §4.2).
func sourceAddr(ifi *net.Interface, own store.MAC) netip.Addr {
	addrs, err := ifi.Addrs()
	if err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Is6() && ip.IsLinkLocalUnicast() {
					return ip
				}
			}
		}
	}
	return linkLocal(own)
}
