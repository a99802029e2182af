package lab

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxConsole bounds what one machine may print.
const maxConsole = 16 << 20

// Line is one line of a serial console with the time since power-on at which
// its first character came.
type Line struct {
	At   time.Duration
	Text string
}

// Console is what a machine prints on its serial port, as plain text: control
// sequences are taken out, and a cursor that jumps starts a new line. A firmware whose
// timer comes in the middle of a word sends the cursor where it is: that is no jump.
type Console struct {
	mu      sync.Mutex
	started time.Time
	text    []byte
	marks   []mark // where each write began
	escape  []byte // an unfinished control sequence
	row     int    // of the cursor, from 1; 0 before a sequence has set it
	col     int
	read    int // WaitFor's cursor
	woken   chan struct{}
	closed  bool
}

type mark struct {
	at  time.Duration
	off int
}

func newConsole(started time.Time) *Console {
	return &Console{started: started, woken: make(chan struct{})}
}

// Write takes raw bytes of the serial port.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.text) < maxConsole {
		c.marks = append(c.marks, mark{time.Since(c.started), len(c.text)})
		for _, b := range p {
			c.put(b)
		}
	}
	close(c.woken)
	c.woken = make(chan struct{})
	return len(p), nil
}

// put is a small ECMA-48 reader: firmware draws its screens with cursor
// movements, and only the text matters here.
func (c *Console) put(b byte) {
	if len(c.escape) > 0 {
		c.escape = append(c.escape, b)
		csi := len(c.escape) >= 2 && c.escape[1] == '['
		switch {
		case len(c.escape) == 2 && csi: // begins
		case csi && (b < '@' || b > '~') && len(c.escape) < 32: // goes on
		default:
			if csi && (b == 'H' || b == 'f') {
				c.jump(string(c.escape[2 : len(c.escape)-1]))
			}
			c.escape = c.escape[:0]
		}
		return
	}
	switch {
	case b == 0x1b:
		c.escape = append(c.escape, b)
	case b == '\r':
		c.col = 1
	case b == '\n':
		c.text = append(c.text, b)
		if c.row > 0 {
			c.row = min(c.row+1, screenRows)
		}
	case b == '\b' && len(c.text) > 0 && c.text[len(c.text)-1] != '\n':
		c.text = c.text[:len(c.text)-1]
		c.col--
	case b == '\t' || b >= ' ' && b != 0x7f:
		c.text = append(c.text, b)
		c.col++
	}
}

// screenRows are those of the screen that a BIOS shows on the serial port: below the
// last one it scrolls.
const screenRows = 25

// jump moves the cursor as a CUP sequence says (ECMA-48 §8.3.21).
func (c *Console) jump(params string) {
	row, col := 1, 1
	before, after, _ := strings.Cut(params, ";")
	if n, err := strconv.Atoi(before); err == nil {
		row = n
	}
	if n, err := strconv.Atoi(after); err == nil {
		col = n
	}
	if row != c.row || col != c.col {
		c.newline()
	}
	c.row, c.col = row, col
}

func (c *Console) newline() {
	if n := len(c.text); n > 0 && c.text[n-1] != '\n' {
		c.text = append(c.text, '\n')
	}
}

// close says that nothing more will come.
func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.woken)
	}
}

// at is when the character at off came; the lock is held.
func (c *Console) at(off int) time.Duration {
	after := sort.Search(len(c.marks), func(i int) bool { return c.marks[i].off > off })
	if after == 0 {
		return 0
	}
	return c.marks[after-1].at
}

// Match is where a pattern was found.
type Match struct {
	At     time.Duration // since power-on
	Groups []string      // as regexp.FindStringSubmatch
}

// WaitFor waits until the pattern comes, from where the last match ended. It
// fails when ctx ends or when the machine does.
func (c *Console) WaitFor(ctx context.Context, pattern string) (Match, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return Match{}, err
	}
	for {
		c.mu.Lock()
		if found := re.FindSubmatchIndex(c.text[c.read:]); found != nil {
			m := Match{At: c.at(c.read + found[0])}
			for i := 0; i < len(found); i += 2 {
				group := ""
				if found[i] >= 0 {
					group = string(c.text[c.read+found[i] : c.read+found[i+1]])
				}
				m.Groups = append(m.Groups, group)
			}
			c.read += found[1]
			c.mu.Unlock()
			return m, nil
		}
		woken, closed := c.woken, c.closed
		c.mu.Unlock()
		if closed {
			return Match{}, fmt.Errorf("the machine ended before %q came; its last lines:\n%s", pattern, c.Tail(15))
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return Match{}, fmt.Errorf("%q did not come: %w; the console's last lines:\n%s", pattern, context.Cause(ctx), c.Tail(15))
		}
	}
}

// Text returns everything so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Find returns the last match of the pattern in everything so far, and nil
// when there is none.
func (c *Console) Find(pattern string) []string {
	all := regexp.MustCompile("(?m)"+pattern).FindAllStringSubmatch(c.Text(), -1)
	if len(all) == 0 {
		return nil
	}
	return all[len(all)-1]
}

// Tail returns the last n lines that are not empty.
func (c *Console) Tail(n int) string {
	var lines []string
	for line := range strings.Lines(c.Text()) {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, "  | "+strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Follow calls show for each complete line from the beginning, until the
// machine ends or ctx does. Empty lines are left out.
func (c *Console) Follow(ctx context.Context, show func(Line)) {
	off := 0
	for {
		c.mu.Lock()
		var lines []Line
		for off < len(c.text) {
			end := bytes.IndexByte(c.text[off:], '\n')
			if end < 0 && !c.closed {
				break
			}
			if end < 0 {
				end = len(c.text) - off
			}
			if text := strings.TrimSpace(string(c.text[off : off+end])); text != "" {
				lines = append(lines, Line{c.at(off), text})
			}
			off = min(off+end+1, len(c.text))
		}
		woken, closed := c.woken, c.closed
		c.mu.Unlock()
		for _, line := range lines {
			show(line)
		}
		if closed {
			return
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return
		}
	}
}
