package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
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
	Bare   bool // an Echo, which knows no login
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
	Ordered    bool // each session begins with a command of that attribute
	Span       int64
	Time       time.Duration
	// Commands ends the load after so many, if that is before its time; a
	// sequential load then reaches every place in turn, whatever its sessions.
	Commands int64
	// Scattered makes such a load reach its places in an order that is not theirs.
	// There must be a power of two of them.
	Scattered bool
	// Generation, where it is set, makes writes carry a pattern of place and
	// generation, and reads fail that find another.
	Generation uint32
}

// session is one logged-in connection.
type session struct {
	conn   net.Conn
	in     *bufio.Reader
	out    *bufio.Writer
	cmdSN  pdu.Serial
	stat   pdu.Serial // the next StatSN
	window pdu.Serial // the last CmdSN that the target takes

	digests   bool
	immediate bool
	noR2T     bool // unsolicited data is allowed
	sendMax   int  // the target's MaxRecvDataSegmentLength
	first     int  // FirstBurstLength

	receiveMax int // our MaxRecvDataSegmentLength
	hdr        pdu.Header
}

// login opens a session. The number makes its ISID.
func login(t Target, initiator string, number int, digests bool) (*session, error) {
	return loginAs(t, initiator, number, digests, segment)
}

// loginAs is login by an initiator that takes Data-In of at most so many bytes.
func loginAs(t Target, initiator string, number int, digests bool, receiveMax int) (*session, error) {
	conn, err := net.DialTimeout("tcp", t.Portal, 5*time.Second)
	if err != nil {
		return nil, err
	}
	// Small buffers: a storm of logins is to cost the target more than us.
	s := &session{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), out: bufio.NewWriterSize(conn, 4<<10), cmdSN: 1, receiveMax: receiveMax}
	if t.Bare {
		s.receiveMax, s.window = pdu.MaxDataSegmentLength, s.cmdSN
		return s, nil
	}
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
		"HeaderDigest", digest, "DataDigest", digest, "MaxRecvDataSegmentLength", fmt.Sprint(s.receiveMax),
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
	s.stat, s.window = r.SN.StatSN.Add(1), r.SN.MaxCmdSN
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
		_, _ = s.out.Write(pdu.AppendDigest(nil, pdu.Digest(h[:])))
	}
	_, _ = s.out.Write(data)
	_, err := s.out.Write(make([]byte, pdu.Pad(len(data)))[:pdu.Pad(len(data))])
	if s.digests && len(data) > 0 {
		_, err = s.out.Write(pdu.AppendDigest(nil, pdu.Digest(data)))
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
func (s *session) logout(t Target) error {
	if s.conn == nil { // given up with its socket
		return nil
	}
	if t.Bare {
		return s.conn.Close()
	}
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
		if err = s.body(make([]byte, n)); err != nil || s.hdr.Opcode() == pdu.OpLogoutResponse {
			break
		}
	}
	return errors.Join(err, s.conn.Close())
}

// ready takes the unit attention conditions of a new session, by commands with
// that attribute.
func (s *session) ready(t Target, attr pdu.Attribute) error {
	if t.Bare {
		return nil
	}
	if err := s.conn.SetDeadline(time.Now().Add(ioDeadline)); err != nil {
		return err
	}
	for range 8 {
		q := pdu.SCSICommand{Final: true, Attr: attr, LUN: pdu.LUN{0, t.LUN}, InitiatorTaskTag: 0, CmdSN: s.cmdSN, ExpStatSN: s.stat}
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
		if err := s.body(make([]byte, n)); err != nil {
			return err
		}
		s.stat, s.window = p.SN.StatSN.Add(1), serial(s.window, p.SN)
		if p.Status == 0 {
			return nil
		}
	}
	return errors.New("the unit does not become ready")
}
