// Package power switches machines on and off from afar: by waking their cards, and
// by their BMCs.
//
// Wake-on-LAN is a frame that a sleeping card looks for: six bytes of ones and
// sixteen times its own address, anywhere in a packet (AMD, publication 20213,
// "Magic Packet Technology"). It is sent by UDP to the discard port as a
// broadcast, since the card has no address.
package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"lunboot/store"
)

// discard is the port that nobody answers on (RFC 863).
const discard = 9

// Place is where a machine is looked for: all of an interface, or a network that
// lies behind routers, by its directed broadcast (RFC 919).
type Place struct {
	Interface string
	Prefix    netip.Prefix // without an Interface
}

// String names the place for people.
func (p Place) String() string {
	if p.Interface != "" {
		return p.Interface
	}
	return p.Prefix.String()
}

// Packet is the magic packet of a card.
func Packet(mac store.MAC) []byte {
	return append(bytes.Repeat([]byte{0xff}, 6), bytes.Repeat(mac[:], 16)...)
}

// Wake sends the magic packet of each card to each place, and returns those that
// it went to. A place that cannot be sent to is an error only when every other
// failed too.
func Wake(ctx context.Context, macs []store.MAC, places []Place) (sent []Place, err error) {
	if len(places) == 0 {
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "wake", Msg: "no network is served, so there is none to wake a machine on; switch one on in Settings"}
	}
	for _, p := range places {
		if e := wake(ctx, macs, p); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p, e))
			continue
		}
		sent = append(sent, p)
	}
	if len(sent) == 0 {
		return nil, &store.Error{Kind: store.KindUnavailable, Op: "wake", Err: err, Msg: "the packet that wakes the machine could not be sent: " + err.Error()}
	}
	return sent, nil
}

func wake(ctx context.Context, macs []store.MAC, p Place) error {
	to := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if p.Interface == "" {
		var err error
		if to, err = directed(p.Prefix); err != nil {
			return err
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
			if err == nil && p.Interface != "" {
				err = unix.BindToDevice(int(fd), p.Interface)
			}
		})
		return errors.Join(e, err)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return err
	}
	defer c.Close()
	for _, mac := range macs {
		if _, err := c.WriteTo(Packet(mac), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, discard))); err != nil {
			return err
		}
	}
	return nil
}

// directed is the broadcast address of a network.
func directed(p netip.Prefix) (netip.Addr, error) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, fmt.Errorf("%s has no broadcast address", p)
	}
	a := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a), nil
}
