package iscsi_test

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// A storm of connections leaves no more goroutines than may wait for the next
// one, and those serve it.
func TestAfterAStormFewGoroutinesWaitForTheNext(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.login(t, alice, Linux(1000)).Must(t, Ready(0)) // everything runs
	before := runtime.NumGoroutine()
	for range 30 { // the new session's look at the inventory ends meanwhile
		time.Sleep(10 * time.Millisecond)
		before = min(before, runtime.NumGoroutine())
	}
	var open []net.Conn
	for n := range 200 {
		// Of two addresses, since one may not fill the place for logins.
		nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+n%2))}}).Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
	}
	eventually(t, func() bool { return runtime.NumGoroutine() >= before+200 }, "200 connections are served")
	for _, nc := range open {
		_ = nc.Close()
	}
	const spare = 64
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+spare }, "at most %d goroutines are left", spare)
	left := runtime.NumGoroutine()
	if left < before+spare/2 {
		t.Fatalf("%d goroutines wait", left-before)
	}
	for n := range 16 {
		b.login(t, alice, Linux(uint16(n))).Must(t, Ready(0))
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= left }, "16 sessions take goroutines that waited")
}

// The end of the appliance waits for no login.
func TestShutdownEndsLogins(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	silent, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	half := Attach(nc, 1, 0, false, false)
	q := &pdu.LoginRequest{CSG: pdu.OperationalNegotiation, ISID: Linux(1), CmdSN: 1}
	if err := half.Send(q, pdu.AppendText(pdu.AppendText(nil, "InitiatorName", string(alice)), "TargetName", string(target))); err != nil {
		t.Fatal(err)
	}
	if r, _ := Expect[*pdu.LoginResponse](t, half); r.Status != pdu.LoginSuccess || r.Transit {
		t.Fatalf("%+v", r)
	}
	began := time.Now()
	b.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	for _, c := range []net.Conn{silent, nc} {
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("a connection that logs in stays open")
			}
		}
	}
}
