package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"lunboot/services/iscsi/pdu"
)

// small is a target for the initiator's tests: strict with what it gets, and as
// odd in what it sends as a test wants.
type small struct {
	keys    []string // its answers at login, in pairs
	segment int      // of its Data-In
	burst   int      // of its R2Ts
	window  int      // commands that it takes beyond the one it expects
	torn    int      // it sends so many bytes at a time
	pings   bool     // it wants a NOP-In answered before each status
	twist   func(h *pdu.Header, data []byte) (again int)

	mu     sync.Mutex
	volume []byte
	errs   []error
}

func (t *small) start(tb testing.TB) Target {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s := &smallSession{small: t, conn: c, in: bufio.NewReader(c), stat: 7, tasks: map[pdu.TaskTag]*smallTask{}}
				if err := errors.Join(s.serve(), c.Close()); err != nil {
					t.mu.Lock()
					t.errs = append(t.errs, err)
					t.mu.Unlock()
				}
			})
		}
	})
	tb.Cleanup(func() { l.Close(); wg.Wait() })
	return Target{Portal: l.Addr().String(), Name: "iqn.2026-11.test:small", LUN: 3}
}

// complaint is what the target found wrong with the initiator.
func (t *small) complaint() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.errs...)
}

type smallTask struct {
	off, length, got int
	sn               pdu.Serial
	end              int // of the data that is due
	ttt              pdu.TaskTag
	r2ts             pdu.Serial
}

type smallSession struct {
	*small
	conn    net.Conn
	in      *bufio.Reader
	stat    pdu.Serial
	cmdSN   pdu.Serial // expected
	digests bool
	full    bool
	tasks   map[pdu.TaskTag]*smallTask
	owed    []pdu.TaskTag // statuses that wait for a NOP-Out
}

func (s *smallSession) serve() error {
	for {
		var h pdu.Header
		if _, err := io.ReadFull(s.in, h[:]); err != nil {
			if err == io.EOF && s.full { // an initiator that found what it looked for
				return nil
			}
			return err
		}
		if err := s.check(h[:]); err != nil {
			return err
		}
		data := make([]byte, h.DataSegmentLength()+pdu.Pad(h.DataSegmentLength()))
		if _, err := io.ReadFull(s.in, data); err != nil {
			return err
		}
		if len(data) > 0 {
			if err := s.check(data); err != nil {
				return err
			}
		}
		data = data[:h.DataSegmentLength()]
		done, err := s.act(&h, data)
		if err != nil || done {
			return err
		}
	}
}

func (s *smallSession) check(b []byte) error {
	if !s.digests {
		return nil
	}
	var d [4]byte
	if _, err := io.ReadFull(s.in, d[:]); err != nil {
		return err
	}
	if pdu.ReadDigest(d[:]) != pdu.Digest(b) {
		return errors.New("the initiator's digest is wrong")
	}
	return nil
}

func (s *smallSession) sn() pdu.SN {
	return pdu.SN{StatSN: s.stat, ExpCmdSN: s.cmdSN, MaxCmdSN: s.cmdSN.Add(s.window)}
}

// send sends a PDU, twisted as the test wants.
func (s *smallSession) send(p pdu.PDU, data []byte) error {
	var h pdu.Header
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	data = append([]byte(nil), data...)
	again := 0
	if s.twist != nil && s.full {
		again = s.twist(&h, data)
	}
	if n := h.DataSegmentLength(); n < len(data) {
		data = data[:n]
	}
	for range again + 1 {
		b := append([]byte(nil), h[:]...)
		if s.digests {
			b = pdu.AppendDigest(b, pdu.Digest(h[:]))
		}
		if len(data) > 0 {
			b = append(append(b, data...), make([]byte, pdu.Pad(len(data)))...)
			if s.digests {
				b = pdu.AppendDigest(b, pdu.Digest(data))
			}
		}
		for len(b) > 0 {
			n := len(b)
			if s.torn > 0 && s.full {
				n = min(n, s.torn)
			}
			if _, err := s.conn.Write(b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
	}
	return nil
}

func (s *smallSession) act(h *pdu.Header, data []byte) (done bool, err error) {
	switch h.Opcode() {
	case pdu.OpLoginRequest:
		var q pdu.LoginRequest
		if err := q.Decode(h); err != nil {
			return false, err
		}
		s.cmdSN = q.CmdSN
		r := pdu.LoginResponse{Transit: true, CSG: q.CSG, NSG: q.NSG, ISID: q.ISID, InitiatorTaskTag: q.InitiatorTaskTag, SN: s.sn()}
		s.stat++
		var text []byte
		if q.CSG == pdu.OperationalNegotiation {
			for k := 0; k < len(s.keys); k += 2 {
				text = pdu.AppendText(text, s.keys[k], s.keys[k+1])
			}
		}
		err := s.send(&r, text)
		if q.NSG == pdu.FullFeaturePhase {
			s.full = true
			for k := 0; k < len(s.keys); k += 2 {
				s.digests = s.digests || s.keys[k] == "DataDigest" && s.keys[k+1] == "CRC32C"
			}
		}
		return false, err
	case pdu.OpLogoutRequest:
		r := pdu.LogoutResponse{InitiatorTaskTag: h.InitiatorTaskTag(), SN: s.sn()}
		return true, s.send(&r, nil)
	case pdu.OpNOPOut:
		var q pdu.NOPOut
		if err := q.Decode(h); err != nil {
			return false, err
		}
		if q.TargetTransferTag != 77 || len(s.owed) == 0 {
			return false, fmt.Errorf("a NOP-Out that nobody asked for: %+v", q)
		}
		tag := s.owed[0]
		s.owed = s.owed[1:]
		return false, s.status(tag)
	case pdu.OpSCSICommand:
		var q pdu.SCSICommand
		if err := q.Decode(h); err != nil {
			return false, err
		}
		return false, s.command(&q, data)
	case pdu.OpDataOut:
		var q pdu.DataOut
		if err := q.Decode(h); err != nil {
			return false, err
		}
		return false, s.dataOut(&q, data)
	}
	return false, fmt.Errorf("the initiator sent %s", h.Opcode())
}

func (s *smallSession) command(q *pdu.SCSICommand, data []byte) error {
	if q.CmdSN != s.cmdSN || q.LUN != (pdu.LUN{0, 3}) || len(s.tasks) > s.window {
		return fmt.Errorf("a command with CmdSN %d, %d is next; LUN %v; %d are in flight", q.CmdSN, s.cmdSN, q.LUN, len(s.tasks))
	}
	s.cmdSN = s.cmdSN.Add(1)
	if q.CDB[0] == 0 {
		return s.finish(q.InitiatorTaskTag)
	}
	t := &smallTask{off: int(binary.BigEndian.Uint32(q.CDB[2:])) * 512, length: int(binary.BigEndian.Uint16(q.CDB[7:])) * 512, ttt: pdu.ReservedTag}
	if t.length != int(q.ExpectedDataTransferLength) || t.off+t.length > len(s.volume) {
		return fmt.Errorf("%d bytes at %d, %d are expected", t.length, t.off, q.ExpectedDataTransferLength)
	}
	s.tasks[q.InitiatorTaskTag] = t
	if q.Read {
		for t.got < t.length {
			n := min(s.segment, t.length-t.got)
			p := pdu.DataIn{Final: t.got+n == t.length, InitiatorTaskTag: q.InitiatorTaskTag, SN: s.sn(), DataSN: t.sn, BufferOffset: uint32(t.got)}
			s.mu.Lock()
			part := append([]byte(nil), s.volume[t.off+t.got:t.off+t.got+n]...)
			s.mu.Unlock()
			t.got, t.sn = t.got+n, t.sn.Add(1)
			if p.Final && t.sn%2 == 0 && !s.pings { // now in the Data-In, now by itself
				p.StatusFlag = true
				s.stat++
				delete(s.tasks, q.InitiatorTaskTag)
				p.SN.MaxCmdSN = s.cmdSN.Add(s.window - len(s.tasks))
				if err := s.send(&p, part); err != nil {
					return err
				}
				return nil
			}
			if err := s.send(&p, part); err != nil {
				return err
			}
		}
		return s.finish(q.InitiatorTaskTag)
	}
	s.store(t, data)
	if !q.Final {
		t.end = t.length // at most; F ends it
		return nil
	}
	return s.next(q.InitiatorTaskTag, t)
}

func (s *smallSession) store(t *smallTask, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.volume[t.off+t.got:], data)
	t.got += len(data)
}

// next asks for more data, or ends the write.
func (s *smallSession) next(tag pdu.TaskTag, t *smallTask) error {
	if t.got == t.length {
		return s.finish(tag)
	}
	n := min(s.burst, t.length-t.got)
	t.ttt, t.end, t.sn = 100+tag, t.got+n, 0
	p := pdu.R2T{InitiatorTaskTag: tag, TargetTransferTag: t.ttt, SN: s.sn(), R2TSN: t.r2ts, BufferOffset: uint32(t.got), DesiredDataTransferLength: uint32(n), LUN: pdu.LUN{0, 3}}
	t.r2ts++
	return s.send(&p, nil)
}

func (s *smallSession) dataOut(q *pdu.DataOut, data []byte) error {
	t := s.tasks[q.InitiatorTaskTag]
	if t == nil || q.TargetTransferTag != t.ttt || q.DataSN != t.sn || int(q.BufferOffset) != t.got || t.got+len(data) > t.end || len(data) == 0 {
		return fmt.Errorf("a Data-Out of %d bytes that does not fit: %+v, %+v", len(data), q, t)
	}
	s.store(t, data)
	t.sn++
	if t.ttt != pdu.ReservedTag && q.Final != (t.got == t.end) {
		return fmt.Errorf("F is %v after %d of %d bytes", q.Final, t.got, t.end)
	}
	if !q.Final {
		return nil
	}
	return s.next(q.InitiatorTaskTag, t)
}

// finish gives a status, or has the session prove first that it lives.
func (s *smallSession) finish(tag pdu.TaskTag) error {
	if !s.pings || s.tasks[tag] == nil {
		return s.status(tag)
	}
	s.owed = append(s.owed, tag)
	return s.send(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 77, SN: s.sn()}, nil)
}

func (s *smallSession) status(tag pdu.TaskTag) error {
	delete(s.tasks, tag)
	r := pdu.SCSIResponse{InitiatorTaskTag: tag, SN: s.sn()}
	r.SN.MaxCmdSN = s.cmdSN.Add(s.window - len(s.tasks))
	s.stat++
	return s.send(&r, nil)
}
