package pages

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lunboot/store"
	"lunboot/web/auth"
)

// gate stands before an appliance and can be shut, as when that is stopped or a
// cable is pulled: connections end, and new ones are refused.
type gate struct {
	addr, to string
	mu       sync.Mutex
	listener net.Listener
	through  map[net.Conn]bool
	wg       sync.WaitGroup
}

func newGate(t *testing.T, base string) *gate {
	t.Helper()
	g := &gate{addr: "127.0.0.1:0", to: strings.TrimPrefix(base, "http://"), through: map[net.Conn]bool{}}
	g.open(t)
	t.Cleanup(func() { g.shut(); g.wg.Wait() })
	return g
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", g.addr)
	must(t, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener, g.addr = l, l.Addr().String()
	g.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", g.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			g.mu.Lock()
			g.through[in], g.through[out] = true, true
			g.mu.Unlock()
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				g.wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_, _ = way[0].Close(), way[1].Close()
				})
			}
		}
	})
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = g.listener.Close()
	for c := range g.through {
		_ = c.Close()
	}
	clear(g.through)
}

// inhabited is an appliance with somebody who may log in.
func inhabited(t *testing.T) (l *lab, base string) {
	t.Helper()
	l = full()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ = l.open(t)
	return l, base
}

// logged is a tab with somebody logged in, at a page.
func logged(t *testing.T, ctx context.Context, base, path string) {
	t.Helper()
	look(t, ctx, "light", 1360)
	signIn(t, ctx, base)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+path), chromedp.WaitVisible(chromedp.CSS("main"))))
	eval(t, ctx, `String(Boolean(document.querySelector("#live")?._htmx?.sse))`, "true")
}

const (
	lostBar = `document.querySelector("#lost").hidden ? "" : document.querySelector("#lost").innerText.replace(/\d+:\d+:\d+( [AP]M)?/, "TIME").trim()`
	foot    = `document.querySelector("#state").innerText.trim()`
)

func TestAPageSaysThatItIsNoLongerConnectedAndCatchesUp(t *testing.T) {
	l, base := inhabited(t)
	g := newGate(t, base)
	ctx := browser(t)
	logged(t, ctx, "http://"+g.addr, "/machines/3")
	eval(t, ctx, foot, "All services running")
	g.shut()
	eval(t, ctx, lostBar, "Not connected to the appliance. This page shows what was known at TIME; it goes on by itself.")
	eval(t, ctx, foot, "Not connected")
	l.mu.Lock()
	a := *tried(store.OutcomeUp, 7, 0)
	a.ID, a.Machine = 13, 3
	l.latest[3] = a
	l.mu.Unlock()
	l.touch()
	g.open(t)
	eval(t, ctx, lostBar, "")
	eval(t, ctx, foot, "All services running")
	eval(t, ctx, `String(document.querySelector("#boot").innerText.includes("Operating system up"))`, "true")
}

// What an appliance that was started anew counts from the beginning never looks like
// what the page has.
func TestAPageOfAnEarlierProcessIsOld(t *testing.T) {
	c := &rising{n: 1}
	one, other := &site{Config: Config{Changes: []Change{c}}, process: processName()}, &site{Config: Config{Changes: []Change{c}}, process: processName()}
	if one.version() == other.version() {
		t.Errorf("both are of version %s", one.version())
	}
}

func TestAPageSaysThatItsLoginHasEnded(t *testing.T) {
	l, base := inhabited(t)
	ctx := browser(t)
	logged(t, ctx, base, "/machines/3")
	logins, err := l.auth.Logins(t.Context(), "admin")
	must(t, err)
	for _, login := range logins {
		must(t, l.auth.EndLogin(t.Context(), "", login.ID))
	}
	eval(t, ctx, lostBar, "You are logged out here. This page shows what was known at TIME. Log in")
	eval(t, ctx, `document.querySelector("#lost a").getAttribute("href")`, "/login?next=%2Fmachines%2F3")
}

func TestAPageOfAMachineThatIsGoneSaysSo(t *testing.T) {
	l, base := inhabited(t)
	ctx := browser(t)
	logged(t, ctx, base, "/machines/3")
	must(t, l.RemoveMachine(context.Background(), "anna", 3, false))
	l.touch()
	eval(t, ctx, `String(document.querySelector("main").innerText.includes("There is no machine"))`, "true")
}

// A browser has six connections: a window more than that would wait for ever. The
// tabs of a headless browser are all looked at.
func TestNineWindowsAreServed(t *testing.T) {
	l, base := inhabited(t)
	first := browser(t)
	logged(t, first, base, "/machines/3")
	tabs := []context.Context{first}
	for len(tabs) < 9 {
		ctx, closeTab := chromedp.NewContext(first)
		defer closeTab()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/3"), chromedp.WaitVisible(chromedp.CSS("#boot"))))
		tabs = append(tabs, ctx)
	}
	l.mu.Lock()
	a := *tried(store.OutcomeUp, 7, 0)
	a.ID, a.Machine = 13, 3
	l.latest[3] = a
	l.mu.Unlock()
	l.touch()
	for _, ctx := range tabs {
		eval(t, ctx, `String(document.querySelector("#boot").innerText.includes("Operating system up"))`, "true")
	}
}

// A tab that was not looked at has no stream, and catches up.
func TestAHiddenPageCatchesUp(t *testing.T) {
	l, base := inhabited(t)
	ctx := browser(t)
	logged(t, ctx, base, "/machines/3")
	look := func(hidden bool) {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[int](fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %t, configurable: true}); document.dispatchEvent(new Event("visibilitychange")); 1`, hidden)))
		must(t, err)
	}
	look(true)
	l.mu.Lock()
	a := *tried(store.OutcomeUp, 7, 0)
	a.ID, a.Machine = 13, 3
	l.latest[3] = a
	l.mu.Unlock()
	l.touch()
	time.Sleep(time.Second)
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("#boot").innerText`))
	must(t, err)
	if strings.Contains(text, "Operating system up") {
		t.Fatal("a page that nobody sees is refreshed")
	}
	look(false)
	eval(t, ctx, `String(document.querySelector("#boot").innerText.includes("Operating system up"))`, "true")
}

// On plain HTTP a browser keeps the clipboard from pages.
func TestCopyWorksWhereABrowserTrustsNoPage(t *testing.T) {
	_, base := inhabited(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(base, "http://"))
	must(t, err)
	ctx := browser(t)
	logged(t, ctx, "http://"+net.JoinHostPort(labHost, port), "/machines/3")
	secure, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`isSecureContext || Boolean(navigator.clipboard)`))
	must(t, err)
	if secure {
		t.Fatal("the browser trusts the page")
	}
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`document.addEventListener("copy", () => { window.taken = String(getSelection()) }); 1`))
	must(t, err)
	must(t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(`[data-copy="iqn"]`))))
	eval(t, ctx, `String(document.querySelector('[data-copy="iqn"]').classList.contains("copied") && window.taken === document.querySelector("#iqn").textContent)`, "true")
}

// The stream tells who is not logged in so, and leads nowhere.
func TestAStreamWithoutALoginIsRefused(t *testing.T) {
	l := full()
	l.enter(t)
	base, c := l.open(t)
	resp, err := c.Get(base + livePath)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("it answers %d", resp.StatusCode)
	}
}
