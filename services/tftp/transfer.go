package tftp

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pin/tftp/v3"

	"lunboot/services"
	"lunboot/services/boot"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

// Texts that clients are given; they never carry anything of ours but these.
var (
	errMissing  = errors.New("no such file")
	errStopping = errors.New("the appliance is stopping, try again")
	errInternal = errors.New("internal fault, try again")
	errReadOnly = errors.New("files are only given, not taken")
)

// progressEvery is the least time between two progress events of a transfer.
const progressEvery = time.Second

// patience is how a block that is not acknowledged is sent again: soon, because
// on a network that drops packets a client's own timer, of a second or more, is
// what makes a boot slow; then at growing distances, because a slow machine may
// need seconds. A client that was only slow sees a block twice, and its second
// ACK is passed over (RFC 1123 §4.2.3.1).
type patience struct {
	first, longest time.Duration
	retries        int
}

// usual is ten seconds and a half in all.
var usual = patience{first: 100 * time.Millisecond, longest: time.Second, retries: 13}

// gap is how long there is quiet before the n-th repeat of a block, from 0,
// without the spread.
func (p patience) gap(n int) time.Duration { return min(p.first<<min(n, 10), p.longest) }

// stuckAfter is how many repeats of the first block show that it does not arrive.
const stuckAfter = 2

// TFTP error codes that mean something to us (RFC 1350 §5, RFC 2347).
const (
	codeUndefined  = 0
	codeAccess     = 2
	codeUnknownTID = 5
	codeOptions    = 8
)

// codes are their meanings, for clients that say nothing more.
var codes = map[int]string{
	1: "file not found", codeAccess: "access violation", 3: "disk full or allocation exceeded", 4: "illegal TFTP operation",
	6: "file already exists", 7: "no such user", codeOptions: "an option was not accepted",
}

// ipxeBlksize is the block size that an iPXE asks for, by which it is known;
// firmware asks for its own (1468, 1456, 512).
const ipxeBlksize = 1432

// transfer is one request and what became of it.
type transfer struct {
	s      *Server
	ask    request
	file   string // as asked for, bounded and printable
	mac    store.MAC
	addr   netip.Addr
	begun  time.Time
	script bool        // autoexec.ipxe
	wanted boot.Loader // empty when the name stands for none

	loader  boot.Loader // empty when a script is served
	r       *bytes.Reader
	total   int64
	given   int64 // bytes handed to the library: one block ahead of what was acknowledged
	blksize int
	limited bool // blocks are smaller than the path and the client allow
	reads   int
	said    time.Time // of the last progress
	ran     bool      // the library had a socket for it

	stuck     atomic.Bool // the first block was repeated and never acknowledged
	toldStall atomic.Bool // its stall has been told
}

// newTransfer knows what a request is for.
func newTransfer(s *Server, r request) *transfer {
	t := &transfer{s: s, ask: r, file: printable(r.name), addr: r.from.Addr(), begun: s.cfg.Now(), blksize: defaultBlksize}
	t.identify(r.name)
	return t
}

// identify reads a file name: a loader's, with the machine's MAC before it or
// bare, or autoexec.ipxe in any folder, because iPXE looks for it beside itself,
// and where that is another DHCP server may have said.
func (t *transfer) identify(name string) {
	at := strings.LastIndexAny(name, `/\`)
	if dir := strings.TrimRight(name[:at+1], `/\`); name[at+1:] == boot.Autoexec {
		t.script = true
		if mac, err := store.ParseMAC(dir[strings.LastIndexAny(dir, `/\`)+1:]); err == nil {
			t.mac = mac
		}
		return
	}
	if mac, loader, err := boot.ParseLoaderPath(name); err == nil {
		t.mac, t.wanted = mac, loader
	}
}

// machine is whom the transfer is for.
func (t *transfer) machine() machine {
	if t.mac.IsZero() {
		return machine{addr: t.addr}
	}
	return machine{mac: t.mac}
}

// serve carries the transfer out, from its request to its end.
func (t *transfer) serve() {
	if t.ask.write {
		t.refuse(codeAccess, errReadOnly)
		return
	}
	for _, o := range t.s.active.before(t) {
		o.overtake()
	}
	mtu, source, err := pathTo(t.ask.from)
	if err != nil { // nothing that is sent would leave
		t.s.cfg.Log.Debug("a TFTP client cannot be answered", "addr", t.addr, "err", err)
		return
	}
	limit := t.s.sizes.limit(t.machine())
	t.blksize = t.ask.grant(mtu, limit)
	t.limited = limit != 0 && t.blksize < t.ask.grant(mtu, 0)
	client := net.UDPAddrFromAddrPort(t.ask.from)
	if t.ask.local.IsValid() && source != t.ask.local {
		c, err := newCrossing(t.ask.local, t.ask.from)
		if err != nil {
			t.s.cfg.Log.Warn("a TFTP client is answered from another address than it asked", "addr", t.addr, "asked", t.ask.local, "err", err)
		} else {
			defer c.close()
			client = c.addr()
		}
	}
	srv := tftp.NewServer(t.run, nil)
	srv.SetBlockSizeNegotiation(false) // grant has seen to it
	srv.SetTimeout(t.s.patience.first)
	srv.SetRetries(t.s.patience.retries)
	srv.SetBackoff(t.backoff)
	_ = srv.Serve(&handed{packet: t.ask.packet(t.blksize), from: client, shutdown: srv.Shutdown})
	if !t.ran {
		t.s.warn.Do(func() {
			t.s.cfg.Log.Warn("a TFTP transfer could not begin, perhaps because no more files can be open", "addr", t.addr, "file", t.file)
		})
	}
}

// handed is the socket of a library's server that has one request to serve: the
// packet comes at once, and the next read ends the server.
type handed struct {
	packet   []byte
	from     *net.UDPAddr
	shutdown func()
}

func (h *handed) ReadFrom(b []byte) (int, net.Addr, error) {
	if h.packet != nil {
		n := copy(b, h.packet)
		h.packet = nil
		return n, h.from, nil
	}
	h.shutdown() // waits for the transfer
	return 0, nil, net.ErrClosed
}

func (*handed) LocalAddr() net.Addr                   { return &net.UDPAddr{IP: net.IPv4zero} }
func (*handed) WriteTo([]byte, net.Addr) (int, error) { return 0, net.ErrClosed }
func (*handed) Close() error                          { return nil }
func (*handed) SetDeadline(time.Time) error           { return nil }
func (*handed) SetReadDeadline(time.Time) error       { return nil }
func (*handed) SetWriteDeadline(time.Time) error      { return nil }

// backoff is what the library waits beyond its time-out before it sends a block
// again. Machines that lost a packet together must not repeat theirs together.
func (t *transfer) backoff(n int) time.Duration {
	if n == stuckAfter && t.stalled() {
		t.stuck.Store(true)
	}
	p := t.s.patience
	return p.gap(n) - p.first + rand.N(p.first/4)
}

// run is the library's handler: it runs on a goroutine of its own, and what it
// returns goes to the client as the text of an ERROR packet.
func (t *transfer) run(_ string, rf io.ReaderFrom) (err error) {
	t.ran = true
	fault := services.Guard(t.s.cfg.Log, "TFTP transfer", func() error {
		err = t.send(rf)
		return nil
	})
	if fault != nil {
		err = errInternal
	}
	if t.reads == 0 && (errors.Is(err, errInternal) || errors.Is(err, errStopping)) {
		t.refuse(codeUndefined, err)
	}
	return err
}

// refuse tells a client that has heard nothing yet why it gets nothing, with a code of
// RFC 1350 §5. The library's own ERROR, whose code is "file not found" whatever the
// reason, comes after it, where the library has the request, from another port, to a
// client that has ended.
func (t *transfer) refuse(code byte, why error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(cmp.Or(t.ask.local, netip.IPv4Unspecified()), 0)))
	if err != nil {
		return // the library's says it in words
	}
	defer conn.Close()
	b := append([]byte{0, opError, 0, code}, why.Error()...)
	_, _ = conn.WriteToUDPAddrPort(append(b, 0), t.ask.from) // lost like any packet: it asks again
}

func (t *transfer) send(rf io.ReaderFrom) error {
	if t.s.stopping.Load() {
		return errStopping
	}
	data, ok := t.choose()
	if !ok {
		if t.s.missing.AllowN(t.s.cfg.Now(), 1) {
			t.s.emit(store.EventTFTPMissing, t, store.Detail{Reason: fmt.Sprintf("there is no file %q to fetch over TFTP", t.file)})
		}
		return errMissing
	}
	t.r, t.total = bytes.NewReader(data), int64(len(data))
	_, err := rf.ReadFrom(t)
	t.finish(err)
	return nil // ReadFrom has told the client already
}

// choose finds the bytes that the name stands for.
func (t *transfer) choose() ([]byte, bool) {
	s := t.s
	if t.script {
		if s.cfg.Script == nil {
			return nil, false
		}
		return s.cfg.Script(t.ask.local), true
	}
	if t.wanted == "" {
		return nil, false
	}
	if s.cfg.Script != nil && s.circles.Circling(t.road()) {
		s.cfg.Log.Info("an iPXE fetches the same loader again and again; it is given its script under that name",
			"addr", t.addr, "loader", t.wanted)
		return s.cfg.Script(t.ask.local), true
	}
	data, ok := s.cfg.Files.Open(t.wanted)
	if ok {
		t.loader = t.wanted
	}
	return data, ok
}

func (t *transfer) road() circle.Road { return circle.Road{Addr: t.addr, MAC: t.mac, Loader: t.wanted} }

// Seek lets the library learn the size for the option tsize.
func (t *transfer) Seek(offset int64, whence int) (int64, error) { return t.r.Seek(offset, whence) }

// Read gives the library its next block. The library asks for block n+1 when
// block n was acknowledged, so the second call is the first proof that the
// client takes the file.
func (t *transfer) Read(p []byte) (int, error) {
	if t.s.stopping.Load() {
		return 0, errStopping
	}
	t.reads++
	now := t.s.cfg.Now()
	switch {
	case t.reads == 1:
	case t.reads == 2:
		t.stuck.Store(false)
		t.said = now
		d := store.Detail{Total: t.total}
		if t.limited {
			d.Reason = fmt.Sprintf("in blocks of %d bytes, because larger ones never arrived", t.blksize)
		}
		t.s.emit(store.EventTFTPStart, t, d)
	case now.Sub(t.said) >= progressEvery:
		t.said = now
		t.s.emit(store.EventTFTPProgress, t, store.Detail{Bytes: t.given, Total: t.total, Millis: now.Sub(t.begun).Milliseconds()})
	}
	n, err := t.r.Read(p)
	t.given += int64(n)
	return n, err
}

// finish says how the transfer ended.
func (t *transfer) finish(err error) {
	d := store.Detail{Bytes: t.given, Total: t.total, Millis: t.s.cfg.Now().Sub(t.begun).Milliseconds()}
	if err == nil {
		switch {
		case t.loader != "" && t.ask.blksize == ipxeBlksize:
			t.s.circles.Fetched(t.road())
		case t.loader == "":
			d.Reason = "the first script was served under this name"
		}
		t.s.emit(store.EventTFTPSent, t, d)
		return
	}
	code, says, isCode := clientError(err)
	if isCode && code == codeUnknownTID {
		// The client's request came twice and it took the other answer.
		return
	}
	if t.reads == 0 && isCode && (code == codeOptions || code == codeUndefined) {
		// Firmware asks for the size, then hangs up (RFC 2347: code 8; Intel's
		// ROMs send 0), and comes back for the file.
		t.s.emit(store.EventTFTPProbe, t, store.Detail{Total: t.total})
		return
	}
	d.Bytes = t.acknowledged()
	switch {
	case t.toldStall.Load():
		return // that was told
	case !isCode && !errors.Is(err, errStopping) && t.stalled():
		t.giveUp()
		return
	case isCode:
		d.Cause, d.Reason = store.CauseGaveUp, fmt.Sprintf("the machine gave up after %d of %d bytes (TFTP error %d)%s", d.Bytes, t.total, code, says)
	case errors.Is(err, errStopping):
		d.Cause, d.Reason = store.CauseStopping, fmt.Sprintf("the appliance stopped after %d of %d bytes", d.Bytes, t.total)
	case t.reads <= 1:
		d.Cause, d.Reason = store.CauseUnacknowledged, "the machine acknowledged none of our answers, which come from another port than it asked, as TFTP has it: something on the way may let only port 69 through"
	default:
		d.Cause, d.Reason = store.CauseSilent, fmt.Sprintf("the machine stopped acknowledging after %d of %d bytes", d.Bytes, t.total)
	}
	t.s.emit(store.EventTFTPAbort, t, d)
}

// stalled reports whether the client took the options, or had none, and then
// never acknowledged a first block of full size: all that it was sent was too
// large, perhaps.
func (t *transfer) stalled() bool {
	return t.reads == 1 && !t.ask.text && t.blksize > defaultBlksize && t.total >= int64(t.blksize)
}

// giveUp remembers a stalled transfer's machine, and says so, once.
func (t *transfer) giveUp() {
	if !t.toldStall.CompareAndSwap(false, true) {
		return
	}
	reason := fmt.Sprintf("the first block, of %d bytes, was never acknowledged", t.blksize)
	if next := t.s.sizes.stalled(t.machine(), t.blksize); next != 0 {
		reason += fmt.Sprintf("; the machine is given blocks of %d bytes at its next try", next)
	}
	t.s.emit(store.EventTFTPAbort, t, store.Detail{Total: t.total, Millis: t.s.cfg.Now().Sub(t.begun).Milliseconds(), Reason: reason})
}

// overtake is called when the machine has asked for the file again. A transfer
// that is stuck by then is given up, so that the new one has smaller blocks.
func (t *transfer) overtake() {
	if t.stuck.Load() {
		t.giveUp()
	}
}

// acknowledged is what the client certainly has: all but the last block given.
func (t *transfer) acknowledged() int64 {
	if t.reads <= 1 {
		return 0
	}
	return min(int64(t.reads-1)*int64(t.blksize), t.given)
}

// clientError reads the code of the client's ERROR packet from the library's text,
// which is the only place where it stands, and what it says: its own words, or those
// of its code.
func clientError(err error) (code int, says string, ok bool) {
	var block int
	if n, _ := fmt.Sscanf(err.Error(), "sending block %d: code=%d,", &block, &code); n != 2 {
		return 0, "", false
	}
	_, text, _ := strings.Cut(err.Error(), ", error: ")
	text, _, _ = strings.Cut(text, "\x00")
	switch text = strings.TrimSpace(printable(text)); {
	case text != "":
		says = fmt.Sprintf(": it says %q", text)
	case codes[code] != "":
		says = ": " + codes[code]
	}
	return code, says, true
}

// printable bounds a text from a packet for events and logs.
func printable(name string) string {
	const most = 128
	if len(name) > most {
		name = name[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, name)
}
