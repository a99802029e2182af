package capture

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
)

// Ports are where the appliance's own services listen.
type Ports struct {
	TFTP, HTTP, ISCSI uint16
}

// Ports of DHCP (RFC 2131 §4.1) and of PXE's boot server (PXE 2.1 §2.2.3).
const (
	portDHCPServer = 67
	portDHCPClient = 68
	portPXE        = 4011
)

// What the kernel copies of a packet, in bytes.
const (
	copyAll   = 1 << 17 // a whole one, also when the card joined several (64 KiB and headers)
	copyDHCP  = ethernetLen + maxIPv4Len + udpLen + 1500
	copyTFTP  = ethernetLen + maxIPv4Len + udpLen + 4 + maxTFTPText
	copyARP   = ethernetLen + arpLen
	copyICMP6 = ethernetLen + ipv6Len + 256
)

// Offsets in an Ethernet frame that the filter looks at.
const (
	atEtherType = 12
	atTotalLen  = ethernetLen + 2
	atFragment  = ethernetLen + 6
	atProtocol  = ethernetLen + 9
	atSource    = ethernetLen + 12
	atDest      = ethernetLen + 16
	atNextHdr   = ethernetLen + 6
	atICMP6     = ethernetLen + ipv6Len

	// Behind an IPv4 header, whose length X holds.
	atSrcPort = ethernetLen
	atDstPort = ethernetLen + 2
	atUDPData = ethernetLen + udpLen
	atOffset  = ethernetLen + 12 // TCP data offset, in the upper four bits
	atFlags   = ethernetLen + 13
)

// key32 names the far end of a connection in 32 bits, which is what a filter
// can compare. Two that share a number share their fate, which is harmless: one
// of them is recorded less.
func key32(far netip.AddrPort) uint32 {
	a := far.Addr().As4()
	return binary.BigEndian.Uint32(a[:])*spread + uint32(far.Port())
}

// spread is Knuth's multiplier: it keeps neighbours with neighbouring ports
// apart.
const spread = 2654435761

// program is the filter that the kernel runs for each packet, so that a busy
// volume does not wake us: it passes ARP, router solicitations and
// advertisements, DHCP, TFTP, and of TCP on our ports what begins or ends a
// connection, and the data of those connections that are not in done.
//
// The kernel keeps no state between packets; done, a search tree in the program
// itself, is our memory in it. With shut, no connection's data passes.
func program(p Ports, done []uint32, shut bool) []bpf.Instruction {
	a := &assembler{at: map[string]int{}}
	a.emit(bpf.LoadAbsolute{Off: atEtherType, Size: 2})
	a.jump(bpf.JumpEqual, etherTypeIPv4, "ipv4")
	a.jump(bpf.JumpEqual, etherTypeIPv6, "ipv6")
	a.jump(bpf.JumpNotEqual, etherTypeARP, "drop")
	a.emit(bpf.RetConstant{Val: copyARP})

	a.label("ipv6")
	a.emit(bpf.LoadAbsolute{Off: atNextHdr, Size: 1})
	a.jump(bpf.JumpNotEqual, protocolICMPv6, "drop")
	a.emit(bpf.LoadAbsolute{Off: atICMP6, Size: 1})
	a.jump(bpf.JumpLessThan, typeSolicitation, "drop")
	a.jump(bpf.JumpGreaterThan, typeAdvertisement, "drop")
	a.emit(bpf.RetConstant{Val: copyICMP6})

	a.label("ipv4")
	a.emit(bpf.LoadAbsolute{Off: atFragment, Size: 2})
	a.jump(bpf.JumpBitsSet, fragmentOffset, "drop") // it has no ports
	a.emit(bpf.LoadMemShift{Off: ethernetLen}, bpf.LoadAbsolute{Off: atProtocol, Size: 1})
	a.jump(bpf.JumpEqual, protocolTCP, "tcp")
	a.jump(bpf.JumpNotEqual, protocolUDP, "drop")
	for _, at := range []uint32{atSrcPort, atDstPort} {
		a.emit(bpf.LoadIndirect{Off: at, Size: 2})
		for _, port := range []uint32{portDHCPServer, portDHCPClient, portPXE} {
			a.jump(bpf.JumpEqual, port, "dhcp")
		}
		a.jump(bpf.JumpEqual, uint32(p.TFTP), "tftp")
	}
	// A transfer has ports of its own (RFC 1350 §4): its packets are known by
	// their first two bytes. What else looks so is sorted out later.
	a.emit(bpf.LoadIndirect{Off: atUDPData, Size: 2})
	a.jump(bpf.JumpLessThan, opRRQ, "drop")
	a.jump(bpf.JumpGreaterThan, opOACK, "drop")
	a.label("tftp")
	a.emit(bpf.RetConstant{Val: copyTFTP})
	a.label("dhcp")
	a.emit(bpf.RetConstant{Val: copyDHCP})

	a.label("tcp")
	a.emit(bpf.LoadIndirect{Off: atDstPort, Size: 2})
	a.jump(bpf.JumpEqual, uint32(p.HTTP), "request")
	a.jump(bpf.JumpEqual, uint32(p.ISCSI), "in")
	a.emit(bpf.LoadIndirect{Off: atSrcPort, Size: 2})
	a.jump(bpf.JumpEqual, uint32(p.HTTP), "out")
	a.jump(bpf.JumpEqual, uint32(p.ISCSI), "out")
	a.label("drop")
	a.emit(bpf.RetConstant{Val: 0})

	// What a machine asks for over HTTP is little: it is kept also when a large
	// answer put the connection into done. X is lost, so it is loaded again.
	a.label("request")
	a.emit(bpf.LoadIndirect{Off: atOffset, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 2},
		bpf.ALUOpX{Op: bpf.ALUOpAdd}, bpf.TAX{}, // both headers
		bpf.LoadAbsolute{Off: atTotalLen, Size: 2})
	a.far(bpf.JumpIfX{Cond: bpf.JumpGreaterThan, SkipFalse: 1}, "all")
	a.emit(bpf.LoadMemShift{Off: ethernetLen})
	a.label("in")
	a.ends()
	a.hash(atSource, atSrcPort)
	a.goTo("tree")
	a.label("out")
	a.ends()
	a.hash(atDest, atDstPort)
	a.label("tree")
	if shut {
		a.emit(bpf.RetConstant{Val: 0})
	} else {
		done = slices.Clone(done)
		slices.Sort(done)
		a.ins = append(a.ins, tree(slices.Compact(done))...)
	}
	a.label("all")
	a.emit(bpf.RetConstant{Val: copyAll})
	return a.link()
}

// tree passes what is not among the sorted keys; A holds the packet's.
func tree(keys []uint32) []bpf.Instruction {
	const leaf = 16
	if n := len(keys); n > leaf {
		mid := n / 2
		left, right := tree(keys[:mid]), tree(keys[mid:])
		out := []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: keys[mid], SkipFalse: 1}, bpf.Jump{Skip: uint32(len(left))}}
		return append(append(out, left...), right...)
	}
	var out []bpf.Instruction
	for i, k := range keys {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: k, SkipTrue: uint8(len(keys) - i)})
	}
	return append(out, bpf.RetConstant{Val: copyAll}, bpf.RetConstant{Val: 0})
}

// assembler resolves forward jumps by name. Every jump is a long one: a tree
// lies between.
type assembler struct {
	ins   []bpf.Instruction
	at    map[string]int
	jumps []jumpTo
}

type jumpTo struct {
	index int
	label string
}

func (a *assembler) emit(ins ...bpf.Instruction) { a.ins = append(a.ins, ins...) }

func (a *assembler) label(name string) { a.at[name] = len(a.ins) }

func (a *assembler) goTo(label string) {
	a.jumps = append(a.jumps, jumpTo{len(a.ins), label})
	a.emit(bpf.Jump{})
}

// far goes to label where test, which skips one instruction when it fails, is
// true.
func (a *assembler) far(test bpf.Instruction, label string) {
	a.emit(test)
	a.goTo(label)
}

func (a *assembler) jump(cond bpf.JumpTest, val uint32, label string) {
	a.far(bpf.JumpIf{Cond: cond, Val: val, SkipFalse: 1}, label)
}

// ends passes what begins or ends a connection.
func (a *assembler) ends() {
	a.emit(bpf.LoadIndirect{Off: atFlags, Size: 1})
	a.jump(bpf.JumpBitsSet, flagSYN|flagFIN|flagRST, "all")
}

// hash computes key32 of the far end.
func (a *assembler) hash(addr, port uint32) {
	a.emit(bpf.LoadAbsolute{Off: addr, Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: spread}, bpf.StoreScratch{Src: bpf.RegA, N: 0},
		bpf.LoadIndirect{Off: port, Size: 2}, bpf.TAX{}, bpf.LoadScratch{Dst: bpf.RegA, N: 0}, bpf.ALUOpX{Op: bpf.ALUOpAdd})
}

// link fills the jumps in. Labels lie behind the jumps to them, "drop" too: the
// kernel knows no way back.
func (a *assembler) link() []bpf.Instruction {
	slices.SortFunc(a.jumps, func(x, y jumpTo) int { return cmp.Compare(x.index, y.index) })
	for _, j := range a.jumps {
		a.ins[j.index] = bpf.Jump{Skip: uint32(a.at[j.label] - j.index - 1)}
	}
	return a.ins
}
