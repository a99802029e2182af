package main

import (
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"lunboot/scripts"
	"lunboot/store"
	"lunboot/web/metrics"
	"lunboot/web/pages/manual"
)

// Whoever reads the help on the pages finds there every code, every verb with all
// of its flags, every setting, variable, metric, port and file, and by a word of
// it. What there is is asked of the things themselves.
func TestTheHelpHasEverythingItsPlace(t *testing.T) {
	a := started(t, dataDir(t))
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	code := regexp.MustCompile(`setup\?code=(\S+)`).FindStringSubmatch(a.log.String())
	require.Len(t, code, 2)
	resp, err := c.PostForm("http://"+a.Admin+"/setup", url.Values{"code": {code[1]}, "password": {"a long password"}})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	get := func(path string) string {
		t.Helper()
		resp, err := c.Get("http://" + a.Admin + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusOK, resp.StatusCode, path)
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return html.UnescapeString(string(b))
	}
	has := func(page, body, want string) {
		t.Helper()
		if !strings.Contains(body, want) {
			t.Errorf("%s has no %s", page, want)
		}
	}

	codes, err := os.ReadFile("../../services/boot/diagnose/testdata/codes.txt")
	require.NoError(t, err)
	index := get("/help")
	for line := range strings.Lines(string(codes)) {
		code, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		has("/help", index, `href="/help/`+code+`"`)
	}

	commands := get("/help/commands")
	own := map[string]string{"--data": "every-verb", "--server": "every-verb", "--token": "every-verb", "--fingerprint": "every-verb", "--json": "every-verb"}
	for verb, flags := range verbs(t) {
		at := strings.ReplaceAll(verb, " ", "-")
		leaf := !slices.ContainsFunc(slices.Collect(maps.Keys(verbs(t))), func(other string) bool { return strings.HasPrefix(other, verb+" ") })
		if !leaf {
			continue
		}
		has("/help/commands", commands, `id="`+at+`"`)
		for _, f := range flags {
			switch common, ok := own[f]; {
			case f == "--help":
			case ok:
				has("/help/commands", commands, `id="`+common+f+`"`)
			default:
				has("/help/commands", commands, `id="`+at+f+`"`)
			}
		}
	}
	has("/help/commands", commands, "LUNBOOT_MAPPING_ADD_BOOT")
	has("/help/commands", commands, ">lunboot machine show <machine> [flags]<")
	has("/help/commands", commands, "--dhcp auto|full|proxy|off<")
	has("/help/commands", commands, "LUNBOOT_DATA")
	require.NotContains(t, commands, "${")
	require.NotContains(t, commands, "<dd> ", "something there is not said")

	place := get("/help/appliance")
	for line := range strings.Lines(a.must(t, "setting", "list")) {
		if key, _, _ := strings.Cut(line, " "); key != "SETTING" {
			has("/help/appliance", place, `id="s-`+key+`"`)
		}
	}
	tr := overSocket(a.dir)
	defer tr.CloseIdleConnections()
	resp, err = (&http.Client{Transport: tr}).Get("http://lunboot" + metrics.Path)
	require.NoError(t, err)
	scraped, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (lunboot_\S+)`).FindAllStringSubmatch(string(scraped), -1) {
		has("/help/appliance", place, `id="`+m[1]+`"`)
	}
	for _, m := range metrics.All() {
		has("/help/appliance", place, `id="`+m.Name+`"`)
	}

	profiles := get("/help/profiles")
	for _, v := range scripts.Variables() {
		has("/help/profiles", profiles, `id="v-`+v.Name+`"`)
		has("/help/profiles", profiles, v.Example)
	}

	found := get("/help?q=advertise")
	has("a search", found, "/help/commands#serve--advertise")
	require.NotContains(t, found, "#serve--tftp")
	has("a search", get("/help?q=LUNBOOT_MAPPING_ADD_BOOT"), "/help/commands#mapping-add--boot")
	has("a search", get("/help?q=preseed"), "/help/profiles#e-debian")
	has("a search", get("/help?q=webhook-secret"), "/help/appliance#s-webhook-secret")
	has("a search", get("/help?q=lunboot_dhcp_leases"), "/help/appliance#lunboot_dhcp_leases")
	has("a search", get("/help?q=san_uri"), "/help/profiles#v-san_uri")
	require.Contains(t, get("/settings"), `href="/api/v1/support-bundle" download`)
}

// A port or a file that is not told of is found by whoever has to open a firewall
// or wonders what takes the room.
func TestEveryPortAndFileIsToldOf(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	ports := map[string]manual.Port{}
	for _, p := range manual.Ports() {
		for _, f := range p.Flags {
			ports[f] = p
		}
		require.Contains(t, string(readme), "| "+p.Port+" | "+p.Help+" | `"+strings.Join(p.Flags, "`, `")+"` |")
	}
	b, err := manualBook()
	require.NoError(t, err)
	for _, v := range b.Verbs {
		for _, f := range v.Flags {
			if v.Name == "serve" && f.Takes == "ADDR" && ports[f.Name].Port == "" {
				t.Errorf("of the port of %s nothing is told", f.Name)
			}
			if at := regexp.MustCompile(`default: :(\d+)\)`).FindStringSubmatch(f.Help); v.Name == "serve" && at != nil && !strings.HasPrefix(ports[f.Name].Port, at[1]+"/") {
				t.Errorf("%s is port %s, and the table says %s", f.Name, at[1], ports[f.Name].Port)
			}
		}
	}

	a := started(t, dataDir(t), "--tls", "self")
	entries, err := os.ReadDir(a.dir)
	require.NoError(t, err)
	require.Greater(t, len(entries), 8)
	for _, e := range entries {
		told := slices.ContainsFunc(manual.Files(), func(f manual.File) bool {
			first, _, _ := strings.Cut(f.Name, "/")
			ok, err := path.Match(first, strings.Replace(e.Name(), "-shm", "-wal", 1))
			return err == nil && ok
		})
		if !told {
			t.Errorf("of %s in the data folder nothing is told", e.Name())
		}
	}
	plain := strings.NewReplacer("`", "", "’", "'")
	for _, f := range manual.Files() {
		require.Contains(t, plain.Replace(string(readme)), plain.Replace("| "+f.Name+" | "+f.Help+" |"))
	}
}

// An example that is refused is worse than none.
func TestTheExamplesOfProfilesAreTaken(t *testing.T) {
	disc := func(name string, os store.MediaOS) store.Media {
		return store.Media{Name: name, Kind: store.MediaISO, Contents: store.MediaContents{OS: os, Kernel: "boot/vmlinuz", Initrds: []string{"boot/initrd"}, BCD: "boot/bcd", SDI: "boot/boot.sdi", WIM: "sources/boot.wim"}}
	}
	kept := []store.Media{
		disc("mini.iso", store.MediaDebian), disc("fedora.iso", store.MediaFedora), disc("ubuntu.iso", store.MediaUbuntu), disc("alpine.iso", store.MediaAlpine),
		disc("win11.iso", store.MediaWindows), {Name: "wimboot", Kind: store.MediaWimboot},
	}
	facts := scripts.Facts{Machine: "lab-03", Target: "iqn.2026-11.lunboot:target", Portal: netip.MustParseAddrPort("192.0.2.1:3260"), Boot: netip.MustParseAddrPort("192.0.2.1:80"),
		Disk: &scripts.Disk{LUN: 2, Volume: "debian"}, Attempt: 1, Key: "key", Media: kept}
	kinds := map[store.ProfileKind]bool{}
	for _, e := range manual.Examples() {
		kinds[e.Kind] = true
		if err := e.Validate(); err != nil {
			t.Errorf("%s: %v", e.Key, err)
		}
		if err := scripts.Check(e.Profile, kept); err != nil {
			t.Errorf("%s: %v", e.Key, err)
		}
		if file := scripts.AnswerFile(store.MediaOS(e.Fields["system"])); e.Kind == store.ProfileInstall && e.Text != "" {
			text, err := scripts.Answer(e.Profile, facts, file)
			require.NoError(t, err, e.Key)
			require.NotContains(t, text, "{{", e.Key)
			if file == "user-data" {
				var said struct {
					Autoinstall struct {
						Version  int
						Identity struct{ Hostname string }
						Storage  struct {
							Layout struct{ Match map[string]string }
						}
						Late []string `yaml:"late-commands"`
					}
				}
				require.NoError(t, yaml.Unmarshal([]byte(text), &said))
				a := said.Autoinstall
				require.True(t, a.Version == 1 && a.Identity.Hostname == "lab-03" && a.Storage.Layout.Match["vendor"] != "" && len(a.Late) == 4, "%+v", a)
			}
		}
		if e.Text == "" && (e.Kind == store.ProfileCustom || e.Kind == store.ProfileWimboot || e.Kind == store.ProfileInstall && e.Key != "alpine") {
			t.Errorf("%s has no text", e.Key)
		}
		if e.Kind == store.ProfileInstall && e.Text != "" && !strings.Contains(e.Text, "{{done_url}}") {
			t.Errorf("%s never says that it is done", e.Key)
		}
	}
	for _, k := range []store.ProfileKind{store.ProfileInstall, store.ProfileKernel, store.ProfileWimboot, store.ProfileMenu, store.ProfileLocal, store.ProfileCustom} {
		if !kinds[k] {
			t.Errorf("there is no example of kind %s", k)
		}
	}
}
