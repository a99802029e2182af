package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() Options {
	return Options{Flag: "--boot", Log: slog.New(slog.DiscardHandler), Drain: time.Second}
}

// start serves s and returns a stop that may be called twice.
func start(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-served })
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

func client(t *testing.T, network, addr string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(t *testing.T, c *http.Client, path string) string {
	t.Helper()
	res, err := c.Get("http://appliance" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAListenerServesStopsAndServesAgain(t *testing.T) {
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := Peer(r.Context()); ok {
			t.Error("a TCP connection has credentials")
		}
		fmt.Fprint(w, "hello "+r.URL.Path)
	}), quiet())
	if s.Addr().IsValid() {
		t.Error("it has an address before Listen")
	}
	if err := s.Serve(context.Background()); err == nil {
		t.Error("Serve before Listen is no error")
	}
	for range 2 {
		stop := start(t, s)
		if err := s.Listen(); err == nil {
			t.Error("a second Listen is no error")
		}
		if s.Addr().Port() == 0 || s.String() != "boot HTTP" {
			t.Errorf("it is %s at %s", s, s.Addr())
		}
		if got := get(t, client(t, "tcp", s.Addr().String()), "/x"); got != "hello /x" {
			t.Errorf("it answers %q", got)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPortThatIsTakenIsNamedWithItsHolder(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := New("boot HTTP", ln.Addr().String(), http.NotFoundHandler(), quiet())
	err = s.Listen()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) || !strings.Contains(err.Error(), "--boot") || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the error is %v", err)
	}
	if s.Addr().IsValid() {
		t.Error("it has an address that it does not hold")
	}
}

func TestAUnixSocketSaysWhoAsks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lunboot.sock")
	s := NewUnix("socket", path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := Peer(r.Context())
		fmt.Fprint(w, c.UID, c.GID, c.PID, ok)
	}), quiet())
	stop := start(t, s)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %o", st.Mode().Perm())
	}
	want := fmt.Sprint(os.Getuid(), os.Getgid(), os.Getpid(), true)
	if got := get(t, client(t, "unix", path), "/"); got != want {
		t.Errorf("the peer is %q, want %q", got, want)
	}
	other := NewUnix("socket", path, http.NotFoundHandler(), quiet())
	if err := other.Listen(); err == nil || !strings.Contains(err.Error(), "another program answers") {
		t.Errorf("a second listener on the socket: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket stays behind: %v", err)
	}
}

func TestASocketThatAKilledPredecessorLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lunboot.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	s := NewUnix("socket", path, http.NotFoundHandler(), quiet())
	start(t, s)
	get(t, client(t, "unix", path), "/")

	file := filepath.Join(t.TempDir(), "notes")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := NewUnix("socket", file, http.NotFoundHandler(), quiet()).Listen(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the socket's place: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Error("the file was removed")
	}
}

func TestStoppingLetsARequestFinishAndAStreamEnd(t *testing.T) {
	streaming, working, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := New("admin", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			close(streaming)
			<-r.Context().Done() // a stream has no other end
			return
		}
		close(working)
		<-release
		fmt.Fprint(w, "done")
	}), quiet())
	stop := start(t, s)
	c := client(t, "tcp", s.Addr().String())
	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 2)
	for _, path := range []string{"/stream", "/work"} {
		go func() {
			res, err := c.Get("http://appliance" + path)
			if err != nil {
				answers <- answer{err: err}
				return
			}
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			answers <- answer{string(b), err}
		}()
	}
	<-streaming
	<-working
	go func() { time.Sleep(100 * time.Millisecond); close(release) }()
	begun := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begun); d > 900*time.Millisecond {
		t.Errorf("stopping took %s: the stream held it", d)
	}
	for range 2 {
		if a := <-answers; a.err != nil || a.body != "" && a.body != "done" {
			t.Errorf("the answer is %+v", a)
		}
	}
}

func TestStoppingDoesNotWaitForEver(t *testing.T) {
	release, working := make(chan struct{}), make(chan struct{})
	o := quiet()
	o.Drain = 100 * time.Millisecond
	s := New("admin", "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(working); <-release }), o)
	stop := start(t, s)
	c := client(t, "tcp", s.Addr().String())
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if res, err := c.Get("http://appliance/"); err == nil {
			res.Body.Close()
		}
	}()
	<-working
	begun := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("stopping took %s", d)
	}
	close(release)
	<-asked
}

func TestAPanicEndsItsRequestOnly(t *testing.T) {
	var log bytes.Buffer
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			panic("broken")
		}
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "fine")
	}), o)
	stop := start(t, s)
	c := client(t, "tcp", s.Addr().String())
	for _, path := range []string{"/bad", "/abort"} {
		if res, err := c.Get("http://appliance" + path); err == nil {
			res.Body.Close()
			t.Errorf("a panic is answered %s", res.Status)
		}
	}
	if got := get(t, c, "/good"); got != "fine" {
		t.Errorf("the next request is answered %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "recovered from a panic"); n != 1 || !strings.Contains(log.String(), "broken") {
		t.Errorf("the log has %d panics: %s", n, log.String())
	}
}

func TestHeadersAreBoundedInSizeAndTime(t *testing.T) {
	o := quiet()
	o.HeaderTime, o.MaxHeader = 200*time.Millisecond, 4<<10
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), o)
	start(t, s)
	big, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	fmt.Fprintf(big, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 16<<10))
	if line, _ := bufio.NewReader(big).ReadString('\n'); !strings.Contains(line, "431") {
		t.Errorf("a large header is answered %q", line)
	}
	slow, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprint(slow, "GET / HT")
	if err := slow.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(slow); err != nil {
		t.Errorf("a header that never ends holds its connection: %v", err)
	}
}

func TestConnectionsAboveTheBoundAreClosed(t *testing.T) {
	o := quiet()
	o.MaxConns, o.MaxPerHost = 2, 2
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), o)
	start(t, s)
	ask := func() (net.Conn, string) {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		return c, line
	}
	first, line := ask()
	if _, line2 := ask(); !strings.Contains(line, "200") || !strings.Contains(line2, "200") {
		t.Fatalf("the answers are %q and %q", line, line2)
	}
	if _, line := ask(); line != "" {
		t.Errorf("the third connection is answered %q", line)
	}
	if s.Refused() != 1 {
		t.Errorf("%d refusals are counted", s.Refused())
	}
	first.Close()
	for end := time.Now().Add(5 * time.Second); ; {
		if _, line := ask(); strings.Contains(line, "200") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place of a closed connection is not given again")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestOneAddressLeavesRoomForTheOthers(t *testing.T) {
	o := quiet()
	o.MaxConns, o.MaxPerHost = 8, 2
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }), o)
	start(t, s)
	answered := func(from string) bool {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		line, _ := bufio.NewReader(c).ReadString('\n')
		return strings.Contains(line, "200")
	}
	for i := range 20 {
		if got := answered("127.0.0.1"); got != (i < 2) {
			t.Errorf("connection %d of one address is answered: %t", i+1, got)
		}
	}
	if !answered("127.0.0.2") {
		t.Error("one address has taken all connections")
	}
}

func TestAClientThatTakesNothingLosesItsPlace(t *testing.T) {
	o := quiet()
	o.StallTime = 500 * time.Millisecond
	ended := make(chan error, 1)
	s := New("boot HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for b := make([]byte, 1<<20); err == nil; {
			_, err = w.Write(b)
		}
		ended <- err
	}), o)
	start(t, s)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it keeps its connection")
	}
}

func TestABodyThatNeverComesLosesItsPlace(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"read":    func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) },
		"ignored": func(http.ResponseWriter, *http.Request) {},
	} {
		t.Run(name, func(t *testing.T) {
			o := quiet()
			o.BodyTime = 200 * time.Millisecond
			s := New("boot HTTP", "127.0.0.1:0", handler, o)
			start(t, s)
			c, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprint(c, "POST /report HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
			if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("it keeps its connection: %v", err)
			}
		})
	}
}

func TestABodyThatBringsNothingEnds(t *testing.T) {
	ended, began := make(chan error, 1), make(chan io.Reader, 1)
	o := quiet()
	o.BodyStall = 100 * time.Millisecond
	s := New("admin HTTP", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began <- r.Body
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
		if err == nil && r.URL.Path == "/long" {
			select {
			case <-r.Context().Done():
				ended <- r.Context().Err()
			case <-time.After(300 * time.Millisecond):
				ended <- nil
			}
		}
	}), o)
	start(t, s)
	dial := func(path string) net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n", path)
		return c
	}
	// A slow one that is not silent is heard to its end,
	c := dial("/slow")
	for range 8 {
		time.Sleep(50 * time.Millisecond)
		fmt.Fprint(c, "x")
	}
	if err := <-ended; err != nil {
		t.Errorf("a slow body ended with %v", err)
	}
	<-began
	// a silent one is not waited for,
	dial("/silent")
	<-began
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent body ended with %v", err)
	}
	// one that is interrupted ends at once, and stays so,
	dial("/other")
	body := <-began
	body.(interface{ Interrupt() }).Interrupt()
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an interrupted body ended with %v", err)
	}
	if n, err := body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("an interrupted body gives %d bytes, %v", n, err)
	}
	// and what is done after a body may take longer than a read of it.
	fmt.Fprint(dial("/long"), "12345678")
	<-began
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the request ended while its client waited: %v", err)
	}
}
