package scsi

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lunboot/services/iscsi/scsi/reserve"
	"lunboot/store"
)

// prout runs PERSISTENT RESERVE OUT at LUN 0.
func prout(t *testing.T, n *Nexus, a reserve.Action, kind reserve.Type, key, next uint64, flags byte) *Command {
	t.Helper()
	list := make([]byte, reserve.ListLength)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], next)
	list[20] = flags
	return run(t, n, 0, fmt.Sprintf("5f %02x %02x 0000 00000018 00", byte(a), byte(kind)), list)
}

const (
	read10      = "28 00 00000000 00 0001 00"
	verify10    = "2f 00 00000000 00 0001 00"
	syncCache   = "35 00 00000000 00 0000 00"
	testReady   = "000000000000"
	readKeys    = "5e 00 0000000000 0400 00"
	readStatus  = "5e 03 0000000000 0400 00"
	modeSense   = "1a 00 3f 00 ff 00"
	reserve6    = "16 00 00 00 00 00"
	release6    = "17 00 00 00 00 00"
	readCap     = "25 00 00000000 00 0000 00"
	lbaStatus   = "9e 12 0000000000000000 00000100 00 00"
	withAPTPL   = 0x01
	keyA        = 0xa
	keyB        = 0xb
	prefetch    = "34 00 00000000 00 0001 00"
	startUnit   = "1b 00 00 00 01 00"
	reportCodes = "a3 0c 00 0000 0000 00000400 00 00"
)

func write10(t *testing.T, n *Nexus) *Command {
	t.Helper()
	return run(t, n, 0, "2a 00 00000000 00 0001 00", pattern(1, 512))
}

// two is a rig with two nexuses, a registered with key a, b with key b.
func two(t *testing.T, change ...func(*UnitConfig)) (r *rig, a, b *Nexus) {
	r = newRig(t, change...)
	a = r.join(NexusConfig{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 1}})
	b = r.join(NexusConfig{Initiator: "iqn.2026-11.test:b", ISID: [6]byte{0x80, 1}})
	wantGood(t, prout(t, a, reserve.ActRegister, 0, 0, keyA, 0))
	wantGood(t, prout(t, b, reserve.ActRegister, 0, 0, keyB, 0))
	return r, a, b
}

func TestAPersistentReservationKeepsOthersOut(t *testing.T) {
	r, a, _ := two(t)
	stranger := r.nexus
	for _, tc := range []struct {
		t      reserve.Type
		reads  bool // a stranger may read
		others bool // b, registered, may write
	}{
		{reserve.WriteExclusive, true, false}, {reserve.ExclusiveAccess, false, false},
		{reserve.WriteExclusiveOnly, true, true}, {reserve.ExclusiveAccessOnly, false, true},
		{reserve.WriteExclusiveAll, true, true}, {reserve.ExclusiveAccessAll, false, true},
	} {
		wantGood(t, prout(t, a, reserve.ActReserve, tc.t, keyA, 0, 0))
		wantGood(t, write10(t, a))
		for _, cdb := range []string{read10, verify10, prefetch, lbaStatus, modeSense, reportCodes} {
			if c := run(t, stranger, 0, cdb, nil); tc.reads {
				wantGood(t, c)
			} else {
				wantConflict(t, c)
			}
		}
		wantConflict(t, write10(t, stranger))
		for _, cdb := range []string{syncCache, reserve6, release6} {
			wantConflict(t, run(t, stranger, 0, cdb, nil))
		}
		for _, cdb := range []string{testReady, readKeys, readStatus, readCap, startUnit, "120000002400", "a0000000000000000100 0000", "030000001200"} {
			wantGood(t, run(t, stranger, 0, cdb, nil))
		}
		wantGood(t, prout(t, a, reserve.ActRelease, tc.t, keyA, 0, 0))
	}
}

func TestARegisteredNexusMayWriteUnderARegistrantsReservation(t *testing.T) {
	_, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.WriteExclusiveOnly, keyA, 0, 0))
	wantGood(t, write10(t, b))
	wantGood(t, prout(t, a, reserve.ActRelease, reserve.WriteExclusiveOnly, keyA, 0, 0))
	wantSense(t, run(t, b, 0, testReady, nil), 6, 0x2a, 0x04) // RESERVATIONS RELEASED
	wantGood(t, run(t, a, 0, testReady, nil))                 // not to the one that released it
}

func TestARegistrationOutlivesItsSession(t *testing.T) {
	r, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.ExclusiveAccess, keyA, 0, 0))
	a.Close()
	wantConflict(t, run(t, b, 0, read10, nil))
	again := r.join(NexusConfig{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 1}})
	wantGood(t, run(t, again, 0, read10, nil))
	elsewhere := r.join(NexusConfig{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 2}})
	wantConflict(t, run(t, elsewhere, 0, read10, nil)) // another port of the same initiator
	r.unit.reset(b, uaUnitReset, func() {})            // a reset ends no persistent reservation
	run(t, again, 0, testReady, nil)
	wantGood(t, run(t, again, 0, read10, nil))
	run(t, b, 0, testReady, nil)
	wantConflict(t, run(t, b, 0, read10, nil))
}

func TestPreemptAndAbortReachesTheTasks(t *testing.T) {
	r := newRig(t)
	var aborted []store.LUN
	a := r.join(NexusConfig{Initiator: "iqn.2026-11.test:a", Abort: func(l store.LUN, rest func()) int { aborted = append(aborted, l); rest(); return 1 }})
	b := r.join(NexusConfig{Initiator: "iqn.2026-11.test:b"})
	wantGood(t, prout(t, a, reserve.ActRegister, 0, 0, keyA, 0))
	wantGood(t, prout(t, b, reserve.ActRegister, 0, 0, keyB, 0))
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.ExclusiveAccess, keyA, 0, 0))
	wantGood(t, prout(t, b, reserve.ActPreemptAbort, reserve.ExclusiveAccess, keyB, keyA, 0))
	if len(aborted) != 1 || aborted[0] != 0 {
		t.Errorf("tasks aborted at %v", aborted)
	}
	wantSense(t, run(t, a, 0, testReady, nil), 6, 0x2a, 0x05) // REGISTRATIONS PREEMPTED
	wantConflict(t, run(t, a, 0, read10, nil))
	wantGood(t, run(t, b, 0, read10, nil))
}

func TestTheOlderAndThePersistentReservationsExclude(t *testing.T) {
	r, a, _ := two(t)
	wantConflict(t, run(t, a, 0, reserve6, nil)) // registrations exist
	wantGood(t, prout(t, a, reserve.ActClear, 0, keyA, 0, 0))
	wantGood(t, run(t, a, 0, reserve6, nil))
	wantConflict(t, prout(t, r.nexus, reserve.ActRegister, 0, 0, 1, 0))
	wantConflict(t, prout(t, a, reserve.ActRegister, 0, 0, 1, 0)) // not even by the holder (SPC-2)
	for action := range 4 {                                       // PERSISTENT RESERVE IN, whoever asks (SPC-2 §5.5.1)
		in := fmt.Sprintf("5e %02x 0000000000 0400 00", action)
		wantConflict(t, run(t, r.nexus, 0, in, nil))
		wantConflict(t, run(t, a, 0, in, nil))
	}
	wantConflict(t, run(t, r.nexus, 0, modeSense, nil))
	wantGood(t, run(t, a, 0, release6, nil))
	wantGood(t, run(t, a, 0, readKeys, nil))
	wantGood(t, prout(t, a, reserve.ActRegister, 0, 0, 1, 0))
}

func TestPersistentReserveOutIsChecked(t *testing.T) {
	r, a, _ := two(t)
	wantSense(t, run(t, a, 0, "5f 00 00 0000 00000017 00", make([]byte, 23)), 5, 0x1a, 0)
	wantSense(t, prout(t, a, reserve.ActReserve, 2, keyA, 0, 0), 5, 0x24, 0)
	wantSense(t, prout(t, a, reserve.ActRegister, 0, keyA, 1, 0x08), 5, 0x26, 0)
	others := make([]byte, 28) // TransportIDs of others, or their length at least
	wantSense(t, run(t, a, 0, "5f 00 00 0000 0000001c 00", others), 5, 0x1a, 0)
	others[20] = 0x08
	for action := range 7 {
		wantSense(t, run(t, a, 0, fmt.Sprintf("5f %02x 03 0000 0000001c 00", action), others), 5, 0x26, 0)
	}
	wantSense(t, prout(t, a, 8, 0, keyA, 1, 0), 5, 0x24, 0) // REPLACE LOST RESERVATION
	wantSense(t, run(t, a, 0, "5f 07 00 0000 00000010 00", make([]byte, 16)), 5, 0x1a, 0)
	wantSense(t, run(t, a, 0, "5f 07 00 0000 00000200 00", make([]byte, 512)), 5, 0x1a, 0)
	wantConflict(t, prout(t, a, reserve.ActReserve, reserve.WriteExclusive, 0x99, 0, 0))
	wantSense(t, run(t, a, 0, "5e 04 0000000000 0400 00", nil), 5, 0x24, 0)
	wantData(t, run(t, a, 0, "5e 00 0000000000 000c 00", nil), "00000002 00000010 00000000") // cut at the allocation length
	reader := NewNexus(NexusConfig{Initiator: "iqn.2026-11.test:reader"})
	reader.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit, ReadOnly: true}})
	run(t, reader, 0, testReady, nil)
	wantSense(t, prout(t, reader, reserve.ActRegister, 0, 0, 1, 0), 7, 0x27, 0) // who may not write may not lock out writers
}

func TestWhatIsToSurviveAPowerLossIsKeptBeforeGOOD(t *testing.T) {
	var kept store.Reservations
	var fail error
	keep := func(_ context.Context, s store.Reservations) error {
		if fail == nil {
			kept = s
		}
		return fail
	}
	with := func(c *UnitConfig) { c.Reservations = NewReservations(kept, keep) }
	_, a, b := two(t, with)
	if !kept.Empty() {
		t.Error("what nobody asked to be kept was kept")
	}
	wantGood(t, prout(t, a, reserve.ActRegister, 0, keyA, 0x1a, withAPTPL))
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.ExclusiveAccess, 0x1a, 0, 0))
	if kept.Type != reserve.ExclusiveAccess || len(kept.Registrations) != 2 {
		t.Fatalf("kept %+v", kept)
	}
	// A volume that cannot be written to: no GOOD, and nothing changed.
	fail = errors.New("the disk is full")
	wantSense(t, prout(t, a, reserve.ActRelease, reserve.ExclusiveAccess, 0x1a, 0, 0), 4, 0x44, 0)
	wantConflict(t, run(t, b, 0, read10, nil))
	fail = nil

	_, a, b = twoUnregistered(t, with)                                     // the power was lost
	wantData(t, run(t, a, 0, "5e 00 0000000000 0004 00", nil), "00000000") // PRGENERATION begins anew
	wantConflict(t, run(t, b, 0, read10, nil))
	wantGood(t, run(t, a, 0, read10, nil))
	wantGood(t, prout(t, b, reserve.ActPreempt, reserve.WriteExclusive, keyB, 0x1a, 0))
	wantSense(t, run(t, a, 0, readKeys, nil), 6, 0x2a, 0x05)
}

// twoUnregistered is two without the registrations.
func twoUnregistered(t *testing.T, change ...func(*UnitConfig)) (r *rig, a, b *Nexus) {
	r = newRig(t, change...)
	return r, r.join(NexusConfig{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 1}}), r.join(NexusConfig{Initiator: "iqn.2026-11.test:b", ISID: [6]byte{0x80, 1}})
}

func TestANewBootForgetsWhatTheOldOneHeld(t *testing.T) {
	r, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.WriteExclusiveOnly, keyA, 0, 0))
	if err := r.unit.Forget(t.Context(), "iqn.2026-11.test:a"); err != nil {
		t.Fatal(err)
	}
	wantSense(t, run(t, b, 0, testReady, nil), 6, 0x2a, 0x04)
	wantGood(t, write10(t, r.nexus))
	wantConflict(t, prout(t, a, reserve.ActReserve, reserve.WriteExclusive, keyA, 0, 0)) // it is registered no more
}

// Every row of the table of commands has its place in the standard's tables of
// commands that are allowed beside a reservation (SPC-2 §5.5.1 for RESERVE;
// SPC-4 §5.13.1, SBC-3 §4.17 for persistent ones): a stranger is let through by
// RESERVE, by a write exclusive and by an exclusive access reservation, or not.
func TestEveryCommandBesideAReservation(t *testing.T) {
	const (
		always   = "yes yes yes"
		reads    = "no yes no"
		never    = "no no no"
		whatever = "no yes yes" // decides by itself
	)
	want := map[string]string{
		"TEST UNIT READY": whatever, "REQUEST SENSE": always, "INQUIRY": always, "LOG SENSE": always, "REPORT LUNS": always, "REPORT TARGET PORT GROUPS": always,
		"READ CAPACITY(10)": always, "READ CAPACITY(16)": always,
		"READ(6)": reads, "READ(10)": reads, "READ(12)": reads, "READ(16)": reads, "VERIFY(10)": reads, "VERIFY(12)": reads, "VERIFY(16)": reads,
		"PRE-FETCH(10)": reads, "PRE-FETCH(16)": reads, "GET LBA STATUS": reads, "READ DEFECT DATA(10)": reads, "READ DEFECT DATA(12)": reads,
		"MODE SENSE(6)": reads, "MODE SENSE(10)": reads, "REPORT SUPPORTED OPERATION CODES": reads, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS": reads,
		"RELEASE(6)": "yes no no", "RELEASE(10)": "yes no no", // a RELEASE of SPC-2 conflicts with registrations
		"START STOP UNIT": never, "PREVENT ALLOW MEDIUM REMOVAL": always, // of zeros: to stop, and to allow
		"PERSISTENT RESERVE IN, READ KEYS": whatever, "PERSISTENT RESERVE IN, READ RESERVATION": whatever,
		"PERSISTENT RESERVE IN, REPORT CAPABILITIES": whatever, "PERSISTENT RESERVE IN, READ FULL STATUS": whatever,
		"RECEIVE COPY RESULTS, COPY STATUS": whatever, "RECEIVE COPY RESULTS, OPERATING PARAMETERS": whatever,
		"RECEIVE COPY RESULTS, FAILED SEGMENT DETAILS": whatever,
	}
	stranger := func(t *testing.T, hold func(a *Nexus)) *Nexus {
		_, a, b := twoUnregistered(t)
		hold(a)
		b.luns.Load().byLUN[0].sanitize.Store(true)
		return b
	}
	persistent := func(kind reserve.Type) func(*Nexus) {
		return func(a *Nexus) {
			wantGood(t, prout(t, a, reserve.ActRegister, 0, 0, keyA, 0))
			wantGood(t, prout(t, a, reserve.ActReserve, kind, keyA, 0, 0))
		}
	}
	under := []*Nexus{
		stranger(t, func(a *Nexus) { wantGood(t, run(t, a, 0, reserve6, nil)) }),
		stranger(t, persistent(reserve.WriteExclusive)), stranger(t, persistent(reserve.ExclusiveAccess)),
	}
	passes := func(n *Nexus, cdb [16]byte) string {
		c := &Command{CDB: cdb}
		if n.Begin(c); c.Status == StatusReservationConflict {
			return "no"
		}
		return "yes"
	}
	for code := range operations {
		for _, op := range operations[code] {
			cdb := [16]byte{byte(code)}
			if op.is(serviceAction) {
				cdb[1] = op.action()
			}
			w := want[op.name]
			if w == "" {
				w = never
			}
			if code == 0x5f {
				w = whatever
			}
			if got := passes(under[0], cdb) + " " + passes(under[1], cdb) + " " + passes(under[2], cdb); got != w {
				t.Errorf("%s: %s, want %s", op.name, got, w)
			}
			delete(want, op.name)
		}
	}
	for name := range want {
		t.Errorf("%s is no command", name)
	}
	for cdb, w := range map[string]string{
		"1b 00 00 00 01 00": always, "1b 00 00 00 05 00": always, "1b 00 00 00 11 00": never, // to start; with a power condition
		"1e 00 00 00 01 00": never,
	} {
		for k, n := range under {
			if got := passes(n, cdbBytes(t, cdb)); got != strings.Fields(w)[k] {
				t.Errorf("%s is let through by reservation %d: %s", cdb, k, got)
			}
		}
	}
}

// SAM-5 §5.3.3: what a power-on or a reset has to say goes before RESERVATION
// CONFLICT, and that goes before every other unit attention condition and every
// other fault, which wait.
func TestAConflictGoesBeforeAllButAReset(t *testing.T) {
	r, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.ExclusiveAccess, keyA, 0, 0))
	wantGood(t, run(t, a, 0, "15 10 00 00 10 00", unhex(t, "00000000 0a0a 0210 08 000000 ffff0000")))
	wantConflict(t, run(t, b, 0, read10, nil))
	wantConflict(t, run(t, b, 0, "28 00 ffffffff 00 0001 04", nil))
	wantConflict(t, write10(t, b))
	wantSense(t, run(t, b, 0, testReady, nil), 6, 0x2a, 1)
	wantConflict(t, write10(t, b))
	a.LogicalUnitReset([8]byte{}, func() {})
	wantSense(t, run(t, b, 0, read10, nil), 6, 0x29, 3)
	wantConflict(t, run(t, b, 0, read10, nil))
	n := NewNexus(NexusConfig{Initiator: "iqn.2026-11.test:c"})
	n.SetMap(map[store.LUN]MapEntry{0: {Unit: r.unit}})
	wantSense(t, run(t, n, 0, read10, nil), 6, 0x29, 0)
	wantConflict(t, run(t, n, 0, read10, nil))
}

func TestAReservationIsMoved(t *testing.T) {
	_, a, b := two(t)
	wantGood(t, prout(t, a, reserve.ActReserve, reserve.ExclusiveAccess, keyA, 0, 0))
	wantConflict(t, run(t, b, 0, read10, nil))
	id := unhex(t, "45000024"+hex.EncodeToString([]byte("iqn.2026-11.test:b,i,0x800100000000"))+"00")
	list := make([]byte, 24, 24+len(id))
	binary.BigEndian.PutUint64(list, keyA)
	binary.BigEndian.PutUint64(list[8:], 0x77)
	list[17], list[19], list[23] = 0x02, 1, byte(len(id))
	list = append(list, id...)
	wantGood(t, run(t, a, 0, fmt.Sprintf("5f 07 00 0000 %08x 00", len(list)), list))
	wantGood(t, run(t, b, 0, read10, nil))
	wantConflict(t, run(t, a, 0, read10, nil))
	wantData(t, run(t, b, 0, readKeys, nil), "00000003 00000008 0000000000000077")
}

// Who is told of somebody else's PERSISTENT RESERVE OUT, by which unit attention
// condition, once; the sender and whoever is not registered never are (SPC-4
// §5.13).
func TestWhoIsToldOfAReservation(t *testing.T) {
	const preempted, released, lost = 0x03, 0x04, 0x05 // of 2Ah
	type told map[string]byte
	for _, tc := range []struct {
		name   string
		held   reserve.Type // by a
		sender string
		action reserve.Action
		kind   reserve.Type
		key    uint64
		next   uint64
		want   told
	}{
		{"REGISTER", 0, "a", reserve.ActRegister, 0, 1, 9, nil},
		{"RESERVE", 0, "a", reserve.ActReserve, reserve.WriteExclusive, 1, 0, nil},
		{"RELEASE of one's own", reserve.WriteExclusive, "a", reserve.ActRelease, reserve.WriteExclusive, 1, 0, nil},
		{"RELEASE of the registrants'", reserve.WriteExclusiveOnly, "a", reserve.ActRelease, reserve.WriteExclusiveOnly, 1, 0, told{"b": released, "c": released}},
		{"RELEASE of all registrants'", reserve.ExclusiveAccessAll, "b", reserve.ActRelease, reserve.ExclusiveAccessAll, 2, 0, told{"a": released, "c": released}},
		{"the holder unregisters", reserve.ExclusiveAccessOnly, "a", reserve.ActRegister, 0, 1, 0, told{"b": released, "c": released}},
		{"the holder of its own unregisters", reserve.ExclusiveAccess, "a", reserve.ActRegister, 0, 1, 0, nil},
		{"CLEAR", reserve.WriteExclusive, "b", reserve.ActClear, 0, 2, 0, told{"a": preempted, "c": preempted}},
		{"PREEMPT by the same type", reserve.WriteExclusive, "b", reserve.ActPreempt, reserve.WriteExclusive, 2, 1, told{"a": lost}},
		{"PREEMPT by another type", reserve.WriteExclusive, "b", reserve.ActPreempt, reserve.ExclusiveAccess, 2, 1, told{"a": lost, "c": released}},
		{"PREEMPT of all registrants", reserve.WriteExclusiveAll, "b", reserve.ActPreempt, reserve.ExclusiveAccess, 2, 0, told{"a": lost, "c": lost}},
		{"PREEMPT AND ABORT of one who holds nothing", reserve.WriteExclusive, "a", reserve.ActPreemptAbort, 0, 1, 3, told{"c": lost}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			nexuses := map[string]*Nexus{"stranger": r.nexus}
			for k, name := range []string{"a", "b", "c"} {
				nexuses[name] = r.join(NexusConfig{Initiator: "iqn.2026-11.test:" + name, Abort: func(_ store.LUN, rest func()) int { rest(); return 1 }})
				wantGood(t, prout(t, nexuses[name], reserve.ActRegister, 0, 0, uint64(k+1), 0))
			}
			if tc.held != 0 {
				wantGood(t, prout(t, nexuses["a"], reserve.ActReserve, tc.held, 1, 0, 0))
			}
			wantGood(t, prout(t, nexuses[tc.sender], tc.action, tc.kind, tc.key, tc.next, 0))
			for name, n := range nexuses {
				if ascq := tc.want[name]; ascq != 0 {
					wantSense(t, run(t, n, 0, testReady, nil), 6, 0x2a, ascq)
				}
				wantGood(t, run(t, n, 0, testReady, nil))
			}
		})
	}
}
