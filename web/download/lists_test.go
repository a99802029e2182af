package download_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/download"
)

func get(t *testing.T, l download.Lists, q download.Asked) string {
	t.Helper()
	table, err := l.Open(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	table.Serve(w, httptest.NewRequest(http.MethodGet, "/", nil), slog.New(slog.DiscardHandler))
	if !strings.Contains(w.Header().Get("Content-Disposition"), q.List+"-2026-11-22."+q.Format) {
		t.Errorf("it is sent as %v", w.Header())
	}
	return w.Body.String()
}

// What grows with time is sent a part at a time: every boot once, also of those
// that begin meanwhile.
func TestEveryBootIsInTheTableOnce(t *testing.T) {
	now := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	j, err := sqlite.OpenJournal(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const n = 1234
	begin := func(from, to int) {
		t.Helper()
		var all []store.Attempt
		for id := from; id <= to; id++ {
			all = append(all, store.Attempt{ID: store.AttemptID(id), Name: []string{"lab-01", "lab-02"}[id%2], Outcome: store.OutcomeUp, Started: now})
		}
		if err := j.PutAttempts(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	begin(1, n)
	asked := 0
	l := download.Lists{Now: func() time.Time { return now }, Attempts: func(ctx context.Context, f store.AttemptFilter) ([]store.Attempt, int, error) {
		if asked++; asked > 1 && f.Sort == "" {
			begin(n+asked*10, n+asked*10+9)
		}
		return j.Attempts(ctx, f)
	}}
	for search, want := range map[string]int{"": n, "lab-02": n / 2} {
		asked = 0
		var rows []struct{ ID int }
		if err := json.Unmarshal([]byte(get(t, l, download.Asked{List: "attempts", Search: search, Format: "json"})), &rows); err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{}
		for _, r := range rows {
			seen[r.ID] = true
		}
		old := slices.DeleteFunc(slices.Clone(rows), func(r struct{ ID int }) bool { return r.ID > n })
		if len(seen) != len(rows) || len(old) != want || asked < 2 {
			t.Errorf("%q: %d rows, %d of them once, %d of %d that there were, asked %d times", search, len(rows), len(seen), len(old), want, asked)
		}
	}
	text := get(t, l, download.Asked{List: "attempts", Sort: "machine", Format: "csv"})
	if at := strings.Index(text, "lab-02"); strings.Count(text, "lab-0") < n || strings.Contains(text[at:], "lab-01") {
		t.Error("the order of the list is not the table's")
	}
}

func TestWhatIsAskedWrongIsSaidBeforeAnythingIsSent(t *testing.T) {
	broken := errors.New("the disk broke")
	l := download.Lists{Now: time.Now,
		Jobs:     func(context.Context) ([]store.Job, error) { return nil, nil },
		Audit:    func(context.Context, store.AuditFilter) ([]store.Audit, int, error) { return nil, 0, broken },
		Attempts: func(context.Context, store.AttemptFilter) ([]store.Attempt, int, error) { return nil, 0, nil },
	}
	for _, c := range []struct {
		q    download.Asked
		kind store.Kind
	}{
		{download.Asked{List: "people"}, store.KindNotFound}, {download.Asked{List: "jobs", Format: "xlsx"}, store.KindInvalid}, {download.Asked{List: "jobs", Search: "state:x"}, store.KindInvalid},
		{download.Asked{List: "jobs", Sort: "colour"}, store.KindInvalid}, {download.Asked{List: "attempts", Search: "outcome:x"}, store.KindInvalid}, {download.Asked{List: "audit", Search: "since:x"}, store.KindInvalid},
	} {
		if _, err := l.Open(t.Context(), c.q); store.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.q, err)
		}
	}
	if _, err := l.Open(t.Context(), download.Asked{List: "audit"}); !errors.Is(err, broken) {
		t.Errorf("a fault is taken for nothing: %v", err)
	}
	for _, c := range [][4]string{{"lab", "state", "bound", `state:"bound" lab`}, {"", "who", `token "ci`, `who:"token ci"`}, {"lab", "state", "", "lab"}} {
		if got := download.Narrowed(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%v is %s", c, got)
		}
	}
}

// A table of which half was sent must not pass for a whole.
func TestATableThatBreaksOffIsCutOff(t *testing.T) {
	asked := 0
	l := download.Lists{Now: time.Now, Audit: func(context.Context, store.AuditFilter) ([]store.Audit, int, error) {
		if asked++; asked > 1 {
			return nil, 0, errors.New("the disk broke")
		}
		return make([]store.Audit, 500), 0, nil
	}}
	table, err := l.Open(t.Context(), download.Asked{List: "audit"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("it ends with %v", v)
		}
	}()
	table.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), slog.New(slog.DiscardHandler))
}
