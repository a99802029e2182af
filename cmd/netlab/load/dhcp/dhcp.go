// Package dhcp puts DHCP servers under load and measures them from outside. It
// plays a relay agent (RFC 2131 §4.1) with thousands of clients behind it, so
// that every answer comes back to one address as unicast and the clients need no
// cards of their own. It shares no code with what it measures, not even a
// library: the bytes are RFC 2131's.
//
// Client and server share the machine, so one thread and one socket do all the
// work: packets are patched in place, everything that came is taken before it
// waits again, and nothing is allocated for an exchange.
package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/cmd/netlab/load"
)

// Load is what a relay asks for.
type Load struct {
	Server  netip.AddrPort
	Relay   netip.AddrPort // giaddr, an address of this host; servers answer to its port 67
	Clients int            // different MACs; each has a turn before the first comes again
	First   int            // the number of the first of them
	Flight  int            // clients that have an exchange open at a time, at most MaxFlight
	Time    time.Duration  // how long new exchanges begin; 0: no end
	Count   int            // exchanges that begin; 0: no end
	Timeout time.Duration  // an answer that takes longer is missing
	Offers  bool           // an exchange is DISCOVER and OFFER; otherwise REQUEST and ACK follow
	PXE     bool           // the clients are UEFI firmware that asks to boot
}

// MaxFlight is the most exchanges at a time: their slots are numbered in xid.
const MaxFlight = 1 << 12

// Result is what came of it.
type Result struct {
	Done     int64         `json:"done"` // exchanges that ended well
	Seconds  float64       `json:"seconds"`
	P50      time.Duration `json:"p50"` // of an exchange, from its first packet to its last
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
	Own      time.Duration `json:"own"` // CPU time of the load itself
	Late     int           `json:"late"`
	Naks     int           `json:"naks"`
	Wrong    int           `json:"wrong"` // an answer with another client's MAC, another address than offered, or one that another client has
	Bootless int           `json:"bootless"`
	First    string        `json:"first,omitempty"` // what went wrong first

	// Leases are the addresses that were acknowledged, by client.
	Leases map[int]netip.Addr `json:"-"`
}

// Failures are the exchanges that did not end well.
func (r Result) Failures() int { return r.Late + r.Naks + r.Wrong }

// MAC is the card of the n-th client, in a range that nobody makes cards for.
func MAC(n int) [6]byte {
	m := [6]byte{2, 0xbe}
	binary.BigEndian.PutUint32(m[2:], uint32(n))
	return m
}

// What an exchange waits for.
const (
	idle = iota
	offer
	ack
)

// exchange is one client's conversation.
type exchange struct {
	waits   byte
	xid     uint32
	client  int
	begun   time.Time // the DISCOVER
	sent    time.Time // the last packet
	address netip.Addr
	server  netip.Addr
}

// relay runs a Load.
type relay struct {
	load     Load
	fd       int
	server   *unix.SockaddrInet4
	slots    []exchange
	open     int // slots with an exchange
	begun    int
	turn     uint32
	until    time.Time
	now      time.Time
	discover []byte // the packets, patched for each client
	request  []byte
	holder   map[netip.Addr]int
	lat      load.Latencies
	r        Result
}

// Run runs a load until its time is over, or ctx ends and what is open then counts
// for nothing. An error says that it could not be run; what the server did wrong is
// in the result.
func Run(ctx context.Context, l Load) (_ Result, err error) {
	if l.Flight < 1 || l.Flight > MaxFlight || l.Clients < l.Flight {
		return Result{}, fmt.Errorf("%d exchanges at a time of %d clients: 1 to %d, and no more than there are clients", l.Flight, l.Clients, MaxFlight)
	}
	fd, err := listen(l.Relay)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	r := &relay{load: l, fd: fd, server: socketAddress(l.Server), slots: make([]exchange, l.Flight), holder: map[netip.Addr]int{}}
	r.r.Leases = map[int]netip.Addr{}
	r.discover, r.request = packet(l, discoverType), packet(l, requestType)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ownCPU()
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	r.now = start
	if l.Time > 0 {
		r.until = start.Add(l.Time)
	}
	if err := r.run(ctx); err != nil {
		return Result{}, err
	}
	after, err := ownCPU()
	res := r.r
	res.Seconds, res.Own, res.Done = time.Since(start).Seconds(), after-before, r.lat.Count()
	res.P50, res.P99 = r.lat.Quantile(0.5), r.lat.Quantile(0.99)
	return res, err
}

// listen makes a socket at the relay's address. It is not connected: a server on
// the same host may answer from whichever address of the host the kernel likes.
func listen(relay netip.AddrPort) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// A server on this host may hold the port for all addresses.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
	}
	if err == nil {
		err = unix.Bind(fd, socketAddress(relay))
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("a relay at %s: %w", relay, err), unix.Close(fd))
	}
	return fd, nil
}

func socketAddress(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// send sends a packet. A full queue on the way drops it, as networks do.
func send(fd int, p []byte, to *unix.SockaddrInet4) error {
	for {
		err := unix.Sendto(fd, p, 0, to)
		switch {
		case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			return nil
		case !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("sendto", err)
		}
	}
}

// look is how often missing answers are looked for, and the longest wait.
const look = 20 * time.Millisecond

func (r *relay) run(ctx context.Context) error {
	for i := range r.slots {
		if err := r.begin(i); err != nil {
			return err
		}
	}
	buf := make([]byte, 2048)
	wait := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
	looked := r.now
	for r.open > 0 {
		n, err := unix.Read(r.fd, buf)
		switch {
		case err == nil:
			r.now = time.Now()
			if err := r.take(buf[:n]); err != nil {
				return err
			}
		case errors.Is(err, unix.EAGAIN):
			if _, err := unix.Poll(wait, int(look/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("poll", err)
			}
			r.now = time.Now()
		case !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("read", err)
		}
		if r.now.Sub(looked) >= look {
			looked = r.now
			if ctx.Err() != nil {
				return nil
			}
			if err := r.missing(); err != nil {
				return err
			}
		}
	}
	return nil
}

// missing gives up exchanges whose answer does not come.
func (r *relay) missing() error {
	for i := range r.slots {
		x := &r.slots[i]
		if x.waits == idle || r.now.Sub(x.sent) < r.load.Timeout {
			continue
		}
		r.r.Late++
		r.note("client %d had no answer to its %s", x.client, [...]string{offer: "DISCOVER", ack: "REQUEST"}[x.waits])
		if err := r.begin(i); err != nil {
			return err
		}
	}
	return nil
}

func (r *relay) note(format string, args ...any) {
	if r.r.First == "" {
		r.r.First = fmt.Sprintf(format, args...)
	}
}

// begin lets the next client ask in a slot, or leaves it empty when there is
// nothing more to ask.
func (r *relay) begin(i int) error {
	x := &r.slots[i]
	if x.waits != idle {
		r.open--
	}
	x.waits = idle
	if !r.until.IsZero() && !r.now.Before(r.until) || r.load.Count > 0 && r.begun >= r.load.Count {
		return nil
	}
	r.open++
	r.turn++
	*x = exchange{waits: offer, xid: r.turn<<12 | uint32(i), client: r.load.First + r.begun%r.load.Clients, begun: r.now}
	r.begun++
	return r.send(x, r.discover)
}

// send patches and sends a client's packet.
func (r *relay) send(x *exchange, p []byte) error {
	stamp(p, x.xid, MAC(x.client))
	x.sent = r.now
	return send(r.fd, p, r.server)
}

// take looks at an answer. What belongs to no open exchange is a repetition of
// something that was given up.
func (r *relay) take(b []byte) error {
	a, ok := parse(b)
	i := int(a.xid & (MaxFlight - 1))
	if !ok || i >= len(r.slots) || r.slots[i].waits == idle || r.slots[i].xid != a.xid {
		return nil
	}
	x := &r.slots[i]
	if a.mac != MAC(x.client) {
		r.r.Wrong++
		r.note("client %d was answered with the MAC %x", x.client, a.mac)
		return r.begin(i)
	}
	switch {
	case a.kind == nakType:
		r.r.Naks++
		r.note("client %d was refused %s", x.client, x.address)
		return r.begin(i)
	case a.kind == offerType && x.waits == offer:
		if r.load.PXE && !a.boots {
			r.r.Bootless++
		}
		if r.load.Offers {
			return r.end(i)
		}
		x.waits, x.address, x.server = ack, a.address, a.server
		choose(r.request, a.address, a.server)
		return r.send(x, r.request)
	case a.kind == ackType && x.waits == ack:
		if a.address != x.address {
			r.r.Wrong++
			r.note("client %d was offered %s and given %s", x.client, x.address, a.address)
			return r.begin(i)
		}
		if who, held := r.holder[a.address]; held && who != x.client {
			r.r.Wrong++
			r.note("%s was given to the clients %d and %d", a.address, who, x.client)
			return r.begin(i)
		}
		r.holder[a.address] = x.client
		r.r.Leases[x.client] = a.address
		return r.end(i)
	}
	return nil
}

// end counts an exchange and begins the next one.
func (r *relay) end(i int) error {
	took := r.now.Sub(r.slots[i].begun)
	r.lat.Add(took)
	r.r.Max = max(r.r.Max, took)
	return r.begin(i)
}

func ownCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
