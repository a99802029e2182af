package inventory

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func TestAllAreEnrolledByOnePatternInTheOrderInWhichTheyCame(t *testing.T) {
	h := newHouse(t)
	h.machine(t, "lab-02", "00:07:e9:00:00:99") // its number is taken
	begin := time.Now()
	for n, a := range []string{"00:07:e9:00:00:03", "00:07:e9:00:00:01", "00:07:e9:00:00:02"} {
		must(t, h.db.SeeUnknown(t.Context(), store.UnknownMachine{MAC: mac(t, a), FirstSeen: begin.Add(time.Duration(n) * time.Second), LastSeen: begin.Add(time.Minute)}))
	}
	ignored := mac(t, "00:07:e9:00:00:04")
	h.asked(t, store.UnknownMachine{MAC: ignored})
	must(t, h.Ignore(t.Context(), ada, ignored, true))

	h.wantRefusal(t, store.KindNotFound, []string{"nosuch"}, func() error {
		_, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Name: "lab-{nn}", Profile: "nosuch"})
		return err
	})
	named := mac(t, "00:07:e9:00:00:09")
	h.asked(t, store.UnknownMachine{MAC: named})
	got, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Name: "one-{n}", MACs: []store.MAC{named, ignored}})
	if err != nil || len(got) != 2 || got[0].MAC != ignored || !strings.Contains(got[0].Problem, "does not wait") || got[1].Name != "one-1" || got[1].Problem != "" {
		t.Errorf("of those that were named are enrolled %+v, %v", got, err)
	}
	got, err = h.EnrollAll(t.Context(), ada, store.EnrollSpec{Name: "lab-{nn}", Profile: "local"})
	must(t, err)
	if len(got) != 3 {
		t.Fatalf("enrolled: %+v", got)
	}
	for i, want := range []struct{ mac, name string }{{"00:07:e9:00:00:03", "lab-01"}, {"00:07:e9:00:00:01", "lab-03"}, {"00:07:e9:00:00:02", "lab-04"}} {
		m, err := h.db.Machine(t.Context(), got[i].Machine)
		must(t, err)
		if got[i].MAC.String() != want.mac || m.Name != want.name || got[i].Name != want.name || m.Profile != "local" || got[i].Problem != "" {
			t.Errorf("%d: %+v, %+v", i, got[i], m)
		}
	}
	h.audited(t, ada, "machine.create", "lab-04")
	if left, err := h.db.UnknownMachines(t.Context(), true); err != nil || len(left) != 1 || left[0].MAC != ignored {
		t.Errorf("left: %+v, %v", left, err)
	}
	if got, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{}); err != nil || got == nil || len(got) != 0 {
		t.Errorf("nobody waits, and yet %v, %v", got, err)
	}
}

// lookups counts how often a machine is looked for by its name.
type lookups struct {
	DB
	n int
}

func (l *lookups) MachineByName(ctx context.Context, name string) (store.Machine, error) {
	l.n++
	return l.DB.MachineByName(ctx, name)
}

// A hall that is enrolled together costs as many looks as it has machines, not as
// many squared.
func TestEnrollAllLooksAtNoNameTwiceForEachMachine(t *testing.T) {
	for pattern, last := range map[store.NamePattern]string{"lab-{nn}": "lab-41", "": "pc-41", "node": "node-40"} {
		h := newHouse(t)
		h.machine(t, "lab-02", "00:07:e9:00:01:00") // a number that is taken
		h.machine(t, "pc-7", "00:07:e9:00:01:01")
		for k := range 40 {
			h.asked(t, store.UnknownMachine{MAC: mac(t, fmt.Sprintf("00:07:e9:00:00:%02x", k)), Hostname: "pc"})
		}
		count := &lookups{DB: h.Inventory.db}
		h.Inventory.db = count
		got, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Name: pattern})
		must(t, err)
		names := map[string]bool{}
		for _, e := range got {
			if e.Problem != "" {
				t.Errorf("%q: %+v", pattern, e)
			}
			names[e.Name] = true
		}
		if len(names) != 40 || !names[last] {
			t.Errorf("%q: the names are %v", pattern, names)
		}
		if count.n > 3*40 {
			t.Errorf("%q: %d looks for 40 machines", pattern, count.n)
		}
	}
}

func TestWithoutAPatternEachIsCalledWhatItCallsItself(t *testing.T) {
	h := newHouse(t)
	h.asked(t, store.UnknownMachine{MAC: mac(t, "00:07:e9:00:00:01"), Hostname: "pc-1"})
	got, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{})
	must(t, err)
	if len(got) != 1 || got[0].Name != "pc-1" {
		t.Errorf("%+v", got)
	}
}

// automatic runs the service until the test ends.
func (h *house) automatic(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewAutoEnroller(h.Inventory, h.db).Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// eventually waits for a machine with the MAC.
func (h *house) eventually(t *testing.T, a store.MAC) store.Machine {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		m, err := h.db.MachineByMAC(t.Context(), a)
		if err == nil {
			return m
		}
		if time.Now().After(end) {
			t.Fatalf("%s was not enrolled: %v", a, err)
		}
	}
}

func TestARuleEnrollsMachinesByThemselves(t *testing.T) {
	h := newHouse(t)
	early, stranger, ignored, late := mac(t, "00:07:e9:00:00:01"), mac(t, "00:08:00:00:00:01"), mac(t, "00:07:e9:00:00:02"), mac(t, "00:07:e9:00:00:03")
	h.automatic(t)
	h.asked(t, store.UnknownMachine{MAC: early})
	h.asked(t, store.UnknownMachine{MAC: stranger})
	must(t, h.Ignore(t.Context(), ada, ignored, true))
	if rules, err := h.AutoEnroll(t.Context()); err != nil || len(rules) != 0 {
		t.Fatalf("at first there are the rules %v, %v", rules, err)
	}
	set, err := h.SetAutoEnroll(t.Context(), ada, store.AutoEnroll{{Prefix: "00-07-E9", Name: "rack-{n}", Profile: "local", Limit: 3}})
	must(t, err)
	h.audited(t, ada, "setting.put", store.SettingAutoEnroll)
	if got, err := h.AutoEnroll(t.Context()); err != nil || len(got) != 1 || got[0] != set[0] {
		t.Errorf("the rules are %+v, %v; set %+v", got, err, set)
	}
	// Who waits already, and who comes.
	if m := h.eventually(t, early); m.Name != "rack-1" || m.Profile != "local" {
		t.Errorf("the machine is %+v", m)
	}
	h.audited(t, store.ActorAutoEnroll, "machine.create", "rack-1")
	h.asked(t, store.UnknownMachine{MAC: ignored})
	h.asked(t, store.UnknownMachine{MAC: late})
	if m := h.eventually(t, late); m.Name != "rack-2" {
		t.Errorf("the machine is %+v", m)
	}
	// The limit counts machines that were added by hand too.
	h.machine(t, "by-hand", "00:07:e9:00:00:70")
	over := mac(t, "00:07:e9:00:00:71")
	h.asked(t, store.UnknownMachine{MAC: over})
	time.Sleep(3 * autoPause)
	for _, a := range []store.MAC{stranger, ignored, over} {
		if _, err := h.db.MachineByMAC(t.Context(), a); !store.IsNotFound(err) {
			t.Errorf("%s was enrolled, %v", a, err)
		}
	}
	// Without rules nobody is enrolled any more.
	_, err = h.SetAutoEnroll(t.Context(), ada, nil)
	must(t, err)
	h.asked(t, store.UnknownMachine{MAC: mac(t, "00:07:e9:00:00:72")})
	time.Sleep(2 * autoPause)
	if _, err := h.db.MachineByMAC(t.Context(), mac(t, "00:07:e9:00:00:72")); !store.IsNotFound(err) {
		t.Errorf("enrolled by a rule that is gone: %v", err)
	}
}

func TestBadRulesAreRefused(t *testing.T) {
	h := newHouse(t)
	for i, bad := range []store.AutoEnroll{{{Prefix: "xyz"}}, {{Prefix: "00:07:e9", Profile: "nosuch"}}, {{Prefix: "00:07:e9", Name: "lab"}}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h.wantRefusal(t, store.KindInvalid, nil, func() error { _, err := h.SetAutoEnroll(t.Context(), ada, bad); return err })
		})
	}
}
