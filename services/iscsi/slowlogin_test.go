package iscsi_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// from connects from the n-th of many addresses.
func (b *bench) from(t testing.TB, n int) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+n/200), byte(1+n%200))}, Timeout: 5 * time.Second}
	nc, err := d.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

// request is a Login Request of alice.
func request(i *Initiator, edit func(*pdu.LoginRequest)) []byte {
	q := &pdu.LoginRequest{Transit: true, CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: Linux(1), CID: 1, CmdSN: 1}
	text := pdu.AppendText(pdu.AppendText(nil, "InitiatorName", string(alice)), "TargetName", string(target))
	if edit != nil {
		edit(q)
	}
	return i.Bytes(q, text)
}

// logsIn completes a login on a connection.
func logsIn(t testing.TB, nc net.Conn) {
	t.Helper()
	i := Attach(nc, 1, 0, false, false)
	if _, err := nc.Write(request(i, nil)); err != nil {
		t.Fatal(err)
	}
	if r, _ := Expect[*pdu.LoginResponse](t, i); r.Status != pdu.LoginSuccess {
		t.Errorf("the login is answered %s", r.Status)
	}
}

// ended waits for the target to end a connection and says when it did.
func ended(nc net.Conn, within time.Duration) error {
	if err := nc.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil // closed or reset
}

// Whatever a login dawdles at, its time is over for the whole of it, and nothing
// of it is left.
func TestSlowLoginsEnd(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	const patience = 500 * time.Millisecond
	startWith(t, b, iscsi.Config{LoginTimeout: patience})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	victim := b.login(t, alice, Linux(7))
	victim.Must(t, Ready(0))
	raw := Attach(nil, 1, 0, false, false)
	whole := request(raw, nil)
	// pieces sends b in pieces, with a pause after each, until an error says
	// that the target has ended it.
	pieces := func(nc net.Conn, b []byte, n int, pause time.Duration) {
		for len(b) > 0 {
			if _, err := nc.Write(b[:min(n, len(b))]); err != nil {
				return
			}
			b = b[min(n, len(b)):]
			time.Sleep(pause)
		}
	}
	requests := 0 // that were answered
	// negotiate sends a request again and again, as soon as it is answered.
	negotiate := func(nc net.Conn, pause time.Duration, edit func(*pdu.LoginRequest), text []byte) {
		requests = 0
		i := Attach(nc, 1, 0, false, false)
		for n := 0; ; n++ {
			q := &pdu.LoginRequest{CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: Linux(1), CID: 1, CmdSN: 1}
			edit(q)
			data := text
			if n == 0 {
				data = pdu.AppendText(pdu.AppendText(nil, "InitiatorName", string(alice)), "TargetName", string(target))
			}
			if i.Send(q, data) != nil {
				return
			}
			if p, _, err := i.Recv(); err != nil || p.(*pdu.LoginResponse).Status != pdu.LoginSuccess {
				return
			}
			requests++
			time.Sleep(pause)
		}
	}
	before := runtime.NumGoroutine()
	for _, k := range []struct {
		name string
		do   func(nc net.Conn) // comes back by itself when the target has ended it
	}{
		{"nothing", func(net.Conn) {}},
		{"half a header", func(nc net.Conn) { pieces(nc, whole[:24], 24, 0) }},
		{"a header without its text", func(nc net.Conn) { pieces(nc, whole[:48], 48, 0) }},
		{"half a text", func(nc net.Conn) { pieces(nc, whole[:80], 80, 0) }},
		{"a byte at a time", func(nc net.Conn) { pieces(nc, whole, 1, patience/20) }},
		{"a byte at a time, then the rest too late", func(nc net.Conn) {
			pieces(nc, whole[:len(whole)-1], 40, patience/8)
			time.Sleep(patience)
			pieces(nc, whole[len(whole)-1:], 1, 0)
		}},
		{"a text without end", func(nc net.Conn) {
			negotiate(nc, patience/20, func(q *pdu.LoginRequest) { q.Continue = true }, nil)
		}},
		{"a text without end, fast", func(nc net.Conn) {
			negotiate(nc, 0, func(q *pdu.LoginRequest) { q.Continue = true }, make([]byte, 8192))
		}},
		{"a negotiation without end", func(nc net.Conn) { negotiate(nc, patience/20, func(*pdu.LoginRequest) {}, nil) }},
		{"a negotiation without end, fast", func(nc net.Conn) { negotiate(nc, 0, func(*pdu.LoginRequest) {}, nil) }},
		{"answers that are never read", func(nc net.Conn) {
			i := Attach(nc, 1, 0, false, false)
			for n := 0; n < 1000; n++ {
				if _, err := nc.Write(request(i, func(q *pdu.LoginRequest) { q.Transit = false })); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(k.name, func(t *testing.T) {
			nc := b.from(t, 0)
			at := time.Now()
			requests = 2
			k.do(nc)
			if err := ended(nc, 4*patience); err != nil || time.Since(at) > 4*patience {
				t.Errorf("it is not ended after %s", time.Since(at))
			}
			if requests < 2 || requests > 64 {
				t.Errorf("%d requests were answered", requests)
			}
			victim.Must(t, Read10(0, 0, 8))
		})
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 }, "nothing of them is left")
	logsIn(t, b.from(t, 0))
}

// Connections that never log in make room for those that do, however many
// addresses they come from; who comes in a crowd has time for its login.
func TestManyAddressesLeaveRoomToLogIn(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	early := b.from(t, 900)
	raw := Attach(early, 1, 0, false, false)
	whole := request(raw, nil)
	if _, err := early.Write(whole[:20]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // it is the first
	var silent []net.Conn
	for n := range 320 {
		silent = append(silent, b.from(t, n))
	}
	for _, nc := range silent[300:] { // there is no room for them yet
		if err := ended(nc, 5*time.Second); err != nil {
			t.Fatal("it is neither served nor closed")
		}
	}
	if _, err := early.Write(whole[20:]); err != nil {
		t.Fatal(err)
	}
	if r, _ := Expect[*pdu.LoginResponse](t, raw); r.Status != pdu.LoginSuccess {
		t.Fatalf("the login of the first is answered %s", r.Status)
	}
	b.clock.advance(3 * time.Second)
	for n := range 20 {
		logsIn(t, b.from(t, 700+n))
	}
	// Some addresses with many connections make room at once.
	for n := range 600 {
		b.from(t, 500+n%8)
	}
	for n := range 20 {
		logsIn(t, b.from(t, 800+n))
	}
}

// Who is refused may read why; many who do not go are no burden.
func TestRefusedConnectionsDoNotPileUp(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	before := runtime.NumGoroutine()
	text := pdu.AppendText(pdu.AppendText(nil, "InitiatorName", "iqn.2026-11.test:nobody"), "TargetName", string(target))
	most := 0
	for n := range 900 {
		nc := b.from(t, n%300)
		i := Attach(nc, 1, 0, false, false)
		q := &pdu.LoginRequest{Transit: true, CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: Linux(1), CmdSN: 1}
		if err := i.Send(q, text); err != nil {
			t.Fatal(err)
		}
		if r, _ := Expect[*pdu.LoginResponse](t, i); r.Status != pdu.LoginAuthorizationFail {
			t.Fatalf("login %d is answered %s", n, r.Status)
		}
		most = max(most, runtime.NumGoroutine()-before)
	}
	t.Logf("%d goroutines at most", most)
	if most > 300 {
		t.Errorf("%d goroutines for refused logins", most)
	}
	logsIn(t, b.from(t, 400))
}
