package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"lunboot/services/notify"
)

// A machine without a volume asks for its script: its boot fails, and whoever
// listens is told why.
func TestAFailedBootIsToldToTheWebhook(t *testing.T) {
	type post struct {
		header http.Header
		body   []byte
	}
	posts := make(chan post, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- post{r.Header, body}
	}))
	defer hook.Close()
	dir := dataDir(t)
	a := started(t, dir)
	const secret = "the webhook's own secret"
	a.must(t, "setting", "set", "webhook-url", hook.URL+"/T0/hushhush")
	a.must(t, "setting", "set", "webhook-secret", secret)
	a.must(t, "machine", "add", "lab1", "--mac", "00:07:e9:0f:ea:f5")
	resp, err := http.Get("http://" + a.Boot + "/boot.ipxe?mac=00:07:e9:0f:ea:f5")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var p post
	select {
	case p = <-posts:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was told", a.log)
	}
	if p.header.Get("X-Lunboot-Signature") != notify.Sign(secret, p.body) || p.header.Get("X-Lunboot-Delivery") != "1-failed" {
		t.Errorf("the header is %v", p.header)
	}
	var n struct {
		Name    string `json:"machine_name"`
		Page    string
		Attempt struct {
			ID        int
			Outcome   string
			Diagnoses []struct{ Code, Title string }
		}
	}
	if err := json.Unmarshal(p.body, &n); err != nil {
		t.Fatal(err)
	}
	if n.Name != "lab1" || n.Page != "http://"+a.Admin+"/machines/1" || n.Attempt.Outcome != "failed" || len(n.Attempt.Diagnoses) == 0 {
		t.Errorf("told %s", p.body)
	}
	var shown any
	if err := json.Unmarshal([]byte(a.must(t, "--json", "attempt", "show", "1")), &shown); err != nil {
		t.Fatal(err)
	}
	var whole struct{ Attempt any }
	if err := json.Unmarshal(p.body, &whole); err != nil || fmt.Sprint(whole.Attempt) != fmt.Sprint(shown) {
		t.Errorf("told\n%v\nand the API says\n%v", whole.Attempt, shown)
	}
	if log := a.log.String(); strings.Contains(log, secret) || strings.Contains(log, "hushhush") {
		t.Errorf("a secret is in the log: %s", log)
	}
	if out := a.must(t, "doctor"); !strings.Contains(out, "1 told, 0 waiting, 0 lost") {
		t.Errorf("the doctor says\n%s", out)
	}
}
