package httpboot

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lunboot/services/boot"
)

// FuzzIdentityQuery asks for a script with whatever a machine may say: the
// answer is a script, and each of its lines is one of ours.
func FuzzIdentityQuery(f *testing.F) {
	f.Add("mac=52:54:00:00:00:0a&uuid=aa010000-0000-0000-0000-000000000000&hostname=a&platform=efi&buildarch=x86_64")
	f.Add("hostname=%0asanboot&serial=${uuid}&asset=%00&product=%ff%fe")
	f.Add("mac=${netX/mac}&uuid=${uuid}")
	f.Add("hostname=a&mac=525400000099")
	f.Add("%zz;a=b")
	l := newLab(&testing.T{}, trustAll)
	f.Cleanup(l.srv.Close)
	h := Handler(l.cfg)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "http://127.0.0.1/boot.ipxe", nil)
		r.URL.RawQuery = query
		r.RemoteAddr = "192.0.2.7:1024"
		r.Header.Set("User-Agent", "iPXE/1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%q answers %d", query, w.Code)
		}
		onlyOurCommands(t, w.Body.String())
	})
}

// FuzzScriptFile asks for any path at all.
func FuzzScriptFile(f *testing.F) {
	for _, p := range []string{"/hostname-a.ipxe", "/mac-525400000099.ipxe", "/uuid-aa.ipxe", "/hostname-${x}.ipxe", "//", "/files/../x", "/loaders/a/b", "/report"} {
		f.Add(p)
	}
	l := newLab(&testing.T{}, trustAll)
	f.Cleanup(l.srv.Close)
	h := Handler(l.cfg)
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest("GET", "http://127.0.0.1/", nil)
		r.URL.Path = "/" + strings.TrimPrefix(path, "/")
		r.RemoteAddr = "192.0.2.7:1024"
		r.Header.Set("User-Agent", "iPXE/1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK, http.StatusNotFound:
			if w.Body.Len() == 0 && w.Code == http.StatusNotFound {
				return // a name walk
			}
			if _, _, err := boot.ParseLoaderPath(strings.TrimPrefix(r.URL.Path, boot.LoaderRoot)); err == nil {
				return
			}
			onlyOurCommands(t, w.Body.String())
		default:
			t.Fatalf("%q answers %d", path, w.Code)
		}
	})
}

// onlyOurCommands fails when a line of a script is not one that a template
// writes.
func onlyOurCommands(t *testing.T, script string) {
	t.Helper()
	if !strings.HasPrefix(script, "#!ipxe\n") || !strings.HasSuffix(script, "\n") {
		t.Fatalf("no script: %q", script)
	}
	for _, line := range strings.Split(script, "\n") {
		for _, r := range line {
			if r < 0x20 || r >= 0x7f {
				t.Fatalf("the line %q has the character %q", line, r)
			}
		}
		cmd, rest, _ := strings.Cut(line, " ")
		switch cmd {
		case "", "#", "#!ipxe", ":ask", ":wait", ":again", ":failed", ":leave", "set", "clear", "chain", "prompt", "goto", "exit", "isset", "sanboot":
		case "echo":
			if strings.Contains(strings.ReplaceAll(rest, "${errno:hexraw}", ""), "${") {
				t.Fatalf("the line %q is expanded by iPXE", line)
			}
			for i, w := range strings.Fields(rest) {
				if w == "||" || w == "&&" || w == ";" || w[0] == '#' || i == 0 && w[0] == '-' {
					t.Fatalf("the line %q is cut at %q", line, w)
				}
			}
		default:
			t.Fatalf("the line %q is not ours", line)
		}
	}
}

// The fakes serve both kinds of tests.
var _ Inventory = (*lab)(nil)
