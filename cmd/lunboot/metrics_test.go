package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"lunboot/web/metrics"
)

// numberOf reads a gauge or a counter of an appliance that runs on dir: over all
// its labels.
func numberOf(t *testing.T, dir, name string) float64 {
	t.Helper()
	tr := overSocket(dir)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("http://lunboot" + metrics.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil || families[name] == nil {
		t.Fatalf("%s: %v, %v", name, families[name], err)
	}
	sum := 0.0
	for _, m := range families[name].Metric {
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return sum
}

// overSocket reaches the appliance that runs on dir without a token.
func overSocket(dir string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "lunboot.sock"))
	}}
}

func TestPrometheusScrapesWithATokenOrOverTheSocket(t *testing.T) {
	dir := dataDir(t)
	a := started(t, dir)
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	a.must(t, "volume", "create", "v1", "--size", "8M")
	resp, err := http.Get("http://" + a.Boot + "/boot.ipxe?mac=00:07:e9:0f:ea:f5")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	scrape := func(c *http.Client, url, token string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, url+metrics.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	admin := "http://" + a.Admin
	for _, token := range []string{"", "lb_nonsense"} {
		if status, text := scrape(http.DefaultClient, admin, token); status != http.StatusUnauthorized || strings.Contains(text, "lunboot_machines") {
			t.Errorf("with the token %q: %d, %s", token, status, text)
		}
	}
	token := regexp.MustCompile(`lb_\w+`).FindString(a.must(t, "token", "create", "prometheus", "--scope", "read"))
	socket := overSocket(dir)
	defer socket.CloseIdleConnections()
	if status, text := scrape(&http.Client{Transport: socket}, "http://lunboot", ""); status != http.StatusOK || !strings.Contains(text, "\nlunboot_machines 1\n") {
		t.Errorf("over the socket: %d, %s", status, text)
	}
	text := ""
	for end := time.Now().Add(20 * time.Second); ; { // the boot is to fail first
		var status int
		if status, text = scrape(http.DefaultClient, admin, token); status != http.StatusOK {
			t.Fatal(status, text)
		}
		if strings.Contains(text, "lunboot_boot_attempts_total{") || time.Now().After(end) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for _, want := range []string{
		`lunboot_boot_attempts_total{code="LB-`, `outcome="failed",stage="script"} 1`, `lunboot_events_total{kind="iscsi.login"} 0`, `lunboot_volumes{state="ready"} 1`,
		"lunboot_volume_size_bytes 8.388608e+06", `lunboot_service_up{service="iSCSI"} 1`, `lunboot_build_info{version="`, "go_goroutines ", "process_start_time_seconds ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in\n%s", want, text)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metrics.Table() {
		if families[m.Name] == nil && m != metrics.DHCPDropped && m != metrics.DHCPUntold { // no DHCP on loopback
			t.Errorf("%s is not shown", m.Name)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lunboot_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if strings.Contains(text, "lab1") || strings.Contains(text, "00:07:e9") {
		t.Error("a machine is in a label")
	}
	if strings.Contains(a.log.String(), "a metric cannot be") {
		t.Errorf("the log says %s", a.log)
	}
}
