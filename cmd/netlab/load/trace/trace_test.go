package trace

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func boot() *Trace {
	return &Trace{About: []string{"A machine of a test.", "", "Made by hand."}, Size: 1 << 20, BlockSize: 512, Steps: []Step{
		{Op: Login, Segment: 8192},
		{At: 12 * time.Millisecond, Op: Read, Depth: 1, Block: 0, Blocks: 1},
		{At: 12 * time.Millisecond, Op: Read, Depth: 2, Block: 2040, Blocks: 8},
		{At: time.Second, Op: Login, Segment: 262144},
		{At: time.Second + time.Microsecond, Op: Write, Depth: 1, Block: 64, Blocks: 16},
		{At: 2 * time.Second, Op: Flush, Depth: 1},
	}}
}

func TestATraceIsReadAsItWasWritten(t *testing.T) {
	var b bytes.Buffer
	if err := boot().Encode(&b); err != nil {
		t.Fatal(err)
	}
	if want := "netlab trace 1\n# A machine of a test.\n#\n# Made by hand.\n"; !strings.HasPrefix(b.String(), want) {
		t.Errorf("it begins\n%s", b.String())
	}
	got, err := Decode(&b)
	if err != nil || !reflect.DeepEqual(got, boot()) {
		t.Errorf("read back: %+v, %v", got, err)
	}
	sum := got.Sum()
	if sum != (Sum{Logins: 2, Reads: 2, Writes: 1, Flushes: 1, Read: 9 * 512, Written: 16 * 512, Depth: 2, Largest: 8192}) {
		t.Errorf("the sum is %+v", sum)
	}
	if s := sum.String(); !strings.Contains(s, "2 logins, 2 reads") || !strings.Contains(s, "1 flushes, at most 2 in flight") {
		t.Errorf("the sum reads %q", s)
	}
}

// What is wrong is named with its line, and nothing impossible reaches a replay.
func TestAFileThatIsNoTraceSaysWhere(t *testing.T) {
	const head = "netlab trace 1\nsize 1048576\nblock 512\n0 login 8192\n"
	for text, want := range map[string]string{
		"":                               "blocks of 0 bytes",
		"#!ipxe\n":                       "line 1",
		"netlab trace 2\n":               "line 1",
		"netlab trace 1\nsize 1048576\n": "blocks of 0 bytes",
		"netlab trace 1\nsize 1048576\nblock 520\n0 login 8192\n":    "520",
		"netlab trace 1\nsize 1000\nblock 512\n0 login 8192\n":       "1000 bytes",
		"netlab trace 1\nblock 512\n0 login 8192\n":                  "0 bytes",
		"netlab trace 1\nsize 1048576\nblock 512\n":                  "begins with a login",
		"netlab trace 1\nsize 1048576\nblock 512\n0 flush 1 0 0":     "line 4: a trace begins with a login",
		head + "1 login 100\n":                                       "line 5: a login with a MaxRecvDataSegmentLength of 100",
		head + "1 login 99999999\n":                                  "line 5",
		head + "1 login\n":                                           "line 5",
		head + "1 dance 1 0 1\n":                                     "line 5",
		head + "1 read 1 0\n":                                        "line 5",
		head + "1 read 1 0 1 1\n":                                    "line 5",
		head + "1 read 0 0 1\n":                                      "line 5: 0 commands in flight",
		head + "1 read 257 0 1\n":                                    "line 5",
		head + "1 read 1 0 0\n":                                      "line 5: a read of 0 blocks",
		head + "1 write 1 0 65536\n":                                 "line 5",
		head + "1 read 1 2048 1\n":                                   "line 5: blocks 2048 to 2049 are not on the volume",
		head + "1 read 1 9223372036854775807 1":                      "line 5",
		head + "1 read 1 -1 1\n":                                     "line 5",
		head + "x read 1 0 1\n":                                      "line 5",
		head + "5 read 1 0 1\n4 read 1 0 1\n":                        "line 6: it comes at 4µs",
		head + "99999999999999 read 1 0 1\n":                         "line 5",
		head + "size 1048576\n":                                      "line 5",
		head + strings.Repeat("#", 2000) + "\n":                      "line 5",
		"netlab trace 1\n" + strings.Repeat("# x\n", 70) + head[15:]: "70 lines about it",
	} {
		if _, err := Decode(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v does not say %q", text, err, want)
		}
	}
	if err := (&Trace{Size: 512, BlockSize: 512, Steps: []Step{{Op: Read, Depth: 1, Blocks: 1}}}).Encode(&bytes.Buffer{}); err == nil {
		t.Error("a trace without a login is written")
	}
	bad := boot()
	bad.About = []string{"two\nlines"}
	if err := bad.Encode(&bytes.Buffer{}); err == nil {
		t.Error("a comment of two lines is written")
	}
	bad = boot()
	bad.Steps[2].Block = 1 << 40
	if err := bad.Encode(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "step 3") {
		t.Errorf("a step beyond the volume: %v", err)
	}
}

// The boot that the bench replays is a boot: firmware's logins and the system's,
// and more read than written.
func TestTheRecordedBootIsOne(t *testing.T) {
	f, err := os.Open("../../bios.trace")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	n := b.Sum()
	if n.Logins < 2 || n.Reads < 500 || n.Writes == 0 || n.Flushes == 0 || n.Read < 16<<20 || n.Written > n.Read || b.Steps[0].Segment != 8192 {
		t.Errorf("it is %s", n)
	}
	if last := b.Steps[len(b.Steps)-1]; last.Op != Flush {
		t.Errorf("it ends with a %s: a file system that was mounted is flushed last", last.Op)
	}
	if text := strings.Join(b.About, "\n"); !strings.Contains(text, "Made by: netlab trace") {
		t.Errorf("it does not say how it was made:\n%s", text)
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	if err := boot().Encode(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("netlab trace 1\nsize 4096\nblock 4096\n0 login 512\n0 flush 1 0 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := Decode(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range first.Steps {
			if s.Op != Login && (s.Block+int64(s.Blocks))*int64(first.BlockSize) > first.Size {
				t.Fatalf("%+v is beyond the volume", s)
			}
		}
		var again bytes.Buffer
		if err := first.Encode(&again); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		second, err := Decode(&again)
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%+v is read back as %+v, %v", first, second, err)
		}
	})
}
