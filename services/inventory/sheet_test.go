package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sheet"
)

// table reads a table and imports it.
func (h *house) table(t *testing.T, text string, spec store.MachineImportSpec) (store.MachineImport, error) {
	t.Helper()
	var err error
	spec.Lines, err = sheet.Read(strings.NewReader(text))
	must(t, err)
	return h.ImportMachines(t.Context(), ada, spec)
}

func verdicts(i store.MachineImport) (out []string) {
	for _, l := range i.Lines {
		out = append(out, fmt.Sprintf("%d %s %s %s", l.Line, l.Verdict, l.Name, l.Field))
	}
	return out
}

func TestEachLineOfATableIsJudgedBeforeAnythingIsDone(t *testing.T) {
	h := newHouse(t)
	_, err := h.PutSubnet(t.Context(), ada, store.Subnet{Interface: "eth1", Prefix: netip.MustParsePrefix("192.168.40.0/24"), Mode: store.DHCPFull, Router: netip.MustParseAddr("192.168.40.254")})
	must(t, err)
	h.machine(t, "lab-01", "00:07:e9:00:00:01")
	h.machine(t, "lab-02", "00:07:e9:00:00:02")
	text := `name,macs,address,profile,tags
lab-01,,192.168.40.10,,
lab-02,,,,
lab-03,00:07:e9:00:00:03,,,a
lab-04,00:07:e9:00:00:03,,,
lab-05,00:07:e9:00:00:01,,,
lab-05,00:07:e9:00:00:05,192.168.40.10,,
lab-05,00:07:e9:00:00:05,10.0.0.1,,
lab-05,00:07:e9:00:00:05,,nothing,
lab-05,00:07:e9:00:00,,,
lab-06,,,,
,00:07:e9:00:00:07,,,
lab-02,00:07:e9:00:00:01,,,
lab-07,00:07:e9:00:00:07,,local,
`
	want := []string{
		"2 changed lab-01 ", "3 same lab-02 ", "4 new lab-03 ", "5 refused lab-04 ", "6 refused lab-05 ", "7 refused lab-05 address", "8 refused lab-05 address", "9 refused lab-05 profile",
		"10 refused  macs", "11 refused lab-06 macs", "12 refused  name", "13 refused lab-02 macs", "14 new lab-07 ",
	}
	var out store.MachineImport
	before := h.db.Revision()
	out, err = h.table(t, text, store.MachineImportSpec{DryRun: true})
	must(t, err)
	if got := verdicts(out); !slices.Equal(got, want) {
		t.Errorf("the verdicts are\n%s", strings.Join(got, "\n"))
	}
	if h.db.Revision() != before || out.Done || out.New != 2 || out.Changed != 1 || out.Same != 1 || out.Refused != 9 || out.Good() != 3 {
		t.Errorf("a look changed something, or counts wrong: %+v", out)
	}
	if c := out.Lines[0].Changes; len(c) != 1 || c[0] != (store.FieldChange{Field: "address", After: "192.168.40.10"}) {
		t.Errorf("line 2 changes %+v", c)
	}
	for line, words := range map[int]string{3: "line 4 is about the same machine", 4: "line 2 is about the same", 5: "lab-01 has the reserved address", 6: "in none of the appliance's subnets", 7: `no profile "nothing"`, 11: "the MAC 00:07:e9:00:00:01 is that of lab-01, and the name lab-02 is that of lab-02"} {
		if !strings.Contains(out.Lines[line].Reason, words) {
			t.Errorf("line %d: %q", out.Lines[line].Line, out.Lines[line].Reason)
		}
	}
	done, err := h.table(t, text, store.MachineImportSpec{Match: out.Match})
	must(t, err)
	if !slices.Equal(verdicts(done), want) || !done.Done || done.Lines[2].Machine == 0 {
		t.Errorf("it is done as %+v", done)
	}
	m, err := h.FindMachine(t.Context(), "lab-03")
	must(t, err)
	if m.ID != done.Lines[2].Machine || m.Auth != store.AuthMutual || len(m.CHAP.Secret) != 16 || m.Pinned || !slices.Equal(m.Tags, []string{"a"}) {
		t.Errorf("lab-03 is %+v", m)
	}
	if m, err = h.FindMachine(t.Context(), "lab-01"); err != nil || m.Address != netip.MustParseAddr("192.168.40.10") {
		t.Errorf("lab-01 is %+v, %v", m, err)
	}
	h.audited(t, ada, "machine.create", "lab-07")
	if e := h.journal.last(); e.Kind != store.EventMachineChanged || e.Detail.Hostname != "lab-07" || e.Machine == 0 {
		t.Errorf("the journal ends with %+v", e)
	}
}

func TestATableIsNotImportedWhenItWouldDoSomethingElse(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	text := "name,macs,notes\nlab-01,,moved\nlab-02,00:07:e9:00:00:02,\n"
	out, err := h.table(t, text, store.MachineImportSpec{DryRun: true})
	must(t, err)
	serial := "S1"
	_, err = h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{Serial: &serial}) // somebody else, between look and act
	must(t, err)
	h.wantRefusal(t, store.KindConflict, []string{"nothing was imported", "look at them again"}, func() error {
		_, err := h.table(t, text, store.MachineImportSpec{Match: out.Match})
		return err
	})
	again, err := h.table(t, text, store.MachineImportSpec{DryRun: true})
	must(t, err)
	if again.Match == out.Match {
		t.Error("another state has the same match")
	}
	_, err = h.table(t, text, store.MachineImportSpec{Match: again.Match})
	must(t, err)
	if m, err = h.FindMachine(t.Context(), "lab-01"); err != nil || m.Serial != "S1" || m.Notes != "moved" {
		t.Errorf("it is %+v, %v", m, err)
	}
}

// hasty changes a machine while a table is being imported.
type hasty struct {
	DB
	change func()
}

func (h hasty) Profile(ctx context.Context, name string) (store.Profile, error) {
	h.change()
	return h.DB.Profile(ctx, name)
}

func TestWhatChangesAMachineMeanwhileFailsTheWholeTable(t *testing.T) {
	h := newHouse(t)
	m := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	once := "local"
	_, err := h.SetMachine(t.Context(), ada, m.ID, store.MachinePatch{OnceProfile: &once})
	must(t, err)
	// The machine uses its profile for one boot up, which asks no operator's lock.
	h.Inventory.db = hasty{h.db, func() {
		used, err := h.db.ConsumeOnce(t.Context(), m.ID, once, time.Now())
		must(t, err)
		if !used {
			t.Error("it was not used up")
		}
	}}
	out, err := h.table(t, "name,macs,notes\nlab-02,00:07:e9:00:00:02,\nlab-01,,moved\n", store.MachineImportSpec{})
	wantSentence(t, err, store.KindConflict, "nothing was imported", "lab-01 was changed by somebody else")
	if _, err := h.FindMachine(t.Context(), "lab-02"); !store.IsNotFound(err) || out.Done {
		t.Errorf("half of the table is there: %v", err)
	}
}

func TestAFaultOfTheInventoryIsNoVerdict(t *testing.T) {
	h := newHouse(t)
	h.Inventory.db = broken{h.db}
	if _, err := h.table(t, "name,macs\nlab-02,00:07:e9:00:00:02\n", store.MachineImportSpec{DryRun: true}); err == nil || !strings.Contains(err.Error(), "the disk broke") {
		t.Errorf("it is judged: %v", err)
	}
}

type broken struct{ DB }

func (broken) Profile(context.Context, string) (store.Profile, error) {
	return store.Profile{}, errors.New("the disk broke")
}

func TestATableThatWasExportedChangesNothing(t *testing.T) {
	h := newHouse(t)
	text := "name,macs,uuid,serial,asset_tag,profile,tags,notes,auth,quirks\n" +
		"lab-01,00:07:e9:00:00:01 00:07:e9:00:00:09,4c4c4544-0034-4810-8051-b4c04f564a32,'=S1,A-7,local,\"a b,c\",\"two\nlines, and a \"\"quote\"\"\",chap,no-option-43\n" +
		"lab-02,00:07:e9:00:00:02,,,,,,,none,\n"
	out, err := h.table(t, text, store.MachineImportSpec{})
	must(t, err)
	if out.New != 2 {
		t.Fatalf("%+v", out)
	}
	crlf := "one\r\ntwo"
	_, err = h.SetMachine(t.Context(), ada, out.Lines[1].Machine, store.MachinePatch{Notes: &crlf}) // as a form sends it
	must(t, err)
	all, _, err := h.db.Machines(t.Context(), store.MachineFilter{})
	must(t, err)
	var b bytes.Buffer
	w, err := sheet.NewWriter(&b)
	must(t, err)
	for _, m := range all {
		must(t, w.Write(sheet.Row{Machine: m, LastSeen: time.Now().Format(time.RFC3339)}))
	}
	must(t, w.Flush())
	back, err := h.table(t, b.String(), store.MachineImportSpec{DryRun: true})
	must(t, err)
	if back.Same != 2 {
		t.Errorf("it would change %+v", back.Lines)
	}
	// Into an empty appliance the same machines come, with secrets of their own.
	other := newHouse(t)
	if _, err = other.table(t, b.String(), store.MachineImportSpec{}); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		got, err := other.FindMachine(t.Context(), m.Name)
		must(t, err)
		if got.Initiator != m.Initiator || got.UUID != m.UUID || got.Serial != m.Serial || got.Auth != m.Auth || !slices.Equal(got.MACs, m.MACs) || !slices.Equal(got.Tags, m.Tags) || got.Notes != strings.ReplaceAll(m.Notes, "\r\n", "\n") {
			t.Errorf("%+v came as %+v", m, got)
		}
		if m.Auth != store.AuthNone && got.CHAP.Secret == m.CHAP.Secret {
			t.Error("a secret went with the table")
		}
	}
}

func TestALineRenamesTheMachineOfItsMAC(t *testing.T) {
	h := newHouse(t)
	a := h.machine(t, "lab-01", "00:07:e9:00:00:01")
	out, err := h.table(t, "macs,name\n00:07:e9:00:00:01,lab-09\n", store.MachineImportSpec{})
	must(t, err)
	if out.Changed != 1 || out.Lines[0].Changes[0] != (store.FieldChange{Field: "name", Before: "lab-01", After: "lab-09"}) {
		t.Errorf("it is renamed by %+v", out.Lines)
	}
	if m, err := h.FindMachine(t.Context(), "lab-09"); err != nil || m.ID != a.ID || m.Initiator != a.Initiator {
		t.Errorf("it is %+v, %v", m, err)
	}
	// The name that became free is taken by a later line of the same table.
	out, err = h.table(t, "macs,name\n00:07:e9:00:00:01,lab-10\n00:07:e9:00:00:02,lab-09\n", store.MachineImportSpec{})
	must(t, err)
	if out.Changed != 1 || out.New != 1 {
		t.Errorf("%+v", out.Lines)
	}
}

// BenchmarkImportOfTwoThousandMachines is the time in which nobody else writes.
func BenchmarkImportOfTwoThousandMachines(b *testing.B) {
	var text strings.Builder
	text.WriteString("name,macs,profile,tags\n")
	for n := range 2000 {
		fmt.Fprintf(&text, "pc-%04d,02:00:00:00:%02x:%02x,san,\"room 3,lab\"\n", n, n>>8, n&255)
	}
	lines, err := sheet.Read(strings.NewReader(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		h := reopen(b, b.TempDir())
		b.StartTimer()
		out, err := h.ImportMachines(b.Context(), ada, store.MachineImportSpec{Lines: lines})
		if err != nil || out.New != 2000 {
			b.Fatal(err, out.New)
		}
	}
}
