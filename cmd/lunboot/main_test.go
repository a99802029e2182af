package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
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
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lunboot/store"
)

// TestMain is lunboot itself when it is called by that name, and a stranger who
// holds a port when it is called portholder.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "lunboot":
		main()
	case "portholder":
		holdPort(os.Args[1], os.Args[2])
	default:
		// A server that closes a connection with a request half read lingers
		// for half a second, longer than goleak waits.
		goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
	}
}

// holdPort binds an address, says which it got, and holds it until its input ends.
func holdPort(network, addr string) {
	if network == "tcp" {
		ln, err := net.Listen(network, addr)
		if err != nil {
			fmt.Println(err)
			os.Exit(exitFailed)
		}
		fmt.Println(ln.Addr())
	} else {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			fmt.Println(err)
			os.Exit(exitFailed)
		}
		fmt.Println(pc.LocalAddr())
	}
	io.Copy(io.Discard, os.Stdin)
}

// stranger starts another process that holds a port, and returns the address.
func stranger(t *testing.T, network, addr string) (bound string, pid int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, network, addr)
	cmd.Args[0] = "portholder"
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if bound = strings.TrimSpace(line); !strings.Contains(bound, ":") || strings.Contains(bound, " ") {
		t.Fatalf("the port holder says %q", bound)
	}
	return bound, cmd.Process.Pid
}

// onLoopback are the flags that keep an appliance to itself.
var onLoopback = []string{"--dhcp", "off", "--admin", "127.0.0.1:0", "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--log-format", "json"}

// dataDir is a folder with a name short enough for a unix socket in it.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lunboot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// logs collects what an appliance says, and wakes who waits for a word of it.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// appliance is a running lunboot serve.
type testAppliance struct {
	dir    string
	log    *logs
	cancel context.CancelFunc
	hurry  chan struct{}
	code   chan int
	ended  bool
	// What it said when it was up.
	Target, Portal, Boot, Admin, TFTP string
}

// tester is what testing.TB and a script's T share.
type tester interface {
	Fatal(...any)
	Log(...any)
}

// launch starts lunboot serve and does not wait.
func launch(dir string, flags ...string) *testAppliance {
	ctx, cancel := context.WithCancel(context.Background())
	a := &testAppliance{dir: dir, log: &logs{more: make(chan struct{})}, cancel: cancel, hurry: make(chan struct{}), code: make(chan int, 1)}
	args := append([]string{"--data", dir, "serve"}, onLoopback...)
	go func() { a.code <- run(ctx, a.hurry, append(args, flags...), strings.NewReader(""), io.Discard, a.log) }()
	return a
}

// serve starts lunboot serve and waits until it is up.
func serve(t tester, dir string, flags ...string) *testAppliance {
	a := launch(dir, flags...)
	deadline := time.After(30 * time.Second)
	for {
		a.log.mu.Lock()
		text, more := a.log.text.String(), a.log.more
		a.log.mu.Unlock()
		for line := range strings.Lines(text) {
			var up struct{ Msg, Target, Portal, Boot, Admin, TFTP string }
			if json.Unmarshal([]byte(line), &up) == nil && up.Msg == "the appliance is up" {
				a.Target, a.Portal, a.Boot, a.Admin, a.TFTP = up.Target, up.Portal, up.Boot, up.Admin, up.TFTP
				return a
			}
		}
		select {
		case code := <-a.code:
			t.Fatal("lunboot serve ended with", code, a.log)
		case <-deadline:
			a.cancel()
			t.Fatal("lunboot serve is not up after 30 s", a.log)
		case <-more:
		}
	}
}

// stop ends it as SIGTERM does and returns the exit code.
func (a *testAppliance) stop(t tester) int {
	if a.ended {
		return exitDone
	}
	a.ended = true
	a.cancel()
	select {
	case code := <-a.code:
		return code
	case <-time.After(30 * time.Second):
		t.Fatal("lunboot serve did not stop within 30 s", a.log)
	}
	return -1
}

// started is serve that a test's end stops.
func started(t testing.TB, dir string, flags ...string) *testAppliance {
	t.Helper()
	a := serve(t, dir, flags...)
	t.Cleanup(func() {
		if code := a.stop(t); code != exitDone {
			t.Errorf("lunboot serve ended with %d: %s", code, a.log)
		}
	})
	return a
}

// cli runs a verb against the appliance of dir.
func cliIn(dir string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(context.Background(), nil, append([]string{"--data", dir}, args...), strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

func (a *testAppliance) must(t testing.TB, args ...string) string {
	t.Helper()
	code, out, errs := cliIn(a.dir, args...)
	if code != exitDone {
		t.Fatalf("lunboot %s: %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func TestTheApplianceStartsWorksAndStopsCleanly(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := dataDir(t)
	a := serve(t, dir)
	for name, addr := range map[string]string{"portal": a.Portal, "boot": a.Boot, "admin": a.Admin, "tftp": a.TFTP} {
		if host, port, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("%s listens on %q", name, addr)
		}
	}
	if !regexp.MustCompile(`Set up at http://` + regexp.QuoteMeta(a.Admin) + `/setup\?code=\w{4}-\w{4}\n`).MatchString(a.log.String()) {
		t.Errorf("the first start names no set-up address: %s", a.log)
	}
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	a.must(t, "volume", "create", "v1", "--size", "8M")
	a.must(t, "mapping", "add", "lab1", "v1", "--lun", "255")
	script := a.must(t, "script", "lab1")
	if !strings.Contains(script, ":FF:"+a.Target) {
		t.Errorf("the script: %s", script)
	}
	var before, after any
	if err := json.Unmarshal([]byte(a.must(t, "--json", "machine", "show", "lab1", "--secrets")), &before); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "lunboot.sock")); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	if code := a.stop(t); code != exitDone {
		t.Errorf("it ended with %d: %s", code, a.log)
	}
	if code, _, errs := cliIn(dir, "machine", "list"); code != exitFailed || !strings.Contains(errs, "no appliance answers") || !strings.Contains(errs, "lunboot serve") {
		t.Errorf("a verb without an appliance: %d, %q", code, errs)
	}

	again := serve(t, dir)
	if again.Target != a.Target {
		t.Errorf("the target was %s and is %s: installed machines would not find it", a.Target, again.Target)
	}
	if err := json.Unmarshal([]byte(again.must(t, "--json", "machine", "show", "lab1", "--secrets")), &after); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("after a restart the machine is\n%v\nand was\n%v", after, before)
	}
	if list := again.must(t, "mapping", "list"); !strings.Contains(list, "lab1     255  v1") {
		t.Errorf("after a restart: %s", list)
	}
	if code := again.stop(t); code != exitDone {
		t.Errorf("it ended with %d: %s", code, again.log)
	}
	for _, l := range []*logs{a.log, again.log} {
		for line := range strings.Lines(l.String()) {
			if strings.Contains(line, `"level":"ERROR"`) {
				t.Errorf("a quiet life has an error: %s", line)
			}
		}
	}
}

func TestTheTargetsNameIsChosenOnce(t *testing.T) {
	dir := dataDir(t)
	const first, other = "iqn.2024-01.org.example:rack", "iqn.2024-01.org.example:other"
	for _, c := range []struct {
		flags []string
		want  string
	}{{[]string{"--target", first}, first}, {nil, first}, {[]string{"--target", other}, other}, {nil, first}} {
		a := serve(t, dir, c.flags...)
		if a.Target != c.want {
			t.Errorf("with %q the target is %s, want %s", c.flags, a.Target, c.want)
		}
		a.stop(t)
	}
}

// stalled is a request that stays under way: an upload whose body never ends.
func stalled(t *testing.T, a *testAppliance) (end func()) {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(a.dir, "lunboot.sock"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /api/v1/volumes/slow/upload HTTP/1.1\r\nHost: lunboot\r\nContent-Type: application/octet-stream\r\nContent-Length: 1048576\r\n\r\n%s", strings.Repeat("x", 4096))
	// What is being sent is an upload; a volume's row comes when it is whole.
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if list := a.must(t, "volume", "uploads"); strings.Contains(list, "slow") {
			return func() { c.Close() }
		}
	}
	t.Fatal("the upload did not begin")
	return nil
}

func TestStreamsDoNotHoldUpTheEnd(t *testing.T) {
	a := serve(t, dataDir(t))
	follow := make(chan int, 1)
	var out logs
	out.more = make(chan struct{})
	ctx, enough := context.WithCancel(t.Context())
	defer enough()
	go func() {
		follow <- run(ctx, nil, []string{"--data", a.dir, "event", "list", "--follow"}, strings.NewReader(""), &out, io.Discard)
	}()
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	time.Sleep(100 * time.Millisecond)
	began := time.Now()
	if code := a.stop(t); code != exitDone {
		t.Errorf("it ended with %d: %s", code, a.log)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("an open event stream held the end up for %s", took)
	}
	enough() // it waits for the appliance to come back
	<-follow
}

func TestTheEndWaitsForRequestsOnlySoLong(t *testing.T) {
	t.Parallel() // it waits
	a := serve(t, dataDir(t))
	end := stalled(t, a)
	defer end()
	began := time.Now()
	a.stop(t)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a stalled upload held the end up for %s", took)
	}
	again := started(t, a.dir)
	if list := again.must(t, "volume", "list"); strings.Contains(list, "ready") {
		t.Errorf("an upload that was cut off is: %s", list)
	}
}

func TestASecondSignalSkipsTheWait(t *testing.T) {
	a := serve(t, dataDir(t))
	end := stalled(t, a)
	defer end()
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	close(a.hurry)
	began := time.Now()
	a.stop(t)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("hurried, it took %s", took)
	}
	end()
	again := started(t, a.dir)
	if list := again.must(t, "machine", "list"); !strings.Contains(list, "lab1") {
		t.Errorf("what was said before the hurry is lost: %s", list)
	}
}

// TestARealProcessObeysSignals runs the program as a process of its own.
func TestARealProcessObeysSignals(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := dataDir(t)
	cmd := exec.Command(exe, append([]string{"serve"}, onLoopback...)...)
	cmd.Args[0] = "lunboot"
	cmd.Env = append(os.Environ(), "LUNBOOT_DATA="+dir)
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		for s := bufio.NewScanner(errs); s.Scan(); {
			if strings.Contains(s.Text(), "the appliance is up") {
				close(up)
			}
		}
	}()
	select {
	case <-up:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatal("it is not up")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-drained
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// refusedStart checks that a start fails in one sentence.
func refusedStart(t *testing.T, dir string, flags []string, wants ...string) {
	t.Helper()
	a := launch(dir, flags...)
	defer a.cancel()
	select {
	case code := <-a.code:
		lines := strings.Split(strings.TrimSpace(a.log.String()), "\n")
		said := lines[len(lines)-1]
		if code != exitFailed || !strings.HasPrefix(said, "lunboot: ") {
			t.Errorf("%q: ended with %d and %s", flags, code, a.log)
		}
		for _, want := range wants {
			if !strings.Contains(said, want) {
				t.Errorf("%q: %q does not say %q", flags, said, want)
			}
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%q: it started", flags)
	}
}

func TestStartsThatAreRefused(t *testing.T) {
	dir := dataDir(t)
	for _, c := range []struct {
		flags []string
		wants []string
	}{
		{[]string{"--interface", "nosuch0"}, []string{"--interface", "nosuch0", "there are: ", "lo"}},
		{[]string{"--dhcp", "full"}, []string{"--dhcp full needs --interface"}},
		{[]string{"--dhcp", "full", "--interface", "lo"}, []string{"--dhcp-range"}},
		{[]string{"--dhcp-range", "10.0.0.1-10.0.0.9"}, []string{"--interface"}},
		{[]string{"--dhcp-range", "10.0.0.9-10.0.0.1", "--interface", "lo"}, []string{"--dhcp-range"}},
		{[]string{"--dhcp", "proxy"}, []string{"--dhcp proxy needs --interface"}},
		{[]string{"--dhcp", "proxy", "--interface", "lo", "--dhcp-range", "127.0.0.5-127.0.0.9"}, []string{"--dhcp proxy gives no addresses", "--dhcp-range"}},
		{[]string{"--dhcp", "proxy", "--interface", "lo", "--dhcp-listen", "127.0.0.1:0", "--pxe-listen", "elsewhere"}, []string{"elsewhere", "0.0.0.0:4011"}},
		{[]string{"--dhcp", "full", "--interface", "lo", "--dhcp-range", "10.9.8.7-10.9.8.9"}, []string{"10.9.8.7", "lo", "127.0.0.1"}},
		{[]string{"--advertise", "example.org"}, []string{"--advertise", "not an IPv4 address"}},
		{[]string{"--target", "disk1"}, []string{"--target", "disk1"}},
		{[]string{"--loaders", "/nonexistent/loaders"}, []string{"/nonexistent/loaders"}},
		{[]string{"--iscsi", "192.0.2.77:0"}, []string{"192.0.2.77", "--iscsi"}},
		{[]string{"--boot", "127.0.0.1:99999"}, []string{"--boot", "99999"}},
	} {
		refusedStart(t, dir, c.flags, c.wants...)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refusedStart(t, file, nil, file, "--data")
	started(t, dir) // and nothing of it is in the way of a good start
}

func TestATakenPortIsNamedWithItsHolder(t *testing.T) {
	dir := dataDir(t)
	tcp, tcpPID := stranger(t, "tcp", "127.0.0.1:0")
	udp, udpPID := stranger(t, "udp", "127.0.0.1:0")
	for flag, what := range map[string]struct {
		addr, name string
		pid        int
	}{"--iscsi": {tcp, "iSCSI", tcpPID}, "--boot": {tcp, "boot HTTP", tcpPID}, "--admin": {tcp, "admin HTTP", tcpPID}, "--tftp": {udp, "TFTP", udpPID}} {
		_, port, _ := net.SplitHostPort(what.addr)
		refusedStart(t, dir, []string{flag, what.addr}, what.name, "port "+port, fmt.Sprintf("(pid %d)", what.pid), flag)
	}
	started(t, dir)
}

func TestADataFolderHasOneAppliance(t *testing.T) {
	a := started(t, dataDir(t))
	refusedStart(t, a.dir, nil, fmt.Sprintf("process %d", os.Getpid()), "--data")
	a.must(t, "machine", "list") // the first one lives
}

func TestADatabaseOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := dataDir(t)
	a := serve(t, dir)
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	a.stop(t)
	path := filepath.Join(dir, "inventory.db")
	db, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refusedStart(t, dir, nil, "inventory.db", "newer lunboot", "9999")
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the newer database was written to (%v)", err)
	}
}

// TestPagesAndAPIAreOneHouse logs in as a browser does on the first run.
func TestPagesAndAPIAreOneHouse(t *testing.T) {
	a := started(t, dataDir(t))
	base := "http://" + a.Admin
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	do := func(method, path, origin, body string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if strings.HasPrefix(path, "/setup") {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
			req.Header.Set("Sec-Fetch-Site", "cross-site")
			if origin == base {
				req.Header.Set("Sec-Fetch-Site", "same-origin")
			}
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), resp.Header
	}
	const add = `{"name":"lab1","macs":["00:07:e9:0f:ea:f5"]}`
	if code, _, h := do("POST", "/api/v1/machines", "", add); code != http.StatusUnauthorized || h.Get("Content-Type") != "application/problem+json" {
		t.Errorf("nobody adds a machine: %d %s", code, h.Get("Content-Type"))
	}
	code := regexp.MustCompile(`code=(\w{4}-\w{4})`).FindStringSubmatch(a.log.String())[1]
	form := url.Values{"code": {code}, "password": {"correct horse"}}.Encode()
	if status, body, _ := do("POST", "/setup", base, form); status != http.StatusOK {
		t.Fatalf("set-up: %d %s", status, body)
	}
	if status, body, _ := do("POST", "/api/v1/machines", "http://evil.example", add); status != http.StatusForbidden {
		t.Errorf("another site adds a machine with the operator's cookie: %d %s", status, body)
	}
	if status, _, _ := do("GET", "/api/v1/machines/lab1", "", ""); status != http.StatusNotFound {
		t.Errorf("the machine of another site: %d", status)
	}
	if status, body, _ := do("POST", "/api/v1/machines", base, add); status != http.StatusCreated {
		t.Errorf("the operator's own page: %d %s", status, body)
	}
	if !strings.Contains(a.must(t, "machine", "list"), "lab1") {
		t.Error("the CLI does not see it")
	}

	// 'lunboot password' says that it ends the sessions: it does.
	var out, errs bytes.Buffer
	if code := run(t.Context(), nil, []string{"--data", a.dir, "password"}, strings.NewReader("another horse\n"), &out, &errs); code != exitDone || !strings.Contains(out.String(), "sessions were ended") {
		t.Errorf("password: %d %s%s", code, out.String(), errs.String())
	}
	if status, _, _ := do("GET", "/api/v1/machines", "", ""); status != http.StatusUnauthorized {
		t.Errorf("the old session after a new password: %d", status)
	}
	for path, want := range map[string]string{"/api/v1/nothing": "application/problem+json", "/api/nothing": "application/problem+json"} {
		if status, _, h := do("GET", path, "", ""); status != http.StatusNotFound || h.Get("Content-Type") != want {
			t.Errorf("%s: %d %s", path, status, h.Get("Content-Type"))
		}
	}
	// The boot network sees nothing of all this.
	resp, err := c.Get("http://" + a.Boot + "/api/v1/machines")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 300 {
		t.Errorf("the boot port answers the API: %d", resp.StatusCode)
	}
}

func TestEveryFlagHasItsVariable(t *testing.T) {
	a := started(t, dataDir(t))
	a.must(t, "volume", "create", "v1", "--size", "8M")
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	t.Setenv("LUNBOOT_DATA", a.dir)
	t.Setenv("LUNBOOT_BOOT", ":80") // of serve; mapping add has a --boot too
	t.Setenv("LUNBOOT_JSON", "true")
	t.Setenv("LUNBOOT_MAPPING_ADD_LUN", "7")
	var out, errs bytes.Buffer
	if code := run(t.Context(), nil, []string{"mapping", "add", "lab1", "v1"}, strings.NewReader(""), &out, &errs); code != exitDone {
		t.Fatalf("%d %s", code, errs.String())
	}
	var m store.Mapping
	if err := json.Unmarshal(out.Bytes(), &m); err != nil || m.LUN != 7 || !m.Boot {
		t.Errorf("%s (%v)", out.String(), err)
	}
	out.Reset()
	if code := run(t.Context(), nil, []string{"serve", "--help"}, strings.NewReader(""), &out, &errs); code != exitDone {
		t.Errorf("help: %d", code)
	}
	for _, env := range []string{"LUNBOOT_DATA", "LUNBOOT_SERVER", "LUNBOOT_TOKEN", "LUNBOOT_INTERFACE", "LUNBOOT_DHCP_RANGE", "LUNBOOT_ISCSI", "LUNBOOT_SCRIPT_GUARD", "LUNBOOT_LOG_FORMAT"} {
		if !strings.Contains(out.String(), "$"+env) {
			t.Errorf("the help of serve does not name %s", env)
		}
	}
}
