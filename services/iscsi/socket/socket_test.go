package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// short is what is sent in one call; one byte more takes the other way.
const short = 64 << 10

// pair is a connection and its peer. The connection's socket holds little.
func pair(t *testing.T) (*Socket, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(peer.Close(), nc.Close()) })
	if err := nc.(*net.TCPConn).SetWriteBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return New(nc, raw, NewVigils(2)), peer.(*net.TCPConn)
}

// What is sent arrives whole, however much more it is than the socket holds and
// however slowly the peer reads.
func TestASlowPeerGetsAllThatIsSent(t *testing.T) {
	for _, n := range []int{1, 48, short, short + 1, 16 << 20} {
		c, peer := pair(t)
		var want []byte
		for k := range n {
			want = append(want, byte(k*k>>7))
		}
		sent := make(chan error, 1)
		go func() {
			var err error
			for b := want; len(b) > 0 && err == nil; b = b[min(len(b), short):] {
				err = c.Send(b[:min(len(b), short)])
			}
			sent <- err
		}()
		time.Sleep(20 * time.Millisecond) // it waits for room by now
		got := make([]byte, n)
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %v, or other bytes came", n, err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

func TestReceivingWaitsAndEnds(t *testing.T) {
	for _, size := range []int{16, short + 1} {
		c, peer := pair(t)
		p := make([]byte, size)
		time.AfterFunc(20*time.Millisecond, func() { _, _ = peer.Write([]byte("late")) })
		if n, err := c.Recv(p, false); err != nil || string(p[:n]) != "late" {
			t.Errorf("%q, %v", p[:n], err)
		}
		if err := c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Recv(p, false); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after its time %d bytes, %v", n, err)
		}
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		// What came before the end is not lost with it.
		if _, err := peer.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if n, err := c.Recv(p, false); err != nil || string(p[:n]) != "last" {
			t.Errorf("%q, %v", p[:n], err)
		}
		for range 2 {
			if n, err := c.Recv(p, false); n != 0 || err != io.EOF {
				t.Errorf("after the end %d bytes, %v", n, err)
			}
		}
	}
}

// Whoever waits for the peer is woken when the connection is closed, and a peer
// that resets it is told from one that leaves.
func TestClosingWakesWhoWaits(t *testing.T) {
	c, _ := pair(t)
	time.AfterFunc(20*time.Millisecond, func() { _ = c.nc.Close() })
	if n, err := c.Recv(make([]byte, 16), false); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("receiving: %d bytes, %v", n, err)
	}
	c, _ = pair(t)
	time.AfterFunc(20*time.Millisecond, func() { _ = c.nc.Close() })
	err := error(nil)
	for err == nil {
		err = c.Send(make([]byte, short))
	}
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("sending: %v", err)
	}
	c, peer := pair(t)
	if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recv(make([]byte, 16), false); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("receiving after a reset: %v", err)
	}
	if err := c.Send([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("sending after a reset: %v", err)
	}
}

// room counts who has it.
type room struct {
	b     [16]byte
	taken atomic.Int32
	had   atomic.Int32 // how often it was
}

func (r *room) Take() []byte {
	r.taken.Store(1)
	r.had.Add(1)
	return r.b[:]
}

func (r *room) GiveBack() { r.taken.Store(0) }

// Whoever waits for the peer needs no room for what has not come, and has it when
// it comes.
func TestWhoeverWaitsHasNoRoom(t *testing.T) {
	c, peer := pair(t)
	var r room
	go func() {
		for r.had.Load() == 0 || r.taken.Load() != 0 {
			time.Sleep(time.Millisecond)
		}
		_, _ = peer.Write([]byte("late"))
	}()
	if n, err := c.RecvInto(&r, false); err != nil || string(r.b[:n]) != "late" || r.taken.Load() != 1 {
		t.Errorf("%q, %v, room %d", r.b[:n], err, r.taken.Load())
	}
	if err := c.nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.RecvInto(&r, false); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || r.taken.Load() != 0 {
		t.Errorf("after its time %d bytes, %v, room %d", n, err, r.taken.Load())
	}
}
