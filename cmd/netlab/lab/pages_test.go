package lab_test

import (
	"context"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"lunboot/cmd/netlab/lab"
	"lunboot/cmd/netlab/lab/area"
	"lunboot/store"
)

const operatorPassword = "correct horse battery"

// pages is a door to the appliance's pages: a port on the host's loopback behind
// which its admin port in the namespace lies, and somebody who is logged in.
type pages struct {
	b    *bench
	base string
	http *http.Client
}

func (b *bench) pages() *pages {
	b.t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	b.must(err)
	b.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return // closed
			}
			go b.carry(near)
		}
	}()
	jar, err := cookiejar.New(nil)
	b.must(err)
	p := &pages{b, "http://" + l.Addr().String(), &http.Client{Jar: jar, Timeout: 30 * time.Second}}
	code := regexp.MustCompile(`setup\?code=(\w{4}-\w{4})`).FindStringSubmatch(b.appliance.Log())
	if code == nil {
		b.t.Fatal("the log names no code for the set-up")
	}
	if status := p.post("/setup", url.Values{"code": {code[1]}, "password": {operatorPassword}}); status >= 400 {
		if status = p.post("/login", url.Values{"password": {operatorPassword}}); status >= 400 {
			b.t.Fatalf("logging in: %d", status)
		}
	}
	return p
}

// carry joins a connection with one to the appliance's admin port.
func (b *bench) carry(near net.Conn) {
	defer near.Close()
	var far net.Conn
	err := lab.Namespace{Name: b.Network.Server}.Do(func() (err error) {
		far, err = net.DialTimeout("tcp4", lab.ServerAddr.String()+":8080", 5*time.Second)
		return err
	})
	if err != nil {
		return // the browser sees it
	}
	defer far.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(far, near)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
	_ = near.Close()
	<-done
}

func (p *pages) post(path string, form url.Values) int {
	p.b.t.Helper()
	r, err := http.NewRequestWithContext(p.b.ctx, http.MethodPost, p.base+path, strings.NewReader(form.Encode()))
	p.b.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", p.base)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	answer, err := p.http.Do(r)
	p.b.must(err)
	_, err = io.Copy(io.Discard, answer.Body)
	p.b.must(err)
	p.b.must(answer.Body.Close())
	return answer.StatusCode
}

var tags = regexp.MustCompile(`<[^>]*>`)

// text is what a page says, without its tags.
func (p *pages) text(path string) string {
	p.b.t.Helper()
	r, err := http.NewRequestWithContext(p.b.ctx, http.MethodGet, p.base+path, nil)
	p.b.must(err)
	answer, err := p.http.Do(r)
	p.b.must(err)
	body, err := io.ReadAll(answer.Body)
	p.b.must(err)
	p.b.must(answer.Body.Close())
	if answer.StatusCode != http.StatusOK {
		p.b.t.Fatalf("%s: %s", path, answer.Status)
	}
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(string(body), " "))), " ")
}

// machinePage is the path of a machine's page.
func (b *bench) machinePage(name string) string {
	b.t.Helper()
	var m store.Machine
	b.must(b.appliance.JSON(b.ctx, &m, "machine", "show", name))
	return fmt.Sprint("/machines/", m.ID)
}

// picture keeps the page of a machine as people see it, in the folder that
// LUNBOOT_SCREENSHOTS names.
func (b *bench) picture(name, machine string) {
	b.t.Helper()
	dir := os.Getenv("LUNBOOT_SCREENSHOTS")
	if dir == "" {
		return
	}
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		b.t.Fatal("chromium is missing: apt-get install chromium")
	}
	p := b.pages()
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(b.t.TempDir()), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := context.WithTimeout(b.ctx, 2*time.Minute)
	defer cancel()
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	defer stop()
	ctx, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	b.must(chromedp.Do(ctx, chromedp.Navigate(p.base+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=password]"), operatorPassword), chromedp.Click(chromedp.CSS("button.wide")), chromedp.WaitVisible(chromedp.CSS(".rail"))))
	_, err = chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 1360, Height: 900, DeviceScaleFactor: 1})
	b.must(err)
	b.must(chromedp.Do(ctx, chromedp.Navigate(p.base+b.machinePage(machine)), chromedp.WaitVisible(chromedp.CSS(".timeline"))))
	_, err = chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelectorAll("details").forEach(d => d.open = d.closest("#boot") !== null); 1`))
	b.must(err)
	shot, err := chromedp.Call(ctx, cdpage.CaptureScreenshot, cdpage.CaptureScreenshotParams{CaptureBeyondViewport: new(true)})
	b.must(err)
	b.must(os.WriteFile(filepath.Join(dir, name+".png"), shot.Data, 0o644))
}

// The failure that this project began with reads the same wherever somebody
// looks: on the machine's own screen, on its page and on the command line.
func TestTheFoundingFailureReadsTheSameEverywhere(t *testing.T) {
	b := start(t, 2*sectorLimit)
	f := faults()[0]
	c := b.sector("lab-12", 59, area.PowerOff)
	file := filepath.Join(b.Dir, "founding.ipxe")
	b.must(os.WriteFile(file, []byte(f.script), 0o600))
	b.cli("profile", "set", "founding", "--file", file)
	b.cli("machine", "set", "lab-12", "--profile", "founding")
	r := b.powerOn(c)
	defer r.Kill()
	says := "lab-12 asked for LUN 0, but its volume “" + c.Volume + "” is LUN 2"
	// iPXE's console knows ASCII, and breaks no line of that length.
	screen := strings.NewReplacer("“", `"`, "”", `"`).Replace(says)
	found, err := r.Console.WaitFor(b.ctx, regexp.QuoteMeta(screen)+`(?s:.*?)Case number (\d+)\. See (http://\S+)\n`)
	b.must(err)
	if found.Groups[1] != "1" || found.Groups[2] != "http://"+lab.ServerAddr.String()+":8080" {
		t.Errorf("the screen names case %s at %s", found.Groups[1], found.Groups[2])
	}
	a := b.attempt("lab-12")
	if a.Diagnoses[0].Title != says {
		t.Errorf("the diagnosis is %q", a.Diagnoses[0].Title)
	}
	for _, verb := range [][]string{{"attempt", "show", "1"}, {"machine", "explain", "lab-12"}, {"attempt", "list", "lab-12"}} {
		if said := b.cli(verb...); !strings.Contains(said, says) {
			t.Errorf("lunboot %s says\n%s", strings.Join(verb, " "), said)
		}
	}
	p := b.pages()
	for _, path := range []string{b.machinePage("lab-12"), "/machines"} {
		if said := p.text(path); !strings.Contains(said, says) {
			t.Errorf("the page %s says\n%s", path, said)
		}
	}
	b.picture("founding", "lab-12")
	b.must(r.Screenshot(filepath.Join(b.Dir, "screen.png")))
	if dir := os.Getenv("LUNBOOT_SCREENSHOTS"); dir != "" {
		b.must(r.Screenshot(filepath.Join(dir, "founding-screen.png")))
	}
}
