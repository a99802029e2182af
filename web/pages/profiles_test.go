package pages

import (
	"context"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"lunboot/store"
)

func (l *lab) DeleteProfile(_ context.Context, _ store.Actor, name string) error {
	l.uploads = append(l.uploads, "removed profile "+name)
	return l.refuse
}

func TestThePageOfTheProfilesSaysWhatEachDoes(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	code, body := get("/profiles")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	has(t, body, "starts the machine’s own volume over iSCSI", "starts the machine’s own disk", "built in", `href="/media"`, `href="/loaders"`)
	if code, body := post("/profiles/remove", "name", "old"); code != http.StatusOK || !slices.Equal(l.uploads, []string{"removed profile old"}) || strings.Contains(body, ">Undo<") {
		t.Errorf("a removal answers %d, %q", code, l.uploads)
	}
	// What was removed comes back as it was, unless somebody made another meanwhile.
	_, body = post("/profiles/remove", "name", "install-debian")
	has(t, body, "The profile install-debian is removed.", ">Undo<")
	was := undoForm(t, body)
	for i := range was {
		was[i] = html.UnescapeString(was[i])
	}
	l.uploads = nil
	if code, to := post("/machines/undo", was...); code != http.StatusSeeOther || to != "/profiles" || !slices.Equal(l.uploads, []string{`install-debian install 0 map[media:debian-12.5.0-amd64-netinst.iso] ""`}) {
		t.Errorf("it is taken back: %d %s %q", code, to, l.uploads)
	}
	l.madeMeanwhile = "install-debian"
	if code, body := post("/machines/undo", was...); code != http.StatusOK || !strings.Contains(body, "Not taken back") {
		t.Errorf("over another one: %d", code)
	}
	l.madeMeanwhile = ""
	if _, body := post("/machines/undo", "was", "0:0:gone:{", "back", "/profiles"); !strings.Contains(body, "no profile to take back") {
		t.Error("nonsense is taken back")
	}
	l.refuse = store.InUse("profile old belongs to machine lab-01")
	if code, _ := post("/profiles/remove", "name", "old"); code != http.StatusConflict {
		t.Errorf("a profile in use: %d", code)
	}
}

func (l *lab) Wake(_ context.Context, _ store.Actor, m store.Machine) ([]string, error) {
	l.uploads = append(l.uploads, "woke "+m.Name)
	return []string{"eth1"}, l.refuse
}

func (l *lab) PowerState(_ context.Context, m store.Machine) (store.PowerReport, error) {
	return store.PowerReport{Machine: m.Name, State: store.PowerStateOn, Says: m.Name + " is on"}, l.refuse
}

func (l *lab) Power(_ context.Context, _ store.Actor, m store.Machine, o store.PowerOrder) (store.PowerReport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.orders = append(l.orders, fmt.Sprintf("%s %s %v %s %v", m.Name, o.Act, o.Network, o.Profile, o.Force))
	return store.PowerReport{Machine: m.Name, State: store.PowerStateOn, Says: m.Name + " " + o.Act.Did()}, l.refuse
}

func TestAMachineIsWokenFromItsPage(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, `action="/machines/2/wake"`)
	if code, _ := post("/machines/2/wake"); code != http.StatusSeeOther || len(l.uploads) != 1 {
		t.Errorf("it answers %d, %q", code, l.uploads)
	}
	l.refuse = &store.Error{Kind: store.KindUnavailable, Msg: "no network is served"}
	if code, _ := post("/machines/2/wake"); code != http.StatusServiceUnavailable {
		t.Errorf("a wake that cannot be sent answers %d", code)
	}
}

func (l *lab) PutProfile(ctx context.Context, _ store.Actor, p store.Profile) (store.Profile, error) {
	if p.Name != "" && p.Name == l.madeMeanwhile {
		if err := store.CheckExpected(ctx, "profile", p.Name, p.Name, 1); err != nil {
			return p, err
		}
	}
	l.uploads = append(l.uploads, fmt.Sprintf("%s %s %d %v %q", p.Name, p.Kind, p.Revision, p.Fields, p.Text))
	return p, l.refuse
}

func (l *lab) Preview(_ context.Context, m store.Machine, p *store.Profile) (string, error) {
	if m.Name == "nobody" {
		return "", store.Invalid("profile", "it has no volume")
	}
	return "#!ipxe\n# " + m.Name + " by " + p.Name + "\n", nil
}

// Draft refuses texts with a variable that is not there, as the appliance does.
func (l *lab) Draft(_ context.Context, m store.Machine, p store.Profile) (string, error) {
	for i, line := range strings.Split(p.Text, "\n") {
		if strings.Contains(line, "{{what}}") {
			return "", &store.Error{Kind: store.KindInvalid, Field: "text", Line: i + 1, Msg: fmt.Sprintf("line %d: there is no variable {{what}}", i+1)}
		}
	}
	if p.Kind == store.ProfileInstall && p.Fields["media"] == "" {
		return "", store.Invalid("media", "an install profile needs the disc's media")
	}
	return fmt.Sprintf("#!ipxe\n# draft for %s: %v %q\n", m.Name, p.Fields, p.Text), nil
}

func (l *lab) Open(name string) (fs.File, error) {
	return fstest.MapFS{"mini.iso/linux": {}, "vmlinuz 6": {}}.Open(name)
}

func TestAProfileAsItIsTypedIsShownBeforeItIsSaved(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/new-profile?kind=custom")
	has(t, body, `formaction="/profiles/preview"`, `hx-post="/profiles/preview"`, "{{hostname}}", "{{done_url}}", `form="write"`)
	code, body := post("/profiles/preview", "kind", "custom", "name", "mine", "revision", "0", "machine", l.machines[1].Name, "text", "one\r\ntwo {{hostname}}")
	if code != http.StatusOK || len(l.uploads) > 0 {
		t.Errorf("it answers %d, and kept %q", code, l.uploads)
	}
	has(t, body, "# draft for "+l.machines[1].Name, "as typed, not saved", `value="mine"`, "two {{hostname}}</textarea>")
	// A line that is refused is shown, and the field marked.
	code, body = post("/profiles/preview", "kind", "custom", "name", "mine", "text", "1\n2\n3\nset {{what}}\n5\n6\n7")
	if code != http.StatusUnprocessableEntity {
		t.Errorf("a wrong text answers %d", code)
	}
	has(t, body, `<li value="4" class="bad"><mark>set {{what}}</mark></li>`, `<li value="2">2</li>`, `<li value="6">6</li>`, `id="fault-text"`, "there is no variable")
	if strings.Contains(body, `<li value="1">`) {
		t.Error("lines far off are shown")
	}
	if code, _ := post("/profiles/preview", "kind", "none"); code != http.StatusUnprocessableEntity {
		t.Errorf("a kind that is none answers %d", code)
	}
	// A file that the appliance has not is said, whatever else is.
	_, body = post("/profiles/preview", "kind", "kernel", "kernel", "/files/mini.iso/linux", "initrd", "a.gz\nvmlinuz%206 http://10.0.0.1/x {{hostname}}.gz")
	has(t, body, `<span class="mono">a.gz</span> is not on the appliance`)
	if n := strings.Count(body, "is not on the appliance"); n != 1 {
		t.Errorf("%d files are said to be missing", n)
	}
}

func TestMediaToChooseFromFitTheField(t *testing.T) {
	l := full()
	l.kept = append(l.kept, store.Media{Name: "wimboot-2", Kind: store.MediaWimboot}, store.Media{Name: "vmlinuz", Kind: store.MediaKernel})
	get, _ := l.enter(t)
	for kind, want := range map[string][]string{"install": {"mini.iso", "vmlinuz"}, "wimboot": {"win11.iso", "wimboot-2"}} {
		_, body := get("/new-profile?kind=" + kind)
		for _, m := range []string{"mini.iso", "vmlinuz", "win11.iso", "wimboot-2"} {
			if got := strings.Contains(body, "<option>"+m+"</option>"); got != slices.Contains(want, m) {
				t.Errorf("%s: %s is offered: %v", kind, m, got)
			}
		}
	}
}

func TestAProfileIsMadeAndChangedWithoutScript(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/new-profile?kind=install")
	has(t, body, "runs an installer that sees the machine’s volume", `<option>mini.iso</option>`, `name="cmdline"`, `name="text"`, `name="disk"`, "{{done_url}}")
	_, body = get("/new-profile?kind=menu")
	has(t, body, `name="items"`, `name="timeout"`)
	_, body = get("/profiles/install-debian?machine=" + l.machines[1].Name)
	has(t, body, "<option selected>debian-12.5.0-amd64-netinst.iso</option>", "# "+l.machines[1].Name+" by install-debian")
	_, body = get("/profiles/san")
	has(t, body, "It is built in")
	if code, _ := get("/profiles/none"); code != http.StatusNotFound {
		t.Errorf("a profile that is not there: %d", code)
	}
	code, to := post("/profiles", "name", " deb ", "kind", "install", "revision", "3", "media", "mini.iso", "initrd", "a\r\nb", "items", "not its own", "text", "one\r\ntwo")
	if want := []string{`deb install 3 map[initrd:a` + "\n" + `b media:mini.iso] "one\ntwo"`}; code != http.StatusSeeOther || to != "/profiles/deb" || !slices.Equal(l.uploads, want) {
		t.Errorf("it answers %d %s, kept %q", code, to, l.uploads)
	}
	if code, _ := post("/profiles", "name", "san", "kind", "kernel", "kernel", "x"); code != http.StatusConflict {
		t.Errorf("a new profile of an old name answers %d", code)
	}
	l.madeMeanwhile = "ubuntu"
	if code, body := post("/profiles", "name", "ubuntu", "kind", "install", "media", "mini.iso"); code != http.StatusPreconditionFailed || !strings.Contains(body, "Profile ubuntu exists already") || !strings.Contains(body, `value="ubuntu"`) {
		t.Errorf("one that somebody makes at the same moment answers %d", code)
	}
	l.refuse = store.Invalid("media", "there is no media x")
	if code, _ := post("/profiles", "name", "deb", "kind", "install", "media", "x"); code != http.StatusUnprocessableEntity {
		t.Errorf("a refusal answers %d", code)
	}
}
