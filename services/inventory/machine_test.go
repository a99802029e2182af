package inventory

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func TestAddMachineChoosesWhatTheOperatorDoesNotSay(t *testing.T) {
	h := newHouse(t)
	m, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "Lab-01", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f5")}})
	must(t, err)
	if m.Name != "lab-01" || m.Profile != "san" || m.Auth != store.AuthMutual || m.Pinned {
		t.Errorf("the machine is %+v", m)
	}
	if !strings.HasPrefix(string(m.Initiator), "iqn.2026-11.lunboot:lab-01-") {
		t.Errorf("the initiator is %s", m.Initiator)
	}
	if len(m.CHAP.Secret) != 16 || len(m.Reverse.Secret) != 16 || m.CHAP.Secret == m.Reverse.Secret || m.CHAP.User != "lab-01" || m.Reverse.User != "lunboot" {
		t.Errorf("the credentials are %v %v", m.CHAP, m.Reverse)
	}
	h.audited(t, ada, "machine.create", "lab-01")
	if e := h.journal.last(); e.Kind != store.EventMachineChanged || e.Machine != m.ID || e.MAC != m.MACs[0] || e.Detail.Reason != "added" || e.At.IsZero() {
		t.Errorf("the journal ends with %+v", e)
	}
	other := h.machine(t, "lab-02", "00:07:e9:0f:ea:f6")
	if other.CHAP.Secret == m.CHAP.Secret {
		t.Error("two machines share a secret")
	}
}

func TestAddMachineKeepsWhatTheOperatorSays(t *testing.T) {
	h := newHouse(t)
	m, err := h.AddMachine(t.Context(), ada, store.MachineSpec{
		Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f5")}, Initiator: "iqn.2001-04.com.example:old", Auth: store.AuthCHAP,
		CHAP: store.Credential{User: "u", Secret: "by-hand-secret"}, Profile: "local", Notes: "rack 3", Tags: []string{"b"},
	})
	must(t, err)
	if m.Initiator != "iqn.2001-04.com.example:old" || m.Auth != store.AuthCHAP || !m.Pinned || m.CHAP.User != "u" || m.CHAP.Secret != "by-hand-secret" ||
		!m.Reverse.IsZero() || m.Profile != "local" || m.Notes != "rack 3" || len(m.Tags) != 1 {
		t.Errorf("the machine is %+v", m)
	}
	none, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-02", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f6")}, Auth: store.AuthNone})
	must(t, err)
	if !none.CHAP.IsZero() || !none.Reverse.IsZero() || none.Pinned {
		t.Errorf("a machine without authentication has %v %v", none.CHAP, none.Reverse)
	}
}

func TestBadMachinesAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	_, err := h.PutSubnet(t.Context(), ada, store.Subnet{Interface: "eth1", Prefix: netip.MustParsePrefix("192.168.40.0/24"), Mode: store.DHCPFull, Router: netip.MustParseAddr("192.168.40.254")})
	must(t, err)
	first, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:00:00:01")}, Address: netip.MustParseAddr("192.168.40.10")})
	must(t, err)
	lease := func(addr, m string, state store.LeaseState, left time.Duration) {
		must(t, h.db.PutLease(t.Context(), store.Lease{Address: netip.MustParseAddr(addr), MAC: mac(t, m), State: state, Expires: time.Now().Add(left)}))
	}
	lease("192.168.40.20", "00:07:e9:00:00:99", store.LeaseBound, time.Hour)
	lease("192.168.40.21", "00:07:e9:00:00:98", store.LeaseDeclined, time.Hour)
	lease("192.168.40.22", "00:07:e9:00:00:97", store.LeaseBound, -time.Hour)
	lease("192.168.40.23", "00:07:e9:00:00:02", store.LeaseBound, time.Hour)

	good := store.MachineSpec{Name: "lab-02", MACs: []store.MAC{mac(t, "00:07:e9:00:00:02")}}
	secret := func(s string) store.Credential { return store.Credential{User: "u", Secret: s} }
	addr := netip.MustParseAddr
	tests := []struct {
		name  string
		spec  func(*store.MachineSpec)
		kind  store.Kind
		parts []string
	}{
		{"no name", func(s *store.MachineSpec) { s.Name = "" }, store.KindInvalid, []string{"name is needed"}},
		{"a name that is no label", func(s *store.MachineSpec) { s.Name = "lab.example" }, store.KindInvalid, []string{"dot"}},
		{"a name that is taken", func(s *store.MachineSpec) { s.Name = "LAB-01" }, store.KindConflict, []string{"lab-01"}},
		{"no MAC", func(s *store.MachineSpec) { s.MACs = nil }, store.KindInvalid, []string{"at least one MAC"}},
		{"a MAC that is taken", func(s *store.MachineSpec) { s.MACs = first.MACs }, store.KindConflict, []string{"lab-01", "00:07:e9:00:00:01"}},
		{"a placeholder UUID", func(s *store.MachineSpec) {
			s.UUID[0] = 3
			s.UUID, _ = store.ParseUUID("03000200-0400-0500-0006-000700080009")
		}, store.KindInvalid, []string{"placeholder"}},
		{"an initiator that is taken", func(s *store.MachineSpec) { s.Initiator = first.Initiator }, store.KindConflict, []string{"lab-01"}},
		{"an initiator that is no name", func(s *store.MachineSpec) { s.Initiator = "lab-02" }, store.KindInvalid, []string{"iqn."}},
		{"a CHAP secret that is short", func(s *store.MachineSpec) { s.CHAP = secret("eleven-byte") }, store.KindInvalid, []string{"11 bytes", "12"}},
		{"a reverse secret that is short", func(s *store.MachineSpec) { s.Reverse = secret("short") }, store.KindInvalid, []string{"5 bytes"}},
		{"secrets that are the same", func(s *store.MachineSpec) { s.CHAP, s.Reverse = secret("the-same-secret"), secret("the-same-secret") }, store.KindInvalid, []string{"differ"}},
		{"credentials without authentication", func(s *store.MachineSpec) { s.Auth, s.CHAP = store.AuthNone, secret("long-enough-secret") }, store.KindInvalid, []string{"none"}},
		{"reverse credentials one-way", func(s *store.MachineSpec) { s.Auth, s.Reverse = store.AuthCHAP, secret("long-enough-secret") }, store.KindInvalid, []string{"mutual"}},
		{"an unknown mode", func(s *store.MachineSpec) { s.Auth = "kerberos" }, store.KindInvalid, []string{"kerberos"}},
		{"a profile that is not there", func(s *store.MachineSpec) { s.Profile = "windows" }, store.KindInvalid, []string{"windows"}},
		{"an address outside of the subnets", func(s *store.MachineSpec) { s.Address = addr("192.168.41.5") }, store.KindInvalid, []string{"192.168.41.5", "192.168.40.0/24"}},
		{"the network's address", func(s *store.MachineSpec) { s.Address = addr("192.168.40.0") }, store.KindInvalid, []string{"network or broadcast"}},
		{"the broadcast address", func(s *store.MachineSpec) { s.Address = addr("192.168.40.255") }, store.KindInvalid, []string{"network or broadcast"}},
		{"the router's address", func(s *store.MachineSpec) { s.Address = addr("192.168.40.254") }, store.KindConflict, []string{"router"}},
		{"the appliance's address", func(s *store.MachineSpec) { s.Address = theApplianceIs }, store.KindConflict, []string{"appliance's own"}},
		{"an address that is leased to another", func(s *store.MachineSpec) { s.Address = addr("192.168.40.20") }, store.KindConflict, []string{"leased to 00:07:e9:00:00:99"}},
		{"an address that a stranger uses", func(s *store.MachineSpec) { s.Address = addr("192.168.40.21") }, store.KindConflict, []string{"did not get it from here"}},
		{"an address that is another machine's", func(s *store.MachineSpec) { s.Address = first.Address }, store.KindConflict, []string{"lab-01"}},
		{"an IPv6 address", func(s *store.MachineSpec) { s.Address = addr("fd00::1") }, store.KindInvalid, []string{"IPv4"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := good
			tt.spec(&spec)
			h.wantRefusal(t, tt.kind, tt.parts, func() error { _, err := h.AddMachine(t.Context(), ada, spec); return err })
		})
	}
	for _, a := range []string{"192.168.40.22", "192.168.40.23"} { // an ended lease, and its own
		good.Address = addr(a)
		m, err := h.AddMachine(t.Context(), ada, good)
		must(t, err)
		must(t, h.RemoveMachine(t.Context(), ada, m.ID, false))
	}
}

func TestSetMachineChangesOnlyWhatThePatchNames(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	got, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Name: ptr("lab-09"), Notes: ptr("moved")})
	must(t, err)
	want := m
	want.Name, want.Notes, want.Revision, want.Updated = "lab-09", "moved", got.Revision, got.Updated
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || got.Initiator != m.Initiator || got.CHAP != m.CHAP {
		t.Errorf("the machine is now\n%+v\nwant\n%+v", got, want)
	}
	h.audited(t, ada, "machine.update", "lab-09")
	h.wantRefusal(t, store.KindConflict, nil, func() error {
		_, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Revision: m.Revision, Notes: ptr("late")})
		return err
	})
	h.wantRefusal(t, store.KindNotFound, nil, func() error {
		_, err := h.SetMachine(t.Context(), ada, 99, store.MachinePatch{Notes: ptr("x")})
		return err
	})
	h.wantRefusal(t, store.KindInvalid, []string{"once"}, func() error {
		_, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{OnceProfile: ptr("once")})
		return err
	})
}

func TestCredentialsFollowTheMode(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	patch := func(p store.MachinePatch) store.Machine {
		t.Helper()
		got, err := h.SetMachine(t.Context(), ada, m.ID, p)
		must(t, err)
		return got
	}
	one := patch(store.MachinePatch{Auth: ptr(store.AuthCHAP)})
	if one.CHAP != m.CHAP || !one.Reverse.IsZero() || one.Pinned {
		t.Errorf("one-way: %+v", one)
	}
	byHand := patch(store.MachinePatch{CHAP: &store.Credential{Secret: "given-by-hand"}})
	if byHand.CHAP.User != m.CHAP.User || byHand.CHAP.Secret != "given-by-hand" || !byHand.Pinned {
		t.Errorf("a secret by hand: %+v", byHand)
	}
	both := patch(store.MachinePatch{Auth: ptr(store.AuthMutual)})
	if both.CHAP != byHand.CHAP || len(both.Reverse.Secret) != 16 || !both.Pinned {
		t.Errorf("mutual again: %+v", both)
	}
	none := patch(store.MachinePatch{Auth: ptr(store.AuthNone)})
	if !none.CHAP.IsZero() || !none.Reverse.IsZero() || none.Pinned {
		t.Errorf("none: %+v", none)
	}
	h.wantRefusal(t, store.KindInvalid, []string{"none"}, func() error {
		_, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{CHAP: &store.Credential{Secret: "given-by-hand"}})
		return err
	})
}

func TestAMachineIsFoundByWhatPeopleCallIt(t *testing.T) {
	h := newHouse(t)
	u, err := store.ParseUUID("4c4c4544-0034-4810-8051-b4c04f564a32")
	must(t, err)
	m, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f5")}, UUID: u})
	must(t, err)
	for _, key := range []string{"lab-01", "LAB-01", "00:07:e9:0f:ea:f5", "0007.E90F.EAF5", "0007e90feaf5", u.String(), fmt.Sprint(m.ID)} {
		if got, err := h.FindMachine(t.Context(), key); err != nil || got.ID != m.ID {
			t.Errorf("%q finds %v, %v", key, got.Name, err)
		}
	}
	for _, key := range []string{"", "lab-02", "00:07:e9:0f:ea:f6", "77", "-1"} {
		_, err := h.FindMachine(t.Context(), key)
		wantSentence(t, err, store.KindNotFound, fmt.Sprintf("%q", key))
	}
	// A name wins over a number: it is what people chose.
	named := h.machine(t, fmt.Sprint(m.ID), "00:07:e9:0f:ea:f7")
	if got, err := h.FindMachine(t.Context(), named.Name); err != nil || got.ID != named.ID {
		t.Errorf("%q finds %v, %v", named.Name, got.Name, err)
	}
}

func TestAMachineThatRunsIsRemovedOnlyByForce(t *testing.T) {
	sessions := live{}
	h := newHouse(t, func(c *Config) { c.Sessions = &sessions })
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	v := h.volume(t, "debian", 1<<20)
	h.mapped(t, m, v)
	sessions = live{{Machine: m.ID, Addr: "192.168.40.10:3321"}}
	h.wantRefusal(t, store.KindInUse, []string{"lab-01", "192.168.40.10:3321"}, func() error { return h.RemoveMachine(t.Context(), ada, m.ID, false) })
	must(t, h.RemoveMachine(t.Context(), ada, m.ID, true))
	h.audited(t, ada, "machine.delete", "lab-01")
	if e := h.journal.last(); e.Detail.Reason != "removed" || e.Detail.Cause != store.CauseRemoved || e.Machine != m.ID {
		t.Errorf("the journal ends with %+v", e)
	}
	if left, err := h.db.Mappings(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("mappings %v are left, %v", left, err)
	}
	if v, err := h.db.Volume(t.Context(), v.ID); err != nil || v.State != store.VolumeReady {
		t.Errorf("the volume is %v, %v", v, err)
	}
	h.wantRefusal(t, store.KindNotFound, nil, func() error { return h.RemoveMachine(t.Context(), ada, m.ID, true) })
}

func (h *house) asked(t *testing.T, u store.UnknownMachine) {
	t.Helper()
	u.LastSeen = time.Now()
	must(t, h.db.SeeUnknown(t.Context(), u))
}

func TestEnrollMakesAMachineOfAnUnknownOne(t *testing.T) {
	h := newHouse(t)
	u, err := store.ParseUUID("4c4c4544-0034-4810-8051-b4c04f564a32")
	must(t, err)
	a := mac(t, "00:07:e9:0f:ea:f5")
	h.asked(t, store.UnknownMachine{MAC: a, UUID: u, Hostname: "PC-7.example.org"})
	m, err := h.Enroll(t.Context(), ada, a, "", 0)
	must(t, err)
	if m.Name != "pc-7" || m.UUID != u || len(m.MACs) != 1 || m.MACs[0] != a || m.Auth != store.AuthMutual {
		t.Errorf("the machine is %+v", m)
	}
	if left, err := h.db.UnknownMachines(t.Context(), true); err != nil || len(left) != 0 {
		t.Errorf("unknown machines %v are left, %v", left, err)
	}
	if e := h.journal.last(); e.Detail.Reason != "enrolled" {
		t.Errorf("the journal ends with %+v", e)
	}
	h.wantRefusal(t, store.KindConflict, []string{"pc-7"}, func() error { _, err := h.Enroll(t.Context(), ada, a, "again", 0); return err })
	h.wantRefusal(t, store.KindNotFound, []string{"has not asked"}, func() error {
		_, err := h.Enroll(t.Context(), ada, mac(t, "00:07:e9:0f:ea:f6"), "", 0)
		return err
	})

	// A twin board with the same UUID and host name.
	b := mac(t, "00:07:e9:0f:ea:f7")
	h.asked(t, store.UnknownMachine{MAC: b, UUID: u, Hostname: "PC-7"})
	twin, err := h.Enroll(t.Context(), ada, b, "", 0)
	must(t, err)
	if twin.Name != "pc-7-2" || !twin.UUID.IsZero() {
		t.Errorf("the twin is %q with UUID %s", twin.Name, twin.UUID)
	}
	// A name by hand is taken as it is, or refused.
	c := mac(t, "00:07:e9:0f:ea:f8")
	h.asked(t, store.UnknownMachine{MAC: c})
	h.wantRefusal(t, store.KindConflict, []string{"pc-7"}, func() error { _, err := h.Enroll(t.Context(), ada, c, "pc-7", 0); return err })
	h.wantRefusal(t, store.KindInvalid, nil, func() error { _, err := h.Enroll(t.Context(), ada, c, "pc_8", 0); return err })
	got, err := h.Enroll(t.Context(), ada, c, "pc-8", 0)
	must(t, err)
	if got.Name != "pc-8" {
		t.Errorf("the name is %q", got.Name)
	}
}

func TestASuggestedNameSaysSomething(t *testing.T) {
	m := mac(t, "00:07:e9:0f:ea:f5")
	for _, tt := range []struct{ host, vendor, want string }{
		{"lab-03", "", "lab-03"},
		{"Lab_03.corp.example", "Dell Inc.", "lab-03"},
		{"", "Dell Inc. PowerEdge R610", "dell-eaf5"},
		{"localhost", "LENOVO 20AR", "lenovo-eaf5"},
		{"localhost.localdomain", "", "intel-eaf5"}, // by the card's maker
		{"(none)", "To Be Filled By O.E.M.", "intel-eaf5"},
		{"", "QEMU", "qemu-eaf5"},
		{"--", "!!!", "intel-eaf5"},
		{"Büro-PC", "", "b-ro-pc"},
		{strings.Repeat("x", 100), "", strings.Repeat("x", 63)},
		{"", strings.Repeat("y", 100), strings.Repeat("y", 58) + "-eaf5"},
		{strings.Repeat("x", 62) + "-z", "", strings.Repeat("x", 62)},
	} {
		got := suggestName(store.UnknownMachine{MAC: m, Hostname: tt.host, Vendor: tt.vendor})
		if got != tt.want || store.ValidateHostname(got) != nil {
			t.Errorf("%q by %q is called %q, want %q", tt.host, tt.vendor, got, tt.want)
		}
	}
}

func TestAMachineOfNobodyIsCalledByItsMAC(t *testing.T) {
	for address, want := range map[string]string{"02:00:00:00:ea:f5": "machine-eaf5", "fc:ff:ff:00:ea:f5": "machine-eaf5", "52:54:00:77:00:0a": "qemu-000a"} {
		if got := suggestName(store.UnknownMachine{MAC: mac(t, address)}); got != want {
			t.Errorf("%s is called %q, want %q", address, got, want)
		}
	}
}

func TestNamesMakeRoomForTheirNumber(t *testing.T) {
	h := newHouse(t)
	long := strings.Repeat("x", 63)
	for k, want := range []string{long, long[:61] + "-2", long[:61] + "-3"} {
		name, err := h.freeName(t.Context(), long, numbers{})
		must(t, err)
		if name != want {
			t.Fatalf("the name is %q, want %q", name, want)
		}
		h.machine(t, name, fmt.Sprintf("00:07:e9:00:00:%02x", k))
	}
}

func TestASwappedBoardKeepsTheMachine(t *testing.T) {
	sessions := live{}
	h := newHouse(t, func(c *Config) { c.Sessions = &sessions })
	address := netip.MustParseAddr("192.168.40.10")
	old, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:00:00:01")}, UUID: store.NewUUID(), Serial: "A1", Address: address})
	must(t, err)
	v := h.volume(t, "debian", 1<<20)
	h.mapped(t, old, v)
	must(t, h.db.PutLease(t.Context(), store.Lease{Address: address, MAC: old.MACs[0], State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}))
	board := mac(t, "00:07:e9:00:00:02")
	u := store.NewUUID()
	h.asked(t, store.UnknownMachine{MAC: board, UUID: u})

	sessions = live{{ID: "s7", Initiator: old.Initiator, Addr: "192.168.40.10:99"}}
	h.wantRefusal(t, store.KindInUse, []string{"still runs", "lunboot session drop s7"}, func() error { _, err := h.Enroll(t.Context(), ada, board, "", old.ID); return err })
	sessions = nil
	h.wantRefusal(t, store.KindNotFound, nil, func() error { _, err := h.Enroll(t.Context(), ada, board, "", 99); return err })

	m, err := h.Enroll(t.Context(), ada, board, "", old.ID)
	must(t, err)
	if m.ID != old.ID || m.Name != "lab-01" || len(m.MACs) != 1 || m.MACs[0] != board || m.UUID != u || m.Serial != "" ||
		m.Address != address || m.Initiator != old.Initiator || m.CHAP != old.CHAP {
		t.Errorf("the machine is %+v", m)
	}
	if maps, err := h.db.MappingsOf(t.Context(), m.ID); err != nil || len(maps) != 1 {
		t.Errorf("its mappings are %v, %v", maps, err)
	}
	if _, err := h.db.LeaseByAddress(t.Context(), address); !store.IsNotFound(err) {
		t.Errorf("the old board still has the address: %v", err)
	}
	if left, err := h.db.UnknownMachines(t.Context(), true); err != nil || len(left) != 0 {
		t.Errorf("unknown machines %v are left, %v", left, err)
	}
}

func TestASwappedBoardKeepsTheAddressThatItLeased(t *testing.T) {
	h := newHouse(t)
	a := netip.MustParseAddr("192.168.40.50")
	shared := store.NewUUID()
	old, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:00:00:01")}, UUID: shared})
	must(t, err)
	must(t, h.db.PutLease(t.Context(), store.Lease{Address: a, MAC: old.MACs[0], Machine: old.ID, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}))
	board := mac(t, "00:07:e9:00:00:02")
	h.asked(t, store.UnknownMachine{MAC: board, UUID: shared}) // whoever swapped it wrote the UUID into it
	must(t, h.db.PutLease(t.Context(), store.Lease{Address: netip.MustParseAddr("192.168.40.77"), MAC: board, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}))
	m, err := h.Enroll(t.Context(), ada, board, "", old.ID)
	must(t, err)
	if m.UUID != shared {
		t.Errorf("the machine lost its UUID: %s", m.UUID)
	}
	if l, err := h.db.LeaseByMAC(t.Context(), board); err != nil || l.Address != a || l.Machine != old.ID {
		t.Errorf("the board is offered %+v, %v", l, err)
	}
	// The old board is free: it shows up as anybody.
	h.asked(t, store.UnknownMachine{MAC: old.MACs[0]})
	if _, err := h.Enroll(t.Context(), ada, old.MACs[0], "spare", 0); err != nil {
		t.Error(err)
	}
}

func TestIgnoringIsListedAndUndone(t *testing.T) {
	h := newHouse(t)
	a := mac(t, "00:07:e9:0f:ea:f5")
	h.asked(t, store.UnknownMachine{MAC: a})
	must(t, h.Ignore(t.Context(), ada, a, true))
	if u, err := h.db.UnknownMachine(t.Context(), a); err != nil || !u.Ignored {
		t.Errorf("the machine is %+v, %v", u, err)
	}
	must(t, h.Ignore(t.Context(), ada, a, false))
	if u, err := h.db.UnknownMachine(t.Context(), a); err != nil || u.Ignored {
		t.Errorf("the machine is %+v, %v", u, err)
	}
	h.wantRefusal(t, store.KindInvalid, []string{"MAC"}, func() error { return h.Ignore(t.Context(), ada, store.MAC{}, true) })
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.wantRefusal(t, store.KindConflict, []string{"lab-01"}, func() error { return h.Ignore(t.Context(), ada, m.MACs[0], true) })
}

// fitting is a shelf with one loader, for UEFI.
type fitting struct{}

func (fitting) Fits(name, firmware, _ string) error {
	if name != "mine.efi" || firmware == "BIOS" {
		return store.Invalid("loader", "%s does not fit %s", name, firmware)
	}
	return nil
}

func TestAMachinesOwnLoaderIsOneThatItCanStart(t *testing.T) {
	h := newHouse(t)
	h.loaders = fitting{}
	text := func(s string) *string { return &s }
	m := h.machine(t, "lab-01", "00:07:e9:0f:ea:f5")
	m, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Loader: text(" Mine.EFI ")})
	must(t, err)
	if m.Loader != "mine.efi" {
		t.Errorf("its loader is %q", m.Loader)
	}
	h.audited(t, ada, "machine.update", "lab-01")
	if _, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Loader: text("gone.efi")}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a loader that is not there: %v", err)
	}
	must(t, h.db.SeenMachine(t.Context(), m.ID, "BIOS", "x86", time.Now()))
	// It changed its firmware since: what it has may stay, what is new must fit.
	m, err = h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Notes: text("rack 3")})
	must(t, err)
	m, err = h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Loader: text("auto")})
	must(t, err)
	if m.Loader != "" {
		t.Errorf("auto leaves %q", m.Loader)
	}
	if _, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Loader: text("mine.efi")}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a loader for another firmware: %v", err)
	}
	if _, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-02", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:f6")}, Loader: "gone.efi"}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("a machine is added with a loader that is not there: %v", err)
	}
}

// A name that is taken is said in one way of everything that has a name.
func TestANameThatIsTakenIsSaidOnce(t *testing.T) {
	h := newHouse(t)
	h.machine(t, "lab-01", "00:07:e9:0f:ea:01")
	h.volume(t, "plain", 1<<20)
	h.wantRefusal(t, store.KindConflict, []string{"volume plain exists already; choose another name"}, func() error {
		_, err := h.CreateVolume(t.Context(), ada, store.VolumeSpec{Name: "plain", Size: 1 << 20})
		return err
	})
	h.wantRefusal(t, store.KindConflict, []string{"machine lab-01 exists already; choose another name"}, func() error {
		_, err := h.AddMachine(t.Context(), ada, store.MachineSpec{Name: "lab-01", MACs: []store.MAC{mac(t, "00:07:e9:0f:ea:02")}})
		return err
	})
}
