package pages

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// From a list to a thing of it and back, the list is as it was looked at.
func TestAThingLeadsBackToItsListAsItWas(t *testing.T) {
	l := many(230)
	l.happen(t, lived()...)
	get, post := l.enter(t)
	for list, items := range map[string]map[string]string{
		"/machines?from=100&search=pc&sort=-name": {"/machines/2": "", "/machines/2/explain": "", "/machines/import": ""},
		"/volumes?search=debian&sort=-size":       {"/volumes/2": "", "/volumes/new": ""},
		"/unknown?search=raspberry&sort=seen":     {"/unknown/b8:27:eb:91:3c:0d": ""},
		"/profiles?search=kind%3Ainstall":         {"/profiles/install-debian": ""},
		"/leases?show=declined&sort=mac":          {"/machines/3": "Back to Leases"},
		"/sessions?search=lab":                    {"/machines/1": "Back to Sessions"},
		"/events?machine=2&show=error":            {"/machines/2": "Back to Events"},
		"/mappings?search=lun%3A2":                {"/machines/1": "Back to LUN mappings", "/volumes/2": "Back to LUN mappings"},
		"/activity?show=failed":                   {"/machines/1": "Back to Attempts"},
	} {
		for item, words := range items {
			if code, _ := get(list); code != http.StatusOK {
				t.Errorf("%s answers %d", list, code)
			}
			_, body := get(item)
			has(t, body, `href="`+strings.ReplaceAll(list, "&", "&amp;")+`"`, words)
		}
	}
	// What is done on a thing's page in between changes nothing of that.
	get("/machines?search=lab&sort=-name")
	get("/machines/1")
	post("/machines/1/rename", "name", "lab-02")
	_, body := get("/machines/1")
	has(t, body, `href="/machines?search=lab&amp;sort=-name"`)
	if code, to := post("/machines/1/remove", "confirm", l.machines[0].Name); code != http.StatusSeeOther || to != "/machines?search=lab&sort=-name" {
		t.Errorf("a machine that goes leads to %d %s", code, to)
	}
	get("/volumes?search=spare")
	if code, to := post("/volumes/4/remove", "confirm", "spare"); code != http.StatusSeeOther || to != "/volumes?search=spare" {
		t.Errorf("a volume that goes leads to %d %s", code, to)
	}
	// Another list is from its beginning, and so is one that was looked at anew.
	_, body = get("/machines/2")
	has(t, body, `<a href="/machines">Machines</a>`, `href="/volumes?search=spare">Back to Volumes</a>`)
	get("/machines")
	_, body = get("/machines/2")
	has(t, body, `<a href="/machines">Machines</a>`)
	if strings.Contains(body, "Back to") {
		t.Error("there is nothing else to go back to")
	}
}

// What an act on many was done to is shown again afterwards, on the same page, and
// so it is when it was taken back.
func TestAnActOnManyLeavesTheListAsItWas(t *testing.T) {
	l := many(230)
	get, post := l.enter(t)
	_, body := get("/machines?from=100&search=pc&sort=-name")
	has(t, body, `<input type="hidden" name="from" value="100">`, `all 230 that match`)
	_, body = post("/machines/bulk", "act", "tag", "value", "x", "id", "1100", "search", "pc", "sort", "-name", "from", "100")
	has(t, body, "Done for 1 machine.", "101–200 of 230", `name="back" value="/machines?from=100&amp;search=pc&amp;sort=-name"`)
	_, body = post("/machines/undo", "was", "1100:2:tags:", "back", "/machines?from=100&search=pc&sort=-name")
	has(t, body, "101–200 of 230")
	_, body = post("/volumes/bulk", "act", "read-only", "id", "4", "search", "spare", "sort", "-size")
	has(t, body, `name="back" value="/volumes?search=spare&amp;sort=-size"`)
	// One of the new ones is ignored, and the list of them stays.
	_, body = get("/unknown?search=uefi&sort=-seen")
	has(t, body, `/ignore"><input type="hidden" name="list" value="unknown"><input type="hidden" name="search" value="uefi"><input type="hidden" name="sort" value="-seen">`)
	_, body = post("/unknown/b8:27:eb:91:3c:0d/ignore", "list", "unknown", "search", "uefi", "sort", "-seen")
	has(t, body, "is ignored", `<h1>New machines</h1>`, `name="back" value="/unknown?search=uefi&amp;sort=-seen"`, `value="uefi"`)
	if code, to := post("/machines/undo", "was", "4:1:read-only:false", "back", "/volumes?search=spare&sort=-size"); code != http.StatusSeeOther || to != "/volumes?search=spare&sort=-size" {
		t.Errorf("taking it back leads to %d %s", code, to)
	}
}

func TestOnlyAListOfOursIsGoneBackTo(t *testing.T) {
	for text, want := range map[string]string{
		"/machines?search=lab&sort=-name": "/machines?search=lab&sort=-name", "/volumes": "/volumes", "/leases?show=%22%3E%3Cscript%3E": "/leases?show=%22%3E%3Cscript%3E",
		"//evil.example/machines": "", "https://evil.example/machines": "", "/machines/../logout": "", "/logout": "", "/machines?%zz": "", "": "", "/machines?search=" + strings.Repeat("x", maxListCookie): "",
	} {
		if got := listAt(text).URL(); got != want {
			t.Errorf("%.60s leads to %s, not %s", text, got, want)
		}
		r := httptest.NewRequest(http.MethodGet, "/machines/1", nil)
		r.Header.Set("Cookie", listCookie+"="+text)
		if got := cameFrom(r).URL(); got != want && !strings.ContainsAny(text, `";\`) {
			t.Errorf("a cookie %.60s leads to %s", text, got)
		}
	}
	kept := func(r *http.Request, list string) string {
		w := httptest.NewRecorder()
		keepList(w, r, list)
		return w.Header().Get("Set-Cookie")
	}
	r := httptest.NewRequest(http.MethodGet, "/machines", nil)
	list := tableQuery{Path: "/machines", Search: `tag:"room 3", "x;y" \ ü`, From: 100}.URL()
	if c := kept(r, list); !strings.Contains(c, "HttpOnly") || !strings.Contains(c, "SameSite=Lax") || strings.Contains(c, "Secure") || strings.Contains(c, "Expires") {
		t.Errorf("the cookie is %s", c)
	} else if c, err := http.ParseSetCookie(c); err != nil || listAt(c.Value).URL() != list {
		t.Errorf("it comes back as %+v, %v", c, err)
	}
	if kept(r, "") != "" || kept(r, "/machines?search="+url.QueryEscape(strings.Repeat("x", maxListCookie))) != "" {
		t.Error("a page that is no list is kept, or one that no browser would")
	}
	r.Header.Set("HX-Request", "true")
	if kept(r, list) != "" {
		t.Error("what a page fetches by itself takes the place of what somebody looks at")
	}
}

// Every list has a name to go back by.
func TestEveryListOfTheHelpIsGoneBackTo(t *testing.T) {
	for _, list := range helpLists() {
		if list.Path != "/audit" && listAt(list.Path).URL() != list.Path { // changes lead to nothing
			t.Errorf("nobody comes back to %s", list.Path)
		}
	}
}
