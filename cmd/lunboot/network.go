package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"lunboot/services"
	"lunboot/services/dhcp"
	"lunboot/services/dhcp/ledger"
	"lunboot/services/dhcp/sockets"
	"lunboot/services/ra"
	"lunboot/store"
)

// network is the service that runs one DHCP server a subnet that somebody
// chose: by a flag, or on the first-run page. Where subnets behind relays were
// chosen, one listens on every other interface too: a relay may reach us through
// any. It follows the inventory, so that a choice on a page takes effect without
// a restart.
type network struct {
	a     *appliance
	emit  dhcp.Emitter
	ready func()                                       // told once, when everything listens
	rival func(ctx context.Context, name string) error // asks an interface who answers DHCP

	mu      sync.Mutex
	servers map[string]*dhcpServer // by interface and prefix
	ledger  *ledger.Ledger         // which all of them share
	wake    chan struct{}
	rivals  map[string]store.DHCPMode // interfaces with a banner about another server's answer, or its silence, by the mode that it is about; Serve's own
	silent  map[string]bool           // those whose pause may end: the last question met nobody; Serve's own
	waiting map[string]bool           // interfaces that a flag names and whose part could not be settled yet; Serve's own
	gone    map[int64]int             // subnets whose network was missing, and how often in a row; Serve's own
	deaf    map[string]bool           // interfaces that could not be listened on; Serve's own
	had     map[string]string         // the addresses of waiting and deaf interfaces at the last look; Serve's own
}

type dhcpServer struct {
	site
	dhcp  *dhcp.Server
	ra    bool // whether router solicitations are to be answered
	parts []services.Service
	stop  context.CancelFunc
	done  chan struct{}
}

// ended reports whether it has stopped by itself, as when its interface went away.
func (s *dhcpServer) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func newNetwork(a *appliance, emit dhcp.Emitter) *network {
	return &network{a: a, emit: emit, rival: otherServer, servers: map[string]*dhcpServer{}, ledger: ledger.New(a.db, a.db, a.users), rivals: map[string]store.DHCPMode{}, silent: map[string]bool{}, waiting: map[string]bool{}, deaf: map[string]bool{}, wake: make(chan struct{}, 1)}
}

// String names the service.
func (n *network) String() string { return "DHCP" }

// Listen settles what the flags say and binds the subnets' ports. An error is
// one sentence for the operator.
func (n *network) Listen() error {
	ctx := context.Background()
	if err := n.fromFlags(ctx); err != nil {
		return err
	}
	sites, err := n.sites(ctx)
	if err != nil {
		return err
	}
	for _, s := range sites {
		n.mu.Lock() // a restart, while pages ask what is served
		_, ok := n.servers[key(s.subnet)]
		n.mu.Unlock()
		if ok {
			continue
		}
		if err := n.away(s.subnet); err != nil { // an address may come after this start
			n.cannotServe(s.subnet, err)
			n.deaf[s.subnet.Interface] = true
			continue
		}
		srv, err := n.listen(s)
		if err != nil && s.subnet.Mode == store.DHCPOff {
			continue // of relays only: follow tries it again, and says so
		}
		if err != nil {
			n.closeAll()
			return err
		}
		n.mu.Lock()
		n.servers[key(s.subnet)] = srv
		n.mu.Unlock()
	}
	return nil
}

// site is one place to listen, and what is given there.
type site struct {
	subnet  store.Subnet   // of those who ask directly; off when only relays are listened to
	relayed []store.Subnet // of those who ask through a relay
}

// same reports whether a running server would be made just so again.
func (s site) same(o site) bool {
	one := func(a, b store.Subnet) bool { return a.ID == b.ID && a.Revision == b.Revision }
	return one(s.subnet, o.subnet) && slices.EqualFunc(s.relayed, o.relayed, one)
}

// sites lists where to listen now: where addresses are given and, when some are
// given behind relays, on every other interface that a relay can reach.
func (n *network) sites(ctx context.Context) ([]site, error) {
	subnets, err := n.wanted(ctx)
	if err != nil {
		return nil, err
	}
	var out []site
	var listens []string
	relayed := false
	for _, s := range subnets {
		if s.Interface == "" {
			relayed = true
			continue
		}
		listens = append(listens, s.Interface)
		others := slices.DeleteFunc(slices.Clone(subnets), func(o store.Subnet) bool { return o.ID == s.ID })
		out = append(out, site{s, others})
	}
	switch {
	case !relayed:
		return out, nil
	case n.a.cmd.DHCPListen != "":
		if len(out) == 0 {
			out = append(out, site{store.Subnet{Mode: store.DHCPOff}, subnets})
		}
		return out, nil
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || slices.Contains(listens, i.Name) || len(addressesOf(i.Name)) == 0 {
			continue
		}
		out = append(out, site{store.Subnet{Interface: i.Name, Mode: store.DHCPOff}, subnets})
	}
	return out, nil
}

func key(s store.Subnet) string { return s.Interface + " " + s.Prefix.String() }

// addressesOf lists our IPv4 addresses on an interface, but for those that it gave
// itself while nobody gave it one (RFC 3927): they are no network to serve.
func addressesOf(name string) []netip.Prefix {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ip, ok := netip.AddrFromSlice(n.IP)
			ones, bits := n.Mask.Size()
			if ip = ip.Unmap(); ok && ip.Is4() && bits == 32 && !ip.IsLinkLocalUnicast() {
				out = append(out, netip.PrefixFrom(ip, ones))
			}
		}
	}
	return out
}

// wanted lists the subnets that are to be answered now.
func (n *network) wanted(ctx context.Context) ([]store.Subnet, error) {
	all, err := n.chosen(ctx)
	return slices.DeleteFunc(all, func(s store.Subnet) bool {
		// What a flag wants in its place, a refusal of that must not bring back.
		replaced := n.waiting[s.Interface] && n.a.cmd.DHCP == "full"
		return s.Mode == store.DHCPFull && n.rivals[s.Interface] == store.DHCPFull || replaced
	}), err
}

// chosen lists the subnets that somebody chose.
func (n *network) chosen(ctx context.Context) ([]store.Subnet, error) {
	if n.a.cmd.DHCP == "off" {
		return nil, nil
	}
	all, err := n.a.db.Subnets(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s store.Subnet) bool { return s.Mode == store.DHCPOff }), nil
}

func (n *network) listen(at site) (*dhcpServer, error) {
	s := at.subnet
	svc := dhcp.New(dhcp.Config{
		Interface: s.Interface, Subnet: s, Relayed: at.relayed, Ledger: n.ledger, ListenAddr: n.a.cmd.DHCPListen, PXEListen: n.a.cmd.PXEListen, Advertise: n.a.set.advertise, Boot: n.a.bootAddr, Loaders: n.a.loaders,
		Machines: n.a.db, Emit: n.emit, Log: n.a.log.With("part", "dhcp", "interface", s.Interface), Now: time.Now,
	})
	if err := svc.Listen(); err != nil {
		return nil, err
	}
	srv := &dhcpServer{site: at, dhcp: svc, ra: n.adverts(), parts: []services.Service{svc}}
	if n.a.cmd.DHCPListen != "" || s.Mode == store.DHCPOff || !srv.ra {
		return srv, nil // it speaks to no wire: to one address, or to relays
	}
	// Without a router's word on IPv6 each iPXE stage waits 16 s for one. The
	// answer saves that; a machine boots without it too.
	adverts := ra.New(ra.Config{Interface: s.Interface, Recent: svc, Emit: n.emit, Log: n.a.log.With("part", "ra", "interface", s.Interface), Now: time.Now})
	if err := adverts.Listen(); err != nil {
		n.a.log.Warn("iPXE waits 16 s a stage for an IPv6 router", "interface", s.Interface, "reason", err)
		return srv, nil
	}
	srv.parts = append(srv.parts, adverts)
	return srv, nil
}

// adverts reports whether router solicitations are to be answered. What cannot
// be read counts as the default: a machine boots either way.
func (n *network) adverts() bool {
	v, err := store.SettingValue(context.Background(), n.a.db, store.SettingRouterAdverts)
	if err != nil {
		n.a.log.Error("read a setting", "setting", store.SettingRouterAdverts, "error", err)
	}
	return v == "on"
}

// Serve runs the servers and follows the inventory until ctx ends.
func (n *network) Serve(ctx context.Context) error {
	n.mu.Lock()
	for _, s := range n.servers {
		n.start(ctx, s)
	}
	n.mu.Unlock()
	if n.ready != nil {
		n.ready()
	}
	defer n.closeAll()
	tick := time.NewTicker(10 * time.Second) // an interface that comes back
	defer tick.Stop()
	look := time.NewTicker(time.Second) // an address that comes
	defer look.Stop()
	ask := time.NewTimer(firstAsk)
	defer ask.Stop()
	seen := n.a.db.NetworkRevision()
	for {
		changed := n.a.db.NetworkChanged(seen)
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-changed:
			if len(n.rivals) > 0 {
				ask.Reset(0) // somebody may have mended it
			}
		case <-tick.C:
		case <-look.C:
			if !n.arrived() {
				continue
			}
		case <-ask.C:
			n.askForRivals(ctx)
			ask.Reset(n.untilAsked())
		}
		seen = n.a.db.NetworkRevision()
		n.follow(ctx)
	}
}

// How often the networks are asked whether another server has come.
const (
	firstAsk = 30 * time.Second
	askEvery = 10 * time.Minute
	askAgain = 30 * time.Second // while machines on one of them cannot boot
)

// untilAsked is how long the networks are left alone after a question.
func (n *network) untilAsked() time.Duration {
	if len(n.rivals) > 0 {
		return askAgain
	}
	return askEvery
}

// askForRivals pauses giving addresses on an interface where another DHCP server
// answers, and goes on where it has gone: two servers that know nothing of each
// other give one address to two machines. In proxy mode it is the other way
// round: without the other server there are no addresses. They are not given
// from here all the same, since that server may come back.
func (n *network) askForRivals(ctx context.Context) {
	if n.a.cmd.DHCPForce || n.a.cmd.DHCPListen != "" {
		return
	}
	subnets, err := n.chosen(ctx)
	if err != nil {
		n.a.log.Error("list the subnets", "error", err)
		return
	}
	subnets = slices.DeleteFunc(subnets, func(s store.Subnet) bool { return s.Interface == "" }) // behind a relay, where nobody can be asked
	answers := make([]error, len(subnets))
	var wg sync.WaitGroup
	for i, s := range subnets { // all at the same time: silence takes seconds
		wg.Go(func() { answers[i] = n.rival(ctx, s.Interface) })
	}
	wg.Wait()
	for i, s := range subnets {
		err := answers[i]
		if err != nil && !errors.Is(err, errOtherServer) {
			continue // the interface is away: follow says so
		}
		other := err != nil
		if !other && n.rivals[s.Interface] == store.DHCPFull && !n.silent[s.Interface] {
			// A server that pings before it offers, or whose answer was lost, is not
			// gone: a pause ends with the second question that nobody answers.
			n.silent[s.Interface] = true
			continue
		}
		delete(n.silent, s.Interface)
		text := ""
		switch {
		case s.Mode == store.DHCPProxy && !other:
			text = "No DHCP server gives addresses on " + s.Interface + ", and this appliance leaves that to another one there (proxy mode): machines cannot boot until it answers again"
		case s.Mode == store.DHCPFull && other:
			text = "Giving addresses on " + s.Interface + " is paused: " + err.Error()
			if n.rivals[s.Interface] != s.Mode {
				n.a.log.Warn("giving addresses is paused", "interface", s.Interface, "reason", err)
			}
		}
		if text == "" {
			delete(n.rivals, s.Interface)
		} else {
			n.rivals[s.Interface] = s.Mode
		}
		n.a.banner("rival "+s.Interface, text)
	}
}

// forgetRivals takes back what is said of interfaces that by now are off, removed
// or in another mode.
func (n *network) forgetRivals(subnets []store.Subnet) {
	for name, mode := range n.rivals {
		if !slices.ContainsFunc(subnets, func(s store.Subnet) bool { return s.Interface == name && s.Mode == mode }) {
			delete(n.rivals, name)
			delete(n.silent, name)
			n.a.banner("rival "+name, "")
		}
	}
}

// follow starts what was chosen and stops what no longer is.
func (n *network) follow(ctx context.Context) {
	if n.a.cmd.DHCP != "off" {
		n.settleWaiting(ctx)
		if err := n.renumber(ctx); err != nil {
			n.a.log.Error("let the subnets follow their interfaces", "error", err)
		}
	}
	chosen, err := n.chosen(ctx)
	if err != nil {
		n.a.log.Error("list the subnets", "error", err)
		return
	}
	n.forgetRivals(chosen)
	want, err := n.sites(ctx)
	if err != nil {
		n.a.log.Error("list the subnets", "error", err)
		return
	}
	adverts := n.adverts()
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, s := range n.servers {
		at := slices.IndexFunc(want, func(w site) bool { return key(w.subnet) == k })
		changed := at >= 0 && (!want[at].same(s.site) || s.ra != adverts)
		if at < 0 || changed || s.ended() {
			s.stop()
			<-s.done
			delete(n.servers, k)
		}
	}
	deaf := map[string]bool{}
	for _, w := range want {
		name := w.subnet.Interface
		if _, ok := n.servers[key(w.subnet)]; ok {
			continue
		}
		err := n.away(w.subnet)
		var s *dhcpServer
		if err == nil {
			s, err = n.listen(w)
		}
		if err != nil {
			deaf[name] = true
			switch {
			case w.subnet.Mode != store.DHCPOff:
				n.cannotServe(w.subnet, err)
			case !n.deaf[name]:
				// Nobody chose that interface, and a host's own bridges often
				// have a server of their own: worth a line, not a banner.
				n.a.log.Warn("relays are not answered there", "interface", name, "reason", err)
			}
			continue
		}
		n.servers[key(w.subnet)] = s
		n.start(ctx, s)
	}
	for name := range n.deaf {
		if !deaf[name] { // it listens by now, or is gone
			n.a.banner("dhcp "+name, "")
		}
	}
	n.deaf = deaf
}

// start runs a bound server; the caller holds mu.
func (n *network) start(ctx context.Context, s *dhcpServer) {
	ctx, s.stop = context.WithCancel(ctx)
	s.done = make(chan struct{})
	var wg sync.WaitGroup
	for _, p := range s.parts {
		wg.Go(func() {
			defer s.stop() // one part's end ends the others
			err := services.Guard(n.a.log, p.String(), func() error { return p.Serve(ctx) })
			if err != nil && ctx.Err() == nil {
				n.a.log.Error("stopped; it will be started again", "service", p.String(), "error", err)
			}
		})
	}
	go func() { // joined through done
		wg.Wait()
		close(s.done)
	}()
}

func (n *network) closeAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, s := range n.servers {
		if s.stop != nil {
			s.stop()
			<-s.done
		} else {
			// Bound and never served: serving with an ended context unbinds.
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			n.start(ctx, s)
			<-s.done
		}
		delete(n.servers, k)
	}
}

// changed asks the service to look at the inventory again.
func (n *network) changed() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// addresses lists our addresses on the networks that are served.
func (n *network) addresses() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []netip.Addr
	for _, s := range n.servers {
		for _, p := range addressesOf(s.subnet.Interface) {
			if s.subnet.Prefix.Contains(p.Addr()) {
				out = append(out, p.Addr())
			}
		}
	}
	return out
}

// serving says where DHCP is answered, for the foot of the pages.
func (n *network) serving() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, s := range n.servers {
		for _, p := range addressesOf(s.subnet.Interface) {
			if s.subnet.Prefix.Contains(p.Addr()) {
				text := p.Addr().String() + " · " + s.subnet.Interface
				if s.subnet.Mode == store.DHCPProxy {
					text += " (proxy)"
				}
				out = append(out, text)
			}
		}
	}
	for _, s := range n.servers {
		for _, r := range s.relayed {
			if r.Interface == "" {
				out = append(out, r.Prefix.String()+" · behind a relay")
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		out = append(out, "gives no addresses")
	}
	return out
}

// part says in words what part the appliance takes in DHCP.
func (n *network) part() string {
	if n.a.cmd.DHCP == "off" {
		return "off (--dhcp off)"
	}
	return strings.Join(n.serving(), ", ")
}

// localFor is our address on the network that a machine boots from.
func (n *network) localFor(m store.Machine) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.servers {
		for _, p := range addressesOf(s.subnet.Interface) {
			if s.subnet.Prefix.Contains(p.Addr()) && (!m.Address.IsValid() || s.subnet.Prefix.Contains(m.Address)) {
				return p.Addr()
			}
		}
	}
	if m.Address.IsValid() { // behind a relay: by route
		if a, err := sockets.SourceTo(m.Address); err == nil {
			return a
		}
	}
	return firstAddress()
}

// firstAddress is an address of ours that others can reach, or loopback.
func firstAddress() netip.Addr {
	ifs, err := net.Interfaces()
	if err == nil {
		for _, i := range ifs {
			if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
				continue
			}
			if have := addressesOf(i.Name); len(have) > 0 {
				return have[0].Addr()
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
