package pages

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"lunboot/web/auth"
)

// Who chose a theme gets each page in it from its first byte on: nothing is painted
// in the other one before a script has run.
func TestAPageComesInTheThemeThatWasChosen(t *testing.T) {
	l := full()
	base, _ := l.open(t)
	for value, want := range map[string]string{"dark": `<html lang="en" data-theme="dark">`, "light": `<html lang="en" data-theme="light">`, `x" onload="`: `<html lang="en">`, "": `<html lang="en">`} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/login", nil)
		must(t, err)
		if value != "" {
			req.AddCookie(&http.Cookie{Name: "lunboot_theme", Value: value})
		}
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, resp.Body.Close())
		body := string(text)
		if !strings.Contains(body, want) {
			t.Errorf("with %q the page begins with %.80s", value, body)
		}
	}
}

func TestAThemeThatWasChosenIsPaintedFirst(t *testing.T) {
	ctx := browser(t)
	l := full()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)
	signIn(t, ctx, base)
	look(t, ctx, "light", 1360)
	ground := chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines"), chromedp.WaitVisible(chromedp.CSS("#main"))))
	light, err := chromedp.Run(ctx, ground)
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS("[data-theme][aria-label]"))))
	dark, err := chromedp.Run(ctx, ground)
	must(t, err)
	if light == dark {
		t.Fatalf("the button changes nothing: %s", dark)
	}
	// Without the page's scripts it is what is painted before they run.
	_, err = chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/volumes"), chromedp.WaitVisible(chromedp.CSS("#main"))))
	if first, err := chromedp.Run(ctx, ground); err != nil || first != dark {
		t.Errorf("the next page is painted %s first, %v; %s was chosen", first, err, dark)
	}
	_, err = chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	must(t, err)
	// What an earlier version kept is taken over once.
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines"), chromedp.WaitVisible(chromedp.CSS("#main"))))
	was, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.cookie = "lunboot_theme=; Path=/; Max-Age=0"; localStorage.setItem("theme", "dark"); location.reload(); ""`))
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(`html[data-theme="dark"]`))))
	kept, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.cookie + String(localStorage.getItem("theme"))`))
	if err != nil || !strings.Contains(kept, "lunboot_theme=dark") || !strings.HasSuffix(kept, "null") {
		t.Errorf("what was kept before is %q now, %v%s", kept, err, was)
	}
}
