package capture

import (
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

// filter runs the program on frames, as the kernel would.
func filter(t testing.TB, done []uint32, shut bool) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(program(ports, done, shut))
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func passes(t testing.TB, vm *bpf.VM, frame []byte) bool {
	t.Helper()
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestTheFilterPassesWhatABootIsMadeOf(t *testing.T) {
	w := newWire(t)
	vm := filter(t, nil, false)
	arp := make([]byte, 60)
	arp[12], arp[13] = 0x08, 0x06
	solicitation := make([]byte, 80)
	solicitation[12], solicitation[13], solicitation[20], solicitation[54] = 0x86, 0xdd, 58, 133
	neighbour := append([]byte(nil), solicitation...)
	neighbour[54] = 135
	fragment := w.udp(false, 68, 67, []byte("x"))
	fragment[21] = 9
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"ARP", arp, true},
		{"a router solicitation", solicitation, true},
		{"a neighbour solicitation", neighbour, false},
		{"DHCP", w.udp(false, 68, 67, []byte("x")), true},
		{"a boot server's answer", w.udp(true, 4011, 4011, []byte("x")), true},
		{"a TFTP request", w.udp(false, 2070, 69, []byte("\x00\x01name")), true},
		{"a block of a transfer", w.udp(true, 2070, 40000, []byte("\x00\x03\x00\x01data")), true},
		{"another datagram", w.udp(false, 2070, 5353, []byte("\x12\x34\x01")), false},
		{"an empty datagram", w.udp(false, 2070, 5353, nil), false},
		{"a later fragment", fragment, false},
		{"HTTP", w.segment(false, 1000, 80, 1, []byte("GET"), ""), true},
		{"iSCSI in", w.segment(false, 1000, 3260, 1, []byte("x"), ""), true},
		{"iSCSI out", w.segment(true, 1000, 3260, 1, []byte("x"), ""), true},
		{"an acknowledgement", w.segment(true, 1000, 3260, 1, nil, ""), true},
		{"SSH", w.segment(false, 1000, 22, 1, []byte("x"), "S"), false},
		{"half a header", arp[:13], false},
	} {
		if got := passes(t, vm, c.frame); got != c.want {
			t.Errorf("%s passes: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTheFilterLeavesOutTheDataOfConnectionsThatWereSeenEnoughOf(t *testing.T) {
	w := newWire(t)
	for _, n := range []int{1, 7, 8, 9, 100, maxLeftOut} {
		var done []uint32
		for i := range n {
			done = append(done, key32(netip.AddrPortFrom(itsAddr, uint16(1000+i))))
		}
		program := program(ports, done, false)
		if len(program) > 4000 {
			t.Fatalf("%d connections make %d instructions; the kernel takes 4096", n, len(program))
		}
		if _, err := assemble(program); err != nil {
			t.Fatal(err)
		}
		vm := filter(t, done, false)
		for _, i := range []int{0, n / 3, n / 2, n - 1, n, n + 1} {
			its, in := uint16(1000+i), i < n
			for _, c := range []struct {
				name  string
				frame []byte
				want  bool
			}{
				{"data of the machine's", w.segment(false, its, 3260, 1, []byte("x"), ""), !in},
				{"data of ours", w.segment(true, its, 3260, 1, []byte("x"), ""), !in},
				{"an acknowledgement over HTTP", w.segment(false, its, 80, 1, nil, ""), !in},
				{"a file", w.segment(true, its, 80, 1, []byte("x"), ""), !in},
				{"the next request for a file", w.segment(false, its, 80, 1, []byte("GET"), ""), true},
				{"its end", w.segment(false, its, 3260, 1, nil, "F"), true},
				{"our end", w.segment(true, its, 3260, 1, nil, "R"), true},
				{"a new beginning", w.segment(false, its, 3260, 1, nil, "S"), true},
			} {
				if got := passes(t, vm, c.frame); got != c.want {
					t.Errorf("%d left out, connection %d: %s passes: %v, want %v", n, i, c.name, got, c.want)
				}
			}
		}
	}
	vm := filter(t, nil, true)
	if passes(t, vm, w.segment(false, 1000, 3260, 1, []byte("x"), "")) || !passes(t, vm, w.segment(false, 1000, 3260, 1, nil, "S")) {
		t.Error("a filter that is shut passes beginnings and ends alone")
	}
}
