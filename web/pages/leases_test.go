package pages

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// before checks that texts stand in an order, and that others are missing.
func before(t *testing.T, body string, order []string, missing ...string) {
	t.Helper()
	at := -1
	for _, text := range order {
		i := strings.Index(body, text)
		if i <= at {
			t.Errorf("%q stands at %d, after %d", text, i, at)
		}
		at = i
	}
	for _, text := range missing {
		if strings.Contains(body, text) {
			t.Errorf("%q is there", text)
		}
	}
}

func TestSessionsSayWhoIsLoggedInAndAreDropped(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/sessions")
	has(t, body, `<a class="name" href="/machines/1">lab-01</a>`, "Operating system", "mutual CHAP", "10.77.0.101:49152", "today ", "1 GiB", "2, 3", "no machine", `hx-get="/sessions"`,
		`<a href="/sessions?show=ipxe">iPXE <b class="num">1</b></a>`, `Operating system <b class="num">2</b>`, "iPXE does not log in again")
	_, body = get("/sessions?show=os&sort=read")
	before(t, body, []string{">lab-01</a>", "iqn.1993-08"}, "lab-12")
	_, body = get("/sessions?search=machine:lab-12")
	before(t, body, []string{"lab-12"}, ">lab-01</a>")
	has(t, body, `All <b class="num">1</b>`)
	_, body = get("/sessions?search=nobody")
	has(t, body, "No session fits", `value="nobody"`)
	if code, body := get("/sessions?search=by:telnet"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "is no by; there are: ipxe, os") || !strings.Contains(body, "lab-12") {
		t.Errorf("a search that is none answers %d", code)
	}
	if code, body := post("/sessions/drop", "session", "7"); code != http.StatusUnprocessableEntity || len(l.dropped) != 0 || !strings.Contains(body, "Nothing was dropped") {
		t.Errorf("what nobody agreed to answers %d", code)
	}
	if code, body := post("/sessions/drop", "session", "7", "sure", "yes"); code != http.StatusOK || fmt.Sprint(l.dropped) != "[7]" || !strings.Contains(body, "The session was dropped; a machine") || strings.Contains(body, ">lab-01</a>") {
		t.Errorf("dropping answers %d, dropped %v", code, l.dropped)
	}
	if code, _ := post("/sessions/drop", "session", "7", "sure", "yes"); code != http.StatusNotFound {
		t.Errorf("one that is gone answers %d", code)
	}
	l.logged = nil
	_, body = get("/sessions")
	has(t, body, "Nobody is logged in")
}

func TestLeasesSayWhoHasWhichAddressAndAreDropped(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/leases")
	has(t, body, `<a class="name" href="/machines/3">lab-03</a>`, "switch tor, port Gi0/3 (VLAN 12)", "d4:5d:64:b1:0a:11", "somebody else uses it", "by the relay 10.9.0.1", "not enrolled",
		`<a href="/leases?show=bound">In use <b class="num">1</b></a>`, `Expired <b class="num">1</b>`)
	_, body = get("/leases?sort=expires")
	before(t, body, []string{"10.77.0.99<", "10.77.0.140<", "10.77.0.112<", "10.77.0.103<"})
	_, body = get("/leases?show=expired")
	before(t, body, []string{"10.77.0.99<"}, "10.77.0.103<")
	has(t, body, `name="show" value="expired"`, `hx-get="/leases?show=expired"`, `<a href="/leases?show=expired" aria-current="true">`)
	_, body = get("/leases?search=port:gi0/3")
	before(t, body, []string{"10.77.0.103<"}, "10.77.0.99<")
	if code, body := get("/leases?search=state:broken"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there are: bound, offered, declined, expired") {
		t.Errorf("a search that is none answers %d", code)
	}
	if code, body := post("/leases/drop", "address", "10.77.0.103"); code != http.StatusUnprocessableEntity || len(l.dropped) != 0 || !strings.Contains(body, "10.77.0.103 is in use") {
		t.Errorf("an address that is in use answers %d", code)
	}
	post("/leases/drop", "address", "10.77.0.103", "sure", "yes")
	if code, body := post("/leases/drop", "address", "10.77.0.99"); code != http.StatusOK || fmt.Sprint(l.dropped) != "[10.77.0.103 10.77.0.99]" || !strings.Contains(body, "The lease of 10.77.0.99 was dropped") {
		t.Errorf("dropping answers %d, dropped %v", code, l.dropped)
	}
	if code, _ := post("/leases/drop", "address", "here"); code != http.StatusUnprocessableEntity {
		t.Errorf("no address answers %d", code)
	}
	_, body = get("/leases?show=offered&sort=mac")
	has(t, body, `value="10.77.0.140"><input type="hidden" name="show" value="offered"><input type="hidden" name="sort" value="mac">`)
	_, body = post("/leases/drop", "address", "10.77.0.199", "show", "offered", "sort", "mac")
	before(t, body, []string{"10.77.0.140<"}, "10.77.0.112<")
	l.refuse = &store.Error{Kind: store.KindUnavailable, Msg: "the disk is full"}
	if code, body := post("/leases/drop", "address", "10.77.0.112"); code != http.StatusServiceUnavailable || !strings.Contains(body, "The disk is full") || !strings.Contains(body, "10.77.0.112<") {
		t.Errorf("a refusal answers %d", code)
	}
	l.leased = nil
	_, body = get("/leases")
	has(t, body, "No address was given yet", `href="/settings#network"`)
}

func TestAListThatCannotBeReadSaysWhy(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	l.broken = &store.Error{Kind: store.KindUnavailable, Msg: "the disk does not answer"}
	for _, path := range []string{"/leases", "/jobs", "/activity", "/audit", "/export/leases", "/export/audit", "/activity?search=lab"} {
		if code, body := get(path); code != http.StatusServiceUnavailable || !strings.Contains(body, "The disk does not answer") || !strings.Contains(body, "That is not possible now") {
			t.Errorf("%s answers %d", path, code)
		}
	}
}

func TestThePageOfAMachineLeadsToItsSessionsAndItsLease(t *testing.T) {
	l := full()
	l.jobs = worked()
	l.machines[2].Address = netip.Addr{}
	l.past = append(l.past, *tried(store.OutcomeUp, 7, 0))
	l.past[len(l.past)-1].ID, l.past[len(l.past)-1].Machine, l.past[len(l.past)-1].Name = 2, 3, "lab-03"
	get, _ := l.enter(t)
	_, body := get("/machines/1")
	has(t, body, "Logged in now", `href="/sessions?search=machine%3Alab-01"`, "read 1 GiB, wrote 3 MiB")
	_, body = get("/machines/3")
	has(t, body, `<a href="/leases?search=machine%3Alab-03">10.77.0.103</a>`)
	has(t, body, `href="/activity?search=machine%3Alab-03">All</a>`, `href="/machines/labels?id=3"`)
	_, volumes := get("/volumes")
	has(t, volumes, `href="/jobs">All jobs</a>`)
	_, code := get("/help/LB-LUN-01")
	has(t, code, `href="/activity?search=code%3ALB-LUN-01"`)
	if strings.Contains(body, "Logged in now") {
		t.Error("a machine without a session has one")
	}
}

// worked is a job in each state.
func worked() []store.Job {
	return []store.Job{
		{ID: 4, Kind: "volume.import", Subject: "debian12", State: store.JobRunning, Done: 1 << 30, Total: 4 << 30, Started: noon.Add(-time.Minute)},
		{ID: 3, Kind: "volume.flatten", Subject: "lab-07", State: store.JobFailed, Error: "the file system is full", Total: 64 << 30, Started: noon.Add(-time.Hour), Finished: noon.Add(-30 * time.Minute)},
		{ID: 2, Kind: "volume.export", Subject: "spare", State: store.JobDone, Done: 8 << 30, Total: 8 << 30, Started: noon.Add(-2 * time.Hour), Finished: noon.Add(-time.Hour)},
		{ID: 1, Kind: "volume.promote", Subject: "win11", State: store.JobCanceled, Started: noon.Add(-26 * time.Hour), Finished: noon.Add(-25 * time.Hour)},
	}
}

func TestJobsAreListedAndCanceled(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/jobs")
	has(t, body, "No jobs yet", "imports, exports, copies of media, clones for many machines, promotions, flattening and merges of layers")
	l.jobs = worked()
	_, body = get("/jobs")
	has(t, body, ">What for</a>", "Importing", "1 GiB of 4 GiB", "The file system is full", `<a href="/jobs?show=failed">Failed <b class="num">1</b></a>`, "Canceled", `aria-label="Cancel: Importing debian12"`)
	_, body = get("/jobs?show=failed&search=full")
	before(t, body, []string{"lab-07"}, "debian12")
	_, body = get("/jobs?sort=-started")
	before(t, body, []string{">win11", ">spare", ">lab-07", ">debian12"})
	if code, _ := get("/jobs?search=state:x"); code != http.StatusUnprocessableEntity {
		t.Errorf("a search that is none answers %d", code)
	}
	if code, body := post("/jobs/cancel", "job", "4"); code != http.StatusOK || !strings.Contains(body, "told to end") {
		t.Errorf("canceling answers %d", code)
	}
	if code, _ := post("/jobs/cancel", "job", "x"); code != http.StatusNotFound {
		t.Errorf("no job answers %d", code)
	}
	l.refuse = store.Conflict("job", "it has ended")
	if code, body := post("/jobs/cancel", "job", "3"); code != http.StatusConflict || !strings.Contains(body, "It has ended") {
		t.Errorf("a refusal answers %d", code)
	}
}

func TestTwoThousandLeasesAndSessionsComeByPages(t *testing.T) {
	l := full()
	l.leased, l.logged = nil, nil
	for n := range 2000 {
		l.leased = append(l.leased, store.Lease{Address: netip.AddrFrom4([4]byte{10, 78, byte(n >> 8), byte(n)}), MAC: store.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)}, State: store.LeaseBound, Expires: noon.Add(time.Duration(n) * time.Second)})
		l.logged = append(l.logged, store.Session{ID: fmt.Sprint("s", n), Initiator: store.IQN(fmt.Sprintf("iqn.2026-11.lab:%04d", n)), Since: noon, LastIO: noon})
	}
	get, _ := l.enter(t)
	for path, want := range map[string]string{
		"/leases?sort=-expires&from=1900": "1901–1999 of 1999", // the first one is over
		"/sessions?sort=initiator":        "1–100 of 2000",
	} {
		if strings.HasPrefix(path, "/leases") {
			path += "&show=bound"
		}
		began := time.Now()
		_, body := get(path)
		has(t, body, want)
		t.Logf("%s took %s, %d bytes", path, time.Since(began), len(body))
	}
}
