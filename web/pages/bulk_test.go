package pages

import (
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// matchOf is what the page's form says of all that match.
func matchOf(t *testing.T, get func(string) (int, string), path string) string {
	t.Helper()
	_, body := get(path)
	m := regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(body)
	if m == nil {
		t.Fatalf("%s has no match", path)
	}
	return m[1]
}

func TestManyVolumesAreMadeReadOnlyAndBack(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/volumes")
	has(t, body, `form="bulk" name="id" value="4" aria-label="Choose spare"`, "all 4 that match")
	code, body := post("/volumes/bulk", "act", "read-only", "id", "4")
	has(t, body, "Done for 1 volume.", `value="4:1:read-only:false"`, ">Undo<")
	if code != http.StatusOK || !l.volume(4).ReadOnly {
		t.Errorf("it answers %d", code)
	}
	if code, to := post("/machines/undo", "was", "4:1:read-only:false", "back", "/volumes"); code != http.StatusSeeOther || to != "/volumes" || l.volume(4).ReadOnly {
		t.Errorf("taking it back answers %d %s", code, to)
	}
	if _, body := post("/machines/undo", "was", "4:1:read-only:perhaps"); !strings.Contains(body, "Not taken back") {
		t.Error("what says nothing is taken back")
	}
	code, body = post("/volumes/bulk", "act", "read-only", "search", "debian", "all", "yes", "match", matchOf(t, get, "/volumes?search=debian"))
	if code != http.StatusOK || !l.volume(2).ReadOnly || l.volume(4).ReadOnly {
		t.Errorf("all that match answer %d", code)
	}
	has(t, body, `value="debian"`) // the list stays as it was
	before(t, body, []string{">debian12</a>"}, ">win11-lab</a>")
	for what, form := range map[string][]string{"nothing": {"act", "remove"}, "no act": {"id", "4"}, "another act": {"id", "4", "act", "format"}, "a search that is none": {"all", "yes", "act", "remove", "search", "state:x"}} {
		if code, _ := post("/volumes/bulk", form...); code != http.StatusUnprocessableEntity && code != http.StatusConflict {
			t.Errorf("%s answers %d", what, code)
		}
	}
	if code, _ := post("/volumes/bulk", "act", "remove", "id", "99"); code != http.StatusNotFound {
		t.Errorf("a volume that is none answers %d", code)
	}
	if code, body := post("/volumes/bulk", "act", "remove", "all", "yes", "match", "other"); code != http.StatusConflict || !strings.Contains(body, "4 volumes match now") {
		t.Errorf("others than the page's answer %d", code)
	}
}

func TestWhatIsDeletedWithManyVolumesIsSaidAndTyped(t *testing.T) {
	l := cloning()
	get, post := l.enter(t)
	all := matchOf(t, get, "/volumes")
	code, body := post("/volumes/bulk", "act", "remove", "all", "yes", "match", all)
	has(t, body, "This deletes 3 volumes for good, with 7 GiB of bytes", "arriving, 8 GiB, which takes 3 GiB", "debian12 stays: lab-01 has it", "debian-golden stays: lab-01-debian stands on it", "Type <b>remove 3</b>", `name="match" value="`+all+`"`, "Leave them as they are")
	if code != http.StatusUnprocessableEntity || len(l.acts) != 0 {
		t.Errorf("a question answers %d, done %v", code, l.acts)
	}
	seen := seenOf(t, body)
	if code, body := post("/volumes/bulk", "act", "remove", "all", "yes", "match", all, "sure", "remove 7"); code != http.StatusUnprocessableEntity || len(l.acts) != 0 || !strings.Contains(body, "Nothing was done: type") {
		t.Errorf("another number answers %d", code)
	}
	if code, body = post("/volumes/bulk", "act", "remove", "all", "yes", "match", all, "seen", seen, "sure", "remove 3"); code != http.StatusOK || len(l.vols) != 4 {
		t.Errorf("it answers %d and leaves %+v", code, l.vols)
	}
	has(t, body, "Done for 3 volumes.")
	if code, body := post("/volumes/bulk", "act", "remove", "id", "5"); code != http.StatusConflict || !strings.Contains(body, "debian-golden stays, since lab-01-debian stands on it") {
		t.Errorf("one that stays answers %d", code)
	}
	// What stands on another volume goes before it.
	l.mappings, l.acts = nil, nil
	form := map[string][]string{"act": {"remove"}, "id": {"5", "6"}}
	_, body = postValues(t, l, "/volumes/bulk", form)
	form["sure"], form["seen"] = []string{"remove 2"}, []string{seenOf(t, body)}
	if code, _ := postValues(t, l, "/volumes/bulk", form); code != http.StatusOK || !reflect.DeepEqual(l.acts, []string{"remove 6", "remove 5"}) {
		t.Errorf("it answers %d, done %v", code, l.acts)
	}
}

// What was agreed to is those that were shown, as they were: as many others, or one
// of them that somebody changed meanwhile, are another question.
func TestWhatIsDeletedIsWhatWasAskedAbout(t *testing.T) {
	l := cloning()
	l.mappings = nil
	_, post := l.enter(t)
	_, body := post("/volumes/bulk", "act", "remove", "id", "6")
	six := seenOf(t, body)
	for what, form := range map[string][]string{
		"another one":       {"act", "remove", "id", "4", "seen", six, "sure", "remove 1"},
		"without an answer": {"act", "remove", "id", "6", "sure", "remove 1"},
	} {
		if code, body := post("/volumes/bulk", form...); code != http.StatusConflict || len(l.acts) != 0 || !strings.Contains(body, "Look again") || !strings.Contains(body, "Type <b>remove 1</b>") {
			t.Errorf("%s answers %d, done %v", what, code, l.acts)
		}
	}
	l.mu.Lock()
	for i := range l.vols {
		l.vols[i].Revision++
	}
	l.mu.Unlock()
	code, body := post("/volumes/bulk", "act", "remove", "id", "6", "seen", six, "sure", "remove 1")
	if code != http.StatusConflict || len(l.acts) != 0 {
		t.Errorf("one that was changed answers %d, done %v", code, l.acts)
	}
	if code, _ := post("/volumes/bulk", "act", "remove", "id", "6", "seen", seenOf(t, body), "sure", "remove 1"); code != http.StatusOK || !reflect.DeepEqual(l.acts, []string{"remove 6"}) {
		t.Errorf("looked at again it answers %d, done %v", code, l.acts)
	}
}

// seenOf is what stands for the volumes of which a page asks.
func seenOf(t *testing.T, page string) string {
	t.Helper()
	m := regexp.MustCompile(`name="seen" value="([0-9a-f]+)"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the page asks nothing:\n%s", page)
	}
	return m[1]
}

func TestManyVolumesAreFrozenAfterAQuestion(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	code, body := postValues(t, l, "/volumes/bulk", map[string][]string{"act": {"freeze"}, "id": {"2", "4"}})
	has(t, body, "makes 2 volumes golden", "spare, 8 GiB", `name="id" value="2"`, `name="id" value="4"`, "freeze 2")
	if code != http.StatusUnprocessableEntity || len(l.acts) != 0 {
		t.Errorf("a question answers %d", code)
	}
	if code, _ = postValues(t, l, "/volumes/bulk", map[string][]string{"act": {"freeze"}, "id": {"2", "4"}, "sure": {"freeze 2"}, "seen": {seenOf(t, body)}}); code != http.StatusOK || !reflect.DeepEqual(l.acts, []string{"freeze 2: ", "freeze 4: "}) {
		t.Errorf("it answers %d, done %v", code, l.acts)
	}
	l.refuse = store.InUse("it is used")
	_, body = post("/volumes/bulk", "act", "freeze", "id", "2")
	if code, body := post("/volumes/bulk", "act", "freeze", "id", "2", "seen", seenOf(t, body), "sure", "freeze 1"); code != http.StatusConflict || !strings.Contains(body, "Not done for 1 volume. debian12: it is used") {
		t.Errorf("a refusal answers %d", code)
	}
}

func TestManyUnknownMachinesAreEnrolledOrIgnored(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/unknown")
	has(t, body, `form="bulk" name="id" value="b8:27:eb:91:3c:0d"`, `form="bulk" name="id" value="52:54:00:12:34:56"`, "all 2 that wait")
	_, body = get("/machines")
	if strings.Contains(body, `name="id" value="b8:27`) {
		t.Error("the tray of the machines has boxes that nothing asks for")
	}
	l.enrolled = []store.Enrolled{{MAC: mustMAC("b8:27:eb:91:3c:0d"), Machine: 9, Name: "pi-1"}, {MAC: mustMAC("d4:5d:64:b1:0b:02"), Problem: "the disk is full"}}
	code, body := post("/unknown/bulk", "act", "enroll", "id", "b8:27:eb:91:3c:0d", "pattern", "pi-{n}", "profile", "local")
	if want := (store.EnrollSpec{Name: "pi-{n}", Profile: "local", MACs: []store.MAC{mustMAC("b8:27:eb:91:3c:0d")}}); code != http.StatusOK || len(l.all) != 1 || !reflect.DeepEqual(l.all[0], want) {
		t.Errorf("%d, enrolled by %+v", code, l.all)
	}
	has(t, body, "Done for 1 machine.", "Not done for 1 machine. d4:5d:64:b1:0b:02: the disk is full")
	l.enrolled = nil
	post("/unknown/bulk", "act", "enroll", "all", "yes", "search", "Gi0/4", "match", matchOf(t, get, "/unknown?search=Gi0/4"))
	if len(l.all) != 2 || !slices.Equal(l.all[1].MACs, []store.MAC{mustMAC("d4:5d:64:b1:0b:02")}) {
		t.Errorf("all that match are %+v", l.all)
	}
	code, body = post("/unknown/bulk", "act", "ignore", "all", "yes", "match", matchOf(t, get, "/unknown"))
	has(t, body, "Done for 2 machines.", `value="0:0:ignore:b8:27:eb:91:3c:0d"`, ">Undo<", "3 ignored")
	if code != http.StatusOK || !l.unknown[0].Ignored || !l.unknown[1].Ignored {
		t.Errorf("ignoring answers %d", code)
	}
	if code, _ = post("/unknown/bulk", "act", "stop", "id", "52:54:00:12:34:56"); code != http.StatusOK || l.unknown[2].Ignored {
		t.Errorf("to stop ignoring answers %d", code)
	}
	for what, form := range map[string][]string{
		"nothing": {"act", "ignore"}, "no MAC": {"act", "ignore", "id", "x"}, "no act": {"id", "52:54:00:12:34:56"}, "a bad pattern": {"act", "enroll", "id", "52:54:00:12:34:56", "pattern", "same"},
		"a search that is none": {"act", "ignore", "all", "yes", "search", "ignored:x"}, "others by now": {"act", "ignore", "all", "yes", "match", "other"},
	} {
		if code, body := post("/unknown/bulk", form...); code != http.StatusUnprocessableEntity && code != http.StatusConflict || !strings.Contains(body, `role="alert"`) {
			t.Errorf("%s answers %d", what, code)
		}
	}
	l.refuse = store.Conflict("", "not now")
	if code, body := post("/unknown/bulk", "act", "ignore", "id", "52:54:00:12:34:56"); code != http.StatusConflict || !strings.Contains(body, "Not done for 1 machine") {
		t.Errorf("a refusal answers %d", code)
	}
}

// overOf is what the page's button says of all leases that have expired.
func overOf(t *testing.T, body string) string {
	t.Helper()
	m := regexp.MustCompile(`name="expired" value="yes"><input type="hidden" name="match" value="([^"]*)"><button>([^<]*)<`).FindStringSubmatch(body)
	if m == nil {
		t.Fatal("no button drops those that have expired")
	}
	return m[1]
}

func TestManyLeasesAreDropped(t *testing.T) {
	l := full()
	l.leased = append(l.leased,
		store.Lease{Address: netip.MustParseAddr("10.77.0.98"), MAC: mustMAC("02:00:00:00:00:98"), State: store.LeaseBound, Expires: noon.Add(-2 * time.Hour)},
		store.Lease{Address: netip.MustParseAddr("10.77.0.101"), MAC: mustMAC("d4:5d:64:b1:09:01"), State: store.LeaseBound, Expires: noon.Add(time.Hour)}, // its volume is open
	)
	get, post := l.enter(t)
	_, body := get("/leases")
	has(t, body, `form="bulk" name="id" value="10.77.0.103" aria-label="Choose 10.77.0.103"`, "all 6 that match", "Drop all 2 that have expired", "its volume is open")
	over, all := overOf(t, body), matchOf(t, get, "/leases")
	// Those that have expired, and nothing is asked.
	l.leased[3].Expires = noon.Add(time.Hour) // meanwhile one of them was renewed
	if code, body := post("/leases/bulk", "act", "drop", "expired", "yes", "match", over); code != http.StatusConflict || len(l.dropped) != 0 || !strings.Contains(body, "1 lease match now") {
		t.Errorf("another one answers %d, dropped %v", code, l.dropped)
	}
	l.leased[3].Expires = noon.Add(-time.Hour)
	code, body := post("/leases/bulk", "act", "drop", "expired", "yes", "match", over, "show", "bound", "sort", "mac")
	if code != http.StatusOK || !slices.Equal(l.dropped, []string{"10.77.0.99", "10.77.0.98"}) {
		t.Errorf("those that have expired answer %d, dropped %v", code, l.dropped)
	}
	has(t, body, "Done for 2 leases.", `name="sort" value="mac"`)
	if strings.Contains(body, "that have expired<") {
		t.Error("none has expired any more")
	}
	// All that match, of which somebody uses one: that is said, and typed.
	l.dropped = nil
	if code, _ := post("/leases/bulk", "act", "drop", "all", "yes", "match", all); code != http.StatusConflict {
		t.Errorf("those of another page answer %d", code)
	}
	all = matchOf(t, get, "/leases")
	code, body = post("/leases/bulk", "act", "drop", "all", "yes", "match", all)
	has(t, body, "This drops 3 leases, 1 of which machines use still", "10.77.0.103, lab-03 goes on using it until it asks again", "10.77.0.101, lab-01, stays: its volume is open from there", "Type <b>drop 3</b>", `action="/leases/bulk"`, `name="match" value="`+all+`"`, "Leave them as they are")
	if code != http.StatusUnprocessableEntity || len(l.dropped) != 0 {
		t.Errorf("a question answers %d, dropped %v", code, l.dropped)
	}
	seen := seenOf(t, body)
	if code, body := post("/leases/bulk", "act", "drop", "all", "yes", "match", all, "seen", seen, "sure", "drop 4"); code != http.StatusUnprocessableEntity || len(l.dropped) != 0 || !strings.Contains(body, "Nothing was done: type") {
		t.Errorf("another number answers %d", code)
	}
	if code, _ := post("/leases/bulk", "act", "drop", "all", "yes", "match", all, "seen", "others", "sure", "drop 3"); code != http.StatusConflict || len(l.dropped) != 0 {
		t.Errorf("others than were asked about answer %d", code)
	}
	l.running = map[netip.Addr]bool{netip.MustParseAddr("10.77.0.101"): true}
	code, body = post("/leases/bulk", "act", "drop", "all", "yes", "match", all, "seen", seen, "sure", "drop 3")
	if code != http.StatusOK || !slices.Equal(l.dropped, []string{"10.77.0.103", "10.77.0.112", "10.77.0.140"}) {
		t.Errorf("it answers %d, dropped %v", code, l.dropped)
	}
	has(t, body, "Done for 3 leases.", "Not done for 1 lease. 10.77.0.101: 10.77.0.101 has its volume open")
	// One whose volume is open is refused before anything is asked.
	if code, body := post("/leases/bulk", "act", "drop", "id", "10.77.0.101"); code != http.StatusConflict || !strings.Contains(body, "Nothing was dropped: 10.77.0.101, lab-01, stays: its volume is open from there; end its session first") {
		t.Errorf("one that runs answers %d", code)
	}
	for what, form := range map[string][]string{"nothing": {"act", "drop"}, "no act": {"id", "10.77.0.101"}, "another": {"act", "drop", "id", "10.0.0.1"}, "a search that is none": {"act", "drop", "all", "yes", "search", "state:x"}} {
		if code, _ := post("/leases/bulk", form...); code != http.StatusUnprocessableEntity && code != http.StatusNotFound {
			t.Errorf("%s answers %d", what, code)
		}
	}
}

// What a list is narrowed to is what all that match are, and an appliance that
// cannot do it says why.
func TestAllLeasesThatMatchAreThoseThatAreShown(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	const list = "/leases?show=offered&search=10.77"
	_, body := get(list)
	has(t, body, "all 1 that match")
	match := matchOf(t, get, list)
	l.refuse = &store.Error{Kind: store.KindUnavailable, Msg: "the disk is full"}
	if code, body := post("/leases/bulk", "act", "drop", "all", "yes", "match", match, "show", "offered", "search", "10.77"); code != http.StatusServiceUnavailable || !strings.Contains(body, "The disk is full") {
		t.Errorf("a refusal answers %d", code)
	}
	l.refuse = nil
	if code, body := post("/leases/bulk", "act", "drop", "all", "yes", "match", match, "show", "offered", "search", "10.77"); code != http.StatusOK || !slices.Equal(l.dropped, []string{"10.77.0.140"}) || !strings.Contains(body, `name="show" value="offered"`) {
		t.Errorf("it answers %d, dropped %v", code, l.dropped)
	}
	// A tick names its lease, whatever the list is narrowed to meanwhile.
	if code, _ := post("/leases/bulk", "act", "drop", "id", "10.77.0.112", "show", "bound"); code != http.StatusOK || !slices.Contains(l.dropped, "10.77.0.112") {
		t.Errorf("a tick answers %d, dropped %v", code, l.dropped)
	}
}
