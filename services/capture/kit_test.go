package capture

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"lunboot/store"
)

var (
	ourMAC  = store.MAC{2, 0, 0, 0, 0, 1}
	itsMAC  = store.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	ourAddr = netip.MustParseAddr("192.168.40.1")
	itsAddr = netip.MustParseAddr("192.168.40.100")
	ports   = Ports{TFTP: 69, HTTP: 80, ISCSI: 3260}
	lan     = Link{Name: "lan0", Index: 2, MAC: ourMAC, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.40.1/24")}}
	epoch   = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
)

// wire makes frames between the machine and us, and has them recorded.
type wire struct {
	t   testing.TB
	rec *recorder
	at  time.Time
}

func newWire(t testing.TB) *wire {
	w := &wire{t: t, rec: newRecorder(ports, nil, bounds{perMachine, inAll, maxMachines, maxHeard}), at: epoch}
	w.rec.setLinks([]Link{lan})
	return w
}

func (w *wire) take(b []byte) {
	w.at = w.at.Add(time.Millisecond)
	w.rec.take(lan, Seen{At: w.at}, b)
}

func serialize(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// headers are Ethernet's and IPv4's; out says that we send.
func headers(out bool, far netip.Addr, protocol layers.IPProtocol) (*layers.Ethernet, *layers.IPv4) {
	eth := &layers.Ethernet{SrcMAC: itsMAC[:], DstMAC: ourMAC[:], EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: net.IP(far.AsSlice()), DstIP: net.IP(ourAddr.AsSlice())}
	if out {
		eth.SrcMAC, eth.DstMAC = eth.DstMAC, eth.SrcMAC
		ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
	}
	return eth, ip
}

// udp makes a datagram between the machine's port and ours.
func (w *wire) udp(out bool, its, our uint16, payload []byte) []byte {
	eth, ip := headers(out, itsAddr, layers.IPProtocolUDP)
	u := &layers.UDP{SrcPort: layers.UDPPort(its), DstPort: layers.UDPPort(our)}
	if out {
		u.SrcPort, u.DstPort = u.DstPort, u.SrcPort
	}
	_ = u.SetNetworkLayerForChecksum(ip)
	return serialize(w.t, eth, ip, u, gopacket.Payload(payload))
}

// talk is one TCP connection of the machine.
type talk struct {
	*wire
	its, our uint16
	seq      [2]uint32 // in, out
}

func (w *wire) segment(out bool, its, our uint16, seq uint32, payload []byte, flags string) []byte {
	eth, ip := headers(out, itsAddr, layers.IPProtocolTCP)
	tcp := &layers.TCP{SrcPort: layers.TCPPort(its), DstPort: layers.TCPPort(our), Seq: seq, Window: 1000, ACK: true}
	if out {
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	for _, c := range flags {
		switch c {
		case 'S':
			tcp.SYN = true
		case 'F':
			tcp.FIN = true
		case 'R':
			tcp.RST = true
		}
	}
	_ = tcp.SetNetworkLayerForChecksum(ip)
	return serialize(w.t, eth, ip, tcp, gopacket.Payload(payload))
}

// dial opens a connection from its port; the numbers are about to wrap.
func (w *wire) dial(its, our uint16) *talk {
	k := &talk{wire: w, its: its, our: our, seq: [2]uint32{0xfffffff0, 77}}
	w.take(w.segment(false, its, our, k.seq[0], nil, "S"))
	w.take(w.segment(true, its, our, k.seq[1], nil, "S"))
	k.seq[0]++
	k.seq[1]++
	return k
}

func (k *talk) send(out bool, payload []byte) {
	way := 0
	if out {
		way = 1
	}
	k.take(k.segment(out, k.its, k.our, k.seq[way], payload, ""))
	k.seq[way] += uint32(len(payload))
}

func (k *talk) end(out bool, flags string) {
	way := 0
	if out {
		way = 1
	}
	k.take(k.segment(out, k.its, k.our, k.seq[way], nil, flags))
	k.seq[way]++
}

// pdu makes one with a data segment, padded.
func pdu(opcode, flags byte, data []byte) []byte {
	b := make([]byte, bhsLen, bhsLen+len(data)+3)
	b[0], b[1] = opcode, flags
	binary.BigEndian.PutUint32(b[4:], uint32(len(data)))
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// kept returns the recorded frames of the machine.
func (w *wire) kept() [][]byte {
	found, _ := w.rec.find(Query{MACs: []store.MAC{itsMAC}})
	var out [][]byte
	for _, p := range found {
		out = append(out, p.frame())
	}
	return out
}

// text is everything that is kept, one frame after the other.
func (w *wire) text() string {
	var all []byte
	for _, f := range w.kept() {
		all = append(all, f...)
	}
	return string(all)
}
