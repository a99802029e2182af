// Package load puts iSCSI targets under load and measures them from outside: a
// small initiator that keeps commands in flight, latencies, and the CPU time of
// the target's process. It knows the wire by services/iscsi/pdu and nothing of
// the target's code, so that one generator measures every target alike.
package load

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"lunboot/services/iscsi/pdu"
)

// What the initiator declares and offers. The target's answers decide.
const (
	segment    = 256 << 10 // MaxRecvDataSegmentLength, FirstBurstLength
	burst      = 1 << 20   // MaxBurstLength
	ioDeadline = 30 * time.Second
)

// Target is where the load goes.
type Target struct {
	Portal string // host:port
	Name   string // the target's iSCSI name
	LUN    byte
}

// Load is one kind of load.
type Load struct {
	Initiator  string // iSCSI name
	Sessions   int
	Depth      int // commands in flight of each session
	Block      int // bytes of a command
	Write      bool
	Sequential bool
	Digests    bool // CRC32C of headers and data
	Span       int64
	Time       time.Duration
}

// session is one logged-in connection.
type session struct {
	conn  net.Conn
	in    *bufio.Reader
	out   *bufio.Writer
	cmdSN pdu.Serial
	stat  pdu.Serial // the next StatSN

	digests   bool
	immediate bool
	noR2T     bool // unsolicited data is allowed
	sendMax   int  // the target's MaxRecvDataSegmentLength
	first     int  // FirstBurstLength

	hdr  pdu.Header
	skip []byte
}

// login opens a session. The number makes its ISID.
func login(t Target, initiator string, number int, digests bool) (*session, error) {
	conn, err := net.DialTimeout("tcp", t.Portal, 5*time.Second)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10), cmdSN: 1, skip: make([]byte, segment)}
	if err := s.lead(t, initiator, number, digests); err != nil {
		return nil, errors.Join(fmt.Errorf("log in to %s: %w", t.Portal, err), conn.Close())
	}
	return s, nil
}

// lead is the login itself, without authentication.
func (s *session) lead(t Target, initiator string, number int, digests bool) error {
	if err := s.conn.SetDeadline(time.Now().Add(ioDeadline)); err != nil {
		return err
	}
	digest := "None"
	if digests {
		digest = "CRC32C"
	}
	q := pdu.LoginRequest{
		Transit: true, ISID: pdu.ISID{0x80, 0, 0, byte(number >> 16), byte(number >> 8), byte(number)},
		CID: 1, CmdSN: s.cmdSN, InitiatorTaskTag: 1,
	}
	keys := map[string]string{}
	err := s.stage(&q, pdu.SecurityNegotiation, pdu.OperationalNegotiation, keys,
		"InitiatorName", initiator, "SessionType", "Normal", "TargetName", t.Name, "AuthMethod", "None")
	if err != nil {
		return err
	}
	err = s.stage(&q, pdu.OperationalNegotiation, pdu.FullFeaturePhase, keys,
		"HeaderDigest", digest, "DataDigest", digest, "MaxRecvDataSegmentLength", fmt.Sprint(segment),
		"FirstBurstLength", fmt.Sprint(segment), "MaxBurstLength", fmt.Sprint(burst),
		"InitialR2T", "No", "ImmediateData", "Yes", "MaxOutstandingR2T", "8", "ErrorRecoveryLevel", "0",
		"DefaultTime2Wait", "2", "DefaultTime2Retain", "0", "MaxConnections", "1")
	if err != nil {
		return err
	}
	s.digests = keys["HeaderDigest"] == "CRC32C" && keys["DataDigest"] == "CRC32C"
	if s.digests != digests {
		return fmt.Errorf("digests were asked for (%v), the target says HeaderDigest=%q, DataDigest=%q", digests, keys["HeaderDigest"], keys["DataDigest"])
	}
	s.immediate, s.noR2T = keys["ImmediateData"] != "No", keys["InitialR2T"] == "No"
	s.sendMax, s.first = number64(keys["MaxRecvDataSegmentLength"], 8192), number64(keys["FirstBurstLength"], 65536)
	s.sendMax, s.first = min(s.sendMax, segment), min(s.first, segment)
	return s.conn.SetDeadline(time.Time{})
}

func number64(s string, missing int) int {
	n := missing
	if _, err := fmt.Sscan(s, &n); err != nil || n <= 0 {
		return missing
	}
	return n
}

// stage offers keys, given in pairs, until the target agrees to the next stage.
func (s *session) stage(q *pdu.LoginRequest, from, to pdu.Stage, keys map[string]string, offer ...string) error {
	var text []byte
	for k := 0; k < len(offer); k += 2 {
		text = pdu.AppendText(text, offer[k], offer[k+1])
	}
	q.CSG, q.NSG = from, to
	for range 8 {
		q.ExpStatSN = s.stat
		r, err := s.exchange(q, text, keys)
		if err != nil {
			return err
		}
		if r.Transit && r.NSG == to {
			return nil
		}
		text = nil
	}
	return fmt.Errorf("the target does not leave the stage %s", from)
}

// exchange sends a Login Request and adds the answer's keys.
func (s *session) exchange(q *pdu.LoginRequest, text []byte, keys map[string]string) (r pdu.LoginResponse, err error) {
	if err := s.send(q, text); err != nil {
		return r, err
	}
	if err := s.out.Flush(); err != nil {
		return r, err
	}
	n, err := s.head()
	if err != nil {
		return r, err
	}
	if err := r.Decode(&s.hdr); err != nil {
		return r, err
	}
	data := make([]byte, n)
	if err := s.body(data); err != nil {
		return r, err
	}
	if r.Status != pdu.LoginSuccess {
		return r, fmt.Errorf("refused with %s", r.Status)
	}
	s.stat = r.SN.StatSN.Add(1)
	pairs, err := pdu.ParseText(data)
	for _, p := range pairs {
		keys[p.Key] = p.Value
	}
	return r, err
}

// send puts a PDU into the output buffer.
func (s *session) send(p pdu.PDU, data []byte) error {
	var h pdu.Header
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	_, _ = s.out.Write(h[:]) // the last Write of a PDU returns the error of them all
	if s.digests {
		_, _ = s.out.Write(pdu.AppendDigest(s.skip[:0], pdu.Digest(h[:])))
	}
	_, _ = s.out.Write(data)
	_, err := s.out.Write(make([]byte, pdu.Pad(len(data)))[:pdu.Pad(len(data))])
	if s.digests && len(data) > 0 {
		_, err = s.out.Write(pdu.AppendDigest(s.skip[:0], pdu.Digest(data)))
	}
	return err
}

// head reads a PDU up to its data, whose length it returns.
func (s *session) head() (int, error) {
	if _, err := io.ReadFull(s.in, s.hdr[:]); err != nil {
		return 0, err
	}
	if err := s.hdr.Check(0, segment); err != nil {
		return 0, err
	}
	if s.digests {
		if err := s.digest(s.hdr[:]); err != nil {
			return 0, err
		}
	}
	return s.hdr.DataSegmentLength(), nil
}

// body reads the data of the PDU at hand.
func (s *session) body(b []byte) error {
	if _, err := io.ReadFull(s.in, b); err != nil {
		return err
	}
	if _, err := s.in.Discard(pdu.Pad(len(b))); err != nil {
		return err
	}
	if s.digests && len(b) > 0 {
		return s.digest(b)
	}
	return nil
}

var errDigest = errors.New("a digest is wrong")

func (s *session) digest(b []byte) error {
	var d [pdu.DigestLength]byte
	if _, err := io.ReadFull(s.in, d[:]); err != nil {
		return err
	}
	if pdu.ReadDigest(d[:]) != pdu.Digest(b) {
		return errDigest
	}
	return nil
}

// logout ends the session politely.
func (s *session) logout() error {
	err := s.conn.SetDeadline(time.Now().Add(ioDeadline))
	if err == nil {
		err = s.send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: 0xffff, CID: 1, CmdSN: s.cmdSN, ExpStatSN: s.stat}, nil)
	}
	if err == nil {
		err = s.out.Flush()
	}
	for err == nil {
		var n int
		if n, err = s.head(); err != nil {
			break
		}
		if err = s.body(s.skip[:n]); err != nil || s.hdr.Opcode() == pdu.OpLogoutResponse {
			break
		}
	}
	return errors.Join(err, s.conn.Close())
}

// command is one in flight.
type command struct {
	at   time.Time
	off  int64
	sent int // of its data
}

// io runs commands until the time is over and counts them. One goroutine writes
// and reads: it flushes when it has read all that was there, as real initiators
// do that answer completions in bursts.
func (s *session) io(t Target, l Load, until time.Time, lat *Latencies) error {
	data := make([]byte, l.Block)
	for i := range data {
		data[i] = byte(i * 7)
	}
	flight := make([]command, l.Depth)
	next, busy := rand.Int64N(max(l.Span/int64(l.Block), 1)), 0
	issue := func(k int) error {
		c := &flight[k]
		if l.Sequential {
			next++
		} else {
			next = rand.Int64N(l.Span / int64(l.Block))
		}
		next %= l.Span / int64(l.Block)
		*c = command{at: time.Now(), off: next * int64(l.Block)}
		busy++
		return s.issue(t, l, k, c, data)
	}
	for k := range flight {
		if err := issue(k); err != nil {
			return err
		}
	}
	if err := s.out.Flush(); err != nil {
		return err
	}
	for busy > 0 {
		if s.in.Buffered() < pdu.BHSLength {
			if err := s.out.Flush(); err != nil {
				return err
			}
			if err := s.conn.SetReadDeadline(time.Now().Add(ioDeadline)); err != nil {
				return err
			}
		}
		done, err := s.answer(l, flight, data)
		if err != nil {
			return err
		}
		if done < 0 {
			continue
		}
		now := time.Now()
		lat.Add(now.Sub(flight[done].at))
		busy--
		if now.Before(until) {
			if err := issue(done); err != nil {
				return err
			}
		}
	}
	return s.out.Flush()
}

// issue sends a READ(10) or WRITE(10) with what data may go with it.
func (s *session) issue(t Target, l Load, k int, c *command, data []byte) error {
	q := pdu.SCSICommand{
		Final: true, Read: !l.Write, Write: l.Write, Attr: pdu.AttrSimple, LUN: pdu.LUN{0, t.LUN},
		InitiatorTaskTag: pdu.TaskTag(k), ExpectedDataTransferLength: uint32(l.Block), CmdSN: s.cmdSN, ExpStatSN: s.stat,
	}
	q.CDB[0] = 0x28
	if l.Write {
		q.CDB[0] = 0x2a
	}
	binary.BigEndian.PutUint32(q.CDB[2:], uint32(c.off/512))
	binary.BigEndian.PutUint16(q.CDB[7:], uint16(l.Block/512))
	s.cmdSN = s.cmdSN.Add(1)
	if !l.Write {
		return s.send(&q, nil)
	}
	first := min(l.Block, s.first)
	if s.immediate {
		c.sent = min(first, s.sendMax)
	}
	q.Final = c.sent >= first || !s.noR2T
	if err := s.send(&q, data[:c.sent]); err != nil || q.Final {
		return err
	}
	return s.dataOut(t, k, c, data, first, pdu.ReservedTag)
}

// dataOut sends data up to an offset, in PDUs that the target takes.
func (s *session) dataOut(t Target, k int, c *command, data []byte, end int, ttt pdu.TaskTag) error {
	for sn := pdu.Serial(0); c.sent < end; sn = sn.Add(1) {
		n := min(end-c.sent, s.sendMax)
		p := pdu.DataOut{
			Final: c.sent+n == end, LUN: pdu.LUN{0, t.LUN}, InitiatorTaskTag: pdu.TaskTag(k), TargetTransferTag: ttt,
			ExpStatSN: s.stat, DataSN: sn, BufferOffset: uint32(c.sent),
		}
		if err := s.send(&p, data[c.sent:c.sent+n]); err != nil {
			return err
		}
		c.sent += n
	}
	return nil
}

// answer reads one PDU and returns which command it ends, or -1.
func (s *session) answer(l Load, flight []command, data []byte) (int, error) {
	n, err := s.head()
	if err != nil {
		return -1, err
	}
	k := int(s.hdr.InitiatorTaskTag())
	switch op := s.hdr.Opcode(); op {
	case pdu.OpDataIn:
		var p pdu.DataIn
		if err := p.Decode(&s.hdr); err != nil {
			return -1, err
		}
		if err := s.body(s.skip[:n]); err != nil || !p.StatusFlag {
			return -1, err
		}
		s.stat = p.SN.StatSN.Add(1)
		return ended(k, p.Status, flight)
	case pdu.OpSCSIResponse:
		var p pdu.SCSIResponse
		if err := p.Decode(&s.hdr); err != nil {
			return -1, err
		}
		if err := s.body(s.skip[:n]); err != nil {
			return -1, err
		}
		s.stat = p.SN.StatSN.Add(1)
		return ended(k, p.Status, flight)
	case pdu.OpR2T:
		var p pdu.R2T
		if err := p.Decode(&s.hdr); err != nil {
			return -1, err
		}
		end := int(p.BufferOffset) + int(p.DesiredDataTransferLength)
		if k >= len(flight) || end > len(data) {
			return -1, fmt.Errorf("an R2T for task %d up to %d", k, end)
		}
		flight[k].sent = int(p.BufferOffset)
		return -1, s.dataOut(Target{LUN: p.LUN[1]}, k, &flight[k], data, end, p.TargetTransferTag)
	case pdu.OpNOPIn:
		return -1, s.body(s.skip[:n])
	default:
		return -1, fmt.Errorf("the target sent %s", op)
	}
}

func ended(k int, status uint8, flight []command) (int, error) {
	if k >= len(flight) {
		return -1, fmt.Errorf("an answer to task %d, which does not exist", k)
	}
	if status != 0 {
		return -1, fmt.Errorf("a command ended with status %02Xh", status)
	}
	return k, nil
}

// ready takes the unit attention conditions of a new session.
func (s *session) ready(t Target) error {
	for range 8 {
		q := pdu.SCSICommand{Final: true, Attr: pdu.AttrSimple, LUN: pdu.LUN{0, t.LUN}, InitiatorTaskTag: 0, CmdSN: s.cmdSN, ExpStatSN: s.stat}
		s.cmdSN = s.cmdSN.Add(1)
		if err := s.send(&q, nil); err != nil {
			return err
		}
		if err := s.out.Flush(); err != nil {
			return err
		}
		n, err := s.head()
		if err != nil {
			return err
		}
		var p pdu.SCSIResponse
		if err := p.Decode(&s.hdr); err != nil {
			return err
		}
		if err := s.body(s.skip[:n]); err != nil {
			return err
		}
		s.stat = p.SN.StatSN.Add(1)
		if p.Status == 0 {
			return nil
		}
	}
	return errors.New("the unit does not become ready")
}
