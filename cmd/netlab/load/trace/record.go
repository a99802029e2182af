package trace

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"lunboot/services/iscsi/pdu"
)

// Recorder stands between one machine and its target. It hands every PDU on as
// it is and notes the commands that move blocks; what else an initiator asks,
// such as INQUIRY, is counted and left out.
type Recorder struct {
	// Dial opens a connection to the target.
	Dial func(context.Context) (net.Conn, error)

	mu     sync.Mutex
	begin  time.Time
	steps  []noted
	newest *passage
	other  int
	err    error
}

type noted struct {
	Step
	good bool
}

// passage is one connection through a recorder.
type passage struct {
	r       *Recorder
	segment int
	flight  map[pdu.TaskTag]int // the step of a task; -1: one that is left out
}

// defaultSegment is what MaxRecvDataSegmentLength is when nobody speaks of it
// (RFC 7143 §13.12).
const defaultSegment = 8192

// Serve passes connections on until ctx ends.
func (r *Recorder) Serve(ctx context.Context, l net.Listener) error {
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
			return fmt.Errorf("recorder: %w", err)
		}
		wg.Go(func() {
			if err := r.pass(ctx, c); err != nil && ctx.Err() == nil {
				r.fail(err)
			}
		})
	}
}

// pass connects a machine with the target until either has enough.
func (r *Recorder) pass(ctx context.Context, machine net.Conn) error {
	defer machine.Close()
	target, err := r.Dial(ctx)
	if err != nil {
		return err
	}
	defer target.Close()
	defer context.AfterFunc(ctx, func() { _ = machine.Close(); _ = target.Close() })()
	p := &passage{r: r, segment: defaultSegment, flight: map[pdu.TaskTag]int{}}
	answers := make(chan error, 1)
	go func() {
		err := relay(machine, target, p.answer)
		_ = machine.Close() // ends the other way too
		answers <- err
	}()
	err = relay(target, machine, p.request)
	_ = target.Close()
	return errors.Join(err, <-answers)
}

// relay hands PDUs on. look sees each before its receiver does, so that what is
// in flight is what the machine itself thinks. A side that goes away is no error.
func relay(to, from net.Conn, look func(h *pdu.Header, data []byte) error) error {
	in, out := bufio.NewReaderSize(from, 64<<10), bufio.NewWriterSize(to, 64<<10)
	var rest []byte
	for {
		var h pdu.Header
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return nil
		}
		n := h.DataSegmentLength()
		whole := h.AHSLength() + n + pdu.Pad(n)
		if cap(rest) < whole {
			rest = make([]byte, whole)
		}
		rest = rest[:whole]
		if _, err := io.ReadFull(in, rest); err != nil {
			return nil
		}
		if err := look(&h, rest[h.AHSLength():][:n]); err != nil {
			return err
		}
		_, _ = out.Write(h[:]) // Flush returns the error of them all
		_, _ = out.Write(rest)
		if err := out.Flush(); err != nil {
			return nil
		}
	}
}

// request notes what the machine asks.
func (p *passage) request(h *pdu.Header, data []byte) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	switch h.Opcode() {
	case pdu.OpLoginRequest:
		pairs, err := pdu.ParseText(data)
		for _, pair := range pairs {
			if pair.Key == "MaxRecvDataSegmentLength" {
				if _, err := fmt.Sscan(pair.Value, &p.segment); err != nil {
					return fmt.Errorf("recorder: a login declares MaxRecvDataSegmentLength=%q", pair.Value)
				}
			}
		}
		return err
	case pdu.OpSCSICommand:
		var q pdu.SCSICommand
		if err := q.Decode(h); err != nil {
			return err
		}
		return p.command(&q)
	}
	return nil
}

func (p *passage) command(q *pdu.SCSICommand) error {
	s, ok := parse(q.CDB[:])
	if !ok {
		p.flight[q.InitiatorTaskTag] = -1
		p.r.other++
		return nil
	}
	if p.r.newest != p {
		return errors.New("recorder: a machine uses a session although it has logged in again: a trace cannot tell that")
	}
	s.At, s.Depth = time.Since(p.r.begin), 1
	for _, k := range p.flight {
		if k >= 0 {
			s.Depth++
		}
	}
	p.flight[q.InitiatorTaskTag] = len(p.r.steps)
	p.r.steps = append(p.r.steps, noted{Step: s})
	return nil
}

// answer notes what ends.
func (p *passage) answer(h *pdu.Header, data []byte) error {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	switch h.Opcode() {
	case pdu.OpLoginResponse:
		var a pdu.LoginResponse
		if err := a.Decode(h); err != nil {
			return err
		}
		pairs, err := pdu.ParseText(data)
		for _, pair := range pairs {
			if (pair.Key == "HeaderDigest" || pair.Key == "DataDigest") && pair.Value != "None" {
				return fmt.Errorf("recorder: the session has %s=%s: it is recorded without digests", pair.Key, pair.Value)
			}
		}
		if a.Status == pdu.LoginSuccess && a.Transit && a.NSG == pdu.FullFeaturePhase {
			if p.r.begin.IsZero() {
				p.r.begin = time.Now()
			}
			p.r.newest = p
			p.r.steps = append(p.r.steps, noted{Step{At: time.Since(p.r.begin), Op: Login, Segment: p.segment}, true})
		}
		return err
	case pdu.OpDataIn:
		var d pdu.DataIn
		if err := d.Decode(h); err != nil {
			return err
		}
		if d.StatusFlag {
			p.end(d.InitiatorTaskTag, d.Status == 0)
		}
	case pdu.OpSCSIResponse:
		var a pdu.SCSIResponse
		if err := a.Decode(h); err != nil {
			return err
		}
		p.end(a.InitiatorTaskTag, a.Response == pdu.ResponseCompleted && a.Status == 0)
	}
	return nil
}

func (p *passage) end(tag pdu.TaskTag, good bool) {
	if k, ok := p.flight[tag]; ok && k >= 0 {
		p.r.steps[k].good = good
	}
	delete(p.flight, tag)
}

func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// Trace is what was recorded of a volume. Commands that had no good answer, such
// as the first of a session, which is told of a reset, are left out: whoever
// sends them tries again. Other is how many commands moved no blocks.
func (r *Recorder) Trace(size int64, block int) (t *Trace, other int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = &Trace{Size: size, BlockSize: block}
	for _, s := range r.steps {
		if s.good {
			t.Steps = append(t.Steps, s.Step)
		}
	}
	return t, r.other, errors.Join(r.err, t.check())
}

// parse reads the commands that move blocks (SBC-4 §5).
func parse(cdb []byte) (s Step, ok bool) {
	switch cdb[0] {
	case 0x08, 0x28, 0xa8, 0x88:
		s.Op = Read
	case 0x0a, 0x2a, 0xaa, 0x8a:
		s.Op = Write
	case 0x35, 0x91:
		s.Op = Flush
	default:
		return s, false
	}
	switch cdb[0] >> 5 {
	case 0: // 6 bytes: 21 bits of address, and no blocks are 256
		s.Block, s.Blocks = int64(binary.BigEndian.Uint32(cdb)&0x1fffff), int(cdb[4])
		if s.Blocks == 0 {
			s.Blocks = 256
		}
	case 1: // 10
		s.Block, s.Blocks = int64(binary.BigEndian.Uint32(cdb[2:])), int(binary.BigEndian.Uint16(cdb[7:]))
	case 5: // 12
		s.Block, s.Blocks = int64(binary.BigEndian.Uint32(cdb[2:])), int(binary.BigEndian.Uint32(cdb[6:]))
	case 4: // 16
		s.Block, s.Blocks = int64(binary.BigEndian.Uint64(cdb[2:])), int(binary.BigEndian.Uint32(cdb[10:]))
	}
	return s, s.Op == Flush || s.Blocks > 0
}
