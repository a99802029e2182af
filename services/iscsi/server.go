package iscsi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"lunboot/services"
	"lunboot/services/iscsi/login"
	"lunboot/services/iscsi/scsi"
	"lunboot/services/iscsi/session"
	"lunboot/store"
)

// Config is what the target needs.
type Config struct {
	Listen  string    // address and port; ":3260"
	Target  store.IQN // the appliance's one target name
	Catalog Catalog
	// Reservations keeps what is to survive a power loss; nil keeps nothing.
	Reservations Reservations
	Wipes        Wipes // the same for wipes
	// Holders keeps a machine from another one's volumes; nil: every address may
	// give every name.
	Holders Holders
	Emit    Emitter
	Log     *slog.Logger
	Now     func() time.Time

	MaxSessions  int           // beside discovery sessions; 0: DefaultMaxSessions
	LoginTimeout time.Duration // for all of a login; 0: 15 seconds
	// LogoutTimeout is how long a shutdown waits for operating systems to log
	// out; 0: 3 seconds.
	LogoutTimeout time.Duration
	Tick          time.Duration // how often silence is looked for; 0: one second
}

// Bounds and times of the target.
const (
	DefaultMaxSessions = 1024
	maxSpare           = 64 // goroutines that wait for the next connection
	maxDiscovery       = 64 // discovery sessions, which anybody may have; one more ends the oldest
	maxPerInitiator    = 64 // sessions of one initiator
	loginTimeout       = 15 * time.Second
	logoutTimeout      = 3 * time.Second
	goodbye            = "the appliance is shutting down"
	lastWord           = time.Second      // for a refusal to be read before the connection ends
	taskPatience       = 10 * time.Second // for the writes of a session that a login replaces
	pingAfter          = 30 * time.Second // of silence; never to iPXE, which does not answer
	dropAfter          = 60 * time.Second // of silence after a ping
	handover           = 30 * time.Second // from an operating system's first READ to the end of its iPXE's sessions
	samplePeriod       = 2 * time.Second
	refreshPause       = 100 * time.Millisecond // between two looks at the inventory
	portalGroup        = 1
)

// offer is what the target is ready to agree to. Writes up to 256 KiB come
// without being asked for; one R2T asks for 1 MiB.
func offer() login.Params {
	p := login.Defaults()
	p.HeaderDigest, p.DataDigest = true, true
	p.TargetMaxRecvDataSegmentLength = 256 << 10
	p.FirstBurstLength = 256 << 10
	p.MaxBurstLength = 1 << 20
	p.InitialR2T = false
	p.DefaultTime2Wait, p.DefaultTime2Retain = 0, 0 // a session may come back at once, and nothing is kept
	return p
}

// Server is the iSCSI target, a services.Service.
type Server struct {
	cfg    Config
	shared *session.Shared
	units  *units

	mu       sync.Mutex
	listener *net.TCPListener
	sessions roll
	door     door
	order    int64
	tsih     uint16
	// admits has the initiators that make a session now; the channel, of those
	// for which another login waits, is closed when they have made it.
	admits   map[store.IQN]chan struct{}
	stopping bool

	next     chan *arrival // to a goroutine that has served a connection
	spare    atomic.Int32  // how many of those wait
	portName string        // of the target, in SCSI

	limit    limiter       // of log lines
	refusals *rate.Limiter // of refused logins that are told: a stranger must not fill the journal
}

// Refused logins that are told: a rack that is refused as a whole is told in
// full, a flood is not.
const (
	refusalsPerSecond = 20
	refusalsAtOnce    = 500
)

var _ services.Service = (*Server)(nil)

// New returns a target that does not listen yet.
func New(cfg Config) *Server {
	if cfg.MaxSessions == 0 {
		cfg.MaxSessions = DefaultMaxSessions
	}
	if cfg.LoginTimeout == 0 {
		cfg.LoginTimeout = loginTimeout
	}
	if cfg.LogoutTimeout == 0 {
		cfg.LogoutTimeout = logoutTimeout
	}
	if cfg.Tick == 0 {
		cfg.Tick = time.Second
	}
	return &Server{
		cfg:      cfg,
		shared:   session.NewShared(),
		refusals: rate.NewLimiter(refusalsPerSecond, refusalsAtOnce),
		units:    &units{kept: cfg.Reservations, wipes: cfg.Wipes, byKey: make(map[unitKey]*unit), reserved: make(map[store.UUID]*scsi.Reservations)},
		sessions: newRoll(),
		door:     door{arrivals: make(map[*arrival]struct{}), hosts: make(map[netip.Addr]int)},
		admits:   make(map[store.IQN]chan struct{}),
		next:     make(chan *arrival),
		portName: fmt.Sprintf("%s,t,0x%04x", cfg.Target, portalGroup),
	}
}

func (s *Server) String() string { return "iSCSI" }

// Listen binds the portal.
func (s *Server) Listen() error {
	// Connections inherit their options from the listener, keep-alive too.
	l, err := (&net.ListenConfig{KeepAlive: -1, Control: session.Control}).Listen(context.Background(), "tcp", s.cfg.Listen)
	if err != nil {
		return services.ListenError("iSCSI", "tcp", s.cfg.Listen, "--iscsi", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.stopping = l.(*net.TCPListener), false
	return nil
}

// Addr returns the portal's address after Listen; the zero value before.
func (s *Server) Addr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return netip.AddrPort{}
	}
	return s.listener.Addr().(*net.TCPAddr).AddrPort()
}

// Serve accepts and serves until ctx ends. Then it ends every session, waits
// for their commands and returns.
func (s *Server) Serve(ctx context.Context) error {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return errors.New("iSCSI: Serve without Listen")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(ctx) })
	wg.Go(func() { s.keep(ctx) })
	wg.Go(func() { s.finishWipes(ctx) })
	wg.Go(func() {
		<-ctx.Done()
		_ = l.Close() // ends Accept
		s.farewell()
	})
	err := s.accept(ctx, l, &wg)
	cancel()
	wg.Wait()
	s.units.stop()
	s.leaveWipes()
	return err
}

// farewell ends every login and every session. An operating system is asked to
// log out first, so that it knows why its disk has gone (RFC 7143 §11.9.1); iPXE
// takes no such message, and a discovery session has nothing to lose.
func (s *Server) farewell() {
	s.mu.Lock()
	s.stopping = true
	for in := range s.door.arrivals {
		_ = in.nc.Close() // a login ends with the appliance
	}
	var asked []*live
	for _, v := range s.sessions.byID {
		if v.ipxe || v.res.Discovery {
			v.ses.Close(goodbye)
			continue
		}
		v.work.Go(func() { v.ses.AskToLogOut(s.cfg.LogoutTimeout) })
		asked = append(asked, v)
	}
	s.mu.Unlock()
	patience, cancel := context.WithTimeout(context.Background(), s.cfg.LogoutTimeout)
	defer cancel()
	for _, v := range asked {
		select {
		case <-v.ses.Done():
		case <-patience.Done():
			v.ses.Close(goodbye)
		}
	}
}

// accept gives each connection to a goroutine.
func (s *Server) accept(ctx context.Context, l *net.TCPListener, wg *sync.WaitGroup) error {
	for {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = nc.Close() // nobody will serve it
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("iSCSI: the portal was closed: %w", err)
		}
		if err != nil {
			// Out of file descriptors, most likely: it passes.
			if s.limit.allow(limitKey{what: limitAccept}, s.cfg.Now()) {
				s.cfg.Log.Warn("cannot accept an iSCSI connection", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		in := s.enter(nc)
		if in == nil {
			_ = nc.Close() // not left silent: an iPXE would wait for ever
			continue
		}
		select {
		case s.next <- in:
		default:
			wg.Go(func() { s.work(ctx, in) })
		}
	}
}

// work serves a connection, and then the next one that comes while it waits: in
// a storm of logins, a new goroutine for each would spend its time on growing
// its stack. The runtime shrinks the stacks of those that wait long.
func (s *Server) work(ctx context.Context, in *arrival) {
	for {
		// A panic ends this connection and nothing else.
		if err := services.Guard(s.cfg.Log, "iSCSI connection", func() error { s.serve(ctx, in); return nil }); err != nil {
			_ = in.nc.Close()
		}
		if s.spare.Add(1) > maxSpare {
			s.spare.Add(-1)
			return
		}
		select {
		case in = <-s.next:
			s.spare.Add(-1)
		case <-ctx.Done():
			s.spare.Add(-1)
			return
		}
	}
}

// enter takes in a connection that is about to log in, nil when there is no
// room.
func (s *Server) enter(nc net.Conn) *arrival {
	now := s.cfg.Now()
	s.mu.Lock()
	var in, gone *arrival
	if !s.stopping {
		in, gone = s.door.enter(nc, now)
	}
	s.mu.Unlock()
	if gone != nil {
		_ = gone.nc.Close() // its goroutine finds it closed
	}
	if (in == nil || gone != nil) && s.limit.allow(limitKey{what: limitCrowd}, now) {
		s.cfg.Log.Warn("too many initiators log in at once", "limit", maxLogins, "from one address", maxLoginsPerHost, "from", nc.RemoteAddr())
	}
	return in
}

// mark sets a flag of an arrival, which the door reads.
func (s *Server) mark(flag *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*flag = true
}

// leave forgets an arrival; once is enough.
func (s *Server) leave(in *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.door.leave(in)
}

// serve is one connection from login to end.
func (s *Server) serve(ctx context.Context, in *arrival) {
	c := session.NewConn(in.nc, s.shared)
	a := &admission{server: s, ctx: ctx, conn: c, arrival: in}
	m := login.New(login.Config{
		Target: s.cfg.Target, PortalGroup: portalGroup, Offer: offer(),
		Lookup: a.lookup, Join: a.join, Admit: a.admit,
	})
	defer s.leave(in) // after a panic too
	err := c.Login(m, s.cfg.LoginTimeout)
	if m.State() == login.Done {
		s.leave(in)
		v := a.live
		if err != nil {
			v.ses.Close("the connection ended before the login was answered")
		} else {
			v.emit(store.EventISCSILogin, store.Detail{Auth: v.res.Method, Mapped: v.mappedNumbers(), Reason: v.res.Alias})
		}
		v.run(m.Result())
		c.Release()
		return
	}
	s.refused(a, m, err)
	if m.State() == login.Failed {
		s.mark(&in.done)
		c.Linger(lastWord)
	}
	_ = c.Close()
	c.Release()
}

// refused tells of a login that did not succeed.
func (s *Server) refused(a *admission, m *login.Machine, err error) {
	res := m.Result()
	d := store.Detail{Initiator: string(res.Initiator), Target: string(s.cfg.Target), ISID: res.ISID.String(), IPXE: IsIPXE(res.ISID), Auth: res.Method}
	if r := m.Refusal(); r != nil {
		d.Status, d.Cause, d.Reason, d.Asked = r.Status.String(), r.Cause, r.Reason, r.Asked
	} else {
		if res.Initiator == "" || a.ctx.Err() != nil {
			s.cfg.Log.Debug("an iSCSI connection ended before it logged in", "from", a.conn.RemoteAddr(), "error", err)
			return
		}
		d.Reason = "the initiator began to log in and did not finish"
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			d.Reason += fmt.Sprintf(" within %s", a.server.cfg.LoginTimeout)
		}
	}
	if !s.refusals.AllowN(s.cfg.Now(), 1) {
		return
	}
	s.cfg.Log.Info("refused an iSCSI login", "from", a.conn.RemoteAddr(), "initiator", res.Initiator, "status", d.Status, "reason", d.Reason)
	s.cfg.Emit.Emit(store.Event{At: s.cfg.Now(), Kind: store.EventISCSIRefused, Addr: a.conn.RemoteAddr().Addr(), Machine: a.access.Machine, Detail: d})
}
