package sheet_test

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/listing"
	"lunboot/store/sheet"
)

type thing struct {
	name string
	n    int64
	at   time.Time
	all  []string
}

var things = sheet.Table[thing]{
	{"name", func(x thing) any { return x.name }},
	{"n", func(x thing) any {
		if x.n < 0 {
			return nil
		}
		return x.n
	}},
	{"odd", func(x thing) any { return x.n%2 == 1 }},
	{"at", func(x thing) any { return x.at }},
	{"all", func(x thing) any { return x.all }},
}

func written[T any](t *testing.T, cols sheet.Table[T], f sheet.Format, items ...T) string {
	t.Helper()
	var b strings.Builder
	out, err := cols.Write(&b, f)
	for _, item := range items {
		if err == nil {
			err = out.Row(item)
		}
	}
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestATableIsCSVOrJSON(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.FixedZone("lab", 3600))
	items := []thing{{"=cmd()", 3, at, []string{"a", "b"}}, {`quoted "x", y`, -1, time.Time{}, nil}}
	text := written(t, things, sheet.CSV, items...)
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	want := [][]string{{"name", "n", "odd", "at", "all"}, {"'=cmd()", "3", "true", "2026-11-22T13:00:00Z", "a b"}, {`quoted "x", y`, "", "false", "", ""}}
	if err != nil || !reflect.DeepEqual(rows, want) {
		t.Errorf("%v of\n%s", err, text)
	}
	text = written(t, things, sheet.JSON, items...)
	var objects []map[string]any
	if err := json.Unmarshal([]byte(text), &objects); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if want := []map[string]any{{"name": "=cmd()", "n": 3.0, "odd": true, "at": "2026-11-22T13:00:00Z", "all": []any{"a", "b"}}, {"name": `quoted "x", y`, "n": nil, "odd": false, "at": nil, "all": []any{}}}; !reflect.DeepEqual(objects, want) {
		t.Errorf("it is %v", objects)
	}
	if !strings.HasPrefix(text, "[\n {\"name\": ") || strings.Index(text, `"odd"`) > strings.Index(text, `"all"`) {
		t.Errorf("its keys are in no order:\n%s", text)
	}
	if text := written(t, things, sheet.JSON); text != "[\n]\n" {
		t.Errorf("nothing is %q", text)
	}
	for text, want := range map[string]sheet.Format{"": sheet.CSV, "CSV": sheet.CSV, "json": sheet.JSON} {
		if f, err := sheet.ParseFormat(text); f != want || err != nil {
			t.Errorf("%q is %s, %v", text, f, err)
		}
	}
	if _, err := sheet.ParseFormat("xlsx"); store.KindOf(err) != store.KindInvalid {
		t.Errorf("it is %v", err)
	}
}

// full is a writer that takes a few bytes.
type full int

func (f *full) Write(b []byte) (int, error) {
	if *f -= full(len(b)); *f < 0 {
		return 0, errors.New("the disk is full")
	}
	return len(b), nil
}

func TestATableThatDoesNotFitIsAnError(t *testing.T) {
	for _, f := range sheet.Formats() {
		small := full(10)
		out, err := things.Write(&small, f)
		for range 1000 {
			if err == nil {
				err = out.Row(thing{name: "something long", at: time.Unix(1, 0)})
			}
		}
		if err == nil {
			err = out.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestEveryListHasATable(t *testing.T) {
	at := time.Date(2026, 11, 22, 14, 0, 0, 0, time.UTC)
	mac := store.MAC{0, 7, 0xe9, 1, 2, 3}
	for what, text := range map[string]string{
		"id,name,kind,size,takes,block_size 1,win11,clone,8,,512,ready,false,2,true,false,true,debian,lab-01 lab-02,x.raw,2026": written(t, sheet.Volumes(), sheet.CSV, listing.Volume{Volume: store.Volume{ID: 1, Name: "win11", Kind: store.VolumeClone, Size: 8, BlockSize: 512, State: store.VolumeReady, Version: 2, ReadOnly: true, Reset: true, From: "x.raw", Created: at}, Parent: "debian", Machines: []string{"lab-01", "lab-02"}, Takes: -1}),
		"mac,maker 00:07:e9:01:02:03,Intel,,BIOS,x86,,,pc,,,3,,2026-11-22T14:00:00Z,true":                                       written(t, sheet.UnknownMachines(), sheet.CSV, listing.UnknownMachine{UnknownMachine: store.UnknownMachine{MAC: mac, Firmware: "BIOS", Arch: "x86", Hostname: "pc", Count: 3, LastSeen: at, Ignored: true}, Maker: "Intel"}),
		"address,mac ,00:07:e9:01:02:03,lab-01,,expired,eth1,,,,2026":                                                           written(t, sheet.Leases(), sheet.CSV, listing.Lease{Lease: store.Lease{MAC: mac, State: store.LeaseBound, Interface: "eth1", Expires: at}, Name: "lab-01", Over: true}),
		"id,machine s1,lab-01,iqn.x,true,10.0.0.1:1,,chap,0 3,2026":                                                             written(t, sheet.Sessions(), sheet.CSV, listing.Session{Session: store.Session{ID: "s1", Initiator: "iqn.x", IPXE: true, Addr: "10.0.0.1:1", Auth: store.AuthCHAP, LUNs: []store.LUN{0, 3}, Since: at}, Name: "lab-01"}),
		"id,kind 7,volume.import,win11,failed,1,2,the disk is full,2026":                                                        written(t, sheet.Jobs(), sheet.CSV, store.Job{ID: 7, Kind: "volume.import", Subject: "win11", State: store.JobFailed, Done: 1, Total: 2, Error: "the disk is full", Started: at}),
		"id,machine 5,lab-01,,2026-11-22T14:00:00Z,,failed,read,LB-LUN-01,no such LUN,UEFI":                                     written(t, sheet.Attempts(), sheet.CSV, store.Attempt{ID: 5, Name: "lab-01", Started: at, Outcome: store.OutcomeFailed, Stage: store.StageRead, Firmware: "UEFI", Diagnoses: []store.Diagnosis{{Code: "LB-LUN-01", Title: "no such LUN"}, {Code: "x"}}}),
		"id,at 9,2026-11-22T14:00:00Z,anna,machine.update,lab-01,profile san → local,profile: san → local":                      written(t, sheet.Audit(), sheet.CSV, store.Audit{ID: 9, At: at, Actor: "anna", Action: "machine.update", Subject: "lab-01", Detail: "profile san → local", Changes: []store.FieldChange{{Field: "profile", Before: "san", After: "local"}}}),
	} {
		head, row, _ := strings.Cut(what, " ")
		lines := strings.Split(text, "\n")
		if !strings.HasPrefix(lines[0], head) || !strings.HasPrefix(lines[1], row) {
			t.Errorf("it is\n%s, not %s", text, what)
		}
		if names := strings.Split(lines[0], ","); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
			t.Error(fmt.Sprint("a column is there twice: ", names))
		}
	}
}
