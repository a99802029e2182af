package pages

import (
	"net/http"
	"strings"
	"testing"

	"lunboot/store"
)

func TestEveryBootHasAPageThatAllThreeListsLeadTo(t *testing.T) {
	l := full()
	l.machines[1].Name = "lab-12"
	get, _ := l.enter(t)
	for path, to := range map[string][]string{
		"/activity":                  {"/attempts/5", "/attempts/4", "/attempts/3"},
		"/machines/2":                {"/attempts/12", "/attempts/5", "/attempts/4"},
		"/unknown/b8:27:eb:91:3c:0d": {"/attempts/3"},
	} {
		_, body := get(path)
		for _, boot := range to {
			if !strings.Contains(body, `href="`+boot+`"`) {
				t.Errorf("%s does not lead to %s", path, boot)
			}
		}
	}
	// The newest of a machine: what helps is a button, and the page follows it live.
	code, body := get("/attempts/12")
	has(t, body, "Attempt of lab-12", "asked for LUN 0, but its volume “win11-lab” is LUN 2", "Could not read its volume", "sanboot iscsi:10.77.0.1::3260:2:", `href="/api/v1/attempts/12/capture"`,
		`href="/machines/2"`, `action="/attempts/12/fix"`, `value="map-lun-0"`, `href="/attempts/5"`, `href="/activity?search=machine%3Alab-12"`, `hx-get="/attempts/12"`)
	if code != http.StatusOK || strings.Contains(body, `href="/attempts/12"`) {
		t.Errorf("%d; it lists itself among the others: %s", code, body)
	}
	// An earlier one says the same, and offers nothing that would be done to what came after it.
	_, body = get("/attempts/5")
	has(t, body, "asked for LUN 0", "Map “win11-lab” as LUN 0")
	if strings.Contains(body, `value="map-lun-0"`) {
		t.Error("an earlier boot offers a fix")
	}
	_, body = get("/attempts/3")
	has(t, body, "Attempt of b8:27:eb:91:3c:0d", "was not enrolled, and stopped waiting", "not enrolled", `href="/unknown/b8:27:eb:91:3c:0d"`, "Enroll or ignore it", `value="enroll"`, "10.77.0.140")
	for _, path := range []string{"/attempts/99", "/attempts/x"} {
		if code, _ := get(path); code != http.StatusNotFound {
			t.Errorf("%s answers %d", path, code)
		}
	}
}

func TestABootOfARemovedMachineIsStillShown(t *testing.T) {
	l := full()
	l.machines = append(l.machines[:1], l.machines[2:]...)
	l.unknown = nil
	get, _ := l.enter(t)
	code, body := get("/attempts/5")
	has(t, body, "Attempt of lab-12", "removed since")
	if code != http.StatusOK || strings.Contains(body, `href="/machines/2"`) {
		t.Errorf("%d: it leads to a machine that is gone", code)
	}
	if _, body = get("/attempts/3"); strings.Contains(body, `href="/unknown/`) || !strings.Contains(body, "not enrolled then") {
		t.Error("it leads to a newcomer that is none any more")
	}
}

func TestWhatHelpsABootIsDoneOnItsPage(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	code, body := post("/attempts/12/fix", "action", "map-lun-0")
	if want := (store.FixAction{Kind: store.FixMapLUN, Argument: "0"}); code != http.StatusOK || len(l.fixed) != 1 || l.fixed[0] != want {
		t.Errorf("%d: done %v", code, l.fixed)
	}
	has(t, body, "Attempt of lab-12", `class="banner said"`)
	if code, body := post("/attempts/12/fix", "action", "check-again"); code != http.StatusOK || !strings.Contains(body, "port 3260 is still blocked") {
		t.Errorf("what is still in the way answers %d", code)
	}
	if code, _ := post("/attempts/12/fix", "action", "format-everything"); code != http.StatusUnprocessableEntity || len(l.fixed) != 2 {
		t.Errorf("an act that is none answers %d", code)
	}
	if code, _ := post("/attempts/99/fix", "action", "map-lun-0"); code != http.StatusNotFound {
		t.Errorf("a boot that is none answers %d", code)
	}
}

func TestOtherBootsAreBoundedAndLeaveOutTheOneThatIsShown(t *testing.T) {
	l := full()
	l.busy()
	get, _ := l.enter(t)
	_, body := get("/attempts/1000")
	list := body[strings.Index(body, `id="others"`):]
	if n := strings.Count(list, `href="/attempts/`); n != earlierBoots || strings.Contains(list, `href="/attempts/1000"`) {
		t.Errorf("%d others", n)
	}
	if _, body = get("/activity"); strings.Count(body, `<a class="name" href="/attempts/`) != activityPage || !strings.Contains(body, `href="/activity?search=mac%3Ab8%3a27%3aeb%3a91%3a3c%3a0d"`) {
		t.Errorf("the rows of the activity lead to %d boots", strings.Count(body, `<a class="name" href="/attempts/`))
	}
}

func TestABootOfAStrangerIsNoFailure(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	code, body := get("/attempts/3")
	has(t, body, "Not enrolled</span>", `<section class="card diagnosis stranger"`)
	if code != http.StatusOK || strings.Contains(body, "Boot failed") {
		t.Errorf("%d: it is called failed", code)
	}
	_, body = get("/activity?show=not-enrolled")
	has(t, body, "raspberry-3c0d was not enrolled, and stopped waiting")
	if strings.Contains(body, "line failed") {
		t.Error("the list calls it failed")
	}
	if _, body = get("/activity?show=failed"); strings.Contains(body, "raspberry-3c0d") {
		t.Error("it is among the failed boots")
	}
	// A machine that was enrolled too late is not seen yet; nothing of it counts as failed.
	late := *stranger()
	late.ID, late.Machine, late.Name = 20, 4, "lab-08"
	late.Diagnoses[0].Title = "lab-08 stopped waiting before it was enrolled"
	l.latest[4] = late
	_, body = get("/machines")
	has(t, body, `<span class="badge" title="machines whose last attempt failed">1</span>`, "lab-08 stopped waiting before it was enrolled")
	_, body = get("/machines/4")
	has(t, body, "Not seen</span>", `<section class="card diagnosis never"`)
}

// A list and its things have one name; who kept a link to the former one gets
// there all the same.
func TestFormerPathsLeadToTheOnesOfToday(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	for from, to := range map[string]string{"/boots/12": "/attempts/12", "/changes?who=nobody": "/audit?who=nobody", "/changes": "/audit"} {
		if code, at := get(from); code != http.StatusMovedPermanently || at != to {
			t.Errorf("%s answers %d %s", from, code, at)
		}
	}
}
