// Package tftp hands loaders to firmware over TFTP (RFC 1350, with the options
// blksize and tsize of RFC 2347-2349), read-only, and says in events how each
// transfer went.
//
// The names it serves are a fixed set; nothing from a packet reaches the file
// system. It knows no machine, only the MAC that stands in a file name. The
// protocol is pin/tftp's, in its default mode only: its single-port and
// anticipating modes can be made to panic by any client.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"lunboot/services"
	"lunboot/services/boot"
	"lunboot/store"
)

// Bounds of one server.
const (
	maxTransfers   = 256 // at a time
	maxPerAddress  = 8   // at a time, from one address
	blockTimeout   = time.Second
	blockRetries   = 5
	missingPerTick = 20 // events a second about names that there are not
	readBuffer     = 1 << 20
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
	cfg   Config
	loops *loops

	mu   sync.Mutex
	conn *net.UDPConn

	active   bounded
	stopping atomic.Bool
	missing  *rate.Limiter

	malformed, refused atomic.Int64
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Drain <= 0 {
		cfg.Drain = 3 * time.Second
	}
	return &Server{
		cfg:     cfg,
		loops:   newLoops(cfg.Now),
		active:  bounded{byAddr: map[netip.Addr]int{}},
		missing: rate.NewLimiter(missingPerTick, missingPerTick),
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

// Refused counts requests above the bounds, which were told so.
func (s *Server) Refused() int64 { return s.refused.Load() }

// Listen binds the port. It is IPv4 only: firmware that boots over TFTP on
// IPv6 is told so by DHCPv6, which the appliance does not speak, and on an IPv6
// socket the library would clamp blocks to a wrong size.
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

// wantPacketInfo asks the kernel to say with each packet which interface and
// address it came to. The library asks too, but only when it serves: a request
// that came before would be answered in blocks of 512 bytes.
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
// ten seconds; Serve does not wait for those.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return errors.New("TFTP: Serve before Listen")
	}
	srv := tftp.NewServer(s.read, nil)
	srv.SetTimeout(blockTimeout)
	srv.SetRetries(blockRetries)
	// Machines that lost a packet together must not repeat theirs together.
	srv.SetBackoff(func(int) time.Duration { return rand.N(250 * time.Millisecond) })
	srv.SetHook(hook{s})

	served := make(chan error, 1)
	go func() { served <- srv.Serve(conn) }()
	stop := func() chan struct{} {
		done := make(chan struct{})
		go func() {
			// Shutdown closes the socket; closed by anybody else, the
			// library's read loop would spin.
			srv.Shutdown()
			close(done)
		}()
		return done
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("TFTP: the listener ended: %v", err)
		served <- nil
	}
	done := stop()
	drain := time.NewTimer(s.cfg.Drain)
	defer drain.Stop()
	select {
	case <-done:
		<-served
	case <-drain.C:
		s.stopping.Store(true)
		select {
		case <-done:
			<-served
		case <-time.After(blockTimeout):
			s.cfg.Log.Warn("TFTP transfers to silent clients were left to their time-outs", "transfers", s.active.total())
		}
	}
	s.mu.Lock()
	s.conn = nil
	s.mu.Unlock()
	return err
}

// ScriptFetched tells the server that the iPXE at addr fetched its script, so
// it is in no loop.
func (s *Server) ScriptFetched(addr netip.Addr) { s.loops.forget(addr.Unmap()) }

// emit sends an event about one transfer.
func (s *Server) emit(kind store.EventKind, t *transfer, d store.Detail) {
	d.File = t.file
	d.Loader = string(t.loader)
	d.Blksize = t.blksize
	s.cfg.Emit.Emit(store.Event{Kind: kind, At: s.cfg.Now(), MAC: t.mac, Addr: t.addr, Detail: d})
}

// hook counts what never reaches the handler: packets that cannot be read. They
// are counted, not logged, so that a storm of them costs nothing.
type hook struct{ s *Server }

func (h hook) OnSuccess(tftp.TransferStats) {}

func (h hook) OnFailure(st tftp.TransferStats, _ error) {
	if st.RemoteAddr == nil {
		h.s.malformed.Add(1)
	}
}

// bounded counts running transfers, in all and from one address.
type bounded struct {
	mu     sync.Mutex
	n      int
	byAddr map[netip.Addr]int
}

func (b *bounded) enter(a netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n >= maxTransfers || b.byAddr[a] >= maxPerAddress {
		return false
	}
	b.n++
	b.byAddr[a]++
	return true
}

func (b *bounded) leave(a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n--
	if b.byAddr[a]--; b.byAddr[a] == 0 {
		delete(b.byAddr, a)
	}
}

func (b *bounded) total() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}
