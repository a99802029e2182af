package tftp

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
)

func content(n int) []byte {
	b, _ := io.ReadAll(io.LimitReader(rand.NewChaCha8([32]byte{3}), int64(n)))
	return b
}

// library is a server of the library that the appliance uses.
func library(t *testing.T, timeout time.Duration, data []byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := pin.NewServer(func(_ string, rf io.ReaderFrom) error {
		_, err := rf.ReadFrom(bytes.NewReader(data))
		return err
	}, nil)
	s.SetBlockSizeNegotiation(false) // what came before it serves would get blocks of 512 bytes
	s.SetTimeout(timeout)
	s.SetBackoff(func(int) time.Duration { return 0 })
	done := make(chan error, 1)
	go func() { done <- s.Serve(conn) }()
	t.Cleanup(func() {
		s.Shutdown()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func run(t *testing.T, l Load) Result {
	t.Helper()
	l.File = "f"
	r, err := Run(l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestManyClientsFetchEveryByte(t *testing.T) {
	data := content(100_000)
	for _, l := range []Load{{Blksize: 1468, Clients: 1}, {Blksize: 512, Clients: 8}, {Blksize: 1468, Clients: 16, Window: 4}, {Blksize: 50_000, Clients: 2}} {
		l.Server, l.Want, l.Files, l.Time = library(t, time.Second, data), data, 3, 10*time.Second
		r := run(t, l)
		if r.Files != 3*l.Clients || r.Bytes != int64(r.Files*len(data)) || r.Failed != 0 || r.Failure != nil || r.Seconds >= 10 {
			t.Errorf("%+v gives %+v", l.Clients, r)
		}
		if r.Blksize != l.Blksize || r.Window != 1 || r.P50 <= 0 || r.Max < r.P50 || r.MiBps() <= 0 {
			t.Errorf("the figures are %+v", r)
		}
	}
}

func TestLostBlocksCostTheServersTimer(t *testing.T) {
	data := content(300_000)
	l := Load{Server: library(t, 20*time.Millisecond, data), Want: data, Blksize: 1000, Clients: 2, Files: 1, Time: 20 * time.Second, Loss: 0.05, Seed: 7}
	r := run(t, l)
	if r.Files != 2 || r.Lost == 0 || r.Max < time.Duration(r.Lost/2)*20*time.Millisecond {
		t.Errorf("%+v", r)
	}
	if again := run(t, l); again.Lost != r.Lost {
		t.Errorf("the same seed loses %d and then %d", r.Lost, again.Lost)
	}
}

func TestALinkThatIsTooNarrowLetsNothingThrough(t *testing.T) {
	data := content(10_000)
	l := Load{Server: library(t, 20*time.Millisecond, data), Want: data, Blksize: 1468, Clients: 1, Files: 1, Time: 10 * time.Second, Narrow: 1200, Repeat: 10 * time.Millisecond, Tries: 3}
	r := run(t, l)
	if r.Files != 0 || r.Failed != 1 || r.Repeats != 3 || r.Failure == nil || !strings.Contains(r.Failure.Error(), "block 1") {
		t.Errorf("%+v", r)
	}
}

func TestAWrongByteIsFound(t *testing.T) {
	data := content(10_000)
	for name, want := range map[string][]byte{
		"is not what the file holds": append(bytes.Clone(data[:9_000]), content(1_000)...),
		"ends after":                 append(bytes.Clone(data), 'x'),
	} {
		_, err := Run(Load{File: "f", Server: library(t, time.Second, data), Want: want, Blksize: 1468, Clients: 1, Files: 1, Time: 10 * time.Second})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, want %q", err, name)
		}
	}
	if _, err := Run(Load{}); err == nil {
		t.Error("no load at all is run")
	}
}

func TestARefusalIsCountedAndTriedAgain(t *testing.T) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 600)
		for {
			_, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDP([]byte("\x00\x05\x00\x01no such file\x00"), from)
		}
	}()
	r := run(t, Load{Server: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Want: []byte("x"), Blksize: 512, Clients: 1, Files: 2, Time: 10 * time.Second, Repeat: 20 * time.Millisecond})
	if r.Failed != 2 || r.Failure.Error() != "error 1: no such file" || r.Seconds < 0.02 {
		t.Errorf("%+v", r)
	}
}

// windowed is a server that grants a windowsize of 4, and leaves out one block
// of the second window the first time (RFC 7440 §4).
func windowed(t *testing.T, data []byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 600)
		skipped := false
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			if buf[1] == opRead {
				if !bytes.Contains(buf[:n], []byte("windowsize\x004\x00")) {
					continue
				}
				_, _ = conn.WriteToUDP([]byte("\x00\x06windowsize\x004\x00"), from)
				continue
			}
			next := int(binary.BigEndian.Uint16(buf[2:])) + 1
			for k := next; k < next+4 && (k-1)*512 <= len(data); k++ {
				if k == 6 && !skipped {
					skipped = true
					continue
				}
				p := append([]byte{0, opData, byte(k >> 8), byte(k)}, data[(k-1)*512:min(k*512, len(data))]...)
				_, _ = conn.WriteToUDP(p, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestAWindowIsAcknowledgedAtItsEndAndAtAGap(t *testing.T) {
	data := content(512*40 + 100)
	r := run(t, Load{Server: windowed(t, data), Want: data, Blksize: 512, Window: 4, Clients: 1, Files: 1, Time: 10 * time.Second})
	if r.Files != 1 || r.Window != 4 || r.Repeats != 0 {
		t.Errorf("%+v", r)
	}
}
