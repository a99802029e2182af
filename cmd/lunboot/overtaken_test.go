package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// overtaker stands between the command line and an appliance. Before it hands a
// change on, it lets somebody else change the same.
type overtaker struct {
	*httptest.Server
	first func()          // what somebody else does; once
	by    map[string]bool // condition, method and path of the changes that came with one
}

func overtake(t *testing.T, a *testAppliance) *overtaker {
	o := &overtaker{by: map[string]bool{}}
	to, err := url.Parse("http://lunboot")
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Transport: socketClient(a.dir).Transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			for _, condition := range []string{"If-Match", "If-None-Match"} {
				if r.Header.Get(condition) != "" {
					o.by[condition+" "+r.Method+" "+r.URL.Path] = true
				}
			}
			if first := o.first; first != nil {
				o.first = nil
				first()
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

// lunboot is a verb by way of the overtaker.
func (o *overtaker) lunboot(in string, args ...string) (code int, out, errs string) {
	var so, se bytes.Buffer
	code = run(context.Background(), nil, append([]string{"--server", o.URL}, args...), strings.NewReader(in), &so, &se)
	return code, so.String(), se.String()
}

// Two people at the command line do not overwrite each other: whoever comes
// second is told what the first one did, and changes nothing.
func TestAVerbThatIsOvertakenChangesNothingAndSaysSo(t *testing.T) {
	a := started(t, dataDir(t))
	o := overtake(t, a)
	for _, verb := range []string{
		"machine add m1 --mac 02:00:00:00:00:01", "volume create v1 --size 8M", "mapping add m1 v1 --lun 0", "volume create g1 --size 8M", "volume freeze g1",
		"volume clone g1 c1", "volume snapshot c1 s1", "volume create v2 --size 8M", "profile set p1 --kind local", "subnet add --prefix 10.88.0.0/24 --mode off",
		"oidc set --issuer https://sso.example.org --client-id lunboot --default-role viewer",
	} {
		a.must(t, strings.Fields(verb)...)
	}
	for _, u := range [2][2]string{{"anna", "admin"}, {"u1", "viewer"}} {
		if code, _, errs := o.lunboot("a long password\n", "user", "add", u[0], "--role", u[1]); code != exitDone {
			t.Fatal(errs)
		}
	}
	n := 0
	note := func(noun string) string { n++; return fmt.Sprintf("machine set %s --notes note-%d", noun, n) }
	toggled := map[string]bool{}
	toggle := func(verb, flag string) string {
		toggled[verb] = !toggled[verb]
		if toggled[verb] {
			return verb + " --" + flag
		}
		return verb + " --no-" + flag
	}
	sanitize := func(volume string) string { return toggle("volume set "+volume, "sanitize") }
	golden := func() string { n++; return fmt.Sprintf("volume versions g1 1 --note note-%d", n) }
	local := func() string { n++; return fmt.Sprintf("profile set p1 --kind local --field drive=%d", 128+n%8) }
	domain := func() string { n++; return fmt.Sprintf("subnet set 10.88.0.0/24 --domain d%d.example", n) }
	role := func() string {
		toggled["role"] = !toggled["role"]
		return "user set u1 --role " + map[bool]string{true: "operator", false: "viewer"}[toggled["role"]]
	}
	provider := func() string { n++; return fmt.Sprintf("oidc set --name sso-%d", n) }
	for _, tt := range []struct{ verb, other, noun, in string }{
		{"machine set m1 --notes mine", note("m1"), "machine m1", ""},
		{"machine boot m1 --once local", note("m1"), "machine m1", ""},
		{"machine remove m1", note("m1"), "machine m1", ""},
		{"volume set v1 --shared", sanitize("v1"), "volume v1", ""},
		{"volume resize v1 16M", sanitize("v1"), "volume v1", ""},
		{"volume freeze v2", sanitize("v2"), "volume v2", ""},
		{"volume remove v2", sanitize("v2"), "volume v2", ""},
		{"volume snapshot c1 s2", sanitize("c1"), "volume c1", ""},
		{"volume snapshot c1 s1 --remove", sanitize("c1"), "volume c1", ""},
		{"volume rollback c1 s1", sanitize("c1"), "volume c1", ""},
		{"volume promote c1", sanitize("c1"), "volume c1", ""},
		{"volume flatten c1", sanitize("c1"), "volume c1", ""},
		{"volume versions g1 1 --note mine", golden(), "volume g1", ""},
		{"volume versions g1 1 --remove", golden(), "volume g1", ""},
		{"mapping set m1 0 --lun 4", toggle("mapping set m1 0", "read-only"), "mapping of LUN 0 of m1", ""},
		{"mapping remove m1 0", toggle("mapping set m1 0", "read-only"), "mapping of LUN 0 of m1", ""},
		{"profile set p1 --kind local --field drive=200", local(), "profile p1", ""},
		{"profile remove p1", local(), "profile p1", ""},
		{"setting set capture on", "setting set capture off", "setting capture", ""},
		{"machine auto --add d4:5d:64", "machine auto --add 00:07:e9", "setting auto-enroll", ""},
		{"subnet set 10.88.0.0/24 --domain mine.example", domain(), "subnet 10.88.0.0/24", ""},
		{"subnet remove 10.88.0.0/24", domain(), "subnet 10.88.0.0/24", ""},
		{"user set u1 --role admin", role(), "user u1", ""},
		{"user password u1", role(), "user u1", "another password\n"},
		{"user remove u1", role(), "user u1", ""},
		{"oidc set --name mine", provider(), "oidc provider", ""},
		{"oidc remove", provider(), "oidc provider", ""},
	} {
		o.first = func() { a.must(t, strings.Fields(tt.other)...) }
		code, out, errs := o.lunboot(tt.in, strings.Fields(tt.verb)...)
		if code != exitFailed || out != "" || !strings.Contains(errs, tt.noun+" was changed by somebody meanwhile") || !strings.Contains(errs, "since then ") {
			t.Errorf("lunboot %s, while somebody did %s: %d %q %q", tt.verb, tt.other, code, out, errs)
		}
		if o.first != nil {
			t.Errorf("lunboot %s changed nothing at all", tt.verb)
		}
	}
	// What the losers wanted is nowhere.
	all := a.must(t, "audit", "--limit", "1000")
	if out := a.must(t, "machine", "show", "m1"); strings.Contains(out, "mine") || strings.Contains(out, "Next boot only") {
		t.Errorf("the machine is\n%s", out)
	}
	for _, mine := range []string{"mine.example", "machine.delete", "volume.delete", "volume.rollback", "volume.promote", "volume.flatten", "16 MiB", "mapping.delete", "drive=200", "profile.delete", "d4:5d:64", "subnet.delete", "user.delete"} {
		if strings.Contains(all, mine) {
			t.Errorf("the audit log has %q of a verb that came too late:\n%s", mine, all)
		}
	}
	// One that nobody saw, since there was none.
	o.first = func() { a.must(t, strings.Fields("profile set p2 --kind local --field drive=128")...) }
	code, out, errs := o.lunboot("", strings.Fields("profile set p2 --kind local --field drive=200")...)
	if code != exitFailed || out != "" || !strings.Contains(errs, "profile p2 exists already (it has revision 1)") || strings.Contains(a.must(t, "profile", "show", "p2"), "200") {
		t.Errorf("a profile that somebody else made meanwhile: %d %q %q", code, out, errs)
	}
	b := started(t, dataDir(t))
	first := overtake(t, b)
	first.first = func() {
		if code := run(t.Context(), nil, []string{"--data", b.dir, "password"}, strings.NewReader("the first one's password\n"), io.Discard, io.Discard); code != exitDone {
			t.Errorf("the first one: %d", code)
		}
	}
	code, out, errs = first.lunboot("the second one's password\n", "password")
	if code != exitFailed || out != "" || !strings.Contains(errs, "user admin exists already") {
		t.Errorf("a first password, when somebody else gave theirs: %d %q %q", code, out, errs)
	}
	maps.Copy(o.by, first.by)
	everyConditionIsSent(t, a, o.by)

	// The same verbs, with nobody in between, are done.
	if code, _, errs := o.lunboot("", "machine", "set", "m1", "--notes", "mine"); code != exitDone {
		t.Errorf("with nobody in between: %s", errs)
	}
}

// everyConditionIsSent holds that the command line sends If-Match and
// If-None-Match wherever the API takes them.
func everyConditionIsSent(t *testing.T, a *testAppliance, sent map[string]bool) {
	t.Helper()
	resp, err := socketClient(a.dir).Get("http://lunboot/api/openapi.json")
	require.NoError(t, err)
	defer resp.Body.Close()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ In, Name string }
		}
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&doc))
	found := 0
	for path, item := range doc.Paths {
		at := regexp.MustCompile("^" + regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/]+") + "$")
		for method, op := range item {
			for _, p := range op.Parameters {
				if p.In != "header" || p.Name != "If-Match" && p.Name != "If-None-Match" {
					continue
				}
				found++
				did := false
				for s := range sent {
					did = did || len(strings.Fields(s)) == 3 && strings.Fields(s)[0] == p.Name && strings.EqualFold(strings.Fields(s)[1], method) && at.MatchString(strings.Fields(s)[2])
				}
				if !did {
					t.Errorf("no verb was seen that sends %s to %s (%s %s)", p.Name, op.OperationID, method, path)
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d operations take If-Match", found)
	}
}

// Who looked at a thing before lunch changes it after lunch only if nobody else
// did.
func TestAVerbIsHeldToWhatWasSeen(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "machine", "add", "m1", "--mac", "02:00:00:00:00:01")
	var seen struct{ Revision int64 }
	require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "m1")), &seen))
	a.must(t, "machine", "set", "m1", "--notes", "theirs")
	by := fmt.Sprint(seen.Revision)
	for _, verb := range []string{"machine set m1 --notes mine --if-revision " + by, "machine remove m1 --if-revision " + by} {
		code, _, errs := cliIn(a.dir, strings.Fields(verb)...)
		if code != exitFailed || !strings.Contains(errs, "you saw "+by) || !strings.Contains(errs, "since then local root did machine.update notes") {
			t.Errorf("lunboot %s: %d %q", verb, code, errs)
		}
	}
	require.NoError(t, json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "m1")), &seen))
	a.must(t, "machine", "set", "m1", "--notes", "mine", "--if-revision", fmt.Sprint(seen.Revision))
	if out := a.must(t, "machine", "show", "m1"); !strings.Contains(out, "mine") {
		t.Errorf("by what was seen it is not changed: %s", out)
	}
}
