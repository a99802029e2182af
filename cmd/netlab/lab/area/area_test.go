package area

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// disk is a sparse disk in memory.
type disk map[int64][]byte

func (d disk) WriteAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += 512 {
		d[off+int64(i)] = bytes.Clone(p[i : i+512])
	}
	return len(p), nil
}

func (d disk) ReadAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += 512 {
		clear(p[i : i+512])
		copy(p[i:i+512], d[off+int64(i)])
	}
	return len(p), nil
}

func TestTheAreasDoNotOverlapAndEndWithTheDisk(t *testing.T) {
	ends := []int64{ESPStart, ESPStart + ESPSize, RootStart, RootStart + RootSize, AreaStart, ControlAt + blockSize, PatternAt, PatternAt + PatternSize, RecordsAt, RecordsAt + RecordSlots*RecordSize, DiskSize}
	for i := 1; i < len(ends); i++ {
		if ends[i] < ends[i-1] {
			t.Errorf("offset %d comes before %d", ends[i], ends[i-1])
		}
	}
	if last := RecordAt(RecordSlots-1) + RecordSize; last != DiskSize {
		t.Errorf("the last record ends at %d, the disk at %d", last, DiskSize)
	}
}

func TestWhatTheHostAsksReachesTheGuest(t *testing.T) {
	d := disk{}
	want := Control{Nonce: NewNonce(), Mode: Records, Count: 7, Report: "http://10.77.0.1/report?up=1&mac={mac}"}
	if err := Stamp(d, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadControl(d)
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestAControlBlockThatCannotBeMeantIsRefused(t *testing.T) {
	for _, c := range []Control{
		{Mode: "dance"}, {Mode: PowerOff, Count: -1}, {Mode: PowerOff, Report: "http://a\nmode=hold"}, {Mode: PowerOff, Report: strings.Repeat("x", 5000)},
	} {
		if err := Stamp(disk{}, c); err == nil {
			t.Errorf("%+v was stamped", c)
		}
	}
	if _, err := ReadControl(disk{}); !errors.Is(err, ErrNoControl) {
		t.Errorf("an empty disk gives %v", err)
	}
	if _, err := DecodeControl([]byte(magic + "nonce=zz\n")); err == nil {
		t.Error("a nonce that is none was read")
	}
	if _, err := DecodeControl([]byte(magic + "mode=hold\n")); !errors.Is(err, ErrNoControl) {
		t.Errorf("a block without a nonce gives %v", err)
	}
}

func TestOneWrongByteOfThePatternShows(t *testing.T) {
	d, nonce := disk{}, NewNonce()
	if err := CheckPattern(d, nonce); err == nil {
		t.Error("an empty disk has the pattern")
	}
	if _, err := d.WriteAt(Pattern(nonce), PatternAt); err != nil {
		t.Fatal(err)
	}
	if err := CheckPattern(d, nonce); err != nil {
		t.Error(err)
	}
	if err := CheckPattern(d, NewNonce()); err == nil {
		t.Error("another machine's pattern is taken for this one's")
	}
	d[PatternAt+512*100][17] ^= 1
	if err := CheckPattern(d, nonce); err == nil {
		t.Error("a flipped bit does not show")
	}
}

func TestALostRecordShows(t *testing.T) {
	d, nonce := disk{}, NewNonce()
	write := func(n uint64) {
		if _, err := d.WriteAt(Record(nonce, n), RecordAt(n)); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint64(1); n <= 50; n++ {
		write(n)
	}
	if err := CheckRecords(d, nonce, 50); err != nil {
		t.Error(err)
	}
	if err := CheckRecords(d, nonce, 51); err == nil {
		t.Error("record 51 was never written and is not missed")
	}
	d[RecordAt(20)] = make([]byte, 512)
	if err := CheckRecords(d, nonce, 50); err == nil || !strings.Contains(err.Error(), "record 20") {
		t.Errorf("record 20 is lost: %v", err)
	}
}

func TestTheRingOfRecordsMayBeARoundAhead(t *testing.T) {
	d, nonce := disk{}, NewNonce()
	last := uint64(RecordSlots + 10)
	for n := uint64(1); n <= last+1; n++ { // one more than was acknowledged
		if _, err := d.WriteAt(Record(nonce, n), RecordAt(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckRecords(d, nonce, last); err != nil {
		t.Error(err)
	}
	if _, err := d.WriteAt(Record(nonce, 10), RecordAt(10)); err != nil { // the second round's write was lost
		t.Fatal(err)
	}
	if err := CheckRecords(d, nonce, last); err == nil {
		t.Error("an old round's record passes for the last round's")
	}
}

func TestANonceReadsAsItPrints(t *testing.T) {
	n := NewNonce()
	if got, err := ParseNonce(n.String()); err != nil || got != n {
		t.Errorf("%v became %v, %v", n, got, err)
	}
	if _, err := ParseNonce("12"); err == nil {
		t.Error("a short nonce was read")
	}
}
