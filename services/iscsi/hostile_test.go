package iscsi_test

import (
	"errors"
	"fmt"
	"net"
	"testing"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

// Anybody may look around, and nobody may keep the machines out by it.
func TestDiscoverySessionsLeaveRoomForMachines(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{MaxSessions: 2})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	var first, last *Initiator
	for n := range 200 {
		i := Login(t, b.Addr(), Options{Name: fmt.Sprintf("iqn.2026-11.test:stranger-%d", n), ISID: Linux(uint16(n)), Discovery: true})
		if first == nil {
			first = i
		}
		last = i
	}
	first.Closed(t) // the oldest make room
	if err := last.Send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: last.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: last.CmdSN}, nil); err != nil {
		t.Error(err)
	}
	Expect[*pdu.NOPIn](t, last)
	b.login(t, alice, Linux(1)).Must(t, Ready(0))
	b.login(t, alice, Linux(2)).Must(t, Ready(0))
}

// One machine that comes back under ever new names of its port leaves room for
// the others.
func TestOneInitiatorLeavesRoomForTheOthers(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{MaxSessions: 80})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 2, volume: newMemory(1 << 20)}})
	for n := range 64 {
		b.login(t, alice, Linux(uint16(n)))
	}
	wantRefused(t, b, Options{Name: string(alice), Target: string(target), ISID: Linux(999)}, pdu.LoginOutOfResources, "64 sessions")
	b.login(t, alice, Linux(3)) // one that it has may begin anew
	b.login(t, bob, Linux(1)).Must(t, Ready(0))
}

// Connections that never log in leave room for those of other addresses.
func TestOneAddressLeavesRoomToLogIn(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	for range 300 {
		nc, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
	}
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	i := Attach(nc, 1, 0, false, false)
	q := &pdu.LoginRequest{Transit: true, CSG: pdu.OperationalNegotiation, NSG: pdu.FullFeaturePhase, ISID: Linux(1), CmdSN: 1}
	if err := i.Send(q, pdu.AppendText(pdu.AppendText(nil, "InitiatorName", string(alice)), "TargetName", string(target))); err != nil {
		t.Fatal(err)
	}
	if r, _ := Expect[*pdu.LoginResponse](t, i); r.Status != pdu.LoginSuccess {
		t.Errorf("the login is answered %s", r.Status)
	}
}

// A login that meets a fault of ours gives its place back.
func TestPanicsInLoginsLeaveRoomForTheNext(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.catalog.panic.Store(true)
	for n := range 300 {
		if _, err := Dial(b.Addr(), Options{Name: string(alice), Target: string(target), ISID: Linux(uint16(n))}); err == nil {
			t.Fatal("a login succeeded without an answer of the inventory")
		}
	}
	b.catalog.panic.Store(false)
	b.login(t, alice, Linux(1)).Must(t, Ready(0))
}

// An inventory that cannot be read when a mapping goes is asked again: what was
// taken away must not stay until something else changes.
func TestUnmappingIsRetriedUntilTheInventoryAnswers(t *testing.T) {
	b := start(t)
	one, two := disk{id: 1, volume: newMemory(1 << 20)}, disk{id: 2, volume: newMemory(1 << 20)}
	b.enroll(alice, map[store.LUN]disk{0: one, 1: two})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(1))
	b.catalog.fail.Store(true)
	b.catalog.change(func() { b.catalog.luns[alice] = map[store.LUN]disk{0: one} })
	eventually(t, func() bool { return b.catalog.failed.Load() > 0 }, "the inventory is asked")
	i.Must(t, Ready(0)) // what cannot be looked up now goes on
	b.catalog.fail.Store(false)
	eventually(t, func() bool {
		r, err := i.Do(Ready(1))
		return err == nil && r.Key() == "05/25/00"
	}, "LUN 1 goes away")
}

// A rack that is refused as a whole is told in full; a flood is not.
func TestAFloodOfRefusedLoginsDoesNotFillTheJournal(t *testing.T) {
	b := start(t)
	const logins = 900
	for n := range logins {
		_, err := Dial(b.Addr(), Options{Name: fmt.Sprintf("iqn.2026-11.test:nobody-%d", n), Target: string(target), ISID: IPXE(1)})
		var refused *LoginError
		if !errors.As(err, &refused) {
			t.Fatalf("login %d: %v", n, err)
		}
	}
	if told := len(b.journal.all(store.EventISCSIRefused)); told < 400 || told > 800 {
		t.Errorf("%d of %d refused logins were told", told, logins)
	}
}
