package inventory

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"lunboot/store"
)

func (h *house) mappings(t *testing.T, m store.Machine) []store.Mapping {
	t.Helper()
	ms, err := h.db.MappingsOf(t.Context(), m.ID)
	must(t, err)
	return ms
}

func TestAMachineIsEnrolledWithAFreshCloneOfTheDefault(t *testing.T) {
	h, _ := layeredHouse(t)
	address := func(n string) store.MAC { return mac(t, "00:07:e9:0f:ea:"+n) }
	for _, n := range []string{"01", "02", "03", "04", "05"} {
		h.asked(t, store.UnknownMachine{MAC: address(n)})
	}
	choice := store.CloneChoice{Of: store.CloneOfDefault}
	h.wantRefusal(t, store.KindInvalid, []string{"default", "setting set default-golden"}, func() error {
		_, err := h.EnrollWithClone(t.Context(), ada, address("01"), "lab-01", choice)
		return err
	})
	raw := h.volume(t, "raw", 1<<20)
	h.wantRefusal(t, store.KindInvalid, []string{"raw", "volume freeze raw"}, func() error {
		_, err := h.EnrollWithClone(t.Context(), ada, address("01"), "lab-01", store.CloneChoice{Of: raw.Name})
		return err
	})
	h.golden(t, "debian") // the only one is the default
	m, err := h.EnrollWithClone(t.Context(), ada, address("01"), "lab-01", choice)
	must(t, err)
	maps := h.mappings(t, m)
	if len(maps) != 1 || !maps[0].Boot || maps[0].LUN != 0 {
		t.Fatalf("the machine boots %+v", maps)
	}
	if v, err := h.db.Volume(t.Context(), maps[0].Volume); err != nil || v.Name != "lab-01-debian" || v.From != "debian version 1" || v.Reset {
		t.Errorf("its clone is %+v, %v", v, err)
	}

	win := h.golden(t, "win11")
	h.wantRefusal(t, store.KindInvalid, []string{"default-golden"}, func() error { // two of them: nobody can tell
		_, err := h.EnrollWithClone(t.Context(), ada, address("02"), "lab-02", choice)
		return err
	})
	for _, bad := range []string{"nosuch", "raw", "Ü"} {
		h.wantRefusal(t, store.KindInvalid, nil, func() error {
			return h.PutSetting(t.Context(), ada, store.Setting{Key: store.SettingDefaultGolden, Value: bad})
		})
	}
	must(t, h.PutSetting(t.Context(), ada, store.Setting{Key: store.SettingDefaultGolden, Value: "win11"}))
	_, err = h.SetVolume(t.Context(), ada, win.ID, store.VolumePatch{Name: ptr("windows")})
	must(t, err)
	if v, err := h.DefaultGolden(t.Context()); err != nil || v.ID != win.ID {
		t.Errorf("after it was renamed the default is %+v, %v", v, err)
	}
	m, err = h.EnrollWithClone(t.Context(), ada, address("02"), "", store.CloneChoice{Of: store.CloneOfDefault, Reset: true})
	must(t, err)
	if v, err := h.db.Volume(t.Context(), h.mappings(t, m)[0].Volume); err != nil || v.Name != m.Name+"-windows" || !v.Reset {
		t.Errorf("its clone is %+v, %v", v, err)
	}

	// Without a clone there is no machine either, and nothing was written.
	small := h.volume(t, "small", 512*4)
	_, err = h.FreezeVolume(t.Context(), ada, small.ID, "")
	must(t, err)
	h.wantRefusal(t, store.KindInvalid, []string{"small"}, func() error {
		_, err := h.EnrollWithClone(t.Context(), ada, address("03"), "lab-03", store.CloneChoice{Of: "small"})
		return err
	})
	if _, err := h.db.MachineByName(t.Context(), "lab-03"); !store.IsNotFound(err) {
		t.Errorf("it is enrolled all the same: %v", err)
	}

	// What is volatile must begin anew, and be a clone.
	for _, bad := range []store.CloneChoice{{Of: "debian", Volatile: true}, {Volatile: true}, {Of: store.CloneOfNone, Reset: true, Volatile: true}, {Of: store.CloneOfNone, Reset: true}} {
		h.wantRefusal(t, store.KindInvalid, nil, func() error {
			_, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Clone: bad})
			return err
		})
		h.wantRefusal(t, store.KindInvalid, nil, func() error {
			_, err := h.SetAutoEnroll(t.Context(), ada, store.AutoEnroll{{Prefix: "00:07:e9", CloneOf: bad.Of, Reset: bad.Reset, Volatile: bad.Volatile}})
			return err
		})
	}
	h.wantRefusal(t, store.KindInvalid, []string{"begins anew"}, func() error {
		_, err := h.EnrollWithClone(t.Context(), ada, address("03"), "lab-03", store.CloneChoice{Of: "debian", Volatile: true})
		return err
	})
	m, err = h.EnrollWithClone(t.Context(), ada, address("03"), "lab-03", store.CloneChoice{Of: "debian", Reset: true, Volatile: true})
	must(t, err)
	if v, err := h.db.Volume(t.Context(), h.mappings(t, m)[0].Volume); err != nil || !v.Reset || !v.Volatile || !v.TopLayer().Volatile {
		t.Errorf("its volatile clone is %+v, %v", v, err)
	}

	all, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Name: "pc-{n}", Clone: store.CloneChoice{Of: "debian", Reset: true}})
	must(t, err)
	if len(all) != 2 || slices.ContainsFunc(all, func(e store.Enrolled) bool { return e.Problem != "" }) {
		t.Errorf("together: %+v", all)
	}
	for _, name := range []string{"pc-1-debian", "pc-2-debian"} {
		if v, err := h.db.VolumeByName(t.Context(), name); err != nil || !v.Reset {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	h.tidy(t)
}

// What the setting promises holds for every way in which machines are enrolled.
func TestNewMachinesGetWhatTheSettingsSayUnlessSomethingElseIsChosen(t *testing.T) {
	h, _ := layeredHouse(t)
	n := 0
	asked := func() store.MAC {
		n++
		a := mac(t, fmt.Sprintf("00:07:e9:0f:eb:%02x", n))
		h.asked(t, store.UnknownMachine{MAC: a})
		return a
	}
	boots := func(m store.Machine) string {
		maps := h.mappings(t, m)
		if len(maps) == 0 {
			return ""
		}
		v, err := h.db.Volume(t.Context(), maps[0].Volume)
		must(t, err)
		return fmt.Sprint(v.From, " ", v.Reset)
	}
	one := func(c store.CloneChoice) string {
		m, err := h.EnrollWithClone(t.Context(), ada, asked(), "", c)
		must(t, err)
		return boots(m)
	}
	plain := func() string {
		m, err := h.Enroll(t.Context(), ada, asked(), "", 0)
		must(t, err)
		return boots(m)
	}
	together := func(c store.CloneChoice) string {
		asked()
		all, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Clone: c})
		must(t, err)
		if len(all) != 1 || all[0].Problem != "" {
			t.Fatalf("together: %+v", all)
		}
		m, err := h.db.Machine(t.Context(), all[0].Machine)
		must(t, err)
		return boots(m)
	}
	ruled := func(r store.AutoEnrollRule) string {
		r.Prefix = "00:07:e9"
		_, err := h.SetAutoEnroll(t.Context(), ada, store.AutoEnroll{r})
		must(t, err)
		a := asked()
		must(t, NewAutoEnroller(h.Inventory, nil).look(t.Context()))
		_, err = h.SetAutoEnroll(t.Context(), ada, nil)
		must(t, err)
		m, err := h.db.MachineByMAC(t.Context(), a)
		must(t, err)
		return boots(m)
	}
	fixed := func() string {
		a := asked()
		_, err := h.Fix(t.Context(), ada, store.Attempt{MAC: a, Diagnoses: []store.Diagnosis{{Fixes: []store.Fix{{Action: string(store.FixEnroll)}}}}}, string(store.FixEnroll))
		must(t, err)
		m, err := h.db.MachineByMAC(t.Context(), a)
		must(t, err)
		return boots(m)
	}
	every := func(when, want string) {
		t.Helper()
		for way, got := range map[string]string{
			"enroll": plain(), "with a choice": one(store.CloneChoice{}), "together": together(store.CloneChoice{}), "by a rule": ruled(store.AutoEnrollRule{}), "by the button of a diagnosis": fixed(),
		} {
			if got != want {
				t.Errorf("%s, %s: it boots %q, not %q", when, way, got, want)
			}
		}
	}
	every("without a golden volume", "")
	h.wantRefusal(t, store.KindInvalid, []string{"no golden volume is the default"}, func() error {
		_, err := h.EnrollAll(t.Context(), ada, store.EnrollSpec{Clone: store.CloneChoice{Reset: true}})
		return err
	})
	h.golden(t, "debian")
	every("with one golden volume", "debian version 1 false")
	h.golden(t, "win11")
	every("with two", "")
	must(t, h.PutSetting(t.Context(), ada, store.Setting{Key: store.SettingDefaultGolden, Value: "win11"}))
	every("with a default", "win11 version 1 false")
	must(t, h.PutSetting(t.Context(), ada, store.Setting{Key: store.SettingFreshClones, Value: "on"}))
	every("where clones begin anew", "win11 version 1 true")
	for choice, want := range map[store.CloneChoice]string{
		{Of: store.CloneOfNone}:    "",
		{Of: store.CloneOfDefault}: "win11 version 1 false",
		{Of: "debian"}:             "debian version 1 false",
		{Reset: true}:              "win11 version 1 true",
	} {
		if a, b, c := one(choice), together(choice), ruled(store.AutoEnrollRule{CloneOf: choice.Of, Reset: choice.Reset}); a != want || b != want || c != want {
			t.Errorf("%+v: they boot %q, %q and %q, not %q", choice, a, b, c, want)
		}
	}
	h.tidy(t)
}

// A rule that was kept before the settings were asked meant none by saying nothing.
func TestRulesOfBeforeStillGiveNoVolume(t *testing.T) {
	h, _ := layeredHouse(t)
	h.golden(t, "debian")
	must(t, h.db.PutSetting(t.Context(), ada, store.SettingAutoEnroll, `[{"prefix":"00:07:e9","limit":4},{"prefix":"00:08:e9","limit":4,"clone_of":"debian"}]`))
	rules, err := h.AutoEnroll(t.Context())
	must(t, err)
	if len(rules) != 2 || rules[0].CloneOf != store.CloneOfNone || rules[1].CloneOf != "debian" {
		t.Fatalf("read as %+v", rules)
	}
	set, err := h.SetAutoEnroll(t.Context(), ada, append(rules, store.AutoEnrollRule{Prefix: "00:09:e9"}))
	must(t, err)
	if again, err := h.AutoEnroll(t.Context()); err != nil || !slices.Equal(again, set) || again[0].CloneOf != store.CloneOfNone || again[2].CloneOf != "" {
		t.Errorf("kept as %+v, %v", again, err)
	}
}

func TestAMachineGetsItsOwnCopy(t *testing.T) {
	var sessions live
	h, _ := layeredHouse(t, func(c *Config) { c.Sessions = &sessions })
	g := h.golden(t, "debian")
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	five := store.LUN(5)
	data := h.volume(t, "data", 1<<20)
	_, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: m.ID, Volume: data.ID, LUN: ptr(store.LUN(0)), Boot: ptr(false)})
	must(t, err)
	_, err = h.Map(t.Context(), ada, store.MappingSpec{Machine: m.ID, Volume: g.ID, LUN: &five})
	must(t, err)

	sessions = live{{ID: "s1", Machine: m.ID, Addr: "10.0.0.7:1"}}
	h.wantRefusal(t, store.KindInUse, []string{"lab-01", "10.0.0.7", "session drop s1"}, func() error {
		_, _, err := h.CloneFor(t.Context(), ada, m.ID, store.CloneSpec{Parent: g.ID})
		return err
	})
	sessions = nil
	v, mp, err := h.CloneFor(t.Context(), ada, m.ID, store.CloneSpec{Parent: g.ID})
	must(t, err)
	if mp.LUN != 5 || !mp.Boot || v.Name != "lab-01-debian" || len(h.mappings(t, m)) != 2 {
		t.Errorf("in the place of the golden volume: %+v of %s, all %+v", mp, v.Name, h.mappings(t, m))
	}
	// A second one takes the mark, and the first stays as it was.
	w, mp, err := h.CloneFor(t.Context(), ada, m.ID, store.CloneSpec{Parent: g.ID})
	must(t, err)
	if w.Name != "lab-01-debian-2" || mp.LUN != 1 || !mp.Boot {
		t.Errorf("the second clone: %+v of %s", mp, w.Name)
	}
	boots := 0
	for _, x := range h.mappings(t, m) {
		if x.Boot {
			boots++
		}
	}
	if boots != 1 || len(h.mappings(t, m)) != 3 {
		t.Errorf("the machine has %+v", h.mappings(t, m))
	}
	// A clone that no machine can have does not stay.
	h.wantRefusal(t, store.KindNotFound, nil, func() error {
		_, _, err := h.CloneFor(t.Context(), ada, 99, store.CloneSpec{Parent: g.ID, Name: "nobodys"})
		return err
	})
	if _, err := h.db.VolumeByName(t.Context(), "nobodys"); !store.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
	h.tidy(t)
}

func TestNamesOfClonesFit(t *testing.T) {
	h, _ := layeredHouse(t)
	long := strings.Repeat("x", 62)
	for range 12 {
		name, err := h.cloneName(t.Context(), long, "debian")
		must(t, err)
		must(t, store.ValidateName("name", name))
		h.volume(t, name, 1<<20)
	}
}

func TestABootOwesItsVolumesANewBeginningOnce(t *testing.T) {
	h, _ := layeredHouse(t)
	g := h.golden(t, "debian")
	fresh, kept, read := h.cloned(t, g, "fresh", true), h.cloned(t, g, "kept", false), h.cloned(t, g, "read", true)
	m, other := h.machine(t, "lab-01", "00:07:e9:00:00:01"), h.machine(t, "lab-02", "00:07:e9:00:00:02")
	h.mapped(t, m, fresh)
	h.mapped(t, m, kept)
	for _, x := range []store.Machine{m, other} {
		_, err := h.Map(t.Context(), ada, store.MappingSpec{Machine: x.ID, Volume: read.ID, ReadOnly: true})
		must(t, err)
	}
	due := func(m store.Machine, want ...store.VolumeID) {
		t.Helper()
		if got, err := h.db.ResetsDue(t.Context(), m.ID); err != nil || !slices.Equal(got, want) {
			t.Errorf("due are %v, %v; want %v", got, err, want)
		}
	}
	boot := func(m store.Machine) {
		t.Helper()
		must(t, h.db.ArmBoot(t.Context(), m.ID))
		_, _, err := h.db.BootGeneration(t.Context(), m.ID, false)
		must(t, err)
		_, fired, err := h.db.BootGeneration(t.Context(), m.ID, true)
		if err != nil || !fired {
			t.Fatalf("fired: %v, %v", fired, err)
		}
	}
	due(m)
	must(t, h.db.ArmBoot(t.Context(), m.ID))
	due(m) // armed is not fired
	boot(m)
	due(m, fresh.ID)
	due(other)
	after, err := h.ResetVolume(t.Context(), fresh.ID, m.Name)
	must(t, err)
	due(m)
	if after.Top == fresh.Top {
		t.Error("it has the same layer")
	}
	if _, fired, err := h.db.BootGeneration(t.Context(), m.ID, true); fired || err != nil {
		t.Errorf("a second login of one boot: %v, %v", fired, err)
	}
	due(m)
	// What is turned off is not owed any more, also when it is turned on again.
	boot(m)
	for _, on := range []bool{false, true} {
		_, err = h.SetVolume(t.Context(), ada, fresh.ID, store.VolumePatch{Reset: ptr(on)})
		must(t, err)
	}
	due(m)
	h.tidy(t)
}

func TestTheFixGivesAMachineWithALongNameItsOwnCopy(t *testing.T) {
	h, _ := layeredHouse(t)
	held := h.volume(t, "win11", 1<<20)
	// Cut at what a name may be, one of them would end with a dash.
	for n, name := range []string{strings.Repeat("x", 63), strings.Repeat("x", 62) + "y", strings.Repeat("y", 58) + "-abcd"} {
		m := h.machine(t, name, "00:07:e9:00:01:0"+strconv.Itoa(n))
		h.fixed(t, failing(m, m.MACs[0], "own-copy-win11"), "own-copy-win11")
		if maps := h.mappings(t, m); len(maps) != 1 || !maps[0].Boot {
			t.Errorf("the machine boots %+v", maps)
		}
	}
	snapshots, err := h.db.Snapshots(t.Context())
	must(t, err)
	var names []string
	for _, s := range snapshots {
		if s.Volume == held.ID {
			names = append(names, s.Name)
		}
	}
	x := strings.Repeat("x", 59)
	if want := []string{"for-" + x, "for-" + x[:57] + "-2", "for-" + strings.Repeat("y", 58)}; !slices.Equal(names, want) {
		t.Errorf("the snapshots are %q, want %q", names, want)
	}
	h.tidy(t)
}

func TestTheFixGivesAMachineItsOwnCopy(t *testing.T) {
	var sessions live
	h, f := layeredHouse(t, func(c *Config) { c.Sessions = &sessions })
	g := h.golden(t, "debian")
	m, other := h.machine(t, "lab-12", "00:07:e9:00:00:12"), h.machine(t, "lab-07", "00:07:e9:00:00:07")
	h.fixed(t, failing(m, m.MACs[0], "own-copy-debian"), "own-copy-debian")
	if v, err := h.db.VolumeByName(t.Context(), "lab-12-debian"); err != nil || v.Parent != g.ID {
		t.Errorf("the copy of a golden volume: %+v, %v", v, err)
	}
	// Of a volume that another machine writes: that one goes on.
	held := h.volume(t, "win11", 1<<20)
	h.mapped(t, other, held)
	sessions = live{{ID: "s7", Machine: m.ID, Addr: "10.0.0.12:1"}}
	h.wantRefusal(t, store.KindInUse, []string{"lab-12", "session drop s7"}, func() error {
		_, err := h.Fix(t.Context(), ada, failing(m, m.MACs[0], "own-copy-win11"), "own-copy-win11")
		return err
	})
	sessions = live{{ID: "s8", Machine: other.ID, Addr: "10.0.0.7:1"}}
	h.fixed(t, failing(m, m.MACs[0], "own-copy-win11"), "own-copy-win11")
	v, err := h.db.VolumeByName(t.Context(), "lab-12-win11")
	must(t, err)
	if v.Parent != held.ID || v.From != "win11@for-lab-12" {
		t.Errorf("the copy is %+v", v)
	}
	boots := 0
	for _, x := range h.mappings(t, m) {
		if x.Boot && x.Volume == v.ID {
			boots++
		}
	}
	if boots != 1 || len(h.mappings(t, other)) != 1 {
		t.Errorf("lab-12 has %+v, lab-07 %+v", h.mappings(t, m), h.mappings(t, other))
	}
	// What fails leaves no snapshot behind.
	f.mu.Lock()
	f.refuse = &store.Error{Kind: store.KindUnavailable, Msg: "the file system is full"}
	f.mu.Unlock()
	if _, err := h.Fix(t.Context(), ada, failing(m, m.MACs[0], "own-copy-win11"), "own-copy-win11"); store.KindOf(err) != store.KindUnavailable {
		t.Errorf("without room: %v", err)
	}
	if d := h.detail(t, held); len(d.Snapshots) != 1 {
		t.Errorf("snapshots: %+v", d.Snapshots)
	}
}

// A machine that reads a golden volume itself would find other bytes under it.
func TestAGoldenVolumeThatAMachineReadsIsNotMovedOn(t *testing.T) {
	var sessions live
	h, f := layeredHouse(t, func(c *Config) { c.Sessions = &sessions })
	g := h.golden(t, "debian")
	work := h.cloned(t, g, "work", false)
	m := h.machine(t, "lab-03", "00:07:e9:00:00:03")
	h.mapped(t, m, g)
	reads := live{{ID: "s3", Machine: m.ID, Addr: "10.0.0.3:1"}}
	sessions = reads
	h.wantRefusal(t, store.KindInUse, []string{"lab-03", "debian", "session drop s3"}, func() error { _, err := h.Promote(t.Context(), ada, work.ID, ""); return err })
	// Nor when it logs in while the copy is made: the copy goes.
	sessions = nil
	hold := make(chan struct{})
	f.mu.Lock()
	f.hold = hold
	f.mu.Unlock()
	job, err := h.Promote(t.Context(), ada, work.ID, "")
	must(t, err)
	f.mu.Lock()
	sessions = reads
	close(hold)
	f.mu.Unlock()
	job = h.done(t, job, nil)
	if job.State != store.JobFailed || !strings.Contains(job.Error, "lab-03") {
		t.Errorf("the job ends %+v", job)
	}
	if v := h.now(t, g); v.Version != 1 {
		t.Errorf("the version is %d", v.Version)
	}
	h.tidy(t)
}
