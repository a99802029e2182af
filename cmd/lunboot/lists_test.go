package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"lunboot/services/iscsi/iscsitest"
	"lunboot/store"
	"lunboot/store/sqlite"
)

// entered is the appliance's pages for somebody who has set its password.
func entered(t *testing.T, a *testAppliance) func(path string, form url.Values) (status int, body string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	ask := func(path string, form url.Values) (int, string) {
		t.Helper()
		send := func() (*http.Response, error) { return c.Get("http://" + a.Admin + path) }
		if form != nil {
			send = func() (*http.Response, error) { return c.PostForm("http://"+a.Admin+path, form) }
		}
		resp, err := send()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	code := regexp.MustCompile(`code=(\w{4}-\w{4})`).FindStringSubmatch(a.log.String())
	if code == nil {
		t.Fatal("there is no code for the first run")
	}
	if status, body := ask("/setup", url.Values{"code": {code[1]}, "password": {"correct horse battery"}}); status != http.StatusOK {
		t.Fatalf("the first run answers %d\n%s", status, body)
	}
	return ask
}

// Who is logged in is listed with the machine's name, and a session that somebody
// drops ends: on record is whose it was.
func TestASessionIsListedWithItsMachineAndDropped(t *testing.T) {
	const name = "iqn.2026-11.lab:lab1"
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "v1", "--size", "8M")
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5", "--auth", "none", "--iqn", name)
	a.must(t, "mapping", "add", "lab1", "v1", "--lun", "1")
	i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: name, Target: a.Target, ISID: iscsitest.Linux(1)})
	out := a.must(t, "session", "list", "machine:lab1 by:os")
	row := regexp.MustCompile(`(?m)^(\S+) +lab1 +` + regexp.QuoteMeta(name) + ` +OS `).FindStringSubmatch(out)
	if row == nil {
		t.Fatalf("it lists\n%s", out)
	}
	if out := a.must(t, "session", "list", "by:ipxe"); strings.Contains(out, name) {
		t.Errorf("it is no iPXE:\n%s", out)
	}
	a.must(t, "session", "drop", row[1])
	if _, err := i.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}); err == nil {
		t.Error("a session that was dropped answers")
	}
	if out := a.must(t, "session", "list"); strings.Contains(out, name) {
		t.Errorf("it still lists\n%s", out)
	}
	if out := a.must(t, "audit", "--search", "what:session "+name); !strings.Contains(out, "session.drop") {
		t.Errorf("on record is\n%s", out)
	}
	// The same from its page.
	ask := entered(t, a)
	again := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: name, Target: a.Target, ISID: iscsitest.Linux(1)})
	_, page := ask("/sessions?search=machine:lab1", nil)
	id := regexp.MustCompile(`name="session" value="([^"]*)"`).FindStringSubmatch(page)
	if id == nil || !strings.Contains(page, name) {
		t.Fatalf("the page is\n%s", page)
	}
	if status, page := ask("/sessions/drop", url.Values{"session": {id[1]}, "sure": {"yes"}}); status != http.StatusOK || strings.Contains(page, name) {
		t.Errorf("dropping it answers %d", status)
	}
	if _, err := again.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}); err == nil {
		t.Error("a session that was dropped answers")
	}
	if out := a.must(t, "audit", "--search", "who:admin what:session.drop"); !strings.Contains(out, name) {
		t.Errorf("on record is\n%s", out)
	}
	if _, table := ask("/export/audit?search=what:session.drop&format=json", nil); strings.Count(table, `"what": "session.drop"`) != 2 {
		t.Errorf("the table is\n%s", table)
	}
}

// A golden volume goes after what was cloned from it, though it was listed first,
// and what a machine has stays.
func TestManyVolumesAreDeletedFromThePage(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "a-golden", "--size", "8M")
	a.must(t, "volume", "freeze", "a-golden")
	a.must(t, "volume", "clone", "a-golden", "b-clone")
	a.must(t, "volume", "snapshot", "b-clone", "s1")
	a.must(t, "volume", "create", "c-used", "--size", "8M")
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	a.must(t, "mapping", "add", "lab1", "c-used")
	ask := entered(t, a)
	_, page := ask("/volumes", nil)
	match := regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(page)
	if match == nil {
		t.Fatalf("the page is\n%s", page)
	}
	form := url.Values{"act": {"remove"}, "all": {"yes"}, "match": {match[1]}}
	if _, page = ask("/volumes/bulk", form); !strings.Contains(page, "This deletes 2 volumes for good") || !strings.Contains(page, "c-used stays: lab1 has it") {
		t.Errorf("it asks\n%s", page)
	}
	seen := regexp.MustCompile(`name="seen" value="([^"]*)"`).FindStringSubmatch(page)
	if seen == nil {
		t.Fatalf("the question is\n%s", page)
	}
	form.Set("seen", seen[1])
	form.Set("sure", "remove 2")
	if status, page := ask("/volumes/bulk", form); status != http.StatusOK || !strings.Contains(page, "Done for 2 volumes.") {
		t.Errorf("it answers %d\n%s", status, page)
	}
	if out := a.must(t, "volume", "list"); strings.Contains(out, "a-golden") || strings.Contains(out, "b-clone") || !strings.Contains(out, "c-used") {
		t.Errorf("left are\n%s", out)
	}
	// Read-only and back, by what the page says.
	_, page = ask("/volumes/bulk", url.Values{"act": {"read-only"}, "id": {"3"}})
	was := regexp.MustCompile(`name="was" value="([^"]*)"`).FindStringSubmatch(page)
	if out := a.must(t, "volume", "show", "c-used"); was == nil || !strings.Contains(out, "Read-only") {
		t.Fatalf("it is\n%s", out)
	}
	ask("/machines/undo", url.Values{"was": {was[1]}, "back": {"/volumes"}})
	if out := a.must(t, "volume", "show", "c-used"); strings.Contains(out, "Read-only") {
		t.Errorf("it is still\n%s", out)
	}
}

// What has expired goes, what is in use goes by the operator's word, and what a
// machine runs from stays: by the command line, and from the page.
func TestManyLeasesAreDroppedAndOneThatAMachineRunsFromStays(t *testing.T) {
	const name = "iqn.2026-11.lab:lab1"
	dir := dataDir(t)
	db, err := sqlite.Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	lease := func(addr string, n byte, expires time.Duration) {
		t.Helper()
		if err := db.PutLease(t.Context(), store.Lease{Address: netip.MustParseAddr(addr), MAC: store.MAC{2, 0, 0, 0, 0, n}, State: store.LeaseBound, Expires: time.Now().Add(expires)}); err != nil {
			t.Fatal(err)
		}
	}
	lease("127.0.0.1", 1, time.Hour) // where its session comes from
	for n := range byte(6) {
		lease(fmt.Sprintf("10.77.0.%d", 100+n), 100+n, map[bool]time.Duration{true: time.Hour, false: -time.Hour}[n < 3])
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a := started(t, dir)
	a.must(t, "volume", "create", "v1", "--size", "8M")
	a.must(t, "machine", "add", "lab1", "--mac", "02:00:00:00:00:01", "--auth", "none", "--iqn", name)
	a.must(t, "mapping", "add", "lab1", "v1", "--lun", "1")
	i := iscsitest.Login(t, netip.MustParseAddrPort(a.Portal), iscsitest.Options{Name: name, Target: a.Target, ISID: iscsitest.Linux(1)})

	if out := a.must(t, "lease", "drop", "--search", "10.77", "--dry-run"); strings.Count(out, "would forget the lease") != 3 || strings.Count(out, "10.77.0.100 is in use: its machine goes on using it") != 1 {
		t.Errorf("a dry run says\n%s", out)
	}
	if out := a.must(t, "lease", "drop", "--expired", "--search", "10.77.0.103"); out != "forgot the lease of 10.77.0.103\n" {
		t.Errorf("it says %q", out)
	}
	code, out, errs := cliIn(dir, "--json", "lease", "drop", "10.77.0.101", "10.77.0.104", "127.0.0.1")
	if code != exitFailed || !strings.Contains(out, `"dropped": 1`) || !strings.Contains(errs, "2 of 3 leases were not dropped") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, _, errs := cliIn(dir, "lease", "drop", "127.0.0.1"); code != exitFailed || !strings.Contains(errs, name+" has its volume open from 127.0.0.1; its session has to end first") {
		t.Errorf("%d %s", code, errs)
	}
	if out := a.must(t, "lease", "drop", "10.77.0.101", "10.77.0.102", "--in-use"); !strings.Contains(out, "forgot the lease of 10.77.0.102, which is in use") {
		t.Errorf("it says %q", out)
	}
	ask := entered(t, a)
	_, page := ask("/leases", nil)
	over := regexp.MustCompile(`name="expired" value="yes"><input type="hidden" name="match" value="([^"]*)"><button>Drop the one that has expired<`).FindStringSubmatch(page)
	all := regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(page)
	if over == nil || all == nil || !strings.Contains(page, "its volume is open") {
		t.Fatalf("the page is\n%s", page)
	}
	if status, page := ask("/leases/bulk", url.Values{"act": {"drop"}, "expired": {"yes"}, "match": {over[1]}}); status != http.StatusOK || !strings.Contains(page, "Done for 1 lease.") {
		t.Errorf("it answers %d\n%s", status, page)
	}
	_, page = ask("/leases", nil)
	all = regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(page)
	form := url.Values{"act": {"drop"}, "all": {"yes"}, "match": {all[1]}}
	_, page = ask("/leases/bulk", form)
	seen := regexp.MustCompile(`name="seen" value="([^"]*)"`).FindStringSubmatch(page)
	if seen == nil || !strings.Contains(page, "127.0.0.1, lab1, stays: its volume is open from there") {
		t.Fatalf("the question is\n%s", page)
	}
	form.Set("seen", seen[1])
	form.Set("sure", "drop 1")
	if status, page := ask("/leases/bulk", form); status != http.StatusOK || !strings.Contains(page, "Done for 1 lease.") || !strings.Contains(page, "Not done for 1 lease. 127.0.0.1: ") {
		t.Errorf("it answers %d\n%s", status, page)
	}
	if out := a.must(t, "lease", "list"); !strings.Contains(out, "127.0.0.1") || strings.Contains(out, "10.77") {
		t.Errorf("left are\n%s", out)
	}
	if _, err := i.Do(iscsitest.Command{LUN: iscsitest.LUN(1), CDB: make([]byte, 6)}); err != nil {
		t.Errorf("the machine is disturbed: %v", err)
	}
	if out := a.must(t, "audit", "--search", "what:lease.drop"); strings.Count(out, "lease.drop") != 6 {
		t.Errorf("on record are\n%s", out)
	}
}

// Whoever follows what fits a search hears of nothing else.
func TestOnlyEventsThatFitAreFollowed(t *testing.T) {
	a := started(t, dataDir(t))
	for n, name := range []string{"m1", "m2"} {
		a.must(t, "machine", "add", name, "--mac", fmt.Sprintf("02:00:00:00:00:%02x", n+1))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lunboot/api/v1/events?search=machine:m2+kind:machine.changed", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask.Header.Set("Accept", "text/event-stream")
	answer, err := socketClient(a.dir).Do(ask)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	in := bufio.NewScanner(answer.Body)
	in.Scan() // it has begun: what happens from here on is told
	a.must(t, "machine", "set", "m1", "--notes", "not this")
	a.must(t, "machine", "set", "m2", "--notes", "this")
	for in.Scan() {
		data, ok := strings.CutPrefix(in.Text(), "data: ")
		if !ok {
			continue
		}
		if !strings.Contains(data, `"hostname":"m2"`) {
			t.Errorf("it tells of %s", data)
		}
		return
	}
	t.Errorf("it ends: %v", in.Err())
}
