package pages

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func has(t *testing.T, body string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(body, w) {
			t.Errorf("the page lacks %q:\n%s", w, body)
		}
	}
}

func TestThePageOfAMachineSaysWhyItsBootFailed(t *testing.T) {
	get, _ := full().enter(t)
	code, body := get("/machines/2")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	has(t, body, "asked for LUN 0, but its volume “win11-lab” is LUN 2", "There is no LUN 0 for this machine", "Certain · ", "1d704539",
		"Could not read its volume", "usually 21 s", "LUN 2 · boots from this", "sanboot iscsi:10.77.0.1::3260:2:", `/capture" download`)
}

func TestTheListPutsFailedMachinesFirst(t *testing.T) {
	get, _ := full().enter(t)
	_, body := get("/machines")
	order := []string{`href="/machines/2"`, `href="/machines/3"`, `href="/machines/1"`, `href="/machines/4"`}
	at := -1
	for _, o := range order {
		i := strings.Index(body, o)
		if i < at || i < 0 {
			t.Fatalf("%s stands at %d, after %d", o, i, at)
		}
		at = i
	}
	has(t, body, "2 new machines asked to boot", "b8:27:eb:91:3c:0d", "Stopped at step 6 of 7: read its volume", `<span class="badge"`)
	if _, other := get("/volumes"); !strings.Contains(other, `<span class="badge"`) {
		t.Error("the other pages do not count the failed boots")
	}
	_, body = get("/machines?show=up")
	if strings.Contains(body, "lab-12") {
		t.Error("a failed machine is listed among those that are up")
	}
}

func TestEmptyPagesSayWhatToDo(t *testing.T) {
	get, _ := newLab().enter(t)
	_, body := get("/machines")
	has(t, body, "No machines yet", "choose network boot")
	_, body = get("/volumes")
	has(t, body, "No volumes yet")
}

func TestWhatAMachineSaysOfItselfCannotBreakAPage(t *testing.T) {
	l := full()
	l.unknown[0].Vendor = `<script>alert(1)</script>"'`
	l.machines[1].Notes = "<img src=x onerror=alert(1)>"
	a := l.latest[2]
	a.Diagnoses[0].Title = "<b>bold</b>"
	a.Script = "</pre><script>alert(1)</script>"
	l.latest[2] = a
	get, _ := l.enter(t)
	for _, path := range []string{"/machines", "/machines/2", "/volumes"} {
		_, body := get(path)
		for _, bad := range []string{"<script>alert", "<img src=x", "<b>bold"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s carries %q unescaped", path, bad)
			}
		}
	}
}

func TestEnrollIsOneClickWithoutScript(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	code, to := post("/unknown/b8:27:eb:91:3c:0d/enroll")
	if code != http.StatusSeeOther || to != "/machines/5" {
		t.Fatalf("enroll answered %d %s", code, to)
	}
	code, to = post("/machines/5/map", "volume", "4", "lun", "2")
	if code != http.StatusSeeOther || to != "/machines/5" {
		t.Fatalf("map answered %d %s", code, to)
	}
	if m := l.mappings[len(l.mappings)-1]; m.Machine != 5 || m.Volume != 4 || m.LUN != 2 {
		t.Errorf("mapped %+v", m)
	}
	if code, _ := post("/machines/5/map", "from", "empty", "name", "fresh", "size", "8G"); code != http.StatusSeeOther {
		t.Errorf("a new empty volume answered %d", code)
	}
	if v := l.vols[len(l.vols)-1]; v.Name != "fresh" || v.Size != 8<<30 {
		t.Errorf("created %+v", v)
	}
}

func TestAFixOfADiagnosisIsAButtonThatDoesIt(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, `value="map-lun-0"`, "Map “win11-lab” as LUN 0", `value="use-profile-san"`)
	attempt := fmt.Sprint(l.latest[2].ID)
	if code, to := post("/machines/2/fix", "attempt", attempt, "action", "map-lun-0"); code != http.StatusSeeOther {
		t.Fatalf("the fix answered %d %s", code, to)
	}
	if want := (store.FixAction{Kind: store.FixMapLUN, Argument: "0"}); len(l.fixed) != 1 || l.fixed[0] != want {
		t.Errorf("done: %v", l.fixed)
	}
	if code, body := post("/machines/2/fix", "attempt", attempt, "action", "check-again"); code != http.StatusOK || !strings.Contains(body, "port 3260 is still blocked") {
		t.Errorf("what is still in the way answered %d", code)
	}
	for _, form := range [][]string{{"attempt", attempt, "action", "format-everything"}, {"action", "map-lun-0"}} {
		if code, _ := post("/machines/2/fix", form...); code != http.StatusUnprocessableEntity {
			t.Errorf("%v answered %d", form, code)
		}
	}
	if code, _ := post("/machines/1/fix", "attempt", attempt, "action", "map-lun-0"); code != http.StatusConflict {
		t.Errorf("another machine's boot answered %d", code)
	}
}

func TestAPageSaysWhereAMachineIsPluggedIn(t *testing.T) {
	get, _ := full().enter(t)
	_, body := get("/machines/1")
	has(t, body, "Plugged in", "switch tor, port Gi0/3 (VLAN 12)", "seen 2 min")
	_, body = get("/machines")
	has(t, body, "switch tor, port Gi0/4 (VLAN 12)")
}

func TestTheQuirksThatAreTickedAreTheMachinesQuirks(t *testing.T) {
	get, post := full().enter(t)
	post("/machines/2/quirks", "quirk", "no-proxy-offer")
	_, body := get("/machines/2")
	has(t, body, `value="no-proxy-offer" checked`, "is answered on port 4011 only")
	if strings.Contains(body, `value="option-43" checked`) {
		t.Error("a quirk is ticked that nobody chose")
	}
	if code, body := post("/machines/2/quirks", "quirk", "no-lunch"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "is not a quirk") {
		t.Errorf("an invented quirk answered %d", code)
	}
	post("/machines/2/quirks")
	if _, body := get("/machines/2"); strings.Contains(body, `checked> It`) {
		t.Error("the quirk cannot be taken back")
	}
}

func TestAnActThatFailsKeepsThePageAndSaysWhy(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	l.refuse = store.Conflict("volume", "debian12 is written by lab-01; two machines writing to one volume would destroy it")
	code, body := post("/machines/2/map", "volume", "2")
	if code != http.StatusConflict {
		t.Errorf("status %d", code)
	}
	has(t, body, `role="alert"`, "Debian12 is written by lab-01", "lab-12")
	code, body = post("/machines/2/map", "volume", "2", "lun", "16384")
	if code != http.StatusUnprocessableEntity {
		t.Errorf("status %d", code)
	}
	has(t, body, "LUN 16384 is out of range")
	l.refuse = nil
	code, body = post("/machines/2/remove", "confirm", "lab-99")
	if code != http.StatusUnprocessableEntity || len(l.machines) == 0 {
		t.Errorf("removed without its name: %d", code)
	}
	has(t, body, "Nothing was removed")
}

func TestTheFirstRunNeedsItsCodeAndSendsNothingBeforeItsButton(t *testing.T) {
	l := full()
	base, c := l.open(t)
	resp, err := c.Get(base + "/machines")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); to != "/setup" {
		t.Fatalf("a fresh appliance sends people to %q", to)
	}
	form := func(code, password string) int {
		resp, err := c.PostForm(base+"/setup", map[string][]string{"code": {code}, "password": {password}, "mode-eth0": {"off"}, "mode-eth1": {"full"}, "range-eth1": {""}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := form("WRONG", labPassword); got != http.StatusForbidden || l.chosen != nil {
		t.Errorf("a wrong code answered %d, chosen %v", got, l.chosen)
	}
	if got := form(l.auth.Code(), "short"); got != http.StatusUnprocessableEntity || l.chosen != nil {
		t.Errorf("a short password answered %d, chosen %v", got, l.chosen)
	}
	code := l.auth.Code()
	if got := form(strings.ToLower(code), labPassword); got != http.StatusSeeOther {
		t.Fatalf("the right code answered %d", got)
	}
	if want := (SetupChoice{"eth1", store.DHCPFull, mustRange("10.77.0.128-10.77.0.254")}); len(l.chosen) != 1 || l.chosen[0] != want {
		t.Errorf("chosen %+v", l.chosen)
	}
	if got := form(code, "another password"); got == http.StatusOK || l.auth.CheckCode(code) {
		t.Error("the code still works after the first run")
	}
}

func TestLoginTellsAStrangerNothing(t *testing.T) {
	l := full()
	l.enter(t)
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", map[string][]string{"password": {"wrong password"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a wrong password answered %d", resp.StatusCode)
	}
	resp, err = c.Get(base + "/machines/2")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if to := resp.Header.Get("Location"); to != "/login?next=%2Fmachines%2F2" {
		t.Errorf("a stranger got %d %s", resp.StatusCode, to)
	}
}

func TestAFormFromAnotherSiteIsRefused(t *testing.T) {
	l := full()
	l.enter(t)
	base, c := l.open(t)
	req, err := http.NewRequest(http.MethodPost, base+"/login", strings.NewReader("password=x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d", resp.StatusCode)
	}
	has(t, string(body), "<h1>That is not allowed</h1>", "Nothing was done: a page from elsewhere sent this.", "open these pages at one address")
}

func TestTheLiveStreamSpeaksWhenSomethingChanged(t *testing.T) {
	l := full()
	l.enter(t)
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", map[string][]string{"password": {labPassword}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	resp, err = c.Get(base + "/machines")
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	since := regexp.MustCompile(`hx-sse:connect="/live\?since=(\w+)\.1"`).FindSubmatch(body)
	if since == nil {
		t.Fatal("the page does not say of which version it is")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/live?since="+string(since[1])+".1", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewScanner(stream.Body)
	for lines.Scan() && lines.Text() != "" { // the greeting
	}
	l.touch()
	for lines.Scan() {
		if lines.Text() == "id: "+string(since[1])+".2" {
			return
		}
		if strings.HasPrefix(lines.Text(), "id: ") {
			t.Fatal("told of a version that the page has already")
		}
	}
	t.Fatal("the stream ended without the change:", lines.Err())
}

func TestEveryVendoredFileIsListedWithItsLicence(t *testing.T) {
	list, err := assetFS.ReadFile("asset/VENDOR.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := assetFS.ReadDir("asset")
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]bool{"VENDOR.md": true, "lunboot.css": true, "lunboot.js": true, "upload.js": true, "mark.svg": true}
	for _, e := range entries {
		if !ours[e.Name()] && !strings.Contains(string(list), e.Name()) {
			t.Errorf("%s is not in VENDOR.md", e.Name())
		}
	}
}

func TestTheHelpExplainsEachCodeAndIsSearched(t *testing.T) {
	get, _ := full().enter(t)
	for path, want := range map[string]string{
		"/help":                            "LB-CHAP-01",
		"/help?q=hexadecimal":              "LB-LUN-01",
		"/help?q=http://ipxe.org/1d704539": "no disk with the LUN",
		"/help/lb-lun-01":                  "iPXE reads the number as hexadecimal",
		"/help?q=search+relay":             `<a href="/leases">Leases</a></dt><dd class="mono">address: mac: machine: hostname: state: interface: relay: port:`,
		"/help?q=xyzzy":                    "Nothing is found",
		"/help?q=password":                 "lunboot user password NAME",
		"/help?q=OIDC":                     "lunboot oidc try",
	} {
		if status, body := get(path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s answers %d without %q", path, status, want)
		}
	}
	if _, body := get("/help"); strings.Count(body, `<dd class="mono">`) != len(helpLists()) || !strings.Contains(body, "machine: mac: outcome: stage:") {
		t.Error("the help does not say what lists are searched by")
	}
	if _, body := get("/help?q=hexadecimal"); strings.Contains(body, "LB-CHAP-01") {
		t.Error("a search leaves what it does not find")
	}
	for path, shown := range map[string]bool{"/help": true, "/help?q=single+sign-on": true, "/help?q=hexadecimal": false, "/help?q=1d704539": false} {
		if _, body := get(path); strings.Contains(body, `id="help-login"`) != shown {
			t.Errorf("%s says how to log in: %t", path, !shown)
		}
	}
	if status, to := get("/help?q=lb-lun-01"); status != http.StatusSeeOther || to != "/help/LB-LUN-01" {
		t.Errorf("a code that is searched for answers %d %s", status, to)
	}
	if status, _ := get("/help/LB-LUN-99"); status != http.StatusNotFound {
		t.Errorf("a code that was never given answers %d", status)
	}
}
