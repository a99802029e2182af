package download_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/services/boot"
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

// What grows with time is sent a part at a time: every boot once, whatever begins
// meanwhile.
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
	l := download.Lists{Now: func() time.Time { return now }, Attempts: func(ctx context.Context, f store.AttemptFilter) (store.Parts[store.Attempt], error) {
		next, err := j.EveryAttempt(ctx, f)
		return func(ctx context.Context) ([]store.Attempt, error) {
			asked++
			begin(n+asked*10, n+asked*10+9)
			return next(ctx)
		}, err
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
		Audit:    func(context.Context, store.AuditFilter) (store.Parts[store.Audit], error) { return nil, broken },
		Attempts: func(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error) { return nil, nil },
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
	l := download.Lists{Now: time.Now, Audit: func(context.Context, store.AuditFilter) (store.Parts[store.Audit], error) {
		return func(context.Context) ([]store.Audit, error) {
			if asked++; asked > 1 {
				return nil, errors.New("the disk broke")
			}
			return make([]store.Audit, 500), nil
		}, nil
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

// sound is an appliance whose file system does not say what volumes take.
type sound struct{ download.Inventory }

func (sound) Takes(context.Context) (map[store.VolumeID]int64, error) {
	return nil, errors.New("the disk broke")
}
func (sound) Volumes(context.Context) ([]store.Volume, error) {
	return []store.Volume{{ID: 1, Name: "debian"}, {ID: 2, Name: "clone", Parent: 1}}, nil
}
func (sound) Mappings(context.Context) ([]store.Mapping, error) {
	return []store.Mapping{{Machine: 3, Volume: 2}}, nil
}
func (sound) Machines(context.Context, store.MachineFilter) ([]store.Machine, int, error) {
	return []store.Machine{{ID: 3, Name: "lab-03", MACs: []store.MAC{{0, 7, 0xe9, 1, 2, 3}}}}, 1, nil
}
func (sound) UnknownMachines(_ context.Context, ignored bool) ([]store.UnknownMachine, error) {
	return []store.UnknownMachine{{MAC: store.MAC{0x52, 0x54, 0, 0, 0, 1}, Ignored: ignored}}, nil
}
func (sound) Leases(context.Context) ([]store.Lease, error) {
	return []store.Lease{{MAC: store.MAC{0, 7, 0xe9, 1, 2, 3}}}, nil
}
func (sound) Sessions() []store.Session { return []store.Session{{ID: "1", Machine: 3}} }
func (sound) Profiles(context.Context) ([]store.Profile, error) {
	return []store.Profile{{Name: "debian", Kind: store.ProfileInstall, Text: "password", Fields: map[string]string{"media": "debian-12", "kernel": "linux"}}}, nil
}
func (sound) AllMedia(context.Context) ([]store.Media, error) {
	return []store.Media{{Name: "debian-12", Kind: store.MediaISO, Size: 7}}, nil
}
func (sound) Subnets(context.Context) ([]store.Subnet, error) {
	return []store.Subnet{{ID: 1, Interface: "eth1", Prefix: netip.MustParsePrefix("10.77.0.0/24"), Mode: store.DHCPFull, LeaseTime: time.Hour}}, nil
}
func (sound) MappingViews(context.Context, store.MachineID) ([]store.MappingView, error) {
	return []store.MappingView{{MachineName: "lab-03", VolumeName: "clone", Mapping: store.Mapping{LUN: 7, Boot: true}}}, nil
}
func (sound) Users(context.Context) ([]store.User, error) {
	return []store.User{{Name: "anna", Role: store.RoleAdmin, Hash: "secret-hash"}}, nil
}
func (sound) Tokens(context.Context) ([]store.Token, error) {
	return []store.Token{{ID: 5, Name: "ci", Scope: "read", Hash: "secret-hash"}}, nil
}
func (sound) Attempt(context.Context, store.AttemptID) (store.Attempt, error) {
	return store.Attempt{Machine: 3, FirstSeq: 2, LastSeq: 9}, nil
}
func (sound) EveryAttempt(context.Context, store.AttemptFilter) (store.Parts[store.Attempt], error) {
	return nil, nil
}

// EveryEvent answers the filter as an event, once.
func (sound) EveryEvent(_ context.Context, f store.EventFilter) (store.Parts[store.Event], error) {
	sent := false
	return func(context.Context) ([]store.Event, error) {
		if sent {
			return nil, nil
		}
		sent = true
		return []store.Event{
			{Seq: 1, Machine: 3, Kind: store.EventISCSINoLUN, Detail: store.Detail{Reason: fmt.Sprint(f.Search.Machines, f.Search.Spans), Script: "#!ipxe secret", LUN: new(0)}},
			{Seq: 2, Machine: 4, Kind: store.EventDHCPDiscover},
		}, nil
	}, nil
}
func (sound) Manifest() []boot.LoaderInfo {
	return []boot.LoaderInfo{{Name: "ipxe.efi", Firmware: "UEFI", Arch: "x86-64", Features: []string{"iSCSI", "NFS"}, Rung: 1, Silent: 2}}
}

func TestListsAreJoinedFromThePartsOfTheAppliance(t *testing.T) {
	var log strings.Builder
	s := sound{}
	l := download.From(download.Sources{Inventory: s, Volumes: s, Sessions: s, Media: s, Loaders: s, Attempts: s, Events: s, People: s, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { return time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC) }})
	for list, want := range map[string]string{
		"volumes":          "\n2,clone,,0,,0,,false,0,false,false,false,debian,lab-03,,\n",
		"unknown-machines": "52:54:00:00:00:01,QEMU virtual machine,",
		"leases":           "\n,00:07:e9:01:02:03,lab-03,,expired,",
		"sessions":         "\n1,lab-03,",
		"profiles":         "name,kind,fields,builtin\ndebian,install,kernel=linux media=debian-12,false\n",
		"media":            "\ndebian-12,iso,7,",
		"subnets":          "\n1,10.77.0.0/24,eth1,full,,0,0,,,,,,3600,\n",
		"mappings":         "\nlab-03,7,clone,0,true,false,\n",
		"users":            "\nanna,admin,,,false,,\n",
		"tokens":           "\n5,ci,,read,false,,,\n",
		"events":           "1,,error,iscsi.no-lun,lab-03,,,[] [],\"{\"\"lun\"\":0}\"\n2,,info,dhcp.discover,,,,,{}\n",
		"loaders":          "\nipxe.efi,,,UEFI,x86-64,,iSCSI NFS,,0,,,false,1,0,2,",
	} {
		if text := get(t, l, download.Asked{List: list, Format: "csv"}); !strings.Contains(text, want) {
			t.Errorf("%s are\n%s", list, text)
		}
	}
	for list, need := range map[string]store.Scope{"users": store.ScopeAdmin, "tokens": store.ScopeAdmin, "events": store.ScopeRead, "machines": store.ScopeRead} {
		if download.Need(list) != need {
			t.Errorf("%s need %s", list, download.Need(list))
		}
	}
	if text := get(t, l, download.Asked{List: "events", Search: "machine:LAB-03 attempt:12", Format: "csv"}); !strings.Contains(text, "[[3]] [{3 00:00:00:00:00:00 2 9}]") {
		t.Errorf("a name and a boot are looked up as\n%s", text)
	}
	named, err := download.WithNames(t.Context(), func(_ context.Context, id store.MachineID) (store.Machine, error) {
		if id == 4 {
			return store.Machine{}, store.NotFound("machine", "4")
		}
		return store.Machine{Name: "lab-03"}, nil
	}, []store.Event{{Machine: 3}, {Machine: 4}, {}})
	if err != nil || named[0].Name != "lab-03" || named[1].Name != "" || named[2].Name != "" {
		t.Errorf("they are called %+v, %v", named, err)
	}
	if _, err := download.WithNames(t.Context(), func(context.Context, store.MachineID) (store.Machine, error) {
		return store.Machine{}, errors.New("the disk broke")
	}, []store.Event{{Machine: 3}}); err == nil {
		t.Error("a fault is taken for no name")
	}
	if !strings.Contains(log.String(), "what volumes take is not known") {
		t.Errorf("it logs %q", log.String())
	}
	us, err := l.Unknown(t.Context(), false)
	if err != nil || us[0].Ignored {
		t.Errorf("those that are ignored come unasked: %+v, %v", us, err)
	}
}
