package tftp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot"
	"lunboot/store"
)

// uefi is what UEFI asks for over Ethernet.
var uefi = []string{"tsize", "0", "blksize", "1468", "windowsize", "4"}

var snponly = boot.LoaderPath(loaderMAC, boot.SNPOnly)

// begin asks for a file and takes the options; what comes then is too large.
func (c *client) begin(file string, options ...string) (blksize int) {
	c.t.Helper()
	op, rest := c.ask(file, options...)
	words := strings.Split(string(rest), "\x00")
	for i := 0; i+1 < len(words); i += 2 {
		if words[i] == "blksize" {
			fmt.Sscan(words[i+1], &blksize)
		}
	}
	if op != 6 || blksize == 0 {
		c.t.Fatalf("operation %d comes, %q: not the options' acknowledgement", op, rest)
	}
	c.ack(0)
	return blksize
}

// narrow is a client behind a tunnel that lets no larger datagram pass.
func (r *rig) narrow(bytes int) *client {
	c := r.client()
	c.narrow = bytes
	return c
}

func TestBlocksThatNeverArriveAreSmallerAtTheNextTry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, want := range []int{1468, 1024} {
		if got := r.narrow(600).begin(snponly, uefi...); got != want {
			t.Fatalf("try %d is granted blocks of %d bytes, want %d", i, got, want)
		}
		e := r.of(store.EventTFTPAbort, i+1)[i]
		next := fmt.Sprintf("blocks of %d bytes at its next try", []int{1024, 512}[i])
		if e.MAC != loaderMAC || e.Detail.Blksize != want || e.Detail.Bytes != 0 || e.Detail.Total != 173_792 || !strings.Contains(e.Detail.Reason, next) {
			t.Errorf("try %d ends with %+v", i, e)
		}
	}
	for i := range 2 { // and it stays so
		got, refused := r.narrow(600).fetch(snponly, uefi...)
		if !bytes.Equal(got, r.data[boot.SNPOnly]) {
			t.Fatalf("in small blocks it gets %d bytes, %q", len(got), refused)
		}
		e := r.of(store.EventTFTPStart, i+1)[i]
		if e.Detail.Blksize != 512 || !strings.Contains(e.Detail.Reason, "larger ones never arrived") {
			t.Errorf("the transfer begins with %+v", e)
		}
	}
	other := boot.LoaderPath(store.MAC{2, 0, 0, 0, 0, 9}, boot.SNPOnly)
	if got := r.client().begin(other, uefi...); got != 1468 {
		t.Errorf("another machine is granted blocks of %d bytes", got)
	}
	if n := len(r.of(store.EventTFTPAbort, 2)); n != 2 {
		t.Errorf("%d aborts", n)
	}
}

// Firmware does not wait until a transfer is given up: it asks again.
func TestARepeatedRequestIsAnsweredInSmallerBlocksAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.narrow(1200)
	old.begin(snponly, uefi...)
	time.Sleep(700 * time.Millisecond) // the first block was sent three times
	got, refused := r.narrow(1200).fetch(snponly, uefi...)
	if !bytes.Equal(got, r.data[boot.SNPOnly]) {
		t.Fatalf("it gets %d bytes, %q", len(got), refused)
	}
	abort, start := r.of(store.EventTFTPAbort, 1)[0], r.of(store.EventTFTPStart, 1)[0]
	if abort.Detail.Blksize != 1468 || start.Detail.Blksize != 1024 || start.At.Before(abort.At) {
		t.Errorf("the events are %+v and %+v", abort, start)
	}
	r.of(store.EventTFTPSent, 1)
	for end := time.Now().Add(10 * time.Second); r.s.active.total() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := len(r.of(store.EventTFTPAbort, 1)); n != 1 {
		t.Errorf("the stall is told %d times", n)
	}
	if limit := r.s.sizes.limit(machine{mac: loaderMAC}); limit != 1024 {
		t.Errorf("the machine is given blocks of %d bytes", limit)
	}
}

func TestAMachineThatTakesBlocksKeepsTheirSize(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 2 { // the request comes twice, and both are answered
		c := r.client()
		c.begin(snponly, uefi...)
		c.next()
		c.ack(1)
		c.next()
		time.Sleep(500 * time.Millisecond)
	}
	if got := r.client().begin(snponly, uefi...); got != 1468 {
		t.Errorf("it is granted blocks of %d bytes", got)
	}
	// A script is smaller than a block: nothing can be learnt from it.
	tr := newTransfer(r.s, request{name: "autoexec.ipxe"})
	tr.blksize, tr.total, tr.reads = 1432, 80, 1
	if tr.stalled() {
		t.Error("a file of 80 bytes counts as a full block")
	}
}

func TestSizesAreRememberedForSoManyMachines(t *testing.T) {
	z := newSizes()
	for i, step := range []struct{ size, next int }{{9000, 1468}, {1468, 1024}, {1432, 1024}, {1024, 512}, {1468, 512}, {512, 0}} {
		if got := z.stalled(machine{mac: loaderMAC}, step.size); got != step.next {
			t.Errorf("step %d: after %d bytes it is given %d, want %d", i, step.size, got, step.next)
		}
	}
	for i := range 2 * maxSized {
		z.stalled(machine{addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, 1468)
		if z.limit(machine{mac: loaderMAC}) != 512 { // it boots now and then
			t.Fatalf("a machine that is in use was forgotten after %d others", i)
		}
	}
	if len(z.by) != maxSized || z.used.Len() != maxSized {
		t.Errorf("it remembers %d machines", len(z.by))
	}
	if z.limit(machine{addr: netip.AddrFrom4([4]byte{10, 0, 0, 0})}) != 0 {
		t.Error("the oldest is not forgotten")
	}
}

func TestBlocksFitThePath(t *testing.T) {
	for _, c := range []struct{ asked, mtu, limit, want int }{
		{1468, 1500, 0, 1468}, {8192, 1500, 0, 1468}, {8192, 9000, 0, 8192}, {1468, 1420, 0, 1388}, {1468, 1500, 1024, 1024}, {1024, 1500, 1468, 1024},
		{65464, 65536, 0, 65464}, {1468, 296, 0, 512}, {0, 1500, 0, 512}, {400, 1500, 0, 512}, {512, 1500, 0, 512},
	} {
		if got := (request{blksize: c.asked}).grant(c.mtu, c.limit); got != c.want {
			t.Errorf("%+v is granted %d", c, got)
		}
	}
	mtu, source, err := pathTo(netip.MustParseAddrPort("127.0.0.1:2070"))
	if err != nil || mtu < 1500 || source != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the way on loopback is %d, %s, %v", mtu, source, err)
	}
}

// A client that asked a second address of ours is answered from there.
func TestTheAnswerComesFromTheAddressThatWasAsked(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Addr = "0.0.0.0:0"
		c.Script = func(local netip.Addr) []byte { return []byte("#!ipxe\n# " + local.String() + "\n") }
	})
	for _, asked := range []string{"127.0.0.1", "127.0.0.5"} {
		local := netip.MustParseAddr(asked)
		c := r.client()
		c.main = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, r.addr.Port()))
		got, refused := c.fetch("undionly.kpxe", "blksize", "1432", "tsize", "0")
		if !bytes.Equal(got, r.data[boot.Undionly]) {
			t.Errorf("from %s it gets %d bytes, %q", asked, len(got), refused)
		}
		if from := c.peer.AddrPort(); from.Addr().Unmap() != local || from.Port() == r.addr.Port() {
			t.Errorf("%s is answered from %s", asked, from)
		}
		if _, refused := c.fetch("nothing"); refused != "no such file" {
			t.Errorf("from %s a file that is not here is answered %q", asked, refused)
		}
		if got, _ := c.fetch("autoexec.ipxe"); string(got) != "#!ipxe\n# "+asked+"\n" {
			t.Errorf("the script for who reached us at %s is %q", asked, got)
		}
	}
	for _, e := range r.of(store.EventTFTPSent, 4) {
		if e.Addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("the event's address is %s", e.Addr)
		}
	}
}
