package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
)

// lived fills the journal of an appliance that does not run: n events of each of
// so many machines in turn, the last one now, the first one a week ago, of the
// sizes that boots have.
func lived(t testing.TB, dir string, machines, n int) {
	t.Helper()
	j, err := sqlite.OpenJournal(t.Context(), dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	last, err := j.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const week = 7 * 24 * time.Hour
	total, now := machines*n, time.Now()
	script := "#!ipxe\n" + strings.Repeat("echo a line of a script that is as long as they are\n", 40)
	batch := make([]store.Event, 0, 2000)
	for i := range total {
		m := store.MachineID(1 + i%machines)
		e := store.Event{Seq: last + 1 + int64(i), At: now.Add(-week / time.Duration(total) * time.Duration(total-1-i)), Machine: m, MAC: store.MAC{2, 0, 0, 0, 0, byte(m)}, Addr: netip.AddrFrom4([4]byte{10, 77, 0, byte(m)})}
		initiator := fmt.Sprintf("iqn.2026-11.lunboot:lab-%d", m)
		switch k := i / machines % 40; {
		case k == 0:
			e.Kind, e.Detail = store.EventDHCPDiscover, store.Detail{Interface: "eth1", Firmware: "UEFI", Arch: "x86-64", Class: "PXEClient:Arch:00007:UNDI:003016", PXE: true}
		case k == 1:
			e.Kind, e.Detail = store.EventDHCPAck, store.Detail{Interface: "eth1", Loader: "snponly.efi", Router: "10.77.0.254"}
		case k == 2:
			e.Kind, e.Detail = store.EventTFTPSent, store.Detail{File: "snponly.efi", Bytes: 270336, Total: 270336, Millis: 812, Blksize: 1468}
		case k == 3:
			e.Kind, e.Detail = store.EventScriptSent, store.Detail{Profile: "san", MatchedBy: "mac", Script: script, Key: "abcdefghijklmnop"}
		case k == 4:
			e.Kind, e.Detail = store.EventISCSILogin, store.Detail{Initiator: initiator, Session: fmt.Sprint(i), Auth: "mutual"}
		case k == 5 && i/machines%400 < 40:
			e.Kind, e.Detail = store.EventISCSINoLUN, store.Detail{Initiator: initiator, LUN: new(0), Mapped: []int{2}, Opcode: "25", Sense: "05/25/00"}
		case k == 39:
			e.Kind, e.Detail = store.EventISCSIClosed, store.Detail{Initiator: initiator, Session: fmt.Sprint(i), Reason: "the initiator closed the connection", Bytes: 1 << 30}
		default:
			e.Kind, e.Detail = store.EventISCSIIO, store.Detail{Initiator: initiator, Session: fmt.Sprint(i), Bytes: int64(i) << 10, Written: int64(i)}
		}
		if batch = append(batch, e); len(batch) == cap(batch) || i == total-1 {
			if err := j.AppendEvents(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
}

// A machine with fifty thousand events among those of others: what its page, its
// list and each way to narrow it take, by the clock, from the request's first byte
// to the answer's last, through the whole appliance. LUNBOOT_SOAK=1 fills the
// journal as far as it is ever kept.
func TestFiftyThousandEventsOfAMachineAreLookedAt(t *testing.T) {
	const each, rounds, most = 50_000, 9, 3 * time.Second
	machines := 3
	if os.Getenv("LUNBOOT_SOAK") != "" {
		machines = 10
	}
	dir := dataDir(t)
	first := serve(t, dir)
	for m := range machines {
		first.must(t, "machine", "add", fmt.Sprintf("lab-%d", m+1), "--mac", fmt.Sprintf("02:00:00:00:00:%02x", m+1))
	}
	if code := first.stop(t); code != exitDone {
		t.Fatalf("lunboot serve ended with %d: %s", code, first.log)
	}
	lived(t, dir, machines, each)
	began := time.Now()
	a := started(t, dir)
	browser := people(t, a)
	local := socketClient(dir)
	local.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(local.CloseIdleConnections)
	a.must(t, "attempt", "list", "--limit", "1") // which waits until the boots are folded
	t.Logf("%d events; started and folded after %s", machines*each, time.Since(began).Round(time.Millisecond))
	page, api := "http://"+a.Admin, "http://lunboot/api/v1"
	total := func(n int) string { return fmt.Sprintf("of %d<", n) }
	for _, what := range []struct {
		name  string
		by    *http.Client
		url   string
		holds string
	}{
		{"the machine's page", browser, page + "/machines/1", "All of lab-1"},
		{"its events", browser, page + "/events?machine=1", total(each + 1)},
		{"its events, halfway", browser, page + "/events?machine=1&from=25000", "25001–25100 " + total(each+1)},
		{"its events, by name", browser, page + "/events?search=machine:lab-1", "1–100 of "},
		{"its errors", browser, page + "/events?machine=1&show=error", total(each / 400)},
		{"one kind", browser, page + "/events?machine=1&search=kind:iscsi.closed", total(each / 40)},
		{"since a day", browser, page + "/events?machine=1&search=since:1d", "1–100 of "},
		{"one kind of an old day", browser, page + "/events?machine=1&search=kind:tftp.sent+since:6d+until:5d", "1–100 of "},
		{"a word", browser, page + "/events?machine=1&search=snponly", total(2 * each / 40)},
		{"a word that is nowhere", browser, page + "/events?machine=1&search=nothing-of-this", "No event fits"},
		{"everybody's events", browser, page + "/events", total(machines * (each + 1))},
		{"everybody's errors", browser, page + "/events?show=error", total(machines * each / 400)},
		{"everybody's since an hour", browser, page + "/events?search=since:1h", "1–100 of "},
		{"everybody's, a word that is nowhere", browser, page + "/events?search=nothing-of-this", "No event fits"},
		{"API, the first 500 of it", local, api + "/events?machine=1&limit=500", `"total":500`},
		{"API, its errors by cursor", local, api + fmt.Sprintf("/events?machine=1&after=%d&search=severity:error", machines*each/2), `"kind":"iscsi.no-lun"`},
		{"API, its newest 100", local, api + "/events?machine=1&limit=100&sort=at", fmt.Sprintf(`"total":%d`, each+1)},
	} {
		var took []time.Duration
		for range rounds {
			began := time.Now()
			answer, err := what.by.Get(what.url)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			took = append(took, time.Since(began))
			if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), what.holds) {
				t.Errorf("%s: %s %v: no %q in %.3000s", what.name, answer.Status, err, what.holds, text)
				break
			}
		}
		slices.Sort(took)
		t.Logf("%-36s %7.1f ms, at most %7.1f ms", what.name, took[len(took)/2].Seconds()*1000, took[len(took)-1].Seconds()*1000)
		if took[len(took)/2] > most {
			t.Errorf("%s takes %s", what.name, took[len(took)/2])
		}
	}
}
