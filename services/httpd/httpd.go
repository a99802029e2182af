// Package httpd is a listener around an http.Handler, for TCP and for a unix
// socket: it bounds headers, time and connections, knows who is at the other
// end of a unix socket, and lets requests finish when it is told to stop.
//
// It knows nothing of what the handler serves. HTTP/1.1 is RFC 9112.
package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services"
)

// Options are what a listener may be told; the zero value is good for a boot
// network.
type Options struct {
	Flag        string          // the flag that chooses the address, for error messages
	Log         *slog.Logger    // nil: nothing is logged
	Drain       time.Duration   // how long running requests may finish; default 5 s
	HeaderTime  time.Duration   // how long a request's header may take; default 10 s
	BodyTime    time.Duration   // how long a request's body may take; default without end, for uploads
	BodyStall   time.Duration   // how long a body without BodyTime may bring nothing; default 1 min
	IdleTime    time.Duration   // how long a kept connection may idle; default 2 min
	MaxHeader   int             // bytes of header; default 32 KiB
	StallTime   time.Duration   // how long a client may take nothing of what waits for it; default 2 min; TCP only
	MaxConns    int             // connections at a time; default 2048
	MaxPerHost  int             // connections at a time from one address; default an eighth of MaxConns, at least 1; TCP only
	Hurry       <-chan struct{} // when closed, what still runs at the end is cut off at once
	TLS         *tls.Config     // TCP: with it the port speaks HTTPS, and shows who speaks HTTP the way
	SocketGroup string          // unix: the group that may connect besides root, when it exists
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Drain <= 0 {
		o.Drain = 5 * time.Second
	}
	if o.HeaderTime <= 0 {
		o.HeaderTime = 10 * time.Second
	}
	if o.IdleTime <= 0 {
		o.IdleTime = 2 * time.Minute
	}
	if o.BodyStall <= 0 {
		o.BodyStall = time.Minute
	}
	if o.MaxHeader <= 0 {
		o.MaxHeader = 32 << 10
	}
	if o.StallTime <= 0 {
		o.StallTime = 2 * time.Minute
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 2048
	}
	if o.MaxPerHost <= 0 {
		o.MaxPerHost = max(1, o.MaxConns/8)
	}
	return o
}

// Server is one listener. It is a services.Service.
type Server struct {
	name, network, addr string
	handler             http.Handler
	opts                Options

	mu sync.Mutex
	ln net.Listener

	connMu  sync.Mutex
	conns   int
	hosts   map[netip.Addr]int // connections of each address
	refused atomic.Int64
}

// New makes a listener for a TCP address such as ":80" or "127.0.0.1:0".
func New(name, addr string, h http.Handler, o Options) *Server {
	return &Server{name: name, network: "tcp", addr: addr, handler: h, opts: o.withDefaults(), hosts: map[netip.Addr]int{}}
}

// NewUnix makes a listener for a unix socket. The socket has mode 0660, and
// Peer tells a handler who is at the other end.
func NewUnix(name, path string, h http.Handler, o Options) *Server {
	return &Server{name: name, network: "unix", addr: path, handler: h, opts: o.withDefaults()}
}

// String names the listener.
func (s *Server) String() string { return s.name }

// Addr returns the address that Listen bound; it is the zero AddrPort before
// Listen and for a unix socket.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return netip.AddrPort{}
	}
	if a, ok := s.ln.Addr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// Listen binds the address.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		return fmt.Errorf("%s: it listens already", s.name)
	}
	var err error
	if s.network == "unix" {
		s.ln, err = s.listenUnix()
	} else if s.ln, err = s.listenTCP(); err != nil {
		s.ln = nil
		return services.ListenError(s.name, s.network, s.addr, s.opts.Flag, err)
	}
	if err != nil {
		s.ln = nil
	}
	return err
}

// listenTCP binds so that a connection ends whose client takes nothing
// (TCP_USER_TIMEOUT, tcp(7), which connections have from their listener): it
// would keep its place for ever.
func (s *Server) listenTCP() (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(s.opts.StallTime.Milliseconds()))
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	return lc.Listen(context.Background(), s.network, s.addr)
}

// listenUnix replaces the socket file that a killed predecessor left behind,
// and refuses when somebody still answers on it.
func (s *Server) listenUnix() (net.Listener, error) {
	if st, err := os.Lstat(s.addr); err == nil {
		if st.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s: %s exists and is not a socket; remove it", s.name, s.addr)
		}
		if c, err := net.DialTimeout("unix", s.addr, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: another program answers on %s; stop it, or choose another folder with --data", s.name, s.addr)
		}
		if err := os.Remove(s.addr); err != nil {
			return nil, fmt.Errorf("%s: remove the old socket: %w", s.name, err)
		}
	}
	ln, err := net.Listen("unix", s.addr)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", s.name, s.addr, err)
	}
	if s.opts.SocketGroup != "" {
		if g, err := user.LookupGroup(s.opts.SocketGroup); err == nil {
			if gid, err := strconv.Atoi(g.Gid); err == nil {
				// An unprivileged appliance may not; root still gets in.
				if err := os.Lchown(s.addr, -1, gid); err != nil {
					s.opts.Log.Warn("the socket's group could not be set", "socket", s.addr, "group", s.opts.SocketGroup, "reason", err)
				}
			}
		}
	}
	if err := os.Chmod(s.addr, 0o660); err != nil {
		ln.Close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return ln, nil
}

// Serve answers requests until ctx ends. Then every request's context ends, so
// that streams without an end stop, and what still runs has Options.Drain to
// finish.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	ln := s.ln
	s.mu.Unlock()
	if ln == nil {
		return fmt.Errorf("%s: Serve before Listen", s.name)
	}
	defer func() {
		s.mu.Lock()
		s.ln = nil
		s.mu.Unlock()
	}()
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{
		Handler:           s.guard(s.handler),
		ReadHeaderTimeout: s.opts.HeaderTime,
		IdleTimeout:       s.opts.IdleTime,
		MaxHeaderBytes:    s.opts.MaxHeader,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       connContext,
		ConnState:         s.connState,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug),
	}
	if s.opts.TLS != nil {
		ln = plainAware{ln, s.opts.TLS, s.opts.MaxHeader}
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", s.name, err)
	case <-ctx.Done():
	}
	cancel()
	drain, stop := context.WithTimeout(context.Background(), s.opts.Drain)
	var hurried sync.WaitGroup
	hurried.Go(func() {
		select {
		case <-s.opts.Hurry:
			stop()
		case <-drain.Done():
		}
	})
	defer hurried.Wait()
	defer stop()
	if err := srv.Shutdown(drain); err != nil {
		s.opts.Log.Warn("requests were cut off", "service", s.name, "after", s.opts.Drain)
		srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// guard keeps a panic inside its request. The answer has begun or not; either
// way the connection is closed, so that half an answer is never taken for a
// whole one.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.opts.BodyTime > 0 && r.ContentLength != 0 {
			// It fails only on a connection that is gone. The server sets the
			// time of the next request itself.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.opts.BodyTime))
		} else if r.ContentLength != 0 {
			r.Body = &body{ReadCloser: r.Body, conn: http.NewResponseController(w), time: s.opts.BodyStall}
		}
		err := services.Guard(s.opts.Log, s.name+" "+r.Method+" "+r.URL.Path, func() (err error) {
			defer func() {
				v := recover()
				if e, ok := v.(error); ok && errors.Is(e, http.ErrAbortHandler) {
					err = e // the handler's own wish, not a fault
				} else if v != nil {
					panic(v)
				}
			}()
			next.ServeHTTP(w, r)
			return nil
		})
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	})
}

// connState counts connections and closes what is above the bounds at once: a
// client that is refused knows it, one that waits in a queue does not. The bound
// of one address leaves room for the others, whatever that one does.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	var step int
	switch state {
	case http.StateNew:
		step = 1
	case http.StateClosed, http.StateHijacked:
		step = -1
	default:
		return
	}
	host := hostOf(c)
	s.connMu.Lock()
	s.conns += step
	over := s.conns > s.opts.MaxConns
	if host.IsValid() {
		n := s.hosts[host] + step
		s.hosts[host] = n
		if n == 0 {
			delete(s.hosts, host)
		}
		over = over || n > s.opts.MaxPerHost
	}
	s.connMu.Unlock()
	if over && step > 0 {
		s.refused.Add(1)
		c.Close()
	}
}

// hostOf is the address of a TCP client, and not valid on a unix socket.
func hostOf(c net.Conn) netip.Addr {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap()
}

// Refused returns how many connections were closed for want of room.
func (s *Server) Refused() int64 { return s.refused.Load() }

// Credentials say which process is at the other end of a unix socket.
type Credentials struct {
	UID, GID uint32
	PID      int32
}

type peerKey struct{}

func connContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, Credentials{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid})
}

// Peer returns who asked, as the kernel saw it when the connection was made
// (SO_PEERCRED, unix(7)). ok is false on TCP.
func Peer(ctx context.Context) (c Credentials, ok bool) {
	c, ok = ctx.Value(peerKey{}).(Credentials)
	return c, ok
}
