package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

// unconditional are the operations on one thing that take no If-Match, with the
// reason: there is no state that two people could edit over each other.
var unconditional = map[string]string{
	"fix-attempt":         "a boot that ended does not change; the fix looks at the machine as it is",
	"wake-machine":        "a packet is sent, nothing is changed",
	"set-power":           "as wake-machine: what its BMC is told is no state that is kept here",
	"cancel-job":          "a job has no state that is edited; it runs or does not",
	"drop-lease":          "a lease is made by packets; it is there or not",
	"drop-session":        "a session is made by an initiator; it is there or not",
	"end-login":           "a login has no state that is edited",
	"remove-token":        "a token never changes; its number is given once",
	"remove-loader":       "a loader never changes but by another upload of its name, which an If-Match on a removal would not see coming",
	"remove-chain-loader": "as remove-loader",
	"remove-media":        "bytes of a medium never change",
	"upload-media":        "bytes arrive once, for what has none",
	"upload-volume":       "bytes arrive once, for what has none",
	"append-upload":       "Upload-Offset is its condition",
	"finish-upload":       "done once: an upload that is finished is gone",
	"remove-upload":       "an upload is its sender's alone",
	"append-media-upload": "Upload-Offset is its condition",
	"finish-media-upload": "done once: an upload that is finished is gone",
	"remove-media-upload": "an upload is its sender's alone",
	"enroll-machine":      "done once: an unknown machine that is enrolled is none any more",
	"ignore-machine":      "one bit, which is what the request says whatever it was",
	"clone-volume":        "makes another volume; that which is cloned stays as it is",
	"check-volume":        "reads",
}

// makesByPut are the operations that make what is not there, under the name in
// their path; every other PUT has a reason why it makes nothing.
var (
	makesByPut  = map[string]bool{"set-profile": true, "set-password": true}
	alwaysThere = map[string]string{
		"set-setting":     "a setting has a default, and a revision before anybody chose",
		"set-auto-enroll": "as set-setting",
		"set-oidc":        "there is one provider, or none, under one revision",
		"ignore-machine":  "of what asked to boot; nothing is made of what did not",
	}
)

// single is an operation on one thing: its path names it.
func single(path string) bool {
	return strings.Contains(path, "{") || path == "/api/v1/auto-enroll" || path == "/api/v1/oidc"
}

func TestEveryChangeOfOneThingIsConditionalOrHasAReason(t *testing.T) {
	h := open(t)
	doc, err := openapi3.NewLoader().LoadFromData(h.must(http.StatusOK, "GET", "/api/openapi.json", "").body)
	if err != nil {
		t.Fatal(err)
	}
	declares := func(op *openapi3.Operation, header string) bool {
		return op.Parameters.GetByInAndName("header", header) != nil
	}
	seen := map[string]bool{}
	walked := 0
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			id := op.OperationID
			seen[id] = true
			if method == http.MethodGet {
				continue
			}
			walked++
			reason, excused := unconditional[id]
			switch conditional := declares(op, "If-Match"); {
			case !single(path) && conditional:
				t.Errorf("%s %s makes a thing and takes If-Match", method, path)
			case single(path) && conditional == excused:
				t.Errorf("%s %s (%s) takes If-Match: %t; its reason not to: %q", method, path, id, conditional, reason)
			case conditional && op.Responses.Value("412") == nil:
				t.Errorf("%s takes If-Match and does not say 412", id)
			}
			if _, makes := makesByPut[id]; makes != declares(op, "If-None-Match") || method == http.MethodPut && !makes && alwaysThere[id] == "" {
				t.Errorf("%s %s (%s) takes If-None-Match: %t; is what it sets always there?", method, path, id, !makes)
			}
			if declares(op, "Idempotency-Key") != (method == http.MethodPost) {
				t.Errorf("%s %s: POST is not idempotent by itself, the others are; it takes Idempotency-Key: %t", method, path, declares(op, "Idempotency-Key"))
			}
		}
	}
	if walked < 50 {
		t.Errorf("only %d operations change something", walked)
	}
	for id := range unconditional {
		if !seen[id] {
			t.Errorf("the list excuses %s, which is gone", id)
		}
	}
}

// Whoever asks too often is refused before an operation is looked up, whichever
// it is.
func TestEveryOperationIsBehindTheRateLimit(t *testing.T) {
	const most = 5
	h := openWith(t, api.Rates{Known: 1 << 20, Stranger: most})
	doc, err := openapi3.NewLoader().LoadFromData(h.must(http.StatusOK, "GET", "/api/openapi.json", "").body)
	if err != nil {
		t.Fatal(err)
	}
	h.as = auth.Identity{}
	for range most {
		h.with("", "", "GET", "/api/v1/machines", "")
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			at := strings.NewReplacer("{", "", "}", "").Replace(path)
			if a, _ := h.with("", "", method, at, ""); a.status != http.StatusTooManyRequests || a.kind != "application/problem+json" {
				t.Errorf("%s %s: %d %s", method, path, a.status, a.kind)
			}
		}
	}
}

// What is done to a volume or a person is refused when somebody changed it
// meanwhile, as an edit of it is.
func TestAnActOnWhatSomebodyChangedMeanwhileIsRefused(t *testing.T) {
	h := open(t)
	h.nouns()
	h.must(201, "POST", "/api/v1/volumes", `{"name":"g1","size":1048576}`)
	h.must(200, "POST", "/api/v1/volumes/g1/freeze", `{}`)
	h.must(201, "POST", "/api/v1/volumes/g1/clone", `{"name":"c1"}`)
	h.must(201, "POST", "/api/v1/volumes/c1/snapshots", `{"name":"s1"}`)
	h.must(201, "POST", "/api/v1/volumes", `{"name":"v2","size":1048576}`)
	acts := []struct{ on, method, path, body string }{
		{"volumes/v2", "POST", "/freeze", `{}`},
		{"volumes/c1", "POST", "/snapshots", `{"name":"s2"}`},
		{"volumes/c1", "DELETE", "/snapshots/s1", ""},
		{"volumes/c1", "POST", "/rollback", `{"to":"s2"}`},
		{"volumes/c1", "POST", "/promote", `{}`},
		{"volumes/c1", "POST", "/flatten", `{}`},
		{"volumes/g1", "PATCH", "/versions/1", `{"note":"x"}`},
		{"volumes/g1", "DELETE", "/versions/1", ""},
		{"users/u1", "PUT", "/password", `{"password":"another password"}`},
	}
	for _, act := range acts {
		path := "/api/v1/" + act.on
		_, before := h.with("", "", "GET", path, "")
		for _, given := range []string{`"999"`, "W/" + before} {
			a, _ := h.with("If-Match", given, act.method, path+act.path, act.body)
			if a.status != http.StatusPreconditionFailed || a.kind != "application/problem+json" {
				t.Errorf("%s %s by %s: %d %s", act.method, path+act.path, given, a.status, a.body)
			}
		}
		if _, after := h.with("", "", "GET", path, ""); after != before {
			t.Errorf("%s %s: what was refused made %s of %s", act.method, path+act.path, after, before)
		}
	}
	// By what was seen they are done. Making and removing a snapshot, in a row.
	for _, act := range acts[:3] {
		path := "/api/v1/" + act.on
		_, before := h.with("", "", "GET", path, "")
		if a, _ := h.with("If-Match", before, act.method, path+act.path, act.body); a.status >= 300 {
			t.Errorf("%s %s by what was seen: %d %s", act.method, path+act.path, a.status, a.body)
		}
	}
	_, before := h.with("", "", "GET", "/api/v1/users/u1", "")
	if a, _ := h.with("If-Match", before, "PUT", "/api/v1/users/u1/password", `{"password":"another password"}`); a.status >= 300 {
		t.Errorf("a password by what was seen: %d %s", a.status, a.body)
	}
	if a, _ := h.with("If-Match", before, "PUT", "/api/v1/users/u1/password", `{"password":"a third password"}`); a.status != 412 {
		t.Errorf("a password twice by the same: %d %s", a.status, a.body)
	}
}

func TestASettingThatSomebodyChangedMeanwhileIsNotChanged(t *testing.T) {
	h := open(t)
	for path, values := range map[string][]string{
		"/api/v1/settings/capture":        {`{"value":"off"}`, `{"value":"on"}`, `{"value":"off"}`},
		"/api/v1/settings/webhook-secret": {`{"value":"a secret of many"}`, `{"value":"another secret"}`, `{"value":""}`},
		"/api/v1/auto-enroll":             {`{"rules":[{"prefix":"d4:5d:64","limit":4}]}`, `{"rules":[]}`, `{"rules":[{"prefix":"00:07:e9","limit":4}]}`},
	} {
		a, first := h.with("", "", "GET", path, "")
		if a.status != 200 || first == "" {
			t.Errorf("GET %s: %d, ETag %q", path, a.status, first)
			continue
		}
		if strings.Contains(string(a.body), "many") {
			t.Errorf("a secret is shown: %s", a.body)
		}
		if a, _ := h.with("If-Match", first, "PUT", path, values[0]); a.status >= 300 {
			t.Fatalf("PUT %s by what was seen: %d %s", path, a.status, a.body)
		}
		_, second := h.with("", "", "GET", path, "")
		h.must(map[bool]int{true: 200, false: 204}[strings.HasSuffix(path, "auto-enroll")], "PUT", path, values[1])
		var p struct {
			Detail  string
			Changes []store.Audit
		}
		for given, changes := range map[string]int{first: 2, second: 1} {
			a, _ := h.with("If-Match", given, "PUT", path, values[2])
			if a.status != 412 {
				t.Errorf("PUT %s by %s: %d %s", path, given, a.status, a.body)
				continue
			}
			a.json(t, &p)
			if len(p.Changes) != changes || p.Detail == "" || slices.ContainsFunc(p.Changes, func(c store.Audit) bool {
				return c.Action != "setting.put" || strings.Contains(fmt.Sprint(c), "secret of")
			}) {
				t.Errorf("PUT %s by %s tells of %+v", path, given, p)
			}
		}
		// Another setting's change is none of this one's.
		_, now := h.with("", "", "GET", path, "")
		h.must(204, "PUT", "/api/v1/settings/space-low", fmt.Sprintf(`{"value":"%d%%"}`, 20+len(path)))
		if a, _ := h.with("If-Match", now, "PUT", path, values[2]); a.status >= 300 {
			t.Errorf("PUT %s after another setting changed: %d %s", path, a.status, a.body)
		}
	}
	if a, _ := h.with("", "", "GET", "/api/v1/settings/target", ""); a.status != 404 {
		t.Errorf("what the appliance keeps for itself: %d %s", a.status, a.body)
	}
}

// A name that is also a word of a path would hide what bears it: the router gives
// such a path to the operation that spells it out.
func TestNoNameHidesBehindAWordOfAPath(t *testing.T) {
	h := open(t)
	doc, err := openapi3.NewLoader().LoadFromData(h.must(http.StatusOK, "GET", "/api/openapi.json", "").body)
	if err != nil {
		t.Fatal(err)
	}
	byMethod := map[string][]string{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			byMethod[method] = append(byMethod[method], path)
		}
	}
	param := func(word string) bool { return strings.HasPrefix(word, "{") }
	compared := 0
	for method, paths := range byMethod {
		for _, one := range paths {
			for _, other := range paths {
				a, b := strings.Split(one, "/"), strings.Split(other, "/")
				hides, fits := false, len(a) == len(b)
				for i := 0; fits && i < len(a); i++ {
					hides = hides || !param(a[i]) && param(b[i])
					fits = a[i] == b[i] || param(a[i]) || param(b[i])
				}
				if compared++; fits && hides {
					t.Errorf("%s %s stands before %s: what is called by that word cannot be reached", method, one, other)
				}
			}
		}
	}
	if compared < 1000 {
		t.Errorf("only %d pairs of paths were compared", compared)
	}
	// The words that once were such.
	for i, name := range []string{"export", "import", "enroll", "attach", "new"} {
		h.must(201, "POST", "/api/v1/machines", fmt.Sprintf(`{"name":%q,"macs":["00:0c:29:00:01:%02x"]}`, name, i))
		h.must(201, "POST", "/api/v1/volumes", fmt.Sprintf(`{"name":%q,"size":1048576}`, name))
		var m, v struct{ Name string }
		h.must(200, "GET", "/api/v1/machines/"+name, "").json(t, &m)
		h.must(200, "GET", "/api/v1/volumes/"+name, "").json(t, &v)
		if m.Name != name || v.Name != name {
			t.Errorf("machine %s is shown as %+v, its volume as %+v", name, m, v)
		}
		h.must(204, "DELETE", "/api/v1/machines/"+name, "")
		h.must(204, "DELETE", "/api/v1/volumes/"+name, "")
	}
}
