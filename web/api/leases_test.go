package api_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

// happen writes events into the journal's table.
func (h *house) happen(events ...store.Event) {
	h.t.Helper()
	last, err := h.table.LastSeq(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for i := range events {
		events[i].Seq, events[i].At = last+int64(i)+1, time.Now()
	}
	if err := h.table.AppendEvents(h.t.Context(), events); err != nil {
		h.t.Fatal(err)
	}
}

// leased gives the house leases: one in use, one whose volume is open, one that was
// declined, and two that have expired.
func (h *house) leased() {
	h.t.Helper()
	now := time.Now()
	for i, l := range []store.Lease{
		{State: store.LeaseBound, Expires: now.Add(time.Hour)}, {State: store.LeaseBound, Expires: now.Add(time.Hour)}, {State: store.LeaseDeclined, Expires: now.Add(time.Hour)},
		{State: store.LeaseBound, Expires: now.Add(-time.Hour)}, {State: store.LeaseOffered, Expires: now.Add(-time.Minute)},
	} {
		l.Address, l.MAC = netip.AddrFrom4([4]byte{10, 77, 0, byte(101 + i)}), store.MAC{2, 0, 0, 0, 0, byte(1 + i)}
		if err := h.db.PutLease(h.t.Context(), l); err != nil {
			h.t.Fatal(err)
		}
	}
	h.live.also = []store.Session{{ID: "s2", Initiator: "iqn.2026-11.lab:two", Addr: "10.77.0.102:49152"}}
}

func (h *house) addresses(search string) string {
	h.t.Helper()
	var out api.List[store.Lease]
	h.must(200, "GET", "/api/v1/leases?sort=address&search="+search, "").json(h.t, &out)
	var all []string
	for _, l := range out.Items {
		all = append(all, l.Address.String()[len("10.77.0."):])
	}
	return strings.Join(all, " ")
}

func TestManyLeasesAreDroppedEachByItself(t *testing.T) {
	h := open(t)
	h.leased()
	drop := func(status int, body string) (out api.LeaseDrops) {
		t.Helper()
		a := h.must(status, "POST", "/api/v1/leases/drop", body)
		if status == 200 {
			a.json(t, &out)
		}
		return out
	}
	fate := func(out api.LeaseDrops) string {
		var words []string
		for _, l := range out.Items {
			word := l.Address.String()[len("10.77.0."):]
			if l.InUse {
				word += " used"
			}
			if !l.Dropped {
				word += " stays"
			}
			words = append(words, word)
		}
		return strings.Join(words, ", ")
	}
	// A look changes nothing, and says what would become of each.
	look := drop(200, `{"search":"","dry_run":true}`)
	if got := fate(look); got != "101 used stays, 102 stays, 103, 104, 105" || look.Done || look.Dropped != 3 || look.Match == "" {
		t.Errorf("a dry run says %s, %+v", got, look)
	}
	if !strings.Contains(look.Items[0].Problem, "10.77.0.101 is in use: its machine goes on using it") || !strings.Contains(look.Items[1].Problem, "iqn.2026-11.lab:two has its volume open from 10.77.0.102; its session has to end first") {
		t.Errorf("the problems are %+v", look.Items)
	}
	if got := h.addresses(""); got != "101 102 103 104 105" {
		t.Fatalf("left are %s", got)
	}
	// Others than were looked at are not dropped.
	if err := h.db.PutLease(t.Context(), store.Lease{Address: netip.MustParseAddr("10.77.0.104"), MAC: store.MAC{2, 0, 0, 0, 0, 4}, State: store.LeaseBound, Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if a := h.must(409, "POST", "/api/v1/leases/drop", `{"search":"","match":"`+look.Match+`"}`); !strings.Contains(string(a.body), "nothing was dropped") {
		t.Errorf("it answers %s", a.body)
	}
	if out := drop(200, `{"search":"state:expired"}`); fate(out) != "105" || !out.Done || out.Dropped != 1 {
		t.Errorf("those that have expired: %+v", out)
	}
	if out := drop(200, `{"search":"state:expired"}`); len(out.Items) != 0 || out.Items == nil {
		t.Errorf("once more: %+v", out)
	}
	if out := drop(200, `{"addresses":["10.77.0.101","10.77.0.102","10.77.0.103","10.77.0.103"]}`); fate(out) != "101 used stays, 102 stays, 103" {
		t.Errorf("by addresses: %+v", out)
	}
	out := drop(200, `{"search":"10.77","in_use":true}`)
	if fate(out) != "101 used, 102 stays, 104 used" || out.Dropped != 2 {
		t.Errorf("those in use too: %+v", out)
	}
	if got := h.addresses(""); got != "102" {
		t.Errorf("left are %s", got)
	}
	// One alone, by its path: the machine runs from it.
	if a := h.must(409, "DELETE", "/api/v1/leases/10.77.0.102", ""); !strings.Contains(string(a.body), "has its volume open from 10.77.0.102") {
		t.Errorf("it answers %s", a.body)
	}
	h.live.also = nil
	h.must(204, "DELETE", "/api/v1/leases/10.77.0.102", "")
	for _, bad := range []string{`{}`, `{"search":"","addresses":["10.77.0.1"]}`, `{"search":"state:x"}`, `{"addresses":["x"]}`, `{"addresses":[]}`} {
		drop(422, bad)
	}
	drop(404, `{"addresses":["10.77.0.250"]}`)
	var log api.List[store.Audit]
	h.must(200, "GET", "/api/v1/audit?search=what:lease.drop", "").json(t, &log)
	if log.Total != 5 {
		t.Errorf("on record are %d", log.Total)
	}
	h.as = auth.Identity{Actor: "viewer", Scope: store.ScopeRead}
	drop(403, `{"search":""}`)
}

// Events by cursor stay as they are; what is looked for comes as the page lists it.
func TestEventsAreFoundAndFollowed(t *testing.T) {
	h := open(t)
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-01","macs":["00:07:e9:0f:ea:01"]}`)
	var all []store.Event
	for n := range 7 {
		all = append(all, store.Event{Kind: []store.EventKind{store.EventDHCPDiscover, store.EventISCSINoLUN}[n%2], Machine: store.MachineID(n % 3), Detail: store.Detail{Key: "aWhisper", Secs: n}})
	}
	h.happen(all...)
	get := func(query string) (seqs []int64, total int, names string) {
		t.Helper()
		var out struct {
			Items []struct {
				Seq  int64
				Name string `json:"machine_name"`
			}
			Total int
		}
		a := h.must(200, "GET", "/api/v1/events?"+query, "")
		if strings.Contains(string(a.body), "aWhisper") {
			t.Errorf("%s has a key: %s", query, a.body)
		}
		a.json(t, &out)
		for _, e := range out.Items {
			seqs, names = append(seqs, e.Seq), names+e.Name
		}
		return seqs, out.Total, names
	}
	for query, want := range map[string]string{
		"search=":                                  "[7,6,5,4,3,2,1] 7",
		"search=machine:lab-01":                    "[5,2] 2",
		"search=severity:error&limit=1":            "[6] 3",
		"search=kind:iscsi&limit=2&offset=1":       "[4,2] 3",
		"sort=-at&limit=3":                         "[1,2,3] 7",
		"sort=kind&machine=1":                      "[5,2] 2",
		"search=nothing":                           "null 0",
		"offset=6":                                 "[1] 7",
		"search=lab-01+kind:dhcp&sort=-at&limit=9": "[5] 1",
	} {
		seqs, total, names := get(query)
		text, err := json.Marshal(seqs)
		if got := string(text) + " " + string(rune('0'+total)); err != nil || got != want {
			t.Errorf("%s finds %s, want %s", query, got, want)
		}
		if strings.Contains(query, "machine:lab-01") && names != "lab-01lab-01" {
			t.Errorf("%s names %q", query, names)
		}
	}
	for _, query := range []string{"search=kind:nonsense", "sort=colour", "offset=x", "search=attempt:9", "limit=x", "mac=x"} {
		if a := h.must(422, "GET", "/api/v1/events?"+query, ""); a.kind != "application/problem+json" {
			t.Errorf("%s answers %s", query, a.kind)
		}
	}
}
