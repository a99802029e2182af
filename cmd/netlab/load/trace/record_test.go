package trace

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"lunboot/services/iscsi/pdu"
)

// wire is one connection that a recorder listens to, without a network.
type wire struct {
	*passage
	t *testing.T
}

func (r *Recorder) open(t *testing.T, segment string) *wire {
	t.Helper()
	w := &wire{&passage{r: r, segment: defaultSegment, flight: map[pdu.TaskTag]int{}}, t}
	var text []byte
	if segment != "" {
		text = pdu.AppendText(nil, "MaxRecvDataSegmentLength", segment)
	}
	w.ask(&pdu.LoginRequest{CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, Transit: true}, text)
	w.say(&pdu.LoginResponse{CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, Transit: true}, nil)
	return w
}

func header(p pdu.PDU) *pdu.Header {
	var h pdu.Header
	p.Encode(&h)
	return &h
}

func (w *wire) ask(p pdu.PDU, data []byte) {
	w.t.Helper()
	if err := w.request(header(p), data); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) say(p pdu.PDU, data []byte) {
	w.t.Helper()
	if err := w.answer(header(p), data); err != nil {
		w.t.Fatal(err)
	}
}

func cdb10(op byte, block uint32, blocks uint16) (c [16]byte) {
	c[0] = op
	binary.BigEndian.PutUint32(c[2:], block)
	binary.BigEndian.PutUint16(c[7:], blocks)
	return c
}

func (w *wire) command(tag pdu.TaskTag, cdb [16]byte) {
	w.t.Helper()
	w.ask(&pdu.SCSICommand{Final: true, InitiatorTaskTag: tag, CDB: cdb}, nil)
}

func (w *wire) status(tag pdu.TaskTag, status uint8) {
	w.t.Helper()
	w.say(&pdu.SCSIResponse{InitiatorTaskTag: tag, Status: status}, nil)
}

// strip leaves the times out, which are the clock's.
func strip(t *Trace) (steps []Step) {
	for _, s := range t.Steps {
		s.At = 0
		steps = append(steps, s)
	}
	return steps
}

func TestARecorderNotesWhatMovesBlocksAndHowMuchIsInFlight(t *testing.T) {
	r := &Recorder{}
	w := r.open(t, "")
	w.command(1, [16]byte{0x00}) // TEST UNIT READY
	w.status(1, 2)
	w.command(2, cdb10(0x28, 7, 1)) // refused: a unit attention
	w.status(2, 2)
	w.command(3, cdb10(0x28, 7, 1))
	w.say(&pdu.DataIn{Final: true, InitiatorTaskTag: 3}, nil) // no status yet
	w.command(4, cdb10(0x28, 8, 2))
	w.say(&pdu.DataIn{Final: true, StatusFlag: true, InitiatorTaskTag: 3}, nil)
	w.command(5, cdb10(0x2a, 16, 8))
	w.command(6, cdb10(0x35, 0, 0))
	for tag := pdu.TaskTag(4); tag <= 6; tag++ {
		w.status(tag, 0)
	}
	w = r.open(t, "262144")
	w.command(3, cdb10(0x28, 0, 1)) // the tag is another session's
	w.status(3, 0)
	w.command(4, cdb10(0x28, 9, 1)) // the power goes
	got, other, err := r.Trace(1<<20, 512)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Op: Login, Segment: 8192}, {Op: Read, Depth: 1, Block: 7, Blocks: 1}, {Op: Read, Depth: 2, Block: 8, Blocks: 2}, {Op: Write, Depth: 2, Block: 16, Blocks: 8}, {Op: Flush, Depth: 3},
		{Op: Login, Segment: 262144}, {Op: Read, Depth: 1, Block: 0, Blocks: 1},
	}
	if steps := strip(got); !slices.Equal(steps, want) || other != 1 {
		t.Errorf("recorded are\n%+v, want\n%+v; %d others", steps, want, other)
	}
}

func TestARecorderRefusesWhatATraceCannotTell(t *testing.T) {
	r := &Recorder{}
	first, _ := r.open(t, ""), r.open(t, "")
	if err := first.request(header(&pdu.SCSICommand{Final: true, CDB: cdb10(0x28, 0, 1)}), nil); err == nil || !strings.Contains(err.Error(), "logged in again") {
		t.Errorf("a command of a session that was left: %v", err)
	}
	w := &wire{&passage{r: r, flight: map[pdu.TaskTag]int{}}, t}
	if err := w.answer(header(&pdu.LoginResponse{}), pdu.AppendText(nil, "DataDigest", "CRC32C")); err == nil || !strings.Contains(err.Error(), "DataDigest=CRC32C") {
		t.Errorf("digests: %v", err)
	}
	if err := w.request(header(&pdu.LoginRequest{}), pdu.AppendText(nil, "MaxRecvDataSegmentLength", "much")); err == nil {
		t.Error("a length that is none is taken")
	}
	if _, _, err := (&Recorder{}).Trace(1<<20, 512); err == nil {
		t.Error("a trace of nothing is made")
	}
	r.fail(errors.New("the target is gone"))
	if _, _, err := r.Trace(1<<20, 512); err == nil || !strings.Contains(err.Error(), "the target is gone") {
		t.Errorf("what went wrong is forgotten: %v", err)
	}
}

func TestEveryReadWriteAndFlushIsKnownByItsCDB(t *testing.T) {
	cdb := func(op byte, fields ...any) []byte {
		b := []byte{op}
		for _, f := range fields {
			var err error
			if b, err = binary.Append(b, binary.BigEndian, f); err != nil {
				t.Fatal(err)
			}
		}
		return append(b, make([]byte, 16-len(b))...)
	}
	for name, c := range map[string]struct {
		cdb  []byte
		want Step
		no   bool
	}{
		"READ(6)":                  {cdb: []byte{0x08, 0xe1, 2, 3, 4, 0, 15: 0}, want: Step{Op: Read, Block: 0x010203, Blocks: 4}},
		"READ(6) of 256":           {cdb: []byte{0x08, 0, 0, 1, 0, 0, 15: 0}, want: Step{Op: Read, Block: 1, Blocks: 256}},
		"WRITE(6)":                 {cdb: []byte{0x0a, 0, 0, 1, 1, 0, 15: 0}, want: Step{Op: Write, Block: 1, Blocks: 1}},
		"READ(10)":                 {cdb: cdb(0x28, byte(0), uint32(5), byte(0), uint16(6)), want: Step{Op: Read, Block: 5, Blocks: 6}},
		"WRITE(12)":                {cdb: cdb(0xaa, byte(0), uint32(5), uint32(6)), want: Step{Op: Write, Block: 5, Blocks: 6}},
		"READ(16)":                 {cdb: cdb(0x88, byte(0), uint64(1<<33), uint32(6)), want: Step{Op: Read, Block: 1 << 33, Blocks: 6}},
		"SYNCHRONIZE CACHE(16)":    {cdb: cdb(0x91, byte(0), uint64(9), uint32(8)), want: Step{Op: Flush, Block: 9, Blocks: 8}},
		"READ(10) of nothing":      {cdb: cdb(0x28), no: true},
		"INQUIRY":                  {cdb: cdb(0x12, byte(0), uint32(0x24000000)), no: true},
		"UNMAP":                    {cdb: cdb(0x42), no: true},
		"SYNCHRONIZE CACHE of all": {cdb: cdb(0x35), want: Step{Op: Flush}},
	} {
		got, ok := parse(c.cdb)
		if ok == c.no || ok && got != c.want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
}

// A recorder ends with its context, whatever hangs in it.
func TestARecorderEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := &Recorder{Dial: func(ctx context.Context) (net.Conn, error) {
		defer cancel() // once both sides are connected
		var d net.Dialer
		return d.DialContext(ctx, "tcp", silent.Addr().String())
	}}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := r.Serve(ctx, l); err != nil {
		t.Error(err)
	}
}
