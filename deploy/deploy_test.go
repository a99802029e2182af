// Package deploy_test holds what is shipped around the binary against the
// programs that will read it: dpkg, systemd, Prometheus.
package deploy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
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

	"go.yaml.in/yaml/v3"

	"lunboot/web/metrics"
)

// peer finds a program: without it a test is skipped on a laptop, and fails in CI.
func peer(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: .ci/packages should bring it", name)
	} else if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// command runs a program to its end, and fails with what it said.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// binary builds lunboot once for a test.
func binary(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "lunboot")
	command(t, "go", "build", "-o", bin, "../cmd/lunboot")
	return bin
}

// background starts a program of its own process group, waits for line in what it
// says, and ends it with the test.
func background(t *testing.T, cmd *exec.Cmd, line string) {
	t.Helper()
	var said buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	for end := time.Now().Add(time.Minute); !strings.Contains(said.String(), line); time.Sleep(20 * time.Millisecond) {
		select {
		case <-done:
			t.Fatalf("%s ended: %s", cmd.Path, said.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s never said %q: %s", cmd.Path, line, said.String())
		}
	}
}

// ports are free ones on loopback; another program may take one before it is used.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func TestTheUnitIsASandbox(t *testing.T) {
	analyze := peer(t, "systemd-analyze")
	// 10 is a service without any sandbox; a network service with two
	// capabilities that systemd calls OK is below 3.
	out := command(t, analyze, "security", "--offline=true", "--no-pager", "--threshold=30", "lunboot.service")
	if !strings.Contains(out, "OK") {
		t.Errorf("systemd says of the sandbox:\n%s", out)
	}
	// verify wants to see the program that a unit starts.
	text, err := os.ReadFile("lunboot.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "lunboot.service")
	if err := os.WriteFile(unit, bytes.ReplaceAll(text, []byte("/usr/bin/lunboot"), []byte("/bin/true")), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--man=no", unit)
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "lunboot.service:") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	promtool := peer(t, "promtool")
	command(t, promtool, "check", "rules", "prometheus/lunboot.rules.yml")
	command(t, promtool, "test", "rules", "prometheus/lunboot.rules.test.yml")
}

// ours finds the names of our own metrics in a query.
var ours = regexp.MustCompile(`\blunboot_[a-z0-9_]+`)

func known(name string) bool {
	// A histogram is three, by their ends.
	family := strings.NewReplacer("_bucket", "", "_count", "", "_sum", "").Replace(name)
	for _, m := range metrics.All() {
		if m.Name == name || m.Name == family {
			return true
		}
	}
	return false
}

// queries are those of the board, with its variables filled in.
func queries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("grafana/lunboot.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m", "$__range", "1h")
	out := map[string]string{}
	for _, p := range board.Panels {
		for i, q := range p.Targets {
			out[fmt.Sprintf("%s %d", p.Title, i)] = fill.Replace(q.Expr)
		}
	}
	if len(out) < 10 {
		t.Fatalf("the board asks for %d things only", len(out))
	}
	return out
}

func TestBoardAndAlertsAskForMetricsThatThereAre(t *testing.T) {
	rules, err := os.ReadFile("prometheus/lunboot.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	asked := string(rules)
	for _, q := range queries(t) {
		asked += "\n" + q
	}
	for _, name := range ours.FindAllString(asked, -1) {
		if !known(name) {
			t.Errorf("there is no metric %s", name)
		}
	}
}

func TestPrometheusScrapesAndTheBoardIsFilled(t *testing.T) {
	prometheus := peer(t, "prometheus")
	bin, dir := binary(t), t.TempDir()
	at := ports(t, 3)
	serve := exec.Command(bin, "serve", "--data", filepath.Join(dir, "data"), "--admin", at[0], "--boot", "127.0.0.1:0", "--tftp", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--dhcp", "off")
	background(t, serve, "the appliance is up")
	verb := func(args ...string) string {
		return command(t, bin, append([]string{"--data", filepath.Join(dir, "data")}, args...)...)
	}
	verb("machine", "add", "lab-01", "--mac", "00:07:e9:0f:ea:f5")
	verb("volume", "create", "v1", "--size", "8M")
	token := regexp.MustCompile(`lb_\w+`).FindString(verb("token", "create", "prometheus", "--scope", "read"))
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("prometheus/lunboot.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: lunboot\n    authorization: {credentials_file: token}\n    static_configs: [{targets: [%q]}]\n", rules, at[0])
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, exec.Command(prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), "--web.listen-address="+at[1]), "Server is ready")

	ask := func(q string) []any {
		t.Helper()
		resp, err := http.Get("http://" + at[1] + "/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if answer.Status != "success" {
			t.Fatalf("%s: %s", q, answer.Error)
		}
		return answer.Data.Result
	}
	for end := time.Now().Add(time.Minute); len(ask(`lunboot_machines == 1 and on() count_over_time(up{job="lunboot"}[1m]) > 2`)) == 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("Prometheus never saw the machine")
		}
	}
	for panel, q := range queries(t) {
		// No boot has ended yet and DHCP is off, so what counts those has nothing to show.
		if got := ask(q); len(got) == 0 && !strings.Contains(q, "lunboot_boot_") && !strings.Contains(q, "lunboot_dhcp_dropped") {
			t.Errorf("%s is empty: %s", panel, q)
		}
	}
	if firing := ask(`ALERTS{alertname!="LunbootSpaceLow"}`); len(firing) > 0 {
		t.Errorf("of a healthy appliance, this is told: %v", firing)
	}
}

func TestComposeRunsTheImageAsItsTopSays(t *testing.T) {
	text, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			NetworkMode string   `yaml:"network_mode"`
			CapDrop     []string `yaml:"cap_drop"`
			CapAdd      []string `yaml:"cap_add"`
			Volumes     []string
			ReadOnly    bool `yaml:"read_only"`
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	s := file.Services["lunboot"]
	unit, err := os.ReadFile("lunboot.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range s.CapAdd {
		if !strings.Contains(string(unit), "CAP_"+c) {
			t.Errorf("the container has %s, the unit has not", c)
		}
	}
	if s.NetworkMode != "host" || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" || len(s.CapAdd) != 2 || !s.ReadOnly || len(s.Volumes) != 1 || !strings.HasSuffix(s.Volumes[0], ":/var/lib/lunboot") {
		t.Errorf("the service is %+v", s)
	}
}

// Who reads the README or the guide follows what they name: pages, folders and
// pictures, which nobody waits for.
func TestWhatTheTextsNameIsThere(t *testing.T) {
	named := regexp.MustCompile(`(?:\]\(|srcset="|src=")([^)"#]+)`)
	pictures := 0
	for _, text := range []string{"../README.md", "GUIDE.md"} {
		b, err := os.ReadFile(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			st, err := os.Stat(filepath.Join(filepath.Dir(text), m[1]))
			if err != nil {
				t.Errorf("%s names what is not there: %v", text, err)
				continue
			}
			if strings.HasSuffix(m[1], ".png") {
				if pictures++; st.Size() > 150<<10 {
					t.Errorf("%s has %d KiB", m[1], st.Size()>>10)
				}
			}
		}
	}
	if pictures < 3 {
		t.Errorf("only %d pictures are found", pictures)
	}
}

// buffer takes what a program says while it is read.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
