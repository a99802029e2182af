package pages

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// busy gives the lab two weeks of boots, an hour of reading and writing, and a
// day of room.
func (l *lab) busy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.past = nil
	for n := range 70 {
		a := tried(store.OutcomeUp, 7, 0)
		if n%9 == 4 {
			a = failedLUN()
		}
		a.ID, a.Machine, a.Name = store.AttemptID(1000-n), 1, "lab-01"
		if n%7 == 6 {
			a.Machine, a.Name, a.MAC = 0, "", mustMAC("b8:27:eb:91:3c:0d")
		}
		late := noon.Add(-time.Duration(n) * 5 * time.Hour).Sub(a.Started)
		a.Started = a.Started.Add(late)
		for i := range a.Stages {
			if st := &a.Stages[i]; !st.At.IsZero() {
				st.At = st.At.Add(late + time.Duration(n%6)*time.Second)
				if !st.Ended.IsZero() {
					st.Ended = st.Ended.Add(late + time.Duration(n%6)*time.Second)
				}
			}
		}
		l.past = append(l.past, *a)
		l.ends = append(l.ends, store.AttemptEnd{Started: a.Started, Outcome: a.Outcome})
	}
	l.ends = append(l.ends, store.AttemptEnd{Started: noon.AddDate(0, 0, -3), Outcome: store.OutcomeUpUnconfirmed}, store.AttemptEnd{Started: noon.AddDate(0, 0, -30), Outcome: store.OutcomeUp})
	latest := l.latest[1]
	latest.UsualMillis = 21000
	l.latest[1] = latest
	for n := range 120 {
		wave := math.Sin(float64(n) / 14)
		l.moved = append(l.moved, store.Throughput{At: noon.Add(time.Duration(n-119) * 30 * time.Second), Read: 180e6 * wave * wave, Written: 20e6 * (1 + wave)})
	}
	for n := range 1440 {
		l.room = append(l.room, store.RoomSample{At: noon.Add(time.Duration(n-1439) * time.Minute), Free: int64(105<<30) - int64(n)<<24})
	}
}

func TestActivitySaysHowBootsWent(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	if _, body := get("/activity"); !strings.Contains(body, "has not run for a minute") || !strings.Contains(body, "0 attempts, 0 of which failed") {
		t.Errorf("before anything was measured: %s", body)
	}
	l.busy()
	status, body := get("/activity")
	if status != 200 {
		t.Fatal(status, body)
	}
	y, m, d := noon.Local().Date()
	total, failed := 0, 0
	for _, e := range l.ends {
		if !e.Started.Before(time.Date(y, m, d-13, 0, 0, 0, 0, time.Local)) {
			total++
			if e.Outcome == store.OutcomeFailed {
				failed++
			}
		}
	}
	if total < 60 || total >= len(l.ends) || failed < 6 {
		t.Fatalf("the lab has %d boots, %d of which failed", total, failed)
	}
	for _, want := range []string{
		fmt.Sprintf("%d attempts, %d of which failed.", total, failed), "1–50 of 70", `href="/activity?from=50" rel="next">Next</a>`,
		"At most 171.7 MiB/s read", `<a href="/machines/1">lab-01</a>`, "b8:27:eb:91:3c:0d", "Up in ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	if n := strings.Count(body, `<th scope="row">`); n != activityDays+120 {
		t.Errorf("%d rows of numbers", n)
	}
	_, body = get("/activity?from=50")
	if !strings.Contains(body, "51–70 of 70") || !strings.Contains(body, `href="/activity" rel="prev">Previous</a>`) || strings.Contains(body, `rel="next"`) {
		t.Errorf("the second page: %s", body)
	}
	_, body = get("/activity?show=failed")
	has(t, body, `<a href="/activity?show=failed" aria-current="true">Failed</a>`, `hx-get="/activity?show=failed"`)
	if n := strings.Count(body, `class="line failed"`); n != 8 {
		t.Errorf("%d failed", n)
	}
	_, body = get("/activity?search=b8:27&sort=-started")
	has(t, body, "1–10 of 10", `aria-sort="descending"`, `href="/activity?search=b8%3A27&amp;sort=started"`)
	_, body = get("/activity?search=nobody")
	has(t, body, "No attempt fits")
	_, body = get("/activity?search=lab-01+since:30h")
	has(t, body, "1–6 of 6")
	if code, body := get("/activity?search=outcome:lost"); code != 422 || !strings.Contains(body, "there are: failed, running") || !strings.Contains(body, `value="outcome:lost"`) || !strings.Contains(body, "of 70") {
		t.Errorf("an outcome that is none answers %d", code)
	}
	if _, body = get("/activity?from=9000"); !strings.Contains(body, "51–70 of 70") {
		t.Error("a page behind the last is not the last")
	}
	if _, body = get("/activity?from=-3"); !strings.Contains(body, "1–50 of 70") {
		t.Error("a page before the first is not the first")
	}
}

func TestADayIsTheCalendars(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	was := time.Local
	time.Local = zone
	t.Cleanup(func() { time.Local = was })
	// The clocks went back on the 25th of October 2026: that day had 25 hours.
	first := time.Date(2026, 10, 20, 0, 0, 0, 0, zone)
	markup := string(bootsChart(first, []store.AttemptEnd{
		{Started: time.Date(2026, 10, 25, 23, 59, 0, 0, zone), Outcome: store.OutcomeFailed},
		{Started: time.Date(2026, 10, 26, 0, 1, 0, 0, zone), Outcome: store.OutcomeUp},
		{Started: time.Date(2026, 10, 19, 23, 59, 0, 0, zone), Outcome: store.OutcomeUp},
	}))
	for _, want := range []string{
		"2 attempts, 1 of which failed.",
		`<th scope="row">Sun 25 Oct</th><td class="num">0</td><td class="num">0</td><td class="num">1</td>`,
		`<th scope="row">Mon 26 Oct</th><td class="num">1</td><td class="num">0</td><td class="num">0</td>`,
	} {
		if !strings.Contains(markup, want) {
			t.Errorf("no %s in %s", want, markup)
		}
	}
}

func TestAMachinesBootTimesStandBesideWhatIsUsual(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	if _, body := get("/machines/1"); strings.Contains(body, "boot-times") {
		t.Error("two boots make a chart")
	}
	l.busy()
	_, body := get("/machines/1")
	for _, want := range []string{`id="boot-times"`, "usually 21 s", "20 attempts.", "failed after"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the page", want)
		}
	}
}

func TestRoomIsDrawnWhenItWasWatched(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	if _, body := get("/volumes"); strings.Contains(body, "room-free") {
		t.Error("room that nobody watched is drawn")
	}
	l.busy()
	_, body := get("/volumes")
	if !strings.Contains(body, "From 105 GiB to 82.5 GiB.") {
		t.Errorf("the page: %s", body)
	}
	if n := strings.Count(body, `<th scope="row">`); n != 97 { // a day in quarters of an hour, and now
		t.Errorf("%d points", n)
	}
}

func TestABootTakesUntilItIsUpOrHasFailed(t *testing.T) {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	stages := func(up int) []store.Stage {
		all := []store.Stage{{Name: store.StageAsk, At: at(0), Ended: at(1)}, {Name: store.StageScript, At: at(4), Ended: at(9)}}
		if up > 0 {
			all = append(all, store.Stage{Name: store.StageUp, At: at(up)})
		}
		return all
	}
	for _, c := range []struct {
		a    store.Attempt
		took time.Duration
		up   bool
	}{
		{store.Attempt{Outcome: store.OutcomeUp, Stages: stages(20)}, 20 * time.Second, true},
		{store.Attempt{Outcome: store.OutcomeUpUnconfirmed, Stages: stages(60)}, time.Minute, true},
		{store.Attempt{Outcome: store.OutcomeFailed, Stages: stages(0)}, 9 * time.Second, false},
		{store.Attempt{Outcome: store.OutcomeRunning, Stages: stages(0)}, 0, false},
	} {
		c.a.Started = noon
		if took, up := bootTime(c.a); took != c.took || up != c.up {
			t.Errorf("%s: %s, %t", c.a.Outcome, took, up)
		}
	}
}
