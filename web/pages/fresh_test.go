package pages

import (
	"net/netip"
	"slices"
	"testing"
	"time"

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

// What stands beside a boot is of now, too: who looks on sees the address, the login,
// the volume and the notes come, and loses neither the place, nor what is open, nor
// what is half typed.
func TestTheFactsBesideABootFollowIt(t *testing.T) {
	l, base := inhabited(t)
	m := &l.machines[2]
	m.Address, m.Revision, l.leased = netip.Addr{}, 3, nil
	m.BMC = store.BMC{Protocol: store.BMCRedfish, Address: "bmc-03.lab.example.org:8443", User: "operator", Trust: store.BMCPinned}
	l.mappings = slices.DeleteFunc(l.mappings, func(mp store.Mapping) bool { return mp.Machine == 3 })
	ctx := browser(t)
	logged(t, ctx, base, "/machines/3")
	change := func(change func()) {
		l.mu.Lock()
		change()
		l.mu.Unlock()
		l.touch()
	}
	holds := func(of, text string) {
		t.Helper()
		eval(t, ctx, `document.querySelector("#`+of+`")?.innerText.replace(/\s+/g, " ").includes("`+text+`") ? "yes" : document.querySelector("#`+of+`")?.innerText ?? "nothing"`, "yes")
	}
	holds("has", "It has no volume yet")
	holds("identity", "none yet")
	holds("says", "asked today")
	const asked = `document.querySelector("#power [id^=now-]").id`
	first, err := chromedp.Run(ctx, chromedp.Evaluate[string](asked))
	must(t, err)
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`window.kept = document.querySelector("#identity"); document.querySelector("#bmc").open = true; document.querySelector("#remove").open = true;
		document.querySelector("#f-remove [name=confirm]").value = "lab-"; document.querySelector("#f-empty [name=size]").focus(); document.querySelector("#f-empty [name=size]").value = "5"; scrollTo(0, 300); 1`))
	must(t, err)

	// Without a change of the machine itself: a lease, a login, another boot.
	change(func() {
		l.leased = append(l.leased, store.Lease{Address: netip.MustParseAddr("10.77.0.163"), MAC: m.MACs[0], Machine: 3, State: store.LeaseBound, Expires: noon.Add(time.Hour)})
		l.logged = append(l.logged, store.Session{ID: "s3", Machine: 3, Since: noon, Read: 3 << 20})
		a := *failedLUN()
		a.ID, a.Machine = 12, 3
		l.past = append([]store.Attempt{a}, l.past...)
	})
	holds("identity", "10.77.0.163 leased")
	holds("logged-in", "Operating system since today 14:02:08, read 3 MiB")
	holds("before", "capture")
	eval(t, ctx, `String(Boolean(document.querySelector("#before a[href='/api/v1/attempts/12/capture']")))`, "true")
	holds("says", "asked today") // the BMC is asked again, since something happened
	if again, err := chromedp.Run(ctx, chromedp.Evaluate[string](asked)); err != nil || again == first {
		t.Errorf("what its BMC said before stands there still: %s, %v", again, err)
	}
	// Bytes move without a change that anything tells of.
	l.mu.Lock()
	l.logged[len(l.logged)-1].Read = 7 << 20
	l.mu.Unlock()
	holds("logged-in", "read 7 MiB")
	// A volume is mapped, renumbered and taken away; each form is of what stands beside it.
	change(func() {
		m.Revision++
		m.Notes = "the one by the window"
		l.mappings = append(l.mappings, store.Mapping{Machine: 3, Volume: 6, LUN: 0, Revision: 1, Boot: true}, store.Mapping{Machine: 3, Volume: 4, LUN: 1, Revision: 1})
	})
	holds("identity", "the one by the window")
	holds("lun-6", "LUN 0 · boots from this")
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelector("#of-lun-4").open = true; 1`))
	must(t, err)
	change(func() {
		l.mappings = slices.DeleteFunc(l.mappings, func(mp store.Mapping) bool { return mp.Machine == 3 && mp.Volume == 6 })
		l.mappings[len(l.mappings)-1].LUN, l.mappings[len(l.mappings)-1].Revision = 5, 2
	})
	holds("lun-4", "LUN 5")
	eval(t, ctx, `String([!document.querySelector("#lun-6"), document.querySelector("#of-lun-4").open, ...["lun", "to", "mapping"].map((n) => document.querySelector("#f-mapping-4").elements[n].value), ...["lun", "mapping", "volume"].map((n) => document.querySelector("#f-unmap-4").elements[n].value)])`, "true,true,5,5,2,5,2,4")
	// It is gone again.
	change(func() { l.logged, l.leased = nil, nil })
	holds("identity", "none yet")
	eval(t, ctx, `String(document.querySelector("#logged-in"))`, "null")
	// All the while nothing was made anew under who reads and types.
	eval(t, ctx, `String([window.kept === document.querySelector("#identity"), document.querySelector("#bmc").open, document.querySelector("#remove").open, document.querySelector("#f-remove [name=confirm]").value, document.querySelector("#f-empty [name=size]").value, document.activeElement.name, document.querySelector("#give").open, scrollY > 0])`, "true,true,true,lab-,5,size,true,true")
	if found := violations(t, ctx); len(found) > 0 {
		t.Error(found)
	}
}
