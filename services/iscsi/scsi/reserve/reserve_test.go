package reserve

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lunboot/services/iscsi/scsi/sense"
	"lunboot/store"
)

var (
	a = Port{Initiator: "iqn.2026-11.test:a", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}}
	b = Port{Initiator: "iqn.2026-11.test:b", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}}
	c = Port{Initiator: "iqn.2026-11.test:c", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}}
)

// reg is a state in which the ports are registered with keys 1, 2, 3 …
func reg(ports ...Port) State {
	var s State
	for k, p := range ports {
		s.Registrations = append(s.Registrations, store.Registration{Port: p, Key: uint64(k + 1)})
	}
	s.Generation = uint32(len(ports))
	return s
}

// held is reg with a reservation of the first port.
func held(t Type, ports ...Port) State {
	s := reg(ports...)
	s.Type = t
	if !all(t) {
		s.Holder = ports[0]
	}
	return s
}

func told(notices []Notice) string {
	var out []string
	names := map[Port]string{a: "a", b: "b", c: "c"}
	for _, n := range notices {
		s := fmt.Sprintf("%s:%d", names[n.Port], n.Condition)
		if n.Abort {
			s += "!"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func describe(s State) string {
	names := map[Port]string{a: "a", b: "b", c: "c", {}: "-"}
	out := fmt.Sprintf("g%d t%d %s:", s.Generation, s.Type, names[s.Holder])
	for _, r := range s.Registrations {
		out += fmt.Sprintf(" %s=%d", names[r.Port], r.Key)
	}
	return out
}

// The rules of SPC-4 §5.13, a line each: what was, who sends what, what is then
// and who is told (1: reservations preempted, 2: released, 3: registrations
// preempted; !: and its tasks are aborted).
func TestPersistentReserveOut(t *testing.T) {
	for _, tc := range []struct {
		name  string
		was   State
		port  Port
		out   Out
		want  string
		told  string
		fault error
	}{
		{"register", State{}, a, Out{Action: ActRegister, New: 9}, "g1 t0 -: a=9", "", nil},
		{"register with a key that is not there", State{}, a, Out{Action: ActRegister, Key: 5, New: 9}, "", "", ErrConflict},
		{"a new key", reg(a), a, Out{Action: ActRegister, Key: 1, New: 9}, "g2 t0 -: a=9", "", nil},
		{"a new key with the wrong old one", reg(a), a, Out{Action: ActRegister, Key: 7, New: 9}, "", "", ErrConflict},
		{"a new key whatever the old one", reg(a), a, Out{Action: ActRegisterIgnore, Key: 7, New: 9}, "g2 t0 -: a=9", "", nil},
		{"register and ignore, for the first time", State{}, a, Out{Action: ActRegisterIgnore, Key: 7, New: 9}, "g1 t0 -: a=9", "", nil},
		{"take back what is not there", reg(b), a, Out{Action: ActRegister}, "g1 t0 -: b=1", "", nil},
		{"unregister", reg(a, b), b, Out{Action: ActRegister, Key: 2}, "g3 t0 -: a=1", "", nil},
		{"the holder unregisters: exclusive access", held(ExclusiveAccess, a, b), a, Out{Action: ActRegister, Key: 1}, "g3 t0 -: b=2", "", nil},
		{"the holder unregisters: registrants only", held(WriteExclusiveOnly, a, b, c), a, Out{Action: ActRegister, Key: 1}, "g4 t0 -: b=2 c=3", "b:2 c:2", nil},
		{"one of all registrants unregisters", held(ExclusiveAccessAll, a, b), a, Out{Action: ActRegister, Key: 1}, "g3 t8 -: b=2", "", nil},
		{"the last of all registrants unregisters", held(ExclusiveAccessAll, a), a, Out{Action: ActRegister, Key: 1}, "g2 t0 -:", "", nil},

		{"reserve", reg(a, b), a, Out{Action: ActReserve, Key: 1, Type: WriteExclusive}, "g2 t1 a: a=1 b=2", "", nil},
		{"reserve for all", reg(a, b), a, Out{Action: ActReserve, Key: 1, Type: WriteExclusiveAll}, "g2 t7 -: a=1 b=2", "", nil},
		{"reserve again", held(WriteExclusive, a, b), a, Out{Action: ActReserve, Key: 1, Type: WriteExclusive}, "g2 t1 a: a=1 b=2", "", nil},
		{"reserve as another type", held(WriteExclusive, a, b), a, Out{Action: ActReserve, Key: 1, Type: ExclusiveAccess}, "", "", ErrConflict},
		{"reserve what another holds", held(WriteExclusive, a, b), b, Out{Action: ActReserve, Key: 2, Type: WriteExclusive}, "", "", ErrConflict},
		{"reserve unregistered", State{}, a, Out{Action: ActReserve, Type: WriteExclusive}, "", "", ErrConflict},
		{"reserve with the wrong key", reg(a), a, Out{Action: ActReserve, Key: 2, Type: WriteExclusive}, "", "", ErrConflict},

		{"release", held(ExclusiveAccess, a, b), a, Out{Action: ActRelease, Key: 1, Type: ExclusiveAccess}, "g2 t0 -: a=1 b=2", "", nil},
		{"release for registrants", held(ExclusiveAccessOnly, a, b, c), a, Out{Action: ActRelease, Key: 1, Type: ExclusiveAccessOnly}, "g3 t0 -: a=1 b=2 c=3", "b:2 c:2", nil},
		{"release by any of all registrants", held(WriteExclusiveAll, a, b), b, Out{Action: ActRelease, Key: 2, Type: WriteExclusiveAll}, "g2 t0 -: a=1 b=2", "a:2", nil},
		{"release as another type", held(WriteExclusive, a), a, Out{Action: ActRelease, Key: 1, Type: ExclusiveAccess}, "", "", errInvalidRelease},
		{"release what another holds", held(WriteExclusive, a, b), b, Out{Action: ActRelease, Key: 2, Type: WriteExclusive}, "g2 t1 a: a=1 b=2", "", nil},
		{"release nothing", reg(a), a, Out{Action: ActRelease, Key: 1, Type: WriteExclusive}, "g1 t0 -: a=1", "", nil},
		{"release with the wrong key", held(WriteExclusive, a), a, Out{Action: ActRelease, Key: 2, Type: WriteExclusive}, "", "", ErrConflict},

		{"clear", held(WriteExclusive, a, b, c), b, Out{Action: ActClear, Key: 2}, "g4 t0 -:", "a:1 c:1", nil},
		{"clear unregistered", held(WriteExclusive, a), b, Out{Action: ActClear}, "", "", ErrConflict},

		{"preempt the holder", held(ExclusiveAccess, a, b, c), b, Out{Action: ActPreempt, Key: 2, New: 1, Type: WriteExclusive}, "g4 t1 b: b=2 c=3", "a:3 c:2", nil},
		{"preempt the holder by the same type", held(ExclusiveAccess, a, b, c), b, Out{Action: ActPreempt, Key: 2, New: 1, Type: ExclusiveAccess}, "g4 t3 b: b=2 c=3", "a:3", nil},
		{"preempt the holder and its tasks", held(ExclusiveAccess, a, b), b, Out{Action: ActPreemptAbort, Key: 2, New: 1, Type: ExclusiveAccess}, "g3 t3 b: b=2", "a:3!", nil},
		{"preempt a registrants' reservation by another type", held(ExclusiveAccessOnly, a, b, c), b, Out{Action: ActPreempt, Key: 2, New: 1, Type: WriteExclusive}, "g4 t1 b: b=2 c=3", "a:3 c:2", nil},
		{"preempt one who holds nothing", held(WriteExclusive, a, b, c), a, Out{Action: ActPreempt, Key: 1, New: 3, Type: WriteExclusive}, "g4 t1 a: a=1 b=2", "c:3", nil},
		{"preempt where nobody holds", reg(a, b), a, Out{Action: ActPreempt, Key: 1, New: 2, Type: WriteExclusive}, "g3 t0 -: a=1", "b:3", nil},
		{"preempt a key that nobody has", reg(a, b), a, Out{Action: ActPreempt, Key: 1, New: 7, Type: WriteExclusive}, "", "", ErrConflict},
		{"preempt nobody", reg(a), a, Out{Action: ActPreempt, Key: 1, Type: WriteExclusive}, "", "", sense.InvalidParameter(8)},
		{"preempt all registrants", held(WriteExclusiveAll, a, b, c), c, Out{Action: ActPreempt, Key: 3, Type: ExclusiveAccess}, "g4 t3 c: c=3", "a:3 b:3", nil},
		{"preempt one of all registrants", held(WriteExclusiveAll, a, b, c), c, Out{Action: ActPreempt, Key: 3, New: 1, Type: ExclusiveAccess}, "g4 t7 -: b=2 c=3", "a:3", nil},
		{"the holder preempts itself: another type", held(ExclusiveAccess, a, b), a, Out{Action: ActPreempt, Key: 1, New: 1, Type: WriteExclusiveOnly}, "g3 t5 a: a=1 b=2", "b:2", nil},
		{"scope and type are ignored where nothing is taken", reg(a, b), a, Out{Action: ActPreempt, Key: 1, New: 2, Scope: 3, Type: 2}, "g3 t0 -: a=1", "b:3", nil},
		{"taking for an element", held(WriteExclusive, b, a), a, Out{Action: ActPreempt, Key: 2, New: 1, Scope: 2, Type: WriteExclusive}, "", "", sense.InvalidField(2, 7)},
		{"taking as an obsolete type", held(WriteExclusiveAll, b, a), a, Out{Action: ActPreempt, Key: 2, Type: 2}, "", "", sense.InvalidField(2, 3)},

		{"move to a nexus that is not registered", held(WriteExclusive, a, b), a, Out{Action: ActMove, Key: 1, New: 9, To: c}, "g3 t1 c: a=1 b=2 c=9", "", nil},
		{"move to one that is, and unregister", held(ExclusiveAccessOnly, a, b), a, Out{Action: ActMove, Key: 1, New: 9, To: b, Unregister: true}, "g3 t6 b: b=9", "", nil},
		{"move to oneself", held(WriteExclusive, a, b), a, Out{Action: ActMove, Key: 1, New: 9, To: a}, "", "", sense.InvalidParameter(24)},
		{"move what another holds", held(WriteExclusive, a, b), b, Out{Action: ActMove, Key: 2, New: 9, To: c}, "", "", ErrConflict},
		{"move what all hold", held(WriteExclusiveAll, a, b), a, Out{Action: ActMove, Key: 1, New: 9, To: c}, "", "", ErrConflict},
		{"move with the wrong key", held(WriteExclusive, a, b), a, Out{Action: ActMove, Key: 2, New: 9, To: c}, "", "", ErrConflict},
		{"move unregistered", held(WriteExclusive, a), b, Out{Action: ActMove, New: 9, To: c}, "", "", ErrConflict},
		{"move without a key", held(WriteExclusive, a), a, Out{Action: ActMove, Key: 1, To: c}, "", "", sense.InvalidParameter(8)},
		{"move nothing", reg(a, b), a, Out{Action: ActMove, Key: 1, New: 9, To: c}, "", "", sense.InvalidField(1, 4)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := describe(tc.was)
			got, notices, err := tc.out.Apply(tc.was, tc.port)
			if describe(tc.was) != before {
				t.Errorf("the state before was changed: %s", describe(tc.was))
			}
			if !errors.Is(err, tc.fault) && !reflect.DeepEqual(err, tc.fault) {
				t.Fatalf("error %v, want %v", err, tc.fault)
			}
			if err != nil {
				return
			}
			if describe(got) != tc.want || told(notices) != tc.told {
				t.Errorf("%s, told %q; want %s, told %q", describe(got), told(notices), tc.want, tc.told)
			}
		})
	}
}

// Who may do what under each type (SPC-4 §5.13.1): the holder, another
// registered nexus, and one that is not registered.
func TestWhoMayRunWhat(t *testing.T) {
	for _, tc := range []struct {
		t                            Type
		holder, registered, stranger string // the accesses that run: r, w
	}{
		{None, "rw", "rw", "rw"},
		{WriteExclusive, "rw", "r", "r"},
		{ExclusiveAccess, "rw", "", ""},
		{WriteExclusiveOnly, "rw", "rw", "r"},
		{ExclusiveAccessOnly, "rw", "rw", ""},
		{WriteExclusiveAll, "rw", "rw", "r"},
		{ExclusiveAccessAll, "rw", "rw", ""},
	} {
		s := held(tc.t, a, b)
		if tc.t == None {
			s.Holder = Port{}
		}
		for _, who := range []struct {
			p    Port
			want string
		}{{a, tc.holder}, {b, tc.registered}, {c, tc.stranger}} {
			got := ""
			if Allows(s, who.p, Reads) {
				got += "r"
			}
			if Allows(s, who.p, Writes) {
				got += "w"
			}
			if got != who.want || !Allows(s, who.p, Always) || Allows(s, who.p, Register) {
				t.Errorf("type %d, %s: %q, want %q", tc.t, who.p.Initiator, got, who.want)
			}
		}
	}
	if !Allows(State{}, a, Register) {
		t.Error("RESERVE is refused where nobody registered")
	}
}

func TestAMachineThatStartedAnewLeavesNothing(t *testing.T) {
	second := a
	second.ISID[5] = 2
	s, notices := Forget(held(WriteExclusiveOnly, a, b, second), a.Initiator)
	if describe(s) != "g4 t0 -: b=2" || told(notices) != "b:2" {
		t.Errorf("%s, told %q", describe(s), told(notices))
	}
	s, notices = Forget(held(WriteExclusiveAll, a, b), a.Initiator)
	if describe(s) != "g3 t7 -: b=2" || notices != nil {
		t.Errorf("%s, told %q", describe(s), told(notices))
	}
	if s, _ = Forget(held(WriteExclusive, b), a.Initiator); describe(s) != "g1 t1 b: b=1" {
		t.Errorf("a stranger's was touched: %s", describe(s))
	}
}

func TestReservationsAreBounded(t *testing.T) {
	var s State
	for k := range MaxRegistrations {
		p := Port{Initiator: fmt.Sprint(k)}
		var err error
		if s, _, err = (Out{Action: ActRegister, New: 1}).Apply(s, p); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := (Out{Action: ActRegister, New: 1}).Apply(s, a); !errors.Is(err, errNoRoom) {
		t.Error(err)
	}
}

// Whatever nexuses send, in whatever order, the state makes sense.
func TestAnySequenceKeepsTheState(t *testing.T) {
	types := []Type{WriteExclusive, ExclusiveAccess, WriteExclusiveOnly, ExclusiveAccessOnly, WriteExclusiveAll, ExclusiveAccessAll}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s State
		for range 300 {
			o := Out{Action: Action(r.IntN(8)), To: []Port{a, b, c}[r.IntN(3)], Unregister: r.IntN(2) == 0, Type: types[r.IntN(6)], Key: uint64(r.IntN(4)), New: uint64(r.IntN(4)), APTPL: r.IntN(2) == 0}
			p := []Port{a, b, c}[r.IntN(3)]
			next, notices, err := o.Apply(s, p)
			if err != nil && !reflect.DeepEqual(next, s) {
				t.Fatalf("seed %d: %+v changed something and failed", seed, o)
			}
			raises := next.Generation - s.Generation
			if raises > 1 || raises == 1 && (o.Action == ActReserve || o.Action == ActRelease) {
				t.Fatalf("seed %d: %+v moved the generation by %d", seed, o, raises)
			}
			for _, n := range notices {
				if n.Port == p {
					t.Fatalf("seed %d: %+v told its own sender", seed, o)
				}
				if n.Abort != (o.Action == ActPreemptAbort && n.Condition == RegistrationsPreempted) {
					t.Fatalf("seed %d: %+v: %+v", seed, o, n)
				}
			}
			s = next
			switch {
			case s.Type == None && s.Holder != Port{}, all(s.Type) && s.Holder != Port{}:
				t.Fatalf("seed %d: a holder of nothing: %s", seed, describe(s))
			case s.Type != None && !all(s.Type) && !Registered(s, s.Holder):
				t.Fatalf("seed %d: the holder is not registered: %s", seed, describe(s))
			case all(s.Type) && len(s.Registrations) == 0:
				t.Fatalf("seed %d: nobody holds: %s", seed, describe(s))
			case !slices.IsSortedFunc(s.Registrations, order):
				t.Fatalf("seed %d: out of order: %s", seed, describe(s))
			}
		}
	}
}

func TestPersistentReserveInData(t *testing.T) {
	s := held(WriteExclusiveOnly, a, b)
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"no keys", Keys(State{Generation: 3}), "00000003 00000000"},
		{"two keys", Keys(s), "00000002 00000010 0000000000000001 0000000000000002"},
		{"no reservation", Reservation(reg(a)), "00000001 00000000"},
		{"a reservation", Reservation(s), "00000002 00000010 0000000000000001 00000000 00 05 0000"},
		{"all registrants'", Reservation(held(ExclusiveAccessAll, a, b)), "00000002 00000010 0000000000000000 00000000 00 08 0000"},
		{"capabilities", Capabilities(State{APTPL: true}), "0008 05 b1 ea01 0000"},
		{"full status", FullStatus(held(WriteExclusive, a)), "00000001 00000040 0000000000000001 00000000 03 01 00000000 0001 00000028" +
			"45000024" + hex.EncodeToString([]byte("iqn.2026-11.test:a,i,0x800000000001")) + "00"},
	} {
		if got, want := hex.EncodeToString(tc.got), strings.ReplaceAll(tc.want, " ", ""); got != want {
			t.Errorf("%s:\n%s, want\n%s", tc.name, got, want)
		}
	}
}

func TestParameterListIsChecked(t *testing.T) {
	list := func(at int, v byte) []byte {
		b := make([]byte, ListLength)
		binary.BigEndian.PutUint64(b, 0x0102030405060708)
		binary.BigEndian.PutUint64(b[8:], 0x1112131415161718)
		b[at] |= v
		return b
	}
	o, err := ParseOut(byte(ActReserve), 0x05, list(20, 0x05))
	if want := (Out{Action: ActReserve, Type: WriteExclusiveOnly, Key: 0x0102030405060708, New: 0x1112131415161718, APTPL: true}); err != nil || o != want {
		t.Errorf("%+v, %v", o, err)
	}
	for _, tc := range []struct {
		name              string
		action, scopeType byte
		list              []byte
		want              error
	}{
		{"REPLACE LOST RESERVATION", 8, 0, list(0, 0), sense.InvalidField(1, 4)},
		{"23 bytes", 0, 0, list(0, 0)[:23], sense.ParameterLength},
		{"25 bytes", 0, 0, append(list(0, 0), 0), sense.ParameterLength},
		{"an element's scope", 1, 0x21, list(0, 0), sense.InvalidField(2, 7)},
		{"an obsolete type", 1, 0x02, list(0, 0), sense.InvalidField(2, 3)},
		{"other initiator ports", 0, 0, list(20, 0x08), sense.InvalidParameter(20)},
	} {
		if _, err := ParseOut(tc.action, tc.scopeType, tc.list); !reflect.DeepEqual(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	for _, ignores := range []Action{ActRegister, ActRegisterIgnore, ActClear, ActPreempt, ActPreemptAbort} {
		if _, err := ParseOut(byte(ignores), 0xff, list(0, 0)); err != nil {
			t.Errorf("action %d looks at scope and type of its own: %v", ignores, err)
		}
	}
}

// move makes the parameter list of REGISTER AND MOVE to a TransportID.
func move(flags byte, port uint16, id []byte) []byte {
	b := make([]byte, ListLength, ListLength+len(id))
	binary.BigEndian.PutUint64(b, 1)
	binary.BigEndian.PutUint64(b[8:], 2)
	b[17] = flags
	binary.BigEndian.PutUint16(b[18:], port)
	binary.BigEndian.PutUint32(b[20:], uint32(len(id)))
	return append(b, id...)
}

// transport makes a TransportID of iSCSI's second form.
func transport(name string) []byte {
	n := len(name)/4*4 + 4
	b := make([]byte, 4+n)
	b[0], b[2], b[3] = 0x45, byte(n>>8), byte(n)
	copy(b[4:], name)
	return b
}

func TestAReservationIsMovedToATransportID(t *testing.T) {
	long := "iqn.2026-11.test:" + strings.Repeat("x", 206)
	for _, tc := range []struct {
		name string
		list []byte
		want Out
		err  error
	}{
		{"as FULL STATUS names a port", move(0, 1, transportID(b)), Out{Action: ActMove, Key: 1, New: 2, To: b}, nil},
		{"with both bits", move(3, 1, transportID(b)), Out{Action: ActMove, Key: 1, New: 2, To: b, Unregister: true, APTPL: true}, nil},
		{"an ISID without its zeros, in capitals", move(0, 1, transport("IQN.2026-11.test:B,i,0x800000000001")), Out{Action: ActMove, Key: 1, New: 2, To: b}, nil},
		{"a short ISID", move(0, 1, transport("iqn.2026-11.test:b,i,0x23d000002")), Out{Action: ActMove, Key: 1, New: 2, To: Port{Initiator: b.Initiator, ISID: [6]byte{0, 2, 0x3d, 0, 0, 2}}}, nil},
		{"the longest name", move(0, 1, transport(long+",i,0x800000000001")), Out{Action: ActMove, Key: 1, New: 2, To: Port{Initiator: long, ISID: b.ISID}}, nil},
		{"a name that is too long", move(0, 1, transport(long+"x,i,0x800000000001")), Out{}, sense.InvalidParameter(28)},
		{"another target port", move(0, 2, transportID(b)), Out{}, sense.InvalidParameter(18)},
		{"no TransportID", move(0, 1, nil), Out{}, sense.InvalidParameter(20)},
		{"a list cut off", move(0, 1, transportID(b))[:40], Out{}, sense.ParameterLength},
		{"a list that goes on", append(move(0, 1, transportID(b)), 0, 0, 0, 0), Out{}, sense.ParameterLength},
		{"another transport", move(0, 1, append([]byte{0x46}, transportID(b)[1:]...)), Out{}, sense.InvalidParameter(24)},
		{"a device and no port", move(0, 1, append([]byte{0x05}, transportID(b)[1:]...)), Out{}, sense.InvalidParameter(24)},
		{"another length", move(0, 1, append([]byte{0x45, 0, 0, 0x18}, transportID(b)[4:]...)), Out{}, sense.InvalidParameter(26)},
		{"no ISID", move(0, 1, transport("iqn.2026-11.test:bbbbbbbb")), Out{}, sense.InvalidParameter(28)},
		{"an empty ISID", move(0, 1, transport("iqn.2026-11.test:b,i,0x")), Out{}, sense.InvalidParameter(28)},
		{"an ISID of 13 digits", move(0, 1, transport("iqn.2026-11.test:b,i,0x0800000000001")), Out{}, sense.InvalidParameter(28)},
		{"an ISID that is no number", move(0, 1, transport("iqn.2026-11.test:b,i,0x80000000000g")), Out{}, sense.InvalidParameter(28)},
		{"no name", move(0, 1, transport(",i,0x800000000001")), Out{}, sense.InvalidParameter(28)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseOut(byte(ActMove), 0xff, tc.list)
			if !reflect.DeepEqual(err, tc.err) {
				t.Fatalf("%v, want %v", err, tc.err)
			}
			if err == nil && got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
			if len(tc.list) > MaxListLength && err == nil {
				t.Errorf("%d bytes are right and more than may be sent", len(tc.list))
			}
		})
	}
}

func FuzzOut(f *testing.F) {
	f.Add(byte(0), byte(0), make([]byte, 24))
	f.Add(byte(5), byte(8), []byte("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x01\x00\x00\x00"))
	f.Add(byte(7), byte(0), move(2, 1, transportID(b)))
	f.Fuzz(func(t *testing.T, action, scopeType byte, list []byte) {
		o, err := ParseOut(action, scopeType, list)
		if err != nil {
			return
		}
		s, _, _ := o.Apply(held(WriteExclusiveOnly, a, b), a)
		for _, b := range [][]byte{Keys(s), Reservation(s), FullStatus(s)} {
			if int(binary.BigEndian.Uint32(b[4:])) != len(b)-8 {
				t.Errorf("%x says another length", b)
			}
		}
	})
}
