package pages

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"lunboot/store"
)

// undoForm is what the Undo of a page sends.
func undoForm(t *testing.T, body string) (form []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`<input type="hidden" name="(was|back)" value="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		form = append(form, m[1], m[2])
	}
	if len(form) != 4 {
		t.Errorf("it is undone by %v:\n%s", form, body)
	}
	return form
}

func TestAProfileAMappingAndAnIgnoredMACAreTakenBack(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	code, body := post("/machines/2/profile", "profile", "local")
	has(t, body, "lab-12 boots by the profile local now; it was san.", ">Undo<")
	if code != http.StatusOK || l.machines[1].Profile != "local" {
		t.Errorf("%d: the profile is %s", code, l.machines[1].Profile)
	}
	if code, to := post("/machines/undo", undoForm(t, body)...); code != http.StatusSeeOther || to != "/machines/2" || l.machines[1].Profile != "san" {
		t.Errorf("%d %s: the profile is %s", code, to, l.machines[1].Profile)
	}
	// Once somebody went on, there is nothing to take back.
	_, body = post("/machines/2/profile", "profile", "local")
	l.machines[1].Revision++
	if code, body := post("/machines/undo", undoForm(t, body)...); code != http.StatusOK || !strings.Contains(body, "Not taken back") || l.machines[1].Profile != "local" {
		t.Errorf("%d: the profile is %s", code, l.machines[1].Profile)
	}

	was := l.mappings[1]
	was.ID, was.Revision = 0, 0 // it comes back as a mapping of its own
	for name, c := range map[string]struct {
		form []string
		code int
	}{
		"no word of what it was made of": {[]string{"lun", "2"}, http.StatusUnprocessableEntity},
		"another volume by now":          {[]string{"lun", "2", "mapping", "1", "volume", "77"}, http.StatusPreconditionFailed},
		"another revision by now":        {[]string{"lun", "2", "mapping", "9", "volume", fmt.Sprint(was.Volume)}, http.StatusPreconditionFailed},
		"a LUN that is gone":             {[]string{"lun", "3", "mapping", "1", "volume", fmt.Sprint(was.Volume)}, http.StatusNotFound},
	} {
		if code, _ := post("/machines/2/unmap", c.form...); code != c.code || len(l.mappings) != 2 {
			t.Errorf("%s: %d, %d mappings", name, code, len(l.mappings))
		}
	}
	_, form := get("/machines/2")
	has(t, form, fmt.Sprintf(`<input type="hidden" name="mapping" value="1"><input type="hidden" name="volume" value="%d"><button`, was.Volume))
	code, body = post("/machines/2/unmap", "lun", "2", "mapping", "1", "volume", fmt.Sprint(was.Volume))
	has(t, body, "lab-12 no longer has LUN 2; the volume stays as it is.", ">Undo<")
	if code != http.StatusOK || len(l.mappings) != 0 {
		t.Errorf("%d: %d mappings", code, len(l.mappings))
	}
	if code, to := post("/machines/undo", undoForm(t, body)...); code != http.StatusSeeOther || to != "/machines/2" || len(l.mappings) != 1 || l.mappings[0] != was {
		t.Errorf("%d %s: %+v, was %+v", code, to, l.mappings, was)
	}

	code, body = post("/unknown/b8:27:eb:91:3c:0d/ignore")
	has(t, body, "b8:27:eb:91:3c:0d is ignored", ">Undo<")
	if code != http.StatusOK || !l.unknown[0].Ignored {
		t.Errorf("%d: %+v", code, l.unknown[0])
	}
	if code, to := post("/machines/undo", undoForm(t, body)...); code != http.StatusSeeOther || to != "/unknown" || l.unknown[0].Ignored {
		t.Errorf("%d %s: %+v", code, to, l.unknown[0])
	}
}

func TestAnUndoThatIsNoneDoesNothing(t *testing.T) {
	l := full()
	_, post := l.enter(t)
	for _, was := range []string{"2:0:map:", "2:0:map:1,2,yes,no", "2:0:map:0,2,true,false", "2:0:map:1,99999,true,false", "2:0:map:1,2,true", "0:0:ignore:nobody", "x:0:map:1,2,true,false"} {
		if code, body := post("/machines/undo", "was", was, "back", "/machines/2"); code != http.StatusOK || !strings.Contains(body, "Not taken back") {
			t.Errorf("%q answers %d", was, code)
		}
	}
	if len(l.mappings) != 2 {
		t.Errorf("%d mappings", len(l.mappings))
	}
	l.machines[1].Revision = 7
	for _, to := range []string{"https://elsewhere.example", "//elsewhere.example", "/machines/x", "/machines//elsewhere", "/settings"} {
		if code, _ := post("/machines/undo", "was", "0:0:ignore:b8:27:eb:91:3c:0d", "back", to); code != http.StatusOK {
			t.Errorf("it leads to %s: %d", to, code)
		}
	}
	if s, err := readMapping(3, strings.SplitN(wasMapped(store.Mapping{Machine: 3, Volume: 5, LUN: 16383, ReadOnly: true}), ":", 4)[3]); err != nil || s.Machine != 3 || s.Volume != 5 || *s.LUN != 16383 || *s.Boot || !s.ReadOnly {
		t.Errorf("it comes back as %+v, %v", s, err)
	}
}
