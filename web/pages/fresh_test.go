package pages

import (
	"testing"

	"github.com/chromedp/chromedp"

	"lunboot/store"
)

// Forms beside a live boot do not grow old: what somebody else did elsewhere on the
// machine does not spoil a form, whether it was begun or not. Who is at the same
// thing as somebody else is told.
func TestAFormIsRefusedOnlyWhenSomebodyElseWasAtTheSameThing(t *testing.T) {
	l, base := inhabited(t)
	l.machines[1].Revision = 3
	ctx := browser(t)
	logged(t, ctx, base, "/machines/2")
	changed := func(change func(*store.Machine)) {
		l.mu.Lock()
		l.machines[1].Revision++
		change(&l.machines[1])
		l.mu.Unlock()
		l.touch()
	}
	const (
		revision = `document.querySelector("form[action$='/profile'] [name=revision]").value`
		profile  = `document.querySelector("#profile").value`
		removal  = `document.querySelector("form[action$='/remove'] [name=revision]").value`
		choose   = `(() => { const s = document.querySelector("#profile"); s.value = "install-debian"; return s.value; })()`
	)
	// Nobody has begun anything: each form becomes what it would be now.
	changed(func(m *store.Machine) { m.Notes, m.Profile = "by the door", "local" })
	eval(t, ctx, revision, "4")
	eval(t, ctx, profile, "local")
	eval(t, ctx, removal, "4")
	// A form that was begun keeps what was chosen, and goes on from the present.
	eval(t, ctx, choose, "install-debian")
	eval(t, ctx, `(() => { document.querySelector("form[action$='/remove'] [name=confirm]").value = "lab"; return "typed"; })()`, "typed")
	changed(func(m *store.Machine) { m.Notes = "by the window" })
	eval(t, ctx, revision, "5")
	eval(t, ctx, profile, "install-debian")
	eval(t, ctx, removal, "4") // what is about the whole machine is about the one that was seen
	send := chromedp.Click(chromedp.CSS("form[action$='/profile'] button"))
	must(t, chromedp.Do(ctx, send, chromedp.WaitVisible(chromedp.CSS("#boot"))))
	eval(t, ctx, `document.querySelector(".problem")?.innerText ?? String(location.pathname)`, "/machines/2/profile")
	l.mu.Lock()
	if l.machines[1].Profile != "install-debian" {
		t.Errorf("the machine boots by %s", l.machines[1].Profile)
	}
	l.mu.Unlock()
	eval(t, ctx, `String(Boolean(document.querySelector("#live")?._htmx?.sse))`, "true")
	// Two at the same thing: the second is told, and nothing is overwritten.
	eval(t, ctx, `(() => { const s = document.querySelector("#profile"); s.value = "san"; return s.value; })()`, "san")
	eval(t, ctx, `(() => { const s = document.querySelector("#loader"); s.focus(); return s.id; })()`, "loader")
	changed(func(m *store.Machine) { m.Profile = "local" })
	eval(t, ctx, `document.querySelector("form[action$='/loader'] [name=revision]").value`, "7")
	eval(t, ctx, revision, "6")
	must(t, chromedp.Do(ctx, send, chromedp.WaitVisible(chromedp.CSS(".problem"))))
	eval(t, ctx, `String(document.querySelector(".problem").innerText.includes("was changed by somebody meanwhile"))`, "true")
}

// Several forms of one machine have one path. Each becomes what it would be now, and
// none becomes another.
func TestNoFormBecomesAnotherOneOfTheSamePath(t *testing.T) {
	l, base := inhabited(t)
	l.machines[1].Revision = 3
	l.machines[1].BMC = store.BMC{Protocol: store.BMCRedfish, Address: "bmc-02.lab.example.org:8443", User: "operator", Trust: store.BMCPinned}
	ctx := browser(t)
	logged(t, ctx, base, "/machines/2")
	const (
		revision = `document.querySelector("form[action$='/profile'] [name=revision]").value`
		forms    = `[...document.querySelectorAll("[data-fresh] form")].map((f) => f.getAttribute("action") + " " + f.querySelectorAll("input, select, button").length + " " + f.textContent.replace(/\s+/g, " ")).join("\n")`
		twice    = `String(["/map", "/power"].every((path) => document.querySelectorAll("[data-fresh] form[action$='" + path + "']").length > 2))`
	)
	eval(t, ctx, twice, "true")
	before, err := chromedp.Run(ctx, chromedp.Evaluate[string](forms))
	must(t, err)
	for _, now := range []string{"4", "5"} {
		l.mu.Lock()
		l.machines[1].Revision++
		l.mu.Unlock()
		l.touch()
		eval(t, ctx, revision, now)
	}
	eval(t, ctx, forms, before)
	// That somebody else set another password meanwhile shows on no page: who typed one,
	// too, is told.
	const bmc = "form[action$='/bmc']"
	eval(t, ctx, `document.querySelector("`+bmc+` [name=secret]").value = "hush"`, "hush")
	l.mu.Lock()
	l.machines[1].Revision++
	l.mu.Unlock()
	l.touch()
	eval(t, ctx, revision, "6")
	eval(t, ctx, `document.querySelector("`+bmc+` [name=revision]").value`, "5")
}
