package xcopy

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"lunboot/services/iscsi/scsi/sense"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden is a list as libiscsi sends it: one target by its NAA, one segment of
// 2048 blocks.
const golden = `
	01 00 0020 00000000 0000001c 00000000
	e4 00 0000 01 03 00 08 386ba7b8109dad30 00000000 00000000 00000000 00 000200
	02 00 0018 0000 0000 0000 0800 0000000000000000 000000000001f800`

func TestAListIsRead(t *testing.T) {
	l, err := Parse(unhex(t, golden))
	if err != nil {
		t.Fatal(err)
	}
	want := List{
		ID: 1, Named: true,
		Targets:  []Target{{CodeSet: 1, Kind: 3, Designator: unhex(t, "386ba7b8109dad30"), BlockLength: 512}},
		Segments: []Segment{{Blocks: 2048, To: 0x1f800}},
	}
	if !reflect.DeepEqual(l, want) {
		t.Errorf("%+v, want %+v", l, want)
	}
}

// list makes a parameter list of whole descriptors.
func list(header string, targets, segments int, change func(b []byte)) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		b := unhex(t, header)
		for range targets {
			b = append(b, unhex(t, "e4 00 0000 01 03 00 08 386ba7b8109dad30 000000000000000000000000 00 000200")...)
		}
		for range segments {
			b = append(b, unhex(t, "02 00 0018 0000 0000 0000 0001 0000000000000000 0000000000000010")...)
		}
		b[2], b[3] = byte(targets*32>>8), byte(targets*32)
		b[10], b[11] = byte(segments*28>>8), byte(segments*28)
		if change != nil {
			change(b)
		}
		return b
	}
}

const plain = "01 00 0000 00000000 00000000 00000000"

func TestEveryFaultOfAListIsNamed(t *testing.T) {
	at := func(ascq byte, octet int) error { return parameter(ascq, octet) }
	for _, tc := range []struct {
		name string
		list func(*testing.T) []byte
		want error
	}{
		{"as it should be", list(plain, 1, 1, nil), nil},
		{"as many as there may be", list(plain, MaxTargets, MaxSegments, nil), nil},
		{"nothing to copy", list(plain, 0, 0, nil), nil},
		{"15 bytes", func(t *testing.T) []byte { return make([]byte, 15) }, sense.ParameterLength},
		{"a target cut off", func(t *testing.T) []byte { return list(plain, 1, 1, nil)(t)[:47] }, sense.ParameterLength},
		{"a segment cut off", func(t *testing.T) []byte { return list(plain, 1, 1, nil)(t)[:75] }, sense.ParameterLength},
		{"half a target", list(plain, 1, 0, func(b []byte) { b[3] = 16 }), sense.ParameterLength},
		{"half a segment", list(plain, 1, 1, func(b []byte) { b[11] = 20 }), sense.ParameterLength},
		{"longer than descriptors may be", list(plain, 9, 30, nil), sense.ParameterLength},
		{"a length that wraps", list(plain, 1, 1, func(b []byte) { b[8], b[9] = 0xff, 0xff }), sense.ParameterLength},
		{"inline data", list(plain, 1, 1, func(b []byte) { b[15] = 4 }), at(0x0b, 12)},
		{"too many targets", list(plain, MaxTargets+1, 1, nil), at(0x06, 16+32*MaxTargets)},
		{"too many segments", list(plain, 1, MaxSegments+1, nil), at(0x08, 48+28*MaxSegments)},
		{"a Fibre Channel name", list(plain, 1, 1, func(b []byte) { b[16] = 0xe0 }), at(0x07, 16)},
		{"a tape", list(plain, 1, 1, func(b []byte) { b[17] = 1 }), at(0x07, 16)},
		{"a stream", list(plain, 1, 1, func(b []byte) { b[48] = 3 }), at(0x09, 48)},
		{"a segment of another length", list(plain, 1, 1, func(b []byte) { b[51] = 0x14 }), sense.InvalidParameter(50)},
		{"a designator of 21 bytes", list(plain, 1, 1, func(b []byte) { b[23] = 21 }), sense.InvalidParameter(23)},
		{"a reserved use of the identifier", list(plain, 1, 1, func(b []byte) { b[1] = 1 << 3 }), sense.InvalidParameter(1)},
		{"an identifier that is not to be used", list(plain, 1, 1, func(b []byte) { b[1] = 3 << 3 }), sense.InvalidParameter(0)},
		{"no identifier", list(plain, 1, 1, func(b []byte) { b[0], b[1] = 0, 3<<3 }), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Parse(tc.list(t)); !reflect.DeepEqual(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

func TestWhatIsToldOfCopies(t *testing.T) {
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"a copy that runs", Status{Running: true}.Results(), "00000008 00 0000 01 00000000"},
		{"a copy that is done", Status{Segments: 3, Bytes: 5 << 20}.Results(), "00000008 01 0003 01 00001400"},
		{"a copy that failed", Status{Failed: true, Segments: 1, Bytes: 1 << 10}.Results(), "00000008 02 0001 01 00000001"},
		{"why it failed", Failure{Status: 2, Sense: []byte{0x70, 0, 0x0a}}.Details(), "0000003b" + strings.Repeat("00", 52) + "02 00 0003 70000a"},
		{"the limits", Parameters(), "0000002a 01000000 0008 0010 00000400 10000000 00000000 00000000 00000000 0000 0040 40 09 00 00 000000 02 02e4"},
	} {
		if got, want := hex.EncodeToString(tc.got), strings.ReplaceAll(tc.want, " ", ""); got != want {
			t.Errorf("%s:\n%s, want\n%s", tc.name, got, want)
		}
	}
	for b := Page(); len(b) > 0; {
		n := 4 + int(b[2])<<8 + int(b[3])
		if n%4 != 0 || n > len(b) {
			t.Fatalf("a descriptor of %d bytes in %x", n, b)
		}
		b = b[n:]
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, golden))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		if len(l.Targets) > MaxTargets || len(l.Segments) > MaxSegments {
			t.Errorf("%d targets and %d segments", len(l.Targets), len(l.Segments))
		}
	})
}
