package httpboot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/services/boot"
	"lunboot/services/httpd"
	"lunboot/store"
)

// caseOf reads the case number from a script's screen.
func caseOf(t *testing.T, text string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^echo Case number ([0-9]{1,6})\. See http://\S+$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("there is no case number in\n%s", text)
	}
	return found[1]
}

// sickMedia is a file system of which each file is broken in its own way.
type sickMedia struct{ fs.FS }

func (m sickMedia) Open(name string) (fs.File, error) {
	switch name {
	case "denied":
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	case "damaged.ipxe":
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
	case "panic":
		panic("the file system is broken")
	}
	return m.FS.Open(name)
}

// want is how a request of an iPXE may be answered.
type want int

const (
	aScript  want = iota // status 200 and a script
	aFailure             // an error's status and a script, for commands that load data
	aWalk                // 404 and nothing
	aFile                // what was asked for
)

// TestAnIPXEIsGivenAScriptWhateverGoesWrong asks for every path by every method
// under every fault. iPXE runs whatever has the status 200, so that is a script
// or the very file that was asked for; only a name walk ends with nothing.
func TestAnIPXEIsGivenAScriptWhateverGoesWrong(t *testing.T) {
	a, x := query("a", uuidA, macA), query("", store.UUID{}, macX)
	paths := []struct {
		path  string
		get   want // GET and HEAD in health
		walk  bool // there is nobody of that name
		names bool // there is somebody, unless the inventory finds nobody
	}{
		{path: "/"}, {path: "/boot.ipxe"}, {path: a}, {path: x}, {path: "/boot.ipxe?mac=zz"}, {path: "/boot.ipxe?%zz;a"}, {path: "/boot.ipxe?foo=1"},
		{path: query("a", uuidB, macC)}, {path: query("", store.UUID{}, macB)}, {path: "/boot.ipxe/x"}, {path: "/boot.ipxe/"},
		{path: "/hostname-a.ipxe", names: true}, {path: "/uuid-" + uuidA.String() + ".ipxe", names: true}, {path: "/mac-" + macA.Hex12() + ".ipxe", names: true},
		{path: "/hostname-nobody.ipxe", get: aWalk, walk: true}, {path: "/mac-" + macX.Hex12() + ".ipxe", get: aWalk, walk: true},
		{path: "/uuid-00000000-0000-0000-0000-0000000000ff.ipxe", get: aWalk, walk: true},
		{path: "/hostname-.ipxe"}, {path: "/mac-zz.ipxe"}, {path: "/serial-x.ipxe"}, {path: "/autoexec.ipxe"}, {path: "/favicon.ico"}, {path: "//boot.ipxe"}, {path: "/%00"}, {path: "/%2e%2e/x"}, {path: "/a%0ab"},
		{path: "/loaders/snponly.efi", get: aFile}, {path: "/loaders/" + macA.Hex12() + "/undionly.kpxe", get: aFile}, {path: "/loaders/grub.efi"}, {path: "/loaders/"}, {path: "/loaders"},
		{path: "/files/vmlinuz", get: aFile}, {path: "/files/menu.ipxe", get: aFile}, {path: "/files/nothing", get: aFailure}, {path: "/files/nothing.ipxe"}, {path: "/files/", get: aFailure}, {path: "/files"},
		{path: "/files/../x", get: aFailure}, {path: "/files/denied", get: aFailure}, {path: "/files/damaged.ipxe"}, {path: "/files/panic"}, {path: "/files/dir", get: aFailure},
		{path: "/report"}, {path: report("attempt", "42", "key", labKey, "step", "sanboot", "code", "1d704539")}, {path: report("up", "1")}, {path: report("up", "1", "mac", macA.String())}, {path: "/report/x"}, {path: "/report?%zz"},
		{path: "/boot.ipxe?hostname=" + strings.Repeat("x", 20_000)}, {path: "/" + strings.Repeat("y", 20_000)},
	}
	methods := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW"}
	type fault struct {
		broken string
		sick   error
	}
	faults := []fault{{}}
	for _, m := range []string{"Machine", "MachineByName", "MachineByUUID", "MachineByMAC", "MachineBySerial", "MachineByAssetTag", "MappingsOf", "Volume", "Profile",
		"UnknownMachine", "SeeUnknown", "SeenMachine", "ArmBoot", "ConsumeOnce", "Baseline", "Begin", "AllMedia", "Attempt", "Explain", "Open"} {
		faults = append(faults, fault{m, nil}, fault{m, errSick}, fault{m, store.NotFound("thing", "x")},
			fault{m, &store.Error{Kind: store.KindUnavailable, Msg: "the disk is full"}}, fault{m, context.DeadlineExceeded})
	}
	for _, f := range faults {
		t.Run(fmt.Sprintf("%s %v", f.broken, f.sick), func(t *testing.T) {
			l := newLab(t, trustAll, func(l *lab) {
				l.broken, l.sick = f.broken, f.sick
				l.cfg.Explainer = l
				l.explain = func(store.AttemptID) (string, string, string, bool) { return "title", "cause", "fix", true }
				l.cfg.Media = sickMedia{fstest.MapFS{"vmlinuz": {Data: []byte("kernel")}, "menu.ipxe": {Data: []byte("#!ipxe\nexit\n")}, "dir/x": {}}}
				l.unknown[macB] = store.UnknownMachine{MAC: macB, Ignored: true}
				l.machines = append(l.machines[:1], l.machines[2:]...)
			})
			for _, p := range paths {
				for _, method := range methods {
					if f.broken != "" && method != "GET" && !(method == "POST" && strings.HasPrefix(p.path, "/report")) {
						continue // the faults lie behind these
					}
					l.mu.Lock()
					l.machines[0].OnceProfile = "san"
					l.mu.Unlock()
					var body io.Reader
					if method == "POST" {
						body = strings.NewReader("step=kernel")
					}
					res, text := l.send(method, p.path, body, "Content-Type", "application/x-www-form-urlencoded")
					what := p.path
					if len(what) > 80 {
						what = what[:80] + "…"
					}
					nobody := store.IsNotFound(f.sick) && p.names
					check(t, method+" "+what, method, res, text, p.get, p.walk || nobody, f.broken != "")
				}
			}
		})
	}
}

func check(t *testing.T, what, method string, res *http.Response, text string, w want, walk, faulty bool) {
	t.Helper()
	plain := method == "GET" || method == "HEAD"
	switch {
	case method == "HEAD" && text != "":
		t.Errorf("%s has a body: %q", what, text)
		return
	case method == "HEAD" && (w == aScript || w == aFile) && res.StatusCode != 200,
		method == "HEAD" && w == aWalk && res.StatusCode != 404:
		t.Errorf("%s answers %s", what, res.Status)
		return
	case method == "HEAD":
		return
	case walk && plain && res.StatusCode == 404:
		if text != "" || res.ContentLength != 0 {
			t.Errorf("%s ends a walk with %q", what, text)
		}
		return
	case plain && w == aFile && !strings.HasPrefix(text, "#!ipxe\n#"):
		if res.StatusCode != 200 || text == "" {
			t.Errorf("%s answers %s %q", what, res.Status, text)
		}
		return
	case plain && w == aFailure:
		if res.StatusCode < 400 {
			t.Errorf("%s gives %s, and a script would be loaded as data", what, res.Status)
		}
	case plain && walk && !faulty:
		t.Errorf("%s answers %s, want a 404", what, res.Status)
	case res.StatusCode != 200:
		t.Errorf("%s answers %s", what, res.Status)
	}
	if !strings.HasPrefix(text, "#!ipxe\n") || !strings.HasSuffix(text, "\n") || res.ContentLength != int64(len(text)) {
		t.Errorf("%s answers %d of %d bytes: %q", what, len(text), res.ContentLength, text)
	}
	onlyOurCommands(t, text)
	if strings.Contains(text, "sick") || strings.Contains(text, "malformed") || strings.Contains(text, "is broken") {
		t.Errorf("%s shows the inside of the appliance:\n%s", what, text)
	}
	if strings.Contains(text, "Nothing is hooked or started; the machine is told why") && !strings.Contains(text, "not enrolled yet") {
		caseOf(t, text)
		if !strings.Contains(text, "\nchain --replace --autofree http://") {
			t.Errorf("%s is not asked again:\n%s", what, text)
		}
	}
}

func TestARangeThatThereIsNotIsAScriptForAnIPXE(t *testing.T) {
	l := newLab(t)
	res, text := l.do("GET", "/loaders/snponly.efi", "Range", "bytes=900000-")
	if res.StatusCode != http.StatusRequestedRangeNotSatisfiable || !strings.HasPrefix(text, "#!ipxe\n") || res.ContentLength != int64(len(text)) {
		t.Errorf("%s %q", res.Status, text)
	}
	caseOf(t, text)
	if res, text := l.do("HEAD", "/loaders/snponly.efi", "Range", "bytes=900000-"); res.StatusCode != 416 || text != "" {
		t.Errorf("HEAD: %s %q", res.Status, text)
	}
	if res, text := l.do("GET", "/loaders/snponly.efi", "Range", "bytes=900000-", "User-Agent", "UefiHttpBoot/1.0"); res.StatusCode != 416 || strings.Contains(text, "ipxe") {
		t.Errorf("firmware: %s %q", res.Status, text)
	}
	if e := l.said(); len(e) != 0 {
		t.Errorf("nothing was sent, and yet %+v", e)
	}
}

func TestSomebodyWhoIsNoIPXEIsToldInPlainWordsWhatIsWrong(t *testing.T) {
	l := newLab(t, func(l *lab) { l.broken = "MachineByMAC" })
	for _, c := range []struct {
		method, path string
		status       int
	}{{"PUT", "/boot.ipxe", 405}, {"DELETE", "/report", 405}, {"GET", "/nothing", 404}, {"GET", "/files/x", 404}, {"GET", "/loaders/x", 404}, {"GET", query("", store.UUID{}, macA), 500}} {
		res, text := l.do(c.method, c.path, "User-Agent", "curl/8")
		if res.StatusCode != c.status || strings.Contains(text, "#!ipxe") || text == "" {
			t.Errorf("%s %s answers %s %q", c.method, c.path, res.Status, text)
		}
		if c.status == 405 && !strings.HasPrefix(res.Header.Get("Allow"), "GET, HEAD") {
			t.Errorf("%s %s allows %q (RFC 9110 §15.5.6)", c.method, c.path, res.Header.Get("Allow"))
		}
	}
}

// half begins an answer and then breaks.
type half struct{ io.ReadSeeker }

func (h half) Read([]byte) (int, error) { panic("the disk is gone") }

type halfFile struct {
	fs.File
	half
}

func (h halfFile) Read(b []byte) (int, error) { return h.half.Read(b) }

type halfMedia struct{ fs.FS }

func (m halfMedia) Open(name string) (fs.File, error) {
	f, err := m.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return halfFile{f, half{f.(io.ReadSeeker)}}, nil
}

func TestAnAnswerThatBreaksInTheMiddleIsNeverTakenForAWholeOne(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.cfg.Media = halfMedia{fstest.MapFS{"a": {Data: make([]byte, 100_000)}}}
	})
	req, _ := http.NewRequest("GET", l.srv.URL+"/files/a", nil)
	req.Header.Set("User-Agent", "iPXE/1")
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Error("the file was taken for whole")
	}
}

// listen serves the lab's handler as the appliance does.
func listen(t *testing.T, l *lab, o httpd.Options) string {
	t.Helper()
	srv := httpd.New("boot", "127.0.0.1:0", Handler(l.cfg), o)
	if err := srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return srv.Addr().String()
}

// say sends bytes and reads until the end or the deadline.
func say(t *testing.T, at, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

const agent = "Host: x\r\nUser-Agent: iPXE/1.0.0\r\nConnection: close\r\n"

// What the listener itself cuts off never reaches the handler. It is closed, or
// answered with an error's status, whose body iPXE throws away.
func TestWhatTheListenerCutsOffIsNeverSomethingThatAnIPXERuns(t *testing.T) {
	l := newLab(t, trustAll)
	at := listen(t, l, httpd.Options{HeaderTime: 300 * time.Millisecond, BodyTime: 300 * time.Millisecond, MaxHeader: 8 << 10})
	for name, c := range map[string]struct{ say, want string }{
		"a script":                   {"GET " + query("", store.UUID{}, macA) + " HTTP/1.1\r\n" + agent + "\r\n", `(?s)^HTTP/1\.1 200 OK\r\n.*\r\n\r\n#!ipxe\n`},
		"a body that never comes":    {"POST /report HTTP/1.1\r\n" + agent + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nstep=", `(?s)^HTTP/1\.1 200 OK\r\n.*\r\n\r\n#!ipxe\n.*could not read.*Case number`},
		"a body that is too large":   {"POST /report HTTP/1.1\r\n" + agent + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("a", 5000), `(?s)^HTTP/1\.1 200 OK\r\n.*\r\n\r\n#!ipxe\n.*could not read.*Case number`},
		"a header that never ends":   {"GET /boot.ipxe HTTP/1.1\r\n" + agent, `^$`},
		"a header that is too large": {"GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\n" + agent + "\r\n", `^HTTP/1\.1 431 `},
		"a line that is no request":  {"GET /boot.ipxe?a=b c HTTP/1.1\r\n" + agent + "\r\n", `^HTTP/1\.1 400 `},
		"an old iPXE's HTTP/1.0":     {"GET /nothing HTTP/1.0\r\n" + agent + "\r\n", `(?s)^HTTP/1\.0 200 OK\r\n.*\r\n\r\n#!ipxe\n.*Case number`},
		"a server-wide OPTIONS":      {"OPTIONS * HTTP/1.1\r\n" + agent + "\r\n", `(?s)^HTTP/1\.1 200 OK\r\n.*\r\n\r\n(#!ipxe\n.*)?$`},
		"a proxy's request":          {"GET http://elsewhere/x HTTP/1.1\r\n" + agent + "\r\n", `(?s)^HTTP/1\.1 200 OK\r\n.*\r\n\r\n#!ipxe\n.*Case number`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := say(t, at, c.say); !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("it answers %q", got)
			}
		})
	}
}

func TestTheCaseNumberOnTheScreenStandsInTheEvent(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		kind store.EventKind
		lab  func(*lab)
	}{
		"conflict": {query("a", uuidB, macC), store.EventScriptConflict, nil},
		"withheld": {query("a", uuidA, macA), store.EventScriptWithheld, nil},
		"no disk":  {query("a", uuidA, macA), store.EventScriptFailed, func(l *lab) { l.mappings = nil }},
		"failed":   {query("a", uuidA, macA), store.EventScriptFailed, func(l *lab) { l.broken, l.sick = "MappingsOf", errSick }},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(l *lab) {
				if c.lab != nil {
					c.lab(l)
				}
			})
			number := caseOf(t, l.get(c.path))
			if e := l.saidOne(c.kind); !strings.HasSuffix(e.Detail.Reason, " (case "+number+")") {
				t.Errorf("case %s is not in %+v", number, e)
			}
		})
	}
}

func TestTheCardOfAnUnknownMachineIsNoted(t *testing.T) {
	l := newLab(t)
	l.get(query("", store.UUID{}, macX) + "&" + url.Values{"busid": {"01:80:86:10:0e"}, "chip": {"82540em"}}.Encode())
	if u := l.unknown[macX]; u.NIC != "PCI 8086:100e" || u.Chip != "82540em" {
		t.Errorf("noted: %+v", u)
	}
	if _, err := boot.ParseIdentity(url.Values{"busid": {"nonsense"}}); err != nil {
		t.Errorf("a card that cannot be read names no machine, and yet: %v", err)
	}
}
