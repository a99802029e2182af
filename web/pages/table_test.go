package pages

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

func TestEveryListIsSearchedSortedAndPaged(t *testing.T) {
	l := full()
	for n := range 230 {
		l.vols = append(l.vols, store.Volume{ID: store.VolumeID(100 + n), Name: fmt.Sprintf("disk-%03d", n), Size: int64(n+1) << 20, State: store.VolumeReady})
	}
	for n := range 150 {
		l.unknown = append(l.unknown, store.UnknownMachine{MAC: store.MAC{2, 0, 0, 0, 1, byte(n)}, Vendor: "Rack", Count: int64(n), LastSeen: noon, Ignored: n >= 120})
	}
	get, post := l.enter(t)
	shown := func(path, pattern string) []string {
		t.Helper()
		code, body := get(path)
		if code != http.StatusOK {
			t.Errorf("%s answers %d", path, code)
		}
		var out []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(body, -1) {
			out = append(out, m[1])
		}
		return out
	}
	const volume, profile, medium, mac = `class="name" href="/volumes/[^"]*">([^<]*)<`, `<strong>([^<]*)</strong></a>`, `<td><strong>([^<]*)</strong>`, `class="mono mac" href="[^"]*">([^<]*)<`
	for path, want := range map[string]struct {
		pattern string
		names   []string
	}{
		"/volumes?search=machine:lab-01":     {volume, []string{"debian12"}},
		"/volumes?search=state:importing":    {volume, []string{"arriving"}},
		"/volumes?search=disk-22&sort=-size": {volume, []string{"disk-229", "disk-228", "disk-227", "disk-226", "disk-225", "disk-224", "disk-223", "disk-222", "disk-221", "disk-220"}},
		"/volumes?search=nothing":            {volume, nil},
		"/profiles?search=kind:install":      {profile, []string{"install-debian"}},
		"/profiles?sort=-name":               {profile, []string{"san", "local", "install-debian"}},
		"/media?search=xyzzy":                {medium, nil},
		"/unknown?search=raspberry":          {mac, []string{"b8:27:eb:91:3c:0d"}},
		"/unknown?search=d45d64":             {mac, []string{"d4:5d:64:b1:0b:02"}},
		"/unknown?search=maker:qemu":         {mac, []string{"52:54:00:12:34:56"}},
		"/unknown?search=Gi0/4&sort=seen":    {mac, []string{"d4:5d:64:b1:0b:02"}},
	} {
		if got := shown(path, want.pattern); !slices.Equal(got, want.names) {
			t.Errorf("%s shows %v, want %v", path, got, want.names)
		}
	}
	// The pages follow each other, and a sort stays.
	var all []string
	for path := "/volumes?sort=name"; path != ""; {
		all = append(all, shown(path, volume)...)
		_, body := get(path)
		path = ""
		if m := regexp.MustCompile(`href="([^"]*)" rel="next"`).FindStringSubmatch(body); m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(all) != 234 || !slices.IsSorted(all) {
		t.Errorf("the pages hold %d volumes, sorted %v", len(all), slices.IsSorted(all))
	}
	_, body := get("/volumes?from=200&sort=name&search=disk")
	has(t, body, "201–230 of 230", `rel="prev"`, `aria-sort="ascending"`, `hx-get="/volumes?from=200&amp;search=disk&amp;sort=name"`, `value="disk"`)
	_, body = get("/volumes?from=9000")
	has(t, body, "201–234 of 234")
	_, body = get("/unknown")
	has(t, body, "122 wait to be enrolled", "1–100 of 122", "Enroll 122")
	_, body = get("/unknown?search=raspberry")
	has(t, body, "122 wait to be enrolled, 1 fits", "Enroll 122")
	_, body = get("/unknown?search=nobody")
	has(t, body, "No machine fits")
	for _, path := range []string{"/volumes?search=state:broken", "/unknown?search=ignored:perhaps", "/profiles?search=kind:x", "/media?search=kind:x"} {
		if code, body := get(path); code != http.StatusUnprocessableEntity || !strings.Contains(body, "there are: ") || !strings.Contains(body, `value="`) {
			t.Errorf("%s answers %d", path, code)
		}
	}
	// An act that fails shows the list with its own reason.
	l.refuse = store.InUse("it is used")
	if code, body := post("/volumes/4/remove?search=state:broken", "confirm", "spare"); code != http.StatusConflict || !strings.Contains(body, "It is used") {
		t.Errorf("it answers %d", code)
	}
}

func TestEveryListIsExportedAsItIsShown(t *testing.T) {
	l := full()
	l.busy()
	l.served()
	l.tokens = []store.Token{{ID: 1, Name: "ci", Scope: "read", Hash: "hash-of-ci"}, {ID: 2, Name: "robot", Scope: "admin", Hash: "hash-of-robot", Expires: noon.Add(-time.Hour)}}
	l.audit, l.jobs = append(changed(60), store.Audit{ID: 99, Actor: "administrator", Action: "machine.update"}), worked() // not who is asked for
	get, _ := l.enter(t)
	for page, c := range map[string]struct {
		link    string
		has     []string
		missing string
	}{
		"/volumes?search=debian&sort=-size":      {"/export/volumes?format=csv&amp;search=debian&amp;sort=-size", []string{"id,name,", "2,debian12,"}, "spare"},
		"/machines?search=lab&show=up&sort=name": {"/export/machines?search=lab&amp;show=up&amp;sort=name&amp;format=json", []string{`"name": "lab-01"`, `"volume": "debian12"`, `"last_boot": "up"`}, "lab-12"},
		"/machines":                              {"/export/machines?format=json", []string{`"name": "lab-12"`, `"name": "lab-08"`}, "secret"},
		"/unknown?search=raspberry":              {"/export/unknown-machines?format=json&amp;search=raspberry", []string{`"mac": "b8:27:eb:91:3c:0d"`}, "d4:5d:64"},
		"/leases?show=declined&search=10.77":     {"/export/leases?format=csv&amp;search=10.77&amp;show=declined", []string{"10.77.0.112,00:80:77:31:94:a0,,,declined,"}, "10.77.0.103"},
		"/sessions?show=os":                      {"/export/sessions?format=json&amp;show=os", []string{`"machine": "lab-01"`}, "lab-12"},
		"/jobs?show=failed":                      {"/export/jobs?format=csv&amp;show=failed", []string{"3,volume.flatten,lab-07,failed,"}, "debian12"},
		"/activity?show=failed&sort=-started":    {"/export/attempts?format=csv&amp;show=failed&amp;sort=-started", []string{"id,machine,", ",failed,read,LB-LUN-01,"}, ",up,"},
		"/audit?who=admin&what=machine&from=5":   {"/export/audit?format=csv&amp;what=machine&amp;who=admin", []string{"id,at,who,", ",admin,"}, "administrator"},
		"/profiles?search=kind:install":          {"/export/profiles?format=csv&amp;search=kind%3Ainstall", []string{"name,kind,", "install-debian,install,"}, "local"},
		"/media":                                 {"/export/media?format=json", []string{`"name": "`}, "xyzzy"},
		"/subnets?show=full&sort=size":           {"/export/subnets?format=csv&amp;show=full&amp;sort=size", []string{"id,network,interface,", "\n1,10.77.0.0/24,eth1,full,10.77.0.100-10.77.0.199,100,1,"}, "10.9.0.0"},
		"/mappings?search=volume:debian12":       {"/export/mappings?format=csv&amp;search=volume%3Adebian12", []string{"machine,lun,volume,", "lab-01,2,debian12,"}, "win11"},
		"/people?show=admin":                     {"/export/users?format=json&amp;show=admin", []string{`"name": "admin"`, `"role": "admin"`}, "argon2"},
		"/tokens?show=read":                      {"/export/tokens?format=csv&amp;show=read", []string{"id,name,owner,scope,", "1,ci,,read,"}, "hash"},
		"/loaders":                               {"/export/loaders?format=csv", []string{"name,chain,role,"}, "xyzzy"},
	} {
		_, body := get(page)
		has(t, body, `href="`+c.link+`" download`)
		code, text := get(strings.ReplaceAll(c.link, "&amp;", "&"))
		if code != http.StatusOK || strings.Contains(text, c.missing) {
			t.Errorf("%s answers %d:\n%s", c.link, code, text)
		}
		has(t, text, c.has...)
	}
	for path, want := range map[string]int{"/export/people": 404, "/export/users?search=role:x": 422, "/export/events?search=kind:xyz": 422, "/export/volumes?format=xlsx": 422, "/export/volumes?search=state:x": 422} {
		if code, body := get(path); code != want || !strings.Contains(body, map[int]string{404: "That is not here", 422: "That did not work"}[want]) {
			t.Errorf("%s answers %d", path, code)
		}
	}
}
