package pages

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"lunboot/store"
	"lunboot/web/auth"
)

//go:embed testdata/axe.min.js
var axeSource string

// labHost is a name of this machine that a browser does not take for it: what is
// loaded from there over HTTP is no secure context, as in a lab.
const labHost = "lunboot.test"

// browser starts a headless Chromium. Without one the test is skipped on a
// laptop and fails in CI: a skipped browser is a hole that nobody sees.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is missing: apt-get install chromium")
		}
		t.Skip("chromium is missing: apt-get install chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", false),
		chromedp.Flag("host-resolver-rules", "MAP "+labHost+" 127.0.0.1"))
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute) // hundreds of looks, on a machine that others share
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	ctx, closeTab := chromedp.NewContext(ctx, chromedp.WithListener(func(ev any) {
		if text := complaint(ev); text != "" {
			t.Error("the browser complains: " + text)
		}
	}))
	t.Cleanup(func() { closeTab(); stop(); cancel() })
	return ctx
}

// complaint is what a browser has against a page: faults of scripts, and what the
// page's own policy forbids. An answer that is no success is the page's business, and
// so is a stream that ended, of which htmx tells there too.
func complaint(ev any) string {
	switch e := ev.(type) {
	case *runtime.EventExceptionThrown:
		return fmt.Sprintf("%s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description)
	case *runtime.EventConsoleAPICalled:
		if text := string(e.Args[0].Value); e.Type == runtime.ConsoleAPICalledTypeError && !strings.Contains(text, "htmx:sse:error") {
			return "console.error " + text
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			return e.Entry.Text + " " + e.Entry.URL
		}
	}
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// look sets the tab's theme and width.
func look(t *testing.T, ctx context.Context, theme string, width int) {
	t.Helper()
	_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
	must(t, err)
	_, err = chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: int64(width), Height: 900, DeviceScaleFactor: 1, Mobile: width < 600})
	must(t, err)
}

// violations runs axe-core on the page.
func violations(t *testing.T, ctx context.Context) []string {
	t.Helper()
	there, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`typeof axe !== "undefined"`))
	must(t, err)
	if !there {
		_, err := chromedp.Run(ctx, chromedp.Evaluate[int](axeSource+";0"))
		must(t, err)
	}
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`axe.run(document,{runOnly:["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa","best-practice"]}).then(r=>JSON.stringify(r.violations.map(v=>v.id+": "+v.help+" "+v.nodes.map(n=>n.html.slice(0,160)+" "+(n.any[0]?n.any[0].message:"")).join(" | "))))`,
		chromedp.EvalAwaitPromise))
	must(t, err)
	var found []string
	must(t, json.Unmarshal([]byte(out), &found))
	return found
}

// small lists what a finger does not hit: targets of less than 24 px that do not
// stand in a sentence (WCAG 2.2, 2.5.8), and names in lists, which are what people
// open there, of less than 44 px. What a label belongs to is hit by the label.
func small(t *testing.T, ctx context.Context) []string {
	t.Helper()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string](`JSON.stringify([...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")].flatMap(e => {
		const sentence = e.matches("a") && getComputedStyle(e).display === "inline" && [...e.parentNode.childNodes].some(n => n.nodeType === 3 && n.textContent.trim().length > 3);
		const r = (e.matches("[type=checkbox], [type=radio]") && e.closest("label") || e).getBoundingClientRect();
		const least = e.matches("td a.name") ? 43.5 : 23.5;
		if (sentence || !e.checkVisibility() || e.matches(".skip") || !r.width || (r.width >= 23.5 && r.height >= least)) return [];
		return [Math.round(r.width) + " x " + Math.round(r.height) + " " + e.outerHTML.slice(0, 120)];
	}))`))
	must(t, err)
	var found []string
	must(t, json.Unmarshal([]byte(out), &found))
	return found
}

// shoot keeps a picture of the page, where there is a folder for them.
func shoot(t *testing.T, ctx context.Context, shots, name string) {
	t.Helper()
	if shots == "" {
		return
	}
	shot, err := chromedp.Call(ctx, cdpage.CaptureScreenshot, cdpage.CaptureScreenshotParams{CaptureBeyondViewport: new(true)})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(shots, name+".png"), shot.Data, 0o644))
}

func TestPagesAreReadableByEverybody(t *testing.T) {
	ctx := browser(t)
	first := full()
	setupURL, _ := first.open(t)
	l := cloning()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)

	shots := os.Getenv("LUNBOOT_SCREENSHOTS") // a folder to keep pictures in, for people
	// A page is opened once: colours and widths are the style sheet's matter.
	check := func(name, url string) {
		opened := false
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int{1360, 390} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, theme, width), func(t *testing.T) {
					look(t, ctx, theme, width)
					if !opened {
						must(t, chromedp.Do(ctx, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("main"))))
						opened = true
					}
					for _, v := range violations(t, ctx) {
						t.Error(v)
					}
					wide, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth`))
					must(t, err)
					if wide > width {
						t.Errorf("the page is %d px wide and scrolls sideways", wide)
					}
					if width < 600 {
						for _, s := range small(t, ctx) {
							t.Error("too small for a finger: " + s)
						}
					}
					// The bar at the foot of a phone is fixed: it makes no page wide.
					out, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(`[...document.querySelectorAll(".rail a:not(.brand), .rail button")].filter(e => e.getBoundingClientRect().right > %d).map(e => e.innerText || e.ariaLabel).join()`, width)))
					must(t, err)
					if out != "" {
						t.Errorf("out of the screen: %s", out)
					}
					shoot(t, ctx, shots, fmt.Sprintf("%s-%s-%d", name, theme, width))
				})
			}
		}
	}
	check("setup", setupURL+"/setup?code="+first.auth.Code())
	for _, name := range []string{"eth0", "eth1"} {
		_, err := first.Ask(t.Context(), name)
		must(t, err)
	}
	check("setup-asked", setupURL+"/setup?code="+first.auth.Code())
	check("login", base+"/login")
	l.provider, err = store.OIDC{
		Revision: 1, Issuer: "https://localhost:1/realms/a-rather-long-name-of-a-laboratory", ClientID: "lunboot", Secret: "hush", URL: "https://lunboot.example.org:8080", Claim: "groups",
		Roles: []store.ClaimRole{{Value: "cn=lab-admins,ou=groups,dc=example,dc=org", Role: store.RoleAdmin}},
	}.Normalize()
	must(t, err)
	check("login-provider", base+"/login?next=/machines/2")
	signIn(t, ctx, base)
	check("machines", base+"/machines")
	l.mu.Lock()
	l.machines[1].OnceProfile, l.machines[1].Tags, l.machines[1].Notes = "local", []string{"room 204", "windows"}, "the one by the door"
	l.mu.Unlock()
	check("machine-failed", base+"/machines/2")
	check("machine-edit", base+"/machines/2/edit")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/2/edit"), chromedp.WaitVisible(chromedp.CSS("#f-address")), chromedp.SetValue(chromedp.CSS("#f-address"), "10.77.0.999"), chromedp.Click(chromedp.CSS(".edit .primary")), chromedp.WaitVisible(chromedp.CSS(`#f-address[aria-invalid]`))))
	for _, v := range violations(t, ctx) {
		t.Error("an edit that is refused:", v)
	}
	shoot(t, ctx, shots, "machine-edit-refused")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/2"), chromedp.WaitVisible(chromedp.CSS(".of-lun summary")), chromedp.Click(chromedp.CSS(".of-lun summary")), chromedp.WaitVisible(chromedp.CSS(".of-lun form"))))
	for _, v := range violations(t, ctx) {
		t.Error("the form of a LUN:", v)
	}
	shoot(t, ctx, shots, "machine-lun")
	l.mu.Lock()
	for i := range l.machines {
		l.machines[i].BMC = store.BMC{Protocol: store.BMCRedfish, Address: "bmc-02.lab.example.org:8443", User: "operator", Trust: store.BMCPinned}
	}
	l.mu.Unlock()
	check("boot", base+"/attempts/12")
	check("boot-stranger", base+"/attempts/3")
	check("machine-power", base+"/machines/2/power")
	check("machine-booting", base+"/machines/3")
	check("machine-new", base+"/machines/4")
	check("activity-new", base+"/activity")
	l.busy()
	check("activity", base+"/activity")
	check("machine-times", base+"/machines/1")
	check("volumes-room", base+"/volumes")
	check("sessions", base+"/sessions")
	check("sessions-none", base+"/sessions?search=nobody")
	check("leases", base+"/leases")
	check("leases-narrowed", base+"/leases?show=declined&search=10.77")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/leases"), chromedp.WaitVisible(chromedp.CSS("#bulk")), chromedp.Click(chromedp.CSS(`#bulk [name=all]`)), chromedp.SetValue(chromedp.CSS(`#bulk [name=act]`), "drop"), chromedp.Click(chromedp.CSS(`#bulk button`)), chromedp.WaitVisible(chromedp.CSS(".sure"))))
	for _, v := range violations(t, ctx) {
		t.Error("what is asked before leases are dropped:", v)
	}
	shoot(t, ctx, shots, "leases-sure")
	check("events-none-yet", base+"/events")
	l.happen(t, lived()...)
	check("events", base+"/events")
	check("events-machine", base+"/events?machine=2&show=warning")
	check("events-none", base+"/events?search=nothing")
	check("machine-from-events", base+"/machines/2")
	check("subnets-none", base+"/subnets")
	l.served()
	check("subnets", base+"/subnets?sort=-size")
	check("mappings", base+"/mappings")
	check("mappings-none", base+"/mappings?search=nothing")
	check("tokens-none", base+"/tokens")
	check("jobs-none", base+"/jobs")
	l.jobs = worked()
	check("jobs", base+"/jobs")
	l.jobs = []store.Job{classroom()}
	check("job", base+"/jobs/9")
	l.jobs = nil
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines"), chromedp.WaitVisible(chromedp.CSS("#bulk")), chromedp.SetValue(chromedp.CSS(`#bulk [name=act]`), "clone"), chromedp.Click(chromedp.CSS(`#bulk [name=all]`)), chromedp.WaitVisible(chromedp.CSS(`#bulk [name=clone_of]`))))
	for _, v := range violations(t, ctx) {
		t.Error("a clone for each of many:", v)
	}
	shoot(t, ctx, shots, "machines-clones")
	check("activity-none", base+"/activity?show=failed&search=nobody")
	check("loaders-none", base+"/loaders?search=nothing")
	check("import", base+"/machines/import")
	check("labels", base+"/machines/labels")
	check("volumes-none", base+"/volumes?search=nothing")
	check("unknown", base+"/unknown")
	check("newcomer", base+"/unknown/b8:27:eb:91:3c:0d")
	check("newcomer-ignored", base+"/unknown/52:54:00:12:34:56")
	check("explain", base+"/machines/2/explain?arch=uefi-x64&relay=10.9.0.1")
	check("explain-unknown", base+"/unknown/d4:5d:64:b1:0b:02/explain")
	check("explain-wrong", base+"/machines/2/explain?relay=nowhere")
	check("volumes", base+"/volumes")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/volumes"), chromedp.WaitVisible(chromedp.CSS("#bulk")), chromedp.Click(chromedp.CSS(`#bulk [name=all]`)), chromedp.SetValue(chromedp.CSS(`#bulk [name=act]`), "remove"), chromedp.Click(chromedp.CSS(`#bulk button`)), chromedp.WaitVisible(chromedp.CSS(".sure"))))
	for _, v := range violations(t, ctx) {
		t.Error("what is asked before volumes are deleted:", v)
	}
	shoot(t, ctx, shots, "volumes-sure")
	check("volume-golden", base+"/volumes/5")
	check("volume-clone", base+"/volumes/6")
	check("volume-promoting", base+"/volumes/7")
	check("volumes-new", base+"/volumes/new")
	l.mu.Lock()
	l.sent = []store.Upload{{ID: "a1", Name: "win11", File: "win11.vhdx", Size: 8 << 30, Offset: 2 << 30, Touched: noon}, {ID: "b2", Name: "alma", File: "alma.qcow2", Size: 1 << 30, Offset: 1 << 30, SHA256: strings.Repeat("a1", 32), Touched: noon, Problem: "The file system is full."}}
	l.jobs = []store.Job{{ID: 7, Kind: "volume.import", Subject: "debian12", State: store.JobRunning, Done: 1 << 30, Total: 4 << 30}}
	l.mu.Unlock()
	check("volumes-busy", base+"/volumes")
	check("profiles", base+"/profiles")
	check("profile", base+"/profiles/install-debian")
	check("profile-new", base+"/new-profile?kind=menu")
	check("media", base+"/media")
	check("loaders", base+"/loaders")
	check("settings-new", base+"/settings")
	l.trouble(t)
	check("settings", base+"/settings")
	for _, name := range []string{"anna", "ben"} {
		l.users[name], l.roles[name] = hash, store.RoleViewer
	}
	l.tokens = []store.Token{{ID: 1, Name: "backup-script", Scope: "admin", Expires: noon.AddDate(0, 3, 0), LastUsed: noon.Add(-time.Hour)}}
	l.people["carl"] = store.User{Name: "carl", Role: store.RoleOperator, Issuer: l.provider.Issuer, Subject: "4711", KnownAs: "carl.van.der.example@laboratory.example.org", Disabled: true, Revision: 1}
	l.audit = changed(60)
	check("people", base+"/people")
	check("people-none", base+"/people?search=nobody")
	check("tokens", base+"/tokens?sort=name")
	check("provider", base+"/settings/oidc")
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/settings/oidc"), chromedp.Click(chromedp.CSS(`button[formaction]`)), chromedp.WaitVisible(chromedp.CSS("#tried"))))
	for _, v := range violations(t, ctx) {
		t.Errorf("provider-tried: %s", v)
	}
	check("changes", base+"/audit")
	check("changes-none", base+"/audit?search=xyzzy")
	l.roles["admin"] = store.RoleViewer
	check("people-viewer", base+"/people")
	check("machine-viewer", base+"/machines/2")
	check("sessions-viewer", base+"/sessions")
	check("machines-viewer", base+"/machines")
	l.roles["admin"] = store.RoleOperator
	check("settings-operator", base+"/settings")
	l.roles["admin"] = store.RoleAdmin
	check("help", base+"/help")
	check("help-profiles", base+"/help/profiles")
	check("help-commands", base+"/help/commands#machine-add--mac")
	check("help-appliance", base+"/help/appliance")
	check("help-found", base+"/help?q=machine")
	check("profile-example", base+"/new-profile?example=debian")
	check("help-code", base+"/help/LB-LUN-01")
	check("help-ipxe", base+"/help?q=1d704539")
}

// signIn logs somebody in with the lab's password, in the tab of ctx.
func signIn(t *testing.T, ctx context.Context, base string) {
	t.Helper()
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=password]"), labPassword), chromedp.Click(chromedp.CSS("button.wide")), chromedp.WaitVisible(chromedp.CSS(".rail"))))
}

func TestEvidenceThatSomebodyReadsStaysOpen(t *testing.T) {
	ctx := browser(t)
	l := full()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)
	signIn(t, ctx, base)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/2"), chromedp.WaitVisible(chromedp.CSS(".diagnosis summary")), chromedp.Click(chromedp.CSS(".diagnosis summary")), chromedp.WaitVisible(chromedp.CSS(".evidence"))))
	l.mu.Lock()
	a := l.latest[2]
	a.Diagnoses[0].Evidence = append(a.Diagnoses[0].Evidence, "and one more line")
	l.latest[2] = a
	l.mu.Unlock()
	l.touch()
	deadline := time.Now().Add(15 * time.Second)
	for {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector(".evidence").innerText+"|"+document.querySelector(".diagnosis details").open`))
		must(t, err)
		if strings.Contains(text, "one more line") {
			if !strings.HasSuffix(text, "|true") {
				t.Error("the refresh closed what somebody reads")
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page still shows:\n%s", text)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestABootShowsItselfWithoutReload(t *testing.T) {
	ctx := browser(t)
	l := full()
	hash, err := auth.HashPassword(labPassword)
	must(t, err)
	l.users["admin"] = hash
	base, _ := l.open(t)
	look(t, ctx, "light", 1360)
	signIn(t, ctx, base)
	must(t, chromedp.Do(ctx, chromedp.Navigate(base+"/machines/3"), chromedp.WaitVisible(chromedp.CSS(".timeline"))))
	// A mark on the document and on a row that does not change: neither may be
	// made anew.
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`window.kept=1; document.querySelector(".timeline li").kept=1; document.querySelector("#profile").focus(); 1`))
	must(t, err)
	l.mu.Lock()
	a := *tried(store.OutcomeUp, 7, 0)
	a.ID, a.Machine = 13, 3
	l.latest[3] = a
	l.mu.Unlock()
	l.touch()
	deadline := time.Now().Add(15 * time.Second)
	for {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("#boot").innerText`))
		must(t, err)
		if strings.Contains(text, "Operating system up") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page still shows:\n%s", text)
		}
		time.Sleep(100 * time.Millisecond)
	}
	kept, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[window.kept, document.querySelector(".timeline li").kept, document.activeElement.id].join()`))
	must(t, err)
	if kept != "1,1,profile" {
		t.Errorf("reloaded, remade or lost the focus: %s", kept)
	}
}
