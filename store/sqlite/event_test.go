package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// mixed are n events of five machines and two strangers, a second apart.
func mixed(n int, from time.Time) []store.Event {
	r := rand.New(rand.NewPCG(1, 2))
	kinds := store.EventKinds()
	words := []string{"snponly.efi", `a "quoted" <word>`, `back\slash`, "100%", "under_score", "Gerät", "plain", "iqn.2026-11.lab:a"}
	out := make([]store.Event, n)
	for i := range out {
		e := store.Event{Seq: int64(i + 1), At: from.Add(time.Duration(i) * time.Second), Kind: kinds[r.IntN(len(kinds))], Machine: store.MachineID(r.IntN(6))}
		if r.IntN(3) > 0 {
			e.MAC = store.MAC{0, 7, 0xe9, 0, 0, byte(e.Machine)}
		}
		if r.IntN(2) > 0 {
			e.Addr = netip.AddrFrom4([4]byte{10, 77, 0, byte(r.IntN(20))})
		}
		if e.Machine == 3 && r.IntN(2) > 0 {
			e.Attempt = 7
		}
		for _, to := range []*string{&e.Detail.File, &e.Detail.Reason, &e.Detail.Interface, &e.Detail.Hostname} {
			if r.IntN(3) == 0 {
				*to = words[r.IntN(len(words))]
			}
		}
		if r.IntN(5) == 0 {
			e.Detail.Key, e.Detail.Script, e.Detail.Bytes, e.Detail.IPXE = "whisper", "#!ipxe\necho plainly", 4711, true
		}
		out[i] = e
	}
	return out
}

// What the table finds is what fits: the two say the same of every search, in SQL
// and in Go.
func TestTheTableFindsTheEventsThatFit(t *testing.T) {
	begun := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	all := mixed(3000, begun)
	j := openJournal(t)
	if err := j.AppendEvents(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	names := store.EventNames{
		Machines: func(part string) (ids []store.MachineID, _ error) {
			for id := range store.MachineID(6) {
				if id > 0 && strings.Contains(fmt.Sprintf("lab-%d", id), strings.ToLower(part)) {
					ids = append(ids, id)
				}
			}
			return ids, nil
		},
		Attempt: func(id store.AttemptID) (store.Attempt, error) {
			return store.Attempt{ID: id, Machine: store.MachineID(id), MAC: store.MAC{0, 7, 0xe9, 0, 0, byte(id)}, FirstSeq: 500, LastSeq: 1500}, nil
		},
	}
	none, some := 0, 0
	for _, text := range []string{
		"", "lab-3", "machine:lab-3", "machine:lab", "machine:nobody", "machine:lab-1 machine:lab-2", "mac:0007e9000002", "mac:00:07:e9:00:00:02", "mac:07-E9", "mac:ff", "address:10.77.0.1", "address:10.77.0.19",
		"kind:dhcp", "kind:iscsi.io", "severity:error", "severity:warning kind:tftp", "kind:dhcp kind:iscsi", "since:2026-11-22T14:20", "until:2026-11-22T14:20", "since:2026-11-22T14:10 until:2026-11-22T14:11",
		"attempt:3", "attempt:3 kind:dhcp", "attempt:9", "snponly", "SNPONLY.EFI", `"a "`, "quoted", "<word>", `back\slash`, "100%", "%", "under_score", "_", "Gerät", "plain", "plainly", "whisper", "4711", "true", "hostname", "script", "iqn.2026-11.lab:a",
		"10.77.0.7", "0007e9", "00:07:e9:00:00:04", "tftp", "lab-2 plain severity:info", "plain snponly", "nothing-of-this",
	} {
		search, err := store.ParseEventSearch(text, begun.Add(time.Hour), names)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		for _, f := range []store.EventFilter{{}, {Machine: 3}, {MAC: store.MAC{0, 7, 0xe9, 0, 0, 1}}, {Attempt: 7}} {
			f.Search = search
			var want []int64
			for i := range all {
				if f.Fits(&all[i]) {
					want = append(want, all[i].Seq)
				}
			}
			if f.Narrowed() == (len(want) == len(all)) {
				t.Errorf("%s is narrowed: %t, and %d of %d fit", text, f.Narrowed(), len(want), len(all))
			}
			found, total, err := j.FindEvents(t.Context(), store.EventFilter{Search: f.Search, Machine: f.Machine, MAC: f.MAC, Attempt: f.Attempt, Sort: "-at"})
			if got := seqs(found); err != nil || total != len(want) || !slices.Equal(got, want) {
				t.Errorf("%q, %+v: %d of %d found, %v", text, f, len(got), len(want), err)
			}
			rising, err := j.Events(t.Context(), store.EventFilter{Search: f.Search, Machine: f.Machine, MAC: f.MAC, Attempt: f.Attempt, After: 700, Limit: 50})
			later := slices.DeleteFunc(slices.Clone(want), func(s int64) bool { return s <= 700 })
			if got := seqs(rising); err != nil || !slices.Equal(got, later[:min(50, len(later))]) {
				t.Errorf("%q after 700: %d of %d, %v", text, len(got), len(later), err)
			}
			if len(want) == 0 {
				none++
			} else {
				some++
			}
		}
	}
	if none < 30 || some < 90 {
		t.Errorf("%d searches find nothing, %d something", none, some)
	}
}

func seqs(events []store.Event) (out []int64) {
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

func openJournal(t testing.TB) *Journal {
	t.Helper()
	j, err := OpenJournal(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func TestEventsArePagedSortedAndCounted(t *testing.T) {
	all := mixed(1234, time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC))
	j := openJournal(t)
	if page, total, err := j.FindEvents(t.Context(), store.EventFilter{Limit: 10}); err != nil || total != 0 || len(page) != 0 {
		t.Errorf("of none: %d of %d, %v", len(page), total, err)
	}
	if err := j.AppendEvents(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		f           store.EventFilter
		n, total    int
		first, last int64
	}{
		{store.EventFilter{Limit: 100}, 100, 1234, 1234, 1135},
		{store.EventFilter{Limit: 100, Offset: 1200}, 34, 1234, 34, 1},
		{store.EventFilter{Limit: 34, Offset: 1200}, 34, 1234, 34, 1},
		{store.EventFilter{Limit: 100, Offset: 5000}, 0, 1234, 0, 0},
		{store.EventFilter{Limit: 100, Sort: "-at"}, 100, 1234, 1, 100},
		{store.EventFilter{Sort: "-at"}, 1234, 1234, 1, 1234},
	} {
		page, total, err := j.FindEvents(t.Context(), c.f)
		if err != nil || total != c.total || len(page) != c.n {
			t.Errorf("%+v: %d of %d, %v", c.f, len(page), total, err)
		} else if c.n > 0 && (page[0].Seq != c.first || page[c.n-1].Seq != c.last) {
			t.Errorf("%+v: from %d to %d", c.f, page[0].Seq, page[c.n-1].Seq)
		}
	}
	rank := func(e store.Event) int { return slices.Index(store.EventKinds(), e.Kind) }
	for sort, sign := range map[string]int{"kind": 1, "-kind": -1} {
		found, _, err := j.FindEvents(t.Context(), store.EventFilter{Sort: sort})
		if err != nil || !slices.IsSortedFunc(found, func(a, b store.Event) int {
			if d := sign * (rank(a) - rank(b)); d != 0 {
				return d
			}
			return int(b.Seq - a.Seq)
		}) {
			t.Errorf("by %s they are not sorted, %v", sort, err)
		}
	}
	if _, _, err := j.FindEvents(t.Context(), store.EventFilter{Sort: "colour"}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("by a colour: %v", err)
	}
	if _, err := j.EveryEvent(t.Context(), store.EventFilter{Sort: "colour"}); store.KindOf(err) != store.KindInvalid {
		t.Errorf("every one by a colour: %v", err)
	}
	// What is forgotten is not counted, and the keys of boots leave with nothing.
	if err := j.Prune(t.Context(), store.Retention{Events: 1000}); err != nil {
		t.Fatal(err)
	}
	page, total, err := j.FindEvents(t.Context(), store.EventFilter{Limit: 7})
	if err != nil || total != 1000 || len(page) != 7 {
		t.Errorf("after some were forgotten: %d of %d, %v", len(page), total, err)
	}
	next, err := j.EveryEvent(t.Context(), store.EventFilter{Machine: 3})
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, int64(1<<62)
	for {
		part, err := next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			break
		}
		for _, e := range part {
			if e.Detail.Key != "" || e.Machine != 3 || e.Seq >= last {
				t.Fatalf("%+v comes after %d", e, last)
			}
			last = e.Seq
			n++
		}
	}
	_, total, err = j.FindEvents(t.Context(), store.EventFilter{Machine: 3, Limit: 1})
	if err != nil || n != total || n < 100 {
		t.Errorf("%d of %d come, %v", n, total, err)
	}
	whole, _, err := j.FindEvents(t.Context(), store.EventFilter{})
	if err != nil || slices.ContainsFunc(whole, func(e store.Event) bool { return e.Detail.Key != "" }) {
		t.Errorf("a key is found, %v", err)
	}
}
