package tftp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lunboot/services/boot"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

// TestMain finds goroutines that stay. Transfers to silent clients end by their
// own time-outs, which a stopped server does not wait for.
func TestMain(m *testing.M) {
	code := m.Run()
	err := goleak.Find()
	for end := time.Now().Add(15 * time.Second); err != nil && time.Now().Before(end); err = goleak.Find() {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var loaderMAC = store.MAC{0x52, 0x54, 0, 0x77, 0, 0x0a}

// rig is a running server with its events.
type rig struct {
	t    *testing.T
	s    *Server
	addr netip.AddrPort
	data map[boot.Loader][]byte
	stop func() error

	mu     sync.Mutex
	events []store.Event
}

func (r *rig) Open(name boot.Loader) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.data[name]
	return d, ok
}

// put adds a file while the server runs.
func (r *rig) put(name boot.Loader, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data[name] = data
}

func (r *rig) Emit(e store.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// of returns the events of a kind, once there are at least n of them.
func (r *rig) of(kind store.EventKind, n int) []store.Event {
	r.t.Helper()
	end := time.Now().Add(15 * time.Second)
	for {
		var out []store.Event
		r.mu.Lock()
		all := append([]store.Event(nil), r.events...)
		r.mu.Unlock()
		for _, e := range all {
			if e.Kind == kind {
				out = append(out, e)
			}
		}
		if len(out) >= n {
			return out
		}
		if time.Now().After(end) {
			r.t.Fatalf("%d events %s, want %d; the newest are %+v", len(out), kind, n, all[max(0, len(all)-20):])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	r := &rig{t: t, data: map[boot.Loader][]byte{boot.Undionly: random(74_213), boot.SNPOnly: random(173_792), boot.IPXEEFI: random(1 << 20)}}
	cfg := Config{Addr: "127.0.0.1:0", Files: r, Emit: r, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now, Drain: 2 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	r.s = New(cfg)
	r.s.patience = patience{first: usual.first, longest: 2 * usual.first, retries: 6} // not much more than a second
	if err := r.s.Listen(); err != nil {
		t.Fatal(err)
	}
	r.addr = r.s.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.s.Serve(ctx) }()
	var once sync.Once
	var err error
	r.stop = func() error {
		once.Do(func() { cancel(); err = <-served })
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func tool(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// client is a TFTP client of one transfer, at the level of packets.
type client struct {
	t    *testing.T
	conn *net.UDPConn
	peer *net.UDPAddr // the server's transfer port, once it answered
	main *net.UDPAddr

	narrow int // datagrams with more bytes never arrive; 0: all do
}

func (r *rig) client() *client {
	r.t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &client{t: r.t, conn: conn, main: net.UDPAddrFromAddrPort(r.addr)}
}

func rrq(file string, options ...string) []byte {
	b := []byte{0, 1}
	for _, s := range append([]string{file, "octet"}, options...) {
		b = append(append(b, s...), 0)
	}
	return b
}

func (c *client) send(to *net.UDPAddr, b []byte) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDP(b, to); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next packet's operation and what follows it.
func (c *client) next() (op uint16, rest []byte) {
	c.t.Helper()
	buf := make([]byte, 70_000)
	if err := c.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	for {
		n, from, err := c.conn.ReadFromUDP(buf)
		if err != nil {
			c.t.Fatalf("no answer: %v", err)
		}
		if c.narrow > 0 && n > c.narrow {
			continue
		}
		c.peer = from
		return binary.BigEndian.Uint16(buf), buf[2:n]
	}
}

func (c *client) ack(block uint16) {
	c.send(c.peer, []byte{0, 4, byte(block >> 8), byte(block)})
}

func (c *client) fail(code byte, text string) {
	c.send(c.peer, append([]byte{0, 5, 0, code}, text+"\x00"...))
}

// ask sends a read request until it is answered, as all firmware does.
func (c *client) ask(file string, options ...string) (op uint16, rest []byte) {
	c.t.Helper()
	buf := make([]byte, 70_000)
	for range 10 {
		c.send(c.main, rrq(file, options...))
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			c.t.Fatal(err)
		}
		if n, from, err := c.conn.ReadFromUDP(buf); err == nil {
			c.peer = from
			return binary.BigEndian.Uint16(buf), buf[2:n]
		}
	}
	c.t.Fatal("no answer to ten requests")
	return 0, nil
}

// fetch transfers a whole file and returns it, or the text of the ERROR packet.
func (c *client) fetch(file string, options ...string) (data []byte, refused string) {
	c.t.Helper()
	refused = c.each(file, options, func(b []byte) { data = append(data, b...) })
	return data, refused
}

// each transfers a whole file and shows its blocks, in order and once.
func (c *client) each(file string, options []string, show func([]byte)) (refused string) {
	c.t.Helper()
	size, due := 512, uint16(1)
	op, rest := c.ask(file, options...)
	from := *c.peer
	for ; ; op, rest = c.next() {
		if c.peer.Port != from.Port {
			c.peer = &from // who asked twice is answered twice, and takes one (RFC 1350 §4)
			continue
		}
		switch op {
		case 3:
			block := binary.BigEndian.Uint16(rest)
			c.ack(block)
			if block != due {
				continue // a slow machine's server sends a block again
			}
			due++
			show(rest[2:])
			if len(rest)-2 < size {
				return ""
			}
		case 5:
			return string(bytes.TrimRight(rest[2:], "\x00"))
		case 6:
			words := strings.Split(string(rest), "\x00")
			for i := 0; i+1 < len(words); i += 2 {
				if words[i] == "blksize" {
					fmt.Sscan(words[i+1], &size)
				}
			}
			c.ack(0)
		}
	}
}

func TestTFTPHPAFetchesALoader(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	for i, file := range []string{"undionly.kpxe", "/" + loaderMAC.Hex12() + "/snponly.efi"} {
		out := filepath.Join(dir, fmt.Sprint(i))
		said, err := exec.Command(tool(t, "tftp"), "-m", "binary", "127.0.0.1", fmt.Sprint(r.addr.Port()), "-c", "get", file, out).CombinedOutput()
		if err != nil {
			t.Fatalf("tftp: %v: %s", err, said)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if want := r.data[boot.Loader(file[strings.LastIndex(file, "/")+1:])]; !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d", file, len(got), len(want))
		}
	}
	sent := r.of(store.EventTFTPSent, 2)
	if sent[1].MAC != loaderMAC || sent[1].Detail.Loader != "snponly.efi" || sent[1].Detail.Bytes != 173_792 || sent[1].Addr.String() != "127.0.0.1" {
		t.Errorf("the event is %+v", sent[1])
	}
	if sent[0].MAC != (store.MAC{}) {
		t.Errorf("a bare name is taken for %s", sent[0].MAC)
	}
	r.of(store.EventTFTPStart, 2)
}

func TestCurlFetchesALoader(t *testing.T) {
	r := newRig(t)
	for _, blksize := range []string{"512", "1432", "8192"} {
		got, err := exec.Command(tool(t, "curl"), "-s", "-S", "--max-time", "30", "--tftp-blksize", blksize, "tftp://"+r.addr.String()+"/ipxe.efi").Output()
		if err != nil {
			t.Fatalf("curl: %v", err)
		}
		if !bytes.Equal(got, r.data[boot.IPXEEFI]) {
			t.Errorf("with blocks of %s bytes it gets %d bytes, want %d", blksize, len(got), len(r.data[boot.IPXEEFI]))
		}
	}
	if e := r.of(store.EventTFTPSent, 3)[1]; e.Detail.Blksize != 1432 {
		t.Errorf("the event is %+v", e)
	}
}

func TestNothingButLoadersCanBeFetched(t *testing.T) {
	r := newRig(t)
	for _, file := range []string{
		"../../etc/passwd", "/etc/passwd", "..\\..\\boot.ini", "UNDIONLY.KPXE", "undionly.kpxe/", "x/undionly.kpxe", "525400770g0a/undionly.kpxe",
		"ffffffffffff/undionly.kpxe", "525400770000/a/undionly.kpxe", "", "pxelinux.0", strings.Repeat("a", 400), "a\nb\x1b[2J", "autoexec.ipxe", "ipxe-arm64.efi",
	} {
		data, refused := r.client().fetch(file)
		if data != nil || refused != "no such file" {
			t.Errorf("%q is answered with %d bytes and %q", file, len(data), refused)
		}
	}
	for _, e := range r.of(store.EventTFTPMissing, 15) {
		if len(e.Detail.File) > 128 || strings.ContainsAny(e.Detail.File, "\n\x1b") {
			t.Errorf("the event carries the name %q", e.Detail.File)
		}
	}
	c := r.client()
	c.send(c.main, append([]byte{0, 2}, "undionly.kpxe\x00octet\x00"...))
	if op, rest := c.next(); op != 5 || string(rest) != "\x00\x02files are only given, not taken\x00" { // RFC 1350 §5: access violation
		t.Errorf("a write request is answered with operation %d, %q", op, rest)
	}
}

func TestFirmwareAsksForTheSizeAndComesBack(t *testing.T) {
	for _, code := range []byte{8, 0} {
		r := newRig(t)
		c := r.client()
		c.send(c.main, rrq(loaderMAC.Hex12()+"/snponly.efi", "tsize", "0", "blksize", "1468", "windowsize", "4"))
		op, rest := c.next()
		if op != 6 || !strings.Contains(string(rest), "tsize\x00173792\x00") || strings.Contains(string(rest), "windowsize") {
			t.Fatalf("the answer is operation %d, %q", op, rest)
		}
		c.fail(code, "User aborted the transfer")
		e := r.of(store.EventTFTPProbe, 1)[0]
		if e.MAC != loaderMAC || e.Detail.Total != 173_792 || e.Detail.Loader != "snponly.efi" {
			t.Errorf("the event is %+v", e)
		}
		data, _ := r.client().fetch(loaderMAC.Hex12()+"/snponly.efi", "blksize", "1468", "windowsize", "4")
		if !bytes.Equal(data, r.data[boot.SNPOnly]) {
			t.Errorf("it gets %d bytes", len(data))
		}
		r.of(store.EventTFTPSent, 1)
		if aborts := r.of(store.EventTFTPAbort, 0); len(aborts) != 0 {
			t.Errorf("the probe counts as a failure: %+v", aborts)
		}
	}
}

func TestAClientThatGivesUpIsAnAbort(t *testing.T) {
	r := newRig(t)
	c := r.client()
	c.send(c.main, rrq(loaderMAC.Hex12()+"/undionly.kpxe", "blksize", "1432", "tsize", "0"))
	c.next()
	c.ack(0)
	for block := range uint16(3) {
		c.next()
		if block < 2 {
			c.ack(block + 1)
		}
	}
	c.fail(3, "Disk full")
	e := r.of(store.EventTFTPAbort, 1)[0]
	if e.MAC != loaderMAC || e.Detail.Bytes != 2*1432 || e.Detail.Total != 74_213 || e.Detail.Cause != store.CauseGaveUp || e.Detail.Reason != `the machine gave up after 2864 of 74213 bytes (TFTP error 3): it says "Disk full"` {
		t.Errorf("the event is %+v", e)
	}
}

// The reason is the client's own words, bounded and without what would steer a
// terminal; where it has none, those of its code.
func TestAClientThatGivesUpIsQuoted(t *testing.T) {
	for _, c := range []struct {
		code byte
		says string
		want string
	}{
		{0, "User aborted the transfer", `(TFTP error 0): it says "User aborted the transfer"`},
		{8, "too small", `(TFTP error 8): it says "too small"`},
		{8, "", "(TFTP error 8): an option was not accepted"},
		{3, " ", "(TFTP error 3): disk full or allocation exceeded"},
		{0, "", "(TFTP error 0)"},
		{77, "", "(TFTP error 77)"},
		{0, "a\x1b[2Jb\x00c", `(TFTP error 0): it says "a?[2Jb"`},
		{0, strings.Repeat("x", 400), `(TFTP error 0): it says "` + strings.Repeat("x", 128) + `"`},
		{0, "sending block 7: code=5, error: y", `(TFTP error 0): it says "sending block 7: code=5, error: y"`},
	} {
		r := newRig(t)
		client := r.client()
		client.send(client.main, rrq(loaderMAC.Hex12()+"/undionly.kpxe"))
		client.next()
		client.ack(1)
		client.next()
		client.fail(c.code, c.says)
		if e := r.of(store.EventTFTPAbort, 1)[0]; e.Detail.Reason != "the machine gave up after 512 of 74213 bytes "+c.want {
			t.Errorf("%d %q: %s", c.code, c.says, e.Detail.Reason)
		}
	}
}

func TestAClientThatFallsSilentIsAnAbort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client()
	c.send(c.main, rrq("undionly.kpxe", "blksize", "1432"))
	c.next()
	c.ack(0)
	c.next()
	c.ack(1)
	begun := time.Now()
	for range 1 + r.s.patience.retries {
		if op, rest := c.next(); op != 3 || binary.BigEndian.Uint16(rest) != 2 {
			t.Fatalf("operation %d, %v", op, rest[:2])
		}
	}
	e := r.of(store.EventTFTPAbort, 1)[0]
	if e.Detail.Cause != store.CauseSilent || !strings.Contains(e.Detail.Reason, "stopped acknowledging after 1432 of") {
		t.Errorf("the event is %+v", e)
	}
	if d := time.Since(begun); d < 1200*time.Millisecond || d > 4*time.Second {
		t.Errorf("it was given up after %s", d)
	}
	if limit := r.s.sizes.limit(machine{addr: e.Addr}); limit != 0 {
		t.Errorf("a machine that took a block is given blocks of %d bytes", limit)
	}
}

// A firewall between that knows port 69 and no more ends like this.
func TestAClientThatHearsNothingIsAnAbort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, options := range [][]string{{"blksize", "1432", "tsize", "0"}, nil} {
		c := r.client()
		c.send(c.main, rrq(snponly, options...))
		e := r.of(store.EventTFTPAbort, i+1)[i]
		if e.MAC != loaderMAC || e.Detail.Bytes != 0 || e.Detail.Cause != store.CauseUnacknowledged || !strings.Contains(e.Detail.Reason, "acknowledged none of our answers") {
			t.Errorf("with options %q the event is %+v", options, e)
		}
	}
	if limit := r.s.sizes.limit(machine{mac: loaderMAC}); limit != 0 {
		t.Errorf("it is given blocks of %d bytes", limit)
	}
}

func TestASlowMachineIsWaitedForTenSeconds(t *testing.T) {
	all := usual.first
	for n := range usual.retries {
		all += usual.gap(n)
	}
	if all < 10*time.Second || all > 15*time.Second {
		t.Errorf("a block is given up after %s", all)
	}
	if usual.gap(0) > 200*time.Millisecond || usual.gap(1) < usual.gap(0) {
		t.Errorf("it is sent again after %s and %s", usual.gap(0), usual.gap(1))
	}
}

func TestALostBlockIsSentAgainSoon(t *testing.T) {
	r := newRig(t)
	c := r.client()
	c.send(c.main, rrq("undionly.kpxe", "blksize", "1432"))
	c.next()
	c.ack(0)
	c.next()
	begun := time.Now()
	c.next() // the first block again
	if d := time.Since(begun); d < usual.first/2 || d > 500*time.Millisecond {
		t.Errorf("it is sent again after %s", d)
	}
	// Both were there after all, and both are acknowledged (RFC 1123 §4.2.3.1): what
	// follows must come once.
	for range 2 {
		c.ack(1)
	}
	for block := uint16(2); block < 6; block++ {
		if _, rest := c.next(); binary.BigEndian.Uint16(rest) != block {
			t.Fatalf("block %d comes where %d is due", binary.BigEndian.Uint16(rest), block)
		}
		c.ack(block)
		c.ack(block)
	}
	c.fail(0, "enough")
	r.of(store.EventTFTPAbort, 1)
}

func TestARequestThatCameTwiceIsNoFailure(t *testing.T) {
	r := newRig(t)
	c := r.client()
	c.send(c.main, rrq("undionly.kpxe", "blksize", "1432", "tsize", "0"))
	c.send(c.main, rrq("undionly.kpxe", "blksize", "1432", "tsize", "0"))
	c.next()
	first := c.peer
	for {
		if c.next(); c.peer.Port != first.Port {
			break
		}
	}
	c.fail(5, "Unknown transfer ID") // RFC 1350 §4: the other transfer goes on
	c.peer = first
	c.ack(0)
	var got []byte
	for {
		op, rest := c.next()
		if op != 3 || c.peer.Port != first.Port {
			continue
		}
		got = append(got, rest[2:]...)
		c.ack(binary.BigEndian.Uint16(rest))
		if len(rest) < 1434 {
			break
		}
	}
	if !bytes.Equal(got, r.data[boot.Undionly]) {
		t.Errorf("it gets %d bytes", len(got))
	}
	r.of(store.EventTFTPSent, 1)
	if n := len(r.of(store.EventTFTPAbort, 0)); n != 0 {
		t.Errorf("%d aborts", n)
	}
}

func TestProgressIsSaidOnceASecond(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client()
	c.send(c.main, rrq("undionly.kpxe"))
	begun := time.Now()
	for {
		_, rest := c.next()
		c.ack(binary.BigEndian.Uint16(rest))
		if len(rest) < 514 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.of(store.EventTFTPSent, 1)
	progress := r.of(store.EventTFTPProgress, 1)
	if most := int(time.Since(begun)/time.Second) + 1; len(progress) > most {
		t.Errorf("%d progress events in %s", len(progress), time.Since(begun))
	}
	for i, e := range progress {
		if e.Detail.Total != 74_213 || e.Detail.Bytes <= 0 || i > 0 && e.Detail.Bytes <= progress[i-1].Detail.Bytes {
			t.Errorf("progress %d is %+v", i, e.Detail)
		}
	}
}

func TestAStormOfBrokenPacketsHarmsNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	storm := r.client()
	packets := [][]byte{
		{}, {0}, {0, 1}, {0, 9, 1}, {0, 1, 0}, {0, 1, 'a'}, {0, 3, 0, 1, 'x'}, {0, 4, 0, 1}, {0, 5, 0, 0, 0}, {0, 6, 'x', 0},
		rrq("undionly.kpxe")[:12], append(rrq("undionly.kpxe"), 'x'), rrq("undionly.kpxe", "blksize"), rrq("undionly.kpxe", "blksize", "-1"),
		rrq("undionly.kpxe", "blksize", "99999999999999999999"), rrq("undionly.kpxe", "tsize", "x"), rrq(strings.Repeat("\xff", 500)), random(1400), random(60_000),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			for _, p := range packets {
				_, _ = storm.conn.WriteToUDP(p, storm.main)
			}
		}
	}()
	other := netip.MustParseAddr("127.0.0.2")
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(other, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-done
	c := &client{t: t, conn: conn, main: storm.main}
	got, refused := c.fetch("undionly.kpxe", "blksize", "1432")
	if !bytes.Equal(got, r.data[boot.Undionly]) {
		t.Errorf("an honest client gets %d bytes, %q", len(got), refused)
	}
	if r.s.Malformed() == 0 {
		t.Error("the broken packets are not counted")
	}
}

func TestTwoHundredAndFiftySixMachinesAtOnce(t *testing.T) {
	r := newRig(t)
	want := r.data[boot.Undionly]
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			// A machine that the processors were taken from for ten seconds is given up,
			// and asks again, as firmware does.
			for try := 1; ; try++ {
				conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1+byte(i>>7), 1+byte(i&127))})
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				c := &client{t: t, conn: conn, main: net.UDPAddrFromAddrPort(r.addr)}
				at, right := 0, true
				refused := c.each(boot.LoaderPath(store.MAC{2, 0, 0, 0, 0, byte(i)}, boot.Undionly), []string{"blksize", "4096", "tsize", "0"}, func(b []byte) {
					right = right && at+len(b) <= len(want) && bytes.Equal(b, want[at:at+len(b)])
					at += len(b)
				})
				if right && strings.Contains(refused, "timeout") && try < 10 {
					t.Logf("client %d was given up after %d bytes", i, at)
					continue
				}
				if !right || at != len(want) || refused != "" {
					t.Errorf("client %d gets %d bytes, %q", i, at, refused)
				}
				return
			}
		})
	}
	most := 0
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(time.Millisecond):
			most = max(most, runtime.NumGoroutine())
		}
	}
	// One that asked again because it had to wait may have been sent it twice.
	macs := map[store.MAC]bool{}
	for n := 256; len(macs) < 256; n++ {
		for _, e := range r.of(store.EventTFTPSent, n) {
			macs[e.MAC] = true
		}
	}
	if r.s.Refused() != 0 {
		t.Errorf("%d requests were refused", r.s.Refused())
	}
	// The client, the transfer and the library's handler, and as much again of what
	// was given up a moment ago.
	if most > 6*256 {
		t.Errorf("there were %d goroutines", most)
	}
}

// enters lets a transfer of a file in, or not.
func enters(b *running, from netip.Addr, file string) *transfer {
	s := New(Config{Now: time.Now})
	t := newTransfer(s, request{from: netip.AddrPortFrom(from, 1), name: file})
	if !b.enter(t) {
		return nil
	}
	return t
}

func TestTransfersAreBounded(t *testing.T) {
	b := &New(Config{Now: time.Now}).active
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	var in []*transfer
	enter := func(from netip.Addr, file string) bool {
		tr := enters(b, from, file)
		if tr != nil {
			in = append(in, tr)
		}
		return tr != nil
	}
	// A lab of 255 machines behind one router.
	for i := range maxPerAddress {
		mac := store.MAC{2, 0, 0, 0, 1, byte(i)}
		if !enter(addr(0), boot.LoaderPath(mac, boot.SNPOnly)) {
			t.Fatalf("transfer %d of one address is refused", i)
		}
	}
	if enter(addr(0), "undionly.kpxe") {
		t.Error("one address has more than its share")
	}
	for range maxPerMachine {
		if !enter(addr(1), boot.LoaderPath(loaderMAC, boot.SNPOnly)) {
			t.Fatal("a machine that repeats its request is refused")
		}
	}
	if enter(addr(2), boot.LoaderPath(loaderMAC, boot.SNPOnly)) {
		t.Error("one machine has more than its share")
	}
	for i := len(in); i < maxTransfers; i++ {
		if !enter(addr(i), "undionly.kpxe") {
			t.Fatalf("transfer %d is refused", i)
		}
	}
	if enter(addr(maxTransfers), "undionly.kpxe") {
		t.Error("one more than the bound is let in")
	}
	b.leave(in[0])
	if !enter(addr(maxTransfers), "undionly.kpxe") {
		t.Error("a free place is not given")
	}
	for _, tr := range in[1:] {
		b.leave(tr)
	}
	if b.total() != 0 || len(b.byAddr) != 0 || len(b.of) != 0 {
		t.Errorf("it remembers %d transfers of %d addresses and %d machines", b.total(), len(b.byAddr), len(b.of))
	}
}

func TestARequestAboveTheBoundsWaitsForTheNext(t *testing.T) {
	r := newRig(t)
	var held []*client
	file := boot.LoaderPath(loaderMAC, boot.Undionly)
	for range maxPerMachine {
		c := r.client()
		c.send(c.main, rrq(file, "blksize", "1432"))
		c.next()
		held = append(held, c)
	}
	late := r.client()
	late.send(late.main, rrq(file))
	for end := time.Now().Add(5 * time.Second); r.s.Refused() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the ninth request of a machine is not counted")
		}
	}
	for _, c := range held {
		c.fail(0, "bye")
	}
	r.of(store.EventTFTPProbe, maxPerMachine)
	if err := late.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := late.conn.ReadFromUDP(make([]byte, 600)); err == nil {
		t.Errorf("it was answered with %d bytes", n)
	}
	if got, refused := late.fetch(file); !bytes.Equal(got, r.data[boot.Undionly]) {
		t.Errorf("asked again it gets %d bytes, %q", len(got), refused)
	}
}

func TestAnIPXEInALoopIsGivenItsScript(t *testing.T) {
	script := []byte("#!ipxe\nchain http://127.0.0.1/boot.ipxe\n")
	r := newRig(t, func(c *Config) {
		c.Script = func(local netip.Addr) []byte {
			if local != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("it reached us at %s", local)
			}
			return script
		}
	})
	ipxe := []string{"blksize", "1432", "tsize", "0"}
	for range circle.After {
		if got, _ := r.client().fetch("undionly.kpxe", ipxe...); !bytes.Equal(got, r.data[boot.Undionly]) {
			t.Fatal("a loader asked for by name is not served")
		}
	}
	r.of(store.EventTFTPSent, circle.After)
	if got, _ := r.client().fetch("undionly.kpxe", ipxe...); !bytes.Equal(got, script) {
		t.Errorf("the fourth request gets %d bytes, want the script", len(got))
	}
	// Another loader is another matter, and so is a machine that got a script.
	if got, _ := r.client().fetch("ipxe.efi", ipxe...); len(got) != 1<<20 {
		t.Errorf("another loader has %d bytes", len(got))
	}
	r.s.ScriptFetched(netip.MustParseAddr("::ffff:127.0.0.1"))
	if got, _ := r.client().fetch("undionly.kpxe", ipxe...); !bytes.Equal(got, r.data[boot.Undionly]) {
		t.Error("after the script was fetched the loader is not served")
	}
	if got, _ := r.client().fetch(loaderMAC.Hex12()+"/autoexec.ipxe", ipxe...); !bytes.Equal(got, script) {
		t.Errorf("autoexec.ipxe has %q", got)
	}
	// What a foreign DHCP server names as the loader's folder is not known here.
	for _, file := range []string{"autoexec.ipxe", "/autoexec.ipxe", "//autoexec.ipxe", "x/autoexec.ipxe", "/boot/x86/autoexec.ipxe", `boot\x86\autoexec.ipxe`, "525400770g0a/autoexec.ipxe"} {
		if got, _ := r.client().fetch(file, ipxe...); !bytes.Equal(got, script) {
			t.Errorf("%s has %q", file, got)
		}
	}
	for _, e := range r.of(store.EventTFTPSent, 0) {
		if folder := strings.HasPrefix(e.Detail.File, loaderMAC.Hex12()); folder != (e.MAC == loaderMAC) || !folder && !e.MAC.IsZero() {
			t.Errorf("%s is taken for %s", e.Detail.File, e.MAC)
		}
	}
	// Blocks that were made smaller do not hide an iPXE.
	r.s.sizes.stalled(machine{mac: loaderMAC}, 1432)
	for range circle.After {
		if got, _ := r.client().fetch(snponly, ipxe...); !bytes.Equal(got, r.data[boot.SNPOnly]) {
			t.Fatal("a loader asked for by name is not served in small blocks")
		}
	}
	loop := circle.Road{Addr: netip.MustParseAddr("127.0.0.1"), MAC: loaderMAC, Loader: boot.SNPOnly}
	for end := time.Now().Add(5 * time.Second); !r.s.circles.Circling(loop) && time.Now().Before(end); { // the last ACK may still be on its way
		time.Sleep(time.Millisecond)
	}
	if got, _ := r.client().fetch(snponly, ipxe...); !bytes.Equal(got, script) {
		t.Errorf("in small blocks the fourth request gets %d bytes, want the script", len(got))
	}
	if _, refused := r.client().fetch("pxelinux.0", ipxe...); refused != "no such file" {
		t.Errorf("a file that is not here is answered %q", refused)
	}
}

func TestStoppingIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Drain = 300 * time.Millisecond })
	c := r.client()
	c.send(c.main, rrq("ipxe.efi", "blksize", "512"))
	c.next()
	c.ack(0)
	ended := make(chan string, 1)
	go func() { // a slow client, which would need minutes
		for {
			buf := make([]byte, 600)
			n, from, err := c.conn.ReadFromUDP(buf)
			if err != nil {
				ended <- err.Error()
				return
			}
			if buf[1] == 5 {
				ended <- string(buf[4 : n-1])
				return
			}
			time.Sleep(50 * time.Millisecond)
			_, _ = c.conn.WriteToUDP([]byte{0, 4, buf[2], buf[3]}, from)
		}
	}()
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("stopping took %s", d)
	}
	if said := <-ended; !strings.Contains(said, "stopping") {
		t.Errorf("the client is told %q", said)
	}
	if e := r.of(store.EventTFTPAbort, 1)[0]; e.Detail.Cause != store.CauseStopping || !strings.Contains(e.Detail.Reason, "the appliance stopped") {
		t.Errorf("the event is %+v", e)
	}
	if err := r.s.Listen(); err != nil {
		t.Fatalf("it cannot listen again: %v", err)
	}
	again, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.s.Serve(again) }()
	r.addr = r.s.Addr()
	if got, _ := r.client().fetch("undionly.kpxe"); !bytes.Equal(got, r.data[boot.Undionly]) {
		t.Error("after a restart nothing is served")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestAPortThatIsTakenIsNamedWithItsHolder(t *testing.T) {
	r := newRig(t)
	err := New(Config{Addr: r.addr.String(), Files: r, Emit: r, Now: time.Now}).Listen()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) || !strings.Contains(err.Error(), "--tftp") {
		t.Errorf("the error is %v", err)
	}
}

func TestAFaultEndsOneTransfer(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Script = func(netip.Addr) []byte { panic("broken") } })
	if _, refused := r.client().fetch("autoexec.ipxe"); refused != "internal fault, try again" {
		t.Errorf("it is answered %q", refused)
	}
	if got, _ := r.client().fetch("undionly.kpxe"); len(got) == 0 {
		t.Error("the next transfer fails")
	}
}

// RFC 1350 §5: 1 is a file that is not there, which firmware does not ask for again,
// 0 everything that has no code of its own.
func TestOnlyAFileThatIsMissingIsCalledSo(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Script = func(netip.Addr) []byte { panic("broken") } })
	refused := func(file, text string, code byte) {
		t.Helper()
		op, rest := r.client().ask(file)
		if op != 5 || rest[0] != 0 || rest[1] != code || !strings.HasPrefix(string(rest[2:]), text) {
			t.Errorf("%s is answered with packet %d: %q, want an ERROR of code %d", file, op, rest, code)
		}
	}
	refused("pxelinux.0", "no such file", 1)
	refused("autoexec.ipxe", "internal fault", 0)
	r.s.stopping.Store(true)
	refused("undionly.kpxe", "the appliance is stopping", 0)
	r.s.stopping.Store(false)
}

func FuzzLoaderPath(f *testing.F) {
	for _, s := range []string{"undionly.kpxe", "/525400770009/snponly.efi", "../x", "autoexec.ipxe", "00:11/undionly.kpxe", "\x00", "525400770009/autoexec.ipxe"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		opened := boot.Loader("")
		s := New(Config{Files: opener(func(l boot.Loader) { opened = l }), Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Script: func(netip.Addr) []byte { return []byte("#!ipxe\n") }})
		tr := newTransfer(s, request{name: name})
		_, ok := tr.choose()
		if !ok {
			return
		}
		want := "/" + string(opened)
		if opened == "" {
			want, name = "/"+boot.Autoexec, strings.ReplaceAll(name, `\`, "/")
		} else if _, err := boot.ParseLoader(string(opened)); err != nil {
			t.Fatalf("%q opens %q", name, opened)
		}
		// A slash too many, and a backslash for one, are a shim's.
		plain := strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }), "/")
		if !strings.HasSuffix("/"+plain, want) {
			t.Fatalf("%q opens %q", name, want)
		}
	})
}

type opener func(boot.Loader)

func (o opener) Open(l boot.Loader) ([]byte, bool) { o(l); return []byte("x"), true }
