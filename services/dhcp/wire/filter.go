package wire

import "golang.org/x/net/bpf"

// otherHost is PACKET_OTHERHOST (if_packet.h).
const otherHost = 3

// Datagrams is a filter for a packet socket of IPv4 frames: the kernel drops all
// but UDP to one port, so that a volume's traffic wakes nobody. It looks at the
// first fragment only, since no DHCP client fragments.
func Datagrams(port uint16) []bpf.RawInstruction {
	return ForUs(
		bpf.LoadAbsolute{Off: ethernetLen + 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolUDP, SkipFalse: 6},
		bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 2}, // flags and fragment offset
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: ethernetLen},              // length of the header
		bpf.LoadIndirect{Off: ethernetLen + 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	)
}

// ForUs is a filter that drops what the kernel knows to be another host's, and leaves
// the rest to the instructions that follow; without any it passes. Such is, beside a
// frame for another card, one of a VLAN that this host does not have: the kernel takes
// its tag off and shows the frame to the packet sockets of the untagged network, marked
// in no other way. (A tag of number 0 names no VLAN: IEEE 802.1Q §6.9.)
func ForUs(rest ...bpf.Instruction) []bpf.RawInstruction {
	if len(rest) == 0 {
		rest = []bpf.Instruction{bpf.RetConstant{Val: 0xffff}}
	}
	raw, err := bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: otherHost, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}, rest...))
	if err != nil {
		return nil // the program is fixed: a test assembles it. Unframe looks at everything anyway.
	}
	return raw
}
