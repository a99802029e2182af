package httpboot

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"lunboot/services/boot"
	"lunboot/services/boot/circle"
	"lunboot/store"
)

func TestALoaderIsSentWholeAndInParts(t *testing.T) {
	l := newLab(t)
	want, _ := l.Open(boot.SNPOnly)
	for _, path := range []string{"/loaders/snponly.efi", "/loaders/" + macA.Hex12() + "/snponly.efi"} {
		head, body := l.do("HEAD", path, "User-Agent", "UefiHttpBoot/1.0")
		if head.StatusCode != 200 || head.ContentLength != int64(len(want)) || body != "" {
			t.Errorf("HEAD answers %s with length %d", head.Status, head.ContentLength)
		}
		if e := l.said(); len(e) != 0 {
			t.Errorf("HEAD says %+v", e)
		}
		res, body := l.do("GET", path, "User-Agent", "UefiHttpBoot/1.0")
		if body != string(want) || res.Header.Get("Content-Type") != "application/efi" {
			t.Errorf("GET answers %s, %d bytes, %v", res.Status, len(body), res.Header)
		}
		e := l.saidOne(store.EventLoaderSent)
		if e.Detail.Loader != "snponly.efi" || e.Detail.Bytes != int64(len(want)) || e.Addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("the event is %+v", e)
		}
	}
	res, body := l.do("GET", "/loaders/snponly.efi", "Range", "bytes=7-14")
	if res.StatusCode != 206 || body != string(want[7:15]) {
		t.Errorf("a part is answered %s %q", res.Status, body)
	}
}

// A DHCP server that names our loader's URL to everybody names it to the iPXE too.
func TestAnIPXEThatFetchesItsLoaderForEverIsGivenItsScript(t *testing.T) {
	l := newLab(t, trustAll)
	want, _ := l.Open(boot.SNPOnly)
	mine, others := "/loaders/"+macA.Hex12()+"/snponly.efi", "/loaders/"+macB.Hex12()+"/snponly.efi"
	fetch := func(path, agent string) string {
		t.Helper()
		res, body := l.do("GET", path, "User-Agent", agent)
		if res.StatusCode != 200 {
			t.Fatalf("%s: %s", path, res.Status)
		}
		if body == string(want) {
			l.saidOne(store.EventLoaderSent) // it is told once the last byte is out
		}
		return body
	}
	for range 9 {
		if fetch(mine, "UefiHttpBoot/1.0") != string(want) {
			t.Fatal("firmware that starts often is not given its loader")
		}
	}
	round := func() {
		t.Helper()
		l.do("GET", mine, "Range", "bytes=0-9")
		l.saidOne(store.EventLoaderSent)
		for range circle.After {
			if fetch(mine, "iPXE/1.21.1") != string(want) {
				t.Fatal("a loader asked for by name is not sent")
			}
		}
	}
	round()
	if got := fetch(mine, "iPXE/1.21.1"); got != l.get("/boot.ipxe") {
		t.Errorf("the fourth time an iPXE is given %d bytes, want the first script", len(got))
	}
	if l.said(); fetch(others, "iPXE/1.21.1") != string(want) {
		t.Error("a machine behind the same router is taken for the one that runs in circles")
	}
	if fetch(mine, "UefiHttpBoot/1.0") != string(want) {
		t.Error("firmware is given a script")
	}
	l.get(query("a", uuidA, macA))
	l.said()
	round()
}

// What UEFI 2.10 §24.7 asks for, and what firmware stumbles over.
func TestUEFIHTTPBootGetsItsFileWithoutDetours(t *testing.T) {
	l := newLab(t)
	want, _ := l.Open(boot.SNPOnly)
	for _, path := range []string{"/loaders/snponly.efi", "//loaders/snponly.efi", "/loaders//snponly.efi", "/loaders/52540077000a/snponly.efi", "///loaders///52540077000a//snponly.efi"} {
		head, _ := l.do("HEAD", path, "User-Agent", "UefiHttpBoot/1.0", "Accept", "*/*")
		get, body := l.do("GET", path, "User-Agent", "UefiHttpBoot/1.0", "Accept", "*/*")
		for method, res := range map[string]*http.Response{"HEAD": head, "GET": get} {
			if res.StatusCode != 200 || res.ContentLength != int64(len(want)) || len(res.TransferEncoding) != 0 || res.Uncompressed ||
				res.Header.Get("Content-Type") != "application/efi" || res.Header.Get("Content-Encoding") != "" || res.Header.Get("Location") != "" {
				t.Errorf("%s %s answers %s, %d bytes, %v", method, path, res.Status, res.ContentLength, res.Header)
			}
		}
		if body != string(want) {
			t.Errorf("GET %s sends %d bytes", path, len(body))
		}
		if e := l.saidOne(store.EventLoaderSent); strings.Contains(path, "52540077000a") && e.MAC.Hex12() != "52540077000a" {
			t.Errorf("the event is %+v", e)
		}
	}
}

// A shim that came over HTTP asks for its second stage beside itself.
func TestTheSecondFileOfAChainIsBesideTheFirst(t *testing.T) {
	l := newLab(t, func(l *lab) { l.cfg.Files = chain{} })
	for path, want := range map[string]string{
		"/loaders/secure/shimx64.efi": "first", "/loaders/secure/grubx64.efi": "second", "/loaders/52540077000a/secure//grubx64.efi": "second",
	} {
		if res, body := l.do("GET", path); res.StatusCode != 200 || body != want {
			t.Errorf("GET %s answers %s %q", path, res.Status, body)
		}
		l.saidOne(store.EventLoaderSent)
	}
	// What a shim looks for besides, it can do without. It asks through the
	// firmware, or through the iPXE that started it.
	for _, agent := range []string{"UefiHttpBoot/1.0", "iPXE/1.21.1"} {
		for _, path := range []string{"/loaders/secure/revocations.efi", "/loaders/52540077000a/secure/revocations.efi"} {
			if res, body := l.do("GET", path, "User-Agent", agent); res.StatusCode != 404 || strings.HasPrefix(agent, "iPXE") != strings.HasPrefix(body, "#!ipxe\n") {
				t.Errorf("a file that the chain has not answers %s %q", res.Status, body)
			}
		}
	}
}

type chain struct{}

func (chain) Open(l boot.Loader) ([]byte, bool) {
	data, ok := map[boot.Loader]string{"secure/shimx64.efi": "first", "secure/grubx64.efi": "second"}[l]
	return []byte(data), ok
}

func TestALoaderThatThereIsNotIsAnEventA404ForFirmwareAndAScriptForAnIPXE(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"ipxe-arm64.efi", "grub.efi", "..%2f..%2fetc%2fpasswd", "", "snponly.efi/", "SNPONLY.EFI"} {
		text := l.get("/loaders/" + name)
		number := caseOf(t, text)
		if e := l.saidOne(store.EventLoaderMissing); !strings.Contains(e.Detail.Reason, "(case "+number+")") {
			t.Errorf("the event has no case number: %+v", e)
		}
		if res, body := l.do("GET", "/loaders/"+name, "User-Agent", "UefiHttpBoot/1.0"); res.StatusCode != 404 || strings.Contains(body, "#!ipxe") {
			t.Errorf("firmware that asks for %q is answered %s %q", name, res.Status, body)
		}
		l.saidOne(store.EventLoaderMissing)
	}
}

func TestFilesComeFromTheirFolderAndNowhereElse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	media := filepath.Join(dir, "media")
	if err := os.MkdirAll(filepath.Join(media, "debian"), 0o700); err != nil {
		t.Fatal(err)
	}
	kernel := strings.Repeat("kernel", 100_000)
	if err := os.WriteFile(filepath.Join(media, "debian", "vmlinuz"), []byte(kernel), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(media, "link")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(media)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l := newLab(t, func(l *lab) { l.cfg.Media = root.FS() })
	if _, body := l.do("GET", "/files/debian/vmlinuz"); body != kernel {
		t.Errorf("the kernel has %d bytes, want %d", len(body), len(kernel))
	}
	if e := l.saidOne(store.EventFileSent); e.Detail.File != "debian/vmlinuz" || e.Detail.Bytes != int64(len(kernel)) {
		t.Errorf("the event is %+v", e)
	}
	if res, body := l.do("GET", "/files/debian/vmlinuz", "Range", "bytes=-6"); res.StatusCode != 206 || body != "kernel" {
		t.Errorf("a part is answered %s %q", res.Status, body)
	}
	l.said()
	for _, name := range []string{"../secret", "..%2fsecret", "link", "debian", "debian/", "", "nothing", "%2e%2e/secret", "debian/../../secret"} {
		res, body := l.do("GET", "/files/"+name)
		if res.StatusCode != 404 || strings.Contains(body, "outside") {
			t.Errorf("GET %q answers %s %q", name, res.Status, body)
		}
	}
	for _, e := range l.said() {
		if e.Kind != store.EventFileMissing || e.Addr.String() != "127.0.0.1" || !strings.HasPrefix(e.Detail.URL, "/files/") {
			t.Errorf("event %+v for a file that was not sent", e)
		}
	}
	// What runs a script of ours in place of what it asked for has no file's name.
	for _, path := range []string{"/files/nosuch.ipxe", "/nosuch"} {
		l.do("GET", path)
		l.do("HEAD", path)
		if e := l.said(); len(e) != 1 || e[0].Kind != store.EventFileMissing || e[0].Detail.File != "" || e[0].Detail.URL != path {
			t.Errorf("%s: events %+v", path, e)
		}
	}
}

// piece is a file that stands inside a larger one.
type piece struct {
	*io.SectionReader
	img *os.File
	at  int64
	n   *int // how often it was sent from the larger one
}

func (p piece) Close() error               { return p.img.Close() }
func (p piece) Stat() (fs.FileInfo, error) { return pieceInfo{p.Size()}, nil }
func (p piece) Source() (io.Reader, bool) {
	off, err := p.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, false
	}
	*p.n++
	_, err = p.img.Seek(p.at+off, io.SeekStart)
	return p.img, err == nil
}

type pieceInfo struct{ size int64 }

func (pieceInfo) Name() string       { return "linux" }
func (i pieceInfo) Size() int64      { return i.size }
func (pieceInfo) Mode() fs.FileMode  { return 0o444 }
func (pieceInfo) ModTime() time.Time { return time.Unix(1_700_000_000, 0) }
func (pieceInfo) IsDir() bool        { return false }
func (pieceInfo) Sys() any           { return nil }

// shelf has the disc x.iso with a kernel at byte 4096, and one whose bytes are
// gone.
type shelf struct {
	path string
	n    int
}

func (s *shelf) Open(name string) (fs.File, error) {
	switch name {
	case "x.iso/linux":
		f, err := os.Open(s.path)
		if err != nil {
			return nil, err
		}
		return piece{io.NewSectionReader(f, 4096, 600_000), f, 4096, &s.n}, nil
	case "gone.iso":
		return nil, &store.Error{Kind: store.KindUnavailable, Msg: "its bytes cannot be read"}
	}
	return nil, fs.ErrNotExist
}

func TestAFileInsideADiscIsSentFromTheDisc(t *testing.T) {
	kernel := []byte(strings.Repeat("kernel", 100_000))
	s := &shelf{path: filepath.Join(t.TempDir(), "x")}
	if err := os.WriteFile(s.path, append(append(make([]byte, 4096), kernel...), "behind"...), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, func(l *lab) { l.cfg.Media = s })
	res, body := l.do("HEAD", "/files/x.iso/linux")
	if res.StatusCode != 200 || res.ContentLength != int64(len(kernel)) || body != "" || len(l.said()) != 0 {
		t.Errorf("HEAD answers %s with length %d", res.Status, res.ContentLength)
	}
	if res, body = l.do("GET", "/files/x.iso/linux"); res.StatusCode != 200 || body != string(kernel) || res.ContentLength != int64(len(kernel)) {
		t.Errorf("GET answers %s with %d bytes", res.Status, len(body))
	}
	for spec, want := range map[string]string{"bytes=6-17": "kernelkernel", "bytes=-3": "nel", "bytes=599998-": "el"} {
		if res, body := l.do("GET", "/files/x.iso/linux", "Range", spec); res.StatusCode != 206 || body != want {
			t.Errorf("%s answers %s %q", spec, res.Status, body)
		}
	}
	if s.n != 4 {
		t.Errorf("%d answers came from the disc itself", s.n)
	}
	if res, body := l.do("GET", "/files/x.iso/linux", "Range", "bytes=600000-"); res.StatusCode != 416 || !strings.HasPrefix(body, "#!ipxe\n") {
		t.Errorf("a range behind the end answers %s %q", res.Status, body)
	}
	if res, body := l.do("GET", "/files/gone.iso"); res.StatusCode != 500 || !strings.HasPrefix(body, "#!ipxe\n") {
		t.Errorf("a disc whose bytes are gone answers %s %q", res.Status, body)
	}
}

func TestWithoutAFolderThereAreNoFiles(t *testing.T) {
	l := newLab(t)
	if res, body := l.do("GET", "/files/vmlinuz"); res.StatusCode != 404 || !strings.HasPrefix(body, "#!ipxe\n") {
		t.Errorf("it answers %s %q", res.Status, body)
	}
}

// A file system whose files cannot seek has nothing that can be sent in parts.
func TestAFileInMemoryIsSent(t *testing.T) {
	l := newLab(t, func(l *lab) { l.cfg.Media = fstest.MapFS{"a": {Data: []byte("data")}} })
	if _, body := l.do("GET", "/files/a"); body != "data" {
		t.Errorf("%q", body)
	}
}

func report(q ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(q); i += 2 {
		v.Set(q[i], q[i+1])
	}
	return "/report?" + v.Encode()
}

func TestAReportIsAnsweredWithItsExplanation(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.cfg.Explainer = l
		l.explain = func(id store.AttemptID) (string, string, string, bool) {
			if id != 42 {
				t.Errorf("asked about attempt %d", id)
			}
			return "LUN 0 does not exist", "Only LUN 2 is mapped; ${errno}", "Map the volume as LUN 0", true
		}
	})
	for _, method := range []string{"GET", "POST"} {
		res, text := l.do(method, report("attempt", "42", "key", labKey, "step", "sanboot", "code", "1D704539"))
		if res.StatusCode != 200 || res.ContentLength != int64(len(text)) {
			t.Errorf("%s answers %s", method, res.Status)
		}
		contains(t, text, "echo LUN 0 does not exist", "echo Only LUN 2 is mapped; ?{errno}", "echo What to do: Map the volume as LUN 0", "chain --replace")
		e := l.saidOne(store.EventReport)
		if e.Attempt != 42 || e.Detail.Step != "sanboot" || e.Detail.Code != "1d704539" {
			t.Errorf("the event is %+v", e)
		}
	}
}

func TestAReportWithoutAnExplanationSaysTheCode(t *testing.T) {
	for _, explain := range []func(store.AttemptID) (string, string, string, bool){nil, func(store.AttemptID) (string, string, string, bool) { return "", "", "", false }} {
		l := newLab(t, func(l *lab) {
			if explain != nil {
				l.explain, l.cfg.Explainer = explain, l
			}
		})
		contains(t, l.get(report("attempt", "42", "key", labKey, "step", "kernel", "code", "20d623c")), "kernel", "020d623c")
	}
}

func TestAReportWithoutAttemptOrKeyIsStray(t *testing.T) {
	l := newLab(t)
	for _, path := range []string{
		report(), report("attempt", "42"), report("attempt", "42", "key", "wrong"), report("attempt", "1", "key", labKey),
		report("attempt", "-42", "key", labKey), report("attempt", "x", "key", labKey), "/report?%zz", report("up", "1", "attempt", "42"),
		report("up", "1", "mac", macA.String()),
	} {
		text := l.get(path)
		lacks(t, text, "sanboot")
		if e := l.saidOne(store.EventReportStray); e.Attempt != 0 || e.Machine != 0 || !e.MAC.IsZero() {
			t.Errorf("%s is taken for somebody's: %+v", path, e)
		}
	}
}

func TestAReportsFieldsAreBounded(t *testing.T) {
	l := newLab(t)
	l.get(report("attempt", "42", "key", labKey, "step", "San\nBoot;"+strings.Repeat("x", 99), "code", "zz'--"))
	e := l.saidOne(store.EventReport)
	if e.Detail.Code != "" || len(e.Detail.Step) != 32 || !strings.HasPrefix(e.Detail.Step, "sanbootx") {
		t.Errorf("the event is %+v", e)
	}
}

func TestAnOperatingSystemSaysThatItIsUp(t *testing.T) {
	l := newLab(t)
	l.get(report("up", "1", "attempt", "42", "key", labKey))
	if e := l.saidOne(store.EventReportUp); e.Attempt != 42 {
		t.Errorf("the event is %+v", e)
	}
	l.owners[netip.MustParseAddr("127.0.0.1")] = macA
	l.get(report("up", "1", "mac", macA.String()))
	if e := l.saidOne(store.EventReportUp); e.MAC != macA || e.Machine != 1 {
		t.Errorf("the event is %+v", e)
	}
}

// A text in a kernel's place is told, and one that iPXE runs is not.
func TestWhatIsTextIsToldWithTheFile(t *testing.T) {
	for content, want := range map[string]bool{
		"<html><body>Please log in</body></html>\n": true, "d-i mirror/country string manual\r\n\tx": true, "#!ipxe\necho hello\n": false, "MZ\x90\x00\x03": false, "": false, "gr\xc3\xbc\xc3\x9fe": false,
		strings.Repeat("a", 300) + "\x00": true,
	} {
		if got := isText(strings.NewReader(content)); got != want {
			t.Errorf("%.20q: %v, want %v", content, got, want)
		}
	}
}

// Why a file cannot be read is told without the path of the appliance.
func TestAFileThatCannotBeReadIsToldWithoutItsPath(t *testing.T) {
	gone := &store.Error{Kind: store.KindUnavailable, Msg: "its bytes cannot be read", Err: &fs.PathError{Op: "open", Path: "/var/lib/lunboot/media/5f", Err: syscall.EACCES}}
	for want, err := range map[string]error{
		"the appliance cannot read it: permission denied": gone,
		"its bytes cannot be read":                        &store.Error{Kind: store.KindUnavailable, Msg: "its bytes cannot be read"},
		"the appliance cannot read it":                    errors.New("/secret/path"),
	} {
		if got := unreadable(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
