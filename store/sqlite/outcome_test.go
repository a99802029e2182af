package sqlite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

func TestJournalCountsHowAttemptsEnded(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	outcomes := []store.Outcome{store.OutcomeUp, store.OutcomeFailed, store.OutcomeRunning, store.OutcomeUpUnconfirmed}
	for n := range 40 {
		a := store.Attempt{ID: store.AttemptID(n + 1), MAC: testMAC(n), Started: begin.Add(time.Duration(n) * time.Hour), Outcome: outcomes[n%4]}
		if err := j.PutAttempts(t.Context(), []store.Attempt{a}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.AttemptEnds(t.Context(), begin.Add(20*time.Hour))
	if err != nil || len(got) != 15 { // 20 since then, of which 5 run
		t.Fatalf("%d ends, %v", len(got), err)
	}
	for i, e := range got {
		if e.Outcome == store.OutcomeRunning || e.Started.Before(begin.Add(20*time.Hour)) || i > 0 && !e.Started.Before(got[i-1].Started) {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if all, err := j.AttemptEnds(t.Context(), time.Time{}); len(all) != 30 || err != nil {
		t.Errorf("%d in all, %v", len(all), err)
	}
	if none, err := j.AttemptEnds(t.Context(), begin.AddDate(1, 0, 0)); len(none) != 0 || err != nil {
		t.Errorf("%d in the future, %v", len(none), err)
	}
}

// The page asks at every change: it must not read boots of years.
func TestAttemptEndsReadNoFurtherThanTheyMust(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	plan, err := dbfile.List(t.Context(), j.file.Reader(), func(r dbfile.Row) (s string, err error) {
		var a, b, c int
		err = r.Scan(&a, &b, &c, &s)
		return s, err
	}, "EXPLAIN QUERY PLAN "+attemptEnds, 0, "running", 1)
	if text := strings.Join(plan, "; "); err != nil || !strings.Contains(text, "SEARCH attempt USING COVERING INDEX attempt_list (id>?)") || strings.Contains(text, "TEMP B-TREE") {
		t.Error(fmt.Sprint(text, err))
	}
}
