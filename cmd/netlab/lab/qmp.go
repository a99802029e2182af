package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// monitor is one connection to a machine's QMP socket (QEMU's
// docs/interop/qmp-spec.txt).
type monitor struct {
	mu     sync.Mutex
	conn   net.Conn
	lines  *bufio.Reader
	answer time.Duration
}

func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connecting to the machine's monitor: %w", err)
	}
	m := &monitor{conn: conn, lines: bufio.NewReader(conn), answer: 30 * time.Second}
	if err := conn.SetDeadline(time.Now().Add(m.answer)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := m.lines.ReadBytes('\n'); err != nil { // the greeting
		return nil, errors.Join(fmt.Errorf("the monitor's greeting: %w", err), conn.Close())
	}
	if err := m.execute("qmp_capabilities", nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

// execute runs one command and waits for its answer; events in between are
// not ours.
func (m *monitor) execute(command string, arguments any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := m.conn.SetDeadline(time.Now().Add(m.answer)); err != nil {
		return err
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("asking the machine to %s: %w", command, err)
	}
	for {
		line, err := m.lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("asking the machine to %s: %w", command, err)
		}
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		switch err := json.Unmarshal(line, &answer); {
		case err != nil:
			return fmt.Errorf("the answer to %s: %w", command, err)
		case answer.Error != nil:
			return fmt.Errorf("the machine refused %s: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			return nil
		}
	}
}

func (m *monitor) close() error { return m.conn.Close() }

// screenshot writes the screen as a PNG.
func (m *monitor) screenshot(path string) error {
	raw := path + ".ppm"
	if err := m.execute("screendump", map[string]any{"filename": raw}); err != nil {
		return err
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		return fmt.Errorf("the screen dump: %w", err)
	}
	if err := os.Remove(raw); err != nil {
		return err
	}
	picture, err := decodePPM(b)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := png.Encode(&out, picture); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// decodePPM reads a binary 8-bit portable pixmap, which is all that QEMU
// writes.
func decodePPM(b []byte) (image.Image, error) {
	var width, height, depth int
	r := bytes.NewReader(b)
	if _, err := fmt.Fscanf(r, "P6\n%d %d\n%d\n", &width, &height, &depth); err != nil || depth != 255 {
		return nil, fmt.Errorf("the screen dump is no 8-bit pixmap: %q", strings.ToValidUTF8(string(b[:min(len(b), 20)]), "?"))
	}
	pixels, err := io.ReadAll(r)
	if err != nil || width <= 0 || height <= 0 || len(pixels)/3/width < height {
		return nil, errors.New("the screen dump is cut short")
	}
	out := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		out.Set(i%width, i/width, color.RGBA{pixels[3*i], pixels[3*i+1], pixels[3*i+2], 255})
	}
	return out, nil
}
