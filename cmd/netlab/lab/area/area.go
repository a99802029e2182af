// Package area knows where things lie on a lab disk: the partitions, and the
// reserved area behind them in which the host and the guest leave each other
// messages. Both sides import it, so that neither can be wrong alone. It knows
// no machine, no network and no file.
package area

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The layout of a Linux lab disk, in bytes. GRUB's core lies in the gap before
// the first partition; the reserved area belongs to no partition, so no file
// system of the guest touches it.
const (
	DiskSize    = 96 << 20
	ESPStart    = 1 << 20
	ESPSize     = 39 << 20
	RootStart   = ESPStart + ESPSize
	RootSize    = 48 << 20
	AreaStart   = RootStart + RootSize
	AreaSize    = DiskSize - AreaStart
	ControlAt   = AreaStart              // one block: what the host asks of the guest
	PatternAt   = AreaStart + 64<<10     // what the guest wrote
	PatternSize = 256 << 10              //
	RecordsAt   = AreaStart + 1<<20      // numbered records, a ring
	RecordSize  = 4096                   //
	RecordSlots = (7 << 20) / RecordSize // to the end of the disk
	blockSize   = 4096
)

// RootLabel and ESPLabel name the file systems.
const (
	RootLabel = "LUNBOOT-ROOT"
	ESPLabel  = "LUNBOOT"
)

// Lines that a guest prints on its serial console, at the start of a line.
const (
	MarkUp      = "LUNBOOT-UP"      // the operating system runs from the volume
	MarkWrote   = "LUNBOOT-WROTE"   // the pattern is on the volume, flushed and read back
	MarkRecord  = "REC"             // "REC n": record n is flushed
	MarkTick    = "TICK"            // "TICK n": another uncached read came back
	MarkDone    = "LUNBOOT-DONE"    // unmounted, about to power off
	MarkFail    = "LUNBOOT-FAIL"    // what went wrong, in a sentence
	MarkAdopted = "LUNBOOT-ADOPTED" // iscsid has taken the session over and will log in again when it breaks
)

// Workbench, on the kernel's command line, makes the guest a workbench: it
// boots nothing and runs the commands that come over the serial port, one a
// line, in base64. Each ends with MarkExit, its number and its exit status.
const (
	Workbench = "lunboot.workbench"
	MarkReady = "LUNBOOT-READY"
	MarkExit  = "LUNBOOT-EXIT"
)

// Nonce is what the host hides on a volume to see that the guest booted from
// that volume and no other.
type Nonce [16]byte

// NewNonce makes a random nonce.
func NewNonce() Nonce {
	var n Nonce
	rand.Read(n[:])
	return n
}

// String prints 32 hexadecimal digits.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// ParseNonce reads what String printed.
func ParseNonce(s string) (Nonce, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(Nonce{}) {
		return Nonce{}, fmt.Errorf("%q is not a nonce of 32 hexadecimal digits", s)
	}
	return Nonce(b), nil
}

// Mode is what a guest does once it is up.
type Mode string

// The modes of a guest.
const (
	PowerOff Mode = "poweroff" // write, flush, read back, power off
	Records  Mode = "records"  // then write numbered records, each flushed before its number is printed
	Hold     Mode = "hold"     // then read uncached twice a second, for as long as the host lets it run
)

// Control is what the host asks of the guest.
type Control struct {
	Nonce  Nonce
	Mode   Mode
	Count  int    // Records: how many, 0 for no end
	Report string // a URL to GET once up; "{mac}" in it becomes the machine's; empty for none
}

const magic = "lunboot-lab-disk 1\n"

// Encode prints c as the block at ControlAt: readable lines, padded with
// zeros.
func (c Control) Encode() ([]byte, error) {
	if strings.ContainsAny(c.Report, "\n\x00") || len(c.Report) > 2048 {
		return nil, fmt.Errorf("control block: %q is no URL for the guest", c.Report)
	}
	if !slices.Contains([]Mode{PowerOff, Records, Hold}, c.Mode) || c.Count < 0 {
		return nil, fmt.Errorf("control block: mode %q with count %d", c.Mode, c.Count)
	}
	text := fmt.Sprintf("%snonce=%s\nmode=%s\ncount=%d\nreport=%s\n", magic, c.Nonce, c.Mode, c.Count, c.Report)
	return append([]byte(text), make([]byte, blockSize-len(text))...), nil
}

// ErrNoControl says that a disk is no lab disk, or was never stamped.
var ErrNoControl = errors.New("no control block: this is not a stamped lab disk")

// DecodeControl reads what Encode printed.
func DecodeControl(b []byte) (Control, error) {
	text, found := bytes.CutPrefix(b, []byte(magic))
	if !found {
		return Control{}, ErrNoControl
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	var c Control
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		var err error
		switch key {
		case "nonce":
			c.Nonce, err = ParseNonce(value)
		case "mode":
			c.Mode = Mode(value)
		case "count":
			c.Count, err = strconv.Atoi(value)
		case "report":
			c.Report = value
		}
		if err != nil {
			return Control{}, fmt.Errorf("control block: %w", err)
		}
	}
	if c.Nonce == (Nonce{}) {
		return Control{}, ErrNoControl
	}
	return c, nil
}

// Stamp writes c to a disk image or a volume's raw file.
func Stamp(w io.WriterAt, c Control) error {
	b, err := c.Encode()
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(b, ControlAt); err != nil {
		return fmt.Errorf("stamping the lab disk: %w", err)
	}
	return nil
}

// ReadControl reads the control block of a disk.
func ReadControl(r io.ReaderAt) (Control, error) {
	b := make([]byte, blockSize)
	if _, err := r.ReadAt(b, ControlAt); err != nil {
		return Control{}, fmt.Errorf("reading the control block: %w", err)
	}
	return DecodeControl(b)
}

// Pattern is what a guest with that nonce writes at PatternAt: no two blocks
// are alike, so a block in the wrong place shows.
func Pattern(n Nonce) []byte {
	out := make([]byte, 0, PatternSize)
	for i := uint32(0); len(out) < PatternSize; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(n[:], i))
		out = append(out, sum[:]...)
	}
	return out
}

// CheckPattern says whether the guest's pattern is on the disk, byte for byte.
func CheckPattern(r io.ReaderAt, n Nonce) error {
	got := make([]byte, PatternSize)
	if _, err := r.ReadAt(got, PatternAt); err != nil {
		return fmt.Errorf("reading the guest's pattern: %w", err)
	}
	want := Pattern(n)
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("the guest's write is not on the disk: byte %d of the pattern is %02x, should be %02x", i, got[i], want[i])
		}
	}
	return nil
}

// RecordAt is the offset of record n on the disk: a ring of RecordSlots.
func RecordAt(n uint64) int64 { return RecordsAt + int64(n%RecordSlots)*RecordSize }

// Record is the block that a guest writes for number n.
func Record(nonce Nonce, n uint64) []byte {
	b := make([]byte, RecordSize)
	copy(b, nonce[:])
	binary.BigEndian.PutUint64(b[16:], n)
	for i := 32; i < RecordSize; i += 8 {
		binary.BigEndian.PutUint64(b[i:], n*0x9e3779b97f4a7c15+uint64(i))
	}
	binary.BigEndian.PutUint32(b[24:], crc32.ChecksumIEEE(b[32:]))
	return b
}

// CheckRecords says whether every record that the guest had flushed is on the
// disk: last is the highest number that it printed. Numbers begin at 1. A slot
// may already hold a later round: a write whose flush was not yet
// acknowledged may be there or not.
func CheckRecords(r io.ReaderAt, nonce Nonce, last uint64) error {
	first := uint64(1)
	if last > RecordSlots {
		first = last - RecordSlots + 1
	}
	b := make([]byte, RecordSize)
	for n := first; n <= last; n++ {
		if _, err := r.ReadAt(b, RecordAt(n)); err != nil {
			return fmt.Errorf("reading record %d: %w", n, err)
		}
		if !bytes.Equal(b, Record(nonce, n)) && !bytes.Equal(b, Record(nonce, n+RecordSlots)) {
			return fmt.Errorf("record %d was flushed and acknowledged, and is not on the disk (its slot says %d)", n, binary.BigEndian.Uint64(b[16:]))
		}
	}
	return nil
}
