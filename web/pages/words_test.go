package pages

import (
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// A time on a page says in which zone it is, and to the second; where only words can
// stand, it is words.
func TestATimeSaysInWhichZoneItIs(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	must(t, err)
	was := time.Local
	time.Local = zone
	t.Cleanup(func() { time.Local = was })
	l := full()
	l.jobs = []store.Job{{ID: 4, Kind: "volume.import", Subject: "debian12", State: store.JobDone, Started: noon.AddDate(0, 0, -1), Finished: noon.AddDate(0, 0, -1)}}
	l.logged = nil
	get, _ := l.enter(t)
	_, body := get("/jobs")
	has(t, body, `<time datetime="2026-11-21T14:02:08Z" title="2026-11-21 15:02:08 CET">Sat 15:02</time>`)
	_, body = get("/people")
	has(t, body, `aria-label="End the login from 127.0.0.1 that began today 15:02:08"`)
	if s := (&site{}).instant(time.Time{}); s != "" {
		t.Errorf("no time is shown as %q", s)
	}
}

func TestASpanHasNoPartsThatAreNothing(t *testing.T) {
	for d, want := range map[time.Duration]string{4 * time.Hour: "4h", 90 * time.Minute: "1h30m", 20 * time.Minute: "20m", 90 * time.Second: "1m30s", 10 * time.Second: "10s", 0: "0s"} {
		if got := span(d); got != want {
			t.Errorf("%s is shown as %q, want %q", d, got, want)
		}
	}
}

func TestAPathMayEndALineBehindItsSlashes(t *testing.T) {
	if got := slashes("a/<b>/c"); got != "a/<wbr>&lt;b&gt;/<wbr>c" {
		t.Errorf("it is %q", got)
	}
}

// What a whole page is about, when something did not work, tells what kind of thing
// that is, and leads back to where somebody was.
func TestAPageOfAFailureSaysWhatKindItIs(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	_, body := get("/nosuch")
	has(t, body, "<h1>That is not here</h1>", "Back to the machines")
	get("/leases?show=bound")
	_, body = get("/jobs/77")
	has(t, body, "<h1>That is not here</h1>", `href="/leases?show=bound">Back to Leases<`)
	l.roles["admin"] = store.RoleViewer
	_, body = get("/tokens")
	has(t, body, "<h1>That is not allowed</h1>", "an admin can change that")
	l.broken = strings.NewReader("").UnreadByte() // an error that says nothing of its kind
	code, body := get("/leases")
	has(t, body, "<h1>The appliance failed at that</h1>", "Its log says more.")
	if code != 500 {
		t.Errorf("it answers %d", code)
	}
}
