package httpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secure is a server that speaks HTTPS, and a client that trusts it.
func secure(t *testing.T, o Options) (s *Server, c *http.Client) {
	t.Helper()
	model := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(model.Close)
	o.TLS = &tls.Config{Certificates: model.TLS.Certificates}
	o.Log = slog.New(slog.DiscardHandler)
	s = New("secure", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.URL.String())
	}), o)
	require.NoError(t, s.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	return s, model.Client()
}

func TestOnePortSpeaksHTTPSAndShowsHTTPTheWay(t *testing.T) {
	s, c := secure(t, Options{})
	at := s.Addr().String()
	resp, err := c.Get("https://" + at + "/machines")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, "HTTP/1.1 /machines", string(body))

	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err = c.Get("http://" + at + "/machines?q=lab%2001")
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode)
	assert.Equal(t, "https://"+at+"/machines?q=lab%2001", resp.Header.Get("Location"))

	// A password that came in the clear is not sent on.
	resp, err = c.Post("http://"+at+"/login", "application/x-www-form-urlencoded", strings.NewReader("password=x"))
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
	body, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(body), "HTTPS")
}

func TestWhoSaysNothingOrNonsenseToTheTLSPortIsLetGo(t *testing.T) {
	s, _ := secure(t, Options{HeaderTime: 200 * time.Millisecond, MaxHeader: 4096})
	for _, say := range []string{"", "GET / HT", "\x00\x01\x02", "GET / HTTP/1.1\r\nX: " + strings.Repeat("y", 10000)} {
		conn, err := net.Dial("tcp", s.Addr().String())
		require.NoError(t, err)
		_, err = io.WriteString(conn, say)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		_, err = io.Copy(io.Discard, bufio.NewReader(conn))
		if ne, ok := err.(net.Error); ok {
			assert.False(t, ne.Timeout(), "%q keeps its connection", say)
		}
		conn.Close()
	}
}
