// Package iscsitest is an initiator for tests: it says on the wire what a test
// tells it to, right or wrong, and checks what every target PDU must obey. It
// knows nothing of the target's code but the types of package pdu.
package iscsitest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/services/iscsi/pdu"
)

// Options says how an initiator logs in.
type Options struct {
	Name      string
	Target    string
	ISID      pdu.ISID
	TSIH      uint16     // of the session that the connection is for; 0 for a new one
	CID       uint16     // 1 unless it is set
	CmdSN     pdu.Serial // 1 unless it is set
	Discovery bool
	// Keys are offered in the operational stage, beside those that every
	// login has: {"HeaderDigest", "CRC32C"}.
	Keys []pdu.Pair
}

// IPXE is an ISID as iPXE makes them; n is its random part.
func IPXE(n uint16) pdu.ISID { return pdu.ISID{0x40, 0x00, 0x27, 0x23, byte(n >> 8), byte(n)} }

// Linux is an ISID as open-iscsi makes them.
func Linux(n uint16) pdu.ISID { return pdu.ISID{0x00, 0x02, 0x3d, 0x00, byte(n >> 8), byte(n)} }

// LoginError is a refused login.
type LoginError struct{ Status pdu.LoginStatus }

func (e *LoginError) Error() string { return "login refused with " + e.Status.String() }

// Initiator is one logged-in connection.
type Initiator struct {
	Conn      net.Conn
	CmdSN     pdu.Serial
	ExpStatSN pdu.Serial
	SN        pdu.SN            // of the last PDU that came
	Answers   map[string]string // the target's keys
	TSIH      uint16
	// Timeout bounds the wait for a PDU; five seconds unless it is set.
	Timeout time.Duration

	headerDigest bool
	dataDigest   bool
	tag          pdu.TaskTag
}

// Attach is an initiator on a connection that is past its login.
func Attach(c net.Conn, cmdSN, expStatSN pdu.Serial, headerDigest, dataDigest bool) *Initiator {
	return &Initiator{Conn: c, CmdSN: cmdSN, ExpStatSN: expStatSN, SN: pdu.SN{ExpCmdSN: cmdSN, MaxCmdSN: cmdSN - 1}, Answers: map[string]string{}, headerDigest: headerDigest, dataDigest: dataDigest, Timeout: 5 * time.Second}
}

// Dial connects and logs in, without authentication.
func Dial(addr netip.AddrPort, o Options) (*Initiator, error) {
	c, err := net.DialTimeout("tcp", addr.String(), 5*time.Second)
	if err != nil {
		return nil, err
	}
	o.CID, o.CmdSN = cmp.Or(o.CID, 1), cmp.Or(o.CmdSN, 1)
	i := Attach(c, o.CmdSN, 0, false, false)
	if o.TSIH != 0 { // what the session expects is told at the end
		i.SN.ExpCmdSN, i.SN.MaxCmdSN = i.SN.ExpCmdSN.Add(-256), i.SN.MaxCmdSN.Add(-256)
	}
	kind := "Normal"
	if o.Discovery {
		kind = "Discovery"
	}
	text := pdu.AppendText(nil, "InitiatorName", o.Name)
	text = pdu.AppendText(text, "SessionType", kind)
	if !o.Discovery {
		text = pdu.AppendText(text, "TargetName", o.Target)
	}
	for _, k := range o.Keys {
		text = pdu.AppendText(text, k.Key, k.Value)
	}
	q := pdu.LoginRequest{Transit: true, CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: o.ISID, TSIH: o.TSIH, CID: o.CID, CmdSN: o.CmdSN}
	if err := i.Send(&q, text); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	p, data, err := i.Recv()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	r, ok := p.(*pdu.LoginResponse)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s answered a login", p.Opcode()), c.Close())
	}
	if r.Status != pdu.LoginSuccess {
		return nil, errors.Join(&LoginError{r.Status}, c.Close())
	}
	pairs, err := pdu.ParseText(data)
	if err != nil || !r.Transit || r.NSG != pdu.FullFeaturePhase {
		return nil, errors.Join(fmt.Errorf("login stopped at %s: %v", r.NSG, err), c.Close())
	}
	for _, p := range pairs {
		i.Answers[p.Key] = p.Value
	}
	i.TSIH = r.TSIH
	i.headerDigest, i.dataDigest = i.Answers["HeaderDigest"] == "CRC32C", i.Answers["DataDigest"] == "CRC32C"
	return i, nil
}

// Login is Dial for a test that cannot go on without it.
func Login(t testing.TB, addr netip.AddrPort, o Options) *Initiator {
	t.Helper()
	i, err := Dial(addr, o)
	if err != nil {
		t.Fatalf("log in as %s: %v", o.Name, err)
	}
	t.Cleanup(func() { _ = i.Conn.Close() })
	return i
}

// Tag returns a new task tag.
func (i *Initiator) Tag() pdu.TaskTag {
	i.tag++
	return i.tag
}

// Bytes returns a PDU as it goes on the wire.
func (i *Initiator) Bytes(p pdu.PDU, data []byte) []byte {
	var h pdu.Header
	p.Encode(&h)
	h.SetDataSegmentLength(len(data))
	out := append([]byte(nil), h[:]...)
	if i.headerDigest {
		out = pdu.AppendDigest(out, pdu.Digest(h[:]))
	}
	out = append(out, data...)
	out = append(out, make([]byte, pdu.Pad(len(data)))...)
	if i.dataDigest && len(data) > 0 {
		out = pdu.AppendDigest(out, pdu.Digest(data))
	}
	return out
}

// Send sends a PDU.
func (i *Initiator) Send(p pdu.PDU, data []byte) error {
	_, err := i.Conn.Write(i.Bytes(p, data))
	return err
}

// Recv reads a PDU and checks its digests and the order of StatSN.
func (i *Initiator) Recv() (pdu.PDU, []byte, error) {
	if err := i.Conn.SetReadDeadline(time.Now().Add(i.Timeout)); err != nil {
		return nil, nil, err
	}
	var h pdu.Header
	if _, err := io.ReadFull(i.Conn, h[:]); err != nil {
		return nil, nil, err
	}
	if err := h.Check(0, pdu.MaxDataSegmentLength); err != nil {
		return nil, nil, err
	}
	if i.headerDigest {
		if err := i.digest(h[:]); err != nil {
			return nil, nil, fmt.Errorf("header: %w", err)
		}
	}
	n := h.DataSegmentLength()
	data := make([]byte, n+pdu.Pad(n))
	if _, err := io.ReadFull(i.Conn, data); err != nil {
		return nil, nil, err
	}
	if i.dataDigest && n > 0 {
		if err := i.digest(data); err != nil {
			return nil, nil, fmt.Errorf("data: %w", err)
		}
	}
	p, err := pdu.Decode(&h)
	if err != nil {
		return nil, nil, err
	}
	return p, data[:n], i.order(p)
}

func (i *Initiator) digest(b []byte) error {
	var d [pdu.DigestLength]byte
	if _, err := io.ReadFull(i.Conn, d[:]); err != nil {
		return err
	}
	if pdu.ReadDigest(d[:]) != pdu.Digest(b) {
		return errors.New("the digest is wrong")
	}
	return nil
}

// order checks the serial numbers of a target PDU (RFC 7143 §4.2.2).
func (i *Initiator) order(p pdu.PDU) error {
	var sn pdu.SN
	uses := true
	switch p := p.(type) {
	case *pdu.LoginResponse:
		sn = p.SN
		i.ExpStatSN = sn.StatSN // the target's choice
	case *pdu.SCSIResponse:
		sn = p.SN
	case *pdu.DataIn:
		sn, uses = p.SN, p.StatusFlag
	case *pdu.R2T:
		sn, uses = p.SN, false
	case *pdu.NOPIn:
		sn, uses = p.SN, p.InitiatorTaskTag != pdu.ReservedTag
	case *pdu.TextResponse:
		sn = p.SN
	case *pdu.TaskResponse:
		sn = p.SN
	case *pdu.LogoutResponse:
		sn = p.SN
	case *pdu.Reject:
		sn = p.SN
	case *pdu.Async:
		sn = p.SN
	default:
		return fmt.Errorf("a target sent %s", p.Opcode())
	}
	_, data := p.(*pdu.DataIn)
	if sn.StatSN != i.ExpStatSN && (!data || uses) {
		return fmt.Errorf("%s has StatSN %d, %d was due", p.Opcode(), sn.StatSN, i.ExpStatSN)
	}
	if uses {
		i.ExpStatSN = i.ExpStatSN.Add(1)
	}
	if sn.MaxCmdSN.Less(i.SN.MaxCmdSN) {
		return fmt.Errorf("%s takes MaxCmdSN back from %d to %d", p.Opcode(), i.SN.MaxCmdSN, sn.MaxCmdSN)
	}
	if sn.ExpCmdSN.Less(i.SN.ExpCmdSN) || sn.MaxCmdSN.Less(sn.ExpCmdSN-1) {
		return fmt.Errorf("%s has the window %d to %d, ExpCmdSN was %d", p.Opcode(), sn.ExpCmdSN, sn.MaxCmdSN, i.SN.ExpCmdSN)
	}
	i.SN = sn
	return nil
}

// Expect is Recv for a test that cannot go on without a PDU of the type T.
func Expect[T pdu.PDU](t testing.TB, i *Initiator) (T, []byte) {
	t.Helper()
	p, data, err := i.Recv()
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	want, ok := p.(T)
	if !ok {
		t.Fatalf("received %s: %+v", p.Opcode(), p)
	}
	return want, data
}

// Closed waits for the target to close the connection.
func (i *Initiator) Closed(t testing.TB) {
	t.Helper()
	for {
		_, _, err := i.Recv()
		if err == nil {
			continue
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal("the target has not closed the connection")
		}
		return
	}
}

// Command is one SCSI command as the initiator sees it.
type Command struct {
	LUN       pdu.LUN
	CDB       []byte
	Read      int    // bytes expected
	Write     []byte // bytes to send
	Immediate int    // how many of them with the command
	Unasked   int    // how many in Data-Out PDUs that follow without R2T
	Segment   int    // bytes of a Data-Out; 8192 unless it is set
}

// Result is what came back.
type Result struct {
	Status    uint8
	Sense     []byte
	Data      []byte
	Overflow  bool
	Underflow bool
	Residual  uint32
	R2Ts      int
	DataIns   int
}

// Key returns the sense key and codes in the usual spelling: "05/25/00".
func (r Result) Key() string {
	s := r.Sense
	switch {
	case len(s) >= 4 && s[0]&0x7f == 0x72:
		return fmt.Sprintf("%02X/%02X/%02X", s[1]&15, s[2], s[3])
	case len(s) >= 14:
		return fmt.Sprintf("%02X/%02X/%02X", s[2]&15, s[12], s[13])
	}
	return ""
}

// Start sends the command and what follows it unasked.
func (i *Initiator) Start(c Command) (pdu.TaskTag, error) {
	q := &pdu.SCSICommand{
		Final: c.Unasked == 0, Read: c.Read > 0, Write: len(c.Write) > 0, Attr: pdu.AttrSimple, LUN: c.LUN,
		InitiatorTaskTag: i.Tag(), ExpectedDataTransferLength: uint32(max(c.Read, len(c.Write))), CmdSN: i.CmdSN, ExpStatSN: i.ExpStatSN,
	}
	copy(q.CDB[:], c.CDB)
	i.CmdSN = i.CmdSN.Add(1)
	if err := i.Send(q, c.Write[:c.Immediate]); err != nil {
		return q.InitiatorTaskTag, err
	}
	return q.InitiatorTaskTag, i.dataOut(c, q.InitiatorTaskTag, pdu.ReservedTag, c.Immediate, c.Unasked)
}

// dataOut sends n bytes from off as Data-Out PDUs.
func (i *Initiator) dataOut(c Command, tag, ttt pdu.TaskTag, off, n int) error {
	segment := c.Segment
	if segment == 0 {
		segment = 8192
	}
	for sn := pdu.Serial(0); n > 0; sn++ {
		k := min(n, segment)
		d := &pdu.DataOut{Final: k == n, LUN: c.LUN, InitiatorTaskTag: tag, TargetTransferTag: ttt, ExpStatSN: i.ExpStatSN, DataSN: sn, BufferOffset: uint32(off)}
		if err := i.Send(d, c.Write[off:off+k]); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Do runs one command to its end.
func (i *Initiator) Do(c Command) (Result, error) {
	tag, err := i.Start(c)
	if err != nil {
		return Result{}, err
	}
	return i.Finish(c, tag)
}

// Finish answers R2Ts and collects data until the command's status is there.
// No other command may be under way. The target's pings are answered.
func (i *Initiator) Finish(c Command, tag pdu.TaskTag) (Result, error) {
	var r Result
	for {
		p, data, err := i.Recv()
		if err != nil {
			return r, err
		}
		switch p := p.(type) {
		case *pdu.DataIn:
			if p.InitiatorTaskTag != tag || int(p.BufferOffset) != len(r.Data) || int(p.DataSN) != r.DataIns {
				return r, fmt.Errorf("a Data-In that does not follow: %+v", p)
			}
			r.DataIns++
			r.Data = append(r.Data, data...)
			if p.StatusFlag {
				r.Status, r.Overflow, r.Underflow, r.Residual = p.Status, p.Overflow, p.Underflow, p.ResidualCount
				return r, nil
			}
		case *pdu.R2T:
			if p.InitiatorTaskTag != tag || int(p.R2TSN) != r.R2Ts {
				return r, fmt.Errorf("an R2T that does not follow: %+v", p)
			}
			r.R2Ts++
			if err := i.dataOut(c, tag, p.TargetTransferTag, int(p.BufferOffset), int(p.DesiredDataTransferLength)); err != nil {
				return r, err
			}
		case *pdu.NOPIn:
			if p.InitiatorTaskTag != pdu.ReservedTag {
				return r, fmt.Errorf("the answer to a ping in the middle of a command: %+v", p)
			}
			if err := i.Send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: p.TargetTransferTag, CmdSN: i.CmdSN}, nil); err != nil {
				return r, err
			}
		case *pdu.SCSIResponse:
			if p.InitiatorTaskTag != tag {
				return r, fmt.Errorf("the response of another task: %+v", p)
			}
			r.Status, r.Overflow, r.Underflow, r.Residual = p.Status, p.Overflow, p.Underflow, p.ResidualCount
			r.Sense, err = pdu.ParseSense(data)
			return r, err
		default:
			return r, fmt.Errorf("%s in the middle of a command: %+v", p.Opcode(), p)
		}
	}
}

// Must is Do for a test that cannot go on unless the command ends with GOOD;
// unit attention conditions are taken and the command repeated.
func (i *Initiator) Must(t testing.TB, c Command) Result {
	t.Helper()
	for range 8 {
		r, err := i.Do(c)
		if err != nil {
			t.Fatalf("command % X: %v", c.CDB, err)
		}
		if r.Status == 0 {
			return r
		}
		if !strings.HasPrefix(r.Key(), "06/") {
			t.Fatalf("command % X: status %02X, sense %s", c.CDB, r.Status, r.Key())
		}
	}
	t.Fatalf("command % X: unit attention without end", c.CDB)
	return Result{}
}

// LUN returns the wire form of a small LUN.
func LUN(n byte) pdu.LUN { return pdu.LUN{0, n} }

// Read10 is a READ(10) of blocks of 512 bytes.
func Read10(lun byte, lba uint32, blocks uint16) Command {
	return Command{LUN: LUN(lun), CDB: rw10(0x28, lba, blocks), Read: int(blocks) * 512}
}

// Write10 is a WRITE(10) of whole blocks of 512 bytes.
func Write10(lun byte, lba uint32, data []byte) Command {
	return Command{LUN: LUN(lun), CDB: rw10(0x2a, lba, uint16(len(data)/512)), Write: data}
}

func rw10(op byte, lba uint32, n uint16) []byte {
	return []byte{op, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(n >> 8), byte(n), 0}
}

// Sync10 is SYNCHRONIZE CACHE(10) of the whole unit.
func Sync10(lun byte) Command {
	return Command{LUN: LUN(lun), CDB: []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
}

// Ready is TEST UNIT READY.
func Ready(lun byte) Command { return Command{LUN: LUN(lun), CDB: make([]byte, 6)} }
