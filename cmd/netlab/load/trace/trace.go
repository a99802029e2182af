// Package trace keeps what a machine asked of its volume while it booted, as a
// small text file that a person can read, and records it: a Recorder stands
// between a machine and its target and looks at the headers that pass.
package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Op is what a machine does in a step.
type Op uint8

// The steps. A login opens a session and leaves the one before, without a word,
// as firmware does.
const (
	Login Op = iota + 1
	Read
	Write
	Flush
)

var opNames = map[Op]string{Login: "login", Read: "read", Write: "write", Flush: "flush"}

// String is the step's word in a file.
func (o Op) String() string { return opNames[o] }

// Step is one command, or a login.
type Step struct {
	At time.Duration // since the first login
	Op Op
	// Segment is what a login declared as MaxRecvDataSegmentLength: into pieces of
	// that size the target cuts what is read.
	Segment int
	// Depth is how many commands of the session were in flight with this one. In
	// a replay it is sent when no more than that would be: a machine that waited
	// for an answer waits for it again.
	Depth  int
	Block  int64 // the first
	Blocks int
}

// Trace is one boot.
type Trace struct {
	About     []string // which machine, what made it: lines of the file's comment
	Size      int64    // bytes of the volume
	BlockSize int
	Steps     []Step
}

// Bounds of a trace. A READ(10) counts its blocks with 16 bits (SBC-4 §5.11).
const (
	MaxSteps   = 1 << 20
	MaxDepth   = 256
	MaxBlocks  = 1<<16 - 1
	MaxSize    = 1 << 41 // what a READ(10) reaches
	maxSegment = 1<<24 - 1
	maxLine    = 1 << 10
	maxAbout   = 64
)

const magic = "netlab trace 1"

// Encode writes a trace: the first line says what it is, # begins a comment, and
// then there is a line for each step.
func (t *Trace) Encode(w io.Writer) error {
	if err := t.check(); err != nil {
		return err
	}
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, magic)
	for _, line := range t.About {
		fmt.Fprintln(b, strings.TrimRight("# "+line, " "))
	}
	fmt.Fprintf(b, "# login: µs, what it is, MaxRecvDataSegmentLength\n# read, write, flush: µs, what it is, commands in flight with it, first block, blocks\nsize %d\nblock %d\n", t.Size, t.BlockSize)
	for _, s := range t.Steps {
		if s.Op == Login {
			fmt.Fprintln(b, s.At.Microseconds(), s.Op, s.Segment)
			continue
		}
		fmt.Fprintln(b, s.At.Microseconds(), s.Op, s.Depth, s.Block, s.Blocks)
	}
	return b.Flush()
}

// Decode reads what Encode wrote. An error names the line.
func Decode(r io.Reader) (*Trace, error) {
	t := &Trace{}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, maxLine), maxLine)
	n := 0
	for in.Scan() {
		n++
		line := in.Text()
		err := error(nil)
		switch {
		case n == 1:
			if line != magic {
				err = fmt.Errorf("it begins with %q, a trace with %q", line, magic)
			}
		case strings.HasPrefix(line, "#"):
			if len(t.Steps) == 0 && t.Size == 0 && !strings.HasPrefix(line, "# login: ") && !strings.HasPrefix(line, "# read, ") {
				t.About = append(t.About, strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
			}
		default:
			err = t.line(strings.Fields(line))
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	return t, t.check()
}

// line reads one that is no comment.
func (t *Trace) line(f []string) error {
	switch {
	case len(f) == 2 && f[0] == "size" && t.Size == 0:
		n, err := number(f[1], MaxSize)
		t.Size = n
		return err
	case len(f) == 2 && f[0] == "block" && t.BlockSize == 0:
		n, err := number(f[1], 4096)
		t.BlockSize = int(n)
		return err
	case len(f) < 3 || len(t.Steps) == MaxSteps:
		return fmt.Errorf("a line of %d words after %d steps", len(f), len(t.Steps))
	}
	at, err := number(f[0], int64(24*time.Hour/time.Microsecond))
	if err != nil {
		return err
	}
	s := Step{At: time.Duration(at) * time.Microsecond}
	for op, name := range opNames {
		if name == f[1] {
			s.Op = op
		}
	}
	var more []int64
	for _, word := range f[2:] {
		n, err := number(word, MaxSize)
		if err != nil {
			return err
		}
		more = append(more, n)
	}
	switch {
	case s.Op == Login && len(more) == 1:
		s.Segment = int(min(more[0], maxSegment+1))
	case s.Op > Login && len(more) == 3:
		s.Depth, s.Block, s.Blocks = int(min(more[0], MaxDepth+1)), more[1], int(min(more[2], MaxBlocks+1))
	default:
		return fmt.Errorf("%q is no step", strings.Join(f, " "))
	}
	t.Steps = append(t.Steps, s)
	return t.step(len(t.Steps) - 1)
}

func number(s string, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is no number from 0 to %d", s, most)
	}
	return n, nil
}

func (t *Trace) check() error {
	switch {
	case t.BlockSize != 512 && t.BlockSize != 4096:
		return fmt.Errorf("a trace of blocks of %d bytes: they have 512 or 4096", t.BlockSize)
	case t.Size <= 0 || t.Size > MaxSize || t.Size%int64(t.BlockSize) != 0:
		return fmt.Errorf("a trace of a volume of %d bytes", t.Size)
	case len(t.Steps) == 0 || t.Steps[0].Op != Login:
		return errors.New("a trace begins with a login")
	case len(t.Steps) > MaxSteps:
		return fmt.Errorf("a trace of %d steps, %d are the most", len(t.Steps), MaxSteps)
	case len(t.About) > maxAbout:
		return fmt.Errorf("a trace with %d lines about it, %d are the most", len(t.About), maxAbout)
	}
	for _, line := range t.About {
		if len(line) > maxLine-8 || strings.ContainsAny(line, "\r\n") {
			return errors.New("what is said about a trace is short lines")
		}
	}
	for k := range t.Steps {
		if err := t.step(k); err != nil {
			return fmt.Errorf("step %d: %w", k+1, err)
		}
	}
	return nil
}

// step checks one.
func (t *Trace) step(k int) error {
	s := t.Steps[k]
	switch {
	case s.At < 0 || k > 0 && s.At < t.Steps[k-1].At:
		return fmt.Errorf("it comes at %v, before the one before it", s.At)
	case k == 0 && s.Op != Login:
		return errors.New("a trace begins with a login")
	case s.Op == Login && (s.Segment < 512 || s.Segment > maxSegment):
		return fmt.Errorf("a login with a MaxRecvDataSegmentLength of %d", s.Segment)
	case s.Op == Login:
		return nil
	case s.Depth < 1 || s.Depth > MaxDepth:
		return fmt.Errorf("%d commands in flight, 1 to %d can be", s.Depth, MaxDepth)
	case s.Op != Flush && (s.Blocks < 1 || s.Blocks > MaxBlocks):
		return fmt.Errorf("a %s of %d blocks, 1 to %d can be", s.Op, s.Blocks, MaxBlocks)
	case s.Op == Flush && s.Blocks > MaxBlocks:
		return fmt.Errorf("a flush of %d blocks", s.Blocks)
	case t.BlockSize == 0 || s.Block < 0 || s.Block > t.Size/int64(t.BlockSize)-int64(s.Blocks):
		return fmt.Errorf("blocks %d to %d are not on the volume", s.Block, s.Block+int64(s.Blocks))
	}
	return nil
}

// Bytes is how much a step moves.
func (t *Trace) Bytes(s Step) int {
	if s.Op == Flush {
		return 0
	}
	return s.Blocks * t.BlockSize
}

// Sum is what a trace asks for in all.
type Sum struct {
	Logins, Reads, Writes, Flushes int
	Read, Written                  int64 // bytes
	Depth, Largest                 int   // the most in flight, and the most bytes of a command
}

// Sum counts.
func (t *Trace) Sum() (n Sum) {
	for _, s := range t.Steps {
		b := t.Bytes(s)
		n.Depth, n.Largest = max(n.Depth, s.Depth), max(n.Largest, b)
		switch s.Op {
		case Login:
			n.Logins++
		case Read:
			n.Reads++
			n.Read += int64(b)
		case Write:
			n.Writes++
			n.Written += int64(b)
		case Flush:
			n.Flushes++
		}
	}
	return n
}

// String says it in a line.
func (n Sum) String() string {
	return fmt.Sprintf("%d logins, %d reads of %.1f MiB, %d writes of %.1f MiB, %d flushes, at most %d in flight",
		n.Logins, n.Reads, float64(n.Read)/(1<<20), n.Writes, float64(n.Written)/(1<<20), n.Flushes, n.Depth)
}
