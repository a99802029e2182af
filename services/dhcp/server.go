package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredhcp/coredhcp/handler"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"

	"lunboot/services/boot"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/dhcp/survey"
	"lunboot/store"
)

// Machines is who asked to boot and is not enrolled.
type Machines interface {
	SeeUnknown(ctx context.Context, some ...store.UnknownMachine) error
}

// Loaders chooses the loader that hardware is given, or none; own is a machine's
// own choice.
type Loaders interface {
	Next(h boot.Hardware, own string) boot.Pick
}

// Emitter takes events. It does not block.
type Emitter interface {
	Emit(e store.Event)
}

// Config is what a Server needs. Every field is needed unless it says
// otherwise.
type Config struct {
	Interface string // the interface that is served; empty with a ListenAddr of one address

	// Subnet is the network on the interface, and its range. In proxy mode those
	// who ask directly are told what to boot and given no address; when it is
	// off, they are not answered.
	Subnet store.Subnet
	// Relayed are the networks of those who ask through a relay (optional).
	Relayed []store.Subnet
	// Ledger is shared by all servers of one appliance.
	Ledger *ledger.Ledger

	// ListenAddr is "0.0.0.0:67" when empty. With an address of one interface
	// or loopback, replies go back to their sender, and nothing is broadcast.
	ListenAddr string
	// PXEListen is where boot servers are asked (PXE 2.1 §2.2.5). It is port
	// 4011 of the interface when empty; with a ListenAddr of one address there
	// is none then.
	PXEListen string

	// Advertise is the address that machines are told to boot from; not valid
	// for ours on the interface (optional).
	Advertise netip.Addr
	// Boot returns the boot listener as it is reached at an address of ours.
	Boot func(local netip.Addr) netip.AddrPort

	Loaders  Loaders
	Machines Machines
	Emit     Emitter
	Log      *slog.Logger
	Now      func() time.Time

	// Plugins are further handlers of coredhcp's chain, run after ours: they
	// may add options to a reply, or drop it (optional).
	Plugins []handler.Handler4
}

// Bounds of the server's memory and work.
//
// Nobody is limited by what others send: a relay may have a whole hall behind
// it that is switched on at once, and none of its packets looks different from a
// flood's. What a stranger may cost is bounded instead. His DISCOVER is answered
// from memory in microseconds and leaves an offer, of which all strangers
// together have half of the range; it waits in a queue of its own, so that as
// many as may come stand before no machine and nobody who holds a lease or was
// offered one, and those of one relay leave room for those of another; what does
// not fit there is dropped, and asked again. Of what is written down for people,
// a rate is enough (see audience).
const (
	workers  = 256 // requests of those who are known that are answered at a time; each may wait for the disk, and those that wait share a commit
	queue    = 16  // requests that wait for one worker
	greeters = 8   // requests of strangers that are answered at a time; they wait for nothing
	lobby    = 128 // requests that wait for one of those

	readBuffer = 4 << 20 // bytes that wait in the kernel

	maxMACs   = 4096 // MACs that are remembered, each for one purpose
	maxRelays = 256  // relays that are remembered, likewise
	macRate   = 10   // requests a second of one MAC: a client that answers itself
	macBurst  = 20
)

// defaultLease is the lease time of a subnet that names none.
const defaultLease = time.Hour

// Server answers DHCP on one interface, to those on its own wire and to those
// that ask through a relay: each by the mode of its subnet.
type Server struct {
	cfg Config

	networks networks
	ledger   *ledger.Ledger
	facts    map[netip.Addr]Address              // of the request that is decided: whose turn it is may use them
	bound    bool                                // to one address, so that there is no route to ask
	link     atomic.Pointer[Interface]           // our interface as it was seen last
	local    atomic.Pointer[map[netip.Addr]bool] // our addresses, on all interfaces

	turns     [turns]sync.Mutex // by MAC: events of one machine are in order
	limiters  *recent[store.MAC, bucket]
	spoke     *recent[store.MAC, time.Time] // MACs that sent a PXE or iPXE packet
	reports   chan store.UnknownMachine     // on their way to the disk
	waiting   *recent[store.MAC, time.Time] // unknown machines that were reported
	chained   *recent[store.MAC, chain]
	routes    *recent[netip.Addr, way]
	strange   *recent[netip.Addr, time.Time] // relays of unknown subnets that were told of
	lost      *recent[store.MAC, time.Time]  // and machines behind them
	namesakes *recent[netip.Addr, struct{}]  // addresses of relays that clients know us by
	telling   *rate.Limiter                  // of those machines
	audience  audience
	wire      *survey.Prober
	counters  counters

	routed sockets.Routed // sends the answers that no one interface leads to

	mu     sync.Mutex
	socket *socket // nil when not listening
	pxe    *socket // the boot server's; nil when there is none
}

// counters count what is dropped without a line in the log.
type counters struct {
	malformed, limited, crowded, unserved, untold atomic.Int64
}

// Dropped is how many packets were not answered, and why.
type Dropped struct {
	Malformed int64 // not a DHCP request of an Ethernet client
	Limited   int64 // more than one MAC may send
	Crowded   int64 // came faster than they can be answered
	Unserved  int64 // from a network that nothing is given on
	Untold    int64 // answered, but of strangers who are too many to be told of
}

// Dropped returns the counts since New.
func (s *Server) Dropped() Dropped {
	return Dropped{s.counters.malformed.Load(), s.counters.limited.Load(), s.counters.crowded.Load(), s.counters.unserved.Load(), s.counters.untold.Load()}
}

// socket is what Listen opens.
type socket struct {
	udp     *net.UDPConn
	conn    *ipv4.PacketConn
	ifi     *net.Interface // nil when bound to one address
	raw     *packet.Conn   // nil without NET_RAW or Ethernet; it sends, and hears when it is all there is
	unicast bool           // bound to one address: replies go to their sender
	pxe     bool           // boot servers are asked here
	beside  string         // who has the port, when it is shared
}

// shared reports whether another program has the port: what is broadcast is
// heard beside it.
func (k *socket) shared() bool { return k.udp == nil }

func (k *socket) close() {
	if k.udp != nil {
		k.udp.Close()
	}
	if k.raw != nil {
		k.raw.Close()
	}
}

// New makes a server. It does nothing until Listen.
func New(cfg Config) *Server {
	s := &Server{
		cfg:       cfg,
		ledger:    cfg.Ledger,
		facts:     map[netip.Addr]Address{},
		limiters:  newRecent[store.MAC, bucket](maxMACs),
		spoke:     newRecent[store.MAC, time.Time](maxMACs),
		waiting:   newRecent[store.MAC, time.Time](maxMACs),
		reports:   make(chan store.UnknownMachine, reports),
		chained:   newRecent[store.MAC, chain](maxMACs),
		routes:    newRecent[netip.Addr, way](maxRelays),
		strange:   newRecent[netip.Addr, time.Time](maxRelays),
		lost:      newRecent[store.MAC, time.Time](maxRelays),
		namesakes: newRecent[netip.Addr, struct{}](maxRelays),
		telling:   rate.NewLimiter(lostRate, lostBurst),
		audience:  newAudience(),
	}
	s.wire = survey.NewProber(cfg.Now, cfg.Log)
	s.networks.own = settled(cfg.Subnet)
	for _, n := range cfg.Relayed {
		s.networks.relayed = append(s.networks.relayed, settled(n))
	}
	return s
}

// settled returns a subnet with its network masked, and a lease time.
func settled(n store.Subnet) store.Subnet {
	n.Prefix = n.Prefix.Masked()
	if n.LeaseTime == 0 {
		n.LeaseTime = defaultLease
	}
	return n
}

// String names the service.
func (s *Server) String() string {
	if s.cfg.Interface == "" {
		return "DHCP on " + s.listenAddr()
	}
	return "DHCP on " + s.cfg.Interface
}

func (s *Server) listenAddr() string {
	if s.cfg.ListenAddr == "" {
		return "0.0.0.0:67"
	}
	return s.cfg.ListenAddr
}

// Listen binds the port. An error names what is in the way.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket != nil {
		return fmt.Errorf("%s: already listening", s)
	}
	if err := s.validate(); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	addr, err := netip.ParseAddrPort(s.listenAddr())
	if err != nil || !addr.Addr().Is4() {
		return fmt.Errorf("%s: %q is not an IPv4 address and port, such as 0.0.0.0:67", s, s.listenAddr())
	}
	k := &socket{unicast: !addr.Addr().IsUnspecified()}
	link := &Interface{Name: s.cfg.Interface, Address: addr.Addr()}
	local := map[netip.Addr]bool{addr.Addr(): true}
	if !k.unicast {
		if link, k.ifi, err = s.findLink(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if local, err = localAddresses(); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	err = k.bind(addr)
	if s.mayShare(k, err) {
		err = s.hear(k, err)
	} else if err == nil && k.ifi != nil {
		k.raw = s.openRaw(k.ifi)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	if s.pxe, err = s.listenPXE(k); err != nil {
		k.close()
		return fmt.Errorf("%s: %w", s, err)
	}
	s.link.Store(link)
	s.local.Store(&local)
	s.bound = k.unicast
	s.socket = k
	return nil
}

// bind binds a socket's port, which nobody else may hold.
func (k *socket) bind(addr netip.AddrPort) error {
	if err := sockets.Free(addr, k.ifi); err != nil {
		return err
	}
	name := ""
	if k.ifi != nil {
		name = k.ifi.Name
	}
	var err error
	if k.udp, err = server4.NewIPv4UDPConn(name, net.UDPAddrFromAddrPort(addr)); err != nil {
		k.udp = nil
		return fmt.Errorf("listen on UDP port %d (root or the capability NET_BIND_SERVICE is needed below 1024): %w", addr.Port(), err)
	}
	// What comes while the processor is elsewhere must not be lost: a machine asks
	// again only after seconds. The host's rmem_max may allow less.
	if err := k.udp.SetReadBuffer(readBuffer); err != nil {
		k.udp.Close()
		return fmt.Errorf("enlarge the socket's buffer: %w", err)
	}
	k.conn = ipv4.NewPacketConn(k.udp)
	if err := k.conn.SetControlMessage(ipv4.FlagDst, true); err != nil {
		k.udp.Close()
		return fmt.Errorf("ask for the address that each packet was sent to: %w", err)
	}
	return nil
}

func (s *Server) validate() error {
	all := s.networks.relayed
	if serves(s.networks.own) || len(all) == 0 {
		all = append([]store.Subnet{s.networks.own}, all...)
	}
	for _, n := range all {
		if err := n.Validate(); err != nil {
			return err
		}
		switch {
		case n.LeaseTime < time.Minute:
			return store.Invalid("lease_time", "a lease of %s is too short; one minute is the least", n.LeaseTime)
		case ledger.Size(n.Range) > ledger.MaxRange:
			return store.Invalid("range", "the range %s has %d addresses; %d are the most", n.Range, ledger.Size(n.Range), ledger.MaxRange)
		}
	}
	if s.cfg.Interface == "" && s.cfg.ListenAddr == "" {
		return store.Invalid("interface", "DHCP needs an interface; name it with --interface")
	}
	return nil
}

// findLink looks up our interface and our address on it: the one in its
// subnet, or any when those who ask directly are not answered.
func (s *Server) findLink() (*Interface, *net.Interface, error) {
	subnet := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if serves(s.networks.own) {
		subnet = s.networks.own.Prefix
	}
	return findLink(s.cfg.Interface, subnet)
}

func findLink(name string, subnet netip.Prefix) (*Interface, *net.Interface, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, &store.Error{Kind: store.KindNotFound, Field: "interface", Msg: fmt.Sprintf("there is no interface %q; the interfaces are %s", name, sockets.InterfaceNames())}
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil, nil, fmt.Errorf("read the addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && subnet.Contains(ip.Unmap()) {
			return &Interface{Name: name, Address: ip.Unmap(), MTU: ifi.MTU}, ifi, nil
		}
	}
	return nil, nil, store.Invalid("interface", "interface %s has no address in %s; give it one with: ip addr add ADDRESS/%d dev %s", name, subnet, subnet.Bits(), name)
}

// openRaw opens the socket for replies to clients without an address. Without
// it they are broadcast.
func (s *Server) openRaw(ifi *net.Interface) *packet.Conn {
	if len(ifi.HardwareAddr) != 6 {
		return nil
	}
	// Protocol 0 receives nothing: this socket only sends.
	raw, err := packet.Listen(ifi, packet.Raw, 0, nil)
	if err != nil {
		s.cfg.Log.Warn("DHCP replies are broadcast: a packet socket needs root or the capability NET_RAW", "interface", ifi.Name, "error", err)
		return nil
	}
	return raw
}

// Addr returns the bound address; it is not valid when not listening.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.socket.addr()
}

// PXEAddr returns where boot servers are asked; it is not valid when they are
// not.
func (s *Server) PXEAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pxe.addr()
}

func (k *socket) addr() netip.AddrPort {
	if k == nil || k.shared() {
		return netip.AddrPort{}
	}
	return k.udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

// SpokePXE reports whether a MAC sent a PXE or iPXE packet in the last minute.
func (s *Server) SpokePXE(mac store.MAC) bool {
	at, ok := s.spoke.get(mac)
	return ok && s.cfg.Now().Sub(at) <= time.Minute
}

// Serve answers until ctx ends.
func (s *Server) Serve(parent context.Context) error {
	s.mu.Lock()
	k, pxe := s.socket, s.pxe
	s.mu.Unlock()
	if k == nil {
		return fmt.Errorf("%s: not listening", s)
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var wg sync.WaitGroup
	q := newQueues()
	for _, in := range slices.Concat(q.known, q.strange) {
		wg.Go(func() { s.work(ctx, in) })
	}
	wg.Go(func() { s.writeReports(ctx) })
	wg.Go(func() { s.keepInUse(ctx) })
	if k.ifi != nil {
		wg.Go(func() {
			if err := s.watchLink(ctx, k); err != nil {
				cancel(err)
			}
		})
		if gives(s.networks.own) {
			wg.Go(func() { s.wire.Run(ctx, s, k.ifi) })
		}
	}
	wg.Go(func() {
		<-ctx.Done()
		k.close()
		if pxe != nil {
			pxe.close()
		}
	})
	if pxe != nil {
		wg.Go(func() {
			if err := s.read(ctx, pxe, q); err != nil {
				cancel(err)
			}
		})
	}
	err := s.read(ctx, k, q)
	cancel(err)
	wg.Wait()
	s.routed.Close()
	s.mu.Lock()
	s.socket, s.pxe = nil, nil
	s.mu.Unlock()
	if parent.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s, context.Cause(ctx))
}

// linkInterval is how often the interface is looked at: the socket of one that
// was removed goes deaf without an error.
const linkInterval = 2 * time.Second

// watchLink returns an error when the interface or our address on it is gone, and
// when in proxy mode a DHCP server has come to this host: the kernel would give
// us its clients' unicast requests, so that its port is left to it.
func (s *Server) watchLink(ctx context.Context, k *socket) error {
	tick := time.NewTicker(linkInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		link, ifi, err := s.findLink()
		if err != nil {
			return err
		}
		local, err := localAddresses()
		if err != nil {
			return err
		}
		if ifi.Index != k.ifi.Index {
			return fmt.Errorf("interface %s was removed and made again", s.cfg.Interface)
		}
		if !k.shared() && s.networks.own.Mode == store.DHCPProxy {
			if err := sockets.Alone(k.udp, k.ifi); err != nil && ctx.Err() == nil {
				return err
			}
		}
		s.link.Store(link)
		s.local.Store(&local)
	}
}

// Times for leases of addresses that are in use.
const (
	keepInterval = 20 * time.Second
	keepLow      = 30 * time.Minute
	keepHigh     = 90 * time.Minute
)

// keepInUse prolongs the leases of addresses from which volumes are open: such
// a lease does not expire, and since it is on disk, a restart changes nothing.
// An operating system that runs from its volume may never renew: it was given
// its address by iPXE and set it as its own.
func (s *Server) keepInUse(ctx context.Context) {
	tick := time.NewTicker(keepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.prolong(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Log.Error("leases of addresses in use were not prolonged", "error", err)
			}
		}
	}
}

func (s *Server) prolong(ctx context.Context) error {
	now := s.cfg.Now()
	t, err := s.ledger.Begin(ctx, now)
	if err != nil {
		return err
	}
	ending := slices.DeleteFunc(t.Bound(now.Add(keepLow)), func(l store.Lease) bool {
		return !s.networks.holds(l.Address) || !t.Address(l.Address).InUse
	})
	t.End() // nobody waits for the disk
	var errs []error
	for _, l := range ending {
		l.Expires, l.Updated = now.Add(keepHigh), now
		errs = append(errs, s.ledger.Prolong(ctx, l))
	}
	return errors.Join(errs...)
}
