package sqlite

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lunboot/store"
	"lunboot/store/sqlite/dbfile"
)

func openTestJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func testMAC(n int) store.MAC { return store.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func diffOf(want, got any) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

// boots are n events of three machines, in turn.
func boots(from, n int) []store.Event {
	var out []store.Event
	for i := from; i < from+n; i++ {
		out = append(out, store.Event{Seq: int64(i), At: time.Unix(int64(i), 5).UTC(), Kind: store.EventDHCPAck,
			MAC: testMAC(i % 3), Machine: store.MachineID(i % 3), Attempt: store.AttemptID(i / 10), Addr: netip.MustParseAddr("192.168.40.17")})
	}
	return out
}

func TestJournalKeepsEventsAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	lun := 0
	full := store.Event{Seq: 2, At: time.Now().Round(0).UTC(), Kind: store.EventISCSINoLUN, MAC: testMAC(1), Addr: netip.MustParseAddr("2001:db8::1"),
		Machine: 7, Attempt: 9, Detail: store.Detail{Key: "k", LUN: &lun, Mapped: []int{0, 2}, Reason: "quoted \" and \x00 too", IPXE: true, Bytes: 1 << 40}}
	bare := store.Event{Seq: 1, At: time.Unix(1, 0).UTC(), Kind: store.EventDropped}
	if err := j.AppendEvents(t.Context(), []store.Event{bare, full}); err != nil {
		t.Fatal(err)
	}
	if err := j.AppendEvents(t.Context(), nil); err != nil {
		t.Errorf("no events: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTestJournal(t, dir)
	got, err := j.Events(t.Context(), store.EventFilter{})
	if d := diffOf([]store.Event{bare, full}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	if last, err := j.LastSeq(t.Context()); last != 2 || err != nil {
		t.Errorf("last %d, %v", last, err)
	}
}

func TestJournalNumbersRise(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	if last, err := j.LastSeq(t.Context()); last != 0 || err != nil {
		t.Errorf("an empty journal ends at %d, %v", last, err)
	}
	if err := j.AppendEvents(t.Context(), boots(1, 5)); err != nil {
		t.Fatal(err)
	}
	for name, batch := range map[string][]store.Event{
		"again":               boots(5, 1),
		"backwards":           {{Seq: 8}, {Seq: 7}},
		"twice":               {{Seq: 8}, {Seq: 8}},
		"zero":                {{}},
		"a late one":          append(boots(6, 3), store.Event{Seq: 2}),
		"a good one and zero": append(boots(6, 1), store.Event{}),
	} {
		if err := j.AppendEvents(t.Context(), batch); store.KindOf(err) != store.KindConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := j.Events(t.Context(), store.EventFilter{}); len(got) != 5 || err != nil {
		t.Errorf("%d events after refusals, %v", len(got), err)
	}
}

func TestJournalFiltersEvents(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	if err := j.AppendEvents(t.Context(), boots(1, 60)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f     store.EventFilter
		want  int
		first int64
	}{
		{store.EventFilter{}, 60, 1},
		{store.EventFilter{After: 50}, 10, 51},
		{store.EventFilter{After: 60}, 0, 0},
		{store.EventFilter{After: 10, Limit: 7}, 7, 11},
		{store.EventFilter{Machine: 2}, 20, 2},
		{store.EventFilter{MAC: testMAC(1)}, 20, 1},
		{store.EventFilter{MAC: testMAC(1), After: 30}, 10, 31},
		{store.EventFilter{Attempt: 3}, 10, 30},
		{store.EventFilter{Attempt: 3, Machine: 1, Limit: 2}, 2, 31},
		{store.EventFilter{Attempt: 99}, 0, 0},
	} {
		got, err := j.Events(t.Context(), c.f)
		if err != nil || len(got) != c.want || len(got) > 0 && got[0].Seq != c.first {
			t.Errorf("%+v: %d events, %v", c.f, len(got), err)
		}
		for i, e := range got {
			if i > 0 && e.Seq <= got[i-1].Seq || c.f.Machine != 0 && e.Machine != c.f.Machine || e.Seq <= c.f.After {
				t.Errorf("%+v: event %+v", c.f, e)
			}
		}
	}
}

// A page that shows one machine must not read every event there is.
func TestJournalFiltersUseAnIndex(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	for query, index := range map[string]string{
		"SELECT * FROM event WHERE seq > 1 AND machine = 1 ORDER BY seq LIMIT 5": "event_machine",
		"SELECT * FROM event WHERE seq > 1 AND mac = 'x' ORDER BY seq LIMIT 5":   "event_mac",
		"SELECT * FROM event WHERE seq > 1 AND attempt = 1 ORDER BY seq LIMIT 5": "event_attempt",
		"SELECT * FROM attempt WHERE machine = 1 ORDER BY id DESC LIMIT 5":       "attempt_machine",
		"SELECT * FROM attempt WHERE mac = 'x' ORDER BY id DESC LIMIT 5":         "attempt_mac",
	} {
		plan, err := dbfile.List(t.Context(), j.file.Reader(), func(r dbfile.Row) (s string, err error) {
			var a, b, c int
			err = r.Scan(&a, &b, &c, &s)
			return s, err
		}, "EXPLAIN QUERY PLAN "+query)
		if text := strings.Join(plan, "; "); err != nil || !strings.Contains(text, index) || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s: %s, %v", query, text, err)
		}
	}
}

func fullAttempt(id int) store.Attempt {
	at := time.Date(2026, 11, 22, 10, 0, id, 0, time.UTC)
	return store.Attempt{ID: store.AttemptID(id), Machine: 7, Name: "lab-01", MAC: testMAC(1), Key: "the-report-key", Started: at, Updated: at.Add(time.Minute),
		Outcome: store.OutcomeFailed, Stage: store.StageLogin, Firmware: "BIOS", Arch: "x86", Address: "192.168.40.17", Script: "#!ipxe\n", Owned: true, FirstSeq: 1, LastSeq: 99,
		Stages:    []store.Stage{{Name: store.StageAsk, State: store.StageDone, At: at, Ended: at.Add(time.Second), Detail: "asked"}, {Name: store.StageLogin, State: store.StageFailed}},
		Diagnoses: []store.Diagnosis{{Code: "LB-LUN-01", Title: "t", Cause: "c", Confidence: store.Certain, Fixes: []store.Fix{{Action: "map-lun-0", Label: "Map it"}}, Evidence: []string{"e1", "e2"}}}}
}

func TestJournalKeepsAttemptsAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	j := openTestJournal(t, dir)
	if id, err := j.LastAttemptID(t.Context()); id != 0 || err != nil {
		t.Errorf("an empty journal's last attempt is %d, %v", id, err)
	}
	want := fullAttempt(3)
	first := want
	first.Outcome, first.Diagnoses = store.OutcomeRunning, nil
	bare := store.Attempt{ID: 4, Outcome: store.OutcomeRunning}
	if err := j.PutAttempts(t.Context(), []store.Attempt{first, bare, want}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTestJournal(t, dir)
	for _, a := range []store.Attempt{want, bare} {
		got, err := j.Attempt(t.Context(), a.ID)
		if d := diffOf(a, got); d != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
	}
	if id, err := j.LastAttemptID(t.Context()); id != 4 || err != nil {
		t.Errorf("the last attempt is %d, %v", id, err)
	}
	if _, err := j.Attempt(t.Context(), 5); !store.IsNotFound(err) {
		t.Errorf("an attempt that never was: %v", err)
	}
	if err := j.PutAttempts(t.Context(), []store.Attempt{fullAttempt(5), {}}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("an attempt without a number: %v", err)
	}
	if _, err := j.Attempt(t.Context(), 5); !store.IsNotFound(err) {
		t.Errorf("an attempt that was written beside one that was refused: %v", err)
	}
}

func TestJournalListsAttempts(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	for i := 1; i <= 30; i++ {
		if err := j.PutAttempts(t.Context(), []store.Attempt{{ID: store.AttemptID(i), Machine: store.MachineID(i % 3), MAC: testMAC(i%2 + 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		f            store.AttemptFilter
		first, n, of int
	}{
		{store.AttemptFilter{}, 30, 30, 30},
		{store.AttemptFilter{Page: store.Page{Limit: 4, Offset: 2}}, 28, 4, 30},
		{store.AttemptFilter{Page: store.Page{Limit: 4, Offset: 40}}, 0, 0, 30},
		{store.AttemptFilter{Machine: 1}, 28, 10, 10},
		{store.AttemptFilter{MAC: testMAC(2), Page: store.Page{Limit: 1}}, 29, 1, 15},
		{store.AttemptFilter{Machine: 2, MAC: testMAC(1)}, 26, 5, 5},
	} {
		got, total, err := j.Attempts(t.Context(), c.f)
		if err != nil || len(got) != c.n || total != c.of || c.n > 0 && got[0].ID != store.AttemptID(c.first) {
			t.Errorf("%+v: %d of %d, %v", c.f, len(got), total, err)
		}
	}
}

func TestJournalSearchesAttempts(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	all := []store.Attempt{
		{ID: 1, Machine: 1, Name: "lab-01", MAC: testMAC(1), Address: "10.77.0.101", Firmware: "UEFI", Arch: "x86-64", Outcome: store.OutcomeUp, Stage: store.StageUp, Started: at},
		{ID: 2, Machine: 2, Name: "lab-02", MAC: testMAC(2), Firmware: "BIOS", Arch: "x86", Outcome: store.OutcomeFailed, Stage: store.StageRead, Started: at.Add(time.Hour), Script: "lab-01",
			Diagnoses: []store.Diagnosis{{Code: "LB-LUN-01", Title: "lab-02 asked for LUN 0", Cause: "hidden"}, {Code: "LB-NET-02", Title: "100% of its packets"}}},
		{ID: 3, MAC: testMAC(3), Outcome: store.OutcomeRunning, Stage: store.StageAsk, Started: at.Add(2 * time.Hour)},
		{ID: 4, Machine: 1, Name: "lab-01", MAC: testMAC(1), Outcome: store.OutcomeUpUnconfirmed, Stage: store.StageRead, Started: at.Add(3 * time.Hour)},
	}
	if err := j.PutAttempts(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	ids := func(f store.AttemptFilter) string {
		t.Helper()
		got, total, err := j.Attempts(t.Context(), f)
		if err != nil || f.Limit == 0 && total != len(got) {
			t.Errorf("%+v: %d of %d, %v", f, len(got), total, err)
		}
		out := ""
		for _, a := range got {
			out += fmt.Sprint(a.ID)
		}
		return out
	}
	for text, want := range map[string]string{
		"": "4321", "lab-01": "41", "LAB": "421", "hidden": "", "machine:lab-02": "2", "outcome:failed": "2", "outcome:up": "1", "stage:read": "42", "code:lun": "2", "code:LB-NET-02": "2",
		`"asked for"`: "2", "100%": "2", "%": "2", "_": "", "firmware:uefi": "1", `"BIOS x86"`: "2", "address:10.77": "1", testMAC(3).String(): "3", "mac:" + testMAC(3).Hex12(): "3", testMAC(2).Hex12() + " lab": "2",
		"since:2026-11-01T01:00:00Z": "432", "until:2026-11-01T01:00:00Z": "1", "since:2026-11-01T01:00:00Z until:2026-11-01T03:00:00Z": "32", "lab outcome:failed stage:read": "2", "lab stage:ask": "",
	} {
		f, err := store.ParseAttemptSearch(text, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(f); got != want {
			t.Errorf("%q finds %s, want %s", text, got, want)
		}
		// Those that are only in memory are found by the same words.
		got := ""
		for i := len(all) - 1; i >= 0; i-- {
			if f.Matches(&all[i]) {
				got += fmt.Sprint(all[i].ID)
			}
		}
		if got != want {
			t.Errorf("in memory %q finds %s, want %s", text, got, want)
		}
	}
	for _, f := range []store.AttemptFilter{{Machine: 1}, {MAC: testMAC(3)}, {Machine: 2, MAC: testMAC(1)}} {
		got := ""
		for i := len(all) - 1; i >= 0; i-- {
			if f.Matches(&all[i]) {
				got += fmt.Sprint(all[i].ID)
			}
		}
		if want := ids(f); got != want {
			t.Errorf("in memory %+v finds %s, want %s", f, got, want)
		}
	}
	for by, want := range map[string]string{"started": "4321", "-started": "1234", "machine": "3412", "-machine": "2413", "outcome": "2341", "-outcome": "1432", "stage": "3421", "-stage": "1423"} {
		if got := ids(store.AttemptFilter{Sort: by}); got != want {
			t.Errorf("by %s they are %s, want %s", by, got, want)
		}
	}
	if got := ids(store.AttemptFilter{Sort: "outcome", Page: store.Page{Limit: 2, Offset: 1}}); got != "34" {
		t.Errorf("a page of them is %s", got)
	}
	for _, f := range []store.AttemptFilter{{Sort: "colour"}, {Search: store.Search{Terms: []store.Term{{Key: "colour", Value: "red"}}}}} {
		if _, _, err := j.Attempts(t.Context(), f); store.KindOf(err) != store.KindInvalid {
			t.Errorf("%+v: %v", f, err)
		}
	}
	// What a diagnosis said before another one took its place is not found.
	all[1].Diagnoses = all[1].Diagnoses[1:]
	if err := j.PutAttempts(t.Context(), all[1:2]); err != nil {
		t.Fatal(err)
	}
	if got := ids(store.AttemptFilter{Search: store.Search{Words: []string{"asked"}}}); got != "" {
		t.Errorf("a diagnosis that is gone finds %s", got)
	}
}

// What is read in parts is what there was when it was asked for, in that order,
// whatever begins, ends or is removed while it is fetched.
func TestEveryAttemptComesOnceAndInOrder(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	const n = 1100
	write := func(from, to int, outcome store.Outcome) {
		t.Helper()
		var all []store.Attempt
		for id := from; id <= to; id++ {
			all = append(all, store.Attempt{ID: store.AttemptID(id), Name: []string{"b", "a"}[id%2], Outcome: outcome, FirstSeq: int64(id), LastSeq: int64(id)})
		}
		if err := j.PutAttempts(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []string{"", "-started", "machine", "outcome"} {
		write(1, n, store.OutcomeRunning)
		want, _, err := j.Attempts(t.Context(), store.AttemptFilter{Sort: by})
		if err != nil {
			t.Fatal(err)
		}
		next, err := j.EveryAttempt(t.Context(), store.AttemptFilter{Sort: by})
		if err != nil {
			t.Fatal(err)
		}
		var got []store.AttemptID
		for asked := 0; ; asked++ {
			part, err := next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(part) == 0 {
				break
			}
			for _, a := range part {
				got = append(got, a.ID)
			}
			write(n+1+asked, n+1+asked, store.OutcomeRunning)
			write(1, n, store.OutcomeUp) // by which they stand elsewhere
		}
		if len(got) != len(want) {
			t.Errorf("by %q %d come of %d", by, len(got), len(want))
			continue
		}
		for i, a := range want {
			if got[i] != a.ID {
				t.Errorf("by %q the %dth is %d, not %d", by, i, got[i], a.ID)
				break
			}
		}
	}
	next, err := j.EveryAttempt(t.Context(), store.AttemptFilter{Machine: 99})
	if err != nil {
		t.Fatal(err)
	}
	if part, err := next(t.Context()); len(part) != 0 || err != nil {
		t.Errorf("of none come %d, %v", len(part), err)
	}
	if next, err = j.EveryAttempt(t.Context(), store.AttemptFilter{Sort: "-started"}); err != nil {
		t.Fatal(err)
	}
	if err := j.forget(t.Context(), n-10); err != nil {
		t.Fatal(err)
	}
	if part, err := next(t.Context()); len(part) == 0 || len(part) > 20 || part[0].ID < n-10 || err != nil {
		t.Errorf("after all but a few were removed %d come, %v", len(part), err)
	}
	if _, err := j.EveryAttempt(t.Context(), store.AttemptFilter{Sort: "colour"}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("by colour: %v", err)
	}
}

// Boots that a program before this one wrote are found by the same words.
func TestOlderAttemptsAreFound(t *testing.T) {
	dir := t.TempDir()
	first, err := migrations.ReadFile("migrations/journal/0001_journal.sql")
	if err != nil {
		t.Fatal(err)
	}
	f, err := dbfile.Open(t.Context(), filepath.Join(dir, journalFile+".db"), dbfile.Config{Synchronous: "NORMAL", Migrations: fstest.MapFS{"0001_journal.sql": &fstest.MapFile{Data: first}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Attempt{fullAttempt(2), {ID: 1, MAC: testMAC(9), Outcome: store.OutcomeUp}, {ID: 3}}
	want[0].Diagnoses = append(want[0].Diagnoses, store.Diagnosis{Code: "LB-NET-02", Title: "another one"})
	err = f.Write(t.Context(), func(tx *dbfile.Tx) error {
		for _, a := range want {
			diagnoses, err := json.Marshal(a.Diagnoses)
			if err != nil {
				return err
			}
			if _, err := tx.Insert(`INSERT INTO attempt (id, machine, machine_name, mac, key, started, updated, outcome, stage, stages, diagnoses, firmware, arch, address, script, first_seq, last_seq)
				VALUES (?, NULL, ?, ?, '', 1, 1, ?, '', '[]', ?, ?, ?, ?, '', 1, 1)`, int64(a.ID), a.Name, dbfile.Text(a.MAC), string(a.Outcome), string(diagnoses), a.Firmware, a.Arch, a.Address); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	j := openTestJournal(t, dir)
	for _, a := range want {
		got, err := dbfile.One(t.Context(), j.file.Reader(), func(r dbfile.Row) (text [2]string, err error) { return text, r.Scan(&text[0], &text[1]) }, nil, "SELECT told, words FROM attempt WHERE id = ?", int64(a.ID))
		if err != nil || got != [2]string{told(&a), words(&a)} {
			t.Errorf("%d: %q, %v; written now it is %q", a.ID, got, err, [2]string{told(&a), words(&a)})
		}
	}
	if got, _, err := j.Attempts(t.Context(), store.AttemptFilter{Search: store.Search{Words: []string{"another one"}}}); err != nil || len(got) != 1 || got[0].ID != 2 {
		t.Errorf("found are %+v, %v", got, err)
	}
}

// A search that finds little must not read the scripts of all boots.
func TestASearchForAttemptsReadsAnIndex(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	for _, c := range []struct {
		text    string
		machine store.MachineID
		want    string
	}{
		{"lab outcome:failed since:2026-11-01", 0, "USING COVERING INDEX attempt_list"},
		{"outcome:failed", 3, "attempt_machine (machine=?)"},
	} {
		f, err := store.ParseAttemptSearch(c.text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		f.Machine = c.machine
		where, args, err := attemptWhere(f)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := dbfile.List(t.Context(), j.file.Reader(), func(r dbfile.Row) (s string, err error) {
			var a, b, c int
			err = r.Scan(&a, &b, &c, &s)
			return s, err
		}, "EXPLAIN QUERY PLAN SELECT id FROM "+where+attemptOrder("")+" LIMIT 50", args...)
		if text := strings.Join(plan, "; "); err != nil || !strings.Contains(text, c.want) || strings.Contains(text, "TEMP B-TREE") {
			t.Errorf("%s: %s, %v", c.text, text, err)
		}
	}
}

func TestPruneForgetsTheOldest(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	// More than one step of Prune.
	const n = 3*pruneStep + 10
	if err := j.AppendEvents(t.Context(), boots(1, n)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []store.Attempt{
		{ID: 1, Machine: 1, LastSeq: 10}, // machine 1 has a newer one
		{ID: 2, Machine: 2, LastSeq: 20}, // the newest of machine 2
		{ID: 3, LastSeq: 30},             // of nobody
		{ID: 4, Machine: 1, LastSeq: n},
		{ID: 5, LastSeq: 50}, // the newest of all
	} {
		if err := j.PutAttempts(t.Context(), []store.Attempt{a}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Prune(t.Context(), store.Retention{Events: n + 1}); err != nil {
		t.Fatal(err)
	}
	if es, err := j.Events(t.Context(), store.EventFilter{}); len(es) != n || err != nil {
		t.Errorf("pruned to more than there is: %d events, %v", len(es), err)
	}
	if err := j.Prune(t.Context(), store.Retention{Events: 100}); err != nil {
		t.Fatal(err)
	}
	es, err := j.Events(t.Context(), store.EventFilter{})
	if err != nil || len(es) != 100 || es[0].Seq != n-99 {
		t.Errorf("%d events, %v", len(es), err)
	}
	as, _, err := j.Attempts(t.Context(), store.AttemptFilter{})
	var ids []store.AttemptID
	for _, a := range as {
		ids = append(ids, a.ID)
	}
	if fmt.Sprint(ids) != "[5 4 2]" || err != nil {
		t.Errorf("attempts that are left: %v, %v", ids, err)
	}
	// Numbers are never given again, whatever is forgotten.
	if err := j.Prune(t.Context(), store.Retention{}); err != nil {
		t.Fatal(err)
	}
	if last, err := j.LastSeq(t.Context()); last != n || err != nil {
		t.Errorf("last %d, %v", last, err)
	}
	if id, err := j.LastAttemptID(t.Context()); id != 5 || err != nil {
		t.Errorf("last attempt %d, %v", id, err)
	}
}

// What is older than it is worth goes, however few there are, but the newest
// event: its number must not be given again.
func TestTheLogForgetsByAge(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	begun := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var all []store.Event
	for n := range 10 {
		all = append(all, store.Event{Seq: int64(n + 1), At: begun.AddDate(0, 0, n), Kind: store.EventDHCPDiscover})
	}
	if err := j.AppendEvents(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		since time.Time
		left  int
	}{{begun, 10}, {begun.AddDate(0, 0, 3), 7}, {begun.AddDate(0, 0, 3).Add(time.Second), 6}, {begun.AddDate(1, 0, 0), 1}} {
		if err := j.Prune(t.Context(), store.Retention{Events: 1000, Since: c.since}); err != nil {
			t.Fatal(err)
		}
		es, err := j.Events(t.Context(), store.EventFilter{})
		if err != nil || len(es) != c.left || es[len(es)-1].Seq != 10 {
			t.Errorf("since %s: %d events, %v", c.since, len(es), err)
		}
	}
	empty := openTestJournal(t, t.TempDir())
	if err := empty.Prune(t.Context(), store.Retention{Events: 10, Bytes: 1, Since: begun}); err != nil {
		t.Error(err)
	}
}

// What takes more of the disk than it may goes, the oldest first, and what was
// freed is used again, so that the file does not grow from then on.
func TestTheLogForgetsBySize(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	const n, bytes = 5 * pruneStep, 1 << 20
	keep := store.Retention{Events: 10 * n, Bytes: bytes}
	size := func() int64 { // the file's, when all of the write-ahead log is in it
		t.Helper()
		pages, err := dbfile.One(t.Context(), j.file.Reader(), dbfile.Scalar[int64], nil, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	var full int64
	for round := range 3 {
		first := round*n + 1
		if err := j.AppendEvents(t.Context(), boots(first, n)); err != nil {
			t.Fatal(err)
		}
		a := store.Attempt{ID: store.AttemptID(round + 1), LastSeq: int64(first)}
		if err := j.PutAttempts(t.Context(), []store.Attempt{a}); err != nil {
			t.Fatal(err)
		}
		before, err := j.held(t.Context())
		if err != nil || before <= bytes {
			t.Fatalf("%d bytes are held, %v", before, err)
		}
		if err := j.Prune(t.Context(), keep); err != nil {
			t.Fatal(err)
		}
		held, err := j.held(t.Context())
		if err != nil || held > bytes || held < bytes/8 {
			t.Errorf("round %d: %d bytes are held of %d, %v", round, held, before, err)
		}
		es, err := j.Events(t.Context(), store.EventFilter{})
		if err != nil || len(es) < pruneStep/8 || es[len(es)-1].Seq != int64(first+n-1) || es[0].Seq != es[len(es)-1].Seq-int64(len(es)-1) {
			t.Errorf("round %d: %d events are left, %v", round, len(es), err)
		}
		as, _, err := j.Attempts(t.Context(), store.AttemptFilter{})
		if err != nil || len(as) != 1 || as[0].ID != a.ID {
			t.Errorf("round %d: attempts that are left: %+v, %v", round, as, err)
		}
		if round == 0 {
			full = size()
		} else if got := size(); got > full+2*bytes {
			t.Errorf("round %d: the file grew from %d to %d bytes", round, full, got)
		}
	}
	// Nothing is kept but the newest when not even that fits.
	keep.Bytes = 1
	if err := j.Prune(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if es, err := j.Events(t.Context(), store.EventFilter{}); len(es) != 1 || es[0].Seq != 3*n || err != nil {
		t.Errorf("%d events are left, %v", len(es), err)
	}
}

func TestDamagedRowIsNamed(t *testing.T) {
	j := openTestJournal(t, t.TempDir())
	if err := j.AppendEvents(t.Context(), boots(1, 1)); err != nil {
		t.Fatal(err)
	}
	err := j.file.Write(t.Context(), func(x *dbfile.Tx) error {
		_, err := x.Run("UPDATE event SET detail = '{', mac = 'nonsense'")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = j.Events(t.Context(), store.EventFilter{})
	if store.KindOf(err) != store.KindCorrupt || !strings.Contains(err.Error(), "event 1") {
		t.Errorf("kind %s: %v", store.KindOf(err), err)
	}
}

func TestInventoryAndJournalAreTwoFiles(t *testing.T) {
	dir := t.TempDir()
	openTestJournal(t, dir)
	db, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	names, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil || len(names) != 2 {
		t.Errorf("files: %v, %v", names, err)
	}
}

func TestBackupOpensAsAnInventory(t *testing.T) {
	db := openTestDB(t)
	dir := t.TempDir()
	if err := db.PutSetting(t.Context(), "tester", "key", "value"); err != nil {
		t.Fatal(err)
	}
	if err := db.Backup(t.Context(), filepath.Join(dir, "inventory.db")); err != nil {
		t.Fatal(err)
	}
	copied, err := Open(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if v, ok, err := copied.Setting(t.Context(), "key"); v != "value" || !ok || err != nil {
		t.Errorf("the copy holds %q, %v, %v", v, ok, err)
	}
}

// BenchmarkSearchAttempts is a search that finds little among the boots of months,
// with their scripts: a page is to be there in 50 ms.
func BenchmarkSearchAttempts(b *testing.B) {
	j := openTestJournal(b, b.TempDir())
	const n = 30_000
	script := strings.Repeat("set initiator-iqn iqn.2026-11.lunboot:lab || goto failed\n", 40)
	var all []store.Attempt
	for i := 1; i <= n; i++ {
		a := fullAttempt(i)
		a.Name, a.MAC, a.Script, a.Outcome, a.Diagnoses = fmt.Sprintf("lab-%04d", i%2000), testMAC(i%2000), script, store.OutcomeUp, nil
		if i%50 == 0 {
			a.Outcome, a.Diagnoses = store.OutcomeFailed, []store.Diagnosis{{Code: "LB-LUN-01", Title: a.Name + " asked for LUN 0, but its volume is LUN 2"}}
		}
		if all = append(all, a); len(all) == 1000 {
			if err := j.PutAttempts(b.Context(), all); err != nil {
				b.Fatal(err)
			}
			all = all[:0]
		}
	}
	for _, text := range []string{"", "lab-1234", "outcome:failed code:LB-LUN-01 since:2000-01-01", "nobody", "mac:0000000000ff"} {
		for _, by := range []string{"", "machine"} {
			b.Run(text+"|"+by, func(b *testing.B) {
				f, err := store.ParseAttemptSearch(text, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				f.Sort, f.Limit = by, 50
				for b.Loop() {
					if _, _, err := j.Attempts(b.Context(), f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
