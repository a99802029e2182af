package pages

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"lunboot/web/auth"
)

// keyboard is a browser that is used by its keys alone.
func keyboard(t *testing.T, l *lab) (ctx context.Context, base string) {
	t.Helper()
	ctx = browser(t)
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ = l.open(t)
	look(t, ctx, "light", 1360)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/login"), chromedp.WaitVisible(chromedp.CSS("input[name=password]"))))
	return ctx, base
}

func press(t *testing.T, ctx context.Context, keys string) {
	t.Helper()
	must(t, chromedp.Do(ctx, chromedp.KeyEvent(keys)))
}

// eval reads a text from the page, until it is want.
func eval(t *testing.T, ctx context.Context, js, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var err error
		if got, err = chromedp.Run(ctx, chromedp.Evaluate[string](js)); err == nil && got == want {
			return
		}
	}
	t.Fatalf("%s is %q, want %q", js, got, want)
}

const active = `(document.activeElement.innerText || document.activeElement.name || document.activeElement.id || "").trim()`

// tabTo presses Tab until something has the focus.
func tabTo(t *testing.T, ctx context.Context, js string) {
	t.Helper()
	for range 80 {
		on, err := chromedp.Run(ctx, chromedp.Evaluate[bool](js))
		must(t, err)
		if on {
			return
		}
		press(t, ctx, "\t")
	}
	t.Fatalf("Tab does not reach %s", js)
}

func TestAMachineIsEnrolledByKeysAlone(t *testing.T) {
	l := full()
	ctx, base := keyboard(t, l)
	tabTo(t, ctx, `document.activeElement.name === "password"`)
	press(t, ctx, labPassword)
	press(t, ctx, "\r")
	eval(t, ctx, `location.pathname`, "/machines")
	tabTo(t, ctx, `document.activeElement.getAttribute("aria-label") === "Enroll b8:27:eb:91:3c:0d"`)
	ring, err := chromedp.Run(ctx, chromedp.Evaluate[string](`getComputedStyle(document.activeElement).outlineStyle`))
	must(t, err)
	if ring != "solid" {
		t.Errorf("what has the focus is marked %s", ring)
	}
	press(t, ctx, "\r")
	eval(t, ctx, `location.pathname`, "/machines/5")
	if n := len(l.machines); n != 5 {
		t.Errorf("%d machines at %s", n, base)
	}
	// On its page it is given a volume.
	tabTo(t, ctx, `document.activeElement.name === "volume"`)
	tabTo(t, ctx, `document.activeElement.innerText === "Use this volume"`)
	press(t, ctx, " ")
	eval(t, ctx, `String(document.querySelectorAll(".lun").length)`, "1")
}

func TestAListIsMovedThroughByKeys(t *testing.T) {
	l := many(3)
	ctx, base := keyboard(t, l)
	press(t, ctx, "\t")
	tabTo(t, ctx, `document.activeElement.name === "password"`)
	press(t, ctx, labPassword)
	press(t, ctx, "\r")
	eval(t, ctx, `location.pathname`, "/machines")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines?search=lab&sort=name"), chromedp.WaitVisible(chromedp.CSS("tbody"))))
	// The waiting machines stand first, then the rows of the table.
	for _, want := range []string{"b8:27:eb:91:3c:0d", "d4:5d:64:b1:0b:02", "lab-01", "lab-03"} {
		press(t, ctx, "j")
		eval(t, ctx, active, want)
	}
	press(t, ctx, "k")
	eval(t, ctx, active, "lab-01")
	press(t, ctx, kb.ArrowDown)
	eval(t, ctx, active, "lab-03")
	press(t, ctx, kb.ArrowUp)
	eval(t, ctx, active, "lab-01")
	press(t, ctx, "x")
	eval(t, ctx, `[...document.querySelectorAll("tbody input:checked")].map(e => e.ariaLabel).join()`, "Choose lab-01")
	press(t, ctx, "x")
	eval(t, ctx, `String(document.querySelectorAll("tbody input:checked").length)`, "0")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/unknown"), chromedp.WaitVisible(chromedp.CSS("#bulk"))))
	press(t, ctx, "jx") // those who wait are ticked by it too
	eval(t, ctx, `[...document.querySelectorAll(".tray input:checked")].map(e => e.ariaLabel).join()`, "Choose b8:27:eb:91:3c:0d")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines?search=lab&sort=name"), chromedp.WaitVisible(chromedp.CSS("tbody"))))
	press(t, ctx, "/")
	eval(t, ctx, active, "search")
	// The driver types the character beside the key, which no keyboard does.
	_, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.activeElement.value = ""; 1`))
	must(t, err)
	press(t, ctx, "jx?") // what is typed is text
	eval(t, ctx, `document.activeElement.value`, "jx?")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines?search=lab-12"), chromedp.WaitVisible(chromedp.CSS("tbody"))))
	press(t, ctx, "?")
	eval(t, ctx, `String(document.getElementById("keys").open)`, "true")
	for _, v := range violations(t, ctx) {
		t.Error(v)
	}
	// They are turned off, and stay so.
	tabTo(t, ctx, `document.activeElement.matches("[data-keys]")`)
	press(t, ctx, " ")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/volumes"), chromedp.WaitVisible(chromedp.CSS("tbody"))))
	press(t, ctx, "?j")
	eval(t, ctx, `document.getElementById("keys").open + " " + document.activeElement.tagName`, "false BODY")
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`localStorage.removeItem("keys"); 1`))
	must(t, err)
	press(t, ctx, "j")
	first, err := chromedp.Run(ctx, chromedp.Evaluate[string](active))
	must(t, err)
	press(t, ctx, "\r")
	eval(t, ctx, `document.querySelector("h1").innerText.trim()`, first)
}

// What is done to machines is at hand without a scroll through all of them.
func TestALongListIsSearchedAndActedOnWhereOneIs(t *testing.T) {
	l := many(150)
	ctx, base := keyboard(t, l)
	must(t, chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("input[name=password]"), labPassword), chromedp.Click(chromedp.CSS("button.wide")), chromedp.WaitVisible(chromedp.CSS(".rail"))))
	for _, width := range []int{1360, 390} {
		look(t, ctx, "light", width)
		must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines"), chromedp.WaitVisible(chromedp.CSS("#bulk"))))
		eval(t, ctx, `String(document.querySelector("#search").getBoundingClientRect().bottom < innerHeight)`, "true")
		_, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelector("tbody .tickbox input").click(); 1`))
		must(t, err)
		eval(t, ctx, `String(document.querySelector("#bulk").getBoundingClientRect().bottom <= innerHeight)`, "true")
		shoot(t, ctx, os.Getenv("LUNBOOT_SCREENSHOTS"), fmt.Sprintf("machines-many-light-%d", width))
	}
}
