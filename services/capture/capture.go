// Package capture keeps the newest packets of every machine's boot, so that a
// failed one can be looked at in Wireshark after it has failed: DHCP, TFTP,
// HTTP and iSCSI with the appliance, ARP and router solicitations.
//
// What is kept is a record of what happened and not of what was moved: the data
// of volumes and files, HTTP bodies and whatever could let somebody log in as a
// machine is overwritten before it is kept, by rules that name what may stay.
// It is in memory only, within bounds, and lost at a restart.
//
// It opens packet sockets and listens; nothing is sent, and no card is put into
// promiscuous mode.
package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"

	"lunboot/services"
	"lunboot/store"
)

// Config is what a Server needs. Open and Links are for tests; without them
// frames come from the host's network cards.
type Config struct {
	Ports  func() Ports                               // where the other services listen; asked when Serve begins
	On     func() bool                                // whether the operator wants it
	Lookup func(addr netip.Addr) (store.MAC, bool)    // who leased an address; may be nil
	Links  func() ([]Link, error)                     // the networks that we are on
	Open   func(Link, []bpf.Instruction) (Tap, error) // begins to listen on one
	Log    *slog.Logger
	Now    func() time.Time
}

// Tap is where frames come from.
type Tap interface {
	// Read returns one frame, without the tag that it had on the wire, and how it
	// came or left. It fails once Close was called.
	Read(b []byte) (n int, seen Seen, err error)
	// Filter replaces the filter.
	Filter([]bpf.Instruction) error
	// Dropped counts the frames that came faster than they were read.
	Dropped() int64
	Close() error
}

// Seen is how a frame came or left.
type Seen struct {
	At  time.Time
	Tag [tagLen]byte // IEEE 802.1Q §9.3: what stands before its EtherType; zero for none
}

// Times of the service.
const (
	lookEvery   = 5 * time.Second       // for new interfaces, and the operator's choice
	filterEvery = 50 * time.Millisecond // at most
)

// Server is the recorder as a service. It never fails: a boot does not depend
// on it.
type Server struct {
	cfg    Config
	rec    *recorder
	kick   chan struct{}
	since  time.Time
	filter []bpf.Instruction // Serve's own

	mu      sync.Mutex
	taps    map[string]*tap
	reason  string // why nothing is recorded
	dropped int64  // by taps that are closed
}

type tap struct {
	Tap
	link Link
	done chan struct{}
}

// New makes a server. It does nothing until Serve.
func New(cfg Config) *Server {
	if cfg.Links == nil {
		cfg.Links = hostLinks
	}
	if cfg.Open == nil {
		cfg.Open = openCard
	}
	return &Server{
		cfg: cfg, kick: make(chan struct{}, 1), taps: map[string]*tap{}, since: cfg.Now(), reason: "not started",
		rec: newRecorder(Ports{}, cfg.Lookup, bounds{perMachine, inAll, maxMachines, maxHeard}),
	}
}

// String names the service.
func (s *Server) String() string { return "packet capture" }

// Listen binds nothing: what cannot be had is told by State.
func (s *Server) Listen() error { return nil }

// Serve records until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	s.rec.mu.Lock()
	s.rec.ports = s.cfg.Ports()
	s.rec.mu.Unlock()
	s.filter = program(s.rec.ports, nil, false)
	defer s.closeAll()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	pause := time.NewTimer(filterEvery)
	defer pause.Stop()
	s.follow()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			s.follow()
		case <-s.kick:
			s.refilter()
			pause.Reset(filterEvery)
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
		}
	}
}

// follow listens where there is something to hear, and nowhere else.
func (s *Server) follow() {
	links, reason := s.wanted()
	s.rec.setLinks(links)
	if !s.cfg.On() {
		defer s.forget() // when nobody records any more
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.taps {
		at := slices.IndexFunc(links, func(l Link) bool { return l.Name == name && l.Index == t.link.Index && l.MAC == t.link.MAC })
		gone := false
		select {
		case <-t.done:
			gone = true
		default:
		}
		if gone || at < 0 || !slices.Equal(links[at].Prefixes, t.link.Prefixes) {
			s.close(t)
			delete(s.taps, name)
		}
	}
	for _, l := range links {
		if s.taps[l.Name] != nil || l.MAC.IsZero() {
			continue
		}
		opened, err := s.cfg.Open(l, s.filter)
		if err != nil {
			reason = fmt.Sprintf("%s cannot be listened to: %v", l.Name, err)
			if errors.Is(err, os.ErrPermission) {
				reason = "root or the capability NET_RAW is needed"
			}
			continue
		}
		t := &tap{Tap: opened, link: l, done: make(chan struct{})}
		s.taps[l.Name] = t
		go s.read(t)
	}
	if len(s.taps) > 0 {
		reason = ""
	} else if reason == "" {
		reason = "no network card has an IPv4 address"
	}
	if reason != s.reason && reason != "" {
		s.cfg.Log.Info("packets of boots are not recorded", "reason", reason)
	}
	s.reason = reason
}

// forget lets go of what was recorded before it was switched off.
func (s *Server) forget() {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	s.rec.forget()
}

func (s *Server) wanted() (links []Link, reason string) {
	if !s.cfg.On() {
		return nil, "it is switched off; switch it on with: lunboot setting set capture on"
	}
	links, err := s.cfg.Links()
	if err != nil {
		return nil, err.Error()
	}
	return links, ""
}

// close ends a tap and waits for its reader; mu is held.
func (s *Server) close(t *tap) {
	s.dropped += t.Dropped()
	if err := t.Close(); err != nil {
		s.cfg.Log.Warn("stop listening", "interface", t.link.Name, "error", err)
	}
	<-t.done
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.taps {
		s.close(t)
		delete(s.taps, name)
	}
	s.reason = "stopped"
}

// read records the frames of one tap until it is closed. A card that is gone
// ends it too: follow looks for it again.
func (s *Server) read(t *tap) {
	defer close(t.done)
	buf := make([]byte, copyAll)
	for {
		n, seen, err := t.Read(buf)
		if err != nil {
			return
		}
		_ = services.Guard(s.cfg.Log, "recording a packet", func() error {
			s.rec.take(t.link, seen, buf[:n])
			return nil
		})
		if s.rec.wantsFilter() {
			select {
			case s.kick <- struct{}{}:
			default:
			}
		}
	}
}

// refilter tells the kernel which connections were seen enough of. When they
// are too many for it, it passes no connection's data at all until some have
// ended.
func (s *Server) refilter() {
	keys, changed := s.rec.leftOut()
	if !changed {
		return
	}
	open := len(keys) <= maxLeftOut
	if open {
		s.filter = program(s.rec.ports, keys, false)
	} else {
		s.filter = program(s.rec.ports, nil, true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.taps {
		err := t.Filter(s.filter)
		if err != nil && open { // the kernel's bound is net.core.optmem_max
			err = t.Filter(program(s.rec.ports, nil, true))
		}
		if err != nil {
			s.cfg.Log.Warn("the filter of a packet socket could not be changed", "interface", t.link.Name, "error", err)
		}
	}
}

// maxLeftOut is how many connections a filter can leave out: it holds 4,096
// instructions (BPF_MAXINSNS), one and a half for each.
const maxLeftOut = 2500

// State is how the recorder is.
type State struct {
	Links    []string // the interfaces that are recorded
	Reason   string   // why none is
	Since    time.Time
	Machines int
	Packets  int64 // kept since the start
	Dropped  int64 // that came faster than they were read
	Bytes    int64 // of memory
}

// State returns how the recorder is.
func (s *Server) State() State {
	s.mu.Lock()
	st := State{Reason: s.reason, Since: s.since, Dropped: s.dropped}
	for name, t := range s.taps {
		st.Links = append(st.Links, name)
		st.Dropped += t.Dropped()
	}
	s.mu.Unlock()
	slices.Sort(st.Links)
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	st.Machines, st.Packets, st.Bytes = len(s.rec.rings.byWho), s.rec.packets, int64(s.rec.rings.bytes+s.rec.held.bytes)
	return st
}

// hostLinks lists the host's networks: those with an IPv4 address. A card
// without a MAC is in the list for its addresses alone.
func hostLinks() ([]Link, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var out []Link
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 {
			continue
		}
		l := Link{Name: i.Name, Index: i.Index}
		if len(i.HardwareAddr) == 6 && i.Flags&net.FlagLoopback == 0 {
			l.MAC = store.MAC(i.HardwareAddr)
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().Is4() {
				ones, _ := n.Mask.Size()
				l.Prefixes = append(l.Prefixes, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
		if len(l.Prefixes) > 0 {
			out = append(out, l)
		}
	}
	return out, nil
}
