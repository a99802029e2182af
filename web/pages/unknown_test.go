package pages

import (
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
)

func want(t *testing.T, page string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(page, p) {
			t.Errorf("%q is not on the page", p)
		}
	}
}

func TestTheTraySaysWhoMadeAMachineAndWithWhichCard(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	_, page := get("/machines")
	want(t, page, "2 new machines asked to boot", "Raspberry Pi, UEFI arm64", "genet PCI 14e4:16a0", "ASUSTek", "1 ignored")
	if strings.Contains(page, "52:54:00:12:34:56") {
		t.Error("an ignored machine is among the new ones")
	}
	_, page = get("/unknown/b8:27:eb:91:3c:0d")
	want(t, page, "Raspberry Pi Foundation", "09080700-0000-0000-0000-000000000000", "10.77.0.140", "3 times", "PCI 14e4:16a0")
	_, page = get("/unknown/52:54:00:12:34:56")
	want(t, page, "QEMU virtual machine", "Stop ignoring")
	if code, page := get("/unknown/00:00:00:00:00:02"); code != http.StatusNotFound || !strings.Contains(page, "00:00:00:00:00:02") {
		t.Errorf("somebody who never asked: %d", code)
	}
	if code, _ := get("/unknown/zz"); code != http.StatusUnprocessableEntity {
		t.Errorf("a MAC that is none: %d", code)
	}
}

func TestIgnoringIsListedAndUndoneByAClick(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	if code, to := post("/unknown/b8:27:eb:91:3c:0d/ignore"); code != http.StatusOK || !strings.Contains(to, "is ignored") {
		t.Errorf("%d %s", code, to)
	}
	_, page := get("/unknown")
	want(t, page, "2 ignored", "1 waits", "Stop ignoring b8:27:eb:91:3c:0d")
	if code, to := post("/unknown/b8:27:eb:91:3c:0d/ignore", "undo", "1"); code != http.StatusSeeOther || to != "/unknown" {
		t.Errorf("%d %s", code, to)
	}
	if l.unknown[0].Ignored {
		t.Error("it is still ignored")
	}
}

func TestASwappedBoardReplacesTheMachineThatItMostLikelyIs(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, page := get("/unknown/b8:27:eb:91:3c:0d")
	want(t, page, "Replace lab-08", "it says that it is this one", "d4:5d:64:b1:09:6a")
	if code, to := post("/unknown/b8:27:eb:91:3c:0d/enroll", "replace", "4"); code != http.StatusSeeOther || to != "/machines/4" {
		t.Fatalf("%d %s", code, to)
	}
	if len(l.machines) != 4 || l.machines[3].MACs[0] != mustMAC("b8:27:eb:91:3c:0d") {
		t.Errorf("the machines are %+v", l.machines)
	}
	l.refuse = store.InUse("machine lab-12 is logged in from 10.0.0.5, so it still runs")
	if code, page := post("/unknown/d4:5d:64:b1:0b:02/enroll", "replace", "2"); code != http.StatusConflict || !strings.Contains(page, "so it still runs") || !strings.Contains(page, "A swapped board") {
		t.Errorf("%d: a refusal is not told where it was tried", code)
	}
	if code, page := post("/unknown/d4:5d:64:b1:0b:02/enroll", "name", "lab-99"); code != http.StatusConflict || !strings.Contains(page, `value="lab-99"`) {
		t.Errorf("%d: what was typed is lost", code)
	}
	if code, _ := post("/unknown/d4:5d:64:b1:0b:02/enroll", "replace", "x"); code != http.StatusUnprocessableEntity {
		t.Errorf("no machine: %d", code)
	}
	// Without a hint the one on the same switch port comes first, then of those
	// that were not seen since the one that was seen last.
	s := &site{Config: Config{Now: func() time.Time { return noon }}}
	u := store.UnknownMachine{FirstSeen: noon.Add(-time.Minute), Port: "switch tor, port 4"}
	m := func(name string, ago time.Duration) store.Machine {
		return store.Machine{Name: name, LastSeen: noon.Add(-ago * time.Second)}
	}
	var order []string
	for _, c := range s.candidates(u, []store.Machine{m("alive", 5), m("long-gone", 9000), m("just-gone", 90), {Name: "same-port", Port: "switch tor, port 4"}}) {
		order = append(order, c.Name)
	}
	if got := strings.Join(order, " "); got != "same-port just-gone long-gone alive" {
		t.Errorf("the order is %s", got)
	}
}

func TestAllAreEnrolledByOneForm(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, page := get("/unknown")
	want(t, page, `value="lab-{nn}"`, "Enroll 2")
	all := matchOf(t, get, "/unknown")
	if code, to := post("/unknown/enroll", "pattern", "Rack-{n}", "profile", "local", "match", all); code != http.StatusSeeOther || to != "/machines" {
		t.Errorf("%d %s", code, to)
	}
	if len(l.all) != 1 || !reflect.DeepEqual(l.all[0], store.EnrollSpec{Name: "rack-{n}", Profile: "local", MACs: []store.MAC{l.unknown[0].MAC, l.unknown[1].MAC}}) {
		t.Errorf("enrolled by %+v", l.all)
	}
	if code, page := post("/unknown/enroll", "pattern", "rack"); code != http.StatusUnprocessableEntity || !strings.Contains(page, "put {n} where the number goes") {
		t.Errorf("a pattern without a number: %d", code)
	}
	l.enrolled = []store.Enrolled{{MAC: mustMAC("00:07:e9:00:00:01"), Problem: "the disk is full"}}
	if code, page := post("/unknown/enroll", "match", all); code != http.StatusConflict || !strings.Contains(page, "00:07:e9:00:00:01 was not enrolled: The disk is full.") {
		t.Errorf("%d: it does not say who was not enrolled", code)
	}
	// Who came after the page was made is not among those that it counts.
	l.unknown = append(l.unknown, store.UnknownMachine{MAC: mustMAC("00:07:e9:00:00:02"), Count: 1, LastSeen: noon})
	if code, page := post("/unknown/enroll", "match", all); code != http.StatusConflict || !strings.Contains(page, "3 machines match now") || len(l.all) != 2 {
		t.Errorf("one more answers %d, enrolled by %+v", code, l.all)
	}
	l.unknown = nil
	if code, page := post("/unknown/enroll", "match", listing.Digest([]string{})); code != http.StatusUnprocessableEntity || !strings.Contains(page, "No machine waits") {
		t.Errorf("none answers %d", code)
	}
}

func TestRulesAreAddedAndRemoved(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, page := get("/unknown")
	want(t, page, "d4:5d:64", "lab-{nn}", "profile san", "4 of 64", "Intel: by their own names")
	if code, to := post("/unknown/rules", "prefix", "B8-27-EB", "pattern", "pi-{n}", "profile", "local", "limit", "9"); code != http.StatusSeeOther || to != "/unknown" {
		t.Errorf("%d %s", code, to)
	}
	if r := l.rules[2]; r != (store.AutoEnrollRule{Prefix: "b8:27:eb", Name: "pi-{n}", Profile: "local", Limit: 9}) {
		t.Errorf("the rule is %+v", r)
	}
	for _, bad := range [][]string{{"prefix", "xyz"}, {"prefix", "00:07:ea", "limit", "many"}, {"prefix", "00:07:ea", "pattern", "same"}, {"prefix", "b8:27:eb"}} {
		if code, page := post("/unknown/rules", bad...); code != http.StatusUnprocessableEntity || !strings.Contains(page, `role="alert"`) {
			t.Errorf("%v: %d", bad, code)
		}
	}
	if code, _ := post("/unknown/rules/remove", "prefix", "d4:5d:64"); code != http.StatusSeeOther || len(l.rules) != 2 {
		t.Errorf("%d, %+v", code, l.rules)
	}
}

func TestTheNamesInUseSuggestAPattern(t *testing.T) {
	for names, want := range map[string]string{"": "lab-{n}", "web7 pc-1 pc-2": "pc-{n}", "rack-01 rack-02 x": "rack-{nn}", "a b c": "lab-{n}", "h20261129": "lab-{n}"} {
		var ms []store.Machine
		for _, n := range strings.Fields(names) {
			ms = append(ms, store.Machine{Name: n})
		}
		if got := pattern(ms); got != want {
			t.Errorf("%q suggests %q, want %q", names, got, want)
		}
	}
}

func TestADryRunIsShownFieldByField(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	code, page := get("/machines/2/explain?arch=bios&relay=10.9.0.1&mac=d4-5d-64-b1-09-7c")
	if code != http.StatusOK || len(l.dryRuns) != 1 || l.dryRuns[0] != (store.ExplainQuery{MAC: mustMAC("d4:5d:64:b1:09:7c"), Arch: "bios", Relay: netip.MustParseAddr("10.9.0.1")}) {
		t.Errorf("%d, asked %+v", code, l.dryRuns)
	}
	want(t, page, "What lab-12 would get now", "yiaddr", "option 67", "the loader for UEFI x86-64", "The range is used up.", "set password (secret)", "mutual CHAP as lab-12", "LUN 3", "it is being imported",
		"<strong>loader</strong>", "ipxe.efi", `value="10.9.0.1"`, "<option selected>bios</option>")
	_, page = get("/unknown/d4:5d:64:b1:0b:02/explain")
	want(t, page, "nobody has seen its firmware", "No machine is enrolled by what it says of itself.")
	for path, status := range map[string]int{"/machines/2/explain?relay=nowhere": 422, "/machines/2/explain?mac=zz": 422, "/machines/99/explain": 404, "/unknown/02:00:00:00:00:01/explain": 404} {
		if code, _ := get(path); code != status {
			t.Errorf("%s answers %d", path, code)
		}
	}
	l.refuse = store.Invalid("arch", "%q is no client architecture", "z80")
	if code, page := get("/machines/2/explain?arch=z80"); code != 422 || !strings.Contains(page, "is no client architecture") || !strings.Contains(page, "Asked how") {
		t.Errorf("%d: a bad question is not told beside its form", code)
	}
}
