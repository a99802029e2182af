package pages

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
)

// happen gives the lab a journal with these events, numbered from 1, one a second
// until noon.
func (l *lab) happen(t testing.TB, events ...store.Event) {
	t.Helper()
	j, err := sqlite.OpenJournal(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	for i := range events {
		events[i].Seq, events[i].At = int64(i+1), noon.Add(time.Duration(i-len(events))*time.Second)
	}
	for part := range slices.Chunk(events, 5000) {
		if err := j.AppendEvents(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	l.events = j
}

// lived is what happened in a lab: a boot of each of two machines, and a stranger.
func lived() []store.Event {
	mac := mustMAC("d4:5d:64:b1:09:7c")
	return []store.Event{
		{Kind: store.EventDHCPDiscover, MAC: mustMAC("b8:27:eb:91:3c:0d"), Detail: store.Detail{Interface: "eth1", Firmware: "UEFI", Arch: "arm64"}},
		{Kind: store.EventDHCPDiscover, MAC: mac, Machine: 2, Detail: store.Detail{Interface: "eth1"}},
		{Kind: store.EventTFTPAbort, MAC: mac, Machine: 2, Addr: netip.MustParseAddr("10.77.0.102"), Detail: store.Detail{File: "snponly.efi", Bytes: 4096, Total: 8192, Reason: "it gave up <here>"}},
		{Kind: store.EventScriptSent, MAC: mac, Machine: 2, Detail: store.Detail{Profile: "san", Key: "aWhisper", Script: "#!ipxe\necho secretive"}},
		{Kind: store.EventISCSINoLUN, Machine: 2, Addr: netip.MustParseAddr("10.77.0.102"), Detail: store.Detail{Initiator: "iqn.2026-11.lunboot:lab-12", LUN: new(0), Mapped: []int{2}}},
		{Kind: store.EventISCSILogin, Machine: 1, Addr: netip.MustParseAddr("10.77.0.101"), Detail: store.Detail{Initiator: "iqn.2026-11.lunboot:lab-01"}},
		{Kind: store.EventSpace, Detail: store.Detail{Bytes: 1 << 30, Reason: "1 GiB is free"}},
	}
}

func TestEventsAreListedAndNarrowed(t *testing.T) {
	l := full()
	get, _ := l.enter(t)
	code, body := get("/events")
	has(t, body, "Nothing has happened yet", `aria-current="page">Events</a>`)
	if code != http.StatusOK {
		t.Errorf("no event answers %d", code)
	}
	l.happen(t, lived()...)
	kinds := func(path string) (out []string) {
		t.Helper()
		code, body := get(path)
		if code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
		for _, m := range regexp.MustCompile(`<span class="small mono">([^<,]*)`).FindAllStringSubmatch(body, -1) {
			out = append(out, m[1])
		}
		return out
	}
	all := []string{"space.changed", "iscsi.login", "iscsi.no-lun", "script.sent", "tftp.abort", "dhcp.discover", "dhcp.discover"}
	old := slices.Clone(all)
	slices.Reverse(old)
	for path, want := range map[string][]string{
		"/events":                                 all,
		"/events?sort=-at":                        old,
		"/events?show=error":                      {"iscsi.no-lun"},
		"/events?show=warning":                    {"space.changed", "tftp.abort"},
		"/events?show=nonsense":                   all,
		"/events?machine=2":                       {"iscsi.no-lun", "script.sent", "tftp.abort", "dhcp.discover"},
		"/events?machine=2&search=kind:tftp":      {"tftp.abort"},
		"/events?search=machine:lab-0":            {"iscsi.login"},
		"/events?search=lab-12+dhcp":              {"dhcp.discover"},
		"/events?search=mac:B8-27":                {"dhcp.discover"},
		"/events?search=address:10.77.0.101":      {"iscsi.login"},
		`/events?search="gave+up"`:                {"tftp.abort"},
		"/events?search=since:4s":                 {"space.changed", "iscsi.login", "iscsi.no-lun", "script.sent"},
		"/events?search=until:5s+severity:info":   {"dhcp.discover", "dhcp.discover"},
		"/events?search=aWhisper":                 nil, // the key that a boot reports with
		"/events?search=secretive":                nil, // its script has a page
		"/events?search=interface":                nil, // a name, and no value
		"/events?search=nothing":                  nil,
		"/events?search=machine:nobody":           nil,
		"/events?search=attempt:12":               nil, // which had no event yet
		"/events?search=kind:dhcp+kind:discover":  {"dhcp.discover", "dhcp.discover"},
		"/events?search=kind:dhcp+severity:error": nil,
	} {
		if got := kinds(path); !slices.Equal(got, want) {
			t.Errorf("%s shows %v, want %v", path, got, want)
		}
	}
	_, body = get("/events?machine=2&show=warning")
	has(t, body, "Events of lab-12", `<a class="name" href="/machines/2">lab-12</a>`, "The transfer of the loader broke off", "it gave up &lt;here&gt;, snponly.efi, 4 KiB of 8 KiB", `title="event 3, `,
		`hx-get="/events?machine=2&amp;show=warning"`, `<input type="hidden" name="machine" value="2">`, `href="/export/events?format=csv&amp;machine=2&amp;show=warning"`)
	if strings.Contains(body, "aWhisper") {
		t.Error("a key is shown")
	}
	_, body = get("/events?search=nothing")
	has(t, body, "No event fits", `value="nothing"`, `href="/events"`)
	for search, says := range map[string]string{"kind:nonsense": "is no kind of event, nor part of one; there are: dhcp.discover", "severity:bad": "there are: error, warning, info", "attempt:x": "is no number of a boot", "attempt:999": "There is no boot 999", "since:lately": "is no time"} {
		if code, body := get("/events?search=" + search); code != http.StatusUnprocessableEntity || !strings.Contains(strings.ToLower(body), strings.ToLower(says)) || !strings.Contains(body, "space.changed") {
			t.Errorf("%s answers %d, and not %q", search, code, says)
		}
	}
	if code, _ := get("/events?machine=x"); code != http.StatusNotFound {
		t.Errorf("a machine that is none answers %d", code)
	}
	if _, body := get("/events?machine=77"); !strings.Contains(body, "machine 77, which was removed") {
		t.Error("a machine that was removed has no list")
	}
	for path, has := range map[string]string{"/machines/2": `href="/events?machine=2"`, "/machines/1": `href="/events?search=attempt%3A11"`, "/machines/4": `href="/events?machine=4">What was heard of it</a>`} {
		if _, body := get(path); !strings.Contains(body, has) {
			t.Errorf("%s does not lead to %s", path, has)
		}
	}
	code, table := get("/export/events?machine=2&show=warning&format=csv")
	if code != http.StatusOK || !strings.HasPrefix(table, "seq,at,severity,kind,machine,") || strings.Count(table, "\n") != 2 || !strings.Contains(table, ",warning,tftp.abort,lab-12,d4:5d:64:b1:09:7c,10.77.0.102,it gave up <here>,") {
		t.Errorf("the table answers %d\n%s", code, table)
	}
	_, table = get("/export/events?format=json")
	if strings.Count(table, `"seq"`) != len(all) || strings.Contains(table, "aWhisper") || strings.Contains(table, "secretive") {
		t.Errorf("the table is\n%s", table)
	}
	if _, table := get("/export/events?machine=nonsense&format=csv"); strings.Count(table, "\n") != 1 {
		t.Errorf("the table of no machine is\n%s", table)
	}
}

func TestAnEventSaysWhatItKnows(t *testing.T) {
	for _, c := range []struct {
		e    store.Event
		want string
	}{
		{store.Event{Kind: store.EventISCSIClosed, Detail: store.Detail{Reason: "it left", Bytes: 2048, Written: 1024, Initiator: "iqn.a", Key: "k", Script: "s"}}, "it left, read 2 KiB, wrote 1 KiB, initiator iqn.a"},
		{store.Event{Kind: store.EventTFTPSent, Detail: store.Detail{File: "a.efi", URL: "a.efi", Bytes: 1024, Total: 1024}}, "a.efi, 1 KiB of 1 KiB"},
		{store.Event{Kind: store.EventDropped, Detail: store.Detail{Bytes: 12, Reason: "12 samples were left out"}}, "12 samples were left out"},
		{store.Event{Kind: store.EventISCSINoLUN, Detail: store.Detail{LUN: new(0), Sense: "05/25/00"}}, "LUN 0, sense 05/25/00"},
		{store.Event{Kind: store.EventDHCPDiscover, Detail: store.Detail{Interface: "eth1", Relay: "10.9.0.1", Firmware: "UEFI", Arch: "arm64", Hostname: "x"}}, "calls itself x, UEFI arm64, on eth1, by the relay 10.9.0.1"},
		{store.Event{Kind: store.EventRASent}, ""},
	} {
		if got := strings.Join(eventFacts(c.e), ", "); got != c.want {
			t.Errorf("%s says %q, not %q", c.e.Kind, got, c.want)
		}
	}
	for _, k := range store.EventKinds() {
		if eventWords(k) == string(k) || strings.Contains(eventWords(k), ".") {
			t.Errorf("%s is not said in words", k)
		}
	}
}

// A boot's events are those that its machine had between its first and its last.
func TestTheEventsOfABootAreFound(t *testing.T) {
	l := full()
	a := l.latest[2]
	a.FirstSeq, a.LastSeq, a.MAC = 3, 5, mustMAC("d4:5d:64:b1:09:7c")
	l.latest[2] = a
	l.happen(t, lived()...)
	get, _ := l.enter(t)
	_, body := get(fmt.Sprintf("/events?search=attempt:%d", a.ID))
	before(t, body, []string{"iscsi.no-lun", "script.sent", "tftp.abort"}, "iscsi.login", "dhcp.discover")
}

// A machine with thousands of events is looked at as quickly as any other: what a
// page costs is said where it is measured, in cmd/lunboot.
func TestThousandsOfEventsComeByPages(t *testing.T) {
	l := full()
	var all []store.Event
	for n := range 3000 {
		all = append(all, store.Event{Kind: store.EventISCSIIO, Machine: store.MachineID(1 + n%2), Addr: netip.MustParseAddr("10.77.0.101"), Detail: store.Detail{Bytes: int64(n)}})
	}
	l.happen(t, all...)
	get, _ := l.enter(t)
	for path, want := range map[string]string{"/events": "1–100 of 3000", "/events?machine=1&from=1400": "1401–1500 of 1500", "/events?machine=1&from=9000": "1401–1500 of 1500", "/events?from=2950": "2951–3000 of 3000"} {
		_, body := get(path)
		has(t, body, want)
		if strings.Contains(body, `id="list" hx-get`) != !strings.Contains(path, "from") {
			t.Errorf("%s: only what is newest comes by itself", path)
		}
	}
}
