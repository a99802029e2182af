package httpd

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// recordHandshake begins every TLS connection (RFC 8446 §5.1).
const recordHandshake = 22

// plainAware is a listener for TLS that shows who speaks HTTP to it the way.
type plainAware struct {
	net.Listener
	config *tls.Config
	most   int // bytes of a plain request's header
}

func (l plainAware) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tls.Server(&firstByte{Conn: c, most: l.most}, l.config), nil
}

// firstByte looks at what a connection begins with. The deadline of the server's
// handshake bounds its reads and its answer.
type firstByte struct {
	net.Conn
	most int
	told bool // the beginning was looked at; only the handshake reads before that
}

func (c *firstByte) Read(p []byte) (int, error) {
	if c.told {
		return c.Conn.Read(p)
	}
	c.told = true
	n, err := c.Conn.Read(p)
	if n == 0 || p[0] == recordHandshake {
		return n, err
	}
	c.show(p[:n])
	return 0, io.EOF
}

// show answers a plain request with the same address under https. One that
// changes something is not sent on: what it carries was heard by everybody.
func (c *firstByte) show(begun []byte) {
	rest := io.LimitReader(c.Conn, int64(c.most))
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(begun), rest)))
	status, to, text := http.StatusBadRequest, "", "This port speaks HTTPS.\n"
	if err == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Host != "" {
		u := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
		status, to, text = http.StatusTemporaryRedirect, "Location: "+u.String()+"\r\n", ""
	}
	fmt.Fprintf(c.Conn, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), to, len(text), text)
}
