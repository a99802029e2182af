// Package tftp is many TFTP clients in one loop (RFC 1350, with the options of
// RFC 2347, 2348, 2349 and 7440): what firmware does, as fast as a server lets
// it. Every byte that comes is compared with what the file holds.
//
// One thread waits for all sockets and asks the kernel without Go's poller, so
// that on a machine of few processors the clients leave them to the server.
package tftp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Load is what the clients do. They fetch the file again and again until the
// time is over, or each makes Files transfers, and hang up in the middle of the last.
type Load struct {
	Server  netip.AddrPort // IPv4
	File    string
	Want    []byte // what the file holds
	Blksize int    // 512: the option is not sent
	Window  int    // windowsize (RFC 7440); up to 1: the option is not sent
	Clients int
	Time    time.Duration
	Files   int // transfers for each client; 0: as many as the time allows

	Loss   float64       // part of the DATA packets that never reach a client, of those that it waits for
	Narrow int           // bytes of the largest datagram that reaches a client; 0: any
	Seed   uint64        // of what is lost
	Repeat time.Duration // how long a client waits before it repeats itself; default 1 s, as firmware's
	Tries  int           // repeats before a client gives up; default 10
}

// Result is what came of it.
type Result struct {
	Bytes   int64 // that came, in order, and are right
	Seconds float64
	Files   int           // that came whole
	P50     time.Duration // of a whole file
	Max     time.Duration // of a whole file
	Failed  int           // transfers that a client gave up, or that were refused
	Failure error         // the first of them
	Repeats int           // what clients had to send again
	Twice   int           // DATA that came again
	Lost    int           // DATA that was dropped on purpose
	Own     time.Duration // CPU time of the clients
	Blksize int           // as granted at last
	Window  int           // as granted at last
}

// MiBps are mebibytes a second, all clients together.
func (r Result) MiBps() float64 { return float64(r.Bytes) / (1 << 20) / r.Seconds }

// TFTP's operations, and the error by which a client hangs up.
const (
	opRead  = 1
	opData  = 3
	opAck   = 4
	opError = 5
	opOACK  = 6
)

// client is one machine.
type client struct {
	fd      int
	lost    *rand.Rand
	begun   time.Time
	expires time.Time // when it repeats itself
	tries   int
	ended   int // transfers, good or bad
	done    bool

	answered        bool // the socket is connected to the server's transfer port
	blksize, window int
	next            uint16 // the block that is due
	inWindow        int
	gap             bool // it has asked once for what is missing
	at              int  // bytes of the file that it has
	last            []byte
	ack             [4]byte
}

// fleet is all of them.
type fleet struct {
	l       Load
	poll    int
	clients []*client
	request []byte
	buf     []byte
	took    []time.Duration
	r       Result
	open    int // clients that still fetch
}

// Run lets the clients fetch. It fails when it cannot work at all or when a
// wrong byte comes; transfers that end badly are counted in the result.
func Run(l Load) (Result, error) {
	l.Repeat, l.Tries = cmp.Or(l.Repeat, time.Second), cmp.Or(l.Tries, 10)
	if !l.Server.Addr().Is4() || l.Clients < 1 || len(l.Want) == 0 || l.Blksize < 8 || l.Time <= 0 {
		return Result{}, fmt.Errorf("no load can be made of server %s, %d clients, %d bytes, blocks of %d bytes, %s", l.Server, l.Clients, len(l.Want), l.Blksize, l.Time)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f := &fleet{l: l, request: request(l), buf: make([]byte, 65536)}
	var err error
	if f.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return Result{}, os.NewSyscallError("epoll_create1", err)
	}
	before, err := threadCPU()
	if err == nil {
		err = f.run()
	}
	for _, c := range f.clients {
		if c.fd >= 0 {
			if c.answered {
				_, _ = unix.Write(c.fd, []byte{0, opError, 0, 0, 'b', 'y', 'e', 0})
			}
			err = errors.Join(err, unix.Close(c.fd))
		}
	}
	err = errors.Join(err, unix.Close(f.poll))
	after, failed := threadCPU()
	if err = errors.Join(err, failed); err != nil {
		return Result{}, err
	}
	f.r.Own = after - before
	slices.Sort(f.took)
	if n := len(f.took); n > 0 {
		f.r.P50, f.r.Max = f.took[n/2], f.took[n-1]
	}
	return f.r, nil
}

func threadCPU() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// request is the read request that every client sends.
func request(l Load) []byte {
	b := append([]byte{0, opRead}, l.File...)
	b = append(b, "\x00octet\x00"...)
	option := func(name string, v int) {
		b = append(append(append(append(b, name...), 0), strconv.Itoa(v)...), 0)
	}
	if l.Blksize != 512 {
		option("blksize", l.Blksize)
	}
	option("tsize", 0)
	if l.Window > 1 {
		option("windowsize", l.Window)
	}
	return b
}

// run is the loop.
func (f *fleet) run() error {
	start := time.Now()
	end := start.Add(f.l.Time)
	for k := range f.l.Clients {
		c := &client{fd: -1, lost: rand.New(rand.NewPCG(f.l.Seed, uint64(k)))}
		f.clients = append(f.clients, c)
		f.open++
		if err := f.begin(k, start); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, f.l.Clients)
	for now, swept := start, start; f.open > 0 && now.Before(end); now = time.Now() {
		n, err := unix.EpollWait(f.poll, events, 10)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		now = time.Now()
		for _, e := range events[:max(n, 0)] {
			if err := f.readable(int(e.Fd), now); err != nil {
				return err
			}
		}
		if now.Sub(swept) < 5*time.Millisecond {
			continue
		}
		swept = now
		for k, c := range f.clients {
			if c.done || now.Before(c.expires) {
				continue
			}
			act := f.again
			if c.fd < 0 {
				act = f.begin
			}
			if err := act(k, now); err != nil {
				return err
			}
		}
	}
	f.r.Seconds = time.Since(start).Seconds()
	return nil
}

// begin sends a client's request from a port of its own.
func (f *fleet) begin(k int, now time.Time) error {
	c := f.clients[k]
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	*c = client{fd: fd, lost: c.lost, ended: c.ended, begun: now, expires: now.Add(f.l.Repeat), blksize: 512, window: 1, next: 1, last: f.request}
	// The event carries the client's number, not its socket's.
	if err := unix.EpollCtl(f.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(k)}); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	return f.send(c)
}

// send sends what a client said last.
func (f *fleet) send(c *client) error {
	if c.answered {
		_, err := unix.Write(c.fd, c.last)
		if err == unix.ECONNREFUSED || err == unix.EAGAIN {
			return nil // the server is gone, or the packet is: the timer knows
		}
		return os.NewSyscallError("write", err)
	}
	to := &unix.SockaddrInet4{Addr: f.l.Server.Addr().As4(), Port: int(f.l.Server.Port())}
	return os.NewSyscallError("sendto", unix.Sendto(c.fd, c.last, 0, to))
}

// again is what a client does when nothing came for a while.
func (f *fleet) again(k int, now time.Time) error {
	c := f.clients[k]
	if c.tries++; c.tries > f.l.Tries {
		return f.end(k, now, fmt.Errorf("no answer at block %d after %d repeats", c.next, f.l.Tries))
	}
	f.r.Repeats++
	c.inWindow = 0
	c.expires = now.Add(f.l.Repeat)
	return f.send(c)
}

// end closes a transfer. The next one begins at once, or, after one that failed,
// when the client has waited.
func (f *fleet) end(k int, now time.Time, failure error) error {
	c := f.clients[k]
	if err := unix.Close(c.fd); err != nil {
		return os.NewSyscallError("close", err)
	}
	c.fd = -1
	f.r.Blksize, f.r.Window = c.blksize, c.window
	if c.ended++; c.ended == f.l.Files {
		c.done = true
		f.open--
	}
	if failure != nil {
		f.r.Failed++
		if f.r.Failure == nil {
			f.r.Failure = failure
		}
		c.expires = now.Add(f.l.Repeat)
		return nil
	}
	f.r.Files++
	f.took = append(f.took, now.Sub(c.begun))
	if c.done {
		return nil
	}
	return f.begin(k, now)
}

// readable takes one packet.
func (f *fleet) readable(k int, now time.Time) error {
	c := f.clients[k]
	if c.fd < 0 {
		return nil
	}
	var n int
	var err error
	if c.answered {
		n, err = unix.Read(c.fd, f.buf)
	} else {
		var from unix.Sockaddr
		if n, from, err = unix.Recvfrom(c.fd, f.buf, 0); err == nil {
			// The server's transfer has a port of its own (RFC 1350 §4); what
			// comes from any other is not for this transfer.
			if err := unix.Connect(c.fd, from); err != nil {
				return os.NewSyscallError("connect", err)
			}
			c.answered = true
		}
	}
	switch {
	case err == unix.EAGAIN, err == unix.EINTR:
		return nil
	case err == unix.ECONNREFUSED:
		return f.end(k, now, errors.New("the server's port is closed"))
	case err != nil:
		return os.NewSyscallError("recvfrom", err)
	case n < 4, f.l.Narrow > 0 && n > f.l.Narrow:
		return nil
	}
	switch p := f.buf[:n]; binary.BigEndian.Uint16(p) {
	case opError:
		return f.end(k, now, fmt.Errorf("error %d: %s", binary.BigEndian.Uint16(p[2:]), bytes.TrimRight(p[4:], "\x00")))
	case opOACK:
		c.granted(p[2:])
		c.expires = now.Add(f.l.Repeat)
		return f.acknowledge(c, 0)
	case opData:
		block := binary.BigEndian.Uint16(p[2:])
		// Only a block that is due can be lost: the seed alone says which, not what
		// came twice besides.
		if block == c.next && c.lost.Float64() < f.l.Loss {
			f.r.Lost++
			return nil
		}
		return f.data(k, block, p[4:], now)
	}
	return nil
}

// granted reads what the server agreed to (RFC 2347).
func (c *client) granted(options []byte) {
	words := bytes.Split(options, []byte{0})
	for k := 0; k+1 < len(words); k += 2 {
		v, err := strconv.Atoi(string(words[k+1]))
		if err != nil || v < 1 || v > math.MaxUint16 {
			continue
		}
		switch string(bytes.ToLower(words[k])) {
		case "blksize":
			c.blksize = v
		case "windowsize":
			c.window = v
		}
	}
}

func (f *fleet) acknowledge(c *client, block uint16) error {
	c.ack = [4]byte{0, opAck, byte(block >> 8), byte(block)}
	c.last = c.ack[:]
	return f.send(c)
}

// data takes a block.
func (f *fleet) data(k int, block uint16, b []byte, now time.Time) error {
	c := f.clients[k]
	if behind := int16(block - c.next); behind < 0 {
		f.r.Twice++
		if block != c.next-1 {
			return nil
		}
		c.inWindow = 0
		return f.send(c) // our ACK was lost, as far as the server knows
	} else if behind > 0 {
		// RFC 7440 §4: the last good block is acknowledged, once.
		if c.gap {
			return nil
		}
		c.gap, c.inWindow = true, 0
		return f.acknowledge(c, c.next-1)
	}
	if c.at+len(b) > len(f.l.Want) || !bytes.Equal(b, f.l.Want[c.at:c.at+len(b)]) {
		return fmt.Errorf("block %d of %s, %d bytes at %d, is not what the file holds", block, f.l.File, len(b), c.at)
	}
	c.at += len(b)
	f.r.Bytes += int64(len(b))
	c.gap, c.tries = false, 0
	c.expires = now.Add(f.l.Repeat)
	c.next++
	c.inWindow++
	last := len(b) < c.blksize
	if last || c.inWindow >= c.window {
		c.inWindow = 0
		if err := f.acknowledge(c, block); err != nil {
			return err
		}
	}
	if !last {
		return nil
	}
	if c.at != len(f.l.Want) {
		return fmt.Errorf("%s ends after %d bytes, it has %d", f.l.File, c.at, len(f.l.Want))
	}
	return f.end(k, now, nil)
}
