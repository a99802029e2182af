package wire

import "golang.org/x/net/bpf"

// Datagrams is a filter for a packet socket of IPv4 frames: the kernel drops all
// but UDP to one port, so that a volume's traffic wakes nobody. It looks at the
// first fragment only, since no DHCP client fragments.
func Datagrams(port uint16) []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: ethernetLen + 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocolUDP, SkipFalse: 6},
		bpf.LoadAbsolute{Off: ethernetLen + 6, Size: 2}, // flags and fragment offset
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
		bpf.LoadMemShift{Off: ethernetLen},              // length of the header
		bpf.LoadIndirect{Off: ethernetLen + 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 1},
		bpf.RetConstant{Val: 0xffff},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil // the program is fixed: a test assembles it. Unframe looks at everything anyway.
	}
	return raw
}
