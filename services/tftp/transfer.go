package tftp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/pin/tftp/v3"

	"lunboot/services"
	"lunboot/services/boot"
	"lunboot/store"
)

// Texts that clients are given; they never carry anything of ours but these.
var (
	errMissing  = errors.New("no such file")
	errBusy     = errors.New("too many transfers, try again")
	errStopping = errors.New("the appliance is stopping, try again")
	errInternal = errors.New("internal fault, try again")
)

// autoexec is the file that an iPXE of 2021 and later looks for beside itself.
const autoexec = "autoexec.ipxe"

// progressEvery is the least time between two progress events of a transfer.
const progressEvery = time.Second

// TFTP error codes that mean something to us (RFC 1350 §5, RFC 2347).
const (
	codeUndefined  = 0
	codeUnknownTID = 5
	codeOptions    = 8
)

// transfer is one read request and what became of it.
type transfer struct {
	s      *Server
	file   string // as asked for, bounded and printable
	mac    store.MAC
	loader boot.Loader // empty when a script is served
	addr   netip.Addr
	begun  time.Time

	r       *bytes.Reader
	total   int64
	given   int64 // bytes handed to the library: one block ahead of what was acknowledged
	blksize int
	reads   int
	said    time.Time // of the last progress
}

// read is the library's handler: it runs on a goroutine of its own, and what it
// returns goes to the client as the text of an ERROR packet.
func (s *Server) read(name string, rf io.ReaderFrom) (err error) {
	fault := services.Guard(s.cfg.Log, "TFTP transfer", func() error {
		err = s.transfer(name, rf)
		return nil
	})
	if fault != nil {
		return errInternal
	}
	return err
}

func (s *Server) transfer(name string, rf io.ReaderFrom) error {
	out, ok := rf.(tftp.OutgoingTransfer)
	if !ok {
		return errInternal
	}
	remote := out.RemoteAddr()
	addr, _ := netip.AddrFromSlice(remote.IP)
	addr = addr.Unmap()
	if s.stopping.Load() {
		return errStopping
	}
	if !s.active.enter(addr) {
		s.refused.Add(1)
		return errBusy
	}
	defer s.active.leave(addr)

	t := &transfer{s: s, addr: addr, begun: s.cfg.Now(), file: printable(name)}
	data, ok := t.choose(name, localAddr(rf))
	if !ok {
		if s.missing.AllowN(s.cfg.Now(), 1) {
			s.emit(store.EventTFTPMissing, t, store.Detail{Reason: fmt.Sprintf("there is no file %q to fetch over TFTP", t.file)})
		}
		return errMissing
	}
	t.r, t.total = bytes.NewReader(data), int64(len(data))
	_, err := rf.ReadFrom(t)
	t.finish(err)
	return nil // ReadFrom has told the client already
}

// choose finds the bytes that a name stands for.
func (t *transfer) choose(name string, local netip.Addr) ([]byte, bool) {
	s := t.s
	if dir, file := path.Split(strings.TrimPrefix(name, "/")); file == autoexec && s.cfg.Script != nil {
		if mac, err := store.ParseMAC(strings.TrimSuffix(dir, "/")); err == nil {
			t.mac = mac
		} else if dir != "" {
			return nil, false
		}
		return s.cfg.Script(local), true
	}
	mac, loader, err := boot.ParseLoaderPath(name)
	if err != nil {
		return nil, false
	}
	t.mac = mac
	if s.cfg.Script != nil && s.loops.looping(t.addr, loader) {
		s.cfg.Log.Info("an iPXE fetches the same loader again and again; it is given its script under that name",
			"addr", t.addr, "loader", loader)
		return s.cfg.Script(local), true
	}
	data, ok := s.cfg.Files.Open(loader)
	if ok {
		t.loader = loader
	}
	return data, ok
}

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
		t.blksize = len(p)
	case t.reads == 2:
		t.said = now
		t.s.emit(store.EventTFTPStart, t, store.Detail{Total: t.total})
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
		if t.loader != "" {
			t.s.loops.fetched(t.addr, t.loader, t.blksize)
		} else {
			d.Reason = "the first script was served under this name"
		}
		t.s.emit(store.EventTFTPSent, t, d)
		return
	}
	code, isCode := errorCode(err)
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
	case isCode:
		d.Reason = fmt.Sprintf("the machine gave up after %d of %d bytes (TFTP error %d)", d.Bytes, t.total, code)
	case errors.Is(err, errStopping):
		d.Reason = fmt.Sprintf("the appliance stopped after %d of %d bytes", d.Bytes, t.total)
	default:
		d.Reason = fmt.Sprintf("the machine stopped acknowledging after %d of %d bytes", d.Bytes, t.total)
	}
	t.s.emit(store.EventTFTPAbort, t, d)
}

// acknowledged is what the client certainly has: all but the last block given.
func (t *transfer) acknowledged() int64 {
	if t.reads <= 1 {
		return 0
	}
	return min(int64(t.reads-1)*int64(t.blksize), t.given)
}

// errorCode reads the code of the client's ERROR packet from the library's
// text, which is the only place where it stands.
func errorCode(err error) (code int, ok bool) {
	var block int
	n, _ := fmt.Sscanf(err.Error(), "sending block %d: code=%d,", &block, &code)
	return code, n == 2
}

// localAddr is the address of ours that the request came to.
func localAddr(rf io.ReaderFrom) netip.Addr {
	info, ok := rf.(tftp.RequestPacketInfo)
	if !ok {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(info.LocalIP())
	return a.Unmap()
}

// printable bounds a name from a packet for events and logs.
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
