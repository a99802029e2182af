package ipmi

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/bougou/go-ipmi"
)

// line is the one socket to a BMC. The library opens and closes as it likes, and
// leaves a reader behind when it is canceled; the line ends with the context, and
// every read on it with that.
type line struct {
	net.Conn

	mu   sync.Mutex
	ctx  context.Context
	stop func() bool

	// Of the one exchange under way, which the library keeps to one at a time.
	said  ipmi.RmcpStatusCode // of the last answer, when that was one of a handshake
	last  []byte              // the request
	owed  int                 // answers to it that are still to come
	since time.Time           // it was sent first
	took  time.Duration       // until its first answer
}

func dial(ctx context.Context, at string) (*line, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", at)
	if err != nil {
		return nil, err
	}
	l := &line{Conn: c}
	l.until(ctx)
	return l, nil
}

// until makes the line end with another context than before.
func (l *line) until(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop()
	}
	l.ctx = ctx
	l.stop = context.AfterFunc(ctx, func() { l.Conn.SetReadDeadline(time.Now()) })
}

// Dial gives the library the line that there is.
func (l *line) Dial(string, string) (net.Conn, error) { return l, nil }

// SetReadDeadline takes the library's time for an answer, within the context's.
func (l *line) SetReadDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end, ok := l.ctx.Deadline(); ok && end.Before(t) {
		t = end
	}
	if l.ctx.Err() != nil {
		t = time.Now()
	}
	return l.Conn.SetReadDeadline(t)
}

// Write sends a request. One that was sent twice, since its answer was slow, is
// answered twice, and the second answer must not be taken for that of what follows:
// the library does not compare them. So the line waits for what is still to come.
func (l *line) Write(p []byte) (int, error) {
	l.said = ipmi.RmcpStatusCodeNoErrors
	if bytes.Equal(p, l.last) {
		l.owed++
		return l.Conn.Write(p)
	}
	if err := l.settle(); err != nil {
		return 0, err
	}
	l.last, l.owed, l.since = bytes.Clone(p), 1, time.Now()
	return l.Conn.Write(p)
}

// slack is what an answer may take besides.
const slack = 500 * time.Millisecond

// settle waits for the answers that are owed, twice as long as the first one took:
// a BMC that was slow works on them one after the other.
func (l *line) settle() error {
	if l.owed <= 0 || l.took == 0 {
		return nil
	}
	if err := l.SetReadDeadline(time.Now().Add(2*l.took + slack)); err != nil {
		return err
	}
	var b [1]byte
	for ; l.owed > 0; l.owed-- {
		if _, err := l.Conn.Read(b[:]); err != nil {
			return nil // it was lost
		}
	}
	return nil
}

// Read takes an answer. What a BMC says against a login stands in the second byte
// of the payload (tables 13-10, 13-12 and 13-14), behind headers of 4 and 12 bytes;
// the library drops it, and some BMCs send nothing after it.
func (l *line) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err == nil {
		l.owed--
		l.took = time.Since(l.since)
	}
	const format, kind, status = 4, 5, 17
	if err == nil && n > status && p[format] == uint8(ipmi.AuthTypeRMCPPlus) {
		switch ipmi.PayloadType(p[kind] & 0x3f) {
		case ipmi.PayloadTypeRmcpOpenSessionResponse, ipmi.PayloadTypeRAKPMessage2, ipmi.PayloadTypeRAKPMessage4:
			l.said = ipmi.RmcpStatusCode(p[status])
		}
	}
	return n, err
}

// Close is the library's, which closes before it is done; end closes.
func (l *line) Close() error { return nil }

func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop()
	l.Conn.Close()
}
