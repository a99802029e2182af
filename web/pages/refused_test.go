package pages

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lunboot/store"
	"lunboot/web/auth"
)

// Every form that is refused comes back as it was filled in, and says at which
// field, in the form that was sent and in no other.
func TestARefusedFormComesBackAsItWasFilledIn(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		form   []string
		refuse error
		want   []string
		times  map[string]int
	}{
		"an empty volume": {"/volumes", []string{"name", "plain", "size", "huge", "block_size", "4096", "shared", "1"}, nil,
			[]string{`<input class="num" name="size" value="huge" required="" autocomplete="off" aria-invalid="true" aria-describedby="fault-size" autofocus=""/>`, `<option value="4096" selected="">`, `name="shared" value="1" checked=""`, `<p class="fault" id="fault-size">`},
			map[string]int{`value="plain"`: 1, "aria-invalid": 1}},
		"a device": {"/volumes/attach", []string{"name", "vg", "path", "/dev/x", "direct", "1"}, store.Invalid("path", "there is no /dev/x"),
			[]string{`value="/dev/x"`, `name="direct" value="1" checked=""`, `id="fault-path">There is no /dev/x.</p>`}, map[string]int{`value="vg"`: 1}},
		"a token":               {"/people/tokens", []string{"name", "ci", "scope", "admin", "days", "many"}, nil, []string{`value="ci"`, `<option value="admin" selected="">`, `value="many"`, `id="fault-days"`}, nil},
		"a clone":               {"/volumes/5/clone", []string{"name", "c 1", "reset", "1", "machine", "4"}, store.Invalid("name", "a name has no space"), []string{`value="c 1"`, `name="reset" value="1" checked=""`, `<option value="4" selected="">`, `id="fault-name"`}, map[string]int{"aria-invalid": 1}},
		"what is not sent back": {"/people", []string{"name", "anna", "role", "viewer", "password", "short"}, nil, []string{`value="anna"`, `id="fault-password"`}, map[string]int{`value="short"`: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			l := cloning()
			_, post := l.enter(t)
			l.refuse = c.refuse
			code, body := post(c.path, c.form...)
			if code != http.StatusUnprocessableEntity {
				t.Errorf("it answers %d", code)
			}
			has(t, body, c.want...)
			for what, n := range c.times {
				if got := strings.Count(body, what); got != n {
					t.Errorf("%s stands there %d times, want %d", what, got, n)
				}
			}
		})
	}
	// A file cannot be sent back, what was typed beside it can.
	l := full()
	code, body := l.uploadTo(t, "/media", "name", "fedora")
	if code != http.StatusUnprocessableEntity || !strings.Contains(body, `value="fedora"`) || !strings.Contains(body, `id="fault-file"`) {
		t.Errorf("an upload without a file answers %d", code)
	}
}

func TestFormsAreReadableByEverybody(t *testing.T) {
	ctx := browser(t)
	l := cloning()
	l.served()
	l.kept = keptMedia()
	l.settings = map[string]string{"webhook-url": "https://hooks.a-rather-long-name.example.org/T0/x", "webhook-secret": "twelve letters and more"}
	l.secure = Certificate{On: true, SelfMade: true, Ends: noon.AddDate(1, 0, 0), Fingerprint: strings.Repeat("AB:", 31) + "AB"}
	l.tokens = []store.Token{{ID: 1, Name: "backup-script", Scope: "admin", Expires: noon.AddDate(0, 3, 0)}}
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)
	signIn(t, ctx, base)
	shots := os.Getenv("LUNBOOT_SCREENSHOTS")
	press := func(sel string) func(*testing.T) {
		return func(t *testing.T) {
			_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](fmt.Sprintf(`document.querySelector(%q).click() ?? true`, sel)))
			must(t, err)
		}
	}
	write := func(sel, text string) func(*testing.T) {
		return func(t *testing.T) {
			must(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(sel)), chromedp.SetValue(chromedp.CSS(sel), text)))
		}
	}
	for _, c := range []struct {
		name, at string
		do       []func(*testing.T)
		see      string // waited for
		focus    string // the name of the field that has the focus then
	}{
		{"appliance", "/settings/appliance", nil, "#tls", ""},
		{"appliance-refused", "/settings/appliance", []func(*testing.T){write(`[name="space-low"]`, "lots"), press("#storage button")}, "#fault-space-low", "space-low"},
		{"subnet", "/subnets/1", nil, `[name="router"]`, ""},
		{"subnet-new", "/subnets/new", nil, `[name="prefix"]`, ""},
		{"subnet-refused", "/subnets/1", []func(*testing.T){write(`[name="router"]`, "nowhere"), press(`form[action="/subnets/1"] button`)}, "#fault-router", "router"},
		{"volume-refused", "/volumes/new", []func(*testing.T){write(`[action="/volumes"] [name="name"]`, "plain"), write(`[action="/volumes"] [name="size"]`, "huge"), press(`[action="/volumes"] button`)}, "#fault-size", "size"},
		{"profile-refused", "/profiles/install-debian", []func(*testing.T){write(`[name="text"]`, "one\nset {{what}}\nthree"), press(`#write [formaction]`)}, ".wrong-lines .bad", "text"},
		{"media-gone", "/media", []func(*testing.T){press(".gone summary")}, `.gone[open] [name="confirm"]`, ""},
		{"token-gone", "/tokens", []func(*testing.T){press(".gone summary")}, `.gone[open] [name="confirm"]`, ""},
		{"loader-gone", "/loaders", []func(*testing.T){press(".gone summary")}, `.gone[open] [name="confirm"]`, ""},
		{"snapshot-gone", "/volumes/7", []func(*testing.T){press(".gone summary")}, `.gone[open] [name="confirm"]`, ""},
	} {
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int{1360, 390} {
				t.Run(fmt.Sprintf("%s/%s/%d", c.name, theme, width), func(t *testing.T) {
					ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
					defer cancel()
					look(t, ctx, theme, width)
					must(t, chromedp.Do(ctx, chromedp.Navigate(base+c.at), chromedp.WaitVisible(chromedp.CSS("main"))))
					for _, do := range c.do {
						do(t)
					}
					must(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(c.see))))
					for _, v := range violations(t, ctx) {
						t.Error(v)
					}
					wide, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
					must(t, err)
					if wide > width {
						t.Errorf("the page is %d px wide and scrolls sideways", wide)
					}
					if c.focus != "" {
						at, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.activeElement.name ?? ""`))
						must(t, err)
						if at != c.focus {
							t.Errorf("the focus is on %q, want %q", at, c.focus)
						}
					}
					shoot(t, ctx, shots, fmt.Sprintf("%s-%s-%d", c.name, theme, width))
				})
			}
		}
	}
	t.Run("a profile is shown while it is typed", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		look(t, ctx, "light", 1360)
		must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/new-profile?kind=custom"), chromedp.WaitVisible(chromedp.CSS("#write textarea")), chromedp.SendKeys(chromedp.CSS("#write textarea"), "sanboot {{lun}}")))
		// A name is required to save, and not to look.
		must(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS("#preview h2 .when"))))
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("#preview").innerText + document.activeElement.value`))
		must(t, err)
		has(t, text, "# draft for", `"sanboot {{lun}}"`, "as typed, not saved")
		must(t, chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("#write textarea"), "\n{{what}}"), chromedp.WaitVisible(chromedp.CSS("#preview .bad mark"))))
		lost, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.getElementById("lost").hidden`))
		must(t, err)
		if !lost {
			t.Error("a text that is not finished is taken for a lost connection")
		}
		if len(l.uploads) > 0 {
			t.Errorf("looking kept %q", l.uploads)
		}
	})
}
