package iscsi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lunboot/services/iscsi"
	. "lunboot/services/iscsi/iscsitest"
	"lunboot/services/iscsi/pdu"
	"lunboot/store"
)

func (b *bench) login(t testing.TB, name store.IQN, isid pdu.ISID, keys ...string) *Initiator {
	t.Helper()
	o := Options{Name: string(name), Target: string(target), ISID: isid}
	for n := 0; n < len(keys); n += 2 {
		o.Keys = append(o.Keys, pdu.Pair{Key: keys[n], Value: keys[n+1]})
	}
	return Login(t, b.Addr(), o)
}

func wantRefused(t *testing.T, b *bench, o Options, status pdu.LoginStatus, reason string) {
	t.Helper()
	_, err := Dial(b.Addr(), o)
	var refused *LoginError
	if !errors.As(err, &refused) || refused.Status != status {
		t.Fatalf("login as %s: %v, want status %s", o.Name, err, status)
	}
	eventually(t, func() bool {
		return slices.ContainsFunc(b.journal.all(store.EventISCSIRefused), func(e store.Event) bool {
			return e.Detail.Status == status.String() && e.Detail.Initiator == o.Name && strings.Contains(e.Detail.Reason, reason)
		})
	}, "an event with status %s for %s that says %q", status, o.Name, reason)
}

func TestLoginIsRefusedWithTheStatusThatSaysWhy(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, nil)
	a := Options{Name: string(alice), Target: string(target), ISID: IPXE(1)}

	wrong := a
	wrong.Target = "iqn.2026-11.lunboot:other"
	wantRefused(t, b, wrong, pdu.LoginNotFound, "this appliance's target is "+string(target))

	stranger := a
	stranger.Name = "iqn.2026-11.test:nobody"
	wantRefused(t, b, stranger, pdu.LoginAuthorizationFail, "no machine has the initiator name")
	for _, e := range b.journal.all(store.EventISCSIRefused) {
		if unknown := e.Detail.Initiator == stranger.Name; unknown != (e.Detail.Cause == store.CauseNoInitiator) {
			t.Errorf("the login of %s was refused because of %q: %s", e.Detail.Initiator, e.Detail.Cause, e.Detail.Reason)
		}
	}

	empty := a
	empty.Name = string(bob)
	wantRefused(t, b, empty, pdu.LoginAuthorizationFail, "no volume is mapped")

	second := a
	second.TSIH = 99
	wantRefused(t, b, second, pdu.LoginSessionDoesNotExist, "does not exist")
	i := b.login(t, alice, IPXE(1))
	second.TSIH, second.CID = i.TSIH, 2
	wantRefused(t, b, second, pdu.LoginTooManyConnections, "second connection")
	i.Must(t, Ready(2)) // the session that was there goes on

	b.catalog.change(func() {
		a := b.catalog.access[alice]
		a.Auth, a.CHAP = store.AuthCHAP, store.Credential{User: "alice", Secret: "alicealicealice1"}
		b.catalog.access[alice] = a
	})
	wantRefused(t, b, a, pdu.LoginAuthFailure, "CHAP is required")
}

func TestDiscoveryListsTheAddressThatItCameInOn(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, nil)
	ask := func(name, value string) []pdu.Pair {
		i := Login(t, b.Addr(), Options{Name: name, ISID: Linux(1), Discovery: true})
		q := &pdu.TextRequest{Final: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}
		if err := i.Send(q, pdu.AppendText(nil, "SendTargets", value)); err != nil {
			t.Fatal(err)
		}
		_, data := Expect[*pdu.TextResponse](t, i)
		pairs, err := pdu.ParseText(data)
		if err != nil {
			t.Fatal(err)
		}
		return pairs
	}
	want := []pdu.Pair{{Key: "TargetName", Value: string(target)}, {Key: "TargetAddress", Value: b.Addr().String() + ",1"}}
	if got := ask(string(alice), "All"); !slices.Equal(got, want) {
		t.Errorf("All lists %v", got)
	}
	if got := ask(string(alice), string(target)); !slices.Equal(got, want) {
		t.Errorf("the name lists %v", got)
	}
	if got := ask(string(alice), strings.ToUpper(string(target))); !slices.Equal(got, want) { // names do not know case (§4.2.7.1)
		t.Errorf("the name in capitals lists %v", got)
	}
	for _, value := range []string{"", "all", "iqn.2026-11.lunboot:other", "None"} {
		if got := ask(string(alice), value); len(got) != 0 {
			t.Errorf("%q lists %v", value, got)
		}
	}
	if got := ask(string(bob), "All"); len(got) != 0 {
		t.Errorf("an initiator without volumes finds %v", got)
	}
	if got := ask("iqn.2026-11.test:nobody", "All"); len(got) != 0 {
		t.Errorf("a stranger finds %v", got)
	}
}

// §13.8: an IPv6 address stands in brackets.
func TestDiscoveryOverIPv6(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startOn(t, b, iscsi.Config{Listen: "[::1]:0"})
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	i := Login(t, b.Addr(), Options{Name: string(alice), ISID: Linux(1), Discovery: true})
	if err := i.Send(&pdu.TextRequest{Final: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}, pdu.AppendText(nil, "SendTargets", "All")); err != nil {
		t.Fatal(err)
	}
	_, data := Expect[*pdu.TextResponse](t, i)
	want := fmt.Sprintf("TargetName=%s\x00TargetAddress=[::1]:%d,1\x00", target, b.Addr().Port())
	if string(data) != want {
		t.Errorf("listed %q, want %q", data, want)
	}
}

// RFC 7143 §13.21: a discovery session answers questions, and has no units.
func TestADiscoverySessionHasNoUnits(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	for _, digest := range []string{"None", "CRC32C"} {
		i := Login(t, b.Addr(), Options{Name: string(alice), ISID: Linux(1), Discovery: true, Keys: []pdu.Pair{{Key: "HeaderDigest", Value: digest}, {Key: "DataDigest", Value: digest}}})
		for _, p := range []pdu.PDU{
			&pdu.SCSICommand{Final: true, Read: true, ExpectedDataTransferLength: 512, InitiatorTaskTag: 5, CmdSN: i.CmdSN, CDB: [16]byte{0x28, 8: 1}},
			&pdu.SCSICommand{Immediate: true, Final: true, InitiatorTaskTag: 5, CmdSN: i.CmdSN},
			&pdu.DataOut{Final: true, InitiatorTaskTag: 5, TargetTransferTag: pdu.ReservedTag},
			&pdu.TaskRequest{Immediate: true, Function: pdu.FuncTargetColdReset, InitiatorTaskTag: 6, CmdSN: i.CmdSN},
		} {
			var h pdu.Header
			p.Encode(&h)
			if err := i.Send(p, nil); err != nil {
				t.Fatal(err)
			}
			if r, data := Expect[*pdu.Reject](t, i); r.Reason != pdu.ReasonProtocolError || !bytes.Equal(data, h[:]) {
				t.Errorf("%s: rejected for %s", p.Opcode(), r.Reason)
			}
		}
		if err := i.Send(&pdu.LogoutRequest{InitiatorTaskTag: 7, CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
			t.Fatal(err)
		}
		if p, _ := Expect[*pdu.LogoutResponse](t, i); p.Response != pdu.LogoutSuccess {
			t.Errorf("logout: %+v", p)
		}
		i.Closed(t)
	}
}

// The founding failure: a URI without a LUN asks for LUN 0, the volume is
// LUN 2. Everybody is told, and iPXE gets sense data whose key it can read.
func TestWrongLUNIsNamed(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{2: {id: 1, volume: newMemory(1 << 20)}})
	i := b.login(t, alice, IPXE(7))
	for range 11 {
		r, err := i.Do(Ready(0))
		if err != nil || r.Key() != "05/25/00" || r.Sense[0] != 0x72 {
			t.Fatalf("TEST UNIT READY on LUN 0: %v, %+v", err, r)
		}
	}
	if r, err := i.Do(Read10(0, 64, 4)); err != nil || r.Key() != "05/25/00" {
		t.Fatalf("READ on LUN 0: %v, %+v", err, r)
	}
	e := b.journal.wait(t, store.EventISCSINoLUN, 2)
	if len(e) != 2 {
		t.Errorf("%d events for one mistake", len(e))
	}
	d := e[0].Detail
	if *d.LUN != 0 || !slices.Equal(d.Mapped, []int{2}) || d.Opcode != "TEST UNIT READY" || !d.IPXE || d.Session == "" {
		t.Errorf("the event says %+v", d)
	}
	if e[0].Addr.String() != "127.0.0.1" || e[0].Machine != 1 {
		t.Errorf("the event is about %v, machine %d", e[0].Addr, e[0].Machine)
	}
	// An operating system gets the fixed format that it asked for.
	o := b.login(t, alice, Linux(1))
	if r, err := o.Do(Ready(0)); err != nil || r.Key() != "05/25/00" || r.Sense[0]&0x7f != 0x70 {
		t.Errorf("TEST UNIT READY on LUN 0: %v, %+v", err, r)
	}
}

// A slow flush stalls nothing: not the ping that keeps the session alive, not
// the abort that ends it, not a READ on another LUN.
func TestSlowSyncStallsNothing(t *testing.T) {
	b := start(t)
	slow, fast := newMemory(1<<20), newMemory(1<<20)
	slow.syncing = make(chan struct{})
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: slow}, 2: {id: 2, volume: fast}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(1))
	i.Must(t, Ready(2))
	sync, err := i.Start(Sync10(1))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return slow.syncs.Load() == 1 }, "the flush begins")
	within := func(what string, act func()) {
		t.Helper()
		at := time.Now()
		act()
		if d := time.Since(at); d > 100*time.Millisecond {
			t.Errorf("%s took %s", what, d)
		}
	}
	within("NOP-Out", func() {
		if err := i.Send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: i.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: i.CmdSN}, []byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, data := Expect[*pdu.NOPIn](t, i); string(data) != "ping" {
			t.Errorf("the ping came back as %q", data)
		}
	})
	within("READ on another LUN", func() { i.Must(t, Read10(2, 0, 8)) })
	within("cold READ on another LUN", func() {
		fast.cold.Store(true)
		i.Must(t, Read10(2, 0, 8))
	})
	within("ABORT TASK", func() {
		if err := i.Send(&pdu.TaskRequest{Immediate: true, Function: pdu.FuncAbortTask, LUN: LUN(1), InitiatorTaskTag: i.Tag(), ReferencedTaskTag: sync, RefCmdSN: i.CmdSN - 1, CmdSN: i.CmdSN}, nil); err != nil {
			t.Fatal(err)
		}
		if r, _ := Expect[*pdu.TaskResponse](t, i); r.Response != pdu.TaskComplete {
			t.Errorf("ABORT TASK: response %d", r.Response)
		}
	})
	within("READ on the same LUN", func() { i.Must(t, Read10(1, 0, 8)) })
	close(slow.syncing)
	i.Must(t, Ready(1)) // and no answer of the aborted task comes
}

// A sanitize operation is the unit's: no abort and no reset waits for its end,
// which may be hours away, and the sessions that come later find it under way.
func TestASanitizeOutlivesItsSession(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.syncing = make(chan struct{})
	finish := sync.OnceFunc(func() { close(v.syncing) })
	defer finish()
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v, sanitize: true}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(1))
	erase, err := i.Start(Command{LUN: LUN(1), CDB: []byte{0x48, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.syncs.Load() == 1 }, "the volume is erased, and flushed")
	for _, f := range []pdu.TaskFunction{pdu.FuncAbortTask, pdu.FuncAbortTaskSet, pdu.FuncLogicalUnitReset, pdu.FuncTargetWarmReset} {
		if err := i.Send(&pdu.TaskRequest{Immediate: true, Function: f, LUN: LUN(1), InitiatorTaskTag: i.Tag(), ReferencedTaskTag: erase, RefCmdSN: i.CmdSN - 1, CmdSN: i.CmdSN}, nil); err != nil {
			t.Fatal(err)
		}
		if r, _ := Expect[*pdu.TaskResponse](t, i); r.Response != pdu.TaskComplete {
			t.Errorf("function %d: response %d", f, r.Response)
		}
	}
	if err := i.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(b.Sessions()) == 0 }, "the session ends")
	o := b.login(t, alice, Linux(2))
	wiping := func() bool {
		r, err := o.Do(Ready(1))
		if err != nil {
			t.Fatal(err)
		}
		if r.Key() == "06/29/00" { // its power-on condition
			r, err = o.Do(Ready(1))
		}
		return err == nil && r.Key() == "02/04/1B"
	}
	if !wiping() {
		t.Error("a later session finds the volume ready while it is wiped")
	}
	finish()
	eventually(t, func() bool { return !wiping() }, "the wipe ends")
	o.Must(t, Ready(1))
}

// wipeLog keeps wipes in memory.
type wipeLog struct {
	mu  sync.Mutex
	all map[store.VolumeID]*store.Wipe
}

func (l *wipeLog) Wipe(_ context.Context, v store.VolumeID) (*store.Wipe, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[v], nil
}

func (l *wipeLog) UnfinishedWipes(context.Context) ([]store.VolumeID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []store.VolumeID
	for id, w := range l.all {
		if w != nil && !w.Failed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func (l *wipeLog) change(v store.VolumeID, w *store.Wipe) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[v] = w
	return nil
}

func (l *wipeLog) BeginWipe(_ context.Context, v store.VolumeID, w store.Wipe) error {
	return l.change(v, &w)
}

func (l *wipeLog) FailWipe(_ context.Context, v store.VolumeID, id store.UUID) error {
	return l.settle(v, id, &store.Wipe{ID: id, Failed: true})
}

func (l *wipeLog) EndWipe(_ context.Context, v store.VolumeID, id store.UUID) error {
	return l.settle(v, id, nil)
}

func (l *wipeLog) settle(v store.VolumeID, id store.UUID, as *store.Wipe) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.all[v]; w != nil && w.ID == id {
		l.all[v] = as
	}
	return nil
}

// A sanitize operation that is answered at once (IMMED=1) outlives the target, too:
// whoever logs in to the next one finds it under way.
func TestASanitizeOutlivesItsTarget(t *testing.T) {
	l := &wipeLog{all: map[store.VolumeID]*store.Wipe{}}
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{Wipes: l})
	v := newMemory(1 << 20)
	v.syncing, v.heeds = make(chan struct{}), true
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: v, sanitize: true}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(1))
	i.Must(t, Command{LUN: LUN(1), CDB: []byte{0x48, 0x82, 0, 0, 0, 0, 0, 0, 0, 0}})
	eventually(t, func() bool { return v.syncs.Load() == 1 }, "the volume is erased, and flushed")
	b.stop()
	if w, _ := l.Wipe(t.Context(), 1); w == nil || w.Failed {
		t.Fatalf("kept is %+v", w)
	}

	copy(v.b, "what was not erased yet")
	next := &bench{catalog: b.catalog, journal: &journal{}, clock: &clock{}}
	startWith(t, next, iscsi.Config{Wipes: l})
	i = next.login(t, alice, Linux(1))
	for _, want := range []string{"06/29/00", "02/04/1B"} {
		if r, err := i.Do(Ready(1)); err != nil || r.Key() != want {
			t.Errorf("%v, %s, want %s", err, r.Key(), want)
		}
	}
	close(v.syncing)
	eventually(t, func() bool { w, _ := l.Wipe(t.Context(), 1); return w == nil }, "the wipe ends")
	eventually(t, func() bool { r, err := i.Do(Ready(1)); return err == nil && r.Status == 0 }, "the volume is ready")
	if bytes.Count(v.b, []byte{0}) != len(v.b) {
		t.Error("something is left")
	}
}

func TestVolumeOfAnotherSessionIsNotStalled(t *testing.T) {
	b := start(t)
	slow := newMemory(1 << 20)
	slow.syncing = make(chan struct{})
	b.enroll(alice, map[store.LUN]disk{1: {id: 1, volume: slow}})
	b.enroll(bob, map[store.LUN]disk{1: {id: 2, volume: newMemory(1 << 20)}})
	a, o := b.login(t, alice, Linux(1)), b.login(t, bob, Linux(1))
	a.Must(t, Ready(1))
	for range 40 {
		if _, err := a.Start(Sync10(1)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return slow.syncs.Load() > 8 }, "flushes begin")
	at := time.Now()
	o.Must(t, Read10(1, 0, 8))
	if d := time.Since(at); d > 100*time.Millisecond {
		t.Errorf("READ took %s", d)
	}
	close(slow.syncing)
}

// Two hooked volumes are two live iPXE sessions of one name.
func TestTwoHookedVolumesAlternate(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}, 1: {id: 2, volume: newMemory(1 << 20)}})
	one, two := b.login(t, alice, IPXE(1)), b.login(t, alice, IPXE(2))
	for range 500 {
		one.Must(t, Read10(0, 64, 4))
		two.Must(t, Read10(1, 64, 4))
	}
	if n := b.sessions(alice); n != 2 {
		t.Errorf("%d sessions are left", n)
	}
}

// Firmware logs in twice and never logs out: the session that reads retires the
// one that read the same LUN before it.
func TestLoginRetiresNothingAndReadingDoes(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	other := b.login(t, bob, IPXE(3))
	other.Must(t, Read10(0, 0, 1))
	one := b.login(t, alice, IPXE(1))
	one.Must(t, Read10(0, 0, 1))
	two := b.login(t, alice, IPXE(2))
	two.Must(t, Ready(0))
	one.Must(t, Read10(0, 1, 1))
	two.Must(t, Read10(0, 0, 1))
	one.Closed(t)
	e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]
	if !strings.Contains(e.Detail.Reason, "taken over LUN 0") || e.Detail.Bytes != 1024 {
		t.Errorf("the event says %+v", e.Detail)
	}
	two.Must(t, Read10(0, 0, 1))
	other.Must(t, Read10(0, 0, 1))

	// The operating system's first READ retires them all, half a minute on.
	sys := b.login(t, alice, Linux(1))
	idle := b.login(t, alice, IPXE(4))
	sys.Must(t, Read10(0, 0, 1))
	two.Closed(t) // it used the same LUN
	time.Sleep(50 * time.Millisecond)
	idle.Must(t, Ready(0))
	b.clock.advance(31 * time.Second)
	idle.Closed(t)
	sys.Must(t, Read10(0, 0, 1))
	other.Must(t, Read10(0, 0, 1))
}

func TestReinstatement(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v}})
	one := b.login(t, alice, Linux(1))
	one.Must(t, Ready(0))
	two := b.login(t, alice, Linux(1))
	one.Closed(t)
	two.Must(t, Read10(0, 0, 1))
	eventually(t, func() bool { return b.sessions(alice) == 1 }, "one session is left")
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]; !strings.Contains(e.Detail.Reason, "logged in again") {
		t.Errorf("the event says %+v", e.Detail)
	}
}

// A new session waits for the writes of the one that it replaces.
func TestReinstatementWaitsForWrites(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.puts = make(chan struct{})
	finish := sync.OnceFunc(func() { close(v.puts) })
	t.Cleanup(finish) // before the target's own
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v}})
	one := b.login(t, alice, Linux(1))
	one.Must(t, Ready(0))
	if _, err := one.Start(fua(0, 5, 7)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return v.putting.Load() == 1 }, "the write begins")
	in := make(chan error, 1)
	go func() {
		i, err := Dial(b.Addr(), Options{Name: string(alice), Target: string(target), ISID: Linux(1)})
		if err == nil {
			_ = i.Conn.Close()
		}
		in <- err
	}()
	select {
	case err := <-in:
		t.Fatalf("the login did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	finish()
	if err := <-in; err != nil {
		t.Error(err)
	}
}

func TestUnmappingTakesEffectOnALiveSession(t *testing.T) {
	b := start(t)
	one, two := disk{id: 1, volume: newMemory(1 << 20)}, disk{id: 2, volume: newMemory(1 << 20)}
	b.enroll(alice, map[store.LUN]disk{0: one, 1: two})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	i.Must(t, Ready(1))
	b.catalog.change(func() { b.catalog.luns[alice] = map[store.LUN]disk{0: one} })
	var r Result
	eventually(t, func() bool {
		var err error
		r, err = i.Do(Ready(1))
		return err == nil && r.Key() == "05/25/00"
	}, "LUN 1 goes away")
	if r, err := i.Do(Ready(0)); err != nil || r.Key() != "06/3F/0E" {
		t.Errorf("LUN 0 says %v %s, want REPORTED LUNS DATA HAS CHANGED", err, r.Key())
	}
	i.Must(t, Ready(0))

	// Without its last volume the session lives on, and is told so once.
	b.catalog.change(func() { b.catalog.luns[alice] = nil })
	eventually(t, func() bool {
		var err error
		r, err = i.Do(Ready(0))
		return err != nil || r.Status != 0
	}, "LUN 0 goes away")
	if r.Key() != "06/3F/0E" {
		t.Errorf("the last LUN goes with %s, want REPORTED LUNS DATA HAS CHANGED", r.Key())
	}
	if r, err := i.Do(Ready(0)); err != nil || r.Key() != "05/25/00" {
		t.Errorf("LUN 0 says %v %s", err, r.Key())
	}
	// And it learns of what it gets.
	b.catalog.change(func() { b.catalog.luns[alice] = map[store.LUN]disk{0: one} })
	eventually(t, func() bool { r, err := i.Do(Ready(0)); return err == nil && r.Status == 0 }, "LUN 0 comes back")
	b.catalog.change(func() { b.catalog.luns[alice] = map[store.LUN]disk{0: one, 1: two} })
	eventually(t, func() bool {
		var err error
		r, err = i.Do(Ready(0))
		return err != nil || r.Status != 0
	}, "LUN 1 comes back")
	if r.Key() != "06/3F/0E" {
		t.Errorf("a LUN comes with %s, want REPORTED LUNS DATA HAS CHANGED", r.Key())
	}
	i.Must(t, Read10(1, 0, 1))

	// A machine that is removed loses its session.
	b.catalog.change(func() { delete(b.catalog.access, alice) })
	i.Closed(t)
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]; e.Detail.Reason != "the machine was removed" {
		t.Errorf("the event says %+v", e.Detail)
	}
	eventually(t, func() bool { return b.catalog.openMaps() == 0 }, "all maps are released")
}

func TestAnotherVolumeBehindALUNEndsTheSession(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	b.catalog.change(func() { b.catalog.luns[alice] = map[store.LUN]disk{0: {id: 2, volume: newMemory(1 << 20)}} })
	i.Closed(t)
}

func TestNewGenerationEndsOlderSessions(t *testing.T) {
	b := start(t)
	d := map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}}
	b.enroll(alice, d)
	sys := b.login(t, alice, Linux(1))
	sys.Must(t, Ready(0))
	b.catalog.mu.Lock()
	b.catalog.generation[alice]++
	b.catalog.mu.Unlock()
	i := b.login(t, alice, IPXE(1))
	sys.Closed(t)
	i.Must(t, Read10(0, 0, 1))
}

// The unit is one for all sessions that map a volume, and outlives the session
// whose handle it reads through.
func TestSharedVolumeOutlivesTheSessionThatBroughtIt(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	v.b[512] = 0x77
	d := map[store.LUN]disk{0: {id: 1, volume: v}}
	b.enroll(alice, d)
	b.enroll(bob, d)
	one, two := b.login(t, alice, Linux(1)), b.login(t, bob, Linux(1))
	one.Must(t, Read10(0, 1, 1))
	if err := one.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return b.catalog.openMaps() == 1 }, "the first map is released while the second is in use")
	if r := two.Must(t, Read10(0, 1, 1)); r.Data[0] != 0x77 {
		t.Error("the volume reads other bytes")
	}
}

func TestShutdownEndsSessionsAndReleasesMaps(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	b.stop()
	i.Closed(t)
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]; !strings.Contains(e.Detail.Reason, "shutting down") {
		t.Errorf("the event says %+v", e.Detail)
	}
}

// RFC 7143 §11.9.1: an operating system that logs out when it is asked is waited
// for; one that does not is cut off when the time is up, and an iPXE, which
// takes no such message, at once.
func TestShutdownAsksOperatingSystemsToLogOut(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{LogoutTimeout: 2 * time.Second})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	polite, deaf, ipxe := b.login(t, alice, Linux(1)), b.login(t, alice, Linux(2)), b.login(t, alice, IPXE(1))
	for _, i := range []*Initiator{polite, deaf, ipxe} {
		i.Must(t, Ready(0))
	}
	at := time.Now()
	stopped := make(chan struct{})
	go func() { b.stop(); close(stopped) }()
	for _, i := range []*Initiator{polite, deaf} {
		if p, data := Expect[*pdu.Async](t, i); p.Event != pdu.AsyncRequestLogout || p.Parameter3 != 2 || len(data) != 0 {
			t.Errorf("told %+v", p)
		}
	}
	if p, _, err := ipxe.Recv(); err == nil {
		t.Errorf("an iPXE was told %+v", p)
	}
	polite.Must(t, Write10(0, 0, make([]byte, 512))) // what it has to write still is
	if err := polite.Send(&pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutCloseConnection, InitiatorTaskTag: polite.Tag(), CID: 1, CmdSN: polite.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	if p, _ := Expect[*pdu.LogoutResponse](t, polite); p.Response != pdu.LogoutSuccess {
		t.Errorf("logout: %d", p.Response)
	}
	deaf.Closed(t)
	<-stopped
	if d := time.Since(at); d < 1900*time.Millisecond || d > 10*time.Second {
		t.Errorf("the shutdown took %s", d)
	}
	reasons := map[string]int{}
	for _, e := range b.journal.wait(t, store.EventISCSIClosed, 3) {
		reasons[e.Detail.Reason]++
	}
	if reasons["the initiator logged out"] != 1 || reasons["the appliance is shutting down"] != 2 {
		t.Errorf("the sessions ended so: %v", reasons)
	}
}

func TestDrop(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	i := b.login(t, alice, Linux(1))
	i.Must(t, Ready(0))
	list := b.Sessions()
	if len(list) != 1 || list[0].Initiator != alice || list[0].IPXE || list[0].ISID != Linux(1).String() || !slices.Equal(list[0].LUNs, []store.LUN{0}) {
		t.Fatalf("sessions: %+v", list)
	}
	if err := b.Drop(context.Background(), list[0].ID); err != nil {
		t.Fatal(err)
	}
	i.Closed(t)
	if err := b.Drop(context.Background(), list[0].ID); !store.IsNotFound(err) {
		t.Errorf("dropping it again: %v", err)
	}
}

func TestSilence(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	sys, ipxe := b.login(t, alice, Linux(1)), b.login(t, alice, IPXE(1))
	sys.Must(t, Ready(0))
	ipxe.Must(t, Ready(0))
	time.Sleep(50 * time.Millisecond) // the tick sees that they spoke
	b.clock.advance(31 * time.Second)
	ping, _ := Expect[*pdu.NOPIn](t, sys)
	if ping.InitiatorTaskTag != pdu.ReservedTag || ping.TargetTransferTag == pdu.ReservedTag {
		t.Fatalf("not a ping: %+v", ping)
	}
	if err := sys.Send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: ping.TargetTransferTag, CmdSN: sys.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	b.clock.advance(31 * time.Second)
	Expect[*pdu.NOPIn](t, sys) // it lived on, and is asked again
	time.Sleep(50 * time.Millisecond)
	b.clock.advance(61 * time.Second)
	sys.Closed(t)
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]; !strings.Contains(e.Detail.Reason, "has not answered") {
		t.Errorf("the event says %+v", e.Detail)
	}
	// It was not dropped, and its command's answer is the first thing that came.
	tag, err := ipxe.Start(Ready(0))
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := Expect[*pdu.SCSIResponse](t, ipxe); p.InitiatorTaskTag != tag || p.Status != 0 {
		t.Errorf("%+v", p)
	}
}

func TestEventsOfASession(t *testing.T) {
	b := start(t)
	v := newMemory(1 << 20)
	b.enroll(alice, map[store.LUN]disk{5: {id: 1, volume: v}})
	i := b.login(t, alice, Linux(1))
	e := b.journal.wait(t, store.EventISCSILogin, 1)[0]
	if e.Detail.Auth != "none" || !slices.Equal(e.Detail.Mapped, []int{5}) || e.Detail.Target != string(target) || e.At.IsZero() {
		t.Errorf("login: %+v", e)
	}
	i.Must(t, Read10(5, 0, 2))
	i.Must(t, Read10(5, 0, 2))
	w := Write10(5, 0, make([]byte, 512))
	w.Immediate = 512
	i.Must(t, w)
	if e := b.journal.wait(t, store.EventISCSIFirstRead, 1); len(e) != 1 || *e[0].Detail.LUN != 5 || e[0].Detail.Volume != "disk" {
		t.Errorf("first read: %+v", e)
	}
	if e := b.journal.wait(t, store.EventISCSIFirstWrite, 1); len(e) != 1 || *e[0].Detail.LUN != 5 {
		t.Errorf("first write: %+v", e)
	}
	if e := b.journal.wait(t, store.EventISCSIIO, 1)[0]; e.Detail.Bytes == 0 {
		t.Errorf("sample: %+v", e.Detail)
	}
	v.fail.Store(true)
	if r, err := i.Do(Read10(5, 7, 1)); err != nil || r.Key() != "03/11/00" {
		t.Errorf("a failing read: %v %s", err, r.Key())
	}
	if e := b.journal.wait(t, store.EventISCSIIOFailed, 1)[0]; e.Detail.LBA != 7 || e.Detail.Opcode != "READ(10)" || e.Detail.Sense != "03/11/00" || e.Detail.Reason == "" {
		t.Errorf("failure: %+v", e.Detail)
	}
	if err := i.Send(&pdu.LogoutRequest{Immediate: true, InitiatorTaskTag: i.Tag(), CID: 1, CmdSN: i.CmdSN}, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := Expect[*pdu.LogoutResponse](t, i); r.Response != pdu.LogoutSuccess {
		t.Errorf("logout: %+v", r)
	}
	i.Closed(t)
	b.journal.wait(t, store.EventISCSILogout, 1)
	if e := b.journal.wait(t, store.EventISCSIClosed, 1)[0]; e.Detail.Bytes != 2048 || e.Detail.Written != 512 || e.Detail.Reason != "the initiator logged out" {
		t.Errorf("closed: %+v", e.Detail)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	c, j := newCatalog(), &journal{}
	b := &bench{catalog: c, journal: j, clock: &clock{}}
	startWith(t, b, iscsi.Config{MaxSessions: 2})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.login(t, alice, Linux(1))
	b.login(t, alice, Linux(2))
	wantRefused(t, b, Options{Name: string(alice), Target: string(target), ISID: Linux(3)}, pdu.LoginOutOfResources, "the limit")
}

// Every way to send the bytes of a WRITE puts them at the same place, and every
// size of READ brings them back.
func TestTransfersOfEverySize(t *testing.T) {
	for _, keys := range [][]string{
		{"InitialR2T", "No", "ImmediateData", "Yes", "MaxRecvDataSegmentLength", "262144", "MaxBurstLength", "16776192", "FirstBurstLength", "262144"},
		{"InitialR2T", "Yes", "ImmediateData", "No", "MaxRecvDataSegmentLength", "8192", "MaxBurstLength", "262144", "FirstBurstLength", "65536"}, // iPXE's
		{"InitialR2T", "No", "ImmediateData", "Yes", "MaxRecvDataSegmentLength", "1000", "MaxBurstLength", "3000", "FirstBurstLength", "2000", "HeaderDigest", "CRC32C", "DataDigest", "CRC32C"},
	} {
		t.Run(strings.Join(keys[len(keys)-2:], "="), func(t *testing.T) {
			b := start(t)
			v := newMemory(16 << 20)
			b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: v}})
			i := b.login(t, alice, Linux(1), keys...)
			eager, first := i.Answers["InitialR2T"] == "No", 2000
			if i.Answers["FirstBurstLength"] == "262144" {
				first = 262144
			}
			random := rand.New(rand.NewSource(3))
			for _, blocks := range []int{1, 3, 8, 100, 127, 129, 513, 2048, 5000} {
				data := make([]byte, blocks*512)
				random.Read(data)
				for _, cold := range []bool{false, true} {
					v.cold.Store(cold)
					for _, how := range []string{"asked", "immediate", "unasked", "both"} {
						w := Write10(0, 9, data)
						if eager {
							switch how {
							case "immediate":
								w.Immediate = min(len(data), first)
							case "unasked":
								w.Unasked = min(len(data), first)
							case "both":
								w.Immediate = min(len(data), first) / 2
								w.Unasked = min(len(data), first) - w.Immediate
							}
						}
						clear(v.b)
						i.Must(t, w)
						if !bytes.Equal(v.b[9*512:9*512+len(data)], data) || v.b[9*512-1] != 0 || v.b[9*512+len(data)] != 0 {
							t.Fatalf("%d blocks, %s: other bytes were written", blocks, how)
						}
					}
					if r := i.Must(t, Read10(0, 9, uint16(blocks))); !bytes.Equal(r.Data, data) || r.Overflow || r.Underflow {
						t.Fatalf("%d blocks: other bytes were read (%d, %v %v)", blocks, len(r.Data), r.Overflow, r.Underflow)
					}
				}
			}
		})
	}
}

// A connection that does not log in is closed in time, never left silent.
func TestLoginThatIsNotFinished(t *testing.T) {
	b := &bench{catalog: newCatalog(), journal: &journal{}, clock: &clock{}}
	startWith(t, b, iscsi.Config{LoginTimeout: 100 * time.Millisecond})
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	for _, begin := range []bool{false, true} {
		nc, err := net.Dial("tcp", b.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		i := Attach(nc, 1, 0, false, false)
		if begin {
			q := &pdu.LoginRequest{CSG: pdu.OperationalNegotiation, NSG: pdu.OperationalNegotiation, ISID: IPXE(1), CmdSN: 1}
			if err := i.Send(q, pdu.AppendText(pdu.AppendText(nil, "InitiatorName", string(alice)), "TargetName", string(target))); err != nil {
				t.Fatal(err)
			}
			Expect[*pdu.LoginResponse](t, i)
		}
		i.Closed(t)
	}
	if e := b.journal.wait(t, store.EventISCSIRefused, 1); len(e) != 1 || !strings.Contains(e[0].Detail.Reason, "did not finish within") || e[0].Detail.Initiator != string(alice) {
		t.Errorf("events: %+v", e)
	}
}

// Connections that only sit there are bounded, for each address and in all; one
// too many is closed at once, or in its place one that is there for long.
func TestConnectionsInLoginAreBounded(t *testing.T) {
	b := start(t)
	var open atomic.Int64
	var all sync.WaitGroup
	for n := range 650 {
		nc := b.from(t, max(0, n-249)/2) // the first 250 from one address
		all.Go(func() {
			if ended(nc, 2*time.Second) != nil {
				open.Add(1)
			}
		})
		if n == 249 {
			all.Wait()
			if k := open.Swap(0); k > 128 {
				t.Errorf("%d connections of one address are open", k)
			}
		}
	}
	all.Wait()
	if k := open.Load(); k > 256 {
		t.Errorf("%d connections are open", k)
	}
}

// A fault of ours in one session ends that session and no other.
func TestPanicEndsOneSession(t *testing.T) {
	b := start(t)
	bad, good := newMemory(1<<20), newMemory(1<<20)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: bad}})
	b.enroll(bob, map[store.LUN]disk{0: {id: 2, volume: good}})
	a, o := b.login(t, alice, Linux(1)), b.login(t, bob, Linux(1))
	a.Must(t, Ready(0))
	o.Must(t, Ready(0))
	for _, cold := range []bool{false, true} {
		bad.cold.Store(cold)
		bad.broken.Store(true)
		if _, err := a.Start(Read10(0, 0, 8)); err != nil {
			t.Fatal(err)
		}
		if cold {
			// The unit may turn this one into a failed command by itself.
			_, _, _ = a.Recv()
		} else {
			a.Closed(t)
		}
		o.Must(t, Read10(0, 0, 8))
		bad.broken.Store(false)
		a = b.login(t, alice, Linux(1))
		a.Must(t, Read10(0, 0, 8))
	}
}

func TestPortThatIsTaken(t *testing.T) {
	b := start(t)
	o := iscsi.New(iscsi.Config{Listen: b.Addr().String(), Target: target, Catalog: b.catalog, Emit: b.journal, Now: time.Now})
	if err := o.Listen(); err == nil || !strings.Contains(err.Error(), "--iscsi") || !strings.Contains(err.Error(), b.Addr().String()) {
		t.Errorf("Listen: %v", err)
	}
}

// After a stop the target may be started again.
func TestListenAgain(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{0: {id: 1, volume: newMemory(1 << 20)}})
	b.login(t, alice, Linux(1)).Must(t, Ready(0))
	b.stop()
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Serve(ctx) }()
	b.login(t, alice, Linux(1)).Must(t, Ready(0))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A machine that resets a shared volume is not told that it is done while
// another machine's write may still land there.
func TestAResetWaitsForOtherMachinesWrites(t *testing.T) {
	for _, f := range []pdu.TaskFunction{pdu.FuncLogicalUnitReset, pdu.FuncClearTaskSet, pdu.FuncTargetWarmReset} {
		t.Run(f.String(), func(t *testing.T) {
			b := start(t)
			shared := newMemory(1 << 20)
			shared.puts = make(chan struct{})
			finish := sync.OnceFunc(func() { close(shared.puts) })
			t.Cleanup(finish) // before the target's own
			disks := map[store.LUN]disk{0: {id: 1, volume: shared}}
			b.enroll(alice, disks)
			b.enroll(bob, disks)
			resetter, writer := b.login(t, alice, Linux(1)), b.login(t, bob, Linux(1))
			writer.Must(t, Ready(0))
			resetter.Must(t, Ready(0))
			if _, err := writer.Start(fua(0, 5, 7)); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return shared.putting.Load() == 1 }, "the write waits for its disk")
			q := &pdu.TaskRequest{Immediate: true, Function: f, InitiatorTaskTag: resetter.Tag(), CmdSN: resetter.CmdSN}
			if err := resetter.Send(q, nil); err != nil {
				t.Fatal(err)
			}
			// Whatever the reset waits for, the session goes on.
			nop := &pdu.NOPOut{Immediate: true, InitiatorTaskTag: resetter.Tag(), TargetTransferTag: pdu.ReservedTag, CmdSN: resetter.CmdSN}
			if err := resetter.Send(nop, nil); err != nil {
				t.Fatal(err)
			}
			if p, _ := Expect[*pdu.NOPIn](t, resetter); p.InitiatorTaskTag != nop.InitiatorTaskTag {
				t.Fatalf("the reset was answered before the write had come to rest: %+v", p)
			}
			finish()
			if p, _ := Expect[*pdu.TaskResponse](t, resetter); p.Response != pdu.TaskComplete || p.InitiatorTaskTag != q.InitiatorTaskTag {
				t.Errorf("%+v", p)
			}
		})
	}
}

// A write to what may only be read fails as any other does, and is told of: a
// machine that needs to write stops there.
func TestAWriteToWhatIsReadOnlyIsToldOf(t *testing.T) {
	b := start(t)
	b.enroll(alice, map[store.LUN]disk{5: {id: 1, volume: newMemory(1 << 20), readOnly: true}})
	i := b.login(t, alice, IPXE(1))
	i.Must(t, Read10(5, 0, 1))
	w := Write10(5, 9, make([]byte, 512))
	w.Immediate = 512
	if r, err := i.Do(w); err != nil || r.Key() != "07/27/00" {
		t.Fatalf("%v, %s", err, r.Key())
	}
	if e := b.journal.wait(t, store.EventISCSIIOFailed, 1)[0]; e.Detail.Opcode != "WRITE(10)" || e.Detail.LBA != 9 || e.Detail.Sense != "07/27/00" || e.Detail.Reason != "the volume may not be written" || *e.Detail.LUN != 5 {
		t.Errorf("%+v", e.Detail)
	}
}
