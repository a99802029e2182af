package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pathTo asks the kernel how packets leave for a client: the largest that pass
// (the interface's MTU, a route's, or what a router on the way has said), and
// the address of ours that they carry when nobody chooses another.
func pathTo(client netip.AddrPort) (mtu int, source netip.Addr, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, netip.Addr{}, os.NewSyscallError("socket", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("close", unix.Close(fd))) }()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: client.Addr().As4(), Port: int(client.Port())}); err != nil {
		return 0, netip.Addr{}, fmt.Errorf("the way to %s: %w", client.Addr(), err)
	}
	if mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU); err != nil {
		return 0, netip.Addr{}, os.NewSyscallError("getsockopt", err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return 0, netip.Addr{}, os.NewSyscallError("getsockname", err)
	}
	if v4, ok := at.(*unix.SockaddrInet4); ok {
		source = netip.AddrFrom4(v4.Addr)
	}
	return mtu, source, nil
}

// crossing carries the packets of one transfer whose client asked another
// address of ours than the one from which the kernel would answer. The library
// cannot choose; firmware drops what comes from elsewhere. So the library talks
// to a port on loopback, and what passes there goes on from the right address.
type crossing struct {
	front *net.UDPConn // towards the client
	back  *net.UDPConn // towards the library
	from  netip.AddrPort
	done  chan struct{}
}

// drainTime is how long a crossing waits for the last packet of its transfer,
// which is on loopback already.
const drainTime = 20 * time.Millisecond

func newCrossing(local netip.Addr, client netip.AddrPort) (*crossing, error) {
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, err
	}
	back, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, errors.Join(err, front.Close())
	}
	c := &crossing{front: front, back: back, from: client, done: make(chan struct{})}
	go c.carry()
	return c, nil
}

// addr is what the library takes for its client.
func (c *crossing) addr() *net.UDPAddr { return c.back.LocalAddr().(*net.UDPAddr) }

// carry carries packets to the client until close; the way back begins when the
// library has shown its port.
func (c *crossing) carry() {
	defer close(c.done)
	returning := make(chan struct{})
	buf := make([]byte, maxBlksize+4)
	var library netip.AddrPort
	for {
		n, from, err := c.back.ReadFromUDPAddrPort(buf)
		if err != nil {
			break
		}
		if !library.IsValid() {
			library = from
			go func() {
				defer close(returning)
				c.bring(library)
			}()
		}
		if from == library {
			_, _ = c.front.WriteToUDPAddrPort(buf[:n], c.from) // lost like any packet: it is sent again
		}
	}
	_ = c.front.Close()
	if library.IsValid() {
		<-returning
	}
}

// bring carries the client's packets to the library.
func (c *crossing) bring(library netip.AddrPort) {
	buf := make([]byte, defaultBlksize)
	for {
		n, from, err := c.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if from == c.from {
			_, _ = c.back.WriteToUDPAddrPort(buf[:n], library)
		}
	}
}

// close ends the crossing after its transfer.
func (c *crossing) close() {
	_ = c.back.SetReadDeadline(time.Now().Add(drainTime))
	<-c.done
	_ = c.back.Close()
}
