package pages

import (
	"strings"
	"testing"
)

// Who writes a profile for the first time begins with one that works.
func TestAProfileBeginsWithAnExampleOfTheGuide(t *testing.T) {
	get, _ := full().enter(t)
	if _, body := get("/new-profile?kind=install"); !strings.Contains(body, `href="/help/profiles#k-install"`) {
		t.Error("the form does not lead to the guide")
	}
	_, guide := get("/help/profiles")
	for _, want := range []string{`href="/new-profile?example=debian"`, `id="k-wimboot"`, `id="v-done_url"`, "{{done_url}}", "http://192.0.2.1/report?attempt=1", "d-i debian-installer/locale"} {
		if !strings.Contains(guide, want) {
			t.Errorf("the guide has no %s", want)
		}
	}
	_, form := get("/new-profile?example=debian")
	for _, want := range []string{`name="kind" value="install"`, `value="install-debian"`, "{{done_url}}"} {
		if !strings.Contains(form, want) {
			t.Errorf("the form that begins with Debian has no %s in\n%s", want, form)
		}
	}
	if code, form := get("/new-profile?example=nothing"); code != 200 || strings.Contains(form, "d-i ") {
		t.Errorf("an example that there is not: %d", code)
	}
}

func TestASearchOfTheHelpLeadsToItsPlace(t *testing.T) {
	get, _ := full().enter(t)
	_, body := get("/help?q=LUNBOOT_MACHINE_ADD_MAC")
	if !strings.Contains(body, `href="/help/commands#machine-add--mac"`) || strings.Contains(body, "serve--admin") || strings.Contains(body, "Nothing is found") {
		t.Errorf("a flag by its variable:\n%s", body)
	}
	if _, body := get("/help?q=xyzzy"); !strings.Contains(body, "Nothing is found") {
		t.Error("something is found of what there is not")
	}
}
