// Package sockets tells whether a UDP port can be had alone, and who has it
// when not. It reads the host's own tables (sock_diag(7), proc(5)).
package sockets

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lunboot/services"
	"lunboot/store"
)

// Free returns an error that names the holder when another socket would share
// the port with one that is bound to addr on ifi (nil for all interfaces). DHCP
// sockets set SO_REUSEPORT, ours and others', so that bind says nothing: both
// would be given a part of the packets.
func Free(addr netip.AddrPort, ifi *net.Interface) error { return held(addr, ifi, 0) }

// Alone is Free for a socket that is bound already: it is not in its own way.
func Alone(c *net.UDPConn, ifi *net.Interface) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Fstat(int(fd), &st) }); err != nil || failed != nil {
		return fmt.Errorf("look at our own socket: %w", errors.Join(err, failed))
	}
	return held(c.LocalAddr().(*net.UDPAddr).AddrPort(), ifi, uint32(st.Ino))
}

func held(addr netip.AddrPort, ifi *net.Interface, but uint32) error {
	if addr.Port() == 0 {
		return nil
	}
	all, err := udpSockets()
	if err != nil {
		return fmt.Errorf("look for who holds UDP port %d: %w", addr.Port(), err)
	}
	on, err := addrs(ifi)
	if err != nil {
		return err
	}
	for _, h := range all {
		if h.inode == but || !h.clashes(addr, on) {
			continue
		}
		who, way, ours := holder(h.inode, int(addr.Port()))
		if ours {
			return &store.Error{Kind: store.KindInUse, Msg: fmt.Sprintf("UDP port %d is held by %s", addr.Port(), who), Err: errOurs}
		}
		return &store.Error{Kind: store.KindInUse, Msg: fmt.Sprintf("UDP port %d is held by %s; %s", addr.Port(), who, way)}
	}
	return nil
}

var errOurs = errors.New("one service is enough for an interface")

// Ours reports whether an error of Free is about a socket of this process.
func Ours(err error) bool { return errors.Is(err, errOurs) }

// udpSocket is one bound socket of the host's network namespace.
type udpSocket struct {
	local  netip.AddrPort
	device int // index of the interface that it is bound to, 0 for all
	inode  uint32
}

// link is the interface that packets come in on.
type link struct {
	index int // 0 for all
	addrs []netip.Addr
}

func addrs(ifi *net.Interface) (link, error) {
	if ifi == nil {
		return link{}, nil
	}
	l := link{index: ifi.Index}
	all, err := ifi.Addrs()
	if err != nil {
		return l, fmt.Errorf("read the addresses of %s: %w", ifi.Name, err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			ip, _ := netip.AddrFromSlice(n.IP)
			l.addrs = append(l.addrs, ip.Unmap())
		}
	}
	return l, nil
}

// clashes reports whether packets for addr on an interface could go to h.
func (h udpSocket) clashes(addr netip.AddrPort, on link) bool {
	if h.local.Port() != addr.Port() || on.index != 0 && h.device != 0 && h.device != on.index {
		return false
	}
	a, b := h.local.Addr(), addr.Addr()
	if !a.IsUnspecified() && on.index != 0 {
		return slices.Contains(on.addrs, a) // another interface's address otherwise
	}
	return a.IsUnspecified() || b.IsUnspecified() || a == b
}

// udpSockets lists the IPv4 UDP sockets by sock_diag(7), which tells the
// interface that a socket is bound to, and without that kernel module by
// /proc/net/udp, which does not.
func udpSockets() ([]udpSocket, error) {
	diag, err := netlink.SocketDiagUDP(unix.AF_INET)
	if err != nil {
		b, err := os.ReadFile("/proc/thread-self/net/udp")
		if err != nil {
			return nil, err
		}
		return parseProcUDP(b), nil
	}
	var out []udpSocket
	for _, d := range diag {
		a, ok := netip.AddrFromSlice(d.ID.Source)
		if ok {
			out = append(out, udpSocket{netip.AddrPortFrom(a.Unmap(), d.ID.SourcePort), int(d.ID.Interface), d.INode})
		}
	}
	return out, nil
}

// parseProcUDP reads proc_net_udp(5): the second column is the local address in
// hexadecimal, each byte group in the host's order, the tenth the inode.
func parseProcUDP(b []byte) []udpSocket {
	var out []udpSocket
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 10 {
			continue
		}
		addr, port, _ := strings.Cut(f[1], ":")
		raw, err1 := hex.DecodeString(addr)
		n, err2 := strconv.ParseUint(port, 16, 16)
		inode, err3 := strconv.ParseUint(f[9], 10, 32)
		if err1 != nil || err2 != nil || err3 != nil || len(raw) != 4 {
			continue
		}
		a := netip.AddrFrom4([4]byte{raw[3], raw[2], raw[1], raw[0]})
		out = append(out, udpSocket{netip.AddrPortFrom(a, uint16(n)), 0, uint32(inode)})
	}
	return out
}

// holder names the process that has a socket open, and how to stop it.
func holder(inode uint32, port int) (who, way string, ours bool) {
	h := services.HolderOfSocket(inode, "udp", port)
	switch {
	case h.PID == os.Getpid():
		return fmt.Sprintf("this appliance itself (pid %d)", h.PID), "", true
	case h.Name == "":
		return "another program that cannot be named from here", "find it as root with: " + h.Stop, false
	}
	return h.String(), "stop it with: " + h.Stop, false
}

// InterfaceNames lists the interfaces that there are, for errors.
func InterfaceNames() string {
	all, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var names string
	for i, ifi := range all {
		if i > 0 {
			names += ", "
		}
		names += ifi.Name
	}
	return names
}

// SourceTo returns the address of ours from which a packet to a would be sent:
// the kernel's choice by its routes. Nothing is sent.
func SourceTo(a netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 67)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to %s: %w", a, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
