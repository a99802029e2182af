// Package tftp hands loaders to firmware over TFTP (RFC 1350, with the options
// blksize and tsize of RFC 2347-2349), read-only, and says in events how each
// transfer went.
//
// The names it serves are a fixed set; nothing from a packet reaches the file
// system. It knows no machine, only the MAC that stands in a file name.
//
// The transfers are pin/tftp's, in its default mode only: its single-port and
// anticipating modes can be made to panic by any client. Requests are read here,
// so that what cannot be served costs nothing, and each is handed to a server of
// the library's own, which lives as long as its transfer: the library's settings
// hold for a whole server, and block size and timers are one machine's matter.
// It sends a block when the one before was acknowledged: windowsize (RFC 7440),
// which UEFI asks for, is not granted, and a loader takes as many round trips as
// it has blocks.
package tftp

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
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"lunboot/services"
	"lunboot/services/boot"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

// Bounds of one server. A lab behind one router has one address, a machine that
// repeats its request has a few transfers that nobody acknowledges any more.
const (
	maxTransfers   = 512 // at a time
	maxPerAddress  = 256 // at a time, from one address
	maxPerMachine  = 8   // at a time, for one MAC
	missingPerTick = 20  // events a second about names that there are not
	readBuffer     = 1 << 20
	maxRequest     = 1 << 10
)

// Files are the loaders that can be fetched.
type Files interface {
	Open(boot.Loader) (data []byte, ok bool)
}

// Emitter takes events and never blocks.
type Emitter interface{ Emit(store.Event) }

// Config is what a Server needs.
type Config struct {
	Addr  string // UDP address, such as ":69"
	Files Files
	// Script returns the first script for an iPXE that reached us at local. It
	// is what autoexec.ipxe holds and what breaks a loop; nil serves neither.
	Script func(local netip.Addr) []byte
	Emit   Emitter
	Log    *slog.Logger
	Now    func() time.Time
	Drain  time.Duration // how long transfers may finish at the end; default 3 s
}

// Server is the TFTP service.
type Server struct {
	cfg      Config
	patience patience
	circles  *circle.Watch
	sizes    *sizes

	mu   sync.Mutex
	conn *net.UDPConn

	active   running
	stopping atomic.Bool
	missing  *rate.Limiter
	warn     rate.Sometimes

	malformed, refused atomic.Int64
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Drain <= 0 {
		cfg.Drain = 3 * time.Second
	}
	return &Server{
		cfg:      cfg,
		patience: usual,
		circles:  circle.New(cfg.Now),
		sizes:    newSizes(),
		active:   running{byAddr: map[netip.Addr]int{}, of: map[machine][]*transfer{}},
		missing:  rate.NewLimiter(missingPerTick, missingPerTick),
	}
}

// String names the service.
func (s *Server) String() string { return "TFTP" }

// Addr returns the address that Listen bound.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return netip.AddrPort{}
	}
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Malformed counts packets that are no request.
func (s *Server) Malformed() int64 { return s.malformed.Load() }

// Refused counts requests above the bounds. They are not answered: a client that
// hears nothing asks again, one that hears of an error gives up.
func (s *Server) Refused() int64 { return s.refused.Load() }

// Listen binds the port. It is IPv4 only: firmware that boots over TFTP on
// IPv6 is told so by DHCPv6, which the appliance does not speak.
func (s *Server) Listen() error {
	lc := net.ListenConfig{Control: wantPacketInfo}
	pc, err := lc.ListenPacket(context.Background(), "udp4", s.cfg.Addr)
	if err != nil {
		return services.ListenError("TFTP", "udp", s.cfg.Addr, "--tftp", err)
	}
	conn := pc.(*net.UDPConn)
	// A rack that is switched on asks all at once. The kernel may give less.
	_ = conn.SetReadBuffer(readBuffer)
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	s.stopping.Store(false)
	return nil
}

// wantPacketInfo asks the kernel to say with each packet which address of ours
// it came to (ip(7)).
func wantPacketInfo(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// Serve answers until ctx ends, then gives running transfers Config.Drain to
// finish. A transfer whose client is silent ends by its own time-outs, within
// the patience of one block; Serve does not wait for those.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return errors.New("TFTP: Serve before Listen")
	}
	var transfers sync.WaitGroup
	closed := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err := s.receive(conn, &transfers)
	if closed() {
		err = fmt.Errorf("TFTP: the listener ended: %w", errors.Join(err, conn.Close()))
	} else {
		err = nil
	}
	done := make(chan struct{})
	go func() {
		transfers.Wait()
		close(done)
	}()
	drain := time.NewTimer(s.cfg.Drain)
	defer drain.Stop()
	select {
	case <-done:
	case <-drain.C:
		s.stopping.Store(true)
		select {
		case <-done:
		case <-time.After(time.Second):
			s.cfg.Log.Warn("TFTP transfers to silent clients were left to their time-outs", "transfers", s.active.total())
		}
	}
	s.mu.Lock()
	s.conn = nil
	s.mu.Unlock()
	return err
}

// receive reads requests until the socket is closed, and begins their transfers.
func (s *Server) receive(conn *net.UDPConn, transfers *sync.WaitGroup) error {
	buf, oob := make([]byte, maxRequest), make([]byte, 128)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return err
		}
		r, err := parseRequest(buf[:n])
		if err != nil || !from.Addr().Unmap().Is4() || from.Port() == 0 {
			s.malformed.Add(1)
			continue
		}
		r.from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		r.local = destination(oob[:oobn])
		t := newTransfer(s, r)
		if !s.active.enter(t) {
			s.refused.Add(1)
			s.warn.Do(func() {
				s.cfg.Log.Warn("more TFTP transfers were asked for than there may be at a time; the machines ask again", "addr", t.addr, "file", t.file, "transfers", s.active.total())
			})
			continue
		}
		transfers.Go(func() {
			defer s.active.leave(t)
			// What panics here panics in the library's part that is ours to call;
			// its own goroutines have their guard in transfer.run.
			_ = services.Guard(s.cfg.Log, "TFTP request", func() error { t.serve(); return nil })
		})
	}
}

// destination reads the address of ours that a packet came to (IP_PKTINFO). For
// a packet that went to everybody it is the interface's own.
func destination(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return netip.AddrFrom4([4]byte(m.Data[4:8])) // struct in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr
		}
	}
	return netip.Addr{}
}

// ScriptFetched tells the server that the iPXE at addr fetched its script, so
// it is in no loop.
func (s *Server) ScriptFetched(addr netip.Addr) { s.circles.Forget(addr.Unmap()) }

// emit sends an event about one transfer.
func (s *Server) emit(kind store.EventKind, t *transfer, d store.Detail) {
	d.File = t.file
	d.Loader = string(t.loader)
	d.Blksize = t.blksize
	s.cfg.Emit.Emit(store.Event{Kind: kind, At: s.cfg.Now(), MAC: t.mac, Addr: t.addr, Detail: d})
}

// running are the transfers of this moment, bounded in all, from one address and
// for one machine.
type running struct {
	mu     sync.Mutex
	n      int
	byAddr map[netip.Addr]int
	of     map[machine][]*transfer
}

func (b *running) enter(t *transfer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := t.machine()
	if b.n >= maxTransfers || b.byAddr[t.addr] >= maxPerAddress || !t.mac.IsZero() && len(b.of[m]) >= maxPerMachine {
		return false
	}
	b.n++
	b.byAddr[t.addr]++
	b.of[m] = append(b.of[m], t)
	return true
}

func (b *running) leave(t *transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n--
	if b.byAddr[t.addr]--; b.byAddr[t.addr] == 0 {
		delete(b.byAddr, t.addr)
	}
	m := t.machine()
	rest := slices.DeleteFunc(b.of[m], func(o *transfer) bool { return o == t })
	if b.of[m] = rest; len(rest) == 0 {
		delete(b.of, m)
	}
}

// before are the machine's other transfers of the same file.
func (b *running) before(t *transfer) (others []*transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range b.of[t.machine()] {
		if o != t && o.file == t.file {
			others = append(others, o)
		}
	}
	return others
}

func (b *running) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}
