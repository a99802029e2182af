package pages

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"lunboot/store"
	"lunboot/web/auth"
)

// walk looks at every page that links lead to, and calls see with each.
func walk(t *testing.T, get func(string) (int, string), see func(path, body string)) (pages []string) {
	t.Helper()
	todo := []string{"/machines", "/machines/import", "/machines/labels", "/help", "/help/LB-LUN-01", "/volumes/new", "/new-profile", "/audit", "/loaders"}
	for len(todo) > 0 && len(pages) < 120 {
		path := todo[0]
		todo = todo[1:]
		if slices.Contains(pages, path) {
			continue
		}
		pages = append(pages, path)
		code, body := get(path)
		if code == http.StatusForbidden {
			t.Errorf("%s is linked and answers 403", path)
		}
		if code != http.StatusOK || !strings.Contains(body, "<!DOCTYPE html>") && !strings.Contains(body, "<!doctype html>") {
			continue
		}
		see(path, body)
		for _, m := range regexp.MustCompile(`href="(/[^"]*)"`).FindAllStringSubmatch(body, -1) {
			to, _, _ := strings.Cut(html.UnescapeString(m[1]), "?")
			if !strings.HasPrefix(to, "/static/") && !strings.HasPrefix(to, "/api/") && !strings.HasPrefix(to, "/help/") {
				todo = append(todo, to)
			}
		}
	}
	return pages
}

// forms are the paths to which a page's forms are sent.
func forms(body string) (out []string) {
	for _, m := range regexp.MustCompile(`<form method="post" action="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		out = append(out, html.UnescapeString(m[1]))
	}
	return out
}

func TestNobodyIsOfferedWhatTheyMayNotDo(t *testing.T) {
	offeredTo := map[store.Role]map[string]bool{}
	for _, role := range store.Roles() {
		l := cloning()
		l.trouble(t)
		l.kept = keptMedia()
		get, post := l.as(t, role)
		all := map[string]bool{}
		pages := walk(t, get, func(path, body string) {
			for _, action := range forms(body) {
				all[action] = true
			}
		})
		if len(pages) < 25 {
			t.Errorf("a %s finds %d pages", role, len(pages))
		}
		l.refuse = store.Conflict("", "not now")
		for action := range all {
			if action == "/logout" || strings.HasPrefix(action, "/me/") { // a wrong password is answered 403 too
				continue
			}
			if code, _ := post(action); code == http.StatusForbidden {
				t.Errorf("a %s is offered %s, which answers 403", role, action)
			}
		}
		offeredTo[role] = all
	}
	if n := len(offeredTo[store.RoleAdmin]); n < 40 {
		t.Errorf("an admin is offered %d acts", n)
	}
	for action := range offeredTo[store.RoleAdmin] {
		if scopeOf(action) == store.ScopeOperate && !offeredTo[store.RoleOperator][action] {
			t.Errorf("an operator is not offered %s", action)
		}
	}
	for action := range offeredTo[store.RoleViewer] {
		if scopeOf(action) != store.ScopeRead {
			t.Errorf("a viewer is offered %s", action)
		}
	}
}

func TestWhatAFormShowsStaysForThoseWhoMayNotSendIt(t *testing.T) {
	l := full()
	l.trouble(t)
	get, _ := l.as(t, store.RoleViewer)
	_, body := get("/machines/2")
	has(t, body, `<form class="rowform"><fieldset disabled="" class="shown">`, `<option selected="">san</option>`)
	for _, gone := range []string{"to remove it", ">Edit", "Change LUN", "Take back", "Give it a volume", "Unmap", ">Wake", "Firmware quirks"} {
		if strings.Contains(body, gone) {
			t.Errorf("a viewer sees %q", gone)
		}
	}
	if _, body = get("/machines"); strings.Contains(body, "Add by MAC") || strings.Contains(body, "Import CSV") || strings.Contains(body, `name="id"`) || !strings.Contains(body, "/machines/labels") {
		t.Error("a viewer is offered to change machines, or no labels")
	}
	l.roles["admin"] = store.RoleOperator
	_, body = get("/settings")
	has(t, body, "gives the addresses and boots the machines", "Ask the network", `<form class="mode"><fieldset disabled="" class="shown">`, `value="proxy" checked=""`)
	if strings.Contains(body, ">Save<") || strings.Contains(body, "Download a backup") {
		t.Error("an operator is offered to save networks or a backup")
	}
	l.roles["admin"] = store.RoleAdmin
	_, body = get("/settings")
	has(t, body, ">Save<", "Download a backup")
}

func TestPagesKeepTheirShapeForEverybody(t *testing.T) {
	const page = `<!DOCTYPE html><html><head></head><body><main><form method="post" action="/me/password"><button>Own</button></form><section class="card"><h2>Only this</h2><form method="post" action="/x"><button>Go</button></form></section><section class="card"><h2>Kept</h2><p>Text</p><form method="post" action="/x"><button>Go</button></form></section><details><summary>Open</summary><form method="post" action="/x"></form></details><svg viewBox="0 0 1 1"><use href="/static/i.svg#x"></use></svg></main></body></html>`
	out, err := offered([]byte(page), auth.Identity{Actor: "v", Scope: store.ScopeRead})
	must(t, err)
	const want = `<!DOCTYPE html><html><head></head><body><main><form method="post" action="/me/password"><button>Own</button></form><section class="card"><h2>Kept</h2><p>Text</p></section><svg viewBox="0 0 1 1"><use href="/static/i.svg#x"></use></svg></main></body></html>`
	if string(out) != want {
		t.Errorf("it becomes\n%s", out)
	}
	if out, err = offered([]byte(page), auth.Identity{Actor: "a", Scope: store.ScopeAdmin}); err != nil || string(out) != page {
		t.Errorf("an admin's page is touched: %v", err)
	}
}

func TestNoPageIsHeavy(t *testing.T) {
	l := cloning()
	l.machines = append(l.machines, many(2000).machines[4:]...)
	get, _ := l.enter(t)
	base, c := l.open(t)
	resp, err := c.PostForm(base+"/login", url.Values{"password": {labPassword}})
	must(t, err)
	must(t, resp.Body.Close())
	asset := map[string]int{}
	weigh := func(path string) int { // as it comes: nobody unpacks it here
		req, err := http.NewRequest(http.MethodGet, base+path, nil)
		must(t, err)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := c.Do(req)
		must(t, err)
		n := counter(0)
		_, err = io.Copy(&n, resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK || n == 0 {
			t.Errorf("%s answers %d with %d bytes", path, resp.StatusCode, n)
		}
		return int(n)
	}
	pages := walk(t, get, func(path, body string) {
		sum := weigh(path)
		for _, m := range regexp.MustCompile(`(?:href|src)="(/static/[^"#]*)`).FindAllStringSubmatch(body+`href="`+l.font(body)+`"`, -1) {
			if asset[m[1]] == 0 {
				asset[m[1]] = weigh(m[1])
			}
		}
		seen := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?:href|src)="(/static/[^"#]*)`).FindAllStringSubmatch(body+`href="`+l.font(body)+`"`, -1) {
			if !seen[m[1]] {
				sum += asset[m[1]]
				seen[m[1]] = true
			}
		}
		if sum > 100<<10 {
			t.Errorf("%s weighs %d bytes", path, sum)
		}
	})
	if len(pages) < 30 || len(asset) < 5 {
		t.Errorf("%d pages with %d files were weighed", len(pages), len(asset))
	}
}

// font is where the stylesheet's font lies: beside it.
func (l *lab) font(body string) string {
	m := regexp.MustCompile(`href="(/static/[^"]*/)lunboot.css"`).FindStringSubmatch(body)
	if m == nil {
		return ""
	}
	u, err := url.JoinPath(m[1], "inter-latin-wght-normal.woff2")
	if err != nil {
		panic(err)
	}
	return u
}

// counter counts bytes.
type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }
