package pdu

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

func wire(t *testing.T, s string) (h Header) {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil || len(b) != BHSLength {
		t.Fatalf("golden header of %d bytes: %v", len(b), err)
	}
	return Header(b)
}

// One header of each kind, with every field set, as it stands on the wire.
var golden = []struct {
	name string
	pdu  PDU
	hex  string
}{
	{"Login Request of iPXE", &LoginRequest{Transit: true, CSG: SecurityNegotiation, NSG: OperationalNegotiation, ISID: ISID{0x40, 0, 0x27, 0x23, 0xab, 0xcd}, InitiatorTaskTag: 0x18ae0001}, `
		43 81 00 00 00 000000  40002723abcd 0000  18ae0001  0000 0000 00000000 00000000 00000000 00000000 00000000 00000000`},
	{"Login Request that goes on", &LoginRequest{Continue: true, CSG: OperationalNegotiation, VersionMax: 1, VersionMin: 2, ISID: ISID{1, 2, 3, 4, 5, 6}, TSIH: 7, InitiatorTaskTag: 8, CID: 9, CmdSN: 10, ExpStatSN: 11}, `
		43 44 01 02 00 000000  010203040506 0007  00000008  0009 0000 0000000a 0000000b 00000000 00000000 00000000 00000000`},
	{"Login Response", &LoginResponse{Transit: true, CSG: OperationalNegotiation, NSG: FullFeaturePhase, ISID: ISID{1, 2, 3, 4, 5, 6}, TSIH: 7, InitiatorTaskTag: 8, SN: SN{1, 2, 3}, Status: LoginNotFound}, `
		23 87 00 00 00 000000  010203040506 0007  00000008  00000000 00000001 00000002 00000003 0203 0000 00000000 00000000`},
	{"SCSI Command, READ(10)", &SCSICommand{Final: true, Read: true, Attr: AttrSimple, LUN: LUN{0, 2}, InitiatorTaskTag: 0x11, ExpectedDataTransferLength: 2048, CmdSN: 5, ExpStatSN: 6, CDB: [16]byte{0x28, 0, 0, 0, 0, 64, 0, 0, 4}}, `
		01 c1 00 00 00 000000  0002000000000000  00000011  00000800 00000005 00000006 28000000004000000400 000000000000`},
	{"SCSI Command, immediate WRITE", &SCSICommand{Immediate: true, Write: true, Attr: AttrOrdered, LUN: LUN{0x41, 0}, InitiatorTaskTag: 1, ExpectedDataTransferLength: 512, CDB: [16]byte{0x2a}}, `
		41 22 00 00 00 000000  4100000000000000  00000001  00000200 00000000 00000000 2a000000000000000000000000000000`},
	{"SCSI Response", &SCSIResponse{Underflow: true, Status: 2, InitiatorTaskTag: 1, SNACKTag: 4, SN: SN{1, 2, 3}, ExpDataSN: 9, BidirectionalReadResidualCount: 10, ResidualCount: 512}, `
		21 82 00 02 00 000000  0000000000000000  00000001  00000004 00000001 00000002 00000003 00000009 0000000a 00000200`},
	{"Data-Out", &DataOut{Final: true, LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: 2, ExpStatSN: 3, DataSN: 4, BufferOffset: 5}, `
		05 80 00 00 00 000000  0002000000000000  00000001  00000002 00000000 00000003 00000000 00000004 00000005 00000000`},
	{"Data-In with status", &DataIn{Final: true, StatusFlag: true, Overflow: true, Status: 0, LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: ReservedTag, SN: SN{1, 2, 3}, DataSN: 4, BufferOffset: 5, ResidualCount: 6}, `
		25 85 00 00 00 000000  0002000000000000  00000001  ffffffff 00000001 00000002 00000003 00000004 00000005 00000006`},
	{"R2T", &R2T{LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: 2, SN: SN{1, 2, 3}, R2TSN: 4, BufferOffset: 5, DesiredDataTransferLength: 6}, `
		31 80 00 00 00 000000  0002000000000000  00000001  00000002 00000001 00000002 00000003 00000004 00000005 00000006`},
	{"Task Management Function Request", &TaskRequest{Immediate: true, Function: FuncAbortTask, LUN: LUN{0, 2}, InitiatorTaskTag: 1, ReferencedTaskTag: 2, CmdSN: 3, ExpStatSN: 4, RefCmdSN: 5, ExpDataSN: 6}, `
		42 81 00 00 00 000000  0002000000000000  00000001  00000002 00000003 00000004 00000005 00000006 00000000 00000000`},
	{"Task Management Function Response", &TaskResponse{Response: TaskLUNDoesNotExist, InitiatorTaskTag: 1, SN: SN{1, 2, 3}}, `
		22 80 02 00 00 000000  0000000000000000  00000001  00000000 00000001 00000002 00000003 00000000 00000000 00000000`},
	{"Text Request", &TextRequest{Final: true, LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: ReservedTag, CmdSN: 3, ExpStatSN: 4}, `
		04 80 00 00 00 000000  0002000000000000  00000001  ffffffff 00000003 00000004 00000000 00000000 00000000 00000000`},
	{"Text Response", &TextResponse{Continue: true, InitiatorTaskTag: 1, TargetTransferTag: 2, SN: SN{1, 2, 3}}, `
		24 40 00 00 00 000000  0000000000000000  00000001  00000002 00000001 00000002 00000003 00000000 00000000 00000000`},
	{"Logout Request", &LogoutRequest{Reason: LogoutForRecovery, InitiatorTaskTag: 1, CID: 2, CmdSN: 3, ExpStatSN: 4}, `
		06 82 00 00 00 000000  0000000000000000  00000001  0002 0000 00000003 00000004 00000000 00000000 00000000 00000000`},
	{"Logout Response", &LogoutResponse{Response: LogoutCIDNotFound, InitiatorTaskTag: 1, SN: SN{1, 2, 3}, Time2Wait: 4, Time2Retain: 5}, `
		26 80 01 00 00 000000  0000000000000000  00000001  00000000 00000001 00000002 00000003 00000000 0004 0005 00000000`},
	{"NOP-Out", &NOPOut{Immediate: true, LUN: LUN{0, 2}, InitiatorTaskTag: ReservedTag, TargetTransferTag: 2, CmdSN: 3, ExpStatSN: 4}, `
		40 80 00 00 00 000000  0002000000000000  ffffffff  00000002 00000003 00000004 00000000 00000000 00000000 00000000`},
	{"NOP-In", &NOPIn{LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: ReservedTag, SN: SN{1, 2, 3}}, `
		20 80 00 00 00 000000  0002000000000000  00000001  ffffffff 00000001 00000002 00000003 00000000 00000000 00000000`},
	{"Asynchronous Message", &Async{LUN: LUN{0, 2}, SN: SN{1, 2, 3}, Event: AsyncDropSession, VCode: 4, Parameter1: 5, Parameter2: 6, Parameter3: 7}, `
		32 80 00 00 00 000000  0002000000000000  ffffffff  00000000 00000001 00000002 00000003 03 04 0005 0006 0007 00000000`},
	{"Reject", &Reject{Reason: ReasonProtocolError, SN: SN{1, 2, 3}, DataSN: 4}, `
		3f 80 04 00 00 000000  0000000000000000  ffffffff  00000000 00000001 00000002 00000003 00000004 00000000 00000000`},
	{"SNACK", &SNACK{Type: 1, LUN: LUN{0, 2}, InitiatorTaskTag: 1, TargetTransferTag: 2, ExpStatSN: 3, BegRun: 4, RunLength: 5}, `
		10 81 00 00 00 000000  0002000000000000  00000001  00000002 00000000 00000003 00000000 00000000 00000004 00000005`},
}

func TestHeaderOnTheWire(t *testing.T) {
	seen := map[Opcode]bool{}
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			want := wire(t, g.hex)
			var h Header
			g.pdu.Encode(&h)
			if h != want {
				t.Errorf("encoded\n% x, want\n% x", h, want)
			}
			p, err := Decode(&want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(p, g.pdu) {
				t.Errorf("decoded\n%+v, want\n%+v", p, g.pdu)
			}
			if p.Opcode() != want.Opcode() {
				t.Errorf("opcode %s, want %s", p.Opcode(), want.Opcode())
			}
		})
		seen[g.pdu.Opcode()] = true
	}
	for op := range opcodeNames {
		if !seen[op] {
			t.Errorf("%s has no golden header", op)
		}
	}
}

func TestHeaderThatNoSenderMayMake(t *testing.T) {
	bad := map[string]func(h *Header){
		"a command with the reserved tag":        func(h *Header) { (&SCSICommand{Final: true, InitiatorTaskTag: ReservedTag}).Encode(h) },
		"a command that neither ends nor writes": func(h *Header) { (&SCSICommand{Read: true}).Encode(h) },
		"a command whose data has no direction":  func(h *Header) { (&SCSICommand{Final: true, ExpectedDataTransferLength: 512}).Encode(h) },
		"a Data-In with status that goes on":     func(h *Header) { (&DataIn{StatusFlag: true}).Encode(h) },
		"a response that is over and under":      func(h *Header) { (&SCSIResponse{Overflow: true, Underflow: true}).Encode(h) },
		"an R2T with the reserved tag":           func(h *Header) { (&R2T{TargetTransferTag: ReservedTag}).Encode(h) },
		"a text that ends and goes on":           func(h *Header) { (&TextRequest{Final: true, Continue: true}).Encode(h) },
		"a silent NOP-Out in the window":         func(h *Header) { (&NOPOut{InitiatorTaskTag: ReservedTag}).Encode(h) },
		"an opcode that does not exist":          func(h *Header) { h[0] = 0x1c },
	}
	for name, make := range bad {
		var h Header
		make(&h)
		if p, err := Decode(&h); err == nil {
			t.Errorf("%s was decoded: %+v", name, p)
		}
	}
	for op := range opcodeNames {
		h := Header{byte(OpReject ^ op)}
		if err := New(op).Decode(&h); err == nil && h.Opcode() != op {
			t.Errorf("%s was decoded from %s", op, h.Opcode())
		}
	}
}

func TestLengthsAreCheckedBeforeMemory(t *testing.T) {
	var h Header
	h.SetDataSegmentLength(262144)
	h.SetAHSLength(8)
	if h.DataSegmentLength() != 262144 || h.AHSLength() != 8 {
		t.Fatalf("lengths %d and %d", h.DataSegmentLength(), h.AHSLength())
	}
	if err := h.Check(8, 262144); err != nil {
		t.Error(err)
	}
	if h.Check(8, 262143) == nil || h.Check(4, 262144) == nil {
		t.Error("a header beyond the limits passes")
	}
	for n, want := range []int{0, 3, 2, 1, 0, 3} {
		if got := Pad(n); got != want {
			t.Errorf("Pad(%d) is %d, want %d", n, got, want)
		}
	}
}

// RFC 1982: comparison survives the wrap.
func TestSerial(t *testing.T) {
	for _, c := range []struct {
		a, b Serial
		less bool
	}{{1, 2, true}, {2, 1, false}, {1, 1, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}, {0xfffffff0, 5, true}, {0, 1 << 31, false}, {1 << 31, 0, false}} {
		if got := c.a.Less(c.b); got != c.less {
			t.Errorf("%d < %d is %v", c.a, c.b, got)
		}
	}
	if s := Serial(0xffffffff).Add(2); s != 1 {
		t.Errorf("the sum is %d", s)
	}
	if s := Serial(1).Add(-2); s != 0xffffffff {
		t.Errorf("the difference is %d", s)
	}
	if d := Serial(0xfffffffe).Distance(3); d != 5 {
		t.Errorf("the distance is %d", d)
	}
	if d := Serial(3).Distance(1); d != -2 {
		t.Errorf("the distance back is %d", d)
	}
}

// RFC 7143 §13.1 and RFC 3720 appendix B.4 give these values.
func TestDigest(t *testing.T) {
	zeros, ones := make([]byte, 32), bytes.Repeat([]byte{0xff}, 32)
	for _, c := range []struct {
		data []byte
		want string
	}{{zeros, "aa36918a"}, {ones, "43aba862"}} {
		d := AppendDigest(nil, Digest(c.data))
		if hex.EncodeToString(d) != c.want {
			t.Errorf("digest % x, want %s", d, c.want)
		}
		if ReadDigest(d) != Digest(c.data) {
			t.Error("a digest does not read back")
		}
	}
	// The padding is part of it.
	if Digest([]byte{1, 2, 3}) != Digest([]byte{1, 2, 3, 0}) {
		t.Error("the digest leaves the padding out")
	}
	if DigestMore(DigestMore(0, zeros[:8]), zeros[8:]) != Digest(zeros) {
		t.Error("a digest in two parts is another")
	}
}

func TestText(t *testing.T) {
	b := AppendText(nil, "InitiatorName", "iqn.2010-04.org.ipxe:x")
	b = AppendText(b, "X-com.example#1/a", "a=b")
	b = append(b, 0, 0)
	pairs, err := ParseText(b)
	want := []Pair{{"InitiatorName", "iqn.2010-04.org.ipxe:x"}, {"X-com.example#1/a", "a=b"}}
	if err != nil || !reflect.DeepEqual(pairs, want) {
		t.Errorf("%v %v", pairs, err)
	}
	if pairs, err := ParseText(nil); err != nil || pairs != nil {
		t.Errorf("no text: %v %v", pairs, err)
	}
	many := bytes.Repeat([]byte("k=v\x00"), MaxTextKeys+1)
	for _, bad := range []string{"Key=value", "Key\x00", "=value\x00", "Ke y=v\x00", strings.Repeat("k", 64) + "=v\x00", "Key=\xff\x00", string(many)} {
		if pairs, err := ParseText([]byte(bad)); err == nil {
			t.Errorf("%.40q was read as %v", bad, pairs)
		}
	}
}

func TestAHS(t *testing.T) {
	b, _ := hex.DecodeString("0009" + "01" + "00" + "1011121314151617" + "0005" + "02" + "00" + "00001000")
	a, err := ParseAHS(b)
	if err != nil || !bytes.Equal(a.ExtendedCDB, []byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17}) || !a.Bidirectional || a.BidirectionalReadLength != 4096 {
		t.Errorf("%+v %v", a, err)
	}
	for _, bad := range []string{"00", "00000100", "00ff0100", "0001ff00", "000502000000", "0001010000010100"} {
		b, _ := hex.DecodeString(bad)
		if a, err := ParseAHS(b); err == nil {
			t.Errorf("%s was read as %+v", bad, a)
		}
	}
}

func TestSense(t *testing.T) {
	s, err := ParseSense([]byte{0, 3, 1, 2, 3, 0})
	if err != nil || !bytes.Equal(s, []byte{1, 2, 3}) {
		t.Errorf("% x %v", s, err)
	}
	for _, bad := range [][]byte{{0}, {0, 3, 1, 2}} {
		if _, err := ParseSense(bad); err == nil {
			t.Errorf("% x was read", bad)
		}
	}
	if s, err := ParseSense(nil); s != nil || err != nil {
		t.Errorf("% x %v", s, err)
	}
}

func TestNamesForPeople(t *testing.T) {
	for got, want := range map[string]string{
		OpR2T.String(): "Ready To Transfer", Opcode(0x3e).String(): "opcode 0x3e",
		FuncLogicalUnitReset.String(): "LOGICAL UNIT RESET", TaskFunction(0).String(): "function 0", TaskFunction(99).String(): "function 99",
		LoginNotFound.String(): "0203", Stage(2).String(): "stage 2", FullFeaturePhase.String(): "full feature phase",
		ReasonSNACKReject.String(): "SNACK reject", RejectReason(0x77).String(): "reason 0x77",
		ISID{0x40, 0, 0x27, 0x23, 1, 2}.String(): "400027230102",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The PDUs of the data path cost no memory.
func TestHotPathDoesNotAllocate(t *testing.T) {
	var h Header
	var cmd SCSICommand
	var in DataIn
	var out DataOut
	var rsp SCSIResponse
	var r2t R2T
	cmd.Final = true
	n := testing.AllocsPerRun(100, func() {
		cmd.Encode(&h)
		_ = cmd.Decode(&h)
		out.Encode(&h)
		_ = out.Decode(&h)
		in.Encode(&h)
		_ = in.Decode(&h)
		rsp.Encode(&h)
		_ = rsp.Decode(&h)
		r2t.Encode(&h)
		_ = r2t.Decode(&h)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever decodes encodes to what decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		var h Header
		g.pdu.Encode(&h)
		f.Add(h[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < BHSLength {
			return
		}
		h := Header(b)
		p, err := Decode(&h)
		if err != nil {
			return
		}
		var again Header
		p.Encode(&again)
		q, err := Decode(&again)
		if err != nil {
			t.Fatalf("%+v: its own encoding is refused: %v", p, err)
		}
		if !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v", p, q)
		}
		if a, err := ParseAHS(b[BHSLength:]); err == nil && len(a.ExtendedCDB) > len(b) {
			t.Fatal("an AHS grew")
		}
	})
}

// Text that parses comes back when it is written and parsed again.
func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2010-04.org.ipxe:x\x00AuthMethod=CHAP,None\x00"))
	f.Add([]byte("\x00\x00k=\x00"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b)
		if err != nil {
			return
		}
		var again []byte
		for _, p := range pairs {
			again = AppendText(again, p.Key, p.Value)
		}
		if len(again) > len(b) {
			t.Fatal("text grew")
		}
		q, err := ParseText(again)
		if err != nil || !reflect.DeepEqual(pairs, q) {
			t.Fatalf("%v became %v, %v", pairs, q, err)
		}
	})
}
