package load

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lunboot/services/iscsi/pdu"
)

// gathered is the answer from whose size on an Echo sends each by itself, from
// two places, instead of many in one write.
const gathered = 64 << 10

// Echo is how fast Go can be: for 48 bytes of request it gives 48 and the bytes
// of a file that were asked for, and thinks of nothing. The 48 bytes have the
// places of a SCSI Command and a Data-In, so that the same initiator measures
// an Echo and a target; there is no login, no sequence and no check. It serves
// until ctx ends.
func Echo(ctx context.Context, l net.Listener, f *os.File) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("echo: %w", err)
		}
		wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			_ = errors.Join(echo(c, f), c.Close()) // whoever measures sees it end
		})
	}
}

func echo(c net.Conn, f *os.File) error {
	in, out := bufio.NewReaderSize(c, 64<<10), make([]byte, 0, inBuffer)
	var large []byte
	var pair [2][]byte
	var both net.Buffers // WriteTo eats it up
	var h pdu.Header
	flush := func() error {
		_, err := c.Write(out)
		out = out[:0]
		return err
	}
	for stat := pdu.Serial(0); ; stat = stat.Add(1) {
		if in.Buffered() < pdu.BHSLength && len(out) > 0 {
			if err := flush(); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return err
		}
		var q pdu.SCSICommand
		if err := q.Decode(&h); err != nil {
			return err
		}
		n, off := int(q.ExpectedDataTransferLength), int64(binary.BigEndian.Uint32(q.CDB[2:]))*512
		if n > turn {
			return fmt.Errorf("%d bytes are asked for", n)
		}
		p := pdu.DataIn{Final: true, StatusFlag: true, InitiatorTaskTag: q.InitiatorTaskTag, SN: pdu.SN{StatSN: stat, MaxCmdSN: q.CmdSN.Add(1 << 10)}}
		p.Encode(&h)
		h.SetDataSegmentLength(n)
		if n >= gathered {
			if len(large) < n {
				large = make([]byte, n)
			}
			if _, err := f.ReadAt(large[:n], off); err != nil {
				return err
			}
			pair = [2][]byte{h[:], large[:n]}
			both = pair[:]
			if _, err := both.WriteTo(c); err != nil {
				return err
			}
			continue
		}
		if len(out)+pdu.BHSLength+n > cap(out) {
			if err := flush(); err != nil {
				return err
			}
		}
		out = append(out, h[:]...)
		out = out[:len(out)+n]
		if _, err := f.ReadAt(out[len(out)-n:], off); err != nil {
			return err
		}
	}
}

// Pread is what the page cache gives to one thread that does nothing else.
func Pread(path string, l Load) (r Result, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := ownCPU(unix.RUSAGE_THREAD)
	if err != nil {
		return Result{}, err
	}
	var lat Latencies
	b := make([]byte, l.Block)
	start := time.Now()
	for at := start; at.Sub(start) < l.Time; {
		if _, err := f.ReadAt(b, rand.Int64N(l.Span/int64(l.Block))*int64(l.Block)); err != nil {
			return Result{}, err
		}
		now := time.Now()
		lat.Add(now.Sub(at))
		at = now
	}
	after, err := ownCPU(unix.RUSAGE_THREAD)
	n := lat.Count()
	return Result{
		Ops: n, Bytes: n * int64(l.Block), Seconds: time.Since(start).Seconds(), P50: lat.Quantile(0.5), P99: lat.Quantile(0.99), CPU: after - before,
	}, err
}
