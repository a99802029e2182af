package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lunboot/store"
)

// needed finds a program. One that is missing skips on a laptop and fails in CI.
func needed(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// frailLine passes bytes on to a server, and breaks once after so many.
func frailLine(t *testing.T, to string, after int64) (addr string, broke *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	broke = &atomic.Int64{}
	var sent atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			end := func() { c.Close(); s.Close() }
			go func() { defer end(); io.Copy(c, s) }()
			go func() {
				defer end()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if _, werr := s.Write(buf[:n]); err != nil || werr != nil {
						return
					}
					if sent.Add(int64(n)) > after && broke.CompareAndSwap(0, 1) {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), broke
}

// TestAnImageIsUploadedInTheBrowser sends a qcow2 of 30 MiB over a line that
// breaks, to a real appliance, and reads on the page what came of it.
func TestAnImageIsUploadedInTheBrowser(t *testing.T) {
	chromium, qemu := needed(t, "chromium"), needed(t, "qemu-img")
	a := started(t, dataDir(t))
	var log bytes.Buffer
	if code := run(t.Context(), nil, []string{"--data", a.dir, "password"}, strings.NewReader("a lab's password\n"), &log, &log); code != exitDone {
		t.Fatalf("password: %s", &log)
	}
	disk := make([]byte, 48<<20)
	for i := range disk[:30<<20] {
		disk[i] = byte(i * (i >> 9) >> 3)
	}
	copy(disk, []byte{0xfa, 0x33, 0xc0, 0x8e, 0xd0}) // boot code
	clear(disk[446:510])
	copy(disk[446:], []byte{0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff, 0, 8, 0, 0, 0, 0x40, 1, 0}) // one active Linux partition
	disk[510], disk[511] = 0x55, 0xaa
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "debian12.qcow2")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(qemu, "convert", "-f", "raw", "-O", "qcow2", raw, image).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	line, broke := frailLine(t, a.Admin, 12<<20)
	base := "http://" + line

	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-component-update", true))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	defer stop()
	ctx, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	do := func(actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	do(chromedp.Navigate(base+"/login"), chromedp.SendKeys(chromedp.CSS("input[name=password]"), "a lab's password"), chromedp.Click(chromedp.CSS("button.wide")), chromedp.WaitVisible(chromedp.CSS(".rail")),
		chromedp.Navigate(base+"/volumes/new"), chromedp.WaitVisible(chromedp.CSS("form[data-upload]")))
	do(chromedp.SetUploadFiles(chromedp.CSS("form[data-upload] input[type=file]"), []string{image}))
	name, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("form[data-upload] input[name=name]").value`))
	if err != nil || name != "debian12" {
		t.Errorf("the proposed name is %q, %v", name, err)
	}
	do(chromedp.Click(chromedp.CSS("form[data-upload] .primary")))
	said := ""
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.pathname + " " + (document.querySelector("[data-said]") || document.querySelector("#list") || document.body).innerText`))
		if err == nil && strings.HasPrefix(text, "/volumes ") && strings.Contains(text, "boots on BIOS") {
			said = text
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the page shows %q, %v", text, err)
		}
	}
	if broke.Load() != 1 {
		t.Error("the line did not break")
	}
	if !strings.Contains(said, "debian12") || !strings.Contains(said, "48 MiB") || strings.Contains(said, "Under way") {
		t.Errorf("the page says %q", said)
	}
	var v store.Volume
	if err := json.Unmarshal([]byte(a.must(t, "--json", "volume", "show", "debian12")), &v); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(a.dir, "volumes", v.Path))
	if err != nil || !bytes.Equal(got, disk) {
		t.Errorf("the volume of %d bytes differs from the disk of %d, %v", len(got), len(disk), err)
	}
	if list := a.must(t, "volume", "uploads"); strings.Contains(list, "debian12") {
		t.Errorf("what was uploaded is still there: %s", list)
	}
}

func TestFromAfarOnlyTheFoldersForImagesAreRead(t *testing.T) {
	a := started(t, dataDir(t))
	outside := filepath.Join(t.TempDir(), "disk.img")
	for _, path := range []string{outside, filepath.Join(a.dir, imagesFolder, "disk.img")} {
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := a.must(t, "--json", "token", "create", "t", "--scope", "admin")
	var made struct {
		Secret string `json:"token"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Secret == "" {
		t.Fatalf("%s %v", out, err)
	}
	ask := func(path string) (int, string) {
		req, err := http.NewRequest("POST", "http://"+a.Admin+"/api/v1/volumes/import", strings.NewReader(fmt.Sprintf(`{"name":"v","path":%q}`, path)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+made.Secret)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, path := range []string{outside, filepath.Join(a.dir, "inventory.db"), filepath.Join(a.dir, imagesFolder, "..", "inventory.db"), "../inventory.db"} {
		if code, text := ask(path); code != http.StatusUnprocessableEntity || !strings.Contains(text, "folder for images") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	if code, text := ask("disk.img"); code != http.StatusAccepted {
		t.Errorf("one in the folder: %d %s", code, text)
	}
	a.must(t, "volume", "import", "w", outside) // through the socket
}

func TestAVolumeGoesOutAsItCameIn(t *testing.T) {
	qemu := needed(t, "qemu-img")
	a := started(t, dataDir(t))
	dir := t.TempDir()
	disk := make([]byte, 40<<20)
	copy(disk[3<<20:], bytes.Repeat([]byte("lunboot "), 100_000))
	in := filepath.Join(dir, "in.raw")
	if err := os.WriteFile(in, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	a.must(t, "volume", "import", "v", in)
	for _, c := range [][]string{{"raw"}, {"qcow2"}, {"qcow2", "--compress"}} {
		out := filepath.Join(dir, strings.Join(c, ""))
		said := a.must(t, append([]string{"volume", "export", "v", out, "--format"}, c...)...)
		got, err := os.ReadFile(out)
		if err != nil || !strings.Contains(said, fmt.Sprintf("%x", sha256.Sum256(got))) {
			t.Errorf("%v: %q, %v", c, said, err)
		}
		if c[0] == "raw" {
			if st, err := os.Stat(out); err != nil || st.Sys().(*syscall.Stat_t).Blocks*512 > 2<<20 || !bytes.Equal(got, disk) {
				t.Errorf("raw: another disk, or not sparse: %v, %v", st, err)
			}
		} else if msg, err := exec.Command(qemu, "compare", in, out).CombinedOutput(); err != nil {
			t.Errorf("%v: %v %s", c, err, msg)
		}
	}
	if code, _, errs := cliIn(a.dir, "volume", "export", "v", filepath.Join(dir, "none"), "--compress"); code != exitFailed || !strings.Contains(errs, "only qcow2 is compressed") {
		t.Errorf("a raw file that is compressed: %d %s", code, errs)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// In parts, over HTTP.
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(a.dir, "lunboot.sock"))
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequest("GET", "http://lunboot/api/v1/volumes/v/export", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=3145728-3145735")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusPartialContent || string(b) != "lunboot " || resp.Header.Get("Content-Disposition") != `attachment; filename="v.raw"` || err != nil {
		t.Errorf("a part: %s %q %v", resp.Status, b, err)
	}
	// Only what is fetched is a job: asking about it alone is not answered.
	head, err := c.Head("http://lunboot/api/v1/volumes/v/export")
	if err != nil {
		t.Fatal(err)
	}
	head.Body.Close()
	jobs, err := c.Get("http://lunboot/api/v1/jobs")
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Body.Close()
	b, err := io.ReadAll(jobs.Body)
	if n := bytes.Count(b, []byte(`"volume.export"`)); head.StatusCode < 400 || n != 4 || err != nil {
		t.Errorf("HEAD: %s; %d jobs of exports, want 4, %v", head.Status, n, err)
	}
}
