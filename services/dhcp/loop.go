package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/coredhcp/coredhcp/handler"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"

	"lunboot/services"
	"lunboot/services/dhcp/message"
	"lunboot/services/dhcp/wire"
	"lunboot/store"
)

// datagram is one received packet. A DHCP message fits an Ethernet frame, and
// no client in use fragments.
type datagram struct {
	buf  [1600]byte // of a frame, when the port is shared: headers and all
	n    int
	k    *socket // where it came in
	from netip.AddrPort
	to   netip.Addr

	reply []byte // room for the answer
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

// Places in a BOOTP message, RFC 951 §3.
const (
	giaddrOffset = 24
	chaddrOffset = 28
)

// queues are where packets wait, each for the worker of its MAC, so that the
// packets of one machine are answered in order.
type queues struct {
	known   []chan *datagram
	strange []chan *datagram
}

func newQueues() queues {
	q := queues{make([]chan *datagram, workers), make([]chan *datagram, greeters)}
	for i := range q.known {
		q.known[i] = make(chan *datagram, queue)
	}
	for i := range q.strange {
		q.strange[i] = make(chan *datagram, lobby)
	}
	return q
}

// of chooses a queue for a message. A stranger's first packet may wait in one and
// his next in another: by then the first was answered, or he has lost patience.
// Strangers behind one relay share one.
func (q queues) of(b []byte, known bool) chan *datagram {
	some, key := q.known, b[chaddrOffset+3:chaddrOffset+6] // cards of one maker differ in the last bytes
	if !known {
		some = q.strange
		if relay := b[giaddrOffset : giaddrOffset+4]; [4]byte(relay) != [4]byte{} {
			key = relay[1:]
		}
	}
	return some[(int(key[2])+31*int(key[1])+17*int(key[0]))%len(some)]
}

// read takes packets off the socket into the queues.
func (s *Server) read(ctx context.Context, k *socket, q queues) error {
	var oob [64]byte
	var cm ipv4.ControlMessage
	for {
		d := datagrams.Get().(*datagram)
		err := k.receive(d, oob[:], &cm)
		if err != nil {
			datagrams.Put(d)
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("read: %w", err)
		}
		if d.n < chaddrOffset+6 {
			s.counters.malformed.Add(1)
			datagrams.Put(d)
			continue
		}
		mac := store.MAC(d.buf[chaddrOffset:])
		select {
		case q.of(d.buf[:d.n], s.ledger.Known(mac)) <- d:
		default:
			// The client asks again in a second or two; a packet that waits
			// longer than that would only be answered twice.
			s.counters.crowded.Add(1)
			datagrams.Put(d)
		}
	}
}

func (s *Server) work(ctx context.Context, in <-chan *datagram) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-in:
			// A panic ends this packet. It is logged by Guard.
			err := services.Guard(s.cfg.Log, "DHCP request", func() error { return s.handle(ctx, d) })
			if err != nil && ctx.Err() == nil {
				s.cfg.Log.Error("DHCP request was not answered", "from", d.from, "error", err)
			}
			datagrams.Put(d)
		}
	}
}

// handle answers one packet.
func (s *Server) handle(ctx context.Context, d *datagram) error {
	p, err := dhcpv4.FromBytes(d.buf[:d.n])
	if err != nil {
		s.counters.malformed.Add(1)
		return nil
	}
	r, err := message.Decode(p)
	if err != nil {
		s.counters.malformed.Add(1)
		return nil
	}
	now := s.cfg.Now()
	if !s.allowed(r.MAC, now) {
		s.counters.limited.Add(1)
		return nil
	}
	at, ok := s.place(r, d.to)
	at.bootServer = d.k.pxe
	if !ok {
		return s.unserved(ctx, r, now)
	}
	if r.Arches != "" {
		r = s.settled(r)
	}
	if r.PXE() {
		s.spoke.put(r.MAC, now)
	}

	ans, err := s.answer(ctx, r, at, now)
	if err != nil {
		return err
	}
	var reply *dhcpv4.DHCPv4
	if ans.Verdict != Drop {
		reply = emptyReply(p)
		fill(reply, r, ans)
		reply = runChain(s.cfg.Plugins, p, reply)
	}
	if s.cfg.Log.Enabled(ctx, slog.LevelDebug) {
		s.cfg.Log.Debug("DHCP", "type", r.Type, "mac", r.MAC, "answer", ans.Verdict, "address", ans.Address, "file", ans.BootFile, "reason", ans.Reason)
	}
	err = s.tell(d, r, at, ans, reply)
	if ans.Waiting {
		s.report(r, ans, now)
	}
	if len(s.cfg.Plugins) == 0 { // else one may keep them
		recycle(ans.Options)
	}
	return err
}

// turns is how many machines at a time are sent a reply and spoken of.
const turns = 64

// tell sends a reply, nil for none, and says in events what happened.
func (s *Server) tell(d *datagram, r message.Request, at place, ans Answer, reply *dhcpv4.DHCPv4) (failed error) {
	// The machine's next packet may be with another worker before this one has
	// said what happened.
	turn := &s.turns[r.MAC[5]%turns]
	turn.Lock()
	defer turn.Unlock()
	sent := false
	if reply != nil {
		if err := s.send(d, r, at, ans, reply); err != nil {
			failed = fmt.Errorf("send a %s to %s: %w", ans.Verdict, r.MAC, err)
		} else {
			sent = true
		}
	}
	for _, e := range ans.Events {
		switch e.Kind {
		case store.EventDHCPOffer, store.EventDHCPAck, store.EventDHCPNak, store.EventDHCPProxyOffer, store.EventDHCPBootServer:
			if !sent {
				continue // an event says what happened
			}
		}
		s.cfg.Emit.Emit(e)
	}
	return failed
}

// allowed bounds the packets of one MAC.
func (s *Server) allowed(mac store.MAC, now time.Time) (ok bool) {
	s.limiters.change(mac, func(b bucket) bucket {
		b, ok = b.take(now)
		return b
	})
	return ok
}

// emptyReply begins a reply with what RFC 2131 table 3 lets a server copy from the
// request.
func emptyReply(p *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	return &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: p.HWType, TransactionID: p.TransactionID, Flags: p.Flags,
		GatewayIPAddr: p.GatewayIPAddr, ClientHWAddr: p.ClientHWAddr,
	}
}

// runChain runs coredhcp's handlers behind ours as its server does: each may change
// the reply, and end the chain; none may be nil at the end.
func runChain(chain []handler.Handler4, p, reply *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	for _, h := range chain {
		var stop bool
		if reply, stop = h(p, reply); stop || reply == nil {
			break
		}
	}
	return reply
}

// answer decides a request and makes its lease durable. One request is decided
// at a time; the address is held for its MAC until the lease is on disk, so
// that several leases can be written together.
func (s *Server) answer(ctx context.Context, r message.Request, at place, now time.Time) (Answer, error) {
	ans, err := s.decide(ctx, r, at, now)
	if err != nil {
		return ans, err
	}
	if !ans.Lease.Address.IsValid() {
		if ans.Chained && at.subnet.Mode == store.DHCPProxy {
			s.chained.put(r.MAC, chain{r.XID, now})
		}
		if ans.Doubt.IsValid() {
			s.wire.Doubt(ans.Doubt, false)
		}
		return ans, nil
	}
	if err := s.ledger.Put(ctx, ans.Lease); err != nil {
		return ans, fmt.Errorf("write the lease of %s for %s: %w", ans.Lease.Address, r.MAC, err)
	}
	for _, l := range ans.GiveBack {
		if err := s.ledger.Put(ctx, l); err != nil && store.KindOf(err) != store.KindConflict { // somebody has it by now
			return ans, fmt.Errorf("give %s back: %w", l.Address, err)
		}
	}
	if ans.Doubt.IsValid() {
		s.wire.Doubt(ans.Doubt, ans.Lease.State == store.LeaseDeclined)
	}
	if ans.Verdict == Ack {
		if ans.Chained { // now that it is told so: a disk may have taken its time
			s.chained.put(r.MAC, chain{r.XID, s.cfg.Now()})
		}
		s.wire.Given(ans.Address)
		s.ledger.Withdraw(r.MAC, at.subnet.Prefix)
	}
	return ans, nil
}

func (s *Server) decide(ctx context.Context, r message.Request, at place, now time.Time) (Answer, error) {
	t, err := s.ledger.Begin(ctx, now)
	if err != nil {
		return Answer{}, err
	}
	defer t.End()
	beside := at.bootServer || at.subnet.Mode == store.DHCPProxy
	var in Input
	if beside {
		in = s.gatherBoot(t, r, at, now)
	} else {
		clear(s.facts)
		in = s.gather(t, r, at, now, s.facts)
	}
	if in.Client.Enrolled {
		t.At(in.Client.Machine.ID, at.subnet.Prefix)
	}
	in.Untold = !in.Client.Enrolled && !s.audience.hears(r.MAC, now)
	ans := Decide(in)
	if in.Untold {
		s.counters.untold.Add(1)
		ans.Events, ans.Waiting = nil, false
	}
	switch {
	case beside:
	case ans.Hold || ans.Verdict == Ack && ans.Lease.Address.IsValid():
		t.Hold(r.MAC, at.subnet.Prefix, ans.Address, in.stranger())
	case ans.Withdraw:
		t.Withdraw(r.MAC, at.subnet.Prefix)
	}
	return ans, nil
}

// send puts a reply on the wire.
func (s *Server) send(in *datagram, r message.Request, at place, ans Answer, reply *dhcpv4.DHCPv4) error {
	k, src := in.k, at.link.Address
	in.reply = message.Append(in.reply[:0], reply)
	if room := r.Room(at.link.MTU); len(in.reply) > room {
		message.Fit(reply, room)
		in.reply = message.Append(in.reply[:0], reply)
	}
	payload := in.reply
	d := destination{to: in.from}
	switch {
	case ans.ToSender:
		if to, ours := s.ours(in.to); ours {
			src = to // it hears only whom it asked
		}
	case !k.unicast: // else: no broadcast came from there, and none need go
		d = route(r, ans.Verdict, ans.Address, in.from.Port(), at.past)
	}
	if k.shared() {
		return k.frame(r.MAC, src, d.to, payload)
	}
	if d.framed {
		if k.raw != nil {
			err := k.frame(r.MAC, src, d.to, payload)
			if err == nil {
				return nil
			}
			s.cfg.Log.Warn("a framed DHCP reply was not sent; it is broadcast", "mac", r.MAC, "error", err)
		}
		d.to = wire.LimitedBroadcast
	}
	if at.routed {
		port := uint16(wire.ServerPort)
		if k.pxe {
			port = s.PXEAddr().Port()
		}
		err := s.routed.Send(wire.Datagram(netip.AddrPortFrom(src, port), d.to, payload))
		if err == nil {
			return nil
		}
		s.cfg.Log.Warn("an answer to a relay was not sent by route; it goes out where the question came in", "to", d.to, "error", err)
	}
	var from []byte
	if k.ifi != nil {
		from = (&ipv4.ControlMessage{IfIndex: k.ifi.Index, Src: src.AsSlice()}).Marshal()
	}
	_, _, err := k.udp.WriteMsgUDPAddrPort(payload, from, d.to)
	return err
}

// frame puts a reply on the wire in a frame of our own making.
func (k *socket) frame(mac store.MAC, src netip.Addr, to netip.AddrPort, payload []byte) error {
	if to.Addr() == wire.LimitedBroadcast.Addr() {
		mac = wire.Everybody
	}
	b := wire.Frame(store.MAC(k.ifi.HardwareAddr), mac, netip.AddrPortFrom(src, wire.ServerPort), to, payload)
	_, err := k.raw.WriteTo(b, &packet.Addr{HardwareAddr: mac[:]})
	return err
}
