package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheAdminPortSpeaksHTTPS(t *testing.T) {
	dir := dataDir(t)
	a := started(t, dir, "--tls", "self")
	printed := regexp.MustCompile(`[0-9A-F]{2}(:[0-9A-F]{2}){31}`).FindString(a.log.String())
	if printed == "" || !strings.Contains(a.log.String(), "Set up at https://") {
		t.Fatalf("neither fingerprint nor address are printed: %s", a.log)
	}
	token := regexp.MustCompile(`lb_\w+`).FindString(a.must(t, "token", "create", "far", "--scope", "admin"))
	far := func(fingerprint string) (int, string, string) {
		return cliIn(t.TempDir(), "--server", "https://"+a.Admin, "--token", token, "--fingerprint", fingerprint, "machine", "list")
	}
	if code, _, errs := far(printed); code != exitDone {
		t.Errorf("with the printed fingerprint: %d, %s", code, errs)
	}
	if code, _, errs := far(strings.Repeat("00", 32)); code != exitFailed || !strings.Contains(errs, printed) {
		t.Errorf("with another: %d, %s", code, errs)
	}
	if code, _, errs := far("short"); code != exitUsage {
		t.Errorf("with half of one: %d, %s", code, errs)
	}
	if code, _, errs := cliIn(t.TempDir(), "--server", "https://"+a.Admin, "--token", token, "machine", "list"); code != exitFailed || !strings.Contains(errs, "certificate") {
		t.Errorf("without a fingerprint: %d, %s", code, errs)
	}
	if out := a.must(t, "doctor"); !strings.Contains(out, printed) {
		t.Errorf("the doctor does not name the fingerprint: %s", out)
	}

	// The cookie never leaves in the clear, and machines are sent to the right page.
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	code := regexp.MustCompile(`code=(\w+)`).FindStringSubmatch(a.log.String())[1]
	resp, err := c.Get("https://" + a.Admin + "/setup?code=" + code)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, k := range resp.Cookies() {
		if !k.Secure {
			t.Errorf("the cookie %s goes over plain HTTP too", k.Name)
		}
	}
	if resp, err = http.Get("http://" + a.Boot + "/boot.ipxe?mac=00:07:e9:0f:ea:f5"); err != nil {
		t.Fatal(err)
	}
	script, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(script), "https://") {
		t.Errorf("the screen of a machine does not name the page under https: %v %s", err, script)
	}
}

func TestABroughtCertificateNeedsItsKey(t *testing.T) {
	dir := dataDir(t)
	for _, c := range []struct {
		flags []string
		says  string
	}{
		{[]string{"--tls-cert", "x.pem"}, "go together"},
		{[]string{"--tls-cert", "x.pem", "--tls-key", "y.pem", "--tls", "self"}, "choose one"},
		{[]string{"--tls-cert", "x.pem", "--tls-key", "y.pem"}, "x.pem"},
	} {
		code, _, errs := cliIn(dir, append(append([]string{"serve"}, onLoopback...), c.flags...)...)
		if code == exitDone || !strings.Contains(errs, c.says) {
			t.Errorf("%q: %d, %s", c.flags, code, errs)
		}
	}
	// One that the appliance made serves as one that is brought.
	first := dataDir(t)
	a := serve(t, first, "--tls", "self")
	a.stop(t)
	pem, err := os.ReadFile(filepath.Join(first, certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "own.pem")
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	b := started(t, dir, "--tls-cert", file, "--tls-key", file)
	if out := b.must(t, "doctor"); !strings.Contains(out, file) {
		t.Errorf("the doctor does not say whose certificate it is: %s", out)
	}
}
