package iscsi_test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// knock connects to the portal and says nothing yet.
func (b *bench) knock(t testing.TB) *Initiator {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return Attach(nc, 1, 0, false, false)
}

// hello is a first Login Request and its text.
func hello(csg, nsg pdu.Stage) (pdu.LoginRequest, []byte) {
	text := pdu.AppendText(nil, "InitiatorName", string(alice))
	text = pdu.AppendText(text, "TargetName", string(target))
	return pdu.LoginRequest{Transit: nsg > csg, CSG: csg, NSG: nsg, ISID: Linux(1), CID: 1, CmdSN: 1, InitiatorTaskTag: 9}, text
}

// RFC 7143 §6.2: text goes on in as many PDUs as its sender likes, in both
// directions, and a key may be cut anywhere.
func TestLoginInManyPDUs(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	i := b.knock(t)
	q, text := hello(pdu.OperationalNegotiation, pdu.FullFeaturePhase)
	var unknown []string
	for n := range 120 {
		unknown = append(unknown, fmt.Sprintf("X-com.example.%s.%03d", strings.Repeat("y", 40), n))
		text = pdu.AppendText(text, unknown[n], "1")
	}
	for len(text) > 7 {
		n := min(len(text)-7, 997)
		part := q
		part.Transit, part.NSG, part.Continue = false, 0, true
		if err := i.Send(&part, text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
		if r, data := Expect[*pdu.LoginResponse](t, i); r.Status != 0 || r.Transit || r.Continue || len(data) != 0 || r.TSIH != 0 {
			t.Fatalf("in the middle: %+v with %d bytes", r, len(data))
		}
	}
	var answer []byte
	parts := 0
	for {
		if err := i.Send(&q, text); err != nil {
			t.Fatal(err)
		}
		text = nil
		r, data := Expect[*pdu.LoginResponse](t, i)
		answer = append(answer, data...)
		parts++
		if r.Status != 0 || len(data) > 8192 || r.Continue == r.Transit || (r.TSIH != 0) != r.Transit {
			t.Fatalf("part %d: %+v with %d bytes", parts, r, len(data))
		}
		if r.Transit {
			break
		}
	}
	pairs, err := pdu.ParseText(answer)
	if err != nil || parts < 2 {
		t.Fatalf("%d parts, %v", parts, err)
	}
	for _, k := range unknown {
		if !slices.Contains(pairs, pdu.Pair{Key: k, Value: "NotUnderstood"}) {
			t.Errorf("%s was not answered", k)
		}
	}
	i.Must(t, Read10(0, 0, 1))
}

// §6.3: another PDU than a Login Request ends the login, with a word once it
// has begun and without one before.
func TestAnotherPDUInALogin(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	others := []pdu.PDU{
		&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, CmdSN: 1},
		&pdu.SCSICommand{Final: true, InitiatorTaskTag: 1, CmdSN: 1},
		&pdu.TextRequest{Final: true, InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, CmdSN: 1},
		&pdu.LogoutRequest{InitiatorTaskTag: 1, CmdSN: 1},
	}
	for _, p := range others {
		i := b.knock(t)
		if err := i.Send(p, nil); err != nil {
			t.Fatal(err)
		}
		if p, _, err := i.Recv(); err == nil {
			t.Errorf("before the login it was answered with %s", p.Opcode())
		}
	}
	for n, p := range others {
		i := b.knock(t)
		q, text := hello(pdu.SecurityNegotiation, pdu.SecurityNegotiation)
		if err := i.Send(&q, text); err != nil {
			t.Fatal(err)
		}
		Expect[*pdu.LoginResponse](t, i)
		if err := i.Send(p, bytes.Repeat([]byte{0}, 8)); err != nil {
			t.Fatal(err)
		}
		if r, data := Expect[*pdu.LoginResponse](t, i); r.Status != pdu.LoginInvalidDuringLogin || r.InitiatorTaskTag != q.InitiatorTaskTag || len(data) != 0 {
			t.Errorf("%s: %+v", p.Opcode(), r)
		}
		i.Closed(t)
		e := b.journal.wait(t, store.EventISCSIRefused, n+1)[n]
		if e.Detail.Status != "020b" || !strings.Contains(e.Detail.Reason, p.Opcode().String()) {
			t.Errorf("%s: the event says %+v", p.Opcode(), e.Detail)
		}
	}
}

// §6.3.1: which sessions a login belongs to, by the initiator's name, ISID and
// TSIH.
func TestISIDAndTSIH(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 2, volume: newMemory(1 << 20)}})
	first := b.login(t, alice, Linux(1))
	first.Must(t, Ready(0))
	if first.TSIH == 0 {
		t.Error("the session's TSIH is 0")
	}
	for name, c := range map[string]struct {
		o      Options
		status pdu.LoginStatus
	}{
		"its own session, by a second connection":    {Options{Name: string(alice), ISID: Linux(1), TSIH: first.TSIH, CID: 2}, pdu.LoginTooManyConnections},
		"its own session, under another ISID":        {Options{Name: string(alice), ISID: Linux(2), TSIH: first.TSIH}, pdu.LoginSessionDoesNotExist},
		"another machine's session":                  {Options{Name: string(bob), ISID: Linux(1), TSIH: first.TSIH}, pdu.LoginSessionDoesNotExist},
		"a session that is not":                      {Options{Name: string(alice), ISID: Linux(1), TSIH: first.TSIH + 1}, pdu.LoginSessionDoesNotExist},
		"a session that is not, of a discovery":      {Options{Name: string(alice), ISID: Linux(1), TSIH: first.TSIH + 1, Discovery: true}, pdu.LoginSessionDoesNotExist},
		"its session, for a discovery of all things": {Options{Name: string(alice), ISID: Linux(1), TSIH: first.TSIH, Discovery: true}, pdu.LoginInitiatorError},
	} {
		if !c.o.Discovery {
			c.o.Target = string(target)
		}
		t.Run(name, func(t *testing.T) {
			wantRefused(t, b, c.o, c.status, "")
			first.Must(t, Read10(0, 0, 1)) // it goes on
		})
	}
	// The same ISID is another session of another machine, and another ISID is
	// another session of the same.
	other, second := b.login(t, bob, Linux(1)), b.login(t, alice, Linux(2))
	if other.TSIH == first.TSIH || second.TSIH == first.TSIH || other.TSIH == second.TSIH {
		t.Errorf("TSIHs %d, %d and %d", first.TSIH, other.TSIH, second.TSIH)
	}
	for _, i := range []*Initiator{first, other, second} {
		i.Must(t, Read10(0, 0, 1))
	}
	// And the same of both is the session anew.
	again := b.login(t, alice, Linux(1))
	first.Closed(t)
	for _, i := range []*Initiator{again, other, second} {
		i.Must(t, Read10(0, 0, 1))
	}
}
