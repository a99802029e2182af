package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"lunboot/store"
	"lunboot/web/auth"
)

// with sends a request with a header, and returns the ETag of the answer.
func (h *house) with(header, value, method, path, body string) (answer, string) {
	h.t.Helper()
	req, err := http.NewRequest(method, h.URL+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	var tag string
	a := h.sendFor(req, func(r *http.Response) { tag = r.Header.Get("ETag") })
	return a, tag
}

// every noun with a revision, and a change of it.
func (h *house) nouns() map[string]string {
	h.must(201, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	h.must(201, "POST", "/api/v1/volumes", `{"name":"v1","size":1048576}`)
	h.must(201, "POST", "/api/v1/mappings", `{"machine":"m1","volume":"v1"}`)
	h.must(200, "PUT", "/api/v1/profiles/p1", `{"kind":"custom","text":"#!ipxe\n"}`)
	h.must(201, "POST", "/api/v1/users", `{"name":"anna","role":"admin","password":"a password"}`)
	h.must(201, "POST", "/api/v1/users", `{"name":"u1","role":"viewer","password":"a password"}`)
	var n store.Subnet
	h.must(201, "POST", "/api/v1/subnets", `{"prefix":"10.9.0.0/24","mode":"off","lease_time":3600000000000}`).json(h.t, &n)
	return map[string]string{
		"machines/m1": `{"notes":"%d"}`, "volumes/v1": `{"sanitize":%t}`, "mappings/m1/0": `{"read_only":%t}`, "profiles/p1": `{"kind":"custom","text":"#!ipxe\n# %d\n"}`,
		"users/u1": `{"role":"%s"}`, fmt.Sprintf("subnets/%d", n.ID): `{"domain":"d%d.example"}`,
	}
}

func TestAChangeOfWhatSomebodyChangedMeanwhileIsRefused(t *testing.T) {
	h := open(t)
	for noun, change := range h.nouns() {
		path, method := "/api/v1/"+noun, "PATCH"
		if strings.HasPrefix(noun, "profiles") {
			method = "PUT"
		}
		body := func(k int) string {
			switch {
			case strings.Contains(change, "%t"):
				return fmt.Sprintf(change, k%2 == 1)
			case strings.Contains(change, "%s"):
				return fmt.Sprintf(change, []string{"viewer", "operator"}[k%2])
			}
			return fmt.Sprintf(change, k)
		}
		a, first := h.with("", "", "GET", path, "")
		if a.status != 200 || first == "" {
			t.Errorf("GET %s: %d, ETag %q", noun, a.status, first)
			continue
		}
		a, second := h.with("If-Match", first, method, path, body(1))
		if a.status != 200 || second == "" || second == first {
			t.Errorf("%s by what was seen: %d, ETag %q after %q: %s", noun, a.status, second, first, a.body)
		}
		if _, again := h.with("", "", "GET", path, ""); again != second {
			t.Errorf("%s: ETag %q after a change that answered %q", noun, again, second)
		}
		for _, given := range []string{first, "W/" + second, `"x"`, "nonsense", `"0"`} {
			for _, m := range []string{method, "DELETE"} {
				a, _ = h.with("If-Match", given, m, path, map[bool]string{true: body(2)}[m == method])
				var p struct {
					Status  int
					Detail  string
					Current int64 `json:"current_revision"`
					Changes []store.Audit
				}
				if a.status != http.StatusPreconditionFailed || a.kind != "application/problem+json" {
					t.Errorf("%s %s by %q: %d %s %s", m, noun, given, a.status, a.kind, a.body)
					continue
				}
				a.json(t, &p)
				if p.Status != 412 || p.Detail == "" || fmt.Sprintf(`"%d"`, p.Current) != second || len(p.Changes) == 0 || p.Changes[0].Actor != "tester" {
					t.Errorf("%s %s by %q says %s", m, noun, given, a.body)
				}
				if given == first && len(p.Changes) != 1 {
					t.Errorf("%s: %d changes are listed, 1 was made", noun, len(p.Changes))
				}
			}
		}
		if _, again := h.with("", "", "GET", path, ""); again != second {
			t.Errorf("%s: a refused change made %q of %q", noun, again, second)
		}
		if a, _ = h.with("If-Match", first+", "+second, method, path, body(2)); a.status != 200 {
			t.Errorf("%s by a list: %d %s", noun, a.status, a.body)
		}
	}
	// Removing by what was seen, the mapping before its ends.
	for _, noun := range []string{"mappings/m1/0", "machines/m1", "volumes/v1", "profiles/p1", "users/u1"} {
		_, seen := h.with("", "", "GET", "/api/v1/"+noun, "")
		if a, _ := h.with("If-Match", seen, "DELETE", "/api/v1/"+noun, ""); a.status != 204 {
			t.Errorf("DELETE %s by %s: %d %s", noun, seen, a.status, a.body)
		}
		if a, _ := h.with("If-Match", "*", "DELETE", "/api/v1/"+noun, ""); a.status != 412 {
			t.Errorf("DELETE %s, which is gone, by *: %d", noun, a.status)
		}
	}
}

// Of many who make one thing under one name, one does; what others made stays.
func TestOneOfManyWhoMakeTheSameWins(t *testing.T) {
	h := open(t)
	var wg sync.WaitGroup
	codes := make(chan int, 16)
	for k := range cap(codes) {
		wg.Go(func() {
			a, _ := h.with("If-None-Match", "*", "PUT", "/api/v1/profiles/p1", fmt.Sprintf(`{"kind":"custom","text":"#!ipxe\n# %d\n"}`, k))
			codes <- a.status
		})
	}
	wg.Wait()
	close(codes)
	won := 0
	for c := range codes {
		if c == 200 {
			won++
		} else if c != 412 {
			t.Errorf("a loser is answered %d", c)
		}
	}
	if won != 1 {
		t.Errorf("%d of 16 made it", won)
	}
	var log struct{ Total int }
	if h.must(200, "GET", "/api/v1/audit?noun=profile", "").json(t, &log); log.Total != 1 {
		t.Errorf("it was written %d times", log.Total)
	}
	const body = `{"kind":"local"}`
	_, tag := h.with("", "", "GET", "/api/v1/profiles/p1", "")
	for given, want := range map[string]int{"*": 412, tag: 412, "W/" + tag: 412, `"99", ` + tag: 412} {
		a, _ := h.with("If-None-Match", given, "PUT", "/api/v1/profiles/p1", body)
		if a.status != want || a.kind != "application/problem+json" || !strings.Contains(string(a.body), "profile p1 exists already (it has revision 1)") {
			t.Errorf("If-None-Match: %s answers %d %s", given, a.status, a.body)
		}
	}
	if a, _ := h.with("If-None-Match", `"99"`, "PUT", "/api/v1/profiles/p1", body); a.status != 200 {
		t.Errorf("by another tag: %d %s", a.status, a.body)
	}
	// One that is built in exists too.
	if a, _ := h.with("If-None-Match", "*", "PUT", "/api/v1/profiles/san", body); a.status != 412 {
		t.Errorf("a built-in one: %d %s", a.status, a.body)
	}
	// What takes no such condition is not bound by one.
	h.must(201, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	if a, _ := h.with("If-None-Match", "*", "PATCH", "/api/v1/machines/m1", `{"notes":"x"}`); a.status != 200 {
		t.Errorf("a change of a machine: %d %s", a.status, a.body)
	}
}

// The first password makes the first admin: of two who set it up at a time, the
// second does not take the first one's name.
func TestTheFirstPasswordIsOnePersons(t *testing.T) {
	h := open(t)
	const path = "/api/v1/users/admin/password"
	if a, _ := h.with("If-None-Match", "*", "PUT", path, `{"password":"the first one's"}`); a.status != 204 {
		t.Fatalf("the first: %d %s", a.status, a.body)
	}
	before, err := h.db.User(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := h.with("If-None-Match", "*", "PUT", path, `{"password":"the second one's"}`); a.status != 412 || !strings.Contains(string(a.body), "user admin exists already") {
		t.Errorf("the second: %d %s", a.status, a.body)
	}
	if after, err := h.db.User(t.Context(), "admin"); err != nil || after.Hash != before.Hash {
		t.Errorf("it is %+v, %v", after, err)
	}
}

func TestAStrangerLearnsNoRevision(t *testing.T) {
	h := open(t)
	h.nouns()
	h.as = auth.Identity{}
	if a, tag := h.with("If-Match", `"77"`, "PATCH", "/api/v1/machines/m1", `{}`); a.status != 401 || tag != "" || strings.Contains(string(a.body), "revision") {
		t.Errorf("%d %q %s", a.status, tag, a.body)
	}
}

// Of many who saw the same state, one changes it.
func TestOneOfManyWhoSawTheSameWins(t *testing.T) {
	h := open(t)
	h.nouns()
	_, seen := h.with("", "", "GET", "/api/v1/machines/m1", "")
	var wg sync.WaitGroup
	codes := make(chan int, 16)
	for k := range cap(codes) {
		wg.Go(func() {
			a, _ := h.with("If-Match", seen, "PATCH", "/api/v1/machines/m1", fmt.Sprintf(`{"notes":"by %d"}`, k))
			codes <- a.status
		})
	}
	wg.Wait()
	close(codes)
	won := 0
	for c := range codes {
		if c == 200 {
			won++
		} else if c != 412 {
			t.Errorf("a loser is answered %d", c)
		}
	}
	if won != 1 {
		t.Errorf("%d of 16 won", won)
	}
}

// Whoever comes too late is told what changed, and not what else was done with the
// machine meanwhile.
func TestARefusalListsOnlyWhatChangedTheNoun(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"m1","macs":["00:0c:29:00:00:01"]}`)
	for _, v := range []string{"v1", "v2"} {
		h.must(201, "POST", "/api/v1/volumes", `{"name":"`+v+`","size":1048576}`)
		h.must(201, "POST", "/api/v1/mappings", `{"machine":"m1","volume":"`+v+`"}`)
	}
	refused := func(method, path, tag, body string) (actions []string) {
		t.Helper()
		a, _ := h.with("If-Match", tag, method, path, body)
		var p struct{ Changes []store.Audit }
		if a.status != http.StatusPreconditionFailed {
			t.Fatalf("%s answers %d %s", path, a.status, a.body)
		}
		a.json(t, &p)
		for _, c := range p.Changes {
			actions = append(actions, c.Action+" "+c.Detail)
		}
		return actions
	}
	_, tag := h.with("", "", "GET", "/api/v1/machines/m1", "")
	h.must(200, "PATCH", "/api/v1/machines/m1", `{"serial":"S7"}`)
	for _, act := range store.PassingActs() {
		if err := h.db.Record(t.Context(), "bob", act, "m1", "on"); err != nil {
			t.Fatal(err)
		}
	}
	if got := refused("PATCH", "/api/v1/machines/m1", tag, `{"serial":"S8"}`); !slices.Equal(got, []string{"machine.update serial S7"}) {
		t.Errorf("it lists %q", got)
	}
	_, tag = h.with("", "", "GET", "/api/v1/mappings/m1/0", "")
	h.must(200, "PATCH", "/api/v1/mappings/m1/0", `{"read_only":true}`)
	h.must(200, "PATCH", "/api/v1/mappings/m1/1", `{"read_only":true}`)
	if got := refused("PATCH", "/api/v1/mappings/m1/0", tag, `{"read_only":false}`); len(got) != 1 || !strings.HasPrefix(got[0], "mapping.update LUN 0 is volume v1") {
		t.Errorf("it lists %q", got)
	}
}
