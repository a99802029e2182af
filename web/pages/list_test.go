package pages

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/auth"
)

// many is a lab with n machines more.
func many(n int) *lab {
	l := full()
	for k := range n {
		id := store.MachineID(1000 + k)
		l.machines = append(l.machines, store.Machine{ID: id, Revision: 1, Name: fmt.Sprintf("pc-%04d", k), MACs: []store.MAC{{2, 0, 0, 0, byte(k >> 8), byte(k)}}, Profile: "san"})
	}
	return l
}

func TestTheListIsSearchedSortedAndPaged(t *testing.T) {
	l := many(230)
	l.machines[10].Tags, l.machines[11].Tags, l.machines[11].Profile = []string{"room 3"}, []string{"room 3"}, "rescue"
	get, _ := l.enter(t)
	shown := func(path string) []string {
		t.Helper()
		code, body := get(path)
		if code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
		var out []string
		for _, m := range regexp.MustCompile(`class="name" href="[^"]*">([^<]*)<`).FindAllStringSubmatch(body, -1) {
			out = append(out, m[1])
		}
		return out
	}
	for path, want := range map[string][]string{
		`/machines?search=tag%3A"room+3"`:                {l.machines[10].Name, l.machines[11].Name},
		`/machines?search=tag%3A"room+3"+profile:rescue`: {l.machines[11].Name},
		"/machines?search=state:failed":                  {"lab-12"},
		"/machines?show=up&search=lab":                   {"lab-01"},
		"/machines?search=lab&sort=name":                 {"lab-01", "lab-03", "lab-08", "lab-12"},
		"/machines?search=lab&sort=-name":                {"lab-12", "lab-08", "lab-03", "lab-01"},
		"/machines?search=lab&sort=sideways":             {"lab-12", "lab-03", "lab-01", "lab-08"},
		"/machines?search=nobody":                        nil,
	} {
		if got := shown(path); !slices.Equal(got, want) {
			t.Errorf("%s shows %v, want %v", path, got, want)
		}
	}
	var all []string
	for path := "/machines?sort=name"; path != ""; {
		all = append(all, shown(path)...)
		_, body := get(path)
		path = ""
		if m := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(all) != 234 || !slices.IsSorted(all) {
		t.Errorf("the pages hold %d machines, sorted %v", len(all), slices.IsSorted(all))
	}
	_, body := get("/machines?sort=name&from=200")
	has(t, body, "201–234 of 234", `rel="prev"`, `aria-sort="ascending"`, `hx-get="/machines?from=200&amp;sort=name"`)
	if got := shown("/machines?from=9000&sort=name"); len(got) != 34 {
		t.Errorf("past the end are %d machines", len(got))
	}
	_, body = get("/machines?search=state:broken")
	has(t, body, "is no state; there are: failed", `value="state:broken"`)
}

func TestManyMachinesAreChangedAndTakenBack(t *testing.T) {
	l := many(150)
	get, post := l.enter(t)
	match := func(url string) string {
		_, body := get(url)
		m := regexp.MustCompile(`name="match" value="([^"]*)"`).FindStringSubmatch(body)
		if m == nil {
			t.Fatalf("%s has no match:\n%s", url, body)
		}
		return m[1]
	}
	seen := match("/machines?search=pc-&sort=state")
	last := &l.machines[len(l.machines)-1]
	was := last.ID
	last.ID = 9999 // another one in its place
	if code, body := post("/machines/bulk", "search", "pc-", "all", "yes", "match", seen, "act", "profile", "profile", "local"); code != http.StatusConflict || l.machines[20].Profile == "local" {
		t.Errorf("others that match are changed: %d\n%s", code, body)
	}
	last.ID = was
	undone := func(body string) (form []string) {
		for _, m := range regexp.MustCompile(`name="was" value="([^"]*)"`).FindAllStringSubmatch(body, -1) {
			form = append(form, m[1])
		}
		return form
	}
	// All that match, on every page.
	code, body := post("/machines/bulk", "search", "pc-", "sort", "name", "all", "yes", "match", seen, "act", "profile", "profile", "local")
	has(t, body, "Done for 150 machines.", ">Undo<")
	moved := 0
	for _, m := range l.machines {
		if m.Profile == "local" {
			moved++
		}
	}
	if code != http.StatusOK || moved != 150 {
		t.Errorf("%d, %d were changed", code, moved)
	}
	back := undone(body)
	l.machines[9].Revision++ // somebody goes on with one
	v := map[string][]string{"was": back}
	code, body = postValues(t, l, "/machines/undo", v)
	has(t, body, "Taken back for 149 machines.", "Not taken back")
	if code != http.StatusOK || l.machines[9].Profile != "local" || l.machines[10].Profile != "san" {
		t.Errorf("%d: taken back are %q and %q", code, l.machines[9].Profile, l.machines[10].Profile)
	}
	// Those that are ticked.
	if _, body = post("/machines/bulk", "id", "1001", "act", "tag", "value", "gpu"); !slices.Equal(l.machines[5].Tags, []string{"gpu"}) {
		t.Errorf("the tags are %v", l.machines[5].Tags)
	}
	if back = undone(body); len(back) != 1 {
		t.Fatalf("it can be taken back by %v", back)
	}
	if postValues(t, l, "/machines/undo", map[string][]string{"was": back}); len(l.machines[5].Tags) != 0 {
		t.Errorf("the tags are %v", l.machines[5].Tags)
	}
	for name, form := range map[string][]string{
		"nothing ticked":  {"act", "tag", "value", "x"},
		"nothing to do":   {"id", "1001", "act", ""},
		"others by now":   {"all", "yes", "match", "12", "act", "tag", "value", "x"},
		"nothing typed":   {"id", "1001", "act", "remove"},
		"no number typed": {"id", "1001", "act", "remove", "sure", "remove"},
		"another number":  {"id", "1001", "act", "remove", "sure", "remove 2"},
		"never asked":     {"id", "1001", "act", "remove", "sure", "remove 1"},
	} {
		if code, _ := post("/machines/bulk", form...); code < 400 || len(l.machines) != 154 {
			t.Errorf("%s: %d, %d machines", name, code, len(l.machines))
		}
	}
	_, body = post("/machines/bulk", "id", "1001", "act", "remove")
	has(t, body, "Remove 1 machine?", "Their volumes stay", "<b>remove 1</b>", l.machines[5].Name)
	if code, _ := post("/machines/bulk", "id", "1001", "act", "remove", "sure", "remove 1", "seen", seenOf(t, body)); code != http.StatusOK || len(l.machines) != 153 {
		t.Errorf("removing: %d, %d machines", code, len(l.machines))
	}
	if len(l.removed) != 1 || store.KindOf(l.removed[0]) != store.KindStale {
		t.Errorf("one that was changed meanwhile would be removed: %v", l.removed)
	}
	for _, was := range []string{"", "x", "1:2:3", "a:b:profile:san", "1:1:password:x"} {
		if _, body := post("/machines/undo", "was", was); !strings.Contains(body, "Not taken back") {
			t.Errorf("%q is taken back", was)
		}
	}
}

func postValues(t *testing.T, l *lab, path string, form map[string][]string) (int, string) {
	t.Helper()
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", map[string][]string{"password": {labPassword}})
	must(t, err)
	resp.Body.Close()
	resp, err = c.PostForm(base+path, form)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

func TestTheListIsExported(t *testing.T) {
	l := full()
	l.machines[1].Notes = `=HYPERLINK("http://x")`
	get, _ := l.enter(t)
	code, body := get("/machines/export?search=lab-1")
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if code != http.StatusOK || err != nil || len(rows) != 2 || rows[1][0] != "lab-12" || rows[1][1] != "d4:5d:64:b1:09:7c" || rows[1][13] != "failed" {
		t.Errorf("%d %v\n%s", code, err, body)
	}
	if !strings.HasPrefix(rows[1][8], "'=") {
		t.Errorf("a table program would run %q", rows[1][8])
	}
}

// BenchmarkTwoThousandMachines is the server's time for the list's page over a
// real inventory; 50 ms are the goal.
func BenchmarkTwoThousandMachines(b *testing.B) {
	db, err := sqlite.Open(b.Context(), b.TempDir(), time.Now)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	l := full()
	for k := range 2000 {
		m := store.Machine{Name: fmt.Sprintf("pc-%04d", k), MACs: []store.MAC{{2, 0, 0, 1, byte(k >> 8), byte(k)}}, Profile: "san", Auth: store.AuthNone, Initiator: store.IQN(fmt.Sprintf("iqn.2026-11.lunboot:pc-%04d", k)), Tags: []string{"lab", "room 3"}}
		if m, err = db.CreateMachine(b.Context(), "bench", m); err != nil {
			b.Fatal(err)
		}
		a := tried(store.OutcomeUp, 7, 0)
		a.ID, a.Machine = store.AttemptID(100+k), m.ID
		l.latest[m.ID] = *a
		if err := db.PutLease(b.Context(), store.Lease{Address: netip.AddrFrom4([4]byte{10, 78, byte(k >> 8), byte(k)}), MAC: m.MACs[0], State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}); err != nil {
			b.Fatal(err)
		}
		l.logged = append(l.logged, store.Session{ID: fmt.Sprint("s", k), Machine: m.ID, Initiator: m.Initiator, Since: noon, LastIO: noon})
	}
	s := &site{Config: Config{Inventory: db, Attempts: l, Sessions: l, Changes: []Change{&tick{}}, Status: func(context.Context) Status { return Status{OK: true} }, Log: slog.New(slog.DiscardHandler), Now: time.Now}}
	if s.assets, err = loadAssets(); err != nil {
		b.Fatal(err)
	}
	if s.views, err = parseViews(s.functions()); err != nil {
		b.Fatal(err)
	}
	for path, serve := range map[string]http.HandlerFunc{
		"/machines": s.machines, "/machines?search=tag:lab+pc-1&sort=-name&from=300": s.machines,
		"/leases?search=machine:pc-1&sort=-expires&show=bound": s.leases, "/sessions?search=pc-1&sort=initiator&from=300": s.sessions,
	} {
		b.Run(path, func(b *testing.B) {
			began := spent(b)
			for b.Loop() {
				w := &quiet{h: http.Header{}}
				r, err := http.NewRequestWithContext(signedIn(b), "GET", path, nil)
				if err != nil {
					b.Fatal(err)
				}
				if serve(w, r); w.status != http.StatusOK || w.n < 10_000 {
					b.Fatalf("%d, %d bytes", w.status, w.n)
				}
			}
			// What a machine that others share adds to the clock is not ours.
			b.ReportMetric(float64((spent(b)-began).Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// spent is the processor's time of this process.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tick is something that has changed at every look.
type tick struct{ n int64 }

func (t *tick) Version() int64                { t.n++; return t.n }
func (t *tick) Changed(int64) <-chan struct{} { return nil }

// signedIn is the context of an admin.
func signedIn(b *testing.B) context.Context {
	return auth.With(b.Context(), auth.Identity{Actor: "admin", Scope: store.ScopeAdmin})
}

// quiet is an answer that nobody reads.
type quiet struct {
	h      http.Header
	status int
	n      int
}

func (q *quiet) Header() http.Header         { return q.h }
func (q *quiet) WriteHeader(status int)      { q.status = status }
func (q *quiet) Write(b []byte) (int, error) { q.n += len(b); return len(b), nil }
