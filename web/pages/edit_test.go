package pages

import (
	"fmt"
	"html"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"lunboot/store"
)

// editForm is what the browser would send of the edit form as it stands.
func editForm(t *testing.T, body string) map[string]string {
	t.Helper()
	form := map[string]string{}
	for _, m := range regexp.MustCompile(`<input[^>]* name="([^"]*)" value="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		form[m[1]] = html.UnescapeString(m[2])
	}
	for _, m := range regexp.MustCompile(`(?s)<textarea[^>]* name="([^"]*)"[^>]*>\n(.*?)</textarea>`).FindAllStringSubmatch(body, -1) {
		form[m[1]] = strings.ReplaceAll(html.UnescapeString(m[2]), "\n", "\r\n")
	}
	for _, m := range regexp.MustCompile(`(?s)<select[^>]* name="([^"]*)".*?<option value="([^"]*)" selected>`).FindAllStringSubmatch(body, -1) {
		form[m[1]] = m[2]
	}
	for name, v := range form {
		if was, ok := strings.CutPrefix(name, "was-"); ok {
			if v = strings.ReplaceAll(v, "\n", "\r\n"); v != form[was] {
				t.Errorf("%s is made from %q and shows %q", was, v, form[was])
			}
			form[name] = v
		}
	}
	return form
}

func pairs(form map[string]string, with ...string) (out []string) {
	for k, v := range form {
		given := false
		for i := 0; i < len(with); i += 2 {
			given = given || with[i] == k
		}
		if !given {
			out = append(out, k, v)
		}
	}
	return append(out, with...)
}

func TestAMachineIsEditedOnItsPage(t *testing.T) {
	l := full()
	l.machines[1].Revision, l.machines[1].Notes, l.machines[1].Tags = 3, "\n two\nlines", []string{"room 1", "lab"}
	l.machines[1].CHAP, l.machines[1].Reverse = store.Credential{User: "lab-12", Secret: "abcdefghijklmnop"}, store.Credential{User: "lunboot", Secret: "ponmlkjihgfedcba"}
	was := l.machines[1]
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, `href="/machines/2/edit"`)
	code, body := get("/machines/2/edit")
	if code != http.StatusOK {
		t.Fatal(code)
	}
	form := editForm(t, body)
	// As it stands it changes nothing.
	if code, to := post("/machines/2/edit", pairs(form)...); code != http.StatusSeeOther || to != "/machines/2" || !reflect.DeepEqual(l.machines[1], was) {
		t.Errorf("%d %s: %+v", code, to, l.machines[1])
	}
	code, to := post("/machines/2/edit", pairs(form, "name", "Lab-13", "macs", "d4:5d:64:b1:09:7c\r\n D4-5D-64-B1-09-7D", "address", "", "auth", "chap", "tags", " room 2,lab, lab,", "notes", "first\r\n\r\nsecond", "uuid", "", "serial", "S1", "asset_tag", "A1", "initiator", "iqn.2026-11.lab:other")...)
	if code != http.StatusSeeOther || to != "/machines/2" {
		t.Fatalf("%d %s", code, to)
	}
	want := was
	want.Name, want.MACs, want.Address, want.UUID = "lab-13", []store.MAC{mustMAC("d4:5d:64:b1:09:7c"), mustMAC("d4:5d:64:b1:09:7d")}, netip.Addr{}, store.UUID{}
	want.Auth, want.Tags, want.Notes, want.Serial, want.AssetTag, want.Initiator, want.Revision = store.AuthCHAP, []string{"room 2", "lab"}, "first\n\nsecond", "S1", "A1", "iqn.2026-11.lab:other", 4
	if !reflect.DeepEqual(l.machines[1], want) {
		t.Errorf("it is\n%+v, want\n%+v", l.machines[1], want)
	}
	_, body = get("/machines/2")
	has(t, body, "first\n\nsecond", "room 2, lab", "S1", "A1")
}

func TestARefusedEditKeepsWhatWasTypedAndSaysWhere(t *testing.T) {
	for _, bad := range []struct{ field, value, says string }{
		{"macs", "d4:5d:64:b1:09:7c\r\nnonsense", "is not a MAC address"}, {"macs", "", "needs at least one MAC"}, {"address", "10.77.0.999", "is not an IPv4 address"}, {"uuid", "12", "is not a UUID"},
		{"auth", "kerberos", "choose none, chap or mutual"}, {"initiator", "iqn.bad", "does not follow"}, {"initiator", "", "An iSCSI name is needed"},
	} {
		l := full()
		get, post := l.enter(t)
		_, body := get("/machines/2/edit")
		was := l.machines[1]
		code, body := post("/machines/2/edit", pairs(editForm(t, body), bad.field, bad.value, "serial", "S<1>")...)
		if code != http.StatusUnprocessableEntity || !reflect.DeepEqual(l.machines[1], was) {
			t.Errorf("%s %q answers %d: %+v", bad.field, bad.value, code, l.machines[1])
		}
		has(t, body, bad.says, "S&lt;1&gt;")
		if m := regexp.MustCompile(`name="([^"]*)"[^>]* aria-invalid="true"`).FindAllStringSubmatch(body, -1); len(m) != 1 || m[0][1] != bad.field {
			t.Errorf("%s %q: marked are %v", bad.field, bad.value, m)
		}
	}
}

func TestAnEditOfWhatSomebodyChangedMeanwhileKeepsBoth(t *testing.T) {
	l := full()
	l.machines[1].Revision = 3
	get, post := l.enter(t)
	_, body := get("/machines/2/edit")
	form := editForm(t, body)
	l.machines[1].Revision, l.machines[1].Notes, l.machines[1].Serial = 4, "anna's", "anna-1"
	l.audit = []store.Audit{{At: noon, Actor: "anna", Action: "machine.update", Subject: "lab-12", Detail: "notes changed"}}
	code, body := post("/machines/2/edit", pairs(form, "asset_tag", "mine", "serial", "mine-1")...)
	if code != http.StatusPreconditionFailed || l.machines[1].AssetTag != "" {
		t.Fatalf("%d: %+v", code, l.machines[1])
	}
	has(t, body, "was changed by somebody meanwhile", "anna: notes changed", "stands below still", `name="revision" value="4"`, `name="serial" value="mine-1"`, `name="was-serial" value="anna-1"`, "anna&#39;s</textarea>")
	again := []string{"revision", "4", "asset_tag", "mine", "was-asset_tag", "", "serial", "mine-1", "was-serial", "anna-1", "notes", "anna's", "was-notes", "anna's"}
	if code, _ := post("/machines/2/edit", again...); code != http.StatusSeeOther {
		t.Fatal(code)
	}
	if m := l.machines[1]; m.AssetTag != "mine" || m.Serial != "mine-1" || m.Notes != "anna's" || m.Name != "lab-12" || len(m.MACs) != 1 {
		t.Errorf("it is %+v", m)
	}
}

func TestWhoMayOnlyLookIsOfferedNoEdit(t *testing.T) {
	l := full()
	get, _ := l.as(t, store.RoleViewer)
	if _, body := get("/machines/2"); strings.Contains(body, "/machines/2/edit") {
		t.Error("a viewer is offered to edit a machine")
	}
	if code, _ := get("/machines/2/edit"); code != http.StatusForbidden {
		t.Errorf("the form answers %d", code)
	}
}

func TestALUNIsRenumberedMarkedAndMadeReadOnlyInItsRow(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	volume := fmt.Sprint(l.mappings[1].Volume)
	_, body := get("/machines/2")
	has(t, body, `action="/machines/2/mapping"`, "Change LUN 2", `name="to" value="2"`, `name="boot" value="1" checked`, `name="mapping" value="1"`)
	if code, to := post("/machines/2/mapping", "lun", "2", "volume", volume, "mapping", "1", "to", "5", "boot", "1"); code != http.StatusSeeOther || to != "/machines/2" {
		t.Fatalf("%d %s", code, to)
	}
	if m := l.mappings[1]; m.LUN != 5 || !m.Boot || m.ReadOnly || l.acts[0] != "mapping 2/2 lun true boot false reads false" {
		t.Errorf("%+v after %s", m, l.acts)
	}
	if code, _ := post("/machines/2/mapping", "lun", "5", "volume", volume, "mapping", "2", "to", "5", "read_only", "1"); code != http.StatusSeeOther || l.mappings[1].Boot || !l.mappings[1].ReadOnly {
		t.Errorf("%d: %+v", code, l.mappings[1])
	}
	for name, c := range map[string]struct {
		form []string
		code int
		says string
	}{
		"a number that is none":          {[]string{"lun", "5", "volume", volume, "mapping", "3", "to", "five"}, 422, "is not a LUN"},
		"a LUN that it has not":          {[]string{"lun", "2", "volume", volume, "mapping", "3", "to", "6"}, 404, "has no LUN 2; it has 5"},
		"no word of what it was made of": {[]string{"lun", "5", "to", "6"}, 422, "load the page again"},
		"another volume by now":          {[]string{"lun", "5", "volume", "77", "mapping", "3", "to", "6"}, 412, "was given another volume meanwhile"},
		"one that somebody changed":      {[]string{"lun", "5", "volume", volume, "mapping", "2", "to", "6"}, 412, "was changed by somebody meanwhile"},
	} {
		if code, body := post("/machines/2/mapping", c.form...); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s answers %d", name, code)
		}
	}
	if m := l.mappings[1]; m.LUN != 5 || len(l.acts) != 2 {
		t.Errorf("%+v after %s", m, l.acts)
	}
}

func TestTheProfileOfOneBootIsChosenShownAndTakenBack(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	code, body := post("/machines/2/once", "profile", "local")
	if code != http.StatusOK || l.machines[1].OnceProfile != "local" || l.machines[1].Profile != "san" {
		t.Fatalf("%d: %+v", code, l.machines[1])
	}
	has(t, body, "The next boot of lab-12 is by the profile local, those after it by san.", ">Undo<", "The next boot only is by the profile <b>local</b>", "Take back")
	if code, to := post("/machines/undo", undoForm(t, body)...); code != http.StatusSeeOther || to != "/machines/2" || l.machines[1].OnceProfile != "" {
		t.Errorf("%d %s: %q", code, to, l.machines[1].OnceProfile)
	}
	post("/machines/2/once", "profile", "local")
	_, body = get("/machines")
	has(t, body, "next boot only: local")
	_, body = get("/machines/2")
	has(t, body, `<option value="">as always</option><option>install-debian</option><option selected>local</option>`)
	if code, body = post("/machines/2/once"); code != http.StatusOK || l.machines[1].OnceProfile != "" {
		t.Fatalf("%d: %q", code, l.machines[1].OnceProfile)
	}
	has(t, body, "The next boot of lab-12 is by its own profile san.")
	if strings.Contains(body, "The next boot only is by") {
		t.Error("what was taken back is shown still")
	}
	if _, body = get("/machines"); strings.Contains(body, "next boot only") {
		t.Error("the list shows what was taken back")
	}
}

// An installer that somebody drives by hand reports nothing: the page says what shows
// its end, and who drove it may say that it is done.
func TestWhoDrivesAnInstallerByHandSaysWhenItIsDone(t *testing.T) {
	l := full()
	l.machines[1].OnceProfile = "install-debian"
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, "The next boot only is by the profile <b>install-debian</b>", "its volume starts another boot loader than before", "until then each boot starts the installer again", ">Installation is done</button>")
	code, body := post("/machines/2/once", "done", "1")
	if code != http.StatusOK || l.machines[1].OnceProfile != "" {
		t.Fatalf("%d: %q", code, l.machines[1].OnceProfile)
	}
	has(t, body, "The installation is done. The next boot of lab-12 is by its own profile san.", ">Undo<")
	waits := func(p store.Profile) onceWait {
		p.Name = "it"
		return waitsFor(store.Machine{OnceProfile: "it"}, []store.Profile{p})
	}
	for kind, want := range map[store.ProfileKind]string{store.ProfileLocal: "three minutes after the script", store.ProfileMenu: "chosen from the menu", store.ProfileSAN: "is up by it", store.ProfileKernel: "nothing more is heard"} {
		if w := waits(store.Profile{Kind: kind}); w.Install || w.End != "Take back" || !strings.Contains(w.For, want) {
			t.Errorf("%s waits %+v", kind, w)
		}
	}
	if w := waits(store.Profile{Kind: store.ProfileWimboot, Text: "<unattend/>"}); !w.Install || !strings.Contains(w.For, "reports that it is done, or when the machine comes back") {
		t.Errorf("one with answers waits %+v", w)
	}
}
