package pages

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

// did notes an act on volumes.
func (l *lab) did(format string, args ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse == nil {
		l.acts = append(l.acts, fmt.Sprintf(format, args...))
	}
	return l.refuse
}

func (l *lab) volume(id store.VolumeID) store.Volume {
	for _, v := range l.vols {
		if v.ID == id {
			return v
		}
	}
	return store.Volume{}
}

func (l *lab) Jobs(context.Context) (out []store.Job, _ error) {
	for _, j := range l.jobs {
		j.Counts, j.Verdicts = j.Count(), nil
		out = append(out, j)
	}
	return out, l.broken
}
func (l *lab) Job(_ context.Context, id int64) (store.Job, error) {
	for _, j := range l.jobs {
		if j.ID == id {
			j.Counts = j.Count()
			return j, l.broken
		}
	}
	return store.Job{}, store.NotFound("job", fmt.Sprint(id))
}
func (l *lab) Detail(_ context.Context, v store.Volume) (store.VolumeDetail, error) {
	d := store.VolumeDetail{Volume: v, Used: 21 << 30, Reflinked: 18 << 30, ParentName: l.volume(v.Parent).Name, Stale: v.Parent != 0 && v.Version != l.volume(v.Parent).Version}
	for _, m := range l.mappings {
		if m.Volume == v.ID {
			x, _ := l.Machine(context.Background(), m.Machine)
			d.Machines = append(d.Machines, store.VolumeUser{Machine: m.Machine, Name: x.Name, LUN: m.LUN, Boot: m.Boot, Since: noon})
		}
	}
	for _, o := range l.vols {
		if o.Parent == v.ID {
			d.Clones = append(d.Clones, store.CloneDetail{ID: o.ID, Name: o.Name, Version: o.Version, Reset: o.Reset})
		}
	}
	d.Chain = []store.LayerDetail{{Layer: store.Layer{Path: v.Name + ".raw", Frozen: v.Golden}, Owner: v.Name}}
	switch {
	case v.Golden:
		for n := range v.Version {
			d.Versions = append(d.Versions, store.VersionDetail{VolumeVersion: store.VolumeVersion{Number: n + 1, Note: "as <installed>", Created: noon}, Current: n+1 == v.Version, Size: v.Size})
		}
		d.Versions = append(d.Versions, store.VersionDetail{VolumeVersion: store.VolumeVersion{Number: v.Version + 1, Created: noon}, Size: v.Size, UsedBy: []string{"lab-03-debian"}})
	case v.Parent != 0:
		d.Chain = append([]store.LayerDetail{{Layer: store.Layer{Path: "parent.raw", Frozen: true}, Owner: d.ParentName}}, d.Chain...)
		d.Snapshots = []store.SnapshotDetail{{Snapshot: store.Snapshot{Name: "before", Note: "the upgrade", Created: noon}, Below: true, UsedBy: []string{"aside"}}}
	}
	return d, nil
}

// Takes says that the first volume takes the least, and nothing of the last.
func (l *lab) Takes(context.Context) (map[store.VolumeID]int64, error) {
	out := map[store.VolumeID]int64{}
	for n, v := range l.vols {
		if n < len(l.vols)-1 {
			out[v.ID] = int64(n+1) << 30
		}
	}
	return out, nil
}

func (l *lab) SetVolume(_ context.Context, _ store.Actor, id store.VolumeID, p store.VolumePatch) (store.Volume, error) {
	if p.ReadOnly != nil {
		for i := range l.vols {
			if v := &l.vols[i]; v.ID == id && p.Revision != v.Revision {
				return *v, store.Conflict("revision", "it was changed by somebody else")
			} else if v.ID == id && v.ReadOnly != *p.ReadOnly {
				v.ReadOnly = *p.ReadOnly
				v.Revision++
			}
		}
		return l.volume(id), l.did("%d is read-only: %v", id, *p.ReadOnly)
	}
	if p.Volatile != nil {
		return store.Volume{}, l.did("%d is volatile: %v", id, *p.Volatile)
	}
	return store.Volume{}, l.did("reset of %d is %v", id, *p.Reset)
}
func (l *lab) ResizeVolume(_ context.Context, _ store.Actor, id store.VolumeID, size int64) (store.Volume, error) {
	return store.Volume{}, l.did("grow %d to %d", id, size)
}
func (l *lab) FlattenVolume(_ context.Context, _ store.Actor, id store.VolumeID) (store.Job, error) {
	return store.Job{}, l.did("flatten %d", id)
}
func (l *lab) CheckVolume(_ context.Context, id store.VolumeID) (store.VolumeCheck, error) {
	return l.check, l.did("check %d", id)
}
func (l *lab) CancelJob(_ context.Context, _ store.Actor, id int64) error {
	return l.did("cancel %d", id)
}
func (l *lab) FreezeVolume(_ context.Context, _ store.Actor, id store.VolumeID, note string) (store.Volume, error) {
	return store.Volume{}, l.did("freeze %d: %s", id, note)
}
func (l *lab) CloneVolume(_ context.Context, _ store.Actor, s store.CloneSpec) (store.Volume, error) {
	return store.Volume{ID: 9}, l.did("clone %+v", s)
}
func (l *lab) CloneFor(_ context.Context, _ store.Actor, m store.MachineID, s store.CloneSpec) (store.Volume, store.Mapping, error) {
	return store.Volume{ID: 9}, store.Mapping{}, l.did("clone for %d: %+v", m, s)
}
func (l *lab) Promote(_ context.Context, _ store.Actor, id store.VolumeID, note string) (store.Job, error) {
	return store.Job{}, l.did("promote %d: %s", id, note)
}
func (l *lab) DefaultGolden(context.Context) (store.Volume, error) {
	for _, v := range l.vols {
		if v.Golden {
			return v, nil
		}
	}
	return store.Volume{}, nil
}
func (l *lab) PutSetting(_ context.Context, _ store.Actor, s store.Setting) error {
	return l.did("%s is %s", s.Key, s.Value)
}
func (l *lab) SnapshotVolume(_ context.Context, _ store.Actor, id store.VolumeID, name, note string) (store.Volume, error) {
	return store.Volume{}, l.did("snapshot %s of %d: %s", name, id, note)
}
func (l *lab) RemoveSnapshot(_ context.Context, _ store.Actor, id store.VolumeID, name string) error {
	return l.did("forget %s of %d", name, id)
}
func (l *lab) Rollback(_ context.Context, _ store.Actor, id store.VolumeID, name string) (store.Volume, error) {
	return store.Volume{}, l.did("roll %d back to %s", id, name)
}
func (l *lab) SetVersion(_ context.Context, _ store.Actor, id store.VolumeID, n int) (store.Volume, error) {
	return store.Volume{}, l.did("version %d of %d", n, id)
}
func (l *lab) NoteVersion(_ context.Context, _ store.Actor, id store.VolumeID, n int, note string) error {
	return l.did("note on %d of %d: %s", n, id, note)
}
func (l *lab) RemoveVersion(_ context.Context, _ store.Actor, id store.VolumeID, n int) error {
	return l.did("remove version %d of %d", n, id)
}
func (l *lab) EnrollWithClone(ctx context.Context, by store.Actor, mac store.MAC, name string, c store.CloneChoice) (store.Machine, error) {
	if err := l.did("enroll %s as %q with %+v", mac, name, c); err != nil {
		return store.Machine{}, err
	}
	return l.Enroll(ctx, by, mac, name, 0)
}
func (l *lab) FreshClones(context.Context) (bool, error) { return true, nil }

// cloning is a lab with a golden volume and clones of it.
func cloning() *lab {
	l := full()
	l.vols = append(l.vols,
		store.Volume{ID: 5, Name: "debian-golden", Size: 32 << 30, BlockSize: 512, State: store.VolumeReady, Golden: true, ReadOnly: true, Version: 2, Kind: store.VolumeRaw},
		store.Volume{ID: 6, Name: "lab-01-debian", Size: 32 << 30, BlockSize: 512, State: store.VolumeReady, Kind: store.VolumeClone, Parent: 5, Version: 1, Reset: true, From: "debian-golden version 1"},
		store.Volume{ID: 7, Name: "work", Size: 32 << 30, BlockSize: 512, State: store.VolumeReady, Kind: store.VolumeClone, Parent: 5, Version: 2, From: "debian-golden version 2"})
	l.mappings = append(l.mappings, store.Mapping{Machine: 3, Volume: 6, LUN: 0, Boot: true})
	l.jobs = []store.Job{
		{ID: 4, Kind: "volume.promote", Subject: "work", State: store.JobRunning, Done: 1 << 30, Total: 32 << 30},
		{ID: 5, Kind: "media.add", Subject: "work", State: store.JobRunning, Total: 1 << 30}, // a medium may be called as a volume is
	}
	return l
}

func TestTheVolumesAreSortedByWhatTheyAreAndTake(t *testing.T) {
	l := cloning()
	get, _ := l.enter(t)
	_, byName := get("/volumes")
	want(t, byName, `<a href="/volumes?sort=name">Name`, `<a href="/volumes?sort=size">Size`, `<a href="/volumes?sort=takes">Takes`, "1 GiB", "2 GiB")
	// The fake's first volume takes the least, and what the last takes is not known.
	order := func(path string) (names []string) {
		t.Helper()
		status, body := get(path)
		if status != http.StatusOK {
			t.Fatalf("%s: %d", path, status)
		}
		body, _, _ = strings.Cut(body, "</tbody>")
		for _, part := range strings.Split(body, `<a class="name" href="/volumes/`)[1:] {
			id, _, _ := strings.Cut(part, `"`)
			names = append(names, id)
		}
		return names
	}
	var ids []string
	for _, v := range l.vols {
		ids = append(ids, fmt.Sprint(v.ID))
	}
	last := len(ids) - 1
	up := append([]string{ids[last]}, ids[:last]...)
	if got := order("/volumes?sort=takes"); !slices.Equal(got, up) {
		t.Errorf("by rising takes: %v, want %v", got, up)
	}
	slices.Reverse(up)
	if got := order("/volumes?sort=-takes"); !slices.Equal(got, up) {
		t.Errorf("by falling takes: %v, want %v", got, up)
	}
	if got := order("/volumes?sort=nonsense"); !slices.Equal(got, order("/volumes")) {
		t.Errorf("by nonsense: %v", got)
	}
	_, falling := get("/volumes?sort=-takes")
	want(t, falling, `aria-sort="descending"><a href="/volumes?sort=takes">Takes`, `hx-get="/volumes?sort=-takes"`)
}

func TestThePageOfAVolumeSaysWhatStandsOnWhatAndWhoUsesIt(t *testing.T) {
	l := cloning()
	get, _ := l.enter(t)
	_, list := get("/volumes")
	want(t, list, `href="/volumes/5"`, "golden, version 2", `clone of <a href="/volumes/5">debian-golden</a> version 1, anew at each boot`, "2 clones")
	_, golden := get("/volumes/5")
	want(t, golden, "Golden, version 2", "New machines get a clone of it", "as &lt;installed&gt;", "lab-03-debian", `href="/volumes/6"`, "It cannot be removed: lab-01-debian was cloned from it",
		`action="/volumes/5/version"`, ">Make 1 current<")
	for _, not := range []string{`/volumes/5/snapshots"`, `/volumes/5/flatten`, `/volumes/5/grow`, `/volumes/5/freeze`, "<installed>"} {
		if strings.Contains(golden, not) {
			t.Errorf("a golden volume's page offers %s", not)
		}
	}
	_, clone := get("/volumes/6")
	want(t, clone, "Clone of debian-golden, anew at each boot", "it moves there at the next boot of its machine", "lab-03", "logged in since", "It cannot be removed: lab-03 has it, as LUN 0", "Keep what is written", "Make it volatile from its next boot on", "parent.raw", "21 GiB", "18 GiB of it shared with other volumes or versions (reflink), 3 GiB its own")
	if strings.Contains(clone, "/volumes/6/rollback") {
		t.Error("a clone that begins anew is offered to be rolled back")
	}
	_, work := get("/volumes/7")
	want(t, work, "Being promoted", "1 GiB of 32 GiB", `name="job" value="4"`, "everything that was written since <time", "the upgrade", "Cloned as aside", "21 GiB on the disk and 1 snapshot are deleted for good")
	if strings.Contains(work, "media.add") {
		t.Error("a copy of a medium of its name is taken for its own work")
	}
	if code, _ := get("/volumes/99"); code != http.StatusNotFound {
		t.Errorf("a volume that is not there: %d", code)
	}
	if code, _ := get("/volumes/x"); code != http.StatusNotFound {
		t.Errorf("a volume without a number: %d", code)
	}
}

func TestEachActOnAVolumeIsAFormWithoutScript(t *testing.T) {
	l := cloning()
	_, post := l.enter(t)
	for _, c := range []struct {
		path string
		form []string
		to   string
		did  string
	}{
		{"/volumes/5/clone", []string{"name", "c", "reset", "1"}, "/volumes/9", "clone {Parent:5 Snapshot: Name:c Reset:true Volatile:false}"},
		{"/volumes/5/clone", []string{"name", "c", "reset", "1", "volatile", "1"}, "/volumes/9", "clone {Parent:5 Snapshot: Name:c Reset:true Volatile:true}"},
		{"/volumes/6/volatile", []string{"volatile", "1"}, "/volumes/6", "6 is volatile: true"},
		{"/volumes/6/volatile", nil, "/volumes/6", "6 is volatile: false"},
		{"/volumes/7/clone", []string{"snapshot", "before", "machine", "4"}, "/machines/4", "clone for 4: {Parent:7 Snapshot:before Name: Reset:false Volatile:false}"},
		{"/volumes/1/freeze", []string{"confirm", "win11-lab", "note", " first "}, "/volumes/1", "freeze 1: first"},
		{"/volumes/7/snapshots", []string{"name", "s", "note", "n"}, "/volumes/7", "snapshot s of 7: n"},
		{"/volumes/7/snapshots/remove", []string{"name", "before", "confirm", "before"}, "/volumes/7", "forget before of 7"},
		{"/volumes/7/rollback", []string{"to", "before", "confirm", "work"}, "/volumes/7", "roll 7 back to before"},
		{"/volumes/7/promote", []string{"note", "new"}, "/volumes/7", "promote 7: new"},
		{"/volumes/5/version", []string{"number", "1"}, "/volumes/5", "version 1 of 5"},
		{"/volumes/5/note", []string{"number", "1", "note", "good"}, "/volumes/5", "note on 1 of 5: good"},
		{"/volumes/5/versions/remove", []string{"number", "1", "confirm", "debian-golden"}, "/volumes/5", "remove version 1 of 5"},
		{"/volumes/7/flatten", nil, "/volumes/7", "flatten 7"},
		{"/volumes/6/reset", nil, "/volumes/6", "reset of 6 is false"},
		{"/volumes/7/reset", []string{"reset", "1", "confirm", "work"}, "/volumes/7", "reset of 7 is true"},
		{"/volumes/7/grow", []string{"size", "64G"}, "/volumes/7", "grow 7 to 68719476736"},
		{"/volumes/5/default", nil, "/volumes/5", "default-golden is debian-golden"},
		{"/volumes/7/cancel", []string{"job", "4"}, "/volumes/7", "cancel 4"},
		{"/machines/4/map", []string{"clone_of", "debian-golden", "reset", "1"}, "/machines/4", "clone for 4: {Parent:5 Snapshot: Name: Reset:true Volatile:false}"},
	} {
		l.acts = nil
		if code, to := post(c.path, c.form...); code != http.StatusSeeOther || to != c.to || len(l.acts) != 1 || l.acts[0] != c.did {
			t.Errorf("%s %v: %d %s, done %q", c.path, c.form, code, to, l.acts)
		}
	}
	// What cannot be undone needs the name, and says what is lost.
	l.acts = nil
	for path, loss := range map[string]string{
		"/volumes/1/freeze": "no machine can write to it any more", "/volumes/7/rollback": "what was written since the snapshot", "/volumes/7/reset": "is lost at each boot",
		"/volumes/5/versions/remove": "version 1 is deleted for good",
	} {
		for _, typed := range []string{"", "other", "WORK"} {
			if code, body := post(path, "confirm", typed, "to", "before", "number", "1", "reset", "1"); code != http.StatusUnprocessableEntity || !strings.Contains(body, loss) {
				t.Errorf("%s with %q typed: %d", path, typed, code)
			}
		}
	}
	for _, c := range [][]string{{"/volumes/5/version"}, {"/volumes/5/note", "number", "x"}, {"/volumes/7/grow", "size", "lots"}} {
		if code, _ := post(c[0], c[1:]...); code != http.StatusUnprocessableEntity {
			t.Errorf("%v: %d", c, code)
		}
	}
	if code, _ := post("/volumes/7/cancel", "job", "x"); code != http.StatusNotFound {
		t.Errorf("no job: %d", code)
	}
	if len(l.acts) != 0 {
		t.Errorf("done without a word: %q", l.acts)
	}
	// A refusal keeps the page, and names who is in the way.
	l.refuse = store.InUse("machine lab-07 is logged in from 10.0.0.7 and has volume work open")
	if code, body := post("/volumes/7/promote"); code != http.StatusConflict || !strings.Contains(body, "Machine lab-07 is logged in") || !strings.Contains(body, "<h1>work</h1>") {
		t.Errorf("a refusal: %d", code)
	}
}

func TestACheckSaysWhatIsDamaged(t *testing.T) {
	l := cloning()
	_, post := l.enter(t)
	l.check = store.VolumeCheck{OK: true, Layers: []store.LayerCheck{{Path: "a"}, {Path: "b"}}}
	if code, body := post("/volumes/7/check"); code != http.StatusOK || !strings.Contains(body, "The maps of work are sound, in all 2 layers.") {
		t.Errorf("a sound volume: %d", code)
	}
	l.check = store.VolumeCheck{Layers: []store.LayerCheck{{Path: "work.layer", Damage: []store.Damage{{From: 8, To: 15, What: "the checksum of a map page is wrong"}, {From: 64, To: -1, What: "the map ends"}}}}}
	if code, body := post("/volumes/7/check"); code != http.StatusOK || !strings.Contains(body, "work is damaged. Blocks 8 to 15, in work.layer: The checksum of a map page is wrong. Blocks 64 to the end") {
		t.Errorf("a damaged volume: %d", code)
	}
}

func TestThreeClicksFromAnUnknownMachineToAFreshClone(t *testing.T) {
	l := cloning()
	get, post := l.enter(t)
	_, tray := get("/machines") // one: the machine in the tray
	want(t, tray, `href="/unknown/b8:27:eb:91:3c:0d"`)
	_, form := get("/unknown/b8:27:eb:91:3c:0d") // two: Enroll, as everything is chosen; three: its power button
	want(t, form, `<option value="debian-golden" selected>a fresh clone of debian-golden</option>`, `<option value="none">nothing yet</option>`, `name="reset" value="1" checked`)
	if code, to := post("/unknown/b8:27:eb:91:3c:0d/enroll", "name", "", "clone_of", "debian-golden", "reset", "1"); code != http.StatusSeeOther || to != "/machines/5" {
		t.Errorf("%d %s", code, to)
	}
	if len(l.acts) != 1 || l.acts[0] != `enroll b8:27:eb:91:3c:0d as "" with {Of:debian-golden Reset:true Volatile:false}` {
		t.Errorf("done: %q", l.acts)
	}
	l = cloning()
	get, post = l.enter(t)
	_, all := get("/unknown")
	want(t, all, `<option value="debian-golden" selected>`)
	if code, _ := post("/unknown/b8:27:eb:91:3c:0d/enroll", "name", "", "clone_of", "debian-golden", "reset", "1", "volatile", "1"); code != http.StatusSeeOther || !strings.HasSuffix(l.acts[0], "Reset:true Volatile:true}") {
		t.Errorf("a volatile clone: %d, done: %q", code, l.acts)
	}
	want(t, form, `name="volatile" value="1"`, "a crash of the appliance’s machine discards what was written")
	l.unknown = full().unknown // another day
	if code, _ := post("/unknown/enroll", "pattern", "lab-{n}", "clone_of", "debian-golden", "match", matchOf(t, get, "/unknown")); code != http.StatusSeeOther || l.all[0].Clone != (store.CloneChoice{Of: "debian-golden"}) {
		t.Errorf("%d, enrolled by %+v", code, l.all)
	}
	if code, _ := post("/unknown/rules", "prefix", "b8:27:eb", "clone_of", "debian-golden", "reset", "1"); code != http.StatusSeeOther || l.rules[2].CloneOf != "debian-golden" || !l.rules[2].Reset {
		t.Errorf("%d, ruled by %+v", code, l.rules)
	}
	if code, _ := post("/unknown/rules", "prefix", "00:09:e9", "clone_of", "debian-golden", "reset", "1", "volatile", "1"); code != http.StatusSeeOther || !l.rules[3].Volatile {
		t.Errorf("%d, ruled by %+v", code, l.rules)
	}
	if _, all := get("/unknown"); !strings.Contains(all, "that begins anew at each boot and is volatile") {
		t.Error("the list of the rules does not say that its clones are volatile")
	}
	// The ticks of a form in which no volume is chosen say nothing.
	if code, _ := post("/unknown/rules", "prefix", "00:08:e9", "clone_of", "none", "reset", "1", "volatile", "1"); code != http.StatusSeeOther || l.rules[4].Reset || l.rules[4].Volatile || l.rules[4].CloneOf != "none" {
		t.Errorf("%d, ruled by %+v", code, l.rules)
	}
	// The one click of the tray says nothing of a volume: the settings do.
	l = cloning()
	_, post = l.enter(t)
	if code, _ := post("/unknown/b8:27:eb:91:3c:0d/enroll"); code != http.StatusSeeOther || l.acts[0] != `enroll b8:27:eb:91:3c:0d as "" with {Of: Reset:false Volatile:false}` {
		t.Errorf("%d, done: %q", code, l.acts)
	}
	if code, body := post("/machines/4/map", "clone_of", "none"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "hoose what the clone is to be of") {
		t.Errorf("a clone of nothing answers %d", code)
	}
	// Without a golden volume nothing of it is shown.
	l = full()
	get, _ = l.enter(t)
	if _, form := get("/unknown/b8:27:eb:91:3c:0d"); strings.Contains(form, "clone_of") {
		t.Error("a clone is offered where there is nothing to clone")
	}
}
